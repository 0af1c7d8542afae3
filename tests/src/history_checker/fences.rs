//! Fences: they say which of two holders is the later one.

use std::collections::BTreeMap;

use registry_actor::domain::{Fence, LeaseToken, ProcessId, ProcessLease, ProcessLeaseClaimOutcome};

use super::Violation;
use super::history::{Answered, History, Span};

/// Of two acquisitions of one life, one after the other, the later has the larger fence, and no two have the same.
pub(super) fn grow(history: &History) -> Vec<Violation> {
    let mut lives: BTreeMap<(&ProcessId, u32), Vec<(Span, &ProcessLease)>> = BTreeMap::new();
    for call in &history.calls {
        if let Some(Answered::Execute(Ok(receipt))) = &call.answered
            && let (Some(process_id), Some(record)) = (call.asked.process_id(), &receipt.record)
            && let Some(ProcessLeaseClaimOutcome::Acquired { lease, .. }) = &receipt.lease
        {
            lives.entry((process_id, record.generation)).or_default().push((call.span, lease));
        }
    }
    lives.into_iter().flat_map(|((process_id, generation), leases)| of_life(process_id, generation, leases)).collect()
}

fn of_life(process_id: &ProcessId, generation: u32, mut leases: Vec<(Span, &ProcessLease)>) -> Vec<Violation> {
    let violation = |what: String| Violation::Fence { process_id: process_id.clone(), generation, what };
    let mut violations = Vec::new();
    let mut tokens: BTreeMap<Fence, &LeaseToken> = BTreeMap::new();
    for (_, lease) in &leases {
        let token = tokens.entry(lease.fencing_token).or_insert(&lease.lease_token);
        if **token != lease.lease_token {
            violations.push(violation(format!("fence {} was given to two acquisitions", lease.fencing_token.0)));
        }
    }
    // By their ends: whoever began after the end of another must not have a smaller fence.
    leases.sort_by_key(|(span, _)| span.end);
    let mut largest: Vec<(u64, Fence)> = Vec::new();
    for (span, lease) in leases {
        let before = largest.partition_point(|(end, _)| *end < span.start);
        if let Some((_, fence)) = before.checked_sub(1).map(|index| largest[index])
            && fence > lease.fencing_token
        {
            violations.push(violation(format!("fence {} after fence {}", lease.fencing_token.0, fence.0)));
        }
        let so_far = largest.last().map_or(lease.fencing_token, |(_, fence)| (*fence).max(lease.fencing_token));
        largest.push((span.end.unwrap_or(u64::MAX), so_far));
    }
    violations
}
