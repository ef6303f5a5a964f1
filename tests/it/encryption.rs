//! Goal: what is encrypted is opened by the age tool and by nobody without a key, and is a backup like any other besides.
//! Method: the real service and servers; the real `age`, `zstd` and server as outside judges.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

use crate::copy::{copy, delete};
use crate::support::answers::{bare, response};
use crate::support::scripted::ScriptedRedis;
use crate::support::server::RedisServer;
use crate::support::service::{Clients, OPERATION, Service, Setup, error_of, files_below, reason_of};
use crate::support::{compare, data, load, until};
use age::secrecy::ExposeSecret;
use redkeep::pb::own;
use serde_json::Value;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tonic::Code;

/// Longest wait for what is a matter of moments.
const SOON: Duration = Duration::from_secs(60);

/// A key pair whose secret half lies in a file.
struct Pair {
    key: age::x25519::Identity,
    file: PathBuf,
}

impl Pair {
    fn new(folder: &Path, name: &str) -> Self {
        let (key, file) = (age::x25519::Identity::generate(), folder.join(name));
        std::fs::write(&file, format!("# public key: {}\n{}\n", key.to_public(), key.to_string().expose_secret())).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        Self { key, file }
    }

    fn public(&self) -> String {
        self.key.to_public().to_string()
    }

    /// Opens a file with the library.
    fn open(&self, file: &Path) -> Vec<u8> {
        let mut bytes = Vec::new();
        let decryptor = age::Decryptor::new(std::fs::File::open(file).unwrap()).unwrap();
        decryptor.decrypt(std::iter::once(&self.key as &dyn age::Identity)).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    }
}

fn artifacts(recipients: &[&Pair], more: &str) -> String {
    let recipients: Vec<String> = recipients.iter().map(|pair| pair.public()).collect();
    format!("url = \"file:artifacts\"\nage_recipients = {recipients:?}\n{more}")
}

/// Whether the `age` tool is there; told loudly when it is not.
fn has_tool() -> bool {
    let found = Command::new("age").arg("--version").output().is_ok();
    if !found {
        eprintln!("SKIPPED: there is no age tool here, so nobody else opens what was encrypted");
    }
    found
}

fn folder_of(setup: &Setup, backup: &own::Backup) -> PathBuf {
    setup.artifact_root().join(&backup.path)
}

async fn exported(clients: &Clients, backup: &str, as_stored: bool) -> Result<own::ExportResult, (String, String)> {
    let request = own::ExportBackupRequest { backup_id: backup.into(), bucket: "reports".into(), path: String::new(), as_stored };
    let operation = bare(clients.backups.clone().export(request).await).expect("the export is accepted");
    let ended = clients.ended(&operation.id, OPERATION).await;
    match error_of(&ended) {
        Some(status) => Err((reason_of(&ended), status.message.clone())),
        None => Ok(response(&ended)),
    }
}

