//! A registry that is elsewhere.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::bytes::Bytes;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::call_lanes::CallLanes;
use super::depth;
use super::frame;
use super::greeting::{ConnectError, Connected, connect};
use super::line::{Answered, Asked, EndingSource, Line, OutgoingCall, Unanswered};
use super::message::{Call, ClientMessage, Hello, Outcome, PROTOCOL, VERSION, Welcome};
use super::options::RemoteOptions;
use crate::domain::{
    Command, LeaseOwnerIdentity, OperationId, ProcessId, Receipt, Refusal, RegistryCommand, RegistryReceipt,
    StoreSession,
};
use crate::liveness::own_liveness;
use crate::port::{Answer, Backoff, ChangeSource, DurabilityTier, LogError, ProcessRegistry, Query, RegistryError};

/// On how many connections a read is tried.
const READS_SENT: usize = 5;

/// A registry that another process serves. Clones are handles of one client.
///
/// # What a lost connection means
/// - A command that may have been sent is answered [`RegistryError::OutcomeUnknown`] (or
///   [`AcrossOutcomeUnknown`](RegistryError::AcrossOutcomeUnknown)): it may have been carried out, or be carried out still.
///   The operation that is named is this client's; the log knows the call by another.
/// - A command that was not sent waits for a connection, and is answered [`RegistryError::NotStored`] when there is none
///   within [`RemoteOptions::patience`].
/// - A read is made again on the next connection, a few times, and is `LogError::Unreadable` then.
/// - Listeners and waiters read everything anew when the next connection is there; meanwhile they are told nothing.
///
/// A dropped future takes a command back only if nothing of it was sent. When all handles are dropped, the source of changes
/// ends, as after [`close`](Self::close).
#[derive(Clone)]
pub struct RemoteRegistry {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    calls: mpsc::UnboundedSender<OutgoingCall>,
    permits: CallLanes,
    known: Arc<Mutex<Welcome>>,
    source: Option<ChangeSource>,
    issuer: u64,
    numbers: AtomicU64,
    closing: CancellationToken,
    _closed_with_the_last_handle: DropGuard,
}

