//! We play the primary: a server that was told to follow us is served one dump, and nothing else.
//!
//! The feed listens only while somebody waits for the one server that was told of it, takes a connection from that server's
//! address alone, and ends with it. What the server logs in with is read over and forgotten.
//!
//! ```text
//! target: PING, AUTH, REPLCONF ...   -> +PONG, +OK, +OK
//! target: PSYNC ? -1                 -> +FULLRESYNC <random id> 0, $<length>, the dump
//! ```
//!
//! Whatever else the target says it could do is acknowledged and not used: every engine then goes on in the plain way.

mod requests;
mod tls;

pub use tls::{TlsFault, TlsFiles};

use super::connection::Stream;
use super::{Address, Error, IDLE_TIMEOUT};
use requests::{Request, Requests};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket, lookup_host};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Longest wait for the target to come after it was told to, with its hand-shake. It tries once a second.
pub const ARMED_TIMEOUT: Duration = Duration::from_secs(15);

/// Longest time for one connection to say what it wants.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);

/// Most addresses of a target that are looked at.
const ADDRESSES: usize = 16;

/// How often the link is kept alive once the target has all of the dump, as a primary does.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// What keeps the link alive.
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// First byte of a hand-shake of TLS.
const TLS_HANDSHAKE: u8 = 0x16;

/// Bytes of what the target says that are read at once.
const READ_BYTES: usize = 4096;

/// How the feed is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Where it listens; where absent, at the address of this machine on the way to the target. Port 0 is any free one.
    pub listen: Option<SocketAddr>,
    /// What the target is told, when that is not where the feed listens.
    pub advertise: Option<Advertised>,
    /// Certificate and key, for targets that replicate over TLS.
    pub tls: Option<TlsFiles>,
}

/// Under which name the feed is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    /// Name or address.
    pub host: String,
    /// Port; the one that is listened on where it is absent.
    pub port: Option<u16>,
}

/// The text names no host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a host, or a host and a port, such as backup.example:16379")]
pub struct BadAdvertised;

impl std::str::FromStr for Advertised {
    type Err = BadAdvertised;
    fn from_str(text: &str) -> Result<Self, BadAdvertised> {
        if let Ok(Address::Tcp { host, port }) = text.parse() {
            return Ok(Self { host, port: Some(port) });
        }
        // A name of a host alone is legal where it is with any port.
        let bracketed = if text.parse::<Ipv6Addr>().is_ok() { format!("[{text}]:1") } else { format!("{text}:1") };
        match bracketed.parse() {
            Ok(Address::Tcp { host, .. }) if !text.starts_with("unix:") => Ok(Self { host, port: None }),
            _ => Err(BadAdvertised),
        }
    }
}

/// A feed that listens.
pub struct Feed {
    target: String,
    listener: TcpListener,
    told: (String, u16),
    peers: Vec<IpAddr>,
    tls: Option<TlsAcceptor>,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("told", &self.told).finish_non_exhaustive()
    }
}

impl Feed {
    /// Listens for a target, of which people know the name; `secured` tells that it replicates over TLS.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`] when the target's address cannot be looked up or the port not be had, [`Error::Certificate`] when
    /// our certificate cannot be used.
    pub async fn bind(options: &Options, name: &str, address: &Address, secured: bool) -> Result<Self, Error> {
        let failed = |what: String| Error::Unreachable { host: name.to_owned(), what };
        let tls = match (&options.tls, secured) {
            (_, false) => None,
            (Some(files), true) => Some(files.acceptor().map_err(|fault| Error::Certificate { host: name.to_owned(), what: fault.to_string() })?),
            (None, true) => {
                let what = "it replicates over TLS, and the feed has no certificate; name one in [restore] feed_tls".to_owned();
                return Err(Error::Certificate { host: name.to_owned(), what });
            }
        };
        let (peers, way) = way_to(address).await.map_err(|fault| failed(format!("the way to it cannot be told: {}", fault.kind())))?;
        let listen = options.listen.unwrap_or(SocketAddr::new(way, 0));
        let listener = TcpListener::bind(listen).await.map_err(|fault| failed(format!("the feed cannot listen on {listen}: {}", fault.kind())))?;
        let bound = listener.local_addr().map_err(|fault| failed(format!("the feed has no address: {}", fault.kind())))?;
        let here = if bound.ip().is_unspecified() { way } else { bound.ip() };
        let told = match &options.advertise {
            Some(advertised) => (advertised.host.clone(), advertised.port.unwrap_or(bound.port())),
            None => (here.to_string(), bound.port()),
        };
        Ok(Self { target: name.to_owned(), listener, told, peers, tls })
    }

