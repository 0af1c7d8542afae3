//! Newtypes for what names or numbers something: process ids, sequences, fences, tokens, keys.
//!
//! Bounds are checked where a value enters, decoding included, so that no later code meets an id that it cannot store.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Limits;

/// The longest accepted id or key, in bytes of UTF-8.
const MAX_IDENTIFIER_BYTES: usize = Limits::IDENTIFIER_BYTES;

/// A name that cannot be an id or a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidIdentifier {
    /// Blank after trimming. The text is what the peer's callers match on.
    #[error("{what} must be a non-empty string")]
    Empty {
        /// What was to be named.
        what: &'static str,
    },
    /// Longer than the limit.
    #[error("{what} must be at most {limit_bytes} bytes, got {found_bytes}")]
    TooLong {
        /// What was to be named.
        what: &'static str,
        /// The limit, inclusive, in bytes.
        limit_bytes: usize,
        /// What was found, in bytes.
        found_bytes: usize,
    },
    /// Holds a control character, which would corrupt every table and log line that shows it.
    #[error("{what} must not hold control characters, got {found:?}")]
    Control {
        /// What was to be named.
        what: &'static str,
        /// The first control character found.
        found: char,
    },
}

fn check(what: &'static str, text: &str) -> Result<(), InvalidIdentifier> {
    if text.trim().is_empty() {
        return Err(InvalidIdentifier::Empty { what });
    }
    if text.len() > MAX_IDENTIFIER_BYTES {
        return Err(InvalidIdentifier::TooLong { what, limit_bytes: MAX_IDENTIFIER_BYTES, found_bytes: text.len() });
    }
    match text.chars().find(|character| character.is_control()) {
        Some(found) => Err(InvalidIdentifier::Control { what, found }),
        None => Ok(()),
    }
}

macro_rules! text_identifier {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and takes the text.
            ///
            /// # Errors
            /// [`InvalidIdentifier`] when it is blank, longer than 512 bytes or holds control characters.
            pub fn new(text: impl Into<Arc<str>>) -> Result<Self, InvalidIdentifier> {
                let text = text.into();
                check($what, &text)?;
                Ok(Self(text))
            }

            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidIdentifier;

            fn try_from(text: String) -> Result<Self, InvalidIdentifier> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = InvalidIdentifier;

            fn try_from(text: &str) -> Result<Self, InvalidIdentifier> {
                Self::new(text)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidIdentifier;

            fn from_str(text: &str) -> Result<Self, InvalidIdentifier> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, formatter)
            }
        }
    };
}

text_identifier!(
    /// Global key of a process: chosen by the host, never blank. It is the idempotency anchor of the execution.
    ProcessId,
    "process id"
);

impl ProcessId {
    /// Which of so many shards it belongs to. FNV-1a: the choice has to be the same in every run, or a failing test
    /// could not be replayed.
    #[must_use]
    pub fn shard_of(&self, shards: usize) -> usize {
        let hash = self
            .as_str()
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        usize::try_from(hash % shards.max(1) as u64).unwrap_or(0)
    }
}
text_identifier!(
    /// Idempotency key of an event; unique in the log of one process, across all event types.
    ReplayKey,
    "event replay key"
);
text_identifier!(
    /// Opaque secret of one acquisition of a lease.
    LeaseToken,
    "lease token"
);

/// Position of an event in the log of its process. Registration is 0, the first event after it is 1, and the numbers
/// are dense.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The sequence of the registration itself.
    pub const REGISTRATION: Self = Self(0);

    /// The sequence that follows. Saturates, although no log grows that long.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

/// Fencing token: 1 at the first acquisition of a lease, one more at each new acquisition. Release keeps it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fence(pub u64);

impl Fence {
    /// The fence of the next acquisition.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

/// Names one call of `execute`, so that a command that is sent again after a crash is answered and not repeated.
///
/// The issuer half must be unique for every handle that ever wrote to the store; the number counts its calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OperationId {
    /// Random for each issuing handle.
    pub issuer: u64,
    /// Counts the calls of that handle.
    pub number: u64,
}

impl OperationId {
    /// The sixteen bytes under which it is stored.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.issuer.to_be_bytes());
        bytes[8..].copy_from_slice(&self.number.to_be_bytes());
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote; `None` for any other length.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; 16] = bytes.try_into().ok()?;
        let (issuer, number) = bytes.split_at(8);
        Some(Self {
            issuer: u64::from_be_bytes(issuer.try_into().ok()?),
            number: u64::from_be_bytes(number.try_into().ok()?),
        })
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}{:016x}", self.issuer, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_id_says_what_is_wrong_with_it() {
        assert_eq!(ProcessId::new("  ").expect_err("blank").to_string(), "process id must be a non-empty string");
        assert_eq!(
            ProcessId::new("x".repeat(513)).expect_err("long").to_string(),
            "process id must be at most 512 bytes, got 513"
        );
        assert!(ProcessId::new("x".repeat(512)).is_ok());
        assert_eq!(
            ProcessId::new("a\nb").expect_err("control").to_string(),
            "process id must not hold control characters, got '\\n'"
        );
        assert!(serde_json::from_str::<ProcessId>("\" \"").is_err());
    }

    #[test]
    fn an_operation_id_survives_its_bytes() {
        let operation = OperationId { issuer: 0x0102_0304_0506_0708, number: 9 };
        assert_eq!(OperationId::from_bytes(&operation.to_bytes()), Some(operation));
        assert_eq!(OperationId::from_bytes(&[0; 15]), None);
    }
}
