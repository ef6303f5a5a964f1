//! Links to files of backups: whoever has one reads one file, for a short time, without a token.
//!
//! Owns the form of a link and its signature. Knows nothing of what the files hold, nor of who may have a link.
//!
//! ```text
//! <origin>/redkeep/v1/downloads/<backup>/<file>?expires=<seconds since 1970>&subject=<who asked>&signature=<hexadecimal>
//! ```
//!
//! The signature is an HMAC-SHA256 over all that stands before it, each part behind its length, so that no part can lend a byte to
//! its neighbour. The subject is in it because each use of a link is written to the audit log under the name of who asked for it.

use crate::backup::BackupId;
use crate::cluster::Timestamp;
use aws_lc_rs::{hmac, rand};
use chrono::DateTime;
use std::fmt;
use std::time::Duration;

/// How long a link lives.
pub const LIFE: Duration = Duration::from_secs(15 * 60);

/// What the path of every link begins with.
pub const PREFIX: &str = "/redkeep/v1/downloads/";

/// Longest query of a link, in bytes; a subject of [`SUBJECT_BYTES`] fits when each of them is escaped.
const QUERY_BYTES: usize = 4096;

/// Longest subject that is named in a link, in bytes; what is longer is cut.
const SUBJECT_BYTES: usize = 1024;

/// Longest name of a file, in bytes.
const FILE_BYTES: usize = 255;

/// Length of a key, in bytes.
const KEY_BYTES: usize = 32;

/// What a signature is made for, beside the link: a new form gets a new number.
const PURPOSE: &str = "redkeep download 1";

/// What a link stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The backup.
    pub backup: BackupId,
    /// Name of the file in it.
    pub file: String,
    /// Who asked for the link.
    pub subject: String,
    /// When it ends, in whole seconds.
    pub expires_at: Timestamp,
}

/// Why a link is not honoured. It does not tell whether there is such a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is none of ours, or no longer what it was.
    #[error("this link was altered, or was made by a service with another key; ask for a new one")]
    Altered,
    /// Its time is over.
    #[error("this link has ended; ask for a new one")]
    Ended,
}

/// Makes links and tells whether one is genuine. Never printed.
pub struct Signer {
    key: hmac::Key,
    origin: String,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.origin)
    }
}

impl Signer {
    /// A signer with this key, of links that begin with `origin`, as in `https://localhost:7379`. Processes with the same key
    /// honour each other's links.
    pub fn new(key: &[u8; KEY_BYTES], origin: String) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key), origin }
    }

    /// A signer with a key that nobody else has: its links end with it.
    ///
    /// # Errors
    ///
    /// When the system gives no random bytes.
    pub fn random(origin: String) -> Result<Self, &'static str> {
        let mut key = [0; KEY_BYTES];
        rand::fill(&mut key).map_err(|_| "the system gives no random bytes")?;
        Ok(Self::new(&key, origin))
    }

    /// The link as a client follows it. It is a secret.
    pub fn url(&self, backup: BackupId, file: &str, subject: &str, expires_at: Timestamp) -> String {
        let mut end = subject.len().min(SUBJECT_BYTES);
        while !subject.is_char_boundary(end) {
            end -= 1;
        }
        let link = Link { backup, file: file.to_owned(), subject: subject[..end].to_owned(), expires_at };
        let expires = link.expires_at.timestamp().to_string();
        let signature = hex(hmac::sign(&self.key, &signed(&link)).as_ref());
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("expires", &expires).append_pair("subject", &link.subject).append_pair("signature", &signature);
        format!("{}{PREFIX}{backup}/{file}?{}", self.origin, query.finish())
    }

    /// What a link stands for that is asked for with this path and query at this time.
    ///
    /// # Errors
    ///
    /// [`Refused`], by condition; all that is not signed is altered.
    pub fn read(&self, path: &str, query: &str, now: Timestamp) -> Result<Link, Refused> {
        let (link, signature) = parse(path, query).ok_or(Refused::Altered)?;
        hmac::verify(&self.key, &signed(&link), &signature).map_err(|_| Refused::Altered)?;
        if link.expires_at <= now { Err(Refused::Ended) } else { Ok(link) }
    }
}

