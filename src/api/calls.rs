//! What every call leaves behind, whatever it does: numbers, a request id on its answer, and a line in the audit log if it
//! changes something.
//!
//! One layer around the services; a door with handlers of its own does the same by hand, with [`Calls::begin`] and
//! [`Call::end`]. Which methods change something, and what their requests are about, is read from the descriptors, so that no
//! handler can forget it. Who called and which folder was touched is told by those who let the caller in.

use super::access;
use crate::audit::{Audit, CallRecord, Entry};
use crate::pb;
use crate::peer::Peer;
use crate::telemetry::metrics::{CALL_SECONDS, CALLS, CALLS_IN_FLIGHT, Metrics};
use ::metrics::{Counter, Gauge, Histogram};
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use chrono::Utc;
use http_body_util::{BodyExt, Limited};
use hyper::body::Frame;
use prost::Message;
use prost_reflect::{DynamicMessage, MessageDescriptor, MethodDescriptor};
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use tokio::time::Instant;
use tonic::{Code, Status};
use tracing::Instrument;
use uuid::Uuid;

/// The header with the id of a request: on every answer, and on requests that bring their own.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The header in which the SDKs of the managed-Redis schema bring theirs.
const CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("x-client-request-id");

/// Longest request id that is taken over, in characters.
const REQUEST_ID_CHARS: usize = 128;

/// What stands for every path that is no call.
const UNKNOWN: &str = "unknown";

/// The method that answers with an operation and changes nothing.
const GET_OPERATION: &str = "/yandex.cloud.operation.OperationService/Get";

/// The type of message with which changing calls are answered.
const OPERATION: &str = "yandex.cloud.operation.Operation";

/// Calls that answer with something else and are audited all the same: they hand out data or a token, or have no descriptor.
const AUDITED: [&str; 8] = [
    access::DOWNLOAD,
    "/redkeep.v1.BackupService/Expire",
    "/redkeep.v1.BackupService/GetDownloadLinks",
    "/yandex.cloud.iam.v1.IamTokenService/Create",
    access::memstore::COPY,
    access::memstore::CREATE,
    access::memstore::DELETE,
    access::memstore::EXPORT,
];

/// Fields that name what a request is about, the closest first, with the word for such things.
const TARGETS: [(&str, &str); 3] = [("backup_id", "backups"), ("operation_id", "operations"), ("cluster_id", "clusters")];

/// Field with which the suspicion is taken from a backup.
const CLEAR_SUSPECT: &str = "clear_suspect";

/// Most bytes of a message that are looked at for what it is about.
const SEEN_BYTES: usize = 64 * 1024;

/// Bytes before a message on the wire: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// Code of the last status that there is.
const CODES: usize = 17;

tokio::task_local! {
    /// The id of the request that this task answers.
    static CURRENT: Arc<str>;
}

/// The id of the request that is being answered here; a fresh one outside of any.
pub(super) fn request_id() -> String {
    CURRENT.try_with(|id| id.to_string()).unwrap_or_else(|_| Uuid::new_v4().to_string())
}

/// One method, with the series of its numbers.
struct Method {
    /// Service and method, as in `redkeep.v1.BackupService/Create`.
    name: &'static str,
    /// Whether each call of it gets a line in the audit log.
    is_audited: bool,
    /// The type of its requests, where one of [`TARGETS`] is in it.
    request: Option<MessageDescriptor>,
    /// Whether it is answered with an operation.
    gives_operation: bool,
    counts: [OnceLock<Counter>; CODES],
    seconds: OnceLock<Histogram>,
}

impl Method {
    fn new(path: &'static str) -> Self {
        let descriptor = descriptor(path);
        let gives_operation = descriptor.as_ref().is_some_and(|method| method.output().full_name() == OPERATION);
        let has_target = |message: &MessageDescriptor| TARGETS.iter().any(|(field, _)| message.get_field_by_name(field).is_some());
        Self {
            name: path.strip_prefix('/').unwrap_or(path),
            is_audited: (gives_operation && path != GET_OPERATION) || AUDITED.contains(&path),
            request: descriptor.map(|method| method.input()).filter(has_target),
            gives_operation,
            counts: Default::default(),
            seconds: OnceLock::new(),
        }
    }
}

