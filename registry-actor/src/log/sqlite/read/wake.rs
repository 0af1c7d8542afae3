//! Wakes: the events of a process that nobody acknowledged, and what is pending for a target.

use rusqlite::{Connection, params};

use super::super::wakes::frame_of;
use super::{Located, ReadError, bytes, event_at, unreadable};
use crate::domain::{ProcessId, SessionScope, WakeCursor};
use crate::log::codec;
use crate::port::{EventPage, PendingWake, PendingWakePage};

/// The events after a sequence that woke somebody and are not acknowledged.
pub(super) fn open_events(
    connection: &Connection,
    process_id: &ProcessId,
    located: &Located,
    after: i64,
    limit: usize,
) -> Result<EventPage, ReadError> {
    let mut select = connection.prepare_cached(
        "SELECT sequence FROM wakes INDEXED BY wakes_open
         WHERE process_no = ?1 AND sequence > ?2 AND acked = 0 ORDER BY sequence LIMIT ?3",
    )?;
    let mut rows = select.query(params![located.process_no, after, limit as i64 + 1])?;
    let mut page = EventPage { events: Vec::new(), has_more: false };
    while let Some(row) = rows.next()? {
        if page.events.len() == limit {
            page.has_more = true;
            break;
        }
        page.events.push(event_at(connection, process_id, located, row.get(0)?)?);
    }
    Ok(page)
}

/// What is pending for exactly this target.
pub(super) fn pending(
    connection: &Connection,
    target: &SessionScope,
    after: Option<WakeCursor>,
    limit: usize,
) -> Result<PendingWakePage, ReadError> {
    let mut select = connection.prepare_cached(
        "SELECT position, codec, body, checksum, wake_id FROM wakes INDEXED BY wakes_pending
         WHERE session = ?1 AND frame = ?2 AND position > ?3 AND pending = 1 ORDER BY position LIMIT ?4",
    )?;
    let after = after.map_or(0, |cursor| i64::try_from(cursor.0).unwrap_or(i64::MAX));
    let mut rows = select.query(params![target.session_id(), frame_of(target), after, limit as i64 + 1])?;
    let mut page = PendingWakePage { wakes: Vec::new(), has_more: false };
    while let Some(row) = rows.next()? {
        if page.wakes.len() == limit {
            page.has_more = true;
            break;
        }
        let position: i64 = row.get(0)?;
        let column = |index| -> Result<&[u8], ReadError> {
            bytes(row.get_ref(index)?)
                .ok_or_else(|| unreadable(format!("the wake at position {position} has a column of a wrong kind")))
        };
        let delivery = codec::decode_delivery(row.get(1)?, column(2)?, column(3)?)
            .map_err(|what| unreadable(format!("the wake at position {position}: {what}")))?;
        if delivery.wake_id.as_bytes() != column(4)? || delivery.target != *target {
            return Err(unreadable(format!("the wake at position {position} has other columns than its body")));
        }
        page.wakes.push(PendingWake { cursor: WakeCursor(position.cast_unsigned()), delivery });
    }
    Ok(page)
}
