//! The writer: one thread that turns what is queued into transactions, answers, and tells followers.
//!
//! A failed commit poisons it. A sync is never tried twice on one file description, because the system forgets that the
//! first one failed: everything is closed, the log file written anew, everything opened again, and the log file moved into
//! the database, all with successful syncs.
//! Only then is it known what is stored, and only then is anything admitted. `told <= durable <= submitted`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::ErrorCode;

use super::faults::{FaultVerdict, WriterFaults, WriterPoint};
use super::group::{AcrossOutcome, GroupOutcome, GroupWriter};
use super::log_file::{self, LogFile};
use super::pool::ReaderPool;
use super::queue::{GroupLimits, Queue, Queued, QueuedAcross, Taken};
use super::read;
use super::schema::{self, Synchronous};
use super::vacuum::{self, Vacuum, VacuumAtClose, VacuumPace};
use crate::log::codec::EncodedBatch;
use crate::log::followers::Followers;
use crate::port::{AppendError, AppendResult, CommittedGroup, GroupChanges, LogError, Position};
use crate::telemetry::{self, Stopwatch};

/// The longest wait between two attempts to reopen.
const LONGEST_REOPEN_WAIT: Duration = Duration::from_secs(5);

/// How many events a follower is told at once of what was stored without an answer.
const CATCH_UP_EVENTS: u32 = 1_024;

/// What the writer works with.
pub(super) struct WriterSettings {
    pub(super) path: PathBuf,
    pub(super) synchronous: Synchronous,
    pub(super) cache_kib: u32,
    pub(super) group: GroupLimits,
    pub(super) checkpoint_pages: i64,
    pub(super) wal_limit_bytes: u64,
    pub(super) vacuum: VacuumPace,
    pub(super) first_reopen_wait: Duration,
    pub(super) faults: Arc<dyn WriterFaults>,
}

/// The writer's side of the log.
pub(super) struct Writer {
    pub(super) settings: WriterSettings,
    pub(super) queue: Arc<Queue>,
    pub(super) followers: Arc<Followers>,
    pub(super) pool: Arc<ReaderPool>,
    /// Absent while the store cannot be written.
    pub(super) group: Option<GroupWriter>,
    /// Last position that followers were told of.
    pub(super) told: Position,
    /// What is to be given back to the disk.
    pub(super) vacuum: Vacuum,
}

impl Writer {
    /// Serves the queue until it is closed and empty, then leaves the store in one file.
    pub(super) fn run(mut self) {
        telemetry::store_writable(true);
        while self.wait() {
            let _ = self.settings.faults.reached(WriterPoint::TakeGroup);
            telemetry::writer_queue(self.queue.depth());
            match self.queue.take(self.settings.group) {
                Taken::Group(group) if group.is_empty() => {}
                Taken::Group(group) => self.store(group),
                Taken::Across(command) => self.carry_out(*command),
            }
            telemetry::writer_queue(self.queue.depth());
        }
        self.queue.end();
        while self.settings.vacuum.at_close == VacuumAtClose::Finish && self.vacuum != Vacuum::Done {
            self.give_back();
        }
        // Nobody reads any more, so that the log file can be emptied.
        self.pool.shut();
        if let Some(group) = self.group.take()
            && let Err(error) = leave(group)
        {
            tracing::warn!(%error, "the store was closed without a last checkpoint, which the next open makes up for");
        }
    }

    /// Waits until there is something to store; meanwhile free pages are given back. `false` when the queue is closed and empty.
    fn wait(&mut self) -> bool {
        let due_amid_work = self.vacuum.counts_group(self.settings.vacuum);
        if due_amid_work {
            self.give_back();
        }
        while self.vacuum != Vacuum::Done && !self.queue.is_wanted() {
            self.give_back();
        }
        self.queue.wait()
    }

    /// One step of giving free pages back. The disk gets them when the log file has been moved, so the last step sees to that.
    fn give_back(&mut self) {
        let Some(group) = &self.group else {
            self.vacuum = Vacuum::Done;
            return;
        };
        let stepped = vacuum::step(&group.connection, self.settings.vacuum).and_then(|left| {
            let due_pages = if left == Vacuum::Done { 0 } else { self.settings.checkpoint_pages };
            schema::checkpoint_when_due(&group.connection, due_pages).map(|()| left)
        });
        match stepped {
            Ok(left) => self.vacuum = left,
            Err(error) => {
                // What is not given back now is found again at the next prune or open.
                self.vacuum = Vacuum::Done;
                if self.passes(&error) {
                    tracing::warn!(%error, "free pages were not given back to the disk");
                } else {
                    self.poison(&error.to_string());
                    self.reopen();
                }
            }
        }
    }

