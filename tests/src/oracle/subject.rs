//! The registry under test: two handles over one log, and everything that may befall them between two steps.

use std::sync::Arc;
use std::time::Duration;

use registry_actor::actor::{ActorRegistry, RegistryOptions, RestartPolicy};
use registry_actor::domain::ProcessId;
use registry_actor::log::{MemoryLog, SqliteLog, SqliteOptions};
use registry_actor::port::{Clock, ProcessLog, Timestamp};
use tempfile::TempDir;

use crate::ManualClock;

/// Over which log the registry stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// In memory, with tokio's paused time.
    Memory,
    /// In a file.
    Sqlite,
}

/// The registry under test.
pub struct Subject {
    store: Store,
    clock: Arc<ManualClock>,
    doors: [ActorRegistry; 2],
}

enum Store {
    Memory(MemoryLog),
    Sqlite(TempDir),
}

/// How long an actor is idle before it rests: about no time, so that it happens all the while.
const IDLE: Duration = Duration::from_millis(1);
/// A safety net for shutdowns, no measure.
const PATIENCE: Duration = Duration::from_secs(60);

impl Subject {
    /// Opens an empty store.
    ///
    /// # Panics
    /// If it does not open.
    pub async fn open(backend: Backend) -> Self {
        let store = match backend {
            Backend::Memory => Store::Memory(MemoryLog::new("store")),
            Backend::Sqlite => Store::Sqlite(tempfile::tempdir().expect("a directory")),
        };
        let clock = Arc::new(ManualClock::default());
        let doors = open_doors(&store, &clock).await;
        Self { store, clock, doors }
    }

    /// One of the two handles.
    #[must_use]
    pub fn door(&self, door: u8) -> &ActorRegistry {
        &self.doors[usize::from(door) % self.doors.len()]
    }

    /// The log beneath both.
    #[must_use]
    pub fn log(&self) -> &Arc<dyn ProcessLog> {
        self.doors[0].log()
    }

    /// Both clocks.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Lets time pass.
    pub fn pass(&self, ms: u64) {
        self.clock.advance_ms(ms);
    }

    /// Moves the wall clock alone.
    pub fn jump(&self, ms: i64) {
        self.clock.set_epoch_ms(self.clock.now().epoch_ms.saturating_add_signed(ms));
    }

    /// Kills what lives of a process.
    pub fn kill_process(&self, door: u8, id: &ProcessId) {
        self.door(door).process_actor(id).into_iter().for_each(|actor| actor.kill());
    }

    /// Kills the shard of a process with all that it supervises.
    pub fn kill_shard(&self, door: u8, id: &ProcessId) {
        self.door(door).supervisors_of(id).first().into_iter().for_each(|actor| actor.kill());
    }

    /// Kills the publisher.
    pub fn kill_publisher(&self, door: u8, id: &ProcessId) {
        self.door(door).supervisors_of(id).last().into_iter().for_each(|actor| actor.kill());
    }

    /// Gives idle actors the time to come to rest. Whether they take it is not this test's question.
    pub async fn rest(&self) {
        match self.store {
            // Paused time: nobody sleeps.
            Store::Memory(_) => tokio::time::sleep(5 * IDLE).await,
            Store::Sqlite(_) => {
                for _ in 0..1_000 {
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Shuts the registry down, and opens the store again.
    pub async fn reopen(&mut self) {
        self.close().await;
        if let Store::Memory(log) = &mut self.store {
            *log = log.reopen();
        }
        self.doors = open_doors(&self.store, &self.clock).await;
    }

    /// Shuts the registry down.
    pub async fn close(&self) {
        for door in &self.doors {
            door.shut_down(PATIENCE).await;
        }
    }
}

async fn open_doors(store: &Store, clock: &Arc<ManualClock>) -> [ActorRegistry; 2] {
    let log: Arc<dyn ProcessLog> = match store {
        Store::Memory(log) => Arc::new(log.clone()),
        Store::Sqlite(directory) => {
            let log = SqliteLog::open(directory.path().join("store.db"), SqliteOptions::default());
            Arc::new(log.expect("the store opens"))
        }
    };
    let mut options = RegistryOptions::default();
    options.shards = 2;
    options.passivate_after = IDLE;
    options.sweep_interval = IDLE;
    options.clock = Arc::clone(clock) as _;
    // A history kills more often than a quarantine allows.
    options.restart =
        RestartPolicy { first_delay: IDLE, longest_delay: IDLE, failures_allowed: 10_000, ..options.restart };
    let open = async || ActorRegistry::start(Arc::clone(&log), options.clone()).await.expect("the registry starts");
    [open().await, open().await]
}
