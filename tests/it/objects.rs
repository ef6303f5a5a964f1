//! Goal: storage is the same to its users wherever it lies: a folder, S3, Azure or Google. Method: one story for each kind on a real
//! server, through the room itself and through the service; a process that is killed in the middle of an upload; credentials that are
//! turned over meanwhile.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

use crate::support::http::ask;
use crate::support::objects::{Bucket, Kind};
use crate::support::proxy::{Fault, Proxy, Rule};
use crate::support::scripted::{ScriptedRedis, generated_length};
use crate::support::server::RedisServer;
use crate::support::service::{OPERATION, Setup, error_of};
use crate::support::{data, load, until};
use aws_lc_rs::digest;
use redkeep::artifacts::bucket::Key;
use redkeep::artifacts::manifest::Segment;
use redkeep::artifacts::{Content, Error, Folder, PART_BYTES, Storage};
use redkeep::backup::BackupId;
use redkeep::config;
use redkeep::pb::own;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Longest wait for what is a matter of moments.
const SOON: Duration = Duration::from_secs(60);

const KINDS: [Kind; 3] = [Kind::S3, Kind::Azure, Kind::Google];

/// A section `[[buckets]]` that leads to a prefix.
fn section(bucket: &Bucket, prefix: &str) -> String {
    format!("[[buckets]]\nname = \"reports\"\nfolders = [\"default\"]\n{}", bucket.lines(prefix))
}

/// The storage of a configuration, with its buckets.
fn storage(setup: &Setup) -> Storage {
    let config = config::load(Some(&setup.write()), &[]).expect("the configuration is sound");
    Storage::open(config.artifacts).unwrap().with_buckets(config.buckets).unwrap()
}

fn folder() -> Folder {
    Folder::of_backup(&"default".parse().unwrap(), &"main".parse().unwrap(), BackupId::new())
}

