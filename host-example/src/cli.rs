//! The command line proper: which verbs there are, and what a shell is told when one has ended.
//!
//! It owns parsing and dispatch. It does not know what a verb does.

use std::process::ExitCode;

use clap::{
    CommandFactory, Parser, Subcommand,
    error::{ContextKind, ErrorKind},
};
use tracing_subscriber::EnvFilter;

use crate::{
    backup, bench, completions, events, explain, failure,
    failure::{Failure, FailureKind},
    list,
    notice::say,
    open, prune, restore, run, serve, show, signal,
    stop_request::{self, StopRequest},
    submit, verify, wait,
};

/// The variable that turns diagnostics on, such as `PROCTOR_LOG=debug`.
const LOG_VARIABLE: &str = "PROCTOR_LOG";

/// What is logged unless the variable says otherwise. What the registry logs of a failure reaches us as an error too,
/// and then is said in one line; its own account of a full disk takes twenty.
const DEFAULT_LOG_FILTER: &str = "warn,registry_actor=off";

/// Commands as durable processes: what ran, what it said and how it ended survives a crash of the host.
#[derive(Parser, Debug)]
#[command(name = "proctor", version, about, after_help = failure::exit_code_help())]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Run a command as a durable process
    ///
    /// Its stdin is empty. Each line of its output is stored and then shown. When this host dies, the command dies with it, and the next
    /// host on the same store takes care of what was left: a rerunnable command is run again, any other that was begun
    /// is declared abandoned, and one that never began is run. What is recovered writes to the store only, is told of in
    /// lines on stderr, and leaves the exit code alone. Ctrl-C or SIGTERM cancels the command: it is asked to end, and
    /// killed after ten seconds or at the second Ctrl-C.
    #[command(after_help = failure::exit_code_help())]
    Run(run::RunArgs),
    /// Serve the page, the HTTP interface and this command line until it is stopped
    #[command(after_help = failure::exit_code_help())]
    Serve(serve::ServeArgs),
    /// Submit a command to the host that runs, and print the id of its process
    ///
    /// The host runs it, and this command is done. Without a host the process is registered all the same, and starts with the next one.
    #[command(after_help = failure::exit_code_help())]
    Submit(submit::SubmitArgs),
    /// Wait until processes have ended, or until something happened to one
    #[command(after_help = wait::exit_code_help())]
    Wait(wait::WaitArgs),
    /// List processes
    #[command(visible_aliases = ["ls", "ps"])]
    List(list::ListArgs),
    /// Show one process
    Show(show::ShowArgs),
    /// Explain where one process stands, and what happens to it next
    ///
    /// It reads the store beside a live host, and says what that host, or the next one, does with the process: which step
    /// comes next and who takes it, since when, and by which rule.
    #[command(after_help = explain::exit_code_help())]
    Explain(explain::ExplainArgs),
    /// Show the events of one process, and follow them
    Events(events::EventsArgs),
    /// Show what the command of one process wrote: `events --output`
    Logs(events::LogsArgs),
    /// Send a signal to a process: a word with a payload, which it waits for
    Signal(signal::SignalArgs),
    /// Ask processes to end
    ///
    /// A command that runs is asked to end, and killed after ten seconds. One that does not run yet never begins.
    #[command(visible_alias = "kill")]
    Cancel(stop_request::StopArgs),
    /// Allow processes to be abandoned: they end so once nobody holds them
    Abandon(stop_request::StopArgs),
    /// Print a link by which a browser comes in to the page of the host that runs
    Open(open::OpenArgs),
    /// Check that what is stored is undamaged
    Verify(verify::VerifyArgs),
    /// Copy a store, a live host's too, and check the copy
    Backup(backup::BackupArgs),
    /// Make a store of a backup
    ///
    /// All of the backup is checked first. The store keeps its id and gets a new epoch, so that cursors of before are refused. Leases in
    /// it are those of dead hosts only where the original was replaced; elsewhere they end by time, since its host may live.
    Restore(restore::RestoreArgs),
    /// Remove processes that ended long ago, and give their disk space back
    Prune(prune::PruneArgs),
    /// Measure what the registry costs on this machine
    Bench(bench::BenchArgs),
    /// Print a script that lets a shell complete this command line
    Completions(completions::CompletionsArgs),
}

/// Parses the arguments, runs the verb and tells the exit code.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    // A host that stays has settings for its log.
    if !matches!(cli.verb, Verb::Serve(_)) {
        let filter = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new(DEFAULT_LOG_FILTER));
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(Failure::new(FailureKind::System, format!("no runtime: {error}"))),
    };
    let ended = runtime.block_on(dispatch(cli.verb));
    // What still blocks, such as a write to a terminal that is stopped, is nothing to wait for.
    runtime.shutdown_background();
    ended.unwrap_or_else(fail)
}

