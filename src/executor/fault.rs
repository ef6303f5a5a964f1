//! What a failure means: for the operation, and for the next attempt.

use super::attempt::End;
use crate::artifacts;
use crate::cluster::ClusterId;
use crate::failure::{Failure, Reason};
use crate::fleet::CheckError;
use crate::operation::{Fault, Operation};
use crate::rdb;
use crate::redis;
use crate::redis::source::{Bar, Barred};
use crate::snapshot;
use rand::Rng;
use std::time::Duration;

/// Longest wait before another attempt.
const LONGEST: Duration = Duration::from_secs(60);

/// Wait for a storage that is full: somebody has to make room.
const FULL: Duration = Duration::from_secs(30);

/// Shortest wait before another attempt.
const LEAST: Duration = Duration::from_secs(1);

/// Span of the first wait; each later one is twice as long.
const FIRST: Duration = Duration::from_secs(2);

/// The wait before the attempt after `operation`'s latest: random within a span that doubles up to a minute, so that many
/// operations that failed together do not come back together.
pub(super) fn backoff(operation: &Operation) -> Duration {
    let doublings = u32::try_from(operation.epoch.0.saturating_sub(1)).unwrap_or(u32::MAX).min(5);
    let span = (FIRST * 2_u32.pow(doublings)).min(LONGEST);
    rand::rng().random_range(LEAST..=span)
}

/// What a server's failure means.
pub(super) fn source(operation: &Operation, error: &redis::Error) -> End {
    let reason = match error {
        redis::Error::Unreachable { .. } | redis::Error::Protocol { .. } => Reason::SourceUnreachable,
        redis::Error::Credentials { .. } => Reason::SourceCredentials,
        redis::Error::Certificate { .. } => Reason::SourceCertificate,
        redis::Error::Permission { .. } => Reason::SourcePermission,
        redis::Error::NotReady { .. } => Reason::SourceNotReady,
        redis::Error::Save { .. } => Reason::SourceSave,
        redis::Error::Unsupported { .. } => Reason::SourceVersion,
        redis::Error::Role { .. } => Reason::SourceRole,
    };
    let failure = Failure::new(reason, error.to_string());
    if error.is_passing() { End::Retry { fault: Fault::Source, failure, wait: backoff(operation) } } else { End::Failed(failure) }
}

/// What a failure of storage means.
pub(super) fn storage(operation: &Operation, error: &artifacts::Error) -> End {
    let (reason, wait) = match error {
        artifacts::Error::Full => (Reason::StorageFull, FULL.max(backoff(operation))),
        artifacts::Error::Denied(_) => return End::Failed(Failure::new(Reason::StorageDenied, error.to_string())),
        artifacts::Error::Unavailable { .. } | artifacts::Error::Stalled => (Reason::StorageUnavailable, backoff(operation)),
        artifacts::Error::Missing(_) | artifacts::Error::Exists(_) => (Reason::StorageCorrupt, backoff(operation)),
        // What lies there stays as it is.
        artifacts::Error::Corrupt { .. } => return End::Failed(Failure::new(Reason::StorageCorrupt, error.to_string())),
        artifacts::Error::Locked(_) => return End::Failed(Failure::new(Reason::BackupEncrypted, error.to_string())),
    };
    if let artifacts::Error::Unavailable { source: Some(source), .. } = error {
        tracing::warn!(operation.id = %operation.id, error = %source, "the artifact storage failed");
    }
    End::Retry { fault: Fault::Storage, failure: Failure::new(reason, error.to_string()), wait }
}

/// What a failure of storage means once it is decided to publish: nothing is final before the time for it is over.
pub(super) fn publication(operation: &Operation, error: &artifacts::Error) -> End {
    match storage(operation, error) {
        End::Failed(failure) => End::Retry { fault: Fault::Storage, failure, wait: backoff(operation) },
        end => end,
    }
}

/// What a failure to read what a finished backup consists of means: what is missing there does not come by itself.
pub(super) fn stored(operation: &Operation, error: &artifacts::Error) -> End {
    match error {
        artifacts::Error::Missing(_) => End::Failed(Failure::new(Reason::StorageCorrupt, error.to_string())),
        _ => storage(operation, error),
    }
}

