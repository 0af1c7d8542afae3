//! The end of a registry, stage by stage.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use ractor::ActorRef;
use tokio::sync::{oneshot, watch};

use super::ActorRegistry;
use crate::actor::publisher::{PublisherArguments, PublisherMessage};
use crate::actor::shard::ShardMessage;
use crate::actor::shutdown::{NAMED, Rest, ShutdownProgress, ShutdownReport, ShutdownStage, Tally};
use crate::actor::tree::{Member, tell};
use crate::port::TreeStep;

/// A shutdown under way. Its drop tells whoever waits for the report, also when an observer panicked.
pub(super) struct Closing {
    registry: ActorRegistry,
    report: ShutdownReport,
}

impl Closing {
    pub(super) fn of(registry: ActorRegistry) -> Self {
        Self { registry, report: ShutdownReport::default() }
    }

    pub(super) async fn run(mut self, patience: Duration, mut progress: impl FnMut(ShutdownProgress)) {
        let inner = Arc::clone(&self.registry.inner);
        let processes = inner.environment.directory.live_actors();
        let mut progressed = |stage, processes_left| {
            let step = ShutdownProgress { stage, processes, processes_left };
            if catch_unwind(AssertUnwindSafe(|| progress(step))).is_err() {
                tracing::error!("an observer of the shutdown panicked");
            }
        };
        progressed(ShutdownStage::Door, processes);
        progressed(ShutdownStage::Processes, processes);
        self.put_processes_to_rest(patience, processes, |left| progressed(ShutdownStage::Processes, left)).await;
        let left = self.report.processes_killed;
        progressed(ShutdownStage::Publisher, left);
        self.end_publisher(patience).await;
        progressed(ShutdownStage::Listeners, left);
        inner.source.close();
        tell(&inner.environment, &TreeStep::Ended(Member::Listeners));
        progressed(ShutdownStage::Log, left);
        let closed = tokio::time::timeout(patience, inner.environment.log.close()).await;
        self.report.log_left_open = closed.is_err();
        tell(&inner.environment, &TreeStep::Ended(Member::Log));
        progressed(ShutdownStage::Root, left);
        drop(inner.root.get_cell().stop_and_wait(None, Some(patience)).await);
        inner.environment.directory.clear();
    }

    async fn put_processes_to_rest(&mut self, patience: Duration, processes: usize, mut tell: impl FnMut(usize)) {
        let inner = Arc::clone(&self.registry.inner);
        // Also where no clock reaches as far as the patience does.
        let mut out_of_patience = std::pin::pin!(tokio::time::sleep(patience));
        let tally = Arc::new(watch::Sender::new(Tally::default()));
        let mut changes = tally.subscribe();
        let mut resting = Vec::new();
        for (index, seat) in inner.seats.shards.iter().enumerate() {
            let (rested, answer) = oneshot::channel();
            let rest = Rest { tally: Arc::clone(&tally), rested };
            let shard = seat.actor();
            if let Some(shard) = shard
                && shard.cast(ShardMessage::ShutDown(rest)).is_ok()
            {
                resting.push((index, shard, answer));
            }
        }
        let (step, mut told) = ((processes / 100).max(1), processes);
        for (index, shard, mut answer) in resting {
            let has_rested = loop {
                tokio::select! {
                    biased;
                    // An error means that the shard has died, and its processes with it.
                    _ = &mut answer => break true,
                    () = &mut out_of_patience => break false,
                    // The sender is held here.
                    _ = changes.changed() => {
                        let left = changes.borrow_and_update().left();
                        if left.saturating_add(step) <= told {
                            told = left;
                            tell(left);
                        }
                    }
                }
            };
            if !has_rested {
                self.kill(index, &shard);
            }
        }
        self.report.processes_rested = tally.borrow().rested;
        let left = self.report.processes_killed;
        if told != left {
            tell(left);
        }
    }

    fn kill(&mut self, index: usize, shard: &ActorRef<ShardMessage>) {
        let environment = &self.registry.inner.environment;
        let mut killed = environment.directory.alive(|process_id| environment.shard_of(process_id) == index);
        shard.get_cell().kill();
        self.report.shards_killed += 1;
        self.report.processes_killed += killed.len();
        self.report.first_killed.append(&mut killed);
        self.report.first_killed.sort();
        self.report.first_killed.truncate(NAMED);
    }

    /// Nothing of this registry writes any more. Its observers hear of what was committed last before their source ends, and
    /// the log closes after that.
    async fn end_publisher(&mut self, patience: Duration) {
        let inner = &self.registry.inner;
        let publisher = inner.seats.publisher.actor();
        let ended = match publisher {
            Some(publisher) if publisher.cast(PublisherMessage::ShutDown).is_ok() => {
                let ended = publisher.get_cell().wait(Some(patience)).await.is_ok();
                if !ended {
                    publisher.get_cell().kill();
                }
                ended
            }
            // It died when the door was closed already, and was not started again.
            Some(_) | None => {
                let publisher = PublisherArguments {
                    environment: Arc::clone(&inner.environment),
                    source: inner.source.clone(),
                    line: Arc::clone(&inner.line),
                };
                tokio::time::timeout(patience, publisher.catch_up()).await.is_ok()
            }
        };
        self.report.publisher_killed = !ended;
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.registry.inner.shut_down.send_replace(Some(std::mem::take(&mut self.report)));
    }
}
