//! Goal: what may not be filled is left as it is, and the answer says why and what would do. Method: each refusal once.

use super::{assert_untouched, backed_up, failed, into, over, restore, restored};
use crate::support::answers::fields;
use crate::support::engines;
use crate::support::sentinel::Sentinels;
use crate::support::server::RedisServer;
use crate::support::service::Setup;
use crate::support::{data, until};
use redkeep::pb::own;
use redkeep::pb::own::restore_into_request::{Method, Target};
use tonic::Code;

#[tokio::test]
async fn what_a_target_must_be() {
    let (service, source, backup) = backed_up(RedisServer::builder(), 100, Setup::new()).await;
    let clients = &service.clients;

    let full = RedisServer::start().await;
    data::fill_small_keys(&full, 7).await;
    let (reason, message) = failed(clients, into(&backup, &full)).await;
    assert_eq!(reason, "TARGET_NOT_EMPTY", "{message}");
    assert!(message.contains("holds 7 keys") && message.contains("--overwrite 7") && message.ends_with("the target is untouched"), "{message}");
    let (reason, message) = failed(clients, over(&backup, &full, 6)).await;
    assert!(reason == "TARGET_NOT_EMPTY" && message.contains("at most 6 may go"), "{message}");
    assert_untouched(&full, 7).await;

    let functional = RedisServer::start().await;
    data::load_functions(&functional).await;
    let (reason, message) = failed(clients, into(&backup, &functional)).await;
    assert!(reason == "TARGET_NOT_EMPTY" && message.contains("libraries of functions"), "{message}");

    let primary = RedisServer::start().await;
    let replica = RedisServer::builder().replica_of(&primary).start().await;
    replica.wait_replica_linked().await;
    let (reason, message) = failed(clients, into(&backup, &replica)).await;
    assert!(reason == "TARGET_REFUSED" && message.contains(&format!("a replica of {}", primary.address())), "{message}");
    let (reason, message) = failed(clients, into(&backup, &primary)).await;
    assert!(reason == "TARGET_REFUSED" && message.contains("it has 1 replicas") && message.contains("--allow-replicas"), "{message}");
    assert_eq!(replica.info("master_port").await, primary.port().to_string());

    let node = RedisServer::builder().cluster_node().start().await;
    let (reason, message) = failed(clients, into(&backup, &node)).await;
    assert!(reason == "TARGET_REFUSED" && message.contains("cluster mode") && message.contains("by key"), "{message}");

    let small = RedisServer::builder().config("maxmemory 100kb").start().await;
    let (reason, message) = failed(clients, into(&backup, &small)).await;
    assert!(reason == "TARGET_MEMORY" && message.contains("maxmemory"), "{message}");
    assert_untouched(&small, 0).await;
    drop(source);
    service.stop().await;
}

#[tokio::test]
async fn a_target_that_sentinel_watches() {
    let (service, _source, backup) = backed_up(RedisServer::builder(), 10, Setup::new()).await;
    let target = RedisServer::start().await;
    let _sentinels = Sentinels::start(1, &target, 0).await;
    let subscribed = async || (target.command(&["PUBSUB", "NUMSUB", "__sentinel__:hello"]).await.items()[1].integer() > 0).then_some(());
    until("the sentinel listens", super::SOON, subscribed).await;
    let (reason, message) = failed(&service.clients, into(&backup, &target)).await;
    assert!(reason == "TARGET_REFUSED" && message.contains("Sentinel watches it"), "{message}");
    assert_untouched(&target, 0).await;
    service.stop().await;
}

/// Goal: a server that has fewer databases than the dump is refused.
#[tokio::test]
async fn a_target_with_too_few_databases() {
    let source = RedisServer::start().await;
    data::fill_every_type(&source, 16).await;
    let service = Setup::new().cluster("main", &[&source.address()], "").start().await;
    let backup = service.clients.take("main", "a").await;
    let target = RedisServer::builder().databases(4).start().await;
    let (reason, message) = failed(&service.clients, into(&backup, &target)).await;
    assert!(reason == "TARGET_VERSION" && message.contains("fewer databases than the 16"), "{message}");
    assert_untouched(&target, 0).await;
    service.stop().await;
}

