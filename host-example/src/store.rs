//! A store as the command line meets it: owned by this host, or read beside another one's.
//!
//! It owns the choice of the log and the words for what can be wrong with a file. Nothing else of the command line
//! knows which log it is.

use std::{
    fs,
    ops::ControlFlow,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use registry_actor::{
    domain::{
        Command, ProcessId, ProcessLease, ProcessListFilter, ProcessRecord, Receipt, RegistryCommand, RegistryReceipt,
        Sequence, StoreSession,
    },
    log::{
        BackupCheck, BackupError, BackupProgress, BackupReport, ExistingStore, OpenError, RestoreReport, SqliteLog,
        SqliteOptions, SqliteReader, VacuumAtClose, VacuumPace, restore_backup,
    },
    port::{
        Answer, DurabilityTier, EventPage, LogError, ProcessPage, ProcessRegistry, ProcessVerification, Query,
        RegistryError,
    },
};

use crate::failure::{Failure, FailureKind};

/// A store that this host owns until it is closed.
#[derive(Debug)]
pub(crate) struct OwnedStore {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// What is in it.
    pub(crate) log: Arc<SqliteLog>,
}

/// Why a store was not taken.
#[derive(Debug)]
pub(crate) enum TakeError {
    /// Another host lives with it.
    Owned {
        /// The file.
        path: PathBuf,
        /// The other host, as it describes itself.
        holder: String,
    },
    /// Anything else.
    Failed(Failure),
}

impl From<TakeError> for Failure {
    fn from(error: TakeError) -> Self {
        match error {
            TakeError::Owned { path, holder } => {
                Self::new(FailureKind::Temporary, format!("store {} is owned by {holder}", path.display()))
            }
            TakeError::Failed(failure) => failure,
        }
    }
}

impl OwnedStore {
    /// Becomes the owner of the store in this file, which is created if need be.
    ///
    /// # Errors
    /// [`TakeError`].
    pub(crate) fn take(path: &Path) -> Result<Self, TakeError> {
        Self::take_with(path, SqliteOptions::default())
    }

    /// The same for a store that must be there, and whose disk gets back what is pruned before it is given back.
    ///
    /// # Errors
    /// [`TakeError`].
    pub(crate) fn take_to_prune(path: &Path) -> Result<Self, TakeError> {
        if !path.exists() {
            return Err(TakeError::Failed(failure_of(&OpenError::Missing { path: path.to_owned() })));
        }
        let pace = VacuumPace { at_close: VacuumAtClose::Finish, ..VacuumPace::default() };
        Self::take_with(path, SqliteOptions::default().with_vacuum(pace))
    }

    fn take_with(path: &Path, options: SqliteOptions) -> Result<Self, TakeError> {
        match SqliteLog::open(path, options) {
            Ok(log) => Ok(Self { path: path.to_owned(), log: Arc::new(log) }),
            Err(OpenError::Owned { path, holder }) => Err(TakeError::Owned { path, holder: holder.to_string() }),
            Err(error) => Err(TakeError::Failed(failure_of(&error))),
        }
    }
}

/// A store that is read, whoever owns it.
#[derive(Debug)]
pub(crate) struct StoreReader {
    path: PathBuf,
    log: SqliteReader,
}

impl StoreReader {
    /// Opens the store in this file for reading. It must be there.
    ///
    /// # Errors
    /// When it is not, or is no store.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let log = SqliteReader::open(path).map_err(|error| match &error {
            // Where nothing is to be made, it is not a matter of making it.
            OpenError::PermissionDenied { .. } => {
                let owner = fs::metadata(path).map_or_else(
                    |_| String::new(),
                    |found| format!("; it is that of the user with id {}", found.uid()),
                );
                Failure::new(FailureKind::NoPermission, format!("{error}{owner}"))
            }
            error => failure_of(error),
        })?;
        Ok(Self { path: path.to_owned(), log })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The record of a process, if the store knows it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) async fn process(&self, process_id: &ProcessId) -> Result<Option<Arc<ProcessRecord>>, Failure> {
        match self.ask(Query::Process { process_id: process_id.clone() }).await? {
            Answer::Process(record) => Ok(record),
            _ => Err(self.wrong_answer()),
        }
    }

    /// The lease of a process as it is stored, expired or not.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) async fn lease(&self, process_id: &ProcessId) -> Result<Option<ProcessLease>, Failure> {
        match self.ask(Query::Lease { process_id: process_id.clone() }).await? {
            Answer::Lease(lease) => Ok(lease.map(|lease| *lease)),
            _ => Err(self.wrong_answer()),
        }
    }

    /// A page of events after a cursor.
    ///
    /// # Errors
    /// When the store cannot be read, or does not know the process.
    pub(crate) async fn events(
        &self,
        process_id: &ProcessId,
        after: Sequence,
        limit: u32,
    ) -> Result<EventPage, Failure> {
        match self.ask(Query::Events { process_id: process_id.clone(), after, limit }).await? {
            Answer::Events(page) => Ok(page),
            _ => Err(self.wrong_answer()),
        }
    }

    /// A page of records after a cursor.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) async fn processes(
        &self,
        filter: ProcessListFilter,
        after: Option<ProcessId>,
        limit: u32,
    ) -> Result<ProcessPage, Failure> {
        match self.ask(Query::Processes { filter, after, limit }).await? {
            Answer::Processes(page) => Ok(page),
            _ => Err(self.wrong_answer()),
        }
    }

    /// A page of ids after a cursor, read without anything else.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) async fn process_ids(&self, after: Option<ProcessId>, limit: u32) -> Result<Vec<ProcessId>, Failure> {
        self.log.process_ids(after, limit).await.map_err(|error| self.failure(&error))
    }

    /// Checks all that is stored of a process; `None` if the store does not know it.
    ///
    /// # Errors
    /// When the check could not be made.
    pub(crate) async fn verify(&self, process_id: &ProcessId) -> Result<Option<ProcessVerification>, Failure> {
        match self.log.verify(process_id).await {
            Ok(verification) => Ok(Some(verification)),
            Err(LogError::Unknown { .. }) => Ok(None),
            Err(error) => Err(self.failure(&error)),
        }
    }

    /// Checks what belongs to no process; answers what is damaged.
    ///
    /// # Errors
    /// When the check could not be made.
    pub(crate) async fn verify_file(&self) -> Result<Vec<String>, Failure> {
        self.log.verify_file().await.map_err(|error| self.failure(&error))
    }

    /// The session from which the deaths of owners are seen: of the host that owns the store, or of the next one.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) async fn judging_session(&self) -> Result<StoreSession, Failure> {
        self.log.judging_session().await.map_err(|error| self.failure(&error))
    }

    /// Copies the store into a new file.
    ///
    /// # Errors
    /// When it cannot be copied, or what was copied does not pass the check.
    pub(crate) async fn backup(
        &self,
        to: &Path,
        check: BackupCheck,
        progress: impl FnMut(BackupProgress) -> ControlFlow<()> + Send + 'static,
    ) -> Result<BackupReport, Failure> {
        self.log.backup(to, check, progress).await.map_err(|error| failure_of_backup(&error))
    }

    async fn ask(&self, query: Query) -> Result<Answer, Failure> {
        self.log.query(query).await.map_err(|error| self.failure(&error))
    }

    fn failure(&self, error: &LogError) -> Failure {
        Failure::from(error.clone()).in_store(&self.path)
    }

    fn wrong_answer(&self) -> Failure {
        Failure::new(FailureKind::Software, format!("store {} answered something else than asked", self.path.display()))
    }
}

