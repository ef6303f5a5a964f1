//! A server that does what a script says.
//!
//! It answers the ordinary questions like an idle Redis 7.0 of which every field can be set, and plays a list of actions
//! when it is asked for a synchronisation. It keeps count of what it saw.

use super::rdb_bytes::{Dump, Endless};
use super::resp::Value;
use bytes::{Buf, Bytes, BytesMut};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout};

/// The replication id that the server tells unless told otherwise.
pub const REPLICATION_ID: &str = "0123456789abcdef0123456789abcdef01234567";

/// A marker like those of real servers.
pub const MARKER: [u8; 40] = *b"89abcdef89abcdef89abcdef89abcdef89abcdef";

/// Time for a peer to do what a test waits for.
pub const PEER_BOUND: Duration = Duration::from_secs(30);

/// Gap between two pieces, so that they arrive as two reads. Only the first [`GAPS_MAX`] pieces get one.
const PIECE_GAP: Duration = Duration::from_millis(1);
const GAPS_MAX: usize = 1000;

/// Longest request, in bytes.
const REQUEST_BYTES_MAX: usize = 1024 * 1024;

/// One action after the request for a synchronisation.
#[derive(Clone, Debug)]
pub enum Act {
    /// `+FULLRESYNC` with the id and offset of INFO. Left out when the peer asked with the old SYNC.
    FullResync,
    /// These bytes.
    Send(Bytes),
    /// These bytes, cut into pieces of the given sizes over and over.
    SendInPieces { bytes: Bytes, sizes: Vec<usize> },
    /// Keep-alives: so many line feeds, each followed by the interval.
    Newlines(usize, Duration),
    /// Waits for a permit, `notify_one` gives one.
    Wait(Arc<Notify>),
    /// Waits for a time.
    Pause(Duration),
    /// A dump made on the fly, without its framing; see [`Endless`].
    Generate { total_bytes: u64, value_bytes: u64, bytes_per_second: Option<u64> },
    /// Silence until the peer closes.
    Stall,
    /// Closes in good order. So does the end of a script.
    Close,
    /// Closes with a reset.
    Reset,
}

/// Actions in order.
pub type Script = Vec<Act>;

/// A full synchronisation in length framing.
pub fn full_sync_length(rdb: impl Into<Bytes>) -> Script {
    let rdb = rdb.into();
    vec![Act::FullResync, Act::Send(format!("${}\r\n", rdb.len()).into()), Act::Send(rdb)]
}

/// A full synchronisation in marker framing.
pub fn full_sync_marker(rdb: impl Into<Bytes>, marker: [u8; 40]) -> Script {
    vec![Act::FullResync, Act::Send(marker_head(marker)), Act::Send(rdb.into()), Act::Send(Bytes::copy_from_slice(&marker))]
}

/// A generated dump in length framing; see [`Endless`].
pub fn generated_length(total_bytes: u64, value_bytes: u64, bytes_per_second: Option<u64>) -> Script {
    let size_bytes = Endless::new(total_bytes, value_bytes).size_bytes();
    vec![Act::FullResync, Act::Send(format!("${size_bytes}\r\n").into()), Act::Generate { total_bytes, value_bytes, bytes_per_second }]
}

/// A generated dump in marker framing; see [`Endless`].
pub fn generated_marker(total_bytes: u64, value_bytes: u64, bytes_per_second: Option<u64>) -> Script {
    let generate = Act::Generate { total_bytes, value_bytes, bytes_per_second };
    vec![Act::FullResync, Act::Send(marker_head(MARKER)), generate, Act::Send(Bytes::copy_from_slice(&MARKER))]
}

/// The line that announces a marker.
pub fn marker_head(marker: [u8; 40]) -> Bytes {
    [b"$EOF:", &marker[..], b"\r\n"].concat().into()
}

/// A settable answer.
#[derive(Clone, Debug)]
pub enum Answer {
    /// One line without its end, as in `-LOADING Redis is loading the dataset in memory`.
    Line(String),
    /// A reply of any kind.
    Value(Value),
    /// Bytes as they stand.
    Raw(Bytes),
    /// These bytes, then the connection closes.
    Last(Bytes),
    /// None: the peer waits in vain.
    Silence,
    /// The connection closes.
    Close,
}

