//! Signals: named messages to a process, as events of the type `signal.{name}`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::event::deterministic_key;
use super::{Limits, ProcessEventAppendRequest, ProcessEventType, ProcessId};

/// Name of a signal: letters, digits, `_` and `-` of ASCII.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProcessSignal(String);

/// A text that cannot name a signal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error(
    "process signal name must be non-empty, of at most {} bytes, and hold only letters, digits, `_` and `-`, got {found:?}",
    ProcessSignal::MAX_BYTES
)]
pub struct InvalidSignalName {
    /// What was found.
    pub found: String,
}

impl ProcessSignal {
    const PREFIX: &'static str = "signal.";
    const MAX_BYTES: usize = Limits::NAME_BYTES - Self::PREFIX.len();

    /// Checks and takes the name.
    ///
    /// # Errors
    /// [`InvalidSignalName`].
    pub fn new(name: impl Into<String>) -> Result<Self, InvalidSignalName> {
        let name = name.into();
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if name.is_empty() || name.len() > Self::MAX_BYTES || !name.bytes().all(is_allowed) {
            return Err(InvalidSignalName { found: name });
        }
        Ok(Self(name))
    }

    /// The signal whose events have this type, if it is a type of signals.
    #[must_use]
    pub fn of_event_type(event_type: &str) -> Option<Self> {
        Self::new(event_type.strip_prefix(Self::PREFIX)?).ok()
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }

    /// The type of its events.
    #[must_use]
    pub fn event_type(&self) -> String {
        format!("{}{}", Self::PREFIX, self.0)
    }

    /// What a registration declares so that the signal may be sent: events of its type, of any payload.
    #[must_use]
    pub fn declared_type(&self) -> ProcessEventType {
        ProcessEventType::plain(self.event_type())
    }

    /// Key of the wait for the nth signal of this name, counted from 1.
    #[must_use]
    pub fn wait_key(&self, process_id: &ProcessId, ordinal: u64) -> String {
        format!("process:{process_id}:{}:{ordinal}", self.event_type())
    }

    /// The append that sends it. The same `signal_id` is one signal, however often it is sent.
    #[must_use]
    pub fn request(&self, process_id: &ProcessId, signal_id: &str, payload: Value) -> ProcessEventAppendRequest {
        ProcessEventAppendRequest {
            event_type: self.event_type(),
            payload,
            replay_key: deterministic_key(process_id, &format!("{}:{signal_id}", self.event_type())),
            wake_target_scope: None,
        }
    }
}

impl TryFrom<String> for ProcessSignal {
    type Error = InvalidSignalName;

    fn try_from(name: String) -> Result<Self, InvalidSignalName> {
        Self::new(name)
    }
}

impl From<ProcessSignal> for String {
    fn from(signal: ProcessSignal) -> Self {
        signal.0
    }
}
