//! Why a host did not answer with what it was asked for, and what people are told of it.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use reqwest::StatusCode;
use serde::Deserialize;
use thiserror::Error;

use super::HostPlace;
use crate::failure::{Failure, FailureKind};

/// Why a request was not answered as hoped.
#[derive(Debug, Error)]
pub(crate) enum HostError {
    /// Nobody was reached.
    #[error("{0}")]
    Unreachable(String),
    /// The connection broke off: what became of the request is not known.
    #[error("{0}")]
    Lost(String),
    /// What answered is no host, or one of another version.
    #[error("{0}")]
    NotUnderstood(String),
    /// The host refused.
    #[error("{detail}")]
    Problem {
        /// The status.
        status: u16,
        /// The kind of problem.
        code: String,
        /// What people are told.
        detail: String,
    },
}

#[derive(Deserialize)]
struct ProblemDocument {
    #[serde(rename = "type")]
    kind: String,
    detail: String,
}

/// The beginning of the type of each problem of a host.
const KIND_PREFIX: &str = "urn:proctor:problem:";

impl HostError {
    /// Whether the same request may be answered later.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Lost(_) => true,
            Self::NotUnderstood(_) => false,
            Self::Problem { status, .. } => [503, 504, 429].contains(status),
        }
    }

    /// Whether what was asked may have been done all the same.
    pub(crate) fn leaves_unknown(&self) -> bool {
        match self {
            Self::Unreachable(_) => false,
            // An answer was on its way, and did not come or was garbled.
            Self::Lost(_) | Self::NotUnderstood(_) => true,
            Self::Problem { code, .. } if code == "decision_panicked" => false,
            Self::Problem { status, code, .. } => [500, 504].contains(status) || code == "too_slow",
        }
    }

    pub(super) fn of_transport(place: &HostPlace, error: &reqwest::Error) -> Self {
        let reason = innermost(error);
        if error.is_connect() {
            let hint = match place {
                HostPlace::Web(_) => "; does `proctor serve` run there, and listen on that address?",
                HostPlace::Socket(_) => "",
            };
            return Self::Unreachable(format!("no host answers at {place}: {reason}{hint}"));
        }
        if let HostPlace::Socket(path) = place
            && let Some(owner) = other_owner(path)
        {
            return Self::Problem { status: 403, code: "foreign_user".to_owned(), detail: foreign_socket(path, owner) };
        }
        Self::Lost(format!("the connection to the host at {place} broke off: {reason}"))
    }

    pub(super) fn of_answer(place: &HostPlace, status: StatusCode, body: &[u8], had_token: bool) -> Self {
        let problem = serde_json::from_slice::<ProblemDocument>(body).ok();
        let Some((code, detail)) =
            problem.and_then(|problem| Some((problem.kind.strip_prefix(KIND_PREFIX)?.to_owned(), problem.detail)))
        else {
            // So say those that stand between a host and us.
            if [StatusCode::BAD_GATEWAY, StatusCode::GATEWAY_TIMEOUT].contains(&status) {
                return Self::Lost(format!("the host behind {place} did not answer: status {status}"));
            }
            return Self::NotUnderstood(format!(
                "what answers at {place} is no proctor host: expected a problem document, found status {status}"
            ));
        };
        let detail = match code.as_str() {
            "no_token" if had_token => format!(
                "the host at {place} does not know this token: expected one from the file beside its store that ends in `.tokens`"
            ),
            "no_token" => format!(
                "the host at {place} expects a token: give one with PROCTOR_TOKEN, `--token` or `--token-file`; it is in the file beside \
                 its store that ends in `.tokens`"
            ),
            "no_such_route" => format!("the host at {place} does not know this request: it is of another version"),
            _ => detail,
        };
        Self::Problem { status: status.as_u16(), code, detail }
    }

    pub(super) fn not_understood(place: &HostPlace, error: &serde_json::Error) -> Self {
        Self::NotUnderstood(format!("what answers at {place} is no proctor host, or one of another version: {error}"))
    }
}

impl From<HostError> for Failure {
    fn from(error: HostError) -> Self {
        let kind = match &error {
            HostError::Unreachable(_) => FailureKind::Unavailable,
            HostError::Lost(_) => FailureKind::Io,
            HostError::NotUnderstood(_) => FailureKind::Protocol,
            HostError::Problem { status, code, .. } => kind_of_problem(*status, code),
        };
        Self::new(kind, error.to_string())
    }
}

/// The same numbers as where the store is at hand.
fn kind_of_problem(status: u16, code: &str) -> FailureKind {
    match (status, code) {
        (_, "no_such_route" | "method_not_allowed") => FailureKind::Protocol,
        (_, "lease_lost" | "lease_held") => FailureKind::Temporary,
        (504, _) | (_, "store_failed" | "outcome_unknown" | "too_slow" | "not_stored") => FailureKind::Io,
        (_, "process_unavailable" | "foreign_host") => FailureKind::Unavailable,
        (401 | 403, _) => FailureKind::NoPermission,
        (404 | 410, _) => FailureKind::NoInput,
        (409, _) => FailureKind::CannotCreate,
        (429 | 503, _) => FailureKind::Temporary,
        (400..=499, _) => FailureKind::Usage,
        _ => FailureKind::Software,
    }
}

