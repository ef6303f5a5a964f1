//! What a store answers: bounded, and of a refusal no more than its status and its code.
//!
//! The body of a refusal may hold a request with its signature and its token, and be of any length. It is read here, its code is
//! taken out, and nothing else of it goes on.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Limited};
use hyper::header::CONTENT_LENGTH;
use object_store::ClientOptions;
use object_store::client::{HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService, ReqwestConnector};
use std::error::Error;
use std::fmt;

/// Longest answer, in bytes: nothing is asked for that is longer than a part.
const ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// Bytes of a refusal that are looked through for its code.
const REFUSAL_BYTES: usize = 64 * 1024;

/// Longest code of a refusal, in bytes.
const CODE_BYTES: usize = 64;

/// What stands before and behind status and code in the text that is handed on in the place of a refusal's body.
const MARKS: (&str, &str) = ("<<redkeep ", ">>");

/// Codes that say that new credentials help.
const EXPIRED: [&str; 8] = [
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidToken",
    "TokenRefreshRequired",
    "ExpiredAuthenticationToken",
    "InvalidAuthenticationInfo",
    "AuthenticationRequired",
    "RequestExpired",
];

/// Codes that say that the credentials are wrong: new ones may help, if there are any.
const WRONG: [&str; 5] = ["InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthenticationFailed", "AuthFailure", "InvalidSecurity"];

/// Codes that say that a body did not arrive, or not as it was sent. The request is sound, whatever its status says.
const TRANSFER: [&str; 7] =
    ["XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "BadDigest", "Md5Mismatch", "InvalidDigest", "IncompleteBody", "RequestTimeout"];

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::artifacts) struct Refused {
    /// Status of HTTP.
    pub(in crate::artifacts) status: u16,
    /// The store's word for it; empty when it gave none, as it cannot where only the head of an object was asked for.
    pub(in crate::artifacts) code: String,
}

impl Refused {
    /// Whether the store says that the credentials have had their time.
    pub(in crate::artifacts) fn is_expired(&self) -> bool {
        EXPIRED.contains(&self.code.as_str())
    }

    /// Whether the store does not know the credentials.
    pub(in crate::artifacts) fn is_about_credentials(&self) -> bool {
        WRONG.contains(&self.code.as_str())
    }

    /// Whether the body was lost or damaged on its way.
    pub(in crate::artifacts) fn is_about_transfer(&self) -> bool {
        TRANSFER.contains(&self.code.as_str())
    }

    /// Whether other credentials might be let in.
    pub(in crate::artifacts) fn may_be_renewed(&self) -> bool {
        self.is_expired() || self.is_about_credentials() || (self.code.is_empty() && matches!(self.status, 400 | 401 | 403))
    }
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::artifacts) enum Answer {
    /// It was refused.
    Refused(Refused),
    /// There was none, or not all of one.
    Broken(HttpErrorKind),
    /// Neither: the library found something itself.
    Other,
}

