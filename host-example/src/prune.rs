//! `proctor prune`: removes processes that ended long ago.
//!
//! It owns the words for a policy on the command line, and the walk over stores. What a policy means, the registry knows.

use std::{collections::BTreeSet, path::Path, process::ExitCode, time::Duration};

use clap::{ArgAction, Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget};
use jiff::{Span, SpanRelativeTo, Timestamp};
use registry_actor::{
    domain::{
        ChangeCursor, Limits, ProcessListFilter, ProcessPruneReport, ProcessRecord, ProcessTerminalState,
        ProjectionWatermark, PruneFilter, RegistryCommand, RegistryReceipt,
    },
    port::ProcessRegistry,
    retention::{InvalidRetentionPolicy, Retain, RetentionPolicy, RetentionRule},
};
use serde_json::{Value, json};

use crate::{
    client::{HostClient, HostError},
    failure::{Failure, FailureKind},
    host::Host,
    interrupt::Interrupts,
    notice::say,
    serve::config::beside,
    sheet::Sheet,
    store::{OwnedStore, StoreReader},
    store_choice::StoreChoice,
};

/// The records that are looked at, at a time, by a dry run.
const PAGE_RECORDS: u32 = 500;

/// Removes processes that ended long ago, and leaves a tombstone of each.
#[derive(Args, Debug)]
pub(crate) struct PruneArgs {
    #[command(flatten)]
    stores: StoreChoice,
    /// Only processes that ended so long ago: `30d`, `12h`, `1w 2d`.
    #[arg(long, value_name = "DURATION", value_parser = age)]
    older_than: Duration,
    /// Only processes that ended so; may be given several times, and then any of them counts.
    #[arg(long, value_enum, action = ArgAction::Append)]
    status: Vec<Ended>,
    /// Only processes of this kind.
    #[arg(long)]
    kind: Option<String>,
    /// Only processes that carry this tag; may be given several times, and then all of them count.
    #[arg(long, value_name = "TAG", action = ArgAction::Append)]
    tag: Vec<String>,
    /// Keep processes that carry this tag; may be given several times, and then any of them keeps.
    #[arg(long, value_name = "TAG", action = ArgAction::Append)]
    keep_tag: Vec<String>,
    /// Only what somebody who projects the change feed has seen: everything up to this cursor.
    #[arg(long, value_name = "CURSOR")]
    projected: Option<ChangeCursor>,
    /// Remove nothing, and say what would go if no lease kept it; beside a live host too.
    #[arg(long)]
    dry_run: bool,
    /// Print what came of it as one JSON object a line, for each store.
    #[arg(long)]
    json: bool,
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Ended {
    /// Well.
    Completed,
    /// Badly.
    Failed,
    /// On request.
    Cancelled,
    /// Because its host died.
    Abandoned,
}

impl From<Ended> for ProcessTerminalState {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Completed => Self::Completed,
            Ended::Failed => Self::Failed,
            Ended::Cancelled => Self::Cancelled,
            Ended::Abandoned => Self::Abandoned,
        }
    }
}

/// A span of days and hours; a day has 24 of them.
fn age(text: &str) -> Result<Duration, String> {
    let span: Span = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    let exact = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|error| error.to_string())?;
    Duration::try_from(exact).map_err(|_| "it must not be negative".to_owned())
}

