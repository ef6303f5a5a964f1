//! What the sources of backups were, and the keys of the hashes in it.

use super::judge::{Judge, refused};
use super::keys::{self, Kind};
use super::rows::{Rows, damaged};
use crate::backup::{Backup, BackupId};
use crate::cluster::{ClusterId, FolderId};
use crate::operation::{Epoch, OperationId};
use crate::store::{Baseline, Error, Lineage, SketchKey};

impl Judge {
    pub(super) fn record_lineage(&mut self, id: OperationId, epoch: Epoch, lineage: Vec<Lineage>) -> Result<(), Error> {
        let operation = self.rows.operation(id)?.ok_or(Error::NoOperation)?;
        operation.goes_on(epoch).map_err(refused)?;
        let backup_id = operation.backup_id.filter(|_| operation.spec.makes_backup());
        let backup_id = backup_id.ok_or_else(|| Error::Invalid("only what makes a backup has a lineage".to_owned()))?;
        self.write_lineage(backup_id, lineage)
    }

    /// Writes what the source of a backup was, in the place of what there is.
    pub(super) fn write_lineage(&mut self, backup_id: BackupId, mut lineage: Vec<Lineage>) -> Result<(), Error> {
        if lineage.len() > Lineage::SHARDS {
            return Err(Error::Invalid(format!("{} shards have a lineage, the limit is {}", lineage.len(), Lineage::SHARDS)));
        }
        self.forget_lineage(backup_id)?;
        lineage.sort_by(|one, other| one.shard.cmp(&other.shard));
        for (index, shard) in (0..).zip(&lineage) {
            self.rows.put(keys::lineage(backup_id, index), shard.encode(Kind::Lineage.word())?);
        }
        Ok(())
    }

    pub(super) fn forget_lineage(&mut self, id: BackupId) -> Result<(), Error> {
        for (key, _) in self.rows.scan(keys::lineages(id), Lineage::SHARDS)? {
            self.rows.remove(key);
        }
        Ok(())
    }

    pub(super) fn sketch_key(&mut self, cluster: &ClusterId, fresh: SketchKey) -> Result<SketchKey, Error> {
        let key = keys::sketch_key(cluster);
        if let Some(bytes) = self.rows.read(&key)? {
            return Ok(SketchKey(bytes));
        }
        self.rows.write(key, &fresh.0)?;
        Ok(fresh)
    }

    /// Forgets the key of a cluster that has no backup any more: nothing is left that a sketch could be compared with.
    pub(super) fn forget_sketch_key(&mut self, gone: &Backup) -> Result<(), Error> {
        if self.rows.last(keys::backups_of_cluster(&gone.cluster_id, None))?.is_none() {
            self.rows.remove(keys::sketch_key(&gone.cluster_id));
        }
        Ok(())
    }
}

pub(super) fn baseline(rows: &Rows, folder: &FolderId, cluster: &ClusterId) -> Result<Option<Baseline>, Error> {
    for mark in rows.stored(keys::backups_of_cluster(cluster, None)).rev().take(Baseline::LOOKS) {
        let (key, _) = mark?;
        let id = keys::last_backup(&key).ok_or_else(|| damaged(Kind::BackupOfCluster, "its key is no backup"))?;
        let Some(backup) = rows.backup(id)?.filter(|backup| backup.folder_id == *folder && backup.is_available() && !backup.is_suspect()) else {
            continue;
        };
        let rows: Result<Vec<Lineage>, Error> =
            rows.stored(keys::lineages(id)).take(Lineage::SHARDS).map(|row| Lineage::decode(Kind::Lineage.word(), &row?.1)).collect();
        let shards = rows?;
        if !shards.is_empty() {
            return Ok(Some(Baseline { backup_id: id, name: backup.name, started_at: backup.started_at, shards }));
        }
    }
    Ok(None)
}
