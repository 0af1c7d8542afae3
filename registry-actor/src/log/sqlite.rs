//! The log in one SQLite file. This host owns it: another that opens it for writing is turned away.
//!
//! It is put together here: the lock of the owner, the queue and the thread that writes, the threads that read. It knows
//! what a batch is, and nothing of why it was decided.

mod across;
mod backup;
mod backup_error;
mod check;
mod faults;
mod group;
mod heads;
mod hidden_copy;
mod log_file;
mod migration;
mod open_error;
mod options;
mod owner;
mod pool;
mod queue;
mod read;
mod reader;
mod record_columns;
mod restore;
mod schema;
mod type_blocks;
mod vacuum;
mod wakes;
mod whole_check;
mod writer;

use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};

use async_trait::async_trait;
use tokio::sync::{oneshot, watch};

pub use self::backup::{BackupCheck, BackupProgress, BackupReport};
pub use self::backup_error::BackupError;
pub use self::faults::{FaultVerdict, WriterFaults, WriterPoint};
pub use self::open_error::OpenError;
pub use self::options::SqliteOptions;
pub use self::owner::StoreHolder;
pub use self::reader::SqliteReader;
pub use self::restore::{EarlierSessions, ExistingStore, RestoreReport};
pub use self::vacuum::{VacuumAtClose, VacuumPace};
pub use self::whole_check::CheckedStore;

use self::group::GroupWriter;
use self::log_file::LogFile;
use self::owner::OwnerLock;
use self::pool::ReaderPool;
use self::queue::{Lane, Queue, Queued, QueuedAcross};
use self::vacuum::Vacuum;
use self::writer::{Writer, WriterSettings};
use super::across::PruneSearch;
use super::codec;
use super::followers::Followers;
use crate::domain::{
    DecisionContext, Digest, ProcessEvent, ProcessId, RegistryCommand, RegistryReceipt, ReplayKey, StoreSession,
    check_across,
};
use crate::port::{
    AcrossError, Answer, AppendError, AppendReply, CommitFollower, DurabilityTier, FeedPage, LogError, Position,
    ProcessBatch, ProcessLog, ProcessVerification, Query, StoredProcess,
};

/// A log in one SQLite file.
///
/// Dropping it ends its writer as [`close`](ProcessLog::close) does, and waits for that on the dropping thread.
pub struct SqliteLog {
    session: StoreSession,
    reader: SqliteReader,
    queue: Arc<Queue>,
    followers: Arc<Followers>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Becomes true, or loses its sender, when the writer has given the store back.
    ended: watch::Receiver<bool>,
}

impl SqliteLog {
    /// Opens a store, makes it if there is none, and begins a session in it.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(path: impl AsRef<Path>, options: SqliteOptions) -> Result<Self, OpenError> {
        let path = owner::canonical(path.as_ref())?;
        let lock = OwnerLock::acquire(&path)?;
        owner::warn_of_network(&path);
        owner::create_private(&path)?;
        owner::refuse_several_names(&path)?;
        let failed = |error| OpenError::of_sqlite(&path, &error);
        if log_file::rewrite_of_store(&path)? == LogFile::Rewritten {
            let _ = options.faults.reached(WriterPoint::LogFileRewritten);
        }
        let mut connection =
            schema::connect_writer(&path, options.synchronous, options.writer_cache_kib, options.wal_limit_bytes)
                .map_err(failed)?;
        schema::prepare(&mut connection, &path)?;
        let identity = schema::begin_session(&mut connection, &fresh_store_id(&path)?).map_err(failed)?;
        // After the first commit all files of the store are there, and their names have to survive as well.
        owner::sync_parent(&path)?;
        let session = identity.store_session();

