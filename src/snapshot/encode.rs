//! The stages that cost CPU, on one thread: framing and walk, compression, digest of what is stored, parts.

use super::payload::{Payload, Progress};
use super::{Ended, Error, Meter, keep_part};
use crate::artifacts::{Compression, PART_BYTES};
use crate::rdb;
use crate::redis::replication::Framing;
use aws_lc_rs::digest;
use std::io;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc;

/// Length of what is compressed at once, in bytes; several times what level 1 looks back.
const RUN_BYTES: usize = 2 * 1024 * 1024;

/// The same where segments are short.
const LEAST_RUN_BYTES: usize = 64 * 1024;

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
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) compression: Compression,
    pub(super) segment_bytes: u64,
    pub(super) walk: rdb::Options,
}

/// The encoder's ends of the channels.
pub(super) struct Ends {
    /// What came from the socket.
    pub(super) pieces: mpsc::Receiver<Vec<u8>>,
    /// Takes pieces back, to be filled again.
    pub(super) spare_pieces: mpsc::Sender<Vec<u8>>,
    /// What goes to storage.
    pub(super) parts: mpsc::Sender<Output>,
    /// Gives the memory of parts, new or back from storage. There is no more of it than this.
    pub(super) spare_parts: mpsc::Receiver<Vec<u8>>,
}

/// Runs until the dump is complete, the pieces end, or something fails.
pub(super) fn run(framing: &Framing, options: &Options, ends: Ends, meter: &Meter, ended: &Ended) -> Result<rdb::Summary, Error> {
    let mut payload = Payload::new(framing, options.walk.clone());
    let Ends { mut pieces, spare_pieces, parts, spare_parts } = ends;
    let mut output = Encoder::new(options, Parts::new(parts, spare_parts))?;
    while let Some(piece) = pieces.blocking_recv() {
        let progress = payload.push(&piece, &mut |bytes| output.write(bytes))?;
        meter.bytes.store(payload.bytes(), Ordering::Relaxed);
        meter.keys.store(payload.keys(), Ordering::Relaxed);
        // Full or closed: the piece is freed instead, and the reader makes a new one.
        let _ = spare_pieces.try_send(piece);
        ended.perhaps.store(progress == Progress::Perhaps, Ordering::Release);
        if progress == Progress::Done {
            break;
        }
    }
    let summary = payload.finish()?;
    output.finish()?;
    Ok(summary)
}

/// Makes segments of what it is given.
struct Encoder {
    frames: Option<Frames>,
    parts: Parts,
    segment_bytes: u64,
}

impl Encoder {
    fn new(options: &Options, parts: Parts) -> Result<Self, Error> {
        let frames = match options.compression {
            Compression::None => None,
            Compression::Zstd(level) => Some(Frames::new(level, options.segment_bytes).map_err(|_| Error::Stage("the compressor"))?),
        };
        Ok(Self { frames, parts, segment_bytes: options.segment_bytes })
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        let Some(frames) = &mut self.frames else {
            self.parts.write(bytes)?;
            return self.parts.end_at(self.segment_bytes);
        };
        loop {
            bytes = frames.fill(bytes);
            if !frames.full() {
                return Ok(());
            }
            self.parts.write(frames.compress()?)?;
            self.parts.end_at(self.segment_bytes)?;
        }
    }

    /// Ends the last segment. One that would hold nothing is left out: a dump is never empty, so there is one before it.
    fn finish(mut self) -> Result<(), Error> {
        if let Some(frames) = &mut self.frames
            && !frames.input.is_empty()
        {
            self.parts.write(frames.compress()?)?;
        }
        self.parts.end_at(1)
    }
}

/// Compresses runs of one length, each to a frame of its own; frames in a row are one file to every tool.
///
/// A run that is compressed at once is read where it lies. A stream would be copied into a window that goes round in a
/// circle, and to look for matches across its seam costs half as much again.
struct Frames {
    compressor: zstd::bulk::Compressor<'static>,
    input: Vec<u8>,
    output: Vec<u8>,
    run_bytes: usize,
}

impl Frames {
    fn new(level: i32, segment_bytes: u64) -> io::Result<Self> {
        // A segment ends with a run, so short segments need shorter ones.
        let run_bytes = usize::try_from(segment_bytes / 8).map_or(RUN_BYTES, |bytes| bytes.clamp(LEAST_RUN_BYTES, RUN_BYTES));
        let mut compressor = zstd::bulk::Compressor::new(level)?;
        // The frame's own checksum lets the zstd tool find damage without the manifest.
        compressor.set_parameter(zstd::zstd_safe::CParameter::ChecksumFlag(true))?;
        let output = Vec::with_capacity(zstd::zstd_safe::compress_bound(run_bytes));
        Ok(Self { compressor, input: Vec::with_capacity(run_bytes), output, run_bytes })
    }

