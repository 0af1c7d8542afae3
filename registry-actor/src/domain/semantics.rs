//! What an event means, worked out once at the append and stored with the event, so that no later reader evaluates a
//! selector again.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::selector::{is_truthy, stringify};
use super::{
    AbandonEvidence, AbandonWriter, CoreEventType, Fence, LeaseOwnerIdentity, Measure, ProcessAwaitOutput,
    ProcessEventType, ProcessFailureClass, ProcessId, ProcessTerminalSpec, ProcessTerminalState, ProcessWakeDedupeKey,
    ProcessWakeSpec, Refusal, SelectorError, Sequence,
};

/// Materialised meaning of one event.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessEventSemantics {
    /// It ends the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<Box<MaterializedTerminal>>,
    /// It wakes a session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wake: Option<Box<MaterializedWake>>,
}

impl ProcessEventSemantics {
    /// Whether it means nothing beyond being stored.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.terminal.is_none() && self.wake.is_none()
    }
}

/// How an event ended its process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MaterializedTerminal {
    /// The declared state.
    pub state: ProcessTerminalState,
    /// The outcome; its variant agrees with the state.
    pub await_output: ProcessAwaitOutput,
    /// By what right it was written.
    pub authority: TerminalAuthority,
}

/// By what right a terminal fact was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TerminalAuthority {
    /// Without a lease.
    Unfenced,
    /// By the lease holder.
    Holder {
        /// The holder.
        owner: LeaseOwnerIdentity,
        /// Its fence.
        fencing_token: Fence,
    },
}

/// How an event wakes a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaterializedWake {
    /// What the session is told.
    pub input: String,
    /// Wakes of one target with one key count as one.
    pub dedupe_key: String,
}

/// Works out what an event of this type with this payload means. A terminal type has an `authority`.
pub(crate) fn materialize(
    declared: &ProcessEventType,
    payload: &Value,
    process_id: &ProcessId,
    sequence: Sequence,
    authority: Option<TerminalAuthority>,
) -> Result<ProcessEventSemantics, Refusal> {
    let terminal = match (&declared.semantics.terminal, authority) {
        (Some(spec), Some(authority)) => Some(Box::new(MaterializedTerminal {
            state: spec.state,
            await_output: terminal_output(declared, spec, payload)?,
            authority,
        })),
        (None, _) | (_, None) => None,
    };
    let wake = match &declared.semantics.wake {
        None => None,
        Some(spec) => {
            wake(spec, payload, process_id, sequence).map_err(|reason| refusal(declared, reason))?.map(Box::new)
        }
    };
    Ok(ProcessEventSemantics { terminal, wake })
}

/// A selector that does not fit, in the words of the whole command.
fn refusal(declared: &ProcessEventType, reason: SelectorError) -> Refusal {
    match reason {
        SelectorError::TooLarge { limit, found } => Refusal::LimitExceeded {
            what: format!("templates of event type `{}`", declared.name),
            measure: Measure::Bytes,
            limit,
            found,
        },
        SelectorError::PointerMissed { .. } => Refusal::SelectorMissed { event_type: declared.name.clone(), reason },
    }
}

/// Only core types parse an outcome: a user's value that happens to look like one stays the value it is.
fn terminal_output(
    declared: &ProcessEventType,
    spec: &ProcessTerminalSpec,
    payload: &Value,
) -> Result<ProcessAwaitOutput, Refusal> {
    let value = match &spec.await_output {
        None => payload.clone(),
        Some(selector) => selector.select(payload).map_err(|reason| refusal(declared, reason))?,
    };
    if CoreEventType::from_name(&declared.name).is_none() {
        return Ok(wrap(spec.state, value));
    }
    let output: ProcessAwaitOutput = serde_json::from_value(value).map_err(|error| Refusal::InvalidPayload {
        event_type: declared.name.clone(),
        reason: format!("await_output is no outcome: {error}"),
    })?;
    if output.terminal_state() == spec.state {
        Ok(output)
    } else {
        Err(Refusal::OutcomeContradictsType {
            event_type: declared.name.clone(),
            declared: spec.state,
            found: output.terminal_state(),
        })
    }
}

fn wrap(state: ProcessTerminalState, value: Value) -> ProcessAwaitOutput {
    match state {
        ProcessTerminalState::Completed => ProcessAwaitOutput::success(value),
        ProcessTerminalState::Failed => ProcessAwaitOutput::Failure {
            class: ProcessFailureClass::Execution,
            code: "process_failed".to_owned(),
            message: stringify(&value),
            raw: Some(value),
            control: None,
        },
        ProcessTerminalState::Cancelled => {
            ProcessAwaitOutput::Cancelled { message: stringify(&value), raw: Some(value), control: None }
        }
        ProcessTerminalState::Abandoned => ProcessAwaitOutput::abandoned(AbandonEvidence {
            writer: AbandonWriter::OwnerDrain,
            owner: None,
            epoch_ms: 0,
            detail: Some(json!({ "selected": value })),
        }),
    }
}

fn wake(
    spec: &ProcessWakeSpec,
    payload: &Value,
    process_id: &ProcessId,
    sequence: Sequence,
) -> Result<Option<MaterializedWake>, SelectorError> {
    // A `when` that points at nothing does not hold: the optional field that it asks about is absent.
    let holds = match spec.when.as_ref().map(|when| when.select(payload)) {
        None => true,
        Some(Ok(value)) => is_truthy(&value),
        Some(Err(SelectorError::PointerMissed { .. })) => false,
        Some(Err(too_large @ SelectorError::TooLarge { .. })) => return Err(too_large),
    };
    if !holds {
        return Ok(None);
    }
    let input = stringify(&spec.input.select(payload)?);
    let dedupe_key = match &spec.dedupe_key {
        ProcessWakeDedupeKey::EventIdentity => format!("{process_id}:{sequence}"),
        ProcessWakeDedupeKey::Selector(selector) => stringify(&selector.select(payload)?),
        ProcessWakeDedupeKey::Const(text) => text.clone(),
    };
    Ok(Some(MaterializedWake { input, dedupe_key }))
}
