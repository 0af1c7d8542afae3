//! The owner lock: at most one host holds a store at a time.
//!
//! It is a `flock` on a file beside the store, not on the store: readers of other processes work beside the owner, and
//! closing a descriptor of the store itself would drop SQLite's own locks. The kernel gives the lock back when the host
//! ends, however it ends, and a child that the host started does not inherit it.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::open_error::OpenError;
use crate::process_stat::ProcessStat;

/// Who holds a store, as it wrote beside it. For people; the lock itself is the proof.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreHolder {
    /// Its process id; 0 if it could not be read.
    pub pid: u32,
    /// The boot of the machine in which it runs; empty where the system does not tell.
    pub boot_id: String,
    /// When it started, in clock ticks since that boot; 0 where the system does not tell.
    pub started_at_ticks: u64,
}

impl fmt::Display for StoreHolder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pid == 0 {
            return formatter.write_str("a process that did not name itself");
        }
        write!(formatter, "process {}, started at tick {}", self.pid, self.started_at_ticks)?;
        if self.boot_id.is_empty() { Ok(()) } else { write!(formatter, " of boot {}", self.boot_id) }
    }
}

impl StoreHolder {
    fn this_process() -> Self {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let pid = std::process::id();
        let started_at_ticks = ProcessStat::of(pid).ok().flatten().map(|stat| stat.start_ticks).unwrap_or_default();
        Self { pid, boot_id: boot_id.trim().to_owned(), started_at_ticks }
    }
}

/// The lock, held until it is dropped. The file stays: removing it would let two hosts lock two files.
#[derive(Debug)]
pub(super) struct OwnerLock {
    _file: File,
}

impl OwnerLock {
    /// Takes the lock of a store and writes who took it.
    pub(super) fn acquire(store: &Path) -> Result<Self, OpenError> {
        let path = lock_path(store);
        let failed = |error: io::Error| OpenError::of_io(&path, &error);
        // The standard library opens every file close-on-exec.
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                let _ = file.read_to_string(&mut text);
                let holder = serde_json::from_str(&text).unwrap_or_default();
                return Err(OpenError::Owned { path: store.to_owned(), holder });
            }
            Err(error) => return Err(failed(error.into())),
        }
        let holder = serde_json::to_string(&StoreHolder::this_process()).map_err(|error| failed(error.into()))?;
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{holder}")).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

/// Whether some host owns the store now, as far as this process can see. It does not take the lock to find out: a host that
/// starts just then would be turned away.
pub(super) fn is_owned(store: &Path) -> io::Result<bool> {
    let inode = match std::fs::metadata(lock_path(store)) {
        Ok(metadata) => metadata.ino(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    Ok(std::fs::read_to_string("/proc/locks")?.lines().any(|line| is_exclusive_lock_of(line, inode)))
}

/// Whether a line of `/proc/locks` tells of such a lock. Devices are not compared: what is written there is not what a file
/// system of layers tells of its files.
fn is_exclusive_lock_of(line: &str, inode: u64) -> bool {
    let mut fields = line.split_ascii_whitespace().skip(1);
    fields.next() == Some("FLOCK")
        && fields.nth(1) == Some("WRITE")
        && fields.nth(1).and_then(|file| file.rsplit(':').next()?.parse().ok()) == Some(inode)
}

fn lock_path(store: &Path) -> PathBuf {
    let mut path = store.as_os_str().to_owned();
    path.push(".lock");
    PathBuf::from(path)
}

/// The path under which every way to the same name of a store takes the same lock.
pub(super) fn canonical(path: &Path) -> Result<PathBuf, OpenError> {
    let failed = |error: io::Error| OpenError::of_io(path, &error);
    match path.canonicalize() {
        Ok(path) => Ok(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let Some(name) = path.file_name() else { return Err(failed(error)) };
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let parent = parent.canonicalize().map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => OpenError::NoDirectory { path: path.to_owned() },
                _ => failed(error),
            })?;
            Ok(parent.join(name))
        }
        Err(error) => Err(failed(error)),
    }
}

/// Makes an empty file that only its owner may read, unless there is one. SQLite gives its side files the same mode.
pub(super) fn create_private(path: &Path) -> Result<(), OpenError> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(OpenError::of_io(path, &error)),
    }
}

/// Refuses a store that is known under several names. A file that is mounted in several places is not found out by this.
pub(super) fn refuse_several_names(path: &Path) -> Result<(), OpenError> {
    let links = path.metadata().map_err(|error| OpenError::of_io(path, &error))?.nlink();
    if links > 1 { Err(OpenError::Linked { path: path.to_owned(), links }) } else { Ok(()) }
}

/// Makes the names of new files durable.
pub(super) fn sync_parent(path: &Path) -> Result<(), OpenError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    File::open(parent).and_then(|directory| directory.sync_all()).map_err(|error| OpenError::of_io(path, &error))
}

/// Warns of file systems on which locks and shared memory may not hold between machines.
#[cfg(target_os = "linux")]
pub(super) fn warn_of_network(path: &Path) {
    const KINDS: [(u32, &str); 6] = [
        (0x6969, "nfs"),
        (0x517b, "smb"),
        (0xff53_4d42, "cifs"),
        (0xfe53_4d42, "smb2"),
        (0x6573_5546, "fuse"),
        (0x0102_1997, "9p"),
    ];
    let Some(found) = path.parent().and_then(|parent| rustix::fs::statfs(parent).ok()) else { return };
    // The field's width differs between machines; the magic numbers have 32 bits.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a magic number has 32 bits")]
    let magic = found.f_type as u32;
    if let Some((_, kind)) = KINDS.into_iter().find(|(known, _)| *known == magic) {
        tracing::warn!(path = %path.display(), kind, "the store is on a network file system, whose locks may not hold");
    }
}

/// Warns of file systems on which locks may not hold. Only Linux tells.
#[cfg(not(target_os = "linux"))]
pub(super) fn warn_of_network(_path: &Path) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_told_by_its_kind_and_its_file() {
        let held = "12: FLOCK  ADVISORY  WRITE 13455 fe:00:11043096 0 EOF";
        assert!(is_exclusive_lock_of(held, 11_043_096));
        assert!(!is_exclusive_lock_of(held, 43_096));
        for other in [
            "12: FLOCK  ADVISORY  READ 13455 fe:00:11043096 0 EOF",
            "12: POSIX  ADVISORY  WRITE 13455 fe:00:11043096 0 EOF",
            "12: -> FLOCK  ADVISORY  WRITE 13455 fe:00:11043096 0 EOF",
            "",
        ] {
            assert!(!is_exclusive_lock_of(other, 11_043_096), "{other}");
        }
    }

    #[test]
    fn a_store_is_owned_as_long_as_its_lock_is_held() {
        let directory = std::env::temp_dir().join(format!("proctor-owner-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let store = directory.join("store.db");
        assert!(!is_owned(&store).expect("it can be seen"), "nobody ever did");
        let lock = OwnerLock::acquire(&store).expect("the lock is free");
        assert!(is_owned(&store).expect("it can be seen"));
        drop(lock);
        assert!(!is_owned(&store).expect("it can be seen"));
        std::fs::remove_dir_all(&directory).expect("the directory goes");
    }
}
