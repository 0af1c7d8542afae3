//! One connection at the server's end: greets, reads requests, has them answered, tells of commits, and ends when what is
//! under way has been answered.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::select;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::bytes::{Bytes, BytesMut};
use tokio_util::sync::CancellationToken;

use super::admission::Peer;
use super::answering::Answering;
use super::backlog::Taken;
use super::call_lanes::CallLanes;
use super::forwarder::{Forwarder, Notices};
use super::frame::{self, FrameError, FrameReader};
use super::message::{Call, ClientMessage, Goodbye, Hello, Outcome, PROTOCOL, ServerMessage, VERSION, Welcome};
use super::options::ServerOptions;
use crate::domain::StoreSession;
use crate::port::{ProcessRegistry, RegistryError};

/// How many bytes are gathered for one write, if so many are there.
const WRITE_BYTES: usize = 256 * 1024;
/// How many answers may stand before the writer. Whoever produces more waits.
const ANSWERS_WAITING: usize = 64;
/// How much of a reader's complaint is told, in characters.
const FAULT_CHARACTERS: usize = 200;

/// What all connections of one server share.
pub(super) struct Service {
    pub(super) registry: Arc<dyn ProcessRegistry>,
    pub(super) session: StoreSession,
    pub(super) options: ServerOptions,
    /// Absent where the registry does not tell of its commits.
    pub(super) forwarder: Option<Arc<Forwarder>>,
    pub(super) stopping: CancellationToken,
}

/// An answer on its way. Its request is under way until it was written.
struct Outgoing {
    frame: Bytes,
    _under_way: Option<(OwnedSemaphorePermit, Option<OwnedSemaphorePermit>)>,
}

/// Why a connection ends: with a word, or without one because the client went first.
type Ending = Option<Goodbye>;

impl Service {
    /// Serves a connection until either end is done with it.
    pub(super) async fn serve(self: Arc<Self>, stream: UnixStream) {
        let peer = stream.peer_cred().map(Peer::from);
        let (reader, mut writer) = stream.into_split();
        let mut frames = FrameReader::new(reader);
        let Ok(peer) = peer else { return };
        let greeted = select! {
            greeted = self.greeted(peer, &mut frames) => greeted,
            () = self.stopping.cancelled() => Err(Some(Goodbye::Stopping)),
        };
        let hello = match greeted {
            Ok(hello) => hello,
            Err(ending) => return say_goodbye(&mut writer, ending).await,
        };
        let asked_bytes = usize::try_from(hello.answer_bytes).unwrap_or(usize::MAX);
        let answer_bytes = self.options.answer_bytes.min(asked_bytes);
        // It follows before it is welcome: what is committed after it reads is told.
        let notices = self.forwarder.as_ref().filter(|_| hello.follow).map(|forwarder| {
            // What is too long for a frame is missed, as what is too much for the backlog is.
            forwarder.follow(self.options.backlog_bytes.min(answer_bytes.saturating_add(1)))
        });
        if send(&mut writer, &ServerMessage::Welcome(self.welcome(notices.is_some()))).await.is_err() {
            return;
        }
        frames.allow(self.options.request_bytes);

        let (answers, answered) = mpsc::channel(ANSWERS_WAITING);
        let (farewell, last_word) = oneshot::channel();
        let writing = write(writer, answered, notices, last_word);
        tokio::pin!(writing);
        let ending = select! {
            () = &mut writing => return,
            ending = self.read(&mut frames, answers, answer_bytes) => ending,
        };
        // Nothing more is read. What is under way still holds the line to the writer, which ends after the last of it.
        drop(ending.map(|goodbye| farewell.send(goodbye)));
        writing.await;
    }

    fn welcome(&self, follows: bool) -> Welcome {
        Welcome {
            protocol: PROTOCOL.to_owned(),
            version: VERSION,
            session: self.session.clone(),
            durability: self.registry.durability_tier(),
            follows,
            request_bytes: self.options.request_bytes as u64,
        }
    }

    /// The greeting of a client that may connect.
    async fn greeted(&self, peer: Peer, frames: &mut FrameReader<OwnedReadHalf>) -> Result<Hello, Ending> {
        if let Err(expected) = self.options.admission.admit(peer) {
            tracing::warn!(found = peer.user, expected, "a connection of another user is refused");
            return Err(Some(Goodbye::ForeignUser { expected, found: peer.user }));
        }
        let within = self.options.hello_within;
        let frame = tokio::time::timeout(within, next(frames)).await.map_err(|_| {
            Some(Goodbye::Silent { within_ms: u64::try_from(within.as_millis()).unwrap_or(u64::MAX) })
        })??;
        match parse(&frame, "hello")? {
            ClientMessage::Hello(hello) => hello.check().map(|()| hello).map_err(Some),
            ClientMessage::Request { .. } => Err(Some(malformed("hello", "a request came before it"))),
        }
    }

