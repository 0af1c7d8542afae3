//! What a read asks of the file, as functions of a connection. Each is one short transaction, so that none keeps the log
//! file from being emptied, and each event is checked against the one before it before it is handed out.

pub(super) mod change;
pub(super) mod grant;
mod list;
mod wake;

use std::sync::Arc;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::type_blocks;
use crate::domain::{Digest, LeaseRow, OperationId, ProcessEvent, ProcessId, ProcessRecord, ReplayKey, Sequence};
use crate::log::Replays;
use crate::log::across::StoredRow;
use crate::log::codec::{self, EventColumns};
use crate::port::{Answer, EventPage, Head, LogError, ProcessPage, Query, StoredProcess};

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

impl From<ReadError> for LogError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Statement(error) => Self::Unreadable { reason: error.to_string() },
            ReadError::Found(error) => error,
        }
    }
}

/// Which store it is, for the cursors that it hands out.
#[derive(Debug, Clone)]
pub(super) struct StoreIdentity {
    pub(super) store_id: Arc<str>,
    pub(super) epoch: u64,
}

/// A stored process, as far as its narrow rows tell.
pub(super) struct Located {
    pub(super) process_no: i64,
    pub(super) head_sequence: i64,
}

pub(super) fn load(
    connection: &Connection,
    process_id: &ProcessId,
    operation_tail: u32,
) -> Result<Option<StoredProcess>, ReadError> {
    let snapshot = connection.unchecked_transaction()?;
    let Some(located) = locate(&snapshot, process_id)? else { return Ok(None) };
    let record = record_of(&snapshot, process_id, located.process_no)?;
    let lease = lease_of(&snapshot, process_id, located.process_no)?;
    let tail = i64::from(operation_tail.max(1));
    let after = located.head_sequence.saturating_sub(tail).max(-1);
    let events = events_after(&snapshot, process_id, &located, after, tail)?;
    let Some((last, _, chain)) = events.last() else {
        return Err(damaged(process_id, located.head_sequence, "its last event is missing"));
    };
    let stored: Vec<u8> = snapshot
        .prepare_cached("SELECT chain FROM heads WHERE process_no = ?1")?
        .query_row([located.process_no], |row| row.get(0))?;
    if stored != chain.as_bytes() {
        return Err(damaged(process_id, located.head_sequence, "its head has another link than its last event"));
    }
    let told = events.len().saturating_sub(operation_tail as usize);
    Ok(Some(StoredProcess {
        record: Arc::new(record),
        head: Head { sequence: last.sequence, chain: *chain },
        lease,
        operations: events[told..].iter().map(|(event, operation, _)| (event.sequence, *operation)).collect(),
    }))
}

pub(super) fn find_replays(
    connection: &Connection,
    process_id: &ProcessId,
    keys: Vec<ReplayKey>,
) -> Result<Replays, ReadError> {
    let snapshot = connection.unchecked_transaction()?;
    let located = locate_known(&snapshot, process_id)?;
    let mut find = snapshot.prepare_cached("SELECT sequence FROM events WHERE process_no = ?1 AND replay_key = ?2")?;
    let mut found = Vec::with_capacity(keys.len());
    for key in keys {
        let sequence: Option<i64> =
            find.query_row(params![located.process_no, key.as_str()], |row| row.get(0)).optional()?;
        let event = sequence.map(|sequence| event_at(&snapshot, process_id, &located, sequence)).transpose()?;
        found.push((key, event));
    }
    Ok(found)
}

