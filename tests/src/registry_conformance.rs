//! What every registry must do, whatever stands behind it: each case of the catalogue by its number and name, one for each of
//! the peer's weaknesses that is not inherited (`w…`), and what follows from the contract beside them.
//!
//! The cases are functions of a [`Stage`]; [`registry_conformance!`](crate::registry_conformance!) makes them tests of one
//! backend. After every step of every case the fold law is checked, and no case can forget it: see [`FoldChecked`].
//!
//! The weaknesses of workers (10–12, 29, 35), of the sink and of the decorator (9, 16 as far as they concern them) belong to
//! those parts and are proved with them. Where a registry has a share in one of them it
//! is here: 9 and 16 for the registry's own source of changes, 30 for outcome and release, 31 for claims on ended processes,
//! 34 for abandon requests; 10 within 34, 19 within case 2, 27 within case 28, 1 with 33.

mod attempts;
mod awaiting;
mod declarations;
mod events;
mod example;
mod feed;
mod grants;
mod leases;
mod limits;
mod lists;
mod outcomes;
mod prunes;
mod signals;
mod stage;
mod wakes;

pub use self::attempts::*;
pub use self::awaiting::*;
pub use self::declarations::*;
pub use self::events::*;
pub use self::feed::*;
pub use self::grants::*;
pub use self::leases::*;
pub use self::limits::*;
pub use self::lists::*;
pub use self::outcomes::*;
pub use self::prunes::*;
pub use self::signals::*;
pub use self::stage::{FoldChecked, Stage};
pub use self::wakes::*;

use std::pin::Pin;

use crate::log_conformance::bounded;
use crate::registry_backend::RegistryBackend;

