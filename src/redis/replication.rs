//! The hand-shake of a replica, and the two framings of the payload.
//!
//! We play a replica that wants one snapshot and nothing else. After the hand-shake the connection carries the payload;
//! [`Transfer`] hands it out in pieces, keep-alives skipped, nothing of the framing included.

use super::connection::{Connection, Reply, Stream};
use super::facts::{Engine, Facts, Version};
use super::{Error, IDLE_TIMEOUT, REPLY_TIMEOUT, Target, clean};
use crate::cluster::Timestamp;
use chrono::Utc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout, timeout_at};

/// Length of the end mark of a diskless payload, in bytes.
///
/// Source: Redis replication, the `$EOF:` form of the full-synchronisation reply.
pub const MARK_BYTES: usize = 40;

/// Longest wait for the source to begin its snapshot, keep-alives or not: another child of it may be at work before.
pub const BEGIN_TIMEOUT: Duration = Duration::from_secs(3600);

/// How the end of the payload is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Framing {
    /// By its length, in bytes.
    Length(u64),
    /// By 40 bytes that follow it.
    Mark([u8; MARK_BYTES]),
}

/// Whether a source may keep all writes of the meantime in a buffer for us: what one does that does not know `rdb-only`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputBuffer {
    /// It may, and it may close the connection when the buffer is full.
    Accepted,
    /// It may not: the source is left alone then.
    Refused,
}

/// Which dialect of the dump is asked for, where the source can choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Dialect {
    /// Its own, which holds everything.
    #[default]
    Own,
    /// One that older servers, and Redis up to 7.2, can load. Data that it cannot hold makes the source break off.
    Portable,
}

/// First version of Valkey that writes the dialect of the version that it hears.
const DIALECTS_SINCE: Version = Version(9, 0, 0);

/// What we call ourselves when a portable dump is wanted: the last Valkey whose dialect Redis reads too.
const PORTABLE_VERSION: Version = Version(8, 0, 0);

impl Dialect {
    /// The version that we give for our own; `None` where the source has but one dialect.
    pub fn version(self, facts: &Facts) -> Option<Version> {
        let chooses = facts.engine == Engine::Valkey && facts.version >= DIALECTS_SINCE;
        chooses.then_some(match self {
            Self::Own => facts.version,
            Self::Portable => PORTABLE_VERSION,
        })
    }
}

/// A transfer that has begun: the source has forked and tells its position.
pub struct Transfer {
    host: String,
    stream: Box<dyn Stream>,
    leftover: Vec<u8>,
    /// How the connection broke, when that was seen in passing.
    failed: Option<std::io::ErrorKind>,
    /// How the end is told.
    pub framing: Framing,
    /// Id of the source's history.
    pub replication_id: String,
    /// Offset in it at the snapshot.
    pub replication_offset: i64,
    /// When the synchronisation was asked for.
    pub asked_at: Timestamp,
    /// When the source told its position.
    pub began_at: Timestamp,
    /// Whether the source keeps no output buffer for us.
    pub rdb_only: bool,
}

/// A server that has heard what we can take, and was asked for nothing yet.
pub struct Greeted {
    connection: Connection,
    rdb_only: bool,
    is_portable: bool,
}

/// Connects to a server and tells it what we can take. It has no reason to fork yet.
///
/// # Errors
///
/// What the connection or the server says.
pub async fn greet(target: &Target, facts: &Facts, output_buffer: OutputBuffer, dialect: Dialect) -> Result<Greeted, Error> {
    let mut connection = Connection::open(target).await?;
    connection.call(&[b"PING"]).await?;
    let marked = connection.command(&[b"REPLCONF", b"capa", b"eof"]).await?;
    if let Reply::Error(text) = &marked
        && let error @ (Error::Permission { .. } | Error::Credentials { .. }) = connection.refusal(text)
    {
        return Err(error);
    }
    let rdb_only = matches!(connection.command(&[b"REPLCONF", b"rdb-only", b"1"]).await?, Reply::Simple(text) if text.starts_with("OK"));
    if !rdb_only && output_buffer == OutputBuffer::Refused {
        return Err(Error::Unsupported {
            host: target.name.clone(),
            what: "it does not take `rdb-only`, so it would keep all writes of the meantime in a buffer for us; accept the risk with allow_output_buffer_risk = true".to_owned(),
        });
    }
    let version = dialect.version(facts);
    if let Some(version) = version {
        connection.command(&[b"REPLCONF", b"version", version.to_string().as_bytes()]).await?;
    }
    let is_portable = version.is_some() && dialect == Dialect::Portable;
    Ok(Greeted { connection, rdb_only, is_portable })
}

