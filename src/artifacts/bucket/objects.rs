//! A bucket that is a prefix in the bucket of a store.
//!
//! ```text
//! <prefix>/.redkeep/<staging>/<number>            an object while it is written; nobody else looks there
//! <prefix>/.redkeep/<staging>/<number>.publish    what is about to be published, and that nothing lay under its key
//! <prefix>/<key>                                  the object, from its publication on: a copy that the store makes
//! ```
//!
//! A store has no second names. So an object is published by a copy, which is made only where nothing lies; a store that
//! cannot be told so is asked first. What is longer than a store copies at once is read and written.

use super::{Key, READ_BYTES, STAGING, Seen};
use crate::artifacts::place::Objects;
use crate::artifacts::remote::{COPY_BYTES, Remote, RemoteUpload};
use crate::artifacts::root::Root;
use crate::artifacts::transfer::hex;
use crate::artifacts::{Error, PART_BYTES};
use aws_lc_rs::digest;
use bytes::Bytes;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{self, Write};
use std::time::Duration;
use tokio::runtime::Handle;

/// Longest record of a publication, in bytes.
const RECORD_BYTES: u64 = 1024;

/// The prefix.
#[derive(Clone, Debug)]
pub(super) struct ObjectBucket {
    remote: Remote,
}

/// What is about to be published.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    bytes: u64,
    sha256: String,
}

impl ObjectBucket {
    /// Makes a client. Nobody is asked anything yet.
    pub(super) fn open(place: Objects) -> Result<Self, String> {
        Ok(Self { remote: Remote::open(place)? })
    }

    pub(super) async fn probe(&self, limit: Duration) -> Result<(), Error> {
        self.remote.probe(limit).await
    }

    fn object(&self, key: &Key) -> Result<Path, Error> {
        self.remote.path(&key.to_string())
    }

    fn staged(&self, staging: &str, name: &str) -> Result<Path, Error> {
        self.remote.path(&format!("{STAGING}/{staging}/{name}"))
    }

    pub(super) async fn length(&self, key: &Key) -> Result<Option<u64>, Error> {
        existing(self.remote.length(&self.object(key)?).await)
    }

    pub(super) async fn look(&self, key: &Key) -> Result<Option<Seen>, Error> {
        let Some(found) = existing(self.remote.look(&self.object(key)?).await)? else { return Ok(None) };
        // An e-tag is another once the object is another; where there is none, the time has to do.
        let mark = found.e_tag.unwrap_or_default();
        Ok(Some(Seen { bytes: found.size, modified_at: Some(found.last_modified), mark }))
    }

    pub(super) async fn read_range(&self, key: &Key, seen: &Seen, from: u64) -> Result<Bytes, Error> {
        let end = seen.bytes.min(from.saturating_add(READ_BYTES as u64));
        let changed = || Error::Corrupt { name: key.to_string(), what: "it changed while it was read".to_owned() };
        let path = self.object(key)?;
        if seen.mark.is_empty() && self.look(key).await?.as_ref() != Some(seen) {
            return Err(changed());
        }
        let e_tag = Some(&seen.mark).filter(|mark| !mark.is_empty());
        match self.remote.range_if(&path, from.min(end)..end, e_tag.map(String::as_str)).await {
            // So is a condition told that is not met; by some stores also where there is nothing.
            Err(Error::Exists(_)) => Err(match self.look(key).await? {
                Some(_) => changed(),
                None => Error::Missing(key.to_string()),
            }),
            read => read,
        }
    }

    pub(super) fn stage(&self, staging: &str, number: usize) -> Result<StagedObject, Error> {
        let upload = RemoteUpload::new(self.remote.clone(), self.staged(staging, &number.to_string())?)?;
        Ok(StagedObject { upload, part: Vec::new(), fault: None, runtime: Handle::current() })
    }

    pub(super) async fn publish(&self, staging: &str, number: usize, key: &Key, bytes: u64, sha256: &str) -> Result<(), Error> {
        let (staged, object) = (self.staged(staging, &number.to_string())?, self.object(key)?);
        let record = self.staged(staging, &format!("{number}.publish"))?;
        let taken = || Error::Exists(key.to_string());
        if existing(self.remote.length(&object).await)?.is_some() {
            return if self.holds(&object, bytes, sha256).await? { Ok(()) } else { Err(taken()) };
        }
        let length = self.remote.length(&staged).await?;
        if length != bytes {
            return Err(Error::Corrupt { name: key.to_string(), what: format!("{length} of its {bytes} bytes are staged") });
        }
        // Before the copy: so it is known later whose the object is, also when this was cut off between the two.
        let text = serde_json::to_vec(&Record { bytes, sha256: sha256.to_owned() }).map_err(|_| Error::unavailable("a record could not be written"))?;
        self.remote.put_small(&record, &Bytes::from(text)).await?;
        let copied =
            if bytes > 0 && bytes <= COPY_BYTES { self.remote.copy_new(&staged, &object, bytes).await } else { self.carry(&staged, &object, bytes).await };
        match copied {
            // Another was faster, or the answer to the copy was lost.
            Err(Error::Exists(_)) if self.holds(&object, bytes, sha256).await? => Ok(()),
            Err(Error::Exists(_)) => {
                self.remote.remove(&record).await?;
                Err(taken())
            }
            copied => copied,
        }
    }

