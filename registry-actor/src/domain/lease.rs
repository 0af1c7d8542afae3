//! Leases: at most one holder of the right to run a process, fenced so that a stale holder is refused at the store.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::json_size::check_written_size;
use super::name::check_name;
use super::{Fence, LeaseOwnerLiveness, LeaseToken, ProcessId, Refusal};

/// One period in which one host held a store. The owner lock makes sessions of a local store exclusive, so that a
/// later session proves the end of every earlier one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StoreSession {
    /// Identity of the store.
    pub store_id: Arc<str>,
    /// Counts the times that the store was opened for writing.
    pub number: u64,
}

impl StoreSession {
    /// Whether `self` is over because `current` has begun.
    #[must_use]
    pub fn is_earlier_session_of_same_store(&self, current: &Self) -> bool {
        self.store_id == current.store_id && self.number < current.number
    }
}

impl fmt::Display for StoreSession {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}#{}", self.store_id, self.number)
    }
}

/// Who holds, or wants to hold, a lease.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LeaseOwnerIdentity {
    /// Stable name of the owner.
    pub owner_id: String,
    /// One life of that owner.
    pub incarnation_id: String,
    /// How its death can be proved.
    #[serde(default)]
    pub liveness: LeaseOwnerLiveness,
}

impl LeaseOwnerIdentity {
    /// Whether both name the same life of the same owner. Liveness is not compared.
    #[must_use]
    pub fn same_incarnation(&self, other: &Self) -> bool {
        self.owner_id == other.owner_id && self.incarnation_id == other.incarnation_id
    }

    /// Refuses an owner that names nobody, or that no store takes: it is written into lease rows and facts.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        check_name("owner id", &self.owner_id)?;
        check_name("incarnation id", &self.incarnation_id)?;
        check_written_size("lease owner", self)
    }
}

/// What proves to the store that a writer holds the lease: checked at commit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LeaseFence {
    /// Token of the acquisition.
    pub lease_token: LeaseToken,
    /// Fence of the acquisition.
    pub fencing_token: Fence,
}

/// The single-writer right, as its holder knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessLease {
    /// Version of this shape; 2.
    pub schema_version: u32,
    /// The process.
    pub process_id: ProcessId,
    /// The holder.
    pub owner: LeaseOwnerIdentity,
    /// Token of the acquisition.
    pub lease_token: LeaseToken,
    /// Fence of the acquisition.
    pub fencing_token: Fence,
    /// When it was acquired, in ms since the Unix epoch.
    pub claimed_at_epoch_ms: u64,
    /// When it ends, in ms since the Unix epoch, exclusive. For display, and for hosts of other store sessions.
    pub expires_at_epoch_ms: u64,
    /// The store session in which it was granted or last renewed.
    pub granted_in: StoreSession,
    /// When it ends on the monotonic clock of that session, in ms, exclusive.
    pub expires_at_monotonic_ms: u64,
}

impl ProcessLease {
    /// The version of the shape that this code writes.
    pub const SCHEMA_VERSION: u32 = 2;

    /// What fences a write under this lease.
    #[must_use]
    pub fn fence(&self) -> LeaseFence {
        LeaseFence { lease_token: self.lease_token.clone(), fencing_token: self.fencing_token }
    }

    /// Whether it is in force. Within the session that granted it the monotonic clock decides, so that a jump of the
    /// wall clock neither ends nor prolongs it; in any other session the wall clock has to do.
    #[must_use]
    pub fn is_live(&self, session: &StoreSession, epoch_ms: u64, monotonic_ms: u64) -> bool {
        if self.granted_in == *session {
            self.expires_at_monotonic_ms > monotonic_ms
        } else {
            self.expires_at_epoch_ms > epoch_ms
        }
    }
}

/// The lease row of a process: kept beside the log, because renewals would drown it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRow {
    /// Grows with each claim, renewal and release: the precondition of the next batch.
    pub revision: u64,
    /// Fence of the latest acquisition; 0 before the first.
    pub fence: Fence,
    /// The holder, until it releases. An expired holder stays here until it is displaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<ProcessLease>,
    /// The holder that the present one displaced without a release: what recovery may need as evidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub displaced: Option<Box<ProcessLease>>,
}

impl LeaseRow {
    /// The row after its holder gave the lease up. The fence stays, so that the next acquisition is told apart.
    #[must_use]
    pub const fn released(&self) -> Self {
        Self { revision: self.revision.saturating_add(1), fence: self.fence, holder: None, displaced: None }
    }
}

