//! How a store is opened. The defaults are what a host wants; the rest is there for tests and measurements.

use std::sync::Arc;
use std::time::Duration;

use super::faults::{NoWriterFaults, WriterFaults};
use super::queue::GroupLimits;
use super::schema::Synchronous;
use super::vacuum::VacuumPace;
use crate::log::QueueLimits;

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    pub(super) queue: QueueLimits,
    pub(super) group: GroupLimits,
    pub(super) reader_threads: usize,
    pub(super) writer_cache_kib: u32,
    pub(super) checkpoint_pages: i64,
    pub(super) wal_limit_bytes: u64,
    pub(super) vacuum: VacuumPace,
    pub(super) first_reopen_wait: Duration,
    pub(super) synchronous: Synchronous,
    pub(super) faults: Arc<dyn WriterFaults>,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            queue: QueueLimits::default(),
            group: GroupLimits { events: 1_024, bytes: 1 << 20 },
            reader_threads: 2,
            writer_cache_kib: 64 * 1_024,
            checkpoint_pages: 2_000,
            wal_limit_bytes: 32 << 20,
            vacuum: VacuumPace::default(),
            first_reopen_wait: Duration::from_millis(100),
            synchronous: Synchronous::Full,
            faults: Arc::new(NoWriterFaults),
        }
    }
}

impl SqliteOptions {
    /// The same with other queues before the writer.
    #[must_use]
    pub const fn with_queue(mut self, limits: QueueLimits) -> Self {
        self.queue = limits;
        self
    }

    /// The same with another number of threads that read; at least one.
    #[must_use]
    pub const fn with_reader_threads(mut self, threads: usize) -> Self {
        self.reader_threads = threads;
        self
    }

    /// The same with a checkpoint whenever so many pages wait for one.
    #[must_use]
    pub const fn with_checkpoint_pages(mut self, pages: u32) -> Self {
        self.checkpoint_pages = pages as i64;
        self
    }

    /// The same with a log file (`FILE-wal`) that is cut to so many bytes when it begins anew; it may be larger meanwhile.
    #[must_use]
    pub const fn with_wal_limit_bytes(mut self, bytes: u64) -> Self {
        self.wal_limit_bytes = bytes;
        self
    }

    /// The same with another pace at which space that a prune freed is given back to the disk.
    #[must_use]
    pub const fn with_vacuum(mut self, pace: VacuumPace) -> Self {
        self.vacuum = pace;
        self
    }

    /// The same with another wait before the second attempt to reopen a failed store; it doubles with each attempt.
    #[must_use]
    pub const fn with_first_reopen_wait(mut self, wait: Duration) -> Self {
        self.first_reopen_wait = wait;
        self
    }

    /// The same with faults at the writer.
    #[must_use]
    pub fn with_faults(mut self, faults: Arc<dyn WriterFaults>) -> Self {
        self.faults = faults;
        self
    }

    /// The same without a sync at each commit: **a loss of power loses answered batches**. It exists so that the test of
    /// that loss can be shown to have teeth.
    #[doc(hidden)]
    #[must_use]
    pub const fn dangerously_unsynced_for_tests(mut self) -> Self {
        self.synchronous = Synchronous::Normal;
        self
    }
}
