//! Waiting for the outcome or an event of a durable process, without lost wake-ups and, where the registry tells of its
//! commits, without polling.
//!
//! The log is the truth. A waiter parks or subscribes first, then reads, then waits. At the registry's own source of
//! changes it is told the outcome or the event itself; a tick of a hub is a hint, at which it reads again.

mod awaiter;
mod driver;
mod hub;
mod many;
mod sync;
mod tick_map;
mod watch;

pub use awaiter::{AwaitError, ProcessAwaiter};
pub use driver::{DriverError, ProcessWorkDriver};
pub use hub::ProcessChangeHub;
pub use many::FirstAnswer;
pub use registry_actor::port::{Awaited, Backoff, ProcessAttach, ProcessRunHandle, ProcessWait, WaitAnswer};
pub use tick_map::{HubClosed, HubSubscription};
pub use watch::{watch_process_registry, watch_process_registry_with_sink};
