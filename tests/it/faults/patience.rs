//! Goal: a source that stalls is waited for as long as it may, and no longer. Method: snapshots of a scripted server while the
//! clock stands still but for what is waited for.

use super::pipeline::{assert_taken, take_script};
use crate::support::rdb_bytes::RdbBytes;
use crate::support::scripted::{Act, MARKER, Script, marker_head};
use bytes::Bytes;
use redkeep::redis::Error as Fault;
use redkeep::redis::replication::BEGIN_TIMEOUT;
use redkeep::snapshot::Error;
use std::time::Duration;
use tokio::time::Instant;

/// Longest silence of a source.
const IDLE: Duration = Duration::from_secs(60);

fn dump() -> Bytes {
    RdbBytes::new().select(0).string("key", "value").finish().bytes
}

/// What a stalled snapshot ends with, and the time that passed for it.
async fn stalled(script: Script) -> (String, Duration) {
    tokio::time::pause();
    let began = Instant::now();
    let ended = take_script(script).await;
    let passed = began.elapsed();
    match ended {
        Err(Error::Source(Fault::Unreachable { what, .. })) => (what, passed),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn silence_ends_a_snapshot_wherever_it_begins() {
    let dump = dump();
    let by_length = Bytes::from(format!("${}\r\n", dump.len()));
    let half = dump.slice(..dump.len() / 2);
    let nearly = dump.slice(..dump.len() - 1);
    let mark_begun = Bytes::copy_from_slice(&MARKER[..39]);
    let scripts: Vec<(&str, Vec<Act>)> = vec![
        ("before the answer", vec![]),
        ("in the answer", vec![Act::Send("+FULLRES".into())]),
        ("after keep-alives", vec![Act::Newlines(3, Duration::from_secs(30))]),
        ("before the head", vec![Act::FullResync]),
        ("in the head", vec![Act::FullResync, Act::Send("$1".into())]),
        ("before the payload, by length", vec![Act::FullResync, Act::Send(by_length.clone())]),
        ("before the payload, by mark", vec![Act::FullResync, Act::Send(marker_head(MARKER))]),
        ("in the payload, by length", vec![Act::FullResync, Act::Send(by_length.clone()), Act::Send(half.clone())]),
        ("in the payload, by mark", vec![Act::FullResync, Act::Send(marker_head(MARKER)), Act::Send(half)]),
        ("before the last byte", vec![Act::FullResync, Act::Send(by_length), Act::Send(nearly)]),
        ("before the mark", vec![Act::FullResync, Act::Send(marker_head(MARKER)), Act::Send(dump.clone())]),
        ("in the mark", vec![Act::FullResync, Act::Send(marker_head(MARKER)), Act::Send(dump), Act::Send(mark_begun)]),
    ];
    for (place, mut script) in scripts {
        script.push(Act::Stall);
        let before: Duration = if place == "after keep-alives" { Duration::from_secs(90) } else { Duration::ZERO };
        let (what, passed) = stalled(script).await;
        assert_eq!(what, "no byte for 60 s", "{place}");
        // Keep-alives end a silence; the last one is followed by a pause of its own.
        assert!(passed >= IDLE && passed <= IDLE + before + Duration::from_secs(1), "{place}: {passed:?}");
        tokio::time::resume();
    }
}

/// Goal: newlines keep a wait alive, and still it ends. Method: one a second, without end, before the answer and before the head.
#[tokio::test]
async fn newlines_without_end_do_not_keep_an_attempt_for_ever() {
    for begun in [vec![], vec![Act::FullResync]] {
        let mut script = begun;
        script.push(Act::Newlines(usize::MAX, Duration::from_secs(1)));
        let (what, passed) = stalled(script).await;
        assert_eq!(what, "it did not begin a snapshot within 3600 s");
        assert!(passed >= BEGIN_TIMEOUT && passed < BEGIN_TIMEOUT + Duration::from_secs(5), "{passed:?}");
        tokio::time::resume();
    }
}

/// Goal: a stream that moves is a stream, however slow. Method: a byte a second, and one just before the time is over.
#[tokio::test]
async fn a_byte_a_second_is_a_whole_dump_in_the_end() {
    let dump = dump();
    for pause in [Duration::from_secs(1), IDLE - Duration::from_secs(1)] {
        for by_length in [true, false] {
            let head = if by_length { Bytes::from(format!("${}\r\n", dump.len())) } else { marker_head(MARKER) };
            let wire = if by_length { dump.to_vec() } else { [&dump[..], &MARKER].concat() };
            let mut script = vec![Act::FullResync, Act::Send(head)];
            for byte in &wire {
                script.extend([Act::Pause(pause), Act::Send(Bytes::copy_from_slice(&[*byte]))]);
            }
            tokio::time::pause();
            let began = Instant::now();
            assert_taken("byte by byte", script, &dump).await;
            assert!(began.elapsed() >= pause * wire.len() as u32, "{:?}", began.elapsed());
            tokio::time::resume();
        }
    }
}
