//! Why work ended without a result, as it is kept and shown.
//!
//! Owns the list of reasons. Knows nothing of the wire: which status code a reason becomes is decided in `api::status`.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The kind of a failure, for programs.
///
/// The text form (`SOURCE_UNREACHABLE` and so on) is stored and shown, so a variant is never renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Reason {
    /// No server of the shard could be reached, or the connection was lost.
    SourceUnreachable,
    /// The server did not accept the credentials.
    SourceCredentials,
    /// The server's certificate is not believed, or it does not believe ours.
    SourceCertificate,
    /// The account lacks a right; the message names it.
    SourcePermission,
    /// The server is loading its data or has lost its own primary.
    SourceNotReady,
    /// No host of the shard may be used as a source; the message says why for each.
    SourceRole,
    /// The host has too little memory for a fork.
    SourceMemory,
    /// The server's version or kind cannot be backed up safely.
    SourceVersion,
    /// The shards do not cover every slot once, or slots moved during the snapshots; the message says which.
    SourceTopology,
    /// The server said that its save failed.
    SourceSave,
    /// The payload ended early or stopped moving.
    SnapshotCut,
    /// The payload does not hold together: checksum or structure.
    SnapshotCorrupt,
    /// The storage cannot be reached or answers with faults.
    StorageUnavailable,
    /// The storage is full.
    StorageFull,
    /// The storage refuses to be written.
    StorageDenied,
    /// What was stored is not what was sent.
    StorageCorrupt,
    /// Something else lies where the result was to go.
    TargetExists,
    /// The server to be restored into cannot be reached, or the connection to it was lost.
    TargetUnreachable,
    /// The server to be restored into did not accept the credentials, or there are none to be had.
    TargetCredentials,
    /// Its certificate is not believed, or ours is missing or not believed.
    TargetCertificate,
    /// Its account lacks a right; the message names it.
    TargetPermission,
    /// What it is forbids it, or somebody else took it meanwhile.
    TargetRefused,
    /// It holds something that nobody agreed to lose.
    TargetNotEmpty,
    /// It cannot load the dump: version, databases or modules; the message says what would do.
    TargetVersion,
    /// It has too little memory.
    TargetMemory,
    /// What it has after loading is not what the backup has.
    RestoreDiffers,
    /// The backup is encrypted, and there is no key to read it with.
    BackupEncrypted,
    /// No server program of this machine can load the dump.
    NoEngine,
    /// This machine has too little room for servers: memory, disk or ports.
    LocalRoom,
    /// A server of this machine does not start, load or join as it should.
    LocalServer,
    /// A proof would take more memory, disk or time than it may.
    DrillLimits,
    /// A real server did not load the dump, or has something else after it.
    NotProved,
    /// No attempt could start before the deadline.
    DeadlineExceeded,
    /// The process died several times while it worked on this.
    Poisoned,
    /// The source was forked as often as one operation may.
    ForkBudget,
    /// The thing worked on went away meanwhile.
    Gone,
    /// A fault of ours.
    Internal,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 37] = [
        Self::SourceUnreachable,
        Self::SourceCredentials,
        Self::SourceCertificate,
        Self::SourcePermission,
        Self::SourceNotReady,
        Self::SourceRole,
        Self::SourceMemory,
        Self::SourceVersion,
        Self::SourceTopology,
        Self::SourceSave,
        Self::SnapshotCut,
        Self::SnapshotCorrupt,
        Self::StorageUnavailable,
        Self::StorageFull,
        Self::StorageDenied,
        Self::StorageCorrupt,
        Self::TargetExists,
        Self::TargetUnreachable,
        Self::TargetCredentials,
        Self::TargetCertificate,
        Self::TargetPermission,
        Self::TargetRefused,
        Self::TargetNotEmpty,
        Self::TargetVersion,
        Self::TargetMemory,
        Self::RestoreDiffers,
        Self::BackupEncrypted,
        Self::NoEngine,
        Self::LocalRoom,
        Self::LocalServer,
        Self::DrillLimits,
        Self::NotProved,
        Self::DeadlineExceeded,
        Self::Poisoned,
        Self::ForkBudget,
        Self::Gone,
        Self::Internal,
    ];

    /// The stable text of the reason.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SourceUnreachable => "SOURCE_UNREACHABLE",
            Self::SourceCredentials => "SOURCE_CREDENTIALS",
            Self::SourceCertificate => "SOURCE_CERTIFICATE",
            Self::SourcePermission => "SOURCE_PERMISSION",
            Self::SourceNotReady => "SOURCE_NOT_READY",
            Self::SourceRole => "SOURCE_ROLE",
            Self::SourceMemory => "SOURCE_MEMORY",
            Self::SourceVersion => "SOURCE_VERSION",
            Self::SourceTopology => "SOURCE_TOPOLOGY",
            Self::SourceSave => "SOURCE_SAVE",
            Self::SnapshotCut => "SNAPSHOT_CUT",
            Self::SnapshotCorrupt => "SNAPSHOT_CORRUPT",
            Self::StorageUnavailable => "STORAGE_UNAVAILABLE",
            Self::StorageFull => "STORAGE_FULL",
            Self::StorageDenied => "STORAGE_DENIED",
            Self::StorageCorrupt => "STORAGE_CORRUPT",
            Self::TargetExists => "TARGET_EXISTS",
            Self::TargetUnreachable => "TARGET_UNREACHABLE",
            Self::TargetCredentials => "TARGET_CREDENTIALS",
            Self::TargetCertificate => "TARGET_CERTIFICATE",
            Self::TargetPermission => "TARGET_PERMISSION",
            Self::TargetRefused => "TARGET_REFUSED",
            Self::TargetNotEmpty => "TARGET_NOT_EMPTY",
            Self::TargetVersion => "TARGET_VERSION",
            Self::TargetMemory => "TARGET_MEMORY",
            Self::RestoreDiffers => "RESTORE_DIFFERS",
            Self::BackupEncrypted => "BACKUP_ENCRYPTED",
            Self::NoEngine => "NO_ENGINE",
            Self::LocalRoom => "LOCAL_ROOM",
            Self::LocalServer => "LOCAL_SERVER",
            Self::DrillLimits => "DRILL_LIMITS",
            Self::NotProved => "NOT_PROVED",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::Poisoned => "POISONED",
            Self::ForkBudget => "FORK_BUDGET",
            Self::Gone => "GONE",
            Self::Internal => "INTERNAL",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why work ended without a result.
