//! Goal: a backup of a cluster holds every shard, each as it was. Method: real clusters; each shard's dump is loaded into a
//! plain server and compared with its primary.

use crate::content::decode;
use crate::support::cluster::{Cluster, Layout, begin_move, end_move, move_keys, slot_of};
use crate::support::data::fill_every_type;
use crate::support::server::RedisServer;
use crate::support::service::{OPERATION, Service, Setup, error_of, reason_of};
use crate::support::{compare, load, until};
use redkeep::artifacts::manifest::Manifest;
use redkeep::backup::Level;
use redkeep::pb::{managed, own};
use std::time::Duration;

/// Longest wait for a failure that is repeated a few times.
const FAILURE: Duration = Duration::from_secs(90);

async fn filled(cluster: &Cluster) {
    let source = RedisServer::start().await;
    fill_every_type(&source, 1).await;
    cluster.fill_from(&source).await;
    for shard in &cluster.shards {
        shard.caught_up().await;
    }
}

async fn service_of(cluster: &Cluster, extra: &str) -> Service {
    Setup::new().cluster("main", &[&cluster.address()], extra).start().await
}

fn manifest_of(service: &Service, backup: &own::Backup) -> Manifest {
    let folder = service.setup.artifact_root().join(&backup.path);
    serde_json::from_slice(&std::fs::read(folder.join("manifest.json")).expect("there is a manifest")).expect("it can be read")
}

/// Loads each shard's dump and compares it with the server that holds the slots.
async fn restores(service: &Service, backup: &own::Backup, cluster: &Cluster) -> Manifest {
    let manifest = manifest_of(service, backup);
    assert_eq!(manifest.shards.len(), cluster.shards.len());
    for (shard, servers) in manifest.shards.iter().zip(&cluster.shards) {
        let rdb = service.setup.folder().join(format!("{}-{}.rdb", backup.id, shard.name));
        decode(&service.setup.artifact_root().join(&backup.path), &shard.segments, &rdb);
        let restored = load::load_rdb(&rdb).await;
        compare::assert_same_content(&servers.primary, &restored).await;
        assert_eq!((shard.level, shard.walk.stray_keys), (Level::Walked, Some(0)), "{}", shard.name);
    }
    manifest
}

/// A backup that is to fail: its reason and message.
async fn fails(service: &Service, name: &str) -> (String, String) {
    let operation = service.clients.create("main", name).await.expect("the backup is accepted");
    let operation = service.clients.ended(&operation.id, FAILURE).await;
    (reason_of(&operation), error_of(&operation).map(|status| status.message.clone()).unwrap_or_default())
}

#[tokio::test]
async fn three_shards_with_replicas_restore_as_they_were() {
    let cluster = Cluster::start(3, 1).await;
    filled(&cluster).await;
    let service = service_of(&cluster, "").await;
    let backup = service.clients.take("main", "a").await;
    let manifest = restores(&service, &backup, &cluster).await;
    assert_eq!(manifest.shards.iter().map(|shard| &*shard.name).collect::<Vec<_>>(), ["shard1", "shard2", "shard3"]);
    assert_eq!((backup.consistency(), backup.stray_keys), (own::backup::Consistency::PerShard, 0));
    for (shard, servers) in manifest.shards.iter().zip(&cluster.shards) {
        assert_eq!(shard.source_host, servers.replicas[0].address());
        assert_eq!(shard.slots.len(), 1);
    }

    let request = managed::ListClusterHostsRequest { cluster_id: "main".into(), ..Default::default() };
    let hosts = service.clients.clusters.clone().list_hosts(request).await.expect("hosts are listed").into_inner().hosts;
    let of = |name: &str| hosts.iter().filter(|host| host.shard_name == name).count();
    assert_eq!(["shard1", "shard2", "shard3"].map(of), [2; 3], "{hosts:#?}");
    let request = managed::ListClusterShardsRequest { cluster_id: "main".into(), ..Default::default() };
    let shards = service.clients.clusters.clone().list_shards(request).await.expect("shards are listed").into_inner().shards;
    assert_eq!(shards.iter().map(|shard| (&*shard.name, shard.is_ha)).collect::<Vec<_>>(), [("shard1", true), ("shard2", true), ("shard3", true)]);
    let check = service.clients.fleet.clone().check_cluster(own::CheckClusterRequest { cluster_id: "main".into() }).await.expect("a check").into_inner();
    assert!(check.ready && check.summary.contains("3 shards"), "{check:#?}");
    assert_eq!(check.hosts.iter().filter(|host| host.chosen).count(), 3);
    service.stop().await;
}

