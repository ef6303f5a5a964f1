//! Streams of answers: one line of JSON each, sent as soon as it is there.
//!
//! A line is `{"result": ...}`. An error after the first line is the last line, `{"error": ...}`, since the HTTP code has
//! gone by then; one before the first line is an ordinary answer.

use super::answer;
use super::call::Deadline;
use super::json::write;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use prost_reflect::{DynamicMessage, FieldDescriptor};
use std::convert::Infallible;
use tonic::Status;
use tonic::codec::Streaming;
use tonic::metadata::MetadataMap;

/// A stream under way.
struct Lines {
    /// The next line, where it is there already.
    next: Option<Bytes>,
    /// Whether the last line was sent.
    is_over: bool,
    messages: Streaming<DynamicMessage>,
    field: Option<FieldDescriptor>,
    deadline: Deadline,
}

/// Waits for the first message, then answers with all of them. When the client goes away the answer is dropped, and with it
/// the call.
pub(super) async fn answer(
    mut messages: Streaming<DynamicMessage>,
    metadata: &MetadataMap,
    field: Option<FieldDescriptor>,
    deadline: Deadline,
) -> Result<Response, Status> {
    let first = deadline.bound(messages.message()).await?;
    let next = first.map(|message| line(&message, field.as_ref()));
    let lines = Lines { is_over: next.is_none(), next, messages, field, deadline };
    let body = stream::unfold(lines, |mut lines| async {
        let line = match lines.next.take() {
            Some(line) => line,
            None => lines.wait().await?,
        };
        Some((Ok::<_, Infallible>(line), lines))
    });
    Ok(answer::of_type(answer::JSON_LINES, Body::from_stream(body), metadata))
}

impl Lines {
    /// The next line; `None` at the end.
    async fn wait(&mut self) -> Option<Bytes> {
        if self.is_over {
            return None;
        }
        match self.deadline.bound(self.messages.message()).await {
            Ok(message) => message.map(|message| line(&message, self.field.as_ref())),
            Err(status) => {
                self.is_over = true;
                Some(wrapped("error", &answer::status_json(&status)))
            }
        }
    }
}

fn line(message: &DynamicMessage, field: Option<&FieldDescriptor>) -> Bytes {
    let json = match field {
        Some(field) => write::field(message, field),
        None => write::message(message),
    };
    wrapped("result", &json)
}

fn wrapped(name: &str, json: &[u8]) -> Bytes {
    let mut line = Vec::with_capacity(json.len() + name.len() + 6);
    line.extend_from_slice(format!("{{\"{name}\":").as_bytes());
    line.extend_from_slice(json);
    line.extend_from_slice(b"}\n");
    line.into()
}
