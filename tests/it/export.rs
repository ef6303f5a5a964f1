//! Goal: an export writes what other tools read, where it may and nowhere else, whole or not at all. Method: the real service
//! and program, real folders as buckets, an export that hangs in its middle where something is to happen meanwhile.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

use crate::copy::{cancel, copy, delete, hanging, is_moving};
use crate::faults::Mounted;
use crate::support::answers::{bare, fields, keyed, metadata, response};
use crate::support::rdb_bytes::Dump;
use crate::support::scripted::{MARKER, ScriptedRedis, full_sync_marker, generated_marker};
use crate::support::server::RedisServer;
use crate::support::service::{Clients, OPERATION, Service, Setup, error_of, files_below, reason_of};
use crate::support::{compare, data, load, until};
use redkeep::artifacts::{self, Compression, Storage};
use redkeep::executor::{self, Caller, Draft, Executor};
use redkeep::fleet::Fleet;
use redkeep::operation::{Door, ExportTarget, Publication, Response, State, Step};
use redkeep::pb::operation::Operation;
use redkeep::pb::own;
use redkeep::store::sled::{self, SledStore, verify};
use redkeep::store::{Error, Store, Zones};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

/// Longest wait for what is a matter of moments.
const SOON: Duration = Duration::from_secs(60);

fn to(backup: &str, bucket: &str, path: &str) -> own::ExportBackupRequest {
    own::ExportBackupRequest { backup_id: backup.into(), bucket: bucket.into(), path: path.into(), as_stored: false }
}

async fn export(clients: &Clients, request: own::ExportBackupRequest) -> Result<Operation, Status> {
    bare(clients.backups.clone().export(request).await)
}

/// An export that is to succeed.
async fn exported(clients: &Clients, request: own::ExportBackupRequest) -> own::ExportResult {
    let operation = export(clients, request).await.expect("the export is accepted");
    response(&clients.ended(&operation.id, OPERATION).await)
}

/// An export that is to fail: its reason and message.
async fn failed(clients: &Clients, request: own::ExportBackupRequest) -> (String, String) {
    let operation = export(clients, request).await.expect("the export is accepted");
    let ended = clients.ended(&operation.id, OPERATION).await;
    let status = error_of(&ended).unwrap_or_else(|| panic!("it succeeded: {ended:#?}"));
    (reason_of(&ended), status.message.clone())
}

fn setup() -> Setup {
    Setup::new().bucket("reports", "exports", "[\"default\"]").bucket("elsewhere", "other", "[\"shop\"]")
}

fn root(setup: &Setup) -> PathBuf {
    setup.folder().join("exports")
}

/// A service with two buckets whose cluster `main` gives a snapshot at once, and a backup of it.
async fn willing() -> (ScriptedRedis, Service, own::Backup) {
    let source = ScriptedRedis::willing().await;
    let service = setup().cluster("main", &[&source.address()], "").start().await;
    let backup = service.clients.take("main", "first").await;
    (source, service, backup)
}

fn stored(service: &Setup, backup: &own::Backup, file: &str) -> PathBuf {
    service.artifact_root().join(&backup.path).join(file)
}

async fn only(root: &Path, files: &[&str]) {
    until("nothing else is in the bucket", SOON, async || (files_below(root) == files).then_some(())).await;
}

