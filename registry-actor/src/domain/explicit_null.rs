//! Optional JSON values in which an explicit null is a value of its own.
//!
//! Serde reads a null in the place of an `Option` as `None`. A field that was written from `Some(Value::Null)` would
//! then come back as something else than was stored, and the fold of a stored log would differ from the live record.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Reads a field that is there, null included; `#[serde(default)]` answers for one that is not.
pub(crate) fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}