/// Declares the suite for a backend: `registry_conformance!(memory_direct, RegistryBackend::memory_direct());`.
#[macro_export]
macro_rules! registry_conformance {
    ($name:ident, $backend:expr) => {
        $crate::registry_conformance! { @tests $name, $backend,
            c01_process_registry_reports_declared_durability,
            c02_registration_is_idempotent_and_hash_conflicts_fail,
            c03_external_refs_and_handle_grant_membership_round_trip,
            c04_validates_custom_events_and_materializes_wakes,
            c05_custom_wake_events_preserve_typed_provenance_and_replay,
            c06_event_streams_filter_order_and_wait_without_leaking_old_events,
            c07_wake_semantics_matrix_materializes_declared_wakes,
            c08_keyed_events_materialize_idempotent_wakes,
            c09_wake_semantic_events_without_target_record_without_delivery,
            c10_terminal_and_cancel_events_require_keys,
            c11_await_reads_terminal_materialized_output,
            c12_disposition_first_started_and_abandon_request_persist,
            c13_abandoned_terminal_round_trips_and_pins_writer_rules,
            c14_wait_state_round_trips_filters_and_clears_on_terminal,
            c15_list_processes_filters_by_status_and_waiting,
            c16_count_and_recent_events_match_the_log,
            c17_transfer_handle_grants_moves_addressability,
            c18_multiple_sessions_can_hold_grants,
            c19_processes_can_exist_with_zero_grants,
            c20_delete_session_revokes_handles_by_session,
            c21_list_non_terminal_excludes_terminal_processes,
            c22_list_live_handle_grants_excludes_terminal_history,
            c23_active_process_lease_fences_competing_owner,
            c24_superseded_process_lease_cannot_renew,
            c25_renewed_process_lease_survives_original_expiry,
            c26_completed_lease_releases_and_reclaim_bumps_fencing,
            c27_stale_lease_completion_cannot_release_live_lease,
            c28_process_lease_reclaim_contract,
            c29_prune_removes_terminal_processes_older_than_cutoff,
            c30_awaiter_cross_task_completion_resolves_promptly,
            c31_awaiter_await_event_never_returns_events_at_or_before_cursor,
            c32_watched_decorator_preserves_registry_semantics,
            c33_prune_respects_leases_grants_and_wake_acks,
            c34_prune_never_touches_non_terminal_rows,
            c35_process_registry_survives_reopen,
            w02_a_store_that_cannot_be_read_is_not_an_unknown_process,
            w03_an_outcome_is_fenced_and_an_unfenced_one_is_refused_while_leased,
            w04_a_first_start_is_fenced_and_refused_on_ended_processes,
            w05_a_claim_returns_the_holder_that_it_displaces,
            w06_late_events_are_marked_and_do_not_postpone_a_prune,
            w07_state_and_outcome_agree_and_only_core_types_carry_outcomes,
            w08_times_of_a_record_never_go_back,
            w09_a_source_ticks_what_changed_and_nothing_else,
            w13_a_wait_for_an_event_is_told_that_the_process_ended_first,
            w14_events_come_in_pages_and_the_first_of_a_type_is_found,
            w15_a_wait_that_ends_leaves_nothing_behind,
            w17_core_types_and_keys_are_reserved,
            w18_an_empty_replay_key_is_refused,
            w20_templates_are_rendered_once_and_a_missing_condition_wakes_nobody,
            w21_scopes_with_one_rendered_id_are_distinct,
            w22_a_transfer_is_all_or_nothing,
            w23_the_largest_bounds_mean_everything,
            w24_an_acknowledgement_names_a_wake_and_settles_it,
            w25_filters_are_read_strictly,
            w26_a_pruned_id_leaves_a_tombstone_and_lives_again_as_the_next_generation,
            w28_leases_and_events_take_their_time_from_the_injected_clock,
            w30_an_outcome_and_its_release_are_one,
            w31_ended_and_unknown_processes_are_not_claimed,
            w32_a_signals_ordinal_is_the_count_of_its_events,
            w33_a_second_outcome_is_told_the_one_that_stands,
            w34_an_abandon_request_is_kept_for_every_disposition,
            w36_pending_wakes_are_in_order_per_target_and_once_per_wake_id,
            a_batch_is_all_or_nothing,
            a_cancel_request_is_one_event_for_each_reason,
            a_cursor_that_is_not_of_this_store_is_refused,
            a_failed_attempt_gives_its_lease_up_and_the_last_one_ends_the_process,
            a_stale_fence_neither_begins_nor_fails_an_attempt,
            attempts_are_counted_once_for_each_acquisition_and_across_restarts,
            attempts_are_used_up_by_owners_that_died,
            started_owner_bound_work_is_not_attempted_again_whoever_asks,
            terms_of_execution_are_validated_and_kept,
            what_is_not_to_be_executed_here_is_not_attempted,
            a_deleted_session_is_seen_by_the_next_append,
            a_page_of_nothing_is_refused_and_a_large_one_is_cut,
            a_prune_leaves_what_the_projector_has_not_seen,
            a_reader_of_the_feed_beside_writers_misses_nothing,
            a_waiter_is_never_told_of_another_life,
            a_waiter_of_a_pruned_process_is_told_how_it_ended,
            every_field_of_a_filter_narrows_and_all_narrow_together,
            every_field_of_a_prune_filter_narrows,
            pages_of_grants_go_on_where_they_ended,
            pages_of_processes_beside_writers_miss_nothing_and_double_nothing,
            recent_processes_come_newest_first_and_go_on_where_they_ended,
            registrations_are_validated,
            several_waits_end_with_the_first_of_them_or_with_all,
            targets_of_new_wakes_are_ticked,
            the_feed_tells_every_change_in_order,
            what_exceeds_a_bound_is_refused_by_name,
        }
    };
    (@tests $name:ident, $backend:expr, $($case:ident,)*) => {
        mod $name {
            use super::*;
            $(
                #[tokio::test]
                async fn $case() {
                    $crate::registry_conformance::play($backend, |stage| {
                        Box::pin($crate::registry_conformance::$case(stage))
                    })
                    .await;
                }
            )*
        }
    };
}

/// A case, boxed: so that what plays it is compiled once, and not for each case on each backend.
pub type Case = for<'stage> fn(&'stage mut Stage) -> Pin<Box<dyn Future<Output = ()> + 'stage>>;

/// Plays a case on an empty store, with every step checked.
pub async fn play(backend: RegistryBackend, case: Case) {
    bounded(async {
        let mut stage = Stage::empty(backend).await;
        case(&mut stage).await;
        assert!(stage.registry.steps() > 0, "the case took no step");
        stage.close().await;
    })
    .await;
}