impl Greeted {
    /// Asks for a snapshot and waits until it begins.
    ///
    /// `waiting` hears a sentence while the source does not begin.
    ///
    /// # Errors
    ///
    /// What the connection or the server says, [`Error::is_refusal`] only when it has not forked for us;
    /// [`Error::Unreachable`] after [`IDLE_TIMEOUT`] of silence or [`BEGIN_TIMEOUT`] in all.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection; a diskless source then ends its save.
    pub async fn begin(self, mut waiting: impl FnMut(&str)) -> Result<Transfer, Error> {
        let Self { mut connection, rdb_only, is_portable } = self;
        let host = connection.host().to_owned();
        let asked_at = Utc::now();
        connection.send(&[b"PSYNC", b"?", b"-1"]).await?;
        let until = Instant::now() + BEGIN_TIMEOUT;
        let status = line(&mut connection, &host, until, || waiting("the source to begin its snapshot")).await?;
        let began_at = Utc::now();
        if let Some(text) = status.strip_prefix('-') {
            return Err(connection.refusal(text));
        }
        let protocol = |what: String| Error::Protocol { host: host.clone(), what };
        let (replication_id, replication_offset) =
            full_resync(&status).ok_or_else(|| protocol(format!("instead of a full synchronisation it answered: {}", clean(&status))))?;
        let preamble = match line(&mut connection, &host, until, || waiting("the source to write its snapshot")).await {
            Err(Error::Unreachable { host, what }) if is_portable => {
                let why = "it may have data that no portable dump can hold, such as fields of hashes that expire; then take back portable_dump";
                return Err(Error::Save { host, what: format!("{what}; {why}") });
            }
            preamble => preamble?,
        };
        if let Some(text) = preamble.strip_prefix('-') {
            // It has begun, so whatever it says, it is no refusal.
            return Err(Error::Save { host, what: clean(text) });
        }
        let framing = framing(&preamble).ok_or_else(|| protocol(format!("an odd head of the payload: {}", clean(&preamble))))?;
        let (leftover, stream) = connection.into_parts();
        Ok(Transfer { host, stream, leftover, failed: None, framing, replication_id, replication_offset, asked_at, began_at, rdb_only })
    }
}

async fn line(connection: &mut Connection, host: &str, until: Instant, mut kept_alive: impl FnMut()) -> Result<String, Error> {
    // Keep-alives end a silence, so the time of silence is taken anew after each; the total stands.
    let heard = std::sync::Mutex::new(Instant::now());
    let reading = connection.line_after_keep_alives(|| {
        *heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now();
        kept_alive();
    });
    tokio::pin!(reading);
    loop {
        let silent_since = *heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let next = (silent_since + IDLE_TIMEOUT).min(until);
        match timeout_at(next, &mut reading).await {
            Ok(line) => return line,
            Err(_) if Instant::now() >= until => {
                return Err(Error::Unreachable { host: host.to_owned(), what: format!("it did not begin a snapshot within {} s", BEGIN_TIMEOUT.as_secs()) });
            }
            Err(_) if heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner).elapsed() >= IDLE_TIMEOUT => {
                return Err(Error::Unreachable { host: host.to_owned(), what: format!("no byte for {} s", IDLE_TIMEOUT.as_secs()) });
            }
            Err(_) => {}
        }
    }
}

