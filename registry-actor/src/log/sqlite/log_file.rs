//! The log file that an earlier connection left beside the store. What is in it is SQLite's own; here the disk is made to
//! hold what reads of it show.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::open_error::OpenError;
use super::schema::{self, Synchronous};

/// How much is written at once, in bytes.
const CHUNK: usize = 1 << 20;

/// What the look at the store before may keep in memory, in KiB.
const CHECK_CACHE_KIB: u32 = 256;

/// Whether there was anything to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogFile {
    /// There is none, or it is empty.
    Empty,
    /// It was written anew and synced.
    Rewritten,
}

/// [Writes the log file anew](rewrite) once it is known to be that of a store: one of what is no store is not touched, because
/// whoever owns it may be writing it at this moment.
pub(super) fn rewrite_of_store(path: &Path) -> Result<LogFile, OpenError> {
    if path_of(path).metadata().is_ok_and(|log_file| log_file.len() > 0) {
        let failed = |error| OpenError::of_sqlite(path, &error);
        // One that may write, since a journal that a crash left has to be rolled back before anything can be read. It is closed
        // before the log file is written: what it read of that is not used.
        let connection = schema::connect_writer(path, Synchronous::Full, CHECK_CACHE_KIB, 0).map_err(failed)?;
        schema::check_openable(&connection, path)?;
        connection.close().map_err(|(_, error)| failed(error))?;
    }
    rewrite(path).map_err(|error| OpenError::of_io(path, &error))
}

/// Writes the log file anew, byte for byte, and syncs it. No connection of this process may be open.
///
/// After a failed sync the page cache shows what the disk lacks, and the next sync succeeds without writing it. If frames
/// that are only shown were moved into the database, a loss of power on the way would leave half of their transaction in
/// it, and nothing in the log file to make it whole.
pub(super) fn rewrite(store: &Path) -> io::Result<LogFile> {
    let file = match OpenOptions::new().read(true).write(true).open(path_of(store)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(LogFile::Empty),
        Err(error) => return Err(error),
    };
    let mut chunk = vec![0; CHUNK];
    let mut offset = 0;
    loop {
        let length = file.read_at(&mut chunk, offset)?;
        let Some(bytes) = chunk.get(..length).filter(|bytes| !bytes.is_empty()) else { break };
        file.write_all_at(bytes, offset)?;
        offset += length as u64;
    }
    if offset == 0 {
        return Ok(LogFile::Empty);
    }
    file.sync_all()?;
    Ok(LogFile::Rewritten)
}

fn path_of(store: &Path) -> PathBuf {
    let mut path = store.as_os_str().to_owned();
    path.push("-wal");
    PathBuf::from(path)
}