async fn dispatch(verb: Verb) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Run(args) => run::run(args).await,
        Verb::Serve(args) => serve::run(args).await,
        Verb::Submit(args) => submit::run(args).await,
        Verb::Wait(args) => wait::run(args).await,
        Verb::List(args) => list::run(args).await,
        Verb::Show(args) => show::run(args).await,
        Verb::Explain(args) => explain::run(args).await,
        Verb::Events(args) => events::run(args).await,
        Verb::Logs(args) => events::run(args.into()).await,
        Verb::Signal(args) => signal::run(args).await,
        Verb::Cancel(args) => stop_request::run(StopRequest::Cancel, args).await,
        Verb::Abandon(args) => stop_request::run(StopRequest::Abandon, args).await,
        Verb::Open(args) => open::run(args).await,
        Verb::Verify(args) => verify::run(args).await,
        Verb::Backup(args) => backup::run(args).await,
        Verb::Restore(args) => restore::run(args).await,
        Verb::Prune(args) => prune::run(args).await,
        Verb::Bench(args) => bench::run(args).await,
        Verb::Completions(args) => completions::run(&args, Cli::command()),
    }
}

fn fail(failure: Failure) -> ExitCode {
    say(&failure);
    failure.into()
}

/// Help and version are what was asked for. Anything else is one line, and its number is not clap's but that of a
/// usage error.
fn refuse(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A reader that has gone has read enough.
            drop(error.print());
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            let command = Cli::command();
            let verbs: Vec<_> = command.get_subcommands().map(|verb| format!("`{}`", verb.get_name())).collect();
            fail(Failure::new(FailureKind::Usage, format!("no verb: say one of {}; see --help", verbs.join(", "))))
        }
        _ => {
            let text = error.to_string();
            let first = text.split("\n\n").next().unwrap_or(&text);
            let first = first.strip_prefix("error: ").unwrap_or(first);
            let words: Vec<String> = std::env::args().skip(1).collect();
            let hint = hint(error, &words).map_or_else(String::new, |hint| format!("; {hint}"));
            fail(Failure::new(FailureKind::Usage, format!("{first}{hint}; see --help")))
        }
    }
}

/// What was meant, if it can be told.
fn hint(error: &clap::Error, words: &[String]) -> Option<String> {
    let context = |kind| match error.get(kind)? {
        clap::error::ContextValue::String(word) => Some(word.clone()),
        clap::error::ContextValue::Strings(words) => words.first().cloned(),
        _ => None,
    };
    let takes_command = matches!(words.first().map(String::as_str), Some("run" | "submit"));
    if error.kind() == ErrorKind::UnknownArgument && takes_command && !words.iter().any(|word| word == "--") {
        let unknown = context(ContextKind::InvalidArg)?;
        let place = words.iter().position(|word| *word == unknown)?;
        if !unknown.starts_with('-') {
            let (before, command) = words.split_at(place);
            let line = format!("proctor {} -- {}", before.join(" "), command.join(" "));
            return Some(format!("the command goes after `--`: `{line}`"));
        }
    }
    let meant = context(ContextKind::SuggestedSubcommand)
        .or_else(|| context(ContextKind::SuggestedArg))
        .or_else(|| context(ContextKind::SuggestedValue))?;
    Some(format!("did you mean `{meant}`?"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const DOCUMENT: &str = include_str!("../../docs/cli.md");

    /// The first words of the rows of the table under a heading.
    fn rows(heading: &str) -> Vec<Vec<String>> {
        let section = DOCUMENT.split("\n## ").find(|section| section.starts_with(heading)).expect("a section");
        let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
        rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_document_names_every_verb_and_no_other() {
        let command = Cli::command();
        let verbs: BTreeSet<String> = command
            .get_subcommands()
            .flat_map(|verb| {
                std::iter::once(verb.get_name()).chain(verb.get_visible_aliases()).map(|name| format!("`{name}`"))
            })
            .collect();
        let documented: BTreeSet<String> =
            rows("Verbs").iter().flat_map(|row| row[0].split(", ").map(str::to_owned).collect::<Vec<_>>()).collect();
        assert_eq!(documented, verbs);
    }

    #[test]
    fn the_document_has_the_exit_codes_of_the_help() {
        let documented: BTreeSet<(String, String)> =
            rows("Exit codes").into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
        for kind in FailureKind::ALL {
            let row = (kind.code().to_string(), kind.meaning().to_owned());
            assert!(documented.contains(&row), "{row:?} is not in {documented:#?}");
        }
    }

    fn hint_of(words: &[&str]) -> Option<String> {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        let error =
            Cli::try_parse_from(std::iter::once("proctor".to_owned()).chain(words.clone())).expect_err("a mistake");
        hint(&error, &words)
    }

    #[test]
    fn the_mistakes_that_people_make_are_answered_with_what_they_meant() {
        let forgotten = hint_of(&["submit", "--wait", "echo", "hi"]).expect("a hint");
        assert_eq!(forgotten, "the command goes after `--`: `proctor submit --wait -- echo hi`");
        assert_eq!(hint_of(&["sumbit"]).as_deref(), Some("did you mean `submit`?"));
        assert_eq!(hint_of(&["list", "--jsn"]).as_deref(), Some("did you mean `--json`?"));
        assert_eq!(hint_of(&["list", "--status", "runing"]).as_deref(), Some("did you mean `running`?"));
        assert_eq!(hint_of(&["zzz"]), None);
    }
}
