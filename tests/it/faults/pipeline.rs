//! Goal: the pipeline takes exactly the dump out of what a server sends, and fails on everything else. Method: snapshots
//! of a scripted server without a service around them: thousands are cheap.

use crate::support::data::Noise;
use crate::support::rdb_bytes::{Dump, RdbBytes};
use crate::support::resp::Value;
use crate::support::scripted::{Act, Answer, MARKER, Script, ScriptedRedis, full_sync_length, full_sync_marker, marker_head};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use redkeep::artifacts::manifest::ShardManifest;
use redkeep::artifacts::{Compression, Folder, Options, SEGMENT_BYTES, Storage};
use redkeep::backup::BackupId;
use redkeep::redis::source::inspect;
use redkeep::redis::{Credentials, Error as Fault, Password, Target, topology};
use redkeep::snapshot::{self, Error, Meter, Request};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const ASK: Duration = Duration::from_secs(5);

/// Seeds of each stage that is fed with noise.
const SEEDS: u64 = 40;

fn target(server: &ScriptedRedis) -> Target {
    let address = server.address().parse().expect("an address");
    Target { name: server.address(), address, credentials: Credentials::default(), tls: None }
}

/// Looks, asks and takes, as an attempt does; gives the manifest with the bytes that were stored.
async fn take(server: &ScriptedRedis) -> Result<(ShardManifest, Vec<u8>), Error> {
    take_as(target(server)).await
}

async fn take_as(source: Target) -> Result<(ShardManifest, Vec<u8>), Error> {
    let facts = topology::ask(&source, ASK).await.map_err(Error::Refused)?;
    inspect(&source, &facts).await.map_err(Error::Refused)?;
    let root = tempfile::tempdir().expect("a temporary folder");
    let storage = Storage::open(Options {
        root: root.path().to_owned().into(),
        folders: Default::default(),
        compression: Compression::None,
        segment_bytes: SEGMENT_BYTES,
    })
    .expect("storage");
    let folder = Folder::of_backup(&"default".parse().expect("an id"), &"main".parse().expect("an id"), BackupId::new()).attempt(1);
    let request = Request {
        shard_name: "shard1".into(),
        source,
        facts,
        output_buffer: redkeep::redis::replication::OutputBuffer::Refused,
        dialect: redkeep::redis::replication::Dialect::Own,
        slots: Vec::new(),
        pace: None,
        sketch: redkeep::store::SketchKey([7; redkeep::store::SKETCH_KEY_BYTES]),
        folder: folder.clone(),
    };
    let manifest = snapshot::take(&request, &storage, &Arc::new(Meter::default()), &CancellationToken::new()).await?;
    let stored = std::fs::read(root.path().join(folder.as_str()).join(&manifest.segments[0].file)).expect("the artifact is there");
    Ok((manifest, stored))
}

pub(super) async fn take_script(script: Script) -> Result<(ShardManifest, Vec<u8>), Error> {
    take(&ScriptedRedis::start(vec![script]).await).await
}

pub(super) async fn assert_taken(what: &str, script: Script, dump: &Bytes) {
    let (manifest, stored) = take_script(script).await.unwrap_or_else(|fault| panic!("{what}: {fault}"));
    assert!(stored == *dump, "{what}: {} bytes of {}", stored.len(), dump.len());
    assert_eq!(manifest.size_bytes, dump.len() as u64, "{what}");
}

#[tokio::test]
async fn a_mark_is_found_wherever_it_is_cut() {
    let dump = Dump::sample().bytes;
    let wire: Bytes = [&dump[..], &MARKER].concat().into();
    for at in 1..=MARKER.len() {
        let script = vec![Act::FullResync, Act::Send(marker_head(MARKER)), Act::SendInPieces { bytes: wire.clone(), sizes: vec![dump.len() + at, 1, 3] }];
        assert_taken(&format!("cut behind byte {at} of the mark"), script, &dump).await;
    }
    let script = vec![Act::FullResync, Act::Send(marker_head(MARKER)), Act::SendInPieces { bytes: wire, sizes: vec![1, 39, 2, 500] }];
    assert_taken("small pieces", script, &dump).await;
}