fn sha256(bytes: &[u8]) -> String {
    digest::digest(&digest::SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Uploads bytes in parts, and tells the segment.
async fn upload(storage: &Storage, folder: &Folder, file: &str, bytes: &[u8]) -> Segment {
    let mut upload = storage.upload(folder, file).await.unwrap();
    for part in bytes.chunks(PART_BYTES) {
        upload.part(part.to_vec()).await.unwrap();
    }
    upload.complete().await.unwrap();
    Segment { file: file.into(), stored_bytes: bytes.len() as u64, sha256: sha256(bytes) }
}

/// What every storage does, whatever its kind.
async fn keeps_the_contract(storage: &Storage) {
    let (one, other) = (folder(), folder().attempt(2));
    storage.create(&one, "manifest.json", b"{}".to_vec()).await.unwrap();
    storage.create(&one, "manifest.json", b"{}".to_vec()).await.unwrap();
    assert!(matches!(storage.create(&one, "manifest.json", b"[]".to_vec()).await, Err(Error::Exists(name)) if name == "manifest.json"));
    assert_eq!(storage.read(&one, "manifest.json").await.unwrap(), b"{}"[..]);
    assert!(matches!(storage.read(&one, "absent").await, Err(Error::Missing(name)) if name == "absent"));
    assert!(matches!(storage.length(&one, "absent").await, Err(Error::Missing(_))));
    storage.remove(&one, "absent").await.unwrap();

    let long: Vec<u8> = (0..2 * PART_BYTES + 1000).map(|at| (at / 7 % 251) as u8).collect();
    let attempt = one.attempt(1);
    let long = (upload(storage, &attempt, "shard1-0.rdb", &long).await, long);
    let short = upload(storage, &attempt, "shard1-1.rdb", b"short").await;
    assert_eq!(storage.length(&attempt, "shard1-0.rdb").await.unwrap(), long.1.len() as u64);
    let (from, to) = (PART_BYTES - 5, PART_BYTES + 5);
    assert_eq!(storage.read_range(&attempt, "shard1-0.rdb", from as u64..to as u64).await.unwrap(), long.1[from..to]);
    assert!(storage.read_range(&attempt, "shard1-0.rdb", 0..PART_BYTES as u64 + 1).await.is_err());

    for segment in [&long.0, &short] {
        let moved = std::sync::atomic::AtomicU64::new(0);
        let count = |bytes| {
            moved.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
        };
        storage.copy_segment(&attempt, &other, segment, count).await.unwrap();
        assert_eq!(moved.into_inner(), segment.stored_bytes);
    }
    assert_eq!(storage.read(&other, "shard1-1.rdb").await.unwrap(), b"short"[..]);
    let wrong = Segment { stored_bytes: 6, ..short.clone() };
    assert!(matches!(storage.copy_segment(&attempt, &other, &wrong, |_| {}).await, Err(Error::Corrupt { .. })));

    // An upload that nobody ends leaves nothing once its folder is removed.
    let mut open = storage.upload(&attempt, "shard1-2.rdb").await.unwrap();
    open.part(long.1[..PART_BYTES].to_vec()).await.unwrap();
    assert!(matches!(storage.length(&attempt, "shard1-2.rdb").await, Err(Error::Missing(_))));
    std::mem::forget(open);
    // Nor does one that is given up.
    let mut given_up = storage.upload(&attempt, "shard1-3.rdb").await.unwrap();
    given_up.part(long.1[..PART_BYTES].to_vec()).await.unwrap();
    given_up.abort().await;
    storage.remove_remains(&attempt).await.unwrap();
    assert_eq!(storage.length(&attempt, "shard1-0.rdb").await.unwrap(), long.1.len() as u64);
    assert_eq!(storage.remove_all(&attempt).await.unwrap(), 2);
    assert_eq!(storage.remove_all(&attempt).await.unwrap(), 0);
    assert_eq!(storage.read(&one, "manifest.json").await.unwrap(), b"{}"[..]);

    // Exports to a bucket of the same kind: whole, once, and taken back only when they are ours.
    let bucket = storage.bucket("reports").unwrap();
    let key: Key = "daily/main dump.rdb".parse().unwrap();
    assert_eq!(bucket.length(&key).await.unwrap(), None);
    let stage = async |staging: &str, content| {
        let staged = bucket.stage(staging, 0).await.unwrap();
        storage.export(&other, std::slice::from_ref(&long.0), content, staged, |_, _| {}).await.unwrap()
    };
    for (staging, content) in [("one-1", Content::Stored), ("two-1", Content::Plain(long.1.len() as u64))] {
        let written = stage(staging, content).await;
        assert_eq!((written.bytes, &written.sha256), (long.0.stored_bytes, &long.0.sha256), "{content:?}");
        bucket.publish(staging, 0, &key, written.bytes, &written.sha256).await.unwrap();
    }
    let seen = bucket.look(&key).await.unwrap().unwrap();
    assert_eq!(seen.bytes, long.0.stored_bytes);
    assert_eq!(bucket.read_range(&key, &seen, 0).await.unwrap()[..100], long.1[..100]);
    assert!(matches!(bucket.publish("two-1", 0, &key, 5, &short.sha256).await, Err(Error::Exists(_))));
    // The second found it there, and does not take back what the first has published.
    bucket.withdraw("two-1", 0, &key).await.unwrap();
    assert_eq!(bucket.length(&key).await.unwrap(), Some(long.0.stored_bytes));
    bucket.withdraw("one-1", 0, &key).await.unwrap();
    assert_eq!(bucket.length(&key).await.unwrap(), None);
    assert!(bucket.remove_staged("one-1").await.unwrap() > 0 && bucket.remove_staged("two-1").await.unwrap() > 0);
    assert_eq!(bucket.remove_staged("one-1").await.unwrap(), 0);
    assert!(matches!(bucket.read_range(&key, &seen, 0).await, Err(Error::Missing(_))));
    assert!(matches!(bucket.publish("one-1", 0, &key, 5, &short.sha256).await, Err(Error::Missing(_))));

    storage.remove_all(&other).await.unwrap();
    storage.remove_all(&one).await.unwrap();
}

#[tokio::test]
async fn a_folder_keeps_the_contract() {
    let setup = Setup::new().bucket("reports", "exports", "[\"default\"]");
    let storage = storage(&setup);
    keeps_the_contract(&storage).await;
    assert_eq!(storage.signed_url(&folder(), "a", SOON).await.unwrap(), None);
}

#[tokio::test]
async fn every_store_keeps_the_contract() {
    for kind in KINDS {
        let Some(bucket) = Bucket::open(kind).await else { return };
        let setup = Setup::new().artifacts(&bucket.lines("artifacts")).section(&section(&bucket, "exports"));
        keeps_the_contract(&storage(&setup)).await;
        assert_eq!((bucket.objects().await, bucket.unfinished().await), (vec![], vec![]), "{kind:?}");
    }
}

/// Options of S3 that change what is asked, each of which keeps the contract.
#[tokio::test]
async fn options_of_s3_keep_the_contract() {
    let Some(bucket) = Bucket::open(Kind::S3).await else { return };
    for (index, lines) in ["checksum = \"sha256\"", "checksum = \"crc64nvme\"", "conditional_put = false"].into_iter().enumerate() {
        let artifacts = format!("{}{lines}", bucket.lines(&format!("artifacts{index}")));
        let setup = Setup::new().artifacts(&artifacts).section(&format!("{}{lines}", section(&bucket, &format!("exports{index}"))));
        keeps_the_contract(&storage(&setup)).await;
        assert_eq!((bucket.objects().await, bucket.unfinished().await), (vec![], vec![]), "{lines}");
    }
}

/// A folder, the tenant, may have a root of its own, also of another kind.
#[tokio::test]
async fn a_tenant_has_a_root_of_its_own() {
    let Some(bucket) = Bucket::open(Kind::S3).await else { return };
    let setup = Setup::new().section(&format!("[artifacts.folders.shop]\n{}", bucket.lines("shop")));
    let storage = storage(&setup);
    let of = |tenant: &str| Folder::of_backup(&tenant.parse().unwrap(), &"main".parse().unwrap(), BackupId::new());
    let (here, there) = (of("default"), of("shop"));
    let segment = upload(&storage, &there, "a.rdb", b"bytes").await;
    assert!(storage.free_bytes(&here).is_some() && storage.free_bytes(&there).is_none());
    assert_eq!(bucket.objects().await, [format!("shop/{}/a.rdb", there.as_str())]);
    // Between two kinds every byte is read, and held against its digest.
    storage.copy_segment(&there, &here, &segment, |_| {}).await.unwrap();
    assert_eq!(std::fs::read(setup.artifact_root().join(here.as_str()).join("a.rdb")).unwrap(), b"bytes");
    let wrong = Segment { sha256: sha256(b"other"), ..segment };
    assert!(matches!(storage.copy_segment(&there, &of("default"), &wrong, |_| {}).await, Err(Error::Corrupt { .. })));
}

#[tokio::test]
async fn a_link_is_signed_by_the_store() {
    let Some(bucket) = Bucket::open(Kind::S3).await else { return };
    let storage = storage(&Setup::new().artifacts(&bucket.lines("a")));
    let folder = folder();
    storage.create(&folder, "x", b"bytes".to_vec()).await.unwrap();
    let link = storage.signed_url(&folder, "x", Duration::from_secs(60)).await.unwrap().unwrap();
    assert!(link.starts_with(&format!("http://{}/", bucket.server())) && link.contains("X-Amz-Signature=") && link.contains("X-Amz-Expires=60"), "{link}");
    let target = &link[link.find(&format!("/{}/", bucket.name())).unwrap()..];
    let answer = ask(bucket.server(), &[&format!("GET {target} HTTP/1.1"), &format!("Host: {}", bucket.server())], &[]).await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"bytes"[..]));
}

