//! A scripted load on a store whose n-th call of a kind fails: what its callers hear, whether the store heals, and what is
//! on the disk at the end and after a loss of power on the way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use registry_actor::domain::{ProcessId, SessionScope};
use registry_actor::log::{FaultVerdict, OpenError, SqliteLog, SqliteOptions, WriterFaults, WriterPoint};
use registry_actor::port::{AcrossError, Answer, AppendError, LogError, ProcessBatch, ProcessLog, Query};

use crate::crash_writer::Syncing;
use crate::fault_vfs::{CallKind, Control, Disk, Failure, Fault, Files, Kept, Operation, Span};
use crate::log_author::{Author, alarm, claim, complete, output, process_id, register, waking_registration};
use crate::log_backend::Gate;
use crate::recorded_power_cut::{Violation, check_store, fast_directory, put_files};
use crate::seeded::Random;
use crate::witness::{Fact, Subject, Submission, Witness};

/// The name of every store here.
const STORE: &str = "store.db";

/// How long an answer may take. Nothing here waits for time, so that only a caller that is never answered is so late.
const BOUND: Duration = Duration::from_secs(30);

/// How often a caller tries again what was not stored.
const ATTEMPTS: usize = 20;

/// How many reads are made while the store is not whole.
const READS: usize = 3;

/// How many operations after a failed sync the power is cut, one by one.
const CUTS_AFTER_FAILED_SYNC: usize = 40;

/// What a run of the load did and found.
#[derive(Debug, Clone, Default)]
pub struct IoRun {
    /// Calls of each kind that it made.
    pub calls: BTreeMap<CallKind, u64>,
    /// How many of them failed; 0 if the fault was never reached.
    pub failed: u64,
    /// Commands that were stored and answered as such.
    pub stored: u64,
    /// Commands that were answered as not accepted.
    pub not_accepted: u64,
    /// Commands that were answered as unknown and found to be stored.
    pub unknown_stored: u64,
    /// Commands that were answered as unknown and found not to be stored.
    pub unknown_not_stored: u64,
    /// Openings that failed with a typed error.
    pub not_opened: u64,
    /// Reads that succeeded while the store was not whole.
    pub reads_meanwhile: u64,
    /// Reads that failed because a call of theirs was failed.
    pub reads_failed: u64,
    /// Losses of power that were tried on the way.
    pub power_cuts: u64,
    /// Of these, how many left half a store that nobody had been told to be one: before its first opening had succeeded.
    pub half_made: u64,
    /// Every promise that was broken.
    pub violations: Vec<String>,
}

/// Runs the load. With [`Span::UntilCleared`] the fault ends after the first command that it reached was answered and
/// reads were made.
///
/// # Panics
/// If the machine has no room for a directory.
pub async fn run(fault: Option<Fault>, syncing: Syncing, seed: u64) -> IoRun {
    let directory = fast_directory();
    let store = directory.path().join(STORE);
    let control = Control::of_directory(directory.path());
    control.record();
    // The host makes an empty file before SQLite opens it.
    std::fs::write(&store, []).expect("an empty file");
    control.host_created(STORE);
    if let Some(fault) = fault {
        control.fail(fault);
    }
    let gate = Arc::new(Gate::default());
    let options = SqliteOptions::default()
        .with_reader_threads(1)
        .with_checkpoint_pages(24)
        .with_first_reopen_wait(Duration::from_millis(1))
        .with_faults(Arc::new(Watched { gate: Arc::clone(&gate), control: Arc::clone(&control) }));
    let options = match syncing {
        Syncing::Full => options,
        Syncing::Normal => options.dangerously_unsynced_for_tests(),
    };
    let witness = Witness::knowing(Arc::clone(&control), &BTreeMap::new());
    let mut run = IoRun::default();
    let mut session = 0;
    let mut opened_at = 0;
    if let Some(log) = open(&store, &options, &control, &mut run) {
        control.host_synced_directory();
        (session, opened_at) = (log.session().number, control.recorded());
        let mut load = Load { log: &log, control: &control, gate, witness: &witness, run };
        if tokio::time::timeout(BOUND * 4, load.play()).await.is_err() {
            load.run.violations.push("the load did not come to its end".to_owned());
        }
        run = load.run;
        if tokio::time::timeout(BOUND, log.close()).await.is_err() {
            run.violations.push("the log did not close".to_owned());
        }
    }
    run.failed = control.failed();
    run.calls = CallKind::ALL.into_iter().map(|kind| (kind, control.calls(kind))).collect();
    control.clear();
    let history = control.take_history();
    let end = history.len();
    if let Err(violations) = check_store(&store, end, &witness, session).await {
        run.violations.extend(violations.iter().map(|violation| format!("reopened: {violation:?}")));
    }
    let sessions = (opened_at, session);
    cut_power(&history, &witness, sessions, fault, seed, &mut run).await;
    run
}

