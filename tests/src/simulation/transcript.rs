//! What can be observed of a run, as lines of text. It holds no address, no random name and no order that is not the
//! run's own, so that two runs of a seed write the same bytes.

use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::clock::SimulatedClock;

/// The lines of one run.
#[derive(Debug)]
pub struct Transcript {
    clock: Arc<SimulatedClock>,
    text: Mutex<String>,
}

impl Transcript {
    /// An empty one, stamped by this clock.
    #[must_use]
    pub const fn new(clock: Arc<SimulatedClock>) -> Self {
        Self { clock, text: Mutex::new(String::new()) }
    }

    /// Adds a line: the virtual time, who speaks, and what.
    pub fn line(&self, who: &str, what: &dyn std::fmt::Display) {
        let elapsed_ms = self.clock.elapsed_ms();
        // A string takes everything.
        let _ = writeln!(self.text(), "{elapsed_ms:>7} {who} {what}");
    }

    /// Takes all lines out.
    #[must_use]
    pub fn take(&self) -> String {
        std::mem::take(&mut *self.text())
    }

    fn text(&self) -> MutexGuard<'_, String> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A fingerprint of a value's JSON: what a line does not spell out is still compared between two runs.
#[must_use]
pub fn fingerprint(value: &impl Serialize) -> u64 {
    struct Fnv(u64);
    impl io::Write for Fnv {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = bytes.iter().fold(self.0, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut fnv = Fnv(0xcbf2_9ce4_8422_2325);
    serde_json::to_writer(&mut fnv, value).expect("answers have a JSON form");
    fnv.0
}