/// The service, from backup to deletion, with everything it stores in a store.
#[tokio::test]
async fn backups_live_in_every_store() {
    let primary = RedisServer::start().await;
    data::fill_every_type(&primary, 2).await;
    for kind in KINDS {
        let Some(bucket) = Bucket::open(kind).await else { return };
        let setup = Setup::new().artifacts(&bucket.lines("artifacts")).section(&section(&bucket, "exports"));
        let service = setup.cluster("main", &[&primary.address()], "").start().await;
        let clients = &service.clients;
        let backup = clients.take("main", "first").await;
        let room = tempfile::tempdir().unwrap();
        let (stored, dump) = (room.path().join("a.zst"), room.path().join("a.rdb"));
        std::fs::write(&stored, bucket.read(&format!("artifacts/{}/shard1-0.rdb.zst", backup.path)).await).unwrap();
        load::decompress(&stored, &dump);
        let loaded = load::load_rdb(&dump).await;
        crate::support::compare::assert_same_content(&primary, &loaded).await;

        let copy = own::CopyBackupRequest { backup_id: backup.id.clone(), name: "second".into() };
        let operation = clients.backups.clone().copy(copy).await.unwrap().into_inner();
        let ended = clients.ended(&operation.id, OPERATION).await;
        assert!(error_of(&ended).is_none(), "{kind:?}: {ended:#?}");
        let second = clients.all_backups().await.into_iter().find(|backup| backup.name == "second").unwrap();
        let object = format!("artifacts/{}/shard1-0.rdb.zst", second.path);
        assert!(bucket.read(&object).await == std::fs::read(&stored).unwrap(), "{kind:?}");

        for id in [&backup.id, &second.id] {
            let operation = clients.backups.clone().delete(own::DeleteBackupRequest { backup_id: id.clone() }).await.unwrap().into_inner();
            assert!(error_of(&clients.ended(&operation.id, OPERATION).await).is_none());
        }
        until("the objects of the backups are gone", SOON, async || {
            let left = bucket.objects().await;
            left.iter().all(|key| !key.starts_with("artifacts/")).then_some(())
        })
        .await;
        assert_eq!(bucket.unfinished().await, Vec::<String>::new(), "{kind:?}");
        service.stop().await;
    }
}

