//! Events: the only way in which a process record changes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::event_type::cancel_request_payload;
use super::{CausalRef, CoreEventType, Digest, ProcessEventSemantics, ProcessId, ReplayKey, Sequence, SessionScope};

/// One stored event. It is a fact: nothing ever changes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessEvent {
    /// The process that it belongs to.
    pub process_id: ProcessId,
    /// Its place in the log of that process.
    pub sequence: Sequence,
    /// Name of its type.
    pub event_type: Arc<str>,
    /// What it carries.
    pub payload: Value,
    /// Its idempotency key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_key: Option<ReplayKey>,
    /// What it means beyond being stored.
    #[serde(default, skip_serializing_if = "ProcessEventSemantics::is_empty")]
    pub semantics: ProcessEventSemantics,
    /// When it was decided, in ms since the Unix epoch.
    pub occurred_at_ms: u64,
    /// Whether it came after the terminal event.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
}

impl ProcessEvent {
    /// The core type of this event, if it is one.
    #[must_use]
    pub fn core_type(&self) -> Option<CoreEventType> {
        CoreEventType::from_name(&self.event_type)
    }

    /// The wake that this event acknowledges, if it acknowledges one.
    #[must_use]
    pub fn acknowledged_wake(&self) -> Option<Sequence> {
        if *self.event_type != *CoreEventType::WakeAcknowledged.name() {
            return None;
        }
        self.payload.get("sequence").and_then(Value::as_u64).map(Sequence)
    }

    /// Lineage of the event. It follows from the event itself and is not stored.
    #[must_use]
    pub fn invocation(&self) -> RuntimeInvocation {
        RuntimeInvocation {
            scope: RuntimeScope { session_id: "runtime".to_owned() },
            subject: RuntimeSubject::ProcessEvent {
                process_id: self.process_id.clone(),
                sequence: self.sequence,
                event_type: self.event_type.to_string(),
            },
            caused_by: Some(CausalRef::Process { process_id: self.process_id.clone() }),
            replay: self.replay_key.clone(),
        }
    }
}

/// Lineage of a fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeInvocation {
    /// Where it happened.
    pub scope: RuntimeScope,
    /// What it is about.
    pub subject: RuntimeSubject,
    /// What caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caused_by: Option<CausalRef>,
    /// Its idempotency key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<ReplayKey>,
}

/// Where an invocation happened. For events of processes: in the runtime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeScope {
    /// The session.
    pub session_id: String,
}

/// What an invocation is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum RuntimeSubject {
    /// An event of a process.
    ProcessEvent {
        /// The process.
        process_id: ProcessId,
        /// The event.
        sequence: Sequence,
        /// Its type.
        event_type: String,
    },
}

/// Asks for one event to be appended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessEventAppendRequest {
    /// Name of a declared type.
    pub event_type: String,
    /// What it carries.
    #[serde(default)]
    pub payload: Value,
    /// Idempotency key: a second append under the key answers the stored event, or conflicts if it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_key: Option<ReplayKey>,
    /// Whom a wake goes to; the process's own target otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wake_target_scope: Option<SessionScope>,
}

impl ProcessEventAppendRequest {
    /// An append without a key.
    #[must_use]
    pub fn new(event_type: impl Into<String>, payload: Value) -> Self {
        Self { event_type: event_type.into(), payload, replay_key: None, wake_target_scope: None }
    }

    /// The same under a replay key.
    #[must_use]
    pub fn with_replay_key(mut self, replay_key: ReplayKey) -> Self {
        self.replay_key = Some(replay_key);
        self
    }

    /// The same with a wake target of its own.
    #[must_use]
    pub fn with_wake_target_scope(mut self, scope: SessionScope) -> Self {
        self.wake_target_scope = Some(scope);
        self
    }

    /// A request to stop. Equal reasons are one event, other reasons another; it is cooperative and does not change
    /// the status.
    #[must_use]
    pub fn cancel_requested(process_id: &ProcessId, reason: Option<&str>) -> Self {
        let event_type = CoreEventType::CancelRequested.name();
        let payload = cancel_request_payload(reason);
        let digest = Digest::of_parts([event_type.as_bytes(), payload.to_string().as_bytes()]);
        Self {
            event_type: event_type.to_owned(),
            payload,
            replay_key: deterministic_key(process_id, &format!("cancel_requested:{digest}")),
            wake_target_scope: None,
        }
    }
}

/// A replay key that the registry derives from the process and the fact. A process id near the length limit leaves no
/// room for it, so the id is then replaced by its hash; so is a fact that is itself too long, or that no key can hold.
pub(crate) fn deterministic_key(process_id: &ProcessId, fact: &str) -> Option<ReplayKey> {
    let hashed_id = || Digest::of_parts([process_id.as_str().as_bytes()]);
    ReplayKey::new(format!("process:{process_id}:{fact}"))
        .or_else(|_| ReplayKey::new(format!("process:{}:{fact}", hashed_id())))
        // A key there must be: an append without one is a new event each time that it is sent.
        .or_else(|_| ReplayKey::new(format!("process:{}:sha256:{}", hashed_id(), Digest::of_parts([fact.as_bytes()]))))
        .ok()
}

/// The replay key of a fact that only the registry writes.
pub(crate) fn fact_key(process_id: &ProcessId, core: CoreEventType, detail: Option<Sequence>) -> Option<ReplayKey> {
    let fact = core.name().trim_start_matches("process.");
    match detail {
        None => deterministic_key(process_id, fact),
        Some(sequence) => deterministic_key(process_id, &format!("{fact}:{sequence}")),
    }
}

/// Whether a key is one that the registry derives itself, for a fact of another type than the request's: a caller who
/// could take it would keep that fact from ever being written.
pub(crate) fn is_reserved_key(process_id: &ProcessId, request: &ProcessEventAppendRequest) -> bool {
    let Some(key) = &request.replay_key else { return false };
    // Most keys are the host's own, and are not worth a hash.
    if !key.as_str().starts_with("process:") {
        return false;
    }
    let fact = [process_id.to_string(), Digest::of_parts([process_id.as_str().as_bytes()]).to_string()]
        .into_iter()
        .find_map(|id| key.as_str().strip_prefix("process:")?.strip_prefix(&id)?.strip_prefix(':'));
    let Some(fact) = fact else { return false };
    let named = |core: CoreEventType| {
        let name = core.name().trim_start_matches("process.");
        fact == name || fact.strip_prefix(name).is_some_and(|rest| rest.starts_with(':'))
    };
    if let Some(event_type) = fact.strip_prefix("terminal:") {
        return event_type != request.event_type;
    }
    if named(CoreEventType::CancelRequested) {
        return request.event_type != CoreEventType::CancelRequested.name();
    }
    CoreEventType::INTERNAL.into_iter().any(named)
}
