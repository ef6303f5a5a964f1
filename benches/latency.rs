//! What a reader of the source feels while it is backed up: GET, sent at a steady 1,000 a second whatever the answers take, while
//! nothing else goes on, while the service takes a backup, and while `redis-cli --rdb - | zstd -1 -T2` runs, in turns.
//!
//! A request's latency counts from when it was due, so that a source that stands still is felt by all that wait behind. Told is the
//! 99th percentile of each second, and of those the median.
//!
//! ```text
//! REDKEEP_BENCH_BYTES=1073741824 REDKEEP_BENCH_ROUNDS=5 cargo bench --bench latency
//! ```

use figures::{Finding, Goal, load, median};
use it::support::data;
use it::support::server::RedisServer;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use turns::{Keys, Pipeline, REST, Store, back_up, pipe, rest};

mod figures;
#[path = "../tests/it"]
mod it {
    pub mod support;
}
mod turns;

/// Values of the source, in bytes, unless `REDKEEP_BENCH_BYTES` tells another number.
const BYTES: u64 = 1 << 30;
/// Rounds, unless `REDKEEP_BENCH_ROUNDS` tells another number.
const ROUNDS: u64 = 5;
/// Time between two requests.
const EVERY: Duration = Duration::from_millis(1);
/// Length of a quiet turn.
const QUIET: Duration = Duration::from_secs(5);
/// Requests of one window, which is a second.
const WINDOW: usize = 1000;
/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(30);

#[tokio::main(worker_threads = 1)]
async fn main() {
    let (bytes, rounds, folder) = figures::ground(BYTES, ROUNDS, "bench-");
    let keys = Keys::new(folder.path());

    eprintln!("filling a source with {bytes} bytes");
    let source = RedisServer::start().await;
    data::fill_mixed(&source, bytes).await;
    let service = Pipeline::Zstd.setup(&keys, &Store::File, &source.address()).spawn(&[]).await;
    let load_before = load();
    let (mut idle, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        for turn in 0..3 {
            rest(&source, folder.path()).await;
            let probe = Probe::start(source.port(), bytes);
            let name = match (turn + round) % 3 {
                0 => {
                    tokio::time::sleep(QUIET).await;
                    "idle"
                }
                1 => {
                    back_up(&service, &Store::File, &format!("round-{round}")).await;
                    "redkeep"
                }
                _ => {
                    let (file, port) = (folder.path().join("pipe"), source.port());
                    let piped = file.clone();
                    let keys = &keys;
                    tokio::task::block_in_place(|| pipe(Pipeline::Zstd, keys, &Store::File, port, &piped));
                    std::fs::remove_file(&file).expect("the pipe's file goes");
                    "pipe"
                }
            };
            let windows = probe.windows();
            eprintln!("round {}: {name:8} p99 {:6.2} ms, median of {} windows", round + 1, median(&windows), windows.len());
            match name {
                "idle" => idle.extend(windows),
                "redkeep" => ours.extend(windows),
                _ => theirs.extend(windows),
            }
        }
    }
    service.terminate(REST).await;
    let millis = |value: f64| format!("{value:.2} ms");
    let told =
        |name, windows: &[f64]| Finding { name, unit: "ms", value: median(windows), spread: figures::spread(windows), goal: Goal::None, detail: String::new() };
    let findings = vec![
        Finding::ratio("GET p99 / while the pipe runs", Goal::AtMost(0.5), &ours, &theirs, millis),
        told("GET p99 while nothing goes on", &idle),
        told("GET p99 while a backup runs", &ours),
        told("GET p99 while the pipe runs", &theirs),
    ];
    let title = format!("{bytes} bytes of values, {rounds} rounds, load {load_before:.2} before and {:.2} after", load());
    figures::print(&title, &findings);
    if figures::wants_json() {
        println!("{}", serde_json::json!({ "bytes": bytes, "rounds": rounds, "findings": figures::json(&findings) }));
    }
}

