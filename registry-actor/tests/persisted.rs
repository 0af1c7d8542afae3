//! The stored bytes of every version: what was once written is read for ever.
//!
//! `golden/persisted/vN` holds what a store of schema version N holds, one file for each stored form. The directories of
//! older versions are never written again. To write the current one anew, after a change that is meant and that no store
//! has seen yet, set `PROCTOR_REWRITE_GOLDEN=1`.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use registry_actor::domain::{
    CoreEventType, Digest, LeaseRow, OperationId, ProcessAttempts, ProcessEvent, ProcessId, ProcessRecord,
    ProcessWakeDelivery, SessionDeletion, Tombstone,
};
use registry_actor::fuzzing::stored::{self, StoredBody, StoredEvent};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// The schema version that is written now.
const CURRENT: &str = "v4";

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn read<T: DeserializeOwned>(path: &Path) -> T {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The values whose JSON is pinned beside this: what is stored here is the stored form of them.
fn values<T: DeserializeOwned>(file: &str) -> BTreeMap<String, T> {
    read(&golden().join(file))
}

/// One stored row, and the value that it holds. Bytes that are JSON stand as text, all others as hex.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Row {
    process_id: ProcessId,
    /// For an event: the link before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<Digest>,
    columns: BTreeMap<String, Value>,
    value: Value,
}

type Rows = BTreeMap<String, Row>;

impl Row {
    fn number(&self, column: &str) -> i64 {
        self.columns[column].as_i64().unwrap_or_else(|| panic!("{column} is a number"))
    }

    fn text(&self, column: &str) -> &str {
        self.columns[column].as_str().unwrap_or_else(|| panic!("{column} is a text"))
    }

    fn digest(&self, column: &str) -> Vec<u8> {
        Digest::from_hex(self.text(column)).expect("a digest").as_bytes().to_vec()
    }

    fn event(&self) -> StoredEvent {
        let operation = self.text("operation");
        let byte = |at: usize| u8::from_str_radix(&operation[at..at + 2], 16).expect("hex");
        StoredEvent {
            sequence: self.number("sequence"),
            event_type: self.text("type").as_bytes().to_vec(),
            at_ms: self.number("at_ms"),
            replay_key: self.columns["replay_key"].as_str().map(|key| key.as_bytes().to_vec()),
            operation: (0..operation.len()).step_by(2).map(byte).collect(),
            codec: self.number("codec"),
            data: self.text("data").as_bytes().to_vec(),
            link: self.digest("chain"),
        }
    }

    fn body(&self) -> StoredBody {
        StoredBody {
            codec: self.number("codec"),
            body: self.text("body").as_bytes().to_vec(),
            checksum: self.digest("checksum"),
        }
    }
}

/// What a form reads as, or why it does not.
type Decode = fn(&Row) -> Result<Value, String>;

fn shape<T: Serialize>(value: T) -> Value {
    serde_json::to_value(value).expect("it has a JSON form")
}

/// Every stored form: its file, its decoder, and the columns that its link or checksum covers.
const FORMS: [(&str, Decode, &[&str]); 6] = [
    (
        "event.json",
        |row| {
            row.event().decode(&row.process_id, &row.previous.expect("a link before")).map(|(event, ..)| shape(event))
        },
        &["sequence", "type", "at_ms", "replay_key", "operation", "codec", "data", "chain"],
    ),
    (
        "record.json",
        |row| {
            stored::decode_record(
                &row.process_id,
                row.text("status").as_bytes(),
                &row.body(),
                row.number("updated_at_ms"),
            )
            .map(shape)
        },
        &["status", "codec", "body", "checksum"],
    ),
    (
        "lease.json",
        |row| {
            stored::decode_lease(&row.process_id, row.number("revision"), row.number("fence"), &row.body()).map(shape)
        },
        &["revision", "fence", "codec", "body", "checksum"],
    ),
    ("delivery.json", |row| stored::decode_delivery(&row.body()).map(shape), &["codec", "body", "checksum"]),
    ("tombstone.json", |row| stored::decode_mark::<Tombstone>(&row.body()).map(shape), &["codec", "body", "checksum"]),
    (
        "session_deletion.json",
        |row| stored::decode_mark::<SessionDeletion>(&row.body()).map(shape),
        &["codec", "body", "checksum"],
    ),
];

