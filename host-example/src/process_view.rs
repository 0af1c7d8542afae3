//! A process as the reading verbs show it.
//!
//! It owns the names of the JSON fields and the words for people. It does not know which verb asks.

use std::path::Path;

use registry_actor::domain::{ProcessLease, ProcessRecord, WaitKind, WaitState};
use serde_json::{Value, json};

use crate::{attempt::summary, time_text};

/// The process as one JSON object.
pub(crate) fn to_json(record: &ProcessRecord, store: &Path) -> Value {
    let registration = &record.registration;
    json!({
        "process_id": registration.id,
        "status": record.status.label(),
        "disposition": registration.disposition.label(),
        "kind": registration.input.kind,
        "label": registration.identity.label,
        "tags": registration.tags,
        "generation": record.generation,
        "created_at_ms": record.created_at_ms,
        "updated_at_ms": record.updated_at_ms,
        "terminal_at_ms": record.terminal_at_ms,
        "first_started": record.first_started,
        "attempts": record.attempts.begun,
        "last_failure": record.attempts.failure,
        "retry": registration.retry,
        "deadline_at_ms": record.deadline_at_ms(),
        "parent": registration.parent,
        "wait": record.wait,
        "external_ref": record.external_ref,
        "abandon_request": record.abandon_request,
        "input": registration.input.payload,
        "outcome": record.status.await_output(),
        "store": store.to_string_lossy(),
    })
}

/// The process as named facts.
pub(crate) fn to_facts(
    record: &ProcessRecord,
    lease: Option<&ProcessLease>,
    store: &Path,
) -> Vec<(&'static str, String)> {
    let registration = &record.registration;
    let mut facts = vec![
        ("process", registration.id.to_string()),
        ("status", record.status.await_output().map_or_else(|| record.status.label().to_owned(), summary)),
        ("disposition", registration.disposition.to_string()),
        ("command", label(record).to_owned()),
        ("created", time_text::second(record.created_at_ms)),
    ];
    if let Some(started) = &record.first_started {
        let (time, owner) = (time_text::second(started.started_at_ms), &started.owner.owner_id);
        facts.push(("started", format!("{time} by {owner}")));
    }
    if record.attempts.begun > 0 {
        let of = registration.retry.map_or_else(String::new, |retry| format!(" of {}", retry.max_attempts));
        facts.push(("attempts", format!("{}{of}", record.attempts.begun)));
    }
    if let Some(failed) = &record.attempts.failure {
        let message = failed.failure.message.escape_debug();
        facts.push(("last failure", format!("attempt {}: {message}", failed.attempt)));
    }
    if let Some(deadline_at_ms) = record.deadline_at_ms() {
        facts.push(("deadline", time_text::second(deadline_at_ms)));
    }
    if let Some(parent) = &registration.parent {
        facts.push(("parent", parent.process_id.to_string()));
    }
    if !registration.tags.is_empty() {
        facts.push(("tags", registration.tags.iter().map(String::as_str).collect::<Vec<_>>().join(", ")));
    }
    if record.generation > 1 {
        facts.push(("generation", record.generation.to_string()));
    }
    if let Some(wait) = &record.wait {
        facts.push(("waits", wait_in_words(wait)));
    }
    if let Some(external_ref) = &record.external_ref {
        facts.push(("external ref", format!("{}/{}", external_ref.backend, external_ref.id)));
    }
    if let Some(request) = &record.abandon_request {
        let (time, by) = (time_text::second(request.requested_at_ms), &request.requested_by);
        let reason = request.reason.as_ref().map_or_else(String::new, |reason| format!(": {}", reason.escape_debug()));
        facts.push(("abandon request", format!("{time} by {by}{reason}")));
    }
    if let Some(terminal_at_ms) = record.terminal_at_ms {
        facts.push(("ended", time_text::second(terminal_at_ms)));
    }
    if let Some(lease) = lease {
        let (owner, expiry) = (&lease.owner.owner_id, time_text::second(lease.expires_at_epoch_ms));
        facts.push(("lease", format!("{owner}, until {expiry}")));
    }
    if let Some(outcome) = record.status.await_output() {
        facts.push(("outcome", json!(outcome).to_string()));
    }
    facts.push(("store", store.display().to_string()));
    facts
}

/// What a process says that it waits for.
pub(crate) fn wait_in_words(wait: &WaitState) -> String {
    let since = time_text::second(wait.since_ms);
    match &wait.kind {
        WaitKind::Signal { name, ordinal, .. } => format!("for signal {name} #{ordinal} since {since}"),
        other => format!("for {} since {since}", json!(other)),
    }
}

/// What people call it.
pub(crate) fn label(record: &ProcessRecord) -> &str {
    let registration = &record.registration;
    registration.identity.label.as_deref().unwrap_or(&registration.identity.kind)
}
