//! One attempt: the work with its heartbeat beside it, and how it ends.
//!
//! One heartbeat renews the lease, reports progress and hears a cancellation.

use super::{Inner, LEASE, RENEW, adopt, backup, copy, export, import, lock, plan, record, restore, restore_cluster, verify};
use crate::artifacts::Folder;
use crate::backup::BackupId;
use crate::cluster::Timestamp;
use crate::failure::{Failure, Reason};
use crate::operation::{Epoch, Fault, Left, Operation, OperationId, Outcome, Progress, Publication, ShardProgress, Spec, State, Step, Written};
use crate::snapshot::{Meter, Waits};
use crate::store::{self, Completion};
use crate::telemetry::metrics::{FENCED, HAND_BACKS, RETRIES, STEP_SECONDS, WINDOW_WAITS};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// How often progress is recorded.
const BEAT: Duration = Duration::from_secs(1);

/// How long a store that cannot be written is tried for the end of an attempt.
const END_TRIES: u32 = 5;

/// How the work of an attempt ended.
pub(super) enum End {
    /// It is done: the operation has its outcome.
    Done(Box<Completion>),
    /// It failed; another attempt may help, not before the wait is over.
    Retry {
        /// Whose fault it was.
        fault: Fault,
        /// What went wrong.
        failure: Failure,
        /// Least wait.
        wait: Duration,
    },
    /// It may not go on at this time of day, and has begun nothing; another attempt follows from `until` on.
    Deferred {
        /// When it may.
        until: Timestamp,
        /// What is waited for, in words.
        waiting_for: String,
    },
    /// It failed, and another attempt would not help.
    Failed(Failure),
    /// Another attempt has begun, or the operation has ended: nothing more may be written.
    Fenced,
    /// It was told to stop.
    Stopped,
}

impl From<store::Error> for End {
    fn from(fault: store::Error) -> Self {
        match fault {
            store::Error::Fenced(_) | store::Error::NoOperation => Self::Fenced,
            store::Error::Cancelling => Self::Stopped,
            store::Error::NoBackup => Self::Failed(Failure::new(Reason::Gone, "the backup is gone")),
            store::Error::NoCluster => Self::Failed(Failure::new(Reason::Gone, "the cluster is gone")),
            fault => Self::Retry {
                fault: Fault::Storage,
                failure: Failure::new(Reason::Internal, format!("the store refused a step: {fault}")),
                wait: Duration::from_secs(1),
            },
        }
    }
}

/// An attempt that runs in this process, as others see it.
pub(super) struct Running {
    epoch: Epoch,
    /// The work is to stop, for whatever reason.
    stop: CancellationToken,
    /// A caller wants it to stop.
    cancelled: CancellationToken,
    progress: Mutex<Live>,
}

/// What progress is made of while the work runs.
#[derive(Default)]
struct Live {
    shards: Vec<(ShardProgress, Option<Arc<Meter>>)>,
    waits: Waits,
    rate: Rate,
    left: Option<Box<Left>>,
    written: Option<Box<Written>>,
}

/// Bytes a second, smoothed over a few seconds.
#[derive(Default)]
struct Rate {
    last: Option<(Instant, u64)>,
    per_second: f64,
}

impl Rate {
    /// Weight of the newest second.
    const NEWEST: f64 = 0.4;

    fn take(&mut self, bytes: u64) {
        let now = Instant::now();
        if let Some((at, before)) = self.last {
            let seconds = (now - at).as_secs_f64();
            if seconds <= 0.0 {
                return;
            }
            let speed = bytes.saturating_sub(before) as f64 / seconds;
            self.per_second = if self.per_second == 0.0 { speed } else { Self::NEWEST * speed + (1.0 - Self::NEWEST) * self.per_second };
        }
        self.last = Some((now, bytes));
    }
}

impl Running {
    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(super) fn cancel(&self) {
        self.cancelled.cancel();
    }

