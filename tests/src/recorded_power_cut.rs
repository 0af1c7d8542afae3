//! Power cuts offline: a load is recorded with every write and sync, and replayed into what a loss of power may leave at
//! any place of it. Each image is opened as a host opens its store, and held against what was acknowledged before the cut.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use registry_actor::domain::{ProcessEventAppendRequest, ProcessId, SessionScope, apply};
use registry_actor::log::{SqliteLog, SqliteOptions};
use registry_actor::port::{Head, Position, ProcessLog};
use serde_json::json;
use tempfile::TempDir;

use crate::crash_writer::Syncing;
use crate::fault_vfs::{Control, Disk, Files, Kept, Operation};
use crate::log_author::{
    Author, OUTPUT, alarm, append, claim, complete, keyed_output, output, process_id, register, submit,
    waking_registration,
};
use crate::seeded::Random;
use crate::witness::{Contradiction, Fact, Subject, Witness};

/// The name of every store here.
const STORE: &str = "store.db";

/// How many processes live at once.
const LIVE: usize = 6;

/// What a life of a store begins with.
#[derive(Debug, Clone, Default)]
pub struct Beginning {
    /// What is on the disk; nothing for a new store.
    pub files: Files,
    /// What is stored there, by subject.
    pub facts: BTreeMap<Subject, Fact>,
    /// The last session that was begun in it.
    pub session: u64,
}

/// A recorded life of a store.
pub struct Recording {
    beginning: Beginning,
    /// What reached the disk, in order.
    pub history: Vec<Operation>,
    witness: Arc<Witness>,
    /// Where each session had begun, and its number.
    sessions: Vec<(usize, u64)>,
}

/// Makes a directory in memory where the machine has one.
///
/// # Panics
/// If there is no room for one.
#[must_use]
pub fn fast_directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a directory")
}

/// Lets a host work on a store and records it: random commands of every kind, several at once, many checkpoints, and
/// sometimes an end and a beginning in between.
///
/// # Panics
/// If the store does not do what it is asked for.
pub async fn record(beginning: Beginning, seed: u64, syncing: Syncing) -> Recording {
    let directory = fast_directory();
    put_files(directory.path(), &beginning.files);
    let store = directory.path().join(STORE);
    let control = Control::of_directory(directory.path());
    control.record();
    let mut random = Random::new(seed);
    // A power cut before the names were durable may have kept that of the log file alone.
    if !beginning.files.keys().any(|name| &**name == STORE) {
        // The host makes an empty file before SQLite opens it.
        std::fs::write(&store, []).expect("an empty file");
        control.host_created(STORE);
    }
    let witness = Witness::knowing(Arc::clone(&control), &beginning.facts);
    let mut load = Load { control, witness: Arc::clone(&witness), store, syncing, sessions: Vec::new(), born: 0 };
    for _ in 0..=random.below(2) {
        load.live(&mut random).await;
    }
    let Load { control, sessions, .. } = load;
    Recording { beginning, history: control.take_history(), witness, sessions }
}

struct Load {
    control: Arc<Control>,
    witness: Arc<Witness>,
    store: PathBuf,
    syncing: Syncing,
    sessions: Vec<(usize, u64)>,
    born: u64,
}

impl Load {
    async fn live(&mut self, random: &mut Random) {
        let pages = [4, 16, 64, 2_000][random.index(4)];
        let options = SqliteOptions::default().with_reader_threads(1).with_checkpoint_pages(pages);
        let options = match self.syncing {
            Syncing::Full => options,
            Syncing::Normal => options.dangerously_unsynced_for_tests(),
        };
        let log = SqliteLog::open(&self.store, options).expect("a store");
        self.control.host_synced_directory();
        self.sessions.push((self.control.recorded(), log.session().number));
        let mut authors = authors_of(&log).await;
        for _ in 0..20 + random.below(20) {
            self.step(&log, &mut authors, random).await;
        }
        // An end without a last checkpoint is an end in the middle, of which there are enough.
        log.close().await;
    }

