//! Goal: a sharded cluster comes back with its shards, their slots and their keys. Method: a real cluster of three shards.

use super::*;
use crate::support::cluster;
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
