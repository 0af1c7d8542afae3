//! Who of the supervision tree lives when, told to the fault points: the order of starts and stops is a promise, and a
//! test reads it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::environment::Environment;
use crate::port::TreeStep;

pub(super) use crate::port::TreeMember as Member;

/// One life of a member. Its drop is the end, however that came about: a kill runs no handler.
pub(super) struct Life {
    environment: Arc<Environment>,
    member: Member,
}

impl Life {
    pub(super) fn begin(environment: &Arc<Environment>, member: Member) -> Self {
        tell(environment, &TreeStep::Started(member));
        Self { environment: Arc::clone(environment), member }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        tell(&self.environment, &TreeStep::Ended(self.member));
    }
}

/// Tells of a step that must not fail, whatever the observer does.
pub(super) fn tell(environment: &Environment, step: &TreeStep) {
    if catch_unwind(AssertUnwindSafe(|| environment.options.faults.tree(step))).is_err() {
        tracing::error!(?step, "an observer of the supervision tree panicked");
    }
}
