//! When a failed process actor starts again. Pure: the shard keeps the time and does the starting.

use std::collections::VecDeque;
use std::time::Duration;

/// How often and how fast a failed process actor is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartPolicy {
    /// Delay after the first failure; doubles with each further one.
    pub first_delay: Duration,
    /// The longest delay.
    pub longest_delay: Duration,
    /// So many failures within the window are answered with a restart; the next one quarantines.
    pub failures_allowed: usize,
    /// The window.
    pub window: Duration,
    /// How long a quarantine lasts before one more try.
    pub quarantine: Duration,
}

impl Default for RestartPolicy {
    /// 10 ms doubling to 5 s; 5 failures in 60 s; 60 s of quarantine.
    fn default() -> Self {
        Self {
            first_delay: Duration::from_millis(10),
            longest_delay: Duration::from_secs(5),
            failures_allowed: 5,
            window: Duration::from_secs(60),
            quarantine: Duration::from_secs(60),
        }
    }
}

/// What follows a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartDecision {
    /// Start again after this delay.
    After(Duration),
    /// Leave it alone for this long, then try once.
    Quarantine(Duration),
}

/// The failures of one process that still count.
#[derive(Debug, Clone, Default)]
pub struct RestartHistory {
    failures: VecDeque<Duration>,
}

impl RestartHistory {
    /// Takes a failure at `now`, a time on any monotonic scale, and says what follows.
    ///
    /// After a quarantine the old failures still stand in the window if it is longer than the quarantine: the one more
    /// try is half-open, and its failure quarantines at once.
    pub fn record_failure(&mut self, now: Duration, policy: &RestartPolicy) -> RestartDecision {
        self.forget_before(now, policy);
        self.failures.push_back(now);
        if self.failures.len() > policy.failures_allowed {
            // One failure of the past is enough to remember what the next one means.
            while self.failures.len() > policy.failures_allowed {
                self.failures.pop_front();
            }
            return RestartDecision::Quarantine(policy.quarantine);
        }
        let doublings = u32::try_from(self.failures.len() - 1).unwrap_or(u32::MAX).min(31);
        RestartDecision::After(policy.first_delay.saturating_mul(1 << doublings).min(policy.longest_delay))
    }

    /// Whether no failure counts any more.
    pub fn is_clean(&mut self, now: Duration, policy: &RestartPolicy) -> bool {
        self.forget_before(now, policy);
        self.failures.is_empty()
    }

    fn forget_before(&mut self, now: Duration, policy: &RestartPolicy) {
        while self.failures.front().is_some_and(|failure| now.saturating_sub(*failure) > policy.window) {
            self.failures.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn delays_double_and_the_sixth_failure_in_a_minute_quarantines() {
        let policy = RestartPolicy::default();
        let mut history = RestartHistory::default();
        let decisions: Vec<_> = (0..6).map(|second| history.record_failure(ms(second * 1_000), &policy)).collect();
        let after = RestartDecision::After;
        assert_eq!(
            decisions,
            [
                after(ms(10)),
                after(ms(20)),
                after(ms(40)),
                after(ms(80)),
                after(ms(160)),
                RestartDecision::Quarantine(ms(60_000))
            ]
        );
    }

    #[test]
    fn a_try_that_fails_right_after_the_quarantine_quarantines_again() {
        let policy = RestartPolicy { quarantine: ms(1_000), ..RestartPolicy::default() };
        let mut history = RestartHistory::default();
        for _ in 0..6 {
            history.record_failure(ms(0), &policy);
        }
        assert_eq!(history.record_failure(ms(1_000), &policy), RestartDecision::Quarantine(ms(1_000)));
    }

    #[test]
    fn failures_older_than_the_window_are_forgotten() {
        let policy = RestartPolicy::default();
        let mut history = RestartHistory::default();
        for _ in 0..5 {
            history.record_failure(ms(0), &policy);
        }
        assert!(!history.is_clean(ms(60_000), &policy), "the window is inclusive");
        assert!(history.is_clean(ms(60_001), &policy));
        assert_eq!(history.record_failure(ms(60_001), &policy), RestartDecision::After(ms(10)));
    }

    #[test]
    fn the_delay_has_a_cap() {
        let policy = RestartPolicy { failures_allowed: 40, ..RestartPolicy::default() };
        let mut history = RestartHistory::default();
        let mut last = RestartDecision::After(ms(0));
        for _ in 0..40 {
            last = history.record_failure(ms(0), &policy);
        }
        assert_eq!(last, RestartDecision::After(ms(5_000)));
    }
}
