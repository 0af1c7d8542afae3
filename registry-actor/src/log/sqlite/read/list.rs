//! Lists: a page is a range of one index, in the order of ids or of registrations. What the index does not know is a condition
//! on the row, whose body is read only if the row is shown.

use std::sync::Arc;

use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};

use super::ReadError;
use super::process::{process_id_in, record_in};
use crate::domain::{
    Digest, OriginatorFilter, ProcessId, ProcessListFilter, ProcessRecord, ProcessStatusFilter, RegistrationCursor,
    TimeRange,
};
use crate::log::sqlite::record_columns::ms;
use crate::port::{Answer, LogError, ProcessPage, RecentProcessPage};

pub(super) fn page(
    connection: &Connection,
    filter: &ProcessListFilter,
    after: Option<&ProcessId>,
    limit: u32,
) -> Result<Answer, ReadError> {
    let limit = limit.clamp(1, ProcessPage::MAX_LIMIT) as usize;
    let statement = Statement::by_id(filter, after)?;
    let mut select = connection.prepare_cached(&statement.sql)?;
    let mut rows = select.query(params_from_iter(statement.values))?;
    let mut page = ProcessPage { records: Vec::new(), damaged: Vec::new(), has_more: false };
    while let Some(row) = rows.next()? {
        if page.records.len() == limit {
            page.has_more = true;
            break;
        }
        match listed(filter, row)? {
            Listed::Record(record) => page.records.push(record),
            Listed::Damaged(process_id) => page.damaged.extend(process_id),
        }
    }
    Ok(Answer::Processes(page))
}

pub(super) fn recent(
    connection: &Connection,
    filter: &ProcessListFilter,
    before: Option<RegistrationCursor>,
    limit: u32,
) -> Result<Answer, ReadError> {
    let limit = limit.clamp(1, ProcessPage::MAX_LIMIT) as usize;
    let statement = Statement::newest_first(filter, before)?;
    let mut select = connection.prepare_cached(&statement.sql)?;
    let mut rows = select.query(params_from_iter(statement.values))?;
    let mut page = RecentProcessPage { records: Vec::new(), damaged: Vec::new(), next: None };
    let mut last = None;
    while let Some(row) = rows.next()? {
        if page.records.len() == limit {
            page.next = last;
            break;
        }
        match listed(filter, row)? {
            Listed::Record(record) => {
                page.records.push(record);
                last = Some(RegistrationCursor::new(row.get::<_, i64>(6)?.cast_unsigned()));
            }
            Listed::Damaged(process_id) => page.damaged.extend(process_id),
        }
    }
    Ok(Answer::RecentProcesses(page))
}

/// What a row shows.
enum Listed {
    Record(Arc<ProcessRecord>),
    /// It is damaged. Without an id if that is damaged too.
    Damaged(Option<ProcessId>),
}

/// What a row shows: its record has to be one that the filter shows. One that is damaged hides no other.
fn listed(filter: &ProcessListFilter, row: &Row<'_>) -> Result<Listed, ReadError> {
    let Ok(process_id) = process_id_in(row, 0) else {
        tracing::error!("the store holds a process under an impossible id");
        return Ok(Listed::Damaged(None));
    };
    let what = match record_in(&process_id, row, 1) {
        Ok(record) if filter.matches(&record) => return Ok(Listed::Record(Arc::new(record))),
        Ok(_) => "the columns by which it is listed are not those of its record".to_owned(),
        Err(ReadError::Found(LogError::Damaged { what, .. })) => what,
        Err(error) => return Err(error),
    };
    tracing::error!(%process_id, what, "a process is damaged and is not listed");
    Ok(Listed::Damaged(Some(process_id)))
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

/// The index that a page walks backwards along, where it begins at the newest process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RecentDriver {
    Tag,
    Label,
    Status,
    All,
}

impl RecentDriver {
    fn of(filter: &ProcessListFilter) -> Self {
        if !filter.tags.is_empty() {
            Self::Tag
        } else if filter.label.is_some() {
            Self::Label
        } else if filter.status.label().is_some() {
            Self::Status
        } else {
            Self::All
        }
    }

    const fn tables(self) -> &'static str {
        match self {
            Self::Tag => {
                "process_tags t INDEXED BY process_tags_recent
                 CROSS JOIN processes p ON p.process_no = t.process_no"
            }
            Self::Label => "processes p INDEXED BY processes_recent_by_label",
            Self::Status => "processes p INDEXED BY processes_recent_by_status",
            Self::All => "processes p NOT INDEXED",
        }
    }

    const fn number(self) -> &'static str {
        match self {
            Self::Tag => "t.process_no",
            Self::Label | Self::Status | Self::All => "p.process_no",
        }
    }
}

struct Statement {
    sql: String,
    values: Vec<Value>,
}

impl Statement {
    fn by_id(filter: &ProcessListFilter, after: Option<&ProcessId>) -> Result<Self, ReadError> {
        let driver = Driver::of(filter);
        let id = driver.id();
        let after = text(after.map_or("", ProcessId::as_str));
        let mut statement = Self::along(driver.tables(), &format!("{id} > ?"), after);
        statement.narrow(filter)?;
        statement.order_by(id);
        Ok(statement)
    }

