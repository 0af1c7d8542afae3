//! The guard as it is shipped: the real binary, real process groups, real deaths.
//!
//! The tests wait for events only: a line of output, a message of the guard, the death of a process as its pidfd tells
//! it. Times are bounds on hanging, not means of ordering.

use std::{
    collections::BTreeSet,
    env, fs,
    future::Future,
    io::{BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt, net::UnixStream, process::CommandExt},
    },
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use host_example::{
    cancel::{Cancelled, cancel},
    exit_status::ExitStatus,
    guard::{
        CommandEnd, CommandSpec, Guard, GuardError, GuardedCommand, Remainder, SpawnError, SpawnFailure, SpawnStage,
    },
    marker::Marker,
    orphan::{OrphanReport, OrphanSearch},
    output::{OutputBudget, OutputReader, Stream},
    process_identity::{ProcessIdentity, process_identity},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};

const BOUND: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(3600);
const PROCTOR: &str = env!("CARGO_BIN_EXE_proctor");

fn program(name: &str, args: &[&str]) -> CommandSpec {
    let marker = Marker::random().expect("random numbers");
    let mut spec = CommandSpec::new(name, args, "process-1", marker);
    spec.guard_program = PathBuf::from(PROCTOR);
    spec
}

fn script(text: &str) -> CommandSpec {
    program("/bin/sh", &["-c", text])
}

async fn bounded<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(BOUND, future).await.expect("this hangs")
}

/// A command with somebody who reads what it writes.
struct Running {
    command: GuardedCommand,
    output: OutputReader,
}

impl Running {
    async fn spawn(spec: &CommandSpec) -> Self {
        Self::spawn_with_capacity(spec, 16).await
    }

    async fn spawn_with_capacity(spec: &CommandSpec, capacity_lines: usize) -> Self {
        let (command, pipes) = bounded(GuardedCommand::spawn(spec)).await.expect("the command runs");
        let output = OutputReader::start(pipes.stdout, pipes.stderr, OutputBudget::default(), capacity_lines);
        Self { command, output: output.expect("a reader") }
    }

    async fn line(&mut self) -> Option<String> {
        let line = bounded(self.output.next_line()).await?;
        Some(String::from_utf8(line.text.as_bytes().to_vec()).expect("the tests write text"))
    }

    async fn pid_line(&mut self) -> u32 {
        self.line().await.expect("a line").trim().parse().expect("a pid")
    }

    async fn rest(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = self.line().await {
            lines.push(line);
        }
        lines
    }

    async fn end(&mut self) -> CommandEnd {
        bounded(self.command.wait_end()).await.expect("the guard tells the end")
    }

    async fn finish(self) {
        bounded(self.command.finish(Remainder::Kill)).await.expect("the guard goes");
    }

    /// Kills the guard alone, as the kernel does when it is out of memory.
    async fn lose_guard(&mut self) {
        let guard = Watched::new(self.guard_pid());
        kill_process(raw(guard.pid), Signal::KILL).expect("the guard is there");
        let lost = bounded(self.command.wait_end()).await;
        assert!(matches!(lost, Err(GuardError::Lost { .. })), "{lost:?}");
        // Its socket closes some time before it is dead, and a search that finds it dying would count it.
        guard.assert_dies();
    }

    fn guard_pid(&self) -> u32 {
        self.command.guard_identity().pid
    }

    fn pid(&self) -> u32 {
        self.command.process().pid
    }
}

fn raw(pid: u32) -> Pid {
    i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid")
}

/// A process whose death can be waited for though it is nobody's child here.
struct Watched {
    pid: u32,
    pidfd: OwnedFd,
}

impl Watched {
    fn new(pid: u32) -> Self {
        let pidfd = pidfd_open(raw(pid), PidfdFlags::empty()).expect("the process is there");
        Self { pid, pidfd }
    }

    fn is_dead_within(&self, time: Duration) -> bool {
        let mut asked = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let time = Timespec::try_from(time).expect("a small time");
        loop {
            match poll(&mut asked, Some(&time)) {
                Ok(ready) => return ready == 1,
                // The runtime is told of the death of its children by a signal.
                Err(Errno::INTR) => {}
                Err(errno) => panic!("a pidfd can be polled: {errno}"),
            }
        }
    }