        // A host that ended in the middle of giving pages back leaves the rest to the next.
        let vacuum = Vacuum::of(&connection, options.vacuum).map_err(failed)?;
        let group = GroupWriter::new(connection).map_err(failed)?;
        let told = group.last_position();
        let queue = Arc::new(Queue::new(options.queue));
        let followers = Arc::new(Followers::starting_after(told));
        let threads_failed = |error: std::io::Error| OpenError::of_io(&path, &error);
        let pool = ReaderPool::start(path.clone(), options.synchronous, options.reader_threads, None)
            .map_err(threads_failed)?;
        let reader = SqliteReader::beside(Arc::clone(&pool), identity.store_id.into());
        let writer = Writer {
            settings: WriterSettings {
                path: path.clone(),
                synchronous: options.synchronous,
                cache_kib: options.writer_cache_kib,
                group: options.group,
                checkpoint_pages: options.checkpoint_pages,
                wal_limit_bytes: options.wal_limit_bytes,
                vacuum: options.vacuum,
                first_reopen_wait: options.first_reopen_wait,
                faults: options.faults,
            },
            queue: Arc::clone(&queue),
            followers: Arc::clone(&followers),
            pool: Arc::clone(&pool),
            group: Some(group),
            told,
            vacuum,
        };
        let (end, ended) = watch::channel(false);
        let farewell = Farewell { queue: Arc::clone(&queue), pool, end, lock: Some(lock) };
        let thread = thread::Builder::new()
            .name("proctor-log-write".to_owned())
            .spawn(move || {
                let farewell = farewell;
                writer.run();
                drop(farewell);
            })
            .map_err(threads_failed)?;
        Ok(Self { session, reader, queue, followers, writer: Mutex::new(Some(thread)), ended })
    }

    /// As [`SqliteReader::backup`]; it also gives way where the store fails, which it would keep from being reopened.
    ///
    /// # Errors
    /// [`BackupError`].
    pub async fn backup(
        &self,
        to: impl AsRef<Path>,
        check: BackupCheck,
        progress: impl FnMut(BackupProgress) -> ControlFlow<()> + Send + 'static,
    ) -> Result<BackupReport, BackupError> {
        let queue = Arc::clone(&self.queue);
        let may_go_on = move || queue.broken().map_or(Ok(()), |reason| Err(BackupError::StoreFailed { reason }));
        self.reader.backup_while(to.as_ref(), check, Box::new(progress), may_go_on).await
    }

    /// As [`SqliteReader::verify_marks`].
    ///
    /// # Errors
    /// [`LogError`].
    pub async fn verify_marks(&self) -> Result<Option<String>, LogError> {
        self.settled()?;
        self.reader.verify_marks().await
    }

    /// Why nothing is stored now: the store failed and is being reopened. `None` while it takes what it is given.
    #[must_use]
    pub fn outage(&self) -> Option<String> {
        self.queue.broken()
    }

    /// What became of the store after a failure: nothing may be concluded from it until it is whole again.
    fn settled(&self) -> Result<(), LogError> {
        match self.queue.broken() {
            None => Ok(()),
            Some(reason) => Err(LogError::Unreadable { reason }),
        }
    }

    fn join(&self) {
        let thread = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A reply or a follower may hold the last reference: the writer cannot wait for itself.
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != thread::current().id())
            && thread.join().is_err()
        {
            tracing::error!("the writer of the store panicked");
        }
    }
}

/// What the writer's thread does last, also when it panics: answers, ends the readers, and gives the store back.
struct Farewell {
    queue: Arc<Queue>,
    pool: Arc<ReaderPool>,
    end: watch::Sender<bool>,
    lock: Option<OwnerLock>,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        self.queue.end();
        self.pool.shut();
        self.lock = None;
        self.end.send_replace(true);
    }
}

impl Drop for SqliteLog {
    fn drop(&mut self) {
        self.queue.close();
        self.join();
    }
}

impl fmt::Debug for SqliteLog {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SqliteLog").field("session", &self.session).finish_non_exhaustive()
    }
}

#[async_trait]
impl ProcessLog for SqliteLog {
    fn session(&self) -> &StoreSession {
        &self.session
    }

