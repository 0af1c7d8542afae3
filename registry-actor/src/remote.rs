//! A registry over a Unix socket, so that a worker can be a process of its own.
//!
//! [`RegistryServer`] serves a registry of its host, [`RemoteRegistry`] is that registry elsewhere: a
//! [`ProcessRegistry`](crate::port::ProcessRegistry) like any other, with a source of changes of its own. Neither knows what
//! a command means; what stands between them is in `docs/remote.md`.
//!
//! A worker in a process of its own names that process when it claims a lease ([`RemoteRegistry::owner`]). The session of the store
//! is the proof of whoever lives in the host, and is refused from anybody else.

mod admission;
mod answering;
mod backlog;
mod call_lanes;
mod claimant;
mod client;
mod connection;
mod depth;
mod forwarder;
mod frame;
mod greeting;
mod line;
mod message;
mod options;
mod server;
mod socket;

pub use crate::liveness::{observe, own_liveness};
pub use admission::{Admission, Peer, SameUser};
pub use claimant::StoreSessionOwners;
pub use client::RemoteRegistry;
pub use greeting::ConnectError;
pub use message::{Goodbye, PROTOCOL, VERSION};
pub use options::{RemoteOptions, ServerOptions};
pub use server::{RegistryServer, StopReport};
pub use socket::ServeError;
