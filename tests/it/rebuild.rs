//! Goal: a store that is lost with all that was in it is made again out of what storage has, and nothing is promised that is not there.
//! Method: the real program on what a real service has stored, whole, damaged and half.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

use crate::copy::{copy, delete};
use crate::support::answers::{bare, response};
use crate::support::objects::{Bucket, Kind};
use crate::support::scripted::ScriptedRedis;
use crate::support::server::RedisServer;
use crate::support::service::{Clients, OPERATION, Setup, error_of};
use crate::support::{compare, data, load};
use redkeep::pb::own;
use redkeep::pb::own::backup::{Level, State};
use redkeep::store::sled::verify;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

/// How a rebuild ended.
struct Rebuild {
    done: bool,
    stdout: String,
    stderr: String,
}

impl Rebuild {
    /// The line of the table that tells of this id.
    fn line(&self, id: &str) -> &str {
        self.stdout.lines().find(|line| line.contains(id)).unwrap_or_else(|| panic!("{id} in\n{}{}", self.stdout, self.stderr))
    }

    /// The first words of that line.
    fn fate(&self, id: &str) -> &str {
        self.line(id).split("  ").next().unwrap().split(" default/").next().unwrap().trim()
    }
}

/// Runs `store rebuild` on a configuration.
async fn rebuild(setup: &Setup, flags: &[&str]) -> Rebuild {
    let mut command = Command::new(env!("CARGO_BIN_EXE_redkeep"));
    command.args(["store", "rebuild", "--config"]).arg(setup.write()).args(flags);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Rebuild { done: output.status.success(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn lose_store(setup: &Setup) {
    std::fs::remove_dir_all(setup.folder().join("store")).unwrap();
}

async fn update(clients: &Clients, request: own::UpdateBackupRequest) -> own::Backup {
    let operation = bare(clients.backups.clone().update(request).await).unwrap();
    response(&clients.ended(&operation.id, OPERATION).await)
}

async fn deleted(clients: &Clients, id: &str) {
    let operation = delete(clients, id).await.unwrap();
    assert!(error_of(&clients.ended(&operation.id, OPERATION).await).is_none());
}

/// What a rebuilt row cannot know to the moment: when the record was completed, and how long files are spared.
fn comparable(mut backup: own::Backup) -> own::Backup {
    assert!(backup.completed_at.take().is_some());
    backup.purge_at = backup.purge_at.map(|_| prost_types::Timestamp::default());
    backup
}

async fn all(clients: &Clients) -> Vec<own::Backup> {
    clients.all_backups().await.into_iter().map(comparable).collect()
}

#[tokio::test]
async fn a_store_that_is_lost_is_made_again() {
    let primary = RedisServer::start().await;
    data::fill_every_type(&primary, 2).await;
    let setup = Setup::new().executor("delete_grace", "\"1h\"").cluster("main", &[&primary.address()], "");
    let service = setup.start().await;
    let clients = &service.clients;
    let first = clients.take("main", "first").await;
    let request = own::UpdateBackupRequest {
        backup_id: first.id.clone(),
        name: "renamed".into(),
        labels: [("team".to_owned(), "shop".to_owned())].into(),
        expires_at: Some(prost_types::Timestamp { seconds: 4_000_000_000, nanos: 0 }),
        holds: vec!["case 7".into()],
        ..Default::default()
    };
    let first = update(clients, request).await;
    let operation = copy(clients, &first.id, "copy").await.unwrap();
    let copied: own::Backup = response(&clients.ended(&operation.id, OPERATION).await);
    let gone = clients.take("main", "gone").await;
    deleted(clients, &gone.id).await;
    let suspect = {
        primary.command(&["FLUSHALL"]).await;
        clients.take("main", "suspect").await
    };
    assert!(suspect.suspicion.is_some());
    let before = all(clients).await;
    let setup = service.stop().await;

    let refused = rebuild(&setup, &[]).await;
    assert!(!refused.done && refused.stderr.contains("--merge"), "{}", refused.stderr);
    lose_store(&setup);
    let done = rebuild(&setup, &["--deep"]).await;
    assert!(done.done, "{}{}", done.stdout, done.stderr);
    assert_eq!((done.fate(&first.id), done.fate(&gone.id)), ("AVAILABLE", "DELETING"));
    assert!(done.line(&first.id).contains("renamed") && done.stdout.contains("4 backups are there again (1 of them DELETING)"), "{}", done.stdout);
    let again = rebuild(&setup, &["--merge"]).await;
    assert!(again.done && again.fate(&first.id) == "KNOWN" && again.stdout.contains("0 backups are there again"), "{}", again.stdout);
    let report = verify(&setup.folder().join("store")).unwrap();
    assert!(report.is_clean() && report.backups == 4, "{report:?}");

    let service = setup.start().await;
    let clients = &service.clients;
    assert_eq!(all(clients).await, before);
    // They are backups like any other: held, changed, copied, deleted, brought back.
    assert_eq!(delete(clients, &first.id).await.unwrap_err().code(), tonic::Code::FailedPrecondition);
    let mask = Some(prost_types::FieldMask { paths: vec!["holds".into()] });
    assert!(update(clients, own::UpdateBackupRequest { backup_id: first.id.clone(), update_mask: mask, ..Default::default() }).await.holds.is_empty());
    deleted(clients, &first.id).await;
    let back = bare(clients.backups.clone().undelete(own::UndeleteBackupRequest { backup_id: gone.id.clone() }).await).unwrap();
    let back: own::Backup = response(&clients.ended(&back.id, OPERATION).await);
    assert_eq!((back.state(), back.name.as_str()), (State::Available, "gone"));
    // What the source was is known again: an empty one stays suspect.
    assert!(clients.take("main", "later").await.suspicion.is_some());
    let plain = service.setup.folder().join("plain.rdb");
    load::decompress(&service.setup.artifact_root().join(&copied.path).join("shard1-0.rdb.zst"), &plain);
    let restored = load::load_rdb(&plain).await;
    load::decompress(&service.setup.artifact_root().join(&first.path).join("shard1-0.rdb.zst"), &plain);
    compare::assert_same_content(&load::load_rdb(&plain).await, &restored).await;
    service.stop().await;
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

#[tokio::test]
async fn what_is_damaged_or_half_is_told_and_left_alone() {
    let source = ScriptedRedis::willing().await;
    let setup = Setup::new().executor("delete_grace", "\"1h\"").cluster("main", &[&source.address()], "backup_retain_period_days = 1");
    let service = setup.start().await;
    let clients = &service.clients;
    let mut made = Vec::new();
    for name in ["whole", "cut", "flipped", "lost", "garbled", "half", "foreign", "facts", "brought-back", "twice", "twin", "planned", "decided"] {
        made.push(clients.take("main", name).await);
    }
    let id = |name: &str| made.iter().find(|backup| backup.name == name).unwrap().id.clone();
    deleted(clients, &id("brought-back")).await;
    for name in ["facts", "facts"] {
        update(clients, own::UpdateBackupRequest { backup_id: id(name), holds: vec!["case 7".into()], name: name.into(), ..Default::default() }).await;
    }
    let setup = service.stop().await;
    let root = setup.artifact_root();
    let folder = |name: &str| -> PathBuf { root.join(format!("default/main/{}", id(name))) };
    let segment = |name: &str| folder(name).join("1/shard1-0.rdb.zst");
    std::fs::write(segment("cut"), "short").unwrap();
    let mut bytes = std::fs::read(segment("flipped")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(segment("flipped"), bytes).unwrap();
    std::fs::remove_file(segment("lost")).unwrap();
    std::fs::write(folder("garbled").join("1/manifest.json"), "{\u{1b}").unwrap();
    std::fs::remove_file(folder("half").join("1/manifest.json")).unwrap();
    edit(&folder("foreign").join("1/manifest.json"), |manifest| manifest["backup_id"] = json!(id("whole")));
    // The newest facts cannot be read: those before them hold; but for a tombstone, which they may have taken back.
    std::fs::write(folder("facts").join("facts/3.json"), "{").unwrap();
    std::fs::write(folder("brought-back").join("facts/2.json"), "").unwrap();
    // A later attempt was published, and is damaged; and two have one name.
    let later = folder("twice").join("2");
    std::fs::create_dir(&later).unwrap();
    for file in ["manifest.json", "shard1-0.rdb.zst"] {
        std::fs::copy(folder("twice").join("1").join(file), later.join(file)).unwrap();
    }
    edit(&later.join("manifest.json"), |manifest| manifest["epoch"] = json!(2));
    edit(&folder("twin").join("1/manifest.json"), |manifest| manifest["name"] = json!("whole"));
    // Two scheduled ones; of one a person has decided the end, and a server has loaded it.
    for name in ["planned", "decided"] {
        edit(&folder(name).join("1/manifest.json"), |manifest| {
            manifest["origin"] = json!("automated");
            manifest["planned_at"] = json!("2026-01-01T00:00:00Z");
        });
    }
    let proof = json!({
        "level": "loaded", "engine": "redis", "engine_version": "7.2.5", "started_at": "2026-01-02T00:00:00Z", "duration_millis": 5, "keys": 9,
        "sampled_keys": 9, "operation_id": "an operation"
    });
    let facts = json!({
        "format_version": 1, "backup_id": id("decided"), "revision": 1, "operation_id": "an operation", "written_at": "2026-01-02T00:00:00Z",
        "name": "decided", "labels": {}, "expires_at": null, "expiry_by_hand": true, "holds": [], "deleted_until": null, "proofs": [proof]
    });
    std::fs::create_dir(folder("decided").join("facts")).unwrap();
    std::fs::write(folder("decided").join("facts/1.json"), facts.to_string()).unwrap();
    std::fs::write(root.join("default/README"), "not ours").unwrap();
    lose_store(&setup);

    let done = rebuild(&setup, &[]).await;
    assert!(!done.done && done.stderr.contains("4 backup(s) could not be put back"), "{}{}", done.stdout, done.stderr);
    for (name, fate, told) in [
        ("whole", "AVAILABLE", "whole"),
        ("cut", "DAMAGED", "shard1-0.rdb.zst has 5 bytes instead of"),
        ("flipped", "AVAILABLE", "flipped"),
        ("lost", "DAMAGED", "shard1-0.rdb.zst is missing"),
        ("garbled", "DAMAGED", "its manifest cannot be read"),
        ("half", "NO MANIFEST", "file(s) of attempts that were not published"),
        ("foreign", "DAMAGED", "its manifest is of another backup"),
        ("facts", "AVAILABLE", "facts 3 cannot be read, older ones count"),
        ("brought-back", "AVAILABLE", "facts 2 cannot be read"),
        ("twice", "AVAILABLE", "attempt 2: shard1-side.json is missing"),
        ("twin", "AVAILABLE", "another backup has its name whole"),
    ] {
        assert_eq!(done.fate(&id(name)), fate, "{}", done.line(&id(name)));
        assert!(done.line(&id(name)).contains(told), "{told}: {}", done.line(&id(name)));
    }
    assert!(done.stdout.contains("STRANGER     default/README") && done.stdout.contains("1 objects belong to nothing"), "{}", done.stdout);
    assert!(!done.stdout.contains('\u{1b}'));
    // Every byte is looked at when that is asked for.
    lose_store(&setup);
    let deep = rebuild(&setup, &["--deep"]).await;
    assert_eq!(deep.fate(&id("flipped")), "DAMAGED", "{}", deep.stdout);
    assert!(deep.line(&id("flipped")).contains("SHA-256"), "{}", deep.line(&id("flipped")));
    assert!(verify(&setup.folder().join("store")).unwrap().is_clean());

    let service = setup.start().await;
    let backup = async |name: &str| service.clients.backup(&id(name)).await.unwrap();
    assert_eq!(backup("facts").await.holds[0].reason, "case 7");
    assert_eq!(backup("twin").await.name, format!("undeleted-{}", id("twin").replace('-', "").split_off(16)));
    let (planned, decided) = (backup("planned").await, backup("decided").await);
    let told = |backup: &own::Backup| (backup.planned_at.map(|at| at.seconds), backup.expires_at.map(|at| at.seconds), backup.level(), backup.proofs.len());
    assert_eq!(told(&planned), (Some(1_767_225_600), Some(1_767_225_600 + 86_400), Level::Walked, 0));
    assert_eq!(told(&decided), (Some(1_767_225_600), None, Level::Loaded, 1));
    assert_eq!(decided.shards[0].level(), Level::Loaded);
    // A revision that is taken is passed over.
    let changed = update(&service.clients, own::UpdateBackupRequest { backup_id: id("facts"), name: "changed".into(), ..Default::default() }).await;
    assert_eq!(changed.name, "changed");
    assert!(folder("facts").join("facts/4.json").exists());
    service.stop().await;
}

#[tokio::test]
async fn a_store_is_made_again_from_the_bucket_of_an_object_store() {
    for kind in [Kind::S3, Kind::Azure] {
        let Some(bucket) = Bucket::open(kind).await else { continue };
        let source = ScriptedRedis::willing().await;
        let setup = Setup::new().artifacts(&bucket.lines("backups")).cluster("main", &[&source.address()], "");
        let service = setup.start().await;
        let first = service.clients.take("main", "first").await;
        service.clients.take("main", "second").await;
        update(&service.clients, own::UpdateBackupRequest { backup_id: first.id.clone(), name: "renamed".into(), ..Default::default() }).await;
        let before = all(&service.clients).await;
        let setup = service.stop().await;
        lose_store(&setup);
        let done = rebuild(&setup, &["--deep"]).await;
        assert!(done.done && done.stdout.contains("2 backups are there again"), "{}{}", done.stdout, done.stderr);
        let service = setup.start().await;
        assert_eq!(all(&service.clients).await, before);
        service.stop().await;
    }
}
