//! Whether a store holds together: every row by itself, and every row with those it belongs to.
//!
//! Reads only. It takes the folder's lock like any other, so it is refused while a process works with the store.

use super::keys::{self, Key, Kind};
use super::open::{Absent, Disk};
use super::place::Held;
use super::rows::{self, Attempt, KeyUse, Rows};
use crate::backup::{self, Backup, BackupId};
use crate::cluster::{Adopted, ShardNames};
use crate::operation::{Operation, OperationId, Spec, State};
use crate::store::{Error, Lineage, SKETCH_KEY_BYTES, row};
use serde::de::DeserializeOwned;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

/// Most faults that are told in words.
const FAULTS: usize = 100;

/// What was found in a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Rows of all kinds.
    pub rows: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Operations.
    pub operations: u64,
    /// Operations that have not ended.
    pub live: u64,
    /// Backups.
    pub backups: u64,
    /// Adopted clusters.
    pub clusters: u64,
    /// Attempts with files in storage that belong to no backup.
    pub attempts: u64,
    /// Attempts among them whose files must go.
    pub doomed: u64,
    /// Idempotency keys in use.
    pub keys: u64,
    /// How many faults there are.
    pub fault_count: u64,
    /// The first 100 of them, in words.
    pub faults: Vec<String>,
}

impl Report {
    /// Whether there is no fault.
    pub fn is_clean(&self) -> bool {
        self.fault_count == 0
    }
}

/// Checks the store in a folder. It blocks, and takes time in proportion to the number of rows.
///
/// # Errors
///
/// [`Error::Unavailable`] when there is no store, a process holds it, or it cannot be read; [`Error::Damaged`] when the files
/// cannot be opened. Damage of rows is no error but a fault in the report.
pub fn verify(path: &Path) -> Result<Report, Error> {
    let disk = Disk::open(path, Absent::Refuse)?;
    // The crate asserts much of what it reads.
    panic::catch_unwind(AssertUnwindSafe(|| walk(&disk)))
        .map_err(|_| Error::Damaged("the files of the embedded store do not hold together: reading them panicked".to_owned()))
}

fn walk(disk: &Disk) -> Report {
    let mut walk = Walk { rows: Rows::new((*disk.db).clone()), report: Report::default() };
    match walk.rows.has(&keys::format()) {
        Ok(true) => {}
        Ok(false) => walk.fault("the row that tells the store's format is missing"),
        Err(error) => walk.fault(error),
    }
    for item in disk.db.iter() {
        match item {
            Ok((key, value)) => walk.row(&key, &value),
            Err(error) => {
                walk.fault(rows::tree_error(error));
                // What comes after it cannot be reached.
                break;
            }
        }
    }
    walk.report
}

struct Walk {
    rows: Rows,
    report: Report,
}

/// A fault, in words.
type Finding = Result<(), String>;

impl Walk {
    fn fault(&mut self, what: impl std::fmt::Display) {
        self.report.fault_count += 1;
        if self.report.faults.len() < FAULTS {
            self.report.faults.push(what.to_string());
        }
    }

    fn row(&mut self, key: &[u8], value: &[u8]) {
        self.report.rows += 1;
        self.report.bytes += (key.len() + value.len()) as u64;
        let Some(kind) = key.first().and_then(|byte| Kind::of(*byte)) else {
            self.fault(format_args!("a row of unknown kind lies at {}", hex(key)));
            return;
        };
        if let Err(what) = self.check(kind, key, value) {
            self.fault(format_args!("{} at {}: {what}", kind.word(), hex(key)));
        }
    }

