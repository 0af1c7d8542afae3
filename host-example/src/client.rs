//! A running host as the command line meets it: one request, one answer.
//!
//! It owns the connection, through the host's Unix socket or its port, and what is sent with each request. It does not know
//! which verb asks, nor how a host is chosen.

mod event_feed;
mod host_error;
mod socket_trust;

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{Method, RequestBuilder, Response, Url, redirect::Policy};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

pub(crate) use self::{
    event_feed::{EventFeed, Told},
    host_error::HostError,
};
use crate::{
    api::process_view::ProcessView,
    event_view::EventView,
    failure::{Failure, FailureKind},
    process_wait::{Awaited, WaitEnd},
};

/// How long a connection may take to come about.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// How long an answer may be silent. A stream of events says every 15 s that it lives.
const SILENCE_PATIENCE: Duration = Duration::from_secs(60);

/// How long one request waits; what waits longer asks again.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// A client of one host.
#[derive(Clone, Debug)]
pub(crate) struct HostClient {
    http: reqwest::Client,
    base: Url,
    token: Option<String>,
    place: HostPlace,
}

/// Where a host is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum HostPlace {
    /// Behind a Unix socket of this machine.
    Socket(PathBuf),
    /// Behind an address.
    Web(Url),
}

/// A page of processes.
#[derive(Debug, Deserialize)]
pub(crate) struct ProcessPage {
    /// The processes.
    pub(crate) processes: Vec<ProcessView>,
    /// Processes among them that are damaged and cannot be shown.
    #[serde(default)]
    pub(crate) damaged_process_ids: BTreeSet<String>,
    /// What the next page comes after.
    pub(crate) next_after: Option<String>,
}

/// A page of events.
#[derive(Debug, Deserialize)]
pub(crate) struct EventPage {
    /// The events.
    pub(crate) events: Vec<EventView>,
    /// What the next page comes after.
    pub(crate) next_after: Option<u64>,
}

/// How a request to wait was answered.
#[derive(Debug, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
enum WaitAnswer {
    Completed { process: Box<ProcessView> },
    Happened { event: EventView },
    Ended { process: Box<ProcessView> },
    Deadline,
}

impl HostClient {
    /// A client of the host behind this socket, if somebody listens there whom this user trusts.
    ///
    /// # Errors
    /// When the socket is there and may not be used, or belongs to another user than this one and root.
    pub(crate) fn at_socket(socket: &Path) -> Result<Option<Self>, Failure> {
        let stream = match UnixStream::connect(socket) {
            Ok(stream) => stream,
            // What a dead host left behind refuses, and nobody can listen behind a path that is too long.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::InvalidInput
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(host_error::unusable_socket(socket, &error)),
        };
        // Before a byte is sent: a command may hold secrets.
        socket_trust::check(socket, &stream)?;
        let base = parsed("http://proctor/")?;
        let http = builder().unix_socket(socket).build().map_err(|error| no_client(&error))?;
        Ok(Some(Self { http, base, token: None, place: HostPlace::Socket(socket.to_owned()) }))
    }

    /// A client of the host at this address.
    ///
    /// # Errors
    /// When no host can be there.
    pub(crate) fn at_url(text: &str, token: Option<String>) -> Result<Self, Failure> {
        let base = host_url(text)?;
        let http = builder().build().map_err(|error| no_client(&error))?;
        Ok(Self { http, base: base.clone(), token, place: HostPlace::Web(base) })
    }

    /// Where the host is.
    pub(crate) const fn place(&self) -> &HostPlace {
        &self.place
    }

    /// Whether it may be another machine.
    pub(crate) const fn is_remote(&self) -> bool {
        matches!(self.place, HostPlace::Web(_))
    }

    /// What the host has under this path.
    ///
    /// # Errors
    /// [`HostError`].
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<T, HostError> {
        let response = self.sent(self.request(Method::GET, path).query(query)).await?;
        self.read(response).await
    }

