//! Who may keep how many streams open: so many in all, half of them for one caller, and so many of the change feed.
//!
//! It owns these counts. It does not know what a stream tells.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use axum::http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use super::problem::Problem;

/// How many streams of the change feed are open at the same time: each commit of the store is work for every one of them.
const CHANGE_STREAMS: usize = 64;

/// How many of them read at the same time, so that whoever commits finds room among the readers of the store.
const CHANGE_READS: usize = 2;

/// The room for streams.
#[derive(Debug)]
pub(crate) struct StreamRoom {
    all: Arc<Semaphore>,
    most: usize,
    changes: Arc<Semaphore>,
    change_reads: Semaphore,
    by_caller: Arc<Mutex<BTreeMap<String, usize>>>,
}

/// Room for one stream, for as long as it is kept.
#[derive(Debug)]
pub(super) struct StreamPlace {
    _of_all: OwnedSemaphorePermit,
    _of_changes: Option<OwnedSemaphorePermit>,
    caller: String,
    by_caller: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl StreamRoom {
    /// Room for so many; what is taken of it is taken of `all`.
    pub(crate) fn new(all: Arc<Semaphore>, most: usize) -> Self {
        Self {
            all,
            most,
            changes: Arc::new(Semaphore::new(CHANGE_STREAMS)),
            change_reads: Semaphore::new(CHANGE_READS),
            by_caller: Arc::default(),
        }
    }

    /// Room for a stream of one process.
    ///
    /// # Errors
    /// When there is none, or none for this caller.
    pub(super) fn take(&self, caller: &str) -> Result<StreamPlace, Problem> {
        self.take_with(caller, None)
    }

    /// Room for a stream of the change feed.
    ///
    /// # Errors
    /// When there is none, or none for this caller.
    pub(super) fn take_of_changes(&self, caller: &str) -> Result<StreamPlace, Problem> {
        let of_changes = Arc::clone(&self.changes)
            .try_acquire_owned()
            .map_err(|_| too_many(format!("{CHANGE_STREAMS} streams of changes are open already")))?;
        self.take_with(caller, Some(of_changes))
    }

    fn take_with(&self, caller: &str, of_changes: Option<OwnedSemaphorePermit>) -> Result<StreamPlace, Problem> {
        let of_all = Arc::clone(&self.all)
            .try_acquire_owned()
            .map_err(|_| too_many(format!("{} streams are open already", self.most)))?;
        let share = self.most.div_ceil(2);
        let mut by_caller = self.by_caller.lock().unwrap_or_else(PoisonError::into_inner);
        let open = by_caller.entry(caller.to_owned()).or_default();
        if *open >= share {
            return Err(too_many(format!(
                "{share} streams of `{caller}` are open already, half of what there is room for"
            )));
        }
        *open += 1;
        Ok(StreamPlace {
            _of_all: of_all,
            _of_changes: of_changes,
            caller: caller.to_owned(),
            by_caller: Arc::clone(&self.by_caller),
        })
    }

    /// A turn to read the change feed; `None` when there is none any more. May be dropped at any time.
    pub(super) async fn turn_to_read_changes(&self) -> Option<SemaphorePermit<'_>> {
        self.change_reads.acquire().await.ok()
    }
}

fn too_many(detail: String) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_streams", detail).retry_after(5)
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let mut by_caller = self.by_caller.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = by_caller.get_mut(&self.caller) {
            *open -= 1;
            if *open == 0 {
                by_caller.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(most: usize) -> StreamRoom {
        StreamRoom::new(Arc::new(Semaphore::new(most)), most)
    }

    #[test]
    fn one_caller_leaves_half_of_the_room_to_the_others() {
        let room = room(5);
        let mut places: Vec<_> = (0..3).map(|_| room.take("a").expect("room")).collect();
        assert_eq!(room.take("a").expect_err("its half is taken").code(), "too_many_streams");
        places.extend((0..2).map(|_| room.take("b").expect("room for another")));
        assert_eq!(room.take("b").expect_err("all is taken").code(), "too_many_streams");
        drop(places);
        assert!(room.by_caller.lock().expect("a lock").is_empty());
        assert_eq!(room.take("a").map(|place| place.caller.clone()), Ok("a".to_owned()));
    }

    #[test]
    fn a_refused_stream_takes_no_room() {
        let room = room(2);
        let place = room.take("a").expect("room");
        assert!(room.take("a").is_err());
        let other = room.take_of_changes("b").expect("room");
        drop((place, other));
        assert_eq!((room.all.available_permits(), room.changes.available_permits()), (2, CHANGE_STREAMS));
    }

    #[test]
    fn streams_of_changes_are_bounded_by_themselves() {
        let room = room(1_000);
        let _places: Vec<_> = (0..CHANGE_STREAMS).map(|_| room.take_of_changes("a").expect("room")).collect();
        assert_eq!(room.take_of_changes("b").expect_err("all is taken").code(), "too_many_streams");
        assert!(room.take("a").is_ok());
    }
}
