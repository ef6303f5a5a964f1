//! Goal: a copy is a backup of its own, whatever becomes of its source, and an attempt that ends otherwise leaves nothing.
//! Method: the real service and program; a copy that hangs in its middle where something is to happen meanwhile.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

use crate::faults::Mounted;
use crate::support::answers::{bare, keyed, metadata, response};
use crate::support::rdb_bytes::Dump;
use crate::support::scripted::{MARKER, ScriptedRedis, full_sync_marker};
use crate::support::server::RedisServer;
use crate::support::service::{Clients, OPERATION, Process, Service, Setup, error_of, files_below, reason_of};
use crate::support::{compare, data, load, until};
use redkeep::pb::operation::{CancelOperationRequest, Operation};
use redkeep::pb::own;
use redkeep::pb::own::backup::State;
use redkeep::store::sled::verify;
use std::path::Path;
use std::time::{Duration, Instant};
use tonic::{Code, Status};

/// Longest wait for what is a matter of moments.
const SOON: Duration = Duration::from_secs(60);

/// An identifier that was never given out.
const UNKNOWN: &str = "01890000-0000-7000-8000-000000000000";

pub async fn copy(clients: &Clients, source: &str, name: &str) -> Result<Operation, Status> {
    bare(clients.backups.clone().copy(own::CopyBackupRequest { backup_id: source.into(), name: name.into() }).await)
}

/// A copy that is to succeed.
async fn copied(clients: &Clients, source: &str, name: &str) -> own::Backup {
    let operation = copy(clients, source, name).await.expect("the copy is accepted");
    response(&clients.ended(&operation.id, OPERATION).await)
}

pub async fn delete(clients: &Clients, id: &str) -> Result<Operation, Status> {
    bare(clients.backups.clone().delete(own::DeleteBackupRequest { backup_id: id.into() }).await)
}

pub async fn cancel(clients: &Clients, id: &str) {
    clients.operations.clone().cancel(CancelOperationRequest { operation_id: id.into() }).await.expect("it is taken");
}

/// A service whose cluster `main` gives a snapshot at once.
async fn willing() -> (ScriptedRedis, Service) {
    let source = ScriptedRedis::willing().await;
    let service = Setup::new().cluster("main", &[&source.address()], "").start().await;
    (source, service)
}

fn segment(root: &Path, backup: &own::Backup) -> std::path::PathBuf {
    root.join(&backup.path).join("shard1-0.rdb.zst")
}

#[tokio::test]
async fn a_copy_outlives_its_source() {
    let primary = RedisServer::start().await;
    data::fill_every_type(&primary, 2).await;
    let service = Setup::new().cluster("main", &[&primary.address()], "").start().await;
    let clients = &service.clients;
    let request = own::CreateBackupRequest {
        cluster_id: "main".into(),
        name: "first".into(),
        labels: [("team".to_owned(), "shop".to_owned())].into(),
        expires_at: Some(prost_types::Timestamp { seconds: 4_000_000_000, nanos: 0 }),
    };
    let operation = bare(clients.backups.clone().create(request).await).unwrap();
    let source: own::Backup = response(&clients.ended(&operation.id, OPERATION).await);
    let hold = own::UpdateBackupRequest {
        backup_id: source.id.clone(),
        update_mask: Some(prost_types::FieldMask { paths: vec!["holds".into()] }),
        holds: vec!["case 1729".into()],
        ..Default::default()
    };
    let operation = bare(clients.backups.clone().update(hold.clone()).await).unwrap();
    let source: own::Backup = response(&clients.ended(&operation.id, OPERATION).await);
    assert_eq!(source.holds.len(), 1);

    let operation = copy(clients, &source.id, "second").await.unwrap();
    let told: own::CopyBackupMetadata = metadata(&operation);
    assert_eq!((told.cluster_id.as_str(), &told.source_backup_id), ("main", &source.id));
    let made: own::Backup = response(&clients.ended(&operation.id, OPERATION).await);
    assert_eq!(told.backup_id, made.id);
    assert_eq!(clients.backup(&made.id).await.unwrap(), made);
    // What is known of the content stays; whose it is, and when it was stored, does not.
    let (before, after) = (&source.shards[0], &made.shards[0]);
    assert!(after.upload_started_at.unwrap().seconds >= before.upload_ended_at.unwrap().seconds);
    let shard = own::ShardArtifact { upload_started_at: before.upload_started_at, upload_ended_at: before.upload_ended_at, ..after.clone() };
    assert_eq!(shard, *before);
    assert!(made.created_at.unwrap().seconds >= source.completed_at.unwrap().seconds);
    let expected = own::Backup {
        id: made.id.clone(),
        name: "second".into(),
        created_at: made.created_at,
        completed_at: made.completed_at,
        expires_at: None,
        holds: Vec::new(),
        operation_id: operation.id.clone(),
        path: made.path.clone(),
        shards: made.shards.clone(),
        ..source.clone()
    };
    assert_eq!(made, expected);
    let progress = clients.progress(&operation.id).await;
    assert_eq!((progress.shards[0].bytes, progress.shards[0].bytes_expected), (source.stored_bytes, source.stored_bytes));

    let root = service.setup.artifact_root();
    let bytes = std::fs::read(segment(&root, &source)).unwrap();
    assert!(std::fs::read(segment(&root, &made)).unwrap() == bytes);
    let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(root.join(&made.path).join("manifest.json")).unwrap()).unwrap();
    assert_eq!((manifest["backup_id"].as_str(), manifest["name"].as_str()), (Some(made.id.as_str()), Some("second")));

    let lift = own::UpdateBackupRequest { holds: Vec::new(), ..hold };
    let operation = bare(clients.backups.clone().update(lift).await).unwrap();
    assert!(error_of(&clients.ended(&operation.id, OPERATION).await).is_none());
    delete(clients, &source.id).await.unwrap();
    until("the source is gone", SOON, async || clients.backup(&source.id).await.err()).await;
    until("its files are gone", SOON, async || (files_below(&root).len() == 4).then_some(())).await;
    let plain = service.setup.folder().join("plain.rdb");
    load::decompress(&segment(&root, &made), &plain);
    load::check_rdb(&plain);
    compare::assert_same_content(&primary, &load::load_rdb(&plain).await).await;
    // A copy can be copied, and the name of what is gone is free.
    copied(clients, &made.id, "first").await;
    service.stop().await;
}

