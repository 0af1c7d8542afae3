//! Waiting: for an outcome, or for an event.

#![expect(unused_qualifications, reason = "the macro that describes routes writes paths in full")]

use std::{sync::Arc, time::Duration};

use awaiter::{AwaitError, ProcessWait, WaitAnswer};
use axum::{extract::State, http::StatusCode};
use registry_actor::domain::Sequence;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Api,
    extract::{Json, Path, Query, process_id},
    problem::Problem,
    process_routes::known,
    process_view::ProcessView,
};
use crate::event_view::EventView;

/// The longest wait of one request: what lies between us may give up silent connections.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What is awaited.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WaitQuery {
    /// The first event of this type after `after`; `*` is one of any type. Without it, the outcome.
    event_type: Option<String>,
    /// The place in the log after which an event counts, exclusive.
    after: Option<u64>,
    /// How long to wait, in ms.
    #[param(minimum = 0, maximum = 60000)]
    within_ms: Option<u64>,
}

/// How a wait ended.
#[derive(Serialize, ToSchema)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub(super) enum WaitView {
    /// The process has ended, which was awaited.
    Completed {
        /// The process, with its outcome.
        process: Box<ProcessView>,
    },
    /// The event happened.
    Happened {
        /// The event.
        event: EventView,
    },
    /// The process ended without the event.
    Ended {
        /// The process, with its outcome.
        process: Box<ProcessView>,
    },
    /// It had not happened when the time was up. Ask again.
    Deadline,
}

/// Wait for the outcome of a process, or for an event
///
/// Nothing is polled: the answer comes with the commit.
#[utoipa::path(
    get, path = "/processes/{process_id}/wait", tag = "waiting", operation_id = "wait_for_process",
    params(("process_id" = String, Path), WaitQuery),
    responses((status = 200, body = WaitView))
)]
pub(super) async fn wait(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Query(query): Query<WaitQuery>,
) -> Result<Json<WaitView>, Problem> {
    let id = process_id(&id)?;
    known(&api, &id).await?;
    let within = Duration::from_millis(query.within_ms.unwrap_or(30_000));
    if within > LONGEST_WAIT {
        let detail =
            format!("expected `within_ms` of at most {}, found {}", LONGEST_WAIT.as_millis(), within.as_millis());
        return Err(Problem::invalid(detail));
    }
    let after = Sequence(query.after.unwrap_or(0));
    let wait = match query.event_type.as_deref() {
        None if query.after.is_some() => return Err(Problem::invalid("`after` needs an `event_type`")),
        None => ProcessWait::outcome(id),
        Some("*") => ProcessWait::any_event(id, after),
        Some(event_type) => ProcessWait::event(id, event_type, after),
    };
    let answer = tokio::select! {
        answer = api.awaiter.wait(&wait, Some(within)) => answer.map_err(problem_of)?,
        () = api.stopped() => return Err(stopping()),
    };
    Ok(Json(match answer {
        WaitAnswer::Completed { record } => WaitView::Completed { process: Box::new(ProcessView::new(&record)) },
        WaitAnswer::Happened { event } => WaitView::Happened { event: EventView::new(&event) },
        WaitAnswer::Ended { record } => WaitView::Ended { process: Box::new(ProcessView::new(&record)) },
        WaitAnswer::Deadline => WaitView::Deadline,
        WaitAnswer::NoLongerRetained { tombstone } => {
            return Err(problem_of(AwaitError::NoLongerRetained { tombstone }));
        }
        answer => return Err(Problem::internal(format!("a wait ended with {answer:?}"))),
    }))
}

fn stopping() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "this host is going down").retry_after(1)
}

fn problem_of(error: AwaitError) -> Problem {
    let detail = error.to_string();
    match error {
        AwaitError::Registry(error) => error.into(),
        AwaitError::NoLongerRetained { .. } => Problem::new(StatusCode::GONE, "pruned", detail),
        AwaitError::SourceClosed { .. } => stopping(),
        _ => Problem::internal(detail),
    }
}
