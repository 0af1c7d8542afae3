//! A page by page copy of one snapshot of a store, under a name that nobody takes for a store or a backup until it is whole.
//!
//! The snapshot is one read transaction of the source from the first page to the last. Its writer goes on meanwhile; only the
//! log file cannot be begun anew before the copy is made, and grows by what is written until then.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use tempfile::TempPath;

use super::backup::BackupProgress;
use super::backup_error::BackupError;
use super::open_error::OpenError;
use super::owner;

/// How many pages are copied between two looks at whether to go on.
const STEP_PAGES: std::ffi::c_int = 256;

/// What SQLite may have left beside a database.
const SIDE_FILES: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Told of progress; an error ends the work.
pub(super) type Watch<'a> = dyn FnMut(BackupProgress) -> Result<(), BackupError> + 'a;

/// A copy that goes away unless it is published.
pub(super) struct HiddenCopy {
    path: TempPath,
    pages: u64,
    _side_files: SideFiles,
}

/// Removes what SQLite left beside the copy, under its hidden name.
struct SideFiles(PathBuf);

impl Drop for SideFiles {
    fn drop(&mut self) {
        remove_side_files(&self.0);
    }
}

impl HiddenCopy {
    /// Copies what the source holds now into a new file in the directory of `beside`. Only its owner may read it.
    pub(super) fn make(
        source: &Connection,
        source_path: &Path,
        beside: &Path,
        watch: &mut Watch<'_>,
    ) -> Result<Self, BackupError> {
        let failed =
            |error: rusqlite::Error| BackupError::NotCopied { path: source_path.to_owned(), reason: error.to_string() };
        let snapshot = source.unchecked_transaction().map_err(failed)?;
        // A transaction begins to see something with its first read.
        snapshot.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(failed)?;
        let mut hidden = Self::create(beside)?;
        let mut target = hidden.connect().map_err(|error| OpenError::of_sqlite(beside, &error))?;
        // Nobody sees the copy before it is whole, so nothing has to be taken back.
        target.pragma_update_and_check(None, "journal_mode", "OFF", |_| Ok(())).map_err(failed)?;
        {
            let copying = Backup::new(&snapshot, &mut target).map_err(failed)?;
            loop {
                let step = copying.step(STEP_PAGES).map_err(|error| match OpenError::of_sqlite(beside, &error) {
                    full @ OpenError::DiskFull { .. } => full.into(),
                    _ => failed(error),
                })?;
                let progress = copying.progress();
                let of = u64::try_from(progress.pagecount).unwrap_or(0);
                hidden.pages = of.saturating_sub(u64::try_from(progress.remaining).unwrap_or(0));
                watch(BackupProgress::Copied { pages: hidden.pages, of })?;
                match step {
                    StepResult::Done => break,
                    StepResult::More => {}
                    // The snapshot stands still and the copy is ours: a lock that is held is not one to wait for.
                    other => {
                        let reason = format!("a lock on it is held: {other:?}");
                        return Err(BackupError::NotCopied { path: source_path.to_owned(), reason });
                    }
                }
            }
        }
        Ok(hidden)
    }

    /// Works on the copy, in one file without another beside it.
    pub(super) fn edit(&self) -> Result<Connection, rusqlite::Error> {
        let connection = self.connect()?;
        // The copy says of itself what the source did, and that has a log file.
        let mode: String = connection.pragma_update_and_check(None, "journal_mode", "DELETE", |row| row.get(0))?;
        if mode == "delete" {
            Ok(connection)
        } else {
            let reason = format!("its journal mode stays {mode}");
            Err(super::schema::failure(rusqlite::ffi::SQLITE_BUSY, reason))
        }
    }

    /// How many pages it has.
    pub(super) const fn pages(&self) -> u64 {
        self.pages
    }

    /// Makes what is in it durable. No connection may be open any more.
    pub(super) fn sync(&self) -> Result<(), OpenError> {
        File::open(&self.path).and_then(|file| file.sync_all()).map_err(|error| OpenError::of_io(&self.path, &error))
    }

    /// Gives it its name, unless something has that name.
    pub(super) fn publish(self, to: &Path) -> Result<(), BackupError> {
        self.path.persist_noclobber(to).map_err(|refused| match refused.error.kind() {
            std::io::ErrorKind::AlreadyExists => BackupError::Exists { path: to.to_owned() },
            _ => OpenError::of_io(to, &refused.error).into(),
        })?;
        Ok(owner::sync_parent(to)?)
    }

    /// Gives it its name, whatever had that name before.
    pub(super) fn publish_over(self, to: &Path) -> Result<(), BackupError> {
        self.path.persist(to).map_err(|refused| OpenError::of_io(to, &refused.error))?;
        Ok(owner::sync_parent(to)?)
    }

    fn create(beside: &Path) -> Result<Self, BackupError> {
        let directory = beside.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = beside.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let file = tempfile::Builder::new()
            .prefix(&format!(".{name}."))
            .suffix(".incomplete")
            .tempfile_in(directory)
            .map_err(|error| OpenError::of_io(beside, &error))?;
        // The descriptor is closed before SQLite opens the file: closing one later would drop SQLite's locks.
        let path = file.into_temp_path();
        let side_files = SideFiles(path.to_path_buf());
        Ok(Self { path, pages: 0, _side_files: side_files })
    }

    fn connect(&self) -> Result<Connection, rusqlite::Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.pragma_update_and_check(None, "locking_mode", "EXCLUSIVE", |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "trusted_schema", false)?;
        connection.pragma_update(None, "fullfsync", true)?;
        Ok(connection)
    }
}

/// What stands where a database is to be made: something of its name, or what SQLite would take for a part of it.
pub(super) fn standing(database: &Path) -> Option<PathBuf> {
    std::iter::once(database.to_owned()).chain(side_files(database)).find(|path| path.symlink_metadata().is_ok())
}

/// Removes what SQLite left beside a database. What is not there is nothing to remove.
pub(super) fn remove_side_files(database: &Path) {
    for path in side_files(database) {
        let _ = fs::remove_file(path);
    }
}

/// The names of what SQLite leaves beside a database.
fn side_files(database: &Path) -> impl Iterator<Item = PathBuf> {
    let database = database.as_os_str().to_owned();
    SIDE_FILES.into_iter().map(move |suffix| {
        let mut path = database.clone();
        path.push(suffix);
        PathBuf::from(path)
    })
}
