//! Goal: a stream that breaks is tried again within the budget of forks, and never counts as a backup. Method: scripts
//! that break off; a real server that is killed in the middle.

use super::*;
use crate::support::rdb_bytes::Dump;
use crate::support::scripted::{Act, MARKER, Script, full_sync_length, full_sync_marker, marker_head};
use crate::support::server::RedisServer;
use crate::support::service::{OPERATION, Setup};
use bytes::Bytes;
use redkeep::pb::operation::CancelOperationRequest;
use std::sync::Arc;
use tokio::sync::Notify;

fn cut() -> Script {
    vec![Act::FullResync, Act::Send(marker_head(MARKER)), Act::Send(Dump::sample().cut(1000))]
}

#[tokio::test]
async fn a_break_is_mended_by_another_attempt() {
    let dump = Dump::sample().bytes;
    let server = ScriptedRedis::start(vec![cut(), full_sync_marker(dump.clone(), MARKER)]).await;
    let service = Setup::new().artifacts("url = \"file:artifacts\"\ncompression = \"none\"").cluster("main", &[&server.address()], "").start().await;
    let backup = service.clients.take("main", "a").await;
    assert_eq!(server.counts().psyncs, 2);
    let root = service.setup.artifact_root();
    assert_eq!(std::fs::read(root.join(&backup.path).join("shard1-0.rdb")).unwrap(), dump);
    until("the broken attempt is gone", SOON, async || (files_below(&root).len() == 4).then_some(())).await;
    service.stop().await;
}

#[tokio::test]
async fn three_forks_and_no_more() {
    let server = ScriptedRedis::start(vec![cut()]).await;
    let service = Setup::new().cluster("main", &[&server.address()], "").start().await;
    let operation = fails(&service.clients, "main").await;
    assert_reason(&operation, "FORK_BUDGET", &["forked 3 times", "is not whole"]);
    assert_eq!(server.counts().psyncs, 3);
    assert_nothing_available(&service.clients).await;
    wait_empty(&service.setup.artifact_root()).await;
    service.stop().await;
}

/// Goal: a refusal is no fork. Method: a source that refuses four times in its own words; the fifth time it serves.
#[tokio::test]
async fn a_refusal_does_not_count_as_a_fork() {
    let server = ScriptedRedis::start(vec![full_sync_marker(Dump::sample().bytes, MARKER)]).await;
    server.answer_times(2, "PSYNC", "-LOADING Redis is loading the dataset in memory");
    let service = Setup::new().executor("refork_delay", "\"10m\"").cluster("main", &[&server.address()], "").start().await;
    service.clients.take("main", "a").await;
    assert_eq!(server.counts().psyncs, 3);
    service.stop().await;
}

#[tokio::test]
async fn after_a_fork_the_next_attempt_waits() {
    let server = ScriptedRedis::start(vec![cut()]).await;
    let service = Setup::new().executor("refork_delay", "\"10m\"").cluster("main", &[&server.address()], "").start().await;
    let operation = service.clients.create("main", "a").await.unwrap();
    let progress = until("the attempt fails", SOON, async || {
        let progress = service.clients.progress(&operation.id).await;
        progress.next_attempt_at.is_some_and(|_| progress.attempt == 1).then_some(progress)
    })
    .await;
    let wait_secs = progress.next_attempt_at.unwrap().seconds - chrono::Utc::now().timestamp();
    assert!((580..=600).contains(&wait_secs), "{wait_secs}");
    assert!(progress.last_error.contains("is not whole"), "{}", progress.last_error);
    assert_eq!(server.counts().psyncs, 1);
    let request = CancelOperationRequest { operation_id: operation.id };
    let cancelled = service.clients.operations.clone().cancel(request).await.unwrap().into_inner();
    assert_eq!(error_of(&cancelled).map(|status| status.code), Some(1));
    service.stop().await;
}

