//! What `proctor` says to people beside the output of a command: lines on stderr that begin with its name.
//!
//! It owns the form of these lines, and that a closed stderr costs nothing but the lines.

use std::{
    fmt::Display,
    io::{self, Write},
};

/// Says one line.
pub(crate) fn say(line: impl Display) {
    // Written in one piece, so that the lines of a command that share the terminal do not get into it.
    let line = format!("proctor: {line}\n");
    // Nobody may listen any more, which must not end a run.
    drop(io::stderr().write_all(line.as_bytes()));
}
