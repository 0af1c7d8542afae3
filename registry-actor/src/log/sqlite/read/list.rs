//! Lists: a walk along one index in the order of ids, chosen by the filter. What the index does not answer is asked of the
//! narrow row; a body is read of what is returned, and of nothing else.

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::super::listing::definition_digest;
use super::{ReadError, process_id_in, record_in};
use crate::domain::{OriginatorFilter, ProcessId, ProcessListFilter};
use crate::port::ProcessPage;

use std::sync::Arc;

/// A statement in the making.
struct Listing {
    from: &'static str,
    /// The column by whose order the walk goes.
    id: &'static str,
    conditions: Vec<String>,
    values: Vec<Value>,
}

impl Listing {
    fn bind(&mut self, value: impl Into<Value>) -> String {
        self.values.push(value.into());
        format!("?{}", self.values.len())
    }

    fn require(&mut self, column: &str, comparison: &str, value: impl Into<Value>) {
        let value = self.bind(value);
        self.conditions.push(format!("{column} {comparison} {value}"));
    }
}

/// What leads the walk, the most telling first.
fn driver(filter: &ProcessListFilter) -> (&'static str, &'static str) {
    if !filter.tags.is_empty() {
        return ("process_tags t CROSS JOIN listings l ON l.process_no = t.process_no", "t.process_id");
    }
    let index = if filter.label.is_some() {
        "listings l INDEXED BY listings_by_label"
    } else if filter.definition.is_some() {
        "listings l INDEXED BY listings_by_definition"
    } else if matches!(filter.originator, Some(OriginatorFilter::Session(_))) {
        "listings l INDEXED BY listings_by_originator"
    } else if filter.waiting == Some(true) {
        "listings l INDEXED BY listings_waiting"
    } else if filter.kind.is_some() {
        "listings l INDEXED BY listings_by_kind"
    } else if filter.status.label().is_some() {
        "listings l INDEXED BY listings_by_status"
    } else {
        return ("processes i CROSS JOIN listings l ON l.process_no = i.process_no", "i.process_id");
    };
    (index, "l.process_id")
}

fn listing(filter: &ProcessListFilter) -> Listing {
    let (from, id) = driver(filter);
    let mut listing = Listing { from, id, conditions: Vec::new(), values: Vec::new() };
    let mut tags = filter.tags.iter();
    if let Some(leading) = tags.next() {
        listing.require("t.tag", "=", leading.clone());
    }
    for tag in tags {
        let tag = listing.bind(tag.clone());
        listing
            .conditions
            .push(format!("EXISTS (SELECT 1 FROM process_tags x WHERE x.tag = {tag} AND x.process_id = t.process_id)"));
    }
    if let Some(label) = &filter.label {
        listing.require("l.label", "=", label.clone());
    }
    if let Some(definition) = &filter.definition {
        listing.require("l.definition", "=", definition_digest(definition));
    }
    match &filter.originator {
        None => {}
        Some(OriginatorFilter::Host) => listing.conditions.push("l.originator_session IS NULL".to_owned()),
        Some(OriginatorFilter::Session(scope)) => {
            listing.require("l.originator_session", "=", scope.session_id().to_owned());
            if let Some(frame) = scope.agent_frame_id() {
                listing.require("l.originator_frame", "=", frame.to_owned());
            }
        }
    }
    match filter.waiting {
        None => {}
        // Written out, so that the index of what waits is known to answer it.
        Some(true) => listing.conditions.push("l.waiting = 1".to_owned()),
        Some(false) => listing.conditions.push("l.waiting = 0".to_owned()),
    }
    if let Some(kind) = &filter.kind {
        listing.require("l.kind", "=", kind.clone());
    }
    if let Some(status) = filter.status.label() {
        listing.require("l.status", "=", status.to_owned());
    }
    let instant = |at_ms: u64| i64::try_from(at_ms).unwrap_or(i64::MAX);
    for (column, range) in [("l.created_at_ms", filter.created), ("h.updated_at_ms", filter.updated)] {
        if let Some(from) = range.from_ms {
            listing.require(column, ">=", instant(from));
        }
        if let Some(until) = range.until_ms {
            listing.require(column, "<", instant(until));
        }
    }
    listing
}

