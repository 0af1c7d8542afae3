//! What declarations mean: registrations, schemas, selectors and keys, as far as generated histories use them.

use std::collections::BTreeSet;
use std::sync::Arc;

use registry_actor::domain::{
    AbandonEvidence, AbandonWriter, EnvironmentRule, ProcessAwaitOutput, ProcessEventAppendRequest,
    ProcessEventSemanticsSpec, ProcessEventType, ProcessFailureClass, ProcessId, ProcessRecord, ProcessRegistration,
    ProcessTerminalSpec, ProcessTerminalState, ProcessValueSelector, RecoveryDisposition, WaitState,
};
use serde_json::{Value, json};

use super::{INTERNAL, No};

/// Types that every process has, in the order in which they are added; the state that they end it in.
const CORE: [(&str, Option<ProcessTerminalState>); 7] = [
    ("process.cancel_requested", None),
    ("process.waiting", None),
    ("process.resumed", None),
    ("process.completed", Some(ProcessTerminalState::Completed)),
    ("process.failed", Some(ProcessTerminalState::Failed)),
    ("process.cancelled", Some(ProcessTerminalState::Cancelled)),
    ("process.abandoned", Some(ProcessTerminalState::Abandoned)),
];

fn core_type(name: &str) -> Option<ProcessEventType> {
    let (name, state) = CORE.into_iter().find(|(core, _)| *core == name)?;
    let await_output = Some(ProcessValueSelector::Pointer("/await_output".to_owned()));
    let terminal = state.map(|state| ProcessTerminalSpec { state, await_output });
    Some(ProcessEventType {
        semantics: ProcessEventSemanticsSpec { terminal, wake: None },
        ..ProcessEventType::plain(name)
    })
}

/// The registration with the core types added.
pub(super) fn prepared(registration: &ProcessRegistration) -> Result<ProcessRegistration, No> {
    let mut prepared = registration.clone();
    for (name, _) in CORE {
        if !prepared.event_types.iter().any(|declared| declared.name == name) {
            prepared.event_types.extend(core_type(name));
        }
    }
    let is_kept = prepared.retry.is_none_or(|retry| {
        prepared.disposition == RecoveryDisposition::Rerunnable
            && retry.max_attempts > 0
            && retry.initial_backoff_ms <= retry.max_backoff_ms
    });
    let is_own_parent = prepared.parent.as_ref().is_some_and(|parent| parent.process_id == prepared.id);
    if !is_kept || is_own_parent || prepared.deadline_ms == Some(0) {
        return Err(No::new("invalid execution terms"));
    }
    match (prepared.input.env, &prepared.env_ref) {
        (EnvironmentRule::Required, None) => return Err(No::new("environment required")),
        (EnvironmentRule::Forbidden, Some(_)) => return Err(No::new("environment forbidden")),
        _ => {}
    }
    if prepared.tags.iter().any(|tag| tag.trim().is_empty()) {
        return Err(No::new("empty name"));
    }
    let mut names = BTreeSet::new();
    for declared in &prepared.event_types {
        if declared.name.trim().is_empty() {
            return Err(No::new("empty event type"));
        }
        if !names.insert(&declared.name) {
            return Err(No::new("duplicate event type"));
        }
        let is_redeclared = core_type(&declared.name).is_some_and(|core| core != *declared);
        if is_redeclared || INTERNAL.contains(&declared.name.as_str()) {
            return Err(No::new("reserved event type"));
        }
        if let Some(terminal) = &declared.semantics.terminal
            && terminal.state != ProcessTerminalState::Completed
            && terminal.await_output.is_none()
        {
            return Err(No::new("await output undeclared"));
        }
    }
    Ok(prepared)
}

/// What two registrations are compared by: the order of their types does not count.
pub(super) fn canonical(registration: &ProcessRegistration) -> ProcessRegistration {
    let mut canonical = registration.clone();
    canonical.event_types.sort_by(|left, right| left.name.cmp(&right.name));
    canonical
}

pub(super) fn select(selector: &ProcessValueSelector, payload: &Value) -> Result<Value, No> {
    match selector {
        ProcessValueSelector::Payload => Ok(payload.clone()),
        ProcessValueSelector::Const(value) => Ok(value.clone()),
        ProcessValueSelector::Present(pointer) => Ok(Value::Bool(payload.pointer(pointer).is_some())),
        ProcessValueSelector::Pointer(pointer) => {
            payload.pointer(pointer).cloned().ok_or_else(|| No::new("selector missed"))
        }
        ProcessValueSelector::Template { template, fields } => {
            let mut texts = Vec::new();
            for (name, field) in fields {
                texts.push((format!("{{{name}}}"), text_of(&select(field, payload)?)));
            }
            // One pass over the template itself: what was put in is not looked at again.
            let (mut rendered, mut rest) = (String::new(), template.as_str());
            while let Some(first) = rest.chars().next() {
                if let Some((name, text)) = texts.iter().find(|(name, _)| rest.starts_with(name.as_str())) {
                    rendered += text;
                    rest = &rest[name.len()..];
                } else {
                    rendered.push(first);
                    rest = &rest[first.len_utf8()..];
                }
            }
            Ok(Value::String(rendered))
        }
    }
}

