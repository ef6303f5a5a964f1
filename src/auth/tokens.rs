//! The token file: who may log in with which token, as SHA-256 digests. The tokens themselves are written down nowhere.
//!
//! Owns the form of tokens and of the file. A token has 256 random bits, so a plain digest of it can neither be guessed nor
//! turned round, and finding an entry by its digest tells nothing by the time it takes.
//!
//! ```text
//! # SHA-256 of the token, in hexadecimal    subject  roles by folder          created               expires
//! 5e88489...                                alice    shop=editor,news=viewer  2026-11-21T10:00:00Z  2027-02-19T10:00:00Z
//! 9f86d08...                                backup   *=editor                 2026-11-21T10:00:00Z  never
//! ```

mod edit;

pub use edit::{EditError, Which, create, list, revoke};

use super::{Identity, Roles, SUBJECT_CHARS};
use crate::cluster::Timestamp;
use aws_lc_rs::{digest, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, SecondsFormat};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

/// Longest token file, in bytes.
pub(super) const FILE_BYTES: u64 = 4 * 1024 * 1024;

/// Most tokens in one file.
pub const TOKENS: usize = 10_000;

/// How a token of a file begins.
pub const PREFIX: &str = "rk_";

/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;

/// Digits of a digest that name a token where people read and type.
const ID_DIGITS: usize = 12;

/// The word for an expiry that never comes.
const NEVER: &str = "never";

/// SHA-256 of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of a token.
    pub fn of(token: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
        Self(bytes)
    }

    /// Reads 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 64 {
            return None;
        }
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digit = |c: u8| char::from(c).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            *byte = digit(digits[0])? << 4 | digit(digits[1])?;
        }
        Some(Self(bytes))
    }

    /// 64 hexadecimal digits.
    pub fn hex(&self) -> String {
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

/// One token of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which token it is.
    pub digest: Digest,
    /// Who logs in with it, and what the subject may do.
    pub identity: Arc<Identity>,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is refused; `None` is never.
    pub expires_at: Option<Timestamp>,
}

impl Entry {
    /// The name of the token for people: the first digits of its digest.
    pub fn id(&self) -> String {
        self.digest.hex()[..ID_DIGITS].to_owned()
    }

    /// Whether it is refused at an instant.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// The line of the file.
    fn line(&self) -> String {
        let time = |at: &Timestamp| at.to_rfc3339_opts(SecondsFormat::Secs, true);
        let roles: Vec<String> = self.identity.roles.iter().map(|(folder, role)| format!("{folder}={role}")).collect();
        let expires_at = self.expires_at.as_ref().map_or_else(|| NEVER.to_owned(), time);
        format!("{} {} {} {} {expires_at}", self.digest.hex(), self.identity.subject, roles.join(","), time(&self.created_at))
    }
}

/// The tokens of a file.
#[derive(Debug, Default)]
pub struct Tokens {
    entries: Vec<Entry>,
    places: HashMap<Digest, usize>,
}

impl Tokens {
    /// Reads the content of a token file.
    ///
    /// # Errors
    ///
    /// What is wrong, with its line, in words that follow the file's name.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut tokens = Self::default();
        for (number, line) in lines(text) {
            let fault = |what: String| format!("has a fault in line {number}: {what}");
            let entry = entry(line).map_err(fault)?;
            if tokens.places.insert(entry.digest, tokens.entries.len()).is_some() {
                return Err(fault("the token stands in an earlier line already".to_owned()));
            }
            tokens.entries.push(entry);
            if tokens.entries.len() > TOKENS {
                return Err(fault(format!("a file holds at most {TOKENS} tokens")));
            }
        }
        Ok(tokens)
    }

    /// The token with this digest.
    pub fn find(&self, digest: &Digest) -> Option<&Entry> {
        self.places.get(digest).map(|place| &self.entries[*place])
    }
}

/// The lines that are neither empty nor a comment, with their numbers.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
}

fn entry(line: &str) -> Result<Entry, String> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let &[digest, subject, roles, created_at, expires_at] = fields.as_slice() else {
        return Err("it must have five parts: digest, subject, roles, created, expires".to_owned());
    };
    let digest = Digest::from_hex(digest).ok_or("the digest must be the SHA-256 of a token, as 64 hexadecimal digits")?;
    let subject = self::subject(subject)?;
    let pairs = roles.split(',').map(|pair| pair.split_once('=').ok_or("the roles must have the form FOLDER=ROLE,FOLDER=ROLE"));
    let roles = Roles::read(pairs.collect::<Result<Vec<_>, _>>()?).map_err(|fault| fault.to_string())?;
    let time = |field: &str, text: &str| {
        DateTime::parse_from_rfc3339(text).map(|at| at.to_utc()).map_err(|_| format!("{field} must be a time such as 2030-01-31T00:00:00Z"))
    };
    let created_at = time("created", created_at)?;
    let expires_at = if expires_at == NEVER { None } else { Some(time("expires", expires_at)?) };
    Ok(Entry { digest, identity: Arc::new(Identity { subject, roles }), created_at, expires_at })
}

