//! Time as the edges read it and the core receives it.

/// Both clocks at one instant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timestamp {
    /// The wall clock, in ms since the Unix epoch. It may jump.
    pub epoch_ms: u64,
    /// A monotonic clock that counts while the machine is suspended, in ms since an instant that does not change while
    /// a store is open.
    pub monotonic_ms: u64,
}

/// Where time comes from. Tests turn it by hand.
pub trait Clock: Send + Sync {
    /// Both clocks, now.
    fn now(&self) -> Timestamp;
}
