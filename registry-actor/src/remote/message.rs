//! What travels: one JSON object with one field, whose name is the kind of the message. `docs/remote.md` says the same for
//! people.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::{
    Command, ProcessEvent, ProcessId, ProcessRecord, Receipt, RegistryCommand, RegistryReceipt, SessionScope,
    StoreSession, Tombstone,
};
use crate::port::{Answer, CommittedBatch, DurabilityTier, Query, RegistryError};

/// The name of the protocol. It never changes: what changes is the version.
pub const PROTOCOL: &str = "proctor-registry";

/// The version of the protocol that this code speaks; it speaks no other.
pub const VERSION: u32 = 1;

/// From a client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ClientMessage {
    /// First, and once.
    Hello(Hello),
    /// Asks for something. Its answer carries the same id.
    Request { id: u64, call: Box<Call> },
}

/// The greeting of a client. Fields that a server does not know it does not mind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) protocol: String,
    pub(super) version: u32,
    /// Whether it wants to be told of commits.
    pub(super) follow: bool,
    /// The longest frame that it takes, in bytes, inclusive.
    pub(super) answer_bytes: u64,
}

/// What is asked of the registry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Call {
    Execute { process_id: ProcessId, command: Command },
    ExecuteAcross { command: RegistryCommand },
    Query { query: Query },
}

/// From a server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ServerMessage {
    /// Answers the hello.
    Welcome(Welcome),
    /// Answers a request.
    Answer { id: u64, outcome: Box<Outcome> },
    /// These batches are durable.
    Committed { batches: Vec<CommittedNotice> },
    /// These processes are gone.
    Pruned { tombstones: Vec<Tombstone> },
    /// Commits were missed: everything has to be read anew.
    Resync,
    /// The registry that is served has ended. Nothing will be told any more.
    SourceClosed,
    /// Last.
    Goodbye(Goodbye),
}

/// The greeting of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Welcome {
    pub(super) protocol: String,
    pub(super) version: u32,
    /// In which session the store is open.
    pub(super) session: StoreSession,
    pub(super) durability: DurabilityTier,
    /// Whether it tells of commits: the client wants it, and the registry can.
    pub(super) follows: bool,
    /// The longest frame that it takes, in bytes, inclusive.
    pub(super) request_bytes: u64,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    Receipt(Receipt),
    RegistryReceipt(RegistryReceipt),
    Answer(Answer),
    Error(RegistryError),
}

/// What one process gained in one commit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct CommittedNotice {
    process_id: ProcessId,
    record: Arc<ProcessRecord>,
    events: Vec<Arc<ProcessEvent>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    woken: Vec<SessionScope>,
}

/// Why a server ends a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "reason", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Goodbye {
    /// The client speaks something else.
    #[error("this server speaks `{expected}`, the client `{found}`")]
    OtherProtocol {
        /// What the server speaks.
        expected: String,
        /// What the client spoke.
        found: String,
    },
    /// The client speaks another version.
    #[error("this server speaks version {expected} of its protocol, the client version {found}")]
    OtherVersion {
        /// The server's.
        expected: u32,
        /// The client's.
        found: u32,
    },
    /// The client belongs to somebody else.
    #[error("this server belongs to user {expected}, the client to user {found}")]
    ForeignUser {
        /// Whom it has to belong to.
        expected: u32,
        /// Whom it belongs to.
        found: u32,
    },
    /// The server has enough connections.
    #[error("the server has {limit} connections already")]
    TooManyConnections {
        /// How many it takes.
        limit: usize,
    },
    /// A frame is too long. Nothing of it was read, and nothing of it was done.
    #[error("a frame must be at most {limit} bytes, got one of {found}")]
    FrameTooLarge {
        /// The longest, in bytes, inclusive.
        limit: u64,
        /// What was announced.
        found: u64,
    },
    /// A frame holds no message of the protocol. Nothing of it was done.
    #[error("a frame holds no {expected}: {fault}")]
    Malformed {
        /// What was expected.
        expected: String,
        /// What is wrong with it.
        fault: String,
    },
    /// The greeting did not come in time.
    #[error("no greeting came within {within_ms} ms")]
    Silent {
        /// How long the server waits, in ms.
        within_ms: u64,
    },
    /// The server stops. What was under way is answered.
    #[error("the server stops")]
    Stopping,
}

impl Hello {
    /// Refuses a client that speaks something else.
    pub(super) fn check(&self) -> Result<(), Goodbye> {
        check_protocol(&self.protocol, self.version)
    }
}

impl Welcome {
    /// Refuses a server that speaks something else. Expected is what the server speaks, as in its own goodbye.
    pub(super) fn check(&self) -> Result<(), Goodbye> {
        check_protocol(&self.protocol, self.version).map_err(|goodbye| match goodbye {
            Goodbye::OtherProtocol { expected, found } => Goodbye::OtherProtocol { expected: found, found: expected },
            Goodbye::OtherVersion { expected, found } => Goodbye::OtherVersion { expected: found, found: expected },
            other => other,
        })
    }
}

fn check_protocol(protocol: &str, version: u32) -> Result<(), Goodbye> {
    if protocol != PROTOCOL {
        return Err(Goodbye::OtherProtocol { expected: PROTOCOL.to_owned(), found: protocol.to_owned() });
    }
    if version != VERSION {
        return Err(Goodbye::OtherVersion { expected: VERSION, found: version });
    }
    Ok(())
}

impl From<&CommittedBatch> for CommittedNotice {
    fn from(batch: &CommittedBatch) -> Self {
        let CommittedBatch { process_id, record, events, woken } = batch.clone();
        Self { process_id, record, events, woken }
    }
}

impl From<CommittedNotice> for CommittedBatch {
    fn from(notice: CommittedNotice) -> Self {
        let CommittedNotice { process_id, record, events, woken } = notice;
        Self { process_id, record, events, woken }
    }
}