fn versions() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(golden().join("persisted")).expect("the stored forms are there");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry can be read").path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_version_is_read_for_ever() {
    let versions = versions();
    let names: Vec<_> = versions.iter().filter_map(|path| path.file_name()?.to_str()).collect();
    assert_eq!(names, ["v1", "v2", "v3", "v4"], "no version is ever taken away");
    let mut read_rows = 0;
    for version in versions {
        for (file, decode, _) in FORMS {
            let path = version.join(file);
            // A form that a version did not have has no file there; the current one has them all.
            if !path.exists() {
                assert!(!version.ends_with(CURRENT), "{}", path.display());
                continue;
            }
            for (name, row) in read::<Rows>(&path) {
                let value = decode(&row).unwrap_or_else(|what| panic!("{name} in {}: {what}", path.display()));
                assert_eq!(value, row.value, "{name} in {}", path.display());
                read_rows += 1;
            }
        }
    }
    assert!(read_rows > 30, "{read_rows} rows");
}

/// What an older version did not write has the value that it always had.
#[test]
fn a_record_of_the_first_version_is_of_a_first_life_and_has_nothing_that_came_later() {
    let rows = read::<Rows>(&golden().join("persisted/v1/record.json"));
    for (name, row) in rows {
        for key in [
            "generation",
            "external_ref",
            "abandon_request",
            "wait",
            "tags",
            "attempts",
            "retry",
            "deadline_ms",
            "parent",
        ] {
            assert!(!row.text("body").contains(&format!("\"{key}\"")), "{name} is of the first version");
        }
        let stored = row.body();
        let updated_at_ms = row.number("updated_at_ms");
        let record: ProcessRecord =
            stored::decode_record(&row.process_id, row.text("status").as_bytes(), &stored, updated_at_ms)
                .expect("it reads");
        assert_eq!((record.generation, &record.external_ref, &record.abandon_request), (1, &None, &None));
        assert_eq!((&record.wait, record.registration.tags.len()), (&None, 0));
        assert_eq!(record.attempts, ProcessAttempts::default());
        let registration = &record.registration;
        assert_eq!((registration.retry, registration.deadline_ms, &registration.parent), (None, None, &None));
    }
}

/// No stored byte changes unnoticed.
#[test]
fn a_byte_that_is_not_what_was_written_is_found() {
    for version in versions() {
        for (file, decode, covered) in FORMS {
            let path = version.join(file);
            if !path.exists() {
                continue;
            }
            for (name, row) in read::<Rows>(&path) {
                for column in covered {
                    let mut changed = row.clone();
                    let value = match &row.columns[*column] {
                        Value::Number(number) => Value::from(number.as_i64().expect("a number") ^ 1),
                        Value::Null => Value::from(""),
                        Value::String(text) if text.ends_with('0') => {
                            Value::from(format!("{}1", &text[..text.len() - 1]))
                        }
                        Value::String(text) => Value::from(format!("{}0", &text[..text.len() - 1])),
                        other => panic!("{column} is {other}"),
                    };
                    changed.columns.insert((*column).to_owned(), value);
                    let what = decode(&changed).expect_err(&format!("{name} in {}: {column}", path.display()));
                    assert!(what.contains("does not hold"), "{what}");
                }
            }
        }
    }
}

/// The process stands in the link and in the checksums: rows of two processes cannot change places.
#[test]
fn a_row_of_another_process_is_found() {
    for (file, decode, _) in &FORMS[1..3] {
        for (name, mut row) in read::<Rows>(&golden().join("persisted").join(CURRENT).join(file)) {
            row.process_id = ProcessId::new("other").expect("an id");
            assert!(decode(&row).is_err(), "{name} in {file}");
        }
    }
    let (id, other) = (ProcessId::new("p").expect("an id"), ProcessId::new("q").expect("an id"));
    assert_ne!(stored::base_link(&id), stored::base_link(&other));
}

/// A codec that is not known is refused once its link holds, and not read as something else.
#[test]
fn a_later_codec_is_refused_by_its_number() {
    for (name, row) in read::<Rows>(&golden().join("persisted").join(CURRENT).join("event.json")) {
        let previous = row.previous.expect("a link before");
        let later = StoredEvent { codec: 2, ..row.event() }.linked(&previous);
        let what = later.decode(&row.process_id, &previous).expect_err(&name);
        assert_eq!(what, "its codec 2 is unknown, this version knows 1");
    }
}

// What is written now.

