//! An async host with an executor of its own: an order that is packed, waits for somebody's approval, and is shipped.
//!
//! What it shows: what an executor is given and what it answers; how it stops; how it waits for a signal without taking up room; how an
//! attempt that failed is followed by another one that does not do again what is done already.
//!
//! Run it with `cargo run -p host-example --example host_with_executor`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use awaiter::ProcessAwaiter;
use registry_actor::actor::{ActorRegistry, RegistryOptions};
use registry_actor::domain::{
    AttemptFailure, InvalidIdentifier, InvalidSignalName, ProcessAwaitOutput, ProcessEventAppendRequest,
    ProcessEventType, ProcessId, ProcessInput, ProcessRegistration, ProcessSignal, RecoveryDisposition, ReplayKey,
    RetryPolicy, Sequence,
};
use registry_actor::log::{SqliteLog, SqliteOptions};
use registry_actor::port::{ProcessExecutor, ProcessRegistryExt, ProcessRun, RegistryError, RunEnd, RunWaitError};
use registry_actor::worker::{ProcessExecutors, Worker, WorkerOptions};
use serde_json::json;

/// The kind of the processes, by which the worker finds their executor.
const ORDER: &str = "order";
/// The goods are in the box.
const PACKED: &str = "order.packed";

/// Carries out orders.
struct OrderExecutor;

#[async_trait]
impl ProcessExecutor for OrderExecutor {
    async fn execute(&self, run: Arc<dyn ProcessRun>) -> RunEnd {
        match carry_out(&*run).await {
            Ok(output) => RunEnd::Ended(output),
            // Cancelled, past its deadline, or the host goes: what that means follows from the cause.
            Err(NotShipped::Wait(RunWaitError::Stopped(_))) => RunEnd::Stopped,
            // Another attempt follows, as the process declares.
            Err(error) => RunEnd::Failed(AttemptFailure::execution("order_failed", error.to_string())),
        }
    }
}

/// Why an attempt did not ship.
#[derive(Debug, thiserror::Error)]
enum NotShipped {
    #[error("the printer for labels is on fire")]
    NoLabel,
    #[error(transparent)]
    Name(#[from] InvalidSignalName),
    #[error(transparent)]
    Key(#[from] InvalidIdentifier),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Wait(#[from] RunWaitError),
}

async fn carry_out(run: &dyn ProcessRun) -> Result<ProcessAwaitOutput, NotShipped> {
    // Under its replay key this happens once, whichever attempt does it: the second time it is found in the log. What it says
    // must not depend on the attempt: another fact under the same key is refused.
    let packed =
        ProcessEventAppendRequest::new(PACKED, json!({ "goods": run.record().registration.input.payload["goods"] }));
    run.append(vec![packed.with_replay_key(ReplayKey::new("packed")?)]).await?;
    if run.attempt() == 1 {
        return Err(NotShipped::NoLabel);
    }
    // While it waits, the record says so, and others may run in its place.
    let approved = run.await_signal(&ProcessSignal::new("approve")?, Sequence::REGISTRATION).await?;
    Ok(ProcessAwaitOutput::success(json!({ "order": run.record().id(), "approved_by": approved.payload["by"] })))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let (outcome, packed) = run_host(&directory.path().join("store.db")).await?;
    println!("packed {packed} time, and then: {}", json!(outcome));
    Ok(())
}

/// Runs one order to its end. Answers its outcome, and how often it was packed.
async fn run_host(store: &Path) -> anyhow::Result<(ProcessAwaitOutput, usize)> {
    let log = Arc::new(SqliteLog::open(store, SqliteOptions::default())?);
    let registry = ActorRegistry::start(log, RegistryOptions::default()).await?;

    // Who this host is. Whoever opens the store after its death has proved that it is dead.
    let options = WorkerOptions::new(registry.owner("shop"));
    let executors = ProcessExecutors::default().with(ORDER, OrderExecutor);
    let worker = Worker::start(Arc::new(registry.clone()), executors, options).await?;

    // To register is to start: the worker hears of it.
    let id = ProcessId::new("order-17")?;
    let retry = RetryPolicy { max_attempts: 3, initial_backoff_ms: 1, max_backoff_ms: 1_000 };
    let input = ProcessInput::new(ORDER, json!({ "goods": ["tea"] }));
    let registration = ProcessRegistration::new(id.clone(), input, RecoveryDisposition::Rerunnable)
        .with_extra_event_types([PACKED, "signal.approve"].map(ProcessEventType::plain))
        .with_retry(retry);
    registry.register_process(registration).await?;

    // Somebody else approves. Sent again under its id, it is the same signal.
    let approve = ProcessSignal::new("approve")?;
    registry.signal_process(&id, &approve, "approval-1", json!({ "by": "Ada" })).await?;

    let awaiter = ProcessAwaiter::attached(Arc::new(registry.clone()));
    let outcome = awaiter.await_terminal(&id).await?;
    let events = registry.events_after(&id, Sequence::REGISTRATION).await?;
    let packed = events.iter().filter(|event| *event.event_type == *PACKED).count();

    // What is bound to this host and has no outcome is said to be abandoned. What may run again is left for the next one.
    worker.drain_owner_bound_work(Duration::from_secs(10)).await?;
    worker.shut_down(Duration::from_secs(10)).await;
    registry.shut_down(Duration::from_secs(10)).await;
    Ok((outcome, packed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_second_attempt_ends_what_the_first_one_began() {
        let directory = tempfile::tempdir().expect("a directory");
        let (outcome, packed) = run_host(&directory.path().join("store.db")).await.expect("a host");
        let expected = ProcessAwaitOutput::success(json!({ "order": "order-17", "approved_by": "Ada" }));
        assert_eq!((outcome, packed), (expected, 1));
    }
}
