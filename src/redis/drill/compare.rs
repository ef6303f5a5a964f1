//! Whether a server that has loaded a dump has what the walk of the dump found.
//!
//! Compared are the keys and the expiring keys of every database, to the last one; the libraries of functions; the keys of each
//! type, where there are not too many to ask for all; and of a sample of keys the type, the length and the expiry.
//!
//! The server is a replica by its own word, so it keeps keys whose expiry has passed and counts them, but does not show them when
//! it is asked for one. What may be missing for this reason is known from the dump.

use super::super::Error;
use super::super::connection::{Connection, Reply};
use crate::rdb::{Database, Length, Sample, SampledKey, Type};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Most keys of a dump of which all are asked for their type. With more the sample has to do.
pub const TYPED_KEYS: u64 = 1_000_000;

/// Keys that the server looks at for one answer.
const SCAN_COUNT: &[u8] = b"256";

/// Most answers to one scan, for a server that would never end it.
const SCAN_ROUNDS: u64 = 64 * TYPED_KEYS / 256;

/// Keys that are asked for at once.
const BATCH: usize = 100;

/// A server that moves keys to a bigger table meanwhile may show one twice: then it is asked again after this time.
const SCAN_AGAIN: Duration = Duration::from_secs(1);

/// Tries at counting the keys of a type.
const SCAN_TRIES: u32 = 3;

/// How far an expiry may be off where the server tells it only as a time that is left, in milliseconds.
const LEFT_MILLIS: i64 = 1000;

/// What a server must have.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// Its databases.
    pub databases: &'a [Database],
    /// Libraries of functions.
    pub functions: u64,
    /// Keys to look at one by one.
    pub sample: &'a Sample,
}

/// What was compared, and was equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compared {
    /// Keys of the server.
    pub keys: u64,
    /// Keys that were looked at one by one.
    pub sampled: u64,
    /// Whether the keys of each type were counted.
    pub are_types_counted: bool,
}

/// Why nothing was proved.
#[derive(Debug, thiserror::Error)]
pub enum Difference {
    /// The server does not answer as it should.
    #[error(transparent)]
    Server(#[from] Error),
    /// It has something else. No name of a key is told.
    #[error("{0}")]
    Content(String),
}

/// Compares.
///
/// # Errors
///
/// The first difference.
pub async fn compare(server: &mut Connection, expected: &Expected<'_>) -> Result<Compared, Difference> {
    let keys = databases(server, expected).await?;
    functions(server, expected).await?;
    let are_types_counted = keys <= TYPED_KEYS && expected.sample.is_whole;
    if are_types_counted {
        types(server, expected).await?;
    }
    let sampled = sample(server, &expected.sample.keys).await?;
    Ok(Compared { keys, sampled, are_types_counted })
}

async fn databases(server: &mut Connection, expected: &Expected<'_>) -> Result<u64, Difference> {
    let info = server.call(&[b"INFO", b"keyspace"]).await?.text().unwrap_or_default();
    let loaded = keyspace(&info);
    let dumped: BTreeMap<u32, (u64, u64)> =
        expected.databases.iter().filter(|database| database.keys > 0).map(|database| (database.index, (database.keys, database.expiring))).collect();
    for index in dumped.keys().chain(loaded.keys()) {
        let of = |side: &BTreeMap<u32, (u64, u64)>| side.get(index).copied().unwrap_or_default();
        let ((dump, dump_expiring), (server, server_expiring)) = (of(&dumped), of(&loaded));
        if (dump, dump_expiring) != (server, server_expiring) {
            return Err(Difference::Content(format!(
                "database {index} has {server} keys after loading, {server_expiring} of them with an expiry; the dump has {dump}, {dump_expiring} of them with one"
            )));
        }
    }
    Ok(loaded.values().map(|(keys, _)| keys).sum())
}

/// Reads lines such as `db0:keys=10,expires=2,avg_ttl=0`.
fn keyspace(info: &str) -> BTreeMap<u32, (u64, u64)> {
    let one = |line: &str| {
        let (index, facts) = line.strip_prefix("db")?.split_once(':')?;
        let fact = |name: &str| facts.split(',').find_map(|fact| fact.strip_prefix(name)?.strip_prefix('=')?.trim().parse::<u64>().ok());
        Some((index.parse().ok()?, (fact("keys")?, fact("expires")?)))
    };
    info.lines().filter_map(one).collect()
}

async fn functions(server: &mut Connection, expected: &Expected<'_>) -> Result<(), Difference> {
    let found = match server.command(&[b"FUNCTION", b"LIST"]).await? {
        Reply::Error(_) if expected.functions == 0 => return Ok(()),
        Reply::Error(text) => return Err(server.refusal(&text).into()),
        reply => reply.elements().len() as u64,
    };
    if found == expected.functions {
        Ok(())
    } else {
        Err(Difference::Content(format!("it has {found} libraries of functions after loading; the dump has {}", expected.functions)))
    }
}

async fn types(server: &mut Connection, expected: &Expected<'_>) -> Result<(), Difference> {
    for database in expected.databases {
        // What a module's type is called is the module's own business.
        let kinds: Vec<(Type, u64)> = database.types.iter().filter(|(kind, _)| **kind != Type::Module).map(|(kind, count)| (*kind, count.keys)).collect();
        if !kinds.is_empty() {
            server.call(&[b"SELECT", database.index.to_string().as_bytes()]).await?;
        }
        for (kind, keys) in kinds {
            let passing = expected.sample.passing.get(&(database.index, kind)).copied().unwrap_or_default();
            let most = keys.saturating_sub(passing.expired);
            let least = most.saturating_sub(passing.expiring);
            for left in (0..SCAN_TRIES).rev() {
                let found = scan(server, kind.as_str()).await?;
                if (least..=most).contains(&found) {
                    break;
                }
                if left == 0 {
                    return Err(Difference::Content(format!(
                        "database {} has {found} keys of type {} after loading; the dump has {most}",
                        database.index,
                        kind.as_str()
                    )));
                }
                tokio::time::sleep(SCAN_AGAIN).await;
            }
        }
    }
    Ok(())
}

/// Counts the keys of a type in the database that is selected.
async fn scan(server: &mut Connection, kind: &str) -> Result<u64, Difference> {
    let (mut cursor, mut count) = (b"0".to_vec(), 0);
    for _ in 0..SCAN_ROUNDS {
        let reply = server.call(&[b"SCAN", &cursor, b"COUNT", SCAN_COUNT, b"TYPE", kind.as_bytes()]).await?;
        let [Reply::Bulk(Some(next)), Reply::Array(Some(keys))] = reply.elements() else { return Err(odd(server, "SCAN").into()) };
        count += keys.len() as u64;
        if next == b"0" {
            return Ok(count);
        }
        cursor.clone_from(next);
    }
    Err(odd(server, "SCAN, which never ends").into())
}

/// The command that tells how long a value is.
fn length_of(kind: Type) -> Option<&'static [u8]> {
    match kind {
        Type::String => Some(b"STRLEN"),
        Type::List => Some(b"LLEN"),
        Type::Set => Some(b"SCARD"),
        Type::Zset => Some(b"ZCARD"),
        Type::Hash => Some(b"HLEN"),
        Type::Stream => Some(b"XLEN"),
        Type::Module => None,
    }
}

