//! Settings of a worker.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::scope::WorkerScope;
use crate::actor::SystemClock;
use crate::domain::{LeaseOwnerIdentity, LeaseOwnerLiveness, LeaseTimings, StoreSession};
use crate::port::Clock;

/// Settings of a worker. All but the owner have a default.
#[derive(Clone)]
#[non_exhaustive]
pub struct WorkerOptions {
    /// Who the worker is: the name under which it begins executions, and how its death can be proved. Each attempt holds
    /// its lease as an incarnation of its own, whose id begins with that of this owner, so that a later attempt fences an earlier
    /// one. [`ActorRegistry::owner`](crate::actor::ActorRegistry::owner) makes one for a worker in the host of the store.
    pub owner: LeaseOwnerIdentity,
    /// The session in which the store is open, where the worker can know it: it proves the death of owners of earlier
    /// sessions. Without it no death is proved, and every owner ends by time. A worker elsewhere whose host was started anew goes
    /// on with the session that it was given: what it cannot prove then ends by time too. Default: the one by which the owner's
    /// death can be proved, if it is one.
    pub session: Option<StoreSession>,
    /// Which processes it looks at. Default: all.
    pub scope: WorkerScope,
    /// How long leases last and how often they are renewed. Default 30 s and 10 s.
    pub timings: LeaseTimings,
    /// How many runs may be under way at once; one that waits for a signal or for another process does not count.
    /// Default 64.
    pub concurrent_runs: usize,
    /// How many processes one pass looks at before it lets others have a turn. Default 10,000.
    pub sweep_limit: usize,
    /// How long a run may go on after its lease was lost, or its deadline has passed, before it is dropped. Default 5 s.
    pub grace: Duration,
    /// The longest that the timer sleeps before it reads the clocks again. Default 30 s.
    pub longest_sleep: Duration,
    /// How often everything that has not ended is looked at, whether or not anything is known to be due. A registry that
    /// does not tell of its commits is looked at each time that the timer has slept its longest. Default 5 min.
    pub pass_interval: Duration,
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
}

impl WorkerOptions {
    /// The usual settings for this owner.
    #[must_use]
    pub fn new(owner: LeaseOwnerIdentity) -> Self {
        let session = match &owner.liveness {
            LeaseOwnerLiveness::StoreSession { session } => Some(session.clone()),
            LeaseOwnerLiveness::LocalProcess { .. } | LeaseOwnerLiveness::Opaque => None,
        };
        Self {
            owner,
            session,
            scope: WorkerScope::default(),
            timings: LeaseTimings::default(),
            concurrent_runs: 64,
            sweep_limit: 10_000,
            grace: Duration::from_secs(5),
            longest_sleep: Duration::from_secs(30),
            pass_interval: Duration::from_secs(300),
            clock: Arc::new(SystemClock),
        }
    }

    /// The same for a worker that is told the session by a registry elsewhere.
    #[must_use]
    pub fn in_session(self, session: StoreSession) -> Self {
        Self { session: Some(session), ..self }
    }
}

impl fmt::Debug for WorkerOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("WorkerOptions")
            .field("owner", &self.owner)
            .field("session", &self.session)
            .field("scope", &self.scope)
            .field("timings", &self.timings)
            .field("concurrent_runs", &self.concurrent_runs)
            .field("sweep_limit", &self.sweep_limit)
            .field("grace", &self.grace)
            .field("longest_sleep", &self.longest_sleep)
            .field("pass_interval", &self.pass_interval)
            .finish_non_exhaustive()
    }
}
