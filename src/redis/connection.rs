//! One connection: dialling, logging in, and commands with bounded replies (RESP2).

use super::{Address, CONNECT_TIMEOUT, Error, REPLY_TIMEOUT, Target, clean, rights, tls};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// Longest line of a reply, in bytes.
const LINE_BYTES: usize = 64 * 1024;
/// Longest bulk string of a reply, in bytes. INFO of a large server is far below.
const BULK_BYTES: usize = 4 * 1024 * 1024;
/// Most elements of one array.
const ARRAY_LEN: usize = 65_536;
/// Longest reply with all its elements, in bytes.
const REPLY_BYTES: usize = 8 * 1024 * 1024;
/// Deepest nesting of arrays.
const DEPTH: usize = 8;
/// Most bytes read at once.
const READ_BYTES: usize = 16 * 1024;

/// The account of a connection that names none.
pub(super) const DEFAULT_USER: &str = "default";

/// A byte stream to a server.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `+text`
    Simple(String),
    /// `-text`
    Error(String),
    /// `:number`
    Integer(i64),
    /// `$bytes`; absent for a null.
    Bulk(Option<Vec<u8>>),
    /// `*elements`; absent for a null.
    Array(Option<Vec<Reply>>),
}

impl Reply {
    /// The text of a simple or bulk string; invalid UTF-8 is replaced.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Simple(text) => Some(text.clone()),
            Self::Bulk(Some(bytes)) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Self::Error(_) | Self::Integer(_) | Self::Bulk(None) | Self::Array(_) => None,
        }
    }

    /// The elements of an array.
    pub fn elements(&self) -> &[Reply] {
        match self {
            Self::Array(Some(elements)) => elements,
            Self::Simple(_) | Self::Error(_) | Self::Integer(_) | Self::Bulk(_) | Self::Array(None) => &[],
        }
    }
}

/// A logged-in connection.
pub struct Connection {
    host: String,
    user: String,
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
    start: usize,
}

