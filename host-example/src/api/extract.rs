//! What comes with a request: path, query and body, each with a problem that says what was expected.

use std::{error::Error, iter::successors};

use axum::{
    body::Bytes,
    extract::{
        FromRequest, FromRequestParts, Request,
        rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection},
    },
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use registry_actor::domain::ProcessId;
use serde::{Serialize, de::DeserializeOwned};
use tower_http::timeout::TimeoutError;

use super::problem::Problem;

/// A JSON body, in or out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Json<T>(pub(crate) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        read(&body_of(request, state).await?).map(Self)
    }
}

/// A JSON body that need not be there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OptionalJson<T>(pub(crate) T);

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for OptionalJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let body = body_of(request, state).await?;
        if body.is_empty() { Ok(Self(T::default())) } else { read(&body).map(Self) }
    }
}

/// What was sent, if it is said to be JSON.
async fn body_of<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    let kind = request.headers().get(header::CONTENT_TYPE);
    if !kind.is_some_and(is_json) {
        return Err(Problem::of_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    Ok(Bytes::from_request(request, state).await?)
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    // A record would be read from a list of its fields too.
    if body.trim_ascii_start().first() == Some(&b'[') {
        let detail = "expected an object, found a list";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_body", detail));
    }
    let axum::Json(body) = axum::Json::from_bytes(body)?;
    Ok(body)
}

/// Whether a `Content-Type` is that of JSON.
pub(super) fn is_json(value: &axum::http::HeaderValue) -> bool {
    let essence = value.to_str().unwrap_or("?").split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// What is in the query.
#[derive(Clone, Copy, Debug, FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Problem))]
pub(crate) struct Query<T>(pub(crate) T);

/// What is in the path.
#[derive(Clone, Copy, Debug, FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Problem))]
pub(crate) struct Path<T>(pub(crate) T);

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        if is_late(&rejection) {
            return Self::of_status(StatusCode::REQUEST_TIMEOUT);
        }
        let code = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => "body_too_large",
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "not_json",
            _ => "invalid_body",
        };
        Self::new(rejection.status(), code, rejection.body_text())
    }
}

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Self {
        if is_late(&rejection) {
            return Self::of_status(StatusCode::REQUEST_TIMEOUT);
        }
        match rejection.status() {
            status @ StatusCode::PAYLOAD_TOO_LARGE => Self::of_status(status),
            status => Self::new(status, "invalid_body", rejection.body_text()),
        }
    }
}

/// Whether the body did not come in time.
fn is_late(rejection: &dyn Error) -> bool {
    successors(rejection.source(), |&error| error.source()).any(|error| error.is::<TimeoutError>())
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_query", rejection.body_text())
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_path", rejection.body_text())
    }
}

/// The id of a process, as it stands in a path or a body.
///
/// # Errors
/// When no process can have it, or when clients and browsers would take it for a step in a path: `.` and `..`.
pub(crate) fn process_id(text: &str) -> Result<ProcessId, Problem> {
    if matches!(text, "." | "..") {
        return Err(invalid_id(format!("expected an id that can stand in a path, found `{text}`")));
    }
    place_by_id(text)
}

/// The id behind which a page begins. A process may have been given any id by other means, and the page behind it is to be had.
///
/// # Errors
/// When no process can have it.
pub(crate) fn place_by_id(text: &str) -> Result<ProcessId, Problem> {
    ProcessId::new(text).map_err(|error| invalid_id(error.to_string()))
}

fn invalid_id(detail: String) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_process_id", detail)
}
