//! The thread that empties a command's two pipes.
//!
//! It owns the pipes, the order in which they are read and the time after which it gives up on one that a descendant
//! of the command holds open. It does not know when the command ends; somebody tells it through an [`OutputCloser`].
//!
//! The lines go through a bounded channel. A consumer that is slow blocks the thread, the thread lets the pipe fill,
//! and the full pipe blocks the command: nothing grows.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll},
    io::Errno,
};
use tokio::sync::{mpsc, oneshot};

use super::{
    line_splitter::{LineEnd, LineSplitter, Piece},
    output_budget::{Admission, DroppedOutput, OutputBudget},
    output_line::{OutputLine, Stream},
};

/// How long a pipe may stay open after the end of the command, unless stated otherwise.
pub const DEFAULT_HELD_OPEN: Duration = Duration::from_secs(2);

/// The bytes of one read: what a pipe holds by default. A read takes all that was written before, and then it is the
/// other stream's turn.
const CHUNK_BYTES: usize = 64 * 1024;

/// The key under which the kernel reports the closer; the streams have their places in [`Stream::ALL`].
const CLOSER_KEY: u64 = Stream::ALL.len() as u64;

/// The lines that a command writes, in the order in which they become readable: exact within a stream, and across the
/// streams as exact as two pipes allow.
#[derive(Debug)]
pub struct OutputReader {
    lines: mpsc::Receiver<OutputLine>,
    end: oneshot::Receiver<io::Result<OutputEnd>>,
    closer: OutputCloser,
}

/// Tells the reader that the command has ended.
#[derive(Clone, Debug)]
pub struct OutputCloser(Arc<Closing>);

#[derive(Debug)]
struct Closing {
    deadline: Mutex<Option<Instant>>,
    wake: OwnedFd,
}

/// How the reading ended.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OutputEnd {
    /// What was read but not delivered, because of the limit.
    pub dropped: Option<DroppedOutput>,
    /// The streams that somebody still held open when the reading was given up.
    pub held_open: Vec<Stream>,
    /// The streams whose last line had no newline.
    pub unterminated: Vec<Stream>,
}

impl OutputReader {
    /// Starts to read. At most `capacity_lines` lines wait for the consumer.
    ///
    /// # Errors
    ///
    /// When the system gives no descriptors or no thread.
    pub fn start(stdout: OwnedFd, stderr: OwnedFd, budget: OutputBudget, capacity_lines: usize) -> io::Result<Self> {
        let closer = OutputCloser(Arc::new(Closing {
            deadline: Mutex::new(None),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        }));
        let (lines_sender, lines) = mpsc::channel(capacity_lines);
        let (end_sender, end) = oneshot::channel();
        let pump = Pump {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            open: [Some(OpenStream::new(stdout)), Some(OpenStream::new(stderr))],
            closing: Arc::clone(&closer.0),
            delivery: Delivery { budget, lines: lines_sender, end: OutputEnd::default() },
        };
        thread::Builder::new().name("output".to_owned()).spawn(move || {
            // Nobody may want to know any more, which is no concern of the thread.
            drop(end_sender.send(pump.run()));
        })?;
        Ok(Self { lines, end, closer })
    }

    /// The next line; `None` after the last. To drop the future loses nothing.
    pub async fn next_line(&mut self) -> Option<OutputLine> {
        self.lines.recv().await
    }

    /// The next line if it is there already. `None` says nothing about the end.
    pub fn try_next_line(&mut self) -> Option<OutputLine> {
        self.lines.try_recv().ok()
    }

    /// A handle by which to tell the reader, from anywhere, that the command has ended.
    #[must_use]
    pub fn closer(&self) -> OutputCloser {
        self.closer.clone()
    }

    /// How the reading ended. Lines that were not taken until now are lost.
    ///
    /// # Errors
    ///
    /// When a pipe could not be read.
    pub async fn end(self) -> io::Result<OutputEnd> {
        drop(self.lines);
        self.end.await.map_err(|_| io::Error::other("the reader of the output panicked"))?
    }
}

impl OutputCloser {
    /// Has the reader give up, `held_open` from now, on what is still open then. What was written until that time is
    /// read in any case. Of several times told the earliest counts.
    pub fn close_within(&self, held_open: Duration) {
        let deadline = Instant::now() + held_open;
        let mut told = self.0.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        *told = Some(told.map_or(deadline, |earlier| earlier.min(deadline)));
        drop(told);
        // The count of the eventfd is full only after as many calls as nobody makes, and then it is readable anyway.
        let _ = rustix::io::write(&self.0.wake, &1_u64.to_ne_bytes());
    }
}

