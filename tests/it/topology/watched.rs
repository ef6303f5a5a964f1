//! Goal: what Sentinel watches is found by its name, followed, and never sees us. Method: real sentinels.

use crate::support::sentinel::{Layout, MASTER, Sentinels};
use crate::support::server::RedisServer;
use crate::support::service::{OPERATION, Setup, error_of, reason_of};
use crate::support::until;
use std::time::Duration;

async fn linked(primary: &RedisServer) -> RedisServer {
    let replica = RedisServer::builder().replica_of(primary).start().await;
    replica.wait_replica_linked().await;
    replica
}

fn setup(sentinels: &Sentinels, extra: &str) -> Setup {
    Setup::new().cluster("main", &[], &format!("sentinel = {{ master = {MASTER:?}, nodes = {:?}{extra} }}", sentinels.addresses()))
}

#[tokio::test]
async fn a_watched_cluster_is_found_followed_and_left_without_ghosts() {
    let primary = RedisServer::start().await;
    let replicas = [linked(&primary).await, linked(&primary).await];
    let sentinels = Sentinels::start(3, &primary, 2).await;
    let service = setup(&sentinels, "").start().await;
    let backup = service.clients.take("main", "a").await;
    assert!(replicas.iter().any(|replica| replica.address() == backup.shards[0].source_host), "{}", backup.shards[0].source_host);

    let promoted = sentinels.fail_over().await;
    until("the replicas follow", Duration::from_secs(60), async || {
        for server in [&primary, &replicas[0], &replicas[1]] {
            let info = server.info_fields().await;
            if server.address() != promoted && info.get("master_link_status").is_none_or(|status| status != "up") {
                return None;
            }
        }
        Some(())
    })
    .await;
    let backup = service.clients.take("main", "b").await;
    assert_ne!(backup.shards[0].source_host, promoted);
    for server in &sentinels.servers {
        let seen = sentinels.seen(server).await;
        assert_eq!((seen.primary.clone(), seen.replicas.len()), (promoted.clone(), 2), "{seen:?}");
        assert!(seen.replicas.iter().all(|replica| !replica.ends_with(":0")), "{seen:?}");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_watched_primary_alone_is_refused() {
    let primary = RedisServer::start().await;
    let setup_of = |sentinels: &Sentinels| {
        let folder = setup(sentinels, ", password_file = \"sentinel\"");
        std::fs::write(folder.folder().join("sentinel"), "hush").expect("a password is written");
        folder.cluster("seen", &[&primary.address()], "allow_primary = true")
    };
    let sentinels = Layout::default().password("hush").start(1, &primary, 0).await;
    let service = setup_of(&sentinels).start().await;
    for (cluster, words) in [("main", "is a primary that Sentinel watches"), ("seen", "it is a primary that Sentinel watches")] {
        let operation = service.clients.create(cluster, cluster).await.expect("the backup is accepted");
        let operation = service.clients.ended(&operation.id, OPERATION).await;
        let message = error_of(&operation).map(|status| status.message.clone()).unwrap_or_default();
        assert_eq!(reason_of(&operation), "SOURCE_ROLE", "{message}");
        assert!(message.contains(words), "{message}");
    }
    assert_eq!(primary.info("sync_full").await, "0");
    service.stop().await;
}

/// Goal: a failover in mid-snapshot costs an attempt and no more. Method: the source is made the primary while it saves; the
/// other replica, which follows it, is the source then.
#[tokio::test]
async fn a_failover_in_mid_snapshot_is_survived() {
    let primary = RedisServer::start().await;
    let follow = |priority: u32| RedisServer::builder().replica_of(&primary).config(&format!("replica-priority {priority}")).start();
    let (promoted, other) = (follow(1).await, follow(100).await);
    primary.command(&["EVAL", "for i = 1, 1000 do redis.call('SET', i, i) end return redis.status_reply('OK')", "0"]).await.ok();
    for replica in [&promoted, &other] {
        replica.wait_info("db0", |keys| keys.starts_with("keys=1000,")).await;
    }
    let sentinels = Sentinels::start(1, &primary, 2).await;
    let service = setup(&sentinels, "").start().await;
    promoted.command(&["CONFIG", "SET", "rdb-key-save-delay", "15000"]).await.ok();
    // A host that saves already is chosen last.
    other.command(&["CONFIG", "SET", "rdb-key-save-delay", "5000"]).await.ok();
    assert!(other.command(&["BGSAVE"]).await.error().is_none(), "a save begins");
    other.command(&["CONFIG", "SET", "rdb-key-save-delay", "0"]).await.ok();
    let operation = service.clients.create("main", "a").await.expect("the backup is accepted");
    promoted.wait_info("rdb_bgsave_in_progress", |value| value == "1").await;
    assert_eq!(sentinels.fail_over().await, promoted.address());
    let ended = service.clients.ended(&operation.id, OPERATION).await;
    assert!(error_of(&ended).is_none(), "{ended:#?}");
    let backup = service.clients.all_backups().await.remove(0);
    assert_ne!(backup.shards[0].source_host, promoted.address());
    assert_eq!(backup.shards[0].keys, 1000);
    assert!(service.clients.progress(&operation.id).await.attempt >= 2);
    let seen = sentinels.seen(&sentinels.servers[0]).await;
    assert!(seen.replicas.iter().all(|replica| !replica.ends_with(":0")), "{seen:?}");
    service.stop().await;
}
