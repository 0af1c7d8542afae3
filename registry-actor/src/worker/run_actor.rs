//! The actor of one run: a child of the worker, so that a run which panics or is killed is nobody else's end.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::account::RunEntry;
use super::handle::Environment;
use super::run::Run;
use super::stop::{StopSender, StopSignal};
use crate::domain::ProcessId;

/// One run.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunActor;

/// What a run hears.
#[derive(Debug)]
pub(super) enum RunMessage {
    /// Begin. Sent by the run to itself, so that whoever started it does not wait for it.
    Begin,
}

/// What a run is started with.
pub(super) struct RunArguments {
    pub(super) environment: Arc<Environment>,
    pub(super) process_id: ProcessId,
    pub(super) entry: Arc<RunEntry>,
    pub(super) stop: StopSender,
    pub(super) stopped: StopSignal,
}

impl Actor for RunActor {
    type Msg = RunMessage;
    type State = Run;
    type Arguments = RunArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<Self::Msg>,
        arguments: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        myself.cast(RunMessage::Begin)?;
        let RunArguments { environment, process_id, entry, stop, stopped } = arguments;
        Ok(Run { environment, process_id, entry, stop, stopped })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        RunMessage::Begin: Self::Msg,
        run: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let taken = match run.take_over().await {
            Ok(taken) => Some(taken),
            Err(error) => {
                tracing::warn!(process_id = %run.process_id, %error, "a run has no end that could be written");
                None
            }
        };
        run.entry.finish(taken);
        myself.stop(None);
        Ok(())
    }
}