/// Reads the name of a subject as it may stand in a token file.
///
/// # Errors
///
/// What it must be.
pub fn subject(text: &str) -> Result<String, String> {
    if (1..=SUBJECT_CHARS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err(format!("a subject must have 1 to {SUBJECT_CHARS} visible ASCII characters"))
    }
}

/// A token that nobody has yet.
///
/// # Errors
///
/// When the machine gives no random bytes.
fn generate() -> Result<String, EditError> {
    let mut bytes = [0; TOKEN_BYTES];
    rand::fill(&mut bytes).map_err(|_| EditError::Random)?;
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::auth::Role;

    const DIGEST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    #[test]
    fn a_file_is_read_as_it_is_written() {
        let text = format!("# tokens\n\n  # more\n{DIGEST} alice shop=editor,*=viewer 2026-11-21T10:00:00Z never\n");
        let tokens = Tokens::read(&text).unwrap();
        let entry = tokens.find(&Digest::of("test")).unwrap();
        assert_eq!((entry.identity.subject.as_str(), entry.id().as_str(), entry.expires_at), ("alice", "9f86d081884c", None));
        assert_eq!(entry.identity.roles.of(&"shop".parse().unwrap()), Some(Role::Editor));
        assert_eq!(entry.identity.roles.of(&"news".parse().unwrap()), Some(Role::Viewer));
        assert_eq!(entry.line(), format!("{DIGEST} alice *=viewer,shop=editor 2026-11-21T10:00:00Z never"));
        assert!(tokens.find(&Digest::of("Test")).is_none());
        assert!(Tokens::read("").unwrap().entries.is_empty());
    }

    #[test]
    fn an_expiry_is_the_first_instant_of_refusal() {
        let entry = entry(&format!("{DIGEST} a *=admin 2026-01-01T00:00:00Z 2026-01-02T01:00:00+01:00")).unwrap();
        let at = |text: &str| text.parse().unwrap();
        assert!(!entry.is_expired(at("2026-01-01T23:59:59Z")));
        assert!(entry.is_expired(at("2026-01-02T00:00:00Z")));
    }

    #[test]
    fn a_fault_names_its_line() {
        let long = "s".repeat(SUBJECT_CHARS + 1);
        for (line, words) in [
            ("nonsense", "five parts"),
            ("abc alice shop=editor 2026-11-21T10:00:00Z never", "64 hexadecimal digits"),
            (&format!("{}g alice shop=editor 2026-11-21T10:00:00Z never", &DIGEST[1..]), "64 hexadecimal digits"),
            (&format!("{DIGEST} {long} shop=editor 2026-11-21T10:00:00Z never"), "visible ASCII"),
            (&format!("{DIGEST} alice shop 2026-11-21T10:00:00Z never"), "FOLDER=ROLE"),
            (&format!("{DIGEST} alice shop=owner 2026-11-21T10:00:00Z never"), "a role must be"),
            (&format!("{DIGEST} alice shop=editor,shop=viewer 2026-11-21T10:00:00Z never"), "twice"),
            (&format!("{DIGEST} alice shop=editor yesterday never"), "created must be"),
            (&format!("{DIGEST} alice shop=editor 2026-11-21T10:00:00Z soon"), "expires must be"),
            (&format!("{DIGEST} alice shop=editor 2026-11-21T10:00:00Z never more"), "five parts"),
            (&format!("{DIGEST} a *=admin 2026-11-21T10:00:00Z never\n{DIGEST} b *=admin 2026-11-21T10:00:00Z never"), "earlier line"),
        ] {
            let fault = Tokens::read(&format!("# first\n{line}")).unwrap_err();
            let number = 1 + line.lines().count();
            assert!(fault.contains(words) && fault.contains(&format!("line {number}:")), "{line}: {fault}");
        }
        let many: String = (0..=TOKENS).map(|n| format!("{n:064x} a *=admin 2026-11-21T10:00:00Z never\n")).collect();
        assert!(Tokens::read(&many).unwrap_err().contains("at most 10000"));
    }

    #[test]
    fn tokens_are_long_and_differ() {
        let (one, other) = (generate().unwrap(), generate().unwrap());
        assert_ne!(one, other);
        assert!(one.starts_with(PREFIX) && one.len() == 46);
        assert_eq!(Digest::from_hex(&Digest::of(&one).hex()), Some(Digest::of(&one)));
    }
}
