//! The root: supervises shards and publisher, and starts them again: with a delay, and not for ever. Past the limit it
//! fails, and its own supervisor, the host's, knows what to do.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};

use super::environment::Environment;
use super::publisher::{PublisherActor, PublisherArguments, PublisherMessage};
use super::restart::{RestartDecision, RestartHistory};
use super::seat::Seat;
use super::shard::{ShardActor, ShardArguments, ShardMessage};
use super::tree::{Life, Member};
use crate::port::TreeStep;
use crate::telemetry;

/// The root.
#[derive(Debug, Clone, Copy)]
pub(super) struct RootActor;

/// What the root hears. Whoever shuts the registry down closes the [`Door`], because an exit would overtake a message.
#[derive(Debug)]
pub(super) enum RootMessage {
    /// The delay before a member is started again is over.
    Restart(Member),
}

/// A registry that has given up: one of its supervisors failed too often. It is what the host's supervisor finds in the
/// `ActorFailed` event of the root. Callers get [`Closed`](crate::port::RegistryError::Closed), or an unknown outcome where
/// something was at the log; waiters are told that their source has ended. The log stays open: another registry may be
/// started over it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{member} failed {failures} times within {window:?}, the last time by: {reason}")]
pub struct RegistryFailed {
    /// Which one.
    pub member: Member,
    /// How often it failed.
    pub failures: usize,
    /// Within which time.
    pub window: std::time::Duration,
    /// What it failed of last.
    pub reason: String,
}

/// What the root knows.
pub(super) struct Root {
    arguments: RootArguments,
    histories: HashMap<Member, RestartHistory>,
    _life: Life,
}

/// Whether the registry takes commands and starts again what ends.
#[derive(Debug, Default)]
pub(super) struct Door(AtomicBool);

impl Door {
    /// Closes it; answers whether it was closed before.
    pub(super) fn close(&self) -> bool {
        self.0.swap(true, Ordering::SeqCst)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// What the root is started with.
#[derive(Debug)]
pub(super) struct RootArguments {
    pub(super) environment: Arc<Environment>,
    pub(super) publisher: PublisherArguments,
    pub(super) seats: Arc<Seats>,
    pub(super) door: Arc<Door>,
}

/// Where the current shards and the current publisher can be found.
#[derive(Debug)]
pub(super) struct Seats {
    pub(super) shards: Vec<Seat<ShardMessage>>,
    pub(super) publisher: Seat<PublisherMessage>,
}

impl Seats {
    pub(super) fn new(shards: usize) -> Self {
        Self { shards: (0..shards.max(1)).map(|_| Seat::default()).collect(), publisher: Seat::default() }
    }

    /// Empties the seat of an actor that has ended, so that callers wait for its successor.
    fn vacate(&self, ended: ActorId) -> Option<Member> {
        if self.publisher.vacate(ended) {
            return Some(Member::Publisher);
        }
        self.shards.iter().position(|seat| seat.vacate(ended)).map(Member::Shard)
    }
}

/// However the root ends, killed by its host's supervisor or panicking, nothing publishes after it: whoever waits for
/// commits has to hear that none will come.
impl Drop for RootArguments {
    fn drop(&mut self) {
        let source = &self.publisher.source;
        if catch_unwind(AssertUnwindSafe(|| source.close())).is_err() {
            tracing::error!("a commit listener panicked when its source ended");
        }
    }
}

impl Actor for RootActor {
    type Msg = RootMessage;
    type State = Root;
    type Arguments = RootArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let life = Life::begin(&arguments.environment, Member::Root);
        let root = Root { arguments, histories: HashMap::new(), _life: life };
        let shards = (0..root.arguments.seats.shards.len()).map(Member::Shard);
        for member in std::iter::once(Member::Publisher).chain(shards) {
            root.seat(member, &myself.get_cell()).await?;
        }
        Ok(root)
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        RootMessage::Restart(member): Self::Msg,
        root: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        if root.arguments.door.is_closed() {
            return Ok(());
        }
        root.arguments.environment.options.faults.tree(&TreeStep::Restarting(member));
        match root.seat(member, &myself.get_cell()).await {
            Ok(()) => Ok(()),
            Err(error) => root.failed(member, error.to_string(), &myself),
        }
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        root: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let (actor, reason) = match &event {
            SupervisionEvent::ActorTerminated(actor, _, reason) => {
                (actor.get_id(), reason.clone().unwrap_or_else(|| "its task ended".to_owned()))
            }
            SupervisionEvent::ActorFailed(actor, error) => (actor.get_id(), error.to_string()),
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => return Ok(()),
        };
        // The state of the dead one holds callers: dropping it lets them send again.
        drop(event);
        match root.arguments.seats.vacate(actor) {
            Some(member) if !root.arguments.door.is_closed() => root.failed(member, reason, &myself),
            Some(_) | None => Ok(()),
        }
    }
}

impl Root {
    fn failed(
        &mut self,
        member: Member,
        reason: String,
        myself: &ActorRef<RootMessage>,
    ) -> Result<(), ActorProcessingErr> {
        let environment = &self.arguments.environment;
        let policy = environment.options.supervisor_restart;
        let history = self.histories.entry(member).or_default();
        match history.record_failure(environment.elapsed(), &policy) {
            RestartDecision::After(delay) => {
                telemetry::restarted("supervisor");
                tracing::error!(%member, reason, ?delay, "a supervisor of the registry ended and is started again");
                drop(myself.send_after(delay, move || RootMessage::Restart(member)));
                Ok(())
            }
            RestartDecision::Quarantine(_) => {
                let failures = policy.failures_allowed.saturating_add(1);
                let failed = RegistryFailed { member, failures, window: policy.window, reason };
                tracing::error!(%failed, "the registry gives up");
                Err(failed.into())
            }
        }
    }

    async fn seat(&self, member: Member, supervisor: &ActorCell) -> Result<(), SpawnErr> {
        let RootArguments { environment, publisher, seats, .. } = &self.arguments;
        match member {
            Member::Publisher => {
                let arguments = publisher.clone();
                let (actor, _) =
                    PublisherActor::spawn_linked(None, PublisherActor, arguments, supervisor.clone()).await?;
                seats.publisher.take(actor);
            }
            Member::Shard(index) => {
                let arguments = ShardArguments { index, environment: Arc::clone(environment) };
                let (actor, _) = ShardActor::spawn_linked(None, ShardActor, arguments, supervisor.clone()).await?;
                seats.shards[index].take(actor);
            }
            // They have no seat.
            Member::Root | Member::Listeners | Member::Log => {}
        }
        Ok(())
    }
}
