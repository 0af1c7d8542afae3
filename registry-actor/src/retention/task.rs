//! The task: the loop with its timer, one pass, one command.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::believed_clock::BelievedClock;
use super::policy::RetentionPolicy;
use super::projection::ProjectionSource;
use super::report::{PassEnd, RetentionError, RetentionReport, RetentionStatus};
use super::schedule::RetentionSchedule;
use crate::domain::{Limits, ProcessPruneReport, ProjectionWatermark, PruneFilter, RegistryCommand, RegistryReceipt};
use crate::port::{Clock, ProcessRegistry, RegistryError};

/// Prunes a registry by a policy, on a schedule, until it is stopped.
///
/// Ages are counted by the injected clock, whose wall clock is believed to have been set ahead only after a day; the waits between passes by the timer of the tokio runtime, without jitter, which a
/// test may stand still. Each pass runs as a task of its own under the loop: one that panics is a pass that failed, and is
/// tried again like any other. It may be stopped at any time and more than once; a handle that is dropped stops it as well.
#[derive(Debug)]
pub struct Retention {
    asked: Arc<Asked>,
    status: watch::Receiver<RetentionStatus>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// What the task is asked from outside.
#[derive(Debug)]
struct Asked {
    stop: watch::Sender<bool>,
    pass: Notify,
}

impl Asked {
    fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }

    async fn stopped(&self) {
        // The sender is here: the wait cannot fail.
        let _ = self.stop.subscribe().wait_for(|stopped| *stopped).await;
    }
}

/// What a pass works with.
struct Work {
    registry: Arc<dyn ProcessRegistry>,
    policy: RetentionPolicy,
    schedule: RetentionSchedule,
    clock: Arc<dyn Clock>,
    believed: Mutex<BelievedClock>,
    projection: Arc<dyn ProjectionSource>,
}

impl Work {
    fn now_epoch_ms(&self) -> u64 {
        let now = self.clock.now();
        self.believed.lock().unwrap_or_else(PoisonError::into_inner).believed_epoch_ms(now)
    }
}

impl Retention {
    /// Starts it on the current tokio runtime. The first pass begins an interval from now, or when it is
    /// [asked for](Self::pass_now).
    #[must_use]
    pub fn start(
        registry: Arc<dyn ProcessRegistry>,
        policy: RetentionPolicy,
        schedule: RetentionSchedule,
        clock: Arc<dyn Clock>,
        projection: Arc<dyn ProjectionSource>,
    ) -> Self {
        let asked = Arc::new(Asked { stop: watch::Sender::new(false), pass: Notify::new() });
        let (told, status) = watch::channel(RetentionStatus::default());
        let believed = Mutex::new(BelievedClock::starting_at(clock.now()));
        let work = Arc::new(Work { registry, policy, schedule, clock, believed, projection });
        let task = tokio::spawn(run(work, Arc::clone(&asked), told));
        Self { asked, status, task: Mutex::new(Some(task)) }
    }

    /// Lets the next pass begin at once, or after the one that is under way. Asked several times before it begins, it is one pass.
    pub fn pass_now(&self) {
        self.asked.pass.notify_one();
    }

    /// How it is getting on. A receiver whose sender is gone has seen the last of it.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<RetentionStatus> {
        self.status.clone()
    }

    /// Stops it and waits for that: a command that is under way is awaited, the next one is not given, and a watermark that is
    /// asked for is not waited for. May be called twice.
    ///
    /// Cancellation: a dropped future does not take the stop back.
    pub async fn stop(&self) {
        self.asked.stop.send_replace(true);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            // It does not panic, and if the runtime takes it away it has ended as well.
            let _ = task.await;
        }
    }
}

impl Drop for Retention {
    fn drop(&mut self) {
        self.asked.stop.send_replace(true);
    }
}

/// The loop: waits, lets a pass run, tells of it.
async fn run(work: Arc<Work>, asked: Arc<Asked>, told: watch::Sender<RetentionStatus>) {
    let mut stopped = asked.stop.subscribe();
    let mut failures = 0;
    loop {
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => return,
            () = asked.pass.notified() => {}
            () = sleep(work.schedule.wait_after(failures)) => {}
        }
        let passing = tokio::spawn(pass(Arc::clone(&work), Arc::clone(&asked)));
        let report = passing.await.unwrap_or_else(|_| RetentionReport {
            began_at_epoch_ms: 0,
            pruned: ProcessPruneReport::default(),
            commands: 0,
            end: PassEnd::Failed(RetentionError::Panicked),
        });
        failures = match &report.end {
            PassEnd::Complete | PassEnd::Stopped => 0,
            PassEnd::Failed(error) => {
                tracing::warn!(%error, failures, "a retention pass failed and will be tried again");
                failures.saturating_add(1)
            }
        };
        told.send_modify(|status| {
            status.passes += 1;
            status.failures_in_a_row = failures;
            status.last = Some(report);
        });
    }
}

/// One pass: command after command, until nothing is left, the limit is reached, or somebody wants it to end.
async fn pass(work: Arc<Work>, asked: Arc<Asked>) -> RetentionReport {
    let began_at_epoch_ms = work.now_epoch_ms();
    let mut report = RetentionReport {
        began_at_epoch_ms,
        pruned: ProcessPruneReport::default(),
        commands: 0,
        end: PassEnd::Complete,
    };
    for filter in work.policy.filters(began_at_epoch_ms) {
        // What stays is met again by every command of a filter: that of the last one counts.
        let mut kept = ProcessPruneReport::default();
        loop {
            if asked.is_stopped() {
                report.end = PassEnd::Stopped;
                break;
            }
            if report.commands == work.schedule.commands_per_pass.get() {
                report.pruned.more = true;
                break;
            }
            let watermark = tokio::select! {
                biased;
                () = asked.stopped() => continue,
                watermark = work.projection.watermark() => watermark,
            };
            let watermark = match watermark {
                Ok(watermark) => watermark,
                Err(unknown) => {
                    report.end = PassEnd::Failed(unknown.into());
                    break;
                }
            };
            report.commands += 1;
            match command(&work, &filter, watermark).await {
                Ok(pruned) => {
                    report.pruned.pruned_processes += pruned.pruned_processes;
                    report.pruned.pruned_events += pruned.pruned_events;
                    kept = pruned;
                    // One that removes nothing and promises more would be given for ever.
                    if !pruned.more || pruned.pruned_processes == 0 {
                        break;
                    }
                }
                Err(error) => {
                    report.end = PassEnd::Failed(error);
                    break;
                }
            }
        }
        report.pruned.kept_leased += kept.kept_leased;
        report.pruned.kept_unprojected += kept.kept_unprojected;
        report.pruned.kept_damaged += kept.kept_damaged;
        if report.end != PassEnd::Complete || report.pruned.more {
            break;
        }
    }
    report
}

/// One command: a bounded transaction of the log.
async fn command(
    work: &Work,
    filter: &PruneFilter,
    watermark: ProjectionWatermark,
) -> Result<ProcessPruneReport, RetentionError> {
    let command = RegistryCommand::Prune { filter: filter.clone(), watermark, limit: Limits::PRUNED_PER_COMMAND };
    match work.registry.execute_across(command).await? {
        RegistryReceipt::Pruned(report) => Ok(report),
        _ => Err(RegistryError::WrongAnswer { query: "prune".to_owned() }.into()),
    }
}
