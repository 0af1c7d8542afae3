//! One group of batches as one transaction: the statements, and which batch is refused.
//!
//! A batch is stored whole or not at all. Preconditions are checked before any statement of a batch runs, so that a batch
//! fails halfway only if its caller broke the rules of the log; then the group is done again with a savepoint for each.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rusqlite::{CachedStatement, Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params};

use super::across::{AcrossFailure, AcrossRows};
use super::faults::{FaultVerdict, WriterFaults, WriterPoint};
use super::heads::{HeadCache, KnownHead};
use super::record_columns::{self, RecordColumns};
use super::schema::{self, FreeNumbers};
use super::type_blocks::{self, SeenTypes};
use super::wakes;
use crate::domain::{DecisionContext, Digest, ProcessId, RegistryCommand, RegistryReceipt, Sequence};
use crate::log::across::{PruneSearch, carry_out};
use crate::log::codec::{CODEC_JSON, EncodedBatch};
use crate::port::{AcrossError, AppendError, AppendResult, GroupChanges, Head, Position};

/// The writing connection with what it knows about the file.
pub(super) struct GroupWriter {
    pub(super) connection: Connection,
    known: Known,
}

/// What the writer knows about the file.
pub(super) struct Known {
    heads: HeadCache,
    free: FreeNumbers,
}

/// What became of a group.
pub(super) enum GroupOutcome {
    /// It is durable. One answer for each batch, in order: stored, or refused by itself.
    Durable(Vec<AppendResult>),
    /// Nothing of it is stored.
    NotStored(rusqlite::Error),
    /// Some or all of it may be stored.
    Unknown(String),
}

/// What became of a command across processes.
pub(super) enum AcrossOutcome {
    /// It is durable.
    Durable { receipt: RegistryReceipt, changes: GroupChanges },
    /// It was refused. Nothing of it is stored.
    Refused(AcrossError),
    /// Nothing of it is stored.
    NotStored(rusqlite::Error),
    /// It may be stored.
    Unknown(String),
}

/// How a group is guarded against a batch that fails halfway.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Guard {
    /// Not at all: the whole transaction goes back.
    None,
    /// By a savepoint for each batch.
    Savepoints,
}

impl GroupWriter {
    pub(super) fn new(connection: Connection) -> Result<Self, rusqlite::Error> {
        let free = schema::free_numbers(&connection)?;
        Ok(Self { connection, known: Known { heads: HeadCache::default(), free } })
    }

    /// The last position that was given away.
    pub(super) fn last_position(&self) -> Position {
        Position((self.known.free.position - 1).cast_unsigned())
    }

    /// Stores the batches.
    pub(super) fn store(&mut self, batches: &[&EncodedBatch], faults: &dyn WriterFaults) -> GroupOutcome {
        let free = self.known.free;
        let mut outcome = self.try_store(batches, Guard::None, faults);
        if let GroupOutcome::NotStored(error) = &outcome
            && is_constraint(error)
        {
            self.forget(free);
            outcome = self.try_store(batches, Guard::Savepoints, faults);
        }
        match &outcome {
            GroupOutcome::Durable(_) => {}
            GroupOutcome::NotStored(_) => self.forget(free),
            // Positions of a group that may be stored are not given again.
            GroupOutcome::Unknown(_) => self.known.heads.clear(),
        }
        outcome
    }

    fn forget(&mut self, free: FreeNumbers) {
        self.known.heads.clear();
        self.known.free = free;
    }

