//! Supervisors that fail, and what becomes of a registry that gives up.

use std::sync::Arc;
use std::time::Duration;

use awaiter::{AwaitError, ProcessAwaiter};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use registry_actor::actor::{ActorRegistry, RegistryFailed, RegistryOptions};
use registry_actor::domain::ProcessAwaitOutput;
use registry_actor::log::MemoryLog;
use registry_actor::port::{FaultPoint, ProcessLog, ProcessRegistryExt, RegistryError, TreeMember, TreeStep};
use registry_tests::FaultScript;
use registry_tests::example_process::{note, process_id, registration};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// A host that starts its registry again, over the same log, whenever its root has ended.
struct Host;

struct HostArguments {
    log: Arc<dyn ProcessLog>,
    options: RegistryOptions,
    /// Where the host's other actors find the registry of now.
    current: watch::Sender<Option<ActorRegistry>>,
    failures: mpsc::UnboundedSender<Option<RegistryFailed>>,
}

impl HostArguments {
    async fn start(&self, myself: &ActorRef<()>) -> Result<(), ActorProcessingErr> {
        let (log, options) = (Arc::clone(&self.log), self.options.clone());
        let registry = ActorRegistry::start_linked(log, options, myself.get_cell()).await?;
        self.current.send_replace(Some(registry));
        Ok(())
    }
}

impl Actor for Host {
    type Msg = ();
    type State = HostArguments;
    type Arguments = HostArguments;

    async fn pre_start(&self, myself: ActorRef<()>, host: HostArguments) -> Result<HostArguments, ActorProcessingErr> {
        host.start(&myself).await?;
        Ok(host)
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<()>,
        event: SupervisionEvent,
        host: &mut HostArguments,
    ) -> Result<(), ActorProcessingErr> {
        let (ended, failure) = match &event {
            SupervisionEvent::ActorFailed(actor, error) => {
                (actor.get_id(), error.downcast_ref::<RegistryFailed>().cloned())
            }
            SupervisionEvent::ActorTerminated(actor, ..) => (actor.get_id(), None),
            _ => return Ok(()),
        };
        let is_current = host.current.borrow().as_ref().is_some_and(|it| it.root().get_id() == ended);
        // The state of the dead root is in the event: its waiters are told when it is dropped.
        drop(event);
        if is_current {
            host.failures.send(failure)?;
            host.start(&myself).await?;
        }
        Ok(())
    }
}

struct Hosted {
    faults: Arc<FaultScript>,
    log: MemoryLog,
    current: watch::Receiver<Option<ActorRegistry>>,
    failures: mpsc::UnboundedReceiver<Option<RegistryFailed>>,
    host: ActorRef<()>,
}

impl Hosted {
    async fn start() -> Self {
        let (log, faults) = (MemoryLog::new("hosted store"), FaultScript::new());
        let mut options = RegistryOptions::default();
        options.shards = 1;
        options.faults = Arc::clone(&faults) as _;
        let current = watch::Sender::new(None);
        let (failed, failures) = mpsc::unbounded_channel();
        let receiver = current.subscribe();
        let arguments = HostArguments { log: Arc::new(log.clone()), options, current, failures: failed };
        let (host, _) = Host::spawn(None, Host, arguments).await.expect("the host starts");
        Self { faults, log, current: receiver, failures, host }
    }

    fn registry(&self) -> ActorRegistry {
        self.current.borrow().clone().expect("there is one")
    }

    fn restarts(&self, member: TreeMember) -> usize {
        self.faults.steps().iter().filter(|step| **step == TreeStep::Restarting(member)).count()
    }
}

