//! One shard from socket to artifact: `socket -> framing -> walk -> compression -> encryption -> SHA-256 -> parts
//! -> storage`.
//!
//! Each stage is bounded and nothing is staged on disk, so memory is flat whatever the size of the dump. The stages that
//! cost CPU run on a thread of their own; if storage cannot keep up, the socket waits, and after a while the attempt fails
//! rather than keep the source's save alive.
//!
//! Knows nothing of operations: what a failure means for the next attempt is the executor's business.

mod encode;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod import;
mod pace;
mod payload;
mod waits;

pub use pace::Pace;
pub use waits::Waits;

use crate::artifacts::manifest::{Segment, ShardManifest};
use crate::artifacts::{self, Folder, Storage, Upload};
use crate::backup::{Impact, Level, SlotRange};
use crate::cluster::Timestamp;
use crate::rdb;
use crate::redis::facts::Facts;
use crate::redis::replication::{self, Dialect, OutputBuffer, Transfer};
use crate::redis::{self, Target};
use crate::store::SketchKey;
use chrono::Utc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// Length of a piece read from the socket, in bytes.
const PIECE_BYTES: usize = 512 * 1024;
/// Pieces that may wait between the socket and the walk.
const PIECES: usize = 3;
/// Parts in memory: one is filled while the other is stored.
const PARTS: usize = 2;
/// Parts whose memory is kept between snapshots. Freed, it would stay with the allocator all the same, and the next snapshot
/// would be given other memory beside it.
const PARTS_KEPT: usize = PARTS;
/// Time for short reads to become long ones: a source sends in small pieces, and each that is taken alone costs a wake-up. The
/// system's own buffer of the socket grows to several megabytes meanwhile, so that the source does not wait.
const GATHER: Duration = Duration::from_millis(2);
/// Most times that a piece is waited for to grow.
const GATHERS: u32 = 5;
/// Longest wait for an opaque payload's connection to close after its mark.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Nice value of the threads that walk, compress, encrypt and digest. Where a server shares the machine, it answers its clients and
/// saves first; what it has sent waits in buffers for as long.
const NICE: i32 = 10;

/// Lowers the priority of the calling thread alone to [`NICE`], if it is not lower. Best effort: the work is the same at any.
fn give_way() {
    let thread = Some(rustix::thread::gettid());
    if rustix::process::getpriority_process(thread).is_ok_and(|nice| nice < NICE) {
        let _ = rustix::process::setpriority_process(thread, NICE);
    }
}

/// Memory of parts that waits for the next snapshot.
static KEPT: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Memory for a part: kept, or none yet.
fn kept_part() -> Vec<u8> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
}

/// Keeps the memory of a part for the next snapshot, up to [`PARTS_KEPT`] of them; what is more is freed.
fn keep_part(part: Vec<u8>) {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.len() < PARTS_KEPT && part.capacity() > 0 {
        kept.push(part);
    }
}

