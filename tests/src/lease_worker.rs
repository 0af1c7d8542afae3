//! A worker that is made to stand still and to die: a child process that works on a registry through its socket, and
//! tells what its runs see on standard output.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use registry_actor::domain::{
    LeaseOwnerLiveness, LeaseTimings, ProcessEventAppendRequest, ProcessEventType, ProcessId, ProcessInput,
    ProcessRegistration, RecoveryDisposition,
};
use registry_actor::port::{ProcessExecutor, ProcessRun, RunEnd, StopCause};
use registry_actor::remote::{RemoteOptions, RemoteRegistry};
use registry_actor::worker::{ProcessExecutors, Worker, WorkerOptions};
use serde_json::json;

use crate::child_process::ChildProcess;

/// The event that an attempt appends again and again while it runs.
pub const BEAT: &str = "beat";
/// The pause between two of them.
const BEAT_PAUSE: Duration = Duration::from_millis(25);

/// How the death of a worker can be proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// By its pid.
    Process,
    /// Not at all.
    None,
}

impl Proof {
    const fn argument(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::None => "none",
        }
    }
}

/// Work that appends beats until it is told to stop, for workers of this kind.
#[must_use]
pub fn beating(id: &ProcessId, kind: &str, disposition: RecoveryDisposition) -> ProcessRegistration {
    ProcessRegistration::new(id.clone(), ProcessInput::new(kind, json!({})), disposition)
        .with_extra_event_types([ProcessEventType::plain(BEAT)])
}

/// Starts a worker of this name and kind. It tells `ready`, and of each attempt `begun PROCESS ATTEMPT` and
/// `over PROCESS ATTEMPT CAUSE`.
#[must_use]
pub fn start(program: &Path, socket: &Path, name: &str, kind: &str, ttl: Duration, proof: Proof) -> ChildProcess {
    let ttl_ms = ttl.as_millis().to_string();
    ChildProcess::spawn(Command::new(program).arg(socket).args([name, kind, &ttl_ms, proof.argument()]))
}

/// The child. `arguments` are the socket, its name, the kind that it runs, the ttl of its leases in ms, and how its death can
/// be proved.
///
/// # Errors
/// What the registry or standard output report.
pub async fn work_until_killed(arguments: &[String]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let [socket, name, kind, ttl_ms, proof] = arguments else {
        return Err("expected a socket, a name, a kind, a ttl in ms, and `process` or `none`".into());
    };
    let registry = RemoteRegistry::connect(socket, RemoteOptions::default()).await?;
    let mut owner = registry.owner(name.clone());
    if proof != Proof::Process.argument() {
        owner.liveness = LeaseOwnerLiveness::Opaque;
    }
    let mut options = WorkerOptions::new(owner).in_session(registry.session());
    options.timings = LeaseTimings::from_ttl(Duration::from_millis(ttl_ms.parse()?))?;
    let executors = ProcessExecutors::default().with(kind.clone(), Beating { worker: name.clone() });
    let _worker = Worker::start(Arc::new(registry), executors, options).await?;
    println!("ready");
    std::future::pending().await
}

/// Appends beats.
struct Beating {
    worker: String,
}

#[async_trait]
impl ProcessExecutor for Beating {
    async fn execute(&self, run: Arc<dyn ProcessRun>) -> RunEnd {
        let (id, attempt) = (run.record().id().clone(), run.attempt());
        println!("begun {id} {attempt}");
        let cause = tokio::select! {
            biased;
            cause = run.stopped() => cause,
            never = self.beat(&*run) => never,
        };
        let cause = match cause {
            StopCause::LeaseLost => "lease_lost",
            StopCause::CancelRequested { .. } => "cancelled",
            _ => "other",
        };
        println!("over {id} {attempt} {cause}");
        RunEnd::Stopped
    }
}

impl Beating {
    /// Goes on whatever is answered: only being told to stop ends it.
    async fn beat(&self, run: &dyn ProcessRun) -> StopCause {
        loop {
            let payload = json!({ "worker": self.worker, "attempt": run.attempt() });
            // A refusal is what the test is about: the run hears of its loss in another way.
            drop(run.append(vec![ProcessEventAppendRequest::new(BEAT, payload)]).await);
            tokio::time::sleep(BEAT_PAUSE).await;
        }
    }
}
