//! The thread of a sink and its runtime.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use ractor::Actor;
use registry_actor::port::ProcessEventSink;
use tokio::sync::watch;

use super::supervisor::SupervisorActor;
use crate::line::Line;
use crate::restart::SinkRestart;

/// Makes a sink.
pub(super) type Factory = Arc<dyn Fn() -> Arc<dyn ProcessEventSink> + Send + Sync>;

/// What is known of a sink's thread from outside of it.
pub(super) struct SinkThread {
    ended: watch::Receiver<bool>,
    /// Whether nobody holds the mailbox any more. The factory is not held here: it goes with the thread.
    let_go: Arc<AtomicBool>,
}

/// What the actors of one sink share, over all its lives.
pub(super) struct Post {
    pub(super) line: Arc<Line>,
    pub(super) factory: Factory,
    pub(super) restart: SinkRestart,
    /// Failures since the last successful delivery.
    failures: AtomicU32,
    /// Whether nobody holds the mailbox any more.
    let_go: Arc<AtomicBool>,
}

/// Why the thread could not be started.
pub(super) enum StartFailure {
    Runtime(io::Error),
    Thread(io::Error),
}

/// Says that the thread is at its end, however it came there. Then nothing is delivered any more.
struct LastWord {
    line: Arc<Line>,
    ended: watch::Sender<bool>,
}

impl SinkThread {
    pub(super) fn start(
        name: String,
        line: Arc<Line>,
        restart: SinkRestart,
        factory: Factory,
    ) -> Result<(Self, JoinHandle<()>), StartFailure> {
        if name.contains('\0') {
            let reason = "the name of a thread may not contain a zero byte";
            return Err(StartFailure::Thread(io::Error::new(io::ErrorKind::InvalidInput, reason)));
        }
        let (sender, ended) = watch::channel(false);
        let last_word = LastWord { line: Arc::clone(&line), ended: sender };
        let let_go = Arc::new(AtomicBool::new(false));
        let post = Post { line, factory, restart, failures: AtomicU32::new(0), let_go: Arc::clone(&let_go) };
        let (say, made) = mpsc::sync_channel(1);
        let run = move || {
            let _last_word = last_word;
            // Made here: a runtime must not be dropped where others await, as it would be if this thread did not start.
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(say.send(Err(error))),
            };
            // Whoever starts it waits for this.
            drop(say.send(Ok(())));
            runtime.block_on(deliver(Arc::new(post)));
            // What the sink left running on threads of its own is not waited for.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name(name).spawn(run).map_err(StartFailure::Thread)?;
        match made.recv() {
            Ok(Ok(())) => Ok((Self { ended, let_go }, thread)),
            Ok(Err(error)) => Err(StartFailure::Runtime(error)),
            Err(_) => Err(StartFailure::Runtime(io::Error::other("the thread of the sink ended at once"))),
        }
    }

    /// Waits for the end of the thread. May be dropped at any time.
    pub(super) async fn ended(&self) {
        // A sender that is gone has ended too.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }

    /// Nobody holds the mailbox any more: a sink that fails now is not started again.
    pub(super) fn let_go(&self) {
        self.let_go.store(true, Ordering::SeqCst);
    }
}

impl Post {
    pub(super) fn is_let_go(&self) -> bool {
        self.let_go.load(Ordering::SeqCst)
    }

    pub(super) fn succeeded(&self) {
        self.failures.store(0, Ordering::Relaxed);
    }

    /// Counts a failure and answers how many there were in a row.
    pub(super) fn failed(&self) -> u32 {
        let failures = self.failures.load(Ordering::Relaxed).saturating_add(1);
        self.failures.store(failures, Ordering::Relaxed);
        failures
    }
}

/// Runs the actors until the line ends: drained, or given up.
async fn deliver(post: Arc<Post>) {
    let line = Arc::clone(&post.line);
    match SupervisorActor::spawn(None, SupervisorActor, post).await {
        Ok((supervisor, _)) => {
            // A drained line ends while the actors still come to their own end; one that was given up ends over a sink that may
            // never return, and is not waited for.
            let supervisor = supervisor.get_cell();
            tokio::select! {
                biased;
                _ = supervisor.wait(None) => {}
                () = line.given_up() => supervisor.kill(),
            }
        }
        Err(error) => tracing::error!(%error, "the supervisor of a sink could not be started"),
    }
}

impl Drop for LastWord {
    fn drop(&mut self) {
        self.line.give_up();
        self.ended.send_replace(true);
    }
}
