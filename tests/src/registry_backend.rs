//! The registries that the conformance suite is run on: a store, and what stands before it.
//!
//! What a backend cannot do it declares; nothing is guessed.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use awaiter::watch_process_registry;
use registry_actor::actor::{ActorRegistry, RegistryOptions};
use registry_actor::domain::{Command, ProcessId, Receipt, RegistryCommand, RegistryReceipt};
use registry_actor::log::{MemoryLog, SqliteLog, SqliteOptions};
use registry_actor::port::{
    Answer, ChangeSource, Clock, DurabilityTier, ProcessLog, ProcessRegistry, Query, RegistryError,
};
use registry_actor::remote::{RegistryServer, RemoteOptions, RemoteRegistry, ServerOptions, StoreSessionOwners};
use tempfile::TempDir;

use crate::direct_registry::DirectRegistry;
use crate::manual_clock::ManualClock;

/// How long actors have to come to rest before they are killed.
const PATIENCE: Duration = Duration::from_secs(30);

/// A kind of registry under test, with one store.
pub struct RegistryBackend {
    store: Store,
    front: Front,
    opened: u64,
    sockets: Option<TempDir>,
}

/// A registry, open over its store.
pub struct OpenRegistry {
    /// What the cases call.
    pub registry: Arc<dyn ProcessRegistry>,
    /// What it writes to.
    pub log: Arc<dyn ProcessLog>,
    actors: Vec<ActorRegistry>,
    remote: Option<(RegistryServer, RemoteRegistry)>,
}

enum Store {
    Memory(Option<MemoryLog>),
    Sqlite(TempDir),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Front {
    Direct,
    Watched,
    Actors,
    TwoRegistries,
    Remote,
}

impl RegistryBackend {
    /// The log in memory, without actors.
    #[must_use]
    pub const fn memory_direct() -> Self {
        Self::of(Store::Memory(None), Front::Direct)
    }

    /// The log in memory, without actors, behind the decorator that ticks.
    #[must_use]
    pub const fn memory_watched() -> Self {
        Self::of(Store::Memory(None), Front::Watched)
    }

    /// The log in memory, behind actors.
    #[must_use]
    pub const fn memory_actors() -> Self {
        Self::of(Store::Memory(None), Front::Actors)
    }

    /// The log in memory, shared by two registries of actors that are called in turn.
    #[must_use]
    pub const fn memory_two_registries() -> Self {
        Self::of(Store::Memory(None), Front::TwoRegistries)
    }

    /// SQLite, without actors.
    #[must_use]
    pub fn sqlite_direct() -> Self {
        Self::of(Store::sqlite(), Front::Direct)
    }

    /// SQLite, behind actors.
    #[must_use]
    pub fn sqlite_actors() -> Self {
        Self::of(Store::sqlite(), Front::Actors)
    }

    /// SQLite, shared by two registries of actors that are called in turn.
    #[must_use]
    pub fn sqlite_two_registries() -> Self {
        Self::of(Store::sqlite(), Front::TwoRegistries)
    }

    /// The log in memory, behind actors, behind a socket.
    #[must_use]
    pub fn memory_remote() -> Self {
        Self::of(Store::Memory(None), Front::Remote).with_sockets()
    }

    /// SQLite, behind actors, behind a socket.
    #[must_use]
    pub fn sqlite_remote() -> Self {
        Self::of(Store::sqlite(), Front::Remote).with_sockets()
    }

    fn with_sockets(self) -> Self {
        Self { sockets: Some(tempfile::tempdir().expect("a directory")), ..self }
    }

    const fn of(store: Store, front: Front) -> Self {
        Self { store, front, opened: 0, sockets: None }
    }

    /// What its registry has to answer.
    #[must_use]
    pub const fn durability(&self) -> DurabilityTier {
        match self.store {
            Store::Memory(_) => DurabilityTier::Inline,
            Store::Sqlite(_) => DurabilityTier::Durable,
        }
    }

    /// Whether its registry tells of commits.
    #[must_use]
    pub const fn tells_changes(&self) -> bool {
        match self.front {
            Front::Direct | Front::Watched => false,
            Front::Actors | Front::TwoRegistries | Front::Remote => true,
        }
    }

