//! Whatever dies in the supervision tree, and whatever is asked of it meanwhile: callers and waiters are answered once,
//! nothing is applied twice, nothing acknowledged is lost, and everything that was held comes back.

mod matrix;
mod stories;
mod storms;
mod supervisors;