/// A process that dies in the middle of an upload leaves a record, and the next one ends the upload.
#[tokio::test]
async fn an_upload_of_a_killed_process_is_aborted() {
    for kind in KINDS {
        let Some(bucket) = Bucket::open(kind).await else { return };
        let source = ScriptedRedis::start(vec![generated_length(3 * PART_BYTES as u64, 4096, None), generated_length(3 * PART_BYTES as u64, 4096, None)]).await;
        let artifacts = format!("{}compression = \"none\"\n", bucket.lines("a"));
        let setup = Setup::new().artifacts(&artifacts).cluster("main", &[&source.address()], "");
        let process = setup.spawn(&[("REDKEEP_CRASH_AT", "upload.part")]).await;
        process.clients.create("main", "first").await.unwrap();
        let setup = process.wait_end(SOON).await;
        assert_eq!(bucket.unfinished().await.len(), 1, "{kind:?}");
        assert!(bucket.objects().await.iter().any(|key| key.ends_with("shard1-0.rdb.upload")), "{kind:?}");
        let service = setup.start().await;
        until("the upload of the dead process is aborted, and the next attempt succeeds", SOON, async || {
            let is_done = service.clients.all_backups().await.iter().all(|backup| !backup.path.is_empty());
            (is_done && bucket.unfinished().await.is_empty() && bucket.objects().await.iter().all(|key| !key.ends_with(".upload"))).then_some(())
        })
        .await;
        service.stop().await;
    }
}

