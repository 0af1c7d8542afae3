//! The stored form of events, records and leases, and the links that chain the events of a process. Pure.
//!
//! What has a column of its own is not repeated in the bytes; a link covers the columns as well as the bytes, so that no
//! stored byte of an event can change unnoticed. It does not know which store holds the columns.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::{
    Digest, LeaseRow, OperationId, ProcessEvent, ProcessEventSemantics, ProcessId, ProcessRecord, ProcessWakeDelivery,
    ReplayKey, Sequence,
};
use crate::port::{CommittedBatch, Head, Precondition, ProcessBatch};

/// Codec of what is written now: JSON. Older ones are read for ever, newer ones are refused.
pub(crate) const CODEC_JSON: i64 = 1;

/// Version of the rule by which links and checksums are computed.
const CHAIN_VERSION: u8 = 1;

/// How deep a payload may nest. JSON is read back to a depth of 128, and a payload stands inside other values: in an
/// event, in an outcome, in a record. What could not be read again must not be stored.
const MAX_PAYLOAD_DEPTH: usize = 100;

/// A batch whose shape no log can hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MalformedBatch {
    #[error("event of process `{found}` in a batch of process `{expected}`")]
    ForeignEvent { expected: ProcessId, found: ProcessId },
    #[error("expected the event of sequence {expected}, got {found}")]
    Gap { expected: Sequence, found: Sequence },
    #[error("a batch for an unknown process must begin with its registration")]
    NoRegistration,
    #[error("a batch must hold an event or a lease")]
    Empty,
    #[error("lease revision {found} does not follow {expected}")]
    LeaseGoesBack { expected: u64, found: u64 },
    #[error("the payload of sequence {sequence} nests deeper than {limit} levels")]
    TooDeep { sequence: Sequence, limit: usize },
    #[error("{what} has no JSON form: {reason}")]
    NoJson { what: &'static str, reason: String },
}

/// A batch in its stored form.
#[derive(Debug)]
pub(crate) struct EncodedBatch {
    pub(crate) expected: Precondition,
    pub(crate) events: Vec<EncodedEvent>,
    pub(crate) deliveries: Vec<EncodedDelivery>,
    /// Present where more than `updated_at_ms` changed.
    pub(crate) record: Option<EncodedRecord>,
    pub(crate) updated_at_ms: u64,
    pub(crate) lease: Option<EncodedLease>,
    /// The head after the batch.
    pub(crate) head: Option<Head>,
    /// What followers are told.
    pub(crate) committed: CommittedBatch,
    pub(crate) urgent: bool,
}

/// An event in its stored form.
#[derive(Debug)]
pub(crate) struct EncodedEvent {
    pub(crate) event: Arc<ProcessEvent>,
    pub(crate) operation: OperationId,
    pub(crate) data: Vec<u8>,
    pub(crate) chain: Digest,
}

/// A record in its stored form. `updated_at_ms` in the body is that of the last change of the body; the head knows
/// better.
#[derive(Debug)]
pub(crate) struct EncodedRecord {
    pub(crate) status: &'static str,
    pub(crate) body: Vec<u8>,
    pub(crate) checksum: Digest,
}

/// A lease row in its stored form.
#[derive(Debug)]
pub(crate) struct EncodedLease {
    pub(crate) row: LeaseRow,
    pub(crate) body: Vec<u8>,
    pub(crate) checksum: Digest,
}

/// A wake delivery in its stored form.
#[derive(Debug)]
pub(crate) struct EncodedDelivery {
    pub(crate) delivery: ProcessWakeDelivery,
    pub(crate) body: Vec<u8>,
    pub(crate) checksum: Digest,
}

/// The stored columns of an event, as they are read: nothing is believed of them before the link is checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EventColumns<'row> {
    pub(crate) sequence: i64,
    pub(crate) event_type: &'row [u8],
    pub(crate) at_ms: i64,
    pub(crate) replay_key: Option<&'row [u8]>,
    pub(crate) operation: &'row [u8],
    pub(crate) codec: i64,
    pub(crate) data: &'row [u8],
}

