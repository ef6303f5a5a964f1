//! The record of one change, and what may follow what in its life.
//!
//! Owns the states and the one function that moves between them ([`Operation::apply`], in `operation/transition.rs`). It
//! has no input or output and no clock: time is an argument. Every store calls it inside its transaction.
//!
//! ```text
//! QUEUED -> RUNNING -> SUCCEEDED | FAILED        QUEUED -> CANCELLED | FAILED (deadline)
//! RUNNING -> CANCELLING -> CANCELLED             (a lapsed CANCELLING becomes CANCELLED)
//! RUNNING -> QUEUED (another attempt, or handed back at a graceful stop)
//! RUNNING -> FAILED when its third crash before PUBLISH is found
//! ```

mod export;
mod import;
mod restore;
mod transition;

pub(crate) use export::ExportObject;
pub use export::{ExportResult, ExportTarget};
pub use import::ImportSource;
pub use restore::{ClusterPlan, Conflict, HostPlan, Keys, Left, Login, Method, Place, RestoreResult, RestoreTarget, Written};
pub use transition::{Event, Fault, Outcome, Refused};

use crate::backup::{Backup, BackupId, Labels, Level, Name, NoSuchId, uuid_id};
use crate::cluster::policy::{ClusterChanges, Policy as RetentionPolicy, PolicyId};
use crate::cluster::{ClusterId, FolderId, Timestamp, View};
use crate::failure::Failure;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

uuid_id! {
    /// Names an operation: a UUID of version 7.
    OperationId
}

/// Number of an attempt. It only rises, it guards every write of the attempt, and it names its folder in storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A part of the work, recorded before it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Is the source reachable and fit, and can storage be written?
    Preflight,
    /// Stream, check and store. The source of a backup forks here; a copy, an export or an import reads what is stored.
    Snapshot,
    /// Lengths, checksums, finished uploads.
    Seal,
    /// A server loads what is stored.
    Load,
    /// Put the recorded manifest and complete. Nobody cancels from here on.
    Publish,
    /// The only step of short work on a record. It cannot be cancelled.
    Work,
}

impl Step {
    /// Whether a cancellation comes too late.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Publish | Self::Work)
    }

    /// Whether the source may have been forked in this step, by an operation whose work [`forks`](Spec::forks).
    pub fn forks(self) -> bool {
        matches!(self, Self::Snapshot | Self::Seal)
    }

    /// Its word in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Preflight => "preflight",
            Self::Snapshot => "snapshot",
            Self::Seal => "seal",
            Self::Load => "load",
            Self::Publish => "publish",
            Self::Work => "work",
        }
    }
}

/// Which API a call came through: it decides the types of metadata and response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Door {
    /// The managed-Redis schema.
    Managed,
    /// Our own schema.
    Redkeep,
    /// The MemStore calls.
    MemStore,
}

/// When a backup may be removed by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expiry {
    /// Never.
    Never,
    /// From this instant on.
    At(Timestamp),
}

impl Expiry {
    /// The instant, if there is one.
    pub fn instant(self) -> Option<Timestamp> {
        match self {
            Self::Never => None,
            Self::At(at) => Some(at),
        }
    }
}