impl RemoteRegistry {
    /// Connects to a server, on the current tokio runtime. If there is none yet, it tries again for as long as the patience
    /// of the options lasts.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(path: impl AsRef<Path>, options: RemoteOptions) -> Result<Self, ConnectError> {
        let path = path.as_ref().to_owned();
        let RemoteOptions { patience, calls_under_way, answer_bytes, follow } = options;
        let issuer = getrandom::u64().map_err(|error| ConnectError::Randomness { reason: error.to_string() })?;
        let answer_bytes = answer_bytes as u64;
        let hello = Hello { protocol: PROTOCOL.to_owned(), version: VERSION, follow, answer_bytes };
        let since = Instant::now();
        let mut backoff = Backoff::default();
        let first: Connected = loop {
            match connect(&path, &hello).await {
                Ok(connected) => break connected,
                Err(error) if error.may_pass() && since.elapsed() < patience => {
                    tokio::time::sleep(backoff.delay()).await;
                }
                Err(error) => return Err(error),
            }
        };
        let (calls, taken) = mpsc::unbounded_channel();
        let known = Arc::new(Mutex::new(first.welcome.clone()));
        let source = first.welcome.follows.then(ChangeSource::default);
        let closing = CancellationToken::new();
        let line = Line {
            path: path.clone(),
            hello,
            patience,
            calls: taken,
            known: Arc::clone(&known),
            source: EndingSource(source.clone()),
            closing: closing.clone(),
        };
        tokio::spawn(line.run(first));
        Ok(Self {
            inner: Arc::new(Inner {
                path,
                calls,
                // Each call holds a permit, so that the channel without a bound has this one.
                permits: CallLanes::new(calls_under_way),
                known,
                source,
                issuer,
                numbers: AtomicU64::new(1),
                _closed_with_the_last_handle: closing.clone().drop_guard(),
                closing,
            }),
        })
    }

    /// In which session the store was open when the server last greeted. Another one than before means that the host was
    /// started anew: every lease owner that lived in it is dead.
    #[must_use]
    pub fn session(&self) -> StoreSession {
        self.known(|welcome| welcome.session.clone())
    }

    /// A new owner of leases inside this operating-system process, which proves its death. Each call makes one: the same name with
    /// another incarnation, which no registry uses again.
    #[must_use]
    pub fn owner(&self, owner_id: impl Into<String>) -> LeaseOwnerIdentity {
        LeaseOwnerIdentity {
            owner_id: owner_id.into(),
            incarnation_id: format!("{:016x}:{}", self.inner.issuer, self.next_number()),
            liveness: own_liveness(),
        }
    }

    /// Ends the connection. Calls that were sent are answered with an unknown outcome, all others with
    /// [`RegistryError::Closed`]. May be called twice.
    pub async fn close(&self) {
        self.inner.closing.cancel();
        self.inner.calls.closed().await;
    }

    fn known<T>(&self, read: impl FnOnce(&Welcome) -> T) -> T {
        read(&self.inner.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn next_number(&self) -> u64 {
        self.inner.numbers.fetch_add(1, Ordering::Relaxed)
    }

    fn operation(&self, number: u64) -> OperationId {
        OperationId { issuer: self.inner.issuer, number }
    }

    /// Has a call answered. What was handed over is sent, even if this future is dropped then, unless there is no connection.
    async fn call(&self, id: u64, call: Call) -> Answered {
        let lane = Arc::clone(self.inner.permits.of(&call));
        let frame = request(id, call)?;
        let permit = lane.acquire_owned().await.map_err(|_| Unanswered::Closed)?;
        let (answer, answered) = oneshot::channel();
        let outgoing = OutgoingCall { id, frame, asked: Asked { answer, _permit: permit } };
        self.inner.calls.send(outgoing).map_err(|_| Unanswered::Closed)?;
        let ended = || Unanswered::MaybeSent { reason: "this end of the connection was closed".to_owned() };
        answered.await.unwrap_or_else(|_| Err(ended()))
    }
}

/// The frame of a request that can be sent.
fn request(id: u64, call: Call) -> Result<Bytes, Unanswered> {
    let frame = frame::encode(&ClientMessage::Request { id, call: Box::new(call) })
        .map_err(|error| Unanswered::NotSent { reason: format!("it has no JSON form: {error}") })?;
    if depth::levels(&frame) > depth::MAX_LEVELS {
        let reason = format!("nested deeper than {} levels", depth::MAX_LEVELS);
        return Err(Unanswered::Refused(Box::new(Refusal::TooDeep { what: "a request".to_owned(), reason })));
    }
    Ok(frame)
}

#[async_trait]
impl ProcessRegistry for RemoteRegistry {
    async fn execute(&self, process_id: &ProcessId, command: Command) -> Result<Receipt, RegistryError> {
        let number = self.next_number();
        let unknown = |reason: String| RegistryError::OutcomeUnknown {
            process_id: process_id.clone(),
            operation: self.operation(number),
            reason,
        };
        match self.call(number, Call::Execute { process_id: process_id.clone(), command }).await {
            Ok(Outcome::Receipt(receipt)) => Ok(receipt),
            Ok(outcome) => Err(error_of(outcome).unwrap_or_else(unknown)),
            Err(unanswered) => Err(unanswered.of_a_command(unknown)),
        }
    }

    async fn execute_across(&self, command: RegistryCommand) -> Result<RegistryReceipt, RegistryError> {
        let number = self.next_number();
        let name = command.name().to_owned();
        let unknown = |reason: String| RegistryError::AcrossOutcomeUnknown {
            command: name,
            operation: self.operation(number),
            reason,
        };
        match self.call(number, Call::ExecuteAcross { command }).await {
            Ok(Outcome::RegistryReceipt(receipt)) => Ok(receipt),
            Ok(outcome) => Err(error_of(outcome).unwrap_or_else(unknown)),
            Err(unanswered) => Err(unanswered.of_a_command(unknown)),
        }
    }

    async fn query(&self, query: Query) -> Result<Answer, RegistryError> {
        let mut last = String::new();
        for _ in 0..READS_SENT {
            let call = Call::Query { query: query.clone() };
            let reason = match self.call(self.next_number(), call).await {
                Ok(Outcome::Answer(answer)) => return Ok(answer),
                Ok(outcome) => {
                    return Err(error_of(outcome).unwrap_or_else(|_| RegistryError::WrongAnswer {
                        query: "a read with what is no answer to one".to_owned(),
                    }));
                }
                Err(Unanswered::MaybeSent { reason }) => reason,
                Err(Unanswered::NotSent { reason }) => {
                    return Err(RegistryError::Store(LogError::Unreadable { reason }));
                }
                Err(Unanswered::Refused(refusal)) => return Err(RegistryError::Refused(*refusal)),
                Err(Unanswered::Closed) => return Err(RegistryError::Store(LogError::Closed)),
            };
            last = reason;
        }
        Err(RegistryError::Store(LogError::Unreadable { reason: last }))
    }

    fn durability_tier(&self) -> DurabilityTier {
        self.known(|welcome| welcome.durability)
    }

    fn change_source(&self) -> Option<ChangeSource> {
        self.inner.source.clone()
    }
}

impl Unanswered {
    fn of_a_command(self, unknown: impl FnOnce(String) -> RegistryError) -> RegistryError {
        match self {
            Self::NotSent { reason } => RegistryError::NotStored { reason },
            Self::MaybeSent { reason } => unknown(reason),
            Self::Refused(refusal) => RegistryError::Refused(*refusal),
            Self::Closed => RegistryError::Closed,
        }
    }
}

/// The error of an outcome; or that it is none that was asked for.
fn error_of(outcome: Outcome) -> Result<RegistryError, String> {
    match outcome {
        Outcome::Error(error) => Ok(error),
        Outcome::Receipt(_) | Outcome::RegistryReceipt(_) | Outcome::Answer(_) => {
            Err("the server answered with something else".to_owned())
        }
    }
}

impl fmt::Debug for RemoteRegistry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RemoteRegistry")
            .field("path", &self.inner.path)
            .field("session", &self.session())
            .finish_non_exhaustive()
    }
}
