//! Writes to a log as an actor would, without an actor: decides commands, builds batches, and installs what was stored.

use std::sync::Arc;

use registry_actor::domain::{
    Command, Decision, DecisionContext, LeaseOwnerIdentity, LeaseOwnerLiveness, ObservedProcess, OperationId,
    ProcessAwaitOutput, ProcessEventAppendRequest, ProcessEventType, ProcessHandleDescriptor, ProcessHandleGrant,
    ProcessId, ProcessIdentity, ProcessInput, ProcessOriginator, ProcessRegistration, ProcessState,
    ProcessValueSelector, ProcessWakeDedupeKey, ProcessWakeSpec, ProjectionWatermark, PruneFilter, RecoveryDisposition,
    RegistryCommand, RegistryReceipt, ReplayKey, Sequence, SessionScope, StoreSession, UnfencedWrites, WriteAuthority,
    apply, decide,
};
use registry_actor::port::{
    AcrossError, Answer, AppendReply, AppendResult, BatchEvent, Head, Precondition, ProcessBatch, ProcessLog, Query,
};
use serde_json::json;
use tokio::sync::oneshot;

/// The type of the events that an author appends.
pub const OUTPUT: &str = "output";

/// The sole writer of one process.
#[derive(Debug, Clone)]
pub struct Author {
    /// What it knows of the process.
    pub state: ProcessState,
    /// Where it believes the log of the process to end.
    pub head: Option<Head>,
    issuer: u64,
    calls: u64,
}

impl Author {
    /// An author of a process that is not registered yet.
    #[must_use]
    pub fn new(id: &str) -> Self {
        Self { state: ProcessState::unregistered(process_id(id)), head: None, issuer: 7, calls: 0 }
    }

    /// An author whose process is registered.
    pub async fn registered(log: &dyn ProcessLog, id: &str) -> Self {
        let mut author = Self::new(id);
        author.write(log, register(id)).await.expect("a registration");
        author
    }

    /// The process.
    #[must_use]
    pub const fn id(&self) -> &ProcessId {
        &self.state.process_id
    }

    /// The operation of the next batch.
    #[must_use]
    pub const fn next_operation(&self) -> OperationId {
        OperationId { issuer: self.issuer, number: self.calls + 1 }
    }

    /// The batch that these commands make, as one. Nothing is installed.
    pub fn batch(&mut self, commands: &[Command]) -> ProcessBatch {
        let mut scratch = self.state.clone();
        let mut events = Vec::new();
        let mut deliveries = Vec::new();
        let mut lease = None;
        for command in commands {
            self.calls += 1;
            let operation = OperationId { issuer: self.issuer, number: self.calls };
            let decision = decide(&scratch, command, &context(operation, self.calls)).expect("an accepted command");
            for event in decision.events {
                scratch = apply(scratch, &event);
                events.push(BatchEvent { operation, event });
            }
            deliveries.extend(decision.deliveries);
            if let Some(row) = decision.lease {
                scratch.lease = Arc::new(row.clone());
                lease = Some(row);
            }
        }
        ProcessBatch {
            process_id: self.state.process_id.clone(),
            expected: Precondition { head: self.head, lease_revision: self.state.lease.revision },
            body_changed: scratch.body_sequence != self.state.body_sequence || self.state.record.is_none(),
            record: scratch.record.expect("a registered process"),
            events,
            deliveries,
            lease,
            urgent: commands.iter().any(Command::is_urgent),
        }
    }

    /// Installs a stored batch.
    pub fn install(&mut self, batch: &ProcessBatch, head: Option<Head>) {
        for stored in &batch.events {
            self.state = apply(self.state.clone(), &stored.event);
        }
        self.state.replays.settle();
        if let Some(lease) = &batch.lease {
            self.state.lease = Arc::new(lease.clone());
        }
        self.head = head;
    }

