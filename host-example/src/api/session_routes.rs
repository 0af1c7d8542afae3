//! Sessions: which processes they may address.

#![expect(unused_qualifications, reason = "the macro that describes routes writes paths in full")]

use std::sync::Arc;

use axum::{extract::State, http::StatusCode};
use registry_actor::{
    domain::{Limits, ProcessHandleDescriptor, ProcessHandleGrant, ProcessRecord, SessionScope},
    port::{Answer, ProcessRegistry, ProcessRegistryExt, Query as RegistryQuery},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Api,
    extract::{Json, Path, Query, place_by_id, process_id},
    page_budget::PageBudget,
    problem::Problem,
    process_routes::{MAX_PAGE, page_limit},
    process_view::ProcessView,
};

/// Which grants, and which page of them.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct GrantQuery {
    /// The frame within the session; by default the session's own grants.
    agent_frame_id: Option<String>,
    /// Only those on processes that have not ended.
    live_only: Option<bool>,
    /// The last process of the page before.
    after: Option<String>,
    /// How many at most.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
}

/// A frame of a session.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct FrameQuery {
    /// The frame within the session; by default the session itself.
    agent_frame_id: Option<String>,
}

/// A session, or a frame within it.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScopeView {
    /// The session.
    #[schema(min_length = 1, max_length = 512)]
    pub(crate) session_id: String,
    /// The frame within it, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) agent_frame_id: Option<String>,
}

impl ScopeView {
    fn new(scope: &SessionScope) -> Self {
        Self { session_id: scope.session_id().to_owned(), agent_frame_id: scope.agent_frame_id().map(str::to_owned) }
    }

    /// The scope that is meant.
    ///
    /// # Errors
    /// When no session or frame can be called so.
    pub(crate) fn scope(self) -> Result<SessionScope, Problem> {
        scope_of(self.session_id, self.agent_frame_id)
    }
}

/// A session, or a frame within it. An empty frame is the session itself.
fn scope_of(session_id: String, agent_frame_id: Option<String>) -> Result<SessionScope, Problem> {
    check("session id", &session_id)?;
    let agent_frame_id = agent_frame_id.unwrap_or_default();
    if !agent_frame_id.is_empty() {
        check("agent frame id", &agent_frame_id)?;
    }
    Ok(SessionScope::frame(session_id, agent_frame_id))
}

/// The registry refuses such names where it stores them, and finds nothing under them.
fn check(what: &str, name: &str) -> Result<(), Problem> {
    let (expected, bytes) = (Limits::NAME_BYTES, name.len());
    if name.trim().is_empty() {
        Err(Problem::invalid(format!("{what} must be a non-empty string")))
    } else if bytes > expected {
        Err(Problem::invalid(format!("{what} must be at most {expected} bytes, got {bytes}")))
    } else if let Some(found) = name.chars().find(|character| character.is_control()) {
        Err(Problem::invalid(format!("{what} must not hold control characters, got {found:?}")))
    } else {
        Ok(())
    }
}

/// A grant: who may address which process.
#[derive(Serialize, ToSchema)]
pub(super) struct GrantView {
    /// Who may.
    scope: ScopeView,
    /// The process.
    process_id: String,
    /// What kind of work it is, in the words of who may.
    kind: Option<String>,
    /// Which work, in the words of who may.
    label: Option<String>,
    /// The process itself, in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    process: Option<ProcessView>,
}

impl GrantView {
    fn new(grant: &ProcessHandleGrant, record: Option<&ProcessRecord>) -> Self {
        Self {
            scope: ScopeView::new(&grant.scope),
            process_id: grant.process_id.to_string(),
            kind: grant.descriptor.kind.clone(),
            label: grant.descriptor.label.clone(),
            process: record.map(ProcessView::new),
        }
    }
}

/// A page of grants, by process.
#[derive(Serialize, ToSchema)]
pub(super) struct GrantPageView {
    /// The grants.
    grants: Vec<GrantView>,
    /// What to ask `after` for the next page; absent after the last one.
    next_after: Option<String>,
}

/// List what a session may address
#[utoipa::path(
    get, path = "/sessions/{session_id}/grants", tag = "sessions", operation_id = "list_grants",
    params(("session_id" = String, Path), GrantQuery),
    responses((status = 200, body = GrantPageView))
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Path(session_id): Path<String>,
    Query(query): Query<GrantQuery>,
) -> Result<Json<GrantPageView>, Problem> {
    let limit = page_limit(query.limit, MAX_PAGE)?;
    let mut after = query.after.as_deref().map(place_by_id).transpose()?;
    let scope = scope_of(session_id, query.agent_frame_id)?;
    let live_only = query.live_only.unwrap_or(false);
    let (mut budget, mut grants, mut has_more) = (PageBudget::of_page(limit), Vec::new(), true);
    while let (Some(limit), true) = (budget.next_read(), has_more) {
        let query = RegistryQuery::HandleGrants { scope: scope.clone(), live_only, after: after.clone(), limit };
        let Answer::HandleGrants(page) = api.host.registry.query(query).await? else {
            return Err(Problem::internal("the registry answered something else than grants"));
        };
        let admitted = &page.entries[..budget.admit(&page.entries)];
        grants.extend(admitted.iter().map(|(grant, record)| GrantView::new(grant, Some(record))));
        after = admitted.last().map(|(grant, _)| grant.process_id.clone()).or(after);
        has_more = page.has_more || admitted.len() < page.entries.len();
    }
    let next_after = after.filter(|_| has_more).map(|after| after.to_string());
    Ok(Json(GrantPageView { grants, next_after }))
}