/// Changes to the record of a backup; an absent one leaves the field as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupChanges {
    /// A new name.
    pub name: Option<Name>,
    /// New labels, all of them.
    pub labels: Option<Labels>,
    /// A new expiry.
    pub expires_at: Option<Expiry>,
    /// Reasons of all holds; those that stand already keep their author and time.
    pub holds: Option<Vec<String>>,
    /// Whether the suspicion that lies on it is to be cleared.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub clear_suspect: bool,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spec {
    /// Take a backup of the operation's cluster.
    CreateBackup,
    /// Change the record of a backup.
    UpdateBackup(BackupChanges),
    /// Delete a backup.
    DeleteBackup,
    /// Make an independent backup of the same content.
    CopyBackup {
        /// The backup that is copied; the operation's own is the copy.
        source: BackupId,
    },
    /// Write the dumps of a backup to a bucket.
    ExportBackup(ExportTarget),
    /// Make a backup of the operation's cluster out of dumps in a bucket.
    ImportBackup(ImportSource),
    /// Make the operation's cluster known.
    AdoptCluster,
    /// Change how the operation's cluster is reached.
    UpdateConnection,
    /// Forget the operation's cluster.
    ForgetCluster,
    /// Take the deletion of a backup back.
    UndeleteBackup,
    /// Prove a backup up to a level.
    VerifyBackup {
        /// The level.
        level: Level,
    },
    /// Restore a backup into servers that run.
    RestoreInto(Box<RestoreTarget>),
    /// Make the operation's cluster out of a backup.
    RestoreCluster(Box<ClusterPlan>),
    /// Stop the servers of the operation's cluster, which we have started, and forget it.
    DeleteCluster,
    /// Change what is told of the operation's cluster, and when its backups are taken.
    UpdateCluster(Box<ClusterChanges>),
    /// Give the operation's cluster a retention policy.
    CreatePolicy(Box<RetentionPolicy>),
    /// Take a retention policy from the operation's cluster.
    DeletePolicy {
        /// The policy.
        policy_id: PolicyId,
    },
}

impl Spec {
    /// The word of every kind.
    pub const KINDS: [&str; 17] = [
        "create_backup",
        "update_backup",
        "delete_backup",
        "copy_backup",
        "export_backup",
        "import_backup",
        "adopt_cluster",
        "update_connection",
        "forget_cluster",
        "undelete_backup",
        "verify_backup",
        "restore_into",
        "restore_cluster",
        "delete_cluster",
        "update_cluster",
        "create_policy",
        "delete_policy",
    ];

