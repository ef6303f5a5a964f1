//! Removing what has had its time: the rules of retention, asked again and again for every cluster that has backups.
//!
//! What goes is deleted by an operation like any other, which the service asks for in its own name: it is listed, audited, and
//! can be taken back until the files go. A round judges on two looks at the rows: the first tells how the cluster stands, the second
//! judges each backup; and right before a deletion what it hangs on is looked at once more.
//!
//! A clock that was set forward makes everything old at once. So nothing is removed before the clock has gone steadily for a
//! while; that holds for the files of deleted backups, too.

use super::{Caller, Executor, Inner, lock};
use crate::audit::{Entry, Known};
use crate::backup::retention::{Keep, Standing, Verdict, is_good};
use crate::backup::{Backup, BackupId, Name};
use crate::cluster::policy::Plan;
use crate::cluster::{ClusterId, FolderId, Timestamp};
use crate::operation::{Door, OperationId, Spec};
use crate::store::{BackupFilter, Clock, Error};
use crate::telemetry::metrics::{RETENTION_BACKUPS, RETENTION_DELETED, RETENTION_ROUND};
use aws_lc_rs::digest;
use chrono::{TimeDelta, Utc};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// In whose name the service deletes.
pub const RETENTION: &str = "redkeep/retention";

/// What stands for the method in the audit log: no call came in.
const METHOD: &str = "redkeep.retention/Expire";

/// How often the clock is looked at.
const TICK: Duration = Duration::from_secs(1);

/// How far the clock may go ahead of one that cannot be set, between two looks.
const JUMP: TimeDelta = TimeDelta::seconds(5);

/// Rows that are read at once: rows can be long.
const READ_ROWS: usize = 100;

/// Clusters that are read at once.
const READ_CLUSTERS: usize = 100;

/// Most backups that one round deletes, over all clusters; the next round goes on.
const ROUND_DELETIONS: usize = 1000;

/// Most backups whose fate is told of one cluster.
const TOLD: usize = 10_000;

/// How what has had its time is removed.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether it is, by itself. A person may ask for it all the same.
    pub enabled: bool,
    /// Time between two rounds.
    pub period: Duration,
    /// How long the clock must have gone steadily before anything is removed: after the start, and after it was set forward.
    pub settle: Duration,
    /// The clock by which backups have had their time.
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        Self { enabled: true, period: Duration::from_secs(600), settle: Duration::from_secs(900), clock: Clock::system() }
    }
}

/// What becomes of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The backup.
    pub backup_id: BackupId,
    /// Its name.
    pub name: Name,
    /// When its age is over; absent when it has no end.
    pub ends_at: Option<Timestamp>,
    /// What becomes of it, and why.
    pub verdict: Verdict,
    /// The operation that deletes it, if one was asked for.
    pub operation_id: Option<OperationId>,
}

/// Why nothing was removed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unexpired {
    /// The clock was set forward lately.
    #[error("the system's clock was set forward a moment ago, so what seems old may not be; nothing is removed for another {} s", .0.as_secs() + 1)]
    Unsteady(Duration),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] Error),
}

/// The clock beside one that cannot be set.
pub(super) struct Steady {
    clock: Clock,
    settle: Duration,
    seen: Mutex<Seen>,
}

/// The last look at both.
struct Seen {
    wall: Timestamp,
    steady: Instant,
    unsteady_until: Option<Instant>,
}

impl Seen {
    /// Takes note of both clocks; tells how long nothing may be removed.
    fn look(&mut self, wall: Timestamp, steady: Instant, settle: Duration) -> Option<Duration> {
        let passed = TimeDelta::from_std(steady.saturating_duration_since(self.steady)).unwrap_or(TimeDelta::MAX);
        let ahead = (wall - self.wall).checked_sub(&passed).unwrap_or_default();
        (self.wall, self.steady) = (wall, steady);
        if ahead > JUMP {
            tracing::warn!(
                ahead_secs = ahead.num_seconds(),
                "the system's clock was set forward; no backup is removed before it has gone steadily for a while"
            );
            self.unsteady_until = steady.checked_add(settle);
        }
        self.unsteady_until.and_then(|until| until.checked_duration_since(steady)).filter(|left| !left.is_zero())
    }
}

