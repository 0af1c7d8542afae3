//! Both clocks of a simulated machine, over the runtime's virtual time.

use std::sync::atomic::{AtomicI64, Ordering};

use registry_actor::port::{Clock, Timestamp};
use tokio::time::Instant;

const EPOCH_MS: u64 = 1_700_000_000_000;
const MONOTONIC_MS: u64 = 50_000;

/// The monotonic clock is virtual time; the wall clock is that and what an administrator did to it.
#[derive(Debug)]
pub struct SimulatedClock {
    begin: Instant,
    wall_offset_ms: AtomicI64,
}

impl SimulatedClock {
    /// Clocks that begin now.
    #[must_use]
    pub fn new() -> Self {
        Self { begin: Instant::now(), wall_offset_ms: AtomicI64::new(0) }
    }

    /// Virtual time since the begin.
    #[must_use]
    pub fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Sets the wall clock forth or back.
    pub fn jump_ms(&self, by: i64) {
        self.wall_offset_ms.fetch_add(by, Ordering::SeqCst);
    }
}

impl Default for SimulatedClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        let elapsed_ms = self.elapsed_ms();
        Timestamp {
            epoch_ms: (EPOCH_MS + elapsed_ms).saturating_add_signed(self.wall_offset_ms.load(Ordering::SeqCst)),
            monotonic_ms: MONOTONIC_MS + elapsed_ms,
        }
    }
}
