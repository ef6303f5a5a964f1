//! Talking to a Redis or Valkey server: addresses, credentials, commands, and what its answers mean.
//!
//! Owns the connection and the reading of INFO. A server is not trusted: every reply has a limit, every wait has a time, and
//! its texts are cleaned before they are shown. Knows nothing of operations, storage or the wire.

pub mod cluster;
pub mod company;
pub mod connection;
pub mod drill;
pub mod engines;
pub mod facts;
pub mod feed;
pub mod keys;
pub mod local;
pub mod machine;
pub mod replication;
pub mod rights;
pub mod sentinel;
pub mod side;
pub mod source;
pub mod tls;
pub mod topology;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Longest wait for a connection to be made.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait for the reply to one command.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest silence of a server that is to send a snapshot; keep-alives end it.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// A host name or IP address, and a port.
    Tcp {
        /// Name or address; an IPv6 address without brackets.
        host: String,
        /// Port, never zero.
        port: u16,
    },
    /// A socket in the file system.
    Unix(PathBuf),
}

/// The text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be `host:port`, `[ipv6]:port` or `unix:/path`")]
pub struct BadAddress;

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') { Ok(Self::Unix(PathBuf::from(path))) } else { Err(BadAddress) };
        }
        let (host, port) = text.rsplit_once(':').ok_or(BadAddress)?;
        let port: u16 = port.parse().map_err(|_| BadAddress)?;
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inner) => inner.parse::<std::net::Ipv6Addr>().map_err(|_| BadAddress)?.to_string(),
            None if host.contains(':') => return Err(BadAddress),
            None => host.to_owned(),
        };
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if port == 0 || host.is_empty() || host.len() > 253 || !host.chars().all(legal) {
            return Err(BadAddress);
        }
        Ok(Self::Tcp { host, port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A password. Neither printed nor logged.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself, to be sent or sealed.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// How to log in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// ACL user; the server's default user when absent.
    pub username: Option<String>,
    /// Password; no AUTH is sent when absent.
    pub password: Option<Password>,
}

/// A server and how to log in to it.
#[derive(Clone, Debug)]
pub struct Target {
    /// The name by which people know it.
    pub name: String,
    /// Where it listens.
    pub address: Address,
    /// How to log in.
    pub credentials: Credentials,
    /// How the connection is secured; plain text when absent. A local socket is always plain.
    pub tls: Option<tls::Tls>,
}

/// What went wrong with a server. Every variant names it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It cannot be reached, or the connection was lost.
    #[error("{host} cannot be reached: {what}")]
    Unreachable {
        /// The server.
        host: String,
        /// Why.
        what: String,
    },
    /// It did not accept the credentials.
    #[error("{host} does not accept the credentials: {what}")]
    Credentials {
        /// The server.
        host: String,
        /// Its words.
        what: String,
    },
    /// It did not show a certificate that we believe, or did not believe ours.
    #[error("{host} cannot be trusted: {what}")]
    Certificate {
        /// The server.
        host: String,
        /// Why.
        what: String,
    },
    /// The account lacks a right.
    #[error("{host} lacks a right for the backup account: {what}")]
    Permission {
        /// The server.
        host: String,
        /// Which right, and how to give it.
        what: String,
    },
    /// It is loading, or without its primary, or too busy; another time it may answer.
    #[error("{host} is not ready: {what}")]
    NotReady {
        /// The server.
        host: String,
        /// Its words.
        what: String,
    },
    /// It could not save.
    #[error("{host} could not make a snapshot: {what}")]
    Save {
        /// The server.
        host: String,
        /// Its words.
        what: String,
    },
    /// It does not know what we ask, or not by this name.
    #[error("{host} cannot serve a snapshot: {what}")]
    Unsupported {
        /// The server.
        host: String,
        /// Its words.
        what: String,
    },
    /// What it is forbids it.
    #[error("{host} cannot be the source: {what}")]
    Role {
        /// The server.
        host: String,
        /// Why.
        what: String,
    },
    /// It answered against the protocol.
    #[error("{host} does not keep to the protocol: {what}")]
    Protocol {
        /// The server.
        host: String,
        /// How.
        what: String,
    },
}

