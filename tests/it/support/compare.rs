//! Whether two servers hold the same.
//!
//! A digest of the data set sees keys and values. It does not see when a key expires, a stream's groups and pending
//! entries, or functions; those are compared one by one.

use super::resp::{Connection, Pipeline, Value};
use super::server::{RedisServer, Version};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Differences told.
pub const TOLD_MAX: usize = 20;

/// Keys looked at in one round.
const ROUND_KEYS: &str = "2000";

/// Time that a server may take for a digest or a round.
const PATIENCE: Duration = Duration::from_secs(300);

/// Difference of two remaining times that were not asked for at one instant, in milliseconds.
const LIFETIME_SLACK_MS: u64 = 1500;

/// Names in XINFO STREAM that an older server does not have, or computes otherwise.
const NEWER_NAMES: [&str; 6] = ["active-time", "entries-added", "entries-read", "lag", "max-deleted-entry-id", "recorded-first-entry-id"];

/// Numbers of keys by database and type (`string`, `list`, `set`, `zset`, `hash`, `stream`).
pub type Census = BTreeMap<u32, BTreeMap<String, u64>>;

/// Fails the test unless both servers hold the same.
///
/// # Panics
///
/// With the first [`TOLD_MAX`] differences.
pub async fn assert_same_content(a: &RedisServer, b: &RedisServer) {
    let differences = differences(a, b).await;
    assert!(differences.is_empty(), "{} and {} differ:\n  {}", a.address(), b.address(), differences.join("\n  "));
}

/// Compares databases, keys, types, values, expiries, streams with groups and pending entries, expiries of hash fields and functions.
///
/// Returns at most [`TOLD_MAX`] differences and, if there are more, a line that says so. The servers must be idle. Servers
/// without PEXPIRETIME are compared by remaining time, within 1.5 s.
pub async fn differences(a: &RedisServer, b: &RedisServer) -> Vec<String> {
    differences_up_to(TOLD_MAX, a, b).await
}

/// As [`differences`], with another number of them.
pub async fn differences_up_to(told_max: usize, a: &RedisServer, b: &RedisServer) -> Vec<String> {
    let found = Found { told_max, told: Vec::new(), untold: 0 };
    let mut pair = Pair { a: a.connect().await.patience(PATIENCE), b: b.connect().await.patience(PATIENCE), found };
    let oldest = a.version().min(b.version());
    let [keyspace_a, keyspace_b] = pair.ask(&["INFO", "keyspace"]).await.map(|text| keyspace(&text.text()));
    let [digest_a, digest_b] = pair.ask(&["DEBUG", "DIGEST"]).await.map(|digest| digest.text());
    if digest_a != digest_b {
        pair.found.add(format!("digest: {digest_a} and {digest_b}"));
    }
    let [fields_a, fields_b] = pair.ask(&["COMMAND", "INFO", "HPEXPIRETIME"]).await.map(|known| known.items().iter().any(|item| *item != Value::Nil));
    let view = View { values: digest_a != digest_b, lenient: a.version() != b.version(), absolute: oldest >= (7, 0, 0), fields: fields_a && fields_b };
    let databases: BTreeSet<u32> = keyspace_a.keys().chain(keyspace_b.keys()).copied().collect();
    for database in databases {
        let counts = [&keyspace_a, &keyspace_b].map(|keyspace| keyspace.get(&database).copied().unwrap_or_default());
        if counts[0] != counts[1] {
            let [(keys_a, expires_a), (keys_b, expires_b)] = counts;
            pair.found.add(format!("database {database}: {keys_a} keys of which {expires_a} expire, and {keys_b} of which {expires_b}"));
        }
        for reply in pair.ask(&["SELECT", &database.to_string()]).await {
            reply.ok();
        }
        if view.values {
            pair.compare_values(database).await;
        }
        if counts.iter().any(|&(_, expires)| expires > 0) {
            pair.compare_expiries(database, view).await;
        }
        pair.compare_all_streams(database, view).await;
        if view.fields {
            pair.compare_fields(database).await;
        }
    }
    pair.compare_functions(oldest).await;
    pair.found.tell()
}

