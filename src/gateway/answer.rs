//! What goes back: bodies, codes and the headers of every answer.

use super::json::Fault;
use super::json::write;
use crate::pb;
use axum::body::Body;
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use prost::Message;
use prost_reflect::DynamicMessage;
use std::collections::BTreeSet;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The type of every answer that is no stream.
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The type of a stream: one JSON text a line.
pub(super) const JSON_LINES: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// The header, and metadata key, that names a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A request that is not served, with the HTTP code where it does not follow from the status.
#[derive(Debug)]
pub(super) struct Refusal {
    status: Status,
    http: Option<StatusCode>,
    allow: Option<String>,
}

impl Refusal {
    fn new(http: StatusCode, code: Code, message: impl Into<String>) -> Self {
        Self { status: Status::new(code, message), http: Some(http), allow: None }
    }

    /// There is nothing under this path.
    pub(super) fn no_such_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, Code::NotFound, "there is nothing under this path; /openapi.json lists what there is")
    }

    /// The path takes other methods.
    pub(super) fn other_methods(methods: &BTreeSet<String>) -> Self {
        let allow = methods.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let refusal = Self::new(StatusCode::METHOD_NOT_ALLOWED, Code::Unimplemented, format!("this path takes {allow} only"));
        Self { allow: Some(allow), ..refusal }
    }

    /// The body is longer than its limit, in bytes.
    pub(super) fn too_long(limit: usize) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, Code::ResourceExhausted, format!("the body is longer than {limit} bytes"))
    }

    /// The body did not arrive in time.
    pub(super) fn slow_body() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, Code::DeadlineExceeded, "the body did not arrive in time")
    }

    /// The target is longer than its limit, in bytes.
    pub(super) fn long_target(limit: usize) -> Self {
        Self::new(StatusCode::URI_TOO_LONG, Code::InvalidArgument, format!("path and query are longer than {limit} bytes"))
    }

    /// The body is of another type or encoding.
    pub(super) fn other_type(what: &str) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::InvalidArgument, what)
    }

    /// The request as a whole is malformed.
    pub(super) fn malformed(what: impl Into<String>) -> Self {
        Self::from(Status::invalid_argument(what))
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self { status, http: None, allow: None }
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        if fault.field.is_empty() {
            return Self::malformed(fault.what);
        }
        let message = format!("{} {}", fault.field, fault.what);
        Self::from(Status::with_error_details(Code::InvalidArgument, message, ErrorDetails::with_bad_request_violation(fault.field, fault.what)))
    }
}

