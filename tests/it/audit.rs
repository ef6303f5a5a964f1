//! Goal: each call that changes something has one line that says who, what, when, from where and how it ended, and every
//! answer has the id by which it is found. Method: the real service, its file, and the real program killed.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

use crate::support::answers::keyed;
use crate::support::scripted::ScriptedRedis;
use crate::support::service::{Clients, Setup};
use crate::support::until;
use redkeep::pb::{managed, operation as wire, own};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

const SOON: Duration = Duration::from_secs(30);

/// An identifier that was never given out.
const UNKNOWN: &str = "01890000-0000-7000-8000-000000000000";

/// All lines, those of full files too, by the id of their request; each id has one line.
fn lines(folder: &Path) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for file in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if file.file_name().to_string_lossy().starts_with("audit.jsonl") {
            let text = std::fs::read_to_string(file.path()).unwrap();
            assert!(text.is_empty() || text.ends_with('\n'));
            for line in text.lines() {
                let line: Value = serde_json::from_str(line).unwrap();
                let id = line["request_id"].as_str().unwrap().to_owned();
                assert!(found.insert(id.clone(), line).is_none(), "{id} has two lines");
            }
        }
    }
    found
}

/// A request with an id of its own.
fn named<T>(message: T, id: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-client-request-id", id.parse().unwrap());
    request
}

fn create(cluster: &str, name: &str) -> own::CreateBackupRequest {
    own::CreateBackupRequest { cluster_id: cluster.into(), name: name.into(), ..Default::default() }
}

fn id_of(status: &Status) -> &str {
    status.metadata().get("x-request-id").expect("every answer has an id").to_str().unwrap()
}

#[tokio::test]
async fn every_changing_call_has_a_line_and_no_other_has() {
    let source = ScriptedRedis::stalling().await;
    let service = Setup::new().executor("drain", "\"0s\"").cluster("main", &[&source.address()], "folder_id = \"shop\"").start().await;
    let mut clients = service.clients.clone();

    let mut labelled = create("main", "first");
    labelled.labels.insert("owner".into(), "hunter2".into());
    let accepted = clients.backups.create(named(labelled, "accepted")).await.unwrap();
    assert_eq!(accepted.metadata().get("x-request-id").unwrap(), "accepted");
    let operation = accepted.into_inner();
    let conflict = clients.clusters.backup(named(managed::BackupClusterRequest { cluster_id: "main".into() }, "conflict")).await.unwrap_err();
    let missing = clients.backups.delete(named(own::DeleteBackupRequest { backup_id: UNKNOWN.into() }, "missing")).await.unwrap_err();
    let invalid = clients.backups.create(named(create("", "first"), "invalid")).await.unwrap_err();
    let unbuilt = clients.clusters.stop(named(managed::StopClusterRequest { cluster_id: "main".into() }, "unbuilt")).await.unwrap_err();
    let cancel = wire::CancelOperationRequest { operation_id: operation.id.clone() };
    clients.operations.cancel(named(cancel, "cancel")).await.unwrap();
    // Reads leave none.
    clients.operations.get(named(wire::GetOperationRequest { operation_id: operation.id.clone() }, "get")).await.unwrap();
    clients.backups.list(named(own::ListBackupsRequest::default(), "list")).await.unwrap();

    for (status, id, code) in [
        (&conflict, "conflict", Code::FailedPrecondition),
        (&missing, "missing", Code::NotFound),
        (&invalid, "invalid", Code::InvalidArgument),
        (&unbuilt, "unbuilt", Code::Unimplemented),
    ] {
        assert_eq!((status.code(), id_of(status)), (code, id), "{status:?}");
    }
    assert_eq!(conflict.get_error_details().request_info().unwrap().request_id, "conflict");

    // A call is answered when its line is written: there is nothing to wait for.
    let lines = lines(service.setup.folder());
    let told = |id: &str| {
        let line = lines.get(id).unwrap_or_else(|| panic!("{id} has no line in {lines:#?}"));
        assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
        assert_eq!(line["subject"], "anonymous");
        let age = chrono::Utc::now() - line["time"].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
        assert!(age < chrono::TimeDelta::seconds(60) && line["time"].as_str().unwrap().len() == "2026-01-01T00:00:00.000000Z".len());
        ["method", "folder", "target", "operation", "outcome"].map(|key| line[key].as_str().unwrap_or("-").to_owned())
    };
    let cancelled = format!("operations/{}", operation.id);
    assert_eq!(told("accepted"), ["redkeep.v1.BackupService/Create", "shop", "clusters/main", &operation.id, "OK"]);
    assert_eq!(told("conflict"), ["yandex.cloud.mdb.redis.v1.ClusterService/Backup", "shop", "clusters/main", "-", "FAILED_PRECONDITION"]);
    assert_eq!(told("missing"), ["redkeep.v1.BackupService/Delete", "-", &format!("backups/{UNKNOWN}"), "-", "NOT_FOUND"]);
    assert_eq!(told("invalid"), ["redkeep.v1.BackupService/Create", "-", "-", "-", "INVALID_ARGUMENT"]);
    assert_eq!(told("unbuilt"), ["yandex.cloud.mdb.redis.v1.ClusterService/Stop", "-", "-", "-", "UNIMPLEMENTED"]);
    assert_eq!(told("cancel"), ["yandex.cloud.operation.OperationService/Cancel", "shop", &cancelled, &operation.id, "OK"]);
    assert_eq!(lines.len(), 6, "{lines:#?}");
    assert!(!format!("{lines:?}").contains("hunter2"));
    service.stop().await;
}

