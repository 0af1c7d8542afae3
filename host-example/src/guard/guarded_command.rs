//! The host's end: a guard as a value that the host holds.
//!
//! It owns the lifeline and the guard as a child. As long as the guard is not reaped, which only the end of these
//! values does, its process group cannot become somebody else's; so signals to the group always reach the right one.
//! It does not know what happens in the guard beyond what the guard says.

use std::{io, os::fd::OwnedFd, os::unix::net::UnixStream as BlockingUnixStream, process::Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use thiserror::Error;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    process::{Child, Command},
};

use super::{
    GUARD_SUBCOMMAND,
    command_spec::{ATTEMPT_VARIABLE, CommandSpec, PROCESS_ID_VARIABLE},
    message::{CommandEnd, GuardMessage, HostMessage, SpawnFailure, Start, decode, encode},
};
use crate::{
    marker::MARKER_VARIABLE,
    open_files,
    process_identity::{ProcessIdentity, process_identity},
};

/// Why a command does not run.
#[derive(Debug, Error)]
pub enum SpawnError {
    /// There is no guard for it.
    #[error("cannot launch a guard: {0}")]
    Launch(#[source] io::Error),
    /// The kernel refused the command itself.
    #[error("{0}")]
    Command(SpawnFailure),
    /// The guard ended, or spoke nonsense, before it had started the command.
    #[error(transparent)]
    Guard(#[from] GuardError),
}

/// Why nothing more is known of a command.
#[derive(Debug, Error)]
pub enum GuardError {
    /// The guard ended before its command, which may still run: the host is to search for orphans.
    #[error("guard {pid} ended without telling the end of its command")]
    Lost {
        /// The guard, and its process group.
        pid: u32,
    },
    /// The guard said something unexpected.
    #[error("guard {pid} said {line:?}")]
    Protocol {
        /// The guard, and its process group.
        pid: u32,
        /// What it said.
        line: String,
    },
    /// The system refused to talk to the guard.
    #[error("guard {pid}: {source}")]
    Io {
        /// The guard, and its process group.
        pid: u32,
        /// The system's reason.
        source: io::Error,
    },
}

/// What becomes of the processes that the command left in its group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Remainder {
    /// They are killed, together with the guard.
    Kill,
    /// They stay as they are; the guard goes alone.
    Leave,
}

/// The read ends of what the command writes to.
#[derive(Debug)]
pub struct OutputPipes {
    /// What comes from its stdout.
    pub stdout: OwnedFd,
    /// What comes from its stderr.
    pub stderr: OwnedFd,
}

/// The running command, as the guard tells of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommandProcess {
    /// Its pid.
    pub pid: u32,
    /// Its start time in clock ticks since the boot.
    pub start_ticks: u64,
}

/// A guard that waits to be told to start its command. To drop it ends it.
#[derive(Debug)]
pub struct Guard {
    line: GuardLine,
    start: Start,
    pipes: OutputPipes,
}

impl Guard {
    /// Executes the guard. Must be called within an async runtime, which later reaps the guard.
    ///
    /// # Errors
    ///
    /// When the system gives no pipes, no socket or no process.
    pub fn launch(spec: &CommandSpec) -> Result<Self, SpawnError> {
        Self::execute(spec).map_err(SpawnError::Launch)
    }

    fn execute(spec: &CommandSpec) -> io::Result<Self> {
        // The standard library opens all of these close-on-exec, so that no other command ever holds an end of them.
        let (host_end, guard_end) = BlockingUnixStream::pair()?;
        let (stdout, stdout_writer) = io::pipe()?;
        let (stderr, stderr_writer) = io::pipe()?;
        let mut command = Command::new(&spec.guard_program);
        command
            .arg0("proctor")
            .arg(GUARD_SUBCOMMAND)
            .arg("--")
            .arg(&spec.program)
            .args(&spec.args)
            .env(PROCESS_ID_VARIABLE, &spec.process_id)
            .env(ATTEMPT_VARIABLE, spec.attempt.to_string())
            .env(MARKER_VARIABLE, &spec.marker)
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(guard_end)))
            .stdout(Stdio::from(stdout_writer))
            .stderr(Stdio::from(stderr_writer));
        let child = command.spawn()?;
        // The builder keeps the guard's ends open: with them the host would hold the pipes, and the lifeline, of itself.
        drop(command);
        Ok(Self {
            line: GuardLine::new(child, host_end)?,
            start: Start {
                directory: spec.directory.as_ref().map(|directory| directory.as_os_str().to_owned()),
                env: spec.env.clone(),
                open_files: open_files::started_with(),
            },
            pipes: OutputPipes { stdout: stdout.into(), stderr: stderr.into() },
        })
    }

    /// The guard, which is the leader of its process group: its pid is the group's id.
    #[must_use]
    pub fn identity(&self) -> &ProcessIdentity {
        &self.line.identity
    }

    /// Has the guard start its command. To drop the future kills whatever has been started.
    ///
    /// # Errors
    ///
    /// [`SpawnError::Command`] when the command cannot be run, and [`SpawnError::Guard`] when the guard is gone.
    pub async fn start(mut self) -> Result<(GuardedCommand, OutputPipes), SpawnError> {
        self.line.say(&HostMessage::Start(self.start)).await?;
        let process = match self.line.hear().await? {
            GuardMessage::Started { pid, start_ticks } => CommandProcess { pid, start_ticks },
            GuardMessage::SpawnFailed(failure) => return Err(SpawnError::Command(failure)),
            other => return Err(self.line.unexpected(&other).into()),
        };
        Ok((GuardedCommand { line: self.line, process, end: None, killed: Killed::No }, self.pipes))
    }
}

/// Whether the host itself has killed the group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Killed {
    No,
    ByHost,
}

