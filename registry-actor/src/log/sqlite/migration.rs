//! What makes a store of one version out of one of the version before: tables by SQL, and what follows from stored bodies by
//! the codec. The bytes of events are never changed.

use rusqlite::{Connection, params};

use super::read::{self, ReadError};
use super::record_columns::{INSERT_TAG, RecordColumns};
use crate::domain::{CoreEventType, ProcessId};

/// One step, inside a transaction.
#[derive(Clone, Copy)]
pub(super) enum Migration {
    /// Statements.
    Sql(&'static str),
    /// Statements, and then what they cannot compute.
    Filled(&'static str, fn(&Connection) -> Result<(), rusqlite::Error>),
}

impl Migration {
    pub(super) fn run(self, connection: &Connection) -> Result<(), rusqlite::Error> {
        match self {
            Self::Sql(sql) => connection.execute_batch(sql),
            Self::Filled(sql, fill) => {
                connection.execute_batch(sql)?;
                fill(connection)
            }
        }
    }
}

/// Version 2 has columns that follow from records, and rows for the events that wake. What is damaged stays as it is and is
/// reported by the check, as before: it must not keep the rest from being opened.
pub(super) fn fill_v2(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.execute_batch(
        "INSERT INTO processes (process_no, process_id, status, kind, originator_frame, waiting, created_at_ms,
                                generation, codec, body, checksum)
         SELECT process_no, process_id, status, '', '', 0, 0, 1, codec, body, checksum FROM processes_v1;
         DROP TABLE processes_v1;",
    )?;
    let mut select = connection
        .prepare("SELECT process_no, process_id FROM processes WHERE process_no > ?1 ORDER BY process_no LIMIT 1")?;
    let mut last = i64::MIN;
    while let Some(row) = select.query([last])?.next()? {
        last = row.get(0)?;
        let text = row.get_ref(1)?.as_bytes().map(String::from_utf8_lossy).unwrap_or_default();
        let Ok(process_id) = ProcessId::new(text.into_owned()) else { continue };
        fill_process(connection, last, &process_id).or_else(skip_damage)?;
    }
    Ok(())
}

fn skip_damage(error: ReadError) -> Result<(), rusqlite::Error> {
    let what = match error {
        ReadError::Statement(error) if is_damage(&error) => error.to_string(),
        ReadError::Statement(error) => return Err(error),
        ReadError::Found(error) => error.to_string(),
    };
    tracing::error!(what, "a damaged process is taken over as it is");
    Ok(())
}

/// Whether an error says that what is stored is not what it should be, and not that it could not be read or written.
fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error,
        rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
    ) || error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseCorrupt)
}

fn fill_process(connection: &Connection, process_no: i64, process_id: &ProcessId) -> Result<(), ReadError> {
    let record = read::record_of(connection, process_id, process_no)?;
    RecordColumns::of(&record).fill(connection, process_no)?;
    let mut insert_tag = connection.prepare_cached(INSERT_TAG)?;
    for tag in &record.registration.tags {
        insert_tag.execute(params![tag, process_id.as_str(), process_no])?;
    }
    let Some(located) = read::locate(connection, process_id)? else { return Ok(()) };
    // Few events wake: the others are not decoded.
    let mut candidates = connection.prepare_cached(
        "SELECT sequence, position FROM events
         WHERE process_no = ?1 AND (type = ?2 OR instr(data, CAST('\"wake\"' AS BLOB)) > 0) ORDER BY sequence",
    )?;
    let mut insert = connection.prepare_cached(
        "INSERT INTO wakes (position, process_no, sequence, acked, pending) VALUES (?1, ?2, ?3, 0, 0)",
    )?;
    let mut acknowledge =
        connection.prepare_cached("UPDATE wakes SET acked = 1 WHERE process_no = ?1 AND sequence = ?2")?;
    let mut rows = candidates.query(params![process_no, CoreEventType::WakeAcknowledged.name()])?;
    while let Some(row) = rows.next()? {
        let (sequence, position): (i64, i64) = (row.get(0)?, row.get(1)?);
        let event = read::event_at(connection, process_id, &located, sequence)?;
        if event.semantics.wake.is_some() {
            insert.execute([position, process_no, sequence])?;
        }
        if let Some(wake) = event.acknowledged_wake() {
            acknowledge.execute([process_no, wake.0.cast_signed()])?;
        }
    }
    Ok(())
}