    /// Opens the store, or opens it again after it was closed.
    pub async fn open(&mut self, clock: &Arc<ManualClock>) -> OpenRegistry {
        self.opened += 1;
        let log = self.store.open();
        let registries = match self.front {
            Front::Direct | Front::Watched => {
                let direct = DirectRegistry::new(Arc::clone(&log), Arc::clone(clock), self.opened);
                let mut registry: Arc<dyn ProcessRegistry> = Arc::new(direct);
                if self.front == Front::Watched {
                    (registry, _) = watch_process_registry(registry);
                }
                return OpenRegistry { registry, log, actors: Vec::new(), remote: None };
            }
            Front::Actors | Front::Remote => 1,
            Front::TwoRegistries => 2,
        };
        let mut actors = Vec::new();
        for _ in 0..registries {
            let mut options = RegistryOptions::default();
            options.clock = Arc::clone(clock) as Arc<dyn Clock>;
            actors.push(ActorRegistry::start(Arc::clone(&log), options).await.expect("a registry"));
        }
        if let Some(sockets) = &self.sockets {
            let path = sockets.path().join("socket");
            let served = Arc::new(actors[0].clone()) as Arc<dyn ProcessRegistry>;
            let remote = serve(&path, served, &*log).await;
            let registry = Arc::new(remote.1.clone());
            return OpenRegistry { registry, log, actors, remote: Some(remote) };
        }
        let registry: Arc<dyn ProcessRegistry> = match &actors[..] {
            [only] => Arc::new(only.clone()),
            _ => Arc::new(InTurn { registries: actors.clone(), calls: AtomicUsize::new(0) }),
        };
        OpenRegistry { registry, log, actors, remote: None }
    }
}

impl OpenRegistry {
    /// Ends the registry and gives the store back.
    pub async fn close(self) {
        if let Some((server, client)) = self.remote {
            client.close().await;
            assert_eq!(server.stop(PATIENCE).await.connections_cut, 0, "everything was answered");
        }
        for registry in &self.actors {
            assert_eq!(registry.shut_down(PATIENCE).await.shards_killed, 0, "all actors came to rest");
        }
        self.log.close().await;
    }
}

impl Store {
    fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().expect("a directory"))
    }

    fn open(&mut self) -> Arc<dyn ProcessLog> {
        match self {
            Self::Memory(kept) => {
                let log = kept.take().map_or_else(|| MemoryLog::new("store"), |log| log.reopen());
                *kept = Some(log.clone());
                Arc::new(log)
            }
            Self::Sqlite(directory) => {
                let path = directory.path().join("store.db");
                Arc::new(SqliteLog::open(path, SqliteOptions::default()).expect("a store"))
            }
        }
    }
}

/// A registry behind a socket, and its client. Both live in this process, so that a lease owner may name the store session.
async fn serve(
    path: &Path,
    registry: Arc<dyn ProcessRegistry>,
    log: &dyn ProcessLog,
) -> (RegistryServer, RemoteRegistry) {
    let mut options = ServerOptions::default();
    options.store_session_owners = StoreSessionOwners::Accepted;
    let server = RegistryServer::start(path, registry, log.session().clone(), options).await.expect("a server");
    let client = RemoteRegistry::connect(path, RemoteOptions::default()).await.expect("a client");
    (server, client)
}

/// Several registries over one log, of which each call takes the next: what one knows, the other has to find out.
struct InTurn {
    registries: Vec<ActorRegistry>,
    calls: AtomicUsize,
}

impl InTurn {
    fn next(&self) -> &ActorRegistry {
        &self.registries[self.calls.fetch_add(1, Ordering::Relaxed) % self.registries.len()]
    }
}

#[async_trait]
impl ProcessRegistry for InTurn {
    async fn execute(&self, process_id: &ProcessId, command: Command) -> Result<Receipt, RegistryError> {
        self.next().execute(process_id, command).await
    }

    async fn execute_across(&self, command: RegistryCommand) -> Result<RegistryReceipt, RegistryError> {
        self.next().execute_across(command).await
    }

    async fn query(&self, query: Query) -> Result<Answer, RegistryError> {
        self.next().query(query).await
    }

    fn durability_tier(&self) -> DurabilityTier {
        self.next().durability_tier()
    }

    /// That of the first: it hears what the second writes, or the case finds out.
    fn change_source(&self) -> Option<ChangeSource> {
        self.registries[0].change_source()
    }
}