/// Why the socket of a host may not be used.
pub(super) fn unusable_socket(path: &Path, error: &io::Error) -> Failure {
    match (error.kind(), other_owner(path)) {
        (io::ErrorKind::PermissionDenied, Some(owner)) => {
            Failure::new(FailureKind::NoPermission, foreign_socket(path, owner))
        }
        (io::ErrorKind::PermissionDenied, None) => {
            Failure::new(FailureKind::NoPermission, format!("no permission for the socket {}: {error}", path.display()))
        }
        _ => Failure::new(FailureKind::Unavailable, format!("cannot use the socket {}: {error}", path.display())),
    }
}

fn foreign_socket(path: &Path, owner: u32) -> String {
    format!(
        "the socket {} is that of the user with id {owner}, and only that user and root may use it: ask the host with `--url` and a token",
        path.display()
    )
}

/// The user that a file belongs to, if that is another one.
fn other_owner(path: &Path) -> Option<u32> {
    let own = rustix::process::geteuid().as_raw();
    fs::symlink_metadata(path).ok().map(|found| found.uid()).filter(|owner| *owner != own && own != 0)
}

/// What lies at the bottom of an error, in one line: the layers above it say what we say ourselves.
fn innermost(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, body: &str, had_token: bool) -> HostError {
        let place = HostPlace::Web("http://h:1".parse().expect("an address"));
        HostError::of_answer(&place, StatusCode::from_u16(status).expect("a status"), body.as_bytes(), had_token)
    }

    fn problem(status: u16, code: &str) -> Failure {
        answered(status, &format!(r#"{{"type":"urn:proctor:problem:{code}","detail":"why"}}"#), false).into()
    }

    #[test]
    fn a_problem_has_the_number_that_it_has_at_a_store() {
        for (status, code, kind) in [
            (404, "unknown_process", FailureKind::NoInput),
            (410, "pruned", FailureKind::NoInput),
            (409, "registration_conflict", FailureKind::CannotCreate),
            (409, "lease_held", FailureKind::Temporary),
            (422, "invalid_request", FailureKind::Usage),
            (401, "no_token", FailureKind::NoPermission),
            (403, "scope_too_small", FailureKind::NoPermission),
            (503, "stopping", FailureKind::Temporary),
            (507, "not_stored", FailureKind::Io),
            (503, "too_slow", FailureKind::Io),
            (504, "outcome_unknown", FailureKind::Io),
            (504, "any_other", FailureKind::Io),
            (500, "internal", FailureKind::Software),
            (404, "no_such_route", FailureKind::Protocol),
        ] {
            assert_eq!(problem(status, code).kind(), kind, "{status} {code}");
        }
    }

    #[test]
    fn what_is_no_problem_document_comes_from_no_host() {
        for body in ["", "<html>", r#"{"type":"about:blank","detail":"x"}"#] {
            let failure = Failure::from(answered(404, body, false));
            assert_eq!(failure.kind(), FailureKind::Protocol, "{body}");
            assert!(failure.to_string().contains("no proctor host"), "{failure}");
        }
    }

    #[test]
    fn a_wrong_token_is_told_from_none() {
        let body = r#"{"type":"urn:proctor:problem:no_token","detail":"x"}"#;
        assert!(answered(401, body, true).to_string().contains("does not know this token"));
        assert!(answered(401, body, false).to_string().contains("expects a token"));
    }

    #[test]
    fn what_may_have_been_done_is_told_from_what_was_not() {
        let told = |status, code| {
            answered(status, &format!(r#"{{"type":"urn:proctor:problem:{code}","detail":"why"}}"#), false)
                .leaves_unknown()
        };
        for (status, code) in [(504, "outcome_unknown"), (503, "too_slow"), (500, "internal")] {
            assert!(told(status, code), "{status} {code}");
        }
        for (status, code) in [(503, "busy"), (503, "stopping"), (409, "registration_conflict"), (507, "not_stored")] {
            assert!(!told(status, code), "{status} {code}");
        }
        for status in [502, 504] {
            let behind = answered(status, "<html>", false);
            assert!(behind.leaves_unknown() && Failure::from(behind).kind() == FailureKind::Io, "{status}");
        }
        assert!(!HostError::Unreachable(String::new()).leaves_unknown());
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        assert!(HostError::Lost(String::new()).is_passing());
        assert!(answered(503, r#"{"type":"urn:proctor:problem:stopping","detail":"x"}"#, false).is_passing());
        assert!(!answered(404, r#"{"type":"urn:proctor:problem:unknown_process","detail":"x"}"#, false).is_passing());
        assert!(!HostError::NotUnderstood(String::new()).is_passing());
    }
}