fn descriptor(path: &str) -> Option<MethodDescriptor> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    pb::pool().get_service_by_name(service)?.methods().find(|known| known.name() == method)
}

struct Inner {
    metrics: Metrics,
    audit: Audit,
    in_flight: Gauge,
    methods: HashMap<&'static str, Arc<Method>>,
    unknown: Arc<Method>,
}

/// Where calls leave what they leave behind. Cheap to clone.
#[derive(Clone)]
pub struct Calls(Arc<Inner>);

impl Calls {
    /// Calls leave their numbers in `metrics` and their lines in `audit`.
    pub fn new(metrics: Metrics, audit: Audit) -> Self {
        let methods = access::paths().map(|path| (path, Arc::new(Method::new(path)))).collect();
        let in_flight = metrics.gauge(&CALLS_IN_FLIGHT, &[]);
        in_flight.set(0.0);
        Self(Arc::new(Inner { metrics, audit, in_flight, methods, unknown: Arc::new(Method::new(UNKNOWN)) }))
    }

    /// Begins a call of the method at `path`, which is a name of the table of rules such as `/redkeep.v1.BackupService/Get`;
    /// every other path counts as one method. The request's headers may bring an id, its extensions tell the peer.
    pub fn begin(&self, path: &str, headers: &HeaderMap, extensions: &Extensions) -> Call {
        self.0.in_flight.increment(1.0);
        let method = Arc::clone(self.0.methods.get(path).unwrap_or(&self.0.unknown));
        Call {
            record: if method.is_audited && self.0.audit.is_kept() { CallRecord::new() } else { CallRecord::default() },
            calls: self.clone(),
            method,
            request_id: brought_id(headers).unwrap_or_else(|| Uuid::new_v4().to_string()).into(),
            peer: extensions.get::<Peer>().map(|peer| peer.address),
            began_at: Instant::now(),
            is_open: true,
        }
    }
}

/// The id that a request brings, if it can be taken over.
fn brought_id(headers: &HeaderMap) -> Option<String> {
    let fits = |id: &&str| (1..=REQUEST_ID_CHARS).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    [REQUEST_ID, CLIENT_REQUEST_ID].iter().find_map(|name| headers.get(name)?.to_str().ok().filter(fits).map(str::to_owned))
}

/// One call under way. Dropped before its end, it counts as cancelled: its caller has gone, and what it asked for may have
/// been done or not.
pub struct Call {
    calls: Calls,
    method: Arc<Method>,
    record: CallRecord,
    request_id: Arc<str>,
    peer: Option<std::net::SocketAddr>,
    began_at: Instant,
    is_open: bool,
}

impl Call {
    /// What is to become known of it. It belongs into the extensions of the request, for those who learn it.
    pub fn record(&self) -> &CallRecord {
        &self.record
    }

    /// The id that is to be on its answer, as [`REQUEST_ID`].
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// Ends the call with the status of its answer. On return its line is in the audit log, so the answer may go out.
    ///
    /// # Cancel safety
    ///
    /// The line is written all the same.
    pub async fn end(mut self, code: Code) {
        if let Some(writing) = self.close(code) {
            let _ = writing.await;
        }
    }

