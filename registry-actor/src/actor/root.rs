//! The root: supervises shards and publisher, and starts them again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::watch;

use super::environment::Environment;
use super::publisher::{PublisherActor, PublisherArguments, PublisherMessage};
use super::shard::{ShardActor, ShardArguments, ShardMessage};

/// The root.
#[derive(Debug, Clone, Copy)]
pub(super) struct RootActor;

/// What the root hears.
#[derive(Debug)]
pub(super) enum RootMessage {
    /// Start nothing again from now on.
    CloseDoor,
}

/// What the root is started with.
#[derive(Debug)]
pub(super) struct RootArguments {
    pub(super) environment: Arc<Environment>,
    pub(super) publisher: PublisherArguments,
    pub(super) seats: Arc<Seats>,
}

/// Where the current shards and the current publisher can be found.
#[derive(Debug)]
pub(super) struct Seats {
    pub(super) shards: Vec<watch::Sender<Option<ActorRef<ShardMessage>>>>,
    pub(super) publisher: watch::Sender<Option<ActorRef<PublisherMessage>>>,
}

impl Seats {
    pub(super) fn new(shards: usize) -> Self {
        Self {
            shards: (0..shards.max(1)).map(|_| watch::Sender::new(None)).collect(),
            publisher: watch::Sender::new(None),
        }
    }
}

/// What the root knows.
pub(super) struct Root {
    arguments: RootArguments,
    door_closed: bool,
}

/// However the root ends, killed by its host's supervisor or panicking, nothing publishes after it: whoever waits for
/// commits has to hear that none will come.
impl Drop for Root {
    fn drop(&mut self) {
        let source = &self.arguments.publisher.source;
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
        let root = Root { arguments, door_closed: false };
        root.seat_publisher(&myself.get_cell()).await?;
        for index in 0..root.arguments.seats.shards.len() {
            root.seat_shard(index, &myself.get_cell()).await?;
        }
        Ok(root)
    }

    async fn handle(
        &self,
        _myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        root: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            RootMessage::CloseDoor => root.door_closed = true,
        }
        Ok(())
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
        if !root.door_closed {
            tracing::error!(reason, "a supervisor of the registry ended and is started again");
            root.replace(actor, &myself.get_cell()).await?;
        }
        Ok(())
    }
}

impl Root {
    async fn replace(&self, ended: ActorId, supervisor: &ActorCell) -> Result<(), ActorProcessingErr> {
        let seats = &self.arguments.seats;
        if seats.publisher.borrow().as_ref().is_some_and(|publisher| publisher.get_id() == ended) {
            return self.seat_publisher(supervisor).await;
        }
        let sat_on = |seat: &watch::Sender<Option<ActorRef<ShardMessage>>>| {
            seat.borrow().as_ref().is_some_and(|shard| shard.get_id() == ended)
        };
        match seats.shards.iter().position(sat_on) {
            Some(index) => self.seat_shard(index, supervisor).await,
            None => Ok(()),
        }
    }

    async fn seat_publisher(&self, supervisor: &ActorCell) -> Result<(), ActorProcessingErr> {
        let arguments = self.arguments.publisher.clone();
        let (actor, _) = PublisherActor::spawn_linked(None, PublisherActor, arguments, supervisor.clone()).await?;
        self.arguments.seats.publisher.send_replace(Some(actor));
        Ok(())
    }

    async fn seat_shard(&self, index: usize, supervisor: &ActorCell) -> Result<(), ActorProcessingErr> {
        let arguments = ShardArguments { index, environment: Arc::clone(&self.arguments.environment) };
        let (actor, _) = ShardActor::spawn_linked(None, ShardActor, arguments, supervisor.clone()).await?;
        self.arguments.seats.shards[index].send_replace(Some(actor));
        Ok(())
    }
}
