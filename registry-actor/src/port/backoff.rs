//! The schedule of reads where no tick can be relied on.

use std::time::Duration;

/// 25 ms, doubling, capped at 1 s; the cap is absorbing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    /// The first delay.
    pub const FLOOR: Duration = Duration::from_millis(25);
    /// The longest delay.
    pub const CAP: Duration = Duration::from_secs(1);

    /// The next delay.
    pub fn delay(&mut self) -> Duration {
        let delay = self.next;
        self.next = delay.saturating_mul(2).min(Self::CAP);
        delay
    }

    /// Starts over.
    pub const fn reset(&mut self) {
        self.next = Self::FLOOR;
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: Self::FLOOR }
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    /// The next delay; never ends.
    fn next(&mut self) -> Option<Duration> {
        Some(self.delay())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_schedule_has_25ms_floor_doubling_to_1s_cap() {
        let delays: Vec<u128> = Backoff::default().take(8).map(|delay| delay.as_millis()).collect();
        assert_eq!(delays, [25, 50, 100, 200, 400, 800, 1_000, 1_000]);
    }

    #[test]
    fn a_reset_starts_over() {
        let mut backoff = Backoff::default();
        backoff.by_ref().take(4).for_each(drop);
        backoff.reset();
        assert_eq!(backoff.next(), Some(Backoff::FLOOR));
    }
}
