//! Goal: a body is read as it is meant or refused, within its limits, and the connection goes on.

use super::{Line, get, request, send, taken, willing};
use std::time::Duration;
use tokio::io::AsyncWriteExt;

const CREATE: &str = "/redkeep/v1/backups";

#[tokio::test]
async fn broken_json_in_many_forms() {
    let (_source, service) = willing().await;
    let table = [
        ("null", "must be a JSON object"),
        ("[]", "must be a JSON object"),
        ("\"main\"", "must be a JSON object"),
        ("5", "must be a JSON object"),
        (" ", "no valid JSON"),
        ("{", "no valid JSON"),
        ("{\"clusterId\":\"main\"", "no valid JSON"),
        ("{\"clusterId\":\"main\",}", "no valid JSON"),
        ("{\"clusterId\":\"main\"}}", "no valid JSON"),
        ("{\"clusterId\":\"main\"} {}", "no valid JSON"),
        ("{clusterId:\"main\"}", "no valid JSON"),
        ("{'clusterId':'main'}", "no valid JSON"),
        ("{\"clusterId\":\"\\ud800\"}", "no valid JSON"),
        ("{\"clusterId\":\"main\",\"name\":NaN}", "no valid JSON"),
        ("\u{feff}{\"clusterId\":\"main\"}", "no valid JSON"),
        ("clusterId=main", "no valid JSON"),
        ("{\"clusterId\":\"main\",\"clusterId\":\"main\"}", "given twice"),
        ("{\"clusterId\":\"main\",\"cluster_id\":\"main\"}", "cluster_id is given twice"),
        ("{\"clusterId\":\"main\",\"nmae\":\"x\"}", "nmae is no field"),
        ("{\"clusterId\":5}", "cluster_id must be a text"),
        ("{\"clusterId\":[\"main\"]}", "cluster_id must be a text"),
        ("{\"clusterId\":\"main\",\"labels\":{\"a\":null}}", "labels[\"a\"] must not be null"),
        ("{\"clusterId\":\"main\",\"labels\":{\"a\":1}}", "labels[\"a\"] must be a text"),
        ("{\"clusterId\":\"main\",\"expiresAt\":\"tomorrow\"}", "expires_at must be a time"),
        ("{\"clusterId\":\"main\",\"expiresAt\":4000000000}", "expires_at must be a time"),
    ];
    for (body, words) in table {
        let answer = send(&service, "POST", CREATE, body).await;
        let (code, message) = answer.error();
        assert_eq!((answer.status, code), (400, 3), "{body}");
        assert!(message.contains(words), "{body}: {message}");
    }
    let mut line = Line::to(&service).await;
    let mut bytes = request("POST", CREATE, &[], None).into_bytes();
    bytes.truncate(bytes.len() - 2);
    bytes.extend_from_slice(b"Content-Length: 17\r\n\r\n{\"clusterId\":\"\xff\"}");
    line.send(&bytes).await;
    assert_eq!(line.answer().await.status, 400);
    assert!(service.clients.all_backups().await.is_empty());
    service.stop().await;
}

#[tokio::test]
async fn deep_and_wide_bodies() {
    let (_source, service) = willing().await;
    let deep = |levels: usize| format!("{{\"labels\":{}{}}}", "{\"a\":".repeat(levels), "1".to_owned() + &"}".repeat(levels));
    assert!(send(&service, "POST", CREATE, &deep(200)).await.error().1.contains("100 levels"));
    assert!(send(&service, "POST", CREATE, &deep(100_000)).await.error().1.contains("100 levels"));
    assert!(send(&service, "POST", CREATE, &deep(98)).await.error().1.contains("labels[\"a\"] must be a text"));
    let wide = format!("{{\"labels\":[{}]}}", vec!["0"; 1_000_000].join(","));
    assert!(send(&service, "POST", CREATE, &wide).await.error().1.contains("65536 values"));
    service.stop().await;
}

#[tokio::test]
async fn types_of_bodies() {
    let (_source, service) = willing().await;
    // The request itself is refused by its rules, which shows that it was read.
    for kind in ["application/json", "Application/JSON", "application/json; charset=utf-8", "application/json;odd=\"x;y\""] {
        let answer = Line::to(&service).await.ask("POST", CREATE, &[("Content-Type", kind)], Some("{}")).await;
        assert_eq!(answer.fields(), ["cluster_id"], "{kind}");
    }
    assert_eq!(Line::to(&service).await.ask("POST", CREATE, &[], Some("{}")).await.fields(), ["cluster_id"], "no type is JSON");
    assert_eq!(Line::to(&service).await.ask("POST", CREATE, &[], Some("")).await.fields(), ["cluster_id"], "an empty body is an empty object");
    assert_eq!(Line::to(&service).await.ask("POST", CREATE, &[], None).await.fields(), ["cluster_id"], "and so is none");
    for headers in [
        [("Content-Type", "text/plain")].as_slice(),
        &[("Content-Type", "application/x-www-form-urlencoded")],
        &[("Content-Type", "application/jsonx")],
        &[("Content-Type", "")],
        &[("Content-Type", "application/json"), ("Content-Encoding", "gzip")],
    ] {
        let answer = Line::to(&service).await.ask("POST", CREATE, headers, Some("{}")).await;
        assert_eq!((answer.status, answer.error().0), (415, 3), "{headers:?}");
    }
    service.stop().await;
}

