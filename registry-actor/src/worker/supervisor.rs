//! The supervisor of a worker: starts its drive again when that fails. Runs are its children and not the drive's, so that
//! a drive that fails ends no run.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};

use super::drive::{DriveActor, DriveArguments, DriveMessage};
use super::handle::Environment;
use crate::port::Backoff;
use crate::telemetry;

/// The supervisor.
#[derive(Debug, Clone, Copy)]
pub(super) struct WorkerActor;

/// What it hears.
#[derive(Debug)]
pub(super) enum WorkerMessage {
    /// The pause after a failed drive is over.
    StartDrive,
    /// Kill the runs that did not end when they were told to.
    KillRuns,
}

pub(super) struct WorkerState {
    environment: Arc<Environment>,
    drive: ActorRef<DriveMessage>,
    backoff: Backoff,
}

impl Actor for WorkerActor {
    type Msg = WorkerMessage;
    type State = WorkerState;
    type Arguments = Arc<Environment>;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        environment: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        let drive = start_drive(&environment, &myself.get_cell()).await?;
        Ok(WorkerState { environment, drive, backoff: Backoff::default() })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            WorkerMessage::StartDrive => state.drive = start_drive(&state.environment, &myself.get_cell()).await?,
            WorkerMessage::KillRuns => {
                let drive = state.drive.get_id();
                for child in myself.get_children().into_iter().filter(|child| child.get_id() != drive) {
                    child.kill();
                }
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<Self::Msg>,
        event: SupervisionEvent,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let (actor, reason) = match &event {
            SupervisionEvent::ActorTerminated(actor, _, reason) => (actor.get_id(), reason.clone()),
            SupervisionEvent::ActorFailed(actor, error) => (actor.get_id(), Some(error.to_string())),
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => return Ok(()),
        };
        state.ended(actor, reason.as_deref(), &myself);
        Ok(())
    }
}

impl WorkerState {
    /// What became of a run is told by its entry in the account, however it ended.
    fn ended(&mut self, actor: ActorId, reason: Option<&str>, myself: &ActorRef<WorkerMessage>) {
        if actor == self.drive.get_id() {
            let pause: Duration = self.backoff.delay();
            telemetry::restarted("drive");
            tracing::error!(reason, ?pause, "the drive of a worker ended and is started again");
            drop(myself.send_after(pause, || WorkerMessage::StartDrive));
        } else if let Some(reason) = reason {
            tracing::error!(reason, "a run of a worker failed");
        }
    }
}

async fn start_drive(
    environment: &Arc<Environment>,
    supervisor: &ActorCell,
) -> Result<ActorRef<DriveMessage>, ActorProcessingErr> {
    let arguments = DriveArguments { environment: Arc::clone(environment), supervisor: supervisor.clone() };
    let (drive, _) = DriveActor::spawn_linked(None, DriveActor, arguments, supervisor.clone()).await?;
    environment.account.seat(drive.clone());
    Ok(drive)
}
