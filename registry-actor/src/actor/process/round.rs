//! A round: the commands that are decided together and go to the log as one batch.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::super::envelope::Envelope;
use super::super::environment::Environment;
use crate::domain::{
    Command, DecisionContext, LeaseRow, ObservedProcess, OperationId, ProcessEvent, ProcessState, ProcessWakeDelivery,
    Receipt, Refusal, Sequence, apply, decide,
};
use crate::liveness::observe;
use crate::port::{BatchEvent, FaultPoint, RegistryError};

/// The events that acknowledgements of a round name, as the log has them.
pub(super) type Wakes = HashMap<Sequence, Arc<ProcessEvent>>;

/// Commands that were decided together.
pub(super) struct Round {
    /// The state after the round.
    pub(super) scratch: ProcessState,
    pub(super) events: Vec<BatchEvent>,
    pub(super) deliveries: Vec<ProcessWakeDelivery>,
    pub(super) lease: Option<LeaseRow>,
    pub(super) urgent: bool,
    decided: Vec<(Envelope, Result<Receipt, RegistryError>)>,
}

/// Decides the commands one after the other, each on what the ones before it left. Also answers how many of the
/// decisions panicked: each of them is one refused command, and nothing else.
pub(super) fn decide_round(
    state: &ProcessState,
    commands: VecDeque<Envelope>,
    wakes: &Wakes,
    environment: &Environment,
) -> (Round, usize) {
    let mut round = Round {
        scratch: state.clone(),
        events: Vec::with_capacity(commands.len()),
        deliveries: Vec::new(),
        lease: None,
        urgent: false,
        decided: Vec::with_capacity(commands.len()),
    };
    let mut panicked = 0;
    for envelope in commands {
        let step = catch_unwind(AssertUnwindSafe(|| {
            environment.reached(FaultPoint::Decide, &state.process_id);
            round.step(&envelope, wakes, environment)
        }));
        let result = step.unwrap_or_else(|panic| {
            panicked += 1;
            Err(RegistryError::Refused(Refusal::DecisionPanicked {
                process_id: state.process_id.clone(),
                message: panic_message(&*panic),
            }))
        });
        round.decided.push((envelope, result));
    }
    (round, panicked)
}

impl Round {
    /// Decides one command. The round changes at the end only: a panic before leaves it as it was.
    fn step(
        &mut self,
        envelope: &Envelope,
        wakes: &Wakes,
        environment: &Environment,
    ) -> Result<Receipt, RegistryError> {
        let call = &envelope.call;
        let observed = match &call.command {
            // That of the holder as it is stored, of whom it is judged: what the caller has seen of it may be out of date.
            Command::ReclaimLease { .. } => self
                .scratch
                .lease
                .holder
                .as_ref()
                .map_or(ObservedProcess::Unknown, |holder| observe(&holder.owner.liveness)),
            _ => ObservedProcess::Unknown,
        };
        let wake = call.command.acknowledged_wake().and_then(|sequence| wakes.get(&sequence).cloned());
        let context = DecisionContext { wake, ..environment.context(call.operation, observed) };
        let decision = decide(&self.scratch, &call.command, &context)?;
        if decision.events.is_empty() && decision.lease.is_none() {
            return Ok(Receipt {
                record: self.scratch.record.clone(),
                events: decision.reply.events,
                lease: decision.reply.lease,
                deliveries: decision.reply.deliveries,
            });
        }
        let mut scratch = self.scratch.clone();
        for event in &decision.events {
            scratch = apply(scratch, event);
        }
        if let Some(lease) = &decision.lease {
            scratch.lease = Arc::new(lease.clone());
        }
        self.scratch = scratch;
        self.events.extend(decision.events.into_iter().map(|event| BatchEvent { operation: call.operation, event }));
        self.deliveries.extend(decision.deliveries);
        self.lease = decision.lease.or_else(|| self.lease.take());
        self.urgent |= call.command.is_urgent();
        Ok(Receipt {
            record: self.scratch.record.clone(),
            events: decision.reply.events,
            lease: decision.reply.lease,
            deliveries: decision.reply.deliveries,
        })
    }

    pub(super) const fn writes_nothing(&self) -> bool {
        self.events.is_empty() && self.lease.is_none()
    }

    pub(super) fn mark_submitted(&self, first: Sequence) {
        let generation = self.scratch.record.as_ref().map_or(0, |record| record.generation);
        for (envelope, _) in &self.decided {
            envelope.call.mark_submitted(first, generation);
        }
    }

    pub(super) fn mark_conflicted(&self) {
        for (envelope, _) in &self.decided {
            envelope.call.mark_conflicted();
        }
    }

    pub(super) fn mark_lost(&self) {
        for (envelope, _) in &self.decided {
            envelope.call.mark_lost();
        }
    }

    /// The log said that nothing of the round is stored, and whatever an earlier incarnation submitted was settled
    /// before this one loaded.
    pub(super) fn mark_not_stored(&self) {
        for (envelope, _) in &self.decided {
            envelope.call.mark_not_stored();
        }
    }

    /// Answers every command with what was decided.
    pub(super) fn answer(self) {
        for (envelope, result) in self.decided {
            envelope.answer(result);
        }
    }

    /// Answers every command with an error: nothing of the round happened, and what a later command was told rested on
    /// what an earlier one would have done.
    pub(super) fn answer_all(self, error: &impl Fn(OperationId) -> RegistryError) {
        for (envelope, _) in self.decided {
            let operation = envelope.call.operation;
            envelope.answer(Err(error(operation)));
        }
    }

    /// The commands, to be decided again.
    pub(super) fn into_commands(self) -> impl DoubleEndedIterator<Item = Envelope> {
        self.decided.into_iter().map(|(envelope, _)| envelope)
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|message| (*message).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
