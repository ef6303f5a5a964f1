//! A backup holds what its source held: the proof, over every kind of data, source, transfer and compression.

pub mod proof;

use crate::support::data::{self, Filler};
use crate::support::resp::{Connection, Pipeline, Value};
use crate::support::scripted::{self, ScriptedRedis, full_sync_length, full_sync_marker};
use crate::support::server::{RedisServer, Transfer};
use crate::support::service::{Clients, OPERATION, Process, Service, Setup, error_of, files_below, reason_of};
use crate::support::{compare, load, rdb_bytes::Dump, rdb_bytes::RdbBytes, until};
pub use proof::decode;
use proof::{Proof, assert_walked};
use redkeep::artifacts::{Compression, Folder, Options, Storage};
use redkeep::backup::{BackupId, Level};
use redkeep::cluster::Role;
use redkeep::pb::own;
use redkeep::rdb::{Checksum, Opaque};
use redkeep::redis::{Credentials, Target, topology};
use redkeep::snapshot;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Most memory that the service may take for one snapshot, whatever its size, beside the pages of its program file: those of a
/// program that is not optimised are many, and the system takes them back when it needs them. The bench holds the sum against
/// its goal, with the program as it is released.
const MEMORY_KIB: u64 = 48 * 1024;

/// A little more than the longest string that a server takes unless told otherwise.
const BIG_BYTES: u64 = 600 * 1024 * 1024;

/// Transactions that the writer sends together, and the time between two sendings. It writes all the time, but leaves no more
/// than can be read back quickly.
const WRITES: usize = 5;
const WRITE_INTERVAL: Duration = Duration::from_millis(4);

/// Counters that each transaction of the writer raises.
const COUNTERS: usize = 5;

async fn service_of(server: &RedisServer) -> Service {
    Setup::new().cluster("main", &[&server.address()], "").start().await
}

async fn take(service: &Service, name: &str) -> Proof {
    let backup = service.clients.take("main", name).await;
    prove(&service.setup, &backup)
}

fn prove(setup: &Setup, backup: &own::Backup) -> Proof {
    Proof::of(&setup.artifact_root(), backup, setup.folder())
}

/// Goal: every type in every encoding, in every database, with functions, groups and pending entries.
#[tokio::test]
async fn every_type_in_sixteen_databases() {
    let primary = RedisServer::start().await;
    data::fill_every_type(&primary, 16).await;
    let service = service_of(&primary).await;
    let proof = take(&service, "all").await;
    proof.counts(&primary).await;
    assert_eq!((proof.shard.walk.databases.len(), proof.shard.walk.functions), (16, 2));
    assert_eq!((proof.shard.source_role, proof.shard.walk.checksum, proof.shard.rdb_only), (Role::Primary, Checksum::Verified, true));
    proof.restores(&primary).await;
    service.stop().await;
}

/// Goal: each transfer, role of the source and compression gives the same. Method: a table.
#[tokio::test]
async fn every_source_transfer_and_compression() {
    let table = [
        (Role::Primary, Transfer::Disk, "none"),
        (Role::Replica, Transfer::Diskless, "zstd:19"),
        (Role::Replica, Transfer::Disk, "zstd:1"),
        (Role::Primary, Transfer::Diskless, "zstd:19"),
        (Role::Replica, Transfer::Diskless, "none"),
    ];
    for (role, transfer, compression) in table {
        let primary = RedisServer::builder().transfer(transfer).start().await;
        data::fill_every_type(&primary, 2).await;
        let replica = match role {
            Role::Replica => Some(linked_replica(&primary, transfer).await),
            Role::Primary | Role::Unknown => None,
        };
        let source = replica.as_ref().unwrap_or(&primary);
        let artifacts = format!("url = \"file:artifacts\"\ncompression = \"{compression}\"");
        let service = Setup::new().artifacts(&artifacts).cluster("main", &[&primary.address()], "").start().await;
        let proof = take(&service, "one").await;
        assert_eq!((proof.shard.source_role, &proof.shard.source_host), (role, &source.address()), "{transfer:?} {compression}");
        assert_eq!(
            proof.shard.segments.iter().map(|segment| &*segment.file).collect::<Vec<_>>(),
            match compression {
                "none" => ["shard1-0.rdb"],
                _ => ["shard1-0.rdb.zst"],
            }
        );
        proof.counts(source).await;
        proof.restores(source).await;
        service.stop().await;
    }
}

