//! What a backup costs, held against the shortest way there is, for each way to store it: `redis-cli --rdb - > FILE`, the same
//! through `zstd -1 -T2`, and through `age -r RECIPIENT` behind that, each with `sync FILE`.
//!
//! The service, that pipe and the source's own floor (`redis-cli --rdb -` into nothing) take turns on one source, so that
//! what else the machine does falls on all of them alike. The service walks and checks what it stores, so beside it stands what
//! that costs with tools, too: the pipe's file given back and read by `redis-check-rdb`. Told are medians with their spread,
//! each against its goal. A goal that is missed is told and is no failure.
//!
//! ```text
//! REDKEEP_BENCH_BYTES=1073741824 REDKEEP_BENCH_ROUNDS=5 REDKEEP_BENCH_OUTPUT=json cargo bench --bench backup
//! REDKEEP_BENCH_PIPELINES=plain,zstd,zstd+age      which of them; all when not set
//! REDKEEP_BENCH_STORES=file,s3                     to a folder, to the S3 server of the tests (the pipe ends in boto3); the folder when not set
//! REDKEEP_BENCH_GENERATED_BYTES=68719476736        a dump of that size, made on the fly, once each; none when not set
//! cargo bench --bench backup -- -o json
//! ```
//!
//! Everything lies below the target folder, which must be on a real disk, and goes when it ends.

use figures::{Finding, Goal, load, median, number, spread};
use it::support::data;
use it::support::scripted::{ScriptedRedis, generated_length};
use it::support::server::RedisServer;
use it::support::service::Setup;
use redkeep::pb::managed;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Instant;
use turns::{Keys, Pipeline, REST, Store, Turn, back_up, check, floor, peak_bytes, pipe, rest};

mod figures;
#[path = "../tests/it"]
mod it {
    pub mod support;
}
mod turns;

const MIB: f64 = 1024.0 * 1024.0;
/// Values of the source, in bytes, unless `REDKEEP_BENCH_BYTES` tells another number.
const BYTES: u64 = 1 << 30;
/// Rounds, unless `REDKEEP_BENCH_ROUNDS` tells another number.
const ROUNDS: u64 = 5;
/// Calls whose time is taken, each beside one sync of the same disk.
const CALLS: usize = 100;
/// Bytes of one synced write.
const PAGE_BYTES: usize = 4096;
#[tokio::main(worker_threads = 1)]
async fn main() {
    let (bytes, rounds, folder) = figures::ground(BYTES, ROUNDS, "bench-");
    let generated = number("REDKEEP_BENCH_GENERATED_BYTES", 0);
    let keys = Keys::new(folder.path());

    let mut all = Vec::new();
    let mut tell = |title: String, findings: Vec<Finding>| {
        figures::print(&title, &findings);
        all.push(serde_json::json!({ "title": title, "findings": figures::json(&findings) }));
    };
    eprintln!("filling a source with {bytes} bytes");
    let source = RedisServer::start().await;
    data::fill_mixed(&source, bytes).await;
    let stores = Store::chosen().await;
    for (store, pipeline) in stores.iter().flat_map(|store| Pipeline::chosen().into_iter().map(move |pipeline| (store, pipeline))) {
        let load_before = load();
        let runs = measure(pipeline, &keys, store, &source, rounds, folder.path()).await;
        let (name, place) = (pipeline.as_str(), store.as_str());
        tell(format!("{name} to {place}: {bytes} bytes of values, {rounds} rounds, load {load_before:.2} before and {:.2} after", load()), findings(&runs));
    }
    drop(source);
    if generated > 0 {
        for pipeline in Pipeline::chosen() {
            let findings = endless(pipeline, &keys, generated).await;
            tell(format!("{}: a generated dump of {generated} bytes", pipeline.as_str()), findings);
        }
    }
    tell("calls".to_owned(), answered(&answers(folder.path()).await));
    if figures::wants_json() {
        println!("{}", serde_json::json!({ "bytes": bytes, "rounds": rounds, "tables": all }));
    }
}

/// All turns, and the most memory that the service held at once.
#[derive(Default)]
struct Runs {
    ours: Vec<Turn>,
    pipe: Vec<Turn>,
    /// The pipe, and its file checked with tools.
    checked: Vec<Turn>,
    floor: Vec<Turn>,
    peak_bytes: f64,
}

