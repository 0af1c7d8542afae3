//! The supervisor of a sink: makes it anew when it fails, any number of times.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};

use super::consumer::{ConsumerActor, ConsumerMessage};
use super::thread::Post;

/// The supervisor of a sink.
#[derive(Debug, Clone, Copy)]
pub(super) struct SupervisorActor;

/// What the supervisor hears.
#[derive(Debug)]
pub(super) enum SupervisorMessage {
    /// It is time to start the sink.
    Start,
}

impl Actor for SupervisorActor {
    type Msg = SupervisorMessage;
    type State = Arc<Post>;
    type Arguments = Arc<Post>;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        post: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        drop(myself.cast(SupervisorMessage::Start));
        Ok(post)
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        post: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SupervisorMessage::Start => {
                let spawned =
                    ConsumerActor::spawn_linked(None, ConsumerActor, Arc::clone(post), myself.get_cell()).await;
                match spawned {
                    Ok((consumer, _)) => drop(consumer.cast(ConsumerMessage::Deliver)),
                    Err(error) => post.start_again(&myself, &error.to_string()),
                }
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        post: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(_, error) => post.start_again(&myself, &error.to_string()),
            SupervisionEvent::ActorTerminated(_, _, reason) => {
                post.start_again(&myself, reason.as_deref().unwrap_or("its task ended"));
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        Ok(())
    }
}

impl Post {
    fn start_again(&self, supervisor: &ActorRef<SupervisorMessage>, reason: &str) {
        if self.line.is_ended() {
            supervisor.stop(None);
        } else if self.is_let_go() {
            tracing::warn!(reason, "a sink failed and nobody holds its mailbox: what waits is given up");
            self.line.give_up();
            supervisor.stop(None);
        } else {
            let delay = self.restart.delay_after(self.failed());
            tracing::warn!(reason, delay_ms = delay.as_millis(), "a sink failed and is started again");
            self.line.restarted();
            drop(supervisor.send_after(delay, || SupervisorMessage::Start));
        }
    }
}
