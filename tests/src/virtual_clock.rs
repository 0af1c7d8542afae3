//! A clock that goes with the time of the tokio runtime, which a test may pause, and that jumps as the test says, or goes on
//! while the runtime stands still.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use registry_actor::port::{Clock, Timestamp};
use tokio::time::Instant;

/// Both clocks go with the runtime's time; the wall clock has an offset that can be set.
#[derive(Debug)]
pub struct VirtualClock {
    began: Instant,
    jumped_ms: AtomicI64,
    suspended_ms: AtomicU64,
}

impl VirtualClock {
    const BEGAN_EPOCH_MS: u64 = 1_700_000_000_000;
    const BEGAN_MONOTONIC_MS: u64 = 50_000;

    /// Puts the wall clock forth, or back if `ms` is negative.
    pub fn jump_ms(&self, ms: i64) {
        self.jumped_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// Lets the machine sleep for so long: both clocks go on, and the time of the runtime does not.
    pub fn suspend_ms(&self, ms: u64) {
        self.suspended_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Default for VirtualClock {
    fn default() -> Self {
        Self { began: Instant::now(), jumped_ms: AtomicI64::new(0), suspended_ms: AtomicU64::new(0) }
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        let passed_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let passed_ms = passed_ms.saturating_add(self.suspended_ms.load(Ordering::SeqCst));
        let epoch_ms = Self::BEGAN_EPOCH_MS + passed_ms;
        Timestamp {
            epoch_ms: epoch_ms.saturating_add_signed(self.jumped_ms.load(Ordering::SeqCst)),
            monotonic_ms: Self::BEGAN_MONOTONIC_MS + passed_ms,
        }
    }
}
