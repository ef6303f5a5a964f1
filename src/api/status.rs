//! Every arrow from our errors to a status of the wire.

use crate::artifacts::NO_KEY;
use crate::auth::{Denied, TooFast, Unrecognised};
use crate::executor::Unreadable;
use crate::failure::{Failure, Reason};
use crate::pb::google::rpc;
use crate::store;
use prost::Message;
use std::time::Duration;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// What to add to a full queue's refusal: when to come again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The domain of our reasons.
const DOMAIN: &str = "redkeep";

/// A field of a request is not valid.
pub(super) fn invalid(field: &str, what: impl Into<String>) -> Status {
    let what = what.into();
    let details = ErrorDetails::with_bad_request_violation(field, what.clone());
    Status::with_error_details(Code::InvalidArgument, format!("{field} {what}"), details)
}

/// There is no such thing.
pub(super) fn not_found(kind: &str, name: &str) -> Status {
    let details = ErrorDetails::with_resource_info(kind, name, "", "");
    Status::with_error_details(Code::NotFound, format!("{kind} {} not found", shown(name)), details)
}

/// The bucket is there, but not for backups of this folder.
pub(super) fn forbidden_bucket(bucket: &str, folder: &str) -> Status {
    let message = format!("bucket {} does not take backups of folder \"{folder}\"; it is listed under `folders` of [[buckets]] which it takes", shown(bucket));
    let details = ErrorDetails::with_resource_info("bucket", bucket, "", "not open to this folder");
    Status::with_error_details(Code::PermissionDenied, message, details)
}

/// A name from a request as it is shown: bounded, and without control characters.
fn shown(name: &str) -> String {
    let text: String = name.chars().take(100).map(|c| if c.is_control() { '?' } else { c }).collect();
    format!("\"{text}\"")
}

/// There is a cluster of this id, whoever can see it.
pub(super) fn cluster_taken(id: &str) -> Status {
    let details = ErrorDetails::with_resource_info("cluster", id, "", "the id is taken");
    Status::with_error_details(
        Code::AlreadyExists,
        format!("the cluster id {} is taken; choose another, or leave it out to have one made up", shown(id)),
        details,
    )
}

/// The folder has a cluster of this name.
pub(super) fn name_taken(name: &str, message: String) -> Status {
    Status::with_error_details(Code::AlreadyExists, message, ErrorDetails::with_resource_info("cluster", name, "", "the name is taken"))
}

