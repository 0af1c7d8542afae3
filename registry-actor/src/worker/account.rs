//! The account of a worker: which runs are under way, and how many more there may be.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ractor::ActorRef;
use tokio::sync::{Semaphore, watch};

use super::drive::DriveMessage;
use super::lease_keeper::LeaseKeeper;
use super::place::Place;
use super::run::TakeOver;
use super::stop::StopSender;
use crate::domain::{ProcessId, ProcessLease};
use crate::port::StopCause;

/// The runs under way.
#[derive(Debug)]
pub(super) struct Account {
    runs: Mutex<Runs>,
    permits: Arc<Semaphore>,
    /// How many are under way, for whoever waits until there are none.
    count: watch::Sender<Count>,
    /// Runs that are over and that the drive has not dealt with.
    over: Mutex<VecDeque<RunOver>>,
    /// What the store has not been told yet of runs that left their leases behind.
    left_behind: Mutex<BTreeMap<ProcessId, LeftBehind>>,
    /// The present drive.
    drive: watch::Sender<Option<ActorRef<DriveMessage>>>,
}

/// A run that is over, however it ended.
#[derive(Debug, Clone)]
pub(super) struct RunOver {
    /// The process.
    pub(super) process_id: ProcessId,
    /// What came of it; `None` if it failed, or was killed.
    pub(super) taken: Option<TakeOver>,
    /// The lease that it left behind.
    pub(super) left_behind: Option<LeftBehind>,
}

/// A lease of a run that could not say itself what became of it.
#[derive(Debug, Clone)]
pub(super) struct LeftBehind {
    /// The lease, as it was when it was ours.
    pub(super) lease: ProcessLease,
    /// Whether it was lost, and the run ended for that; else the run was killed while it held it.
    pub(super) is_lost: bool,
}

#[derive(Debug, Default)]
struct Runs {
    closed: bool,
    under_way: BTreeMap<ProcessId, UnderWay>,
    /// How many of them do not execute yet.
    taking_over: usize,
}

#[derive(Debug)]
struct UnderWay {
    stop: StopSender,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It is being claimed, looked at, rid of its remains, or ended.
    TakingOver,
    /// Its executor runs.
    Executing,
}

/// How many runs there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    under_way: usize,
    taking_over: usize,
}

/// A process that is being taken over or run. Dropping it strikes it off the account, however the run ended.
#[derive(Debug)]
pub(super) struct RunEntry {
    account: Arc<Account>,
    process_id: ProcessId,
    place: Arc<Place>,
    holding: Mutex<Option<Arc<LeaseKeeper>>>,
    taken: Mutex<Option<TakeOver>>,
}

/// Why a run is not entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotEntered {
    /// It is under way already.
    UnderWay,
    /// As many are under way as there may be.
    Full,
    /// No runs are begun any more.
    Closed,
}