impl Steady {
    pub(super) fn new(options: &Options) -> Self {
        let seen = Seen { wall: options.clock.now(), steady: Instant::now(), unsteady_until: None };
        Self { clock: options.clock.clone(), settle: options.settle, seen: Mutex::new(seen) }
    }

    /// How long nothing may be removed yet, because the clock was set forward; `None` when it has gone steadily.
    pub(super) fn unsteady(&self) -> Option<Duration> {
        let mut seen = lock(&self.seen);
        seen.look(self.clock.now(), Instant::now(), self.settle)
    }
}

/// Whether what is to go is deleted, or only told.
#[derive(Clone)]
enum Act {
    Tell,
    Delete(Caller),
}

/// Rounds until `stop`.
pub(super) async fn run(inner: Arc<Inner>, stop: CancellationToken) {
    let options = &inner.options.expiry;
    if !options.enabled {
        tracing::info!("nothing is removed by itself: retention.enabled is false");
        return;
    }
    // A machine that has just started may not know the time yet.
    let mut next = Instant::now() + options.settle;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(next.min(Instant::now() + TICK)) => {}
        }
        if inner.steady.unsteady().is_none() && Instant::now() >= next {
            if stop.run_until_cancelled(round(&inner)).await.is_none() {
                return;
            }
            next = Instant::now() + options.period;
        }
    }
}

/// Judges every backup of every cluster, and deletes what has had its time.
async fn round(inner: &Arc<Inner>) {
    let mut counts: BTreeMap<(&str, &str), u64> = Verdict::WORDS.iter().map(|words| (*words, 0)).collect();
    let mut left = ROUND_DELETIONS;
    let mut after = None;
    loop {
        let clusters = match inner.store.clusters_with_backups(after.as_ref(), READ_CLUSTERS).await {
            Ok(clusters) => clusters,
            Err(fault) => return tracing::error!(error = %fault, "the clusters that have backups could not be listed"),
        };
        for cluster in &clusters {
            let caller = Caller { subject: RETENTION.to_owned(), key: None };
            let mut see = |planned: Planned| *counts.entry(planned.verdict.words()).or_default() += 1;
            match judge_all(inner, cluster, None, &Act::Delete(caller), &mut left, &mut see).await {
                Ok(()) => {}
                Err(Error::QueueFull(_)) => return tracing::warn!("too many operations wait; what has had its time is removed later"),
                Err(fault) => tracing::error!(cluster.id = %cluster, error = %fault, "the backups of a cluster could not be judged"),
            }
        }
        after = clusters.last().cloned();
        if clusters.len() < READ_CLUSTERS {
            break;
        }
    }
    for ((fate, reason), count) in counts {
        inner.metrics.gauge(&RETENTION_BACKUPS, &[fate, reason]).set(count as f64);
    }
    inner.metrics.gauge(&RETENTION_ROUND, &[]).set(inner.options.expiry.clock.now().timestamp() as f64);
}

/// Backups of a cluster, newest first, page by page.
struct Pages<'a> {
    inner: &'a Inner,
    filter: BackupFilter,
    after: Option<BackupId>,
    ended: bool,
}

impl<'a> Pages<'a> {
    fn new(inner: &'a Inner, cluster: &ClusterId) -> Self {
        Self { inner, filter: BackupFilter::Cluster(cluster.clone()), after: None, ended: false }
    }

    async fn next(&mut self) -> Result<Option<Vec<Backup>>, Error> {
        if self.ended {
            return Ok(None);
        }
        let page = self.inner.store.backups(&self.filter, self.after, READ_ROWS).await?;
        self.ended = page.len() < READ_ROWS;
        self.after = page.last().map(|backup| backup.id);
        Ok(Some(page))
    }
}

