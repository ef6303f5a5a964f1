//! The stages that cost CPU, on one thread: framing and walk, compression, encryption, digest of what is stored, parts.

use super::payload::{Payload, Progress};
use super::{Ended, Error, Meter, keep_part};
use crate::artifacts::{Compression, Encryption, PART_BYTES, Sealed};
use crate::rdb;
use crate::redis::replication::Framing;
use aws_lc_rs::digest;
use std::io::{self, Cursor, Write};
use std::sync::atomic::Ordering;
use tokio::sync::mpsc;

/// Longest run that is compressed at once, in bytes; several times what level 1 looks back.
const RUN_BYTES: usize = 2 * 1024 * 1024;

/// The same where segments are short.
const LEAST_RUN_BYTES: usize = 64 * 1024;

/// Bytes that are compressed where they lie when so many come at once. Fewer are gathered to a run first.
const DIRECT_BYTES: usize = 256 * 1024;

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
    pub(super) encryption: Encryption,
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
    encryption: Encryption,
    /// Absent only while a stage changes hands.
    sink: Option<Sink>,
    /// Bytes given to the age file under way.
    sealed_bytes: u64,
    segment_bytes: u64,
}

/// What takes the bytes of a segment.
enum Sink {
    Plain(Parts),
    /// An age file of its own.
    Sealed(Box<Sealed<Parts>>),
}

impl Encoder {
    fn new(options: &Options, parts: Parts) -> Result<Self, Error> {
        let frames = match options.compression {
            Compression::None => None,
            Compression::Zstd(level) => Some(Frames::new(level, options.segment_bytes).map_err(|_| COMPRESSOR)?),
        };
        let (encryption, segment_bytes) = (options.encryption.clone(), options.segment_bytes);
        Ok(Self { frames, encryption, sink: Some(Sink::Plain(parts)), sealed_bytes: 0, segment_bytes })
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        let Some(frames) = &mut self.frames else { return self.store(bytes) };
        let run_bytes = frames.run_bytes;
        if bytes.len() < DIRECT_BYTES.min(run_bytes) {
            loop {
                let frames = self.frames.as_mut().ok_or(COMPRESSOR)?;
                bytes = frames.fill(bytes);
                if !frames.full() {
                    return Ok(());
                }
                self.compress_gathered()?;
            }
        }
        // What was gathered before goes first. It may be a few bytes only: their frame costs as few.
        self.compress_gathered()?;
        for run in bytes.chunks(run_bytes) {
            self.compress(run)?;
        }
        Ok(())
    }

    fn compress_gathered(&mut self) -> Result<(), Error> {
        let Some(frames) = self.frames.as_mut().filter(|frames| !frames.input.is_empty()) else { return Ok(()) };
        let mut run = std::mem::take(&mut frames.input);
        self.compress(&run)?;
        run.clear();
        if let Some(frames) = &mut self.frames {
            frames.input = run;
        }
        Ok(())
    }

    /// Stores a run as a frame of its own.
    fn compress(&mut self, run: &[u8]) -> Result<(), Error> {
        let Some(frames) = &mut self.frames else { return Err(COMPRESSOR) };
        if !self.encryption.is_on()
            && let Some(Sink::Plain(parts)) = &mut self.sink
        {
            // The frame is made where it is to lie.
            parts.append(zstd::zstd_safe::compress_bound(run.len()), |room| frames.compressor.compress_to_buffer(run, room))?;
            return self.end_at(self.segment_bytes);
        }
        let mut frame = std::mem::take(&mut frames.output);
        frame.clear();
        frame.reserve(zstd::zstd_safe::compress_bound(run.len()));
        frames.compressor.compress_to_buffer(run, &mut frame).map_err(|_| COMPRESSOR)?;
        self.store(&frame)?;
        if let Some(frames) = &mut self.frames {
            frames.output = frame;
        }
        Ok(())
    }

    /// Takes bytes as they are to lie in storage, but for the encryption.
    fn store(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.encryption.is_on()
            && let Some(Sink::Plain(_)) = &self.sink
            && let Some(Sink::Plain(parts)) = self.sink.take()
        {
            self.sink = Some(Sink::Sealed(Box::new(self.encryption.seal(parts).map_err(|fault| of_io(&fault))?)));
        }
        match &mut self.sink {
            Some(Sink::Plain(parts)) => parts.write(bytes)?,
            Some(Sink::Sealed(sealed)) => {
                sealed.write_all(bytes).map_err(|fault| of_io(&fault))?;
                self.sealed_bytes += bytes.len() as u64;
            }
            None => return Err(ENCRYPTION),
        }
        self.end_at(self.segment_bytes)
    }

    /// Ends the segment if it has at least that many bytes, not counting what encryption adds.
    fn end_at(&mut self, bytes: u64) -> Result<(), Error> {
        if let Some(Sink::Sealed(_)) = &self.sink {
            if self.sealed_bytes < bytes {
                return Ok(());
            }
            if let Some(Sink::Sealed(sealed)) = self.sink.take() {
                self.sink = Some(Sink::Plain(sealed.finish().map_err(|fault| of_io(&fault))?));
            }
            self.sealed_bytes = 0;
            return match &mut self.sink {
                Some(Sink::Plain(parts)) => parts.end_at(1),
                Some(Sink::Sealed(_)) | None => Err(ENCRYPTION),
            };
        }
        match &mut self.sink {
            Some(Sink::Plain(parts)) => parts.end_at(bytes),
            Some(Sink::Sealed(_)) | None => Err(ENCRYPTION),
        }
    }

