//! How a command fails: what is told, and the exit status.

use super::arguments::Address;
use super::text;
use std::error::Error as _;
use std::fmt;
use std::io;
use std::process::ExitCode;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// The operation ended with an error, or the service did.
    Failed = 1,
    /// The command or a value in it is not valid.
    Usage = 2,
    /// No such cluster, backup or operation.
    NotFound = 3,
    /// Refused by the present state, or by another operation.
    Refused = 4,
    /// Not logged in, or not allowed.
    Denied = 5,
    /// The service cannot be reached.
    Unreachable = 6,
    /// The user stopped us; the number is the one that shells give to an interrupted program.
    Interrupted = 130,
}

impl Exit {
    /// The exit status for a refusal by the service.
    fn of(code: Code) -> Self {
        match code {
            Code::Ok => Self::Done,
            Code::InvalidArgument | Code::OutOfRange => Self::Usage,
            Code::NotFound => Self::NotFound,
            Code::FailedPrecondition | Code::AlreadyExists | Code::Aborted => Self::Refused,
            Code::Unauthenticated | Code::PermissionDenied => Self::Denied,
            Code::Unavailable | Code::DeadlineExceeded => Self::Unreachable,
            Code::Cancelled | Code::Unknown | Code::ResourceExhausted | Code::Unimplemented | Code::Internal | Code::DataLoss => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What went wrong, in words for the user.
///
/// Shown as one line, then one line for each field that is not valid, then a hint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    exit: Exit,
    message: String,
    details: Vec<String>,
    hint: Option<String>,
    is_unanswered: bool,
}

impl Error {
    /// An error of our own making. The message is shown as it is: text from elsewhere is escaped by the caller.
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), details: Vec::new(), hint: None, is_unanswered: false }
    }

    /// The error of a command that is carried out elsewhere; it ends with status 1.
    pub fn failed(fault: impl fmt::Display) -> Self {
        Self::new(Exit::Failed, fault.to_string())
    }

    /// The error for a call that was sent and not answered; what it did is not known.
    pub(super) fn unanswered(message: impl Into<String>) -> Self {
        Self { is_unanswered: true, ..Self::new(Exit::Unreachable, message) }
    }

    /// Whether the call may have done its work all the same.
    pub(super) fn is_unanswered(&self) -> bool {
        self.is_unanswered
    }

    /// The same error with advice.
    pub(super) fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The exit status.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// The error for a refusal by the service at `endpoint`, or for a call that never got an answer.
    pub(super) fn from_status(status: &Status, endpoint: &str) -> Self {
        // A status with a source was made on this side: the connection failed, and no service has spoken.
        if let Some(source) = status.source() {
            let cause = cause(source);
            let words = cause.as_ref().map_or_else(String::new, |cause| format!(": {}", cause.words));
            let told = Self::unanswered(format!("no usable answer from {endpoint}{words}"));
            return match cause.map(|cause| cause.hint) {
                Some(Hint::OtherScheme) => told.with_hint("try --endpoint with https://"),
                Some(Hint::OwnCertificate) => told.with_hint("show a certificate with --cert FILE and --key FILE"),
                // The connection ended before the call was answered, and why is lost.
                _ if endpoint.starts_with("https:") => told.with_hint("if the service asks for a certificate, show one with --cert FILE and --key FILE"),
                Some(_) => told,
                None => told.with_hint("if the service speaks TLS there, try --endpoint with https://"),
            };
        }
        let details = status.get_error_details();
        let violations = details.bad_request().map_or(&[][..], |refusal| &refusal.field_violations);
        let lines = violations.iter().map(|fault| format!("{}: {}", text::escape(&fault.field), text::escape(&fault.description))).collect();
        let message = match status.message() {
            "" => format!("the service answered {}", text::escape(status.code().description())),
            message => text::escape(message),
        };
        let hint = match status.code() {
            Code::FailedPrecondition => conflict(status.message()).map(|id| format!("wait for it with: redkeep operation wait {id}")),
            Code::Unauthenticated => Some("a token is given with --token or REDKEEP_TOKEN".to_owned()),
            _ => details.retry_info().and_then(|retry| retry.retry_delay).map(|delay| format!("try again in {}", text::duration(delay))),
        };
        Self { exit: Exit::of(status.code()), message, details: lines, hint, is_unanswered: false }
    }

    /// The error for certificates that cannot be used on this side.
    pub(super) fn untrusting(fault: &(dyn std::error::Error + 'static)) -> Self {
        let mut words = fault.to_string();
        let mut next = fault.source();
        while let Some(fault) = next {
            words = fault.to_string();
            next = fault.source();
        }
        let hint = "--ca, --cert and --key name files in PEM; without --ca, those authorities are trusted that the system trusts";
        Self::new(Exit::Usage, format!("the certificates cannot be used: {}", text::escape(&words.to_lowercase()))).with_hint(hint)
    }

    /// The error for a connection that could not be made.
    pub(super) fn unreachable(address: &Address, fault: &(dyn std::error::Error + 'static)) -> Self {
        let Cause { words, hint } = cause(fault).unwrap_or_else(|| Cause::new("connection failed"));
        let told = Self::new(Exit::Unreachable, format!("cannot reach {address}: {words}"));
        match hint {
            Hint::Running => told.with_hint("is the service running there? It is started with: redkeep serve"),
            Hint::OtherScheme => told.with_hint(format!("try --endpoint {}", address.with_other_scheme())),
            Hint::Authority => told.with_hint("name the authority of its certificate with --ca FILE, or REDKEEP_CA"),
            Hint::OwnCertificate => told.with_hint("show a certificate with --cert FILE and --key FILE"),
            Hint::Nothing => told,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for line in &self.details {
            write!(f, "\n  {line}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// The operation that stands in the way, when a refusal names one.
fn conflict(message: &str) -> Option<&str> {
    let id = message.strip_prefix("conflicting operation \"")?.strip_suffix("\" detected")?;
    (!id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')).then_some(id)
}

/// What a chain of faults comes down to.
struct Cause {
    words: String,
    hint: Hint,
}

/// What may help.
#[derive(Clone, Copy)]
enum Hint {
    Running,
    OtherScheme,
    Authority,
    OwnCertificate,
    Nothing,
}

impl Cause {
    fn new(words: impl Into<String>) -> Self {
        Self { words: words.into(), hint: Hint::Running }
    }

    fn with(words: impl Into<String>, hint: Hint) -> Self {
        Self { words: words.into(), hint }
    }
}

/// The words by which a port of TLS tells a client of clear text, inside of the farewell of HTTP/2.
const SPEAKS_TLS: &str = "this port speaks TLS";

/// How a fault begins that is an alert of TLS from the other side.
const ALERT: &str = "received fatal alert: ";

/// The one part of a chain that tells the user something: what TLS or the operating system said.
fn cause(fault: &(dyn std::error::Error + 'static)) -> Option<Cause> {
    let mut next = Some(fault);
    let mut found = None;
    while let Some(fault) = next {
        if let Some(fault) = fault.downcast_ref::<rustls::Error>() {
            return Some(of_tls(fault));
        }
        if let Some(fault) = fault.downcast_ref::<io::Error>() {
            // TLS hides its faults inside of those of the system.
            if let Some(fault) = fault.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                return Some(of_tls(fault));
            }
            let words = fault.to_string();
            // HTTP/2 keeps no more of such a fault than its words.
            if let Some(alert) = words.strip_prefix(ALERT) {
                return Some(of_alert(alert));
            }
            let words = words.split(" (os error").next().unwrap_or_default();
            found = Some(Cause::new(words.to_ascii_lowercase()));
        } else if fault.to_string().contains(SPEAKS_TLS) {
            return Some(Cause::with("the service speaks TLS there", Hint::OtherScheme));
        }
        next = fault.source();
    }
    found
}

fn of_tls(fault: &rustls::Error) -> Cause {
    use rustls::{CertificateError, Error};
    match fault {
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            Cause::with("its certificate is not signed by an authority that is trusted here", Hint::Authority)
        }
        Error::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) => {
            Cause::with("its certificate is for another name", Hint::Nothing)
        }
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            Cause::with("its certificate has expired", Hint::Nothing)
        }
        Error::InvalidCertificate(_) => Cause::with("its certificate is not valid", Hint::Nothing),
        Error::InvalidMessage(_) => Cause::with("the service speaks no TLS there", Hint::OtherScheme),
        Error::AlertReceived(alert) => of_alert(&format!("{alert:?}")),
        fault => Cause::with(format!("TLS failed: {}", text::escape(&fault.to_string())), Hint::Nothing),
    }
}

/// What the service said before it ended the connection, by the name of the alert.
fn of_alert(alert: &str) -> Cause {
    match alert {
        "CertificateRequired" => Cause::with("the service asks for a certificate", Hint::OwnCertificate),
        "UnknownCA" | "BadCertificate" | "DecryptError" | "CertificateExpired" | "CertificateUnknown" => {
            Cause::with("the service does not take our certificate", Hint::OwnCertificate)
        }
        alert => Cause::with(format!("TLS failed: the service answered {}", text::escape(alert)), Hint::Nothing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tonic_types::ErrorDetails;

    #[test]
    fn every_code_has_a_status() {
        for (code, exit) in [
            (Code::InvalidArgument, 2),
            (Code::OutOfRange, 2),
            (Code::NotFound, 3),
            (Code::FailedPrecondition, 4),
            (Code::AlreadyExists, 4),
            (Code::Aborted, 4),
            (Code::Unauthenticated, 5),
            (Code::PermissionDenied, 5),
            (Code::Unavailable, 6),
            (Code::DeadlineExceeded, 6),
            (Code::Unimplemented, 1),
            (Code::ResourceExhausted, 1),
            (Code::Internal, 1),
            (Code::Unknown, 1),
            (Code::Cancelled, 1),
            (Code::DataLoss, 1),
        ] {
            let error = Error::from_status(&Status::new(code, "no"), "http://here");
            assert_eq!(error.exit() as u8, exit, "{code:?}");
            assert!(error.to_string().starts_with("no"), "{error}");
        }
    }

    #[test]
    fn each_field_has_its_line() {
        let mut details = ErrorDetails::new();
        details.add_bad_request_violation("name", "too long");
        details.add_bad_request_violation("labels", "bad\x1b[2Jkey");
        let status = Status::with_error_details(Code::InvalidArgument, "the request is not valid", details);
        let shown = Error::from_status(&status, "").to_string();
        assert_eq!(shown, "the request is not valid\n  name: too long\n  labels: bad\\u{1b}[2Jkey");
    }

    #[test]
    fn a_conflict_says_how_to_wait() {
        let shown = Error::from_status(&Status::failed_precondition("conflicting operation \"0190-ab\" detected"), "").to_string();
        assert!(shown.ends_with("redkeep operation wait 0190-ab"), "{shown}");
        for message in ["conflicting operation \"a;b\" detected", "conflicting operation \"\" detected", "backup is held"] {
            let shown = Error::from_status(&Status::failed_precondition(message), "").to_string();
            assert!(!shown.contains("hint"), "{shown}");
        }
    }

    #[test]
    fn a_full_queue_says_when_to_come_back() {
        let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(5)));
        let status = Status::with_error_details(Code::ResourceExhausted, "the queue is full", details);
        assert_eq!(Error::from_status(&status, "").to_string(), "the queue is full\nhint: try again in 5s");
    }

    #[test]
    fn faults_of_tls_say_what_to_do() {
        use rustls::{AlertDescription, CertificateError, Error as Tls, InvalidMessage};
        let address: Address = "https://far:1".parse().unwrap();
        for (fault, told, hint) in [
            (Tls::InvalidCertificate(CertificateError::UnknownIssuer), "not signed by an authority", "--ca"),
            (Tls::InvalidCertificate(CertificateError::NotValidForName), "for another name", ""),
            (Tls::InvalidCertificate(CertificateError::Expired), "has expired", ""),
            (Tls::InvalidCertificate(CertificateError::Revoked), "not valid", ""),
            (Tls::InvalidMessage(InvalidMessage::InvalidContentType), "speaks no TLS", "--endpoint http://far:1"),
            (Tls::AlertReceived(AlertDescription::CertificateRequired), "asks for a certificate", "--cert"),
            (Tls::AlertReceived(AlertDescription::UnknownCA), "does not take our certificate", "--cert"),
            (Tls::AlertReceived(AlertDescription::InternalError), "answered InternalError", ""),
        ] {
            let direct = Error::unreachable(&address, &io::Error::new(io::ErrorKind::InvalidData, fault.clone()));
            assert_eq!(direct.exit(), Exit::Unreachable);
            let direct = direct.to_string();
            assert!(direct.contains(told) && direct.contains(hint) && direct.contains("hint") != hint.is_empty(), "{fault:?}: {direct}");
            if let Tls::AlertReceived(_) = fault {
                // As HTTP/2 hands it on.
                let mut status = Status::unknown("h2 protocol error");
                status.set_source(std::sync::Arc::new(io::Error::new(io::ErrorKind::InvalidData, fault.to_string())));
                let shown = Error::from_status(&status, "https://far:1").to_string();
                assert!(shown.contains(told), "{shown}");
            }
        }
    }

    #[test]
    fn a_lost_connection_is_told_without_its_chain() {
        let mut status = Status::unknown("transport error");
        status.set_source(std::sync::Arc::new(io::Error::new(io::ErrorKind::ConnectionReset, "Connection reset by peer (os error 104)")));
        let error = Error::from_status(&status, "http://here");
        assert_eq!(error.exit(), Exit::Unreachable);
        assert_eq!(error.to_string(), "no usable answer from http://here: connection reset by peer");
    }
}
