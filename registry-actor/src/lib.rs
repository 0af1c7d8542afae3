//! Durable process registry: each process is owned by one actor, and the log is the truth.
//!
//! - [`domain`] is the pure core: values, [`decide`](fn@domain::decide) and [`apply`](fn@domain::apply).
//! - [`port`] holds the traits between rooms: [`ProcessRegistry`](port::ProcessRegistry),
//!   [`ProcessLog`](port::ProcessLog), [`CommitListener`](port::CommitListener).

#[cfg(feature = "actors")]
pub mod actor;
pub mod domain;
pub mod port;
