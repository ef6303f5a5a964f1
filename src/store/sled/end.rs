//! What the end of an operation changes, besides its attempts.

use super::judge::Judge;
use super::keys;
use crate::backup::{self, Backup, BackupId};
use crate::cluster::Adopted;
use crate::operation::{ExportTarget, Operation, OperationId, Spec, State};
use crate::store::Error;

impl Judge {
    /// Ends what an operation held: its cluster, its backup, what it read or wrote to, its manifest, its place among the living.
    pub(super) fn end(&mut self, operation: &Operation, result: Option<Backup>) -> Result<(), Error> {
        self.rows.remove(keys::live(operation.id));
        self.rows.mark(keys::ended(operation.modified_at, operation.id))?;
        let hold = keys::hold(&operation.cluster_id);
        if operation.spec.is_exclusive() && self.rows.read::<OperationId>(&hold)? == Some(operation.id) {
            self.rows.remove(hold);
        }
        if operation.publication.is_some() {
            self.forget_manifest(operation.id)?;
        }
        if let Some(read) = operation.reads() {
            self.end_reading(operation, read)?;
        }
        let backup = self.rows.backup_of(operation.backup_id)?;
        match (&operation.state, &operation.spec) {
            (State::Succeeded(_), Spec::CreateBackup | Spec::CopyBackup { .. } | Spec::ImportBackup(_) | Spec::UpdateBackup(_)) => {
                self.replace(operation, backup, result)
            }
            (State::Succeeded(_), Spec::DeleteBackup | Spec::ExportBackup(_)) if result.is_some() => {
                Err(Error::Invalid("the end of a deletion or an export brings no backup".to_owned()))
            }
            (State::Cancelled, Spec::CreateBackup | Spec::CopyBackup { .. } | Spec::ImportBackup(_)) => {
                if let Some(backup) = backup.filter(|backup| backup.state == backup::State::Creating) {
                    self.rows.remove(keys::name(&backup.folder_id, &backup.name));
                    self.forget_backup(&backup)?;
                }
                Ok(())
            }
            (State::Failed(failure), Spec::CreateBackup | Spec::CopyBackup { .. } | Spec::ImportBackup(_)) => {
                let Some(mut backup) = backup else { return Ok(()) };
                if backup.state == backup::State::Creating {
                    backup.state = backup::State::Error(failure.clone());
                }
                self.forget_lineage(backup.id)?;
                self.release(backup)
            }
            (State::Succeeded(_) | State::Failed(_) | State::Cancelled, Spec::UpdateBackup(_) | Spec::DeleteBackup) => {
                let Some(backup) = backup else { return Ok(()) };
                self.free_new_name(operation, &backup, &backup)?;
                self.release(backup)
            }
            // An update may be under way on the backup meanwhile, so nothing else is touched.
            (State::Succeeded(_) | State::Failed(_) | State::Cancelled, Spec::ExportBackup(_)) => Ok(()),
            (State::Succeeded(_) | State::Failed(_) | State::Cancelled, Spec::VerifyBackup { .. } | Spec::RestoreInto(_) | Spec::UndeleteBackup) => Ok(()),
            (_, Spec::AdoptCluster | Spec::UpdateConnection | Spec::ForgetCluster) if result.is_some() => {
                Err(Error::Invalid("the end of work on a cluster brings no backup".to_owned()))
            }
            (state, Spec::AdoptCluster | Spec::UpdateConnection | Spec::ForgetCluster) => self.end_cluster(operation, matches!(state, State::Succeeded(_))),
            (_, Spec::RestoreCluster(_) | Spec::DeleteCluster) => Ok(()),
            (_, Spec::UpdateCluster(_) | Spec::CreatePolicy(_) | Spec::DeletePolicy { .. }) => Ok(()),
            (State::Queued { .. } | State::Running { .. } | State::Cancelling { .. }, _) => Ok(()),
        }
    }

    /// Lets go of the backup that an operation read, and of what it was to write in a bucket.
    fn end_reading(&mut self, operation: &Operation, read: BackupId) -> Result<(), Error> {
        let Some(mut backup) = self.rows.backup(read)? else { return Ok(()) };
        if let Spec::ExportBackup(target) = &operation.spec {
            self.free_targets(operation, target, &backup)?;
        }
        if let Spec::RestoreInto(target) = &operation.spec {
            let key = keys::restored(&target.place);
            if self.rows.read::<OperationId>(&key)? == Some(operation.id) {
                self.rows.remove(key);
            }
        }
        backup.readers.remove(&operation.id.to_string());
        self.rows.write_long(keys::backup(read), &backup)
    }