    pub(super) fn progress(&self) -> Progress {
        let live = lock(&self.progress);
        // While one shard moves, so does the work.
        let mut waits = live.shards.iter().filter_map(|(_, meter)| meter.as_ref().filter(|meter| !meter.ended())).map(|meter| meter.waiting_for());
        let first = waits.next().unwrap_or_default();
        let waiting_for = match live.waits.now().unwrap_or_default() {
            "" if waits.all(|wait| !wait.is_empty()) => first,
            wait => wait.to_owned(),
        };
        let shards = live.shards.iter().map(|(shard, meter)| {
            let mut shard = shard.clone();
            if let Some(meter) = meter {
                shard.bytes = meter.bytes();
                shard.stored_bytes = meter.stored_bytes();
                shard.keys = meter.keys();
                shard.bytes_expected = meter.bytes_expected();
            }
            shard
        });
        let (left, written) = (live.left.clone(), live.written.clone());
        Progress { shards: shards.collect(), bytes_per_second: live.rate.per_second as u64, waiting_for, left, written }
    }

    fn beat(&self) {
        let mut live = lock(&self.progress);
        let bytes = live.shards.iter().filter_map(|(_, meter)| Some(meter.as_ref()?.bytes())).sum();
        live.rate.take(bytes);
    }
}

/// What the work of an attempt may use.
pub(super) struct Context {
    pub(super) inner: Arc<Inner>,
    pub(super) operation: Operation,
    pub(super) stop: CancellationToken,
    running: Arc<Running>,
    /// The step under way, and when it started.
    since: Mutex<(Step, Instant)>,
}

impl Context {
    pub(super) fn id(&self) -> OperationId {
        self.operation.id
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.operation.epoch
    }

    /// The backup that the work is on.
    pub(super) fn backup_id(&self) -> Result<BackupId, End> {
        self.operation.backup_id.ok_or_else(|| End::Failed(Failure::new(Reason::Internal, "the operation names no backup")))
    }

    /// Records that a step starts.
    pub(super) async fn step(&self, step: Step, publication: Option<(Publication, Vec<u8>)>) -> Result<Operation, End> {
        let operation = self.inner.store.step(self.id(), self.epoch(), step, publication).await?;
        self.pass(step);
        self.inner.changed(self.id());
        tracing::debug!(operation.id = %self.id(), epoch = %self.epoch(), ?step, "a step starts");
        Ok(operation)
    }

    /// Counts the time of the step under way, which ends well, and begins another.
    fn pass(&self, next: Step) {
        let (step, started) = std::mem::replace(&mut *lock(&self.since), (next, Instant::now()));
        self.inner.metrics.histogram(&STEP_SECONDS, &[step.as_str()]).record(started.elapsed());
    }

    /// Records how far the work is, now.
    pub(super) async fn record_progress(&self) -> Result<(), End> {
        self.inner.store.progress(self.id(), self.epoch(), self.running.progress()).await?;
        Ok(())
    }

    /// Removes what an interrupted put left in a folder that is kept, and so is never collected. Best effort: it is litter, no
    /// harm.
    pub(super) async fn remove_remains(&self, folder: &Folder) {
        if let Err(error) = self.inner.storage.remove_remains(folder).await {
            tracing::warn!(operation.id = %self.id(), error = %error, "what an interrupted put left behind could not be removed");
        }
    }

    /// Tells what the work waits for; empty while it moves.
    pub(super) fn wait_for(&self, what: &str) {
        lock(&self.running.progress).waits.wait_for(what);
    }

    /// Each thing that the work as a whole waited for, with its time.
    pub(super) fn waits(&self) -> Vec<(String, Duration)> {
        lock(&self.running.progress).waits.all()
    }

    /// Tells that a shard comes from another host than was told before.
    pub(super) fn retrack(&self, shard: ShardProgress) {
        if let Some((present, _)) = lock(&self.running.progress).shards.iter_mut().find(|(present, _)| present.shard_name == shard.shard_name) {
            *present = shard;
        }
    }

    /// What a restore has changed of its target, in this attempt or one before.
    pub(super) fn left(&self) -> Option<Left> {
        lock(&self.running.progress).left.as_deref().cloned()
    }

    /// Records what a restore changes of its target; nothing when all of it was taken back. Durable on return.
    pub(super) async fn leave(&self, left: Option<Left>) -> Result<(), End> {
        lock(&self.running.progress).left = left.map(Box::new);
        self.record_progress().await
    }

    /// As [`Context::track`], in the place of what was told of the shard before.
    pub(super) fn track_anew(&self, shard: ShardProgress, meter: Arc<Meter>) {
        lock(&self.running.progress).shards.retain(|(present, _)| present.shard_name != shard.shard_name);
        self.track(shard, meter);
    }