/// What a failure of a bucket means.
pub(super) fn bucket(operation: &Operation, name: &str, error: &artifacts::Error) -> End {
    let (reason, what) = match error {
        artifacts::Error::Full => (Reason::StorageFull, "is full".to_owned()),
        artifacts::Error::Denied(why) => (Reason::StorageDenied, format!("cannot be written: {why}")),
        artifacts::Error::Unavailable { what, .. } => (Reason::StorageUnavailable, format!("failed: {what}")),
        artifacts::Error::Stalled => (Reason::StorageUnavailable, format!("took no data for {} s", artifacts::PART_TIMEOUT.as_secs())),
        artifacts::Error::Missing(_) => (Reason::StorageCorrupt, "lost what was staged in it".to_owned()),
        artifacts::Error::Exists(object) => {
            (Reason::TargetExists, format!("has another {object} already, and nothing is replaced; export to another name or path"))
        }
        artifacts::Error::Corrupt { name, what } => (Reason::StorageCorrupt, format!("does not have {name} as it was written: {what}")),
        artifacts::Error::Locked(name) => (Reason::BackupEncrypted, format!("has {name} encrypted, and {}", artifacts::NO_KEY)),
    };
    if let artifacts::Error::Unavailable { source: Some(source), .. } = error {
        tracing::warn!(operation.id = %operation.id, bucket = name, error = %source, "a bucket failed");
    }
    let failure = Failure::new(reason, format!("bucket {name} {what}"));
    match error {
        artifacts::Error::Full => End::Retry { fault: Fault::Storage, failure, wait: FULL.max(backoff(operation)) },
        artifacts::Error::Unavailable { .. } | artifacts::Error::Stalled => End::Retry { fault: Fault::Storage, failure, wait: backoff(operation) },
        artifacts::Error::Denied(_)
        | artifacts::Error::Missing(_)
        | artifacts::Error::Exists(_)
        | artifacts::Error::Corrupt { .. }
        | artifacts::Error::Locked(_) => End::Failed(failure),
    }
}

/// What a failed snapshot means.
pub(super) fn snapshot(operation: &Operation, host: &str, error: snapshot::Error) -> End {
    match error {
        snapshot::Error::Refused(error) => source(operation, &error),
        snapshot::Error::Source(error) => match source(operation, &error) {
            End::Retry { failure, wait, .. } => End::Retry { fault: Fault::Forked, failure, wait },
            end => end,
        },
        snapshot::Error::Storage(error) => storage(operation, &error),
        snapshot::Error::Stopped => End::Stopped,
        snapshot::Error::Cut { .. } => {
            let failure = Failure::new(Reason::SnapshotCut, format!("the snapshot of {host} is not whole: {error}"));
            End::Retry { fault: Fault::Forked, failure, wait: backoff(operation) }
        }
        // Another fork would give the same: the bytes are sound, and not of a kind that can be kept.
        snapshot::Error::Corrupt(rdb::Error::Envelope { .. } | rdb::Error::Commands { .. } | rdb::Error::Databases { .. }) => {
            End::Failed(Failure::new(Reason::SourceVersion, format!("{host}: {error}")))
        }
        snapshot::Error::Corrupt(_) => {
            let failure = Failure::new(Reason::SnapshotCorrupt, format!("{host}: {error}"));
            End::Retry { fault: Fault::Corrupt, failure, wait: backoff(operation) }
        }
        snapshot::Error::Stage(_) => {
            let failure = Failure::new(Reason::Internal, error.to_string());
            End::Retry { fault: Fault::Forked, failure, wait: backoff(operation) }
        }
    }
}

/// What it means that a cluster could not be checked.
pub(super) fn check(operation: &Operation, error: CheckError) -> End {
    match error {
        CheckError::Credentials(fault) => End::Failed(Failure::new(Reason::SourceCredentials, fault.to_string())),
        CheckError::Names(fault) => {
            let failure = Failure::new(Reason::Internal, format!("the shards could not be named: {fault}"));
            End::Retry { fault: Fault::Storage, failure, wait: backoff(operation) }
        }
    }
}

/// What it means that no host may be the source.
pub(super) fn no_source(operation: &Operation, cluster: &ClusterId, barred: &[Barred]) -> End {
    let has = |bar| barred.iter().any(|barred| barred.bar == bar);
    // What may pass decides over what stays: a replica that comes back ends the wait.
    let order = [
        (Bar::NotReady, Reason::SourceNotReady),
        (Bar::Silent, Reason::SourceUnreachable),
        (Bar::Topology, Reason::SourceTopology),
        (Bar::Certificate, Reason::SourceCertificate),
        (Bar::Credentials, Reason::SourceCredentials),
        (Bar::Rights, Reason::SourcePermission),
        (Bar::Memory, Reason::SourceMemory),
        (Bar::Version, Reason::SourceVersion),
        (Bar::Role, Reason::SourceRole),
    ];
    let (bar, reason) = order.into_iter().find(|(bar, _)| has(*bar)).unwrap_or((Bar::Role, Reason::SourceRole));
    let words: Vec<String> =
        barred.iter().map(|barred| if barred.remedy.is_empty() { barred.reason.clone() } else { format!("{} ({})", barred.reason, barred.remedy) }).collect();
    let what = if has(Bar::Topology) { "is not whole" } else { "has no host that can be the source" };
    let failure = Failure::new(reason, format!("cluster {cluster} {what}: {}", words.join("; ")));
    match bar {
        Bar::NotReady | Bar::Silent | Bar::Topology => End::Retry { fault: Fault::Source, failure, wait: backoff(operation) },
        Bar::Certificate | Bar::Credentials | Bar::Rights | Bar::Memory | Bar::Version | Bar::Role => End::Failed(failure),
    }
}
