//! Goal: a call that cannot be carried out is refused at once, and says which field or which operation is in the way.

use super::{UNKNOWN, stalling, willing};
use crate::support::answers::{bare, fields};
use crate::support::service::{Setup, error_of};
use redkeep::pb::{managed, operation as wire, own};
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::StatusExt;

#[tokio::test]
async fn what_nobody_knows_is_not_found() {
    let service = Setup::new().start().await;
    let mut clients = service.clients.clone();
    let (cluster_id, backup_id, operation_id) = ("nobody".to_owned(), UNKNOWN.to_owned(), UNKNOWN.to_owned());
    let answers: [(&str, Result<(), Status>); 16] = [
        ("Cluster.Get", clients.clusters.get(managed::GetClusterRequest { cluster_id: cluster_id.clone() }).await.map(drop)),
        ("Cluster.Backup", clients.clusters.backup(managed::BackupClusterRequest { cluster_id: cluster_id.clone() }).await.map(drop)),
        ("ListHosts", clients.clusters.list_hosts(managed::ListClusterHostsRequest { cluster_id: cluster_id.clone(), ..Default::default() }).await.map(drop)),
        (
            "ListShards",
            clients.clusters.list_shards(managed::ListClusterShardsRequest { cluster_id: cluster_id.clone(), ..Default::default() }).await.map(drop),
        ),
        (
            "GetShard",
            clients.clusters.get_shard(managed::GetClusterShardRequest { cluster_id: cluster_id.clone(), shard_name: "shard1".into() }).await.map(drop),
        ),
        (
            "ListOperations",
            clients.clusters.list_operations(managed::ListClusterOperationsRequest { cluster_id: cluster_id.clone(), ..Default::default() }).await.map(drop),
        ),
        (
            "ListBackups",
            clients.clusters.list_backups(managed::ListClusterBackupsRequest { cluster_id: cluster_id.clone(), ..Default::default() }).await.map(drop),
        ),
        ("CheckCluster", clients.fleet.check_cluster(own::CheckClusterRequest { cluster_id }).await.map(drop)),
        ("Create", clients.create("nobody", "").await.map(drop)),
        ("managed Backup.Get", clients.managed_backups.get(managed::GetBackupRequest { backup_id: backup_id.clone() }).await.map(drop)),
        ("managed Backup.Delete", clients.managed_backups.delete(managed::DeleteBackupRequest { backup_id: backup_id.clone() }).await.map(drop)),
        ("Backup.Get", clients.backups.get(own::GetBackupRequest { backup_id: backup_id.clone() }).await.map(drop)),
        ("Backup.Delete", clients.backups.delete(own::DeleteBackupRequest { backup_id: "no identifier".into() }).await.map(drop)),
        ("Backup.Update", clients.backups.update(own::UpdateBackupRequest { backup_id, name: "new".into(), ..Default::default() }).await.map(drop)),
        ("Operation.Get", clients.operations.get(wire::GetOperationRequest { operation_id: operation_id.clone() }).await.map(drop)),
        ("Wait", clients.own_operations.wait(own::WaitOperationRequest { operation_id, ..Default::default() }).await.map(drop)),
    ];
    for (call, answer) in answers {
        let status = answer.expect_err(call);
        assert_eq!(status.code(), Code::NotFound, "{call}: {status:?}");
        assert!(status.message().ends_with("not found"), "{call}: {status:?}");
        assert!(status.get_error_details().resource_info().is_some(), "{call}: {status:?}");
    }
    service.stop().await;
}

#[tokio::test]
async fn identifiers_have_a_length() {
    let service = Setup::new().start().await;
    let mut clients = service.clients.clone();
    for cluster_id in ["a".repeat(51), String::new()] {
        for named in [
            fields(clients.clusters.get(managed::GetClusterRequest { cluster_id: cluster_id.clone() }).await),
            fields(clients.clusters.backup(managed::BackupClusterRequest { cluster_id: cluster_id.clone() }).await),
            fields(clients.clusters.list_hosts(managed::ListClusterHostsRequest { cluster_id: cluster_id.clone(), ..Default::default() }).await),
            fields(clients.fleet.check_cluster(own::CheckClusterRequest { cluster_id: cluster_id.clone() }).await),
            fields(clients.backups.create(own::CreateBackupRequest { cluster_id: cluster_id.clone(), ..Default::default() }).await),
        ] {
            assert_eq!(named, ["cluster_id"], "{cluster_id:?}");
        }
    }
    assert_eq!(fields(clients.managed_backups.get(managed::GetBackupRequest::default()).await), ["backup_id"]);
    assert_eq!(fields(clients.backups.get(own::GetBackupRequest { backup_id: "b".repeat(101) }).await), ["backup_id"]);
    assert_eq!(fields(clients.operations.get(wire::GetOperationRequest::default()).await), ["operation_id"]);
    assert_eq!(fields(clients.managed_backups.list(managed::ListBackupsRequest::default()).await), ["folder_id"]);
    let two = own::CreateBackupRequest { cluster_id: String::new(), name: "a/b".into(), ..Default::default() };
    assert_eq!(fields(clients.backups.create(two).await), ["cluster_id", "name"], "every fault is told at once");
    service.stop().await;
}

