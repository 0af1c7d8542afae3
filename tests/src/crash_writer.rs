//! A host that dies: a child process which appends through the registry with many callers and tells each acknowledged
//! append on its standard output, and the check that every one of them is in the store it left.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use registry_actor::actor::{ActorRegistry, RegistryOptions};
use registry_actor::domain::{ProcessId, Sequence};
use registry_actor::log::{SqliteLog, SqliteOptions};
use registry_actor::port::{Answer, EventPage, ProcessLog, ProcessRegistryExt, Query};

use crate::example_process::{note, process_id, registration};

/// Processes that the callers share.
pub const PROCESSES: usize = 16;
/// Concurrent callers.
pub const CALLERS: usize = 64;

/// An append that was answered: process, sequence, number.
pub type Acknowledged = (usize, u64, u64);

/// How the child's store syncs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syncing {
    /// As the product does.
    Full,
    /// As the peer does: a commit is not synced. Shows that a power-cut test can fail.
    Normal,
}

impl Syncing {
    const fn argument(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Normal => "normal",
        }
    }
}

/// The child: appends until it is killed. `arguments` are the store's path and how it syncs.
///
/// # Errors
/// What the store, the registry or standard output report.
pub async fn write_until_killed(arguments: &[String]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let [store, syncing] = arguments else {
        return Err("expected the path of a store, and `full` or `normal`".into());
    };
    let options = if syncing == Syncing::Normal.argument() {
        SqliteOptions::default().dangerously_unsynced_for_tests()
    } else {
        SqliteOptions::default()
    };
    let log = Arc::new(SqliteLog::open(Path::new(store), options)?);
    let registry = ActorRegistry::start(log, RegistryOptions::default()).await?;
    for number in 0..PROCESSES {
        registry.register_process(registration(&id(number))).await?;
    }
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..CALLERS {
        let registry = registry.clone();
        callers.spawn(async move {
            let process = caller % PROCESSES;
            let id = id(process);
            for number in (caller as u64..).step_by(CALLERS) {
                let receipt = registry.append_event(&id, note(number)).await?;
                let sequence = receipt.events[0].event().sequence;
                // One write a line: a line that the parent can read was acknowledged whole.
                std::io::stdout().lock().write_all(format!("{process} {sequence} {number}\n").as_bytes())?;
            }
            Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended??;
    }
    Ok(())
}

fn id(number: usize) -> ProcessId {
    process_id(&format!("p{number}"))
}

/// A running child, seen from its parent.
#[derive(Debug)]
pub struct CrashWriter {
    child: Child,
    acknowledged: Arc<Mutex<Vec<Acknowledged>>>,
    reader: JoinHandle<()>,
}

impl CrashWriter {
    /// Starts the child, whose program is `program`, on a store.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(program: &Path, store: &Path, syncing: Syncing) -> Self {
        let mut child = Command::new(program)
            .args([store.as_os_str(), syncing.argument().as_ref()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the writer starts");
        let stdout = child.stdout.take().expect("its output is a pipe");
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let reader = std::thread::spawn({
            let acknowledged = Arc::clone(&acknowledged);
            move || {
                for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                    let text = String::from_utf8(line).unwrap_or_default();
                    let mut fields = text.split(' ').map(str::parse::<u64>);
                    if let (Some(Ok(process)), Some(Ok(sequence)), Some(Ok(number)), None) =
                        (fields.next(), fields.next(), fields.next(), fields.next())
                    {
                        let process = usize::try_from(process).expect("a small number");
                        acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push((process, sequence, number));
                    }
                }
            }
        });
        Self { child, acknowledged, reader }
    }

    /// What was acknowledged so far.
    ///
    /// # Panics
    /// Never: a poisoned lock is taken as it is.
    #[must_use]
    pub fn acknowledged(&self) -> Vec<Acknowledged> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until so many appends were acknowledged.
    ///
    /// # Panics
    /// If the child ends before.
    pub fn wait_for(&mut self, appends: usize) {
        while self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).len() < appends {
            assert_eq!(self.child.try_wait().expect("the child can be asked"), None, "the writer ended by itself");
            std::thread::yield_now();
        }
    }

    /// kill -9; answers everything that it acknowledged before it was dead.
    ///
    /// # Panics
    /// If it cannot be killed.
    #[must_use]
    pub fn kill(mut self) -> Vec<Acknowledged> {
        self.child.kill().expect("the child can be killed");
        self.child.wait().expect("the child can be waited for");
        self.reader.join().expect("its output can be read to the end");
        std::mem::take(&mut *self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a check of a store found wrong; empty lists if nothing is.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CrashFindings {
    /// Acknowledged appends that are not there, or are something else.
    pub lost: Vec<Acknowledged>,
    /// What does not verify, or is not dense.
    pub damaged: Vec<String>,
}

/// Opens the store that a dead child left, and looks for everything that it acknowledged.
///
/// # Panics
/// If the store does not open or cannot be read.
pub async fn check(store: &Path, acknowledged: &[Acknowledged]) -> CrashFindings {
    let log = SqliteLog::open(store, SqliteOptions::default()).expect("the store opens after the crash");
    let mut by_process: BTreeMap<usize, Vec<(u64, u64)>> = BTreeMap::new();
    for (process, sequence, number) in acknowledged {
        by_process.entry(*process).or_default().push((*sequence, *number));
    }
    let mut findings = CrashFindings::default();
    for process in 0..PROCESSES {
        let verification = log.verify(&id(process)).await;
        let wanted = by_process.remove(&process).unwrap_or_default();
        match verification {
            Ok(verification) => findings
                .damaged
                .extend(verification.faults.iter().map(|fault| format!("{}: {fault}", verification.process_id))),
            Err(registry_actor::port::LogError::Unknown { .. }) if wanted.is_empty() => continue,
            Err(registry_actor::port::LogError::Unknown { .. }) => {
                findings.lost.extend(wanted.iter().map(|(sequence, number)| (process, *sequence, *number)));
                continue;
            }
            Err(error) => panic!("{}: {error}", id(process)),
        }
        let stored = stored_numbers(&log, &id(process)).await;
        for (sequence, number) in wanted {
            if stored.get(&sequence) != Some(&number) {
                findings.lost.push((process, sequence, number));
            }
        }
        let dense: Vec<u64> = (1..=stored.len() as u64).collect();
        if stored.keys().copied().collect::<Vec<_>>() != dense {
            findings.damaged.push(format!("{}: the sequences are not dense", id(process)));
        }
    }
    log.close().await;
    findings
}

async fn stored_numbers(log: &SqliteLog, process_id: &ProcessId) -> BTreeMap<u64, u64> {
    let mut stored = BTreeMap::new();
    let mut after = Sequence(0);
    loop {
        let query = Query::Events { process_id: process_id.clone(), after, limit: EventPage::MAX_LIMIT };
        let Ok(Answer::Events(page)) = log.query(query).await else {
            panic!("the events of {process_id} can be read");
        };
        for event in &page.events {
            stored.insert(event.sequence.0, event.payload["number"].as_u64().expect("a note has a number"));
            after = event.sequence;
        }
        if !page.has_more {
            return stored;
        }
    }
}