    /// The word of its kind, in metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::CreateBackup => "create_backup",
            Self::UpdateBackup(_) => "update_backup",
            Self::DeleteBackup => "delete_backup",
            Self::CopyBackup { .. } => "copy_backup",
            Self::ExportBackup(_) => "export_backup",
            Self::ImportBackup(_) => "import_backup",
            Self::AdoptCluster => "adopt_cluster",
            Self::UpdateConnection => "update_connection",
            Self::ForgetCluster => "forget_cluster",
            Self::UndeleteBackup => "undelete_backup",
            Self::VerifyBackup { .. } => "verify_backup",
            Self::RestoreInto(_) => "restore_into",
            Self::RestoreCluster(_) => "restore_cluster",
            Self::DeleteCluster => "delete_cluster",
            Self::UpdateCluster(_) => "update_cluster",
            Self::CreatePolicy(_) => "create_policy",
            Self::DeletePolicy { .. } => "delete_policy",
        }
    }

    /// Forgets what only the work needed: how a target is logged in to.
    pub(crate) fn forget_login(&mut self) {
        if let Self::RestoreInto(target) = self {
            target.login = Login::default();
        }
    }

    /// Whether the work holds its cluster, so that only one such operation runs at a time.
    pub fn is_exclusive(&self) -> bool {
        match self {
            Self::CreateBackup | Self::AdoptCluster | Self::UpdateConnection | Self::ForgetCluster => true,
            Self::RestoreCluster(_) | Self::DeleteCluster => true,
            Self::UpdateBackup(_) | Self::DeleteBackup | Self::CopyBackup { .. } | Self::ExportBackup(_) | Self::ImportBackup(_) => false,
            Self::UndeleteBackup | Self::VerifyBackup { .. } | Self::RestoreInto(_) => false,
            Self::UpdateCluster(_) | Self::CreatePolicy(_) | Self::DeletePolicy { .. } => false,
        }
    }

    /// Whether the work makes a backup: the operation comes with its draft.
    pub fn makes_backup(&self) -> bool {
        match self {
            Self::CreateBackup | Self::CopyBackup { .. } | Self::ImportBackup(_) => true,
            Self::UpdateBackup(_) | Self::DeleteBackup | Self::ExportBackup(_) | Self::AdoptCluster | Self::UpdateConnection | Self::ForgetCluster => false,
            Self::UndeleteBackup | Self::VerifyBackup { .. } | Self::RestoreInto(_) => false,
            Self::RestoreCluster(_) | Self::DeleteCluster => false,
            Self::UpdateCluster(_) | Self::CreatePolicy(_) | Self::DeletePolicy { .. } => false,
        }
    }

    /// Whether the work changes the record of its cluster, and concerns no backup.
    pub fn changes_cluster(&self) -> bool {
        match self {
            Self::CreateBackup | Self::UpdateBackup(_) | Self::DeleteBackup | Self::CopyBackup { .. } | Self::ExportBackup(_) | Self::ImportBackup(_) => false,
            Self::UndeleteBackup | Self::VerifyBackup { .. } | Self::RestoreInto(_) => false,
            Self::AdoptCluster | Self::UpdateConnection | Self::ForgetCluster => true,
            Self::RestoreCluster(_) | Self::DeleteCluster => true,
            Self::UpdateCluster(_) | Self::CreatePolicy(_) | Self::DeletePolicy { .. } => true,
        }
    }

    /// Whether the work has a source fork.
    pub fn forks(&self) -> bool {
        match self {
            Self::CreateBackup => true,
            Self::UpdateBackup(_)
            | Self::DeleteBackup
            | Self::CopyBackup { .. }
            | Self::ExportBackup(_)
            | Self::ImportBackup(_)
            | Self::AdoptCluster
            | Self::UpdateConnection
            | Self::ForgetCluster
            | Self::UndeleteBackup
            | Self::VerifyBackup { .. }
            | Self::RestoreInto(_)
            | Self::RestoreCluster(_)
            | Self::DeleteCluster
            | Self::UpdateCluster(_)
            | Self::CreatePolicy(_)
            | Self::DeletePolicy { .. } => false,
        }
    }

    /// Whether each attempt has a folder of its own, in storage or in a bucket.
    pub fn has_attempts(&self) -> bool {
        match self {
            Self::CreateBackup | Self::CopyBackup { .. } | Self::ExportBackup(_) | Self::ImportBackup(_) => true,
            Self::UpdateBackup(_) | Self::DeleteBackup => false,
            Self::AdoptCluster | Self::UpdateConnection | Self::ForgetCluster => false,
            Self::UndeleteBackup | Self::VerifyBackup { .. } | Self::RestoreInto(_) => false,
            Self::RestoreCluster(_) | Self::DeleteCluster => false,
            Self::UpdateCluster(_) | Self::CreatePolicy(_) | Self::DeletePolicy { .. } => false,
        }
    }

    /// The step in which an attempt begins.
    pub fn first_step(&self) -> Step {
        match self {
            Self::CreateBackup | Self::CopyBackup { .. } | Self::ExportBackup(_) | Self::ImportBackup(_) => Step::Preflight,
            Self::UpdateBackup(_) | Self::DeleteBackup => Step::Work,
            Self::AdoptCluster | Self::UpdateConnection | Self::ForgetCluster => Step::Work,
            Self::VerifyBackup { .. } | Self::RestoreInto(_) | Self::RestoreCluster(_) => Step::Preflight,
            Self::UndeleteBackup | Self::DeleteCluster | Self::UpdateCluster(_) | Self::CreatePolicy(_) | Self::DeletePolicy { .. } => Step::Work,
        }
    }
}

/// What the work gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// The cluster, as it was at the end.
    Cluster(Box<View>),
    /// The backup, as it was at the end.
    Backup(Box<Backup>),
    /// What an export wrote.
    Exported(ExportResult),
    /// What a restore did.
    Restored(Box<RestoreResult>),
    /// A retention policy.
    Policy(Box<RetentionPolicy>),
    /// Nothing but success.
    Empty,
}

/// Where the operation stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waits for a worker, not before the instant given.
    Queued {
        /// Earliest start.
        not_before: Timestamp,
    },
    /// A worker holds it.
    Running {
        /// The step under way.
        step: Step,
        /// When the lease lapses.
        lease_until: Timestamp,
    },
    /// A worker holds it and is to stop.
    Cancelling {
        /// When the lease lapses.
        lease_until: Timestamp,
    },
    /// Ended well.
    Succeeded(Response),
    /// Ended without a result.
    Failed(Failure),
    /// Ended by a caller's wish.
    Cancelled,
}

