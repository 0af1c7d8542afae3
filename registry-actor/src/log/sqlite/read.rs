//! What a read asks of the file, as functions of a connection. Each is one short transaction, so that none keeps the log
//! file from being emptied, and nothing is handed out before its checksum or its link was checked.

mod change;
mod event;
mod grant;
mod list;
mod process;
mod wake;

use std::sync::Arc;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode};

pub(super) use self::change::{check_cursor, check_marks, encode_placed, feed};
pub(super) use self::event::{EventRow, event_at, find_replays};
pub(super) use self::grant::{frame_of, grant_of, grants_agree};
pub(super) use self::process::{lease_of, load, load_within, locate, process_id_in, process_ids, record_of};
pub(super) use self::wake::stored_wakes;
use crate::domain::{ProcessId, Refusal, Sequence};
use crate::port::{Answer, LogError, Query};

/// Why a read failed: the statement, or what it found.
pub(super) enum ReadError {
    Statement(rusqlite::Error),
    Found(LogError),
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Statement(error)
    }
}

impl From<LogError> for ReadError {
    fn from(error: LogError) -> Self {
        Self::Found(error)
    }
}

impl From<Refusal> for ReadError {
    fn from(refusal: Refusal) -> Self {
        Self::Found(refusal.into())
    }
}

impl From<ReadError> for LogError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Statement(error) => Self::Unreadable { reason: error.to_string() },
            ReadError::Found(error) => error,
        }
    }
}

pub(super) fn query(connection: &Connection, query: &Query) -> Result<Answer, ReadError> {
    query.check()?;
    let snapshot = connection.unchecked_transaction()?;
    match query {
        Query::Process { process_id } => {
            let Some(located) = locate(&snapshot, process_id)? else { return Ok(Answer::Process(None)) };
            Ok(Answer::Process(Some(Arc::new(record_of(&snapshot, process_id, located.process_no)?))))
        }
        Query::Tombstone { process_id } => Ok(Answer::Tombstone(change::tombstone_of(&snapshot, process_id)?)),
        Query::Events { process_id, after, limit } => event::page(&snapshot, process_id, *after, *limit),
        Query::RecentEvents { process_id, limit } => event::recent(&snapshot, process_id, *limit),
        Query::FirstEventOfType { process_id, event_type, after } => {
            event::first_of_type(&snapshot, process_id, event_type, *after)
        }
        Query::CountEventsThrough { process_id, event_type, through } => {
            event::count_through(&snapshot, process_id, event_type, *through)
        }
        Query::WakeEvents { process_id, after, limit } => wake::events(&snapshot, process_id, *after, *limit),
        Query::Lease { process_id } => {
            let Some(located) = locate(&snapshot, process_id)? else { return Ok(Answer::Lease(None)) };
            Ok(Answer::Lease(lease_of(&snapshot, process_id, located.process_no)?.holder.map(Box::new)))
        }
        Query::HandleGrants { scope, live_only, after, limit } => {
            grant::of_scope(&snapshot, scope, *live_only, after.as_ref(), *limit)
        }
        Query::HandleGrant { scope, process_id } => Ok(Answer::HandleGrant(grant_of(&snapshot, scope, process_id)?)),
        Query::GrantsOfProcess { process_id, after, limit } => {
            grant::of_process(&snapshot, process_id, after.as_ref(), *limit)
        }
        Query::PendingWakes { target, after, limit } => wake::pending(&snapshot, target, *after, *limit),
        Query::Changes { after, limit } => change::changes(&snapshot, after.as_ref(), *limit),
        Query::Processes { filter, after, limit } => list::page(&snapshot, filter, after.as_ref(), *limit),
        Query::RecentProcesses { filter, before, limit } => list::recent(&snapshot, filter, *before, *limit),
    }
}

/// Whether a read failed of what is stored there, and not of the store: a column that is not what it should be, or a page that
/// SQLite finds broken. Such a read has changed nothing, and a transaction goes on behind it.
pub(super) fn is_of_the_row(error: &rusqlite::Error) -> bool {
    is_of_the_column(error) || error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt)
}

pub(super) const fn is_of_the_column(error: &rusqlite::Error) -> bool {
    matches!(
        error,
        rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
    )
}

fn bytes(value: ValueRef<'_>) -> Option<&[u8]> {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(bytes),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => None,
    }
}

/// Bounds beyond what the store can hold are not errors: nothing is there.
fn bound(after: Sequence) -> i64 {
    i64::try_from(after.0).unwrap_or(i64::MAX)
}

fn damaged(process_id: &ProcessId, sequence: i64, what: impl Into<String>) -> ReadError {
    LogError::Damaged {
        process_id: process_id.clone(),
        sequence: Sequence(sequence.cast_unsigned()),
        what: what.into(),
    }
    .into()
}

fn unreadable(reason: String) -> ReadError {
    LogError::Unreadable { reason }.into()
}
