//! A small RESP2 client, independent of the product's.
//!
//! Strict on purpose: anything unexpected is an error with the bytes in it.

use bytes::{Buf, Bytes, BytesMut};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Time that a peer may be silent, unless [`Connection::patience`] says otherwise.
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(30);

/// Longest header line of a reply, in bytes.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// One reply.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Value {
    /// `+OK`
    Status(String),
    /// `-ERR …`, without the sign.
    Error(String),
    /// `:1`
    Integer(i64),
    /// `$3`
    Bulk(Bytes),
    /// `$-1` or `*-1`
    Nil,
    /// `*2`
    Array(Vec<Value>),
}

impl Value {
    /// A bulk string.
    pub fn bulk(bytes: impl AsRef<[u8]>) -> Self {
        Self::Bulk(Bytes::copy_from_slice(bytes.as_ref()))
    }

    /// An array of bulk strings.
    pub fn bulks<T: AsRef<[u8]>>(items: impl IntoIterator<Item = T>) -> Self {
        Self::Array(items.into_iter().map(Self::bulk).collect())
    }

    /// The text of a status or bulk string. Panics on anything else.
    pub fn text(&self) -> String {
        match self {
            Self::Status(text) => text.clone(),
            Self::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Error(_) | Self::Integer(_) | Self::Nil | Self::Array(_) => panic!("expected text, got {self:?}"),
        }
    }

    /// The bytes of a bulk string. Panics on anything else.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::Bulk(bytes) => bytes,
            Self::Status(_) | Self::Error(_) | Self::Integer(_) | Self::Nil | Self::Array(_) => panic!("expected a bulk string, got {self:?}"),
        }
    }

    /// The integer. Panics on anything else.
    pub fn integer(&self) -> i64 {
        match self {
            Self::Integer(integer) => *integer,
            Self::Status(_) | Self::Error(_) | Self::Bulk(_) | Self::Nil | Self::Array(_) => panic!("expected an integer, got {self:?}"),
        }
    }

    /// The items of an array. Panics on anything else.
    pub fn items(&self) -> &[Value] {
        match self {
            Self::Array(items) => items,
            Self::Status(_) | Self::Error(_) | Self::Integer(_) | Self::Bulk(_) | Self::Nil => panic!("expected an array, got {self:?}"),
        }
    }

    /// The text of an error reply.
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::Error(text) => Some(text),
            Self::Status(_) | Self::Integer(_) | Self::Bulk(_) | Self::Nil | Self::Array(_) => None,
        }
    }

    /// Panics unless this is `+OK`.
    pub fn ok(&self) {
        assert!(matches!(self, Self::Status(text) if text == "OK"), "expected +OK, got {self:?}");
    }

    /// Appends the wire form.
    pub fn encode(&self, wire: &mut Vec<u8>) {
        match self {
            Self::Status(text) => wire.extend_from_slice(format!("+{text}\r\n").as_bytes()),
            Self::Error(text) => wire.extend_from_slice(format!("-{text}\r\n").as_bytes()),
            Self::Integer(integer) => wire.extend_from_slice(format!(":{integer}\r\n").as_bytes()),
            Self::Bulk(bytes) => {
                wire.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
                wire.extend_from_slice(bytes);
                wire.extend_from_slice(b"\r\n");
            }
            Self::Nil => wire.extend_from_slice(b"$-1\r\n"),
            Self::Array(items) => {
                wire.extend_from_slice(format!("*{}\r\n", items.len()).as_bytes());
                items.iter().for_each(|item| item.encode(wire));
            }
        }
    }
}

/// Requests that go out together.
///
/// Mixed arguments are written `pipeline.push::<&dyn AsRef<[u8]>>(&[&"SET", &key, &value])`, or with [`Pipeline::add`].
#[derive(Default, Debug)]
pub struct Pipeline {
    wire: Vec<u8>,
    requests: usize,
}

