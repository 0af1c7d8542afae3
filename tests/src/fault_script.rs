//! Faults at the named points of the registry, as a test scripts them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use registry_actor::domain::ProcessId;
use registry_actor::port::{FaultPoint, FaultPoints, TreeStep};

/// What happens at a point, once.
pub type Fault = Box<dyn FnOnce() + Send>;

/// Plays each scripted fault once, in order, at its point and process.
#[derive(Default)]
pub struct FaultScript {
    faults: Mutex<HashMap<(FaultPoint, ProcessId), Vec<Fault>>>,
    restarts: Mutex<Vec<Fault>>,
    steps: Mutex<Vec<TreeStep>>,
}

impl FaultScript {
    /// An empty script.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Panics at the next `times` passages of the point.
    pub fn panic_at(&self, point: FaultPoint, process_id: &ProcessId, times: usize) {
        for _ in 0..times {
            self.at(point, process_id, move || panic!("scripted fault at {point:?}"));
        }
    }

    /// Does something at the next passage of the point that has nothing scripted yet.
    pub fn at(&self, point: FaultPoint, process_id: &ProcessId, fault: impl FnOnce() + Send + 'static) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.entry((point, process_id.clone())).or_default().push(Box::new(fault));
    }

    /// Does something when the root is next about to start one of its supervisors again.
    pub fn at_restart(&self, fault: impl FnOnce() + Send + 'static) {
        self.restarts.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(fault));
    }

    /// How many scripted faults have not happened.
    #[must_use]
    pub fn left(&self) -> usize {
        let restarts = self.restarts.lock().unwrap_or_else(PoisonError::into_inner).len();
        restarts + self.faults.lock().unwrap_or_else(PoisonError::into_inner).values().map(Vec::len).sum::<usize>()
    }

    /// Who of the supervision tree began and ended, in order.
    #[must_use]
    pub fn steps(&self) -> Vec<TreeStep> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for FaultScript {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FaultScript").field("left", &self.left()).finish()
    }
}

impl FaultPoints for FaultScript {
    fn reached(&self, point: FaultPoint, process_id: &ProcessId) {
        let fault = {
            let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(scripted) = faults.get_mut(&(point, process_id.clone())) else {
                return;
            };
            if scripted.is_empty() {
                return;
            }
            scripted.remove(0)
        };
        fault();
    }

    fn tree(&self, step: &TreeStep) {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).push(*step);
        let fault = match step {
            TreeStep::Restarting(_) => self.restarts.lock().unwrap_or_else(PoisonError::into_inner).pop(),
            _ => None,
        };
        if let Some(fault) = fault {
            fault();
        }
    }
}