/// A registry of which nothing but reads is carried out.
#[async_trait]
impl ProcessRegistry for StoreReader {
    async fn execute(&self, _: &ProcessId, _: Command) -> Result<Receipt, RegistryError> {
        Err(only_read())
    }

    async fn execute_across(&self, _: RegistryCommand) -> Result<RegistryReceipt, RegistryError> {
        Err(only_read())
    }

    async fn query(&self, query: Query) -> Result<Answer, RegistryError> {
        Ok(self.log.query(query).await?)
    }

    fn durability_tier(&self) -> DurabilityTier {
        DurabilityTier::Durable
    }
}

fn only_read() -> RegistryError {
    RegistryError::NotStored { reason: "the store is only read here".to_owned() }
}

/// Makes a store of a backup.
///
/// # Errors
/// When the backup is none, is damaged, or its place is taken.
pub(crate) async fn restore(
    from: &Path,
    to: &Path,
    existing: ExistingStore,
    progress: impl FnMut(BackupProgress) -> ControlFlow<()> + Send + 'static,
) -> Result<RestoreReport, Failure> {
    restore_backup(from, to, existing, progress).await.map_err(|error| failure_of_backup(&error))
}

pub(crate) fn failure_of_backup(error: &BackupError) -> Failure {
    let kind = match error {
        BackupError::Open(error) => return failure_of(error),
        BackupError::Exists { .. } => FailureKind::CannotCreate,
        BackupError::Damaged { .. } | BackupError::NoStore { .. } => FailureKind::Data,
        BackupError::NotReplaceable { .. } | BackupError::StoreFailed { .. } | BackupError::Stopped => {
            FailureKind::Temporary
        }
        _ => FailureKind::Io,
    };
    Failure::new(kind, error.to_string())
}

fn failure_of(error: &OpenError) -> Failure {
    let kind = match error {
        OpenError::Missing { .. } => FailureKind::NoInput,
        OpenError::NotAStore { .. }
        | OpenError::NewerSchema { .. }
        | OpenError::OlderSchema { .. }
        | OpenError::Backup { .. }
        | OpenError::Linked { .. }
        | OpenError::Unusable { .. } => FailureKind::Data,
        OpenError::Owned { .. } => FailureKind::Temporary,
        OpenError::NoDirectory { .. } | OpenError::PermissionDenied { .. } => FailureKind::CannotCreate,
        _ => FailureKind::Io,
    };
    Failure::new(kind, error.to_string())
}