async fn linked_replica(primary: &RedisServer, transfer: Transfer) -> RedisServer {
    let replica = RedisServer::builder().transfer(transfer).replica_of(primary).start().await;
    replica.wait_replica_linked().await;
    replica
}

/// Goal: a great many keys.
#[tokio::test]
async fn a_million_small_keys() {
    let primary = RedisServer::start().await;
    data::fill_small_keys(&primary, 1_000_000).await;
    let service = service_of(&primary).await;
    let proof = take(&service, "many").await;
    assert_eq!((proof.row.keys, proof.row.expiring_keys), (1_000_000, 100_000));
    proof.counts(&primary).await;
    proof.restores(&primary).await;
    service.stop().await;
}

/// Goal: the times of a snapshot are those of the source and not of the buffers between. Method: a dump shorter than any buffer
/// that takes half a second to arrive.
#[tokio::test]
async fn the_times_of_a_snapshot() {
    let server = ScriptedRedis::start(vec![scripted::generated_marker(200_000, 1000, Some(400_000))]).await;
    let service = Setup::new().cluster("main", &[&server.address()], "").start().await;
    let shard = take(&service, "slow").await.shard;
    let times = [shard.snapshot_started_at, shard.snapshot_at, shard.upload_started_at, shard.upload_ended_at];
    assert!(times.is_sorted(), "{times:?}");
    assert!((shard.upload_ended_at - shard.upload_started_at).num_milliseconds() > 300, "{times:?}");
    service.stop().await;
}

/// Goal: nothing is something too.
#[tokio::test]
async fn an_empty_server() {
    let primary = RedisServer::start().await;
    let service = service_of(&primary).await;
    let proof = take(&service, "nothing").await;
    assert_eq!(proof.row.keys, 0);
    proof.counts(&primary).await;
    proof.restores(&primary).await;
    service.stop().await;
}

/// Goal: one value far longer than any buffer costs no memory. Method: the real program, and the most memory that the system
/// ever saw it take.
#[tokio::test]
async fn a_string_of_600_megabytes() {
    let primary = RedisServer::builder().config("rdbcompression no").start().await;
    data::big_string(&primary, "big", BIG_BYTES).await;
    let process = Setup::new().cluster("main", &[&primary.address()], "").spawn(&[]).await;
    let before_kib = peak_kib(&process);
    let backup = process.clients.take("main", "big").await;
    let peak_kib = peak_kib(&process);
    println!("at most {peak_kib} KiB, {before_kib} KiB of them before the snapshot");
    assert!(peak_kib <= MEMORY_KIB, "{peak_kib} KiB, {before_kib} KiB of them before the snapshot");
    let proof = prove(&process.setup, &backup);
    assert!(proof.shard.size_bytes > BIG_BYTES && proof.row.stored_bytes as u64 > BIG_BYTES);
    assert_eq!(proof.shard.walk.biggest.iter().map(|key| key.bytes > BIG_BYTES).collect::<Vec<_>>(), [true]);
    proof.counts(&primary).await;
    proof.restores(&primary).await;
    process.terminate(OPERATION).await;
}

/// The most memory that a process ever took, in KiB, without the pages of its program file.
fn peak_kib(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).expect("the process runs");
    let kib = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the system counts memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    };
    kib("VmHWM:") - kib("RssFile:")
}

