//! `proctor run`: one command as a durable process, and before it what earlier hosts left behind.
//!
//! It owns the order of the whole: check, take the store, register, recover, run, say what came of it, give the store
//! back. It does not know how any of these is done.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    path::{self, PathBuf},
    process::ExitCode,
};

use clap::{ArgAction, Args, ValueEnum};
use jiff::Timestamp;
use registry_actor::{
    domain::{ProcessId, ProcessRegistration, RecoveryDisposition, Refusal},
    port::{ProcessRegistryExt, RegistryError},
};

use host_example::output::DEFAULT_MAX_OUTPUT_BYTES;

use crate::{
    attempt::{AttemptEnd, Audience, Display, summary},
    command_process::CommandProcess,
    default_id::default_id,
    failure::{Failure, FailureKind},
    host::Host,
    interrupt::Interrupts,
    notice::say,
    recovery::{self, SweepRuns, Takeover},
    store::OwnedStore,
    store_set::StoreSet,
};

/// Runs a command as a durable process.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// The store; by default the first of the user's stores that no other host owns.
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
    /// The id of the process; by default a unique one.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// What a later host does with the process if this one dies: run it again, or declare it abandoned.
    #[arg(long, value_enum, default_value_t = Disposition::OwnerBound)]
    disposition: Disposition,
    /// The directory to run in; by default the present one.
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// A variable of the command's environment. KEY=VALUE is stored; KEY alone passes the present value and stores the
    /// name only.
    #[arg(long, value_name = "KEY[=VALUE]", action = ArgAction::Append)]
    env: Vec<String>,
    /// How much output is recorded and shown, in bytes, and at most a line for each 64 of them; the rest is counted.
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_MAX_OUTPUT_BYTES)]
    max_output: u64,
    /// A word by which lists find the process; may be given several times.
    #[arg(long, value_name = "TAG", action = ArgAction::Append)]
    tag: Vec<String>,
    /// Leave alone what earlier hosts left in the store.
    #[arg(long = "no-recover", action = ArgAction::SetTrue)]
    no_recover: bool,
    /// The command and its arguments, after `--`. Nothing is interpreted by a shell.
    #[arg(value_name = "COMMAND", required = true, last = true)]
    command: Vec<OsString>,
}

/// The dispositions that a command can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Disposition {
    /// A later host runs it again.
    Rerunnable,
    /// Once started, it is this host's or nobody's.
    OwnerBound,
}

impl From<Disposition> for RecoveryDisposition {
    fn from(disposition: Disposition) -> Self {
        match disposition {
            Disposition::Rerunnable => Self::Rerunnable,
            Disposition::OwnerBound => Self::OwnerBound,
        }
    }
}

/// Runs the verb.
///
/// # Errors
/// When it is `proctor` that failed, and not the command.
pub(crate) async fn run(args: RunArgs) -> Result<ExitCode, Failure> {
    let command = command_of(&args)?;
    // A value that is missing is missing for the command too: better said before anything is written.
    command
        .environment()
        .map_err(|error| Failure::new(FailureKind::Usage, format!("--env: {error}").replace(" that it needs", "")))?;
    let id = id_of(&args, &command)?;
    let interrupts = Interrupts::listen()
        .map_err(|error| Failure::new(FailureKind::System, format!("cannot handle signals: {error}")))?;
    let store = take_store(args.store.as_deref())?;
    let host = Host::start(store).await?;
    let ended = run_in(&host, &args, command, id, &interrupts).await;
    host.shut_down().await;
    ended
}

async fn run_in(
    host: &Host,
    args: &RunArgs,
    command: CommandProcess,
    id: ProcessId,
    interrupts: &Interrupts,
) -> Result<ExitCode, Failure> {
    let registration = command.registration(id.clone(), args.disposition.into()).with_tags(args.tag.clone());
    register(host, registration).await?;
    let recovered = if args.no_recover { Vec::new() } else { recovery::sweep(host, &id).await? };
    let recovered = SweepRuns::start(recovered, interrupts);
    let ended = run_own(host, &id, interrupts).await;
    // They were promised an end, whatever became of our own.
    recovered.finish().await;
    let (outcome_line, code) = ended?;
    say(outcome_line);
    Ok(code)
}

