//! What the acceptance of an operation changes.

use super::judge::{Judge, later};
use super::keys;
use super::live::Entry;
use super::rows::{KeyUse, Rows, damaged};
use crate::backup::{Backup, BackupId, State};
use crate::cluster::Adopted;
use crate::operation::{self, BackupChanges, Epoch, ExportTarget, Operation, OperationId, RestoreTarget, Spec};
use crate::store::{Create, Created, Error, Idempotency};
use aws_lc_rs::digest;
use std::time::Duration;

impl Judge {
    pub(super) fn create(&mut self, create: Create, grace: Duration) -> Result<Created, Error> {
        let Create { operation, draft, cluster, idempotency } = create;
        if let Some(idempotency) = &idempotency
            && let Some(existing) = known(&self.rows, idempotency)?
        {
            return Ok(Created::Existing(existing));
        }
        check(&operation, draft.as_ref(), cluster.as_ref())?;
        if self.rows.has(&keys::operation(operation.id))? {
            return Err(Error::Invalid("there is an operation of this id".to_owned()));
        }
        if self.queued() >= self.queue_limit {
            return Err(Error::QueueFull(self.queue_limit));
        }
        match (&operation.spec, draft) {
            (Spec::CreateBackup, Some(draft)) => self.accept_creation(&operation, draft)?,
            (Spec::CopyBackup { source }, Some(draft)) => self.accept_copy(&operation, *source, draft)?,
            (Spec::ImportBackup(_), Some(draft)) => self.accept_import(&operation, draft)?,
            // Refused by the check above.
            (Spec::CreateBackup | Spec::CopyBackup { .. } | Spec::ImportBackup(_), None) => {}
            (Spec::UpdateBackup(changes), _) => self.accept_update(&operation, changes)?,
            (Spec::DeleteBackup, _) => self.accept_deletion(&operation, grace)?,
            (Spec::ExportBackup(target), _) => self.accept_export(&operation, target)?,
            (Spec::AdoptCluster | Spec::UpdateConnection | Spec::ForgetCluster, _) => self.accept_cluster(&operation, cluster)?,
            (Spec::UndeleteBackup, _) => return Err(unbuilt()),
            (Spec::VerifyBackup { .. }, _) => drop(self.read_backup(operation.backup_id.ok_or(Error::NoBackup)?, &operation)?),
            (Spec::RestoreInto(target), _) => self.accept_restore(&operation, target)?,
            (Spec::RestoreCluster(_), _) => return Err(unbuilt()),
            (Spec::DeleteCluster, _) => return Err(unbuilt()),
            (Spec::UpdateCluster(_), _) => return Err(unbuilt()),
            (Spec::CreatePolicy(_), _) => return Err(unbuilt()),
            (Spec::DeletePolicy { .. }, _) => return Err(unbuilt()),
        }
        if let Some(idempotency) = &idempotency {
            let hash = hash(idempotency);
            self.rows.write(keys::idempotency(&hash), &KeyUse { operation_id: operation.id, digest: idempotency.digest })?;
            self.rows.write(keys::key_of(operation.id), &hash)?;
        }
        for listing in keys::listings_of_operation(operation.id, &operation.folder_id, &operation.cluster_id) {
            self.rows.mark(listing)?;
        }
        self.rows.mark(keys::live(operation.id))?;
        self.rows.write(keys::operation(operation.id), &operation)?;
        self.set_live(operation.id, Entry::of(&operation));
        Ok(Created::New(operation))
    }

    fn accept_creation(&mut self, operation: &Operation, draft: Backup) -> Result<(), Error> {
        self.hold(operation)?;
        self.insert_draft(draft)
    }

    fn accept_copy(&mut self, operation: &Operation, source: BackupId, draft: Backup) -> Result<(), Error> {
        let source = self.read_backup(source, operation)?;
        if source.folder_id != draft.folder_id || source.cluster_id != draft.cluster_id {
            return Err(Error::Invalid("a copy belongs to the folder and cluster of what it copies".to_owned()));
        }
        self.insert_draft(draft)
    }

    /// An import may be for a cluster that nobody knows, and never for one of another folder.
    fn accept_import(&mut self, operation: &Operation, draft: Backup) -> Result<(), Error> {
        let id = &operation.cluster_id;
        let is_of_another = self.rows.cluster(id)?.is_some_and(|known| known.folder_id != operation.folder_id);
        if is_of_another || self.is_used_elsewhere(operation)? {
            return Err(Error::ClusterTaken(id.clone()));
        }
        self.insert_draft(draft)
    }

    fn accept_export(&mut self, operation: &Operation, target: &ExportTarget) -> Result<(), Error> {
        let backup = self.read_backup(operation.backup_id.ok_or(Error::NoBackup)?, operation)?;
        for object in target.objects(&backup) {
            let key = keys::target(&target.bucket, &object.key);
            if let Some(holder) = self.rows.read::<OperationId>(&key)? {
                return Err(Error::Conflict(holder.to_string()));
            }
            self.rows.write(key, &operation.id)?;
        }
        Ok(())
    }

