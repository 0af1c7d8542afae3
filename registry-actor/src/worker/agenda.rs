//! The agenda of a drive: which process is looked at again, and when. A value over times that are passed in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::sweep::Look;
use crate::domain::{LeaseOwnerLiveness, ProcessId};

/// A claim may come a little before the lease has run out on the store's clock.
const EXPIRY_MARGIN: Duration = Duration::from_millis(20);

/// The pauses before a process is looked at again whose run left it as it was.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How often holders are looked at that may die before their lease ends.
pub(super) const LIVENESS_INTERVAL: Duration = Duration::from_millis(250);

/// An instant so much later. What no clock can tell, and would be a panic, is as good as never.
pub(super) fn later(from: Instant, by: Duration) -> Instant {
    const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 3_600);
    from + by.min(NEVER)
}

/// What is to be looked at, and when.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    due: BTreeMap<ProcessId, Instant>,
    /// The same by time: who asks what is due looks at no more than that.
    by_time: BTreeSet<(Instant, ProcessId)>,
    /// Processes whose holder is a process of this machine.
    watched: BTreeMap<ProcessId, LeaseOwnerLiveness>,
    /// Processes for which there was no place.
    placeless: BTreeSet<ProcessId>,
    /// How long those pause that were left as they were.
    pauses: BTreeMap<ProcessId, Duration>,
}

impl Agenda {
    /// Notes what a look at a process has found.
    pub(super) fn note(&mut self, process_id: ProcessId, look: Look, now: Instant) {
        self.forget_dates(&process_id);
        match look {
            Look::Settled => {}
            Look::Ended => self.has_moved(&process_id),
            Look::DueIn(wait) => self.put(process_id, now, wait),
            Look::Held { remaining, liveness } => {
                if matches!(liveness, LeaseOwnerLiveness::LocalProcess { .. }) {
                    self.watched.insert(process_id.clone(), liveness);
                }
                self.put(process_id, now, remaining.saturating_add(EXPIRY_MARGIN));
            }
            Look::NoPlace => drop(self.placeless.insert(process_id)),
        }
    }

    /// Puts a process off whose run left it as it was: longer each time.
    pub(super) fn put_off(&mut self, process_id: ProcessId, now: Instant) {
        let pause = self.pauses.get(&process_id).map_or(FIRST_PAUSE, |pause| (*pause * 2).min(LONGEST_PAUSE));
        self.pauses.insert(process_id.clone(), pause);
        self.forget_dates(&process_id);
        self.put(process_id, now, pause);
    }

    /// Whether a pass is to leave the process alone for now.
    pub(super) fn is_put_off(&self, process_id: &ProcessId, now: Instant) -> bool {
        self.pauses.contains_key(process_id) && self.due.get(process_id).is_some_and(|due| *due > now)
    }

    /// Forgets how long a process was put off: something has come of it.
    pub(super) fn has_moved(&mut self, process_id: &ProcessId) {
        self.pauses.remove(process_id);
    }

