//! What fills new tables from what older versions stored. Events are never rewritten.

use rusqlite::{Transaction, params};

use super::listing::{self, Listing};
use super::read::{self, ReadError};
use crate::domain::ProcessId;

/// How many processes are read at a time.
const PAGE: u32 = 1_000;

/// Version 2: a row for lists and the tags of each process, and the events that woke somebody. To whom their wakes went was
/// not stored then: they are listed by process, and by no target.
pub(super) fn fill_version_2(transaction: &Transaction<'_>) -> Result<(), rusqlite::Error> {
    let mut after: Option<ProcessId> = None;
    loop {
        let ids = read::process_ids(transaction, after.as_ref(), PAGE).map_err(statement_error)?;
        let Some(last) = ids.last().cloned() else { break };
        for process_id in &ids {
            let Some(located) = read::locate(transaction, process_id).map_err(statement_error)? else { continue };
            let record = read::record_of(transaction, process_id, located.process_no).map_err(statement_error)?;
            let mut insert = transaction.prepare_cached(Listing::INSERT)?;
            Listing::of(&record).insert(&mut insert, located.process_no)?;
            let mut insert = transaction.prepare_cached(listing::INSERT_TAG)?;
            listing::insert_tags(&mut insert, &record, located.process_no)?;
        }
        after = Some(last);
    }
    fill_wakes(transaction)
}

fn fill_wakes(transaction: &Transaction<'_>) -> Result<(), rusqlite::Error> {
    let mut select = transaction.prepare(
        "SELECT position, process_no, sequence FROM events
         WHERE json_extract(CAST(data AS TEXT), '$.semantics.wake') IS NOT NULL",
    )?;
    let mut insert = transaction
        .prepare("INSERT INTO wakes (position, process_no, sequence, acked, pending) VALUES (?1, ?2, ?3, 0, 0)")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        insert.execute(params![row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?])?;
    }
    Ok(())
}

/// A store that cannot be read cannot be migrated: it stays as it is.
fn statement_error(error: ReadError) -> rusqlite::Error {
    match error {
        ReadError::Statement(error) => error,
        ReadError::Found(error) => {
            super::schema::failure(rusqlite::ffi::SQLITE_CORRUPT, format!("the store cannot be migrated: {error}"))
        }
    }
}
