//! One root, whatever its kind.

use super::files::{FileUpload, Files};
use super::place::Place;
use super::remote::{COPY_BYTES, Remote, RemoteUpload};
use super::{Error, Folder, PART_TIMEOUT};
use bytes::Bytes;
use object_store::path::Path;
use std::fmt;
use std::ops::Range;
use std::time::Duration;
use tokio::time::timeout;

/// A root.
#[derive(Clone, Debug)]
pub(super) enum Root {
    /// A folder of this machine.
    Files(Files),
    /// A prefix in the bucket of a store.
    Remote(Remote),
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place().fmt(f)
    }
}

impl Root {
    pub(super) fn open(place: Place) -> Result<Self, Error> {
        match place {
            Place::Files(root) => Files::open(root).map(Self::Files),
            Place::Objects(objects) => Remote::open(*objects).map(Self::Remote).map_err(Error::unavailable),
        }
    }

    pub(super) async fn probe(&self, limit: Duration) -> Result<(), Error> {
        match self {
            // Looked at when it was opened.
            Self::Files(_) => Ok(()),
            Self::Remote(remote) => remote.probe(limit).await,
        }
    }

    pub(super) fn free_bytes(&self) -> Option<u64> {
        match self {
            Self::Files(files) => files.free_bytes(),
            Self::Remote(_) => None,
        }
    }

    pub(super) async fn create(&self, path: &str, bytes: &Bytes) -> Result<(), Error> {
        match self {
            Self::Files(files) => files.create(&Path::from(path), bytes).await,
            Self::Remote(remote) => remote.create(&remote.path(path)?, bytes).await,
        }
    }

    /// Reads a range, which must not be longer than a part.
    pub(super) async fn range(&self, path: &str, range: Range<u64>) -> Result<Bytes, Error> {
        match self {
            Self::Files(files) => files.range(&Path::from(path), range).await,
            Self::Remote(remote) => remote.range(&remote.path(path)?, range).await,
        }
    }

    pub(super) async fn length(&self, path: &str) -> Result<u64, Error> {
        match self {
            Self::Files(files) => files.length(&Path::from(path)).await,
            Self::Remote(remote) => remote.length(&remote.path(path)?).await,
        }
    }

    /// Shows every object below it to `see`, by its path and its length in bytes. It ends with the first error.
    pub(super) async fn each(&self, see: &mut (dyn FnMut(&str, u64) -> Result<(), Error> + Send)) -> Result<(), Error> {
        match self {
            Self::Files(files) => files.each(see).await,
            Self::Remote(remote) => remote.each(see).await,
        }
    }

    pub(super) async fn remove(&self, path: &str) -> Result<(), Error> {
        match self {
            Self::Files(files) => files.remove(&Path::from(path)).await,
            Self::Remote(remote) => remote.remove(&remote.path(path)?).await,
        }
    }

    pub(super) async fn upload(&self, path: &str) -> Result<Upload, Error> {
        Ok(Upload(match self {
            Self::Files(files) => Way::File(files.upload(&Path::from(path)).await?),
            Self::Remote(remote) => Way::Remote(Box::new(RemoteUpload::new(remote.clone(), remote.path(path)?)?)),
        }))
    }

    pub(super) async fn signed_url(&self, path: &str, expires_in: Duration) -> Result<Option<String>, Error> {
        match self {
            Self::Files(_) => Ok(None),
            Self::Remote(remote) => remote.signed(&remote.path(path)?, expires_in).await.map(Some),
        }
    }

    pub(super) async fn remove_remains(&self, folder: &Folder) -> Result<(), Error> {
        match self {
            Self::Files(files) => files.remove_remains(folder).await,
            Self::Remote(remote) => remote.remove_remains(&remote.path(folder.as_str())?).await,
        }
    }

    pub(super) async fn remove_all(&self, folder: &Folder) -> Result<u64, Error> {
        match self {
            Self::Files(files) => files.remove_all(folder).await,
            Self::Remote(remote) => remote.remove_all(&remote.path(folder.as_str())?).await,
        }
    }

    /// The folder that it is, if it is one.
    pub(super) fn folder(&self) -> Option<&std::path::Path> {
        match self {
            Self::Files(files) => Some(files.root()),
            Self::Remote(_) => None,
        }
    }

    pub(super) fn place(&self) -> Place {
        match self {
            Self::Files(files) => Place::Files(files.root().to_owned()),
            Self::Remote(remote) => Place::Objects(Box::new(remote.place().clone())),
        }
    }

    /// Who copies an object of this many bytes from here to there, where their store can do it by itself.
    pub(super) fn copies_into(&self, to: &Remote, bytes: u64) -> Option<&Remote> {
        match self {
            Self::Remote(from) if from.place().is_beside(to.place()) && bytes > 0 && bytes <= COPY_BYTES => Some(from),
            Self::Remote(_) | Self::Files(_) => None,
        }
    }

    /// As [`Root::copies_into`] for another root, with that.
    pub(super) fn copies_to<'a>(&'a self, to: &'a Self, bytes: u64) -> Option<(&'a Remote, &'a Remote)> {
        match to {
            Self::Remote(to) => self.copies_into(to, bytes).map(|from| (from, to)),
            Self::Files(_) => None,
        }
    }
}

/// An upload in parts.
pub struct Upload(Way);

enum Way {
    File(FileUpload),
    Remote(Box<RemoteUpload>),
}

impl Upload {
    /// Stores the next part, and gives its memory back for another. All parts but the last have [`super::PART_BYTES`].
    ///
    /// # Errors
    ///
    /// [`Error::Stalled`] after [`PART_TIMEOUT`], else [`Error`]; the upload must be aborted then.
    pub async fn part(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
        match &mut self.0 {
            Way::File(upload) => {
                let bytes = Bytes::from(bytes);
                timeout(PART_TIMEOUT, upload.part(&bytes)).await.map_err(|_| Error::Stalled)??;
                Ok(bytes.into())
            }
            Way::Remote(upload) => upload.part(bytes).await,
        }
    }

    /// Makes the object visible. Durable on return.
    ///
    /// # Errors
    ///
    /// [`Error`]; the upload must be aborted then.
    pub async fn complete(&mut self) -> Result<(), Error> {
        match &mut self.0 {
            Way::File(upload) => upload.complete().await,
            Way::Remote(upload) => upload.complete().await,
        }
    }

    /// Gives the upload up. What cannot be removed now is left to the collector.
    pub async fn abort(self) {
        let aborted = match self.0 {
            Way::File(upload) => upload.abort().await,
            Way::Remote(upload) => upload.abort().await,
        };
        if let Err(fault) = aborted {
            tracing::debug!(error = %fault, "an upload could not be aborted; the collector removes its remains");
        }
    }
}
