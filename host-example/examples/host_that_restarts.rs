//! A host that outlives its registry: when the root has ended, it starts another over the same log.
//!
//! A registry starts its own actors again. One that cannot go on, because a supervisor of it failed too often or because its
//! root itself was killed, ends and tells whoever it is linked to. What was committed is in the log, and the log stays open:
//! the next registry finds every process as it was. Whoever called the ended one got an error that says whether anything may
//! have changed, and asks the host for the registry of now.
//!
//! Run it with `cargo run -p host-example --example host_that_restarts`.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use awaiter::{AwaitError, ProcessAwaiter};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use registry_actor::actor::{
    ActorRegistry, RegistryFailed, RegistryOptions, RestartDecision, RestartHistory, RestartPolicy,
};
use registry_actor::domain::{
    ProcessAwaitOutput, ProcessEventAppendRequest, ProcessEventType, ProcessId, ProcessInput, ProcessRegistration,
    RecoveryDisposition,
};
use registry_actor::log::{SqliteLog, SqliteOptions};
use registry_actor::port::{ProcessLog, ProcessRegistryExt};
use serde_json::json;
use tokio::sync::watch;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let outcome = run_host(&directory.path().join("store.db"), |registry, _| registry.root().kill()).await?;
    println!("outcome, over two registries: {}", serde_json::to_string(&outcome)?);
    Ok(())
}

/// Starts a process, has its registry struck, and ends it with the next registry. Answers what a waiter heard.
async fn run_host(store: &Path, strike: impl FnOnce(&ActorRegistry, &ProcessId)) -> anyhow::Result<ProcessAwaitOutput> {
    let log: Arc<dyn ProcessLog> = Arc::new(SqliteLog::open(store, SqliteOptions::default())?);
    let current = watch::Sender::new(None);
    let registries = Registries(current.subscribe());
    let (host, task) = Actor::spawn(None, Host, HostArguments { log, current }).await?;

    let first = registries.now().await?;
    let id = ProcessId::new("greeting-1")?;
    let input = ProcessInput::new("greeting", json!({ "name": "world" }));
    let registration = ProcessRegistration::new(id.clone(), input, RecoveryDisposition::Rerunnable)
        .with_extra_event_types([ProcessEventType::plain("greeting.said")]);
    first.register_process(registration).await?;
    first.append_event(&id, ProcessEventAppendRequest::new("greeting.said", json!({ "text": "hello" }))).await?;
    let waiting = tokio::spawn(await_over_registries(registries.clone(), id.clone()));

    strike(&first, &id);
    first.root().wait(None).await?;

    let next = registries.after(&first).await?;
    next.complete_process(&id, ProcessAwaitOutput::success(json!({ "words": 1 }))).await?;
    let outcome = waiting.await??;
    host.cast(ToHost::End)?;
    task.await?;
    Ok(outcome)
}

/// A waiter of a registry that has ended is told so, and waits on at the next one: the outcome is in the log.
async fn await_over_registries(registries: Registries, id: ProcessId) -> anyhow::Result<ProcessAwaitOutput> {
    let mut registry = registries.now().await?;
    loop {
        match ProcessAwaiter::attached(Arc::new(registry.clone())).await_terminal(&id).await {
            Err(AwaitError::SourceClosed { .. }) => registry = registries.after(&registry).await?,
            answer => return Ok(answer?),
        }
    }
}

/// Where everybody in the host finds the registry of now.
#[derive(Clone)]
struct Registries(watch::Receiver<Option<ActorRegistry>>);

impl Registries {
    async fn now(&self) -> anyhow::Result<ActorRegistry> {
        self.find(|_| true).await
    }

    /// The one that follows after `ended`.
    async fn after(&self, ended: &ActorRegistry) -> anyhow::Result<ActorRegistry> {
        let ended = ended.root().get_id();
        self.find(|registry| registry.root().get_id() != ended).await
    }

    async fn find(&self, is_it: impl Fn(&ActorRegistry) -> bool) -> anyhow::Result<ActorRegistry> {
        let mut registries = self.0.clone();
        let found = registries.wait_for(|registry| registry.as_ref().is_some_and(&is_it)).await;
        found.ok().and_then(|registry| registry.clone()).ok_or_else(|| anyhow::anyhow!("the host has ended"))
    }
}

/// The supervisor of the registry.
struct Host;

struct HostArguments {
    log: Arc<dyn ProcessLog>,
    current: watch::Sender<Option<ActorRegistry>>,
}

