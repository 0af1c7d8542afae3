//! The line of a client: one task that holds the connection, sends calls, hands answers and news on, and connects anew.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::select;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::bytes::{Bytes, BytesMut};
use tokio_util::sync::CancellationToken;

use super::frame::{self, FrameReader};
use super::greeting::{ConnectError, Connected, connect};
use super::message::{Hello, Outcome, ServerMessage, Welcome};
use crate::domain::{Measure, Refusal, SessionDeletion, Tombstone};
use crate::port::{Backoff, ChangeSource, CommitListener, CommittedBatch};

/// How many calls are gathered for one write, if so many are there.
const CALLS_AT_ONCE: usize = 64;

/// What the line is made of.
pub(super) struct Line {
    pub(super) path: PathBuf,
    pub(super) hello: Hello,
    pub(super) patience: Duration,
    pub(super) calls: mpsc::UnboundedReceiver<OutgoingCall>,
    /// What the last server said of itself.
    pub(super) known: Arc<Mutex<Welcome>>,
    pub(super) source: EndingSource,
    pub(super) closing: CancellationToken,
}

/// A source of changes that ends with its line, however that ends: whoever waits has to hear that nothing will come.
pub(super) struct EndingSource(pub(super) Option<ChangeSource>);

/// A call that waits to be sent.
pub(super) struct OutgoingCall {
    pub(super) id: u64,
    pub(super) frame: Bytes,
    pub(super) asked: Asked,
}

/// Whoever waits for an answer.
pub(super) struct Asked {
    pub(super) answer: oneshot::Sender<Answered>,
    /// The call is under way until it is answered, whether or not somebody still waits for that.
    pub(super) _permit: OwnedSemaphorePermit,
}

/// What became of a call.
pub(super) type Answered = Result<Outcome, Unanswered>;

/// Why a call was not answered.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Unanswered {
    /// Nothing of it was sent.
    NotSent { reason: String },
    /// It may have been sent, and nobody knows more.
    MaybeSent { reason: String },
    /// It cannot be sent.
    Refused(Box<Refusal>),
    /// This end is closed. Nothing of it was sent.
    Closed,
}

/// How a connection was lost.
struct Lost {
    reason: String,
    /// Whether anything was heard on it. Otherwise the next attempt waits, so that a server that ends every connection is not
    /// asked without a pause.
    was_of_use: bool,
}

/// The calls that were sent and not answered.
type Pending = Mutex<BTreeMap<u64, Asked>>;

impl Line {
    /// Holds the line until it is closed.
    pub(super) async fn run(mut self, first: Connected) {
        let closing = self.closing.clone();
        select! {
            () = self.hold(first) => {}
            () = closing.cancelled() => {}
        }
        // Whoever was sent a call for is told by the fall of its line. These were not sent.
        self.calls.close();
        while let Ok(call) = self.calls.try_recv() {
            call.asked.answered(Err(Unanswered::Closed));
        }
    }

    async fn hold(&mut self, first: Connected) {
        let mut backoff = Backoff::default();
        let mut connected = first;
        loop {
            let lost = self.serve(connected).await;
            tracing::debug!(reason = lost.reason, "the connection to a registry was lost");
            if lost.was_of_use {
                backoff.reset();
            } else {
                tokio::time::sleep(backoff.delay()).await;
            }
            connected = self.connect_anew(&mut backoff).await;
            self.source.resync();
        }
    }

    async fn connect_anew(&mut self, backoff: &mut Backoff) -> Connected {
        let since = Instant::now();
        loop {
            let error = match connect(&self.path, &self.hello).await {
                Ok(connected) if self.source.0.is_some() && !connected.welcome.follows => ConnectError::DoesNotTell,
                Ok(connected) => {
                    *self.known.lock().unwrap_or_else(PoisonError::into_inner) = connected.welcome.clone();
                    return connected;
                }
                Err(error) => error,
            };
            if since.elapsed() >= self.patience {
                while let Ok(call) = self.calls.try_recv() {
                    call.asked.answered(Err(Unanswered::NotSent { reason: error.to_string() }));
                }
            }
            tokio::time::sleep(backoff.delay()).await;
        }
    }

