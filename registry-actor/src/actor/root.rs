//! The root: supervises shards and publisher, and starts them again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};

use super::environment::Environment;
use super::publisher::{PublisherActor, PublisherArguments, PublisherMessage};
use super::seat::Seat;
use super::shard::{ShardActor, ShardArguments, ShardMessage};

/// The root.
#[derive(Debug, Clone, Copy)]
pub(super) struct RootActor;

/// What the root hears: nothing. Whoever shuts the registry down closes the [`Door`], because an exit would overtake a
/// message.
#[derive(Debug)]
pub(super) enum RootMessage {}

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
    type State = RootArguments;
    type Arguments = RootArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        arguments.seat_publisher(&myself.get_cell()).await?;
        for index in 0..arguments.seats.shards.len() {
            arguments.seat_shard(index, &myself.get_cell()).await?;
        }
        Ok(arguments)
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
        if !root.door.is_closed() {
            tracing::error!(reason, "a supervisor of the registry ended and is started again");
            root.replace(actor, &myself.get_cell()).await?;
        }
        Ok(())
    }
}

impl RootArguments {
    async fn replace(&self, ended: ActorId, supervisor: &ActorCell) -> Result<(), ActorProcessingErr> {
        let seats = &self.seats;
        if seats.publisher.actor().is_some_and(|publisher| publisher.get_id() == ended) {
            return self.seat_publisher(supervisor).await;
        }
        let sat_on = |seat: &Seat<ShardMessage>| seat.actor().is_some_and(|shard| shard.get_id() == ended);
        match seats.shards.iter().position(sat_on) {
            Some(index) => self.seat_shard(index, supervisor).await,
            None => Ok(()),
        }
    }

    async fn seat_publisher(&self, supervisor: &ActorCell) -> Result<(), ActorProcessingErr> {
        let arguments = self.publisher.clone();
        let (actor, _) = PublisherActor::spawn_linked(None, PublisherActor, arguments, supervisor.clone()).await?;
        self.seats.publisher.take(actor);
        Ok(())
    }

    async fn seat_shard(&self, index: usize, supervisor: &ActorCell) -> Result<(), ActorProcessingErr> {
        let arguments = ShardArguments { index, environment: Arc::clone(&self.environment) };
        let (actor, _) = ShardActor::spawn_linked(None, ShardActor, arguments, supervisor.clone()).await?;
        self.seats.shards[index].take(actor);
        Ok(())
    }
}
