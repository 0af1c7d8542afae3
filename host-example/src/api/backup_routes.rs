//! Backups: a copy of the store, while the host goes on.

use std::{
    fs::DirBuilder,
    io::ErrorKind,
    ops::ControlFlow,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{Extension, extract::State, http::StatusCode};
use registry_actor::log::BackupCheck;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Api, access::LocalPeer, extract::Json, problem::Problem};
use crate::{
    failure::{Failure, FailureKind},
    serve::config::beside,
    store::failure_of_backup,
};

/// Where a backup goes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BackupRequest {
    /// The file to make, which is not there yet: a plain name, under which it is made in the directory beside the store that ends in
    /// `.backups`. Who asks through the socket may give an absolute path instead.
    #[schema(pattern = r"^/|^[^./\\x00-\x1f][^/\\x00-\x1f]*$", max_length = 4095)]
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
/// It is made beside the store: only a peer of this machine, through the socket, says where else. There is one copy at a time; a further
/// request is answered 409 `copy_under_way`.
#[utoipa::path(
    post, path = "/backup", tag = "store", operation_id = "back_up", request_body = BackupRequest,
    responses((status = 201, body = BackupView))
)]
pub(super) async fn back_up(
    State(api): State<Arc<Api>>,
    local_peer: Option<Extension<LocalPeer>>,
    Json(request): Json<BackupRequest>,
) -> Result<(StatusCode, Json<BackupView>), Problem> {
    let to = place(&api.config.store, &request.to, local_peer.is_some())?;
    let _turn = api.copying.try_acquire().map_err(|_| {
        Problem::new(
            StatusCode::CONFLICT,
            "copy_under_way",
            "the store is being copied already, and there is one copy at a time",
        )
    })?;
    if let Some(directory) = to.parent().filter(|directory| *directory == directory_of(&api.config.store)) {
        make(directory)?;
    }
    let check = if request.verify.unwrap_or(true) { BackupCheck::Everything } else { BackupCheck::Nothing };
    let stopping = api.stopping.clone();
    let go_on = move |_| if *stopping.borrow() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let copied = api.host.back_up(&to, check, go_on).await;
    let report = copied.map_err(|error| problem_of(failure_of_backup(&error)))?;
    let view = BackupView {
        path: report.path.display().to_string(),
        pages: report.pages,
        checked: report.checked.map(|checked| CheckedView { processes: checked.processes, events: checked.events }),
    };
    Ok((StatusCode::CREATED, Json(view)))
}

/// Where the backups of a store go.
fn directory_of(store: &Path) -> PathBuf {
    beside(store, "backups")
}

/// Only its user may look into it, as into the store.
fn make(directory: &Path) -> Result<(), Problem> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            let detail = format!("cannot create the directory {}: {error}", directory.display());
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "not_copied", detail))
        }
        _ => Ok(()),
    }
}

/// The file that is meant. Whoever holds a token may make one of a plain name; the user of this machine may make any file as it is.
fn place(store: &Path, to: &str, is_local: bool) -> Result<PathBuf, Problem> {
    if is_local && to.starts_with('/') && !to.contains('\0') {
        return Ok(PathBuf::from(to));
    }
    let is_plain =
        !to.is_empty() && !to.starts_with('.') && !to.contains(['/', '\\']) && !to.contains(char::is_control);
    if !is_plain {
        let or_path = if is_local { ", or an absolute path" } else { "" };
        let expected = format!("expected the name of a file without directories and without a dot in front{or_path}");
        return Err(Problem::invalid(format!("{expected} in `to`, found {to:?}")));
    }
    Ok(directory_of(store).join(to))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_the_web_a_backup_has_a_plain_name_beside_the_store() {
        let place = |to, is_local| place(Path::new("/d/s.db"), to, is_local);
        for is_local in [false, true] {
            assert_eq!(place("monday.db", is_local), Ok(PathBuf::from("/d/s.db.backups/monday.db")));
            for to in ["", ".", "..", ".hidden", "../copy.db", "a/b", "a\\b", "a\0b", "a\nb"] {
                assert_eq!(place(to, is_local).expect_err(to).status, 422);
            }
        }
        assert_eq!(place("/etc/cron.d/x", false).expect_err("not over the web").status, 422);
        assert_eq!(place("/home/me/copy.db", true), Ok(PathBuf::from("/home/me/copy.db")));
    }
}
