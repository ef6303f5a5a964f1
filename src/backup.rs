//! A backup: its row in the store, and the values that say how far it is proved.
//!
//! Owns names, states and levels. Knows nothing of bytes: what a dump holds is `rdb`'s business, where it lies is
//! `artifacts`'.

pub mod retention;

use crate::cluster::policy::Plan;
use crate::cluster::{ClusterId, Flavor, FolderId, Role, Timestamp, View};
use crate::failure::Failure;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// Makes a type of identifier whose text form is a UUID of version 7.
macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(uuid::Uuid);

        impl $name {
            /// Makes a fresh one; within a process each is greater than the one before.
            #[allow(clippy::new_without_default)]
            pub fn new() -> Self {
                Self(uuid::Uuid::now_v7())
            }

            /// The 16 bytes, whose order is the order of creation.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// The one with these bytes.
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(uuid::Uuid::from_bytes(bytes))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = NoSuchId;
            /// Takes the one text form that we give out: 36 characters, lower case.
            fn from_str(text: &str) -> Result<Self, NoSuchId> {
                let id = uuid::Uuid::try_parse(text).map_err(|_| NoSuchId)?;
                let id = Self(id);
                if id.to_string() == text { Ok(id) } else { Err(NoSuchId) }
            }
        }
    };
}
pub(crate) use uuid_id;

/// The text is no identifier that we ever gave out, so nothing can have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such identifier")]
pub struct NoSuchId;

uuid_id! {
    /// Names a backup: a UUID of version 7.
    BackupId
}

/// Name of a backup: 1 to 63 characters of `[a-zA-Z0-9][a-zA-Z0-9_.-]*`, unique in its folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// Longest name, in characters.
    pub const CHARS: usize = 63;

    /// A name for a backup whose caller gave none: `manual-` and 16 hexadecimal digits.
    pub fn made_up() -> Self {
        let random = Uuid::new_v4().as_u128() as u64;
        Self(format!("manual-{random:016x}"))
    }

    /// A name for a backup whose deletion is taken back when another has its own meanwhile: `undeleted-` and the last 16
    /// hexadecimal digits of its identifier.
    pub fn undeleted(id: BackupId) -> Self {
        let [.., a, b, c, d, e, f, g, h] = *id.as_bytes();
        Self(format!("undeleted-{:016x}", u64::from_be_bytes([a, b, c, d, e, f, g, h])))
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text cannot name a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must have 1 to 63 characters: letters, digits, `_`, `.` and `-`, the first a letter or digit")]
pub struct BadName;

impl FromStr for Name {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let first = text.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
        if first && text.len() <= Self::CHARS && text.chars().all(legal) { Ok(Self(text.to_owned())) } else { Err(BadName) }
    }
}

impl TryFrom<String> for Name {
    type Error = BadName;
    fn try_from(text: String) -> Result<Self, BadName> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Labels of a backup or cluster.
pub type Labels = BTreeMap<String, String>;

/// Where a backup stands in its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its operation has not ended.
    Creating,
    /// Whole and restorable.
    Available,
    /// Its operation failed; nothing is stored.
    Error(Failure),
    /// A person deleted it. Its files go at `purge_at`.
    Deleting {
        /// When its files may go.
        purge_at: Timestamp,
    },
}

/// Who asked for a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A schedule.
    Automated,
    /// A person or a program.
    Manual,
}

/// How far a backup is proved; each level includes the ones before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The transfer ended by the protocol's rules.
    Framed,
    /// The dump's own end mark stands and its checksum holds, or the source writes none.
    Sealed,
    /// Every record was walked, and the counts match the source's own where it tells them.
    Walked,
    /// A real server loaded it and counts matched.
    Loaded,
}

/// How the shards of one backup stand to one another in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// One instant: there is one shard.
    PointInTime,
    /// Each shard is of one instant; the instants differ by the skew.
    PerShard,
}

/// A person's wish that a backup stays, with the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Why, 1 to 256 characters; a backup has each reason once.
    pub reason: String,
    /// Who placed it.
    pub created_by: String,
    /// When.
    pub created_at: Timestamp,
}

/// Most holds on one backup.
pub const HOLDS: usize = 16;

/// State of the checksum inside a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Checksum {
    /// It was there and holds.
    Verified,
    /// The source writes none (`rdbchecksum no`).
    Absent,
}

/// Keys of one database of a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseCount {
    /// Number of the database.
    pub index: u64,
    /// Keys.
    pub keys: u64,
    /// Keys with an expiry.
    pub expiring: u64,
    /// Bytes of their records in the dump.
    pub bytes: u64,
}

