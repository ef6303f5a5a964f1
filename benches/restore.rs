//! What a restore into a running server costs: the time from the first word to the target to its end, held against the time in
//! which the same server loads the same file from its own disk at its start, and the most memory that the service took.
//!
//! Both take turns, so that what else the machine does falls on both alike. The reading and checking of the whole artifact
//! before anything is changed is told beside it. A goal that is missed is told and is no failure.
//!
//! ```text
//! REDKEEP_BENCH_BYTES=1073741824 REDKEEP_BENCH_ROUNDS=3 REDKEEP_BENCH_OUTPUT=json cargo bench --bench restore
//! REDKEEP_BENCH_PIPELINES=plain,zstd               which ways to store it; all when not set
//! ```
//!
//! Everything lies below the target folder, which must be on a real disk, and goes when it ends.

use figures::{Finding, Goal, load};
use it::support::data;
use it::support::load::decompress;
use it::support::server::RedisServer;
use it::support::service::{Process, error_of};
use it::support::until;
use redkeep::pb::own;
use redkeep::pb::own::progress::Step;
use redkeep::pb::own::restore_into_request::Target;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use turns::{Keys, Pipeline, REST, Store, peak_bytes};

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
const ROUNDS: u64 = 3;
/// Longest wait for one restore.
const RESTORE: Duration = Duration::from_secs(3600);
/// How often it is looked how far a restore is: the error of a time.
const LOOK: Duration = Duration::from_millis(10);

#[tokio::main(worker_threads = 1)]
async fn main() {
    let (bytes, rounds, folder) = figures::ground(BYTES, ROUNDS, "bench-");
    let keys = Keys::new(folder.path());
    eprintln!("filling a source with {bytes} bytes");
    let source = RedisServer::start().await;
    data::fill_mixed(&source, bytes).await;
    let mut all = Vec::new();
    // How it is encrypted makes no difference to the target, and the check of all is told for each.
    for pipeline in Pipeline::chosen().into_iter().filter(|pipeline| *pipeline != Pipeline::ZstdAge) {
        let load_before = load();
        let findings = measure(pipeline, &keys, &source, rounds, folder.path()).await;
        let title = format!("restore, {}: {bytes} bytes of values, {rounds} rounds, load {load_before:.2} before and {:.2} after", pipeline.as_str(), load());
        figures::print(&title, &findings);
        all.push(serde_json::json!({ "title": title, "findings": figures::json(&findings) }));
    }
    if figures::wants_json() {
        println!("{}", serde_json::json!({ "bytes": bytes, "rounds": rounds, "tables": all }));
    }
}

async fn measure(pipeline: Pipeline, keys: &Keys, source: &RedisServer, rounds: u64, folder: &Path) -> Vec<Finding> {
    let service = pipeline.setup(keys, &Store::File, &source.address()).spawn(&[]).await;
    let backup = service.clients.take("main", "bench").await;
    let before = peak_bytes(service.pid()) / MIB;
    let rdb = plain(&service, &backup, folder);
    let (mut fed, mut checked, mut loaded) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        for turn in 0..2 {
            if (turn + round) % 2 == 0 {
                let (check, feed) = restore(&service, &backup).await;
                eprintln!("{} round {}: feed {feed:6.2} s after a check of {check:.2} s", pipeline.as_str(), round + 1);
                fed.push(feed);
                checked.push(check);
            } else {
                let seconds = load_at_start(&rdb).await;
                eprintln!("{} round {}: load {seconds:6.2} s", pipeline.as_str(), round + 1);
                loaded.push(seconds);
            }
        }
    }
    let peak = peak_bytes(service.pid()) / MIB;
    service.terminate(REST).await;
    let _ = std::fs::remove_file(&rdb);
    let seconds = |value: f64| format!("{value:.2} s");
    vec![
        Finding::ratio("feed / load at start", Goal::AtMost(1.15), &fed, &loaded, seconds),
        Finding::ratio("check of all / load at start", Goal::None, &checked, &loaded, seconds),
        Finding {
            name: "peak memory",
            unit: "MiB",
            value: peak,
            spread: (peak, peak),
            goal: Goal::AtMost(64.0),
            detail: format!("{before:.0} MiB after the backup"),
        },
    ]
}

/// The RDB file of a backup, as tools make it.
fn plain(service: &Process, backup: &own::Backup, folder: &Path) -> PathBuf {
    let (stored, rdb) = (service.setup.artifact_root().join(&backup.path), folder.join("plain.rdb"));
    let packed = stored.join("shard1-0.rdb.zst");
    if packed.exists() {
        decompress(&packed, &rdb);
    } else {
        std::fs::copy(stored.join("shard1-0.rdb"), &rdb).expect("the dump is copied");
    }
    rdb
}

/// Seconds of the check of everything, and of the feed from there on to the end.
async fn restore(service: &Process, backup: &own::Backup) -> (f64, f64) {
    let target = RedisServer::start().await;
    let request = own::RestoreIntoRequest { backup_id: backup.id.clone(), target: Some(Target::Address(target.address())), ..Default::default() };
    let started = Instant::now();
    let operation = service.clients.backups.clone().restore_into(request).await.expect("the restore is accepted").into_inner();
    while service.clients.progress(&operation.id).await.step() < Step::Load && started.elapsed() < RESTORE {
        tokio::time::sleep(LOOK).await;
    }
    let check = started.elapsed().as_secs_f64();
    let ended = service.clients.ended(&operation.id, RESTORE).await;
    let feed = started.elapsed().as_secs_f64() - check;
    assert!(error_of(&ended).is_none(), "{ended:#?}\n{}", service.log());
    (check, feed)
}

/// Seconds that a server says it took to load the file.
async fn load_at_start(rdb: &Path) -> f64 {
    let server = RedisServer::builder().rdb(rdb).start().await;
    let told = until("the load is told", REST, async || {
        let log = server.log();
        let line = log.lines().find(|line| line.contains("DB loaded from disk"))?;
        line.rsplit(": ").next()?.split(' ').next()?.parse().ok()
    });
    told.await
}
