//! A lease in the hands of a run: renewed by a task of its own until the run ends or the lease is lost.
//!
//! It owns the renewal and the judgement of its errors. It does not know what is run under the lease.
//!
//! To be fenced out is loss. A store that fails for a moment is not: it is asked again until the lease has run out on
//! our own clock. A lease that ran out while the machine slept, and that nobody took meanwhile, is taken up again under a
//! new fence: delay does not end the right to run, displacement does.

use std::{sync::Arc, time::Duration};

use registry_actor::{
    actor::ActorRegistry,
    domain::{LeaseFence, LeaseTimings, ProcessLease, ProcessLeaseClaimOutcome, Refusal},
    port::{ProcessRegistryExt, RegistryError},
};
use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{Instant, sleep},
};

/// How long to wait after a renewal that failed for a reason that may pass.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// What is known of the lease.
#[derive(Clone, Debug)]
enum Tenure {
    Held(ProcessLease),
    /// The lease as it was when it was ours.
    Lost(ProcessLease),
}

/// A lease that is being renewed. To drop it ends the renewal and leaves the lease to run out.
#[derive(Debug)]
pub(crate) struct LeaseKeeper {
    tenure: watch::Receiver<Tenure>,
    renewal: AbortHandle,
}

impl LeaseKeeper {
    /// Begins to renew a lease that was acquired just now.
    pub(crate) fn start(registry: ActorRegistry, lease: ProcessLease, timings: LeaseTimings) -> Arc<Self> {
        let (sender, tenure) = watch::channel(Tenure::Held(lease.clone()));
        let renewal = Renewal { registry, lease, timings, tenure: sender };
        Arc::new(Self { tenure, renewal: tokio::spawn(renewal.run()).abort_handle() })
    }

    /// What fences the writes of the run, now.
    pub(crate) fn fence(&self) -> LeaseFence {
        self.lease().fence()
    }

    /// The lease as it is now, or as it was when it was lost.
    pub(crate) fn lease(&self) -> ProcessLease {
        match &*self.tenure.borrow() {
            Tenure::Held(lease) | Tenure::Lost(lease) => lease.clone(),
        }
    }

    /// Waits for the loss of the lease. To drop the future loses nothing.
    pub(crate) async fn lost(&self) {
        let mut tenure = self.tenure.clone();
        if tenure.wait_for(|tenure| matches!(tenure, Tenure::Lost(_))).await.is_err() {
            // The renewal was ended by us: then nobody tells us of a loss.
            std::future::pending::<()>().await;
        }
    }

