//! Who is asking, and whether they may.
//!
//! It owns how a token or a browser's session comes with a request, and what is answered to those who may not. It does not
//! know where tokens are kept, nor what a route does.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use axum_extra::extract::cookie::{Cookie, SameSite, SignedCookieJar};

use super::{Api, problem::Problem};
use crate::serve::credentials::{Caller, Scope};

/// The cookie of a browser that was let in.
const SESSION_COOKIE: &str = "proctor_session";

/// How long a browser stays let in, in seconds.
const SESSION_SECONDS: i64 = 30 * 24 * 3600;

/// Marks requests that came through the Unix socket, whose peer was checked when it connected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalPeer;

/// Finds out who asks, and notes it with the request.
pub(crate) async fn identify(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    let caller = caller_of(&api, &request);
    if let Some(caller) = caller {
        request.extensions_mut().insert(caller);
    }
    next.run(request).await
}

fn caller_of(api: &Api, request: &Request) -> Option<Caller> {
    if request.extensions().get::<LocalPeer>().is_some() {
        return Some(Caller { name: "local".to_owned(), scope: Scope::Operate });
    }
    match bearer(request.headers()) {
        Some(secret) => api.credentials.caller_of(secret).cloned(),
        None => browser(api, request.headers()),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, secret) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(secret.trim())
}

fn browser(api: &Api, headers: &HeaderMap) -> Option<Caller> {
    let cookie = SignedCookieJar::from_headers(headers, api.credentials.key().clone()).get(SESSION_COOKIE)?;
    let expires_at: i64 = cookie.value().parse().ok()?;
    let is_live = expires_at > jiff::Timestamp::now().as_second();
    is_live.then(|| Caller { name: "browser".to_owned(), scope: Scope::Operate })
}

/// The cookies that let a browser in.
pub(crate) fn let_browser_in(api: &Api) -> SignedCookieJar {
    let expires_at = jiff::Timestamp::now().as_second() + SESSION_SECONDS;
    let mut cookie = Cookie::new(SESSION_COOKIE, expires_at.to_string());
    cookie.set_path("/");
    cookie.set_http_only(true);
    cookie.set_same_site(SameSite::Strict);
    cookie.make_permanent();
    SignedCookieJar::new(api.credentials.key().clone()).add(cookie)
}

/// Lets those pass whose scope holds this one.
pub(crate) async fn require(State(needed): State<Scope>, request: Request, next: Next) -> Response {
    match request.extensions().get::<Caller>() {
        None => {
            let mut response = Problem::new(
                StatusCode::UNAUTHORIZED,
                "no_token",
                "expected a token of this host in `Authorization: Bearer …`; it is in the file beside the store that ends in `.tokens`",
            )
            .into_response();
            response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
            response
        }
        Some(caller) if caller.scope < needed => {
            let detail = format!(
                "this takes the scope `{}`, and the token `{}` has `{}`",
                scope_name(needed),
                caller.name,
                scope_name(caller.scope)
            );
            Problem::new(StatusCode::FORBIDDEN, "scope_too_small", detail).into_response()
        }
        Some(_) => next.run(request).await,
    }
}

const fn scope_name(scope: Scope) -> &'static str {
    match scope {
        Scope::Read => "read",
        Scope::Write => "write",
        Scope::Operate => "operate",
    }
}