#[tokio::test]
async fn numbers_and_names_both_ways() {
    let (_source, service) = willing().await;
    // Method: calls that are not built answer 501 once their request was understood.
    let create = |size: &str| format!("{{\"folderId\":\"default\",\"configSpec\":{{\"resources\":{{\"diskSize\":{size}}}}}}}");
    for size in ["\"17179869184\"", "17179869184", "1e9", "\"-1\"", "null"] {
        assert_eq!(send(&service, "POST", "/managed-redis/v1/clusters", &create(size)).await.status, 501, "{size}");
    }
    for size in ["\"x\"", "1.5", "9223372036854775808", "\"9223372036854775808\"", "\"01\"", "true", "\"\""] {
        let refused = send(&service, "POST", "/managed-redis/v1/clusters", &create(size)).await;
        assert_eq!(refused.fields(), ["config_spec.resources.disk_size"], "{size}");
    }
    for (environment, status) in [("\"PRODUCTION\"", 501), ("1", 501), ("99", 501), ("\"production\"", 400), ("\"1\"", 400), ("true", 400)] {
        let answer = send(&service, "POST", "/managed-redis/v1/clusters", &format!("{{\"environment\":{environment}}}")).await;
        assert_eq!(answer.status, status, "{environment}");
    }
    // Out: 64 bits as text, names for values, nothing at its default.
    let backup = taken(&service, "one").await;
    assert!(backup["sizeBytes"].as_str().unwrap().parse::<i64>().unwrap() > 0, "{backup:#}");
    assert_eq!((backup["state"].as_str(), backup["type"].as_str()), (Some("AVAILABLE"), Some("MANUAL")));
    assert!(backup.get("labels").is_none() && backup.get("holds").is_none() && backup.get("error").is_none());
    service.stop().await;
}

#[tokio::test]
async fn masks_in_both_spellings() {
    let (_source, service) = willing().await;
    let id = taken(&service, "one").await["id"].as_str().unwrap().to_owned();
    for (mask, expires_at) in [("expiresAt", "2096-01-01T00:00:00Z"), ("expires_at", "2097-01-01T00:00:00.500Z")] {
        let body = format!("{{\"updateMask\":\"{mask}\",\"expiresAt\":\"{expires_at}\",\"name\":\"ignored\"}}");
        let started = send(&service, "PATCH", &format!("{CREATE}/{id}"), &body).await;
        let backup = super::ended(&service, &started.json()).await["response"].clone();
        assert_eq!((backup["expiresAt"].as_str(), backup["name"].as_str()), (Some(expires_at), Some("one")), "{mask}");
    }
    service.stop().await;
}

#[tokio::test]
async fn bodies_that_are_not_asked_for() {
    let (_source, service) = willing().await;
    let mut line = Line::to(&service).await;
    // One connection: what is not read would be taken for the next request.
    for body in ["{}", "null", "not JSON at all", "{\"clusterId\":\"other\"}", &"x".repeat(64 * 1024)] {
        let answer = line.ask("POST", "/clusters/nothing:backup", &[("Content-Type", "text/plain")], Some(body)).await;
        assert_eq!((answer.status, answer.error().0), (404, 5), "{answer:?}");
        let answer = line.ask("GET", "/managed-redis/v1/clusters/main", &[], Some(body)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let answer = line.ask("POST", "/clusters/nothing:backup", &[], Some(&"x".repeat(64 * 1024 + 1))).await;
    assert_eq!((answer.status, answer.error().0), (413, 8));
    service.stop().await;
}

#[tokio::test]
async fn bodies_that_are_too_long() {
    let (_source, service) = willing().await;
    let body = format!("{{\"clusterId\":\"{}\"}}", "x".repeat(5 << 20));
    let answer = send(&service, "POST", CREATE, &body).await;
    assert_eq!((answer.status, answer.error().0), (413, 8), "{answer:?}");

    // In pieces, without a length.
    let mut line = Line::to(&service).await;
    line.send(format!("POST {CREATE} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n").as_bytes()).await;
    for piece in body.as_bytes().chunks(64 << 10) {
        line.send(format!("{:x}\r\n", piece.len()).as_bytes()).await;
        line.send(piece).await;
        line.send(b"\r\n").await;
    }
    line.send(b"0\r\n\r\n").await;
    assert_eq!(line.answer().await.status, 413);

    // A client that asks first is told before it sends anything.
    let mut line = Line::to(&service).await;
    line.send(format!("POST {CREATE} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5242880\r\n\r\n").as_bytes()).await;
    assert_eq!(line.answer().await.status, 413);

    let most = format!("{{\"clusterId\":\"{}\"}}", "x".repeat((4 << 20) - 16));
    assert_eq!(most.len(), 4 << 20);
    assert_eq!(send(&service, "POST", CREATE, &most).await.fields(), ["cluster_id"], "the longest body is read");
    assert_eq!(get(&service, CREATE).await.status, 200);
    service.stop().await;
}

#[tokio::test]
async fn a_body_that_breaks_off_does_no_harm() {
    let (_source, service) = willing().await;
    let mut line = Line::to(&service).await;
    line.send(format!("POST {CREATE} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{{\"clusterId\":").as_bytes()).await;
    line.stream.shutdown().await.unwrap();
    // Whatever it is told, the service goes on and nothing was started.
    let _ = tokio::time::timeout(Duration::from_secs(5), line.line()).await;
    assert!(service.clients.all_backups().await.is_empty());
    service.stop().await;
}