/// The gate at the writer, and a note of what the host does past SQLite.
#[derive(Debug)]
struct Watched {
    gate: Arc<Gate>,
    control: Arc<Control>,
}

impl WriterFaults for Watched {
    fn reached(&self, point: WriterPoint) -> FaultVerdict {
        if point == WriterPoint::LogFileRewritten {
            self.control.host_rewrote("store.db-wal");
        }
        self.gate.reached(point)
    }
}

fn open(store: &std::path::Path, options: &SqliteOptions, control: &Control, run: &mut IoRun) -> Option<SqliteLog> {
    for _ in 0..ATTEMPTS {
        match SqliteLog::open(store, options.clone()) {
            Ok(log) => return Some(log),
            Err(OpenError::Io { .. } | OpenError::DiskFull { .. } | OpenError::PermissionDenied { .. }) => {
                run.not_opened += 1;
                if run.not_opened == 1 && control.failed() == 0 {
                    run.violations.push("it does not open although nothing failed".to_owned());
                }
                if run.not_opened > 3 {
                    control.clear();
                }
            }
            Err(error) => {
                run.violations.push(format!("a failed call is reported as something else: {error:?}"));
                control.clear();
            }
        }
    }
    run.violations.push("it does not open although the fault is over".to_owned());
    None
}

/// The callers of one log.
struct Load<'run> {
    log: &'run SqliteLog,
    control: &'run Control,
    gate: Arc<Gate>,
    witness: &'run Arc<Witness>,
    run: IoRun,
}

