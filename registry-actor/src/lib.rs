//! Durable process registry: each process is owned by one actor, and the log is the truth.
//!
//! - [`domain`] is the pure core: values, [`decide`](fn@domain::decide) and [`apply`](fn@domain::apply).
//! - [`port`] holds the traits between rooms: [`ProcessRegistry`](port::ProcessRegistry),
//!   [`ProcessLog`](port::ProcessLog), [`CommitListener`](port::CommitListener).
//! - [`retention`] says which ended processes are pruned when, and prunes them on a schedule.
//! - `remote` holds both ends of a registry over a Unix socket.
//! - `log` holds the logs behind that port: in memory, and in SQLite.

#[cfg(feature = "actors")]
pub mod actor;
pub mod domain;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(any(feature = "actors", feature = "remote"))]
mod liveness;
#[cfg(any(feature = "actors", feature = "sqlite"))]
pub mod log;
pub mod port;
#[cfg(any(feature = "actors", feature = "sqlite"))]
#[cfg_attr(
    not(feature = "actors"),
    expect(dead_code, unreachable_pub, reason = "without actors only the start of a process is asked for")
)]
mod process_stat;
#[cfg(feature = "remote")]
pub mod remote;
pub mod retention;
#[cfg(feature = "actors")]
pub mod worker;
