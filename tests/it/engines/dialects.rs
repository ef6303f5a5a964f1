//! Goal: a dump is in the dialect that holds everything, unless a portable one is asked for; and what a portable one cannot hold
//! is told. Method: Valkey 9, which writes the dialect of the version that it hears, and the servers that are to load it.

use super::fails;
use crate::content::proof::decode;
use crate::support::engines::{self, Engine, VALKEY_9_1};
use crate::support::load;
use crate::support::server::{RedisServer, Transfer};
use crate::support::service::{Service, Setup};
use redkeep::artifacts::manifest::Manifest;
use redkeep::pb::own;
use redkeep::pb::own::finding::Severity;
use std::path::PathBuf;

async fn service_of(redis: &RedisServer) -> Service {
    let address = redis.address();
    Setup::new().cluster_apart("own", &address, "").cluster_apart("portable", &address, "portable_dump = true").start().await
}

/// Takes a backup; tells the first bytes of its dump and where that is.
async fn dump(service: &Service, cluster: &str, name: &str) -> (String, PathBuf) {
    let backup = service.clients.take(cluster, name).await;
    let folder = service.setup.artifact_root().join(&backup.path);
    let manifest: Manifest = serde_json::from_slice(&std::fs::read(folder.join("manifest.json")).expect("there is a manifest")).expect("it can be read");
    let rdb = service.setup.folder().join(format!("{name}.rdb"));
    decode(&folder, &manifest.shards[0].segments, &rdb);
    let head = std::fs::read(&rdb).expect("the dump is there")[..9].to_vec();
    (String::from_utf8(head).expect("a head is text"), rdb)
}

fn is_there(engine: Engine) -> bool {
    engines::present().contains(&engine)
}

#[tokio::test]
async fn a_portable_dump_is_loaded_by_others() {
    if !is_there(VALKEY_9_1) {
        return;
    }
    for transfer in [Transfer::Diskless, Transfer::Disk] {
        let redis = VALKEY_9_1.builder().transfer(transfer).start().await;
        redis.command(&["SET", "key", "value"]).await.ok();
        let service = service_of(&redis).await;
        let (own, _) = dump(&service, "own", "native").await;
        let (portable, rdb) = dump(&service, "portable", "for-others").await;
        assert_eq!((&*own, &*portable), ("VALKEY080", "REDIS0011"));
        for engine in [engines::VALKEY_8_0, engines::REDIS_8_0] {
            let loaded = load::load_rdb_with(engine.builder(), &rdb).await.unwrap_or_else(|error| panic!("{}: {error}", engine.title()));
            assert_eq!(loaded.command(&["GET", "key"]).await.text(), "value", "{}", engine.title());
        }
        service.stop().await;
    }
}

#[tokio::test]
async fn what_a_portable_dump_cannot_hold_is_told_before_the_fork() {
    if !is_there(VALKEY_9_1) {
        return;
    }
    let redis = VALKEY_9_1.builder().start().await;
    redis.command(&["HSET", "hash", "stays", "1", "goes", "2"]).await;
    redis.command(&["HPEXPIREAT", "hash", "4102444800001", "FIELDS", "1", "goes"]).await;
    let service = service_of(&redis).await;
    let (_, reason, message) = fails(&service.clients, "portable").await;
    assert_eq!(reason, "SOURCE_VERSION", "{message}");
    assert!(message.contains("in 1 keys, and no portable dump can hold them (take back portable_dump"), "{message}");
    let answer = service.clients.fleet.clone().check_cluster(own::CheckClusterRequest { cluster_id: "portable".into() }).await.expect("it is checked");
    let findings = answer.into_inner().findings;
    assert!(findings.iter().any(|finding| finding.severity() == Severity::Error && finding.remedy.contains("portable_dump")), "{findings:#?}");
    assert_eq!(redis.info("sync_full").await, "0");
    let (own, rdb) = dump(&service, "own", "native").await;
    assert_eq!(own, "VALKEY080");
    let loaded = load::load_rdb_with(VALKEY_9_1.builder(), &rdb).await.expect("it is loaded");
    let time = loaded.command(&["HPEXPIRETIME", "hash", "FIELDS", "1", "goes"]).await;
    assert_eq!(time.items()[0].integer(), 4_102_444_800_001);
    service.stop().await;
}
