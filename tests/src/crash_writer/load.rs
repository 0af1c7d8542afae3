//! The child: what its callers do until it is killed, or aborts at a named point.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use registry_actor::actor::{ActorRegistry, RegistryOptions, RestartPolicy};
use registry_actor::domain::{
    LeaseRelease, ProcessAwaitOutput, ProcessHandleDescriptor, ProcessId, ProcessLease, ProcessSignal,
    ProjectionWatermark, PruneFilter, SessionScope, WaitState,
};
use registry_actor::log::{SqliteLog, SqliteOptions};
use registry_actor::port::{FaultPoint, FaultPoints, ProcessRegistryExt, TreeStep};
use serde_json::json;

use super::Syncing;
use super::fact::{Fact, Told};
use crate::example_process::{note, opaque_owner, process_id, registration};

/// Concurrent callers.
const CALLERS: u64 = 32;
/// Processes that they share.
const SHARED: u64 = 4;
/// Longer than any test.
const TTL_MS: u64 = 3_600_000;
/// A child that aborts at a point where actors come back kills one of them each time that so many facts were told.
const FACTS_A_KILL: u64 = 25;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Writes until it is killed. `arguments` are the store's path, how it syncs (`full` or `normal`), the number of the run,
/// and perhaps the point at which to abort and the passage.
///
/// # Errors
/// What the store, the registry or standard output report.
pub async fn write_until_killed(arguments: &[String]) -> Result<(), Failure> {
    let (store, syncing, run, abort) = match arguments {
        [store, syncing, run] => (store, syncing, run, None),
        [store, syncing, run, point, passage] => (store, syncing, run, Some((point.clone(), passage.parse()?))),
        _ => return Err("expected a store, `full` or `normal`, a run, and perhaps a point and a passage".into()),
    };
    let sqlite = if syncing == Syncing::Normal.argument() {
        SqliteOptions::default().dangerously_unsynced_for_tests()
    } else {
        SqliteOptions::default()
    };
    let mut options = RegistryOptions::default();
    let aborts = abort.is_some();
    if let Some((point, passage)) = abort {
        options.faults = Arc::new(AbortAt { point, left: AtomicU64::new(passage) });
        options.restart =
            RestartPolicy { longest_delay: Duration::from_millis(10), failures_allowed: 1_000_000, ..options.restart };
        options.supervisor_restart = options.restart;
    }
    let log = Arc::new(SqliteLog::open(Path::new(store), sqlite)?);
    let registry = ActorRegistry::start(log, options).await?;
    let told = Arc::new(AtomicU64::new(0));
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..CALLERS {
        let (registry, told) = (registry.clone(), Arc::clone(&told));
        let caller = Caller { registry, told, run: run.clone(), number, strikes: aborts, completed: Vec::new() };
        callers.spawn(caller.call());
    }
    while let Some(ended) = callers.join_next().await {
        ended??;
    }
    Ok(())
}

/// Ends the operating-system process at the nth passage of a point.
struct AbortAt {
    point: String,
    left: AtomicU64,
}

impl AbortAt {
    fn passed(&self, point: &str) {
        if self.point == point && self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            std::process::abort();
        }
    }
}

impl FaultPoints for AbortAt {
    fn reached(&self, point: FaultPoint, _: &ProcessId) {
        self.passed(&format!("{point:?}"));
    }

    fn tree(&self, step: &TreeStep) {
        if matches!(step, TreeStep::Restarting(_)) {
            self.passed("Restarting");
        }
    }
}

/// One caller. What it does with a process of its own it does one after the other, so that at most one thing is not
/// acknowledged when it dies.
struct Caller {
    registry: ActorRegistry,
    told: Arc<AtomicU64>,
    run: String,
    number: u64,
    strikes: bool,
    completed: Vec<ProcessId>,
}

impl Caller {
    async fn call(mut self) -> Result<(), Failure> {
        let shared = process_id(&format!("shared-{}", self.number % SHARED));
        self.registry.register_process(registration(&shared)).await?;
        self.tell(&shared, Fact::Registered)?;
        for round in 0_u64.. {
            let id = process_id(&format!("r{}-c{}-{round}", self.run, self.number));
            self.append(&shared, round).await?;
            self.live(&id, round).await?;
            if (round + self.number) % 3 == 2 {
                self.prune().await?;
            }
        }
        Ok(())
    }