    fn assert_dies(&self) {
        assert!(self.is_dead_within(BOUND), "process {} lives on", self.pid);
    }

    fn assert_lives(&self) {
        assert!(!self.is_dead_within(Duration::ZERO), "process {} is dead", self.pid);
    }
}

#[tokio::test]
async fn an_exit_code_passes_through() {
    let mut running = Running::spawn(&script("exit 42")).await;
    let end = running.end().await;
    assert_eq!(end, CommandEnd::Exited { code: 42 });
    assert_eq!(ExitStatus::from(end).code(), 42);
    assert_eq!(running.end().await, end, "to ask again tells the same");
    running.finish().await;
}

#[tokio::test]
async fn a_signal_passes_through_also_one_that_the_guard_outlives() {
    for (name, signal) in [("KILL", 9), ("TERM", 15), ("HUP", 1), ("INT", 2), ("USR1", 10), ("PIPE", 13)] {
        let mut running = Running::spawn(&script(&format!("kill -{name} $$"))).await;
        assert_eq!(running.end().await, CommandEnd::Signaled { signal });
        running.finish().await;
    }
}

#[tokio::test]
async fn both_streams_arrive_each_in_its_order_and_end() {
    let mut running =
        Running::spawn(&script("i=0; while [ $i -lt 2000 ]; do echo o$i; echo e$i >&2; i=$((i+1)); done")).await;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let Some(line) = bounded(running.output.next_line()).await {
        let text = String::from_utf8_lossy(line.text.as_bytes()).into_owned();
        if line.stream == Stream::Stdout { stdout.push(text) } else { stderr.push(text) }
    }
    // The guard lives still: that the streams end shows that it does not hold them.
    Watched::new(running.guard_pid()).assert_lives();
    assert_eq!(stdout, (0..2000).map(|i| format!("o{i}")).collect::<Vec<_>>());
    assert_eq!(stderr, (0..2000).map(|i| format!("e{i}")).collect::<Vec<_>>());
    assert_eq!(running.end().await, CommandEnd::Exited { code: 0 });
    running.finish().await;
}

#[tokio::test]
async fn the_command_gets_an_empty_stdin_and_no_descriptor_of_the_host_or_guard() {
    const LIST: [&str; 2] = ["-l", "/proc/self/fd"];
    /// The descriptors with what they lead to, but for the one by which the list itself is read.
    fn descriptors(lines: impl Iterator<Item = String>) -> Vec<(String, String)> {
        lines
            .filter_map(|line| line.rsplit_once(" -> ").map(|(head, target)| (head.to_owned(), target.to_owned())))
            .map(|(head, target)| (head.rsplit(' ').next().unwrap_or_default().to_owned(), target))
            .filter(|(_, target)| !target.starts_with("/proc/"))
            .collect()
    }
    fn beyond_streams(descriptors: &[(String, String)]) -> Vec<&(String, String)> {
        descriptors.iter().filter(|(number, _)| !["0", "1", "2"].contains(&number.as_str())).collect()
    }
    // Whatever started the tests may have left descriptors open to everybody; those are no business of ours.
    let plain = Command::new("ls").args(LIST).stdin(Stdio::null()).output().expect("ls runs");
    let plain = descriptors(String::from_utf8(plain.stdout).expect("ls writes text").lines().map(str::to_owned));
    let mut running = Running::spawn(&program("ls", &LIST)).await;
    let guarded = descriptors(running.rest().await.into_iter());
    assert!(guarded.contains(&("0".to_owned(), "/dev/null".to_owned())), "{guarded:?}");
    assert_eq!(beyond_streams(&guarded), beyond_streams(&plain));
    running.finish().await;
}

#[tokio::test]
async fn to_drop_the_command_kills_its_whole_group() {
    let mut running = Running::spawn(&script("sleep 600 & echo $!; wait")).await;
    let grandchild = Watched::new(running.pid_line().await);
    let (command, guard) = (Watched::new(running.pid()), Watched::new(running.guard_pid()));
    command.assert_lives();
    drop(running);
    for process in [grandchild, command, guard] {
        process.assert_dies();
    }
}

#[tokio::test]
async fn after_the_end_of_the_command_the_closed_lifeline_still_kills_what_it_left() {
    let mut running = Running::spawn(&script("sleep 600 & echo $!")).await;
    let grandchild = Watched::new(running.pid_line().await);
    assert_eq!(running.end().await, CommandEnd::Exited { code: 0 });
    grandchild.assert_lives();
    drop(running);
    grandchild.assert_dies();
}