impl Pipeline {
    /// Appends a request.
    pub fn push<A: AsRef<[u8]>>(&mut self, request: &[A]) -> &mut Self {
        self.count(request.len());
        for argument in request {
            self.argument(argument.as_ref());
        }
        self
    }

    /// Appends a request of mixed arguments: `pipeline.add(&[&"SET", &key, &value])`.
    pub fn add(&mut self, request: &[&dyn AsRef<[u8]>]) -> &mut Self {
        self.push(request)
    }

    /// Requests so far.
    pub fn len(&self) -> usize {
        self.requests
    }

    /// Whether there is no request.
    pub fn is_empty(&self) -> bool {
        self.requests == 0
    }

    /// Size so far, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.wire.len()
    }

    /// Takes all requests out.
    pub fn clear(&mut self) {
        self.wire.clear();
        self.requests = 0;
    }

    fn count(&mut self, arguments: usize) {
        self.requests += 1;
        self.header(b'*', arguments);
    }

    fn argument(&mut self, argument: &[u8]) {
        self.header(b'$', argument.len());
        self.wire.extend_from_slice(argument);
        self.wire.extend_from_slice(b"\r\n");
    }

    fn header(&mut self, sign: u8, number: usize) {
        self.wire.push(sign);
        if number < 10 {
            self.wire.push(b'0' + number as u8);
        } else {
            self.wire.extend_from_slice(number.to_string().as_bytes());
        }
        self.wire.extend_from_slice(b"\r\n");
    }
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
    patience: Duration,
}

impl Connection {
    /// Connects to `127.0.0.1:6379` or the like.
    ///
    /// # Errors
    ///
    /// When there is no connection within the [`DEFAULT_PATIENCE`].
    pub async fn open(address: &str) -> io::Result<Self> {
        let stream = timeout(DEFAULT_PATIENCE, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: BytesMut::with_capacity(64 * 1024), patience: DEFAULT_PATIENCE })
    }

    /// Sets the time that the peer may be silent.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sends one request and awaits its reply. An error reply is a value.
    ///
    /// # Errors
    ///
    /// When the connection ends, the peer is silent for too long or breaks the protocol.
    pub async fn try_command<A: AsRef<[u8]>>(&mut self, request: &[A]) -> io::Result<Value> {
        let mut pipeline = Pipeline::default();
        pipeline.push(request);
        self.send(&pipeline).await?;
        self.reply().await
    }

    /// As [`Connection::try_command`], but panics where that fails.
    pub async fn command<A: AsRef<[u8]>>(&mut self, request: &[A]) -> Value {
        match self.try_command(request).await {
            Ok(value) => value,
            Err(error) => panic!("{}: {error}", request.first().map(|name| String::from_utf8_lossy(name.as_ref()).into_owned()).unwrap_or_default()),
        }
    }

    /// Sends all requests, then awaits all replies.
    ///
    /// # Errors
    ///
    /// As [`Connection::try_command`].
    pub async fn try_pipeline(&mut self, pipeline: &Pipeline) -> io::Result<Vec<Value>> {
        self.send(pipeline).await?;
        let mut replies = Vec::with_capacity(pipeline.requests);
        for _ in 0..pipeline.requests {
            replies.push(self.reply().await?);
        }
        Ok(replies)
    }

    /// As [`Connection::try_pipeline`], but panics where that fails.
    pub async fn pipeline(&mut self, pipeline: &Pipeline) -> Vec<Value> {
        match self.try_pipeline(pipeline).await {
            Ok(replies) => replies,
            Err(error) => panic!("pipeline: {error}"),
        }
    }

    /// As [`Connection::pipeline`], where each reply is one line; the lines come unparsed, which is much faster.
    pub async fn pipeline_of_lines(&mut self, pipeline: &Pipeline) -> Bytes {
        match self.try_pipeline_of_lines(pipeline).await {
            Ok(lines) => lines,
            Err(error) => panic!("pipeline: {error}"),
        }
    }

    async fn try_pipeline_of_lines(&mut self, pipeline: &Pipeline) -> io::Result<Bytes> {
        self.send(pipeline).await?;
        let (mut lines, mut looked_at) = (0, 0);
        while lines < pipeline.requests {
            self.fill().await?;
            lines += self.buffer[looked_at..].split(|&byte| byte == b'\n').count() - 1;
            looked_at = self.buffer.len();
        }
        Ok(self.buffer.split().freeze())
    }

    async fn send(&mut self, pipeline: &Pipeline) -> io::Result<()> {
        timeout(self.patience, self.stream.write_all(&pipeline.wire)).await??;
        Ok(())
    }

    /// Reads some bytes.
    async fn fill(&mut self) -> io::Result<()> {
        self.buffer.reserve(64 * 1024);
        match timeout(self.patience, self.stream.read_buf(&mut self.buffer)).await?? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "connection closed instead of a reply")),
            _ => Ok(()),
        }
    }

    /// Awaits the next reply.
    ///
    /// # Errors
    ///
    /// As [`Connection::try_command`].
    pub async fn reply(&mut self) -> io::Result<Value> {
        let mut open: Vec<(usize, Vec<Value>)> = Vec::new();
        loop {
            let mut value = match take(&mut self.buffer)? {
                Some(Token::Value(value)) => value,
                Some(Token::Array(0)) => Value::Array(Vec::new()),
                Some(Token::Array(length)) => {
                    open.push((length, Vec::new()));
                    continue;
                }
                None => {
                    self.fill().await?;
                    continue;
                }
            };
            loop {
                let Some((length, items)) = open.last_mut() else { return Ok(value) };
                items.push(value);
                if items.len() < *length {
                    break;
                }
                value = Value::Array(open.pop().map(|(_, items)| items).unwrap_or_default());
            }
        }
    }
}

