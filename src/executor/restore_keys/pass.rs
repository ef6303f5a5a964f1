//! One reading of a dump, of which each entry that is meant is written.
//!
//! ```text
//! blocks -> is it what was checked? -> entries -> commands of the nodes
//! ```
//!
//! Nothing of a block is sent before its digest is right and the record tells that it may be sent.

use super::survey::{Blocks, LIBRARY_BYTES, WHOLE_BYTES};
use super::{Part, Selection, Work, add};
use crate::artifacts;
use crate::executor::attempt::End;
use crate::operation::{Conflict, Written};
use crate::rdb::{Entries, Entry, Event, slot_of};
use crate::redis::keys::{self, Count, Put, Writer};
use crate::telemetry::{crash_point, hang_point};
use chrono::Utc;
use std::collections::VecDeque;
use std::ops::Range;

/// How far ahead of what is read the record allows to send, in bytes of the dump. After a crash it is not known of so much, and of
/// what was sent and not answered, whether it was written.
const AHEAD_BYTES: u64 = 16 * 1024 * 1024;

/// Why a pass stopped.
pub(super) enum Stop {
    /// The attempt is over.
    Ended(End),
    /// The storage.
    Storage(artifacts::Error),
    /// It gives other bytes than the first time.
    Changed,
    /// A key is there, in this database, and is not to be replaced.
    Conflict(u32),
    /// A library of functions is there, and is not to be replaced.
    Library,
    /// The target.
    Writing(keys::Error),
}

impl From<keys::Error> for Stop {
    fn from(fault: keys::Error) -> Self {
        Self::Writing(fault)
    }
}

/// A reading.
pub(super) struct Pass<'a, 'w> {
    pub(super) work: &'a mut Work<'w>,
    pub(super) writer: &'a mut Writer,
    pub(super) part: Part,
    pub(super) selection: &'a Selection,
    /// How far it was before.
    pub(super) before: &'a Written,
}

/// What is to be done with a block's entries, in order. Ranges are of the bytes beside it.
enum Step {
    Key(Entry, Range<usize>, u64),
    /// Its time is over.
    Expired(Entry),
    Library(Range<usize>, u64),
    LongBegins(Entry, u64, u64),
    LongBytes(Range<usize>),
    LongEnds,
}

/// The entry that is open at the end of a block.
enum Open {
    /// It is not meant, or written already.
    Passed,
    /// A value that is held as a whole, from this place in the bytes on.
    Whole(Box<Entry>, usize),
    /// A library of functions, the same.
    Library(usize),
    /// A long value, which passes through.
    Long,
}

/// Makes steps of events.
struct Sorter<'a> {
    selection: &'a Selection,
    part: Part,
    slots: &'a crate::rdb::SlotSet,
    longs: VecDeque<(u64, u64)>,
    /// What begins before it is written already.
    offset: u64,
    now_millis: i64,
    bytes: Vec<u8>,
    steps: Vec<Step>,
    open: Open,
    /// Where the last entry ended.
    ended_at: u64,
}

