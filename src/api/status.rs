//! Every arrow from our errors to a status of the wire.

use crate::auth::Denied;
use crate::failure::{Failure, Reason};
use crate::pb::google::rpc;
use crate::store;
use prost::Message;
use std::time::Duration;
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

/// A name from a request as it is shown: bounded, and without control characters.
fn shown(name: &str) -> String {
    let text: String = name.chars().take(100).map(|c| if c.is_control() { '?' } else { c }).collect();
    format!("\"{text}\"")
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

/// What a refusal of the store is on the wire. `subject` is the thing that the call was about.
pub(super) fn store(error: store::Error, kind: &str, subject: &str) -> Status {
    match error {
        store::Error::NoOperation => not_found("operation", subject),
        store::Error::NoBackup => not_found("backup", subject),
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
        Reason::SourceUnreachable | Reason::SourceNotReady | Reason::SourceSave | Reason::SnapshotCut | Reason::StorageUnavailable => Code::Unavailable,
        Reason::SourceCredentials => Code::Unauthenticated,
        Reason::SourcePermission | Reason::StorageDenied => Code::PermissionDenied,
        Reason::SourceRole | Reason::SourceVersion => Code::FailedPrecondition,
        Reason::SourceMemory | Reason::StorageFull | Reason::ForkBudget => Code::ResourceExhausted,
        Reason::SnapshotCorrupt | Reason::StorageCorrupt => Code::DataLoss,
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

/// The error of a cancelled operation.
pub(super) fn cancelled() -> rpc::Status {
    rpc::Status { code: Code::Cancelled as i32, message: "the operation was cancelled".to_owned(), details: Vec::new() }
}