    /// Copies what is longer than a store copies at once.
    async fn carry(&self, from: &Path, to: &Path, bytes: u64) -> Result<(), Error> {
        let mut upload = RemoteUpload::new(self.remote.clone(), to.clone())?.recorded_at(from)?;
        let (mut position, mut part) = (0, Bytes::new());
        while position < bytes {
            let end = bytes.min(position + PART_BYTES as u64);
            part = self.remote.range(from, position..end).await?;
            position = end;
            upload.part(std::mem::take(&mut part).into()).await?;
        }
        drop(part);
        upload.complete().await
    }

    pub(super) async fn withdraw(&self, staging: &str, number: usize, key: &Key) -> Result<(), Error> {
        let (record, object) = (self.staged(staging, &format!("{number}.publish"))?, self.object(key)?);
        let Some(length) = existing(self.remote.length(&record).await)? else { return Ok(()) };
        if length > RECORD_BYTES {
            return Err(Error::unavailable(format!("a record has {length} bytes, more than {RECORD_BYTES}")));
        }
        let text = self.remote.range(&record, 0..length).await?;
        let record: Record = serde_json::from_slice(&text).map_err(|_| Error::unavailable("a record cannot be read"))?;
        if existing(self.holds(&object, record.bytes, &record.sha256).await)?.unwrap_or(false) { self.remote.remove(&object).await } else { Ok(()) }
    }

    pub(super) async fn remove_staged(&self, staging: &str) -> Result<u64, Error> {
        self.remote.remove_all(&self.remote.path(&format!("{STAGING}/{staging}"))?).await
    }

    /// Whether an object has exactly these bytes.
    async fn holds(&self, object: &Path, bytes: u64, sha256: &str) -> Result<bool, Error> {
        match existing(self.remote.length(object).await)? {
            Some(length) if length == bytes => {}
            Some(_) | None => return Ok(false),
        }
        let mut context = digest::Context::new(&digest::SHA256);
        let mut position = 0;
        while position < bytes {
            let end = bytes.min(position + PART_BYTES as u64);
            let piece = self.remote.range(object, position..end).await?;
            let digested = tokio::task::spawn_blocking(move || {
                context.update(&piece);
                context
            });
            context = digested.await.map_err(|_| Error::unavailable("the work was interrupted"))?;
            position = end;
        }
        Ok(hex(context.finish().as_ref()) == sha256)
    }
}

/// `None` for what is not there.
fn existing<T>(found: Result<T, Error>) -> Result<Option<T>, Error> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Error::Missing(_)) => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// An object that is being written, in parts.
pub(super) struct StagedObject {
    upload: RemoteUpload,
    part: Vec<u8>,
    fault: Option<Error>,
    runtime: Handle,
}

impl fmt::Debug for StagedObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StagedObject").field("path", self.upload.path()).finish_non_exhaustive()
    }
}

impl StagedObject {
    pub(super) fn fault(&mut self) -> Option<Error> {
        self.fault.take()
    }

    pub(super) fn finish(mut self) -> Result<(), Error> {
        let last = std::mem::take(&mut self.part);
        self.runtime.block_on(async {
            if !last.is_empty() {
                self.upload.part(last).await?;
            }
            self.upload.complete().await
        })
    }

    /// Lets the store copy an object of `root` here, where it can; tells whether it did.
    pub(super) async fn copied(&self, root: &Root, path: &str, bytes: u64) -> Result<bool, Error> {
        match root.copies_into(self.upload.remote(), bytes) {
            Some(source) => source.copy(&source.path(path)?, self.upload.path(), bytes).await.map(|()| true),
            None => Ok(false),
        }
    }
}

impl Write for StagedObject {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.part.capacity() == 0 {
            self.part.reserve_exact(PART_BYTES);
        }
        let count = bytes.len().min(PART_BYTES - self.part.len());
        self.part.extend_from_slice(&bytes[..count]);
        if self.part.len() == PART_BYTES {
            let part = std::mem::take(&mut self.part);
            match self.runtime.block_on(self.upload.part(part)) {
                Ok(mut spare) => {
                    spare.clear();
                    self.part = spare;
                }
                Err(fault) => {
                    self.fault = Some(fault);
                    return Err(io::ErrorKind::Other.into());
                }
            }
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
