//! List filters: which processes a list shows.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::limits::check_items;
use super::name::check_name;
use super::nesting::{nests_within, too_deep};
use super::{Limits, ProcessOriginator, ProcessRecord, ProcessStatus, Refusal, SessionScope};

/// Which processes a list shows: those that meet all of it. The default shows what runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessListFilter {
    /// By status.
    #[serde(default)]
    pub status: ProcessStatusFilter,
    /// By kind of the identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// By label of the identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// By definition of the identity; equal JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<Value>,
    /// By who asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub originator: Option<OriginatorFilter>,
    /// By whether it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<bool>,
    /// By when it was registered.
    #[serde(default, skip_serializing_if = "TimeRange::is_unbounded")]
    pub created: TimeRange,
    /// By when it last changed.
    #[serde(default, skip_serializing_if = "TimeRange::is_unbounded")]
    pub updated: TimeRange,
    /// By tags: it carries all of these.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<String>,
}

/// By who asked for a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OriginatorFilter {
    /// The host itself.
    Host,
    /// This session; the frame counts only if the scope names one.
    Session(SessionScope),
}

/// A half-open range of time, in ms since the Unix epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeRange {
    /// The first instant that is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_ms: Option<u64>,
    /// The first instant that is no longer in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
}

impl TimeRange {
    /// Whether every instant is in it.
    #[must_use]
    pub const fn is_unbounded(&self) -> bool {
        self.from_ms.is_none() && self.until_ms.is_none()
    }

    /// Whether an instant is in it.
    #[must_use]
    pub fn contains(&self, at_ms: u64) -> bool {
        self.from_ms.is_none_or(|from| from <= at_ms) && self.until_ms.is_none_or(|until| at_ms < until)
    }
}

/// Why a text is no filter. The texts are what callers of the peer match on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "fault", rename_all = "snake_case")]
#[non_exhaustive]
pub enum InvalidFilter {
    /// It is no JSON object.
    #[error("process list expects a record of process filters, got {found}")]
    NotARecord {
        /// What was found.
        found: String,
    },
    /// It has a key that no filter has.
    #[error("unknown filter `{key}`; known are {known}")]
    UnknownKey {
        /// The key.
        key: String,
        /// What would have been known.
        known: String,
    },
    /// A value is not what its key takes.
    #[error("filter `{key}` {expected}, got {found}")]
    WrongValue {
        /// The key.
        key: String,
        /// What it must be.
        expected: String,
        /// What was found.
        found: String,
    },
}