impl EncodedBatch {
    /// Bytes that the batch brings to the store, roughly.
    pub(crate) fn size_bytes(&self) -> usize {
        let events = self.events.iter().map(|event| event.data.len() + 128).sum::<usize>();
        events + self.record.as_ref().map_or(0, |record| record.body.len())
    }
}

/// Checks the shape of a batch and gives it its stored form. The expected head carries the link that the new events
/// continue.
pub(crate) fn encode(batch: ProcessBatch) -> Result<EncodedBatch, MalformedBatch> {
    let ProcessBatch { process_id, expected, events, deliveries, record, body_changed, lease, urgent } = batch;
    check_shape(&expected, events.len(), lease.as_ref())?;
    let mut head = expected.head;
    let mut encoded = Vec::with_capacity(events.len());
    for next in &events {
        let (sequence, previous) = match head {
            None => (Sequence::REGISTRATION, base_link(&process_id)),
            Some(head) => (head.sequence.next(), head.chain),
        };
        let event = &next.event;
        if event.process_id != process_id {
            return Err(MalformedBatch::ForeignEvent { expected: process_id, found: event.process_id.clone() });
        }
        if event.sequence != sequence {
            return Err(MalformedBatch::Gap { expected: sequence, found: event.sequence });
        }
        let event = encode_event(event, next.operation, &previous)?;
        head = Some(Head { sequence, chain: event.chain });
        encoded.push(event);
    }
    // The first record of a process is always a change.
    let record_changes = !events.is_empty() && (body_changed || expected.head.is_none());
    Ok(EncodedBatch {
        expected,
        record: if record_changes { Some(encode_record(&record)?) } else { None },
        updated_at_ms: record.updated_at_ms,
        lease: lease.map(|row| encode_lease(&process_id, row)).transpose()?,
        head,
        committed: CommittedBatch {
            process_id,
            record,
            events: events.into_iter().map(|event| event.event).collect(),
            woken: deliveries.iter().map(|delivery| delivery.target.clone()).collect(),
        },
        deliveries: deliveries.into_iter().map(encode_delivery).collect::<Result<_, _>>()?,
        events: encoded,
        urgent,
    })
}

fn check_shape(expected: &Precondition, events: usize, lease: Option<&LeaseRow>) -> Result<(), MalformedBatch> {
    if events == 0 && expected.head.is_none() {
        return Err(MalformedBatch::NoRegistration);
    }
    match lease {
        None if events == 0 => Err(MalformedBatch::Empty),
        Some(row) if row.revision <= expected.lease_revision => {
            Err(MalformedBatch::LeaseGoesBack { expected: expected.lease_revision, found: row.revision })
        }
        _ => Ok(()),
    }
}

/// The link before the registration: it ties the chain to its process.
pub(crate) fn base_link(process_id: &ProcessId) -> Digest {
    Digest::of_parts([b"process", &[CHAIN_VERSION], process_id.as_str().as_bytes()])
}

/// Gives one event its stored form.
pub(crate) fn encode_event(
    event: &Arc<ProcessEvent>,
    operation: OperationId,
    previous: &Digest,
) -> Result<EncodedEvent, MalformedBatch> {
    if is_deeper(&event.payload, MAX_PAYLOAD_DEPTH) {
        return Err(MalformedBatch::TooDeep { sequence: event.sequence, limit: MAX_PAYLOAD_DEPTH });
    }
    let data = to_json(
        "an event",
        &EventData {
            payload: Cow::Borrowed(&event.payload),
            semantics: Cow::Borrowed(&event.semantics),
            late: event.late,
        },
    )?;
    let chain = link(
        previous,
        &EventColumns {
            sequence: event.sequence.0.cast_signed(),
            event_type: event.event_type.as_bytes(),
            at_ms: event.occurred_at_ms.cast_signed(),
            replay_key: event.replay_key.as_ref().map(|key| key.as_str().as_bytes()),
            operation: &operation.to_bytes(),
            codec: CODEC_JSON,
            data: &data,
        },
    );
    Ok(EncodedEvent { event: Arc::clone(event), operation, data, chain })
}

