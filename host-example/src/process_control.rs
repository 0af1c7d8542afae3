//! What changes a process: asked of the host that owns its store, or done in a store that nobody owns.
//!
//! It owns that both are the same to a verb. It does not know what was typed.

use std::{path::Path, time::Duration};

use jiff::Timestamp;
use registry_actor::{
    domain::{AbandonRequest, Command, ProcessId, ProcessRegistration, ProcessSignal, ReceiptEvent, Refusal},
    port::{ProcessRegistry, ProcessRegistryExt, RegistryError},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    api::process_view::ProcessView,
    client::{HostClient, HostError},
    failure::{Failure, FailureKind},
    host::Host,
    place_choice::NewPlace,
    process_source::ProcessSource,
    serve::{config::beside, credentials::random_text},
    store::{OwnedStore, TakeError},
};

/// Who asks, where nobody says who it is.
const LOCAL_CALLER: &str = "local";

/// How long an owner of the store may take that is coming up, or is done with it in a moment.
pub(crate) const OWNER_PATIENCE: Duration = Duration::from_secs(5);

/// The pause before the next look at it.
pub(crate) const OWNER_PAUSE: Duration = Duration::from_millis(50);

/// A way to change processes.
pub(crate) enum ProcessControl {
    /// Through the host that owns the store.
    Host(HostClient),
    /// As the owner of the store for a moment.
    Store(Box<Host>),
}

/// A process that was submitted.
pub(crate) struct Submitted {
    /// Whether it was not there before.
    pub(crate) is_new: bool,
    /// The process.
    pub(crate) process: ProcessView,
}

/// What became of a signal.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct SentSignal {
    /// Its place in the process's log.
    pub(crate) sequence: u64,
    /// Its number among the signals of its name, from 1.
    pub(crate) ordinal: u64,
    /// Whether it was sent before.
    pub(crate) replayed: bool,
}

/// How a host is told where a command runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Directory {
    /// In the directory of the registration.
    Told,
    /// Where the host runs: it may be another machine.
    OfHost,
}

impl ProcessControl {
    /// The way to what is in this source.
    ///
    /// # Errors
    /// When its store is owned by who takes no requests.
    pub(crate) async fn of_source(source: &ProcessSource, verb: &'static str) -> Result<Self, Failure> {
        match (source.host()?, source) {
            (Some(client), _) => Ok(Self::Host(client)),
            (None, ProcessSource::Store { reader, socket }) => Self::take(reader.path(), socket, verb).await,
            (None, ProcessSource::Host(client)) => {
                Err(Failure::new(FailureKind::Unavailable, format!("no host answers at {}", client.place())))
            }
        }
    }

    /// The way to where a new process goes.
    ///
    /// # Errors
    /// As [`ProcessControl::of_source`].
    pub(crate) async fn of_new(place: NewPlace, verb: &'static str) -> Result<Self, Failure> {
        match place {
            NewPlace::Host(client) => Ok(Self::Host(client)),
            NewPlace::Store { path, socket } => {
                if let Some(directory) = path.parent() {
                    std::fs::create_dir_all(directory).map_err(|error| {
                        let line = format!("cannot create the directory {}: {error}", directory.display());
                        Failure::new(FailureKind::CannotCreate, line)
                    })?;
                }
                Self::take(&path, &socket, verb).await
            }
        }
    }

    /// Takes the store, or reaches its owner: a host that comes up owns its store before it listens, and a verb has it for a moment only.
    async fn take(path: &Path, socket: &Path, verb: &'static str) -> Result<Self, Failure> {
        let until = Instant::now() + OWNER_PATIENCE;
        loop {
            let owned = match OwnedStore::take(path) {
                Ok(store) => return Ok(Self::Store(Box::new(Host::start(store, verb).await?))),
                Err(error @ TakeError::Owned { .. }) => Failure::from(error),
                Err(error) => return Err(error.into()),
            };
            if let Some(client) = HostClient::at_socket(socket)? {
                return Ok(Self::Host(client));
            }
            if Instant::now() >= until {
                return Err(silent_owner(&owned, path));
            }
            sleep(OWNER_PAUSE).await;
        }
    }

