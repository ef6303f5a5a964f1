//! One shard from an object of a bucket to an artifact: the pipeline of a snapshot, fed from storage.
//!
//! ```text
//! ranges of the object -> zstd? -> framing -> walk -> compression -> SHA-256 -> parts -> storage
//! ```
//!
//! An object is plain or under zstd, which its first bytes tell, never its name. What is decoded ends with a mark of our own, so
//! that it passes the framing of a diskless transfer: the dump must come to its own end exactly there.

use super::{Ended, Meter, PARTS, PIECE_BYTES, PIECES, encode, kept_part, store};
use crate::artifacts::bucket::{Bucket, Key, READ_BYTES, Seen};
use crate::artifacts::manifest::ShardManifest;
use crate::artifacts::{self, Folder, Storage};
use crate::backup::{Impact, Level};
use crate::cluster::{Role, Timestamp};
use crate::rdb::{self, Dialect};
use crate::redis::replication::{Framing, MARK_BYTES};
use crate::telemetry::hang_point;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use rand::Rng;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use zstd::stream::raw::{DParameter, Decoder, Operation};

/// Ranges that may wait between bucket and decoder.
const RANGES: usize = 2;

/// How far back a compressed dump may look, as a power of two: what decoding may take of memory. Level 19 of the zstd tool looks
/// back that far; `--long` and `--ultra` look further.
const WINDOW_LOG: u32 = 23;

/// Length of what is decoded at once, in bytes.
const DECODED_BYTES: usize = 128 * 1024;

/// First bytes of a frame of zstd, and of one that decoders skip, of which the first may be any from 0x50 to 0x5f.
const FRAME: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const SKIPPED_FRAME: [u8; 3] = [0x2a, 0x4d, 0x18];

/// Digits of a mark.
const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// One object to make a shard of.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The shard's name; the name of its files begins with it.
    pub shard_name: String,
    /// The bucket.
    pub bucket: &'a Bucket,
    /// Where the object lies in it.
    pub key: &'a Key,
    /// The object, as it was found.
    pub seen: &'a Seen,
    /// The folder of the attempt.
    pub folder: &'a Folder,
}

impl Request<'_> {
    /// Where the dump comes from, in the place of a host.
    pub fn origin(&self) -> String {
        format!("import:{}/{}", self.bucket.name(), self.key)
    }
}

/// What went wrong with an import.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object cannot be read, or is another than was seen.
    #[error(transparent)]
    Bucket(artifacts::Error),
    /// It begins like zstd and is none, or needs more memory than is given to it.
    #[error("it cannot be decompressed: {0}")]
    Undecodable(String),
    /// As with any snapshot: the dump, the storage, or the wish to stop.
    #[error(transparent)]
    Snapshot(#[from] super::Error),
}

/// Reads, checks and stores one dump. All of it is durable on return; it is not published.
///
/// # Errors
///
/// [`Error`], by condition. What was stored is left to the collector.
pub async fn take(request: &Request<'_>, storage: &Storage, meter: &Arc<Meter>, stop: &CancellationToken) -> Result<ShardManifest, Error> {
    let started_at = Utc::now();
    let (ranges, ranges_in) = mpsc::channel::<Bytes>(RANGES);
    let (pieces, pieces_in) = mpsc::channel::<Vec<u8>>(PIECES);
    let (spare, spare_in) = mpsc::channel::<Vec<u8>>(PIECES + 2);
    let (parts, parts_in) = mpsc::channel::<encode::Output>(PARTS);
    let (spare_parts, spare_parts_in) = mpsc::channel::<Vec<u8>>(PARTS);
    for _ in 0..PARTS {
        let _ = spare_parts.try_send(kept_part());
    }
    let mark = made_up_mark();
    let unpacker = Unpacker { out: pieces, spare: spare_in, piece: Vec::new() };
    let (length, decoder_meter) = (request.seen.bytes, Arc::clone(meter));
    let decoded = on_thread("import", move || unpacker.run(ranges_in, length, &mark, &decoder_meter))?;
    let options = encode::Options {
        compression: storage.compression(),
        encryption: storage.encryption().clone(),
        segment_bytes: storage.segment_bytes(),
        walk: rdb::Options::default(),
    };
    let encoder_meter = Arc::clone(meter);
    let summary = on_thread("snapshot", move || {
        let ends = encode::Ends { pieces: pieces_in, spare_pieces: spare, parts, spare_parts: spare_parts_in };
        encode::run(&Framing::Mark(mark), &options, ends, &encoder_meter, &Ended::default())
    })?;

    let work =
        async { tokio::join!(read(request, ranges), decoded, store(&request.shard_name, request.folder, storage, parts_in, spare_parts, meter), summary) };
    let (read, decoded, stored, summary) = tokio::select! {
        done = work => done,
        () = stop.cancelled() => return Err(super::Error::Stopped.into()),
    };
    // The first stage at fault is the one that counts: those behind it see no more than an early end.
    read?;
    decoded.unwrap_or(Err(super::Error::Stage("the decoder").into()))?;
    let segments = stored?;
    let walk = summary.unwrap_or(Err(super::Error::Stage("the encoder")))?;
    Ok(manifest(request, segments, walk, started_at))
}