/// Judges the backups of a cluster, newest first; those of another folder are none of its own.
async fn judge_all(
    inner: &Arc<Inner>,
    cluster: &ClusterId,
    folder: Option<&FolderId>,
    act: &Act,
    left: &mut usize,
    see: &mut (dyn FnMut(Planned) + Send),
) -> Result<(), Error> {
    let mut standings: BTreeMap<FolderId, Standing> = BTreeMap::new();
    let fits = |backup: &Backup| folder.is_none_or(|folder| backup.folder_id == *folder);
    let mut pages = Pages::new(inner, cluster);
    while let Some(page) = pages.next().await? {
        for backup in page.iter().filter(|backup| fits(backup)) {
            let standing = standings.entry(backup.folder_id.clone()).or_insert_with(|| Standing::new(plan(inner, &backup.folder_id, cluster)));
            standing.see(backup);
        }
    }
    let mut pages = Pages::new(inner, cluster);
    while let Some(page) = pages.next().await? {
        for backup in page.iter().filter(|backup| fits(backup)) {
            // One that came meanwhile is judged by the next round.
            let Some(standing) = standings.get(&backup.folder_id) else { continue };
            see(judge_one(inner, standing, backup, act, left).await?);
        }
    }
    Ok(())
}

async fn judge_one(inner: &Arc<Inner>, standing: &Standing, backup: &Backup, act: &Act, left: &mut usize) -> Result<Planned, Error> {
    let mut planned = Planned {
        backup_id: backup.id,
        name: backup.name.clone(),
        ends_at: standing.ends_at(backup),
        verdict: standing.judge(backup, inner.options.expiry.clock.now()),
        operation_id: None,
    };
    let (Verdict::Expire(ground), Act::Delete(caller)) = (&planned.verdict, act) else { return Ok(planned) };
    let is_allowed = *left > 0 && still_holds(inner, standing, backup).await?;
    match if is_allowed { delete(inner, backup, caller).await? } else { None } {
        Some(operation) => {
            *left -= 1;
            inner.count(&RETENTION_DELETED, &[ground.word()]);
            tracing::info!(backup.id = %backup.id, cluster.id = %backup.cluster_id, operation.id = %operation, "a backup goes: {}", planned.verdict);
            planned.operation_id = Some(operation);
        }
        None => planned.verdict = Verdict::Keep(Keep::Changed),
    }
    Ok(planned)
}

/// The plan by which the scheduled backups of a cluster have had their time; none for one that is not known any more.
fn plan(inner: &Inner, folder: &FolderId, cluster: &ClusterId) -> Option<Plan> {
    inner.fleet.get(cluster).filter(|cluster| cluster.folder_id == *folder).map(|cluster| cluster.plan.clone())
}

/// Whether what the verdict hangs on is still so: the one that has to stay is there, and the newest is not suspect.
async fn still_holds(inner: &Inner, standing: &Standing, backup: &Backup) -> Result<bool, Error> {
    let newest = inner.store.newest_available(&backup.folder_id, &backup.cluster_id).await?;
    if newest.is_some_and(|newest| standing.is_overtaken_by(&newest)) {
        return Ok(false);
    }
    let Some(keeper) = standing.keeper() else { return Ok(true) };
    match inner.store.backup(keeper).await {
        Ok(keeper) => Ok(keeper.is_available() && !keeper.is_suspect() && (is_good(&keeper) || !standing.has_good())),
        Err(Error::NoBackup) => Ok(false),
        Err(fault) => Err(fault),
    }
}

