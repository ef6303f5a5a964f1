//! Clusters that are made known through the API: adopted, reached anew, forgotten; and what becomes of their credentials.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

mod command;
mod conflicts;
mod life;
mod recovery;
mod secrecy;
pub mod tls;

use crate::support::answers::bare;
use crate::support::server::RedisServer;
use crate::support::service::{Clients, OPERATION, error_of};
use managed::Cluster;
use redkeep::pb::operation::Operation;
use redkeep::pb::{managed, own};
use tonic::Status;

/// The least rights of a backup account.
const LEAST: &str = "-@all +ping +info +replconf +psync";

const PASSWORD: &str = "correct-horse-battery";

/// A server with one key, and the account `backup` with the least rights.
async fn guarded() -> RedisServer {
    let redis = RedisServer::builder().user(&format!("backup on >{PASSWORD} {LEAST}")).start().await;
    redis.command(&["SET", "key", "value"]).await;
    redis
}

fn credentials(password: &str) -> Option<own::Credentials> {
    Some(own::Credentials { username: "backup".into(), password: password.into() })
}

fn connection(node: &str, credentials: Option<own::Credentials>) -> own::Connection {
    own::Connection { nodes: vec![node.into()], credentials, ..Default::default() }
}

fn adoption(id: &str, connection: own::Connection) -> own::AdoptClusterRequest {
    own::AdoptClusterRequest { cluster_id: id.into(), connection: Some(connection), ..Default::default() }
}

async fn adopt(clients: &Clients, id: &str, connection: own::Connection) -> Result<Operation, Status> {
    bare(clients.fleet.clone().adopt_cluster(adoption(id, connection)).await)
}

async fn update(clients: &Clients, id: &str, connection: own::Connection) -> Result<Operation, Status> {
    let request = own::UpdateConnectionRequest { cluster_id: id.into(), connection: Some(connection) };
    bare(clients.fleet.clone().update_connection(request).await)
}

async fn forget(clients: &Clients, id: &str) -> Result<Operation, Status> {
    bare(clients.fleet.clone().forget_cluster(own::ForgetClusterRequest { cluster_id: id.into() }).await)
}

async fn get(clients: &Clients, id: &str) -> Result<Cluster, Status> {
    bare(clients.clusters.clone().get(managed::GetClusterRequest { cluster_id: id.into() }).await)
}

async fn list(clients: &Clients) -> Vec<String> {
    let clusters =
        bare(clients.clusters.clone().list(managed::ListClustersRequest { folder_id: "default".into(), ..Default::default() }).await).unwrap().clusters;
    clusters.into_iter().map(|cluster| cluster.id).collect()
}

/// Waits for an operation that is to end well.
async fn succeeds(clients: &Clients, operation: Result<Operation, Status>) -> Operation {
    let operation = clients.ended(&operation.unwrap().id, OPERATION).await;
    assert!(error_of(&operation).is_none(), "{operation:#?}");
    operation
}

/// Waits for an operation that is to fail, and tells its message.
async fn fails(clients: &Clients, operation: Result<Operation, Status>, reason: &str) -> String {
    let operation = clients.ended(&operation.unwrap().id, OPERATION).await;
    assert_eq!(crate::support::service::reason_of(&operation), reason, "{operation:#?}");
    error_of(&operation).unwrap().message.clone()
}
