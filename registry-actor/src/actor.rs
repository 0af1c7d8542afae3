//! The actors: one owner for each process, shards that route and restart them, the publisher, and the handle.
//!
//! They are thin around [`decide`](fn@crate::domain::decide) and [`ProcessLog`](crate::port::ProcessLog): no rule of a
//! process is written here.

mod activation;
mod actor_wait;
mod attach;
mod clock;
mod directory;
mod envelope;
mod environment;
mod gate;
mod news;
mod options;
mod process;
mod publisher;
mod registry;
mod restart;
mod root;
mod seat;
mod shard;
mod shutdown;
mod subscription;
mod tree;

pub use crate::liveness::{observe, own_liveness};
pub use actor_wait::{ActorWait, await_by_message};
pub use clock::SystemClock;

pub use news::{ProcessNews, Told};
pub use options::RegistryOptions;
pub use registry::{ActorRegistry, QuarantinedProcess, RegistryHoldings, StartError};
pub use restart::{RestartDecision, RestartHistory, RestartPolicy};
pub use root::RegistryFailed;
pub use shutdown::{ShutdownProgress, ShutdownReport, ShutdownStage};
pub use subscription::ProcessSubscription;

pub use crate::process_stat::ProcessStat;
