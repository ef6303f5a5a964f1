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
/// Ticks of processor time in a second, in `/proc`.
///
/// Source: Linux, `USER_HZ`, the same on every architecture that we build for.
const TICKS: f64 = 100.0;

#[tokio::main(worker_threads = 1)]
async fn main() {
    let bytes = number("REDKEEP_BENCH_BYTES", BYTES);
    let rounds = number("REDKEEP_BENCH_ROUNDS", ROUNDS).max(1);
    let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder below target");
    refuse_memory(folder.path());
    tempfile::env::override_temp_dir(folder.path()).expect("nobody chose a folder before");

    eprintln!("filling a source with {bytes} bytes");
    let source = RedisServer::start().await;
    data::fill_mixed(&source, bytes).await;
    let load_before = load();
    let runs = measure(&source, rounds, folder.path()).await;
    drop(source);
    let answers = answers(folder.path()).await;

    let findings = findings(&runs, &answers);
    print(&findings, bytes, rounds, [load_before, load()]);
    if wants_json() {
        println!("{}", json(&findings, bytes, rounds));
    }
}

/// A number from the environment.
fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not {text:?}")))
}

fn wants_json() -> bool {
    let arguments: Vec<String> = std::env::args().collect();
    std::env::var("REDKEEP_BENCH_OUTPUT").is_ok_and(|form| form == "json") || arguments.windows(2).any(|pair| pair == ["-o", "json"])
}

/// A disk in memory would make every sync free.
///
/// Source: `linux/magic.h`, the number of tmpfs.
fn refuse_memory(folder: &Path) {
    let kind = rustix::fs::statfs(folder).expect("the file system can be asked").f_type;
    assert!(kind as u32 != 0x0102_1994, "{} lies in memory; the bench needs a disk", folder.display());
}

/// The load average of the last minute.
fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
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

/// Processor time of a process, in seconds, in user and system mode.
fn cpu_of(pid: u32) -> f64 {
    ticks(&format!("/proc/{pid}/stat"), 11)
}

/// Processor time of all children that were waited for, in seconds.
fn cpu_of_children() -> f64 {
    ticks("/proc/self/stat", 13)
}

/// Two neighbouring counts of ticks, added, in seconds. `place` counts from the field after the command.
///
/// Source: proc(5), `utime stime cutime cstime` of `/proc/PID/stat`.
fn ticks(path: &str, place: usize) -> f64 {
    let text = fs::read_to_string(path).expect("the process is there");
    // The command may hold blanks and parentheses; nothing after the last parenthesis does.
    let (_, fields) = text.rsplit_once(") ").expect("the command stands in parentheses");
    fields.split(' ').skip(place).take(2).map(|field| field.parse::<f64>().expect("a count")).sum::<f64>() / TICKS
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

/// One figure against its goal.
struct Finding {
    name: &'static str,
    unit: &'static str,
    value: f64,
    /// The least and the most of the single rounds.
    spread: (f64, f64),
    goal: f64,
    /// What it was made of.
    detail: String,
}

impl Finding {
    fn met(&self) -> bool {
        self.value <= self.goal
    }

    /// The median of one row over that of another; the spread is that of the rounds.
    fn ratio(name: &'static str, goal: f64, ours: &[f64], theirs: &[f64]) -> Self {
        let each: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
        let (ours, theirs) = (median(ours), median(theirs));
        Self { name, unit: "", value: ours / theirs, spread: spread(&each), goal, detail: format!("{ours:.2} s / {theirs:.2} s") }
    }
}

fn findings(runs: &Runs, answers: &Answers) -> Vec<Finding> {
    const MIB: f64 = 1024.0 * 1024.0;
    let wall = |turns: &[Turn]| turns.iter().map(|turn| turn.wall).collect::<Vec<_>>();
    let cpu = |turns: &[Turn]| turns.iter().map(|turn| turn.cpu).collect::<Vec<_>>();
    let peak = runs.peak_bytes / MIB;
    let sync = median(&answers.syncs);
    let millis: Vec<f64> = answers.calls.iter().map(|seconds| seconds * 1e3).collect();
    vec![
        Finding::ratio("wall time / pipe", 0.95, &wall(&runs.ours), &wall(&runs.pipe)),
        Finding::ratio("wall time / floor", 1.15, &wall(&runs.ours), &wall(&runs.floor)),
        Finding::ratio("CPU time / pipe", 0.9, &cpu(&runs.ours), &cpu(&runs.pipe)),
        Finding { name: "peak memory", unit: "MiB", value: peak, spread: (peak, peak), goal: 64.0, detail: "all rounds".to_owned() },
        Finding {
            name: "call to answer",
            unit: "ms",
            value: median(&millis),
            spread: spread(&millis),
            goal: sync * 1e3 + 1.0,
            detail: format!("one sync {:.2} ms", sync * 1e3),
        },
    ]
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

fn spread(values: &[f64]) -> (f64, f64) {
    let sorted = sorted(values);
    (sorted[0], sorted[sorted.len() - 1])
}

fn print(findings: &[Finding], bytes: u64, rounds: u64, loads: [f64; 2]) {
    println!("\n{bytes} bytes of values, {rounds} rounds, load {:.2} before and {:.2} after", loads[0], loads[1]);
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING).set_header(["WHAT", "MEDIAN", "SPREAD", "GOAL", "", "FROM"]);
    for finding in findings {
        let Finding { name, unit, value, spread: (least, most), goal, detail } = finding;
        let verdict = if finding.met() { "met" } else { "missed" };
        table.add_row([
            (*name).to_owned(),
            format!("{value:.2} {unit}"),
            format!("{least:.2}-{most:.2}"),
            format!("<= {goal:.2} {unit}"),
            verdict.to_owned(),
            detail.clone(),
        ]);
    }
    println!("{table}");
}

fn json(findings: &[Finding], bytes: u64, rounds: u64) -> serde_json::Value {
    let findings = findings.iter().map(|finding| {
        serde_json::json!({
            "name": finding.name, "unit": finding.unit, "median": finding.value, "least": finding.spread.0, "most": finding.spread.1,
            "goal": finding.goal, "met": finding.met(), "from": finding.detail,
        })
    });
    serde_json::json!({ "bytes": bytes, "rounds": rounds, "findings": findings.collect::<Vec<_>>() })
}
