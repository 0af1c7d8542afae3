//! Commands: what a caller may ask of one process.

use serde::{Deserialize, Serialize};

use super::{
    AbandonRequest, AttemptFailure, CoreEventType, LeaseFence, LeaseOwnerIdentity, LeaseToken, Limits,
    ProcessAwaitOutput, ProcessEventAppendRequest, ProcessExternalRef, ProcessId, ProcessLease, ProcessRegistration,
    ProcessStarted, ReplayKey, Sequence, WaitState,
};

/// A mutation of one process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Command {
    /// Makes the process exist. Repeating it with the same registration answers the stored record.
    Register {
        /// The declaration.
        registration: Box<ProcessRegistration>,
    },
    /// Appends events, all or none, in order.
    Append {
        /// What to append.
        events: Vec<ProcessEventAppendRequest>,
        /// By what right.
        authority: WriteAuthority,
    },
    /// Asks that the process stop. Cooperative, and accepted from anybody at any time.
    RequestCancel {
        /// Why; equal reasons are one request.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Writes the outcome.
    Complete {
        /// The outcome.
        output: ProcessAwaitOutput,
        /// By what right.
        authority: WriteAuthority,
        /// What becomes of the writer's lease, in the same transaction.
        lease: LeaseRelease,
    },
    /// Records that execution began. The first writer wins.
    RecordFirstStarted {
        /// Who began, and when.
        started: ProcessStarted,
        /// By what right.
        authority: WriteAuthority,
    },
    /// Begins an attempt as the lease holder: records that execution began, unless that is known, and counts the
    /// attempt. Refused where the disposition forbids it: a started owner-bound process, one that is owned elsewhere, one
    /// whose attempts are used up. Under one acquisition of the lease it begins one attempt, however often it is sent.
    BeginAttempt {
        /// Who begins, and when.
        started: ProcessStarted,
        /// By what right.
        fence: LeaseFence,
    },
    /// Ends an attempt with a failure and gives the lease up, in one transaction. If the process declares another
    /// attempt that one becomes due after the backoff, and the one that failed must have been begun under this lease; if
    /// not, the failure is its outcome. The same failure again, once the lease is given up, changes nothing.
    FailAttempt {
        /// Why it failed.
        failure: AttemptFailure,
        /// By what right.
        fence: LeaseFence,
    },
    /// Records under which name a foreign backend knows the process. Set once; ended processes take it too.
    SetExternalRef {
        /// The reference.
        external_ref: ProcessExternalRef,
    },
    /// Authorises that the process be abandoned once nobody holds its lease. The first request stays.
    RequestAbandon {
        /// Who asks, and why.
        request: AbandonRequest,
    },
    /// Records that the process waits. A second wait takes the place of the first; the same one again changes nothing.
    SetWait {
        /// For what.
        wait: WaitState,
        /// By what right.
        authority: WriteAuthority,
    },
    /// Records that the process no longer waits. If it does not, nothing changes.
    ClearWait {
        /// By what right.
        authority: WriteAuthority,
    },
    /// Records that a wake was taken, and settles its delivery. The same one again changes nothing.
    AckWake {
        /// The event that woke.
        sequence: Sequence,
    },
    /// Takes the lease if it is free, released or expired.
    ClaimLease {
        /// Who wants it.
        owner: LeaseOwnerIdentity,
        /// How long it lasts, in ms.
        ttl_ms: u64,
    },
    /// Takes a lease that is in force from a holder that is provably dead.
    ReclaimLease {
        /// Who wants it.
        owner: LeaseOwnerIdentity,
        /// The lease that the claimant saw; any other wins.
        observed: Box<ProcessLease>,
        /// How long it lasts, in ms.
        ttl_ms: u64,
    },
    /// Prolongs a lease in force.
    RenewLease {
        /// The lease.
        lease: Box<ProcessLease>,
        /// How long it lasts from now, in ms.
        ttl_ms: u64,
    },
    /// Gives the lease up. A stale, repeated or unknown release is no error and changes nothing.
    ReleaseLease {
        /// Token of the acquisition.
        lease_token: LeaseToken,
    },
}