/// Goal: a shard keeps its name for good. Method: a failover, and another process on the same store.
#[tokio::test]
async fn names_survive_a_failover_and_a_restart() {
    let cluster = Cluster::start(3, 1).await;
    let service = service_of(&cluster, "").await;
    let first = manifest_of(&service, &service.clients.take("main", "a").await);
    let promoted = &cluster.shards[0].replicas[0];
    promoted.command(&["CLUSTER", "FAILOVER"]).await.ok();
    promoted.wait_info("role", |role| role == "master").await;
    cluster.settled().await;
    let service = service.stop().await.start().await;
    let second = manifest_of(&service, &service.clients.take("main", "b").await);
    let slots = |manifest: &Manifest| manifest.shards.iter().map(|shard| (shard.name.clone(), shard.slots.clone())).collect::<Vec<_>>();
    assert_eq!(slots(&first), slots(&second));
    assert_eq!(second.shards[0].source_host, cluster.shards[0].primary.address());
    service.stop().await;
}

#[tokio::test]
async fn six_shards_with_replicas_restore_as_they_were() {
    let cluster = Cluster::start(6, 1).await;
    filled(&cluster).await;
    let service = service_of(&cluster, "").await;
    let backup = service.clients.take("main", "a").await;
    restores(&service, &backup, &cluster).await;
    service.stop().await;
}

#[tokio::test]
async fn a_cluster_with_uncovered_slots_is_told_by_its_slots() {
    let cluster = Layout::new(3, 0).without_slots(2, 16_000..16_384).start().await;
    let service = service_of(&cluster, "").await;
    let (reason, message) = fails(&service, "a").await;
    assert_eq!(reason, "SOURCE_TOPOLOGY");
    assert!(message.contains("nobody owns slots 16000-16383"), "{message}");
    for server in cluster.servers() {
        assert_eq!(server.info("sync_full").await, "0");
    }
    service.stop().await;
}

#[tokio::test]
async fn nodes_of_two_clusters_are_told() {
    let [one, other] = [Cluster::start(3, 0).await, Cluster::start(3, 0).await];
    let service = Setup::new().cluster("main", &[&one.address(), &other.address()], "").start().await;
    let (reason, message) = fails(&service, "a").await;
    assert_eq!(reason, "SOURCE_ROLE");
    assert!(message.contains("2 clusters") && message.contains("nodes of one cluster"), "{message}");
    service.stop().await;
}

/// Goal: a migration under way is no failure, and what lies where it does not belong is counted. Method: a slot with half of
/// its keys on either side.
#[tokio::test]
async fn keys_on_their_way_are_counted() {
    let cluster = Cluster::start(3, 1).await;
    let slot = slot_of(b"{tag}");
    let from = cluster.owner(slot);
    let to = &cluster.shards.iter().find(|shard| shard.primary.port() != from.port()).expect("another shard").primary;
    for key in 0..10 {
        from.command(&["SET", &format!("{{tag}}{key}"), "value"]).await.ok();
    }
    begin_move(slot, from, to).await;
    assert_eq!(move_keys(slot, 4, from, to).await, 4);
    for shard in &cluster.shards {
        shard.caught_up().await;
    }
    let service = service_of(&cluster, "").await;
    let backup = service.clients.take("main", "a").await;
    assert_eq!(backup.stray_keys, 4);
    let manifest = manifest_of(&service, &backup);
    let words: Vec<_> = manifest.shards.iter().flat_map(|shard| &shard.moves).collect();
    assert!(words.iter().any(|moving| moving.starts_with(&format!("slot {slot} is migrating to"))), "{words:?}");
    assert_eq!(backup.shards.iter().flat_map(|shard| &shard.moves).collect::<Vec<_>>(), words);
    move_keys(slot, 10, from, to).await;
    end_move(slot, from, to).await;
    cluster.settled().await;
    assert_eq!(service.clients.take("main", "b").await.stray_keys, 0);
    service.stop().await;
}

