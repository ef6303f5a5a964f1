//! Answers and refusals in the one shape that this API has for each.

use crate::backup::Name;
use crate::store;
use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde::Serialize;
use std::fmt::Display;
use tonic::Code;

/// Type of every body.
const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=UTF-8");

/// When to come again after a refusal that passes, in seconds.
const RETRY_SECS: HeaderValue = HeaderValue::from_static("5");

/// Longest part of somebody's text in a message, in characters.
const SHOWN_CHARS: usize = 200;

/// A status with a body.
#[derive(Debug)]
pub(super) struct Answer {
    status: StatusCode,
    body: Vec<u8>,
    allow: Option<&'static str>,
    passes: bool,
}

/// The answer that names what came of a call.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    object_id: String,
}

impl Answer {
    /// Compact JSON and a line feed.
    pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Result<Self, Refusal> {
        let mut body = serde_json::to_vec(value).map_err(|_| Refusal::Internal)?;
        body.push(b'\n');
        Ok(Self { status, body, allow: None, passes: false })
    }

    /// The id of a backup or an operation.
    pub(super) fn object(status: StatusCode, id: impl Display) -> Result<Self, Refusal> {
        Self::json(status, &Object { object_id: id.to_string() })
    }

    /// A refusal with this code and message.
    pub(super) fn refusal(status: StatusCode, code: &str, message: &str) -> Self {
        // Two texts can always be written.
        let mut body = serde_json::to_vec(&Envelope { error: Told { code, message } }).unwrap_or_default();
        body.push(b'\n');
        Self { status, body, allow: None, passes: false }
    }

    /// The answer as it goes out.
    pub(super) fn into_response(self) -> Response {
        let length = HeaderValue::from(self.body.len());
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, JSON);
        headers.insert(CONTENT_LENGTH, length);
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if self.passes {
            headers.insert(RETRY_AFTER, RETRY_SECS);
        }
        response
    }
}