    /// Into one target goes one restore at a time.
    fn accept_restore(&mut self, operation: &Operation, target: &RestoreTarget) -> Result<(), Error> {
        self.read_backup(operation.backup_id.ok_or(Error::NoBackup)?, operation)?;
        let key = keys::restored(&target.place);
        if let Some(holder) = self.rows.read::<OperationId>(&key)? {
            return Err(Error::Conflict(holder.to_string()));
        }
        self.rows.write(key, &operation.id)
    }

    /// Makes the operation one of those that read a backup.
    fn read_backup(&mut self, id: BackupId, operation: &Operation) -> Result<Backup, Error> {
        let mut backup = self.finished_backup(id)?;
        if let State::Error(_) = backup.state {
            return Err(Error::NotAvailable("ERROR"));
        }
        if backup.readers.len() >= Backup::READERS {
            return Err(Error::ReadersFull(Backup::READERS));
        }
        backup.readers.insert(operation.id.to_string());
        self.rows.write_long(keys::backup(id), &backup)?;
        Ok(backup)
    }

    fn insert_draft(&mut self, draft: Backup) -> Result<(), Error> {
        let name = keys::name(&draft.folder_id, &draft.name);
        if self.rows.has(&name)? {
            return Err(Error::NameTaken(draft.name));
        }
        if self.rows.has(&keys::backup(draft.id))? {
            return Err(Error::Invalid("there is a backup of the draft's id".to_owned()));
        }
        self.rows.write(name, &draft.id)?;
        for listing in keys::listings_of_backup(draft.id, &draft.folder_id, &draft.cluster_id) {
            self.rows.mark(listing)?;
        }
        self.rows.write_long(keys::backup(draft.id), &draft)
    }

    /// Takes the cluster of an operation for it alone.
    fn hold(&mut self, operation: &Operation) -> Result<(), Error> {
        let hold = keys::hold(&operation.cluster_id);
        if let Some(holder) = self.rows.read::<OperationId>(&hold)? {
            return Err(Error::Conflict(holder.to_string()));
        }
        self.rows.write(hold, &operation.id)
    }

    /// The record as it is to be goes with an adoption and a change of connection, as the check has seen to.
    fn accept_cluster(&mut self, operation: &Operation, cluster: Option<Adopted>) -> Result<(), Error> {
        let id = &operation.cluster_id;
        let known = self.rows.cluster(id)?;
        match (&operation.spec, &known) {
            (Spec::AdoptCluster, None) if !self.is_used_elsewhere(operation)? => {}
            (Spec::AdoptCluster, _) => return Err(Error::ClusterTaken(id.clone())),
            (_, Some(known)) if known.folder_id == operation.folder_id => {}
            _ => return Err(Error::NoCluster),
        }
        self.hold(operation)?;
        let key = if known.is_some() { keys::cluster_to_be(id) } else { keys::cluster(id) };
        cluster.map_or(Ok(()), |cluster| self.rows.write(key, &cluster))
    }

    /// Whether another folder has backups or operations under the operation's cluster id, so that they would be listed with
    /// those of the new cluster. Each adoption is asked this, so the newest of each speak for all.
    fn is_used_elsewhere(&self, operation: &Operation) -> Result<bool, Error> {
        let newest = |range| self.rows.last(range);
        let backup = match newest(keys::backups_of_cluster(&operation.cluster_id, None))?.as_deref().and_then(keys::last_backup) {
            Some(id) => self.rows.backup(id)?,
            None => None,
        };
        let before = match newest(keys::operations_of_cluster(&operation.cluster_id, None))?.as_deref().and_then(keys::last_operation) {
            Some(id) => self.rows.operation(id)?,
            None => None,
        };
        let folders = backup.map(|backup| backup.folder_id).into_iter().chain(before.map(|before| before.folder_id));
        Ok(folders.into_iter().any(|folder| folder != operation.folder_id))
    }

    fn accept_update(&mut self, operation: &Operation, changes: &BackupChanges) -> Result<(), Error> {
        let mut backup = self.idle_backup(operation.backup_id.ok_or(Error::NoBackup)?)?;
        if let State::Error(_) = backup.state {
            return Err(Error::NotAvailable("ERROR"));
        }
        if changes.clear_suspect && !backup.is_suspect() {
            return Err(Error::NotSuspect);
        }
        if let Some(name) = &changes.name {
            let key = keys::name(&backup.folder_id, name);
            match self.rows.read::<BackupId>(&key)? {
                Some(owner) if owner != backup.id => return Err(Error::NameTaken(name.clone())),
                Some(_) => {}
                None => self.rows.write(key, &backup.id)?,
            }
        }
        backup.busy = Some(operation.id.to_string());
        self.rows.write_long(keys::backup(backup.id), &backup)
    }

