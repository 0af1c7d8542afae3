//! The host itself: what it is, what it holds, and what it cannot get on with.

#![expect(unused_qualifications, reason = "the macro that describes routes writes paths in full")]

use std::sync::Arc;

use axum::{Extension, extract::State};
use jiff::Timestamp;
use registry_actor::{
    domain::ProcessListFilter,
    port::{ProcessRegistry, ProcessRegistryExt},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Api,
    extract::{Json, Query, place_by_id},
    page_budget::PageBudget,
    problem::Problem,
    process_routes::{ExplanationView, MAX_PAGE, page_limit},
};
use crate::serve::credentials::{Caller, Scope};

/// How many processes a view of the host names.
const NAMED: usize = 100;

/// The host.
#[derive(Serialize, ToSchema)]
pub(super) struct HostView {
    /// Its version.
    version: String,
    /// Its store.
    store: String,
    /// Its process in the operating system.
    pid: u32,
    /// When it came up, in ms since the Unix epoch.
    started_at_ms: u64,
    /// How long it has been up, in ms.
    uptime_ms: u64,
    /// Whether it is going down.
    stopping: bool,
    /// Who asks.
    caller: CallerView,
    /// Processes that are in memory.
    live_actors: usize,
    /// Calls of the registry that are under way.
    commands_under_way: usize,
    /// Who waits for an outcome or an event.
    parked_waits: usize,
    /// Streams that are open.
    streams_open: usize,
    /// How many may be.
    streams_limit: usize,
    /// The processes that this host runs just now, a hundred at most.
    running: Vec<String>,
    /// How many it runs.
    running_count: usize,
    /// How many it runs at most.
    running_limit: usize,
    /// The processes whose commands are refused for now because they failed again and again, a hundred at most.
    quarantined: Vec<QuarantinedView>,
    /// How many there are.
    quarantined_count: usize,
}

/// Who asks.
#[derive(Serialize, ToSchema)]
struct CallerView {
    /// The name of the token, or `local` or `browser`.
    name: String,
    /// What it may do.
    scope: Scope,
}

/// A process whose commands are refused for now.
#[derive(Serialize, ToSchema)]
struct QuarantinedView {
    /// The process.
    process_id: String,
    /// When it is tried again, in ms since the Unix epoch.
    retry_at_ms: u64,
    /// What failed last.
    reason: String,
}

/// Show the host
#[utoipa::path(
    get, path = "/host", tag = "host", operation_id = "get_host",
    responses((status = 200, body = HostView))
)]
pub(super) async fn show(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<HostView>, Problem> {
    let registry = &api.host.registry;
    let (quarantined, running) = (registry.quarantined().await, api.worker.under_way());
    let uptime = api.started.elapsed();
    let (now_ms, uptime_ms) = (Timestamp::now().as_millisecond(), u64::try_from(uptime.as_millis()).unwrap_or(0));
    let holdings = registry.holdings();
    Ok(Json(HostView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        store: api.config.store.display().to_string(),
        pid: std::process::id(),
        started_at_ms: u64::try_from(now_ms).unwrap_or(0).saturating_sub(uptime_ms),
        uptime_ms,
        stopping: *api.stopping.borrow(),
        caller: CallerView { name: caller.name, scope: caller.scope },
        live_actors: registry.live_actors(),
        commands_under_way: holdings.commands_under_way,
        parked_waits: registry.change_source().map_or(0, |source| source.parked_waits()),
        streams_open: api.config.max_streams.saturating_sub(api.streams.available_permits()),
        streams_limit: api.config.max_streams,
        running_count: running.len(),
        running: running.into_iter().take(NAMED).map(String::from).collect(),
        running_limit: api.config.concurrent_runs,
        quarantined_count: quarantined.len(),
        quarantined: quarantined
            .into_iter()
            .take(NAMED)
            .map(|quarantined| QuarantinedView {
                process_id: quarantined.process_id.into(),
                retry_at_ms: quarantined.retry_at_ms,
                reason: quarantined.reason,
            })
            .collect(),
    }))
}

/// Which page.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct StuckQuery {
    /// What the page before gave as `next_after`.
    after: Option<String>,
    /// How many processes to look at.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
}

/// Those of a page of processes that are stuck.
#[derive(Serialize, ToSchema)]
pub(super) struct StuckPageView {
    /// Why each of them is.
    stuck: Vec<ExplanationView>,
    /// What to ask `after` to look at further processes; absent when all were looked at. A page without any stuck process is not the
    /// last one because of that.
    next_after: Option<String>,
}

/// List processes that nobody and nothing will end by itself
///
/// Each page looks at so many processes that have not ended, and names those of them that are stuck.
#[utoipa::path(
    get, path = "/stuck", tag = "host", operation_id = "list_stuck", params(StuckQuery),
    responses((status = 200, body = StuckPageView))
)]
pub(super) async fn stuck(
    State(api): State<Arc<Api>>,
    Query(query): Query<StuckQuery>,
) -> Result<Json<StuckPageView>, Problem> {
    let limit = page_limit(query.limit, MAX_PAGE)?;
    let mut after = query.after.as_deref().map(place_by_id).transpose()?;
    let (mut budget, mut stuck, mut has_more) = (PageBudget::of_page(limit), Vec::new(), true);
    while let (Some(count), true) = (budget.next_read(), has_more) {
        let page = api.host.registry.list_page(ProcessListFilter::default(), after.clone(), count).await?;
        let admitted = &page.records[..budget.admit(&page.records)];
        for record in admitted {
            match api.worker.explain(record.id()).await {
                Ok(explanation) if explanation.stuck => stuck.push(ExplanationView::new(explanation)),
                // It was pruned meanwhile, and is not stuck any more.
                Ok(_) | Err(registry_actor::port::RegistryError::Refused(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        after = admitted.last().map(|record| record.id().clone()).or(after);
        has_more = page.has_more || admitted.len() < page.records.len();
    }
    let next_after = after.filter(|_| has_more).map(|after| after.to_string());
    Ok(Json(StuckPageView { stuck, next_after }))
}
