//! Goal: what was accepted is carried out once, whenever the process ends. Method: the real program kills itself at named
//! points, or is killed in its look at a silent server; it is started again, the end is looked at, and the store is verified.

use super::*;
use crate::support::service::Setup;
use redkeep::store::sled::verify;
use std::net::TcpListener;
use std::time::Duration;
use tonic::Code;

const SOON: Duration = Duration::from_secs(60);

const CRASH: &str = "REDKEEP_CRASH_AT";

fn assert_store_clean(setup: &Setup) {
    let report = verify(&setup.folder().join("store")).unwrap();
    assert!(report.is_clean() && report.live == 0, "{report:?}");
}

/// The newest operation on a cluster, ended.
async fn latest(clients: &Clients, cluster: &str) -> Operation {
    let request = managed::ListClusterOperationsRequest { cluster_id: cluster.into(), ..Default::default() };
    let newest = bare(clients.clusters.clone().list_operations(request).await).unwrap().operations.remove(0);
    succeeds(clients, Ok(newest)).await
}

#[tokio::test]
async fn killed_in_an_adoption() {
    let redis = guarded().await;
    let process = Setup::new().secrets("key").spawn(&[(CRASH, "adopt.probed")]).await;
    let _ = adopt(&process.clients, "main", connection(&redis.address(), credentials(PASSWORD))).await;
    let setup = process.wait_end(SOON).await;
    let process = setup.spawn(&[]).await;
    let clients = &process.clients;
    assert_eq!(list(clients).await, ["main"], "it is known before its adoption has ended");
    latest(clients, "main").await;
    assert_eq!(get(clients, "main").await.unwrap().status(), managed::cluster::Status::Running);
    clients.take("main", "a").await;
    assert_store_clean(&process.terminate(SOON).await);
}

#[tokio::test]
async fn killed_from_outside_between_acceptance_and_end() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let process = Setup::new().spawn(&[]).await;
    let accepted = adopt(&process.clients, "main", connection(&silent.local_addr().unwrap().to_string(), None)).await.unwrap();
    let process = process.kill().spawn(&[]).await;
    succeeds(&process.clients, Ok(accepted)).await;
    assert_eq!(list(&process.clients).await, ["main"]);
    assert_store_clean(&process.terminate(SOON).await);
}

#[tokio::test]
async fn killed_in_a_change_of_connection() {
    let (before, after) = (RedisServer::start().await, RedisServer::start().await);
    after.command(&["SET", "key", "value"]).await;
    let process = Setup::new().spawn(&[(CRASH, "connection.probed")]).await;
    succeeds(&process.clients, adopt(&process.clients, "main", connection(&before.address(), None)).await).await;
    let _ = update(&process.clients, "main", connection(&after.address(), None)).await;
    let process = process.wait_end(SOON).await.spawn(&[]).await;
    latest(&process.clients, "main").await;
    assert_eq!(process.clients.take("main", "a").await.shards[0].keys, 1);
    assert_store_clean(&process.terminate(SOON).await);
}

#[tokio::test]
async fn killed_in_a_forgetting() {
    let redis = RedisServer::start().await;
    let process = Setup::new().spawn(&[(CRASH, "forget")]).await;
    succeeds(&process.clients, adopt(&process.clients, "main", connection(&redis.address(), None)).await).await;
    let _ = forget(&process.clients, "main").await;
    let process = process.wait_end(SOON).await.spawn(&[]).await;
    latest(&process.clients, "main").await;
    assert_eq!(get(&process.clients, "main").await.unwrap_err().code(), Code::NotFound);
    assert_store_clean(&process.terminate(SOON).await);
}
