//! Goal: on every engine, what is restored equals what was there, and the target is as it was set. Method: the real service and
//! servers, of which the content is compared; TLS, passwords and replicas on the side.

use super::{facts, into, over, restored};
use crate::adopt::tls::{authority, issue};
use crate::support::engines;
use crate::support::server::{Builder, RedisServer};
use crate::support::service::{Service, Setup};
use crate::support::{compare, data};
use redkeep::pb::own;
use redkeep::pb::own::restore_into_request::Target;
use std::net::TcpListener;

/// Fills a server of this kind, backs it up, restores it into another, and compares.
async fn round_trip(builder: impl Fn() -> Builder) {
    let source = builder().start().await;
    data::fill_every_type(&source, 3).await;
    let service = Setup::new().cluster("main", &[&source.address()], "").start().await;
    let backup = service.clients.take("main", "a").await;
    let target = builder().start().await;
    let result = restored(&service.clients, into(&backup, &target)).await;
    let keys: i64 = backup.shards.iter().map(|shard| shard.keys).sum();
    assert_eq!((result.keys, result.expired_keys, result.host_name), (keys, 0, target.address()));
    assert_eq!((result.bytes, result.functions, result.types), (backup.size_bytes, backup.shards[0].functions, backup.shards[0].types.clone()));
    compare::assert_same_content(&source, &target).await;
    let (role, _, diskless) = facts(&target).await;
    assert_eq!((role.as_str(), diskless.as_str()), ("master", "disabled"));
    assert_eq!(target.command(&["SET", "written", "afterwards"]).await.text(), "OK");
    service.stop().await;
}

