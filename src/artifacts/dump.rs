//! The dump of a shard as it comes back from storage: decoded, walked, and held against its manifest to the last byte.
//!
//! ```text
//! ranges of the objects -> SHA-256 -> age? -> zstd? -> walk -> pieces of the RDB file
//! ```
//!
//! Memory is flat whatever the length. What costs CPU runs on a thread of its own, and nothing is read ahead of the reader but a
//! few pieces.

use super::decode::{Coding, Stored, decode, undecodable};
use super::encryption::{self, Identity};
use super::manifest::{Segment, ShardManifest};
use super::{Error, Folder, Storage};
use crate::rdb::{Summary, Walker};
use bytes::Bytes;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Length of a range that is read at once, in bytes.
const RANGE_BYTES: usize = 1024 * 1024;

/// Ranges that may wait for the decoder.
const RANGES: usize = 2;

/// Pieces that may wait for the reader, of 128 KiB at most.
const PIECES: usize = 8;

/// End of the name of a segment that is compressed, before that of an encrypted one.
const COMPRESSED: &str = ".zst";

/// A dump that is being read.
#[derive(Debug)]
pub struct Dump {
    pieces: mpsc::Receiver<Vec<u8>>,
    end: Option<oneshot::Receiver<Result<Summary, Error>>>,
    summary: Option<Summary>,
    reading: JoinHandle<()>,
    stored_bytes: Arc<AtomicU64>,
}

impl Storage {
    /// Begins to read the dump of a shard, which lies in `folder`.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] for an encrypted one without a key to try, [`Error::Unavailable`] when no thread can be started.
    /// Whatever else is wrong is told by [`Dump::next`].
    pub fn dump(&self, folder: &Folder, shard: &ShardManifest) -> Result<Dump, Error> {
        let identity = self.encryption.identity.clone();
        if let Some(segment) = shard.segments.iter().find(|segment| segment.file.ends_with(encryption::SUFFIX) && identity.is_none()) {
            return Err(Error::Locked(segment.file.clone()));
        }
        let (ranges, ranges_in) = mpsc::channel(RANGES);
        let (pieces_out, pieces) = mpsc::channel(PIECES);
        let (result, end) = oneshot::channel();
        let (fault_out, fault) = std::sync::mpsc::channel();
        let (storage, folder, segments) = (self.clone(), folder.clone(), shard.segments.clone());
        let stored_bytes = Arc::new(AtomicU64::new(0));
        let (expected, counted) = (shard.clone(), Arc::clone(&stored_bytes));
        std::thread::Builder::new()
            .name("dump".to_owned())
            .spawn(move || {
                let moved = move |stored, _decoded| {
                    counted.fetch_add(stored, Ordering::Relaxed);
                };
                let outcome = run(&expected, identity.as_ref(), ranges_in, pieces_out, &moved);
                // The first stage at fault is the one that counts.
                let outcome = fault.try_recv().map_or(outcome, Err);
                drop(result.send(outcome));
            })
            .map_err(|_| Error::unavailable("no thread could be started"))?;
        let reading = tokio::spawn(async move {
            if let Err(fault) = read(&storage, &folder, &segments, &ranges).await {
                // Nobody waits for it when the thread has ended already.
                let _ = fault_out.send(fault);
            }
        });
        Ok(Dump { pieces, end: Some(end), summary: None, reading, stored_bytes })
    }
}

