//! Goal: answers have the shape that is promised, to the byte where readers may rely on it.

use super::{Line, ended, get, send, stalling, taken, willing};
use serde_json::Value;
use std::time::{Duration, Instant};

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{pointer} of {value:#}"))
}

#[tokio::test]
async fn the_operation_of_a_backup() {
    // Goal: this is the JSON that clients see, with only ids and times put in.
    let (source, service) = stalling().await;
    let started = Line::to(&service).await.ask("POST", "/managed-redis/v1/clusters/main:backup", &[], None).await;
    assert_eq!((started.status, started.headers["content-type"].as_str(), started.headers["cache-control"].as_str()), (200, "application/json", "no-store"));
    let json = started.json();
    let (id, created_at, modified_at) = (text(&json, "/id"), text(&json, "/createdAt"), text(&json, "/modifiedAt"));
    let backup_id = text(&json, "/metadata/backupId");
    let expected = format!(
        "{{\"id\":\"{id}\",\"description\":\"Create a backup\",\"createdAt\":\"{created_at}\",\"createdBy\":\"anonymous\",\"modifiedAt\":\"{modified_at}\",\"done\":false,\
         \"metadata\":{{\"@type\":\"type.googleapis.com/yandex.cloud.mdb.redis.v1.BackupClusterMetadata\",\"clusterId\":\"main\",\"backupId\":\"{backup_id}\",\
         \"progress\":{{\"waitingFor\":\"a worker\"}}}}}}"
    );
    assert_eq!(started.body, expected);
    for time in [created_at, modified_at] {
        assert!(time.ends_with('Z') && time.len() <= 30, "{time}");
    }

    source.wait_for(|counts| counts.psyncs == 1).await;
    let cancelled = Line::to(&service).await.ask("POST", &format!("/operations/{id}:cancel"), &[], None).await;
    assert_eq!(cancelled.status, 200);
    let operation = ended(&service, &json).await;
    assert_eq!(operation["error"], serde_json::json!({"code": 1, "message": "the operation was cancelled"}));
    assert!(operation.get("response").is_none());
    // Both methods, and both of what is known by now.
    let again = get(&service, &format!("/operations/{id}:cancel")).await.json();
    assert_eq!(again, get(&service, &format!("/operations/{id}")).await.json());
    service.stop().await;
}

#[tokio::test]
async fn the_whole_way() {
    let (_source, service) = willing().await;
    let started = Line::to(&service).await.ask("POST", "/clusters/main:backup", &[], Some("{}")).await.json();
    let operation = ended(&service, &started).await;
    assert_eq!((text(&operation, "/response/@type"), text(&operation, "/response/id")), ("type.googleapis.com/yandex.cloud.mdb.redis.v1.Cluster", "main"));
    assert!(operation["response"].as_object().unwrap().keys().next().is_some_and(|first| first == "@type"));
    let listed = get(&service, "/managed-redis/v1/backups?folderId=default").await.json();
    let backup = &listed["backups"][0];
    let id = text(backup, "/id");
    assert_eq!(&get(&service, &format!("/managed-redis/v1/backups/{id}")).await.json(), backup);
    assert_eq!(backup["sourceShardNames"], serde_json::json!(["shard1"]));
    let deleted = ended(&service, &send(&service, "DELETE", &format!("/managed-redis/v1/backups/{id}"), "").await.json()).await;
    assert_eq!(deleted["response"], serde_json::json!({"@type": "type.googleapis.com/google.protobuf.Empty"}));
    assert_eq!(get(&service, "/managed-redis/v1/backups?folderId=default").await.body, "{\"backups\":[]}");
    assert_eq!(get(&service, &format!("/managed-redis/v1/backups/{id}")).await.error().0, 5);
    service.stop().await;
}

#[tokio::test]
async fn the_same_over_http_2() {
    let (_source, service) = willing().await;
    taken(&service, "one").await;
    // Clear text needs no certificates; the client asks for a provider of them all the same.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    for target in ["/redkeep/v1/backups?pageSize=1", "/managed-redis/v1/clusters/%6dain", "/managed-redis/v1/backups/a%3Ab", "/nothing"] {
        let over_1 = get(&service, target).await;
        let over_2 = client.get(format!("{}{target}", service.endpoint)).send().await.unwrap();
        assert_eq!(over_2.version(), reqwest::Version::HTTP_2);
        assert_eq!((over_2.status().as_u16(), over_2.headers()["content-type"].to_str().unwrap()), (over_1.status, "application/json"), "{target}");
        assert_eq!(over_2.text().await.unwrap(), over_1.body, "{target}");
    }
    let head = client.head(format!("{}/redkeep/v1/backups", service.endpoint)).send().await.unwrap();
    assert!(head.headers()["content-length"].to_str().unwrap().parse::<usize>().unwrap() > 100);
    assert_eq!(head.text().await.unwrap(), "");
    let long = client.post(format!("{}/redkeep/v1/backups", service.endpoint)).body("x".repeat(5 << 20)).send().await.unwrap();
    assert_eq!(long.status(), 413);
    service.stop().await;
}