    /// Takes what is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<ProcessId> {
        let due: Vec<ProcessId> =
            self.by_time.iter().take_while(|(at, _)| *at <= now).map(|(_, process_id)| process_id.clone()).collect();
        for process_id in &due {
            self.forget_dates(process_id);
        }
        due
    }

    /// Takes as many of those that had no place as there are places now.
    pub(super) fn take_placeless(&mut self, places: usize) -> Vec<ProcessId> {
        std::iter::from_fn(|| self.placeless.pop_first()).take(places).collect()
    }

    /// Takes the processes whose holder is dead, as `is_dead` sees it.
    pub(super) fn take_widowed(&mut self, mut is_dead: impl FnMut(&LeaseOwnerLiveness) -> bool) -> Vec<ProcessId> {
        let widowed: Vec<ProcessId> = self
            .watched
            .iter()
            .filter(|(_, holder)| is_dead(holder))
            .map(|(process_id, _)| process_id.clone())
            .collect();
        for process_id in &widowed {
            self.forget_dates(process_id);
        }
        widowed
    }

    /// How long to sleep.
    pub(super) fn sleep(&self, now: Instant, longest: Duration) -> Duration {
        let next = self.by_time.first().map_or(longest, |(due, _)| due.saturating_duration_since(now));
        let watching = if self.watched.is_empty() { longest } else { LIVENESS_INTERVAL };
        next.min(watching).min(longest)
    }

    fn put(&mut self, process_id: ProcessId, now: Instant, wait: Duration) {
        // What is further away than any clock reaches is not due at all.
        if let Some(at) = now.checked_add(wait) {
            self.by_time.insert((at, process_id.clone()));
            self.due.insert(process_id, at);
        }
    }

    fn forget_dates(&mut self, process_id: &ProcessId) {
        if let Some(at) = self.due.remove(process_id) {
            self.by_time.remove(&(at, process_id.clone()));
        }
        self.watched.remove(process_id);
        self.placeless.remove(process_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> ProcessId {
        ProcessId::new(name).expect("an id")
    }

    const LONGEST: Duration = Duration::from_secs(30);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn local() -> LeaseOwnerLiveness {
        LeaseOwnerLiveness::LocalProcess {
            host_id: "h".to_owned(),
            boot_id: "b".to_owned(),
            pid: 1,
            process_start: "1".to_owned(),
            pid_namespace: Some(1),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_sleeps_until_the_next_date_and_never_longer_than_it_may() {
        let (mut agenda, now) = (Agenda::default(), Instant::now());
        assert_eq!(agenda.sleep(now, LONGEST), LONGEST);
        agenda.note(id("far"), Look::DueIn(Duration::MAX), now);
        agenda.note(id("a"), Look::DueIn(ms(700)), now);
        agenda.note(id("b"), Look::DueIn(ms(300)), now);
        assert_eq!(agenda.sleep(now, LONGEST), ms(300));
        assert_eq!(agenda.take_due(now + ms(299)), []);
        assert_eq!(agenda.take_due(now + ms(300)), [id("b")]);
        agenda.note(id("a"), Look::Settled, now);
        assert_eq!(agenda.take_due(now + ms(900)), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_of_this_machine_is_watched_until_its_lease_ends() {
        let (mut agenda, now) = (Agenda::default(), Instant::now());
        let held = |liveness| Look::Held { remaining: ms(5_000), liveness };
        agenda.note(id("local"), held(local()), now);
        agenda.note(id("opaque"), held(LeaseOwnerLiveness::Opaque), now);
        assert_eq!(agenda.sleep(now, LONGEST), LIVENESS_INTERVAL);
        assert_eq!(agenda.take_widowed(|_| false), []);
        assert_eq!(agenda.take_widowed(|_| true), [id("local")]);
        assert_eq!(agenda.sleep(now, LONGEST), ms(5_000) + EXPIRY_MARGIN, "the opaque one ends by time");
    }

    /// A process whose remains cannot be ended was taken over again at once, in a loop.
    #[tokio::test(start_paused = true)]
    async fn what_is_left_as_it_was_is_put_off_longer_each_time() {
        let (mut agenda, mut now) = (Agenda::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..9 {
            agenda.put_off(id("a"), now);
            assert!(agenda.is_put_off(&id("a"), now));
            let pause = agenda.sleep(now, LONGEST * 2);
            pauses.push(pause.as_millis());
            now += pause;
            assert!(!agenda.is_put_off(&id("a"), now));
            assert_eq!(agenda.take_due(now), [id("a")]);
        }
        assert_eq!(pauses, [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
        agenda.has_moved(&id("a"));
        agenda.put_off(id("a"), now);
        assert_eq!(agenda.sleep(now, LONGEST), FIRST_PAUSE);
    }

    /// With 100,000 of them, each run that ended had all of them looked at for the one that could be begun.
    #[tokio::test(start_paused = true)]
    async fn of_what_had_no_place_as_much_is_due_as_there_are_places() {
        let (mut agenda, now) = (Agenda::default(), Instant::now());
        for name in ["a", "b", "c"] {
            agenda.note(id(name), Look::NoPlace, now);
        }
        assert_eq!(agenda.take_due(now), []);
        assert_eq!(agenda.take_placeless(0), []);
        assert_eq!(agenda.take_placeless(2), [id("a"), id("b")]);
        assert_eq!(agenda.take_placeless(2), [id("c")]);
    }

    /// A process that was put off, and ended by somebody else, was never forgotten.
    #[tokio::test(start_paused = true)]
    async fn nothing_is_kept_of_what_has_ended() {
        let (mut agenda, now) = (Agenda::default(), Instant::now());
        agenda.put_off(id("a"), now);
        agenda.note(id("a"), Look::Ended, now);
        assert!(agenda.due.is_empty() && agenda.by_time.is_empty() && agenda.pauses.is_empty());
    }
}
