//! The calls that the schema has and that are not built: each answers with a sentence that says what to use.
//!
//! Knows names of calls, no messages.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use tonic::Status;

const ADOPT: &str = "Redkeep starts no servers; make a cluster that runs known with redkeep.v1.FleetService.AdoptCluster";
const NOT_OURS: &str = "Redkeep does not run this cluster; use the tools that run your servers";
const CONFIGURED: &str = "use redkeep.v1.FleetService.UpdateConnection for a cluster that was adopted; one of the configuration file is described \
    there, under [[clusters]]";
const FORGET: &str = "use redkeep.v1.FleetService.ForgetCluster for a cluster that was adopted, or take it out of the configuration file; its servers go \
    on and its backups stay";
const MAINTENANCE: &str = "Redkeep plans no maintenance; use the tools that run your servers";
const ACCESS: &str = "roles are given by folder, not by cluster: in the token file with `redkeep token create`, in the claim redkeep_roles of a JWT, or \
    under [[auth.service_accounts]]";
const ACL: &str = "use ACL commands on the server";
const POLICY: &str = "there are no retention policies; give a backup `expires_at` with redkeep.v1.BackupService.Create or Update";
const PRESETS: &str = "there are no presets, because Redkeep does not run the servers; redkeep.v1.FleetService.CheckCluster shows the memory of each host";
const ACT_AS: &str = "log in as the service account itself: send a JWT signed with its key to yandex.cloud.iam.v1.IamTokenService.Create";
const WITHDRAW: &str = "a short-lived token ends by itself within 12 hours, and at once with what it was made from: `redkeep token revoke`";
const LOGS: &str = "read the log on the server itself";
const RESHARDING: &str = "use redis-cli --cluster on the servers";

/// What to say of each call, in order of its path.
const SENTENCES: [(&str, &str); 47] = [
    ("/redkeep.v1.BackupService/PlanExpiry", "look at `expires_at` of each backup in redkeep.v1.BackupService.List"),
    ("/redkeep.v1.BackupService/Undelete", "copy the files from storage before `purge_at`; redkeep.v1.BackupService.Get shows both `purge_at` and `path`"),
    (
        "/redkeep.v1.BackupService/Verify",
        "every dump is checked while it is taken, and redkeep.v1.BackupService.Get shows the `level` reached; to go further start a server on the artifact",
    ),
    ("/yandex.cloud.iam.v1.IamTokenService/CreateForServiceAccount", ACT_AS),
    ("/yandex.cloud.iam.v1.IamTokenService/Revoke", WITHDRAW),
    ("/yandex.cloud.mdb.redis.v1.BackupRetentionPolicyService/Create", POLICY),
    ("/yandex.cloud.mdb.redis.v1.BackupRetentionPolicyService/Delete", POLICY),
    ("/yandex.cloud.mdb.redis.v1.BackupRetentionPolicyService/Get", POLICY),
    ("/yandex.cloud.mdb.redis.v1.BackupRetentionPolicyService/List", POLICY),
    ("/yandex.cloud.mdb.redis.v1.BackupRetentionPolicyService/ListByFolder", POLICY),
    ("/yandex.cloud.mdb.redis.v1.ChangeFreezeService/Create", MAINTENANCE),
    ("/yandex.cloud.mdb.redis.v1.ChangeFreezeService/Get", MAINTENANCE),
    ("/yandex.cloud.mdb.redis.v1.ChangeFreezeService/GetLimits", MAINTENANCE),
    ("/yandex.cloud.mdb.redis.v1.ChangeFreezeService/List", MAINTENANCE),
    ("/yandex.cloud.mdb.redis.v1.ChangeFreezeService/Terminate", MAINTENANCE),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/AddHosts", NOT_OURS),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/AddShard", RESHARDING),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/Create", ADOPT),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/Delete", FORGET),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/DeleteHosts", NOT_OURS),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/DeleteShard", RESHARDING),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/EnableSharding", RESHARDING),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/ListAccessBindings", ACCESS),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/ListLogs", LOGS),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/Move", CONFIGURED),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/Rebalance", RESHARDING),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/RescheduleMaintenance", MAINTENANCE),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/Restore", "decompress the artifact with zstd and start a server on it; the README shows how"),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/SetAccessBindings", ACCESS),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/Start", NOT_OURS),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/StartFailover", "use the FAILOVER command of the server, or its Sentinel or cluster tools"),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/Stop", NOT_OURS),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/StreamLogs", LOGS),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/Update", CONFIGURED),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/UpdateAccessBindings", ACCESS),
    ("/yandex.cloud.mdb.redis.v1.ClusterService/UpdateHosts", NOT_OURS),
    ("/yandex.cloud.mdb.redis.v1.MaintenanceService/Get", MAINTENANCE),
    ("/yandex.cloud.mdb.redis.v1.MaintenanceService/List", MAINTENANCE),
    ("/yandex.cloud.mdb.redis.v1.MaintenanceService/Reschedule", MAINTENANCE),
    ("/yandex.cloud.mdb.redis.v1.ResourcePresetService/Get", PRESETS),
    ("/yandex.cloud.mdb.redis.v1.ResourcePresetService/List", PRESETS),
    ("/yandex.cloud.mdb.redis.v1.UserService/Create", ACL),
    ("/yandex.cloud.mdb.redis.v1.UserService/Delete", ACL),
    ("/yandex.cloud.mdb.redis.v1.UserService/Get", ACL),
    ("/yandex.cloud.mdb.redis.v1.UserService/List", ACL),
    ("/yandex.cloud.mdb.redis.v1.UserService/Update", ACL),
    ("/yandex.cloud.mdb.redis.v1.VersionsService/List", "redkeep.v1.FleetService.CheckCluster shows the version of each host"),
];

