//! A sketch of the keys: the smallest hashes of their names. Two dumps of one data set share nearly all of them, two of
//! different ones none, and a name cannot be read back from them without the key of the hash.

use siphasher::sip::SipHasher13;
use std::collections::BinaryHeap;
use std::hash::Hasher;

/// Hashes that a sketch holds at most.
pub const SKETCH_LENGTH: usize = 1_024;

/// The smallest hashes so far.
pub(super) struct Sketch {
    hash: SipHasher13,
    smallest: BinaryHeap<u64>,
    /// A hash must be below this one to come in.
    below: u64,
}

impl std::fmt::Debug for Sketch {
    // The key of the hash stays unsaid.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} hashes", self.smallest.len())
    }
}

impl Sketch {
    pub(super) fn new(key: &[u8; 16]) -> Self {
        Self { hash: SipHasher13::new_with_key(key), smallest: BinaryHeap::with_capacity(SKETCH_LENGTH), below: u64::MAX }
    }

    /// A key was found.
    #[inline]
    pub(super) fn key(&mut self, database: u32, key: &[u8]) {
        let mut hash = self.hash;
        hash.write(&database.to_le_bytes());
        hash.write(key);
        let hash = hash.finish();
        if hash < self.below {
            self.admit(hash);
        }
    }

    fn admit(&mut self, hash: u64) {
        if self.smallest.len() == SKETCH_LENGTH {
            self.smallest.pop();
        }
        self.smallest.push(hash);
        if self.smallest.len() == SKETCH_LENGTH {
            self.below = self.smallest.peek().copied().unwrap_or(u64::MAX);
        }
    }

    /// The hashes, ascending, each once.
    pub(super) fn finish(self) -> Vec<u64> {
        let mut hashes = self.smallest.into_sorted_vec();
        hashes.dedup();
        hashes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest() {
        // Goal: the smallest hashes, whatever the order of the keys, other ones for another key or database. Method: all hashes
        // sorted.
        let names: Vec<String> = (0..5_000).map(|number| format!("key:{number}")).collect();
        let sketch = |key: u8, database: u32, names: &mut dyn Iterator<Item = &String>| {
            let mut sketch = Sketch::new(&[key; 16]);
            names.for_each(|name| sketch.key(database, name.as_bytes()));
            sketch.finish()
        };
        let mut all: Vec<u64> = names.iter().map(|name| SipHasher13::new_with_key(&[1; 16]).hash(&[&7_u32.to_le_bytes(), name.as_bytes()].concat())).collect();
        all.sort_unstable();
        assert_eq!(sketch(1, 7, &mut names.iter()), all[..SKETCH_LENGTH]);
        assert_eq!(sketch(1, 7, &mut names.iter().rev()), all[..SKETCH_LENGTH]);
        assert_eq!(sketch(1, 7, &mut names[..10].iter().chain(&names[..10])).len(), 10);
        for other in [sketch(2, 7, &mut names.iter()), sketch(1, 8, &mut names.iter())] {
            assert!(other.iter().all(|hash| all.binary_search(hash).is_err()));
        }
        let half = sketch(1, 7, &mut names.iter().step_by(2));
        let shared = half.iter().filter(|hash| all[..SKETCH_LENGTH].contains(hash)).count();
        assert!((400..=624).contains(&shared), "{shared}");
    }
}
