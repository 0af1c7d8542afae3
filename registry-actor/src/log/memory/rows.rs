//! The rows of the log in memory, as commands across processes see them. Its lock is the transaction: what is refused is
//! refused before anything is written.

use std::sync::Arc;

use super::store::{Entry, Store};
use crate::domain::{
    ChangeCursor, ProcessHandleGrant, ProcessId, ProcessRecord, PruneFilter, SessionDeletion, SessionScope, Tombstone,
};
use crate::log::across::{EndedPage, EndedRows, PruneCandidate, PruneMark, Rows, StoredRow};
use crate::log::codec;
use crate::port::{AcrossError, AppendError, GroupChanges, LogError, ProcessBatch};

/// The store, and what followers are to hear.
pub(super) struct AcrossRows<'store> {
    pub(super) store: &'store mut Store,
    pub(super) changes: GroupChanges,
}

impl AcrossRows<'_> {
    fn mark<T: serde::Serialize>(mark: &T) -> Result<[u8; 8], AcrossError> {
        let (_, checksum) =
            codec::encode_mark(mark).map_err(|malformed| AppendError::NotAccepted { reason: malformed.to_string() })?;
        Ok(checksum.short())
    }
}

impl EndedRows for AcrossRows<'_> {
    type Error = AcrossError;

    fn is_damage(error: &AcrossError) -> bool {
        matches!(error, AcrossError::Read(LogError::Damaged { .. }))
    }

    fn process(&mut self, process_id: &ProcessId) -> Result<Option<StoredRow>, AcrossError> {
        Ok(self.store.processes.get(process_id).map(|process| StoredRow {
            record: Arc::clone(&process.record),
            head: process.head(),
            lease: process.lease.clone(),
            position: process.events.last().map_or(0, |last| last.position),
        }))
    }

    fn check_cursor(&mut self, cursor: &ChangeCursor) -> Result<(), AcrossError> {
        Ok(self.store.check_cursor(cursor)?)
    }

    fn ended(&mut self, filter: &PruneFilter, after: Option<PruneMark>, step: usize) -> Result<EndedPage, AcrossError> {
        let is_meant = |record: &ProcessRecord| {
            record.status.terminal_state().is_some_and(|state| filter.means(state, &record.registration))
        };
        let mut ended: Vec<PruneCandidate> = self
            .store
            .processes
            .iter()
            .filter(|(_, process)| is_meant(&process.record))
            .filter_map(|(process_id, process)| {
                let terminal_at_ms = process.record.terminal_at_ms?;
                Some(PruneCandidate {
                    mark: PruneMark { terminal_at_ms, tie: process.events.first()?.position },
                    process_id: process_id.clone(),
                    position: process.events.last()?.position,
                })
            })
            .filter(|candidate| {
                candidate.mark.terminal_at_ms <= filter.terminal_before_ms
                    && after.is_none_or(|after| candidate.mark > after)
            })
            .collect();
        ended.sort_by_key(|candidate| candidate.mark);
        let has_more = ended.len() > step;
        ended.truncate(step);
        let next = ended.last().filter(|_| has_more).map(|last| last.mark);
        Ok(EndedPage { candidates: ended, damaged: 0, next })
    }
}

impl Rows for AcrossRows<'_> {
    fn has_ended(&mut self, process_id: &ProcessId) -> Result<Option<bool>, AcrossError> {
        Ok(self.store.processes.get(process_id).map(|process| process.record.status.is_terminal()))
    }

    fn append(&mut self, batch: ProcessBatch) -> Result<(), AcrossError> {
        let batch =
            codec::encode(batch).map_err(|malformed| AppendError::NotAccepted { reason: malformed.to_string() })?;
        self.store.store(batch, &mut self.changes.batches)?;
        Ok(())
    }

    fn grant(
        &mut self,
        scope: &SessionScope,
        process_id: &ProcessId,
    ) -> Result<Option<ProcessHandleGrant>, AcrossError> {
        Ok(self.store.grant(scope, process_id))
    }

    fn put_grant(&mut self, grant: &ProcessHandleGrant) -> Result<(), AcrossError> {
        let of_scope = self.store.grants.entry(grant.scope.clone()).or_default();
        of_scope.insert(grant.process_id.clone(), grant.descriptor.clone());
        Ok(())
    }

    fn remove_grant(&mut self, scope: &SessionScope, process_id: &ProcessId) -> Result<bool, AcrossError> {
        let Some(of_scope) = self.store.grants.get_mut(scope) else { return Ok(false) };
        Ok(of_scope.remove(process_id).is_some())
    }

    fn grants_of_session(&mut self, session_id: &str) -> Result<Vec<(SessionScope, ProcessId)>, AcrossError> {
        let of_session = self.store.grants.iter().filter(|(scope, _)| scope.session_id() == session_id);
        Ok(of_session
            .flat_map(|(scope, granted)| granted.keys().map(|process_id| (scope.clone(), process_id.clone())))
            .collect())
    }

    fn is_granted(&mut self, process_id: &ProcessId) -> Result<bool, AcrossError> {
        Ok(self.store.grants.values().any(|granted| granted.contains_key(process_id)))
    }

    fn woken_by(&mut self, session_id: &str) -> Result<Vec<ProcessId>, AcrossError> {
        let processes = self.store.processes.iter();
        Ok(processes
            .filter(|(_, process)| {
                process.record.wake_target.as_ref().is_some_and(|target| target.session_id() == session_id)
            })
            .map(|(process_id, _)| process_id.clone())
            .collect())
    }

    fn settle_wakes(&mut self, session_id: &str) -> Result<u64, AcrossError> {
        Ok(self.store.wakes.settle_session(session_id))
    }

    fn note_session_deleted(&mut self, deletion: &SessionDeletion) -> Result<(), AcrossError> {
        let link = Self::mark(deletion)?;
        self.store.order.push(Entry::SessionDeleted { deletion: deletion.clone(), link });
        self.changes.sessions_deleted.push(deletion.clone());
        Ok(())
    }

    fn prune(&mut self, tombstone: &Tombstone) -> Result<u64, AcrossError> {
        let process_id = &tombstone.process_id;
        let link = Self::mark(tombstone)?;
        let Some(process) = self.store.processes.remove(process_id) else { return Ok(0) };
        for stored in &process.events {
            self.store.entry_is_gone(stored.position);
            self.store.wakes.remove(stored.position);
        }
        self.store.grants.retain(|_, granted| {
            granted.remove(process_id);
            !granted.is_empty()
        });
        let older =
            self.store.order.iter().position(
                |entry| matches!(entry, Entry::Pruned { tombstone, .. } if tombstone.process_id == *process_id),
            );
        if let Some(index) = older {
            self.store.entry_is_gone(index as u64 + 1);
        }
        self.store.order.push(Entry::Pruned { tombstone: tombstone.clone(), link });
        self.store.tombstones.insert(process_id.clone(), tombstone.clone());
        self.changes.pruned.push(tombstone.clone());
        Ok(process.events.len() as u64 - 1)
    }
}

impl Store {
    pub(super) fn entry_is_gone(&mut self, position: u64) {
        let index = usize::try_from(position).unwrap_or(usize::MAX).saturating_sub(1);
        if let Some(entry) = self.order.get_mut(index) {
            *entry = Entry::Gone;
        }
    }

    pub(super) fn grant(&self, scope: &SessionScope, process_id: &ProcessId) -> Option<ProcessHandleGrant> {
        let descriptor = self.grants.get(scope)?.get(process_id)?;
        Some(ProcessHandleGrant::new(scope.clone(), process_id.clone(), descriptor.clone()))
    }
}
