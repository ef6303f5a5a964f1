//! There and back: data of every type, on every engine, into one server.

use super::{all, at, fails, keys_in, restore};
use crate::support::compare;
use crate::support::data::{fill_every_type, fill_lapsed};
use crate::support::engines::{self, Engine, REDIS_6_2, REDIS_7_0, REDIS_8_0, VALKEY_8_0, VALKEY_9_1};
use crate::support::server::RedisServer;
use crate::support::service::Setup;
use redkeep::pb::own::key_selection::Conflict;

/// Goal: on each engine the content is equal, keys, values, expiries, groups of streams, functions. Method: data of every type in
/// three databases, restored into an empty server of the same engine.
async fn every_type_on(engine: Engine) {
    if !engines::present().contains(&engine) {
        return;
    }
    let (source, target) = (engine.builder().start().await, engine.builder().start().await);
    fill_every_type(&source, 3).await;
    let service = Setup::new().cluster("main", &[&source.address()], "").start().await;
    let backup = service.clients.take("main", "a").await;
    let result = restore(&service.clients, &backup, at(&target), all(Conflict::Fail)).await;
    compare::assert_same_content(&source, &target).await;
    assert_eq!(result.keys, keys_in(&backup));
    assert_eq!(result.functions, if engine.is_modern() { 2 } else { 0 });
    assert_eq!((result.skipped_keys, result.replaced_keys, result.expired_keys), (0, 0, 0));
    assert_eq!(result.types.values().sum::<i64>(), result.keys);
    assert_eq!(result.bytes, backup.size_bytes);
}

#[tokio::test]
async fn every_type_on_redis_6_2() {
    every_type_on(REDIS_6_2).await;
}

#[tokio::test]
async fn every_type_on_redis_7_0() {
    every_type_on(REDIS_7_0).await;
}

#[tokio::test]
async fn every_type_on_redis_8_0() {
    every_type_on(REDIS_8_0).await;
}

#[tokio::test]
async fn every_type_on_valkey_8_0() {
    every_type_on(VALKEY_8_0).await;
}

#[tokio::test]
async fn every_type_on_valkey_9_1() {
    every_type_on(VALKEY_9_1).await;
}

/// Goal: without engines of five kinds, too. Method: the server of this machine.
#[tokio::test]
async fn every_type_on_the_server_of_this_machine() {
    let (source, target) = (RedisServer::start().await, RedisServer::start().await);
    fill_every_type(&source, 2).await;
    let service = Setup::new().cluster("main", &[&source.address()], "").start().await;
    let backup = service.clients.take("main", "a").await;
    restore(&service.clients, &backup, at(&target), all(Conflict::Fail)).await;
    compare::assert_same_content(&source, &target).await;
}

/// Goal: what older servers write newer ones take, of both kinds. Method: from the oldest to the newest.
#[tokio::test]
async fn newer_engines_take_what_older_ones_wrote() {
    let all_engines = engines::present();
    let Some(oldest) = all_engines.first().filter(|engine| !engine.is_modern()) else { return };
    let source = oldest.builder().start().await;
    fill_every_type(&source, 1).await;
    let service = Setup::new().cluster("main", &[&source.address()], "").start().await;
    let backup = service.clients.take("main", "a").await;
    for engine in &all_engines[1..] {
        let target = engine.builder().start().await;
        let result = restore(&service.clients, &backup, at(&target), all(Conflict::Fail)).await;
        assert_eq!(result.keys, keys_in(&backup), "{}", engine.name);
        // Digests of sorted sets differ between engines, which write scores in words of their own.
        assert_eq!(compare::census(&target).await, compare::census(&source).await, "{}", engine.name);
        for name in ["string:prose:100000", "string:every-byte", "string:int:-129"] {
            assert_eq!(target.command(&["GET", name]).await, source.command(&["GET", name]).await);
        }
        for (name, command) in [("list:large", "LRANGE"), ("zset:small", "ZRANGE")] {
            assert_eq!(target.command(&[command, name, "0", "-1"]).await, source.command(&[command, name, "0", "-1"]).await);
        }
    }
}

/// Goal: a server that cannot load the dump is refused before anything is written. Method: newest engines into Redis 7.0.
#[tokio::test]
async fn an_older_server_is_refused_before_anything_is_written() {
    for engine in engines::present().into_iter().filter(|engine| engine.has_field_expiry()) {
        let (source, target) = (engine.builder().start().await, REDIS_7_0.builder().start().await);
        fill_every_type(&source, 1).await;
        let service = Setup::new().cluster("main", &[&source.address()], "").start().await;
        let backup = service.clients.take("main", "a").await;
        let (_, message) = fails(&service.clients, &backup, at(&target), all(Conflict::Fail)).await;
        assert!(message.contains("needs") && message.contains("nothing was written"), "{message}");
        assert_eq!(target.command(&["DBSIZE"]).await.integer(), 0);
    }
}

/// Goal: keys whose time is over are left out and counted. Method: keys that have expired and are in the dump.
#[tokio::test]
async fn expired_keys_are_left_out() {
    let (source, target) = (RedisServer::start().await, RedisServer::start().await);
    fill_lapsed(&source, 300).await;
    source.command(&["SET", "lasting", "value"]).await.ok();
    let service = Setup::new().cluster("main", &[&source.address()], "").start().await;
    let backup = service.clients.take("main", "a").await;
    let result = restore(&service.clients, &backup, at(&target), all(Conflict::Fail)).await;
    assert_eq!((result.keys, result.expired_keys), (1, 300));
    assert_eq!(target.command(&["DBSIZE"]).await.integer(), 1);
}
