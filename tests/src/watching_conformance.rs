//! What every watched registry must do, whether it is wrapped or listened to: the claims of whoever waits for a process,
//! watches it, or drives it.
//!
//! The cases are functions of a [`Scene`]; [`watching_conformance!`](crate::watching_conformance!) makes them tests of one
//! backend. A backend whose registry tells of its commits is listened to, any other is wrapped: the claims are the same, and
//! where one has to know which it is, it asks [`Scene::tells_commits`].

mod beneath;
mod driving;
mod recording_sink;
mod scene;
mod sinks;
mod standing_time;
mod ticks;
mod waiting;

pub use self::beneath::Beneath;
pub use self::driving::*;
pub use self::recording_sink::RecordingSink;
pub use self::scene::{Scene, Watched};
pub use self::sinks::*;
pub use self::ticks::*;
pub use self::waiting::*;

use std::pin::Pin;

use crate::log_conformance::bounded;
use crate::registry_backend::RegistryBackend;

/// Declares the suite for a backend: `watching_conformance!(memory_native, RegistryBackend::memory_actors());`.
#[macro_export]
macro_rules! watching_conformance {
    ($name:ident, $backend:expr) => {
        $crate::watching_conformance! { @tests $name, $backend,
            backoff_schedule_has_25ms_floor_doubling_to_1s_cap,
            prune_through_decorator_does_not_bump_the_hub,
            hub_subscribe_then_notify_wakes_and_gc_drops_empty_entry,
            await_event_returns_historical_event_immediately,
            await_terminal_unknown_process_errors,
            polling_awaiter_resolves_via_backoff,
            watched_awaiter_observes_terminal_without_lost_wakeup,
            watched_registry_bumps_on_mutations,
            sink_receives_appended_events_in_order,
            sink_absent_leaves_appends_unchanged,
            sink_not_invoked_for_complete_process_terminal_append,
            sink_present_still_bumps_hub_on_append,
            driver_short_circuits_terminal_before_attach,
            driver_attach_errors_propagate_without_poll_fallback,
            concurrent_waiters_all_resolve_with_identical_output_on_completion,
            driver_reattach_after_terminal_short_circuits_without_engine_call,
            lossy_sink_still_reconciles_complete_log_from_events_after,
            a_commit_comes_before_its_tick_and_the_tick_before_its_emission,
            a_dropped_caller_still_ticks,
            a_sink_that_hears_no_commits_is_told_by_its_callers_and_once,
            a_watched_event_is_found_without_time_passing,
            an_append_that_is_cancelled_in_the_middle_takes_nothing_from_the_next,
            an_unknown_outcome_still_ticks_and_a_refusal_does_not,
            driver_answers_what_a_registry_knows_of_missing_and_pruned_processes,
            driver_asks_its_engine_for_what_has_not_ended,
            driver_returns_the_error_of_its_run_handle,
            driver_waits_for_events_without_its_engine,
            inline_driver_runs_its_worker,
            new_wakes_tick_their_targets,
            nothing_is_emitted_twice,
            replays_and_terminals_are_not_emitted,
            ticks_come_only_with_a_change,
        }
    };
    (@tests $name:ident, $backend:expr, $($case:ident,)*) => {
        mod $name {
            use super::*;
            $(
                #[tokio::test]
                async fn $case() {
                    $crate::watching_conformance::play($backend, |scene| {
                        Box::pin($crate::watching_conformance::$case(scene))
                    })
                    .await;
                }
            )*
        }
    };
}

/// A case, boxed: so that what plays it is compiled once, and not for each case on each backend.
pub type Case = for<'scene> fn(&'scene Scene) -> Pin<Box<dyn Future<Output = ()> + 'scene>>;

/// Plays a case on an empty store.
pub async fn play(backend: RegistryBackend, case: Case) {
    bounded(async {
        let scene = Scene::empty(backend).await;
        case(&scene).await;
        scene.close().await;
    })
    .await;
}