/// Reads all segments in order.
async fn read(storage: &Storage, folder: &Folder, segments: &[Segment], ranges: &mpsc::Sender<Bytes>) -> Result<(), Error> {
    for segment in segments {
        let mut pieces = storage.pieces(folder, segment, RANGE_BYTES).await?;
        while let Some(range) = pieces.next().await? {
            // A closed channel means that the decoder has failed, and says so itself, or that nobody reads any more.
            if ranges.send(range).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

impl Dump {
    /// The next bytes of the RDB file; `None` at its end, and only when all that was read is what the manifest says: each
    /// segment its digest, the dump its length, its checksum and its keys.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] when it is not, [`Error::Missing`], [`Error::Locked`], else as any reading. It ends with the first.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when it is dropped.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        if let Some(piece) = self.pieces.recv().await {
            return Ok(Some(piece));
        }
        if let Some(end) = &mut self.end {
            let outcome = end.await;
            self.end = None;
            self.summary = Some(outcome.unwrap_or_else(|_| Err(interrupted()))?);
        }
        if self.summary.is_some() { Ok(None) } else { Err(interrupted()) }
    }

    /// [`Dump::next`] for a thread that may block; never for a task of the runtime.
    ///
    /// # Errors
    ///
    /// As [`Dump::next`].
    pub fn blocking_next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        if let Some(piece) = self.pieces.blocking_recv() {
            return Ok(Some(piece));
        }
        if let Some(end) = self.end.take() {
            self.summary = Some(end.blocking_recv().unwrap_or_else(|_| Err(interrupted()))?);
        }
        if self.summary.is_some() { Ok(None) } else { Err(interrupted()) }
    }

    /// What the walk found, once all was read.
    pub fn summary(&self) -> Option<&Summary> {
        self.summary.as_ref()
    }

    /// Bytes of the stored objects read so far.
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Dump {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

fn interrupted() -> Error {
    Error::unavailable("the reading was interrupted")
}

/// Decodes and walks all segments, and holds the outcome against the manifest.
fn run(
    shard: &ShardManifest,
    identity: Option<&Identity>,
    mut ranges: mpsc::Receiver<Bytes>,
    pieces: mpsc::Sender<Vec<u8>>,
    moved: &dyn Fn(u64, u64),
) -> Result<Summary, Error> {
    let mut output = Output { walker: Walker::new(), pieces, most_bytes: shard.size_bytes, fault: None, gone: false };
    for segment in &shard.segments {
        let mut stored = Stored::new(&mut ranges, segment.stored_bytes, moved);
        let compressed = segment.file.trim_end_matches(encryption::SUFFIX).ends_with(COMPRESSED);
        let coding = if compressed { Coding::Zstd } else { Coding::Plain };
        let decoded = decode(&mut stored, segment, coding, identity, &mut output, moved);
        if output.gone || stored.ended_early {
            return Err(interrupted());
        }
        if let Some(what) = output.fault.take() {
            return Err(Error::Corrupt { name: segment.file.clone(), what });
        }
        decoded.map_err(|fault| undecodable(segment, &fault))?;
        stored.finish(segment)?;
    }
    let corrupt = |what: String| Error::Corrupt { name: format!("the dump of {}", shard.name), what };
    let summary = output.walker.finish().map_err(|fault| corrupt(fault.to_string()))?;
    if summary.bytes != shard.size_bytes || summary.crc64 != shard.walk.crc64 {
        return Err(corrupt("it is not the one that the manifest describes".to_owned()));
    }
    Ok(summary)
}

/// Walks what is decoded, and hands it on.
struct Output {
    walker: Walker,
    pieces: mpsc::Sender<Vec<u8>>,
    most_bytes: u64,
    fault: Option<String>,
    /// Nobody reads any more.
    gone: bool,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let refuse = |fault: &mut Option<String>, what: String| {
            *fault = Some(what);
            Err(io::ErrorKind::InvalidData.into())
        };
        if self.walker.bytes() + bytes.len() as u64 > self.most_bytes {
            return refuse(&mut self.fault, format!("the dump has more than {} bytes", self.most_bytes));
        }
        match self.walker.feed(bytes) {
            Ok(taken) if taken == bytes.len() => {}
            Ok(_) => return refuse(&mut self.fault, "bytes follow the end of the dump".to_owned()),
            Err(fault) => return refuse(&mut self.fault, fault.to_string()),
        }
        if self.pieces.blocking_send(bytes.to_vec()).is_err() {
            self.gone = true;
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::transfer::hex;
    use super::super::{Compression, Options, SEGMENT_BYTES};
    use super::*;
    use crate::backup::BackupId;
    use aws_lc_rs::digest;
    use std::collections::BTreeMap;

    /// A dump of `keys` strings of 1,000 bytes, without a checksum.
    fn rdb(keys: u32) -> Vec<u8> {
        let mut dump = b"REDIS0011\xfe\x00".to_vec();
        for key in 0..keys {
            dump.extend([0, 4]);
            dump.extend(key.to_be_bytes());
            dump.extend([0x43, 0xe8]);
            dump.extend((0..1000_u32).map(|at| (at.wrapping_mul(key) % 251) as u8));
        }
        dump.push(0xff);
        dump.extend([0; 8]);
        dump
    }

    /// A storage with one shard in it.
    struct Room {
        around: tempfile::TempDir,
        storage: Storage,
        folder: Folder,
        shard: ShardManifest,
    }

    impl Room {
        fn new(dump: &[u8], segments: usize, compressed: bool) -> Self {
            let around = tempfile::tempdir().unwrap();
            let root = around.path().join("artifacts").into();
            let options = Options { root, folders: BTreeMap::new(), compression: Compression::None, segment_bytes: SEGMENT_BYTES };
            let storage = Storage::open(options).unwrap();
            let folder = Folder::of_backup(&"default".parse().unwrap(), &"main".parse().unwrap(), BackupId::new());
            let place = around.path().join("artifacts").join(folder.as_str());
            std::fs::create_dir_all(&place).unwrap();
            let mut listed = Vec::new();
            for (index, plain) in dump.chunks(dump.len().div_ceil(segments)).enumerate() {
                let stored = if compressed { zstd::bulk::compress(plain, 1).unwrap() } else { plain.to_vec() };
                let file = format!("shard1-{index}.rdb{}", if compressed { ".zst" } else { "" });
                std::fs::write(place.join(&file), &stored).unwrap();
                let sha256 = hex(digest::digest(&digest::SHA256, &stored).as_ref());
                listed.push(Segment { file, stored_bytes: stored.len() as u64, sha256 });
            }
            let mut walker = Walker::new();
            walker.feed(dump).unwrap();
            let at = "2026-11-22T00:00:00Z";
            let shard = serde_json::json!({
                "name": "shard1", "segments": listed, "size_bytes": dump.len(), "level": "walked", "source_host": "a:6379", "source_role": "replica",
                "engine": "redis", "engine_version": "7.2.5", "run_id": "", "replication_id": "", "replication_offset": 0, "rdb_only": true,
                "used_memory_bytes": 0, "fork_micros": null, "copy_on_write_bytes": null, "snapshot_started_at": at, "snapshot_at": at,
                "upload_started_at": at, "upload_ended_at": at, "walk": walker.finish().unwrap(),
            });
            Self { around, storage, folder, shard: serde_json::from_value(shard).unwrap() }
        }

        fn path(&self, index: usize) -> std::path::PathBuf {
            self.around.path().join("artifacts").join(self.folder.as_str()).join(&self.shard.segments[index].file)
        }

        async fn read(&self) -> Result<Vec<u8>, Error> {
            let mut dump = self.storage.dump(&self.folder, &self.shard)?;
            let mut bytes = Vec::new();
            while let Some(piece) = dump.next().await? {
                bytes.extend(piece);
            }
            assert_eq!(dump.summary().map(|summary| summary.bytes), Some(bytes.len() as u64));
            assert!(matches!(dump.next().await, Ok(None)), "the end is the end");
            Ok(bytes)
        }
    }

    #[tokio::test]
    async fn a_dump_comes_back_as_it_was() {
        let dump = rdb(4000);
        for (segments, compressed) in [(1, false), (1, true), (3, false), (3, true)] {
            let room = Room::new(&dump, segments, compressed);
            assert!(room.read().await.unwrap() == dump, "{segments} {compressed}");
            let mut blocking = room.storage.dump(&room.folder, &room.shard).unwrap();
            let read = tokio::task::spawn_blocking(move || {
                let mut bytes = 0;
                while let Some(piece) = blocking.blocking_next().unwrap() {
                    bytes += piece.len();
                }
                bytes
            });
            assert_eq!(read.await.unwrap(), dump.len());
        }
    }

    /// Goal: no damage, wherever it is, ends in a dump that looks whole.
    #[tokio::test]
    async fn damage_never_ends_well() {
        let dump = rdb(1000);
        for compressed in [false, true] {
            let room = Room::new(&dump, 2, compressed);
            let whole = std::fs::read(room.path(1)).unwrap();
            for at in [0, whole.len() / 2, whole.len() - 1] {
                let mut spoiled = whole.clone();
                spoiled[at] ^= 1;
                std::fs::write(room.path(1), &spoiled).unwrap();
                assert!(matches!(room.read().await, Err(Error::Corrupt { .. })), "byte {at}, {compressed}");
            }
            std::fs::write(room.path(1), &whole[1..]).unwrap();
            assert!(matches!(room.read().await, Err(Error::Corrupt { .. })));
            std::fs::remove_file(room.path(1)).unwrap();
            assert!(matches!(room.read().await, Err(Error::Missing(_))));
        }
        // Every digest holds, and it is another dump than the manifest describes.
        let mut room = Room::new(&dump, 1, true);
        room.shard.walk.crc64 ^= 1;
        assert!(matches!(room.read().await, Err(Error::Corrupt { .. })));
        let mut room = Room::new(&dump, 1, true);
        room.shard.size_bytes -= 1;
        assert!(matches!(room.read().await, Err(Error::Corrupt { .. })));
    }

    #[tokio::test]
    async fn an_encrypted_dump_needs_a_key() {
        let mut room = Room::new(&rdb(1), 1, false);
        room.shard.segments[0].file.push_str(encryption::SUFFIX);
        assert!(matches!(room.storage.dump(&room.folder, &room.shard), Err(Error::Locked(_))));
    }

    /// Goal: whoever stops reading leaves nothing behind that goes on. Method: the ends of the channels.
    #[tokio::test]
    async fn what_nobody_reads_ends() {
        let room = Room::new(&rdb(20_000), 1, false);
        let mut dump = room.storage.dump(&room.folder, &room.shard).unwrap();
        dump.next().await.unwrap();
        let counted = Arc::downgrade(&dump.stored_bytes);
        drop(dump);
        let gone = async {
            while counted.strong_count() > 0 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), gone).await.expect("the thread and the reader end");
    }
}
