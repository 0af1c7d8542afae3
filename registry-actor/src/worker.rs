//! The worker: takes processes that nobody runs, does with each what it declares, and runs them under a lease.
//!
//! What becomes of a process is decided by
//! [`ProcessSituation::next_step`](crate::domain::ProcessSituation::next_step); what is run is an executor's. The worker
//! brings the two together: it reads, claims, renews, stops and writes. It knows the registry as a port, so that it works
//! the same beside the store and in a process of its own.
//!
//! ```text
//! worker (WorkerActor)          starts the drive again when it fails; runs are its children
//! ├── drive (DriveActor)        the timer, and the passes over what has not ended
//! └── run (RunActor)            one for each process that is being taken over; its lease is renewed by a task of its own
//! ```

mod account;
mod agenda;
mod drain;
mod drive;
mod executors;
mod explain;
mod handle;
mod journal;
mod lease_keeper;
mod news;
mod options;
mod place;
mod run;
mod run_actor;
mod run_context;
mod scope;
mod situation;
mod stop;
mod supervisor;
mod sweep;
mod watch;

pub use drain::{DrainError, ProcessDrainReport};
pub use executors::ProcessExecutors;
pub use explain::{DueAction, ExplainedStep, Explanation, explain_process};
pub use handle::{Worker, WorkerError};
pub use options::WorkerOptions;
pub use scope::WorkerScope;
pub use sweep::SweepReport;