    fn submit(&self, batch: ProcessBatch, reply: AppendReply) {
        let lane = if batch.urgent { Lane::Urgent } else { Lane::Plain };
        if let Some(refusal) = self.queue.turn_away(lane) {
            return reply.answer(Err(refusal));
        }
        // Here and not on the writer's thread, which is the one thing that all processes share.
        match codec::encode(batch) {
            Ok(batch) => self.queue.push(Queued { batch, reply }),
            Err(malformed) => reply.answer(Err(AppendError::NotAccepted { reason: malformed.to_string() })),
        }
    }

    /// While the store is being reopened after a failure this is an error: what is read then may not be what is stored.
    async fn load(&self, process_id: &ProcessId, operation_tail: u32) -> Result<Option<StoredProcess>, LogError> {
        self.settled()?;
        self.reader.load(process_id, operation_tail).await
    }

    async fn find_replays(
        &self,
        process_id: &ProcessId,
        keys: Vec<ReplayKey>,
    ) -> Result<Vec<(ReplayKey, Option<Arc<ProcessEvent>>)>, LogError> {
        self.settled()?;
        self.reader.find_replays(process_id, keys).await
    }

    async fn execute_across(
        &self,
        command: RegistryCommand,
        context: DecisionContext,
    ) -> Result<RegistryReceipt, AcrossError> {
        if let Some(refusal) = self.queue.turn_away(Lane::Plain) {
            return Err(refusal.into());
        }
        let searched = match &command {
            RegistryCommand::Prune { filter, watermark, limit } => {
                check_across(&command)?;
                let search = PruneSearch::new(filter, watermark, *limit, &context);
                Some(self.reader.search_for_prune(search).await?)
            }
            _ => None,
        };
        let (reply, answered) = oneshot::channel();
        self.queue.push_across(QueuedAcross { command, searched, context, reply });
        // A command that is not answered was in the hands of a writer that died.
        answered.await.unwrap_or_else(|_| {
            Err(AppendError::Unknown { reason: "the writer ended before it answered".to_owned() }.into())
        })
    }

    fn durability(&self) -> DurabilityTier {
        DurabilityTier::Durable
    }

    async fn query(&self, query: Query) -> Result<Answer, LogError> {
        self.reader.query(query).await
    }

    async fn feed(&self, after: Position, limit: u32) -> Result<FeedPage, LogError> {
        self.reader.feed(after, limit).await
    }

    fn follow(&self, follower: Weak<dyn CommitFollower>) -> Position {
        self.followers.add(follower)
    }

    async fn verify(&self, process_id: &ProcessId) -> Result<ProcessVerification, LogError> {
        self.reader.verify(process_id).await
    }

    async fn process_ids(&self, after: Option<ProcessId>, limit: u32) -> Result<Vec<ProcessId>, LogError> {
        self.reader.process_ids(after, limit).await
    }

    async fn close(&self) {
        self.queue.close();
        let mut ended = self.ended.clone();
        // An error means that the sender is gone, and with it the writer.
        let _ = ended.wait_for(|ended| *ended).await;
        self.join();
    }
}

/// Makes a store of a backup, checks all of it first, and gives it a new epoch: cursors of the store as it was are refused by type.
/// It keeps the id of the store. What it proves about hosts of the original says [`EarlierSessions`].
///
/// A store that stands there is whole until the step that replaces it. `progress` is called between steps, on the thread that
/// copies.
///
/// Cancellation: a dropped future ends the work at its next step, and nothing is restored.
///
/// # Errors
/// [`BackupError`].
pub async fn restore_backup(
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    existing: ExistingStore,
    progress: impl FnMut(BackupProgress) -> ControlFlow<()> + Send + 'static,
) -> Result<RestoreReport, BackupError> {
    let (from, to) = (from.as_ref().to_owned(), to.as_ref().to_owned());
    backup::in_background(
        "proctor-log-restore",
        Box::new(progress),
        || Ok(()),
        move |watch| restore::restore(&from, &to, existing, watch),
    )
    .await
}

fn fresh_store_id(path: &Path) -> Result<String, OpenError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random)
        .map_err(|error| OpenError::Io { path: path.to_owned(), reason: format!("no randomness: {error}") })?;
    let digest = Digest::of_parts([&random]).to_string();
    Ok(digest.chars().take(32).collect())
}