/// Runs a stage on a thread of its own and not the pool of the runtime: it lives as long as the import.
fn on_thread<T: Send + 'static>(name: &str, stage: impl FnOnce() -> T + Send + 'static) -> Result<oneshot::Receiver<T>, Error> {
    let (result, ended) = oneshot::channel();
    let begun = std::thread::Builder::new().name(name.to_owned()).spawn(move || drop(result.send(stage())));
    begun.map(|_| ended).map_err(|_| super::Error::Stage("no thread could be started").into())
}

/// Reads the object from its beginning to its end.
async fn read(request: &Request<'_>, ranges: mpsc::Sender<Bytes>) -> Result<(), Error> {
    let mut from = 0;
    while from < request.seen.bytes {
        let range = request.bucket.read_range(request.key, request.seen, from).await.map_err(Error::Bucket)?;
        if range.is_empty() || range.len() > READ_BYTES {
            return Err(super::Error::Stage("the reading").into());
        }
        from += range.len() as u64;
        // A closed channel means that a later stage has failed and says so itself.
        if ranges.send(range).await.is_err() {
            return Ok(());
        }
        hang_point("import.moving").await;
    }
    Ok(())
}

/// A mark that no dump can hold on purpose.
fn made_up_mark() -> [u8; MARK_BYTES] {
    let mut random = rand::rng();
    std::array::from_fn(|_| DIGITS[random.random_range(0..DIGITS.len())])
}

/// Whether these are the last bytes of a file to which the end mark of a diskless transfer was written, too: some tools that
/// capture a stream leave it there. A dump ends with a byte that is no digit, or with such a byte and a checksum.
fn is_stray_mark(bytes: &[u8]) -> bool {
    bytes.len() == MARK_BYTES && bytes.iter().all(|byte| DIGITS.contains(byte))
}

/// Makes pieces of the dump out of ranges of the object.
struct Unpacker {
    out: mpsc::Sender<Vec<u8>>,
    spare: mpsc::Receiver<Vec<u8>>,
    /// What was not handed on: as much as a mark at least, once there is so much.
    piece: Vec<u8>,
}

/// The next stage has gone away; it says why itself.
struct Gone;

impl Unpacker {
    fn run(mut self, mut ranges: mpsc::Receiver<Bytes>, length: u64, mark: &[u8; MARK_BYTES], meter: &Meter) -> Result<(), Error> {
        let mut decoder = None;
        let mut seen = 0;
        while let Some(range) = ranges.blocking_recv() {
            if seen == 0 {
                if is_zstd(&range) {
                    decoder = Some(Frames::new()?);
                } else {
                    meter.expect_bytes(length);
                }
            }
            seen += range.len() as u64;
            let handed = match &mut decoder {
                Some(frames) => frames.decode(&range, &mut |bytes| self.hand(bytes))?,
                None => self.hand(&range),
            };
            if let Err(Gone) = handed {
                return Ok(());
            }
        }
        // Less than there is: the reader has failed, and the dump must not pass for a whole one.
        if seen < length {
            return Ok(());
        }
        if decoder.is_some_and(|frames| frames.open) {
            return Err(Error::Undecodable("it ends in the middle of a frame".to_owned()));
        }
        let kept = self.piece.len().saturating_sub(MARK_BYTES);
        if is_stray_mark(&self.piece[kept..]) {
            self.piece.truncate(kept);
        }
        self.piece.extend_from_slice(mark);
        let _ = self.out.blocking_send(self.piece);
        Ok(())
    }

