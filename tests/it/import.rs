//! Goal: a dump in a bucket becomes a backup like any other, or nothing of it stays and the reason is told. Method: the real
//! service and program, real folders as buckets, dumps of real servers and spoiled ones; an import that hangs in its middle where
//! something is to happen meanwhile.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

use crate::copy::{cancel, is_moving};
use crate::support::answers::{bare, fields, keyed, metadata, response};
use crate::support::data::Noise;
use crate::support::rdb_bytes::{Dump, RdbBytes};
use crate::support::scripted::ScriptedRedis;
use crate::support::server::RedisServer;
use crate::support::service::{Clients, OPERATION, Process, Setup, error_of, files_below, reason_of};
use crate::support::{compare, data, load, until};
use redkeep::operation::ImportSource;
use redkeep::pb::operation::Operation;
use redkeep::pb::own;
use redkeep::pb::own::backup::{Level, State};
use redkeep::store::sled::verify;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::{Code, Status};

/// Longest wait for what is a matter of moments.
const SOON: Duration = Duration::from_secs(60);

fn of(cluster: &str, keys: &[&str]) -> own::ImportBackupRequest {
    let keys = keys.iter().map(|key| (*key).to_owned()).collect();
    own::ImportBackupRequest { cluster_id: cluster.into(), bucket: "reports".into(), keys, ..Default::default() }
}

fn named(name: &str, request: own::ImportBackupRequest) -> own::ImportBackupRequest {
    own::ImportBackupRequest { name: name.into(), ..request }
}

async fn import(clients: &Clients, request: own::ImportBackupRequest) -> Result<Operation, Status> {
    bare(clients.backups.clone().import(request).await)
}

/// An import that is to succeed.
async fn imported(clients: &Clients, request: own::ImportBackupRequest) -> own::Backup {
    let operation = import(clients, request).await.expect("the import is accepted");
    response(&clients.ended(&operation.id, OPERATION).await)
}

/// An import that is to fail: its reason and message.
async fn failed(clients: &Clients, request: own::ImportBackupRequest) -> (String, String) {
    let operation = import(clients, request).await.expect("the import is accepted");
    let ended = clients.ended(&operation.id, OPERATION).await;
    let status = error_of(&ended).unwrap_or_else(|| panic!("it succeeded: {ended:#?}"));
    assert_eq!(clients.progress(&operation.id).await.attempt, 1, "{status:?}");
    (reason_of(&ended), status.message.clone())
}

fn setup() -> Setup {
    Setup::new().bucket("reports", "exports", "[\"default\"]").bucket("elsewhere", "other", "[\"shop\"]")
}

