//! Grants: who may address which process.

use std::sync::Arc;

use rusqlite::{Connection, Row, params};

use super::super::wakes::frame_of;
use super::{ReadError, bytes, damaged, locate, process_id_in, record_of};
use crate::domain::{ProcessHandleGrant, ProcessId, SessionScope};
use crate::log::codec;
use crate::port::{HandleGrantPage, ProcessGrantPage};

/// The grant of exactly this scope on a process.
pub(in crate::log::sqlite) fn one(
    connection: &Connection,
    scope: &SessionScope,
    process_id: &ProcessId,
) -> Result<Option<ProcessHandleGrant>, ReadError> {
    let mut select = connection.prepare_cached(
        "SELECT session, frame, process_id, codec, body, checksum FROM grants
         WHERE session = ?1 AND frame = ?2 AND process_id = ?3",
    )?;
    let mut rows = select.query(params![scope.session_id(), frame_of(scope), process_id.as_str()])?;
    rows.next()?.map(grant_in).transpose()
}

pub(super) fn of_scope(
    connection: &Connection,
    scope: &SessionScope,
    live_only: bool,
    after: Option<&ProcessId>,
    limit: usize,
) -> Result<HandleGrantPage, ReadError> {
    let live = if live_only { "AND p.status = 'running'" } else { "" };
    let mut select = connection.prepare_cached(&format!(
        "SELECT g.session, g.frame, g.process_id, g.codec, g.body, g.checksum
         FROM grants g CROSS JOIN processes p ON p.process_id = g.process_id
         WHERE g.session = ?1 AND g.frame = ?2 AND g.process_id > ?3 {live}
         ORDER BY g.process_id LIMIT ?4"
    ))?;
    let after = after.map_or("", ProcessId::as_str);
    let mut rows = select.query(params![scope.session_id(), frame_of(scope), after, limit as i64 + 1])?;
    let mut page = HandleGrantPage { entries: Vec::new(), has_more: false };
    while let Some(row) = rows.next()? {
        if page.entries.len() == limit {
            page.has_more = true;
            break;
        }
        let grant = grant_in(row)?;
        let Some(located) = locate(connection, &grant.process_id)? else { continue };
        let record = record_of(connection, &grant.process_id, located.process_no)?;
        page.entries.push((grant, Arc::new(record)));
    }
    Ok(page)
}

pub(super) fn of_process(
    connection: &Connection,
    process_id: &ProcessId,
    after: Option<&SessionScope>,
    limit: usize,
) -> Result<ProcessGrantPage, ReadError> {
    let mut select = connection.prepare_cached(
        "SELECT session, frame, process_id, codec, body, checksum FROM grants
         WHERE process_id = ?1 AND (session, frame) > (?2, ?3) ORDER BY session, frame LIMIT ?4",
    )?;
    let (session, frame) = after.map_or(("", ""), |scope| (scope.session_id(), frame_of(scope)));
    let mut rows = select.query(params![process_id.as_str(), session, frame, limit as i64 + 1])?;
    let mut page = ProcessGrantPage { grants: Vec::new(), has_more: false };
    while let Some(row) = rows.next()? {
        if page.grants.len() == limit {
            page.has_more = true;
            break;
        }
        page.grants.push(grant_in(row)?);
    }
    Ok(page)
}

/// The grant in a row, checked against its columns.
fn grant_in(row: &Row<'_>) -> Result<ProcessHandleGrant, ReadError> {
    let process_id = process_id_in(row, 2)?;
    let column = |index| -> Result<&[u8], ReadError> {
        bytes(row.get_ref(index)?).ok_or_else(|| damaged(&process_id, 0, "a grant has a column of a wrong kind"))
    };
    let grant: ProcessHandleGrant = codec::decode_mark(row.get(3)?, column(4)?, column(5)?)
        .map_err(|what| damaged(&process_id, 0, format!("a grant: {what}")))?;
    let is_its_own = grant.process_id == process_id
        && grant.scope.session_id().as_bytes() == column(0)?
        && frame_of(&grant.scope).as_bytes() == column(1)?;
    if is_its_own { Ok(grant) } else { Err(damaged(&process_id, 0, "a grant has other columns than its body")) }
}