    async fn serve(&mut self, connected: Connected) -> Lost {
        let Connected { mut frames, writer, welcome } = connected;
        let pending = Pending::default();
        let lost = {
            let hearing = hear(&mut frames, &pending, &self.source);
            tokio::pin!(hearing);
            select! {
                lost = &mut hearing => lost,
                // The server is gone: what it said before is still to be heard.
                () = send(&mut self.calls, writer, &pending, welcome.request_bytes) => hearing.await,
            }
        };
        for asked in pending.into_inner().unwrap_or_else(PoisonError::into_inner).into_values() {
            asked.answered(Err(Unanswered::MaybeSent { reason: lost.reason.clone() }));
        }
        lost
    }
}

/// Sends calls until the connection breaks. A call is pending before any of its bytes can leave.
async fn send(
    calls: &mut mpsc::UnboundedReceiver<OutgoingCall>,
    mut writer: OwnedWriteHalf,
    pending: &Pending,
    request_bytes: u64,
) {
    let mut gathered = Vec::with_capacity(CALLS_AT_ONCE);
    loop {
        if calls.recv_many(&mut gathered, CALLS_AT_ONCE).await == 0 {
            // Nobody can call any more; answers are still to come.
            return std::future::pending().await;
        }
        let mut buffer = BytesMut::new();
        for OutgoingCall { id, frame, asked } in gathered.drain(..) {
            let found = frame.len() as u64;
            if asked.answer.is_closed() {
                // It was given up before it was sent.
            } else if found > request_bytes {
                let (what, measure) = ("a request to this server".to_owned(), Measure::Bytes);
                let refusal = Refusal::LimitExceeded { what, measure, limit: request_bytes, found };
                asked.answered(Err(Unanswered::Refused(Box::new(refusal))));
            } else if frame::append(frame, &mut buffer).is_ok() {
                pending.lock().unwrap_or_else(PoisonError::into_inner).insert(id, asked);
            }
        }
        if writer.write_all_buf(&mut buffer).await.is_err() {
            return;
        }
    }
}

/// Hands on what the server says, until it ends.
async fn hear(frames: &mut FrameReader<OwnedReadHalf>, pending: &Pending, source: &EndingSource) -> Lost {
    let mut was_of_use = false;
    let reason = loop {
        let frame = match frames.next().await {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => break error.to_string(),
            None => break "the server ended the connection".to_owned(),
        };
        match serde_json::from_slice(&frame) {
            Ok(ServerMessage::Answer { id, outcome }) => {
                let asked = pending.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                if let Some(asked) = asked {
                    asked.answered(Ok(*outcome));
                }
            }
            Ok(ServerMessage::Committed { batches }) => {
                source.committed(&batches.into_iter().map(Into::into).collect::<Vec<_>>());
            }
            Ok(ServerMessage::Pruned { tombstones }) => source.pruned(&tombstones),
            Ok(ServerMessage::SessionsDeleted { deletions }) => source.sessions_deleted(&deletions),
            // The registry behind the server has ended, and another may follow on this path: whoever waits reads, and is told
            // what it says.
            Ok(ServerMessage::Resync | ServerMessage::SourceClosed) => source.resync(),
            Ok(ServerMessage::Goodbye(goodbye)) => break goodbye.to_string(),
            Ok(ServerMessage::Welcome(_)) => break "the server greeted twice".to_owned(),
            Err(error) => break format!("the server said what is no message: {error}"),
        }
        was_of_use = true;
    };
    Lost { reason, was_of_use }
}

impl Asked {
    /// Whoever asked may have gone away.
    fn answered(self, answer: Answered) {
        drop(self.answer.send(answer));
    }
}

impl EndingSource {
    fn committed(&self, batches: &[CommittedBatch]) {
        self.tell(|listener| listener.committed(batches));
    }

    fn pruned(&self, tombstones: &[Tombstone]) {
        self.tell(|listener| listener.pruned(tombstones));
    }

    fn sessions_deleted(&self, deletions: &[SessionDeletion]) {
        self.tell(|listener| listener.sessions_deleted(deletions));
    }

    fn resync(&self) {
        self.tell(|listener| listener.resync());
    }

    /// One listener's panic is neither the others' loss nor that of the line.
    fn tell(&self, call: impl Fn(&dyn CommitListener)) {
        for listener in self.0.iter().flat_map(ChangeSource::listeners) {
            if catch_unwind(AssertUnwindSafe(|| call(&*listener))).is_err() {
                tracing::error!("a commit listener panicked");
            }
        }
    }
}

impl Drop for EndingSource {
    fn drop(&mut self) {
        let Some(source) = &self.0 else { return };
        if catch_unwind(AssertUnwindSafe(|| source.close())).is_err() {
            tracing::error!("a commit listener panicked when its source ended");
        }
    }
}