    fn try_store(&mut self, batches: &[&EncodedBatch], guard: Guard, faults: &dyn WriterFaults) -> GroupOutcome {
        let Self { connection, known } = self;
        // Dropped before its commit, a transaction goes back.
        let transaction = match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
            Ok(transaction) => transaction,
            Err(error) => return GroupOutcome::NotStored(error),
        };
        let answers = match known.run(&transaction, batches, guard) {
            Ok(answers) => answers,
            Err(error) => return GroupOutcome::NotStored(error),
        };
        match commit(transaction, faults) {
            Ok(()) => GroupOutcome::Durable(answers),
            Err(CommitFailure::NotStored(error)) => GroupOutcome::NotStored(error),
            Err(CommitFailure::Unknown(reason)) => GroupOutcome::Unknown(reason),
        }
    }

    /// Carries out a command that concerns several processes, alone in its transaction.
    pub(super) fn carry_out(
        &mut self,
        command: &RegistryCommand,
        searched: Option<PruneSearch>,
        context: &DecisionContext,
        faults: &dyn WriterFaults,
    ) -> AcrossOutcome {
        let free = self.known.free;
        let outcome = self.try_carry_out(command, searched, context, faults);
        match &outcome {
            AcrossOutcome::Durable { .. } => {}
            AcrossOutcome::Refused(_) | AcrossOutcome::NotStored(_) => {
                // What takes no position changes nothing that is remembered.
                if self.known.free.position != free.position {
                    self.forget(free);
                }
            }
            AcrossOutcome::Unknown(_) => self.known.heads.clear(),
        }
        outcome
    }

    fn try_carry_out(
        &mut self,
        command: &RegistryCommand,
        searched: Option<PruneSearch>,
        context: &DecisionContext,
        faults: &dyn WriterFaults,
    ) -> AcrossOutcome {
        let Self { connection, known } = self;
        // Dropped before its commit, a transaction goes back.
        let transaction = match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
            Ok(transaction) => transaction,
            Err(error) => return AcrossOutcome::NotStored(error),
        };
        let mut rows = AcrossRows { connection: &transaction, known, changes: GroupChanges::default() };
        // A panicking decision is one refused command: it must not end the log for everybody.
        let carried = catch_unwind(AssertUnwindSafe(|| carry_out(&mut rows, command, searched, context)));
        let receipt = match carried {
            Ok(Ok(receipt)) => receipt,
            Ok(Err(AcrossFailure::Refused(error))) => return AcrossOutcome::Refused(error),
            Ok(Err(AcrossFailure::Statement(error))) => return AcrossOutcome::NotStored(error),
            Err(_) => {
                let reason = format!("the command {} panicked while it was carried out", command.name());
                return AcrossOutcome::Refused(AppendError::NotAccepted { reason }.into());
            }
        };
        let changes = rows.changes;
        match commit(transaction, faults) {
            Ok(()) => AcrossOutcome::Durable { receipt, changes },
            Err(CommitFailure::NotStored(error)) => AcrossOutcome::NotStored(error),
            Err(CommitFailure::Unknown(reason)) => AcrossOutcome::Unknown(reason),
        }
    }
}

/// Why a transaction was not committed, or may not have been.
enum CommitFailure {
    NotStored(rusqlite::Error),
    Unknown(String),
}

fn commit(transaction: Transaction<'_>, faults: &dyn WriterFaults) -> Result<(), CommitFailure> {
    if faults.reached(WriterPoint::Statements) == FaultVerdict::Fail {
        return Err(CommitFailure::NotStored(injected()));
    }
    if faults.reached(WriterPoint::BeforeCommit) == FaultVerdict::Fail {
        return Err(CommitFailure::Unknown("a test let the commit fail before it".to_owned()));
    }
    transaction.commit().map_err(|error| CommitFailure::Unknown(error.to_string()))?;
    if faults.reached(WriterPoint::AfterCommit) == FaultVerdict::Fail {
        return Err(CommitFailure::Unknown("a test let the commit fail after it".to_owned()));
    }
    Ok(())
}

impl Known {
    /// Gives the next position away.
    pub(super) const fn take_position(&mut self) -> i64 {
        self.free.position += 1;
        self.free.position - 1
    }

    pub(super) fn forget_process(&mut self, process_id: &ProcessId) {
        self.heads.remove(process_id);
    }

