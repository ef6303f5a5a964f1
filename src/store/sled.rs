//! The embedded store: one folder, one process, nothing to install.
//!
//! ```text
//! callers --commands--> writer: judge up to 256 against rows and overlay -> one batch -> one sync -> answers
//! callers --reads-----> the tree -> wait until what was seen is durable
//! ```
//!
//! Owns the folder, the writer's thread and the form of the rows. The crate below is trusted with little: it neither syncs
//! what it says it flushed nor survives concurrent flushes, so one thread writes, and syncs with a descriptor of its own.
//! A write or sync that fails poisons the store: nothing is answered any more, and the process is to end.
//!
//! Reading order: `keys` and `rows` for what is stored, `open` for the folder, `writer` for how a change gets to disk,
//! `judge`, `accept`, `end`, `place`, `plan` and `lineage` for what a change is, `live` for what falls due, `recent` for what is asked again
//! and again, `read` and `verify` for the rest.

mod accept;
mod end;
mod judge;
mod keys;
mod lineage;
mod live;
mod open;
mod place;
mod plan;
mod read;
mod recent;
mod rows;
mod servers;
mod shards;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

pub use verify::{Report, verify};

use self::judge::Judge;
use self::live::Live;
use self::open::{Absent, Disk};
use self::recent::Recent;
use self::rows::Rows;
use self::writer::{CLOSED, COMMANDS, Command, Progress as Written, Writer};
use super::{
    BackupFilter, Baseline, Census, Claim, Clock, Completion, Create, Created, Doomed, Error, Idempotency, Lineage, OperationFilter, Place, Planned, Recorded,
    SketchKey, Store, Turn, Zones,
};
use crate::backup::{Backup, BackupId, Name};
use crate::cluster::policy::Policy;
use crate::cluster::{Adopted, ClusterId, FolderId, LocalServers, ShardNames, Timestamp};
use crate::failure::Failure;
use crate::operation::{Epoch, Fault, Operation, OperationId, Progress, Publication, Step};
use async_trait::async_trait;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Reads that run at once; more wait. Each takes a thread while it runs.
const READERS: usize = 8;

/// How the embedded store is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its folder, created if it is not there. It must lie on a local disk.
    pub path: PathBuf,
    /// The clock by which leases lapse and files fall due.
    pub clock: Clock,
    /// Most operations that wait for a worker.
    pub queue_limit: usize,
}

impl Options {
    /// Most operations that wait for a worker, unless it is set.
    pub const QUEUE_LIMIT: usize = 10_000;

    /// The defaults for a store in this folder.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), clock: Clock::system(), queue_limit: Self::QUEUE_LIMIT }
    }
}

/// The embedded store.
///
/// Its calls need a tokio runtime around them. Dropping it closes it.
pub struct SledStore {
    clock: Clock,
    queue_limit: usize,
    live: Arc<Mutex<Live>>,
    written: Arc<Written>,
    recent: Arc<Recent>,
    /// None once it is closed. Nobody else holds a sender, so that the writer ends when it is dropped.
    commands: Mutex<Option<mpsc::UnboundedSender<Command>>>,
    /// Bounds the commands that wait.
    room: Arc<Semaphore>,
    writer: Mutex<Option<JoinHandle<()>>>,
    readers: Arc<Semaphore>,
    /// None once it is closed.
    disk: Arc<RwLock<Option<Disk>>>,
}

impl fmt::Debug for SledStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SledStore")
    }
}

impl SledStore {
    /// Opens the store in a folder, or begins a new one there. It blocks: disks are read and synced.
    ///
    /// Every lease of the process before is void afterwards.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] when another process holds the folder, when it lies on a network file system, when a newer
    /// program wrote it, or when it cannot be read or written; [`Error::Damaged`] when what is in it does not hold together.
    pub fn open(options: Options) -> Result<Self, Error> {
        Self::start(Disk::open(&options.path, Absent::Create)?, options)
    }

