//! This host: the registry over a store that it owns, and who it is when it holds leases.
//!
//! It owns the identity of its workers and their times. It does not know how commands are run.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    process,
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use registry_actor::{
    actor::{ActorRegistry, RegistryOptions},
    log::{BackupCheck, BackupError, BackupProgress, BackupReport, SqliteLog},
    port::{LogError, ProcessLog},
    worker::WorkerOptions,
};

use host_example::cancel::DEFAULT_GRACE;

use crate::{
    failure::{Failure, FailureKind},
    store::OwnedStore,
};

/// How long the processes may take to come to rest at the end.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(5);

/// How long a command may take to end after its deadline, or after its lease was lost, before it is dropped: its own grace,
/// and the time to see to what it leaves behind.
const WORKER_GRACE: Duration = DEFAULT_GRACE.saturating_add(Duration::from_secs(10));

/// How long commands may take to end when this host does.
pub(crate) const DRAIN_PATIENCE: Duration = WORKER_GRACE;

/// A registry that runs, and its owner.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// The registry.
    pub(crate) registry: ActorRegistry,
    /// The log of the registry, as what it is: a store that can fail for a while.
    log: Arc<SqliteLog>,
    /// Where its store is.
    pub(crate) store: Arc<PathBuf>,
    /// The verb that it lives by.
    verb: &'static str,
}

impl Host {
    /// Starts the registry over a store, for a verb, by which leases name this host.
    ///
    /// # Errors
    /// When its actors cannot be started.
    pub(crate) async fn start(store: OwnedStore, verb: &'static str) -> Result<Self, Failure> {
        let log = Arc::clone(&store.log) as Arc<dyn ProcessLog>;
        match ActorRegistry::start(log, RegistryOptions::default()).await {
            Ok(registry) => Ok(Self { registry, log: store.log, store: Arc::new(store.path), verb }),
            Err(error) => {
                // The store is given back whatever happens, or the next host would have to wait for our end.
                store.log.close().await;
                Err(Failure::new(FailureKind::Software, error.to_string()))
            }
        }
    }

    /// The settings of a new worker of this host.
    pub(crate) fn worker_options(&self) -> WorkerOptions {
        // Who holds the store later has proved the death of this host, whatever killed it.
        let owner = self.registry.owner(format!("proctor {} (pid {})", self.verb, process::id()));
        let mut options = WorkerOptions::new(owner);
        options.grace = WORKER_GRACE;
        options
    }

    /// Checks the changes in the feed that belong to no process; answers what is damaged.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) async fn verify_marks(&self) -> Result<Option<String>, LogError> {
        self.log.verify_marks().await
    }

    /// Copies the store into a new file, and gives way where the store fails meanwhile.
    ///
    /// # Errors
    /// When it cannot be copied, or what was copied does not pass the check.
    pub(crate) async fn back_up(
        &self,
        to: &Path,
        check: BackupCheck,
        progress: impl FnMut(BackupProgress) -> ControlFlow<()> + Send + 'static,
    ) -> Result<BackupReport, BackupError> {
        self.log.backup(to, check, progress).await
    }

    /// Why the store takes nothing now, if it does not.
    pub(crate) fn store_outage(&self) -> Option<String> {
        self.log.outage()
    }

    /// Waits for the end of the registry: its shutdown, or that it gave up. May be dropped at any time.
    pub(crate) async fn registry_ended(&self) {
        // Without a limit there is nothing that fails.
        drop(self.registry.root().wait(None).await);
    }

    /// Whether that has come.
    pub(crate) fn registry_has_ended(&self) -> bool {
        self.registry_ended().now_or_never().is_some()
    }

    /// Gives the store back.
    pub(crate) async fn shut_down(&self) {
        let report = self.registry.shut_down(SHUTDOWN_PATIENCE).await;
        if report.log_left_open {
            // A slow disk, or many pages to be given back to it: all that was promised is stored, and this host has time.
            tracing::warn!("the store takes long to be closed");
            self.registry.log().close().await;
        }
        if report.shards_killed > 0 {
            tracing::warn!(shards = report.shards_killed, "shards did not come to rest in time and were killed");
        }
    }
}
