//! Values on the command line that are more than text: each is read and checked here, before anything is sent.

use crate::config::Host;
use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use tonic::transport::Uri;

/// Where the service listens: `https://host:port`, or `http://host:port` in clear text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(Uri);

impl Address {
    /// The address as the transport takes it.
    pub fn uri(&self) -> Uri {
        self.0.clone()
    }

    /// Whether TLS is spoken there.
    pub fn is_tls(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }

    /// Whether what is sent there never leaves this machine.
    pub fn is_loopback(&self) -> bool {
        self.0.host().and_then(|host| host.parse::<Host>().ok()).is_some_and(|host| host.is_loopback())
    }

    /// The same place with the other scheme.
    pub(super) fn with_other_scheme(&self) -> String {
        let scheme = if self.is_tls() { "http" } else { "https" };
        format!("{scheme}://{}", self.0.authority().map_or("", |authority| authority.as_str()))
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = text.parse().map_err(|_| "expected a URL such as http://127.0.0.1:7379".to_owned())?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err("expected a URL that begins with https:// or http://".to_owned());
        }
        let host = uri.authority().map_or("", |authority| authority.as_str());
        if host.is_empty() || host.starts_with(':') {
            return Err("expected a host, as in http://127.0.0.1:7379".to_owned());
        }
        if host.contains('@') {
            return Err("a URL cannot carry a password here; log in with a token".to_owned());
        }
        if uri.path_and_query().is_some_and(|path| path.as_str() != "/") {
            return Err("expected a URL without a path".to_owned());
        }
        Ok(Self(uri))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.0.scheme_str().unwrap_or("http"), self.0.authority().map_or("", |authority| authority.as_str()))
    }
}

/// A secret to log in with. It is not shown in debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The secret itself; empty when the variable was set to nothing.
    pub fn secret(&self) -> &str {
        self.0.trim()
    }
}

impl From<String> for Token {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// When something ends by itself: a backup may be removed, a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expires {
    /// Not at all.
    Never,
    /// So long from the call.
    After(Duration),
    /// At an instant.
    At(DateTime<Utc>),
}

impl Expires {
    /// The instant, as seen from `now`; `None` is never.
    pub fn at(self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Self::Never => None,
            Self::After(duration) => now.checked_add_signed(chrono::Duration::from_std(duration).ok()?),
            Self::At(instant) => Some(instant),
        }
    }
}

impl FromStr for Expires {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "never" {
            return Ok(Self::Never);
        }
        if let Ok(date) = text.parse::<NaiveDate>() {
            return Ok(Self::At(date.and_time(NaiveTime::MIN).and_utc()));
        }
        if let Ok(instant) = DateTime::parse_from_rfc3339(text) {
            return Ok(Self::At(instant.to_utc()));
        }
        let expected = "expected a duration such as 30d, a date such as 2030-01-31, a time such as 2030-01-31T06:00:00Z, or never";
        let duration = humantime::parse_duration(text).map_err(|_| expected.to_owned())?;
        if duration > LONGEST_EXPIRY {
            return Err("expected a duration of at most 1000 years, or never".to_owned());
        }
        Ok(Self::After(duration))
    }
}

/// Longest duration taken, so that the instant is one that can be written down.
const LONGEST_EXPIRY: Duration = Duration::from_secs(1000 * 365 * 86400);

/// Reads a label, `key=value`; the value may be empty.
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some(("", _)) | None => Err("expected KEY=VALUE".to_owned()),
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
    }
}

/// Reads the first digits of a token's id.
pub(super) fn token_id(text: &str) -> Result<String, String> {
    if (8..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(text.to_owned())
    } else {
        Err("expected 8 to 64 hexadecimal digits, as `redkeep token list` shows them".to_owned())
    }
}

/// Reads a key that makes a call safe to repeat.
pub(super) fn idempotency_key(text: &str) -> Result<String, String> {
    if (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err("expected 1 to 128 visible ASCII characters".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, shown) in [
            ("http://127.0.0.1:7379", Ok("http://127.0.0.1:7379")),
            ("http://[::1]:7379/", Ok("http://[::1]:7379")),
            ("keep.example:80", Ok("http://keep.example:80")),
            ("https://keep.example", Ok("https://keep.example")),
            ("ftp://keep.example", Err("http://")),
            ("http://me:secret@keep.example", Err("token")),
            ("http://keep.example/api", Err("without a path")),
            ("", Err("expected")),
            ("http://", Err("expected")),
            ("http://:7379", Err("expected")),
            ("a b", Err("expected")),
        ] {
            match (text.parse::<Address>(), shown) {
                (Ok(address), Ok(shown)) => assert_eq!(address.to_string(), shown),
                (Err(fault), Err(part)) => assert!(fault.contains(part), "{text}: {fault}"),
                (outcome, _) => panic!("{text}: {outcome:?}"),
            }
        }
    }

    #[test]
    fn what_stays_on_this_machine() {
        for (text, expected) in [
            ("http://127.0.0.1:7379", true),
            ("http://localhost", true),
            ("https://[::1]:1", true),
            ("http://localhost.example", false),
            ("http://127.0.0.1.example", false),
            ("http://10.0.0.1:7379", false),
            ("http://0.0.0.0:7379", false),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().is_loopback(), expected, "{text}");
        }
    }

    #[test]
    fn expiries() {
        let now: DateTime<Utc> = "2030-01-01T00:00:00Z".parse().unwrap();
        for (text, instant) in [
            ("never", None),
            ("36h", Some("2030-01-02T12:00:00Z")),
            ("2030-02-01", Some("2030-02-01T00:00:00Z")),
            ("2030-02-01T03:00:00+03:00", Some("2030-02-01T00:00:00Z")),
        ] {
            let expires: Expires = text.parse().unwrap();
            assert_eq!(expires.at(now), instant.map(|instant| instant.parse().unwrap()), "{text}");
        }
        for text in ["", "30", "soon", "-1d", "2030-13-01", "2000y"] {
            assert!(text.parse::<Expires>().is_err(), "{text}");
        }
    }

    #[test]
    fn labels_and_keys() {
        assert_eq!(label("a="), Ok(("a".to_owned(), String::new())));
        assert!(label("=a").is_err());
        assert!(idempotency_key("release-41").is_ok());
        for key in ["", "two words", "é", &"k".repeat(129)] {
            assert!(idempotency_key(key).is_err(), "{key}");
        }
    }
}