    fn start(disk: Disk, options: Options) -> Result<Self, Error> {
        let Options { path: _, clock, queue_limit } = options;
        let live = Arc::new(Mutex::new(Live::default()));
        let (written, recent) = (Arc::new(Written::new()), Arc::new(Recent::default()));
        let mut judge = Judge::new((*disk.db).clone(), Arc::clone(&live), clock.clone(), queue_limit);
        judge.command(Judge::begin)?;
        let log = disk.log.try_clone().map_err(|error| Error::Unavailable(format!("opening the log a second time: {error}")))?;
        let mut writer = Writer { tree: (*disk.db).clone(), log, judge, progress: Arc::clone(&written), recent: Arc::clone(&recent) };
        writer.commit().map_err(Error::Unavailable)?;
        let (commands, waiting) = mpsc::unbounded_channel();
        let writer = writer.start(waiting).map_err(|error| Error::Unavailable(format!("starting the writer: {error}")))?;
        Ok(Self {
            clock,
            queue_limit,
            live,
            written,
            recent,
            commands: Mutex::new(Some(commands)),
            room: Arc::new(Semaphore::new(COMMANDS)),
            writer: Mutex::new(Some(writer)),
            readers: Arc::new(Semaphore::new(READERS)),
            disk: Arc::new(RwLock::new(Some(disk))),
        })
    }

    /// Answers the commands that wait, ends the writer and lets go of the folder, so that it can be opened again. Calls that
    /// come later are refused. It blocks for as long as that takes.
    pub fn close(&self) {
        self.room.close();
        self.readers.close();
        drop(lock(&self.commands).take());
        if let Some(writer) = lock(&self.writer).take()
            && writer.join().is_err()
        {
            self.written.poison("the writer panicked");
        }
        drop(self.disk.write().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Waits until the store cannot be written any more, and tells why: a write or sync failed, and the process is to end;
    /// or it was closed.
    pub async fn poisoned(&self) -> String {
        self.written.poisoned().await.to_string()
    }

    /// Has the writer run a command, and waits until what it changed is durable.
    async fn command<T: Send + 'static>(&self, command: impl FnOnce(&mut Judge) -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
        self.written.ready()?;
        let closed = |_| Error::Unavailable(CLOSED.to_owned());
        let room = Arc::clone(&self.room).acquire_owned().await.map_err(closed)?;
        let (sender, answer) = oneshot::channel();
        let command: Command = Box::new(move |judge| {
            drop(room);
            if sender.is_closed() {
                return None;
            }
            let outcome = command(judge);
            // The caller may have gone meanwhile.
            Some(Box::new(move || drop(sender.send(outcome))))
        });
        // A command that does not reach the writer is dropped, and its answer with it.
        if let Some(commands) = &*lock(&self.commands) {
            drop(commands.send(command));
        }
        match answer.await {
            Ok(outcome) => outcome,
            // The writer says why as soon as it has ended.
            Err(_) => Err(Error::Unavailable(self.poisoned().await)),
        }
    }

    /// Has the writer run a command whose changes are kept together or not at all.
    async fn change<T: Send + 'static>(&self, change: impl FnOnce(&mut Judge) -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
        self.command(move |judge| judge.command(change)).await
    }

