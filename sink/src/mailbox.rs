//! The mailbox: a sink on a thread of its own, behind a hand-over that never waits.
//!
//! It does not know what the sink does with events, nor who commits them.

mod consumer;
mod supervisor;
mod thread;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use registry_actor::domain::{ProcessEvent, Tombstone};
use registry_actor::port::{ChangeSource, CommitListener, MissedEvents, ProcessEventSink};

use self::thread::{SinkThread, StartFailure};
use crate::line::Line;
use crate::listener::{SinkEvents, SinkListener};
use crate::report::{SinkReport, Undelivered};
use crate::restart::SinkRestart;

/// Settings of a mailbox. The default is what a host wants unless it knows better.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MailboxOptions {
    /// How many events and tombstones may wait; at least 1. They are counted, not weighed: what waits holds its payloads in
    /// memory. Default 65,536.
    pub capacity: usize,
    /// How many gaps may wait to be told; at least 1. With one more all of them become [`MissedEvents::Unknown`]. Default
    /// 65,536.
    pub gaps: usize,
    /// Which events of an attached source the sink is told of.
    pub events: SinkEvents,
    /// When a failed sink is started again.
    pub restart: SinkRestart,
    /// Name of the thread.
    pub thread_name: String,
}

impl Default for MailboxOptions {
    fn default() -> Self {
        Self {
            capacity: 65_536,
            gaps: 65_536,
            events: SinkEvents::default(),
            restart: SinkRestart::default(),
            thread_name: "proctor-sink".to_owned(),
        }
    }
}

/// Why a mailbox could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MailboxError {
    /// The runtime of the sink's thread could not be made.
    #[error("the runtime of the sink could not be made: {0}")]
    Runtime(std::io::Error),
    /// The thread could not be started.
    #[error("the thread of the sink could not be started: {0}")]
    Thread(std::io::Error),
}

/// A mailbox for one sink, with default settings. A sink that panics is used again as it is.
///
/// # Errors
/// [`MailboxError`].
pub fn mailbox(sink: Arc<dyn ProcessEventSink>) -> Result<SinkMailbox, MailboxError> {
    SinkMailbox::start(MailboxOptions::default(), move || Arc::clone(&sink))
}

/// A sink on a thread of its own. Clones are one mailbox.
///
/// Whatever the sink does, sleep, block its thread, never return, panic, costs nobody else anything: handing over never
/// waits. What does not fit is counted and told to the sink as [`MissedEvents`], in the order of its process.
///
/// The sink runs on a tokio runtime of its own thread, with one thread, and may use timers, spawn tasks and block. When it panics, it is
/// made anew after a delay, and is told the events that it was given then as missed. Tasks that it spawned
/// end with the mailbox.
///
/// When the last clone is dropped, what waits is still delivered, and the thread ends. A sink that panics then is not
/// started again. Only a sink that never returns keeps its thread.
#[derive(Clone)]
pub struct SinkMailbox {
    handle: Arc<Handle>,
}

struct Handle {
    line: Arc<Line>,
    /// Sources know it weakly: it lives as long as the mailbox.
    listener: Arc<SinkListener>,
    thread: Mutex<Option<JoinHandle<()>>>,
    sink_thread: SinkThread,
}

impl SinkMailbox {
    /// Starts the thread of a sink. The factory makes the sink there, and makes it anew after each panic.
    ///
    /// # Errors
    /// [`MailboxError`].
    pub fn start(
        options: MailboxOptions,
        factory: impl Fn() -> Arc<dyn ProcessEventSink> + Send + Sync + 'static,
    ) -> Result<Self, MailboxError> {
        let line = Line::new(options.capacity, options.gaps);
        let listener = SinkListener::new(Arc::clone(&line), options.events);
        let (sink_thread, thread) =
            SinkThread::start(options.thread_name, Arc::clone(&line), options.restart, Arc::new(factory)).map_err(
                |failure| match failure {
                    StartFailure::Runtime(error) => MailboxError::Runtime(error),
                    StartFailure::Thread(error) => MailboxError::Thread(error),
                },
            )?;
        Ok(Self { handle: Arc::new(Handle { line, listener, thread: Mutex::new(Some(thread)), sink_thread }) })
    }

