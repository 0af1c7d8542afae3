//! The store as a whole in commit order: events, prunes and deletions of sessions, merged by position.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::event::{EventRow, link_before};
use super::process::{process_id_of, record_of};
use super::{ReadError, bytes, damaged, unreadable};
use crate::domain::{
    ChangeCursor, CursorFault, Digest, ProcessEvent, ProcessId, ProcessRecord, Refusal, Sequence, SessionDeletion,
    SessionScope, Tombstone,
};
use crate::log::codec::{self, MalformedBatch};
use crate::port::{
    Answer, ChangePage, CommittedBatch, EventPage, FeedEntry, FeedPage, GroupChanges, Position, ProcessChange,
};

/// What stands at a position.
enum Entry {
    Event { process_no: i64, event: Arc<ProcessEvent> },
    Pruned(Tombstone),
    SessionDeleted(SessionDeletion),
}

/// What stands at a position, and by which link a cursor knows it again.
struct Stop {
    position: i64,
    link: [u8; 8],
    entry: Entry,
}

struct Walk {
    stops: Vec<Stop>,
    has_more: bool,
}

pub(in crate::log::sqlite) fn feed(
    connection: &Connection,
    after: Position,
    limit: u32,
) -> Result<FeedPage, ReadError> {
    let snapshot = connection.unchecked_transaction()?;
    let after = i64::try_from(after.0).unwrap_or(i64::MAX);
    let walk = walk(&snapshot, after, limit)?;
    let last = walk.stops.last().map_or(after, |stop| stop.position);
    let mut targets = targets_between(&snapshot, after, last)?;
    let mut records: HashMap<i64, Arc<ProcessRecord>> = HashMap::new();
    let GroupChanges { mut batches, mut pruned, mut sessions_deleted } = GroupChanges::default();
    for Stop { position, entry, .. } in walk.stops {
        let (process_no, event) = match entry {
            Entry::Event { process_no, event } => (process_no, event),
            Entry::Pruned(tombstone) => {
                pruned.push(tombstone);
                continue;
            }
            Entry::SessionDeleted(deletion) => {
                sessions_deleted.push(deletion);
                continue;
            }
        };
        let woken = targets.remove(&position);
        match batches.last_mut().filter(|batch| batch.process_id == event.process_id) {
            Some(batch) => {
                batch.events.push(event);
                batch.woken.extend(woken);
            }
            None => {
                let record = match records.get(&process_no) {
                    Some(record) => Arc::clone(record),
                    None => {
                        let record = Arc::new(record_of(&snapshot, &event.process_id, process_no)?);
                        records.insert(process_no, Arc::clone(&record));
                        record
                    }
                };
                batches.push(CommittedBatch {
                    process_id: event.process_id.clone(),
                    record,
                    events: vec![event],
                    woken: woken.into_iter().collect(),
                });
            }
        }
    }
    let changes = GroupChanges { batches, pruned, sessions_deleted };
    Ok(FeedPage { changes, next: Position(last.cast_unsigned()), has_more: walk.has_more })
}

pub(super) fn changes(connection: &Connection, after: Option<&ChangeCursor>, limit: u32) -> Result<Answer, ReadError> {
    if let Some(cursor) = after {
        check_cursor(connection, cursor)?;
    }
    let from = after.map_or(0, |cursor| i64::try_from(cursor.position()).unwrap_or(i64::MAX));
    let Walk { stops, has_more } = walk(connection, from, limit)?;
    let store = Store::of(connection)?;
    let entries: Vec<FeedEntry> = stops
        .into_iter()
        .map(|Stop { position, link, entry }| FeedEntry {
            cursor: store.cursor(position, link),
            change: match entry {
                Entry::Event { event, .. } => ProcessChange::Event(event),
                Entry::Pruned(tombstone) => ProcessChange::Pruned(tombstone),
                Entry::SessionDeleted(deletion) => ProcessChange::SessionDeleted(deletion),
            },
        })
        .collect();
    let next = match (entries.last(), after) {
        (Some(last), _) => last.cursor.clone(),
        (None, Some(cursor)) => cursor.clone(),
        (None, None) => store.cursor(0, [0; 8]),
    };
    let end = last_retained(connection)?;
    let safe_through = store.cursor(end, link_at(connection, end)?.unwrap_or_default());
    Ok(Answer::Changes(ChangePage { entries, next, safe_through, has_more }))
}