/// Why a call is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There is nothing under the path.
    NoRoute,
    /// The path has no such method.
    Method {
        /// Those that it has.
        allow: &'static str,
    },
    /// The body is no JSON object.
    Json(String),
    /// A member, filter or header breaks its rule.
    Field { field: &'static str, what: String },
    /// The body is longer than a body may be.
    TooLarge,
    /// The body did not arrive in time.
    TooSlow,
    /// The cluster runs in cluster mode.
    ClusterMode(String),
    /// The cluster has one node.
    TooFewNodes(String),
    /// The cluster has no replica.
    NoReplica(String),
    /// Nobody known calls.
    Unauthenticated(String),
    /// The caller has no right to this.
    Denied(String),
    /// The caller has called too often.
    TooOften(String),
    /// The project has as many backups as it may.
    Quota(u64),
    /// There is no such cluster in the project.
    NoCluster(String),
    /// There is no such backup in the project.
    NoBackup(String),
    /// The cluster is not running yet.
    NotRunning(String),
    /// There is no such bucket.
    NoBucket(String),
    /// The bucket takes nothing from the project.
    ForeignBucket(String),
    /// Another operation is at work on the same thing.
    Busy(String),
    /// The backup is in another state than it must be.
    NotAvailable(&'static str),
    /// The backup is encrypted, and there is no key to read it with.
    Locked(String),
    /// As many copies and exports of the backup are under way as may be.
    ReadersFull(usize),
    /// Somebody wants the backup to stay.
    Held(String),
    /// The project has a backup of this name.
    NameTaken(Name),
    /// The service can take nothing on for the moment.
    Overloaded,
    /// A fault of ours.
    Internal,
}

impl Refusal {
    /// Status, code and message.
    fn told(&self) -> (StatusCode, &'static str, String) {
        use StatusCode as Is;
        match self {
            Self::NoRoute => (Is::NOT_FOUND, "ROUTE_NOT_FOUND", "there is nothing under this path".to_owned()),
            Self::Method { allow } => (Is::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", format!("this path takes {allow} only")),
            Self::Json(what) => (Is::BAD_REQUEST, "INVALID_JSON", format!("the body must be a JSON object: {}", shown(what))),
            Self::Field { field, what } => (Is::BAD_REQUEST, "INVALID_ARGUMENT", format!("{field} {what}")),
            Self::TooLarge => (Is::PAYLOAD_TOO_LARGE, "BODY_TOO_LARGE", format!("the body has more than {} bytes", crate::api::REQUEST_BYTES)),
            Self::TooSlow => (Is::REQUEST_TIMEOUT, "REQUEST_TIMEOUT", "the body did not arrive in time".to_owned()),
            Self::ClusterMode(id) => (
                Is::BAD_REQUEST,
                "CLUSTER_MODE_ENABLED",
                format!("cluster {id} runs in cluster mode, and backups of such clusters are not taken; [memstore] allow_cluster_mode allows them"),
            ),
            Self::TooFewNodes(id) => (
                Is::BAD_REQUEST,
                "TOO_FEW_NODES",
                format!("cluster {id} has one node that is known, and a backup needs two or more; add a replica, or name it under nodes"),
            ),
            Self::NoReplica(id) => (
                Is::BAD_REQUEST,
                "REPLICA_REQUIRED",
                format!("cluster {id} has no replica that is known, and a backup needs one; add it, or name it under nodes"),
            ),
            Self::Unauthenticated(what) => (Is::UNAUTHORIZED, "UNAUTHENTICATED", shown(what)),
            Self::Denied(what) => (Is::FORBIDDEN, "PERMISSION_DENIED", shown(what)),
            Self::TooOften(what) => (Is::TOO_MANY_REQUESTS, "TOO_MANY_REQUESTS", shown(what)),
            Self::Quota(quota) => (Is::FORBIDDEN, "QUOTA_EXCEEDED", format!("the project has as many backups as it may, {quota}; delete one first")),
            Self::NoCluster(id) => (Is::NOT_FOUND, "CLUSTER_NOT_FOUND", format!("cluster \"{}\" not found", shown(id))),
            Self::NoBackup(name) => (Is::NOT_FOUND, "BACKUP_NOT_FOUND", format!("backup \"{}\" not found", shown(name))),
            Self::NotRunning(id) => (Is::CONFLICT, "CLUSTER_NOT_RUNNING", format!("cluster {id} is not Running yet: its adoption is under way")),
            Self::NoBucket(name) => (Is::NOT_FOUND, "BUCKET_NOT_FOUND", format!("bucket \"{}\" not found", shown(name))),
            Self::ForeignBucket(name) => (
                Is::FORBIDDEN,
                "BUCKET_FORBIDDEN",
                format!("bucket \"{}\" takes no backups of this project; its folders under [[buckets]] say whose", shown(name)),
            ),
            Self::Busy(id) => (
                Is::CONFLICT,
                "OPERATION_IN_PROGRESS",
                format!("operation {id} is under way on the same cluster, backup or target; try again when it has ended"),
            ),
            Self::Locked(name) => (
                Is::CONFLICT,
                "BACKUP_ENCRYPTED",
                format!("backup \"{}\" is encrypted, and no key of artifacts.age_identity_file opens it; dumps are exported decoded", shown(name)),
            ),
            Self::NotAvailable(state) => (Is::CONFLICT, "BACKUP_NOT_AVAILABLE", format!("the backup is not Available, it is {}", state_word(state))),
            Self::ReadersFull(count) => {
                (Is::CONFLICT, "TOO_MANY_READERS", format!("{count} copies and exports of the backup are under way; try again when one of them has ended"))
            }
            Self::Held(reason) => (Is::CONFLICT, "BACKUP_HELD", format!("the backup is held: {}; lift the hold first", shown(reason))),
            Self::NameTaken(name) => (Is::CONFLICT, "NAME_TAKEN", format!("the project has a backup named \"{name}\" already; choose another name")),
            Self::Overloaded => (Is::INTERNAL_SERVER_ERROR, "UNAVAILABLE", "the service can take nothing on for the moment; try again later".to_owned()),
            Self::Internal => (Is::INTERNAL_SERVER_ERROR, "INTERNAL", "the service made a mistake; its log says more".to_owned()),
        }
    }
}

/// The store's word for a state as this API has it.
fn state_word(state: &str) -> &str {
    match state {
        "CREATING" => "Creating",
        "ERROR" => "Error",
        other => other,
    }
}

/// Somebody's text as it is shown: bounded, and without control characters.
fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[derive(Serialize)]
struct Envelope<'a> {
    error: Told<'a>,
}

#[derive(Serialize)]
struct Told<'a> {
    code: &'a str,
    message: &'a str,
}

impl From<&Refusal> for Answer {
    fn from(refusal: &Refusal) -> Self {
        let (status, code, message) = refusal.told();
        let allow = if let Refusal::Method { allow } = refusal { Some(*allow) } else { None };
        Self { allow, passes: matches!(refusal, Refusal::Overloaded | Refusal::TooOften(_)), ..Self::refusal(status, code, &message) }
    }
}