/// Counts the keys of each database by type.
pub async fn census(server: &RedisServer) -> Census {
    let mut connection = server.connect().await.patience(PATIENCE);
    let mut census = Census::new();
    let databases = keyspace(&connection.command(&["INFO", "keyspace"]).await.text());
    for &database in databases.keys() {
        connection.command(&["SELECT", &database.to_string()]).await.ok();
        let types = census.entry(database).or_default();
        let mut scan = Scan::default();
        while let Some(keys) = scan.next(&mut connection).await {
            let mut pipeline = Pipeline::default();
            for key in &keys {
                pipeline.add(&[&"TYPE", key]);
            }
            for kind in connection.pipeline(&pipeline).await {
                *types.entry(kind.text()).or_default() += 1;
            }
        }
    }
    census
}

/// The numbers of keys and of expiring keys by database.
pub fn keyspace(text: &str) -> BTreeMap<u32, (u64, u64)> {
    let count = |line: &str, name: &str| line.split([':', ',']).find_map(|part| part.strip_prefix(name)?.strip_prefix('=')?.trim().parse().ok()).unwrap_or(0);
    text.lines()
        .filter_map(|line| {
            let database = line.strip_prefix("db")?.split(':').next()?.parse().ok()?;
            Some((database, (count(line, "keys"), count(line, "expires"))))
        })
        .collect()
}

/// Which parts are looked at, and how.
#[derive(Clone, Copy)]
struct View {
    /// The digests differ, so missing keys are told with the values.
    values: bool,
    /// The versions differ: do not compare what only one of them knows.
    lenient: bool,
    /// Instants of expiry can be asked for.
    absolute: bool,
    /// Fields of hashes can expire.
    fields: bool,
}

struct Found {
    told_max: usize,
    told: Vec<String>,
    untold: usize,
}

impl Found {
    fn add(&mut self, difference: String) {
        // A scan may show a key twice.
        if self.told.contains(&difference) {
            return;
        }
        if self.told.len() < self.told_max {
            self.told.push(difference);
        } else {
            self.untold += 1;
        }
    }

    fn tell(mut self) -> Vec<String> {
        if self.untold > 0 {
            self.told.push(format!("and {} more", self.untold));
        }
        self.told
    }
}

/// Goes through the keys of the selected database.
#[derive(Default)]
struct Scan {
    kind: Option<&'static str>,
    cursor: Option<String>,
}

impl Scan {
    /// Of the keys of one type only.
    fn of(kind: &'static str) -> Self {
        Self { kind: Some(kind), cursor: None }
    }

    async fn next(&mut self, connection: &mut Connection) -> Option<Vec<Bytes>> {
        if self.cursor.as_deref() == Some("0") {
            return None;
        }
        let cursor = self.cursor.as_deref().unwrap_or("0");
        let mut request = vec!["SCAN", cursor, "COUNT", ROUND_KEYS];
        request.extend(self.kind.iter().flat_map(|kind| ["TYPE", kind]));
        let reply = connection.command(&request).await;
        let [cursor, keys] = reply.items() else { panic!("SCAN: {reply:?}") };
        self.cursor = Some(cursor.text());
        Some(keys.items().iter().map(|key| key.bytes().clone()).collect())
    }
}

struct Pair {
    a: Connection,
    b: Connection,
    found: Found,
}

impl Pair {
    async fn ask<A: AsRef<[u8]>>(&mut self, request: &[A]) -> [Value; 2] {
        let (a, b) = tokio::join!(self.a.command(request), self.b.command(request));
        [a, b]
    }

    /// Compares when keys expire. That they expire, the digest has told.
    async fn compare_expiries(&mut self, database: u32, view: View) {
        let mut scan = Scan::default();
        let question = if view.absolute { "PEXPIRETIME" } else { "PTTL" };
        while let Some(keys) = scan.next(&mut self.a).await {
            let mut pipeline = Pipeline::default();
            for key in &keys {
                pipeline.add(&[&question, key]);
            }
            let (lines_a, lines_b) = tokio::join!(self.a.pipeline_of_lines(&pipeline), self.b.pipeline_of_lines(&pipeline));
            if lines_a == lines_b {
                continue;
            }
            let [lines_a, lines_b] = [&lines_a, &lines_b].map(|lines| String::from_utf8_lossy(lines).into_owned());
            for (key, (line_a, line_b)) in keys.iter().zip(lines_a.lines().zip(lines_b.lines())) {
                let number = |line: &str| line.strip_prefix(':').and_then(|number| number.parse::<i64>().ok());
                let same = match (number(line_a), number(line_b)) {
                    (Some(-2), _) | (_, Some(-2)) if view.values => true,
                    (Some(a @ 0..), Some(b @ 0..)) if !view.absolute => a.abs_diff(b) <= LIFETIME_SLACK_MS,
                    _ => line_a == line_b,
                };
                if !same {
                    self.found.add(format!("{}: expiry {} and {}", named(database, key), line_a.trim_start_matches(':'), line_b.trim_start_matches(':')));
                }
            }
        }
    }