    fn accept_deletion(&mut self, operation: &Operation, grace: Duration) -> Result<(), Error> {
        let mut backup = self.idle_backup(operation.backup_id.ok_or(Error::NoBackup)?)?;
        if let Some(reader) = backup.readers.first() {
            return Err(Error::Conflict(reader.clone()));
        }
        if let Some(hold) = backup.holds.first() {
            return Err(Error::Held(hold.reason.clone()));
        }
        let now = self.now();
        let purge_at = if let State::Error(_) = backup.state { now } else { later(now, grace) };
        backup.state = State::Deleting { purge_at };
        backup.busy = Some(operation.id.to_string());
        self.rows.remove(keys::name(&backup.folder_id, &backup.name));
        self.rows.mark(keys::purge(purge_at, backup.id))?;
        self.rows.write_long(keys::backup(backup.id), &backup)
    }

    /// A backup that is AVAILABLE or ERROR.
    fn finished_backup(&self, id: BackupId) -> Result<Backup, Error> {
        let backup = self.rows.backup(id)?.ok_or(Error::NoBackup)?;
        match &backup.state {
            State::Deleting { .. } => Err(Error::NoBackup),
            State::Creating => Err(Error::NotAvailable("CREATING")),
            State::Available | State::Error(_) => Ok(backup),
        }
    }

    /// A backup that is AVAILABLE or ERROR and that no operation works on.
    fn idle_backup(&self, id: BackupId) -> Result<Backup, Error> {
        let backup = self.finished_backup(id)?;
        match backup.busy {
            Some(holder) => Err(Error::Conflict(holder)),
            None => Ok(backup),
        }
    }
}

/// No call brings such work.
fn unbuilt() -> Error {
    Error::Invalid("this work is not built".to_owned())
}

/// Whether the rows given fit one another.
fn check(operation: &Operation, draft: Option<&Backup>, cluster: Option<&Adopted>) -> Result<(), Error> {
    let fresh = match operation.state {
        operation::State::Queued { .. } => operation.revision == 1 && operation.epoch == Epoch(0) && operation.publication.is_none(),
        operation::State::Running { .. }
        | operation::State::Cancelling { .. }
        | operation::State::Succeeded(_)
        | operation::State::Failed(_)
        | operation::State::Cancelled => false,
    };
    if !fresh {
        return Err(Error::Invalid("a new operation is QUEUED, of revision 1 and epoch 0".to_owned()));
    }
    let fits = match (operation.spec.makes_backup(), draft) {
        (true, Some(draft)) => {
            Some(draft.id) == operation.backup_id
                && draft.folder_id == operation.folder_id
                && draft.cluster_id == operation.cluster_id
                && draft.operation_id == operation.id.to_string()
                && draft.state == State::Creating
        }
        (true, None) | (false, Some(_)) => false,
        (false, None) => operation.backup_id.is_none() == operation.spec.changes_cluster(),
    };
    if !fits {
        return Err(Error::Invalid("what makes a backup, and nothing else, comes with a draft of it".to_owned()));
    }
    if let Spec::ExportBackup(ExportTarget { name: None, .. }) = &operation.spec {
        return Err(Error::Invalid("the target of an export has a name".to_owned()));
    }
    let own = |cluster: &Adopted| cluster.id == operation.cluster_id && cluster.folder_id == operation.folder_id;
    let fits = match &operation.spec {
        Spec::AdoptCluster => cluster.is_some_and(|cluster| own(cluster) && cluster.is_adopting),
        Spec::UpdateConnection => cluster.is_some_and(|cluster| own(cluster) && !cluster.is_adopting),
        Spec::CreateBackup
        | Spec::UpdateBackup(_)
        | Spec::DeleteBackup
        | Spec::CopyBackup { .. }
        | Spec::ExportBackup(_)
        | Spec::ImportBackup(_)
        | Spec::ForgetCluster
        | Spec::UndeleteBackup
        | Spec::VerifyBackup { .. }
        | Spec::RestoreInto(_)
        | Spec::DeleteCluster
        | Spec::UpdateCluster(_)
        | Spec::CreatePolicy(_)
        | Spec::DeletePolicy { .. } => cluster.is_none(),
        Spec::RestoreCluster(_) => cluster.is_some_and(|cluster| own(cluster) && cluster.is_adopting),
    };
    if fits {
        Ok(())
    } else {
        Err(Error::Invalid("an adoption and a change of connection, and nothing else, come with the record of their own cluster".to_owned()))
    }
}

/// SHA-256 over caller and key, each behind its length.
/// The operation that a caller's key was used for.
pub(super) fn known(rows: &Rows, idempotency: &Idempotency) -> Result<Option<Operation>, Error> {
    let Some(used) = rows.read::<KeyUse>(&keys::idempotency(&hash(idempotency)))? else { return Ok(None) };
    if used.digest != idempotency.digest {
        return Err(Error::KeyReused);
    }
    let operation = rows.operation(used.operation_id)?;
    operation.map(Some).ok_or_else(|| damaged(keys::Kind::Idempotency, format_args!("there is no operation {}", used.operation_id)))
}

fn hash(idempotency: &Idempotency) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for text in [&idempotency.caller, &idempotency.key] {
        context.update(&(text.len() as u64).to_be_bytes());
        context.update(text.as_bytes());
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}
