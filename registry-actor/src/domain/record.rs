//! The record: what is known about a process, as the fold of its events.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    AbandonRequest, LeaseOwnerIdentity, ProcessAttempts, ProcessExternalRef, ProcessId, ProcessRegistration,
    ProcessStatus, RegistrationHash, SessionScope, WaitState,
};

/// What is known about a process. No field changes except as the projection of a stored event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// The registration, with the core event types added.
    pub registration: Arc<ProcessRegistration>,
    /// Its hash.
    pub registration_hash: RegistrationHash,
    /// Which life of the id this is: 1, and one more for each life that was pruned.
    #[serde(default = "first_generation", skip_serializing_if = "is_first_generation")]
    pub generation: u32,
    /// When it was registered, in ms since the Unix epoch.
    pub created_at_ms: u64,
    /// When it last changed, in ms since the Unix epoch. Never goes back.
    pub updated_at_ms: u64,
    /// When it ended, in ms since the Unix epoch: the `updated_at_ms` of its terminal event, so that a clock that went
    /// back cannot put the end before an earlier change. Set once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal_at_ms: Option<u64>,
    /// Who began the execution. Set once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_started: Option<Arc<ProcessStarted>>,
    /// The attempts that were made at it.
    #[serde(default, skip_serializing_if = "ProcessAttempts::is_empty")]
    pub attempts: ProcessAttempts,
    /// Under which name a foreign backend knows it. Set once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_ref: Option<Arc<ProcessExternalRef>>,
    /// Somebody's permission to abandon it. Set once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abandon_request: Option<Arc<AbandonRequest>>,
    /// What it waits for; never on an ended process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Arc<WaitState>>,
    /// Whom its wakes go to now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wake_target: Option<Arc<SessionScope>>,
    /// Whether it has ended, and how.
    #[serde(default)]
    pub status: Arc<ProcessStatus>,
}

impl ProcessRecord {
    /// Key of the process.
    #[must_use]
    pub fn id(&self) -> &ProcessId {
        &self.registration.id
    }

    /// By when it has to end, in ms since the Unix epoch.
    #[must_use]
    pub fn deadline_at_ms(&self) -> Option<u64> {
        self.registration.deadline_ms.map(|deadline_ms| self.created_at_ms.saturating_add(deadline_ms))
    }
}

pub(crate) const fn first_generation() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
pub(crate) const fn is_first_generation(generation: &u32) -> bool {
    *generation == 1
}

/// The durable fact that execution began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStarted {
    /// Who began it.
    pub owner: LeaseOwnerIdentity,
    /// When, in ms since the Unix epoch.
    pub started_at_ms: u64,
}
