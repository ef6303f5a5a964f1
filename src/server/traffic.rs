//! What a connection does, and when that is too little: the facts are noted where bytes and calls pass, and judged at short
//! intervals by the task of the connection.

use crate::config::Limits;
use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Slowest rate at which a body may come in and an answer go out, in bytes a second, after the time of `body_timeout`.
pub(super) const LEAST_RATE: u64 = 8 * 1024;

/// Longest time between two judgements.
const LONGEST_TICK: Duration = Duration::from_secs(5);

/// With what HTTP/2 begins; no request of HTTP/1.1 does.
///
/// Source: RFC 9113, section 3.4.
const PREFACE: &[u8; 3] = b"PRI";

/// Stands for no time at all.
const NEVER: u64 = u64::MAX;

/// What one connection does.
#[derive(Debug)]
pub(super) struct Traffic {
    begun_at: Instant,
    /// Whether it speaks HTTP/2, whose idle connections are not silent.
    is_multiplexed: AtomicBool,
    calls: AtomicUsize,
    has_called: AtomicBool,
    /// When the last call ended, in milliseconds from the beginning.
    quiet_since: AtomicU64,
    /// When the first byte came after that, if one did.
    heard_at: AtomicU64,
    written: AtomicU64,
    is_blocked: AtomicBool,
    /// Calls whose answer the client has yet to take, each with the time by which it must.
    answers: Mutex<HashMap<u64, Instant>>,
    calls_begun: AtomicU64,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            begun_at: Instant::now(),
            is_multiplexed: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
            has_called: AtomicBool::new(false),
            quiet_since: AtomicU64::new(0),
            heard_at: AtomicU64::new(NEVER),
            written: AtomicU64::new(0),
            is_blocked: AtomicBool::new(false),
            answers: Mutex::default(),
            calls_begun: AtomicU64::new(0),
        }
    }
}

impl Traffic {
    fn now(&self) -> u64 {
        u64::try_from(self.begun_at.elapsed().as_millis()).unwrap_or(NEVER - 1)
    }

    fn since(&self, at: u64) -> Duration {
        Duration::from_millis(self.now().saturating_sub(at))
    }

    fn answers(&self) -> MutexGuard<'_, HashMap<u64, Instant>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the connection speaks HTTP/2.
    pub(super) fn is_multiplexed(&self) -> bool {
        self.is_multiplexed.load(Relaxed)
    }

    /// How readily the connection makes room for another: `None` while it has calls; those that never had one come first,
    /// then those that have been idle longest.
    pub(super) fn dispensability(&self) -> Option<(bool, Instant)> {
        let quiet_since = self.begun_at.checked_add(Duration::from_millis(self.quiet_since.load(Relaxed)))?;
        (self.calls.load(Relaxed) == 0).then(|| (self.has_called.load(Relaxed), quiet_since))
    }

    /// A request has arrived with its whole head.
    pub(super) fn asked(&self) {
        self.has_called.store(true, Relaxed);
        self.quiet_from_now();
    }

    fn quiet_from_now(&self) {
        self.quiet_since.store(self.now(), Relaxed);
        self.heard_at.store(NEVER, Relaxed);
    }

    fn heard(&self) {
        if self.heard_at.load(Relaxed) == NEVER {
            self.heard_at.store(self.now(), Relaxed);
        }
    }
}

/// A call from its request to the end of its answer.
#[derive(Debug)]
pub(super) struct Call {
    traffic: Arc<Traffic>,
    number: u64,
}

impl Call {
    pub(super) fn begin(traffic: &Arc<Traffic>) -> Self {
        traffic.calls.fetch_add(1, Relaxed);
        Self { traffic: Arc::clone(traffic), number: traffic.calls_begun.fetch_add(1, Relaxed) }
    }

