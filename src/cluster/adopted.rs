//! A cluster that was made known through the API, as it is recorded.

use super::policy::Plan;
use super::{ClusterId, FolderId, LocalServers, Timestamp};
use crate::secrets::Sealed;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The record of a cluster that was adopted. No secret is in it but sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// Its identifier.
    pub id: ClusterId,
    /// Its folder.
    pub folder_id: FolderId,
    /// Its name.
    pub name: String,
    /// For a person.
    pub description: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Zone, which only some processes may serve.
    pub zone: Option<String>,
    /// When its adoption was accepted.
    pub created_at: Timestamp,
    /// Whether a primary that has replicas may be the source.
    pub allow_primary: bool,
    /// How it is reached.
    pub connection: Connection,
    /// Whether its adoption is under way: the record goes if that fails.
    pub is_adopting: bool,
    /// When its backups are taken by themselves, and how long they are kept.
    #[serde(default)]
    pub plan: Plan,
    /// Its servers, where we have started them ourselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<LocalServers>,
}

impl Adopted {
    /// Longest record, as JSON, in bytes: a row of the store has room for it.
    pub const BYTES: usize = 60 << 10;

    /// Length of the record as JSON, in bytes.
    pub fn bytes(&self) -> usize {
        serde_json::to_vec(self).map_or(usize::MAX, |json| json.len())
    }
}

/// How the hosts of an adopted cluster are reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Servers as `host:port`; any one is enough.
    pub nodes: Vec<String>,
    /// ACL user.
    pub username: Option<String>,
    /// Password; none is sent when it is absent.
    pub password: Option<Sealed>,
    /// Whose certificates count; absent for hosts that speak plain text.
    pub trust: Option<Trust>,
}

/// Which certificates of hosts are believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// Those that the system's authorities signed.
    System,
    /// Those that one of these signed, in PEM.
    Authorities(String),
}