impl Answer {
    /// Finds it in an error of the library.
    pub(in crate::artifacts) fn of(fault: &object_store::Error) -> Self {
        let mut broken = None;
        let mut told = None;
        let mut source: Option<&(dyn Error + 'static)> = Some(fault);
        while let Some(inner) = source {
            if let Some(http) = inner.downcast_ref::<HttpError>() {
                broken = Some(http.kind());
            }
            told = refusal_in(&inner.to_string()).or(told);
            source = inner.source();
        }
        match (told, broken) {
            (Some(refused), _) => Self::Refused(refused),
            (None, Some(kind)) => Self::Broken(kind),
            (None, None) => Self::Other,
        }
    }

    /// What lies at the bottom of an error, for the log. It has no address in it, for it stands below the request.
    pub(in crate::artifacts) fn cause(&self, fault: &object_store::Error) -> Option<String> {
        let Self::Broken(_) = self else { return None };
        let mut source: &(dyn Error + 'static) = fault;
        while let Some(inner) = source.source() {
            source = inner;
        }
        Some(source.to_string())
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(Refused { status, code }) if code.is_empty() => write!(f, "it answered {status}"),
            Self::Refused(Refused { status, code }) => write!(f, "it answered {status} {code}"),
            Self::Broken(HttpErrorKind::Connect) => f.write_str("it cannot be reached"),
            Self::Broken(HttpErrorKind::Timeout) => f.write_str("it did not answer in time"),
            Self::Broken(HttpErrorKind::Decode) => f.write_str("its answer cannot be read"),
            Self::Broken(_) => f.write_str("the connection broke"),
            Self::Other => f.write_str("it could not be asked, or its answer is none"),
        }
    }
}

/// Status and code as [`mark`] wrote them.
fn refusal_in(text: &str) -> Option<Refused> {
    let (_, rest) = text.rsplit_once(MARKS.0)?;
    let (status, code) = rest.split_once(MARKS.1)?.0.split_once(' ')?;
    Some(Refused { status: status.parse().ok()?, code: code.to_owned() })
}

fn mark(status: u16, code: &str) -> String {
    format!("{}{status} {code}{}", MARKS.0, MARKS.1)
}

/// The code in the body of a refusal, which is XML, or JSON where the machine's own service for credentials speaks.
fn code_in(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let between = |before: &str, behind: &str| Some(text.split_once(before)?.1.split_once(behind)?.0.trim().to_owned());
    let found = between("<Code>", "</Code>").or_else(|| between("\"error\":\"", "\"")).or_else(|| between("\"code\":\"", "\"")).unwrap_or_default();
    let legal = !found.is_empty() && found.len() <= CODE_BYTES && found.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if legal { found } else { String::new() }
}

/// Makes clients whose answers are bounded.
#[derive(Debug, Default)]
pub(super) struct Bounded(ReqwestConnector);

impl HttpConnector for Bounded {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Service(self.0.connect(options)?)))
    }
}

#[derive(Debug)]
struct Service(HttpClient);

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (mut parts, body) = self.0.execute(request).await?.into_parts();
        // A redirection and an unchanged object have no body that matters.
        if !(parts.status.is_client_error() || parts.status.is_server_error()) {
            let bounded = Limited::new(body, ANSWER_BYTES).map_err(|fault| HttpError::new(HttpErrorKind::Decode, Unreadable(fault.to_string())));
            return Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(bounded)));
        }
        let code = match parts.headers.get("x-ms-error-code").and_then(|code| code.to_str().ok()) {
            Some(code) => code_in(format!("<Code>{code}</Code>").as_bytes()),
            None => code_in(&beginning(body).await),
        };
        parts.headers.remove(CONTENT_LENGTH);
        Ok(HttpResponse::from_parts(parts.clone(), mark(parts.status.as_u16(), &code).into()))
    }
}

/// The first bytes of a body, as far as they come.
async fn beginning(mut body: HttpResponseBody) -> Bytes {
    let mut begun = BytesMut::new();
    while begun.len() < REFUSAL_BYTES
        && let Some(Ok(frame)) = body.frame().await
    {
        if let Ok(data) = frame.into_data() {
            begun.extend_from_slice(&data[..data.len().min(REFUSAL_BYTES - begun.len())]);
        }
    }
    begun.freeze()
}

/// Why an answer cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unreadable(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_refusal_the_code_goes_on_and_nothing_else() {
        let body = b"<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><StringToSign>x-amz-security-token:secret</StringToSign></Error>";
        assert_eq!(code_in(body), "SignatureDoesNotMatch");
        for odd in ["", "<Code></Code>", "<Code>a b</Code>", "<Code>a>>403 b</Code>", "<Code>unended", &format!("<Code>{}</Code>", "x".repeat(65))] {
            assert_eq!(code_in(odd.as_bytes()), "", "{odd}");
        }
    }

    #[test]
    fn a_refusal_is_found_below_whatever_wraps_it() {
        let source = format!("Server returned non-2xx status code: 503: {}", mark(503, "SlowDown"));
        let fault = object_store::Error::Generic { store: "S3", source: source.into() };
        assert_eq!(Answer::of(&fault), Answer::Refused(Refused { status: 503, code: "SlowDown".to_owned() }));
        assert_eq!(Answer::of(&fault).to_string(), "it answered 503 SlowDown");
        let fault = object_store::Error::Generic { store: "S3", source: "https://h/k?X-Amz-Signature=secret".into() };
        assert_eq!(Answer::of(&fault), Answer::Other);
    }
}
