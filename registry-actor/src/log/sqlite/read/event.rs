//! Reads of events. Each is checked against the one before it before it is handed out.

use std::sync::Arc;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::process::{Located, locate_known};
use super::{ReadError, bound, bytes, damaged};
use crate::domain::{Digest, OperationId, ProcessEvent, ProcessId, ReplayKey, Sequence};
use crate::log::Replays;
use crate::log::codec::{self, EventColumns};
use crate::log::sqlite::type_blocks;
use crate::port::{Answer, EventPage};

pub(in crate::log::sqlite) fn find_replays(
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

/// A page of events in the order of sequences.
pub(super) fn page(
    connection: &Connection,
    process_id: &ProcessId,
    after: Sequence,
    limit: u32,
) -> Result<Answer, ReadError> {
    let located = locate_known(connection, process_id)?;
    let after = bound(after);
    let events =
        events_after(connection, process_id, &located, after, i64::from(limit.clamp(1, EventPage::MAX_LIMIT)))?;
    let last = events.last().map_or(after, |(event, ..)| event.sequence.0.cast_signed());
    Ok(Answer::Events(EventPage { events: only_events(events), has_more: last < located.head_sequence }))
}

/// The last events.
pub(super) fn recent(connection: &Connection, process_id: &ProcessId, limit: u32) -> Result<Answer, ReadError> {
    let located = locate_known(connection, process_id)?;
    let limit = i64::from(limit.clamp(1, EventPage::MAX_LIMIT));
    let after = located.head_sequence.saturating_sub(limit).max(0);
    let events = events_after(connection, process_id, &located, after, limit)?;
    Ok(Answer::Events(EventPage { events: only_events(events), has_more: after > 0 }))
}

pub(super) fn first_of_type(
    connection: &Connection,
    process_id: &ProcessId,
    event_type: &str,
    after: Sequence,
) -> Result<Answer, ReadError> {
    let located = locate_known(connection, process_id)?;
    let sequence = type_blocks::first_after(connection, located.process_no, event_type, bound(after))?;
    let event = sequence.map(|sequence| event_at(connection, process_id, &located, sequence)).transpose()?;
    Ok(Answer::Event(event))
}

pub(super) fn count_through(
    connection: &Connection,
    process_id: &ProcessId,
    event_type: &str,
    through: Sequence,
) -> Result<Answer, ReadError> {
    let located = locate_known(connection, process_id)?;
    Ok(Answer::Count(type_blocks::count_through(connection, located.process_no, event_type, bound(through))?))
}

fn only_events(events: Vec<(ProcessEvent, OperationId, Digest)>) -> Vec<Arc<ProcessEvent>> {
    events.into_iter().map(|(event, ..)| Arc::new(event)).collect()
}

/// At most so many events after a sequence, each checked against the one before it. That fewer are there than the head
/// promises is damage too.
pub(super) fn events_after(
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

pub(in crate::log::sqlite) fn event_at(
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
pub(super) fn link_before(
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

/// An event's row, before it is believed.
pub(in crate::log::sqlite) struct EventRow<'row> {
    pub(in crate::log::sqlite) columns: EventColumns<'row>,
    pub(in crate::log::sqlite) chain: &'row [u8],
}

impl<'row> EventRow<'row> {
    /// Reads the first eight columns of a row, which are always the same.
    pub(in crate::log::sqlite) fn of(process_id: &ProcessId, row: &'row Row<'_>) -> Result<Self, ReadError> {
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

    pub(super) const fn sequence(&self) -> i64 {
        self.columns.sequence
    }

    pub(super) fn decode(
        &self,
        process_id: &ProcessId,
        previous: &Digest,
    ) -> Result<(ProcessEvent, OperationId, Digest), ReadError> {
        codec::decode_event(process_id, &self.columns, self.chain, previous)
            .map_err(|what| damaged(process_id, self.columns.sequence, what))
    }
}
