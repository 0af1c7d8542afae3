//! The change feed of the store: in pages, and as it grows.

#![expect(unused_qualifications, reason = "the macro that describes routes writes paths in full")]

use std::{convert::Infallible, sync::Arc};

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use registry_actor::{domain::ChangeCursor, port::ProcessRegistryExt};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Api,
    change_stream::{ChangeStream, From, Told},
    change_view::ChangeView,
    event_routes::{KEEP_ALIVE, MAX_PAGE, StreamedView, last_event_id},
    extract::{Json, Query},
    page_budget::PageBudget,
    problem::{PROBLEM_JSON, Problem},
    process_routes::page_limit,
};
use crate::serve::credentials::Caller;

/// What stands for the end of the feed, where a stream begins.
const NOW: &str = "now";

/// Which page.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ChangeQuery {
    /// The cursor after which to begin; by default the first change that is retained.
    #[param(pattern = r"^v1\..+\.(0|[1-9][0-9]{0,18})\.(0|[1-9][0-9]{0,18})\.[0-9a-f]{16}$")]
    after: Option<String>,
    /// How many at most.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// A page of changes, in commit order.
#[derive(Serialize, ToSchema)]
pub(super) struct ChangePageView {
    /// The changes.
    changes: Vec<ChangeView>,
    /// What to ask `after` for the next page, at any later time.
    next_after: String,
    /// Whether more had happened already.
    has_more: bool,
    /// The end of the feed when the page was read, as a cursor.
    safe_through: String,
}

/// Show what changed in the store
///
/// Every event of every process, prunes and deletions of sessions, in commit order. A cursor is good for as long as the store is: one
/// of another store is answered 409, and one of a store that was restored since 410, for then what was read may never have happened.
/// A page ends after 4 MiB too; `has_more` says whether it is the last one.
#[utoipa::path(
    get, path = "/changes", tag = "changes", operation_id = "list_changes", params(ChangeQuery),
    responses(
        (status = 200, body = ChangePageView),
        (status = 409, description = "The cursor is of another store", body = Problem, content_type = PROBLEM_JSON),
        (status = 410, description = "The store was restored since", body = Problem, content_type = PROBLEM_JSON),
    )
)]
pub(super) async fn page(
    State(api): State<Arc<Api>>,
    Query(query): Query<ChangeQuery>,
) -> Result<Json<ChangePageView>, Problem> {
    let limit = page_limit(query.limit, MAX_PAGE)?;
    let mut after = query.after.as_deref().map(cursor).transpose()?;
    let (registry, mut budget) = (&api.host.registry, PageBudget::of_page(limit));
    let (mut changes, mut has_more, mut safe_through) = (Vec::new(), true, None);
    while let (Some(count), true) = (budget.next_read(), has_more) {
        let page = registry.changes_since(after.clone(), count).await?;
        let admitted = &page.entries[..budget.admit(&page.entries)];
        for entry in admitted {
            changes.push(ChangeView::new(&entry.change)?);
        }
        has_more = page.has_more || admitted.len() < page.entries.len();
        after = admitted.last().map(|last| last.cursor.clone()).or(after).or(Some(page.next));
        safe_through = Some(page.safe_through);
    }
    // The first read of a budget has room.
    let (Some(next), Some(safe_through)) = (after, safe_through) else {
        return Err(Problem::internal("a page of changes was not read"));
    };
    Ok(Json(ChangePageView { changes, next_after: next.to_string(), has_more, safe_through: safe_through.to_string() }))
}

/// Where a stream begins.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct FollowQuery {
    /// The cursor after which to begin, or `now` for what is yet to come; by default the first change that is retained. What is in
    /// `Last-Event-ID` counts more.
    #[param(pattern = r"^now$|^v1\..+\.(0|[1-9][0-9]{0,18})\.(0|[1-9][0-9]{0,18})\.[0-9a-f]{16}$")]
    after: Option<String>,
}

/// Follow what changes in the store
///
/// Server-sent events of the types `event`, `pruned` and `session_deleted`, each with a cursor as its id; with that id in
/// `Last-Event-ID` a later request goes on behind it, in this host or the next one: nothing is missing, and nothing comes twice. One of
/// type `stopping` says that the host goes down. A cursor that is refused is answered as in `/changes`.
/// So many of these streams are open at the same time, 64 in all; a further one is answered 503 `too_many_streams`. What is committed
/// within 100 ms may be told together.
#[utoipa::path(
    get, path = "/changes/stream", tag = "changes", operation_id = "follow_changes",
    params(
        FollowQuery,
        ("Last-Event-ID" = Option<String>, Header, pattern = r"^$|^now$|^v1\..+\.(0|[1-9][0-9]{0,18})\.(0|[1-9][0-9]{0,18})\.[0-9a-f]{16}$", description = "The id of the last change that came"),
    ),
    responses(
        (status = 200, body = StreamedView, content_type = "text/event-stream"),
        (status = 409, description = "The cursor is of another store", body = Problem, content_type = PROBLEM_JSON),
        (status = 410, description = "The store was restored since", body = Problem, content_type = PROBLEM_JSON),
    )
)]
pub(super) async fn stream(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<FollowQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let from = match last_event_id(&headers).or(query.after.as_deref()) {
        None => From::Start,
        Some(NOW) => From::Now,
        Some(text) => From::After(cursor(text)?),
    };
    let permit = api.stream_room.take_of_changes(&caller.name)?;
    let stream = ChangeStream::new(api, from).await?;
    let sent = futures_util::stream::unfold((stream, permit), |(mut stream, permit)| async {
        let told = stream.next().await?;
        Some((Ok::<_, Infallible>(sent(told)), (stream, permit)))
    });
    Ok(Sse::new(sent).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

fn sent(told: Told) -> Event {
    let (event, data) = match &told {
        Told::Change { cursor, change } => {
            (Event::default().event(change.kind()).id(cursor.to_string()), serde_json::to_string(change))
        }
        Told::Stopping => (Event::default().event("stopping"), Ok("{}".to_owned())),
        Told::Failed(problem) => (Event::default().event("failed"), serde_json::to_string(problem)),
    };
    // Views are plain values, which always have a text.
    event.data(data.unwrap_or_default())
}

/// The cursor that is written so.
pub(super) fn cursor(text: &str) -> Result<ChangeCursor, Problem> {
    text.parse().map_err(|error: registry_actor::domain::InvalidCursor| {
        Problem::new(StatusCode::BAD_REQUEST, "invalid_cursor", error.to_string())
    })
}