    /// Whether a host will act on what is done here, and not only the next one.
    pub(crate) const fn has_host(&self) -> bool {
        matches!(self, Self::Host(_))
    }

    /// Gives back what was taken.
    pub(crate) async fn close(self) {
        if let Self::Store(host) = self {
            host.shut_down().await;
        }
    }

    /// Whether the process is or was there.
    ///
    /// # Errors
    /// When that cannot be read.
    pub(crate) async fn knows(&self, id: &ProcessId) -> Result<bool, Failure> {
        match self {
            Self::Host(client) => match client.process(id.as_str()).await {
                Ok(process) => Ok(process.is_some()),
                Err(HostError::Problem { code, .. }) if code == "pruned" => Ok(true),
                Err(error) => Err(error.into()),
            },
            Self::Store(host) => {
                let registry = &host.registry;
                Ok(registry.get_process(id).await?.is_some() || registry.get_tombstone(id).await?.is_some())
            }
        }
    }

    /// Registers a process. The same one again is the one that is there.
    ///
    /// # Errors
    /// When its id is that of another one, among others.
    pub(crate) async fn submit(
        &self,
        registration: ProcessRegistration,
        directory: Directory,
    ) -> Result<Submitted, Failure> {
        let id = registration.id.clone();
        match self {
            Self::Host(client) => match client.post(&["processes"], &start_request(&registration, directory)).await {
                Ok(posted) => Ok(Submitted { is_new: posted.is_new, process: posted.answer }),
                Err(HostError::Problem { code, .. }) if code == "registration_conflict" => {
                    Err(taken(&id, client.place()))
                }
                Err(error) => Err(advised(error, || of_submission(&id))),
            },
            Self::Store(host) => {
                let command = Command::Register { registration: Box::new(registration) };
                let receipt = match host.registry.execute(&id, command).await {
                    Err(RegistryError::Refused(Refusal::RegistrationConflict { .. })) => {
                        return Err(taken(&id, host.store.display()));
                    }
                    receipt => receipt.map_err(|error| advised(error, || of_submission(&id)))?,
                };
                let is_new = receipt.events.iter().any(ReceiptEvent::is_inserted);
                let record = receipt.record.ok_or_else(|| unanswered("a registration"))?;
                Ok(Submitted { is_new, process: ProcessView::new(&record) })
            }
        }
    }

    /// Asks a process to end.
    ///
    /// # Errors
    /// When it has ended, among others.
    pub(crate) async fn cancel(&self, id: &ProcessId, reason: Option<String>) -> Result<ProcessView, Failure> {
        match self {
            Self::Host(client) => {
                let path = ["processes", id.as_str(), "cancel"];
                let asked = client.post(&path, &json!({"reason": reason})).await;
                Ok(asked.map_err(|error| advised(error, || of_request(id)))?.answer)
            }
            Self::Store(host) => {
                let registry = &host.registry;
                // The registry takes the request of an ended process, for one that is late is no fault. Here somebody waits for an answer.
                if registry.get_process(id).await?.is_some_and(|record| record.status.await_output().is_some()) {
                    let line = format!("process `{id}` has ended already");
                    return Err(Failure::new(FailureKind::CannotCreate, line));
                }
                let asked = registry.request_process_cancel(id, reason).await;
                asked.map_err(|error| advised(error, || of_request(id)))?;
                let record = registry.get_process(id).await?.ok_or_else(|| unanswered("a cancellation"))?;
                Ok(ProcessView::new(&record))
            }
        }
    }

    /// Allows a process to be abandoned.
    ///
    /// # Errors
    /// When it has ended, among others.
    pub(crate) async fn abandon(&self, id: &ProcessId, reason: Option<String>) -> Result<ProcessView, Failure> {
        match self {
            Self::Host(client) => {
                let path = ["processes", id.as_str(), "abandon"];
                let asked = client.post(&path, &json!({"reason": reason})).await;
                Ok(asked.map_err(|error| advised(error, || of_request(id)))?.answer)
            }
            Self::Store(host) => {
                let requested_at_ms = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
                let request = AbandonRequest { requested_by: LOCAL_CALLER.to_owned(), requested_at_ms, reason };
                let asked = host.registry.request_process_abandon(id, request).await;
                Ok(ProcessView::new(&*asked.map_err(|error| advised(error, || of_request(id)))?))
            }
        }
    }

