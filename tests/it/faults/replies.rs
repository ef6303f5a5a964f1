//! Goal: each answer of a source that is no snapshot becomes the right error, and the source is asked no oftener than it may.
//! Method: one service, a cluster for each answer.

use super::*;
use crate::support::rdb_bytes::Dump;
use crate::support::scripted::{Act, Answer, MARKER, Script, full_sync_length, full_sync_marker, marker_head};
use crate::support::service::Setup;
use bytes::Bytes;

/// What the source answers to PSYNC.
enum Says {
    Line(&'static str),
    Plays(Script),
}

/// The reason, and words of the message.
type Told = (&'static str, &'static [&'static str]);

fn cases() -> Vec<(Says, Told)> {
    use Says::{Line, Plays};
    let dump = Dump::sample();
    let length = dump.bytes.len();
    let begun = |bytes: &[u8]| Plays(vec![Act::FullResync, Act::Send(Bytes::copy_from_slice(bytes))]);
    let said = |bytes: &'static str| Plays(vec![Act::Send(bytes.into())]);
    let lies = |told: usize| Plays(vec![Act::FullResync, Act::Send(format!("${told}\r\n").into()), Act::Send(dump.bytes.clone())]);
    vec![
        (Line("-LOADING Redis is loading the dataset in memory"), ("SOURCE_NOT_READY", &["LOADING"])),
        (Line("-NOMASTERLINK Can't SYNC while not connected with my master"), ("SOURCE_NOT_READY", &["NOMASTERLINK"])),
        (Line("-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'."), ("SOURCE_NOT_READY", &["MASTERDOWN"])),
        (Line("-ERR max number of clients reached"), ("SOURCE_NOT_READY", &["max number of clients"])),
        (Line("-BUSY Redis is busy running a script."), ("SOURCE_NOT_READY", &["BUSY"])),
        (Line("-ERR SYNC and PSYNC are invalid with pending output"), ("SOURCE_UNREACHABLE", &["pending output"])),
        (Line("-ERR Filtered replica requires EOF capability"), ("SOURCE_UNREACHABLE", &["requires EOF capability"])),
        (Line("-WRONGPASS invalid username-password pair or user is disabled."), ("SOURCE_CREDENTIALS", &["credentials"])),
        (Line("-DENIED Redis is running in protected mode"), ("SOURCE_PERMISSION", &["protected mode"])),
        (Line("-ERR PSYNC is disabled"), ("SOURCE_VERSION", &["disabled"])),
        (Line("+CONTINUE 0123456789abcdef0123456789abcdef01234567"), ("SOURCE_UNREACHABLE", &["+CONTINUE"])),
        (Line("+DUALCHANNELSYNC"), ("SOURCE_UNREACHABLE", &["does not keep to the protocol"])),
        (Line("-ERR BGSAVE failed, replication can't continue"), ("SOURCE_SAVE", &["could not make a snapshot", "BGSAVE failed"])),
        (Line("-NOPERM this user has no permissions to run the 'psync' command"), ("SOURCE_PERMISSION", &["may not run PSYNC", "+psync"])),
        (Line("-NOAUTH Authentication required."), ("SOURCE_CREDENTIALS", &["credentials"])),
        (Line("-ERR unknown command 'PSYNC', with args beginning with: '?' '-1' "), ("SOURCE_VERSION", &["cannot serve a snapshot", "unknown command"])),
        (Line("-ERR Command disallowed"), ("SOURCE_VERSION", &["disallowed"])),
        (Line("+CONTINUE"), ("SOURCE_UNREACHABLE", &["does not keep to the protocol", "+CONTINUE"])),
        (Line("+FULLRESYNC short 1"), ("SOURCE_UNREACHABLE", &["does not keep to the protocol"])),
        (Line("hello"), ("SOURCE_UNREACHABLE", &["does not keep to the protocol", "hello"])),
        (said("+FULL"), ("SOURCE_UNREACHABLE", &["closed the connection"])),
        (Plays(vec![Act::Send(vec![b'x'; 70_000].into()), Act::Stall]), ("SOURCE_UNREACHABLE", &["a line of more than 65536 bytes"])),
        (Plays(vec![Act::Send(vec![0xff; 1 << 20].into()), Act::Stall]), ("SOURCE_UNREACHABLE", &["a line of more than 65536 bytes"])),
        (Plays(vec![Act::Newlines(3, Duration::ZERO), Act::Close]), ("SOURCE_UNREACHABLE", &["closed the connection"])),
        (Plays(vec![Act::Reset]), ("SOURCE_UNREACHABLE", &[])),
        (begun(b"-ERR fork failed\r\n"), ("SOURCE_SAVE", &["fork failed"])),
        (begun(b"$\r\n"), ("SOURCE_UNREACHABLE", &["an odd head"])),
        (begun(b"$-1\r\n"), ("SOURCE_UNREACHABLE", &["an odd head"])),
        (begun(b"$EOF:short\r\n"), ("SOURCE_UNREACHABLE", &["an odd head"])),
        (begun(b"$99999999999999999999\r\n"), ("SOURCE_UNREACHABLE", &["an odd head"])),
        (begun(b"$0\r\n"), ("SOURCE_UNREACHABLE", &["an odd head"])),
        (begun(b"$9223372036854775807\r\nREDIS0010"), ("SNAPSHOT_CUT", &["closed after 9 bytes of 9223372036854775807"])),
        (lies(length + 5), ("SNAPSHOT_CUT", &["is not whole"])),
        (lies(length - 5), ("SNAPSHOT_CORRUPT", &["does not hold together"])),
        (Plays(vec![Act::FullResync, Act::Send(marker_head(MARKER)), Act::Send(dump.cut(length / 2))]), ("SNAPSHOT_CUT", &["is not whole"])),
        (
            Plays(vec![Act::FullResync, Act::Send(marker_head(MARKER)), Act::Send(dump.cut(length / 2)), Act::Reset]),
            ("SOURCE_UNREACHABLE", &["the connection broke"]),
        ),
        (Plays(full_sync_length(dump.flipped(length - 1, 0))), ("SNAPSHOT_CORRUPT", &["does not hold together"])),
        (Plays(full_sync_marker(dump.flipped(length / 2, 7), MARKER)), ("SNAPSHOT_CORRUPT", &["does not hold together"])),
    ]
}

/// A fork is not repeated, as its wait is longer than the deadline, so each source that forked forks once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_that_is_no_snapshot_is_told() {
    let mut setup = Setup::new().executor("refork_delay", "\"10m\"").executor("deadline", "\"3s\"").executor("workers", "64");
    let mut servers = Vec::new();
    for (number, (says, told)) in cases().into_iter().enumerate() {
        let server = ScriptedRedis::start(Vec::new()).await;
        match says {
            Says::Line(line) => {
                server.answer("PSYNC", Answer::from(line));
            }
            Says::Plays(script) => {
                server.set_scripts(vec![script]);
            }
        }
        setup = setup.cluster_apart(&format!("c{number}"), &server.address(), "");
        servers.push((server, told));
    }
    let service = setup.start().await;
    let asked = servers.iter().enumerate().map(|(number, _)| {
        let clients = service.clients.clone();
        async move { fails(&clients, &format!("c{number}")).await }
    });
    for (operation, (server, (reason, words))) in futures_util::future::join_all(asked).await.iter().zip(&servers) {
        assert_reason_or_deadline(operation, reason, words);
        if matches!(
            *reason,
            "SOURCE_PERMISSION" | "SOURCE_CREDENTIALS" | "SOURCE_VERSION" | "SNAPSHOT_CUT" | "SNAPSHOT_CORRUPT" | "SOURCE_SAVE" | "SOURCE_UNREACHABLE"
        ) {
            assert_eq!(server.counts().psyncs, 1, "{reason}: {words:?}");
        }
        assert!(server.counts().psyncs <= 5, "{reason}: {words:?}");
        // What nobody can mend by waiting is not tried again; a refusal that may pass is, and was no fork.
        let attempts = service.clients.progress(&operation.id).await.attempt;
        match *reason {
            "SOURCE_PERMISSION" | "SOURCE_CREDENTIALS" | "SOURCE_VERSION" => assert_eq!(attempts, 1, "{reason}: {words:?}"),
            "SOURCE_NOT_READY" => assert!(attempts >= 2 && server.counts().psyncs >= 2, "{reason}: {words:?}"),
            // It may have forked, so another attempt would come too late.
            _ => assert_eq!(attempts, 1, "{reason}: {words:?}"),
        }
    }
    assert_nothing_available(&service.clients).await;
    wait_empty(&service.setup.artifact_root()).await;
    service.stop().await;
}

/// Goal: noise from many servers at once fails operations and nothing else. Method: a service with a noisy server for each
/// seed; in the end it takes a good backup.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_fails_the_operation_and_not_the_service() {
    use crate::support::data::Noise;
    let mut setup = Setup::new().executor("deadline", "\"2s\"").executor("workers", "64");
    let mut servers = Vec::new();
    for seed in 0..24_u64 {
        let server = ScriptedRedis::start(Vec::new()).await;
        let noise: Bytes = Noise::new(seed).bytes(1 + 37 * seed as usize).into();
        match seed % 4 {
            0 => {
                server.answer("INFO", Answer::Last(noise));
            }
            1 => {
                server.answer("REPLCONF capa", Answer::Last(noise));
            }
            2 => {
                server.set_scripts(vec![vec![Act::Send(noise)]]);
            }
            _ => {
                server.set_scripts(vec![full_sync_marker(noise, MARKER)]);
            }
        }
        setup = setup.cluster_apart(&format!("n{seed}"), &server.address(), "");
        servers.push(server);
    }
    let good = ScriptedRedis::start(vec![full_sync_marker(Dump::sample().bytes, MARKER)]).await;
    let service = setup.cluster_apart("good", &good.address(), "").start().await;
    let asked = (0..24).map(|seed| {
        let clients = service.clients.clone();
        async move { fails(&clients, &format!("n{seed}")).await }
    });
    for operation in futures_util::future::join_all(asked).await {
        assert_ne!(reason_of(&operation), "INTERNAL", "{}", message(&operation));
    }
    assert!(servers.iter().all(|server| server.counts().psyncs <= 3));
    assert_nothing_available(&service.clients).await;
    service.clients.take("good", "after-the-noise").await;
    service.stop().await;
}

/// Goal: a server that turns connections away is told by what it said before. Method: bytes that come in the place of every answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_closed_at_once_is_told_by_its_last_words() {
    let cases: [(&[u8], &str, &str); 5] = [
        (b"-ERR max number of clients reached\r\n", "SOURCE_NOT_READY", "max number of clients"),
        (b"-DENIED Redis is running in protected mode because protected mode is enabled\r\n", "SOURCE_PERMISSION", "protected mode"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "SOURCE_NOT_READY", "LOADING"),
        // What a server says that wants TLS.
        (b"\x15\x03\x03\x00\x02\x02\x46", "SOURCE_UNREACHABLE", ""),
        (b"", "SOURCE_UNREACHABLE", "closed the connection"),
    ];
    let mut setup = Setup::new().executor("deadline", "\"3s\"").executor("workers", "64");
    let mut servers = Vec::new();
    for (number, (last, ..)) in cases.iter().enumerate() {
        let server = ScriptedRedis::start(Vec::new()).await;
        for command in ["INFO", "PING", "REPLCONF", "PSYNC", "ROLE", "CONFIG", "ACL", "PUBSUB", "CLUSTER"] {
            server.answer(command, Answer::Last(Bytes::copy_from_slice(last)));
        }
        setup = setup.cluster_apart(&format!("c{number}"), &server.address(), "");
        servers.push(server);
    }
    let service = setup.start().await;
    let asked = (0..cases.len()).map(|number| {
        let clients = service.clients.clone();
        async move { fails(&clients, &format!("c{number}")).await }
    });
    for (operation, (server, (last, reason, words))) in futures_util::future::join_all(asked).await.iter().zip(servers.iter().zip(cases)) {
        assert_reason_or_deadline(operation, reason, &[words]);
        let attempts = service.clients.progress(&operation.id).await.attempt;
        assert_eq!((attempts > 1, server.counts().psyncs), (reason != "SOURCE_PERMISSION", 0), "{}", last.escape_ascii());
    }
    assert_nothing_available(&service.clients).await;
    wait_empty(&service.setup.artifact_root()).await;
    service.stop().await;
}
