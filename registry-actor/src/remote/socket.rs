//! The socket in the file system: private from its first instant, and one server for each path.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, fchmod, flock};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};

/// How many connections may wait to be accepted.
const ACCEPT_QUEUE: i32 = 128;
/// Permissions of the socket: its owner and nobody else.
const MODE: u32 = 0o600;

/// Why a path could not be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// A server that lives has the path.
    #[error("{path} is served already", path = path.display())]
    AlreadyServed {
        /// The path.
        path: PathBuf,
    },
    /// Something else than a socket is there, and is left there.
    #[error("{path} is no socket, and is not replaced by one", path = path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The file system did not make the socket private.
    #[error("{path} got the permissions {found:o}, expected {expected:o}", path = path.display())]
    NotPrivate {
        /// The path.
        path: PathBuf,
        /// What it should have.
        expected: u32,
        /// What it has.
        found: u32,
    },
    /// The system refused.
    #[error("{path} could not be served: {reason}", path = path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// A socket that is bound. When it is dropped its file goes, and then the right to the path.
#[derive(Debug)]
pub(super) struct BoundSocket {
    path: PathBuf,
    device_and_inode: (u64, u64),
    /// The kernel gives the lock back when the host ends, however it ends. The file stays: removing it would let two servers
    /// lock two files.
    _lock: File,
}

impl BoundSocket {
    /// Binds and listens. A socket that a dead server left is replaced.
    pub(super) fn bind(path: &Path) -> Result<(Self, UnixListener), ServeError> {
        let failed = |error: io::Error| ServeError::Io { path: path.to_owned(), reason: error.to_string() };
        let lock = lock(path, &failed)?;
        clear(path, &failed)?;
        let address = SocketAddrUnix::new(path).map_err(|error| failed(error.into()))?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let socket = socket.map_err(|error| failed(error.into()))?;
        // The file gets the permissions that the unbound socket has: at no instant are there others. The umask of the host
        // is not touched, because other threads make files meanwhile.
        fchmod(&socket, Mode::from_raw_mode(MODE)).map_err(|error| failed(error.into()))?;
        bind(socket.as_fd(), &address).map_err(|error| failed(error.into()))?;
        let metadata = fs::symlink_metadata(path).map_err(failed)?;
        let bound = Self { path: path.to_owned(), device_and_inode: (metadata.dev(), metadata.ino()), _lock: lock };
        let found = metadata.mode() & 0o777;
        if found != MODE {
            return Err(ServeError::NotPrivate { path: path.to_owned(), expected: MODE, found });
        }
        listen(socket.as_fd(), ACCEPT_QUEUE).map_err(|error| failed(error.into()))?;
        Ok((bound, UnixListener::from(socket)))
    }
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        let is_ours = |metadata: fs::Metadata| (metadata.dev(), metadata.ino()) == self.device_and_inode;
        if fs::symlink_metadata(&self.path).is_ok_and(is_ours) {
            drop(fs::remove_file(&self.path));
        }
    }
}

/// The right to the path, among servers of this kind.
fn lock(path: &Path, failed: &impl Fn(io::Error) -> ServeError) -> Result<File, ServeError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(MODE).open(name);
    let file = file.map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(ServeError::AlreadyServed { path: path.to_owned() }),
        Err(error) => Err(failed(error.into())),
    }
}

/// Removes a socket on which nobody listens.
fn clear(path: &Path, failed: &impl Fn(io::Error) -> ServeError) -> Result<(), ServeError> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata.map_err(failed)?,
    };
    if !metadata.file_type().is_socket() {
        return Err(ServeError::NotASocket { path: path.to_owned() });
    }
    // Somebody may serve it who does not know of the lock.
    match UnixStream::connect(path) {
        Ok(_) => Err(ServeError::AlreadyServed { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(failed),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).expect("it is there").mode() & 0o777
    }

    #[test]
    fn a_socket_is_private_and_goes_with_its_server() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("s");
        let (bound, _listener) = BoundSocket::bind(&path).expect("a socket");
        assert_eq!(mode(&path), 0o600);
        let again = BoundSocket::bind(&path).map(drop);
        assert_eq!(again, Err(ServeError::AlreadyServed { path: path.clone() }));
        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_dead_server_left_is_replaced_and_what_a_live_one_has_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("s");
        let foreign = UnixListener::bind(&path).expect("a socket");
        let served = BoundSocket::bind(&path).map(drop);
        assert_eq!(served, Err(ServeError::AlreadyServed { path: path.clone() }));
        drop(foreign);
        assert!(path.exists(), "it is left behind");
        let (_bound, _listener) = BoundSocket::bind(&path).expect("a socket");
        UnixStream::connect(&path).expect("somebody listens");
    }

    #[test]
    fn a_file_of_somebody_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("s");
        fs::write(&path, "text").expect("a file");
        let served = BoundSocket::bind(&path).map(drop);
        assert_eq!(served, Err(ServeError::NotASocket { path: path.clone() }));
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "text");
    }

    #[test]
    fn a_file_that_took_its_place_outlives_the_server() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("s");
        let (bound, _listener) = BoundSocket::bind(&path).expect("a socket");
        fs::rename(&path, directory.path().join("moved")).expect("it moves");
        fs::write(&path, "text").expect("a file");
        drop(bound);
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "text");
    }
}