    /// Stores what one command makes, and installs it if it was stored.
    ///
    /// # Errors
    /// What the log answers.
    pub async fn write(&mut self, log: &dyn ProcessLog, command: Command) -> AppendResult {
        let batch = self.batch(&[command]);
        let head = submit(log, batch.clone()).await?;
        self.install(&batch, head);
        Ok(head)
    }

    /// Acknowledges the wake of an event, as the log has it.
    pub async fn acknowledge(&mut self, log: &dyn ProcessLog, sequence: Sequence) {
        let asked =
            Query::Events { process_id: self.id().clone(), after: Sequence(sequence.0.saturating_sub(1)), limit: 1 };
        let wake = match log.query(asked).await.expect("an answer") {
            Answer::Events(page) => page.events.into_iter().next(),
            other => panic!("expected events, got {other:?}"),
        };
        self.calls += 1;
        let operation = OperationId { issuer: self.issuer, number: self.calls };
        let context = DecisionContext { wake, ..context(operation, self.calls) };
        let decision = decide(&self.state, &Command::AckWake { sequence }, &context).expect("an acknowledgement");
        let batch = self.batch_of(operation, decision);
        let head = submit(log, batch.clone()).await.expect("stored");
        self.install(&batch, head);
    }

    fn batch_of(&self, operation: OperationId, decision: Decision) -> ProcessBatch {
        let after = decision.events.iter().fold(self.state.clone(), apply);
        ProcessBatch {
            process_id: self.state.process_id.clone(),
            expected: Precondition { head: self.head, lease_revision: self.state.lease.revision },
            body_changed: after.body_sequence != self.state.body_sequence,
            record: after.record.expect("a registered process"),
            events: decision.events.into_iter().map(|event| BatchEvent { operation, event }).collect(),
            deliveries: decision.deliveries,
            lease: None,
            urgent: false,
        }
    }

    /// Appends so many plain events, each in a batch of its own.
    pub async fn write_outputs(&mut self, log: &dyn ProcessLog, count: u64) {
        for _ in 0..count {
            let number = self.state.sequence.0 + 1;
            self.write(log, output(number)).await.expect("an append");
        }
    }
}

/// Hands a batch over; the answer is awaited later.
pub fn submit_later(log: &dyn ProcessLog, batch: ProcessBatch) -> oneshot::Receiver<AppendResult> {
    let (answer, answered) = oneshot::channel();
    log.submit(
        batch,
        AppendReply::new(move |result| {
            let _ = answer.send(result);
        }),
    );
    answered
}

/// Hands a batch over and awaits its answer.
///
/// # Errors
/// What the log answers.
pub async fn submit(log: &dyn ProcessLog, batch: ProcessBatch) -> AppendResult {
    submit_later(log, batch).await.expect("every batch is answered")
}

/// An id that is known to be one.
#[must_use]
pub fn process_id(id: &str) -> ProcessId {
    ProcessId::new(id).expect("a process id")
}

/// A key that is known to be one.
#[must_use]
pub fn replay_key(key: &str) -> ReplayKey {
    ReplayKey::new(key).expect("a replay key")
}

/// Registers a process that declares [`OUTPUT`] and `result`.
#[must_use]
pub fn register(id: &str) -> Command {
    let registration = ProcessRegistration::new(
        process_id(id),
        ProcessInput::external(json!({ "label": id })),
        RecoveryDisposition::ExternallyOwned,
    )
    .with_extra_event_types([ProcessEventType::plain(OUTPUT), ProcessEventType::plain("result")]);
    Command::Register { registration: Box::new(registration) }
}

/// Appends a plain event.
#[must_use]
pub fn output(number: u64) -> Command {
    append(ProcessEventAppendRequest::new(OUTPUT, json!({ "number": number, "half": number as f64 / 2.0 })))
}

/// Appends a plain event under a key.
#[must_use]
pub fn keyed_output(key: &str) -> Command {
    append(ProcessEventAppendRequest::new(OUTPUT, json!({ "key": key })).with_replay_key(replay_key(key)))
}

