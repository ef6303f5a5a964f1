//! A proxy before an object server that makes its bad days: it answers in its place, resets, swallows, delays, cuts and damages.
//!
//! It takes HTTP/1.1 apart as far as one request and its answer, and closes each connection after the answer. What it does is told by
//! rules, looked through in order; the first that fits and has not been used up acts. Requests that no rule fits pass.

use super::objects::S3_LOGIN;
use aws_lc_rs::digest;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Longest head of a request or an answer, in bytes.
const HEAD_BYTES: usize = 64 * 1024;

/// Longest body of a request, in bytes.
const BODY_BYTES: usize = 64 * 1024 * 1024;

/// Bytes that are passed on at once.
const PIECE_BYTES: usize = 64 * 1024;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is answered with this status and, in XML, this code; the server never sees it.
    Answer(u16, &'static str),
    /// The connection is reset after the request; the server never sees it.
    Reset,
    /// The connection is reset in the middle of the request's body.
    ResetWithin,
    /// The server does it, and the connection is reset instead of its answer.
    LoseAnswer,
    /// It is never answered; the server never sees it.
    Swallow,
    /// It passes after this time.
    Delay(Duration),
    /// The answer ends after so many bytes of its body.
    CutAnswer(usize),
    /// One bit of the request's body turns on the way to the server.
    DamageRequest,
    /// One bit of the answer's body turns on the way back.
    DamageAnswer,
}

/// Which requests a fault strikes. Empty texts fit every request.
#[derive(Clone, Debug)]
#[must_use]
pub struct Rule {
    method: &'static str,
    within: Vec<String>,
    header: String,
    times: Option<usize>,
    after: usize,
    fault: Fault,
}

impl Rule {
    /// Strikes every request.
    pub fn new(fault: Fault) -> Self {
        Self { method: "", within: Vec::new(), header: String::new(), times: None, after: 0, fault }
    }

    /// Only requests with this method.
    pub fn method(self, method: &'static str) -> Self {
        Self { method, ..self }
    }

    /// Only requests with this text in their path or query, such as `partNumber=2&`; each call adds one.
    pub fn within(mut self, text: impl Into<String>) -> Self {
        self.within.push(text.into());
        self
    }

    /// Only requests with this text in their headers, such as an old credential.
    pub fn header(self, text: impl Into<String>) -> Self {
        Self { header: text.into(), ..self }
    }

    /// Only so many times.
    pub fn times(self, times: usize) -> Self {
        Self { times: Some(times), ..self }
    }

    /// Only after so many requests that fit have passed.
    pub fn after(self, after: usize) -> Self {
        Self { after, ..self }
    }

    fn fits(&self, head: &Head) -> bool {
        (self.method.is_empty() || head.method() == self.method)
            && self.within.iter().all(|text| head.target().contains(text))
            && head.text.contains(&self.header)
    }
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// What happened to it; nothing when it passed.
    pub fault: Option<Fault>,
    pub at: Instant,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    outage: bool,
    checks_bodies: bool,
    seen: Vec<Seen>,
}

struct Shared {
    server: String,
    /// Renames what Google Cloud Storage calls otherwise.
    google: bool,
    state: Mutex<State>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What happens to this request, which is noted.
    fn judge(&self, head: &Head) -> Option<Fault> {
        let mut state = self.state();
        let mut fault = state.outage.then_some(Fault::Reset);
        if fault.is_none() {
            for rule in &mut state.rules {
                if !rule.fits(head) || rule.times == Some(0) {
                    continue;
                }
                if rule.after > 0 {
                    rule.after -= 1;
                    continue;
                }
                if let Some(times) = &mut rule.times {
                    *times -= 1;
                }
                fault = Some(rule.fault);
                break;
            }
        }
        state.seen.push(Seen { method: head.method().into(), target: head.target().into(), fault, at: Instant::now() });
        fault
    }
}