    /// Counts the call, and has its line written, in a task of its own that nobody's departure ends.
    fn close(&mut self, code: Code) -> Option<tokio::task::JoinHandle<()>> {
        let Self { calls, method, is_open, .. } = self;
        if !std::mem::replace(is_open, false) {
            return None;
        }
        let (elapsed, word) = (self.began_at.elapsed(), word(code));
        let Inner { metrics, audit, in_flight, .. } = &*calls.0;
        in_flight.decrement(1.0);
        if let Some(count) = method.counts.get(code as usize) {
            count.get_or_init(|| metrics.counter(&CALLS, &[method.name, word])).increment(1);
        }
        method.seconds.get_or_init(|| metrics.histogram(&CALL_SECONDS, &[method.name])).record(elapsed);
        let elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        if is_break(code) {
            tracing::warn!(request.id = %self.request_id, method = method.name, code = word, elapsed_us, "a call broke");
        } else {
            tracing::debug!(request.id = %self.request_id, method = method.name, code = word, elapsed_us, "a call was answered");
        }
        if !method.is_audited || !audit.is_kept() {
            return None;
        }
        let entry = Entry {
            time: Utc::now(),
            request_id: self.request_id.to_string(),
            peer: self.peer,
            method: method.name,
            known: self.record.known(),
            outcome: word,
        };
        let audit = audit.clone();
        let writing = async move { audit.write(&entry).await };
        // A call is answered by a task of a runtime; one that is dropped with its runtime has nobody to write for it.
        tokio::runtime::Handle::try_current().ok().map(|runtime| runtime.spawn(writing))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.close(Code::Cancelled);
    }
}

/// The layer around the services.
pub async fn observe(State(calls): State<Calls>, mut request: Request, next: Next) -> Response {
    let call = calls.begin(request.uri().path(), request.headers(), request.extensions());
    request.extensions_mut().insert(call.record.clone());
    let asked = Seen::default();
    if call.method.is_audited && call.method.request.is_some() {
        request = request.map(|body| Body::new(Watched { body, seen: asked.clone(), call: None }));
    }
    // What a changing call logs has its id. Reads log next to nothing and are many: theirs costs something only if asked for.
    let span = if call.method.is_audited {
        tracing::info_span!("call", request.id = %call.request_id, method = call.method.name)
    } else {
        tracing::debug_span!("call", request.id = %call.request_id, method = call.method.name)
    };
    let id = HeaderValue::from_str(&call.request_id);
    let answered = CURRENT.scope(Arc::clone(&call.request_id), next.run(request)).instrument(span);
    let mut response = if call.method.is_audited { audited(call, &asked, answered).await } else { watched(call, answered.await).await };
    // The id was checked, or made here. It rides in the header block of a refusal, too: a block of its own before the status
    // would hide the code from some clients.
    if let Ok(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// Holds an answer back until its end is known and its line is written.
async fn audited(call: Call, asked: &Seen, answered: impl Future<Output = Response>) -> Response {
    // Told however the call ends: what it was about is known as soon as its request has been read.
    let told = Told { call, asked };
    let (parts, body) = answered.await.into_parts();
    let seen = Seen::default();
    let collected = match code_of(&parts.headers) {
        Some(_) => Ok(body),
        None => Limited::new(Watched { body, seen: seen.clone(), call: None }, super::RESPONSE_BYTES).collect().await.map(Body::new),
    };
    let code = code_of(&parts.headers).or_else(|| seen.code()).unwrap_or_else(|| code_of_http(parts.status));
    match collected {
        Ok(body) => {
            if told.call.method.gives_operation
                && let Some(operation) = seen.message().and_then(|message| pb::operation::Operation::decode(message).ok())
            {
                told.call.record.set_operation(&operation.id);
            }
            told.end(code).await;
            Response::from_parts(parts, body)
        }
        Err(_) => {
            told.end(Code::Internal).await;
            Status::internal("the answer broke off").into_http()
        }
    }
}

/// A call whose request tells what it is about.
struct Told<'a> {
    call: Call,
    asked: &'a Seen,
}

impl Told<'_> {
    async fn end(mut self, code: Code) {
        self.tell_target();
        if let Some(writing) = self.call.close(code) {
            let _ = writing.await;
        }
    }

    fn tell_target(&self) {
        let message = self.call.method.request.clone().zip(self.asked.message());
        let Some(message) = message.and_then(|(kind, bytes)| DynamicMessage::decode(kind, bytes).ok()) else { return };
        let named = |(field, word): &(&str, &str)| {
            let value = message.get_field_by_name(field)?;
            value.as_str().filter(|id| !id.is_empty()).map(|id| format!("{word}/{id}"))
        };
        if let Some(target) = TARGETS.iter().find_map(named) {
            self.call.record.set_target(&target);
        }
        // With it older backups may go again, so it is told by itself.
        if message.get_field_by_name(CLEAR_SUSPECT).is_some_and(|value| value.as_bool() == Some(true)) {
            self.call.record.set_clear_suspect();
        }
    }
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if self.call.is_open {
            self.tell_target();
        }
    }
}

