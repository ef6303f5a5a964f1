//! Writing keys into running servers: `RESTORE`, many at a time, each where its slot lives.
//!
//! ```text
//! put -> commands of a node -> its connection -> answers -> counted, or sent again
//! ```
//!
//! A [`Writer`] belongs to one task and sends without waiting; what was sent and is not answered is bounded in bytes. What is
//! put is cut into stretches: a stretch is settled when every command of it and of all before is answered, so that its end is a
//! place from which to go on. A server that sends a key elsewhere is followed a bounded number of times.

mod command;
mod glob;
mod pipe;

pub use command::payload_bytes;
pub use glob::{PATTERN_BYTES, fits};

use super::cluster::{SLOTS, announced};
use super::{Address, Error as ServerError, IDLE_TIMEOUT, Target};
use crate::rdb::{Entry, FOOTER_BYTES, Footer, Type, slot_of};
use bytes::Bytes;
use pipe::{Answer, Pipe, Told, Work};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

/// Most bytes of commands that are sent and not answered, over all nodes; one command may go beyond.
const UNANSWERED_BYTES: usize = 16 * 1024 * 1024;

/// Commands of a node go out when they have so many bytes.
const BATCH_BYTES: usize = 128 * 1024;

/// How often one command is sent elsewhere.
pub const REDIRECTIONS: u8 = 16;

/// Wait before a command is sent again to a server that is not ready for it.
const PAUSE: Duration = Duration::from_millis(100);

/// How long one command is sent again to a server that is not ready for it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Batches of answers that may wait to be looked at.
const ANSWERS: usize = 256;

/// Pieces of a long value that may wait to be sent, of 128 KiB at most.
const PIECES: usize = 4;

/// Keys are counted by type; the libraries of functions come after them.
const KINDS: usize = Type::ALL.len() + 1;
const LIBRARIES: usize = Type::ALL.len();

/// Why nothing more can be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A server, or the way to it.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// It has no memory left for keys.
    #[error("{host} has no memory left: {what}")]
    Full {
        /// The server.
        host: String,
        /// Its words.
        what: String,
    },
    /// It does not take what it was sent.
    #[error("{host} does not take it: {what}")]
    Refused {
        /// The server.
        host: String,
        /// Its words.
        what: String,
    },
    /// A long value has to go elsewhere than it was sent; it is to be put again.
    #[error("{host} sent a long value elsewhere")]
    Elsewhere {
        /// The server.
        host: String,
    },
}

/// The servers that take the keys.
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    /// All of them; a server that sends keys to another one than these is not followed.
    pub targets: Vec<Target>,
    /// Those that take writes, by their place in `targets`.
    pub primaries: Vec<usize>,
    /// Owners of slots, by their place in `targets`; none for a server that stands alone, which then is the only one.
    pub slots: Vec<(Range<u16>, usize)>,
    /// Where announced addresses are reached.
    pub address_map: BTreeMap<Address, Address>,
}

/// What becomes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is written where it is not there yet; one that is there is a [conflict](Writer::conflict).
    Create,
    /// It is written where it is not there yet.
    Keep,
    /// It is written where it is not there yet, and one that is there counts as written: an earlier try may have done it.
    CreateAgain,
    /// It is written, whatever is there.
    Replace,
    /// Only whether it is there is asked.
    Look,
}

/// Numbers of keys of one type, or of libraries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Written.
    pub written: u64,
    /// There already, and left as they are.
    pub left: u64,
    /// There before they were replaced, or looked for and found.
    pub found: u64,
    /// Looked for and not found.
    pub missing: u64,
    /// Left out, because their time is over.
    pub expired: u64,
}

impl Count {
    fn add(&mut self, other: &Self) {
        self.written += other.written;
        self.left += other.left;
        self.found += other.found;
        self.missing += other.missing;
        self.expired += other.expired;
    }
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts([Count; KINDS]);

impl Counts {
    /// Of keys of this type.
    pub fn of(&self, kind: Type) -> &Count {
        &self.0[kind as usize]
    }