    /// The client has a piece of the answer to take, of so many bytes, in `time` and what they need at the least rate.
    pub(super) fn waits_for_client(&self, bytes: usize, time: Duration) {
        let needed = Duration::from_secs(bytes as u64 / LEAST_RATE);
        if let Some(until) = Instant::now().checked_add(time + needed) {
            self.traffic.answers().insert(self.number, until);
        }
    }

    /// The client has taken all that there was; the next piece is ours to give.
    pub(super) fn waits_for_us(&self) {
        self.traffic.answers().remove(&self.number);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.waits_for_us();
        self.traffic.quiet_from_now();
        self.traffic.calls.fetch_sub(1, Relaxed);
    }
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes on.
    Stay,
    /// It is told to end, because nobody uses it.
    Close,
    /// It ends at once, because its client is too slow.
    Cut(&'static str),
}

/// Judges one connection.
pub(super) struct Judge {
    traffic: Arc<Traffic>,
    limits: Limits,
    /// Since when nothing can be written, and how much was written until then.
    blocked: Option<(Instant, u64)>,
}

impl Judge {
    pub(super) fn new(traffic: Arc<Traffic>, limits: Limits) -> Self {
        Self { traffic, limits, blocked: None }
    }

    /// Time between two judgements: short enough that no limit is passed by more than a quarter.
    pub(super) fn tick(&self) -> Duration {
        let shortest = self.limits.header_timeout.min(self.limits.body_timeout).min(self.limits.idle_timeout);
        (shortest / 4).min(LONGEST_TICK)
    }

    pub(super) fn judge(&mut self) -> Verdict {
        if self.is_stalled() {
            return Verdict::Cut("its client takes no answer");
        }
        let traffic = &self.traffic;
        if traffic.calls.load(Relaxed) > 0 {
            let now = Instant::now();
            let is_left = traffic.answers().values().any(|until| *until < now);
            return if is_left { Verdict::Cut("its client takes no answer") } else { Verdict::Stay };
        }
        let quiet = traffic.since(traffic.quiet_since.load(Relaxed));
        if !traffic.is_multiplexed() {
            let heard_at = traffic.heard_at.load(Relaxed);
            if heard_at != NEVER && traffic.since(heard_at) > self.limits.header_timeout {
                return Verdict::Cut("the head of a request did not arrive in time");
            }
            if !traffic.has_called.load(Relaxed) && quiet > self.limits.header_timeout {
                return Verdict::Cut("no request arrived in time");
            }
        }
        if quiet > self.limits.idle_timeout { Verdict::Close } else { Verdict::Stay }
    }

    /// Whether what was written since nothing could be written is less than the least rate.
    fn is_stalled(&mut self) -> bool {
        if !self.traffic.is_blocked.load(Relaxed) {
            self.blocked = None;
            return false;
        }
        let written = self.traffic.written.load(Relaxed);
        let (since, before) = *self.blocked.get_or_insert((Instant::now(), written));
        if since.elapsed() <= self.limits.body_timeout {
            return false;
        }
        self.blocked = Some((Instant::now(), written));
        written - before < LEAST_RATE.saturating_mul(since.elapsed().as_secs().max(1))
    }
}

/// A stream whose bytes are noted.
pub(super) struct Noted<I> {
    inner: I,
    traffic: Arc<Traffic>,
    /// How much of the preface of HTTP/2 was read; `None` once it is known what is spoken.
    preface: Option<usize>,
}

impl<I> Noted<I> {
    pub(super) fn new(inner: I, traffic: Arc<Traffic>) -> Self {
        Self { inner, traffic, preface: Some(0) }
    }

    fn read(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.traffic.heard();
        if let Some(matched) = self.preface {
            let length = bytes.len().min(PREFACE.len() - matched);
            self.preface = (bytes[..length] == PREFACE[matched..matched + length]).then_some(matched + length);
            if self.preface == Some(PREFACE.len()) {
                self.traffic.is_multiplexed.store(true, Relaxed);
                self.preface = None;
            }
        }
    }