/// Goal: one shard that cannot be taken fails all of it, and the others are let go. Method: six shards, one primary dead.
#[tokio::test]
async fn one_dead_shard_fails_the_whole() {
    let mut cluster = Layout::new(6, 0).node_timeout_ms(60_000).start().await;
    let service = service_of(&cluster, "").await;
    let dead = cluster.shards[5].primary.address();
    cluster.shards[5].primary.kill();
    let (reason, message) = fails(&service, "a").await;
    assert_eq!(reason, "SOURCE_UNREACHABLE");
    assert!(message.contains(&dead), "{message}");
    assert_eq!(cluster.shards[0].primary.info("sync_full").await, "0");
    service.stop().await;
}

/// Goal: what moved between two snapshots is not lost unseen. Method: a slot changes its owner while a shard is being taken.
#[tokio::test]
async fn a_slot_that_moved_meanwhile_is_taken_again() {
    let cluster = Layout::new(3, 0).nodes(|node| node.config("rdb-key-save-delay 2000")).start().await;
    let slot = slot_of(b"{moving}");
    let from = cluster.owner(slot);
    let to = &cluster.shards.iter().find(|shard| shard.primary.port() != from.port()).expect("another shard").primary;
    for shard in &cluster.shards {
        shard.primary.command(&["DEBUG", "POPULATE", "400"]).await.ok();
    }
    let service = service_of(&cluster, "").await;
    let operation = service.clients.create("main", "a").await.expect("the backup is accepted");
    until("a source forks", OPERATION, async || {
        for shard in &cluster.shards {
            if shard.primary.info("sync_full").await != "0" {
                return Some(());
            }
        }
        None
    })
    .await;
    begin_move(slot, from, to).await;
    end_move(slot, from, to).await;
    let operation = service.clients.ended(&operation.id, OPERATION).await;
    assert!(error_of(&operation).is_none(), "{operation:#?}");
    let backup = service.clients.all_backups().await.remove(0);
    let manifest = manifest_of(&service, &backup);
    assert_eq!(manifest.epoch, 2);
    let holder = manifest.shards.iter().find(|shard| shard.slots.iter().any(|range| range.first <= slot && slot <= range.last)).expect("somebody has it");
    assert_eq!(holder.source_host, to.address());
    service.stop().await;
}

/// Goal: a failover in mid-snapshot costs an attempt and no more. Method: the source is made the primary while it saves; the
/// one that was the primary is the source then.
#[tokio::test]
async fn a_failover_in_mid_snapshot_is_survived() {
    let cluster = Cluster::start(3, 1).await;
    let (primary, replica) = (&cluster.shards[0].primary, &cluster.shards[0].replicas[0]);
    let tag = (0..).map(|tag| format!("{{{tag}}}")).find(|tag| cluster.owner(slot_of(tag.as_bytes())).port() == primary.port()).expect("a tag of the shard");
    primary.command(&["EVAL", "for i = 1, 1000 do redis.call('SET', KEYS[1] .. i, i) end return redis.status_reply('OK')", "1", &tag]).await.ok();
    cluster.shards[0].caught_up().await;
    replica.command(&["CONFIG", "SET", "rdb-key-save-delay", "10000"]).await.ok();
    let service = service_of(&cluster, "").await;
    let operation = service.clients.create("main", "a").await.expect("the backup is accepted");
    replica.wait_info("rdb_bgsave_in_progress", |value| value == "1").await;
    replica.command(&["CLUSTER", "FAILOVER"]).await.ok();
    let ended = service.clients.ended(&operation.id, OPERATION).await;
    assert!(error_of(&ended).is_none(), "{ended:#?}");
    let manifest = manifest_of(&service, &service.clients.all_backups().await.remove(0));
    assert!(manifest.epoch >= 2, "{}", manifest.epoch);
    assert_eq!((manifest.shards[0].name.as_str(), &manifest.shards[0].source_host), ("shard1", &primary.address()));
    assert_eq!(manifest.shards[0].walk.databases.iter().map(|database| database.keys).sum::<u64>(), 1000);
    service.stop().await;
}