    /// Ends the last segment. One that would hold nothing is left out: a dump is never empty, so there is one before it.
    fn finish(mut self) -> Result<(), Error> {
        self.compress_gathered()?;
        self.end_at(1)
    }
}

/// Compresses runs, each to a frame of its own; frames in a row are one file to every tool.
///
/// A run that is compressed at once is read where it lies. A stream would be copied into a window that goes round in a
/// circle, and to look for matches across its seam costs half as much again.
struct Frames {
    compressor: zstd::bulk::Compressor<'static>,
    /// Small pieces, gathered.
    input: Vec<u8>,
    /// A frame that is to be encrypted.
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
        Ok(Self { compressor, input: Vec::new(), output: Vec::new(), run_bytes })
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
}

/// Storage has gone away; it says why itself.
const STOPPED: Error = Error::Stage("storage stopped taking parts");

const COMPRESSOR: Error = Error::Stage("the compressor");

const ENCRYPTION: Error = Error::Stage("the encryption");

/// What a failure to write to parts, or to encrypt, means.
fn of_io(fault: &io::Error) -> Error {
    if fault.kind() == io::ErrorKind::BrokenPipe { STOPPED } else { ENCRYPTION }
}

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
            self.begin()?;
            let (now, later) = bytes.split_at(bytes.len().min(PART_BYTES - self.part.len()));
            self.part.extend_from_slice(now);
            if self.part.len() == PART_BYTES {
                self.send()?;
            }
            bytes = later;
        }
        Ok(())
    }

    /// Lets `make` write up to `most` bytes behind those of the part, which saves copying them there.
    fn append(&mut self, most: usize, make: impl FnOnce(&mut Cursor<&mut Vec<u8>>) -> io::Result<usize>) -> Result<(), Error> {
        self.begin()?;
        let begin = self.part.len();
        self.part.reserve_exact(most);
        let mut room = Cursor::new(&mut self.part);
        room.set_position(begin as u64);
        make(&mut room).map_err(|_| COMPRESSOR)?;
        self.digest.update(&self.part[begin..]);
        if self.part.len() >= PART_BYTES {
            // Parts have one size, so what is more than that goes to the next.
            let mut full = std::mem::take(&mut self.part);
            if full.len() > PART_BYTES {
                self.begin()?;
                self.part.extend_from_slice(&full[PART_BYTES..]);
                full.truncate(PART_BYTES);
            }
            self.sent_bytes += full.len() as u64;
            self.tell(Output::Part(full))?;
        }
        Ok(())
    }

    /// Sees to it that there is memory for the part.
    fn begin(&mut self) -> Result<(), Error> {
        if self.part.capacity() == 0 {
            self.part = self.spare.blocking_recv().ok_or(STOPPED)?;
            self.part.clear();
            // With room for the frame that crosses its end.
            self.part.reserve_exact(PART_BYTES + zstd::zstd_safe::compress_bound(RUN_BYTES));
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

impl Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Parts::write(self, bytes).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
    use std::io::Read;

    #[test]
    fn segments_in_order_are_the_input_and_none_is_empty() {
        let input: Vec<u8> = (0..1_000_000_u32).flat_map(|number| (number / 3).to_le_bytes()).collect();
        let open = Encryption::default();
        let closed = crate::artifacts::encryption::tests::encryption();
        for (compression, encryption) in
            [(Compression::None, &open), (Compression::Zstd(1), &open), (Compression::None, &closed), (Compression::Zstd(1), &closed)]
        {
            for (segment_bytes, piece_bytes) in [(1, 100_000), (1 << 20, 100_000), (u64::MAX, 100_000), (u64::MAX, 1_000_000), (1 << 21, 700_001)] {
                let (out, mut parts) = mpsc::channel(1);
                let (spare, spare_in) = mpsc::channel(1);
                let fed = input.clone();
                let options = Options { compression, encryption: encryption.clone(), segment_bytes, walk: rdb::Options::default() };
                let encoding = std::thread::spawn(move || {
                    let mut encoder = Encoder::new(&options, Parts::new(out, spare_in))?;
                    fed.chunks(piece_bytes).try_for_each(|piece| encoder.write(piece))?;
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
                            if let Some(identity) = &encryption.identity {
                                let mut opened = Vec::new();
                                identity.open(&*segment).unwrap().read_to_end(&mut opened).unwrap();
                                segment = opened;
                            }
                            match compression {
                                Compression::None => joined.append(&mut segment),
                                Compression::Zstd(_) => joined.append(&mut zstd::stream::decode_all(&*std::mem::take(&mut segment)).unwrap()),
                            }
                        }
                    }
                }
                encoding.join().unwrap().unwrap();
                assert!(joined == input, "{compression}, {segment_bytes}, {piece_bytes}");
                assert!(segment.is_empty());
            }
        }
    }
}
