//! Processes that tests register.

use registry_actor::domain::{
    LeaseOwnerIdentity, LeaseOwnerLiveness, ProcessEventAppendRequest, ProcessEventType, ProcessId, ProcessInput,
    ProcessRegistration, RecoveryDisposition,
};
use serde_json::json;

/// An id.
///
/// # Panics
/// If the text is no id.
#[must_use]
pub fn process_id(text: &str) -> ProcessId {
    ProcessId::new(text).expect("tests use proper ids")
}

/// A registration with one extra event type, `note`, that accepts every payload.
#[must_use]
pub fn registration(id: &ProcessId) -> ProcessRegistration {
    let input = ProcessInput::new("test", json!({}));
    ProcessRegistration::new(id.clone(), input, RecoveryDisposition::Rerunnable)
        .with_extra_event_types([ProcessEventType::plain("note")])
}

/// An append of a `note`.
#[must_use]
pub fn note(number: u64) -> ProcessEventAppendRequest {
    ProcessEventAppendRequest::new("note", json!({ "number": number }))
}

/// An owner of whose death nothing can be proved.
#[must_use]
pub fn opaque_owner(name: &str) -> LeaseOwnerIdentity {
    LeaseOwnerIdentity {
        owner_id: name.to_owned(),
        incarnation_id: "1".to_owned(),
        liveness: LeaseOwnerLiveness::Opaque,
    }
}