    /// Says which keys have to do with different digests.
    async fn compare_values(&mut self, database: u32) {
        let mut scan = Scan::default();
        while let Some(keys) = scan.next(&mut self.a).await {
            let mut pipeline = Pipeline::default();
            for key in &keys {
                pipeline.add(&[&"TYPE", key]).add(&[&"DEBUG", &"DIGEST-VALUE", key]);
            }
            let (replies_a, replies_b) = tokio::join!(self.a.pipeline(&pipeline), self.b.pipeline(&pipeline));
            for (key, (row_a, row_b)) in keys.iter().zip(replies_a.chunks(2).zip(replies_b.chunks(2))) {
                let ([type_a, value_a], [type_b, value_b]) = (row_a, row_b) else { panic!("a row has two replies") };
                match (&*type_a.text(), &*type_b.text()) {
                    ("none", _) => {}
                    (_, "none") => self.found.add(format!("{}: only in the first", named(database, key))),
                    (type_a, type_b) if type_a != type_b => self.found.add(format!("{}: type {type_a} and {type_b}", named(database, key))),
                    _ if value_a != value_b => self.found.add(format!("{}: value {} and {}", named(database, key), shown(value_a), shown(value_b))),
                    _ => {}
                }
            }
        }
        let mut scan = Scan::default();
        while let Some(keys) = scan.next(&mut self.b).await {
            let mut pipeline = Pipeline::default();
            for key in &keys {
                pipeline.add(&[&"EXISTS", key]);
            }
            let replies = self.a.pipeline(&pipeline).await;
            for (key, _) in keys.iter().zip(replies).filter(|(_, reply)| *reply == Value::Integer(0)) {
                self.found.add(format!("{}: only in the second", named(database, key)));
            }
        }
    }

    async fn compare_all_streams(&mut self, database: u32, view: View) {
        let mut scan = Scan::of("stream");
        while let Some(keys) = scan.next(&mut self.a).await {
            for key in keys {
                let request: [&[u8]; 6] = [b"XINFO", b"STREAM", &key, b"FULL", b"COUNT", b"0"];
                let replies = self.ask(&request).await;
                if let Some(error) = replies.iter().find_map(Value::error) {
                    self.found.add(format!("{}: stream not to be compared: {error}", named(database, &key)));
                    continue;
                }
                let [stream_a, stream_b] = replies.map(|full| flat_stream(&full, view.lenient));
                self.compare_streams(&named(database, &key), &stream_a, &stream_b);
            }
        }
    }

    fn compare_streams(&mut self, name: &str, a: &BTreeMap<String, Value>, b: &BTreeMap<String, Value>) {
        let parts: BTreeSet<_> = a.keys().chain(b.keys()).collect();
        for part in parts {
            // Of a group or consumer that only one server has, the name says it all.
            let name_of = format!("{}name", part.trim_end_matches(|letter| letter != ' '));
            if *part != name_of && a.contains_key(&name_of) != b.contains_key(&name_of) {
                continue;
            }
            match (a.get(part), b.get(part)) {
                (Some(value_a), Some(value_b)) if value_a == value_b => {}
                (Some(Value::Array(items_a)), Some(Value::Array(items_b))) => {
                    let at = items_a.iter().zip(items_b).take_while(|(a, b)| a == b).count();
                    let [item_a, item_b] = [items_a, items_b].map(|items| items.get(at).map_or("nothing".to_owned(), shown));
                    self.found.add(format!("{name}: stream {part}: {} and {} items, at {at} {item_a} and {item_b}", items_a.len(), items_b.len()));
                }
                (value_a, value_b) => {
                    let [value_a, value_b] = [value_a, value_b].map(|value| value.map_or("nothing".to_owned(), shown));
                    self.found.add(format!("{name}: stream {part}: {value_a} and {value_b}"));
                }
            }
        }
    }

