//! The bounds of what the registry takes, in one place. Whatever exceeds one is refused with a typed error that names
//! the limit and what was found; nothing is cut silently, except pages, which say that more follows.

use super::{Refusal, nesting};

/// Bounds of a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits;

impl Limits {
    /// Bytes of UTF-8 in a process id, a replay key or a lease token.
    pub const IDENTIFIER_BYTES: usize = 512;
    /// Bytes of UTF-8 in a name: event type, input kind, identity kind and label, session and frame, tag, signal,
    /// owner and incarnation, backend of an external reference.
    pub const NAME_BYTES: usize = 512;
    /// Bytes of JSON in one payload, one registration, one outcome, one reference, one descriptor.
    pub const PAYLOAD_BYTES: usize = 1024 * 1024;
    /// Bytes of text that the templates of one selector put together: each text that they make, as often as it is made.
    pub const TEMPLATE_BYTES: usize = 4 * Self::PAYLOAD_BYTES;
    /// Arrays and objects that may stand in one another in a value that a caller hands in.
    pub const JSON_LEVELS: usize = nesting::MAX_LEVELS;
    /// Event types that one process declares, the core types included.
    pub const EVENT_TYPES: usize = 256;
    /// Tags on one registration.
    pub const TAGS: usize = 64;
    /// Events that one command appends.
    pub const EVENTS_PER_COMMAND: usize = 1_024;
    /// Processes that one transfer names.
    pub const GRANTS_PER_TRANSFER: usize = 10_000;
    /// Processes that one prune command removes, so that a large prune does not hold up everybody else.
    pub const PRUNED_PER_COMMAND: u32 = 1_000;
    /// Events after whose removal a prune command begins no further process, for the same reason. One process goes whole,
    /// however many it has.
    pub const PRUNED_EVENTS_PER_COMMAND: u64 = 20_000;
    /// Exemptions of one prune.
    pub const PRUNE_EXEMPTIONS: usize = 64;
    /// Events, changes or wakes in one page.
    pub const EVENTS_PER_PAGE: u32 = 10_000;
    /// Records or grants in one page.
    pub const RECORDS_PER_PAGE: u32 = 1_000;
}

/// Refuses more items than a bound allows.
pub(crate) fn check_items(what: &str, found: usize, limit: usize) -> Result<(), Refusal> {
    if found <= limit {
        return Ok(());
    }
    Err(Refusal::LimitExceeded {
        what: what.to_owned(),
        measure: Measure::Items,
        limit: limit as u64,
        found: found as u64,
    })
}

/// What a bound counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Measure {
    /// Bytes of UTF-8 or of JSON.
    Bytes,
    /// Items of a list.
    Items,
}

impl std::fmt::Display for Measure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Bytes => "bytes",
            Self::Items => "items",
        })
    }
}
