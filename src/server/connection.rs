//! One connection, from its first byte to its end: TLS where the port speaks it, then HTTP/1.1 or HTTP/2.

use super::accept::Place;
use super::doors::{Doors, Visit};
use super::guard::Entrance;
use super::tls::Certificates;
use super::traffic::{Judge, Noted, Verdict};
use crate::config::Limits;
use crate::peer::{Certificate, Peer};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

/// Most calls at once on one connection.
const STREAMS: u32 = 256;

/// How often a connection of HTTP/2 is asked whether its client is there, and how long the answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Most bytes of the head of a request by HTTP/2.
const HEAD_BYTES: u32 = 32 * 1024;

/// Most bytes that are held for one connection of HTTP/1.1 each way; the head of a request fits.
const BUFFER_BYTES: usize = 64 * 1024;

/// Most bytes that a client of HTTP/2 may send before they are read: on one call, and on one connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Calls that a client may begin and take back before they were looked at; more end the connection.
const RESETS_UNSEEN: usize = 64;

/// Calls that we may have to end because of faults of the client; more end the connection.
const RESETS_FOR_FAULTS: usize = 256;

/// How long a connection of HTTP/2 that was told to end may take.
const LEAVE_TIME: Duration = Duration::from_millis(500);

/// First byte of a handshake.
///
/// Source: RFC 8446, section 5.1: content type `handshake`.
const HANDSHAKE: u8 = 0x16;

/// How long, and with how many bytes, a client that speaks clear text to a port of TLS may go on before it is left.
const CLEAR_TEXT_TIME: Duration = Duration::from_secs(1);
const CLEAR_TEXT_BYTES: u64 = 64 * 1024;

/// What a client hears that speaks clear text to a port of TLS.
const SPEAKS_TLS: &str = "this port speaks TLS; use https";

/// What the connections of a port share.
pub(super) struct Port {
    doors: Doors,
    tls: Option<Arc<Certificates>>,
    limits: Limits,
    builder: auto::Builder<TokioExecutor>,
    closing: CancellationToken,
    cutting: CancellationToken,
}

impl Port {
    /// A port that closes when `closing` is cancelled.
    pub(super) fn new(doors: Doors, tls: Option<Arc<Certificates>>, limits: Limits, closing: CancellationToken) -> Self {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        // The time of a head is watched over by `traffic`, for both protocols alike.
        builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(BUFFER_BYTES);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(HEAD_BYTES)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_pending_accept_reset_streams(RESETS_UNSEEN)
            .max_local_error_reset_streams(RESETS_FOR_FAULTS);
        Self { doors, tls, limits, builder, closing, cutting: CancellationToken::new() }
    }

    /// Most connections at once.
    pub(super) fn connections(&self) -> usize {
        self.limits.max_connections
    }

    /// Cancelled when the port closes.
    pub(super) fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// Ends every connection at once.
    pub(super) fn cut(&self) {
        self.cutting.cancel();
    }
}

/// A connection of which it is known what it speaks.
enum Opened {
    Clear(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// It was answered already.
    Done,
}

/// Serves a connection to its end.
pub(super) async fn serve(port: Arc<Port>, stream: TcpStream, address: SocketAddr, place: Place) {
    // Small answers must not wait for an acknowledgement. Best effort: without it the service is only slower.
    let _ = stream.set_nodelay(true);
    let Ok(local) = stream.local_addr() else { return };
    let opened = tokio::select! {
        opened = timeout(port.limits.header_timeout, open(stream, port.tls.as_deref())) => opened,
        () = place.leave.cancelled() => return,
        () = port.closing.cancelled() => return,
    };
    let entrance = Entrance { address: local.ip(), is_tls: port.tls.is_some() };
    match opened {
        Ok(Ok(Opened::Clear(stream))) => converse(&port, stream, Peer { address, certificate: None }, entrance, place).await,
        Ok(Ok(Opened::Tls(stream))) => {
            let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            let certificate = shown.map(|certificate| Arc::new(Certificate::read(certificate)));
            converse(&port, stream, Peer { address, certificate }, entrance, place).await;
        }
        Ok(Ok(Opened::Done)) => {}
        Ok(Err(fault)) => tracing::debug!(peer = %address, error = %fault, "a connection was not opened"),
        // Who connects and says nothing gives its place back.
        Err(_) => tracing::debug!(peer = %address, "a connection was not opened in time"),
    }
}

async fn open(mut stream: TcpStream, tls: Option<&Certificates>) -> io::Result<Opened> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Ok(Opened::Done);
    }
    let Some(certificates) = tls else { return Ok(Opened::Clear(stream)) };
    if first != [HANDSHAKE] {
        // Best effort: a client that reads is told, another only sees the end.
        let _ = timeout(CLEAR_TEXT_TIME, refuse_clear_text(&mut stream)).await;
        return Ok(Opened::Done);
    }
    let stream = TlsAcceptor::from(certificates.current()).accept(stream).await?;
    Ok(Opened::Tls(Box::new(stream)))
}

