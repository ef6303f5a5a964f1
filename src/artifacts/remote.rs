//! A prefix in the bucket of a store that is reached over the network: what is asked of it, how long, and how often.
//!
//! Every request here may be made twice without harm, so every request is repeated when the connection breaks; and with new
//! credentials when the store says that the present ones have had their time. What a store refuses for the moment the library
//! repeats by itself.

pub(super) mod answers;
mod connect;
mod credentials;
mod upload;

pub(super) use upload::{RECORD_SUFFIX, RemoteUpload};

use super::place::{Conditions, Kind, Objects};
use super::{Error, PART_TIMEOUT, SEAL_TIMEOUT};
use answers::Answer;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::client::HttpErrorKind;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::signer::{Method, Signer};
use object_store::{CopyMode, CopyOptions, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use rand::Rng;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// Longest wait for a small request, all its tries together.
const SMALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a request is repeated here, beside what the library repeats.
const TRIES: u32 = 5;

/// Pause before the first of these tries; each later one may be twice as long.
const TRY_PAUSE: Duration = Duration::from_millis(200);

/// After this long a request for a part that has no answer is made a second time beside the first.
const HEDGE_AFTER: Duration = Duration::from_secs(8);

/// Longest object that a store copies for us, in bytes.
///
/// Source: Amazon S3, `CopyObject` and `UploadPartCopy`. Longer ones are read and written.
pub(super) const COPY_BYTES: u64 = 5 * 1024 * 1024 * 1024;

/// Requests for removal that are under way at once.
const REMOVALS: usize = 8;

/// Longest time for which a link may be signed.
///
/// Source: signature version 4 of Amazon S3 and of Google.
const LINK_TIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// What the library's stores have in common.
trait Store: ObjectStore + MultipartStore + Signer {}

impl<T: ObjectStore + MultipartStore + Signer> Store for T {}

/// A client, and how its credentials are forgotten.
pub(super) struct Client {
    objects: Arc<dyn Store>,
    renew: Box<dyn Fn() + Send + Sync>,
}

/// The prefix.
#[derive(Clone)]
pub(super) struct Remote(Arc<Inner>);

struct Inner {
    client: Client,
    place: Objects,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Remote").field(&self.0.place.to_string()).finish()
    }
}

impl Remote {
    /// Makes a client. Nobody is asked anything yet.
    ///
    /// # Errors
    ///
    /// What is wrong with the place, in words that hold no secret.
    pub(super) fn open(place: Objects) -> Result<Self, String> {
        let client = connect::connect(&place)?;
        Ok(Self(Arc::new(Inner { client, place })))
    }

    pub(super) fn place(&self) -> &Objects {
        &self.0.place
    }

    /// The path of a key below the prefix.
    pub(super) fn path(&self, key: &str) -> Result<Path, Error> {
        let prefix = &self.0.place.prefix;
        let text = if prefix.is_empty() { key.to_owned() } else { format!("{prefix}/{key}") };
        Path::parse(text).map_err(|_| Error::unavailable("a key has a part that no store takes"))
    }

