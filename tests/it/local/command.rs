//! Goal: the commands and the REST calls do what their help and the schema say. Method: the real program as a client, and requests
//! written byte by byte.

use super::*;
use crate::support::server::RedisServer;
use crate::support::{http, local, until};
use std::time::Duration;
use tokio::process::Command;

async fn redkeep(endpoint: &str, line: &str) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_redkeep"));
    command.args(line.split(' ')).env("NO_COLOR", "1").env("REDKEEP_ENDPOINT", endpoint).kill_on_drop(true);
    let output = tokio::time::timeout(OPERATION, command.output()).await.expect("it ends").unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn a_cluster_is_restored_and_deleted_by_command() {
    let source = RedisServer::start().await;
    source.command(&["SET", "key", "value"]).await;
    let (watch, setup) = local::keeper("");
    let service = setup.cluster("main", &[&source.address()], "").start().await;
    let backup = service.clients.take("main", "first").await.id;
    let (code, out, err) = redkeep(&service.endpoint, &format!("cluster restore {backup} --name again --replicas 1 --label team=shop --wait")).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("cluster again was seen with health ALIVE"), "{out}");
    let (code, out, _) = redkeep(&service.endpoint, "cluster get again").await;
    assert!(code == 0 && out.contains("REPLICA") && out.contains("team=shop"), "{out}");
    assert_eq!(watch.servers().len(), 2);
    let (code, _, err) = redkeep(&service.endpoint, &format!("cluster restore {backup} --name again")).await;
    assert!(code == 4 && err.contains("named again already"), "{code} {err}");
    let (code, _, err) = redkeep(&service.endpoint, "cluster forget again").await;
    assert!(code == 4 && err.contains("ClusterService.Delete"), "{err}");
    let (code, _, err) = redkeep(&service.endpoint, "cluster delete main").await;
    assert!(code == 4 && err.contains("ForgetCluster"), "{err}");
    let (code, _, err) = redkeep(&service.endpoint, "cluster delete again --wait").await;
    assert_eq!(code, 0, "{err}");
    assert!(watch.servers().is_empty());
    service.stop().await;
}

#[tokio::test]
async fn a_cluster_is_restored_and_deleted_over_rest() {
    let source = RedisServer::start().await;
    source.command(&["SET", "key", "value"]).await;
    let (watch, setup) = local::keeper("");
    let service = setup.cluster("main", &[&source.address()], "").start().await;
    let backup = service.clients.take("main", "first").await.id;
    let body = serde_json::json!({
        "backupId": backup, "name": "again", "environment": "PRODUCTION", "configSpec": { "resources": { "resourcePresetId": "hm3-c2-m8" } },
        "hostSpecs": [{ "zoneId": "a", "subnetId": "b" }], "networkId": "net", "tlsEnabled": false,
    });
    let host = format!("Host: {}", service.address());
    let post = ["POST /managed-redis/v1/clusters:restore HTTP/1.1", &host, "Content-Type: application/json"];
    let answer = http::ask(service.address(), &post, body.to_string().as_bytes()).await;
    let told: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(answer.status, 200, "{told}");
    let metadata = serde_json::json!({
        "@type": "type.googleapis.com/yandex.cloud.mdb.redis.v1.RestoreClusterMetadata", "clusterId": "again", "backupId": backup,
    });
    assert_eq!(told["metadata"], metadata);
    let get = async |id: &str| -> serde_json::Value {
        let line = format!("GET /operations/{id} HTTP/1.1");
        serde_json::from_slice(&http::ask(service.address(), &[&line, &host], &[]).await.body).unwrap()
    };
    let id = told["id"].as_str().unwrap().to_owned();
    let bound = Duration::from_secs(60);
    let ended = until("the operation ends", bound, async || Some(get(&id).await).filter(|told| told["done"] == true)).await;
    assert_eq!(ended["response"]["@type"], "type.googleapis.com/yandex.cloud.mdb.redis.v1.Cluster", "{ended}");
    assert_eq!((&ended["response"]["id"], &ended["response"]["status"]), (&"again".into(), &"RUNNING".into()), "{ended}");
    assert_eq!(watch.servers().len(), 1);
    let answer = http::ask(service.address(), &["DELETE /managed-redis/v1/clusters/again HTTP/1.1", &host], &[]).await;
    let told: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let id = told["id"].as_str().unwrap().to_owned();
    let ended = until("the operation ends", bound, async || Some(get(&id).await).filter(|told| told["done"] == true)).await;
    assert_eq!(ended["response"]["@type"], "type.googleapis.com/google.protobuf.Empty", "{ended}");
    assert!(watch.servers().is_empty());
    service.stop().await;
}