#[tokio::test]
async fn a_repeated_call_has_a_line_of_its_own() {
    let source = ScriptedRedis::stalling().await;
    let service = Setup::new().executor("drain", "\"0s\"").cluster("main", &[&source.address()], "").start().await;
    let mut operations = Vec::new();
    for _ in 0..2 {
        let answer = service.clients.backups.clone().create(keyed(create("main", "first"), "a-secret-key")).await.unwrap();
        // An id that is made up here is on the answer, too.
        let id = answer.metadata().get("x-request-id").unwrap().to_str().unwrap().to_owned();
        operations.push((id, answer.into_inner().id));
    }
    let lines = lines(service.setup.folder());
    for (id, operation) in &operations {
        assert_eq!(lines[id]["operation"], operation.as_str());
    }
    assert_eq!((lines.len(), &operations[0].1), (2, &operations[1].1));
    assert!(!format!("{lines:?}").contains("a-secret-key"));
    service.stop().await;
}

#[tokio::test]
async fn reads_and_streams_have_an_id_too() {
    let source = ScriptedRedis::willing().await;
    let service = Setup::new().cluster("main", &[&source.address()], "").start().await;
    let mut clients = service.clients.clone();
    let answer = clients.backups.list(named(own::ListBackupsRequest::default(), "mine")).await.unwrap();
    assert_eq!(answer.metadata().get("x-request-id").unwrap(), "mine");
    let status =
        clients.backups.list(named(own::ListBackupsRequest { page_size: -1, ..Default::default() }, "too long".repeat(20).as_str())).await.unwrap_err();
    assert_eq!(id_of(&status).len(), 36, "one that cannot be taken over is replaced");
    assert!(lines(service.setup.folder()).is_empty());
    service.stop().await;
}

/// Sends many changing calls at once, and gives the ids of those that were answered, whatever the answer; `answered` counts
/// them meanwhile.
async fn send(clients: &Clients, count: usize, answered: &AtomicUsize) -> Vec<String> {
    let calls = (0..count).map(|number| {
        let mut clients = clients.clone();
        async move {
            let id = format!("call-{number}");
            let outcome = match number % 3 {
                0 => clients.backups.create(named(create("main", &format!("b{number}")), &id)).await.map(drop),
                1 => clients.backups.delete(named(own::DeleteBackupRequest { backup_id: UNKNOWN.into() }, &id)).await.map(drop),
                _ => clients.clusters.backup(named(managed::BackupClusterRequest { cluster_id: "main".into() }, &id)).await.map(drop),
            };
            // Without an id the answer is not the service's: it was killed.
            let is_answered = outcome.as_ref().map_or_else(|status| status.metadata().contains_key("x-request-id"), |()| true);
            answered.fetch_add(usize::from(is_answered), Ordering::Relaxed);
            is_answered.then_some(id)
        }
    });
    futures_util::future::join_all(calls).await.into_iter().flatten().collect()
}

