//! One host over the simulated store: a registry and everybody who hears of its commits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use awaiter::{ProcessAwaiter, ProcessChangeHub, watch_process_registry_with_sink};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use registry_actor::actor::{ActorRegistry, ProcessNews, ProcessSubscription, RegistryOptions, RestartPolicy, Told};
use registry_actor::domain::{
    Command, ProcessEvent, ProcessId, Receipt, RegistryCommand, RegistryReceipt, Sequence, Tombstone,
};
use registry_actor::log::MemoryLog;
use registry_actor::port::{
    Answer, CommitListener, CommittedBatch, DurabilityTier, MissedEvents, ProcessEventSink, ProcessLog,
    ProcessRegistry, Query, RegistryError,
};

use super::log::{LogRun, SimulatedLog};
use super::transcript::Transcript;
use crate::fault_script::FaultScript;
use crate::history_checker::{Recorder, RecordingRegistry};
use crate::seeded::Random;

/// How a host is built.
#[derive(Debug, Clone, Copy)]
pub struct HostPlan {
    /// Issuer of its operations: no two hosts of a run have the same.
    pub issuer: u64,
    /// How many shards.
    pub shards: usize,
    /// How soon an idle process comes to rest.
    pub passivate_after_ms: u64,
    /// Whether callers see a registry that does not tell of its commits: it is then wrapped, with a sink that is told
    /// inline, and waiters poll.
    pub is_quiet: bool,
}

/// A host.
pub struct Host {
    /// Its registry.
    pub registry: ActorRegistry,
    /// What callers call.
    pub door: Arc<dyn ProcessRegistry>,
    /// What happens at the named points of its registry.
    pub faults: Arc<FaultScript>,
    /// Who is told of its commits.
    pub listener: Arc<Listener>,
    /// The sink, where there is one.
    pub sink: Arc<Sink>,
    /// Whether an actor is subscribed to the first process.
    pub news: Arc<Mutex<Vec<News>>>,
    _hub: Option<ProcessChangeHub>,
    subscriber: ActorRef<ProcessNews>,
    _subscription: ProcessSubscription,
}

impl Host {
    /// Starts a host over a session of the store.
    pub async fn start(store: &MemoryLog, run: &Arc<LogRun>, plan: HostPlan, watched: &ProcessId) -> Self {
        let log: Arc<dyn ProcessLog> = Arc::new(SimulatedLog::new(store.clone(), Arc::clone(run)));
        let faults = FaultScript::new();
        let mut options = RegistryOptions::default();
        options.issuer = Some(plan.issuer);
        options.shards = plan.shards;
        options.passivate_after = Duration::from_millis(plan.passivate_after_ms);
        options.sweep_interval = Duration::from_millis(50);
        options.subscription_backlog = 3;
        options.clock = Arc::clone(&run.clock) as Arc<_>;
        options.faults = Arc::clone(&faults) as Arc<_>;
        options.restart = RestartPolicy {
            first_delay: Duration::from_millis(2),
            longest_delay: Duration::from_millis(20),
            failures_allowed: 4,
            window: Duration::from_millis(300),
            quarantine: Duration::from_millis(40),
        };
        // The strikes are many: a registry that gives up is what other tests are about.
        options.supervisor_restart = RestartPolicy { failures_allowed: 1_000_000, ..options.restart };
        let registry = ActorRegistry::start(log, options).await.expect("a registry starts");
        let name = format!("host{}", plan.issuer);
        let listener = Arc::new(Listener { name: name.clone(), run: Arc::clone(run), heard: Mutex::default() });
        let source = registry.change_source().expect("a registry of actors tells");
        source.attach(&(Arc::clone(&listener) as Arc<dyn CommitListener>));
        let sink = Arc::new(Sink { name: name.clone(), run: Arc::clone(run), told: Mutex::default() });
        let (door, hub) = if plan.is_quiet {
            let quiet = Arc::new(Quiet(registry.clone()));
            let (door, hub) = watch_process_registry_with_sink(quiet, Some(Arc::clone(&sink) as Arc<_>));
            (door, Some(hub))
        } else {
            (Arc::new(registry.clone()) as Arc<dyn ProcessRegistry>, None)
        };
        let news = Arc::new(Mutex::new(Vec::new()));
        let arguments = (name, Arc::clone(&run.transcript), Arc::clone(&news));
        let (subscriber, _) = Actor::spawn(None, Subscriber, arguments).await.expect("an actor starts");
        let subscription = registry.subscribe(watched, subscriber.clone(), |news| news);
        Self { registry, door, faults, listener, sink, news, _hub: hub, subscriber, _subscription: subscription }
    }

