//! What a backup costs, held against the shortest way there is: `redis-cli --rdb - | zstd -1 -T2 > FILE`, and `sync FILE`.
//!
//! The service, that pipe and the source's own floor (`redis-cli --rdb -` into nothing) take turns on one source, so that
//! what else the machine does falls on all of them alike. Told are medians with their spread, each against its goal. A goal
//! that is missed is told and is no failure.
//!
//! ```text
//! REDKEEP_BENCH_BYTES=1073741824 REDKEEP_BENCH_ROUNDS=5 REDKEEP_BENCH_OUTPUT=json cargo bench --bench backup
//! cargo bench --bench backup -- -o json
//! ```
//!
//! Everything lies below the target folder, which must be on a real disk, and goes when it ends.

use figures::{Finding, Goal, cpu_of, cpu_of_children, load, median, number, spread};
use it::support::data;
use it::support::server::RedisServer;
use it::support::service::{Process, Setup, error_of, files_below};
use it::support::until;
use redkeep::pb::{managed, own};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

mod figures;
#[path = "../tests/it"]
mod it {
    pub mod support;
}

/// Values of the source, in bytes, unless `REDKEEP_BENCH_BYTES` tells another number.
const BYTES: u64 = 1 << 30;
/// Rounds, unless `REDKEEP_BENCH_ROUNDS` tells another number.
const ROUNDS: u64 = 5;
/// Calls whose time is taken, each beside one sync of the same disk.
const CALLS: usize = 100;
/// Bytes of one synced write.
const PAGE_BYTES: usize = 4096;
/// Longest wait for one backup.
const BACKUP: Duration = Duration::from_secs(1800);
/// Longest wait for the source and the storage to come to rest between two turns.
const REST: Duration = Duration::from_secs(120);

#[tokio::main(worker_threads = 1)]
async fn main() {
    let bytes = number("REDKEEP_BENCH_BYTES", BYTES);
    let rounds = number("REDKEEP_BENCH_ROUNDS", ROUNDS).max(1);
    let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder below target");
    figures::refuse_memory(folder.path());
    tempfile::env::override_temp_dir(folder.path()).expect("nobody chose a folder before");

    eprintln!("filling a source with {bytes} bytes");
    let source = RedisServer::start().await;
    data::fill_mixed(&source, bytes).await;
    let load_before = load();
    let runs = measure(&source, rounds, folder.path()).await;
    drop(source);
    let answers = answers(folder.path()).await;

    let findings = findings(&runs, &answers);
    let title = format!("{bytes} bytes of values, {rounds} rounds, load {load_before:.2} before and {:.2} after", load());
    figures::print(&title, &findings);
    if figures::wants_json() {
        println!("{}", serde_json::json!({ "bytes": bytes, "rounds": rounds, "findings": figures::json(&findings) }));
    }
}

/// What one turn took, in seconds.
#[derive(Clone, Copy, Debug)]
struct Turn {
    wall: f64,
    cpu: f64,
}

/// All turns, and the most memory that the service held at once.
struct Runs {
    ours: Vec<Turn>,
    pipe: Vec<Turn>,
    floor: Vec<Turn>,
    peak_bytes: f64,
}

async fn measure(source: &RedisServer, rounds: u64, folder: &Path) -> Runs {
    let address = source.address();
    let service = Setup::new().cluster("main", &[&address], "").spawn(&[]).await;
    let file = folder.join("pipe.zst");
    let mut runs = Runs { ours: Vec::new(), pipe: Vec::new(), floor: Vec::new(), peak_bytes: 0.0 };
    for round in 0..rounds {
        // Whoever goes first changes from round to round.
        for turn in 0..3 {
            rest(source, folder).await;
            let (name, taken) = match (turn + round) % 3 {
                0 => {
                    let taken = back_up(&service, round).await;
                    runs.ours.push(taken);
                    ("redkeep", taken)
                }
                1 => {
                    let taken = pipe(source.port(), &file);
                    fs::remove_file(&file).expect("the pipe's file goes");
                    runs.pipe.push(taken);
                    ("pipe", taken)
                }
                _ => {
                    let taken = floor(source.port());
                    runs.floor.push(taken);
                    ("floor", taken)
                }
            };
            eprintln!("round {}: {name:8} {:6.2} s, {:5.2} s CPU", round + 1, taken.wall, taken.cpu);
        }
    }
    runs.peak_bytes = peak_bytes(service.pid());
    service.terminate(REST).await;
    runs
}