    /// Of libraries, each once for every primary.
    pub fn libraries(&self) -> &Count {
        &self.0[LIBRARIES]
    }

    /// Of keys of all types.
    pub fn keys(&self) -> Count {
        let mut sum = Count::default();
        self.0[..LIBRARIES].iter().for_each(|count| sum.add(count));
        sum
    }

    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(count, other)| count.add(other));
    }
}

/// What a command is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    /// A key of this type.
    Key(Put, Type),
    /// A library.
    Library,
    /// Whether the key of a long value is there.
    Probe,
    /// Whether a key is there that is replaced next.
    Before(Type),
    /// Which database is meant, or that a key goes to the next owner of its slot.
    Way,
}

/// A command that was sent, or is to be.
#[derive(Clone, Debug)]
struct Sent {
    aim: Aim,
    stretch: u64,
    slot: u16,
    database: u32,
    /// Its bytes in those of its batch; none for what cannot be sent again.
    range: Range<usize>,
    redirections: u8,
    /// Since when it is sent again to a server that is not ready.
    since: Option<Instant>,
}

/// Commands that were sent together.
struct Batch {
    bytes: Bytes,
    commands: VecDeque<Sent>,
}

struct Node {
    target: Target,
    pipe: Option<Pipe>,
    filling: Vec<u8>,
    commands: VecDeque<Sent>,
    sent: VecDeque<Batch>,
    /// The database of the connection behind what is filled in so far.
    database: u32,
}

/// A stretch of what is put.
#[derive(Debug, Default)]
struct Stretch {
    /// Where it ends, once that is known.
    end: Option<u64>,
    unanswered: usize,
    counts: Counts,
}

/// A command that waits to be sent again.
struct Waiting {
    until: Instant,
    node: usize,
    bytes: Bytes,
    command: Sent,
}

/// Where a long value goes.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    node: usize,
    is_asking: bool,
    slot: u16,
    /// Whether the key is there.
    pub is_there: bool,
}

/// A long value on its way.
struct Long {
    pieces: mpsc::Sender<Bytes>,
    footer: Footer,
    host: String,
}

/// Writes keys. Of one task.
pub struct Writer {
    nodes: Vec<Node>,
    primaries: Vec<usize>,
    /// Owner of each slot; empty for a server that stands alone.
    slots: Vec<Option<usize>>,
    address_map: BTreeMap<Address, Address>,
    told: mpsc::Receiver<Told>,
    tell: mpsc::Sender<Told>,
    stretches: VecDeque<Stretch>,
    /// Number of the first of them.
    first: u64,
    /// Where the last settled stretch ends.
    settled_at: u64,
    settled: Counts,
    /// Database of the first key that was there and was not to be.
    conflict: Option<u32>,
    probed: Option<Way>,
    unanswered_bytes: usize,
    unanswered: usize,
    waiting: VecDeque<Waiting>,
    long: Option<Long>,
    again: u64,
}

impl Writer {
    /// A writer to these servers, which connects to each when there is something for it.
    pub fn new(nodes: Nodes) -> Self {
        let (tell, told) = mpsc::channel(ANSWERS);
        let mut slots = Vec::new();
        if !nodes.slots.is_empty() {
            slots = vec![None; usize::from(SLOTS)];
            for (range, node) in &nodes.slots {
                for slot in range.clone() {
                    if let Some(owner) = slots.get_mut(usize::from(slot)) {
                        *owner = Some(*node);
                    }
                }
            }
        }
        let node = |target| Node { target, pipe: None, filling: Vec::new(), commands: VecDeque::new(), sent: VecDeque::new(), database: 0 };
        Self {
            nodes: nodes.targets.into_iter().map(node).collect(),
            primaries: nodes.primaries,
            slots,
            address_map: nodes.address_map,
            told,
            tell,
            stretches: VecDeque::from([Stretch::default()]),
            first: 0,
            settled_at: 0,
            settled: Counts::default(),
            conflict: None,
            probed: None,
            unanswered_bytes: 0,
            unanswered: 0,
            waiting: VecDeque::new(),
            long: None,
            again: 0,
        }
    }

