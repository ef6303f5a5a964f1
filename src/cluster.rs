//! A cluster, its hosts and shards, and the identifiers of both.
//!
//! Owns the rules for identifiers that become parts of storage paths. Knows nothing of connections: how a host is reached
//! and asked is the `redis` room's business.

mod adopted;
pub mod calendar;
mod local;
pub mod policy;
mod shards;
pub mod window;

pub use adopted::{Adopted, Connection, Trust};
pub use local::{LocalHost, LocalServers};
pub use shards::{SHARDS, ShardNames};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// An instant, in UTC.
pub type Timestamp = DateTime<Utc>;

/// Why a text is no identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Nothing was given.
    #[error("must not be empty")]
    Empty,
    /// Longer than the limit, in characters.
    #[error("must have at most {0} characters")]
    TooLong(usize),
    /// A character outside the alphabet, or a dash in front.
    #[error("must consist of lower-case letters, digits and dashes and begin with a letter or digit")]
    Alphabet,
}

/// Longest identifier of a cluster or folder, in characters.
pub const ID_CHARS: usize = 50;

fn check_id(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.chars().count() > ID_CHARS {
        return Err(IdError::TooLong(ID_CHARS));
    }
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !text.chars().all(legal) || text.starts_with('-') {
        return Err(IdError::Alphabet);
    }
    Ok(())
}

macro_rules! slug {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text form.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                check_id(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

slug! {
    /// Names a cluster: 1 to 50 characters of `[a-z0-9][a-z0-9-]*`. Part of storage paths.
    ClusterId
}
slug! {
    /// Names a folder, the tenant: the same rule as a cluster's id. Part of storage paths.
    FolderId
}

slug! {
    /// Names a bucket that exports may go to: the same rule as a cluster's id.
    BucketName
}

impl ClusterId {
    /// An identifier that nobody gave: a UUID of version 7.
    pub fn made_up() -> Self {
        Self(uuid::Uuid::now_v7().to_string())
    }
}

/// What a host is to its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Not known: the host has not answered yet.
    Unknown,
    /// Takes writes. (`master` in the words of the servers.)
    Primary,
    /// Follows a primary.
    Replica,
}

/// What the last probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Never probed.
    Unknown,
    /// Answers and is fit for work.
    Alive,
    /// Answers, but is loading, or is a replica without its primary; of a cluster: some host is not alive.
    Degraded,
    /// Does not answer, or not as a server that we may use.
    Dead,
}

/// The kind of machine that a cluster's servers run on, as the MemStore calls show it. Nothing is decided by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flavor {
    /// Its identifier.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Virtual processors.
    pub vcpu: u32,
    /// Memory, in GiB; absent while it is not known.
    pub memory_gib: Option<u32>,
}

impl Flavor {
    /// Name of the flavor of clusters that were not given one.
    pub const ADOPTED: &str = "adopted";

    /// Bytes in GiB, rounded up; `None` for zero, which means not known.
    pub fn gib(bytes: u64) -> Option<u32> {
        (bytes > 0).then(|| u32::try_from(bytes.div_ceil(1 << 30)).unwrap_or(u32::MAX))
    }
}

impl Default for Flavor {
    fn default() -> Self {
        Self { id: Self::ADOPTED.to_owned(), name: Self::ADOPTED.to_owned(), vcpu: 1, memory_gib: None }
    }
}

/// One server process as the last probe saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// `host:port`, or `unix:/path`.
    pub name: String,
    /// The shard that it belongs to.
    pub shard_name: String,
    /// What it is to that shard.
    pub role: Role,
    /// What the last probe found.
    pub health: Health,
    /// Memory that the server may use on its host, in bytes; zero when not known.
    pub memory_bytes: u64,
    /// `replica-priority` of a replica, when known.
    pub replica_priority: Option<i64>,
}

/// A cluster as reads show it: its definition with what the last probe saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Its identifier.
    pub id: ClusterId,
    /// The folder that it belongs to.
    pub folder_id: FolderId,
    /// When it was made known.
    pub created_at: Timestamp,
    /// Name, by default the id.
    pub name: String,
    /// What a person wrote about it.
    pub description: String,
    /// Labels.
    pub labels: std::collections::BTreeMap<String, String>,
    /// Health of the whole.
    pub health: Health,
    /// Engine and version of the primary, such as `7.0.15`; empty when not known.
    pub version: String,
    /// `redis` or `valkey`; empty when not known.
    pub engine: String,
    /// Hosts, sorted by name.
    pub hosts: Vec<Host>,
    /// When the probe ended; absent when there was none.
    pub probed_at: Option<Timestamp>,
    /// Whether connections to its hosts are secured.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tls_enabled: bool,
    /// Whether its adoption is under way.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_adopting: bool,
    /// Whether its servers run in cluster mode, as far as any answered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cluster_mode: bool,
    /// Minute of the day in UTC at which the window of its daily backup begins, as it is next to come; absent when none is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_window_start: Option<u16>,
    /// Days that its scheduled backups are kept; for ever when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_retain_days: Option<u32>,
    /// Whether its servers, which we have started, keep no log of changes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keeps_no_log: bool,
}

impl View {
    /// Memory of its primary in bytes, or of its largest host where no primary is known; zero when not known.
    pub fn memory_bytes(&self) -> u64 {
        let primary = self.hosts.iter().find(|host| host.role == Role::Primary).map(|host| host.memory_bytes).filter(|bytes| *bytes > 0);
        primary.or_else(|| self.hosts.iter().map(|host| host.memory_bytes).max()).unwrap_or(0)
    }
}

/// Name of the only shard of a cluster that is not in cluster mode.
pub const ONLY_SHARD: &str = "shard1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_up_identifier_follows_the_rule() {
        assert_eq!(check_id(ClusterId::made_up().as_str()), Ok(()));
    }

    #[test]
    fn identifiers_follow_the_rule() {
        for (text, expected) in [
            ("a", Ok(())),
            ("0-a", Ok(())),
            (&"a".repeat(50), Ok(())),
            ("", Err(IdError::Empty)),
            (&"a".repeat(51), Err(IdError::TooLong(50))),
            ("-a", Err(IdError::Alphabet)),
            ("A", Err(IdError::Alphabet)),
            ("a/b", Err(IdError::Alphabet)),
            ("..", Err(IdError::Alphabet)),
        ] {
            assert_eq!(text.parse::<ClusterId>().map(|_| ()), expected, "{text}");
        }
    }
}
