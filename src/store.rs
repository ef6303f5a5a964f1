//! The store's contract: what is durable when a call returns, and who may change what.
//!
//! One trait, at the level of operations and not of keys, because it has more than one implementation. Every call that
//! changes something is one transaction; it calls [`Operation::apply`] inside, and is durable when it returns. Every read
//! gives only what is durable.
//!
//! Owns the relations between rows: an operation and its draft backup, the uniqueness of names, one exclusive operation per
//! cluster, the records of adopted clusters, the idempotency keys, the attempts whose files are doomed. Knows nothing of Redis, storage or the wire.

mod lineage;
mod place;
mod planned;
mod row;
pub mod sled;

pub use lineage::{Baseline, Lineage, SKETCH_KEY_BYTES, SketchKey};
pub use place::{Place, Turn};
pub use planned::{Planned, Recorded, Run};

use crate::backup::{Backup, BackupId, Name};
use crate::cluster::policy::Policy;
use crate::cluster::{Adopted, ClusterId, FolderId, LocalServers, ShardNames, Timestamp};
use crate::failure::Failure;
use crate::operation::{Epoch, Fault, Operation, OperationId, Outcome, Progress, Publication, Step};
use async_trait::async_trait;
use chrono::Utc;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The store's own clock, by which leases lapse and files fall due.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(Arc::new(Utc::now))
    }

    /// A clock told by `now`; for tests.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// Longest manifest, in bytes.
pub const MANIFEST_BYTES: usize = 1 << 20;

/// Most rows of one read: a page of 1,000, and the row that tells that there is another page.
pub const PAGE_ROWS: usize = 1001;

/// The zones whose operations a process works on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zones(BTreeSet<String>);

impl Zones {
    /// These zones; none means all.
    pub fn new(zones: impl IntoIterator<Item = String>) -> Self {
        Self(zones.into_iter().collect())
    }

    /// Whether an operation of `zone` may be worked on here. An operation without a zone may be worked on anywhere.
    pub fn serve(&self, zone: Option<&str>) -> bool {
        self.0.is_empty() || zone.is_none_or(|zone| self.0.contains(zone))
    }
}

/// A caller's key, by which a repeated call finds the operation of the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// Who asks; keys of different callers have nothing to do with one another.
    pub caller: String,
    /// The key, 1 to 128 visible ASCII characters.
    pub key: String,
    /// SHA-256 over the method and the canonical request.
    pub digest: [u8; 32],
}

/// A new operation with what its acceptance changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Create {
    /// The operation, QUEUED, revision 1, epoch 0.
    pub operation: Operation,
    /// The draft row where the work [makes a backup](crate::operation::Spec::makes_backup), and only there.
    pub draft: Option<Backup>,
    /// The cluster's record: for [`Spec::AdoptCluster`](crate::operation::Spec::AdoptCluster) the new one, for
    /// [`Spec::UpdateConnection`](crate::operation::Spec::UpdateConnection) what it is to be, and for nothing else.
    pub cluster: Option<Adopted>,
    /// The caller's key, if there is one.
    pub idempotency: Option<Idempotency>,
}

/// What [`Store::create`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// The operation is new.
    New(Operation),
    /// The same key came with the same request before: this is its operation, in its current state.
    Existing(Operation),
}

/// What a worker holds after [`Store::claim`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The operation, RUNNING, with the worker's epoch.
    pub operation: Operation,
}

/// The end of an attempt's work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// How it ended.
    pub outcome: Outcome,
    /// The backup's row after success. For the end of a creation, a copy or a proof it must be AVAILABLE; for the end of a deletion
    /// there is none, the row is DELETING already, nor for that of an export, which changes no row.
    pub backup: Option<Backup>,
}

/// Which operations to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperationFilter {
    /// Those of a folder.
    Folder(FolderId),
    /// Those of a cluster.
    Cluster(ClusterId),
}

