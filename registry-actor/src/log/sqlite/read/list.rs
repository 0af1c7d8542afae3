//! Lists: a page is a range of one index in the order of ids. What the index does not know is a condition on the row, whose
//! body is read only if the row is shown.

use std::sync::Arc;

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::process::{process_id_in, record_in};
use super::{ReadError, damaged};
use crate::domain::{Digest, OriginatorFilter, ProcessId, ProcessListFilter, ProcessStatusFilter, TimeRange};
use crate::log::sqlite::record_columns::ms;
use crate::port::{Answer, ProcessPage};

pub(super) fn page(
    connection: &Connection,
    filter: &ProcessListFilter,
    after: Option<&ProcessId>,
    limit: u32,
) -> Result<Answer, ReadError> {
    let limit = limit.clamp(1, ProcessPage::MAX_LIMIT) as usize;
    let statement = Statement::of(filter, after, limit + 1)?;
    let mut select = connection.prepare_cached(&statement.sql)?;
    let mut rows = select.query(params_from_iter(statement.values))?;
    let mut page = ProcessPage { records: Vec::new(), has_more: false };
    while let Some(row) = rows.next()? {
        if page.records.len() == limit {
            page.has_more = true;
            break;
        }
        let process_id = process_id_in(row, 0)?;
        let record = record_in(&process_id, row, 1)?;
        if !filter.matches(&record) {
            return Err(damaged(&process_id, 0, "the columns by which it is listed are not those of its record"));
        }
        page.records.push(Arc::new(record));
    }
    Ok(Answer::Processes(page))
}

/// The index that a page walks along: the one that is expected to hold the fewest rows that are not shown. What runs is
/// few where hosts keep what has ended, so that it goes before kinds and originators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Driver {
    Tag,
    Label,
    Definition,
    Waiting,
    Running,
    Kind,
    Originator,
    Status,
    Id,
}

impl Driver {
    fn of(filter: &ProcessListFilter) -> Self {
        if !filter.tags.is_empty() {
            Self::Tag
        } else if filter.label.is_some() {
            Self::Label
        } else if filter.definition.is_some() {
            Self::Definition
        } else if filter.waiting == Some(true) {
            Self::Waiting
        } else if filter.status == ProcessStatusFilter::Running {
            Self::Running
        } else if filter.kind.is_some() {
            Self::Kind
        } else if filter.originator.is_some() {
            Self::Originator
        } else if filter.status.label().is_some() {
            Self::Status
        } else {
            Self::Id
        }
    }

    const fn tables(self) -> &'static str {
        match self {
            Self::Tag => "process_tags t CROSS JOIN processes p ON p.process_no = t.process_no",
            Self::Label => "processes p INDEXED BY processes_by_label",
            Self::Definition => "processes p INDEXED BY processes_by_definition",
            Self::Waiting => "processes p INDEXED BY processes_waiting",
            Self::Running | Self::Status => "processes p INDEXED BY processes_by_status",
            Self::Kind => "processes p INDEXED BY processes_by_kind",
            Self::Originator => "processes p INDEXED BY processes_by_originator",
            Self::Id => "processes p INDEXED BY sqlite_autoindex_processes_1",
        }
    }

    const fn id(self) -> &'static str {
        match self {
            Self::Tag => "t.process_id",
            Self::Label
            | Self::Definition
            | Self::Waiting
            | Self::Running
            | Self::Kind
            | Self::Originator
            | Self::Status
            | Self::Id => "p.process_id",
        }
    }
}

struct Statement {
    sql: String,
    values: Vec<Value>,
}

impl Statement {
    fn of(filter: &ProcessListFilter, after: Option<&ProcessId>, rows: usize) -> Result<Self, ReadError> {
        let driver = Driver::of(filter);
        let id = driver.id();
        let mut statement = Self {
            sql: format!(
                "SELECT p.process_id, p.status, p.codec, p.body, p.checksum, h.updated_at_ms
                 FROM {} CROSS JOIN heads h ON h.process_no = p.process_no WHERE {id} > ?",
                driver.tables()
            ),
            values: vec![text(after.map_or("", ProcessId::as_str))],
        };
        let mut tags = filter.tags.iter();
        if let Some(tag) = tags.next() {
            statement.and("t.tag = ?", text(tag));
        }
        for tag in tags {
            statement.and(
                "EXISTS (SELECT 1 FROM process_tags o WHERE o.tag = ? AND o.process_id = t.process_id)",
                text(tag),
            );
        }
        if let Some(status) = filter.status.label() {
            statement.and("p.status = ?", text(status));
        }
        if let Some(kind) = &filter.kind {
            statement.and("p.kind = ?", text(kind));
        }
        if let Some(label) = &filter.label {
            statement.and("p.label = ?", text(label));
        }
        if let Some(definition) = &filter.definition {
            let digest = Digest::of_json(definition).map_err(|error| super::unreadable(error.to_string()))?;
            statement.and("p.definition = ?", Value::Blob(digest.as_bytes().to_vec()));
        }
        match &filter.originator {
            None => {}
            Some(OriginatorFilter::Host) => statement.sql.push_str(" AND p.originator_session IS NULL"),
            Some(OriginatorFilter::Session(scope)) => {
                statement.and("p.originator_session = ?", text(scope.session_id()));
                if let Some(frame) = scope.agent_frame_id() {
                    statement.and("p.originator_frame = ?", text(frame));
                }
            }
        }
        match filter.waiting {
            None => {}
            // Literals: a partial index is not found through a parameter.
            Some(true) => statement.sql.push_str(" AND p.waiting = 1"),
            Some(false) => statement.sql.push_str(" AND p.waiting = 0"),
        }
        statement.within("p.created_at_ms", filter.created);
        statement.within("h.updated_at_ms", filter.updated);
        statement.sql.push_str(" ORDER BY ");
        statement.sql.push_str(id);
        statement.sql.push_str(" LIMIT ?");
        statement.values.push(Value::Integer(i64::try_from(rows).unwrap_or(i64::MAX)));
        Ok(statement)
    }