/// The bytes that are signed for a link.
fn signed(link: &Link) -> Vec<u8> {
    let (backup, expires) = (link.backup.to_string(), link.expires_at.timestamp().to_string());
    let mut bytes = Vec::new();
    for part in [PURPOSE, &backup, &link.file, &link.subject, &expires] {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes
}

/// Takes a link apart: each of its parts once, and nothing else.
fn parse(path: &str, query: &str) -> Option<(Link, Vec<u8>)> {
    let (backup, file) = path.strip_prefix(PREFIX)?.split_once('/')?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if query.len() > QUERY_BYTES || file.is_empty() || file.len() > FILE_BYTES || !file.chars().all(is_plain) {
        return None;
    }
    let (mut expires, mut subject, mut signature) = (None, None, None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let place = match &*name {
            "expires" => &mut expires,
            "subject" => &mut subject,
            "signature" => &mut signature,
            _ => return None,
        };
        if place.replace(value.into_owned()).is_some() {
            return None;
        }
    }
    let expires_at = DateTime::from_timestamp(expires?.parse().ok()?, 0)?;
    let link = Link { backup: backup.parse().ok()?, file: file.to_owned(), subject: subject?, expires_at };
    Some((link, unhex(&signature?)?))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 2 * KEY_BYTES {
        return None;
    }
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    Some(digits?.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    fn split(url: &str) -> (&str, &str) {
        url.strip_prefix("https://host:1").unwrap().split_once('?').unwrap()
    }

    #[test]
    fn a_link_is_honoured_as_it_was_made_and_until_it_ends() {
        let signer = Signer::new(&[1; KEY_BYTES], "https://host:1".into());
        let backup = BackupId::new();
        for subject in ["anonymous", "a b&c=d", "é@example", ""] {
            let url = signer.url(backup, "shard1-0.rdb.zst", subject, at(1000));
            let (path, query) = split(&url);
            let link = Link { backup, file: "shard1-0.rdb.zst".into(), subject: subject.into(), expires_at: at(1000) };
            assert_eq!(signer.read(path, query, at(999)), Ok(link));
            assert_eq!(signer.read(path, query, at(1000)), Err(Refused::Ended));
            assert_eq!(Signer::new(&[2; KEY_BYTES], String::new()).read(path, query, at(999)), Err(Refused::Altered));
            assert_eq!(Signer::random(String::new()).unwrap().read(path, query, at(999)), Err(Refused::Altered));
        }
        let long = signer.url(backup, "f", &"é".repeat(10_000), at(1000));
        let (path, query) = split(&long);
        assert_eq!(signer.read(path, query, at(1)).unwrap().subject.len(), SUBJECT_BYTES);
    }

    #[test]
    fn every_change_of_a_link_is_seen() {
        let signer = Signer::new(&[1; KEY_BYTES], "https://host:1".into());
        let url = signer.url(BackupId::new(), "shard1-0.rdb.zst", "someone", at(1000));
        let (path, query) = split(&url);
        // A change of the case of a digit is none: both spell the same number.
        for (index, _) in url.char_indices().skip("https://host:1".len()) {
            for other in ["x", "/", "%", "&", "0", ""] {
                let changed = format!("{}{other}{}", &url[..index], &url[index + 1..]);
                let Some((path, query)) = changed["https://host:1".len()..].split_once('?') else { continue };
                assert!(changed == url || signer.read(path, query, at(1)).is_err(), "{changed}");
            }
        }
        for more in ["&expires=99999", "&a=b", "&signature=", "&subject=someone"] {
            assert_eq!(signer.read(path, &format!("{query}{more}"), at(1)), Err(Refused::Altered), "{more}");
        }
        let other = path.replace("shard1-0", "shard2-0");
        for path in [other.as_str(), "/redkeep/v1/downloads/", "/redkeep/v1/downloads/x/y", "", &format!("{path}/more"), &path.replace("shard1", "../shard1")] {
            assert_eq!(signer.read(path, query, at(1)), Err(Refused::Altered), "{path}");
        }
        assert_eq!(signer.read(path, &"a".repeat(QUERY_BYTES + 1), at(1)), Err(Refused::Altered));
    }

    #[test]
    fn parts_lend_nothing_to_their_neighbours() {
        let link = |file: &str, subject: &str| Link { backup: BackupId::from_bytes([0; 16]), file: file.into(), subject: subject.into(), expires_at: at(1) };
        assert_ne!(signed(&link("ab", "c")), signed(&link("a", "bc")));
    }

    #[test]
    fn a_signer_does_not_print_its_key() {
        assert_eq!(format!("{:?}", Signer::new(&[1; KEY_BYTES], "https://host:1".into())), "Signer(https://host:1)");
    }
}
