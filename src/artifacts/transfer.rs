//! Moving what is stored: a segment to another folder of the storage, a shard's dump to a bucket.
//!
//! Every byte read is held against the digest in the manifest, so that what was damaged since is found and not handed on.
//! Memory is flat whatever the length; what costs CPU runs off the async threads.

use super::bucket::Staged;
use super::decode::{Coding, Stored, decode, hold, undecodable};
use super::encryption::Identity;
use super::manifest::Segment;
use super::{Error, Folder, PART_BYTES, PART_TIMEOUT, SEAL_TIMEOUT, Storage};
use crate::telemetry::hang_point;
use aws_lc_rs::digest;
use bytes::Bytes;
use std::io::{self, Write};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Length of a piece on the way to a bucket, in bytes.
const PIECE_BYTES: usize = 1024 * 1024;

/// Pieces that may wait for the disk of the bucket.
const PIECES: usize = 2;

/// What is written to a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// The segments as they are stored.
    Stored,
    /// The dump of this many bytes, decoded from segments that are not compressed. Encrypted ones are opened; their name says so.
    Plain(u64),
    /// The dump of this many bytes, decoded from segments under zstd, encrypted or not.
    Zstd(u64),
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Bytes.
    pub bytes: u64,
    /// SHA-256 of them, in hexadecimal.
    pub sha256: String,
}

impl Storage {
    /// Copies a segment to another folder, under the name that it has. `moved` hears of bytes as they are stored. Durable on
    /// return.
    ///
    /// Within one store, and up to the length that every store takes, the store copies: the bytes do not come here, and what
    /// is checked is the length before and after. That they are still those of the manifest is then the word of the store,
    /// which holds each object against checksums of its own. Else every byte is read and held against the manifest.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`], [`Error::Corrupt`] when the object is not that of the manifest, else [`Error`]. Nothing is visible
    /// under the new key then, but for what the collector removes.
    pub async fn copy_segment(&self, from: &Folder, to: &Folder, segment: &Segment, moved: impl Fn(u64)) -> Result<(), Error> {
        let mut pieces = self.pieces(from, segment, PART_BYTES).await?;
        if let Some((source, target)) = pieces.root.copies_to(self.root(to), segment.stored_bytes) {
            hang_point("copy.moving").await;
            source.copy(&source.path(&pieces.path)?, &target.path(&to.file(&segment.file))?, segment.stored_bytes).await?;
            moved(segment.stored_bytes);
            return Ok(());
        }
        // Of a folder the library makes a second name for the same file: no independent copy, as one bad sector or one
        // careless hand spoils both. So the bytes are read, checked and written anew.
        let mut upload = self.upload(to, &segment.file).await?;
        let mut context = digest::Context::new(&digest::SHA256);
        let mut next = pieces.next().await?;
        while let Some(piece) = next {
            let length = piece.len() as u64;
            let digesting = tokio::task::spawn_blocking(move || {
                context.update(&piece);
                (context, piece)
            });
            let (digested, piece) = digesting.await.map_err(|_| Error::unavailable("the work was interrupted"))?;
            context = digested;
            let (stored, following) = tokio::join!(upload.part(piece.into()), pieces.next());
            stored?;
            moved(length);
            next = following?;
            hang_point("copy.moving").await;
        }
        if let Err(damage) = hold(segment, context) {
            upload.abort().await;
            return Err(damage);
        }
        upload.complete().await
    }

