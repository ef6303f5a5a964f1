//! Goal: what cannot be done is refused with what to do instead, and what fails leaves nothing behind. Method: each case against a
//! real service.

use super::*;
use crate::support::answers::fields;
use crate::support::server::RedisServer;
use crate::support::service::{Setup, files_below, reason_of};
use crate::support::{local, until};
use redkeep::pb::own;
use std::time::Duration;
use tonic::Code;

const SOON: Duration = Duration::from_secs(30);

async fn small() -> RedisServer {
    let source = RedisServer::start().await;
    source.command(&["SET", "key", "value"]).await;
    source
}

#[tokio::test]
async fn without_a_folder_nothing_is_restored_here() {
    let source = small().await;
    let service = Setup::new().cluster("main", &[&source.address()], "").start().await;
    let clients = &service.clients;
    let backup = clients.take("main", "first").await;
    let refused = restore(clients, wish(&backup.id, "again")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("[local] root"), "{refused:?}");
    let refused = delete(clients, "main").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("ForgetCluster"), "{refused:?}");
    service.stop().await;
}

#[tokio::test]
async fn requests_that_do_not_fit() {
    let source = small().await;
    let (watch, setup) = local::keeper("max_servers = 3");
    let service = setup.cluster("main", &[&source.address()], "").start().await;
    let clients = &service.clients;
    let backup = clients.take("main", "first").await;
    let good = || wish(&backup.id, "again");
    let named = |shard: &str| vec![managed::HostSpec { shard_name: shard.into(), ..Default::default() }];
    let version = |version: &str| Some(managed::ConfigSpec { version: version.into(), ..Default::default() });
    for (request, field) in [
        (RestoreClusterRequest { environment: 0, ..good() }, "environment"),
        (RestoreClusterRequest { name: String::new(), ..good() }, "name"),
        (RestoreClusterRequest { config_spec: None, ..good() }, "config_spec"),
        (RestoreClusterRequest { host_specs: named("shard2"), ..good() }, "host_specs"),
        (RestoreClusterRequest { config_spec: version("new"), ..good() }, "config_spec.version"),
        (RestoreClusterRequest { tls_enabled: Some(true), ..good() }, "tls_enabled"),
        (RestoreClusterRequest { folder_id: "No".into(), ..good() }, "folder_id"),
    ] {
        assert_eq!(fields(restore(clients, request).await), [field]);
    }
    let refused = restore(clients, wish("01890000-0000-7000-8000-000000000001", "again")).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let refused = restore(clients, wish(&backup.id, "main")).await.unwrap_err();
    assert_eq!((refused.code(), refused.message().contains("named main")), (Code::AlreadyExists, true), "{refused:?}");
    let refused = restore(clients, RestoreClusterRequest { host_specs: hosts(4), ..good() }).await.unwrap_err();
    assert_eq!((refused.code(), refused.message().contains("max_servers")), (Code::ResourceExhausted, true), "{refused:?}");

    // Servers of ours go with their cluster, and in no other way.
    restored(clients, RestoreClusterRequest { host_specs: hosts(2), ..good() }).await;
    let refused = restore(clients, RestoreClusterRequest { host_specs: hosts(2), ..wish(&backup.id, "third") }).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let forget = bare(clients.fleet.clone().forget_cluster(own::ForgetClusterRequest { cluster_id: "again".into() }).await).unwrap_err();
    assert_eq!((forget.code(), forget.message().contains("ClusterService.Delete")), (Code::FailedPrecondition, true), "{forget:?}");
    assert_eq!(watch.servers().len(), 2);
    service.stop().await;
}