    fn run(
        &mut self,
        connection: &Connection,
        batches: &[&EncodedBatch],
        guard: Guard,
    ) -> Result<Vec<AppendResult>, rusqlite::Error> {
        let mut statements = Statements::prepare(connection)?;
        let mut answers = Vec::with_capacity(batches.len());
        for batch in batches {
            let free = self.free;
            if guard == Guard::Savepoints {
                connection.execute_batch("SAVEPOINT batch")?;
            }
            let answer = match self.store_batch(&mut statements, batch) {
                Err(error) if guard == Guard::Savepoints && is_constraint(&error) => {
                    connection.execute_batch("ROLLBACK TO batch")?;
                    self.free = free;
                    Err(AppendError::NotAccepted { reason: reason_of_constraint(&error) })
                }
                Err(error) => return Err(error),
                Ok(answer) => answer,
            };
            if guard == Guard::Savepoints {
                connection.execute_batch("RELEASE batch")?;
            }
            answers.push(answer);
        }
        Ok(answers)
    }

    pub(super) fn store_batch(
        &mut self,
        statements: &mut Statements<'_>,
        batch: &EncodedBatch,
    ) -> Result<AppendResult, rusqlite::Error> {
        let process_id = &batch.committed.process_id;
        let known = match self.heads.get(process_id) {
            Some(known) => Some(known),
            None => statements.read_head(process_id)?,
        };
        if known.as_ref().map(|known| known.head) != batch.expected.head
            || known.as_ref().map_or(0, |known| known.lease_revision) != batch.expected.lease_revision
        {
            return Ok(Err(AppendError::Conflict));
        }
        if known.is_none() && statements.next_generation(process_id)? != i64::from(batch.committed.record.generation) {
            return Ok(Err(AppendError::Conflict));
        }
        let Some(head) = batch.head else {
            return Ok(Err(AppendError::NotAccepted { reason: "the batch holds no event".to_owned() }));
        };
        let process_no = known.as_ref().map_or(self.free.process_no, |known| known.process_no);
        let mut seen = known.as_ref().map_or_else(Arc::default, |known| Arc::clone(&known.seen));
        if !batch.events.is_empty() {
            let last = self.store_events(statements, process_no, &mut seen, batch)?;
            let moved = params![
                process_no,
                head.sequence.0.cast_signed(),
                last,
                head.chain.as_bytes(),
                batch.updated_at_ms.cast_signed()
            ];
            if known.is_some() { &mut statements.move_head } else { &mut statements.insert_head }.execute(moved)?;
        }
        if let Some(record) = &batch.record {
            if known.is_some() {
                let changed = &batch.committed.record;
                record_columns::update(&mut statements.update_process, process_no, record, changed)?;
            } else {
                let registered = &batch.committed.record;
                let id = process_id.as_str();
                RecordColumns::of(registered).insert(&mut statements.insert_process, process_no, id, record)?;
                for tag in &registered.registration.tags {
                    statements
                        .connection
                        .prepare_cached(record_columns::INSERT_TAG)?
                        .execute(params![tag, id, process_no])?;
                }
                self.free.process_no += 1;
            }
        }
        let mut lease_revision = batch.expected.lease_revision;
        if let Some(lease) = &batch.lease {
            lease_revision = lease.row.revision;
            statements.store_lease.execute(params![
                process_no,
                lease.row.revision.cast_signed(),
                lease.row.fence.0.cast_signed(),
                CODEC_JSON,
                lease.body,
                lease.checksum.as_bytes()
            ])?;
        }
        self.heads.put(process_id.clone(), KnownHead { process_no, head, lease_revision, seen });
        Ok(Ok(Some(head)))
    }

    fn store_events(
        &mut self,
        statements: &mut Statements<'_>,
        process_no: i64,
        seen: &mut Arc<SeenTypes>,
        batch: &EncodedBatch,
    ) -> Result<i64, rusqlite::Error> {
        let first = self.free.position;
        for encoded in &batch.events {
            let event = &encoded.event;
            statements.insert_event.execute(params![
                self.free.position,
                process_no,
                event.sequence.0.cast_signed(),
                &*event.event_type,
                event.occurred_at_ms.cast_signed(),
                event.replay_key.as_ref().map(crate::domain::ReplayKey::as_str),
                encoded.operation.to_bytes(),
                CODEC_JSON,
                encoded.data,
                encoded.chain.as_bytes()
            ])?;
            let sequence = event.sequence.0.cast_signed();
            SeenTypes::store(seen, &mut statements.insert_type_block, process_no, sequence, &event.event_type)?;
            self.free.position += 1;
        }
        wakes::store(statements.connection, process_no, first, batch)?;
        Ok(self.free.position - 1)
    }
}

