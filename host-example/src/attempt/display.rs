//! The output of a command as its caller sees it: byte for byte on our own stdout and stderr.
//!
//! It owns a thread, since a terminal or a pipe may block for as long as its reader likes. It does not know what is
//! recorded: what it shows is durable already, which is for its callers to see to.

use std::{
    io::{self, Write},
    sync::Arc,
    thread,
};

use tokio::sync::{Mutex, mpsc, oneshot, watch};

use host_example::output::{LineEnd, OutputLine, Stream};

/// The batches that wait for a slow reader before the command is made to wait.
const CAPACITY_BATCHES: usize = 4;

/// Shows lines. Clones show on the same streams.
#[derive(Clone, Debug)]
pub(crate) struct Display {
    batches: mpsc::Sender<Vec<OutputLine>>,
    muted: watch::Sender<Muted>,
    done: Arc<Mutex<Option<oneshot::Receiver<()>>>>,
}

/// Whether anybody still wants to see anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Muted {
    No,
    Yes,
}

impl Display {
    /// Starts to show.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start() -> io::Result<Self> {
        let (batches, mut receiver) = mpsc::channel::<Vec<OutputLine>>(CAPACITY_BATCHES);
        let (sender, done) = oneshot::channel();
        thread::Builder::new().name("display".to_owned()).spawn(move || {
            let mut screen = Screen { stdout: Some(io::stdout()), stderr: Some(io::stderr()) };
            while let Some(lines) = receiver.blocking_recv() {
                screen.show(&lines);
            }
            // Nobody may wait for it.
            let _ = sender.send(());
        })?;
        Ok(Self { batches, muted: watch::Sender::new(Muted::No), done: Arc::new(Mutex::new(Some(done))) })
    }

    /// Shows lines, sooner or later. Waits while too many are waiting already.
    pub(crate) async fn show(&self, lines: Vec<OutputLine>) {
        tokio::select! {
            biased;
            () = self.until_muted() => {}
            // The thread ends only after the last sender.
            _ = self.batches.send(lines) => {}
        }
    }

    /// Shows nothing more, and has nobody wait for what was to be shown.
    pub(crate) fn mute(&self) {
        self.muted.send_replace(Muted::Yes);
    }

    /// Waits until all is shown. Other clones must be gone, or it waits for them as well.
    pub(crate) async fn finish(self) {
        let Self { batches, muted, done } = self;
        drop(batches);
        let mut muted = muted.subscribe();
        let shown = async {
            if let Some(done) = done.lock().await.take() {
                // A thread that panicked shows nothing more either.
                drop(done.await);
            }
        };
        tokio::select! {
            () = shown => {}
            _ = muted.wait_for(|muted| *muted == Muted::Yes) => {}
        }
    }

    async fn until_muted(&self) {
        // The sender lives in `self`, so that waiting ends only by being muted.
        drop(self.muted.subscribe().wait_for(|muted| *muted == Muted::Yes).await);
    }
}

/// Our own two streams, as long as somebody reads them.
struct Screen {
    stdout: Option<io::Stdout>,
    stderr: Option<io::Stderr>,
}

impl Screen {
    fn show(&mut self, lines: &[OutputLine]) {
        for run in lines.chunk_by(|one, next| one.stream == next.stream) {
            let mut bytes = Vec::new();
            for line in run {
                bytes.extend_from_slice(line.text.as_bytes());
                if line.end == LineEnd::Newline {
                    bytes.push(b'\n');
                }
            }
            // A reader that has gone, as `head` does, costs the run nothing but the sight of it.
            match run.first().map(|line| line.stream) {
                Some(Stream::Stdout) => write_or_drop(&mut self.stdout, &bytes),
                Some(Stream::Stderr) => write_or_drop(&mut self.stderr, &bytes),
                None => {}
            }
        }
    }
}

fn write_or_drop(stream: &mut Option<impl Write>, bytes: &[u8]) {
    if let Some(open) = stream
        && open.write_all(bytes).and_then(|()| open.flush()).is_err()
    {
        *stream = None;
    }
}
