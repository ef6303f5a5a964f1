//! Restores into servers that run: where to, who may, and what of the request is kept.

use super::{Api, convert, fleet, request, status};
use crate::auth::{Grant, Role};
use crate::backup::Backup;
use crate::cluster::Trust;
use crate::executor::RestoreRefused;
use crate::operation::{Conflict, Door, Keys, Login, Method, Place, RestoreTarget};
use crate::pb::own::key_selection::Conflict as WireConflict;
use crate::pb::own::restore_into_request::{Method as WireMethod, Target};
use crate::pb::{operation as wire, own};
use crate::rdb::Type;
use crate::redis::keys::PATTERN_BYTES;
use crate::redis::{Address, Credentials};
use tonic::{Request, Response, Status};

impl Api {
    pub(super) async fn accept_restore(&self, request: Request<own::RestoreIntoRequest>) -> Result<Response<wire::Operation>, Status> {
        let (grant, caller, mut request) = request::changing_secret(request, |request| self.conceal_password(&mut request.credentials))?;
        if let Some(operation) = self.repeated(&grant, &caller).await? {
            return Ok(operation);
        }
        // Who fills a server needs a role there; who reads a backup, one where it is.
        let overwrites = request.overwrite || request.keys.as_ref().is_some_and(|keys| !keys.dry_run && keys.on_conflict() == WireConflict::Replace);
        let backup_id = request.backup_id.clone();
        let backup = self.executor.store().backup(request::backup_id(&backup_id)?).await.map_err(|error| status::store(error, "backup", &backup_id))?;
        let readable = grant.folder_as(&backup.folder_id, Role::Restorer);
        readable.map_err(|denied| status::denied(denied, "backup", &backup_id))?;
        let wanted = request.target.take().ok_or_else(|| status::invalid("target", "must be given: host, address or cluster_id"))?;
        let is_cluster = matches!(wanted, Target::ClusterId(_));
        let credentials = credentials(&wanted, request.credentials.take())?;
        let target = RestoreTarget {
            place: self.place(&grant, &backup, wanted, if overwrites { Role::Admin } else { Role::Editor })?,
            login: Login { trust: trust(&request), ..Login::default() },
            overwrite: overwrite(&request)?,
            allow_replicas: request.allow_replicas,
            method: method(&mut request, is_cluster)?,
            shard_name: Some(request.shard_name).filter(|name| !name.is_empty()),
        };
        check(&backup, &target)?;
        if !self.executor.can_decode(&backup) {
            return Err(status::locked(&backup_id));
        }
        let operation = self.executor.restore_into(backup.id, target, credentials, Door::Redkeep, caller).await;
        let operation = operation.map_err(|refused| match refused {
            RestoreRefused::NoKey => status::precondition("SECRETS", "[secrets] key_file", refused.to_string()),
            RestoreRefused::Tls(fault) => status::invalid("tls_ca", fault.to_string()),
            RestoreRefused::Store(error) => status::store(error, "backup", &backup_id),
        })?;
        Ok(Response::new(convert::operation(&operation)))
    }

    /// Where the restore goes, if the caller may fill it.
    fn place(&self, grant: &Grant, backup: &Backup, target: Target, role: Role) -> Result<Place, Status> {
        let known = |field: &str, id: &str| {
            let cluster = self.executor.fleet().get(&request::cluster_id(id)?).ok_or_else(|| status::not_found("cluster", id))?;
            let allowed = grant.folder_as(&cluster.folder_id, role);
            allowed.map_err(|denied| status::denied(denied, "cluster", id))?;
            if cluster.is_adopting {
                Err(status::invalid(field, "names a cluster that is being adopted; wait for the end of its adoption"))
            } else {
                Ok(cluster)
            }
        };
        match target {
            Target::Host(text) => {
                let (cluster, host) =
                    text.split_once('/').ok_or_else(|| status::invalid("host", "must be a cluster and a host of it, as `cluster/host:port`"))?;
                let address: Address = host.parse().map_err(|_| status::invalid("host", "must be a cluster and a host of it, as `cluster/host:port`"))?;
                Ok(Place::Host { cluster_id: known("host", cluster)?.id.clone(), host_name: address.to_string() })
            }
            Target::ClusterId(id) => Ok(Place::Cluster(known("cluster_id", &id)?.id.clone())),
            Target::Address(text) => {
                let allowed = grant.folder_as(&backup.folder_id, role);
                allowed.map_err(|denied| status::denied(denied, "backup", &backup.id.to_string()))?;
                let address: Address = text.parse().map_err(|_| status::invalid("address", "must be `host:port` or `[ipv6]:port`"))?;
                if !self.executor.may_restore_into(&address) {
                    let what =
                        "must be an IP address inside of [restore] allow of the configuration, or `localhost`; a server of a known cluster is named as host";
                    return Err(status::invalid("address", what));
                }
                Ok(Place::Address(address.to_string()))
            }
        }
    }

