//! The walk as a whole: dumps of real servers, dumps put together byte by byte, and what must never pass.

use super::body::KEY_BYTES;
use super::*;
use std::collections::BTreeMap;

macro_rules! fixture {
    ($name:literal) => {
        ($name, include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/fixtures/", $name, ".rdb")) as &[u8])
    };
}

/// Dumps of one and the same set of keys, by servers of two versions in several settings.
const FIXTURES: [(&str, &[u8]); 5] =
    [fixture!("redis-6.2"), fixture!("redis-6.2-plain"), fixture!("redis-7.0"), fixture!("redis-7.0-plain"), fixture!("redis-7.0-replica")];

/// Dumps of the newer engines, in sixteen databases. Each has the keys of [`NEWER_KEYS`] and some more in database 0, the same in
/// database 7 unless it is portable, and one key in each other.
const NEWER: [(&str, &[u8]); 7] = [
    fixture!("redis-8.0"),
    fixture!("redis-8.0-plain"),
    fixture!("valkey-8.0"),
    fixture!("valkey-8.0-plain"),
    fixture!("valkey-9.1"),
    fixture!("valkey-9.1-plain"),
    fixture!("valkey-9.1-portable"),
];

/// Dumps of servers in cluster mode, which tell their numbers by slot, two of the same keys in different slots.
const CLUSTERED: [(&str, &[u8]); 3] = [fixture!("redis-8.0-cluster"), fixture!("valkey-8.0-cluster"), fixture!("valkey-9.1-cluster")];

const NEWER_KEYS: [(Type, u64, u64); 6] =
    [(Type::String, 16, 5), (Type::List, 3, 0), (Type::Set, 5, 0), (Type::Zset, 3, 0), (Type::Hash, 2, 1), (Type::Stream, 3, 0)];

/// Walks `bytes` in the pieces that `cut` asks for, given how many are left.
fn walk_in(bytes: &[u8], mut cut: impl FnMut(usize) -> usize) -> Result<Summary, Error> {
    let mut walker = Walker::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, next) = rest.split_at(cut(rest.len()).clamp(1, rest.len()));
        let taken = walker.feed(piece)?;
        rest = next;
        if taken < piece.len() {
            return Err(Error::TrailingBytes { offset: walker.bytes() });
        }
    }
    assert!(walker.opaque().is_some() || walker.bytes() == bytes.len() as u64);
    walker.finish()
}

fn walk(bytes: &[u8]) -> Result<Summary, Error> {
    walk_in(bytes, |left| left)
}

/// Walks `bytes` with these options, whole and cut in two ways; the outcome must be the same.
fn walk_with(options: &Options, bytes: &[u8]) -> Result<Summary, Error> {
    let in_pieces = |size: usize| {
        let mut walker = Walker::with(options.clone());
        bytes.chunks(size).try_for_each(|piece| walker.feed(piece).map(drop))?;
        walker.finish()
    };
    let whole = in_pieces(bytes.len());
    assert_eq!(in_pieces(1), whole, "byte by byte");
    assert_eq!(in_pieces(7), whole, "in pieces of 7");
    whole
}

/// A fixed row of numbers without a pattern.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

/// Fails unless every way to cut `bytes` leads to the same outcome; returns that.
fn walk_all_ways(bytes: &[u8]) -> Result<Summary, Error> {
    let whole = walk(bytes);
    assert_eq!(walk_in(bytes, |_| 1), whole, "byte by byte");
    let mut random = Random(bytes.len() as u64);
    for longest in [2, 5, 40, 1_000] {
        assert_eq!(walk_in(bytes, |_| 1 + random.below(longest)), whole, "in pieces of at most {longest}");
    }
    whole
}

/// A dump in the making.
#[derive(Clone)]
struct Dump(Vec<u8>);

