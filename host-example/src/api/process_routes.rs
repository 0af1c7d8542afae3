//! Starting, finding and steering processes.

#![expect(unused_qualifications, reason = "the macro that describes routes writes paths in full")]

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Extension,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use registry_actor::{
    domain::{
        AbandonRequest, Command, ProcessId, ProcessListFilter, ProcessRecord, ProcessSignal, ProcessStatusFilter,
        ReceiptEvent, Refusal, RegistrationCursor,
    },
    port::{ProcessRegistry, ProcessRegistryExt},
    worker::Explanation,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::{
    Api,
    extract::{Json, Path, Query, place_by_id, process_id},
    page_budget::PageBudget,
    problem::Problem,
    process_view::ProcessView,
    start_request::StartRequest,
};
use crate::{explain, serve::credentials::Caller};

/// The most processes in a page.
pub(super) const MAX_PAGE: u32 = 500;

/// Which processes, and which page of them.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// `any`, `running`, `completed`, `failed`, `cancelled` or `abandoned`. By default `any`.
    #[param(inline)]
    status: Option<StatusName>,
    /// Of one kind of executor.
    kind: Option<String>,
    /// With this label.
    label: Option<String>,
    /// With all of these tags, separated by commas.
    tags: Option<String>,
    /// Those that wait for something, or that do not.
    waiting: Option<bool>,
    /// Registered then or later, in ms since the Unix epoch.
    created_from_ms: Option<u64>,
    /// Registered before then, in ms since the Unix epoch.
    created_until_ms: Option<u64>,
    /// `newest`: the last registered first; `id`: ascending by id. By default `id`.
    #[param(inline)]
    order: Option<ListOrder>,
    /// The `next_after` of the page before.
    after: Option<String>,
    /// How many at most.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
}

/// In which order.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ListOrder {
    /// Ascending by id.
    #[default]
    Id,
    /// The last registered first.
    Newest,
}

/// Which states.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum StatusName {
    Any,
    Running,
    Completed,
    Failed,
    Cancelled,
    Abandoned,
}

impl From<StatusName> for ProcessStatusFilter {
    fn from(status: StatusName) -> Self {
        match status {
            StatusName::Any => Self::Any,
            StatusName::Running => Self::Running,
            StatusName::Completed => Self::Completed,
            StatusName::Failed => Self::Failed,
            StatusName::Cancelled => Self::Cancelled,
            StatusName::Abandoned => Self::Abandoned,
        }
    }
}

/// A page of processes.
#[derive(Serialize, ToSchema)]
pub(super) struct ProcessPageView {
    /// The processes.
    processes: Vec<ProcessView>,
    /// Processes among them whose records are damaged and cannot be shown.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    damaged_process_ids: BTreeSet<String>,
    /// What to ask `after` for the next page; absent after the last one.
    next_after: Option<String>,
}

/// List processes
///
/// A page ends after 4 MiB too, so that one of fewer processes than asked for is not the last one because of that.
#[utoipa::path(
    get, path = "/processes", tag = "processes", operation_id = "list_processes", params(ListQuery),
    responses(
        (status = 200, body = ProcessPageView),
    )
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Query(query): Query<ListQuery>,
) -> Result<Json<ProcessPageView>, Problem> {
    let limit = page_limit(query.limit, MAX_PAGE)?;
    let mut filter = ProcessListFilter {
        kind: query.kind,
        label: query.label,
        waiting: query.waiting,
        tags: query.tags.iter().flat_map(|tags| tags.split(',')).map(str::to_owned).collect(),
        ..ProcessListFilter::of_status(query.status.unwrap_or(StatusName::Any).into())
    };
    filter.created.from_ms = query.created_from_ms;
    filter.created.until_ms = query.created_until_ms;
    let registry = &api.host.registry;
    let (mut budget, mut processes) = (PageBudget::of_page(limit), Vec::new());
    let mut damaged_process_ids = BTreeSet::new();
    let next_after = match query.order.unwrap_or_default() {
        ListOrder::Id => {
            let mut after = query.after.as_deref().map(place_by_id).transpose()?;
            let mut has_more = true;
            while let (Some(count), true) = (budget.next_read(), has_more) {
                let page = registry.list_page(filter.clone(), after.clone(), count).await?;
                let admitted = &page.records[..budget.admit(&page.records)];
                damaged_process_ids.extend(page.damaged.iter().map(ToString::to_string));
                processes.extend(admitted.iter().map(|record| ProcessView::new(record)));
                after = admitted.last().map(|record| record.id().clone()).or(after);
                has_more = page.has_more || admitted.len() < page.records.len();
            }
            after.filter(|_| has_more).map(|after| after.to_string())
        }
        ListOrder::Newest => {
            let mut before = query.after.as_deref().map(place_among_newest).transpose()?;
            let mut has_more = true;
            while let (Some(count), true) = (budget.next_read(), has_more) {
                let mut page = registry.recent_processes(filter.clone(), before, count).await?;
                let admitted = budget.admit(&page.records);
                if admitted == 0 && !page.records.is_empty() {
                    break;
                }
                if admitted < page.records.len() {
                    // A page tells only where it ends: one that ends there is read.
                    let count = u32::try_from(admitted).unwrap_or(count);
                    page = registry.recent_processes(filter.clone(), before, count).await?;
                }
                damaged_process_ids.extend(page.damaged.iter().map(ToString::to_string));
                processes.extend(page.records.iter().map(|record| ProcessView::new(record)));
                has_more = page.next.is_some();
                before = page.next.or(before);
            }
            before.filter(|_| has_more).map(|next| format!("{PLACE_PREFIX}{}", next.place()))
        }
    };
    Ok(Json(ProcessPageView { processes, damaged_process_ids, next_after }))
}