impl Command {
    /// The replay keys that deciding this command looks up.
    #[must_use]
    pub fn replay_keys(&self, process_id: &ProcessId) -> Vec<ReplayKey> {
        let fact = |core, detail: Option<Sequence>| super::event::fact_key(process_id, core, detail);
        match self {
            // More than that are refused, whatever their keys are.
            Self::Append { events, .. } => {
                let events = events.iter().take(Limits::EVENTS_PER_COMMAND);
                events.filter_map(|event| event.replay_key.clone()).collect()
            }
            Self::RequestCancel { reason } => {
                ProcessEventAppendRequest::cancel_requested(process_id, reason.as_deref())
                    .replay_key
                    .into_iter()
                    .collect()
            }
            Self::Complete { output, .. } => {
                super::decide::completion(process_id, output).replay_key.into_iter().collect()
            }
            Self::AckWake { sequence } => fact(CoreEventType::WakeAcknowledged, Some(*sequence)).into_iter().collect(),
            // If no attempt is left the failure is an outcome.
            Self::FailAttempt { failure, .. } => {
                super::decide::completion(process_id, &failure.to_await_output()).replay_key.into_iter().collect()
            }
            // What is set once is in the record, and the keys of these facts are not given to callers.
            Self::RecordFirstStarted { .. }
            | Self::BeginAttempt { .. }
            | Self::SetExternalRef { .. }
            | Self::RequestAbandon { .. }
            | Self::SetWait { .. }
            | Self::ClearWait { .. }
            | Self::Register { .. }
            | Self::ClaimLease { .. }
            | Self::ReclaimLease { .. }
            | Self::RenewLease { .. }
            | Self::ReleaseLease { .. } => Vec::new(),
        }
    }

    /// The wake that deciding this command looks up.
    #[must_use]
    pub const fn acknowledged_wake(&self) -> Option<Sequence> {
        match self {
            Self::AckWake { sequence } => Some(*sequence),
            _ => None,
        }
    }

    /// Whether it goes ahead of plain appends on its way to the log: a flood of output must not cost a healthy run
    /// its lease, its outcome or its cancellation.
    #[must_use]
    pub const fn is_urgent(&self) -> bool {
        match self {
            Self::Register { .. }
            | Self::Append { .. }
            | Self::RecordFirstStarted { .. }
            | Self::BeginAttempt { .. }
            | Self::SetExternalRef { .. }
            | Self::SetWait { .. }
            | Self::ClearWait { .. }
            | Self::AckWake { .. } => false,
            Self::RequestCancel { .. }
            | Self::RequestAbandon { .. }
            | Self::Complete { .. }
            | Self::FailAttempt { .. }
            | Self::ClaimLease { .. }
            | Self::ReclaimLease { .. }
            | Self::RenewLease { .. }
            | Self::ReleaseLease { .. } => true,
        }
    }

    /// What events carrying it out can store.
    #[must_use]
    pub const fn stores(&self) -> CommandEvents {
        match self {
            Self::Append { .. } | Self::RequestCancel { .. } => CommandEvents::Appended,
            Self::Register { .. }
            | Self::Complete { .. }
            | Self::RecordFirstStarted { .. }
            | Self::BeginAttempt { .. }
            | Self::FailAttempt { .. }
            | Self::SetExternalRef { .. }
            | Self::RequestAbandon { .. }
            | Self::SetWait { .. }
            | Self::ClearWait { .. }
            | Self::AckWake { .. } => CommandEvents::Facts,
            Self::ClaimLease { .. }
            | Self::ReclaimLease { .. }
            | Self::RenewLease { .. }
            | Self::ReleaseLease { .. } => CommandEvents::None,
        }
    }

    /// Short name, for logs and spans.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Register { .. } => "register",
            Self::Append { .. } => "append",
            Self::RequestCancel { .. } => "request_cancel",
            Self::Complete { .. } => "complete",
            Self::RecordFirstStarted { .. } => "record_first_started",
            Self::BeginAttempt { .. } => "begin_attempt",
            Self::FailAttempt { .. } => "fail_attempt",
            Self::SetExternalRef { .. } => "set_external_ref",
            Self::RequestAbandon { .. } => "request_abandon",
            Self::SetWait { .. } => "set_wait",
            Self::ClearWait { .. } => "clear_wait",
            Self::AckWake { .. } => "ack_wake",
            Self::ClaimLease { .. } => "claim_lease",
            Self::ReclaimLease { .. } => "reclaim_lease",
            Self::RenewLease { .. } => "renew_lease",
            Self::ReleaseLease { .. } => "release_lease",
        }
    }
}

/// What events a command can store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandEvents {
    /// None: it moves the lease at most.
    None,
    /// Those that the registry makes of a fact. No sink is told of them, and they wake nobody.
    Facts,
    /// Those that a caller appends: sinks are told of them, and they may wake.
    Appended,
}

/// By what right a write is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteAuthority {
    /// Without a lease. Terminal facts and first starts are then refused while another's lease is in force, unless
    /// the registry was opened with a policy that allows them.
    Unfenced,
    /// As the holder of this lease. Displacement ends the right, delay does not: an expired lease that nobody took
    /// still writes.
    Holder(LeaseFence),
}

/// What becomes of the writer's lease when it writes the outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseRelease {
    /// It stays.
    Keep,
    /// It is given up in the same transaction.
    Release,
}
