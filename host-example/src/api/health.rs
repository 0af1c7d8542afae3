//! Whether the host lives, and whether it takes requests: the only answers without a token.

use std::sync::Arc;

use axum::{Router, extract::State, http::StatusCode, routing::get};

use super::{Api, problem::Problem};

/// The routes.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/healthz", get(|| async { "ok\n" })).route("/readyz", get(ready))
}

async fn ready(State(api): State<Arc<Api>>) -> Result<&'static str, Problem> {
    if *api.stopping.borrow() {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "this host is going down"));
    }
    Ok("ready\n")
}
