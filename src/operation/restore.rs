//! Where a restore goes, what of a backup it takes, and what it did.
//!
//! Owns what was asked for, as the record of the operation keeps it. How a dump reaches a server is `redis`' business.

use crate::backup::BackupId;
use crate::cluster::{ClusterId, Trust};
use crate::secrets::Sealed;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Where a restore goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// One host of a known cluster.
    Host {
        /// The cluster.
        cluster_id: ClusterId,
        /// The host's name, as the cluster shows it.
        host_name: String,
    },
    /// A server at an address, `host:port`, that the configuration allows.
    Address(String),
    /// A known cluster: each key goes to the shard whose it is.
    Cluster(ClusterId),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { cluster_id, host_name } => write!(f, "{cluster_id}/{host_name}"),
            Self::Address(address) => f.write_str(address),
            Self::Cluster(cluster_id) => cluster_id.fmt(f),
        }
    }
}

/// How a server at an address is logged in to. No secret is in it but sealed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// ACL user.
    pub username: Option<String>,
    /// Password; none is sent when it is absent.
    pub password: Option<Sealed>,
    /// Whose certificates count; absent for a server that speaks plain text.
    pub trust: Option<Trust>,
}

/// What is to become of a key that the target has already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conflict {
    /// The restore fails at it.
    #[default]
    Fail,
    /// It stays as it is.
    Skip,
    /// It is replaced.
    Replace,
}

/// What of a backup is written key by key, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// Databases, by number; none means all.
    pub databases: Vec<u32>,
    /// Patterns of names, as the command KEYS takes them; none means all.
    pub patterns: Vec<String>,
    /// Types, by the server's word; none means all.
    pub types: Vec<String>,
    /// What is to become of a key that is there already.
    pub on_conflict: Conflict,
    /// Whether nothing is written, only counted.
    pub dry_run: bool,
    /// Bytes of values a second; as fast as it goes when absent.
    pub bytes_per_second: Option<u64>,
}

/// How a dump reaches the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// As a whole: the target loads it as from a primary.
    Feed,
    /// Key by key.
    Keys(Keys),
}

/// A restore into servers that run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreTarget {
    /// Where to.
    pub place: Place,
    /// How a server at an address is logged in to.
    pub login: Login,
    /// The shard that is restored; absent where the backup has one, and for a restore by key of all.
    pub shard_name: Option<String>,
    /// Most keys that the target may hold before they go; absent where it must be empty.
    pub overwrite: Option<u64>,
    /// Whether the target may have replicas of its own, which follow it.
    pub allow_replicas: bool,
    /// How.
    pub method: Method,
}

/// What a restore did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreResult {
    /// The host or the cluster that was filled.
    pub host_name: String,
    /// Keys that were restored, or would be.
    pub keys: u64,
    /// Bytes of the dump.
    pub bytes: u64,
    /// Keys that were there already and stayed.
    pub skipped_keys: u64,
    /// Keys that were there already and were replaced.
    pub replaced_keys: u64,
    /// Keys whose expiry had passed; they were left out.
    pub expired_keys: u64,
    /// Libraries of functions restored.
    pub functions: u64,
    /// Restored keys by type, by the server's word.
    pub types: BTreeMap<String, u64>,
    /// Whether nothing was written, only counted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// What a restore has changed of a target, for whoever has to take it back: kept with the progress of the operation from attempt
/// to attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Host that the target was told to follow.
    pub feed_host: String,
    /// Its port.
    pub feed_port: u16,
    /// How the target received dumps before, where that was changed.
    pub diskless_load: Option<String>,
    /// Most keys that it held before, or was left with: all of them may go.
    pub keys: u64,
    /// Run id of the target, which changes with its start.
    pub run_id: String,
    /// What the target has loaded, once that was compared: then only the end is missing.
    pub result: Option<RestoreResult>,
    /// In which state it was left, in words; empty while that is not known.
    pub state: String,
}

/// How far a restore by key is, kept with the progress of the operation from attempt to attempt: where the next one goes on.
///
/// It reads the dumps of the shards one after another, some of them twice; each reading is a pass. Offsets are of the dump.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Number of the pass, from 0 on.
    pub pass: u32,
    /// What stands before this is written, and the target has said so.
    pub offset: u64,
    /// What stands behind this was not sent.
    pub sent: u64,
    /// What was done before the offset.
    pub result: RestoreResult,
}

impl Written {
    /// Whether more may have been sent than the other tells.
    pub(super) fn is_ahead_of(&self, other: Option<&Self>) -> bool {
        other.is_none_or(|other| (self.pass, self.sent) > (other.pass, other.sent))
    }
}

/// One server of a cluster that is to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPlan {
    /// Name of the shard that it belongs to.
    pub shard_name: String,
    /// Zone, as it was given.
    pub zone: String,
}

/// A cluster that is to be made of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterPlan {
    /// The backup.
    pub source: BackupId,
    /// Version of the engine that was asked for, such as `7.2`; any that fits when it is empty.
    pub version: String,
    /// Its servers, the first of each shard the primary.
    pub hosts: Vec<HostPlan>,
    /// Whether they are to keep a log of changes on disk.
    pub persistent: bool,
}