/// Goal: a backup is of one moment, however much is written meanwhile. Method: each transaction raises counters and appends its
/// number to a list and a stream; in the dump all of them tell one number, and every number up to it. At last writes end, and a
/// backup equals its source exactly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_moment_under_writes() {
    for role in [Role::Replica, Role::Primary] {
        let primary = RedisServer::start().await;
        // Without some data the save would be over before a write falls into it.
        data::fill_mixed(&primary, 24 * 1024 * 1024).await;
        let replica = match role {
            Role::Replica => Some(linked_replica(&primary, Transfer::Diskless).await),
            Role::Primary | Role::Unknown => None,
        };
        let source = replica.as_ref().unwrap_or(&primary);
        let stop = CancellationToken::new();
        let writing = tokio::spawn(write_transactions(primary.connect().await, stop.clone()));
        let service = service_of(&primary).await;
        let mut last = (0, -1);
        for number in 0..3 {
            let before = counter(source).await;
            let backup = service.clients.take("main", &format!("under-writes-{number}")).await;
            let after = counter(source).await;
            let proof = prove(&service.setup, &backup);
            assert_eq!((proof.shard.source_role, proof.shard.level), (role, Level::Walked));
            let restored = load::load_rdb(&proof.rdb).await;
            let moment = transactions(&restored).await;
            assert!(before <= moment && moment < after, "{before} <= {moment} < {after}");
            let now = (moment, proof.shard.replication_offset);
            assert!(last.0 < now.0 && last.1 < now.1, "{last:?} and then {now:?}");
            last = now;
        }
        stop.cancel();
        let written = writing.await.expect("the writer ends");
        until("the source has it all", Duration::from_secs(30), async || (counter(source).await == written).then_some(())).await;
        let proof = take(&service, "quiet").await;
        proof.counts(source).await;
        proof.restores(source).await;
        assert_eq!(transactions(&load::load_rdb(&proof.rdb).await).await, written);
        service.stop().await;
    }
}

/// Writes until told to stop; tells how many transactions there were.
async fn write_transactions(mut connection: Connection, stop: CancellationToken) -> i64 {
    let (mut count, mut pace) = (0, tokio::time::interval(WRITE_INTERVAL));
    while !stop.is_cancelled() {
        pace.tick().await;
        let mut pipeline = Pipeline::default();
        for _ in 0..WRITES {
            count += 1;
            let number = count.to_string();
            pipeline.push(&["MULTI"]);
            for counter in 0..COUNTERS {
                pipeline.push(&["INCR", &format!("counter:{counter}")]);
            }
            pipeline.push(&["RPUSH", "list", &number]).push(&["XADD", "stream", &format!("{number}-1"), "number", &number]).push(&["EXEC"]);
        }
        let replies = connection.pipeline(&pipeline).await;
        assert!(replies.iter().all(|reply| reply.error().is_none()), "{replies:?}");
    }
    count
}

async fn counter(server: &RedisServer) -> i64 {
    match server.command(&["GET", "counter:0"]).await {
        Value::Nil => 0,
        value => value.text().parse().expect("a counter is a number"),
    }
}

/// The number of transactions in a server; fails unless each is there whole.
async fn transactions(server: &RedisServer) -> i64 {
    let count = counter(server).await;
    for number in 1..COUNTERS {
        assert_eq!(server.command(&["GET", &format!("counter:{number}")]).await.text(), count.to_string());
    }
    let list = server.command(&["LRANGE", "list", "0", "-1"]).await;
    assert!(list.items().iter().map(Value::text).eq((1..=count).map(|number| number.to_string())), "the list is not that of {count} transactions");
    let stream = server.command(&["XRANGE", "stream", "-", "+"]).await;
    let numbers = stream.items().iter().map(|entry| entry.items()[1].items()[1].text());
    assert!(numbers.eq((1..=count).map(|number| number.to_string())), "the stream is not that of {count} transactions");
    count
}

/// Goal: keys that have expired and that a replica still has are in the backup and are counted. Method: a server that is a
/// replica loads the dump, for such a one deletes nothing by itself; a primary that loads it has the rest.
#[tokio::test]
async fn expired_keys_that_a_replica_still_has() {
    let primary = RedisServer::start().await;
    data::fill_small_keys(&primary, 100).await;
    data::fill_lapsed(&primary, 50).await;
    let replica = linked_replica(&primary, Transfer::Diskless).await;
    let service = service_of(&primary).await;
    let proof = take(&service, "lapsed").await;
    assert_eq!(proof.shard.source_role, Role::Replica);
    assert_eq!((proof.row.keys, proof.row.expiring_keys, proof.shard.level), (150, 60, Level::Walked));
    let other = RedisServer::builder().config("replicaof 127.0.0.1 1");
    let restored = load::load_rdb_with(other, &proof.rdb).await.expect("the dump loads");
    assert_eq!(restored.command(&["DBSIZE"]).await.integer(), 150);
    compare::assert_same_content(&replica, &restored).await;
    let primary = load::load_rdb(&proof.rdb).await;
    assert_eq!(primary.command(&["DBSIZE"]).await.integer(), 100);
    service.stop().await;
}

