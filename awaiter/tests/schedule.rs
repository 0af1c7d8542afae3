//! When an awaiter reads: over a registry that only says whether its process has ended, under a clock that stands still
//! while anybody has something to do.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use awaiter::{ProcessAwaiter, ProcessChangeHub, ProcessWait, WaitAnswer};
use registry_actor::domain::{
    Command, ProcessAwaitOutput, ProcessId, ProcessRecord, ProcessStatus, ProcessTerminalState, Receipt,
    RegistryCommand, RegistryReceipt,
};
use registry_actor::port::{Answer, ChangeSource, DurabilityTier, ProcessRegistry, Query, RegistryError};
use serde_json::json;
use tokio::time::{Instant, sleep};

#[tokio::test(start_paused = true)]
async fn without_ticks_an_awaiter_reads_after_25_ms_doubling_to_1_s() {
    let registry = Registry::silent();
    let waiting = waiting(ProcessAwaiter::polling(registry.clone()));
    sleep(Duration::from_millis(3_580)).await;
    assert_eq!(registry.reads(), [0, 25, 75, 175, 375, 775, 1_575, 2_575, 3_575]);
    registry.end();
    assert_eq!(waiting.await.expect("no panic"), ended());
    assert_eq!(registry.reads().last(), Some(&4_575));
}

#[tokio::test(start_paused = true)]
async fn a_tick_reads_at_once_and_starts_the_schedule_over() {
    let registry = Registry::silent();
    let hub = ProcessChangeHub::new();
    let waiting = waiting(ProcessAwaiter::new(registry.clone(), hub.clone()));
    sleep(Duration::from_millis(400)).await;
    hub.notify(&id());
    sleep(Duration::from_millis(80)).await;
    assert_eq!(registry.reads(), [0, 25, 75, 175, 375, 400, 425, 475]);
    registry.end();
    hub.notify(&id());
    assert_eq!(waiting.await.expect("no panic"), ended());
    assert_eq!(registry.reads().last(), Some(&480));
    assert_eq!(hub.watched_processes(), 0);
}

/// A hub that hears another source than the registry's own may miss what is committed here.
#[tokio::test(start_paused = true)]
async fn a_hub_that_ends_or_hears_another_source_leaves_the_clock() {
    let registry = Registry::telling(&ChangeSource::default());
    let other = ChangeSource::default();
    let waiting = waiting(ProcessAwaiter::new(registry.clone(), ProcessChangeHub::attached_to(&other)));
    sleep(Duration::from_millis(30)).await;
    other.close();
    sleep(Duration::from_millis(50)).await;
    registry.end();
    assert_eq!(waiting.await.expect("no panic"), ended());
    let reads = registry.reads();
    assert!(reads.len() < 10, "it does not spin: {reads:?}");
}

#[tokio::test(start_paused = true)]
async fn at_the_registrys_own_source_an_awaiter_reads_once() {
    let source = ChangeSource::default();
    let registry = Registry::telling(&source);
    for awaiter in [
        ProcessAwaiter::attached(registry.clone()),
        ProcessAwaiter::new(registry.clone(), ProcessChangeHub::attached_to(&source)),
    ] {
        let before = registry.reads().len();
        let waiting = waiting(awaiter);
        sleep(Duration::from_secs(3_600)).await;
        assert_eq!(registry.reads().len() - before, 1);
        assert_eq!(source.parked_waits(), 1);
        waiting.abort();
        assert!(waiting.await.is_err_and(|error| error.is_cancelled()));
        assert_eq!(source.parked_waits(), 0);
    }
}

/// What is durable at the deadline is no deadline, though nobody was told of it yet.
#[tokio::test(start_paused = true)]
async fn at_a_deadline_the_log_has_the_last_word() {
    let within = Some(Duration::from_secs(10));
    let registry = Registry::telling(&ChangeSource::default());
    let awaiter = ProcessAwaiter::attached(registry.clone());
    let waits = [ProcessWait::outcome(id())];
    assert_eq!(awaiter.wait(&waits[0], within).await, Ok(WaitAnswer::Deadline));
    assert_eq!(registry.reads(), [0, 10_000]);
    assert_eq!(awaiter.await_any(&waits, within).await, Ok(None));
    assert_eq!(awaiter.await_all(&waits, within).await, Ok(vec![WaitAnswer::Deadline]));
    let ending = async {
        sleep(Duration::from_secs(9)).await;
        registry.end();
    };
    let (one, any, all, ()) = tokio::join!(
        awaiter.wait(&waits[0], within),
        awaiter.await_any(&waits, within),
        awaiter.await_all(&waits, within),
        ending
    );
    let expected = ended();
    assert_eq!(one.expect("an answer").output(), Some(&expected));
    assert_eq!(any.expect("an answer").expect("no deadline").answer.output(), Some(&expected));
    assert_eq!(all.expect("answers")[0].output(), Some(&expected));
}

fn waiting(awaiter: ProcessAwaiter) -> tokio::task::JoinHandle<ProcessAwaitOutput> {
    tokio::spawn(async move { awaiter.await_terminal(&id()).await.expect("an outcome") })
}

struct Registry {
    source: Option<ChangeSource>,
    has_ended: AtomicBool,
    started: Instant,
    reads: Mutex<Vec<u128>>,
}

impl Registry {
    fn silent() -> Arc<Self> {
        Self::with(None)
    }

    fn telling(source: &ChangeSource) -> Arc<Self> {
        Self::with(Some(source.clone()))
    }

    fn with(source: Option<ChangeSource>) -> Arc<Self> {
        Arc::new(Self { source, has_ended: AtomicBool::new(false), started: Instant::now(), reads: Mutex::default() })
    }

    /// Without telling anybody.
    fn end(&self) {
        self.has_ended.store(true, Ordering::SeqCst);
    }

    /// When it was read, in ms from its start.
    fn reads(&self) -> Vec<u128> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl ProcessRegistry for Registry {
    async fn execute(&self, _: &ProcessId, _: Command) -> Result<Receipt, RegistryError> {
        Err(RegistryError::Closed)
    }

    async fn execute_across(&self, _: RegistryCommand) -> Result<RegistryReceipt, RegistryError> {
        Err(RegistryError::Closed)
    }

    async fn query(&self, query: Query) -> Result<Answer, RegistryError> {
        assert!(matches!(query, Query::Process { .. }), "an outcome takes one read, got {query:?}");
        let now = self.started.elapsed().as_millis();
        self.reads.lock().unwrap_or_else(PoisonError::into_inner).push(now);
        Ok(Answer::Process(Some(record(self.has_ended.load(Ordering::SeqCst)))))
    }

    fn durability_tier(&self) -> DurabilityTier {
        DurabilityTier::Inline
    }

    fn change_source(&self) -> Option<ChangeSource> {
        self.source.clone()
    }
}

fn record(has_ended: bool) -> Arc<ProcessRecord> {
    let record: ProcessRecord = serde_json::from_value(json!({
        "registration": {
            "id": "p", "input": { "kind": "k" }, "disposition": "rerunnable", "identity": { "kind": "k" }
        },
        "registration_hash": "v1:", "created_at_ms": 0, "updated_at_ms": 0,
    }))
    .expect("a record");
    if !has_ended {
        return Arc::new(record);
    }
    let status = ProcessStatus::terminal(ProcessTerminalState::Completed, ended());
    Arc::new(ProcessRecord { status: Arc::new(status), ..record })
}

fn ended() -> ProcessAwaitOutput {
    ProcessAwaitOutput::success(json!(1))
}

fn id() -> ProcessId {
    ProcessId::new("p").expect("an id")
}
