//! What a log was asked to store and what it answered, each with its place in the recorded history of its disk.
//!
//! From it follows what a loss of power at any place may leave: of each subject the last acknowledged fact, or one that
//! was submitted after it and not refused. It is a model of its own: the chain of a process's events is taken from the
//! answers, not computed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use registry_actor::domain::{Digest, ProcessId, RegistryCommand, RegistryReceipt, Sequence, SessionScope};
use registry_actor::port::{
    AcrossError, Answer, AppendError, AppendReply, AppendResult, LogError, ProcessBatch, ProcessLog, Query,
};
use tokio::sync::oneshot;

use crate::fault_vfs::Control;
use crate::log_author;

/// What facts are about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A process with its lease.
    Process(ProcessId),
    /// Whether this session may address this process.
    Grant(String, ProcessId),
}

/// What is stored of a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// Nothing.
    Absent,
    /// A process.
    Process {
        /// Of its last event.
        sequence: Sequence,
        /// Of its last event, which stands for all of them; unknown where no answer told it.
        chain: Option<Digest>,
        /// Of its lease row.
        lease_revision: u64,
    },
    /// A process was here.
    Pruned,
    /// The grant.
    Granted,
}

impl Fact {
    /// What a log holds of a subject.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn stored(log: &dyn ProcessLog, subject: &Subject) -> Result<Self, LogError> {
        match subject {
            Subject::Process(process_id) => {
                if let Some(stored) = log.load(process_id, 0).await? {
                    let chain = Some(stored.head.chain);
                    let lease_revision = stored.lease.revision;
                    return Ok(Self::Process { sequence: stored.head.sequence, chain, lease_revision });
                }
                match log.query(Query::Tombstone { process_id: process_id.clone() }).await? {
                    Answer::Tombstone(Some(_)) => Ok(Self::Pruned),
                    _ => Ok(Self::Absent),
                }
            }
            Subject::Grant(session, process_id) => {
                let scope = SessionScope::session(session);
                let asked = Query::HandleGrant { scope, process_id: process_id.clone() };
                match log.query(asked).await? {
                    Answer::HandleGrant(Some(_)) => Ok(Self::Granted),
                    _ => Ok(Self::Absent),
                }
            }
        }
    }

    /// Whether what is stored is this.
    fn is(self, stored: Self) -> bool {
        match (self, stored) {
            (
                Self::Process { sequence, chain: None, lease_revision },
                Self::Process { sequence: stored_sequence, lease_revision: stored_revision, .. },
            ) => sequence == stored_sequence && lease_revision == stored_revision,
            (claimed, stored) => claimed == stored,
        }
    }
}

/// A fact that was submitted.
#[derive(Debug, Clone)]
struct Version {
    fact: Fact,
    /// Where in the history it was submitted.
    submitted: usize,
    /// Where it was acknowledged.
    acknowledged: Option<usize>,
    /// From where on it must not be there, because the log said so.
    denied: Option<usize>,
}

/// What is wrong with what is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Contradiction {
    /// Something acknowledged is not there.
    Lost(String),
    /// Something is there that nobody submitted, or that the log had said was not stored.
    Invented(String),
}

/// Stands beside a log.
pub struct Witness {
    control: Arc<Control>,
    versions: Mutex<BTreeMap<Subject, Vec<Version>>>,
}

/// A submitted command: its versions, by subject.
type Submitted = Vec<(Subject, usize)>;

impl Witness {
    /// One that knows these facts already.
    #[must_use]
    pub fn knowing(control: Arc<Control>, facts: &BTreeMap<Subject, Fact>) -> Arc<Self> {
        let known = |fact: &Fact| Version { fact: *fact, submitted: 0, acknowledged: Some(0), denied: None };
        let versions = facts.iter().map(|(subject, fact)| (subject.clone(), vec![known(fact)])).collect();
        Arc::new(Self { control, versions: Mutex::new(versions) })
    }

    /// Submits a batch. What is received is its answer; the acknowledgement is noted on the writer's thread, when it is
    /// given.
    pub fn submit(
        self: &Arc<Self>,
        log: &dyn ProcessLog,
        batch: ProcessBatch,
    ) -> (Submission, oneshot::Receiver<AppendResult>) {
        let subject = Subject::Process(batch.process_id.clone());
        let before = batch.expected.head;
        let fact = Fact::Process {
            sequence: batch.events.last().map_or_else(
                || before.map_or(Sequence::REGISTRATION, |head| head.sequence),
                |stored| stored.event.sequence,
            ),
            chain: None,
            lease_revision: batch.lease.as_ref().map_or(batch.expected.lease_revision, |lease| lease.revision),
        };
        let submission = Submission(self.add(vec![(subject, fact)]));
        let (answer, answered) = oneshot::channel();
        let (witness, of) = (Arc::clone(self), submission.clone());
        log.submit(
            batch,
            AppendReply::new(move |result| {
                witness.note_append(&of, &result);
                let _ = answer.send(result);
            }),
        );
        (submission, answered)
    }

    /// Grants a session a process, and awaits the answer.
    ///
    /// # Errors
    /// What the log answers.
    pub async fn grant(
        &self,
        log: &dyn ProcessLog,
        session: &str,
        process_id: &ProcessId,
    ) -> (Submission, Result<RegistryReceipt, AcrossError>) {
        let subject = Subject::Grant(session.to_owned(), process_id.clone());
        let command = log_author::grant(session, process_id.as_str());
        self.across(log, command, vec![(subject, Fact::Granted)]).await
    }

