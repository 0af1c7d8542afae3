//! The rows of the writing connection, as commands across processes see them inside one transaction.

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};

use super::group::{Known, Statements};
use super::read::{self, ReadError, frame_of};
use super::record_columns::ms;
use super::schema;
use crate::domain::{
    ChangeCursor, ProcessHandleGrant, ProcessId, PruneExemption, PruneFilter, Refusal, Sequence, SessionDeletion,
    SessionScope, Tombstone,
};
use crate::log::across::{EndedPage, EndedRows, PruneCandidate, PruneMark, Rows, StoredRow};
use crate::log::codec::{self, CODEC_JSON, MalformedBatch};
use crate::port::{AcrossError, AppendError, GroupChanges, LogError, ProcessBatch};

/// Why a command was not carried out. Nothing of it is stored.
pub(super) enum AcrossFailure {
    /// A statement failed.
    Statement(rusqlite::Error),
    /// It was refused, or what it had to read is damaged.
    Refused(AcrossError),
}

impl From<rusqlite::Error> for AcrossFailure {
    fn from(error: rusqlite::Error) -> Self {
        // A column that is not what it should be is damage of one row, and no failure of the store.
        if read::is_of_the_column(&error) {
            Self::Refused(LogError::Unreadable { reason: error.to_string() }.into())
        } else {
            Self::Statement(error)
        }
    }
}

impl From<Refusal> for AcrossFailure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal.into())
    }
}

impl From<AppendError> for AcrossFailure {
    fn from(error: AppendError) -> Self {
        Self::Refused(error.into())
    }
}

impl From<MalformedBatch> for AcrossFailure {
    fn from(malformed: MalformedBatch) -> Self {
        AppendError::NotAccepted { reason: malformed.to_string() }.into()
    }
}

impl From<ReadError> for AcrossFailure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Statement(error) => error.into(),
            ReadError::Found(LogError::Refused(refusal)) => (*refusal).into(),
            ReadError::Found(error) => Self::Refused(error.into()),
        }
    }
}

/// The transaction, and what followers are to hear of it.
pub(super) struct AcrossRows<'transaction> {
    pub(super) connection: &'transaction Connection,
    pub(super) known: &'transaction mut Known,
    pub(super) changes: GroupChanges,
}

impl AcrossRows<'_> {
    fn process_no(&self, process_id: &ProcessId) -> Result<Option<i64>, rusqlite::Error> {
        self.connection
            .prepare_cached("SELECT process_no FROM processes WHERE process_id = ?1")?
            .query_row([process_id.as_str()], |row| row.get(0))
            .optional()
    }
}

/// What a prune reads, on whichever connection.
pub(super) struct EndedReads<'connection>(pub(super) &'connection Connection);

impl EndedRows for EndedReads<'_> {
    type Error = AcrossFailure;

    fn is_damage(error: &AcrossFailure) -> bool {
        matches!(error, AcrossFailure::Refused(AcrossError::Read(LogError::Damaged { .. })))
    }

    fn process(&mut self, process_id: &ProcessId) -> Result<Option<StoredRow>, AcrossFailure> {
        stored_row(self.0, process_id).map_err(|error| match error {
            ReadError::Statement(error) if read::is_of_the_row(&error) => {
                let what = format!("what is stored of it cannot be read: {error}");
                let damaged =
                    LogError::Damaged { process_id: process_id.clone(), sequence: Sequence::REGISTRATION, what };
                AcrossFailure::Refused(damaged.into())
            }
            error => error.into(),
        })
    }

    fn check_cursor(&mut self, cursor: &ChangeCursor) -> Result<(), AcrossFailure> {
        Ok(read::check_cursor(self.0, cursor)?)
    }

    fn ended(
        &mut self,
        filter: &PruneFilter,
        after: Option<PruneMark>,
        step: usize,
    ) -> Result<EndedPage, AcrossFailure> {
        let (at_ms, tie) = after.map_or((-1, 0), |mark| (ms(mark.terminal_at_ms), mark.tie.cast_signed()));
        let mut values: Vec<Value> = vec![
            ms(filter.terminal_before_ms).into(),
            at_ms.into(),
            tie.into(),
            filter.state.map(|state| state.label().to_owned()).into(),
            filter.kind.clone().into(),
            i64::try_from(step).unwrap_or(i64::MAX).into(),
        ];
        let mut others = String::new();
        for tag in &filter.tags {
            others.push_str(&format!(" AND {}", carries(tag, &mut values)));
        }
        for exemption in &filter.except {
            others.push_str(&format!(" AND NOT ({})", meets(exemption, &mut values)));
        }
        // What the filter means is asked of each row that the walk steps over, so that a step ends also where it means none.
        let mut select = self.0.prepare_cached(&format!(
            "SELECT p.terminal_at_ms, p.process_no, p.process_id, h.position,
             (?4 IS NULL OR p.status = ?4) AND (?5 IS NULL OR p.kind = ?5){others}
             FROM processes p INDEXED BY processes_ended CROSS JOIN heads h ON h.process_no = p.process_no
             WHERE p.terminal_at_ms IS NOT NULL AND p.terminal_at_ms <= ?1
             AND (p.terminal_at_ms, p.process_no) > (?2, ?3)
             ORDER BY p.terminal_at_ms, p.process_no LIMIT ?6"
        ))?;
        let mut rows = select.query(params_from_iter(values))?;
        let (mut page, mut stepped) = (EndedPage::default(), 0);
        while let Some(row) = rows.next()? {
            stepped += 1;
            let mark = PruneMark {
                terminal_at_ms: row.get::<_, i64>(0)?.cast_unsigned(),
                tie: row.get::<_, i64>(1)?.cast_unsigned(),
            };
            page.next = Some(mark);
            if !row.get::<_, bool>(4)? {
                continue;
            }
            match read::process_id_in(row, 2) {
                Ok(process_id) => {
                    let position = row.get::<_, i64>(3)?.cast_unsigned();
                    page.candidates.push(PruneCandidate { mark, process_id, position });
                }
                Err(_) => page.damaged += 1,
            }
        }
        if stepped < step {
            page.next = None;
        }
        Ok(page)
    }
}

