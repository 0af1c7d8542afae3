//! Pruning: which ended processes go, and what came of it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::filter::check_tags;
use super::limits::check_items;
use super::{ChangeCursor, Limits, ProcessRegistration, ProcessTerminalState, Refusal};

/// Which ended processes a prune removes: those that meet all of it. Processes that have not ended are never touched.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PruneFilter {
    /// Only those that ended before this instant, exclusive, in ms since the Unix epoch.
    pub terminal_before_ms: u64,
    /// Only those that ended so; any if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ProcessTerminalState>,
    /// Only those of this identity kind; any if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Only those that carry all of these tags.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<String>,
    /// None of these, whatever else is met.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<PruneExemption>,
}

/// Ended processes that a prune leaves alone: those that meet all of it. One that asks for nothing exempts all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PruneExemption {
    /// Those that ended so; any if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ProcessTerminalState>,
    /// Those of this identity kind; any if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Those that carry all of these tags.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<String>,
}

impl PruneExemption {
    fn exempts(&self, state: ProcessTerminalState, registration: &ProcessRegistration) -> bool {
        self.state.is_none_or(|exempt| exempt == state)
            && self.kind.as_ref().is_none_or(|kind| *kind == registration.identity.kind)
            && self.tags.is_subset(&registration.tags)
    }
}

impl PruneFilter {
    /// Whether it means a process that ended so, whenever that was.
    #[must_use]
    pub fn means(&self, state: ProcessTerminalState, registration: &ProcessRegistration) -> bool {
        self.state.is_none_or(|meant| meant == state)
            && self.kind.as_ref().is_none_or(|kind| *kind == registration.identity.kind)
            && self.tags.is_subset(&registration.tags)
            && !self.except.iter().any(|exemption| exemption.exempts(state, registration))
    }

    /// Refuses what no process can carry, and too many exemptions.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        check_tags(&self.tags)?;
        check_items("exemptions of a prune", self.except.len(), Limits::PRUNE_EXEMPTIONS)?;
        self.except.iter().try_for_each(|exemption| check_tags(&exemption.tags))
    }

    /// Everything that ended before an instant, in ms since the Unix epoch.
    #[must_use]
    pub fn ended_before(terminal_before_ms: u64) -> Self {
        Self { terminal_before_ms, ..Self::default() }
    }
}

/// How far a projection of the change feed has come. There is no default: what is pruned is gone from the feed, and
/// whoever prunes has to say that nobody still needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProjectionWatermark {
    /// A projector has taken every change up to this cursor: only processes whose last change it has seen are pruned.
    UpTo(ChangeCursor),
    /// Nobody projects the feed.
    NoProjector,
}

/// What came of a prune.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessPruneReport {
    /// Processes that are gone.
    pub pruned_processes: u64,
    /// Their events, the registration apart.
    pub pruned_events: u64,
    /// Processes that met the filter, whose last change is projected, and that stayed because a lease on them is in force.
    pub kept_leased: u64,
    /// Processes that met the filter and stayed because the projector has not seen their last change.
    pub kept_unprojected: u64,
    /// Processes that stayed because what is stored of them is damaged.
    #[serde(default)]
    pub kept_damaged: u64,
    /// Whether processes that can be pruned are left because a limit of the command was reached.
    pub more: bool,
}