/// Refuses a cursor that is not of this store as it is. An entry that is gone says nothing of the cursor.
pub(in crate::log::sqlite) fn check_cursor(connection: &Connection, cursor: &ChangeCursor) -> Result<(), ReadError> {
    let store = Store::of(connection)?;
    cursor.check(&store.id, store.epoch).map_err(Refusal::Cursor)?;
    let rewound = || Refusal::Cursor(CursorFault::Rewound).into();
    let position = i64::try_from(cursor.position()).map_err(|_| rewound())?;
    let end = last_retained(connection)?.max(store.next_position - 1);
    let is_other = link_at(connection, position)?.is_some_and(|link| link != cursor.link());
    if position > end || is_other { Err(rewound()) } else { Ok(()) }
}

/// What is left of a pruned process.
pub(super) fn tombstone_of(connection: &Connection, process_id: &ProcessId) -> Result<Option<Tombstone>, ReadError> {
    let mut select = connection.prepare_cached(
        "SELECT position, codec, body, checksum, process_id, generation FROM tombstones WHERE process_id = ?1",
    )?;
    let mut rows = select.query([process_id.as_str()])?;
    rows.next()?.map(tombstone_in).transpose()
}

/// A mark that is tied to its place, so that it cannot change its position unnoticed.
#[derive(Serialize, Deserialize)]
struct Placed<T> {
    position: i64,
    mark: T,
}

/// The stored form of a mark at a position.
pub(in crate::log::sqlite) fn encode_placed<T: Serialize>(
    position: i64,
    mark: &T,
) -> Result<(Vec<u8>, Digest), MalformedBatch> {
    codec::encode_mark(&Placed { position, mark })
}

/// The mark in the columns position, codec, body and checksum, which stand first. The error says what does not hold.
fn decode_placed<T: for<'de> Deserialize<'de>>(row: &Row<'_>) -> Result<Result<T, String>, rusqlite::Error> {
    let (position, codec): (i64, i64) = (row.get(0)?, row.get(1)?);
    let (Some(body), Some(checksum)) = (bytes(row.get_ref(2)?), bytes(row.get_ref(3)?)) else {
        return Ok(Err("a change has a column of a wrong kind".to_owned()));
    };
    Ok(codec::decode_mark::<Placed<T>>(codec, body, checksum).and_then(|placed| {
        if placed.position == position { Ok(placed.mark) } else { Err("a change is not in its place".to_owned()) }
    }))
}

fn tombstone_in(row: &Row<'_>) -> Result<Tombstone, ReadError> {
    let process_id = super::process::process_id_in(row, 4)?;
    let fault = |what: String| damaged(&process_id, 0, format!("its tombstone is damaged: {what}"));
    let tombstone: Tombstone = decode_placed(row)?.map_err(fault)?;
    if tombstone.process_id == process_id && i64::from(tombstone.generation) == row.get::<_, i64>(5)? {
        Ok(tombstone)
    } else {
        Err(fault("it is that of another life".to_owned()))
    }
}

/// Checks the changes that are no events: no check of a process meets them.
pub(in crate::log::sqlite) fn check_marks(connection: &Connection) -> Result<(), ReadError> {
    let mut tombstones = connection
        .prepare("SELECT position, codec, body, checksum, process_id, generation FROM tombstones ORDER BY position")?;
    let mut rows = tombstones.query([])?;
    while let Some(row) = rows.next()? {
        tombstone_in(row)?;
    }
    let mut deletions =
        connection.prepare("SELECT position, codec, body, checksum FROM session_deletions ORDER BY position")?;
    let mut rows = deletions.query([])?;
    while let Some(row) = rows.next()? {
        decode_placed::<SessionDeletion>(row)?.map_err(unreadable)?;
    }
    Ok(())
}