    /// Puts a fingerprint in the place of the password. Without a key the call is refused for its password anyway.
    fn conceal_password(&self, credentials: &mut Option<own::Credentials>) {
        let key = self.executor.fleet().key();
        if let Some(credentials) = credentials {
            credentials.password = key.map(|key| key.fingerprint(&credentials.password)).unwrap_or_default();
        }
    }
}

/// What is known of the backup decides already.
fn check(backup: &Backup, target: &RestoreTarget) -> Result<(), Status> {
    let names = || backup.shards.iter().map(|shard| shard.name.as_str()).collect::<Vec<_>>().join(", ");
    match (&target.method, &target.shard_name) {
        (_, Some(name)) if backup.is_available() && !backup.shards.iter().any(|shard| shard.name == *name) => {
            Err(status::invalid("shard_name", format!("must be one of the backup's: {}", names())))
        }
        (Method::Feed, None) if backup.shards.len() > 1 => Err(status::invalid(
            "shard_name",
            format!("must be given, as one server takes one shard: {}; a whole cluster is restored by key, with cluster_id", names()),
        )),
        (Method::Keys(_), _) if target.overwrite.is_some() => {
            Err(status::invalid("overwrite", "must be left out with the method KEYS, which writes beside what is there; keys.on_conflict decides"))
        }
        (Method::Feed, _) if matches!(target.place, Place::Cluster(_)) => Err(status::invalid("method", "must be KEYS for a whole cluster")),
        (Method::Feed | Method::Keys(_), _) => Ok(()),
    }
}

fn credentials(target: &Target, given: Option<own::Credentials>) -> Result<Option<Credentials>, Status> {
    match (target, given) {
        (_, None) => Ok(None),
        (Target::Address(_), Some(given)) => fleet::credentials("credentials", given).map(Some),
        (Target::Host(_) | Target::ClusterId(_), Some(_)) => Err(status::invalid("credentials", "must be left out for a known cluster, which has its own")),
    }
}

fn trust(request: &own::RestoreIntoRequest) -> Option<Trust> {
    match (request.tls_ca.is_empty(), request.tls) {
        (true, false) => None,
        (true, true) => Some(Trust::System),
        (false, _) => Some(Trust::Authorities(request.tls_ca.clone())),
    }
}

/// Most keys that may go; absent when none may.
fn overwrite(request: &own::RestoreIntoRequest) -> Result<Option<u64>, Status> {
    let keys = u64::try_from(request.overwrite_keys).map_err(|_| status::invalid("overwrite_keys", "must not be negative"))?;
    match (request.overwrite, keys) {
        (true, keys) => Ok(Some(keys)),
        (false, 0) => Ok(None),
        (false, _) => Err(status::invalid("overwrite_keys", "must be left out unless overwrite is true")),
    }
}

fn method(request: &mut own::RestoreIntoRequest, is_cluster: bool) -> Result<Method, Status> {
    let method = WireMethod::try_from(request.method).map_err(|_| status::invalid("method", "must be FEED or KEYS"))?;
    match (method, request.keys.take()) {
        (WireMethod::Feed, Some(_)) => Err(status::invalid("keys", "must be left out with the method FEED, which restores all")),
        (WireMethod::Keys, keys) => Ok(Method::Keys(selection(keys.unwrap_or_default())?)),
        (WireMethod::Unspecified, None) if is_cluster => Ok(Method::Keys(Keys::default())),
        (WireMethod::Unspecified, Some(keys)) => Ok(Method::Keys(selection(keys)?)),
        (WireMethod::Feed | WireMethod::Unspecified, None) => Ok(Method::Feed),
    }
}

fn selection(keys: own::KeySelection) -> Result<Keys, Status> {
    let on_conflict = match WireConflict::try_from(keys.on_conflict) {
        Ok(WireConflict::Unspecified | WireConflict::Fail) => Conflict::Fail,
        Ok(WireConflict::Skip) => Conflict::Skip,
        Ok(WireConflict::Replace) => Conflict::Replace,
        Err(_) => return Err(status::invalid("keys.on_conflict", "must be FAIL, SKIP or REPLACE")),
    };
    if let Some(word) = keys.types.iter().find(|word| Type::named(word).is_none()) {
        return Err(status::invalid("keys.types", format!("{word:?} is no type; there are {}", Type::ALL.map(Type::as_str).join(", "))));
    }
    if keys.patterns.iter().any(|pattern| pattern.len() > PATTERN_BYTES) {
        return Err(status::invalid("keys.patterns", format!("must have at most {PATTERN_BYTES} bytes each")));
    }
    let database = |number: &i32| u32::try_from(*number).map_err(|_| status::invalid("keys.databases", "must not be negative"));
    Ok(Keys {
        databases: keys.databases.iter().map(database).collect::<Result<_, _>>()?,
        patterns: keys.patterns,
        types: keys.types,
        on_conflict,
        dry_run: keys.dry_run,
        bytes_per_second: u64::try_from(keys.bytes_per_second).ok().filter(|bytes| *bytes > 0),
    })
}
