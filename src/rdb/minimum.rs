//! What is needed to load a dump: the least release of each family, from the version of the format and from what was found.
//!
//! A server refuses a version of the format that is newer than its own, and otherwise reads by opcodes and types alone. So both
//! count: some writers put newer types under an older version.

use super::summary::{Database, Minimum};
use super::{Dialect, Version};

/// A release, such as 7.4.
type Release = (u8, u8);

/// The type of vector sets, which belong to a module that every Redis brings since [`VECTOR_SETS_SINCE`].
const VECTOR_SETS: &str = "vectorset";
const VECTOR_SETS_SINCE: Release = (8, 0);

/// The first Valkey, which reads what Redis 7.2 did.
const FIRST_VALKEY: Release = (7, 2);

/// First bytes of records that were found.
#[derive(Debug, Clone)]
pub(super) struct Seen([bool; 256]);

impl Default for Seen {
    fn default() -> Self {
        Self([false; 256])
    }
}

impl Seen {
    #[inline]
    pub(super) fn add(&mut self, byte: u8) {
        self.0[usize::from(byte)] = true;
    }

    /// Those that were found, rising.
    pub(super) fn bytes(&self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).filter(|byte| self.0[usize::from(*byte)])
    }
}

/// What it takes to load a dump that was followed to its end.
pub(super) fn minimum(version: Version, seen: &Seen, databases: &[Database], modules: &[String]) -> Minimum {
    let vectors = modules.iter().any(|name| name == VECTOR_SETS).then_some(VECTOR_SETS_SINCE);
    let redis = redis(version).map(|least| seen.bytes().map(redis_content).chain(vectors).fold(least, Release::max));
    let highest = databases.iter().map(|database| database.index).max().unwrap_or(0);
    Minimum { redis: redis.map(text), valkey: valkey(version).map(text), databases: highest.saturating_add(1), modules: modules.to_vec() }
}

fn text((major, minor): Release) -> String {
    format!("{major}.{minor}")
}

/// The least Redis that takes the version of the format.
fn redis(version: Version) -> Option<Release> {
    match (version.dialect, version.number) {
        (Dialect::Redis, 0..=6) => Some((2, 8)),
        (Dialect::Redis, 7) => Some((3, 2)),
        (Dialect::Redis, 8) => Some((4, 0)),
        (Dialect::Redis, 9) => Some((5, 0)),
        (Dialect::Redis, 10) => Some((7, 0)),
        (Dialect::Redis, 11) => Some((7, 2)),
        (Dialect::Redis, 12) => Some((7, 4)),
        (Dialect::Redis, _) | (Dialect::Valkey, _) => None,
    }
}

/// The least Valkey that takes the version of the format, and with it all that is followed under that.
fn valkey(version: Version) -> Option<Release> {
    match (version.dialect, version.number) {
        (Dialect::Redis, 0..=11) => Some(FIRST_VALKEY),
        (Dialect::Valkey, 80) => Some((9, 0)),
        (Dialect::Valkey, 81) => Some((9, 2)),
        (Dialect::Redis, _) | (Dialect::Valkey, _) => None,
    }
}

/// The least Redis that knows the opcode or type; the oldest one where every release does.
fn redis_content(byte: u8) -> Release {
    match byte {
        14 | 250 | 251 => (3, 2),
        5 | 7 => (4, 0),
        15 | 247..=249 => (5, 0),
        16..=19 | 245 => (7, 0),
        20 | 21 => (7, 2),
        22..=25 | 244 => (7, 4),
        _ => (2, 8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version, first bytes, modules; Redis and Valkey.
    type Case = (u16, &'static [u8], &'static [&'static str], Option<&'static str>, Option<&'static str>);

    fn of(dialect: Dialect, number: u16, bytes: &[u8], modules: &[&str]) -> (Option<String>, Option<String>) {
        let mut seen = Seen::default();
        bytes.iter().for_each(|byte| seen.add(*byte));
        let modules: Vec<String> = modules.iter().map(|name| (*name).to_owned()).collect();
        let minimum = minimum(Version { dialect, number }, &seen, &[], &modules);
        assert_eq!((minimum.databases, minimum.modules), (1, modules));
        (minimum.redis, minimum.valkey)
    }

    #[test]
    fn releases() {
        // Goal: the later of what the version and what the content needs, by family. Method: a table.
        let table: [Case; 14] = [
            (5, &[0, 1], &[], Some("2.8"), Some("7.2")),
            (6, &[250], &[], Some("3.2"), Some("7.2")),
            (7, &[14], &[], Some("3.2"), Some("7.2")),
            (8, &[5, 7], &["ReJSON-RL"], Some("4.0"), Some("7.2")),
            (9, &[0, 4, 10, 15, 248, 255], &[], Some("5.0"), Some("7.2")),
            (9, &[0, 16], &[], Some("7.0"), Some("7.2")),
            (9, &[21, 0], &[], Some("7.2"), Some("7.2")),
            (10, &[18, 245], &[], Some("7.0"), Some("7.2")),
            (11, &[], &[], Some("7.2"), Some("7.2")),
            (12, &[24, 244], &[], Some("7.4"), None),
            (12, &[7], &["vectorset"], Some("8.0"), None),
            (13, &[], &[], None, None),
            (80, &[], &[], None, None),
            (0, &[], &[], Some("2.8"), Some("7.2")),
        ];
        for (number, bytes, modules, redis, valkey) in table {
            assert_eq!(of(Dialect::Redis, number, bytes, modules), (redis.map(str::to_owned), valkey.map(str::to_owned)), "{number} {bytes:?}");
        }
        assert_eq!(of(Dialect::Valkey, 80, &[22, 243], &[]), (None, Some("9.0".to_owned())));
        assert_eq!(of(Dialect::Valkey, 81, &[], &[]), (None, Some("9.2".to_owned())));
        assert_eq!(of(Dialect::Valkey, 82, &[], &[]), (None, None));
        assert_eq!(of(Dialect::Valkey, 11, &[], &[]), (None, None));
    }
}