pub(super) fn query(connection: &Connection, store: &StoreIdentity, query: &Query) -> Result<Answer, ReadError> {
    query.check().map_err(LogError::from)?;
    let snapshot = connection.unchecked_transaction()?;
    match query {
        Query::Process { process_id } => {
            let Some(located) = locate(&snapshot, process_id)? else { return Ok(Answer::Process(None)) };
            Ok(Answer::Process(Some(Arc::new(record_of(&snapshot, process_id, located.process_no)?))))
        }
        Query::Tombstone { process_id } => Ok(Answer::Tombstone(change::tombstone_of(&snapshot, process_id)?)),
        Query::Events { process_id, after, limit } => {
            let located = locate_known(&snapshot, process_id)?;
            let limit = (*limit).min(EventPage::MAX_LIMIT);
            let after = bound(*after);
            let events = events_after(&snapshot, process_id, &located, after, i64::from(limit))?;
            let last = events.last().map_or(after, |(event, ..)| event.sequence.0.cast_signed());
            Ok(Answer::Events(EventPage {
                events: events.into_iter().map(|(event, ..)| Arc::new(event)).collect(),
                has_more: last < located.head_sequence,
            }))
        }
        Query::RecentEvents { process_id, limit } => {
            let located = locate_known(&snapshot, process_id)?;
            let limit = i64::from((*limit).min(EventPage::MAX_LIMIT));
            let after = located.head_sequence.saturating_sub(limit).max(0);
            let events = events_after(&snapshot, process_id, &located, after, limit)?;
            Ok(Answer::Events(EventPage {
                events: events.into_iter().map(|(event, ..)| Arc::new(event)).collect(),
                has_more: after > 0,
            }))
        }
        Query::FirstEventOfType { process_id, event_type, after } => {
            let located = locate_known(&snapshot, process_id)?;
            let sequence = type_blocks::first_after(&snapshot, located.process_no, event_type, bound(*after))?;
            let event = sequence.map(|sequence| event_at(&snapshot, process_id, &located, sequence)).transpose()?;
            Ok(Answer::Event(event))
        }
        Query::CountEventsThrough { process_id, event_type, through } => {
            let located = locate_known(&snapshot, process_id)?;
            let count = type_blocks::count_through(&snapshot, located.process_no, event_type, bound(*through))?;
            Ok(Answer::Count(count))
        }
        Query::WakeEvents { process_id, after, limit } => {
            let located = locate_known(&snapshot, process_id)?;
            let limit = (*limit).min(EventPage::MAX_LIMIT) as usize;
            Ok(Answer::Events(wake::open_events(&snapshot, process_id, &located, bound(*after), limit)?))
        }
        Query::Lease { process_id } => {
            let Some(located) = locate(&snapshot, process_id)? else { return Ok(Answer::Lease(None)) };
            Ok(Answer::Lease(lease_of(&snapshot, process_id, located.process_no)?.holder.map(Box::new)))
        }
        Query::Processes { filter, after, limit } => {
            let limit = (*limit).min(ProcessPage::MAX_LIMIT) as usize;
            Ok(Answer::Processes(list::page(&snapshot, filter, after.as_ref(), limit)?))
        }
        Query::HandleGrant { scope, process_id } => Ok(Answer::HandleGrant(grant::one(&snapshot, scope, process_id)?)),
        Query::HandleGrants { scope, live_only, after, limit } => {
            let limit = (*limit).min(ProcessPage::MAX_LIMIT) as usize;
            Ok(Answer::HandleGrants(grant::of_scope(&snapshot, scope, *live_only, after.as_ref(), limit)?))
        }
        Query::GrantsOfProcess { process_id, after, limit } => {
            locate_known(&snapshot, process_id)?;
            let limit = (*limit).min(ProcessPage::MAX_LIMIT) as usize;
            Ok(Answer::GrantsOfProcess(grant::of_process(&snapshot, process_id, after.as_ref(), limit)?))
        }
        Query::PendingWakes { target, after, limit } => {
            let limit = (*limit).min(EventPage::MAX_LIMIT) as usize;
            Ok(Answer::PendingWakes(wake::pending(&snapshot, target, *after, limit)?))
        }
        Query::Changes { after, limit } => {
            let limit = (*limit).min(EventPage::MAX_LIMIT) as usize;
            Ok(Answer::Changes(change::page(&snapshot, store, after.as_ref(), limit)?))
        }
    }
}

