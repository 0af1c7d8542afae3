//! The registry beneath what is watched: it counts reads, and a test can stop it at either side of a commit.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use registry_actor::domain::{Command, OperationId, ProcessId, Receipt, RegistryCommand, RegistryReceipt};
use registry_actor::port::{Answer, ChangeSource, DurabilityTier, ProcessRegistry, Query, RegistryError};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

/// Passes everything on, and does once what a test scripted.
pub struct Beneath {
    inner: Arc<dyn ProcessRegistry>,
    reads: watch::Sender<Vec<Read>>,
    interruption: Mutex<Option<Interruption>>,
}

/// A read that was answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Read {
    pub(super) asked: Instant,
    pub(super) answered: Instant,
}

enum Interruption {
    BeforeCommit(Gate),
    AfterCommit(Gate),
    AnswerLost,
}

struct Gate {
    reached: oneshot::Sender<()>,
    opened: oneshot::Receiver<()>,
}

/// A command that stands at a gate.
pub(super) struct Held {
    reached: oneshot::Receiver<()>,
    open: oneshot::Sender<()>,
}

impl Beneath {
    pub(super) fn new(inner: Arc<dyn ProcessRegistry>) -> Self {
        Self { inner, reads: watch::Sender::default(), interruption: Mutex::default() }
    }

    /// The next command stops before it is carried out.
    pub(super) fn hold_before_commit(&self) -> Held {
        let (gate, held) = gate();
        self.interrupt(Interruption::BeforeCommit(gate));
        held
    }

    /// The next command is carried out and stops before its answer.
    pub(super) fn hold_after_commit(&self) -> Held {
        let (gate, held) = gate();
        self.interrupt(Interruption::AfterCommit(gate));
        held
    }

    /// The next command is carried out, and its answer does not say so.
    pub(super) fn lose_answer(&self) {
        self.interrupt(Interruption::AnswerLost);
    }

    /// Waits until so many reads were answered.
    pub(super) async fn reads(&self, count: usize) -> Vec<Read> {
        let mut reads = self.reads.subscribe();
        reads.wait_for(|reads| reads.len() >= count).await.expect("the registry lives").clone()
    }

    /// From each answer to the next question.
    pub(super) fn pauses_between_reads(&self) -> Vec<Duration> {
        self.reads.borrow().windows(2).map(|reads| reads[1].asked - reads[0].answered).collect()
    }

    fn interrupt(&self, interruption: Interruption) {
        *self.interruption.lock().unwrap_or_else(PoisonError::into_inner) = Some(interruption);
    }
}

fn gate() -> (Gate, Held) {
    let (reached, when_reached) = oneshot::channel();
    let (open, opened) = oneshot::channel();
    (Gate { reached, opened }, Held { reached: when_reached, open })
}

impl Gate {
    async fn pass(self) {
        let _ = self.reached.send(());
        let _ = self.opened.await;
    }
}

impl Held {
    /// Waits until a command stands there.
    pub(super) async fn reached(&mut self) {
        (&mut self.reached).await.expect("a command comes");
    }

    pub(super) fn open(self) {
        let _ = self.open.send(());
    }
}

#[async_trait]
impl ProcessRegistry for Beneath {
    async fn execute(&self, process_id: &ProcessId, command: Command) -> Result<Receipt, RegistryError> {
        let interruption = self.interruption.lock().unwrap_or_else(PoisonError::into_inner).take();
        match interruption {
            Some(Interruption::BeforeCommit(gate)) => {
                gate.pass().await;
                self.inner.execute(process_id, command).await
            }
            Some(Interruption::AfterCommit(gate)) => {
                let result = self.inner.execute(process_id, command).await;
                gate.pass().await;
                result
            }
            Some(Interruption::AnswerLost) => {
                self.inner.execute(process_id, command).await.expect("it is carried out");
                let operation = OperationId { issuer: 1, number: 1 };
                Err(RegistryError::OutcomeUnknown {
                    process_id: process_id.clone(),
                    operation,
                    reason: "a test".into(),
                })
            }
            None => self.inner.execute(process_id, command).await,
        }
    }

    async fn execute_across(&self, command: RegistryCommand) -> Result<RegistryReceipt, RegistryError> {
        self.inner.execute_across(command).await
    }

    async fn query(&self, query: Query) -> Result<Answer, RegistryError> {
        let asked = Instant::now();
        let answer = self.inner.query(query).await;
        self.reads.send_modify(|reads| reads.push(Read { asked, answered: Instant::now() }));
        answer
    }

    fn durability_tier(&self) -> DurabilityTier {
        self.inner.durability_tier()
    }

    fn change_source(&self) -> Option<ChangeSource> {
        self.inner.change_source()
    }
}
