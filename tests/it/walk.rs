//! The walk of a dump against judges that owe nothing to it: the servers that wrote it, those that load it, the checkers that
//! come with them, and an independent parser.

use crate::support::compare::{self, Census};
use crate::support::data::{self, Filler, Noise};
use crate::support::engines::{self, Engine};
use crate::support::load;
use crate::support::server::RedisServer;
use rdb::{RdbDecoder, RdbValue};
use redkeep::rdb::{Dialect, Minimum, Options, SLOT_COUNT, SlotSet, Summary, Type, Walker};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Random commands of one fresh dump.
const COMMANDS: u64 = 2_000;

/// Every dump in the folder of fixtures, by name.
fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures");
    let entries = folder.read_dir().expect("there are fixtures").map(|entry| entry.expect("it can be read").path());
    let mut dumps: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|ending| ending == "rdb")).collect();
    dumps.sort();
    assert!(dumps.len() >= 15, "{dumps:?}");
    dumps
}

fn walk(path: &Path) -> Summary {
    let bytes = std::fs::read(path).expect("the dump can be read");
    let mut walker = Walker::with(Options { slots: Some(SlotSet::from_ranges([(0, SLOT_COUNT - 1)])), sketch: None });
    assert_eq!(walker.feed(&bytes), Ok(bytes.len()), "{}", path.display());
    walker.finish().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn word(kind: Type) -> &'static str {
    match kind {
        Type::String => "string",
        Type::List => "list",
        Type::Set => "set",
        Type::Zset => "zset",
        Type::Hash => "hash",
        Type::Stream => "stream",
        Type::Module => "module",
    }
}

/// Keys by database and type, with those types only that `of` names.
fn census(summary: &Summary, of: impl Fn(Type) -> bool) -> Census {
    let types = |types: &BTreeMap<Type, redkeep::rdb::TypeCount>| -> BTreeMap<String, u64> {
        types.iter().filter(|(kind, _)| of(**kind)).map(|(kind, count)| (word(*kind).to_owned(), count.keys)).collect()
    };
    summary.databases.iter().map(|database| (database.index, types(&database.types))).filter(|(_, types)| !types.is_empty()).collect()
}

/// What the independent parser finds. It tells nothing of streams and modules.
fn parsed(path: &Path) -> Census {
    let file = std::io::BufReader::new(std::fs::File::open(path).expect("the dump can be read"));
    let (mut found, mut database) = (Census::new(), 0);
    for item in RdbDecoder::new(file, rdb::filter::Simple::new()).expect("a header of Redis") {
        let kind = match item.unwrap_or_else(|error| panic!("{}: {error}", path.display())) {
            RdbValue::SelectDb(number) => {
                database = number;
                continue;
            }
            RdbValue::String { .. } => Type::String,
            RdbValue::List { .. } => Type::List,
            RdbValue::Set { .. } => Type::Set,
            RdbValue::SortedSet { .. } => Type::Zset,
            RdbValue::Hash { .. } => Type::Hash,
            RdbValue::ResizeDb { .. } | RdbValue::AuxField { .. } | RdbValue::Checksum(_) => continue,
        };
        *found.entry(database).or_default().entry(word(kind).to_owned()).or_default() += 1;
    }
    found
}

/// The number of keys that the checker of an engine tells.
fn checked(checker: &Path, dump: &Path) -> u64 {
    let output = Command::new(checker).arg(dump).output().unwrap_or_else(|error| panic!("{}: {error}", checker.display()));
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{} {}: {report}", checker.display(), dump.display());
    let keys = report.lines().find_map(|line| line.strip_prefix("[info] ")?.strip_suffix(" keys read")?.parse().ok());
    keys.unwrap_or_else(|| panic!("no number of keys: {report}"))
}

/// Fails unless the parser finds the keys that the walk found. It reads the dumps of Redis alone.
fn assert_parsed(dump: &Path, summary: &Summary) {
    if summary.dialect == Dialect::Redis {
        assert_eq!(census(summary, |kind| !matches!(kind, Type::Stream | Type::Module)), parsed(dump), "{}", dump.display());
    }
}

/// Fails unless the checker counts as many keys as the walk.
fn assert_checked(dump: &Path, summary: &Summary, checker: &Path) {
    let keys: u64 = summary.databases.iter().map(|database| database.keys).sum();
    assert_eq!(checked(checker, dump), keys, "{} by {}", dump.display(), checker.display());
}

/// Whether the engine is at or above the minimum.
fn suffices(engine: Engine, minimum: &Minimum) -> bool {
    let least = if engine.is_valkey() { &minimum.valkey } else { &minimum.redis };
    let release = |text: &str| text.split_once('.').and_then(|(major, minor)| Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?)));
    least.as_deref().is_some_and(|least| engine.release >= release(least).expect("two numbers"))
}

