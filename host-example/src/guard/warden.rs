//! The guard's own end: what the re-executed binary does.
//!
//! It owns the command as its child, and the group's death as its duty. It does not know why the host wants something,
//! nor what the command writes.
//!
//! The lifeline is watched by one thread from before the command's start until the guard's end. The kernel delivers a
//! signal to a group and adds a forked child to it under one lock, so that a child being spawned while the group is
//! killed is killed too.

use std::{
    env,
    ffi::OsString,
    fs::File,
    io::{self, BufRead, BufReader, Write},
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::ExitStatusExt},
    },
    process::{self, Child, Command, ExitCode, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use registry_actor::actor::ProcessStat;
use rustix::process::{Signal, getpgrp, getpid, kill_current_process_group};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2};

use super::{
    command_spec::is_attempt_variable,
    message::{GuardMessage, HostMessage, SpawnFailure, SpawnStage, Start, decode, encode},
};
use crate::open_files;

/// The signals that are sent to whole groups and would end or stop the guard before its command; the terminal stops a whole group
/// whose command wants to read from it. And the one that, ignored by whoever started the host, would have the system keep the
/// end of the command to itself.
const OUTLIVED_SIGNALS: [i32; 10] =
    [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGTSTP, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2, SIGCHLD];

/// The whole life of a guard. `args` is what follows the hidden subcommand: `--`, the program and its arguments.
pub fn keep_watch(args: impl Iterator<Item = OsString>) -> ExitCode {
    match guard_command(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Once the command runs this goes nowhere; the host then learns of it by the end of the status channel.
            eprintln!("proctor guard: {error}");
            ExitCode::FAILURE
        }
    }
}

fn guard_command(args: impl Iterator<Item = OsString>) -> io::Result<()> {
    if getpgrp() != getpid() {
        // Its group is what a guard kills: it must not be somebody else's.
        return Err(io::Error::other("not the leader of a process group"));
    }
    outlive_signals()?;
    let (program, args) = command_line(args)?;
    let mut status = Status(take_lifeline()?);
    let mut lifeline = Lifeline(BufReader::new(status.0.try_clone()?));
    let start = match lifeline.next_message()? {
        Some(HostMessage::Start(start)) => start,
        // The host died or has thought better of it. Nothing runs yet.
        Some(HostMessage::Finish {}) | None => return Ok(()),
    };
    let command_ended = Arc::new(AtomicBool::new(false));
    let watcher = {
        let command_ended = Arc::clone(&command_ended);
        thread::Builder::new().name("lifeline".to_owned()).spawn(move || lifeline.watch(&command_ended))?
    };
    let mut child = match spawn_command(program, args, start) {
        Ok(child) => child,
        Err(failure) => return status.report(&GuardMessage::SpawnFailed(failure)),
    };
    // Whatever stops the guard from doing its duty must not leave the command running without it.
    if follow_to_end(&mut child, &mut status, &command_ended).is_err() {
        kill_group();
    }
    // What the command leaves behind is the host's to decide on, however long it takes.
    drop(watcher.join());
    Ok(())
}

fn follow_to_end(child: &mut Child, status: &mut Status, command_ended: &AtomicBool) -> io::Result<()> {
    // As long as the guard holds the pipes the host sees no end of them.
    release_output()?;
    let pid = child.id();
    let start_ticks = ProcessStat::of(pid).ok().flatten().map_or(0, |stat| stat.start_ticks);
    status.report(&GuardMessage::Started { pid, start_ticks })?;
    let end = child.wait()?;
    command_ended.store(true, Ordering::SeqCst);
    status.report(&end_message(end)?)
}

/// Has the guard take note of signals rather than die of them. A handler, unlike an ignored signal, is not passed on
/// to the command, which is to die of them as usual.
fn outlive_signals() -> io::Result<()> {
    let noted = Arc::new(AtomicBool::new(false));
    for signal in OUTLIVED_SIGNALS {
        signal_hook::flag::register(signal, Arc::clone(&noted))?;
    }
    Ok(())
}

fn command_line(mut args: impl Iterator<Item = OsString>) -> io::Result<(OsString, impl Iterator<Item = OsString>)> {
    if args.next().is_none_or(|separator| separator != "--") {
        return Err(io::Error::other("no `--` before the command"));
    }
    let program = args.next().ok_or_else(|| io::Error::other("no command"))?;
    Ok((program, args))
}

/// Moves the lifeline from stdin to a descriptor that no command inherits.
fn take_lifeline() -> io::Result<UnixStream> {
    let lifeline = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(lifeline.into())
}

fn release_output() -> io::Result<()> {
    let null = OwnedFd::from(File::options().write(true).open("/dev/null")?);
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

fn spawn_command(program: OsString, args: impl Iterator<Item = OsString>, start: Start) -> Result<Child, SpawnFailure> {
    if let Some(directory) = start.directory {
        // The guard goes there itself, so that a failure of this is told from a failure of the program.
        env::set_current_dir(directory).map_err(|error| SpawnFailure::new(SpawnStage::Directory, &error))?;
    }
    if let Some(open_files) = start.open_files
        && let Err(error) = open_files::restore(open_files)
    {
        // A limit that is too high hurts few commands, and one that does not run hurts every one.
        eprintln!("proctor guard: the limit of open files stays that of the host: {error}");
    }
    // The variables that name the attempt came with the guard's own environment and are not for an addition to change.
    let additions = start.env.into_iter().filter(|(name, _)| !is_attempt_variable(name));
    Command::new(program)
        .args(args)
        .envs(additions)
        .stdin(Stdio::null())
        .spawn()
        .map_err(|error| SpawnFailure::new(SpawnStage::Program, &error))
}

fn end_message(status: ExitStatus) -> io::Result<GuardMessage> {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ok(GuardMessage::Exited { code }),
        (None, Some(signal)) => Ok(GuardMessage::Signaled { signal }),
        (None, None) => Err(io::Error::other(format!("no end of the command: {status}"))),
    }
}

/// Kills every process of the group, the guard among them.
fn kill_group() -> ! {
    // The call cannot fail, since a process may always signal itself; but to stay would be worse than to leave.
    let _ = kill_current_process_group(Signal::KILL);
    process::abort()
}

/// The guard's writing end.
struct Status(UnixStream);

impl Status {
    fn report(&mut self, message: &GuardMessage) -> io::Result<()> {
        self.0.write_all(&encode(message)?)
    }
}

/// The guard's reading end.
struct Lifeline(BufReader<UnixStream>);

impl Lifeline {
    /// The next message; `None` when the host is gone, be it in the middle of a line.
    fn next_message(&mut self) -> io::Result<Option<HostMessage>> {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line)?;
        if line.ends_with(b"\n") { decode(&line).map(Some) } else { Ok(None) }
    }

    /// Waits for the host's last word. Returns only when the guard may go alone: whatever else ends the watch ends the
    /// group. In particular a host that speaks nonsense is as good as dead.
    fn watch(mut self, command_ended: &AtomicBool) {
        let may_leave = matches!(self.next_message(), Ok(Some(HostMessage::Finish {})));
        // A guard never leaves a command that still runs.
        if may_leave && command_ended.load(Ordering::SeqCst) {
            return;
        }
        kill_group()
    }
}