#[tokio::test]
async fn an_export_is_a_file_that_any_server_loads() {
    let primary = RedisServer::start().await;
    data::fill_every_type(&primary, 2).await;
    let service = setup().cluster("main", &[&primary.address()], "").start().await;
    let clients = &service.clients;
    let root = root(&service.setup);
    let backup = clients.take("main", "first").await;
    let operation = export(clients, to(&backup.id, "reports", "daily/2030-01-31")).await.unwrap();
    let told: own::ExportBackupMetadata = metadata(&operation);
    assert_eq!((told.cluster_id.as_str(), &told.backup_id), ("main", &backup.id));
    let result: own::ExportResult = response(&clients.ended(&operation.id, OPERATION).await);
    let key = "daily/2030-01-31/first-shard1.rdb";
    assert_eq!(result, own::ExportResult { bucket: "reports".into(), keys: vec![key.into()], bytes: backup.size_bytes });
    only(&root, &[key]).await;
    let file = root.join(key);
    assert_eq!(std::fs::metadata(&file).unwrap().len(), backup.size_bytes as u64);
    load::check_rdb(&file);
    compare::assert_same_content(&primary, &load::load_rdb(&file).await).await;
    let progress = clients.progress(&operation.id).await;
    assert_eq!((progress.shards[0].bytes, progress.shards[0].bytes_expected), (backup.size_bytes, backup.size_bytes));

    // As it is stored, for the zstd tool.
    let as_stored = exported(clients, own::ExportBackupRequest { as_stored: true, ..to(&backup.id, "reports", "") }).await;
    assert_eq!((as_stored.keys.as_slice(), as_stored.bytes), (["first-shard1.rdb.zst".to_owned()].as_slice(), backup.stored_bytes));
    let bytes = std::fs::read(root.join(&as_stored.keys[0])).unwrap();
    assert!(bytes == std::fs::read(stored(&service.setup, &backup, "shard1-0.rdb.zst")).unwrap());
    // The backup has stayed as it was, and can go; what was exported stays.
    assert_eq!(clients.backup(&backup.id).await.unwrap(), backup);
    delete(clients, &backup.id).await.unwrap();
    until("the backup is gone", SOON, async || clients.backup(&backup.id).await.err()).await;
    only(&root, &[key, "first-shard1.rdb.zst"]).await;
    service.stop().await;
}

#[tokio::test]
async fn a_dump_that_is_not_compressed_is_exported_too() {
    let source = ScriptedRedis::willing().await;
    let setup = setup().artifacts("url = \"file:artifacts\"\ncompression = \"none\"").cluster("main", &[&source.address()], "");
    let service = setup.start().await;
    let backup = service.clients.take("main", "first").await;
    let dump = std::fs::read(stored(&service.setup, &backup, "shard1-0.rdb")).unwrap();
    for as_stored in [false, true] {
        let path = if as_stored { "stored" } else { "decoded" };
        let result = exported(&service.clients, own::ExportBackupRequest { as_stored, ..to(&backup.id, "reports", path) }).await;
        assert_eq!(result.keys, [format!("{path}/first-shard1.rdb")]);
        assert!(std::fs::read(root(&service.setup).join(&result.keys[0])).unwrap() == dump);
    }
    service.stop().await;
}

#[tokio::test]
async fn an_export_goes_where_it_may_and_nowhere_else() {
    let (_source, service, backup) = willing().await;
    let clients = &service.clients;
    let unknown = export(clients, to(&backup.id, "nowhere", "")).await.unwrap_err();
    assert_eq!((unknown.code(), unknown.message()), (Code::NotFound, "bucket \"nowhere\" not found"));
    let forbidden = export(clients, to(&backup.id, "elsewhere", "")).await.unwrap_err();
    assert_eq!((forbidden.code(), forbidden.message().contains("folder \"default\"")), (Code::PermissionDenied, true), "{forbidden:?}");
    assert_eq!(fields(export(clients, to(&backup.id, "", "")).await), ["bucket"]);
    for path in ["..", "../up", "a/../../b", "/etc", "a/", "a//b", ".", "a\\b", "a b", ".redkeep", "a/.redkeep/b", "é", &"p".repeat(256)] {
        assert_eq!(fields(export(clients, to(&backup.id, "reports", path)).await), ["path"], "{path}");
    }
    let nobody = "01890000-0000-7000-8000-000000000000";
    assert_eq!(export(clients, to(nobody, "reports", "")).await.unwrap_err().code(), Code::NotFound);
    only(&root(&service.setup), &[]).await;
    assert!(files_below(&service.setup.folder().join("other")).is_empty());
    // A long path is no harm.
    let path = ["p".repeat(99).as_str(), "q".repeat(99).as_str()].join("/");
    assert_eq!(exported(clients, to(&backup.id, "reports", &path)).await.keys, [format!("{path}/first-shard1.rdb")]);

    // A link in the bucket leads nowhere.
    let outside = service.setup.folder().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, root(&service.setup).join("link")).unwrap();
    for path in ["link", "link/deeper"] {
        let (reason, message) = failed(clients, to(&backup.id, "reports", path)).await;
        assert_eq!((reason.as_str(), message.contains("symbolic link")), ("STORAGE_DENIED", true), "{message}");
    }
    assert!(files_below(&outside).is_empty() && std::fs::read_dir(&outside).unwrap().next().is_none());
    service.stop().await;
}

