//! Reads: what both say when they are asked, page by page.

use std::sync::Arc;

use registry_actor::domain::{ProcessEvent, ProcessHandleGrant, ProcessId, Sequence};
use registry_actor::port::{Answer, ProcessRegistry, ProcessRegistryExt, Query};

use super::driver::{Driver, Parted, nth_last, refused};
use super::gossip::{plain, plain_change};
use super::history::Step;
use super::model::No;
use super::scene::{self, PROCESSES, TYPES};
use crate::seeded::Random;

/// After so many steps, everything is read.
const ROUND: usize = 16;

/// What comes first of a list, at most so much, and whether more follows. A page of nothing is refused whatever there is.
fn page<T>(all: Result<impl IntoIterator<Item = T>, No>, limit: u32) -> Result<(Vec<T>, bool), No> {
    if limit == 0 {
        return Err(No("empty page".to_owned()));
    }
    let mut all = all?.into_iter();
    let page: Vec<T> = all.by_ref().take(usize::try_from(limit).unwrap_or(usize::MAX)).collect();
    Ok((page, all.next().is_some()))
}

/// The answer to a query, which has to be of this kind.
macro_rules! ask {
    ($driver:expr, $door:expr, $query:expr, $($pattern:pat => $value:expr),+) => {
        match refused($driver.subject.door($door).query($query).await) {
            $(Ok($pattern) => Ok($value),)+
            Ok(other) => Err(No(format!("the answer is {other:?}"))),
            Err(no) => Err(no),
        }
    };
}

impl Driver {
    /// What is read after a step: the process that it touched, what changed in the store, and a few things at random.
    pub(super) async fn read_after(&mut self, step: &Step, touched: Option<&ProcessId>) -> Result<(), Parted> {
        let mut random = Random::new(step.reads);
        if let Some(id) = touched {
            self.read_process(&mut random, id).await?;
        }
        self.read_changes(&mut random, 0).await?;
        for _ in 0..2 {
            self.read_something(&mut random).await?;
        }
        if self.steps_taken().is_multiple_of(ROUND) {
            self.read_everything(&mut random).await?;
        }
        Ok(())
    }

    /// Everything, and the fold of each log.
    pub(super) async fn read_everything(&mut self, random: &mut Random) -> Result<(), Parted> {
        for process in 0..PROCESSES {
            let id = scene::process(process);
            self.read_process(random, &id).await?;
            for _ in 0..4 {
                self.read_events(random, &id).await?;
            }
            self.read_grants_on(random, &id).await?;
        }
        for scope in 0..4 {
            self.read_wakes(random, scope).await?;
            self.read_grants_of(random, scope).await?;
        }
        for _ in 0..4 {
            self.read_list(random).await?;
            self.read_recent(random).await?;
            let cursor = random.small(8);
            self.read_changes(random, cursor).await?;
        }
        Ok(())
    }

    async fn read_something(&mut self, random: &mut Random) -> Result<(), Parted> {
        let id = scene::process(random.small(PROCESSES));
        match random.below(9) {
            0 => self.read_process(random, &id).await,
            1 | 2 => self.read_events(random, &id).await,
            3 => self.read_grants_on(random, &id).await,
            4 => {
                let scope = random.small(4);
                self.read_grants_of(random, scope).await
            }
            5 => {
                let scope = random.small(4);
                self.read_wakes(random, scope).await
            }
            6 => self.read_list(random).await,
            7 => self.read_recent(random).await,
            _ => {
                let cursor = random.small(8);
                self.read_changes(random, cursor).await
            }
        }
    }

    async fn read_process(&mut self, random: &mut Random, id: &ProcessId) -> Result<(), Parted> {
        let door = random.small(2);
        let registry = self.subject.door(door);
        let record = refused(registry.get_process(id).await).map(|record| record.map(|record| (*record).clone()));
        Self::same(&format!("the record of {id}"), &Ok(self.model.record(id).cloned()), &record)?;
        let lease = refused(registry.get_process_lease(id).await);
        Self::same(&format!("the lease of {id}"), &Ok(self.model.lease(id).cloned()), &lease)?;
        let tombstone = refused(registry.get_tombstone(id).await);
        Self::same(&format!("the tombstone of {id}"), &Ok(self.model.tombstone(id).cloned()), &tombstone)?;
        let all = refused(registry.events_after(id, Sequence(0)).await);
        let all = all.map(|events| events.iter().map(plain).collect::<Vec<_>>());
        Self::same(&format!("the events of {id}"), &self.model.events(id).map(<[_]>::to_vec), &all)?;
        if let Ok(events) = self.model.events(id) {
            let verified = self.subject.log().verify(id).await.map(|checked| (checked.events, checked.faults));
            Self::same(&format!("the fold of {id}"), &Ok((events.len() as u64 + 1, Vec::new())), &verified)?;
        }
        Ok(())
    }

