//! Conformance suites and the harness that drives them.
//!
//! A suite is a list of claims about a port. A backend is one line: [`log_conformance!`] for logs.

pub mod log_author;
pub mod log_backend;
pub mod log_conformance;
pub mod log_reading;