    /// Tells how far a restore by key is; it is recorded with the progress.
    pub(super) fn tell_written(&self, written: Written) {
        lock(&self.running.progress).written = Some(Box::new(written));
    }

    /// Tells a shard that is being worked on, with the meter of its snapshot.
    pub(super) fn track(&self, shard: ShardProgress, meter: Arc<Meter>) {
        lock(&self.running.progress).shards.push((shard, Some(meter)));
    }
}

/// Runs a claimed operation to the end of this attempt.
pub(super) async fn run(inner: Arc<Inner>, operation: Operation) {
    let (id, epoch) = (operation.id, operation.epoch);
    let running = Arc::new(Running {
        epoch,
        stop: CancellationToken::new(),
        cancelled: CancellationToken::new(),
        progress: Mutex::new(Live {
            left: operation.progress.left.clone(),
            written: operation.progress.written.clone(),
            shards: operation.progress.shards.iter().map(|shard| (shard.clone(), None)).collect(),
            ..Live::default()
        }),
    });
    lock(&inner.running).insert(id, Arc::clone(&running));
    let started = Instant::now();
    let since = Mutex::new((operation.step().unwrap_or(operation.spec.first_step()), started));
    let context = Context { inner: Arc::clone(&inner), operation, stop: running.stop.clone(), running: Arc::clone(&running), since };
    let end = work(&context).await;
    {
        let mut all = lock(&inner.running);
        if all.get(&id).is_some_and(|present| Arc::ptr_eq(present, &running)) {
            all.remove(&id);
        }
    }
    record_end(&context, end, started.elapsed()).await;
    inner.changed(id);
    // With its end it has no place any more.
    inner.places.notify_waiters();
    inner.work.notify_one();
    inner.rubbish.notify_one();
    inner.drill_due.notify_one();
}

async fn work(context: &Context) -> End {
    let running = &context.running;
    let doing = async {
        match &context.operation.spec {
            Spec::CreateBackup => backup::run(context).await,
            Spec::UpdateBackup(changes) => record::update(context, changes).await,
            Spec::DeleteBackup => record::delete(context).await,
            Spec::CopyBackup { source } => copy::run(context, *source).await,
            Spec::ExportBackup(target) => export::run(context, target).await,
            Spec::ImportBackup(source) => import::run(context, source).await,
            Spec::AdoptCluster => adopt::adopt(context).await,
            Spec::UpdateConnection => adopt::update_connection(context).await,
            Spec::ForgetCluster => adopt::forget(context),
            Spec::UndeleteBackup => record::undelete(context).await,
            Spec::VerifyBackup { level } => verify::run(context, *level).await,
            Spec::RestoreInto(target) => restore::run(context, target).await,
            Spec::UpdateCluster(changes) => plan::update_cluster(context, changes).await,
            Spec::CreatePolicy(policy) => plan::create_policy(context, policy).await,
            Spec::DeletePolicy { .. } => plan::delete_policy(context).await,
            Spec::RestoreCluster(plan) => restore_cluster::run(context, plan).await,
            Spec::DeleteCluster => restore_cluster::delete(context).await,
        }
    };
    let interrupted = {
        tokio::pin!(doing);
        tokio::select! {
            end = &mut doing => return end,
            end = heartbeat(context) => end,
            () = running.cancelled.cancelled() => End::Stopped,
            () = context.inner.drained.cancelled() => End::Stopped,
        }
    };
    // Work that is past the point of no return goes on; the heartbeat was only told that it is so.
    running.stop.cancel();
    // Nobody else may touch the target while this attempt counts, and it may not once another does.
    if let (Spec::RestoreInto(target), End::Stopped) = (&context.operation.spec, &interrupted) {
        restore::let_go(context, target).await;
    }
    interrupted
}

/// Beats until the attempt is over; returns when it must stop.
async fn heartbeat(context: &Context) -> End {
    let mut tick = tokio::time::interval(BEAT);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut renewed = Instant::now();
    let mut told = Progress::default();
    loop {
        tick.tick().await;
        context.running.beat();
        let store = &context.inner.store;
        let answer = if renewed.elapsed() >= RENEW {
            renewed = Instant::now();
            store.renew(context.id(), context.epoch(), LEASE).await
        } else {
            let progress = context.running.progress();
            if progress == told {
                continue;
            }
            told = progress.clone();
            store.progress(context.id(), context.epoch(), progress).await
        };
        match answer {
            Ok(operation) => {
                context.inner.changed(context.id());
                if let State::Cancelling { .. } = operation.state {
                    return End::Stopped;
                }
            }
            Err(store::Error::Fenced(_) | store::Error::NoOperation) => return End::Fenced,
            // The store is away. The epoch still guards every write, so the stream may go on.
            Err(fault) => tracing::warn!(operation.id = %context.id(), error = %fault, "a heartbeat was not recorded"),
        }
    }
}

