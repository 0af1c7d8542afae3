//! Leases: at most one holder, told apart by a fence that grows.

use registry_actor::domain::{
    Fence, LeaseOwnerIdentity, LeaseOwnerLiveness, LeaseToken, ProcessId, ProcessLease, ProcessLeaseClaimOutcome,
};

use super::{Hint, Model, No};

impl Model {
    /// Within the session that granted or renewed it the monotonic clock decides, outside of it the wall clock.
    pub(super) fn is_live(&self, lease: &ProcessLease) -> bool {
        if lease.granted_in == self.session {
            self.now.monotonic_ms < lease.expires_at_monotonic_ms
        } else {
            self.now.epoch_ms < lease.expires_at_epoch_ms
        }
    }

    pub(super) fn claim(
        &mut self,
        id: &ProcessId,
        owner: &LeaseOwnerIdentity,
        ttl_ms: u64,
        hint: &Hint,
    ) -> Result<ProcessLeaseClaimOutcome, No> {
        self.refuse_ended(id)?;
        match self.life(id)?.holder.clone() {
            Some(holder) if self.is_live(&holder) && is_same(&holder.owner, owner) => self.prolong(id, &holder, ttl_ms),
            Some(holder) if self.is_live(&holder) => Ok(ProcessLeaseClaimOutcome::Busy { holder }),
            _ => self.acquire(id, owner, ttl_ms, hint),
        }
    }

    /// Only proof ends a lease in force; without one, this is a claim.
    pub(super) fn reclaim(
        &mut self,
        id: &ProcessId,
        owner: &LeaseOwnerIdentity,
        observed: &ProcessLease,
        ttl_ms: u64,
        hint: &Hint,
    ) -> Result<ProcessLeaseClaimOutcome, No> {
        self.refuse_ended(id)?;
        let Some(holder) = self.life(id)?.holder.clone().filter(|holder| self.is_live(holder)) else {
            return self.acquire(id, owner, ttl_ms, hint);
        };
        let is_observed = observed.process_id == *id
            && is_same(&observed.owner, &holder.owner)
            && observed.lease_token == holder.lease_token
            && observed.fencing_token == holder.fencing_token;
        if is_observed && self.is_dead(&holder.owner) {
            self.acquire(id, owner, ttl_ms, hint)
        } else {
            Ok(ProcessLeaseClaimOutcome::Busy { holder })
        }
    }

    pub(super) fn renew(
        &mut self,
        id: &ProcessId,
        lease: &ProcessLease,
        ttl_ms: u64,
    ) -> Result<ProcessLeaseClaimOutcome, No> {
        match self.life(id)?.holder.clone() {
            Some(holder)
                if self.is_live(&holder)
                    && is_same(&holder.owner, &lease.owner)
                    && holder.lease_token == lease.lease_token
                    && holder.fencing_token == lease.fencing_token =>
            {
                self.prolong(id, &holder, ttl_ms)
            }
            _ => Err(No::new("lease lost")),
        }
    }

    /// A stale, repeated or unknown release changes nothing.
    pub(super) fn release(&mut self, id: &ProcessId, token: &LeaseToken) {
        if let Some(life) = self.lives.get_mut(id)
            && life.holder.as_ref().is_some_and(|holder| holder.lease_token == *token)
        {
            life.holder = None;
        }
    }

    fn acquire(
        &mut self,
        id: &ProcessId,
        owner: &LeaseOwnerIdentity,
        ttl_ms: u64,
        hint: &Hint,
    ) -> Result<ProcessLeaseClaimOutcome, No> {
        // A token that was seen before is no token of a new acquisition: the answers then differ.
        let fresh = hint.token.clone().filter(|token| self.tokens.insert(token.clone()));
        let lease_token = fresh.unwrap_or_else(|| LeaseToken::new("a fresh token").expect("a token"));
        let (now, session) = (self.now, self.session.clone());
        let life = self.life_mut(id)?;
        life.fence += 1;
        let displaced = life.holder.take().map(Box::new);
        let lease = ProcessLease {
            schema_version: 2,
            process_id: id.clone(),
            owner: owner.clone(),
            lease_token,
            fencing_token: Fence(life.fence),
            claimed_at_epoch_ms: now.epoch_ms,
            expires_at_epoch_ms: now.epoch_ms.saturating_add(ttl_ms),
            granted_in: session,
            expires_at_monotonic_ms: now.monotonic_ms.saturating_add(ttl_ms),
        };
        life.holder = Some(lease.clone());
        Ok(ProcessLeaseClaimOutcome::Acquired { lease, displaced })
    }

    /// Token, fence and begin are kept; the end may come sooner than before.
    fn prolong(&mut self, id: &ProcessId, held: &ProcessLease, ttl_ms: u64) -> Result<ProcessLeaseClaimOutcome, No> {
        let lease = ProcessLease {
            expires_at_epoch_ms: self.now.epoch_ms.saturating_add(ttl_ms),
            granted_in: self.session.clone(),
            expires_at_monotonic_ms: self.now.monotonic_ms.saturating_add(ttl_ms),
            ..held.clone()
        };
        self.life_mut(id)?.holder = Some(lease.clone());
        // Nobody's right was ended by it.
        Ok(ProcessLeaseClaimOutcome::Acquired { lease, displaced: None })
    }

    /// An embedded owner is dead when its session of this store is over; of others nothing is known here.
    fn is_dead(&self, owner: &LeaseOwnerIdentity) -> bool {
        match &owner.liveness {
            LeaseOwnerLiveness::StoreSession { session } => {
                session.store_id == self.session.store_id && session.number < self.session.number
            }
            _ => false,
        }
    }
}

fn is_same(left: &LeaseOwnerIdentity, right: &LeaseOwnerIdentity) -> bool {
    left.owner_id == right.owner_id && left.incarnation_id == right.incarnation_id
}