    async fn read_events(&mut self, random: &mut Random, id: &ProcessId) -> Result<(), Parted> {
        let (door, limit, at) = (random.small(2), random.small(5).into(), Sequence(random.below(16)));
        let event_type = (*random.one_of(&TYPES)).to_owned();
        let process_id = id.clone();
        let events = self.model.events(id);
        let after = |events: &[Arc<ProcessEvent>]| -> Vec<_> {
            events.iter().filter(|event| event.sequence > at).cloned().collect()
        };
        match random.below(5) {
            0 => {
                let expected = page(events.map(after), limit);
                let query = Query::Events { process_id, after: at, limit };
                let found = ask!(self, door, query, Answer::Events(page) => (page.events.iter().map(plain).collect(), page.has_more));
                Self::same(&format!("{limit} events of {id} after {at}"), &expected, &found)
            }
            1 => {
                let last_first = page(events.map(|events| events.iter().rev().cloned()), limit);
                let expected = last_first.map(|(mut last, has_more)| {
                    last.reverse();
                    (last, has_more)
                });
                let query = Query::RecentEvents { process_id, limit };
                let found = ask!(self, door, query, Answer::Events(page) => (page.events.iter().map(plain).collect(), page.has_more));
                Self::same(&format!("{limit} recent events of {id}"), &expected, &found)
            }
            2 => {
                let counted = |event: &&Arc<ProcessEvent>| event.sequence <= at && *event.event_type == *event_type;
                let expected = events.map(|events| events.iter().filter(counted).count() as u64);
                let found = refused(self.subject.door(door).count_events_through(id, &event_type, at).await);
                Self::same(&format!("the count of {event_type} of {id} through {at}"), &expected, &found)
            }
            3 => {
                let meant = |event: &&Arc<ProcessEvent>| event.sequence > at && *event.event_type == *event_type;
                let expected = events.map(|events| events.iter().find(meant).cloned());
                let found = refused(self.subject.door(door).first_event_of_type(id, &event_type, at).await);
                let found = found.map(|event| event.as_ref().map(plain));
                Self::same(&format!("the first {event_type} of {id} after {at}"), &expected, &found)
            }
            _ => {
                let woke = self.model.wake_events(id);
                let expected = page(woke.map(|woke| after(&woke)), limit);
                let found = refused(self.subject.door(door).wake_events_after(id, at, limit).await);
                let found = found.map(|page| (page.events, page.has_more));
                Self::same(&format!("{limit} wake events of {id} after {at}"), &expected, &found)
            }
        }
    }

    async fn read_wakes(&mut self, random: &mut Random, scope: u8) -> Result<(), Parted> {
        let (door, limit, target) = (random.small(2), random.small(4).into(), scene::scope(scope));
        let known: Vec<_> = self.wake_cursors.iter().filter(|(of, ..)| *of == target).cloned().collect();
        let start = nth_last(&known, random.small(6)).cloned();
        let (mut cursor, mut place) = start.map_or((None, 0), |(_, cursor, place)| (Some(cursor), place));
        loop {
            let pending = self.model.pending(&target).filter(|(number, _)| *number > place);
            let expected = page(Ok(pending.map(|(number, delivery)| (number, delivery.clone()))), limit);
            let found = refused(self.subject.door(door).pending_wakes(&target, cursor, limit).await);
            let plain = found.as_ref().map_err(Clone::clone).map(|page| {
                let plain = page.wakes.iter().map(|wake| self.wake_ids.plain(&wake.delivery)).collect::<Vec<_>>();
                (plain, page.has_more)
            });
            let deliveries = expected.as_ref().map_err(Clone::clone).map(|(wakes, has_more)| {
                (wakes.iter().map(|(_, delivery)| delivery.clone()).collect::<Vec<_>>(), *has_more)
            });
            Self::same(&format!("{limit} pending wakes of {} after {place}", target.id()), &deliveries, &plain)?;
            let (Ok((wakes, has_more)), Ok(found)) = (expected, found) else { return Ok(()) };
            for ((number, _), wake) in wakes.iter().zip(&found.wakes) {
                if cursor.is_some_and(|cursor| cursor >= wake.cursor) {
                    return Err(Parted(format!("the cursor of {wake:?} does not follow on {cursor:?}")));
                }
                (cursor, place) = (Some(wake.cursor), *number);
                self.wake_cursors.push((target.clone(), wake.cursor, place));
            }
            if !has_more {
                return Ok(());
            }
        }
    }

