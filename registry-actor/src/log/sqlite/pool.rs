//! The threads that read, each with a connection of its own. It knows jobs, not what they read.
//!
//! A job is answered through a channel, whatever runtime awaits it; a caller that no longer waits costs nothing more than
//! its place in the queue.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::read::ReadError;
use super::schema::{self, Synchronous};
use crate::port::LogError;

/// Threads that read.
pub(super) struct ReaderPool {
    path: PathBuf,
    synchronous: Synchronous,
    /// Counts the steps of SQLite's machine, where a test measures what a read costs.
    meter: Option<Arc<AtomicU64>>,
    jobs: Mutex<Jobs>,
    arrived: Condvar,
    /// One for each thread, held while it runs a job.
    slots: Vec<Mutex<Option<Connection>>>,
}

struct Jobs {
    waiting: VecDeque<Job>,
    door: Door,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    Open,
    Shut,
}

type Job = Box<dyn FnOnce(Result<&mut Connection, LogError>) + Send>;

impl ReaderPool {
    /// Starts the threads; they end when the pool is shut.
    pub(super) fn start(
        path: PathBuf,
        synchronous: Synchronous,
        threads: usize,
        meter: Option<Arc<AtomicU64>>,
    ) -> std::io::Result<Arc<Self>> {
        let pool = Arc::new(Self {
            path,
            synchronous,
            meter,
            jobs: Mutex::new(Jobs { waiting: VecDeque::new(), door: Door::Open }),
            arrived: Condvar::new(),
            slots: (0..threads.max(1)).map(|_| Mutex::new(None)).collect(),
        });
        for number in 0..pool.slots.len() {
            let serving = Arc::clone(&pool);
            let started =
                thread::Builder::new().name(format!("proctor-log-read-{number}")).spawn(move || serving.serve(number));
            if let Err(error) = started {
                pool.shut();
                return Err(error);
            }
        }
        Ok(pool)
    }

    /// The file that is read.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs a read on one of the threads and awaits its answer.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Connection) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, LogError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            if !answer.is_closed() {
                let _ = answer.send(connection.and_then(|connection| read(connection).map_err(LogError::from)));
            }
        });
        {
            let mut jobs = self.jobs();
            if jobs.door == Door::Shut {
                return Err(LogError::Closed);
            }
            jobs.waiting.push_back(job);
        }
        self.arrived.notify_one();
        // A job that is not answered has panicked: a pool that shuts answers.
        answered.await.unwrap_or_else(|_| Err(LogError::Unreadable { reason: "the read panicked".to_owned() }))
    }

    /// Runs something while no connection of the pool exists.
    pub(super) fn without_connections<T>(&self, action: impl FnOnce() -> T) -> T {
        let _standing_still: Vec<_> = self
            .slots
            .iter()
            .map(|slot| {
                let mut connection = lock(slot);
                *connection = None;
                connection
            })
            .collect();
        action()
    }

    /// Answers what waits with closed, and ends the threads; returns when no connection is left. May be called twice.
    pub(super) fn shut(&self) {
        let waiting = {
            let mut jobs = self.jobs();
            jobs.door = Door::Shut;
            std::mem::take(&mut jobs.waiting)
        };
        for job in waiting {
            job(Err(LogError::Closed));
        }
        self.arrived.notify_all();
        self.without_connections(|| {});
    }

    fn serve(&self, number: usize) {
        let Some(slot) = self.slots.get(number) else { return };
        while let Some(job) = self.next_job() {
            let mut slot = lock(slot);
            // The pool may have shut while this thread waited for its slot.
            if self.jobs().door == Door::Shut {
                job(Err(LogError::Closed));
                return;
            }
            if slot.is_none() {
                match self.connect() {
                    Ok(connection) => *slot = Some(connection),
                    Err(error) => {
                        job(Err(LogError::Unreadable { reason: error.to_string() }));
                        continue;
                    }
                }
            }
            if let Some(connection) = slot.as_mut()
                && catch_unwind(AssertUnwindSafe(|| job(Ok(connection)))).is_err()
            {
                // A read must not take its thread along. What it left of its connection is not used again.
                tracing::error!("a read of the store panicked");
                *slot = None;
            }
        }
    }

    fn connect(&self) -> Result<Connection, rusqlite::Error> {
        let mut connection = schema::connect_reader(&self.path, self.synchronous)?;
        if let Some(meter) = self.meter.clone() {
            connection.progress_handler(
                1,
                Some(move || {
                    meter.fetch_add(1, Ordering::Relaxed);
                    false
                }),
            )?;
        }
        Ok(connection)
    }

    fn next_job(&self) -> Option<Job> {
        let jobs = self.jobs();
        let mut jobs = self
            .arrived
            .wait_while(jobs, |jobs| jobs.waiting.is_empty() && jobs.door == Door::Open)
            .unwrap_or_else(PoisonError::into_inner);
        jobs.waiting.pop_front()
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock(slot: &Mutex<Option<Connection>>) -> MutexGuard<'_, Option<Connection>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}
