//! How fast a dump is walked, beside `redis-check-rdb` on the same file: values of 1 KiB, and tiny keys; without options, and
//! with the slot and the hash of each key.
//!
//! The file is read in pieces of 256 KiB and walked on one thread. Rates are of processor time, which is what one core can do
//! whatever else the machine does; the walks and the tool take turns. Told are medians with their spread, each against its goal.
//! A goal that is missed is told and is no failure.
//!
//! ```text
//! REDKEEP_BENCH_BYTES=1073741824 REDKEEP_BENCH_ROUNDS=5 REDKEEP_BENCH_OUTPUT=json cargo bench --bench walk
//! cargo bench --bench walk -- -o json
//! ```
//!
//! The files lie below the target folder and go when it ends.

use figures::{Finding, Goal, cpu_of, cpu_of_children, load, median, number, spread};
use it::support::rdb_bytes::Endless;
use redkeep::rdb::{Options, SLOT_COUNT, SlotSet, Summary, Walker};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

mod figures;
#[path = "../tests/it"]
mod it {
    pub mod support;
}

/// Bytes of the dump of big values, unless `REDKEEP_BENCH_BYTES` tells another number.
const BYTES: u64 = 1 << 30;
/// A tiny key to so many bytes of the other dump: ten million to a gibibyte.
const BYTES_A_KEY: u64 = 107;
/// Values of the two dumps, in bytes. The names have 20.
const BIG_BYTES: u64 = 1024;
const TINY_BYTES: u64 = 10;
/// Bytes of a tiny key in the dump: type, two lengths, name and value.
const TINY_RECORD_BYTES: u64 = 3 + 20 + TINY_BYTES;
/// Rounds, unless `REDKEEP_BENCH_ROUNDS` tells another number.
const ROUNDS: u64 = 5;
/// Bytes of a piece.
const PIECE_BYTES: usize = 256 * 1024;

/// A dump on disk.
struct Dump {
    path: PathBuf,
    bytes: u64,
    keys: u64,
}

/// Processor time of every turn on one dump, in seconds.
#[derive(Default)]
struct Runs {
    bare: Vec<f64>,
    named: Vec<f64>,
    tool: Vec<f64>,
}

fn main() {
    let bytes = number("REDKEEP_BENCH_BYTES", BYTES);
    let rounds = number("REDKEEP_BENCH_ROUNDS", ROUNDS).max(1);
    let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder below target");
    eprintln!("writing a dump of {bytes} bytes and one of {} keys", bytes / BYTES_A_KEY);
    let big = write(&folder.path().join("big.rdb"), Endless::new(bytes, BIG_BYTES));
    let tiny = write(&folder.path().join("tiny.rdb"), Endless::new(bytes / BYTES_A_KEY * TINY_RECORD_BYTES, TINY_BYTES));
    let load_before = load();
    let (of_big, of_tiny) = (measure("big values", &big, rounds), measure("tiny keys", &tiny, rounds));

    let findings = findings(&big, &of_big, &tiny, &of_tiny);
    let (big_keys, tiny_keys) = (big.keys, tiny.keys);
    let load_after = load();
    let title =
        format!("{big_keys} values of {BIG_BYTES} bytes, {tiny_keys} of {TINY_BYTES}; {rounds} rounds, load {load_before:.2} before and {load_after:.2} after");
    figures::print(&title, &findings);
    if figures::wants_json() {
        println!("{}", serde_json::json!({ "bytes": bytes, "rounds": rounds, "findings": figures::json(&findings) }));
    }
}

fn write(path: &Path, mut dump: Endless) -> Dump {
    let mut file = File::create(path).expect("the file can be made");
    while let Some(chunk) = dump.next_chunk() {
        file.write_all(&chunk).expect("the disk takes the dump");
    }
    Dump { path: path.to_owned(), bytes: dump.size_bytes(), keys: dump.keys() }
}

