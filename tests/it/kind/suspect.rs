//! Is the source still what it was?

use crate::support::server::RedisServer;
use crate::support::service::{Clients, OPERATION, Service, Setup, error_of};
use redkeep::pb::own;
use tonic::Code;

/// Keys of the sources.
const KEYS: u64 = 3000;

/// Adds keys whose names begin with these words.
async fn populate(server: &RedisServer, keys: u64, words: &str) {
    let reply = server.command(&["DEBUG", "POPULATE", &keys.to_string(), words]).await;
    assert!(reply.error().is_none(), "{reply:?}");
}

/// A source with keys, and a service that has a backup of it.
async fn backed_up() -> (RedisServer, Service) {
    let server = RedisServer::start().await;
    populate(&server, KEYS, "order").await;
    let service = Setup::new().cluster("main", &[&server.address()], "").start().await;
    let first = service.clients.take("main", "first").await;
    assert_eq!(first.suspicion, None);
    (server, service)
}

fn reasons(backup: &own::Backup) -> Vec<&str> {
    backup.suspicion.iter().flat_map(|suspicion| &suspicion.reasons).map(String::as_str).collect()
}

async fn clear(clients: &Clients, id: &str) -> Result<own::Backup, tonic::Status> {
    let request = own::UpdateBackupRequest { backup_id: id.to_owned(), clear_suspect: true, ..Default::default() };
    let operation = clients.backups.clone().update(request).await?.into_inner();
    let ended = clients.ended(&operation.id, OPERATION).await;
    assert!(error_of(&ended).is_none(), "{ended:#?}");
    clients.backup(id).await
}

#[tokio::test]
async fn a_source_that_restarted_empty_is_suspect_until_a_person_says_otherwise() {
    let (mut server, service) = backed_up().await;
    let clients = &service.clients;
    server.restart().await;
    let empty = clients.take("main", "second").await;
    assert_eq!(reasons(&empty), ["the source is empty; in backup first it had 3000 keys"]);
    let suspicion = empty.suspicion.clone().expect("it is suspect");
    assert!(suspicion.raised_at.is_some() && suspicion.cleared_at.is_none() && suspicion.cleared_by.is_empty());
    // It is not what the next one is compared with.
    assert_eq!(reasons(&clients.take("main", "third").await), ["the source is empty; in backup first it had 3000 keys"]);

    let named = own::UpdateBackupRequest { backup_id: empty.id.clone(), name: "renamed".into(), ..Default::default() };
    let named = own::UpdateBackupRequest { update_mask: Some(prost_types::FieldMask { paths: vec!["name".into()] }), ..named };
    let operation = clients.backups.clone().update(named).await.expect("a change is accepted").into_inner();
    clients.ended(&operation.id, OPERATION).await;
    assert!(clients.backup(&empty.id).await.expect("it is there").suspicion.expect("it stands").cleared_at.is_none());

    let cleared = clear(clients, &empty.id).await.expect("it is cleared");
    assert_eq!(cleared.name, "renamed", "nothing else changed");
    let suspicion = cleared.suspicion.expect("what it was stays");
    assert_eq!((suspicion.cleared_by.as_str(), suspicion.cleared_at.is_some(), suspicion.reasons.len()), ("anonymous", true, 1));
    assert_eq!(clients.take("main", "fourth").await.suspicion, None);
    for sound in [&empty.id, &clients.take("main", "fifth").await.id] {
        let refused = clear(clients, sound).await.expect_err("there is nothing to clear");
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains("no suspicion"), "{refused:?}");
    }

    // What was decided lies in storage as well.
    let root = service.setup.artifact_root();
    let read = |path: String| -> serde_json::Value { serde_json::from_slice(&std::fs::read(root.join(path)).expect("a file")).expect("JSON") };
    let manifest = read(format!("{}/manifest.json", empty.path));
    assert_eq!(manifest["suspicion"]["reasons"][0], "the source is empty; in backup first it had 3000 keys");
    let facts = std::fs::read_dir(root.join(&empty.path).parent().expect("a folder").join("facts")).expect("facts").count();
    let facts = read(format!("default/main/{}/facts/{facts}.json", empty.id));
    assert_eq!(facts["suspicion"]["cleared"]["by"], "anonymous");
    let told = std::fs::read_to_string(root.join(format!("{}/manifest.json", empty.path))).expect("a file");
    assert!(!told.contains("sketch"), "no hash of a key lies beside an artifact");
    service.stop().await;
}

#[tokio::test]
async fn a_source_that_was_flushed_is_suspect() {
    let (server, service) = backed_up().await;
    server.command(&["FLUSHALL"]).await;
    assert_eq!(reasons(&service.clients.take("main", "flushed").await), ["the source is empty; in backup first it had 3000 keys"]);
    populate(&server, KEYS / 3, "order").await;
    let third = service.clients.take("main", "third").await;
    assert_eq!(reasons(&third), ["the source has 1000 keys; in backup first it had 3000, more than twice as many"]);
    populate(&server, KEYS / 2, "order").await;
    assert_eq!(service.clients.take("main", "half").await.suspicion, None);
    service.stop().await;
}

#[tokio::test]
async fn another_server_behind_the_old_address_is_suspect() {
    let (mut server, service) = backed_up().await;
    server.restart().await;
    populate(&server, 2 * KEYS, "session").await;
    let other = service.clients.take("main", "other").await;
    let told = reasons(&other);
    assert!(
        matches!(told.as_slice(), [only] if only.starts_with("the source has another run id and another history") && only.contains("only 0 are there")),
        "{told:?}"
    );
    service.stop().await;
}

#[tokio::test]
async fn a_server_that_was_filled_anew_with_the_same_keys_is_not() {
    let (mut server, service) = backed_up().await;
    server.restart().await;
    populate(&server, KEYS, "order").await;
    populate(&server, KEYS, "session").await;
    assert_eq!(service.clients.take("main", "again").await.suspicion, None);
    service.stop().await;
}

#[tokio::test]
async fn a_server_that_loaded_its_dump_is_not() {
    let (mut server, service) = backed_up().await;
    // The child of the snapshot ends a moment after its last byte.
    server.wait_info("rdb_bgsave_in_progress", |value| value == "0").await;
    let saved = server.command(&["SAVE"]).await;
    assert!(saved.error().is_none(), "{saved:?}");
    server.restart().await;
    assert_eq!(server.command(&["DBSIZE"]).await, crate::support::resp::Value::Integer(KEYS as i64));
    assert_eq!(service.clients.take("main", "again").await.suspicion, None);
    service.stop().await;
}

#[tokio::test]
async fn a_failover_is_not() {
    let (mut primary, service) = backed_up().await;
    let replica = RedisServer::builder().replica_of(&primary).start().await;
    replica.wait_replica_linked().await;
    replica.command(&["REPLICAOF", "NO", "ONE"]).await;
    primary.kill();
    // Even all keys may be others by then: the history before tells that it is the same.
    replica.command(&["FLUSHALL"]).await;
    populate(&replica, KEYS, "session").await;
    let service = service.stop().await.without_clusters().cluster("main", &[&replica.address()], "").start().await;
    let second = service.clients.take("main", "second").await;
    assert_eq!((second.suspicion, second.shards[0].source_host.as_str()), (None, replica.address().as_str()));
    service.stop().await;
}