    /// The life of a process. Each fourth stays with a lease held, and each other fourth waiting.
    async fn live(&mut self, id: &ProcessId, round: u64) -> Result<(), Failure> {
        // A host that dies early has seen every kind.
        let kind = round + self.number;
        let registry = self.registry.clone();
        registry.register_process(registration(id).with_tags([self.tag()])).await?;
        self.tell(id, Fact::Registered)?;
        self.append(id, 1).await?;
        self.append(id, 2).await?;
        let lease = self.claim(id).await?;
        let receipt = registry.append_events_fenced(id, vec![note(3)], lease.fence()).await?;
        self.tell(id, Fact::Appended { sequence: receipt.events[0].event().sequence, number: 3 })?;
        let lease = registry.renew_process_lease(lease, TTL_MS).await?;
        self.tell(id, held(&lease))?;
        let scope = SessionScope::session(id.as_str());
        registry.grant_handle(scope.clone(), id, ProcessHandleDescriptor::default()).await?;
        self.tell(id, Fact::Granted)?;
        if kind % 4 == 1 {
            return self.tell(id, Fact::LeftAlone);
        }
        registry.complete_process_lease(&lease).await?;
        self.tell(id, Fact::Released)?;
        let wait = WaitState::signal(id, &ProcessSignal::new("go")?, 1, 0);
        registry.set_process_wait(id, wait).await?;
        self.tell(id, Fact::WaitSet)?;
        if kind % 4 == 3 {
            return self.tell(id, Fact::LeftAlone);
        }
        registry.clear_process_wait(id).await?;
        self.tell(id, Fact::WaitCleared)?;
        registry.revoke_handle(scope, id).await?;
        self.tell(id, Fact::Revoked)?;
        let lease = self.claim(id).await?;
        let output = ProcessAwaitOutput::success(json!(round));
        registry.complete_process_fenced(id, output, lease.fence(), LeaseRelease::Release).await?;
        self.tell(id, Fact::Completed { number: round })?;
        self.completed.push(id.clone());
        Ok(())
    }

    async fn append(&self, id: &ProcessId, number: u64) -> Result<(), Failure> {
        let receipt = self.registry.append_event(id, note(number)).await?;
        self.tell(id, Fact::Appended { sequence: receipt.events[0].event().sequence, number })
    }

    async fn claim(&self, id: &ProcessId) -> Result<ProcessLease, Failure> {
        let outcome = self.registry.claim_process_lease(id, opaque_owner("caller"), TTL_MS).await?;
        let lease = outcome.acquired().ok_or("nobody else claims it")?;
        self.tell(id, held(&lease))?;
        Ok(lease)
    }

    async fn prune(&mut self) -> Result<(), Failure> {
        let filter = PruneFilter { tags: BTreeSet::from([self.tag()]), ..PruneFilter::ended_before(u64::MAX) };
        self.registry.prune_terminal_processes(filter, ProjectionWatermark::NoProjector).await?;
        for id in std::mem::take(&mut self.completed) {
            self.tell(&id, Fact::Pruned)?;
        }
        Ok(())
    }

    fn tag(&self) -> String {
        format!("r{}-c{}", self.run, self.number)
    }

    fn tell(&self, id: &ProcessId, fact: Fact) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(&Told { id: id.clone(), fact })?;
        line.push(b'\n');
        // One write a line: a line that the parent can read was acknowledged whole.
        std::io::stdout().lock().write_all(&line)?;
        let told = self.told.fetch_add(1, Ordering::Relaxed);
        if self.strikes && told.is_multiple_of(FACTS_A_KILL) {
            self.registry.process_actor(id).iter().for_each(|actor| actor.kill());
            if told.is_multiple_of(4 * FACTS_A_KILL) {
                self.registry.supervisors_of(id).iter().for_each(|actor| actor.kill());
            }
        }
        Ok(())
    }
}

fn held(lease: &ProcessLease) -> Fact {
    Fact::Held {
        token: lease.lease_token.clone(),
        fence: lease.fencing_token.0,
        expires_at_epoch_ms: lease.expires_at_epoch_ms,
    }
}