    fn look_for_free_pages(&mut self) {
        let Some(group) = &self.group else { return };
        match Vacuum::of(&group.connection, self.settings.vacuum) {
            Ok(vacuum) => self.vacuum = vacuum,
            Err(error) => tracing::warn!(%error, "the free pages of the store could not be counted"),
        }
    }

    fn store(&mut self, queued: Vec<Queued>) {
        let Some(group) = self.group.as_mut() else {
            // The queue admits nothing while the store is closed; this is the rest that it admitted before.
            refuse(queued, "the store is closed after a failure");
            return;
        };
        let batches: Vec<_> = queued.iter().map(|queued| &queued.batch).collect();
        let began = Stopwatch::start();
        match group.store(&batches, &*self.settings.faults) {
            GroupOutcome::Durable(answers) => {
                telemetry::group_committed(began, batches.len(), inserted(&batches, &answers));
                let position = group.last_position();
                self.answer(queued, answers, position);
                self.checkpoint();
            }
            GroupOutcome::NotStored(error) => {
                telemetry::group_failed();
                tracing::warn!(%error, batches = queued.len(), "a group of batches was not stored");
                self.not_stored(&error, |reason| refuse(queued, reason));
            }
            GroupOutcome::Unknown(reason) => self.unknown(&reason, || {
                for queued in queued {
                    queued.reply.answer(Err(AppendError::Unknown { reason: reason.clone() }));
                }
            }),
        }
    }

    fn carry_out(&mut self, mut queued: QueuedAcross) {
        let Some(group) = self.group.as_mut() else {
            queued.answer(Err(not_accepted("the store is closed after a failure").into()));
            return;
        };
        let began = Stopwatch::start();
        match group.carry_out(&queued.command, queued.searched.take(), &queued.context, &*self.settings.faults) {
            AcrossOutcome::Durable { receipt, changes } => {
                telemetry::group_committed(began, 1, changes.batches.iter().map(|batch| batch.events.len()).sum());
                let position = group.last_position();
                queued.answer(Ok(receipt));
                let has_freed = !changes.pruned.is_empty();
                self.tell(changes, position);
                self.checkpoint();
                if has_freed && self.vacuum == Vacuum::Done {
                    self.look_for_free_pages();
                }
            }
            AcrossOutcome::Refused(error) => queued.answer(Err(error)),
            AcrossOutcome::NotStored(error) => {
                telemetry::group_failed();
                tracing::warn!(%error, command = queued.command.name(), "a command was not stored");
                self.not_stored(&error, |reason| queued.answer(Err(not_accepted(reason).into())));
            }
            AcrossOutcome::Unknown(reason) => self.unknown(&reason, || {
                queued.answer(Err(AppendError::Unknown { reason: reason.clone() }.into()));
            }),
        }
    }

    /// Nothing is stored. A full disk is a state that passes by itself; whether anything else passes is unknown.
    fn not_stored(&mut self, error: &rusqlite::Error, answer: impl FnOnce(&str)) {
        let reason = error.to_string();
        let passes = self.passes(error);
        if !passes {
            self.poison(&reason);
        }
        answer(&reason);
        if !passes {
            self.reopen();
        }
    }

    /// Whether an error leaves the store as trustworthy as it was.
    fn passes(&self, error: &rusqlite::Error) -> bool {
        self.group.as_ref().is_some_and(|group| group.connection.is_autocommit())
            && matches!(
                error.sqlite_error_code(),
                Some(
                    ErrorCode::DiskFull
                        | ErrorCode::DatabaseBusy
                        | ErrorCode::DatabaseLocked
                        | ErrorCode::ReadOnly
                        | ErrorCode::ConstraintViolation
                        | ErrorCode::TooBig
                )
            )
    }

    /// First the door, then the answers: who hears "unknown" and reloads must not read what is not settled.
    fn unknown(&mut self, reason: &str, answer: impl FnOnce()) {
        telemetry::group_failed();
        self.poison(reason);
        answer();
        self.reopen();
    }

    fn answer(&mut self, queued: Vec<Queued>, answers: Vec<AppendResult>, position: Position) {
        let mut committed = Vec::new();
        for (queued, answer) in queued.into_iter().zip(answers) {
            if answer.is_ok() && !queued.batch.events.is_empty() {
                committed.push(queued.batch.committed);
            }
            queued.reply.answer(answer);
        }
        self.tell(GroupChanges { batches: committed, ..GroupChanges::default() }, position);
    }

