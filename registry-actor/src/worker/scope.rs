//! The scope of a worker: which processes are its concern.

use std::collections::BTreeSet;

use crate::domain::ProcessId;

/// Which processes a worker looks at. Everything else is as if it were not there: it is neither taken over nor reported.
///
/// Two workers with scopes that exclude each other keep a process that somebody waits for from standing behind others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum WorkerScope {
    /// All.
    #[default]
    Everything,
    /// These and no others.
    Only(BTreeSet<ProcessId>),
    /// All but these.
    AllBut(BTreeSet<ProcessId>),
}

impl WorkerScope {
    /// Whether the process is in it.
    #[must_use]
    pub fn contains(&self, process_id: &ProcessId) -> bool {
        match self {
            Self::Everything => true,
            Self::Only(ids) => ids.contains(process_id),
            Self::AllBut(ids) => !ids.contains(process_id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scope_says_what_is_in_it() {
        let (a, b) = (ProcessId::new("a").expect("an id"), ProcessId::new("b").expect("an id"));
        let ids = BTreeSet::from([a.clone()]);
        let found = |scope: WorkerScope| (scope.contains(&a), scope.contains(&b));
        assert_eq!(found(WorkerScope::default()), (true, true));
        assert_eq!(found(WorkerScope::Only(ids.clone())), (true, false));
        assert_eq!(found(WorkerScope::AllBut(ids)), (false, true));
    }
}