    /// What a client calls, recorded.
    #[must_use]
    pub fn recorded(&self, recorder: &Arc<Recorder>, client: u32) -> Arc<dyn ProcessRegistry> {
        Arc::new(RecordingRegistry::new(Arc::clone(&self.door), Arc::clone(recorder), client))
    }

    /// How a client waits.
    #[must_use]
    pub fn awaiter(&self, recorder: &Arc<Recorder>, client: u32) -> ProcessAwaiter {
        let registry = self.recorded(recorder, client);
        // A hub's ticks wake those who watch one process in a random order, so that nobody watches it here.
        ProcessAwaiter::attached(registry)
    }

    /// Kills the actors of these processes in their order: those of a supervisor that is killed end in none.
    pub fn kill_processes(&self, ids: &[ProcessId]) {
        for id in ids {
            self.registry.process_actor(id).iter().for_each(|actor| actor.kill());
        }
    }

    /// Kills the shard of a process. Several actors of a shard that dies end in an order of the actor library's own, so
    /// that they are killed before, in that of their starts; one alone outlives its shard for a moment.
    pub fn kill_shard(&self, of: &ProcessId) {
        self.kill_all_of_shard(of);
        self.registry.supervisors_of(of).first().into_iter().for_each(|shard| shard.kill());
    }

    /// Kills the actors of a shard, if there are several: those too that have left the directory and have not ended.
    pub fn kill_all_of_shard(&self, of: &ProcessId) {
        let supervisors = self.registry.supervisors_of(of);
        let mut actors = supervisors.first().map(|shard| shard.get_children()).unwrap_or_default();
        if actors.len() > 1 {
            actors.sort_by_key(|actor| actor.get_id().pid());
            actors.iter().for_each(|actor| actor.kill());
        }
    }

    /// Kills the publisher.
    pub fn kill_publisher(&self, any: &ProcessId) {
        self.registry.supervisors_of(any).last().into_iter().for_each(|publisher| publisher.kill());
    }

    /// Shuts the registry down; answers whether every shard came to rest in time.
    pub async fn shut_down(&self) -> bool {
        let report = self.registry.shut_down(Duration::from_secs(20)).await;
        self.subscriber.stop(None);
        report.shards_killed == 0
    }
}

/// A registry that does not tell of its commits.
struct Quiet(ActorRegistry);

#[async_trait]
impl ProcessRegistry for Quiet {
    async fn execute(&self, process_id: &ProcessId, command: Command) -> Result<Receipt, RegistryError> {
        self.0.execute(process_id, command).await
    }

    async fn execute_across(&self, command: RegistryCommand) -> Result<RegistryReceipt, RegistryError> {
        self.0.execute_across(command).await
    }

    async fn query(&self, query: Query) -> Result<Answer, RegistryError> {
        self.0.query(query).await
    }

    fn durability_tier(&self) -> DurabilityTier {
        self.0.durability_tier()
    }
}

/// Hears of every commit, as a mailbox of a sink would.
pub struct Listener {
    name: String,
    run: Arc<LogRun>,
    heard: Mutex<Heard>,
}

/// What a listener heard.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    /// Events in the order in which they were told, each with the life that was told with it.
    pub events: Vec<(u32, Arc<ProcessEvent>)>,
    /// Whether it was told to read everything anew.
    pub resynced: bool,
    /// Whether the source ended.
    pub closed: bool,
    /// Whether it was told anything after that.
    pub told_after_the_end: bool,
}