/// A process as commands across processes see it.
pub(super) fn stored_row(connection: &Connection, process_id: &ProcessId) -> Result<Option<StoredRow>, ReadError> {
    let Some(located) = locate(connection, process_id)? else { return Ok(None) };
    let record = record_of(connection, process_id, located.process_no)?;
    let lease = lease_of(connection, process_id, located.process_no)?;
    let (position, chain): (i64, Vec<u8>) = connection
        .prepare_cached("SELECT position, chain FROM heads WHERE process_no = ?1")?
        .query_row([located.process_no], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let Some(chain) = Digest::from_bytes(&chain) else {
        return Err(damaged(process_id, located.head_sequence, "its link is no link"));
    };
    Ok(Some(StoredRow {
        record: Arc::new(record),
        head: Head { sequence: Sequence(located.head_sequence.cast_unsigned()), chain },
        lease,
        position: position.cast_unsigned(),
    }))
}

pub(super) fn process_ids(
    connection: &Connection,
    after: Option<&ProcessId>,
    limit: u32,
) -> Result<Vec<ProcessId>, ReadError> {
    let mut select =
        connection.prepare_cached("SELECT process_id FROM processes WHERE process_id > ?1 ORDER BY process_id")?;
    let mut rows = select.query([after.map_or("", ProcessId::as_str)])?;
    let mut ids = Vec::new();
    while ids.len() < limit as usize
        && let Some(row) = rows.next()?
    {
        let text = String::from_utf8_lossy(bytes(row.get_ref(0)?).unwrap_or_default()).into_owned();
        match ProcessId::new(text) {
            Ok(id) => ids.push(id),
            // The walk along a damaged store must not end at the damage.
            Err(error) => tracing::error!(%error, "the store holds a process under an impossible id"),
        }
    }
    Ok(ids)
}

pub(super) fn locate(connection: &Connection, process_id: &ProcessId) -> Result<Option<Located>, ReadError> {
    let found = connection
        .prepare_cached(
            "SELECT p.process_no, h.sequence FROM processes p LEFT JOIN heads h USING (process_no)
             WHERE p.process_id = ?1",
        )?
        .query_row([process_id.as_str()], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?)))
        .optional()?;
    match found {
        None => Ok(None),
        Some((process_no, Some(head_sequence))) => Ok(Some(Located { process_no, head_sequence })),
        Some((_, None)) => Err(damaged(process_id, 0, "its head is missing")),
    }
}

fn locate_known(connection: &Connection, process_id: &ProcessId) -> Result<Located, ReadError> {
    locate(connection, process_id)?.ok_or_else(|| LogError::Unknown { process_id: process_id.clone() }.into())
}

/// The record of a process, checked.
pub(super) fn record_of(
    connection: &Connection,
    process_id: &ProcessId,
    process_no: i64,
) -> Result<ProcessRecord, ReadError> {
    let mut select = connection.prepare_cached(
        "SELECT p.status, p.codec, p.body, p.checksum, h.updated_at_ms
         FROM processes p JOIN heads h USING (process_no) WHERE p.process_no = ?1",
    )?;
    let mut rows = select.query([process_no])?;
    match rows.next()? {
        Some(row) => record_in(process_id, row, 0),
        None => Err(damaged(process_id, 0, "its record is missing")),
    }
}

fn record_in(process_id: &ProcessId, row: &Row<'_>, first: usize) -> Result<ProcessRecord, ReadError> {
    let column = |index| -> Result<&[u8], ReadError> {
        bytes(row.get_ref(first + index)?)
            .ok_or_else(|| damaged(process_id, 0, "its record has a column of a wrong kind"))
    };
    let (codec, updated_at_ms) = (row.get(first + 1)?, row.get(first + 4)?);
    codec::decode_record(process_id, column(0)?, codec, column(2)?, column(3)?, updated_at_ms)
        .map_err(|what| damaged(process_id, 0, what))
}

/// The lease row of a process, checked.
pub(super) fn lease_of(
    connection: &Connection,
    process_id: &ProcessId,
    process_no: i64,
) -> Result<LeaseRow, ReadError> {
    let mut select =
        connection.prepare_cached("SELECT revision, fence, codec, body, checksum FROM leases WHERE process_no = ?1")?;
    let mut rows = select.query([process_no])?;
    let Some(row) = rows.next()? else { return Ok(LeaseRow::default()) };
    let column = |index| -> Result<&[u8], ReadError> {
        bytes(row.get_ref(index)?).ok_or_else(|| damaged(process_id, 0, "its lease has a column of a wrong kind"))
    };
    codec::decode_lease(process_id, row.get(0)?, row.get(1)?, row.get(2)?, column(3)?, column(4)?)
        .map_err(|what| damaged(process_id, 0, what))
}

