//! Plays of a seed in processes of their own: the program starts anew for each play, and says on its standard output
//! what became of it. It does not know how the program fixes what a process has at random.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::Run;

/// A program that plays one seed: `simulation-player SEED`.
#[derive(Debug, Clone)]
pub struct Player {
    program: PathBuf,
}

impl Player {
    /// This program.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into() }
    }

    /// Plays a seed in a process of its own.
    ///
    /// # Panics
    /// If it cannot be started, or ends without telling what became of the run.
    #[must_use]
    pub fn play(&self, seed: u64) -> Run {
        let mut command = Command::new(&self.program);
        let command = command.arg(seed.to_string()).stdin(Stdio::null()).stderr(Stdio::inherit());
        let ended = command.output().expect("the player can be started");
        assert!(ended.status.success(), "the player of seed {seed} tells what became of it, and {}", ended.status);
        serde_json::from_slice(&ended.stdout).expect("the player writes a run and nothing else")
    }
}