#[tokio::test]
async fn only_a_finished_backup_is_copied_under_a_free_name() {
    let (_source, service) = willing().await;
    let clients = &service.clients;
    let first = clients.take("main", "first").await;
    for (name, code) in [("first", Code::AlreadyExists), ("a b", Code::InvalidArgument), (&"n".repeat(64), Code::InvalidArgument)] {
        assert_eq!(copy(clients, &first.id, name).await.unwrap_err().code(), code, "{name}");
    }
    for id in [UNKNOWN, "nonsense"] {
        assert_eq!(copy(clients, id, "second").await.unwrap_err().code(), Code::NotFound, "{id}");
    }
    assert!(copied(clients, &first.id, "").await.name.starts_with("manual-"));
    delete(clients, &first.id).await.unwrap();
    assert_eq!(copy(clients, &first.id, "second").await.unwrap_err().code(), Code::NotFound);

    let stalling = ScriptedRedis::stalling().await;
    let service = service.stop().await.executor("drain", "\"0s\"").cluster("slow", &[&stalling.address()], "").start().await;
    let clients = &service.clients;
    clients.create("slow", "draft").await.unwrap();
    let draft = clients.all_backups().await.into_iter().find(|backup| backup.name == "draft").unwrap();
    let refused = copy(clients, &draft.id, "second").await.unwrap_err();
    assert_eq!((refused.code(), refused.message().contains("it is CREATING")), (Code::FailedPrecondition, true), "{refused:?}");
    cancel(clients, &draft.operation_id).await;
    service.stop().await;
}

#[tokio::test]
async fn a_repeated_copy_is_one() {
    let (_source, service) = willing().await;
    let clients = &service.clients;
    let first = clients.take("main", "first").await;
    let request = |name: &str| keyed(own::CopyBackupRequest { backup_id: first.id.clone(), name: name.into() }, "once");
    let operation = bare(clients.backups.clone().copy(request("second")).await).unwrap();
    assert_eq!(bare(clients.backups.clone().copy(request("second")).await).unwrap().id, operation.id);
    assert_eq!(bare(clients.backups.clone().copy(request("third")).await).unwrap_err().code(), Code::InvalidArgument);
    let made: own::Backup = response(&clients.ended(&operation.id, OPERATION).await);
    // Also when nothing is as it was.
    delete(clients, &first.id).await.unwrap();
    until("the source is gone", SOON, async || clients.backup(&first.id).await.err()).await;
    assert_eq!(bare(clients.backups.clone().copy(request("second")).await).unwrap().id, operation.id);
    assert_eq!(clients.all_backups().await, [made]);
    service.stop().await;
}

/// The program, with a backup of cluster `main`; whatever then comes to `point` stays there.
pub async fn hanging(setup: Setup, point: &str) -> (ScriptedRedis, Process, own::Backup) {
    let source = ScriptedRedis::start(vec![full_sync_marker(Dump::sample().bytes, MARKER)]).await;
    let process = setup.executor("drain", "\"0s\"").cluster("main", &[&source.address()], "").spawn(&[("REDKEEP_HANG_AT", point)]).await;
    let backup = process.clients.take("main", "first").await;
    (source, process, backup)
}