    fn hand(&mut self, mut bytes: &[u8]) -> Result<(), Gone> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PIECE_BYTES + MARK_BYTES - self.piece.len()));
            self.piece.extend_from_slice(now);
            bytes = later;
            if self.piece.len() == PIECE_BYTES + MARK_BYTES {
                let mut next = self.spare.try_recv().unwrap_or_default();
                next.clear();
                next.reserve_exact(PIECE_BYTES + MARK_BYTES);
                next.extend_from_slice(&self.piece[PIECE_BYTES..]);
                self.piece.truncate(PIECE_BYTES);
                self.out.blocking_send(std::mem::replace(&mut self.piece, next)).map_err(|_| Gone)?;
            }
        }
        Ok(())
    }
}

fn is_zstd(first: &[u8]) -> bool {
    first.starts_with(&FRAME) || matches!(first, [0x50..=0x5f, rest @ ..] if rest.starts_with(&SKIPPED_FRAME))
}

/// Frames of zstd in a row.
struct Frames {
    decoder: Decoder<'static>,
    buffer: Vec<u8>,
    /// A frame has begun and not ended.
    open: bool,
}

impl Frames {
    fn new() -> Result<Self, Error> {
        let made = Decoder::new().and_then(|mut decoder| decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG)).map(|()| decoder));
        let decoder = made.map_err(|_| super::Error::Stage("the decoder"))?;
        Ok(Self { decoder, buffer: vec![0; DECODED_BYTES], open: false })
    }

    /// Decodes a range, and hands on what comes out of it a bounded piece at a time, however much that is.
    fn decode(&mut self, mut range: &[u8], hand: &mut impl FnMut(&[u8]) -> Result<(), Gone>) -> Result<Result<(), Gone>, Error> {
        let undecodable = |fault: std::io::Error| Error::Undecodable(fault.to_string());
        loop {
            if !self.open && !range.is_empty() {
                self.decoder.reinit().map_err(undecodable)?;
            }
            let status = self.decoder.run_on_buffers(range, &mut self.buffer).map_err(undecodable)?;
            range = &range[status.bytes_read..];
            self.open = status.remaining != 0;
            if let Err(Gone) = hand(&self.buffer[..status.bytes_written]) {
                return Ok(Err(Gone));
            }
            // A full buffer may mean that more waits inside.
            if range.is_empty() && (!self.open || status.bytes_written < self.buffer.len()) {
                return Ok(Ok(()));
            }
        }
    }
}