impl Account {
    pub(super) fn new(concurrent_runs: usize) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(concurrent_runs.clamp(1, Semaphore::MAX_PERMITS)));
        Arc::new(Self {
            runs: Mutex::default(),
            permits,
            count: watch::Sender::default(),
            over: Mutex::default(),
            left_behind: Mutex::default(),
            drive: watch::Sender::new(None),
        })
    }

    /// Enters a run, at most one for each process.
    pub(super) fn enter(self: &Arc<Self>, process_id: &ProcessId, stop: StopSender) -> Result<RunEntry, NotEntered> {
        let mut runs = self.runs();
        if runs.closed {
            return Err(NotEntered::Closed);
        }
        if runs.under_way.contains_key(process_id) {
            return Err(NotEntered::UnderWay);
        }
        let place = Place::take(&self.permits).ok_or(NotEntered::Full)?;
        runs.under_way.insert(process_id.clone(), UnderWay { stop, stage: Stage::TakingOver });
        runs.taking_over += 1;
        self.count.send_replace(runs.count());
        Ok(RunEntry {
            account: Arc::clone(self),
            process_id: process_id.clone(),
            place,
            holding: Mutex::default(),
            taken: Mutex::default(),
        })
    }

    /// How many more runs could be entered.
    pub(super) fn places(&self) -> usize {
        self.permits.available_permits()
    }

    pub(super) fn is_under_way(&self, process_id: &ProcessId) -> bool {
        self.runs().under_way.contains_key(process_id)
    }

    pub(super) fn under_way(&self) -> Vec<ProcessId> {
        self.runs().under_way.keys().cloned().collect()
    }

    /// Tells one run why it has to end; answers whether it is under way.
    pub(super) fn stop(&self, process_id: &ProcessId, cause: StopCause) -> bool {
        let runs = self.runs();
        let run = runs.under_way.get(process_id);
        if let Some(run) = run {
            run.stop.stop(cause);
        }
        run.is_some()
    }

    /// Lets nothing in any more. What is under way goes on.
    pub(super) fn close_door(&self) {
        self.runs().closed = true;
    }

    /// Begins no more runs, and tells all that are under way why they have to end.
    pub(super) fn close(&self, cause: &StopCause) {
        self.close_door();
        let runs = self.runs();
        for run in runs.under_way.values() {
            run.stop.stop(cause.clone());
        }
    }

    /// Waits until no run is under way. To drop the future loses nothing.
    pub(super) async fn emptied(&self) {
        // The sender is ours: it is there as long as we are.
        let _ = self.count.subscribe().wait_for(|count| count.under_way == 0).await;
    }

    /// Waits until every run that is under way executes. To drop the future loses nothing.
    pub(super) async fn settled(&self) {
        let _ = self.count.subscribe().wait_for(|count| count.taking_over == 0).await;
    }

    /// Makes this the drive that is told of news and of runs that are over, those of before it came included.
    pub(super) fn seat(&self, drive: ActorRef<DriveMessage>) {
        self.drive.send_replace(Some(drive));
        self.tell_drive(DriveMessage::News);
        self.tell_drive(DriveMessage::RunsOver);
    }

    /// Tells the present drive. One that is dead is followed by one that looks at everything.
    pub(super) fn tell_drive(&self, message: DriveMessage) {
        let drive = self.drive.borrow().clone();
        if let Some(drive) = drive {
            drop(drive.cast(message));
        }
    }

    /// The run that is over and was not dealt with for the longest time. It stays until it is struck off: a drive that
    /// dies on it leaves it to the next one.
    pub(super) fn first_over(&self) -> Option<RunOver> {
        self.over().front().cloned()
    }

    /// Strikes off the run that was answered by [`first_over`](Self::first_over).
    pub(super) fn strike_first_over(&self) {
        self.over().pop_front();
    }

    /// Keeps what is to be told of a run, whoever is the drive, until it is [told](Self::strike_left_behind).
    pub(super) fn keep_left_behind(&self, process_id: ProcessId, left_behind: LeftBehind) {
        self.left_behind.lock().unwrap_or_else(PoisonError::into_inner).insert(process_id, left_behind);
    }

    pub(super) fn left_behind(&self, process_id: &ProcessId) -> Option<LeftBehind> {
        self.left_behind.lock().unwrap_or_else(PoisonError::into_inner).get(process_id).cloned()
    }

    pub(super) fn all_left_behind(&self) -> Vec<ProcessId> {
        self.left_behind.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    pub(super) fn strike_left_behind(&self, process_id: &ProcessId) {
        self.left_behind.lock().unwrap_or_else(PoisonError::into_inner).remove(process_id);
    }

    fn over(&self) -> MutexGuard<'_, VecDeque<RunOver>> {
        self.over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Runs {
    fn count(&self) -> Count {
        Count { under_way: self.under_way.len(), taking_over: self.taking_over }
    }
}

impl RunEntry {
    /// Notes that its executor runs from now on.
    pub(super) fn executes(&self) {
        let mut runs = self.account.runs();
        let Some(run) = runs.under_way.get_mut(&self.process_id) else { return };
        if mem::replace(&mut run.stage, Stage::Executing) == Stage::TakingOver {
            runs.taking_over -= 1;
            self.account.count.send_replace(runs.count());
        }
    }

    /// The place that it gives up while it waits.
    pub(super) const fn place(&self) -> &Arc<Place> {
        &self.place
    }

    /// Notes the lease that is left behind if the run is killed now.
    pub(super) fn hold(&self, keeper: &Arc<LeaseKeeper>) {
        *self.holding.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(keeper));
    }

    /// Notes what came of the run. It leaves no lease behind, unless it could write nothing because the lease was lost: where
    /// nobody else has taken it, somebody still has to say what became of the run.
    pub(super) fn finish(&self, taken: Option<TakeOver>) {
        self.holding
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take_if(|keeper| taken.is_some() || !keeper.is_lost());
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = taken;
    }
}

