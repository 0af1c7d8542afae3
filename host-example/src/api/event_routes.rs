//! The events of a process: in pages, and as they come.

#![expect(unused_qualifications, reason = "the macro that describes routes writes paths in full")]

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use futures_util::StreamExt;
use registry_actor::{domain::Sequence, port::ProcessRegistryExt};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Api,
    event_stream::{EventPlace, EventStream, Told},
    extract::{Json, Path, Query, process_id},
    page_budget::PageBudget,
    problem::{PROBLEM_JSON, Problem},
    process_routes::{known, page_limit},
};
use crate::{event_view::EventView, serve::credentials::Caller};

/// The most events in a page.
pub(super) const MAX_PAGE: u32 = 1_000;

/// A sign of life on a silent stream, so that a connection that is gone is found out.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Which page.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EventQuery {
    /// The place in the log after which to begin, exclusive.
    after: Option<u64>,
    /// How many at most.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// A page of events, in their order.
#[derive(Serialize, ToSchema)]
pub(super) struct EventPageView {
    /// The events.
    events: Vec<EventView>,
    /// What to ask `after` for the next page; absent after the last one.
    next_after: Option<u64>,
}

/// Show the events of a process
///
/// A page ends after 4 MiB too, so that one of fewer events than asked for is not the last one because of that.
#[utoipa::path(
    get, path = "/processes/{process_id}/events", tag = "events", operation_id = "list_events",
    params(("process_id" = String, Path), EventQuery),
    responses((status = 200, body = EventPageView))
)]
pub(super) async fn page(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Query(query): Query<EventQuery>,
) -> Result<Json<EventPageView>, Problem> {
    let id = process_id(&id)?;
    let limit = page_limit(query.limit, MAX_PAGE)?;
    let generation = known(&api, &id).await?.generation;
    let mut budget = PageBudget::of_page(limit);
    let (mut events, mut after, mut has_more) = (Vec::new(), Sequence(query.after.unwrap_or(0)), true);
    while let (Some(count), true) = (budget.next_read(), has_more) {
        let page = api.host.registry.events_page(&id, after, count).await?;
        // Between two reads the process may have been pruned, and its id may live again: a page is of one life.
        if !events.is_empty() && known(&api, &id).await?.generation != generation {
            break;
        }
        let admitted = &page.events[..budget.admit(&page.events)];
        events.extend(admitted.iter().map(|event| EventView::new(event)));
        after = admitted.last().map_or(after, |event| event.sequence);
        has_more = page.has_more || admitted.len() < page.events.len();
    }
    Ok(Json(EventPageView { events, next_after: has_more.then_some(after.0) }))
}

/// A server-sent event.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is written by the web framework, and described here")]
pub(super) struct StreamedView {
    /// What kind it is.
    #[schema(required = true)]
    event: String,
    /// What to send as `Last-Event-ID` to go on behind it, if that can be.
    #[schema(nullable = false)]
    id: Option<String>,
    /// What it says, as JSON.
    data: String,
}

/// Follow the events of a process
///
/// Server-sent events of type `event`, each with an id; with that id in `Last-Event-ID` a later request goes on behind it, in this host or
/// the next one: no event is missing, and none comes twice. After the last event of a process that has ended comes one of type `end` with
/// the process, and the stream is over; who goes on from there is answered 204. One of type `stopping` says that the host goes down.
/// One caller may keep half as many streams open as there is room for; a further one is answered 503 `too_many_streams`.
#[utoipa::path(
    get, path = "/processes/{process_id}/events/stream", tag = "events", operation_id = "follow_events",
    params(
        ("process_id" = String, Path),
        (
            "Last-Event-ID" = Option<String>, Header,
            pattern = r"^$|^[1-9][0-9]{0,8}\.(0|[1-9][0-9]{0,18})$", description = "The id of the last event that came",
        ),
    ),
    responses(
        (status = 200, body = StreamedView, content_type = "text/event-stream"),
        (status = 204, description = "The process has ended, and everything was told"),
        (status = 409, description = "The process has not come so far", body = Problem, content_type = PROBLEM_JSON),
    )
)]
pub(super) async fn stream(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = process_id(&id)?;
    let from = last_event_id(&headers).map(str::parse::<EventPlace>).transpose()?;
    let record = known(&api, &id).await?;
    let permit = api.stream_room.take(&caller.name)?;
    let mut stream = EventStream::new(api, id, &record, from).await?;
    // Only what has ended can be over already: the answer to who follows a silent process begins at once.
    let first = if record.status.await_output().is_some() { stream.next().await } else { None };
    if let Some(Told::End(_)) = &first
        && from.is_some()
    {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let told = futures_util::stream::unfold((first, stream, permit), |(first, mut stream, permit)| async {
        let told = match first {
            Some(first) => first,
            None => stream.next().await?,
        };
        Some((told, (None, stream, permit)))
    });
    let sent = told.map(|told| Ok::<_, Infallible>(sent(told)));
    Ok(Sse::new(sent).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

/// The id of the last event that a client has. One that has none may say so by an empty text.
pub(super) fn last_event_id(headers: &HeaderMap) -> Option<&str> {
    headers.get("last-event-id").map(|id| id.to_str().unwrap_or("?")).filter(|id| !id.is_empty())
}

fn sent(told: Told) -> Event {
    let (event, data) = match &told {
        Told::Event { place, event } => {
            (Event::default().event("event").id(place.to_string()), serde_json::to_string(event))
        }
        Told::End(process) => (Event::default().event("end"), serde_json::to_string(process)),
        Told::Stopping => (Event::default().event("stopping"), Ok("{}".to_owned())),
        Told::Failed(problem) => (Event::default().event("failed"), serde_json::to_string(problem)),
    };
    // Views are plain values, which always have a text.
    event.data(data.unwrap_or_default())
}