impl Connection {
    /// Dials, secures the connection where the target asks for it, and logs in: within [`CONNECT_TIMEOUT`] and, for the
    /// log-in, [`REPLY_TIMEOUT`].
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`], [`Error::Certificate`], [`Error::Credentials`], or what the server answers to AUTH.
    pub async fn open(target: &Target) -> Result<Self, Error> {
        let stream = timeout(CONNECT_TIMEOUT, dial(target))
            .await
            .map_err(|_| unreachable(&target.name, format!("no connection within {} s", CONNECT_TIMEOUT.as_secs())))?
            .map_err(|fault| tls::fault(&target.name, &fault))?;
        let user = target.credentials.username.clone().unwrap_or_else(|| DEFAULT_USER.to_owned());
        let mut connection = Self { host: target.name.clone(), user, stream, buffer: Vec::new(), start: 0 };
        if let Some(password) = &target.credentials.password {
            let reply = match &target.credentials.username {
                Some(username) => connection.command(&[b"AUTH", username.as_bytes(), password.secret().as_bytes()]).await?,
                None => connection.command(&[b"AUTH", password.secret().as_bytes()]).await?,
            };
            connection.expect_ok("AUTH", reply)?;
        }
        Ok(connection)
    }

    /// A connection over a stream of a test.
    #[cfg(test)]
    pub(super) fn over(host: &str, stream: Box<dyn Stream>) -> Self {
        Self { host: host.to_owned(), user: DEFAULT_USER.to_owned(), stream, buffer: Vec::new(), start: 0 }
    }

    /// The server's name.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The account, as it was given.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// What an error reply (without its leading `-`) means; a missing right is told with the line that gives it.
    pub fn refusal(&self, reply: &str) -> Error {
        match Error::from_reply(&self.host, reply) {
            Error::Permission { host, .. } if reply.starts_with("NOPERM") => {
                Error::Permission { host, what: rights::told(&clean(reply), Some(&clean(&self.user))) }
            }
            other => other,
        }
    }

    /// Sends a command and reads its reply, within [`REPLY_TIMEOUT`]. An error reply is a [`Reply::Error`].
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`], [`Error::Protocol`].
    pub async fn command(&mut self, arguments: &[&[u8]]) -> Result<Reply, Error> {
        self.command_within(arguments, REPLY_TIMEOUT).await
    }

    async fn command_within(&mut self, arguments: &[&[u8]], limit: Duration) -> Result<Reply, Error> {
        let name = String::from_utf8_lossy(arguments.first().copied().unwrap_or_default()).into_owned();
        let exchange = async {
            self.send(arguments).await?;
            let mut left = REPLY_BYTES;
            self.reply(0, &mut left).await
        };
        match timeout(limit, exchange).await {
            Ok(reply) => reply,
            Err(_) => Err(unreachable(&self.host, format!("no reply to {name} within {} s", limit.as_secs()))),
        }
    }

    /// Sends a command whose error reply is an error.
    ///
    /// # Errors
    ///
    /// [`Error::from_reply`] for an error reply; else as [`Connection::command`].
    pub async fn call(&mut self, arguments: &[&[u8]]) -> Result<Reply, Error> {
        match self.command(arguments).await? {
            Reply::Error(text) => Err(self.refusal(&text)),
            reply => Ok(reply),
        }
    }

    /// Sends several commands at once and reads their replies in order, all within [`REPLY_TIMEOUT`]. Error replies are
    /// [`Reply::Error`]s. The caller bounds how many there are: all of them are written before the first reply is read.
    ///
    /// # Errors
    ///
    /// As [`Connection::command`].
    pub async fn commands(&mut self, batch: &[Vec<&[u8]>]) -> Result<Vec<Reply>, Error> {
        let exchange = async {
            let packet: Vec<u8> = batch.iter().flat_map(|arguments| packet(arguments)).collect();
            self.stream.write_all(&packet).await.map_err(|fault| tls::fault(&self.host, &fault))?;
            self.stream.flush().await.map_err(|fault| tls::fault(&self.host, &fault))?;
            let mut replies = Vec::with_capacity(batch.len());
            let mut left = REPLY_BYTES;
            for _ in batch {
                replies.push(self.reply(0, &mut left).await?);
            }
            Ok(replies)
        };
        match timeout(REPLY_TIMEOUT, exchange).await {
            Ok(replies) => replies,
            Err(_) => Err(unreachable(&self.host, format!("no reply to {} commands within {} s", batch.len(), REPLY_TIMEOUT.as_secs()))),
        }
    }

    /// Sends a command and reads no reply.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`].
    pub async fn send(&mut self, arguments: &[&[u8]]) -> Result<(), Error> {
        self.stream.write_all(&packet(arguments)).await.map_err(|fault| tls::fault(&self.host, &fault))?;
        // What is secured may wait in a buffer otherwise.
        self.stream.flush().await.map_err(|fault| tls::fault(&self.host, &fault))
    }

    /// Reads one line without its end, skipping bare newlines before it; each of them is told to `kept_alive`.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`] when the connection ends, [`Error::Protocol`] for a line that is too long.
    pub async fn line_after_keep_alives(&mut self, mut kept_alive: impl FnMut()) -> Result<String, Error> {
        loop {
            while self.start == self.buffer.len() {
                self.fill().await?;
            }
            if self.buffer[self.start] != b'\n' {
                return self.line().await;
            }
            self.start += 1;
            kept_alive();
        }
    }

    /// Gives up the connection: the bytes read already, and the stream.
    pub fn into_parts(self) -> (Vec<u8>, Box<dyn Stream>) {
        (self.buffer[self.start..].to_vec(), self.stream)
    }

    fn expect_ok(&self, what: &str, reply: Reply) -> Result<(), Error> {
        match reply {
            Reply::Simple(text) if text.starts_with("OK") => Ok(()),
            Reply::Error(text) => Err(self.refusal(&text)),
            _ => Err(self.protocol(format!("an odd reply to {what}"))),
        }
    }

    fn protocol(&self, what: impl Into<String>) -> Error {
        Error::Protocol { host: self.host.clone(), what: what.into() }
    }

    fn spend(&self, left: &mut usize, bytes: usize) -> Result<(), Error> {
        *left = left.checked_sub(bytes).ok_or_else(|| self.protocol(format!("a reply of more than {REPLY_BYTES} bytes")))?;
        Ok(())
    }

    async fn fill(&mut self) -> Result<(), Error> {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        let mut piece = [0; READ_BYTES];
        let count = self.stream.read(&mut piece).await.map_err(|fault| tls::fault(&self.host, &fault))?;
        if count == 0 {
            return Err(unreachable(&self.host, "it closed the connection".to_owned()));
        }
        self.buffer.extend_from_slice(&piece[..count]);
        Ok(())
    }

    async fn line(&mut self) -> Result<String, Error> {
        let mut looked_at = 0;
        loop {
            let unread = &self.buffer[self.start..];
            if let Some(end) = unread[looked_at..].iter().position(|byte| *byte == b'\n').map(|at| at + looked_at) {
                let line = &unread[..end];
                let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned();
                self.start += end + 1;
                return Ok(line);
            }
            looked_at = unread.len();
            if looked_at > LINE_BYTES {
                return Err(self.protocol(format!("a line of more than {LINE_BYTES} bytes")));
            }
            self.fill().await?;
        }
    }

    async fn bulk(&mut self, length: usize) -> Result<Vec<u8>, Error> {
        if length > BULK_BYTES {
            return Err(self.protocol(format!("a reply of {length} bytes, more than {BULK_BYTES}")));
        }
        while self.buffer.len() - self.start < length + 2 {
            self.fill().await?;
        }
        let bytes = self.buffer[self.start..self.start + length].to_vec();
        self.start += length + 2;
        Ok(bytes)
    }

    /// `left` is how many bytes the reply may still have.
    async fn reply(&mut self, depth: usize, left: &mut usize) -> Result<Reply, Error> {
        let line = self.line().await?;
        self.spend(left, line.len())?;
        let Some(kind) = line.chars().next().filter(char::is_ascii) else {
            return Err(self.protocol("an empty line for a reply"));
        };
        let rest = &line[1..];
        match kind {
            '+' => Ok(Reply::Simple(rest.to_owned())),
            '-' => Ok(Reply::Error(clean(rest))),
            ':' => rest.parse().map(Reply::Integer).map_err(|_| self.protocol("a number that is none")),
            '$' | '*' if rest == "-1" => Ok(if kind == '$' { Reply::Bulk(None) } else { Reply::Array(None) }),
            '$' => {
                let length = rest.parse().map_err(|_| self.protocol("a length that is none"))?;
                self.spend(left, length)?;
                Ok(Reply::Bulk(Some(self.bulk(length).await?)))
            }
            '*' => {
                let length: usize = rest.parse().map_err(|_| self.protocol("a length that is none"))?;
                if length > ARRAY_LEN || depth >= DEPTH {
                    return Err(self.protocol("an array that is too long or too deep"));
                }
                let mut elements = Vec::new();
                for _ in 0..length {
                    elements.push(Box::pin(self.reply(depth + 1, left)).await?);
                }
                Ok(Reply::Array(Some(elements)))
            }
            _ => Err(self.protocol("a reply of no known kind; is this a Redis server without TLS?")),
        }
    }
}

/// A command as it is sent.
fn packet(arguments: &[&[u8]]) -> Vec<u8> {
    let mut packet = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        packet.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        packet.extend_from_slice(argument);
        packet.extend_from_slice(b"\r\n");
    }
    packet
}

async fn dial(target: &Target) -> std::io::Result<Box<dyn Stream>> {
    match &target.address {
        Address::Tcp { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            match &target.tls {
                Some(tls) => Ok(Box::new(tls.over(&target.address, stream).await?)),
                None => Ok(Box::new(stream)),
            }
        }
        Address::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
    }
}

fn unreachable(host: &str, what: String) -> Error {
    Error::Unreachable { host: host.to_owned(), what }
}
