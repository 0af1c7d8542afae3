//! Reading what is known of a process, for the decision about its next step.

use std::sync::Arc;

use super::executors::ProcessExecutors;
use super::options::WorkerOptions;
use crate::actor::observe;
use crate::domain::{
    CoreEventType, Death, LeaseOwnerIdentity, LeaseSituation, ParentEndRule, ParentSituation, ProcessId, ProcessLease,
    ProcessRecord, ProcessSituation, Sequence,
};
use crate::port::{ProcessRegistry, ProcessRegistryExt, RegistryError, Timestamp};

/// Where a situation is read, and by whom.
#[derive(Clone, Copy)]
pub(super) struct Observer<'worker> {
    pub(super) registry: &'worker dyn ProcessRegistry,
    pub(super) executors: &'worker ProcessExecutors,
    pub(super) options: &'worker WorkerOptions,
}

impl Observer<'_> {
    /// What is known of a process now, its lease as it is stored.
    pub(super) async fn observe<'record>(
        &self,
        record: &'record ProcessRecord,
    ) -> Result<ProcessSituation<'record>, RegistryError> {
        let lease = match self.registry.get_process_lease(record.id()).await? {
            None => LeaseSituation::Free,
            Some(lease) => self.lease_situation(lease),
        };
        self.situation(record, lease).await
    }

    /// What is known of a process whose lease was just claimed.
    pub(super) async fn observe_claimed<'record>(
        &self,
        record: &'record ProcessRecord,
        displaced: Option<&ProcessLease>,
    ) -> Result<ProcessSituation<'record>, RegistryError> {
        let lease = displaced.map_or(LeaseSituation::Free, |lease| LeaseSituation::Lapsed {
            owner: lease.owner.clone(),
            death: self.death_of(&lease.owner),
        });
        self.situation(record, lease).await
    }

    async fn situation<'record>(
        &self,
        record: &'record ProcessRecord,
        lease: LeaseSituation,
    ) -> Result<ProcessSituation<'record>, RegistryError> {
        Ok(ProcessSituation {
            starter: record.first_started.as_ref().map_or(Death::Unproved, |started| self.death_of(&started.owner)),
            cancel_requested: self.is_cancel_requested(record.id()).await?,
            parent: self.parent_of(record).await?,
            has_executor: self.executors.of(&record.registration.input.kind).is_some(),
            now_epoch_ms: self.now().epoch_ms,
            record,
            lease,
        })
    }

    fn lease_situation(&self, lease: ProcessLease) -> LeaseSituation {
        let (now, session) = (self.now(), self.options.session.as_ref());
        // Within the session that granted it the monotonic clock decides, as it does at the store.
        let remaining_ms = if session == Some(&lease.granted_in) {
            lease.expires_at_monotonic_ms.saturating_sub(now.monotonic_ms)
        } else {
            lease.expires_at_epoch_ms.saturating_sub(now.epoch_ms)
        };
        let death = self.death_of(&lease.owner);
        if remaining_ms == 0 {
            LeaseSituation::Lapsed { owner: lease.owner, death }
        } else {
            LeaseSituation::Held { lease: Box::new(lease), remaining_ms, death }
        }
    }

    /// Whether the death of an owner is proved, by what the store's session and the operating system tell.
    pub(super) fn death_of(&self, owner: &LeaseOwnerIdentity) -> Death {
        let Some(session) = self.options.session.as_ref() else {
            return Death::Unproved;
        };
        let observed = observe(&owner.liveness);
        if owner.liveness.is_definitely_dead_for(&self.options.owner.liveness, session, &observed) {
            Death::Proved
        } else {
            Death::Unproved
        }
    }

    async fn is_cancel_requested(&self, process_id: &ProcessId) -> Result<bool, RegistryError> {
        let event_type = CoreEventType::CancelRequested.name();
        let request = self.registry.first_event_of_type(process_id, event_type, Sequence::REGISTRATION).await;
        match request {
            Ok(request) => Ok(request.is_some()),
            // Pruned meanwhile: then its record is the last that is known of it.
            Err(RegistryError::Refused(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn parent_of(&self, record: &ProcessRecord) -> Result<ParentSituation, RegistryError> {
        let parent = record.registration.parent.as_ref().filter(|parent| parent.on_end == ParentEndRule::RequestCancel);
        let Some(parent) = parent else {
            return Ok(ParentSituation::None);
        };
        let found: Option<Arc<ProcessRecord>> = self.registry.get_process(&parent.process_id).await?;
        Ok(match found {
            // What was pruned had ended.
            None if self.registry.get_tombstone(&parent.process_id).await?.is_some() => ParentSituation::Ended,
            None => ParentSituation::None,
            Some(parent) if parent.status.is_terminal() => ParentSituation::Ended,
            Some(parent) if self.is_cancel_requested(parent.id()).await? => ParentSituation::CancelRequested,
            Some(_) => ParentSituation::Running,
        })
    }

    pub(super) fn now(&self) -> Timestamp {
        self.options.clock.now()
    }
}
