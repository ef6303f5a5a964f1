//! The stages that cost CPU, on one thread: framing and walk, compression, digest of what is stored, parts.

use super::payload::{Payload, Progress};
use super::{Ended, Error, Meter};
use crate::artifacts::{Compression, PART_BYTES};
use crate::rdb;
use crate::redis::replication::Framing;
use aws_lc_rs::digest;
use std::io::{self, Write};
use std::sync::atomic::Ordering;
use tokio::sync::mpsc;

/// What goes to storage.
pub(super) enum Output {
    /// The next part of the segment under way.
    Part(Vec<u8>),
    /// The segment has ended.
    SegmentEnd {
        /// Its length as stored.
        stored_bytes: u64,
        /// SHA-256 of what is stored, in hexadecimal.
        sha256: String,
    },
}

/// How to encode.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    pub(super) compression: Compression,
    pub(super) segment_bytes: u64,
}

/// Runs until the dump is complete, the pieces end, or something fails.
pub(super) fn run(
    framing: &Framing,
    options: &Options,
    mut pieces: mpsc::Receiver<Vec<u8>>,
    spare: &mpsc::Sender<Vec<u8>>,
    parts: &mpsc::Sender<Output>,
    meter: &Meter,
    ended: &Ended,
) -> Result<rdb::Summary, Error> {
    let mut payload = Payload::new(framing);
    let mut output = Encoder { options, parts, stage: None };
    while let Some(piece) = pieces.blocking_recv() {
        let progress = payload.push(&piece, &mut |bytes| output.write(bytes))?;
        meter.bytes.store(payload.bytes(), Ordering::Relaxed);
        meter.keys.store(payload.keys(), Ordering::Relaxed);
        // Full or closed: the piece is freed instead, and the reader makes a new one.
        let _ = spare.try_send(piece);
        ended.perhaps.store(progress == Progress::Perhaps, Ordering::Release);
        if progress == Progress::Done {
            break;
        }
    }
    let summary = payload.finish()?;
    output.finish()?;
    Ok(summary)
}

/// The compressor of one segment, or none.
enum Stage {
    Plain(Parts),
    Zstd(Box<zstd::stream::write::Encoder<'static, Parts>>),
}

struct Encoder<'a> {
    options: &'a Options,
    parts: &'a mpsc::Sender<Output>,
    /// None between two segments: the next one begins with its first byte, so that none is empty.
    stage: Option<Stage>,
}

impl Encoder<'_> {
    fn begin(&self) -> Result<Stage, Error> {
        let parts = Parts::new(self.parts.clone());
        Ok(match self.options.compression {
            Compression::None => Stage::Plain(parts),
            Compression::Zstd(level) => {
                let mut encoder = zstd::stream::write::Encoder::new(parts, level).map_err(|_| Error::Stage("the compressor"))?;
                // The frame's own checksum lets the zstd tool find damage without the manifest.
                encoder.include_checksum(true).map_err(|_| Error::Stage("the compressor"))?;
                Stage::Zstd(Box::new(encoder))
            }
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let mut stage = match self.stage.take() {
            Some(stage) => stage,
            None => self.begin()?,
        };
        let stored = match &mut stage {
            Stage::Plain(parts) => {
                parts.write_all(bytes).map_err(stopped)?;
                parts.stored_bytes()
            }
            Stage::Zstd(encoder) => {
                encoder.write_all(bytes).map_err(stopped)?;
                encoder.get_ref().stored_bytes()
            }
        };
        if stored >= self.options.segment_bytes {
            return stage.end();
        }
        self.stage = Some(stage);
        Ok(())
    }

    /// Ends the last segment.
    fn finish(self) -> Result<(), Error> {
        self.stage.map_or(Ok(()), Stage::end)
    }
}

impl Stage {
    fn end(self) -> Result<(), Error> {
        match self {
            Self::Plain(parts) => parts.finish(),
            Self::Zstd(encoder) => encoder.finish().map_err(stopped)?.finish(),
        }
    }
}

/// Storage has gone away; it says why itself.
fn stopped(_: io::Error) -> Error {
    Error::Stage("storage stopped taking parts")
}

/// Gathers bytes into parts of one size, and digests them.
struct Parts {
    out: mpsc::Sender<Output>,
    part: Vec<u8>,
    digest: digest::Context,
    sent_bytes: u64,
}

impl Parts {
    fn new(out: mpsc::Sender<Output>) -> Self {
        Self { out, part: Vec::new(), digest: digest::Context::new(&digest::SHA256), sent_bytes: 0 }
    }

    fn stored_bytes(&self) -> u64 {
        self.sent_bytes + self.part.len() as u64
    }

    fn send(&mut self) -> io::Result<()> {
        let part = std::mem::take(&mut self.part);
        self.digest.update(&part);
        self.sent_bytes += part.len() as u64;
        self.out.blocking_send(Output::Part(part)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn finish(mut self) -> Result<(), Error> {
        if !self.part.is_empty() {
            self.send().map_err(stopped)?;
        }
        let sha256 = self.digest.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        self.out.blocking_send(Output::SegmentEnd { stored_bytes: self.sent_bytes, sha256 }).map_err(|_| Error::Stage("storage stopped taking parts"))
    }
}

impl Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.part.capacity() == 0 {
            self.part.reserve_exact(PART_BYTES);
        }
        let count = bytes.len().min(PART_BYTES - self.part.len());
        self.part.extend_from_slice(&bytes[..count]);
        if self.part.len() == PART_BYTES {
            self.send()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
