//! The keys of the one tree: which rows there are and in what order they lie.
//!
//! The first byte tells the kind. Identifiers of operations and backups are UUIDs of version 7, so the order of their bytes
//! is the order of creation. Text is followed by a zero byte, which none of our texts can hold. Instants keep their order as
//! bytes.

use crate::backup::{BackupId, Name};
use crate::cluster::{ClusterId, FolderId, Timestamp};
use crate::operation::{Epoch, OperationId, Place};
use std::ops::Range;

/// Declares the kinds with their first byte and their word in messages.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $byte:literal, $word:literal;)*) => {
        /// The kind of a row.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Kind {
            $($(#[$doc])* $name,)*
        }

        impl Kind {
            /// The kind whose keys begin with this byte.
            pub(super) fn of(byte: u8) -> Option<Self> {
                match byte {
                    $($byte => Some(Self::$name),)*
                    _ => None,
                }
            }

            pub(super) fn byte(self) -> u8 {
                match self {
                    $(Self::$name => $byte,)*
                }
            }

            /// Its word in messages.
            pub(super) fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

kinds! {
    /// Format of the whole store: [`FORMAT`](super::rows::FORMAT).
    Format = b'0', "format";
    /// An attempt with a folder in storage: [`Attempt`](super::rows::Attempt).
    Attempt = b'a', "attempt";
    /// A backup.
    Backup = b'b', "backup";
    /// The record of an adopted cluster.
    Cluster = b'c', "cluster";
    /// What the record of a cluster is to be.
    ClusterToBe = b'u', "cluster to be";
    /// Mark: a doomed attempt by its next look.
    Doomed = b'd', "doomed attempt";
    /// Mark: an operation by its end.
    Ended = b'e', "end of an operation";
    /// A caller's key: [`KeyUse`](super::rows::KeyUse).
    Idempotency = b'i', "idempotency key";
    /// From an operation to its caller's key.
    KeyOf = b'k', "key of an operation";
    /// Mark: an operation that has not ended.
    Live = b'l', "live operation";
    /// What the source of a shard of a backup was: [`Lineage`](crate::store::Lineage).
    Lineage = b'g', "lineage";
    /// A piece of the manifest that an operation is to publish.
    Manifest = b'm', "manifest";
    /// From a name in a folder to the backup that has it.
    Name = b'n', "name";
    /// An operation.
    Operation = b'o', "operation";
    /// Mark: a backup by the time from which its files may go.
    Purge = b'p', "purge";
    /// A place of a failure domain, or a turn to wait for it: [`Held`](super::place::Held).
    Place = b'q', "place of a failure domain";
    /// Mark: a place by the operation that has it or waits for it.
    PlaceOf = b'Q', "place of an operation";
    /// A further piece of a row that is too long for one value.
    Rest = b'r', "rest of a row";
    /// The key of a cluster's hashes of key names.
    SketchKey = b's', "key of sketches";
    /// The names of a cluster's shards.
    Shards = b'h', "names of shards";
    /// From a key in a bucket to the export that is to write it, or from a server to the restore that is to fill it.
    Target = b't', "target of an export or a restore";
    /// From a cluster to the operation that holds it.
    Hold = b'x', "hold on a cluster";
    /// Mark: a backup in its cluster.
    BackupOfCluster = b'B', "backup of a cluster";
    /// Mark: a backup in its folder.
    BackupOfFolder = b'D', "backup of a folder";
    /// Mark: an operation on a cluster.
    OperationOfCluster = b'C', "operation of a cluster";
    /// Mark: an operation in its folder.
    OperationOfFolder = b'F', "operation of a folder";
}

/// A key of the tree.
pub(super) type Key = Vec<u8>;

/// Bytes of an instant in a key.
const INSTANT_BYTES: usize = 12;

/// Bytes of an identifier in a key.
const ID_BYTES: usize = 16;

fn key(kind: Kind, parts: &[&[u8]]) -> Key {
    let mut key = vec![kind.byte()];
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

/// An instant as bytes that keep its order.
fn instant(at: Timestamp) -> [u8; INSTANT_BYTES] {
    let seconds = (at.timestamp() as u64) ^ (1 << 63);
    let mut bytes = [0; INSTANT_BYTES];
    bytes[..8].copy_from_slice(&seconds.to_be_bytes());
    bytes[8..].copy_from_slice(&at.timestamp_subsec_nanos().to_be_bytes());
    bytes
}

pub(super) fn format() -> Key {
    key(Kind::Format, &[])
}

pub(super) fn attempt(id: OperationId, epoch: Epoch) -> Key {
    key(Kind::Attempt, &[id.as_bytes(), &epoch.0.to_be_bytes()])
}

/// All attempts of an operation.
pub(super) fn attempts(id: OperationId) -> Range<Key> {
    all(key(Kind::Attempt, &[id.as_bytes()]))
}

pub(super) fn backup(id: BackupId) -> Key {
    key(Kind::Backup, &[id.as_bytes()])
}

pub(super) fn cluster(id: &ClusterId) -> Key {
    key(Kind::Cluster, &[id.as_str().as_bytes()])
}

/// Adopted clusters whose ids come after `after`; all of them where it is absent.
pub(super) fn clusters(after: Option<&ClusterId>) -> Range<Key> {
    let all = all(key(Kind::Cluster, &[]));
    match after {
        // No id holds a zero byte: what it is followed by begins with it.
        Some(id) => key(Kind::Cluster, &[id.as_str().as_bytes(), &[0]])..all.end,
        None => all,
    }
}

pub(super) fn cluster_to_be(id: &ClusterId) -> Key {
    key(Kind::ClusterToBe, &[id.as_str().as_bytes()])
}

pub(super) fn shards(cluster: &ClusterId) -> Key {
    key(Kind::Shards, &[cluster.as_str().as_bytes()])
}

pub(super) fn doomed(next_look: Timestamp, id: OperationId, epoch: Epoch) -> Key {
    key(Kind::Doomed, &[&instant(next_look), id.as_bytes(), &epoch.0.to_be_bytes()])
}

/// Doomed attempts whose next look is not after `now`.
pub(super) fn doomed_until(now: Timestamp) -> Range<Key> {
    key(Kind::Doomed, &[])..after(key(Kind::Doomed, &[&instant(now)]))
}

pub(super) fn ended(at: Timestamp, id: OperationId) -> Key {
    key(Kind::Ended, &[&instant(at), id.as_bytes()])
}

/// Operations that ended before `then`.
pub(super) fn ended_before(then: Timestamp) -> Range<Key> {
    key(Kind::Ended, &[])..key(Kind::Ended, &[&instant(then)])
}

pub(super) fn idempotency(hash: &[u8; 32]) -> Key {
    key(Kind::Idempotency, &[hash])
}

pub(super) fn key_of(id: OperationId) -> Key {
    key(Kind::KeyOf, &[id.as_bytes()])
}

pub(super) fn live(id: OperationId) -> Key {
    key(Kind::Live, &[id.as_bytes()])
}

/// All operations that have not ended.
pub(super) fn all_live() -> Range<Key> {
    all(key(Kind::Live, &[]))
}

pub(super) fn manifest(id: OperationId, index: u16) -> Key {
    key(Kind::Manifest, &[id.as_bytes(), &index.to_be_bytes()])
}

/// All pieces of an operation's manifest, in order.
pub(super) fn manifests(id: OperationId) -> Range<Key> {
    all(key(Kind::Manifest, &[id.as_bytes()]))
}

pub(super) fn name(folder: &FolderId, name: &Name) -> Key {
    key(Kind::Name, &[folder.as_str().as_bytes(), &[0], name.as_str().as_bytes()])
}

pub(super) fn operation(id: OperationId) -> Key {
    key(Kind::Operation, &[id.as_bytes()])
}

pub(super) fn purge(at: Timestamp, id: BackupId) -> Key {
    key(Kind::Purge, &[&instant(at), id.as_bytes()])
}

/// Backups whose files may go at `now`.
pub(super) fn purge_until(now: Timestamp) -> Range<Key> {
    key(Kind::Purge, &[])..after(key(Kind::Purge, &[&instant(now)]))
}

pub(super) fn hold(cluster: &ClusterId) -> Key {
    key(Kind::Hold, &[cluster.as_str().as_bytes()])
}

/// A key in a bucket. Neither text can hold a zero byte.
pub(super) fn target(bucket: &str, object: &str) -> Key {
    key(Kind::Target, &[bucket.as_bytes(), &[0], object.as_bytes()])
}

/// What a restore fills: a server by its `host:port`, however it was named, or a cluster. No bucket is without a name.
pub(super) fn restored(place: &Place) -> Key {
    match place {
        Place::Host { host_name, .. } => target("", host_name),
        Place::Address(address) => target("", address),
        Place::Cluster(cluster_id) => target("", &format!("cluster {cluster_id}")),
    }
}

/// A piece of the row at another key. Of those rows all keys are of one length, so none begins another.
pub(super) fn rest(of: &[u8], index: u16) -> Key {
    key(Kind::Rest, &[of, &index.to_be_bytes()])
}

/// All pieces of the row at a key.
pub(super) fn rests(of: &[u8]) -> Range<Key> {
    all(key(Kind::Rest, &[of]))
}

/// The key of the row that a piece belongs to, and the index of the piece.
pub(super) fn read_rest(key: &[u8]) -> Option<(&[u8], u16)> {
    let (of, index) = key.get(1..)?.split_last_chunk::<2>()?;
    Some((of, u16::from_be_bytes(*index)))
}

/// The place of one shard of an operation in a failure domain. No name of either holds a zero byte.
pub(super) fn place(domain: &str, id: OperationId, shard: &str) -> Key {
    key(Kind::Place, &[domain.as_bytes(), &[0], id.as_bytes(), shard.as_bytes()])
}

/// All places of a failure domain, by operation in order of creation, then by shard.
pub(super) fn places(domain: &str) -> Range<Key> {
    all(key(Kind::Place, &[domain.as_bytes(), &[0]]))
}

/// Operation and shard of a place in this failure domain.
pub(super) fn place_in(domain: &str, key: &[u8]) -> Option<(OperationId, String)> {
    let rest = key.get(1..)?.strip_prefix(domain.as_bytes())?.strip_prefix(&[0])?;
    let (id, shard) = rest.split_first_chunk::<ID_BYTES>()?;
    Some((OperationId::from_bytes(*id), String::from_utf8(shard.to_vec()).ok()?))
}

pub(super) fn place_of(id: OperationId, domain: &str, shard: &str) -> Key {
    key(Kind::PlaceOf, &[id.as_bytes(), domain.as_bytes(), &[0], shard.as_bytes()])
}

/// All places of an operation.
pub(super) fn places_of(id: OperationId) -> Range<Key> {
    all(key(Kind::PlaceOf, &[id.as_bytes()]))
}

/// Operation, failure domain and shard of a mark of a place.
pub(super) fn read_place_of(key: &[u8]) -> Option<(OperationId, String, String)> {
    let (id, names) = key.get(1..)?.split_first_chunk::<ID_BYTES>()?;
    let (domain, shard) = std::str::from_utf8(names).ok()?.split_once('\0')?;
    Some((OperationId::from_bytes(*id), domain.to_owned(), shard.to_owned()))
}

pub(super) fn lineage(id: BackupId, index: u16) -> Key {
    key(Kind::Lineage, &[id.as_bytes(), &index.to_be_bytes()])
}

/// What the source of every shard of a backup was, in order of name.
pub(super) fn lineages(id: BackupId) -> Range<Key> {
    all(key(Kind::Lineage, &[id.as_bytes()]))
}

/// The backup of a lineage's key.
pub(super) fn lineage_of(key: &[u8]) -> Option<BackupId> {
    let (rest, _) = key.split_last_chunk::<2>()?;
    last_backup(rest)
}

pub(super) fn sketch_key(cluster: &ClusterId) -> Key {
    key(Kind::SketchKey, &[cluster.as_str().as_bytes()])
}

/// The cluster of a key of sketches.
pub(super) fn sketched_cluster(key: &[u8]) -> Option<ClusterId> {
    std::str::from_utf8(key.get(1..)?).ok()?.parse().ok()
}

/// Backups of a cluster that are older than `before`; all of them where it is absent.
pub(super) fn backups_of_cluster(cluster: &ClusterId, before: Option<BackupId>) -> Range<Key> {
    older(Kind::BackupOfCluster, cluster.as_str(), before.map(|id| *id.as_bytes()))
}

/// Backups of a folder that are older than `before`; all of them where it is absent.
pub(super) fn backups_of_folder(folder: &FolderId, before: Option<BackupId>) -> Range<Key> {
    older(Kind::BackupOfFolder, folder.as_str(), before.map(|id| *id.as_bytes()))
}

/// Operations on a cluster that are older than `before`; all of them where it is absent.
pub(super) fn operations_of_cluster(cluster: &ClusterId, before: Option<OperationId>) -> Range<Key> {
    older(Kind::OperationOfCluster, cluster.as_str(), before.map(|id| *id.as_bytes()))
}

/// Operations in a folder that are older than `before`; all of them where it is absent.
pub(super) fn operations_of_folder(folder: &FolderId, before: Option<OperationId>) -> Range<Key> {
    older(Kind::OperationOfFolder, folder.as_str(), before.map(|id| *id.as_bytes()))
}

/// The two marks by which a backup is listed.
pub(super) fn listings_of_backup(id: BackupId, folder: &FolderId, cluster: &ClusterId) -> [Key; 2] {
    [
        key(Kind::BackupOfFolder, &[folder.as_str().as_bytes(), &[0], id.as_bytes()]),
        key(Kind::BackupOfCluster, &[cluster.as_str().as_bytes(), &[0], id.as_bytes()]),
    ]
}

/// The two marks by which an operation is listed.
pub(super) fn listings_of_operation(id: OperationId, folder: &FolderId, cluster: &ClusterId) -> [Key; 2] {
    [
        key(Kind::OperationOfFolder, &[folder.as_str().as_bytes(), &[0], id.as_bytes()]),
        key(Kind::OperationOfCluster, &[cluster.as_str().as_bytes(), &[0], id.as_bytes()]),
    ]
}

fn older(kind: Kind, group: &str, before: Option<[u8; ID_BYTES]>) -> Range<Key> {
    let group = key(kind, &[group.as_bytes(), &[0]]);
    match before {
        Some(id) => group.clone()..[&group[..], &id[..]].concat(),
        None => all(group),
    }
}

/// Every key that begins with `prefix`.
fn all(prefix: Key) -> Range<Key> {
    prefix.clone()..after(prefix)
}

/// The first key after all that begin with `prefix`, whose last byte that is not 255 exists: it begins with a kind.
fn after(mut prefix: Key) -> Key {
    while let Some(last) = prefix.pop() {
        if let Some(next) = last.checked_add(1) {
            prefix.push(next);
            break;
        }
    }
    prefix
}

/// The identifier of an operation in the last bytes of a key.
pub(super) fn last_operation(key: &[u8]) -> Option<OperationId> {
    key.last_chunk::<ID_BYTES>().map(|id| OperationId::from_bytes(*id))
}

/// The identifier of a backup in the last bytes of a key.
pub(super) fn last_backup(key: &[u8]) -> Option<BackupId> {
    key.last_chunk::<ID_BYTES>().map(|id| BackupId::from_bytes(*id))
}

/// Operation and number of an attempt, in the last bytes of a key.
pub(super) fn last_attempt(key: &[u8]) -> Option<(OperationId, Epoch)> {
    let (rest, epoch) = key.split_last_chunk::<8>()?;
    Some((last_operation(rest)?, Epoch(u64::from_be_bytes(*epoch))))
}

/// Operation and index of a piece of a manifest, in the last bytes of a key.
pub(super) fn last_piece(key: &[u8]) -> Option<(OperationId, u16)> {
    let (rest, index) = key.split_last_chunk::<2>()?;
    Some((last_operation(rest)?, u16::from_be_bytes(*index)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;

    #[test]
    fn instants_keep_their_order() {
        let epoch = Timestamp::UNIX_EPOCH;
        let times = [
            Timestamp::MIN_UTC,
            epoch - TimeDelta::seconds(1),
            epoch - TimeDelta::nanoseconds(1),
            epoch,
            epoch + TimeDelta::nanoseconds(1),
            Timestamp::MAX_UTC,
        ];
        for pair in times.windows(2) {
            assert!(instant(pair[0]) < instant(pair[1]), "{pair:?}");
        }
    }

    #[test]
    fn a_group_holds_its_own_keys_only() {
        let (main, main2): (FolderId, FolderId) = ("main".parse().unwrap(), "main2".parse().unwrap());
        let cluster: ClusterId = "c".parse().unwrap();
        let (old, new) = (OperationId::new(), OperationId::new());
        let [mark, _] = listings_of_operation(old, &main, &cluster);
        assert!(operations_of_folder(&main, None).contains(&mark));
        assert!(operations_of_folder(&main, Some(new)).contains(&mark));
        assert!(!operations_of_folder(&main, Some(old)).contains(&mark));
        assert!(!operations_of_folder(&main2, None).contains(&mark));
        assert_eq!(last_operation(&mark), Some(old));
    }

    #[test]
    fn clusters_are_paged_by_id() {
        let id = |text: &str| text.parse::<ClusterId>().unwrap();
        let beyond = clusters(Some(&id("main")));
        assert!(!beyond.contains(&cluster(&id("main"))) && !beyond.contains(&cluster(&id("a"))));
        assert!(beyond.contains(&cluster(&id("main-2"))) && beyond.contains(&cluster(&id("zzz"))));
        assert!(!clusters(None).contains(&cluster_to_be(&id("main"))));
    }

    #[test]
    fn a_range_takes_in_identifiers_of_all_ones() {
        let id = OperationId::from_bytes([255; 16]);
        assert!(all_live().contains(&live(id)));
        assert!(attempts(id).contains(&attempt(id, Epoch(u64::MAX))));
        assert!(!attempts(id).contains(&backup(BackupId::from_bytes([0; 16]))));
    }

    #[test]
    fn keys_tell_what_they_name() {
        let id = OperationId::new();
        assert_eq!(last_attempt(&doomed(Timestamp::UNIX_EPOCH, id, Epoch(3))), Some((id, Epoch(3))));
        assert_eq!(last_piece(&manifest(id, 17)), Some((id, 17)));
        assert_eq!(last_attempt(b"d"), None);
    }
}
