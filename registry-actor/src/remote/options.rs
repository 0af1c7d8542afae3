//! Settings of both ends.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::admission::{Admission, SameUser};
use super::claimant::StoreSessionOwners;

/// Settings of a server.
#[derive(Clone)]
#[non_exhaustive]
pub struct ServerOptions {
    /// How many connections it has at once; more are told so and closed. Default 64.
    pub connections: usize,
    /// How many requests of one connection may be under way; more are answered `Busy`. One is under way until its answer was
    /// written. [Urgent](crate::domain::Command::is_urgent) commands are counted by themselves: as many again. Default 128.
    pub requests_under_way: usize,
    /// How many reads of one connection are made at once; others wait. With [`answer_bytes`](Self::answer_bytes) it bounds
    /// what a client that does not read its answers costs. Default 16.
    pub reads_at_once: usize,
    /// The longest request, in bytes, inclusive. Default 16 MiB.
    pub request_bytes: usize,
    /// The longest answer, in bytes, inclusive; pages are cut to it. A client may ask for less. Default 32 MiB.
    pub answer_bytes: usize,
    /// How many bytes of commits wait for a client that is slow to hear of them. More are not kept: it is told to read
    /// everything anew. Default 8 MiB.
    pub backlog_bytes: usize,
    /// How long a client has for its greeting. Default 10 s.
    pub hello_within: Duration,
    /// Who may connect. Default [`SameUser`].
    pub admission: Arc<dyn Admission>,
    /// Whether clients may claim leases as residents of the host. Default: no.
    pub store_session_owners: StoreSessionOwners,
}

/// Settings of a client.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RemoteOptions {
    /// How long calls wait for a connection before they are answered that nothing was sent. Default 10 s. While there is no
    /// server for longer than that, a call waits for one attempt to connect: a second at most, or ten where what accepts says nothing.
    pub patience: Duration,
    /// How many calls may be under way; more wait. A server answers `Busy` beyond its own limit.
    /// [Urgent](crate::domain::Command::is_urgent) commands are counted by themselves: as many again. Default 128.
    pub calls_under_way: usize,
    /// The longest answer that it takes, in bytes, inclusive. Default 32 MiB.
    pub answer_bytes: usize,
    /// Whether it is told of commits; without it there is no source of changes, and waiters poll. Default: yes.
    pub follow: bool,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            connections: 64,
            requests_under_way: 128,
            reads_at_once: 16,
            request_bytes: 16 * 1024 * 1024,
            answer_bytes: 32 * 1024 * 1024,
            backlog_bytes: 8 * 1024 * 1024,
            hello_within: Duration::from_secs(10),
            admission: Arc::new(SameUser),
            store_session_owners: StoreSessionOwners::default(),
        }
    }
}

impl fmt::Debug for ServerOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ServerOptions")
            .field("connections", &self.connections)
            .field("requests_under_way", &self.requests_under_way)
            .field("reads_at_once", &self.reads_at_once)
            .field("request_bytes", &self.request_bytes)
            .field("answer_bytes", &self.answer_bytes)
            .field("backlog_bytes", &self.backlog_bytes)
            .field("hello_within", &self.hello_within)
            .field("store_session_owners", &self.store_session_owners)
            .finish_non_exhaustive()
    }
}

impl Default for RemoteOptions {
    fn default() -> Self {
        Self { patience: Duration::from_secs(10), calls_under_way: 128, answer_bytes: 32 * 1024 * 1024, follow: true }
    }
}
