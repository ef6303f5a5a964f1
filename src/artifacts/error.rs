//! What storage did not do, and what the answers of each kind of storage mean.

use super::PART_TIMEOUT;
use super::remote::answers::{Answer, Refused};
use std::io;

/// What storage did not do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is full.
    #[error("the artifact storage is full")]
    Full,
    /// It may not be written.
    #[error("the artifact storage cannot be written: {0}")]
    Denied(&'static str),
    /// It failed or cannot be reached.
    #[error("the artifact storage failed: {what}")]
    Unavailable {
        /// The kind of failure.
        what: String,
        /// The failure itself, for the log.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// It did not take a part in time.
    #[error("the artifact storage took no data for {} s", PART_TIMEOUT.as_secs())]
    Stalled,
    /// There is nothing under the key.
    #[error("the artifact storage does not have {0}")]
    Missing(String),
    /// The key is taken by something else.
    #[error("the artifact storage already has another {0}")]
    Exists(String),
    /// What is under the key is not what was stored there.
    #[error("the artifact storage does not have {name} as it was stored: {what}")]
    Corrupt {
        /// Name of the object.
        name: String,
        /// What differs.
        what: String,
    },
    /// It is encrypted, and there is no key that opens it.
    #[error("{0} is encrypted, and {NO_KEY}")]
    Locked(String),
}

/// What is missing when something encrypted cannot be read back.
pub const NO_KEY: &str =
    "no key of artifacts.age_identity_file opens it; set that to the file of a secret key, or take it as it is stored and decrypt it elsewhere";

impl Error {
    pub(super) fn unavailable(what: impl Into<String>) -> Self {
        Self::Unavailable { what: what.into(), source: None }
    }

    /// What a failure of the file system means.
    pub fn from_io(fault: io::Error) -> Self {
        match fault.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            io::ErrorKind::PermissionDenied => Self::Denied("permission denied"),
            io::ErrorKind::ReadOnlyFilesystem => Self::Denied("the file system is read-only"),
            io::ErrorKind::NotADirectory => Self::Denied("a part of its path is not a folder"),
            io::ErrorKind::InvalidFilename => Self::Denied("a part of its path is too long"),
            kind => Self::Unavailable { what: kind.to_string(), source: Some(fault.into()) },
        }
    }

    /// What the answer of a store means that is reached over the network. Of the library's own error nothing is kept but its
    /// kind: its text holds addresses, which may be signed.
    pub(super) fn from_answer(fault: &object_store::Error) -> Self {
        let answer = Answer::of(fault);
        match &answer {
            Answer::Refused(Refused { code, .. }) if matches!(code.as_str(), "NoSuchBucket" | "ContainerNotFound") => {
                return Self::Denied("the bucket does not exist");
            }
            Answer::Refused(refused) if refused.is_expired() => return Self::unavailable("its credentials have expired"),
            Answer::Refused(Refused { code, .. }) if matches!(code.as_str(), "QuotaExceeded" | "AccountStorageLimitExceeded") => return Self::Full,
            Answer::Refused(refused) if refused.is_about_transfer() => return Self::unavailable("what arrived there is not what was sent"),
            Answer::Refused(refused) if refused.is_about_credentials() => return Self::Denied("the credentials are not accepted"),
            Answer::Refused(Refused { status: 401 | 403, .. }) => return Self::Denied("the credentials do not permit it"),
            Answer::Refused(_) | Answer::Broken(_) | Answer::Other => {}
        }
        match fault {
            object_store::Error::NotFound { path, .. } => Self::Missing(file_name(path)),
            object_store::Error::AlreadyExists { path, .. } | object_store::Error::Precondition { path, .. } => Self::Exists(file_name(path)),
            _ => Self::Unavailable { what: answer.to_string(), source: answer.cause(fault).map(Into::into) },
        }
    }
}

/// What a failure in a folder of this machine means.
impl From<object_store::Error> for Error {
    fn from(fault: object_store::Error) -> Self {
        match &fault {
            object_store::Error::NotFound { path, .. } => return Self::Missing(file_name(path)),
            object_store::Error::AlreadyExists { path, .. } => return Self::Exists(file_name(path)),
            _ => {}
        }
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&fault);
        while let Some(inner) = source {
            if let Some(io) = inner.downcast_ref::<io::Error>() {
                return match Self::from_io(io::Error::from(io.kind())) {
                    Self::Unavailable { what, .. } => Self::Unavailable { what, source: Some(Box::new(fault)) },
                    told => told,
                };
            }
            source = inner.source();
        }
        Self::Unavailable { what: "it answered with an error".to_owned(), source: Some(Box::new(fault)) }
    }
}

/// The last part of a path: no more of it is shown.
fn file_name(path: &str) -> String {
    path.rsplit('/').next().unwrap_or_default().to_owned()
}