    fn and(&mut self, condition: &str, value: Value) {
        self.sql.push_str(" AND ");
        self.sql.push_str(condition);
        self.values.push(value);
    }

    fn within(&mut self, column: &str, range: TimeRange) {
        if let Some(from_ms) = range.from_ms {
            self.and(&format!("{column} >= ?"), Value::Integer(ms(from_ms)));
        }
        if let Some(until_ms) = range.until_ms {
            self.and(&format!("{column} < ?"), Value::Integer(ms(until_ms)));
        }
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::SessionScope;
    use crate::log::sqlite::schema;

    /// How SQLite goes about a page, a step a line.
    fn plan(filter: &ProcessListFilter) -> String {
        let mut connection = Connection::open_in_memory().expect("a database");
        schema::make_tables(&mut connection).expect("the tables");
        let after = ProcessId::new("p").expect("an id");
        let Ok(statement) = Statement::of(filter, Some(&after), 10) else { panic!("no statement") };
        let mut explain =
            connection.prepare(&format!("EXPLAIN QUERY PLAN {}", statement.sql)).expect("a statement that compiles");
        let steps = explain
            .query_map(params_from_iter(statement.values), |row| row.get::<_, String>(3))
            .expect("a plan")
            .collect::<Result<Vec<_>, _>>()
            .expect("its steps");
        steps.join("\n")
    }

    #[test]
    fn a_page_walks_along_one_index_in_the_order_of_ids() {
        let any = ProcessListFilter::any;
        let session = SessionScope::frame("s", "f");
        let tags = ["a".to_owned(), "b".to_owned()];
        let cases = [
            (any(), "sqlite_autoindex_processes_1 (process_id>?)"),
            (ProcessListFilter::default(), "processes_by_status (status=? AND process_id>?)"),
            (
                ProcessListFilter::of_status(ProcessStatusFilter::Failed),
                "processes_by_status (status=? AND process_id>?)",
            ),
            (ProcessListFilter { kind: Some("k".into()), ..any() }, "processes_by_kind (kind=? AND process_id>?)"),
            (ProcessListFilter { label: Some("l".into()), ..any() }, "processes_by_label (label=? AND process_id>?)"),
            (
                ProcessListFilter { definition: Some(serde_json::json!({"a": 1})), ..any() },
                "processes_by_definition (definition=? AND process_id>?)",
            ),
            (
                ProcessListFilter { originator: Some(OriginatorFilter::Session(session)), ..any() },
                "processes_by_originator (originator_session=? AND process_id>?)",
            ),
            (
                ProcessListFilter { originator: Some(OriginatorFilter::Host), ..any() },
                "processes_by_originator (originator_session=? AND process_id>?)",
            ),
            (ProcessListFilter { waiting: Some(true), ..any() }, "processes_waiting (process_id>?)"),
            (ProcessListFilter { tags: tags.into(), ..any() }, "PRIMARY KEY (tag=? AND process_id>?)"),
        ];
        for (filter, walked) in cases {
            // Ranges of time are conditions on the row, whatever drives the walk.
            let range = TimeRange { from_ms: Some(1), until_ms: Some(2) };
            let narrowed = ProcessListFilter {
                created: range,
                updated: range,
                waiting: filter.waiting.or(Some(false)),
                ..filter.clone()
            };
            for filter in [filter, narrowed] {
                let plan = plan(&filter);
                let first = plan.lines().next().unwrap_or_default();
                assert!(first.contains(walked), "{filter:?}\n{plan}");
                assert!(!plan.contains("B-TREE") && !plan.contains("SCAN"), "{filter:?}\n{plan}");
            }
        }
    }
}
