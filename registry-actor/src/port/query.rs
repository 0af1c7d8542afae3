//! Reads. All of them are answered from the log.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::{
    ChangeCursor, Limits, ProcessEvent, ProcessHandleGrant, ProcessId, ProcessLease, ProcessListFilter, ProcessRecord,
    ProcessWakeDelivery, Refusal, RegistrationCursor, Sequence, SessionDeletion, SessionScope, Tombstone, WakeCursor,
};

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
    /// What is left of a pruned process, whether or not its id lives again. Answered by [`Answer::Tombstone`].
    Tombstone {
        /// The process.
        process_id: ProcessId,
    },
    /// The last events, ascending. Answered by [`Answer::Events`], whose `has_more` says whether older ones exist.
    RecentEvents {
        /// The process.
        process_id: ProcessId,
        /// At most so many, 1 to [`EventPage::MAX_LIMIT`]; larger values are cut to it.
        limit: u32,
    },
    /// How many events of a type there are up to a sequence. Answered by [`Answer::Count`].
    CountEventsThrough {
        /// The process.
        process_id: ProcessId,
        /// The type; one that is not declared counts 0.
        event_type: String,
        /// Inclusive upper bound.
        through: Sequence,
    },
    /// A page of the events that woke somebody and are not acknowledged, with or without a known target, ascending.
    /// Answered by [`Answer::Events`].
    WakeEvents {
        /// The process.
        process_id: ProcessId,
        /// Exclusive lower bound.
        after: Sequence,
        /// At most so many, 1 to [`EventPage::MAX_LIMIT`]; larger values are cut to it.
        limit: u32,
    },
    /// A page of events, dense and ascending. Answered by [`Answer::Events`].
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
    /// The grants of exactly this scope, each with its process, ascending by process. Answered by
    /// [`Answer::HandleGrants`].
    HandleGrants {
        /// The scope.
        scope: SessionScope,
        /// Only those on processes that have not ended.
        live_only: bool,
        /// Exclusive lower bound.
        after: Option<ProcessId>,
        /// At most so many, 1 to [`ProcessPage::MAX_LIMIT`]; larger values are cut to it.
        limit: u32,
    },
    /// The grant of exactly this scope on a process. Answered by [`Answer::HandleGrant`].
    HandleGrant {
        /// The scope.
        scope: SessionScope,
        /// The process.
        process_id: ProcessId,
    },
    /// Who may address a process, ascending by scope. Answered by [`Answer::GrantsOfProcess`].
    GrantsOfProcess {
        /// The process.
        process_id: ProcessId,
        /// Exclusive lower bound.
        after: Option<SessionScope>,
        /// At most so many, 1 to [`ProcessPage::MAX_LIMIT`]; larger values are cut to it.
        limit: u32,
    },
    /// The wakes of exactly this target that are not settled, in the order in which they came about. Answered by
    /// [`Answer::PendingWakes`].
    PendingWakes {
        /// The target.
        target: SessionScope,
        /// Exclusive lower bound; `None` begins at the oldest.
        after: Option<WakeCursor>,
        /// At most so many, 1 to [`EventPage::MAX_LIMIT`]; larger values are cut to it.
        limit: u32,
    },
    /// What changed in the store after a cursor, in commit order. Answered by [`Answer::Changes`].
    Changes {
        /// Exclusive lower bound; `None` begins at the first change that is retained.
        after: Option<ChangeCursor>,
        /// At most so many, 1 to [`EventPage::MAX_LIMIT`]; larger values are cut to it.
        limit: u32,
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
    /// A page of records, the last registered first. Answered by [`Answer::RecentProcesses`].
    RecentProcesses {
        /// Which ones.
        filter: ProcessListFilter,
        /// Exclusive upper bound; `None` begins at the newest.
        before: Option<RegistrationCursor>,
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
    /// Records, newest first.
    RecentProcesses(RecentProcessPage),
    /// What is left of a pruned process.
    Tombstone(Option<Tombstone>),
    /// How many.
    Count(u64),
    /// Grants of a scope.
    HandleGrants(HandleGrantPage),
    /// A grant, if there is one.
    HandleGrant(Option<ProcessHandleGrant>),
    /// Grants of a process.
    GrantsOfProcess(ProcessGrantPage),
    /// Pending wakes.
    PendingWakes(PendingWakePage),
    /// Changes of the store.
    Changes(ChangePage),
}

/// A page of events of one process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventPage {
    /// Ascending.
    pub events: Vec<Arc<ProcessEvent>>,
    /// Whether the log held more when the page was read.
    pub has_more: bool,
}