/// A token that has its end in the middle of an upload is read again, and the part put with the new one.
#[tokio::test]
async fn credentials_are_renewed_in_the_middle_of_an_upload() {
    let Some(bucket) = Bucket::open(Kind::S3).await else { return };
    bucket.write_secrets("test", "old-token");
    let proxy = Proxy::start(bucket.server()).await;
    let storage = storage(&Setup::new().artifacts(&bucket.lines_through("a", &proxy.address())));
    let folder = folder();
    let mut upload = storage.upload(&folder, "a.rdb").await.unwrap();
    upload.part(vec![1; PART_BYTES]).await.unwrap();
    proxy.rule(Rule::new(Fault::Answer(400, "ExpiredToken")).header("old-token"));
    // As soon as a request was refused, and not before.
    let turning = async {
        until("a request is refused", SOON, async || (proxy.struck() > 0).then_some(())).await;
        bucket.write_secrets("test", "new-token");
    };
    let storing = async {
        upload.part(vec![2; PART_BYTES]).await.unwrap();
        upload.complete().await.unwrap();
    };
    tokio::join!(turning, storing);
    assert_eq!(storage.length(&folder, "a.rdb").await.unwrap(), 2 * PART_BYTES as u64);
    assert!(bucket.unfinished().await.is_empty());
    // Where no new one comes, it is told as what passes, and without the token.
    proxy.rule(Rule::new(Fault::Answer(400, "ExpiredToken")));
    let fault = storage.length(&folder, "a.rdb").await.unwrap_err();
    assert!(matches!(&fault, Error::Unavailable { .. }), "{fault:?}");
    let fault = storage.create(&folder, "b", b"b".to_vec()).await.unwrap_err();
    assert!(fault.to_string().ends_with("its credentials have expired") && !format!("{fault:?}").contains("token\""), "{fault:?}");
    proxy.clear().rule(Rule::new(Fault::Answer(403, "AccessDenied")));
    assert!(matches!(storage.create(&folder, "b", b"b".to_vec()).await, Err(Error::Denied(_))));
    proxy.clear().rule(Rule::new(Fault::Answer(404, "NoSuchBucket")));
    assert!(matches!(storage.create(&folder, "b", b"b".to_vec()).await, Err(Error::Denied("the bucket does not exist"))));
    assert!(matches!(storage.remove(&folder, "b").await, Err(Error::Denied("the bucket does not exist"))));
}

/// What a store refuses for the moment, or answers into nothing, is asked again.
#[tokio::test]
async fn a_bad_moment_of_the_store_costs_nothing() {
    let Some(bucket) = Bucket::open(Kind::S3).await else { return };
    let proxy = Proxy::start(bucket.server()).await;
    let storage = storage(&Setup::new().artifacts(&bucket.lines_through("a", &proxy.address())));
    for (index, fault) in
        [Fault::Answer(503, "SlowDown"), Fault::Answer(500, "InternalError"), Fault::Reset, Fault::ResetWithin, Fault::LoseAnswer].into_iter().enumerate()
    {
        let (folder, name) = (folder(), format!("{fault:?}"));
        // Each kind of request once; the one that makes the upload would leave another when its answer is lost.
        for within in ["partNumber=2", "uploadId=", "one.json"] {
            proxy.rule(Rule::new(fault).within(within).times(1));
        }
        storage.create(&folder, "one.json", b"{}".to_vec()).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let segment = upload(&storage, &folder, "a.rdb", &vec![index as u8; 2 * PART_BYTES + 1]).await;
        assert_eq!(storage.length(&folder, "a.rdb").await.unwrap(), segment.stored_bytes, "{name}");
        storage.remove_all(&folder).await.unwrap();
        assert!(proxy.struck() >= 3 * (index + 1), "{name}");
        proxy.clear();
    }
    assert_eq!((bucket.objects().await, bucket.unfinished().await), (vec![], vec![]));
}

/// A store that is away is no reason not to start, and is told of.
#[tokio::test]
async fn the_service_starts_without_its_store() {
    let setup = Setup::new().artifacts("url = \"s3://nowhere\"\nendpoint = \"http://127.0.0.1:9\"").cluster("main", &["127.0.0.1:9"], "");
    let checked = Command::new(env!("CARGO_BIN_EXE_redkeep")).args(["config", "check", "--config"]).arg(setup.write()).stderr(Stdio::null()).output().unwrap();
    let told = String::from_utf8(checked.stdout).unwrap();
    assert!(checked.status.success() && told.contains("artifacts: s3://nowhere, endpoint http://127.0.0.1:9"), "{told}");
    let process = setup.spawn(&[("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "hidden-word")]).await;
    until("it is told", SOON, async || process.log().contains("a storage cannot be used just now").then_some(())).await;
    assert!(!process.log().contains("hidden-word"));
}