/// Tells a client of either HTTP, in its own protocol, that it has to speak TLS.
async fn refuse_clear_text(stream: &mut TcpStream) -> io::Result<()> {
    let mut start = [0; 3];
    stream.read_exact(&mut start).await?;
    match &start {
        b"PRI" => stream.write_all(&go_away(SPEAKS_TLS)).await?,
        start if start.iter().all(u8::is_ascii_uppercase) => {
            // A `google.rpc.Status`, as every refusal.
            let body = serde_json::json!({ "code": tonic::Code::FailedPrecondition as i32, "message": SPEAKS_TLS, "details": [] }).to_string();
            let length = body.len();
            let head = format!("HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(body.as_bytes()).await?;
        }
        _ => return Ok(()),
    }
    stream.shutdown().await?;
    // An answer is lost when the connection ends with something unread.
    tokio::io::copy(&mut stream.take(CLEAR_TEXT_BYTES), &mut tokio::io::sink()).await?;
    Ok(())
}

/// The frames of HTTP/2 that end a connection before its first call: empty settings, then the farewell.
///
/// Source: RFC 9113, sections 6.5, 6.8 and 7: error `INADEQUATE_SECURITY`.
fn go_away(why: &str) -> Vec<u8> {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const FAREWELL: [u8; 6] = [7, 0, 0, 0, 0, 0];
    const LAST_CALL: [u8; 4] = [0; 4];
    const ERROR: [u8; 4] = [0, 0, 0, 0x0c];
    let length = (LAST_CALL.len() + ERROR.len() + why.len()) as u32;
    [&SETTINGS[..], &length.to_be_bytes()[1..], &FAREWELL, &LAST_CALL, &ERROR, why.as_bytes()].concat()
}

/// Serves HTTP until the connection ends by itself, has to leave, or is too slow.
async fn converse<I>(port: &Port, stream: I, peer: Peer, entrance: Entrance, place: Place)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (address, traffic) = (peer.address, Arc::clone(&place.traffic));
    let visit = Visit::new(port.doors.clone(), peer, entrance, Arc::clone(&traffic));
    let connection = port.builder.serve_connection(TokioIo::new(Noted::new(stream, Arc::clone(&traffic))), visit);
    tokio::pin!(connection);
    let mut judge = Judge::new(Arc::clone(&traffic), port.limits.clone());
    let tick = judge.tick();
    let look = tokio::time::sleep(tick);
    tokio::pin!(look);
    let (mut is_closing, mut is_leaving) = (false, false);
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(fault) = ended {
                    tracing::debug!(peer = %address, error = %fault, "a connection ended with an error");
                }
                return;
            }
            () = port.cutting.cancelled() => return,
            () = port.closing.cancelled(), if !is_closing => {
                is_closing = true;
                connection.as_mut().graceful_shutdown();
            }
            () = place.leave.cancelled(), if !is_leaving => {
                // Nothing is under way; a client of HTTP/2 is told all the same, so that it does not begin a call meanwhile.
                if !traffic.is_multiplexed() {
                    return;
                }
                is_leaving = true;
                connection.as_mut().graceful_shutdown();
                look.as_mut().reset(Instant::now() + LEAVE_TIME);
            }
            () = look.as_mut() => match judge.judge() {
                Verdict::Stay if is_leaving && traffic.dispensability().is_some() => return,
                Verdict::Stay => look.as_mut().reset(Instant::now() + tick),
                Verdict::Close if is_leaving => return,
                Verdict::Close => {
                    is_leaving = true;
                    connection.as_mut().graceful_shutdown();
                    look.as_mut().reset(Instant::now() + LEAVE_TIME);
                }
                Verdict::Cut(why) => {
                    tracing::debug!(peer = %address, why, "a connection was cut");
                    return;
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_farewell_is_well_formed() {
        let frames = go_away("tls");
        assert_eq!(frames[..9], [0, 0, 0, 4, 0, 0, 0, 0, 0]);
        assert_eq!(frames[9..18], [0, 0, 11, 7, 0, 0, 0, 0, 0]);
        assert_eq!(frames[18..], [0, 0, 0, 0, 0, 0, 0, 0x0c, b't', b'l', b's']);
    }
}