impl Error {
    /// What an error reply (without its leading `-`) means.
    ///
    /// Source: the error texts of Redis and Valkey as replication clients meet them.
    pub fn from_reply(host: &str, reply: &str) -> Self {
        let host = host.to_owned();
        let what = clean(reply);
        let word = reply.split(' ').next().unwrap_or_default();
        let lower = reply.to_ascii_lowercase();
        match word {
            "NOAUTH" | "WRONGPASS" => Self::Credentials { host, what },
            "NOPERM" => Self::Permission { host, what: rights::told(&what, None) },
            "DENIED" => Self::Permission { host, what },
            "LOADING" | "MASTERDOWN" | "NOMASTERLINK" | "BUSY" | "TRYAGAIN" => Self::NotReady { host, what },
            _ if lower.contains("without any password configured") || lower.contains("invalid password") || lower.contains("no password is set") => {
                Self::Credentials { host, what }
            }
            _ if lower.contains("max number of clients") => Self::NotReady { host, what },
            _ if lower.contains("bgsave failed") || lower.contains("replication can't continue") => Self::Save { host, what },
            _ if lower.contains("unknown command") || lower.contains("disallowed") || lower.contains("disabled") => Self::Unsupported { host, what },
            _ => Self::Protocol { host, what },
        }
    }

    /// Whether the server answered that it will not do what it was asked.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Credentials { .. } | Self::Permission { .. } | Self::NotReady { .. } | Self::Unsupported { .. } | Self::Role { .. } => true,
            Self::Certificate { .. } | Self::Unreachable { .. } | Self::Save { .. } | Self::Protocol { .. } => false,
        }
    }

    /// Whether another attempt may succeed without anybody changing anything.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::NotReady { .. } | Self::Save { .. } | Self::Protocol { .. } => true,
            Self::Certificate { .. } | Self::Credentials { .. } | Self::Permission { .. } | Self::Unsupported { .. } | Self::Role { .. } => false,
        }
    }
}

/// Longest text of a server that is shown, in characters.
const SHOWN_CHARS: usize = 200;

/// A server's text made fit to be shown: no control characters, at most 200 characters.
pub fn clean(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_three_forms() {
        for text in ["127.0.0.1:6379", "redis-0.example:6379", "[::1]:6379", "unix:/run/redis.sock"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["", "a", ":1", "a:0", "a:65536", "::1:6379", "unix:run", "a b:1", "[x]:1", "user:pass@host:1"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_password_is_never_printed() {
        let credentials = Credentials { username: None, password: Some(Password::new("hunter2")) };
        assert!(!format!("{credentials:?}").contains("hunter2"));
    }

    #[test]
    fn replies_are_told_apart() {
        let of = |text: &str| Error::from_reply("h:1", text);
        assert!(matches!(of("NOAUTH Authentication required."), Error::Credentials { .. }));
        assert!(matches!(of("WRONGPASS invalid username-password pair or user is disabled."), Error::Credentials { .. }));
        assert!(matches!(of("LOADING Redis is loading the dataset in memory"), Error::NotReady { .. }));
        assert!(matches!(of("NOMASTERLINK Can't SYNC while not connected with my master"), Error::NotReady { .. }));
        assert!(matches!(of("ERR BGSAVE failed, replication can't continue"), Error::Save { .. }));
        assert!(matches!(of("ERR unknown command 'PSYNC', with args beginning with: "), Error::Unsupported { .. }));
        let Error::Permission { what, .. } = of("NOPERM User b has no permissions to run the 'psync' command") else { panic!() };
        assert_eq!(what, "it may not run PSYNC; allow it with the ACL rule +psync");
    }

    #[test]
    fn texts_are_cleaned() {
        assert_eq!(clean("a\r\n\u{1b}[31mb"), "a   [31mb");
        assert_eq!(clean(&"x".repeat(1000)).len(), SHOWN_CHARS);
    }
}