/// The statements of one transaction.
pub(super) struct Statements<'connection> {
    connection: &'connection Connection,
    read_head: CachedStatement<'connection>,
    insert_event: CachedStatement<'connection>,
    insert_type_block: CachedStatement<'connection>,
    insert_head: CachedStatement<'connection>,
    move_head: CachedStatement<'connection>,
    insert_process: CachedStatement<'connection>,
    update_process: CachedStatement<'connection>,
    store_lease: CachedStatement<'connection>,
}

impl<'connection> Statements<'connection> {
    pub(super) fn prepare(connection: &'connection Connection) -> Result<Self, rusqlite::Error> {
        Ok(Self {
            connection,
            read_head: connection.prepare_cached(
                "SELECT p.process_no, h.sequence, h.chain, ifnull(l.revision, 0)
                 FROM processes p JOIN heads h USING (process_no) LEFT JOIN leases l USING (process_no)
                 WHERE p.process_id = ?1",
            )?,
            insert_event: connection.prepare_cached(
                "INSERT INTO events
                 (position, process_no, sequence, type, at_ms, replay_key, operation, codec, data, chain)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?,
            insert_type_block: connection.prepare_cached(type_blocks::INSERT)?,
            insert_head: connection.prepare_cached(
                "INSERT INTO heads (process_no, sequence, position, chain, updated_at_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?,
            move_head: connection.prepare_cached(
                "UPDATE heads SET sequence = ?2, position = ?3, chain = ?4, updated_at_ms = ?5 WHERE process_no = ?1",
            )?,
            insert_process: connection.prepare_cached(record_columns::INSERT)?,
            update_process: connection.prepare_cached(record_columns::UPDATE)?,
            store_lease: connection.prepare_cached(
                "INSERT INTO leases (process_no, revision, fence, codec, body, checksum)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (process_no) DO UPDATE SET revision = excluded.revision, fence = excluded.fence,
                 codec = excluded.codec, body = excluded.body, checksum = excluded.checksum",
            )?,
        })
    }

    /// Which life of an id a registration begins.
    fn next_generation(&self, process_id: &ProcessId) -> Result<i64, rusqlite::Error> {
        let pruned: Option<i64> = self
            .connection
            .prepare_cached("SELECT generation FROM tombstones WHERE process_id = ?1")?
            .query_row([process_id.as_str()], |row| row.get(0))
            .optional()?;
        Ok(pruned.unwrap_or(0) + 1)
    }

    fn read_head(&mut self, process_id: &ProcessId) -> Result<Option<KnownHead>, rusqlite::Error> {
        self.read_head
            .query_row([process_id.as_str()], |row| {
                let chain = row.get_ref(2)?.as_blob()?;
                Ok(KnownHead {
                    process_no: row.get(0)?,
                    head: Head {
                        sequence: Sequence(row.get::<_, i64>(1)?.cast_unsigned()),
                        // A damaged link matches no expectation: the batch conflicts, and the reload reports the damage.
                        chain: Digest::from_bytes(chain).unwrap_or_default(),
                    },
                    lease_revision: row.get::<_, i64>(3)?.cast_unsigned(),
                    seen: Arc::default(),
                })
            })
            .optional()
    }
}

fn is_constraint(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)
}

fn reason_of_constraint(error: &rusqlite::Error) -> String {
    let reason = error.to_string();
    if reason.contains("events.replay_key") { "a replay key of the batch is already used".to_owned() } else { reason }
}

fn injected() -> rusqlite::Error {
    schema::failure(rusqlite::ffi::SQLITE_FULL, "a test let the statements fail".to_owned())
}
