//! Which role each call needs, and the one place where callers are let in.
//!
//! Every call of every door passes [`admit`] or [`grant`]; both ask the same table. A call without an entry is refused, and a
//! test walks all methods of the descriptors. What a caller may touch inside is asked of the [`Grant`], once the folder of the
//! thing is known.

use crate::audit::CallRecord;
use crate::auth::{Gate, Grant, Role};
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;
use std::sync::Arc;
use tonic::Status;

/// What a call asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Nothing: it answers before there is a token, and tells nothing of anybody's things.
    Open,
    /// This role in the folder of what it touches.
    Needs(Role),
}

use Role::{Admin, Auditor, Editor, Restorer, Viewer};
use Rule::{Needs, Open};

/// What each call needs, in order of its path. Calls of the second REST door are listed by names of their own.
const RULES: [(&str, Rule); 93] = [
    ("/grpc.health.v1.Health/Check", Open),
    ("/grpc.health.v1.Health/List", Open),
    ("/grpc.health.v1.Health/Watch", Open),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Open),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Open),
    ("/memstore.Backups/Copy", Needs(Editor)),
    ("/memstore.Backups/Create", Needs(Editor)),
    ("/memstore.Backups/Delete", Needs(Editor)),
    ("/memstore.Backups/Export", Needs(Restorer)),
    ("/memstore.Backups/Get", Needs(Viewer)),
    ("/memstore.Backups/List", Needs(Viewer)),
    // A link is asked for with a role, and is the right to its file by itself.
    (DOWNLOAD, Open),
    ("/redkeep.v1.BackupService/Copy", Needs(Editor)),
    ("/redkeep.v1.BackupService/Create", Needs(Editor)),
    ("/redkeep.v1.BackupService/Delete", Needs(Editor)),
    ("/redkeep.v1.BackupService/Expire", Needs(Editor)),
    ("/redkeep.v1.BackupService/Export", Needs(Restorer)),
    ("/redkeep.v1.BackupService/Get", Needs(Viewer)),
    ("/redkeep.v1.BackupService/GetDownloadLinks", Needs(Restorer)),
    ("/redkeep.v1.BackupService/Import", Needs(Editor)),
    ("/redkeep.v1.BackupService/List", Needs(Viewer)),
    ("/redkeep.v1.BackupService/PlanExpiry", Needs(Viewer)),
    ("/redkeep.v1.BackupService/RestoreInto", Needs(Editor)),
    ("/redkeep.v1.BackupService/Undelete", Needs(Editor)),
    ("/redkeep.v1.BackupService/Update", Needs(Editor)),
    ("/redkeep.v1.BackupService/Verify", Needs(Editor)),
    ("/redkeep.v1.FleetService/AdoptCluster", Needs(Editor)),
    ("/redkeep.v1.FleetService/CheckCluster", Needs(Viewer)),
    ("/redkeep.v1.FleetService/ForgetCluster", Needs(Editor)),
    ("/redkeep.v1.FleetService/UpdateConnection", Needs(Editor)),
    ("/redkeep.v1.OperationService/List", Needs(Auditor)),
    ("/redkeep.v1.OperationService/Wait", Needs(Auditor)),
    ("/redkeep.v1.OperationService/Watch", Needs(Auditor)),
    ("/yandex.cloud.endpoint.ApiEndpointService/Get", Open),
    ("/yandex.cloud.endpoint.ApiEndpointService/List", Open),
    ("/yandex.cloud.iam.v1.IamTokenService/Create", Open),
    ("/yandex.cloud.iam.v1.IamTokenService/CreateForServiceAccount", Needs(Editor)),
    ("/yandex.cloud.iam.v1.IamTokenService/Revoke", Needs(Auditor)),
    ("/yandex.cloud.mdb.redis.v1.BackupRetentionPolicyService/Create", Needs(Editor)),
    ("/yandex.cloud.mdb.redis.v1.BackupRetentionPolicyService/Delete", Needs(Editor)),
    ("/yandex.cloud.mdb.redis.v1.BackupRetentionPolicyService/Get", Needs(Viewer)),
    ("/yandex.cloud.mdb.redis.v1.BackupRetentionPolicyService/List", Needs(Viewer)),
    ("/yandex.cloud.mdb.redis.v1.BackupRetentionPolicyService/ListByFolder", Needs(Viewer)),
    ("/yandex.cloud.mdb.redis.v1.BackupService/Delete", Needs(Editor)),
    ("/yandex.cloud.mdb.redis.v1.BackupService/Get", Needs(Viewer)),
    ("/yandex.cloud.mdb.redis.v1.BackupService/List", Needs(Viewer)),
    ("/yandex.cloud.mdb.redis.v1.ChangeFreezeService/Create", Needs(Editor)),
    ("/yandex.cloud.mdb.redis.v1.ChangeFreezeService/Get", Needs(Viewer)),
    ("/yandex.cloud.mdb.redis.v1.ChangeFreezeService/GetLimits", Needs(Viewer)),
    ("/yandex.cloud.mdb.redis.v1.ChangeFreezeService/List", Needs(Viewer)),
    ("/yandex.cloud.mdb.redis.v1.ChangeFreezeService/Terminate", Needs(Editor)),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/AddHosts", Needs(Editor)),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/AddShard", Needs(Editor)),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/Backup", Needs(Editor)),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/Create", Needs(Editor)),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/Delete", Needs(Editor)),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/DeleteHosts", Needs(Editor)),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/DeleteShard", Needs(Editor)),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/EnableSharding", Needs(Editor)),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/Get", Needs(Auditor)),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/GetShard", Needs(Viewer)),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/List", Needs(Auditor)),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/ListAccessBindings", Needs(Viewer)),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/ListBackups", Needs(Viewer)),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/ListHosts", Needs(Auditor)),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/ListLogs", Needs(Viewer)),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/ListOperations", Needs(Auditor)),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/ListShards", Needs(Viewer)),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/Move", Needs(Editor)),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/Rebalance", Needs(Editor)),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/RescheduleMaintenance", Needs(Editor)),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/Restore", Needs(Restorer)),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/SetAccessBindings", Needs(Admin)),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/Start", Needs(Editor)),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/StartFailover", Needs(Editor)),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/Stop", Needs(Editor)),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/StreamLogs", Needs(Viewer)),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/Update", Needs(Editor)),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/UpdateAccessBindings", Needs(Admin)),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/UpdateHosts", Needs(Editor)),
    ("/yandex.cloud.mdb.redis.v1.MaintenanceService/Get", Needs(Viewer)),
    ("/yandex.cloud.mdb.redis.v1.MaintenanceService/List", Needs(Viewer)),
    ("/yandex.cloud.mdb.redis.v1.MaintenanceService/Reschedule", Needs(Editor)),
    ("/yandex.cloud.mdb.redis.v1.ResourcePresetService/Get", Needs(Auditor)),
    ("/yandex.cloud.mdb.redis.v1.ResourcePresetService/List", Needs(Auditor)),
    ("/yandex.cloud.mdb.redis.v1.UserService/Create", Needs(Editor)),
    ("/yandex.cloud.mdb.redis.v1.UserService/Delete", Needs(Editor)),
    ("/yandex.cloud.mdb.redis.v1.UserService/Get", Needs(Viewer)),
    ("/yandex.cloud.mdb.redis.v1.UserService/List", Needs(Viewer)),
    ("/yandex.cloud.mdb.redis.v1.UserService/Update", Needs(Editor)),
    ("/yandex.cloud.mdb.redis.v1.VersionsService/List", Needs(Auditor)),
    ("/yandex.cloud.operation.OperationService/Cancel", Needs(Editor)),
    ("/yandex.cloud.operation.OperationService/Get", Needs(Auditor)),
];