/// Runs the verb. Ctrl-C ends it between two transactions.
///
/// # Errors
/// When a store cannot be read or written, or another host owns it.
pub(crate) async fn run(args: PruneArgs) -> Result<ExitCode, Failure> {
    let filters = policy(&args)?.filters(u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0));
    let interrupts = Interrupts::listen()
        .map_err(|error| Failure::new(FailureKind::System, format!("signals cannot be handled: {error}")))?;
    let watermark = args.projected.clone().map_or(ProjectionWatermark::NoProjector, ProjectionWatermark::UpTo);
    let mut held = None;
    let mut sheet = Sheet::new();
    for path in args.stores.paths()? {
        if args.dry_run {
            let processes = dry_run(&path, &filters).await?;
            if args.json {
                sheet.line(json!({"store": path.to_string_lossy(), "dry_run": true, "pruned_processes": processes}))?;
                sheet.flush()?;
            }
            say(format_args!("{}: {processes} processes would be pruned", path.display()));
            continue;
        }
        if let Some(host) = HostClient::at_socket(&beside(&path, "sock"))?
            && let Some(report) = pruned_by_host(&host, &args, &interrupts).await?
        {
            told(&path, &report, args.json, &mut sheet)?;
            continue;
        }
        let store = match OwnedStore::take_to_prune(&path).map_err(Failure::from) {
            Ok(store) => store,
            // One that is in use must not keep the others from being pruned.
            Err(failure) if failure.kind() == FailureKind::Temporary => {
                held = Some(match held {
                    None => failure,
                    Some(earlier) => {
                        say(earlier);
                        failure
                    }
                });
                continue;
            }
            Err(failure) => return Err(failure),
        };
        let host = Host::start(store, "prune").await?;
        let pruned = prune(&host, &filters, &watermark, &interrupts).await;
        host.shut_down().await;
        told(&path, &pruned.map_err(|failure| failure.in_store(&path))?, args.json, &mut sheet)?;
        if let Some(signal) = interrupts.asked() {
            return Ok(ExitCode::from(signal.exit_code()));
        }
    }
    held.map_or(Ok(ExitCode::SUCCESS), Err)
}

fn policy(args: &PruneArgs) -> Result<RetentionPolicy, Failure> {
    let age_ms = u64::try_from(args.older_than.as_millis()).unwrap_or(u64::MAX);
    let mut pruned =
        RetentionRule::of_all(Retain::ForMs(age_ms)).ended(args.status.iter().copied().map(ProcessTerminalState::from));
    pruned.kind.clone_from(&args.kind);
    pruned.tags.extend(args.tag.iter().cloned());
    policy_that_prunes(pruned, &args.keep_tag).map_err(|error| Failure::new(FailureKind::Usage, error.to_string()))
}

/// The policy that retains what carries one of the tags, and of the rest prunes what the rule says.
///
/// # Errors
/// What no process can carry.
pub(crate) fn policy_that_prunes(
    pruned: RetentionRule,
    keep_tags: &[String],
) -> Result<RetentionPolicy, InvalidRetentionPolicy> {
    let kept = keep_tags.iter().map(|tag| RetentionRule::of_all(Retain::Forever).tagged(tag));
    RetentionPolicy::new(kept.chain([pruned]))
}

