//! What reads give, from the tree alone.

use super::keys::{self, Key, Kind};
use super::rows::{self, Attempt, Rows, damaged};
use crate::backup::{Backup, BackupId, Name, State};
use crate::cluster::{Adopted, ClusterId, FolderId, Timestamp};
use crate::operation::{Operation, OperationId};
use crate::store::{BackupFilter, Doomed, Error, OperationFilter, PAGE_ROWS};

/// How often a manifest is read anew when it went, or came, while it was read.
const MANIFEST_TRIES: usize = 3;

/// A page has at least one row and at most [`PAGE_ROWS`].
fn page(limit: usize) -> usize {
    limit.clamp(1, PAGE_ROWS)
}

/// Follows marks to rows until a page is full. A row that went meanwhile is left out.
fn follow<I, T>(
    marks: impl Iterator<Item = Result<(I, I), Error>>,
    limit: usize,
    mut row: impl FnMut(&[u8]) -> Result<Option<T>, Error>,
) -> Result<Vec<T>, Error>
where
    I: AsRef<[u8]>,
{
    let mut page = Vec::new();
    for mark in marks {
        let (key, _) = mark?;
        if let Some(row) = row(key.as_ref())? {
            page.push(row);
            if page.len() == limit {
                break;
            }
        }
    }
    Ok(page)
}

fn operation_of(key: &[u8]) -> Result<OperationId, Error> {
    keys::last_operation(key).ok_or_else(|| damaged(Kind::OperationOfFolder, "its key is no operation"))
}

fn backup_of(key: &[u8]) -> Result<BackupId, Error> {
    keys::last_backup(key).ok_or_else(|| damaged(Kind::BackupOfFolder, "its key is no backup"))
}

pub(super) fn get(rows: &Rows, id: OperationId) -> Result<Operation, Error> {
    rows.operation(id)?.ok_or(Error::NoOperation)
}

pub(super) fn list(rows: &Rows, filter: &OperationFilter, after: Option<OperationId>, limit: usize) -> Result<Vec<Operation>, Error> {
    let range = match filter {
        OperationFilter::Folder(folder) => keys::operations_of_folder(folder, after),
        OperationFilter::Cluster(cluster) => keys::operations_of_cluster(cluster, after),
    };
    follow(rows.stored(range).rev(), page(limit), |key| rows.operation(operation_of(key)?))
}

pub(super) fn manifest(rows: &Rows, id: OperationId) -> Result<Option<Vec<u8>>, Error> {
    let mut fault = None;
    for _ in 0..MANIFEST_TRIES {
        match whole_manifest(rows, keys::manifests(id)) {
            Ok(manifest) => return Ok(manifest),
            Err(error) => fault = Some(error),
        }
    }
    Err(fault.unwrap_or_else(|| damaged(Kind::Manifest, "it cannot be read")))
}

fn whole_manifest(rows: &Rows, pieces: std::ops::Range<Key>) -> Result<Option<Vec<u8>>, Error> {
    let mut manifest = None;
    let (mut found, mut expected) = (0, 0);
    for piece in rows.stored(pieces) {
        let (key, value) = piece?;
        let (count, bytes) = rows::read_piece(&value)?;
        if keys::last_piece(&key).is_none_or(|(_, index)| index != found) || (found > 0 && count != expected) {
            return Err(damaged(Kind::Manifest, "its pieces do not follow one another"));
        }
        manifest.get_or_insert_with(Vec::new).extend_from_slice(bytes);
        (found, expected) = (found + 1, count);
    }
    if found == expected { Ok(manifest) } else { Err(damaged(Kind::Manifest, format_args!("it has {found} of {expected} pieces"))) }
}

pub(super) fn backup(rows: &Rows, id: BackupId) -> Result<Backup, Error> {
    rows.backup(id)?.ok_or(Error::NoBackup)
}

