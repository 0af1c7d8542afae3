//! Reads of one process beside its events: where it is, its record, its lease.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row};

use super::event::events_after;
use super::{ReadError, bytes, damaged, unreadable};
use crate::domain::{LeaseRow, ProcessId, ProcessRecord};
use crate::log::codec;
use crate::port::{Head, LogError, StoredProcess};

/// A stored process, as far as its narrow rows tell.
pub(in crate::log::sqlite) struct Located {
    pub(in crate::log::sqlite) process_no: i64,
    pub(in crate::log::sqlite) head_sequence: i64,
}

pub(in crate::log::sqlite) fn load(
    connection: &Connection,
    process_id: &ProcessId,
    operation_tail: u32,
) -> Result<Option<StoredProcess>, ReadError> {
    let snapshot = connection.unchecked_transaction()?;
    load_within(&snapshot, process_id, operation_tail)
}

/// The same inside a transaction of the caller.
pub(in crate::log::sqlite) fn load_within(
    snapshot: &Connection,
    process_id: &ProcessId,
    operation_tail: u32,
) -> Result<Option<StoredProcess>, ReadError> {
    let Some(located) = locate(snapshot, process_id)? else { return Ok(None) };
    let record = record_of(snapshot, process_id, located.process_no)?;
    let lease = lease_of(snapshot, process_id, located.process_no)?;
    let tail = i64::from(operation_tail.max(1));
    let after = located.head_sequence.saturating_sub(tail).max(-1);
    let events = events_after(snapshot, process_id, &located, after, tail)?;
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

pub(in crate::log::sqlite) fn process_ids(
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

pub(in crate::log::sqlite) fn locate(
    connection: &Connection,
    process_id: &ProcessId,
) -> Result<Option<Located>, ReadError> {
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

pub(super) fn locate_known(connection: &Connection, process_id: &ProcessId) -> Result<Located, ReadError> {
    locate(connection, process_id)?.ok_or_else(|| LogError::Unknown { process_id: process_id.clone() }.into())
}

/// The record of a process, checked.
pub(in crate::log::sqlite) fn record_of(
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

pub(super) fn record_in(process_id: &ProcessId, row: &Row<'_>, first: usize) -> Result<ProcessRecord, ReadError> {
    let column = |index| -> Result<&[u8], ReadError> {
        bytes(row.get_ref(first + index)?)
            .ok_or_else(|| damaged(process_id, 0, "its record has a column of a wrong kind"))
    };
    let number = |index| -> Result<i64, ReadError> {
        row.get(first + index).map_err(|_| damaged(process_id, 0, "its record has a column of a wrong kind"))
    };
    let (codec, updated_at_ms) = (number(1)?, number(4)?);
    codec::decode_record(process_id, column(0)?, codec, column(2)?, column(3)?, updated_at_ms)
        .map_err(|what| damaged(process_id, 0, what))
}

/// The lease row of a process, checked.
pub(in crate::log::sqlite) fn lease_of(
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

pub(super) fn process_id_of(connection: &Connection, process_no: i64) -> Result<ProcessId, ReadError> {
    let mut select = connection.prepare_cached("SELECT process_id FROM processes WHERE process_no = ?1")?;
    let mut rows = select.query([process_no])?;
    match rows.next()? {
        Some(row) => process_id_in(row, 0),
        None => Err(unreadable(format!("there are events of process number {process_no}, which is not there"))),
    }
}

pub(in crate::log::sqlite) fn process_id_in(row: &Row<'_>, index: usize) -> Result<ProcessId, ReadError> {
    let text = String::from_utf8_lossy(bytes(row.get_ref(index)?).unwrap_or_default()).into_owned();
    ProcessId::new(text).map_err(|error| unreadable(format!("a process has an impossible id: {error}")))
}
