//! Durable process registry: each process is owned by one actor, and the log is the truth.
//!
//! # The rooms
//!
//! - [`domain`] is the pure core: values, [`decide`](fn@domain::decide) and [`apply`](fn@domain::apply).
//! - [`port`] holds the traits between rooms: [`ProcessRegistry`](port::ProcessRegistry) with its named operations in
//!   [`ProcessRegistryExt`](port::ProcessRegistryExt), [`ProcessLog`](port::ProcessLog),
//!   [`CommitListener`](port::CommitListener), [`ProcessExecutor`](port::ProcessExecutor).
//! - `log` holds the logs behind that port: in memory, and in SQLite.
//! - `actor` holds the actors: one owner for each process, those that start and restart it, and the handle `ActorRegistry`.
//! - `worker` takes over what nobody runs, does with each process what it declares, and runs it by an executor.
//! - [`retention`] says which ended processes are pruned when, and prunes them on a schedule.
//! - `remote` holds both ends of a registry over a Unix socket.
//! - `telemetry` tells numbers of log, actors and workers to whoever collects them.
//!
//! # Features
//!
//! | feature | by default | what it brings |
//! |---|---|---|
//! | `actors` | on | `actor`, `worker`, the schedule of [`retention`], the log in memory |
//! | `sqlite` | on | the log in SQLite, which is built in and needs a C compiler |
//! | `remote` | on | `remote` |
//! | `metrics` | off | `telemetry`, over the facade of the crate `metrics` |
//! | `fuzzing` | off | what the fuzz targets need; no part of the library's promise |
//!
//! Without any there are [`domain`], [`port`] and the policy of [`retention`], without a runtime.
//!
//! # Where to start
//!
//! With the example in the README of the repository, under "Embed it": `SqliteLog::open`, `ActorRegistry::start` over it,
//! [`register_process`](port::ProcessRegistryExt::register_process), and `Worker::start` with an executor for each kind of
//! process. `docs/guide.md` is for who embeds, writes executors, and operates; `ARCHITECTURE.md` is the map of the code.

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
