//! What became of the events that a sink was offered.

/// What became of the events that a sink was offered, at one instant.
///
/// It always holds that `offered = accepted + dropped` and `accepted = delivered + failed + waiting + in_hand`. Gaps and
/// tombstones are no events and count in neither.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SinkReport {
    /// Events that were handed to the sink's near end.
    pub offered: u64,
    /// Of these, events for which there was room.
    pub accepted: u64,
    /// Events for which there was none, or that came after closing. They are told as missed, except after closing.
    pub dropped: u64,
    /// Events that the sink returned from.
    pub delivered: u64,
    /// Events in whose delivery the sink panicked or was killed, and events that waited when delivery was given up.
    pub failed: u64,
    /// Events that wait.
    pub waiting: u64,
    /// Events that the sink has been given and has not returned from.
    pub in_hand: u64,
    /// How often the sink was told that events are missing.
    pub gaps: u64,
    /// How often the sink was started again.
    pub restarts: u64,
}

impl SinkReport {
    /// Events that were accepted and of which nobody knows yet what becomes of them.
    #[must_use]
    pub const fn undelivered(&self) -> u64 {
        self.waiting + self.in_hand
    }
}

/// The deadline came first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{left} events were not delivered by the deadline")]
pub struct Undelivered {
    /// How many events were left at the deadline. It can be 0: then only a gap or a tombstone had not been told, or the sink's
    /// thread had not ended.
    pub left: u64,
    /// What became of the others.
    pub report: SinkReport,
}
