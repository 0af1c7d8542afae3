//! A lease in the hands of a run: renewed by a task of its own until the run ends or the lease is lost.
//!
//! It owns the renewal and the judgement of its errors. It does not know what is run under the lease.
//!
//! To be fenced out is loss. A store that fails for a moment is not: the renewal is tried again until the lease has
//! run out on our own clock.

use std::{sync::Arc, time::Duration};

use registry_actor::{
    actor::ActorRegistry,
    domain::{LeaseFence, LeaseTimings, ProcessLease, Refusal},
    port::{ProcessRegistryExt, RegistryError},
};
use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{Instant, sleep},
};

/// How long to wait after a renewal that failed for a reason that may pass.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Whether the lease is still ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tenure {
    Held,
    Lost,
}

/// A lease that is being renewed. To drop it ends the renewal and leaves the lease to run out.
#[derive(Debug)]
pub(crate) struct LeaseKeeper {
    fence: LeaseFence,
    lease: ProcessLease,
    tenure: watch::Receiver<Tenure>,
    renewal: AbortHandle,
}

impl LeaseKeeper {
    /// Begins to renew a lease that was acquired just now.
    pub(crate) fn start(registry: ActorRegistry, lease: ProcessLease, timings: LeaseTimings) -> Arc<Self> {
        let (sender, tenure) = watch::channel(Tenure::Held);
        let renewed = lease.clone();
        let renewal = tokio::spawn(async move {
            renew_until_lost(&registry, renewed, timings).await;
            // Nobody may hold the keeper any more.
            let _ = sender.send(Tenure::Lost);
        })
        .abort_handle();
        Arc::new(Self { fence: lease.fence(), lease, tenure, renewal })
    }

    /// What fences the writes of the run.
    pub(crate) fn fence(&self) -> LeaseFence {
        self.fence.clone()
    }

    /// The lease as it was acquired.
    pub(crate) fn lease(&self) -> &ProcessLease {
        &self.lease
    }

    /// Waits for the loss of the lease. To drop the future loses nothing.
    pub(crate) async fn lost(&self) {
        let mut tenure = self.tenure.clone();
        if tenure.wait_for(|tenure| *tenure == Tenure::Lost).await.is_err() {
            // The renewal was ended by us: then nobody tells us of a loss.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for LeaseKeeper {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

async fn renew_until_lost(registry: &ActorRegistry, mut lease: ProcessLease, timings: LeaseTimings) {
    let mut deadline = Instant::now() + timings.ttl();
    let mut pause = timings.renew_interval();
    loop {
        sleep(pause).await;
        // Counted from before the call: the store cannot have granted it later than we asked.
        let asked_at = Instant::now();
        match registry.renew_process_lease(lease.clone(), timings.ttl_ms()).await {
            Ok(renewed) => {
                lease = renewed;
                deadline = asked_at + timings.ttl();
                pause = timings.renew_interval();
            }
            Err(error) => match judge(&error, deadline.saturating_duration_since(Instant::now())) {
                Judgement::Lost => {
                    tracing::warn!(process_id = %lease.process_id, %error, "the lease is lost");
                    return;
                }
                Judgement::TryAgain => {
                    tracing::warn!(process_id = %lease.process_id, %error, "the lease was not renewed, trying again");
                    pause = RETRY_INTERVAL;
                }
            },
        }
    }
}

/// What a failed renewal means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Judgement {
    Lost,
    TryAgain,
}

fn judge(error: &RegistryError, left: Duration) -> Judgement {
    match error {
        RegistryError::Refused(Refusal::LeaseLost { .. }) => Judgement::Lost,
        _ if left.is_zero() => Judgement::Lost,
        _ => Judgement::TryAgain,
    }
}

#[cfg(test)]
mod tests {
    use registry_actor::domain::ProcessId;

    use super::*;

    #[test]
    fn only_to_be_fenced_out_is_loss_before_the_lease_has_run_out() {
        let lost = Refusal::LeaseLost { process_id: ProcessId::new("p").expect("an id") };
        assert_eq!(judge(&lost.into(), Duration::from_secs(1)), Judgement::Lost);
        let passing = RegistryError::NotStored { reason: "disk full".to_owned() };
        assert_eq!(judge(&passing, Duration::from_millis(1)), Judgement::TryAgain);
        assert_eq!(judge(&passing, Duration::ZERO), Judgement::Lost);
        assert_eq!(judge(&RegistryError::Busy { limit: 1 }, Duration::from_secs(1)), Judgement::TryAgain);
    }
}