#[tokio::test]
async fn head_is_get_without_its_body() {
    let (_source, service) = willing().await;
    let mut line = Line::to(&service).await;
    for target in ["/managed-redis/v1/clusters/main", "/managed-redis/v1/clusters/nothing", "/nothing", "/openapi.json"] {
        let full = line.ask("GET", target, &[], None).await;
        line.send(super::request("HEAD", target, &[], None).as_bytes()).await;
        let head = line.head().await;
        assert_eq!(head.status, full.status, "{target}");
        for name in ["content-length", "content-type", "cache-control"] {
            assert_eq!(head.headers[name], full.headers[name], "{target} {name}");
        }
        // The next answer begins where the head ended: there was no body.
        assert_eq!(line.ask("GET", "/openapi.json", &[], None).await.status, 200);
    }
    line.send(super::request("HEAD", "/clusters/main:backup", &[], None).as_bytes()).await;
    let head = line.head().await;
    assert_eq!((head.status, head.headers["allow"].as_str()), (405, "POST"));
    service.stop().await;
}

#[tokio::test]
async fn errors_are_not_wrapped() {
    let (source, service) = stalling().await;
    let started = Line::to(&service).await.ask("POST", "/clusters/main:backup", &[], None).await.json();
    source.wait_for(|counts| counts.psyncs == 1).await;
    let refused = Line::to(&service).await.ask("POST", "/clusters/main:backup", &[], None).await;
    assert_eq!((refused.status, refused.error().0), (400, 9), "a failed precondition is no 412");
    let json = refused.json();
    assert_eq!(text(&json, "/message"), format!("conflicting operation \"{}\" detected", text(&started, "/id")));
    let kinds: Vec<&str> = json["details"].as_array().unwrap().iter().map(|detail| text(detail, "/@type")).collect();
    assert!(
        kinds.contains(&"type.googleapis.com/google.rpc.PreconditionFailure") && kinds.contains(&"type.googleapis.com/google.rpc.RequestInfo"),
        "{kinds:?}"
    );
    let taken = send(&service, "POST", "/redkeep/v1/backups", "{\"clusterId\":\"main\",\"labels\":{\"UPPER\":\"\"},\"name\":\"-\"}").await;
    assert_eq!(taken.fields(), ["name", "labels[\"UPPER\"]"], "{taken:?}");
    service.stop().await;
}

#[tokio::test]
async fn a_key_makes_a_call_repeatable() {
    let (_source, service) = willing().await;
    let key = [("Idempotency-Key", "5c1b0d7e-0d3c-4a87-8d3f-6f0f3f1f2a11"), ("Content-Type", "application/json")];
    let create = async |name: &str| {
        Line::to(&service).await.ask("POST", "/redkeep/v1/backups", &key, Some(&format!("{{\"clusterId\":\"main\",\"name\":\"{name}\"}}"))).await
    };
    let first = create("one").await.json();
    ended(&service, &first).await;
    assert_eq!(create("one").await.json()["id"], first["id"]);
    assert_eq!(create("two").await.fields(), ["idempotency-key"]);
    assert_eq!(service.clients.all_backups().await.len(), 1);
    let bad = Line::to(&service).await.ask("POST", "/clusters/main:backup", &[("Idempotency-Key", "a b")], None).await;
    assert_eq!(bad.fields(), ["idempotency-key"]);
    service.stop().await;
}

#[tokio::test]
async fn a_time_limit_is_kept() {
    let (source, service) = stalling().await;
    let started = Line::to(&service).await.ask("POST", "/clusters/main:backup", &[], None).await.json();
    source.wait_for(|counts| counts.psyncs == 1).await;
    let target = format!("/redkeep/v1/operations/{}:wait", text(&started, "/id"));
    let asked_at = Instant::now();
    let answer = Line::to(&service).await.ask("GET", &target, &[("Grpc-Timeout", "200m")], None).await;
    assert_eq!((answer.status, answer.error().0), (504, 4));
    assert!(asked_at.elapsed() < Duration::from_secs(20), "{:?}", asked_at.elapsed());
    for limit in ["soon", "5", "5s", "-1S", "123456789S"] {
        let answer = Line::to(&service).await.ask("GET", &target, &[("Grpc-Timeout", limit)], None).await;
        assert_eq!((answer.status, answer.error().0), (400, 3), "{limit}");
    }
    service.stop().await;
}
