//! What a wall clock is believed. Pure: time goes in.
//!
//! A prune cannot be taken back, and a wall clock that is set a year ahead for a minute makes everything a year older. So a step
//! ahead of the monotonic clock is believed only when it has lasted; until then age grows by the monotonic clock. A step back is
//! believed at once: it only retains.

use crate::port::Timestamp;

/// How far the wall clock may get ahead between two readings and be believed, in ms: a clock that is slewed does.
const SLACK_MS: u64 = 60_000;

/// How long a step ahead has to last, in ms by the monotonic clock.
const BELIEVED_AFTER_MS: u64 = 24 * 3_600_000;

/// The last instant that was believed, and since when the wall clock says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BelievedClock {
    anchor: Timestamp,
    ahead_since_monotonic_ms: Option<u64>,
}

impl BelievedClock {
    pub(super) const fn starting_at(now: Timestamp) -> Self {
        Self { anchor: now, ahead_since_monotonic_ms: None }
    }

    /// The wall clock as far as it is believed, in ms since the Unix epoch.
    pub(super) fn believed_epoch_ms(&mut self, now: Timestamp) -> u64 {
        let elapsed_ms = now.monotonic_ms.saturating_sub(self.anchor.monotonic_ms);
        let expected_ms = self.anchor.epoch_ms.saturating_add(elapsed_ms);
        if now.epoch_ms > expected_ms.saturating_add(SLACK_MS) {
            let since_ms = *self.ahead_since_monotonic_ms.get_or_insert(now.monotonic_ms);
            if now.monotonic_ms.saturating_sub(since_ms) < BELIEVED_AFTER_MS {
                return expected_ms;
            }
        }
        *self = Self::starting_at(now);
        now.epoch_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(epoch_ms: u64, monotonic_ms: u64) -> Timestamp {
        Timestamp { epoch_ms, monotonic_ms }
    }

    #[test]
    fn a_clock_that_goes_on_or_back_is_believed_at_once() {
        let mut clock = BelievedClock::starting_at(at(1_000_000, 0));
        assert_eq!(clock.believed_epoch_ms(at(1_005_000, 5_000)), 1_005_000);
        assert_eq!(clock.believed_epoch_ms(at(1_005_000 + SLACK_MS, 5_000)), 1_005_000 + SLACK_MS, "it is slewed");
        assert_eq!(clock.believed_epoch_ms(at(10, 6_000)), 10);
        assert_eq!(clock.believed_epoch_ms(at(1_010, 7_000)), 1_010);
    }

    #[test]
    fn a_step_ahead_is_believed_when_it_has_lasted() {
        let mut clock = BelievedClock::starting_at(at(0, 0));
        let ahead = |monotonic_ms| at(monotonic_ms + 2 * SLACK_MS, monotonic_ms);
        assert_eq!(clock.believed_epoch_ms(ahead(1)), 1);
        assert_eq!(clock.believed_epoch_ms(ahead(BELIEVED_AFTER_MS)), BELIEVED_AFTER_MS, "by the monotonic clock");
        let lasted = ahead(BELIEVED_AFTER_MS + 1);
        assert_eq!(clock.believed_epoch_ms(lasted), lasted.epoch_ms);
    }

    #[test]
    fn a_step_that_is_taken_back_begins_anew() {
        let mut clock = BelievedClock::starting_at(at(0, 0));
        let ahead = |monotonic_ms| at(monotonic_ms + 2 * SLACK_MS, monotonic_ms);
        assert_eq!(clock.believed_epoch_ms(ahead(1)), 1);
        assert_eq!(clock.believed_epoch_ms(at(BELIEVED_AFTER_MS, BELIEVED_AFTER_MS)), BELIEVED_AFTER_MS);
        let again = BELIEVED_AFTER_MS + 5;
        assert_eq!(clock.believed_epoch_ms(ahead(again)), again);
    }
}