/// Goal: an older server than the dump needs is refused before anything changes, with the least version that would do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_is_too_old() {
    let present = engines::present();
    if !present.contains(&engines::REDIS_6_2) || !present.contains(&engines::REDIS_8_0) {
        return;
    }
    let (service, _source, backup) = backed_up(engines::REDIS_8_0.builder(), 100, Setup::new()).await;
    let target = engines::REDIS_6_2.builder().start().await;
    data::fill_small_keys(&target, 5).await;
    let (reason, message) = failed(&service.clients, over(&backup, &target, 5)).await;
    assert_eq!(reason, "TARGET_VERSION", "{message}");
    assert!(message.contains("it is redis 6.2") && message.contains("needs Redis 7.4 or later") && message.ends_with("untouched"), "{message}");
    assert_untouched(&target, 5).await;
    service.stop().await;
}

/// Goal: what the request itself has wrong is refused at once.
#[tokio::test]
async fn what_a_request_must_be() {
    let (service, _source, backup) = backed_up(RedisServer::builder(), 10, Setup::new()).await;
    let clients = &service.clients;
    let target = RedisServer::start().await;
    let request = into(&backup, &target);
    let with = |target: Option<Target>| own::RestoreIntoRequest { target, ..request.clone() };
    for (asked, field) in [
        (with(None), "target"),
        (with(Some(Target::Address("10.0.0.1:6379".into()))), "address"),
        (with(Some(Target::Address("redis.example:6379".into()))), "address"),
        (with(Some(Target::Address("unix:/tmp/s".into()))), "address"),
        (with(Some(Target::Host(target.address()))), "host"),
        (own::RestoreIntoRequest { method: Method::Feed.into(), ..with(Some(Target::ClusterId("main".into()))) }, "method"),
        (own::RestoreIntoRequest { overwrite_keys: 5, ..request.clone() }, "overwrite_keys"),
        (own::RestoreIntoRequest { shard_name: "shard9".into(), ..request.clone() }, "shard_name"),
        (own::RestoreIntoRequest { tls_ca: "nonsense".into(), ..request.clone() }, "tls_ca"),
        (own::RestoreIntoRequest { method: Method::Feed.into(), keys: Some(Default::default()), ..request.clone() }, "keys"),
    ] {
        assert_eq!(fields(restore(clients, asked.clone()).await), [field], "{asked:?}");
    }
    let unknown = with(Some(Target::Host(format!("nobody/{}", target.address()))));
    assert_eq!(restore(clients, unknown).await.unwrap_err().code(), Code::NotFound);
    let keyless = own::RestoreIntoRequest { credentials: Some(own::Credentials { username: String::new(), password: "x".into() }), ..request.clone() };
    let refused = restore(clients, keyless).await.unwrap_err();
    assert!(refused.code() == Code::FailedPrecondition && refused.message().contains("key_file"), "{refused:?}");
    assert_untouched(&target, 0).await;
    service.stop().await;
}

/// Goal: one restore at a time into one server, and a backup that is read stays. Method: the first is held up by a server that
/// stands still.
#[tokio::test]
async fn one_at_a_time_into_one_server() {
    let (service, _source, backup) = backed_up(RedisServer::builder(), 10, Setup::new()).await;
    let clients = &service.clients;
    let target = RedisServer::start().await;
    target.pause();
    let first = restore(clients, into(&backup, &target)).await.unwrap();
    let refused = restore(clients, into(&backup, &target)).await.unwrap_err();
    assert_eq!(refused.message(), format!("conflicting operation \"{}\" detected", first.id));
    let deletion = clients.backups.clone().delete(own::DeleteBackupRequest { backup_id: backup.id.clone() }).await.unwrap_err();
    assert_eq!(deletion.message(), format!("conflicting operation \"{}\" detected", first.id));
    target.resume();
    assert!(crate::support::service::error_of(&clients.ended(&first.id, super::SOON).await).is_none());
    restored(clients, over(&backup, &target, 10)).await;
    service.stop().await;
}