    /// Reads from the tree, and waits until what was seen is durable.
    async fn read<T: Send + 'static>(&self, read: impl FnOnce(&Rows) -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
        self.written.ready()?;
        let turn = Arc::clone(&self.readers).acquire_owned().await.map_err(|_| Error::Unavailable(CLOSED.to_owned()))?;
        let disk = Arc::clone(&self.disk);
        // A page may have to come from the disk, and the writer may be in the way: neither may hold up an async thread.
        let task = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            match &*disk.read().unwrap_or_else(PoisonError::into_inner) {
                Some(disk) => read(&Rows::new((*disk.db).clone())),
                None => Err(Error::Unavailable(CLOSED.to_owned())),
            }
        });
        let seen = match task.await {
            Ok(seen) => seen,
            Err(error) if error.is_panic() => Err(Error::Damaged("the files of the embedded store do not hold together: reading them panicked".to_owned())),
            Err(_) => Err(Error::Unavailable("the process ends".to_owned())),
        };
        self.written.settled().await?;
        seen
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        self.close();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Store for SledStore {
    async fn create(&self, create: Create, grace: Duration) -> Result<Created, Error> {
        self.change(move |judge| judge.create(create, grace)).await
    }

    async fn known(&self, idempotency: &Idempotency) -> Result<Option<Operation>, Error> {
        let idempotency = idempotency.clone();
        self.read(move |rows| accept::known(rows, &idempotency)).await
    }

    async fn get(&self, id: OperationId) -> Result<Operation, Error> {
        self.written.ready()?;
        if let Some(operation) = self.recent.get(id) {
            return Ok(Operation::clone(&operation));
        }
        let quiet = self.written.quiet();
        let operation = self.read(move |rows| read::get(rows, id)).await?;
        if let Some(last) = quiet {
            self.recent.keep(&operation, || self.written.begun() == last);
        }
        Ok(operation)
    }

    async fn list(&self, filter: &OperationFilter, after: Option<OperationId>, limit: usize) -> Result<Vec<Operation>, Error> {
        let filter = filter.clone();
        self.read(move |rows| read::list(rows, &filter, after, limit)).await
    }

    async fn claim(&self, zones: &Zones, lease: Duration) -> Result<(Option<Claim>, Vec<OperationId>), Error> {
        let mut ended = Vec::new();
        loop {
            let zones = zones.clone();
            let look = self.command(move |judge| judge.claim(&zones, lease)).await?;
            ended.extend(look.ended);
            if !look.more {
                return Ok((look.claim, ended));
            }
        }
    }

    async fn next_due(&self, zones: &Zones) -> Result<Option<Timestamp>, Error> {
        self.written.ready()?;
        Ok(lock(&self.live).first(zones).map(|(due_at, _)| due_at))
    }

    async fn renew(&self, id: OperationId, epoch: Epoch, lease: Duration) -> Result<Operation, Error> {
        self.change(move |judge| judge.renew(id, epoch, lease)).await
    }

    async fn step(&self, id: OperationId, epoch: Epoch, step: Step, publication: Option<(Publication, Vec<u8>)>) -> Result<Operation, Error> {
        self.change(move |judge| judge.step(id, epoch, step, publication)).await
    }

    async fn progress(&self, id: OperationId, epoch: Epoch, progress: Progress) -> Result<Operation, Error> {
        self.change(move |judge| judge.progress(id, epoch, progress)).await
    }

    async fn retry(&self, id: OperationId, epoch: Epoch, wait: Duration, fault: Fault, failure: Failure) -> Result<Operation, Error> {
        self.change(move |judge| judge.retry(id, epoch, wait, fault, failure)).await
    }

    async fn hand_back(&self, id: OperationId, epoch: Epoch) -> Result<Operation, Error> {
        self.change(move |judge| judge.hand_back(id, epoch)).await
    }

    async fn defer(&self, id: OperationId, epoch: Epoch, until: Timestamp, deadline_at: Timestamp, waiting_for: String) -> Result<Operation, Error> {
        self.change(move |judge| judge.defer(id, epoch, until, deadline_at, waiting_for)).await
    }

    async fn take_place(&self, id: OperationId, epoch: Epoch, place: &Place, limit: usize) -> Result<Turn, Error> {
        let place = place.clone();
        self.change(move |judge| judge.take_place(id, epoch, &place, limit)).await
    }

    async fn free_place(&self, id: OperationId, epoch: Epoch, place: &Place) -> Result<(), Error> {
        let place = place.clone();
        self.change(move |judge| judge.free_place(id, epoch, &place)).await
    }

    async fn record_lineage(&self, id: OperationId, epoch: Epoch, lineage: Vec<Lineage>) -> Result<(), Error> {
        self.change(move |judge| judge.record_lineage(id, epoch, lineage)).await
    }

    async fn baseline(&self, folder: &FolderId, cluster: &ClusterId) -> Result<Option<Baseline>, Error> {
        let (folder, cluster) = (folder.clone(), cluster.clone());
        self.read(move |rows| lineage::baseline(rows, &folder, &cluster)).await
    }

    async fn sketch_key(&self, cluster: &ClusterId, fresh: SketchKey) -> Result<SketchKey, Error> {
        let cluster = cluster.clone();
        self.change(move |judge| judge.sketch_key(&cluster, fresh)).await
    }

    async fn occupy(&self, id: OperationId, epoch: Epoch) -> Result<Backup, Error> {
        self.change(move |judge| judge.occupy(id, epoch)).await
    }

    async fn complete(&self, id: OperationId, epoch: Epoch, completion: Completion) -> Result<Operation, Error> {
        self.change(move |judge| judge.complete(id, epoch, completion)).await
    }

    async fn cancel(&self, id: OperationId) -> Result<Operation, Error> {
        self.change(move |judge| judge.cancel(id)).await
    }

    async fn manifest(&self, id: OperationId) -> Result<Option<Vec<u8>>, Error> {
        self.read(move |rows| read::manifest(rows, id)).await
    }

    async fn backup(&self, id: BackupId) -> Result<Backup, Error> {
        self.read(move |rows| read::backup(rows, id)).await
    }

    async fn backup_named(&self, folder: &FolderId, name: &Name) -> Result<Backup, Error> {
        let (folder, name) = (folder.clone(), name.clone());
        self.read(move |rows| read::backup_named(rows, &folder, &name)).await
    }

    async fn backups(&self, filter: &BackupFilter, after: Option<BackupId>, limit: usize) -> Result<Vec<Backup>, Error> {
        let filter = filter.clone();
        self.read(move |rows| read::backups(rows, &filter, after, limit)).await
    }

    async fn doomed(&self, limit: usize) -> Result<Vec<Doomed>, Error> {
        let now = self.clock.now();
        self.read(move |rows| read::doomed(rows, now, limit)).await
    }

    async fn looked(&self, id: OperationId, epoch: Epoch, looks: u32) -> Result<(), Error> {
        self.change(move |judge| judge.looked(id, epoch, looks)).await
    }

    async fn purgeable(&self, limit: usize) -> Result<Vec<Backup>, Error> {
        let now = self.clock.now();
        self.read(move |rows| read::purgeable(rows, now, limit)).await
    }

    async fn newest_available(&self, folder: &FolderId, cluster: &ClusterId) -> Result<Option<Backup>, Error> {
        let (folder, cluster) = (folder.clone(), cluster.clone());
        self.read(move |rows| read::newest_available(rows, &folder, &cluster)).await
    }

    async fn clusters_with_backups(&self, after: Option<&ClusterId>, limit: usize) -> Result<Vec<ClusterId>, Error> {
        let after = after.cloned();
        self.read(move |rows| read::clusters_with_backups(rows, after.as_ref(), limit)).await
    }

    async fn put_back(&self, backup: Backup, lineage: Vec<Lineage>) -> Result<bool, Error> {
        self.change(move |judge| judge.put_back(&backup, lineage)).await
    }

    async fn begin_purge(&self, id: BackupId) -> Result<bool, Error> {
        self.change(move |judge| judge.begin_purge(id)).await
    }

    async fn purged(&self, id: BackupId) -> Result<(), Error> {
        self.change(move |judge| judge.purged(id)).await
    }

    async fn expire(&self, retention: Duration) -> Result<usize, Error> {
        self.change(move |judge| judge.expire(retention)).await
    }

    async fn cluster(&self, id: &ClusterId) -> Result<Adopted, Error> {
        let id = id.clone();
        self.read(move |rows| read::cluster(rows, &id)).await
    }

    async fn cluster_to_be(&self, id: &ClusterId) -> Result<Option<Adopted>, Error> {
        let key = keys::cluster_to_be(id);
        self.read(move |rows| rows.read(&key)).await
    }

    async fn clusters(&self, after: Option<&ClusterId>, limit: usize) -> Result<Vec<Adopted>, Error> {
        let after = after.cloned();
        self.read(move |rows| read::clusters(rows, after.as_ref(), limit)).await
    }

    async fn policies(&self, cluster: &ClusterId) -> Result<Vec<Policy>, Error> {
        let cluster = cluster.clone();
        self.read(move |rows| plan::policies(rows, &cluster)).await
    }

    async fn planned(&self, cluster: &ClusterId) -> Result<Option<Planned>, Error> {
        let cluster = cluster.clone();
        self.read(move |rows| plan::planned(rows, &cluster)).await
    }

    async fn plan(&self, cluster: &ClusterId, before: Option<Planned>, after: Planned) -> Result<Recorded, Error> {
        let cluster = cluster.clone();
        self.change(move |judge| judge.plan(&cluster, before.as_ref(), &after)).await
    }

    async fn shard_names(&self, cluster: &ClusterId) -> Result<ShardNames, Error> {
        let cluster = cluster.clone();
        self.read(move |rows| shards::names(rows, &cluster)).await
    }

    async fn record_servers(&self, id: OperationId, epoch: Epoch, nodes: Vec<String>, servers: LocalServers) -> Result<(), Error> {
        self.change(move |judge| judge.record_servers(id, epoch, nodes, servers)).await
    }

    async fn name_shards(&self, cluster: &ClusterId, found: Vec<Vec<String>>) -> Result<ShardNames, Error> {
        let cluster = cluster.clone();
        self.change(move |judge| judge.name_shards(&cluster, &found)).await
    }

    async fn census(&self) -> Result<Census, Error> {
        self.written.ready()?;
        Ok(lock(&self.live).census(self.queue_limit))
    }

    fn ready(&self) -> Result<(), Error> {
        self.written.ready()
    }
}