fn manifest(request: &Request<'_>, segments: Vec<artifacts::manifest::Segment>, walk: rdb::Summary, started_at: Timestamp) -> ShardManifest {
    let level = match (&walk.opaque, walk.counts_match) {
        (None, Some(true) | None) => Level::Walked,
        (None, Some(false)) | (Some(_), _) => Level::Sealed,
    };
    let aux = walk.aux.clone();
    let (engine, engine_version) = match (aux.valkey_ver, aux.redis_ver) {
        (Some(version), _) => ("valkey", version),
        (None, Some(version)) if walk.dialect == Dialect::Redis => ("redis", version),
        (None, _) => (if walk.dialect == Dialect::Valkey { "valkey" } else { "redis" }, String::new()),
    };
    // What the dump says of itself is believed as far as it can be true; else the object's own time stands for it.
    let now = Utc::now();
    let told = aux.ctime.and_then(|secs| secs.parse().ok()).and_then(|secs| DateTime::from_timestamp(secs, 0));
    let snapshot_at = [told, request.seen.modified_at].into_iter().flatten().find(|at| *at > Timestamp::UNIX_EPOCH && *at <= now).unwrap_or(started_at);
    let replication_id = aux.repl_id.filter(|id| id.len() == 40 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).unwrap_or_default();
    ShardManifest {
        name: request.shard_name.clone(),
        segments,
        size_bytes: walk.bytes,
        level,
        source_host: request.origin(),
        source_role: Role::Unknown,
        engine: engine.to_owned(),
        engine_version,
        run_id: String::new(),
        replication_offset: if replication_id.is_empty() { 0 } else { aux.repl_offset.and_then(|offset| offset.parse().ok()).unwrap_or(0) },
        replication_id,
        rdb_only: false,
        used_memory_bytes: aux.used_mem.and_then(|bytes| bytes.parse().ok()).unwrap_or(0),
        fork_micros: None,
        copy_on_write_bytes: None,
        snapshot_started_at: snapshot_at,
        snapshot_at,
        upload_started_at: started_at,
        upload_ended_at: now,
        walk,
        replication_id2: String::new(),
        source_keys: 0,
        slots: Vec::new(),
        moves: Vec::new(),
        impact: Impact::default(),
        side: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// What comes out of the object `bytes`, read in ranges of `range` bytes: the dump with the mark behind it.
    fn unpack(bytes: &[u8], range: usize, mark: &[u8; MARK_BYTES]) -> Result<Vec<u8>, Error> {
        let (ranges, ranges_in) = mpsc::channel(1);
        let (out, mut pieces) = mpsc::channel::<Vec<u8>>(1);
        let (_spare, spare) = mpsc::channel(1);
        let (object, mark) = (bytes.to_vec(), *mark);
        let length = object.len() as u64;
        let reading = std::thread::spawn(move || object.chunks(range).all(|range| ranges.blocking_send(Bytes::copy_from_slice(range)).is_ok()));
        let unpacking = std::thread::spawn(move || Unpacker { out, spare, piece: Vec::new() }.run(ranges_in, length, &mark, &Meter::default()));
        let mut dump = Vec::new();
        while let Some(piece) = pieces.blocking_recv() {
            assert!(piece.len() <= PIECE_BYTES + 2 * MARK_BYTES);
            dump.extend_from_slice(&piece);
        }
        unpacking.join().unwrap()?;
        assert!(reading.join().unwrap());
        Ok(dump)
    }

    #[test]
    fn an_object_is_unpacked_by_what_it_is() {
        let mark = made_up_mark();
        let dump: Vec<u8> = (0..1_000_000_u32).flat_map(|number| (number / 7).to_le_bytes()).collect();
        let packed = zstd::encode_all(&*dump, 1).unwrap();
        let mut frames = zstd::encode_all(&dump[..10], 3).unwrap();
        frames.extend_from_slice(&[0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
        frames.extend(zstd::encode_all(&dump[10..], 3).unwrap());
        let expected = [&dump[..], &mark[..]].concat();
        for range in [997, READ_BYTES] {
            for object in [&dump, &packed, &frames] {
                assert!(unpack(object, range, &mark).unwrap() == expected, "{} bytes in ranges of {range}", object.len());
            }
        }
        for cut in [5, 100, packed.len() - 1] {
            assert!(matches!(unpack(&packed[..cut], READ_BYTES, &mark), Err(Error::Undecodable(_))), "{cut}");
        }
        let mut damaged = packed;
        damaged.extend_from_slice(b"junk");
        assert!(matches!(unpack(&damaged, READ_BYTES, &mark), Err(Error::Undecodable(_))));
    }

    #[test]
    fn the_stray_mark_of_a_captured_stream_is_left_out() {
        let (mark, dump) = (made_up_mark(), [b"REDIS0010\xffstuvwxyz".as_slice(), &[b'a'; 39]].concat());
        // 39 digits are none, 40 are one.
        assert_eq!(unpack(&dump, 10, &mark).unwrap(), [&dump[..], &mark].concat());
        let stray = [&b"REDIS0010\xffstuvwxyz"[..], &made_up_mark()].concat();
        assert_eq!(unpack(&stray, 10, &mark).unwrap(), [&b"REDIS0010\xffstuvwxyz"[..], &mark].concat());
        assert_eq!(unpack(b"", 10, &mark).unwrap(), mark);
    }

    #[test]
    fn little_that_decodes_to_much_is_handed_on_in_pieces() {
        // Goal: neither a bomb nor a wide window takes memory. Method: 256 MiB of zeros, and a frame that looks back 128 MiB.
        let mark = made_up_mark();
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        for _ in 0..256 {
            encoder.write_all(&vec![0; 1 << 20]).unwrap();
        }
        let bomb = encoder.finish().unwrap();
        assert!(bomb.len() < 100_000);
        let mut frames = Frames::new().unwrap();
        let (mut most, mut total) = (0, 0);
        let decoded = frames.decode(&bomb, &mut |bytes| {
            most = most.max(bytes.len());
            total += bytes.len();
            Ok(())
        });
        assert!(matches!(decoded, Ok(Ok(()))));
        assert_eq!((most <= DECODED_BYTES, total, frames.open), (true, 256 << 20, false));

        let mut wide = zstd::Encoder::new(Vec::new(), 1).unwrap();
        wide.window_log(27).unwrap();
        wide.long_distance_matching(true).unwrap();
        wide.write_all(&vec![1; 20 << 20]).unwrap();
        let refused = unpack(&wide.finish().unwrap(), READ_BYTES, &mark);
        assert!(matches!(&refused, Err(Error::Undecodable(what)) if what.contains("memory")), "{refused:?}");
    }
}