impl From<&str> for Answer {
    fn from(line: &str) -> Self {
        Self::Line(line.to_owned())
    }
}

impl From<Value> for Answer {
    fn from(value: Value) -> Self {
        Self::Value(value)
    }
}

/// What the server saw, in numbers.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Connections accepted.
    pub connections: usize,
    /// Connections open.
    pub open: usize,
    /// Requests, PSYNC included.
    pub commands: usize,
    /// PSYNC and SYNC requests.
    pub psyncs: usize,
    /// Bytes of scripts handed to the network.
    pub sent_bytes: u64,
    /// Scripts played to their end.
    pub finished: usize,
    /// Connections that the peer closed while a script was being played or stalled.
    pub closed_by_peer: usize,
}

struct Field {
    section: &'static str,
    name: String,
    value: String,
}

struct Told {
    command: String,
    answer: Answer,
    times: Option<usize>,
}

struct State {
    info: Vec<Field>,
    config: Vec<(String, String)>,
    credentials: Option<(String, String)>,
    told: Vec<Told>,
    scripts: Vec<Script>,
    commands: Vec<Vec<String>>,
}

struct Shared {
    state: Mutex<State>,
    counts: watch::Sender<Counts>,
}

/// A scripted server on a loopback port. It and all its connections end with the drop.
pub struct ScriptedRedis {
    port: u16,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Drop for ScriptedRedis {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl ScriptedRedis {
    /// Starts a server whose n-th PSYNC gets the n-th script; the last one repeats.
    pub async fn start(scripts: Vec<Script>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a loopback port is free");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let state = State { info: idle_info(port), config: idle_config(), credentials: None, told: Vec::new(), scripts, commands: Vec::new() };
        let shared = Arc::new(Shared { state: Mutex::new(state), counts: watch::Sender::new(Counts::default()) });
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        Self { port, shared, accepting }
    }

    /// Starts a server that gives everyone a small snapshot.
    pub async fn willing() -> Self {
        Self::start(vec![full_sync_length(Dump::sample().bytes)]).await
    }

    /// Starts a server whose snapshots begin and never come.
    pub async fn stalling() -> Self {
        Self::start(vec![vec![Act::FullResync, Act::Stall]]).await
    }

    /// Starts a server whose first snapshot comes after a permit, and all others at once.
    pub async fn gated() -> (Self, Arc<Notify>) {
        let gate = Arc::new(Notify::new());
        let mut script = full_sync_length(Dump::sample().bytes);
        script.insert(1, Act::Wait(Arc::clone(&gate)));
        (Self::start(vec![script, full_sync_length(Dump::sample().bytes)]).await, gate)
    }

    /// Host and port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sets a field of INFO. A new one joins the section that fits its name.
    pub fn set_info(&self, name: &str, value: impl ToString) -> &Self {
        let section = if name.starts_with("slave") || name.starts_with("master") {
            "replication"
        } else if name.strip_prefix("db").is_some_and(|number| number.parse::<u32>().is_ok()) {
            "keyspace"
        } else {
            "server"
        };
        let mut state = self.shared.state();
        match state.info.iter_mut().find(|field| field.name == name) {
            Some(field) => field.value = value.to_string(),
            None => state.info.push(Field { section, name: name.to_owned(), value: value.to_string() }),
        }
        drop(state);
        self
    }

    /// Takes a field out of INFO.
    pub fn unset_info(&self, name: &str) -> &Self {
        self.shared.state().info.retain(|field| field.name != name);
        self
    }

    /// Plays a replica in good health.
    pub fn become_replica_of(&self, host: &str, port: u16) -> &Self {
        self.set_info("role", "slave")
            .set_info("master_host", host)
            .set_info("master_port", port)
            .set_info("master_link_status", "up")
            .set_info("master_last_io_seconds_ago", 1)
            .set_info("master_sync_in_progress", 0)
            .set_info("slave_read_repl_offset", 1000)
            .set_info("slave_repl_offset", 1000)
            .set_info("slave_priority", 100)
            .set_info("slave_read_only", 1)
    }

    /// Lists one more replica of this primary, with a state such as `online`.
    pub fn add_replica(&self, host: &str, port: u16, state: &str) -> &Self {
        let number: usize = self.shared.state().info("connected_slaves").parse().unwrap_or(0);
        self.set_info("connected_slaves", number + 1).set_info(&format!("slave{number}"), format!("ip={host},port={port},state={state},offset=1000,lag=0"))
    }

    /// Sets a database's counts, as in INFO and DBSIZE.
    pub fn set_keys(&self, database: u32, keys: u64, expires: u64) -> &Self {
        self.set_info(&format!("db{database}"), format!("keys={keys},expires={expires},avg_ttl=0"))
    }

    /// Sets a parameter of CONFIG GET.
    pub fn set_config(&self, name: &str, value: &str) -> &Self {
        let mut state = self.shared.state();
        state.config.retain(|(known, _)| known != name);
        state.config.push((name.to_owned(), value.to_owned()));
        drop(state);
        self
    }

    /// Asks for these credentials before anything else. `default` is the user of a bare password.
    pub fn require_auth(&self, user: &str, password: &str) -> &Self {
        self.shared.state().credentials = Some((user.to_owned(), password.to_owned()));
        self
    }

    /// Answers every request that starts with these words, such as `PSYNC` or `CONFIG GET`. The longest match wins, then the
    /// latest.
    pub fn answer(&self, command: &str, answer: impl Into<Answer>) -> &Self {
        self.tell(command, answer.into(), None)
    }

    /// As [`ScriptedRedis::answer`], but only so many times.
    pub fn answer_times(&self, times: usize, command: &str, answer: impl Into<Answer>) -> &Self {
        self.tell(command, answer.into(), Some(times))
    }

    /// Forgets what was set for these words.
    pub fn forget(&self, command: &str) -> &Self {
        self.shared.state().told.retain(|told| !told.command.eq_ignore_ascii_case(command));
        self
    }

    fn tell(&self, command: &str, answer: Answer, times: Option<usize>) -> &Self {
        self.shared.state().told.push(Told { command: command.to_uppercase(), answer, times });
        self
    }

    /// Replaces the scripts. The number of the next PSYNC goes on.
    pub fn set_scripts(&self, scripts: Vec<Script>) -> &Self {
        self.shared.state().scripts = scripts;
        self
    }

    /// What was seen so far.
    pub fn counts(&self) -> Counts {
        *self.shared.counts.borrow()
    }

    /// Waits until the counts satisfy `enough`, and returns them.
    ///
    /// # Panics
    ///
    /// When they do not within [`PEER_BOUND`].
    pub async fn wait_for(&self, enough: impl Fn(&Counts) -> bool) -> Counts {
        let mut counts = self.shared.counts.subscribe();
        let found = timeout(PEER_BOUND, counts.wait_for(|counts| enough(counts))).await.map(|found| found.map(|counts| *counts));
        match found {
            Ok(Ok(counts)) => counts,
            Ok(Err(_)) | Err(_) => panic!("not within {PEER_BOUND:?}; seen: {:?}", self.counts()),
        }
    }

    /// Waits until a peer has closed a connection on which a script was being played or stalled.
    pub async fn closed_by_peer(&self) {
        self.wait_for(|counts| counts.closed_by_peer > 0).await;
    }

    /// All requests, in order of arrival over all connections.
    pub fn commands(&self) -> Vec<Vec<String>> {
        self.shared.state().commands.clone()
    }

    /// The arguments of the requests of this name, such as `REPLCONF`, in order of arrival.
    pub fn arguments(&self, command: &str) -> Vec<Vec<String>> {
        let state = self.shared.state();
        state.commands.iter().filter(|words| words[0].eq_ignore_ascii_case(command)).map(|words| words[1..].to_vec()).collect()
    }

    /// The arguments of the REPLCONF requests, in order of arrival.
    pub fn replconf(&self) -> Vec<Vec<String>> {
        self.arguments("REPLCONF")
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        self.counts.send_modify(change);
    }
}

impl State {
    fn info(&self, name: &str) -> &str {
        self.info.iter().find(|field| field.name == name).map_or("", |field| &field.value)
    }

    /// Takes the answer that was set for a request.
    fn told(&mut self, words: &[String]) -> Option<Answer> {
        let request = words.join(" ").to_uppercase() + " ";
        let fits = |told: &Told| request.starts_with(&format!("{} ", told.command)) && told.times != Some(0);
        let told = self.told.iter_mut().filter(|told| fits(told)).max_by_key(|told| told.command.len())?;
        told.times = told.times.map(|times| times - 1);
        Some(told.answer.clone())
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                shared.count(|counts| (counts.connections, counts.open) = (counts.connections + 1, counts.open + 1));
                let shared = shared.clone();
                connections.spawn(async move {
                    // A broken connection is the peer's business: tests look at what was counted.
                    let _ = serve(stream, &shared).await;
                    shared.count(|counts| counts.open -= 1);
                });
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// What one connection has agreed upon.
struct Session {
    user: Option<String>,
    database: u32,
}

async fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut session = Session { user: None, database: 0 };
    let mut buffer = BytesMut::new();
    loop {
        let words = loop {
            match request(&mut buffer)? {
                Some(words) if words.is_empty() => {}
                Some(words) => break words,
                None if stream.read_buf(&mut buffer).await? == 0 => return Ok(()),
                None => {}
            }
        };
        let command = words[0].to_uppercase();
        let sync = command == "PSYNC" || command == "SYNC";
        let number = shared.counts.borrow().psyncs;
        let (told, script) = {
            let mut state = shared.state();
            state.commands.push(words.clone());
            let told = if session.user.is_none() && state.credentials.is_some() && !matches!(&*command, "AUTH" | "QUIT" | "HELLO") {
                Some(Answer::Line("-NOAUTH Authentication required.".to_owned()))
            } else {
                state.told(&words)
            };
            (told, state.scripts.get(number).or(state.scripts.last()).cloned())
        };
        shared.count(|counts| {
            counts.commands += 1;
            counts.psyncs += usize::from(sync);
        });
        let answer = match (told, script) {
            (Some(answer), _) => answer,
            (None, Some(script)) if sync => return perform(stream, shared, script, command == "SYNC").await,
            (None, _) => Answer::Value(reply(&mut shared.state(), &mut session, &command, &words)),
        };
        let mut wire = Vec::new();
        match answer {
            Answer::Line(line) => wire.extend_from_slice(format!("{line}\r\n").as_bytes()),
            Answer::Value(value) => value.encode(&mut wire),
            Answer::Raw(bytes) => wire.extend_from_slice(&bytes),
            Answer::Last(bytes) => {
                stream.write_all(&bytes).await?;
                return stream.shutdown().await;
            }
            Answer::Silence => {}
            Answer::Close => return Ok(()),
        }
        stream.write_all(&wire).await?;
        if command == "QUIT" {
            return Ok(());
        }
    }
}

/// Takes a whole request from the front; an inline one too.
fn request(buffer: &mut BytesMut) -> io::Result<Option<Vec<String>>> {
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "not a request");
    if buffer.len() > REQUEST_BYTES_MAX {
        return Err(broken());
    }
    let line = |from: usize| buffer[from..].iter().position(|&byte| byte == b'\n').map(|end| (from, from + end));
    let text = |(from, end): (usize, usize)| String::from_utf8_lossy(&buffer[from..end]).trim_end().to_owned();
    let Some(head) = line(0) else { return Ok(None) };
    let Some(arguments) = text(head).strip_prefix('*').map(str::to_owned) else {
        let words = text(head).split_whitespace().map(str::to_owned).collect();
        buffer.advance(head.1 + 1);
        return Ok(Some(words));
    };
    let (mut words, mut at) = (Vec::new(), head.1 + 1);
    for _ in 0..arguments.parse::<usize>().map_err(|_| broken())? {
        let Some(head) = line(at) else { return Ok(None) };
        let length: usize = text(head).strip_prefix('$').and_then(|length| length.parse().ok()).ok_or_else(broken)?;
        let from = head.1 + 1;
        if buffer.len() < from + length + 2 {
            return Ok(None);
        }
        words.push(String::from_utf8_lossy(&buffer[from..from + length]).into_owned());
        at = from + length + 2;
    }
    buffer.advance(at);
    Ok(Some(words))
}

/// How a script came to its end.
enum Ending {
    Close,
    Reset,
}

async fn perform(mut stream: TcpStream, shared: &Shared, script: Script, old: bool) -> io::Result<()> {
    let ending = {
        let (mut from, mut to) = stream.split();
        tokio::select! {
            ending = play(&mut to, shared, script, old) => ending,
            () = watch_peer(&mut from, shared) => Err(io::ErrorKind::ConnectionReset.into()),
        }
    };
    match ending {
        // A failed write says that the peer is gone just as a failed read does.
        Err(error) => {
            shared.count(|counts| counts.closed_by_peer += 1);
            Err(error)
        }
        Ok(Ending::Close) => {
            let ended = stream.shutdown().await;
            shared.count(|counts| counts.finished += 1);
            ended
        }
        Ok(Ending::Reset) => {
            let ended = stream.set_zero_linger();
            drop(stream);
            shared.count(|counts| counts.finished += 1);
            ended
        }
    }
}

/// Reads and records requests, which get no answer, until the peer closes.
async fn watch_peer(from: &mut (impl AsyncReadExt + Unpin), shared: &Shared) {
    let mut buffer = BytesMut::new();
    while let Ok(1..) = from.read_buf(&mut buffer).await {
        while let Ok(Some(words)) = request(&mut buffer) {
            if !words.is_empty() {
                shared.state().commands.push(words);
                shared.count(|counts| counts.commands += 1);
            }
        }
    }
}

async fn play(to: &mut (impl AsyncWriteExt + Unpin), shared: &Shared, script: Script, old: bool) -> io::Result<Ending> {
    for act in script {
        match act {
            Act::FullResync => {
                let line = {
                    let state = shared.state();
                    format!("+FULLRESYNC {} {}\r\n", state.info("master_replid"), state.info("master_repl_offset"))
                };
                if !old {
                    send(to, shared, line.as_bytes()).await?;
                }
            }
            Act::Send(bytes) => send(to, shared, &bytes).await?,
            Act::SendInPieces { mut bytes, sizes } => {
                for (number, size) in sizes.into_iter().cycle().enumerate() {
                    if bytes.is_empty() {
                        break;
                    }
                    assert!(size > 0, "a piece has at least one byte");
                    send(to, shared, &bytes.split_to(size.min(bytes.len()))).await?;
                    if number < GAPS_MAX {
                        tokio::time::sleep(PIECE_GAP).await;
                    } else {
                        tokio::task::yield_now().await;
                    }
                }
            }
            Act::Newlines(count, interval) => {
                for _ in 0..count {
                    send(to, shared, b"\n").await?;
                    tokio::time::sleep(interval).await;
                }
            }
            Act::Wait(gate) => gate.notified().await,
            Act::Pause(time) => tokio::time::sleep(time).await,
            Act::Generate { total_bytes, value_bytes, bytes_per_second } => {
                let (started_at, mut sent_bytes) = (Instant::now(), 0);
                let mut dump = Endless::new(total_bytes, value_bytes);
                while let Some(mut chunk) = dump.next_chunk() {
                    // A slow pace goes in small pieces, some twenty in a second, so that it is even.
                    let piece = bytes_per_second.map_or(chunk.len() as u64, |pace| (pace / 20).clamp(1, chunk.len() as u64));
                    while !chunk.is_empty() {
                        let piece = chunk.split_to(chunk.len().min(piece as usize));
                        send(to, shared, &piece).await?;
                        sent_bytes += piece.len() as u64;
                        if let Some(pace) = bytes_per_second {
                            tokio::time::sleep_until(started_at + Duration::from_secs_f64(sent_bytes as f64 / pace as f64)).await;
                        }
                    }
                }
            }
            Act::Stall => std::future::pending().await,
            Act::Close => return Ok(Ending::Close),
            Act::Reset => return Ok(Ending::Reset),
        }
    }
    Ok(Ending::Close)
}

async fn send(to: &mut (impl AsyncWriteExt + Unpin), shared: &Shared, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let sent = to.write(bytes).await?;
        bytes = &bytes[sent..];
        shared.count(|counts| counts.sent_bytes += sent as u64);
    }
    Ok(())
}

/// The answers of an idle server.
fn reply(state: &mut State, session: &mut Session, command: &str, words: &[String]) -> Value {
    let argument = |number: usize| words.get(number).map_or("", String::as_str);
    let ok = || Value::Status("OK".to_owned());
    let subcommand = argument(1).to_uppercase();
    match (command, &*subcommand) {
        ("PING", "") => Value::Status("PONG".to_owned()),
        ("PING" | "ECHO", _) => Value::bulk(argument(1)),
        ("AUTH", _) => {
            let given = if words.len() > 2 { (argument(1), argument(2)) } else { ("default", argument(1)) };
            match &state.credentials {
                Some((user, password)) if given == (user, password) => {
                    session.user = Some(user.clone());
                    ok()
                }
                Some(_) => Value::Error("WRONGPASS invalid username-password pair or user is disabled.".to_owned()),
                None if words.len() > 2 => ok(),
                None => Value::Error(
                    "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?".to_owned(),
                ),
            }
        }
        ("SELECT", _) => match argument(1).parse() {
            Ok(database) => {
                session.database = database;
                ok()
            }
            Err(_) => Value::Error("ERR value is not an integer or out of range".to_owned()),
        },
        ("CLIENT", "ID") => Value::Integer(7),
        ("CLIENT", "GETNAME") => Value::Nil,
        ("CLIENT" | "REPLCONF" | "QUIT" | "READONLY" | "RESET", _) => ok(),
        ("INFO", _) => {
            let sections: Vec<_> = words[1..].iter().map(|section| section.to_lowercase()).collect();
            Value::bulk(info_text(&state.info, &sections))
        }
        ("ROLE", _) => role(state),
        ("CONFIG", "GET") => {
            let wanted = |name: &str| words[2..].iter().any(|pattern| pattern == "*" || pattern.eq_ignore_ascii_case(name));
            let found = state.config.iter().filter(|(name, _)| wanted(name));
            Value::bulks(found.flat_map(|(name, value)| [name, value]))
        }
        ("CONFIG", _) => ok(),
        ("ACL", "WHOAMI") => Value::bulk(session.user.as_deref().unwrap_or("default")),
        ("ACL", "DRYRUN") => ok(),
        ("ACL", "LIST") => Value::bulks(["user default on nopass ~* &* +@all"]),
        ("DBSIZE", _) => {
            let counts = state.info(&format!("db{}", session.database));
            let keys = counts.split(',').find_map(|count| count.strip_prefix("keys=")).and_then(|keys| keys.parse().ok());
            Value::Integer(keys.unwrap_or(0))
        }
        ("PUBSUB", "NUMSUB") => Value::Array(words[2..].iter().flat_map(|channel| [Value::bulk(channel), Value::Integer(0)]).collect()),
        ("PUBSUB", "CHANNELS") | ("MODULE" | "FUNCTION", "LIST") | ("COMMAND", _) => Value::Array(Vec::new()),
        ("CLUSTER", _) => Value::Error("ERR This instance has cluster support disabled".to_owned()),
        ("LASTSAVE", _) => Value::Integer(1_700_000_000),
        ("TIME", _) => Value::bulks(["1700000000", "0"]),
        _ => {
            let arguments: String = words[1..].iter().map(|word| format!("'{word}' ")).collect();
            Value::Error(format!("ERR unknown command '{}', with args beginning with: {arguments}", words[0]))
        }
    }
}

fn info_text(info: &[Field], sections: &[String]) -> String {
    let all = sections.is_empty() || sections.iter().any(|section| matches!(&**section, "all" | "default" | "everything"));
    let mut text = String::new();
    for section in ["server", "clients", "memory", "persistence", "stats", "replication", "cpu", "modules", "cluster", "keyspace"] {
        if !all && !sections.iter().any(|wanted| wanted == section) {
            continue;
        }
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        text.push_str(&format!("# {}{}\r\n", section[..1].to_uppercase(), &section[1..]));
        for field in info.iter().filter(|field| field.section == section) {
            text.push_str(&format!("{}:{}\r\n", field.name, field.value));
        }
    }
    text
}

fn role(state: &State) -> Value {
    if state.info("role") == "slave" {
        let link = match (state.info("master_sync_in_progress"), state.info("master_link_status")) {
            ("1", _) => "sync",
            (_, "up") => "connected",
            _ => "connect",
        };
        let port = state.info("master_port").parse().unwrap_or(0);
        let offset = state.info("slave_repl_offset").parse().unwrap_or(0);
        return Value::Array(vec![
            Value::bulk("slave"),
            Value::bulk(state.info("master_host")),
            Value::Integer(port),
            Value::bulk(link),
            Value::Integer(offset),
        ]);
    }
    let part = |line: &str, name: &str| line.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('=').map(str::to_owned)).unwrap_or_default();
    let replicas = (0..state.info("connected_slaves").parse().unwrap_or(0)).map(|number: usize| {
        let line = state.info(&format!("slave{number}"));
        Value::bulks(["ip", "port", "offset"].map(|name| part(line, name)))
    });
    let offset = state.info("master_repl_offset").parse().unwrap_or(0);
    Value::Array(vec![Value::bulk("master"), Value::Integer(offset), Value::Array(replicas.collect())])
}

