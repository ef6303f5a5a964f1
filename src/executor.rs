//! Work on operations: accept, claim, keep the lease, repeat, cancel, hand back, clean up.
//!
//! Work may run more than once; its end is recorded once. Every write of an attempt goes through the store with the
//! attempt's epoch, and a late worker's write is dropped and counted.
//!
//! ```text
//! submit -> store.create -> wake -> store.claim -> attempt (heartbeat beside the work) -> store.complete
//! ```

mod adopt;
mod attempt;
mod backup;
mod collect;
mod copy;
mod coverage;
mod download;
mod export;
mod fault;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod impact;
mod import;
mod permit;
mod record;
mod restore;
mod restore_keys;
mod shards;
mod side;
mod stored;
mod suspect;
mod window;

pub use adopt::{Access, Adoption, CLUSTERS, Refused};
pub use download::{File, Files, Unreadable};
pub use restore::{RestoreOptions, RestoreRefused};

use crate::artifacts::Storage;
use crate::artifacts::bucket::Key;
use crate::backup::{Backup, BackupId, Labels, Name, Source};
use crate::cluster::{ClusterId, FolderId, Timestamp};
use crate::failure::Reason;
use crate::fleet::{Definition, Fleet};
use crate::operation::{Door, Epoch, ExportTarget, ImportSource, Operation, OperationId, Policy, Progress, Spec, State, Tally};
use crate::snapshot::Pace;
use crate::store::{Create, Created, Error, Idempotency, Store, Zones};
use crate::telemetry::metrics::{FILES_DELETED, FORKS, Family, Metrics, RETRIES, SNAPSHOT_BYTES, WINDOW_WAITS};
use attempt::Running;
use chrono::{TimeDelta, Utc};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Longest time that a call may wait for an operation.
pub const WAIT_LIMIT: Duration = Duration::from_secs(60);

/// How often what was slept through is looked up all the same: wake-ups are hints.
const POLL: Duration = Duration::from_secs(1);

/// How often an attempt's lease is renewed.
const RENEW: Duration = Duration::from_secs(5);

/// Room for a renewal to be recorded.
const BREATH: Duration = Duration::from_secs(1);

/// Attempts that may wait for a machine beside those that work: they cost nothing, and must not keep others out.
const WAITING: usize = 64;

/// Length of a lease.
const LEASE: Duration = Duration::from_secs(15);

/// How the executor works.
#[derive(Clone, Debug)]
pub struct Options {
    /// Operations at once.
    pub workers: usize,
    /// Snapshots of one machine at once, over all processes.
    pub snapshots_per_host: usize,
    /// Snapshots of one cluster at once.
    pub shards_at_once: usize,
    /// How long running work may go on at a graceful stop.
    pub drain: Duration,
    /// Least wait after a failed attempt that reached the fork.
    pub refork_delay: Duration,
    /// How long after its creation an operation's attempts may start.
    pub deadline: Duration,
    /// Zones served.
    pub zones: Zones,
    /// How long a deleted backup's files stay.
    pub delete_grace: Duration,
    /// How long ended operations are kept.
    pub retention: Duration,
    /// Bytes of dumps a second that all snapshots of the process read together; as fast as it goes when absent.
    pub rate_limit: Option<u64>,
    /// Whether password hashes are part of the side state, which is to be encrypted then.
    pub side_password_hashes: bool,
    /// Server programs of this machine; those on the path when there is none.
    pub engines: Vec<PathBuf>,
    /// How dumps are brought into running servers.
    pub restore: RestoreOptions,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            workers: 16,
            snapshots_per_host: 1,
            shards_at_once: 4,
            drain: Duration::from_secs(30),
            refork_delay: Duration::from_secs(600),
            deadline: Duration::from_secs(3600),
            zones: Zones::default(),
            delete_grace: Duration::from_secs(24 * 3600),
            retention: Duration::from_secs(30 * 24 * 3600),
            rate_limit: None,
            side_password_hashes: false,
            engines: Vec::new(),
            restore: RestoreOptions::default(),
        }
    }
}

/// Who asks, and by which key the call can be repeated.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The subject.
    pub subject: String,
    /// The key with the digest of the request.
    pub key: Option<(String, [u8; 32])>,
}