/// Goal: a source that writes no checksum is backed up, and the backup says so.
#[tokio::test]
async fn a_source_without_checksums() {
    let primary = RedisServer::builder().config("rdbchecksum no").start().await;
    data::fill_every_type(&primary, 1).await;
    let service = service_of(&primary).await;
    let proof = take(&service, "unsealed").await;
    assert_eq!((proof.shard.walk.checksum, proof.row.checksum()), (Checksum::AbsentAtSource, own::shard_artifact::Checksum::Absent));
    proof.counts(&primary).await;
    proof.restores(&primary).await;
    service.stop().await;
}

/// Goal: the segments of an artifact, decoded and joined, are the dump, and none is empty. Method: segments far smaller than
/// the usual ones, through the pipeline itself.
#[tokio::test]
async fn several_segments() {
    let primary = RedisServer::start().await;
    data::fill_mixed(&primary, 12 * 1024 * 1024).await;
    let target = Target { name: "main".to_owned(), address: primary.address().parse().expect("an address"), credentials: Credentials::default(), tls: None };
    for (compression, segment_bytes) in [(Compression::None, 1 << 20), (Compression::Zstd(1), 1 << 20), (Compression::None, 1), (Compression::Zstd(19), 1)] {
        let root = tempfile::tempdir().expect("a temporary folder");
        let storage =
            Storage::open(Options { root: root.path().to_owned().into(), folders: Default::default(), compression, segment_bytes }).expect("the storage opens");
        let folder = Folder::of_backup(&"default".parse().expect("a folder"), &"main".parse().expect("a cluster"), BackupId::new()).attempt(1);
        let facts = topology::ask(&target, Duration::from_secs(10)).await.expect("the server answers");
        let request = snapshot::Request {
            shard_name: "shard1".to_owned(),
            source: target.clone(),
            facts,
            output_buffer: redkeep::redis::replication::OutputBuffer::Refused,
            dialect: redkeep::redis::replication::Dialect::Own,
            pace: None,
            folder: folder.clone(),
            sketch: redkeep::store::SketchKey([7; redkeep::store::SKETCH_KEY_BYTES]),
            slots: Vec::new(),
        };
        let shard = snapshot::take(&request, &storage, &Arc::default(), &CancellationToken::new()).await.expect("a snapshot");
        let names: Vec<_> = shard.segments.iter().map(|segment| segment.file.clone()).collect();
        let extension = if compression == Compression::None { "rdb" } else { "rdb.zst" };
        assert_eq!(names, (0..names.len()).map(|number| format!("shard1-{number}.{extension}")).collect::<Vec<_>>());
        assert!(names.len() >= 5, "{compression} {segment_bytes}: {} segments", names.len());
        let folder = root.path().join(folder.as_str());
        for (number, segment) in shard.segments.iter().enumerate() {
            let alone = root.path().join("alone");
            decode(&folder, std::slice::from_ref(segment), &alone);
            assert!(alone.metadata().is_ok_and(|alone| alone.len() > 0), "segment {number} of {} holds nothing", names.len());
        }
        let rdb = root.path().join("joined.rdb");
        decode(&folder, &shard.segments, &rdb);
        assert_eq!(rdb.metadata().expect("the dump is there").len(), shard.walk.bytes);
        load::check_rdb(&rdb);
        assert_walked(&shard, &compare::census(&primary).await);
        compare::assert_same_content(&primary, &load::load_rdb(&rdb).await).await;
    }
}

fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures");
    let mut fixtures: Vec<_> = std::fs::read_dir(folder).expect("there are fixtures").map(|entry| entry.expect("a fixture").path()).collect();
    fixtures.retain(|path| path.extension().is_some_and(|extension| extension == "rdb"));
    fixtures.sort();
    assert!(!fixtures.is_empty());
    fixtures
}

/// Serves a dump in both framings; each backup of it is the dump to the byte.
async fn take_scripted(dump: &[u8]) -> [Proof; 2] {
    let bytes = bytes::Bytes::copy_from_slice(dump);
    let server = ScriptedRedis::start(vec![full_sync_length(bytes.clone()), full_sync_marker(bytes, scripted::MARKER)]).await;
    let service = Setup::new().cluster("main", &[&server.address()], "").start().await;
    let proofs = [take(&service, "length").await, take(&service, "marker").await];
    for proof in &proofs {
        assert!(std::fs::read(&proof.rdb).is_ok_and(|bytes| bytes == dump));
        assert_eq!(proof.shard.replication_id, scripted::REPLICATION_ID);
    }
    assert_eq!(server.counts().psyncs, 2);
    // What is decoded lies in the folder of the service, which goes with it: only the proofs' figures are looked at later.
    service.stop().await;
    proofs
}