    fn check(&mut self, kind: Kind, key: &[u8], value: &[u8]) -> Finding {
        match kind {
            Kind::Format => match parse::<u32>(kind, value)? {
                rows::FORMAT => Ok(()),
                other => Err(format!("the store's format is {other}, this program knows {}", rows::FORMAT)),
            },
            Kind::Operation => {
                let operation = self.whole::<Operation>(kind, key, value)?;
                self.report.operations += 1;
                self.report.live += u64::from(!operation.state.is_terminal());
                expect(key == keys::operation(operation.id), "it lies under the key of another")?;
                self.operation(&operation)
            }
            Kind::Backup => {
                let backup = self.whole::<Backup>(kind, key, value)?;
                self.report.backups += 1;
                expect(key == keys::backup(backup.id), "it lies under the key of another")?;
                self.backup(&backup)
            }
            Kind::Attempt => {
                let attempt = parse::<Attempt>(kind, value)?;
                self.report.attempts += 1;
                self.report.doomed += u64::from(attempt.doom.is_some());
                self.attempt(key, &attempt)
            }
            Kind::Cluster => {
                let cluster = parse::<Adopted>(kind, value)?;
                self.report.clusters += 1;
                expect(key == keys::cluster(&cluster.id), "it lies under the key of another")?;
                let adopting = self.holder(&cluster)?.is_some_and(|holder| holder.spec == Spec::AdoptCluster);
                expect(adopting == cluster.is_adopting, "whether it is being adopted is told in two ways")
            }
            Kind::ClusterToBe => {
                let cluster = parse::<Adopted>(kind, value)?;
                expect(key == keys::cluster_to_be(&cluster.id), "it lies under the key of another")?;
                expect(self.has(&keys::cluster(&cluster.id))?, "the cluster is missing")?;
                let changing = self.holder(&cluster)?.is_some_and(|holder| holder.spec == Spec::UpdateConnection);
                expect(changing, "nothing changes its connection")
            }
            Kind::Shards => parse::<ShardNames>(kind, value).map(drop),
            Kind::Doomed => {
                mark(kind, value)?;
                let (id, epoch) = keys::last_attempt(key).ok_or("its key is no attempt")?;
                let attempt = self.get::<Attempt>(&keys::attempt(id, epoch))?.ok_or("its attempt is missing")?;
                expect(attempt.doom.is_some_and(|doom| key == keys::doomed(doom.next_look, id, epoch)), "its attempt is looked for at another time")
            }
            Kind::Live => {
                mark(kind, value)?;
                let operation = self.operation_at(key)?;
                expect(!operation.state.is_terminal(), "its operation has ended")
            }
            Kind::Ended => {
                mark(kind, value)?;
                let operation = self.operation_at(key)?;
                let fits = operation.state.is_terminal() && key == keys::ended(operation.modified_at, operation.id);
                expect(fits, "its operation has not ended, or at another time")
            }
            Kind::OperationOfFolder | Kind::OperationOfCluster => {
                mark(kind, value)?;
                let operation = self.operation_at(key)?;
                let listings = keys::listings_of_operation(operation.id, &operation.folder_id, &operation.cluster_id);
                expect(listings.iter().any(|listing| listing == key), "its operation belongs elsewhere")
            }
            Kind::Idempotency => {
                let used = parse::<KeyUse>(kind, value)?;
                self.report.keys += 1;
                expect(self.has(&keys::operation(used.operation_id))?, "its operation is missing")?;
                let hash = self.get::<[u8; 32]>(&keys::key_of(used.operation_id))?.ok_or("its operation does not know of it")?;
                expect(key == keys::idempotency(&hash), "its operation knows of another")
            }
            Kind::KeyOf => {
                let hash = parse::<[u8; 32]>(kind, value)?;
                let operation = self.operation_at(key)?;
                let used = self.get::<KeyUse>(&keys::idempotency(&hash))?.ok_or("the key is missing")?;
                expect(used.operation_id == operation.id, "the key belongs to another operation")
            }
            Kind::Target => {
                let holder = parse::<OperationId>(kind, value)?;
                let operation = self.live(holder)?.ok_or("its operation has ended or is missing")?;
                expect(self.targets(&operation)?.iter().any(|target| target == key), "its operation does not write there")
            }
            Kind::Hold => {
                let holder = parse::<OperationId>(kind, value)?;
                let operation = self.live(holder)?.ok_or("its operation has ended or is missing")?;
                expect(operation.spec.is_exclusive() && key == keys::hold(&operation.cluster_id), "its operation does not hold this cluster")
            }
            Kind::Place => {
                let held = parse::<Held>(kind, value)?;
                let separator = key.iter().position(|byte| *byte == 0).ok_or("its key is no place")?;
                let domain = key.get(1..separator).and_then(|domain| std::str::from_utf8(domain).ok()).ok_or("its key is no place")?;
                let (id, shard) = keys::place_in(domain, key).ok_or("its key is no place")?;
                let operation = self.live(id)?.ok_or("its operation has ended or is missing")?;
                let is_held = matches!(operation.state, State::Running { .. } | State::Cancelling { .. });
                expect(is_held && operation.epoch == held.epoch, "its attempt is over")?;
                expect(self.has(&keys::place_of(id, domain, &shard))?, "it would never be freed")
            }
            Kind::PlaceOf => {
                mark(kind, value)?;
                let (id, domain, shard) = keys::read_place_of(key).ok_or("its key is no place")?;
                expect(self.has(&keys::place(&domain, id, &shard))?, "its place is missing")
            }
            Kind::Lineage => {
                let index = key.last_chunk::<2>().map(|index| u16::from_be_bytes(*index)).ok_or("its key is no lineage")?;
                Lineage::decode(kind.word(), value).map_err(text)?;
                let id = keys::lineage_of(key).ok_or("its key is no lineage")?;
                let backup = self.get::<Backup>(&keys::backup(id))?.ok_or("its backup is missing")?;
                expect(!matches!(backup.state, backup::State::Error(_)), "its backup failed")?;
                expect(index == 0 || self.has(&keys::lineage(id, index - 1))?, "the one before it is missing")
            }
            Kind::Rest => {
                row::unseal(kind.word(), value).map_err(text)?;
                let (of, index) = keys::read_rest(key).ok_or("its key is no piece")?;
                let head = self.rows.value(of).map_err(text)?.ok_or("the row that it belongs to is missing")?;
                let pieces = row::pieces(kind.word(), &head).map_err(text)?.ok_or("the row that it belongs to is whole without it")?;
                expect(index < pieces.count, "it is beyond the last piece")
            }
            Kind::SketchKey => {
                parse::<[u8; SKETCH_KEY_BYTES]>(kind, value)?;
                keys::sketched_cluster(key).map(drop).ok_or_else(|| "its key is no cluster".to_owned())
            }
            Kind::Name => {
                let owner = parse::<BackupId>(kind, value)?;
                let backup = self.get::<Backup>(&keys::backup(owner))?.ok_or("its backup is missing")?;
                expect(!backup.is_deleting(), "its backup is being deleted")?;
                let own = key == keys::name(&backup.folder_id, &backup.name);
                expect(own || self.new_name(&backup)?.is_some_and(|new| new == key), "its backup has another name")
            }
            Kind::Purge => {
                mark(kind, value)?;
                let backup = self.backup_at(key)?;
                expect(purge_of(&backup).is_some_and(|purge| purge == key), "its backup is not deleted, or goes at another time")
            }
            Kind::BackupOfFolder | Kind::BackupOfCluster => {
                mark(kind, value)?;
                let backup = self.backup_at(key)?;
                let listings = keys::listings_of_backup(backup.id, &backup.folder_id, &backup.cluster_id);
                expect(listings.iter().any(|listing| listing == key), "its backup belongs elsewhere")
            }
            Kind::Manifest => {
                let (id, index) = keys::last_piece(key).ok_or("its key is no piece")?;
                let (count, _) = rows::read_piece(value).map_err(text)?;
                let operation = self.live(id)?.ok_or("its operation has ended or is missing")?;
                expect(operation.publication.is_some(), "its operation has not decided to publish")?;
                expect(index < count, "it is beyond the last piece")?;
                expect(index + 1 == count || self.has(&keys::manifest(id, index + 1))?, "the piece after it is missing")
            }
        }
    }