    /// Fills in a key; it is sent with others. `value` and `version` are as in the dump.
    ///
    /// # Errors
    ///
    /// [`ServerError::NotReady`] when nobody owns its slot.
    pub fn put(&mut self, entry: &Entry, value: &[u8], version: u16, put: Put) -> Result<(), Error> {
        let (slot, node) = self.owner(&entry.name)?;
        let key = |aim| (aim, slot, entry.database);
        match put {
            Put::Look => self.fill(node, key(Aim::Key(put, entry.kind)), |out| command::append(out, &[b"EXISTS", &entry.name])),
            Put::Create | Put::Keep | Put::CreateAgain => {
                self.fill(node, key(Aim::Key(put, entry.kind)), |out| command::restore(out, entry, value, version, false));
            }
            Put::Replace => {
                self.fill(node, key(Aim::Before(entry.kind)), |out| command::append(out, &[b"EXISTS", &entry.name]));
                self.fill(node, key(Aim::Key(put, entry.kind)), |out| command::restore(out, entry, value, version, true));
            }
        }
        Ok(())
    }

    /// Fills in a library of functions for every primary; `source` and `version` are as in the dump.
    pub fn put_library(&mut self, source: &[u8], version: u16, is_replacing: bool) {
        for node in self.primaries.clone() {
            self.fill(node, (Aim::Library, 0, 0), |out| command::library(out, source, version, is_replacing));
        }
    }

    /// Ends the stretch at `end`, an offset of the caller's, and sends what is filled in; waits while too much is unanswered.
    ///
    /// # Errors
    ///
    /// [`Error`], by condition; nothing is to be sent after it.
    pub async fn cut(&mut self, end: u64) -> Result<(), Error> {
        if let Some(stretch) = self.stretches.back_mut() {
            stretch.end = Some(end);
        }
        self.stretches.push_back(Stretch::default());
        self.settle_stretches();
        self.send_all().await?;
        while let Ok(told) = self.told.try_recv() {
            self.take(told)?;
        }
        while self.unanswered_bytes > UNANSWERED_BYTES {
            self.turn().await?;
        }
        self.send_all().await
    }

    /// Sends what is filled in and waits until all of it is answered.
    ///
    /// # Errors
    ///
    /// As [`Writer::cut`].
    pub async fn drain(&mut self) -> Result<(), Error> {
        self.send_all().await?;
        while self.unanswered > 0 || !self.waiting.is_empty() {
            self.turn().await?;
        }
        Ok(())
    }

