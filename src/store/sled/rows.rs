//! The rows as a command sees them: what is written, and on top what is not written yet.
//!
//! Owns the form of each kind of row. A fresh view of the tree has nothing on top; so the readers use it too.

use super::keys::{self, Key, Kind};
use crate::backup::{Backup, BackupId};
use crate::cluster::{Adopted, ClusterId, FolderId, Timestamp};
use crate::operation::{Operation, OperationId};
use crate::store::{Error, row};
use ::sled::{IVec, Tree};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;

/// The format of the whole store that this program writes and reads.
pub(super) const FORMAT: u32 = 1;

/// An attempt that has a folder in storage, or in a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Attempt {
    pub folder_id: FolderId,
    pub cluster_id: ClusterId,
    pub backup_id: BackupId,
    /// The bucket that an export writes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// Set once its files must go.
    pub doom: Option<Doom>,
}

/// When a doomed attempt's files are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Doom {
    pub next_look: Timestamp,
    pub looks: u32,
}

/// What a caller's key was used for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeyUse {
    pub operation_id: OperationId,
    /// SHA-256 over the method and the canonical request.
    pub digest: [u8; 32],
}

/// Most bytes of a manifest in one row.
pub(super) const PIECE_BYTES: usize = 60 << 10;

/// A piece of a manifest as a row: how many pieces there are, then its bytes as they are.
pub(super) fn piece(pieces: u16, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    row::seal(Kind::Manifest.word(), &[&pieces.to_be_bytes(), bytes].concat())
}

/// How many pieces there are, and the bytes of this one.
pub(super) fn read_piece(value: &[u8]) -> Result<(u16, &[u8]), Error> {
    let body = row::unseal(Kind::Manifest.word(), value)?;
    let (pieces, bytes) = body.split_first_chunk::<2>().ok_or_else(|| damaged(Kind::Manifest, "it has no count of pieces"))?;
    Ok((u16::from_be_bytes(*pieces), bytes))
}

/// How often a row in pieces is read anew when it changed while it was read.
const WHOLE_TRIES: usize = 8;

/// Most pieces of a row.
const PIECES: usize = row::LONG_BYTES.div_ceil(row::PIECE_BYTES);

/// A row of this kind does not fit the rows around it.
pub(super) fn damaged(kind: Kind, what: impl std::fmt::Display) -> Error {
    Error::Damaged(format!("kind `{}`: {what}", kind.word()))
}

/// What an error of the tree means to a caller.
pub(super) fn tree_error(error: ::sled::Error) -> Error {
    match error {
        ::sled::Error::Corruption { .. } => Error::Damaged("the files of the embedded store do not hold together".to_owned()),
        ::sled::Error::CollectionNotFound(_) | ::sled::Error::Unsupported(_) | ::sled::Error::ReportableBug(_) | ::sled::Error::Io(_) => {
            Error::Unavailable(error.to_string())
        }
    }
}

fn kind_of(key: &[u8]) -> Kind {
    key.first().and_then(|byte| Kind::of(*byte)).expect("every key is made in `keys` and begins with its kind")
}

/// What is to be written: the new value of each key, none where the row goes.
pub(super) type Writes = BTreeMap<Key, Option<Vec<u8>>>;

/// The tree, under the writes of the commands judged before, under those of the command being judged.
pub(super) struct Rows {
    tree: Tree,
    judged: Writes,
    current: Writes,
}

impl Rows {
    /// What the tree holds.
    pub(super) fn new(tree: Tree) -> Self {
        Self { tree, judged: Writes::new(), current: Writes::new() }
    }

    /// Whether the tree holds nothing at all.
    pub(super) fn is_empty(&self) -> bool {
        self.tree.is_empty()
    }

    /// Keeps what the command being judged has written.
    pub(super) fn keep(&mut self) {
        self.judged.append(&mut self.current);
    }

    /// Forgets what the command being judged has written.
    pub(super) fn forget(&mut self) {
        self.current.clear();
    }

    /// Takes all that was kept. It must be in the tree before the next command is judged.
    pub(super) fn take(&mut self) -> Writes {
        std::mem::take(&mut self.judged)
    }

    fn written(&self, key: &[u8]) -> Option<&Option<Vec<u8>>> {
        self.current.get(key).or_else(|| self.judged.get(key))
    }

    /// The value at a key.
    pub(super) fn value(&self, key: &[u8]) -> Result<Option<IVec>, Error> {
        match self.written(key) {
            Some(value) => Ok(value.as_deref().map(IVec::from)),
            None => self.tree.get(key).map_err(tree_error),
        }
    }

    /// Whether there is a row.
    pub(super) fn has(&self, key: &[u8]) -> Result<bool, Error> {
        Ok(self.value(key)?.is_some())
    }

    /// The row at a key.
    pub(super) fn read<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, Error> {
        let kind = kind_of(key);
        for _ in 0..WHOLE_TRIES {
            let Some(value) = self.value(key)? else { return Ok(None) };
            match row::pieces(kind.word(), &value)? {
                None => return row::decode(kind.word(), &value).map(Some),
                Some(pieces) => {
                    if let Some(whole) = self.whole(key, pieces)? {
                        return row::decode(kind.word(), &whole).map(Some);
                    }
                }
            }
        }
        Err(damaged(kind, "its pieces do not belong together"))
    }

    /// The value that was cut into these pieces; `None` when another was written meanwhile.
    fn whole(&self, key: &[u8], pieces: row::Pieces) -> Result<Option<Vec<u8>>, Error> {
        let mut whole = Vec::new();
        for index in 0..pieces.count {
            let Some(piece) = self.value(&keys::rest(key, index))? else { return Ok(None) };
            let Some(part) = pieces.part(Kind::Rest.word(), &piece)? else { return Ok(None) };
            whole.extend_from_slice(part);
        }
        Ok(pieces.are_whole(&whole).then_some(whole))
    }