    /// A row that may lie in pieces.
    fn whole<T: DeserializeOwned>(&self, kind: Kind, key: &[u8], value: &[u8]) -> Result<T, String> {
        match row::pieces(kind.word(), value).map_err(text)? {
            None => parse(kind, value),
            Some(_) => Ok(self.get(key)?.ok_or("it went while it was read")?),
        }
    }

    fn operation(&self, operation: &Operation) -> Finding {
        let id = operation.id;
        for listing in keys::listings_of_operation(id, &operation.folder_id, &operation.cluster_id) {
            expect(self.has(&listing)?, "it is not listed")?;
        }
        if operation.state.is_terminal() {
            return expect(self.has(&keys::ended(operation.modified_at, id))?, "it has ended and would never expire");
        }
        expect(self.has(&keys::live(id))?, "it has not ended and would never be worked on")?;
        if operation.spec.is_exclusive() {
            let holder = self.get::<OperationId>(&keys::hold(&operation.cluster_id))?;
            expect(holder == Some(id), "it does not hold its cluster")?;
        }
        if operation.publication.is_some() {
            expect(self.has(&keys::manifest(id, 0))?, "the manifest that it is to publish is missing")?;
        }
        if let Some(read) = operation.reads() {
            let backup = self.get::<Backup>(&keys::backup(read))?.ok_or("the backup that it reads is missing")?;
            expect(backup.is_available() && backup.readers.contains(&id.to_string()), "the backup that it reads is not kept for it")?;
        }
        for target in self.targets(operation)? {
            expect(self.get::<OperationId>(&target)? == Some(id), "what it is to write in a bucket, or to fill, is not kept for it")?;
        }
        let backup = || -> Result<Backup, String> {
            let backup_id = operation.backup_id.ok_or("it names no backup")?;
            Ok(self.get(&keys::backup(backup_id))?.ok_or("its backup is missing")?)
        };
        match &operation.spec {
            Spec::AdoptCluster | Spec::ForgetCluster => expect(self.has(&keys::cluster(&operation.cluster_id))?, "its cluster is missing"),
            Spec::UpdateConnection => expect(self.has(&keys::cluster_to_be(&operation.cluster_id))?, "what its cluster is to be is missing"),
            Spec::ExportBackup(_) | Spec::VerifyBackup { .. } | Spec::RestoreInto(_) | Spec::UndeleteBackup => backup().map(drop),
            Spec::RestoreCluster(_) | Spec::DeleteCluster => Ok(()),
            Spec::UpdateCluster(_) | Spec::CreatePolicy(_) | Spec::DeletePolicy { .. } => Ok(()),
            Spec::CreateBackup | Spec::CopyBackup { .. } | Spec::ImportBackup(_) => {
                expect(backup()?.state == backup::State::Creating, "its backup is no draft")
            }
            Spec::UpdateBackup(_) | Spec::DeleteBackup => {
                let backup = backup()?;
                let busy = backup.busy.as_deref().and_then(|busy| busy.parse().ok());
                expect(busy == Some(id), "its backup is not held for it")
            }
        }
    }

