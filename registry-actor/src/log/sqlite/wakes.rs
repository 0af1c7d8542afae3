//! The rows of wakes, as the writer stores them with their events. An event that neither wakes nor acknowledges touches none.

use rusqlite::{Connection, OptionalExtension, params};

use super::read::frame_of;
use crate::domain::Sequence;
use crate::log::codec::{CODEC_JSON, EncodedBatch, EncodedDelivery};

/// Stores the wakes of a batch whose events stand at dense positions from `first` on.
pub(super) fn store(
    connection: &Connection,
    process_no: i64,
    first: i64,
    batch: &EncodedBatch,
) -> Result<(), rusqlite::Error> {
    for (position, encoded) in (first..).zip(&batch.events) {
        let event = &encoded.event;
        if event.semantics.wake.is_some() {
            let delivery = batch.deliveries.iter().find(|delivery| delivery.delivery.sequence == event.sequence);
            insert(connection, position, process_no, event.sequence, delivery)?;
        }
        if let Some(acknowledged) = event.acknowledged_wake() {
            connection
                .prepare_cached("UPDATE wakes SET acked = 1, pending = 0 WHERE process_no = ?1 AND sequence = ?2")?
                .execute([process_no, acknowledged.0.cast_signed()])?;
        }
    }
    Ok(())
}

fn insert(
    connection: &Connection,
    position: i64,
    process_no: i64,
    sequence: Sequence,
    delivery: Option<&EncodedDelivery>,
) -> Result<(), rusqlite::Error> {
    let sequence = sequence.0.cast_signed();
    let fresh = match delivery {
        Some(delivery) if !is_known(connection, delivery)? => Some(delivery),
        _ => None,
    };
    let Some(EncodedDelivery { delivery, body, checksum }) = fresh else {
        connection
            .prepare_cached(
                "INSERT INTO wakes (position, process_no, sequence, acked, pending) VALUES (?1, ?2, ?3, 0, 0)",
            )?
            .execute([position, process_no, sequence])?;
        return Ok(());
    };
    connection
        .prepare_cached(
            "INSERT INTO wakes
             (position, process_no, sequence, acked, pending, session, frame, wake_id, codec, body, checksum)
             VALUES (?1, ?2, ?3, 0, 1, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            position,
            process_no,
            sequence,
            delivery.target.session_id(),
            frame_of(&delivery.target),
            delivery.wake_id,
            CODEC_JSON,
            body,
            checksum.as_bytes()
        ])?;
    Ok(())
}

/// Whether the target has a delivery of this wake, settled or not.
fn is_known(connection: &Connection, delivery: &EncodedDelivery) -> Result<bool, rusqlite::Error> {
    let delivery = &delivery.delivery;
    let found = connection
        .prepare_cached("SELECT 1 FROM wakes WHERE session = ?1 AND frame = ?2 AND wake_id = ?3")?
        .query_row(params![delivery.target.session_id(), frame_of(&delivery.target), delivery.wake_id], |_| Ok(()))
        .optional()?;
    Ok(found.is_some())
}
