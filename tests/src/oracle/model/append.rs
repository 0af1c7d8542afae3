//! Appends: the checks in their order, what an event means, and whom it wakes.

use std::sync::Arc;

use registry_actor::domain::{
    MaterializedTerminal, MaterializedWake, ProcessEvent, ProcessEventAppendRequest, ProcessEventSemantics,
    ProcessEventType, ProcessId, ProcessWakeDedupeKey, ProcessWakeDelivery, Receipt, ReceiptEvent, SessionScope,
    TerminalAuthority, WriteAuthority,
};

use super::{Model, No, Wake, is_internal, selection};

impl Model {
    pub(super) fn append(
        &mut self,
        id: &ProcessId,
        requests: &[ProcessEventAppendRequest],
        authority: &WriteAuthority,
        receipt: &mut Receipt,
    ) -> Result<(), No> {
        self.check_right(id, authority)?;
        for request in requests {
            let event = self.append_one(id, request, authority)?;
            let delivery = self.delivery(id, event.event(), request.wake_target_scope.as_ref())?;
            if let Some(delivery) = &delivery
                && event.is_inserted()
            {
                self.deliver(delivery);
            }
            receipt.events.push(event);
            receipt.deliveries.extend(delivery);
        }
        Ok(())
    }

    fn append_one(
        &mut self,
        id: &ProcessId,
        request: &ProcessEventAppendRequest,
        authority: &WriteAuthority,
    ) -> Result<ReceiptEvent, No> {
        if let Some(key) = &request.replay_key
            && selection::is_reserved(id, key.as_str(), &request.event_type)
        {
            return Err(No::new("reserved replay key"));
        }
        if let Some(stored) = self.stored_under(id, request.replay_key.as_ref())? {
            let same = *stored.event_type == *request.event_type && stored.payload == request.payload;
            return if same { Ok(ReceiptEvent::Replayed(stored)) } else { Err(No::new("replay conflict")) };
        }
        if is_internal(&request.event_type) {
            return Err(No::new("reserved event type"));
        }
        let registration = Arc::clone(&self.life(id)?.record.registration);
        let declared = registration.event_types.iter().find(|declared| declared.name == request.event_type);
        let declared = declared.ok_or_else(|| No::new("undeclared event type"))?;
        let needs_key = declared.semantics.terminal.is_some() || request.event_type == "process.cancel_requested";
        if needs_key && request.replay_key.is_none() {
            return Err(No::new("replay key required"));
        }
        if !selection::fits(declared.payload_schema.as_value(), &request.payload) {
            return Err(No::new("invalid payload"));
        }
        let semantics = self.meaning(id, declared, request, authority)?;
        self.store(id, &request.event_type, request.payload.clone(), request.replay_key.clone(), semantics)
            .map(ReceiptEvent::Inserted)
    }

    fn meaning(
        &self,
        id: &ProcessId,
        declared: &ProcessEventType,
        request: &ProcessEventAppendRequest,
        authority: &WriteAuthority,
    ) -> Result<ProcessEventSemantics, No> {
        let mut semantics = ProcessEventSemantics::default();
        if let Some(spec) = &declared.semantics.terminal {
            self.refuse_ended(id)?;
            self.check_sole_right(id, authority)?;
            let await_output = selection::outcome(&declared.name, spec, &request.payload)?;
            let authority = match (authority, &self.life(id)?.holder) {
                (WriteAuthority::Holder(fence), Some(holder)) => {
                    TerminalAuthority::Holder { owner: holder.owner.clone(), fencing_token: fence.fencing_token }
                }
                _ => TerminalAuthority::Unfenced,
            };
            semantics.terminal = Some(Box::new(MaterializedTerminal { state: spec.state, await_output, authority }));
        }
        if let Some(spec) = &declared.semantics.wake {
            let holds = match &spec.when {
                None => true,
                Some(when) => selection::select(when, &request.payload).is_ok_and(|value| selection::is_truthy(&value)),
            };
            if holds {
                let input = selection::text_of(&selection::select(&spec.input, &request.payload)?);
                let dedupe_key = match &spec.dedupe_key {
                    ProcessWakeDedupeKey::EventIdentity => format!("{id}:{}", self.life(id)?.events.len()),
                    ProcessWakeDedupeKey::Const(text) => text.clone(),
                    ProcessWakeDedupeKey::Selector(selector) => {
                        selection::text_of(&selection::select(selector, &request.payload)?)
                    }
                };
                semantics.wake = Some(Box::new(MaterializedWake { input, dedupe_key }));
            }
        }
        Ok(semantics)
    }

    /// Whom an event wakes: the target of the request, else that of the process as it is now.
    fn delivery(
        &self,
        id: &ProcessId,
        event: &ProcessEvent,
        requested: Option<&SessionScope>,
    ) -> Result<Option<ProcessWakeDelivery>, No> {
        let record = &self.life(id)?.record;
        let Some((wake, target)) = event.semantics.wake.as_ref().zip(requested.or(record.wake_target.as_deref()))
        else {
            return Ok(None);
        };
        Ok(Some(ProcessWakeDelivery {
            // The class of the wake id; which digest stands for it is the registry's affair.
            wake_id: format!("{}|{}", target.id(), wake.dedupe_key),
            target: target.clone(),
            target_session_id: target.session_id().to_owned(),
            target_scope_id: target.id(),
            process_id: id.clone(),
            sequence: event.sequence,
            event_type: event.event_type.to_string(),
            process_caused_by: record.registration.provenance.caused_by.clone(),
            dedupe_key: wake.dedupe_key.clone(),
            input: wake.input.clone(),
            created_at_ms: event.occurred_at_ms,
        }))
    }

    /// For one target and one wake id there is one delivery, settled or not.
    fn deliver(&mut self, delivery: &ProcessWakeDelivery) {
        let is_known =
            |wake: &Wake| wake.delivery.target == delivery.target && wake.delivery.wake_id == delivery.wake_id;
        if !self.wakes.iter().any(is_known) {
            self.wakes_made += 1;
            self.wakes.push(Wake { number: self.wakes_made, delivery: delivery.clone(), settled: false });
        }
    }
}
