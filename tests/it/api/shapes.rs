//! Goal: operations and backups have the shape that each schema promises, from the first answer to the end.

use super::{setup, willing};
use crate::support::answers::{assert_runs, bare, metadata, response};
use crate::support::scripted::ScriptedRedis;
use crate::support::service::{OPERATION, Setup, error_of, reason_of};
use prost::Message;
use prost_reflect::DynamicMessage;
use redkeep::pb::{managed, own};
use tonic::Code;

#[tokio::test]
async fn a_backup_through_the_managed_schema() {
    let (source, gate) = ScriptedRedis::gated().await;
    let service = setup(&source).start().await;
    let mut clients = service.clients.clone();
    let started = bare(clients.clusters.backup(managed::BackupClusterRequest { cluster_id: "main".into() }).await).unwrap();
    assert_runs(&started);
    assert!(started.created_at.is_some() && started.modified_at.is_some() && !started.description.is_empty());
    assert_eq!(started.created_by, "anonymous");
    let about: managed::BackupClusterMetadata = metadata(&started);
    assert_eq!(about.cluster_id, "main");
    assert!(about.progress.is_some(), "there is progress at once");
    // Old clients skip our fields, because their numbers are beyond the schema's own.
    let descriptor = redkeep::pb::pool().get_message_by_name("yandex.cloud.mdb.redis.v1.BackupClusterMetadata").unwrap();
    let raw = DynamicMessage::decode(descriptor, about.encode_to_vec().as_slice()).unwrap();
    assert_eq!(raw.get_field_by_number(10001).unwrap().as_str(), Some(about.backup_id.as_str()));
    assert!(raw.has_field_by_number(10002));

    // The managed schema does not know the backup yet, ours does.
    source.wait_for(|counts| counts.psyncs == 1).await;
    assert_runs(&clients.operation(&started.id).await);
    let get = managed::GetBackupRequest { backup_id: about.backup_id.clone() };
    let list = managed::ListBackupsRequest { folder_id: "default".into(), ..Default::default() };
    assert_eq!(clients.managed_backups.get(get.clone()).await.unwrap_err().code(), Code::NotFound);
    assert!(bare(clients.managed_backups.list(list.clone()).await).unwrap().backups.is_empty());
    let draft = clients.backup(&about.backup_id).await.unwrap();
    assert_eq!((draft.state(), draft.busy_operation_id.as_str(), draft.completed_at), (own::backup::State::Creating, started.id.as_str(), None));
    assert!(draft.name.starts_with("manual-") && draft.name.len() == 23, "{}", draft.name);

    gate.notify_one();
    let ended = clients.ended(&started.id, OPERATION).await;
    let cluster: managed::Cluster = response(&ended);
    assert_eq!((cluster.id.as_str(), cluster.status()), ("main", managed::cluster::Status::Running));
    let backup = bare(clients.managed_backups.get(get).await).unwrap();
    assert_eq!((backup.folder_id.as_str(), backup.source_cluster_id.as_str(), backup.r#type()), ("default", "main", managed::backup::BackupType::Manual));
    assert_eq!(backup.source_shard_names, ["shard1"]);
    let instant = |at: Option<prost_types::Timestamp>| at.map(|at| (at.seconds, at.nanos)).unwrap();
    assert!(instant(backup.created_at) >= instant(backup.started_at));
    assert_eq!(backup.created_at, clients.backup(&backup.id).await.unwrap().completed_at);
    assert_eq!(bare(clients.managed_backups.list(list).await).unwrap().backups, std::slice::from_ref(&backup));
    let of_cluster = managed::ListClusterBackupsRequest { cluster_id: "main".into(), ..Default::default() };
    assert_eq!(bare(clients.clusters.list_backups(of_cluster).await).unwrap().backups, [backup]);
    service.stop().await;
}

#[tokio::test]
async fn every_change_through_our_schema() {
    let (_source, service) = willing().await;
    let mut clients = service.clients.clone();
    let create = own::CreateBackupRequest {
        cluster_id: "main".into(),
        name: "first".into(),
        labels: [("team".to_owned(), "shop".to_owned())].into(),
        expires_at: Some(prost_types::Timestamp { seconds: 4_000_000_000, nanos: 0 }),
    };
    let started = bare(clients.backups.create(create).await).unwrap();
    assert_runs(&started);
    let about: own::CreateBackupMetadata = metadata(&started);
    assert!(about.cluster_id == "main" && about.progress.is_some());
    let backup: own::Backup = response(&clients.ended(&started.id, OPERATION).await);
    assert_eq!(backup, clients.backup(&about.backup_id).await.unwrap(), "the response is the backup as it is");
    assert_eq!((backup.state(), backup.level(), backup.r#type()), (own::backup::State::Available, own::backup::Level::Walked, own::backup::Type::Manual));
    assert_eq!((backup.name.as_str(), backup.labels["team"].as_str(), backup.expires_at.map(|at| at.seconds)), ("first", "shop", Some(4_000_000_000)));
    assert_eq!((backup.shards.len(), backup.shards[0].keys, backup.busy_operation_id.as_str()), (1, 9, ""));
    assert_eq!(backup.consistency(), own::backup::Consistency::PointInTime);

    let update = own::UpdateBackupRequest { backup_id: backup.id.clone(), name: "second".into(), ..Default::default() };
    let started = bare(clients.backups.update(update).await).unwrap();
    assert_eq!(metadata::<own::UpdateBackupMetadata>(&started).backup_id, backup.id);
    let changed: own::Backup = response(&clients.ended(&started.id, OPERATION).await);
    assert_eq!((changed.name.as_str(), changed.labels.len(), changed.expires_at), ("second", 0, None), "without a mask every field is meant");

    let started = bare(clients.backups.delete(own::DeleteBackupRequest { backup_id: backup.id.clone() }).await).unwrap();
    assert_eq!(metadata::<own::DeleteBackupMetadata>(&started).backup_id, backup.id);
    response::<()>(&clients.ended(&started.id, OPERATION).await);

    let backup = clients.take("main", "third").await;
    let started = bare(clients.managed_backups.delete(managed::DeleteBackupRequest { backup_id: backup.id.clone() }).await).unwrap();
    let about: managed::DeleteBackupMetadata = metadata(&started);
    assert_eq!((about.backup_id, about.progress.is_some()), (backup.id, true));
    response::<()>(&clients.ended(&started.id, OPERATION).await);
    service.stop().await;
}

#[tokio::test]
async fn a_failed_backup_is_an_error_in_our_schema_only() {
    let source = ScriptedRedis::willing().await;
    source.require_auth("default", "secret");
    let service = Setup::new().cluster("main", &[&source.address()], "").start().await;
    let mut clients = service.clients.clone();
    let started = clients.create("main", "first").await.unwrap();
    let ended = clients.ended(&started.id, OPERATION).await;
    assert_eq!(error_of(&ended).map(|error| error.code), Some(Code::Unauthenticated as i32), "{ended:#?}");
    assert_eq!(reason_of(&ended), "SOURCE_CREDENTIALS");
    let backup = clients.all_backups().await.remove(0);
    assert_eq!((backup.state(), backup.error.as_ref()), (own::backup::State::Error, error_of(&ended)));
    assert!(
        bare(clients.managed_backups.list(managed::ListBackupsRequest { folder_id: "default".into(), ..Default::default() }).await).unwrap().backups.is_empty()
    );
    assert_eq!(clients.managed_backups.get(managed::GetBackupRequest { backup_id: backup.id.clone() }).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(clients.managed_backups.delete(managed::DeleteBackupRequest { backup_id: backup.id.clone() }).await.unwrap_err().code(), Code::NotFound);
    let update = own::UpdateBackupRequest { backup_id: backup.id.clone(), name: "second".into(), ..Default::default() };
    let refused = clients.backups.update(update).await.unwrap_err();
    assert_eq!((refused.code(), refused.message().contains("ERROR")), (Code::FailedPrecondition, true), "{refused:?}");

    // It can be deleted, goes at once, and its name is free.
    let deletion = bare(clients.backups.delete(own::DeleteBackupRequest { backup_id: backup.id.clone() }).await).unwrap();
    response::<()>(&clients.ended(&deletion.id, OPERATION).await);
    crate::support::until("the row goes", OPERATION, async || clients.all_backups().await.is_empty().then_some(())).await;
    clients.create("main", "first").await.unwrap();
    service.stop().await;
}