impl State {
    /// The words of the states in which an operation has not ended.
    pub const OPEN: [&str; 3] = ["queued", "running", "cancelling"];

    /// The words of the states in which it has.
    pub const ENDED: [&str; 3] = ["succeeded", "failed", "cancelled"];

    /// Its word, in metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Queued { .. } => "queued",
            Self::Running { .. } => "running",
            Self::Cancelling { .. } => "cancelling",
            Self::Succeeded(_) => "succeeded",
            Self::Failed(_) => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing can follow.
    pub fn is_terminal(&self) -> bool {
        match self {
            Self::Queued { .. } | Self::Running { .. } | Self::Cancelling { .. } => false,
            Self::Succeeded(_) | Self::Failed(_) | Self::Cancelled => true,
        }
    }
}

/// Limits that an operation carries from its creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// No attempt starts after this instant. PUBLISH is outside of it.
    pub deadline_at: Timestamp,
    /// Least wait after a failed attempt that reached the fork, in milliseconds.
    pub refork_delay_millis: u64,
}

impl Policy {
    /// Most forks of a source that one operation may cause.
    pub const FORKS: u32 = 3;
    /// The crash before PUBLISH that ends the operation.
    pub const CRASHES: u32 = 3;
    /// The failed attempt, by a fault of the source, that ends the operation.
    pub const SOURCE_FAULTS: u32 = 5;
    /// How often a dump may be found corrupt before the operation ends.
    pub const CORRUPT: u32 = 2;
    /// How long PUBLISH may be tried, in seconds: 24 hours.
    pub const PUBLISH_SECS: i64 = 24 * 3600;

    /// The wait after a fork, as a duration.
    pub fn refork_delay(&self) -> Duration {
        Duration::from_millis(self.refork_delay_millis)
    }
}

/// What went wrong so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Attempts whose worker vanished before PUBLISH.
    pub crashes: u32,
    /// Attempts that may have forked the source.
    pub forks: u32,
    /// Attempts that failed by a fault of the source.
    pub source_faults: u32,
    /// Attempts whose dump did not hold together.
    pub corrupt: u32,
}

/// The recorded decision to publish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// The attempt whose files are published.
    pub epoch: Epoch,
    /// When it was decided.
    pub since: Timestamp,
    /// SHA-256 of the manifest's bytes, in hexadecimal.
    pub manifest_sha256: String,
}

/// How far one shard is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardProgress {
    /// The shard.
    pub shard_name: String,
    /// The host that its dump comes from; empty until one is chosen.
    pub host_name: String,
    /// Bytes of the dump read; where stored bytes are moved as they are, those.
    pub bytes: u64,
    /// Bytes handed to storage.
    pub stored_bytes: u64,
    /// Keys walked.
    pub keys: u64,
    /// Keys that the source said it has.
    pub keys_expected: u64,
    /// Length of the dump where the source tells it; zero otherwise.
    pub bytes_expected: u64,
}

/// How far the work is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Each shard, in order of name.
    pub shards: Vec<ShardProgress>,
    /// What the work waits for; empty while it moves.
    pub waiting_for: String,
    /// Bytes of dump a second over the last seconds.
    pub bytes_per_second: u64,
    /// How far a restore by key is. It outlives the attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<Box<Written>>,
    /// What a restore has changed of its target. It outlives the attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Box<Left>>,
}

