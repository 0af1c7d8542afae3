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
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use time::Duration;

use super::{Api, problem::Problem};
use crate::serve::credentials::{Caller, Scope, random_text};

/// The header by which the page shows that it is the one that was let in. Cookies go to every port of a machine; what a page keeps is for
/// its own port alone.
const SESSION_HEADER: &str = "x-proctor-session";

/// How long a browser stays let in, in days.
const SESSION_DAYS: i64 = 30;

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

/// A browser that was let in has both: the cookie, which is signed and names the secret by its digest, and the secret.
fn browser(api: &Api, headers: &HeaderMap) -> Option<Caller> {
    let secret = headers.get(SESSION_HEADER)?.to_str().ok()?;
    let jar = SignedCookieJar::from_headers(headers, api.credentials.key().clone());
    let cookie = jar.get(&cookie_name(api))?;
    let (expires_at, digest) = cookie.value().split_once('.')?;
    let is_live = expires_at.parse::<i64>().ok()? > jiff::Timestamp::now().as_second();
    (is_live && digest == digest_of(secret)).then(|| Caller { name: "browser".to_owned(), scope: Scope::Operate })
}

/// Lets a browser in: the cookies that it gets, and the secret that its page keeps.
///
/// # Errors
/// When the system gives no randomness.
pub(crate) fn let_browser_in(api: &Api) -> Result<(SignedCookieJar, String), getrandom::Error> {
    let secret = random_text::<24>()?;
    let life = Duration::days(SESSION_DAYS);
    let expires_at = jiff::Timestamp::now().as_second() + life.whole_seconds();
    let mut cookie = Cookie::new(cookie_name(api), format!("{expires_at}.{}", digest_of(&secret)));
    cookie.set_path("/");
    cookie.set_http_only(true);
    cookie.set_same_site(SameSite::Strict);
    cookie.set_max_age(life);
    Ok((SignedCookieJar::new(api.credentials.key().clone()).add(cookie), secret))
}

/// Hosts at several ports of one name must not take each other's place.
fn cookie_name(api: &Api) -> String {
    format!("proctor_session_{}", api.config.listen.port())
}

fn digest_of(secret: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(secret.as_bytes()))
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
