//! Files of backups for whoever has a [link](crate::links), on the port of the API: `GET` and `HEAD`, whole or in a range.
//!
//! A link is the right to its file; no token is asked for, and none helps without it. Each use has a line in the audit log, written
//! before the first byte goes out, with the name of who asked for the link. Memory is flat: a download holds one piece.
//!
//! The bytes of a whole file are held against the digest of the manifest, and its last piece goes out only when that holds: who gets
//! all bytes got the right ones. A range cannot be checked so; its client has the digest as the entity tag.

mod range;

use crate::api::access;
use crate::api::calls::{Calls, REQUEST_ID};
use crate::audit::CallRecord;
use crate::backup::State as BackupState;
use crate::executor::{Executor, File, Files, Unreadable};
use crate::links::{PREFIX, Refused, Signer};
use crate::store;
use aws_lc_rs::digest;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, REFERRER_POLICY, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::Response;
use axum::routing::any;
use bytes::Bytes;
use chrono::Utc;
use range::Wanted;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Code;

/// Most downloads at once. More are told to come again.
pub const DOWNLOADS: usize = 32;

/// Bytes that are read from storage at once, and held by a download.
const PIECE_BYTES: u64 = 1024 * 1024;

/// When a client that met [`DOWNLOADS`] others may come again, in seconds.
const RETRY_SECS: HeaderValue = HeaderValue::from_static("5");

struct Downloads {
    executor: Executor,
    links: Arc<Signer>,
    calls: Calls,
    places: Arc<Semaphore>,
}

/// The router of everything below [`PREFIX`].
pub fn router(executor: Executor, links: Arc<Signer>, calls: Calls) -> Router {
    let downloads = Downloads { executor, links, calls, places: Arc::new(Semaphore::new(DOWNLOADS)) };
    Router::new().route(&format!("{PREFIX}{{*path}}"), any(serve)).with_state(Arc::new(downloads))
}

async fn serve(State(downloads): State<Arc<Downloads>>, request: Request) -> Response {
    // Nobody needs a body here.
    let (head, _) = request.into_parts();
    let call = downloads.calls.begin(access::DOWNLOAD, &head.headers, &head.extensions);
    let outcome = downloads.answer(&head, call.record()).await;
    let (code, mut response) = match outcome {
        Ok(response) => (Code::Ok, response),
        Err(refusal) => (refusal.code(), refusal.answer()),
    };
    if let Ok(id) = HeaderValue::from_str(call.request_id()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    call.end(code).await;
    response
}

/// Why a request gets no bytes.
#[derive(Debug)]
enum Refusal {
    Method,
    Link(Refused),
    /// There is no such backup, or no such file in it.
    Missing,
    /// The backup was deleted.
    Gone,
    /// The file has so many bytes, and none where the client wants some.
    Beyond(u64),
    Full,
    Storage(Unreadable),
    Store(store::Error),
}

impl From<Unreadable> for Refusal {
    fn from(fault: Unreadable) -> Self {
        Self::Storage(fault)
    }
}

impl Refusal {
    fn code(&self) -> Code {
        match self {
            Self::Method => Code::Unimplemented,
            Self::Link(_) => Code::PermissionDenied,
            Self::Missing | Self::Gone => Code::NotFound,
            Self::Beyond(_) => Code::OutOfRange,
            Self::Full => Code::ResourceExhausted,
            Self::Storage(Unreadable::Damaged(_)) => Code::DataLoss,
            Self::Storage(Unreadable::Away(_)) | Self::Store(_) => Code::Unavailable,
        }
    }

    fn http(&self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Link(_) => StatusCode::FORBIDDEN,
            Self::Missing => StatusCode::NOT_FOUND,
            Self::Gone => StatusCode::GONE,
            Self::Beyond(_) => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::Full | Self::Storage(Unreadable::Away(_)) | Self::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Storage(Unreadable::Damaged(_)) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Method => "this path takes GET and HEAD only".to_owned(),
            Self::Link(refused) => refused.to_string(),
            Self::Missing => "there is no such file any more".to_owned(),
            Self::Gone => "the backup was deleted".to_owned(),
            Self::Beyond(length) => format!("the file has {length} bytes"),
            Self::Full => format!("{DOWNLOADS} downloads are under way, as many as this service takes; try again in a few seconds"),
            Self::Storage(fault) => fault.to_string(),
            Self::Store(_) => "the store cannot be read".to_owned(),
        }
    }

    /// A `google.rpc.Status`, as every refusal of this port.
    fn answer(self) -> Response {
        match &self {
            Self::Storage(fault) => tracing::warn!(error = %fault, "a download could not begin"),
            Self::Store(fault) => tracing::error!(error = %fault, "the store failed a download"),
            _ => {}
        }
        let body = serde_json::json!({ "code": self.code() as i32, "message": self.message(), "details": [] });
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = self.http();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match self {
            Self::Beyond(length) => drop(text(&format!("bytes */{length}")).map(|range| headers.insert(CONTENT_RANGE, range))),
            Self::Method => drop(headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"))),
            Self::Full | Self::Store(_) | Self::Storage(Unreadable::Away(_)) => drop(headers.insert(RETRY_AFTER, RETRY_SECS)),
            Self::Link(_) | Self::Missing | Self::Gone | Self::Storage(Unreadable::Damaged(_)) => {}
        }
        response
    }
}

fn text(value: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(value).ok()
}

impl Downloads {
    async fn answer(&self, head: &Parts, record: &CallRecord) -> Result<Response, Refusal> {
        let link = self.links.read(head.uri.path(), head.uri.query().unwrap_or_default(), Utc::now()).map_err(Refusal::Link)?;
        record.set_subject(&link.subject);
        record.set_target(&format!("backups/{}/{}", link.backup, link.file));
        if !matches!(head.method, Method::GET | Method::HEAD) {
            return Err(Refusal::Method);
        }
        let backup = self.executor.store().backup(link.backup).await.map_err(|fault| match fault {
            store::Error::NoBackup => Refusal::Missing,
            fault => Refusal::Store(fault),
        })?;
        record.set_folder(backup.folder_id.as_str());
        if matches!(backup.state, BackupState::Deleting { .. }) {
            return Err(Refusal::Gone);
        }
        let files = self.executor.files(&backup).await?.ok_or(Refusal::Missing)?;
        let file = files.get(&link.file).cloned().ok_or(Refusal::Missing)?;
        let name = format!("{}-{}", backup.name, file.name);
        let tag = format!("\"{}\"", file.sha256);
        let wanted = range::wanted(&head.headers, file.bytes, &tag);
        let (status, range) = match &wanted {
            Wanted::Whole => (StatusCode::OK, 0..file.bytes),
            Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range.clone()),
            Wanted::Beyond => return Err(Refusal::Beyond(file.bytes)),
            Wanted::Known => (StatusCode::NOT_MODIFIED, 0..0),
        };
        let headers = headers(&file, &name, &tag, &wanted, &range);
        let body = if head.method == Method::HEAD || wanted == Wanted::Known {
            Body::empty()
        } else {
            let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Refusal::Full)?;
            let whole = (wanted == Wanted::Whole).then(|| digest::Context::new(&digest::SHA256));
            stream(Reading { executor: self.executor.clone(), files, file, position: range.start, end: range.end, whole, _place: place })
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }
}

