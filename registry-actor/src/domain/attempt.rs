//! Attempts: each time that somebody begins to execute a process, and what a registration declares about doing it again.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Fence, LeaseOwnerIdentity, ProcessAwaitOutput, ProcessFailureClass, ProcessId, Refusal};

/// How often a process may be attempted, and how long to wait between two attempts. Only rerunnable processes have one.
/// Without it a failed attempt ends the process, and an attempt whose owner is gone is made again without a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryPolicy {
    /// How many attempts there may be, the first one included; at least 1. Attempts whose owner died count.
    pub max_attempts: u32,
    /// The wait after the first failed attempt, in ms. It doubles with each further one.
    pub initial_backoff_ms: u64,
    /// The longest wait, in ms.
    pub max_backoff_ms: u64,
}

impl RetryPolicy {
    /// The wait after this failed attempt, counted from 1, in ms.
    #[must_use]
    pub fn backoff_ms(&self, attempt: u32) -> u64 {
        let doublings = attempt.saturating_sub(1).min(63);
        self.initial_backoff_ms.saturating_mul(1 << doublings).min(self.max_backoff_ms)
    }

    /// Whether there may be another attempt after so many.
    #[must_use]
    pub const fn allows_after(&self, begun: u32) -> bool {
        begun < self.max_attempts
    }

    pub(super) fn check(&self, process_id: &ProcessId) -> Result<(), Refusal> {
        let reason = if self.max_attempts == 0 {
            "max_attempts must be at least 1, got 0".to_owned()
        } else if self.max_backoff_ms < self.initial_backoff_ms {
            format!(
                "max_backoff_ms must be at least initial_backoff_ms, which is {}, got {}",
                self.initial_backoff_ms, self.max_backoff_ms
            )
        } else {
            return Ok(());
        };
        Err(Refusal::InvalidExecutionTerms { process_id: process_id.clone(), reason })
    }
}

/// The attempts at a process, as far as its record tells.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessAttempts {
    /// How many were begun.
    pub begun: u32,
    /// The latest one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<Arc<AttemptStarted>>,
    /// The failure of the latest attempt that failed and was to be followed by another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Arc<AttemptFailed>>,
}

impl ProcessAttempts {
    /// Whether nothing is known of any. Such a record has no field for them.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.begun == 0 && self.latest.is_none() && self.failure.is_none()
    }

    /// Whether the latest attempt was begun under this acquisition of the lease.
    #[must_use]
    pub fn latest_is_of(&self, fence: Fence) -> bool {
        self.latest.as_ref().is_some_and(|latest| latest.fencing_token == fence)
    }

    /// The failure of the latest attempt, if it was told under this acquisition of the lease.
    #[must_use]
    pub fn latest_failed_under(&self, fence: Fence) -> Option<&AttemptFailed> {
        let pending = self.pending_retry()?;
        let told_under = pending.fencing_token.or_else(|| Some(self.latest.as_ref()?.fencing_token));
        (told_under == Some(fence)).then_some(pending)
    }

    /// The failure of the latest attempt, if that one has failed: the next attempt waits for its backoff.
    #[must_use]
    pub fn pending_retry(&self) -> Option<&AttemptFailed> {
        self.failure.as_deref().filter(|failure| failure.attempt == self.begun)
    }
}

/// That an attempt was begun. Payload of `process.attempt_started`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptStarted {
    /// Which one, counted from 1.
    pub attempt: u32,
    /// Who holds the lease under which it was begun.
    pub owner: LeaseOwnerIdentity,
    /// The fence of that lease: one acquisition makes one attempt.
    pub fencing_token: Fence,
    /// When, in ms since the Unix epoch.
    pub started_at_ms: u64,
}

/// That an attempt failed and another is to follow. Payload of `process.attempt_failed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptFailed {
    /// Which one, counted from 1.
    pub attempt: u32,
    /// Why.
    pub failure: AttemptFailure,
    /// When the next one is due, in ms since the Unix epoch.
    pub retry_at_ms: u64,
    /// The fence of the lease under which it was told, where that is a later one than the attempt was begun under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fencing_token: Option<Fence>,
}

impl AttemptFailed {
    /// How long the next attempt has to wait yet, in ms. A wall clock that went back prolongs no wait beyond the backoff.
    #[must_use]
    pub fn wait_ms(&self, policy: Option<&RetryPolicy>, now_epoch_ms: u64) -> u64 {
        let longest = policy.map_or(0, |policy| policy.backoff_ms(self.attempt));
        self.retry_at_ms.saturating_sub(now_epoch_ms).min(longest)
    }
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptFailure {
    /// What kind of failure.
    pub class: ProcessFailureClass,
    /// Stable code for machines.
    pub code: String,
    /// Text for people.
    pub message: String,
}

impl AttemptFailure {
    /// A failure of the work itself.
    #[must_use]
    pub fn execution(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { class: ProcessFailureClass::Execution, code: code.into(), message: message.into() }
    }

    /// The outcome of a process that fails for this reason.
    #[must_use]
    pub fn to_await_output(&self) -> ProcessAwaitOutput {
        ProcessAwaitOutput::failure(self.class, &self.code, &self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy = RetryPolicy { max_attempts: 3, initial_backoff_ms: 100, max_backoff_ms: 250 };

    #[test]
    fn the_backoff_doubles_up_to_its_limit() {
        let waits: Vec<u64> = [1, 2, 3, 64, u32::MAX].map(|attempt| POLICY.backoff_ms(attempt)).to_vec();
        assert_eq!(waits, [100, 200, 250, 250, 250]);
        let endless = RetryPolicy { max_backoff_ms: u64::MAX, ..POLICY };
        assert_eq!(endless.backoff_ms(u32::MAX), u64::MAX, "it does not wrap");
    }

    #[test]
    fn attempts_are_counted_from_the_first() {
        assert_eq!([0, 2, 3, 4].map(|begun| POLICY.allows_after(begun)), [true, true, false, false]);
    }

    /// The wall clock of a host was put back by a year while a process waited for its next attempt.
    #[test]
    fn a_clock_that_goes_back_does_not_put_the_next_attempt_off_for_a_year() {
        let failure = AttemptFailure::execution("c", "m");
        let failed = AttemptFailed { attempt: 2, failure, retry_at_ms: 10_200, fencing_token: None };
        assert_eq!(failed.wait_ms(Some(&POLICY), 10_150), 50);
        assert_eq!(failed.wait_ms(Some(&POLICY), 10_200), 0);
        assert_eq!(failed.wait_ms(Some(&POLICY), 3), 200);
        assert_eq!(failed.wait_ms(None, 3), 0, "who takes the policy away takes the wait away");
    }
}