/// Kills the shard or the publisher, and answers after how long it is there again: virtual time, so this is exact to a step.
async fn kill_and_measure(registry: &ActorRegistry, index: usize) -> Option<Duration> {
    let id = process_id("a");
    let began = Instant::now();
    let victim = registry.supervisors_of(&id).get(index).cloned().expect("it is there");
    victim.kill();
    loop {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let now = registry.supervisors_of(&id);
        if now.len() == 2 && now[index].get_id() != victim.get_id() {
            return Some(began.elapsed());
        }
        if registry.root().get_status() == ractor::ActorStatus::Stopped {
            return None;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_keeps_failing_comes_back_slower_and_slower_and_then_its_registry_fails() {
    for (index, member) in [(0, TreeMember::Shard(0)), (1, TreeMember::Publisher)] {
        let mut hosted = Hosted::start().await;
        let registry = hosted.registry();
        let id = process_id("a");
        registry.register_process(registration(&id)).await.expect("registered");
        let awaiter = ProcessAwaiter::attached(Arc::new(registry.clone()));
        let waiting = tokio::spawn({
            let id = id.clone();
            async move { awaiter.await_terminal(&id).await }
        });
        let mut delays = Vec::new();
        for number in 0..10 {
            let delay = kill_and_measure(&registry, index).await.expect("it is started again");
            delays.push(u64::try_from(delay.as_millis()).expect("short"));
            registry.append_event(&id, note(number)).await.expect("it serves");
        }
        for (delay, expected) in delays.iter().zip([10, 20, 40, 80, 160, 320, 640, 1_000, 1_000, 1_000]) {
            assert!((expected..=expected + 3).contains(delay), "{member}: {delays:?}");
        }
        assert_eq!(hosted.restarts(member), 10);
        // With a command under way.
        hosted.log.pause();
        let submitted = tokio::spawn({
            let (registry, id) = (registry.clone(), id.clone());
            async move { registry.append_event(&id, note(77)).await }
        });
        hosted.log.queued_at_least(1).await;
        assert_eq!(kill_and_measure(&registry, index).await, None, "the eleventh failure in a minute is one too many");
        hosted.log.resume();
        let failure = hosted.failures.recv().await.expect("the host is told").expect("and why");
        assert_eq!((failure.member, failure.failures), (member, 11));
        let submitted = submitted.await.expect("no panic");
        assert!(
            matches!(submitted, Ok(_) | Err(RegistryError::OutcomeUnknown { .. })),
            "{member}: nobody promises that nothing changed, got {submitted:?}"
        );
        assert_eq!(registry.append_event(&id, note(0)).await, Err(RegistryError::Closed), "{member}");
        let waited = waiting.await.expect("no panic");
        assert!(matches!(waited, Err(AwaitError::SourceClosed { .. })), "{member}: {waited:?}");
        hosted.host.stop(None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_starts_its_registry_again_over_the_same_log_when_its_root_has_ended() {
    let mut hosted = Hosted::start().await;
    let id = process_id("a");
    let first = hosted.registry();
    first.register_process(registration(&id)).await.expect("registered");
    for round in 1..=3_u64 {
        let registry = hosted.registry();
        registry.append_event(&id, note(round)).await.expect("it serves");
        hosted.current.mark_unchanged();
        if round == 2 {
            // A panic of the root itself.
            hosted.faults.at_restart(|| panic!("scripted panic of the root"));
            registry.supervisors_of(&id)[0].kill();
        } else {
            registry.root().kill();
        }
        hosted.current.changed().await.expect("another is started");
        assert_eq!(hosted.failures.recv().await, Some(None), "neither of them gave up");
        assert_eq!(registry.append_event(&id, note(0)).await, Err(RegistryError::Closed), "round {round}");
    }
    let last = hosted.registry();
    let output = ProcessAwaitOutput::success(json!("done"));
    last.complete_process(&id, output).await.expect("the same process");
    assert_eq!(last.events_after(&id, registry_actor::domain::Sequence(0)).await.expect("a read").len(), 4);
    // The registry goes down with its host.
    hosted.host.stop(None);
    last.root().wait(Some(Duration::from_secs(60))).await.expect("it ends");
}

#[tokio::test(start_paused = true)]
async fn a_quarantine_that_is_over_is_not_listed_and_holds_nothing() {
    let faults = FaultScript::new();
    let mut options = RegistryOptions::default();
    options.faults = Arc::clone(&faults) as _;
    let registry = ActorRegistry::start(Arc::new(MemoryLog::new("s")), options).await.expect("it starts");
    let id = process_id("a");
    faults.panic_at(FaultPoint::Load, &id, 6);
    let refused = registry.register_process(registration(&id)).await;
    assert!(matches!(refused, Err(RegistryError::Unavailable { .. })), "got {refused:?}");
    assert_eq!(registry.quarantined().await.len(), 1);
    assert_eq!(registry.holdings().directory_entries, 1);
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert_eq!(registry.quarantined().await.len(), 1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(registry.quarantined().await, [], "it is over, though nobody has asked since");
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(registry.holdings().directory_entries, 0, "the next sweep lets it go");
    registry.register_process(registration(&id)).await.expect("and it can be used");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_failed_and_is_never_asked_for_again_holds_nothing() {
    let registry = ActorRegistry::start(Arc::new(MemoryLog::new("s")), RegistryOptions::default()).await;
    let registry = registry.expect("it starts");
    let id = process_id("a");
    registry.register_process(registration(&id)).await.expect("registered");
    registry.process_actor(&id).expect("it is live").kill();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(registry.holdings().live_actors, 0);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(registry.holdings().directory_entries, 0);
    // Those of a shard that died, too.
    registry.append_event(&id, note(1)).await.expect("appended");
    registry.supervisors_of(&id)[0].kill();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(registry.holdings().directory_entries, 0);
    registry.append_event(&id, note(2)).await.expect("it goes on");
}