impl ProcessListFilter {
    const KEYS: [&'static str; 9] =
        ["status", "kind", "label", "definition", "originator", "waiting", "created", "updated", "tags"];

    /// All processes.
    #[must_use]
    pub fn any() -> Self {
        Self::of_status(ProcessStatusFilter::Any)
    }

    /// Those of a status.
    #[must_use]
    pub fn of_status(status: ProcessStatusFilter) -> Self {
        Self { status, ..Self::default() }
    }

    /// Reads a filter as people and tools write it. A missing key and a null leave their part open, status apart:
    /// without one, what runs is shown.
    ///
    /// # Errors
    /// [`InvalidFilter`].
    pub fn decode(json: &Value) -> Result<Self, InvalidFilter> {
        let Value::Object(fields) = json else {
            return Err(InvalidFilter::NotARecord { found: excerpt(json) });
        };
        if let Some(key) = fields.keys().find(|key| !Self::KEYS.contains(&key.as_str())) {
            return Err(InvalidFilter::UnknownKey {
                key: key.chars().take(80).collect(),
                known: Self::KEYS.join(", "),
            });
        }
        Ok(Self {
            status: field(
                fields,
                "status",
                "status must be one of running, completed, failed, cancelled, abandoned, any",
            )?
            .unwrap_or_default(),
            kind: field(fields, "kind", "must be a string")?,
            label: field(fields, "label", "must be a string")?,
            definition: fields.get("definition").filter(|definition| !definition.is_null()).cloned(),
            originator: field(
                fields,
                "originator",
                "must be `\"host\"` or `{\"session\": {\"session_id\": …, \"agent_frame_id\": …}}`",
            )?,
            waiting: field(fields, "waiting", "must be a boolean")?,
            created: field(fields, "created", TimeRange::EXPECTED)?.unwrap_or_default(),
            updated: field(fields, "updated", TimeRange::EXPECTED)?.unwrap_or_default(),
            tags: field(fields, "tags", "must be a list of strings")?.unwrap_or_default(),
        })
    }

    /// Refuses what no registration could have, and what would cost more to compare than it may.
    ///
    /// # Errors
    /// [`Refusal::LimitExceeded`] and its like.
    pub fn check(&self) -> Result<(), Refusal> {
        for (what, name) in [("kind", &self.kind), ("label", &self.label)] {
            if let Some(name) = name {
                check_name(what, name)?;
            }
        }
        if let Some(OriginatorFilter::Session(scope)) = &self.originator {
            scope.check()?;
        }
        check_tags(&self.tags)?;
        match &self.definition {
            Some(definition) if !nests_within(definition, Limits::JSON_LEVELS) => {
                Err(Refusal::InvalidFilter(InvalidFilter::WrongValue {
                    key: "definition".to_owned(),
                    expected: format!("must nest at most {} levels", Limits::JSON_LEVELS),
                    found: too_deep(),
                }))
            }
            _ => Ok(()),
        }
    }

    /// Whether the filter shows a process.
    #[must_use]
    pub fn matches(&self, record: &ProcessRecord) -> bool {
        let registration = &record.registration;
        let identity = &registration.identity;
        let is =
            |wanted: &Option<String>, found: Option<&str>| wanted.as_deref().is_none_or(|wanted| found == Some(wanted));
        self.status.shows(&record.status)
            && is(&self.kind, Some(&identity.kind))
            && is(&self.label, identity.label.as_deref())
            && self.definition.as_ref().is_none_or(|wanted| identity.definition.as_ref() == Some(wanted))
            && self.originator.as_ref().is_none_or(|wanted| wanted.shows(&registration.provenance.originator))
            && self.waiting.is_none_or(|wanted| record.wait.is_some() == wanted)
            && self.created.contains(record.created_at_ms)
            && self.updated.contains(record.updated_at_ms)
            && self.tags.is_subset(&registration.tags)
    }
}

impl TimeRange {
    const EXPECTED: &'static str = "must be a range `{\"from_ms\": N, \"until_ms\": N}` of ms since the Unix epoch";
}

impl OriginatorFilter {
    fn shows(&self, originator: &ProcessOriginator) -> bool {
        match (self, originator) {
            (Self::Host, ProcessOriginator::Host) => true,
            (Self::Session(wanted), ProcessOriginator::Session { scope }) => {
                wanted.session_id() == scope.session_id()
                    && wanted.agent_frame_id().is_none_or(|frame| scope.agent_frame_id() == Some(frame))
            }
            (Self::Host, ProcessOriginator::Session { .. }) | (Self::Session(_), ProcessOriginator::Host) => false,
        }
    }
}

/// Refuses more tags than a process may have, and tags that are no names.
pub(crate) fn check_tags(tags: &BTreeSet<String>) -> Result<(), Refusal> {
    check_items("tags", tags.len(), Limits::TAGS)?;
    tags.iter().try_for_each(|tag| check_name("tag", tag))
}

/// An optional field; null counts as absent.
fn field<T: for<'de> Deserialize<'de>>(
    fields: &Map<String, Value>,
    key: &str,
    expected: &str,
) -> Result<Option<T>, InvalidFilter> {
    match fields.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) if !nests_within(value, Limits::JSON_LEVELS) => {
            Err(InvalidFilter::WrongValue { key: key.to_owned(), expected: expected.to_owned(), found: too_deep() })
        }
        Some(value) => T::deserialize(value).map(Some).map_err(|_| InvalidFilter::WrongValue {
            key: key.to_owned(),
            expected: expected.to_owned(),
            found: excerpt(value),
        }),
    }
}

/// A value as an error shows it.
fn excerpt(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a record".to_owned(),
        other => other.to_string().chars().take(80).collect(),
    }
}

/// Which statuses a list shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessStatusFilter {
    /// Not ended.
    #[default]
    Running,
    /// Ended well.
    Completed,
    /// Ended badly.
    Failed,
    /// Ended on request.
    Cancelled,
    /// Ended because nobody can finish it.
    Abandoned,
    /// All.
    Any,
}

impl ProcessStatusFilter {
    /// The status label that it shows; `None` shows all.
    #[must_use]
    pub const fn label(self) -> Option<&'static str> {
        match self {
            Self::Running => Some("running"),
            Self::Completed => Some("completed"),
            Self::Failed => Some("failed"),
            Self::Cancelled => Some("cancelled"),
            Self::Abandoned => Some("abandoned"),
            Self::Any => None,
        }
    }

    /// Whether it shows processes of this status.
    #[must_use]
    pub fn shows(self, status: &ProcessStatus) -> bool {
        self.label().is_none_or(|label| label == status.label())
    }
}
