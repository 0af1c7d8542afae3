//! Reads of wakes: which events woke, what of it is acknowledged, and what is still to be told.

use std::collections::BTreeMap;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, params};

use super::event::event_at;
use super::grant::frame_of;
use super::process::{locate_known, process_id_of};
use super::{ReadError, bound, bytes, damaged};
use crate::domain::{ProcessId, ProcessWakeDelivery, Sequence, SessionScope, WakeCursor};
use crate::log::codec;
use crate::port::{Answer, EventPage, PendingWake, PendingWakePage};

/// A page of the events that woke and are not acknowledged.
pub(super) fn events(
    connection: &Connection,
    process_id: &ProcessId,
    after: Sequence,
    limit: u32,
) -> Result<Answer, ReadError> {
    let located = locate_known(connection, process_id)?;
    let limit = limit.clamp(1, EventPage::MAX_LIMIT) as usize;
    let mut select = connection.prepare_cached(
        "SELECT sequence FROM wakes INDEXED BY wakes_unacked
         WHERE process_no = ?1 AND sequence > ?2 AND acked = 0 ORDER BY sequence LIMIT ?3",
    )?;
    let mut rows = select.query(params![located.process_no, bound(after), limit as i64 + 1])?;
    let mut page = EventPage { events: Vec::new(), has_more: false };
    while let Some(row) = rows.next()? {
        if page.events.len() == limit {
            page.has_more = true;
            break;
        }
        page.events.push(event_at(connection, process_id, &located, row.get(0)?)?);
    }
    Ok(Answer::Events(page))
}

/// A page of what a target is still to be told.
pub(super) fn pending(
    connection: &Connection,
    target: &SessionScope,
    after: Option<WakeCursor>,
    limit: u32,
) -> Result<Answer, ReadError> {
    let limit = limit.clamp(1, EventPage::MAX_LIMIT) as usize;
    let mut select = connection.prepare_cached(
        "SELECT position, process_no, sequence, session, frame, wake_id, codec, body, checksum
         FROM wakes INDEXED BY wakes_pending
         WHERE session = ?1 AND frame = ?2 AND position > ?3 AND pending = 1 ORDER BY position LIMIT ?4",
    )?;
    let after = after.map_or(0, |cursor| i64::try_from(cursor.place()).unwrap_or(i64::MAX));
    let mut rows = select.query(params![target.session_id(), frame_of(target), after, limit as i64 + 1])?;
    let mut page = PendingWakePage { wakes: Vec::new(), has_more: false };
    while let Some(row) = rows.next()? {
        if page.wakes.len() == limit {
            page.has_more = true;
            break;
        }
        let (position, process_no): (i64, i64) = (row.get(0)?, row.get(1)?);
        let process_id = process_id_of(connection, process_no)?;
        let delivery = delivery_in(&process_id, row)?;
        page.wakes.push(PendingWake { cursor: WakeCursor::new(position.cast_unsigned()), delivery });
    }
    Ok(Answer::PendingWakes(page))
}

/// What is stored of the wakes of a process, each checked: whether it is acknowledged.
pub(in crate::log::sqlite) fn stored_wakes(
    connection: &Connection,
    process_id: &ProcessId,
    process_no: i64,
) -> Result<BTreeMap<Sequence, bool>, ReadError> {
    let mut select = connection.prepare_cached(
        "SELECT position, process_no, sequence, session, frame, wake_id, codec, body, checksum, acked, pending,
                (SELECT e.position FROM events e WHERE e.process_no = w.process_no AND e.sequence = w.sequence)
         FROM wakes w WHERE process_no = ?1 ORDER BY sequence",
    )?;
    let mut rows = select.query([process_no])?;
    let mut wakes = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let (position, sequence, acked, pending): (i64, i64, i64, i64) =
            (row.get(0)?, row.get(2)?, row.get(9)?, row.get(10)?);
        let has_delivery = (3..=8).any(|index| row.get_ref(index).is_ok_and(|value| value != ValueRef::Null));
        let marks_hold = match (acked, pending) {
            (0 | 1, 0) => true,
            (0, 1) => has_delivery,
            _ => false,
        };
        if !marks_hold {
            return Err(damaged(process_id, sequence, "the marks of its wake are none that can be"));
        }
        if has_delivery {
            delivery_in(process_id, row)?;
        }
        if row.get::<_, Option<i64>>(11)? != Some(position) {
            return Err(damaged(process_id, sequence, "its wake has another position than its event"));
        }
        wakes.insert(Sequence(sequence.cast_unsigned()), acked == 1);
    }
    Ok(wakes)
}

fn delivery_in(process_id: &ProcessId, row: &Row<'_>) -> Result<ProcessWakeDelivery, ReadError> {
    let sequence: i64 = row.get(2)?;
    let fault = |what: &str| damaged(process_id, sequence, what);
    let column = |index| -> Result<&[u8], ReadError> {
        bytes(row.get_ref(index)?).ok_or_else(|| fault("its wake delivery has a column of a wrong kind"))
    };
    let ValueRef::Integer(codec) = row.get_ref(6)? else {
        return Err(fault("its wake delivery has a column of a wrong kind"));
    };
    let delivery =
        codec::decode_delivery(codec, column(7)?, column(8)?).map_err(|what| damaged(process_id, sequence, what))?;
    let is_its_own = delivery.process_id == *process_id
        && delivery.sequence.0.cast_signed() == sequence
        && delivery.target.session_id().as_bytes() == column(3)?
        && frame_of(&delivery.target).as_bytes() == column(4)?
        && delivery.wake_id.as_bytes() == column(5)?;
    if is_its_own { Ok(delivery) } else { Err(fault("its wake delivery is that of another wake")) }
}
