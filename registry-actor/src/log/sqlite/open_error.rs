//! Why a store could not be opened, in words that an operator can act on.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;
use rustix::fs::{Access, access};
use rustix::io::Errno;

use super::owner::StoreHolder;

/// Why a store could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no such file. Only a reader minds.
    #[error("no store at {path}", path = path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be made: its directory is not there either.
    #[error("cannot create a store at {path}: there is no such directory", path = path.display())]
    NoDirectory {
        /// The file.
        path: PathBuf,
    },
    /// The file is something else.
    #[error("{path} is not a store: {reason}", path = path.display())]
    NotAStore {
        /// The file.
        path: PathBuf,
        /// What it is.
        reason: String,
    },
    /// It is a backup of a store. Only a restoration makes a store of it.
    #[error("{path} is a backup and has to be restored before a host can open it", path = path.display())]
    Backup {
        /// The file.
        path: PathBuf,
    },
    /// A newer version of this program wrote it.
    #[error("{path} has schema version {found}, this version knows up to {known}", path = path.display())]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest known one.
        known: i64,
    },
    /// A reader cannot migrate it; the next host that opens it will.
    #[error("{path} has schema version {found} and has to be opened by a host once, this version reads {known}", path = path.display())]
    OlderSchema {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The version that is read.
        known: i64,
    },
    /// Another host holds it.
    #[error("{path} is owned by {holder}", path = path.display())]
    Owned {
        /// The file.
        path: PathBuf,
        /// Who holds it.
        holder: StoreHolder,
    },
    /// It has several names. Each would have a lock and a log file of its own, and two hosts would write one store.
    #[error("{path} has {links} names (hard links); a store has one: copy it by a backup, and remove the other names", path = path.display())]
    Linked {
        /// The file.
        path: PathBuf,
        /// How many names it has.
        links: u64,
    },
    /// The file system does not permit it.
    #[error("no permission for {path}: {reason}", path = path.display())]
    PermissionDenied {
        /// The file.
        path: PathBuf,
        /// What was refused.
        reason: String,
    },
    /// There is no room for it.
    #[error("the disk of {path} is full", path = path.display())]
    DiskFull {
        /// The file.
        path: PathBuf,
    },
    /// The operating system failed.
    #[error("{path} cannot be opened: {reason}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// How.
        reason: String,
    },
    /// SQLite cannot use the file.
    #[error("{path} cannot be used: {reason}", path = path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Whether the file and its directory may be written. Asked by name: a descriptor of the file that is closed again would drop
/// the locks that SQLite holds on it.
fn may_write(path: &Path) -> bool {
    let is_permitted = |path: &Path| match access(path, Access::READ_OK | Access::WRITE_OK) {
        Ok(()) => true,
        Err(error) => !matches!(error, Errno::ACCESS | Errno::PERM | Errno::ROFS),
    };
    is_permitted(path) && path.parent().is_none_or(is_permitted)
}

impl OpenError {
    pub(super) fn of_io(path: &Path, error: &io::Error) -> Self {
        let path = path.to_owned();
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing { path },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::PermissionDenied { path, reason: error.to_string() }
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            _ => Self::Io { path, reason: error.to_string() },
        }
    }

    pub(super) fn of_sqlite(path: &Path, error: &rusqlite::Error) -> Self {
        let reason = error.to_string();
        let path = path.to_owned();
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Self::NotAStore { path, reason: "it is no SQLite file".to_owned() },
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied) => {
                Self::PermissionDenied { path, reason }
            }
            Some(ErrorCode::CannotOpen) if !may_write(&path) => Self::PermissionDenied { path, reason },
            Some(ErrorCode::DiskFull) => Self::DiskFull { path },
            // Somebody else's lock passes, as a failure of the system may: neither says anything of the file.
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Io { path, reason },
            Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => Self::Io { path, reason },
            _ => Self::Unusable { path, reason },
        }
    }
}
