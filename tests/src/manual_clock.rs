//! A clock that a test turns by hand.

use std::sync::{Mutex, PoisonError};

use registry_actor::port::{Clock, Timestamp};

/// A clock that stands still until it is turned.
#[derive(Debug)]
pub struct ManualClock(Mutex<Timestamp>);

impl Default for ManualClock {
    fn default() -> Self {
        Self(Mutex::new(Timestamp { epoch_ms: 1_700_000_000_000, monotonic_ms: 50_000 }))
    }
}

impl ManualClock {
    /// Lets time pass on both clocks.
    pub fn advance_ms(&self, ms: u64) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        now.epoch_ms += ms;
        now.monotonic_ms += ms;
    }

    /// Sets the wall clock alone, forth or back, as an administrator does.
    pub fn set_epoch_ms(&self, epoch_ms: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).epoch_ms = epoch_ms;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
