//! When a failed sink is started again. Pure: the supervisor keeps the time.

use std::time::Duration;

/// When a failed sink is started again: always, because it is an observer and nobody waits for it, but ever later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SinkRestart {
    /// Delay after the first failure; doubles with each further one in a row.
    pub first_delay: Duration,
    /// The longest delay.
    pub longest_delay: Duration,
}

impl Default for SinkRestart {
    /// 10 ms doubling to 5 s.
    fn default() -> Self {
        Self { first_delay: Duration::from_millis(10), longest_delay: Duration::from_secs(5) }
    }
}

impl SinkRestart {
    /// How long to wait after so many failures in a row, the last one included.
    #[must_use]
    pub fn delay_after(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.first_delay.saturating_mul(1 << doublings).min(self.longest_delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_from_10_ms_and_stay_at_5_s() {
        let delays: Vec<_> =
            (1..=11).map(|failures| SinkRestart::default().delay_after(failures).as_millis()).collect();
        assert_eq!(delays, [10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 5_000, 5_000]);
        assert_eq!(SinkRestart::default().delay_after(u32::MAX), Duration::from_secs(5));
    }
}