/// The record of one change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its identifier.
    pub id: OperationId,
    /// The folder of the thing changed.
    pub folder_id: FolderId,
    /// The cluster concerned.
    pub cluster_id: ClusterId,
    /// The backup concerned; absent where the work is on the cluster itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_id: Option<BackupId>,
    /// Where the call came in.
    pub door: Door,
    /// What is to be done.
    pub spec: Spec,
    /// For a person, at most 256 characters.
    pub description: String,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// Who asked.
    pub created_by: String,
    /// When the record last changed.
    pub modified_at: Timestamp,
    /// Rises with every change of the record.
    pub revision: u64,
    /// Zone of the cluster: only processes that serve it work on it.
    pub zone: Option<String>,
    /// Its limits.
    pub policy: Policy,
    /// Number of the latest attempt; zero before the first.
    pub epoch: Epoch,
    /// Where it stands.
    pub state: State,
    /// The step of the latest attempt that was begun last; absent before the first attempt.
    pub reached: Option<Step>,
    /// What went wrong so far.
    pub tally: Tally,
    /// Why the attempt before this one failed.
    pub last_failure: Option<Failure>,
    /// How far it is.
    pub progress: Progress,
    /// The decision to publish, once there is one.
    pub publication: Option<Publication>,
}

impl Operation {
    /// The step under way, if a worker holds it.
    pub fn step(&self) -> Option<Step> {
        match &self.state {
            State::Running { step, .. } => Some(*step),
            State::Queued { .. } | State::Cancelling { .. } | State::Succeeded(_) | State::Failed(_) | State::Cancelled => None,
        }
    }

    /// The backup that the work reads. It may be read by several operations at once, and is not deleted meanwhile.
    pub fn reads(&self) -> Option<BackupId> {
        match &self.spec {
            Spec::CopyBackup { source } => Some(*source),
            Spec::ExportBackup(_) | Spec::VerifyBackup { .. } | Spec::RestoreInto(_) => self.backup_id,
            Spec::RestoreCluster(plan) => Some(plan.source),
            Spec::CreateBackup | Spec::UpdateBackup(_) | Spec::DeleteBackup | Spec::UndeleteBackup | Spec::ImportBackup(_) => None,
            Spec::AdoptCluster | Spec::UpdateConnection | Spec::ForgetCluster | Spec::DeleteCluster => None,
            Spec::UpdateCluster(_) | Spec::CreatePolicy(_) | Spec::DeletePolicy { .. } => None,
        }
    }

    /// When [`Event::Claim`] becomes possible; `None` when it never does again.
    pub fn due_at(&self) -> Option<Timestamp> {
        match &self.state {
            State::Queued { not_before } => Some(*not_before),
            State::Running { lease_until, .. } | State::Cancelling { lease_until } => Some(*lease_until),
            State::Succeeded(_) | State::Failed(_) | State::Cancelled => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_tells_its_backup_or_none() {
        let at = "2026-11-21T00:00:00Z";
        let row = serde_json::json!({
            "id": "01890000-0000-7000-8000-000000000001", "folder_id": "default", "cluster_id": "main",
            "backup_id": "01890000-0000-7000-8000-000000000002", "door": "redkeep", "spec": "create_backup", "description": "",
            "created_at": at, "created_by": "anonymous", "modified_at": at, "revision": 1, "zone": null,
            "policy": { "deadline_at": at, "refork_delay_millis": 0 }, "epoch": 0, "state": { "queued": { "not_before": at } }, "reached": null,
            "tally": Tally::default(), "last_failure": null, "progress": Progress::default(), "publication": null,
        });
        let read = serde_json::from_value::<Operation>(row.clone()).unwrap();
        assert_eq!(read.backup_id.map(|id| id.to_string()).as_deref(), Some("01890000-0000-7000-8000-000000000002"));
        assert_eq!(serde_json::to_value(&read).unwrap(), row);
        let mut row = row;
        row.as_object_mut().unwrap().remove("backup_id");
        row["spec"] = "adopt_cluster".into();
        let read = serde_json::from_value::<Operation>(row.clone()).unwrap();
        assert_eq!((read.backup_id, &read.spec), (None, &Spec::AdoptCluster));
        assert_eq!(serde_json::to_value(&read).unwrap(), row);
    }

    #[test]
    fn changes_survive_being_stored() {
        for expires_at in [None, Some(Expiry::Never), Some(Expiry::At(chrono::DateTime::UNIX_EPOCH))] {
            let changes = BackupChanges { expires_at, ..BackupChanges::default() };
            let stored = serde_json::to_string(&changes).unwrap();
            assert_eq!(serde_json::from_str::<BackupChanges>(&stored).unwrap(), changes);
        }
    }
}
