//! Goal: whatever moment the process dies at, a restore and a deletion are done to the end, and no server is left that belongs to
//! nothing. Method: the real program, killed at every named point, then started again.

use super::*;
use crate::support::server::RedisServer;
use crate::support::service::{Process, reason_of};
use crate::support::{local, until};
use redkeep::store::sled::verify;
use std::time::Duration;
use tonic::Code;

const SOON: Duration = Duration::from_secs(60);

const CRASH: &str = "REDKEEP_CRASH_AT";

/// A source, its backup, and a service that dies at a point.
async fn dying(point: &str) -> (RedisServer, local::Watch, Process, String) {
    let source = RedisServer::start().await;
    source.command(&["SET", "key", "value"]).await;
    let (watch, setup) = local::keeper("");
    let process = setup.cluster("main", &[&source.address()], "").spawn(&[(CRASH, point)]).await;
    let backup = process.clients.take("main", "first").await.id;
    (source, watch, process, backup)
}

async fn restore_killed_at(point: &str) {
    let (_source, watch, process, backup) = dying(point).await;
    let _ = restore(&process.clients, RestoreClusterRequest { host_specs: hosts(2), ..wish(&backup, "again") }).await;
    let process = process.wait_end(SOON).await.spawn(&[]).await;
    let clients = &process.clients;
    until("the cluster runs", SOON, async || {
        let cluster = get(clients, "again").await.ok()?;
        (cluster.status() == managed::cluster::Status::Running && cluster.health() == managed::cluster::Health::Alive).then_some(())
    })
    .await;
    assert_eq!(watch.servers().len(), 2, "{point}");
    let hosts = hosts_of(clients, "again").await;
    for host in &hosts {
        let mut connection = local::connect(&process.setup, "again", &host.name).await;
        assert_eq!(connection.command(&["GET", "key"]).await.text(), "value", "{point}");
    }
    let request = managed::ListClusterOperationsRequest { cluster_id: "again".into(), ..Default::default() };
    let operations = bare(clients.clusters.clone().list_operations(request).await).unwrap().operations;
    assert!(operations.len() == 1 && operations[0].done && error_of(&operations[0]).is_none(), "{operations:#?}");
    deleted(clients, "again").await;
    assert!(watch.servers().is_empty(), "{point}");
    let setup = process.terminate(SOON).await;
    let report = verify(&setup.folder().join("store")).unwrap();
    assert!(report.is_clean() && report.live == 0, "{point}: {report:?}");
}

#[tokio::test]
async fn killed_with_an_empty_folder() {
    restore_killed_at("restore_cluster.begun").await;
}

#[tokio::test]
async fn killed_with_the_dump_written() {
    restore_killed_at("restore_cluster.written").await;
}

#[tokio::test]
async fn killed_with_the_servers_recorded() {
    restore_killed_at("restore_cluster.recorded").await;
}

#[tokio::test]
async fn killed_while_the_primary_loads() {
    restore_killed_at("restore_cluster.started").await;
}

#[tokio::test]
async fn killed_while_replicas_follow() {
    restore_killed_at("restore_cluster.replicas").await;
}

#[tokio::test]
async fn killed_with_all_loaded() {
    restore_killed_at("restore_cluster.loaded").await;
}

#[tokio::test]
async fn killed_before_the_end_is_recorded() {
    restore_killed_at("restore_cluster.shown").await;
}

#[tokio::test]
async fn the_third_crash_ends_it_and_leaves_no_server() {
    let (_source, watch, process, backup) = dying("restore_cluster.started").await;
    let _ = restore(&process.clients, wish(&backup, "again")).await;
    let mut setup = process.wait_end(SOON).await;
    for _ in 0..2 {
        // It may die before it listens.
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_redkeep"))
            .args(["serve", "--config"])
            .arg(setup.write())
            .env(CRASH, "restore_cluster.started")
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        until("the process kills itself", SOON, async || child.try_wait().unwrap()).await;
    }
    setup = setup.sections("");
    let process = setup.spawn(&[]).await;
    let clients = &process.clients;
    let request = managed::ListClusterOperationsRequest { cluster_id: "again".into(), ..Default::default() };
    let ended = until("the operation ends", SOON, async || {
        let operations = bare(clients.clusters.clone().list_operations(request.clone()).await).ok()?.operations;
        operations.into_iter().find(|operation| operation.done)
    })
    .await;
    assert_eq!(reason_of(&ended), "POISONED", "{ended:#?}");
    until("no server is left", SOON, async || watch.servers().is_empty().then_some(())).await;
    let folder = process.setup.folder().join("clusters/again");
    until("the folder is gone", SOON, async || (!folder.exists()).then_some(())).await;
    assert_eq!(get(clients, "again").await.unwrap_err().code(), Code::NotFound);
    // The backup is free, and the cluster can be made after all.
    restored(clients, wish(&backup, "again")).await;
    process.terminate(SOON).await;
}

async fn deletion_killed_at(point: &str) {
    let (_source, watch, process, backup) = dying(point).await;
    restored(&process.clients, wish(&backup, "again")).await;
    let _ = delete(&process.clients, "again").await;
    let process = process.wait_end(SOON).await.spawn(&[]).await;
    let clients = &process.clients;
    until("the cluster is gone", SOON, async || get(clients, "again").await.is_err().then_some(())).await;
    assert!(watch.servers().is_empty(), "{point}");
    assert!(!process.setup.folder().join("clusters/again").exists());
    let setup = process.terminate(SOON).await;
    assert!(verify(&setup.folder().join("store")).unwrap().is_clean());
}

#[tokio::test]
async fn killed_before_a_deletion() {
    deletion_killed_at("delete_cluster.begun").await;
}

#[tokio::test]
async fn killed_after_a_deletion() {
    deletion_killed_at("delete_cluster.cleared").await;
}
