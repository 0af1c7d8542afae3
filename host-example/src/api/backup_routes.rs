//! Backups: a copy of the store, while the host goes on.

use std::{ops::ControlFlow, path::PathBuf, sync::Arc};

use axum::{extract::State, http::StatusCode};
use registry_actor::log::BackupCheck;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Api, extract::Json, problem::Problem};
use crate::{
    failure::{Failure, FailureKind},
    store::StoreReader,
};

/// Where a backup goes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BackupRequest {
    /// The file to make, at the host; absolute, and not there yet.
    #[schema(pattern = "^/")]
    to: String,
    /// Whether the copy is checked. By default it is.
    verify: Option<bool>,
}

/// A backup.
#[derive(Serialize, ToSchema)]
pub(super) struct BackupView {
    /// The file.
    path: String,
    /// How many pages of the store it has.
    pages: u64,
    /// What was checked; absent if nothing was.
    checked: Option<CheckedView>,
}

/// What was checked.
#[derive(Serialize, ToSchema)]
struct CheckedView {
    /// Processes.
    processes: u64,
    /// Their events, the registrations included.
    events: u64,
}

/// Back up the store
///
/// Answers when the copy is complete, checked and synced; there is no file before that. Who goes away before takes the request back.
#[utoipa::path(
    post, path = "/backup", tag = "store", operation_id = "back_up", request_body = BackupRequest,
    responses((status = 201, body = BackupView))
)]
pub(super) async fn back_up(
    State(api): State<Arc<Api>>,
    Json(request): Json<BackupRequest>,
) -> Result<(StatusCode, Json<BackupView>), Problem> {
    let to = PathBuf::from(&request.to);
    if !to.is_absolute() || request.to.contains('\0') {
        return Err(Problem::invalid(format!("expected an absolute path in `to`, found {:?}", request.to)));
    }
    let check = if request.verify.unwrap_or(true) { BackupCheck::Everything } else { BackupCheck::Nothing };
    let stopping = api.stopping.clone();
    let go_on = move |_| if *stopping.borrow() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let store = StoreReader::open(&api.config.store).map_err(problem_of)?;
    let report = store.backup(&to, check, go_on).await.map_err(problem_of)?;
    let view = BackupView {
        path: report.path.display().to_string(),
        pages: report.pages,
        checked: report.checked.map(|checked| CheckedView { processes: checked.processes, events: checked.events }),
    };
    Ok((StatusCode::CREATED, Json(view)))
}

fn problem_of(failure: Failure) -> Problem {
    let detail = failure.to_string();
    match failure.kind() {
        FailureKind::CannotCreate => Problem::new(StatusCode::CONFLICT, "cannot_create", detail),
        FailureKind::Data => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "damaged", detail),
        FailureKind::Temporary => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "stopped", detail).retry_after(5),
        FailureKind::Io => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "not_copied", detail),
        _ => Problem::internal(detail),
    }
}