    /// Compares when the fields of hashes expire.
    async fn compare_fields(&mut self, database: u32) {
        let mut scan = Scan::of("hash");
        while let Some(keys) = scan.next(&mut self.a).await {
            for key in keys {
                let [names, _] = self.ask(&[&b"HKEYS"[..], &key]).await;
                let count = names.items().len().to_string();
                let mut request: Vec<&[u8]> = vec![b"HPEXPIRETIME", &key, b"FIELDS", count.as_bytes()];
                request.extend(names.items().iter().map(|name| name.bytes().as_ref()));
                let [times_a, times_b] = self.ask(&request).await;
                if times_a != times_b {
                    self.found.add(format!("{}: expiry of fields {} and {}", named(database, &key), shown(&times_a), shown(&times_b)));
                }
            }
        }
    }

    /// Compares the libraries by name: FUNCTION DUMP has them in an order that differs from process to process.
    async fn compare_functions(&mut self, oldest: Version) {
        if oldest < (7, 0, 0) {
            return;
        }
        let [a, b] = self.ask(&["FUNCTION", "LIST", "WITHCODE"]).await.map(|list| libraries(&list));
        let names: BTreeSet<_> = a.keys().chain(b.keys()).collect();
        for name in names {
            match (a.get(name), b.get(name)) {
                (Some(library_a), Some(library_b)) if library_a == library_b => {}
                (Some(_), Some(_)) => self.found.add(format!("library {name:?}: other functions")),
                (Some(_), None) => self.found.add(format!("library {name:?}: only in the first")),
                (None, _) => self.found.add(format!("library {name:?}: only in the second")),
            }
        }
    }
}

/// Engine and code by name of library.
fn libraries(list: &Value) -> BTreeMap<String, (Value, Value)> {
    let library = |fields: &Value| {
        let mut fields: BTreeMap<_, _> = pairs(fields).map(|(name, value)| (name, value.clone())).collect();
        let mut part = |name: &str| fields.remove(name).unwrap_or(Value::Nil);
        (part("library_name").text(), (part("engine"), part("library_code")))
    };
    list.items().iter().map(library).collect()
}

/// XINFO STREAM FULL as a table: `length`, `group "g" pel-count`, `group "g" consumer "c" seen-time`.
///
/// Left out are the sizes of the radix tree, which depend on how it grew.
fn flat_stream(full: &Value, lenient: bool) -> BTreeMap<String, Value> {
    fn flatten(prefix: &str, fields: &Value, lenient: bool, table: &mut BTreeMap<String, Value>) {
        for (name, value) in pairs(fields) {
            let kind = match &*name {
                "groups" => "group",
                "consumers" => "consumer",
                _ if name.starts_with("radix-tree-") || lenient && NEWER_NAMES.contains(&&*name) => continue,
                _ => {
                    table.insert(format!("{prefix}{name}"), value.clone());
                    continue;
                }
            };
            for item in value.items() {
                let name = pairs(item).find(|(name, _)| name == "name").map(|(_, name)| shown(name)).unwrap_or_default();
                flatten(&format!("{prefix}{kind} {name} "), item, lenient, table);
            }
        }
    }
    let mut table = BTreeMap::new();
    flatten("", full, lenient, &mut table);
    table
}

/// The names and values of a map that RESP2 shows as an array.
fn pairs(map: &Value) -> impl Iterator<Item = (String, &Value)> {
    map.items().chunks_exact(2).map(|pair| (pair[0].text(), &pair[1]))
}

fn named(database: u32, key: &[u8]) -> String {
    format!("database {database}, key \"{}\"", cropped(&key.escape_ascii().to_string()))
}

fn shown(value: &Value) -> String {
    match value {
        Value::Status(text) => text.clone(),
        Value::Integer(integer) => integer.to_string(),
        Value::Bulk(bytes) => format!("\"{}\"", cropped(&bytes.escape_ascii().to_string())),
        Value::Error(_) | Value::Nil | Value::Array(_) => cropped(&format!("{value:?}")),
    }
}

fn cropped(text: &str) -> String {
    const SHOWN_CHARS: usize = 200;
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
