//! One life of a sink: takes what was handed over and tells the sink.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use registry_actor::port::ProcessEventSink;

use super::thread::Post;
use crate::hand_over::Delivery;

/// The largest batch, whatever a sink says it takes: what is in hand is lost when the sink fails.
const LARGEST_BATCH: usize = 4_096;

/// One life of a sink.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConsumerActor;

/// What it hears.
#[derive(Debug)]
pub(super) enum ConsumerMessage {
    /// Make the sink and deliver to it until nothing will come any more.
    Deliver,
}

impl Actor for ConsumerActor {
    type Msg = ConsumerMessage;
    type State = Arc<Post>;
    type Arguments = Arc<Post>;

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        post: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(post)
    }

    /// The factory runs here and not at the start, where a panic would not be told to the supervisor.
    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        post: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ConsumerMessage::Deliver => {
                let sink = (post.factory)();
                let limit = sink.batch_limit().clamp(1, LARGEST_BATCH);
                while let Some(in_hand) = post.line.next(limit).await {
                    if let Some(delivery) = in_hand.delivery() {
                        tell(&*sink, delivery, limit, post).await;
                    }
                    in_hand.delivered();
                    // A flood of events leaves the tasks that the sink spawned their turn.
                    tokio::task::consume_budget().await;
                }
                myself.stop(None);
            }
        }
        Ok(())
    }
}

async fn tell(sink: &dyn ProcessEventSink, delivery: &Delivery, limit: usize, post: &Post) {
    match delivery {
        Delivery::Events(events) => {
            match events.as_slice() {
                [event] if limit == 1 => sink.emit(event).await,
                events => sink.emit_batch(events).await,
            }
            // A sink that only hears well of what it missed has not recovered.
            post.succeeded();
        }
        Delivery::Missed(missed) => sink.missed(missed).await,
        Delivery::Pruned(tombstone) => sink.pruned(tombstone).await,
    }
}