    /// Waits for what is answered still, after a fault: what is done is counted all the same. Sends nothing any more.
    pub async fn wind_down(&mut self, limit: Duration) {
        let until = Instant::now() + limit;
        self.waiting.clear();
        while self.nodes.iter().any(|node| !node.sent.is_empty()) {
            match timeout_at(until, self.told.recv()).await {
                Ok(Some(told)) if told.answers.is_ok() => {
                    if self.take(told).is_err() {
                        continue;
                    }
                }
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// Where the last settled stretch ends, and what was done up to there.
    pub fn settled(&self) -> (u64, &Counts) {
        (self.settled_at, &self.settled)
    }

    /// What was done, settled or not.
    pub fn done(&self) -> Counts {
        let mut counts = self.settled.clone();
        self.stretches.iter().for_each(|stretch| counts.add(&stretch.counts));
        counts
    }

    /// Begins at an offset, from which an earlier writer left off.
    pub fn begin_at(&mut self, offset: u64) {
        self.settled_at = offset;
    }

    /// The database of the first key that was to be created and was there.
    pub fn conflict(&self) -> Option<u32> {
        self.conflict
    }

    /// How many servers take writes.
    pub fn primaries(&self) -> usize {
        self.primaries.len()
    }

    /// Notes a conflict that was seen without sending anything.
    pub fn note_conflict(&mut self, database: u32) {
        self.conflict.get_or_insert(database);
    }

    /// Keys that counted as written because an earlier try may have done it.
    pub fn taken_for_ours(&self) -> u64 {
        self.again
    }

    /// Finds out where a long value goes, and whether its key is there. All that was sent before is answered then.
    ///
    /// # Errors
    ///
    /// As [`Writer::cut`].
    pub async fn way(&mut self, entry: &Entry) -> Result<Way, Error> {
        self.drain().await?;
        let (slot, node) = self.owner(&entry.name)?;
        self.probed = None;
        self.fill(node, (Aim::Probe, slot, entry.database), |out| command::append(out, &[b"EXISTS", &entry.name]));
        self.drain().await?;
        self.probed.take().ok_or_else(|| self.not_ready(node, "it did not tell whether a key is there".to_owned()))
    }

    /// Counts a key as settled for which nothing is to be sent.
    pub fn count(&mut self, kind: Type, counted: Count) {
        if let Some(stretch) = self.stretches.back_mut() {
            stretch.counts.0[kind as usize].add(&counted);
        }
    }

    /// Counts a library as written to every primary, for which nothing is to be sent.
    pub fn count_library(&mut self) {
        let written = self.primaries.len() as u64;
        if let Some(stretch) = self.stretches.back_mut() {
            stretch.counts.0[LIBRARIES].written += written;
        }
    }

    /// Begins to send a long value of so many bytes in the dump; its bytes follow by [`Writer::long_bytes`].
    ///
    /// # Errors
    ///
    /// As [`Writer::cut`].
    pub async fn begin_long(&mut self, way: Way, entry: &Entry, value_bytes: u64, put: Put) -> Result<(), Error> {
        let is_replacing = put == Put::Replace;
        if way.is_asking {
            self.fill(way.node, (Aim::Way, way.slot, entry.database), |out| command::append(out, &[b"ASKING"]));
        }
        if is_replacing && way.is_there {
            self.count(entry.kind, Count { found: 1, ..Count::default() });
        }
        self.fill(way.node, (Aim::Key(put, entry.kind), way.slot, entry.database), |out| command::restore_head(out, entry, value_bytes, is_replacing));
        if let Some(command) = self.nodes[way.node].commands.back_mut() {
            command.range = 0..0;
        }
        self.send_all().await?;
        let (pieces, queue) = mpsc::channel(PIECES);
        let node = &self.nodes[way.node];
        if let Some(pipe) = &node.pipe {
            pipe.send(Work::Pieces(queue));
        }
        self.long = Some(Long { pieces, footer: Footer::new(), host: node.target.name.clone() });
        self.long_bytes(&[entry.type_byte]).await
    }

    /// Sends more of the long value.
    ///
    /// # Errors
    ///
    /// As [`Writer::cut`].
    pub async fn long_bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if let Some(long) = &mut self.long {
            long.footer.cover(bytes);
        }
        self.long_piece(Bytes::copy_from_slice(bytes)).await
    }

    /// Sends the end of the long value and waits for its answer.
    ///
    /// # Errors
    ///
    /// As [`Writer::cut`]; [`Error::Elsewhere`] when it is to be put again.
    pub async fn end_long(&mut self, entry: &Entry, version: u16, put: Put) -> Result<(), Error> {
        let Some(long) = self.long.as_mut() else { return Ok(()) };
        let mut tail = Vec::with_capacity(FOOTER_BYTES + 64);
        tail.extend_from_slice(&std::mem::take(&mut long.footer).finish(version));
        command::restore_tail(&mut tail, entry, put == Put::Replace);
        self.long_piece(Bytes::from(tail)).await?;
        // Its end lets the connection go on with other work.
        self.long = None;
        self.drain().await
    }

    async fn long_piece(&mut self, piece: Bytes) -> Result<(), Error> {
        let Some(long) = &self.long else { return Ok(()) };
        match timeout(IDLE_TIMEOUT, long.pieces.send(piece)).await {
            Ok(Ok(())) => Ok(()),
            Err(_) => Err(ServerError::Unreachable { host: long.host.clone(), what: format!("it took no data for {} s", IDLE_TIMEOUT.as_secs()) }.into()),
            // Why the connection is gone is told.
            Ok(Err(_)) => loop {
                self.turn().await?;
            },
        }
    }

    /// The slot of a key and the node that takes it.
    fn owner(&self, name: &[u8]) -> Result<(u16, usize), Error> {
        if self.slots.is_empty() {
            return Ok((0, 0));
        }
        let slot = slot_of(name);
        let owner = self.slots.get(usize::from(slot)).copied().flatten();
        owner.map(|node| (slot, node)).ok_or_else(|| self.not_ready(0, format!("nobody owns slot {slot}")))
    }

    fn not_ready(&self, node: usize, what: String) -> Error {
        let host = self.nodes.get(node).map(|node| node.target.name.clone()).unwrap_or_default();
        ServerError::NotReady { host, what }.into()
    }

    /// Fills in a command for a node.
    fn fill(&mut self, node: usize, (aim, slot, database): (Aim, u16, u32), write: impl FnOnce(&mut Vec<u8>)) {
        let stretch = self.first + self.stretches.len() as u64 - 1;
        let command = Sent { aim, stretch, slot, database, range: 0..0, redirections: 0, since: None };
        self.fill_in(node, command, write);
    }

    fn fill_in(&mut self, node: usize, command: Sent, write: impl FnOnce(&mut Vec<u8>)) {
        let (database, number) = (command.database, command.stretch);
        let to = &mut self.nodes[node];
        if to.database != database && !matches!(command.aim, Aim::Library) {
            to.database = database;
            let way = Sent { aim: Aim::Way, range: 0..0, ..command.clone() };
            to.commands.push_back(way);
            command::append(&mut to.filling, &[b"SELECT", database.to_string().as_bytes()]);
            self.unanswered += 1;
            self.count_unanswered(number, 1);
        }
        let to = &mut self.nodes[node];
        let start = to.filling.len();
        write(&mut to.filling);
        to.commands.push_back(Sent { range: start..to.filling.len(), ..command });
        self.unanswered += 1;
        self.count_unanswered(number, 1);
    }

    fn count_unanswered(&mut self, stretch: u64, by: isize) {
        if let Some(stretch) = self.stretch(stretch) {
            stretch.unanswered = stretch.unanswered.saturating_add_signed(by);
        }
    }

    fn stretch(&mut self, number: u64) -> Option<&mut Stretch> {
        self.stretches.get_mut(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    /// Whether a node has enough filled in to be sent.
    pub fn is_full(&self) -> bool {
        self.nodes.iter().any(|node| node.filling.len() >= BATCH_BYTES)
    }

    /// Sends what is filled in for each node.
    ///
    /// # Errors
    ///
    /// Of connections that cannot be made.
    pub async fn send_all(&mut self) -> Result<(), Error> {
        for index in 0..self.nodes.len() {
            let node = &mut self.nodes[index];
            if node.commands.is_empty() {
                continue;
            }
            if node.pipe.is_none() {
                node.pipe = Some(Pipe::open(&node.target, index, self.tell.clone()).await?);
            }
            let bytes = Bytes::from(std::mem::take(&mut node.filling));
            self.unanswered_bytes += bytes.len();
            if let Some(pipe) = &node.pipe {
                pipe.send(Work::Bytes(bytes.clone()));
            }
            node.sent.push_back(Batch { bytes, commands: std::mem::take(&mut node.commands) });
        }
        Ok(())
    }

    /// Waits for the next answers, or until a command is to be sent again, and does what follows.
    async fn turn(&mut self) -> Result<(), Error> {
        let silence = Instant::now() + IDLE_TIMEOUT;
        let due = self.waiting.front().map_or(silence, |waiting| waiting.until.min(silence));
        tokio::select! {
            told = self.told.recv() => {
                // There is always a sender: our own.
                if let Some(told) = told {
                    self.take(told)?;
                }
            }
            () = sleep_until(due) => {
                if self.waiting.is_empty() {
                    let silent = self.nodes.iter().find(|node| !node.sent.is_empty()).map(|node| node.target.name.clone()).unwrap_or_default();
                    return Err(ServerError::Unreachable { host: silent, what: format!("no answer within {} s", IDLE_TIMEOUT.as_secs()) }.into());
                }
            }
        }
        let now = Instant::now();
        while self.waiting.front().is_some_and(|waiting| waiting.until <= now) {
            if let Some(waiting) = self.waiting.pop_front() {
                // The slot may have moved meanwhile.
                let node = self.slots.get(usize::from(waiting.command.slot)).copied().flatten().unwrap_or(waiting.node);
                self.count_unanswered(waiting.command.stretch, -1);
                self.send_again(node, &waiting.bytes, waiting.command, false);
            }
        }
        self.send_all().await
    }

    /// Looks at answers of a node.
    fn take(&mut self, told: Told) -> Result<(), Error> {
        let index = told.node;
        for answer in told.answers? {
            let node = &mut self.nodes[index];
            let Some(batch) = node.sent.front_mut() else {
                return Err(ServerError::Protocol { host: node.target.name.clone(), what: "an answer to nothing".to_owned() }.into());
            };
            let command = batch.commands.pop_front();
            let bytes = batch.bytes.clone();
            if batch.commands.is_empty() {
                self.unanswered_bytes -= bytes.len();
                node.sent.pop_front();
            }
            if let Some(command) = command {
                self.unanswered -= 1;
                self.count_unanswered(command.stretch, -1);
                self.answered(index, command, &bytes, answer)?;
            }
        }
        self.settle_stretches();
        Ok(())
    }

    fn settle_stretches(&mut self) {
        while let Some(Stretch { end: Some(end), unanswered: 0, .. }) = self.stretches.front() {
            self.settled_at = *end;
            if let Some(stretch) = self.stretches.pop_front() {
                self.settled.add(&stretch.counts);
            }
            self.first += 1;
        }
    }

    fn answered(&mut self, index: usize, command: Sent, batch: &Bytes, answer: Answer) -> Result<(), Error> {
        let text = match answer {
            Answer::Refused(text) => text,
            answer => return self.done_with(index, &command, answer == Answer::Done, matches!(answer, Answer::Number(number) if number > 0)),
        };
        let host = self.nodes[index].target.name.clone();
        let word = text.split(' ').next().unwrap_or_default();
        let (number, database) = (command.stretch, command.database);
        match (word, command.aim) {
            ("BUSYKEY", Aim::Key(put, kind)) => {
                let is_ours = put == Put::CreateAgain;
                self.again += u64::from(is_ours);
                if put == Put::Create {
                    self.conflict.get_or_insert(database);
                }
                let count = if is_ours { Count { written: 1, ..Count::default() } } else { Count { left: 1, ..Count::default() } };
                self.count_in(number, kind as usize, count);
                Ok(())
            }
            ("ERR", Aim::Library) if text.ends_with("already exists") => {
                self.count_in(number, LIBRARIES, Count { left: 1, ..Count::default() });
                Ok(())
            }
            ("MOVED" | "ASK", Aim::Key(..) | Aim::Probe | Aim::Before(_)) => {
                let to = self.told_node(index, &text)?;
                let is_asking = word == "ASK";
                if let (false, Some(owner)) = (is_asking, self.slots.get_mut(usize::from(command.slot))) {
                    *owner = Some(to);
                }
                if command.redirections >= REDIRECTIONS {
                    return Err(self.not_ready(index, format!("slot {} was sent elsewhere {REDIRECTIONS} times", command.slot)));
                }
                if command.range.is_empty() {
                    return Err(Error::Elsewhere { host });
                }
                let bytes = batch.slice(command.range.clone());
                self.send_again(to, &bytes, Sent { redirections: command.redirections + 1, ..command }, is_asking);
                Ok(())
            }
            ("TRYAGAIN" | "CLUSTERDOWN" | "LOADING" | "BUSY" | "MASTERDOWN", Aim::Key(..) | Aim::Probe | Aim::Before(_)) => {
                let now = Instant::now();
                let since = command.since.unwrap_or(now);
                if now - since > PATIENCE || command.range.is_empty() {
                    return Err(self.not_ready(index, super::clean(&text)));
                }
                let bytes = batch.slice(command.range.clone());
                // Its stretch is not settled while it waits.
                self.count_unanswered(number, 1);
                self.waiting.push_back(Waiting { until: now + PAUSE, node: index, bytes, command: Sent { since: Some(since), ..command } });
                Ok(())
            }
            ("OOM", _) => Err(Error::Full { host, what: super::clean(&text) }),
            ("READONLY", _) => Err(ServerError::Role { host, what: "it is a replica now and takes no writes".to_owned() }.into()),
            ("ERR", _) => Err(Error::Refused { host, what: super::clean(&text) }),
            _ => Err(ServerError::from_reply(&host, &text).into()),
        }
    }

    /// Counts what went well.
    fn done_with(&mut self, index: usize, command: &Sent, is_done: bool, is_there: bool) -> Result<(), Error> {
        let one = |is: bool| u64::from(is);
        match command.aim {
            Aim::Key(Put::Look, kind) => {
                self.count_in(command.stretch, kind as usize, Count { found: one(is_there), missing: one(!is_there), ..Count::default() });
            }
            Aim::Key(Put::Create | Put::Keep | Put::CreateAgain | Put::Replace, kind) if is_done => {
                self.count_in(command.stretch, kind as usize, Count { written: 1, ..Count::default() });
            }
            Aim::Library if is_done => self.count_in(command.stretch, LIBRARIES, Count { written: 1, ..Count::default() }),
            Aim::Before(kind) => self.count_in(command.stretch, kind as usize, Count { found: one(is_there), ..Count::default() }),
            Aim::Probe => {
                let is_asking = self.slots.get(usize::from(command.slot)).is_some_and(|owner| *owner != Some(index));
                self.probed = Some(Way { node: index, is_asking, slot: command.slot, is_there });
            }
            Aim::Way if is_done => {}
            Aim::Key(..) | Aim::Library | Aim::Way => {
                let host = self.nodes[index].target.name.clone();
                return Err(ServerError::Protocol { host, what: "a number for an answer to RESTORE".to_owned() }.into());
            }
        }
        Ok(())
    }

    fn count_in(&mut self, stretch: u64, kind: usize, count: Count) {
        if let Some(stretch) = self.stretch(stretch) {
            stretch.counts.0[kind].add(&count);
        }
    }

    /// Fills in a command once more.
    fn send_again(&mut self, node: usize, bytes: &Bytes, command: Sent, is_asking: bool) {
        if is_asking {
            let way = Sent { aim: Aim::Way, ..command.clone() };
            // A way to a database goes before it: what follows it is the key.
            self.fill_in(node, way, |out| command::append(out, &[b"ASKING"]));
        }
        self.fill_in(node, command, |out| out.extend_from_slice(bytes));
    }

    /// The node that an answer names.
    fn told_node(&self, index: usize, text: &str) -> Result<usize, Error> {
        let from = &self.nodes[index].target;
        let named = text.split(' ').nth(2).unwrap_or_default();
        // An address without a host is a port of the host that tells it.
        let address = match (named.strip_prefix(':').map(str::parse::<u16>), &from.address) {
            (Some(Ok(port)), Address::Tcp { host, .. }) => Some(Address::Tcp { host: host.clone(), port }),
            _ => announced(named),
        };
        let address = address.map(|address| self.address_map.get(&address).cloned().unwrap_or(address));
        let known = self.nodes.iter().position(|node| Some(&node.target.address) == address.as_ref());
        known.ok_or_else(|| self.not_ready(index, format!("it sends keys to {named}, which was not among the nodes of the cluster")))
    }
}
