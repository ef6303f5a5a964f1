//! An upload in parts to a store that is reached over the network.
//!
//! ```text
//! <key>.upload      id and key of the upload, from before its first part until it has ended
//! ```
//!
//! Parts that nobody completes stay with the store and are paid for, and no listing shows them. So the id is recorded first:
//! whoever removes the folder ends the upload, also after the process that began it is gone. What fits in one part is put at
//! once, and needs neither.

use super::{HEDGE_AFTER, Remote, SMALL_TIMEOUT};
use crate::artifacts::place::Kind;
use crate::artifacts::{Error, PART_BYTES, PART_TIMEOUT, SEAL_TIMEOUT};
use crate::telemetry::crash_point;
use bytes::Bytes;
use futures_util::future::{Either, select};
use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::{MultipartId, PutPayload};
use tokio::runtime::Handle;
use tokio::time::timeout;

/// What the name of a record ends with.
pub(in crate::artifacts) const RECORD_SUFFIX: &str = ".upload";

/// Longest record of an upload, in bytes.
const RECORD_BYTES: u64 = 8192;

/// Most parts of an object.
///
/// Source: Amazon S3 and Google Cloud Storage; Azure allows more. A segment has less than 8,200.
const PARTS: usize = 10_000;

/// The upload. When it is dropped before its end, it is aborted.
pub(in crate::artifacts) struct RemoteUpload {
    remote: Remote,
    path: Path,
    record: Path,
    id: Option<MultipartId>,
    parts: Vec<PartId>,
    /// A first part that must be the last, being short: it goes with the completion.
    held: Option<Bytes>,
    bytes: u64,
    runtime: Handle,
}

impl RemoteUpload {
    /// Prepares an upload; the store is asked with the first part that is followed by others.
    pub(in crate::artifacts) fn new(remote: Remote, path: Path) -> Result<Self, Error> {
        Ok(Self { record: record(&path)?, remote, path, id: None, parts: Vec::new(), held: None, bytes: 0, runtime: Handle::current() })
    }

    /// Has the record beside another key.
    pub(in crate::artifacts) fn recorded_at(mut self, beside: &Path) -> Result<Self, Error> {
        self.record = record(beside)?;
        Ok(self)
    }

    /// Where the object will lie, below the root of its store.
    pub(in crate::artifacts) fn path(&self) -> &Path {
        &self.path
    }

    /// Where it will lie, and in what.
    pub(in crate::artifacts) fn remote(&self) -> &Remote {
        &self.remote
    }

    /// Stores the next part, and gives its memory back for another.
    pub(in crate::artifacts) async fn part(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
        if self.held.is_some() || self.parts.len() >= PARTS {
            return Err(Error::unavailable("a part came after the last"));
        }
        let bytes = Bytes::from(bytes);
        self.bytes += bytes.len() as u64;
        if self.id.is_none() && bytes.len() < PART_BYTES {
            self.held = Some(bytes);
            return Ok(Vec::new());
        }
        self.put(bytes.clone()).await?;
        Ok(bytes.into())
    }

    async fn put(&mut self, bytes: Bytes) -> Result<(), Error> {
        let id = match self.id.clone() {
            Some(id) => id,
            None => self.begin().await?,
        };
        let (index, objects) = (self.parts.len(), &self.remote.0.client.objects);
        let put = || self.remote.ask(PART_TIMEOUT, || objects.put_part(&self.path, &id, index, PutPayload::from_bytes(bytes.clone())));
        // A connection that died without a word costs no more than a while: the same part is put again beside it.
        let twice = async {
            let mut first = Box::pin(put());
            if let Ok(put) = timeout(HEDGE_AFTER, &mut first).await {
                return put;
            }
            match select(first, Box::pin(put())).await {
                Either::Left((Err(_), other)) => other.await,
                Either::Right((Err(_), other)) => other.await,
                Either::Left((put, _)) | Either::Right((put, _)) => put,
            }
        };
        let part = timeout(PART_TIMEOUT, twice).await.map_err(|_| Error::Stalled)??;
        self.parts.push(part);
        if index == 0 {
            crash_point("upload.part");
        }
        Ok(())
    }

