//! Records the calls of a test on their way.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use registry_actor::domain::{Command, ProcessId, Receipt, RegistryCommand, RegistryReceipt};
use registry_actor::port::{
    Answer, ChangeSource, Clock, DurabilityTier, ProcessRegistry, Query, RegistryError, Timestamp,
};

use super::history::{Answered, Asked, RecordedCall, Span};

/// Gathers the calls of all clients.
#[derive(Default)]
pub struct Recorder {
    clock: Option<Arc<dyn Clock>>,
    tape: Mutex<Tape>,
}

#[derive(Debug, Default)]
struct Tape {
    calls: Vec<RecordedCall>,
    time: u64,
}

impl Recorder {
    /// A recorder that knows order alone: whether a lease had expired is then not checked.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A recorder that also notes the clock by which the registry decides.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { clock: Some(clock), tape: Mutex::default() })
    }

    /// What was recorded so far. Calls under way are among it, without an answer.
    #[must_use]
    pub fn calls(&self) -> Vec<RecordedCall> {
        self.tape().calls.clone()
    }

    fn begin(&self, client: u32, asked: Asked) -> usize {
        let from = self.now();
        let mut tape = self.tape();
        tape.time += 1;
        let span = Span { start: tape.time, end: None, from, to: Timestamp::default() };
        tape.calls.push(RecordedCall { client, span, asked, answered: None });
        tape.calls.len() - 1
    }

    fn end(&self, number: usize, answered: Answered) {
        let to = self.now();
        let mut tape = self.tape();
        tape.time += 1;
        let time = tape.time;
        let call = &mut tape.calls[number];
        call.span.end = Some(time);
        call.span.to = to;
        call.answered = Some(answered);
    }

    fn now(&self) -> Timestamp {
        self.clock.as_ref().map(|clock| clock.now()).unwrap_or_default()
    }

    fn tape(&self) -> MutexGuard<'_, Tape> {
        self.tape.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Recorder").field("calls", &self.tape().calls.len()).finish_non_exhaustive()
    }
}

/// Another registry, of which one client's calls are recorded.
pub struct RecordingRegistry {
    inner: Arc<dyn ProcessRegistry>,
    recorder: Arc<Recorder>,
    client: u32,
}

impl RecordingRegistry {
    /// What this client asks of the registry is recorded from now on.
    #[must_use]
    pub const fn new(inner: Arc<dyn ProcessRegistry>, recorder: Arc<Recorder>, client: u32) -> Self {
        Self { inner, recorder, client }
    }
}

impl fmt::Debug for RecordingRegistry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RecordingRegistry").field("client", &self.client).finish_non_exhaustive()
    }
}

#[async_trait]
impl ProcessRegistry for RecordingRegistry {
    async fn execute(&self, process_id: &ProcessId, command: Command) -> Result<Receipt, RegistryError> {
        let call = self.recorder.begin(self.client, Asked::Execute(process_id.clone(), command.clone()));
        let answer = self.inner.execute(process_id, command).await;
        self.recorder.end(call, Answered::Execute(answer.clone()));
        answer
    }

    async fn execute_across(&self, command: RegistryCommand) -> Result<RegistryReceipt, RegistryError> {
        let call = self.recorder.begin(self.client, Asked::Across(command.clone()));
        let answer = self.inner.execute_across(command).await;
        self.recorder.end(call, Answered::Across(answer.clone()));
        answer
    }

    async fn query(&self, query: Query) -> Result<Answer, RegistryError> {
        let call = self.recorder.begin(self.client, Asked::Query(query.clone()));
        let answer = self.inner.query(query).await;
        self.recorder.end(call, Answered::Query(answer.clone()));
        answer
    }

    fn durability_tier(&self) -> DurabilityTier {
        self.inner.durability_tier()
    }

    fn change_source(&self) -> Option<ChangeSource> {
        self.inner.change_source()
    }
}