    /// Writes the dump of a shard, or a segment of it, to a bucket. `moved` hears of bytes read and of bytes written. What was
    /// written is durable on return, and still nothing to anybody: it is to be published.
    ///
    /// # Errors
    ///
    /// [`Move::Storage`] when the segments cannot be read or are not those of the manifest; [`Move::Bucket`] when the bucket
    /// cannot be written.
    ///
    /// # Cancel safety
    ///
    /// If dropped, the writing stops at the next piece; what was staged stays.
    pub async fn export(
        &self,
        folder: &Folder,
        segments: &[Segment],
        content: Content,
        staged: Staged,
        moved: impl Fn(u64, u64) + Send + 'static,
    ) -> Result<Written, Move> {
        // One segment as it is, to a bucket of the same store: nothing needs to come here.
        if let ([segment], Content::Stored) = (segments, content) {
            self.pieces(folder, segment, PIECE_BYTES).await?;
            if staged.copied(self, folder, &segment.file, segment.stored_bytes).await.map_err(Move::Bucket)? {
                moved(segment.stored_bytes, segment.stored_bytes);
                return Ok(Written { bytes: segment.stored_bytes, sha256: segment.sha256.clone() });
            }
        }
        let (pieces_out, pieces_in) = mpsc::channel(PIECES);
        let (result, written) = oneshot::channel();
        let expected = segments.to_vec();
        let identity = self.encryption.identity.clone();
        // Its own thread and not the pool of the runtime: it lives as long as the transfer.
        std::thread::Builder::new()
            .name("export".to_owned())
            .spawn(move || drop(result.send(write(&expected, content, identity.as_ref(), staged, pieces_in, &moved))))
            .map_err(|_| Move::Storage(Error::unavailable("no thread could be started")))?;
        let reading = async {
            for segment in segments {
                let mut pieces = self.pieces(folder, segment, PIECE_BYTES).await?;
                while let Some(piece) = pieces.next().await? {
                    match timeout(PART_TIMEOUT, pieces_out.send(piece)).await {
                        Ok(Ok(())) => hang_point("export.moving").await,
                        // The writer has failed, and says why itself.
                        Ok(Err(_)) => return Ok(()),
                        Err(_) => return Err(Move::Bucket(Error::Stalled)),
                    }
                }
            }
            Ok(())
        };
        let read = reading.await;
        // The writer takes this for the end.
        drop(pieces_out);
        match read {
            Err(fault) => Err(fault),
            Ok(()) => match timeout(SEAL_TIMEOUT, written).await {
                Ok(Ok(written)) => written,
                Ok(Err(_)) => Err(Move::Bucket(Error::unavailable("the writer ended unexpectedly"))),
                Err(_) => Err(Move::Bucket(Error::unavailable(format!("no answer within {} s", SEAL_TIMEOUT.as_secs())))),
            },
        }
    }
}

/// Why nothing was moved to a bucket.
#[derive(Debug)]
pub enum Move {
    /// By a fault of what was read.
    Storage(Error),
    /// By a fault of where it was to go.
    Bucket(Error),
}

impl From<Error> for Move {
    fn from(fault: Error) -> Self {
        Self::Storage(fault)
    }
}

/// Writes the pieces of all segments, in order, each held against its digest at its end.
fn write(
    segments: &[Segment],
    content: Content,
    identity: Option<&Identity>,
    staged: Staged,
    mut pieces: mpsc::Receiver<Bytes>,
    moved: &dyn Fn(u64, u64),
) -> Result<Written, Move> {
    let (coding, most_bytes) = match content {
        Content::Stored => (Coding::Stored, segments.iter().map(|segment| segment.stored_bytes).sum()),
        Content::Plain(bytes) => (Coding::Plain, bytes),
        Content::Zstd(bytes) => (Coding::Zstd, bytes),
    };
    let mut sink = Sink { staged, context: digest::Context::new(&digest::SHA256), bytes: 0, most_bytes, fault: None };
    for segment in segments {
        let mut stored = Stored::new(&mut pieces, segment.stored_bytes, moved);
        let decoded = decode(&mut stored, segment, coding, identity, &mut sink, moved);
        if stored.ended_early {
            return Err(Move::Storage(Error::unavailable("the reading ended early")));
        }
        if let Some(fault) = sink.fault.take() {
            return Err(fault);
        }
        decoded.map_err(|fault| Move::Storage(undecodable(segment, &fault)))?;
        stored.finish(segment)?;
    }
    if sink.bytes != most_bytes {
        let name = segments.last().map(|segment| segment.file.clone()).unwrap_or_default();
        return Err(Move::Storage(Error::Corrupt { name, what: format!("the dump ends after {} of {most_bytes} bytes", sink.bytes) }));
    }
    sink.staged.finish().map_err(Move::Bucket)?;
    Ok(Written { bytes: sink.bytes, sha256: hex(sink.context.finish().as_ref()) })
}