impl Sorter<'_> {
    /// Makes room for another block; what is open stays.
    fn next_block(&mut self) {
        self.steps.clear();
        let start = match &mut self.open {
            Open::Whole(_, start) | Open::Library(start) => std::mem::take(start),
            Open::Passed | Open::Long => self.bytes.len(),
        };
        self.bytes.drain(..start);
    }

    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Key(entry, at) => self.key(entry, at),
            Event::Function => self.open = if self.part.has_libraries { Open::Library(self.bytes.len()) } else { Open::Passed },
            Event::Bytes(bytes) => match &self.open {
                Open::Passed => {}
                Open::Whole(..) | Open::Library(_) => self.bytes.extend_from_slice(bytes),
                Open::Long => {
                    let start = self.bytes.len();
                    self.bytes.extend_from_slice(bytes);
                    self.steps.push(Step::LongBytes(start..self.bytes.len()));
                }
            },
            Event::End(at) => {
                match std::mem::replace(&mut self.open, Open::Passed) {
                    Open::Passed => {}
                    Open::Whole(entry, start) => self.steps.push(Step::Key(*entry, start..self.bytes.len(), at)),
                    Open::Library(start) if at > self.offset => self.steps.push(Step::Library(start..self.bytes.len(), at)),
                    Open::Library(_) => {}
                    Open::Long => self.steps.push(Step::LongEnds),
                }
                self.ended_at = at;
            }
        }
    }

    fn key(&mut self, entry: Entry, at: u64) {
        while self.longs.front().is_some_and(|(begin, _)| *begin < at) {
            self.longs.pop_front();
        }
        let is_stray = !self.slots.is_empty() && !self.slots.contains(slot_of(&entry.name));
        self.open = Open::Passed;
        if at < self.offset || is_stray != self.part.is_for_strays || !self.selection.takes(&entry) {
            return;
        }
        if entry.expires_at.is_some_and(|expires_at| expires_at <= self.now_millis) {
            self.steps.push(Step::Expired(entry));
            return;
        }
        match self.longs.front() {
            Some((begin, length)) if *begin == at => {
                self.steps.push(Step::LongBegins(entry, *length, at + length));
                self.open = Open::Long;
            }
            Some(_) | None => self.open = Open::Whole(Box::new(entry), self.bytes.len()),
        }
    }
}

/// A long value that is being sent, or passed over.
enum Long {
    Sent(Entry, Put),
    Passed,
}

impl Pass<'_, '_> {
    /// Reads to the end.
    pub(super) async fn run(&mut self) -> Result<(), Stop> {
        let (source, survey) = (&self.work.sources[self.part.source], &self.work.surveys[self.part.source]);
        let storage = &self.work.context.inner.storage;
        let mut dump = storage.dump(&self.work.stored.folder, source.shard).map_err(Stop::Storage)?;
        let (mut blocks, mut entries, mut number, mut read) = (Blocks::default(), Entries::new(), 0, 0_u64);
        let mut sorter = Sorter {
            selection: self.selection,
            part: self.part,
            slots: &source.slots,
            longs: survey.longs.clone(),
            offset: self.before.offset,
            now_millis: 0,
            bytes: Vec::new(),
            steps: Vec::new(),
            open: Open::Passed,
            ended_at: 0,
        };
        let mut long = Long::Passed;
        while let Some(block) = blocks.next(&mut dump).await.map_err(Stop::Storage)? {
            if !survey.knows(number, block) {
                return Err(Stop::Changed);
            }
            number += 1;
            read += block.len() as u64;
            sorter.now_millis = Utc::now().timestamp_millis();
            sorter.next_block();
            entries.feed(block, |event| sorter.take(event)).map_err(|_| Stop::Changed)?;
            if sorter.bytes.len() as u64 > LIBRARY_BYTES.max(WHOLE_BYTES) + 2 * block.len() as u64 {
                return Err(Stop::Changed);
            }
            self.may_send(read).await?;
            let version = entries.version().map_or(0, |(_, version)| version);
            self.write(&mut sorter, &mut long, version).await?;
            if sorter.ended_at > self.before.offset {
                self.writer.cut(sorter.ended_at).await?;
            }
            self.tell();
            self.check_conflict()?;
            hang_point("restore_keys.block").await;
        }
        if !entries.ended() {
            return Err(Stop::Changed);
        }
        self.writer.cut(read).await?;
        self.writer.drain().await?;
        self.check_conflict()?;
        self.tell();
        Ok(())
    }

