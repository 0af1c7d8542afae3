//! How a browser comes in: by a link that is good once and for a while.
//!
//! It owns these links. It does not know what the browser may do then.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Api, access,
    extract::{Json, OptionalJson, Path},
    problem::Problem,
};
use crate::serve::credentials::random_text;

/// How long a link is good.
const CODE_LIFE: Duration = Duration::from_mins(10);

/// How many links may be good at the same time.
const CODES: usize = 100;

/// The links that are good.
#[derive(Default)]
pub(crate) struct LoginCodes(Mutex<HashMap<String, Instant>>);

impl LoginCodes {
    /// A new code; `None` if too many are good.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub(crate) fn create(&self, now: Instant) -> Result<Option<String>, getrandom::Error> {
        let code = random_text::<24>()?;
        let mut codes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        codes.retain(|_, good_until| *good_until > now);
        if codes.len() >= CODES {
            return Ok(None);
        }
        codes.insert(code.clone(), now + CODE_LIFE);
        Ok(Some(code))
    }

    /// Whether the code is good. It is not any more after that.
    fn take(&self, code: &str, now: Instant) -> bool {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(code);
        taken.is_some_and(|good_until| good_until > now)
    }
}

/// The routes that a browser comes in by.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/login/{code}", get(enter))
}

/// The path of a link.
pub(crate) fn path_of(code: &str) -> String {
    format!("/login/{code}")
}

async fn enter(State(api): State<Arc<Api>>, Path(code): Path<String>) -> Response {
    if !api.login_codes.take(&code, Instant::now()) {
        let detail = "this link was used or is too old; `proctor open` makes another one";
        return Problem::new(StatusCode::FORBIDDEN, "link_used", detail).into_response();
    }
    (access::let_browser_in(&api), Redirect::to("/")).into_response()
}

/// A link that lets a browser in.
#[derive(Serialize, ToSchema)]
pub(crate) struct LoginLink {
    /// Its path at this host. It is good once, and for ten minutes.
    path: String,
    /// The whole of it, by the address that the host listens on.
    url: String,
}

/// Nothing needs to be said.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LoginLinkRequest {}

/// Make a link that lets a browser in
///
/// The link is good once, and for ten minutes.
#[utoipa::path(
    post, path = "/login-links", tag = "host", operation_id = "create_login_link", request_body = LoginLinkRequest,
    responses((status = 201, body = LoginLink))
)]
pub(super) async fn create_link(
    State(api): State<Arc<Api>>,
    OptionalJson(LoginLinkRequest {}): OptionalJson<LoginLinkRequest>,
) -> Result<(StatusCode, Json<LoginLink>), Problem> {
    let code = api.login_codes.create(Instant::now()).map_err(|error| Problem::internal(error.to_string()))?;
    let code = code.ok_or_else(|| {
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_links", format!("{CODES} links are good already"))
            .retry_after(60)
    })?;
    let path = path_of(&code);
    Ok((StatusCode::CREATED, Json(LoginLink { url: format!("http://{}{path}", api.config.listen), path })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_good_once_and_for_a_while() {
        let (codes, now) = (LoginCodes::default(), Instant::now());
        let code = || codes.create(now).expect("randomness").expect("room");
        let (used, old) = (code(), code());
        assert!(codes.take(&used, now));
        assert!(!codes.take(&used, now));
        assert!(!codes.take(&old, now + CODE_LIFE));
        assert!(!codes.take("", now));
    }

    #[test]
    fn there_is_a_bound_to_them_that_time_lifts() {
        let (codes, now) = (LoginCodes::default(), Instant::now());
        for _ in 0..CODES {
            assert!(codes.create(now).expect("randomness").is_some());
        }
        assert!(codes.create(now).expect("randomness").is_none());
        assert!(codes.create(now + CODE_LIFE).expect("randomness").is_some());
    }
}
