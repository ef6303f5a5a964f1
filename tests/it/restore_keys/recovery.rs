//! Stopped in the middle, and gone on with.

use super::{all, ask, at, keys_in, result_of};
use crate::support::data::{Noise, fill_small_keys};
use crate::support::server::RedisServer;
use crate::support::service::{OPERATION, Setup};
use crate::support::{compare, until};
use redkeep::pb::own;
use redkeep::pb::own::key_selection::Conflict;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// Keys and a good 40 MB of values that do not compress.
async fn filled() -> RedisServer {
    let source = RedisServer::start().await;
    fill_small_keys(&source, 2000).await;
    let mut noise = Noise::new(1);
    for number in 0..40 {
        source.command(&[b"SET", format!("noise:{number}").as_bytes(), &noise.bytes(1_000_000)]).await.ok();
    }
    source.command(&[b"SET", &b"long"[..], &noise.bytes(3_000_000)]).await.ok();
    source
}

/// Goal: killed in the middle, a restore goes on, and what it had written itself is no conflict. Method: the program kills itself once
/// something is written and recorded; the second one ends the work. What was acknowledged before is not written again.
#[tokio::test]
async fn killed_in_the_middle_it_goes_on() {
    for on_conflict in [Conflict::Fail, Conflict::Skip, Conflict::Replace] {
        let (source, target) = (filled().await, RedisServer::start().await);
        let process = Setup::new().cluster("main", &[&source.address()], "").spawn(&[("REDKEEP_CRASH_AT", "restore_keys.recorded")]).await;
        let backup = process.clients.take("main", "a").await;
        let operation = ask(&process.clients, &backup, at(&target), all(on_conflict)).await;
        let setup = process.wait_end(SOON).await;
        let written = target.command(&["DBSIZE"]).await.integer();
        assert!((1..keys_in(&backup)).contains(&written), "{written}");
        let commands = calls(&target).await;
        let process = setup.spawn(&[]).await;
        let result = result_of(&process.clients.ended(&operation.id, OPERATION).await);
        compare::assert_same_content(&source, &target).await;
        assert_eq!((result.keys, result.skipped_keys), (keys_in(&backup), 0), "{on_conflict:?}");
        // Something was acknowledged before, and so it was not sent again.
        assert!(calls(&target).await - commands < keys_in(&backup), "{on_conflict:?}");
        process.terminate(SOON).await;
    }
}

/// How often the server was told to restore a key.
async fn calls(server: &RedisServer) -> i64 {
    let stats = server.command(&["INFO", "commandstats"]).await.text();
    let line = stats.lines().find(|line| line.starts_with("cmdstat_restore:")).unwrap_or_default();
    line.split("calls=").nth(1).and_then(|rest| rest.split(',').next()).and_then(|calls| calls.parse().ok()).unwrap_or(0)
}

/// Goal: before the first key nothing is lost by a kill, and after the last one neither. Method: both points.
#[tokio::test]
async fn killed_before_and_after_the_writing() {
    for point in ["restore_keys.verified", "restore_keys.written"] {
        let (source, target) = (RedisServer::start().await, RedisServer::start().await);
        fill_small_keys(&source, 500).await;
        let process = Setup::new().cluster("main", &[&source.address()], "").spawn(&[("REDKEEP_CRASH_AT", point)]).await;
        let backup = process.clients.take("main", "a").await;
        let operation = ask(&process.clients, &backup, at(&target), all(Conflict::Fail)).await;
        let process = process.wait_end(SOON).await.spawn(&[]).await;
        let result = result_of(&process.clients.ended(&operation.id, OPERATION).await);
        assert_eq!(result.keys, 500, "{point}");
        compare::assert_same_content(&source, &target).await;
        process.terminate(SOON).await;
    }
}

