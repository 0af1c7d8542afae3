//! The command line proper: which verbs there are, and what a shell is told when one has ended.
//!
//! It owns parsing and dispatch. It does not know what a verb does.

use std::process::ExitCode;

use clap::{Parser, Subcommand, error::ErrorKind};
use tracing_subscriber::EnvFilter;

use crate::{
    backup, bench, events, explain, failure,
    failure::{Failure, FailureKind},
    list,
    notice::say,
    prune, restore, run, serve, show, verify,
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
    /// List processes
    List(list::ListArgs),
    /// Show one process
    Show(show::ShowArgs),
    /// Explain where one process stands, and what happens to it next
    ///
    /// It reads the store beside a live host, and says what that host, or the next one, does with the process: which step
    /// comes next and who takes it, since when, and by which rule.
    #[command(after_help = explain::exit_code_help())]
    Explain(explain::ExplainArgs),
    /// Show the events of one process
    Events(events::EventsArgs),
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
        Verb::List(args) => list::run(args).await,
        Verb::Show(args) => show::run(args).await,
        Verb::Explain(args) => explain::run(args).await,
        Verb::Events(args) => events::run(args).await,
        Verb::Verify(args) => verify::run(args).await,
        Verb::Backup(args) => backup::run(args).await,
        Verb::Restore(args) => restore::run(args).await,
        Verb::Prune(args) => prune::run(args).await,
        Verb::Bench(args) => bench::run(args).await,
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
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => fail(Failure::new(
            FailureKind::Usage,
            "no verb: say `run`, `serve`, `list`, `show`, `explain`, `events`, `verify`, `backup`, `restore`, `prune` or `bench`, see \
             --help",
        )),
        _ => {
            let text = error.to_string();
            let first = text.split("\n\n").next().unwrap_or(&text);
            let first = first.strip_prefix("error: ").unwrap_or(first);
            fail(Failure::new(FailureKind::Usage, format!("{first}; see --help")))
        }
    }
}