/// Registers the process. What is there already under the id is ours only if it is the very same and has not ended.
async fn register(host: &Host, registration: ProcessRegistration) -> Result<(), Failure> {
    let (store, id) = (host.store.display(), registration.id.clone());
    let taken = |what: String| Failure::new(FailureKind::CannotCreate, what);
    let record = match host.registry.register_process(registration).await {
        Ok(record) => record,
        Err(RegistryError::Refused(Refusal::RegistrationConflict { .. })) => {
            return Err(taken(format!("the id `{id}` is taken by another command in store {store}")));
        }
        Err(error) => return Err(Failure::from(error).while_doing("the process cannot be registered")),
    };
    match record.status.await_output() {
        None => Ok(()),
        Some(outcome) => Err(taken(format!(
            "process `{id}` in store {store} has ended already, it is {}: it is not run again",
            summary(outcome)
        ))),
    }
}

/// Runs our own command and tells the line and the code of its end.
async fn run_own(host: &Host, id: &ProcessId, interrupts: &Interrupts) -> Result<(String, ExitCode), Failure> {
    let attempt = match recovery::take_over(host, id).await? {
        Takeover::Run(attempt) => attempt,
        Takeover::Abandoned(outcome) => {
            let line = format!("process `{id}` was begun by an earlier host and is {}", summary(&outcome));
            return Err(Failure::new(FailureKind::Unavailable, line));
        }
        Takeover::Left { reason } => {
            return Err(Failure::new(FailureKind::Unavailable, format!("process `{id}` cannot be run: {reason}")));
        }
    };
    let display =
        Display::start().map_err(|error| Failure::new(FailureKind::System, format!("cannot show output: {error}")))?;
    let end = attempt.run(interrupts, Audience::Caller(display.clone())).await;
    tokio::select! {
        () = display.finish() => {}
        () = interrupts.second() => {}
    }
    match end? {
        AttemptEnd::Ended { outcome, exit_code, events } => {
            let line = format!("{id}: {events} events, {}", summary(&outcome));
            Ok((line, ExitCode::from(exit_code)))
        }
        AttemptEnd::Stopped => Err(Failure::new(FailureKind::Temporary, format!("process `{id}` was stopped"))),
    }
}

fn take_store(named: Option<&path::Path>) -> Result<OwnedStore, Failure> {
    match named {
        Some(path) => OwnedStore::take(path).map_err(Failure::from),
        None => {
            let store = StoreSet::of_user()?.take_first_free()?;
            say(format_args!("store {}", store.path.display()));
            Ok(store)
        }
    }
}

fn command_of(args: &RunArgs) -> Result<CommandProcess, Failure> {
    let argv = args.command.iter().map(|word| text(word.clone(), "the command line")).collect::<Result<_, _>>()?;
    let cwd = match &args.cwd {
        Some(directory) => path::absolute(directory),
        None => env::current_dir(),
    };
    let cwd = cwd.map_err(|error| Failure::new(FailureKind::Usage, format!("no directory to run in: {error}")))?;
    let mut variables = BTreeMap::new();
    let mut env_names = Vec::new();
    for variable in &args.env {
        let (name, value) = match variable.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (variable.as_str(), None),
        };
        if name.is_empty() {
            return Err(Failure::new(FailureKind::Usage, format!("--env {variable:?} names no variable")));
        }
        match value {
            Some(value) => drop(variables.insert(name.to_owned(), value.to_owned())),
            None => env_names.push(name.to_owned()),
        }
    }
    env_names.sort_unstable();
    env_names.dedup();
    Ok(CommandProcess {
        argv,
        cwd: text(cwd.into_os_string(), "the directory")?,
        env: variables,
        env_names,
        max_output_bytes: args.max_output,
    })
}

/// What is stored has to be text: JSON knows nothing else.
fn text(words: OsString, what: &str) -> Result<String, Failure> {
    words.into_string().map_err(|words| Failure::new(FailureKind::Usage, format!("{what} is not UTF-8: {words:?}")))
}

fn id_of(args: &RunArgs, command: &CommandProcess) -> Result<ProcessId, Failure> {
    let id = match &args.id {
        Some(id) => id.clone(),
        None => {
            let random = getrandom::u32()
                .map_err(|error| Failure::new(FailureKind::System, format!("no randomness for an id: {error}")))?;
            default_id(command.argv.first().map_or("", String::as_str), Timestamp::now(), random)
        }
    };
    ProcessId::new(id).map_err(|error| Failure::new(FailureKind::Usage, error.to_string()))
}