#[tokio::test]
async fn nothing_is_replaced() {
    let (_source, service, backup) = willing().await;
    let clients = &service.clients;
    let root = root(&service.setup);
    let result = exported(clients, to(&backup.id, "reports", "")).await;
    let file = root.join(&result.keys[0]);
    let dump = std::fs::read(&file).unwrap();
    // The same again is success, and the file stays the one that it is.
    let modified = std::fs::metadata(&file).unwrap().modified().unwrap();
    assert_eq!(exported(clients, to(&backup.id, "reports", "")).await, result);
    assert_eq!(std::fs::metadata(&file).unwrap().modified().unwrap(), modified);
    // Another file under the key is kept, of whatever length it is.
    let mut other = dump.clone();
    other[20] ^= 1;
    for bytes in [b"else".to_vec(), other] {
        std::fs::write(&file, &bytes).unwrap();
        let (reason, message) = failed(clients, to(&backup.id, "reports", "")).await;
        assert_eq!((reason.as_str(), message.contains("has another first-shard1.rdb already")), ("TARGET_EXISTS", true), "{message}");
        assert!(std::fs::read(&file).unwrap() == bytes);
        only(&root, &["first-shard1.rdb"]).await;
    }
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    assert_eq!(failed(clients, to(&backup.id, "reports", "")).await.0, "TARGET_EXISTS");
    service.stop().await;
}

#[tokio::test]
async fn a_repeated_export_is_one() {
    let (_source, service, backup) = willing().await;
    let clients = &service.clients;
    let request = |path: &str| keyed(to(&backup.id, "reports", path), "once");
    let operation = bare(clients.backups.clone().export(request("a")).await).unwrap();
    assert_eq!(bare(clients.backups.clone().export(request("a")).await).unwrap().id, operation.id);
    assert_eq!(bare(clients.backups.clone().export(request("b")).await).unwrap_err().code(), Code::InvalidArgument);
    response::<own::ExportResult>(&clients.ended(&operation.id, OPERATION).await);
    only(&root(&service.setup), &["a/first-shard1.rdb"]).await;
    service.stop().await;
}

/// Goal: two exports do not meet at one key, and a cancelled one leaves nothing. Method: an export that hangs in its middle;
/// the same target again, others beside it; then it is cancelled.
#[tokio::test]
async fn while_an_export_runs() {
    let (_source, process, backup) = hanging(setup(), "export.moving").await;
    let clients = &process.clients;
    let root = root(&process.setup);
    let first = export(clients, to(&backup.id, "reports", "a")).await.unwrap();
    is_moving(clients, &first.id).await;
    assert!(files_below(&root).iter().all(|file| file.starts_with(".redkeep/")), "nothing is there before it is whole");
    let conflict = format!("conflicting operation \"{}\" detected", first.id);
    for refused in [export(clients, to(&backup.id, "reports", "a")).await.unwrap_err(), delete(clients, &backup.id).await.unwrap_err()] {
        assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, conflict.as_str()));
    }
    let beside = export(clients, to(&backup.id, "reports", "b")).await.unwrap();
    let made = copy(clients, &backup.id, "second").await.unwrap();
    response::<own::Backup>(&clients.ended(&made.id, SOON).await);
    for operation in [&first, &beside] {
        cancel(clients, &operation.id).await;
        assert_eq!(error_of(&clients.ended(&operation.id, SOON).await).map(|status| status.code), Some(1));
    }
    only(&root, &[]).await;
    // The key is free, and the backup can go.
    let again = export(clients, to(&backup.id, "reports", "a")).await.unwrap();
    is_moving(clients, &again.id).await;
    let setup = process.kill();
    let process = setup.spawn(&[]).await;
    response::<own::ExportResult>(&process.clients.ended(&again.id, SOON).await);
    only(&root, &["a/first-shard1.rdb"]).await;
    delete(&process.clients, &backup.id).await.unwrap();
    let setup = process.terminate(SOON).await;
    assert!(verify(&setup.folder().join("store")).unwrap().is_clean());
}

