//! A checker of recorded histories: whether what callers were told, what the feed tells and what is stored can be one
//! story of a registry.
//!
//! It is written from the contract of [`ProcessRegistry`](registry_actor::port::ProcessRegistry) alone and shares no rule
//! with the registry: neither how a command is decided nor how a record is folded. It is blind to what no caller saw.
//!
//! # Checks
//! 1. **Linearizable.** For each process there is one order of all calls, in which every call takes effect between its
//!    start and its end and is answered as a sequential process would. A call whose outcome is unknown may have taken effect
//!    at any time after its start, or never; one that was told that nothing changed has changed nothing. A lease move alone may
//!    take effect more than once under one call: it leaves no event by which it is found again.
//! 2. **One terminal.** A life of a process has at most one outcome.
//! 3. **Fences grow.** Of two acquisitions one after the other the later one has the larger fence, and no two have the same.
//! 4. **Feed.** It holds every stored event of every retained life exactly once, those of a process in the order of their
//!    sequences, and those of calls that came one after the other in that order.

mod feed;
mod fences;
mod history;
mod linearize;
mod process_model;
mod recording;

use registry_actor::domain::ProcessId;

pub use history::{Answered, Asked, History, Life, RecordedCall, Span, whole_feed};
pub use recording::{Recorder, RecordingRegistry};

/// A check that did not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// There is no order of the calls that explains their answers.
    #[error("process `{process_id}` is not linearizable: {story}")]
    NotLinearizable {
        /// The process.
        process_id: ProcessId,
        /// The furthest that an order came, and the call that does not fit there.
        story: String,
    },
    /// The search for an order was given up: the history is too wide to be decided.
    #[error("process `{process_id}`: no order was found within {steps} steps")]
    Undecided {
        /// The process.
        process_id: ProcessId,
        /// How many steps were tried.
        steps: usize,
    },
    /// A life has more than one outcome.
    #[error("process `{process_id}`, life {generation}: the outcomes at {sequences:?} are more than one")]
    TwoTerminals {
        /// The process.
        process_id: ProcessId,
        /// The life.
        generation: u32,
        /// Where they stand.
        sequences: Vec<u64>,
    },
    /// A fence was given away twice or went back.
    #[error("process `{process_id}`, life {generation}: {what}")]
    Fence {
        /// The process.
        process_id: ProcessId,
        /// The life.
        generation: u32,
        /// How.
        what: String,
    },
    /// The feed is not what is stored.
    #[error("the feed: {what}")]
    Feed {
        /// How.
        what: String,
    },
}

/// Makes all checks.
///
/// # Errors
/// Everything that does not hold; never empty.
pub fn check(history: &History) -> Result<(), Vec<Violation>> {
    let mut violations = Vec::new();
    for process_id in history.process_ids() {
        violations.extend(linearize::check(history, &process_id).err());
    }
    violations.extend(feed::one_terminal(history));
    violations.extend(fences::grow(history));
    violations.extend(feed::complete_and_in_order(history));
    if violations.is_empty() { Ok(()) } else { Err(violations) }
}