    fn newest_first(filter: &ProcessListFilter, before: Option<RegistrationCursor>) -> Result<Self, ReadError> {
        let driver = RecentDriver::of(filter);
        let number = driver.number();
        let before = before.map_or(i64::MAX, |before| i64::try_from(before.place()).unwrap_or(i64::MAX));
        let mut statement = Self::along(driver.tables(), &format!("{number} < ?"), Value::Integer(before));
        statement.narrow(filter)?;
        statement.order_by(&format!("{number} DESC"));
        Ok(statement)
    }

    /// All that stands in the tables beyond a place.
    fn along(tables: &str, beyond: &str, place: Value) -> Self {
        let sql = format!(
            "SELECT p.process_id, p.status, p.codec, p.body, p.checksum, h.updated_at_ms, p.process_no
             FROM {tables} CROSS JOIN heads h ON h.process_no = p.process_no WHERE {beyond}"
        );
        Self { sql, values: vec![place] }
    }

    /// Leaves out what the filter does not show.
    fn narrow(&mut self, filter: &ProcessListFilter) -> Result<(), ReadError> {
        let mut tags = filter.tags.iter();
        if let Some(tag) = tags.next() {
            self.and("t.tag = ?", text(tag));
        }
        for tag in tags {
            self.and(
                "EXISTS (SELECT 1 FROM process_tags o WHERE o.tag = ? AND o.process_id = t.process_id)",
                text(tag),
            );
        }
        if let Some(status) = filter.status.label() {
            self.and("p.status = ?", text(status));
        }
        if let Some(kind) = &filter.kind {
            self.and("p.kind = ?", text(kind));
        }
        if let Some(label) = &filter.label {
            self.and("p.label = ?", text(label));
        }
        if let Some(definition) = &filter.definition {
            let digest = Digest::of_json(definition).map_err(|error| super::unreadable(error.to_string()))?;
            self.and("p.definition = ?", Value::Blob(digest.as_bytes().to_vec()));
        }
        match &filter.originator {
            None => {}
            Some(OriginatorFilter::Host) => self.sql.push_str(" AND p.originator_session IS NULL"),
            Some(OriginatorFilter::Session(scope)) => {
                self.and("p.originator_session = ?", text(scope.session_id()));
                if let Some(frame) = scope.agent_frame_id() {
                    self.and("p.originator_frame = ?", text(frame));
                }
            }
        }
        match filter.waiting {
            None => {}
            // Literals: a partial index is not found through a parameter.
            Some(true) => self.sql.push_str(" AND p.waiting = 1"),
            Some(false) => self.sql.push_str(" AND p.waiting = 0"),
        }
        self.within("p.created_at_ms", filter.created);
        self.within("h.updated_at_ms", filter.updated);
        Ok(())
    }

    /// Along the index, so that the rows come one by one and no further than they are asked for.
    fn order_by(&mut self, order: &str) {
        self.sql.push_str(" ORDER BY ");
        self.sql.push_str(order);
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
    fn plan(statement: Result<Statement, ReadError>) -> String {
        let mut connection = Connection::open_in_memory().expect("a database");
        schema::make_tables(&mut connection).expect("the tables");
        let Ok(statement) = statement else { panic!("no statement") };
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
            for filter in narrowed(filter) {
                let after = ProcessId::new("p").expect("an id");
                assert_walks_along(&plan(Statement::by_id(&filter, Some(&after))), walked, &filter);
            }
        }
    }

    #[test]
    fn a_page_of_the_newest_walks_along_one_index_in_the_order_of_registrations() {
        let any = ProcessListFilter::any;
        let tags = ["a".to_owned(), "b".to_owned()];
        let all = "p USING INTEGER PRIMARY KEY (rowid<?)";
        let cases = [
            (any(), all),
            (ProcessListFilter::default(), "processes_recent_by_status (status=? AND process_no<?)"),
            (
                ProcessListFilter::of_status(ProcessStatusFilter::Failed),
                "processes_recent_by_status (status=? AND process_no<?)",
            ),
            (
                ProcessListFilter { label: Some("l".into()), ..any() },
                "processes_recent_by_label (label=? AND process_no<?)",
            ),
            (ProcessListFilter { tags: tags.into(), ..any() }, "process_tags_recent (tag=? AND process_no<?)"),
            (ProcessListFilter { kind: Some("k".into()), ..any() }, all),
            (ProcessListFilter { waiting: Some(true), ..any() }, all),
            (ProcessListFilter { originator: Some(OriginatorFilter::Host), ..any() }, all),
        ];
        for (filter, walked) in cases {
            for filter in narrowed(filter) {
                let before = RegistrationCursor::new(7);
                assert_walks_along(&plan(Statement::newest_first(&filter, Some(before))), walked, &filter);
            }
        }
    }

    /// The filter, and the same with ranges of time: conditions on the row, whatever drives the walk.
    fn narrowed(filter: ProcessListFilter) -> [ProcessListFilter; 2] {
        let range = TimeRange { from_ms: Some(1), until_ms: Some(2) };
        let waiting = filter.waiting.or(Some(false));
        let narrowed = ProcessListFilter { created: range, updated: range, waiting, ..filter.clone() };
        [filter, narrowed]
    }

    fn assert_walks_along(plan: &str, walked: &str, filter: &ProcessListFilter) {
        let first = plan.lines().next().unwrap_or_default();
        assert!(first.contains(walked), "{filter:?}\n{plan}");
        assert!(!plan.contains("B-TREE") && !plan.contains("SCAN"), "{filter:?}\n{plan}");
    }
}
