//! Pruning: what ended long ago goes, and a tombstone of it stays.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::extract::State;
use jiff::Timestamp;
use registry_actor::{
    domain::{
        ChangeCursor, Limits, ProcessListFilter, ProcessPruneReport, ProcessTerminalState, ProjectionWatermark,
        PruneFilter, RegistryCommand, RegistryReceipt,
    },
    port::{ProcessPage, ProcessRegistry, ProcessRegistryExt},
    retention::{Retain, RetentionRule},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Api, change_routes::cursor, extract::Json, problem::Problem};
use crate::prune::{is_meant, policy_that_prunes};

/// How long one request goes on to begin transactions.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is pruned.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PruneRequest {
    /// Only processes that ended so long ago, in ms.
    older_than_ms: u64,
    /// Only processes that ended so; any by default.
    #[serde(default)]
    states: BTreeSet<EndedName>,
    /// Only processes of this kind.
    kind: Option<String>,
    /// Only processes that carry all of these tags.
    #[serde(default)]
    tags: BTreeSet<String>,
    /// Keep processes that carry any of these tags.
    #[serde(default)]
    keep_tags: BTreeSet<String>,
    /// Only what somebody who projects the change feed has seen: everything up to this cursor.
    #[schema(pattern = r"^v1\..+\.(0|[1-9][0-9]{0,18})\.(0|[1-9][0-9]{0,18})\.[0-9a-f]{16}$")]
    projected: Option<String>,
    /// Remove nothing, and say what would go if no lease kept it.
    #[serde(default)]
    dry_run: bool,
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum EndedName {
    /// Well.
    Completed,
    /// Badly.
    Failed,
    /// On request.
    Cancelled,
    /// Because its host died.
    Abandoned,
}

impl From<EndedName> for ProcessTerminalState {
    fn from(name: EndedName) -> Self {
        match name {
            EndedName::Completed => Self::Completed,
            EndedName::Failed => Self::Failed,
            EndedName::Cancelled => Self::Cancelled,
            EndedName::Abandoned => Self::Abandoned,
        }
    }
}

/// What came of it.
#[derive(Default, Serialize, ToSchema)]
pub(super) struct PruneView {
    /// Whether nothing was removed, and these are what would go.
    dry_run: bool,
    /// Processes that are gone.
    pruned_processes: u64,
    /// Their events; 0 in a dry run.
    pruned_events: u64,
    /// Processes that stayed because somebody holds them.
    kept_leased: u64,
    /// Processes that stayed because their last change is not projected yet.
    kept_unprojected: u64,
    /// Processes that stayed because what is stored of them is damaged.
    kept_damaged: u64,
    /// Whether there was not enough time for all: ask again.
    more: bool,
}

/// Remove processes that ended long ago
///
/// A tombstone of each stays. One request works for ten seconds; `more` says whether to ask again.
#[utoipa::path(
    post, path = "/prune", tag = "store", operation_id = "prune", request_body = PruneRequest,
    responses((status = 200, body = PruneView))
)]
pub(super) async fn prune(
    State(api): State<Arc<Api>>,
    Json(request): Json<PruneRequest>,
) -> Result<Json<PruneView>, Problem> {
    let mut rule = RetentionRule::of_all(Retain::ForMs(request.older_than_ms))
        .ended(request.states.into_iter().map(ProcessTerminalState::from));
    rule.kind = request.kind;
    rule.tags = request.tags;
    let keep_tags: Vec<_> = request.keep_tags.into_iter().collect();
    let policy = policy_that_prunes(rule, &keep_tags).map_err(|error| Problem::invalid(error.to_string()))?;
    let projected = request.projected.as_deref().map(cursor).transpose()?;
    let filters = policy.filters(u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0));
    let until = Instant::now() + PATIENCE;
    let view = if request.dry_run {
        count(&api.host.registry, &filters, until).await?
    } else {
        remove(&api.host.registry, filters, projected, until).await?
    };
    Ok(Json(view))
}

/// Command after command, each one bounded transaction.
async fn remove(
    registry: &dyn ProcessRegistry,
    filters: Vec<PruneFilter>,
    projected: Option<ChangeCursor>,
    until: Instant,
) -> Result<PruneView, Problem> {
    let watermark = projected.map_or(ProjectionWatermark::NoProjector, ProjectionWatermark::UpTo);
    let mut view = PruneView::default();
    for filter in filters {
        loop {
            if Instant::now() >= until {
                view.more = true;
                return Ok(view);
            }
            let command = RegistryCommand::Prune {
                filter: filter.clone(),
                watermark: watermark.clone(),
                limit: Limits::PRUNED_PER_COMMAND,
            };
            let RegistryReceipt::Pruned(report) = registry.execute_across(command).await? else {
                return Err(Problem::internal("the registry answered something else than a prune"));
            };
            view.pruned_processes += report.pruned_processes;
            view.pruned_events += report.pruned_events;
            if !report.more || report.pruned_processes == 0 {
                view.keep(&report);
                break;
            }
        }
    }
    Ok(view)
}

impl PruneView {
    /// What stays is met again by every command: that of the last one counts.
    fn keep(&mut self, report: &ProcessPruneReport) {
        self.kept_leased += report.kept_leased;
        self.kept_unprojected += report.kept_unprojected;
        self.kept_damaged += report.kept_damaged;
    }
}

/// Walks the records and counts those that a filter means.
async fn count(registry: &dyn ProcessRegistry, filters: &[PruneFilter], until: Instant) -> Result<PruneView, Problem> {
    let (mut view, mut after) = (PruneView { dry_run: true, ..PruneView::default() }, None);
    loop {
        let page = registry.list_page(ProcessListFilter::any(), after, ProcessPage::MAX_LIMIT).await?;
        let meant = page.records.iter().filter(|record| filters.iter().any(|filter| is_meant(filter, record)));
        view.pruned_processes += meant.count() as u64;
        after = page.records.last().map(|record| record.id().clone());
        view.more = page.has_more && after.is_some();
        if !view.more || Instant::now() >= until {
            return Ok(view);
        }
    }
}
