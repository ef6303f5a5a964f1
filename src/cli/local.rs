//! `redkeep cluster restore` and `cluster delete`: clusters that the service keeps on its own machine.

use super::client::{Session, changing};
use super::error::Error;
use super::{DeleteCluster, RestoreCluster, labels, operation};
use crate::pb::managed::cluster::{Environment, PersistenceMode};
use crate::pb::{managed, own};

pub(super) async fn restore(session: &Session, args: RestoreCluster) -> Result<(), Error> {
    let backup = session.call(session.backups().get(own::GetBackupRequest { backup_id: args.backup.clone() })).await?;
    let shards: Vec<&str> = backup.shards.iter().map(|shard| shard.name.as_str()).collect();
    let request = managed::RestoreClusterRequest {
        backup_id: args.backup,
        name: args.name,
        description: args.description.unwrap_or_default(),
        labels: labels(args.labels)?,
        environment: Environment::Production as i32,
        config_spec: Some(managed::ConfigSpec { version: args.version.unwrap_or_default(), ..Default::default() }),
        host_specs: hosts(&shards, args.replicas),
        folder_id: args.to_folder.unwrap_or_default(),
        persistence_mode: if args.no_persistence { PersistenceMode::Off } else { PersistenceMode::On } as i32,
        ..Default::default()
    };
    let request = changing(request, args.change.idempotency_key.as_deref())?;
    let operation = session.change(session.clusters().restore(request)).await?;
    operation::settle(session, operation, args.change.wait).await
}

pub(super) async fn delete(session: &Session, args: DeleteCluster) -> Result<(), Error> {
    let request = changing(managed::DeleteClusterRequest { cluster_id: args.id }, args.change.idempotency_key.as_deref())?;
    let operation = session.change(session.clusters().delete(request)).await?;
    operation::settle(session, operation, args.change.wait).await
}

/// A primary and so many replicas for each shard.
fn hosts(shards: &[&str], replicas: u32) -> Vec<managed::HostSpec> {
    let host = |shard: &&str| managed::HostSpec { shard_name: (*shard).to_owned(), ..Default::default() };
    shards.iter().flat_map(|shard| (0..=replicas).map(move |_| host(shard))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shard_has_its_replicas() {
        let names: Vec<String> = hosts(&["shard1", "shard2"], 1).into_iter().map(|host| host.shard_name).collect();
        assert_eq!(names, ["shard1", "shard1", "shard2", "shard2"]);
        assert_eq!(hosts(&["shard1"], 0).len(), 1);
    }
}
