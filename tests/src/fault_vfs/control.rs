//! What a test says about the calls of one store, and what it learns of them. It knows no SQLite.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::shim;

/// A kind of call that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallKind {
    /// A file of the store is opened, and made if it is not there.
    Open,
    /// A file is removed.
    Delete,
    /// Bytes are read.
    Read,
    /// Bytes are written.
    Write,
    /// A file is cut.
    Truncate,
    /// A file is synced.
    Sync,
    /// Shared memory is mapped, or a lock in it is taken. Giving one back never fails.
    Shm,
}

impl CallKind {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Open, Self::Delete, Self::Read, Self::Write, Self::Truncate, Self::Sync, Self::Shm];
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// `EIO`: the disk failed, nothing was done.
    InputOutput,
    /// `ENOSPC`: the disk is full, nothing was done.
    NoSpace,
    /// `EIO` after the first half was written. For every other call than a write the same as [`Failure::InputOutput`].
    Short,
}

/// For how long calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// So many calls in a row.
    Calls(u64),
    /// Until the test ends it.
    UntilCleared,
}

/// A failure that is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Calls of this kind fail.
    pub kind: CallKind,
    /// The first one that does, from 1, counted since the control was made.
    pub nth: u64,
    /// How.
    pub failure: Failure,
    /// For how long.
    pub span: Span,
}

/// What happened to a file, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// A file was made that was not there.
    Create {
        /// Its name in the directory.
        file: Arc<str>,
    },
    /// A file was removed.
    Delete {
        /// Its name in the directory.
        file: Arc<str>,
    },
    /// Bytes were written.
    Write {
        /// The file.
        file: Arc<str>,
        /// Where, in bytes.
        offset: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// A file was cut, or made longer with zeros.
    Truncate {
        /// The file.
        file: Arc<str>,
        /// Its new size in bytes.
        size: u64,
    },
    /// A sync of a file succeeded.
    Sync {
        /// The file.
        file: Arc<str>,
    },
    /// A sync of a file failed: what was not synced may be gone, although reads still show it and later syncs succeed.
    SyncFailed {
        /// The file.
        file: Arc<str>,
    },
    /// A file was written anew, byte for byte as reads show it.
    Rewrite {
        /// The file.
        file: Arc<str>,
    },
    /// The directory was synced.
    SyncDirectory,
}

/// What is to become of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    Fail(Failure),
}

/// The hand of a test on one store. As long as it lives, stores in its directory are served through the shim.
#[derive(Debug)]
pub struct Control {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    calls: HashMap<CallKind, u64>,
    fault: Option<Fault>,
    /// How many calls failed, and on which threads.
    failed: u64,
    failed_on: HashMap<String, u64>,
    recording: bool,
    history: Vec<Operation>,
}

static CONTROLS: Mutex<Vec<(PathBuf, Weak<Control>)>> = Mutex::new(Vec::new());

impl Control {
    /// Takes the stores of a directory in hand that are opened from now on.
    ///
    /// # Panics
    /// If the directory is not there, or SQLite does not take the shim.
    #[must_use]
    pub fn of_directory(directory: &Path) -> Arc<Self> {
        shim::register();
        let directory = directory.canonicalize().expect("the directory of the store");
        let control = Arc::new(Self { state: Mutex::default() });
        let mut controls = CONTROLS.lock().unwrap_or_else(PoisonError::into_inner);
        controls.retain(|(_, control)| control.strong_count() > 0);
        controls.push((directory, Arc::downgrade(&control)));
        control
    }

    /// The youngest control of the directory in which a file is.
    pub(super) fn of_file(file: &Path) -> Option<Arc<Self>> {
        let directory = file.parent()?;
        let controls = CONTROLS.lock().unwrap_or_else(PoisonError::into_inner);
        controls.iter().rev().filter(|(known, _)| known == directory).find_map(|(_, control)| control.upgrade())
    }

    /// Begins to record.
    pub fn record(&self) {
        self.state().recording = true;
    }

    /// Notes that a file is there that SQLite did not make.
    pub fn host_created(&self, file: &str) {
        self.note(Operation::Create { file: file.into() });
    }

    /// Notes that the host synced the directory.
    pub fn host_synced_directory(&self) {
        self.note(Operation::SyncDirectory);
    }

    /// Notes that the host wrote a file anew, byte for byte, and synced it.
    pub fn host_rewrote(&self, file: &str) {
        let file: Arc<str> = file.into();
        self.note(Operation::Rewrite { file: Arc::clone(&file) });
        self.note(Operation::Sync { file });
    }

    /// How many operations were recorded so far.
    #[must_use]
    pub fn recorded(&self) -> usize {
        self.state().history.len()
    }

    /// Takes what was recorded, and records no more.
    #[must_use]
    pub fn take_history(&self) -> Vec<Operation> {
        let mut state = self.state();
        state.recording = false;
        std::mem::take(&mut state.history)
    }

    /// Lets calls fail. There is one fault at a time.
    pub fn fail(&self, fault: Fault) {
        self.state().fault = Some(fault);
    }

    /// Ends the fault.
    pub fn clear(&self) {
        self.state().fault = None;
    }

    /// Ends the fault if it lasts until it is ended and has been reached.
    pub fn clear_lasting(&self) {
        let mut state = self.state();
        if state.failed > 0 && state.fault.is_some_and(|fault| fault.span == Span::UntilCleared) {
            state.fault = None;
        }
    }

    /// How many calls of a kind were made, those that failed included.
    #[must_use]
    pub fn calls(&self, kind: CallKind) -> u64 {
        self.state().calls.get(&kind).copied().unwrap_or_default()
    }

    /// How many calls were failed.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.state().failed
    }

    /// How many calls were failed on threads whose names begin so.
    #[must_use]
    pub fn failed_on_thread(&self, name: &str) -> u64 {
        let state = self.state();
        state.failed_on.iter().filter(|(thread, _)| thread.starts_with(name)).map(|(_, count)| count).sum()
    }

    pub(super) fn call(&self, kind: CallKind) -> Verdict {
        let mut state = self.state();
        let count = state.calls.entry(kind).or_default();
        *count += 1;
        let count = *count;
        let Some(fault) = state.fault.filter(|fault| fault.kind == kind && count >= fault.nth) else {
            return Verdict::Pass;
        };
        if matches!(fault.span, Span::Calls(calls) if count >= fault.nth + calls) {
            return Verdict::Pass;
        }
        state.failed += 1;
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        *state.failed_on.entry(thread).or_default() += 1;
        Verdict::Fail(fault.failure)
    }

    pub(super) fn note(&self, operation: Operation) {
        let mut state = self.state();
        if state.recording {
            state.history.push(operation);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
