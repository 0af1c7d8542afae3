//! A child process that tells what it has done, line by line, and may be killed or stopped at any moment.
//!
//! The line is the acknowledgement: a child writes it, in one write, when it was answered. Whatever the parent can read of
//! a child that is dead was acknowledged before its death. Nobody sleeps here: lines, stops and ends are waited for.

use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};

/// A running child, seen from its parent. Its drop kills it.
#[derive(Debug)]
pub struct ChildProcess {
    child: Child,
    /// Names the child also when its pid is another's.
    pidfd: OwnedFd,
    output: Arc<Output>,
    reader: Option<JoinHandle<()>>,
}

/// What the child has written, whole lines only.
#[derive(Debug, Default)]
struct Output {
    written: Mutex<Written>,
    grew: Condvar,
}

#[derive(Debug, Default)]
struct Written {
    lines: Vec<String>,
    ended: bool,
}

/// How a child ended.
#[derive(Debug)]
pub struct Ended {
    /// Its status.
    pub status: ExitStatus,
    /// All that it told.
    pub lines: Vec<String>,
}

impl ChildProcess {
    /// Starts it. Its standard output is read here; standard error stays the parent's.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn spawn(command: &mut Command) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the child's program can be started");
        let pidfd = pidfd_open(pid_of(&child), PidfdFlags::empty()).expect("a child has a descriptor");
        let stdout = child.stdout.take().expect("its output is a pipe");
        let output = Arc::new(Output::default());
        let reader = std::thread::spawn({
            let output = Arc::clone(&output);
            move || output.read(BufReader::new(stdout))
        });
        Self { child, pidfd, output, reader: Some(reader) }
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The lines so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.output.written().lines.clone()
    }

    /// Waits until it has told so many lines; answers whether it did before it ended.
    #[must_use]
    pub fn told(&self, lines: usize) -> bool {
        self.until(|told| told.len() >= lines)
    }

    /// Waits until what it told is enough; answers whether it was before the child ended.
    #[must_use]
    pub fn until(&self, mut is_enough: impl FnMut(&[String]) -> bool) -> bool {
        let mut written = self.output.written();
        loop {
            if is_enough(&written.lines) {
                return true;
            }
            if written.ended {
                return false;
            }
            written = self.output.grew.wait(written).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// SIGSTOP; returns when the child stands still.
    ///
    /// # Panics
    /// If it has ended.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
        self.changed(WaitIdOptions::STOPPED);
    }

    /// SIGCONT; returns when the child goes on.
    ///
    /// # Panics
    /// If it has ended.
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
        self.changed(WaitIdOptions::CONTINUED);
    }

    /// kill -9; answers everything that it told before it was dead.
    ///
    /// # Panics
    /// If it cannot be killed.
    #[must_use]
    pub fn kill(mut self) -> Vec<String> {
        self.child.kill().expect("a child can be killed");
        self.end().lines
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it cannot be waited for.
    #[must_use]
    pub fn ended(mut self) -> Ended {
        self.end()
    }

    fn end(&mut self) -> Ended {
        let status = self.child.wait().expect("a child can be waited for");
        if let Some(reader) = self.reader.take() {
            reader.join().expect("its output can be read to the end");
        }
        Ended { status, lines: std::mem::take(&mut self.output.written().lines) }
    }

    fn signal(&self, signal: Signal) {
        pidfd_send_signal(&self.pidfd, signal).expect("the child lives");
    }

    fn changed(&self, to: WaitIdOptions) {
        waitid(WaitId::Pid(pid_of(&self.child)), to).expect("the child lives");
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        if self.reader.is_some() && self.child.kill().is_ok() {
            // It is dead either way.
            let _ = self.child.wait();
        }
    }
}

impl Output {
    fn read(&self, mut from: impl BufRead) {
        let mut line = Vec::new();
        // A line without its end was not written whole.
        while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) && line.pop() == Some(b'\n') {
            self.written().lines.push(String::from_utf8_lossy(&line).into_owned());
            self.grew.notify_all();
            line.clear();
        }
        self.written().ended = true;
        self.grew.notify_all();
    }

    fn written(&self) -> std::sync::MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_child(child)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_child_tells_nothing_until_it_goes_on_and_a_killed_one_has_told_what_it_told() {
        let child = ChildProcess::spawn(Command::new("sh").args(["-c", "while :; do echo told; done"]));
        assert!(child.told(3));
        child.stop();
        child.go_on();
        let so_far = child.lines().len();
        assert!(child.told(so_far + 100_000), "more than the pipe holds");
        let told = child.kill();
        assert!(told.len() >= so_far && told.iter().all(|line| line == "told"));
    }

    #[test]
    fn the_end_of_a_child_ends_the_wait_for_its_lines() {
        let child = ChildProcess::spawn(Command::new("sh").args(["-c", "echo one; printf half"]));
        assert!(!child.told(2), "half a line is none");
        let ended = child.ended();
        assert!(ended.status.success());
        assert_eq!(ended.lines, ["one"]);
    }
}
