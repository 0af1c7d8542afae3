//! An executor whose attempts do what a test says, and a count of what it was asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use registry_actor::domain::{ProcessAwaitOutput, ProcessId};
use registry_actor::port::{ProcessExecutor, ProcessRun, RemainsError, RemainsOf, RunEnd};
use serde_json::{Value, json};
use tokio::sync::watch;

type Attempt = Arc<dyn Fn(Arc<dyn ProcessRun>) -> BoxedEnd + Send + Sync>;
type BoxedEnd = std::pin::Pin<Box<dyn Future<Output = RunEnd> + Send>>;

/// Runs what a test has written for each process; a process without a script succeeds at once. Clones are one executor.
#[derive(Clone)]
pub struct ScriptedExecutor(Arc<Inner>);

struct Inner {
    scripts: Mutex<BTreeMap<ProcessId, Attempt>>,
    remains: Mutex<BTreeMap<ProcessId, Result<Value, String>>>,
    told: watch::Sender<Told>,
}

/// What the executor was asked.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// Attempts that were begun: process and number, in order.
    pub begun: Vec<(ProcessId, u32)>,
    /// Attempts that were ended or dropped.
    pub over: usize,
    /// Processes whose remains were to be ended, in order.
    pub remains: Vec<ProcessId>,
    /// How many attempts at one process ever ran at the same time.
    pub at_once: usize,
    running: BTreeMap<ProcessId, usize>,
}

impl Default for ScriptedExecutor {
    fn default() -> Self {
        let inner =
            Inner { scripts: Mutex::default(), remains: Mutex::default(), told: watch::Sender::new(Told::default()) };
        Self(Arc::new(inner))
    }
}

impl ScriptedExecutor {
    /// What every attempt at a process does.
    pub fn script<F: Future<Output = RunEnd> + Send + 'static>(
        &self,
        process_id: &ProcessId,
        attempt: impl Fn(Arc<dyn ProcessRun>) -> F + Send + Sync + 'static,
    ) {
        let attempt: Attempt = Arc::new(move |run| Box::pin(attempt(run)));
        self.0.scripts.lock().unwrap_or_else(PoisonError::into_inner).insert(process_id.clone(), attempt);
    }

    /// What ending the remains of a process answers.
    pub fn remains(&self, process_id: &ProcessId, answer: Result<Value, String>) {
        self.0.remains.lock().unwrap_or_else(PoisonError::into_inner).insert(process_id.clone(), answer);
    }

    /// What it was asked until now.
    #[must_use]
    pub fn told(&self) -> Told {
        self.0.told.borrow().clone()
    }

    /// Waits until what it was asked is as a test wants it.
    pub async fn until(&self, wanted: impl Fn(&Told) -> bool) -> Told {
        // The sender is here: it cannot be gone.
        self.0.told.subscribe().wait_for(|told| wanted(told)).await.map(|told| told.clone()).unwrap_or_default()
    }

    fn attempt_at(&self, process_id: &ProcessId) -> Option<Attempt> {
        self.0.scripts.lock().unwrap_or_else(PoisonError::into_inner).get(process_id).cloned()
    }

    /// The attempts at one process, by number.
    #[must_use]
    pub fn attempts(&self, process_id: &ProcessId) -> Vec<u32> {
        self.told().begun.iter().filter(|(begun, _)| begun == process_id).map(|(_, number)| *number).collect()
    }
}

/// An attempt that runs, until it is dropped.
struct Running {
    executor: Arc<Inner>,
    process_id: ProcessId,
}

impl Running {
    fn begin(executor: &Arc<Inner>, run: &dyn ProcessRun) -> Self {
        let process_id = run.record().id().clone();
        executor.told.send_modify(|told| {
            told.begun.push((process_id.clone(), run.attempt()));
            let running = told.running.entry(process_id.clone()).or_default();
            *running += 1;
            told.at_once = told.at_once.max(*running);
        });
        Self { executor: Arc::clone(executor), process_id }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.executor.told.send_modify(|told| {
            told.over += 1;
            *told.running.entry(self.process_id.clone()).or_default() -= 1;
        });
    }
}

#[async_trait]
impl ProcessExecutor for ScriptedExecutor {
    async fn execute(&self, run: Arc<dyn ProcessRun>) -> RunEnd {
        let _running = Running::begin(&self.0, &*run);
        match self.attempt_at(run.record().id()) {
            Some(attempt) => attempt(run).await,
            None => RunEnd::Ended(ProcessAwaitOutput::success(json!("done"))),
        }
    }

    async fn end_remains(&self, process: RemainsOf<'_>) -> Result<Option<Value>, RemainsError> {
        let process_id = process.record.id();
        self.0.told.send_modify(|told| told.remains.push(process_id.clone()));
        let remains = self.0.remains.lock().unwrap_or_else(PoisonError::into_inner);
        match remains.get(process_id).cloned() {
            None => Ok(None),
            Some(Ok(found)) => Ok(Some(found)),
            Some(Err(reason)) => Err(RemainsError { reason }),
        }
    }
}
