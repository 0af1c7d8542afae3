//! Abandon requests: somebody's permission to give a process up.

use serde::{Deserialize, Serialize};

/// Authorises recovery to abandon a process once nobody holds its lease. It ends nothing by itself; the first one stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbandonRequest {
    /// Who asks.
    pub requested_by: String,
    /// When, in ms since the Unix epoch.
    pub requested_at_ms: u64,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
