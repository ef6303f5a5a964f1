//! Backups by themselves: what is due, and what became of it.
//!
//! Looks at every cluster again and again, by the clock that it was given. What a cluster's calendar plans becomes a *run*; a run
//! becomes an operation like any other, some time after the begin of the window, so that many clusters do not begin at once; one
//! that fails is followed by another. How far a cluster has come is a row of the store that is only changed by whoever has read its
//! latest form, and each operation has a key that is made of cluster, planned instant and number: so several processes need no leader,
//! and neither a restart nor a clock that jumps doubles a backup.
//!
//! Owns no calendar and takes no backup: the first is `cluster::calendar`'s business, the second the executor's.

use crate::backup::{BadName, kept_until};
use crate::cluster::calendar::{Calendar, Slot, backup_name};
use crate::cluster::{ClusterId, Timestamp};
use crate::executor::{Caller, Executor, Scheduled};
use crate::fleet::Definition;
use crate::operation::{Operation, OperationId, State};
use crate::store::{Clock, Error, Planned, Recorded, Run};
use crate::telemetry::crash_point;
use crate::telemetry::metrics::{Metrics, SCHEDULED};
use aws_lc_rs::digest;
use chrono::{TimeDelta, Utc};
use futures_util::{StreamExt, stream};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Who asks for scheduled backups.
pub const CALLER: &str = "redkeep/schedule";

/// Clusters that are looked at side by side.
const AT_ONCE: usize = 64;

/// How often all clusters are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Wait before a cluster that another operation holds, or a full queue, is asked again.
const BUSY_SECS: i64 = 60;

/// How long after its planned instant a backup may still be asked for, again or for the first time: until it is the next day's turn,
/// unless it is to be caught up for longer.
const RUN: Duration = Duration::from_secs(24 * 3600);

/// How far ahead of the clock the settled instants may lie before the clock is believed to have been wrong when they were settled, in
/// seconds: two days, so that a clock that jumps by one and comes back doubles nothing.
const AHEAD_SECS: i64 = 2 * 24 * 3600;

/// Names that are tried for one backup.
const NAMES: u32 = 1000;

/// Most things that one look settles for one cluster.
const TURNS: usize = 8;

/// Lateness with which a backup still counts as on time, whatever is set.
const ON_TIME: Duration = Duration::from_secs(60);

/// Days that are looked at for what is due beyond those in which something may be caught up: zones differ, and clocks jump.
const MORE_DAYS: u64 = 2;

/// How backups are taken by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The part of a window, from its begin on, over which the clusters are spread.
    pub spread: Duration,
    /// How long after its planned instant a backup that was missed is caught up.
    pub catch_up: Duration,
    /// Operations that may follow a failed one.
    pub retries: u32,
    /// Wait before one does.
    pub retry_delay: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { spread: Duration::from_secs(30 * 60), catch_up: Duration::from_secs(24 * 3600), retries: 2, retry_delay: Duration::from_secs(600) }
    }
}

/// What became of a planned backup, as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// An operation was accepted for it.
    Started,
    /// It is there.
    Succeeded,
    /// An operation failed, and another follows.
    Retried,
    /// The last operation failed, or somebody has cancelled it.
    Failed,
    /// It was never begun.
    Missed,
}

impl Fate {
    const ALL: [Self; 5] = [Self::Started, Self::Succeeded, Self::Retried, Self::Failed, Self::Missed];

    fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Succeeded => "succeeded",
            Self::Retried => "retried",
            Self::Failed => "failed",
            Self::Missed => "missed",
        }
    }
}

/// What is known of one cluster between two looks.
struct Known {
    definition: Arc<Definition>,
    calendar: Option<Calendar>,
    /// The row as it was seen last; only who has its latest form can change it.
    planned: Option<Planned>,
}

/// Asks for backups when they are due.
pub struct Schedule {
    executor: Executor,
    clock: Clock,
    options: Options,
    known: HashMap<ClusterId, Known>,
}

impl Schedule {
    /// A schedule that goes by `clock`. Nothing is asked for before [`Schedule::run`] or [`Schedule::look`].
    pub fn new(executor: Executor, clock: Clock, options: Options) -> Self {
        for fate in Fate::ALL {
            // A rise from nothing would not be seen as one.
            drop(executor.metrics().counter(&SCHEDULED, &[fate.as_str()]));
        }
        Self { executor, clock, options, known: HashMap::new() }
    }

