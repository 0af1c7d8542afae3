//! The change feed: events, tombstones and deletions of sessions, in the order of their positions.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{
    EventRow, ReadError, StoreIdentity, bytes, damaged, link_before, process_id_in, process_id_of, record_of,
    unreadable,
};
use crate::domain::{
    ChangeCursor, CursorFault, Digest, ProcessEvent, ProcessId, ProcessRecord, Refusal, Sequence, SessionDeletion,
    SessionScope, Tombstone,
};
use crate::log::codec;
use crate::port::{ChangePage, CommittedBatch, EventPage, FeedPage, LogError, Position, ProcessChange};

/// A change at its position, with the link that a cursor there carries.
struct Placed<T> {
    position: i64,
    link: [u8; 8],
    value: T,
}

/// Events after a position, each checked against the one before it in its process.
struct EventWalk<'connection> {
    connection: &'connection Connection,
    /// Where the walk stands in each process that it has met.
    ends: HashMap<i64, (ProcessId, Sequence, Digest)>,
}

impl EventWalk<'_> {
    fn after(&mut self, after: i64, limit: usize) -> Result<Vec<(i64, Placed<ProcessEvent>)>, ReadError> {
        let mut select = self.connection.prepare_cached(
            "SELECT sequence, type, at_ms, replay_key, operation, codec, data, chain, position, process_no
             FROM events WHERE position > ?1 ORDER BY position LIMIT ?2",
        )?;
        let mut rows = select.query(params![after, limit as i64])?;
        let mut events = Vec::new();
        while let Some(row) = rows.next()? {
            let (position, process_no): (i64, i64) = (row.get(8)?, row.get(9)?);
            let (process_id, before) = match self.ends.get(&process_no) {
                Some((process_id, sequence, chain)) => (process_id.clone(), Some((*sequence, *chain))),
                None => (process_id_of(self.connection, process_no)?, None),
            };
            let columns = EventRow::of(&process_id, row)?;
            let previous = match before {
                Some((sequence, chain)) if sequence.next().0.cast_signed() == columns.sequence() => chain,
                _ => link_before(self.connection, &process_id, process_no, columns.sequence())?,
            };
            let (event, _, chain) = columns.decode(&process_id, &previous)?;
            self.ends.insert(process_no, (process_id, event.sequence, chain));
            events.push((process_no, Placed { position, link: chain.short(), value: event }));
        }
        Ok(events)
    }
}

fn events_after(
    connection: &Connection,
    after: i64,
    limit: usize,
) -> Result<Vec<(i64, Placed<ProcessEvent>)>, ReadError> {
    EventWalk { connection, ends: HashMap::new() }.after(after, limit)
}

const TOMBSTONES: &str = "SELECT position, codec, body, checksum, process_id, generation FROM tombstones";

fn tombstones_after(connection: &Connection, after: i64, limit: usize) -> Result<Vec<Placed<Tombstone>>, ReadError> {
    let mut select =
        connection.prepare_cached(&format!("{TOMBSTONES} WHERE position > ?1 ORDER BY position LIMIT ?2"))?;
    let mut rows = select.query(params![after, limit as i64])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(tombstone_in(row)?);
    }
    Ok(found)
}

/// What is left of a pruned process.
pub(super) fn tombstone_of(connection: &Connection, process_id: &ProcessId) -> Result<Option<Tombstone>, ReadError> {
    let mut select = connection.prepare_cached(&format!("{TOMBSTONES} WHERE process_id = ?1"))?;
    let mut rows = select.query([process_id.as_str()])?;
    rows.next()?.map(|row| Ok(tombstone_in(row)?.value)).transpose()
}

fn tombstone_in(row: &Row<'_>) -> Result<Placed<Tombstone>, ReadError> {
    let process_id = process_id_in(row, 4)?;
    let placed: Placed<Tombstone> = mark_in(row)?;
    if placed.value.process_id != process_id || row.get::<_, i64>(5)? != i64::from(placed.value.generation) {
        return Err(damaged(&process_id, 0, "its tombstone has other columns than its body"));
    }
    Ok(placed)
}