/// Waits until the source has no child, and until nothing waits to be written.
async fn rest(source: &RedisServer, folder: &Path) {
    source.wait_info("rdb_bgsave_in_progress", |value| value == "0").await;
    source.wait_info("connected_slaves", |value| value == "0").await;
    rustix::fs::syncfs(File::open(folder).expect("the folder can be opened")).expect("the disk is in order");
}

/// A backup from the call to the end of its operation; then it is deleted.
async fn back_up(service: &Process, round: u64) -> Turn {
    let clients = &service.clients;
    let cpu = cpu_of(service.pid());
    let started = Instant::now();
    let operation = clients.create("main", &format!("round-{round}")).await.expect("the backup is accepted");
    let operation = clients.ended(&operation.id, BACKUP).await;
    let turn = Turn { wall: started.elapsed().as_secs_f64(), cpu: cpu_of(service.pid()) - cpu };
    assert!(error_of(&operation).is_none(), "{operation:#?}\n{}", service.log());

    let backup = clients.all_backups().await.into_iter().find(|backup| backup.operation_id == operation.id).expect("the backup is listed");
    let deletion = clients.backups.clone().delete(own::DeleteBackupRequest { backup_id: backup.id }).await.expect("the deletion is accepted");
    clients.ended(&deletion.into_inner().id, REST).await;
    let root = service.setup.artifact_root();
    until("the files of the backup go", REST, async || files_below(&root).iter().all(|file| !file.contains(".rdb")).then_some(())).await;
    turn
}

/// The shortest way to a compressed dump that is on disk.
fn pipe(port: u16, file: &Path) -> Turn {
    let cpu = cpu_of_children();
    let started = Instant::now();
    let mut source = dump(port, Stdio::piped());
    let stream = source.stdout.take().expect("its output is a pipe");
    let output = File::create(file).expect("the file can be made");
    let mut zstd = Command::new("zstd").args(["-1", "-T2", "-q", "-c"]).stdin(stream).stdout(output).spawn().expect("zstd starts");
    well(&mut source);
    well(&mut zstd);
    let cpu = cpu_of_children() - cpu;
    well(&mut Command::new("sync").arg(file).spawn().expect("sync starts"));
    Turn { wall: started.elapsed().as_secs_f64(), cpu }
}

/// What the source itself takes for a dump that nobody keeps.
fn floor(port: u16) -> Turn {
    let cpu = cpu_of_children();
    let started = Instant::now();
    well(&mut dump(port, Stdio::null()));
    Turn { wall: started.elapsed().as_secs_f64(), cpu: cpu_of_children() - cpu }
}

fn dump(port: u16, to: Stdio) -> Child {
    let mut command = Command::new("redis-cli");
    command.args(["-p", &port.to_string(), "--rdb", "-"]).stdin(Stdio::null()).stdout(to).stderr(Stdio::null());
    command.spawn().expect("redis-cli starts")
}

fn well(child: &mut Child) {
    let status = child.wait().expect("a child can be waited for");
    assert!(status.success(), "a child ended with {status}");
}

/// The most memory that a process has held at once, in bytes.
fn peak_bytes(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it tells its peak");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number of KiB") * 1024.0
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

fn findings(runs: &Runs, answers: &Answers) -> Vec<Finding> {
    const MIB: f64 = 1024.0 * 1024.0;
    let wall = |turns: &[Turn]| turns.iter().map(|turn| turn.wall).collect::<Vec<_>>();
    let cpu = |turns: &[Turn]| turns.iter().map(|turn| turn.cpu).collect::<Vec<_>>();
    let seconds = |value: f64| format!("{value:.2} s");
    let peak = runs.peak_bytes / MIB;
    let sync = median(&answers.syncs);
    let millis: Vec<f64> = answers.calls.iter().map(|seconds| seconds * 1e3).collect();
    vec![
        Finding::ratio("wall time / pipe", Goal::AtMost(0.95), &wall(&runs.ours), &wall(&runs.pipe), seconds),
        Finding::ratio("wall time / floor", Goal::AtMost(1.15), &wall(&runs.ours), &wall(&runs.floor), seconds),
        Finding::ratio("CPU time / pipe", Goal::AtMost(0.9), &cpu(&runs.ours), &cpu(&runs.pipe), seconds),
        Finding { name: "peak memory", unit: "MiB", value: peak, spread: (peak, peak), goal: Goal::AtMost(64.0), detail: "all rounds".to_owned() },
        Finding {
            name: "call to answer",
            unit: "ms",
            value: median(&millis),
            spread: spread(&millis),
            goal: Goal::AtMost(sync * 1e3 + 1.0),
            detail: format!("one sync {:.2} ms", sync * 1e3),
        },
    ]
}
