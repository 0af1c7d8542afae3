//! The log file that an earlier connection left beside the store. What is in it is SQLite's own; here the disk is made to
//! hold what reads of it show.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// How much is written at once, in bytes.
const CHUNK: usize = 1 << 20;

/// Whether there was anything to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogFile {
    /// There is none, or it is empty.
    Empty,
    /// It was written anew and synced.
    Rewritten,
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
