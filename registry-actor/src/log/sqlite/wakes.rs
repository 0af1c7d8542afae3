//! The events that woke somebody: whether that is acknowledged, and their deliveries as long as nobody has taken them.

use std::collections::BTreeMap;

use rusqlite::{CachedStatement, Connection, params};

use super::read::ReadError;
use crate::domain::{Sequence, SessionScope};
use crate::log::codec::{CODEC_JSON, EncodedBatch, EncodedDelivery};

/// The statements that keep the wakes of a batch.
pub(super) struct WakeStatements<'connection> {
    is_known: CachedStatement<'connection>,
    insert: CachedStatement<'connection>,
    acknowledge: CachedStatement<'connection>,
}

/// The frame column of a scope: empty for the session's own.
pub(super) fn frame_of(scope: &SessionScope) -> &str {
    scope.agent_frame_id().unwrap_or_default()
}

impl<'connection> WakeStatements<'connection> {
    pub(super) fn prepare(connection: &'connection Connection) -> Result<Self, rusqlite::Error> {
        Ok(Self {
            is_known: connection
                .prepare_cached("SELECT 1 FROM wakes WHERE session = ?1 AND frame = ?2 AND wake_id = ?3")?,
            insert: connection.prepare_cached(
                "INSERT INTO wakes
                 (position, process_no, sequence, acked, pending, session, frame, wake_id, codec, body, checksum)
                 VALUES (?1, ?2, ?3, 0, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?,
            acknowledge: connection
                .prepare_cached("UPDATE wakes SET acked = 1, pending = 0 WHERE process_no = ?1 AND sequence = ?2")?,
        })
    }

    /// Stores what the events of a batch mean for wakes. The first of them stands at this position, the others follow.
    pub(super) fn store(
        &mut self,
        process_no: i64,
        first_position: i64,
        batch: &EncodedBatch,
    ) -> Result<(), rusqlite::Error> {
        for (position, encoded) in (first_position..).zip(&batch.events) {
            let event = &encoded.event;
            if event.semantics.wake.is_some() {
                let of_event = |delivery: &&EncodedDelivery| delivery.delivery.sequence == event.sequence;
                let delivery = batch.deliveries.iter().find(of_event);
                self.insert(process_no, position, event.sequence, delivery)?;
            }
            if let Some(acknowledged) = event.acknowledged_wake() {
                self.acknowledge.execute(params![process_no, acknowledged.0.cast_signed()])?;
            }
        }
        Ok(())
    }

    /// A wake that its target knows already has no delivery of its own.
    fn insert(
        &mut self,
        process_no: i64,
        position: i64,
        sequence: Sequence,
        delivery: Option<&EncodedDelivery>,
    ) -> Result<(), rusqlite::Error> {
        let sequence = sequence.0.cast_signed();
        let none: Option<&str> = None;
        let Some(EncodedDelivery { delivery, body, checksum }) = delivery else {
            self.insert.execute(params![position, process_no, sequence, 0, none, none, none, none, none, none])?;
            return Ok(());
        };
        let (session, frame) = (delivery.target.session_id(), frame_of(&delivery.target));
        if self.is_known.exists(params![session, frame, delivery.wake_id])? {
            self.insert.execute(params![position, process_no, sequence, 0, none, none, none, none, none, none])?;
            return Ok(());
        }
        self.insert.execute(params![
            position,
            process_no,
            sequence,
            1,
            session,
            frame,
            delivery.wake_id,
            CODEC_JSON,
            body,
            checksum.as_bytes()
        ])?;
        Ok(())
    }
}

/// Settles the pending wakes of a session and all of its frames; answers how many.
pub(super) fn settle_session(connection: &Connection, session_id: &str) -> Result<u64, rusqlite::Error> {
    let settled = connection
        .prepare_cached("UPDATE wakes SET pending = 0 WHERE session = ?1 AND pending = 1")?
        .execute([session_id])?;
    Ok(settled as u64)
}

/// The wakes of a process, and whether they are acknowledged.
pub(super) fn stored(connection: &Connection, process_no: i64) -> Result<BTreeMap<Sequence, bool>, ReadError> {
    let mut select = connection.prepare_cached("SELECT sequence, acked FROM wakes WHERE process_no = ?1")?;
    let rows = select
        .query_map([process_no], |row| Ok((Sequence(row.get::<_, i64>(0)?.cast_unsigned()), row.get::<_, bool>(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