    fn backup(&self, backup: &Backup) -> Finding {
        for listing in keys::listings_of_backup(backup.id, &backup.folder_id, &backup.cluster_id) {
            expect(self.has(&listing)?, "it is not listed")?;
        }
        match purge_of(backup) {
            Some(purge) => expect(self.has(&purge)?, "it is deleted and its files would never go")?,
            None => {
                let owner = self.get::<BackupId>(&keys::name(&backup.folder_id, &backup.name))?;
                expect(owner == Some(backup.id), "its name is not its own")?;
            }
        }
        if backup.state == backup::State::Creating {
            let maker = backup.operation_id.parse().map_err(|_| "its operation has no identifier")?;
            expect(self.live(maker)?.is_some_and(|maker| maker.backup_id == Some(backup.id)), "it is a draft and nothing works on it")?;
        }
        if let Some(busy) = &backup.busy {
            let holder = busy.parse().map_err(|_| "what holds it is no operation")?;
            expect(self.live(holder)?.is_some_and(|holder| holder.backup_id == Some(backup.id)), "what holds it has ended or is missing")?;
        }
        for reader in &backup.readers {
            let reader = reader.parse().map_err(|_| "what reads it is no operation")?;
            expect(self.live(reader)?.is_some_and(|reader| reader.reads() == Some(backup.id)), "what reads it has ended or is missing")?;
        }
        Ok(())
    }

    /// The rows of what an export is to write, or a restore to fill.
    fn targets(&self, operation: &Operation) -> Result<Vec<Key>, String> {
        if let Spec::RestoreInto(target) = &operation.spec {
            return Ok(vec![keys::restored(&target.place)]);
        }
        let Spec::ExportBackup(target) = &operation.spec else { return Ok(Vec::new()) };
        let backup_id = operation.backup_id.ok_or("it names no backup")?;
        let backup = self.get::<Backup>(&keys::backup(backup_id))?.ok_or("its backup is missing")?;
        Ok(target.objects(&backup).iter().map(|object| keys::target(&target.bucket, &object.key)).collect())
    }