    fn free_targets(&mut self, operation: &Operation, target: &ExportTarget, backup: &Backup) -> Result<(), Error> {
        for object in target.objects(backup) {
            let key = keys::target(&target.bucket, &object.key);
            if self.rows.read::<OperationId>(&key)? == Some(operation.id) {
                self.rows.remove(key);
            }
        }
        Ok(())
    }

    /// Lets the record of a cluster follow the end of the work on it.
    fn end_cluster(&mut self, operation: &Operation, succeeded: bool) -> Result<(), Error> {
        let id = &operation.cluster_id;
        let (key, to_be) = (keys::cluster(id), keys::cluster_to_be(id));
        let gone = || Error::Invalid("the cluster that the work was for is gone".to_owned());
        match (&operation.spec, succeeded) {
            (Spec::AdoptCluster, true) => {
                let mut cluster = self.rows.cluster(id)?.ok_or_else(gone)?;
                cluster.is_adopting = false;
                self.rows.write(key, &cluster)?;
            }
            (Spec::AdoptCluster, false) | (Spec::ForgetCluster, true) => {
                self.rows.remove(key);
                self.rows.remove(keys::shards(id));
            }
            (Spec::UpdateConnection, true) => {
                let cluster: Adopted = self.rows.read(&to_be)?.ok_or_else(gone)?;
                self.rows.write(key, &cluster)?;
                self.rows.remove(to_be);
            }
            (Spec::UpdateConnection, false) => self.rows.remove(to_be),
            (Spec::ForgetCluster, false)
            | (Spec::CreateBackup | Spec::UpdateBackup(_) | Spec::DeleteBackup | Spec::CopyBackup { .. } | Spec::ExportBackup(_) | Spec::ImportBackup(_), _)
            | (Spec::UndeleteBackup | Spec::VerifyBackup { .. } | Spec::RestoreInto(_) | Spec::RestoreCluster(_) | Spec::DeleteCluster, _)
            | (Spec::UpdateCluster(_) | Spec::CreatePolicy(_) | Spec::DeletePolicy { .. }, _) => {}
        }
        Ok(())
    }

    /// Puts the row that the work gave in the place of the one before.
    fn replace(&mut self, operation: &Operation, before: Option<Backup>, after: Option<Backup>) -> Result<(), Error> {
        let invalid = |what: &str| Error::Invalid(what.to_owned());
        let before = before.ok_or_else(|| invalid("the backup that the work was for is gone"))?;
        let mut after = after.ok_or_else(|| invalid("success brings the backup's row"))?;
        if after.id != before.id || after.folder_id != before.folder_id || after.cluster_id != before.cluster_id {
            return Err(invalid("the backup's row is that of another"));
        }
        if after.state != backup::State::Available {
            return Err(invalid("the backup's row after success is not AVAILABLE"));
        }
        if self.rows.read::<BackupId>(&keys::name(&after.folder_id, &after.name))? != Some(after.id) {
            return Err(invalid("the backup's new name was not taken for it"));
        }
        if after.name != before.name {
            self.rows.remove(keys::name(&before.folder_id, &before.name));
        }
        self.free_new_name(operation, &before, &after)?;
        after.busy = None;
        // Whoever read it when the work began, or has begun since, is known to the row before alone.
        after.readers = before.readers;
        self.rows.write_long(keys::backup(after.id), &after)
    }

    /// Frees the name that was taken when a change was accepted, if it did not become the backup's.
    fn free_new_name(&mut self, operation: &Operation, before: &Backup, after: &Backup) -> Result<(), Error> {
        let Spec::UpdateBackup(changes) = &operation.spec else { return Ok(()) };
        if let Some(name) = &changes.name
            && *name != before.name
            && *name != after.name
        {
            let key = keys::name(&before.folder_id, name);
            if self.rows.read::<BackupId>(&key)? == Some(before.id) {
                self.rows.remove(key);
            }
        }
        Ok(())
    }

    /// Writes a backup that no operation works on any more.
    fn release(&mut self, mut backup: Backup) -> Result<(), Error> {
        backup.busy = None;
        self.rows.write_long(keys::backup(backup.id), &backup)
    }

    /// Removes the row of a backup with the marks by which it is listed, and what its source was. Its name and its place for
    /// purging are others' business.
    pub(super) fn forget_backup(&mut self, backup: &Backup) -> Result<(), Error> {
        for listing in keys::listings_of_backup(backup.id, &backup.folder_id, &backup.cluster_id) {
            self.rows.remove(listing);
        }
        self.rows.remove_long(keys::backup(backup.id))?;
        self.forget_lineage(backup.id)?;
        self.forget_sketch_key(backup)
    }
}
