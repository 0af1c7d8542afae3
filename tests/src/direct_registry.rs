//! A registry without actors: each command loads, decides, submits and starts over on a conflict. It shows that the contract
//! rests on the log and on the pure core, and it is what the actors are compared with.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use registry_actor::actor::observe;
use registry_actor::domain::{
    Command, Decision, DecisionContext, ObservedProcess, OperationId, ProcessEvent, ProcessId, ProcessState, Receipt,
    RegistryCommand, RegistryReceipt, ReplayWindow, Sequence, UnfencedWrites, apply, decide,
};
use registry_actor::port::{
    AcrossError, Answer, AppendError, AppendReply, AppendResult, BatchEvent, Clock, DurabilityTier, Head, LogError,
    Precondition, ProcessBatch, ProcessLog, ProcessRegistry, Query, RegistryError, StoredProcess,
};
use tokio::sync::oneshot;

/// How often a command is decided anew because another writer came first.
const CONFLICTS_ALLOWED: usize = 1_000;

/// A registry that keeps nothing between two commands.
#[derive(Debug)]
pub struct DirectRegistry<C> {
    log: Arc<dyn ProcessLog>,
    clock: Arc<C>,
    unfenced_writes: UnfencedWrites,
    issuer: u64,
    calls: AtomicU64,
}

/// A process as one attempt sees it.
struct Loaded {
    state: ProcessState,
    head: Option<Head>,
}

impl<C: Clock> DirectRegistry<C> {
    /// A registry over a log. The issuer must be another for each registry that ever wrote to the store.
    pub const fn new(log: Arc<dyn ProcessLog>, clock: Arc<C>, issuer: u64) -> Self {
        Self { log, clock, unfenced_writes: UnfencedWrites::RefusedWhileLeased, issuer, calls: AtomicU64::new(0) }
    }

    /// The same under another policy for writes without a lease.
    #[must_use]
    pub const fn with_unfenced_writes(mut self, policy: UnfencedWrites) -> Self {
        self.unfenced_writes = policy;
        self
    }

    fn context(&self, operation: OperationId) -> DecisionContext {
        let now = self.clock.now();
        DecisionContext {
            epoch_ms: now.epoch_ms,
            monotonic_ms: now.monotonic_ms,
            session: self.log.session().clone(),
            operation,
            observed: ObservedProcess::Unknown,
            wake: None,
            unfenced_writes: self.unfenced_writes,
        }
    }

    fn next_operation(&self) -> OperationId {
        OperationId { issuer: self.issuer, number: self.calls.fetch_add(1, Ordering::Relaxed) }
    }

    /// What deciding the command needs to know of the process.
    async fn load(&self, process_id: &ProcessId, command: &Command) -> Result<Loaded, LogError> {
        let mut state = ProcessState::unregistered(process_id.clone());
        let Some(StoredProcess { record, head, lease, .. }) = self.log.load(process_id, 0).await? else {
            let query = Query::Tombstone { process_id: process_id.clone() };
            if let Answer::Tombstone(Some(tombstone)) = self.log.query(query).await? {
                state.pruned_generations = tombstone.generation;
            }
            return Ok(Loaded { state, head: None });
        };
        state.record = Some(record);
        state.sequence = head.sequence;
        state.body_sequence = head.sequence;
        state.lease = Arc::new(lease);
        state.replays = ReplayWindow::default();
        let keys = command.replay_keys(process_id);
        if !keys.is_empty() {
            for (key, stored) in self.log.find_replays(process_id, keys).await? {
                state.replays.resolve(key, stored);
            }
        }
        Ok(Loaded { state, head: Some(head) })
    }

    /// The event that an acknowledgement names.
    async fn wake(&self, state: &ProcessState, command: &Command) -> Result<Option<Arc<ProcessEvent>>, LogError> {
        let Some(sequence) = command.acknowledged_wake().filter(|_| state.record.is_some()) else { return Ok(None) };
        let Some(before) = sequence.0.checked_sub(1) else { return Ok(None) };
        let query = Query::Events { process_id: state.process_id.clone(), after: Sequence(before), limit: 1 };
        match self.log.query(query).await? {
            Answer::Events(page) => Ok(page.events.into_iter().find(|event| event.sequence == sequence)),
            other => panic!("the log answered events with {other:?}"),
        }
    }