    /// Host and port that the target is to follow.
    pub fn told(&self) -> (&str, u16) {
        (&self.told.0, self.told.1)
    }

    /// Waits for the target until it has asked for a synchronisation, at most [`ARMED_TIMEOUT`]. Whoever else comes is sent
    /// away, and a connection that ends before may be followed by another.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`] when it has not come; the last reason why a connection came to nothing is told.
    ///
    /// # Cancel safety
    ///
    /// A connection may be lost; the target comes again.
    pub async fn accept(&self) -> Result<Link, Error> {
        let until = Instant::now() + ARMED_TIMEOUT;
        let mut last = "no connection came".to_owned();
        loop {
            let Ok(accepted) = timeout_at(until, self.listener.accept()).await else {
                let (host, port) = self.told();
                let what = format!("it was told to follow {host}:{port} and did not come within {} s: {last}", ARMED_TIMEOUT.as_secs());
                return Err(Error::Unreachable { host: self.target.clone(), what });
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(fault) => {
                    // Out of descriptors, for one: not at once again.
                    last = format!("a connection could not be taken: {}", fault.kind());
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            if !self.peers.contains(&peer.ip().to_canonical()) {
                tracing::warn!(peer = %peer.ip(), target = %self.target, "a connection to the feed came from another address than the target's, and was refused");
                last = format!("a connection came from {}, which is not its address, and was refused", peer.ip());
                continue;
            }
            match timeout_at(until.min(Instant::now() + GREETING_TIMEOUT), self.greet(stream)).await {
                Ok(Ok(link)) => return Ok(link),
                Ok(Err(what)) => last = what,
                Err(_) => last = "a connection asked for nothing".to_owned(),
            }
        }
    }

    /// Speaks with one connection until it asks for a synchronisation.
    async fn greet(&self, stream: TcpStream) -> Result<Link, String> {
        let lost = |fault: io::Error| format!("a connection was lost: {}", fault.kind());
        stream.set_nodelay(true).map_err(lost)?;
        let mut first = [0];
        let is_tls = stream.peek(&mut first).await.map_err(lost)? == 1 && first[0] == TLS_HANDSHAKE;
        let stream: Box<dyn Stream> = match (&self.tls, is_tls) {
            (Some(acceptor), true) => {
                let secured = acceptor.accept(stream).await;
                Box::new(
                    secured
                        .map_err(|fault| format!("the TLS hand-shake failed ({}): it has to believe the certificate of [restore] feed_tls", fault.kind()))?,
                )
            }
            (None, false) => Box::new(stream),
            (None, true) => return Err("it speaks TLS and the feed does not; name a certificate in [restore] feed_tls".to_owned()),
            (Some(_), false) => return Err("it does not speak TLS, although it replicates over TLS by its word".to_owned()),
        };
        let (reader, mut writer) = tokio::io::split(stream);
        let mut requests = Requests::new(reader);
        let mut has_psync = true;
        loop {
            let answer: &[u8] = match requests.next().await? {
                Request::Ping => b"+PONG\r\n",
                Request::Accepted => b"+OK\r\n",
                Request::Unknown => b"-ERR unknown command\r\n",
                Request::Psync => break,
                Request::Sync => {
                    has_psync = false;
                    break;
                }
            };
            writer.write_all(answer).await.map_err(lost)?;
            writer.flush().await.map_err(lost)?;
        }
        if has_psync {
            writer.write_all(format!("+FULLRESYNC {} 0\r\n", random_id()).as_bytes()).await.map_err(lost)?;
            writer.flush().await.map_err(lost)?;
        }
        Ok(Link::new(self.target.clone(), requests.into_reader(), writer))
    }
}

/// Addresses of the target, and the address of this machine on the way there. Nothing is sent.
async fn way_to(address: &Address) -> io::Result<(Vec<IpAddr>, IpAddr)> {
    let (host, port) = match address {
        Address::Tcp { host, port } => (host.as_str(), *port),
        // A local socket is on this machine.
        Address::Unix(_) => return Ok((vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()], Ipv4Addr::LOCALHOST.into())),
    };
    let found: Vec<SocketAddr> = timeout(super::CONNECT_TIMEOUT, lookup_host((host, port))).await??.take(ADDRESSES).collect();
    let mut way = Err(io::Error::from(io::ErrorKind::NotFound));
    for target in &found {
        let here: SocketAddr = if target.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
        let socket = UdpSocket::bind(here).await?;
        way = match socket.connect(target).await {
            Ok(()) => socket.local_addr(),
            Err(fault) => Err(fault),
        };
        if way.is_ok() {
            break;
        }
    }
    Ok((found.iter().map(|target| target.ip().to_canonical()).collect(), way?.ip()))
}

/// Forty digits, as an id of a history has.
fn random_id() -> String {
    rand::random::<[u8; 20]>().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A target that waits for the dump.
pub struct Link {
    target: String,
    writer: WriteHalf<Box<dyn Stream>>,
    /// Cancelled when the target has closed.
    closed: CancellationToken,
    listening: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Link {
    fn new(target: String, mut reader: ReadHalf<Box<dyn Stream>>, writer: WriteHalf<Box<dyn Stream>>) -> Self {
        let closed = CancellationToken::new();
        let seen = closed.clone();
        // While it loads a target sends newlines, and acknowledgements after it; nobody may let them pile up.
        let listening = tokio::spawn(async move {
            let _told = seen.drop_guard();
            let mut piece = [0; READ_BYTES];
            while reader.read(&mut piece).await.is_ok_and(|count| count > 0) {}
        });
        Self { target, writer, closed, listening }
    }

    /// Announces a dump of this length.
    ///
    /// # Errors
    ///
    /// As [`Link::send`].
    pub async fn begin(&mut self, size_bytes: u64) -> Result<(), Error> {
        self.send(format!("${size_bytes}\r\n").as_bytes()).await
    }

    /// Sends the next bytes of the dump.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`] when the target closes, or takes nothing for [`IDLE_TIMEOUT`].
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let mut left = bytes;
        while !left.is_empty() {
            let count = tokio::select! {
                written = timeout(IDLE_TIMEOUT, self.writer.write(left)) => match written {
                    Ok(Ok(count)) if count > 0 => count,
                    Ok(Ok(_)) => return Err(self.broken("the connection is closed".to_owned())),
                    Ok(Err(fault)) => return Err(self.broken(fault.kind().to_string())),
                    Err(_) => return Err(self.broken(format!("it took nothing for {} s", IDLE_TIMEOUT.as_secs()))),
                },
                () = self.closed.cancelled() => return Err(self.broken("it closed the connection".to_owned())),
            };
            left = &left[count..];
        }
        Ok(())
    }

    /// Sends what may still wait in a buffer.
    ///
    /// # Errors
    ///
    /// As [`Link::send`].
    pub async fn flush(&mut self) -> Result<(), Error> {
        match timeout(IDLE_TIMEOUT, self.writer.flush()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(fault)) => Err(self.broken(fault.kind().to_string())),
            Err(_) => Err(self.broken(format!("it took nothing for {} s", IDLE_TIMEOUT.as_secs()))),
        }
    }

    /// Keeps the link alive until the target closes it. To be called when all of the dump was sent.
    pub async fn attend(&mut self) {
        loop {
            tokio::select! {
                () = self.closed.cancelled() => return,
                () = tokio::time::sleep(PING_INTERVAL) => {}
            }
            // A target that loads reads nothing meanwhile; what does not go through is told by the close.
            let _ = timeout(IDLE_TIMEOUT, async {
                self.writer.write_all(PING).await?;
                self.writer.flush().await
            })
            .await;
        }
    }

    fn broken(&self, what: String) -> Error {
        Error::Unreachable { host: self.target.clone(), what: format!("the feed broke: {what}") }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]
    use super::*;
    use tokio::io::AsyncReadExt;

    async fn feed() -> Feed {
        Feed::bind(&Options::default(), "t:1", &"127.0.0.1:6379".parse().unwrap(), false).await.unwrap()
    }

    async fn said(stream: &mut TcpStream, until: &str) -> String {
        let mut heard = Vec::new();
        while !String::from_utf8_lossy(&heard).contains(until) {
            let mut piece = [0; 256];
            let count = stream.read(&mut piece).await.unwrap();
            assert_ne!(count, 0, "closed after {:?}", String::from_utf8_lossy(&heard));
            heard.extend_from_slice(&piece[..count]);
        }
        String::from_utf8(heard).unwrap()
    }

    #[tokio::test]
    async fn a_target_is_served() {
        let feed = feed().await;
        let (host, port) = (feed.told().0.to_owned(), feed.told().1);
        assert_eq!(host, "127.0.0.1");
        let target = tokio::spawn(async move {
            // One that comes and asks for nothing is followed by the one that does.
            drop(TcpStream::connect((host.as_str(), port)).await.unwrap());
            let mut stream = TcpStream::connect((host.as_str(), port)).await.unwrap();
            stream.write_all(b"*1\r\n$4\r\nPING\r\n").await.unwrap();
            assert_eq!(said(&mut stream, "\n").await, "+PONG\r\n");
            let both = b"*3\r\n$4\r\nAUTH\r\n$1\r\nu\r\n$6\r\nsecret\r\n*3\r\n$8\r\nREPLCONF\r\n$4\r\ncapa\r\n$16\r\nrdb-channel-repl\r\n*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n";
            stream.write_all(both).await.unwrap();
            assert_eq!(said(&mut stream, "ERR").await.matches("+OK\r\n").count(), 2);
            stream.write_all(b"*3\r\n$5\r\nPSYNC\r\n$1\r\n?\r\n$2\r\n-1\r\n").await.unwrap();
            let told = said(&mut stream, "dump").await;
            assert!(told.contains("+FULLRESYNC ") && told.ends_with(" 0\r\n$4\r\ndump"), "{told:?}");
        });
        let mut link = feed.accept().await.unwrap();
        link.begin(4).await.unwrap();
        link.send(b"dump").await.unwrap();
        target.await.unwrap();
        tokio::time::timeout(GREETING_TIMEOUT, link.attend()).await.unwrap();
        let broken = link.send(b"more").await.unwrap_err().to_string();
        assert!(broken.contains("the feed broke"), "{broken}");
    }

    #[tokio::test]
    async fn only_the_target_is_let_in() {
        let mut feed = feed().await;
        feed.peers = vec!["192.0.2.1".parse().unwrap()];
        let (host, port) = (feed.told().0.to_owned(), feed.told().1);
        let stranger = tokio::spawn(async move {
            let mut stream = TcpStream::connect((host, port)).await.unwrap();
            stream.read(&mut [0]).await
        });
        tokio::select! {
            _ = feed.accept() => panic!("a stranger is let in"),
            sent_away = stranger => assert!(!matches!(sent_away.unwrap(), Ok(1..))),
        }
    }

    #[test]
    fn a_host_has_a_port_or_none() {
        let of = |text: &str| text.parse::<Advertised>().map(|advertised| (advertised.host, advertised.port));
        assert_eq!(of("backup.example:16379").unwrap(), ("backup.example".to_owned(), Some(16379)));
        assert_eq!(of("10.0.0.1").unwrap(), ("10.0.0.1".to_owned(), None));
        assert_eq!(of("::1").unwrap(), ("::1".to_owned(), None));
        assert_eq!(of("[::1]:7").unwrap(), ("::1".to_owned(), Some(7)));
        for text in ["", "a b", "unix:/x", "a:0", "a\n"] {
            assert_eq!(of(text), Err(BadAdvertised), "{text}");
        }
    }
}