/// Goal: the walk counts what others count, over the whole corpus. Method: the parser, and the checker of every engine that reads
/// the dump.
#[test]
fn others_count_the_same_in_every_fixture() {
    let engines = engines::present();
    for dump in fixtures() {
        let summary = walk(&dump);
        assert_parsed(&dump, &summary);
        let minimum = summary.minimum.as_ref().expect("every fixture is followed to its end");
        for engine in engines.iter().filter(|engine| suffices(**engine, minimum)) {
            assert_checked(&dump, &summary, &engine.checker());
        }
    }
}

/// Goal: the same over dumps that nobody has seen before, and what the server itself says. Method: random commands, the same in
/// each run, on every engine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_count_the_same_in_fresh_dumps() {
    for (seed, engine) in engines::present().into_iter().enumerate() {
        let server = engine.builder().start().await;
        fill_at_random(&server, seed as u64).await;
        server.command(&["SAVE"]).await.ok();
        let dump = server.folder().join("dump.rdb");
        let summary = walk(&dump);
        assert_parsed(&dump, &summary);
        assert_checked(&dump, &summary, &engine.checker());
        assert_eq!((summary.counts_match, summary.mismatch.as_deref()), (Some(true), None), "{}", engine.name);
        assert_eq!(census(&summary, |_| true), compare::census(&server).await, "{}", engine.name);
        assert!(suffices(engine, &summary.minimum.expect("it was followed to its end")), "{}", engine.name);
    }
}

async fn fill_at_random(server: &RedisServer, seed: u64) {
    let mut noise = Noise::new(seed);
    let mut filler = Filler::open(server).await;
    for _ in 0..COMMANDS {
        let number = noise.number();
        if number.is_multiple_of(50) {
            filler.words(&format!("SELECT {}", number / 50 % 4 * 5)).await;
        }
        let (key, item) = (format!("{}", number >> 8 & 31), number >> 13 & 255);
        let long = |noise: &mut Noise| if item.is_multiple_of(2) { data::prose(300) } else { noise.bytes(300) };
        let value = match number >> 21 & 7 {
            0..=2 => item.to_string().into_bytes(),
            3..=5 => format!("item {item}").into_bytes(),
            6 => (item << 40).to_string().into_bytes(),
            _ => long(&mut noise),
        };
        let kind = ["string", "list", "set", "zset", "hash", "stream"][(number >> 24) as usize % 6];
        let key = if number.is_multiple_of(7) { format!("{kind}:{}{key}", "k".repeat(90)) } else { format!("{kind}:{key}") };
        let score = format!("{}.5", item % 20);
        match (number >> 30) % 40 {
            0 => filler.add(&[&"DEL", &key]).await,
            1 | 2 => filler.add(&[&"PEXPIREAT", &key, &"4102444800123"]).await,
            _ => match kind {
                "string" => filler.add(&[&"SET", &key, &value]).await,
                "list" => filler.add(&[&"RPUSH", &key, &value]).await,
                "set" => filler.add(&[&"SADD", &key, &value]).await,
                "zset" => filler.add(&[&"ZADD", &key, &score, &value]).await,
                "hash" => filler.add(&[&"HSET", &key, &item.to_string(), &value]).await,
                _ => filler.add(&[&"XADD", &key, &"*", &"field", &value]).await,
            },
        }
    }
    filler.flush().await;
}

/// Goal: an engine at or above the minimum loads the dump, one below refuses it. Method: every fixture in every engine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_engine_loads_what_the_minimum_says() {
    let engines = engines::present();
    for dump in fixtures() {
        let summary = walk(&dump);
        let minimum = summary.minimum.expect("every fixture is followed to its end");
        let loads = engines.iter().map(|engine| engine.builder().rdb(&dump).try_start());
        for (engine, loaded) in engines.iter().zip(futures_util::future::join_all(loads).await) {
            let name = format!("{} in {}: {minimum:?}", dump.display(), engine.name);
            assert_eq!(loaded.is_ok(), suffices(*engine, &minimum), "{name} {:?}", loaded.err());
            let Ok(server) = loaded else { continue };
            let lasting = |database: &redkeep::rdb::Database| database.keys - database.expiring;
            let there = compare::keyspace(&server.command(&["INFO", "keyspace"]).await.text());
            for database in &summary.databases {
                // Keys of old fixtures have expired since.
                let (keys, _) = there[&database.index];
                assert!((lasting(database)..=database.keys).contains(&keys), "{name}: {database:?} has {keys}");
            }
        }
    }
}

/// Goal: the number of databases is needed and enough. Method: as many, and one fewer.
#[tokio::test]
async fn databases_of_the_minimum() {
    let dump = fixtures().into_iter().find(|path| path.ends_with("redis-7.0.rdb")).expect("it is one of them");
    let databases = walk(&dump).minimum.expect("it was followed to its end").databases;
    assert_eq!(databases, 16);
    load::load_rdb(&dump).await;
    let refusal = RedisServer::builder().databases(databases - 1).rdb(&dump).try_start().await.expect_err("a database is missing");
    assert!(refusal.contains("configured to handle more than 15 databases"), "{refusal}");
}
