//! One group of batches as one transaction: the statements, and which batch is refused.
//!
//! A batch is stored whole or not at all. Preconditions are checked before any statement of a batch runs, so that a batch
//! fails halfway only if its caller broke the rules of the log; then the group is done again with a savepoint for each.

use std::sync::Arc;

use rusqlite::{CachedStatement, Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params};

use super::faults::{FaultVerdict, WriterFaults, WriterPoint};
use super::heads::{HeadCache, KnownHead};
use super::listing::{self, Listing};
use super::read::StoreIdentity;
use super::rows::{RowsError, TransactionRows};
use super::schema::{self, FreeNumbers};
use super::type_blocks::{self, SeenTypes};
use super::wakes::WakeStatements;
use crate::domain::{
    DecisionContext, Digest, ProcessId, ProcessRecord, RegistryCommand, RegistryReceipt, Sequence, Tombstone,
};
use crate::log::across::carry_out;
use crate::log::codec::{CODEC_JSON, EncodedBatch};
use crate::port::{AcrossError, AppendError, AppendResult, CommittedBatch, Head, Position};

/// The writing connection with what it knows about the file.
pub(super) struct GroupWriter {
    pub(super) connection: Connection,
    store: StoreIdentity,
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
    /// It is durable, and this is what followers are to hear.
    Durable {
        /// The answer.
        receipt: RegistryReceipt,
        /// What processes gained.
        committed: Vec<CommittedBatch>,
        /// Which are gone.
        pruned: Vec<Tombstone>,
    },
    /// Nothing of it is stored, and the caller is to be told why.
    Refused(AcrossError),
    /// Nothing of it is stored.
    NotStored(rusqlite::Error),
    /// Some or all of it may be stored.
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
    pub(super) fn new(connection: Connection, store: StoreIdentity) -> Result<Self, rusqlite::Error> {
        let free = schema::free_numbers(&connection)?;
        Ok(Self { connection, store, known: Known { heads: HeadCache::default(), free } })
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
        let Self { connection, known, .. } = self;
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
            Committed::Durable => GroupOutcome::Durable(answers),
            Committed::NotStored(error) => GroupOutcome::NotStored(error),
            Committed::Unknown(reason) => GroupOutcome::Unknown(reason),
        }
    }

    /// Carries out a command that concerns several processes, as a transaction of its own.
    pub(super) fn execute_across(
        &mut self,
        command: &RegistryCommand,
        context: &DecisionContext,
        faults: &dyn WriterFaults,
    ) -> AcrossOutcome {
        let free = self.known.free;
        let outcome = self.try_execute_across(command, context, faults);
        match &outcome {
            AcrossOutcome::Durable { .. } => {}
            AcrossOutcome::Refused(_) | AcrossOutcome::NotStored(_) => self.forget(free),
            AcrossOutcome::Unknown(_) => self.known.heads.clear(),
        }
        outcome
    }

    fn try_execute_across(
        &mut self,
        command: &RegistryCommand,
        context: &DecisionContext,
        faults: &dyn WriterFaults,
    ) -> AcrossOutcome {
        let Self { connection, store, known } = self;
        let transaction = match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
            Ok(transaction) => transaction,
            Err(error) => return AcrossOutcome::NotStored(error),
        };
        let mut rows =
            TransactionRows { connection: &transaction, known, store, committed: Vec::new(), pruned: Vec::new() };
        let receipt = match carry_out(&mut rows, command, context) {
            Ok(receipt) => receipt,
            Err(RowsError::Refused(error)) => return AcrossOutcome::Refused(error),
            Err(RowsError::Statement(error)) => return AcrossOutcome::NotStored(error),
        };
        let TransactionRows { known, committed, pruned, .. } = rows;
        // What is pruned is gone: only this tells that its positions were given away.
        if !pruned.is_empty()
            && let Err(error) = schema::note_next_position(&transaction, known.free.position)
        {
            return AcrossOutcome::NotStored(error);
        }
        match commit(transaction, faults) {
            Committed::Durable => AcrossOutcome::Durable { receipt, committed, pruned },
            Committed::NotStored(error) => AcrossOutcome::NotStored(error),
            Committed::Unknown(reason) => AcrossOutcome::Unknown(reason),
        }
    }
}

/// What became of a commit.
enum Committed {
    Durable,
    NotStored(rusqlite::Error),
    Unknown(String),
}

