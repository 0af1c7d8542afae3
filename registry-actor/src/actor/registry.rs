//! The handle of a registry of actors: what a host holds.

mod closing;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use ractor::{Actor, ActorCell, ActorRef, Message};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, oneshot, watch};
use tracing::Instrument;

use self::closing::Closing;
use super::actor_wait::{ActorWait, await_by_message};
use super::envelope::{Call, Envelope};
use super::environment::Environment;
use super::news::ProcessNews;
use super::options::RegistryOptions;
use super::process::ProcessMessage;
use super::publisher::{PublisherArguments, PublisherLine};
use super::root::{Door, RootActor, RootArguments, RootMessage, Seats};
use super::shard::ShardMessage;
use super::shutdown::{ShutdownProgress, ShutdownReport};
use super::subscription::{ProcessSubscription, SubscriptionTable};
use super::tree::{Member, tell};
use crate::domain::{
    Command, CommandEvents, LeaseOwnerIdentity, LeaseOwnerLiveness, ObservedProcess, OperationId, ProcessAwaitOutput,
    ProcessId, Receipt, RegistryCommand, RegistryReceipt, StoreSession,
};
use crate::port::{
    AcrossError, Answer, AppendError, ChangeSource, CommitFollower, CommitListener, DurabilityTier, EngineError,
    ProcessLog, ProcessRegistry, ProcessWait, Query, RegistryError, TreeStep, WaitAnswer, WaitError, WaitReader,
};
use crate::telemetry;

/// How often a command whose actor died is sent again. More than the failures that quarantine a process, so that the
/// caller hears of the quarantine.
const SENDINGS: usize = 16;

/// A registry in which each process is owned by an actor. Clones are handles of one registry.
///
/// Dropping all handles does not stop the actors: call [`shut_down`](Self::shut_down).
#[derive(Debug, Clone)]
pub struct ActorRegistry {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    environment: Arc<Environment>,
    root: ActorRef<RootMessage>,
    seats: Arc<Seats>,
    source: ChangeSource,
    /// Kept alive here, and by each subscription; the source knows it weakly.
    subscriptions: Arc<SubscriptionTable>,
    /// Kept alive here; the log knows it weakly.
    line: Arc<PublisherLine>,
    permits: Arc<Semaphore>,
    issuer: u64,
    calls: AtomicU64,
    /// How many owners were named.
    owners: AtomicU64,
    door: Arc<Door>,
    /// What became of the shutdown, when it is over.
    shut_down: watch::Sender<Option<ShutdownReport>>,
}

/// What a registry holds on to now: for tests that count whether everything comes back.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RegistryHoldings {
    /// Processes with a live actor.
    pub live_actors: usize,
    /// Entries of the directory.
    pub directory_entries: usize,
    /// Commands that hold a permit.
    pub commands_under_way: usize,
    /// Subscriptions of actors.
    pub subscriptions: usize,
    /// Parked waiters.
    pub parked_waits: usize,
}

/// Why a registry could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The system gave no random number for the issuer of operations.
    #[error("no randomness for the registry's identity: {reason}")]
    Randomness {
        /// Why.
        reason: String,
    },
    /// The supervision tree could not be started.
    #[error("the registry's actors could not be started: {reason}")]
    Spawn {
        /// Why.
        reason: String,
    },
}

/// A process whose commands are refused for now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantinedProcess {
    /// The process.
    pub process_id: ProcessId,
    /// When it is tried again, in ms since the Unix epoch.
    pub retry_at_ms: u64,
    /// What failed last.
    pub reason: String,
}

