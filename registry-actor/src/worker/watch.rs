//! Waiting for what a registry will say: told where it tells, read again where it does not.

use tokio::time::sleep;

use crate::domain::{CoreEventType, ProcessEvent, ProcessId, Sequence};
use crate::port::{Backoff, Look, ProcessRegistry, ProcessWait, RegistryError, WaitAnswer, WaitError, WaitReader};
use std::sync::Arc;

/// Waits until it happens. May be dropped at any time.
///
/// # Errors
/// [`RegistryError`]; a registry that has ended is `Closed`.
pub(super) async fn wait_for(registry: &dyn ProcessRegistry, wait: &ProcessWait) -> Result<WaitAnswer, RegistryError> {
    let mut reader = WaitReader::new(wait);
    if let Some(source) = registry.change_source() {
        return source.wait(registry, &mut reader, sleep).await.map_err(|error| match error {
            WaitError::Registry(error) => error,
            WaitError::SourceClosed { .. } => RegistryError::Closed,
        });
    }
    let mut backoff = Backoff::default();
    loop {
        if let Look::Answer(answer) = reader.look(registry).await? {
            return Ok(answer);
        }
        sleep(backoff.delay()).await;
    }
}

/// Waits until somebody has asked that the process stop, now or at any time before, and answers the request. It never
/// resolves where that cannot happen any more.
pub(super) async fn cancel_requested(registry: &dyn ProcessRegistry, process_id: &ProcessId) -> Arc<ProcessEvent> {
    let event_type = CoreEventType::CancelRequested.name();
    let wait = ProcessWait::event(process_id.clone(), event_type, Sequence::REGISTRATION);
    match persistently(registry, &wait).await {
        Some(WaitAnswer::Happened { event }) => event,
        _ => std::future::pending().await,
    }
}

/// Waits until the process has ended or is gone. It never resolves where that cannot be known.
pub(super) async fn ended(registry: &dyn ProcessRegistry, process_id: &ProcessId) {
    if persistently(registry, &ProcessWait::outcome(process_id.clone())).await.is_none() {
        std::future::pending::<()>().await;
    }
}

/// A registry that fails is asked again; one that does not know the process, or has ended, is not.
async fn persistently(registry: &dyn ProcessRegistry, wait: &ProcessWait) -> Option<WaitAnswer> {
    let mut backoff = Backoff::default();
    loop {
        match wait_for(registry, wait).await {
            Ok(answer) => return Some(answer),
            Err(RegistryError::Refused(_) | RegistryError::Closed) => return None,
            Err(error) => {
                tracing::debug!(process_id = %wait.process_id, %error, "a wait is begun again");
                sleep(backoff.delay()).await;
            }
        }
    }
}
