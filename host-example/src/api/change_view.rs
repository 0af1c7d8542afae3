//! A change of the store as the API shows it.

use registry_actor::{
    domain::{SessionDeletion, Tombstone},
    port::ProcessChange,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::Problem;
use crate::event_view::EventView;

/// A change of the store.
#[derive(Clone, PartialEq, Debug, Deserialize, Serialize, ToSchema)]
#[serde(tag = "change", rename_all = "snake_case")]
pub(crate) enum ChangeView {
    /// A process gained an event; its registration is one, with the sequence 0.
    Event(EventView),
    /// An ended process was pruned: its events are gone from the feed.
    Pruned(TombstoneView),
    /// A session was deleted. What that changed of processes are events of theirs, before it.
    SessionDeleted(SessionDeletionView),
}

/// What is left of a pruned process.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct TombstoneView {
    /// The process.
    pub(crate) process_id: String,
    /// Which life of its id it was, from 1.
    pub(crate) generation: u32,
    /// `completed`, `failed`, `cancelled` or `abandoned`.
    pub(crate) status: String,
    /// When it was registered, in ms since the Unix epoch.
    pub(crate) created_at_ms: u64,
    /// When it ended, in ms since the Unix epoch.
    pub(crate) terminal_at_ms: u64,
    /// When it was pruned, in ms since the Unix epoch.
    pub(crate) pruned_at_ms: u64,
}

/// A session that was deleted.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct SessionDeletionView {
    /// The session.
    pub(crate) session_id: String,
    /// Grants that went with it.
    pub(crate) revoked_handle_count: u64,
    /// Wakes that nobody takes any more.
    pub(crate) deleted_wake_count: u64,
    /// When, in ms since the Unix epoch.
    pub(crate) deleted_at_ms: u64,
}

impl ChangeView {
    /// The view of a change.
    ///
    /// # Errors
    /// When it is of a kind that has no name here yet.
    pub(crate) fn new(change: &ProcessChange) -> Result<Self, Problem> {
        match change {
            ProcessChange::Event(event) => Ok(Self::Event(EventView::new(event))),
            ProcessChange::Pruned(tombstone) => Ok(Self::Pruned(TombstoneView::new(tombstone))),
            ProcessChange::SessionDeleted(deletion) => Ok(Self::SessionDeleted(SessionDeletionView::new(deletion))),
            other => Err(Problem::internal(format!("a change has no view: {other:?}"))),
        }
    }

    /// Its kind, by which a stream names it.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Event(_) => "event",
            Self::Pruned(_) => "pruned",
            Self::SessionDeleted(_) => "session_deleted",
        }
    }
}

impl TombstoneView {
    fn new(tombstone: &Tombstone) -> Self {
        Self {
            process_id: tombstone.process_id.to_string(),
            generation: tombstone.generation,
            status: tombstone.terminal_state.label().to_owned(),
            created_at_ms: tombstone.created_at_ms,
            terminal_at_ms: tombstone.terminal_at_ms,
            pruned_at_ms: tombstone.pruned_at_ms,
        }
    }
}

impl SessionDeletionView {
    fn new(deletion: &SessionDeletion) -> Self {
        Self {
            session_id: deletion.session_id.clone(),
            revoked_handle_count: deletion.revoked_handle_count,
            deleted_wake_count: deletion.deleted_wake_count,
            deleted_at_ms: deletion.deleted_at_ms,
        }
    }
}