/// There are as many as may be.
pub(super) fn quota(subject: &str, message: impl Into<String>) -> Status {
    let message = message.into();
    let details = ErrorDetails::with_quota_failure_violation(subject, message.clone());
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

/// A file of a backup cannot be read.
pub(super) fn unreadable(fault: &Unreadable) -> Status {
    tracing::warn!(error = %fault, "a file of a backup could not be read for a call");
    match fault {
        Unreadable::Away(_) => Status::unavailable(fault.to_string()),
        Unreadable::Damaged(_) => Status::data_loss(fault.to_string()),
    }
}

/// The state forbids it.
pub(super) fn precondition(kind: &str, subject: &str, message: impl Into<String>) -> Status {
    let message = message.into();
    let details = ErrorDetails::with_precondition_failure_violation(kind, subject, message.clone());
    Status::with_error_details(Code::FailedPrecondition, message, details)
}

/// The caller may not touch a thing: one in a folder that the caller cannot see does not exist.
pub(super) fn denied(denied: Denied, kind: &str, name: &str) -> Status {
    match denied {
        Denied::Hidden => not_found(kind, name),
        Denied::TooSmall(_) => Status::permission_denied(denied.to_string()),
    }
}

/// The caller was not recognised. The answer says how to log in, also in the header that HTTP has for it.
pub(super) fn unrecognised(fault: Unrecognised) -> Status {
    let challenge = match fault {
        Unrecognised::NoKeys => return Status::unavailable(fault.to_string()),
        Unrecognised::Absent => "Bearer realm=\"redkeep\"",
        Unrecognised::Several | Unrecognised::TooLong | Unrecognised::Malformed => "Bearer realm=\"redkeep\", error=\"invalid_request\"",
        Unrecognised::Unknown
        | Unrecognised::Expired
        | Unrecognised::Foreign
        | Unrecognised::ShortExpired
        | Unrecognised::ParentGone
        | Unrecognised::NothingToExchange
        | Unrecognised::Jwt(_) => "Bearer realm=\"redkeep\", error=\"invalid_token\"",
    };
    let mut status = Status::unauthenticated(fault.to_string());
    status.metadata_mut().insert("www-authenticate", MetadataValue::from_static(challenge));
    status
}

/// The caller asks for too much at once.
pub(super) fn too_fast(fault: TooFast) -> Status {
    let details = ErrorDetails::with_retry_info(Some(fault.retry_after));
    Status::with_error_details(Code::ResourceExhausted, fault.to_string(), details)
}

/// Too many calls wait for news of operations.
pub(super) fn too_many_watchers(limit: usize) -> Status {
    let details = ErrorDetails::with_retry_info(Some(RETRY_AFTER));
    Status::with_error_details(Code::ResourceExhausted, format!("{limit} calls of Watch are under way already; try again later"), details)
}

/// A backup that is encrypted cannot be read here. `subject` is the backup.
pub(super) fn locked(subject: &str) -> Status {
    precondition("ENCRYPTED", subject, format!("backup {} is encrypted, and {NO_KEY}", shown(subject)))
}

/// What a refusal of the store is on the wire. `subject` is the thing that the call was about.
pub(super) fn store(error: store::Error, kind: &str, subject: &str) -> Status {
    match error {
        store::Error::NoOperation => not_found("operation", subject),
        store::Error::NoBackup => not_found("backup", subject),
        store::Error::NoCluster => not_found("cluster", subject),
        store::Error::NoPolicy => not_found("retention policy", subject),
        store::Error::PolicyTaken(name) => {
            let details = ErrorDetails::with_resource_info("retention policy", name.clone(), "", "the name is taken");
            Status::with_error_details(
                Code::AlreadyExists,
                format!("the cluster has a retention policy named {} already; choose another name", shown(&name)),
                details,
            )
        }
        store::Error::PoliciesFull(_) => quota("retention policies", format!("{error}; delete one first")),
        store::Error::ClusterTaken(id) => cluster_taken(id.as_str()),
        store::Error::Conflict(id) => {
            // Known clients look for exactly this text, wait for the operation that it names, and try again.
            let message = format!("conflicting operation \"{id}\" detected");
            let mut details = ErrorDetails::with_precondition_failure_violation("CONFLICTING_OPERATION", &id, "wait for this operation to end and try again");
            details.set_request_info(super::calls::request_id(), "");
            Status::with_error_details(Code::FailedPrecondition, message, details)
        }
        store::Error::NameTaken(name) => {
            let details = ErrorDetails::with_resource_info("backup", name.to_string(), "", "the name is taken");
            Status::with_error_details(Code::AlreadyExists, format!("the folder has a backup named \"{name}\" already; choose another name"), details)
        }
        store::Error::NotAvailable(state) => precondition("STATE", subject, format!("{kind} {} is not AVAILABLE, it is {state}", shown(subject))),
        store::Error::ReadersFull(count) => {
            let details = ErrorDetails::with_retry_info(Some(RETRY_AFTER));
            let message = format!("{count} operations read {kind} {} already; try again when one of them has ended", shown(subject));
            Status::with_error_details(Code::ResourceExhausted, message, details)
        }
        store::Error::NotSuspect => precondition("STATE", subject, format!("no suspicion lies on {kind} {}; leave clear_suspect out", shown(subject))),
        store::Error::NotDeleting => {
            precondition("STATE", subject, format!("{kind} {} is not being deleted, so there is nothing to take back", shown(subject)))
        }
        store::Error::Purging => precondition(
            "STATE",
            subject,
            format!("the files of {kind} {} are being removed already; its deletion cannot be taken back any more", shown(subject)),
        ),
        store::Error::Held(reason) => {
            precondition("HOLD", subject, format!("{kind} {} is held: {reason}; lift the hold with redkeep.v1.BackupService.Update first", shown(subject)))
        }
        store::Error::KeyReused => invalid("idempotency-key", "was used for another request; use a new key for a new request"),
        store::Error::QueueFull(count) => {
            let details = ErrorDetails::with_retry_info(Some(RETRY_AFTER));
            Status::with_error_details(Code::ResourceExhausted, format!("{count} operations wait already; try again later"), details)
        }
        store::Error::Unavailable(_) | store::Error::Damaged(_) => {
            tracing::error!(error = %error, "the store failed a call");
            Status::unavailable("the store cannot be read or written; nothing was started")
        }
        store::Error::Fenced(_) | store::Error::Cancelling | store::Error::NotAllowed(_) | store::Error::Invalid(_) => {
            tracing::error!(error = %error, "the store refused a call that it should not see");
            Status::internal("the service made a mistake; its log says more")
        }
    }
}

/// The code of a failed operation.
fn code(reason: Reason) -> Code {
    match reason {
        Reason::SourceUnreachable
        | Reason::SourceNotReady
        | Reason::SourceTopology
        | Reason::SourceSave
        | Reason::SnapshotCut
        | Reason::StorageUnavailable
        | Reason::TargetUnreachable
        | Reason::LocalServer => Code::Unavailable,
        Reason::SourceCredentials | Reason::SourceCertificate | Reason::TargetCredentials | Reason::TargetCertificate => Code::Unauthenticated,
        Reason::SourcePermission | Reason::StorageDenied | Reason::TargetPermission => Code::PermissionDenied,
        Reason::SourceRole | Reason::SourceVersion | Reason::BackupEncrypted | Reason::NoEngine => Code::FailedPrecondition,
        Reason::SourceMemory | Reason::StorageFull | Reason::ForkBudget | Reason::LocalRoom | Reason::TargetMemory | Reason::DrillLimits => {
            Code::ResourceExhausted
        }
        Reason::TargetRefused | Reason::TargetNotEmpty | Reason::TargetVersion => Code::FailedPrecondition,
        Reason::SnapshotCorrupt | Reason::StorageCorrupt | Reason::RestoreDiffers | Reason::NotProved => Code::DataLoss,
        Reason::TargetExists => Code::AlreadyExists,
        Reason::DeadlineExceeded => Code::DeadlineExceeded,
        Reason::Poisoned | Reason::Internal => Code::Internal,
        Reason::Gone => Code::NotFound,
    }
}

/// A failure as the error of an operation.
pub(super) fn failure(failure: &Failure) -> rpc::Status {
    let info = rpc::ErrorInfo { reason: failure.reason.as_str().to_owned(), domain: DOMAIN.to_owned(), ..Default::default() };
    let detail = prost_types::Any { type_url: "type.googleapis.com/google.rpc.ErrorInfo".to_owned(), value: info.encode_to_vec() };
    rpc::Status { code: code(failure.reason) as i32, message: failure.message.clone(), details: vec![detail] }
}

/// The error of a cancelled operation, with the state in which it left what it had begun to change.
pub(super) fn cancelled(state: &str) -> rpc::Status {
    let state = if state.is_empty() { String::new() } else { format!("; {state}") };
    rpc::Status { code: Code::Cancelled as i32, message: format!("the operation was cancelled{state}"), details: Vec::new() }
}
