//! Calls of the gRPC services in this process, as any other client would make them.
//!
//! The services see the caller's address and whatever else was found out about the connection, and of the headers only
//! those named here.

use super::answer::Refusal;
use super::routes::Binding;
use crate::api::{self, timeout};
use axum::Router;
use axum::http::header::AUTHORIZATION;
use axum::http::{Extensions, HeaderMap, HeaderValue};
use prost::Message;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use tokio::time::Instant;
use tonic::codec::{DecodeBuf, Decoder, EncodeBuf, Encoder, Streaming};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

/// Headers that go on to the services, besides `authorization`.
const PASSED: [&str; 5] = ["idempotency-key", "x-request-id", "x-client-request-id", "x-client-trace-id", "grpc-timeout"];

/// Until when an answer is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline(Option<Instant>);

impl Deadline {
    /// Reads the time limit of a request, from its arrival on.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let limit = timeout::of(headers).map_err(|fault| Refusal::malformed(fault.to_string()))?;
        Ok(Self(limit.and_then(|limit| Instant::now().checked_add(limit))))
    }

    /// Waits for an answer no longer than until then.
    ///
    /// # Errors
    ///
    /// `DEADLINE_EXCEEDED` when the time is over; whatever was waited for is dropped, which ends the call.
    pub(super) async fn bound<T>(self, answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        match self.0 {
            None => answer.await,
            Some(at) => tokio::time::timeout_at(at, answer).await.map_err(|_| Status::deadline_exceeded("the time of grpc-timeout is over"))?,
        }
    }
}

/// The metadata of a call from the headers of its request.
///
/// # Errors
///
/// When `authorization` is given more than once.
pub(super) fn metadata(headers: &HeaderMap) -> Result<MetadataMap, Refusal> {
    let mut passed = HeaderMap::new();
    for name in PASSED {
        for value in headers.get_all(name) {
            passed.append(name, value.clone());
        }
    }
    let mut given = headers.get_all(AUTHORIZATION).iter();
    if let Some(value) = given.next() {
        passed.insert(AUTHORIZATION, bearer(value));
    }
    if given.next().is_some() {
        return Err(Refusal::malformed("authorization must be given once"));
    }
    Ok(MetadataMap::from_headers(passed))
}

/// The same credentials, with the scheme as the services know it: its case means nothing in HTTP.
fn bearer(value: &HeaderValue) -> HeaderValue {
    let bytes = value.as_bytes();
    let mut canonical = match bytes.split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => {
            HeaderValue::from_bytes(&[b"Bearer ", token.trim_ascii()].concat()).unwrap_or_else(|_| value.clone())
        }
        _ => value.clone(),
    };
    canonical.set_sensitive(true);
    canonical
}

/// A call that is about to be made.
pub(super) struct Call<'a> {
    pub(super) binding: &'a Binding,
    pub(super) metadata: MetadataMap,
    pub(super) extensions: Extensions,
    pub(super) message: DynamicMessage,
}

impl Call<'_> {
    /// Makes a call that has one answer.
    pub(super) async fn unary(self, services: Router) -> Result<Response<DynamicMessage>, Status> {
        let (mut client, codec, path) = (client(services), Codec { answer: self.binding.method.output() }, self.binding.path.clone());
        ready(&mut client).await?;
        client.unary(self.request(), path, codec).await
    }

    /// Makes a call that is answered by a stream. Dropping the stream ends the call.
    pub(super) async fn stream(self, services: Router) -> Result<Response<Streaming<DynamicMessage>>, Status> {
        let (mut client, codec, path) = (client(services), Codec { answer: self.binding.method.output() }, self.binding.path.clone());
        ready(&mut client).await?;
        client.server_streaming(self.request(), path, codec).await
    }

    fn request(self) -> Request<DynamicMessage> {
        Request::from_parts(self.metadata, self.extensions, self.message)
    }
}

fn client(services: Router) -> tonic::client::Grpc<Router> {
    tonic::client::Grpc::new(services).max_decoding_message_size(api::RESPONSE_BYTES)
}

async fn ready(client: &mut tonic::client::Grpc<Router>) -> Result<(), Status> {
    client.ready().await.map_err(|never| match never {})
}

/// Protobuf whose answers are of a type known at run time only.
struct Codec {
    answer: MessageDescriptor,
}

impl tonic::codec::Codec for Codec {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = Writer;
    type Decoder = Reader;

    fn encoder(&mut self) -> Writer {
        Writer
    }

    fn decoder(&mut self) -> Reader {
        Reader(self.answer.clone())
    }
}

struct Writer;

impl Encoder for Writer {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, item: DynamicMessage, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buffer).map_err(|_| Status::internal("the request does not fit the buffer"))
    }
}

struct Reader(MessageDescriptor);

impl Decoder for Reader {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        DynamicMessage::decode(self.0.clone(), buffer).map(Some).map_err(|_| Status::internal("the answer cannot be read"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_limit_is_read_or_refused() {
        let of = |text: &'static str| Deadline::of(&[(timeout::HEADER, HeaderValue::from_static(text))].into_iter().collect());
        // One that no clock can show is none.
        assert!(of("99999999H").is_ok());
        assert!(of("soon").is_err());
    }

    #[test]
    fn what_goes_on_to_the_services() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "bEaReR   abc"),
            ("idempotency-key", "k"),
            ("x-request-id", "r"),
            ("x-client-request-id", "c"),
            ("x-client-trace-id", "t"),
            ("grpc-timeout", "1S"),
            ("grpc-metadata-authorization", "Bearer evil"),
            ("x-http-method-override", "DELETE"),
            ("connection", "close"),
            ("cookie", "a=b"),
            ("x-forwarded-for", "1.2.3.4"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let passed = metadata(&headers).unwrap().into_headers();
        let mut names: Vec<&str> = passed.keys().map(|name| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["authorization", "grpc-timeout", "idempotency-key", "x-client-request-id", "x-client-trace-id", "x-request-id"]);
        assert_eq!(passed["authorization"], "Bearer abc");
        assert!(passed["authorization"].is_sensitive());

        headers.insert("authorization", HeaderValue::from_static("Basic abc"));
        assert_eq!(metadata(&headers).unwrap().into_headers()["authorization"], "Basic abc");
        headers.append("authorization", HeaderValue::from_static("Bearer x"));
        assert!(metadata(&headers).is_err());
    }
}
