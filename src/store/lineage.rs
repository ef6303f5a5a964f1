//! What the source of a backup was: enough to tell, at the next one, whether it is still the same.
//!
//! Owns the form in which it is stored. No name of a key is in it: the sketch holds keyed hashes, and their key stays in the
//! store.

use super::{Error, row};
use crate::backup::{BackupId, Name};
use crate::cluster::Timestamp;
use std::fmt;

/// Bytes of the key of the hashes of key names.
pub const SKETCH_KEY_BYTES: usize = 16;

/// The key of a cluster's hashes of key names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SketchKey(pub [u8; SKETCH_KEY_BYTES]);

impl fmt::Debug for SketchKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SketchKey(..)")
    }
}

/// What the source of one shard was at its snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    /// The shard.
    pub shard: String,
    /// Run id of the source, which changes with every start; empty when it told none.
    pub run_id: String,
    /// Id of the history that it was in; empty when it told none.
    pub replication_id: String,
    /// Id of the history before that one; empty when there was none.
    pub replication_id2: String,
    /// Keys in all databases.
    pub keys: u64,
    /// Names the slots that the shard owned; 0 outside of cluster mode.
    pub slots: u64,
    /// The smallest keyed hashes of its keys, ascending, at most [`Lineage::SKETCH`]: of all keys when there are fewer. Empty
    /// as well when the dump was not followed to its end.
    pub sketch: Vec<u64>,
}

impl Lineage {
    /// Most hashes of a sketch.
    pub const SKETCH: usize = 1024;

    /// Most shards of a backup.
    pub const SHARDS: usize = 1024;

    /// Longest text, in bytes.
    pub const TEXT_BYTES: usize = 128;

    /// The form that is written.
    const VERSION: u8 = 1;

    /// Its value in the store.
    pub(super) fn encode(&self, kind: &str) -> Result<Vec<u8>, Error> {
        let mut body = vec![Self::VERSION];
        for text in [&self.shard, &self.run_id, &self.replication_id, &self.replication_id2] {
            let length = u8::try_from(text.len()).ok().filter(|_| text.len() <= Self::TEXT_BYTES);
            body.push(length.ok_or_else(|| Error::Invalid(format!("a text of a lineage has {} bytes, the limit is {}", text.len(), Self::TEXT_BYTES)))?);
            body.extend_from_slice(text.as_bytes());
        }
        if self.sketch.len() > Self::SKETCH || !self.sketch.is_sorted() {
            return Err(Error::Invalid(format!("a sketch has at most {} hashes, in order", Self::SKETCH)));
        }
        for number in [self.keys, self.slots].iter().chain(&self.sketch) {
            body.extend_from_slice(&number.to_le_bytes());
        }
        row::seal(kind, &body)
    }

    /// Reads what [`Lineage::encode`] wrote.
    pub(super) fn decode(kind: &str, value: &[u8]) -> Result<Self, Error> {
        let damaged = |what: &str| Error::Damaged(format!("kind `{kind}`: {what}"));
        let (version, mut rest) = row::unseal(kind, value)?.split_first().ok_or_else(|| damaged("it is empty"))?;
        if *version != Self::VERSION {
            return Err(damaged("its form is not known"));
        }
        let mut text = || -> Result<String, Error> {
            let (length, after) = rest.split_first().ok_or_else(|| damaged("it is cut"))?;
            let (text, after) = after.split_at_checked(usize::from(*length)).ok_or_else(|| damaged("it is cut"))?;
            rest = after;
            String::from_utf8(text.to_vec()).map_err(|_| damaged("it has bytes that are no text"))
        };
        let (shard, run_id, replication_id, replication_id2) = (text()?, text()?, text()?, text()?);
        let (numbers, []) = rest.as_chunks::<8>() else { return Err(damaged("it is cut")) };
        let mut numbers = numbers.iter().map(|bytes| u64::from_le_bytes(*bytes));
        let (Some(keys), Some(slots)) = (numbers.next(), numbers.next()) else { return Err(damaged("it is cut")) };
        let sketch: Vec<u64> = numbers.collect();
        if sketch.len() > Self::SKETCH || !sketch.is_sorted() {
            return Err(damaged("its sketch is none"));
        }
        Ok(Self { shard, run_id, replication_id, replication_id2, keys, slots, sketch })
    }
}

/// What a new backup is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Baseline {
    /// The backup.
    pub backup_id: BackupId,
    /// Its name.
    pub name: Name,
    /// When its snapshot began.
    pub started_at: Option<Timestamp>,
    /// Its shards, in order of name.
    pub shards: Vec<Lineage>,
}

impl Baseline {
    /// Most backups that are looked at for one that can serve.
    pub const LOOKS: usize = 200;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Lineage {
        Lineage {
            shard: "shard1".into(),
            run_id: "ab".repeat(20),
            replication_id: "cd".repeat(20),
            replication_id2: String::new(),
            keys: 7,
            slots: 9,
            sketch: (0..Lineage::SKETCH as u64).collect(),
        }
    }

    #[test]
    fn a_lineage_comes_back_and_fits_a_row() {
        for lineage in [sample(), Lineage::default(), Lineage { sketch: Vec::new(), ..sample() }] {
            let value = lineage.encode("lineage").unwrap();
            assert!(value.len() < 9000, "{}", value.len());
            assert_eq!(Lineage::decode("lineage", &value), Ok(lineage));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let long = Lineage { sketch: vec![1; Lineage::SKETCH + 1], ..sample() };
        let mixed = Lineage { sketch: vec![2, 1], ..sample() };
        let wordy = Lineage { run_id: "x".repeat(Lineage::TEXT_BYTES + 1), ..sample() };
        for bad in [long, mixed, wordy] {
            assert!(matches!(bad.encode("lineage"), Err(Error::Invalid(_))));
        }
    }

    #[test]
    fn a_cut_body_is_a_fault_and_no_panic() {
        let value = sample().encode("lineage").unwrap();
        let body = row::unseal("lineage", &value).unwrap().to_vec();
        let whole = body.len();
        for length in 0..whole {
            let cut = row::seal("lineage", &body[..length]).unwrap();
            // Every eighth byte a sketch may end; it is shorter then.
            match Lineage::decode("lineage", &cut) {
                Ok(read) => assert!(read.sketch.len() < Lineage::SKETCH),
                Err(error) => assert!(matches!(error, Error::Damaged(_)), "{error}"),
            }
        }
    }

    #[test]
    fn a_key_is_not_printed() {
        assert_eq!(format!("{:?}", SketchKey([7; SKETCH_KEY_BYTES])), "SketchKey(..)");
    }
}
