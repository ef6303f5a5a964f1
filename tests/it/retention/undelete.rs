//! Taking a deletion back, whatever happens meanwhile.

use super::{SOON, change, plan, undelete};
use crate::copy::delete;
use crate::support::answers::{bare, metadata, response};
use crate::support::http::ask;
use crate::support::rdb_bytes::Dump;
use crate::support::scripted::{MARKER, ScriptedRedis, full_sync_marker};
use crate::support::service::{OPERATION, Process, Service, Setup, error_of, files_below, reason_of};
use crate::support::until;
use redkeep::pb::own;
use redkeep::pb::own::backup::State;
use redkeep::store::sled::verify;
use tonic::Code;

/// A service that keeps the files of what is deleted.
async fn keeping() -> (ScriptedRedis, Service) {
    let source = ScriptedRedis::willing().await;
    let service = Setup::new().executor("delete_grace", "\"1h\"").cluster("main", &[&source.address()], "").start().await;
    (source, service)
}

/// Deletes a backup to the end.
async fn deleted(service: &Service, id: &str) {
    let operation = delete(&service.clients, id).await.unwrap();
    assert!(error_of(&service.clients.ended(&operation.id, OPERATION).await).is_none());
}

#[tokio::test]
async fn a_backup_comes_back_as_it_was() {
    let (_source, service) = keeping().await;
    let clients = &service.clients;
    let backup = clients.take("main", "first").await;
    let refused = undelete(clients, &backup.id).await.unwrap_err();
    assert_eq!((refused.code(), refused.message().contains("is not being deleted")), (Code::FailedPrecondition, true), "{refused:?}");
    deleted(&service, &backup.id).await;
    let gone = clients.backup(&backup.id).await.unwrap();
    assert_eq!((gone.state(), gone.purge_at.is_some()), (State::Deleting, true));

    let operation = undelete(clients, &backup.id).await.unwrap();
    let told: own::UndeleteBackupMetadata = metadata(&operation);
    assert_eq!((told.cluster_id.as_str(), &told.backup_id), ("main", &backup.id));
    let back: own::Backup = response(&clients.ended(&operation.id, OPERATION).await);
    assert_eq!((&back, &clients.backup(&backup.id).await.unwrap()), (&backup, &backup));
    // What storage says last is that it is there.
    let facts = std::fs::read(service.setup.artifact_root().join(format!("default/main/{}/facts/2.json", backup.id))).unwrap();
    let facts: serde_json::Value = serde_json::from_slice(&facts).unwrap();
    assert!(facts["deleted_until"].is_null() && facts["undeleted_at"].is_string(), "{facts}");
    for id in ["01890000-0000-7000-8000-000000000000", "nonsense"] {
        assert_eq!(undelete(clients, id).await.unwrap_err().code(), Code::NotFound);
    }
    // It can be deleted again, and comes back under another name when its own is taken.
    deleted(&service, &backup.id).await;
    let other = clients.take("main", "first").await;
    let operation = undelete(clients, &backup.id).await.unwrap();
    let back: own::Backup = response(&clients.ended(&operation.id, OPERATION).await);
    assert_eq!(back.name, format!("undeleted-{}", backup.id.replace('-', "").split_off(16)));
    assert_eq!(clients.backup(&other.id).await.unwrap().name, "first");
    let setup = service.stop().await;
    assert!(verify(&setup.folder().join("store")).unwrap().is_clean());
}

#[tokio::test]
async fn what_is_not_there_any_more_is_not_called_available() {
    let (_source, service) = keeping().await;
    let clients = &service.clients;
    let segment = |backup: &own::Backup| service.setup.artifact_root().join(&backup.path).join("shard1-0.rdb.zst");
    let (cut, lost) = (clients.take("main", "cut").await, clients.take("main", "lost").await);
    deleted(&service, &cut.id).await;
    deleted(&service, &lost.id).await;
    std::fs::write(segment(&cut), "short").unwrap();
    std::fs::remove_file(service.setup.artifact_root().join(&lost.path).join("manifest.json")).unwrap();
    for backup in [&cut, &lost] {
        let operation = undelete(clients, &backup.id).await.unwrap();
        let ended = clients.ended(&operation.id, OPERATION).await;
        assert_eq!(reason_of(&ended), "STORAGE_CORRUPT", "{ended:#?}");
        assert_eq!(clients.backup(&backup.id).await.unwrap().state(), State::Deleting);
    }
    // Its name is free all the same.
    clients.take("main", "cut").await;
    service.stop().await;
}

