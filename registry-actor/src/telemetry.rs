//! What the registry tells of itself in numbers: one function for each fact, through the facade of the crate `metrics`.
//!
//! It owns the names and labels of the numbers. It does not know who collects them: without a collector they cost next to
//! nothing, and without the feature `metrics` nothing at all. No label names a process: there are too many of them.

#![cfg_attr(not(feature = "metrics"), expect(unused_variables, reason = "without the feature nobody is told"))]
#![cfg_attr(
    not(all(feature = "actors", feature = "sqlite")),
    expect(dead_code, reason = "a part alone has only its own facts")
)]

#[cfg(feature = "metrics")]
use std::time::Instant;

#[cfg(feature = "actors")]
use crate::port::RegistryError;

/// Counts, if anybody does.
macro_rules! count {
    ($name:literal, $by:expr $(, $label:literal => $value:expr)*) => {{
        #[cfg(feature = "metrics")]
        metrics::counter!($name $(, $label => $value)*).increment($by);
    }};
}

/// Adds to a distribution, if anybody keeps one.
macro_rules! record {
    ($name:literal, $value:expr) => {{
        #[cfg(feature = "metrics")]
        metrics::histogram!($name).record($value);
    }};
}

/// Measures a time, if anybody wants to know it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch {
    #[cfg(feature = "metrics")]
    started: Instant,
}

impl Stopwatch {
    /// Starts now.
    pub(crate) fn start() -> Self {
        Self {
            #[cfg(feature = "metrics")]
            started: Instant::now(),
        }
    }
}

/// A transaction is durable: so many batches with so many events.
pub(crate) fn group_committed(since: Stopwatch, batches: usize, events: usize) {
    record!("proctor_commit_seconds", since.started.elapsed());
    record!("proctor_commit_batches", batches as f64);
    record!("proctor_commit_events", events as f64);
    count!("proctor_events_appended_total", events as u64);
}

/// A transaction was not stored, or nobody knows.
pub(crate) fn group_failed() {
    count!("proctor_commit_failures_total", 1);
}

/// So much waits for the writer.
pub(crate) fn writer_queue(depth: usize) {
    #[cfg(feature = "metrics")]
    metrics::gauge!("proctor_writer_queue_depth").set(depth as f64);
}

/// Whether the store takes what it is given.
pub(crate) fn store_writable(is_writable: bool) {
    #[cfg(feature = "metrics")]
    metrics::gauge!("proctor_store_writable").set(if is_writable { 1.0 } else { 0.0 });
}

/// A caller has its answer. To be told inside the span of the command.
#[cfg(feature = "actors")]
pub(crate) fn command_answered<T>(command: &'static str, answer: &Result<T, RegistryError>) {
    let result = match answer {
        Ok(_) => "ok",
        Err(RegistryError::Refused(_)) => "refused",
        Err(_) => "error",
    };
    count!("proctor_commands_total", 1, "command" => command, "result" => result);
    tracing::debug!(result, "a command was answered");
}

/// The actor of a process is started.
pub(crate) fn activated() {
    count!("proctor_activations_total", 1);
}

/// A part that ended is started again.
pub(crate) fn restarted(part: &'static str) {
    count!("proctor_restarts_total", 1, "part" => part);
}

/// A process is quarantined.
pub(crate) fn quarantined() {
    count!("proctor_quarantines_total", 1);
}

/// A worker has made a pass over what has not ended.
pub(crate) fn swept() {
    count!("proctor_sweeps_total", 1);
}

/// A worker has looked at processes, in a pass or because something was told of them, and found so many of each.
pub(crate) fn looked_at(found: &[(&'static str, usize)]) {
    #[cfg(feature = "metrics")]
    for (what, number) in found {
        metrics::counter!("proctor_looks_total", "found" => *what).increment(*number as u64);
    }
}

/// An attempt has durably begun.
pub(crate) fn attempt_begun() {
    count!("proctor_attempts_begun_total", 1);
}

/// A run is over, with the state of its process, or with `retry`, `released` or `left`.
pub(crate) fn run_over(result: &'static str) {
    count!("proctor_runs_total", 1, "result" => result);
}

/// A lease was lost while its run was under way.
pub(crate) fn lease_lost() {
    count!("proctor_leases_lost_total", 1);
}

/// Describes every number, and makes those that have not happened yet 0, so that a collector knows them from the start. To
/// be called once, after the collector was installed.
#[cfg(feature = "metrics")]
pub fn describe() {
    use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

    describe_histogram!("proctor_commit_seconds", Unit::Seconds, "How long a transaction took, sync included");
    describe_histogram!("proctor_commit_batches", Unit::Count, "How many batches went into a transaction");
    describe_histogram!("proctor_commit_events", Unit::Count, "How many events went into a transaction");
    for name in ["proctor_commit_seconds", "proctor_commit_batches", "proctor_commit_events"] {
        drop(histogram!(name));
    }
    describe_gauge!("proctor_writer_queue_depth", Unit::Count, "Batches and commands that wait for the writer");
    gauge!("proctor_writer_queue_depth").set(0);
    describe_gauge!("proctor_store_writable", "1 while the store takes what it is given, 0 while it is being reopened");
    for (name, description) in [
        ("proctor_events_appended_total", "Events that were stored"),
        ("proctor_commit_failures_total", "Transactions that were not stored, or of which nobody knows"),
        ("proctor_activations_total", "Actors of processes that were started"),
        ("proctor_quarantines_total", "Processes that were quarantined"),
        ("proctor_sweeps_total", "Passes over what has not ended"),
        ("proctor_attempts_begun_total", "Attempts that have begun"),
        ("proctor_leases_lost_total", "Leases that were lost while their run was under way"),
    ] {
        describe_counter!(name, Unit::Count, description);
        counter!(name).increment(0);
    }
    describe_counter!("proctor_commands_total", Unit::Count, "Commands that were answered, by name and result");
    describe_counter!("proctor_restarts_total", Unit::Count, "Parts that ended and were started again");
    for part in ["process", "supervisor", "drive"] {
        counter!("proctor_restarts_total", "part" => part).increment(0);
    }
    describe_counter!("proctor_looks_total", Unit::Count, "Looks of a worker at a process, by what it found");
    for found in
        ["begun", "asked_to_stop", "held", "awaiting_retry", "external", "without_executor", "stuck", "unreadable"]
    {
        counter!("proctor_looks_total", "found" => found).increment(0);
    }
    describe_counter!("proctor_runs_total", Unit::Count, "Runs that are over, by what came of them");
    for result in ["completed", "failed", "cancelled", "abandoned", "retry", "released", "left"] {
        counter!("proctor_runs_total", "result" => result).increment(0);
    }
}
