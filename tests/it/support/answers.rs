//! Requests with a key, and answers taken apart: what an `Any` holds, which fields a refusal names.

use prost::{Message, Name};
use prost_types::Any;
use redkeep::pb::operation::{Operation, operation};
use tonic::{Request, Response, Status};
use tonic_types::StatusExt;

/// A request that is safe to repeat.
pub fn keyed<T>(message: T, key: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("idempotency-key", key.parse().expect("a key that can be sent"));
    request
}

/// The message of an answer.
pub fn bare<T>(answer: Result<Response<T>, Status>) -> Result<T, Status> {
    answer.map(Response::into_inner)
}

/// What an `Any` holds.
///
/// # Panics
///
/// When it is absent or holds another type.
pub fn unpack<M: Message + Name + Default>(any: Option<&Any>) -> M {
    let any = any.expect("the value is there");
    assert_eq!(any.type_url, format!("type.googleapis.com/{}", M::full_name()));
    M::decode(any.value.as_slice()).expect("the value is of its type")
}

/// The metadata of an operation.
pub fn metadata<M: Message + Name + Default>(operation: &Operation) -> M {
    unpack(operation.metadata.as_ref())
}

/// The response of an operation that has succeeded.
pub fn response<M: Message + Name + Default>(operation: &Operation) -> M {
    assert!(operation.done, "{operation:#?}");
    match &operation.result {
        Some(operation::Result::Response(any)) => unpack(Some(any)),
        Some(operation::Result::Error(_)) | None => panic!("no response: {operation:#?}"),
    }
}

/// Holds that an operation has not ended: it has neither an error nor a response.
pub fn assert_runs(operation: &Operation) {
    assert!(!operation.done && operation.result.is_none(), "{operation:#?}");
}

/// The fields that a refusal names.
///
/// # Panics
///
/// When it is no `INVALID_ARGUMENT`.
pub fn fields<T: std::fmt::Debug>(answer: Result<T, Status>) -> Vec<String> {
    let status = answer.expect_err("the request is refused");
    assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status:?}");
    let details = status.get_error_details();
    let refusal = details.bad_request().expect("a BadRequest");
    assert!(refusal.field_violations.iter().all(|violation| !violation.description.is_empty()), "{refusal:?}");
    refusal.field_violations.iter().map(|violation| violation.field.clone()).collect()
}
