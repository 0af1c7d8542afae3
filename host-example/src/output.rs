//! What a command writes, from bytes in two pipes to lines with a bound on everything.
//!
//! The parts are pure but for one: [`LineSplitter`] makes lines of bytes, [`OutputBudget`] stops at a limit,
//! [`OutputLine`] is what comes out, and [`OutputReader`] alone touches the pipes. None of them knows the command or
//! its guard, nor what becomes of the lines.

mod line_splitter;
mod output_budget;
mod output_line;
mod output_reader;

pub use line_splitter::{LineEnd, LineSplitter, MAX_LINE_BYTES, Piece};
pub use output_budget::{Admission, DEFAULT_MAX_OUTPUT_BYTES, Dropped, DroppedOutput, OutputBudget};
pub use output_line::{OutputLine, Stream, Text};
pub use output_reader::{DEFAULT_HELD_OPEN, OutputCloser, OutputEnd, OutputReader};
