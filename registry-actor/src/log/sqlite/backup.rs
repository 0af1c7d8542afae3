//! A backup: a copy of a store while its host writes on, checked before it gets its name.
//!
//! It is made by SQLite's online backup within one read transaction, page by page. Beside `VACUUM INTO` that reports progress,
//! can be stopped between two steps, costs no sorting, and takes damage over as it is, so that the check of the copy is a
//! check of the store. Without the transaction every commit would let the copy begin anew, and a busy store would never
//! be copied.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::thread;

use tokio::sync::oneshot;

use super::backup_error::BackupError;
use super::hidden_copy::{self, HiddenCopy, Watch};
use super::open_error::OpenError;
use super::owner;
use super::schema::{self, Synchronous};
use super::whole_check::{self, CheckedStore};

/// Whether a copy is checked before it gets its name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BackupCheck {
    /// The structure of the file, and every fact of every process.
    #[default]
    Everything,
    /// Nothing: the copy is as good as the store.
    Nothing,
}

/// How far a copy has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackupProgress {
    /// Pages are being copied.
    Copied {
        /// How many are copied.
        pages: u64,
        /// How many there are.
        of: u64,
    },
    /// The copy is being checked.
    Checked {
        /// How many processes are checked.
        processes: u64,
        /// How many there are.
        of: u64,
    },
}

/// A backup that was made. It is durable under its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupReport {
    /// Where it is.
    pub path: PathBuf,
    /// How many pages of the store it has.
    pub pages: u64,
    /// What was checked; nothing if that was not wanted.
    pub checked: Option<CheckedStore>,
}

/// Told of progress on the thread that copies; it may block, and says whether to go on.
pub(super) type Progress = Box<dyn FnMut(BackupProgress) -> ControlFlow<()> + Send>;

/// Copies a store. Everything that was committed before is in it; nothing that was committed after its first page was read.
pub(super) fn back_up(
    from: &Path,
    to: &Path,
    check: BackupCheck,
    watch: &mut Watch<'_>,
) -> Result<BackupReport, BackupError> {
    let to = owner::canonical(to)?;
    // Said before the work is done; that nobody else takes the name meanwhile is seen to when it is given.
    if let Some(path) = hidden_copy::standing(&to) {
        return Err(BackupError::Exists { path });
    }
    let failed = |error| OpenError::of_sqlite(from, &error);
    let source = schema::connect_reader(from, Synchronous::Full).map_err(failed)?;
    schema::check_readable(&source, from)?;
    let hidden = HiddenCopy::make(&source, from, &to, watch)?;
    drop(source);
    let not_copied = |error: rusqlite::Error| BackupError::NotCopied { path: from.into(), reason: error.to_string() };
    let copy = hidden.edit().map_err(not_copied)?;
    schema::mark_backup(&copy).map_err(not_copied)?;
    let checked = match check {
        BackupCheck::Nothing => None,
        BackupCheck::Everything => Some(whole_check::check(&copy, watch).map_err(|failure| failure.of(from))?),
    };
    copy.close().map_err(|(_, error)| not_copied(error))?;
    hidden.sync()?;
    let pages = hidden.pages();
    hidden.publish(&to)?;
    Ok(BackupReport { path: to, pages, checked })
}

impl whole_check::Failure {
    pub(super) fn of(self, path: &Path) -> BackupError {
        match self {
            Self::Damaged(faults) => BackupError::Damaged { path: path.to_owned(), faults },
            Self::Ended(error) => error,
            Self::Statement(error) => BackupError::NotCopied { path: path.to_owned(), reason: error.to_string() },
        }
    }
}

/// Runs the work on a thread of its own, whatever runtime awaits it. A future that is dropped ends the work at its next step.
pub(super) async fn in_background<T: Send + 'static>(
    name: &str,
    mut progress: Progress,
    may_go_on: impl Fn() -> Result<(), BackupError> + Send + 'static,
    work: impl FnOnce(&mut Watch<'_>) -> Result<T, BackupError> + Send + 'static,
) -> Result<T, BackupError> {
    let (answer, answered) = oneshot::channel();
    let started = thread::Builder::new().name(name.to_owned()).spawn(move || {
        let outcome = work(&mut |step| {
            if answer.is_closed() || progress(step).is_break() { Err(BackupError::Stopped) } else { may_go_on() }
        });
        let _ = answer.send(outcome);
    });
    if let Err(error) = started {
        return Err(OpenError::of_io(Path::new(name), &error).into());
    }
    // It is dropped without an answer if the work panicked.
    answered.await.unwrap_or(Err(BackupError::Stopped))
}