    /// Sends a signal to a process.
    ///
    /// # Errors
    /// When it has ended, among others.
    pub(crate) async fn signal(
        &self,
        id: &ProcessId,
        signal: &ProcessSignal,
        signal_id: Option<String>,
        payload: Value,
    ) -> Result<SentSignal, Failure> {
        // Made here, so that what is sent twice on the way is one signal.
        let signal_id = match signal_id {
            Some(signal_id) => signal_id,
            None => random_text::<16>().map_err(|error| {
                Failure::new(FailureKind::System, format!("no randomness for the id of a signal: {error}"))
            })?,
        };
        match self {
            Self::Host(client) => {
                let path = ["processes", id.as_str(), "signals", signal.name()];
                let sent = client.post(&path, &json!({"signal_id": signal_id, "payload": payload})).await;
                Ok(sent.map_err(|error| advised(error, || of_signal(id, &signal_id)))?.answer)
            }
            Self::Store(host) => {
                let sent = host.registry.signal_process(id, signal, &signal_id, payload).await;
                let sent = sent.map_err(|error| advised(error, || of_signal(id, &signal_id)))?;
                let event = sent.receipt.events.first().ok_or_else(|| unanswered("a signal"))?;
                Ok(SentSignal {
                    sequence: event.event().sequence.0,
                    ordinal: sent.ordinal,
                    replayed: !event.is_inserted(),
                })
            }
        }
    }
}

/// An answer that may leave open whether what was asked was done.
trait MayBeDone: Into<Failure> {
    /// Whether it does.
    fn may_be_done(&self) -> bool;
}

impl MayBeDone for HostError {
    fn may_be_done(&self) -> bool {
        self.leaves_unknown()
    }
}

impl MayBeDone for RegistryError {
    fn may_be_done(&self) -> bool {
        matches!(self, Self::OutcomeUnknown { .. } | Self::AcrossOutcomeUnknown { .. })
    }
}

/// The failure, and where it is not known what became of the request, how to find out.
fn advised<E: MayBeDone>(error: E, advice: impl FnOnce() -> String) -> Failure {
    let may_be_done = error.may_be_done();
    let failure = error.into();
    if may_be_done { failure.with_advice(&advice()) } else { failure }
}

fn of_submission(id: &ProcessId) -> String {
    format!(
        "to find out whether it was submitted, `proctor show {id}`, or submit it again with `--id {id}`, which makes one process of both"
    )
}

fn of_request(id: &ProcessId) -> String {
    format!("read first whether it was asked, `proctor show {id}`")
}

fn of_signal(id: &ProcessId, signal_id: &str) -> String {
    format!(
        "to find out whether it was stored, `proctor events {id}`, or send it again with `--signal-id {signal_id}`, which makes one signal \
         of both"
    )
}

/// The store has an owner that is there and takes no requests.
fn silent_owner(owned: &Failure, path: &Path) -> Failure {
    // Only hosts that serve have tokens. One of these that does not listen is on its way out.
    let reason = if beside(path, "tokens").exists() {
        "which does not listen for requests, and is stopping: try again when it has ended, or name its socket with --socket if it has \
         another one"
    } else {
        "which does not listen for requests: wait for its end, or name its socket with --socket"
    };
    Failure::new(owned.kind(), format!("{owned}, {reason}"))
}

fn taken(id: &ProcessId, place: impl std::fmt::Display) -> Failure {
    Failure::new(FailureKind::CannotCreate, format!("the id `{id}` is taken by another process at {place}"))
}

fn unanswered(what: &str) -> Failure {
    Failure::new(FailureKind::Software, format!("{what} was answered with nothing"))
}

