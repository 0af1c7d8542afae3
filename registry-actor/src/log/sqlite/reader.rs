//! A store that is read beside the host that owns it, or after that host has gone.

use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::across::{AcrossFailure, EndedReads};
use super::backup::{self, BackupCheck, BackupProgress, BackupReport, Progress};
use super::backup_error::BackupError;
use super::check::{Check, Step};
use super::open_error::OpenError;
use super::pool::ReaderPool;
use super::schema::{self, Synchronous};
use super::{owner, read, whole_check};
use crate::domain::{ProcessEvent, ProcessId, ReplayKey, StoreSession};
use crate::log::across::{PruneSearch, SearchStep};
use crate::port::{AcrossError, Answer, FeedPage, LogError, Position, ProcessVerification, Query, StoredProcess};

/// Reads a store and never changes it. It takes no lock: a live owner does not notice it.
pub struct SqliteReader {
    pool: Arc<ReaderPool>,
    store_id: Arc<str>,
}

impl SqliteReader {
    /// How many threads read.
    const THREADS: usize = 2;

    /// Opens a store for reading.
    ///
    /// # Errors
    /// [`OpenError`]; never [`OpenError::Owned`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_with(path, Self::THREADS, None)
    }

    /// The same, and counts the steps of SQLite's machine: for measurements of what a read costs.
    ///
    /// # Errors
    /// [`OpenError`]; never [`OpenError::Owned`].
    #[doc(hidden)]
    pub fn open_metered(path: impl AsRef<Path>, steps: Arc<AtomicU64>) -> Result<Self, OpenError> {
        // One thread, so that a second read meets the connection of the first.
        Self::open_with(path, 1, Some(steps))
    }

    fn open_with(path: impl AsRef<Path>, threads: usize, meter: Option<Arc<AtomicU64>>) -> Result<Self, OpenError> {
        let path = path.as_ref();
        if !path.exists() {
            return Err(OpenError::Missing { path: path.to_owned() });
        }
        let path = owner::canonical(path)?;
        let failed = |error| OpenError::of_sqlite(&path, &error);
        let connection = schema::connect_reader(&path, Synchronous::Full).map_err(failed)?;
        schema::check_readable(&connection, &path)?;
        let identity = schema::read_identity(&connection).map_err(failed)?.ok_or_else(|| OpenError::Unusable {
            path: path.clone(),
            reason: "it was never opened by a host".to_owned(),
        })?;
        drop(connection);
        let pool = ReaderPool::start(path.clone(), Synchronous::Full, threads, meter)
            .map_err(|error| OpenError::of_io(&path, &error))?;
        Ok(Self { pool, store_id: identity.store_id.into() })
    }

    /// Reads beside the writer of the same host.
    pub(super) const fn beside(pool: Arc<ReaderPool>, store_id: Arc<str>) -> Self {
        Self { pool, store_id }
    }

    /// Identity of the store.
    #[must_use]
    pub fn store_id(&self) -> &Arc<str> {
        &self.store_id
    }

    /// The session from which the deaths of owners are seen: the present one while a host owns the store, and the next one when
    /// none does, since whoever opens the store next has proved that the present one is over. Where the system does not
    /// tell whether a host owns it, the present one.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn judging_session(&self) -> Result<StoreSession, LogError> {
        // Asked before the number is read: a host that begins a session in between is not taken for one that is over.
        let is_owned = owner::is_owned(self.pool.path()).unwrap_or(true);
        let identity = self.pool.read(|connection| Ok(schema::read_identity(connection)?)).await?;
        // As the writer names its sessions: those of a restored store say nothing of those of its original.
        let present = identity.map_or_else(
            || StoreSession { store_id: Arc::clone(&self.store_id), number: 0 },
            |identity| identity.store_session(),
        );
        let number = if is_owned { present.number } else { present.number.saturating_add(1) };
        Ok(StoreSession { number, ..present })
    }

    /// As [`ProcessLog::load`](crate::port::ProcessLog::load).
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn load(&self, process_id: &ProcessId, operation_tail: u32) -> Result<Option<StoredProcess>, LogError> {
        let process_id = process_id.clone();
        self.pool.read(move |connection| read::load(connection, &process_id, operation_tail)).await
    }

    /// As [`ProcessLog::find_replays`](crate::port::ProcessLog::find_replays).
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn find_replays(
        &self,
        process_id: &ProcessId,
        keys: Vec<ReplayKey>,
    ) -> Result<Vec<(ReplayKey, Option<Arc<ProcessEvent>>)>, LogError> {
        let process_id = process_id.clone();
        self.pool.read(move |connection| read::find_replays(connection, &process_id, keys)).await
    }

    /// As [`ProcessLog::query`](crate::port::ProcessLog::query).
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn query(&self, query: Query) -> Result<Answer, LogError> {
        self.pool.read(move |connection| read::query(connection, &query)).await
    }

    /// As [`ProcessLog::feed`](crate::port::ProcessLog::feed).
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn feed(&self, after: Position, limit: u32) -> Result<FeedPage, LogError> {
        self.pool.read(move |connection| read::feed(connection, after, limit)).await
    }

    /// As [`ProcessLog::verify`](crate::port::ProcessLog::verify). Each page is a job of its own, so that a long check
    /// leaves room for other reads.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn verify(&self, process_id: &ProcessId) -> Result<ProcessVerification, LogError> {
        let mut check = Check::of(process_id.clone());
        loop {
            match self.pool.read(move |connection| check.step(connection)).await? {
                Step::Unfinished(next) => check = *next,
                Step::Finished(verification) => return Ok(verification),
            }
        }
    }

    /// Checks what belongs to no process: the structure of the file, and the prunes and deletions of sessions in the feed. Answers
    /// what is damaged, or some of it. It reads the whole file in one transaction, which keeps the log file of a host from
    /// being emptied for as long.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn verify_file(&self) -> Result<Vec<String>, LogError> {
        self.pool.read(|connection| whole_check::faults_of_the_file(connection)).await
    }

    /// The same of the prunes and deletions of sessions alone.
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn verify_marks(&self) -> Result<Option<String>, LogError> {
        self.pool.read(|connection| whole_check::faults_of_the_marks(connection)).await
    }

    /// As [`ProcessLog::process_ids`](crate::port::ProcessLog::process_ids).
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn process_ids(&self, after: Option<ProcessId>, limit: u32) -> Result<Vec<ProcessId>, LogError> {
        self.pool.read(move |connection| read::process_ids(connection, after.as_ref(), limit)).await
    }

    /// What a prune may remove, looked for beside the writer and in steps that leave room for other reads.
    pub(super) async fn search_for_prune(&self, mut search: PruneSearch) -> Result<PruneSearch, AcrossError> {
        loop {
            let stepped;
            (search, stepped) = self
                .pool
                .read(move |connection| {
                    let snapshot = connection.unchecked_transaction()?;
                    let stepped = search.step(&mut EndedReads(&snapshot));
                    Ok((search, stepped))
                })
                .await?;
            match stepped {
                Ok(SearchStep::More) => {}
                Ok(SearchStep::Done) => return Ok(search),
                Err(AcrossFailure::Refused(error)) => return Err(error),
                Err(AcrossFailure::Statement(error)) => {
                    return Err(LogError::Unreadable { reason: error.to_string() }.into());
                }
            }
        }
    }

    /// Copies the store into a new file, while a host of this or of another process writes on: every append that was answered
    /// before is in it, and it is the store as of one commit. The copy is durable when this answers; before that there is no
    /// file of that name. Its mode is 0600, and no host opens it before it was [restored](super::restore_backup).
    ///
    /// The host's log file (`FILE-wal`) grows by what is written while pages are copied, and a store that failed cannot be
    /// reopened before they are. `progress` is called between steps, on the thread that copies.
    ///
    /// Cancellation: a dropped future ends the work at its next step, and what was copied is removed.
    ///
    /// # Errors
    /// [`BackupError`].
    pub async fn backup(
        &self,
        to: impl AsRef<Path>,
        check: BackupCheck,
        progress: impl FnMut(BackupProgress) -> ControlFlow<()> + Send + 'static,
    ) -> Result<BackupReport, BackupError> {
        self.backup_while(to.as_ref(), check, Box::new(progress), || Ok(())).await
    }

    pub(super) async fn backup_while(
        &self,
        to: &Path,
        check: BackupCheck,
        progress: Progress,
        may_go_on: impl Fn() -> Result<(), BackupError> + Send + 'static,
    ) -> Result<BackupReport, BackupError> {
        let (from, to) = (self.pool.path().to_owned(), to.to_owned());
        backup::in_background("proctor-log-backup", progress, may_go_on, move |watch| {
            backup::back_up(&from, &to, check, watch)
        })
        .await
    }
}

impl Drop for SqliteReader {
    fn drop(&mut self) {
        self.pool.shut();
    }
}

impl fmt::Debug for SqliteReader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SqliteReader").field("store_id", &self.store_id).finish_non_exhaustive()
    }
}