    fn tell(&mut self, changes: GroupChanges, position: Position) {
        if changes.is_empty() {
            return;
        }
        let previous = std::mem::replace(&mut self.told, position);
        self.followers.tell(&CommittedGroup { previous, position, changes: changes.into() });
    }

    /// Runs after the answers, so that nobody waits for it but the next group.
    fn checkpoint(&mut self) {
        let Some(group) = &self.group else { return };
        if let Err(error) = schema::checkpoint_when_due(&group.connection, self.settings.checkpoint_pages) {
            // The group is durable in the log file; but a sync failed, and this description must not be trusted again.
            self.poison(&error.to_string());
            self.reopen();
        }
    }

    fn poison(&mut self, reason: &str) {
        tracing::error!(reason, "the store failed and is being reopened");
        self.queue.break_off(&format!("the store is being reopened after a failure: {reason}"));
        // The writer's loop stands still until the store is whole: what it tells of has to be true for as long.
        telemetry::store_writable(false);
        telemetry::writer_queue(self.queue.depth());
        self.group = None;
    }

    /// Tries until the store is whole again, or the log is closed.
    fn reopen(&mut self) {
        let mut wait = self.settings.first_reopen_wait;
        while self.queue.is_open() {
            match self.try_reopen() {
                Ok(group) => {
                    self.group = Some(group);
                    self.look_for_free_pages();
                    self.queue.mend();
                    telemetry::store_writable(true);
                    tracing::info!("the store is open again");
                    return;
                }
                Err(reason) => tracing::error!(reason, "the store could not be reopened"),
            }
            self.queue.pause(wait);
            wait = wait.saturating_mul(2).min(LONGEST_REOPEN_WAIT);
        }
    }

    fn try_reopen(&mut self) -> Result<GroupWriter, String> {
        if self.settings.faults.reached(WriterPoint::Reopen) == FaultVerdict::Fail {
            return Err("a test let it fail".to_owned());
        }
        // Readers stand still until the log file is in the database, and begin with new connections.
        let group = self.pool.without_connections(|| {
            let rewritten = log_file::rewrite(&self.settings.path)
                .map_err(|error| format!("the log file cannot be written anew: {error}"))?;
            if rewritten == LogFile::Rewritten {
                let _ = self.settings.faults.reached(WriterPoint::LogFileRewritten);
            }
            self.connect().map_err(|error| error.to_string())
        })?;
        self.catch_up(&group);
        Ok(group)
    }

    fn connect(&self) -> Result<GroupWriter, rusqlite::Error> {
        let WriterSettings { path, synchronous, cache_kib, wal_limit_bytes, .. } = &self.settings;
        let connection = schema::connect_writer(path, *synchronous, *cache_kib, *wal_limit_bytes)?;
        schema::checkpoint_whole(&connection)?;
        GroupWriter::new(connection)
    }

    /// Tells followers what was stored without anybody knowing. Where that cannot be read they are told of a group of
    /// nothing, from which they learn that they missed something: a next group may never come.
    fn catch_up(&mut self, group: &GroupWriter) {
        loop {
            match read::feed(&group.connection, self.told, CATCH_UP_EVENTS) {
                Ok(page) => {
                    let next = page.next;
                    self.tell(page.changes, next);
                    // A page of which followers hear nothing has been walked all the same.
                    self.told = self.told.max(next);
                    if !page.has_more {
                        return;
                    }
                }
                Err(error) => {
                    let error = LogError::from(error);
                    tracing::error!(%error, "what was stored without an answer cannot be read");
                    self.told = group.last_position();
                    self.followers.tell(&CommittedGroup {
                        previous: self.told,
                        position: self.told,
                        changes: Arc::default(),
                    });
                    return;
                }
            }
        }
    }
}

fn leave(mut group: GroupWriter) -> Result<(), rusqlite::Error> {
    let next = group.last_position().0.cast_signed() + 1;
    let transaction = group.connection.transaction()?;
    schema::note_next_position(&transaction, next)?;
    transaction.commit()?;
    schema::checkpoint_whole(&group.connection)
}

/// How many events a group has stored: a batch that was turned away has stored none.
fn inserted(batches: &[&EncodedBatch], answers: &[AppendResult]) -> usize {
    let stored = batches.iter().zip(answers).filter(|(_, answer)| answer.is_ok());
    stored.map(|(batch, _)| batch.events.len()).sum()
}

fn refuse(queued: Vec<Queued>, reason: &str) {
    for queued in queued {
        queued.reply.answer(Err(not_accepted(reason)));
    }
}

fn not_accepted(reason: &str) -> AppendError {
    AppendError::NotAccepted { reason: reason.to_owned() }
}
