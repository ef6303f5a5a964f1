//! Reading what is stored: the objects of a segment in pieces, each byte held against the manifest, and what they decode to.

use super::encryption::{self, Identity};
use super::manifest::Segment;
use super::root::Root;
use super::transfer::hex;
use super::{Error, Folder, PART_TIMEOUT, Storage};
use aws_lc_rs::digest;
use bytes::Bytes;
use std::io::{self, Read, Write};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Bytes that are decoded at once.
const DECODED_BYTES: usize = 128 * 1024;

/// How far back a compressed dump may look, as a power of two: what decoding may take of memory. Runs of 2 MiB look back less.
const WINDOW_LOG: u32 = 23;

/// Reads an object in pieces, by ranges: each wait is bounded, and a store far away needs no connection that stays.
pub(super) struct Pieces<'a> {
    pub(super) root: &'a Root,
    pub(super) path: String,
    position: u64,
    length: u64,
    piece_bytes: u64,
}

impl Pieces<'_> {
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let end = self.length.min(self.position + self.piece_bytes);
        if end == self.position {
            return Ok(None);
        }
        let reading = timeout(PART_TIMEOUT, self.root.range(&self.path, self.position..end));
        let piece = reading.await.map_err(|_| Error::unavailable(format!("no answer within {} s", PART_TIMEOUT.as_secs())))??;
        self.position = end;
        Ok(Some(piece))
    }
}

impl Storage {
    /// Begins to read a segment, whose length must be that of the manifest.
    pub(super) async fn pieces(&self, folder: &Folder, segment: &Segment, piece_bytes: usize) -> Result<Pieces<'_>, Error> {
        let (root, path) = (self.root(folder), folder.file(&segment.file));
        let length = root.length(&path).await?;
        if length != segment.stored_bytes {
            let what = format!("it has {length} bytes instead of {}", segment.stored_bytes);
            return Err(Error::Corrupt { name: segment.file.clone(), what });
        }
        Ok(Pieces { root, path, position: 0, length, piece_bytes: piece_bytes as u64 })
    }
}

/// What the bytes of a segment are to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// They stay as they are.
    Stored,
    /// Encrypted ones are opened.
    Plain,
    /// Encrypted ones are opened, and all are decompressed.
    Zstd,
}

/// Hands a segment to the sink, decoded as it is to be, and reads it to its end.
pub(super) fn decode(
    stored: &mut Stored<'_>,
    segment: &Segment,
    coding: Coding,
    identity: Option<&Identity>,
    sink: &mut impl Write,
    moved: &dyn Fn(u64, u64),
) -> io::Result<()> {
    let plain = coding == Coding::Stored || !segment.file.ends_with(encryption::SUFFIX);
    match (plain, coding == Coding::Zstd) {
        (true, false) => pass(&mut *stored, sink, moved)?,
        (true, true) => pass(unpack(&mut *stored)?, sink, moved)?,
        (false, zstd) => {
            let opened = identity.ok_or(io::ErrorKind::PermissionDenied)?.open(&mut *stored)?;
            if zstd { pass(unpack(opened)?, sink, moved)? } else { pass(opened, sink, moved)? }
        }
    }
    // What a decoder had no use for belongs to the digest all the same.
    io::copy(stored, &mut io::sink()).map(|_| ())
}

fn unpack<R: Read>(input: R) -> io::Result<impl Read> {
    let mut decoder = zstd::stream::read::Decoder::new(input)?;
    decoder.window_log_max(WINDOW_LOG)?;
    Ok(decoder)
}

fn pass(mut input: impl Read, sink: &mut impl Write, moved: &dyn Fn(u64, u64)) -> io::Result<()> {
    let mut buffer = vec![0; DECODED_BYTES];
    loop {
        let count = match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(fault) if fault.kind() == io::ErrorKind::Interrupted => continue,
            Err(fault) => return Err(fault),
        };
        sink.write_all(&buffer[..count])?;
        moved(0, count as u64);
    }
}

/// The bytes of one segment as they come, digested.
pub(super) struct Stored<'a> {
    pieces: &'a mut mpsc::Receiver<Bytes>,
    piece: Bytes,
    left: u64,
    context: digest::Context,
    moved: &'a dyn Fn(u64, u64),
    /// Whether there was nothing where more was due.
    pub(super) ended_early: bool,
}

impl<'a> Stored<'a> {
    pub(super) fn new(pieces: &'a mut mpsc::Receiver<Bytes>, length: u64, moved: &'a dyn Fn(u64, u64)) -> Self {
        Self { pieces, piece: Bytes::new(), left: length, context: digest::Context::new(&digest::SHA256), moved, ended_early: false }
    }

    /// Ends the reading: what was read must have the digest of the manifest.
    pub(super) fn finish(self, segment: &Segment) -> Result<(), Error> {
        hold(segment, self.context)
    }
}

impl Read for Stored<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() {
            if self.left == 0 {
                return Ok(0);
            }
            let Some(piece) = self.pieces.blocking_recv() else {
                self.ended_early = true;
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            self.context.update(&piece);
            self.left = self.left.saturating_sub(piece.len() as u64);
            (self.moved)(piece.len() as u64, 0);
            self.piece = piece;
        }
        let count = buffer.len().min(self.piece.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

/// Holds the digest of what was read against that of the manifest.
pub(super) fn hold(segment: &Segment, context: digest::Context) -> Result<(), Error> {
    if hex(context.finish().as_ref()) == segment.sha256 {
        Ok(())
    } else {
        Err(Error::Corrupt { name: segment.file.clone(), what: "its SHA-256 is not that of the manifest".to_owned() })
    }
}

/// What a fault of decoding means.
pub(super) fn undecodable(segment: &Segment, fault: &io::Error) -> Error {
    match fault.kind() {
        io::ErrorKind::PermissionDenied => Error::Locked(segment.file.clone()),
        _ => Error::Corrupt { name: segment.file.clone(), what: format!("it cannot be decoded: {fault}") },
    }
}
