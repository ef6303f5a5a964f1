//! Goal: the right host is the source, and one that must not be is never asked to fork. Method: scripted hosts that say all
//! kinds of things of themselves.

use super::*;
use crate::support::rdb_bytes::Dump;
use crate::support::resp::Value;
use crate::support::scripted::{Act, MARKER, Script, full_sync_marker};
use crate::support::service::Setup;
use std::sync::Arc;
use tokio::sync::Notify;

fn good() -> Vec<Script> {
    vec![full_sync_marker(Dump::sample().bytes, MARKER)]
}

/// A primary with replicas that know one another.
async fn shard(replicas: usize) -> (ScriptedRedis, Vec<ScriptedRedis>) {
    let primary = scripted(good()).await;
    let mut all = Vec::new();
    for _ in 0..replicas {
        let replica = scripted(good()).await;
        replica.become_replica_of("127.0.0.1", primary.port());
        primary.add_replica("127.0.0.1", replica.port(), "online");
        all.push(replica);
    }
    (primary, all)
}

fn sentinel(server: &ScriptedRedis) -> &ScriptedRedis {
    server.answer("PUBSUB NUMSUB", Value::Array(vec![Value::bulk("__sentinel__:hello"), Value::Integer(1)]))
}

#[tokio::test]
async fn one_node_is_enough_to_find_the_replica() {
    for primary_is_listed in [true, false] {
        let (primary, replicas) = shard(1).await;
        let listed = if primary_is_listed { primary.address() } else { replicas[0].address() };
        let service = Setup::new().cluster("main", &[&listed], "").start().await;
        let backup = service.clients.take("main", "a").await;
        assert_eq!(backup.shards[0].source_host, replicas[0].address());
        assert!(!primary.arguments("INFO").is_empty(), "the primary was found");
        assert_eq!((primary.counts().psyncs, replicas[0].counts().psyncs), (0, 1));
        service.stop().await;
    }
}

#[tokio::test]
async fn an_unfit_replica_leaves_the_other_or_nobody() {
    for (field, value) in [("loading", "1"), ("master_link_status", "down"), ("master_sync_in_progress", "1"), ("master_last_io_seconds_ago", "31")] {
        let (primary, replicas) = shard(2).await;
        replicas[0].set_info(field, value);
        let service = Setup::new().executor("deadline", "\"2s\"").cluster("main", &[&primary.address()], "").start().await;
        service.clients.take("main", "a").await;
        assert_eq!((primary.counts().psyncs, replicas[0].counts().psyncs, replicas[1].counts().psyncs), (0, 0, 1), "{field}");

        replicas[1].set_info(field, value);
        let operation = fails(&service.clients, "main").await;
        assert_reason_or_deadline(&operation, "SOURCE_NOT_READY", &["is the primary of a shard with replicas", "allow_primary = true"]);
        assert_eq!((primary.counts().psyncs, replicas[0].counts().psyncs, replicas[1].counts().psyncs), (0, 0, 1), "{field}");
        service.stop().await;
    }
}

#[tokio::test]
async fn a_primary_serves_where_it_may() {
    let (primary, replicas) = shard(1).await;
    replicas[0].set_info("master_link_status", "down");
    let service = Setup::new().cluster("main", &[&primary.address()], "allow_primary = true").start().await;
    service.clients.take("main", "a").await;
    assert_eq!((primary.counts().psyncs, replicas[0].counts().psyncs), (1, 0));
    service.stop().await;
}

