//! Goal: the clusters and sentinels of these tests are what they say.

use crate::support::cluster::{Cluster, SLOTS, begin_move, end_move, move_keys, slot_of};
use crate::support::data::fill_every_type;
use crate::support::sentinel::Sentinels;
use crate::support::server::RedisServer;
use crate::support::until;
use std::time::Duration;

#[tokio::test]
async fn a_cluster_holds_every_key_where_it_belongs() {
    let source = RedisServer::start().await;
    fill_every_type(&source, 1).await;
    let cluster = Cluster::start(3, 1).await;
    cluster.fill_from(&source).await;
    let mut keys = 0;
    for shard in &cluster.shards {
        shard.caught_up().await;
        let count = shard.primary.command(&["DBSIZE"]).await.integer();
        assert!(count > 10, "{count}");
        assert_eq!(shard.replicas[0].command(&["DBSIZE"]).await.integer(), count);
        keys += count;
    }
    assert_eq!(keys, source.command(&["DBSIZE"]).await.integer());
    assert_eq!((slot_of(b"123456789"), slot_of(b"a{123456789}b"), slot_of(b"{}a")), (12_739, 12_739, slot_of(b"{}a") % SLOTS));

    let (from, to) = (&cluster.shards[0].primary, &cluster.shards[1].primary);
    let slot = (0..100).find(|slot| cluster.owner(*slot).port() == from.port()).expect("the first shard has slots");
    begin_move(slot, from, to).await;
    move_keys(slot, 10, from, to).await;
    end_move(slot, from, to).await;
    cluster.settled().await;
}

#[tokio::test]
async fn sentinels_see_one_another_and_fail_over() {
    let primary = RedisServer::start().await;
    let replica = RedisServer::builder().replica_of(&primary).start().await;
    replica.wait_replica_linked().await;
    let sentinels = Sentinels::start(3, &primary, 1).await;
    assert_eq!(sentinels.fail_over().await, replica.address());
    until("the replica takes writes", Duration::from_secs(30), async || (replica.info("role").await == "master").then_some(())).await;
}