/// Appends an event of the other type.
#[must_use]
pub fn result() -> Command {
    append(ProcessEventAppendRequest::new("result", json!("ünïcode \u{1f680} \"quoted\" \\ 1e300")))
}

/// Appends whatever is asked for, without a lease.
#[must_use]
pub fn append(request: ProcessEventAppendRequest) -> Command {
    Command::Append { events: vec![request], authority: WriteAuthority::Unfenced }
}

/// Asks that the process stop: an event that goes ahead of plain ones.
#[must_use]
pub fn cancel() -> Command {
    Command::RequestCancel { reason: Some("enough".to_owned()) }
}

/// Ends the process well.
#[must_use]
pub fn complete() -> Command {
    Command::Complete {
        output: ProcessAwaitOutput::success(json!({ "answer": 42 })),
        authority: WriteAuthority::Unfenced,
        lease: registry_actor::domain::LeaseRelease::Keep,
    }
}

/// Takes the lease: no event.
#[must_use]
pub fn claim() -> Command {
    Command::ClaimLease {
        owner: LeaseOwnerIdentity {
            owner_id: "worker".to_owned(),
            incarnation_id: "one".to_owned(),
            liveness: LeaseOwnerLiveness::default(),
        },
        ttl_ms: 30_000,
    }
}

/// The type of the events that wake.
pub const ALARM: &str = "alarm";

/// Registers a process that is found by everything that lists search by, and whose alarms wake a session.
#[must_use]
pub fn waking_registration(id: &str, target: SessionScope) -> Command {
    let mut alarm = ProcessEventType::plain(ALARM);
    alarm.semantics.wake = Some(ProcessWakeSpec {
        when: None,
        input: ProcessValueSelector::Payload,
        dedupe_key: ProcessWakeDedupeKey::EventIdentity,
    });
    let mut registration = ProcessRegistration::new(
        process_id(id),
        ProcessInput::external(json!({ "label": id })),
        RecoveryDisposition::ExternallyOwned,
    )
    .with_extra_event_types([ProcessEventType::plain(OUTPUT), alarm])
    .with_tags(["one", "two"]);
    registration.identity = ProcessIdentity {
        kind: "watch".to_owned(),
        label: Some("label".to_owned()),
        definition: Some(json!({ "a": 2, "b": [1] })),
    };
    registration.provenance.originator = ProcessOriginator::Session { scope: SessionScope::frame("asker", "frame") };
    registration.wake_target = Some(target);
    Command::Register { registration: Box::new(registration) }
}

/// Appends an event that wakes.
#[must_use]
pub fn alarm(number: u64) -> Command {
    append(ProcessEventAppendRequest::new(ALARM, json!({ "alarm": number })))
}

/// Carries out a command that concerns several processes.
///
/// # Errors
/// What the log answers.
pub async fn across(log: &dyn ProcessLog, command: RegistryCommand) -> Result<RegistryReceipt, AcrossError> {
    log.execute_across(command, context(OperationId { issuer: 8, number: 1 }, 1_000)).await
}

/// Lets a session address a process.
#[must_use]
pub fn grant(session: &str, id: &str) -> RegistryCommand {
    let scope = SessionScope::session(session);
    let grant = ProcessHandleGrant::new(scope, process_id(id), ProcessHandleDescriptor::default());
    RegistryCommand::GrantHandle { grant }
}

/// Removes everything that has ended.
#[must_use]
pub fn prune() -> RegistryCommand {
    RegistryCommand::Prune {
        filter: PruneFilter::ended_before(u64::MAX),
        watermark: ProjectionWatermark::NoProjector,
        limit: 100,
    }
}

fn context(operation: OperationId, calls: u64) -> DecisionContext {
    DecisionContext {
        epoch_ms: 1_700_000_000_000 + calls,
        monotonic_ms: calls,
        session: StoreSession { store_id: "store".into(), number: 1 },
        operation,
        observed: ObservedProcess::default(),
        wake: None,
        unfenced_writes: UnfencedWrites::Allowed,
    }
}
