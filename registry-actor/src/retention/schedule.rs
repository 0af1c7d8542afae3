//! When passes begin. Pure: the task keeps the time.

use std::num::NonZeroU32;
use std::time::Duration;

/// When passes begin, and how much one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionSchedule {
    /// From the end of a pass to the beginning of the next. The first pass begins so long after the start.
    pub interval: Duration,
    /// How many commands one pass gives, each at most
    /// [`PRUNED_PER_COMMAND`](crate::domain::Limits::PRUNED_PER_COMMAND) processes. What is left is for the next pass.
    pub commands_per_pass: NonZeroU32,
    /// Delay after a pass that failed; doubles with each further one in a row, and is never longer than the interval.
    pub first_retry: Duration,
}

impl Default for RetentionSchedule {
    /// Every hour, at most 1,000 commands; after a failure 1 s, doubling.
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(3_600),
            commands_per_pass: NonZeroU32::MIN.saturating_add(999),
            first_retry: Duration::from_secs(1),
        }
    }
}

impl RetentionSchedule {
    /// How long to wait after so many failures in a row; none is the interval.
    #[must_use]
    pub fn wait_after(&self, failures: u32) -> Duration {
        match failures.checked_sub(1) {
            None => self.interval,
            Some(doublings) => self.first_retry.saturating_mul(1 << doublings.min(31)).min(self.interval),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_after_failures_and_never_exceed_the_interval() {
        let schedule = RetentionSchedule { interval: Duration::from_secs(10), ..RetentionSchedule::default() };
        let waits: Vec<u64> = (0..7).map(|failures| schedule.wait_after(failures).as_secs()).collect();
        assert_eq!(waits, [10, 1, 2, 4, 8, 10, 10]);
        assert_eq!(schedule.wait_after(u32::MAX), Duration::from_secs(10));
    }
}