#[tokio::test]
async fn a_host_killed_by_sigkill_takes_the_group_with_it() {
    let mut host = Command::new(env::current_exe().expect("the test itself"))
        .args(["--exact", "helper_host_that_waits_to_be_killed", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the helper runs");
    let stdout = BufReader::new(host.stdout.take().expect("a pipe"));
    let pids = stdout
        .lines()
        .map_while(Result::ok)
        .find_map(|line| Some(line.strip_prefix("pids:")?.to_owned()))
        .expect("the helper tells the pids");
    let watched: Vec<_> = pids.split_ascii_whitespace().map(|pid| Watched::new(pid.parse().expect("a pid"))).collect();
    assert_eq!(watched.len(), 3);
    watched.iter().for_each(Watched::assert_lives);
    host.kill().expect("the helper can be killed");
    watched.iter().for_each(Watched::assert_dies);
    host.wait().expect("the helper can be reaped");
}

#[tokio::test]
#[ignore = "this is no test: another one runs it as a host to kill"]
async fn helper_host_that_waits_to_be_killed() {
    let mut running = Running::spawn(&script("sleep 600 & echo $!; wait")).await;
    let grandchild = running.pid_line().await;
    println!("\npids: {} {} {grandchild}", running.guard_pid(), running.pid());
    running.end().await;
}

#[tokio::test]
async fn a_guard_that_was_never_told_to_start_dies_with_the_host_and_has_run_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut spec = script("touch ran");
    spec.directory = Some(directory.path().to_owned());
    let guard = Guard::launch(&spec).expect("a guard");
    let watched = Watched::new(guard.identity().pid);
    watched.assert_lives();
    drop(guard);
    watched.assert_dies();
    assert!(!directory.path().join("ran").exists());
}

#[test]
fn a_guard_that_hears_half_a_message_runs_nothing() {
    let (mut host_end, guard_end) = UnixStream::pair().expect("a socket");
    let guard = Command::new(PROCTOR)
        .args(["__guard", "--", "echo", "ran"])
        .process_group(0)
        .stdin(Stdio::from(OwnedFd::from(guard_end)))
        .stdout(Stdio::piped())
        .spawn()
        .expect("a guard");
    host_end.write_all(br#"{"start":{"directory":null,"env":[]}}"#).expect("the guard listens");
    drop(host_end);
    let output = guard.wait_with_output().expect("the guard ends");
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
}

#[test]
fn a_guard_that_hears_nonsense_kills_the_group() {
    let (mut host_end, guard_end) = UnixStream::pair().expect("a socket");
    let mut guard = Command::new(PROCTOR)
        .args(["__guard", "--", "sleep", "600"])
        .process_group(0)
        .stdin(Stdio::from(OwnedFd::from(guard_end)))
        .stdout(Stdio::piped())
        .spawn()
        .expect("a guard");
    host_end.write_all(b"{\"start\":{\"directory\":null,\"env\":[]}}\n").expect("the guard listens");
    let mut started = String::new();
    BufReader::new(&host_end).read_line(&mut started).expect("the guard speaks");
    assert!(started.starts_with(r#"{"started":{"pid":"#), "{started}");
    host_end.write_all(b"nonsense\n").expect("the guard listens");
    let mut rest = Vec::new();
    guard.stdout.take().expect("a pipe").read_to_end(&mut rest).expect("the command dies and with it the pipe");
    guard.wait().expect("the guard ends");
}

#[test]
fn a_guard_in_a_group_of_others_refuses_to_be_one() {
    let (mut host_end, guard_end) = UnixStream::pair().expect("a socket");
    // All is said beforehand, since the shell does not wait to be spoken to.
    host_end.write_all(b"{\"start\":{\"directory\":null,\"env\":[]}}\n").expect("both ends are here");
    host_end.shutdown(Shutdown::Write).expect("an end of what the guard hears");
    // The shell leads the group, so that a guard that does not refuse has no group to kill but this one.
    let shell = Command::new("/bin/sh")
        .args(["-c", "\"$0\" __guard -- echo ran; echo code $?", PROCTOR])
        .process_group(0)
        .stdin(Stdio::from(OwnedFd::from(guard_end)))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell");
    let output = shell.wait_with_output().expect("the shell ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "code 1\n");
}

#[tokio::test]
async fn to_drop_one_command_kills_it_while_another_started_later_lives() {
    let first = Running::spawn(&script("exec sleep 600")).await;
    let second = Running::spawn(&script("exec sleep 600")).await;
    let (first_process, second_process) = (Watched::new(first.pid()), Watched::new(second.pid()));
    drop(first);
    first_process.assert_dies();
    second_process.assert_lives();
    drop(second);
    second_process.assert_dies();
}

#[tokio::test]
async fn the_guard_outlives_a_group_wide_sigterm_while_the_command_cleans_up() {
    let mut running = Running::spawn(&script(
        "exec 2> /dev/null; trap 'echo cleaning; echo cleaned; exit 7' TERM; echo ready; while :; do sleep 600 & wait $!; done",
    ))
    .await;
    assert_eq!(running.line().await.as_deref(), Some("ready"));
    // The terminal stops a whole group by the last two, and with its guard stopped nobody could end a run any more.
    for signal in
        [Signal::INT, Signal::HUP, Signal::QUIT, Signal::TERM, Signal::TSTP, Signal::CHILD, Signal::TTIN, Signal::TTOU]
    {
        kill_process(raw(running.guard_pid()), signal).expect("the guard is there");
    }
    running.command.terminate().expect("the group is there");
    assert_eq!(running.line().await.as_deref(), Some("cleaning"));
    assert_eq!(running.line().await.as_deref(), Some("cleaned"));
    assert_eq!(running.end().await, CommandEnd::Exited { code: 7 });
    running.finish().await;
}

#[tokio::test]
async fn a_cancelled_command_that_ends_in_time_is_not_killed() {
    let mut running =
        Running::spawn(&script("trap 'exit 3' TERM; echo ready; while :; do sleep 600 & wait $!; done")).await;
    assert_eq!(running.line().await.as_deref(), Some("ready"));
    let cancelled = bounded(cancel(&mut running.command, LONG)).await.expect("the guard tells");
    assert_eq!(cancelled, Cancelled::InTime(CommandEnd::Exited { code: 3 }));
    running.finish().await;
}

/// A command that stands still, as one that wants to read from a terminal, could not clean up: the request waited for it to go on.
#[tokio::test]
async fn a_cancelled_command_that_stands_still_goes_on_to_end() {
    let mut running =
        Running::spawn(&script("trap 'exit 3' TERM; echo ready; kill -STOP $$; sleep 600 & wait $!")).await;
    assert_eq!(running.line().await.as_deref(), Some("ready"));
    let stat = format!("/proc/{}/stat", running.pid());
    while !fs::read_to_string(&stat).expect("it is there").contains(") T ") {
        tokio::task::yield_now().await;
    }
    let cancelled = bounded(cancel(&mut running.command, LONG)).await.expect("the guard tells");
    assert_eq!(cancelled, Cancelled::InTime(CommandEnd::Exited { code: 3 }));
    running.finish().await;
}

/// Whoever starts a host may ignore the deaths of children, and that is inherited: the guard was not told of the end.
#[tokio::test]
async fn a_guard_whose_host_ignores_the_deaths_of_children_tells_the_end_all_the_same() {
    let mut spec = script("exit 5");
    let directory = tempfile::tempdir().expect("a directory");
    let guard = directory.path().join("guard");
    let shell = format!("#!/bin/sh\ntrap '' CHLD\nexec {} \"$@\"\n", spec.guard_program.display());
    fs::write(&guard, shell).expect("a script");
    fs::set_permissions(&guard, PermissionsExt::from_mode(0o700)).expect("executable");
    spec.guard_program = guard;
    let mut running = Running::spawn(&spec).await;
    assert_eq!(running.end().await, CommandEnd::Exited { code: 5 });
    running.finish().await;
}

#[tokio::test]
async fn a_cancelled_command_that_ignores_it_is_killed_with_its_group() {
    let mut running = Running::spawn(&script("trap '' TERM; sleep 600 & echo $!; wait")).await;
    let grandchild = Watched::new(running.pid_line().await);
    let command = Watched::new(running.pid());
    let cancelled = bounded(cancel(&mut running.command, Duration::from_millis(20))).await.expect("an end");
    assert_eq!(cancelled, Cancelled::Killed(CommandEnd::Signaled { signal: 9 }));
    grandchild.assert_dies();
    command.assert_dies();
    assert_eq!(running.end().await, cancelled.end());
    running.finish().await;
}

#[tokio::test]
async fn finish_kills_the_rest_or_leaves_it_as_the_host_decides() {
    for remainder in [Remainder::Kill, Remainder::Leave] {
        let mut running = Running::spawn(&script("sleep 600 > /dev/null 2>&1 & echo $!")).await;
        let grandchild = Watched::new(running.pid_line().await);
        let guard = Watched::new(running.guard_pid());
        assert_eq!(running.end().await, CommandEnd::Exited { code: 0 });
        assert_eq!(running.rest().await, Vec::<String>::new());
        bounded(running.command.finish(remainder)).await.expect("the guard goes");
        guard.assert_dies();
        if remainder == Remainder::Leave {
            grandchild.assert_lives();
            kill_process(raw(grandchild.pid), Signal::KILL).expect("the grandchild is there");
        }
        grandchild.assert_dies();
    }
}

#[tokio::test]
async fn a_guard_does_not_leave_a_command_that_still_runs() {
    let running = Running::spawn(&script("exec sleep 600")).await;
    let command = Watched::new(running.pid());
    let finished = bounded(running.command.finish(Remainder::Leave)).await;
    assert!(matches!(finished, Err(GuardError::Lost { .. })), "{finished:?}");
    command.assert_dies();
}

#[tokio::test]
async fn the_environment_reaches_the_command_and_shows_nowhere_else() {
    let mut spec =
        script("echo \"$SECRET/$PROCTOR_PROCESS_ID/$PROCTOR_ATTEMPT/$PROCTOR_MARKER/$PATH\"; exec sleep 600");
    spec.env = vec![
        ("SECRET".into(), "hunter2".into()),
        ("PROCTOR_MARKER".into(), "somebody else's".into()),
        ("PROCTOR_ATTEMPT".into(), "0".into()),
    ];
    spec.attempt = 3;
    let mut running = Running::spawn(&spec).await;
    let path = env::var("PATH").expect("the tests have a PATH");
    let expected = format!("hunter2/process-1/3/{}/{path}", spec.marker);
    assert_eq!(running.line().await, Some(expected));
    let of_guard = |file| fs::read(format!("/proc/{}/{file}", running.guard_pid())).expect("the guard is there");
    let holds_secret = |bytes: &[u8]| bytes.windows(7).any(|window| window == b"hunter2");
    assert!(!holds_secret(&of_guard("cmdline")) && !holds_secret(&of_guard("environ")));
    assert!(of_guard("cmdline").starts_with(b"proctor\0__guard\0--\0/bin/sh\0"));
    assert!(spec.marker.is_in(&of_guard("environ")), "recovery finds the guard too");
    running.finish().await;
}

#[tokio::test]
async fn the_command_runs_in_its_directory_and_is_found_in_its_own_path() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("the-tool");
    fs::write(&file, "#!/bin/sh\npwd -P\n").expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("a program");
    let real = fs::canonicalize(directory.path()).expect("a real path");
    let mut by_path = program("the-tool", &[]);
    by_path.directory = Some(directory.path().to_owned());
    by_path.env = vec![("PATH".into(), format!("{}:/usr/bin:/bin", directory.path().display()).into())];
    let mut by_directory = program("./the-tool", &[]);
    by_directory.directory = Some(directory.path().to_owned());
    for spec in [by_path, by_directory] {
        let mut running = Running::spawn(&spec).await;
        assert_eq!(running.rest().await, [real.display().to_string()]);
        running.finish().await;
    }
}

#[tokio::test]
async fn a_command_that_cannot_run_is_an_error_that_tells_why() {
    async fn failure(spec: CommandSpec) -> SpawnFailure {
        match bounded(GuardedCommand::spawn(&spec)).await {
            Err(SpawnError::Command(failure)) => failure,
            other => panic!("not the command's own failure: {other:?}"),
        }
    }
    let missing = failure(program("/no/such/program", &[])).await;
    assert_eq!((missing.stage, missing.errno, ExitStatus::from(&missing).code()), (SpawnStage::Program, 2, 127));
    let unknown = failure(program("no-such-program-in-path", &[])).await;
    assert_eq!((unknown.stage, unknown.errno, ExitStatus::from(&unknown).code()), (SpawnStage::Program, 2, 127));
    let file = tempfile::NamedTempFile::new().expect("a file that nobody may execute");
    let forbidden = failure(program(file.path().to_str().expect("a plain path"), &[])).await;
    assert_eq!((forbidden.stage, forbidden.errno, ExitStatus::from(&forbidden).code()), (SpawnStage::Program, 13, 126));
    let mut nowhere = program("true", &[]);
    nowhere.directory = Some(PathBuf::from("/no/such/directory"));
    let nowhere = failure(nowhere).await;
    assert_eq!((nowhere.stage, nowhere.errno, ExitStatus::from(&nowhere).code()), (SpawnStage::Directory, 2, 126));
}

#[tokio::test]
async fn without_a_guard_program_there_is_a_launch_error() {
    let mut spec = script("true");
    spec.guard_program = PathBuf::from("/no/such/guard");
    assert!(matches!(GuardedCommand::spawn(&spec).await, Err(SpawnError::Launch(_))));
    spec.guard_program = PathBuf::from("/bin/true");
    let spawned = bounded(GuardedCommand::spawn(&spec)).await;
    assert!(matches!(spawned, Err(SpawnError::Guard(GuardError::Lost { .. }))), "{spawned:?}");
}

#[tokio::test]
async fn an_environment_larger_than_any_socket_buffer_arrives() {
    let mut spec = script("for i in 0 1 2 3 4 5 6 7; do eval \"echo \\${#BIG$i}\"; done");
    spec.env = (0..8).map(|i| (format!("BIG{i}").into(), "x".repeat(100_000).into())).collect();
    let mut running = Running::spawn(&spec).await;
    assert_eq!(running.rest().await, vec!["100000"; 8]);
    running.finish().await;
}

#[tokio::test]
async fn a_slow_consumer_blocks_the_writer() {
    const CAPACITY_LINES: usize = 8;
    // One pipe is full and one chunk of the same size has been read: no more can have been written.
    const BOUND_BYTES: u64 = 2 * 64 * 1024 + 4096;
    const QUIET: Duration = Duration::from_millis(300);
    let mut running = Running::spawn_with_capacity(&program("yes", &[]), CAPACITY_LINES).await;
    assert_eq!(running.line().await.as_deref(), Some("y"));
    let yes = running.pid();
    let written_bytes = || {
        let io = fs::read_to_string(format!("/proc/{yes}/io")).expect("the command is there");
        let wchar = io.lines().find_map(|line| line.strip_prefix("wchar: ")).expect("the count of written bytes");
        wchar.parse::<u64>().expect("a number")
    };
    let is_blocked = || {
        let stat = fs::read_to_string(format!("/proc/{yes}/stat")).expect("the command is there");
        stat.contains(") S ")
    };
    // That nothing goes on can be seen only by looking for a while. A while that is too short on a slow machine lets a
    // broken reader pass, but never fails one that works.
    let begin = Instant::now();
    let (mut last_progress, mut written) = (begin, 0);
    while last_progress.elapsed() < QUIET {
        assert!(begin.elapsed() < BOUND, "the writer is never blocked; it has written {written} bytes");
        let now = written_bytes();
        if !is_blocked() || now != written {
            last_progress = Instant::now();
        }
        written = now;
        assert!(written <= BOUND_BYTES, "{written} bytes are written that nobody has taken");
        tokio::task::yield_now().await;
    }
    let command = Watched::new(yes);
    running.command.kill().expect("the group is there");
    command.assert_dies();
    running.finish().await;
}

#[tokio::test]
async fn a_grandchild_that_holds_a_pipe_is_given_up_after_the_bound() {
    let mut running = Running::spawn(&script("sleep 600 2>/dev/null & echo done")).await;
    assert_eq!(running.line().await.as_deref(), Some("done"));
    assert_eq!(running.end().await, CommandEnd::Exited { code: 0 });
    running.output.closer().close_within(Duration::from_millis(20));
    assert_eq!(running.line().await, None);
    let end = bounded(running.output.end()).await.expect("readable pipes");
    assert_eq!(end.held_open, [Stream::Stdout]);
    bounded(running.command.finish(Remainder::Kill)).await.expect("the guard goes");
}

/// The processes that a search has killed, when it has killed all that it found.
fn killed_pids(report: &OrphanReport) -> BTreeSet<u32> {
    assert_eq!(report.found, report.killed.len(), "{report:?}");
    report.killed.iter().map(|killed| killed.pid).collect()
}

async fn search(search: OrphanSearch) -> OrphanReport {
    let searched = tokio::task::spawn_blocking(move || search.with_timeout(BOUND).kill_all());
    bounded(searched).await.expect("the search does not panic").expect("nothing survives")
}

#[tokio::test]
async fn when_the_guard_alone_is_killed_the_marker_leads_to_the_command_and_its_daemon() {
    let spec = script("(setsid sh -c 'echo $$; exec sleep 600' &); exec sleep 600");
    let mut running = Running::spawn(&spec).await;
    let daemon = Watched::new(running.pid_line().await);
    let command = Watched::new(running.pid());
    running.lose_guard().await;

    let stranger = search(OrphanSearch::new(Marker::random().expect("random numbers"))).await;
    assert_eq!(stranger, OrphanReport::default());
    command.assert_lives();
    daemon.assert_lives();

    let report = search(OrphanSearch::new(spec.marker.clone())).await;
    assert_eq!(killed_pids(&report), BTreeSet::from([command.pid, daemon.pid]));
    let evidence = report.killed.iter().find(|killed| killed.pid == command.pid).expect("the command");
    assert_eq!(evidence.start_ticks, running.command.process().start_ticks);
    assert_eq!(evidence.command, "sleep 600");
    command.assert_dies();
    daemon.assert_dies();
    assert_eq!(search(OrphanSearch::new(spec.marker)).await, OrphanReport::default());
}

#[tokio::test]
async fn a_living_guard_is_found_by_the_marker_together_with_its_command() {
    let spec = script("exec sleep 600");
    let running = Running::spawn(&spec).await;
    let (guard, command) = (Watched::new(running.guard_pid()), Watched::new(running.pid()));
    let report = search(OrphanSearch::new(spec.marker)).await;
    assert_eq!(killed_pids(&report), BTreeSet::from([guard.pid, command.pid]));
    guard.assert_dies();
    command.assert_dies();
}

#[tokio::test]
async fn a_process_without_the_marker_is_found_by_its_proven_group_only() {
    let mut running = Running::spawn(&script("env -i /bin/sh -c 'echo $$; exec sleep 600' & wait")).await;
    let unmarked = Watched::new(running.pid_line().await);
    let command = Watched::new(running.pid());
    let leader = running.command.guard_identity().clone();
    running.lose_guard().await;

    // Nothing proves the group to this search: another marker, and another start of the leader.
    let other = Marker::random().expect("random numbers");
    let impostor = ProcessIdentity { start_ticks: leader.start_ticks + 1, ..leader.clone() };
    assert_eq!(search(OrphanSearch::new(other.clone()).with_group_of(&impostor)).await, OrphanReport::default());
    unmarked.assert_lives();
    command.assert_lives();

    // The guard, which nobody has reaped yet, proves the group by its start even without the marker.
    assert_eq!(process_identity(leader.pid).as_ref(), Some(&leader));
    let report = search(OrphanSearch::new(other).with_group_of(&leader)).await;
    assert_eq!(killed_pids(&report), BTreeSet::from([command.pid, unmarked.pid]));
    command.assert_dies();
    unmarked.assert_dies();
}

#[tokio::test]
async fn a_marked_member_proves_the_group_when_its_leader_is_gone() {
    // The marked one does not end with the other: it is to be found and killed, too.
    let spec = script("env -i /bin/sh -c 'echo $$; exec sleep 600' & exec sleep 600");
    let mut running = Running::spawn(&spec).await;
    let unmarked = Watched::new(running.pid_line().await);
    let command = Watched::new(running.pid());
    let mut leader = running.command.guard_identity().clone();
    running.lose_guard().await;
    // As if the leader had been reaped: its start is not the one that is recorded.
    leader.start_ticks += 1;
    let report = search(OrphanSearch::new(spec.marker).with_group_of(&leader)).await;
    assert_eq!(killed_pids(&report), BTreeSet::from([command.pid, unmarked.pid]));
    unmarked.assert_dies();
}
