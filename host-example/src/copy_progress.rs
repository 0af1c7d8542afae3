//! How far a backup or a restoration has come, on the terminal, and the wish that it end.
//!
//! It owns the bar, which is not drawn where stderr is no terminal. It does not know what is copied.

use std::ops::ControlFlow;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use registry_actor::log::BackupProgress;

use crate::interrupt::Interrupts;

/// What is told of each step.
pub(crate) struct CopyProgress {
    bar: ProgressBar,
    interrupts: Interrupts,
}

impl CopyProgress {
    /// A bar that shows nothing yet.
    pub(crate) fn new(interrupts: Interrupts) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        // A form that is not understood shows the plain bar.
        if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}") {
            bar.set_style(style);
        }
        Self { bar, interrupts }
    }

    /// Shows a step; says whether to go on.
    pub(crate) fn step(&self, progress: BackupProgress) -> ControlFlow<()> {
        let (what, done, of) = match progress {
            BackupProgress::Copied { pages, of } => ("copying pages", pages, of),
            BackupProgress::Checked { processes, of } => ("checking processes", processes, of),
            _ => ("working", 0, 0),
        };
        if self.bar.message() != what {
            self.bar.set_message(what);
        }
        self.bar.set_length(of);
        self.bar.set_position(done);
        if self.interrupts.asked().is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

impl Drop for CopyProgress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
