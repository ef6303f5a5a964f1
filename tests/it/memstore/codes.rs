//! Goal: each situation has its code. Method: a call for each, to clusters that are each unfit in one way.

use super::http::{call, send};
use super::{BUCKETS, Door, Pair, setup};
use crate::support::scripted::ScriptedRedis;
use crate::support::service::{Service, Setup};
use redkeep::pb::own;
use serde_json::json;

/// `main`, and beside it a cluster for each thing that can be amiss with one.
async fn town() -> (Vec<Pair>, ScriptedRedis, Service) {
    let main = Pair::willing().await;
    let sharded = Pair::willing().await;
    for server in [&sharded.primary, &sharded.replica] {
        server.set_info("cluster_enabled", 1);
    }
    let twins = Pair::willing().await;
    for server in [&twins.primary, &twins.replica] {
        server.set_info("role", "master").set_info("connected_slaves", 0).unset_info("slave0");
    }
    let slow = Pair::stalling().await;
    let shop = Pair::willing().await;
    let lone = ScriptedRedis::willing().await;
    let mut setup = setup().section(BUCKETS).cluster_apart("lone", &lone.address(), "").cluster_apart("dead", "127.0.0.1:1", "");
    let pairs = vec![main, sharded, twins, slow, shop];
    for (pair, (id, extra)) in pairs.iter().zip([("main", ""), ("sharded", ""), ("twins", ""), ("slow", ""), ("shop-1", "folder_id = \"shop\"")]) {
        setup = pair.join(setup, id, extra);
    }
    let service = setup.start().await;
    (pairs, lone, service)
}

#[tokio::test]
async fn a_create_is_refused_by_its_code() {
    let (pairs, _lone, service) = town().await;
    let door = Door::of(&service);
    // In order of the checks: form, fields, existence, state, name.
    for (body, code) in [
        ("", "INVALID_JSON"),
        ("clusterId=main&name=abcd", "INVALID_JSON"),
        ("[]", "INVALID_JSON"),
        ("{\"clusterId\":\"main\",\"name\":\"abcd\",\"name\":\"abcd\"}", "INVALID_JSON"),
        ("{\"clusterId\":\"main\",\"name\":\"abcd\"} // mine", "INVALID_JSON"),
        ("{\"name\":\"abcd\"}", "INVALID_ARGUMENT"),
        ("{\"clusterId\":\"main\"}", "INVALID_ARGUMENT"),
        ("{\"clusterId\":\"\",\"name\":\"abcd\"}", "INVALID_ARGUMENT"),
        ("{\"clusterId\":7,\"name\":\"abcd\"}", "INVALID_ARGUMENT"),
        ("{\"clusterId\":\"main\",\"name\":null}", "INVALID_ARGUMENT"),
        ("{\"clusterId\":\"main\",\"name\":\"Abcd\"}", "INVALID_ARGUMENT"),
        ("{\"clusterId\":\"nobody\",\"name\":\"-\"}", "INVALID_ARGUMENT"),
    ] {
        door.post("/v1/backups", body).await.refuses(400, code);
    }
    for (cluster, status, code) in [
        ("nobody", 404, "CLUSTER_NOT_FOUND"),
        ("NOBODY", 404, "CLUSTER_NOT_FOUND"),
        ("shop-1", 404, "CLUSTER_NOT_FOUND"),
        ("lone", 400, "TOO_FEW_NODES"),
        ("twins", 400, "REPLICA_REQUIRED"),
        ("sharded", 400, "CLUSTER_MODE_ENABLED"),
    ] {
        door.create(cluster, "abcd").await.refuses(status, code);
    }
    assert!(door.names("").await.is_empty(), "nothing was begun");
    assert!(pairs.iter().all(|pair| pair.primary.counts().psyncs + pair.replica.counts().psyncs == 0));

    door.create("slow", "slow-1").await.object(201);
    let first = service.clients.all_backups().await.remove(0).operation_id;
    let message = door.create("slow", "slow-2").await.refuses(409, "OPERATION_IN_PROGRESS");
    assert!(message.contains(&first), "{message}");
    door.create("main", "slow-1").await.refuses(409, "NAME_TAKEN");
    // A server that does not answer is told by the operation, as through every other door.
    door.create("dead", "dead-1").await.object(201);
    // What is not known is left aside.
    door.post("/v1/backups", &json!({ "clusterId": "main", "name": "abcd", "labels": { "a": [1] } }).to_string()).await.object(201);
    service.stop().await;
}

