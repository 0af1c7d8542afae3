//! Why a run has to end, told to it once; a lost lease takes the place of every other reason.

use tokio::sync::watch;

use crate::port::StopCause;

/// The telling end.
#[derive(Debug, Clone)]
pub(super) struct StopSender(watch::Sender<Option<StopCause>>);

/// The end of whoever has to stop.
#[derive(Debug, Clone)]
pub(super) struct StopSignal(watch::Receiver<Option<StopCause>>);

pub(super) fn stop_line() -> (StopSender, StopSignal) {
    let (sender, signal) = watch::channel(None);
    (StopSender(sender), StopSignal(signal))
}

impl StopSender {
    /// Tells why. The first cause stays, unless the lease is lost: that leaves nothing to be decided.
    pub(super) fn stop(&self, cause: StopCause) {
        self.0.send_if_modified(|told| {
            let is_news = told.is_none() || (cause == StopCause::LeaseLost && *told != Some(StopCause::LeaseLost));
            if is_news {
                *told = Some(cause);
            }
            is_news
        });
    }
}

impl StopSignal {
    pub(super) fn cause(&self) -> Option<StopCause> {
        self.0.borrow().clone()
    }

    /// Resolves when there is a cause. To drop the future loses nothing.
    pub(super) async fn stopped(&self) -> StopCause {
        self.until(Option::is_some).await
    }

    /// Resolves when the lease is lost.
    pub(super) async fn lease_lost(&self) {
        self.until(|told| *told == Some(StopCause::LeaseLost)).await;
    }

    async fn until(&self, is_awaited: impl FnMut(&Option<StopCause>) -> bool) -> StopCause {
        let told = self.0.clone().wait_for(is_awaited).await.ok().and_then(|told| told.clone());
        match told {
            Some(cause) => cause,
            // Nobody is left who could tell: then there is no cause.
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_cause_stays_unless_the_lease_is_lost() {
        let (sender, signal) = stop_line();
        assert_eq!(signal.cause(), None);
        sender.stop(StopCause::HostStopping);
        sender.stop(StopCause::DeadlinePassed);
        assert_eq!(signal.stopped().await, StopCause::HostStopping);
        sender.stop(StopCause::LeaseLost);
        sender.stop(StopCause::HostStopping);
        assert_eq!(signal.stopped().await, StopCause::LeaseLost);
        signal.lease_lost().await;
    }
}
