//! The columns that lists, prunes and session deletions search by. All of them follow from the record; the check compares
//! them with it.

use std::collections::BTreeSet;

use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::read::ReadError;
use crate::domain::{Digest, ProcessOriginator, ProcessRecord};
use crate::log::codec::{CODEC_JSON, EncodedRecord};

/// What of a record has columns.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RecordColumns<'record> {
    kind: &'record str,
    label: Option<&'record str>,
    definition: Option<Digest>,
    originator_session: Option<&'record str>,
    originator_frame: &'record str,
    waiting: bool,
    created_at_ms: i64,
    terminal_at_ms: Option<i64>,
    wake_session: Option<&'record str>,
    generation: u32,
}

pub(super) const INSERT: &str = "INSERT INTO processes
    (process_no, process_id, status, codec, body, checksum, kind, label, definition, originator_session,
     originator_frame, waiting, created_at_ms, terminal_at_ms, wake_session, generation)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)";

/// Only what can change after the registration: an index is rewritten where one of its columns is named.
pub(super) const UPDATE: &str = "UPDATE processes SET status = ?2, codec = ?3, body = ?4, checksum = ?5, waiting = ?6,
    terminal_at_ms = ?7, wake_session = ?8 WHERE process_no = ?1";

pub(super) const INSERT_TAG: &str = "INSERT INTO process_tags (tag, process_id, process_no) VALUES (?1, ?2, ?3)";

impl<'record> RecordColumns<'record> {
    pub(super) fn of(record: &'record ProcessRecord) -> Self {
        let identity = &record.registration.identity;
        let originator = match &record.registration.provenance.originator {
            ProcessOriginator::Host => None,
            ProcessOriginator::Session { scope } => Some(scope),
        };
        Self {
            kind: &identity.kind,
            label: identity.label.as_deref(),
            definition: identity.definition.as_ref().and_then(|definition| Digest::of_json(definition).ok()),
            originator_session: originator.map(|scope| scope.session_id()),
            originator_frame: originator.and_then(|scope| scope.agent_frame_id()).unwrap_or_default(),
            waiting: record.wait.is_some(),
            created_at_ms: ms(record.created_at_ms),
            terminal_at_ms: record.terminal_at_ms.map(ms),
            wake_session: record.wake_target.as_ref().map(|target| target.session_id()),
            generation: record.generation,
        }
    }

    pub(super) fn insert(
        &self,
        statement: &mut CachedStatement<'_>,
        process_no: i64,
        process_id: &str,
        record: &EncodedRecord,
    ) -> Result<(), rusqlite::Error> {
        statement.execute(params![
            process_no,
            process_id,
            record.status,
            CODEC_JSON,
            record.body,
            record.checksum.as_bytes(),
            self.kind,
            self.label,
            self.definition.as_ref().map(Digest::as_bytes),
            self.originator_session,
            self.originator_frame,
            self.waiting,
            self.created_at_ms,
            self.terminal_at_ms,
            self.wake_session,
            self.generation
        ])?;
        Ok(())
    }

    /// Fills the columns of a row that was made without them.
    pub(super) fn fill(&self, connection: &Connection, process_no: i64) -> Result<(), rusqlite::Error> {
        connection
            .prepare_cached(
                "UPDATE processes SET kind = ?2, label = ?3, definition = ?4, originator_session = ?5,
                 originator_frame = ?6, waiting = ?7, created_at_ms = ?8, terminal_at_ms = ?9, wake_session = ?10,
                 generation = ?11 WHERE process_no = ?1",
            )?
            .execute(params![
                process_no,
                self.kind,
                self.label,
                self.definition.as_ref().map(Digest::as_bytes),
                self.originator_session,
                self.originator_frame,
                self.waiting,
                self.created_at_ms,
                self.terminal_at_ms,
                self.wake_session,
                self.generation
            ])?;
        Ok(())
    }
}

/// Stores what changed of a record.
pub(super) fn update(
    statement: &mut CachedStatement<'_>,
    process_no: i64,
    stored: &EncodedRecord,
    record: &ProcessRecord,
) -> Result<(), rusqlite::Error> {
    statement.execute(params![
        process_no,
        stored.status,
        CODEC_JSON,
        stored.body,
        stored.checksum.as_bytes(),
        record.wait.is_some(),
        record.terminal_at_ms.map(ms),
        record.wake_target.as_ref().map(|target| target.session_id())
    ])?;
    Ok(())
}

/// Whether the columns and the tags of a process are those of its record.
pub(super) fn agree(connection: &Connection, process_no: i64, record: &ProcessRecord) -> Result<bool, ReadError> {
    let wanted = RecordColumns::of(record);
    let agree = connection
        .prepare_cached(
            "SELECT 1 FROM processes WHERE process_no = ?1 AND kind IS ?2 AND label IS ?3 AND definition IS ?4
             AND originator_session IS ?5 AND originator_frame IS ?6 AND waiting IS ?7 AND created_at_ms IS ?8
             AND terminal_at_ms IS ?9 AND wake_session IS ?10 AND generation IS ?11",
        )?
        .query_row(
            params![
                process_no,
                wanted.kind,
                wanted.label,
                wanted.definition.as_ref().map(Digest::as_bytes),
                wanted.originator_session,
                wanted.originator_frame,
                wanted.waiting,
                wanted.created_at_ms,
                wanted.terminal_at_ms,
                wanted.wake_session,
                wanted.generation
            ],
            |_| Ok(()),
        )
        .optional()?
        .is_some();
    let mut select = connection.prepare_cached("SELECT tag, process_id FROM process_tags WHERE process_no = ?1")?;
    let tags = select
        .query_map([process_no], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?
        .collect::<Result<BTreeSet<_>, _>>()?;
    let id = record.id().as_str();
    let wanted: BTreeSet<_> = record.registration.tags.iter().map(|tag| (tag.clone(), id.to_owned())).collect();
    Ok(agree && tags == wanted)
}

/// A time as the store holds it.
pub(super) fn ms(at_ms: u64) -> i64 {
    i64::try_from(at_ms).unwrap_or(i64::MAX)
}