/// A running proxy. It and all its connections end with the drop.
pub struct Proxy {
    address: String,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Proxy {
    /// Starts a proxy before the server at this host and port.
    pub async fn start(server: &str) -> Self {
        Self::before(server, false).await
    }

    /// Starts a front that speaks as the XML form of Google Cloud Storage does, before a server that speaks as S3 does.
    pub async fn google(server: &str) -> Self {
        Self::before(server, true).await
    }

    async fn before(server: &str, google: bool) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a loopback port is free");
        let address = listener.local_addr().expect("an address").to_string();
        let shared = Arc::new(Shared { server: server.to_owned(), google, state: Mutex::default() });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, accepting }
    }

    /// Host and port.
    pub fn address(&self) -> String {
        self.address.clone()
    }

    /// Adds a rule after those that are there.
    pub fn rule(&self, rule: Rule) -> &Self {
        self.shared.state().rules.push(rule);
        self
    }

    /// Takes all rules away.
    pub fn clear(&self) -> &Self {
        self.shared.state().rules.clear();
        self
    }

    /// From now on a body that is not the one that was signed is refused, as S3 does and the test server does not.
    pub fn check_bodies(&self) -> &Self {
        self.shared.state().checks_bodies = true;
        self
    }

    /// From now on every request is reset, or none any more.
    pub fn outage(&self, on: bool) -> &Self {
        self.shared.state().outage = on;
        self
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.state().seen.clone()
    }

    /// How many requests were struck by a fault so far.
    pub fn struck(&self) -> usize {
        self.shared.state().seen.iter().filter(|seen| seen.fault.is_some()).count()
    }

    /// How many requests with this method and this text in path or query came so far.
    pub fn count(&self, method: &str, within: &str) -> usize {
        self.shared.state().seen.iter().filter(|seen| seen.method == method && seen.target.contains(within)).count()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with this task, and the connections with it.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            // A connection that fails is told by what the service makes of it.
            let _ = serve(stream, &shared).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// The head of a request or of an answer, without the empty line that ends it.
struct Head {
    text: String,
}

impl Head {
    fn method(&self) -> &str {
        self.text.split(' ').next().unwrap_or_default()
    }

    fn target(&self) -> &str {
        self.text.split(' ').nth(1).unwrap_or_default()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.text.lines().skip(1).filter_map(|line| line.split_once(':')).find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    fn body_bytes(&self) -> usize {
        self.header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    /// Its lines without these headers, with others at the end.
    fn with(&self, without: &[&str], lines: &[&str]) -> String {
        let kept = self.text.lines().filter(|line| line.split_once(':').is_none_or(|(key, _)| !without.iter().any(|name| key.eq_ignore_ascii_case(name))));
        kept.chain(lines.iter().copied()).map(|line| format!("{line}\r\n")).collect::<String>() + "\r\n"
    }
}

/// Reads as far as the end of a head, and what came with it of the body.
async fn read_head(stream: &mut TcpStream) -> io::Result<(Head, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            bytes.truncate(end);
            return Ok((Head { text: String::from_utf8_lossy(&bytes).into_owned() }, rest));
        }
        if bytes.len() > HEAD_BYTES || stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

async fn serve(mut client: TcpStream, shared: &Shared) -> io::Result<()> {
    let (head, mut body) = read_head(&mut client).await?;
    let fault = shared.judge(&head);
    let length = head.body_bytes();
    if length > BODY_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    if head.header("expect").is_some() {
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    let wanted = if fault == Some(Fault::ResetWithin) { length / 2 } else { length };
    while body.len() < wanted {
        if client.read_buf(&mut body).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    match fault {
        Some(Fault::Reset | Fault::ResetWithin) => return client.set_zero_linger(),
        Some(Fault::Answer(status, code)) => return refuse(&mut client, status, code).await,
        Some(Fault::Swallow) => {
            // Until the client gives up.
            while client.read_buf(&mut body).await? > 0 {
                body.clear();
            }
            return Ok(());
        }
        Some(Fault::Delay(time)) => tokio::time::sleep(time).await,
        Some(Fault::DamageRequest) => {
            let middle = body.len() / 2;
            if let Some(byte) = body.get_mut(middle) {
                *byte ^= 1;
            }
        }
        Some(Fault::LoseAnswer | Fault::CutAnswer(_) | Fault::DamageAnswer) | None => {}
    }
    let signed = head.header("x-amz-content-sha256").filter(|digest| digest.len() == 64 && shared.state().checks_bodies);
    if signed.is_some_and(|signed| signed != sha256(&body)) {
        return refuse(&mut client, 400, "XAmzContentSHA256Mismatch").await;
    }
    let mut server = TcpStream::connect(&shared.server).await?;
    server.write_all(to_server(&head, shared.google).as_bytes()).await?;
    server.write_all(&body).await?;
    let (answer, mut piece) = read_head(&mut server).await?;
    if fault == Some(Fault::LoseAnswer) {
        return client.set_zero_linger();
    }
    let extra: &[&str] = if shared.google { &["Connection: close", "x-goog-generation: 1"] } else { &["Connection: close"] };
    client.write_all(answer.with(&["connection"], extra).as_bytes()).await?;
    let mut left = if let Some(Fault::CutAnswer(bytes)) = fault { bytes } else { usize::MAX };
    let mut damage = fault == Some(Fault::DamageAnswer);
    // A HEAD names a length and has no body: the end of the server's connection is what ends an answer.
    let mut through = 0;
    let length = if head.method() == "HEAD" { 0 } else { answer.header("content-length").and_then(|value| value.parse().ok()).unwrap_or(usize::MAX) };
    loop {
        if damage && let Some(byte) = piece.last_mut() {
            *byte ^= 1;
            damage = false;
        }
        let taken = piece.len().min(left);
        client.write_all(&piece[..taken]).await?;
        left -= taken;
        through += piece.len();
        piece.clear();
        piece.reserve(PIECE_BYTES);
        if left == 0 || through >= length || server.read_buf(&mut piece).await? == 0 {
            return client.shutdown().await;
        }
    }
}

/// The head as the server gets it. The signature is over other headers then, where headers are renamed; the test server has no secret
/// to hold it against.
fn to_server(head: &Head, google: bool) -> String {
    if !google {
        return head.with(&["connection", "expect"], &["Connection: close"]);
    }
    let mut lines = vec!["Connection: close".to_owned(), format!("Authorization: {S3_LOGIN}")];
    if let Some(source) = head.header("x-goog-copy-source") {
        lines.push(format!("x-amz-copy-source: {source}"));
    }
    if head.header("x-goog-if-generation-match") == Some("0") {
        lines.push("If-None-Match: *".to_owned());
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    head.with(&["connection", "expect", "authorization", "x-goog-copy-source", "x-goog-if-generation-match"], &lines)
}

fn sha256(bytes: &[u8]) -> String {
    digest::digest(&digest::SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn refuse(client: &mut TcpStream, status: u16, code: &str) -> io::Result<()> {
    let body =
        format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>as the rule says</Message><RequestId>1</RequestId></Error>");
    let head = format!("HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    client.write_all(format!("{head}{body}").as_bytes()).await?;
    client.shutdown().await
}