/// A reader of the source, on two threads of its own.
struct Probe {
    stop: Arc<AtomicBool>,
    asking: JoinHandle<usize>,
    hearing: JoinHandle<Vec<f64>>,
}

impl Probe {
    fn start(port: u16, bytes: u64) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the source answers");
        stream.set_nodelay(true).expect("a socket can be set");
        stream.set_read_timeout(Some(ANSWER)).expect("a socket can be set");
        let answers = BufReader::new(stream.try_clone().expect("a socket has two ends"));
        let stop = Arc::new(AtomicBool::new(false));
        let keys = bytes.div_ceil(data::MIXED_VALUE_BYTES as u64).max(1);
        let (started, stopped) = (Instant::now(), Arc::clone(&stop));
        let asking = std::thread::spawn(move || ask(stream, started, keys, &stopped));
        let hearing = std::thread::spawn(move || hear(answers, started));
        Self { stop, asking, hearing }
    }

    /// Ends it, and gives the 99th percentile of each whole second, in milliseconds; of what there is when that is less.
    fn windows(self) -> Vec<f64> {
        self.stop.store(true, Ordering::Relaxed);
        let asked = self.asking.join().expect("the asker ends");
        let latencies = self.hearing.join().expect("the hearer ends");
        assert_eq!(asked, latencies.len(), "every request was answered");
        let p99 = |window: &[f64]| {
            let mut sorted = window.to_vec();
            sorted.sort_by(f64::total_cmp);
            sorted[(sorted.len() * 99 / 100).min(sorted.len() - 1)]
        };
        let whole: Vec<f64> = latencies.chunks_exact(WINDOW).map(p99).collect();
        if whole.is_empty() { vec![p99(&latencies)] } else { whole }
    }
}

/// Sends each request when it is due; tells how many there were.
fn ask(mut stream: TcpStream, started: Instant, keys: u64, stop: &AtomicBool) -> usize {
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        let due = started + EVERY * u32::try_from(sent).expect("a bench ends within weeks");
        while let Some(wait) = due.checked_duration_since(Instant::now()).filter(|wait| !wait.is_zero()) {
            std::thread::park_timeout(wait);
        }
        // A stride that meets all parts of the data.
        let key = format!("mixed:{}", (sent as u64).wrapping_mul(7919) % keys);
        stream.write_all(format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len()).as_bytes()).expect("the source takes requests");
        sent += 1;
    }
    // The answers end with the connection.
    stream.write_all(b"*1\r\n$4\r\nQUIT\r\n").expect("the source takes requests");
    sent
}

/// Hears the answers, and tells how long after its due time each came, in milliseconds.
fn hear(mut answers: BufReader<TcpStream>, started: Instant) -> Vec<f64> {
    let mut latencies = Vec::new();
    loop {
        let length = match value(&mut answers) {
            Ok(Some(length)) => length,
            Ok(None) => return latencies,
            Err(fault) => panic!("the source does not answer: {fault}"),
        };
        assert_eq!(length, data::MIXED_VALUE_BYTES, "the source has the data");
        let due = started + EVERY * u32::try_from(latencies.len()).expect("a bench ends within weeks");
        latencies.push(Instant::now().saturating_duration_since(due).as_secs_f64() * 1e3);
    }
}

/// Reads a value and tells its length; none at the answer to QUIT.
fn value(answers: &mut BufReader<TcpStream>) -> io::Result<Option<usize>> {
    let mut line = String::new();
    answers.read_line(&mut line)?;
    let Some(length) = line.strip_prefix('$').and_then(|length| length.trim_end().parse::<usize>().ok()) else {
        return if line.starts_with("+OK") { Ok(None) } else { Err(io::Error::other(format!("an odd answer: {line:?}"))) };
    };
    let mut value = vec![0; length + 2];
    answers.read_exact(&mut value)?;
    Ok(Some(length))
}