/// Which backups to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackupFilter {
    /// Those of a folder, in any state.
    Folder(FolderId),
    /// Those of a cluster, in any state.
    Cluster(ClusterId),
    /// The available ones of a folder.
    FolderAvailable(FolderId),
    /// The available ones of a cluster.
    ClusterAvailable(ClusterId),
}

/// How many operations there are, for those who watch over the service. A hint: it may be a moment ahead of what is durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Operations that have not ended, by the words of kind and state.
    pub open: BTreeMap<(&'static str, &'static str), u64>,
    /// Operations that ended since the store was opened, by the words of kind and outcome.
    pub ended: BTreeMap<(&'static str, &'static str), u64>,
    /// Those of them that failed, by the text of the reason.
    pub failures: BTreeMap<&'static str, u64>,
    /// When the oldest operation that has not ended was accepted.
    pub oldest_created_at: Option<Timestamp>,
    /// Operations that wait for a worker.
    pub queued: u64,
    /// Most that may.
    pub queue_limit: u64,
}

/// One attempt whose files must go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doomed {
    /// The operation that it was an attempt of.
    pub operation_id: OperationId,
    /// Its number.
    pub epoch: Epoch,
    /// The folder of the backup.
    pub folder_id: FolderId,
    /// The cluster of the backup.
    pub cluster_id: ClusterId,
    /// The backup that it was to make, or to export.
    pub backup_id: BackupId,
    /// The bucket that it was to export to: then its files lie there and nowhere else.
    pub bucket: Option<String>,
    /// How often its files were looked for already.
    pub looks: u32,
}

/// Waits between the looks for a doomed attempt's files: a late worker may still write. After the last one its row goes.
pub const LOOK_AGAIN: [Duration; 3] = [Duration::from_secs(15), Duration::from_secs(600), Duration::from_secs(24 * 3600)];

/// Why a call changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No such operation.
    #[error("no such operation")]
    NoOperation,
    /// No such backup, or one that is being deleted.
    #[error("no such backup")]
    NoBackup,
    /// No such adopted cluster.
    #[error("no such cluster")]
    NoCluster,
    /// There is a cluster of this id, or another folder has backups or operations of one.
    #[error("the cluster id {0} is taken")]
    ClusterTaken(ClusterId),
    /// Another operation holds the cluster or the backup.
    #[error("conflicting operation \"{0}\" detected")]
    Conflict(String),
    /// No such retention policy.
    #[error("no such retention policy")]
    NoPolicy,
    /// The cluster has a retention policy of this name.
    #[error("the cluster has a retention policy named {0} already")]
    PolicyTaken(String),
    /// The cluster has as many retention policies as it may.
    #[error("the cluster has {0} retention policies already")]
    PoliciesFull(usize),
    /// The folder has a backup of this name.
    #[error("the folder has a backup named {0} already")]
    NameTaken(Name),
    /// The backup is not in a state for this.
    #[error("the backup is not available: it is {0}")]
    NotAvailable(&'static str),
    /// As many operations read the backup as may.
    #[error("{0} operations read the backup already")]
    ReadersFull(usize),
    /// No suspicion lies on the backup.
    #[error("no suspicion lies on the backup")]
    NotSuspect,
    /// The backup is not being deleted, so there is nothing to take back.
    #[error("the backup is not being deleted")]
    NotDeleting,
    /// The files of the backup are being removed already.
    #[error("the files of the backup are being removed already")]
    Purging,
    /// The backup is held by a person, for this reason.
    #[error("the backup is held: {0}")]
    Held(String),
    /// The key was used for another request.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// As many operations wait as may.
    #[error("{0} operations wait already")]
    QueueFull(usize),
    /// The attempt is over; the caller is a late worker. Dropped and counted.
    #[error("fenced: {0}")]
    Fenced(String),
    /// The worker was told to stop; only its end may follow.
    #[error("the operation is being cancelled")]
    Cancelling,
    /// The event does not fit the state: a fault of ours.
    #[error("{0}")]
    NotAllowed(String),
    /// The rows given do not fit one another or their limits: a fault of ours.
    #[error("{0}")]
    Invalid(String),
    /// The store cannot be written or read; whether a change was made is decided at the next start.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// A stored row does not hold together.
    #[error("a stored row is damaged: {0}")]
    Damaged(String),
}