/// Name of the use of a [link](crate::links) in the table of rules: `GET /redkeep/v1/downloads/{backup}/{file}`.
pub const DOWNLOAD: &str = "/redkeep.downloads/Get";

/// Names of the calls of the second REST door in the table of rules.
pub mod memstore {
    /// `POST /v1/backups/{name}/copy`.
    pub const COPY: &str = "/memstore.Backups/Copy";
    /// `POST /v1/backups`.
    pub const CREATE: &str = "/memstore.Backups/Create";
    /// `DELETE /v1/backups/{name}`.
    pub const DELETE: &str = "/memstore.Backups/Delete";
    /// `POST /v1/backups/{name}/export`.
    pub const EXPORT: &str = "/memstore.Backups/Export";
    /// `GET /v1/backups/{name}`.
    pub const GET: &str = "/memstore.Backups/Get";
    /// `GET /v1/backups`.
    pub const LIST: &str = "/memstore.Backups/List";
}

/// The rule of a call; `None` for a path that is no call.
pub fn rule(path: &str) -> Option<Rule> {
    RULES.binary_search_by_key(&path, |(path, _)| path).ok().map(|at| RULES[at].1)
}

/// The path of every call that has a rule.
pub fn paths() -> impl Iterator<Item = &'static str> {
    RULES.iter().map(|(path, _)| *path)
}