/// Reads `+FULLRESYNC id offset`; further words are skipped, some servers send them.
fn full_resync(line: &str) -> Option<(String, i64)> {
    let mut words = line.strip_prefix("+FULLRESYNC ")?.split_ascii_whitespace();
    let id = words.next().filter(|id| id.len() == 40 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    Some((id.to_owned(), words.next()?.parse().ok()?))
}

/// Reads `$length` or `$EOF:mark`.
fn framing(line: &str) -> Option<Framing> {
    let rest = line.strip_prefix('$')?;
    match rest.strip_prefix("EOF:") {
        Some(mark) => Some(Framing::Mark(mark.as_bytes().try_into().ok()?)),
        // A dump is never empty.
        None => Some(Framing::Length(rest.parse().ok().filter(|length| *length > 0)?)),
    }
}

impl Transfer {
    /// The server's name.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Reads the next bytes after the head of the payload into `buffer`, up to its capacity; returns how many, zero when the
    /// source closed the connection.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`] after [`IDLE_TIMEOUT`] without a byte, or when the connection fails.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    pub async fn read(&mut self, buffer: &mut Vec<u8>) -> Result<usize, Error> {
        buffer.clear();
        if !self.leftover.is_empty() {
            std::mem::swap(buffer, &mut self.leftover);
            return Ok(buffer.len());
        }
        if let Some(kind) = self.failed {
            return Err(self.broken(kind));
        }
        match timeout(IDLE_TIMEOUT, self.stream.read_buf(buffer)).await {
            Ok(Ok(count)) => Ok(count),
            Ok(Err(fault)) => Err(self.broken(fault.kind())),
            Err(_) => Err(Error::Unreachable { host: self.host.clone(), what: format!("no byte for {} s", IDLE_TIMEOUT.as_secs()) }),
        }
    }

    /// Appends what has come meanwhile to `buffer`, up to its capacity, without waiting for more; returns how much that was, zero
    /// when there is nothing. That the connection has ended or failed is left to [`Transfer::read`].
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    pub async fn read_more(&mut self, buffer: &mut Vec<u8>) -> usize {
        if buffer.len() == buffer.capacity() || !self.leftover.is_empty() || self.failed.is_some() {
            return 0;
        }
        // Polled once: what is there is taken.
        match timeout(Duration::ZERO, self.stream.read_buf(buffer)).await {
            Ok(Ok(count)) => count,
            Ok(Err(fault)) => {
                self.failed = Some(fault.kind());
                0
            }
            Err(_) => 0,
        }
    }

    fn broken(&self, kind: std::io::ErrorKind) -> Error {
        Error::Unreachable { host: self.host.clone(), what: format!("the connection broke: {kind}") }
    }

    /// Reads until the source closes, for at most [`REPLY_TIMEOUT`], and returns what came, at most `limit` bytes.
    pub async fn drain(&mut self, limit: usize) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.leftover);
        let until = Instant::now() + REPLY_TIMEOUT;
        let mut piece = [0; 256];
        while rest.len() < limit {
            match timeout_at(until, self.stream.read(&mut piece)).await {
                Ok(Ok(count)) if count > 0 => rest.extend_from_slice(&piece[..count]),
                _ => break,
            }
        }
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "8371b4fb1155b71f4a04d3e1bc3e18c4a990aeeb";

    #[test]
    fn the_status_line_is_read_with_its_extras() {
        assert_eq!(full_resync(&format!("+FULLRESYNC {ID} 42")), Some((ID.into(), 42)));
        assert_eq!(full_resync(&format!("+FULLRESYNC {ID} 42 43 more")), Some((ID.into(), 42)));
        for line in ["+CONTINUE", "+FULLRESYNC", "+FULLRESYNC short 1", &format!("+FULLRESYNC {ID}"), &format!("+FULLRESYNC {ID} x"), "$10"] {
            assert_eq!(full_resync(line), None, "{line}");
        }
    }

    /// A server of which only silence and newlines are heard, with the end on which it speaks.
    fn quiet() -> (Greeted, tokio::io::DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(1024);
        (Greeted { connection: Connection::over("h:1", Box::new(ours)), rdb_only: true, is_portable: false }, theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn silence_before_the_snapshot_has_a_limit() {
        let (greeted, _server) = quiet();
        let started = Instant::now();
        let fault = greeted.begin(|_| {}).await.err().unwrap();
        assert_eq!(fault.to_string(), "h:1 cannot be reached: no byte for 60 s");
        assert!(!fault.is_refusal());
        assert_eq!(started.elapsed().as_secs(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn keep_alives_end_a_silence_but_not_the_whole_wait() {
        use tokio::io::AsyncWriteExt;
        let (greeted, mut server) = quiet();
        let speaking = tokio::spawn(async move {
            while server.write_all(b"\n").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(50)).await;
            }
        });
        let started = Instant::now();
        let mut heard = 0;
        let fault = greeted.begin(|_| heard += 1).await.err().unwrap();
        assert_eq!(fault.to_string(), "h:1 cannot be reached: it did not begin a snapshot within 3600 s");
        assert_eq!((started.elapsed(), heard), (BEGIN_TIMEOUT, 72));
        speaking.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn silence_in_the_payload_has_a_limit() {
        use tokio::io::AsyncWriteExt;
        let (greeted, mut server) = quiet();
        server.write_all(format!("+FULLRESYNC {ID} 1\r\n$100\r\nREDIS").as_bytes()).await.unwrap();
        let mut transfer = greeted.begin(|_| {}).await.unwrap();
        let mut piece = Vec::with_capacity(10);
        assert_eq!(transfer.read(&mut piece).await.unwrap(), 5);
        let started = Instant::now();
        let fault = transfer.read(&mut piece).await.unwrap_err();
        assert_eq!(fault.to_string(), "h:1 cannot be reached: no byte for 60 s");
        assert_eq!(started.elapsed(), IDLE_TIMEOUT);
        drop(server);
    }

    #[test]
    fn the_head_has_two_forms() {
        assert_eq!(framing("$175"), Some(Framing::Length(175)));
        assert_eq!(framing(&format!("$EOF:{ID}")), Some(Framing::Mark(ID.as_bytes().try_into().unwrap())));
        for line in ["$", "$-1", "$0", "$EOF:", "$EOF:short", "175", "$99999999999999999999"] {
            assert_eq!(framing(line), None, "{line}");
        }
    }
}