    async fn step(&mut self, log: &SqliteLog, authors: &mut Vec<Author>, random: &mut Random) {
        let ended = |author: &Author| author.state.record.as_ref().is_some_and(|record| record.status.is_terminal());
        // A lease in force keeps a process from being pruned, and here none runs out.
        let prunable = |author: &Author| ended(author) && author.state.lease.revision == 0;
        let live = authors.iter().filter(|author| !ended(author)).count();
        match random.below(20) {
            0 if authors.iter().any(prunable) => {
                let gone: Vec<_> =
                    authors.iter().filter(|author| prunable(author)).map(|author| author.id().clone()).collect();
                let (_, answer) = self.witness.prune(log, &gone).await;
                answer.expect("a prune");
                authors.retain(|author| !prunable(author));
            }
            1 | 2 if authors.iter().any(|author| author.head.is_some()) => {
                let registered: Vec<_> = authors.iter().filter(|author| author.head.is_some()).collect();
                let author = registered[random.index(registered.len())];
                let session = format!("s{}", random.below(2));
                let (_, answer) = self.witness.grant(log, &session, author.id()).await;
                answer.expect("a grant");
            }
            _ => {
                while authors.iter().filter(|author| !ended(author)).count() < LIVE
                    && (live == 0 || random.below(3) == 0)
                {
                    self.born += 1;
                    let session = self.sessions.last().map_or(0, |(_, number)| *number);
                    authors.push(Author::new(&format!("p{session}-{}", self.born)));
                    if live == 0 {
                        break;
                    }
                }
                let mut waiting = Vec::new();
                for author in authors.iter_mut().filter(|author| !ended(author)) {
                    if random.below(3) == 0 {
                        let batch = next_batch(author, random);
                        let (_, answered) = self.witness.submit(log, batch.clone());
                        waiting.push((author, batch, answered));
                    }
                }
                for (author, batch, answered) in waiting {
                    let head = answered.await.expect("an answer").expect("stored");
                    author.install(&batch, head);
                }
            }
        }
    }
}

fn next_batch(author: &mut Author, random: &mut Random) -> registry_actor::port::ProcessBatch {
    let Some(record) = author.state.record.clone() else {
        let id = author.id().as_str().to_owned();
        let command =
            if random.below(3) == 0 { waking_registration(&id, SessionScope::session("s0")) } else { register(&id) };
        return author.batch(&[command]);
    };
    let number = author.state.sequence.0 + 1;
    let command = match random.below(12) {
        0 if author.state.lease.revision == 0 => claim(),
        1 => complete(),
        2 | 3 if record.registration.wake_target.is_some() => alarm(number),
        // More than a page, so that a frame of the log file is torn off from its transaction.
        4 => {
            append(ProcessEventAppendRequest::new(OUTPUT, json!({ "long": "x".repeat(3_000 + random.index(12_000)) })))
        }
        5 => keyed_output(&format!("key {number}")),
        6 | 7 => return author.batch(&[output(number), output(number + 1), output(number + 2)]),
        _ => output(number),
    };
    author.batch(&[command])
}

/// Everybody who writes on, from what is stored.
async fn authors_of(log: &SqliteLog) -> Vec<Author> {
    let mut authors: BTreeMap<ProcessId, Author> = BTreeMap::new();
    let mut after = Position::default();
    loop {
        let page = log.feed(after, 1_000).await.expect("the feed");
        for batch in &page.changes.batches {
            let id = &batch.process_id;
            let author = authors.entry(id.clone()).or_insert_with(|| Author::new(id.as_str()));
            for event in &batch.events {
                author.state = apply(author.state.clone(), event);
            }
            author.state.replays.settle();
        }
        after = page.next;
        if !page.has_more {
            break;
        }
    }
    for (id, author) in &mut authors {
        let stored = log.load(id, 0).await.expect("a load").expect("a process");
        author.head = Some(Head { ..stored.head });
        author.state.lease = Arc::new(stored.lease);
    }
    authors.into_values().collect()
}