/// The statement of a page, with what is bound to it: first the filter's values, then the id and the number of rows.
pub(super) fn statement(filter: &ProcessListFilter, after: Option<&ProcessId>, rows: usize) -> (String, Vec<Value>) {
    let mut listing = listing(filter);
    let (from, id) = (listing.from, listing.id);
    listing.require(id, ">", after.map_or("", ProcessId::as_str).to_owned());
    let conditions = listing.conditions.join(" AND ");
    let limit = listing.bind(i64::try_from(rows).unwrap_or(i64::MAX));
    let sql = format!(
        "SELECT p.process_id, p.status, p.codec, p.body, p.checksum, h.updated_at_ms
         FROM {from} CROSS JOIN heads h ON h.process_no = l.process_no
         CROSS JOIN processes p ON p.process_no = l.process_no
         WHERE {conditions} ORDER BY {id} LIMIT {limit}"
    );
    (sql, listing.values)
}

pub(super) fn page(
    connection: &Connection,
    filter: &ProcessListFilter,
    after: Option<&ProcessId>,
    limit: usize,
) -> Result<ProcessPage, ReadError> {
    let (sql, values) = statement(filter, after, limit + 1);
    let mut select = connection.prepare_cached(&sql)?;
    let mut rows = select.query(params_from_iter(values))?;
    let mut page = ProcessPage { records: Vec::new(), has_more: false };
    while let Some(row) = rows.next()? {
        if page.records.len() == limit {
            page.has_more = true;
            break;
        }
        let process_id = process_id_in(row, 0)?;
        page.records.push(Arc::new(record_in(&process_id, row, 1)?));
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ProcessStatusFilter, SessionScope, TimeRange};
    use crate::log::sqlite::schema;

    /// How SQLite answers a list: it must walk one index in the order of ids, and sort nothing.
    fn plan(filter: &ProcessListFilter) -> String {
        let mut connection = Connection::open_in_memory().expect("a database");
        schema::make_tables(&mut connection).expect("the tables");
        let (sql, values) = statement(filter, None, 100);
        let mut explain = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("a statement");
        let steps = explain.query_map(params_from_iter(values), |row| row.get::<_, String>(3)).expect("a plan");
        steps.collect::<Result<Vec<_>, _>>().expect("its steps").join("\n")
    }

    #[test]
    fn every_list_walks_along_an_index_and_sorts_nothing() {
        let any = ProcessListFilter::any;
        let range = TimeRange { from_ms: Some(1), until_ms: Some(2) };
        let scope = SessionScope::frame("s", "f");
        for (filter, index) in [
            (any(), "SEARCH i USING COVERING INDEX sqlite_autoindex_processes_1 (process_id>?)"),
            (
                ProcessListFilter::of_status(ProcessStatusFilter::Running),
                "listings_by_status (status=? AND process_id>?)",
            ),
            (ProcessListFilter { kind: Some("k".into()), ..any() }, "listings_by_kind (kind=? AND process_id>?)"),
            (ProcessListFilter { label: Some("l".into()), ..any() }, "listings_by_label (label=? AND process_id>?)"),
            (
                ProcessListFilter { definition: Some(serde_json::json!(1)), ..any() },
                "listings_by_definition (definition=? AND process_id>?)",
            ),
            (
                ProcessListFilter { originator: Some(OriginatorFilter::Session(scope)), ..any() },
                "listings_by_originator (originator_session=? AND process_id>?)",
            ),
            (ProcessListFilter { waiting: Some(true), ..any() }, "listings_waiting (process_id>?)"),
            (
                ProcessListFilter { tags: ["a".to_owned(), "b".to_owned()].into(), ..ProcessListFilter::default() },
                "SEARCH t USING PRIMARY KEY (tag=? AND process_id>?)",
            ),
            (
                ProcessListFilter { created: range, updated: range, ..any() },
                "SEARCH i USING COVERING INDEX sqlite_autoindex_processes_1 (process_id>?)",
            ),
        ] {
            let plan = plan(&filter);
            assert!(plan.lines().next().is_some_and(|first| first.contains(index)), "{filter:?}:\n{plan}");
            assert!(!plan.contains("SCAN") && !plan.contains("TEMP B-TREE"), "{filter:?}:\n{plan}");
        }
    }
}
