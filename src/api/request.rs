//! What the handlers read of a request beside its message: identifiers, folders, the key that makes a call repeatable.

use super::status::{self, invalid, not_found};
use crate::artifacts::bucket::Key;
use crate::auth::Grant;
use crate::backup::{BackupId, Labels, Name};
use crate::cluster::{ClusterId, FolderId, Timestamp};
use crate::executor::Caller;
use crate::operation::{ImportSource, OperationId};
use aws_lc_rs::digest;
use chrono::{DateTime, Utc};
use prost::Message;
use std::collections::BTreeSet;
use tonic::{Request, Status};

/// Metadata key of the idempotency key.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Longest idempotency key, in characters.
const KEY_CHARS: usize = 128;

/// Folder of calls that name none.
const DEFAULT_FOLDER: &str = "default";

/// Splits a call that reads into what its caller was let in for and the message.
pub(super) fn reading<T>(mut request: Request<T>) -> Result<(Grant, T), Status> {
    let grant = request.extensions_mut().remove::<Grant>().ok_or_else(|| Status::internal("the caller was not asked for"))?;
    Ok((grant, request.into_inner()))
}

/// Splits a changing call into what its caller was let in for, who asks, with the key and the digest of the request, and the
/// message.
pub(super) fn changing<T: Message + prost::Name>(request: Request<T>) -> Result<(Grant, Caller, T), Status> {
    split(request, digest_of)
}

/// As [`changing`], for a message with secrets: the digest, which is kept, is that of a copy in which `conceal` has put
/// something else in their place.
pub(super) fn changing_secret<T: Message + prost::Name + Clone>(request: Request<T>, conceal: impl FnOnce(&mut T)) -> Result<(Grant, Caller, T), Status> {
    split(request, |message| {
        let mut copy = message.clone();
        conceal(&mut copy);
        digest_of(&copy)
    })
}

fn split<T>(request: Request<T>, digest: impl FnOnce(&T) -> [u8; 32]) -> Result<(Grant, Caller, T), Status> {
    let key = match request.metadata().get(IDEMPOTENCY_KEY) {
        None => None,
        Some(value) => {
            let key = value.to_str().ok().filter(|key| (1..=KEY_CHARS).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()));
            Some(key.ok_or_else(|| invalid(IDEMPOTENCY_KEY, "must have 1 to 128 visible ASCII characters"))?.to_owned())
        }
    };
    let (grant, message) = reading(request)?;
    let key = key.map(|key| (key, digest(&message)));
    let caller = Caller { subject: grant.subject().to_owned(), key };
    Ok((grant, caller, message))
}

/// SHA-256 over the name of the request's type, which stands for the method, and its canonical encoding: fields in order,
/// map entries sorted.
fn digest_of<T: Message + prost::Name>(message: &T) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(T::full_name().as_bytes());
    context.update(&[0]);
    context.update(&message.encode_to_vec());
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

/// A cluster's id; one that no cluster can have is not found.
pub(super) fn cluster_id(text: &str) -> Result<ClusterId, Status> {
    text.parse().map_err(|_| not_found("cluster", text))
}

/// A backup's id; one that was never given out is not found.
pub(super) fn backup_id(text: &str) -> Result<BackupId, Status> {
    text.parse().map_err(|_| not_found("backup", text))
}

/// An operation's id; one that was never given out is not found.
pub(super) fn operation_id(text: &str) -> Result<OperationId, Status> {
    text.parse().map_err(|_| not_found("operation", text))
}

/// A folder that the caller may touch; `default` when it is empty.
pub(super) fn folder_id(grant: &Grant, text: &str) -> Result<FolderId, Status> {
    let text = if text.is_empty() { DEFAULT_FOLDER } else { text };
    let folder = text.parse().map_err(|fault: crate::cluster::IdError| invalid("folder_id", fault.to_string()))?;
    grant.folder(&folder).map_err(|denied| status::denied(denied, "folder", text))?;
    Ok(folder)
}

/// A backup's name.
pub(super) fn name(text: &str) -> Result<Name, Status> {
    text.parse().map_err(|fault: crate::backup::BadName| invalid("name", fault.to_string()))
}

/// Folders in a bucket, with `/` between them and at neither end; may be empty. Each has letters, digits, `-`, `_` and `.`.
pub(super) fn export_path(text: &str) -> Result<String, Status> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.');
    if !text.chars().all(legal) {
        return Err(invalid("path", "must have only letters, digits, `-`, `_` and `.`, with `/` between folders"));
    }
    if !text.is_empty()
        && let Err(bad) = text.parse::<Key>()
    {
        return Err(invalid("path", bad.to_string()));
    }
    Ok(text.to_owned())
}

/// Keys of dumps in a bucket, each once, in the order given.
pub(super) fn import_keys(keys: Vec<String>) -> Result<Vec<String>, Status> {
    if keys.is_empty() || keys.len() > ImportSource::KEYS {
        return Err(invalid("keys", format!("must have 1 to {} elements", ImportSource::KEYS)));
    }
    if keys.iter().map(String::len).sum::<usize>() > ImportSource::KEYS_BYTES {
        return Err(invalid("keys", format!("must have at most {} bytes in all", ImportSource::KEYS_BYTES)));
    }
    let mut seen = BTreeSet::new();
    for key in &keys {
        key.parse::<Key>().map_err(|bad| invalid("keys", bad.to_string()))?;
        if !seen.insert(key.as_str()) {
            return Err(invalid("keys", "must not name an object twice"));
        }
    }
    Ok(keys)
}

/// Labels; the validator has checked them.
pub(super) fn labels(labels: std::collections::BTreeMap<String, String>) -> Labels {
    labels
}