struct HostState {
    log: Arc<dyn ProcessLog>,
    current: watch::Sender<Option<ActorRegistry>>,
    began: Instant,
    failures: RestartHistory,
}

/// What the host hears.
enum ToHost {
    /// The delay before the registry is started again is over.
    StartRegistry,
    End,
}

impl HostState {
    async fn start_registry(&self, myself: &ActorRef<ToHost>) -> Result<(), ActorProcessingErr> {
        let (log, options) = (Arc::clone(&self.log), options());
        let registry = ActorRegistry::start_linked(log, options, myself.get_cell()).await?;
        self.current.send_replace(Some(registry));
        Ok(())
    }
}

fn options() -> RegistryOptions {
    let mut options = RegistryOptions::default();
    // So that the test sees a registry give up at the first failure. A host leaves the default.
    if cfg!(test) {
        options.supervisor_restart.failures_allowed = 0;
    }
    options
}

impl Actor for Host {
    type Msg = ToHost;
    type State = HostState;
    type Arguments = HostArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<ToHost>,
        HostArguments { log, current }: HostArguments,
    ) -> Result<HostState, ActorProcessingErr> {
        let host = HostState { log, current, began: Instant::now(), failures: RestartHistory::default() };
        host.start_registry(&myself).await?;
        Ok(host)
    }

    async fn handle(
        &self,
        myself: ActorRef<ToHost>,
        message: ToHost,
        host: &mut HostState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ToHost::StartRegistry => host.start_registry(&myself).await?,
            ToHost::End => {
                // Taken out first: the end of its root is no failure then.
                match host.current.send_replace(None) {
                    Some(registry) => drop(registry.shut_down(Duration::from_secs(10)).await),
                    // It ended just now, and left the log open.
                    None => host.log.close().await,
                }
                myself.stop(None);
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<ToHost>,
        event: SupervisionEvent,
        host: &mut HostState,
    ) -> Result<(), ActorProcessingErr> {
        let (ended, failure) = match &event {
            SupervisionEvent::ActorFailed(actor, error) => {
                (actor.get_id(), error.downcast_ref::<RegistryFailed>().cloned())
            }
            SupervisionEvent::ActorTerminated(actor, ..) => (actor.get_id(), None),
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => return Ok(()),
        };
        // The event holds the state of the dead root, and its waiters are told when that is dropped.
        drop(event);
        let is_current = host.current.borrow().as_ref().is_some_and(|registry| registry.root().get_id() == ended);
        if !is_current {
            return Ok(());
        }
        host.current.send_replace(None);
        // With a delay, and not for ever: a store that is beyond help is somebody else's to mend.
        match host.failures.record_failure(host.began.elapsed(), &RestartPolicy::default()) {
            RestartDecision::After(delay) => drop(myself.send_after(delay, || ToHost::StartRegistry)),
            RestartDecision::Quarantine(_) => {
                let reason = failure.map_or_else(|| "its root was killed".to_owned(), |failure| failure.to_string());
                return Err(format!("the registry ends again and again: {reason}").into());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the host to its end; answers what the waiter heard and what the store then holds.
    async fn run(strike: impl FnOnce(&ActorRegistry, &ProcessId)) {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let store = directory.path().join("store.db");
        let outcome = tokio::time::timeout(Duration::from_secs(60), run_host(&store, strike)).await;
        let expected = ProcessAwaitOutput::success(json!({ "words": 1 }));
        assert_eq!(outcome.expect("the host ends").expect("its work is done"), expected);
        let log = SqliteLog::open(&store, SqliteOptions::default()).expect("the store was closed");
        let registry = ActorRegistry::start(Arc::new(log), RegistryOptions::default()).await.expect("it starts");
        let id = ProcessId::new("greeting-1").expect("a valid id");
        let page = registry.events_page(&id, registry_actor::domain::Sequence(0), 10).await.expect("a read");
        let types: Vec<_> = page.events.iter().map(|event| event.event_type.to_string()).collect();
        assert_eq!(types, ["greeting.said", "process.completed"], "one of each registry");
    }

    #[tokio::test]
    async fn the_next_registry_goes_on_when_the_root_was_killed() {
        run(|registry, _| registry.root().kill()).await;
    }

    #[tokio::test]
    async fn the_next_registry_goes_on_when_the_first_gave_up() {
        run(|registry, id| registry.supervisors_of(id)[0].kill()).await;
    }
}