/// What is granted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GrantRequest {
    /// The process.
    #[schema(min_length = 1, max_length = 512)]
    process_id: String,
    /// The frame within the session; by default the session itself.
    agent_frame_id: Option<String>,
    /// What kind of work it is, in the words of the session.
    kind: Option<String>,
    /// Which work, in the words of the session.
    label: Option<String>,
}

/// Let a session address a process
///
/// To grant it again changes its words.
#[utoipa::path(
    post, path = "/sessions/{session_id}/grants", tag = "sessions", operation_id = "grant_process",
    params(("session_id" = String, Path)), request_body = GrantRequest,
    responses((status = 200, body = GrantView))
)]
pub(super) async fn grant(
    State(api): State<Arc<Api>>,
    Path(session_id): Path<String>,
    Json(request): Json<GrantRequest>,
) -> Result<Json<GrantView>, Problem> {
    let id = process_id(&request.process_id)?;
    let scope = scope_of(session_id, request.agent_frame_id)?;
    let descriptor = ProcessHandleDescriptor { kind: request.kind, label: request.label };
    let grant = api.host.registry.grant_handle(scope, &id, descriptor).await?;
    Ok(Json(GrantView::new(&grant, None)))
}

/// What became of a grant.
#[derive(Serialize, ToSchema)]
pub(super) struct RevokedView {
    /// Whether there was one.
    revoked: bool,
}

/// End a grant
#[utoipa::path(
    delete, path = "/sessions/{session_id}/grants/{process_id}", tag = "sessions", operation_id = "revoke_grant",
    params(("session_id" = String, Path), ("process_id" = String, Path), FrameQuery),
    responses((status = 200, body = RevokedView))
)]
pub(super) async fn revoke(
    State(api): State<Arc<Api>>,
    Path((session_id, id)): Path<(String, String)>,
    Query(query): Query<FrameQuery>,
) -> Result<Json<RevokedView>, Problem> {
    let scope = scope_of(session_id, query.agent_frame_id)?;
    let revoked = api.host.registry.revoke_handle(scope, &process_id(&id)?).await?;
    Ok(Json(RevokedView { revoked }))
}

/// What is handed over, and to whom.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TransferRequest {
    /// The frame that has the grants; by default the session itself.
    agent_frame_id: Option<String>,
    /// Who gets them.
    to: ScopeView,
    /// On which processes; all or none are handed over.
    #[schema(min_items = 1, max_items = 10_000)]
    process_ids: Vec<String>,
}

/// The grants as they are now.
#[derive(Serialize, ToSchema)]
pub(super) struct TransferView {
    /// By process.
    grants: Vec<GrantView>,
}

/// Hand grants over to another session or frame
///
/// All or none: one that is not there is answered 409.
#[utoipa::path(
    post, path = "/sessions/{session_id}/grant-transfers", tag = "sessions", operation_id = "transfer_grants",
    params(("session_id" = String, Path)), request_body = TransferRequest,
    responses((status = 200, body = TransferView))
)]
pub(super) async fn transfer(
    State(api): State<Arc<Api>>,
    Path(session_id): Path<String>,
    Json(request): Json<TransferRequest>,
) -> Result<Json<TransferView>, Problem> {
    if request.process_ids.is_empty() {
        return Err(Problem::invalid("expected a process in `process_ids`, found none"));
    }
    let ids = request.process_ids.iter().map(|id| process_id(id)).collect::<Result<Vec<_>, _>>()?;
    let from = scope_of(session_id, request.agent_frame_id)?;
    let grants = api.host.registry.transfer_handle_grants(from, request.to.scope()?, ids).await?;
    Ok(Json(TransferView { grants: grants.iter().map(|grant| GrantView::new(grant, None)).collect() }))
}

/// What the deletion of a session did.
#[derive(Serialize, ToSchema)]
pub(super) struct SessionDeletedView {
    /// The session.
    session_id: String,
    /// Grants that are gone, those on ended processes included.
    revoked_handle_count: u64,
    /// Wakes that nobody takes any more.
    deleted_wake_count: u64,
    /// Processes that have not ended and that no session can address any more.
    orphaned_process_ids: Vec<String>,
    /// Processes that have not ended and that other sessions can address.
    preserved_process_ids: Vec<String>,
    /// Processes that the session is still woken by, because what is stored of them is damaged.
    damaged_process_ids: Vec<String>,
}

/// Remove what a session could address and be told
///
/// No process is cancelled by it. A session that nobody knows is deleted too.
#[utoipa::path(
    delete, path = "/sessions/{session_id}", tag = "sessions", operation_id = "delete_session",
    params(("session_id" = String, Path)),
    responses((status = 200, body = SessionDeletedView))
)]
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    Path(session_id): Path<String>,
) -> Result<(StatusCode, Json<SessionDeletedView>), Problem> {
    check("session id", &session_id)?;
    let report = api.host.registry.delete_session_process_state(&session_id).await?;
    let texts = |ids: Vec<registry_actor::domain::ProcessId>| ids.into_iter().map(String::from).collect();
    let view = SessionDeletedView {
        session_id: report.session_id,
        revoked_handle_count: report.revoked_handle_count,
        deleted_wake_count: report.deleted_wake_count,
        orphaned_process_ids: texts(report.orphaned_process_ids),
        preserved_process_ids: texts(report.preserved_process_ids),
        damaged_process_ids: texts(report.damaged_process_ids),
    };
    Ok((StatusCode::OK, Json(view)))
}
