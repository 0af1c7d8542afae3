//! This host: the registry over a store that it owns, and who it is when it holds leases.
//!
//! It owns the identity of lease owners and the times of leases. It does not know commands.

use std::{path::PathBuf, process, sync::Arc, time::Duration};

use registry_actor::{
    actor::{ActorRegistry, RegistryOptions},
    domain::{LeaseOwnerIdentity, LeaseOwnerLiveness, LeaseTimings},
};

use crate::{
    failure::{Failure, FailureKind},
    store::OwnedStore,
};

/// How long the processes may take to come to rest at the end.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(5);

/// A registry that runs, and its owner.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// The registry.
    pub(crate) registry: ActorRegistry,
    /// Where its store is.
    pub(crate) store: Arc<PathBuf>,
    /// How long leases last.
    pub(crate) timings: LeaseTimings,
}

impl Host {
    /// Starts the registry over a store.
    ///
    /// # Errors
    /// When its actors cannot be started.
    pub(crate) async fn start(store: OwnedStore) -> Result<Self, Failure> {
        let log = Arc::clone(&store.log);
        match ActorRegistry::start(log, RegistryOptions::default()).await {
            Ok(registry) => Ok(Self { registry, store: Arc::new(store.path), timings: LeaseTimings::default() }),
            Err(error) => {
                // The store is given back whatever happens, or the next host would have to wait for our end.
                store.log.close().await;
                Err(Failure::new(FailureKind::Software, error.to_string()))
            }
        }
    }

    /// A new owner for one acquisition of one lease: an earlier acquisition by this same host fences a later one.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub(crate) fn lease_owner(&self) -> Result<LeaseOwnerIdentity, Failure> {
        let incarnation = getrandom::u64()
            .map_err(|error| Failure::new(FailureKind::System, format!("no randomness for a lease: {error}")))?;
        Ok(LeaseOwnerIdentity {
            owner_id: format!("proctor run (pid {})", process::id()),
            incarnation_id: format!("{incarnation:016x}"),
            // Who holds the store later has proved the death of this host, whatever killed it.
            liveness: LeaseOwnerLiveness::StoreSession { session: self.registry.session().clone() },
        })
    }

    /// Gives the store back.
    pub(crate) async fn shut_down(&self) {
        let report = self.registry.shut_down(SHUTDOWN_PATIENCE).await;
        if report.shards_killed > 0 {
            tracing::warn!(shards = report.shards_killed, "shards did not come to rest in time and were killed");
        }
    }
}
