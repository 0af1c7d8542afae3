//! The way of a command's output: from the reader to the log, and from there to who watches.
//!
//! It owns the order: a line is shown after it is durable, so that nobody sees what a crash could take back. It does
//! not know when the command ends.

use std::sync::Arc;

use registry_actor::{
    domain::ProcessEventAppendRequest,
    port::{ProcessRun, RegistryError},
};

use host_example::output::{OutputEnd, OutputLine, OutputReader};

use super::display::Display;
use crate::{
    command_process::OUTPUT,
    failure::{Failure, FailureKind},
};

/// The lines of one batch, at most.
const BATCH_LINES: usize = 256;

/// The bytes after which a batch takes no more lines.
const BATCH_BYTES: usize = 1024 * 1024;

/// Who watches.
#[derive(Clone, Debug)]
pub(crate) enum Audience {
    /// The caller of `proctor run`.
    Caller(Display),
    /// Nobody: the output is in the store.
    Nobody,
}

/// Records all output, and shows it. Ends with the output.
///
/// # Errors
/// When a line cannot be recorded, or a pipe cannot be read.
pub(crate) async fn pump(
    mut reader: OutputReader,
    run: Arc<dyn ProcessRun>,
    audience: Audience,
) -> Result<OutputEnd, Failure> {
    while let Some(first) = reader.next_line().await {
        let mut bytes = first.text.as_bytes().len();
        let mut lines = vec![first];
        while lines.len() < BATCH_LINES && bytes < BATCH_BYTES {
            let Some(line) = reader.try_next_line() else { break };
            bytes += line.text.as_bytes().len();
            lines.push(line);
        }
        run.append(lines.iter().map(event_of).collect()).await.map_err(unrecorded)?;
        match &audience {
            Audience::Caller(display) => display.show(lines).await,
            Audience::Nobody => {}
        }
    }
    reader
        .end()
        .await
        .map_err(|error| Failure::new(FailureKind::System, format!("cannot read the output of the command: {error}")))
}

fn event_of(line: &OutputLine) -> ProcessEventAppendRequest {
    ProcessEventAppendRequest::new(OUTPUT, line.to_payload())
}

fn unrecorded(error: RegistryError) -> Failure {
    Failure::from(error).while_doing("the output cannot be recorded")
}
