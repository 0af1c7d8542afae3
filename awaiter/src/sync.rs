//! The locks of the hub. Its own file, so that a model checker can put its own in their place.

pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError};
