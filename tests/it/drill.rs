//! Goal: a backup is proved by loading it, in every engine and form; what is not as it should be is not proved and says so; and
//! nothing is left of the server that loaded it. Method: the real service and real servers; programs that behave badly in place of
//! the server.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

mod limits;
mod recovery;
mod schedule;

use crate::copy::copy;
use crate::support::answers::{bare, response};
use crate::support::engines;
use crate::support::server::RedisServer;
use crate::support::service::{Clients, OPERATION, Setup, error_of, reason_of};
use crate::support::{data, until};
use age::secrecy::ExposeSecret;
use redkeep::pb::operation::Operation;
use redkeep::pb::own;
use redkeep::pb::own::backup::Level;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::Code;

/// Longest wait for what is a matter of moments.
const SOON: Duration = Duration::from_secs(60);

async fn verify(clients: &Clients, backup: &str, level: Level) -> Result<Operation, tonic::Status> {
    bare(clients.backups.clone().verify(own::VerifyBackupRequest { backup_id: backup.into(), level: level.into() }).await)
}

/// A proof that is to succeed: the backup after it.
async fn proved(clients: &Clients, backup: &str, level: Level) -> own::Backup {
    let operation = verify(clients, backup, level).await.expect("the proof is accepted");
    response(&clients.ended(&operation.id, OPERATION).await)
}

/// A proof that is to fail: its reason and message. The backup is what it was.
async fn refused(clients: &Clients, backup: &own::Backup, level: Level) -> (String, String) {
    let operation = verify(clients, &backup.id, level).await.expect("the proof is accepted");
    let ended = clients.ended(&operation.id, OPERATION).await;
    let status = error_of(&ended).unwrap_or_else(|| panic!("it succeeded: {ended:#?}"));
    assert_eq!(&clients.backup(&backup.id).await.unwrap(), backup, "a proof that fails changes nothing");
    (reason_of(&ended), status.message.clone())
}

/// Where throw-away servers have their folders.
fn scratch(setup: &Setup) -> PathBuf {
    setup.folder().join("drill")
}

/// Processes whose working folder lies below one.
fn processes_below(folder: &Path) -> Vec<u32> {
    let pids = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(folder))).collect()
}

/// Waits until there is neither a server nor a dump.
async fn nothing_is_left(setup: &Setup) {
    let folder = scratch(setup);
    until("nothing of a proof is left", SOON, async || {
        let is_empty = std::fs::read_dir(&folder).map_or(true, |mut entries| entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == "lock")));
        (is_empty && processes_below(&folder).is_empty()).then_some(())
    })
    .await;
}

/// The section that names a server program.
fn engine(program: &Path) -> String {
    format!("[engines]\nprograms = [{:?}]\n", program.display().to_string())
}

