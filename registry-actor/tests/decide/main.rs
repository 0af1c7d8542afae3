//! Whole decisions of the pure core, through its public API.
//!
//! A test compares the entire [`Decision`](registry_actor::domain::Decision): events, lease row, deliveries and reply.
//! States are made by folding real decisions, never by hand, and each fold is checked on the way (see `world`).

mod append;
mod apply;
mod cancel;
mod complete;
mod first_start;
mod lease;
mod properties;
mod reclaim;
mod register;
mod replay;
mod terminal;
mod wake;
mod world;