/// The durable record of operations, backups and attempts.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Accepts an operation together with all that its acceptance changes.
    ///
    /// In this order: a known idempotency key answers before anything else is looked at. Then the queue's limit. Then by
    /// the operation's spec: `CreateBackup` needs the cluster free of other exclusive operations and the draft's name free
    /// in its folder, and inserts the draft. `UpdateBackup` needs an AVAILABLE backup that no operation works on, and a
    /// free name if it brings one (its own is free); the new name is taken now. `DeleteBackup` needs an AVAILABLE or
    /// ERROR backup that no operation works on or reads and no hold protects; it marks the backup DELETING until now plus
    /// `grace` (an ERROR one until now), and frees its name. Both mark the backup busy with the operation. `CopyBackup` and
    /// `ExportBackup` need an AVAILABLE backup to read, with room among its [readers](Backup::READERS), and become one of
    /// them; an update is no obstacle to them, nor are they to an update, which touches no file that they read. A copy needs the
    /// draft's name free and inserts the draft, in the folder and cluster of what it copies; an export needs each of its keys
    /// in the bucket free of other exports. `ImportBackup` needs the draft's name free and inserts the draft; its cluster need not
    /// be known, and must not be that of another folder. `AdoptCluster` needs an id
    /// that no cluster has, and of which no other folder has backups or operations (the newest of each decides), and inserts
    /// the record; `UpdateConnection` and `ForgetCluster` need the record; all three need the cluster free of other
    /// exclusive operations. `UpdateCluster`, `CreatePolicy` and `DeletePolicy` need the record, and none of these three under way;
    /// backups are no obstacle. A new policy needs a name that no other of the cluster has, and is there from the acceptance on.
    /// `RestoreCluster` is to its cluster what an adoption is, with a record that tells servers of this
    /// machine, and to the backup that it reads what a copy is; `DeleteCluster` needs such a record, and the two before refuse it.
    /// `UndeleteBackup` needs a backup that is DELETING, was AVAILABLE before, that no operation works on
    /// and that was not [claimed](Store::begin_purge) for removal; it marks it busy, so that its files stay, and takes its name
    /// for it, or where another has that a [made-up one](Name::undeleted), which the row has from then on.
    ///
    /// Durable on return.
    ///
    /// # Errors
    ///
    /// [`Error::KeyReused`], [`Error::QueueFull`], [`Error::Conflict`], [`Error::NameTaken`], [`Error::NoBackup`] (also for
    /// one that is DELETING), [`Error::NotAvailable`], [`Error::ReadersFull`], [`Error::Held`], [`Error::NoCluster`],
    /// [`Error::NoPolicy`], [`Error::PolicyTaken`], [`Error::PoliciesFull`], [`Error::ClusterTaken`], [`Error::NotSuspect`] for an update that is to clear a suspicion that does not stand,
    /// [`Error::NotDeleting`], [`Error::Purging`], [`Error::Unavailable`].
    async fn create(&self, create: Create, grace: Duration) -> Result<Created, Error>;

    /// The operation that a key was used for, in its current state; `None` for a key that was not used. Callers ask before
    /// they look at anything that may have changed since; [`Store::create`] asks again, so that of calls at the same time one wins.
    ///
    /// # Errors
    ///
    /// [`Error::KeyReused`] when the key was used for another request, [`Error::Unavailable`], [`Error::Damaged`].
    async fn known(&self, idempotency: &Idempotency) -> Result<Option<Operation>, Error>;

    /// The operation with this id.
    ///
    /// # Errors
    ///
    /// [`Error::NoOperation`], [`Error::Unavailable`], [`Error::Damaged`].
    async fn get(&self, id: OperationId) -> Result<Operation, Error>;

    /// Operations, newest first, at most `limit` (1 to [`PAGE_ROWS`]), those older than `after` if it is given.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], [`Error::Damaged`].
    async fn list(&self, filter: &OperationFilter, after: Option<OperationId>, limit: usize) -> Result<Vec<Operation>, Error>;

    /// Takes the due operation that has waited longest in a zone of `zones` and leases it.
    ///
    /// Due means queued with `not_before` reached, or held with a lapsed lease, by the store's own clock. The epoch is one
    /// higher than before. An operation that ends by being looked at (deadline, third crash, lapsed cancellation) is ended
    /// here, with the same effects as [`Store::complete`], and the search goes on; its id is in the second part of the
    /// answer, so that those who wait for it can be told. Durable on return. `lease` is at least one second.
    ///
    /// For a spec with attempts, the row of this attempt is durable too, and the attempts before it are doomed, except one
    /// that is decided to be published.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`]; nothing was leased.
    ///
    /// # Cancel safety
    ///
    /// If dropped, an operation may stay leased until the lease lapses.
    async fn claim(&self, zones: &Zones, lease: Duration) -> Result<(Option<Claim>, Vec<OperationId>), Error>;

    /// When the next operation falls due that a claim for `zones` would look at; `None` when there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`].
    async fn next_due(&self, zones: &Zones) -> Result<Option<Timestamp>, Error>;

    /// Extends the lease of an attempt and tells its state: the worker hears a cancellation here. A lapsed lease is
    /// extended too as long as no other attempt has begun.
    ///
    /// # Errors
    ///
    /// [`Error::Fenced`], [`Error::NoOperation`], [`Error::Unavailable`].
    async fn renew(&self, id: OperationId, epoch: Epoch, lease: Duration) -> Result<Operation, Error>;

    /// Records that a step starts; with the decision to publish for PUBLISH, and the manifest's exact bytes with it (at
    /// most [`MANIFEST_BYTES`]).
    ///
    /// # Errors
    ///
    /// [`Error::Fenced`], [`Error::Cancelling`], [`Error::NotAllowed`], [`Error::Unavailable`].
    async fn step(&self, id: OperationId, epoch: Epoch, step: Step, publication: Option<(Publication, Vec<u8>)>) -> Result<Operation, Error>;

    /// Records progress.
    ///
    /// # Errors
    ///
    /// [`Error::Fenced`], [`Error::Unavailable`].
    async fn progress(&self, id: OperationId, epoch: Epoch, progress: Progress) -> Result<Operation, Error>;

    /// Ends an attempt that another may follow. It dooms the attempt's files, unless they are decided to be published. May
    /// end the operation, with the effects of [`Store::complete`].
    ///
    /// # Errors
    ///
    /// [`Error::Fenced`], [`Error::Unavailable`].
    async fn retry(&self, id: OperationId, epoch: Epoch, wait: Duration, fault: Fault, failure: Failure) -> Result<Operation, Error>;

    /// Gives an attempt back at a graceful stop. It dooms the attempt's files, as [`Store::retry`] does, and ends an operation
    /// that was told to stop.
    ///
    /// # Errors
    ///
    /// [`Error::Fenced`], [`Error::Unavailable`].
    async fn hand_back(&self, id: OperationId, epoch: Epoch) -> Result<Operation, Error>;

    /// Puts an attempt off before it has forked anything: the operation waits in the queue until `until`, for what
    /// `waiting_for` says, and no deadline before `deadline_at` ends it. It dooms the attempt's files, and ends an operation
    /// that was told to stop.
    ///
    /// # Errors
    ///
    /// [`Error::Fenced`], [`Error::NotAllowed`] after the begin of SNAPSHOT, [`Error::Unavailable`].
    async fn defer(&self, id: OperationId, epoch: Epoch, until: Timestamp, deadline_at: Timestamp, waiting_for: String) -> Result<Operation, Error>;

    /// Takes a place of a failure domain for a snapshot of one shard, if fewer than `limit` (at least 1) are taken there, and
    /// if no other attempt that began to wait there is of an older operation, or of an earlier shard of the same one. Else
    /// the attempt waits in its turn from now on, and is to ask again.
    ///
    /// Durable on return, over all processes. A place that is had already is granted again. Place and turn end with
    /// [`Store::free_place`] and with the attempt, however that ends: by completion, retry, hand-back, another claim. An
    /// attempt whose lease has lapsed loses them to the next that asks for the same domain; as it may be streaming still, this
    /// bounds kindness and not safety.
    ///
    /// # Errors
    ///
    /// [`Error::Fenced`], [`Error::Cancelling`], [`Error::Invalid`] for a name that is none and for work that
    /// [forks](crate::operation::Spec::forks) nothing, [`Error::Unavailable`].
    async fn take_place(&self, id: OperationId, epoch: Epoch, place: &Place, limit: usize) -> Result<Turn, Error>;

    /// Frees a place, or a turn to wait for it. Nothing happens when the attempt does not have it.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`].
    async fn free_place(&self, id: OperationId, epoch: Epoch, place: &Place) -> Result<(), Error>;

    /// Records what the source of the backup that an operation makes was, one row a shard; it replaces what an attempt before
    /// has recorded. It is kept as long as the backup, and goes if that fails.
    ///
    /// # Errors
    ///
    /// [`Error::Fenced`], [`Error::Cancelling`], [`Error::Invalid`] when there are more than [`Lineage::SHARDS`] shards or
    /// one does not fit its limits, [`Error::Unavailable`].
    async fn record_lineage(&self, id: OperationId, epoch: Epoch, lineage: Vec<Lineage>) -> Result<(), Error>;

    /// What the next backup of a cluster is compared with: the newest of the latest [`Baseline::LOOKS`] backups in that folder
    /// that is AVAILABLE, not suspect, and has a lineage; `None` when there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], [`Error::Damaged`].
    async fn baseline(&self, folder: &FolderId, cluster: &ClusterId) -> Result<Option<Baseline>, Error>;

    /// The key of a cluster's hashes of key names: `fresh` becomes it if there is none. It never leaves the store otherwise,
    /// and goes with the cluster's last backup. Durable on return.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], [`Error::Damaged`].
    async fn sketch_key(&self, cluster: &ClusterId, fresh: SketchKey) -> Result<SketchKey, Error>;

    /// Takes the backup that an attempt reads for its operation alone, so that its row can be changed at the end: the row as it is
    /// from then on. It is granted again to whoever has it, and ends with the operation, or when its attempt is given back.
    ///
    /// Durable on return.
    ///
    /// # Errors
    ///
    /// [`Error::Conflict`] while another operation works on the backup, [`Error::NoBackup`], [`Error::NotAvailable`],
    /// [`Error::Fenced`], [`Error::Cancelling`], [`Error::Invalid`] for work that changes no row of what it reads,
    /// [`Error::Unavailable`].
    async fn occupy(&self, id: OperationId, epoch: Epoch) -> Result<Backup, Error>;

    /// Ends the operation: its terminal state, the backup's row and the attempts change together, once.
    ///
    /// SUCCEEDED: the row of `completion.backup` replaces the backup's row (which must exist), no longer busy; for a
    /// creation or a copy the published attempt's row is forgotten, its files belong to the backup; that of an export is
    /// doomed, what it published lies elsewhere; that of a proof needs the backup [occupied](Store::occupy). FAILED: a draft becomes ERROR, any other backup stays as it is, no longer
    /// busy. CANCELLED: a draft goes, and its name is free. In every case the exclusive hold on the cluster ends, the backup
    /// that was read and the keys of an export are free of it, all other attempts are doomed, and the recorded manifest is
    /// forgotten.
    ///
    /// Of clusters: an adoption that succeeds leaves its record, no longer being adopted, else the record goes; a change of
    /// connection that succeeds puts the record that was to be in the place of the one before, else it is forgotten; a
    /// forgetting that succeeds removes the record, with the cluster's policies and what was planned. A change of what is told
    /// of a cluster that succeeds changes the record as it is then, beside whatever else has changed it; so does a change of
    /// connection. A policy goes when its creation does not succeed, or its deletion does.
    /// A restore ends as an adoption does, a deletion as a forgetting.
    ///
    /// Of an undeletion: success makes the backup AVAILABLE and never to be purged; else the name that was taken for it is free
    /// again, and it stays DELETING.
    ///
    /// # Errors
    ///
    /// [`Error::Fenced`], [`Error::NotAllowed`], [`Error::Unavailable`].
    async fn complete(&self, id: OperationId, epoch: Epoch, completion: Completion) -> Result<Operation, Error>;

    /// Asks an operation to stop, and tells its state then. A queued one ends at once, with the effects of
    /// [`Store::complete`]; one that cannot be stopped any more, or has ended, is told as it is.
    ///
    /// # Errors
    ///
    /// [`Error::NoOperation`], [`Error::Unavailable`].
    async fn cancel(&self, id: OperationId) -> Result<Operation, Error>;

    /// The exact bytes of the manifest recorded with the decision to publish; `None` when there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], [`Error::Damaged`].
    async fn manifest(&self, id: OperationId) -> Result<Option<Vec<u8>>, Error>;

    /// The backup with this id, in any state.
    ///
    /// # Errors
    ///
    /// [`Error::NoBackup`], [`Error::Unavailable`], [`Error::Damaged`].
    async fn backup(&self, id: BackupId) -> Result<Backup, Error>;

    /// The backup of this name in a folder, in any state but DELETING.
    ///
    /// # Errors
    ///
    /// [`Error::NoBackup`], [`Error::Unavailable`], [`Error::Damaged`].
    async fn backup_named(&self, folder: &FolderId, name: &Name) -> Result<Backup, Error>;

    /// Backups, newest first, at most `limit` (1 to [`PAGE_ROWS`]), those older than `after` if it is given.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], [`Error::Damaged`].
    async fn backups(&self, filter: &BackupFilter, after: Option<BackupId>, limit: usize) -> Result<Vec<Backup>, Error>;

    /// The newest AVAILABLE backup of a cluster in that folder, by when it was asked for; `None` when there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], [`Error::Damaged`].
    async fn newest_available(&self, folder: &FolderId, cluster: &ClusterId) -> Result<Option<Backup>, Error>;

    /// Identifiers of the clusters that have backups in any state, known ones or not, in order, at most `limit` (1 to
    /// [`PAGE_ROWS`]), those after `after` if it is given.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], [`Error::Damaged`].
    async fn clusters_with_backups(&self, after: Option<&ClusterId>, limit: usize) -> Result<Vec<ClusterId>, Error>;

    /// Puts in the row of a backup that storage has and the store does not, with what its source was: after the loss of a
    /// store. The row is AVAILABLE or DELETING, has an epoch, and nothing works on it or reads it. False when there is a backup of
    /// its id: then nothing changes. Durable on return.
    ///
    /// # Errors
    ///
    /// [`Error::NameTaken`] for an AVAILABLE one whose name another has; [`Error::Invalid`] for a row or a lineage that does not
    /// fit; [`Error::Unavailable`], [`Error::Damaged`].
    async fn put_back(&self, backup: Backup, lineage: Vec<Lineage>) -> Result<bool, Error>;

    /// Attempts whose files are to be looked for now, the longest due first, at most `limit`.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], [`Error::Damaged`].
    async fn doomed(&self, limit: usize) -> Result<Vec<Doomed>, Error>;

    /// Records that a doomed attempt's files were looked for and deleted; it falls due again by [`LOOK_AGAIN`], and its row
    /// goes after the last look. Nothing happens when the row's count of looks is not `looks`.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`].
    async fn looked(&self, id: OperationId, epoch: Epoch, looks: u32) -> Result<(), Error>;

    /// Backups whose files may go now: DELETING, due, and not busy; at most `limit`.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], [`Error::Damaged`].
    async fn purgeable(&self, limit: usize) -> Result<Vec<Backup>, Error>;

    /// Claims a backup for the removal of its files: it is DELETING, due, and not busy. From then on its deletion is not taken
    /// back. True also when it was claimed before, by whoever; false when it may not be claimed. Durable on return.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], [`Error::Damaged`].
    async fn begin_purge(&self, id: BackupId) -> Result<bool, Error>;

    /// Forgets the row of a backup whose files are gone. Nothing happens unless it was [claimed](Store::begin_purge).
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`].
    async fn purged(&self, id: BackupId) -> Result<(), Error>;

    /// Forgets operations that ended longer than `retention` ago, with their idempotency keys; at most 1,000 at a time.
    /// Tells how many went.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`].
    async fn expire(&self, retention: Duration) -> Result<usize, Error>;

    /// The record of an adopted cluster.
    ///
    /// # Errors
    ///
    /// [`Error::NoCluster`], [`Error::Unavailable`], [`Error::Damaged`].
    async fn cluster(&self, id: &ClusterId) -> Result<Adopted, Error>;

    /// What the record of an adopted cluster is to be after the change of connection that is under way; `None` when there is
    /// none.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], [`Error::Damaged`].
    async fn cluster_to_be(&self, id: &ClusterId) -> Result<Option<Adopted>, Error>;

    /// Records of adopted clusters by id, at most `limit` (1 to [`PAGE_ROWS`]), those after `after` if it is given.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], [`Error::Damaged`].
    async fn clusters(&self, after: Option<&ClusterId>, limit: usize) -> Result<Vec<Adopted>, Error>;

    /// The retention policies of a cluster, by id, at most [`POLICIES`](crate::cluster::policy::POLICIES).
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], [`Error::Damaged`].
    async fn policies(&self, cluster: &ClusterId) -> Result<Vec<Policy>, Error>;

    /// How far the schedule of a cluster has come; `None` where that was never recorded.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], [`Error::Damaged`].
    async fn planned(&self, cluster: &ClusterId) -> Result<Option<Planned>, Error>;

    /// Records how far the schedule of a cluster has come, unless that is not `before` any more: of several processes one goes
    /// on. Durable on return. The cluster need not be known to the store.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], [`Error::Damaged`]; [`Error::Invalid`] for words of a calendar that are too long.
    async fn plan(&self, cluster: &ClusterId, before: Option<Planned>, after: Planned) -> Result<Recorded, Error>;

    /// The names of a cluster's shards; none where none were given.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], [`Error::Damaged`].
    async fn shard_names(&self, cluster: &ClusterId) -> Result<ShardNames, Error>;

    /// Records where the servers are of the cluster that a restore makes: their addresses as `nodes`, and all else. Nothing is
    /// started before it is recorded. Durable on return.
    ///
    /// # Errors
    ///
    /// [`Error::Fenced`], [`Error::Cancelling`], [`Error::NoCluster`], [`Error::Invalid`] for other work and for more servers than
    /// a record has room for, [`Error::Unavailable`].
    async fn record_servers(&self, id: OperationId, epoch: Epoch, nodes: Vec<String>, servers: LocalServers) -> Result<(), Error>;

    /// Gives the shards of a cluster their names, as [`ShardNames::learn`] does, and tells all of them. Durable on return.
    /// Names stay until an adopted cluster is forgotten.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], [`Error::Damaged`]; [`Error::Invalid`] when there are more than a row can hold.
    async fn name_shards(&self, cluster: &ClusterId, found: Vec<Vec<String>>) -> Result<ShardNames, Error>;

    /// How many operations there are. It costs no more than a look at memory, or one query.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`].
    async fn census(&self) -> Result<Census, Error>;

    /// Whether the store can still be written; a poisoned store never can again.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] with the reason.
    fn ready(&self) -> Result<(), Error>;
}
