//! What a cluster's backups are to be by themselves: when they are taken, and how long they are kept.
//!
//! Owns the settings as they are recorded. On which days a plan falls due is [`calendar`](super::calendar)'s business, and what
//! is done then is `schedule`'s.

use super::{Adopted, ClusterId, Timestamp};
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

/// Most retention policies of a cluster.
pub const POLICIES: usize = 16;

/// Most days that a scheduled backup may be kept, if it is not kept for ever.
pub const RETAIN_DAYS: u32 = 3650;

/// Longest name of a policy, in characters.
pub const POLICY_NAME_CHARS: usize = 63;

/// Longest description of a policy, in characters.
pub const POLICY_DESCRIPTION_CHARS: usize = 256;

/// Minute of the day at which backups by a policy begin where the cluster has no window: 22:00.
pub const DEFAULT_WINDOW: u16 = 22 * 60;

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

/// A new value of something that may be off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Setting<T> {
    /// It is off from here on.
    Off,
    /// It is this from here on.
    To(T),
}

impl<T> Setting<T> {
    /// The value, if it is not off.
    pub fn value(self) -> Option<T> {
        match self {
            Self::Off => None,
            Self::To(value) => Some(value),
        }
    }
}

/// Changes to what is told of a cluster; an absent one leaves the field as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterChanges {
    /// A new name; empty for the identifier.
    pub name: Option<String>,
    /// A new description.
    pub description: Option<String>,
    /// New labels, all of them.
    pub labels: Option<BTreeMap<String, String>>,
    /// A new begin of the window of the daily backup.
    pub window_start: Option<Setting<u16>>,
    /// New days that scheduled backups are kept.
    pub retain_days: Option<Setting<u32>>,
}

impl ClusterChanges {
    /// Applies them to the record of a cluster. What they do not name stays as it is there.
    pub fn apply(&self, row: &mut Adopted) {
        if let Some(name) = &self.name {
            row.name = if name.is_empty() { row.id.to_string() } else { name.clone() };
        }
        if let Some(description) = &self.description {
            row.description = description.clone();
        }
        if let Some(labels) = &self.labels {
            row.labels = labels.clone();
        }
        if let Some(window_start) = self.window_start {
            row.plan.window_start = window_start.value();
        }
        if let Some(retain_days) = self.retain_days {
            row.plan.retain_days = retain_days.value();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_survive_being_stored() {
        for changes in [
            ClusterChanges::default(),
            ClusterChanges { window_start: Some(Setting::Off), retain_days: Some(Setting::To(7)), ..ClusterChanges::default() },
            ClusterChanges { window_start: Some(Setting::To(0)), retain_days: Some(Setting::Off), name: Some(String::new()), ..ClusterChanges::default() },
        ] {
            let stored = serde_json::to_string(&changes).unwrap();
            assert_eq!(serde_json::from_str::<ClusterChanges>(&stored).unwrap(), changes);
        }
    }
}