impl Drop for RunEntry {
    fn drop(&mut self) {
        // The place first: whoever is told that the run is over may want to begin another.
        self.place.leave();
        let keeper = self.holding.lock().unwrap_or_else(PoisonError::into_inner).take();
        let left_behind = keeper.map(|keeper| {
            let left_behind = LeftBehind { lease: keeper.lease(), is_lost: keeper.is_lost() };
            keeper.stop();
            left_behind
        });
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner).take();
        let over = RunOver { process_id: self.process_id.clone(), taken, left_behind };
        {
            // Both under one lock. A drive that found it over and still under way would not look at it, and nobody would later;
            // one that found it neither would take the account for empty before it has said what became of it.
            let mut runs = self.account.runs();
            self.account.over().push_back(over);
            if runs.under_way.remove(&self.process_id).is_some_and(|run| run.stage == Stage::TakingOver) {
                runs.taking_over -= 1;
            }
            self.account.count.send_replace(runs.count());
        }
        self.account.tell_drive(DriveMessage::RunsOver);
    }
}

#[cfg(test)]
mod tests {
    use super::super::stop::stop_line;
    use super::*;

    fn id(name: &str) -> ProcessId {
        ProcessId::new(name).expect("an id")
    }

    fn enter(account: &Arc<Account>, name: &str) -> Result<RunEntry, NotEntered> {
        account.enter(&id(name), stop_line().0)
    }

    #[tokio::test]
    async fn a_process_runs_once_and_only_so_many_run() {
        let account = Account::new(2);
        let first = enter(&account, "a").expect("there is a place");
        assert_eq!(enter(&account, "a").expect_err("once"), NotEntered::UnderWay);
        let second = enter(&account, "b").expect("there is a place");
        assert_eq!(enter(&account, "c").expect_err("two at a time"), NotEntered::Full);
        drop(first);
        let third = enter(&account, "c").expect("a place was given back");
        account.close(&StopCause::HostStopping);
        drop((second, third));
        account.emptied().await;
        assert_eq!(enter(&account, "d").expect_err("closed"), NotEntered::Closed);
    }

    /// Notes what a drive is told.
    struct Listener;

    impl ractor::Actor for Listener {
        type Msg = DriveMessage;
        type State = tokio::sync::mpsc::UnboundedSender<DriveMessage>;
        type Arguments = Self::State;

        async fn pre_start(
            &self,
            _: ActorRef<DriveMessage>,
            told: Self::Arguments,
        ) -> Result<Self::State, ractor::ActorProcessingErr> {
            Ok(told)
        }

        async fn handle(
            &self,
            _: ActorRef<DriveMessage>,
            message: DriveMessage,
            told: &mut Self::State,
        ) -> Result<(), ractor::ActorProcessingErr> {
            Ok(told.send(message)?)
        }
    }

    /// A drive listens before it can be told. News that came in between was told to nobody, and so was all that followed.
    #[tokio::test]
    async fn a_drive_that_is_seated_looks_at_the_news_and_at_the_runs_that_are_over() {
        let account = Account::new(1);
        account.tell_drive(DriveMessage::News);
        let (sender, mut told) = tokio::sync::mpsc::unbounded_channel();
        let (drive, ending) = ractor::Actor::spawn(None, Listener, sender).await.expect("a drive");
        account.seat(drive.clone());
        let (first, second) = (told.recv().await, told.recv().await);
        drive.stop(None);
        assert!(matches!(first, Some(DriveMessage::News)), "{first:?}");
        assert!(matches!(second, Some(DriveMessage::RunsOver)), "{second:?}");
        ending.await.expect("it ends");
    }

    #[tokio::test]
    async fn what_executes_is_settled_and_what_is_being_taken_over_is_not() {
        let account = Account::new(2);
        account.settled().await;
        let (first, second) = (enter(&account, "a").expect("a place"), enter(&account, "b").expect("a place"));
        first.executes();
        first.executes();
        let mut settled = std::pin::pin!(account.settled());
        tokio::select! {
            biased;
            () = &mut settled => panic!("the second is being taken over"),
            () = std::future::ready(()) => {}
        }
        drop(second);
        settled.await;
        drop(first);
        account.emptied().await;
        assert_eq!(*account.count.borrow(), Count::default());
    }

    /// Two parents that wait for children would otherwise keep the only two places from them.
    #[tokio::test]
    async fn who_waits_takes_no_place() {
        let account = Account::new(1);
        let parent = enter(&account, "parent").expect("there is a place");
        let wait = async { enter(&account, "child").map(|child| child.process_id.clone()) };
        let child = parent.place().yielding(wait, std::future::pending()).await;
        assert_eq!(child, Ok(id("child")));
        assert_eq!(enter(&account, "other").expect_err("the parent has its place again"), NotEntered::Full);
    }
}
