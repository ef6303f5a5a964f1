//! Into clusters of any number of shards, from any number; while slots are on their way.

use super::{all, ask, assert_spread, at, into, keys_in, libraries, restore, result_of};
use crate::support::cluster::{Cluster, begin_move, end_move, move_keys, slot_of};
use crate::support::data::{fill_every_type, fill_mixed, fill_small_keys};
use crate::support::server::RedisServer;
use crate::support::service::{OPERATION, Setup};
use crate::support::until;
use redkeep::pb::own::key_selection::Conflict;

/// Goal: one server into three shards, these into six, and these into one server. Method: data of every type, compared with the first
/// server each time.
#[tokio::test]
async fn any_number_of_shards_into_any_other() {
    let source = RedisServer::start().await;
    fill_every_type(&source, 1).await;
    let (three, six, last) = tokio::join!(Cluster::start(3, 0), Cluster::start(6, 0), RedisServer::start());
    let setup = Setup::new().cluster("one", &[&source.address()], "").cluster("three", &[&three.address()], "").cluster("six", &[&six.address()], "");
    let service = setup.start().await;
    let backup = service.clients.take("one", "a").await;
    let result = restore(&service.clients, &backup, into("three"), all(Conflict::Fail)).await;
    assert_eq!((result.keys, result.functions), (keys_in(&backup), 2));
    assert_spread(&source, &three).await;
    for shard in &three.shards {
        assert_eq!(libraries(&shard.primary).await, ["large", "small"]);
    }

    let backup = service.clients.take("three", "b").await;
    assert_eq!(backup.shards.len(), 3);
    let result = restore(&service.clients, &backup, into("six"), all(Conflict::Fail)).await;
    assert_eq!((result.keys, result.functions), (keys_in(&backup), 2));
    assert_spread(&source, &six).await;

    let backup = service.clients.take("six", "c").await;
    restore(&service.clients, &backup, at(&last), all(Conflict::Fail)).await;
    crate::support::compare::assert_same_content(&source, &last).await;
}

/// Goal: keys follow their slots: those that have moved, and those that are moving. Method: a slot that has moved behind the back of
/// the first look is impossible to time, so slots are moving all along: one with all of its keys still to come, and one half moved.
#[tokio::test]
async fn keys_of_a_slot_on_its_way_go_where_they_are_asked_for() {
    let source = RedisServer::start().await;
    fill_small_keys(&source, 5000).await;
    let (long, big) = ("{key:7}long", vec![b'x'; 3 << 20]);
    source.command(&[b"SET", long.as_bytes(), &big]).await.ok();
    let cluster = Cluster::start(3, 0).await;
    let slot = slot_of(b"key:7");
    let (from, to) = (cluster.owner(slot), cluster.owner((slot + 8192) % 16384));
    let service = Setup::new().cluster("one", &[&source.address()], "").cluster("three", &[&cluster.address()], "").start().await;
    let backup = service.clients.take("one", "a").await;
    begin_move(slot, from, to).await;
    let result = restore(&service.clients, &backup, into("three"), all(Conflict::Fail)).await;
    assert_eq!(result.keys, keys_in(&backup));
    // Whatever is new in a slot on its way is where the slot goes.
    assert_eq!(move_keys(slot, 100, from, to).await, 0);
    end_move(slot, from, to).await;
    let mut keys = 0;
    for shard in &cluster.shards {
        keys += shard.primary.command(&["DBSIZE"]).await.integer();
    }
    assert_eq!(keys, keys_in(&backup));
    assert_eq!(to.command(&["STRLEN", long]).await.integer(), 3 << 20);
    assert!(to.command(&["GET", "key:7"]).await.error().is_none());
}

/// Goal: keys whose slot moves while the work is under way follow it. Method: the work stands still behind its first megabyte, and
/// many slots move meanwhile.
#[tokio::test]
async fn slots_that_move_in_the_middle_are_followed() {
    let source = RedisServer::start().await;
    fill_mixed(&source, 12 << 20).await;
    let cluster = Cluster::start(3, 0).await;
    let hold = tempfile::tempdir().expect("a folder");
    let go = hold.path().join("go").display().to_string();
    let setup = Setup::new().cluster("one", &[&source.address()], "").cluster("three", &[&cluster.address()], "");
    let process = setup.spawn(&[("REDKEEP_HANG_AT", "restore_keys.block"), ("REDKEEP_HANG_UNTIL", &go)]).await;
    let backup = process.clients.take("one", "a").await;
    let operation = ask(&process.clients, &backup, into("three"), all(Conflict::Fail)).await;
    let size = async || {
        let mut keys = 0;
        for shard in &cluster.shards {
            keys += shard.primary.command(&["DBSIZE"]).await.integer();
        }
        keys
    };
    until("something is written", OPERATION, async || (size().await > 0).then_some(())).await;
    let (from, to) = (&cluster.shards[0].primary, &cluster.shards[2].primary);
    let moved = 100..200;
    for slot in moved.clone() {
        begin_move(slot, from, to).await;
        move_keys(slot, 1000, from, to).await;
        end_move(slot, from, to).await;
    }
    assert!(size().await < keys_in(&backup) / 2);
    std::fs::write(&go, "").expect("the work goes on");
    let result = result_of(&process.clients.ended(&operation.id, OPERATION).await);
    assert_eq!((result.keys, size().await), (keys_in(&backup), keys_in(&backup)));
    assert_eq!(process.clients.progress(&operation.id).await.attempt, 1);
    let names = source.command(&["KEYS", "*"]).await;
    let of = names.items().iter().filter(|name| moved.contains(&slot_of(name.bytes()))).count() as i64;
    let mut there = 0;
    for slot in moved {
        there += to.command(&["CLUSTER", "COUNTKEYSINSLOT", &slot.to_string()]).await.integer();
    }
    assert!(of > 50 && there == of, "{there} of {of}");
}

/// Goal: an address of one node is enough. Method: the second node of a cluster.
#[tokio::test]
async fn an_address_in_cluster_mode_stands_for_its_cluster() {
    let source = RedisServer::start().await;
    fill_small_keys(&source, 1000).await;
    let cluster = Cluster::start(3, 0).await;
    let service = Setup::new().cluster("one", &[&source.address()], "").start().await;
    let backup = service.clients.take("one", "a").await;
    restore(&service.clients, &backup, at(&cluster.shards[1].primary), all(Conflict::Fail)).await;
    assert_spread(&source, &cluster).await;
}
