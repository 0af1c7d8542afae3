//! Settings of a registry.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::clock::SystemClock;
use super::restart::RestartPolicy;
use crate::domain::UnfencedWrites;
use crate::port::{Clock, FaultPoints, NoFaults};

/// Settings of a registry. The default is what a host wants unless it knows better.
#[derive(Clone)]
#[non_exhaustive]
pub struct RegistryOptions {
    /// How many shards share the processes; at least 1. Default 4.
    pub shards: usize,
    /// How many commands may be under way at once; more are answered `Busy`. Default 65,536.
    pub commands_under_way: usize,
    /// How long a process must be idle before its actor is put to rest. Default 60 s.
    pub passivate_after: Duration,
    /// How often each shard looks for idle processes. Default 10 s.
    pub sweep_interval: Duration,
    /// How many processes each shard loads at once; at least 1. More wait in order, urgent commands first, so that a storm
    /// of cold processes leaves the store's readers to the live ones. Default 16.
    pub activations_per_shard: usize,
    /// How failed process actors are started again.
    pub restart: RestartPolicy,
    /// How a failed shard or publisher is started again, each with a history of its own. Where a process would be
    /// quarantined, the root fails ([`RegistryFailed`](super::RegistryFailed)) and with it the registry: its own supervisor
    /// knows what to do. Default: 10 ms doubling to 1 s, 10 failures in 60 s.
    pub supervisor_restart: RestartPolicy,
    /// How many events are gathered for a subscribed actor while it has not handled its last message; more are told as
    /// missed. Default 1,024.
    pub subscription_backlog: usize,
    /// Whether unfenced terminal facts pass while a lease is in force.
    pub unfenced_writes: UnfencedWrites,
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// What happens at the named fault points.
    pub faults: Arc<dyn FaultPoints>,
    /// Issuer of the operations, of which lease tokens are made; random if absent, as it has to be wherever two
    /// registries ever write to one store. For runs that must repeat themselves.
    #[doc(hidden)]
    pub issuer: Option<u64>,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            shards: 4,
            commands_under_way: 65_536,
            passivate_after: Duration::from_secs(60),
            sweep_interval: Duration::from_secs(10),
            activations_per_shard: 16,
            restart: RestartPolicy::default(),
            supervisor_restart: RestartPolicy {
                longest_delay: Duration::from_secs(1),
                failures_allowed: 10,
                ..RestartPolicy::default()
            },
            subscription_backlog: 1_024,
            unfenced_writes: UnfencedWrites::default(),
            clock: Arc::new(SystemClock),
            faults: Arc::new(NoFaults),
            issuer: None,
        }
    }
}

impl fmt::Debug for RegistryOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RegistryOptions")
            .field("shards", &self.shards)
            .field("commands_under_way", &self.commands_under_way)
            .field("passivate_after", &self.passivate_after)
            .field("sweep_interval", &self.sweep_interval)
            .field("activations_per_shard", &self.activations_per_shard)
            .field("restart", &self.restart)
            .field("supervisor_restart", &self.supervisor_restart)
            .field("subscription_backlog", &self.subscription_backlog)
            .field("unfenced_writes", &self.unfenced_writes)
            .finish_non_exhaustive()
    }
}
