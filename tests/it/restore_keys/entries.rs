//! The entries of a dump: on dumps of five engines, beside an independent parser and beside what a server says of its keys.

use crate::support::engines;
use crate::support::server::RedisServer;
use rdb::{RdbDecoder, RdbValue};
use redkeep::rdb::{Entries, Entry, Error, Event, FUNCTION_MARK, Footer, Walker};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// An entry with its value; a library has none.
#[derive(Debug, PartialEq)]
struct Found {
    entry: Option<Entry>,
    value: Vec<u8>,
    end: u64,
}

fn read(dump: &[u8], pieces: &[usize]) -> Result<(Vec<Found>, u16), Error> {
    let (mut entries, mut found) = (Entries::new(), Vec::<Found>::new());
    let (mut rest, mut sizes) = (dump, pieces.iter().cycle());
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.len().min(*sizes.next().expect("a size")));
        rest = after;
        entries.feed(piece, |event| match event {
            Event::Key(entry, at) => found.push(Found { entry: Some(entry), value: Vec::new(), end: at }),
            Event::Function => found.push(Found { entry: None, value: Vec::new(), end: 0 }),
            Event::Bytes(bytes) => found.last_mut().expect("something is open").value.extend_from_slice(bytes),
            Event::End(end) => {
                let last = found.last_mut().expect("something is open");
                assert!(last.entry.is_none() || last.end + last.value.len() as u64 == end);
                assert_eq!(dump[end as usize - last.value.len()..end as usize], last.value[..]);
                last.end = end;
            }
        })?;
    }
    assert!(entries.ended());
    Ok((found, entries.version().expect("a version").1))
}

fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures");
    let entries = folder.read_dir().expect("there are fixtures").map(|entry| entry.expect("it can be read").path());
    entries.filter(|path| path.extension().is_some_and(|ending| ending == "rdb")).collect()
}

/// Goal: all entries of every kind of dump, however it is cut. Method: the fixtures of five engines, whole and in pieces; the walk
/// counts the same.
#[test]
fn every_dump_gives_the_entries_that_the_walk_counts() {
    for path in fixtures() {
        let dump = std::fs::read(&path).expect("the dump can be read");
        let mut walker = Walker::new();
        walker.feed(&dump).expect("a sound dump");
        let summary = walker.finish().expect("a sound dump");
        let (whole, version) = read(&dump, &[dump.len()]).expect("a sound dump");
        assert_eq!(version, summary.version);
        let functions = whole.iter().filter(|found| found.entry.is_none()).count();
        assert_eq!(functions as u64, summary.functions, "{}", path.display());
        for database in &summary.databases {
            for (kind, count) in &database.types {
                let of = whole.iter().filter_map(|found| found.entry.as_ref()).filter(|entry| entry.database == database.index && entry.kind == *kind);
                let expiring = of.clone().filter(|entry| entry.expires_at.is_some()).count() as u64;
                assert_eq!((of.count() as u64, expiring), (count.keys, count.expiring), "{} {kind:?}", path.display());
            }
        }
        for pieces in [&[1][..], &[7, 31, 33], &[4096, 1, 2, 3], &[100_000]] {
            let (cut, _) = read(&dump, pieces).expect("a sound dump");
            assert!(cut == whole, "{} in pieces of {pieces:?}", path.display());
        }
    }
}

/// Goal: names, databases and expiries are right. Method: an independent parser on the dumps that it can read.
#[test]
fn an_independent_parser_finds_the_same_keys() {
    for path in fixtures().into_iter().filter(|path| path.display().to_string().contains("plain")) {
        let file = std::io::BufReader::new(std::fs::File::open(&path).expect("the dump can be read"));
        let Ok(decoder) = RdbDecoder::new(file, rdb::filter::Simple::new()) else { continue };
        let (mut theirs, mut database) = (BTreeMap::new(), 0);
        let mut is_whole = true;
        for item in decoder {
            let Ok(item) = item else {
                is_whole = false;
                break;
            };
            let (key, expiry) = match item {
                RdbValue::SelectDb(index) => {
                    database = index;
                    continue;
                }
                RdbValue::String { key, expiry, .. }
                | RdbValue::List { key, expiry, .. }
                | RdbValue::Set { key, expiry, .. }
                | RdbValue::SortedSet { key, expiry, .. }
                | RdbValue::Hash { key, expiry, .. } => (key, expiry),
                _ => continue,
            };
            theirs.insert((database, key), expiry.map(|at| at as i64));
        }
        if !is_whole {
            continue;
        }
        let (found, _) = read(&std::fs::read(&path).expect("the dump can be read"), &[4096]).expect("a sound dump");
        let ours: BTreeMap<_, _> = found.into_iter().filter_map(|found| found.entry).map(|entry| ((entry.database, entry.name), entry.expires_at)).collect();
        for (key, expiry) in &theirs {
            assert_eq!(ours.get(key), Some(expiry), "{}: {}", path.display(), key.1.escape_ascii());
        }
        assert!(!theirs.is_empty(), "{}", path.display());
    }
}

/// Goal: a value with its footer is what DUMP has of it. Method: real servers, a few keys of each encoding.
#[tokio::test]
async fn values_are_what_dump_says() {
    let mut programs: Vec<_> = engines::present().into_iter().map(engines::Engine::builder).collect();
    programs.push(RedisServer::builder());
    for builder in programs {
        let server = builder.start().await;
        let mut connection = server.connect().await;
        for words in ["SET a 10", "SET b 100000", "SET c text", "RPUSH d 1 2 x", "SADD e 1 2 3", "HSET f a 1 b 2", "ZADD g 1 a 2 b", "XADD h 1-1 a b"] {
            let reply = connection.command(&words.split(' ').collect::<Vec<_>>()).await;
            assert!(reply.error().is_none(), "{reply:?}");
        }
        connection.command(&["PEXPIREAT", "c", "4102444800001"]).await;
        connection.command(&["SAVE"]).await.ok();
        let dump = std::fs::read(server.folder().join("dump.rdb")).expect("the dump is there");
        let (found, version) = read(&dump, &[dump.len()]).expect("a sound dump");
        assert_eq!(found.len(), 8);
        for found in found {
            let entry = found.entry.expect("a key");
            let mut payload = vec![entry.type_byte];
            payload.extend_from_slice(&found.value);
            let mut footer = Footer::new();
            footer.cover(&payload);
            payload.extend_from_slice(&footer.finish(version));
            let dumped = connection.command(&[&b"DUMP"[..], &entry.name]).await;
            assert_eq!(dumped.bytes()[..], payload[..], "{} of version {version}", entry.name.escape_ascii());
            assert_eq!(entry.expires_at, (entry.name == b"c").then_some(4_102_444_800_001));
        }
        assert_eq!(FUNCTION_MARK, 245);
    }
}
