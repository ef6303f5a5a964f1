//! What a target says before it is served: a few commands, read with a bound and forgotten.

use tokio::io::{AsyncRead, AsyncReadExt};

/// Most commands of one hand-shake.
const COMMANDS: usize = 64;

/// Most words of one command.
const WORDS: usize = 64;

/// Longest line, in bytes.
const LINE_BYTES: usize = 256;

/// Longest word, in bytes. A password is the longest that comes.
const WORD_BYTES: usize = 16 * 1024;

/// Bytes read at once.
const READ_BYTES: usize = 1024;

/// A command, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// PING.
    Ping,
    /// One that is agreed to and changes nothing: AUTH, REPLCONF.
    Accepted,
    /// PSYNC.
    Psync,
    /// SYNC, of servers that know no other.
    Sync,
    /// Any other.
    Unknown,
}

/// The commands of one connection. Nothing of what they say is kept.
pub(super) struct Requests<R> {
    reader: R,
    buffer: Vec<u8>,
    start: usize,
    commands: usize,
}

impl<R: AsyncRead + Unpin> Requests<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, buffer: Vec::new(), start: 0, commands: 0 }
    }

    /// Reads the next command.
    pub(super) async fn next(&mut self) -> Result<Request, String> {
        self.commands += 1;
        if self.commands > COMMANDS {
            return Err(format!("a hand-shake of more than {COMMANDS} commands"));
        }
        let line = self.line().await?;
        let Some(count) = line.strip_prefix(b"*") else {
            return Ok(kind(line.split(|byte| *byte == b' ').next().unwrap_or_default()));
        };
        let count = number(count).filter(|count| (1..=WORDS).contains(count)).ok_or("an odd command")?;
        let mut request = Request::Unknown;
        for index in 0..count {
            let line = self.line().await?;
            let length = line.strip_prefix(b"$").and_then(number).filter(|length| *length <= WORD_BYTES).ok_or("an odd word of a command")?;
            while self.buffer.len() - self.start < length + 2 {
                self.fill().await?;
            }
            if index == 0 {
                request = kind(&self.buffer[self.start..self.start + length]);
            }
            self.start += length + 2;
        }
        Ok(request)
    }

    /// The stream, when all that came was understood. A target says nothing more before it is answered.
    pub(super) fn into_reader(self) -> R {
        self.reader
    }

    async fn line(&mut self) -> Result<Vec<u8>, String> {
        loop {
            let unread = &self.buffer[self.start..];
            if let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
                let line = unread[..end].strip_suffix(b"\r").unwrap_or(&unread[..end]).to_vec();
                self.start += end + 1;
                return Ok(line);
            }
            if unread.len() > LINE_BYTES {
                return Err(format!("a line of more than {LINE_BYTES} bytes"));
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<(), String> {
        // What was read over may have been a password.
        self.buffer[..self.start].fill(0);
        self.buffer.drain(..self.start);
        self.start = 0;
        let mut piece = [0; READ_BYTES];
        let count = self.reader.read(&mut piece).await.map_err(|fault| format!("a connection was lost: {}", fault.kind()))?;
        if count == 0 {
            return Err("a connection ended before it asked for the dump".to_owned());
        }
        self.buffer.extend_from_slice(&piece[..count]);
        Ok(())
    }
}

fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn kind(word: &[u8]) -> Request {
    match word.to_ascii_uppercase().as_slice() {
        b"PING" => Request::Ping,
        b"AUTH" | b"REPLCONF" => Request::Accepted,
        b"PSYNC" => Request::Psync,
        b"SYNC" => Request::Sync,
        _ => Request::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(bytes: &[u8]) -> (Vec<Request>, String) {
        let mut requests = Requests::new(bytes);
        let mut seen = Vec::new();
        loop {
            match requests.next().await {
                Ok(request) => seen.push(request),
                Err(what) => return (seen, what),
            }
        }
    }

    #[tokio::test]
    async fn both_forms_are_read() {
        let (seen, end) = all(b"PING\r\n*2\r\n$4\r\nauth\r\n$2\r\n\r\n\r\nsync\n*1\r\n$5\r\nPSYNC\r\n").await;
        assert_eq!(seen, [Request::Ping, Request::Accepted, Request::Sync, Request::Psync]);
        assert!(end.contains("ended"), "{end}");
    }

    #[tokio::test]
    async fn what_has_no_bound_is_refused() {
        let long_line = vec![b'a'; 2000];
        let many = b"PING\r\n".repeat(COMMANDS + 1);
        for bytes in [&b"*0\r\n"[..], b"*99999999999999999999\r\n", b"*65\r\n", b"*-1\r\n", b"*1\r\n$99999999\r\n", b"*1\r\nPING\r\n", &long_line, &many] {
            let (_, end) = all(bytes).await;
            assert!(!end.contains("ended"), "{end} {:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(20)]));
        }
    }
}
