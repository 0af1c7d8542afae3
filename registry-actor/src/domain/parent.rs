//! Parents: a process that another one started, and what becomes of it when that one ends.

use serde::{Deserialize, Serialize};

use super::ProcessId;

/// The process on whose behalf another one runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessParent {
    /// The parent. That it exists is not demanded: it may live in the registry only later.
    pub process_id: ProcessId,
    /// What its end means for the child.
    #[serde(default)]
    pub on_end: ParentEndRule,
}

/// What the end of a parent, or a request that it stop, means for its child.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParentEndRule {
    /// The child is asked to stop, too.
    #[default]
    RequestCancel,
    /// Nothing.
    LeaveAlone,
}
