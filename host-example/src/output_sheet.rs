//! What a command wrote, written once more: its stdout to ours, its stderr to ours, byte for byte.
//!
//! It owns that a reader who has gone ends the writing and is no failure. It does not know where the lines come from.

use std::io::{self, ErrorKind, Write};

use host_example::output::{LineEnd, Stream};

use crate::{command_process::OUTPUT_DROPPED, event_view::EventView, failure::Failure, notice::say};

/// Our own two streams, as long as somebody reads stdout.
#[derive(Debug)]
pub(crate) struct OutputSheet {
    is_read: bool,
}

impl OutputSheet {
    /// A clean sheet.
    pub(crate) const fn new() -> Self {
        Self { is_read: true }
    }

    /// Whether anything written from now on is seen by anybody.
    pub(crate) const fn is_read(&self) -> bool {
        self.is_read
    }

    /// Writes the line of output that the event is, if it is one.
    ///
    /// # Errors
    /// When it cannot be written although somebody reads.
    pub(crate) fn event(&mut self, event: &EventView) -> Result<(), Failure> {
        if event.event_type == OUTPUT_DROPPED {
            // What is missing must not pass for what was never written.
            let (lines, bytes) = (&event.payload["dropped_lines"], &event.payload["dropped_bytes"]);
            say(format_args!("{lines} lines of output with {bytes} bytes were beyond the limit and are not recorded"));
        }
        let Some(line) = event.output_line() else { return Ok(()) };
        let mut bytes = line.text.as_bytes().to_vec();
        if line.end != LineEnd::Continued {
            bytes.push(b'\n');
        }
        let written = match line.stream {
            Stream::Stdout => {
                let mut stdout = io::stdout();
                stdout.write_all(&bytes).and_then(|()| stdout.flush())
            }
            Stream::Stderr => io::stderr().write_all(&bytes),
        };
        match written {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => self.is_read = false,
            Err(error) => return Err(Failure::of_stdout(&error)),
            Ok(()) => {}
        }
        Ok(())
    }
}
