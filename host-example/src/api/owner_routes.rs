//! What somebody outside does with a process of their own: append its events, and say how it ended.
//!
//! Commands are this host's own: what is stored of them says which operating system processes are theirs, and is written by nobody else.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode};
use registry_actor::{
    domain::{
        ProcessAwaitOutput, ProcessEventAppendRequest, ProcessFailureClass, ProcessId, ProcessRecord, ReceiptEvent,
        RecoveryDisposition, ReplayKey,
    },
    port::ProcessRegistryExt,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    Api,
    extract::{Json, Path, process_id},
    problem::Problem,
    process_routes::known,
    process_view::ProcessView,
};
use crate::command_process::COMMAND_KIND;

/// Events, in their order.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AppendRequest {
    /// All of them are stored, or none.
    #[schema(min_items = 1, max_items = 1024)]
    events: Vec<AppendedEvent>,
}

/// An event.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AppendedEvent {
    /// Its type, which the process declares.
    #[schema(min_length = 1, max_length = 512)]
    event_type: String,
    /// What it says.
    #[serde(default)]
    #[schema(value_type = Value)]
    payload: Value,
    /// Makes one event out of a request that is sent again; by default each request is one.
    #[schema(min_length = 1, max_length = 512)]
    replay_key: Option<String>,
}

/// What became of the events.
#[derive(Serialize, ToSchema)]
pub(super) struct AppendView {
    /// One for each, in the order of the request.
    events: Vec<AppendedView>,
}

/// What became of an event.
#[derive(Serialize, ToSchema)]
struct AppendedView {
    /// Its place in the process's log.
    sequence: u64,
    /// Whether it was there already.
    replayed: bool,
}

/// Append events to a process
///
/// For whoever runs it elsewhere. The events of a command are its host's.
#[utoipa::path(
    post, path = "/processes/{process_id}/events", tag = "events", operation_id = "append_events",
    params(("process_id" = String, Path)), request_body = AppendRequest,
    responses((status = 200, body = AppendView))
)]
pub(super) async fn append(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Json(request): Json<AppendRequest>,
) -> Result<Json<AppendView>, Problem> {
    let id = process_id(&id)?;
    let events = request.events.into_iter().map(AppendedEvent::request).collect::<Result<Vec<_>, _>>()?;
    if events.is_empty() {
        return Err(Problem::invalid("expected an event in `events`, found none"));
    }
    of_another_owner(&api, &id).await?;
    let receipt = api.host.registry.append_events(&id, events).await?;
    let appended =
        |event: &ReceiptEvent| AppendedView { sequence: event.event().sequence.0, replayed: !event.is_inserted() };
    Ok(Json(AppendView { events: receipt.events.iter().map(appended).collect() }))
}

impl AppendedEvent {
    fn request(self) -> Result<ProcessEventAppendRequest, Problem> {
        let request = ProcessEventAppendRequest::new(self.event_type, self.payload);
        match self.replay_key {
            None => Ok(request),
            Some(key) => {
                let key = ReplayKey::new(key).map_err(|error| Problem::invalid(error.to_string()))?;
                Ok(request.with_replay_key(key))
            }
        }
    }
}

/// How a process ended.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CompleteRequest {
    /// Its outcome.
    outcome: OutcomeRequest,
}

/// An outcome.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum OutcomeRequest {
    /// It succeeded.
    Success {
        /// The result.
        #[serde(default)]
        #[schema(value_type = Value)]
        value: Value,
    },
    /// It failed.
    Failure {
        /// What kind of failure it was.
        class: FailureClassName,
        /// A code for machines.
        code: String,
        /// A text for people.
        message: String,
    },
    /// It was cancelled.
    Cancelled {
        /// A text for people.
        message: String,
    },
}

/// What kind of failure it was.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum FailureClassName {
    /// The request could never have worked.
    InvalidRequest,
    /// What it needs is not there now.
    Unavailable,
    /// It may not.
    PermissionDenied,
    /// It took too long.
    Timeout,
    /// It ran and failed.
    Execution,
    /// A foreign system failed.
    External,
    /// A limit was reached.
    ResourceLimit,
    /// A fault of its host.
    Internal,
}

impl From<FailureClassName> for ProcessFailureClass {
    fn from(name: FailureClassName) -> Self {
        match name {
            FailureClassName::InvalidRequest => Self::InvalidRequest,
            FailureClassName::Unavailable => Self::Unavailable,
            FailureClassName::PermissionDenied => Self::PermissionDenied,
            FailureClassName::Timeout => Self::Timeout,
            FailureClassName::Execution => Self::Execution,
            FailureClassName::External => Self::External,
            FailureClassName::ResourceLimit => Self::ResourceLimit,
            FailureClassName::Internal => Self::Internal,
        }
    }
}

impl From<OutcomeRequest> for ProcessAwaitOutput {
    fn from(outcome: OutcomeRequest) -> Self {
        match outcome {
            OutcomeRequest::Success { value } => Self::success(value),
            OutcomeRequest::Failure { class, code, message } => Self::failure(class.into(), code, message),
            OutcomeRequest::Cancelled { message } => Self::cancelled(message),
        }
    }
}

/// Say how a process ended that is owned elsewhere
///
/// For a process of the disposition `externally_owned`; while somebody holds its lease it is answered 409. The same outcome again
/// changes nothing, and another one is answered 409.
#[utoipa::path(
    post, path = "/processes/{process_id}/complete", tag = "processes", operation_id = "complete_process",
    params(("process_id" = String, Path)), request_body = CompleteRequest,
    responses((status = 200, body = ProcessView))
)]
pub(super) async fn complete(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Json(request): Json<CompleteRequest>,
) -> Result<Json<ProcessView>, Problem> {
    let id = process_id(&id)?;
    let record = of_another_owner(&api, &id).await?;
    let disposition = record.registration.disposition;
    if disposition != RecoveryDisposition::ExternallyOwned {
        let detail = format!("process `{id}` is `{}`: who runs it says how it ends", disposition.label());
        return Err(Problem::new(StatusCode::CONFLICT, "not_externally_owned", detail));
    }
    let record = api.host.registry.complete_process(&id, request.outcome.into()).await?;
    Ok(Json(ProcessView::new(&record)))
}

/// The process, if it is none of this host's own.
async fn of_another_owner(api: &Api, id: &ProcessId) -> Result<Arc<ProcessRecord>, Problem> {
    let record = known(api, id).await?;
    if record.registration.input.kind == COMMAND_KIND {
        let detail = format!("process `{id}` is a command: its host alone writes its events");
        return Err(Problem::new(StatusCode::CONFLICT, "owned_by_host", detail));
    }
    Ok(record)
}