/// The request that means this registration.
fn start_request(registration: &ProcessRegistration, directory: Directory) -> Value {
    let mut command = registration.input.payload.clone();
    if directory == Directory::OfHost
        && let Some(command) = command.as_object_mut()
    {
        command.remove("cwd");
    }
    let signals = registration.event_types.iter().filter_map(|declared| ProcessSignal::of_event_type(&declared.name));
    json!({
        "process_id": registration.id,
        "command": command,
        "signals": signals.collect::<Vec<_>>(),
        "disposition": registration.disposition.label(),
        "tags": registration.tags,
        "retry": registration.retry,
        "deadline_ms": registration.deadline_ms,
        "parent": registration.parent.as_ref().map(|parent| &parent.process_id),
    })
}

#[cfg(test)]
mod tests {
    use registry_actor::domain::{ProcessAwaitOutput, ProcessInput, RecoveryDisposition, Sequence};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, copy, sink},
        net::TcpListener,
    };

    use super::*;
    use crate::api::metrics::ONE_STORE;

    fn registration(id: &ProcessId) -> ProcessRegistration {
        ProcessRegistration::new(
            id.clone(),
            ProcessInput::new("test", Value::Null),
            RecoveryDisposition::ExternallyOwned,
        )
    }

    #[tokio::test]
    async fn at_rest_what_has_ended_is_not_asked_to_end() {
        let _alone = ONE_STORE.lock().await;
        let directory = tempfile::tempdir().expect("a directory");
        let (path, socket) = (directory.path().join("s.db"), directory.path().join("s.db.sock"));
        let control = ProcessControl::of_new(NewPlace::Store { path, socket }, "test").await.expect("a store");
        let ProcessControl::Store(host) = &control else { panic!("there is no host") };
        let id = ProcessId::new("p").expect("an id");
        host.registry.register_process(registration(&id)).await.expect("registered");
        host.registry.complete_process(&id, ProcessAwaitOutput::success(Value::Null)).await.expect("completed");
        let events = || async { host.registry.events_page(&id, Sequence(0), 100).await.expect("events").events.len() };
        let before = events().await;
        let refused = control.cancel(&id, None).await.expect_err("it has ended");
        assert_eq!(refused.kind(), FailureKind::CannotCreate);
        assert!(refused.to_string().contains("has ended already"), "{refused}");
        assert_eq!(events().await, before);
        let refused = control.abandon(&id, None).await.expect_err("it has ended");
        assert_eq!(refused.kind(), FailureKind::CannotCreate);
        control.close().await;
    }

    /// A host that says of everything that it took too long.
    async fn slow_host() -> ProcessControl {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let read = stream.read(&mut [0; 4096]).await.expect("a request");
                assert_ne!(read, 0);
                let body = r#"{"type":"urn:proctor:problem:outcome_unknown","detail":"too slow"}"#;
                let answer = format!(
                    "HTTP/1.1 504 Gateway Timeout\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(answer.as_bytes()).await.expect("sent");
                // What has come and was not read would reset the connection, and take the answer with it.
                drop(copy(&mut stream, &mut sink()).await);
            }
        });
        ProcessControl::Host(HostClient::at_url(&url, None).expect("a client"))
    }

    #[tokio::test]
    async fn what_may_have_been_done_is_told_with_how_to_find_out() {
        let control = slow_host().await;
        let id = ProcessId::new("p").expect("an id");
        let signal = ProcessSignal::new("go").expect("a name");
        let submitted = control.submit(registration(&id), Directory::Told).await.map(drop);
        let cancelled = control.cancel(&id, None).await.map(drop);
        let abandoned = control.abandon(&id, None).await.map(drop);
        let sent = control.signal(&id, &signal, Some("once".to_owned()), Value::Null).await.map(drop);
        for (answer, advice) in [
            (submitted, "`--id p`"),
            (cancelled, "read first"),
            (abandoned, "read first"),
            (sent, "`--signal-id once`"),
        ] {
            let failure = answer.expect_err("no answer");
            assert_eq!(failure.kind(), FailureKind::Io, "{failure}");
            assert!(failure.to_string().contains(advice), "{failure}");
        }
    }
}