/// An expiry, which must lie in the future; absent means never.
pub(super) fn expiry(field: &str, at: Option<prost_types::Timestamp>) -> Result<Option<Timestamp>, Status> {
    let Some(at) = at else { return Ok(None) };
    let nanos = u32::try_from(at.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    let instant = nanos.and_then(|nanos| DateTime::<Utc>::from_timestamp(at.seconds, nanos)).filter(|at| at.timestamp() < 253_402_300_800);
    let instant = instant.ok_or_else(|| invalid(field, "must be a time of the years 1970 to 9999"))?;
    if instant <= Utc::now() {
        return Err(invalid(field, "must lie in the future"));
    }
    Ok(Some(instant))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Identity, Role};
    use crate::pb::own;

    fn admitted() -> Request<own::DeleteBackupRequest> {
        let mut request = Request::new(own::DeleteBackupRequest::default());
        request.extensions_mut().insert(Grant::new(Identity::anonymous().into(), Role::Editor).unwrap());
        request
    }

    #[test]
    fn a_request_that_nobody_was_let_in_with_goes_no_further() {
        assert_eq!(reading(Request::new(())).unwrap_err().code(), tonic::Code::Internal);
    }

    #[test]
    fn the_digest_sees_method_and_content_and_no_order_of_labels() {
        let request = |labels: &[(&str, &str)]| own::CreateBackupRequest {
            cluster_id: "main".into(),
            labels: labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            ..Default::default()
        };
        assert_eq!(digest_of(&request(&[("a", "1"), ("b", "2")])), digest_of(&request(&[("b", "2"), ("a", "1")])));
        assert_ne!(digest_of(&request(&[("a", "1")])), digest_of(&request(&[("a", "2")])));
        let delete = own::DeleteBackupRequest { backup_id: "main".into() };
        let get = own::GetBackupRequest { backup_id: "main".into() };
        assert_ne!(digest_of(&delete), digest_of(&get));
    }

    #[test]
    fn keys_are_checked() {
        let mut request = admitted();
        request.metadata_mut().insert(IDEMPOTENCY_KEY, "a key".parse().unwrap());
        assert_eq!(changing(request).unwrap_err().code(), tonic::Code::InvalidArgument);
        let mut request = admitted();
        request.metadata_mut().insert(IDEMPOTENCY_KEY, "k".repeat(129).parse().unwrap());
        assert!(changing(request).is_err());
        let mut request = admitted();
        request.metadata_mut().insert(IDEMPOTENCY_KEY, "k".repeat(128).parse().unwrap());
        assert!(changing(request).unwrap().1.key.is_some());
    }

    #[test]
    fn a_concealed_secret_is_not_in_the_digest() {
        let request = |password: &str| {
            let credentials = own::Credentials { username: String::new(), password: password.to_owned() };
            let message =
                own::AdoptClusterRequest { connection: Some(own::Connection { credentials: Some(credentials), ..Default::default() }), ..Default::default() };
            let mut request = Request::new(message);
            request.extensions_mut().insert(Grant::new(Identity::anonymous().into(), Role::Editor).unwrap());
            request.metadata_mut().insert(IDEMPOTENCY_KEY, "k".parse().unwrap());
            let conceal = |message: &mut own::AdoptClusterRequest| message.connection = None;
            let (_, caller, message) = changing_secret(request, conceal).unwrap();
            assert_eq!(message.connection.unwrap().credentials.unwrap().password, password);
            caller.key.unwrap().1
        };
        assert_eq!(request("hunter2"), request("hunter3"));
    }

    #[test]
    fn a_path_stays_in_its_bucket() {
        for good in ["", "a", "daily/2030-01-31", "a.b/_c/-d", "...", "a/".repeat(100).trim_end_matches('/')] {
            assert_eq!(export_path(good).unwrap(), good);
        }
        for bad in ["/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/..", "a/.", "a b", "a\\b", "a\0", "é", "a\n", ".redkeep", "a/.redkeep/b", "~/a:b"]
        {
            let refused = export_path(bad).expect_err(bad);
            assert_eq!((refused.code(), refused.message().starts_with("path must")), (tonic::Code::InvalidArgument, true), "{bad}: {refused:?}");
        }
    }

    #[test]
    fn an_import_names_each_object_once() {
        let keys = |keys: &[&str]| import_keys(keys.iter().map(|key| (*key).to_owned()).collect());
        assert_eq!(keys(&["b/2.rdb", "a.rdb"]).unwrap(), ["b/2.rdb", "a.rdb"]);
        for bad in [&[][..], &["a", "a"], &["../a"], &[".redkeep/x"], &["a\n"], &[""]] {
            assert_eq!(keys(bad).unwrap_err().code(), tonic::Code::InvalidArgument, "{bad:?}");
        }
        let many = |count: usize, length: usize| import_keys((0..count).map(|number| format!("{number:0length$}")).collect());
        assert!(many(ImportSource::KEYS, 10).is_ok() && many(32, 1024).is_ok());
        assert!(many(ImportSource::KEYS + 1, 10).is_err() && many(33, 1024).is_err());
    }

    #[test]
    fn an_expiry_lies_in_the_future() {
        assert_eq!(expiry("expires_at", None).unwrap(), None);
        assert!(expiry("expires_at", Some(prost_types::Timestamp { seconds: 1, nanos: 0 })).is_err());
        assert!(expiry("expires_at", Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 })).is_err());
        assert!(expiry("expires_at", Some(prost_types::Timestamp { seconds: 4_000_000_000, nanos: -1 })).is_err());
        assert!(expiry("expires_at", Some(prost_types::Timestamp { seconds: 4_000_000_000, nanos: 0 })).unwrap().is_some());
    }
}
