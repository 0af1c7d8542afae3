//! External references: the name under which a foreign backend knows a process.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::explicit_null::present;

/// Reference to the same work in a foreign backend. Set once; equality covers the metadata.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessExternalRef {
    /// The backend.
    pub backend: String,
    /// Its id for the work.
    pub id: String,
    /// What else it said.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub metadata: Option<Value>,
}