    /// Asks, and asks again where that helps, for `limit` altogether.
    async fn ask<T, F: Future<Output = object_store::Result<T>>>(&self, limit: Duration, mut request: impl FnMut() -> F) -> Result<T, Error> {
        let until = Instant::now() + limit;
        let mut tries = 0;
        loop {
            let fault = match timeout_at(until, request()).await {
                Err(_) => return Err(Error::unavailable(format!("no answer within {} s", limit.as_secs()))),
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(fault)) => fault,
            };
            tries += 1;
            let again = match Answer::of(&fault) {
                Answer::Refused(refused) if refused.may_be_renewed() => {
                    (self.0.client.renew)();
                    // What is plainly wrong is tried once more: somebody may be writing new files just now.
                    refused.is_expired() || tries == 1
                }
                Answer::Refused(refused) => refused.status >= 500 || refused.status == 429 || refused.is_about_transfer(),
                Answer::Broken(kind) => !matches!(kind, HttpErrorKind::Decode),
                Answer::Other => false,
            };
            let pause = pause(tries);
            if !again || tries >= TRIES || Instant::now() + pause >= until {
                return Err(Error::from_answer(&fault));
            }
            tracing::debug!(answer = %Answer::of(&fault), tries, "a request to the storage is repeated");
            tokio::time::sleep(pause).await;
        }
    }

    /// Asks whether the bucket can be looked into.
    pub(super) async fn probe(&self, limit: Duration) -> Result<(), Error> {
        let prefix = Path::parse(&self.0.place.prefix).map_err(|_| Error::unavailable("the prefix is one that no store takes"))?;
        let objects = &self.0.client.objects;
        self.ask(limit, || async { objects.list(Some(&prefix).filter(|prefix| !prefix.as_ref().is_empty())).next().await.transpose().map(drop) }).await
    }

    /// Length of an object.
    pub(super) async fn length(&self, path: &Path) -> Result<u64, Error> {
        Ok(self.look(path).await?.size)
    }

    /// What a store tells of an object.
    pub(super) async fn look(&self, path: &Path) -> Result<ObjectMeta, Error> {
        let found = self.ask(SMALL_TIMEOUT, || self.0.client.objects.head(path)).await;
        if let Err(Error::Missing(_)) = &found {
            // An answer to such a question has no words: it is the same where there is no bucket.
            self.probe(SMALL_TIMEOUT).await?;
        }
        found
    }

    /// A range of an object, which must not be longer than a part.
    pub(super) async fn range(&self, path: &Path, range: Range<u64>) -> Result<Bytes, Error> {
        self.range_if(path, range, None).await
    }

    /// A range of an object, which must not be longer than a part, as long as it has this e-tag.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`] when it has another.
    pub(super) async fn range_if(&self, path: &Path, range: Range<u64>, e_tag: Option<&str>) -> Result<Bytes, Error> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let wanted = range.end - range.start;
        let options = || GetOptions { range: Some(GetRange::Bounded(range.clone())), if_match: e_tag.map(str::to_owned), ..GetOptions::default() };
        let read = || async { self.0.client.objects.get_opts(path, options()).await?.bytes().await };
        let bytes = self.ask(PART_TIMEOUT, read).await?;
        if bytes.len() as u64 == wanted { Ok(bytes) } else { Err(Error::unavailable(format!("it gave {} bytes instead of {wanted}", bytes.len()))) }
    }

    /// Writes a small object, in the place of another if there is one.
    pub(super) async fn put_small(&self, path: &Path, bytes: &Bytes) -> Result<(), Error> {
        self.put(path, bytes, SMALL_TIMEOUT).await
    }

    async fn put(&self, path: &Path, bytes: &Bytes, limit: Duration) -> Result<(), Error> {
        self.ask(limit, || self.0.client.objects.put(path, PutPayload::from_bytes(bytes.clone()))).await.map(drop)
    }

    /// Writes a small object where nothing lies.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`] when something does: also what this very call wrote, when the answer to that was lost.
    pub(super) async fn create(&self, path: &Path, bytes: &Bytes) -> Result<(), Error> {
        if self.0.place.kind == Kind::S3 && self.0.place.conditions == Conditions::Lacking {
            return match self.length(path).await {
                Ok(_) => Err(Error::Exists(path.filename().unwrap_or_default().to_owned())),
                Err(Error::Missing(_)) => self.put_small(path, bytes).await,
                Err(fault) => Err(fault),
            };
        }
        let options = || PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        self.ask(SMALL_TIMEOUT, || self.0.client.objects.put_opts(path, PutPayload::from_bytes(bytes.clone()), options())).await.map(drop)
    }

    /// Removes an object; one that is not there is success.
    pub(super) async fn remove(&self, path: &Path) -> Result<(), Error> {
        match self.ask(SMALL_TIMEOUT, || self.0.client.objects.delete(path)).await {
            Ok(()) | Err(Error::Missing(_)) => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    /// Everything below a path, whole names only.
    fn list<'a>(&'a self, folder: &Path) -> impl futures_util::Stream<Item = Result<ObjectMeta, Error>> + 'a {
        // Each page is one answer of the library, which repeats it; a listing that breaks is begun again by whoever wants it.
        self.0.client.objects.list(Some(folder)).map_err(|fault| Error::from_answer(&fault))
    }

    /// Shows every object below the prefix to `see`, by its path from there.
    pub(super) async fn each(&self, see: &mut (dyn FnMut(&str, u64) -> Result<(), Error> + Send)) -> Result<(), Error> {
        let prefix = Path::parse(&self.0.place.prefix).map_err(|_| Error::unavailable("the prefix is one that no store takes"))?;
        let below = Some(&prefix).filter(|prefix| !prefix.as_ref().is_empty());
        let mut listed = self.0.client.objects.list(below);
        loop {
            let next = timeout(SMALL_TIMEOUT, listed.next()).await;
            let Some(found) = next.map_err(|_| Error::unavailable(format!("no answer within {} s", SMALL_TIMEOUT.as_secs())))? else { return Ok(()) };
            let found = found.map_err(|fault| Error::from_answer(&fault))?;
            let path = found.location.as_ref();
            let inner = path.strip_prefix(prefix.as_ref()).unwrap_or(path);
            see(inner.trim_start_matches('/'), found.size)?;
        }
    }

    /// Removes everything below a path, with uploads that were begun there; tells how many objects and uploads went.
    pub(super) async fn remove_all(&self, folder: &Path) -> Result<u64, Error> {
        let listed = self.list(folder).map(|found| async move {
            let found = found?;
            match is_record(&found.location) {
                true => self.abort_recorded(&found.location).await.map(u64::from),
                false => self.remove(&found.location).await.map(|()| 1),
            }
        });
        let removing = listed.buffer_unordered(REMOVALS).try_fold(0, |sum, count| async move { Ok(sum + count) });
        match timeout(SEAL_TIMEOUT, removing).await {
            Ok(removed) => removed,
            Err(_) => Err(Error::unavailable(format!("no end within {} s", SEAL_TIMEOUT.as_secs()))),
        }
    }

    /// Ends the uploads that were begun directly in a folder and not completed.
    pub(super) async fn remove_remains(&self, folder: &Path) -> Result<(), Error> {
        let mut listed = std::pin::pin!(self.list(folder));
        let removing = async {
            while let Some(found) = listed.next().await {
                let found = found?;
                if is_record(&found.location) {
                    self.abort_recorded(&found.location).await?;
                }
            }
            Ok(())
        };
        match timeout(SEAL_TIMEOUT, removing).await {
            Ok(removed) => removed,
            Err(_) => Err(Error::unavailable(format!("no end within {} s", SEAL_TIMEOUT.as_secs()))),
        }
    }

    /// Lets the store copy an object of the same bucket, over another if there is one. Its length, and that its last byte can
    /// be read, are looked at; the bytes do not come here.
    pub(super) async fn copy(&self, from: &Path, to: &Path, length: u64) -> Result<(), Error> {
        self.ask(SEAL_TIMEOUT, || self.0.client.objects.copy(from, to)).await?;
        self.settled(to, length).await
    }

    /// As [`Remote::copy`], where nothing lies.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`] when something does: also what this very call wrote, when the answer to that was lost.
    pub(super) async fn copy_new(&self, from: &Path, to: &Path, length: u64) -> Result<(), Error> {
        if self.0.place.kind == Kind::S3 && self.0.place.conditions == Conditions::Lacking {
            return match self.length(to).await {
                Ok(_) => Err(Error::Exists(to.filename().unwrap_or_default().to_owned())),
                Err(Error::Missing(_)) => self.copy(from, to, length).await,
                Err(fault) => Err(fault),
            };
        }
        let options = || CopyOptions::new().with_mode(CopyMode::Create);
        self.ask(SEAL_TIMEOUT, || self.0.client.objects.copy_opts(from, to, options())).await?;
        self.settled(to, length).await
    }

    /// Waits until a copy can be read, which some stores make after they have answered.
    async fn settled(&self, path: &Path, length: u64) -> Result<(), Error> {
        let present = self.length(path).await?;
        if present != length {
            let what = format!("the copy has {present} bytes instead of {length}");
            return Err(Error::Corrupt { name: path.filename().unwrap_or_default().to_owned(), what });
        }
        self.range(path, length.saturating_sub(1)..length).await.map(drop)
    }

    /// A link with which anybody can read an object for a time.
    pub(super) async fn signed(&self, path: &Path, expires_in: Duration) -> Result<String, Error> {
        let time = expires_in.min(LINK_TIME);
        let url = self.ask(SMALL_TIMEOUT, || self.0.client.objects.signed_url(Method::GET, path, time)).await?;
        Ok(url.into())
    }
}

/// Whether it is by its name the record of an upload.
fn is_record(path: &Path) -> bool {
    path.as_ref().ends_with(RECORD_SUFFIX)
}

/// Pause before a try: up to twice as long each time, never none.
fn pause(tries: u32) -> Duration {
    let most = TRY_PAUSE * 2u32.saturating_pow(tries.saturating_sub(1).min(5));
    most.mul_f64(rand::rng().random_range(0.5..=1.0))
}