    /// Looks again and again until `stop` is cancelled.
    ///
    /// # Cancel safety
    ///
    /// If dropped, the next process goes on from what is recorded.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if stop.run_until_cancelled(self.look()).await.is_none() {
                break;
            }
        }
    }

    /// Looks at every cluster once, and asks for what is due. A cluster that cannot be looked at is looked at again next time.
    ///
    /// # Cancel safety
    ///
    /// If dropped, the next look begins from what is recorded.
    pub async fn look(&mut self) {
        let now = self.clock.now();
        let mut known = std::mem::take(&mut self.known);
        let this = &*self;
        let looks = this.executor.fleet().all().into_iter().map(|cluster| {
            let before = known.remove(&cluster.id);
            async move { (cluster.id.clone(), this.look_at(cluster, before, now).await) }
        });
        // Several at once: the store writes in groups.
        let looked: Vec<_> = stream::iter(looks).buffer_unordered(AT_ONCE).collect().await;
        for (id, outcome) in looked {
            match outcome {
                Ok(known) => drop(self.known.insert(id, known)),
                Err(fault) => tracing::error!(cluster.id = %id, error = %fault, "the schedule of a cluster could not be followed; it is tried again"),
            }
        }
    }

    async fn look_at(&self, cluster: Arc<Definition>, before: Option<Known>, now: Timestamp) -> Result<Known, Error> {
        let known = match before {
            Some(known) if Arc::ptr_eq(&known.definition, &cluster) => known,
            Some(known) => Known { calendar: cluster.calendar(), definition: cluster, planned: known.planned },
            None => {
                let planned = self.executor.store().planned(&cluster.id).await?;
                Known { calendar: cluster.calendar(), definition: cluster, planned }
            }
        };
        let planned = self.follow(&known, now).await?;
        Ok(Known { planned, ..known })
    }

    /// Takes a cluster as far as it can go now, and gives the row as it stands then.
    async fn follow(&self, known: &Known, now: Timestamp) -> Result<Option<Planned>, Error> {
        let id = &known.definition.id;
        let mut planned = known.planned.clone();
        // Each turn settles something: a change of the calendar, the end of a run, a new one, its operation.
        for _ in 0..TURNS {
            let next = match (&planned, &known.calendar) {
                (Some(planned), _) => self.turn(known, planned, now).await?,
                // The first sight of a cluster begins with what comes.
                (None, Some(calendar)) => Some((Planned { calendar: calendar.words().to_owned(), settled_at: now, open: None }, Vec::new())),
                (None, None) => None,
            };
            let Some((next, fates)) = next else { break };
            match self.executor.store().plan(id, planned, next.clone()).await? {
                Recorded::Ours => fates.iter().for_each(|fate| self.count(*fate)),
                // Another process looks after it at this moment.
                Recorded::Theirs(standing) => return Ok(standing),
            }
            planned = Some(next);
        }
        Ok(planned)
    }

    /// What is to be recorded next; `None` when there is nothing to do now.
    async fn turn(&self, known: &Known, planned: &Planned, now: Timestamp) -> Result<Option<(Planned, Vec<Fate>)>, Error> {
        let id = &known.definition.id;
        let words = known.calendar.as_ref().map_or("", Calendar::words);
        if planned.calendar != words {
            // Another calendar begins with what comes; what is under way goes on.
            let settled_at = planned.settled_at.max(now);
            return Ok(Some((Planned { calendar: words.to_owned(), settled_at, open: planned.open.clone() }, Vec::new())));
        }
        if planned.settled_at > now + TimeDelta::seconds(AHEAD_SECS) {
            tracing::warn!(cluster.id = %id, settled_at = %planned.settled_at, "the clock was set back by days; what is planned begins anew from now");
            return Ok(Some((Planned { settled_at: now, ..planned.clone() }, Vec::new())));
        }
        match (&planned.open, &known.calendar) {
            (Some(run), _) => self.go_on(known, planned, run, now).await,
            (None, Some(calendar)) => Ok(self.begin(id, calendar, planned, now)),
            (None, None) => Ok(None),
        }
    }

    /// What is due and not settled.
    fn due(&self, calendar: &Calendar, planned: &Planned, now: Timestamp) -> Option<Slot> {
        calendar.latest(planned.settled_at, now, self.options.catch_up.as_secs().div_ceil(24 * 3600) + MORE_DAYS)
    }

    /// Begins the run of what is due, if anything is.
    fn begin(&self, id: &ClusterId, calendar: &Calendar, planned: &Planned, now: Timestamp) -> Option<(Planned, Vec<Fate>)> {
        let slot = self.due(calendar, planned, now)?;
        let late = (now - slot.at).to_std().unwrap_or_default();
        let settled = Planned { settled_at: slot.at, ..planned.clone() };
        if late > self.options.catch_up.max(self.options.spread).max(ON_TIME) {
            tracing::warn!(cluster.id = %id, planned_at = %slot.at, "a scheduled backup was missed, and is too old to be caught up");
            return Some((settled, vec![Fate::Missed]));
        }
        // What is late is spread from now on: a restart must not begin everything at once.
        let from = if late > self.options.spread { now } else { slot.at };
        let run = Run {
            planned_at: slot.at,
            policy_id: slot.policy_id,
            retain_days: slot.retain_days,
            attempt: 1,
            start_at: later(from, jitter(id, slot.at, self.options.spread)),
            operation_id: None,
        };
        tracing::info!(cluster.id = %id, planned_at = %run.planned_at, start_at = %run.start_at, "a scheduled backup is due");
        Some((Planned { open: Some(run), ..settled }, Vec::new()))
    }

    async fn go_on(&self, known: &Known, planned: &Planned, run: &Run, now: Timestamp) -> Result<Option<(Planned, Vec<Fate>)>, Error> {
        match run.operation_id {
            Some(operation) => self.await_end(known, planned, run, operation, now).await,
            None => self.start(known, planned, run, now).await,
        }
    }

    /// Sees how the operation of a run has ended.
    async fn await_end(
        &self,
        known: &Known,
        planned: &Planned,
        run: &Run,
        operation: OperationId,
        now: Timestamp,
    ) -> Result<Option<(Planned, Vec<Fate>)>, Error> {
        let id = &known.definition.id;
        let over = |fate| Ok(Some((Planned { open: None, ..planned.clone() }, vec![fate])));
        let state = match self.executor.store().get(operation).await {
            Ok(Operation { state, .. }) => state,
            // It has ended so long ago that its record has gone.
            Err(Error::NoOperation) => return Ok(Some((Planned { open: None, ..planned.clone() }, Vec::new()))),
            Err(fault) => return Err(fault),
        };
        match state {
            State::Queued { .. } | State::Running { .. } | State::Cancelling { .. } => Ok(None),
            State::Succeeded(_) => over(Fate::Succeeded),
            State::Cancelled => {
                tracing::warn!(cluster.id = %id, operation.id = %operation, planned_at = %run.planned_at, "a scheduled backup was cancelled; it is not taken");
                over(Fate::Failed)
            }
            State::Failed(failure) => {
                let start_at = later(now, self.options.retry_delay);
                let is_newer_due = known.calendar.as_ref().is_some_and(|calendar| self.due(calendar, planned, now).is_some());
                if run.attempt > self.options.retries || known.calendar.is_none() || is_newer_due || start_at >= self.end_of(run) {
                    tracing::error!(
                        cluster.id = %id, operation.id = %operation, planned_at = %run.planned_at, attempts = run.attempt, reason = %failure.reason,
                        "a scheduled backup failed, and is not tried again: {failure}"
                    );
                    return over(Fate::Failed);
                }
                tracing::warn!(cluster.id = %id, operation.id = %operation, planned_at = %run.planned_at, %start_at, "a scheduled backup failed; another operation follows");
                let run = Run { attempt: run.attempt + 1, start_at, operation_id: None, ..run.clone() };
                Ok(Some((Planned { open: Some(run), ..planned.clone() }, vec![Fate::Retried])))
            }
        }
    }

    /// From when on a run is not taken up any more.
    fn end_of(&self, run: &Run) -> Timestamp {
        later(run.planned_at, RUN.max(self.options.catch_up + self.options.spread))
    }

    /// Asks for the backup of a run when it is time.
    async fn start(&self, known: &Known, planned: &Planned, run: &Run, now: Timestamp) -> Result<Option<(Planned, Vec<Fate>)>, Error> {
        let id = &known.definition.id;
        let without = Planned { open: None, ..planned.clone() };
        let given_up = |why: &str, fate: Fate| {
            tracing::warn!(cluster.id = %id, planned_at = %run.planned_at, "a scheduled backup is not taken: {why}");
            Ok(Some((without.clone(), vec![fate])))
        };
        let fate = if run.attempt == 1 { Fate::Missed } else { Fate::Failed };
        let Some(calendar) = &known.calendar else { return given_up("the schedule was taken from the cluster", fate) };
        if run.planned_at > now {
            // The clock was ahead when it fell due. It does so again.
            return Ok(Some((Planned { settled_at: now, ..without }, Vec::new())));
        }
        if self.due(calendar, planned, now).is_some() {
            return given_up("the next one is due", fate);
        }
        if now >= self.end_of(run) {
            return given_up("the cluster was held by other work for too long", fate);
        }
        // A wait that is longer than any that is set was set by a clock that was wrong.
        let longest = self.options.spread.max(self.options.retry_delay) + Duration::from_secs(BUSY_SECS as u64);
        if now < run.start_at && run.start_at <= later(now, longest) {
            return Ok(None);
        }
        match self.ask(&known.definition, run).await {
            Ok(operation) => {
                crash_point("schedule.asked");
                let run = Run { operation_id: Some(operation.id), ..run.clone() };
                Ok(Some((Planned { open: Some(run), ..planned.clone() }, vec![Fate::Started])))
            }
            Err(busy @ (Error::Conflict(_) | Error::QueueFull(_))) => {
                tracing::info!(cluster.id = %id, planned_at = %run.planned_at, "a scheduled backup waits: {busy}");
                let run = Run { start_at: now + TimeDelta::seconds(BUSY_SECS), ..run.clone() };
                Ok(Some((Planned { open: Some(run), ..planned.clone() }, Vec::new())))
            }
            Err(fault) => Err(fault),
        }
    }

    /// Accepts the operation of a run, or finds the one that was accepted for it.
    async fn ask(&self, cluster: &Definition, run: &Run) -> Result<Operation, Error> {
        let expires_at = run.retain_days.and_then(|days| kept_until(run.planned_at, days));
        let key = format!("{}/{}/{}", cluster.id, run.planned_at.timestamp(), run.attempt);
        let mut digest = [0; 32];
        digest.copy_from_slice(digest::digest(&digest::SHA256, key.as_bytes()).as_ref());
        let mut taken = Error::Invalid("a scheduled backup has no name".to_owned());
        for number in 1..=NAMES {
            let name = backup_name(run.planned_at, number).parse().map_err(|bad: BadName| Error::Invalid(bad.to_string()))?;
            let scheduled = Scheduled { name, planned_at: run.planned_at, policy_id: run.policy_id.clone(), expires_at };
            let caller = Caller { subject: CALLER.to_owned(), key: Some((key.clone(), digest)) };
            match self.executor.create_scheduled_backup(cluster, scheduled, caller).await {
                Err(refused @ Error::NameTaken(_)) => taken = refused,
                answer => return answer,
            }
        }
        Err(taken)
    }

    fn count(&self, fate: Fate) {
        let metrics: &Metrics = self.executor.metrics();
        metrics.counter(&SCHEDULED, &[fate.as_str()]).increment(1);
    }
}