/// Goal: whatever moment the process dies at, the object is there once and nothing beside it. Method: killed at a point,
/// started again.
async fn export_killed_at(point: &str) {
    let source = ScriptedRedis::start(vec![full_sync_marker(Dump::sample().bytes, MARKER)]).await;
    let service = setup().cluster("main", &[&source.address()], "").start().await;
    let backup = service.clients.take("main", "first").await;
    let process = service.stop().await.spawn(&[("REDKEEP_CRASH_AT", point)]).await;
    let _ = export(&process.clients, to(&backup.id, "reports", "a")).await;
    let setup = process.wait_end(SOON).await;
    let process = setup.spawn(&[]).await;
    let root = root(&process.setup);
    let request = own::ListOperationsRequest { folder_id: "default".into(), ..Default::default() };
    let newest = bare(process.clients.own_operations.clone().list(request).await).unwrap().operations.remove(0);
    let result: own::ExportResult = response(&process.clients.ended(&newest.id, SOON).await);
    assert_eq!(result.keys, ["a/first-shard1.rdb"]);
    only(&root, &["a/first-shard1.rdb"]).await;
    assert!(std::fs::read(root.join(&result.keys[0])).unwrap() == Dump::sample().bytes);
    assert_eq!(process.clients.backup(&backup.id).await.unwrap(), backup);
    assert_eq!(files_below(&process.setup.artifact_root()).len(), 4);
    let setup = process.terminate(SOON).await;
    let report = verify(&setup.folder().join("store")).unwrap();
    assert!(report.is_clean() && report.live == 0, "{report:?}");
}

#[tokio::test]
async fn killed_before_the_first_byte() {
    export_killed_at("export.preflight").await;
}

#[tokio::test]
async fn killed_when_all_is_staged() {
    export_killed_at("export.stored").await;
}

#[tokio::test]
async fn killed_after_the_decision() {
    export_killed_at("export.decided").await;
}

#[tokio::test]
async fn killed_when_the_object_is_there() {
    export_killed_at("export.published").await;
}

#[tokio::test]
async fn a_damaged_backup_is_not_handed_on() {
    let (_source, service, backup) = willing().await;
    let clients = &service.clients;
    let path = stored(&service.setup, &backup, "shard1-0.rdb.zst");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    for as_stored in [false, true] {
        let (reason, message) = failed(clients, own::ExportBackupRequest { as_stored, ..to(&backup.id, "reports", "") }).await;
        assert_eq!((reason.as_str(), message.contains("shard1-0.rdb.zst as it was stored")), ("STORAGE_CORRUPT", true), "{message}");
        only(&root(&service.setup), &[]).await;
    }
    service.stop().await;
}

#[tokio::test]
async fn a_bucket_without_room_keeps_nothing() {
    let source = ScriptedRedis::start(vec![generated_marker(40 << 20, 1 << 20, None), full_sync_marker(Dump::sample().bytes, MARKER)]).await;
    let setup = setup().executor("deadline", "\"5s\"").cluster("main", &[&source.address()], "");
    let Some(mounted) = Mounted::at(root(&setup), "32m") else { return };
    let service = setup.start().await;
    let backup = service.clients.take("main", "first").await;
    let (reason, message) = failed(&service.clients, to(&backup.id, "reports", "")).await;
    assert_eq!((reason.as_str(), message.contains("bucket reports is full")), ("STORAGE_FULL", true), "{message}");
    only(&root(&service.setup), &[]).await;
    let small = service.clients.take("main", "small").await;
    mounted.make_read_only();
    let (reason, message) = failed(&service.clients, to(&small.id, "reports", "")).await;
    assert_eq!((reason.as_str(), message.as_str()), ("STORAGE_DENIED", "bucket reports cannot be written: the file system is read-only"));
    service.stop().await;
}

#[tokio::test]
async fn a_bucket_that_goes_is_told() {
    let (_source, service, backup) = willing().await;
    std::fs::remove_dir(root(&service.setup)).unwrap();
    let (reason, message) = failed(&service.clients, to(&backup.id, "reports", "")).await;
    assert_eq!((reason.as_str(), message.as_str()), ("STORAGE_DENIED", "bucket reports cannot be written: its root is gone"));
    // A start makes it again.
    let service = service.stop().await.start().await;
    exported(&service.clients, to(&backup.id, "reports", "")).await;
    service.stop().await;
}

