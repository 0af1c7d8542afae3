//! Reads of grants.

use std::sync::Arc;

use rusqlite::{Connection, Row, params};

use super::process::{locate_known, process_id_in, record_of};
use super::{ReadError, bytes, damaged};
use crate::domain::{ProcessHandleGrant, ProcessId, SessionScope};
use crate::log::codec;
use crate::port::{Answer, HandleGrantPage, ProcessGrantPage, ProcessPage};

/// The grants of one scope, each with its process.
pub(super) fn of_scope(
    connection: &Connection,
    scope: &SessionScope,
    live_only: bool,
    after: Option<&ProcessId>,
    limit: u32,
) -> Result<Answer, ReadError> {
    let limit = limit.clamp(1, ProcessPage::MAX_LIMIT) as usize;
    let live = if live_only { "AND p.status = 'running'" } else { "" };
    let mut select = connection.prepare_cached(&format!(
        "SELECT g.session, g.frame, g.process_id, g.codec, g.body, g.checksum, p.process_no
         FROM grants g CROSS JOIN processes p ON p.process_id = g.process_id
         WHERE g.session = ?1 AND g.frame = ?2 AND g.process_id > ?3 {live} ORDER BY g.process_id LIMIT ?4"
    ))?;
    let mut rows = select.query(params![
        scope.session_id(),
        frame_of(scope),
        after.map_or("", ProcessId::as_str),
        limit as i64 + 1
    ])?;
    let mut page = HandleGrantPage { entries: Vec::new(), has_more: false };
    while let Some(row) = rows.next()? {
        if page.entries.len() == limit {
            page.has_more = true;
            break;
        }
        let grant = grant_in(row)?;
        let record = record_of(connection, &grant.process_id, row.get(6)?)?;
        page.entries.push((grant, Arc::new(record)));
    }
    Ok(Answer::HandleGrants(page))
}

/// The grants of one process, ascending by scope.
pub(super) fn of_process(
    connection: &Connection,
    process_id: &ProcessId,
    after: Option<&SessionScope>,
    limit: u32,
) -> Result<Answer, ReadError> {
    locate_known(connection, process_id)?;
    let limit = limit.clamp(1, ProcessPage::MAX_LIMIT) as usize;
    let mut select = connection.prepare_cached(
        "SELECT session, frame, process_id, codec, body, checksum FROM grants INDEXED BY grants_by_process
         WHERE process_id = ?1 AND (session, frame) > (?2, ?3) ORDER BY session, frame LIMIT ?4",
    )?;
    // No session has an empty name.
    let (session, frame) = after.map_or(("", ""), |after| (after.session_id(), frame_of(after)));
    let mut rows = select.query(params![process_id.as_str(), session, frame, limit as i64 + 1])?;
    let mut page = ProcessGrantPage { grants: Vec::new(), has_more: false };
    while let Some(row) = rows.next()? {
        if page.grants.len() == limit {
            page.has_more = true;
            break;
        }
        page.grants.push(grant_in(row)?);
    }
    Ok(Answer::GrantsOfProcess(page))
}

/// One grant, checked.
pub(in crate::log::sqlite) fn grant_of(
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

/// Reads all grants of a process, so that each is checked.
pub(in crate::log::sqlite) fn grants_agree(connection: &Connection, process_id: &ProcessId) -> Result<(), ReadError> {
    let mut select = connection
        .prepare_cached("SELECT session, frame, process_id, codec, body, checksum FROM grants WHERE process_id = ?1")?;
    let mut rows = select.query([process_id.as_str()])?;
    while let Some(row) = rows.next()? {
        grant_in(row)?;
    }
    Ok(())
}

fn grant_in(row: &Row<'_>) -> Result<ProcessHandleGrant, ReadError> {
    let process_id = process_id_in(row, 2)?;
    let fault = |what: String| damaged(&process_id, 0, what);
    let column = |index| -> Result<&[u8], ReadError> {
        bytes(row.get_ref(index)?).ok_or_else(|| fault("a grant has a column of a wrong kind".to_owned()))
    };
    let grant: ProcessHandleGrant = codec::decode_mark(row.get(3)?, column(4)?, column(5)?)
        .map_err(|what| fault(format!("a grant on it is damaged: {what}")))?;
    let is_its_own = grant.scope.session_id().as_bytes() == column(0)?
        && frame_of(&grant.scope).as_bytes() == column(1)?
        && grant.process_id == process_id;
    if is_its_own { Ok(grant) } else { Err(fault("a grant on it is of another scope or process".to_owned())) }
}

/// The frame of a scope as the store holds it.
pub(in crate::log::sqlite) fn frame_of(scope: &SessionScope) -> &str {
    scope.agent_frame_id().unwrap_or_default()
}
