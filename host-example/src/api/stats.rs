//! Where the host stands, in a few numbers for people: those of `/metrics`, for charts that ask every second or so.

use std::{ffi::OsString, fs, path::Path, sync::Arc};

use axum::extract::State;
use jiff::Timestamp;
use registry_actor::port::ProcessRegistry;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Api, extract::Json, metrics, problem::Problem};

/// What stands now.
pub(super) struct Standing {
    pub(super) live_actors: u64,
    pub(super) runs_under_way: u64,
    pub(super) waiters: u64,
    pub(super) streams: u64,
    pub(super) quarantined: u64,
    pub(super) store_bytes: u64,
}

impl Standing {
    /// Asks everybody.
    pub(super) async fn of(api: &Api) -> Self {
        let registry = &api.host.registry;
        Self {
            live_actors: registry.live_actors() as u64,
            runs_under_way: api.worker.under_way().len() as u64,
            waiters: registry.change_source().map_or(0, |source| source.parked_waits()) as u64,
            streams: api.config.max_streams.saturating_sub(api.streams.available_permits()) as u64,
            quarantined: registry.quarantined().await.len() as u64,
            store_bytes: bytes_on_disk(&api.config.store),
        }
    }
}

/// The store and its log file; what is not there has no size.
fn bytes_on_disk(store: &Path) -> u64 {
    let mut log_file = OsString::from(store);
    log_file.push("-wal");
    let bytes = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
    bytes(store) + bytes(Path::new(&log_file))
}

/// Where the host stands. What ends in `_total`, `_sum` and `_count` grows from the start of the host on.
#[derive(Serialize, ToSchema)]
pub(super) struct StatsView {
    /// When this was so, in ms since the Unix epoch.
    now_ms: i64,
    /// Events that were stored.
    appends_total: u64,
    /// Transactions that were committed.
    groups_total: u64,
    /// How long they took in all, in seconds.
    commit_seconds_sum: f64,
    /// How many of them were measured.
    commit_seconds_count: u64,
    /// Batches and commands that wait for the writer.
    queue_depth: u64,
    /// Processes with a live actor.
    live_actors: u64,
    /// Processes that this host runs now.
    runs_under_way: u64,
    /// Parked waits.
    waiters: u64,
    /// Open event streams.
    streams: u64,
    /// Processes whose commands are refused for now.
    quarantined: u64,
    /// The store on disk, its log file included.
    store_bytes: u64,
}

/// Show where the host stands, in numbers
#[utoipa::path(
    get, path = "/stats", tag = "host", operation_id = "get_stats",
    responses(
        (status = 200, body = StatsView),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn get(State(api): State<Arc<Api>>) -> Result<Json<StatsView>, Problem> {
    let standing = Standing::of(&api).await;
    let text = metrics::rendered().ok_or_else(|| Problem::internal("this host keeps no numbers"))?;
    let whole = |name| metrics::value_in(&text, name) as u64;
    let commits = whole("proctor_commit_seconds_count");
    Ok(Json(StatsView {
        now_ms: Timestamp::now().as_millisecond(),
        appends_total: whole("proctor_events_appended_total"),
        groups_total: commits,
        commit_seconds_sum: metrics::value_in(&text, "proctor_commit_seconds_sum"),
        commit_seconds_count: commits,
        queue_depth: whole("proctor_writer_queue_depth"),
        live_actors: standing.live_actors,
        runs_under_way: standing.runs_under_way,
        waiters: standing.waiters,
        streams: standing.streams,
        quarantined: standing.quarantined,
        store_bytes: standing.store_bytes,
    }))
}