/// Begins the text of a place in the list of the newest, so that it is not taken for an id.
const PLACE_PREFIX: &str = "before:";

/// The place that a page of the newest ended at.
fn place_among_newest(text: &str) -> Result<RegistrationCursor, Problem> {
    let place = text.strip_prefix(PLACE_PREFIX).and_then(|place| place.parse().ok());
    place.map(RegistrationCursor::new).ok_or_else(|| {
        Problem::invalid(format!("expected an `after` that a page of the order `newest` gave, found `{text}`"))
    })
}

/// The limit of a page.
pub(super) fn page_limit(limit: Option<u32>, most: u32) -> Result<u32, Problem> {
    match limit {
        None => Ok(most.min(100)),
        Some(limit) if (1..=most).contains(&limit) => Ok(limit),
        Some(limit) => Err(Problem::invalid(format!("expected a `limit` from 1 to {most}, found {limit}"))),
    }
}

/// Show a process
#[utoipa::path(
    get, path = "/processes/{process_id}", tag = "processes", operation_id = "get_process",
    params(("process_id" = String, Path)),
    responses(
        (status = 200, body = ProcessView),
    )
)]
pub(super) async fn get(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Json<ProcessView>, Problem> {
    let id = process_id(&id)?;
    let record = known(&api, &id).await?;
    let lease = api.host.registry.get_process_lease(&id).await?;
    Ok(Json(ProcessView::new(&record).held_by(lease.as_ref())))
}

/// The process, or what became of it.
pub(super) async fn known(api: &Api, id: &ProcessId) -> Result<Arc<ProcessRecord>, Problem> {
    known_to(&api.host.registry, id).await
}

/// The same of any registry.
pub(super) async fn known_to(registry: &dyn ProcessRegistry, id: &ProcessId) -> Result<Arc<ProcessRecord>, Problem> {
    if let Some(record) = registry.get_process(id).await? {
        return Ok(record);
    }
    match registry.get_tombstone(id).await? {
        Some(tombstone) => {
            let detail = format!("process `{id}` ended as {} and was pruned", tombstone.terminal_state);
            Err(Problem::new(StatusCode::GONE, "pruned", detail))
        }
        None => Err(Refusal::Unknown { process_id: id.clone() }.into()),
    }
}

/// Start a process
///
/// The same request with the same id again is answered with 200 and the process that is there; another one with that id with 409.
#[utoipa::path(
    post, path = "/processes", tag = "processes", operation_id = "start_process", request_body = StartRequest,
    responses(
        (status = 201, description = "It is registered now", body = ProcessView),
        (status = 200, description = "It was registered before", body = ProcessView),
    )
)]
pub(super) async fn start(State(api): State<Arc<Api>>, Json(request): Json<StartRequest>) -> Result<Response, Problem> {
    let random = getrandom::u64().map_err(|error| Problem::internal(error.to_string()))?;
    let registration = request.registration(&api.config.command_policy(), Timestamp::now(), random)?;
    let id = registration.id.clone();
    let receipt = api.host.registry.execute(&id, Command::Register { registration: Box::new(registration) }).await?;
    let record = receipt.record.ok_or_else(|| Problem::internal("the registry answered without the process"))?;
    let status =
        if receipt.events.iter().any(ReceiptEvent::is_inserted) { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = (status, Json(ProcessView::new(&record))).into_response();
    let place = format!("{}/processes/{}", super::BASE, percent_encoded(id.as_str()));
    if let Ok(place) = HeaderValue::from_str(&place) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}

/// The text as one segment of a path.
fn percent_encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Why, in the caller's words.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ReasonRequest {
    /// The reason, for people.
    reason: Option<String>,
}