///
/// The message is made for the person who asks later: what happened, to what, and what to do. It holds no address with a
/// password, no key and no path outside the configured roots. At most [`Failure::MESSAGE_CHARS`] characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind, for programs.
    pub reason: Reason,
    /// One or two sentences, for a person.
    pub message: String,
}

impl Failure {
    /// Longest message kept, in characters; longer ones are cut.
    pub const MESSAGE_CHARS: usize = 2000;

    /// Makes a failure; a message that is too long is cut.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if let Some((at, _)) = message.char_indices().nth(Self::MESSAGE_CHARS) {
            message.truncate(at);
        }
        Self { reason, message }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let failure = Failure::new(Reason::Internal, "é".repeat(3000));
        assert_eq!(failure.message.chars().count(), Failure::MESSAGE_CHARS);
    }

    #[test]
    fn all_reasons_are_listed() {
        // Method: the source's own list of their texts, because the type cannot be walked.
        let texts = include_str!("failure.rs").lines().filter(|line| line.trim_start().starts_with("Self::") && line.contains("=> \"")).count();
        let distinct: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!((distinct.len(), Reason::ALL.len()), (texts, texts));
    }

    #[test]
    fn stored_text_equals_shown_text() {
        for reason in [Reason::SourceUnreachable, Reason::SourceCertificate, Reason::ForkBudget, Reason::SnapshotCut] {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }
}