/// A program of a few lines of shell that says it is a server.
fn script(folder: &Path, name: &str, lines: &str) -> PathBuf {
    let path = folder.join(name);
    let head = "#!/bin/sh\n[ \"$1\" = --version ] && { echo 'Redis server v=99.0.0 sha=0'; exit; }\n";
    std::fs::write(&path, format!("{head}{lines}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    path
}

#[tokio::test]
async fn every_engine_proves_what_it_has_dumped() {
    for kind in engines::present() {
        let server = kind.builder().start().await;
        data::fill_every_type(&server, 3).await;
        // Expired before they are loaded, and there all the same.
        data::fill_lapsed(&server, 50).await;
        let setup = Setup::new().cluster("main", &[&server.address()], "").sections(&engine(&kind.program()));
        let service = setup.start().await;
        let taken = service.clients.take("main", "first").await;
        assert_eq!(taken.level(), Level::Walked);
        let made = proved(&service.clients, &taken.id, Level::Loaded).await;
        assert_eq!(made, service.clients.backup(&taken.id).await.unwrap());
        assert_eq!((made.level(), made.shards[0].level()), (Level::Loaded, Level::Loaded), "{}", kind.name);
        let [proof] = made.proofs.as_slice() else { panic!("one proof: {made:#?}") };
        let version = format!("{}.{}.", kind.release.0, kind.release.1);
        assert_eq!((proof.level(), proof.engine.as_str()), (Level::Loaded, if kind.is_valkey() { "valkey" } else { "redis" }));
        assert!(proof.engine_version.starts_with(&version), "{proof:?}");
        assert_eq!(proof.keys, made.shards[0].keys);
        assert!(proof.sampled_keys > 0 && proof.sampled_keys <= proof.keys - 50 && proof.duration_ms > 0, "{proof:?}");
        nothing_is_left(&service.setup).await;
        service.stop().await;
    }
}

#[tokio::test]
async fn a_proof_is_a_fact_beside_the_backup_and_goes_with_a_copy() {
    let server = RedisServer::start().await;
    data::fill_every_type(&server, 2).await;
    let service = Setup::new().cluster("main", &[&server.address()], "").start().await;
    let clients = &service.clients;
    let taken = clients.take("main", "first").await;
    let walked = proved(clients, &taken.id, Level::Walked).await;
    assert_eq!((walked.level(), walked.proofs.len()), (Level::Walked, 1));
    assert_eq!((walked.proofs[0].level(), walked.proofs[0].engine.as_str(), walked.proofs[0].sampled_keys), (Level::Walked, "", 0));
    let loaded = proved(clients, &taken.id, Level::Loaded).await;
    assert_eq!((loaded.level(), loaded.proofs.len(), loaded.proofs[0].level()), (Level::Loaded, 2, Level::Loaded));
    // A lower proof takes nothing back.
    let again = proved(clients, &taken.id, Level::Walked).await;
    assert_eq!((again.level(), again.proofs.len()), (Level::Loaded, 3));
    let facts = service.setup.artifact_root().join(again.path.trim_end_matches('/')).parent().unwrap().join("facts/3.json");
    let facts: serde_json::Value = serde_json::from_slice(&std::fs::read(facts).unwrap()).unwrap();
    assert_eq!(facts["proofs"].as_array().unwrap().len(), 3);
    assert_eq!(facts["proofs"][1]["level"], "loaded");
    let copied = copy(clients, &taken.id, "kept").await;
    let copied: own::Backup = response(&clients.ended(&copied.unwrap().id, OPERATION).await);
    assert_eq!(copied.level(), Level::Loaded);
    let changed = |level: Level| verify(clients, &taken.id, level);
    for level in [Level::Framed, Level::Sealed] {
        assert_eq!(changed(level).await.unwrap_err().code(), Code::InvalidArgument);
    }
    assert_eq!(verify(clients, "nothing", Level::Loaded).await.unwrap_err().code(), Code::NotFound);
    service.stop().await;
}

#[tokio::test]
async fn what_is_encrypted_is_proved_with_the_key() {
    let server = RedisServer::start().await;
    data::fill_every_type(&server, 2).await;
    let setup = Setup::new();
    let (key, file) = (age::x25519::Identity::generate(), setup.folder().join("key.txt"));
    std::fs::write(&file, format!("{}\n", key.to_string().expose_secret())).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let recipients = format!("url = \"file:artifacts\"\ncompression = \"none\"\nage_recipients = [\"{}\"]\n", key.to_public());
    let setup = setup.cluster("main", &[&server.address()], "").artifacts(&format!("{recipients}age_identity_file = \"key.txt\""));
    let service = setup.start().await;
    let taken = service.clients.take("main", "first").await;
    assert_eq!(proved(&service.clients, &taken.id, Level::Loaded).await.level(), Level::Loaded);
    let setup = service.stop().await.artifacts(&recipients);
    let service = setup.start().await;
    let locked = verify(&service.clients, &taken.id, Level::Loaded).await.unwrap_err();
    assert_eq!(locked.code(), Code::FailedPrecondition, "{locked:?}");
    service.stop().await;
}

#[tokio::test]
async fn several_shards_are_loaded_one_after_the_other() {
    let server = RedisServer::start().await;
    data::fill_every_type(&server, 2).await;
    let service = Setup::new().cluster("main", &[&server.address()], "").bucket("reports", "exports", "[\"default\"]").start().await;
    let clients = &service.clients;
    let taken = clients.take("main", "first").await;
    for key in ["a.rdb", "b.rdb"] {
        let plain = service.setup.folder().join("exports").join(key);
        std::fs::create_dir_all(plain.parent().unwrap()).unwrap();
        crate::support::load::decompress(&service.setup.artifact_root().join(&taken.path).join("shard1-0.rdb.zst"), &plain);
    }
    let keys = vec!["a.rdb".to_owned(), "b.rdb".to_owned()];
    let import = own::ImportBackupRequest { cluster_id: "main".into(), bucket: "reports".into(), keys, ..Default::default() };
    let import = bare(clients.backups.clone().import(import).await).unwrap();
    let wide: own::Backup = response(&clients.ended(&import.id, OPERATION).await);
    let made = proved(clients, &wide.id, Level::Loaded).await;
    assert!(made.shards.len() == 2 && made.shards.iter().all(|shard| shard.level() == Level::Loaded), "{made:#?}");
    assert_eq!(made.proofs[0].keys, 2 * taken.shards[0].keys);
    nothing_is_left(&service.setup).await;
    service.stop().await;
}

/// Goal: one byte is enough, for either level, and the message says where. Method: flip one in the stored object.
#[tokio::test]
async fn a_damaged_artifact_is_not_proved() {
    let server = RedisServer::start().await;
    data::fill_every_type(&server, 2).await;
    let service = Setup::new().cluster("main", &[&server.address()], "").start().await;
    let taken = service.clients.take("main", "first").await;
    let file = service.setup.artifact_root().join(&taken.path).join("shard1-0.rdb.zst");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    for level in [Level::Walked, Level::Loaded] {
        let (reason, message) = refused(&service.clients, &taken, level).await;
        assert!(reason == "STORAGE_CORRUPT" && message.contains("shard1-0.rdb.zst"), "{reason}: {message}");
    }
    std::fs::remove_file(&file).unwrap();
    let (reason, message) = refused(&service.clients, &taken, Level::Loaded).await;
    assert_eq!(reason, "STORAGE_CORRUPT", "{message}");
    nothing_is_left(&service.setup).await;
    service.stop().await;
}

/// Goal: a server that has something else proves nothing. Method: servers that lose a key, a type, an expiry, a length.
#[tokio::test]
async fn a_server_with_other_content_proves_nothing() {
    let server = RedisServer::start().await;
    let real = redkeep::redis::local::program().expect("a server program");
    for (what, before, after) in [
        ("keys after loading", "SET a 1", "DEL a"),
        ("of type set after loading", "SADD a 1", "ZADD a 1 1"),
        ("has another length", "RPUSH a 1 2 3", "RPUSH a 1 2"),
        ("has another expiry", "SET a 1 EXAT 4000000000", "SET a 1 EXAT 4000000001"),
        ("libraries of functions", "SET a 1", "FUNCTION"),
    ] {
        let fill = async |line: &str| {
            server.command(&["FLUSHALL"]).await;
            server.command(&["SET", "other", "value"]).await;
            server.command(&line.split(' ').collect::<Vec<_>>()).await;
        };
        if what.contains("functions") && server.version().0 < 7 {
            continue;
        }
        let setup = Setup::new().cluster("main", &[&server.address()], "");
        let folder = setup.folder().to_owned();
        let changed = script(&folder, "changed", &format!("cp {}/other.rdb dump.rdb\nexec {} \"$@\"", folder.display(), real.display()));
        let service = setup.sections(&engine(&changed)).start().await;
        fill(after).await;
        if what.contains("functions") {
            data::load_functions(&server).await;
            server.command(&["SET", "a", "1"]).await;
        }
        let other = service.clients.take("main", "other").await;
        crate::support::load::decompress(&service.setup.artifact_root().join(&other.path).join("shard1-0.rdb.zst"), &folder.join("other.rdb"));
        server.command(&["FUNCTION", "FLUSH"]).await;
        fill(before).await;
        let taken = service.clients.take("main", "first").await;
        let (reason, message) = refused(&service.clients, &taken, Level::Loaded).await;
        assert!(reason == "NOT_PROVED" && message.contains(what), "{what}: {reason}: {message}");
        nothing_is_left(&service.setup).await;
        service.stop().await;
    }
}

/// Goal: what changes while a proof works is not undone by it. Method: a server that takes its time to begin.
#[tokio::test]
async fn an_update_meanwhile_stays() {
    let server = RedisServer::start().await;
    data::fill_small_keys(&server, 100).await;
    let real = redkeep::redis::local::program().expect("a server program");
    let setup = Setup::new().cluster("main", &[&server.address()], "");
    let (gate, folder) = (setup.folder().join("gate"), setup.folder().to_owned());
    let slow = script(&folder, "slow", &format!("while [ ! -e {} ]; do sleep 0.02; done\nexec {} \"$@\"", gate.display(), real.display()));
    let service = setup.sections(&engine(&slow)).start().await;
    let clients = &service.clients;
    let taken = clients.take("main", "first").await;
    let proving = verify(clients, &taken.id, Level::Loaded).await.unwrap();
    until("the server is started", SOON, async || (!processes_below(&scratch(&service.setup)).is_empty()).then_some(())).await;
    let update = own::UpdateBackupRequest {
        backup_id: taken.id.clone(),
        update_mask: Some(prost_types::FieldMask { paths: vec!["name".into(), "holds".into()] }),
        name: "renamed".into(),
        holds: vec!["case 7".into()],
        ..Default::default()
    };
    let update = bare(clients.backups.clone().update(update).await).unwrap();
    assert!(error_of(&clients.ended(&update.id, OPERATION).await).is_none());
    let delete = clients.backups.clone().delete(own::DeleteBackupRequest { backup_id: taken.id.clone() }).await.unwrap_err();
    assert_eq!(delete.code(), Code::FailedPrecondition, "{delete:?}");
    std::fs::write(&gate, "").unwrap();
    let made: own::Backup = response(&clients.ended(&proving.id, OPERATION).await);
    assert_eq!((made.name.as_str(), made.holds.len(), made.level()), ("renamed", 1, Level::Loaded));
    service.stop().await;
}
