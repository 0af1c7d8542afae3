//! What a caller of the crashing host was told.

use registry_actor::domain::{LeaseToken, ProcessId, Sequence};
use serde::{Deserialize, Serialize};

/// An acknowledged fact about a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// It is there.
    Registered,
    /// It has this note at this sequence.
    Appended {
        /// Where.
        sequence: Sequence,
        /// Which.
        number: u64,
    },
    /// A lease is held, until then at least.
    Held {
        /// Its token.
        token: LeaseToken,
        /// Its fence.
        fence: u64,
        /// In ms since the Unix epoch.
        expires_at_epoch_ms: u64,
    },
    /// The lease was given up.
    Released,
    /// The session of the same name may address it.
    Granted,
    /// The session of the same name may not address it any more.
    Revoked,
    /// It waits for a signal.
    WaitSet,
    /// It does not any more.
    WaitCleared,
    /// It has ended, with this number.
    Completed {
        /// Which.
        number: u64,
    },
    /// Only its tombstone is left.
    Pruned,
    /// Nobody does anything with it any more: it stays as it is.
    LeftAlone,
}

/// A line of the child: which process, and what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The process.
    pub id: ProcessId,
    /// What was acknowledged.
    pub fact: Fact,
}

pub(super) fn read(lines: &[String]) -> Vec<Told> {
    lines.iter().map(|line| serde_json::from_str(line).expect("the child tells facts")).collect()
}