fn idle_info(port: u16) -> Vec<Field> {
    let port = port.to_string();
    let none = "0".repeat(40);
    let fields: &[(&'static str, &[(&str, &str)])] = &[
        (
            "server",
            &[
                ("redis_version", "7.0.15"),
                ("redis_mode", "standalone"),
                ("os", "Linux 6.1.0 x86_64"),
                ("arch_bits", "64"),
                ("process_id", "1"),
                ("run_id", "fedcba9876543210fedcba9876543210fedcba98"),
                ("tcp_port", &port),
                ("uptime_in_seconds", "86400"),
            ],
        ),
        ("clients", &[("connected_clients", "1"), ("maxclients", "10000")]),
        (
            "memory",
            &[
                ("used_memory", "1048576"),
                ("used_memory_rss", "8388608"),
                ("used_memory_peak", "1048576"),
                ("total_system_memory", "8589934592"),
                ("maxmemory", "0"),
                ("maxmemory_policy", "noeviction"),
                ("mem_clients_slaves", "0"),
            ],
        ),
        (
            "persistence",
            &[
                ("loading", "0"),
                ("async_loading", "0"),
                ("current_cow_size", "0"),
                ("current_fork_perc", "0.00"),
                ("current_save_keys_processed", "0"),
                ("current_save_keys_total", "0"),
                ("rdb_bgsave_in_progress", "0"),
                ("rdb_last_bgsave_status", "ok"),
                ("rdb_last_cow_size", "262144"),
                ("aof_enabled", "0"),
                ("aof_rewrite_in_progress", "0"),
            ],
        ),
        ("stats", &[("sync_full", "0"), ("latest_fork_usec", "250")]),
        (
            "replication",
            &[
                ("role", "master"),
                ("connected_slaves", "0"),
                ("master_failover_state", "no-failover"),
                ("master_replid", REPLICATION_ID),
                ("master_replid2", &none),
                ("master_repl_offset", "1000"),
                ("second_repl_offset", "-1"),
                ("repl_backlog_active", "0"),
            ],
        ),
        ("cluster", &[("cluster_enabled", "0")]),
    ];
    let owned = |&(section, fields): &(&'static str, &[(&str, &str)])| -> Vec<Field> {
        fields.iter().map(|(name, value)| Field { section, name: (*name).to_owned(), value: (*value).to_owned() }).collect()
    };
    fields.iter().flat_map(owned).collect()
}

fn idle_config() -> Vec<(String, String)> {
    [
        ("client-output-buffer-limit", "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60"),
        ("databases", "16"),
        ("maxmemory", "0"),
        ("rdbchecksum", "yes"),
        ("rdbcompression", "yes"),
        ("repl-diskless-sync", "yes"),
        ("repl-diskless-sync-delay", "5"),
        ("repl-timeout", "60"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}
