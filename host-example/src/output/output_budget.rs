//! How much output is delivered, and the count of what is not.
//!
//! It owns the limit and the counters. It does not know the content of what it counts.

use serde_json::{Value, json};

use super::{
    line_splitter::{LineEnd, Piece},
    output_line::Stream,
};

/// The bytes that are delivered unless stated otherwise.
pub const DEFAULT_MAX_OUTPUT_BYTES: u64 = 64 * 1024 * 1024;
/// Besides the bytes, a budget bounds the lines: one for each so many bytes. What is stored of a short line is mostly its
/// envelope, about 150 bytes, so that `yes` would fill fifty times the limit with its two bytes a line.
const BYTES_PER_LINE: u64 = 64;
/// A small budget bounds bytes alone.
const FEWEST_LINES: u64 = 1_024;

/// The budget of one command, both its streams together.
#[derive(Clone, Debug)]
pub struct OutputBudget {
    limit_bytes: u64,
    limit_lines: u64,
    used_bytes: u64,
    used_lines: u64,
    stdout: Dropped,
    stderr: Dropped,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Within,
    Exceeded,
}

/// What to do with a piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// Deliver it.
    Deliver,
    /// Drop it; it is counted already.
    Drop,
}

/// What was dropped of one stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Dropped {
    /// The lines of which at least the end was dropped.
    pub lines: u64,
    /// The bytes, newlines included.
    pub bytes: u64,
}

/// What was dropped in all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DroppedOutput {
    /// Of stdout.
    pub stdout: Dropped,
    /// Of stderr.
    pub stderr: Dropped,
    /// The limit in bytes.
    pub limit_bytes: u64,
    /// The limit in lines, of which a part of a long line is one.
    pub limit_lines: u64,
}

impl OutputBudget {
    /// A budget of `limit_bytes`, newlines included, and of a line for each 64 of them, but at least 1,024 lines.
    #[must_use]
    pub fn new(limit_bytes: u64) -> Self {
        Self {
            limit_bytes,
            limit_lines: (limit_bytes / BYTES_PER_LINE).max(FEWEST_LINES),
            used_bytes: 0,
            used_lines: 0,
            stdout: Dropped::default(),
            stderr: Dropped::default(),
            state: State::Within,
        }
    }

    /// Decides on the next piece. What is delivered is always the beginning of the output: after the first piece that
    /// exceeds the limit no other is delivered, however short.
    pub fn admit(&mut self, stream: Stream, piece: &Piece) -> Admission {
        let size = piece.stream_bytes();
        let fits = size <= self.limit_bytes - self.used_bytes && self.used_lines < self.limit_lines;
        if self.state == State::Within && fits {
            self.used_bytes += size;
            self.used_lines += 1;
            return Admission::Deliver;
        }
        self.state = State::Exceeded;
        let dropped = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        dropped.bytes += size;
        dropped.lines += u64::from(piece.end != LineEnd::Continued);
        Admission::Drop
    }

    /// What was dropped; `None` when nothing was.
    #[must_use]
    pub fn dropped(&self) -> Option<DroppedOutput> {
        (self.state == State::Exceeded).then_some(DroppedOutput {
            stdout: self.stdout,
            stderr: self.stderr,
            limit_bytes: self.limit_bytes,
            limit_lines: self.limit_lines,
        })
    }
}

impl Default for OutputBudget {
    fn default() -> Self {
        Self::new(DEFAULT_MAX_OUTPUT_BYTES)
    }
}

impl DroppedOutput {
    /// The payload of the one event that tells what is missing.
    #[must_use]
    pub fn to_payload(&self) -> Value {
        let per_stream = |dropped: Dropped| json!({"dropped_lines": dropped.lines, "dropped_bytes": dropped.bytes});
        json!({
            "dropped_lines": self.stdout.lines + self.stderr.lines,
            "dropped_bytes": self.stdout.bytes + self.stderr.bytes,
            "limit_bytes": self.limit_bytes,
            "limit_lines": self.limit_lines,
            "stdout": per_stream(self.stdout),
            "stderr": per_stream(self.stderr),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Piece {
        Piece { bytes: text.into(), end: LineEnd::Newline }
    }

    fn part(text: &str) -> Piece {
        Piece { bytes: text.into(), end: LineEnd::Continued }
    }

    #[test]
    fn output_up_to_the_limit_is_delivered_and_nothing_is_reported() {
        let mut budget = OutputBudget::new(8);
        assert_eq!(budget.admit(Stream::Stdout, &line("abc")), Admission::Deliver);
        assert_eq!(budget.admit(Stream::Stderr, &line("def")), Admission::Deliver);
        assert_eq!(budget.dropped(), None);
    }

    #[test]
    fn past_the_limit_everything_is_counted_per_stream() {
        let mut budget = OutputBudget::new(8);
        assert_eq!(budget.admit(Stream::Stdout, &line("abcdef")), Admission::Deliver);
        assert_eq!(budget.admit(Stream::Stdout, &line("gh")), Admission::Drop);
        assert_eq!(budget.admit(Stream::Stderr, &line("")), Admission::Drop, "one byte would fit, but not in order");
        let expected = json!({
            "dropped_lines": 2, "dropped_bytes": 4, "limit_bytes": 8, "limit_lines": 1_024,
            "stdout": {"dropped_lines": 1, "dropped_bytes": 3},
            "stderr": {"dropped_lines": 1, "dropped_bytes": 1},
        });
        assert_eq!(budget.dropped().map(|dropped| dropped.to_payload()), Some(expected));
    }

    #[test]
    fn empty_lines_use_up_the_budget() {
        let mut budget = OutputBudget::new(3);
        let delivered = (0..10).filter(|_| budget.admit(Stream::Stdout, &line("")) == Admission::Deliver).count();
        assert_eq!(delivered, 3);
        assert_eq!(budget.dropped().map(|dropped| dropped.stdout), Some(Dropped { lines: 7, bytes: 7 }));
    }

    #[test]
    fn a_line_in_parts_is_one_dropped_line() {
        let mut budget = OutputBudget::new(4);
        assert_eq!(budget.admit(Stream::Stdout, &part("abcd")), Admission::Deliver);
        assert_eq!(budget.admit(Stream::Stdout, &part("efgh")), Admission::Drop);
        assert_eq!(budget.admit(Stream::Stdout, &line("ij")), Admission::Drop);
        assert_eq!(budget.dropped().map(|dropped| dropped.stdout), Some(Dropped { lines: 1, bytes: 7 }));
    }

    /// `yes` wrote 950,000 lines of one letter in five seconds, and a store of 140 MB, within a limit of 64 MiB.
    #[test]
    fn a_flood_of_short_lines_is_bounded_by_their_number() {
        let mut budget = OutputBudget::new(64 * 2_000);
        let delivered = (0..3_000).filter(|_| budget.admit(Stream::Stdout, &line("y")) == Admission::Deliver).count();
        assert_eq!(delivered, 2_000);
        assert_eq!(budget.dropped().map(|dropped| dropped.stdout.lines), Some(1_000));
    }

    #[test]
    fn a_limit_of_zero_drops_all() {
        let mut budget = OutputBudget::new(0);
        assert_eq!(budget.admit(Stream::Stdout, &line("")), Admission::Drop);
    }
}
