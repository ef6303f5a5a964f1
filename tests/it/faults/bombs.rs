//! Goal: a dump that promises more than it has costs nothing: no memory, no time, two forks and no backup. Method: a cluster for
//! each lie, all with a right checksum, in one service.

use super::*;
use crate::support::rdb_bytes::{Dump, RdbBytes};
use crate::support::scripted::{MARKER, full_sync_length, full_sync_marker};
use crate::support::service::Setup;
use std::time::Instant;

/// A length in its longest form.
fn long(number: u64) -> Vec<u8> {
    [&[0x81], &number.to_be_bytes()[..]].concat()
}

/// A string under LZF, with what it says of itself.
fn lzf(says_packed: u64, says_plain: u64, packed: &[u8]) -> Vec<u8> {
    [&[0xc3], &long(says_packed)[..], &long(says_plain), packed].concat()
}

/// A stream up to its groups, with no entries.
fn stream_head() -> Vec<u8> {
    vec![0, 0, 0, 0]
}

fn lies() -> Vec<(&'static str, Dump)> {
    const HUGE: [u64; 3] = [1 << 32, i64::MAX as u64, u64::MAX];
    let dump = |kind: u8, body: &[u8]| RdbBytes::new().select(0).value(kind, "key", body).finish();
    let mut lies = Vec::new();
    for number in HUGE {
        lies.push(("a string", dump(0, &long(number))));
        for (name, kind) in [("a list", 1), ("a set", 2), ("a hash", 4), ("a sorted set", 5), ("a quicklist", 14), ("a second quicklist", 18)] {
            lies.push((name, dump(kind, &long(number))));
        }
        for kind in [15, 19, 21] {
            lies.push(("nodes of a stream", dump(kind, &long(number))));
        }
        // Each level inside the one before: groups, then pending entries, then consumers, then theirs.
        let group = [&stream_head()[..], &[1, 1, b'g', 0, 0]].concat();
        lies.push(("groups of a stream", dump(15, &[&stream_head()[..], &long(number)].concat())));
        lies.push(("pending entries", dump(15, &[&group[..], &long(number)].concat())));
        lies.push(("consumers", dump(15, &[&group[..], &[0], &long(number)].concat())));
        lies.push(("entries of a consumer", dump(15, &[&group[..], &[0, 1, 1, b'c', 0, 0, 0, 0, 0, 0, 0, 0], &long(number)].concat())));
        lies.push(("a bomb of LZF", dump(0, &lzf(3, number, &[0xe0, 0xff, 0]))));
        lies.push(("packed bytes of LZF", dump(0, &lzf(number, 10, b"\x01ab"))));
        // A packed collection is looked into, so it has to be unpacked as it streams by.
        lies.push(("a bomb in a listpack", dump(16, &lzf(6, number, &[0, b'x', 0xe0, 0xff, 0, 0]))));
        lies.push(("a key", RdbBytes::new().select(0).record(0).extend(&long(number)).finish()));
        lies.push(("a function", RdbBytes::new().record(0xf5).extend(&long(number)).finish()));
        lies.push(("a module's text", dump(7, &[&long(1 << 20)[..], &[5], &long(number)].concat())));
    }
    let mut deep = [0xe0_u8, 0xff, 0].repeat(10_000);
    deep.insert(0, b'x');
    deep.insert(0, 0);
    lies.push(("an LZF of nothing but repeats", dump(0, &lzf(deep.len() as u64, 1 << 40, &deep))));
    lies.push(("an LZF that looks back before its begin", dump(0, &lzf(3, 10, &[0x20, 0xff, 0]))));
    lies.push(("module values without end", dump(7, &[&long(1 << 20)[..], &[1, 1].repeat(5000)].concat())));
    lies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_that_promises_too_much_is_no_backup() {
    let lies = lies();
    let mut setup = Setup::new().executor("workers", "64");
    let mut servers = Vec::new();
    for (number, (_, dump)) in lies.iter().enumerate() {
        // Both framings take their turns.
        let script = if number % 2 == 0 { full_sync_length(dump.bytes.clone()) } else { full_sync_marker(dump.bytes.clone(), MARKER) };
        let server = ScriptedRedis::start(vec![script]).await;
        setup = setup.cluster_apart(&format!("c{number}"), &server.address(), "");
        servers.push(server);
    }
    let service = setup.start().await;
    let began = Instant::now();
    let asked = (0..lies.len()).map(|number| {
        let clients = service.clients.clone();
        async move { fails(&clients, &format!("c{number}")).await }
    });
    for (number, operation) in futures_util::future::join_all(asked).await.iter().enumerate() {
        let what = lies[number].0;
        let forks = servers[number].counts().psyncs;
        match reason_of(operation).as_str() {
            "SNAPSHOT_CORRUPT" => assert_eq!(forks, 2, "{what}"),
            // A length beyond the end of the payload swallows its mark.
            "FORK_BUDGET" => assert_eq!(forks, 3, "{what}"),
            other => panic!("{what}: {other}: {}", message(operation)),
        }
    }
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    assert_nothing_available(&service.clients).await;
    wait_empty(&service.setup.artifact_root()).await;
    service.stop().await;
}
