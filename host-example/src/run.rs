//! `proctor run`: one command as a durable process, and before it what earlier hosts left behind.
//!
//! It owns the order of the whole: check, take the store, register, recover, run, give the store back, say what came of it.
//! It does not know how any of these is done.

use std::{path, path::PathBuf, process::ExitCode};

use clap::{ArgAction, Args};
use registry_actor::{
    domain::{ProcessRegistration, Refusal},
    port::{ProcessRegistryExt, RegistryError},
};

use crate::{
    attempt::summary,
    command_args::CommandArgs,
    failure::{Failure, FailureKind},
    host::Host,
    interrupt::Interrupts,
    notice::say,
    own_run::{OwnEnd, OwnRun},
    recovery::Recovery,
    recovery_news::RecoveryNews,
    store::OwnedStore,
    store_set::StoreSet,
};

/// Runs a command as a durable process.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// The store; by default the first of the user's stores that no other host owns.
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
    /// Leave alone what earlier hosts left in the store.
    #[arg(long = "no-recover", action = ArgAction::SetTrue)]
    no_recover: bool,
    #[command(flatten)]
    command: CommandArgs,
}

/// Runs the verb.
///
/// # Errors
/// When it is `proctor` that failed, and not the command.
pub(crate) async fn run(args: RunArgs) -> Result<ExitCode, Failure> {
    let command = args.command.command()?;
    // A value that is missing is missing for the command too: better said before anything is written.
    command
        .environment()
        .map_err(|error| Failure::new(FailureKind::Usage, format!("--env: {error}").replace(" that it needs", "")))?;
    let registration = args.command.registration(&command)?;
    let id = registration.id.clone();
    let interrupts = Interrupts::listen()
        .map_err(|error| Failure::new(FailureKind::System, format!("cannot handle signals: {error}")))?;
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
