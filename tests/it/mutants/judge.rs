//! Servers as judges of a dump: one is started on each.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Longest time for a server to load a small dump or to give up.
const LOAD_BOUND: Duration = Duration::from_secs(30);

/// Most lines of a server's log that are read: a report of a crash has some hundreds.
const LINES: usize = 20_000;

/// Where a server's own words for a refusal begin, in its log.
const REASONS: [&str; 8] =
    ["configured to handle more than", "has duplicated key", "-> ", "Unknown RDB", "Short read", "Wrong RDB checksum", "ASSERTION FAILED", "Can't"];

/// What a server says of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loaded {
    /// It serves the content.
    Serves,
    /// It ended with a sentence.
    Refused,
    /// It ended with a report of a fault of its own, or by a signal.
    Died,
    /// It did not come to an end.
    Hung,
}

impl Loaded {
    pub const ALL: [Self; 4] = [Self::Serves, Self::Refused, Self::Died, Self::Hung];
}

/// A server program, with the highest version of each family of dumps that it reads.
#[derive(Clone, Debug)]
pub struct Engine {
    program: PathBuf,
    redis: u16,
    valkey: u16,
}

/// The engines that are here: those that were fetched, and the system's own. None is better than the one before for a dump that
/// both read, so that the nearest to its writer judges it.
fn engines() -> Vec<Engine> {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/engines");
    let known = [
        ("redis-7.0", "redis-server", 10, 0),
        ("redis-8.0", "redis-server", 12, 0),
        ("valkey-8.0", "valkey-server", 11, 0),
        ("valkey-9.1", "valkey-server", 11, 80),
    ];
    let mut engines: Vec<Engine> =
        known.into_iter().map(|(folder, program, redis, valkey)| Engine { program: fetched.join(folder).join(program), redis, valkey }).collect();
    let system = std::env::var_os(redkeep::redis::local::PROGRAM_VARIABLE).map_or_else(|| PathBuf::from("/usr/bin/redis-server"), PathBuf::from);
    engines.insert(0, Engine { program: system, redis: 10, valkey: 0 });
    engines.retain(|engine| engine.program.exists());
    engines
}

/// The first engine here that reads a dump of this header.
pub fn engine_for(dump: &[u8]) -> Option<Engine> {
    let number = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse::<u16>().ok();
    let (redis, valkey) = match dump {
        [b'R', b'E', b'D', b'I', b'S', a, b, c, d, ..] => (number(&[*a, *b, *c, *d])?, 0),
        [b'V', b'A', b'L', b'K', b'E', b'Y', a, b, c, ..] => (0, number(&[*a, *b, *c])?),
        _ => return None,
    };
    engines().into_iter().find(|engine| engine.redis >= redis && engine.valkey >= valkey)
}

/// A server that is killed with its judge.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a server on a dump and waits for its verdict, with the words in which it gave it.
pub fn load(engine: &Engine, dump: &[u8], folder: &Path) -> (Loaded, String) {
    // Many databases cost a server a second, and few dumps need them.
    let verdict = load_into(engine, dump, folder, "64");
    if verdict.1.contains("configured to handle more than") { load_into(engine, dump, folder, "16384") } else { verdict }
}

fn load_into(engine: &Engine, dump: &[u8], folder: &Path, databases: &str) -> (Loaded, String) {
    let folder = tempfile::tempdir_in(folder).expect("a folder for the server");
    std::fs::write(folder.path().join("dump.rdb"), dump).expect("the dump is written");
    let mut command = Command::new(&engine.program);
    command.args(["--port", "0", "--save", "", "--appendonly", "no", "--databases", databases, "--daemonize", "no", "--loglevel", "notice"]);
    // The report of a crash is enough; a test of all memory takes seconds.
    command.args(["--io-threads", "1", "--crash-memcheck-enabled", "no", "--unixsocket"]).arg(folder.path().join("s")).arg("--dir").arg(folder.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = Started(command.spawn().expect("the server is started"));
    let lines = lines_of(server.0.stdout.take().expect("its log"));
    let until = Instant::now() + LOAD_BOUND;
    let (mut crashed, mut words) = (false, String::new());
    loop {
        match lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) if line.contains("eady to accept connections") => return (Loaded::Serves, words),
            Ok(line) => {
                crashed |= line.contains("BUG REPORT START") || line.contains("crashed by signal");
                if words.is_empty() {
                    words = REASONS.iter().find_map(|reason| line.find(reason).map(|at| line[at..].to_owned())).unwrap_or_default();
                }
            }
            Err(RecvTimeoutError::Timeout) => return (if crashed { Loaded::Died } else { Loaded::Hung }, words),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = server.0.wait().expect("the server has ended");
    (if crashed || status.code().is_none() { Loaded::Died } else { Loaded::Refused }, words)
}

fn lines_of(log: impl Read + Send + 'static) -> Receiver<String> {
    let (told, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(log).split(b'\n').take(LINES) {
            let Ok(line) = line else { return };
            if told.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    lines
}

/// The verdicts on many dumps, in their order, by some servers at a time.
pub fn load_all(dumps: Vec<(&Engine, &[u8])>, folder: &Path, servers: usize) -> Vec<(Loaded, String)> {
    let (count, next) = (dumps.len(), Arc::new(Mutex::new(dumps.into_iter().enumerate())));
    let verdicts = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..servers {
            scope.spawn(|| {
                loop {
                    let dump = next.lock().expect("the dumps").next();
                    let Some((at, (engine, dump))) = dump else { return };
                    let verdict = load(engine, dump, folder);
                    verdicts.lock().expect("the verdicts").insert(at, verdict);
                }
            });
        }
    });
    let verdicts = verdicts.into_inner().expect("the verdicts");
    assert_eq!(verdicts.len(), count);
    verdicts.into_values().collect()
}