impl Caller {
    fn idempotency(&self) -> Option<Idempotency> {
        let (key, digest) = self.key.as_ref()?;
        Some(Idempotency { caller: self.subject.clone(), key: key.clone(), digest: *digest })
    }
}

/// The backup to be made.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Its name.
    pub name: Name,
    /// Its labels.
    pub labels: Labels,
    /// When it may be removed by itself.
    pub expires_at: Option<Timestamp>,
}

/// Why nothing may be exported to a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportRefused {
    /// No bucket of this name is configured.
    #[error("no such bucket")]
    Unknown,
    /// The bucket does not take backups of the folder.
    #[error("the bucket does not take backups of this folder")]
    Forbidden,
}

struct Inner {
    store: Arc<dyn Store>,
    fleet: Arc<Fleet>,
    storage: Storage,
    options: Options,
    /// Work may be due.
    work: Notify,
    /// Files may be due to go.
    rubbish: Notify,
    waiters: Mutex<HashMap<OperationId, Weak<Notify>>>,
    running: Mutex<HashMap<OperationId, Arc<Running>>>,
    /// The turn of whoever changes the record of an adopted cluster and lets the fleet follow.
    cluster_changes: tokio::sync::Mutex<()>,
    /// A place for a snapshot may be free.
    places: Notify,
    /// Attempts that wait for a machine.
    waiting: AtomicUsize,
    /// How fast all snapshots together may read.
    pace: Option<Arc<Pace>>,
    metrics: Metrics,
    /// The time to drain is over: whatever runs is to be handed back, and so is what begins meanwhile.
    drained: CancellationToken,
}

