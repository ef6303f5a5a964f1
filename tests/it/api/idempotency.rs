//! Goal: a call with a key can be repeated: one operation, whatever happens meanwhile.

use super::{setup, willing};
use crate::support::answers::{assert_runs, bare, fields, keyed, response};
use crate::support::scripted::ScriptedRedis;
use crate::support::service::OPERATION;
use redkeep::pb::{managed, own};
use std::collections::BTreeSet;
use tonic::Code;

fn create(name: &str) -> own::CreateBackupRequest {
    own::CreateBackupRequest { cluster_id: "main".into(), name: name.into(), ..Default::default() }
}

#[tokio::test]
async fn the_same_key_gives_the_same_operation() {
    // Method: the source waits, so that the first operation stands in the way of every other one.
    let (source, gate) = ScriptedRedis::gated().await;
    let service = setup(&source).start().await;
    let mut clients = service.clients.clone();
    let first = bare(clients.backups.create(keyed(create("first"), "key")).await).unwrap();
    assert_eq!(clients.create("main", "other").await.unwrap_err().code(), Code::FailedPrecondition);

    let again = bare(clients.backups.create(keyed(create("first"), "key")).await).expect("the key is looked at before any conflict");
    assert_eq!(again.id, first.id);
    assert_runs(&again);
    assert_eq!(fields(clients.backups.create(keyed(create("other"), "key")).await), ["idempotency-key"]);
    let other_call = managed::BackupClusterRequest { cluster_id: "main".into() };
    assert_eq!(fields(clients.clusters.backup(keyed(other_call, "key")).await), ["idempotency-key"], "another method is another request");

    gate.notify_one();
    clients.ended(&first.id, OPERATION).await;
    let late = bare(clients.backups.create(keyed(create("first"), "key")).await).expect("the name is taken, and the key comes first");
    assert_eq!(late.id, first.id);
    assert_eq!(response::<own::Backup>(&late).name, "first");
    assert_eq!(clients.all_backups().await.len(), 1);
    service.stop().await;
}

#[tokio::test]
async fn a_hundred_calls_with_one_key_are_one_backup() {
    let (source, service) = willing().await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let mut client = service.clients.clusters.clone();
        calls.spawn(async move { bare(client.backup(keyed(managed::BackupClusterRequest { cluster_id: "main".into() }, "race")).await).unwrap().id });
    }
    let ids: BTreeSet<String> = calls.join_all().await.into_iter().collect();
    assert_eq!(ids.len(), 1);
    let clients = &service.clients;
    clients.ended(ids.first().unwrap(), OPERATION).await;
    assert_eq!(clients.all_backups().await.len(), 1);
    let listed = bare(clients.own_operations.clone().list(own::ListOperationsRequest::default()).await).unwrap();
    assert_eq!(listed.operations.len(), 1);
    assert_eq!(source.counts().psyncs, 1);
    service.stop().await;
}

#[tokio::test]
async fn a_key_survives_a_restart() {
    let (_source, service) = willing().await;
    let first = bare(service.clients.backups.clone().create(keyed(create("first"), "key")).await).unwrap();
    service.clients.ended(&first.id, OPERATION).await;
    let service = service.stop().await.start().await;
    let again = bare(service.clients.backups.clone().create(keyed(create("first"), "key")).await).unwrap();
    assert_eq!((again.id, again.done), (first.id, true));
    service.stop().await;
}

#[tokio::test]
async fn a_key_is_1_to_128_visible_characters() {
    let (_source, service) = willing().await;
    let mut clients = service.clients.clone();
    for key in ["", "a key", "tab\tkey", &"k".repeat(129)] {
        assert_eq!(fields(clients.backups.create(keyed(create("n"), key)).await), ["idempotency-key"], "{key:?}");
        let delete = own::DeleteBackupRequest { backup_id: super::UNKNOWN.into() };
        assert_eq!(fields(clients.backups.delete(keyed(delete, key)).await), ["idempotency-key"], "{key:?}");
    }
    assert!(clients.all_backups().await.is_empty());
    clients.backups.create(keyed(create("n"), &"~".repeat(128))).await.unwrap();
    service.stop().await;
}