#[tokio::test]
async fn the_mark_inside_a_value_is_data() {
    let mut rdb = RdbBytes::new();
    let mut tricky = vec![b'x'; 70];
    tricky.extend_from_slice(&MARKER);
    tricky.extend_from_slice(&MARKER[..20]);
    rdb.select(0).string("a", MARKER).string("b", &tricky).string("c", MARKER.repeat(1000));
    let dump = rdb.finish().bytes;
    assert_taken("whole", full_sync_marker(dump.clone(), MARKER), &dump).await;
    let wire: Bytes = [&dump[..], &MARKER].concat().into();
    let script = vec![Act::FullResync, Act::Send(marker_head(MARKER)), Act::SendInPieces { bytes: wire, sizes: vec![37] }];
    assert_taken("in pieces", script, &dump).await;
}

#[tokio::test]
async fn keep_alives_are_no_part_of_the_dump() {
    let dump = Dump::sample().bytes;
    let pause = Duration::from_millis(1);
    for length in [true, false] {
        let head = if length { Bytes::from(format!("${}\r\n", dump.len())) } else { marker_head(MARKER) };
        let mut script = vec![Act::Newlines(3, pause), Act::FullResync, Act::Newlines(4, pause), Act::Send(head), Act::Send(dump.clone())];
        if !length {
            script.push(Act::Send(Bytes::copy_from_slice(&MARKER)));
        }
        script.push(Act::Newlines(5, pause));
        assert_taken(if length { "length" } else { "mark" }, script, &dump).await;
    }
}

/// Goal: newlines after an opaque dump do not keep the attempt alive. Method: they come without end, and the server never
/// closes.
#[tokio::test]
async fn newlines_behind_an_opaque_dump_do_not_prolong_the_wait() {
    let mut rdb = RdbBytes::with_header(b"REDIS0099");
    let dump = rdb.select(0).string("key", MARKER).finish().bytes;
    let mut script = full_sync_marker(dump.clone(), MARKER);
    script.push(Act::Newlines(usize::MAX, Duration::from_millis(100)));
    let taken = tokio::time::timeout(Duration::from_secs(30), take_script(script)).await.expect("it ends");
    let (manifest, stored) = taken.expect("the dump is taken");
    assert!(manifest.walk.opaque.is_some() && stored == dump);
}

