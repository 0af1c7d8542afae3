//! Which names this host answers to, and from which pages: what keeps a foreign page in somebody's browser from running commands
//! here.
//!
//! It owns the checks of `Host`, of `Origin` and of the body's type. It does not know who is asking.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{extract::is_json, problem::Problem};

/// The names of this host, lower case, each with its port where it was given one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct HostNames(Arc<BTreeSet<String>>);

impl HostNames {
    /// Those of a listening address, and further ones.
    pub(crate) fn new(listen: SocketAddr, further: &BTreeSet<String>) -> Self {
        let port = listen.port();
        let mut names = further.clone();
        names.insert(listen.to_string());
        if listen.ip().is_loopback() {
            names.extend(["localhost", "127.0.0.1", "[::1]"].map(|name| format!("{name}:{port}")));
        }
        Self(Arc::new(names))
    }

    fn holds(&self, name: &str) -> bool {
        self.0.contains(&name.to_ascii_lowercase())
    }

    /// What is wrong with the headers of a request, if anything is.
    fn refusal(&self, headers: &HeaderMap) -> Option<Problem> {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        let host = text(header::HOST).unwrap_or("none");
        if headers.get_all(header::HOST).iter().count() > 1 || !self.holds(host) {
            let detail = format!("this host does not answer to the name `{host}`; `--allow-host` adds names");
            return Some(Problem::new(StatusCode::MISDIRECTED_REQUEST, "foreign_host", detail));
        }
        if let Some(origin) = text(header::ORIGIN) {
            let name = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            if !name.is_some_and(|name| self.holds(name)) {
                let detail = format!("pages of `{origin}` may not ask this host");
                return Some(Problem::new(StatusCode::FORBIDDEN, "foreign_origin", detail));
            }
        }
        None
    }
}

/// Refuses what is not meant for this host.
pub(crate) async fn check(State(names): State<HostNames>, request: Request, next: Next) -> Response {
    match names.refusal(request.headers()) {
        Some(problem) => problem.into_response(),
        None => next.run(request).await,
    }
}

/// Refuses what a foreign page could send without being asked: a form can have neither this type nor any other method that changes
/// something, and those often have no body that could have a type.
pub(crate) async fn check_type(request: Request, next: Next) -> Response {
    match refusal_of_type(request.method(), request.headers()) {
        Some(problem) => problem.into_response(),
        None => next.run(request).await,
    }
}

fn refusal_of_type(method: &Method, headers: &HeaderMap) -> Option<Problem> {
    let kind = headers.get(header::CONTENT_TYPE);
    if method.is_safe() || kind.map_or(*method != Method::POST, is_json) {
        return None;
    }
    let found = kind.map_or("none", |kind| kind.to_str().unwrap_or("?"));
    let detail = format!("expected `Content-Type: application/json`, found {found}");
    Some(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", detail))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn map(headers: &[(header::HeaderName, &str)]) -> HeaderMap {
        let value = |text| HeaderValue::from_str(text).expect("a value");
        headers.iter().map(|(name, text)| (name.clone(), value(text))).collect()
    }

    fn refused(headers: &[(header::HeaderName, &str)]) -> Option<u16> {
        let listen = "127.0.0.1:7117".parse().expect("an address");
        let names = HostNames::new(listen, &BTreeSet::from(["proctor.example".to_owned()]));
        names.refusal(&map(headers)).map(|problem| problem.status)
    }

    #[test]
    fn only_its_own_names_are_answered() {
        for host in ["127.0.0.1:7117", "LOCALHOST:7117", "[::1]:7117", "proctor.example"] {
            assert_eq!(refused(&[(header::HOST, host)]), None, "{host}");
        }
        for host in ["evil.example:7117", "127.0.0.1", "127.0.0.1:80", "proctor.example:7117", "localhost:7117.evil"] {
            assert_eq!(refused(&[(header::HOST, host)]), Some(421), "{host}");
        }
        assert_eq!(refused(&[]), Some(421));
        assert_eq!(refused(&[(header::HOST, "localhost:7117"), (header::HOST, "evil")]), Some(421));
    }

    #[test]
    fn only_its_own_pages_may_ask() {
        let host = (header::HOST, "localhost:7117");
        let asked_by = |origin| refused(&[host.clone(), (header::ORIGIN, origin)]);
        assert_eq!(asked_by("http://localhost:7117"), None);
        for origin in ["http://evil.example", "null", "http://localhost:1", "file://localhost:7117", "http://"] {
            assert_eq!(asked_by(origin), Some(403), "{origin}");
        }
    }

    #[test]
    fn what_changes_something_comes_as_json() {
        let sent = |method, headers: &[_]| refusal_of_type(&method, &map(headers)).map(|problem| problem.status);
        let kind = |kind| [(header::CONTENT_TYPE, kind)];
        for json in ["application/json", "Application/JSON; charset=utf-8"] {
            assert_eq!(sent(Method::POST, &kind(json)), None, "{json}");
        }
        for other in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonp"] {
            assert_eq!(sent(Method::POST, &kind(other)), Some(415), "{other}");
            assert_eq!(sent(Method::DELETE, &kind(other)), Some(415), "{other}");
            assert_eq!(sent(Method::GET, &kind(other)), None, "{other}");
        }
        assert_eq!(sent(Method::POST, &[]), Some(415));
        assert_eq!(sent(Method::DELETE, &[]), None);
    }
}