/// The link of an event: over the link before it and everything that is stored of it.
pub(crate) fn link(previous: &Digest, columns: &EventColumns<'_>) -> Digest {
    Digest::of_parts([
        previous.as_bytes(),
        &[CHAIN_VERSION],
        &columns.codec.to_le_bytes(),
        &columns.sequence.to_le_bytes(),
        columns.event_type,
        &columns.at_ms.to_le_bytes(),
        // An absent key and an empty one are different stored bytes.
        &[u8::from(columns.replay_key.is_some())],
        columns.replay_key.unwrap_or_default(),
        columns.operation,
        columns.data,
    ])
}

/// The event in these columns, and its link, which is the stored one. The error says what does not hold.
pub(crate) fn decode_event(
    process_id: &ProcessId,
    columns: &EventColumns<'_>,
    stored_link: &[u8],
    previous: &Digest,
) -> Result<(ProcessEvent, OperationId, Digest), String> {
    let chain = link(previous, columns);
    if chain.as_bytes() != stored_link {
        return Err("its link does not hold".to_owned());
    }
    // From here on the columns are what was written, and what cannot be read was written by another version.
    if columns.codec != CODEC_JSON {
        return Err(format!("its codec {} is unknown, this version knows {CODEC_JSON}", columns.codec));
    }
    let EventData { payload, semantics, late } =
        serde_json::from_slice(columns.data).map_err(|error| format!("its data cannot be read: {error}"))?;
    let replay_key =
        columns.replay_key.map(|key| ReplayKey::new(text(key)?).map_err(|error| error.to_string())).transpose()?;
    let operation = OperationId::from_bytes(columns.operation)
        .ok_or_else(|| format!("its operation has {} bytes", columns.operation.len()))?;
    let event = ProcessEvent {
        process_id: process_id.clone(),
        sequence: Sequence(columns.sequence.cast_unsigned()),
        event_type: Arc::from(text(columns.event_type)?),
        payload: payload.into_owned(),
        replay_key,
        semantics: semantics.into_owned(),
        occurred_at_ms: columns.at_ms.cast_unsigned(),
        late,
    };
    Ok((event, operation, chain))
}

/// Gives a record its stored form.
pub(crate) fn encode_record(record: &ProcessRecord) -> Result<EncodedRecord, MalformedBatch> {
    let status = record.status.label();
    let body = to_json("a record", record)?;
    let checksum = record_checksum(record.id(), status.as_bytes(), CODEC_JSON, &body);
    Ok(EncodedRecord { status, body, checksum })
}

/// The record in a stored body, its `updated_at_ms` as of the head. The error says what does not hold.
pub(crate) fn decode_record(
    process_id: &ProcessId,
    status: &[u8],
    codec: i64,
    body: &[u8],
    checksum: &[u8],
    updated_at_ms: i64,
) -> Result<ProcessRecord, String> {
    if record_checksum(process_id, status, codec, body).as_bytes() != checksum {
        return Err("the checksum of its record does not hold".to_owned());
    }
    let mut record: ProcessRecord = from_json("record", codec, body)?;
    record.updated_at_ms = updated_at_ms.cast_unsigned();
    Ok(record)
}

/// Gives a delivery its stored form.
pub(crate) fn encode_delivery(delivery: ProcessWakeDelivery) -> Result<EncodedDelivery, MalformedBatch> {
    let body = to_json("a wake delivery", &delivery)?;
    let checksum = delivery_checksum(CODEC_JSON, &body);
    Ok(EncodedDelivery { delivery, body, checksum })
}

/// The delivery in a stored body. The error says what does not hold.
pub(crate) fn decode_delivery(codec: i64, body: &[u8], checksum: &[u8]) -> Result<ProcessWakeDelivery, String> {
    if delivery_checksum(codec, body).as_bytes() != checksum {
        return Err("the checksum of its wake delivery does not hold".to_owned());
    }
    from_json("wake delivery", codec, body)
}

