//! A lease in the hands of a run: renewed by a task of its own until the run ends or the lease is lost.
//!
//! It owns the renewal and the judgement of its errors. It does not know what is run under the lease.
//!
//! To be fenced out is loss. A store that fails for a moment is not: it is asked again until the lease has run out on
//! our own clock. A lease that ran out while the machine slept, and that nobody took meanwhile, is taken up again under a
//! new fence: delay does not end the right to run, displacement does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use super::agenda::later;
use crate::domain::{LeaseFence, LeaseTimings, ProcessLease, ProcessLeaseClaimOutcome, Refusal};
use crate::port::{ProcessRegistry, ProcessRegistryExt, RegistryError};
use crate::telemetry;

/// How long to wait after a renewal that failed for a reason that may pass.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// What is known of the lease.
#[derive(Debug, Clone)]
enum Tenure {
    Held(ProcessLease),
    /// The lease as it was when it was ours.
    Lost(ProcessLease),
}

/// A lease that is being renewed. To drop it ends the renewal and leaves the lease to run out.
#[derive(Debug)]
pub(super) struct LeaseKeeper {
    tenure: watch::Receiver<Tenure>,
    release_expected: Arc<AtomicBool>,
    /// Whether the renewal was ended by us.
    is_stopped: AtomicBool,
    renewal: AbortHandle,
}

impl LeaseKeeper {
    /// Begins to renew a lease that was asked for at an instant and acquired: the store cannot have granted it later than its
    /// answer, but any time before.
    pub(super) fn start(
        registry: Arc<dyn ProcessRegistry>,
        lease: ProcessLease,
        timings: LeaseTimings,
        asked_at: Instant,
    ) -> Arc<Self> {
        let (sender, tenure) = watch::channel(Tenure::Held(lease.clone()));
        let release_expected = Arc::new(AtomicBool::new(false));
        let deadline = later(asked_at, timings.ttl());
        let release_expected_there = Arc::clone(&release_expected);
        let renewal =
            Renewal { registry, lease, timings, deadline, tenure: sender, release_expected: release_expected_there };
        let renewal = tokio::spawn(renewal.run()).abort_handle();
        Arc::new(Self { tenure, release_expected, is_stopped: AtomicBool::new(false), renewal })
    }

    /// What fences the writes of the run, now.
    pub(super) fn fence(&self) -> LeaseFence {
        self.lease().fence()
    }

    /// The lease as it is now, or as it was when it was lost.
    pub(super) fn lease(&self) -> ProcessLease {
        match &*self.tenure.borrow() {
            Tenure::Held(lease) | Tenure::Lost(lease) => lease.clone(),
        }
    }

    /// Whether it was lost.
    pub(super) fn is_lost(&self) -> bool {
        matches!(&*self.tenure.borrow(), Tenure::Lost(_)) || self.renewal_has_died()
    }

    /// Whether nobody renews it any more, although we have not ended that: then it is as good as lost.
    fn renewal_has_died(&self) -> bool {
        self.tenure.has_changed().is_err() && !self.is_stopped.load(Ordering::SeqCst)
    }

    /// Waits for the loss of the lease. To drop the future loses nothing.
    pub(super) async fn lost(&self) {
        let mut tenure = self.tenure.clone();
        let renewal_has_ended = tenure.wait_for(|tenure| matches!(tenure, Tenure::Lost(_))).await.is_err();
        if renewal_has_ended && !self.renewal_has_died() {
            // It was ended by us: then nobody tells us of a loss.
            std::future::pending::<()>().await;
        }
    }

    /// From now on the lease may be given up by a write: a renewal that finds it gone does not take it up again.
    pub(super) fn expect_release(&self) {
        self.release_expected.store(true, Ordering::SeqCst);
    }

    /// Ends the renewal, for a lease that is about to be given up.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::SeqCst);
        self.renewal.abort();
    }
}

impl Drop for LeaseKeeper {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

/// The task that renews.
struct Renewal {
    registry: Arc<dyn ProcessRegistry>,
    lease: ProcessLease,
    timings: LeaseTimings,
    /// When it has run out, if it is not renewed. This clock stands still while the machine sleeps: what it measures is how
    /// long the store has not answered.
    deadline: Instant,
    tenure: watch::Sender<Tenure>,
    release_expected: Arc<AtomicBool>,
}

impl Renewal {
    async fn run(mut self) {
        let mut deadline = self.deadline;
        let mut pause = self.timings.renew_interval();
        loop {
            sleep(pause).await;
            // Counted from before the call: the store cannot have granted it later than we asked.
            let asked_at = Instant::now();
            // A registry that does not answer at all must not keep a lease in our hands that has run out.
            let answered = tokio::time::timeout_at(deadline.max(asked_at + RETRY_INTERVAL), self.renew()).await;
            let answered = answered.unwrap_or_else(|_| {
                Err(RegistryError::NotStored { reason: "the renewal was not answered".to_owned() })
            });
            pause = match answered {
                Ok(()) => {
                    deadline = later(asked_at, self.timings.ttl());
                    self.timings.renew_interval()
                }
                Err(error) => match judge(&error, deadline.saturating_duration_since(Instant::now())) {
                    Judgement::Lost => {
                        telemetry::lease_lost();
                        tracing::warn!(process_id = %self.lease.process_id, %error, "the lease is lost");
                        self.tenure.send_replace(Tenure::Lost(self.lease));
                        return;
                    }
                    Judgement::TryAgain => {
                        tracing::warn!(process_id = %self.lease.process_id, %error, "the lease is not renewed yet");
                        RETRY_INTERVAL.min(self.timings.renew_interval())
                    }
                },
            };
        }
    }

    async fn renew(&mut self) -> Result<(), RegistryError> {
        let ttl_ms = self.timings.ttl_ms();
        let renewed = match self.registry.renew_process_lease(self.lease.clone(), ttl_ms).await {
            Err(RegistryError::Refused(Refusal::LeaseLost { .. })) if !self.release_expected.load(Ordering::SeqCst) => {
                self.take_up_again(ttl_ms).await?
            }
            answered => answered?,
        };
        self.lease = renewed.clone();
        self.tenure.send_replace(Tenure::Held(renewed));
        Ok(())
    }

    /// Claims a lease that has run out anew. Each acquisition has the next fence: the one after ours proves that nobody else has
    /// had it since, also where an earlier claim of ours was carried out and its answer lost.
    async fn take_up_again(&self, ttl_ms: u64) -> Result<ProcessLease, RegistryError> {
        let owner = self.lease.owner.clone();
        let claimed = self.registry.claim_process_lease(&self.lease.process_id, owner, ttl_ms).await?;
        let lost = || RegistryError::Refused(Refusal::LeaseLost { process_id: self.lease.process_id.clone() });
        match claimed {
            ProcessLeaseClaimOutcome::Acquired { lease, .. }
                if lease.fencing_token == self.lease.fencing_token.next() =>
            {
                tracing::warn!(process_id = %lease.process_id, "the lease ran out and is taken up again");
                Ok(lease)
            }
            ProcessLeaseClaimOutcome::Acquired { lease, .. } => {
                self.registry.complete_process_lease(&lease).await?;
                Err(lost())
            }
            ProcessLeaseClaimOutcome::Busy { .. } => Err(lost()),
        }
    }
}

/// What a failed renewal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judgement {
    Lost,
    TryAgain,
}

fn judge(error: &RegistryError, left: Duration) -> Judgement {
    match error {
        RegistryError::Refused(_) => Judgement::Lost,
        _ if left.is_zero() => Judgement::Lost,
        _ => Judgement::TryAgain,
    }
}
