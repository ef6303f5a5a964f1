//! What a restore key by key takes, held against `redis-cli --pipe` with the same commands: values of 1 KiB into an empty server.
//!
//! The pipe has a file in which all commands stand ready, and sends it. The service reads the artifact from storage, twice: to check
//! all of it before it writes, and to write. So its time is told as a whole and for the writing alone. Both take turns on one
//! target, which is emptied before each. Told are medians with their spread, each against its goal. A goal that is missed is told
//! and is no failure.
//!
//! ```text
//! REDKEEP_BENCH_BYTES=1073741824 REDKEEP_BENCH_ROUNDS=5 REDKEEP_BENCH_OUTPUT=json cargo bench --bench keys
//! ```
//!
//! Everything lies below the target folder, which must be on a real disk, and goes when it ends.

use figures::{Finding, Goal, cpu_of, cpu_of_children, load};
use it::support::data;
use it::support::resp::Pipeline;
use it::support::server::RedisServer;
use it::support::service::{Process, Setup, error_of};
use redkeep::pb::own;
use redkeep::pb::own::restore_into_request::{Method, Target};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

mod figures;
#[path = "../tests/it"]
mod it {
    pub mod support;
}

const MIB: f64 = 1024.0 * 1024.0;
/// Values of the source, in bytes, unless `REDKEEP_BENCH_BYTES` tells another number.
const BYTES: u64 = 1 << 30;
/// Rounds, unless `REDKEEP_BENCH_ROUNDS` tells another number.
const ROUNDS: u64 = 5;
/// Keys that are asked for at once.
const KEYS: u64 = 1000;
/// Longest wait for a restore.
const RESTORE: Duration = Duration::from_secs(3600);
/// How often it is looked whether the writing has begun.
const LOOK: Duration = Duration::from_millis(10);

#[derive(Default)]
struct Runs {
    ours: Vec<f64>,
    writing: Vec<f64>,
    pipe: Vec<f64>,
    our_cpu: Vec<f64>,
    pipe_cpu: Vec<f64>,
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let (bytes, rounds, folder) = figures::ground(BYTES, ROUNDS, "bench-");
    eprintln!("filling a source with {bytes} bytes");
    let source = RedisServer::start().await;
    data::fill_mixed(&source, bytes).await;
    let keys = bytes.div_ceil(data::MIXED_VALUE_BYTES as u64);
    let commands = folder.path().join("commands");
    write_commands(&source, keys, &commands).await;
    let service = Setup::new().cluster("main", &[&source.address()], "").spawn(&[]).await;
    let backup = service.clients.take("main", "bench").await;
    // From here on it would only take memory.
    drop(source);
    let target = RedisServer::start().await;

    let load_before = load();
    let mut runs = Runs::default();
    for round in 0..rounds {
        for turn in 0..2 {
            target.command(&["FLUSHALL", "SYNC"]).await.ok();
            if (turn + round) % 2 == 0 {
                restore(&service, &backup, &target, &mut runs).await;
            } else {
                let (started, cpu) = (Instant::now(), cpu_of_children());
                pipe(&target, &commands);
                runs.pipe.push(started.elapsed().as_secs_f64());
                runs.pipe_cpu.push(cpu_of_children() - cpu);
            }
            assert_eq!(target.command(&["DBSIZE"]).await.integer() as u64, keys);
        }
        let of = |row: &[f64]| row.last().copied().unwrap_or(f64::NAN);
        eprintln!("round {}: redkeep {:.2} s of which writing {:.2} s, pipe {:.2} s", round + 1, of(&runs.ours), of(&runs.writing), of(&runs.pipe));
    }
    let peak = peak_bytes(service.pid()) / MIB;
    service.terminate(RESTORE).await;
    let seconds = |value: f64| format!("{value:.2} s");
    let findings = [
        Finding::ratio("wall time / pipe", Goal::AtMost(1.0), &runs.ours, &runs.pipe, seconds),
        Finding::ratio("writing alone / pipe", Goal::AtMost(1.0), &runs.writing, &runs.pipe, seconds),
        Finding::ratio("CPU time / pipe", Goal::None, &runs.our_cpu, &runs.pipe_cpu, seconds),
        Finding { name: "peak memory", unit: "MiB", value: peak, spread: (peak, peak), goal: Goal::AtMost(64.0), detail: "backup and all rounds".to_owned() },
    ];
    let load_after = load();
    figures::print(&format!("{keys} keys, {bytes} bytes of values; {rounds} rounds, load {load_before:.2} before and {load_after:.2} after"), &findings);
    if figures::wants_json() {
        println!("{}", serde_json::json!({ "bytes": bytes, "rounds": rounds, "findings": figures::json(&findings) }));
    }
}

/// Writes the commands that restore every key, as the server itself dumps it.
async fn write_commands(source: &RedisServer, keys: u64, path: &Path) {
    let mut connection = source.connect().await;
    let mut file = BufWriter::new(File::create(path).expect("the file can be made"));
    for first in (0..keys).step_by(KEYS as usize) {
        let names: Vec<String> = (first..keys.min(first + KEYS)).map(|number| format!("mixed:{number}")).collect();
        let mut pipeline = Pipeline::default();
        for name in &names {
            pipeline.add(&[&"DUMP", name]);
        }
        for (name, dump) in names.iter().zip(connection.pipeline(&pipeline).await) {
            let payload = dump.bytes();
            write!(file, "*4\r\n$7\r\nRESTORE\r\n${}\r\n{name}\r\n$1\r\n0\r\n${}\r\n", name.len(), payload.len()).expect("the disk has room");
            file.write_all(payload).and_then(|()| file.write_all(b"\r\n")).expect("the disk has room");
        }
    }
    file.flush().expect("the disk has room");
}

fn pipe(target: &RedisServer, commands: &Path) {
    let status = Command::new("redis-cli")
        .args(["-p", &target.port().to_string(), "--pipe"])
        .stdin(File::open(commands).expect("the file is there"))
        .stdout(Stdio::null())
        .status()
        .expect("redis-cli runs");
    assert!(status.success(), "{status}");
}

async fn restore(service: &Process, backup: &own::Backup, target: &RedisServer, runs: &mut Runs) {
    let request = own::RestoreIntoRequest {
        backup_id: backup.id.clone(),
        target: Some(Target::Address(target.address())),
        method: Method::Keys.into(),
        ..Default::default()
    };
    let (started, cpu) = (Instant::now(), cpu_of(service.pid()));
    let operation = service.clients.backups.clone().restore_into(request).await.expect("the restore is accepted").into_inner();
    let mut writing = None;
    let ended = loop {
        let operation = service.clients.operation(&operation.id).await;
        if operation.done {
            break operation;
        }
        if writing.is_none() && service.clients.progress(&operation.id).await.step() == own::progress::Step::Load {
            writing = Some(Instant::now());
        }
        assert!(started.elapsed() < RESTORE, "{operation:#?}");
        tokio::time::sleep(LOOK).await;
    };
    assert!(error_of(&ended).is_none(), "{ended:#?}\n{}", service.log());
    runs.ours.push(started.elapsed().as_secs_f64());
    runs.writing.push(writing.map_or(f64::NAN, |writing| writing.elapsed().as_secs_f64()));
    runs.our_cpu.push(cpu_of(service.pid()) - cpu);
}

/// The most memory that a process had, in bytes.
fn peak_bytes(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("it tells its peak");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).expect("a number") * 1024.0
}