/// Goal: what was accepted does not end where the configuration no longer lets it. Method: an export that hangs, and a start
/// without its bucket, or with one for others.
#[tokio::test]
async fn a_bucket_that_is_taken_away_ends_its_exports() {
    for folders in [None, Some("[\"shop\"]")] {
        let (_source, process, backup) = hanging(Setup::new().bucket("reports", "exports", "[\"default\"]"), "export.moving").await;
        let operation = export(&process.clients, to(&backup.id, "reports", "")).await.unwrap();
        is_moving(&process.clients, &operation.id).await;
        let setup = process.kill().without_buckets();
        let setup = match folders {
            Some(folders) => setup.bucket("reports", "exports", folders),
            None => setup,
        };
        let process = setup.spawn(&[]).await;
        let ended = process.clients.ended(&operation.id, SOON).await;
        assert_eq!(reason_of(&ended), "STORAGE_DENIED", "{ended:#?}");
        delete(&process.clients, &backup.id).await.unwrap();
        process.terminate(SOON).await;
    }
}

#[tokio::test]
async fn the_commands_do_the_same() {
    let (_source, service, backup) = willing().await;
    let redkeep = async |words: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_redkeep"));
        command.args(words).args(["--endpoint", &service.endpoint]).env("NO_COLOR", "1");
        let output = command.output().await.unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, told, log) = redkeep(&["backup", "copy", &backup.id, "--name", "second", "--wait"]).await;
    assert_eq!((code, told.contains("of cluster main is AVAILABLE")), (Some(0), true), "{told} {log}");
    let (code, told, log) = redkeep(&["backup", "export", &backup.id, "--bucket", "reports", "--path", "a", "--wait"]).await;
    assert_eq!((code, told.contains("is in bucket reports") && told.contains("a/first-shard1.rdb")), (Some(0), true), "{told} {log}");
    let (code, told, _) = redkeep(&["backup", "export", &backup.id, "--bucket", "reports", "--as-stored", "--wait", "-o", "json"]).await;
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, told["response"]["keys"][0].as_str()), (Some(0), Some("first-shard1.rdb.zst")));
    for (bucket, exit) in [("nowhere", 3), ("elsewhere", 5)] {
        assert_eq!(redkeep(&["backup", "export", &backup.id, "--bucket", bucket]).await.0, Some(exit));
    }
    assert_eq!(redkeep(&["backup", "copy", &backup.id, "--name", "second"]).await.0, Some(4));
    service.stop().await;
}

