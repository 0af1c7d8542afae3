//! What lists ask of a process, as a narrow row of its own. It follows from the record: the writer keeps it, the check
//! compares it.

use std::collections::BTreeSet;

use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::read::ReadError;
use crate::domain::{Digest, ProcessOriginator, ProcessRecord};

/// The row of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listing {
    process_id: String,
    status: String,
    kind: String,
    label: Option<String>,
    definition: Option<Vec<u8>>,
    originator_session: Option<String>,
    originator_frame: Option<String>,
    waiting: bool,
    created_at_ms: i64,
    terminal_at_ms: Option<i64>,
    wake_session: Option<String>,
}

/// The digest by which a definition is found. One that has no JSON form is not in a record.
pub(super) fn definition_digest(definition: &serde_json::Value) -> Vec<u8> {
    Digest::of_json(definition).unwrap_or_default().as_bytes().to_vec()
}

impl Listing {
    pub(super) fn of(record: &ProcessRecord) -> Self {
        let registration = &record.registration;
        let identity = &registration.identity;
        let (originator_session, originator_frame) = match &registration.provenance.originator {
            ProcessOriginator::Host => (None, None),
            ProcessOriginator::Session { scope } => {
                (Some(scope.session_id().to_owned()), scope.agent_frame_id().map(str::to_owned))
            }
        };
        Self {
            process_id: record.id().to_string(),
            status: record.status.label().to_owned(),
            kind: identity.kind.clone(),
            label: identity.label.clone(),
            definition: identity.definition.as_ref().map(definition_digest),
            originator_session,
            originator_frame,
            waiting: record.wait.is_some(),
            created_at_ms: record.created_at_ms.cast_signed(),
            terminal_at_ms: record.terminal_at_ms.map(u64::cast_signed),
            wake_session: record.wake_target.as_ref().map(|target| target.session_id().to_owned()),
        }
    }

    pub(super) const INSERT: &str = "INSERT INTO listings (process_no, process_id, status, kind, label, definition,
         originator_session, originator_frame, waiting, created_at_ms, terminal_at_ms, wake_session)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";

    pub(super) fn insert(&self, statement: &mut CachedStatement<'_>, process_no: i64) -> Result<(), rusqlite::Error> {
        statement.execute(params![
            process_no,
            self.process_id,
            self.status,
            self.kind,
            self.label,
            self.definition,
            self.originator_session,
            self.originator_frame,
            self.waiting,
            self.created_at_ms,
            self.terminal_at_ms,
            self.wake_session
        ])?;
        Ok(())
    }

    /// What does not change with a process is not written again, and nothing is if nothing changed: a changed row moves in
    /// the indexes.
    pub(super) const UPDATE: &str =
        "UPDATE listings SET status = ?2, waiting = ?3, terminal_at_ms = ?4, wake_session = ?5
         WHERE process_no = ?1
         AND (status IS NOT ?2 OR waiting IS NOT ?3 OR terminal_at_ms IS NOT ?4 OR wake_session IS NOT ?5)";

    pub(super) fn update(&self, statement: &mut CachedStatement<'_>, process_no: i64) -> Result<(), rusqlite::Error> {
        statement.execute(params![process_no, self.status, self.waiting, self.terminal_at_ms, self.wake_session])?;
        Ok(())
    }

    /// The stored row of a process.
    pub(super) fn stored(connection: &Connection, process_no: i64) -> Result<Option<Self>, ReadError> {
        let mut select = connection.prepare_cached(
            "SELECT process_id, status, kind, label, definition, originator_session, originator_frame, waiting,
             created_at_ms, terminal_at_ms, wake_session FROM listings WHERE process_no = ?1",
        )?;
        let found = select.query_row([process_no], |row| {
            Ok(Self {
                process_id: row.get(0)?,
                status: row.get(1)?,
                kind: row.get(2)?,
                label: row.get(3)?,
                definition: row.get(4)?,
                originator_session: row.get(5)?,
                originator_frame: row.get(6)?,
                waiting: row.get(7)?,
                created_at_ms: row.get(8)?,
                terminal_at_ms: row.get(9)?,
                wake_session: row.get(10)?,
            })
        });
        Ok(found.optional()?)
    }
}

/// The statement for [`insert_tags`].
pub(super) const INSERT_TAG: &str = "INSERT INTO process_tags (tag, process_id, process_no) VALUES (?1, ?2, ?3)";

/// Stores the tags of a process, which never change.
pub(super) fn insert_tags(
    statement: &mut CachedStatement<'_>,
    record: &ProcessRecord,
    process_no: i64,
) -> Result<(), rusqlite::Error> {
    for tag in &record.registration.tags {
        statement.execute(params![tag, record.id().as_str(), process_no])?;
    }
    Ok(())
}

/// Removes the tags of a process.
pub(super) fn remove_tags(connection: &Connection, record: &ProcessRecord) -> Result<(), rusqlite::Error> {
    let mut delete = connection.prepare_cached("DELETE FROM process_tags WHERE tag = ?1 AND process_id = ?2")?;
    for tag in &record.registration.tags {
        delete.execute(params![tag, record.id().as_str()])?;
    }
    Ok(())
}

/// Which tags of a process are stored as they should be. A row that no tag of the process leads to is found by nobody.
pub(super) fn stored_tags(
    connection: &Connection,
    record: &ProcessRecord,
    process_no: i64,
) -> Result<BTreeSet<String>, ReadError> {
    let mut select = connection
        .prepare_cached("SELECT 1 FROM process_tags WHERE tag = ?1 AND process_id = ?2 AND process_no = ?3")?;
    let mut stored = BTreeSet::new();
    for tag in &record.registration.tags {
        if select.exists(params![tag, record.id().as_str(), process_no])? {
            stored.insert(tag.clone());
        }
    }
    Ok(stored)
}
