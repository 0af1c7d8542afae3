//! `proctor completions`: what a shell has to know to complete the command line.

use std::{io::Write, process::ExitCode};

use clap::Args;
use clap_complete::Shell;

use crate::failure::Failure;

/// Prints a script of completions.
#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Runs the verb, for a command line.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn run(args: &CompletionsArgs, mut command: clap::Command) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    match std::io::stdout().write_all(&script) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::of_stdout(&error)),
        _ => Ok(ExitCode::SUCCESS),
    }
}
