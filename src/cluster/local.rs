//! The servers of a cluster that runs on this machine because we have started it, as they are recorded.
//!
//! Owns what is to be known of them before any of them is started. How they are started and kept up is the `local` room's
//! business.

use serde::{Deserialize, Serialize};

/// The servers of a cluster that we have started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalServers {
    /// Folder of the cluster: an absolute path, in which each server has one of its own.
    pub folder: String,
    /// The server program; empty until one is chosen.
    #[serde(default)]
    pub program: String,
    /// `redis` or `valkey`; empty until one is chosen.
    #[serde(default)]
    pub engine: String,
    /// Version of the program; empty until one is chosen.
    #[serde(default)]
    pub version: String,
    /// Whether they keep a log of changes on disk.
    pub persistent: bool,
    /// The servers, by shard and number.
    pub hosts: Vec<LocalHost>,
}

impl LocalServers {
    /// Name of the file with their password, in the folder of the cluster.
    pub const PASSWORD_FILE: &str = "password";
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalHost {
    /// Name of the shard that it was started for.
    pub shard_name: String,
    /// Its number in the shard, from 1; the first was started as the primary.
    pub number: u32,
    /// Its port; zero until one is chosen.
    #[serde(default)]
    pub port: u16,
}