impl ActorRegistry {
    /// Starts a registry over a log, on the current tokio runtime.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(log: Arc<dyn ProcessLog>, options: RegistryOptions) -> Result<Self, StartError> {
        Self::start_under(log, options, None).await
    }

    /// Starts a registry whose root is linked to an actor of the host, which hears of its end: as `ActorTerminated` after a
    /// [`shut_down`](Self::shut_down), or as `ActorFailed`, with a [`RegistryFailed`](super::RegistryFailed) if the registry
    /// gave up. If the actor of the host ends, so does the registry. After its root has ended a registry is over; another
    /// may be started over the same log, which stays open: `host-example/examples/host_that_restarts.rs` is a host that does
    /// so, with a delay and a limit. A host that would rather fail with its registry is
    /// `host-example/examples/host_of_actors.rs`.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start_linked(
        log: Arc<dyn ProcessLog>,
        options: RegistryOptions,
        supervisor: ActorCell,
    ) -> Result<Self, StartError> {
        Self::start_under(log, options, Some(supervisor)).await
    }

    async fn start_under(
        log: Arc<dyn ProcessLog>,
        options: RegistryOptions,
        supervisor: Option<ActorCell>,
    ) -> Result<Self, StartError> {
        let issuer = match options.issuer {
            Some(issuer) => issuer,
            None => getrandom::u64().map_err(|error| StartError::Randomness { reason: error.to_string() })?,
        };
        let line = Arc::new(PublisherLine::default());
        let follower: Arc<dyn CommitFollower> = Arc::clone(&line) as Arc<dyn CommitFollower>;
        line.start_after(log.follow(Arc::downgrade(&follower)));
        let source = ChangeSource::default();
        let subscriptions = Arc::new(SubscriptionTable::default());
        source.attach(&(Arc::clone(&subscriptions) as Arc<dyn CommitListener>));
        let seats = Arc::new(Seats::new(options.shards));
        let door = Arc::new(Door::default());
        let permits = Arc::new(Semaphore::new(options.commands_under_way.clamp(1, Semaphore::MAX_PERMITS)));
        let environment = Arc::new(Environment::new(log, options));
        tell(&environment, &TreeStep::Started(Member::Log));
        tell(&environment, &TreeStep::Started(Member::Listeners));
        let arguments = RootArguments {
            environment: Arc::clone(&environment),
            publisher: PublisherArguments {
                environment: Arc::clone(&environment),
                source: source.clone(),
                line: Arc::clone(&line),
            },
            seats: Arc::clone(&seats),
            door: Arc::clone(&door),
        };
        let spawned = match supervisor {
            None => RootActor::spawn(None, RootActor, arguments).await,
            Some(supervisor) => RootActor::spawn_linked(None, RootActor, arguments, supervisor).await,
        };
        let (root, _) = spawned.map_err(|error| StartError::Spawn { reason: error.to_string() })?;
        let inner = Inner {
            environment,
            root,
            seats,
            source,
            subscriptions,
            line,
            permits,
            issuer,
            calls: AtomicU64::new(0),
            owners: AtomicU64::new(0),
            door,
            shut_down: watch::Sender::new(None),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The session in which the store is open: what an owner inside this host names as its liveness.
    #[must_use]
    pub fn session(&self) -> &StoreSession {
        self.inner.environment.log.session()
    }

    /// A new owner of leases inside this host. Each call makes one: the same name with another incarnation, which neither this
    /// host nor a later one uses again. The session proves its death to whoever holds the store next.
    #[must_use]
    pub fn owner(&self, owner_id: impl Into<String>) -> LeaseOwnerIdentity {
        let number = self.inner.owners.fetch_add(1, Ordering::Relaxed);
        LeaseOwnerIdentity {
            owner_id: owner_id.into(),
            incarnation_id: format!("{:016x}:{number}", self.inner.issuer),
            liveness: LeaseOwnerLiveness::StoreSession { session: self.session().clone() },
        }
    }

    /// The log beneath.
    #[must_use]
    pub fn log(&self) -> &Arc<dyn ProcessLog> {
        &self.inner.environment.log
    }

    /// Waits until it happens. There is no timeout: wrap it. Idle waiting reads nothing, wakes no process and keeps none
    /// alive; the wait outlives every actor that is restarted meanwhile. May be dropped at any time.
    ///
    /// # Errors
    /// [`WaitError`].
    pub async fn wait(&self, wait: &ProcessWait) -> Result<WaitAnswer, WaitError> {
        self.inner.source.wait(self, &mut WaitReader::new(wait), tokio::time::sleep).await
    }

    /// How many processes have a live actor now.
    #[must_use]
    pub fn live_actors(&self) -> usize {
        self.inner.environment.directory.live_actors()
    }

    /// The processes that are quarantined now, by id.
    pub async fn quarantined(&self) -> Vec<QuarantinedProcess> {
        let mut listed = Vec::new();
        for seat in &self.inner.seats.shards {
            let (reply, answer) = oneshot::channel();
            let shard = seat.actor();
            if shard.is_some_and(|shard| shard.cast(ShardMessage::Quarantined(reply)).is_ok()) {
                listed.extend(answer.await.unwrap_or_default());
            }
        }
        listed.sort_by(|left, right| left.process_id.cmp(&right.process_id));
        listed
    }

    /// Subscribes an actor to a process: each commit after this call is told to it as a message, in order, as what `wrap`
    /// makes of it. The process need not exist yet, is not woken, and is not kept in memory.
    ///
    /// To know a process from its first event on, subscribe first, then read, and pass over what is told again:
    ///
    /// 1. `subscribe`, and keep the [`ProcessSubscription`] in the actor's state, so that it ends with the actor.
    /// 2. Read [`get_process`](crate::port::ProcessRegistryExt::get_process) and
    ///    [`events_page`](crate::port::ProcessRegistryExt::events_page) to the end; remember the last sequence.
    /// 3. Of each message, pass over events up to that sequence (a commit between 1 and 2 is read and told); if it says
    ///    that events were [missed](super::Told::Committed), read those; at [`Resync`](super::Told::Resync) go back to 2.
    ///
    /// The subscriber's mailbox holds at most one message of a subscription. The next is sent when that one is dropped, by
    /// the actor or by its death, and says all that was committed meanwhile: up to
    /// [`subscription_backlog`](super::RegistryOptions::subscription_backlog) events, and beyond that which sequences
    /// were missed. A commit is told once, whatever dies on the way. A `wrap` that takes the news apart and drops the rest
    /// gives this bound up.
    ///
    /// `wrap` runs on the publisher's thread or on the subscriber's: it must return soon. A subscriber that refuses a
    /// message because it has died, or a `wrap` that panics, ends the subscription.
    pub fn subscribe<M: Message>(
        &self,
        process_id: &ProcessId,
        subscriber: ActorRef<M>,
        wrap: impl Fn(ProcessNews) -> M + Send + Sync + 'static,
    ) -> ProcessSubscription {
        let limit = self.inner.environment.options.subscription_backlog;
        self.inner.subscriptions.subscribe(process_id, limit, subscriber, wrap)
    }

    /// Waits for the outcome and sends it to an actor: see [`await_by_message`].
    pub fn await_terminal_by_message<M: Message>(
        &self,
        process_id: &ProcessId,
        subscriber: ActorRef<M>,
        wrap: impl FnOnce(Result<ProcessAwaitOutput, EngineError>) -> M + Send + 'static,
    ) -> ActorWait {
        await_by_message(Arc::new(self.clone()), process_id, subscriber, wrap)
    }

    /// How many subscriptions there are: for tests.
    #[doc(hidden)]
    #[must_use]
    pub fn subscriptions(&self) -> usize {
        self.inner.subscriptions.len()
    }

    /// The root, by which the supervisor of a [linked](Self::start_linked) registry knows it in its events.
    #[must_use]
    pub fn root(&self) -> ActorCell {
        self.inner.root.get_cell()
    }

    /// What it holds on to: for tests.
    #[doc(hidden)]
    #[must_use]
    pub fn holdings(&self) -> RegistryHoldings {
        let inner = &self.inner;
        let permits = inner.environment.options.commands_under_way.clamp(1, Semaphore::MAX_PERMITS);
        RegistryHoldings {
            live_actors: self.live_actors(),
            directory_entries: inner.environment.directory.len(),
            commands_under_way: permits.saturating_sub(inner.permits.available_permits()),
            subscriptions: inner.subscriptions.len(),
            parked_waits: inner.source.parked_waits(),
        }
    }

    /// The actor of a process, if it is live: for tests that kill it.
    #[doc(hidden)]
    #[must_use]
    pub fn process_actor(&self, process_id: &ProcessId) -> Option<ActorCell> {
        self.inner.environment.directory.actor(process_id).map(|actor| actor.get_cell())
    }

    /// The shard of a process and the publisher: for tests that kill them.
    #[doc(hidden)]
    #[must_use]
    pub fn supervisors_of(&self, process_id: &ProcessId) -> Vec<ActorCell> {
        let seats = &self.inner.seats;
        let shard = seats.shards[self.inner.environment.shard_of(process_id)].actor();
        let publisher = seats.publisher.actor();
        shard.map(|shard| shard.get_cell()).into_iter().chain(publisher.map(|publisher| publisher.get_cell())).collect()
    }

    /// Closes the door, lets what is under way finish, tells listeners that the source has ended, closes the log, and
    /// stops the actors, in the order of [`ShutdownStage`](super::ShutdownStage). Runs to its end also if the future is dropped: a registry that is
    /// shut down by half would leave its callers and waiters hanging. May be called several times, also at once: everybody
    /// gets the report of the first.
    ///
    /// `patience` bounds the wait for processes to come to rest; those that did not are killed. The publisher, the log and the
    /// root have as long again, each.
    pub async fn shut_down(&self, patience: Duration) -> ShutdownReport {
        self.shut_down_with_progress(patience, |_| {}).await
    }

    /// The same, and tells how far it is: at each stage, and while processes come to rest each time that about a hundredth of
    /// them has. `progress` is called on a task of the runtime and has to return soon. A call that is not the first is told
    /// nothing.
    pub async fn shut_down_with_progress(
        &self,
        patience: Duration,
        progress: impl FnMut(ShutdownProgress) + Send + 'static,
    ) -> ShutdownReport {
        let mut over = self.inner.shut_down.subscribe();
        if !self.inner.door.close() {
            let registry = self.clone();
            // Only a runtime that is going away takes the task with it, and all actors too.
            tokio::spawn(async move {
                Closing::of(registry).run(patience, progress).await;
            });
        }
        // The sender lives as long as this handle.
        over.wait_for(Option::is_some).await.map_or_else(|_| None, |report| report.clone()).unwrap_or_default()
    }

    fn next_operation(&self) -> OperationId {
        OperationId { issuer: self.inner.issuer, number: self.inner.calls.fetch_add(1, Ordering::Relaxed) }
    }

    /// The first sending may go straight to the actor. A repeated one goes through the shard, whose mailbox puts the
    /// exit of the dead actor before it.
    async fn send(&self, process_id: &ProcessId, envelope: Envelope, sending: usize) -> Result<(), RegistryError> {
        let mut envelope = envelope;
        if sending == 0
            && let Some(actor) = self.inner.environment.directory.actor(process_id)
        {
            match actor.cast(ProcessMessage::Execute(envelope)) {
                Err(ractor::MessagingErr::SendErr(ProcessMessage::Execute(refused))) => envelope = refused,
                Ok(()) | Err(_) => return Ok(()),
            }
        }
        let root = self.inner.root.get_cell();
        let seat = &self.inner.seats.shards[self.inner.environment.shard_of(process_id)];
        loop {
            let taken = seat.taken();
            if let Some(shard) = seat.actor() {
                match shard.cast(ShardMessage::Route(process_id.clone(), envelope)) {
                    Err(ractor::MessagingErr::SendErr(ShardMessage::Route(_, refused))) => envelope = refused,
                    Ok(()) | Err(_) => return Ok(()),
                }
            }
            // The shard is being replaced, unless the whole registry is going away.
            tokio::select! {
                biased;
                () = taken => {}
                _ = root.wait(None) => return Err(RegistryError::Closed),
            }
        }
    }

    async fn carry_out(
        &self,
        process_id: &ProcessId,
        command: Command,
        operation: OperationId,
    ) -> Result<Receipt, RegistryError> {
        if self.inner.door.is_closed() {
            return Err(RegistryError::Closed);
        }
        let permit = Arc::clone(&self.inner.permits)
            .try_acquire_owned()
            .map_err(|_| RegistryError::Busy { limit: self.inner.environment.options.commands_under_way })?;
        let call = Arc::new(Call::new(operation, command, permit));
        let unknown = |reason: String| RegistryError::OutcomeUnknown {
            process_id: process_id.clone(),
            operation: call.operation,
            reason,
        };
        for sending in 0..SENDINGS {
            let (envelope, answer) = Envelope::new(Arc::clone(&call));
            let answered = match self.send(process_id, envelope, sending).await {
                Ok(()) => answer.await,
                Err(error) => Ok(Err(error)),
            };
            match answered {
                Ok(Err(error)) if changed_nothing_only_if_unsent(&error) && call.was_submitted() => {
                    return Err(unknown(error.to_string()));
                }
                // A lease move leaves nothing in the log by which it is found again. It was decided anew, and no error of
                // that says what its first sending has done; a refusal may even rest on it.
                Ok(Err(error)) if call.was_lost() && call.command.stores() == CommandEvents::None => {
                    return Err(unknown(error.to_string()));
                }
                Ok(result) => return result,
                // The actor died. The next incarnation finds the operation in the log, or carries it out.
                Err(_) => call.mark_lost(),
            }
        }
        // An actor that cannot load dies of the store, and its exit goes to the shard alone: the caller asks what is wrong.
        let because = match self.inner.environment.log.load(process_id, 0).await {
            Ok(_) => String::new(),
            Err(error) => format!(": {error}"),
        };
        if call.was_submitted() {
            Err(unknown(format!("its actor died {SENDINGS} times{because}")))
        } else {
            Err(RegistryError::NotStored {
                reason: format!("its actor died {SENDINGS} times before it decided{because}"),
            })
        }
    }

    async fn carry_out_across(
        &self,
        command: RegistryCommand,
        operation: OperationId,
    ) -> Result<RegistryReceipt, RegistryError> {
        if self.inner.door.is_closed() {
            return Err(RegistryError::Closed);
        }
        let _permit = self
            .inner
            .permits
            .try_acquire()
            .map_err(|_| RegistryError::Busy { limit: self.inner.environment.options.commands_under_way })?;
        let context = self.inner.environment.context(operation, ObservedProcess::Unknown);
        let name = command.name();
        self.inner.environment.log.execute_across(command, context).await.map_err(|error| match error {
            AcrossError::Refused(refusal) => RegistryError::Refused(refusal),
            AcrossError::Read(error) => error.into(),
            AcrossError::Append(AppendError::Busy { limit }) => RegistryError::Busy { limit },
            AcrossError::Append(AppendError::Closed) => RegistryError::Closed,
            AcrossError::Append(AppendError::Unknown { reason }) => {
                RegistryError::AcrossOutcomeUnknown { command: name.to_owned(), operation, reason }
            }
            AcrossError::Append(error) => RegistryError::NotStored { reason: error.to_string() },
        })
    }
}

#[async_trait]
impl ProcessRegistry for ActorRegistry {
    async fn execute(&self, process_id: &ProcessId, command: Command) -> Result<Receipt, RegistryError> {
        let (name, operation) = (command.name(), self.next_operation());
        let span = tracing::debug_span!("command", %process_id, %operation, command = name);
        async {
            let answer = self.carry_out(process_id, command, operation).await;
            telemetry::command_answered(name, &answer);
            answer
        }
        .instrument(span)
        .await
    }

    /// Goes to the log and past the actors: one that is touched learns of it as of a foreign writer.
    async fn execute_across(&self, command: RegistryCommand) -> Result<RegistryReceipt, RegistryError> {
        let (name, operation) = (command.name(), self.next_operation());
        let span = tracing::debug_span!("command", %operation, command = name);
        async {
            let answer = self.carry_out_across(command, operation).await;
            telemetry::command_answered(name, &answer);
            answer
        }
        .instrument(span)
        .await
    }
    fn durability_tier(&self) -> DurabilityTier {
        self.inner.environment.log.durability()
    }

    async fn query(&self, query: Query) -> Result<Answer, RegistryError> {
        Ok(self.inner.environment.log.query(query).await?)
    }

    fn change_source(&self) -> Option<ChangeSource> {
        Some(self.inner.source.clone())
    }
}

/// Errors that say "nothing changed" on the strength of what their writer knows. If an earlier sending of the same call
/// reached the log, they do not know.
const fn changed_nothing_only_if_unsent(error: &RegistryError) -> bool {
    match error {
        RegistryError::Busy { .. } | RegistryError::Unavailable { .. } | RegistryError::Closed => true,
        RegistryError::Refused(_)
        | RegistryError::OutcomeUnknown { .. }
        | RegistryError::AcrossOutcomeUnknown { .. }
        | RegistryError::NotStored { .. }
        | RegistryError::Store(_)
        | RegistryError::WrongAnswer { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::MemoryLog;
    use crate::port::{CommitListener, CommittedBatch};

    struct ToldOfTheEnd(tokio::sync::Notify);

    impl CommitListener for ToldOfTheEnd {
        fn committed(&self, _: &[CommittedBatch]) {}

        fn pruned(&self, _: &[crate::domain::Tombstone]) {}

        fn resync(&self) {}

        fn closed(&self) {
            self.0.notify_one();
        }
    }

    /// As when the host's supervisor, to which it is linked, goes down.
    #[tokio::test(start_paused = true)]
    async fn listeners_of_a_registry_whose_root_is_killed_hear_of_the_end() {
        let log = Arc::new(MemoryLog::new("test store"));
        let registry = ActorRegistry::start(log, RegistryOptions::default()).await.expect("the registry starts");
        let told = Arc::new(ToldOfTheEnd(tokio::sync::Notify::new()));
        registry.inner.source.attach(&(Arc::clone(&told) as Arc<dyn CommitListener>));
        registry.inner.root.get_cell().kill();
        tokio::time::timeout(Duration::from_secs(1), told.0.notified()).await.expect("they are told");
    }
}
