//! The driver of a host: starts what can run, and waits for how it ends.
//!
//! It runs nothing itself: that is the run handle's. It polls no foreign engine: that is the attach's.

use std::fmt;
use std::sync::Arc;

use registry_actor::domain::{ProcessAwaitOutput, ProcessEvent, ProcessId, Refusal, Sequence};
use registry_actor::port::{
    EngineError, ProcessAttach, ProcessEventSink, ProcessRegistry, ProcessRegistryExt, ProcessRunHandle, RegistryError,
};

use crate::awaiter::{AwaitError, ProcessAwaiter};
use crate::hub::ProcessChangeHub;
use crate::watch::{watch_process_registry, watch_process_registry_with_sink};

/// Starts processes and waits for them. Clones are one driver.
#[derive(Clone)]
pub struct ProcessWorkDriver {
    registry: Arc<dyn ProcessRegistry>,
    hub: ProcessChangeHub,
    awaiter: ProcessAwaiter,
    run_handle: Arc<dyn ProcessRunHandle>,
    attach: Option<Arc<dyn ProcessAttach>>,
}

/// Why a wait of the driver ended without an outcome.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DriverError {
    /// The wait on the registry did.
    #[error(transparent)]
    Await(#[from] AwaitError),
    /// The engine that was attached to did.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl ProcessWorkDriver {
    /// Watches the registry; what is to be heard without polling goes through [`process_registry`](Self::process_registry).
    #[must_use]
    pub fn new(registry: Arc<dyn ProcessRegistry>, run_handle: Arc<dyn ProcessRunHandle>) -> Self {
        let (registry, hub) = watch_process_registry(registry);
        Self::from_watched(registry, hub, run_handle)
    }

    /// The same with a sink that is told of events: see [`watch_process_registry_with_sink`].
    #[must_use]
    pub fn new_with_sink(
        registry: Arc<dyn ProcessRegistry>,
        run_handle: Arc<dyn ProcessRunHandle>,
        sink: Option<Arc<dyn ProcessEventSink>>,
    ) -> Self {
        let (registry, hub) = watch_process_registry_with_sink(registry, sink);
        Self::from_watched(registry, hub, run_handle)
    }

    /// Over a registry that is watched already, and its hub.
    #[must_use]
    pub fn from_watched(
        registry: Arc<dyn ProcessRegistry>,
        hub: ProcessChangeHub,
        run_handle: Arc<dyn ProcessRunHandle>,
    ) -> Self {
        let awaiter = ProcessAwaiter::new(Arc::clone(&registry), hub.clone());
        Self { registry, hub, awaiter, run_handle, attach: None }
    }

    /// With a worker in this host. What the worker writes to a registry of its own that does not tell of its commits is
    /// found by polling: watch the registry first, give the worker the watched one, and use
    /// [`from_watched`](Self::from_watched), if that is too slow.
    #[must_use]
    pub fn inline(registry: Arc<dyn ProcessRegistry>, worker: impl ProcessRunHandle + 'static) -> Self {
        Self::new(registry, Arc::new(worker))
    }

    /// Asks this engine for outcomes of processes that have not ended.
    #[must_use]
    pub fn with_attach(mut self, attach: Arc<dyn ProcessAttach>) -> Self {
        self.attach = Some(attach);
        self
    }

    /// The registry, watched.
    #[must_use]
    pub fn process_registry(&self) -> Arc<dyn ProcessRegistry> {
        Arc::clone(&self.registry)
    }

    /// The hub of the watched registry.
    #[must_use]
    pub const fn change_hub(&self) -> &ProcessChangeHub {
        &self.hub
    }

    /// An awaiter on the watched registry.
    #[must_use]
    pub const fn awaiter(&self) -> &ProcessAwaiter {
        &self.awaiter
    }

    /// Waits for the outcome. A process that has ended is answered from the registry; any other by the engine, if one is
    /// attached, and what it answers stands, an error too. There is no timeout: wrap it. May be dropped at any time.
    ///
    /// # Errors
    /// [`DriverError`]. With an engine attached, a registry that cannot be read is an error, and the engine is not asked:
    /// the process may have ended.
    pub async fn await_terminal(&self, process_id: &ProcessId) -> Result<ProcessAwaitOutput, DriverError> {
        let Some(attach) = &self.attach else {
            return Ok(self.awaiter.await_terminal(process_id).await?);
        };
        match self.outcome_now(process_id).await? {
            Some(output) => Ok(output),
            None => Ok(attach.await_terminal(process_id).await?),
        }
    }

    /// Waits for the first event of a type after a cursor, which is exclusive. It is the awaiter's: an engine knows no
    /// events.
    ///
    /// # Errors
    /// [`AwaitError`].
    pub async fn await_event(
        &self,
        process_id: &ProcessId,
        event_type: &str,
        after: Sequence,
    ) -> Result<Arc<ProcessEvent>, AwaitError> {
        self.awaiter.await_event(process_id, event_type, after).await
    }

    /// Has the run handle claim and run what nobody runs. `reason` says for logs why now.
    ///
    /// # Errors
    /// [`EngineError`]; it is logged with the reason too, because whoever nudges often does not look at the answer.
    pub async fn claim_and_run_pending(&self, reason: &str) -> Result<(), EngineError> {
        let result = self.run_handle.claim_and_run_pending(reason).await;
        if let Err(error) = &result {
            tracing::warn!(reason, %error, "pending processes could not be claimed and run");
        }
        result
    }

    /// The outcome, if the process has ended.
    async fn outcome_now(&self, process_id: &ProcessId) -> Result<Option<ProcessAwaitOutput>, AwaitError> {
        if let Some(record) = self.registry.get_process(process_id).await? {
            return Ok(record.status.await_output().cloned());
        }
        match self.registry.get_tombstone(process_id).await? {
            Some(tombstone) => Err(AwaitError::NoLongerRetained { tombstone: Box::new(tombstone) }),
            None => Err(RegistryError::from(Refusal::Unknown { process_id: process_id.clone() }).into()),
        }
    }
}

impl fmt::Debug for ProcessWorkDriver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ProcessWorkDriver")
            .field("hub", &self.hub)
            .field("attached", &self.attach.is_some())
            .finish_non_exhaustive()
    }
}