#[tokio::test]
async fn a_flipped_bit_is_found_wherever_it_is() {
    let dump = Dump::sample();
    let offsets = dump.boundaries.iter().copied().chain([0, 5, 8, dump.bytes.len() - 1, dump.bytes.len() / 2]).chain((0..dump.bytes.len()).step_by(997));
    for offset in offsets {
        for framed in [full_sync_length(dump.flipped(offset, 3)), full_sync_marker(dump.flipped(offset, 3), MARKER)] {
            match take_script(framed).await {
                Err(Error::Corrupt(_)) => {}
                // A length that grew swallows the end mark.
                Err(Error::Cut { .. }) => {}
                other => panic!("byte {offset}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_cut_dump_is_a_failure_at_every_record() {
    let dump = Dump::sample();
    let length = dump.bytes.len();
    for cut in dump.boundaries.iter().copied().chain([0, 1, length - 1]) {
        let by_length = vec![Act::FullResync, Act::Send(format!("${length}\r\n").into()), Act::Send(dump.cut(cut))];
        assert!(matches!(take_script(by_length).await, Err(Error::Cut { got, of: Some(of) }) if got == cut as u64 && of == length as u64), "{cut}");
        let by_mark = vec![Act::FullResync, Act::Send(marker_head(MARKER)), Act::Send(dump.cut(cut)), Act::Close];
        assert!(matches!(take_script(by_mark).await, Err(Error::Cut { of: None, .. })), "{cut}");
    }
    let mut unmarked = full_sync_marker(dump.bytes.clone(), MARKER);
    unmarked.pop();
    assert!(matches!(take_script(unmarked).await, Err(Error::Cut { .. })));
}

/// Goal: a server cannot make us hold more of a reply than its limit. Method: an array of long strings.
#[tokio::test]
async fn a_reply_has_a_limit_with_all_its_elements() {
    let server = ScriptedRedis::start(vec![full_sync_length(Dump::sample().bytes)]).await;
    server.answer("PUBSUB NUMSUB", Value::Array(vec![Value::bulk(vec![b'x'; 3 << 20]); 4]));
    let fault = take(&server).await.expect_err("it is too long");
    assert!(matches!(&fault, Error::Refused(Fault::Protocol { what, .. }) if what.contains("8388608 bytes")), "{fault}");
}

/// Bytes that are noise, or nearly a reply.
fn noise(seed: u64) -> Bytes {
    let mut random = StdRng::seed_from_u64(seed);
    let mut bytes = Vec::new();
    for _ in 0..random.random_range(1..6) {
        match random.random_range(0..4) {
            0 => {
                let length = random.random_range(0..300);
                bytes.extend((0..length).map(|_| random.random::<u8>()));
            }
            1 => bytes.extend_from_slice(b"\n\r\n"),
            _ => {
                bytes.push(*b"+-:$*".get(random.random_range(0..5)).expect("in range"));
                let number: i64 = random.random_range(-3..70_000);
                bytes.extend_from_slice(number.to_string().as_bytes());
                bytes.extend_from_slice(if random.random() { b"\r\n" } else { b"\xff\0" });
            }
        }
    }
    bytes.into()
}

/// A dump of which some bytes are wrong.
fn spoiled(seed: u64) -> Bytes {
    let mut random = StdRng::seed_from_u64(seed);
    let mut bytes = Dump::sample().bytes.to_vec();
    for _ in 0..random.random_range(1..20) {
        let at = random.random_range(0..bytes.len());
        bytes[at] ^= random.random_range(1..=255_u8);
    }
    let garbage = Noise::new(seed).bytes(random.random_range(0..400));
    let at = random.random_range(0..bytes.len());
    bytes.splice(at..at, garbage);
    bytes.into()
}

/// Goal: nothing that a server sends panics, hangs or passes for a backup. Method: noise in place of each answer, from many
/// seeds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_at_every_stage_is_a_clean_failure() {
    let dump = Dump::sample().bytes;
    let server = ScriptedRedis::start(vec![full_sync_length(dump.clone())]).await;
    let mut source = target(&server);
    source.credentials.password = Some(Password::new("x"));
    server.answer("AUTH", "+OK");
    for seed in 0..SEEDS {
        for command in ["AUTH", "INFO", "PUBSUB", "ACL WHOAMI", "ACL DRYRUN", "PING", "REPLCONF", "PSYNC"] {
            server.answer_times(1, command, Answer::Last(noise(seed)));
            match take_as(source.clone()).await {
                Ok((_, stored)) => assert!(stored == dump, "{command}, seed {seed}"),
                Err(Error::Stage(what)) => panic!("{command}, seed {seed}: {what}"),
                Err(fault) => assert!(fault.to_string().chars().all(|c| !c.is_control()), "{command}, seed {seed}: {fault}"),
            }
            // What was not asked for must not disturb the next.
            server.forget(command);
            if command == "AUTH" {
                server.answer("AUTH", "+OK");
            }
        }
        let heads = [Act::Send(noise(seed)), Act::Send(marker_head(MARKER)), Act::Send("$20000\r\n".into())];
        for head in heads {
            let wrong = spoiled(seed);
            server.set_scripts(vec![vec![Act::FullResync, head, Act::Send(wrong.clone()), Act::Send(Bytes::copy_from_slice(&MARKER))]]);
            match take_as(source.clone()).await {
                Ok(_) => panic!("seed {seed}: a spoiled dump passed"),
                Err(Error::Stage(what)) => panic!("seed {seed}: {what}"),
                Err(fault) => assert!(fault.to_string().chars().all(|c| !c.is_control()), "seed {seed}: {fault}"),
            }
        }
        server.set_scripts(vec![full_sync_length(dump.clone())]);
    }
}
