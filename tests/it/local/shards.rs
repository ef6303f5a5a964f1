//! Goal: a sharded cluster comes back with its shards, their slots and their keys. Method: a real cluster of three shards.

use super::*;
use crate::support::cluster::{self, begin_move, move_keys};
use crate::support::compare::assert_same_content;
use crate::support::server::RedisServer;
use crate::support::{data, local};

#[tokio::test]
async fn three_shards_with_a_replica_each() {
    let filled = RedisServer::start().await;
    data::fill_every_type(&filled, 1).await;
    let source = cluster::Cluster::start(3, 0).await;
    source.fill_from(&filled).await;
    let (watch, setup) = local::keeper("");
    let service = setup.cluster("main", &[&source.address()], "").start().await;
    let clients = &service.clients;
    let backup = clients.take("main", "first").await;
    assert_eq!(backup.shards.len(), 3);

    let cluster = restored(clients, RestoreClusterRequest { host_specs: hosts(6), sharded: true, ..wish(&backup.id, "again") }).await;
    assert!(cluster.sharded && cluster.health() == managed::cluster::Health::Alive, "{cluster:#?}");
    let found = hosts_of(clients, "again").await;
    let shards: Vec<&str> = found.iter().map(|host| host.shard_name.as_str()).collect();
    assert_eq!(shards, ["shard1", "shard1", "shard2", "shard2", "shard3", "shard3"]);
    assert_eq!(watch.servers().len(), 6);
    for (shard, pair) in source.shards.iter().zip(found.chunks(2)) {
        for host in pair {
            let mirror = local::mirror(RedisServer::builder(), &service.setup, "again", &host.name).await;
            assert_same_content(&shard.primary, &mirror).await;
        }
    }
    let again = clients.take("again", "of-it").await;
    let of = |backup: &redkeep::pb::own::Backup| {
        let shard = |shard: &redkeep::pb::own::ShardArtifact| (shard.name.clone(), shard.keys, shard.slots.clone());
        backup.shards.iter().map(shard).collect::<Vec<_>>()
    };
    assert_eq!(of(&again), of(&backup));
    // What was made of a restored cluster makes another, beside it.
    restored(clients, wish(&again.id, "third")).await;
    assert_eq!(watch.servers().len(), 9);
    deleted(clients, "again").await;
    deleted(clients, "third").await;
    assert!(watch.servers().is_empty());
    service.stop().await;
}

/// Goal: keys that lay in another shard than the one that owns their slot do not make it take the slot, and stay where they were.
/// Method: a slot whose keys have moved in part.
#[tokio::test]
async fn keys_that_had_strayed() {
    let source = cluster::Cluster::start(3, 0).await;
    let [first, second] = [&source.shards[0].primary, &source.shards[1].primary];
    for number in 0..6 {
        let (own, other) = (format!("{{b}}{number}"), format!("{{a}}{number}"));
        for (server, key) in [(first, own), (&source.shards[2].primary, other)] {
            server.command(&["SET", &key, "value"]).await.ok();
        }
    }
    // `{b}` is of the first shard, `{a}` of the third.
    let slot = cluster::slot_of(b"b");
    begin_move(slot, first, second).await;
    assert_eq!(move_keys(slot, 2, first, second).await, 2);
    let (watch, setup) = local::keeper("");
    let service = setup.cluster("main", &[&source.address()], "").start().await;
    let clients = &service.clients;
    let backup = clients.take("main", "first").await;
    assert_eq!(backup.stray_keys, 2);
    let cluster = restored(clients, wish(&backup.id, "again")).await;
    assert_eq!(cluster.health(), managed::cluster::Health::Alive, "every slot has one owner");
    let mut keys = Vec::new();
    for host in hosts_of(clients, "again").await {
        keys.push(local::connect(&service.setup, "again", &host.name).await.command(&["DBSIZE"]).await.integer());
    }
    // Some servers drop what is not of their slots.
    assert_eq!((keys[0], keys[2]), (4, 6));
    assert!(keys[1] <= 2, "{keys:?}");
    assert_eq!(watch.servers().len(), 3);
    service.stop().await;
}
