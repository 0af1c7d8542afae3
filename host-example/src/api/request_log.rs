//! What is kept of each request: its span in the log, and its numbers.
//!
//! A request is named by its id, its method and the template of its route: never by its path, its query, its headers or its
//! body, which may hold secrets.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request},
    http::Method,
    middleware::Next,
    response::Response,
};
use metrics::{counter, histogram};
use tracing::Instrument;

use super::problem::REQUEST_ID;

/// The route of what is nowhere.
const NO_ROUTE: &str = "none";

/// Notes a request and how it was answered. A stream is answered when it begins.
pub(super) async fn note(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = method_name(request.method());
    let route = request.extensions().get::<MatchedPath>().map_or(NO_ROUTE, MatchedPath::as_str).to_owned();
    let id = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
    let span = tracing::info_span!("request", request_id = id, method, route);
    async move {
        let response = next.run(request).await;
        let (status, elapsed) = (response.status(), started.elapsed());
        tracing::debug!(status = status.as_u16(), seconds = elapsed.as_secs_f64(), "a request was answered");
        let labels = [("method", method.to_owned()), ("route", route.clone()), ("status", status.as_u16().to_string())];
        counter!("proctor_http_requests_total", &labels).increment(1);
        histogram!("proctor_http_request_seconds", "route" => route).record(elapsed);
        response
    }
    .instrument(span)
    .await
}

/// One of a few names: a client may send any.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
