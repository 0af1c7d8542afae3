//! A host that is made to die: a child process whose callers do everything that a registry can do, and tell each
//! acknowledged [`Fact`] on standard output; and the check that every one of them is in the store it left.

mod check;
mod fact;
mod load;

use std::path::Path;
use std::process::Command;

pub use self::check::{AfterCrash, CrashFindings, check};
pub use self::fact::{Fact, Told};
pub use self::load::write_until_killed;
use crate::child_process::ChildProcess;

/// How the child's store syncs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syncing {
    /// As the product does.
    Full,
    /// As the peer does: a commit is not synced. Shows that a power-cut test can fail.
    Normal,
}

impl Syncing {
    const fn argument(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Normal => "normal",
        }
    }
}

/// A running child, seen from its parent.
#[derive(Debug)]
pub struct CrashWriter {
    child: ChildProcess,
}

impl CrashWriter {
    /// Starts the child, whose program is `program`, on a store. The number of its run has to be another for each child of
    /// one store.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(program: &Path, store: &Path, syncing: Syncing, run: u64) -> Self {
        Self::spawn(Command::new(program).arg(store).args([syncing.argument(), &run.to_string()]))
    }

    /// Starts a child that aborts at a passage of a named point, counted from 1. The points are those of
    /// [`FaultPoint`](registry_actor::port::FaultPoint), by their names, and `Restarting`.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start_to_abort(program: &Path, store: &Path, run: u64, point: &str, passage: u64) -> Self {
        let run = run.to_string();
        let passage = passage.to_string();
        Self::spawn(Command::new(program).arg(store).args([Syncing::Full.argument(), &run, point, &passage]))
    }

    fn spawn(command: &mut Command) -> Self {
        Self { child: ChildProcess::spawn(command) }
    }

    /// What was acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> Vec<Told> {
        fact::read(&self.child.lines())
    }

    /// Waits until so many facts were acknowledged.
    ///
    /// # Panics
    /// If the child ends before.
    pub fn wait_for(&self, facts: usize) {
        assert!(self.child.told(facts), "the writer ended by itself");
    }

    /// kill -9; answers everything that it acknowledged before it was dead.
    #[must_use]
    pub fn kill(self) -> Vec<Told> {
        fact::read(&self.child.kill())
    }

    /// Waits for the end of a child that aborts by itself; answers the signal that ended it, and what it acknowledged.
    #[must_use]
    pub fn aborted(self) -> (Option<i32>, Vec<Told>) {
        let ended = self.child.ended();
        (std::os::unix::process::ExitStatusExt::signal(&ended.status), fact::read(&ended.lines))
    }
}