/// A command that runs, or has run, under a guard. To drop it kills the whole group.
#[derive(Debug)]
pub struct GuardedCommand {
    line: GuardLine,
    process: CommandProcess,
    end: Option<CommandEnd>,
    killed: Killed,
}

impl GuardedCommand {
    /// Launches a guard and has it start the command at once.
    ///
    /// # Errors
    ///
    /// As [`Guard::launch`] and [`Guard::start`].
    pub async fn spawn(spec: &CommandSpec) -> Result<(Self, OutputPipes), SpawnError> {
        Guard::launch(spec)?.start().await
    }

    /// The guard, which is the leader of its process group: its pid is the group's id.
    #[must_use]
    pub fn guard_identity(&self) -> &ProcessIdentity {
        &self.line.identity
    }

    /// The command itself.
    #[must_use]
    pub fn process(&self) -> CommandProcess {
        self.process
    }

    /// Waits for the end of the command; what it started may go on. To drop the future loses nothing, and to ask again
    /// tells the same.
    ///
    /// # Errors
    ///
    /// [`GuardError::Lost`] when the guard is gone though nobody here has killed it.
    pub async fn wait_end(&mut self) -> Result<CommandEnd, GuardError> {
        if let Some(end) = self.end {
            return Ok(end);
        }
        let end = match self.line.hear().await {
            Ok(GuardMessage::Exited { code }) => CommandEnd::Exited { code },
            Ok(GuardMessage::Signaled { signal }) => CommandEnd::Signaled { signal },
            Ok(other) => return Err(self.line.unexpected(&other)),
            // The guard has died of the same signal as its command and so cannot tell.
            Err(GuardError::Lost { .. }) if self.killed == Killed::ByHost => {
                CommandEnd::Signaled { signal: Signal::KILL.as_raw() }
            }
            Err(error) => return Err(error),
        };
        Ok(*self.end.insert(end))
    }

    /// Asks the command, and all else in the group, to end; what is stopped goes on, so that it can. The guard outlives this.
    ///
    /// # Errors
    ///
    /// When the system refuses the signal.
    pub fn terminate(&self) -> Result<(), GuardError> {
        self.line.signal_group(Signal::TERM)?;
        self.line.signal_group(Signal::CONT)
    }

    /// Kills the command, and all else in the group, the guard included.
    ///
    /// # Errors
    ///
    /// When the system refuses the signal.
    pub fn kill(&mut self) -> Result<(), GuardError> {
        self.killed = Killed::ByHost;
        self.line.signal_group(Signal::KILL)
    }

    /// Ends the guard, decides on what the command has left in the group, and reaps the guard. Before the end of the
    /// command either decision kills it.
    ///
    /// # Errors
    ///
    /// [`GuardError::Lost`] when the rest was to stay and the guard did not leave it in peace.
    pub async fn finish(mut self, remainder: Remainder) -> Result<(), GuardError> {
        match remainder {
            Remainder::Kill => {
                // The host does it and not the guard, since thus it is done for a guard that is gone as well.
                self.kill()?;
                self.line.reap().await?;
            }
            Remainder::Leave => {
                self.line.say(&HostMessage::Finish {}).await?;
                if !self.line.reap().await?.success() {
                    return Err(self.line.lost());
                }
            }
        }
        Ok(())
    }
}

/// The connection to one guard. To drop it closes the lifeline.
#[derive(Debug)]
struct GuardLine {
    identity: ProcessIdentity,
    from_guard: Lines<BufReader<OwnedReadHalf>>,
    to_guard: OwnedWriteHalf,
    child: Child,
}

impl GuardLine {
    fn new(child: Child, host_end: BlockingUnixStream) -> io::Result<Self> {
        let identity = child
            .id()
            .and_then(process_identity)
            .ok_or_else(|| io::Error::other("the guard does not show in /proc"))?;
        host_end.set_nonblocking(true)?;
        let (from_guard, to_guard) = UnixStream::from_std(host_end)?.into_split();
        Ok(Self { identity, from_guard: BufReader::new(from_guard).lines(), to_guard, child })
    }

    async fn say(&mut self, message: &HostMessage) -> Result<(), GuardError> {
        let line = encode(message).map_err(|source| self.refused(source))?;
        self.to_guard.write_all(&line).await.map_err(|source| self.refused(source))
    }

    async fn hear(&mut self) -> Result<GuardMessage, GuardError> {
        match self.from_guard.next_line().await {
            Ok(Some(line)) => decode(line.as_bytes()).map_err(|_| self.nonsense(line)),
            Ok(None) => Err(self.lost()),
            Err(source) => Err(self.refused(source)),
        }
    }

    fn signal_group(&self, signal: Signal) -> Result<(), GuardError> {
        let group = i32::try_from(self.identity.pid).ok().and_then(Pid::from_raw).ok_or_else(|| self.lost())?;
        kill_process_group(group, signal).map_err(|errno| self.refused(errno.into()))
    }

    async fn reap(&mut self) -> Result<std::process::ExitStatus, GuardError> {
        self.child.wait().await.map_err(|source| self.refused(source))
    }

    fn lost(&self) -> GuardError {
        GuardError::Lost { pid: self.identity.pid }
    }

    /// An error of the socket. That the other end is closed, or was closed with something unread, is no error of the
    /// socket but the end of the guard.
    fn refused(&self, source: io::Error) -> GuardError {
        match source.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => self.lost(),
            _ => GuardError::Io { pid: self.identity.pid, source },
        }
    }

    fn nonsense(&self, line: String) -> GuardError {
        GuardError::Protocol { pid: self.identity.pid, line }
    }

    fn unexpected(&self, message: &GuardMessage) -> GuardError {
        self.nonsense(format!("{message:?}"))
    }
}
