//! An answer that no room behind the doors has given: refused at the port, in the form that the client reads.

use crate::memstore;
use axum::body::Body;
use axum::http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// When a client that met a full house may come again.
const RETRY: Duration = Duration::from_secs(1);

/// In what form a client speaks, and hence reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speech {
    /// gRPC over HTTP/2.
    Grpc,
    /// gRPC-Web.
    GrpcWeb,
    /// To the MemStore calls.
    MemStore,
    /// Any other request.
    Http,
}

impl Speech {
    /// What the headers of a request say, and its path.
    pub(super) fn of(headers: &HeaderMap, path: &str) -> Self {
        let kind = headers.get(CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes);
        // Types are compared without regard to case.
        let begins = |start: &[u8]| kind.get(..start.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(start));
        if begins(b"application/grpc-web") {
            Self::GrpcWeb
        } else if begins(b"application/grpc") {
            Self::Grpc
        } else if memstore::owns(path) {
            Self::MemStore
        } else {
            Self::Http
        }
    }
}

/// Why a request goes no further than the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is not for this service, or comes from a web page that may not call.
    Forbidden(&'static str),
    /// As many calls are under way as may be.
    Full,
    /// Its body did not arrive in time.
    Late,
    /// Its body is longer than any request.
    Long,
}

impl Refusal {
    fn code(self) -> Code {
        match self {
            Self::Forbidden(_) => Code::PermissionDenied,
            Self::Full => Code::ResourceExhausted,
            Self::Late => Code::DeadlineExceeded,
            Self::Long => Code::InvalidArgument,
        }
    }

    fn http(self) -> StatusCode {
        match self {
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::Full => StatusCode::TOO_MANY_REQUESTS,
            Self::Late => StatusCode::REQUEST_TIMEOUT,
            Self::Long => StatusCode::PAYLOAD_TOO_LARGE,
        }
    }

    fn message(self) -> String {
        match self {
            Self::Forbidden(why) => why.to_owned(),
            Self::Full => "as many calls are under way as this service takes; try again in a second".to_owned(),
            Self::Late => "the body of the request did not arrive in time; nothing was done".to_owned(),
            Self::Long => format!("the body of the request has more than {} bytes", crate::api::REQUEST_BYTES),
        }
    }

    /// The answer to a client that speaks so. The body of the request need not have been read.
    pub(super) fn answer(self, speech: Speech) -> Response<Body> {
        match speech {
            Speech::Grpc => self.status().into_http(),
            // Its trailers stand among the headers; the HTTP status tells browsers and proxies what happened.
            Speech::GrpcWeb => {
                let mut answer = self.status().into_http();
                *answer.status_mut() = self.http();
                answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc-web+proto"));
                answer
            }
            Speech::MemStore => self.with_headers(memstore::refused(self.http(), self.word(), &self.message())),
            Speech::Http => self.with_headers(self.json()),
        }
    }

    /// The word for it among the refusals of the MemStore calls.
    fn word(self) -> &'static str {
        match self {
            Self::Forbidden(_) => "PERMISSION_DENIED",
            Self::Full => "TOO_MANY_REQUESTS",
            Self::Late => "REQUEST_TIMEOUT",
            Self::Long => "BODY_TOO_LARGE",
        }
    }

    fn status(self) -> Status {
        match self {
            Self::Full => Status::with_error_details(self.code(), self.message(), ErrorDetails::with_retry_info(Some(RETRY))),
            _ => Status::new(self.code(), self.message()),
        }
    }

    /// A `google.rpc.Status` in JSON.
    fn json(self) -> Response<Body> {
        let details = match self {
            Self::Full => vec![serde_json::json!({ "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": format!("{}s", RETRY.as_secs()) })],
            _ => Vec::new(),
        };
        let status = serde_json::json!({ "code": self.code() as i32, "message": self.message(), "details": details });
        let mut answer = Response::new(Body::from(status.to_string()));
        *answer.status_mut() = self.http();
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        answer
    }

    /// The answer with what HTTP has to say to it.
    fn with_headers(self, mut answer: Response<Body>) -> Response<Body> {
        let headers = answer.headers_mut();
        match self {
            Self::Full => drop(headers.insert(RETRY_AFTER, HeaderValue::from(RETRY.as_secs()))),
            // What is left of the body is not read, so nothing can follow it.
            Self::Late | Self::Long => drop(headers.insert(CONNECTION, HeaderValue::from_static("close"))),
            Self::Forbidden(_) => {}
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_client_is_answered_in_its_form() {
        for (kind, speech) in [
            ("application/grpc", Speech::Grpc),
            ("application/grpc+proto", Speech::Grpc),
            ("Application/gRPC-Web-Text", Speech::GrpcWeb),
            ("application/grpc-web+proto", Speech::GrpcWeb),
            ("application/json", Speech::Http),
            ("", Speech::Http),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
            assert_eq!(Speech::of(&headers, "/operations/1"), speech, "{kind}");
            let to_memstore = if speech == Speech::Http { Speech::MemStore } else { speech };
            assert_eq!(Speech::of(&headers, "/v1/backups"), to_memstore, "{kind}");
        }
        for (refusal, code, http) in [(Refusal::Forbidden("no"), "7", 403), (Refusal::Full, "8", 429), (Refusal::Late, "4", 408), (Refusal::Long, "3", 413)] {
            let grpc = refusal.answer(Speech::Grpc);
            assert_eq!((grpc.status().as_u16(), grpc.headers().get("grpc-status").unwrap().to_str().unwrap()), (200, code), "{refusal:?}");
            let web = refusal.answer(Speech::GrpcWeb);
            assert_eq!((web.status().as_u16(), web.headers().get("grpc-status").unwrap().to_str().unwrap()), (http, code), "{refusal:?}");
            for speech in [Speech::Http, Speech::MemStore] {
                let answer = refusal.answer(speech);
                assert_eq!((answer.status().as_u16(), answer.headers().contains_key(RETRY_AFTER)), (http, refusal == Refusal::Full), "{refusal:?}");
                assert_eq!(answer.headers().contains_key(CONNECTION), matches!(refusal, Refusal::Late | Refusal::Long), "{refusal:?}");
            }
        }
    }
}