async fn measure(pipeline: Pipeline, keys: &Keys, store: &Store, source: &RedisServer, rounds: u64, folder: &Path) -> Runs {
    let service = pipeline.setup(keys, store, &source.address()).spawn(&[]).await;
    let (file, dump) = (folder.join("pipe"), folder.join("pipe.rdb"));
    let mut runs = Runs::default();
    for round in 0..rounds {
        // Whoever goes first changes from round to round.
        for turn in 0..3 {
            rest(source, folder).await;
            let (name, taken) = match (turn + round) % 3 {
                0 => {
                    let (taken, _) = back_up(&service, store, &format!("round-{round}")).await;
                    runs.ours.push(taken);
                    ("redkeep", taken)
                }
                1 => {
                    let taken = pipe(pipeline, keys, store, source.port(), &file);
                    runs.pipe.push(taken);
                    runs.checked.push(taken + check(pipeline, keys, store, &file, &dump));
                    store.clear(&file);
                    let _ = fs::remove_file(&dump);
                    ("pipe", taken)
                }
                _ => {
                    let taken = floor(source.port());
                    runs.floor.push(taken);
                    ("floor", taken)
                }
            };
            eprintln!("{} round {}: {name:8} {:6.2} s, {:5.2} s CPU", pipeline.as_str(), round + 1, taken.wall, taken.cpu);
        }
    }
    runs.peak_bytes = peak_bytes(service.pid());
    service.terminate(REST).await;
    runs
}

/// A backup of a dump that is made on the fly: how fast it goes, and how much memory it takes.
async fn endless(pipeline: Pipeline, keys: &Keys, bytes: u64) -> Vec<Finding> {
    let source = ScriptedRedis::start(vec![generated_length(bytes, data::MIXED_VALUE_BYTES as u64, None)]).await;
    let service = pipeline.setup(keys, &Store::File, &source.address()).spawn(&[]).await;
    let (turn, backup) = back_up(&service, &Store::File, "endless").await;
    let peak = peak_bytes(service.pid()) / MIB;
    service.terminate(REST).await;
    let rate = backup.size_bytes as f64 / MIB / turn.wall;
    let detail = format!("{:.0} s, {:.0} s CPU", turn.wall, turn.cpu);
    vec![
        Finding { name: "throughput", unit: "MiB/s", value: rate, spread: (rate, rate), goal: Goal::None, detail },
        Finding { name: "peak memory", unit: "MiB", value: peak, spread: (peak, peak), goal: Goal::AtMost(64.0), detail: String::new() },
    ]
}

/// Times in seconds: of calls until their answer, and of syncs of the same disk.
struct Answers {
    calls: Vec<f64>,
    syncs: Vec<f64>,
}

/// Calls that each make an operation durable. Nobody works on them, so that a call waits for nothing but its own commit:
/// every cluster is in a zone that the service does not serve.
async fn answers(folder: &Path) -> Answers {
    let mut setup = Setup::new().executor("zones", "[\"here\"]");
    for number in 0..CALLS {
        setup = setup.cluster(&format!("c{number}"), &["127.0.0.1:1"], "zone = \"elsewhere\"");
    }
    let service = setup.spawn(&[]).await;
    let mut answers = Answers { calls: Vec::new(), syncs: Vec::new() };
    let mut file = File::create(folder.join("syncs")).expect("the file can be made");
    for number in 0..CALLS {
        let request = managed::BackupClusterRequest { cluster_id: format!("c{number}") };
        let started = Instant::now();
        service.clients.clusters.clone().backup(request).await.expect("the backup is accepted");
        answers.calls.push(started.elapsed().as_secs_f64());

        let started = Instant::now();
        file.write_all(&[number as u8; PAGE_BYTES]).expect("the disk takes a page");
        file.sync_data().expect("the disk is in order");
        answers.syncs.push(started.elapsed().as_secs_f64());
    }
    service.terminate(REST).await;
    answers
}

fn findings(runs: &Runs) -> Vec<Finding> {
    let wall = |turns: &[Turn]| turns.iter().map(|turn| turn.wall).collect::<Vec<_>>();
    let cpu = |turns: &[Turn]| turns.iter().map(|turn| turn.cpu).collect::<Vec<_>>();
    let seconds = |value: f64| format!("{value:.2} s");
    let peak = runs.peak_bytes / MIB;
    vec![
        Finding::ratio("wall time / pipe", Goal::AtMost(0.95), &wall(&runs.ours), &wall(&runs.pipe), seconds),
        Finding::ratio("CPU time / pipe", Goal::AtMost(0.9), &cpu(&runs.ours), &cpu(&runs.pipe), seconds),
        Finding::ratio("wall time / pipe and check", Goal::AtMost(0.75), &wall(&runs.ours), &wall(&runs.checked), seconds),
        Finding::ratio("CPU time / pipe and check", Goal::AtMost(0.6), &cpu(&runs.ours), &cpu(&runs.checked), seconds),
        Finding::ratio("wall time / floor", Goal::AtMost(1.15), &wall(&runs.ours), &wall(&runs.floor), seconds),
        Finding { name: "peak memory", unit: "MiB", value: peak, spread: (peak, peak), goal: Goal::AtMost(64.0), detail: "all rounds".to_owned() },
    ]
}

fn answered(answers: &Answers) -> Vec<Finding> {
    let sync = median(&answers.syncs);
    let millis: Vec<f64> = answers.calls.iter().map(|seconds| seconds * 1e3).collect();
    vec![Finding {
        name: "call to answer",
        unit: "ms",
        value: median(&millis),
        spread: spread(&millis),
        goal: Goal::AtMost(sync * 1e3 + 1.0),
        detail: format!("one sync {:.2} ms", sync * 1e3),
    }]
}
