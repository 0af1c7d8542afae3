//! How long a request may take that neither waits nor streams nor copies a store.

use std::time::Duration;

use axum::{
    extract::{Request, State},
    http::StatusCode,
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::time::timeout;

use super::problem::Problem;

/// More than any answer takes of a host that works.
pub(super) const BRIEF: Duration = Duration::from_secs(30);

/// Answers in time, if only that it cannot. What was asked may still be carried out: a command is not taken back by it.
pub(super) async fn hold(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    let answered = timeout(limit, next.run(request)).await;
    answered.unwrap_or_else(|_| {
        let detail = format!("there was no answer within {} s; it may still be carried out", limit.as_secs());
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_slow", detail).retry_after(1).into_response()
    })
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, middleware::from_fn_with_state, routing::get};
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn what_never_answers_is_a_problem_in_time() {
        let router: Router = Router::new()
            .route("/never", get(std::future::pending::<()>))
            .route("/soon", get(|| async {}))
            .layer(from_fn_with_state(Duration::from_millis(1), hold));
        let ask = |path| {
            let request = Request::builder().uri(path).body(Body::empty()).expect("a request");
            router.clone().oneshot(request)
        };
        let late = ask("/never").await.expect("an answer");
        let code = late.extensions().get::<Problem>().map(|problem| problem.code().to_owned());
        assert_eq!((late.status(), code.as_deref()), (StatusCode::SERVICE_UNAVAILABLE, Some("too_slow")));
        assert_eq!(ask("/soon").await.expect("an answer").status(), StatusCode::OK);
    }
}