impl Load<'_> {
    async fn play(&mut self) {
        let mut authors: Vec<_> = (0..4).map(|number| Author::new(&format!("p{number}"))).collect();
        let first = register("p0");
        self.write(&mut authors[..1], |_| first.clone()).await;
        self.write(&mut authors[1..], |author| waking_registration(author.id().as_str(), SessionScope::session("s")))
            .await;
        for round in 0..3 {
            self.write(&mut authors, |author| output(author.state.sequence.0 + 1)).await;
            self.write(&mut authors[1..2], |author| alarm(author.state.sequence.0 + 1)).await;
            self.grant(&format!("s{round}"), &process_id("p2")).await;
            self.read("p1").await;
        }
        self.write(&mut authors[2..3], |_| claim()).await;
        self.write(&mut authors[..1], |_| complete()).await;
        self.grant("s", &process_id("p0")).await;
        self.prune(&process_id("p0")).await;
        for _ in 0..3 {
            self.write(&mut authors[1..], |author| output(author.state.sequence.0 + 1)).await;
        }
        self.write(&mut authors[3..4], |_| complete()).await;
        self.read("p3").await;
    }

    /// Lets each author write one command, all in one group, until all are stored.
    async fn write(&mut self, authors: &mut [Author], command: impl Fn(&Author) -> registry_actor::domain::Command) {
        let mut left: Vec<&mut Author> = authors.iter_mut().collect();
        for _ in 0..ATTEMPTS {
            self.gate.hold();
            let mut waiting = Vec::new();
            for author in left {
                let batch = author.batch(&[command(author)]);
                let (submission, answered) = self.witness.submit(self.log, batch.clone());
                waiting.push((author, batch, submission, answered));
            }
            self.gate.release();
            left = Vec::new();
            for (author, batch, submission, answered) in waiting {
                let Ok(Ok(answer)) = tokio::time::timeout(BOUND, answered).await else {
                    self.violated(format!("{} is not answered", author.id()));
                    return;
                };
                match answer {
                    Ok(head) => {
                        self.run.stored += 1;
                        author.install(&batch, head);
                    }
                    Err(error) => {
                        if !self.after_failure(author, &batch, &submission, &error).await {
                            left.push(author);
                        }
                    }
                }
            }
            if left.is_empty() {
                return;
            }
        }
        self.violated(format!("nothing is accepted after {ATTEMPTS} attempts"));
    }

    /// What a caller does that was not told "stored"; answers whether it is.
    async fn after_failure(
        &mut self,
        author: &mut Author,
        batch: &ProcessBatch,
        submission: &Submission,
        error: &AppendError,
    ) -> bool {
        self.look_while_failing(author.id()).await;
        let subject = Subject::Process(author.id().clone());
        let Some(found) = self.settled(&subject).await else { return true };
        let (before, after) = (facts_of(author, None), facts_of(author, Some(batch)));
        let stored = match found {
            Fact::Absent => None,
            Fact::Process { sequence, lease_revision, .. } => Some((sequence.0, lease_revision)),
            other => {
                self.violated(format!("{subject:?} is {other:?}"));
                return true;
            }
        };
        match error {
            AppendError::NotAccepted { .. } => {
                self.run.not_accepted += 1;
                if stored != before {
                    self.violated(format!("{subject:?} was not accepted, and yet it is {stored:?} after {before:?}"));
                }
                false
            }
            AppendError::Unknown { .. } if stored == after => {
                self.run.unknown_stored += 1;
                self.witness.resolve(submission, true);
                let head = self.log.load(author.id(), 0).await.ok().flatten().map(|stored| stored.head);
                if head.is_none() {
                    self.violated(format!("{subject:?} cannot be loaded again"));
                }
                author.install(batch, head);
                true
            }
            AppendError::Unknown { .. } if stored == before => {
                self.run.unknown_not_stored += 1;
                self.witness.resolve(submission, false);
                false
            }
            error => {
                self.violated(format!("{subject:?}: answered {error:?}, found {stored:?} after {before:?}"));
                true
            }
        }
    }

    async fn grant(&mut self, session: &str, process_id: &ProcessId) {
        let subject = Subject::Grant(session.to_owned(), process_id.clone());
        for _ in 0..ATTEMPTS {
            let Ok((submission, answer)) =
                tokio::time::timeout(BOUND, self.witness.grant(self.log, session, process_id)).await
            else {
                self.violated("a grant is not answered".to_owned());
                return;
            };
            let answer = answer.map(drop);
            if self.settle_across(&subject, Fact::Granted, &submission, answer).await {
                return;
            }
        }
        self.violated(format!("no grant after {ATTEMPTS} attempts"));
    }

    async fn prune(&mut self, process_id: &ProcessId) {
        let subject = Subject::Process(process_id.clone());
        for _ in 0..ATTEMPTS {
            let ended = std::slice::from_ref(process_id);
            let Ok((submission, answer)) = tokio::time::timeout(BOUND, self.witness.prune(self.log, ended)).await
            else {
                self.violated("a prune is not answered".to_owned());
                return;
            };
            let answer = answer.map(drop);
            if self.settle_across(&subject, Fact::Pruned, &submission, answer).await {
                return;
            }
        }
        self.violated(format!("no prune after {ATTEMPTS} attempts"));
    }

    /// What a caller of a command across processes does with its answer; answers whether it is stored.
    async fn settle_across(
        &mut self,
        subject: &Subject,
        wanted: Fact,
        submission: &Submission,
        answer: Result<(), AcrossError>,
    ) -> bool {
        let (Subject::Process(process_id) | Subject::Grant(_, process_id)) = subject;
        let error = match answer {
            Ok(()) => {
                self.run.stored += 1;
                return true;
            }
            Err(AcrossError::Append(error)) => error,
            Err(AcrossError::Read(LogError::Unreadable { reason })) => AppendError::NotAccepted { reason },
            Err(error) => {
                self.violated(format!("{subject:?}: answered {error:?}"));
                return true;
            }
        };
        self.look_while_failing(process_id).await;
        let Some(found) = self.settled(subject).await else { return true };
        let stored = found == wanted;
        match error {
            AppendError::NotAccepted { .. } => {
                self.run.not_accepted += 1;
                if stored {
                    self.violated(format!("{subject:?} was not accepted, and yet it is {found:?}"));
                }
            }
            AppendError::Unknown { .. } => {
                *(if stored { &mut self.run.unknown_stored } else { &mut self.run.unknown_not_stored }) += 1;
                self.witness.resolve(submission, stored);
            }
            error => self.violated(format!("{subject:?}: answered {error:?}")),
        }
        stored
    }

    /// As long as the fault lasts, what is known is read, and nothing that is new is concluded. Then the fault ends.
    async fn look_while_failing(&mut self, process_id: &ProcessId) {
        for _ in 0..READS {
            self.read(process_id.as_str()).await;
        }
        self.control.clear_lasting();
    }

    /// A read that must succeed unless a call of its own was failed.
    async fn read(&mut self, id: &str) {
        let before = self.control.failed_on_thread("proctor-log-read");
        let asked = Query::Process { process_id: process_id(id) };
        match tokio::time::timeout(BOUND, self.log.query(asked)).await {
            Ok(Ok(Answer::Process(_))) => {
                if self.log.load(&process_id(id), 0).await.is_err() {
                    self.run.reads_meanwhile += 1;
                }
            }
            Ok(Err(LogError::Unreadable { reason })) => {
                if self.control.failed_on_thread("proctor-log-read") == before {
                    self.violated(format!("a read failed although no call of it was failed: {reason}"));
                }
                self.run.reads_failed += 1;
            }
            Ok(other) => self.violated(format!("a read of {id} answers {other:?}")),
            Err(_) => self.violated(format!("a read of {id} is not answered")),
        }
    }

    /// What is stored, once the log answers for it again.
    async fn settled(&mut self, subject: &Subject) -> Option<Fact> {
        let found = tokio::time::timeout(BOUND, async {
            let (Subject::Process(process_id) | Subject::Grant(_, process_id)) = subject;
            loop {
                // A load is refused until the store is whole, which a query is not.
                if self.log.load(process_id, 0).await.is_ok() {
                    match Fact::stored(self.log, subject).await {
                        Ok(fact) => return Ok(fact),
                        Err(LogError::Unreadable { .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        match found {
            Ok(Ok(fact)) => Some(fact),
            Ok(Err(error)) => {
                self.violated(format!("{subject:?} cannot be read: {error}"));
                None
            }
            Err(_) => {
                self.violated(format!("{subject:?}: the store does not heal"));
                None
            }
        }
    }

    fn violated(&mut self, what: String) {
        self.run.violations.push(what);
    }
}

/// Sequence and lease revision of a process before or after a batch; `None` if it is not registered.
fn facts_of(author: &Author, batch: Option<&ProcessBatch>) -> Option<(u64, u64)> {
    let before = author.head.map(|head| (head.sequence.0, author.state.lease.revision));
    let Some(batch) = batch else { return before };
    let sequence = batch.events.last().map_or_else(|| before.unwrap_or_default().0, |stored| stored.event.sequence.0);
    let revision = batch.lease.as_ref().map_or_else(|| before.unwrap_or_default().1, |lease| lease.revision);
    Some((sequence, revision))
}

/// Cuts the power after the load, at an acknowledgement after the fault, and behind a failed sync.
async fn cut_power(
    history: &[Operation],
    witness: &Witness,
    (opened_at, session): (usize, u64),
    fault: Option<Fault>,
    seed: u64,
    run: &mut IoRun,
) {
    let end = history.len();
    let failed_sync = history.iter().position(|operation| matches!(operation, Operation::SyncFailed { .. }));
    let acknowledgements = witness.acknowledgements();
    let mut random = Random::new(seed);
    let mut at = vec![(end, Kept::Nothing), (end, Kept::ByChance)];
    if let Some(place) = (!acknowledgements.is_empty()).then(|| acknowledgements[random.index(acknowledgements.len())])
    {
        at.push((place, Kept::Nothing));
    }
    if let Some(first) = failed_sync {
        at.extend(acknowledgements.iter().find(|place| **place > first).map(|place| (*place, Kept::Nothing)));
        for place in first + 1..end.min(first + 1 + CUTS_AFTER_FAILED_SYNC) {
            at.push((place, Kept::ByChance));
        }
    }
    let directory = fast_directory();
    for kept in [Kept::Nothing, Kept::ByChance] {
        let mut places: Vec<_> = at.iter().filter(|(_, how)| *how == kept).map(|(place, _)| *place).collect();
        places.sort_unstable();
        let mut disk = Disk::holding(&Files::new(), kept);
        let mut done = 0;
        for place in places {
            for operation in &history[done..place] {
                disk.replay(operation, &mut random);
            }
            done = place;
            put_files(directory.path(), &disk.after_power_cut(&mut random));
            let session = if place >= opened_at { session } else { 0 };
            run.power_cuts += 1;
            if let Err(violations) = check_store(&directory.path().join(STORE), place, witness, session).await {
                // While a store is being made on a disk that syncs nothing, SQLite takes half a page back without being able to,
                // and with it the journal. Whoever opened it was told that it is none, and it holds nothing of anybody.
                if place < opened_at && violations.iter().all(|violation| matches!(violation, Violation::Unopenable(_)))
                {
                    run.half_made += 1;
                    continue;
                }
                run.violations.push(format!("{fault:?}, power cut {kept:?} at {place} of {end}: {violations:?}"));
            }
        }
    }
}

/// Every fault of a load that makes so many calls, or so many of each kind evenly spread. Of syncs it is always every one.
#[must_use]
pub fn faults(calls: &BTreeMap<CallKind, u64>, most_per_kind: u64) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (kind, calls) in calls {
        let failures: &[Failure] = match kind {
            CallKind::Write => &[Failure::InputOutput, Failure::NoSpace, Failure::Short],
            CallKind::Shm => &[Failure::InputOutput, Failure::NoSpace],
            _ => &[Failure::InputOutput],
        };
        let spans: &[Span] = match kind {
            CallKind::Sync => &[Span::Calls(1), Span::Calls(3), Span::UntilCleared],
            _ => &[Span::Calls(1), Span::UntilCleared],
        };
        let stride = if *kind == CallKind::Sync { 1 } else { calls.div_ceil(most_per_kind).max(1) };
        for failure in failures {
            for span in spans {
                faults.extend((1..=*calls).step_by(usize::try_from(stride).unwrap_or(usize::MAX)).map(|nth| Fault {
                    kind: *kind,
                    nth,
                    failure: *failure,
                    span: *span,
                }));
            }
        }
    }
    faults
}