/// What went wrong with a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source refused, or was lost, before it was asked to fork.
    #[error(transparent)]
    Refused(redis::Error),
    /// The source failed; it may have forked.
    #[error(transparent)]
    Source(#[from] redis::Error),
    /// The payload ended before the dump.
    #[error("the connection closed after {got} bytes{}", .of.map(|of| format!(" of {of}")).unwrap_or_default())]
    Cut {
        /// Bytes that came.
        got: u64,
        /// Bytes that were promised, where that was told.
        of: Option<u64>,
    },
    /// The dump does not hold together.
    #[error("the snapshot does not hold together: {0}")]
    Corrupt(rdb::Error),
    /// Storage failed.
    #[error(transparent)]
    Storage(#[from] artifacts::Error),
    /// It was told to stop.
    #[error("the snapshot was stopped")]
    Stopped,
    /// A stage ended without a word: a fault of ours.
    #[error("a stage of the pipeline ended unexpectedly: {0}")]
    Stage(&'static str),
}

/// How far a snapshot, or the transfer of a stored one, is; read from outside while it runs.
#[derive(Debug, Default)]
pub struct Meter {
    bytes: AtomicU64,
    stored_bytes: AtomicU64,
    keys: AtomicU64,
    bytes_expected: AtomicU64,
    waits: Mutex<Waits>,
    asked: AtomicBool,
    ended: AtomicBool,
}

impl Meter {
    /// Bytes of the dump read.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes handed to storage.
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes.load(Ordering::Relaxed)
    }

    /// Keys walked.
    pub fn keys(&self) -> u64 {
        self.keys.load(Ordering::Relaxed)
    }

    /// Length of the dump where the source tells it; zero otherwise.
    pub fn bytes_expected(&self) -> u64 {
        self.bytes_expected.load(Ordering::Relaxed)
    }

    /// What the snapshot waits for; empty while it moves.
    pub fn waiting_for(&self) -> String {
        self.lock_waits().now().unwrap_or_default().to_owned()
    }

    /// Each thing that was waited for, with its time.
    pub fn waits(&self) -> Vec<(String, Duration)> {
        self.lock_waits().all()
    }

    /// Tells what is waited for; empty when it moves again.
    pub fn wait_for(&self, what: &str) {
        self.lock_waits().wait_for(what);
    }

    fn lock_waits(&self) -> MutexGuard<'_, Waits> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells how long the dump is.
    pub fn expect_bytes(&self, bytes: u64) {
        self.bytes_expected.store(bytes, Ordering::Relaxed);
    }

    /// Counts bytes read and bytes stored.
    pub fn count(&self, bytes: u64, stored_bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.stored_bytes.fetch_add(stored_bytes, Ordering::Relaxed);
    }

    /// Tells how many keys there were so far.
    pub fn tell_keys(&self, keys: u64) {
        self.keys.store(keys, Ordering::Relaxed);
    }

    /// Whether the source was asked for a snapshot, so that it may have forked.
    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Whether the snapshot has ended, well or not.
    pub fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Tells that the snapshot has ended.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// One shard to take, and where to.
#[derive(Clone, Debug)]
pub struct Request {
    /// The shard's name; the name of its files begins with it.
    pub shard_name: String,
    /// The source.
    pub source: Target,
    /// What it said of itself.
    pub facts: Facts,
    /// The folder of the attempt.
    pub folder: Folder,
    /// Whether the source may keep an output buffer for us.
    pub output_buffer: OutputBuffer,
    /// Which dialect of the dump is asked for.
    pub dialect: Dialect,
    /// Key of the hashes by which the source is known again; a secret.
    pub sketch: SketchKey,
    /// Slots that the shard owns, outside of which keys are counted; empty outside of cluster mode.
    pub slots: Vec<SlotRange>,
    /// How fast the dump may be read; as fast as it goes when absent.
    pub pace: Option<Arc<Pace>>,
}

/// Takes a snapshot of one shard and stores it. All of it is durable on return; it is not published.
///
/// When `stop` is cancelled the connection is closed, which ends the save of a diskless source, and the upload is aborted.
///
/// # Errors
///
/// [`Error`], by condition. What was stored is left to the collector.
pub async fn take(request: &Request, storage: &Storage, meter: &Arc<Meter>, stop: &CancellationToken) -> Result<ShardManifest, Error> {
    meter.wait_for("the source to answer");
    let begin = async {
        let greeted = replication::greet(&request.source, &request.facts, request.output_buffer, request.dialect).await.map_err(Error::Refused)?;
        meter.asked.store(true, Ordering::Relaxed);
        let begun = greeted.begin(|what| meter.wait_for(what)).await;
        begun.map_err(|error| if error.is_refusal() { Error::Refused(error) } else { Error::Source(error) })
    };
    let mut transfer = tokio::select! {
        transfer = begin => transfer?,
        () = stop.cancelled() => return Err(Error::Stopped),
    };
    meter.wait_for("the first byte of the snapshot");
    if let replication::Framing::Length(total) = transfer.framing {
        meter.bytes_expected.store(total, Ordering::Relaxed);
    }

    let (pieces, pieces_in) = mpsc::channel::<Vec<u8>>(PIECES);
    let (spare, mut spare_in) = mpsc::channel::<Vec<u8>>(PIECES + 2);
    let (parts, parts_in) = mpsc::channel::<encode::Output>(PARTS);
    let (spare_parts, spare_parts_in) = mpsc::channel::<Vec<u8>>(PARTS);
    for _ in 0..PARTS {
        let _ = spare_parts.try_send(kept_part());
    }
    let framing = transfer.framing.clone();
    let slots = (!request.slots.is_empty()).then(|| rdb::SlotSet::from_ranges(request.slots.iter().map(|range| (range.first, range.last))));
    let walk = rdb::Options { slots, sketch: Some(request.sketch.0) };
    let options =
        encode::Options { compression: storage.compression(), encryption: storage.encryption().clone(), segment_bytes: storage.segment_bytes(), walk };
    let (encoder_meter, ended) = (Arc::clone(meter), Arc::new(Ended::default()));
    let encoder_ended = Arc::clone(&ended);
    // Its own thread and not the pool of the runtime: it lives as long as the transfer.
    let (result, summary) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("snapshot".to_owned())
        .spawn(move || {
            give_way();
            let ends = encode::Ends { pieces: pieces_in, spare_pieces: spare, parts, spare_parts: spare_parts_in };
            let _ = result.send(encode::run(&framing, &options, ends, &encoder_meter, &encoder_ended));
        })
        .map_err(|_| Error::Stage("no thread could be started"))?;

    let mut span = Span::default();
    let reading = read(&mut transfer, pieces, &mut spare_in, &ended, request.pace.as_deref(), meter, &mut span);
    let storing = store(&request.shard_name, &request.folder, storage, parts_in, spare_parts, meter);
    let work = async {
        // The reader stops when the encoder is content or has failed; the uploader when the encoder has dropped its end.
        let (read, stored, summary) = tokio::join!(reading, storing, summary);
        (read, stored, summary.unwrap_or(Err(Error::Stage("the encoder"))))
    };
    let (read, stored, summary) = tokio::select! {
        done = work => done,
        () = stop.cancelled() => return Err(Error::Stopped),
    };
    // The storage's fault stops the encoder, and that the reader; the source's fault comes before what the encoder makes of it.
    let segments = stored?;
    let summary = match (read, summary) {
        (_, Ok(summary)) => summary,
        (Err(fault), Err(Error::Cut { .. } | Error::Stage(_))) => return Err(fault),
        (_, Err(fault)) => return Err(fault),
    };
    let upload_ended_at = Utc::now();
    Ok(manifest(request, &transfer, segments, summary, &span, upload_ended_at))
}

fn manifest(request: &Request, transfer: &Transfer, segments: Vec<Segment>, walk: rdb::Summary, span: &Span, upload_ended_at: Timestamp) -> ShardManifest {
    let level = match (&walk.opaque, walk.counts_match) {
        (None, Some(true) | None) => Level::Walked,
        (None, Some(false)) | (Some(_), _) => Level::Sealed,
    };
    ShardManifest {
        name: request.shard_name.clone(),
        segments,
        size_bytes: walk.bytes,
        level,
        source_host: request.source.name.clone(),
        source_role: request.facts.role,
        engine: request.facts.engine.as_str().to_owned(),
        engine_version: request.facts.version.to_string(),
        run_id: request.facts.run_id.clone(),
        replication_id: transfer.replication_id.clone(),
        replication_offset: transfer.replication_offset,
        rdb_only: transfer.rdb_only,
        used_memory_bytes: request.facts.used_memory_bytes,
        fork_micros: None,
        copy_on_write_bytes: None,
        snapshot_started_at: transfer.asked_at,
        snapshot_at: transfer.began_at,
        upload_started_at: span.first_at.unwrap_or(upload_ended_at),
        upload_ended_at,
        replication_id2: request.facts.replication_id2.clone(),
        source_keys: request.facts.keys,
        slots: request.slots.clone(),
        moves: Vec::new(),
        impact: Impact { bytes_per_second: span.bytes_per_second(walk.bytes), ..Impact::default() },
        walk,
        side: None,
    }
}

/// When the dump came.
#[derive(Debug, Default)]
struct Span {
    first_at: Option<Timestamp>,
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Span {
    fn note(&mut self) {
        let now = Instant::now();
        if self.first.is_none() {
            (self.first, self.first_at) = (Some(now), Some(Utc::now()));
        }
        self.last = Some(now);
    }

    /// Bytes a second from the first to the last; all of them when they came at once.
    fn bytes_per_second(&self, bytes: u64) -> u64 {
        let seconds = self.first.zip(self.last).map_or(0.0, |(first, last)| (last - first).as_secs_f64());
        if seconds > 0.0 { (bytes as f64 / seconds) as u64 } else { bytes }
    }
}

/// Set by the encoder, read by the reader of the socket.
#[derive(Debug, Default)]
struct Ended {
    perhaps: AtomicBool,
}

/// Reads the payload, not faster than it may, and notes when its first and last bytes arrive.
async fn read(
    transfer: &mut Transfer,
    pieces: mpsc::Sender<Vec<u8>>,
    spare: &mut mpsc::Receiver<Vec<u8>>,
    ended: &Ended,
    pace: Option<&Pace>,
    meter: &Meter,
    span: &mut Span,
) -> Result<(), Error> {
    let mut perhaps_since = None;
    let piece_bytes = pace.map_or(PIECE_BYTES, |pace| pace.piece_bytes(PIECE_BYTES));
    loop {
        let mut piece = spare.try_recv().unwrap_or_default();
        if piece.capacity() < piece_bytes {
            piece = Vec::with_capacity(piece_bytes);
        }
        let next = transfer.read(&mut piece);
        let count = if ended.perhaps.load(Ordering::Acquire) {
            // Newlines do not prolong the wait: some servers send them until we close.
            let since = *perhaps_since.get_or_insert_with(Instant::now);
            match timeout_at(since + CLOSE_TIMEOUT, next).await {
                Ok(count) => count?,
                Err(_) => return Ok(()),
            }
        } else {
            perhaps_since = None;
            tokio::select! {
                count = next => count?,
                () = pieces.closed() => return Ok(()),
            }
        };
        if count == 0 {
            return Ok(());
        }
        if span.first.is_none() {
            meter.wait_for("");
        }
        span.note();
        if pace.is_none() {
            gather(transfer, &mut piece).await;
        }
        if piece.iter().any(|byte| *byte != b'\n') {
            // The mark before it was none; the encoder finds the next one.
            ended.perhaps.store(false, Ordering::Release);
        }
        // A closed channel means that the encoder has what it wants, or has failed and says so itself.
        let length = piece.len();
        if pieces.send(piece).await.is_err() {
            return Ok(());
        }
        if let Some(pace) = pace {
            pace.spend(length).await;
        }
    }
}

/// Lets a short piece grow while more comes: what is long is compressed where it lies.
async fn gather(transfer: &mut Transfer, piece: &mut Vec<u8>) {
    for _ in 0..GATHERS {
        if piece.len() >= PIECE_BYTES / 2 {
            return;
        }
        tokio::time::sleep(GATHER).await;
        if transfer.read_more(piece).await == 0 {
            return;
        }
    }
}

async fn store(
    shard_name: &str,
    folder: &Folder,
    storage: &Storage,
    mut parts: mpsc::Receiver<encode::Output>,
    spare: mpsc::Sender<Vec<u8>>,
    meter: &Meter,
) -> Result<Vec<Segment>, Error> {
    let mut segments = Vec::new();
    let mut open: Option<(String, OpenUpload)> = None;
    while let Some(output) = parts.recv().await {
        match output {
            encode::Output::Part(bytes) => {
                let count = bytes.len() as u64;
                let upload = match &mut open {
                    Some((_, upload)) => upload,
                    None => {
                        let file = file_name(shard_name, segments.len(), storage);
                        let upload = storage.upload(folder, &file).await?;
                        &mut open.insert((file, OpenUpload(Some(upload)))).1
                    }
                };
                // The channel has room for all of them; closed, the encoder has what it needs.
                if let Err(unwanted) = spare.try_send(upload.part(bytes).await?) {
                    keep_part(unwanted.into_inner());
                }
                meter.stored_bytes.fetch_add(count, Ordering::Relaxed);
            }
            encode::Output::SegmentEnd { stored_bytes, sha256 } => {
                let Some((file, mut upload)) = open.take() else {
                    return Err(Error::Stage("a segment without parts"));
                };
                upload.complete().await?;
                segments.push(Segment { file, stored_bytes, sha256 });
            }
        }
    }
    match open {
        // The encoder gave up in the middle; it says why.
        Some((_, mut upload)) => {
            upload.abort().await;
            Ok(Vec::new())
        }
        None => Ok(segments),
    }
}

fn file_name(shard: &str, segment: usize, storage: &Storage) -> String {
    let compression = match storage.compression() {
        artifacts::Compression::None => "",
        artifacts::Compression::Zstd(_) => ".zst",
    };
    format!("{shard}-{segment}.rdb{compression}{}", storage.encryption().suffix())
}

/// An upload that is aborted when it is dropped before its end: on a failure, and when the attempt is stopped.
struct OpenUpload(Option<Upload>);

impl OpenUpload {
    async fn part(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
        match &mut self.0 {
            Some(upload) => Ok(upload.part(bytes).await?),
            None => Err(Error::Stage("a part after the end")),
        }
    }

    async fn complete(&mut self) -> Result<(), Error> {
        match &mut self.0 {
            Some(upload) => upload.complete().await?,
            None => return Err(Error::Stage("an end after the end")),
        }
        self.0 = None;
        Ok(())
    }

    async fn abort(&mut self) {
        if let Some(upload) = self.0.take() {
            upload.abort().await;
        }
    }
}

impl Drop for OpenUpload {
    fn drop(&mut self) {
        if let (Some(upload), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(upload.abort());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_gives_way_and_no_other() {
        let nice = || rustix::process::getpriority_process(Some(rustix::thread::gettid())).unwrap();
        let before = nice();
        let given = std::thread::spawn(move || {
            give_way();
            nice()
        });
        assert_eq!(given.join().unwrap(), before.max(NICE));
        assert_eq!(nice(), before);
    }
}