    /// Writes what a block holds.
    async fn write(&mut self, sorter: &mut Sorter<'_>, long: &mut Long, version: u16) -> Result<(), Stop> {
        for step in std::mem::take(&mut sorter.steps) {
            match step {
                Step::Expired(entry) => self.writer.count(entry.kind, Count { expired: 1, ..Count::default() }),
                Step::Key(entry, range, end) => {
                    let put = self.put(end);
                    self.spend(range.len()).await;
                    self.writer.put(&entry, &sorter.bytes[range], version, put)?;
                    if self.writer.is_full() {
                        self.writer.send_all().await?;
                    }
                }
                Step::Library(range, end) => self.library(&sorter.bytes[range], version, end).await?,
                Step::LongBegins(entry, length, end) => *long = self.begin_long(entry, length, end).await?,
                Step::LongBytes(range) => {
                    if let Long::Sent(..) = long {
                        self.spend(range.len()).await;
                        self.writer.long_bytes(&sorter.bytes[range]).await?;
                    }
                }
                Step::LongEnds => {
                    if let Long::Sent(entry, put) = std::mem::replace(long, Long::Passed) {
                        self.writer.end_long(&entry, version, put).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// What becomes of a key that ends at this offset.
    fn put(&self, end: u64) -> Put {
        let keys = self.work.keys;
        if keys.dry_run {
            return Put::Look;
        }
        if end <= self.before.sent && (self.part.is_for_strays || keys.on_conflict != Conflict::Replace) {
            return Put::CreateAgain;
        }
        match keys.on_conflict {
            _ if self.part.is_for_strays => Put::Keep,
            Conflict::Fail => Put::Create,
            Conflict::Skip => Put::Keep,
            Conflict::Replace => Put::Replace,
        }
    }

    async fn spend(&self, bytes: usize) {
        if let Some(pace) = &self.work.pace {
            pace.spend(bytes).await;
        }
    }

    /// Writes a library to every primary.
    async fn library(&mut self, source: &[u8], version: u16, end: u64) -> Result<(), Stop> {
        let policy = self.work.keys.on_conflict;
        if self.work.keys.dry_run {
            self.writer.count_library();
            return Ok(());
        }
        let left_before = self.writer.done().libraries().left;
        self.writer.put_library(source, version, policy == Conflict::Replace);
        self.writer.drain().await?;
        let is_left = self.writer.done().libraries().left > left_before;
        if is_left && policy == Conflict::Fail && end > self.before.sent {
            return Err(Stop::Library);
        }
        Ok(())
    }

    /// Finds out where a long value goes, and begins to send it if it is to be sent.
    async fn begin_long(&mut self, entry: Entry, length: u64, end: u64) -> Result<Long, Stop> {
        let put = self.put(end);
        let way = self.writer.way(&entry).await?;
        let one = |is: bool| u64::from(is);
        let counted = match (put, way.is_there) {
            (Put::Look, is_there) => Count { found: one(is_there), missing: one(!is_there), ..Count::default() },
            (Put::Create, true) => {
                self.writer.note_conflict(entry.database);
                Count { left: 1, ..Count::default() }
            }
            (Put::Keep, true) => Count { left: 1, ..Count::default() },
            (Put::CreateAgain, true) => Count { written: 1, ..Count::default() },
            (Put::Create | Put::Keep | Put::CreateAgain, false) | (Put::Replace, _) => {
                self.writer.begin_long(way, &entry, length, put).await?;
                return Ok(Long::Sent(entry, put));
            }
        };
        self.writer.count(entry.kind, counted);
        self.check_conflict()?;
        Ok(Long::Passed)
    }

    fn check_conflict(&self) -> Result<(), Stop> {
        self.writer.conflict().map_or(Ok(()), |database| Err(Stop::Conflict(database)))
    }

    /// Has the record tell that everything up to this offset may be sent, before it is.
    async fn may_send(&mut self, read: u64) -> Result<(), Stop> {
        if self.work.keys.dry_run || read <= self.work.written.sent {
            return Ok(());
        }
        self.work.written.sent = read + AHEAD_BYTES;
        self.tell();
        self.work.context.record_progress().await.map_err(Stop::Ended)?;
        if self.work.written.offset > 0 {
            crash_point("restore_keys.recorded");
        }
        Ok(())
    }

    /// Tells how far it is; that is recorded in time.
    fn tell(&mut self) {
        let (offset, counts) = self.writer.settled();
        let result = add(&self.before.result, counts, self.writer.primaries(), self.work.keys);
        let meter = &self.work.meters[self.part.source];
        if !self.part.is_for_strays {
            meter.count(offset.saturating_sub(meter.bytes()), 0);
            meter.tell_keys(result.keys - self.before.result.keys.min(result.keys));
        }
        self.work.written.offset = offset;
        self.work.written.result = result;
        if !self.work.keys.dry_run {
            self.work.context.tell_written(self.work.written.clone());
        }
    }
}
