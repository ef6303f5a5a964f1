//! Goal: a client that knows nothing of us can take a backup. Method: grpcurl, with reflection alone.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

use crate::support::scripted::ScriptedRedis;
use crate::support::service::{OPERATION, Setup};
use crate::support::until;
use serde_json::{Value, json};
use std::path::PathBuf;
use tokio::process::Command;

/// Names the program where it is not on the path.
const PROGRAM_VARIABLE: &str = "REDKEEP_TEST_GRPCURL";

/// The program. Where there is none, that is told, and is a failure in CI.
async fn program() -> Option<PathBuf> {
    let named = std::env::var_os(PROGRAM_VARIABLE).map(PathBuf::from);
    let at_home = std::env::home_dir().map(|home| home.join("go/bin/grpcurl"));
    for program in named.into_iter().chain([PathBuf::from("grpcurl")]).chain(at_home) {
        if Command::new(&program).arg("-version").output().await.is_ok_and(|output| output.status.success()) {
            return Some(program);
        }
    }
    assert!(std::env::var("CI").is_ok_and(|ci| ci != "true") || std::env::var_os("CI").is_none(), "CI has no grpcurl; name one with {PROGRAM_VARIABLE}");
    eprintln!("!!! SKIPPED: there is no grpcurl; install one, or name one with {PROGRAM_VARIABLE}");
    None
}

struct Grpcurl {
    program: PathBuf,
    address: String,
}

impl Grpcurl {
    async fn run(&self, before: &[&str], after: &[&str]) -> String {
        let output = Command::new(&self.program).arg("-plaintext").args(before).arg(&self.address).args(after).output().await.unwrap();
        assert!(output.status.success(), "{after:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    async fn call(&self, method: &str, request: Value) -> Value {
        serde_json::from_str(&self.run(&["-d", &request.to_string()], &[method]).await).unwrap()
    }
}

#[tokio::test]
async fn a_stranger_takes_a_backup() {
    let Some(program) = program().await else { return };
    let source = ScriptedRedis::willing().await;
    let service = Setup::new().cluster("main", &[&source.address()], "").start().await;
    let grpcurl = Grpcurl { program, address: service.endpoint.trim_start_matches("http://").to_owned() };

    let listed = grpcurl.run(&[], &["list"]).await;
    for name in ["yandex.cloud.mdb.redis.v1.ClusterService", "yandex.cloud.operation.OperationService", "redkeep.v1.BackupService", "grpc.health.v1.Health"] {
        assert!(listed.lines().any(|line| line == name), "{name} in {listed}");
    }
    let described = grpcurl.run(&[], &["describe", "yandex.cloud.mdb.redis.v1.ClusterService.Backup"]).await;
    assert!(described.contains("rpc Backup") && described.contains("/managed-redis/v1/clusters/{cluster_id}:backup"), "{described}");

    let started = grpcurl.call("yandex.cloud.mdb.redis.v1.ClusterService/Backup", json!({ "cluster_id": "main" })).await;
    assert_eq!(started["metadata"]["@type"], "type.googleapis.com/yandex.cloud.mdb.redis.v1.BackupClusterMetadata");
    assert!(started.get("done").is_none() && started.get("response").is_none(), "{started}");
    let ended = until("the operation ends", OPERATION, async || {
        let operation = grpcurl.call("yandex.cloud.operation.OperationService/Get", json!({ "operation_id": started["id"] })).await;
        (operation["done"] == true).then_some(operation)
    })
    .await;
    assert_eq!((&ended["response"]["@type"], &ended["response"]["id"]), (&json!("type.googleapis.com/yandex.cloud.mdb.redis.v1.Cluster"), &json!("main")));

    let request = json!({ "backup_id": started["metadata"]["backupId"] });
    let theirs = grpcurl.call("yandex.cloud.mdb.redis.v1.BackupService/Get", request.clone()).await;
    assert_eq!((&theirs["id"], &theirs["sourceClusterId"], &theirs["sourceShardNames"]), (&request["backup_id"], &json!("main"), &json!(["shard1"])));
    let ours = grpcurl.call("redkeep.v1.BackupService/Get", request).await;
    assert_eq!((&ours["id"], &ours["state"], &ours["level"]), (&theirs["id"], &json!("AVAILABLE"), &json!("WALKED")));
    service.stop().await;
}