impl Listener {
    /// What it heard so far.
    #[must_use]
    pub fn heard(&self) -> Heard {
        lock(&self.heard).clone()
    }

    fn hear(&self, what: &dyn std::fmt::Display) -> MutexGuard<'_, Heard> {
        self.run.transcript.line(&self.name, what);
        let mut heard = lock(&self.heard);
        heard.told_after_the_end |= heard.closed;
        heard
    }
}

impl CommitListener for Listener {
    fn committed(&self, batches: &[CommittedBatch]) {
        for batch in batches {
            let generation = batch.record.generation;
            let sequences = (batch.events.first(), batch.events.last());
            let first_and_last = (
                sequences.0.map_or(Sequence::REGISTRATION, |event| event.sequence).0,
                sequences.1.map_or(Sequence::REGISTRATION, |event| event.sequence).0,
            );
            let line = format!("tells {}.{generation} {first_and_last:?}", batch.process_id);
            self.hear(&line).events.extend(batch.events.iter().map(|event| (generation, Arc::clone(event))));
        }
    }

    fn pruned(&self, tombstones: &[Tombstone]) {
        for tombstone in tombstones {
            drop(self.hear(&format_args!("tells the end of {}.{}", tombstone.process_id, tombstone.generation)));
        }
    }

    fn resync(&self) {
        self.hear(&"tells everybody to read").resynced = true;
    }

    fn closed(&self) {
        self.hear(&"tells that nothing follows").closed = true;
    }
}

/// A sink that is told inline.
pub struct Sink {
    name: String,
    run: Arc<LogRun>,
    told: Mutex<Vec<Arc<ProcessEvent>>>,
}

impl Sink {
    /// What it was told.
    #[must_use]
    pub fn told(&self) -> Vec<Arc<ProcessEvent>> {
        lock(&self.told).clone()
    }
}

#[async_trait]
impl ProcessEventSink for Sink {
    async fn emit(&self, event: &Arc<ProcessEvent>) {
        let line = format!("sink: {} {} {}", event.process_id, event.sequence.0, event.event_type);
        self.run.transcript.line(&self.name, &line);
        lock(&self.told).push(Arc::clone(event));
    }

    async fn missed(&self, missed: &MissedEvents) {
        self.run.transcript.line(&self.name, &format_args!("sink: missed {missed:?}"));
    }
}

/// What a subscribed actor was told.
#[derive(Debug, Clone)]
pub enum News {
    /// Events, and those left out before them.
    Events {
        /// The life of the record beside them.
        generation: u32,
        /// First and last that were left out.
        missed: Option<(Sequence, Sequence)>,
        /// Ascending.
        events: Vec<Arc<ProcessEvent>>,
    },
    /// Something after which the numbers may begin anew.
    Break,
}

struct Subscriber;

impl Actor for Subscriber {
    type Msg = ProcessNews;
    type State = (String, Arc<Transcript>, Arc<Mutex<Vec<News>>>);
    type Arguments = Self::State;

    async fn pre_start(
        &self,
        _myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(arguments)
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        (name, transcript, heard): &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let news = match &message.told {
            Told::Committed { record, missed, events } => News::Events {
                generation: record.generation,
                missed: missed.as_ref().map(|missed| (*missed.start(), *missed.end())),
                events: events.clone(),
            },
            Told::Pruned { .. } | Told::Resync | Told::Closed => News::Break,
        };
        let sequences = match &news {
            News::Events { events, .. } => events.iter().map(|event| event.sequence.0).collect(),
            News::Break => Vec::new(),
        };
        transcript.line(name, &format_args!("news of {}: {sequences:?}", message.process_id));
        lock(heard).push(news);
        Ok(())
    }
}

/// A pause of the seed.
pub async fn pause(dice: &mut Random, longest_ms: u64) {
    match dice.below(4) {
        0 => tokio::task::yield_now().await,
        1 => {}
        _ => tokio::time::sleep(Duration::from_millis(dice.below(longest_ms + 1))).await,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
