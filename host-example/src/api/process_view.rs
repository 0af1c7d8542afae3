//! A process as the API shows it.
//!
//! It owns the names of the fields, which do not change, and which of them are lists and objects of the registry's own.

use registry_actor::domain::{ProcessLease, ProcessRecord};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

/// A process, as its log says.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct ProcessView {
    /// Its id.
    pub(crate) process_id: String,
    /// `running`, `completed`, `failed`, `cancelled` or `abandoned`.
    pub(crate) status: String,
    /// What recovery does with it: `rerunnable`, `owner_bound` or `externally_owned`.
    pub(crate) disposition: String,
    /// The kind of executor that runs it.
    pub(crate) kind: String,
    /// What people call it.
    pub(crate) label: Option<String>,
    /// The words by which lists find it.
    pub(crate) tags: Vec<String>,
    /// How often its id has lived, this life included.
    pub(crate) generation: u32,
    /// When it was registered, in ms since the Unix epoch.
    pub(crate) created_at_ms: u64,
    /// When it last changed, in ms since the Unix epoch.
    pub(crate) updated_at_ms: u64,
    /// When it ended, in ms since the Unix epoch.
    pub(crate) terminal_at_ms: Option<u64>,
    /// Who started it, and when.
    #[schema(value_type = Option<Object>)]
    pub(crate) first_started: Option<Value>,
    /// How many attempts were begun.
    pub(crate) attempts: u32,
    /// The last attempt that failed, and why.
    #[schema(value_type = Option<Object>)]
    pub(crate) last_failure: Option<Value>,
    /// How often it is tried, and with which pauses.
    #[schema(value_type = Option<Object>)]
    pub(crate) retry: Option<Value>,
    /// When it has to have ended, in ms since the Unix epoch.
    pub(crate) deadline_at_ms: Option<u64>,
    /// The process on whose behalf it runs, and what the end of that means to it.
    #[schema(value_type = Option<Object>)]
    pub(crate) parent: Option<Value>,
    /// What it says that it waits for.
    #[schema(value_type = Option<Object>)]
    pub(crate) wait: Option<Value>,
    /// What it is in another system.
    #[schema(value_type = Option<Object>)]
    pub(crate) external_ref: Option<Value>,
    /// Who wants it abandoned, and why.
    #[schema(value_type = Option<Object>)]
    pub(crate) abandon_request: Option<Value>,
    /// What its executor was given.
    #[schema(value_type = Value)]
    pub(crate) input: Value,
    /// How it ended.
    #[schema(value_type = Option<Object>)]
    pub(crate) outcome: Option<Value>,
    /// Who holds it just now; only where one process is shown.
    #[schema(value_type = Option<Object>)]
    pub(crate) lease: Option<Value>,
}

impl ProcessView {
    /// The view of a record.
    pub(crate) fn new(record: &ProcessRecord) -> Self {
        let registration = &record.registration;
        Self {
            process_id: registration.id.to_string(),
            status: record.status.label().to_owned(),
            disposition: registration.disposition.label().to_owned(),
            kind: registration.input.kind.clone(),
            label: registration.identity.label.clone(),
            tags: registration.tags.iter().cloned().collect(),
            generation: record.generation,
            created_at_ms: record.created_at_ms,
            updated_at_ms: record.updated_at_ms,
            terminal_at_ms: record.terminal_at_ms,
            first_started: object(record.first_started.as_ref()),
            attempts: record.attempts.begun,
            last_failure: object(record.attempts.failure.as_ref()),
            retry: object(registration.retry.as_ref()),
            deadline_at_ms: record.deadline_at_ms(),
            parent: object(registration.parent.as_ref()),
            wait: object(record.wait.as_ref()),
            external_ref: object(record.external_ref.as_ref()),
            abandon_request: object(record.abandon_request.as_ref()),
            input: registration.input.payload.clone(),
            outcome: object(record.status.await_output()),
            lease: None,
        }
    }

    /// The same with its holder. The token of a lease is what its holder writes by, and is shown to nobody.
    pub(crate) fn held_by(self, lease: Option<&ProcessLease>) -> Self {
        let lease = lease.map(|lease| {
            json!({
                "owner": lease.owner,
                "claimed_at_ms": lease.claimed_at_epoch_ms,
                "expires_at_ms": lease.expires_at_epoch_ms,
            })
        });
        Self { lease, ..self }
    }
}

fn object<T: Serialize>(value: Option<T>) -> Option<Value> {
    value.map(|value| json!(value))
}