impl Recording {
    /// How many facts were acknowledged in it.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.witness.acknowledged(self.history.len())
    }

    /// A disk before anything of it.
    #[must_use]
    pub fn disk(&self, kept: Kept) -> Disk {
        Disk::holding(&self.beginning.files, kept)
    }

    /// Opens what a loss of power at this place left, in this directory, and checks it. Answers what the next life begins
    /// with.
    ///
    /// # Errors
    /// Each promise that is broken.
    pub async fn check(&self, cut: usize, files: &Files, directory: &Path) -> Result<Beginning, Vec<Violation>> {
        put_files(directory, files);
        let session =
            self.sessions.iter().rev().find(|(place, _)| *place <= cut).map_or(self.beginning.session, |last| last.1);
        let checked = check_store(&directory.join(STORE), cut, &self.witness, session).await?;
        // The files are those of before the check, and of the session before the one that it began.
        Ok(Beginning { files: files.clone(), session: checked.session - 1, ..checked })
    }
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// The store does not open.
    Unopenable(String),
    /// Something acknowledged is not there.
    Lost(String),
    /// Something is there that must not be.
    Invented(String),
    /// Something does not verify, or cannot be read.
    Damaged(String),
}

/// Opens a store for writing, as recovery does, and holds it against what a witness heard up to a place in the history.
///
/// # Errors
/// Each promise that is broken.
pub async fn check_store(
    store: &Path,
    cut: usize,
    witness: &Witness,
    last_session: u64,
) -> Result<Beginning, Vec<Violation>> {
    let options = SqliteOptions::default().with_reader_threads(1);
    let log = SqliteLog::open(store, options).map_err(|error| vec![Violation::Unopenable(error.to_string())])?;
    let mut violations = Vec::new();
    let mut facts = BTreeMap::new();
    let session = log.session().number;
    if session <= last_session {
        violations.push(Violation::Lost(format!("session {last_session}: the next one has number {session}")));
    }
    let subjects = witness.subjects();
    for subject in &subjects {
        match Fact::stored(&log, subject).await {
            Ok(fact) => {
                match witness.contradiction(cut, subject, fact) {
                    Some(Contradiction::Lost(what)) => violations.push(Violation::Lost(what)),
                    Some(Contradiction::Invented(what)) => violations.push(Violation::Invented(what)),
                    None => {}
                }
                facts.insert(subject.clone(), fact);
            }
            Err(error) => violations.push(Violation::Damaged(error.to_string())),
        }
    }
    match log.process_ids(None, 1_000).await {
        Ok(ids) => {
            for id in ids {
                if !subjects.contains(&Subject::Process(id.clone())) {
                    violations.push(Violation::Invented(format!("{id}: nobody registered it")));
                }
                match log.verify(&id).await {
                    Ok(found) => {
                        violations
                            .extend(found.faults.iter().map(|fault| Violation::Damaged(format!("{id}: {fault}"))));
                    }
                    Err(error) => violations.push(Violation::Damaged(format!("{id}: {error}"))),
                }
            }
        }
        Err(error) => violations.push(Violation::Damaged(error.to_string())),
    }
    // What was opened can be written to.
    let mut author = Author::new("after");
    let batch = author.batch(&[register(process_id("after").as_str())]);
    if let Err(error) = submit(&log, batch).await {
        violations.push(Violation::Damaged(format!("the first append after it: {error}")));
    }
    log.close().await;
    if violations.is_empty() { Ok(Beginning { files: Files::new(), facts, session }) } else { Err(violations) }
}

/// Makes a directory hold these files and no others.
pub(crate) fn put_files(directory: &Path, files: &Files) {
    for entry in std::fs::read_dir(directory).expect("the directory").flatten() {
        std::fs::remove_file(entry.path()).expect("a file can be removed");
    }
    for (name, content) in files {
        std::fs::write(directory.join(&**name), content).expect("a file can be written");
    }
}
