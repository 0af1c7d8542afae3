//! Time that stands still, so that a waiter that comes through was told, and did not look.

use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use tokio::time::Instant;

/// How long a test that waits for what never comes stands still.
const PATIENCE: Duration = Duration::from_secs(10);

/// Tokio's paused time does not leap to the next timer while a blocking task runs, and this is one: a store with a thread of
/// its own would otherwise be outrun by the clock. Time runs again when this is dropped.
pub(super) struct StandingTime {
    since: Instant,
    stands: Option<Sender<()>>,
}

impl StandingTime {
    pub(super) fn begin() -> Self {
        tokio::time::pause();
        let (stands, ended) = channel();
        tokio::task::spawn_blocking(move || ended.recv_timeout(PATIENCE).is_err());
        Self { since: Instant::now(), stands: Some(stands) }
    }

    /// From now on time leaps to the next timer whenever nothing else is to be done.
    pub(super) fn let_it_leap(&mut self) {
        self.stands = None;
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }
}

impl Drop for StandingTime {
    fn drop(&mut self) {
        tokio::time::resume();
    }
}