/// The same by the host that owns the store; `None` if it does not know how.
async fn pruned_by_host(
    host: &HostClient,
    args: &PruneArgs,
    interrupts: &Interrupts,
) -> Result<Option<ProcessPruneReport>, Failure> {
    let request = prune_request(args);
    let mut total = ProcessPruneReport::default();
    loop {
        let report: ProcessPruneReport = match host.post(&["prune"], &request).await {
            Ok(posted) => posted.answer,
            // A host of an earlier version.
            Err(HostError::Problem { code, .. }) if code == "no_such_route" => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        total = ProcessPruneReport {
            pruned_processes: total.pruned_processes + report.pruned_processes,
            pruned_events: total.pruned_events + report.pruned_events,
            // What stays is met again by every request: that of the last one counts.
            ..report
        };
        if !report.more || report.pruned_processes == 0 || interrupts.asked().is_some() {
            return Ok(Some(total));
        }
    }
}

/// The request that means these options.
fn prune_request(args: &PruneArgs) -> Value {
    let states = args.status.iter().map(|ended| ProcessTerminalState::from(*ended).label());
    json!({
        "older_than_ms": u64::try_from(args.older_than.as_millis()).unwrap_or(u64::MAX),
        "states": states.collect::<BTreeSet<_>>(),
        "kind": args.kind,
        "tags": args.tag.iter().collect::<BTreeSet<_>>(),
        "keep_tags": args.keep_tag.iter().collect::<BTreeSet<_>>(),
        "projected": args.projected.as_ref().map(ToString::to_string),
        "dry_run": false,
    })
}

/// Command after command, each one bounded transaction.
async fn prune(
    host: &Host,
    filters: &[PruneFilter],
    watermark: &ProjectionWatermark,
    interrupts: &Interrupts,
) -> Result<ProcessPruneReport, Failure> {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let mut total = ProcessPruneReport::default();
    for filter in filters {
        loop {
            if interrupts.asked().is_some() {
                total.more = true;
                return Ok(total);
            }
            let command = RegistryCommand::Prune {
                filter: filter.clone(),
                watermark: watermark.clone(),
                limit: Limits::PRUNED_PER_COMMAND,
            };
            let report = match host.registry.execute_across(command).await? {
                RegistryReceipt::Pruned(report) => report,
                other => {
                    return Err(Failure::new(FailureKind::Software, format!("a prune was answered with {other:?}")));
                }
            };
            total.pruned_processes += report.pruned_processes;
            total.pruned_events += report.pruned_events;
            bar.set_position(total.pruned_processes);
            if !report.more || report.pruned_processes == 0 {
                // What stays is met again by every command: that of the last one counts.
                total.kept_leased += report.kept_leased;
                total.kept_unprojected += report.kept_unprojected;
                total.kept_damaged += report.kept_damaged;
                break;
            }
        }
    }
    bar.finish_and_clear();
    Ok(total)
}

fn told(path: &Path, report: &ProcessPruneReport, json: bool, sheet: &mut Sheet) -> Result<(), Failure> {
    if json {
        let mut shown = json!(report);
        shown["store"] = path.to_string_lossy().into();
        shown["dry_run"] = false.into();
        sheet.line(shown)?;
        sheet.flush()?;
    }
    let mut line = format!(
        "{}: {} processes with {} events pruned",
        path.display(),
        report.pruned_processes,
        report.pruned_events
    );
    for (count, why) in [
        (report.kept_leased, "kept under a lease"),
        (report.kept_unprojected, "kept because they are not projected"),
        (report.kept_damaged, "kept because they are damaged"),
    ] {
        if count > 0 {
            line.push_str(&format!(", {count} {why}"));
        }
    }
    if report.more {
        line.push_str(", more are left");
    }
    say(line);
    Ok(())
}

/// Walks the records and counts those that a filter means.
async fn dry_run(path: &Path, filters: &[PruneFilter]) -> Result<u64, Failure> {
    let store = StoreReader::open(path)?;
    let (mut processes, mut after) = (0_u64, None);
    loop {
        let page = store.processes(ProcessListFilter::any(), after, PAGE_RECORDS).await?;
        processes +=
            page.records.iter().filter(|record| filters.iter().any(|filter| is_meant(filter, record))).count() as u64;
        after = page.records.last().map(|record| record.id().clone());
        if !page.has_more || after.is_none() {
            break;
        }
    }
    Ok(processes)
}

/// Whether a filter means a process.
pub(crate) fn is_meant(filter: &PruneFilter, record: &ProcessRecord) -> bool {
    match (record.status.terminal_state(), record.terminal_at_ms) {
        (Some(state), Some(at_ms)) => at_ms < filter.terminal_before_ms && filter.means(state, &record.registration),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_asked_for_the_same() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            prune: PruneArgs,
        }
        let words = "prune --older-than 1h --status failed --status cancelled --kind command --tag a --keep-tag b";
        let line = <Line as clap::Parser>::try_parse_from(words.split(' ')).expect("options");
        let expected = json!({
            "older_than_ms": 3_600_000, "states": ["cancelled", "failed"], "kind": "command", "tags": ["a"], "keep_tags": ["b"],
            "projected": null, "dry_run": false,
        });
        assert_eq!(prune_request(&line.prune), expected);
    }

    #[test]
    fn an_age_is_a_span_of_days_and_hours() {
        assert_eq!(age("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert_eq!(age("1w 12h"), Ok(Duration::from_secs(7 * 86_400 + 43_200)));
        assert_eq!(age("0s"), Ok(Duration::ZERO));
        for wrong in ["", "30", "-1d", "1mo", "soon"] {
            assert!(age(wrong).is_err(), "{wrong}");
        }
    }
}