/// Goal: of several objects there are all or none. Method: an export in two segments is taken to its decision by hand; a file of
/// another hand lies under the second key, or none; an executor does the rest.
#[tokio::test]
async fn of_several_objects_there_are_all_or_none() {
    let source = ScriptedRedis::willing().await;
    for taken in [true, false] {
        let setup = Setup::new().cluster("main", &[&source.address()], "");
        let config = redkeep::config::load(Some(&setup.write()), &[]).unwrap();
        let store: Arc<dyn Store> = Arc::new(SledStore::open(sled::Options::new(setup.folder().join("store"))).unwrap());
        // Segments so short that the sample has many.
        let options =
            artifacts::Options { root: setup.artifact_root().into(), folders: Default::default(), compression: Compression::None, segment_bytes: 1000 };
        let root = root(&setup);
        let bucket = artifacts::bucket::Options { name: "reports".parse().unwrap(), root: root.clone().into(), folders: vec!["default".parse().unwrap()] };
        let storage = Storage::open(options).unwrap().with_buckets(vec![bucket]).unwrap();
        let fleet = Arc::new(Fleet::new(config.clusters));
        let cluster = fleet.get(&"main".parse().unwrap()).unwrap();
        let executor = Executor::new(Arc::clone(&store), fleet, storage.clone(), executor::Options { workers: 2, ..config.executor });
        let caller = || Caller { subject: "me".into(), key: None };
        let run = |stop: &CancellationToken| {
            let (executor, stop) = (executor.clone(), stop.clone());
            tokio::spawn(async move { executor.run(stop).await })
        };
        let stop = CancellationToken::new();
        let running = run(&stop);
        let draft = Draft { name: "first".parse().unwrap(), labels: Default::default(), expires_at: None };
        let made = executor.create_backup(&cluster, Door::Redkeep, draft, caller()).await.unwrap();
        assert!(matches!(executor.wait(made.id, 0, SOON).await.unwrap().state, State::Succeeded(_)));
        stop.cancel();
        running.await.unwrap();
        let segments = store.backup(made.backup_id.unwrap()).await.unwrap().shards[0].sha256.split(',').count();
        assert!(segments > 1);

        let target = ExportTarget { bucket: "reports".into(), path: "a".into(), name: None, as_stored: true };
        let export = executor.export_backup(made.backup_id.unwrap(), target, Door::Redkeep, caller()).await.unwrap();
        let claimed = store.claim(&Zones::default(), SOON).await.unwrap().0.expect("it is due").operation;
        let staging = format!("{}-{}", claimed.id, claimed.epoch);
        let mut objects = Vec::new();
        for number in 0..2 {
            let bytes = format!("segment {number}");
            let mut staged = storage.bucket("reports").unwrap().stage(&staging, number).await.unwrap();
            staged.write_all(bytes.as_bytes()).unwrap();
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes.as_bytes());
            let sha256: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            objects.push(serde_json::json!({ "key": format!("a/{number}"), "bytes": bytes.len(), "sha256": sha256 }));
        }
        let plan = serde_json::to_vec(&serde_json::json!({ "objects": objects })).unwrap();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &plan);
        let manifest_sha256 = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let decision = Publication { epoch: claimed.epoch, since: chrono::Utc::now(), manifest_sha256 };
        store.step(claimed.id, claimed.epoch, Step::Publish, Some((decision, plan))).await.unwrap();
        store.hand_back(claimed.id, claimed.epoch).await.unwrap();
        if taken {
            std::fs::create_dir(root.join("a")).unwrap();
            std::fs::write(root.join("a/1"), b"of another").unwrap();
        }
        let stop = CancellationToken::new();
        let running = run(&stop);
        let ended = executor.wait(export.id, 0, SOON).await.unwrap();
        match (taken, &ended.state) {
            (true, State::Failed(failure)) => assert_eq!((failure.reason.as_str(), failure.message.contains("a/1")), ("TARGET_EXISTS", true), "{failure}"),
            (false, State::Succeeded(Response::Exported(result))) => assert_eq!((result.keys.len(), result.bytes), (2, 18)),
            (_, state) => panic!("{taken}: {state:?}"),
        }
        only(&root, if taken { &["a/1"] } else { &["a/0", "a/1"] }).await;
        assert_eq!(std::fs::read(root.join("a/1")).unwrap(), if taken { &b"of another"[..] } else { b"segment 1" });

        // What the segments really hold is exported under numbered names, and joined again is the dump.
        let target = ExportTarget { bucket: "reports".into(), path: "b".into(), name: None, as_stored: true };
        let export = executor.export_backup(made.backup_id.unwrap(), target, Door::MemStore, caller()).await.unwrap();
        let ended = executor.wait(export.id, 0, SOON).await.unwrap();
        let State::Succeeded(Response::Exported(result)) = &ended.state else { panic!("{ended:#?}") };
        assert_eq!((result.keys.len(), result.keys[1].as_str()), (segments, "b/first-shard1-2.rdb"));
        let stored: Vec<u8> = result.keys.iter().flat_map(|key| std::fs::read(root.join(key)).unwrap()).collect();
        let target = ExportTarget { bucket: "reports".into(), path: "c".into(), name: Some("dump".into()), as_stored: false };
        let export = executor.export_backup(made.backup_id.unwrap(), target, Door::MemStore, caller()).await.unwrap();
        executor.wait(export.id, 0, SOON).await.unwrap();
        assert!(std::fs::read(root.join("c/dump")).unwrap() == stored);
        let wrong = ExportTarget { bucket: "reports".into(), path: "../c".into(), name: Some("dump".into()), as_stored: false };
        let refused = executor.export_backup(made.backup_id.unwrap(), wrong, Door::MemStore, caller()).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
        stop.cancel();
        running.await.unwrap();
    }
}