/// The way to the executor. Cheap to clone.
#[derive(Clone)]
pub struct Executor(Arc<Inner>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Numbers that stand at zero from the start: a rise from nothing would not be seen as one.
fn metrics() -> Metrics {
    let metrics = Metrics::new();
    Reason::ALL.iter().for_each(|reason| drop(metrics.counter(&RETRIES, &[reason.as_str()])));
    for (family, values) in [(&FORKS, ["first", "repeated"]), (&SNAPSHOT_BYTES, ["decoded", "stored"]), (&FILES_DELETED, ["attempt", "backup"])] {
        values.iter().for_each(|value| drop(metrics.counter(family, &[value])));
    }
    metrics
}

impl Executor {
    /// Makes an executor; nothing is worked on before [`Executor::run`].
    pub fn new(store: Arc<dyn Store>, fleet: Arc<Fleet>, storage: Storage, options: Options) -> Self {
        fleet.remember_in(Arc::clone(&store));
        Self(Arc::new(Inner {
            store,
            fleet,
            storage,
            pace: options.rate_limit.map(|rate| Arc::new(Pace::new(rate))),
            options,
            work: Notify::new(),
            rubbish: Notify::new(),
            waiters: Mutex::default(),
            running: Mutex::default(),
            cluster_changes: tokio::sync::Mutex::default(),
            places: Notify::new(),
            waiting: AtomicUsize::new(0),
            metrics: metrics(),
            drained: CancellationToken::new(),
        }))
    }

    /// The store behind it, for reads.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.0.store
    }

    /// The clusters behind it, for reads.
    pub fn fleet(&self) -> &Arc<Fleet> {
        &self.0.fleet
    }

    /// The numbers of the service, to which all rooms add.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Attempts that run in this process.
    pub fn running(&self) -> usize {
        lock(&self.0.running).len()
    }

    /// Most attempts that work at once; more may wait for a machine.
    pub fn workers(&self) -> usize {
        self.0.options.workers
    }

    /// The operation of an earlier call with the caller's key. It is asked for before anything that may have changed since
    /// that call is looked at.
    ///
    /// # Errors
    ///
    /// As [`Store::known`].
    pub async fn repeated(&self, caller: &Caller) -> Result<Option<Operation>, Error> {
        let Some(idempotency) = caller.idempotency() else { return Ok(None) };
        self.0.store.known(&idempotency).await
    }

    /// Accepts a backup of a cluster. Durable on return; the work begins after it.
    ///
    /// # Errors
    ///
    /// As [`Store::create`].
    pub async fn create_backup(&self, cluster: &Definition, door: Door, draft: Draft, caller: Caller) -> Result<Operation, Error> {
        let backup_id = BackupId::new();
        let mut operation = self.operation(cluster.folder_id.clone(), cluster.id.clone(), Some(backup_id), door, Spec::CreateBackup, &caller);
        operation.zone = cluster.zone.clone();
        if let Some((until, waiting_for)) = window::end_of(cluster, operation.created_at) {
            operation.policy.deadline_at = self.0.deadline(until);
            operation.state = State::Queued { not_before: until };
            operation.progress.waiting_for = waiting_for;
            self.0.count(&WINDOW_WAITS, &[]);
        }
        let row = Backup { source: Some(self.source(cluster)), expires_at: draft.expires_at, ..self.draft(&operation, backup_id, draft.name, draft.labels) };
        self.submit(Create { operation, draft: Some(row), cluster: None, idempotency: caller.idempotency() }).await
    }

    /// The row of a backup that an operation is to make.
    fn draft(&self, operation: &Operation, id: BackupId, name: Name, labels: Labels) -> Backup {
        let (folder_id, cluster_id) = (operation.folder_id.clone(), operation.cluster_id.clone());
        Backup {
            labels,
            busy: Some(operation.id.to_string()),
            compression: self.0.storage.compression().to_string(),
            age_recipients: self.0.storage.encryption().recipient_names(),
            ..Backup::draft(id, folder_id, cluster_id, name, operation.id.to_string(), operation.created_at)
        }
    }

    /// What is known of a cluster without asking its servers.
    fn source(&self, cluster: &Definition) -> Source {
        let mut source = Source { cluster_name: cluster.name.clone(), cluster_mode: None, flavor: cluster.flavor.clone() };
        if let Some(view) = self.0.fleet.seen(&cluster.id) {
            source.learn(&view);
        }
        source
    }

    /// Accepts work on a backup. Durable on return; the work begins after it.
    ///
    /// # Errors
    ///
    /// As [`Store::create`].
    pub async fn change_backup(&self, id: BackupId, door: Door, spec: Spec, caller: Caller) -> Result<Operation, Error> {
        let backup = self.0.store.backup(id).await?;
        let mut operation = self.operation(backup.folder_id, backup.cluster_id, Some(id), door, spec, &caller);
        operation.zone = self.0.fleet.get(&operation.cluster_id).and_then(|cluster| cluster.zone.clone());
        self.submit(Create { operation, draft: None, cluster: None, idempotency: caller.idempotency() }).await
    }

    /// Accepts an independent copy of a backup, under a name of its own. Durable on return; the work begins after it.
    ///
    /// The copy keeps cluster, what was known of it, labels and all that is known of the content; it was asked for by hand, never expires and is
    /// held by nobody, whatever holds for its source.
    ///
    /// # Errors
    ///
    /// As [`Store::create`].
    pub async fn copy_backup(&self, source: BackupId, name: Name, door: Door, caller: Caller) -> Result<Operation, Error> {
        let source = self.0.store.backup(source).await?;
        let backup_id = BackupId::new();
        let mut operation =
            self.operation(source.folder_id.clone(), source.cluster_id.clone(), Some(backup_id), door, Spec::CopyBackup { source: source.id }, &caller);
        operation.zone = self.0.fleet.get(&operation.cluster_id).and_then(|cluster| cluster.zone.clone());
        let row = Backup {
            source: source.source,
            compression: source.compression,
            age_recipients: source.age_recipients,
            ..self.draft(&operation, backup_id, name, source.labels)
        };
        self.submit(Create { operation, draft: Some(row), cluster: None, idempotency: caller.idempotency() }).await
    }

    /// Whether backups of a folder may be exported to a bucket. To be asked before an export is accepted.
    ///
    /// # Errors
    ///
    /// [`ExportRefused`], by condition.
    pub fn export_target_allowed(&self, folder: &FolderId, bucket: &str) -> Result<(), ExportRefused> {
        let bucket = self.0.storage.bucket(bucket).ok_or(ExportRefused::Unknown)?;
        if bucket.takes(folder) { Ok(()) } else { Err(ExportRefused::Forbidden) }
    }

    /// Whether the dumps of a backup can be decoded: it is not encrypted, or there is a key to try. To be asked before work
    /// that decodes is accepted.
    pub fn can_decode(&self, backup: &Backup) -> bool {
        backup.age_recipients.is_empty() || self.0.storage.encryption().identity.is_some()
    }

    /// Accepts an export of a backup's dumps to a bucket. Durable on return; the work begins after it.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when the target makes no [key](crate::artifacts::bucket::Key), which the caller has to look at
    /// before; [`Error::Conflict`] when another export writes to one of the keys; else as [`Store::create`].
    pub async fn export_backup(&self, id: BackupId, target: ExportTarget, door: Door, caller: Caller) -> Result<Operation, Error> {
        let backup = self.0.store.backup(id).await?;
        let target = target.named(&backup);
        for object in target.objects(&backup) {
            object.key.parse::<Key>().map_err(|bad| Error::Invalid(format!("{} cannot be a key: it {bad}", object.key)))?;
        }
        let mut operation = self.operation(backup.folder_id, backup.cluster_id, Some(id), door, Spec::ExportBackup(target), &caller);
        operation.zone = self.0.fleet.get(&operation.cluster_id).and_then(|cluster| cluster.zone.clone());
        self.submit(Create { operation, draft: None, cluster: None, idempotency: caller.idempotency() }).await
    }

    /// Accepts that dumps in a bucket become a backup of a cluster, which need not be known. Durable on return; the work begins
    /// after it. Whether the bucket is there for the folder is to be asked before, as with an export.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when a key is no [key](crate::artifacts::bucket::Key) or there are too many, which the caller has to
    /// look at before; [`Error::ClusterTaken`] when the cluster's id is another folder's; else as [`Store::create`].
    pub async fn import_backup(
        &self,
        folder: FolderId,
        cluster: ClusterId,
        source: ImportSource,
        name: Name,
        door: Door,
        caller: Caller,
    ) -> Result<Operation, Error> {
        let bytes: usize = source.keys.iter().map(String::len).sum();
        if source.keys.is_empty() || source.keys.len() > ImportSource::KEYS || bytes > ImportSource::KEYS_BYTES {
            return Err(Error::Invalid("an import has too many keys, or none".to_owned()));
        }
        for key in &source.keys {
            key.parse::<Key>().map_err(|bad| Error::Invalid(format!("{key} cannot be a key: it {bad}")))?;
        }
        let known = self.0.fleet.get(&cluster);
        if known.as_ref().is_some_and(|known| known.folder_id != folder) {
            return Err(Error::ClusterTaken(cluster));
        }
        let backup_id = BackupId::new();
        let mut operation = self.operation(folder, cluster, Some(backup_id), door, Spec::ImportBackup(source), &caller);
        operation.zone = known.as_ref().and_then(|cluster| cluster.zone.clone());
        let row = Backup { source: known.map(|cluster| self.source(&cluster)), ..self.draft(&operation, backup_id, name, Labels::new()) };
        self.submit(Create { operation, draft: Some(row), cluster: None, idempotency: caller.idempotency() }).await
    }

    fn operation(&self, folder_id: FolderId, cluster_id: ClusterId, backup_id: Option<BackupId>, door: Door, spec: Spec, caller: &Caller) -> Operation {
        let now = Utc::now();
        let description = match &spec {
            Spec::CreateBackup => "Create a backup",
            Spec::UpdateBackup(_) => "Update a backup",
            Spec::DeleteBackup => "Delete a backup",
            Spec::CopyBackup { .. } => "Copy a backup",
            Spec::ExportBackup(_) => "Export a backup",
            Spec::ImportBackup(_) => "Import a backup",
            Spec::AdoptCluster => "Adopt a cluster",
            Spec::UpdateConnection => "Change how a cluster is reached",
            Spec::ForgetCluster => "Forget a cluster",
            Spec::UndeleteBackup => "Undelete a backup",
            Spec::VerifyBackup { .. } => "Verify a backup",
            Spec::RestoreInto(_) => "Restore a backup into running servers",
            Spec::RestoreCluster(_) => "Restore a backup to a new cluster",
            Spec::DeleteCluster => "Delete a cluster",
            Spec::UpdateCluster(_) => "Update a cluster",
            Spec::CreatePolicy(_) => "Create a retention policy",
            Spec::DeletePolicy { .. } => "Delete a retention policy",
        };
        Operation {
            id: OperationId::new(),
            folder_id,
            cluster_id,
            backup_id,
            door,
            spec,
            description: description.to_owned(),
            created_at: now,
            created_by: caller.subject.clone(),
            modified_at: now,
            revision: 1,
            zone: None,
            policy: Policy {
                deadline_at: self.0.deadline(now),
                refork_delay_millis: u64::try_from(self.0.options.refork_delay.as_millis()).unwrap_or(u64::MAX),
            },
            epoch: Epoch(0),
            state: State::Queued { not_before: now },
            reached: None,
            tally: Tally::default(),
            last_failure: None,
            progress: Progress::default(),
            publication: None,
        }
    }

    async fn submit(&self, create: Create) -> Result<Operation, Error> {
        match self.0.store.create(create, self.0.options.delete_grace).await? {
            Created::New(operation) => {
                let backup_id = operation.backup_id.map(tracing::field::display);
                tracing::info!(operation.id = %operation.id, cluster.id = %operation.cluster_id, backup.id = backup_id, "{}: accepted", operation.description);
                self.0.work.notify_one();
                Ok(operation)
            }
            Created::Existing(operation) => Ok(operation),
        }
    }

    /// The operation, with the finer progress of an attempt that runs in this process.
    ///
    /// # Errors
    ///
    /// As [`Store::get`].
    pub async fn get(&self, id: OperationId) -> Result<Operation, Error> {
        let mut operation = self.0.store.get(id).await?;
        self.0.shown(&operation).await;
        self.refine(&mut operation);
        Ok(operation)
    }

    /// Puts the progress of an attempt that runs in this process into its record.
    pub fn refine(&self, operation: &mut Operation) {
        if let Some(running) = lock(&self.0.running).get(&operation.id)
            && running.epoch() == operation.epoch
            && !operation.state.is_terminal()
        {
            operation.progress = running.progress();
        }
    }

    /// Asks an operation to stop, and tells its state.
    ///
    /// # Errors
    ///
    /// As [`Store::cancel`].
    pub async fn cancel(&self, id: OperationId) -> Result<Operation, Error> {
        let turn = if self.0.store.get(id).await?.spec.changes_cluster() { Some(self.0.cluster_changes.lock().await) } else { None };
        let operation = self.0.store.cancel(id).await?;
        if turn.is_some() {
            self.0.follow(&operation.cluster_id).await;
        }
        drop(turn);
        if let State::Cancelling { .. } = operation.state
            && let Some(running) = lock(&self.0.running).get(&id)
        {
            running.cancel();
        }
        self.0.changed(id);
        if operation.state.is_terminal() {
            self.0.rubbish.notify_one();
        }
        Ok(operation)
    }

    /// Waits until the operation has ended or, for a `revision` other than zero, changed since; or until `limit` is over,
    /// at most [`WAIT_LIMIT`]. Answers with the latest state in every case.
    ///
    /// # Errors
    ///
    /// As [`Store::get`].
    pub async fn wait(&self, id: OperationId, revision: u64, limit: Duration) -> Result<Operation, Error> {
        let until = Instant::now() + limit.min(WAIT_LIMIT);
        let changed = self.0.waiter(id);
        loop {
            // Registered before the look, so that a change after it wakes us.
            let notified = changed.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            let operation = self.get(id).await?;
            let seen = revision != 0 && operation.revision > revision;
            if operation.state.is_terminal() || seen || Instant::now() >= until {
                return Ok(operation);
            }
            let _ = tokio::time::timeout_at(until.min(Instant::now() + POLL), notified).await;
        }
    }

    /// Works until `stop` is cancelled; then claims nothing more, lets running work go on for the time of
    /// [`Options::drain`], and hands back what is left.
    pub async fn run(&self, stop: CancellationToken) {
        let inner = &self.0;
        let collector = tokio::spawn(collect::run(Arc::clone(inner), stop.clone()));
        let mut attempts = JoinSet::new();
        let mut clocks = Clocks::new();
        while !stop.is_cancelled() {
            while attempts.try_join_next().is_some() {}
            if clocks.jumped() {
                // Leases that lapsed by the jump alone are renewed by their living holders first.
                tracing::warn!("the system's clock was set forward; nothing is claimed until running work has renewed its leases");
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(RENEW + BREATH) => {}
                }
                continue;
            }
            let mut pause = POLL;
            if inner.has_room(attempts.len()) {
                match inner.store.claim(&inner.options.zones, LEASE).await {
                    Ok((claim, ended)) => {
                        for id in &ended {
                            inner.ended(*id).await;
                        }
                        if !ended.is_empty() {
                            inner.rubbish.notify_one();
                        }
                        if let Some(claim) = claim {
                            inner.changed(claim.operation.id);
                            attempts.spawn(attempt::run(Arc::clone(inner), claim.operation));
                            continue;
                        }
                        pause = inner.until_due().await;
                    }
                    Err(fault) => tracing::error!(error = %fault, "no operation could be claimed"),
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = inner.work.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        let drained = async { while attempts.join_next().await.is_some() {} };
        if tokio::time::timeout(inner.options.drain, drained).await.is_err() {
            tracing::info!(attempts = attempts.len(), "the time to drain is over; running work is handed back");
            inner.drained.cancel();
            while attempts.join_next().await.is_some() {}
        }
        let _ = collector.await;
    }
}

/// The system's clock beside one that cannot be set.
struct Clocks {
    wall: Timestamp,
    steady: Instant,
}

impl Clocks {
    fn new() -> Self {
        Self { wall: Utc::now(), steady: Instant::now() }
    }

    /// Whether the system's clock went ahead of the steady one since the last call by more than a lease bears.
    fn jumped(&mut self) -> bool {
        let before = std::mem::replace(self, Self::new());
        let steady = TimeDelta::from_std(self.steady - before.steady).unwrap_or(TimeDelta::MAX);
        let ahead = (self.wall - before.wall).checked_sub(&steady).unwrap_or_default();
        ahead.to_std().is_ok_and(|ahead| ahead > LEASE / 3)
    }
}

/// Counts an attempt as waiting for a machine as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Inner {
    /// Whether one more of `attempts` may begin.
    fn has_room(&self, attempts: usize) -> bool {
        let waiting = self.waiting.load(Ordering::Relaxed);
        attempts < self.options.workers + WAITING && attempts.saturating_sub(waiting) < self.options.workers
    }

    /// When attempts of an operation must have started that may start from `from` on.
    fn deadline(&self, from: Timestamp) -> Timestamp {
        let deadline = TimeDelta::from_std(self.options.deadline).unwrap_or(TimeDelta::days(1));
        from.checked_add_signed(deadline).unwrap_or(Timestamp::MAX_UTC)
    }

    /// How long until something may be due, at most [`POLL`].
    async fn until_due(&self) -> Duration {
        match self.store.next_due(&self.options.zones).await {
            Ok(Some(due)) => (due - Utc::now()).to_std().unwrap_or(Duration::from_millis(10)).clamp(Duration::from_millis(1), POLL),
            Ok(None) | Err(_) => POLL,
        }
    }

    /// Lets everything follow that an operation ended by being looked at.
    async fn ended(&self, id: OperationId) {
        if let Ok(operation) = self.store.get(id).await
            && operation.spec.changes_cluster()
        {
            let _turn = self.cluster_changes.lock().await;
            self.follow(&operation.cluster_id).await;
        }
        self.changed(id);
    }

    /// Tells those who wait for the operation that it may have changed.
    fn changed(&self, id: OperationId) {
        if let Some(notify) = lock(&self.waiters).get(&id).and_then(Weak::upgrade) {
            notify.notify_waiters();
        }
    }

    fn waiter(&self, id: OperationId) -> Arc<Notify> {
        let mut waiters = lock(&self.waiters);
        if let Some(notify) = waiters.get(&id).and_then(Weak::upgrade) {
            return notify;
        }
        waiters.retain(|_, notify| notify.strong_count() > 0);
        let notify = Arc::new(Notify::new());
        waiters.insert(id, Arc::downgrade(&notify));
        notify
    }

    /// Adds one to a counter.
    fn count(&self, family: &'static Family, values: &[&str]) {
        self.metrics.counter(family, values).increment(1);
    }
}
