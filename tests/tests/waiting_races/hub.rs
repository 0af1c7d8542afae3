//! The very source file of the hub's ticks, compiled a second time, against the checker's locks.

mod sync {
    pub(super) use std::sync::PoisonError;

    pub(super) use loom::sync::{Mutex, MutexGuard};
}

#[path = "../../../awaiter/src/tick_map.rs"]
mod tick_map;

pub(crate) use tick_map::{HubClosed, TickMap};