    /// Takes what still fits into the run, and gives back the rest.
    fn fill<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (now, later) = bytes.split_at(bytes.len().min(self.run_bytes - self.input.len()));
        self.input.extend_from_slice(now);
        later
    }

    fn full(&self) -> bool {
        self.input.len() == self.run_bytes
    }

    /// The frame of the run, which ends by this.
    fn compress(&mut self) -> Result<&[u8], Error> {
        self.compressor.compress_to_buffer(&self.input, &mut self.output).map_err(|_| Error::Stage("the compressor"))?;
        self.input.clear();
        Ok(&self.output)
    }
}

/// Storage has gone away; it says why itself.
const STOPPED: Error = Error::Stage("storage stopped taking parts");

/// Gathers bytes into parts of one size, and digests those of each segment.
struct Parts {
    out: mpsc::Sender<Output>,
    spare: mpsc::Receiver<Vec<u8>>,
    part: Vec<u8>,
    digest: digest::Context,
    sent_bytes: u64,
}

impl Parts {
    fn new(out: mpsc::Sender<Output>, spare: mpsc::Receiver<Vec<u8>>) -> Self {
        Self { out, spare, part: Vec::new(), digest: digest::Context::new(&digest::SHA256), sent_bytes: 0 }
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        self.digest.update(bytes);
        while !bytes.is_empty() {
            if self.part.capacity() == 0 {
                self.part = self.spare.blocking_recv().ok_or(STOPPED)?;
                self.part.clear();
                self.part.reserve_exact(PART_BYTES);
            }
            let (now, later) = bytes.split_at(bytes.len().min(PART_BYTES - self.part.len()));
            self.part.extend_from_slice(now);
            if self.part.len() == PART_BYTES {
                self.send()?;
            }
            bytes = later;
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), Error> {
        let part = std::mem::take(&mut self.part);
        self.sent_bytes += part.len() as u64;
        self.tell(Output::Part(part))
    }

    /// Ends the segment if it has at least that many bytes; what comes then belongs to the next.
    fn end_at(&mut self, bytes: u64) -> Result<(), Error> {
        if self.sent_bytes + (self.part.len() as u64) < bytes {
            return Ok(());
        }
        if !self.part.is_empty() {
            self.send()?;
        }
        let digest = std::mem::replace(&mut self.digest, digest::Context::new(&digest::SHA256));
        let sha256 = digest.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let stored_bytes = std::mem::take(&mut self.sent_bytes);
        self.tell(Output::SegmentEnd { stored_bytes, sha256 })
    }

    fn tell(&self, output: Output) -> Result<(), Error> {
        self.out.blocking_send(output).map_err(|_| STOPPED)
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        keep_part(std::mem::take(&mut self.part));
        while let Ok(part) = self.spare.try_recv() {
            keep_part(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_in_order_are_the_input_and_none_is_empty() {
        let input: Vec<u8> = (0..1_000_000_u32).flat_map(|number| (number / 3).to_le_bytes()).collect();
        for compression in [Compression::None, Compression::Zstd(1)] {
            for segment_bytes in [1, 1 << 20, u64::MAX] {
                let (out, mut parts) = mpsc::channel(1);
                let (spare, spare_in) = mpsc::channel(1);
                let fed = input.clone();
                let encoding = std::thread::spawn(move || {
                    let mut encoder = Encoder::new(&Options { compression, segment_bytes, walk: rdb::Options::default() }, Parts::new(out, spare_in))?;
                    fed.chunks(100_000).try_for_each(|piece| encoder.write(piece))?;
                    encoder.finish()
                });
                // One piece of memory goes round.
                spare.try_send(Vec::new()).unwrap();
                let (mut joined, mut segment) = (Vec::new(), Vec::new());
                while let Some(output) = parts.blocking_recv() {
                    match output {
                        Output::Part(part) => {
                            segment.extend_from_slice(&part);
                            let _ = spare.try_send(part);
                        }
                        Output::SegmentEnd { stored_bytes, sha256 } => {
                            assert!(stored_bytes > 0);
                            assert_eq!(stored_bytes, segment.len() as u64);
                            let digest = digest::digest(&digest::SHA256, &segment);
                            assert_eq!(sha256, digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>());
                            match compression {
                                Compression::None => joined.append(&mut segment),
                                Compression::Zstd(_) => joined.append(&mut zstd::stream::decode_all(&*std::mem::take(&mut segment)).unwrap()),
                            }
                        }
                    }
                }
                encoding.join().unwrap().unwrap();
                assert!(joined == input, "{compression}, {segment_bytes}");
                assert!(segment.is_empty());
            }
        }
    }
}