/// Goal: dumps of several versions and settings are walked, and counted as a server counts them.
#[tokio::test]
async fn dumps_of_several_versions() {
    // Those that a server of the version at hand loads; the module of the walk has the others loaded by theirs.
    let version = crate::support::server::require();
    let loadable =
        |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("redis-6.2") || name.starts_with("redis-7.0"));
    assert!(version >= (7, 0, 0), "the fixtures need a Redis of 7.0 or later, this is {version:?}");
    for fixture in fixtures().into_iter().filter(loadable) {
        let census = compare::census(&load::load_rdb(&fixture).await).await;
        for proof in take_scripted(&std::fs::read(&fixture).expect("the fixture can be read")).await {
            assert_walked(&proof.shard, &census);
        }
    }
}

/// Goal: a dump of a version that is not known is kept to the byte, and its backup says what was not looked at.
#[tokio::test]
async fn a_dump_of_an_unknown_version() {
    let dump = RdbBytes::with_header(b"REDIS0099").aux("redis-ver", "99.0.0").select(0).string("key", "value").finish();
    for proof in take_scripted(&dump.bytes).await {
        assert_eq!((proof.shard.level, proof.shard.walk.opaque), (Level::Sealed, Some(Opaque::Version { version: 99 })));
        assert_eq!(proof.row.opaque_reason, "version 99 of the format is not known");
        assert_eq!((proof.row.rdb_version, proof.row.checksum()), (99, own::shard_artifact::Checksum::Verified));
    }
}

/// Goal: what does not hold together never becomes a backup. Method: one bit of a value is turned over, and one of the checksum
/// of a dump whose structure is not known; the source is asked once more, and then no more.
#[tokio::test]
async fn a_corrupt_dump_never_becomes_a_backup() {
    let sample = Dump::sample();
    let unknown = RdbBytes::with_header(b"REDIS0099").select(0).string("key", "value").finish();
    for (name, bytes) in [("value", sample.flipped(sample.bytes.len() - 30, 3)), ("seal", unknown.flipped(unknown.bytes.len() - 1, 0))] {
        for script in [full_sync_length(bytes.clone()), full_sync_marker(bytes.clone(), scripted::MARKER)] {
            let server = ScriptedRedis::start(vec![script]).await;
            let service = Setup::new().cluster("main", &[&server.address()], "").start().await;
            let operation = service.clients.create("main", name).await.expect("the backup is accepted");
            let operation = service.clients.ended(&operation.id, OPERATION).await;
            assert!(error_of(&operation).is_some(), "{operation:#?}");
            assert_eq!(reason_of(&operation), "SNAPSHOT_CORRUPT");
            assert_eq!(server.counts().psyncs, 2);
            assert_nothing_stored(&service.setup, &service.clients).await;
            service.stop().await;
        }
    }
}

/// Fails unless the only backup is one that failed, and leaves nothing that could be taken for one.
async fn assert_nothing_stored(setup: &Setup, clients: &Clients) {
    let states: Vec<_> = clients.all_backups().await.iter().map(own::Backup::state).collect();
    assert_eq!(states, [own::backup::State::Error]);
    let files = files_below(&setup.artifact_root());
    assert!(!files.iter().any(|file| file.ends_with("manifest.json") || file.contains(".rdb")), "{files:?}");
}

/// Fills two databases one of which is far away, so that their numbers are told apart from their places.
#[tokio::test]
async fn databases_far_apart() {
    let primary = RedisServer::builder().databases(2000).start().await;
    let mut filler = Filler::open(&primary).await;
    for database in [3, 1999] {
        filler.words(&format!("SELECT {database}")).await;
        filler.words(&format!("SET database {database}")).await;
    }
    filler.flush().await;
    let service = service_of(&primary).await;
    let proof = take(&service, "far").await;
    proof.counts(&primary).await;
    assert_eq!(proof.shard.walk.databases.iter().map(|database| database.index).collect::<Vec<_>>(), [3, 1999]);
    proof.restores(&primary).await;
    service.stop().await;
}