    fn attempt(&self, key: &[u8], attempt: &Attempt) -> Finding {
        let (id, epoch) = keys::last_attempt(key).ok_or("its key is no attempt")?;
        match attempt.doom {
            Some(doom) => expect(self.has(&keys::doomed(doom.next_look, id, epoch))?, "it is doomed and its files would never go"),
            None => {
                let operation = self.live(id)?.ok_or("its operation has ended or is missing, and its files are not doomed")?;
                let published = operation.publication.as_ref().is_some_and(|publication| publication.epoch == epoch);
                let held = match operation.state {
                    State::Running { .. } | State::Cancelling { .. } => operation.epoch == epoch,
                    State::Queued { .. } | State::Succeeded(_) | State::Failed(_) | State::Cancelled => false,
                };
                expect(published || held, "it is over, and its files are not doomed")
            }
        }
    }

    /// The operation that holds a cluster, if it has not ended.
    fn holder(&self, cluster: &Adopted) -> Result<Option<Operation>, String> {
        self.get::<OperationId>(&keys::hold(&cluster.id))?.map_or(Ok(None), |holder| self.live(holder))
    }

    /// The name that is being given to a backup.
    fn new_name(&self, backup: &Backup) -> Result<Option<Key>, String> {
        let Some(holder) = backup.busy.as_deref().and_then(|busy| busy.parse().ok()) else { return Ok(None) };
        Ok(self.live(holder)?.and_then(|operation| match operation.spec {
            Spec::UpdateBackup(changes) => changes.name.map(|name| keys::name(&backup.folder_id, &name)),
            Spec::CreateBackup | Spec::DeleteBackup | Spec::CopyBackup { .. } | Spec::ExportBackup(_) | Spec::ImportBackup(_) => None,
            Spec::AdoptCluster | Spec::UpdateConnection | Spec::ForgetCluster => None,
            Spec::UndeleteBackup | Spec::VerifyBackup { .. } | Spec::RestoreInto(_) | Spec::RestoreCluster(_) | Spec::DeleteCluster => None,
            Spec::UpdateCluster(_) | Spec::CreatePolicy(_) | Spec::DeletePolicy { .. } => None,
        }))
    }

    fn has(&self, key: &[u8]) -> Result<bool, String> {
        self.rows.has(key).map_err(text)
    }

    fn get<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, String> {
        self.rows.read(key).map_err(text)
    }

    /// The operation with this id, if it has not ended.
    fn live(&self, id: OperationId) -> Result<Option<Operation>, String> {
        Ok(self.get::<Operation>(&keys::operation(id))?.filter(|operation| !operation.state.is_terminal()))
    }

    fn operation_at(&self, key: &[u8]) -> Result<Operation, String> {
        let id = keys::last_operation(key).ok_or("its key is no operation")?;
        Ok(self.get(&keys::operation(id))?.ok_or("its operation is missing")?)
    }

    fn backup_at(&self, key: &[u8]) -> Result<Backup, String> {
        let id = keys::last_backup(key).ok_or("its key is no backup")?;
        Ok(self.get(&keys::backup(id))?.ok_or("its backup is missing")?)
    }
}

/// The mark by which the files of a deleted backup go.
fn purge_of(backup: &Backup) -> Option<Key> {
    match backup.state {
        backup::State::Deleting { purge_at } => Some(keys::purge(purge_at, backup.id)),
        backup::State::Creating | backup::State::Available | backup::State::Error(_) => None,
    }
}

fn parse<T: DeserializeOwned>(kind: Kind, value: &[u8]) -> Result<T, String> {
    row::decode(kind.word(), value).map_err(text)
}

fn mark(kind: Kind, value: &[u8]) -> Finding {
    row::unseal(kind.word(), value).map(drop).map_err(text)
}

fn expect(holds: bool, what: &str) -> Finding {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

fn text(error: Error) -> String {
    error.to_string()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