/// Gives a change that is no event its stored form: a tombstone, or the deletion of a session. Its checksum is the link
/// that cursors carry.
pub(crate) fn encode_mark<T: Serialize>(mark: &T) -> Result<(Vec<u8>, Digest), MalformedBatch> {
    let body = to_json("a change", mark)?;
    let checksum = mark_checksum(CODEC_JSON, &body);
    Ok((body, checksum))
}

/// The change in a stored body. The error says what does not hold.
pub(crate) fn decode_mark<T: for<'de> Deserialize<'de>>(codec: i64, body: &[u8], checksum: &[u8]) -> Result<T, String> {
    if mark_checksum(codec, body).as_bytes() != checksum {
        return Err("the checksum of a change does not hold".to_owned());
    }
    from_json("change", codec, body)
}

fn delivery_checksum(codec: i64, body: &[u8]) -> Digest {
    Digest::of_parts([b"delivery", &[CHAIN_VERSION], codec.to_le_bytes().as_slice(), body])
}

fn mark_checksum(codec: i64, body: &[u8]) -> Digest {
    Digest::of_parts([b"mark", &[CHAIN_VERSION], codec.to_le_bytes().as_slice(), body])
}

/// Gives a lease row its stored form.
pub(crate) fn encode_lease(process_id: &ProcessId, row: LeaseRow) -> Result<EncodedLease, MalformedBatch> {
    let body = to_json("a lease", &row)?;
    let checksum = lease_checksum(process_id, row.revision.cast_signed(), row.fence.0.cast_signed(), CODEC_JSON, &body);
    Ok(EncodedLease { row, body, checksum })
}

/// The lease row in a stored body. The error says what does not hold.
pub(crate) fn decode_lease(
    process_id: &ProcessId,
    revision: i64,
    fence: i64,
    codec: i64,
    body: &[u8],
    checksum: &[u8],
) -> Result<LeaseRow, String> {
    if lease_checksum(process_id, revision, fence, codec, body).as_bytes() != checksum {
        return Err("the checksum of its lease does not hold".to_owned());
    }
    from_json("lease", codec, body)
}

fn record_checksum(process_id: &ProcessId, status: &[u8], codec: i64, body: &[u8]) -> Digest {
    Digest::of_parts([b"record", &[CHAIN_VERSION], process_id.as_str().as_bytes(), status, &codec.to_le_bytes(), body])
}

fn lease_checksum(process_id: &ProcessId, revision: i64, fence: i64, codec: i64, body: &[u8]) -> Digest {
    Digest::of_parts([
        b"lease",
        &[CHAIN_VERSION],
        process_id.as_str().as_bytes(),
        &revision.to_le_bytes(),
        &fence.to_le_bytes(),
        &codec.to_le_bytes(),
        body,
    ])
}

/// What of an event has no column.
#[derive(Serialize, Deserialize)]
struct EventData<'event> {
    payload: Cow<'event, Value>,
    #[serde(default, skip_serializing_if = "ProcessEventSemantics::is_empty")]
    semantics: Cow<'event, ProcessEventSemantics>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    late: bool,
}

fn to_json<T: Serialize>(what: &'static str, value: &T) -> Result<Vec<u8>, MalformedBatch> {
    serde_json::to_vec(value).map_err(|error| MalformedBatch::NoJson { what, reason: error.to_string() })
}

fn from_json<T: for<'de> Deserialize<'de>>(what: &str, codec: i64, body: &[u8]) -> Result<T, String> {
    if codec != CODEC_JSON {
        return Err(format!("the codec {codec} of its {what} is unknown, this version knows {CODEC_JSON}"));
    }
    serde_json::from_slice(body).map_err(|error| format!("its {what} cannot be read: {error}"))
}

fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|error| error.to_string())
}

fn is_deeper(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(items) => levels == 0 || items.iter().any(|item| is_deeper(item, levels - 1)),
        Value::Object(fields) => levels == 0 || fields.values().any(|item| is_deeper(item, levels - 1)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}
