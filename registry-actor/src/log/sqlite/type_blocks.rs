//! Where a process has events of a type: by blocks of sequences, so that the first one after a cursor is found without
//! walking over all events in between.
//!
//! The rows follow from the events. The writer adds one when a type is new in a block, the check compares them.

use std::collections::BTreeSet;
use std::sync::Arc;

use rusqlite::{CachedStatement, Connection, params};

use super::read::ReadError;

/// How many sequences a block has.
const BLOCK: i64 = 256;

/// How many types of the current block are remembered for one process. What is not remembered is inserted once more,
/// which changes nothing.
const TYPES_REMEMBERED: usize = 8;

/// The block of a sequence.
pub(super) const fn block_of(sequence: i64) -> i64 {
    sequence / BLOCK
}

/// The types that the writer has seen in the current block of a process.
#[derive(Debug, Clone, Default)]
pub(super) struct SeenTypes {
    block: i64,
    types: Vec<Arc<str>>,
}

impl SeenTypes {
    /// Stores where an event is, unless that is known to be stored.
    pub(super) fn store(
        seen: &mut Arc<Self>,
        insert: &mut CachedStatement<'_>,
        process_no: i64,
        sequence: i64,
        event_type: &Arc<str>,
    ) -> Result<(), rusqlite::Error> {
        // The registration is never searched for.
        if sequence == 0 {
            return Ok(());
        }
        let block = block_of(sequence);
        if seen.block == block && seen.types.contains(event_type) {
            return Ok(());
        }
        insert.execute(params![process_no, &**event_type, block])?;
        let seen = Arc::make_mut(seen);
        if seen.block != block {
            seen.block = block;
            seen.types.clear();
        }
        if seen.types.len() < TYPES_REMEMBERED {
            seen.types.push(Arc::clone(event_type));
        }
        Ok(())
    }
}

/// The statement for [`SeenTypes::store`].
pub(super) const INSERT: &str =
    "INSERT INTO type_blocks (process_no, type, block) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";

/// Sequence of the first event of a type after a cursor. Walks over two blocks at most: that of the cursor, whose events
/// of the type may lie before it, and the next that has one.
pub(super) fn first_after(
    connection: &Connection,
    process_no: i64,
    event_type: &str,
    after: i64,
) -> Result<Option<i64>, ReadError> {
    let mut blocks = connection.prepare_cached(
        "SELECT block FROM type_blocks WHERE process_no = ?1 AND type = ?2 AND block >= ?3 ORDER BY block",
    )?;
    let mut within = connection.prepare_cached(
        "SELECT sequence FROM events WHERE process_no = ?1 AND sequence > ?2 AND sequence < ?3 AND type = ?4
         ORDER BY sequence LIMIT 1",
    )?;
    let mut rows = blocks.query(params![process_no, event_type, block_of(after.saturating_add(1))])?;
    while let Some(row) = rows.next()? {
        let begin = row.get::<_, i64>(0)?.saturating_mul(BLOCK);
        let bounds = params![process_no, after.max(begin - 1), begin.saturating_add(BLOCK), event_type];
        if let Some(found) = within.query(bounds)?.next()? {
            return Ok(Some(found.get(0)?));
        }
    }
    Ok(None)
}

/// How many events of a type there are up to a sequence: walks over the blocks that have one.
pub(super) fn count_through(
    connection: &Connection,
    process_no: i64,
    event_type: &str,
    through: i64,
) -> Result<u64, ReadError> {
    let mut blocks = connection
        .prepare_cached("SELECT block FROM type_blocks WHERE process_no = ?1 AND type = ?2 AND block <= ?3")?;
    let mut within = connection.prepare_cached(
        "SELECT count(*) FROM events WHERE process_no = ?1 AND sequence >= ?2 AND sequence < ?3 AND sequence <= ?4
         AND type = ?5",
    )?;
    let mut rows = blocks.query(params![process_no, event_type, block_of(through)])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        let begin = row.get::<_, i64>(0)?.saturating_mul(BLOCK);
        // The registration is no event of its process to count.
        let bounds = params![process_no, begin.max(1), begin.saturating_add(BLOCK), through, event_type];
        count += within.query_row(bounds, |row| row.get::<_, i64>(0))?.cast_unsigned();
    }
    Ok(count)
}

/// All that is stored of a process.
pub(super) fn stored(connection: &Connection, process_no: i64) -> Result<BTreeSet<(i64, String)>, ReadError> {
    let mut select = connection.prepare_cached("SELECT block, type FROM type_blocks WHERE process_no = ?1")?;
    let rows = select.query_map([process_no], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