    /// What the host answers to this.
    ///
    /// # Errors
    /// [`HostError`].
    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &[&str], body: &Value) -> Result<Posted<T>, HostError> {
        let response = self.sent(self.request(Method::POST, path).json(body)).await?;
        let is_new = response.status() == reqwest::StatusCode::CREATED;
        Ok(Posted { is_new, answer: self.read(response).await? })
    }

    /// The process; `None` if the host does not know it.
    ///
    /// # Errors
    /// [`HostError`].
    pub(crate) async fn process(&self, id: &str) -> Result<Option<ProcessView>, HostError> {
        match self.get(&["processes", id], &[]).await {
            Err(HostError::Problem { code, .. }) if code == "unknown_process" => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// Waits as long as one request may, and no longer than this.
    ///
    /// # Errors
    /// [`HostError`].
    pub(crate) async fn wait(&self, id: &str, awaited: &Awaited, within: Duration) -> Result<WaitEnd, HostError> {
        let mut query = vec![("within_ms", within.min(LONGEST_WAIT).as_millis().to_string())];
        if let Awaited::Event { event_type, after } = awaited {
            query.push(("event_type", event_type.clone()));
            query.push(("after", after.to_string()));
        }
        Ok(match self.get(&["processes", id, "wait"], &query).await? {
            WaitAnswer::Completed { process } => WaitEnd::Completed(process),
            WaitAnswer::Happened { event } => WaitEnd::Happened(Box::new(event)),
            WaitAnswer::Ended { process } => WaitEnd::Ended(process),
            WaitAnswer::Deadline => WaitEnd::Deadline,
        })
    }

    /// The events of a process from behind a place on; `None` when all were told.
    ///
    /// # Errors
    /// [`HostError`].
    pub(crate) async fn follow(&self, id: &str, last_event_id: &str) -> Result<Option<EventFeed>, HostError> {
        let request = self.request(Method::GET, &["processes", id, "events", "stream"]);
        let response = self.sent(request.header("last-event-id", last_event_id)).await?;
        if response.status() == reqwest::StatusCode::NO_CONTENT {
            return Ok(None);
        }
        Ok(Some(EventFeed::new(self.clone(), response)))
    }

    /// The address of a path at this host, outside of the interface.
    pub(crate) fn page(&self, path: &str) -> Option<Url> {
        self.base.join(path).ok()
    }

    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let mut url = self.base.clone();
        // A base that takes no path is refused when the client is made.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        let request = self.http.request(method, url);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn sent(&self, request: RequestBuilder) -> Result<Response, HostError> {
        let response = request.send().await.map_err(|error| HostError::of_transport(&self.place, &error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.bytes().await.map_err(|error| HostError::of_transport(&self.place, &error))?;
        Err(HostError::of_answer(&self.place, status, &body, self.token.is_some()))
    }

    async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T, HostError> {
        let body = response.bytes().await.map_err(|error| HostError::of_transport(&self.place, &error))?;
        serde_json::from_slice(&body).map_err(|error| HostError::not_understood(&self.place, &error))
    }
}

/// The answer to what was sent.
#[derive(Debug)]
pub(crate) struct Posted<T> {
    /// Whether something was made.
    pub(crate) is_new: bool,
    /// The answer.
    pub(crate) answer: T,
}

impl std::fmt::Display for HostPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Web(url) => f.write_str(url.as_str().trim_end_matches('/')),
        }
    }
}

fn builder() -> reqwest::ClientBuilder {
    // A token goes where it was meant to go: neither to a proxy nor after a redirection.
    reqwest::Client::builder()
        .no_proxy()
        .redirect(Policy::none())
        .connect_timeout(CONNECT_PATIENCE)
        .read_timeout(SILENCE_PATIENCE)
}

fn no_client(error: &reqwest::Error) -> Failure {
    Failure::new(FailureKind::System, format!("no client for a host: {error}"))
}

fn parsed(text: &str) -> Result<Url, Failure> {
    let expected = "expected the address of a host such as `http://127.0.0.1:7117`";
    Url::parse(text).map_err(|error| Failure::new(FailureKind::Usage, format!("{expected}, found `{text}`: {error}")))
}

/// The address that was typed.
fn host_url(text: &str) -> Result<Url, Failure> {
    // `localhost:7117` would be read as the scheme `localhost`.
    let url = if text.contains("://") { parsed(text)? } else { parsed(&format!("http://{text}"))? };
    match url.scheme() {
        "http" if url.has_host() => {}
        "https" => {
            let line = format!(
                "expected an address that begins with `http://`, found `{text}`: a host speaks no TLS; go through a tunnel, such as \
                 `ssh -L 7117:127.0.0.1:7117 HOST`"
            );
            return Err(Failure::new(FailureKind::Usage, line));
        }
        _ => {
            let line = format!("expected the address of a host such as `http://127.0.0.1:7117`, found `{text}`");
            return Err(Failure::new(FailureKind::Usage, line));
        }
    }
    if url.path().starts_with("/login/") {
        let line =
            format!("`{text}` is a link for a browser: expected the address alone, `http://{}`", url.authority());
        return Err(Failure::new(FailureKind::Usage, line));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_typed_without_its_scheme() {
        for text in ["http://localhost:7117", "localhost:7117", "http://localhost:7117/"] {
            assert_eq!(host_url(text).expect(text).as_str(), "http://localhost:7117/");
        }
    }

    #[test]
    fn what_is_no_address_of_a_host_is_refused_in_words() {
        for (text, word) in [
            ("https://localhost", "no TLS"),
            ("ftp://localhost", "such as `http://127.0.0.1:7117`"),
            ("http://", "expected the address"),
            ("http://127.0.0.1:7117/login/abc", "link for a browser"),
        ] {
            let refused = host_url(text).expect_err(text);
            assert_eq!(refused.kind(), FailureKind::Usage);
            assert!(refused.to_string().contains(word), "{text}: {refused}");
        }
    }

    #[test]
    fn an_id_is_one_segment_of_a_path_whatever_is_in_it() {
        let client = HostClient::at_url("http://h:1", Some("secret".to_owned())).expect("a client");
        let request = client.request(Method::GET, &["processes", "a/b?c#d"]).build().expect("a request");
        assert_eq!(request.url().as_str(), "http://h:1/api/v1/processes/a%2Fb%3Fc%23d");
        assert_eq!(request.headers()["authorization"], "Bearer secret");
    }
}