fn commit(transaction: Transaction<'_>, faults: &dyn WriterFaults) -> Committed {
    if faults.reached(WriterPoint::Statements) == FaultVerdict::Fail {
        return Committed::NotStored(injected());
    }
    if faults.reached(WriterPoint::BeforeCommit) == FaultVerdict::Fail {
        return Committed::Unknown("a test let the commit fail before it".to_owned());
    }
    if let Err(error) = transaction.commit() {
        return Committed::Unknown(error.to_string());
    }
    if faults.reached(WriterPoint::AfterCommit) == FaultVerdict::Fail {
        return Committed::Unknown("a test let the commit fail after it".to_owned());
    }
    Committed::Durable
}

impl Known {
    /// Gives a position away.
    pub(super) const fn take_position(&mut self) -> i64 {
        let position = self.free.position;
        self.free.position += 1;
        position
    }

    /// A process is gone.
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

    /// Stores one batch, or refuses it by itself.
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
        if known.is_none() && !statements.follows_tombstone(&batch.committed.record)? {
            return Ok(Err(AppendError::Conflict));
        }
        let Some(head) = batch.head else {
            return Ok(Err(AppendError::NotAccepted { reason: "the batch holds no event".to_owned() }));
        };
        let process_no = known.as_ref().map_or(self.free.process_no, |known| known.process_no);
        let mut seen = known.as_ref().map_or_else(Arc::default, |known| Arc::clone(&known.seen));
        if !batch.events.is_empty() {
            let first = self.free.position;
            let last = self.store_events(statements, process_no, &mut seen, batch)?;
            statements.wakes.store(process_no, first, batch)?;
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
            let listing = Listing::of(&batch.committed.record);
            if known.is_some() {
                listing.update(&mut statements.update_listing, process_no)?;
                statements.update_process.execute(params![
                    process_no,
                    record.status,
                    CODEC_JSON,
                    record.body,
                    record.checksum.as_bytes()
                ])?;
            } else {
                statements.insert_process.execute(params![
                    process_no,
                    process_id.as_str(),
                    record.status,
                    CODEC_JSON,
                    record.body,
                    record.checksum.as_bytes()
                ])?;
                listing.insert(&mut statements.insert_listing, process_no)?;
                listing::insert_tags(&mut statements.insert_tag, &batch.committed.record, process_no)?;
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
        Ok(self.free.position - 1)
    }
}

/// The statements of one transaction.
pub(super) struct Statements<'connection> {
    read_head: CachedStatement<'connection>,
    insert_event: CachedStatement<'connection>,
    insert_type_block: CachedStatement<'connection>,
    insert_head: CachedStatement<'connection>,
    move_head: CachedStatement<'connection>,
    insert_process: CachedStatement<'connection>,
    update_process: CachedStatement<'connection>,
    store_lease: CachedStatement<'connection>,
    insert_listing: CachedStatement<'connection>,
    update_listing: CachedStatement<'connection>,
    insert_tag: CachedStatement<'connection>,
    read_generation: CachedStatement<'connection>,
    wakes: WakeStatements<'connection>,
}

impl<'connection> Statements<'connection> {
    pub(super) fn prepare(connection: &'connection Connection) -> Result<Self, rusqlite::Error> {
        Ok(Self {
            insert_listing: connection.prepare_cached(Listing::INSERT)?,
            update_listing: connection.prepare_cached(Listing::UPDATE)?,
            insert_tag: connection.prepare_cached(listing::INSERT_TAG)?,
            read_generation: connection.prepare_cached("SELECT generation FROM tombstones WHERE process_id = ?1")?,
            wakes: WakeStatements::prepare(connection)?,
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
            insert_process: connection.prepare_cached(
                "INSERT INTO processes (process_no, process_id, status, codec, body, checksum)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?,
            update_process: connection.prepare_cached(
                "UPDATE processes SET status = ?2, codec = ?3, body = ?4, checksum = ?5 WHERE process_no = ?1",
            )?,
            store_lease: connection.prepare_cached(
                "INSERT INTO leases (process_no, revision, fence, codec, body, checksum)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (process_no) DO UPDATE SET revision = excluded.revision, fence = excluded.fence,
                 codec = excluded.codec, body = excluded.body, checksum = excluded.checksum",
            )?,
        })
    }

    /// Whether a record is of the life after the last one that was pruned.
    fn follows_tombstone(&mut self, record: &ProcessRecord) -> Result<bool, rusqlite::Error> {
        let pruned: Option<u32> =
            self.read_generation.query_row([record.id().as_str()], |row| row.get(0)).optional()?;
        Ok(record.generation == pruned.unwrap_or(0).saturating_add(1))
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