impl Closing {
    fn deadline(&self) -> Option<Instant> {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A pipe that has not ended yet.
struct OpenStream {
    pipe: OwnedFd,
    splitter: LineSplitter,
}

impl OpenStream {
    fn new(pipe: OwnedFd) -> Self {
        Self { pipe, splitter: LineSplitter::default() }
    }
}

/// What the thread works with.
struct Pump {
    epoll: OwnedFd,
    open: [Option<OpenStream>; Stream::ALL.len()],
    closing: Arc<Closing>,
    delivery: Delivery,
}

impl Pump {
    fn run(mut self) -> io::Result<OutputEnd> {
        for (key, open) in (0..).zip(&self.open) {
            if let Some(open) = open {
                self.watch(&open.pipe, key)?;
            }
        }
        self.watch(&self.closing.wake, CLOSER_KEY)?;
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut events = Vec::with_capacity(Stream::ALL.len() + 1);
        while self.open.iter().any(Option::is_some) {
            let left = self.closing.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                self.give_up(&mut chunk)?;
                break;
            }
            let timeout = left.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            for event in &events {
                match event.data.u64() {
                    // The deadline is all that this tells, and it is looked at anyway. Unread, it would wake us for ever.
                    CLOSER_KEY => {
                        let _ = rustix::io::read(&self.closing.wake, &mut [0_u8; 8]);
                    }
                    key => {
                        self.read(stream_of(key), &mut chunk)?;
                    }
                }
            }
        }
        Ok(self.delivery.end())
    }

    fn watch(&self, source: impl AsFd, key: u64) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, source, epoll::EventData::new_u64(key), epoll::EventFlags::IN)?)
    }

    /// Reads once, which does not block since the kernel has said that there is something, be it the end.
    fn read(&mut self, stream: Stream, chunk: &mut [u8]) -> io::Result<usize> {
        let place = &mut self.open[stream as usize];
        let Some(open) = place else { return Ok(0) };
        let count = loop {
            match rustix::io::read(&open.pipe, &mut *chunk) {
                Ok(count) => break count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        };
        if count > 0 {
            open.splitter.push(&chunk[..count], |piece| self.delivery.deliver(stream, piece));
        } else if let Some(open) = place.take() {
            open.splitter.finish(|piece| self.delivery.deliver(stream, piece));
        }
        Ok(count)
    }

    /// Reads what each open pipe holds at this time and no more: what the command itself has written is in it, and who
    /// holds it open may write for ever.
    fn give_up(&mut self, chunk: &mut [u8]) -> io::Result<()> {
        for stream in Stream::ALL {
            let Some(open) = &self.open[stream as usize] else { continue };
            if has_no_writer(&open.pipe)? {
                // Nobody holds it; it was a slow consumer that kept us from reading to the end of it.
                while self.read(stream, chunk)? > 0 {}
                continue;
            }
            let mut left = usize::try_from(rustix::io::ioctl_fionread(&open.pipe)?).map_err(io::Error::other)?;
            while left > 0 {
                let limit = left.min(chunk.len());
                left -= self.read(stream, &mut chunk[..limit])?;
            }
            if let Some(open) = self.open[stream as usize].take() {
                open.splitter.finish(|piece| self.delivery.deliver(stream, piece));
                self.delivery.end.held_open.push(stream);
            }
        }
        Ok(())
    }
}

/// Whether the last writer of the pipe is gone, so that what it holds is all that will ever come.
fn has_no_writer(pipe: &OwnedFd) -> io::Result<bool> {
    let mut asked = [PollFd::new(pipe, PollFlags::IN)];
    loop {
        match poll(&mut asked, Some(&Timespec::default())) {
            Ok(_) => return Ok(asked[0].revents().contains(PollFlags::HUP)),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn stream_of(key: u64) -> Stream {
    if key == 0 { Stream::Stdout } else { Stream::Stderr }
}

/// The way from pieces to the consumer.
struct Delivery {
    budget: OutputBudget,
    lines: mpsc::Sender<OutputLine>,
    end: OutputEnd,
}

impl Delivery {
    fn deliver(&mut self, stream: Stream, piece: Piece) {
        if piece.end == LineEnd::EndOfStream {
            self.end.unterminated.push(stream);
        }
        if self.budget.admit(stream, &piece) == Admission::Deliver {
            // A consumer that has gone does not make the command block: its output is read for nobody.
            drop(self.lines.blocking_send(OutputLine::new(stream, piece)));
        }
    }

    fn end(self) -> OutputEnd {
        OutputEnd { dropped: self.budget.dropped(), ..self.end }
    }
}