/// Asks for the deletion; `None` when the backup may not be deleted any more.
async fn delete(inner: &Arc<Inner>, backup: &Backup, caller: &Caller) -> Result<Option<OperationId>, Error> {
    // Whoever judges the same backup at the same time asks for the same operation. After it was brought back it is another one.
    let key = format!("expire/{}/{}", backup.id, backup.facts_revision);
    let hash = digest::digest(&digest::SHA256, key.as_bytes());
    let digest = hash.as_ref().first_chunk::<32>().copied().unwrap_or_default();
    let caller = Caller { subject: caller.subject.clone(), key: Some((key, digest)) };
    let subject = caller.subject.clone();
    let asked = Executor(Arc::clone(inner)).change_backup(backup.id, Door::Redkeep, Spec::DeleteBackup, caller).await;
    let (operation, outcome) = match asked {
        Ok(operation) => (Some(operation.id), "OK"),
        Err(Error::NoBackup | Error::Held(_) | Error::Conflict(_) | Error::NotAvailable(_)) => (None, "FAILED_PRECONDITION"),
        Err(fault) => return Err(fault),
    };
    // What a person asked for has its line by the call.
    if subject == RETENTION
        && let Some(audit) = inner.audit.get()
    {
        let known = Known {
            subject: Some(subject),
            folder: Some(backup.folder_id.to_string()),
            target: Some(format!("backups/{}", backup.id)),
            operation: operation.map(|id| id.to_string()),
            ..Known::default()
        };
        audit.write(&Entry { time: Utc::now(), request_id: Uuid::new_v4().to_string(), peer: None, method: METHOD, known, outcome }).await;
    }
    Ok(operation)
}

impl Executor {
    /// What the rules of retention would do to each backup of a cluster, newest first, at most 10,000. Changes nothing.
    ///
    /// # Errors
    ///
    /// As [`Store::backups`](crate::store::Store::backups).
    pub async fn plan_expiry(&self, folder: &FolderId, cluster: &ClusterId) -> Result<Vec<Planned>, Error> {
        self.judge(folder, cluster, Act::Tell).await
    }

    /// Deletes what has had its time of a cluster, in the name of `caller`, and tells what becomes of each backup. Each deletion
    /// is an operation that is durable on return.
    ///
    /// # Errors
    ///
    /// [`Unexpired::Unsteady`] when the clock was set forward lately; else as [`Store::create`](crate::store::Store::create), and
    /// some deletions may have been accepted then.
    pub async fn expire(&self, folder: &FolderId, cluster: &ClusterId, caller: Caller) -> Result<Vec<Planned>, Unexpired> {
        if let Some(left) = self.0.steady.unsteady() {
            return Err(Unexpired::Unsteady(left));
        }
        Ok(self.judge(folder, cluster, Act::Delete(caller)).await?)
    }

    async fn judge(&self, folder: &FolderId, cluster: &ClusterId, act: Act) -> Result<Vec<Planned>, Error> {
        let mut told = Vec::new();
        let mut left = ROUND_DELETIONS;
        let mut see = |planned| {
            if told.len() < TOLD {
                told.push(planned);
            }
        };
        judge_all(&self.0, cluster, Some(folder), &act, &mut left, &mut see).await?;
        Ok(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_forward_is_waited_for() {
        let (start, settle) = (Instant::now(), Duration::from_secs(900));
        let day = TimeDelta::days(1);
        let wall = Timestamp::UNIX_EPOCH;
        let mut seen = Seen { wall, steady: start, unsteady_until: None };
        let at = |secs| start + Duration::from_secs(secs);
        let and = |secs| TimeDelta::seconds(secs);
        assert_eq!(seen.look(wall + and(60), at(60), settle), None);
        // Corrections of a moment are borne, also at a long distance, and so is a clock that is set back.
        assert_eq!(seen.look(wall + and(64), at(61), settle), None);
        assert_eq!(seen.look(wall - day, at(62), settle), None);
        assert_eq!(seen.look(wall - day + and(8), at(70), settle), None);
        assert_eq!(seen.look(wall + and(71), at(71), settle), Some(settle));
        assert_eq!(seen.look(wall + and(671), at(671), settle), Some(Duration::from_secs(300)));
        // Another jump begins the wait anew.
        assert_eq!(seen.look(wall + day + and(700), at(700), settle), Some(settle));
        assert_eq!(seen.look(wall + day + and(1599), at(1599), settle), Some(Duration::from_secs(1)));
        assert_eq!(seen.look(wall + day + and(1600), at(1600), settle), None);
    }
}