/// At most so many events after a sequence, each checked against the one before it. That fewer are there than the head
/// promises is damage too.
fn events_after(
    connection: &Connection,
    process_id: &ProcessId,
    located: &Located,
    after: i64,
    limit: i64,
) -> Result<Vec<(ProcessEvent, OperationId, Digest)>, ReadError> {
    let mut expected = after.saturating_add(1);
    if expected > located.head_sequence {
        return Ok(Vec::new());
    }
    let mut previous = link_before(connection, process_id, located.process_no, expected)?;
    let mut select = connection.prepare_cached(
        "SELECT sequence, type, at_ms, replay_key, operation, codec, data, chain
         FROM events WHERE process_no = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3",
    )?;
    let mut rows = select.query(params![located.process_no, after, limit])?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        let columns = EventRow::of(process_id, row)?;
        if columns.sequence() != expected {
            return Err(damaged(process_id, expected, format!("sequence {} is in its place", columns.sequence())));
        }
        let decoded = columns.decode(process_id, &previous)?;
        previous = decoded.2;
        events.push(decoded);
        expected += 1;
    }
    if (events.len() as i64) < limit && expected <= located.head_sequence {
        return Err(damaged(
            process_id,
            expected,
            format!("it is missing before the head at {}", located.head_sequence),
        ));
    }
    Ok(events)
}

fn event_at(
    connection: &Connection,
    process_id: &ProcessId,
    located: &Located,
    sequence: i64,
) -> Result<Arc<ProcessEvent>, ReadError> {
    let found = events_after(connection, process_id, located, sequence.saturating_sub(1), 1)?;
    match found.into_iter().next() {
        Some((event, ..)) => Ok(Arc::new(event)),
        None => Err(damaged(process_id, sequence, "it is beyond the head")),
    }
}

/// The link that the event of this sequence continues.
fn link_before(
    connection: &Connection,
    process_id: &ProcessId,
    process_no: i64,
    sequence: i64,
) -> Result<Digest, ReadError> {
    if sequence <= 0 {
        return Ok(codec::base_link(process_id));
    }
    let mut select = connection.prepare_cached("SELECT chain FROM events WHERE process_no = ?1 AND sequence = ?2")?;
    let mut rows = select.query([process_no, sequence - 1])?;
    let Some(row) = rows.next()? else { return Err(damaged(process_id, sequence - 1, "it is missing")) };
    bytes(row.get_ref(0)?)
        .and_then(Digest::from_bytes)
        .ok_or_else(|| damaged(process_id, sequence - 1, "its link is no link"))
}

fn process_id_of(connection: &Connection, process_no: i64) -> Result<ProcessId, ReadError> {
    let mut select = connection.prepare_cached("SELECT process_id FROM processes WHERE process_no = ?1")?;
    let mut rows = select.query([process_no])?;
    match rows.next()? {
        Some(row) => process_id_in(row, 0),
        None => Err(unreadable(format!("there are events of process number {process_no}, which is not there"))),
    }
}

pub(super) fn process_id_in(row: &Row<'_>, index: usize) -> Result<ProcessId, ReadError> {
    let text = String::from_utf8_lossy(bytes(row.get_ref(index)?).unwrap_or_default()).into_owned();
    ProcessId::new(text).map_err(|error| unreadable(format!("a process has an impossible id: {error}")))
}

/// An event's row, before it is believed.
pub(super) struct EventRow<'row> {
    pub(super) columns: EventColumns<'row>,
    pub(super) chain: &'row [u8],
}

impl<'row> EventRow<'row> {
    /// Reads the first eight columns of a row, which are always the same.
    pub(super) fn of(process_id: &ProcessId, row: &'row Row<'_>) -> Result<Self, ReadError> {
        let wrong_kind = || damaged(process_id, 0, "an event has a column of a wrong kind");
        let integer = |index| match row.get_ref(index)? {
            ValueRef::Integer(value) => Ok(value),
            ValueRef::Null | ValueRef::Real(_) | ValueRef::Text(_) | ValueRef::Blob(_) => Err(wrong_kind()),
        };
        let column = |index| -> Result<&'row [u8], ReadError> { bytes(row.get_ref(index)?).ok_or_else(wrong_kind) };
        let replay_key = match row.get_ref(3)? {
            ValueRef::Null => None,
            present => Some(bytes(present).ok_or_else(wrong_kind)?),
        };
        Ok(Self {
            columns: EventColumns {
                sequence: integer(0)?,
                event_type: column(1)?,
                at_ms: integer(2)?,
                replay_key,
                operation: column(4)?,
                codec: integer(5)?,
                data: column(6)?,
            },
            chain: column(7)?,
        })
    }

    const fn sequence(&self) -> i64 {
        self.columns.sequence
    }

    fn decode(
        &self,
        process_id: &ProcessId,
        previous: &Digest,
    ) -> Result<(ProcessEvent, OperationId, Digest), ReadError> {
        codec::decode_event(process_id, &self.columns, self.chain, previous)
            .map_err(|what| damaged(process_id, self.columns.sequence, what))
    }
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
