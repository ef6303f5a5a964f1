//! What a cluster's backups are to be by themselves: when they are taken, and how long they are kept.
//!
//! Owns the settings as they are recorded. When a plan falls due is `schedule`'s business.

use super::{ClusterId, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// When the daily backup of a cluster begins, and how long scheduled backups are kept. All is off unless it is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Minute of the day, 0 to 1439, at which the window of the daily backup begins; none is taken when it is absent.
    pub window_start: Option<u16>,
    /// Days that scheduled backups are kept, 1 to 3650; for ever when absent.
    pub retain_days: Option<u32>,
    /// Scheduled backups that are kept beyond their age, the newest ones.
    pub keep_last: Option<u32>,
}

/// Names a retention policy of a cluster.
pub type PolicyId = String;

/// A rule by which backups are taken on certain days and kept for a time of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Its identifier.
    pub id: PolicyId,
    /// The cluster.
    pub cluster_id: ClusterId,
    /// Its name, unique in the cluster.
    pub name: String,
    /// For a person.
    pub description: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// The minutes, hours, days of the month, months and days of the week on which it takes a backup, as crontab has them. Where
    /// minute and hour are empty it is the window of the daily backup.
    pub cron: [String; 5],
    /// Days that its backups are kept.
    pub retain_days: u32,
}

/// Changes to what is told of a cluster; an absent one leaves the field as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterChanges {
    /// A new name.
    pub name: Option<String>,
    /// A new description.
    pub description: Option<String>,
    /// New labels, all of them.
    pub labels: Option<BTreeMap<String, String>>,
    /// A new plan.
    pub plan: Option<Plan>,
}