#[tokio::test]
async fn a_backup_in_the_making_is_left_alone() {
    let (_pairs, _lone, service) = town().await;
    let door = Door::of(&service);
    door.create("slow", "slow-1").await.object(201);
    for refused in [door.copy("slow-1", "copy-1").await, door.export("slow-1", "reports", "x.rdb").await, door.delete("slow-1").await] {
        let message = refused.refuses(409, "BACKUP_NOT_AVAILABLE");
        assert!(message.ends_with("it is Creating"), "{message}");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_cluster_whose_adoption_is_under_way_is_not_running() {
    // Method: the one worker is held up, so that the adoption waits.
    let (main, slow) = (Pair::willing().await, Pair::stalling().await);
    let service = slow.join(setup().executor("workers", "1"), "slow", "").start().await;
    let door = Door::of(&service);
    door.create("slow", "slow-1").await.object(201);
    slow.replica.wait_for(|counts| counts.psyncs == 1).await;
    let connection = Some(own::Connection { nodes: vec![main.primary.address()], ..Default::default() });
    let adopt = own::AdoptClusterRequest { cluster_id: "main".into(), connection, ..Default::default() };
    service.clients.fleet.clone().adopt_cluster(adopt).await.unwrap();
    door.create("main", "abcd").await.refuses(409, "CLUSTER_NOT_RUNNING");
    service.stop().await;
}

#[tokio::test]
async fn what_is_read_is_not_deleted() {
    // Method: the one worker is held up by another cluster, so that copies and exports wait.
    let (main, slow) = (Pair::willing().await, Pair::stalling().await);
    let setup = slow.join(main.join(setup().executor("workers", "1").section(BUCKETS), "main", ""), "slow", "");
    let service = setup.start().await;
    let door = Door::of(&service);
    door.take("main", "abcd").await;
    door.create("slow", "slow-1").await.object(201);
    slow.replica.wait_for(|counts| counts.psyncs == 1).await;

    door.copy("abcd", "copy-1").await.object(201);
    let message = door.delete("abcd").await.refuses(409, "OPERATION_IN_PROGRESS");
    assert!(message.contains("operation 0"), "{message}");
    // Others may read it too, but not to the same place, nor under the same name.
    door.copy("abcd", "copy-2").await.object(201);
    door.copy("abcd", "copy-1").await.refuses(409, "NAME_TAKEN");
    door.copy("abcd", "abcd").await.refuses(409, "NAME_TAKEN");
    door.export("abcd", "reports/a", "x.rdb").await.object(200);
    door.export("abcd", "reports/a/", "x.rdb").await.refuses(409, "OPERATION_IN_PROGRESS");
    door.export("abcd", "reports/b", "x.rdb").await.object(200);
    assert_eq!(door.backup("abcd").await.is(200)["status"], "Available");
    door.delete("copy-1").await.refuses(409, "BACKUP_NOT_AVAILABLE");

    // Once they have ended, it can go.
    let slow_1 = service.clients.all_backups().await.into_iter().find(|backup| backup.name == "slow-1").unwrap();
    let cancel = redkeep::pb::operation::CancelOperationRequest { operation_id: slow_1.operation_id };
    service.clients.operations.clone().cancel(cancel).await.unwrap();
    door.reaches("copy-2", "Available").await;
    crate::support::until("it can go", super::SOON, async || (door.delete("abcd").await.status == 200).then_some(())).await;
    service.stop().await;
}

#[tokio::test]
async fn copies_and_exports_are_refused_by_their_codes() {
    let (_pairs, _lone, service) = town().await;
    let door = Door::of(&service);
    door.take("main", "abcd").await;
    door.take("main", "efgh").await;
    for name in ["", "abc", "Copy", "copy--1", "copy.1", "copy\n"] {
        door.copy("abcd", name).await.refuses(400, "INVALID_ARGUMENT");
    }
    door.post("/v1/backups/abcd/copy", "{}").await.refuses(400, "INVALID_ARGUMENT");
    door.post("/v1/backups/nobody/copy", "{}").await.refuses(400, "INVALID_ARGUMENT");
    door.copy("nobody", "copy-1").await.refuses(404, "BACKUP_NOT_FOUND");
    door.copy("abcd", "efgh").await.refuses(409, "NAME_TAKEN");

    let too_long = "a".repeat(199);
    for (destination, name) in [
        ("/reports", "x.rdb"),
        ("", "x.rdb"),
        ("reports/../a", "x.rdb"),
        ("reports/a//b", "x.rdb"),
        ("reports/a b", "x.rdb"),
        ("reports", ".."),
        ("reports", "a/b"),
        ("reports", "x y"),
        ("reports", &too_long),
        ("reports/a", &too_long[..197]),
    ] {
        let message = door.export("abcd", destination, name).await.refuses(400, "INVALID_ARGUMENT");
        assert!(message.starts_with("destination ") || message.starts_with("name "), "{message}");
    }
    door.post("/v1/backups/abcd/export", "{\"destination\":\"reports\"}").await.refuses(400, "INVALID_ARGUMENT");
    door.export("nobody", "reports", "x.rdb").await.refuses(404, "BACKUP_NOT_FOUND");
    door.export("abcd", "nowhere/a", "x.rdb").await.refuses(404, "BUCKET_NOT_FOUND");
    door.export("abcd", "REPORTS", "x.rdb").await.refuses(404, "BUCKET_NOT_FOUND");
    door.export("abcd", "foreign/a", "x.rdb").await.refuses(403, "BUCKET_FORBIDDEN");
    door.export("abcd", "reports/a", &too_long[..196]).await.object(200);
    service.stop().await;
}

#[tokio::test]
async fn a_held_backup_stays() {
    let pair = Pair::willing().await;
    let service = pair.join(setup(), "main", "").start().await;
    let door = Door::of(&service);
    let id = door.take("main", "abcd").await["id"].as_str().unwrap().to_owned();
    let hold = own::UpdateBackupRequest {
        backup_id: id,
        update_mask: Some(prost_types::FieldMask { paths: vec!["holds".into()] }),
        holds: vec!["case 1729".into()],
        ..Default::default()
    };
    let operation = service.clients.backups.clone().update(hold).await.unwrap().into_inner();
    service.clients.ended(&operation.id, super::SOON).await;
    let message = door.delete("abcd").await.refuses(409, "BACKUP_HELD");
    assert!(message.contains("case 1729"), "{message}");
    service.stop().await;
}

#[tokio::test]
async fn a_project_has_a_quota() {
    let pair = Pair::willing().await;
    let service = pair.join(setup(), "main", "").section("[memstore]\nquota = 2").start().await;
    let door = Door::of(&service);
    door.take("main", "abcd").await;
    door.copy("abcd", "copy-1").await.object(201);
    door.reaches("copy-1", "Available").await;
    door.copy("abcd", "copy-2").await.refuses(403, "QUOTA_EXCEEDED");
    door.create("main", "efgh").await.refuses(403, "QUOTA_EXCEEDED");
    door.create("nobody", "efgh").await.refuses(404, "CLUSTER_NOT_FOUND");
    // What is deleted counts no more, whenever its files go.
    door.delete("copy-1").await.object(200);
    let (one, two) = tokio::join!(door.copy("abcd", "copy-3"), door.copy("abcd", "copy-4"));
    let mut both = [one.status, two.status];
    both.sort_unstable();
    assert_eq!(both, [201, 403], "the last place is given once");
    service.stop().await;
}

#[tokio::test]
async fn methods_paths_and_bodies_have_their_codes() {
    let service = setup().start().await;
    let door = Door::of(&service);
    let ask = async |method: &str, path: &str| call(&service.endpoint, method, path, &[], "").await;
    for (method, path, allow) in [
        ("PUT", "/v1/backups", "GET, HEAD, POST"),
        ("DELETE", "/v1/backups", "GET, HEAD, POST"),
        ("POST", "/v1/backups/abcd", "DELETE, GET, HEAD"),
        ("PATCH", "/v1/backups/abcd", "DELETE, GET, HEAD"),
        ("GET", "/v1/backups/abcd/copy", "POST"),
        ("DELETE", "/v1/backups/abcd/export", "POST"),
        ("OPTIONS", "/v1/backups/abcd/export", "POST"),
    ] {
        let answer = ask(method, path).await;
        answer.refuses(405, "METHOD_NOT_ALLOWED");
        assert_eq!(answer.header("allow"), allow, "{method} {path}");
    }
    for path in ["/v1", "/v1/", "/v1/backups/", "/v1/backups/abcd/", "/v1/backups//copy", "/v1/clusters", "/v1/backups/abcd/restore", "/v1/%62ackups"] {
        ask("GET", path).await.refuses(404, "ROUTE_NOT_FOUND");
    }
    for path in ["/v2/backups", "/v1backups"] {
        let elsewhere = ask("GET", path).await;
        assert!(elsewhere.status == 404 && !elsewhere.body.contains("ROUTE_NOT_FOUND"), "{elsewhere:?}");
    }
    // What the port itself refuses has the same shape.
    let rebound = send(&service.endpoint, b"GET /v1/backups HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n").await;
    rebound.refuses(403, "PERMISSION_DENIED");

    // A body that says that it is too long is not waited for; one that says nothing is cut off.
    let head = "POST /v1/backups HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    let told = send(&service.endpoint, format!("{head}Content-Length: {}\r\n\r\n", 5 * 1024 * 1024).as_bytes()).await;
    told.refuses(413, "BODY_TOO_LARGE");
    let levels = format!("{{\"clusterId\":\"main\",\"name\":\"abcd\",\"x\":{}{}}}", "[".repeat(199), "]".repeat(199));
    door.post("/v1/backups", &levels).await.refuses(400, "INVALID_JSON");
    let chunked = send(&service.endpoint, format!("{head}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n").as_bytes()).await;
    chunked.refuses(400, "INVALID_ARGUMENT");
    service.stop().await;
}

#[tokio::test]
async fn a_head_is_a_get_without_its_body() {
    let pair = Pair::willing().await;
    let service = pair.join(setup(), "main", "").start().await;
    let door = Door::of(&service);
    door.take("main", "abcd").await;
    for (path, status) in [("/v1/backups", 200), ("/v1/backups/abcd", 200), ("/v1/backups/nobody", 404), ("/v1/nothing", 404)] {
        let (get, head) = (door.get(path).await, call(&service.endpoint, "HEAD", path, &[], "").await);
        assert_eq!((head.status, head.body.as_str()), (status, ""), "{path}");
        for header in ["content-type", "content-length"] {
            assert!(!get.header(header).is_empty() && head.header(header) == get.header(header), "{path}");
        }
    }
    service.stop().await;
}

#[tokio::test]
async fn the_calls_can_be_turned_off() {
    let service = Setup::new().section("[memstore]\nenabled = false").start().await;
    let answer = call(&service.endpoint, "GET", "/v1/backups", &[], "").await;
    assert!(answer.status == 404 && !answer.body.contains("ROUTE_NOT_FOUND"), "{answer:?}");
    service.stop().await;
}
