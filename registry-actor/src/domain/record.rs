//! The record: what is known about a process, as the fold of its events.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{LeaseOwnerIdentity, ProcessId, ProcessRegistration, ProcessStatus, RegistrationHash, SessionScope};

/// What is known about a process. No field changes except as the projection of a stored event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// The registration, with the core event types added.
    pub registration: Arc<ProcessRegistration>,
    /// Its hash.
    pub registration_hash: RegistrationHash,
    /// When it was registered, in ms since the Unix epoch.
    pub created_at_ms: u64,
    /// When it last changed, in ms since the Unix epoch. Never goes back.
    pub updated_at_ms: u64,
    /// When its terminal event was decided, in ms since the Unix epoch. Set once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal_at_ms: Option<u64>,
    /// Who began the execution. Set once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_started: Option<Arc<ProcessStarted>>,
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
}

/// The durable fact that execution began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStarted {
    /// Who began it.
    pub owner: LeaseOwnerIdentity,
    /// When, in ms since the Unix epoch.
    pub started_at_ms: u64,
}