#[tokio::test]
async fn what_a_person_brings_back_is_not_expired_again() {
    let source = ScriptedRedis::willing().await;
    let setup = Setup::new().executor("delete_grace", "\"1h\"").cluster("main", &[&source.address()], "");
    let service = setup.sections("[retention]\nperiod = \"1s\"\nsettle = \"0s\"\n").start().await;
    let clients = &service.clients;
    let (first, second) = (clients.take("main", "first").await, clients.take("main", "second").await);
    let end = chrono::Utc::now() + chrono::TimeDelta::seconds(2);
    let expiry =
        own::UpdateBackupRequest { expires_at: Some(prost_types::Timestamp { seconds: end.timestamp(), nanos: 0 }), ..change(&first.id, "expires_at") };
    let operation = bare(clients.backups.clone().update(expiry).await).unwrap();
    clients.ended(&operation.id, OPERATION).await;
    let gone = async || clients.backup(&first.id).await.ok().filter(|backup| backup.state() == State::Deleting && backup.busy_operation_id.is_empty());
    until("the service deletes it", SOON, gone).await;
    let operation = undelete(clients, &first.id).await.unwrap();
    assert!(error_of(&clients.ended(&operation.id, OPERATION).await).is_none());
    // Rounds go on; a person's word counts more than its age.
    let rounds = async || {
        let numbers = ask(&service.admin, &["GET /metrics HTTP/1.1", "Host: localhost"], &[]).await.text();
        numbers.contains("redkeep_retention_backups{fate=\"keep\",reason=\"undeleted\"} 1").then_some(())
    };
    until("a round has seen it", SOON, rounds).await;
    let plans = plan(clients).await;
    assert_eq!(plans.iter().map(|plan| plan.backup_id.as_str()).collect::<Vec<_>>(), [second.id.as_str(), first.id.as_str()]);
    assert!(plans[1].reason.contains("a person brought it back"), "{plans:?}");
    service.stop().await;
}

/// The program on a source that gives one snapshot, with a backup that is deleted. It kills itself at `point`.
async fn killed_at(point: &str, grace: &str, act: impl AsyncFn(&Process, &own::Backup)) -> (Setup, own::Backup) {
    let server = ScriptedRedis::start(vec![full_sync_marker(Dump::sample().bytes, MARKER)]).await;
    let setup = Setup::new().executor("delete_grace", grace).cluster("main", &[&server.address()], "");
    let process = setup.spawn(&[("REDKEEP_CRASH_AT", point)]).await;
    let backup = process.clients.take("main", "a").await;
    let _ = delete(&process.clients, &backup.id).await;
    act(&process, &backup).await;
    (process.wait_end(SOON).await, backup)
}

async fn assert_clean(process: Process) {
    let setup = process.terminate(SOON).await;
    let report = verify(&setup.folder().join("store")).unwrap();
    assert!(report.is_clean() && report.live == 0, "{report:?}");
}

#[tokio::test]
async fn killed_while_a_deletion_is_taken_back() {
    let taken_back = async |process: &Process, backup: &own::Backup| {
        let gone = async || process.clients.backup(&backup.id).await.ok().filter(|backup| backup.busy_operation_id.is_empty());
        until("the deletion has ended", SOON, gone).await;
        let _ = undelete(&process.clients, &backup.id).await;
    };
    let (setup, backup) = killed_at("undelete.stored", "\"1h\"", taken_back).await;
    let process = setup.spawn(&[]).await;
    let back = until("it is back", SOON, async || process.clients.backup(&backup.id).await.ok().filter(|backup| backup.state() == State::Available)).await;
    assert_eq!(back.name, "a");
    let files = files_below(&process.setup.artifact_root());
    assert_eq!(files.iter().filter(|file| file.contains("/facts/")).count(), 2, "done twice, it is written once: {files:?}");
    assert_clean(process).await;
}

#[tokio::test]
async fn killed_while_files_are_removed() {
    for point in ["purge.claimed", "purge.removed"] {
        let (setup, backup) = killed_at(point, "\"0s\"", async |_, _| {}).await;
        assert_eq!(files_below(&setup.artifact_root()).is_empty(), point == "purge.removed", "{point}");
        let process = setup.spawn(&[]).await;
        // From the claim on it is too late, though the files may be there.
        match undelete(&process.clients, &backup.id).await {
            Ok(operation) => panic!("{operation:?}"),
            Err(refused) => assert!(matches!(refused.code(), Code::FailedPrecondition | Code::NotFound), "{refused:?}"),
        }
        until("row and files are gone", SOON, async || {
            (process.clients.all_backups().await.is_empty() && files_below(&process.setup.artifact_root()).is_empty()).then_some(())
        })
        .await;
        assert_clean(process).await;
    }
}
