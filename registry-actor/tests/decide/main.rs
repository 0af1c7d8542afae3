//! Whole decisions of the pure core, through its public API.
//!
//! A test compares the entire [`Decision`](registry_actor::domain::Decision): events, lease row, deliveries and reply.
//! States are made by folding real decisions, never by hand, and each fold is checked on the way (see `world`).

mod abandon;
mod across;
mod append;
mod apply;
mod attempt;
mod cancel;
mod complete;
mod cursor;
mod external_ref;
mod filter;
mod first_start;
mod generation;
mod lease;
mod limits;
mod properties;
mod reclaim;
mod refusals;
mod register;
mod replay;
mod reserved;
mod scope;
mod signal;
mod terminal;
mod waiting;
mod wake;
mod wake_ack;
mod world;
