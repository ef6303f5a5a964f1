//! Goal: a backup says what it cost its source, holds back for replicas, and keeps to a rate. Method: the scripted server, which
//! lists replicas in any state and counts forks; a real server where the figures are its own.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

use crate::support::rdb_bytes::Dump;
use crate::support::scripted::{Act, ScriptedRedis, full_sync_length, generated_length};
use crate::support::server::RedisServer;
use crate::support::service::{OPERATION, Setup};
use crate::support::{data, until};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Longest wait for what is a matter of moments.
const SOON: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_real_server_tells_what_it_cost() {
    // It waits a second for company before it forks.
    let primary = RedisServer::builder().diskless_delay_secs(1).start().await;
    data::fill_every_type(&primary, 2).await;
    let service = Setup::new().cluster("main", &[&primary.address()], "").start().await;
    let backup = service.clients.take("main", "first").await;
    let shard = &backup.shards[0];
    let impact = shard.impact.as_ref().unwrap();
    assert_eq!((impact.chosen_because.as_str(), impact.shared_round), ("it has no replica", false));
    assert!(shard.fork_us > 0 && impact.bytes_per_second > 0, "{shard:#?}");
    assert!(impact.waited_ms > 0 && impact.waited_for.iter().any(|wait| wait.contains(" ms")), "{impact:#?}");
    service.stop().await;
}

#[tokio::test]
async fn a_stale_figure_is_not_taken_for_ours() {
    let source = ScriptedRedis::willing().await;
    source.set_info("total_forks", 7).set_info("latest_fork_usec", 250);
    let service = Setup::new().cluster("main", &[&source.address()], "").start().await;
    // The server counts no fork for us: what it tells is of another.
    let backup = service.clients.take("main", "first").await;
    assert_eq!((backup.shards[0].fork_us, backup.shards[0].copy_on_write_bytes), (0, 0));
    service.stop().await;
}

#[tokio::test]
async fn a_replica_in_the_same_round_is_recorded() {
    let gate = Arc::new(Notify::new());
    let mut script = full_sync_length(Dump::sample().bytes);
    script.insert(2, Act::Wait(Arc::clone(&gate)));
    let source = ScriptedRedis::start(vec![script]).await;
    source.set_info("total_forks", 0);
    let service = Setup::new().cluster("main", &[&source.address()], "allow_primary = true").start().await;
    let operation = service.clients.create("main", "first").await.unwrap();
    source.wait_for(|counts| counts.psyncs == 1).await;
    source.add_replica("127.0.0.1", 1, "wait_bgsave").set_info("total_forks", 1);
    // It is looked for as long as the transfer goes on.
    let before = source.arguments("INFO").len();
    until("somebody looks", SOON, async || (source.arguments("INFO").len() > before).then_some(())).await;
    gate.notify_one();
    let ended = service.clients.ended(&operation.id, OPERATION).await;
    let backup = service.clients.all_backups().await.into_iter().find(|backup| backup.operation_id == ended.id).unwrap();
    assert!(backup.shards[0].impact.as_ref().unwrap().shared_round, "{ended:#?}");
    assert!(backup.shards[0].fork_us > 0);
    service.stop().await;
}

#[tokio::test]
async fn nothing_is_asked_for_while_a_replica_synchronises() {
    let source = ScriptedRedis::willing().await;
    source.add_replica("127.0.0.1", 1, "send_bulk");
    let service = Setup::new().cluster("main", &[&source.address()], "allow_primary = true").start().await;
    let operation = service.clients.create("main", "first").await.unwrap();
    until("it is told what is waited for", SOON, async || {
        service.clients.progress(&operation.id).await.waiting_for.contains("a replica of the source").then_some(())
    })
    .await;
    assert_eq!(source.counts().psyncs, 0);
    source.set_info("slave0", "ip=127.0.0.1,port=1,state=online,offset=1000,lag=0");
    service.clients.ended(&operation.id, OPERATION).await;
    let backup = service.clients.all_backups().await.remove(0);
    let impact = backup.shards[0].impact.as_ref().unwrap();
    assert!(impact.waited_for.iter().any(|wait| wait.starts_with("a replica of the source to end its synchronisation: ")), "{impact:#?}");
    assert!(impact.chosen_because.contains("allow_primary") && !impact.shared_round, "{impact:#?}");
    service.stop().await;
}

#[tokio::test]
async fn all_snapshots_together_keep_to_the_rate() {
    let sources =
        [ScriptedRedis::start(vec![generated_length(1 << 20, 1024, None)]).await, ScriptedRedis::start(vec![generated_length(1 << 20, 1024, None)]).await];
    let service = Setup::new()
        .artifacts("url = \"file:artifacts\"\nrate_limit = \"1MiB\"")
        .cluster_apart("one", &sources[0].address(), "")
        .cluster_apart("two", &sources[1].address(), "")
        .start()
        .await;
    let started = Instant::now();
    let (one, two) = tokio::join!(service.clients.take("one", "one"), service.clients.take("two", "two"));
    let seconds = started.elapsed().as_secs_f64();
    let bytes = (one.size_bytes + two.size_bytes) as f64;
    assert!(seconds > bytes / f64::from(1 << 20) - 0.5, "{bytes} bytes in {seconds} s");
    assert!(one.shards[0].impact.as_ref().unwrap().bytes_per_second < 1_100_000);
    service.stop().await;
}
