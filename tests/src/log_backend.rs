//! The logs that the conformance suite is run on, each with the handles that a test needs: open, hold back, fail.
//!
//! What a backend cannot do it declares; nothing is guessed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use registry_actor::log::{
    AppendFault, FaultVerdict, MemoryLog, OpenError, QueueLimits, SqliteLog, SqliteOptions, WriterFaults, WriterPoint,
};
use registry_actor::port::ProcessLog;
use tempfile::TempDir;

/// The queues of every log under test: short, so that they can be filled.
pub const SHORT_QUEUES: QueueLimits = QueueLimits { plain: 8, urgent: 8 };

/// What becomes of the next group when it fails with an unknown outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownOutcome {
    /// It is stored.
    Stored,
    /// It is not.
    NotStored,
}

/// A kind of log under test, with one store.
pub trait LogBackend: Send {
    /// Opens the store, or opens it again after it was closed.
    fn open(&mut self) -> Arc<dyn ProcessLog>;
    /// Holds commits back, so that batches queue.
    fn hold(&self);
    /// Lets commits go on.
    fn release(&self);
    /// Lets the next append fail with an unknown outcome.
    fn fail_next(&self, outcome: UnknownOutcome);
}

/// The log in memory.
#[derive(Default)]
pub struct MemoryBackend {
    log: Option<MemoryLog>,
}

impl MemoryBackend {
    fn log(&self) -> &MemoryLog {
        self.log.as_ref().expect("an open log")
    }
}

impl LogBackend for MemoryBackend {
    fn open(&mut self) -> Arc<dyn ProcessLog> {
        let log = match self.log.take() {
            None => MemoryLog::with_limits("store", SHORT_QUEUES),
            Some(log) => log.reopen(),
        };
        self.log = Some(log.clone());
        Arc::new(log)
    }

    fn hold(&self) {
        self.log().pause();
    }

    fn release(&self) {
        self.log().resume();
    }

    fn fail_next(&self, outcome: UnknownOutcome) {
        self.log().fail_append(
            1,
            match outcome {
                UnknownOutcome::Stored => AppendFault::UnknownStored,
                UnknownOutcome::NotStored => AppendFault::UnknownNotStored,
            },
        );
    }
}

/// The log in a SQLite file of its own directory.
pub struct SqliteBackend {
    directory: TempDir,
    /// Stands at the writer.
    pub gate: Arc<Gate>,
}

impl Default for SqliteBackend {
    fn default() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory"), gate: Arc::default() }
    }
}

impl SqliteBackend {
    /// The file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("store.db")
    }

    /// How the file is opened.
    #[must_use]
    pub fn options(&self) -> SqliteOptions {
        SqliteOptions::default()
            .with_queue(SHORT_QUEUES)
            .with_first_reopen_wait(Duration::from_millis(1))
            .with_faults(Arc::clone(&self.gate) as Arc<dyn WriterFaults>)
    }

    /// Opens the file, as what it is.
    ///
    /// # Errors
    /// What the open answers.
    pub fn try_open(&self) -> Result<SqliteLog, OpenError> {
        SqliteLog::open(self.path(), self.options())
    }
}

impl LogBackend for SqliteBackend {
    fn open(&mut self) -> Arc<dyn ProcessLog> {
        Arc::new(self.try_open().expect("a store"))
    }

    fn hold(&self) {
        self.gate.hold();
    }

    fn release(&self) {
        self.gate.release();
    }

    fn fail_next(&self, outcome: UnknownOutcome) {
        self.gate.fail_next(match outcome {
            UnknownOutcome::Stored => WriterPoint::AfterCommit,
            UnknownOutcome::NotStored => WriterPoint::BeforeCommit,
        });
    }
}

/// Stands at the writer's points: holds its next group back, or lets a step fail.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    held: bool,
    failing: Vec<WriterPoint>,
    panicking: bool,
}

impl Gate {
    /// Lets no group be taken.
    pub fn hold(&self) {
        self.state().held = true;
    }

    /// Lets groups be taken again.
    pub fn release(&self) {
        self.state().held = false;
        self.changed.notify_all();
    }

    /// Lets the next step of this kind fail. May be said several times.
    pub fn fail_next(&self, point: WriterPoint) {
        self.state().failing.push(point);
    }

    /// Lets the writer panic at its next group.
    pub fn panic_next(&self) {
        self.state().panicking = true;
    }

    /// How many failures are still to come.
    #[must_use]
    pub fn failures_left(&self) -> usize {
        self.state().failing.len()
    }

    fn state(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WriterFaults for Gate {
    fn reached(&self, point: WriterPoint) -> FaultVerdict {
        let mut state = self.state();
        if point == WriterPoint::TakeGroup {
            state = self.changed.wait_while(state, |state| state.held).unwrap_or_else(PoisonError::into_inner);
            assert!(!std::mem::take(&mut state.panicking), "a test lets the writer panic");
        }
        match state.failing.iter().position(|failing| *failing == point) {
            Some(index) => {
                state.failing.remove(index);
                FaultVerdict::Fail
            }
            None => FaultVerdict::Pass,
        }
    }
}

/// A raw connection to a closed store, for tests that damage it.
#[must_use]
pub fn raw_connection(path: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(path).expect("a database")
}