/// Writes to the bucket, digests what it writes, and takes no more than there is to come.
struct Sink {
    staged: Staged,
    context: digest::Context,
    bytes: u64,
    most_bytes: u64,
    /// Why it took nothing more, apart from what went on before it.
    fault: Option<Move>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes + bytes.len() as u64 > self.most_bytes {
            let what = format!("the dump has more than {} bytes", self.most_bytes);
            self.fault = Some(Move::Storage(Error::Corrupt { name: "a segment".to_owned(), what }));
            return Err(io::ErrorKind::InvalidData.into());
        }
        match self.staged.write(bytes) {
            Ok(count) => {
                self.context.update(&bytes[..count]);
                self.bytes += count as u64;
                Ok(count)
            }
            Err(fault) if fault.kind() == io::ErrorKind::Interrupted => Err(fault),
            Err(fault) => {
                let kind = fault.kind();
                self.fault = Some(Move::Bucket(self.staged.fault().unwrap_or_else(|| Error::from_io(fault))));
                Err(kind.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Compression, Options, SEGMENT_BYTES, bucket};
    use super::*;
    use crate::backup::BackupId;
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// A storage with a bucket, and a folder with a dump in segments.
    struct Room {
        around: tempfile::TempDir,
        storage: Storage,
        folder: Folder,
        dump: Vec<u8>,
        segments: Vec<Segment>,
    }

    impl Room {
        /// A dump of which each segment holds so many bytes, compressed in frames of 100,000.
        async fn new(segment_lengths: &[usize], compressed: bool) -> Self {
            let around = tempfile::tempdir().unwrap();
            let options = Options {
                root: around.path().join("artifacts").into(),
                folders: BTreeMap::new(),
                compression: Compression::None,
                segment_bytes: SEGMENT_BYTES,
            };
            let bucket = bucket::Options { name: "reports".parse().unwrap(), root: around.path().join("exports").into(), folders: Vec::new() };
            let storage = Storage::open(options).unwrap().with_buckets(vec![bucket]).unwrap();
            let folder = Folder::of_backup(&"default".parse().unwrap(), &"main".parse().unwrap(), BackupId::new());
            let length: usize = segment_lengths.iter().sum();
            let dump: Vec<u8> = (0..u32::try_from(length).unwrap()).map(|index| (index / 7 % 251) as u8).collect();
            let mut room = Self { around, storage, folder, dump: dump.clone(), segments: Vec::new() };
            let mut rest = dump.as_slice();
            for (index, length) in segment_lengths.iter().enumerate() {
                let (plain, later) = rest.split_at(*length);
                rest = later;
                let stored = if compressed { plain.chunks(100_000).flat_map(|run| zstd::bulk::compress(run, 1).unwrap()).collect() } else { plain.to_vec() };
                let file = format!("shard1-{index}.rdb");
                room.put(&file, &stored);
                let sha256 = hex(digest::digest(&digest::SHA256, &stored).as_ref());
                room.segments.push(Segment { file, stored_bytes: stored.len() as u64, sha256 });
            }
            room
        }

        fn path(&self, file: &str) -> std::path::PathBuf {
            self.around.path().join("artifacts").join(self.folder.as_str()).join(file)
        }

        fn put(&self, file: &str, bytes: &[u8]) {
            std::fs::create_dir_all(self.path("")).unwrap();
            std::fs::write(self.path(file), bytes).unwrap();
        }

        fn flip(&self, file: &str, at: usize) {
            let mut bytes = std::fs::read(self.path(file)).unwrap();
            bytes[at] ^= 1;
            self.put(file, &bytes);
        }

        /// Exports to the staging of this name; gives what was written with the bytes, and what was told of read and written.
        async fn export(&self, staging: &str, content: Content) -> Result<(Written, Vec<u8>, (u64, u64)), Move> {
            let staged = self.storage.bucket("reports").unwrap().stage(staging, 0).await.unwrap();
            let told = Arc::new((AtomicU64::new(0), AtomicU64::new(0)));
            let counted = Arc::clone(&told);
            let moved = move |read, written| {
                counted.0.fetch_add(read, Ordering::Relaxed);
                counted.1.fetch_add(written, Ordering::Relaxed);
            };
            let written = self.storage.export(&self.folder, &self.segments, content, staged, moved).await?;
            let bytes = std::fs::read(self.around.path().join("exports/.redkeep").join(staging).join("0")).unwrap();
            Ok((written, bytes, (told.0.load(Ordering::Relaxed), told.1.load(Ordering::Relaxed))))
        }
    }

    const LENGTHS: [usize; 3] = [3_000_000, 1, 2_345_678];

    #[tokio::test]
    async fn segments_come_out_as_one_dump() {
        for compressed in [false, true] {
            let room = Room::new(&LENGTHS, compressed).await;
            let length = room.dump.len() as u64;
            let stored_length: u64 = room.segments.iter().map(|segment| segment.stored_bytes).sum();
            let decoded = if compressed { Content::Zstd(length) } else { Content::Plain(length) };
            let (written, bytes, told) = room.export("a", decoded).await.unwrap();
            assert!(bytes == room.dump, "{compressed}");
            assert_eq!(written, Written { bytes: length, sha256: hex(digest::digest(&digest::SHA256, &room.dump).as_ref()) });
            assert_eq!(told, (stored_length, length));
            let (_, bytes, _) = room.export("b", Content::Stored).await.unwrap();
            let stored: Vec<u8> = room.segments.iter().flat_map(|segment| std::fs::read(room.path(&segment.file)).unwrap()).collect();
            assert!(bytes == stored, "{compressed}");
        }
    }

    #[tokio::test]
    async fn damage_is_found_wherever_it_is() {
        let room = Room::new(&LENGTHS, true).await;
        let length = room.dump.len() as u64;
        let to = Folder::of_backup(&"default".parse().unwrap(), &"main".parse().unwrap(), BackupId::new());
        let file = room.segments[2].file.clone();
        let size = std::fs::metadata(room.path(&file)).unwrap().len() as usize;
        for (number, at) in [0, 5, size / 2, size - 1].into_iter().enumerate() {
            room.flip(&file, at);
            for (kind, content) in [("z", Content::Zstd(length)), ("s", Content::Stored)] {
                let refused = room.export(&format!("{kind}{number}"), content).await;
                assert!(matches!(&refused, Err(Move::Storage(Error::Corrupt { name, .. })) if *name == file), "byte {at}: {refused:?}");
            }
            let refused = room.storage.copy_segment(&room.folder, &to, &room.segments[2], |_| {}).await;
            assert!(matches!(&refused, Err(Error::Corrupt { name, .. }) if *name == file), "byte {at}: {refused:?}");
            assert!(matches!(room.storage.length(&to, &file).await, Err(Error::Missing(_))));
            room.flip(&file, at);
        }
        // A length that differs, either way, and nothing at all.
        let whole = std::fs::read(room.path(&file)).unwrap();
        for bytes in [&whole[..whole.len() - 1], &[&whole[..], b"x"].concat()] {
            room.put(&file, bytes);
            let refused = room.storage.copy_segment(&room.folder, &to, &room.segments[2], |_| {}).await;
            assert!(matches!(&refused, Err(Error::Corrupt { what, .. }) if what.contains("instead of")), "{refused:?}");
        }
        std::fs::remove_file(room.path(&file)).unwrap();
        assert!(matches!(room.export("gone", Content::Zstd(length)).await, Err(Move::Storage(Error::Missing(_)))));
        assert!(matches!(room.storage.copy_segment(&room.folder, &to, &room.segments[2], |_| {}).await, Err(Error::Missing(_))));
    }

    /// Goal: what decodes to another length than the manifest tells is refused, and no more than that is ever written.
    #[tokio::test]
    async fn a_dump_has_the_length_of_its_manifest() {
        let room = Room::new(&[50_000_000], true).await;
        let length = room.dump.len() as u64;
        for wrong in [0, 1000, length - 1, length + 1] {
            let refused = room.export(&format!("w{wrong}"), Content::Zstd(wrong)).await;
            assert!(matches!(&refused, Err(Move::Storage(Error::Corrupt { .. }))), "{wrong}: {refused:?}");
            let staged = room.around.path().join(format!("exports/.redkeep/w{wrong}/0"));
            assert!(std::fs::metadata(staged).unwrap().len() <= wrong.min(length));
        }
    }

    #[tokio::test]
    async fn a_copy_has_the_bytes_and_a_file_of_its_own() {
        use std::os::unix::fs::MetadataExt;
        let room = Room::new(&[20_000_000], false).await;
        let to = Folder::of_backup(&"default".parse().unwrap(), &"main".parse().unwrap(), BackupId::new()).attempt(1);
        let moved = AtomicU64::new(0);
        let count = |bytes| {
            moved.fetch_add(bytes, Ordering::Relaxed);
        };
        room.storage.copy_segment(&room.folder, &to, &room.segments[0], count).await.unwrap();
        let copy = room.around.path().join("artifacts").join(to.as_str()).join(&room.segments[0].file);
        assert!(std::fs::read(&copy).unwrap() == room.dump);
        assert_eq!((moved.load(Ordering::Relaxed), std::fs::metadata(&copy).unwrap().nlink()), (20_000_000, 1));
    }
}
