//! What travels: one JSON object with one field, whose name is the kind of the message. `docs/remote.md` says the same for
//! people.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::{
    Command, ProcessEvent, ProcessId, ProcessRecord, Receipt, RegistryCommand, RegistryReceipt, SessionDeletion,
    SessionScope, StoreSession, Tombstone,
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
    /// These sessions are gone.
    SessionsDeleted { deletions: Vec<SessionDeletion> },
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Debug;
    use std::path::{Path, PathBuf};

    use serde::de::DeserializeOwned;
    use serde_json::{Map, Value};

    use super::*;
    use crate::domain::{OperationId, Sequence};

    fn read<T: DeserializeOwned>(path: &Path) -> T {
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn golden(file: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file)
    }

    /// A value whose own shape is pinned beside this.
    fn value<T: DeserializeOwned>(file: &str, name: &str) -> T {
        let values: Map<String, Value> = read(&golden(file));
        serde_json::from_value(values[name].clone()).expect("a golden value reads")
    }

    /// Compares with the file of that name, both ways, and finds each line in the documentation unless it is too long for one.
    /// `PROCTOR_REWRITE_GOLDEN=1` writes the file anew.
    fn compare<T: Serialize + DeserializeOwned + PartialEq + Debug>(file: &str, samples: Vec<(&str, T)>) {
        let path = golden("remote").join(file);
        let shape = |sample: &T| serde_json::to_value(sample).expect("a message has a JSON form");
        let shapes: Map<String, Value> =
            samples.iter().map(|(name, sample)| ((*name).to_owned(), shape(sample))).collect();
        if std::env::var_os("PROCTOR_REWRITE_GOLDEN").is_some_and(|asked| asked == "1") {
            let text = serde_json::to_string_pretty(&shapes).expect("shapes have a JSON form");
            std::fs::create_dir_all(golden("remote")).expect("the directory");
            std::fs::write(&path, text + "\n").expect("the golden file can be written");
        }
        let stored: Map<String, Value> = read(&path);
        assert_eq!(stored, shapes, "{file}");
        let documented = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/remote.md"));
        let documented = documented.expect("the documentation is there");
        for (name, sample) in samples {
            let read: T = serde_json::from_value(stored[name].clone()).expect("what was written reads");
            assert_eq!(read, sample, "{name}");
            let line = serde_json::to_string(&sample).expect("a message has a JSON form");
            let is_documented = documented.lines().any(|known| known == line);
            assert!(line.len() > 400 || is_documented, "docs/remote.md does not show {name}:\n{line}");
        }
    }

    fn process() -> ProcessId {
        ProcessId::new("build-7").expect("an id")
    }

    #[test]
    fn what_a_client_says_keeps_its_shape() {
        let request = |call| ClientMessage::Request { id: 7, call: Box::new(call) };
        let hello = Hello { protocol: PROTOCOL.into(), version: VERSION, follow: true, answer_bytes: 33_554_432 };
        compare(
            "client_message.json",
            vec![
                ("hello", ClientMessage::Hello(hello)),
                (
                    "execute",
                    request(Call::Execute {
                        process_id: process(),
                        command: Command::AckWake { sequence: Sequence(3) },
                    }),
                ),
                (
                    "execute_across",
                    request(Call::ExecuteAcross { command: RegistryCommand::DeleteSession { session_id: "s".into() } }),
                ),
                ("query", request(Call::Query { query: Query::Process { process_id: process() } })),
            ],
        );
    }

    #[test]
    fn what_a_server_says_keeps_its_shape() {
        let answer = |outcome| ServerMessage::Answer { id: 7, outcome: Box::new(outcome) };
        let session = StoreSession { store_id: "store".into(), number: 3 };
        let operation = OperationId { issuer: 1, number: 7 };
        let batch = CommittedNotice {
            process_id: process(),
            record: value("process_record.json", "started"),
            events: vec![value("process_event.json", "first_started")],
            woken: vec![SessionScope::session("s")],
        };
        let mut samples = vec![
            (
                "welcome",
                ServerMessage::Welcome(Welcome {
                    protocol: PROTOCOL.into(),
                    version: VERSION,
                    session,
                    durability: DurabilityTier::Durable,
                    follows: true,
                    request_bytes: 16_777_216,
                }),
            ),
            ("receipt", answer(Outcome::Receipt(Receipt::default()))),
            ("registry_receipt", answer(Outcome::RegistryReceipt(value("registry_receipt.json", "pruned")))),
            ("answer", answer(Outcome::Answer(Answer::Count(2)))),
            ("error", answer(Outcome::Error(RegistryError::Busy { limit: 128 }))),
            (
                "outcome_unknown",
                answer(Outcome::Error(RegistryError::OutcomeUnknown {
                    process_id: process(),
                    operation,
                    reason: "why".into(),
                })),
            ),
            ("committed", ServerMessage::Committed { batches: vec![batch] }),
            ("pruned", ServerMessage::Pruned { tombstones: vec![value("tombstone.json", "tombstone")] }),
            (
                "sessions_deleted",
                ServerMessage::SessionsDeleted { deletions: vec![value("session_deletion.json", "session_deletion")] },
            ),
            ("resync", ServerMessage::Resync),
            ("source_closed", ServerMessage::SourceClosed),
        ];
        samples.extend(goodbyes().into_iter().map(|(name, goodbye)| (name, ServerMessage::Goodbye(goodbye))));
        compare("server_message.json", samples);
    }

    fn goodbyes() -> Vec<(&'static str, Goodbye)> {
        vec![
            ("other_protocol", Goodbye::OtherProtocol { expected: PROTOCOL.into(), found: "http".into() }),
            ("other_version", Goodbye::OtherVersion { expected: 1, found: 2 }),
            ("foreign_user", Goodbye::ForeignUser { expected: 1_000, found: 1_001 }),
            ("too_many_connections", Goodbye::TooManyConnections { limit: 64 }),
            ("frame_too_large", Goodbye::FrameTooLarge { limit: 16_777_216, found: 16_777_217 }),
            ("malformed", Goodbye::Malformed { expected: "request".into(), fault: "why".into() }),
            ("silent", Goodbye::Silent { within_ms: 10_000 }),
            ("stopping", Goodbye::Stopping),
        ]
    }

    /// Every reason that the source lists is among the samples.
    #[test]
    fn every_goodbye_is_pinned() {
        let source = include_str!("message.rs");
        let (_, body) = source.split_once("pub enum Goodbye {").expect("the enum is there");
        let (body, _) = body.split_once("\n}").expect("it ends");
        let is_variant = |line: &&str| {
            line.strip_prefix("    ").is_some_and(|line| line.starts_with(|first: char| first.is_ascii_uppercase()))
        };
        let sampled: BTreeSet<_> = goodbyes().into_iter().map(|(name, _)| name).collect();
        assert_eq!(sampled.len(), body.lines().filter(is_variant).count(), "{sampled:?}");
    }
}