/// Puts a file into the bucket.
fn put(setup: &Setup, key: &str, bytes: &[u8]) -> PathBuf {
    let path = setup.folder().join("exports").join(key);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

/// The dump of a backup's shard, as a user gets it.
fn dump_of(setup: &Setup, backup: &own::Backup, shard: &str) -> PathBuf {
    let plain = setup.folder().join(format!("{shard}.rdb"));
    load::decompress(&setup.artifact_root().join(&backup.path).join(format!("{shard}-0.rdb.zst")), &plain);
    plain
}

async fn nothing_left(setup: &Setup) {
    let root = setup.artifact_root();
    until("nothing is left over", SOON, async || files_below(&root).is_empty().then_some(())).await;
}

#[tokio::test]
async fn a_dump_of_a_real_server_becomes_a_backup() {
    let primary = RedisServer::start().await;
    data::fill_every_type(&primary, 2).await;
    let source = setup().cluster("main", &[&primary.address()], "").start().await;
    let taken = source.clients.take("main", "first").await;
    let dump = std::fs::read(dump_of(&source.setup, &taken, "shard1")).unwrap();
    source.stop().await;

    // Nobody knows the cluster here; plain and compressed make no difference, nor does the name.
    let service = setup().start().await;
    let clients = &service.clients;
    put(&service.setup, "old/plain.bin", &dump);
    let packed = put(&service.setup, "old/packed.rdb", &zstd::encode_all(&*dump, 3).unwrap());
    // As some tools leave it: the end mark of the transfer stands behind the dump.
    put(&service.setup, "old/captured.rdb", &[&dump[..], b"0123456789abcdef0123456789abcdef01234567"].concat());
    for key in ["old/plain.bin", "old/packed.rdb", "old/captured.rdb"] {
        let operation = import(clients, of("gone", &[key])).await.unwrap();
        let told: own::ImportBackupMetadata = metadata(&operation);
        let made: own::Backup = response(&clients.ended(&operation.id, OPERATION).await);
        assert_eq!((told.cluster_id.as_str(), &told.backup_id), ("gone", &made.id));
        assert_eq!(clients.backup(&made.id).await.unwrap(), made);
        assert_eq!((made.state(), made.level(), made.size_bytes), (State::Available, Level::Walked, dump.len() as i64), "{key}");
        assert!(made.name.starts_with("manual-"), "{}", made.name);
        let (shard, original) = (&made.shards[0], &taken.shards[0]);
        let content = |shard: &own::ShardArtifact| (shard.keys, shard.expiring_keys, shard.types.clone(), shard.databases.clone(), shard.functions);
        assert_eq!(content(shard), content(original));
        assert_eq!((&shard.engine, &shard.engine_version, shard.rdb_version), (&original.engine, &original.engine_version, original.rdb_version));
        assert_eq!((shard.name.as_str(), shard.source_host.as_str()), ("shard1", format!("import:reports/{key}").as_str()));
        // The dump tells when it was begun, to the second.
        let ctime = original.snapshot_at.unwrap().seconds;
        assert!((shard.snapshot_at.unwrap().seconds - ctime).abs() <= 2, "{shard:#?}");
        let progress = clients.progress(&operation.id).await;
        assert_eq!((progress.shards[0].bytes, progress.shards[0].keys), (dump.len() as i64, shard.keys));
        let restored = dump_of(&service.setup, &made, "shard1");
        assert!(std::fs::read(&restored).unwrap() == dump, "{key}");
        if key == "old/packed.rdb" {
            compare::assert_same_content(&primary, &load::load_rdb(&restored).await).await;
        }
    }
    // What was read has stayed, and what was made of it needs it no more.
    std::fs::remove_file(packed).unwrap();
    let all = clients.all_backups().await;
    assert_eq!(all.len(), 3);
    let copied = bare(clients.backups.clone().copy(own::CopyBackupRequest { backup_id: all[0].id.clone(), name: "copy".into() }).await).unwrap();
    let copied: own::Backup = response(&clients.ended(&copied.id, OPERATION).await);
    assert_eq!(copied.shards[0].sha256, all[0].shards[0].sha256);
    let setup = service.stop().await;
    assert!(verify(&setup.folder().join("store")).unwrap().is_clean());
}

#[tokio::test]
async fn each_key_is_a_shard_in_order() {
    let service = setup().start().await;
    let mut keys = Vec::new();
    for number in 0..12 {
        let mut rdb = RdbBytes::new();
        rdb.aux("redis-ver", "7.2.5").aux("ctime", &(1_700_000_000 + number).to_string()).select(0);
        for key in 0..=number {
            rdb.string(format!("key {number} {key}"), "value");
        }
        let key = format!("part-{number}.rdb");
        put(&service.setup, &key, &rdb.finish().bytes);
        keys.push(key);
    }
    keys.reverse();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let made = imported(&service.clients, named("all", of("shards", &keys))).await;
    assert_eq!((made.name.as_str(), made.shards.len(), made.skew_ms), ("all", 12, 11_000));
    assert_eq!(made.consistency(), own::backup::Consistency::PerShard);
    for shard in &made.shards {
        let number: usize = shard.name.strip_prefix("shard").unwrap().parse().unwrap();
        assert_eq!((shard.source_host.clone(), shard.keys), (format!("import:reports/{}", keys[number - 1]), 13 - number as i64));
    }
    service.stop().await;
}

#[tokio::test]
async fn what_is_no_sound_dump_is_refused_with_the_reason() {
    let service = setup().start().await;
    let clients = &service.clients;
    let dump = Dump::sample();
    let length = dump.bytes.len();
    let packed = zstd::encode_all(&*dump.bytes, 3).unwrap();
    let mut wide = zstd::Encoder::new(Vec::new(), 1).unwrap();
    wide.window_log(27).unwrap();
    wide.long_distance_matching(true).unwrap();
    std::io::Write::write_all(&mut wide, &dump.bytes).unwrap();
    for _ in 0..20 {
        std::io::Write::write_all(&mut wide, &vec![7; 1 << 20]).unwrap();
    }
    let mut trailing = dump.bytes.to_vec();
    trailing.extend_from_slice(b"and more");
    let mut enveloped = b"VCS\x01\x02\0\x01".to_vec();
    enveloped.extend_from_slice(&packed);
    let cases: Vec<(&str, Vec<u8>, &str, &str)> = vec![
        ("empty", Vec::new(), "SNAPSHOT_CORRUPT", "ends before the dump does"),
        ("noise", Noise::new(7).bytes(5000), "SNAPSHOT_CORRUPT", "not an rdb"),
        ("text", b"*1\r\n$4\r\nPING\r\n".to_vec(), "SNAPSHOT_CORRUPT", "not an rdb"),
        ("cut", dump.cut(length - 1).to_vec(), "SNAPSHOT_CORRUPT", "is no sound dump"),
        ("cut-early", dump.cut(1000).to_vec(), "SNAPSHOT_CORRUPT", "is no sound dump"),
        ("flipped", dump.flipped(length / 2, 3).to_vec(), "SNAPSHOT_CORRUPT", "checksum mismatch"),
        ("trailing", trailing, "SNAPSHOT_CORRUPT", "bytes after the end"),
        ("packed-cut", packed[..packed.len() - 10].to_vec(), "SNAPSHOT_CORRUPT", "the middle of a frame"),
        (
            "packed-flipped",
            {
                let mut bytes = packed.clone();
                bytes[packed.len() / 2] ^= 0x55;
                bytes
            },
            "SNAPSHOT_CORRUPT",
            "is no sound dump",
        ),
        ("packed-noise", zstd::encode_all(&*Noise::new(8).bytes(5000), 1).unwrap(), "SNAPSHOT_CORRUPT", "not an rdb"),
        ("wide", wide.finish().unwrap(), "SNAPSHOT_CORRUPT", "cannot be decompressed"),
        ("envelope", enveloped, "SOURCE_VERSION", "compressed envelope"),
    ];
    for (key, bytes, reason, words) in cases {
        put(&service.setup, key, &bytes);
        let (told, message) = failed(clients, of("main", &[key])).await;
        assert_eq!(told, reason, "{key}: {message}");
        assert!(message.contains(words) && message.contains(key) && message.contains("bucket reports"), "{key}: {message}");
    }
    // One that is sound does not save the other.
    put(&service.setup, "sound", &dump.bytes);
    failed(clients, of("main", &["sound", "flipped"])).await;
    let (reason, message) = failed(clients, of("main", &["sound", "nowhere/a.rdb"])).await;
    assert_eq!((reason.as_str(), message.as_str()), ("GONE", "bucket reports has no object nowhere/a.rdb"));
    std::fs::create_dir(service.setup.folder().join("exports/folder")).unwrap();
    assert_eq!(failed(clients, of("main", &["folder"])).await, ("STORAGE_DENIED".into(), "folder in bucket reports is no file".into()));
    std::os::unix::fs::symlink("/etc/hostname", service.setup.folder().join("exports/link")).unwrap();
    assert_eq!(failed(clients, of("main", &["link"])).await.0, "STORAGE_DENIED");
    assert!(clients.all_backups().await.iter().all(|backup| backup.state() == State::Error));
    nothing_left(&service.setup).await;
    // A format that is not walked is kept as far as it is proved.
    let opaque = RdbBytes::with_header(b"REDIS0099").select(0).string("key", "value").finish().bytes;
    put(&service.setup, "opaque", &opaque);
    let made = imported(clients, of("main", &["opaque"])).await;
    assert_eq!((made.level(), made.shards[0].opaque_reason.is_empty()), (Level::Sealed, false));
    service.stop().await;
}

#[tokio::test]
async fn only_what_is_there_for_the_folder_is_imported() {
    let source = ScriptedRedis::willing().await;
    let service = setup().cluster("foreign", &[&source.address()], "folder_id = \"shop\"").start().await;
    let clients = &service.clients;
    put(&service.setup, "a.rdb", &Dump::sample().bytes);
    let refused = async |request| import(clients, request).await.unwrap_err();
    let status = refused(own::ImportBackupRequest { bucket: "nowhere".into(), ..of("main", &["a.rdb"]) }).await;
    assert_eq!(status.code(), Code::NotFound);
    let status = refused(own::ImportBackupRequest { bucket: "elsewhere".into(), ..of("main", &["a.rdb"]) }).await;
    assert_eq!(status.code(), Code::PermissionDenied);
    // A cluster of another folder, by the configuration and by its backups.
    assert_eq!(refused(of("foreign", &["a.rdb"])).await.code(), Code::AlreadyExists);
    imported(clients, named("mine", of("main", &["a.rdb"]))).await;
    let shop = own::ImportBackupRequest { folder_id: "shop".into(), bucket: "elsewhere".into(), ..of("main", &["a.rdb"]) };
    assert_eq!(refused(shop).await.code(), Code::AlreadyExists);
    assert_eq!(refused(named("mine", of("main", &["a.rdb"]))).await.code(), Code::AlreadyExists);
    let keys = |keys: &[&str]| of("main", keys);
    for (request, field) in [
        (keys(&[]), "keys"),
        (keys(&["a.rdb", "a.rdb"]), "keys"),
        (keys(&["../a.rdb"]), "keys"),
        (keys(&["/etc/passwd"]), "keys"),
        (keys(&[".redkeep/x"]), "keys"),
        (own::ImportBackupRequest { keys: (0..=ImportSource::KEYS).map(|number| number.to_string()).collect(), ..of("main", &[]) }, "keys"),
        (of("Not An Id", &["a.rdb"]), "cluster_id"),
        (of("", &["a.rdb"]), "cluster_id"),
        (named("a b", of("main", &["a.rdb"])), "name"),
    ] {
        let told = fields(import(clients, request.clone()).await);
        assert!(told.iter().all(|told| told.starts_with(field)), "{request:?}: {told:?}");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_repeated_import_is_one() {
    let service = setup().start().await;
    let clients = &service.clients;
    let path = put(&service.setup, "a.rdb", &Dump::sample().bytes);
    let request = |name: &str| keyed(named(name, of("main", &["a.rdb"])), "once");
    let operation = bare(clients.backups.clone().import(request("first")).await).unwrap();
    assert_eq!(bare(clients.backups.clone().import(request("first")).await).unwrap().id, operation.id);
    assert_eq!(bare(clients.backups.clone().import(request("other")).await).unwrap_err().code(), Code::InvalidArgument);
    let made: own::Backup = response(&clients.ended(&operation.id, OPERATION).await);
    std::fs::remove_file(path).unwrap();
    assert_eq!(bare(clients.backups.clone().import(request("first")).await).unwrap().id, operation.id);
    assert_eq!(clients.all_backups().await, [made]);
    service.stop().await;
}

/// The program with a dump of some ranges in its bucket; an import stays in its middle.
async fn hanging() -> (Process, PathBuf) {
    let setup = setup().executor("drain", "\"0s\"");
    let path = put(&setup, "a.rdb", &big());
    (setup.spawn(&[("REDKEEP_HANG_AT", "import.moving")]).await, path)
}

/// A dump of several ranges.
fn big() -> Vec<u8> {
    RdbBytes::new().select(0).string("long", Noise::new(5).bytes(5 << 20)).finish().bytes.to_vec()
}

#[tokio::test]
async fn a_cancelled_import_leaves_nothing() {
    let (process, _) = hanging().await;
    let operation = import(&process.clients, of("main", &["a.rdb"])).await.unwrap();
    is_moving(&process.clients, &operation.id).await;
    cancel(&process.clients, &operation.id).await;
    let ended = process.clients.ended(&operation.id, SOON).await;
    assert_eq!(error_of(&ended).map(|status| status.code), Some(1), "{ended:#?}");
    assert!(process.clients.all_backups().await.is_empty());
    nothing_left(&process.setup).await;
    let setup = process.terminate(SOON).await;
    assert!(verify(&setup.folder().join("store")).unwrap().is_clean());
}

/// Goal: an import never takes half of one file and half of another. Method: the file changes in each way while it is read.
#[tokio::test]
async fn a_file_that_changes_while_it_is_read_is_noticed() {
    type Change = fn(&Path);
    let changes: [(Change, &str); 3] = [
        (|path| std::fs::write(path, big()).unwrap(), "changed while it was read"),
        (|path| std::fs::write(path, &big()[..3 << 20]).unwrap(), "changed while it was read"),
        (
            |path| {
                std::fs::write(path.with_extension("new"), big()).unwrap();
                std::fs::rename(path.with_extension("new"), path).unwrap();
            },
            "changed while it was read",
        ),
    ];
    for (change, words) in changes {
        let setup = setup();
        let path = put(&setup, "a.rdb", &big());
        // The second range is read only once the file has changed.
        let gate = setup.folder().join("gate");
        let process = setup.spawn(&[("REDKEEP_HANG_AT", "import.moving"), ("REDKEEP_HANG_UNTIL", gate.to_str().unwrap())]).await;
        let operation = import(&process.clients, of("main", &["a.rdb"])).await.unwrap();
        is_moving(&process.clients, &operation.id).await;
        change(&path);
        std::fs::write(&gate, b"").unwrap();
        let ended = process.clients.ended(&operation.id, SOON).await;
        let message = error_of(&ended).map(|status| status.message.clone()).unwrap_or_default();
        assert_eq!((reason_of(&ended).as_str(), message.contains(words)), ("SNAPSHOT_CUT", true), "{ended:#?}");
        nothing_left(&process.setup).await;
        process.terminate(SOON).await;
    }
}

#[tokio::test]
async fn a_stop_hands_an_import_back() {
    let (process, _) = hanging().await;
    let operation = import(&process.clients, of("main", &["a.rdb"])).await.unwrap();
    is_moving(&process.clients, &operation.id).await;
    let setup = process.terminate(SOON).await;
    let process = setup.spawn(&[]).await;
    let made: own::Backup = response(&process.clients.ended(&operation.id, SOON).await);
    assert_eq!((made.shards[0].keys, process.clients.progress(&operation.id).await.attempt), (1, 2));
    process.terminate(SOON).await;
}

/// Goal: whatever moment the process dies at, there is one whole backup and nothing else. Method: killed at a point, started again.
async fn import_killed_at(point: &str) {
    let setup = setup();
    let dump = Dump::sample().bytes;
    put(&setup, "a.rdb", &dump);
    let process = setup.spawn(&[("REDKEEP_CRASH_AT", point)]).await;
    let _ = import(&process.clients, named("first", of("main", &["a.rdb"]))).await;
    let setup = process.wait_end(SOON).await;
    let process = setup.spawn(&[]).await;
    let made = until("the backup is made", SOON, async || {
        process.clients.all_backups().await.into_iter().find(|backup| backup.name == "first" && backup.state() == State::Available)
    })
    .await;
    let root = process.setup.artifact_root();
    let own = ["attempt.json", "manifest.json", "shard1-0.rdb.zst"].map(|file| format!("{}/{file}", made.path));
    until("only its own files are left", SOON, async || (files_below(&root) == own).then_some(())).await;
    assert!(std::fs::read(dump_of(&process.setup, &made, "shard1")).unwrap() == dump);
    let setup = process.terminate(SOON).await;
    let report = verify(&setup.folder().join("store")).unwrap();
    assert!(report.is_clean() && report.live == 0, "{report:?}");
}

#[tokio::test]
async fn killed_before_the_first_byte() {
    import_killed_at("import.preflight").await;
}

#[tokio::test]
async fn killed_when_all_is_stored() {
    import_killed_at("import.stored").await;
}

#[tokio::test]
async fn killed_after_the_decision() {
    import_killed_at("import.decided").await;
}

#[tokio::test]
async fn the_command_and_the_path_do_the_same() {
    let service = setup().start().await;
    put(&service.setup, "a.rdb", &Dump::sample().bytes);
    let redkeep = async |words: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_redkeep"));
        command.args(words).args(["--endpoint", &service.endpoint]).env("NO_COLOR", "1");
        let output = command.output().await.unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let line = ["backup", "import", "--cluster", "main", "--bucket", "reports", "--object", "a.rdb", "--name", "first", "--wait"];
    let (code, told, log) = redkeep(&line).await;
    assert_eq!((code, told.contains("of cluster main is AVAILABLE") && told.contains("9 keys")), (Some(0), true), "{told} {log}");
    assert_eq!(redkeep(&line).await.0, Some(4));
    for (bucket, exit) in [("nowhere", 3), ("elsewhere", 5)] {
        assert_eq!(redkeep(&["backup", "import", "--cluster", "main", "--bucket", bucket, "--object", "a.rdb"]).await.0, Some(exit));
    }
    let (code, _, log) = redkeep(&["backup", "import", "--cluster", "main", "--bucket", "reports", "--object", "none", "--wait"]).await;
    assert_eq!((code, log.contains("has no object none")), (Some(1), true), "{log}");
    let body = serde_json::json!({ "clusterId": "main", "bucket": "reports", "keys": ["a.rdb"], "name": "second" });
    let client = reqwest::Client::builder().build().unwrap();
    let request = client.post(format!("{}/redkeep/v1/backups:import", service.endpoint)).header("content-type", "application/json");
    let answer = request.body(body.to_string()).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    until("it is there", SOON, async || {
        let all = service.clients.all_backups().await;
        all.iter().any(|backup| backup.name == "second" && backup.state() == State::Available).then_some(())
    })
    .await;
    service.stop().await;
}
