//! The operating-system side of `proctor run`, as a library that the binary and its tests share.
//!
//! It knows processes, process groups, pipes and signals. It knows nothing of what a registry holds: who records what these
//! modules report, and when, is decided by the command line that sits on top of them.

pub mod cancel;
pub mod exit_status;
pub mod guard;
pub mod marker;
pub mod open_files;
pub mod orphan;
pub mod output;
pub mod process_identity;