/// How the server tells when a key expires.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Clock {
    /// The instant.
    Instant,
    /// The time that is left.
    Left,
}

impl Clock {
    fn command(self) -> &'static [u8] {
        match self {
            Self::Instant => b"PEXPIRETIME",
            Self::Left => b"PTTL",
        }
    }
}

async fn sample(server: &mut Connection, keys: &[SampledKey]) -> Result<u64, Difference> {
    // Engines before 7.0 do not know the instant.
    let clock = match server.command(&[Clock::Instant.command(), b"x"]).await? {
        Reply::Error(_) => Clock::Left,
        _ => Clock::Instant,
    };
    let mut by_database: BTreeMap<u32, Vec<&SampledKey>> = BTreeMap::new();
    for key in keys {
        by_database.entry(key.database).or_default().push(key);
    }
    let mut compared = 0;
    for (index, keys) in by_database {
        server.call(&[b"SELECT", index.to_string().as_bytes()]).await?;
        for batch in keys.chunks(BATCH) {
            let commands: Vec<Vec<&[u8]>> = batch
                .iter()
                .flat_map(|key| {
                    let name = key.name.as_slice();
                    // EXISTS stands in where there is no length, so that each key has three answers.
                    [vec![b"TYPE".as_slice(), name], vec![clock.command(), name], vec![length_of(key.kind).unwrap_or(b"EXISTS"), name]]
                })
                .collect();
            let asked_at = now_millis();
            let replies = server.commands(&commands).await?;
            let span = (asked_at, now_millis());
            for (key, replies) in batch.iter().zip(replies.chunks(3)) {
                match judge(key, replies, clock, span) {
                    Ok(true) => compared += 1,
                    Ok(false) => {}
                    Err(what) => return Err(Difference::Content(format!("a {} in database {index} {what}", key.kind.as_str()))),
                }
            }
        }
    }
    Ok(compared)
}