#[tokio::test]
async fn the_age_tool_opens_a_backup_and_a_server_loads_it() {
    let primary = RedisServer::start().await;
    data::fill_every_type(&primary, 2).await;
    let around = tempfile::tempdir().unwrap();
    let folder = around.path();
    let (one, other) = (Pair::new(folder, "one"), Pair::new(folder, "other"));
    for (name, compression) in [("packed", "zstd:1"), ("plain", "none")] {
        // The secret key in the service is only for what is read back.
        let more = format!("compression = \"{compression}\"\nage_identity_file = \"one\"");
        let service = Setup::new().artifacts(&artifacts(&[&one, &other], &more));
        let service = service.bucket("reports", "exports", "[\"default\"]").cluster("main", &[&primary.address()], "");
        std::fs::copy(&one.file, service.folder().join("one")).unwrap();
        let service = service.start().await;
        let clients = &service.clients;
        let backup = clients.take("main", name).await;
        assert_eq!(backup.age_recipients, [one.public(), other.public()]);
        let files = files_below(&folder_of(&service.setup, &backup));
        let packed = if compression == "none" { "" } else { ".zst" };
        assert_eq!(files, ["attempt.json".into(), "manifest.json".into(), format!("shard1-0.rdb{packed}.age"), "shard1-side.json.age".into()]);
        let stored = folder_of(&service.setup, &backup).join(&files[2]);

        // The key names of the source are in no file, and in plain text neither is anything of its data.
        let manifest = std::fs::read_to_string(folder_of(&service.setup, &backup).join("manifest.json")).unwrap();
        assert!(manifest.contains(&one.public()) && !manifest.contains("AGE-SECRET-KEY"));
        for bytes in [std::fs::read(&stored).unwrap(), std::fs::read(folder_of(&service.setup, &backup).join(&files[3])).unwrap()] {
            assert!(bytes.starts_with(b"age-encryption.org/v1\n"));
            assert!(!bytes.windows(5).any(|window| window == b"REDIS"));
        }

        // Each of the two keys opens it, with the tool.
        if has_tool() {
            for pair in [&one, &other] {
                let (opened, dump) = (folder.join("opened"), folder.join(format!("{name}.rdb")));
                let done = Command::new("age").args(["-d", "-i"]).arg(&pair.file).arg("-o").arg(&opened).arg(&stored).status().unwrap();
                assert!(done.success());
                if packed.is_empty() {
                    std::fs::copy(&opened, &dump).map(drop).unwrap()
                } else {
                    load::decompress(&opened, &dump)
                }
                load::check_rdb(&dump);
                compare::assert_same_content(&primary, &load::load_rdb(&dump).await).await;
            }
        }

        // The service itself reads it back, and hands it on as it is stored.
        let plain = exported(clients, &backup.id, false).await.unwrap();
        assert_eq!((plain.keys.as_slice(), plain.bytes), ([format!("{name}-shard1.rdb")].as_slice(), backup.size_bytes));
        let dump = service.setup.folder().join("exports").join(&plain.keys[0]);
        compare::assert_same_content(&primary, &load::load_rdb(&dump).await).await;
        let kept = exported(clients, &backup.id, true).await.unwrap();
        assert_eq!(kept.keys, [format!("{name}-shard1.rdb{packed}.age")]);
        assert!(std::fs::read(service.setup.folder().join("exports").join(&kept.keys[0])).unwrap() == std::fs::read(&stored).unwrap());
        service.stop().await;
    }
}

#[tokio::test]
async fn without_the_key_it_can_be_kept_moved_and_removed_but_not_read() {
    let source = ScriptedRedis::willing().await;
    let setup = Setup::new().bucket("reports", "exports", "[\"default\"]").cluster("main", &[&source.address()], "");
    let (one, stranger) = (Pair::new(setup.folder(), "one"), Pair::new(setup.folder(), "stranger"));
    let service = setup.artifacts(&artifacts(&[&one], "")).start().await;
    let clients = service.clients.clone();
    let backup = clients.take("main", "first").await;
    let request = own::ExportBackupRequest { backup_id: backup.id.clone(), bucket: "reports".into(), ..Default::default() };
    let refused = clients.backups.clone().export(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("artifacts.age_identity_file"), "{refused:?}");
    assert_eq!(exported(&clients, &backup.id, true).await.unwrap().keys, ["first-shard1.rdb.zst.age"]);

    // A copy is encrypted to the same keys, whatever is set by then, and has its side state.
    let setup = service.stop().await.artifacts("url = \"file:artifacts\"\ncompression = \"none\"\nage_identity_file = \"stranger\"");
    let service: Service = setup.start().await;
    let clients = &service.clients;
    let operation = copy(clients, &backup.id, "second").await.unwrap();
    let second: own::Backup = response(&clients.ended(&operation.id, OPERATION).await);
    assert_eq!((&second.age_recipients, second.compression.as_str()), (&backup.age_recipients, "zstd:1"));
    for file in ["shard1-0.rdb.zst.age", "shard1-side.json.age"] {
        let (theirs, ours) = (folder_of(&service.setup, &backup).join(file), folder_of(&service.setup, &second).join(file));
        assert!(std::fs::read(theirs).unwrap() == std::fs::read(ours).unwrap(), "{file}");
    }
    assert!(second.shards[0].side_state);

    // A key that is not among the recipients opens nothing: that is found out by trying.
    let (reason, message) = exported(clients, &second.id, false).await.unwrap_err();
    assert_eq!(reason, "BACKUP_ENCRYPTED");
    assert!(message.contains("shard1-0.rdb.zst.age") && message.contains("artifacts.age_identity_file"), "{message}");
    assert!(!message.contains(stranger.key.to_string().expose_secret()));

    // Backups from now on are not encrypted, and both kinds go as they came.
    let third = clients.take("main", "third").await;
    assert!(third.age_recipients.is_empty());
    for backup in [&backup, &second, &third] {
        delete(clients, &backup.id).await.unwrap();
    }
    until("all files go", SOON, async || files_below(&service.setup.artifact_root()).is_empty().then_some(())).await;
    service.stop().await;
}

