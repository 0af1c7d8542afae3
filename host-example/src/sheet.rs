//! The paper that a reading verb writes on: our own stdout.
//!
//! It owns that a reader who has seen enough ends the writing and is no failure. It does not know what is written.

use std::{
    fmt::Display,
    io::{self, BufWriter, ErrorKind, Stdout, Write},
};

use crate::failure::Failure;

/// Stdout, line by line.
#[derive(Debug)]
pub(crate) struct Sheet {
    stdout: BufWriter<Stdout>,
    reader: Reader,
}

/// Whether somebody reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reader {
    Present,
    Gone,
}

impl Sheet {
    /// A clean sheet.
    pub(crate) fn new() -> Self {
        Self { stdout: BufWriter::new(io::stdout()), reader: Reader::Present }
    }

    /// Writes one line.
    ///
    /// # Errors
    /// When it cannot be written although somebody reads.
    pub(crate) fn line(&mut self, line: impl Display) -> Result<(), Failure> {
        let written = writeln!(self.stdout, "{line}");
        self.settle(written)
    }

    /// Whether anything written from now on is seen by anybody.
    pub(crate) fn is_read(&self) -> bool {
        self.reader == Reader::Present
    }

    /// Lets the reader see what was written until now.
    ///
    /// # Errors
    /// As [`Sheet::line`].
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        let flushed = self.stdout.flush();
        self.settle(flushed)
    }

    fn settle(&mut self, written: io::Result<()>) -> Result<(), Failure> {
        match written {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.reader = Reader::Gone;
                Ok(())
            }
            Err(error) => Err(Failure::of_stdout(&error)),
        }
    }
}
