//! What a case is given: a registry over its log, a clock that it turns, and the fold law, which no case can forget.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use registry_actor::domain::{Command, ProcessId, Receipt, Refusal, RegistryCommand, RegistryReceipt};
use registry_actor::port::{
    Answer, ChangeSource, DurabilityTier, LogError, ProcessLog, ProcessRegistry, Query, RegistryError,
};

use crate::manual_clock::ManualClock;
use crate::registry_backend::{OpenRegistry, RegistryBackend};

/// What a case is played on.
pub struct Stage {
    backend: RegistryBackend,
    open: Option<OpenRegistry>,
    /// The registry under test. Its steps are checked.
    pub registry: Arc<FoldChecked>,
    /// Where it takes time from.
    pub clock: Arc<ManualClock>,
    /// Whether the runtime's own time stands still.
    stands_still: bool,
}

impl Stage {
    /// An empty store of this backend.
    pub async fn empty(mut backend: RegistryBackend) -> Self {
        let clock = Arc::new(ManualClock::default());
        let open = backend.open(&clock).await;
        let registry = Arc::new(FoldChecked::new(&open));
        Self { backend, open: Some(open), registry, clock, stands_still: false }
    }

    /// Ends the registry and opens its store again, as a host that is started anew.
    pub async fn reopen(&mut self) {
        self.close().await;
        let open = self.backend.open(&self.clock).await;
        let touched = self.registry.touched();
        let steps = self.registry.steps();
        self.registry = Arc::new(FoldChecked::new(&open));
        *self.registry.touched.lock().unwrap_or_else(PoisonError::into_inner) = touched;
        self.registry.steps.store(steps, Ordering::Relaxed);
        self.registry.check_folds().await;
        self.open = Some(open);
    }

    /// Lets the runtime's time stand still, and leap when nobody has anything to do.
    pub fn stop_time(&mut self) {
        tokio::time::pause();
        self.stands_still = true;
    }

    /// Ends the registry. May be called twice. The patience of a shutdown is real time: it must not leap.
    pub async fn close(&mut self) {
        if std::mem::take(&mut self.stands_still) {
            tokio::time::resume();
        }
        if let Some(open) = self.open.take() {
            open.close().await;
        }
    }

    /// The registry, as a value of its port.
    #[must_use]
    pub fn port(&self) -> Arc<dyn ProcessRegistry> {
        Arc::clone(&self.registry) as Arc<dyn ProcessRegistry>
    }

    /// The log beneath.
    #[must_use]
    pub fn log(&self) -> &Arc<dyn ProcessLog> {
        &self.registry.log
    }

    /// What the registry has to answer for its durability.
    #[must_use]
    pub const fn expected_durability(&self) -> DurabilityTier {
        self.backend.durability()
    }

    /// The source of changes of a registry that has one; that a registry without one has none was declared.
    #[must_use]
    pub fn change_source(&self) -> Option<ChangeSource> {
        let source = self.registry.change_source();
        assert_eq!(source.is_some(), self.backend.tells_changes());
        source
    }
}

/// After every step, folding the events of every process that the case has touched gives what is stored of it.
pub struct FoldChecked {
    inner: Arc<dyn ProcessRegistry>,
    log: Arc<dyn ProcessLog>,
    touched: Mutex<BTreeSet<ProcessId>>,
    steps: AtomicUsize,
}

impl FoldChecked {
    fn new(open: &OpenRegistry) -> Self {
        Self {
            inner: Arc::clone(&open.registry),
            log: Arc::clone(&open.log),
            touched: Mutex::default(),
            steps: AtomicUsize::new(0),
        }
    }

    /// How many steps were checked.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.steps.load(Ordering::Relaxed)
    }

    fn touched(&self) -> BTreeSet<ProcessId> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn check_step(&self, named: &[ProcessId]) {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner).extend(named.iter().cloned());
        self.steps.fetch_add(1, Ordering::Relaxed);
        self.check_folds().await;
    }

    async fn check_folds(&self) {
        for process_id in self.touched() {
            match self.log.verify(&process_id).await {
                Ok(verified) => assert_eq!(verified.faults, [], "the fold law, after step {}", self.steps()),
                // It was never registered, or it was pruned. A closed log cannot be asked, and nothing changed it.
                Err(LogError::Unknown { .. } | LogError::Closed) => {}
                Err(error) => panic!("process `{process_id}` could not be verified: {error}"),
            }
        }
    }
}

#[async_trait]
impl ProcessRegistry for FoldChecked {
    async fn execute(&self, process_id: &ProcessId, command: Command) -> Result<Receipt, RegistryError> {
        let result = self.inner.execute(process_id, command).await;
        self.check_step(std::slice::from_ref(process_id)).await;
        result
    }

    async fn execute_across(&self, command: RegistryCommand) -> Result<RegistryReceipt, RegistryError> {
        let result = self.inner.execute_across(command).await;
        self.check_step(&[]).await;
        result
    }

    async fn query(&self, query: Query) -> Result<Answer, RegistryError> {
        self.inner.query(query).await
    }

    fn durability_tier(&self) -> DurabilityTier {
        self.inner.durability_tier()
    }

    fn change_source(&self) -> Option<ChangeSource> {
        self.inner.change_source()
    }
}

/// The refusal that a call was answered with.
///
/// # Panics
/// If it was answered otherwise.
#[track_caller]
pub(super) fn refusal<T: Debug>(result: Result<T, RegistryError>) -> Refusal {
    match result {
        Err(RegistryError::Refused(refusal)) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

/// That a call was refused because the process is unknown.
///
/// # Panics
/// If it was answered otherwise.
#[track_caller]
pub(super) fn assert_unknown<T: Debug>(result: Result<T, RegistryError>, process_id: &ProcessId) {
    let refusal = refusal(result);
    assert_eq!(refusal, Refusal::Unknown { process_id: process_id.clone() });
    assert_eq!(refusal.to_string(), format!("unknown process `{process_id}`"));
}