/// The instant this long after; the last one there is when there is none.
fn later(from: Timestamp, wait: Duration) -> Timestamp {
    TimeDelta::from_std(wait).ok().and_then(|wait| from.checked_add_signed(wait)).unwrap_or(chrono::DateTime::<Utc>::MAX_UTC)
}

/// The part of the window that a backup waits: the same for a cluster and a day wherever it is asked, and even over many clusters.
fn jitter(id: &ClusterId, planned_at: Timestamp, spread: Duration) -> Duration {
    let digest = digest::digest(&digest::SHA256, format!("{id}/{}", planned_at.timestamp()).as_bytes());
    let number = digest.as_ref().first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    // Whole seconds, and less than the spread.
    Duration::from_secs(number.checked_rem(spread.as_secs()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn clusters_are_spread_evenly_and_always_alike() {
        let (spread, at) = (Duration::from_secs(1800), "2026-11-20T22:00:00Z".parse().unwrap());
        let mut thirds = [0; 3];
        for index in 0..600 {
            let id: ClusterId = format!("c{index}").parse().unwrap();
            let wait = jitter(&id, at, spread);
            assert_eq!(wait, jitter(&id, at, spread));
            assert!(wait < spread);
            thirds[(wait.as_secs() / 600) as usize] += 1;
        }
        assert!(thirds.iter().all(|count| (150..=250).contains(count)), "{thirds:?}");
        assert_eq!(jitter(&"main".parse().unwrap(), at, Duration::ZERO), Duration::ZERO);
    }
}
