//! Waiting for the outcome or an event of a process.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use registry_actor::domain::{ProcessAwaitOutput, ProcessEvent, ProcessId, Refusal, Sequence, Tombstone};
use registry_actor::port::{LogError, ProcessRegistry, ProcessRegistryExt, RegistryError};

use crate::backoff::Backoff;
use crate::hub::ProcessChangeHub;
use crate::tick_map::HubSubscription;

/// Waits on a registry.
#[derive(Clone)]
pub struct ProcessAwaiter {
    registry: Arc<dyn ProcessRegistry>,
    hub: Option<ProcessChangeHub>,
    /// Whether every commit ticks the hub, so that a read without a tick could show nothing new.
    hears_every_commit: bool,
}

/// Why a wait ended without what it waited for.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AwaitError {
    /// The registry refused the read; an unknown process among other things.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The process was pruned: it has ended, and its outcome and events are gone.
    #[error("process `{}` is no longer retained: it ended as {}", .tombstone.process_id, .tombstone.terminal_state)]
    NoLongerRetained {
        /// What is left of it.
        tombstone: Box<Tombstone>,
    },
    /// The registry was shut down before it happened.
    #[error("the registry was shut down while process `{process_id}` was awaited")]
    SourceClosed {
        /// The process.
        process_id: ProcessId,
    },
}

impl ProcessAwaiter {
    /// Waits for ticks of the hub. If the hub hears every commit of this registry, nothing is polled; otherwise ticks
    /// hurry the polling along.
    #[must_use]
    pub fn new(registry: Arc<dyn ProcessRegistry>, hub: ProcessChangeHub) -> Self {
        let hears_every_commit = registry.change_source().is_some_and(|source| hub.is_attached_to(&source));
        Self { registry, hub: Some(hub), hears_every_commit }
    }

    /// Waits on the registry's own source of changes where it has one, and polls otherwise.
    #[must_use]
    pub fn attached(registry: Arc<dyn ProcessRegistry>) -> Self {
        match registry.change_source() {
            Some(source) => Self::new(registry, ProcessChangeHub::attached_to(&source)),
            None => Self::polling(registry),
        }
    }

    /// Polls: 25 ms, doubling to 1 s.
    #[must_use]
    pub fn polling(registry: Arc<dyn ProcessRegistry>) -> Self {
        Self { registry, hub: None, hears_every_commit: false }
    }

    /// Waits for the outcome. There is no timeout: wrap it. May be dropped at any time.
    ///
    /// # Errors
    /// [`AwaitError`]; a store that cannot be read for a while is not an error, it is read again.
    pub async fn await_terminal(&self, process_id: &ProcessId) -> Result<ProcessAwaitOutput, AwaitError> {
        // An id may live again: ticks are one, and the end of the life that is awaited may be pruned between two reads.
        let awaited = AtomicU32::new(0);
        let unknown = || Refusal::Unknown { process_id: process_id.clone() };
        let read = || async {
            let record = self.registry.get_process(process_id).await?.ok_or_else(unknown)?;
            let first_seen = awaited.compare_exchange(0, record.generation, Ordering::Relaxed, Ordering::Relaxed);
            if first_seen.is_err_and(|generation| generation != record.generation) {
                return Err(unknown().into());
            }
            Ok(record.status.await_output().cloned())
        };
        self.wait_for(process_id, read).await
    }

    /// Waits for the first event of a type after a cursor, which is exclusive. There is no timeout: wrap it. May be
    /// dropped at any time.
    ///
    /// # Errors
    /// [`AwaitError`].
    pub async fn await_event(
        &self,
        process_id: &ProcessId,
        event_type: &str,
        after: Sequence,
    ) -> Result<Arc<ProcessEvent>, AwaitError> {
        let read = || self.registry.first_event_of_type(process_id, event_type, after);
        self.wait_for(process_id, read).await
    }

    /// An unknown process may be one that was pruned. `None` if that cannot be read now.
    async fn explain(&self, process_id: &ProcessId, error: RegistryError) -> Option<AwaitError> {
        if !matches!(error, RegistryError::Refused(Refusal::Unknown { .. })) {
            return Some(error.into());
        }
        match self.registry.get_tombstone(process_id).await {
            Ok(Some(tombstone)) => Some(AwaitError::NoLongerRetained { tombstone: Box::new(tombstone) }),
            Ok(None) => Some(error.into()),
            Err(RegistryError::Store(LogError::Unreadable { .. })) => None,
            Err(error) => Some(error.into()),
        }
    }

    async fn wait_for<T, F>(&self, process_id: &ProcessId, read: impl Fn() -> F) -> Result<T, AwaitError>
    where
        F: Future<Output = Result<Option<T>, RegistryError>>,
    {
        // Subscribed before the first read: whatever is committed after the read ticks.
        let mut subscription = self.hub.as_ref().map(|hub| hub.subscribe(process_id));
        let mut backoff = Backoff::default();
        let mut source_ended = false;
        loop {
            let must_read_again = match read().await {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => !self.hears_every_commit,
                Err(RegistryError::Store(LogError::Unreadable { reason })) => {
                    tracing::debug!(%process_id, reason, "the store could not be read: the wait goes on");
                    true
                }
                Err(error) => match self.explain(process_id, error).await {
                    Some(error) => return Err(error),
                    None => true,
                },
            };
            if source_ended && self.hears_every_commit {
                return Err(AwaitError::SourceClosed { process_id: process_id.clone() });
            }
            let woken = wait(subscription.as_mut(), must_read_again.then(|| backoff.next()).flatten()).await;
            match woken {
                Woken::Ticked => backoff.reset(),
                Woken::TimeIsUp => {}
                Woken::SourceEnded => {
                    source_ended = true;
                    subscription = None;
                }
            }
        }
    }
}

enum Woken {
    Ticked,
    TimeIsUp,
    SourceEnded,
}

async fn wait(subscription: Option<&mut HubSubscription<ProcessId>>, at_most: Option<std::time::Duration>) -> Woken {
    let time_is_up = async {
        match at_most {
            Some(delay) => tokio::time::sleep(delay).await,
            None => std::future::pending().await,
        }
    };
    let Some(subscription) = subscription else {
        time_is_up.await;
        return Woken::TimeIsUp;
    };
    tokio::select! {
        ticked = subscription.ticked() => match ticked {
            Ok(()) => Woken::Ticked,
            Err(_) => Woken::SourceEnded,
        },
        () = time_is_up => Woken::TimeIsUp,
    }
}

impl fmt::Debug for ProcessAwaiter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ProcessAwaiter")
            .field("hub", &self.hub)
            .field("hears_every_commit", &self.hears_every_commit)
            .finish_non_exhaustive()
    }
}