fn deletions_after(
    connection: &Connection,
    after: i64,
    limit: usize,
) -> Result<Vec<Placed<SessionDeletion>>, ReadError> {
    let mut select = connection.prepare_cached(
        "SELECT position, codec, body, checksum FROM session_deletions WHERE position > ?1 ORDER BY position LIMIT ?2",
    )?;
    let mut rows = select.query(params![after, limit as i64])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(mark_in(row)?);
    }
    Ok(found)
}

/// A change that is no event, in the first four columns of a row.
fn mark_in<T: for<'de> serde::Deserialize<'de>>(row: &Row<'_>) -> Result<Placed<T>, ReadError> {
    let position: i64 = row.get(0)?;
    let column = |index| -> Result<&[u8], ReadError> {
        bytes(row.get_ref(index)?)
            .ok_or_else(|| unreadable(format!("the change at position {position} has a column of a wrong kind")))
    };
    let checksum = column(3)?;
    let value = codec::decode_mark(row.get(1)?, column(2)?, checksum)
        .map_err(|what| unreadable(format!("the change at position {position}: {what}")))?;
    Ok(Placed { position, link: short(checksum), value })
}

fn short(link: &[u8]) -> [u8; 8] {
    link.get(..8).and_then(|short| short.try_into().ok()).unwrap_or_default()
}

/// A page of the feed.
pub(super) fn page(
    connection: &Connection,
    store: &StoreIdentity,
    after: Option<&ChangeCursor>,
    limit: usize,
) -> Result<ChangePage, ReadError> {
    if let Some(cursor) = after {
        check_cursor(connection, store, cursor)?;
    }
    let from = after.map_or(0, |cursor| i64::try_from(cursor.position()).unwrap_or(i64::MAX));
    let more = limit + 1;
    let mut changes: Vec<Placed<ProcessChange>> = Vec::new();
    let placed = |position, link, value| Placed { position, link, value };
    changes.extend(
        events_after(connection, from, more)?
            .into_iter()
            .map(|(_, event)| placed(event.position, event.link, ProcessChange::Event(Arc::new(event.value)))),
    );
    changes.extend(
        tombstones_after(connection, from, more)?
            .into_iter()
            .map(|mark| placed(mark.position, mark.link, ProcessChange::Pruned(mark.value))),
    );
    changes.extend(
        deletions_after(connection, from, more)?
            .into_iter()
            .map(|mark| placed(mark.position, mark.link, ProcessChange::SessionDeleted(mark.value))),
    );
    changes.sort_by_key(|change| change.position);
    let has_more = changes.len() > limit;
    changes.truncate(limit);
    let cursor = |position: i64, link| {
        ChangeCursor::new(Arc::clone(&store.store_id), store.epoch, position.cast_unsigned(), link)
    };
    let next = match changes.last() {
        Some(last) => cursor(last.position, last.link),
        None => after.cloned().unwrap_or_else(|| cursor(0, [0; 8])),
    };
    let end = last_position(connection)?;
    let safe_through = cursor(end, link_at(connection, end)?.unwrap_or_default());
    Ok(ChangePage { changes: changes.into_iter().map(|change| change.value).collect(), next, safe_through, has_more })
}

/// Refuses a cursor that is not of this store as it is.
pub(in crate::log::sqlite) fn check_cursor(
    connection: &Connection,
    store: &StoreIdentity,
    cursor: &ChangeCursor,
) -> Result<(), ReadError> {
    let refused = |fault| ReadError::from(LogError::from(Refusal::Cursor(fault)));
    cursor.check(&store.store_id, store.epoch).map_err(refused)?;
    let position = i64::try_from(cursor.position()).unwrap_or(i64::MAX);
    match link_at(connection, position)? {
        Some(link) if link == cursor.link() => Ok(()),
        Some(_) => Err(refused(CursorFault::Rewound)),
        // What was there is gone with its process, which says nothing of the cursor; but nothing was ever beyond the end.
        None if position <= given_away(connection)? => Ok(()),
        None => Err(refused(CursorFault::Rewound)),
    }
}