pub(super) fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

pub(super) fn is_truthy(value: &Value) -> bool {
    let is_falsy = [json!(null), json!(false), json!(""), json!([]), json!({})].contains(value);
    !is_falsy
}

/// As much of JSON Schema as generated types declare.
pub(super) fn fits(schema: &Value, payload: &Value) -> bool {
    let by_type = match schema["type"].as_str() {
        Some("object") => payload.is_object(),
        Some("integer") => payload.is_i64() || payload.is_u64(),
        Some(other) => panic!("the model does not know the type {other}"),
        None => true,
    };
    let required = schema["required"].as_array().into_iter().flatten();
    let properties = schema["properties"].as_object().into_iter().flatten();
    by_type
        && required.into_iter().all(|name| payload.get(name.as_str().unwrap_or_default()).is_some())
        && properties.into_iter().all(|(name, schema)| payload.get(name).is_none_or(|value| fits(schema, value)))
}

/// The outcome that a terminal event carries. Only core types read one; what others select is wrapped.
pub(super) fn outcome(name: &str, spec: &ProcessTerminalSpec, payload: &Value) -> Result<ProcessAwaitOutput, No> {
    let selected = match &spec.await_output {
        Some(selector) => select(selector, payload)?,
        None => payload.clone(),
    };
    if core_type(name).is_some() {
        let outcome: ProcessAwaitOutput = serde_json::from_value(selected).map_err(|_| No::new("invalid payload"))?;
        let agrees = outcome.terminal_state() == spec.state;
        return if agrees { Ok(outcome) } else { Err(No::new("outcome contradicts type")) };
    }
    Ok(match spec.state {
        ProcessTerminalState::Completed => ProcessAwaitOutput::Success { value: selected, control: None },
        ProcessTerminalState::Failed => ProcessAwaitOutput::Failure {
            class: ProcessFailureClass::Execution,
            code: "process_failed".to_owned(),
            message: text_of(&selected),
            raw: Some(selected),
            control: None,
        },
        ProcessTerminalState::Cancelled => {
            ProcessAwaitOutput::Cancelled { message: text_of(&selected), raw: Some(selected), control: None }
        }
        ProcessTerminalState::Abandoned => ProcessAwaitOutput::Abandoned {
            evidence: Box::new(AbandonEvidence {
                writer: AbandonWriter::OwnerDrain,
                owner: None,
                epoch_ms: 0,
                detail: Some(json!({ "selected": selected })),
            }),
            control: None,
        },
    })
}

/// A runner may say itself that it waits or goes on.
pub(super) fn move_wait(record: &mut ProcessRecord, event_type: &str, payload: &Value) {
    match event_type {
        "process.waiting" => {
            if let Ok(wait) = serde_json::from_value::<WaitState>(payload.clone()) {
                record.wait = Some(Arc::new(wait));
            }
        }
        "process.resumed" => record.wait = None,
        _ => {}
    }
}

/// Whether a key belongs to a fact of another type than the request's.
pub(super) fn is_reserved(id: &ProcessId, key: &str, event_type: &str) -> bool {
    let Some(fact) = key.strip_prefix(&format!("process:{id}:")) else { return false };
    let names = |name: &str| fact == name || fact.starts_with(&format!("{name}:"));
    match fact.strip_prefix("terminal:") {
        Some(of) => of != event_type,
        None if names("cancel_requested") => event_type != "process.cancel_requested",
        None => INTERNAL.iter().any(|internal| names(internal.trim_start_matches("process."))),
    }
}

/// The append that a completion is.
pub(super) fn completion(id: &ProcessId, output: &ProcessAwaitOutput) -> ProcessEventAppendRequest {
    let event_type = format!("process.{}", output.terminal_state().label());
    let key = format!("process:{id}:terminal:{event_type}");
    ProcessEventAppendRequest::new(event_type, json!({ "await_output": output }))
        .with_replay_key(key.parse().expect("short ids"))
}

/// The append that a cancel request is, made by the builder that callers use: which digest stands for a reason is the
/// registry's affair.
pub(super) fn cancel_request(id: &ProcessId, reason: Option<&str>) -> ProcessEventAppendRequest {
    ProcessEventAppendRequest::cancel_requested(id, reason)
}