#[tokio::test]
async fn hosts_that_must_not_fork_are_refused() {
    type Make = fn(&ScriptedRedis) -> &ScriptedRedis;
    let cases: [(&str, Make, &str, &[&str]); 6] = [
        ("old", |server| server.set_info("redis_version", "6.0.16"), "SOURCE_VERSION", &["6.0.16", "allow_output_buffer_risk"]),
        ("sharded", |server| server.set_info("redis_mode", "cluster"), "SOURCE_VERSION", &["cluster mode"]),
        ("dragonfly", |server| server.set_info("dragonfly_version", "df-v1.20.1"), "SOURCE_VERSION", &["neither Redis nor Valkey"]),
        ("watched", sentinel, "SOURCE_ROLE", &["Sentinel", "list a replica"]),
        ("memory", |server| server.set_info("used_memory", 7_000_000_000_u64), "SOURCE_MEMORY", &["10500000000 bytes", "memory_limit"]),
        ("nonsense", |server| server.unset_info("role"), "SOURCE_UNREACHABLE", &["no version and role"]),
    ];
    let mut setup = Setup::new().executor("deadline", "\"2s\"");
    let mut servers = Vec::new();
    for (name, make, reason, words) in cases {
        let server = scripted(good()).await;
        make(&server);
        setup = setup.cluster(name, &[&server.address()], "");
        servers.push((server, name, reason, words));
    }
    let declared = scripted(good()).await;
    let node = format!("[{{ address = \"{}\", memory_limit = \"1MiB\" }}]", declared.address());
    setup = setup.cluster_of("declared", &node, "");
    servers.push((declared, "declared", "SOURCE_MEMORY", &["1048576", "declare its true memory_limit"]));
    let service = setup.start().await;
    for (server, name, reason, words) in &servers {
        let operation = fails(&service.clients, name).await;
        assert_reason_or_deadline(&operation, reason, words);
        assert_eq!(server.counts().psyncs, 0, "{name}");
    }
    assert_nothing_available(&service.clients).await;
    service.stop().await;
}

#[tokio::test]
async fn a_replica_of_a_watched_primary_is_fine() {
    let (primary, replicas) = shard(1).await;
    sentinel(&primary);
    let service = Setup::new().cluster("main", &[&primary.address()], "").start().await;
    service.clients.take("main", "a").await;
    assert_eq!((primary.counts().psyncs, replicas[0].counts().psyncs), (0, 1));
    service.stop().await;
}

/// Goal: credentials stay in the networks that were allowed. Method: a primary announces a replica outside of them.
#[tokio::test]
async fn a_fake_replica_gets_neither_connection_nor_credentials() {
    let (primary, replicas) = shard(1).await;
    primary.require_auth("default", "secret");
    let setup = Setup::new().executor("deadline", "\"2s\"");
    std::fs::write(setup.folder().join("secret"), "secret").unwrap();
    let service = setup.cluster("main", &[&primary.address()], "password_file = \"secret\"\ndiscovery_allow = [\"10.0.0.0/8\"]").start().await;
    let operation = fails(&service.clients, "main").await;
    assert_reason(&operation, "SOURCE_PERMISSION", &["outside discovery_allow"]);
    assert_eq!(replicas[0].counts().connections, 0);
    assert_eq!(primary.counts().psyncs, 0);
    service.stop().await;
}

/// Goal: what was judged before a long wait is judged again after it. Method: while another snapshot holds the machine, the
/// replica that was chosen becomes the primary.
#[tokio::test]
async fn a_source_that_changed_during_the_wait_is_chosen_anew() {
    let gate = Arc::new(Notify::new());
    let first = scripted(vec![[vec![Act::Wait(Arc::clone(&gate))], full_sync_marker(Dump::sample().bytes, MARKER)].concat()]).await;
    let (primary, replicas) = shard(1).await;
    let setup = Setup::new().cluster("first", &[&first.address()], "").cluster("second", &[&primary.address()], "");
    let service = setup.start().await;
    let holding = service.clients.create("first", "a").await.unwrap();
    first.wait_for(|counts| counts.psyncs == 1).await;
    let waiting = service.clients.create("second", "b").await.unwrap();
    let waits = async || service.clients.progress(&waiting.id).await.waiting_for.contains("same machine").then_some(());
    until("the second waits for the machine", SOON, waits).await;
    replicas[0].set_info("role", "master").add_replica("127.0.0.1", primary.port(), "online");
    primary.become_replica_of("127.0.0.1", replicas[0].port());
    gate.notify_one();
    for operation in [holding, waiting] {
        let ended = service.clients.ended(&operation.id, SOON).await;
        assert!(error_of(&ended).is_none(), "{ended:#?}");
    }
    assert_eq!((primary.counts().psyncs, replicas[0].counts().psyncs), (1, 0));
    service.stop().await;
}
