//! Observers of a registry of durable processes, which cost its appends nothing.
//!
//! A sink is told of events after their commit; it cannot fail a write, and nobody waits for it. What it is not told of it can
//! read: the log has everything. Delivery is at least once: a sink can see an event twice, where the registry's publisher
//! dies between telling it and noting that it was told. [`CatchUp`] takes the second one out.
//!
//! - [`mailbox`] and [`SinkMailbox`] put any sink on a thread of its own, behind a bounded hand-over that never waits. A slow,
//!   blocked or panicking sink is told what it missed, as gaps of a process, and nobody else notices.
//! - [`channel`] is the same hand-over with its far end in the host's hands.
//! - [`CatchUp`] fills the gaps from the log: its [`ProcessConsumer`] sees every event once and in order.
//! - [`TracingSink`] writes log lines.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use registry_actor::port::ChangeSource;
//! use sink::{TracingSink, mailbox};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mailbox = mailbox(Arc::new(TracingSink::new()))?;
//! # let source = ChangeSource::default();
//! mailbox.attach(&source); // of a registry: `registry.change_source()`
//! // The host works; at its end, when the registry is shut down:
//! let report = mailbox.close(Duration::from_secs(5)).await?;
//! assert_eq!(report.accepted, report.delivered + report.failed);
//! # Ok(())
//! # }
//! ```

mod catch_up;
mod channel;
mod hand_over;
mod line;
mod listener;
mod mailbox;
mod report;
mod restart;
#[cfg(test)]
mod testing;
mod tracing_sink;

pub use catch_up::{CatchUp, CatchUpError, ProcessConsumer};
pub use channel::{ChannelSink, SinkItem, SinkReceiver, channel, channel_of};
pub use listener::SinkEvents;
pub use mailbox::{MailboxError, MailboxOptions, SinkMailbox, mailbox};
pub use report::{SinkReport, Undelivered};
pub use restart::SinkRestart;
pub use tracing_sink::{LoggedPayloads, TracingSink};
