//! The stored form of each value, as columns. It does not know which store holds them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::codec::{self, EventColumns};
use crate::domain::{Digest, LeaseRow, OperationId, ProcessEvent, ProcessId, ProcessRecord, ProcessWakeDelivery};

/// Codec of what is written now.
pub const CODEC_JSON: i64 = codec::CODEC_JSON;

/// The columns of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its sequence.
    pub sequence: i64,
    /// Its type.
    pub event_type: Vec<u8>,
    /// Its time, in ms since the Unix epoch.
    pub at_ms: i64,
    /// Its replay key.
    pub replay_key: Option<Vec<u8>>,
    /// The call that brought it.
    pub operation: Vec<u8>,
    /// How `data` is written.
    pub codec: i64,
    /// Everything else.
    pub data: Vec<u8>,
    /// Its link.
    pub link: Vec<u8>,
}

/// A value that is stored as one body beside its columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBody {
    /// How `body` is written.
    pub codec: i64,
    /// The value.
    pub body: Vec<u8>,
    /// Its checksum.
    pub checksum: Vec<u8>,
}

impl StoredBody {
    fn new(body: Vec<u8>, checksum: Digest) -> Self {
        Self { codec: CODEC_JSON, body, checksum: checksum.as_bytes().to_vec() }
    }
}

impl StoredEvent {
    fn columns(&self) -> EventColumns<'_> {
        EventColumns {
            sequence: self.sequence,
            event_type: &self.event_type,
            at_ms: self.at_ms,
            replay_key: self.replay_key.as_deref(),
            operation: &self.operation,
            codec: self.codec,
            data: &self.data,
        }
    }

    /// The same with the link that belongs to it.
    #[must_use]
    pub fn linked(mut self, previous: &Digest) -> Self {
        self.link = codec::link(previous, &self.columns()).as_bytes().to_vec();
        self
    }

    /// Gives an event its stored form.
    ///
    /// # Errors
    /// What the codec says.
    pub fn encode(event: &Arc<ProcessEvent>, operation: OperationId, previous: &Digest) -> Result<Self, String> {
        let encoded = codec::encode_event(event, operation, previous).map_err(|error| error.to_string())?;
        Ok(Self {
            sequence: event.sequence.0.cast_signed(),
            event_type: event.event_type.as_bytes().to_vec(),
            at_ms: event.occurred_at_ms.cast_signed(),
            replay_key: event.replay_key.as_ref().map(|key| key.as_str().as_bytes().to_vec()),
            operation: operation.to_bytes().to_vec(),
            codec: CODEC_JSON,
            data: encoded.data,
            link: encoded.chain.as_bytes().to_vec(),
        })
    }

    /// Reads it.
    ///
    /// # Errors
    /// What the codec says.
    pub fn decode(
        &self,
        process_id: &ProcessId,
        previous: &Digest,
    ) -> Result<(ProcessEvent, OperationId, Digest), String> {
        codec::decode_event(process_id, &self.columns(), &self.link, previous)
    }
}

/// The link before the registration.
#[must_use]
pub fn base_link(process_id: &ProcessId) -> Digest {
    codec::base_link(process_id)
}

/// Gives a record its stored form; its status has a column of its own.
///
/// # Errors
/// What the codec says.
pub fn encode_record(record: &ProcessRecord) -> Result<(&'static str, StoredBody), String> {
    let encoded = codec::encode_record(record).map_err(|error| error.to_string())?;
    Ok((encoded.status, StoredBody::new(encoded.body, encoded.checksum)))
}

/// Reads a record.
///
/// # Errors
/// What the codec says.
pub fn decode_record(
    process_id: &ProcessId,
    status: &[u8],
    stored: &StoredBody,
    updated_at_ms: i64,
) -> Result<ProcessRecord, String> {
    codec::decode_record(process_id, status, stored.codec, &stored.body, &stored.checksum, updated_at_ms)
}

/// Gives a lease row its stored form.
///
/// # Errors
/// What the codec says.
pub fn encode_lease(process_id: &ProcessId, row: &LeaseRow) -> Result<StoredBody, String> {
    let encoded = codec::encode_lease(process_id, row.clone()).map_err(|error| error.to_string())?;
    Ok(StoredBody::new(encoded.body, encoded.checksum))
}

/// Reads a lease row.
///
/// # Errors
/// What the codec says.
pub fn decode_lease(
    process_id: &ProcessId,
    revision: i64,
    fence: i64,
    stored: &StoredBody,
) -> Result<LeaseRow, String> {
    codec::decode_lease(process_id, revision, fence, stored.codec, &stored.body, &stored.checksum)
}

/// Gives a delivery its stored form.
///
/// # Errors
/// What the codec says.
pub fn encode_delivery(delivery: &ProcessWakeDelivery) -> Result<StoredBody, String> {
    let encoded = codec::encode_delivery(delivery.clone()).map_err(|error| error.to_string())?;
    Ok(StoredBody::new(encoded.body, encoded.checksum))
}

/// Reads a delivery.
///
/// # Errors
/// What the codec says.
pub fn decode_delivery(stored: &StoredBody) -> Result<ProcessWakeDelivery, String> {
    codec::decode_delivery(stored.codec, &stored.body, &stored.checksum)
}

/// Gives a change that is no event its stored form.
///
/// # Errors
/// What the codec says.
pub fn encode_mark<T: Serialize>(mark: &T) -> Result<StoredBody, String> {
    let (body, checksum) = codec::encode_mark(mark).map_err(|error| error.to_string())?;
    Ok(StoredBody::new(body, checksum))
}

/// Reads a change that is no event.
///
/// # Errors
/// What the codec says.
pub fn decode_mark<T: for<'de> Deserialize<'de>>(stored: &StoredBody) -> Result<T, String> {
    codec::decode_mark(stored.codec, &stored.body, &stored.checksum)
}
