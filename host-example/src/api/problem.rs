//! What a caller is told when a request is not answered with what it asked for: a problem document (RFC 9457).
//!
//! It owns the codes, their status and their form. It does not know which route failed.

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use registry_actor::{
    domain::{CursorFault, Refusal},
    port::{LogError, RegistryError},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The header that names a request.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The media type of a problem.
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// A problem document.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// What kind of problem it is: `urn:proctor:problem:` and a code that does not change.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// The status of the response, in words.
    pub(crate) title: String,
    /// The status of the response.
    pub(crate) status: u16,
    /// What was expected and what was found.
    pub(crate) detail: String,
    /// The request, by the id that is in its `x-request-id` header and in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) instance: Option<String>,
    /// In how many seconds to try again.
    #[serde(skip)]
    pub(crate) retry_after_seconds: Option<u64>,
}

impl Problem {
    /// A problem of a kind, with its detail: one line, values included.
    pub(crate) fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:proctor:problem:{code}"),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            instance: None,
            retry_after_seconds: None,
        }
    }

    /// The same, worth another try in so many seconds.
    pub(crate) fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after_seconds: Some(seconds), ..self }
    }

    /// The code at the end of its type.
    pub(crate) fn code(&self) -> &str {
        self.kind.rsplit(':').next().unwrap_or(&self.kind)
    }

    /// A request that makes no sense.
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_request", detail)
    }

    /// Nothing is there.
    pub(crate) fn no_such_route() -> Self {
        Self::of_status(StatusCode::NOT_FOUND)
    }

    /// Something is there, and it takes other methods.
    pub(crate) fn method_not_allowed() -> Self {
        Self::of_status(StatusCode::METHOD_NOT_ALLOWED)
    }

    /// The fault is ours.
    pub(crate) fn internal(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    /// For what the layers around the routes answer by a status alone.
    pub(super) fn of_status(status: StatusCode) -> Self {
        let (code, detail) = match status {
            StatusCode::NOT_FOUND => ("no_such_route", "there is nothing under this path"),
            StatusCode::METHOD_NOT_ALLOWED => ("method_not_allowed", "this path does not take this method"),
            StatusCode::PAYLOAD_TOO_LARGE => ("body_too_large", "the body is longer than this host takes"),
            StatusCode::REQUEST_TIMEOUT => ("request_timeout", "the request did not come in time"),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => ("not_json", "expected a body of `application/json`"),
            status if status.is_server_error() => ("internal", "this host failed to answer"),
            _ => ("invalid_request", "the request makes no sense"),
        };
        Self::new(status, code, detail)
    }
}

impl IntoResponse for Problem {
    /// The status and the problem beside it; [`write_problems`] makes the body.
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        if let Some(seconds) = self.retry_after_seconds {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Gives every response that failed its problem document, those of routes that are not there too.
pub(crate) async fn write_problems(request: Request, next: Next) -> Response {
    let id = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok()).map(str::to_owned);
    let mut response = next.run(request).await;
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let mut problem = response.extensions_mut().remove::<Problem>().unwrap_or_else(|| Problem::of_status(status));
    problem.instance = id.map(|id| format!("urn:proctor:request:{id}"));
    if status.is_server_error() {
        tracing::error!(code = problem.code(), detail = problem.detail, "a request failed");
    }
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    let (mut parts, _) = response.into_parts();
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, body.into())
}

impl From<RegistryError> for Problem {
    fn from(error: RegistryError) -> Self {
        let detail = error.to_string();
        let (status, code) = match &error {
            RegistryError::Refused(refusal) => return Self::from(refusal.clone()),
            RegistryError::Busy { .. } => {
                return Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail).retry_after(1);
            }
            RegistryError::Unavailable { .. } => {
                return Self::new(StatusCode::SERVICE_UNAVAILABLE, "process_unavailable", detail).retry_after(1);
            }
            RegistryError::Closed => (StatusCode::SERVICE_UNAVAILABLE, "closed"),
            RegistryError::OutcomeUnknown { .. } | RegistryError::AcrossOutcomeUnknown { .. } => {
                (StatusCode::INTERNAL_SERVER_ERROR, "outcome_unknown")
            }
            RegistryError::NotStored { .. } => (StatusCode::INSUFFICIENT_STORAGE, "not_stored"),
            RegistryError::Store(LogError::Closed) => (StatusCode::SERVICE_UNAVAILABLE, "closed"),
            RegistryError::Store(_) => (StatusCode::INTERNAL_SERVER_ERROR, "store_failed"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        Self::new(status, code, detail)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        let (status, code) = match &refusal {
            Refusal::Unknown { .. } => (StatusCode::NOT_FOUND, "unknown_process"),
            Refusal::RegistrationConflict { .. } => (StatusCode::CONFLICT, "registration_conflict"),
            Refusal::AlreadyTerminal { .. } | Refusal::AbandonOfTerminal { .. } | Refusal::WaitOfTerminal { .. } => {
                (StatusCode::CONFLICT, "already_ended")
            }
            Refusal::ReplayConflict { .. } => (StatusCode::CONFLICT, "replay_conflict"),
            Refusal::HandleNotGranted { .. } => (StatusCode::CONFLICT, "not_granted"),
            Refusal::Cursor(CursorFault::Foreign { .. }) => (StatusCode::CONFLICT, "foreign_cursor"),
            // The store was restored: what the cursor had seen may never have happened.
            Refusal::Cursor(_) => (StatusCode::GONE, "rewound_cursor"),
            Refusal::LeaseLost { .. } => (StatusCode::CONFLICT, "lease_lost"),
            Refusal::LeaseHeld { .. } => (StatusCode::CONFLICT, "lease_held"),
            Refusal::DecisionPanicked { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "decision_panicked"),
            _ => (StatusCode::UNPROCESSABLE_ENTITY, "refused"),
        };
        Self::new(status, code, detail)
    }
}
