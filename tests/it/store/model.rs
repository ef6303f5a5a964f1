//! The store as its contract tells it, in memory: the oracle.
//!
//! It keeps no index: whatever is asked is found by looking at every row. So it shares no thought with the real ones.

use async_trait::async_trait;
use redkeep::backup::{self, Backup, BackupId, Name};
use redkeep::cluster::policy::{POLICIES, Policy};
use redkeep::cluster::{Adopted, ClusterId, FolderId, LocalServers, ShardNames, Timestamp};
use redkeep::failure::Failure;
use redkeep::operation::{self, Epoch, Event, Fault, Operation, OperationId, Progress, Publication, Refused, Spec, Step};
use redkeep::store::{
    BackupFilter, Baseline, Census, Claim, Clock, Completion, Create, Created, Doomed, Error, Idempotency, LOOK_AGAIN, Lineage, MANIFEST_BYTES,
    OperationFilter, PAGE_ROWS, Place, Planned, Recorded, SketchKey, Store, Turn, Zones,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

pub struct Model {
    clock: Clock,
    queue_limit: usize,
    rows: Mutex<Rows>,
}

#[derive(Clone, Default)]
struct Rows {
    operations: BTreeMap<OperationId, Operation>,
    backups: BTreeMap<BackupId, Backup>,
    keys: BTreeMap<(String, String), ([u8; 32], OperationId)>,
    /// The backup of each attempt, and how often and when its files are looked for once they must go.
    attempts: BTreeMap<(OperationId, Epoch), Attempt>,
    manifests: BTreeMap<OperationId, Vec<u8>>,
    clusters: BTreeMap<ClusterId, Adopted>,
    shards: BTreeMap<ClusterId, ShardNames>,
    policies: BTreeMap<(ClusterId, String), Policy>,
    planned: BTreeMap<ClusterId, Planned>,
    /// What an operation is to make of its cluster.
    to_be: BTreeMap<OperationId, Adopted>,
    /// Places of failure domains: the attempt that has one, or waits for it.
    places: BTreeMap<(String, OperationId, String), (Epoch, bool)>,
    lineages: BTreeMap<BackupId, Vec<Lineage>>,
    sketch_keys: BTreeMap<ClusterId, SketchKey>,
    /// Every end since the process began.
    ends: Vec<Operation>,
}

#[derive(Clone)]
struct Attempt {
    operation: Operation,
    doom: Option<(Timestamp, u32)>,
}

impl Model {
    pub fn new(clock: Clock, queue_limit: usize) -> Self {
        Self { clock, queue_limit, rows: Mutex::default() }
    }

    /// What the start of another process does.
    pub fn void_leases(&self) {
        let now = self.clock.now();
        let mut rows = self.rows();
        rows.ends.clear();
        for operation in rows.operations.values_mut() {
            if let operation::State::Running { lease_until, .. } | operation::State::Cancelling { lease_until } = &mut operation.state {
                *lease_until = now;
            }
        }
    }

    /// Operations with a worker, in order of creation.
    pub fn held(&self) -> Vec<Operation> {
        let held = |operation: &&Operation| matches!(operation.state, operation::State::Running { .. } | operation::State::Cancelling { .. });
        self.rows().operations.values().filter(held).cloned().collect()
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap()
    }

    /// Runs `change` on a copy, which becomes the truth if it succeeds.
    fn transaction<T>(&self, change: impl FnOnce(&mut Rows, Timestamp) -> Result<T, Error>) -> Result<T, Error> {
        let mut rows = self.rows();
        let mut copy = rows.clone();
        let answer = change(&mut copy, self.clock.now())?;
        *rows = copy;
        Ok(answer)
    }

    fn event(&self, id: OperationId, event: impl FnOnce(Timestamp) -> Event, backup: Option<Backup>) -> Result<Operation, Error> {
        self.transaction(|rows, now| rows.apply(id, event(now), backup, now))
    }
}

fn after(now: Timestamp, wait: Duration) -> Timestamp {
    now + wait
}

impl Rows {
    fn live(&self) -> impl Iterator<Item = &Operation> {
        self.operations.values().filter(|operation| !operation.state.is_terminal())
    }

    fn name_owner(&self, folder: &FolderId, name: &Name) -> Option<BackupId> {
        let own = self.backups.values().find(|backup| !backup.is_deleting() && backup.folder_id == *folder && backup.name == *name).map(|backup| backup.id);
        let reserved = || {
            self.live().find_map(|operation| match &operation.spec {
                Spec::UpdateBackup(changes) if changes.name.as_ref() == Some(name) => {
                    self.backups.get(&operation.backup_id?).filter(|backup| backup.folder_id == *folder).map(|backup| backup.id)
                }
                Spec::UndeleteBackup => {
                    let fits = |backup: &&Backup| backup.folder_id == *folder && backup.name == *name;
                    self.backups.get(&operation.backup_id?).filter(fits).map(|backup| backup.id)
                }
                _ => None,
            })
        };
        own.or_else(reserved)
    }

    /// The operations that read a backup.
    fn readers(&self, id: BackupId) -> BTreeSet<String> {
        self.live().filter(|operation| operation.reads() == Some(id)).map(|operation| operation.id.to_string()).collect()
    }

    /// A backup as it is read from outside.
    fn shown(&self, backup: &Backup) -> Backup {
        Backup { readers: self.readers(backup.id), ..backup.clone() }
    }

    fn known(&self, key: &Idempotency) -> Result<Option<Operation>, Error> {
        match self.keys.get(&(key.caller.clone(), key.key.clone())) {
            None => Ok(None),
            Some((digest, id)) if *digest == key.digest => Ok(Some(self.operations[id].clone())),
            Some(_) => Err(Error::KeyReused),
        }
    }

    fn create(&mut self, create: Create, grace: Duration, queue_limit: usize, now: Timestamp) -> Result<Created, Error> {
        let Create { operation, draft, cluster, idempotency } = create;
        if let Some(key) = &idempotency
            && let Some(operation) = self.known(key)?
        {
            return Ok(Created::Existing(operation));
        }
        if draft.is_some() != operation.spec.makes_backup() || self.operations.contains_key(&operation.id) {
            return Err(Error::Invalid(String::new()));
        }
        let is_restore = matches!(operation.spec, Spec::RestoreCluster(_));
        let makes = is_restore || operation.spec == Spec::AdoptCluster;
        let brings = makes || operation.spec == Spec::UpdateConnection;
        let own = |row: &Adopted| {
            let is_its = row.id == operation.cluster_id && row.folder_id == operation.folder_id;
            is_its && row.is_adopting == makes && (!makes || row.local.is_some() == is_restore)
        };
        if brings != cluster.is_some() || cluster.as_ref().is_some_and(|row| !own(row)) {
            return Err(Error::Invalid(String::new()));
        }
        let queued = self.operations.values().filter(|operation| matches!(operation.state, operation::State::Queued { .. })).count();
        if queued >= queue_limit {
            return Err(Error::QueueFull(queue_limit));
        }
        if let Some(read) = operation.reads() {
            let backup = self.backups.get(&read).ok_or(Error::NoBackup)?;
            match backup.state {
                backup::State::Deleting { .. } => return Err(Error::NoBackup),
                backup::State::Creating => return Err(Error::NotAvailable("CREATING")),
                backup::State::Error(_) => return Err(Error::NotAvailable("ERROR")),
                backup::State::Available => {}
            }
            if self.readers(read).len() >= Backup::READERS {
                return Err(Error::ReadersFull(Backup::READERS));
            }
            // Every backup here has one shard, so the target alone makes the key.
            let target = |operation: &Operation| match &operation.spec {
                Spec::ExportBackup(target) => Some((target.bucket.clone(), target.path.clone(), target.name.clone())),
                _ => None,
            };
            if let Some(holder) = self.live().find(|other| target(other).is_some() && target(other) == target(&operation)) {
                return Err(Error::Conflict(holder.id.to_string()));
            }
        }
        if let (Some(read), Some(draft)) = (operation.reads(), &draft) {
            let source = &self.backups[&read];
            if (&source.folder_id, &source.cluster_id) != (&draft.folder_id, &draft.cluster_id) {
                return Err(Error::Invalid(String::new()));
            }
        }
        let holder = self.live().find(|other| other.spec.is_exclusive() && other.cluster_id == operation.cluster_id);
        let conflict = holder.map_or(Ok(()), |holder| Err(Error::Conflict(holder.id.to_string())));
        if operation.spec.changes_cluster() {
            self.accept_cluster(&operation, cluster, conflict)?;
        } else if let Some(draft) = draft {
            if operation.spec.is_exclusive() {
                conflict?;
            }
            if let Spec::ImportBackup(_) = operation.spec {
                let known = self.clusters.get(&operation.cluster_id);
                if known.is_some_and(|known| known.folder_id != operation.folder_id) || self.is_used_elsewhere(&operation) {
                    return Err(Error::ClusterTaken(operation.cluster_id));
                }
            }
            if self.name_owner(&draft.folder_id, &draft.name).is_some() {
                return Err(Error::NameTaken(draft.name));
            }
            self.backups.insert(draft.id, draft);
        } else if operation.spec == Spec::UndeleteBackup {
            let mut backup = operation.backup_id.and_then(|id| self.backups.get(&id)).cloned().ok_or(Error::NoBackup)?;
            match (backup.is_deleting(), backup.purging, backup.busy.take(), backup.epoch) {
                (false, ..) => return Err(Error::NotDeleting),
                (_, true, ..) => return Err(Error::Purging),
                (.., Some(holder), _) => return Err(Error::Conflict(holder)),
                (.., None) => return Err(Error::NotAvailable("ERROR")),
                (.., Some(_)) => {}
            }
            if self.name_owner(&backup.folder_id, &backup.name).is_some() {
                backup.name = Name::undeleted(backup.id);
            }
            if self.name_owner(&backup.folder_id, &backup.name).is_some() {
                return Err(Error::NameTaken(backup.name));
            }
            backup.busy = Some(operation.id.to_string());
            self.backups.insert(backup.id, backup);
        } else if operation.reads().is_none() {
            let backup = operation.backup_id.and_then(|id| self.backups.get(&id)).ok_or(Error::NoBackup)?;
            let in_error = match backup.state {
                backup::State::Deleting { .. } => return Err(Error::NoBackup),
                backup::State::Creating => return Err(Error::NotAvailable("CREATING")),
                backup::State::Available => false,
                backup::State::Error(_) => true,
            };
            if let Some(holder) = &backup.busy {
                return Err(Error::Conflict(holder.clone()));
            }
            let mut backup = backup.clone();
            match &operation.spec {
                Spec::UpdateBackup(_) if in_error => return Err(Error::NotAvailable("ERROR")),
                Spec::UpdateBackup(changes) if changes.clear_suspect && !backup.is_suspect() => return Err(Error::NotSuspect),
                Spec::UpdateBackup(changes) => {
                    if let Some(name) = &changes.name
                        && self.name_owner(&backup.folder_id, name).is_some_and(|owner| owner != backup.id)
                    {
                        return Err(Error::NameTaken(name.clone()));
                    }
                }
                _ => {
                    if let Some(reader) = self.readers(backup.id).first() {
                        return Err(Error::Conflict(reader.clone()));
                    }
                    if let Some(hold) = backup.holds.first() {
                        return Err(Error::Held(hold.reason.clone()));
                    }
                    backup.state = backup::State::Deleting { purge_at: if in_error { now } else { after(now, grace) } };
                }
            }
            backup.busy = Some(operation.id.to_string());
            self.backups.insert(backup.id, backup);
        }
        if let Some(key) = idempotency {
            self.keys.insert((key.caller, key.key), (key.digest, operation.id));
        }
        self.operations.insert(operation.id, operation.clone());
        Ok(Created::New(operation))
    }

    /// Whether the newest backup or operation of the cluster's id is another folder's.
    fn is_used_elsewhere(&self, operation: &Operation) -> bool {
        let id = &operation.cluster_id;
        let backup = self.backups.values().rev().find(|backup| backup.cluster_id == *id).map(|backup| &backup.folder_id);
        let before = self.operations.values().rev().find(|before| before.cluster_id == *id).map(|before| &before.folder_id);
        backup.into_iter().chain(before).any(|folder| *folder != operation.folder_id)
    }

    fn accept_cluster(&mut self, operation: &Operation, row: Option<Adopted>, conflict: Result<(), Error>) -> Result<(), Error> {
        let id = &operation.cluster_id;
        let known = self.clusters.get(id);
        if matches!(operation.spec, Spec::AdoptCluster | Spec::RestoreCluster(_)) {
            if known.is_some() || self.is_used_elsewhere(operation) {
                return Err(Error::ClusterTaken(id.clone()));
            }
        } else if known.is_none_or(|known| known.folder_id != operation.folder_id) {
            return Err(Error::NoCluster);
        } else if matches!(operation.spec, Spec::UpdateConnection | Spec::ForgetCluster | Spec::DeleteCluster)
            && known.is_some_and(|known| known.local.is_some()) != (operation.spec == Spec::DeleteCluster)
        {
            return Err(Error::Invalid(String::new()));
        }
        let changes_told = matches!(operation.spec, Spec::UpdateCluster(_) | Spec::CreatePolicy(_) | Spec::DeletePolicy { .. });
        if changes_told {
            // A backup is no obstacle.
            let holder = self.live().find(|other| other.spec.is_exclusive() && other.spec.changes_cluster() && other.cluster_id == *id);
            if let Some(holder) = holder {
                return Err(Error::Conflict(holder.id.to_string()));
            }
        } else {
            conflict?;
        }
        match &operation.spec {
            Spec::CreatePolicy(policy) => {
                if self.policies_of(id).iter().any(|other| other.name == policy.name) {
                    return Err(Error::PolicyTaken(policy.name.clone()));
                }
                if self.policies_of(id).len() >= POLICIES {
                    return Err(Error::PoliciesFull(POLICIES));
                }
                self.policies.insert((id.clone(), policy.id.clone()), Policy::clone(policy));
            }
            Spec::DeletePolicy { policy_id } if !self.policies.contains_key(&(id.clone(), policy_id.clone())) => return Err(Error::NoPolicy),
            Spec::AdoptCluster | Spec::RestoreCluster(_) => self.forget_plan(id),
            _ => {}
        }
        match (&operation.spec, row) {
            (Spec::AdoptCluster | Spec::RestoreCluster(_), Some(row)) => drop(self.clusters.insert(id.clone(), row)),
            (_, Some(row)) => drop(self.to_be.insert(operation.id, row)),
            (_, None) => {}
        }
        Ok(())
    }

    fn policies_of(&self, id: &ClusterId) -> Vec<Policy> {
        self.policies.values().filter(|policy| policy.cluster_id == *id).cloned().collect()
    }

    fn forget_plan(&mut self, id: &ClusterId) {
        self.policies.retain(|(cluster, _), _| cluster != id);
        self.planned.remove(id);
    }

    fn end_cluster(&mut self, operation: &Operation, result: Option<Backup>) -> Result<(), Error> {
        if result.is_some() {
            return Err(Error::Invalid(String::new()));
        }
        let id = &operation.cluster_id;
        let to_be = self.to_be.remove(&operation.id);
        match (&operation.spec, matches!(operation.state, operation::State::Succeeded(_))) {
            (Spec::AdoptCluster | Spec::RestoreCluster(_), true) => self.clusters.get_mut(id).unwrap().is_adopting = false,
            (Spec::AdoptCluster | Spec::RestoreCluster(_), false) | (Spec::ForgetCluster | Spec::DeleteCluster, true) => {
                self.forget_plan(id);
                drop((self.clusters.remove(id), self.shards.remove(id)));
            }
            (Spec::UpdateConnection, true) => self.clusters.get_mut(id).unwrap().connection = to_be.unwrap().connection,
            (Spec::UpdateCluster(changes), true) => changes.apply(self.clusters.get_mut(id).ok_or_else(|| Error::Invalid(String::new()))?),
            (Spec::CreatePolicy(policy), false) => drop(self.policies.remove(&(id.clone(), policy.id.clone()))),
            (Spec::DeletePolicy { policy_id }, true) => drop(self.policies.remove(&(id.clone(), policy_id.clone()))),
            _ => {}
        }
        Ok(())
    }

    fn apply(&mut self, id: OperationId, event: Event, backup: Option<Backup>, now: Timestamp) -> Result<Operation, Error> {
        let operation = self.operations.get_mut(&id).ok_or(Error::NoOperation)?;
        let was_over = operation.state.is_terminal();
        operation.apply(event, now).map_err(|refused| match refused {
            Refused::Fenced { .. } => Error::Fenced(refused.to_string()),
            Refused::Cancelling => Error::Cancelling,
            Refused::NotDue | Refused::NotAllowed(_) => Error::NotAllowed(refused.to_string()),
        })?;
        let operation = operation.clone();
        self.doom(&operation, now);
        let is_held = matches!(operation.state, operation::State::Running { .. } | operation::State::Cancelling { .. });
        self.places.retain(|(_, other, _), (epoch, _)| *other != operation.id || (is_held && *epoch == operation.epoch));
        if !is_held
            && matches!(operation.spec, Spec::VerifyBackup { .. })
            && let Some(backup) = operation.backup_id.and_then(|id| self.backups.get_mut(&id))
            && !operation.state.is_terminal()
            && backup.busy == Some(operation.id.to_string())
        {
            backup.busy = None;
        }
        if operation.state.is_terminal() && !was_over {
            self.end(&operation, backup)?;
            self.ends.push(operation.clone());
        }
        Ok(operation)
    }

    fn doom(&mut self, operation: &Operation, now: Timestamp) {
        let published = operation.publication.as_ref().map(|publication| publication.epoch);
        if let operation::State::Succeeded(_) = operation.state
            && let Some(epoch) = published
            && operation.spec.makes_backup()
        {
            self.attempts.remove(&(operation.id, epoch));
        }
        let held = matches!(operation.state, operation::State::Running { .. } | operation::State::Cancelling { .. });
        for ((id, epoch), attempt) in &mut self.attempts {
            let kept = !operation.state.is_terminal() && (published == Some(*epoch) || (held && *epoch == operation.epoch));
            if *id == operation.id && !kept && attempt.doom.is_none() {
                attempt.doom = Some((now, 0));
            }
        }
    }

    fn end(&mut self, operation: &Operation, result: Option<Backup>) -> Result<(), Error> {
        self.manifests.remove(&operation.id);
        if !matches!(operation.state, operation::State::Succeeded(_))
            && operation.spec.makes_backup()
            && let Some(id) = operation.backup_id
        {
            self.lineages.remove(&id);
        }
        if operation.spec.changes_cluster() {
            return self.end_cluster(operation, result);
        }
        let backup_id = operation.backup_id.unwrap();
        let is_creation = operation.spec.makes_backup();
        let is_proof = matches!(operation.spec, Spec::VerifyBackup { .. });
        let is_export = matches!(operation.spec, Spec::ExportBackup(_));
        let is_deletion = operation.spec == Spec::DeleteBackup || is_export;
        let Some(backup) = self.backups.get_mut(&backup_id) else { return Ok(()) };
        let own = Some(operation.id.to_string());
        match &operation.state {
            operation::State::Succeeded(_) if is_proof && backup.busy != own => return Err(Error::Invalid(String::new())),
            operation::State::Succeeded(_) if !is_deletion => {
                let invalid = || Error::Invalid(String::new());
                let result = result.ok_or_else(invalid)?;
                let renamed = matches!(&operation.spec, Spec::UpdateBackup(changes) if changes.name.as_ref() == Some(&result.name));
                let fits = result.id == backup.id && result.is_available() && (renamed || result.name == backup.name);
                *backup = if fits { result } else { return Err(invalid()) };
            }
            operation::State::Succeeded(_) if result.is_some() => return Err(Error::Invalid(String::new())),
            operation::State::Failed(failure) if is_creation => backup.state = backup::State::Error(failure.clone()),
            operation::State::Cancelled if is_creation => {
                let cluster = backup.cluster_id.clone();
                self.backups.remove(&backup_id);
                self.forget_key(&cluster);
                return Ok(());
            }
            _ => {}
        }
        if !is_export && (!is_proof || backup.busy == own || matches!(operation.state, operation::State::Succeeded(_))) {
            backup.busy = None;
        }
        Ok(())
    }

    fn forget_key(&mut self, cluster: &ClusterId) {
        if self.backups.values().all(|backup| backup.cluster_id != *cluster) {
            self.sketch_keys.remove(cluster);
        }
    }

    /// The operation of an attempt that may go on.
    fn attempt(&self, id: OperationId, epoch: Epoch) -> Result<&Operation, Error> {
        let operation = self.operations.get(&id).ok_or(Error::NoOperation)?;
        match operation.state {
            operation::State::Running { .. } if operation.epoch == epoch => Ok(operation),
            operation::State::Cancelling { .. } if operation.epoch == epoch => Err(Error::Cancelling),
            _ => Err(Error::Fenced(Refused::Fenced { sent: epoch, latest: operation.epoch }.to_string())),
        }
    }

    fn take_place(&mut self, id: OperationId, epoch: Epoch, place: &Place, limit: usize, now: Timestamp) -> Result<Turn, Error> {
        if !self.attempt(id, epoch)?.spec.forks() {
            return Err(Error::Invalid(String::new()));
        }
        let own = (place.domain.clone(), id, place.shard.clone());
        if self.places.get(&own) == Some(&(epoch, true)) {
            return Ok(Turn::Granted);
        }
        let operations = &self.operations;
        let lapsed = |id: &OperationId| operations[id].due_at().is_none_or(|until| until <= now);
        self.places.retain(|key, _| key.0 != place.domain || *key == own || !lapsed(&key.1));
        let others = self.places.iter().filter(|(key, _)| key.0 == place.domain && **key != own);
        let ahead: Vec<OperationId> = others.filter(|(key, (_, is_taken))| *is_taken || **key < own).map(|(key, _)| key.1).collect();
        let is_taken = ahead.len() < limit.max(1);
        self.places.insert(own, (epoch, is_taken));
        Ok(if is_taken { Turn::Granted } else { Turn::After(ahead[0]) })
    }

    fn page<T: Clone, I: Ord + Copy>(rows: &BTreeMap<I, T>, after: Option<I>, limit: usize, keep: impl Fn(&T) -> bool) -> Vec<T> {
        let older = rows.iter().rev().filter(|(id, _)| after.is_none_or(|after| **id < after));
        older.map(|(_, row)| row).filter(|row| keep(row)).take(limit.clamp(1, PAGE_ROWS)).cloned().collect()
    }
}

#[async_trait]
impl Store for Model {
    async fn create(&self, create: Create, grace: Duration) -> Result<Created, Error> {
        self.transaction(|rows, now| rows.create(create, grace, self.queue_limit, now))
    }

    async fn known(&self, idempotency: &Idempotency) -> Result<Option<Operation>, Error> {
        self.rows().known(idempotency)
    }

    async fn get(&self, id: OperationId) -> Result<Operation, Error> {
        self.rows().operations.get(&id).cloned().ok_or(Error::NoOperation)
    }

    async fn list(&self, filter: &OperationFilter, after: Option<OperationId>, limit: usize) -> Result<Vec<Operation>, Error> {
        Ok(Rows::page(&self.rows().operations, after, limit, |operation| match filter {
            OperationFilter::Folder(folder) => operation.folder_id == *folder,
            OperationFilter::Cluster(cluster) => operation.cluster_id == *cluster,
        }))
    }

    async fn claim(&self, zones: &Zones, lease: Duration) -> Result<(Option<Claim>, Vec<OperationId>), Error> {
        self.transaction(|rows, now| {
            let mut ended = Vec::new();
            loop {
                let due = rows.live().filter(|operation| zones.serve(operation.zone.as_deref()) && operation.due_at() <= Some(now));
                let Some((_, id)) = due.map(|operation| (operation.due_at(), operation.id)).min() else { return Ok((None, ended)) };
                let operation = rows.apply(id, Event::Claim { lease_until: after(now, lease) }, None, now)?;
                if operation.state.is_terminal() {
                    ended.push(id);
                } else if operation.step().is_some() {
                    if operation.spec.has_attempts() && operation.publication.is_none() {
                        rows.attempts.insert((id, operation.epoch), Attempt { operation: operation.clone(), doom: None });
                    }
                    return Ok((Some(Claim { operation }), ended));
                }
            }
        })
    }

    async fn next_due(&self, zones: &Zones) -> Result<Option<Timestamp>, Error> {
        Ok(self.rows().live().filter(|operation| zones.serve(operation.zone.as_deref())).filter_map(Operation::due_at).min())
    }

    async fn renew(&self, id: OperationId, epoch: Epoch, lease: Duration) -> Result<Operation, Error> {
        self.event(id, |now| Event::Renew { epoch, lease_until: after(now, lease) }, None)
    }

    async fn step(&self, id: OperationId, epoch: Epoch, step: Step, publication: Option<(Publication, Vec<u8>)>) -> Result<Operation, Error> {
        let (publication, manifest) = publication.unzip();
        self.transaction(|rows, now| {
            let decided = publication.as_ref().map(|publication| publication.epoch);
            let operation = rows.apply(id, Event::Step { epoch, step, publication }, None, now)?;
            if let Some(manifest) = manifest {
                if manifest.len() > MANIFEST_BYTES || decided != Some(epoch) {
                    return Err(Error::Invalid(String::new()));
                }
                rows.manifests.insert(id, manifest);
            }
            Ok(operation)
        })
    }

    async fn progress(&self, id: OperationId, epoch: Epoch, progress: Progress) -> Result<Operation, Error> {
        self.event(id, |_| Event::Progress { epoch, progress }, None)
    }

    async fn retry(&self, id: OperationId, epoch: Epoch, wait: Duration, fault: Fault, failure: Failure) -> Result<Operation, Error> {
        self.event(id, |now| Event::Retry { epoch, not_before: after(now, wait), fault, failure }, None)
    }

    async fn hand_back(&self, id: OperationId, epoch: Epoch) -> Result<Operation, Error> {
        self.event(id, |_| Event::HandBack { epoch }, None)
    }

    async fn defer(&self, id: OperationId, epoch: Epoch, until: Timestamp, deadline_at: Timestamp, waiting_for: String) -> Result<Operation, Error> {
        self.event(id, |_| Event::Defer { epoch, until, deadline_at, waiting_for }, None)
    }

    async fn take_place(&self, id: OperationId, epoch: Epoch, place: &Place, limit: usize) -> Result<Turn, Error> {
        if place.domain.is_empty() || place.domain.len() > Place::NAME_BYTES {
            return Err(Error::Invalid(String::new()));
        }
        self.transaction(|rows, now| rows.take_place(id, epoch, place, limit, now))
    }

    async fn free_place(&self, id: OperationId, epoch: Epoch, place: &Place) -> Result<(), Error> {
        let key = (place.domain.clone(), id, place.shard.clone());
        let mut rows = self.rows();
        if rows.places.get(&key).is_some_and(|(own, _)| *own == epoch) {
            rows.places.remove(&key);
        }
        Ok(())
    }

    async fn record_lineage(&self, id: OperationId, epoch: Epoch, mut lineage: Vec<Lineage>) -> Result<(), Error> {
        self.transaction(|rows, _| {
            let operation = rows.attempt(id, epoch)?;
            let backup_id = operation.backup_id.filter(|_| operation.spec.makes_backup()).ok_or_else(|| Error::Invalid(String::new()))?;
            if lineage.len() > Lineage::SHARDS {
                return Err(Error::Invalid(String::new()));
            }
            lineage.sort_by(|one, other| one.shard.cmp(&other.shard));
            rows.lineages.insert(backup_id, lineage);
            Ok(())
        })
    }

    async fn baseline(&self, folder: &FolderId, cluster: &ClusterId) -> Result<Option<Baseline>, Error> {
        let rows = self.rows();
        let fits = |backup: &&Backup| backup.folder_id == *folder && backup.cluster_id == *cluster && backup.is_available() && !backup.is_suspect();
        let lineage = |backup: &Backup| rows.lineages.get(&backup.id).filter(|shards| !shards.is_empty()).cloned();
        let found = rows.backups.values().rev().filter(fits).find_map(|backup| Some((backup, lineage(backup)?)));
        Ok(found.map(|(backup, shards)| Baseline { backup_id: backup.id, name: backup.name.clone(), started_at: backup.started_at, shards }))
    }

    async fn sketch_key(&self, cluster: &ClusterId, fresh: SketchKey) -> Result<SketchKey, Error> {
        Ok(*self.rows().sketch_keys.entry(cluster.clone()).or_insert(fresh))
    }

    async fn occupy(&self, id: OperationId, epoch: Epoch) -> Result<Backup, Error> {
        self.transaction(|rows, _| {
            let operation = rows.attempt(id, epoch)?.clone();
            let Spec::VerifyBackup { .. } = operation.spec else { return Err(Error::Invalid(String::new())) };
            let backup = operation.backup_id.and_then(|id| rows.backups.get_mut(&id)).ok_or(Error::NoBackup)?;
            let own = id.to_string();
            if let Some(holder) = backup.busy.as_ref().filter(|holder| **holder != own) {
                return Err(Error::Conflict(holder.clone()));
            }
            backup.busy = Some(own);
            let backup = backup.clone();
            Ok(rows.shown(&backup))
        })
    }

    async fn complete(&self, id: OperationId, epoch: Epoch, completion: Completion) -> Result<Operation, Error> {
        self.event(id, |_| Event::Complete { epoch, outcome: completion.outcome }, completion.backup)
    }

    async fn cancel(&self, id: OperationId) -> Result<Operation, Error> {
        self.event(id, |_| Event::Cancel, None)
    }

    async fn manifest(&self, id: OperationId) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.rows().manifests.get(&id).cloned())
    }

    async fn backup(&self, id: BackupId) -> Result<Backup, Error> {
        let rows = self.rows();
        rows.backups.get(&id).map(|backup| rows.shown(backup)).ok_or(Error::NoBackup)
    }

    async fn backup_named(&self, folder: &FolderId, name: &Name) -> Result<Backup, Error> {
        let rows = self.rows();
        let named = rows.backups.values().find(|backup| backup.folder_id == *folder && backup.name == *name && !backup.is_deleting());
        named.cloned().ok_or(Error::NoBackup)
    }

    async fn backups(&self, filter: &BackupFilter, after: Option<BackupId>, limit: usize) -> Result<Vec<Backup>, Error> {
        let rows = self.rows();
        let page = Rows::page(&rows.backups, after, limit, |backup| match filter {
            BackupFilter::Folder(folder) => backup.folder_id == *folder,
            BackupFilter::Cluster(cluster) => backup.cluster_id == *cluster,
            BackupFilter::FolderAvailable(folder) => backup.folder_id == *folder && backup.is_available(),
            BackupFilter::ClusterAvailable(cluster) => backup.cluster_id == *cluster && backup.is_available(),
        });
        Ok(page.iter().map(|backup| rows.shown(backup)).collect())
    }

    async fn doomed(&self, limit: usize) -> Result<Vec<Doomed>, Error> {
        let (rows, now) = (self.rows(), self.clock.now());
        let due = |((id, epoch), attempt): (&(OperationId, Epoch), &Attempt)| {
            let (next_look, looks) = attempt.doom.filter(|(next_look, _)| *next_look <= now)?;
            let Operation { folder_id, cluster_id, backup_id, .. } = attempt.operation.clone();
            let backup_id = backup_id.unwrap();
            let bucket = match attempt.operation.spec.clone() {
                Spec::ExportBackup(target) => Some(target.bucket),
                _ => None,
            };
            Some((next_look, Doomed { operation_id: *id, epoch: *epoch, folder_id, cluster_id, backup_id, bucket, looks }))
        };
        let mut doomed: Vec<_> = rows.attempts.iter().filter_map(due).collect();
        doomed.sort_by_key(|(next_look, doomed)| (*next_look, doomed.operation_id, doomed.epoch));
        Ok(doomed.into_iter().map(|(_, doomed)| doomed).take(limit).collect())
    }

    async fn looked(&self, id: OperationId, epoch: Epoch, looks: u32) -> Result<(), Error> {
        self.transaction(|rows, now| {
            let Some(attempt) = rows.attempts.get_mut(&(id, epoch)) else { return Ok(()) };
            if attempt.doom.is_some_and(|(_, looked)| looked == looks) {
                match LOOK_AGAIN.get(looks as usize) {
                    Some(wait) => attempt.doom = Some((after(now, *wait), looks + 1)),
                    None => drop(rows.attempts.remove(&(id, epoch))),
                }
            }
            Ok(())
        })
    }

    async fn purgeable(&self, limit: usize) -> Result<Vec<Backup>, Error> {
        let (rows, now) = (self.rows(), self.clock.now());
        let due = |backup: &&Backup| matches!(backup.state, backup::State::Deleting { purge_at } if purge_at <= now) && backup.busy.is_none();
        let mut purgeable: Vec<Backup> = rows.backups.values().filter(due).map(|backup| rows.shown(backup)).collect();
        purgeable.sort_by_key(|backup| match backup.state {
            backup::State::Deleting { purge_at } => Some((purge_at, backup.id)),
            _ => None,
        });
        purgeable.truncate(limit);
        Ok(purgeable)
    }

    async fn newest_available(&self, folder: &FolderId, cluster: &ClusterId) -> Result<Option<Backup>, Error> {
        let rows = self.rows();
        let fits = |backup: &&Backup| backup.is_available() && backup.folder_id == *folder && backup.cluster_id == *cluster;
        Ok(rows.backups.values().rev().find(fits).map(|backup| rows.shown(backup)))
    }

    async fn clusters_with_backups(&self, after: Option<&ClusterId>, limit: usize) -> Result<Vec<ClusterId>, Error> {
        let clusters: BTreeSet<ClusterId> = self.rows().backups.values().map(|backup| backup.cluster_id.clone()).collect();
        Ok(clusters.into_iter().filter(|cluster| after.is_none_or(|after| cluster > after)).take(limit).collect())
    }

    async fn put_back(&self, backup: Backup, mut lineage: Vec<Lineage>) -> Result<bool, Error> {
        self.transaction(|rows, _| {
            if rows.backups.contains_key(&backup.id) {
                return Ok(false);
            }
            let is_idle = backup.busy.is_none() && backup.readers.is_empty() && !backup.purging;
            if backup.epoch.is_none() || !is_idle || !(backup.is_available() || backup.is_deleting()) || lineage.len() > Lineage::SHARDS {
                return Err(Error::Invalid(String::new()));
            }
            if backup.is_available() && rows.name_owner(&backup.folder_id, &backup.name).is_some() {
                return Err(Error::NameTaken(backup.name));
            }
            lineage.sort_by(|one, other| one.shard.cmp(&other.shard));
            rows.lineages.insert(backup.id, lineage);
            rows.backups.insert(backup.id, backup);
            Ok(true)
        })
    }

    async fn begin_purge(&self, id: BackupId) -> Result<bool, Error> {
        let is_due = self.purgeable(usize::MAX).await?.iter().any(|backup| backup.id == id);
        let mut rows = self.rows();
        let Some(backup) = rows.backups.get_mut(&id) else { return Ok(false) };
        backup.purging |= is_due;
        Ok(backup.purging)
    }

    async fn purged(&self, id: BackupId) -> Result<(), Error> {
        let mut rows = self.rows();
        if let Some(backup) = rows.backups.get(&id).filter(|backup| backup.purging).cloned() {
            rows.backups.remove(&id);
            rows.lineages.remove(&id);
            rows.forget_key(&backup.cluster_id);
        }
        Ok(())
    }

    async fn expire(&self, retention: Duration) -> Result<usize, Error> {
        self.transaction(|rows, now| {
            let expired = |operation: &&Operation| operation.state.is_terminal() && after(operation.modified_at, retention) < now;
            let mut expired: Vec<_> = rows.operations.values().filter(expired).map(|operation| (operation.modified_at, operation.id)).collect();
            expired.sort();
            expired.truncate(1000);
            for (_, id) in &expired {
                rows.operations.remove(id);
                rows.keys.retain(|_, (_, other)| other != id);
            }
            Ok(expired.len())
        })
    }

    async fn cluster(&self, id: &ClusterId) -> Result<Adopted, Error> {
        self.rows().clusters.get(id).cloned().ok_or(Error::NoCluster)
    }

    async fn cluster_to_be(&self, id: &ClusterId) -> Result<Option<Adopted>, Error> {
        Ok(self.rows().to_be.values().find(|row| row.id == *id).cloned())
    }

    async fn policies(&self, cluster: &ClusterId) -> Result<Vec<Policy>, Error> {
        Ok(self.rows().policies_of(cluster))
    }

    async fn planned(&self, cluster: &ClusterId) -> Result<Option<Planned>, Error> {
        Ok(self.rows().planned.get(cluster).cloned())
    }

    async fn plan(&self, cluster: &ClusterId, before: Option<Planned>, after: Planned) -> Result<Recorded, Error> {
        if after.calendar.len() > Planned::CALENDAR_BYTES {
            return Err(Error::Invalid(String::new()));
        }
        let mut rows = self.rows();
        if rows.planned.get(cluster) != before.as_ref() {
            return Ok(Recorded::Theirs(rows.planned.get(cluster).cloned()));
        }
        rows.planned.insert(cluster.clone(), after);
        Ok(Recorded::Ours)
    }

    async fn shard_names(&self, cluster: &ClusterId) -> Result<ShardNames, Error> {
        Ok(self.rows().shards.get(cluster).cloned().unwrap_or_default())
    }

    async fn record_servers(&self, id: OperationId, epoch: Epoch, nodes: Vec<String>, servers: LocalServers) -> Result<(), Error> {
        let mut rows = self.rows();
        let operation = rows.attempt(id, epoch)?.clone();
        let Spec::RestoreCluster(_) = operation.spec else { return Err(Error::Invalid(String::new())) };
        let row = rows.clusters.get_mut(&operation.cluster_id).ok_or(Error::NoCluster)?;
        row.connection.nodes = nodes;
        row.local = Some(servers);
        Ok(())
    }

    async fn name_shards(&self, cluster: &ClusterId, found: Vec<Vec<String>>) -> Result<ShardNames, Error> {
        let mut rows = self.rows();
        let names = rows.shards.entry(cluster.clone()).or_default();
        names.learn(&found);
        Ok(names.clone())
    }

    async fn clusters(&self, after: Option<&ClusterId>, limit: usize) -> Result<Vec<Adopted>, Error> {
        Ok(self.rows().clusters.values().filter(|row| after.is_none_or(|after| row.id > *after)).take(limit).cloned().collect())
    }

    async fn census(&self) -> Result<Census, Error> {
        let rows = self.rows();
        let mut census = Census { queue_limit: self.queue_limit as u64, ..Census::default() };
        for operation in rows.live() {
            *census.open.entry((operation.spec.kind(), operation.state.as_str())).or_default() += 1;
            census.queued += u64::from(matches!(operation.state, operation::State::Queued { .. }));
        }
        for operation in &rows.ends {
            *census.ended.entry((operation.spec.kind(), operation.state.as_str())).or_default() += 1;
            if let operation::State::Failed(failure) = &operation.state {
                *census.failures.entry(failure.reason.as_str()).or_default() += 1;
            }
        }
        census.oldest_created_at = rows.live().next().map(|operation| operation.created_at);
        Ok(census)
    }

    fn ready(&self) -> Result<(), Error> {
        Ok(())
    }
}
