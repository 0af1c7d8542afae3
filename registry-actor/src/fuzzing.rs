//! What the fuzzer and the tests of persisted formats see and hosts do not. It promises nothing.
//!
//! The bodies of the fuzz targets stand here and not in the fuzzer's crate, so that a stable compiler replays their corpus and
//! whatever they ever found.

// The stored form is pure, so it can be tried where no log is built.
#[cfg(not(any(feature = "actors", feature = "sqlite")))]
#[path = "log/codec.rs"]
#[expect(dead_code, reason = "batches are encoded by logs, and there is none in this build")]
mod codec;
pub mod stored;
mod targets;

#[cfg(any(feature = "actors", feature = "sqlite"))]
use crate::log::codec;

pub use targets::{Target, all};