#[tokio::test]
async fn a_checksum_that_is_wrong_twice_is_final() {
    let dump = Dump::sample();
    let server = ScriptedRedis::start(vec![full_sync_length(dump.flipped(dump.bytes.len() / 2, 0))]).await;
    let service = Setup::new().cluster("main", &[&server.address()], "").start().await;
    let operation = fails(&service.clients, "main").await;
    assert_reason(&operation, "SNAPSHOT_CORRUPT", &["does not hold together"]);
    assert_eq!(server.counts().psyncs, 2);
    wait_empty(&service.setup.artifact_root()).await;
    service.stop().await;
}

/// Goal: half an artifact is nowhere to be seen. Method: stop in the middle of a dump of several parts, and look.
#[tokio::test]
async fn half_an_artifact_is_never_listed() {
    let gate = Arc::new(Notify::new());
    let server = ScriptedRedis::start(vec![stalled_with_parts(&gate)]).await;
    let service = Setup::new().executor("refork_delay", "\"10m\"").executor("deadline", "\"5s\"").cluster("main", &[&server.address()], "").start().await;
    let operation = service.clients.create("main", "a").await.unwrap();
    let root = service.setup.artifact_root();
    until("a part is stored", SOON, async || files_below(&root).iter().any(|file| file.contains(".rdb.zst#")).then_some(())).await;
    assert_nothing_available(&service.clients).await;
    assert!(service.clients.all_backups().await.iter().all(|backup| backup.size_bytes == 0));
    gate.notify_one();
    let ended = service.clients.ended(&operation.id, SOON).await;
    assert_reason(&ended, "SNAPSHOT_CUT", &[]);
    assert_nothing_available(&service.clients).await;
    wait_empty(&root).await;
    service.stop().await;
}

/// Some parts of a dump that does not compress, then a wait at the gate, then the end in its middle.
pub fn stalled_with_parts(gate: &Arc<Notify>) -> Script {
    let mut endless = crate::support::rdb_bytes::Endless::new(30 << 20, 1 << 20);
    let head = format!("${}\r\n", endless.size_bytes());
    let mut begun = Vec::new();
    while begun.len() < 18 << 20 {
        begun.extend_from_slice(&endless.next_chunk().expect("it is longer"));
    }
    vec![Act::FullResync, Act::Send(head.into()), Act::Send(Bytes::from(begun)), Act::Wait(Arc::clone(gate))]
}

#[tokio::test]
async fn a_source_that_is_down_is_tried_again_until_the_deadline() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let service = Setup::new().executor("deadline", "\"3s\"").cluster("main", &[&address], "").start().await;
    let operation = fails(&service.clients, "main").await;
    assert_reason_or_deadline(&operation, "SOURCE_UNREACHABLE", &[&address, "cannot be reached", "connection refused"]);
    assert!(service.clients.progress(&operation.id).await.attempt >= 2);
    service.stop().await;
}

/// Goal: a server that dies in the middle of its save does no harm. Method: slow the save down, kill the server, start it
/// again from its dump.
#[tokio::test]
async fn a_real_server_killed_in_mid_stream_is_asked_again() {
    let mut redis = RedisServer::builder().config("rdb-key-save-delay 500").start().await;
    redis.command(&["CONFIG", "SET", "rdb-key-save-delay", "0"]).await;
    redis.command(&["DEBUG", "POPULATE", "3000", "key", "100"]).await;
    redis.command(&["SAVE"]).await;
    redis.command(&["CONFIG", "SET", "rdb-key-save-delay", "500"]).await;
    let service = Setup::new().cluster("main", &[&redis.address()], "").start().await;
    let operation = service.clients.create("main", "a").await.unwrap();
    redis.wait_info("rdb_bgsave_in_progress", |value| value == "1").await;
    redis.restart().await;
    let ended = service.clients.ended(&operation.id, OPERATION).await;
    assert!(error_of(&ended).is_none(), "{ended:#?}");
    let backups = service.clients.all_backups().await;
    assert_eq!(backups.len(), 1);
    assert_eq!(backups[0].shards[0].keys, 3000);
    assert!(service.clients.progress(&operation.id).await.attempt >= 2);
    service.stop().await;
}
