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
#[cfg(any(feature = "actors", feature = "sqlite", feature = "remote"))]
#[cfg_attr(not(feature = "actors"), expect(unreachable_pub, reason = "it is shown to hosts with the actors"))]
#[cfg_attr(
    not(any(feature = "actors", feature = "remote")),
    expect(dead_code, reason = "a log alone only asks for the start of a process")
)]
mod process_stat;
#[cfg(feature = "remote")]
pub mod remote;
pub mod retention;
#[cfg(feature = "metrics")]
pub mod telemetry;
#[cfg(all(not(feature = "metrics"), any(feature = "actors", feature = "sqlite")))]
mod telemetry;
#[cfg(feature = "actors")]
pub mod worker;