/// The HTTP code of a gRPC code.
pub(super) fn http_code(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        // The client has gone, so nobody may ever see it. The number has no name in the standard.
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// A status as the JSON of `google.rpc.Status`; details that cannot be written are left out.
pub(super) fn status_json(status: &Status) -> Vec<u8> {
    let details = pb::google::rpc::Status::decode(status.details()).map(|whole| whole.details).unwrap_or_default();
    let whole = pb::google::rpc::Status { code: status.code() as i32, message: status.message().to_owned(), details };
    let mut dynamic = DynamicMessage::new(pb::pool().get_message_by_name("google.rpc.Status").expect("google/rpc/status.proto is compiled in"));
    // Of two descriptions of one type each takes what the other encodes.
    let _ = dynamic.transcode_from(&whole);
    write::message(&dynamic)
}

/// A refusal as an answer.
pub(super) fn refusal(refusal: &Refusal) -> Response {
    let code = refusal.http.unwrap_or_else(|| http_code(refusal.status.code()));
    let mut answer = json(status_json(&refusal.status).into(), refusal.status.metadata());
    *answer.status_mut() = code;
    if let Some(allow) = refusal.allow.as_ref().and_then(|allow| HeaderValue::from_str(allow).ok()) {
        answer.headers_mut().insert(ALLOW, allow);
    }
    // What the check of callers says of it is more than this.
    if code == StatusCode::UNAUTHORIZED && !answer.headers().contains_key(WWW_AUTHENTICATE) {
        answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    answer
}

/// A JSON text as an answer to a call that came back with this metadata.
pub(super) fn json(text: Bytes, metadata: &MetadataMap) -> Response {
    of_type(JSON, Body::from(text), metadata)
}

/// An answer of a type.
pub(super) fn of_type(kind: HeaderValue, body: Body, metadata: &MetadataMap) -> Response {
    let mut answer = Response::new(body);
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for name in [REQUEST_ID, WWW_AUTHENTICATE] {
        if let Some(value) = metadata.get(name.as_str()).and_then(|value| HeaderValue::from_bytes(value.as_encoded_bytes()).ok()) {
            headers.insert(name, value);
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_types::Any;
    use serde_json::{Value, json};

    fn told(status: &Status) -> Value {
        serde_json::from_slice(&status_json(status)).unwrap()
    }

    #[test]
    fn every_code_has_its_http_code() {
        let table = [
            (0, 200),
            (1, 499),
            (2, 500),
            (3, 400),
            (4, 504),
            (5, 404),
            (6, 409),
            (7, 403),
            (8, 429),
            (9, 400),
            (10, 409),
            (11, 400),
            (12, 501),
            (13, 500),
            (14, 503),
            (15, 500),
            (16, 401),
        ];
        for (code, http) in table {
            assert_eq!(http_code(Code::from_i32(code)).as_u16(), http, "{code}");
        }
    }

    #[test]
    fn a_status_is_not_wrapped() {
        assert_eq!(status_json(&Status::not_found("no \"x\" 100%")), br#"{"code":5,"message":"no \"x\" 100%"}"#);
        let refused = Status::with_error_details(Code::InvalidArgument, "a b", ErrorDetails::with_bad_request_violation("a", "b"));
        let detail = json!({"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [{"field": "a", "description": "b"}]});
        assert_eq!(told(&refused), json!({"code": 3, "message": "a b", "details": [detail]}));
    }

    #[test]
    fn details_that_cannot_be_written_are_dropped() {
        let known = Any { type_url: "type.googleapis.com/google.rpc.RequestInfo".into(), value: vec![0x0a, 1, b'r'] };
        let unknown = Any { type_url: "type.googleapis.com/no.such.Type".into(), value: vec![1] };
        let broken = Any { type_url: "type.googleapis.com/google.rpc.RequestInfo".into(), value: vec![0xff] };
        let of = |details: Vec<Any>| {
            let whole = pb::google::rpc::Status { code: 3, message: "x".into(), details };
            told(&Status::with_details(Code::InvalidArgument, "x", whole.encode_to_vec().into()))
        };
        let shown = json!({"@type": "type.googleapis.com/google.rpc.RequestInfo", "requestId": "r"});
        assert_eq!(of(vec![unknown.clone(), known, broken])["details"], json!([shown]));
        assert_eq!(of(vec![unknown]), json!({"code": 3, "message": "x", "details": []}));
        assert_eq!(told(&Status::with_details(Code::Internal, "x", Bytes::from_static(b"\xff"))), json!({"code": 13, "message": "x"}));
    }

    #[test]
    fn headers_of_every_answer() {
        let mut status = Status::unauthenticated("who are you");
        status.metadata_mut().insert("x-request-id", "abc".parse().unwrap());
        let answer = refusal(&status.into());
        assert_eq!(answer.status(), 401);
        for (name, value) in [("content-type", "application/json"), ("cache-control", "no-store"), ("x-request-id", "abc"), ("www-authenticate", "Bearer")] {
            assert_eq!(answer.headers()[name], value);
        }
        let methods = ["GET", "HEAD"].map(str::to_owned).into();
        let answer = refusal(&Refusal::other_methods(&methods));
        assert_eq!((answer.status().as_u16(), &answer.headers()["allow"]), (405, &HeaderValue::from_static("GET, HEAD")));
    }
}
