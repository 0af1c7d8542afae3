//! The check of everything that is stored of one process. It does not know where the rows come from: a log hands them in,
//! in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::codec::{self, EventColumns};
use crate::domain::{Digest, ProcessId, ProcessRecord, ProcessState, Sequence, apply};
use crate::port::{LogFault, ProcessVerification};

/// A check under way.
pub(crate) struct Verification {
    state: ProcessState,
    /// Link and sequence of the last event, whether or not it was found whole.
    last: Option<(Sequence, Digest)>,
    /// The events that woke somebody, and whether that is acknowledged.
    wakes: BTreeMap<Sequence, bool>,
    events: u64,
    faults: Vec<LogFault>,
}

impl Verification {
    pub(crate) fn of(process_id: ProcessId) -> Self {
        Self {
            state: ProcessState::unregistered(process_id),
            last: None,
            wakes: BTreeMap::new(),
            events: 0,
            faults: Vec::new(),
        }
    }

    /// Checks the next event in the order of sequences.
    pub(crate) fn event(&mut self, columns: &EventColumns<'_>, stored_link: &[u8]) {
        let (expected, previous) = match self.last {
            None => (Sequence::REGISTRATION, codec::base_link(&self.state.process_id)),
            Some((sequence, chain)) => (sequence.next(), chain),
        };
        let sequence = Sequence(columns.sequence.cast_unsigned());
        self.events += 1;
        if sequence != expected {
            self.fault(sequence, format!("expected sequence {expected} here"));
        }
        match codec::decode_event(&self.state.process_id, columns, stored_link, &previous) {
            Ok((event, ..)) => {
                if event.semantics.wake.is_some() {
                    self.wakes.insert(event.sequence, false);
                }
                if let Some(wake) = event.acknowledged_wake().and_then(|wake| self.wakes.get_mut(&wake)) {
                    *wake = true;
                }
                let state = std::mem::replace(&mut self.state, ProcessState::unregistered(event.process_id.clone()));
                self.state = apply(state, &Arc::new(event));
                // A long log must not gather its keys in memory.
                self.state.replays.settle();
            }
            Err(what) => self.fault(sequence, what),
        }
        // The stored link is the one that the next event continues, so that one damage is not reported for all that
        // follow.
        let chain = Digest::from_bytes(stored_link).unwrap_or_else(|| codec::link(&previous, columns));
        self.last = Some((sequence, chain));
    }

    /// Notes a fault that the log itself found.
    pub(crate) fn fault(&mut self, sequence: Sequence, what: String) {
        self.faults.push(LogFault { sequence, what });
    }

    /// Whether nothing was found so far.
    #[cfg(feature = "sqlite")]
    pub(crate) fn is_whole(&self) -> bool {
        self.faults.is_empty()
    }

    /// Where the walk stands.
    pub(crate) fn sequence(&self) -> Option<Sequence> {
        self.last.map(|(sequence, _)| sequence)
    }

    /// Checks that the stored head is the last event.
    pub(crate) fn head(&mut self, sequence: Sequence, stored_link: &[u8]) {
        let holds =
            self.last.is_some_and(|(last, chain)| last == sequence && chain.as_bytes().as_slice() == stored_link);
        if !holds {
            self.fault(sequence, "its head is not its last event".to_owned());
        }
    }

    /// Checks that the events make the stored record. Where events are damaged their fold says nothing.
    pub(crate) fn record(&mut self, stored: Result<&ProcessRecord, String>) {
        let sequence = self.sequence().unwrap_or(Sequence::REGISTRATION);
        match stored {
            Err(what) => self.fault(sequence, what),
            Ok(stored) if self.faults.is_empty() && self.state.record.as_deref() != Some(stored) => {
                self.fault(sequence, "folding its events does not give its record".to_owned());
            }
            Ok(_) => {}
        }
    }

    /// Checks that the events make the stored set of wakes and acknowledgements. Where events are damaged their fold says
    /// nothing.
    pub(crate) fn wakes(&mut self, stored: &BTreeMap<Sequence, bool>) {
        if self.faults.is_empty() && self.wakes != *stored {
            let sequence = self.sequence().unwrap_or(Sequence::REGISTRATION);
            self.fault(sequence, "folding its events does not give its wakes".to_owned());
        }
    }

    pub(crate) fn finish(self) -> ProcessVerification {
        ProcessVerification { process_id: self.state.process_id, events: self.events, faults: self.faults }
    }
}
