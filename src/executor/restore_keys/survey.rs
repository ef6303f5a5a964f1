//! The first reading of a dump: all of it is held against its manifest before anything is written, and what the second reading
//! needs to know beforehand is noted.

use super::selection::Selection;
use crate::artifacts::Dump;
use crate::rdb::{Entries, Event, SlotSet, slot_of};
use aws_lc_rs::digest::{Digest, SHA256, digest};
use std::collections::VecDeque;

/// Bytes of a dump that are judged at once when it is read again.
pub(super) const BLOCK_BYTES: usize = 1024 * 1024;

/// Longest value that is held as a whole, in bytes as in the dump; longer ones pass through.
pub(super) const WHOLE_BYTES: u64 = 1024 * 1024;

/// Longest library of functions, in bytes.
pub(super) const LIBRARY_BYTES: u64 = 16 * 1024 * 1024;

/// What was found in a dump.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Values longer than [`WHOLE_BYTES`]: where each begins, and its length; no more than one for each of these bytes.
    pub(super) longs: VecDeque<(u64, u64)>,
    /// Length of the longest value that is meant, and its database.
    pub(super) longest: (u64, u32),
    /// The highest database with keys that are meant.
    pub(super) highest_database: u32,
    /// Keys that are meant.
    pub(super) keys: u64,
    /// Those among them that lie outside of the slots of their shard.
    pub(super) strays: u64,
    /// Digest of each block, the last of which may be short.
    blocks: Vec<[u8; 32]>,
}

/// Joins pieces to blocks.
#[derive(Default)]
pub(super) struct Blocks {
    block: Vec<u8>,
    /// Bytes of a piece that did not fit any more.
    rest: Vec<u8>,
    has_ended: bool,
}

/// Why a dump cannot be surveyed.
pub(super) enum Fault {
    /// Of reading it.
    Storage(crate::artifacts::Error),
    /// What it is.
    Dump(String),
}

impl Blocks {
    /// The next block; `None` behind the last one.
    pub(super) async fn next(&mut self, dump: &mut Dump) -> Result<Option<&[u8]>, crate::artifacts::Error> {
        self.block.clear();
        self.block.append(&mut self.rest);
        while !self.has_ended && self.block.len() < BLOCK_BYTES {
            match dump.next().await? {
                Some(piece) => self.block.extend_from_slice(&piece),
                None => self.has_ended = true,
            }
        }
        if self.block.len() > BLOCK_BYTES {
            self.rest.extend_from_slice(&self.block[BLOCK_BYTES..]);
            self.block.truncate(BLOCK_BYTES);
        }
        Ok((!self.block.is_empty()).then_some(&self.block))
    }
}

impl Survey {
    /// Reads a dump to its end.
    pub(super) async fn of(mut dump: Dump, selection: &Selection, slots: &SlotSet) -> Result<Self, Fault> {
        let mut survey = Self::default();
        let (mut blocks, mut entries) = (Blocks::default(), Entries::new());
        // Where the open entry begins, its database when it is meant, and its length so far.
        let mut open = (0, None, 0);
        let mut library: Option<u64> = None;
        while let Some(block) = blocks.next(&mut dump).await.map_err(Fault::Storage)? {
            survey.blocks.push(sha256(block));
            let taken = entries.feed(block, |event| match event {
                Event::Key(entry, at) => {
                    let is_meant = selection.takes(&entry);
                    open = (at, is_meant.then_some(entry.database), 0);
                    if is_meant {
                        survey.keys += 1;
                        survey.highest_database = survey.highest_database.max(entry.database);
                        survey.strays += u64::from(!slots.is_empty() && !slots.contains(slot_of(&entry.name)));
                    }
                }
                Event::Function => open = (0, None, 0),
                Event::Bytes(bytes) => open.2 += bytes.len() as u64,
                Event::End(_) => {
                    let (at, database, bytes) = open;
                    match database {
                        Some(database) => {
                            survey.longest = survey.longest.max((bytes, database));
                            if bytes > WHOLE_BYTES {
                                survey.longs.push_back((at, bytes));
                            }
                        }
                        None if at == 0 => library = library.max(Some(bytes)),
                        None => {}
                    }
                }
            });
            taken.map_err(|fault| Fault::Dump(fault.to_string()))?;
        }
        if let Some(opaque) = entries.opaque() {
            return Err(Fault::Dump(format!("its structure cannot be followed to the end: {opaque}")));
        }
        match library {
            Some(bytes) if bytes > LIBRARY_BYTES => Err(Fault::Dump(format!("a library of functions has {bytes} bytes, more than {LIBRARY_BYTES}"))),
            Some(_) | None => Ok(survey),
        }
    }

    /// Whether a block is the one that was read before under this number.
    pub(super) fn knows(&self, number: usize, block: &[u8]) -> bool {
        self.blocks.get(number).is_some_and(|known| *known == sha256(block))
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest: Digest = digest(&SHA256, bytes);
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.as_ref());
    hash
}