/// Ask a process to end
///
/// Its executor is told, and ends it in its own time. To ask again for the same reason changes nothing. One that has ended is answered
/// 409 `already_ended`.
#[utoipa::path(
    post, path = "/processes/{process_id}/cancel", tag = "processes", operation_id = "cancel_process",
    params(("process_id" = String, Path)), request_body = ReasonRequest,
    responses((status = 200, body = ProcessView))
)]
pub(super) async fn cancel(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Json(request): Json<ReasonRequest>,
) -> Result<Json<ProcessView>, Problem> {
    let id = process_id(&id)?;
    // The registry would note the request behind the end, which changes nothing. One that ends just now has it noted, without harm.
    let record = known(&api, &id).await?;
    if record.status.is_terminal() {
        let detail = format!("process `{id}` has ended already, as {}", record.status.label());
        return Err(Problem::new(StatusCode::CONFLICT, "already_ended", detail));
    }
    api.host.registry.request_process_cancel(&id, request.reason).await?;
    Ok(Json(ProcessView::new(&*known(&api, &id).await?)))
}

/// Allow a process to be abandoned
///
/// It ends as abandoned once nobody holds its lease. The first request stays.
#[utoipa::path(
    post, path = "/processes/{process_id}/abandon", tag = "processes", operation_id = "abandon_process",
    params(("process_id" = String, Path)), request_body = ReasonRequest,
    responses((status = 200, body = ProcessView))
)]
pub(super) async fn abandon(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Json(request): Json<ReasonRequest>,
) -> Result<Json<ProcessView>, Problem> {
    let id = process_id(&id)?;
    let now_ms = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
    let request = AbandonRequest { requested_by: caller.name, requested_at_ms: now_ms, reason: request.reason };
    let record = api.host.registry.request_process_abandon(&id, request).await?;
    Ok(Json(ProcessView::new(&record)))
}

/// A signal.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SignalRequest {
    /// Makes one signal out of a request that is sent again; by default each request is one.
    signal_id: Option<String>,
    /// What it says.
    #[serde(default)]
    #[schema(value_type = Value)]
    payload: Value,
}

/// What became of a signal.
#[derive(Serialize, ToSchema)]
pub(super) struct SignalView {
    /// Its place in the process's log.
    sequence: u64,
    /// Its number among the signals of its name, from 1.
    ordinal: u64,
    /// Whether it was sent before.
    replayed: bool,
}

/// Send a signal to a process
#[utoipa::path(
    post, path = "/processes/{process_id}/signals/{name}", tag = "processes", operation_id = "signal_process",
    params(("process_id" = String, Path), ("name" = String, Path)), request_body = SignalRequest,
    responses((status = 200, body = SignalView))
)]
pub(super) async fn signal(
    State(api): State<Arc<Api>>,
    Path((id, name)): Path<(String, String)>,
    Json(request): Json<SignalRequest>,
) -> Result<Json<SignalView>, Problem> {
    let id = process_id(&id)?;
    let signal = ProcessSignal::new(name).map_err(|error| Problem::invalid(error.to_string()))?;
    let signal_id = match request.signal_id {
        Some(signal_id) => signal_id,
        None => crate::serve::credentials::random_text::<16>().map_err(|error| Problem::internal(error.to_string()))?,
    };
    let sent = api.host.registry.signal_process(&id, &signal, &signal_id, request.payload).await?;
    let event = sent.receipt.events.first();
    Ok(Json(SignalView {
        sequence: event.map_or(0, |event| event.event().sequence.0),
        ordinal: sent.ordinal,
        replayed: !event.is_some_and(ReceiptEvent::is_inserted),
    }))
}

/// Why a process is where it is.
#[derive(Serialize, ToSchema)]
pub(super) struct ExplanationView {
    /// The process.
    process_id: String,
    /// What comes next, in words.
    next: String,
    /// What comes next.
    #[schema(value_type = Object)]
    step: Value,
    /// Since when it is there, in ms since the Unix epoch.
    since_ms: u64,
    /// What it says that it waits for.
    #[schema(value_type = Option<Object>)]
    waits_for: Option<Value>,
    /// Whether it was asked to end.
    cancel_requested: bool,
    /// The rule that recovery goes by.
    rule: String,
    /// Whether nobody and nothing will end it by itself.
    stuck: bool,
}

/// Explain where a process stands, and what happens to it next
#[utoipa::path(
    get, path = "/processes/{process_id}/explanation", tag = "processes", operation_id = "explain_process",
    params(("process_id" = String, Path)),
    responses((status = 200, body = ExplanationView))
)]
pub(super) async fn explain(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
) -> Result<Json<ExplanationView>, Problem> {
    Ok(Json(ExplanationView::new(api.worker.explain(&process_id(&id)?).await?)))
}

impl ExplanationView {
    /// The view of an explanation.
    pub(super) fn new(explanation: Explanation) -> Self {
        Self {
            process_id: explanation.process_id.to_string(),
            next: explain::in_words(&explanation.step),
            step: json!(explanation.step),
            since_ms: explanation.since_ms,
            waits_for: explanation.waits_for.map(|wait| json!(wait)),
            cancel_requested: explanation.cancel_requested,
            rule: explanation.rule,
            stuck: explanation.stuck,
        }
    }
}