fn columns<const N: usize>(columns: [(&str, Value); N]) -> BTreeMap<String, Value> {
    columns.map(|(name, value)| (name.to_owned(), value)).into()
}

fn text(bytes: &[u8]) -> Value {
    Value::from(std::str::from_utf8(bytes).expect("what is written is text"))
}

fn hex(bytes: &[u8]) -> Value {
    Value::from(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

fn body_columns(stored: &StoredBody) -> BTreeMap<String, Value> {
    columns([("codec", Value::from(stored.codec)), ("body", text(&stored.body)), ("checksum", hex(&stored.checksum))])
}

fn id() -> ProcessId {
    ProcessId::new("build-7").expect("an id")
}

/// The events of a process are chained in the order of their sequences; where two have one, they begin chains of their own.
fn event_rows() -> Rows {
    let mut events: Vec<_> = values::<ProcessEvent>("process_event.json").into_iter().collect();
    events.sort_by_key(|(_, event)| event.sequence);
    let mut previous = stored::base_link(&id());
    let mut rows = Rows::new();
    for (number, (name, event)) in (1_u64..).zip(events) {
        let value = shape(&event);
        let operation = OperationId { issuer: 7, number };
        let stored = StoredEvent::encode(&Arc::new(event), operation, &previous).expect("it can be stored");
        let link = Digest::from_bytes(&stored.link).expect("a link");
        let columns = columns([
            ("sequence", Value::from(stored.sequence)),
            ("type", text(&stored.event_type)),
            ("at_ms", Value::from(stored.at_ms)),
            ("replay_key", stored.replay_key.as_deref().map_or(Value::Null, text)),
            ("operation", hex(&stored.operation)),
            ("codec", Value::from(stored.codec)),
            ("data", text(&stored.data)),
            ("chain", hex(&stored.link)),
        ]);
        rows.insert(name, Row { process_id: id(), previous: Some(previous), columns, value });
        previous = link;
    }
    rows
}

fn record_rows() -> Rows {
    let row = |record: ProcessRecord| {
        let (status, stored) = stored::encode_record(&record).expect("it can be stored");
        let mut columns = body_columns(&stored);
        columns.insert("status".into(), Value::from(status));
        columns.insert("updated_at_ms".into(), Value::from(record.updated_at_ms));
        Row { process_id: record.id().clone(), previous: None, columns, value: shape(&record) }
    };
    values("process_record.json").into_iter().map(|(name, record)| (name, row(record))).collect()
}

fn lease_rows() -> Rows {
    let row = |lease: LeaseRow| {
        let mut columns = body_columns(&stored::encode_lease(&id(), &lease).expect("it can be stored"));
        columns.insert("revision".into(), Value::from(lease.revision));
        columns.insert("fence".into(), Value::from(lease.fence.0));
        Row { process_id: id(), previous: None, columns, value: shape(&lease) }
    };
    values("lease_row.json").into_iter().map(|(name, lease)| (name, row(lease))).collect()
}

fn rows_of<T: Serialize + DeserializeOwned + Debug>(
    file: &str,
    encode: impl Fn(&T) -> Result<StoredBody, String>,
) -> Rows {
    let row = |value: T| {
        let columns = body_columns(&encode(&value).expect("it can be stored"));
        Row { process_id: id(), previous: None, columns, value: shape(&value) }
    };
    values(file).into_iter().map(|(name, value)| (name, row(value))).collect()
}

#[test]
fn what_is_written_now_is_what_the_current_version_holds() {
    let written = [
        ("event.json", event_rows()),
        ("record.json", record_rows()),
        ("lease.json", lease_rows()),
        ("delivery.json", rows_of::<ProcessWakeDelivery>("wake_delivery.json", stored::encode_delivery)),
        ("tombstone.json", rows_of::<Tombstone>("tombstone.json", stored::encode_mark)),
        ("session_deletion.json", rows_of::<SessionDeletion>("session_deletion.json", stored::encode_mark)),
    ];
    let directory = golden().join("persisted").join(CURRENT);
    if std::env::var_os("PROCTOR_REWRITE_GOLDEN").is_some_and(|asked| asked == "1") {
        std::fs::create_dir_all(&directory).expect("the directory can be made");
        for (file, rows) in &written {
            let text = serde_json::to_string_pretty(rows).expect("rows have a JSON form");
            std::fs::write(directory.join(file), text + "\n").expect("a file can be written");
        }
    }
    for (file, rows) in written {
        assert_eq!(read::<Rows>(&directory.join(file)), rows, "{file}");
    }
}

// The documentation.

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/format.md");
    std::fs::read_to_string(path).expect("docs/format.md can be read")
}

/// The rule of `docs/format.md`, written down a second time.
fn h(parts: &[&[u8]]) -> Vec<u8> {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().to_vec()
}

#[test]
fn links_and_checksums_are_those_that_the_documentation_says() {
    let page = page();
    let mut checked = 0;
    for (file, rule) in [
        ("record.json", "H(\"record\", 1, process id, status, codec, body)"),
        ("lease.json", "H(\"lease\", 1, process id, revision, fence, codec, body)"),
        ("delivery.json", "H(\"delivery\", 1, codec, body)"),
        ("tombstone.json", "H(\"mark\", 1, codec, body)"),
        ("session_deletion.json", "H(\"mark\", 1, codec, body)"),
    ] {
        assert!(page.contains(rule), "{rule}");
        for version in versions() {
            let path = version.join(file);
            for row in if path.exists() { read::<Rows>(&path) } else { Rows::new() }.values() {
                let number = |column: &str| row.number(column).to_le_bytes();
                let (id, body) = (row.process_id.as_str().as_bytes(), row.text("body").as_bytes());
                let codec = number("codec");
                let sum = match file {
                    "record.json" => h(&[b"record", &[1], id, row.text("status").as_bytes(), &codec, body]),
                    "lease.json" => h(&[b"lease", &[1], id, &number("revision"), &number("fence"), &codec, body]),
                    "delivery.json" => h(&[b"delivery", &[1], &codec, body]),
                    _ => h(&[b"mark", &[1], &codec, body]),
                };
                assert_eq!(sum, row.digest("checksum"), "{file}");
                checked += 1;
            }
        }
    }
    let rule =
        "H(link before, 1, codec, sequence, type, at_ms, has key (one byte, 0 or 1), key or nothing, operation, data)";
    assert!(page.contains(rule) && page.contains("H(\"process\", 1, process id)"));
    for version in versions() {
        let rows = read::<Rows>(&version.join("event.json"));
        let base = h(&[b"process", &[1], id().as_str().as_bytes()]);
        assert!(rows.values().any(|row| row.previous.expect("a link before").as_bytes().as_slice() == base));
        for row in rows.values() {
            let event = row.event();
            let link = h(&[
                row.previous.expect("a link before").as_bytes(),
                &[1],
                &event.codec.to_le_bytes(),
                &event.sequence.to_le_bytes(),
                &event.event_type,
                &event.at_ms.to_le_bytes(),
                &[u8::from(event.replay_key.is_some())],
                event.replay_key.as_deref().unwrap_or_default(),
                &event.operation,
                &event.data,
            ]);
            assert_eq!(link, event.link);
            checked += 1;
        }
    }
    assert!(checked > 30, "{checked}");
}

#[test]
fn the_documentation_names_every_internal_type_and_every_table_with_its_columns() {
    let page = page();
    for core in CoreEventType::INTERNAL {
        assert!(page.contains(&format!("| `{}` |", core.name())), "{}", core.name());
    }
    let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/log/sqlite");
    let mut tables = 0;
    for entry in std::fs::read_dir(schemas).expect("the schemas can be listed") {
        let path = entry.expect("an entry can be read").path();
        if path.extension().is_none_or(|extension| extension != "sql") {
            continue;
        }
        let schema = std::fs::read_to_string(&path).expect("a schema can be read");
        for table in schema.split("CREATE TABLE ").skip(1) {
            let (name, rest) = table.split_once(" (").expect("a table has columns");
            let row = page.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
            let row = row.unwrap_or_else(|| panic!("{name} of {} is not documented", path.display()));
            tables += 1;
            let (columns, _) = rest.split_once("\n)").expect("a table ends");
            // What every table has, what the text above says of events, and what is only there for SQLite.
            let implied = ["process_no", "only_row", "PRIMARY", "--"];
            for column in columns.lines().filter_map(|line| line.trim().split(' ').next()) {
                let is_named = row.contains(&format!("`{column}`"));
                let is_of_events = name == "events" && page.contains(&format!("`{column}`"));
                assert!(
                    column.is_empty() || implied.contains(&column) || is_named || is_of_events,
                    "{column} of {name} is not documented"
                );
            }
        }
    }
    assert!(tables >= 6, "{tables} tables");
}
