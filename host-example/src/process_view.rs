//! A process as the verbs show it, whether it was read from a store or told by a host.
//!
//! It owns the words for people, and what JSON says beside the fields of the interface: where the process is. It does not know which
//! verb asks.

use registry_actor::domain::{ProcessAwaitOutput, WaitKind, WaitState};
use serde_json::{Value, json};

use crate::{api::process_view::ProcessView, attempt::summary, process_source::ProcessSource, time_text};

/// The process as one JSON object.
pub(crate) fn to_json(process: &ProcessView, source: &ProcessSource) -> Value {
    let mut shown = json!(process);
    let (name, value) = source.origin();
    shown[name] = value;
    shown
}

/// The outcome of a process that has ended, as far as this version knows it.
pub(crate) fn outcome_of(process: &ProcessView) -> Option<ProcessAwaitOutput> {
    process.outcome.clone().and_then(|outcome| serde_json::from_value(outcome).ok())
}

/// The status in a few words.
pub(crate) fn status_in_words(process: &ProcessView) -> String {
    outcome_of(process).map_or_else(|| process.status.clone(), |outcome| summary(&outcome))
}

/// The process as named facts.
pub(crate) fn to_facts(process: &ProcessView, source: &ProcessSource) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("process", process.process_id.clone()),
        ("status", status_in_words(process)),
        ("disposition", process.disposition.clone()),
        ("command", label(process).to_owned()),
        ("created", time_text::second(process.created_at_ms)),
    ];
    if let Some(started) = &process.first_started {
        facts.push((
            "started",
            format!("{} by {}", time(&started["started_at_ms"]), words(&started["owner"]["owner_id"])),
        ));
    }
    if process.attempts > 0 {
        let of =
            process.retry.as_ref().map_or_else(String::new, |retry| format!(" of {}", words(&retry["max_attempts"])));
        facts.push(("attempts", format!("{}{of}", process.attempts)));
    }
    if let Some(failed) = &process.last_failure {
        let message = words(&failed["failure"]["message"]);
        facts.push(("last failure", format!("attempt {}: {}", words(&failed["attempt"]), message.escape_debug())));
    }
    if let Some(deadline_at_ms) = process.deadline_at_ms {
        facts.push(("deadline", time_text::second(deadline_at_ms)));
    }
    if let Some(parent) = &process.parent {
        facts.push(("parent", words(&parent["process_id"])));
    }
    if !process.tags.is_empty() {
        facts.push(("tags", process.tags.join(", ")));
    }
    if process.generation > 1 {
        facts.push(("generation", process.generation.to_string()));
    }
    if let Some(wait) = &process.wait {
        let known = serde_json::from_value::<WaitState>(wait.clone());
        facts.push(("waits", known.map_or_else(|_| wait.to_string(), |wait| wait_in_words(&wait))));
    }
    if let Some(external_ref) = &process.external_ref {
        facts.push(("external ref", format!("{}/{}", words(&external_ref["backend"]), words(&external_ref["id"]))));
    }
    if let Some(request) = &process.abandon_request {
        let reason = match &request["reason"] {
            Value::Null => String::new(),
            reason => format!(": {}", words(reason).escape_debug()),
        };
        let (at, by) = (time(&request["requested_at_ms"]), words(&request["requested_by"]));
        facts.push(("abandon request", format!("{at} by {by}{reason}")));
    }
    if let Some(terminal_at_ms) = process.terminal_at_ms {
        facts.push(("ended", time_text::second(terminal_at_ms)));
    }
    if let Some(lease) = &process.lease {
        facts.push((
            "lease",
            format!("{}, until {}", words(&lease["owner"]["owner_id"]), time(&lease["expires_at_ms"])),
        ));
    }
    if let Some(outcome) = &process.outcome {
        facts.push(("outcome", outcome.to_string()));
    }
    facts.push((source.origin().0, source.to_string()));
    facts
}

/// A text without its quotes, and anything else as it is.
fn words(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn time(value: &Value) -> String {
    value.as_u64().map_or_else(|| words(value), time_text::second)
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
pub(crate) fn label(process: &ProcessView) -> &str {
    process.label.as_deref().unwrap_or(&process.kind)
}
