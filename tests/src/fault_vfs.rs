//! A SQLite file system under the test's hand: it fails calls, and it records what reaches the disk.
//!
//! A store whose directory has a [`Control`] is served through a shim over the default file system; every other store is
//! served by the default one itself. [`Control`] says which call fails and how; its [`Operation`]s are replayed by a
//! [`Disk`] into what a loss of power may leave.
//!
//! Three things happen outside of SQLite and are not seen here. The lock file is no part of what is replayed: its content
//! is for people, and the kernel gives the lock back. The host syncs the directory once when it opens a store; whoever
//! records says so with [`Control::host_synced_directory`]. Before it opens a connection it writes a log file that is left
//! anew: [`Control::host_rewrote`].

mod control;
mod disk;
mod shim;

pub use self::control::{CallKind, Control, Failure, Fault, Operation, Span};
pub use self::disk::{Disk, Files, Kept};
