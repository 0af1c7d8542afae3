//! The table of executors: which kind of process is run by what.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::port::ProcessExecutor;

/// The executors of a worker, by the kind of the input that they run.
#[derive(Clone, Default)]
pub struct ProcessExecutors(BTreeMap<String, Arc<dyn ProcessExecutor>>);

impl ProcessExecutors {
    /// The same with this executor for processes whose input is of this kind, in the place of an earlier one.
    #[must_use]
    pub fn with(mut self, input_kind: impl Into<String>, executor: impl ProcessExecutor + 'static) -> Self {
        self.0.insert(input_kind.into(), Arc::new(executor));
        self
    }

    /// The executor of a kind.
    #[must_use]
    pub fn of(&self, input_kind: &str) -> Option<&Arc<dyn ProcessExecutor>> {
        self.0.get(input_kind)
    }
}

impl fmt::Debug for ProcessExecutors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}
