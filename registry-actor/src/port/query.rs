//! Reads. All of them are answered from the log.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::{ProcessEvent, ProcessId, ProcessLease, ProcessRecord, ProcessStatus, Sequence};

/// A read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "query", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Query {
    /// The record of a process. Answered by [`Answer::Process`].
    Process {
        /// The process.
        process_id: ProcessId,
    },
    /// A page of events, ascending. Answered by [`Answer::Events`].
    Events {
        /// The process.
        process_id: ProcessId,
        /// Exclusive lower bound. 0 leaves out nothing but the registration, which is never returned.
        after: Sequence,
        /// At most so many, 1 to [`EventPage::MAX_LIMIT`]; larger values are cut to it.
        limit: u32,
    },
    /// The first event of a type after a cursor. Answered by [`Answer::Event`].
    FirstEventOfType {
        /// The process.
        process_id: ProcessId,
        /// The type.
        event_type: String,
        /// Exclusive lower bound.
        after: Sequence,
    },
    /// The lease as it is stored, expired or not. Answered by [`Answer::Lease`].
    Lease {
        /// The process.
        process_id: ProcessId,
    },
    /// A page of records, ascending by id. Answered by [`Answer::Processes`].
    Processes {
        /// Which ones.
        filter: ProcessListFilter,
        /// Exclusive lower bound.
        after: Option<ProcessId>,
        /// At most so many, 1 to [`ProcessPage::MAX_LIMIT`]; larger values are cut to it.
        limit: u32,
    },
}

/// Answer to a [`Query`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", content = "value", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Answer {
    /// The record; absent if the process is unknown.
    Process(Option<Arc<ProcessRecord>>),
    /// Events.
    Events(EventPage),
    /// An event, if there is one.
    Event(Option<Arc<ProcessEvent>>),
    /// The lease; absent where there is none or the process is unknown.
    Lease(Option<Box<ProcessLease>>),
    /// Records.
    Processes(ProcessPage),
}

/// A page of events of one process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventPage {
    /// Ascending, dense.
    pub events: Vec<Arc<ProcessEvent>>,
    /// Whether the log held more when the page was read.
    pub has_more: bool,
}

impl EventPage {
    /// The largest page.
    pub const MAX_LIMIT: u32 = 10_000;
}

/// A page of records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessPage {
    /// Ascending by id.
    pub records: Vec<Arc<ProcessRecord>>,
    /// Whether more followed when the page was read.
    pub has_more: bool,
}

impl ProcessPage {
    /// The largest page.
    pub const MAX_LIMIT: u32 = 1_000;
}

/// Which processes a list shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessListFilter {
    /// By status.
    #[serde(default)]
    pub status: ProcessStatusFilter,
}

impl ProcessListFilter {
    /// All processes.
    pub const ANY: Self = Self { status: ProcessStatusFilter::Any };

    /// Whether the filter shows a process of this status.
    #[must_use]
    pub const fn matches(&self, status: &ProcessStatus) -> bool {
        match (self.status, status) {
            (ProcessStatusFilter::Any, _)
            | (ProcessStatusFilter::Running, ProcessStatus::Running)
            | (ProcessStatusFilter::Completed, ProcessStatus::Completed { .. })
            | (ProcessStatusFilter::Failed, ProcessStatus::Failed { .. })
            | (ProcessStatusFilter::Cancelled, ProcessStatus::Cancelled { .. })
            | (ProcessStatusFilter::Abandoned, ProcessStatus::Abandoned { .. }) => true,
            (
                ProcessStatusFilter::Running
                | ProcessStatusFilter::Completed
                | ProcessStatusFilter::Failed
                | ProcessStatusFilter::Cancelled
                | ProcessStatusFilter::Abandoned,
                _,
            ) => false,
        }
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
}
