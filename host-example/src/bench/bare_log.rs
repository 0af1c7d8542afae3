//! The row *log*: the same events in the same groups, handed to the bare SQLite log without actors or decisions.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use registry_actor::domain::{
    Command, DecisionContext, ObservedProcess, OperationId, ProcessEvent, ProcessId, ProcessState, Sequence,
    UnfencedWrites, apply, decide,
};
use registry_actor::log::{SqliteLog, SqliteOptions};
use registry_actor::port::{AppendReply, AppendResult, BatchEvent, Head, Precondition, ProcessBatch, ProcessLog};
use tokio::sync::{mpsc, oneshot};

use super::measure::{Slice, closed_loop};
use super::registry_row::{bench_process, line};

/// As many as the registry decides together.
const TOGETHER: usize = 512;

/// One queue for each process: what waits in it goes as one batch, one batch at a time.
pub(super) struct BareLog {
    log: Arc<SqliteLog>,
    queues: Vec<mpsc::UnboundedSender<oneshot::Sender<()>>>,
}

impl BareLog {
    pub(super) async fn open(path: &Path, processes: usize) -> anyhow::Result<Self> {
        let log = Arc::new(SqliteLog::open(path, SqliteOptions::default())?);
        let mut queues = Vec::new();
        for process in BareProcess::register_all(&log, processes).await? {
            let (queue, waiting) = mpsc::unbounded_channel();
            tokio::spawn(process.serve(waiting));
            queues.push(queue);
        }
        Ok(Self { log, queues })
    }

    pub(super) async fn run(&self, callers: usize, duration: Duration) -> anyhow::Result<Slice> {
        let caller = |number: usize| {
            let queue = self.queues[number % self.queues.len()].clone();
            move || {
                let (answer, answered) = oneshot::channel();
                let sent = queue.send(answer);
                async move {
                    sent.ok().context("the process has ended")?;
                    answered.await.context("the log refused a batch")
                }
            }
        };
        closed_loop((0..callers).map(caller).collect(), duration).await
    }

    pub(super) async fn close(&self) {
        self.log.close().await;
    }
}

/// A process whose events go to the log as they are.
pub(super) struct BareProcess {
    log: Arc<SqliteLog>,
    state: ProcessState,
    head: Option<Head>,
}

impl BareProcess {
    /// Numbered from 0.
    pub(super) async fn register_all(log: &Arc<SqliteLog>, processes: usize) -> anyhow::Result<Vec<Self>> {
        let mut registered = Vec::with_capacity(processes);
        while registered.len() < processes {
            let next = (registered.len()..processes).take(TOGETHER);
            let registering: Vec<_> = next
                .map(|number| {
                    let log = Arc::clone(log);
                    tokio::spawn(async move { Self::register(&log, number).await })
                })
                .collect();
            for process in registering {
                registered.push(process.await??);
            }
        }
        Ok(registered)
    }

    async fn register(log: &Arc<SqliteLog>, number: usize) -> anyhow::Result<Self> {
        let registration = bench_process(number)?;
        let context = DecisionContext {
            epoch_ms: 0,
            monotonic_ms: 0,
            session: log.session().clone(),
            operation: OperationId { issuer: 0, number: number as u64 },
            observed: ObservedProcess::Unknown,
            wake: None,
            unfenced_writes: UnfencedWrites::default(),
        };
        let state = ProcessState::unregistered(registration.id.clone());
        let decision = decide(&state, &Command::Register { registration: Box::new(registration) }, &context)?;
        let mut process = Self { log: Arc::clone(log), state, head: None };
        process.store(decision.events).await?;
        Ok(process)
    }

    pub(super) const fn id(&self) -> &ProcessId {
        &self.state.process_id
    }

    /// Of its last event.
    pub(super) const fn sequence(&self) -> Sequence {
        self.state.sequence
    }

    async fn serve(mut self, mut waiting: mpsc::UnboundedReceiver<oneshot::Sender<()>>) -> anyhow::Result<()> {
        let mut group = Vec::new();
        while waiting.recv_many(&mut group, TOGETHER).await > 0 {
            let events = (1..=group.len() as u64).map(|ahead| self.next_event(ahead)).collect();
            self.store(events).await?;
            for caller in group.drain(..) {
                // A caller that has gone away no longer measures.
                let _ = caller.send(());
            }
        }
        Ok(())
    }

    fn next_event(&self, ahead: u64) -> Arc<ProcessEvent> {
        let request = line();
        Arc::new(ProcessEvent {
            process_id: self.state.process_id.clone(),
            sequence: Sequence(self.state.sequence.0 + ahead),
            event_type: Arc::from(request.event_type),
            payload: request.payload,
            replay_key: None,
            semantics: Default::default(),
            occurred_at_ms: 0,
            late: false,
        })
    }

    async fn store(&mut self, events: Vec<Arc<ProcessEvent>>) -> anyhow::Result<()> {
        let answered = self.submit(events, || {})?;
        self.stored(answered).await
    }

    /// Waits for the log's answer.
    pub(super) async fn stored(&mut self, answered: oneshot::Receiver<AppendResult>) -> anyhow::Result<()> {
        self.head = answered.await.context("the log has ended")??;
        Ok(())
    }

    /// Hands one more event to the log. `durable` is called on the writer's thread.
    pub(super) fn append(
        &mut self,
        durable: impl FnOnce() + Send + 'static,
    ) -> anyhow::Result<oneshot::Receiver<AppendResult>> {
        let event = self.next_event(1);
        self.submit(vec![event], durable)
    }

    /// The log is told of one batch at a time: the answer has to be awaited before the next.
    fn submit(
        &mut self,
        events: Vec<Arc<ProcessEvent>>,
        durable: impl FnOnce() + Send + 'static,
    ) -> anyhow::Result<oneshot::Receiver<AppendResult>> {
        let body_changed = self.state.record.is_none();
        for event in &events {
            self.state = apply(self.state.clone(), event);
        }
        let record = self.state.record.clone().context("the process is registered first")?;
        let expected = Precondition { head: self.head, lease_revision: 0 };
        let (answer, answered) = oneshot::channel();
        let batch = ProcessBatch {
            process_id: self.state.process_id.clone(),
            expected,
            events: events
                .into_iter()
                .map(|event| BatchEvent { operation: OperationId { issuer: 0, number: event.sequence.0 }, event })
                .collect(),
            deliveries: Vec::new(),
            record,
            body_changed,
            lease: None,
            urgent: false,
        };
        let reply = move |result| {
            durable();
            // A process that has gone away no longer measures.
            drop(answer.send(result));
        };
        self.log.submit(batch, AppendReply::new(reply));
        Ok(answered)
    }
}
