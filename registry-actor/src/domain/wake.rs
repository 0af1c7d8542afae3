//! Wake deliveries: what a session is told because of an event.

use serde::{Deserialize, Serialize};

use super::{CausalRef, Digest, ProcessEvent, ProcessId, ProcessRecord, Sequence, SessionScope, SessionScopeId};

/// One wake for one session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessWakeDelivery {
    /// Names the wake: equal for equal target scope and dedupe key, whatever event or process it came from.
    pub wake_id: String,
    /// Whom it is for. With the wake id it is the identity of the delivery: a rendered scope id is not injective.
    pub target: SessionScope,
    /// The session of the target.
    pub target_session_id: String,
    /// The rendered target.
    pub target_scope_id: SessionScopeId,
    /// The process that wakes.
    pub process_id: ProcessId,
    /// The event that wakes.
    pub sequence: Sequence,
    /// Its type.
    pub event_type: String,
    /// What made the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process_caused_by: Option<CausalRef>,
    /// Wakes of one target with one key count as one.
    pub dedupe_key: String,
    /// What the session is told.
    pub input: String,
    /// Time of the event, in ms since the Unix epoch.
    pub created_at_ms: u64,
}

impl ProcessWakeDelivery {
    /// The delivery of an event, if it wakes and a target is known: that of the request, else that of the process.
    pub(crate) fn of(event: &ProcessEvent, record: &ProcessRecord, requested: Option<&SessionScope>) -> Option<Self> {
        let wake = event.semantics.wake.as_ref()?;
        let target = requested.or(record.wake_target.as_deref())?;
        let target_scope_id = target.id();
        let key = serde_json::json!([target_scope_id.as_str(), wake.dedupe_key]);
        Some(Self {
            wake_id: format!("wake:{}", Digest::of_json(&key).ok()?),
            target: target.clone(),
            target_session_id: target.session_id().to_owned(),
            target_scope_id,
            process_id: event.process_id.clone(),
            sequence: event.sequence,
            event_type: event.event_type.to_string(),
            process_caused_by: record.registration.provenance.caused_by.clone(),
            dedupe_key: wake.dedupe_key.clone(),
            input: wake.input.clone(),
            created_at_ms: event.occurred_at_ms,
        })
    }
}