fn walk(connection: &Connection, after: i64, limit: u32) -> Result<Walk, ReadError> {
    let limit = limit.clamp(1, EventPage::MAX_LIMIT) as usize;
    let bounds = params![after, limit as i64 + 1];
    let mut marks: BTreeMap<i64, Stop> = BTreeMap::new();
    let mut mark = |row: &Row<'_>, entry| -> Result<(), rusqlite::Error> {
        let position = row.get(0)?;
        let link = bytes(row.get_ref(3)?).and_then(Digest::from_bytes).unwrap_or_default().short();
        marks.insert(position, Stop { position, link, entry });
        Ok(())
    };
    {
        let mut select = connection.prepare_cached(
            "SELECT position, codec, body, checksum, process_id, generation FROM tombstones
             WHERE position > ?1 ORDER BY position LIMIT ?2",
        )?;
        let mut rows = select.query(bounds)?;
        while let Some(row) = rows.next()? {
            mark(row, Entry::Pruned(tombstone_in(row)?))?;
        }
    }
    {
        let mut select = connection.prepare_cached(
            "SELECT position, codec, body, checksum FROM session_deletions
             WHERE position > ?1 ORDER BY position LIMIT ?2",
        )?;
        let mut rows = select.query(bounds)?;
        while let Some(row) = rows.next()? {
            let deletion = decode_placed(row)?.map_err(unreadable)?;
            mark(row, Entry::SessionDeleted(deletion))?;
        }
    }
    let mut select = connection.prepare_cached(
        "SELECT sequence, type, at_ms, replay_key, operation, codec, data, chain, position, process_no
         FROM events WHERE position > ?1 ORDER BY position LIMIT ?2",
    )?;
    let mut rows = select.query(bounds)?;
    let mut stops = Vec::new();
    let mut ends: HashMap<i64, (ProcessId, Sequence, Digest)> = HashMap::new();
    while let Some(row) = rows.next()? {
        let (position, process_no): (i64, i64) = (row.get(8)?, row.get(9)?);
        while stops.len() <= limit && marks.first_key_value().is_some_and(|(mark, _)| *mark < position) {
            stops.extend(marks.pop_first().map(|(_, stop)| stop));
        }
        // One more than the page holds says that more follows; what it is, is not asked.
        if stops.len() >= limit {
            stops.truncate(limit);
            return Ok(Walk { stops, has_more: true });
        }
        let (process_id, before) = match ends.get(&process_no) {
            Some((process_id, sequence, chain)) => (process_id.clone(), Some((*sequence, *chain))),
            None => (process_id_of(connection, process_no)?, None),
        };
        let columns = EventRow::of(&process_id, row)?;
        let previous = match before {
            Some((sequence, chain)) if sequence.next().0.cast_signed() == columns.sequence() => chain,
            _ => link_before(connection, &process_id, process_no, columns.sequence())?,
        };
        let (event, _, chain) = columns.decode(&process_id, &previous)?;
        ends.insert(process_no, (process_id, event.sequence, chain));
        stops.push(Stop { position, link: chain.short(), entry: Entry::Event { process_no, event: Arc::new(event) } });
    }
    stops.extend(marks.into_values());
    let has_more = stops.len() > limit;
    stops.truncate(limit);
    Ok(Walk { stops, has_more })
}

/// The targets that were woken by events in this range.
fn targets_between(connection: &Connection, after: i64, through: i64) -> Result<HashMap<i64, SessionScope>, ReadError> {
    let mut select = connection.prepare_cached(
        "SELECT position, session, frame FROM wakes WHERE position > ?1 AND position <= ?2 AND session IS NOT NULL",
    )?;
    let targets = select.query_map([after, through], |row| {
        Ok((
            row.get(0)?,
            SessionScope::frame(row.get::<_, String>(1)?, row.get::<_, Option<String>>(2)?.unwrap_or_default()),
        ))
    })?;
    Ok(targets.collect::<Result<_, _>>()?)
}

/// What a cursor names beside its position.
struct Store {
    id: Arc<str>,
    epoch: u64,
    next_position: i64,
}

impl Store {
    fn of(connection: &Connection) -> Result<Self, rusqlite::Error> {
        connection.prepare_cached("SELECT store_id, store_epoch, next_position FROM meta")?.query_row([], |row| {
            Ok(Self {
                id: row.get::<_, String>(0)?.into(),
                epoch: row.get::<_, i64>(1)?.cast_unsigned(),
                next_position: row.get(2)?,
            })
        })
    }

    fn cursor(&self, position: i64, link: [u8; 8]) -> ChangeCursor {
        ChangeCursor::new(Arc::clone(&self.id), self.epoch, position.cast_unsigned(), link)
    }
}

fn last_retained(connection: &Connection) -> Result<i64, rusqlite::Error> {
    connection
        .prepare_cached(
            "SELECT max((SELECT ifnull(max(position), 0) FROM events),
                        (SELECT ifnull(max(position), 0) FROM tombstones),
                        (SELECT ifnull(max(position), 0) FROM session_deletions))",
        )?
        .query_row([], |row| row.get(0))
}

/// First bytes of the link of what stands at a position, if it is still there.
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
    Ok(link.and_then(|link| Digest::from_bytes(&link)).map(|link| link.short()))
}