    async fn read_grants_of(&mut self, random: &mut Random, scope: u8) -> Result<(), Parted> {
        let (door, live_only, limit) = (random.small(2), random.one_in(2), random.small(4).into());
        let (scope, after) = (scene::scope(scope), random.one_in(2).then(|| scene::process(random.small(PROCESSES))));
        let grants = self.model.grants_of(&scope, live_only).into_iter();
        let grants = grants.filter(|(grant, _)| after.as_ref().is_none_or(|after| *after < grant.process_id));
        let expected = page(Ok(grants.map(|(grant, record)| (grant, Arc::new(record)))), limit);
        let what = format!("{limit} grants of {} after {after:?}, live only: {live_only}", scope.id());
        let query = Query::HandleGrants { scope: scope.clone(), live_only, after, limit };
        let found = ask!(self, door, query, Answer::HandleGrants(page) => (page.entries, page.has_more));
        Self::same(&what, &expected, &found)?;
        let id = scene::process(random.small(PROCESSES));
        let all = self.model.grants_of(&scope, false);
        let expected = Ok(all.into_iter().map(|(grant, _)| grant).find(|grant| grant.process_id == id));
        let query = Query::HandleGrant { scope: scope.clone(), process_id: id.clone() };
        let found = ask!(self, door, query, Answer::HandleGrant(grant) => grant);
        Self::same(&format!("the grant of {id} to {}", scope.id()), &expected, &found)
    }

    async fn read_grants_on(&mut self, random: &mut Random, id: &ProcessId) -> Result<(), Parted> {
        let (door, limit) = (random.small(2), random.small(4).into());
        let after = random.one_in(2).then(|| scene::scope(random.small(4)));
        let grants = self.model.grants_on(id).map(|grants| {
            let follows = |grant: &ProcessHandleGrant| after.as_ref().is_none_or(|after| *after < grant.scope);
            grants.into_iter().filter(follows).collect::<Vec<_>>()
        });
        let expected = page(grants, limit);
        let what = format!("{limit} grants on {id} after {after:?}");
        let query = Query::GrantsOfProcess { process_id: id.clone(), after, limit };
        let found = ask!(self, door, query, Answer::GrantsOfProcess(page) => (page.grants, page.has_more));
        Self::same(&what, &expected, &found)
    }

    async fn read_list(&mut self, random: &mut Random) -> Result<(), Parted> {
        let (door, limit) = (random.small(2), random.small(5).into());
        let filter = scene::filter(random, self.model.now.epoch_ms);
        let after = random.one_in(3).then(|| scene::process(random.small(PROCESSES)));
        let records = self.model.list(&filter).into_iter();
        let records = records.filter(|record| after.as_ref().is_none_or(|after| *after < record.registration.id));
        let expected = page(Ok(records.map(Arc::new)), limit);
        let what = format!("{limit} processes after {after:?} by {filter:?}");
        let found = refused(self.subject.door(door).list_page(filter, after, limit).await);
        Self::same(&what, &expected, &found.map(|page| (page.records, page.has_more)))
    }

    /// From the newest process back to the first.
    async fn read_recent(&mut self, random: &mut Random) -> Result<(), Parted> {
        let (door, limit) = (random.small(2), u32::from(random.small(4)));
        let filter = scene::filter(random, self.model.now.epoch_ms);
        let all = self.model.list_recent(&filter);
        let (mut before, mut seen) = (None, 0);
        loop {
            let rest = all[seen..].iter().cloned().map(Arc::new);
            let expected = page(Ok(rest), limit);
            let what = format!("{limit} recent processes after {seen} by {filter:?}");
            let found = refused(self.subject.door(door).recent_processes(filter.clone(), before, limit).await);
            let next = found.as_ref().ok().and_then(|page| page.next);
            Self::same(&what, &expected, &found.map(|page| (page.records, page.next.is_some())))?;
            let Some(next) = next else { return Ok(()) };
            (before, seen) = (Some(next), seen + usize::try_from(limit).unwrap_or(usize::MAX));
        }
    }

    /// The feed from the nth-last cursor to its end: whoever follows it misses nothing.
    async fn read_changes(&mut self, random: &mut Random, nth: u8) -> Result<(), Parted> {
        let (door, limit) = (random.small(2), 1 + u32::from(random.small(6)));
        let (mut cursor, mut seen) =
            nth_last(&self.cursors, nth).map_or((None, 0), |(cursor, seen)| (Some(cursor.clone()), *seen));
        loop {
            let changes = self.model.changes_after(seen);
            let expected = page(Ok(changes.iter().map(|(_, change)| change.clone())), limit);
            let found = refused(self.subject.door(door).changes_since(cursor.clone(), limit).await);
            let plain = found
                .as_ref()
                .map_err(Clone::clone)
                .map(|page| (page.clone().into_changes().map(plain_change).collect::<Vec<_>>(), page.has_more));
            Self::same(&format!("{limit} changes after {seen}"), &expected, &plain)?;
            let (Ok((told, has_more)), Ok(found)) = (expected, found) else { return Ok(()) };
            seen = told.len().checked_sub(1).map_or(seen, |last| changes[last].0);
            if found.safe_through.position() < found.next.position() {
                return Err(Parted(format!("what is safe ends before what was read: {found:?}")));
            }
            self.remember(found.safe_through, self.model.changes_made());
            self.remember(found.next.clone(), seen);
            cursor = Some(found.next);
            if !has_more {
                return Ok(());
            }
        }
    }
}