    fn wrote<T>(&self, outcome: Poll<io::Result<T>>, bytes: impl FnOnce(&T) -> usize) -> Poll<io::Result<T>> {
        self.traffic.is_blocked.store(outcome.is_pending(), Relaxed);
        if let Poll::Ready(Ok(done)) = &outcome {
            self.traffic.written.fetch_add(bytes(done) as u64, Relaxed);
        }
        outcome
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Noted<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let filled = buffer.filled().len();
        let outcome = Pin::new(&mut self.inner).poll_read(cx, buffer);
        self.read(&buffer.filled()[filled..]);
        outcome
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Noted<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.wrote(outcome, |length| *length)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_flush(cx);
        self.wrote(outcome, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.wrote(outcome, |()| 0)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.wrote(outcome, |length| *length)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const SHORT: Duration = Duration::from_millis(20);

    fn judge(traffic: &Arc<Traffic>) -> Judge {
        let limits = Limits { header_timeout: SHORT, body_timeout: SHORT, idle_timeout: 4 * SHORT, ..Limits::default() };
        Judge::new(Arc::clone(traffic), limits)
    }

    #[tokio::test]
    async fn who_says_nothing_is_cut_and_who_is_idle_is_closed() {
        let traffic = Arc::new(Traffic::default());
        let mut judge = judge(&traffic);
        assert_eq!(judge.judge(), Verdict::Stay);
        tokio::time::sleep(2 * SHORT).await;
        assert_eq!(judge.judge(), Verdict::Cut("no request arrived in time"));
        traffic.asked();
        let call = Call::begin(&traffic);
        tokio::time::sleep(6 * SHORT).await;
        assert_eq!(judge.judge(), Verdict::Stay, "a call that takes its time");
        assert!(traffic.dispensability().is_none());
        drop(call);
        assert_eq!(judge.judge(), Verdict::Stay);
        assert!(traffic.dispensability().is_some_and(|(has_called, _)| has_called));
        tokio::time::sleep(5 * SHORT).await;
        assert_eq!(judge.judge(), Verdict::Close);
    }

    #[tokio::test]
    async fn the_head_of_a_request_has_its_time() {
        // Method: the first bytes of a request by HTTP/1.1, and of a connection by HTTP/2, piece by piece.
        for (pieces, verdict) in [(&["P", "OST /"][..], Verdict::Cut("the head of a request did not arrive in time")), (&["P", "RI", " *"], Verdict::Stay)] {
            let traffic = Arc::new(Traffic::default());
            let (client, server) = tokio::io::duplex(64);
            let (mut client, mut server) = (client, Noted::new(server, Arc::clone(&traffic)));
            traffic.asked();
            for piece in pieces {
                client.write_all(piece.as_bytes()).await.unwrap();
                server.read_exact(&mut vec![0; piece.len()]).await.unwrap();
            }
            tokio::time::sleep(2 * SHORT).await;
            assert_eq!(judge(&traffic).judge(), verdict, "{pieces:?}");
        }
    }

    #[tokio::test]
    async fn answers_are_taken_in_time() {
        let traffic = Arc::new(Traffic::default());
        let mut judge = judge(&traffic);
        let (call, other) = (Call::begin(&traffic), Call::begin(&traffic));
        call.waits_for_client(1, SHORT);
        other.waits_for_client(1, SHORT);
        tokio::time::sleep(2 * SHORT).await;
        other.waits_for_us();
        assert_eq!(judge.judge(), Verdict::Cut("its client takes no answer"));
        call.waits_for_us();
        assert_eq!(judge.judge(), Verdict::Stay);
        // What lies in the buffers of the system counts as well.
        let (_client, server) = tokio::io::duplex(8);
        let mut server = Noted::new(server, Arc::clone(&traffic));
        assert!(tokio::time::timeout(SHORT, server.write_all(&[0; 64])).await.is_err());
        assert_eq!(judge.judge(), Verdict::Stay);
        tokio::time::sleep(2 * SHORT).await;
        assert_eq!(judge.judge(), Verdict::Cut("its client takes no answer"));
    }
}