fn headers(file: &File, name: &str, tag: &str, wanted: &Wanted, range: &Range<u64>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let kind = if file.shard.is_empty() { "application/json" } else { "application/octet-stream" };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // The link is a secret, and so is what it leads to.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // A name with a quote or a slash in it would be another one to the client.
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' }).collect();
    let pairs = [(ETAG, Some(tag.to_owned())), (CONTENT_DISPOSITION, Some(format!("attachment; filename=\"{name}\"")))].into_iter().chain([
        (CONTENT_LENGTH, (*wanted != Wanted::Known).then(|| (range.end - range.start).to_string())),
        (CONTENT_RANGE, matches!(wanted, Wanted::Part(_)).then(|| format!("bytes {}-{}/{}", range.start, range.end.saturating_sub(1), file.bytes))),
    ]);
    for (header, value) in pairs {
        if let Some(value) = value.as_deref().and_then(text) {
            headers.insert(header, value);
        }
    }
    headers
}

/// A file on its way to a client.
struct Reading {
    executor: Executor,
    files: Files,
    file: File,
    position: u64,
    end: u64,
    /// The digest so far, when all of the file goes out.
    whole: Option<digest::Context>,
    _place: OwnedSemaphorePermit,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Bytes>, Unreadable> {
        let end = self.end.min(self.position + PIECE_BYTES);
        if end == self.position {
            return Ok(None);
        }
        let piece = self.executor.read_file(&self.files, &self.file.name, self.position..end).await?;
        self.position = end;
        let Some(mut context) = self.whole.take() else { return Ok(Some(piece)) };
        let digesting = tokio::task::spawn_blocking(move || {
            context.update(&piece);
            (context, piece)
        });
        let (context, piece) = digesting.await.map_err(|_| Unreadable::Away("the work was interrupted".to_owned()))?;
        if self.position < self.end {
            self.whole = Some(context);
            return Ok(Some(piece));
        }
        let found: String = context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        if found == self.file.sha256 {
            Ok(Some(piece))
        } else {
            Err(Unreadable::Damaged(format!("the SHA-256 of {} is not that of the manifest", self.file.name)))
        }
    }
}

fn stream(reading: Reading) -> Body {
    Body::from_stream(futures_util::stream::unfold(Some(reading), |reading| async {
        let mut reading = reading?;
        match reading.next().await {
            Ok(Some(piece)) => Some((Ok(piece), Some(reading))),
            Ok(None) => None,
            // The connection is cut: the answer's length was told, so the client sees that it is not whole.
            Err(fault) => {
                tracing::error!(file = %reading.file.name, position = reading.position, error = %fault, "a download was cut");
                Some((Err(fault), None))
            }
        }
    }))
}
