//! The numbers of this host, for a collector: `GET /metrics` in the text format of Prometheus.
//!
//! It owns which of them the host adds to those of the registry, and that they are collected at all. It does not know what
//! happened, only how often and how long.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{HeaderValue, header},
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
    routing::get,
};
use metrics::{Unit, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use super::{Api, access, problem::Problem, stats::Standing};
use crate::{
    failure::{Failure, FailureKind},
    serve::credentials::Scope,
};

/// The text format that is rendered.
const TEXT_FORMAT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// How often samples of distributions are taken in, so that they do not pile up where nobody collects.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// From a commit without a sync to a disk in trouble, in seconds.
const COMMIT_SECONDS: [f64; 12] = [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0];

/// Up to the longest wait that a client may ask for, in seconds.
const REQUEST_SECONDS: [f64; 11] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 10.0, 60.0];

/// Of what goes into one transaction.
const GROUP_SIZES: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 64.0, 256.0, 1024.0, 4096.0];

/// What collects: there is one for a whole program, as there is one logger.
static COLLECTOR: OnceLock<PrometheusHandle> = OnceLock::new();

/// The numbers are those of a whole program: a test that looks at those of a store, and one that opens a store, take turns.
#[cfg(test)]
pub(crate) static ONE_STORE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Collects from now on, on the current runtime. What happens before that is counted nowhere.
///
/// # Errors
/// When something collects already.
pub(crate) fn start_collecting() -> Result<(), Failure> {
    let failed = |error: BuildError| Failure::new(FailureKind::Software, format!("no numbers can be kept: {error}"));
    let collector = builder().and_then(PrometheusBuilder::install_recorder).map_err(failed)?;
    let collector = COLLECTOR.get_or_init(|| collector).clone();
    registry_actor::telemetry::describe();
    describe();
    tokio::spawn(async move {
        let mut due = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            due.tick().await;
            collector.run_upkeep();
        }
    });
    Ok(())
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    let full = |name: &str| Matcher::Full(name.to_owned());
    PrometheusBuilder::new()
        .set_buckets_for_metric(full("proctor_commit_seconds"), &COMMIT_SECONDS)?
        .set_buckets_for_metric(full("proctor_commit_batches"), &GROUP_SIZES)?
        .set_buckets_for_metric(full("proctor_commit_events"), &GROUP_SIZES)?
        .set_buckets_for_metric(full("proctor_http_request_seconds"), &REQUEST_SECONDS)
}

fn describe() {
    for (name, description) in [
        ("proctor_live_actors", "Processes with a live actor"),
        ("proctor_runs_under_way", "Processes that this host runs now"),
        ("proctor_parked_waiters", "Waits for a process that are parked"),
        ("proctor_quarantined_processes", "Processes whose commands are refused for now"),
        ("proctor_http_streams_open", "Event streams that are open"),
    ] {
        describe_gauge!(name, Unit::Count, description);
    }
    describe_gauge!("proctor_store_bytes", Unit::Bytes, "The store on disk, its log file included");
    describe_counter!("proctor_http_requests_total", Unit::Count, "Requests, by method, route and status");
    describe_histogram!("proctor_http_request_seconds", Unit::Seconds, "How long a response took to begin, by route");
}

/// Everything that was collected, as text.
pub(super) fn rendered() -> Option<String> {
    COLLECTOR.get().map(PrometheusHandle::render)
}

/// The value of a number without labels in a rendered text.
pub(super) fn value_in(text: &str, name: &str) -> f64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_default()
}

/// The route.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/metrics", get(show)).route_layer(from_fn_with_state(Scope::Read, access::require))
}

async fn show(State(api): State<Arc<Api>>) -> Result<Response, Problem> {
    // What stands now is asked for when it is wanted; what happened was counted as it did.
    let Standing { live_actors, runs_under_way, waiters, streams, quarantined, store_bytes } = Standing::of(&api).await;
    for (name, value) in [
        ("proctor_live_actors", live_actors),
        ("proctor_runs_under_way", runs_under_way),
        ("proctor_parked_waiters", waiters),
        ("proctor_http_streams_open", streams),
        ("proctor_quarantined_processes", quarantined),
        ("proctor_store_bytes", store_bytes),
    ] {
        gauge!(name).set(value as f64);
    }
    let text = rendered().ok_or_else(|| Problem::internal("this host keeps no numbers"))?;
    Ok(([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_by_its_whole_name() {
        let text = "# TYPE a_total counter\na_total_more 1\na_total{b=\"c\"} 2\na_total 3\nsum 0.25\n";
        assert_eq!((value_in(text, "a_total"), value_in(text, "sum"), value_in(text, "none")), (3.0, 0.25, 0.0));
    }
}
