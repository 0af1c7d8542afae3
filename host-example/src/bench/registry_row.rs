//! The row *registry*: the product as a host embeds it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use registry_actor::actor::{ActorRegistry, RegistryOptions};
use registry_actor::domain::{
    ProcessEventAppendRequest, ProcessEventType, ProcessId, ProcessInput, ProcessRegistration, RecoveryDisposition,
};
use registry_actor::log::{SqliteLog, SqliteOptions};
use registry_actor::port::ProcessRegistryExt;
use serde_json::json;

use super::measure::{Slice, closed_loop};

/// How long the processes of the bench may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct RegistryRow {
    registry: ActorRegistry,
    processes: Vec<ProcessId>,
}

impl RegistryRow {
    pub(super) async fn open(path: &Path, processes: usize) -> anyhow::Result<Self> {
        let log = Arc::new(SqliteLog::open(path, SqliteOptions::default())?);
        let registry = ActorRegistry::start(log, RegistryOptions::default()).await?;
        let mut ids = Vec::new();
        for number in 0..processes {
            ids.push(registry.register_process(bench_process(number)?).await?.id().clone());
        }
        Ok(Self { registry, processes: ids })
    }

    pub(super) const fn registry(&self) -> &ActorRegistry {
        &self.registry
    }

    pub(super) async fn run(&self, callers: usize, duration: Duration) -> anyhow::Result<Slice> {
        let caller = |number: usize| {
            let registry = self.registry.clone();
            let id = self.processes[number % self.processes.len()].clone();
            move || {
                let (registry, id) = (registry.clone(), id.clone());
                async move {
                    registry.append_event(&id, line()).await?;
                    Ok(())
                }
            }
        };
        closed_loop((0..callers).map(caller).collect(), duration).await
    }

    pub(super) async fn close(&self) {
        self.registry.shut_down(PATIENCE).await;
    }
}

/// A process as `proctor run` registers one.
pub(super) fn bench_process(number: usize) -> anyhow::Result<ProcessRegistration> {
    let input = ProcessInput::new("bench", json!({ "number": number }));
    let id = ProcessId::new(format!("bench-{number}"))?;
    Ok(ProcessRegistration::new(id, input, RecoveryDisposition::ExternallyOwned)
        .with_extra_event_types([ProcessEventType::plain("command.output")]))
}

/// A line of output, 80 characters long.
pub(super) fn line() -> ProcessEventAppendRequest {
    ProcessEventAppendRequest::new(
        "command.output",
        json!({
            "stream": "stdout",
            "text": "the quick brown fox jumps over the lazy dog and then goes home to sleep all day",
        }),
    )
}
