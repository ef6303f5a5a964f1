//! Goal: what happens to a payload is found wherever it happens. Method: a small one, spoiled at every position, through the
//! whole pipeline in both framings.

use super::pipeline::{assert_taken, take_script};
use crate::support::rdb_bytes::{Dump, RdbBytes};
use crate::support::scripted::{Act, MARKER, Script, full_sync_length, full_sync_marker, marker_head};
use bytes::Bytes;
use redkeep::rdb::Walker;
use redkeep::snapshot::Error;
use std::time::Duration;

fn small() -> Dump {
    RdbBytes::new().aux("redis-ver", "7.0.15").select(0).resizedb(3, 0).string("key", "value").integer("n", 70_000).list("l", &["a", "b"]).finish()
}

fn length_head(length: usize) -> Act {
    Act::Send(format!("${length}\r\n").into())
}

async fn assert_not_taken(what: &str, script: Script) {
    match take_script(script).await {
        Err(Error::Corrupt(_) | Error::Cut { .. } | Error::Source(_)) => {}
        other => panic!("{what}: {other:?}"),
    }
}

#[tokio::test]
async fn a_payload_cut_at_any_byte_is_no_backup() {
    let dump = small().bytes;
    let wire: Bytes = [&dump[..], &MARKER].concat().into();
    for end in 0..wire.len() {
        let cut = || vec![Act::FullResync, Act::Send(marker_head(MARKER)), Act::Send(wire.slice(..end))];
        assert!(matches!(take_script(cut()).await, Err(Error::Cut { of: None, .. })), "cut after {end} bytes");
        let reset = cut().into_iter().chain([Act::Reset]).collect();
        assert_not_taken(&format!("reset after {end} bytes"), reset).await;
    }
    for end in 0..dump.len() {
        let script = vec![Act::FullResync, length_head(dump.len()), Act::Send(dump.slice(..end))];
        let told = take_script(script).await;
        assert!(matches!(told, Err(Error::Cut { got, of: Some(of) }) if (got, of) == (end as u64, dump.len() as u64)), "cut after {end} bytes");
    }
}

#[tokio::test]
async fn a_payload_comes_whole_in_two_reads_cut_anywhere() {
    let dump = small().bytes;
    let wire: Bytes = [&dump[..], &MARKER].concat().into();
    for at in 1..wire.len() {
        let sizes = vec![at, wire.len()];
        let script = vec![Act::FullResync, Act::Send(marker_head(MARKER)), Act::SendInPieces { bytes: wire.clone(), sizes: sizes.clone() }];
        assert_taken(&format!("by mark, cut at {at}"), script, &dump).await;
        if at < dump.len() {
            let script = vec![Act::FullResync, length_head(dump.len()), Act::SendInPieces { bytes: dump.clone(), sizes }];
            assert_taken(&format!("by length, cut at {at}"), script, &dump).await;
        }
    }
}

/// Goal: where a dump was cut does not decide what it is. Method: one whose walk stops inside what may be its checksum, found by
/// fuzzing: a value of 255 stands before it, which looks like an end mark.
#[test]
fn a_walk_that_stops_near_the_end_ends_the_same_at_any_cut() {
    let mut stopped = 0;
    for key in 0..=u8::MAX {
        let mut dump = [b"REDIS0010\xfe\0\0\x01", &[key][..], b"\x01\xff"].concat();
        dump.extend_from_slice(&crate::support::rdb_bytes::crc64(&dump).to_le_bytes());
        let mut walk = |length: usize| {
            let mut walker = Walker::new();
            for piece in dump.chunks(length) {
                walker.feed(piece)?;
            }
            stopped += usize::from(walker.opaque().is_some());
            walker.finish()
        };
        let outcomes: Vec<_> = [dump.len(), 1, 5, 17].map(&mut walk).to_vec();
        assert!(outcomes[0].is_err() && outcomes.iter().all(|outcome| *outcome == outcomes[0]), "key {key}: {outcomes:?}");
    }
    assert!(stopped > 100, "{stopped}");
}

#[tokio::test]
async fn a_flipped_bit_is_found_at_every_byte() {
    let dump = small();
    for at in 0..dump.bytes.len() {
        // Every bit by the walk alone, one of them through the pipeline.
        for bit in 0..8 {
            let flipped = dump.flipped(at, bit);
            let mut walker = Walker::new();
            let fed = walker.feed(&flipped);
            assert!(!matches!(fed, Ok(taken) if taken == flipped.len()) || walker.finish().is_err(), "byte {at}, bit {bit}");
        }
        let flipped = dump.flipped(at, (at % 8) as u8);
        assert_not_taken(&format!("by length, byte {at}"), full_sync_length(flipped.clone())).await;
        assert_not_taken(&format!("by mark, byte {at}"), full_sync_marker(flipped, MARKER)).await;
    }
}

/// Goal: a newline is a keep-alive only where one may stand. Method: one more at every position of the payload, and between all
/// lines before it.
#[tokio::test]
async fn a_newline_inside_the_payload_is_no_keep_alive() {
    let dump = small().bytes;
    let wire = [&dump[..], &MARKER].concat();
    for at in 0..wire.len() {
        let spoiled: Bytes = [&wire[..at], b"\n", &wire[at..]].concat().into();
        let script = vec![Act::FullResync, Act::Send(marker_head(MARKER)), Act::Send(spoiled.clone())];
        assert_not_taken(&format!("by mark, before byte {at}"), script).await;
        if at < dump.len() {
            let script = vec![Act::FullResync, length_head(dump.len()), Act::Send(spoiled)];
            assert_not_taken(&format!("by length, before byte {at}"), script).await;
        }
    }
    let newline = || Act::Newlines(2, Duration::ZERO);
    let script = vec![newline(), Act::FullResync, newline(), Act::Send(marker_head(MARKER)), Act::Send(wire.into()), newline()];
    assert_taken("where they may stand", script, &dump).await;
}

#[tokio::test]
async fn no_length_but_the_true_one_passes() {
    let dump = small().bytes;
    for told in (1..dump.len() * 2).filter(|told| *told != dump.len()) {
        let script = vec![Act::FullResync, length_head(told), Act::Send(dump.clone())];
        assert_not_taken(&format!("{told} of {} bytes", dump.len()), script).await;
    }
    for told in ["9223372036854775807", "18446744073709551615", "4294967296"] {
        let script = vec![Act::FullResync, Act::Send(format!("${told}\r\n").into()), Act::Send(dump.clone())];
        assert_not_taken(told, script).await;
    }
    assert_taken("the true one", full_sync_length(dump.clone()), &dump).await;
}
