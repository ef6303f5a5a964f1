//! Which keys are meant, and what becomes of those that are there already.

use super::{all, at, fails, into, keys_in, libraries, restore};
use crate::support::cluster::Cluster;
use crate::support::data::{big_string, fill_every_type, fill_small_keys, load_functions};
use crate::support::server::RedisServer;
use crate::support::service::{Service, Setup};
use redkeep::pb::own;
use redkeep::pb::own::key_selection::Conflict;
use std::time::{Duration, Instant};

async fn backed_up(source: &RedisServer) -> (Service, own::Backup) {
    let service = Setup::new().cluster("main", &[&source.address()], "").start().await;
    let backup = service.clients.take("main", "a").await;
    (service, backup)
}

async fn size(server: &RedisServer) -> i64 {
    server.command(&["DBSIZE"]).await.integer()
}

/// Goal: the three policies do what they say, and count it. Method: 1000 keys, of which the target has 10 others of the same name.
#[tokio::test]
async fn keys_that_are_there_are_kept_replaced_or_refused() {
    let source = RedisServer::start().await;
    fill_small_keys(&source, 1000).await;
    load_functions(&source).await;
    let (service, backup) = backed_up(&source).await;
    let target = RedisServer::start().await;
    for number in 0..10 {
        target.command(&["SET", &format!("key:{}", 500 + number), "mine"]).await.ok();
    }

    let (reason, message) = fails(&service.clients, &backup, at(&target), all(Conflict::Fail)).await;
    assert_eq!(reason, "TARGET_EXISTS");
    let written = size(&target).await - 10;
    assert!(message.contains("in database 0") && message.contains(&format!("; {written} keys were written before")), "{written} {message}");
    assert!(!message.contains("key:"), "{message}");
    assert_eq!(target.command(&["GET", "key:505"]).await.text(), "mine");

    target.command(&["FLUSHALL"]).await.ok();
    target.command(&["FUNCTION", "FLUSH"]).await.ok();
    for number in 0..10 {
        target.command(&["SET", &format!("key:{}", 500 + number), "mine"]).await.ok();
    }
    let dry = own::KeySelection { dry_run: true, ..all(Conflict::Skip) };
    let result = restore(&service.clients, &backup, at(&target), dry).await;
    assert_eq!((result.keys, result.skipped_keys, result.functions, size(&target).await), (990, 10, 2, 10));
    assert!(result.dry_run);

    let result = restore(&service.clients, &backup, at(&target), all(Conflict::Skip)).await;
    assert_eq!((result.keys, result.skipped_keys, result.replaced_keys, result.functions), (990, 10, 0, 2));
    assert!(!result.dry_run);
    assert_eq!((target.command(&["GET", "key:505"]).await.text().as_str(), size(&target).await), ("mine", 1000));

    // The libraries are there by now, and stay.
    let result = restore(&service.clients, &backup, at(&target), all(Conflict::Skip)).await;
    assert_eq!((result.keys, result.skipped_keys, result.functions), (0, 1000, 0));
    let (reason, message) = fails(&service.clients, &backup, at(&target), all(Conflict::Fail)).await;
    assert!(reason == "TARGET_EXISTS" && message.contains("library"), "{message}");

    let dry = own::KeySelection { dry_run: true, ..all(Conflict::Replace) };
    let result = restore(&service.clients, &backup, at(&target), dry).await;
    assert_eq!((result.keys, result.replaced_keys), (1000, 1000));
    let result = restore(&service.clients, &backup, at(&target), all(Conflict::Replace)).await;
    assert_eq!((result.keys, result.replaced_keys, result.skipped_keys), (1000, 1000, 0));
    crate::support::compare::assert_same_content(&source, &target).await;
    assert_eq!(libraries(&target).await, ["large", "small"]);
}

