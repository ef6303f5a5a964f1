//! What a proof by loading takes, held against what it cannot be faster than: the same server program that loads the same dump from
//! its own disk at its start.
//!
//! The proof reads the artifact from storage, digests, decrypts, decompresses and walks it, has a server load it and compares. Both
//! take turns, so that what else the machine does falls on both alike. Told are medians with their spread. A goal that is missed is
//! told and is no failure.
//!
//! ```text
//! REDKEEP_BENCH_BYTES=1073741824 REDKEEP_BENCH_ROUNDS=5 REDKEEP_BENCH_OUTPUT=json cargo bench --bench drill
//! ```
//!
//! Everything lies below the target folder and goes when it ends.

use figures::{Finding, Goal, load};
use it::support::server::RedisServer;
use it::support::service::{OPERATION, Setup, error_of};
use it::support::{data, load as tools};
use redkeep::pb::own;
use std::time::Instant;

mod figures;
#[path = "../tests/it"]
mod it {
    pub mod support;
}

/// Values of the source, in bytes, unless `REDKEEP_BENCH_BYTES` tells another number.
const BYTES: u64 = 1 << 30;
/// Rounds, unless `REDKEEP_BENCH_ROUNDS` tells another number.
const ROUNDS: u64 = 5;

#[tokio::main(worker_threads = 1)]
async fn main() {
    let (bytes, rounds, folder) = figures::ground(BYTES, ROUNDS, "b");
    // The path of a socket is short.
    let scratch =
        tempfile::Builder::new().prefix("redkeep-bench-").tempdir_in(option_env!("REDKEEP_BENCH_SCRATCH").unwrap_or("/tmp")).expect("a scratch folder");

    eprintln!("filling a source with {bytes} bytes");
    let source = RedisServer::start().await;
    data::fill_mixed(&source, bytes).await;
    let drill = format!("[drill]\nmemory_limit = \"1TiB\"\nfolder = {:?}\n", scratch.path().display().to_string());
    let service = Setup::new().cluster("main", &[&source.address()], "").sections(&drill).spawn(&[]).await;
    let clients = &service.clients;
    let taken = clients.take("main", "first").await;
    // Its memory is needed.
    drop(source);
    let plain = folder.path().join("dump.rdb");
    tools::decompress(&service.setup.artifact_root().join(&taken.path).join("shard1-0.rdb.zst"), &plain);

    let load_before = load();
    let (mut proofs, mut loads) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        // Whoever goes first changes from round to round.
        for turn in 0..2 {
            let since = Instant::now();
            let what = if (turn + round) % 2 == 0 {
                let request = own::VerifyBackupRequest { backup_id: taken.id.clone(), ..Default::default() };
                let operation = clients.backups.clone().verify(request).await.expect("the proof is accepted").into_inner();
                let ended = clients.ended(&operation.id, 10 * OPERATION).await;
                assert!(error_of(&ended).is_none(), "{ended:#?}");
                proofs.push(since.elapsed().as_secs_f64());
                "proof"
            } else {
                let server = RedisServer::builder().rdb(&plain).start().await;
                loads.push(since.elapsed().as_secs_f64());
                assert_eq!(server.command(&["DBSIZE"]).await.integer(), taken.shards[0].keys);
                "load"
            };
            eprintln!("round {}: {what:6} {:6.2} s", round + 1, since.elapsed().as_secs_f64());
        }
    }
    let findings = [Finding::ratio("proof / plain load", Goal::AtMost(1.3), &proofs, &loads, |seconds| format!("{seconds:.2} s"))];
    let title =
        format!("{} keys, a dump of {} bytes; {rounds} rounds, load {load_before:.2} before and {:.2} after", taken.shards[0].keys, taken.size_bytes, load());
    figures::print(&title, &findings);
    if figures::wants_json() {
        println!("{}", serde_json::json!({ "bytes": bytes, "rounds": rounds, "findings": figures::json(&findings) }));
    }
    drop(service);
}
