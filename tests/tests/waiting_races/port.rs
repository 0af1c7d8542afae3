//! The very source files of the wait table, compiled a second time, against the checker's locks.

mod sync {
    pub(super) use std::sync::PoisonError;

    pub(super) use loom::sync::{Mutex, MutexGuard, RwLock};
}

mod backoff {
    pub(super) use registry_actor::port::Backoff;
}

mod log {
    pub(super) use registry_actor::port::LogError;
}

mod registry {
    pub(super) use registry_actor::port::{ProcessRegistry, ProcessRegistryExt, RegistryError};
}

#[path = "../../../registry-actor/src/port/change.rs"]
mod change;
#[path = "../../../registry-actor/src/port/wait.rs"]
mod wait;
#[path = "../../../registry-actor/src/port/wait_table.rs"]
mod wait_table;

pub(crate) use change::{ChangeSource, CommittedBatch};
pub(crate) use wait::{Look, ProcessWait, WaitAnswer, WaitError, WaitReader};
