//! What a target has after loading, beside what the manifest says.

use super::Error;
use crate::rdb::Summary;
use crate::redis;
use crate::redis::connection::Connection;
use std::collections::BTreeMap;

/// Most databases of a target that are looked at.
const DATABASES: usize = 65_536;

/// Most differences that are told.
const TOLD: usize = 4;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Keys that the target has.
    pub keys: u64,
    /// Keys that have expired since the backup, so that they are not there.
    pub expired: u64,
}

/// Asks for the keys of each database, and compares.
pub(super) async fn compare(control: &mut Connection, walk: &Summary) -> Result<Found, Error> {
    let reply = control.call(&[b"INFO", b"keyspace"]).await?;
    let text = reply.text().ok_or_else(|| redis::Error::Protocol { host: control.host().to_owned(), what: "an odd reply to INFO".to_owned() })?;
    judge(&read(&text), walk).map_err(|what| Error::Differs(format!("{} does not have what the backup has: {what}", control.host())))
}

/// Keys by database.
fn read(info: &str) -> BTreeMap<u32, u64> {
    let database = |line: &str| {
        let (name, fields) = line.trim_end().split_once(':')?;
        let keys = fields.split(',').find_map(|field| field.strip_prefix("keys="))?;
        Some((name.strip_prefix("db")?.parse().ok()?, keys.parse().ok()?))
    };
    info.lines().filter_map(database).take(DATABASES).collect()
}

fn judge(has: &BTreeMap<u32, u64>, walk: &Summary) -> Result<Found, String> {
    let keys = has.values().fold(0_u64, |sum, keys| sum.saturating_add(*keys));
    if walk.opaque.is_some() {
        // What the dump holds is not known, so there is nothing to compare with.
        return Ok(Found { keys, expired: 0 });
    }
    let (mut expired, mut differences) = (0, Vec::new());
    for database in &walk.databases {
        let present = has.get(&database.index).copied().unwrap_or(0);
        match database.keys.checked_sub(present) {
            // A key whose time is over may be left out by whoever loads it.
            Some(missing) if missing <= database.expiring => expired += missing,
            Some(_) | None => differences.push(format!("database {} has {present} keys instead of {}", database.index, database.keys)),
        }
    }
    for (index, present) in has {
        if *present > 0 && !walk.databases.iter().any(|database| database.index == *index) {
            differences.push(format!("database {index} has {present} keys instead of none"));
        }
    }
    if differences.is_empty() {
        return Ok(Found { keys, expired });
    }
    let more = differences.len().saturating_sub(TOLD);
    let told = differences.into_iter().take(TOLD).collect::<Vec<_>>().join(", ");
    Err(if more > 0 { format!("{told}, and {more} further differences") } else { told })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]
    use super::*;
    use crate::rdb::Walker;

    /// Two databases: 3 keys of which one expires, and one key.
    fn walk() -> Summary {
        let mut bytes = b"REDIS0009".to_vec();
        bytes.extend_from_slice(b"\xfe\x00");
        bytes.extend_from_slice(b"\xfc\x00\x00\x00\x00\x00\x7f\x00\x00\x00\x01a\x01x");
        bytes.extend_from_slice(b"\x00\x01b\x01x\x00\x01c\x01x\xfe\x07\x00\x01d\x01x\xff");
        bytes.extend_from_slice(&[0; 8]);
        let mut walker = Walker::new();
        walker.feed(&bytes).unwrap();
        walker.finish().unwrap()
    }

    #[test]
    fn only_time_explains_a_difference() {
        let of = |info: &str| judge(&read(info), &walk());
        assert_eq!(of("# Keyspace\r\ndb0:keys=3,expires=1,avg_ttl=0\r\ndb7:keys=1,expires=0\r\n"), Ok(Found { keys: 4, expired: 0 }));
        assert_eq!(of("db0:keys=2,expires=0\r\ndb7:keys=1\r\n"), Ok(Found { keys: 3, expired: 1 }));
        for (info, what) in [
            ("db0:keys=1\r\ndb7:keys=1\r\n", "database 0 has 1 keys instead of 3"),
            ("db0:keys=3\r\n", "database 7 has 0 keys instead of 1"),
            ("db0:keys=4\r\ndb7:keys=1\r\n", "database 0 has 4 keys instead of 3"),
            ("db0:keys=3\r\ndb7:keys=1\r\ndb9:keys=2\r\n", "database 9 has 2 keys instead of none"),
        ] {
            assert_eq!(of(info), Err(what.to_owned()), "{info}");
        }
    }
}