    /// The operation with this id.
    pub(super) fn operation(&self, id: OperationId) -> Result<Option<Operation>, Error> {
        let operation: Option<Operation> = self.read(&keys::operation(id))?;
        match operation {
            Some(operation) if operation.id != id => Err(damaged(Kind::Operation, "it lies under the key of another")),
            Some(_) | None => Ok(operation),
        }
    }

    /// The backup with this id.
    pub(super) fn backup(&self, id: BackupId) -> Result<Option<Backup>, Error> {
        let backup: Option<Backup> = self.read(&keys::backup(id))?;
        match backup {
            Some(backup) if backup.id != id => Err(damaged(Kind::Backup, "it lies under the key of another")),
            Some(_) | None => Ok(backup),
        }
    }

    /// The backup that an operation concerns, if it concerns one.
    pub(super) fn backup_of(&self, id: Option<BackupId>) -> Result<Option<Backup>, Error> {
        id.map_or(Ok(None), |id| self.backup(id))
    }

    /// The record of the cluster with this id.
    pub(super) fn cluster(&self, id: &ClusterId) -> Result<Option<Adopted>, Error> {
        let cluster: Option<Adopted> = self.read(&keys::cluster(id))?;
        match cluster {
            Some(cluster) if cluster.id != *id => Err(damaged(Kind::Cluster, "it lies under the key of another")),
            Some(_) | None => Ok(cluster),
        }
    }

    /// Writes a row that fits one value.
    pub(super) fn write<T: Serialize>(&mut self, key: Key, row: &T) -> Result<(), Error> {
        let (kind, value) = (kind_of(&key), row::encode(kind_of(&key).word(), row)?);
        if value.len() > row::VALUE_BYTES {
            return Err(Error::Invalid(format!("the row of kind `{}` takes {} bytes, the limit is {} bytes", kind.word(), value.len(), row::VALUE_BYTES)));
        }
        self.put(key, value);
        Ok(())
    }

    /// Writes a row that may take several values. It goes with [`Rows::remove_long`].
    pub(super) fn write_long<T: Serialize>(&mut self, key: Key, row: &T) -> Result<(), Error> {
        let kind = kind_of(&key);
        let value = row::encode(kind.word(), row)?;
        self.remove_rest(&key)?;
        if value.len() <= row::VALUE_BYTES {
            self.put(key, value);
            return Ok(());
        }
        let (head, pieces) = row::cut(Kind::Rest.word(), &value)?;
        for (index, piece) in (0..).zip(pieces) {
            self.put(keys::rest(&key, index), piece);
        }
        self.put(key, head);
        Ok(())
    }

    /// Removes a row with its further pieces.
    pub(super) fn remove_long(&mut self, key: Key) -> Result<(), Error> {
        self.remove_rest(&key)?;
        self.remove(key);
        Ok(())
    }

    fn remove_rest(&mut self, key: &[u8]) -> Result<(), Error> {
        for (rest, _) in self.scan(keys::rests(key), PIECES)? {
            self.remove(rest);
        }
        Ok(())
    }

    /// Writes a row that says nothing but that it is there.
    pub(super) fn mark(&mut self, key: Key) -> Result<(), Error> {
        let value = row::seal(kind_of(&key).word(), &[])?;
        self.put(key, value);
        Ok(())
    }

    /// Writes a sealed value.
    pub(super) fn put(&mut self, key: Key, value: Vec<u8>) {
        self.current.insert(key, Some(value));
    }

    /// Removes a row.
    pub(super) fn remove(&mut self, key: Key) {
        self.current.insert(key, None);
    }

    /// The first `limit` rows of a range, in order of key.
    pub(super) fn scan(&self, range: Range<Key>, limit: usize) -> Result<Vec<(Key, Vec<u8>)>, Error> {
        let mut top: BTreeMap<&[u8], Option<&[u8]>> = BTreeMap::new();
        for writes in [&self.judged, &self.current] {
            top.extend(writes.range(range.clone()).map(|(key, value)| (key.as_slice(), value.as_deref())));
        }
        let mut rows = Vec::new();
        for item in self.tree.range(range) {
            if rows.len() == limit {
                break;
            }
            let (key, value) = item.map_err(tree_error)?;
            if !top.contains_key(&key[..]) {
                rows.push((key.to_vec(), value.to_vec()));
            }
        }
        rows.extend(top.into_iter().filter_map(|(key, value)| Some((key.to_vec(), value?.to_vec()))));
        rows.sort();
        rows.truncate(limit);
        Ok(rows)
    }

    /// The key of the last row of a range.
    pub(super) fn last(&self, range: Range<Key>) -> Result<Option<Key>, Error> {
        let mut top: BTreeMap<&Key, bool> = BTreeMap::new();
        for writes in [&self.judged, &self.current] {
            top.extend(writes.range(range.clone()).map(|(key, value)| (key, value.is_some())));
        }
        let mut last = top.iter().rev().find(|(_, is_there)| **is_there).map(|(key, _)| (*key).clone());
        for item in self.tree.range(range).rev() {
            let (key, _) = item.map_err(tree_error)?;
            if self.written(&key).is_none() {
                last = last.max(Some(key.to_vec()));
                break;
            }
        }
        Ok(last)
    }

    /// The rows of a range as they are in the tree, whatever is not written yet.
    pub(super) fn stored(&self, range: Range<Key>) -> impl DoubleEndedIterator<Item = Result<(IVec, IVec), Error>> + use<> {
        self.tree.range(range).map(|item| item.map_err(tree_error))
    }
}