#[tokio::test]
async fn a_damaged_artifact_starts_nothing() {
    let source = small().await;
    let (watch, setup) = local::keeper("");
    let service = setup.cluster("main", &[&source.address()], "").start().await;
    let clients = &service.clients;
    let backup = clients.take("main", "first").await;
    let root = service.setup.artifact_root();
    let file = files_below(&root).into_iter().find(|file| file.ends_with(".rdb.zst")).unwrap();
    let mut bytes = std::fs::read(root.join(&file)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(root.join(&file), bytes).unwrap();
    let operation = restore(clients, wish(&backup.id, "again")).await.unwrap();
    let operation = clients.ended(&operation.id, OPERATION).await;
    assert_eq!(reason_of(&operation), "STORAGE_CORRUPT", "{operation:#?}");
    assert_eq!(get(clients, "again").await.unwrap_err().code(), Code::NotFound);
    let folder = service.setup.folder().join("clusters/again");
    until("the folder is gone", SOON, async || (!folder.exists()).then_some(())).await;
    assert!(watch.servers().is_empty());
    service.stop().await;
}

#[tokio::test]
async fn memory_that_is_too_little_is_told_before_anything_starts() {
    let source = small().await;
    source.command(&["SET", "large", &"x".repeat(4 << 20)]).await;
    let (watch, setup) = local::keeper("memory_limit = \"2MiB\"");
    let service = setup.cluster("main", &[&source.address()], "").start().await;
    let clients = &service.clients;
    let backup = clients.take("main", "first").await;
    let operation = restore(clients, wish(&backup.id, "again")).await.unwrap();
    let operation = clients.ended(&operation.id, OPERATION).await;
    assert_eq!(reason_of(&operation), "LOCAL_ROOM", "{operation:#?}");
    assert!(error_of(&operation).unwrap().message.contains("[local] memory_limit"), "{operation:#?}");
    assert!(watch.servers().is_empty());
    service.stop().await;
}

/// Goal: nothing of a cancelled restore is left. Method: the work stands still with its servers started.
#[tokio::test]
async fn a_cancelled_restore_leaves_nothing() {
    let source = small().await;
    let (watch, setup) = local::keeper("");
    let process = setup.cluster("main", &[&source.address()], "").spawn(&[("REDKEEP_HANG_AT", "restore_cluster.loaded")]).await;
    let clients = &process.clients;
    let backup = clients.take("main", "first").await;
    let operation = restore(clients, RestoreClusterRequest { host_specs: hosts(2), ..wish(&backup.id, "again") }).await.unwrap();
    assert_eq!(get(clients, "again").await.unwrap().status(), managed::cluster::Status::Creating);
    until("the servers run", SOON, async || (watch.servers().len() == 2).then_some(())).await;
    // A backup that is restored cannot be deleted, nor a cluster that is being made.
    let refused = bare(clients.backups.clone().delete(own::DeleteBackupRequest { backup_id: backup.id.clone() }).await).unwrap_err();
    assert!(refused.message().contains(&operation.id), "{refused:?}");
    assert!(delete(clients, "again").await.unwrap_err().message().contains(&operation.id));
    let request = redkeep::pb::operation::CancelOperationRequest { operation_id: operation.id.clone() };
    clients.operations.clone().cancel(request).await.unwrap();
    let ended = clients.ended(&operation.id, SOON).await;
    assert_eq!(error_of(&ended).unwrap().code, Code::Cancelled as i32);
    until("the servers are gone", SOON, async || watch.servers().is_empty().then_some(())).await;
    let folder = process.setup.folder().join("clusters/again");
    until("the folder is gone", SOON, async || (!folder.exists()).then_some(())).await;
    assert_eq!(get(clients, "again").await.unwrap_err().code(), Code::NotFound);
    process.terminate(SOON).await;
}

/// Goal: servers that nobody knows any more, because the store was lost, keep their data. Method: the store is taken away while the
/// service is down.
#[tokio::test]
async fn a_cluster_that_the_store_has_lost_is_left_alone() {
    let source = small().await;
    let (watch, setup) = local::keeper("");
    let service = setup.cluster("main", &[&source.address()], "").start().await;
    let backup = service.clients.take("main", "first").await;
    restored(&service.clients, wish(&backup.id, "again")).await;
    let mark = service.setup.folder().join("clusters/again/restoring");
    until("the restore is known as done", SOON, async || (!mark.exists()).then_some(())).await;
    let setup = service.stop().await;
    std::fs::remove_dir_all(setup.folder().join("store")).unwrap();
    let process = setup.spawn(&[]).await;
    until("it is told", SOON, async || process.log().contains("belongs to no cluster that is known").then_some(())).await;
    assert_eq!(watch.servers().len(), 1);
    process.terminate(SOON).await;
}