#[tokio::test]
async fn pages_have_a_size() {
    let (_source, service) = willing().await;
    let mut clients = service.clients.clone();
    let (cluster_id, folder_id) = ("main".to_owned(), "default".to_owned());
    for page_size in [1001, -1] {
        for named in [
            fields(clients.clusters.list(managed::ListClustersRequest { folder_id: folder_id.clone(), page_size, ..Default::default() }).await),
            fields(clients.clusters.list_hosts(managed::ListClusterHostsRequest { cluster_id: cluster_id.clone(), page_size, ..Default::default() }).await),
            fields(clients.clusters.list_backups(managed::ListClusterBackupsRequest { cluster_id: cluster_id.clone(), page_size, ..Default::default() }).await),
            fields(
                clients
                    .clusters
                    .list_operations(managed::ListClusterOperationsRequest { cluster_id: cluster_id.clone(), page_size, ..Default::default() })
                    .await,
            ),
            fields(clients.clusters.list_shards(managed::ListClusterShardsRequest { cluster_id: cluster_id.clone(), page_size, ..Default::default() }).await),
            fields(clients.managed_backups.list(managed::ListBackupsRequest { folder_id: folder_id.clone(), page_size, ..Default::default() }).await),
            fields(clients.backups.list(own::ListBackupsRequest { page_size, ..Default::default() }).await),
            fields(clients.own_operations.list(own::ListOperationsRequest { page_size, ..Default::default() }).await),
        ] {
            assert_eq!(named, ["page_size"], "{page_size}");
        }
    }
    service.stop().await;
}

#[tokio::test]
async fn a_token_belongs_to_its_list_and_filter() {
    let (_source, service) = willing().await;
    let mut clients = service.clients.clone();
    clients.take("main", "one").await;
    clients.take("main", "two").await;
    let list = |cluster_id: &str, page_token: &str| own::ListBackupsRequest {
        cluster_id: cluster_id.into(),
        page_size: 1,
        page_token: page_token.into(),
        ..Default::default()
    };
    let token = bare(clients.backups.list(list("main", "")).await).unwrap().next_page_token;
    assert!((1..=100).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{token}");
    assert_eq!(fields(clients.backups.list(list("", &token)).await), ["page_token"], "another filter");
    assert_eq!(fields(clients.backups.list(list("main", "nonsense")).await), ["page_token"]);
    assert_eq!(fields(clients.backups.list(list("main", &"A".repeat(101))).await), ["page_token"]);
    let other = own::ListOperationsRequest { cluster_id: "main".into(), page_size: 1, page_token: token, ..Default::default() };
    assert_eq!(fields(clients.own_operations.list(other).await), ["page_token"], "another list");
    service.stop().await;
}

#[tokio::test]
async fn one_backup_of_a_cluster_at_a_time() {
    // Goal: a second backup is refused with the text and the details that known clients look for. Method: the source hangs.
    let (source, service) = stalling().await;
    let mut clients = service.clients.clone();
    let first = clients.create("main", "first").await.unwrap();
    let by_us = clients.create("main", "second").await.unwrap_err();
    let by_them = clients.clusters.backup(managed::BackupClusterRequest { cluster_id: "main".into() }).await.unwrap_err();
    for refused in [by_us, by_them] {
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert_eq!(refused.message(), format!("conflicting operation \"{}\" detected", first.id));
        let details = refused.get_error_details();
        assert!(!details.request_info().unwrap().request_id.is_empty());
        let violations = &details.precondition_failure().unwrap().violations;
        assert_eq!(violations.iter().map(|violation| violation.subject.as_str()).collect::<Vec<_>>(), [first.id.as_str()]);
    }
    // What the refusal names can be waited for; then the cluster and the refused name are free.
    source.wait_for(|counts| counts.psyncs == 1).await;
    clients.operations.cancel(wire::CancelOperationRequest { operation_id: first.id.clone() }).await.unwrap();
    assert!(error_of(&clients.ended(&first.id, Duration::from_secs(10)).await).is_some());
    clients.create("main", "second").await.unwrap();
    service.stop().await;
}

#[tokio::test]
async fn a_name_is_taken_once_in_a_folder() {
    let (_source, service) = willing().await;
    let clients = service.clients.clone();
    let one = clients.take("main", "one").await;
    let two = clients.take("main", "two").await;
    let taken = clients.create("main", "one").await.unwrap_err();
    assert_eq!((taken.code(), taken.message().contains("\"one\"")), (Code::AlreadyExists, true), "{taken:?}");
    let rename = |backup_id: &str, name: &str| own::UpdateBackupRequest {
        backup_id: backup_id.into(),
        update_mask: Some(prost_types::FieldMask { paths: vec!["name".into()] }),
        name: name.into(),
        ..Default::default()
    };
    assert_eq!(clients.backups.clone().update(rename(&two.id, "one")).await.unwrap_err().code(), Code::AlreadyExists);
    let same = bare(clients.backups.clone().update(rename(&one.id, "one")).await).expect("its own name is free for it");
    assert!(error_of(&clients.ended(&same.id, Duration::from_secs(10)).await).is_none());
    service.stop().await;
}
