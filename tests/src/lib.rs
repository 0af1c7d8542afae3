//! What the tests of the registry are built from: clocks, faults, crashes and conformance suites. Hosts may use it to test
//! their own logs and executors.
//!
//! A suite is a list of claims about a port. A backend is one line: [`log_conformance!`] for logs,
//! [`registry_conformance!`] for registries.

mod counted_log;
pub mod crash_writer;
pub mod direct_registry;
pub mod example_process;
mod fault_script;
pub mod log_author;
pub mod log_backend;
pub mod log_conformance;
pub mod log_reading;
mod manual_clock;
pub mod oracle;
pub mod power_cut;
pub mod registry_backend;
pub mod registry_conformance;
pub mod scoreboard;
pub mod scripted_executor;
mod virtual_clock;
pub mod watching_conformance;

pub use counted_log::CountedLog;
pub use fault_script::{Fault, FaultScript};
pub use manual_clock::ManualClock;
pub use virtual_clock::VirtualClock;

/// The example of the README is a test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
