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
    /// How failed process actors are started again.
    pub restart: RestartPolicy,
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
            restart: RestartPolicy::default(),
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
            .field("restart", &self.restart)
            .field("subscription_backlog", &self.subscription_backlog)
            .field("unfenced_writes", &self.unfenced_writes)
            .finish_non_exhaustive()
    }
}
