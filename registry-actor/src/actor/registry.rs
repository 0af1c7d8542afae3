//! The handle of a registry of actors: what a host holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use ractor::{Actor, ActorCell, ActorRef, Message};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, oneshot};

use super::actor_wait::{ActorWait, await_by_message};
use super::envelope::{Call, Envelope};
use super::environment::Environment;
use super::news::ProcessNews;
use super::options::RegistryOptions;
use super::process::ProcessMessage;
use super::publisher::{PublisherArguments, PublisherLine, PublisherMessage};
use super::root::{Door, RootActor, RootArguments, RootMessage, Seats};
use super::shard::ShardMessage;
use super::subscription::{ProcessSubscription, SubscriptionTable};
use crate::domain::{
    Command, CommandEvents, ObservedProcess, OperationId, ProcessAwaitOutput, ProcessId, Receipt, RegistryCommand,
    RegistryReceipt, StoreSession,
};
use crate::port::{
    AcrossError, Answer, AppendError, ChangeSource, CommitFollower, CommitListener, DurabilityTier, EngineError,
    ProcessLog, ProcessRegistry, ProcessWait, Query, RegistryError, WaitAnswer, WaitError, WaitReader,
};

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
    door: Arc<Door>,
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

/// How a shutdown went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Shards whose processes did not all come to rest in time; they were killed. What they had under way is in the
    /// log or not, as after a crash.
    pub shards_killed: usize,
}

impl ActorRegistry {
    /// Starts a registry over a log, on the current tokio runtime.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(log: Arc<dyn ProcessLog>, options: RegistryOptions) -> Result<Self, StartError> {
        Self::start_under(log, options, None).await
    }

    /// Starts a registry whose root is linked to an actor of the host.
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
        let environment = Arc::new(Environment::new(Arc::clone(&log), options));
        let arguments = RootArguments {
            environment: Arc::clone(&environment),
            publisher: PublisherArguments { log, source: source.clone(), line: Arc::clone(&line) },
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
            door,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The session in which the store is open: what an owner inside this host names as its liveness.
    #[must_use]
    pub fn session(&self) -> &StoreSession {
        self.inner.environment.log.session()
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
    /// stops the actors. May be called twice; the second call reports nothing killed. Runs to its end also if the
    /// future is dropped: a registry that is shut down by half would leave its callers and waiters hanging.
    ///
    /// `patience` bounds the wait for processes to come to rest.
    pub async fn shut_down(&self, patience: Duration) -> ShutdownReport {
        let nothing_killed = ShutdownReport { shards_killed: 0 };
        if self.inner.door.close() {
            return nothing_killed;
        }
        let registry = self.clone();
        // Only a runtime that is going away takes the task with it, and all actors too.
        tokio::spawn(async move { registry.close_down(patience).await }).await.unwrap_or(nothing_killed)
    }

    async fn close_down(&self, patience: Duration) -> ShutdownReport {
        let mut report = ShutdownReport { shards_killed: 0 };
        let deadline = tokio::time::Instant::now() + patience;
        let mut resting = Vec::new();
        for seat in &self.inner.seats.shards {
            let (reply, rested) = oneshot::channel();
            if let Some(shard) = seat.actor()
                && shard.cast(ShardMessage::ShutDown(reply)).is_ok()
            {
                resting.push((shard, rested));
            }
        }
        for (shard, rested) in resting {
            if tokio::time::timeout_at(deadline, rested).await.is_err() {
                report.shards_killed += 1;
                shard.get_cell().kill();
            }
        }
        // Nothing of this registry writes any more. Its observers hear of what was committed last before their source ends,
        // and the log closes after that.
        let publisher = self.inner.seats.publisher.actor();
        match publisher {
            Some(publisher) if publisher.cast(PublisherMessage::ShutDown).is_ok() => {
                // A publisher that does not come to an end is killed with the root below.
                drop(publisher.get_cell().wait(Some(patience)).await);
            }
            // It died when the door was closed already, and was not started again.
            Some(_) | None => {
                let inner = &self.inner;
                let log = Arc::clone(&inner.environment.log);
                PublisherArguments { log, source: inner.source.clone(), line: Arc::clone(&inner.line) }
                    .catch_up()
                    .await;
            }
        }
        self.inner.source.close();
        self.inner.environment.log.close().await;
        drop(self.inner.root.get_cell().stop_and_wait(None, Some(patience)).await);
        report
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
}

#[async_trait]
impl ProcessRegistry for ActorRegistry {
    async fn execute(&self, process_id: &ProcessId, command: Command) -> Result<Receipt, RegistryError> {
        if self.inner.door.is_closed() {
            return Err(RegistryError::Closed);
        }
        let permit = Arc::clone(&self.inner.permits)
            .try_acquire_owned()
            .map_err(|_| RegistryError::Busy { limit: self.inner.environment.options.commands_under_way })?;
        let call = Arc::new(Call::new(self.next_operation(), command, permit));
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
        if call.was_submitted() {
            Err(unknown(format!("its actor died {SENDINGS} times")))
        } else {
            Err(RegistryError::NotStored { reason: format!("its actor died {SENDINGS} times before it decided") })
        }
    }

    /// Goes to the log and past the actors: one that is touched learns of it as of a foreign writer.
    async fn execute_across(&self, command: RegistryCommand) -> Result<RegistryReceipt, RegistryError> {
        if self.inner.door.is_closed() {
            return Err(RegistryError::Closed);
        }
        let _permit = self
            .inner
            .permits
            .try_acquire()
            .map_err(|_| RegistryError::Busy { limit: self.inner.environment.options.commands_under_way })?;
        let operation = self.next_operation();
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