    /// Hears the commits of a source from now on, for as long as the mailbox lives. Of earlier ones it knows nothing; a sink
    /// that wants them is told so by [`resync`](Self::resync).
    pub fn attach(&self, source: &ChangeSource) {
        source.attach(&self.listener());
    }

    /// Tells the sink, behind what waits, that it may have missed anything.
    pub fn resync(&self) {
        self.handle.line.resync();
    }

    /// What became of the events so far.
    #[must_use]
    pub fn report(&self) -> SinkReport {
        self.handle.line.report()
    }

    /// Whether every source that it was attached to has ended, so that nothing more comes from them. The mailbox lives on:
    /// it may be attached to another.
    #[must_use]
    pub fn source_has_ended(&self) -> bool {
        self.handle.listener.source_has_ended()
    }

    /// Waits until everything that was handed over before the call was delivered, told as missed, or has failed. Needs a
    /// tokio runtime with timers, any one, and answers at the deadline whatever the sink does. An append that was answered
    /// may not have been handed over yet: callers are answered first. The end of the registry has everything handed over.
    ///
    /// Cancellation: dropping the future changes nothing.
    ///
    /// # Errors
    /// [`Undelivered`] at the deadline; delivery goes on.
    pub async fn flush(&self, deadline: Duration) -> Result<SinkReport, Undelivered> {
        let line = &self.handle.line;
        match tokio::time::timeout(deadline, line.settled(line.mark())).await {
            Ok(()) => Ok(line.report()),
            Err(_) => {
                let report = line.report();
                Err(Undelivered { left: report.undelivered(), report })
            }
        }
    }

    /// Refuses further events, which are counted and no longer told as missed, lets what waits be delivered, and ends the thread. At the deadline what waits is given up, so that
    /// the thread ends as soon as the sink returns; a sink that only awaits is dropped. May be called again.
    ///
    /// Cancellation: dropping the future leaves the mailbox closed and delivering; whoever calls again waits on.
    ///
    /// # Errors
    /// [`Undelivered`] at the deadline. Its report counts what was given up as failed.
    pub async fn close(&self, deadline: Duration) -> Result<SinkReport, Undelivered> {
        let line = &self.handle.line;
        line.close();
        if tokio::time::timeout(deadline, self.handle.sink_thread.ended()).await.is_err() {
            let left = line.report().undelivered();
            line.give_up();
            return Err(Undelivered { left, report: line.report() });
        }
        let thread = self.handle.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // It has said that it is at its end: this waits for no sink.
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of a sink panicked");
        }
        Ok(line.report())
    }

    fn listener(&self) -> Arc<dyn CommitListener> {
        Arc::clone(&self.handle.listener) as Arc<dyn CommitListener>
    }
}

/// The near end: every call returns at once.
#[async_trait]
impl ProcessEventSink for SinkMailbox {
    async fn emit(&self, event: &Arc<ProcessEvent>) {
        self.handle.line.offer([event]);
    }

    async fn emit_batch(&self, events: &[Arc<ProcessEvent>]) {
        self.handle.line.offer(events);
    }

    fn batch_limit(&self) -> usize {
        usize::MAX
    }

    async fn missed(&self, missed: &MissedEvents) {
        self.handle.line.miss(missed);
    }

    async fn pruned(&self, tombstone: &Tombstone) {
        self.handle.line.prune(std::slice::from_ref(tombstone));
    }

    fn commit_listener(&self) -> Option<Arc<dyn CommitListener>> {
        Some(self.listener())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.sink_thread.let_go();
        self.line.close();
    }
}

impl fmt::Debug for SinkMailbox {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SinkMailbox").field("report", &self.report()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
