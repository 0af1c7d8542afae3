//! The locks of the wait table and of the line to listeners. Its own file, so that a model checker can put its own in their place.

pub(super) use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