#[tokio::test]
async fn no_line_is_lost_while_files_turn_over() {
    let source = ScriptedRedis::stalling().await;
    let setup = Setup::new().executor("drain", "\"0s\"").sections("[audit]\nmax_bytes = \"4KiB\"\nkeep = 1000\n");
    let service = setup.cluster("main", &[&source.address()], "").start().await;
    let answered = send(&service.clients, 600, &AtomicUsize::new(0)).await;
    assert_eq!(answered.len(), 600);
    let lines = lines(service.setup.folder());
    assert!(answered.iter().all(|id| lines.contains_key(id)));
    assert_eq!(lines.len(), 600);
    assert!(service.setup.folder().join("audit.jsonl.20").exists());
    service.stop().await;
}

#[tokio::test]
async fn what_was_answered_is_in_the_file_after_a_kill() {
    let source = ScriptedRedis::stalling().await;
    let process = Setup::new().cluster("main", &[&source.address()], "").spawn(&[]).await;
    let (clients, count) = (process.clients.clone(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    let sending = tokio::spawn(async move { send(&clients, 3000, &counted).await });
    until("some calls are answered", SOON, async || (count.load(Ordering::Relaxed) > 100).then_some(())).await;
    let setup = process.kill();
    let answered = sending.await.unwrap();
    let left = lines(setup.folder());
    assert!((100..3000).contains(&answered.len()), "{}", answered.len());
    assert!(answered.iter().all(|id| left.contains_key(id)), "{} answered, {} lines", answered.len(), left.len());

    // The next process adds to them.
    let service = setup.start().await;
    service.clients.backups.clone().delete(named(own::DeleteBackupRequest { backup_id: UNKNOWN.into() }, "after")).await.unwrap_err();
    assert_eq!(lines(service.setup.folder()).len(), left.len() + 1);
    service.stop().await;
}

#[tokio::test]
async fn a_caller_who_goes_away_has_a_line() {
    // Method: the service stands between a caller and a body that does not come.
    use tokio::io::AsyncWriteExt;
    let source = ScriptedRedis::willing().await;
    let service = Setup::new().cluster("main", &[&source.address()], "").start().await;
    let mut stream = tokio::net::TcpStream::connect(service.endpoint.trim_start_matches("http://")).await.unwrap();
    let head = "POST /redkeep.v1.BackupService/Create HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/grpc\r\nx-request-id: gone\r\nContent-Length: 100\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&[0, 0, 0, 0, 95]).await.unwrap();
    until("it is being answered", SOON, async || {
        let (_, text) = http_get(&service.admin).await;
        text.contains("redkeep_calls_in_flight 1").then_some(())
    })
    .await;
    drop(stream);
    let line = until("its line is written", SOON, async || lines(service.setup.folder()).remove("gone")).await;
    assert_ne!(line["outcome"], "OK");
    assert_eq!((&line["method"], &line["operation"]), (&Value::from("redkeep.v1.BackupService/Create"), &Value::Null));
    service.stop().await;
}

async fn http_get(admin: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(admin).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
}

#[tokio::test]
async fn a_file_that_cannot_be_written_stops_no_backup() {
    // Goal: the log is not worth more than the backup, and everybody hears of it. Method: a device that is always full.
    let source = ScriptedRedis::willing().await;
    let setup = Setup::new().sections("[audit]\nfile = \"/dev/full\"\n").cluster("main", &[&source.address()], "");
    let service = setup.start().await;
    service.clients.take("main", "first").await;
    let (_, text) = http_get(&service.admin).await;
    assert!(text.contains("redkeep_audit_failures_total 1\n"), "{text}");
    assert!(text.contains("redkeep_audit_lines_total 0\n"));
    service.stop().await;
}

#[tokio::test]
async fn it_can_be_switched_off_and_a_bad_place_ends_the_start() {
    let source = ScriptedRedis::willing().await;
    let service = Setup::new().sections("[audit]\nenabled = false\n").cluster("main", &[&source.address()], "").start().await;
    let answer = service.clients.backups.clone().create(named(create("main", "first"), "mine")).await.unwrap();
    assert_eq!(answer.metadata().get("x-request-id").unwrap(), "mine");
    assert!(!service.setup.folder().join("audit.jsonl").exists());
    let setup = service.stop().await;
    drop(setup);

    let setup = Setup::new().sections("[audit]\nfile = \"/proc/nowhere/audit.jsonl\"\n");
    let config = redkeep::config::load(Some(&setup.write()), &[]).unwrap();
    let refused = redkeep::server::Server::start(config, tokio_util::sync::CancellationToken::new()).await.err().unwrap();
    assert!(refused.to_string().contains("audit.file"), "{refused}");
}