    /// Begins the upload and records its id, in this order: an upload without parts that nobody knows costs nothing.
    async fn begin(&mut self) -> Result<MultipartId, Error> {
        let objects = &self.remote.0.client.objects;
        let id = self.remote.ask(SMALL_TIMEOUT, || objects.create_multipart(&self.path)).await?;
        self.id = Some(id.clone());
        self.remote.put_small(&self.record, &Bytes::from(format!("{id}\n{}", self.path))).await?;
        Ok(id)
    }

    /// Makes the object visible. Durable on return.
    pub(in crate::artifacts) async fn complete(&mut self) -> Result<(), Error> {
        let Some(id) = self.id.clone() else {
            let bytes = self.held.take().unwrap_or_default();
            return self.remote.put(&self.path, &bytes, PART_TIMEOUT).await;
        };
        let objects = &self.remote.0.client.objects;
        let completed = self.remote.ask(SEAL_TIMEOUT, || objects.complete_multipart(&self.path, &id, self.parts.clone())).await;
        if let Err(fault) = completed {
            // A try whose answer was lost may have been heard; then the upload is no more, and the object is there.
            let present =
                matches!(fault, Error::Missing(_) | Error::Unavailable { .. }) && self.remote.length(&self.path).await.is_ok_and(|length| length == self.bytes);
            if !present {
                return Err(fault);
            }
        }
        self.id = None;
        if let Err(fault) = self.remote.remove(&self.record).await {
            tracing::debug!(error = %fault, "the record of a completed upload could not be removed; it goes with the remains");
        }
        Ok(())
    }

    /// Gives the upload up.
    pub(in crate::artifacts) async fn abort(mut self) -> Result<(), Error> {
        match self.id.take() {
            Some(id) => self.remote.abort(&self.path, &id, &self.record).await.map(drop),
            None => Ok(()),
        }
    }
}

fn record(key: &Path) -> Result<Path, Error> {
    Path::parse(format!("{key}{RECORD_SUFFIX}")).map_err(|_| Error::unavailable("a key has a part that no store takes"))
}

impl Drop for RemoteUpload {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            let (remote, path, record) = (self.remote.clone(), self.path.clone(), self.record.clone());
            // What cannot be ended now is ended by whoever finds the record.
            self.runtime.spawn(async move {
                if let Err(fault) = remote.abort(&path, &id, &record).await {
                    tracing::debug!(error = %fault, "an upload could not be aborted; the collector does it");
                }
            });
        }
    }
}

impl Remote {
    /// Ends an upload of which there is a record; tells whether there was one. An object that was completed stays.
    pub(super) async fn abort_recorded(&self, record: &Path) -> Result<bool, Error> {
        let length = match self.length(record).await {
            Ok(length) => length,
            // Another has ended it meanwhile.
            Err(Error::Missing(_)) => return Ok(false),
            Err(fault) => return Err(fault),
        };
        if length > RECORD_BYTES {
            return Err(Error::unavailable(format!("the record of an upload has {length} bytes, more than {RECORD_BYTES}")));
        }
        let bytes = self.range(record, 0..length).await?;
        let text = std::str::from_utf8(&bytes).ok().and_then(|text| text.split_once('\n'));
        let (id, path) = text.ok_or_else(|| Error::unavailable("the record of an upload cannot be read"))?;
        let path = Path::parse(path).map_err(|_| Error::unavailable("the record of an upload cannot be read"))?;
        self.abort(&path, &id.to_owned(), record).await
    }

    /// Ends an upload and removes its record, in this order; tells whether there was something to end.
    async fn abort(&self, path: &Path, id: &MultipartId, record: &Path) -> Result<bool, Error> {
        let objects = &self.0.client.objects;
        let ended = match self.place().kind {
            // There is no such request. Blocks that no list names go when a list that names none makes an object, which is
            // removed then. Where the object was completed, it stays; nobody completes it meanwhile but a late worker, whose
            // object is to go, too.
            Kind::Azure => match self.length(path).await {
                Ok(_) => false,
                Err(Error::Missing(_)) => {
                    self.ask(SMALL_TIMEOUT, || objects.complete_multipart(path, id, Vec::new())).await?;
                    self.remove(path).await?;
                    true
                }
                Err(fault) => return Err(fault),
            },
            Kind::S3 | Kind::Google => match self.ask(SMALL_TIMEOUT, || objects.abort_multipart(path, id)).await {
                Ok(()) => true,
                Err(Error::Missing(_)) => false,
                Err(fault) => return Err(fault),
            },
        };
        self.remove(record).await?;
        Ok(ended)
    }
}