/// Waits until an operation is in the middle of its work.
pub async fn is_moving(clients: &Clients, id: &str) {
    until("bytes are moved", SOON, async || {
        let progress = clients.progress(id).await;
        (progress.step() == own::progress::Step::Snapshot && !progress.shards.is_empty()).then_some(())
    })
    .await;
}

/// Goal: what is read stays, and is read by many. Method: two copies that hang in their middle; a deletion, a change and a
/// creation beside them; then both are cancelled.
#[tokio::test]
async fn while_copies_run_their_source_stays() {
    let (_source, process, backup) = hanging(Setup::new(), "copy.moving").await;
    let clients = &process.clients;
    let root = process.setup.artifact_root();
    let first = copy(clients, &backup.id, "second").await.unwrap();
    let second = copy(clients, &backup.id, "third").await.unwrap();
    for operation in [&first, &second] {
        is_moving(clients, &operation.id).await;
    }
    assert_eq!(clients.backup(&backup.id).await.unwrap().busy_operation_id, first.id);
    let staged = async || (files_below(&root).iter().filter(|file| file.ends_with(".rdb.zst#1")).count() == 2).then_some(());
    until("both are being written", SOON, staged).await;

    let refused = delete(clients, &backup.id).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, format!("conflicting operation \"{}\" detected", first.id).as_str()));
    let managed = redkeep::pb::managed::DeleteBackupRequest { backup_id: backup.id.clone() };
    assert_eq!(bare(clients.managed_backups.clone().delete(managed).await).unwrap_err().code(), Code::FailedPrecondition);
    let rename = own::UpdateBackupRequest {
        backup_id: backup.id.clone(),
        update_mask: Some(prost_types::FieldMask { paths: vec!["name".into()] }),
        name: "renamed".into(),
        ..Default::default()
    };
    let renamed: own::Backup = {
        let operation = bare(clients.backups.clone().update(rename).await).unwrap();
        response(&clients.ended(&operation.id, SOON).await)
    };
    assert_eq!(renamed.name, "renamed");
    // Its cluster is free for a backup.
    clients.take("main", "first").await;

    for (operation, left) in [(&first, 1), (&second, 0)] {
        let asked_at = Instant::now();
        cancel(clients, &operation.id).await;
        let ended = clients.ended(&operation.id, SOON).await;
        assert!(asked_at.elapsed() < Duration::from_secs(2), "{:?}", asked_at.elapsed());
        assert_eq!(error_of(&ended).map(|status| status.code), Some(1), "{ended:#?}");
        assert!(clients.all_backups().await.iter().all(|backup| backup.operation_id != operation.id));
        until("what it wrote is gone", SOON, async || (files_below(&root).len() == 9 + 2 * left).then_some(())).await;
    }
    // Nothing holds it any more.
    let operation = delete(clients, &backup.id).await.unwrap();
    assert!(error_of(&clients.ended(&operation.id, SOON).await).is_none());
    let setup = process.terminate(SOON).await;
    assert!(verify(&setup.folder().join("store")).unwrap().is_clean());
}

#[tokio::test]
async fn a_stop_hands_a_copy_back() {
    let (_source, process, backup) = hanging(Setup::new(), "copy.moving").await;
    let operation = copy(&process.clients, &backup.id, "second").await.unwrap();
    is_moving(&process.clients, &operation.id).await;
    let setup = process.terminate(SOON).await;
    let process = setup.spawn(&[]).await;
    let made: own::Backup = response(&process.clients.ended(&operation.id, SOON).await);
    assert_eq!(made.shards[0].sha256, backup.shards[0].sha256);
    // No source was forked, so no time passes before it goes on.
    assert_eq!(process.clients.progress(&operation.id).await.attempt, 2);
    process.terminate(SOON).await;
}

