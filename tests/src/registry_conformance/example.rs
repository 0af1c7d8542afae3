//! What the cases register, append and end with.

use std::sync::Arc;

use registry_actor::actor::own_liveness;
use registry_actor::domain::{
    LeaseOwnerIdentity, LeaseOwnerLiveness, ProcessAwaitOutput, ProcessEvent, ProcessEventAppendRequest,
    ProcessEventSemanticsSpec, ProcessEventType, ProcessHandleDescriptor, ProcessId, ProcessInput, ProcessLease,
    ProcessListFilter, ProcessRecord, ProcessRegistration, ProcessStatusFilter, ProcessValueSelector,
    ProcessWakeDedupeKey, ProcessWakeSpec, RecoveryDisposition, ReplayKey, SessionScope,
};
use registry_actor::port::ProcessRegistryExt;
use serde_json::{Value, json};

pub(super) use crate::example_process::{note, opaque_owner, process_id, registration};

use super::stage::FoldChecked;

/// Long enough for every case.
pub(super) const MINUTE_MS: u64 = 60_000;

pub(super) async fn registered(registry: &FoldChecked, id: &str) -> ProcessId {
    let id = process_id(id);
    registry.register_process(registration(&id)).await.expect("a registration");
    id
}

pub(super) async fn completed(registry: &FoldChecked, id: &str) -> ProcessId {
    let id = registered(registry, id).await;
    registry.complete_process(&id, success(1)).await.expect("an outcome");
    id
}

/// A registration that declares these types too.
pub(super) fn declaring(id: &ProcessId, types: impl IntoIterator<Item = ProcessEventType>) -> ProcessRegistration {
    registration(id).with_extra_event_types(types)
}

pub(super) fn disposed(id: &ProcessId, disposition: RecoveryDisposition) -> ProcessRegistration {
    ProcessRegistration::new(id.clone(), ProcessInput::new("test", json!({})), disposition)
        .with_extra_event_types([ProcessEventType::plain("note")])
}

/// A type whose events wake with what is at `/text`.
pub(super) fn waking(name: &str) -> ProcessEventType {
    waking_with(name, pointer("/text"), ProcessWakeDedupeKey::EventIdentity)
}

pub(super) fn waking_with(
    name: &str,
    input: ProcessValueSelector,
    dedupe_key: ProcessWakeDedupeKey,
) -> ProcessEventType {
    ProcessEventType {
        semantics: ProcessEventSemanticsSpec {
            terminal: None,
            wake: Some(ProcessWakeSpec { when: None, input, dedupe_key }),
        },
        ..ProcessEventType::plain(name)
    }
}

/// A process that declares `ping`, whose events wake this target.
pub(super) async fn pinging(registry: &FoldChecked, id: &str, target: &SessionScope) -> ProcessId {
    let id = process_id(id);
    let registration = ProcessRegistration { wake_target: Some(target.clone()), ..declaring(&id, [waking("ping")]) };
    registry.register_process(registration).await.expect("a registration");
    id
}

pub(super) fn ping(text: &str) -> ProcessEventAppendRequest {
    ProcessEventAppendRequest::new("ping", json!({ "text": text }))
}

pub(super) fn pointer(pointer: &str) -> ProcessValueSelector {
    ProcessValueSelector::Pointer(pointer.to_owned())
}

pub(super) fn keyed(event_type: &str, payload: Value, key: &str) -> ProcessEventAppendRequest {
    ProcessEventAppendRequest::new(event_type, payload).with_replay_key(replay_key(key))
}

pub(super) fn replay_key(key: &str) -> ReplayKey {
    ReplayKey::new(key).expect("tests use proper keys")
}

pub(super) fn success(value: u64) -> ProcessAwaitOutput {
    ProcessAwaitOutput::success(json!({ "value": value }))
}

pub(super) fn session(id: &str) -> SessionScope {
    SessionScope::session(id)
}

pub(super) fn labelled(label: &str) -> ProcessHandleDescriptor {
    ProcessHandleDescriptor { kind: None, label: Some(label.to_owned()) }
}

pub(super) fn any() -> ProcessListFilter {
    ProcessListFilter::any()
}

pub(super) fn of_status(status: ProcessStatusFilter) -> ProcessListFilter {
    ProcessListFilter::of_status(status)
}

/// An owner that is an operating-system process of this machine, boot and namespace.
pub(super) fn local_owner(name: &str, process_start: &str) -> LeaseOwnerIdentity {
    let mut liveness = own_liveness();
    let LeaseOwnerLiveness::LocalProcess { process_start: start, .. } = &mut liveness else {
        panic!("this system tells of processes, got {liveness:?}")
    };
    process_start.clone_into(start);
    LeaseOwnerIdentity { owner_id: name.to_owned(), incarnation_id: "1".to_owned(), liveness }
}

/// The same on another machine.
pub(super) fn on_another_machine(owner: LeaseOwnerIdentity) -> LeaseOwnerIdentity {
    with_liveness(owner, |host_id, _| "another machine".clone_into(host_id))
}

/// The same in another PID namespace of this machine, or in one that is not known.
pub(super) fn in_namespace(owner: LeaseOwnerIdentity, of: impl FnOnce(u64) -> Option<u64>) -> LeaseOwnerIdentity {
    with_liveness(owner, |_, pid_namespace| *pid_namespace = pid_namespace.and_then(of))
}

fn with_liveness(
    mut owner: LeaseOwnerIdentity,
    change: impl FnOnce(&mut String, &mut Option<u64>),
) -> LeaseOwnerIdentity {
    if let LeaseOwnerLiveness::LocalProcess { host_id, pid_namespace, .. } = &mut owner.liveness {
        change(host_id, pid_namespace);
    }
    owner
}

/// An owner that is provably dead: this very pid lives, and began at another time than the owner's.
pub(super) fn dead_owner(name: &str) -> LeaseOwnerIdentity {
    local_owner(name, "0")
}

pub(super) async fn claimed(
    registry: &FoldChecked,
    id: &ProcessId,
    owner: LeaseOwnerIdentity,
    ttl_ms: u64,
) -> ProcessLease {
    let outcome = registry.claim_process_lease(id, owner, ttl_ms).await.expect("an answer to the claim");
    outcome.acquired().expect("the lease is free")
}

pub(super) fn ids(records: &[Arc<ProcessRecord>]) -> Vec<String> {
    records.iter().map(|record| record.id().to_string()).collect()
}

pub(super) fn sequences(events: &[Arc<ProcessEvent>]) -> Vec<u64> {
    events.iter().map(|event| event.sequence.0).collect()
}