/// The link of what stands at a position.
fn link_at(connection: &Connection, position: i64) -> Result<Option<[u8; 8]>, ReadError> {
    if position == 0 {
        return Ok(Some([0; 8]));
    }
    let link: Option<Vec<u8>> = connection
        .prepare_cached(
            "SELECT chain FROM events WHERE position = ?1
             UNION ALL SELECT checksum FROM tombstones WHERE position = ?1
             UNION ALL SELECT checksum FROM session_deletions WHERE position = ?1",
        )?
        .query_row([position], |row| row.get(0))
        .optional()?;
    Ok(link.map(|link| short(&link)))
}

/// The last position at which something stands.
fn last_position(connection: &Connection) -> Result<i64, ReadError> {
    Ok(connection
        .prepare_cached(
            "SELECT max((SELECT ifnull(max(position), 0) FROM events), (SELECT ifnull(max(position), 0) FROM tombstones),
                        (SELECT ifnull(max(position), 0) FROM session_deletions))",
        )?
        .query_row([], |row| row.get(0))?)
}

/// The last position that is known to have been given away.
fn given_away(connection: &Connection) -> Result<i64, ReadError> {
    let noted: i64 =
        connection.prepare_cached("SELECT next_position - 1 FROM meta")?.query_row([], |row| row.get(0))?;
    Ok(noted.max(last_position(connection)?))
}

/// The feed as followers of commits need it: by process, with the record of now.
pub(in crate::log::sqlite) fn feed(
    connection: &Connection,
    after: Position,
    limit: u32,
) -> Result<FeedPage, ReadError> {
    let snapshot = connection.unchecked_transaction()?;
    let limit = limit.clamp(1, EventPage::MAX_LIMIT) as usize;
    let after = i64::try_from(after.0).unwrap_or(i64::MAX);
    let mut events = events_after(&snapshot, after, limit + 1)?;
    let mut pruned = tombstones_after(&snapshot, after, limit + 1)?;
    // The page ends where the shorter of both lists may be cut off.
    let cut = [events.get(limit).map(|(_, event)| event.position), pruned.get(limit).map(|mark| mark.position)];
    let cut = cut.into_iter().flatten().min();
    if let Some(cut) = cut {
        events.retain(|(_, event)| event.position < cut);
        pruned.retain(|mark| mark.position < cut);
    }
    let last = events.last().map(|(_, event)| event.position).max(pruned.last().map(|mark| mark.position));
    let mut page = FeedPage {
        batches: Vec::new(),
        pruned: pruned.into_iter().map(|mark| mark.value).collect(),
        next: Position(last.unwrap_or(after).cast_unsigned()),
        has_more: cut.is_some(),
    };
    let mut records: HashMap<i64, Arc<ProcessRecord>> = HashMap::new();
    for (process_no, Placed { position, value: event, .. }) in events {
        let record = match records.get(&process_no) {
            Some(record) => Arc::clone(record),
            None => {
                let record = Arc::new(record_of(&snapshot, &event.process_id, process_no)?);
                records.insert(process_no, Arc::clone(&record));
                record
            }
        };
        let woken = if event.semantics.wake.is_some() { woken_at(&snapshot, position)? } else { None };
        let event = Arc::new(event);
        match page.batches.last_mut().filter(|batch| batch.process_id == event.process_id) {
            Some(batch) => {
                batch.events.push(event);
                batch.woken.extend(woken);
            }
            None => page.batches.push(CommittedBatch {
                process_id: event.process_id.clone(),
                record,
                events: vec![event],
                woken: woken.into_iter().collect(),
            }),
        }
    }
    Ok(page)
}

/// Whom the event at a position woke.
fn woken_at(connection: &Connection, position: i64) -> Result<Option<SessionScope>, ReadError> {
    let target: Option<(Option<String>, Option<String>)> = connection
        .prepare_cached("SELECT session, frame FROM wakes WHERE position = ?1")?
        .query_row([position], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(target.and_then(|(session, frame)| Some(SessionScope::frame(session?, frame?))))
}
