//! The place of a run among those that may go on at once: given up while the run waits, and taken again when it goes on.

use std::sync::{Arc, Weak};

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// The place of one run.
#[derive(Debug)]
pub(super) struct Place {
    permits: Arc<Semaphore>,
    tenure: watch::Sender<Tenure>,
}

#[derive(Debug)]
struct Tenure {
    permit: Option<OwnedSemaphorePermit>,
    /// How many waits of the run are under way: it may wait for several things at once.
    waits: usize,
    /// Whether a task stands in line for the permit.
    in_line: bool,
    is_over: bool,
}

impl Tenure {
    const fn is_due(&self) -> bool {
        self.permit.is_none() && self.waits == 0 && !self.is_over
    }
}

impl Place {
    /// A place, if there is one.
    pub(super) fn take(permits: &Arc<Semaphore>) -> Option<Arc<Self>> {
        let permit = Arc::clone(permits).try_acquire_owned().ok()?;
        let tenure = Tenure { permit: Some(permit), waits: 0, in_line: false, is_over: false };
        Some(Arc::new(Self { permits: Arc::clone(permits), tenure: watch::Sender::new(tenure) }))
    }

    /// Waits without taking the place of a run that could go on. Then the run waits for its place again, unless it is
    /// still waiting for something else, or `urgent` resolves: it stands in line while it goes on then, as it does when
    /// the future is dropped.
    pub(super) async fn yielding<T>(
        self: &Arc<Self>,
        wait: impl Future<Output = T>,
        urgent: impl Future<Output = ()>,
    ) -> T {
        let waiting = Waiting::begin(self);
        let waited = wait.await;
        drop(waiting);
        let mut tenure = self.tenure.subscribe();
        tokio::select! {
            biased;
            // The sender is ours.
            _ = tenure.wait_for(|tenure| !tenure.is_due()) => {}
            () = urgent => {}
        }
        waited
    }

    /// Gives the place up for good: the run is over.
    pub(super) fn leave(&self) {
        self.tenure.send_modify(|tenure| {
            tenure.is_over = true;
            tenure.permit = None;
        });
    }

    fn stand_in_line(self: &Arc<Self>) {
        let mut joins = false;
        self.tenure.send_modify(|tenure| {
            joins = tenure.is_due() && !tenure.in_line;
            tenure.in_line |= joins;
        });
        // Without a runtime nothing runs that could have a place.
        let Some(runtime) = Handle::try_current().ok().filter(|_| joins) else { return };
        let (place, permits): (Weak<Self>, _) = (Arc::downgrade(self), Arc::clone(&self.permits));
        runtime.spawn(async move {
            // Never closed.
            let Ok(permit) = permits.acquire_owned().await else { return };
            let Some(place) = place.upgrade() else { return };
            place.tenure.send_modify(|tenure| {
                tenure.in_line = false;
                if tenure.is_due() {
                    tenure.permit = Some(permit);
                }
            });
        });
    }
}

/// A wait that is under way.
struct Waiting(Arc<Place>);

impl Waiting {
    fn begin(place: &Arc<Place>) -> Self {
        place.tenure.send_modify(|tenure| {
            tenure.waits += 1;
            tenure.permit = None;
        });
        Self(Arc::clone(place))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.tenure.send_modify(|tenure| tenure.waits -= 1);
        self.0.stand_in_line();
    }
}