impl Refusal {
    /// What a refusal of the store is here. `name` is of the backup that the call was about.
    pub(super) fn of_store(error: store::Error, name: &str) -> Self {
        match error {
            store::Error::NoBackup => Self::NoBackup(name.to_owned()),
            store::Error::Conflict(id) => Self::Busy(id),
            store::Error::NameTaken(name) => Self::NameTaken(name),
            store::Error::NotAvailable(state) => Self::NotAvailable(state),
            store::Error::Held(reason) => Self::Held(reason),
            store::Error::ReadersFull(count) => Self::ReadersFull(count),
            store::Error::QueueFull(_) => Self::Overloaded,
            store::Error::Unavailable(_) | store::Error::Damaged(_) => {
                tracing::error!(error = %error, "the store failed a call");
                Self::Overloaded
            }
            store::Error::NoOperation
            | store::Error::NoCluster
            | store::Error::ClusterTaken(_)
            | store::Error::KeyReused
            | store::Error::NotSuspect
            | store::Error::NoPolicy
            | store::Error::PolicyTaken(_)
            | store::Error::PoliciesFull(_)
            | store::Error::NotDeleting
            | store::Error::Purging
            | store::Error::Fenced(_)
            | store::Error::Cancelling
            | store::Error::NotAllowed(_)
            | store::Error::Invalid(_) => {
                tracing::error!(error = %error, "the store refused a call that it should not see");
                Self::Internal
            }
        }
    }

    /// What the one check of callers said.
    pub(super) fn of_access(status: &tonic::Status) -> Self {
        let message = status.message().to_owned();
        match status.code() {
            Code::Unauthenticated => Self::Unauthenticated(message),
            Code::PermissionDenied | Code::NotFound => Self::Denied(message),
            Code::ResourceExhausted => Self::TooOften(message),
            Code::Unavailable => Self::Overloaded,
            code => {
                tracing::error!(?code, message, "a caller could not be let in");
                Self::Internal
            }
        }
    }
}

/// What an answer is in the words of gRPC, in which every door is counted and audited.
pub(super) fn code(status: StatusCode) -> Code {
    match status {
        StatusCode::OK | StatusCode::CREATED => Code::Ok,
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => Code::InvalidArgument,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => Code::Unimplemented,
        StatusCode::CONFLICT => Code::FailedPrecondition,
        StatusCode::TOO_MANY_REQUESTS => Code::ResourceExhausted,
        StatusCode::REQUEST_TIMEOUT => Code::DeadlineExceeded,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        _ => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]
    use super::*;

    fn sent(answer: Answer) -> (u16, String) {
        let text = String::from_utf8(answer.body).unwrap();
        (answer.status.as_u16(), text)
    }

    #[test]
    fn a_refusal_has_one_shape() {
        let (status, body) = sent((&Refusal::NoBackup("a\"b\n".into())).into());
        assert_eq!((status, body.as_str()), (404, "{\"error\":{\"code\":\"BACKUP_NOT_FOUND\",\"message\":\"backup \\\"a\\\"b?\\\" not found\"}}\n"));
        let (_, long) = sent((&Refusal::NoCluster("é".repeat(100_000))).into());
        assert!(long.len() < 600);
    }

    #[test]
    fn the_store_tells_no_inner_detail() {
        let hidden = || "/var/lib/secret".to_owned();
        for error in [store::Error::Unavailable(hidden()), store::Error::Damaged(hidden()), store::Error::Invalid(hidden()), store::Error::Fenced(hidden())] {
            let (status, body) = sent((&Refusal::of_store(error, "a")).into());
            assert_eq!((status, body.contains("secret")), (500, false), "{body}");
        }
        let (status, body) = sent((&Refusal::of_access(&tonic::Status::internal(hidden()))).into());
        assert_eq!((status, body.contains("secret")), (500, false), "{body}");
    }

    #[test]
    fn headers_say_what_the_body_is() {
        let response = Answer::object(StatusCode::CREATED, "x").unwrap().into_response();
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        assert_eq!((header("content-type"), header("content-length"), header("allow")), (Some("application/json; charset=UTF-8"), Some("17"), None));
        let response = Answer::from(&Refusal::Method { allow: "POST" }).into_response();
        assert_eq!(response.headers()["allow"], "POST");
        assert_eq!(Answer::from(&Refusal::Overloaded).into_response().headers()["retry-after"], "5");
    }
}