#[tokio::test]
async fn every_type_into_an_empty_server() {
    round_trip(RedisServer::builder).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_on_every_engine() {
    for engine in engines::present() {
        eprintln!("on {}", engine.title());
        round_trip(|| engine.builder()).await;
    }
}

/// Goal: what was agreed to go goes, whatever it was, and the rest comes.
#[tokio::test]
async fn a_server_that_is_overwritten() {
    let source = RedisServer::start().await;
    data::fill_every_type(&source, 2).await;
    let service = Setup::new().cluster("main", &[&source.address()], "").start().await;
    let backup = service.clients.take("main", "a").await;
    // One with room for both, one that falls back to its disk.
    for settings in ["maxmemory 0", "maxmemory 40mb"] {
        let target = RedisServer::builder().config(settings).start().await;
        data::fill_small_keys(&target, 500).await;
        if settings.ends_with("mb") {
            data::big_string(&target, "big", 25 << 20).await;
        }
        let held = target.command(&["DBSIZE"]).await.integer();
        restored(&service.clients, over(&backup, &target, held)).await;
        compare::assert_same_content(&source, &target).await;
        assert_eq!(facts(&target).await.2, "disabled");
    }
    service.stop().await;
}

/// Goal: keys that have expired since are told, and are not there. Method: they expire between the backup and the restore.
#[tokio::test]
async fn keys_that_have_expired_since() {
    let source = RedisServer::start().await;
    data::fill_small_keys(&source, 100).await;
    data::fill_lapsed(&source, 50).await;
    let replica = RedisServer::builder().replica_of(&source).start().await;
    replica.wait_replica_linked().await;
    let service = Setup::new().cluster("main", &[&source.address()], "").start().await;
    let backup = service.clients.take("main", "a").await;
    assert_eq!(backup.shards[0].keys, 150);
    let target = RedisServer::start().await;
    let result = restored(&service.clients, into(&backup, &target)).await;
    assert_eq!(result.keys + result.expired_keys, 150, "{result:?}");
    let live = async || (target.command(&["DBSIZE"]).await.integer() == 100).then_some(());
    crate::support::until("the expired are gone", super::SOON, live).await;
    service.stop().await;
}

/// Goal: a host of a known cluster is a target by its name, with the cluster's own credentials, and its password for its
/// primary goes nowhere. Method: a primary with a password that sends another one to us.
#[tokio::test]
async fn a_host_of_a_known_cluster() {
    let source = RedisServer::start().await;
    data::fill_small_keys(&source, 1000).await;
    let target = RedisServer::builder().password("its-own-password").config("masterauth sent-to-the-feed").start().await;
    let setup = Setup::new().cluster("main", &[&source.address()], "");
    std::fs::write(setup.folder().join("password"), "its-own-password\n").unwrap();
    let service = setup.cluster("other", &[&target.address()], "password_file = \"password\"").start().await;
    let backup = service.clients.take("main", "a").await;
    let host = Some(Target::Host(format!("other/{}", target.address())));
    let request = own::RestoreIntoRequest { backup_id: backup.id.clone(), target: host, ..Default::default() };
    assert_eq!(restored(&service.clients, request.clone()).await.keys, 1000);
    compare::assert_same_content(&source, &target).await;
    let gone = own::RestoreIntoRequest { target: Some(Target::Host("other/127.0.0.1:1".to_owned())), ..request };
    assert_eq!(super::failed(&service.clients, gone).await.0, "GONE");
    service.stop().await;
}

/// Goal: replicas of the target have the backup, too, once that is agreed to.
#[tokio::test]
async fn a_server_with_replicas() {
    let (service, source, backup) = super::backed_up(RedisServer::builder(), 1000, Setup::new()).await;
    let target = RedisServer::start().await;
    let replica = RedisServer::builder().replica_of(&target).start().await;
    replica.wait_replica_linked().await;
    restored(&service.clients, own::RestoreIntoRequest { allow_replicas: true, ..into(&backup, &target) }).await;
    compare::assert_same_content(&source, &target).await;
    replica.wait_replica_linked().await;
    let follows = async || (replica.command(&["DBSIZE"]).await.integer() == 1000).then_some(());
    crate::support::until("the replica has it", super::SOON, follows).await;
    service.stop().await;
}

/// A target that speaks TLS only, also to its primary.
async fn secured(service: &Setup) -> (RedisServer, String, String) {
    let folder = service.folder();
    let ours = authority("ours");
    let ca = folder.join("ca.pem");
    std::fs::write(&ca, ours.pem()).unwrap();
    let (cert, key) = issue(&ours, &["127.0.0.1", "localhost"], folder, "server");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut builder = RedisServer::builder().password("secret").config("masterauth secret").config("tls-replication yes").config("tls-auth-clients no");
    for line in [
        format!("tls-port {port}"),
        format!("tls-ca-cert-file {}", ca.display()),
        format!("tls-cert-file {}", cert.display()),
        format!("tls-key-file {}", key.display()),
    ] {
        builder = builder.config(&line);
    }
    (builder.start().await, format!("127.0.0.1:{port}"), ours.pem())
}

async fn over_tls(service: &Service, source: &RedisServer, target: &RedisServer, address: &str, ca: &str) {
    let backup = service.clients.take("main", "a").await;
    let credentials = Some(own::Credentials { username: String::new(), password: "secret".to_owned() });
    let request = own::RestoreIntoRequest {
        backup_id: backup.id.clone(),
        target: Some(Target::Address(address.to_owned())),
        credentials,
        tls_ca: ca.to_owned(),
        ..Default::default()
    };
    restored(&service.clients, request).await;
    compare::assert_same_content(source, target).await;
}

/// Goal: a target that replicates over TLS is fed over TLS, and refused where the feed cannot.
#[tokio::test]
async fn a_target_that_replicates_over_tls() {
    let source = RedisServer::start().await;
    data::fill_small_keys(&source, 1000).await;
    let setup = Setup::new().secrets("key").cluster("main", &[&source.address()], "");
    let (target, address, ca) = secured(&setup).await;
    let service = setup.start().await;
    let backup = service.clients.take("main", "plain").await;
    let plain =
        own::RestoreIntoRequest { credentials: Some(own::Credentials { username: String::new(), password: "secret".to_owned() }), ..into(&backup, &target) };
    let (reason, message) = super::failed(&service.clients, plain).await;
    assert_eq!(reason, "TARGET_REFUSED", "{message}");
    assert!(message.contains("feed_tls") && message.ends_with("the target is untouched"), "{message}");
    let setup = service.stop().await;
    let service = setup.section("[restore]\nfeed_tls = { cert = \"server.pem\", key = \"server-key.pem\" }").start().await;
    over_tls(&service, &source, &target, &address, &ca).await;
    service.stop().await;
}