impl EndedRows for AcrossRows<'_> {
    type Error = AcrossFailure;

    fn is_damage(error: &AcrossFailure) -> bool {
        EndedReads::is_damage(error)
    }

    fn process(&mut self, process_id: &ProcessId) -> Result<Option<StoredRow>, AcrossFailure> {
        EndedReads(self.connection).process(process_id)
    }

    fn check_cursor(&mut self, cursor: &ChangeCursor) -> Result<(), AcrossFailure> {
        EndedReads(self.connection).check_cursor(cursor)
    }

    fn ended(
        &mut self,
        filter: &PruneFilter,
        after: Option<PruneMark>,
        step: usize,
    ) -> Result<EndedPage, AcrossFailure> {
        EndedReads(self.connection).ended(filter, after, step)
    }
}

impl Rows for AcrossRows<'_> {
    fn has_ended(&mut self, process_id: &ProcessId) -> Result<Option<bool>, AcrossFailure> {
        Ok(self
            .connection
            .prepare_cached("SELECT status != 'running' FROM processes WHERE process_id = ?1")?
            .query_row([process_id.as_str()], |row| row.get(0))
            .optional()?)
    }

    fn append(&mut self, batch: ProcessBatch) -> Result<(), AcrossFailure> {
        let batch = codec::encode(batch)?;
        let mut statements = Statements::prepare(self.connection)?;
        self.known.store_batch(&mut statements, &batch)??;
        self.changes.batches.push(batch.committed);
        Ok(())
    }

    fn grant(
        &mut self,
        scope: &SessionScope,
        process_id: &ProcessId,
    ) -> Result<Option<ProcessHandleGrant>, AcrossFailure> {
        Ok(read::grant_of(self.connection, scope, process_id)?)
    }

    fn put_grant(&mut self, grant: &ProcessHandleGrant) -> Result<(), AcrossFailure> {
        let (body, checksum) = codec::encode_mark(grant)?;
        self.connection
            .prepare_cached(
                "INSERT OR REPLACE INTO grants (session, frame, process_id, codec, body, checksum)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
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

    fn remove_grant(&mut self, scope: &SessionScope, process_id: &ProcessId) -> Result<bool, AcrossFailure> {
        let removed = self
            .connection
            .prepare_cached("DELETE FROM grants WHERE session = ?1 AND frame = ?2 AND process_id = ?3")?
            .execute(params![scope.session_id(), frame_of(scope), process_id.as_str()])?;
        Ok(removed > 0)
    }

    fn grants_of_session(&mut self, session_id: &str) -> Result<Vec<(SessionScope, ProcessId)>, AcrossFailure> {
        let mut select = self
            .connection
            .prepare_cached("SELECT frame, process_id FROM grants WHERE session = ?1 ORDER BY frame, process_id")?;
        let mut rows = select.query([session_id])?;
        let mut grants = Vec::new();
        while let Some(row) = rows.next()? {
            grants.push((SessionScope::frame(session_id, row.get::<_, String>(0)?), read::process_id_in(row, 1)?));
        }
        Ok(grants)
    }

    fn is_granted(&mut self, process_id: &ProcessId) -> Result<bool, AcrossFailure> {
        Ok(self
            .connection
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM grants WHERE process_id = ?1)")?
            .query_row([process_id.as_str()], |row| row.get(0))?)
    }

    fn woken_by(&mut self, session_id: &str) -> Result<Vec<ProcessId>, AcrossFailure> {
        let mut select = self
            .connection
            .prepare_cached("SELECT process_id FROM processes WHERE wake_session = ?1 ORDER BY process_id")?;
        let mut rows = select.query([session_id])?;
        let mut woken = Vec::new();
        while let Some(row) = rows.next()? {
            woken.push(read::process_id_in(row, 0)?);
        }
        Ok(woken)
    }

    fn settle_wakes(&mut self, session_id: &str) -> Result<u64, AcrossFailure> {
        let settled = self
            .connection
            .prepare_cached("UPDATE wakes SET pending = 0 WHERE session = ?1 AND pending = 1")?
            .execute([session_id])?;
        Ok(settled as u64)
    }

    fn note_session_deleted(&mut self, deletion: &SessionDeletion) -> Result<(), AcrossFailure> {
        let position = self.known.take_position();
        let (body, checksum) = read::encode_placed(position, deletion)?;
        self.connection
            .prepare_cached("INSERT INTO session_deletions (position, codec, body, checksum) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![position, CODEC_JSON, body, checksum.as_bytes()])?;
        self.changes.sessions_deleted.push(deletion.clone());
        Ok(())
    }

    fn prune(&mut self, tombstone: &Tombstone) -> Result<u64, AcrossFailure> {
        let process_id = &tombstone.process_id;
        let Some(process_no) = self.process_no(process_id)? else { return Ok(0) };
        let events =
            self.connection.prepare_cached("DELETE FROM events WHERE process_no = ?1")?.execute([process_no])?;
        for sql in [
            "DELETE FROM type_blocks WHERE process_no = ?1",
            "DELETE FROM wakes WHERE process_no = ?1",
            "DELETE FROM process_tags WHERE process_no = ?1",
            "DELETE FROM leases WHERE process_no = ?1",
            "DELETE FROM heads WHERE process_no = ?1",
            "DELETE FROM processes WHERE process_no = ?1",
        ] {
            self.connection.prepare_cached(sql)?.execute([process_no])?;
        }
        self.connection.prepare_cached("DELETE FROM grants WHERE process_id = ?1")?.execute([process_id.as_str()])?;
        let position = self.known.take_position();
        let (body, checksum) = read::encode_placed(position, tombstone)?;
        // That of an earlier life goes: there is one for each id.
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
        // What was given to events that are gone must not be given again, even if the tombstone goes as well.
        schema::note_next_position(self.connection, position + 1)?;
        self.known.forget_process(process_id);
        self.changes.pruned.push(tombstone.clone());
        Ok((events as u64).saturating_sub(1))
    }
}

fn stored_row(connection: &Connection, process_id: &ProcessId) -> Result<Option<StoredRow>, ReadError> {
    let Some(stored) = read::load_within(connection, process_id, 0)? else { return Ok(None) };
    let position: i64 = connection
        .prepare_cached("SELECT h.position FROM processes p JOIN heads h USING (process_no) WHERE p.process_id = ?1")?
        .query_row([process_id.as_str()], |row| row.get(0))?;
    Ok(Some(StoredRow {
        record: stored.record,
        head: stored.head,
        lease: stored.lease,
        position: position.cast_unsigned(),
    }))
}

/// The condition that a process carries a tag; its value is added to those of the statement.
fn carries(tag: &str, values: &mut Vec<Value>) -> String {
    values.push(tag.to_owned().into());
    format!("EXISTS (SELECT 1 FROM process_tags t WHERE t.tag = ?{} AND t.process_id = p.process_id)", values.len())
}

/// The condition that a process is exempt; its values are added to those of the statement.
fn meets(exemption: &PruneExemption, values: &mut Vec<Value>) -> String {
    let mut condition = "1".to_owned();
    if let Some(state) = exemption.state {
        values.push(state.label().to_owned().into());
        condition.push_str(&format!(" AND p.status = ?{}", values.len()));
    }
    if let Some(kind) = &exemption.kind {
        values.push(kind.clone().into());
        condition.push_str(&format!(" AND p.kind = ?{}", values.len()));
    }
    for tag in &exemption.tags {
        condition.push_str(&format!(" AND {}", carries(tag, values)));
    }
    condition
}