/// One shard of a backup, as the row keeps it; the manifest in storage says more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// The shard's name.
    pub name: String,
    /// The host that the dump was taken from.
    pub source_host: String,
    /// What that host was.
    pub source_role: Role,
    /// `redis` or `valkey`.
    pub engine: String,
    /// Version of the source.
    pub engine_version: String,
    /// Version of the dump's format.
    pub rdb_version: u16,
    /// Bytes of the decoded dump.
    pub size_bytes: u64,
    /// Bytes as stored.
    pub stored_bytes: u64,
    /// SHA-256 of the stored segments, in hexadecimal; joined by commas where there are several.
    pub sha256: String,
    /// State of the dump's checksum.
    pub checksum: Checksum,
    /// How far it is proved.
    pub level: Level,
    /// Why the walk does not vouch for the content: the structure was not followed to the end, or the counts differ from the
    /// source's own; empty when it does.
    pub opaque_reason: String,
    /// Keys.
    pub keys: u64,
    /// Keys with an expiry.
    pub expiring: u64,
    /// Keys by database, at most [`Shard::DATABASES`] of them.
    pub databases: Vec<DatabaseCount>,
    /// Keys by type, by the server's word.
    pub types: BTreeMap<String, u64>,
    /// Libraries of functions.
    pub functions: u64,
    /// Replication id of the source's history.
    pub replication_id: String,
    /// Offset in that history at the snapshot.
    pub replication_offset: i64,
    /// `used_memory` of the source before the fork, in bytes.
    pub used_memory_bytes: u64,
    /// Length of the source's last fork, in microseconds, where it tells.
    pub fork_micros: Option<u64>,
    /// Memory copied on write by the save, in bytes, where the source tells.
    pub copy_on_write_bytes: Option<u64>,
    /// When the synchronisation was asked for.
    pub snapshot_started_at: Timestamp,
    /// When the source answered with the snapshot's position.
    pub snapshot_at: Timestamp,
    /// When the first byte arrived.
    pub upload_started_at: Timestamp,
    /// When storage had acknowledged all of it.
    pub upload_ended_at: Timestamp,
    /// Slots that the shard owned; empty outside of cluster mode.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slots: Vec<SlotRange>,
    /// Keys that lay outside of them.
    #[serde(default)]
    pub stray_keys: u64,
    /// What the snapshot cost its source.
    #[serde(default)]
    pub impact: Impact,
    /// What is needed to load it; absent where the walk could not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum: Option<Minimum>,
    /// Whether the side state lies beside it.
    #[serde(default)]
    pub side_state: bool,
    /// Slots that were on their way between shards while the snapshots were taken, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moves: Vec<String>,
}

/// A range of hash slots, from 0 to 16383, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SlotRange {
    /// First slot.
    pub first: u16,
    /// Last slot.
    pub last: u16,
}

/// What a snapshot cost its source, and why that one was chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Impact {
    /// Why this host was the source, in words.
    pub chosen_because: String,
    /// Seconds since the replica had heard from its primary when it was chosen; absent for a primary.
    pub lag_seconds: Option<u64>,
    /// Time from the choice of the source to the begin of its snapshot, in milliseconds.
    pub waited_millis: u64,
    /// What was waited for, each once, at most [`Impact::WAITS`].
    pub waited_for: Vec<String>,
    /// Bytes of the dump a second, from its first to its last.
    pub bytes_per_second: u64,
    /// Whether a replica of the source took part in the same synchronisation, and so depended on our pace.
    pub shared_round: bool,
}

impl Impact {
    /// Most waits that are kept.
    pub const WAITS: usize = 8;
}

/// What is needed to load a dump.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Minimum {
    /// Least version of Redis, such as `7.0`; absent when no known one can.
    pub redis: Option<String>,
    /// Least version of Valkey; absent when no known one can.
    pub valkey: Option<String>,
    /// Databases that the server must have.
    pub databases: u32,
    /// Modules that it must have loaded, by the names of their types.
    pub modules: Vec<String>,
}

impl Minimum {
    /// What is needed to load both.
    pub fn joined(self, other: Self) -> Self {
        let later = |one: Option<String>, other: Option<String>| Some(std::cmp::max_by_key(one?, other?, |version| numbers(version)));
        let mut modules = self.modules;
        modules.extend(other.modules.into_iter().filter(|name| !modules.contains(name)).collect::<Vec<_>>());
        Self { redis: later(self.redis, other.redis), valkey: later(self.valkey, other.valkey), databases: self.databases.max(other.databases), modules }
    }
}

