//! Waiting for the outcome or an event of a durable process, without lost wake-ups and, where the registry tells of its
//! commits, without polling.
//!
//! A tick is a hint, the log is the truth: a waiter subscribes first, then reads, then waits, and whatever wakes it, it
//! reads again.

mod awaiter;
mod hub;
mod many;
mod sync;
mod tick_map;

pub use awaiter::{AwaitError, ProcessAwaiter};
pub use hub::ProcessChangeHub;
pub use many::FirstAnswer;
pub use registry_actor::port::{Awaited, Backoff, ProcessAttach, ProcessRunHandle, ProcessWait, WaitAnswer};
pub use tick_map::{HubClosed, HubSubscription};