impl Dump {
    fn new(magic: &str) -> Self {
        Self(magic.as_bytes().to_vec())
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// A length in its 64-bit form.
    fn length(self, length: u64) -> Self {
        self.raw(&[0x81]).raw(&length.to_be_bytes())
    }

    fn text(self, text: &str) -> Self {
        let length = text.len() as u8;
        assert!(length < 64);
        self.raw(&[length]).raw(text.as_bytes())
    }

    /// A packed collection without entries.
    fn listpack(self) -> Self {
        self.raw(&[7, 7, 0, 0, 0, 0, 0, 0xff])
    }

    fn ziplist(self) -> Self {
        self.raw(&[11, 11, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0xff])
    }

    /// The beginning of a key.
    fn key(self, kind: u8) -> Self {
        self.raw(&[kind]).text("key")
    }

    /// The end mark and the checksum.
    fn end(self) -> Vec<u8> {
        let dump = self.raw(&[0xff]);
        let mut seal = Seal::new();
        seal.cover(&dump.0);
        dump.raw(&seal.crc64().to_le_bytes()).0
    }
}

/// Keys, expiring keys and types of a database.
type Expected = (u32, u64, u64, &'static [(Type, u64, u64)]);

#[test]
fn real_dumps() {
    // Goal: every key of a real dump is counted under its database and type. Method: the dumps hold keys of all types
    // in small and large encodings; compare with what the servers themselves said.
    let base: [Expected; 3] = [(3, 70, 20, &[(Type::String, 70, 20)]), (9, 1, 0, &[(Type::String, 1, 0)]), (15, 1, 0, &[(Type::List, 1, 0)])];
    for (name, bytes) in FIXTURES {
        let seven = name.contains("7.0");
        let first: Expected = if seven {
            (0, 26, 2, &[(Type::String, 11, 1), (Type::List, 3, 0), (Type::Set, 5, 0), (Type::Zset, 2, 0), (Type::Hash, 3, 1), (Type::Stream, 2, 0)])
        } else {
            (0, 25, 2, &[(Type::String, 11, 1), (Type::List, 2, 0), (Type::Set, 5, 0), (Type::Zset, 2, 0), (Type::Hash, 3, 1), (Type::Stream, 2, 0)])
        };
        let summary = walk_all_ways(bytes).expect(name);
        let databases: Vec<_> = summary
            .databases
            .iter()
            .map(|database| {
                assert_eq!(database.declared_keys, Some(database.keys));
                assert_eq!(database.declared_expiring, Some(database.expiring));
                assert_eq!(database.bytes, database.types.values().map(|count| count.bytes).sum::<u64>());
                let types: Vec<_> = database.types.iter().map(|(kind, count)| (*kind, count.keys, count.expiring)).collect();
                (database.index, database.keys, database.expiring, types)
            })
            .collect();
        let expected: Vec<_> = std::iter::once(first).chain(base).map(|(index, keys, expiring, types)| (index, keys, expiring, types.to_vec())).collect();
        assert_eq!(databases, expected, "{name}");
        assert_eq!(summary.counts_match, Some(true));
        assert_eq!(summary.dialect, Dialect::Redis);
        assert_eq!(summary.version, if seven { 10 } else { 9 });
        assert_eq!(summary.functions, if seven { 2 } else { 0 });
        assert_eq!(summary.bytes, bytes.len() as u64);
        assert_eq!(summary.opaque, None);
        let unsealed = name == "redis-7.0-plain";
        assert_eq!(summary.checksum, if unsealed { Checksum::AbsentAtSource } else { Checksum::Verified });
        assert_eq!(summary.biggest.len(), 16);
        assert!(summary.biggest.is_sorted_by(|a, b| a.bytes >= b.bytes));
        assert_eq!(summary.aux.redis_ver.as_deref(), Some(if seven { "7.0.15" } else { "6.2.14" }));
        assert_eq!(summary.aux.redis_bits.as_deref(), Some("64"));
        assert!(summary.aux.ctime.as_deref().is_some_and(|ctime| ctime.parse::<u64>().is_ok()));
        assert!(summary.aux.used_mem.is_some());
        assert_eq!(summary.aux.aof_base.as_deref(), Some("0"));
        if name == "redis-7.0-replica" {
            assert_eq!(summary.aux.repl_id.as_deref().map(str::len), Some(40));
            assert!(summary.aux.repl_offset.is_some());
        }
    }
}

#[test]
fn real_dumps_of_newer_engines() {
    // Goal: nothing of what they write is unknown, every key is counted, and who can load it is told. Method: a table.
    let told = |redis: &str, valkey: &str| ((!redis.is_empty()).then(|| redis.to_owned()), (!valkey.is_empty()).then(|| valkey.to_owned()));
    for (name, bytes) in NEWER {
        let summary = walk_all_ways(bytes).expect(name);
        let (dialect, version, minimum) = match &name[..8] {
            "redis-8." if name.ends_with("plain") => (Dialect::Redis, 12, told("7.4", "")),
            "redis-8." => (Dialect::Redis, 12, told("8.0", "")),
            "valkey-9" if !name.ends_with("portable") => (Dialect::Valkey, 80, told("", "9.0")),
            _ => (Dialect::Redis, 11, told("7.2", "7.2")),
        };
        assert_eq!((summary.dialect, summary.version, summary.opaque), (dialect, version, None), "{name}");
        let found = summary.minimum.expect("it was followed to its end");
        assert_eq!(((found.redis, found.valkey), found.databases), (minimum, 16), "{name}");
        let vectors = name == "redis-8.0";
        assert_eq!((found.modules, summary.modules), if vectors { (vec!["vectorset".to_owned()], vec!["vectorset".to_owned()]) } else { (vec![], vec![]) });
        let keys: Vec<u64> = summary.databases.iter().map(|database| database.keys).collect();
        // A list with a node of its own for a long element; two hashes with expiring fields, where there are such.
        let (more_lists, more_hashes) = (u64::from(!name.ends_with("portable")), if version == 11 { 0 } else { 2 });
        let first = 33 + more_lists + more_hashes;
        let seventh = if name.ends_with("portable") { 1 } else { 33 };
        let expected: Vec<u64> = [first, 1 + u64::from(vectors)].into_iter().chain([1; 5]).chain([seventh]).chain([1; 8]).collect();
        assert_eq!(keys, expected, "{name}");
        let mut types: BTreeMap<Type, (u64, u64)> = NEWER_KEYS.into_iter().map(|(kind, keys, expiring)| (kind, (keys, expiring))).collect();
        types.entry(Type::String).and_modify(|(keys, _)| *keys += 1);
        types.entry(Type::List).and_modify(|(keys, _)| *keys += more_lists);
        types.entry(Type::Hash).and_modify(|(keys, _)| *keys += more_hashes);
        let found: BTreeMap<Type, (u64, u64)> = summary.databases[0].types.iter().map(|(kind, count)| (*kind, (count.keys, count.expiring))).collect();
        assert_eq!(found, types, "{name}");
        assert_eq!((summary.counts_match, summary.functions, summary.slots), (Some(true), 2, None), "{name}");
        let checksum = if name.ends_with("plain") { Checksum::AbsentAtSource } else { Checksum::Verified };
        assert_eq!(summary.checksum, checksum);
    }
}

#[test]
fn dumps_of_clusters() {
    // Goal: the slot of each key is that in which the server has it, and strays are those of no own slot. Method: the numbers that
    // the servers themselves wrote by slot, all slots and then all but one.
    for (name, bytes) in CLUSTERED {
        let all = Options { slots: Some(SlotSet::from_ranges([(0, SLOT_COUNT - 1)])), sketch: Some([1; 16]) };
        let summary = walk_with(&all, bytes).expect(name);
        let keys = if name.starts_with("valkey-8.0") { 64 } else { 66 };
        assert_eq!((summary.databases[0].keys, summary.counts_match, summary.mismatch), (keys, Some(true), None), "{name}");
        assert_eq!((summary.stray_keys, summary.unplaced_keys, summary.sketch.len() as u64), (Some(0), 0, keys), "{name}");
        assert!(summary.slots.is_some_and(|slots| slots.slots == keys - 32 && slots.keys == keys), "{name}: {:?}", summary.slots);
        let tag = slot_of(b"tag");
        let others = Options { slots: Some(SlotSet::from_ranges([(0, tag - 1), (tag + 1, SLOT_COUNT - 1)])), sketch: None };
        assert_eq!(walk_with(&others, bytes).expect(name).stray_keys, Some(32), "{name}");
    }
}

#[test]
fn cut_short() {
    // Goal: no beginning of a dump passes for a dump. Method: cut at every byte, of the bigger ones at some.
    let newer = NEWER.into_iter().chain(CLUSTERED).map(|(name, bytes)| (name, bytes, bytes.len() / 500));
    for (name, bytes, step) in FIXTURES.into_iter().map(|(name, bytes)| (name, bytes, 1)).chain(newer) {
        for end in (0..bytes.len()).step_by(step) {
            let error = walk(&bytes[..end]).expect_err(name);
            assert!(matches!(error, Error::Truncated { bytes, .. } if bytes == end as u64), "{name} {end}: {error}");
        }
    }
}

#[test]
fn every_bit_counts() {
    // Goal: a flipped bit is found wherever it is. Method: flip each in turn.
    let mut bytes = FIXTURES[2].1.to_vec();
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(walk(&bytes).is_err(), "bit {bit}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(walk(&bytes).is_ok());
}

#[test]
fn damage_is_judged_the_same_in_any_pieces() {
    // Goal: bad bytes neither panic nor depend on how they are cut. Method: several bytes changed at random places,
    // in a dump whose checksum is absent, so that only the structure can object.
    let (_, sound) = FIXTURES[3];
    let mut random = Random(1);
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..400 {
        let mut bytes = sound.to_vec();
        for _ in 0..1 + random.below(4) {
            let place = 9 + random.below(bytes.len() - 17);
            bytes[place] = if random.below(3) == 0 { 0xf0 + random.below(16) as u8 } else { random.below(256) as u8 };
        }
        let whole = walk(&bytes);
        assert_eq!(walk_in(&bytes, |_| 1), whole);
        assert_eq!(walk_in(&bytes, |_| 1 + random.below(30)), whole);
        if whole.is_ok() { accepted += 1 } else { refused += 1 }
    }
    assert!(accepted > 20 && refused > 20, "{accepted} accepted, {refused} refused");
}

#[test]
fn random_bytes() {
    // Goal: no panic on anything. Method: a true header and bytes without a pattern, small ones more often than
    // not, so that records are entered.
    let mut random = Random(2);
    for round in 0..3_000 {
        let magic = ["REDIS0009", "REDIS0012", "VALKEY080", "VALKEY081", "REDIS0003"][round % 5];
        let mut bytes = magic.as_bytes().to_vec();
        for _ in 0..random.below(400) {
            let byte = random.below(256);
            bytes.push(if random.below(4) == 0 { byte as u8 } else { (byte % 26) as u8 });
        }
        let whole = walk(&bytes);
        assert_eq!(walk_in(&bytes, |_| 1), whole);
    }
    for _ in 0..1_000 {
        let bytes: Vec<u8> = (0..random.below(40)).map(|_| random.below(256) as u8).collect();
        assert!(walk(&bytes).is_err());
    }
}

#[test]
fn length_bombs() {
    // Goal: a declared length is never believed. Method: lengths of 2^64 - 1 wherever one may stand; to allocate or
    // to loop by them would end the test.
    let begin = || Dump::new("REDIS0012");
    let bombs = [
        begin().raw(&[0]).length(u64::MAX),
        begin().key(0).length(u64::MAX),
        begin().key(1).length(u64::MAX),
        begin().key(4).length(u64::MAX).text("field"),
        begin().key(0).raw(&[0xc3]).length(u64::MAX).length(u64::MAX),
        begin().key(16).length(7 << 40),
        begin().key(18).length(u64::MAX).raw(&[2]),
        begin().key(21).length(u64::MAX),
        begin().key(24).raw(&[0; 8]).length(u64::MAX),
        begin().key(7).length(u64::MAX).raw(&[5]).length(u64::MAX),
        begin().raw(&[0xfa]).length(u64::MAX),
        begin().raw(&[0xfa]).text("ctime").length(u64::MAX),
        begin().raw(&[0xf5]).length(u64::MAX),
        begin().raw(&[0xfb]).length(u64::MAX).length(u64::MAX),
        begin().raw(&[0xf4]).length(u64::MAX).length(u64::MAX).length(u64::MAX),
    ];
    for bomb in bombs {
        assert!(matches!(walk_all_ways(&bomb.0), Err(Error::Truncated { .. })), "{bomb:?}", bomb = bomb.0);
    }
    let slots = begin().raw(&[0xf4]).length(1).length(u64::MAX).length(u64::MAX);
    let slots = slots.clone().raw(&slots.0[9..]).end();
    assert_eq!(walk(&slots).expect("sound").counts_match, Some(false));
    assert!(size_of::<Walker>() < 2_048, "{}", size_of::<Walker>());
}

#[test]
fn every_type() {
    // Goal: types that no server at hand writes are followed to their last byte. Method: one key of each, written by
    // the layouts of the reference; the end mark is only met where it belongs.
    use Type::{Hash, List, Module, Set, Stream, String, Zset};
    let id = "0123456789abcdef";
    let redis = |kind| (Dump::new("REDIS0012").key(kind), "redis");
    let valkey = |kind| (Dump::new("VALKEY080").key(kind), "valkey");
    let with = |(dump, dialect): (Dump, _), body: &dyn Fn(Dump) -> Dump| (body(dump), dialect);
    // Last id; four more numbers and the entries added; one group.
    let nodes = |dump: Dump| dump.raw(&[1]).text(id).listpack().raw(&[1, 5, 0]);
    let pending = |dump: Dump| dump.raw(&[1]).raw(&[7; 24]).raw(&[3]);
    let table: Vec<(Type, (Dump, &str))> = vec![
        (String, with(redis(0), &|d| d.raw(&[0xc1, 1, 2]))),
        (String, with(redis(0), &|d| d.raw(&[0xc3, 5, 10, 0, b'a', 0xe0, 0, 0]))),
        (List, with(redis(1), &|d| d.raw(&[2]).text("a").text("b"))),
        (Set, with(redis(2), &|d| d.raw(&[2]).text("a").raw(&[0xc0, 1]))),
        (Set, with(redis(2), &|d| d.raw(&[0]))),
        (Zset, with(redis(3), &|d| d.raw(&[3]).text("a").text("1.5").text("b").raw(&[253]).text("c").raw(&[255]))),
        (Hash, with(redis(4), &|d| d.raw(&[1]).text("f").text("v"))),
        (Zset, with(redis(5), &|d| d.raw(&[1]).text("a").raw(&[0xff; 8]))),
        (Module, with(redis(7), &|d| d.length(0).raw(&[1, 5, 2, 0x40, 9, 3]).raw(&[0xff; 4]).raw(&[4]).raw(&[0xff; 8]).raw(&[5]).text("s").raw(&[0]))),
        (Hash, with(redis(9), &|d| d.raw(&[2, 0, 0xff]))),
        (List, with(redis(10), &|d| d.ziplist())),
        (Set, with(redis(11), &|d| d.raw(&[10, 2, 0, 0, 0, 1, 0, 0, 0, 5, 0]))),
        (Set, with(redis(11), &|d| d.raw(&[8, 2, 0, 0, 0, 0, 0, 0, 0]))),
        (Zset, with(redis(12), &|d| d.ziplist())),
        (Hash, with(redis(13), &|d| d.ziplist())),
        (List, with(redis(14), &|d| d.raw(&[2]).ziplist().ziplist())),
        (
            Stream,
            with(redis(15), &|d| {
                pending(nodes(d).raw(&[1]).text("g").raw(&[5, 0])).raw(&[2]).text("c").raw(&[1; 8]).raw(&[1]).raw(&[7; 16]).text("e").raw(&[1; 8]).raw(&[0])
            }),
        ),
        (Hash, with(redis(16), &|d| d.listpack())),
        (Zset, with(redis(17), &|d| d.listpack())),
        (List, with(redis(18), &|d| d.raw(&[2, 2]).listpack().raw(&[1]).text("plain"))),
        (
            Stream,
            with(redis(19), &|d| {
                pending(nodes(d).raw(&[0, 0, 0, 0, 1]).raw(&[1]).text("g").raw(&[5, 0, 1])).raw(&[1]).text("c").raw(&[1; 8]).raw(&[1]).raw(&[7; 16])
            }),
        ),
        (Set, with(redis(20), &|d| d.listpack())),
        (
            Stream,
            with(redis(21), &|d| {
                pending(nodes(d).raw(&[0, 0, 0, 0, 1]).raw(&[1]).text("g").raw(&[5, 0, 1])).raw(&[1]).text("c").raw(&[1; 16]).raw(&[1]).raw(&[7; 16])
            }),
        ),
        (Hash, with(redis(22), &|d| d.raw(&[1, 9]).text("f").text("v"))),
        (Hash, with(valkey(22), &|d| d.raw(&[1]).text("f").text("v").raw(&[0xff; 8]))),
        (Hash, with(redis(23), &|d| d.listpack())),
        (Hash, with(redis(24), &|d| d.raw(&[9; 8]).raw(&[2, 0]).text("f").text("v").raw(&[1]).text("g").text("w"))),
        (Hash, with(redis(25), &|d| d.raw(&[9; 8]).listpack())),
    ];
    for (kind, (dump, dialect)) in table {
        let body = dump.0.len() as u64 - 9;
        let bytes = dump.raw(&[0]).text("next").text("value").end();
        let summary = walk_all_ways(&bytes).unwrap_or_else(|error| panic!("{dialect} {kind:?}: {error} {bytes:?}"));
        let database = &summary.databases[0];
        assert_eq!((database.index, database.keys, summary.opaque), (0, 2, None), "{dialect} {kind:?}");
        let count = database.types[&kind];
        assert!(count.bytes == body || kind == String, "{dialect} {kind:?}: {count:?}");
        for end in 9..bytes.len() {
            assert!(matches!(walk(&bytes[..end]), Err(Error::Truncated { .. })), "{dialect} {kind:?} {end}");
        }
    }
}

#[test]
fn records_around_keys() {
    // Goal: all that is not a key is followed and counted. Method: one dump with everything, in the order that a
    // server might write.
    let module = 0x1234_5678_9abc_def0_u64;
    let bytes = Dump::new("REDIS0012")
        .raw(&[0xfa])
        .text("valkey-ver")
        .text("8.0.1")
        .raw(&[0xfa])
        .text("ctime")
        .raw(&[0xc2, 0, 0, 0, 0x40])
        .raw(&[0xfa])
        .text("redis-bits")
        .raw(&[0xc0, 64])
        .raw(&[0xfa])
        .text("repl-id")
        .raw(&[0xc3, 5, 10, 0, b'f', 0xe0, 0, 0])
        .raw(&[0xfa])
        .text("repl-offset")
        .raw(&[0xc1, 0xff, 0xff])
        .raw(&[0xfa])
        .text("aof-preamble")
        .text("1")
        .raw(&[0xfa, 0xc0, 1])
        .text("a name that is a number")
        .raw(&[0xf7])
        .length(module)
        .raw(&[2, 1, 5])
        .text("before")
        .raw(&[0])
        .raw(&[0xf5])
        .text("#!lua name=one")
        .raw(&[0xfe, 2, 0xfb, 2, 1])
        .raw(&[0xf4, 1, 1, 1, 0xf4, 0x7f, 0xff, 1, 0])
        // A key with every prefix, and an AUX field on the way to it.
        .raw(&[0xfd, 1, 2, 3, 4, 0xf9, 200, 0xf8, 0x40, 99, 0xfa])
        .text("mvcc-tstamp")
        .text("1")
        .key(0)
        .text("value")
        .raw(&[0xfa])
        .text("keydb-subexpire-key")
        .text("x")
        .key(7)
        .length(module)
        .raw(&[0])
        .end();
    let summary = walk_all_ways(&bytes).expect("sound");
    let count = |keys, expiring, bytes| TypeCount { keys, expiring, bytes };
    assert_eq!(
        summary.databases,
        [Database {
            index: 2,
            keys: 2,
            expiring: 1,
            bytes: 10 + 1 + 12 + 2 + 5 + 6 + 15,
            declared_keys: Some(2),
            declared_expiring: Some(1),
            types: BTreeMap::from([(Type::String, count(1, 1, 36)), (Type::Module, count(1, 0, 15))]),
        }]
    );
    assert_eq!(summary.functions, 1);
    assert_eq!(summary.modules.len(), 1);
    assert_eq!(summary.slots, Some(Slots { slots: 2, keys: 2, expiring: 1 }));
    assert_eq!(summary.counts_match, Some(true));
    assert_eq!(
        summary.aux,
        Aux {
            redis_ver: None,
            valkey_ver: Some("8.0.1".into()),
            redis_bits: Some("64".into()),
            ctime: Some("1073741824".into()),
            used_mem: None,
            repl_id: Some("ffffffffff".into()),
            repl_offset: Some("-1".into()),
            aof_base: Some("1".into()),
        }
    );
    assert_eq!(summary.biggest, [BigKey { database: 2, kind: Type::String, bytes: 36 }, BigKey { database: 2, kind: Type::Module, bytes: 15 },]);
}

#[test]
fn valkey() {
    // Goal: what Valkey means otherwise is read by its meaning. Method: its slot imports, commands and versions.
    let name = "0123456789012345678901234567890123456789";
    let import = Dump::new("VALKEY080").raw(&[0xf3]).text(name).raw(&[2, 0, 5, 7, 0x7f, 0xff]).key(0).text("v").end();
    let summary = walk_all_ways(&import).expect("sound");
    assert_eq!((summary.dialect, summary.version, summary.databases[0].keys), (Dialect::Valkey, 80, 1));
    let short = Dump::new("VALKEY080").raw(&[0xf3]).text("short").raw(&[0]).end();
    assert!(matches!(walk_all_ways(&short), Err(Error::Malformed { offset: 10, .. })));
    for magic in ["VALKEY080", "VALKEY081"] {
        let commands = Dump::new(magic).key(0).text("v").raw(&[0xf2]).end();
        assert_eq!(walk_all_ways(&commands), Err(Error::Commands { offset: 16 }));
    }
    for kind in [6, 8, 23, 24, 25, 26] {
        let dump = Dump::new("VALKEY081").key(0).text("v").key(kind).raw(&[1; 50]).end();
        let opaque = walk_all_ways(&dump).expect("opaque").opaque;
        assert_eq!(opaque, Some(Opaque::Type { type_byte: kind, offset: 16 }));
    }
}

#[test]
fn opaque() {
    // Goal: what is not known is kept and checksummed, never trusted. Method: unknown versions, opcodes and types,
    // with sound and unsound ends.
    let begin = |magic: &str| Dump::new(magic).raw(&[0xfe, 1, 0xfb, 9, 9]);
    let cases = [
        (begin("REDIS0013"), Opaque::Version { version: 13 }),
        (begin("REDIS0080"), Opaque::Version { version: 80 }),
        (begin("REDIS9999"), Opaque::Version { version: 9_999 }),
        (begin("VALKEY082"), Opaque::Version { version: 82 }),
        (begin("VALKEY011"), Opaque::Version { version: 11 }),
        (begin("REDIS0012").raw(&[26]), Opaque::Type { type_byte: 26, offset: 14 }),
        (begin("REDIS0012").raw(&[0xf9, 3, 121]), Opaque::Type { type_byte: 121, offset: 16 }),
        (begin("REDIS0005").raw(&[6]), Opaque::Type { type_byte: 6, offset: 14 }),
        (begin("REDIS0012").raw(&[243]), Opaque::Opcode { opcode: 243, offset: 14 }),
        (begin("REDIS0011").raw(&[242]), Opaque::Opcode { opcode: 242, offset: 14 }),
    ];
    for (dump, reason) in cases {
        for extra in [0, 1, 7, 8, 9, 100] {
            let mut bytes = dump.clone().raw(&vec![0xf2; extra]).end();
            let summary = walk_all_ways(&bytes).expect("opaque");
            assert_eq!(summary.opaque, Some(reason), "{reason}");
            assert_eq!((summary.checksum, summary.counts_match), (Checksum::Verified, None));
            assert_eq!(summary.bytes, bytes.len() as u64);
            for end in 0..bytes.len() {
                assert!(walk(&bytes[..end]).is_err(), "{reason} {end}");
            }
            let end = bytes.len();
            bytes[12] ^= 1;
            assert!(walk(&bytes).is_err());
            bytes[12] ^= 1;
            bytes[end - 1] ^= 1;
            assert!(matches!(walk_all_ways(&bytes), Err(Error::Checksum { .. })));
            bytes[end - 8..].fill(0);
            assert_eq!(walk_all_ways(&bytes).expect("opaque").checksum, Checksum::AbsentAtSource);
            bytes[end - 9] = 0xfe;
            assert!(matches!(walk_all_ways(&bytes), Err(Error::Truncated { .. })));
        }
    }
}

#[test]
fn before_checksums() {
    // Goal: versions below 5 end with their end mark. Method: followed and opaque.
    let dump = |kind| Dump::new("REDIS0003").raw(&[0xfd, 1, 2, 3, 4]).key(kind).text("v").raw(&[0xff]).0;
    let summary = walk_all_ways(&dump(0)).expect("sound");
    assert_eq!((summary.checksum, summary.databases[0].expiring), (Checksum::NotInFormat, 1));
    let summary = walk_all_ways(&dump(6)).expect("opaque");
    assert_eq!(summary.checksum, Checksum::NotInFormat);
    assert_eq!(summary.opaque, Some(Opaque::Type { type_byte: 6, offset: 14 }));
    let mut cut = dump(6);
    cut.pop();
    assert!(matches!(walk_all_ways(&cut), Err(Error::Truncated { .. })));
}

#[test]
fn other_magic() {
    // Goal: what is no dump is told by its first bytes. Method: a table.
    for bytes in [b"REDIS000x", b"REDIS0000", b"VALKEY08x", b"VALKEY000", b"*1\r\n$4\r\nP", b"redis0011", b"\x28\xb5\x2f\xfd12345"] {
        assert_eq!(walk_all_ways(bytes), Err(Error::Magic { found: *bytes }));
    }
    assert_eq!(walk_all_ways(b"VCS\x01\x02\x00\x01...."), Err(Error::Envelope { codec: 2 }));
    let text = Error::Magic { found: *b"\x28\xb5\n\xfdRDB`x" }.to_string();
    assert_eq!(text, "not an rdb: it begins with `(\\xb5\\n\\xfdRDB`x`");
}

#[test]
fn malformed() {
    // Goal: each rule of the format is enforced, at the offset of the field that breaks it. Method: one dump for
    // each, all with good checksums.
    let begin = || Dump::new("REDIS0012");
    let cases: Vec<(u64, Dump)> = vec![
        // Prefixes need a key.
        (11, begin().raw(&[0xf9, 0])),
        (18, begin().raw(&[0xfc; 9])),
        (11, begin().raw(&[0xf9, 0, 0xfe, 1])),
        (11, begin().raw(&[0xf9, 0, 0xfb, 1, 1])),
        (11, begin().raw(&[0xf9, 0, 0xf5]).text("lib")),
        (11, begin().raw(&[0xf9, 0, 0xf9, 1])),
        (14, begin().raw(&[0xfd, 0, 0, 0, 0, 0xfc])),
        // Lengths and strings.
        (10, begin().raw(&[0xfe, 0xc0])),
        (10, begin().raw(&[0xfe, 0x82])),
        (10, begin().raw(&[0, 0xc4])),
        (14, begin().key(0).raw(&[0xc3, 0, 5])),
        (14, begin().key(0).raw(&[0xc3, 1, 0])),
        (14, begin().key(0).raw(&[0xc3, 4, 9, 0, b'a', 0x20, 1])),
        (14, begin().key(0).raw(&[0xc3, 1, 0x44, 0x00, 0])),
        (14, begin().key(1).raw(&[0xc1])),
        (10, begin().raw(&[0xfa, 0xc3, 1, 5, 0])),
        // Values.
        (16, begin().key(3).raw(&[1]).raw(&[0]).raw(&[0])),
        (14, begin().key(16).raw(&[7, 8, 0, 0, 0, 0, 0, 0xff])),
        (14, begin().key(16).raw(&[7, 7, 0, 0, 0, 0, 0, 0xfe])),
        (14, begin().key(16).raw(&[6, 6, 0, 0, 0, 0, 0])),
        (14, begin().key(16).raw(&[0xc0, 7])),
        (14, begin().key(16).raw(&[0xc3, 2, 2, 0, b'a'])),
        (14, begin().key(10).raw(&[11, 11, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0xff])),
        (14, begin().key(11).raw(&[10, 3, 0, 0, 0, 1, 0, 0, 0, 0, 0])),
        (14, begin().key(9).raw(&[1, 0xff])),
        (15, begin().key(18).raw(&[1, 3])),
        (15, begin().key(21).raw(&[1]).text("short")),
        (15, begin().key(7).raw(&[0]).raw(&[6])),
        // Records.
        (9, begin().raw(&[0xf6]).text("old functions")),
        (13, begin().raw(&[0xf7, 0, 2, 0, 7])),
        (11, begin().raw(&[0xf7, 0, 1, 0])),
        (9, begin().raw(&[0xfe]).length(1 << 32)),
    ];
    for (number, (expected, dump)) in cases.into_iter().enumerate() {
        let bytes = dump.end();
        match walk_all_ways(&bytes) {
            Err(Error::Malformed { offset, what }) => assert_eq!(offset, expected, "case {number}: {what}"),
            other => panic!("case {number}: {other:?}"),
        }
    }
}

#[test]
fn the_end() {
    // Goal: bytes behind the end are not taken, and errors stay. Method: feed on.
    let bytes = Dump::new("REDIS0009").key(0).text("v").end();
    let mut walker = Walker::new();
    assert_eq!(walker.feed(&[]), Ok(0));
    assert_eq!(walker.feed(&bytes[..20]), Ok(20));
    assert_eq!((walker.ended(), walker.keys(), walker.bytes()), (false, 1, 20));
    let more = [&bytes[20..], b"more"].concat();
    assert_eq!(walker.feed(&more), Ok(bytes.len() - 20));
    assert!(walker.ended());
    assert_eq!(walker.feed(&[]), Ok(0));
    assert_eq!(walker.feed(b"more"), Err(Error::TrailingBytes { offset: bytes.len() as u64 }));
    assert!(walker.finish().is_ok());

    let mut walker = Walker::new();
    let error = walker.feed(b"no dump at all").expect_err("no magic");
    assert_eq!(walker.feed(&bytes), Err(error.clone()));
    assert_eq!(walker.finish(), Err(error));
}

#[test]
fn databases() {
    // Goal: databases are told apart, revisited, and bounded. Method: a few, then one too many.
    let key = |dump: Dump| dump.key(0).text("v");
    let bytes = key(key(key(Dump::new("REDIS0011")).raw(&[0xfe, 7, 0xfb, 1, 0])).raw(&[0xfe, 0])).end();
    let summary = walk_all_ways(&bytes).expect("sound");
    let found: Vec<_> = summary.databases.iter().map(|database| (database.index, database.keys)).collect();
    assert_eq!(found, [(0, 2), (7, 1)]);
    assert_eq!(summary.counts_match, Some(true));

    let many = (0..=DATABASE_LIMIT as u32).fold(Dump::new("REDIS0011"), |dump, index| dump.raw(&[0xfe, 0x80]).raw(&index.to_be_bytes()));
    assert_eq!(walk(&many.end()), Err(Error::Databases { limit: DATABASE_LIMIT }));

    let empty = walk_all_ways(&Dump::new("REDIS0011").end()).expect("sound");
    assert_eq!((empty.databases, empty.counts_match), (vec![], None));
}

#[test]
fn values_that_are_stored() {
    // Goal: a summary can go into a manifest and come back. Method: the compiler.
    fn stored<T: serde::Serialize + serde::de::DeserializeOwned>() {}
    stored::<Summary>();
}

#[test]
fn names_of_keys() {
    // Goal: every name is placed and hashed as the text that it is, however it is stored. Method: `1234567890` plain, as an
    // integer and compressed, and `aaaaaaaaaa`, beside a name that is too long; the same walk without options tells nothing.
    let text = |dump: Dump, stored: &[u8]| dump.raw(&[0]).raw(stored).text("v");
    let long = |dump: Dump| dump.raw(&[0]).length(KEY_BYTES + 1).raw(&vec![b'k'; KEY_BYTES as usize + 1]).text("v");
    let bomb = [&[0xc3, 0x41, 0x00, 0x80, 0, 1, 0, 1][..], &[0, b'a'], &[0xe0, 255, 0].repeat(84)[..], &[0xe0, 0, 0]].concat();
    let plain = Dump::new("REDIS0009").raw(&[0xfe, 3]);
    let plain = text(text(plain, b"\x0a1234567890"), b"\x0aaaaaaaaaaa");
    let packed = Dump::new("REDIS0009").raw(&[0xfe, 3]);
    let packed = text(text(packed, &[0xc2, 0xd2, 0x02, 0x96, 0x49]), &[0xc3, 5, 10, 0, b'a', 0xe0, 0, 0]);
    let slot = slot_of(b"1234567890");
    let options = Options { slots: Some(SlotSet::from_ranges([(slot, slot)])), sketch: Some([7; 16]) };
    let (plain_end, packed_end) = (plain.clone().end(), packed.clone().end());
    let (one, other) = (walk_with(&options, &plain_end).expect("sound"), walk_with(&options, &packed_end).expect("sound"));
    assert_eq!((one.stray_keys, one.unplaced_keys, one.sketch.len()), (Some(1), 0, 2));
    assert_eq!((other.stray_keys, other.unplaced_keys, &other.sketch), (Some(1), 0, &one.sketch));
    let with_long = walk_with(&options, &long(plain).end()).expect("sound");
    assert_eq!((with_long.stray_keys, with_long.unplaced_keys, &with_long.sketch), (Some(1), 1, &one.sketch));
    let unfolded = walk(&text(packed.clone(), &bomb).end()).expect_err("declares more than it holds");
    assert_eq!(walk_with(&options, &text(packed, &bomb).end()), Err(unfolded));
    let without = walk(&plain_end).expect("sound");
    assert_eq!((without.stray_keys, without.unplaced_keys, without.sketch), (None, 0, vec![]));
    assert!(!format!("{options:?} {:?}", Walker::with(options.clone())).contains("7, 7"));
}

#[test]
fn numbers_of_slots() {
    // Goal: with slots each slot is held against its own number, without them only the sum. Method: two slots whose numbers
    // were exchanged.
    let (foo, bar) = (slot_of(b"foo"), slot_of(b"bar"));
    let info = |dump: Dump, slot: u16, keys: u64| dump.raw(&[0xf4]).length(u64::from(slot)).length(keys).raw(&[0]);
    let dump = |one: u64, other: u64| {
        let dump = info(info(Dump::new("REDIS0012").raw(&[0xfe, 0, 0xfb, 3, 0]), foo, one), bar, other);
        ["foo", "{foo}1", "bar"].into_iter().fold(dump, |dump, key| dump.raw(&[0]).text(key).text("v")).end()
    };
    let options = Options { slots: Some(SlotSet::from_ranges([(0, 16_383)])), sketch: None };
    let summary = walk_with(&options, &dump(2, 1)).expect("sound");
    assert_eq!((summary.counts_match, summary.mismatch, summary.stray_keys), (Some(true), None, Some(0)));
    let summary = walk_with(&options, &dump(1, 2)).expect("sound");
    assert_eq!(summary.counts_match, Some(false));
    let words = summary.mismatch.expect("two slots are wrong");
    assert_eq!(
        words,
        format!("slot {bar}: 2 keys and 0 expiring were declared, 1 and 0 found; slot {foo}: 1 keys and 0 expiring were declared, 2 and 0 found")
    );
    assert_eq!(walk_all_ways(&dump(1, 2)).expect("sound").counts_match, Some(true));
    let sum = walk_all_ways(&dump(2, 2)).expect("sound");
    assert_eq!(sum.mismatch.as_deref(), Some("all slots: 4 keys and 0 expiring were declared, 3 and 0 found"));
}

#[test]
fn opcodes_and_types_of_real_dumps() {
    // Goal: it is known which opcodes and types were ever seen from which server; the documentation says the same. Method: the
    // first bytes of all records, by engine.
    let mut seen: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    for (name, bytes) in FIXTURES.into_iter().chain(NEWER).chain(CLUSTERED) {
        let mut walker = Walker::new();
        walker.feed(bytes).expect(name);
        let engine = name.split_once('.').map_or(name, |(engine, _)| engine);
        // What Valkey 9.1 sends when it is asked for no version is told apart.
        let engine = if name.ends_with("portable") { "portable" } else { engine };
        seen.entry(engine).or_default().extend(walker.records.into_tally().finish(true).seen.bytes());
    }
    for bytes in seen.values_mut() {
        bytes.sort_unstable();
        bytes.dedup();
    }
    let all: &[u8] = &[0, 2, 4, 5, 11, 250, 251, 252, 254];
    let modern: &[u8] = &[16, 17, 18, 245];
    let table: [(&str, &[&[u8]]); 6] = [
        ("portable", &[all, modern, &[20, 21]]),
        ("redis-6", &[all, &[12, 13, 14, 15]]),
        ("redis-7", &[all, modern, &[19, 248, 249]]),
        ("redis-8", &[all, modern, &[7, 20, 21, 24, 25, 244, 248, 249]]),
        ("valkey-8", &[all, modern, &[20, 21, 248, 249]]),
        ("valkey-9", &[all, modern, &[20, 21, 22, 248, 249]]),
    ];
    for (engine, bytes) in table {
        let mut expected = bytes.concat();
        expected.sort_unstable();
        assert_eq!(seen.remove(engine), Some(expected), "{engine}");
    }
    assert_eq!(seen, BTreeMap::new());
}