/// Goal: a copy of what is damaged is no copy. Method: damage of each kind in storage, one after the other.
#[tokio::test]
async fn damage_in_storage_is_found_and_nothing_is_left() {
    let (_source, service) = willing().await;
    let clients = &service.clients;
    let backup = clients.take("main", "first").await;
    let root = service.setup.artifact_root();
    let (dump, manifest) = (segment(&root, &backup), root.join(&backup.path).join("manifest.json"));
    let [sound, described] = [&dump, &manifest].map(|path| std::fs::read(path).unwrap());
    let mut flipped = sound.clone();
    flipped[sound.len() / 2] ^= 1;
    // A digest that somebody made fit does not vouch for the bytes: the record has it, too.
    let digest = |bytes: &[u8]| -> String {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let forged = String::from_utf8(described.clone()).unwrap().replace(&digest(&sound), &digest(&flipped)).into_bytes();
    let present = |bytes| Some::<&[u8]>(bytes);
    let cases = [
        (present(&flipped), present(&described), "SHA-256"),
        (present(&sound[..sound.len() - 1]), present(&described), "instead of"),
        (None, present(&described), "does not have"),
        (present(&flipped), present(&forged), "does not fit the record"),
        (present(&sound), present(b"{}"), "cannot be read"),
        (present(&sound), None, "does not have"),
    ];
    for (round, (segment, manifest_bytes, words)) in cases.into_iter().enumerate() {
        for (path, bytes) in [(&dump, segment), (&manifest, manifest_bytes)] {
            let _ = std::fs::remove_file(path);
            if let Some(bytes) = bytes {
                std::fs::write(path, bytes).unwrap();
            }
        }
        let files = files_below(&root).len();
        let operation = copy(clients, &backup.id, &format!("copy-{round}")).await.unwrap();
        let ended = clients.ended(&operation.id, SOON).await;
        let status = error_of(&ended).expect("it fails");
        assert_eq!((reason_of(&ended).as_str(), status.code), ("STORAGE_CORRUPT", Code::DataLoss as i32), "{words}: {ended:#?}");
        assert!(status.message.contains(words), "{words}: {status:#?}");
        until("nothing of it is left", SOON, async || (files_below(&root).len() == files).then_some(())).await;
        let row = clients.all_backups().await.into_iter().find(|row| row.operation_id == operation.id).unwrap();
        assert_eq!(row.state(), State::Error);
        delete(clients, &row.id).await.unwrap();
    }
    std::fs::write(&manifest, &described).unwrap();
    copied(clients, &backup.id, "sound").await;
    service.stop().await;
}

/// Goal: whatever moment the process dies at, there is one whole copy and nothing else. Method: killed at a point, started
/// again.
async fn copy_killed_at(point: &str) {
    let source = ScriptedRedis::start(vec![full_sync_marker(Dump::sample().bytes, MARKER)]).await;
    let service = Setup::new().cluster("main", &[&source.address()], "").start().await;
    let backup = service.clients.take("main", "first").await;
    let process = service.stop().await.spawn(&[("REDKEEP_CRASH_AT", point)]).await;
    let _ = copy(&process.clients, &backup.id, "second").await;
    let setup = process.wait_end(SOON).await;
    let process = setup.spawn(&[]).await;
    let made = until("the copy is made", SOON, async || {
        process.clients.all_backups().await.into_iter().find(|backup| backup.name == "second" && backup.state() == State::Available)
    })
    .await;
    assert_eq!(process.clients.backup(&backup.id).await.unwrap(), backup);
    let root = process.setup.artifact_root();
    let mut own: Vec<String> = [&backup, &made]
        .iter()
        .flat_map(|backup| ["attempt.json", "manifest.json", "shard1-0.rdb.zst", "shard1-side.json"].map(|file| format!("{}/{file}", backup.path)))
        .collect();
    own.sort();
    until("only their own files are left", SOON, async || (files_below(&root) == own).then_some(())).await;
    assert!(std::fs::read(segment(&root, &made)).unwrap() == std::fs::read(segment(&root, &backup)).unwrap());
    let setup = process.terminate(SOON).await;
    let report = verify(&setup.folder().join("store")).unwrap();
    assert!(report.is_clean() && report.live == 0, "{report:?}");
    assert_eq!(source.counts().psyncs, 1);
}

#[tokio::test]
async fn killed_before_the_first_byte() {
    copy_killed_at("copy.preflight").await;
}

#[tokio::test]
async fn killed_when_all_is_stored() {
    copy_killed_at("copy.stored").await;
}

#[tokio::test]
async fn killed_after_the_decision() {
    copy_killed_at("copy.decided").await;
}

#[tokio::test]
async fn killed_after_the_manifest() {
    copy_killed_at("publish.stored").await;
}

#[tokio::test]
async fn a_storage_without_room_takes_no_copy() {
    let source = ScriptedRedis::start(vec![crate::support::scripted::generated_marker(20 << 20, 1 << 20, None)]).await;
    let setup = Setup::new().executor("deadline", "\"5s\"").cluster("main", &[&source.address()], "");
    let Some(_mounted) = Mounted::at(setup.artifact_root(), "48m") else { return };
    let service = setup.artifacts("url = \"file:artifacts\"\ncompression = \"none\"").start().await;
    let backup = service.clients.take("main", "first").await;
    let operation = copy(&service.clients, &backup.id, "second").await.unwrap();
    let ended = service.clients.ended(&operation.id, SOON).await;
    assert_eq!(reason_of(&ended), "STORAGE_FULL", "{ended:#?}");
    assert_eq!(service.clients.backup(&backup.id).await.unwrap(), backup);
    let root = service.setup.artifact_root();
    until("only the backup is left", SOON, async || (files_below(&root).len() == 4).then_some(())).await;
    service.stop().await;
}