    /// Stores what was decided. `None`: another writer came first.
    async fn store(
        &self,
        loaded: Loaded,
        decision: Decision,
        operation: OperationId,
        urgent: bool,
    ) -> Result<Option<Receipt>, RegistryError> {
        let Loaded { state, head } = loaded;
        let process_id = state.process_id.clone();
        let expected = Precondition { head, lease_revision: state.lease.revision };
        let (existed, before) = (state.record.is_some(), state.sequence);
        let state = decision.events.iter().fold(state, apply);
        if !decision.events.is_empty() || decision.lease.is_some() {
            let batch = ProcessBatch {
                process_id: process_id.clone(),
                expected,
                events: decision.events.into_iter().map(|event| BatchEvent { operation, event }).collect(),
                deliveries: decision.deliveries,
                record: state.record.clone().expect("only a registered process is written"),
                body_changed: !existed || state.body_sequence > before,
                lease: decision.lease,
                urgent,
            };
            match self.submit(batch).await {
                Ok(_) => {}
                Err(AppendError::Conflict) => return Ok(None),
                Err(AppendError::Busy { limit }) => return Err(RegistryError::Busy { limit }),
                Err(AppendError::Closed) => return Err(RegistryError::Closed),
                Err(AppendError::Unknown { reason }) => {
                    return Err(RegistryError::OutcomeUnknown { process_id, operation, reason });
                }
                Err(error) => return Err(RegistryError::NotStored { reason: error.to_string() }),
            }
        }
        Ok(Some(Receipt {
            record: state.record,
            events: decision.reply.events,
            lease: decision.reply.lease,
            deliveries: decision.reply.deliveries,
        }))
    }

    async fn submit(&self, batch: ProcessBatch) -> AppendResult {
        let (answer, answered) = oneshot::channel();
        self.log.submit(batch, AppendReply::new(move |result| drop(answer.send(result))));
        answered.await.expect("every batch is answered")
    }
}

#[async_trait]
impl<C: Clock> ProcessRegistry for DirectRegistry<C> {
    async fn execute(&self, process_id: &ProcessId, command: Command) -> Result<Receipt, RegistryError> {
        let operation = self.next_operation();
        for _ in 0..CONFLICTS_ALLOWED {
            let loaded = self.load(process_id, &command).await?;
            let observed = match &command {
                Command::ReclaimLease { .. } => loaded
                    .state
                    .lease
                    .holder
                    .as_ref()
                    .map_or(ObservedProcess::Unknown, |holder| observe(&holder.owner.liveness)),
                _ => ObservedProcess::Unknown,
            };
            let wake = self.wake(&loaded.state, &command).await?;
            let context = DecisionContext { observed, wake, ..self.context(operation) };
            let decision = decide(&loaded.state, &command, &context)?;
            if let Some(receipt) = self.store(loaded, decision, operation, command.is_urgent()).await? {
                return Ok(receipt);
            }
        }
        Err(RegistryError::NotStored { reason: AppendError::Conflict.to_string() })
    }

    async fn execute_across(&self, command: RegistryCommand) -> Result<RegistryReceipt, RegistryError> {
        let operation = self.next_operation();
        let name = command.name().to_owned();
        self.log.execute_across(command, self.context(operation)).await.map_err(|error| match error {
            AcrossError::Refused(refusal) => RegistryError::Refused(refusal),
            AcrossError::Read(error) => error.into(),
            AcrossError::Append(AppendError::Busy { limit }) => RegistryError::Busy { limit },
            AcrossError::Append(AppendError::Closed) => RegistryError::Closed,
            AcrossError::Append(AppendError::Unknown { reason }) => {
                RegistryError::AcrossOutcomeUnknown { command: name, operation, reason }
            }
            error => RegistryError::NotStored { reason: error.to_string() },
        })
    }

    async fn query(&self, query: Query) -> Result<Answer, RegistryError> {
        Ok(self.log.query(query).await?)
    }

    fn durability_tier(&self) -> DurabilityTier {
        self.log.durability()
    }
}