/// Goal: what is meant is restored, and nothing else. Method: databases, patterns and types, alone and together.
#[tokio::test]
async fn a_selection_is_all_that_is_written() {
    let source = RedisServer::start().await;
    fill_every_type(&source, 3).await;
    let (service, backup) = backed_up(&source).await;
    let keys = async |selection: own::KeySelection| {
        let target = RedisServer::start().await;
        let result = restore(&service.clients, &backup, at(&target), selection).await;
        assert_eq!((result.functions, libraries(&target).await.len()), (0, 0));
        (result, target)
    };
    let (result, target) = keys(own::KeySelection { databases: vec![2], ..Default::default() }).await;
    assert_eq!(result.keys * 3, keys_in(&backup));
    assert_eq!(target.info("db2").await.split(',').next(), Some(format!("keys={}", result.keys).as_str()));
    assert_eq!(size(&target).await, 0);

    let (result, target) = keys(own::KeySelection { databases: vec![0], patterns: vec!["stream:[es]*".into(), "geo".into()], ..Default::default() }).await;
    let mut names: Vec<String> = target.command(&["KEYS", "*"]).await.items().iter().map(|name| name.text()).collect();
    names.sort();
    assert_eq!(names, ["geo", "stream:emptied", "stream:empty", "stream:set", "stream:small"]);
    assert_eq!((result.types.get("stream"), result.types.get("zset")), (Some(&4), Some(&1)));

    let (result, _target) = keys(own::KeySelection { types: vec!["hash".into(), "set".into()], ..Default::default() }).await;
    assert!(result.types.keys().all(|kind| kind == "hash" || kind == "set") && result.types.len() == 2, "{result:?}");
}

/// Goal: what cannot be done is refused before anything is written, and says what to do. Method: keys of three databases into servers
/// with fewer, into a replica, and a value that is too long.
#[tokio::test]
async fn what_cannot_be_done_is_refused_before_anything_is_written() {
    let source = RedisServer::start().await;
    fill_every_type(&source, 3).await;
    big_string(&source, "big", 3 << 20).await;
    let cluster = Cluster::start(3, 0).await;
    let small = RedisServer::builder().databases(2).start().await;
    let short = RedisServer::builder().config("proto-max-bulk-len 2mb").start().await;
    let replica = RedisServer::builder().replica_of(&small).start().await;
    let service = Setup::new().cluster("main", &[&source.address()], "").cluster("three", &[&cluster.address()], "").start().await;
    let backup = service.clients.take("main", "a").await;
    for (target, what) in
        [(into("three"), "has no database 2"), (at(&small), "has no database 2"), (at(&short), "proto-max-bulk-len"), (at(&replica), "is a replica")]
    {
        let (_, message) = fails(&service.clients, &backup, target, all(Conflict::Fail)).await;
        assert!(message.contains(what), "{message}");
    }
    for server in [&small, &short, &cluster.shards[0].primary] {
        assert_eq!(size(server).await, 0);
    }
    // Left out, the rest goes.
    let keys = own::KeySelection { databases: vec![0], ..Default::default() };
    let result = restore(&service.clients, &backup, into("three"), keys).await;
    assert!(result.keys > 100, "{result:?}");
}

/// Goal: a restore keeps to its rate. Method: 3 MB at 1 MB a second.
#[tokio::test]
async fn a_rate_is_kept() {
    let (source, target) = (RedisServer::start().await, RedisServer::start().await);
    for number in 0..30 {
        big_string(&source, &format!("big:{number}"), 100_000).await;
    }
    let (service, backup) = backed_up(&source).await;
    let started = Instant::now();
    let keys = own::KeySelection { bytes_per_second: 1_000_000, ..Default::default() };
    restore(&service.clients, &backup, at(&target), keys).await;
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(2500), "{took:?}");
    assert_eq!(size(&target).await, 30);
}

/// Goal: a target without memory left is told with what was written. Method: a limit of a few megabytes.
#[tokio::test]
async fn a_full_target_is_told() {
    let source = RedisServer::start().await;
    for number in 0..100 {
        big_string(&source, &format!("big:{number}"), 100_000).await;
    }
    let (service, backup) = backed_up(&source).await;
    let target = RedisServer::builder().config("maxmemory 5mb").config("maxmemory-policy noeviction").start().await;
    let (_, message) = fails(&service.clients, &backup, at(&target), all(Conflict::Fail)).await;
    let written = size(&target).await;
    assert!(message.contains("has no memory left") && message.contains(&format!("; {written} keys were written")), "{written}: {message}");
    assert!((1..100).contains(&written));
}