/// A version as numbers, so that 7.10 comes after 7.2.
fn numbers(version: &str) -> Vec<u32> {
    version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

/// Why the source of a backup looked wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspicion {
    /// Each reason in words, one at least.
    pub reasons: Vec<String>,
    /// When it was raised.
    pub raised_at: Timestamp,
    /// Who cleared it, and when; absent while it stands.
    pub cleared: Option<Cleared>,
}

/// The end of a suspicion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cleared {
    /// Who.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// A proof of a backup: a real server loaded it, and what it then had was compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The level that was reached.
    pub level: Level,
    /// `redis` or `valkey`.
    pub engine: String,
    /// Version of the server.
    pub engine_version: String,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took, in milliseconds.
    pub duration_millis: u64,
    /// Keys that the server had after loading.
    pub keys: u64,
    /// Keys of which type, length and expiry were compared one by one.
    pub sampled_keys: u64,
    /// The operation that proved it.
    pub operation_id: String,
}

impl Shard {
    /// Most databases that a row keeps counts for; the manifest keeps more.
    pub const DATABASES: usize = 64;
}

/// What was known of the cluster when its backup was made. It stays, whatever becomes of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Name of the cluster.
    pub cluster_name: String,
    /// Whether it ran in cluster mode; absent while that is not known.
    pub cluster_mode: Option<bool>,
    /// The machines of its servers.
    pub flavor: Flavor,
}

impl Source {
    /// Adds what a look at the cluster tells and what is not known yet.
    pub fn learn(&mut self, view: &View) {
        if view.hosts.iter().any(|host| host.role != Role::Unknown) {
            self.cluster_mode.get_or_insert(view.cluster_mode);
        }
        self.flavor.memory_gib = self.flavor.memory_gib.or_else(|| Flavor::gib(view.memory_bytes()));
    }
}

/// The end of the time for which a scheduled backup is kept: days of 24 hours from the instant for which it was planned. `None` where
/// that is beyond what can be told.
pub fn kept_until(planned_at: Timestamp, days: u32) -> Option<Timestamp> {
    planned_at.checked_add_signed(chrono::TimeDelta::days(i64::from(days)))
}

/// The row of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// Its identifier.
    pub id: BackupId,
    /// The folder, the tenant.
    pub folder_id: FolderId,
    /// The cluster that it was taken from.
    pub cluster_id: ClusterId,
    /// What was known of that cluster; absent in rows of versions that did not keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Name, unique among the folder's backups that are not being deleted.
    pub name: Name,
    /// Labels.
    pub labels: Labels,
    /// Where it stands.
    pub state: State,
    /// Who asked for it.
    pub origin: Origin,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When its snapshot began; absent until then.
    pub started_at: Option<Timestamp>,
    /// When it became available; absent until then.
    pub completed_at: Option<Timestamp>,
    /// When it may be removed by itself; absent means never. That of a scheduled one follows the plan of its cluster: see
    /// [`Backup::expires`].
    pub expires_at: Option<Timestamp>,
    /// Whether that was changed by hand after it was made.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expiry_by_hand: bool,
    /// Wishes that it stays. It cannot be deleted while there is one.
    pub holds: Vec<Hold>,
    /// The operation that made it, in text form.
    pub operation_id: String,
    /// The operation that changes or makes it now, in text form: it cannot be changed or deleted meanwhile.
    pub busy: Option<String>,
    /// The operations that read its files now, in text form, at most [`Backup::READERS`]: it cannot be deleted meanwhile.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub readers: BTreeSet<String>,
    /// Whether its files are being removed: from then on nobody takes its deletion back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub purging: bool,
    /// When its deletion was taken back, the last time; absent when it never was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undeleted_at: Option<Timestamp>,
    /// Revision of the newest facts file in storage; 0 when there is none.
    pub facts_revision: u64,
    /// The attempt that made the files, which names their folder; absent until it is available.
    pub epoch: Option<u64>,
    /// How far it is proved: the least of its shards. Absent until it is available.
    pub level: Option<Level>,
    /// How its shards stand to one another.
    pub consistency: Option<Consistency>,
    /// Latest minus earliest snapshot of its shards, in milliseconds.
    pub skew_millis: u64,
    /// Bytes of the decoded dumps.
    pub size_bytes: u64,
    /// Bytes as stored.
    pub stored_bytes: u64,
    /// Compression of the artifacts, such as `zstd:1` or `none`.
    pub compression: String,
    /// Its shards, in order of name.
    pub shards: Vec<Shard>,
    /// Recipients that the artifacts are encrypted to with age; none means that they are not encrypted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub age_recipients: Vec<String>,
    /// Why its source looked wrong; absent when it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspicion: Option<Suspicion>,
    /// What was proved after it was made, the newest first, at most [`Backup::PROOFS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proofs: Vec<Proof>,
    /// The instant for which a schedule had planned it; absent for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned_at: Option<Timestamp>,
    /// The retention policy by which it was taken; absent for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_id: Option<String>,
}