#[tokio::test]
async fn keys_in_the_wrong_place_are_refused_and_not_shown() {
    let setup = Setup::new();
    let pair = Pair::new(setup.folder(), "one");
    let secret = pair.key.to_string().expose_secret().to_owned();
    let faults = |setup: Setup, lines: &str| {
        let setup = setup.artifacts(lines);
        let fault = redkeep::config::load(Some(&setup.write()), &[]).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(!fault.to_uppercase().contains(&secret[16..]), "{fault}");
        (setup, fault)
    };
    let (setup, fault) = faults(setup, &format!("age_recipients = [{secret:?}, \"age1nonsense\", 1]"));
    assert!(fault.contains("artifacts.age_recipients[0]: is a secret key"), "{fault}");
    assert!(fault.contains("artifacts.age_recipients[1]: must be a public key"), "{fault}");
    let many: Vec<String> = (0..17).map(|_| age::x25519::Identity::generate().to_public().to_string()).collect();
    let (setup, fault) = faults(setup, &format!("age_recipients = {many:?}"));
    assert!(fault.contains("age_recipients[16]: there must be at most 16"), "{fault}");
    let (setup, fault) = faults(setup, &format!("age_recipients = {:?}", [pair.public(), pair.public()]));
    assert!(fault.contains("age_recipients[1]: is listed twice"), "{fault}");
    let (setup, fault) = faults(setup, "age_identity_file = \"nowhere\"\nside_password_hashes = true\nrate_limit = \"1KiB\"");
    for part in ["artifacts.age_identity_file: ", "artifacts.side_password_hashes: needs age_recipients", "artifacts.rate_limit: "] {
        assert!(fault.contains(part), "{part} in {fault}");
    }
    std::fs::set_permissions(&pair.file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (setup, fault) = faults(setup, "age_identity_file = \"one\"");
    assert!(fault.contains("chmod 600"), "{fault}");
    std::fs::set_permissions(&pair.file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (_setup, fault) = faults(setup, &format!("age_identity_file = \"one\"\nage_recipients = [{:?}]\nrate_limit = 1000000", pair.public()));
    assert_eq!(fault, "");
}

#[tokio::test]
async fn the_side_state_holds_what_a_dump_does_not_and_no_secret() {
    let hash = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8";
    let primary = RedisServer::builder().user(&format!("reader on #{hash} ~cache:* +get")).config("masterauth hunter2hunter2").start().await;
    let hidden = RedisServer::builder().user("backup on >pw ~* -@all +psync +replconf +ping +info +auth").start().await;
    let setup = Setup::new();
    let pair = Pair::new(setup.folder(), "one");
    std::fs::write(setup.folder().join("pw"), "pw").unwrap();
    let service =
        setup.cluster("main", &[&primary.address()], "").cluster("hidden", &[&hidden.address()], "username = \"backup\"\npassword_file = \"pw\"").start().await;
    let side = |setup: &Setup, backup: &own::Backup| -> (String, Value) {
        let file = folder_of(setup, backup).join("shard1-side.json");
        let text = if file.exists() { std::fs::read_to_string(file).unwrap() } else { String::from_utf8(pair.open(&file.with_extension("json.age"))).unwrap() };
        let value = serde_json::from_str(&text).unwrap();
        (text, value)
    };
    let backup = service.clients.take("main", "first").await;
    let (text, value) = side(&service.setup, &backup);
    assert!(backup.shards[0].side_state);
    for secret in [hash, "hunter2"] {
        assert!(!text.contains(secret), "{text}");
    }
    let users: Vec<&str> = value["acl"].as_array().unwrap().iter().map(|user| user.as_str().unwrap()).collect();
    assert!(users.iter().any(|user| user.starts_with("user reader on ") && user.contains("~cache:*") && user.contains("+get")), "{users:?}");
    assert_eq!((&value["config"]["databases"], &value["missing"]), (&Value::from(primary.databases().to_string()), &serde_json::json!({})));
    assert!(value["config_left_out"].as_array().unwrap().contains(&"masterauth".into()));
    assert_eq!(value["server"]["redis_mode"], "standalone");
    assert!(value["topology"].as_array().unwrap().iter().any(|line| line == "role:master"), "{text}");

    // What the manifest says of the file holds.
    let manifest: Value = serde_json::from_slice(&std::fs::read(folder_of(&service.setup, &backup).join("manifest.json")).unwrap()).unwrap();
    let file = &manifest["shards"][0]["side"];
    assert_eq!((file["file"].as_str(), file["stored_bytes"].as_u64()), (Some("shard1-side.json"), Some(text.len() as u64)));

    // An account that may not ask is told so in the file, and has its backup.
    let backup = service.clients.take("hidden", "second").await;
    let (_, value) = side(&service.setup, &backup);
    for question in ["ACL LIST", "CONFIG GET", "MODULE LIST"] {
        assert!(value["missing"][question].is_string(), "{question}: {value}");
    }

    // Hashes only on demand, and only encrypted.
    let setup = service.stop().await.artifacts(&artifacts(&[&pair], "side_password_hashes = true"));
    let service = setup.start().await;
    let backup = service.clients.take("main", "third").await;
    let (text, value) = side(&service.setup, &backup);
    assert!(text.contains(hash) && !text.contains("hunter2"), "{text}");
    assert_eq!(value["acl_has_password_hashes"], true);
    service.stop().await;
}

/// Goal: what cannot be read is refused when it is asked for, and not later. Method: an export through each door, without a key.
#[tokio::test]
async fn an_export_that_no_key_opens_is_refused_at_once() {
    let source = ScriptedRedis::willing().await;
    let setup = Setup::new();
    let pair = Pair::new(setup.folder(), "one");
    let setup = setup.artifacts(&artifacts(&[&pair], "")).bucket("reports", "exports", "[\"default\"]");
    let service = setup.cluster("main", &[&source.address()], "").start().await;
    let backup = service.clients.take("main", "first").await;
    let request = own::ExportBackupRequest { backup_id: backup.id.clone(), bucket: "reports".into(), ..Default::default() };
    assert_eq!(service.clients.backups.clone().export(request).await.unwrap_err().code(), Code::FailedPrecondition);
    let body = r#"{"destination":"reports","name":"a.rdb"}"#;
    let lines = ["POST /v1/backups/first/export HTTP/1.1", "Host: localhost", "Content-Type: application/json"];
    let refused = crate::support::http::ask(service.address(), &lines, body.as_bytes()).await;
    let told: Value = serde_json::from_slice(&refused.body).unwrap();
    assert_eq!((refused.status, &told["error"]["code"]), (409, &"BACKUP_ENCRYPTED".into()), "{told}");
    assert!(told["error"]["message"].as_str().unwrap().contains("age_identity_file"), "{told}");
    let operations = service.clients.own_operations.clone().list(own::ListOperationsRequest::default()).await.unwrap().into_inner().operations;
    assert_eq!(operations.len(), 1, "nothing was started but the backup");
    service.stop().await;
}