/// Whether a key is what it was in the dump; false for one that has expired meanwhile. `span` is when it was asked for.
fn judge(key: &SampledKey, replies: &[Reply], clock: Clock, (from, until): (i64, i64)) -> Result<bool, String> {
    if key.expires_at.is_some_and(|at| at <= until) {
        return Ok(false);
    }
    let [kind, expiry, length] = replies else { return Err("was not answered for".to_owned()) };
    match kind.text().as_deref() {
        Some("none") => return Err("is missing after loading".to_owned()),
        Some(found) if key.kind == Type::Module || found == key.kind.as_str() => {}
        Some(_) | None => return Err("has another type after loading".to_owned()),
    }
    let is_right = match (expiry, key.expires_at, clock) {
        (Reply::Integer(found), None, _) => *found == -1,
        (Reply::Integer(found), Some(at), Clock::Instant) => *found == at,
        (Reply::Integer(found), Some(at), Clock::Left) if *found >= 0 => {
            (from.saturating_add(*found).saturating_sub(LEFT_MILLIS)..=until.saturating_add(*found).saturating_add(LEFT_MILLIS)).contains(&at)
        }
        _ => false,
    };
    if !is_right {
        return Err("has another expiry after loading".to_owned());
    }
    let is_right = match (length, key.length) {
        _ if key.kind == Type::Module => true,
        (Reply::Integer(found), Length::Exactly(count)) => u64::try_from(*found) == Ok(count),
        (Reply::Integer(found), Length::AtMost(count)) => u64::try_from(*found).is_ok_and(|found| found <= count),
        (Reply::Integer(_), Length::Unknown) => true,
        _ => false,
    };
    if is_right { Ok(true) } else { Err("has another length after loading".to_owned()) }
}

fn odd(server: &Connection, command: &str) -> Error {
    Error::Protocol { host: server.host().to_owned(), what: format!("an odd reply to {command}") }
}

fn now_millis() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kind: Type, expires_at: Option<i64>, length: Length) -> SampledKey {
        SampledKey { database: 0, name: b"secret".to_vec(), kind, expires_at, length }
    }

    #[test]
    fn a_key_is_judged() {
        let answers = |kind: &str, expiry, length| vec![Reply::Simple(kind.to_owned()), Reply::Integer(expiry), Reply::Integer(length)];
        let span = (1_000_000, 1_000_010);
        let instant = |key: &SampledKey, replies: &[Reply]| judge(key, replies, Clock::Instant, span);
        let plain = key(Type::Hash, None, Length::Exactly(3));
        assert_eq!(instant(&plain, &answers("hash", -1, 3)), Ok(true));
        for (replies, what) in [
            (answers("none", -2, 0), "missing"),
            (answers("zset", -1, 3), "type"),
            (answers("hash", 5_000_000, 3), "expiry"),
            (answers("hash", -1, 4), "length"),
            (vec![Reply::Error("ERR".into()), Reply::Integer(-1), Reply::Integer(3)], "type"),
            (vec![Reply::Simple("hash".into()), Reply::Integer(-1), Reply::Error("ERR".into())], "length"),
            (Vec::new(), "answered"),
        ] {
            let fault = instant(&plain, &replies).unwrap_err();
            assert!(fault.contains(what) && !fault.contains("secret"), "{fault}");
        }
        let passing = key(Type::String, Some(1_000_500), Length::Exactly(1));
        assert_eq!(instant(&passing, &answers("string", 1_000_500, 1)), Ok(true));
        assert!(instant(&passing, &answers("string", 1_000_501, 1)).is_err());
        // The time that is left is told to the second at best.
        assert_eq!(judge(&passing, &answers("string", 490, 1), Clock::Left, span), Ok(true));
        assert!(judge(&passing, &answers("string", 5000, 1), Clock::Left, span).is_err());
        assert!(judge(&passing, &answers("string", -1, 1), Clock::Left, span).is_err());
        // One that has expired meanwhile proves nothing.
        let expired = key(Type::String, Some(1_000_005), Length::Exactly(1));
        assert_eq!(instant(&expired, &answers("none", -2, 0)), Ok(false));
        let fields = key(Type::Hash, None, Length::AtMost(3));
        assert_eq!(instant(&fields, &answers("hash", -1, 2)), Ok(true));
        assert!(instant(&fields, &answers("hash", -1, 4)).is_err());
        assert_eq!(instant(&key(Type::Module, None, Length::Unknown), &answers("ReJSON-RL", -1, 1)), Ok(true));
    }

    #[test]
    fn the_keyspace_is_read() {
        let info = "# Keyspace\r\ndb0:keys=10,expires=2,avg_ttl=0,subexpiry=0\r\ndb12:keys=1,expires=0,avg_ttl=0\r\nodd\r\n";
        assert_eq!(keyspace(info), BTreeMap::from([(0, (10, 2)), (12, (1, 0))]));
    }
}
