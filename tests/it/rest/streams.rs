//! Goal: a stream arrives line by line while the work goes on, and ends with it.

use super::{Line, get, request, send};
use crate::support::scripted::ScriptedRedis;
use redkeep::pb::own;
use serde_json::Value;
use std::time::{Duration, Instant};
use tokio_stream::StreamExt;

fn result(line: &str) -> Value {
    assert!(line.ends_with('\n') && line.matches('\n').count() == 1, "{line:?}");
    serde_json::from_str::<Value>(line).unwrap()["result"].clone()
}

#[tokio::test]
async fn an_operation_is_watched_to_its_end() {
    let (source, gate) = ScriptedRedis::gated().await;
    let (source, service) = super::serving(source).await;
    let started = send(&service, "POST", "/redkeep/v1/backups", "{\"clusterId\":\"main\"}").await.json();
    let target = format!("/redkeep/v1/operations/{}:watch", started["id"].as_str().unwrap());
    let mut line = Line::to(&service).await;
    line.send(request("GET", &target, &[], None).as_bytes()).await;
    let head = line.head().await;
    assert_eq!((head.status, head.headers["content-type"].as_str(), head.headers.get("content-length")), (200, "application/x-ndjson", None));

    // The first state is there while the source has given nothing.
    let first = result(&line.chunk().await.unwrap());
    assert_eq!((&first["operation"]["id"], &first["operation"]["done"]), (&started["id"], &Value::Bool(false)));
    source.wait_for(|counts| counts.psyncs == 1).await;
    gate.notify_one();
    let mut states = vec![first];
    while let Some(chunk) = line.chunk().await {
        states.push(result(&chunk));
    }
    let revisions: Vec<i64> = states.iter().map(|state| state["revision"].as_str().unwrap().parse().unwrap()).collect();
    assert!(revisions.windows(2).all(|pair| pair[0] < pair[1]), "{revisions:?}");
    let last = states.last().unwrap();
    assert_eq!((&last["operation"]["done"], &last["operation"]["response"]["state"]), (&Value::Bool(true), &"AVAILABLE".into()));
    assert!(states[..states.len() - 1].iter().all(|state| state["operation"]["done"] == false), "only the last one is the end");

    // Its head comes without waiting for anything more.
    line.send(request("HEAD", &target, &[], None).as_bytes()).await;
    let head = line.head().await;
    assert_eq!((head.status, head.headers["content-type"].as_str()), (200, "application/x-ndjson"));

    // The connection goes on, and an operation that has ended has one state.
    line.send(request("GET", &target, &[], None).as_bytes()).await;
    line.head().await;
    assert_eq!(result(&line.chunk().await.unwrap())["operation"]["done"], true);
    assert_eq!(line.chunk().await, None);
    service.stop().await;
}

#[tokio::test]
async fn states_come_at_most_twice_a_second() {
    let (_source, service) = super::willing().await;
    let mut watched = service.clients.own_operations.clone();
    let started = service.clients.create("main", "one").await.unwrap();
    let mut states = watched.watch(own::WatchOperationRequest { operation_id: started.id.clone() }).await.unwrap().into_inner();
    let mut arrivals = Vec::new();
    while let Some(state) = states.next().await {
        arrivals.push((Instant::now(), state.unwrap().operation.unwrap().done));
    }
    assert!(arrivals.last().unwrap().1);
    for pair in arrivals.windows(2) {
        // Some room, because arrivals are measured here and not where they were sent.
        assert!(pair[1].0 - pair[0].0 > Duration::from_millis(400), "{arrivals:?}");
    }
    service.stop().await;
}

#[tokio::test]
async fn what_cannot_be_watched_is_an_ordinary_answer() {
    let (_source, service) = super::stalling().await;
    let answer = get(&service, "/redkeep/v1/operations/nothing:watch").await;
    assert_eq!((answer.status, answer.error().0), (404, 5));
    assert_eq!(get(&service, "/redkeep/v1/operations/x:watch?nonsense=1").await.fields(), ["nonsense"]);
    assert_eq!(get(&service, "/managed-redis/v1/clusters/main:stream_logs").await.status, 501, "a stream that is not built");

    // A time limit that ends a stream is its last line.
    let started = send(&service, "POST", "/redkeep/v1/backups", "{\"clusterId\":\"main\"}").await.json();
    let target = format!("/redkeep/v1/operations/{}:watch", started["id"].as_str().unwrap());
    let mut line = Line::to(&service).await;
    line.send(request("GET", &target, &[("Grpc-Timeout", "2S")], None).as_bytes()).await;
    assert_eq!(line.head().await.status, 200);
    let mut last = String::new();
    while let Some(chunk) = line.chunk().await {
        last = chunk;
    }
    assert_eq!(serde_json::from_str::<Value>(&last).unwrap()["error"]["code"], 4);
    service.stop().await;
}
