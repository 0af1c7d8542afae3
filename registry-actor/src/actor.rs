//! The actors: one owner for each process, shards that route and restart them, the publisher, and the handle.
//!
//! They are thin around [`decide`](fn@crate::domain::decide) and [`ProcessLog`](crate::port::ProcessLog): no rule of a
//! process is written here.

mod actor_wait;
mod attach;
mod clock;
mod directory;
mod envelope;
mod environment;
mod gate;
mod liveness;
mod news;
mod options;
mod process;
mod publisher;
mod registry;
mod restart;
mod root;
mod shard;
mod subscription;

pub use actor_wait::{ActorWait, await_by_message};
pub use clock::SystemClock;
pub use liveness::{observe, own_liveness};
pub use news::{ProcessNews, Told};
pub use options::RegistryOptions;
pub use registry::{ActorRegistry, QuarantinedProcess, ShutdownReport, StartError};
pub use restart::{RestartDecision, RestartHistory, RestartPolicy};
pub use subscription::ProcessSubscription;

pub use crate::process_stat::ProcessStat;