/// Lets an answer pass, and ends its call when it has ended.
async fn watched(call: Call, response: Response) -> Response {
    if let Some(code) = code_of(response.headers()) {
        call.end(code).await;
        return response;
    }
    let status = response.status();
    if response.body().is_end_stream() {
        call.end(code_of_http(status)).await;
        return response;
    }
    response.map(|body| Body::new(Watched { body, seen: Seen::default(), call: Some((call, status)) }))
}

/// What was seen of a body that passed.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Passed>>);

#[derive(Default)]
struct Passed {
    bytes: Vec<u8>,
    code: Option<Code>,
}

impl Seen {
    fn with<T>(&self, with: impl FnOnce(&mut Passed) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn code(&self) -> Option<Code> {
        self.with(|passed| passed.code)
    }

    /// The first message, if it is whole, not compressed and not too long to be kept.
    fn message(&self) -> Option<Bytes> {
        let bytes = self.with(|passed| std::mem::take(&mut passed.bytes));
        let (prefix, rest) = bytes.split_first_chunk::<PREFIX_BYTES>()?;
        let [compressed, length @ ..] = prefix;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        (*compressed == 0).then(|| rest.get(..length).map(Bytes::copy_from_slice)).flatten()
    }
}

/// A body with somebody who looks on.
struct Watched {
    body: Body,
    seen: Seen,
    /// The call that ends with it, with the status of HTTP that tells its code where nothing else does.
    call: Option<(Call, StatusCode)>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let ends_call = self.call.is_some();
                self.seen.with(|passed| {
                    if let Some(data) = frame.data_ref().filter(|_| !ends_call) {
                        let room = (SEEN_BYTES + PREFIX_BYTES).saturating_sub(passed.bytes.len());
                        passed.bytes.extend_from_slice(&data[..data.len().min(room)]);
                    }
                    if let Some(trailers) = frame.trailers_ref() {
                        passed.code = code_of(trailers);
                    }
                });
                if frame.is_trailers() || self.body.is_end_stream() {
                    self.end_call(None);
                }
            }
            Poll::Ready(Some(Err(_))) => self.end_call(Some(Code::Internal)),
            Poll::Ready(None) => self.end_call(None),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

impl Watched {
    fn end_call(&mut self, code: Option<Code>) {
        if let Some((mut call, status)) = self.call.take() {
            // Such calls have no line to wait for.
            call.close(code.or_else(|| self.seen.code()).unwrap_or_else(|| code_of_http(status)));
        }
    }
}

/// Whether a code says that something is broken here, and not with the call.
fn is_break(code: Code) -> bool {
    matches!(code, Code::Unknown | Code::Internal | Code::Unavailable | Code::DataLoss)
}

/// The status among headers or trailers.
fn code_of(headers: &HeaderMap) -> Option<Code> {
    headers.get(Status::GRPC_STATUS).map(|code| Code::from_bytes(code.as_bytes()))
}

/// The status of an answer that carries none: its HTTP status as gRPC reads it.
///
/// Source: gRPC over HTTP/2, "HTTP to gRPC Status Code Mapping".
fn code_of_http(status: StatusCode) -> Code {
    match status.as_u16() {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502..=504 => Code::Unavailable,
        _ => Code::Unknown,
    }
}

/// The name of a code, as gRPC writes it.
fn word(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use axum::Router;
    use axum::middleware::from_fn_with_state;
    use axum::response::IntoResponse;
    use std::collections::BTreeSet;
    use std::convert::Infallible;
    use tower::ServiceExt;

    const CREATE: &str = "/redkeep.v1.BackupService/Create";
    const LIST: &str = "/redkeep.v1.BackupService/List";

    fn method(path: &'static str) -> Method {
        Method::new(path)
    }

    #[test]
    fn what_changes_something_is_audited() {
        // Goal: no changing method can be added without being audited. Method: all of the descriptors, and the names of the
        // second REST door; what answers with an operation changes something, but for asking for one.
        let audited: BTreeSet<&str> = access::paths().filter(|path| method(path).is_audited).collect();
        for path in [
            "/redkeep.v1.BackupService/Create",
            "/redkeep.v1.BackupService/GetDownloadLinks",
            "/redkeep.v1.FleetService/AdoptCluster",
            "/yandex.cloud.iam.v1.IamTokenService/Create",
            "/yandex.cloud.mdb.redis.v1.ClusterService/Backup",
            "/yandex.cloud.operation.OperationService/Cancel",
            "/memstore.Backups/Export",
        ] {
            assert!(audited.contains(path), "{path}");
        }
        for path in [LIST, GET_OPERATION, "/redkeep.v1.OperationService/Wait", "/memstore.Backups/List", "/grpc.health.v1.Health/Check"] {
            assert!(!audited.contains(path), "{path}");
        }
        for service in pb::pool().services() {
            for found in service.methods().filter(|method| method.output().full_name() == OPERATION) {
                let path = format!("/{}/{}", service.full_name(), found.name());
                assert_eq!(audited.contains(path.as_str()), path != GET_OPERATION, "{path}");
            }
        }
        assert!(AUDITED.iter().all(|path| audited.contains(path)));
    }

    #[test]
    fn an_id_is_taken_over_if_it_is_short_and_visible() {
        let headers = |pairs: &[(&HeaderName, &str)]| {
            let pairs = pairs.iter().map(|(name, value)| ((*name).clone(), HeaderValue::from_bytes(value.as_bytes()).unwrap()));
            pairs.collect::<HeaderMap>()
        };
        assert_eq!(brought_id(&headers(&[(&REQUEST_ID, "a-1"), (&CLIENT_REQUEST_ID, "b")])).as_deref(), Some("a-1"));
        assert_eq!(brought_id(&headers(&[(&CLIENT_REQUEST_ID, &"b".repeat(128))])), Some("b".repeat(128)));
        assert_eq!(brought_id(&headers(&[(&REQUEST_ID, "a b"), (&CLIENT_REQUEST_ID, "b")])).as_deref(), Some("b"));
        for bad in ["", "a b", "é", "a\tb", &"b".repeat(129)] {
            assert_eq!(brought_id(&headers(&[(&REQUEST_ID, bad)])), None, "{bad}");
        }
    }

    #[test]
    fn every_code_has_its_name_and_its_place() {
        let words: BTreeSet<&str> = (0..CODES as i32).map(|code| word(Code::from_i32(code))).collect();
        assert_eq!(words.len(), CODES);
        assert_eq!(code_of_http(StatusCode::NOT_FOUND), Code::Unimplemented);
        assert_eq!(code_of_http(StatusCode::OK), Code::Unknown);
    }

    #[test]
    fn a_message_is_read_only_if_it_is_whole_and_plain() {
        let seen = |bytes: &[u8]| {
            let seen = Seen::default();
            seen.with(|passed| passed.bytes = bytes.to_vec());
            seen.message()
        };
        assert_eq!(seen(&[0, 0, 0, 0, 2, 7, 8, 9]).as_deref(), Some(&[7, 8][..]));
        assert_eq!(seen(&[0, 0, 0, 0, 0]).as_deref(), Some(&[][..]));
        for bad in [&[][..], &[0, 0, 0, 0], &[1, 0, 0, 0, 1, 7], &[0, 0, 0, 0, 2, 7], &[0, 255, 255, 255, 255, 7]] {
            assert_eq!(seen(bad), None, "{bad:?}");
        }
    }

    /// An answer in two frames: data, then trailers with a status.
    fn with_trailers(code: &'static str) -> Response {
        let data = futures_util::stream::once(async { Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"\0\0\0\0\0"))) });
        let trailers = futures_util::stream::once(async move {
            let trailers = [(HeaderName::from_static("grpc-status"), HeaderValue::from_static(code))].into_iter().collect();
            Ok(Frame::trailers(trailers))
        });
        Response::new(Body::new(http_body_util::StreamBody::new(futures_util::StreamExt::chain(data, trailers))))
    }

    /// Answers a call at `path` within the layer; the counted lines of its method are left in the metrics.
    async fn answered<F: Future<Output = Response> + Send>(
        calls: &Calls,
        path: &'static str,
        answer: impl Fn() -> F + Clone + Send + Sync + 'static,
    ) -> Response {
        let router: Router = Router::new().fallback(answer).layer(from_fn_with_state(calls.clone(), observe));
        router.oneshot(Request::post(path).body(Body::empty()).unwrap()).await.unwrap()
    }

    fn counted(calls: &Calls, path: &str, code: &str) -> bool {
        calls.0.metrics.render().lines().any(|line| line == format!("redkeep_calls_total{{method=\"{path}\",code=\"{code}\"}} 1"))
    }

    #[tokio::test]
    async fn the_status_is_found_in_headers_and_in_trailers() {
        let calls = Calls::new(Metrics::new(), Audit::none());
        for path in [LIST, CREATE] {
            let name = path.trim_start_matches('/');
            let refused = answered(&calls, path, || async { Status::not_found("gone").into_http() }).await;
            assert!(refused.headers().contains_key(REQUEST_ID) && refused.headers().contains_key("grpc-status"));
            assert!(counted(&calls, name, "NOT_FOUND"), "{path}");

            let response = answered(&calls, path, || async { with_trailers("9") }).await;
            assert!(response.headers().contains_key(REQUEST_ID));
            let body = response.into_body().collect().await.unwrap();
            assert_eq!(body.trailers().unwrap().get("grpc-status").unwrap(), "9");
            assert_eq!(body.to_bytes().as_ref(), b"\0\0\0\0\0");
            assert!(counted(&calls, name, "FAILED_PRECONDITION"), "{path}");
        }
        answered(&calls, "/nonsense", || async { StatusCode::NOT_FOUND.into_response() }).await;
        assert!(counted(&calls, UNKNOWN, "UNIMPLEMENTED"));
        assert!(calls.0.metrics.render().contains("redkeep_calls_in_flight 0"));
    }

    #[tokio::test]
    async fn a_caller_who_goes_away_has_cancelled() {
        let calls = Calls::new(Metrics::new(), Audit::none());
        // Before the answer, and in the middle of it.
        let waiting = answered(&calls, CREATE, || async { std::future::pending().await });
        assert!(tokio::time::timeout(std::time::Duration::from_millis(10), waiting).await.is_err());
        assert!(counted(&calls, "redkeep.v1.BackupService/Create", "CANCELLED"));
        drop(answered(&calls, LIST, || async { with_trailers("0") }).await);
        assert!(counted(&calls, "redkeep.v1.BackupService/List", "CANCELLED"));
    }

    #[tokio::test]
    async fn the_id_of_a_request_is_known_where_it_is_answered() {
        let calls = Calls::new(Metrics::new(), Audit::none());
        let router: Router = Router::new().fallback(|| async { Status::internal(request_id()).into_http::<Body>() }).layer(from_fn_with_state(calls, observe));
        let request = Request::post(LIST).header(REQUEST_ID, "mine").body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        assert_eq!(response.headers().get("grpc-message").unwrap(), "mine");
        assert_eq!(response.headers().get(REQUEST_ID).unwrap(), "mine");
    }
}