enum Token {
    Value(Value),
    Array(usize),
}

/// Takes a whole scalar or the head of an array from the front.
fn take(buffer: &mut BytesMut) -> io::Result<Option<Token>> {
    let Some(end) = buffer.iter().position(|&byte| byte == b'\n') else {
        return if buffer.len() > LINE_BYTES_MAX { Err(broken(buffer)) } else { Ok(None) };
    };
    if end < 2 || buffer[end - 1] != b'\r' {
        return Err(broken(buffer));
    }
    let line = &buffer[1..end - 1];
    let token = match buffer[0] {
        b'+' => Token::Value(Value::Status(String::from_utf8_lossy(line).into_owned())),
        b'-' => Token::Value(Value::Error(String::from_utf8_lossy(line).into_owned())),
        b':' => Token::Value(Value::Integer(number(line).ok_or_else(|| broken(buffer))?)),
        sign @ (b'$' | b'*') => match (sign, number(line).ok_or_else(|| broken(buffer))?) {
            (_, -1) => Token::Value(Value::Nil),
            (b'*', length) => Token::Array(usize::try_from(length).map_err(|_| broken(buffer))?),
            (_, length) => {
                let length = usize::try_from(length).map_err(|_| broken(buffer))?;
                if buffer.len() < end + 1 + length + 2 {
                    buffer.reserve(length + 2);
                    return Ok(None);
                }
                // A copy, so that one small value does not hold a whole read alive.
                let bytes = Bytes::copy_from_slice(&buffer[end + 1..end + 1 + length]);
                buffer.advance(end + 1 + length + 2);
                return Ok(Some(Token::Value(Value::Bulk(bytes))));
            }
        },
        _ => return Err(broken(buffer)),
    };
    buffer.advance(end + 1);
    Ok(Some(token))
}

fn number(line: &[u8]) -> Option<i64> {
    std::str::from_utf8(line).ok()?.parse().ok()
}

fn broken(buffer: &[u8]) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not a reply: {}", buffer[..buffer.len().min(64)].escape_ascii()))
}