/// What to use in place of the call at a gRPC path, such as `/redkeep.v1.BackupService/PlanExpiry`; `None` for a call that is
/// built, and for a path that is no call.
pub fn sentence(path: &str) -> Option<&'static str> {
    SENTENCES.binary_search_by_key(&path, |(path, _)| path).ok().map(|at| SENTENCES[at].1)
}

/// Answers the calls that are not built with `UNIMPLEMENTED` and their sentence, before anything of them is read; hands all
/// other requests on.
pub async fn answer(request: Request, next: Next) -> Response {
    match sentence(request.uri().path()) {
        Some(sentence) => Status::unimplemented(sentence).into_http(),
        None => next.run(request).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb;
    use axum::Router;
    use axum::body::{Body, to_bytes};
    use axum::http::{StatusCode, Uri};
    use std::collections::BTreeSet;
    use tonic::Code;
    use tower::ServiceExt;

    /// Every call that is built.
    const BUILT: [&str; 33] = [
        "/redkeep.v1.BackupService/Copy",
        "/redkeep.v1.BackupService/Create",
        "/redkeep.v1.BackupService/Delete",
        "/redkeep.v1.BackupService/Export",
        "/redkeep.v1.BackupService/Get",
        "/redkeep.v1.BackupService/GetDownloadLinks",
        "/redkeep.v1.BackupService/List",
        "/redkeep.v1.BackupService/Import",
        "/redkeep.v1.BackupService/RestoreInto",
        "/redkeep.v1.BackupService/Update",
        "/redkeep.v1.FleetService/AdoptCluster",
        "/redkeep.v1.FleetService/CheckCluster",
        "/redkeep.v1.FleetService/ForgetCluster",
        "/redkeep.v1.FleetService/UpdateConnection",
        "/redkeep.v1.OperationService/List",
        "/redkeep.v1.OperationService/Wait",
        "/yandex.cloud.endpoint.ApiEndpointService/Get",
        "/yandex.cloud.endpoint.ApiEndpointService/List",
        "/yandex.cloud.iam.v1.IamTokenService/Create",
        "/redkeep.v1.OperationService/Watch",
        "/yandex.cloud.mdb.redis.v1.BackupService/Delete",
        "/yandex.cloud.mdb.redis.v1.BackupService/Get",
        "/yandex.cloud.mdb.redis.v1.BackupService/List",
        "/yandex.cloud.mdb.redis.v1.ClusterService/Backup",
        "/yandex.cloud.mdb.redis.v1.ClusterService/Get",
        "/yandex.cloud.mdb.redis.v1.ClusterService/GetShard",
        "/yandex.cloud.mdb.redis.v1.ClusterService/List",
        "/yandex.cloud.mdb.redis.v1.ClusterService/ListBackups",
        "/yandex.cloud.mdb.redis.v1.ClusterService/ListHosts",
        "/yandex.cloud.mdb.redis.v1.ClusterService/ListOperations",
        "/yandex.cloud.mdb.redis.v1.ClusterService/ListShards",
        "/yandex.cloud.operation.OperationService/Cancel",
        "/yandex.cloud.operation.OperationService/Get",
    ];

    /// Every call of the schema.
    fn calls() -> BTreeSet<String> {
        let services = pb::pool().services().filter(|service| service.package_name().starts_with("yandex.") || service.package_name().starts_with("redkeep."));
        services.flat_map(|service| service.methods().map(|method| format!("/{}/{}", service.full_name(), method.name())).collect::<Vec<_>>()).collect()
    }

    #[test]
    fn every_call_is_built_or_has_a_sentence() {
        for call in calls() {
            assert_eq!(sentence(&call).is_none(), BUILT.contains(&call.as_str()), "{call}");
        }
    }

    #[test]
    fn every_entry_is_a_call_and_is_found() {
        let calls = calls();
        for (path, text) in SENTENCES {
            assert!(calls.contains(path), "{path}");
            assert_eq!(sentence(path), Some(text), "the table is in order at {path}");
        }
        for path in BUILT {
            assert!(calls.contains(path), "{path}");
        }
    }

    #[test]
    fn every_sentence_names_only_calls_that_are_built() {
        for (path, text) in SENTENCES {
            assert!(!text.ends_with('.') && !text.contains('\n') && text.is_ascii(), "{path}");
            for name in text.split([' ', ',', ';']).filter(|word| word.starts_with("redkeep.v1.")) {
                let (service, method) = name.rsplit_once('.').unwrap();
                assert!(BUILT.contains(&format!("/{service}/{method}").as_str()), "{path}: {name}");
            }
        }
    }

    #[tokio::test]
    async fn a_call_that_is_not_built_is_answered_at_once() {
        // Goal: such a call ends before its body is read; others go on. Method: a router with the layer and nothing else.
        let router = Router::new().fallback(|uri: Uri| async move { uri.path().to_owned() }).layer(axum::middleware::from_fn(answer));
        let ask = |path: &str| router.clone().oneshot(Request::post(path).body(Body::from("not a message")).unwrap());

        let refused = ask("/redkeep.v1.BackupService/PlanExpiry").await.unwrap();
        assert_eq!(refused.status(), StatusCode::OK);
        assert_eq!(refused.headers()["content-type"], "application/grpc");
        let status = Status::from_header_map(refused.headers()).unwrap();
        assert_eq!((status.code(), status.message()), (Code::Unimplemented, "look at `expires_at` of each backup in redkeep.v1.BackupService.List"));
        assert!(to_bytes(refused.into_body(), 1).await.unwrap().is_empty());

        for path in ["/redkeep.v1.OperationService/Wait", "/redkeep.v1.OperationService/watch", "/"] {
            let passed = ask(path).await.unwrap();
            assert_eq!(to_bytes(passed.into_body(), 100).await.unwrap(), path);
        }
    }
}