pub(super) fn backup_named(rows: &Rows, folder: &FolderId, name: &Name) -> Result<Backup, Error> {
    let Some(id) = rows.read(&keys::name(folder, name))? else { return Err(Error::NoBackup) };
    // A name that a backup is to have is kept for it, and is not its name yet. A deletion may have come since the name was read.
    let has_it = |backup: &Backup| backup.name == *name && !backup.is_deleting();
    rows.backup(id)?.filter(has_it).ok_or(Error::NoBackup)
}

pub(super) fn backups(rows: &Rows, filter: &BackupFilter, after: Option<BackupId>, limit: usize) -> Result<Vec<Backup>, Error> {
    let (range, any_state) = match filter {
        BackupFilter::Folder(folder) => (keys::backups_of_folder(folder, after), true),
        BackupFilter::Cluster(cluster) => (keys::backups_of_cluster(cluster, after), true),
        BackupFilter::FolderAvailable(folder) => (keys::backups_of_folder(folder, after), false),
        BackupFilter::ClusterAvailable(cluster) => (keys::backups_of_cluster(cluster, after), false),
    };
    follow(rows.stored(range).rev(), page(limit), |key| Ok(rows.backup(backup_of(key)?)?.filter(|backup| any_state || backup.is_available())))
}

pub(super) fn newest_available(rows: &Rows, folder: &FolderId, cluster: &ClusterId) -> Result<Option<Backup>, Error> {
    let fits = |backup: &Backup| backup.is_available() && backup.folder_id == *folder;
    let newest = follow(rows.stored(keys::backups_of_cluster(cluster, None)).rev(), 1, |key| Ok(rows.backup(backup_of(key)?)?.filter(fits)))?;
    Ok(newest.into_iter().next())
}

pub(super) fn clusters_with_backups(rows: &Rows, after: Option<&ClusterId>, limit: usize) -> Result<Vec<ClusterId>, Error> {
    let mut found = Vec::new();
    let mut rest = keys::clusters_of_backups(after);
    while found.len() < page(limit) {
        // Of each cluster one mark is looked at, however many backups it has.
        let Some(mark) = rows.stored(rest).next() else { break };
        let (key, _) = mark?;
        let id = keys::cluster_of_backup(&key).ok_or_else(|| damaged(Kind::BackupOfCluster, "its key is no cluster"))?;
        rest = keys::clusters_of_backups(Some(&id));
        found.push(id);
    }
    Ok(found)
}

pub(super) fn doomed(rows: &Rows, now: Timestamp, limit: usize) -> Result<Vec<Doomed>, Error> {
    follow(rows.stored(keys::doomed_until(now)), page(limit), |key| {
        let (operation_id, epoch) = keys::last_attempt(key).ok_or_else(|| damaged(Kind::Doomed, "its key is no attempt"))?;
        let Some(Attempt { folder_id, cluster_id, backup_id, bucket, doom }) = rows.read(&keys::attempt(operation_id, epoch))? else { return Ok(None) };
        // Looked for since the mark was read.
        let doom = doom.filter(|doom| doom.next_look <= now);
        Ok(doom.map(|doom| Doomed { operation_id, epoch, folder_id, cluster_id, backup_id, bucket, looks: doom.looks }))
    })
}

pub(super) fn purgeable(rows: &Rows, now: Timestamp, limit: usize) -> Result<Vec<Backup>, Error> {
    follow(rows.stored(keys::purge_until(now)), page(limit), |key| {
        let due = |backup: &Backup| match backup.state {
            State::Deleting { purge_at } => purge_at <= now && backup.busy.is_none(),
            State::Creating | State::Available | State::Error(_) => false,
        };
        Ok(rows.backup(backup_of(key)?)?.filter(due))
    })
}

pub(super) fn cluster(rows: &Rows, id: &ClusterId) -> Result<Adopted, Error> {
    rows.cluster(id)?.ok_or(Error::NoCluster)
}

pub(super) fn clusters(rows: &Rows, after: Option<&ClusterId>, limit: usize) -> Result<Vec<Adopted>, Error> {
    follow(rows.stored(keys::clusters(after)), page(limit), |key| rows.read(key))
}