/// Lets a caller in to the call at `path`; `None` for a call that needs nobody. Who it is, and later the folder that is asked
/// for, goes to the record of the call.
///
/// # Errors
///
/// `UNAUTHENTICATED` without a valid token, `PERMISSION_DENIED` when the caller has the role in no folder at all,
/// `RESOURCE_EXHAUSTED` when it calls too fast, `UNIMPLEMENTED` for a path that is no call, `UNAVAILABLE` when tokens cannot be
/// checked.
pub async fn grant(gate: &Gate, path: &str, headers: &HeaderMap, call: &CallRecord) -> Result<Option<Grant>, Status> {
    let role = match rule(path) {
        Some(Rule::Open) => return Ok(None),
        Some(Rule::Needs(role)) => role,
        None => return Err(Status::unimplemented("there is no such call; `grpcurl HOST:PORT list` lists the services")),
    };
    let identity = gate.identify(headers).await.map_err(super::status::unrecognised)?;
    call.set_subject(&identity.subject);
    gate.pace(&identity).map_err(super::status::too_fast)?;
    Grant::new(identity, role).map(|grant| Some(grant.recorded(call.clone()))).map_err(|denied| super::status::denied(denied, "call", path))
}

/// Lets the caller of a request in, or ends the call. Handlers find the [`Grant`] in the extensions.
pub async fn admit(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    if rule(&path).is_none() {
        // The router's own answer to a path that is no call tells nothing either.
        return next.run(request).await;
    }
    let call = request.extensions().get::<CallRecord>().cloned().unwrap_or_default();
    match grant(&gate, &path, request.headers(), &call).await {
        Ok(grant) => {
            if let Some(grant) = grant {
                request.extensions_mut().insert(grant);
            }
            next.run(request).await
        }
        Err(status) => status.into_http(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::pb;

    #[test]
    fn every_method_has_a_rule() {
        // Goal: no method can be added without a decision on who may call it. Method: all methods of all descriptors.
        assert!(RULES.is_sorted_by_key(|(path, _)| path));
        let mut methods = 0;
        for service in pb::pool().services() {
            for method in service.methods() {
                let path = format!("/{}/{}", service.full_name(), method.name());
                assert!(rule(&path).is_some(), "{path} has no rule");
                methods += 1;
            }
        }
        assert!(methods > 50, "{methods}");
    }

    #[test]
    fn every_rule_is_of_a_call() {
        let ours = ["/memstore.Backups/", "/grpc.health.v1.", "/grpc.reflection.v1", DOWNLOAD];
        for (path, _) in RULES {
            let (service, method) = path[1..].split_once('/').unwrap();
            let known = pb::pool().get_service_by_name(service).is_some_and(|service| service.methods().any(|known| known.name() == method));
            assert!(known || ours.iter().any(|start| path.starts_with(start)), "{path}");
        }
        for name in [memstore::COPY, memstore::CREATE, memstore::DELETE, memstore::EXPORT, memstore::GET, memstore::LIST] {
            assert!(rule(name).is_some(), "{name}");
        }
    }

    #[test]
    fn only_few_calls_need_nobody() {
        let open: Vec<_> = RULES.iter().filter(|(path, rule)| *rule == Open && !path.starts_with("/grpc.")).map(|(path, _)| *path).collect();
        assert_eq!(
            open,
            [
                DOWNLOAD,
                "/yandex.cloud.endpoint.ApiEndpointService/Get",
                "/yandex.cloud.endpoint.ApiEndpointService/List",
                "/yandex.cloud.iam.v1.IamTokenService/Create"
            ]
        );
    }

    #[test]
    fn what_changes_something_needs_an_editor() {
        // A method that answers with an Operation changes something; restores and exports read data, which has a role of its own.
        for service in pb::pool().services() {
            for method in service.methods().filter(|method| method.output().full_name() == "yandex.cloud.operation.Operation") {
                let path = format!("/{}/{}", service.full_name(), method.name());
                let least = match path.as_str() {
                    "/yandex.cloud.operation.OperationService/Get" => Auditor,
                    "/redkeep.v1.BackupService/Export" | "/yandex.cloud.mdb.redis.v1.ClusterService/Restore" => Restorer,
                    _ => Editor,
                };
                assert!(matches!(rule(&path), Some(Needs(role)) if role >= least), "{path}");
            }
        }
    }
}