fn measure(name: &str, dump: &Dump, rounds: u64) -> Runs {
    let mut runs = Runs::default();
    for round in 0..rounds {
        // Whoever goes first changes from round to round.
        for turn in 0..3 {
            let (what, seconds) = match (turn + round) % 3 {
                0 => ("walk", turned(&mut runs.bare, walk(dump, Options::default()))),
                1 => ("walk with names", turned(&mut runs.named, walk(dump, named()))),
                _ => ("redis-check-rdb", turned(&mut runs.tool, check(dump))),
            };
            eprintln!("round {}: {name:10} {what:16} {seconds:6.2} s CPU", round + 1);
        }
    }
    runs
}

fn turned(runs: &mut Vec<f64>, seconds: f64) -> f64 {
    runs.push(seconds);
    seconds
}

/// What the walk of a shard in cluster mode looks at.
fn named() -> Options {
    Options { slots: Some(SlotSet::from_ranges([(0, SLOT_COUNT - 1)])), sketch: Some([7; 16]) }
}

fn walk(dump: &Dump, options: Options) -> f64 {
    let own = std::process::id();
    let mut file = File::open(&dump.path).expect("the dump can be opened");
    let mut piece = vec![0; PIECE_BYTES];
    let cpu = cpu_of(own);
    let mut walker = Walker::with(options);
    loop {
        let length = file.read(&mut piece).expect("the dump can be read");
        if length == 0 {
            break;
        }
        walker.feed(&piece[..length]).expect("the dump is sound");
    }
    let summary: Summary = walker.finish().expect("the dump is sound");
    let seconds = cpu_of(own) - cpu;
    assert_eq!((summary.bytes, summary.databases[0].keys), (dump.bytes, dump.keys));
    assert!(summary.opaque.is_none() && summary.counts_match == Some(true));
    seconds
}

fn check(dump: &Dump) -> f64 {
    let cpu = cpu_of_children();
    let output = Command::new("redis-check-rdb").arg(&dump.path).stdin(Stdio::null()).output().expect("redis-check-rdb starts");
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && report.contains(&format!("{} keys read", dump.keys)), "{report}");
    cpu_of_children() - cpu
}

fn findings(big: &Dump, of_big: &Runs, tiny: &Dump, of_tiny: &Runs) -> Vec<Finding> {
    let gigabytes = big.bytes as f64 / 1e9;
    let millions = tiny.keys as f64 / 1e6;
    let seconds = |value: f64| format!("{value:.2} s CPU");
    vec![
        rate("1 KiB values", "GB/s", gigabytes, Goal::AtLeast(1.0), &of_big.bare),
        rate("1 KiB values, slots and hashes", "GB/s", gigabytes, Goal::AtLeast(1.0), &of_big.named),
        rate("redis-check-rdb, 1 KiB values", "GB/s", gigabytes, Goal::None, &of_big.tool),
        Finding::ratio("walk / redis-check-rdb, 1 KiB", Goal::None, &of_big.bare, &of_big.tool, seconds),
        rate("tiny keys", "M keys/s", millions, Goal::AtLeast(5.0), &of_tiny.bare),
        rate("tiny keys, slots and hashes", "M keys/s", millions, Goal::AtLeast(5.0), &of_tiny.named),
        rate("redis-check-rdb, tiny keys", "M keys/s", millions, Goal::None, &of_tiny.tool),
        Finding::ratio("walk / redis-check-rdb, tiny", Goal::None, &of_tiny.bare, &of_tiny.tool, seconds),
    ]
}

/// How much a second of processor time is good for.
fn rate(name: &'static str, unit: &'static str, amount: f64, goal: Goal, seconds: &[f64]) -> Finding {
    // A tick is the least that can be told of a small dump.
    let rates: Vec<f64> = seconds.iter().map(|seconds| amount / seconds.max(0.01)).collect();
    Finding { name, unit, value: median(&rates), spread: spread(&rates), goal, detail: format!("{amount:.2} in {:.2} s CPU", median(seconds)) }
}
