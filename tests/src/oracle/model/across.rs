//! Commands that concern several processes.

use std::collections::BTreeSet;

use registry_actor::domain::{
    ProcessAwaitOutput, ProcessHandleGrant, ProcessId, ProcessPruneReport, ProcessSessionDeleteReport, PruneFilter,
    RegistryCommand, RegistryReceipt, SessionDeletion, SessionScope, Tombstone,
};

use super::{Change, Model, No};

/// How far a prune's projector has come. Cursors are opaque; whoever took one knows how many changes it had seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Projected {
    /// So many changes of the store.
    Through(usize),
    /// Nobody projects.
    Everything,
}

impl Model {
    /// Carries a command across processes out.
    ///
    /// # Errors
    /// The class of the refusal; nothing has changed.
    pub fn execute_across(&mut self, command: &RegistryCommand, projected: Projected) -> Result<RegistryReceipt, No> {
        match command {
            RegistryCommand::GrantHandle { grant } => {
                check_scope(&grant.scope)?;
                self.life(&grant.process_id)?;
                self.grants.insert((grant.scope.clone(), grant.process_id.clone()), grant.descriptor.clone());
                Ok(RegistryReceipt::Granted(grant.clone()))
            }
            RegistryCommand::RevokeHandle { scope, process_id } => {
                let removed = self.grants.remove(&(scope.clone(), process_id.clone()));
                Ok(RegistryReceipt::Revoked(removed.is_some()))
            }
            RegistryCommand::TransferHandleGrants { from, to, process_ids } => {
                self.transfer(from, to, process_ids.iter().cloned().collect()).map(RegistryReceipt::Transferred)
            }
            RegistryCommand::DeleteSession { session_id } => {
                check_scope(&SessionScope::session(session_id.clone()))?;
                Ok(RegistryReceipt::SessionDeleted(self.delete_session(session_id)))
            }
            RegistryCommand::Prune { limit: 0, .. } => Err(No::new("empty page")),
            RegistryCommand::Prune { filter, limit, .. } => {
                Ok(RegistryReceipt::Pruned(self.prune(filter, projected, u64::from(*limit))))
            }
            other => panic!("the model does not know {other:?}"),
        }
    }

    fn transfer(
        &mut self,
        from: &SessionScope,
        to: &SessionScope,
        ids: BTreeSet<ProcessId>,
    ) -> Result<Vec<ProcessHandleGrant>, No> {
        check_scope(to)?;
        if ids.iter().any(|id| !self.grants.contains_key(&(from.clone(), id.clone()))) {
            return Err(No::new("handle not granted"));
        }
        let mut moved = Vec::new();
        for id in ids {
            if let Some(descriptor) = self.grants.remove(&(from.clone(), id.clone())) {
                self.grants.insert((to.clone(), id.clone()), descriptor.clone());
                moved.push(ProcessHandleGrant { scope: to.clone(), process_id: id, descriptor });
            }
        }
        Ok(moved)
    }

    fn delete_session(&mut self, session_id: &str) -> ProcessSessionDeleteReport {
        let is_of_session = |scope: &SessionScope| scope.session_id() == session_id;
        let removed: Vec<_> = self.grants.keys().filter(|(scope, _)| is_of_session(scope)).cloned().collect();
        let mut report = ProcessSessionDeleteReport {
            session_id: session_id.to_owned(),
            revoked_handle_count: removed.len() as u64,
            ..ProcessSessionDeleteReport::default()
        };
        self.grants.retain(|(scope, _), _| !is_of_session(scope));
        for id in removed.into_iter().map(|(_, id)| id).collect::<BTreeSet<ProcessId>>() {
            if self.lives[&id].record.status.await_output().is_some() {
                continue;
            }
            if self.grants.keys().any(|(_, granted)| *granted == id) {
                report.preserved_process_ids.push(id);
            } else {
                report.orphaned_process_ids.push(id);
            }
        }
        let events_before = self.feed.len();
        let ids: Vec<ProcessId> = self.lives.keys().cloned().collect();
        for id in ids {
            let record = &mut self.lives.get_mut(&id).expect("it is listed").record;
            if record.wake_target.as_ref().is_some_and(|target| is_of_session(target)) {
                record.wake_target = None;
                self.fact(&id, "process.wake_target_cleared").expect("it is listed");
            }
        }
        for wake in self.wakes.iter_mut().filter(|wake| !wake.settled && is_of_session(&wake.delivery.target)) {
            wake.settled = true;
            report.deleted_wake_count += 1;
        }
        // The feed tells changes: a session of which nothing was known is none.
        if self.feed.len() > events_before || report.revoked_handle_count + report.deleted_wake_count > 0 {
            self.feed.push(Change::SessionDeleted(SessionDeletion {
                session_id: session_id.to_owned(),
                revoked_handle_count: report.revoked_handle_count,
                deleted_wake_count: report.deleted_wake_count,
                deleted_at_ms: self.now.epoch_ms,
            }));
        }
        report
    }

    /// Oldest endings first. What stays is counted as far as the command has come.
    fn prune(&mut self, filter: &PruneFilter, projected: Projected, limit: u64) -> ProcessPruneReport {
        let mut ended: Vec<(usize, Tombstone)> = Vec::new();
        for (id, life) in &self.lives {
            let record = &life.record;
            if let (Some(outcome), Some(terminal_at_ms)) = (record.status.await_output(), record.terminal_at_ms)
                && terminal_at_ms < filter.terminal_before_ms
                && filter.state.is_none_or(|state| state == ProcessAwaitOutput::terminal_state(outcome))
                && filter.kind.as_ref().is_none_or(|kind| *kind == record.registration.identity.kind)
                && filter.tags.iter().all(|tag| record.registration.tags.contains(tag))
            {
                let tombstone = Tombstone {
                    process_id: id.clone(),
                    generation: record.generation,
                    terminal_state: outcome.terminal_state(),
                    created_at_ms: record.created_at_ms,
                    terminal_at_ms,
                    pruned_at_ms: self.now.epoch_ms,
                };
                ended.push((life.first_change, tombstone));
            }
        }
        ended.sort_by_key(|(registered, tombstone)| (tombstone.terminal_at_ms, *registered));
        let mut report = ProcessPruneReport::default();
        for (_, tombstone) in ended {
            let life = &self.lives[&tombstone.process_id];
            if matches!(projected, Projected::Through(seen) if life.last_change > seen) {
                report.kept_unprojected += 1;
            } else if life.holder.as_ref().is_some_and(|holder| self.is_live(holder)) {
                report.kept_leased += 1;
            } else if report.pruned_processes == limit {
                report.more = true;
                break;
            } else {
                report.pruned_processes += 1;
                report.pruned_events += life.events.len() as u64 - 1;
                self.bury(tombstone);
            }
        }
        report
    }

    fn bury(&mut self, tombstone: Tombstone) {
        let id = &tombstone.process_id;
        self.lives.remove(id);
        self.grants.retain(|(_, granted), _| granted != id);
        self.wakes.retain(|wake| wake.delivery.process_id != *id);
        self.tombstones.insert(id.clone(), tombstone.clone());
        self.feed.push(Change::Pruned(tombstone));
    }
}

fn check_scope(scope: &SessionScope) -> Result<(), No> {
    if scope.session_id().trim().is_empty() { Err(No::new("empty name")) } else { Ok(()) }
}
