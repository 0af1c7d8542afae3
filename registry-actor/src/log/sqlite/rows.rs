//! The rows of the file, as commands across processes see them, inside their transaction.

use rusqlite::{Connection, OptionalExtension, params};

use super::group::{Known, Statements};
use super::listing;
use super::read::{self, ReadError, StoreIdentity};
use super::wakes::{self, frame_of};
use crate::domain::{
    ChangeCursor, ProcessHandleGrant, ProcessId, PruneFilter, Refusal, SessionDeletion, SessionScope, Tombstone,
};
use crate::log::across::{PruneMark, Rows, StoredRow};
use crate::log::codec::{self, CODEC_JSON};
use crate::port::{AcrossError, AppendError, CommittedBatch, ProcessBatch};

/// Why such a command was not carried out.
pub(super) enum RowsError {
    /// By itself: the transaction goes back, and the caller is told why.
    Refused(AcrossError),
    /// By the store.
    Statement(rusqlite::Error),
}

impl From<Refusal> for RowsError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal.into())
    }
}

impl From<rusqlite::Error> for RowsError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Statement(error)
    }
}

impl From<ReadError> for RowsError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Statement(error) => Self::Statement(error),
            ReadError::Found(error) => Self::Refused(error.into()),
        }
    }
}

fn malformed(error: impl std::fmt::Display) -> RowsError {
    RowsError::Refused(AppendError::NotAccepted { reason: error.to_string() }.into())
}

/// The transaction, what the writer knows, and what followers are to hear.
pub(super) struct TransactionRows<'transaction> {
    pub(super) connection: &'transaction Connection,
    pub(super) known: &'transaction mut Known,
    pub(super) store: &'transaction StoreIdentity,
    pub(super) committed: Vec<CommittedBatch>,
    pub(super) pruned: Vec<Tombstone>,
}

