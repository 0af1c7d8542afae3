//! Verification: whether what is stored is what was stored.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::extract::State;
use registry_actor::{
    domain::ProcessId,
    port::{ProcessVerification, RegistryError},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Api,
    extract::{Json, place_by_id, process_id},
    problem::{PROBLEM_JSON, Problem},
};

/// How long one request goes on to begin with further processes.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many ids are read at a time.
const PAGE_IDS: u32 = 500;

/// How many faults one answer names.
const FAULTS: usize = 1_000;

/// What is verified.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct VerifyRequest {
    /// The process; by default all.
    #[schema(min_length = 1, max_length = 512)]
    process_id: Option<String>,
    /// What the answer before gave as `next_after`, to go on there.
    #[schema(min_length = 1, max_length = 512)]
    after: Option<String>,
}

/// What was found.
#[derive(Default, Serialize, ToSchema)]
pub(super) struct VerifyView {
    /// Processes that were checked.
    processes: u64,
    /// Their events, the registrations included.
    events: u64,
    /// What is damaged; empty if nothing is.
    faults: Vec<FaultView>,
    /// What to ask `after` to check the others; absent after the last one.
    next_after: Option<String>,
}

/// A damage.
#[derive(Serialize, ToSchema)]
struct FaultView {
    /// The process; absent if it is of what belongs to none.
    #[serde(skip_serializing_if = "Option::is_none")]
    process_id: Option<String>,
    /// Where in its log.
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    /// What it is.
    what: String,
}

/// Check what is stored
///
/// Links, numbers, checksums, and that the events give the record. One request works for ten seconds, and answers 200 whatever it finds.
/// The structure of the file itself is checked by `proctor verify` beside the host, and by a backup.
#[utoipa::path(
    post, path = "/verify", tag = "store", operation_id = "verify", request_body = VerifyRequest,
    responses(
        (status = 200, body = VerifyView),
        (status = 404, description = "The process is not known", body = Problem, content_type = PROBLEM_JSON),
    )
)]
pub(super) async fn verify(
    State(api): State<Arc<Api>>,
    Json(request): Json<VerifyRequest>,
) -> Result<Json<VerifyView>, Problem> {
    let log = api.host.registry.log();
    let mut view = VerifyView::default();
    let mut after = request.after.as_deref().map(place_by_id).transpose()?;
    if let Some(id) = &request.process_id {
        if after.is_some() {
            return Err(Problem::invalid("expected either `process_id` or `after`, found both"));
        }
        let id = process_id(id)?;
        view.add(log.verify(&id).await.map_err(RegistryError::from)?);
        return Ok(Json(view));
    }
    if after.is_none() {
        let faults = api.host.verify_marks().await.map_err(RegistryError::from)?;
        view.faults.extend(faults.map(|what| FaultView { process_id: None, sequence: None, what }));
    }
    let until = Instant::now() + PATIENCE;
    loop {
        let ids: Vec<ProcessId> = log.process_ids(after, PAGE_IDS).await.map_err(RegistryError::from)?;
        let Some(last) = ids.last() else { return Ok(Json(view)) };
        for id in &ids {
            match log.verify(id).await.map_err(RegistryError::from) {
                Ok(verification) => view.add(verification),
                // It was pruned meanwhile.
                Err(RegistryError::Refused(_)) => {}
                Err(error) => return Err(error.into()),
            }
            if Instant::now() >= until || view.faults.len() >= FAULTS {
                view.next_after = Some(id.to_string());
                return Ok(Json(view));
            }
        }
        after = Some(last.clone());
    }
}

impl VerifyView {
    fn add(&mut self, verification: ProcessVerification) {
        self.processes += 1;
        self.events += verification.events;
        let process_id = verification.process_id.to_string();
        self.faults.extend(verification.faults.into_iter().map(|fault| FaultView {
            process_id: Some(process_id.clone()),
            sequence: Some(fault.sequence.0),
            what: fault.what,
        }));
    }
}