    /// Reads requests and has them carried out, until the end; says how it came.
    async fn read(
        &self,
        frames: &mut FrameReader<OwnedReadHalf>,
        answers: mpsc::Sender<Outgoing>,
        answer_bytes: usize,
    ) -> Ending {
        let answering = Answering {
            registry: Arc::clone(&self.registry),
            store_session_owners: self.options.store_session_owners,
            answer_bytes,
        };
        let limit = self.options.requests_under_way.clamp(1, Semaphore::MAX_PERMITS);
        let under_way = CallLanes::new(limit);
        let reads = Arc::new(Semaphore::new(self.options.reads_at_once.clamp(1, Semaphore::MAX_PERMITS)));
        loop {
            let request = select! {
                biased;
                () = self.stopping.cancelled() => return Some(Goodbye::Stopping),
                frame = next(frames) => frame.and_then(|frame| parse(&frame, "request")),
            };
            let (id, call) = match request {
                Ok(ClientMessage::Request { id, call }) => (id, call),
                Ok(ClientMessage::Hello(_)) => return Some(malformed("request", "a second hello")),
                Err(ending) => return ending,
            };
            match Arc::clone(under_way.of(&call)).try_acquire_owned() {
                Ok(permit) => {
                    let reads = matches!(*call, Call::Query { .. }).then(|| Arc::clone(&reads));
                    // A task of its own: the command is carried out even if the client goes away.
                    tokio::spawn(answer(answering.clone(), id, *call, permit, reads, answers.clone()));
                }
                // Whoever goes on asking without reading its answers is not read any further.
                Err(_) => {
                    let outcome = Box::new(Outcome::Error(RegistryError::Busy { limit }));
                    let frame = frame::encode(&ServerMessage::Answer { id, outcome }).unwrap_or_default();
                    drop(answers.send(Outgoing { frame, _under_way: None }).await);
                }
            }
        }
    }
}

async fn answer(
    answering: Answering,
    id: u64,
    call: Call,
    permit: OwnedSemaphorePermit,
    reads: Option<Arc<Semaphore>>,
    answers: mpsc::Sender<Outgoing>,
) {
    let read = match reads {
        Some(reads) => reads.acquire_owned().await.ok(),
        None => None,
    };
    let frame = answering.answer(id, call).await;
    // If the connection is gone, nobody asks any more.
    drop(answers.send(Outgoing { frame, _under_way: Some((permit, read)) }).await);
}

/// Writes answers and news until everything is answered, and then the last word, if there is one. Ends early if the client is
/// gone.
async fn write(
    mut writer: OwnedWriteHalf,
    mut answers: mpsc::Receiver<Outgoing>,
    notices: Option<Arc<Notices>>,
    last_word: oneshot::Receiver<Goodbye>,
) {
    loop {
        let mut buffer = BytesMut::new();
        let mut append = |frame: Bytes| frame::append(frame, &mut buffer).is_ok();
        let appended = select! {
            answer = answers.recv() => match answer {
                // With the answer goes its place, before the client can have read it: who has all answers in hand and asks on is
                // not busy.
                Some(Outgoing { frame, .. }) => append(frame),
                None => break,
            },
            notice = next_notice(notices.as_deref()) => append(notice),
        };
        if !appended {
            return;
        }
        while buffer.len() < WRITE_BYTES
            && let Ok(answer) = answers.try_recv()
        {
            if frame::append(answer.frame, &mut buffer).is_err() {
                return;
            }
        }
        if writer.write_all_buf(&mut buffer).await.is_err() {
            return;
        }
    }
    say_goodbye(&mut writer, last_word.await.ok()).await;
}

async fn next_notice(notices: Option<&Notices>) -> Bytes {
    let Some(notices) = notices else { return std::future::pending().await };
    match notices.take().await {
        Taken::News(notice) => notice,
        Taken::Missed => frame::encode(&ServerMessage::Resync).unwrap_or_default(),
    }
}

async fn say_goodbye(writer: &mut OwnedWriteHalf, ending: Ending) {
    if let Some(goodbye) = ending {
        // The client may be gone already.
        drop(send(writer, &ServerMessage::Goodbye(goodbye)).await);
    }
    drop(writer.shutdown().await);
}

async fn send(writer: &mut OwnedWriteHalf, message: &ServerMessage) -> std::io::Result<()> {
    let mut buffer = BytesMut::new();
    frame::append(frame::encode(message)?, &mut buffer)?;
    writer.write_all_buf(&mut buffer).await
}

/// Tells a client that the server has no room for it. Does not wait: the few bytes fit into a new connection.
pub(super) fn turn_away(stream: UnixStream, goodbye: Goodbye) {
    let mut buffer = BytesMut::new();
    let framed = frame::encode(&ServerMessage::Goodbye(goodbye)).and_then(|frame| frame::append(frame, &mut buffer));
    if framed.is_ok()
        && let Ok(mut stream) = stream.into_std()
    {
        drop(std::io::Write::write(&mut stream, &buffer));
    }
}

async fn next(frames: &mut FrameReader<OwnedReadHalf>) -> Result<BytesMut, Ending> {
    match frames.next().await {
        Some(Ok(frame)) => Ok(frame),
        Some(Err(FrameError::TooLarge { limit, found })) => Err(Some(Goodbye::FrameTooLarge { limit, found })),
        Some(Err(FrameError::Broken(_))) | None => Err(None),
    }
}

fn parse<T: DeserializeOwned>(frame: &[u8], expected: &str) -> Result<T, Ending> {
    serde_json::from_slice(frame).map_err(|error| Some(malformed(expected, &error.to_string())))
}

fn malformed(expected: &str, fault: &str) -> Goodbye {
    Goodbye::Malformed { expected: expected.to_owned(), fault: fault.chars().take(FAULT_CHARACTERS).collect() }
}