/// Goal: a target that goes away and comes back is gone on with. Method: it is killed while the work stands still, and started anew.
#[tokio::test]
async fn a_target_that_comes_back_is_gone_on_with() {
    let source = filled().await;
    let mut target = RedisServer::builder().config("appendonly yes").config("appendfsync always").start().await;
    let hold = tempfile::tempdir().expect("a folder");
    let go = hold.path().join("go").display().to_string();
    let process = Setup::new().cluster("main", &[&source.address()], "").spawn(&[("REDKEEP_HANG_AT", "restore_keys.block"), ("REDKEEP_HANG_UNTIL", &go)]).await;
    let backup = process.clients.take("main", "a").await;
    let operation = ask(&process.clients, &backup, at(&target), all(Conflict::Fail)).await;
    until("something is written", SOON, async || (target.command(&["DBSIZE"]).await.integer() > 0).then_some(())).await;
    target.restart().await;
    std::fs::write(&go, "").expect("the work goes on");
    let result = result_of(&process.clients.ended(&operation.id, OPERATION).await);
    assert_eq!(result.keys, keys_in(&backup));
    compare::assert_same_content(&source, &target).await;
    assert!(process.clients.progress(&operation.id).await.attempt > 1);
}

/// Goal: a restore that is cancelled stops. Method: it stands still behind its first megabyte.
#[tokio::test]
async fn a_cancelled_restore_stops() {
    let (source, target) = (filled().await, RedisServer::start().await);
    let process = Setup::new().cluster("main", &[&source.address()], "").spawn(&[("REDKEEP_HANG_AT", "restore_keys.block")]).await;
    let backup = process.clients.take("main", "a").await;
    let operation = ask(&process.clients, &backup, at(&target), all(Conflict::Fail)).await;
    until("something is written", SOON, async || (target.command(&["DBSIZE"]).await.integer() > 0).then_some(())).await;
    let request = redkeep::pb::operation::CancelOperationRequest { operation_id: operation.id.clone() };
    process.clients.operations.clone().cancel(request).await.expect("it is cancelled");
    let ended = process.clients.ended(&operation.id, OPERATION).await;
    assert!(format!("{:?}", ended.result).contains("code: 1"), "{ended:?}");
    assert!(target.command(&["DBSIZE"]).await.integer() < keys_in(&backup));
}

/// Goal: an artifact that was changed after the check is noticed before its bytes are sent. Method: the file is changed while the work
/// stands still behind the first block of it.
#[tokio::test]
async fn what_is_changed_after_the_check_is_not_written() {
    let (source, target) = (filled().await, RedisServer::start().await);
    let hold = tempfile::tempdir().expect("a folder");
    let go = hold.path().join("go").display().to_string();
    let setup = Setup::new().cluster("main", &[&source.address()], "").artifacts("url = \"file:artifacts\"\ncompression = \"none\"");
    let process = setup.spawn(&[("REDKEEP_HANG_AT", "restore_keys.block"), ("REDKEEP_HANG_UNTIL", &go)]).await;
    let backup = process.clients.take("main", "a").await;
    let file = process.setup.artifact_root().join(&backup.path).join("shard1-0.rdb");
    let operation = ask(&process.clients, &backup, at(&target), all(Conflict::Fail)).await;
    until("something is written", SOON, async || (target.command(&["DBSIZE"]).await.integer() > 0).then_some(())).await;
    let mut bytes = std::fs::read(&file).expect("the dump is there");
    let middle = bytes.len() - 8_000_000;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).expect("the dump is changed");
    std::fs::write(&go, "").expect("the work goes on");
    let ended = process.clients.ended(&operation.id, OPERATION).await;
    let message = format!("{:?}", ended.result);
    assert!(message.contains("not the one any more") && message.contains("keys were written before"), "{message}");
    assert!(target.command(&["DBSIZE"]).await.integer() < keys_in(&backup));
}

/// Goal: a value of 100 MB passes through in flat memory. Method: the most memory that the program ever had.
#[tokio::test]
async fn a_big_value_passes_through() {
    let (source, target) = (RedisServer::start().await, RedisServer::start().await);
    crate::support::data::big_string(&source, "big", 100_000_000).await;
    source.command(&["SET", "small", "value"]).await.ok();
    let process = Setup::new().cluster("main", &[&source.address()], "").spawn(&[]).await;
    let backup = process.clients.take("main", "a").await;
    let before = peak_bytes(process.pid());
    let operation = ask(&process.clients, &backup, at(&target), own::KeySelection::default()).await;
    let result = result_of(&process.clients.ended(&operation.id, OPERATION).await);
    assert_eq!(result.keys, 2);
    compare::assert_same_content(&source, &target).await;
    let more = peak_bytes(process.pid()).saturating_sub(before);
    assert!(more < 60_000_000, "{more} bytes more than before");
}

/// The most memory that a process had, in bytes.
fn peak_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("it tells its peak");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
}