impl Rows for TransactionRows<'_> {
    type Error = RowsError;

    fn process(&mut self, process_id: &ProcessId) -> Result<Option<StoredRow>, RowsError> {
        Ok(read::stored_row(self.connection, process_id)?)
    }

    fn has_ended(&mut self, process_id: &ProcessId) -> Result<Option<bool>, RowsError> {
        let status: Option<String> = self
            .connection
            .prepare_cached("SELECT status FROM processes WHERE process_id = ?1")?
            .query_row([process_id.as_str()], |row| row.get(0))
            .optional()?;
        Ok(status.map(|status| status != "running"))
    }

    fn append(&mut self, batch: ProcessBatch) -> Result<(), RowsError> {
        let batch = codec::encode(batch).map_err(malformed)?;
        let mut statements = Statements::prepare(self.connection)?;
        self.known.store_batch(&mut statements, &batch)?.map_err(|error| RowsError::Refused(error.into()))?;
        self.committed.push(batch.committed);
        Ok(())
    }

    fn grant(&mut self, scope: &SessionScope, process_id: &ProcessId) -> Result<Option<ProcessHandleGrant>, RowsError> {
        Ok(read::grant::one(self.connection, scope, process_id)?)
    }

    fn put_grant(&mut self, grant: &ProcessHandleGrant) -> Result<(), RowsError> {
        let (body, checksum) = codec::encode_mark(grant).map_err(malformed)?;
        self.connection
            .prepare_cached(
                "INSERT INTO grants (session, frame, process_id, codec, body, checksum) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (session, frame, process_id) DO UPDATE SET codec = excluded.codec, body = excluded.body,
                 checksum = excluded.checksum",
            )?
            .execute(params![
                grant.scope.session_id(),
                frame_of(&grant.scope),
                grant.process_id.as_str(),
                CODEC_JSON,
                body,
                checksum.as_bytes()
            ])?;
        Ok(())
    }

    fn remove_grant(&mut self, scope: &SessionScope, process_id: &ProcessId) -> Result<bool, RowsError> {
        let removed = self
            .connection
            .prepare_cached("DELETE FROM grants WHERE session = ?1 AND frame = ?2 AND process_id = ?3")?
            .execute(params![scope.session_id(), frame_of(scope), process_id.as_str()])?;
        Ok(removed > 0)
    }

    fn grants_of_session(&mut self, session_id: &str) -> Result<Vec<(SessionScope, ProcessId)>, RowsError> {
        let mut select =
            self.connection.prepare_cached("SELECT frame, process_id FROM grants WHERE session = ?1 ORDER BY 1, 2")?;
        let mut rows = select.query([session_id])?;
        let mut grants = Vec::new();
        while let Some(row) = rows.next()? {
            let frame: String = row.get(0)?;
            grants.push((SessionScope::frame(session_id, frame), read::process_id_in(row, 1)?));
        }
        Ok(grants)
    }

    fn is_granted(&mut self, process_id: &ProcessId) -> Result<bool, RowsError> {
        let mut select = self.connection.prepare_cached("SELECT 1 FROM grants WHERE process_id = ?1")?;
        Ok(select.exists([process_id.as_str()])?)
    }

    fn woken_by(&mut self, session_id: &str) -> Result<Vec<ProcessId>, RowsError> {
        let mut select = self
            .connection
            .prepare_cached("SELECT process_id FROM listings WHERE wake_session = ?1 ORDER BY process_id")?;
        let mut rows = select.query([session_id])?;
        let mut woken = Vec::new();
        while let Some(row) = rows.next()? {
            woken.push(read::process_id_in(row, 0)?);
        }
        Ok(woken)
    }

    fn settle_wakes(&mut self, session_id: &str) -> Result<u64, RowsError> {
        Ok(wakes::settle_session(self.connection, session_id)?)
    }

    fn note_session_deleted(&mut self, deletion: &SessionDeletion) -> Result<(), RowsError> {
        let (body, checksum) = codec::encode_mark(deletion).map_err(malformed)?;
        let position = self.known.take_position();
        self.connection
            .prepare_cached("INSERT INTO session_deletions (position, codec, body, checksum) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![position, CODEC_JSON, body, checksum.as_bytes()])?;
        Ok(())
    }

    fn check_cursor(&mut self, cursor: &ChangeCursor) -> Result<(), RowsError> {
        Ok(read::change::check_cursor(self.connection, self.store, cursor)?)
    }

    fn ended(
        &mut self,
        filter: &PruneFilter,
        after: Option<PruneMark>,
        limit: usize,
    ) -> Result<Vec<(PruneMark, ProcessId)>, RowsError> {
        let mut select = self.connection.prepare_cached(
            "SELECT terminal_at_ms, process_no, process_id FROM listings
             WHERE terminal_at_ms IS NOT NULL AND (terminal_at_ms, process_no) > (?1, ?2) AND terminal_at_ms < ?3
             AND (?4 IS NULL OR status = ?4) AND (?5 IS NULL OR kind = ?5)
             ORDER BY terminal_at_ms, process_no LIMIT ?6",
        )?;
        let from = after.map_or((-1, -1), |mark| (mark.terminal_at_ms.cast_signed(), mark.tie.cast_signed()));
        let mut rows = select.query(params![
            from.0,
            from.1,
            i64::try_from(filter.terminal_before_ms).unwrap_or(i64::MAX),
            filter.state.map(crate::domain::ProcessTerminalState::label),
            filter.kind,
            limit as i64
        ])?;
        let mut ended = Vec::new();
        while let Some(row) = rows.next()? {
            let mark = PruneMark {
                terminal_at_ms: row.get::<_, i64>(0)?.cast_unsigned(),
                tie: row.get::<_, i64>(1)?.cast_unsigned(),
            };
            ended.push((mark, read::process_id_in(row, 2)?));
        }
        Ok(ended)
    }

    fn prune(&mut self, tombstone: &Tombstone) -> Result<u64, RowsError> {
        let process_id = &tombstone.process_id;
        let Some(located) = read::locate(self.connection, process_id)? else { return Ok(0) };
        let process_no = located.process_no;
        let record = read::record_of(self.connection, process_id, process_no)?;
        listing::remove_tags(self.connection, &record)?;
        for sql in [
            "DELETE FROM wakes WHERE process_no = ?1",
            "DELETE FROM type_blocks WHERE process_no = ?1",
            "DELETE FROM leases WHERE process_no = ?1",
            "DELETE FROM heads WHERE process_no = ?1",
            "DELETE FROM listings WHERE process_no = ?1",
            "DELETE FROM processes WHERE process_no = ?1",
        ] {
            self.connection.prepare_cached(sql)?.execute([process_no])?;
        }
        let events =
            self.connection.prepare_cached("DELETE FROM events WHERE process_no = ?1")?.execute([process_no])?;
        self.connection.prepare_cached("DELETE FROM grants WHERE process_id = ?1")?.execute([process_id.as_str()])?;
        let (body, checksum) = codec::encode_mark(tombstone).map_err(malformed)?;
        let position = self.known.take_position();
        self.connection
            .prepare_cached(
                "INSERT OR REPLACE INTO tombstones (position, process_id, generation, codec, body, checksum)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                position,
                process_id.as_str(),
                tombstone.generation,
                CODEC_JSON,
                body,
                checksum.as_bytes()
            ])?;
        self.known.forget_process(process_id);
        self.pruned.push(tombstone.clone());
        Ok((events as u64).saturating_sub(1))
    }
}