    /// Prunes everything that has ended, which is these processes, and awaits the answer.
    ///
    /// # Errors
    /// What the log answers.
    pub async fn prune(
        &self,
        log: &dyn ProcessLog,
        ended: &[ProcessId],
    ) -> (Submission, Result<RegistryReceipt, AcrossError>) {
        let mut facts: Vec<_> = ended.iter().map(|id| (Subject::Process(id.clone()), Fact::Pruned)).collect();
        for subject in self.versions().keys() {
            if let Subject::Grant(_, process_id) = subject
                && ended.contains(process_id)
            {
                facts.push((subject.clone(), Fact::Absent));
            }
        }
        self.across(log, log_author::prune(), facts).await
    }

    async fn across(
        &self,
        log: &dyn ProcessLog,
        command: RegistryCommand,
        facts: Vec<(Subject, Fact)>,
    ) -> (Submission, Result<RegistryReceipt, AcrossError>) {
        let submission = Submission(self.add(facts));
        let answer = log_author::across(log, command).await;
        match &answer {
            Ok(_) => self.acknowledge(&submission, None),
            Err(AcrossError::Append(AppendError::Unknown { .. })) => {}
            // It was never there.
            Err(_) => self.deny(&submission, 0),
        }
        (submission, answer)
    }

    fn note_append(&self, submission: &Submission, result: &AppendResult) {
        match result {
            Ok(head) => self.acknowledge(submission, head.map(|head| head.chain)),
            Err(AppendError::Unknown { .. }) => {}
            Err(_) => self.deny(submission, 0),
        }
    }

    /// What became of an unknown outcome: from now on it is there, or not.
    pub fn resolve(&self, submission: &Submission, stored: bool) {
        if stored { self.acknowledge(submission, None) } else { self.deny(submission, self.control.recorded()) }
    }

    /// Everything that facts are known of.
    #[must_use]
    pub fn subjects(&self) -> Vec<Subject> {
        self.versions().keys().cloned().collect()
    }

    /// How many facts were acknowledged up to a place in the history.
    #[must_use]
    pub fn acknowledged(&self, cut: usize) -> usize {
        let versions = self.versions();
        versions.values().flatten().filter(|version| version.acknowledged.is_some_and(|place| place <= cut)).count()
    }

    /// The places in the history at which something was acknowledged, ascending.
    #[must_use]
    pub fn acknowledgements(&self) -> Vec<usize> {
        let mut places: Vec<_> =
            self.versions().values().flatten().filter_map(|version| version.acknowledged).collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    /// Compares what is stored after a loss of power at this place with what may be.
    #[must_use]
    pub fn contradiction(&self, cut: usize, subject: &Subject, stored: Fact) -> Option<Contradiction> {
        let all = self.versions();
        let none = Vec::new();
        let versions = all.get(subject).unwrap_or(&none);
        let last = versions.iter().rposition(|version| version.acknowledged.is_some_and(|place| place <= cut));
        let possible = |version: &Version| version.submitted <= cut && version.denied.is_none_or(|place| place > cut);
        let allowed = versions.iter().skip(last.unwrap_or(0)).filter(|version| possible(version));
        if (last.is_none() && stored == Fact::Absent) || allowed.clone().any(|version| version.fact.is(stored)) {
            return None;
        }
        let allowed: Vec<_> = allowed.map(|version| version.fact).collect();
        let what = format!("{subject:?} at {cut}: expected one of {allowed:?}, found {stored:?}");
        let earlier = versions.iter().take(last.unwrap_or(0)).any(|version| version.fact.is(stored));
        Some(if last.is_some() && (earlier || stored == Fact::Absent) {
            Contradiction::Lost(what)
        } else {
            Contradiction::Invented(what)
        })
    }

    fn add(&self, facts: Vec<(Subject, Fact)>) -> Submitted {
        let place = self.control.recorded();
        let mut all = self.versions();
        facts
            .into_iter()
            .map(|(subject, fact)| {
                let versions = all.entry(subject.clone()).or_default();
                versions.push(Version { fact, submitted: place, acknowledged: None, denied: None });
                (subject, versions.len() - 1)
            })
            .collect()
    }

    fn acknowledge(&self, submission: &Submission, told: Option<Digest>) {
        let place = self.control.recorded();
        self.change(submission, |version| {
            version.acknowledged = Some(place);
            if let Fact::Process { chain, .. } = &mut version.fact {
                *chain = told;
            }
        });
    }

    fn deny(&self, submission: &Submission, place: usize) {
        self.change(submission, |version| version.denied = Some(place));
    }

    fn change(&self, submission: &Submission, change: impl Fn(&mut Version)) {
        let mut all = self.versions();
        for (subject, number) in &submission.0 {
            if let Some(version) = all.get_mut(subject).and_then(|versions| versions.get_mut(*number)) {
                change(version);
            }
        }
    }

    fn versions(&self) -> MutexGuard<'_, BTreeMap<Subject, Vec<Version>>> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was submitted together.
#[derive(Debug, Clone)]
pub struct Submission(Submitted);
