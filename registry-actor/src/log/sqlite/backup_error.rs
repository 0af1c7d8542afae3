//! Why a backup was not made, or not restored, in words that an operator can act on.

use std::path::PathBuf;

use super::open_error::OpenError;

/// Why a backup was not made, or not restored. What was begun is gone again, and nothing stands under the name that was asked
/// for which did not stand there before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The store, the backup or the place for the copy could not be used; also that another host owns the store to be replaced.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Something is there already, and it was not said that it may be replaced.
    #[error("{path} is already there", path = path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The store to be replaced could not be brought into its one file, so that it could not be replaced in one step.
    #[error("{path} cannot be replaced in one step: {reason}; move it away, with its -wal and -shm", path = path.display())]
    NotReplaceable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// What is to be replaced is no store, or is so damaged that it cannot be opened as one: whose sessions it would have been is
    /// not known.
    #[error("{path} is not replaced, since it cannot be opened as a store: {reason}; if it was one, move it away, with its -wal and -shm, and restore without replacing", path = path.display())]
    NoStore {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The copy could not be made.
    #[error("{path} could not be copied: {reason}", path = path.display())]
    NotCopied {
        /// What was to be copied.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// What was copied is damaged.
    #[error("what {path} holds is damaged: {first}", path = path.display(), first = first_of(faults))]
    Damaged {
        /// What was copied.
        path: PathBuf,
        /// What is damaged, at most some of it; never empty.
        faults: Vec<String>,
    },
    /// The store failed meanwhile and is being reopened, which a backup would hold up.
    #[error("the store failed while it was copied: {reason}")]
    StoreFailed {
        /// How it failed.
        reason: String,
    },
    /// Whoever was told of the progress wanted it to end, or no longer waits for it.
    #[error("it was stopped before it was complete")]
    Stopped,
}

fn first_of(faults: &[String]) -> String {
    match faults {
        [] => "nobody knows how".to_owned(),
        [only] => only.clone(),
        [first, rest @ ..] => format!("{first}, and {} more faults", rest.len()),
    }
}
