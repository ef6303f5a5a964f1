//! Backups that become clusters of their own on the machine of the service.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

mod command;
mod engines;
mod life;
mod recovery;
mod refusals;
mod shards;

use crate::support::answers::{bare, metadata, response};
use crate::support::service::{Clients, OPERATION, error_of};
use managed::cluster::Environment;
use managed::{Cluster, Host, RestoreClusterMetadata, RestoreClusterRequest};
use redkeep::pb::managed;
use redkeep::pb::operation::Operation;
use tonic::Status;

/// The least request.
fn wish(backup: &str, name: &str) -> RestoreClusterRequest {
    RestoreClusterRequest {
        backup_id: backup.into(),
        name: name.into(),
        environment: Environment::Production as i32,
        config_spec: Some(managed::ConfigSpec::default()),
        ..Default::default()
    }
}

/// So many hosts of no certain shard.
fn hosts(count: usize) -> Vec<managed::HostSpec> {
    vec![managed::HostSpec::default(); count]
}

async fn restore(clients: &Clients, request: RestoreClusterRequest) -> Result<Operation, Status> {
    bare(clients.clusters.clone().restore(request).await)
}

/// Restores a cluster that is to be as it was wished.
async fn restored(clients: &Clients, request: RestoreClusterRequest) -> Cluster {
    let backup = request.backup_id.clone();
    let operation = restore(clients, request).await.unwrap();
    let told: RestoreClusterMetadata = metadata(&operation);
    let operation = clients.ended(&operation.id, OPERATION).await;
    assert!(error_of(&operation).is_none(), "{operation:#?}");
    let cluster: Cluster = response(&operation);
    assert_eq!((&told.cluster_id, &told.backup_id), (&cluster.id, &backup));
    cluster
}

async fn get(clients: &Clients, id: &str) -> Result<Cluster, Status> {
    bare(clients.clusters.clone().get(managed::GetClusterRequest { cluster_id: id.into() }).await)
}

/// The hosts of a cluster, by shard, primaries first.
async fn hosts_of(clients: &Clients, id: &str) -> Vec<Host> {
    let request = managed::ListClusterHostsRequest { cluster_id: id.into(), ..Default::default() };
    let mut hosts = bare(clients.clusters.clone().list_hosts(request).await).unwrap().hosts;
    hosts.sort_by_key(|host| (host.shard_name.clone(), host.role() != managed::host::Role::Master, host.name.clone()));
    hosts
}

async fn delete(clients: &Clients, id: &str) -> Result<Operation, Status> {
    bare(clients.clusters.clone().delete(managed::DeleteClusterRequest { cluster_id: id.into() }).await)
}

/// Deletes a cluster to the end.
async fn deleted(clients: &Clients, id: &str) {
    let operation = delete(clients, id).await.unwrap();
    let operation = clients.ended(&operation.id, OPERATION).await;
    assert!(error_of(&operation).is_none(), "{operation:#?}");
    assert_eq!(metadata::<managed::DeleteClusterMetadata>(&operation).cluster_id, id);
}
