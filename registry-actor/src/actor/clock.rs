//! The machine's own clocks.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::port::{Clock, Timestamp};

/// Wall clock and `CLOCK_BOOTTIME`, which goes on counting while the machine is suspended: a lease does not outlive its
/// ttl because a lid was closed.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since_boot = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(since_boot.tv_sec).unwrap_or(0);
        let nanoseconds = u64::try_from(since_boot.tv_nsec).unwrap_or(0);
        Timestamp {
            epoch_ms: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX),
            monotonic_ms: seconds.saturating_mul(1_000).saturating_add(nanoseconds / 1_000_000),
        }
    }
}