    /// Ends the renewal, for a lease that is about to be given up.
    pub(crate) fn stop(&self) {
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
    registry: ActorRegistry,
    lease: ProcessLease,
    timings: LeaseTimings,
    tenure: watch::Sender<Tenure>,
}

impl Renewal {
    async fn run(mut self) {
        // This clock stands still while the machine sleeps: what it measures is how long the store has not answered.
        let mut deadline = Instant::now() + self.timings.ttl();
        let mut pause = self.timings.renew_interval();
        loop {
            sleep(pause).await;
            // Counted from before the call: the store cannot have granted it later than we asked.
            let asked_at = Instant::now();
            pause = match self.renew().await {
                Ok(()) => {
                    deadline = asked_at + self.timings.ttl();
                    self.timings.renew_interval()
                }
                Err(error) => match judge(&error, deadline.saturating_duration_since(Instant::now())) {
                    Judgement::Lost => {
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
            Err(RegistryError::Refused(Refusal::LeaseLost { .. })) => self.take_up_again(ttl_ms).await?,
            answered => answered?,
        };
        self.lease = renewed.clone();
        self.tenure.send_replace(Tenure::Held(renewed));
        Ok(())
    }

    /// Claims a lease that has run out anew. That ours is the one that is displaced by it proves that nobody else has
    /// had it since.
    async fn take_up_again(&self, ttl_ms: u64) -> Result<ProcessLease, RegistryError> {
        let owner = self.lease.owner.clone();
        let claimed = self.registry.claim_process_lease(&self.lease.process_id, owner, ttl_ms).await?;
        let lost = || RegistryError::Refused(Refusal::LeaseLost { process_id: self.lease.process_id.clone() });
        match claimed {
            ProcessLeaseClaimOutcome::Acquired { lease, displaced: Some(displaced) }
                if displaced.fence() == self.lease.fence() =>
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
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use registry_actor::{
        actor::RegistryOptions,
        domain::{
            LeaseOwnerIdentity, LeaseOwnerLiveness, ProcessId, ProcessInput, ProcessRegistration, RecoveryDisposition,
        },
        log::{SqliteLog, SqliteOptions},
        port::{Clock, Timestamp},
    };
    use tempfile::TempDir;

    use super::*;

    const BOUND: Duration = Duration::from_secs(60);

    #[derive(Default)]
    struct HandClock(AtomicU64);

    impl Clock for HandClock {
        fn now(&self) -> Timestamp {
            let ms = self.0.load(Ordering::SeqCst);
            Timestamp { epoch_ms: ms, monotonic_ms: ms }
        }
    }

    struct Scene {
        registry: ActorRegistry,
        clock: Arc<HandClock>,
        id: ProcessId,
        _directory: TempDir,
    }

    impl Scene {
        async fn new() -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            let log = SqliteLog::open(directory.path().join("store.db"), SqliteOptions::default()).expect("a store");
            let clock = Arc::new(HandClock::default());
            let mut options = RegistryOptions::default();
            options.clock = Arc::clone(&clock) as Arc<dyn Clock>;
            let registry = ActorRegistry::start(Arc::new(log), options).await.expect("a registry");
            let id = ProcessId::new("p").expect("an id");
            let input = ProcessInput::new("command", serde_json::json!({}));
            let registration = ProcessRegistration::new(id.clone(), input, RecoveryDisposition::Rerunnable);
            registry.register_process(registration).await.expect("registered");
            Self { registry, clock, id, _directory: directory }
        }

        async fn claim(&self, owner: &str, ttl_ms: u64) -> ProcessLease {
            let owner = LeaseOwnerIdentity {
                owner_id: owner.to_owned(),
                incarnation_id: "1".to_owned(),
                liveness: LeaseOwnerLiveness::Opaque,
            };
            let claimed = self.registry.claim_process_lease(&self.id, owner, ttl_ms).await.expect("an answer");
            claimed.acquired().expect("the lease is free")
        }

        async fn kept(&self, timings: LeaseTimings) -> Arc<LeaseKeeper> {
            LeaseKeeper::start(self.registry.clone(), self.claim("us", timings.ttl_ms()).await, timings)
        }

        fn let_an_hour_pass(&self) {
            self.clock.0.fetch_add(3_600_000, Ordering::SeqCst);
        }
    }

    fn short() -> LeaseTimings {
        LeaseTimings::from_ttl(Duration::from_millis(300)).expect("valid timings")
    }

    #[tokio::test]
    async fn a_lease_that_ran_out_while_the_machine_slept_is_taken_up_again() {
        let scene = Scene::new().await;
        let keeper = scene.kept(short()).await;
        let before = keeper.fence();
        scene.let_an_hour_pass();
        let mut tenure = keeper.tenure.clone();
        let changed = tenure.wait_for(|tenure| matches!(tenure, Tenure::Held(lease) if lease.fence() != before));
        tokio::time::timeout(BOUND, changed).await.expect("in time").expect("the renewal goes on");
        scene.registry.shut_down(BOUND).await;
    }

    #[tokio::test]
    async fn a_lease_that_another_took_meanwhile_is_lost() {
        let scene = Scene::new().await;
        let keeper = scene.kept(LeaseTimings::from_ttl(Duration::from_secs(3)).expect("valid timings")).await;
        scene.let_an_hour_pass();
        scene.claim("another", 3_600_000).await;
        tokio::time::timeout(BOUND, keeper.lost()).await.expect("the loss is noticed");
        scene.registry.shut_down(BOUND).await;
    }

    #[test]
    fn a_store_that_fails_is_no_loss_before_the_lease_has_run_out() {
        for passing in [
            RegistryError::NotStored { reason: "disk full".to_owned() },
            RegistryError::Busy { limit: 1 },
            RegistryError::Closed,
        ] {
            assert_eq!(judge(&passing, Duration::from_millis(1)), Judgement::TryAgain);
            assert_eq!(judge(&passing, Duration::ZERO), Judgement::Lost);
        }
    }
}
