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
    let changes_nothing = request.method().is_safe();
    let answered = timeout(limit, next.run(request)).await;
    answered.unwrap_or_else(|_| {
        let late = format!("there was no answer within {} s", limit.as_secs());
        let problem = if changes_nothing {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_slow", late).retry_after(1)
        } else {
            // No `Retry-After`: clients that heed it would send the command once more unseen.
            let detail = format!("{late}; it may still be carried out: read before you send it again");
            Problem::new(StatusCode::GATEWAY_TIMEOUT, "outcome_unknown", detail)
        };
        problem.into_response()
    })
}

#[cfg(test)]
mod tests {
    use axum::{
        Router,
        body::Body,
        http::{Method, header},
        middleware::from_fn_with_state,
        routing::{any, get},
    };
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn what_never_answers_is_a_problem_in_time() {
        let router: Router = Router::new()
            .route("/never", any(std::future::pending::<()>))
            .route("/soon", get(|| async {}))
            .layer(from_fn_with_state(Duration::from_millis(1), hold));
        let ask = |method: Method, path| {
            let request = Request::builder().method(method).uri(path).body(Body::empty()).expect("a request");
            router.clone().oneshot(request)
        };
        let unknown = (StatusCode::GATEWAY_TIMEOUT, "outcome_unknown", false);
        for (method, expected) in [
            (Method::GET, (StatusCode::SERVICE_UNAVAILABLE, "too_slow", true)),
            (Method::POST, unknown),
            (Method::DELETE, unknown),
        ] {
            let late = ask(method, "/never").await.expect("an answer");
            let problem = late.extensions().get::<Problem>().expect("a problem");
            let is_to_be_tried_again = late.headers().contains_key(header::RETRY_AFTER);
            assert_eq!((late.status(), problem.code(), is_to_be_tried_again), expected);
        }
        assert_eq!(ask(Method::GET, "/soon").await.expect("an answer").status(), StatusCode::OK);
    }
}
