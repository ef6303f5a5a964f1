//! A backup becomes a cluster of its own on this machine, and such a cluster is deleted.
//!
//! What a request asks for and cannot be had is refused by its field. What means something to a cloud alone (network, subnet,
//! zones, firewall, size of hosts, maintenance, who else has access) is read and left aside.

use super::fleet::refusal;
use super::{Api, convert, request, status};
use crate::executor::{BadVersion, Restoration, Wanted};
use crate::operation::HostPlan;
use crate::pb::managed::cluster::PersistenceMode;
use crate::pb::{managed, operation as wire};
use tonic::{Request, Response, Status};

/// Most hosts of a request.
const HOSTS: usize = 256;

impl Api {
    pub(super) async fn restore_cluster(&self, request: Request<managed::RestoreClusterRequest>) -> Result<Response<wire::Operation>, Status> {
        let (grant, caller, request) = request::changing_secret(request, |request| self.conceal_server_password(request))?;
        if let Some(operation) = self.repeated(&grant, &caller).await? {
            return Ok(operation);
        }
        let backup_id = request.backup_id.clone();
        let source = self.backup(&grant, &backup_id).await?;
        if !source.is_available() {
            // This schema knows no other backups.
            return Err(status::not_found("backup", &backup_id));
        }
        let folder_id = match request.folder_id.as_str() {
            "" => source.folder_id.clone(),
            folder => request::folder_id(&grant, folder)?,
        };
        refuse(&request, source.shards.iter().any(|shard| !shard.slots.is_empty()))?;
        if request.host_specs.len() > HOSTS {
            return Err(status::invalid("host_specs", format!("must have at most {HOSTS} elements")));
        }
        if !self.executor.can_decode(&source) {
            return Err(status::locked(&backup_id));
        }
        let version = request.config_spec.map(|spec| spec.version).unwrap_or_default();
        let version: Wanted = version.parse().map_err(|fault: BadVersion| status::invalid("config_spec.version", fault.to_string()))?;
        let hosts = request.host_specs.into_iter().map(|host| HostPlan { shard_name: host.shard_name, zone: host.zone_id });
        let restoration = Restoration {
            source,
            folder_id,
            name: request.name,
            description: request.description,
            labels: request::labels(request.labels),
            version,
            hosts: hosts.collect(),
            persistent: request.persistence_mode == PersistenceMode::On as i32,
        };
        let operation = self.executor.restore_cluster(restoration, caller).await.map_err(|refused| refusal(refused, &backup_id))?;
        Ok(Response::new(convert::operation(&operation)))
    }

    pub(super) async fn delete_cluster(&self, request: Request<managed::DeleteClusterRequest>) -> Result<Response<wire::Operation>, Status> {
        let (grant, caller, request) = request::changing(request)?;
        if let Some(operation) = self.repeated(&grant, &caller).await? {
            return Ok(operation);
        }
        let cluster = self.cluster(&grant, &request.cluster_id)?;
        let operation = self.executor.delete_cluster(&cluster, caller).await.map_err(|refused| refusal(refused, &request.cluster_id))?;
        Ok(Response::new(convert::operation(&operation)))
    }

    /// Puts a fingerprint in the place of a password, which is refused anyway.
    fn conceal_server_password(&self, request: &mut managed::RestoreClusterRequest) {
        let key = self.executor.fleet().key();
        if let Some(redis) = request.config_spec.as_mut().and_then(|spec| spec.redis.as_mut()) {
            redis.password = key.map(|key| key.fingerprint(&redis.password)).unwrap_or_default();
        }
    }
}

/// Refuses what cannot be had, and would be missed if it were left aside.
fn refuse(request: &managed::RestoreClusterRequest, is_sharded: bool) -> Result<(), Status> {
    let refused = |field: &str, what: &str| Err(status::invalid(field, what));
    let spec = request.config_spec.as_ref();
    if request.tls_enabled == Some(true) {
        return refused("tls_enabled", "must be false or absent: servers on this machine listen on loopback only, without TLS");
    }
    if request.deletion_protection {
        return refused("deletion_protection", "must be false: there is no call that would take it away again");
    }
    if request.sharded && !is_sharded {
        return refused("sharded", "must be false: the backup is not of a sharded cluster; restore it by key into one");
    }
    if request.auth_sentinel {
        return refused("auth_sentinel", "must be false: no Sentinel is started");
    }
    if request.announce_hostnames {
        return refused("announce_hostnames", "must be false: servers on this machine are reached by their address");
    }
    if request.disk_encryption_key_id.as_ref().is_some_and(|key| !key.is_empty()) {
        return refused("disk_encryption_key_id", "must be absent: disks are this machine's own");
    }
    if !request.user_specs.is_empty() {
        return refused("user_specs", "must be empty: make users with ACL SETUSER on the servers");
    }
    match PersistenceMode::try_from(request.persistence_mode) {
        Ok(PersistenceMode::On | PersistenceMode::Off) => {}
        Ok(PersistenceMode::OnReplicas) | Err(_) => {
            return refused("persistence_mode", "must be ON or OFF: a primary that keeps nothing would be started again with what was restored");
        }
    }
    if spec.and_then(|spec| spec.redis.as_ref()).is_some_and(|redis| !redis.password.is_empty()) {
        return refused(
            "config_spec.redis.password",
            "must be empty: a password is made up, and lies in the file `password` of the cluster's folder, on the machine of the service",
        );
    }
    if spec.is_some_and(|spec| spec.redis.as_ref().is_some_and(|redis| *redis != managed::config::RedisConfig::default()) || spec.redis_spec.is_some()) {
        return refused("config_spec.redis", "must be absent: set what is to differ with CONFIG SET on the servers");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use managed::RestoreClusterRequest as Wish;

    #[test]
    fn what_cannot_be_had_is_refused_by_its_field() {
        let spec = |redis| Some(managed::ConfigSpec { redis: Some(redis), ..Default::default() });
        let password = managed::config::RedisConfig { password: "secret".into(), ..Default::default() };
        let databases = managed::config::RedisConfig { databases: Some(4), ..Default::default() };
        for (request, field) in [
            (Wish { tls_enabled: Some(true), ..Default::default() }, "tls_enabled"),
            (Wish { deletion_protection: true, ..Default::default() }, "deletion_protection"),
            (Wish { sharded: true, ..Default::default() }, "sharded"),
            (Wish { auth_sentinel: true, ..Default::default() }, "auth_sentinel"),
            (Wish { announce_hostnames: true, ..Default::default() }, "announce_hostnames"),
            (Wish { disk_encryption_key_id: Some("k".into()), ..Default::default() }, "disk_encryption_key_id"),
            (Wish { user_specs: vec![managed::UserSpec::default()], ..Default::default() }, "user_specs"),
            (Wish { persistence_mode: PersistenceMode::OnReplicas as i32, ..Default::default() }, "persistence_mode"),
            (Wish { persistence_mode: 9, ..Default::default() }, "persistence_mode"),
            (Wish { config_spec: spec(password), ..Default::default() }, "config_spec.redis.password"),
            (Wish { config_spec: spec(databases), ..Default::default() }, "config_spec.redis"),
        ] {
            let refused = refuse(&request, false).unwrap_err();
            assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{field}");
            assert!(refused.message().starts_with(&format!("{field} must be ")) && !refused.message().contains("secret"), "{refused:?}");
        }
        let plain = Wish { tls_enabled: Some(false), config_spec: spec(Default::default()), network_id: "net".into(), ..Default::default() };
        assert!(refuse(&plain, false).is_ok() && refuse(&Wish { sharded: true, ..plain }, true).is_ok());
    }
}