impl EventPage {
    /// The largest page.
    pub const MAX_LIMIT: u32 = Limits::EVENTS_PER_PAGE;
}

/// A page of records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessPage {
    /// Ascending by id.
    pub records: Vec<Arc<ProcessRecord>>,
    /// Processes among them whose records are damaged, ascending by id: one of them does not keep the others from being listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<ProcessId>,
    /// Whether more followed when the page was read. Then there is a record in it, behind which to go on.
    pub has_more: bool,
}

impl ProcessPage {
    /// The largest page.
    pub const MAX_LIMIT: u32 = Limits::RECORDS_PER_PAGE;
}

/// A page of records, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecentProcessPage {
    /// The last registered first.
    pub records: Vec<Arc<ProcessRecord>>,
    /// Processes among them whose records are damaged, the last registered first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<ProcessId>,
    /// Where to go on: before the last record of the page. `None` if no more followed when the page was read.
    pub next: Option<RegistrationCursor>,
}

/// A page of grants of one scope, each with its process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HandleGrantPage {
    /// Ascending by process.
    pub entries: Vec<(ProcessHandleGrant, Arc<ProcessRecord>)>,
    /// Whether more followed when the page was read.
    pub has_more: bool,
}

/// A page of grants of one process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessGrantPage {
    /// Ascending by scope: by session, then the session's own scope before its frames.
    pub grants: Vec<ProcessHandleGrant>,
    /// Whether more followed when the page was read.
    pub has_more: bool,
}

/// A page of pending wakes of one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingWakePage {
    /// In the order in which they came about.
    pub wakes: Vec<PendingWake>,
    /// Whether more followed when the page was read.
    pub has_more: bool,
}

/// A wake that nobody has acknowledged yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingWake {
    /// Where to go on after it.
    pub cursor: WakeCursor,
    /// The wake. It is settled by an acknowledgement of its process and sequence.
    pub delivery: ProcessWakeDelivery,
}

/// A page of the change feed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangePage {
    /// In commit order.
    pub entries: Vec<FeedEntry>,
    /// Where to go on: after the last entry of the page; where the page began, if it has none.
    pub next: ChangeCursor,
    /// The end of the store when the page was read: every change up to it that will ever exist can be read.
    pub safe_through: ChangeCursor,
    /// Whether more followed when the page was read.
    pub has_more: bool,
}

/// An entry of the change feed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeedEntry {
    /// Where to go on after it: who projects the feed entry by entry notes this one together with what came of it.
    pub cursor: ChangeCursor,
    /// What changed.
    pub change: ProcessChange,
}

/// One change of the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "change", content = "value", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ProcessChange {
    /// A process gained an event; its registration is one.
    Event(Arc<ProcessEvent>),
    /// A process was pruned. Its events are gone from the feed.
    Pruned(Tombstone),
    /// A session was deleted. What that changed of processes are events of theirs, before it.
    SessionDeleted(SessionDeletion),
}

impl ChangePage {
    /// What changed, without the cursors.
    pub fn into_changes(self) -> impl Iterator<Item = ProcessChange> {
        self.entries.into_iter().map(|entry| entry.change)
    }
}

impl Query {
    /// Refuses what can be refused without reading anything.
    ///
    /// # Errors
    /// [`Refusal::EmptyPage`], and those of a filter.
    pub fn check(&self) -> Result<(), Refusal> {
        match self {
            Self::Events { limit: 0, .. }
            | Self::RecentEvents { limit: 0, .. }
            | Self::WakeEvents { limit: 0, .. }
            | Self::Processes { limit: 0, .. }
            | Self::RecentProcesses { limit: 0, .. }
            | Self::HandleGrants { limit: 0, .. }
            | Self::GrantsOfProcess { limit: 0, .. }
            | Self::PendingWakes { limit: 0, .. }
            | Self::Changes { limit: 0, .. } => Err(Refusal::EmptyPage),
            Self::Processes { filter, .. } | Self::RecentProcesses { filter, .. } => filter.check(),
            _ => Ok(()),
        }
    }
}
