//! Who a remote claimant may say that it is.

use crate::domain::{Command, LeaseOwnerIdentity, LeaseOwnerLiveness, Refusal};

/// Whether lease owners that come through a server may name the session of the store as their life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StoreSessionOwners {
    /// No: a client is a process of its own, which neither dies with the host nor keeps it alive.
    #[default]
    Refused,
    /// Yes: every client lives in the process of the host.
    Accepted,
}

impl StoreSessionOwners {
    /// Refuses a command whose owner says that it lives in the host. Leases and evidence that only speak of another owner are
    /// no claim.
    pub(super) fn check(self, command: &Command) -> Result<(), Refusal> {
        match (self, claimed_owner(command)) {
            (
                Self::Refused,
                Some(LeaseOwnerIdentity { owner_id, liveness: LeaseOwnerLiveness::StoreSession { session }, .. }),
            ) => Err(Refusal::ForeignStoreSession { owner_id: owner_id.clone(), session: session.clone() }),
            _ => Ok(()),
        }
    }
}

/// Whom the command makes an owner. Each variant is named, so that a new one asks the question.
const fn claimed_owner(command: &Command) -> Option<&LeaseOwnerIdentity> {
    match command {
        Command::ClaimLease { owner, .. } | Command::ReclaimLease { owner, .. } => Some(owner),
        Command::RecordFirstStarted { started, .. } | Command::BeginAttempt { started, .. } => Some(&started.owner),
        Command::Register { .. }
        | Command::Append { .. }
        | Command::RequestCancel { .. }
        | Command::Complete { .. }
        | Command::SetExternalRef { .. }
        | Command::RequestAbandon { .. }
        | Command::SetWait { .. }
        | Command::ClearWait { .. }
        | Command::AckWake { .. }
        | Command::FailAttempt { .. }
        | Command::RenewLease { .. }
        | Command::ReleaseLease { .. } => None,
    }
}