/// Answer to a claim. Busy is not an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessLeaseClaimOutcome {
    /// The claimant holds the lease now.
    Acquired {
        /// Its lease.
        lease: ProcessLease,
        /// The holder whose right this claim ended without a release: expired, or proved dead.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        displaced: Option<Box<ProcessLease>>,
    },
    /// Another holds it.
    Busy {
        /// The lease in force.
        holder: ProcessLease,
    },
}

impl ProcessLeaseClaimOutcome {
    /// The lease, if it was acquired.
    #[must_use]
    pub fn acquired(self) -> Option<ProcessLease> {
        match self {
            Self::Acquired { lease, .. } => Some(lease),
            Self::Busy { .. } => None,
        }
    }
}

/// How long a lease lives and how often it is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTimings {
    ttl: Duration,
    renew_interval: Duration,
}

/// Timings under which a lease would lapse although its holder lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLeaseTimings {
    /// The time to live is under a millisecond.
    #[error("lease ttl must be at least 1ms, got {found:?}")]
    TtlTooShort {
        /// What was found.
        found: Duration,
    },
    /// The renewal interval is under a millisecond.
    #[error("lease renew interval must be at least 1ms, got {found:?}")]
    RenewIntervalTooShort {
        /// What was found.
        found: Duration,
    },
    /// Two missed renewals would lose the lease.
    #[error("lease ttl {ttl:?} must be at least 3x the renew interval {renew_interval:?}")]
    TtlBelowThreeRenewals {
        /// The time to live.
        ttl: Duration,
        /// The interval.
        renew_interval: Duration,
    },
}

impl LeaseTimings {
    /// Checks and takes both times.
    ///
    /// # Errors
    /// [`InvalidLeaseTimings`] when either is under 1 ms, or the ttl under three intervals: two missed renewals must
    /// not lose the lease.
    pub fn new(ttl: Duration, renew_interval: Duration) -> Result<Self, InvalidLeaseTimings> {
        let shortest = Duration::from_millis(1);
        if ttl < shortest {
            return Err(InvalidLeaseTimings::TtlTooShort { found: ttl });
        }
        if renew_interval < shortest {
            return Err(InvalidLeaseTimings::RenewIntervalTooShort { found: renew_interval });
        }
        if ttl < renew_interval.saturating_mul(3) {
            return Err(InvalidLeaseTimings::TtlBelowThreeRenewals { ttl, renew_interval });
        }
        Ok(Self { ttl, renew_interval })
    }

    /// Renews at a third of the ttl.
    ///
    /// # Errors
    /// As [`new`](Self::new): a ttl under 3 ms has no interval of a millisecond.
    pub fn from_ttl(ttl: Duration) -> Result<Self, InvalidLeaseTimings> {
        Self::new(ttl, ttl / 3)
    }

    /// How long a grant or a renewal lasts.
    #[must_use]
    pub const fn ttl(&self) -> Duration {
        self.ttl
    }

    /// The ttl in the unit of the lease commands.
    #[must_use]
    pub fn ttl_ms(&self) -> u64 {
        u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX)
    }

    /// How long to wait between two renewals.
    #[must_use]
    pub const fn renew_interval(&self) -> Duration {
        self.renew_interval
    }
}

impl Default for LeaseTimings {
    /// 30 s, renewed every 10 s.
    fn default() -> Self {
        Self { ttl: Duration::from_secs(30), renew_interval: Duration::from_secs(10) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn timings_allow_two_missed_renewals() {
        assert!(LeaseTimings::new(ms(30), ms(10)).is_ok());
        assert!(LeaseTimings::new(ms(29), ms(10)).is_err());
        assert!(LeaseTimings::new(ms(2), ms(1)).is_err());
        let message = |result: Result<LeaseTimings, InvalidLeaseTimings>| result.expect_err("invalid").to_string();
        assert!(message(LeaseTimings::new(ms(29), ms(10))).contains("must be at least 3x the renew interval"));
        assert!(message(LeaseTimings::new(ms(0), ms(1))).contains("lease ttl must be at least 1ms"));
        assert!(message(LeaseTimings::from_ttl(ms(2))).contains("lease renew interval must be at least 1ms"));
        assert_eq!(LeaseTimings::from_ttl(ms(60)).expect("valid").renew_interval(), ms(20));
        assert_eq!(LeaseTimings::default(), LeaseTimings::from_ttl(ms(30_000)).expect("valid"));
    }
}
