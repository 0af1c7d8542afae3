//! Why a run has to end. The first cause stays, unless a more urgent one comes: one that has a limit of time.

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
    /// Tells why.
    pub(super) fn stop(&self, cause: StopCause) {
        self.0.send_if_modified(|told| {
            let is_news = told.as_ref().is_none_or(|told| urgency(told) < urgency(&cause));
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

    /// Resolves when there is a cause that gives a run no more than its grace.
    pub(super) async fn stopped_urgently(&self) {
        self.until(|told| told.as_ref().is_some_and(|told| urgency(told) > 0)).await;
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

/// A run may take its time for a request, and for a host that stops as much as that gives it. At its deadline it has its
/// grace, whatever it was asked before; and a lost lease leaves nothing to be decided.
const fn urgency(cause: &StopCause) -> u8 {
    match cause {
        StopCause::CancelRequested { .. } | StopCause::HostStopping => 0,
        StopCause::DeadlinePassed => 1,
        StopCause::LeaseLost => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_cause_stays_unless_a_more_urgent_one_comes() {
        let (sender, signal) = stop_line();
        assert_eq!(signal.cause(), None);
        sender.stop(StopCause::HostStopping);
        sender.stop(StopCause::CancelRequested { reason: None });
        assert_eq!(signal.stopped().await, StopCause::HostStopping);
        sender.stop(StopCause::DeadlinePassed);
        sender.stop(StopCause::CancelRequested { reason: None });
        assert_eq!(signal.stopped().await, StopCause::DeadlinePassed);
        signal.stopped_urgently().await;
        sender.stop(StopCause::LeaseLost);
        sender.stop(StopCause::HostStopping);
        assert_eq!(signal.stopped().await, StopCause::LeaseLost);
    }
}
