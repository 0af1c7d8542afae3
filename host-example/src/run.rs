//! `proctor run`: one command as a durable process, and before it what earlier hosts left behind.
//!
//! It owns the order of the whole: check, take the store, register, recover, run, give the store back, say what came of it.
//! It does not know how any of these is done.

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
    domain::{ParentEndRule, ProcessId, ProcessParent, ProcessRegistration, RecoveryDisposition, Refusal, RetryPolicy},
    port::{ProcessRegistryExt, RegistryError},
};

use host_example::output::DEFAULT_MAX_OUTPUT_BYTES;

use crate::{
    attempt::summary,
    command_process::CommandProcess,
    default_id::default_id,
    duration_text,
    failure::{Failure, FailureKind},
    host::Host,
    interrupt::Interrupts,
    notice::say,
    own_run::{OwnEnd, OwnRun},
    recovery::Recovery,
    recovery_news::RecoveryNews,
    store::OwnedStore,
    store_choice::typed_id,
    store_set::StoreSet,
};

/// The pause after the first failed attempt unless stated otherwise.
const DEFAULT_BACKOFF_MS: u64 = 1_000;

/// How far the pause between two attempts grows.
const LONGEST_BACKOFF_MS: u64 = 300_000;

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
    /// How often a rerunnable command is tried, the first time included: an attempt that fails, or whose host dies, is
    /// followed by another up to this number. Without it a failure is final, and an attempt whose host died is always made
    /// again.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_attempts: Option<u32>,
    /// How long to wait after the first failed attempt, such as `500ms` or `2m`; it doubles with each further one, up to five
    /// minutes. By default 1s.
    #[arg(long, value_name = "DURATION", requires = "max_attempts", value_parser = duration_text::to_ms)]
    backoff: Option<u64>,
    /// How long after its registration the process has to end, such as `90s` or `1h 30m`: it is cancelled then, fails, and
    /// `run` exits with 124. It counts across hosts and attempts.
    #[arg(long, value_name = "DURATION", value_parser = duration_text::to_ms)]
    deadline: Option<u64>,
    /// How long one attempt may take, such as `30s`: its command is ended then, and the attempt has failed. Where another one may follow,
    /// that has as much time again; otherwise the process fails, and `run` exits with 124.
    #[arg(long, value_name = "DURATION", value_parser = duration_text::to_ms)]
    time_limit: Option<u64>,
    /// The process of the same store on whose behalf this one runs: when that ends or is asked to stop, this one is asked
    /// to stop too.
    #[arg(long, value_name = "ID")]
    parent: Option<String>,
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
    let registration = declared(&args, command.registration(id.clone(), args.disposition.into()))?;
    let store = take_store(args.store.as_deref())?;
    let host = Host::start(store, "run").await?;
    let news = RecoveryNews::start(&host.registry, id.clone());
    let ended = run_in(&host, &args, registration, &interrupts).await;
    host.shut_down().await;
    news.finish().await;
    let OwnEnd { outcome, events, exit_code } = ended?;
    say(format_args!("{id}: {events} events, {}", summary(&outcome)));
    Ok(ExitCode::from(exit_code))
}

async fn run_in(
    host: &Host,
    args: &RunArgs,
    registration: ProcessRegistration,
    interrupts: &Interrupts,
) -> Result<OwnEnd, Failure> {
    let id = registration.id.clone();
    check_parent(host, &registration).await?;
    register(host, registration).await?;
    let recovery = if args.no_recover { None } else { Some(Recovery::start(host, &id, interrupts).await?) };
    let ended = OwnRun::carry_out(host, &id, interrupts).await;
    // They were promised an end, whatever became of our own.
    if let Some(recovery) = recovery {
        recovery.finish().await;
    }
    ended
}

/// The registration with what the options declare about its execution.
fn declared(args: &RunArgs, registration: ProcessRegistration) -> Result<ProcessRegistration, Failure> {
    let mut registration = registration.with_tags(args.tag.clone());
    if let Some(max_attempts) = args.max_attempts {
        if args.disposition != Disposition::Rerunnable {
            let line = "--max-attempts needs --disposition rerunnable: any other command is run once at most";
            return Err(Failure::new(FailureKind::Usage, line));
        }
        let initial_backoff_ms = args.backoff.unwrap_or(DEFAULT_BACKOFF_MS);
        let max_backoff_ms = initial_backoff_ms.max(LONGEST_BACKOFF_MS);
        registration = registration.with_retry(RetryPolicy { max_attempts, initial_backoff_ms, max_backoff_ms });
    }
    if let Some(deadline_ms) = args.deadline {
        registration = registration.with_deadline_ms(deadline_ms);
    }
    if let Some(parent) = &args.parent {
        let process_id = typed_id(parent)?;
        registration = registration.with_parent(ProcessParent { process_id, on_end: ParentEndRule::RequestCancel });
    }
    Ok(registration)
}

/// The registry takes any parent, for it may come later. Who types one means one that is there, or was.
async fn check_parent(host: &Host, registration: &ProcessRegistration) -> Result<(), Failure> {
    let Some(parent) = registration.parent.as_ref().map(|parent| &parent.process_id) else { return Ok(()) };
    let is_known = host.registry.get_process(parent).await?.is_some()
        || host.registry.get_tombstone(parent).await?.is_some()
        || *parent == registration.id;
    if is_known {
        return Ok(());
    }
    let line = format!("the parent `{parent}` is unknown in store {}", host.store.display());
    Err(Failure::new(FailureKind::NoInput, line))
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
        time_limit_ms: args.time_limit,
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