async fn record_end(context: &Context, end: End, elapsed: Duration) {
    let (inner, id, epoch) = (&context.inner, context.id(), context.epoch());
    // Nobody sees the end before the fleet shows what it changed.
    let turn = if context.operation.spec.changes_cluster() { Some(inner.cluster_changes.lock().await) } else { None };
    for attempt in 1..=END_TRIES {
        let recorded = match &end {
            End::Done(completion) => inner.store.complete(id, epoch, (**completion).clone()).await,
            End::Failed(failure) => inner.store.complete(id, epoch, Completion { outcome: Outcome::Failed(failure.clone()), backup: None }).await,
            End::Retry { fault, failure, wait } => inner.store.retry(id, epoch, *wait, *fault, failure.clone()).await,
            End::Deferred { until, waiting_for } => inner.store.defer(id, epoch, *until, inner.deadline(*until), waiting_for.clone()).await,
            // In the state CANCELLING this ends it; in RUNNING it goes back to the queue.
            End::Stopped => inner.store.hand_back(id, epoch).await,
            End::Fenced => {
                inner.count(&FENCED, &[]);
                tracing::warn!(operation.id = %id, %epoch, "an attempt found that it is over; it writes nothing more");
                return;
            }
        };
        match recorded {
            Ok(operation) => {
                if turn.is_some() {
                    inner.follow(&operation.cluster_id).await;
                }
                count_end(context, &operation, &end);
                return log_end(&operation, &end, elapsed);
            }
            Err(store::Error::Fenced(_) | store::Error::NoOperation) => {
                inner.count(&FENCED, &[]);
                tracing::warn!(operation.id = %id, %epoch, "the end of an attempt came too late and was dropped");
                return;
            }
            Err(fault) => {
                tracing::error!(operation.id = %id, %epoch, error = %fault, attempt, "the end of an attempt could not be recorded");
                tokio::time::sleep(Duration::from_millis(200) * attempt).await;
            }
        }
    }
}

fn count_end(context: &Context, operation: &Operation, end: &End) {
    match (&operation.state, end) {
        (State::Queued { .. }, End::Retry { failure, .. }) => context.inner.count(&RETRIES, &[failure.reason.as_str()]),
        (State::Queued { .. }, End::Deferred { .. }) => context.inner.count(&WINDOW_WAITS, &[]),
        (State::Queued { .. }, _) => context.inner.count(&HAND_BACKS, &[]),
        (State::Succeeded(_), _) => {
            let (step, _) = *lock(&context.since);
            context.pass(step);
        }
        (State::Running { .. } | State::Cancelling { .. } | State::Failed(_) | State::Cancelled, _) => {}
    }
}

fn log_end(operation: &Operation, end: &End, elapsed: Duration) {
    let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    let (id, epoch) = (operation.id, operation.epoch);
    match (&operation.state, end) {
        (State::Queued { not_before }, End::Retry { failure, .. }) => {
            tracing::warn!(operation.id = %id, %epoch, elapsed_ms, reason = %failure.reason, not_before = %not_before, "an attempt failed, another follows: {failure}");
        }
        (State::Queued { not_before }, End::Deferred { .. }) => {
            tracing::info!(operation.id = %id, %epoch, elapsed_ms, not_before = %not_before, "no snapshot may start now; the operation waits");
        }
        (State::Queued { .. }, _) => tracing::info!(operation.id = %id, %epoch, elapsed_ms, "an attempt was handed back"),
        (State::Failed(failure), _) => tracing::error!(operation.id = %id, %epoch, elapsed_ms, reason = %failure.reason, "the operation failed: {failure}"),
        (State::Cancelled, _) => tracing::info!(operation.id = %id, %epoch, elapsed_ms, "the operation was cancelled"),
        (State::Succeeded(_), _) => tracing::info!(operation.id = %id, %epoch, elapsed_ms, "{}: done", operation.description),
        (State::Running { .. } | State::Cancelling { .. }, _) => {}
    }
}