impl Backup {
    /// Most proofs that are kept.
    pub const PROOFS: usize = 8;

    /// The row of a backup that an operation is to make: nothing is known of its content.
    pub fn draft(id: BackupId, folder_id: FolderId, cluster_id: ClusterId, name: Name, operation_id: String, created_at: Timestamp) -> Self {
        Self {
            id,
            folder_id,
            cluster_id,
            source: None,
            name,
            labels: Labels::new(),
            state: State::Creating,
            origin: Origin::Manual,
            created_at,
            started_at: None,
            completed_at: None,
            expires_at: None,
            expiry_by_hand: false,
            holds: Vec::new(),
            busy: None,
            operation_id,
            readers: BTreeSet::new(),
            purging: false,
            undeleted_at: None,
            facts_revision: 0,
            epoch: None,
            level: None,
            consistency: None,
            skew_millis: 0,
            size_bytes: 0,
            stored_bytes: 0,
            compression: "none".to_owned(),
            shards: Vec::new(),
            age_recipients: Vec::new(),
            suspicion: None,
            proofs: Vec::new(),
            planned_at: None,
            policy_id: None,
        }
    }

    /// Most operations that read one backup at once.
    pub const READERS: usize = 64;

    /// When it may be removed by itself, under the plan that its cluster has now; `None` for never. `plan` is absent for a cluster that
    /// is not known any more.
    ///
    /// The daily backups of a schedule follow the plan, so that a change of the days for which they are kept holds for those that are
    /// there already. All others keep what was set for them: those that were asked for by hand, those of a retention policy, those whose
    /// expiry somebody has changed, and those of a cluster that is gone.
    pub fn expires(&self, plan: Option<&Plan>) -> Option<Timestamp> {
        match (self.origin, self.planned_at, &self.policy_id, plan) {
            (Origin::Automated, Some(planned_at), None, Some(plan)) if !self.expiry_by_hand => plan.retain_days.and_then(|days| kept_until(planned_at, days)),
            _ => self.expires_at,
        }
    }

    /// Whether the calls that know only finished backups show it.
    pub fn is_available(&self) -> bool {
        self.state == State::Available
    }

    /// Whether its source looked wrong and nobody has cleared that.
    pub fn is_suspect(&self) -> bool {
        self.suspicion.as_ref().is_some_and(|suspicion| suspicion.cleared.is_none())
    }

    /// Whether a person has deleted it.
    pub fn is_deleting(&self) -> bool {
        matches!(self.state, State::Deleting { .. })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A backup of one shard, as a store keeps it.
    pub(crate) fn sample() -> Backup {
        let at = Timestamp::UNIX_EPOCH;
        let shard = Shard {
            name: "shard1".into(),
            source_host: "a:6379".into(),
            source_role: Role::Replica,
            engine: "redis".into(),
            engine_version: "7.2.5".into(),
            rdb_version: 11,
            size_bytes: 100,
            stored_bytes: 40,
            sha256: "ab".repeat(32),
            checksum: Checksum::Verified,
            level: Level::Walked,
            opaque_reason: String::new(),
            keys: 9,
            expiring: 1,
            databases: Vec::new(),
            types: BTreeMap::new(),
            functions: 0,
            replication_id: "cd".repeat(20),
            replication_offset: 7,
            used_memory_bytes: 1000,
            fork_micros: None,
            copy_on_write_bytes: None,
            snapshot_started_at: at,
            snapshot_at: at,
            upload_started_at: at,
            upload_ended_at: at,
            slots: Vec::new(),
            stray_keys: 0,
            impact: Impact::default(),
            minimum: None,
            side_state: false,
            moves: Vec::new(),
        };
        Backup {
            id: BackupId::new(),
            folder_id: "default".parse().unwrap(),
            cluster_id: "main".parse().unwrap(),
            source: None,
            name: "nightly".parse().unwrap(),
            labels: Labels::new(),
            state: State::Available,
            origin: Origin::Manual,
            created_at: at,
            started_at: Some(at),
            completed_at: Some(at),
            expires_at: None,
            expiry_by_hand: false,
            holds: Vec::new(),
            operation_id: "an operation".into(),
            busy: None,
            readers: BTreeSet::new(),
            purging: false,
            undeleted_at: None,
            facts_revision: 0,
            epoch: Some(1),
            level: Some(Level::Walked),
            consistency: Some(Consistency::PointInTime),
            skew_millis: 0,
            size_bytes: 100,
            stored_bytes: 40,
            compression: "zstd:1".into(),
            shards: vec![shard],
            age_recipients: Vec::new(),
            suspicion: None,
            proofs: Vec::new(),
            planned_at: None,
            policy_id: None,
        }
    }

    #[test]
    fn what_two_shards_need_is_what_both_need() {
        let needs = |redis: Option<&str>, databases, modules: &[&str]| Minimum {
            redis: redis.map(str::to_owned),
            valkey: None,
            databases,
            modules: modules.iter().map(|name| (*name).to_owned()).collect(),
        };
        assert_eq!(needs(Some("7.10"), 1, &["a"]).joined(needs(Some("7.2"), 16, &["b", "a"])), needs(Some("7.10"), 16, &["a", "b"]));
        assert_eq!(needs(Some("7.0"), 1, &[]).joined(needs(None, 1, &[])), needs(None, 1, &[]));
    }

    #[test]
    fn the_expiry_of_a_daily_backup_follows_the_plan() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let planned = at("2026-03-28T21:00:00Z");
        let plan = |retain_days| Plan { retain_days, ..Plan::default() };
        let daily = Backup { origin: Origin::Automated, planned_at: Some(planned), expires_at: kept_until(planned, 7), ..sample() };
        for (backup, plan, expected) in [
            // Days of 24 hours, whatever the clocks do.
            (&daily, Some(plan(Some(7))), Some("2026-04-04T21:00:00Z")),
            (&daily, Some(plan(Some(1))), Some("2026-03-29T21:00:00Z")),
            (&daily, Some(plan(None)), None),
            (&daily, None, Some("2026-04-04T21:00:00Z")),
            (&Backup { policy_id: Some("monthly".into()), ..daily.clone() }, Some(plan(Some(1))), Some("2026-04-04T21:00:00Z")),
            (&Backup { expiry_by_hand: true, expires_at: None, ..daily.clone() }, Some(plan(Some(1))), None),
            (&sample(), Some(plan(Some(1))), None),
        ] {
            assert_eq!(backup.expires(plan.as_ref()), expected.map(at), "{plan:?}");
        }
    }

    #[test]
    fn a_row_without_readers_is_read_as_before() {
        let row = serde_json::to_value(sample()).unwrap();
        assert!(row.get("readers").is_none());
        assert_eq!(serde_json::from_value::<Backup>(row).unwrap().readers, BTreeSet::new());
        let read = Backup { readers: ["an operation".to_owned()].into(), ..sample() };
        assert_eq!(serde_json::from_value::<Backup>(serde_json::to_value(&read).unwrap()).unwrap(), read);
    }

    #[test]
    fn names_follow_the_rule() {
        assert!("a".parse::<Name>().is_ok());
        assert!("nightly_2026-11.rdb".parse::<Name>().is_ok());
        assert!("a".repeat(63).parse::<Name>().is_ok());
        for bad in ["", "-a", ".a", "a b", "a/b", &"a".repeat(64), "é"] {
            assert_eq!(bad.parse::<Name>(), Err(BadName), "{bad}");
        }
        let made_up = Name::made_up();
        assert_eq!(made_up.as_str().len(), 23);
        assert!(made_up.as_str().parse::<Name>().is_ok());
        let undeleted = Name::undeleted("01890000-0000-7000-8123-456789abcdef".parse().unwrap());
        assert_eq!(undeleted.as_str(), "undeleted-8123456789abcdef");
        assert_eq!(undeleted.as_str().parse(), Ok(undeleted));
    }

    #[test]
    fn an_identifier_has_one_text_form() {
        let id = BackupId::new();
        assert_eq!(id.to_string().parse::<BackupId>(), Ok(id));
        assert_eq!(id.to_string().to_uppercase().parse::<BackupId>(), Err(NoSuchId));
        assert_eq!("nonsense".parse::<BackupId>(), Err(NoSuchId));
    }
}
