//! One dump from storage into a running server, which is told to follow us and loads it as from a primary.
//!
//! ```text
//! look     may the target be filled: role, emptiness, version, memory ...      nothing is changed
//! check    the whole artifact is read, digested and walked                     nothing is changed
//! arm      the feed listens; what is to be changed of the target is told       nothing is changed
//! load     REPLICAOF, the dump, the last 64 KiB only when all of it is right
//! finish   REPLICAOF NO ONE
//! release  after a failure: frees the target and tells its state
//! ```
//!
//! Knows nothing of operations but what they keep of a target ([`Left`]); who decides to repeat is above.

mod keyspace;
mod load;
mod preflight;
mod release;

pub use load::{Armed, Loaded};
pub use preflight::{Ready, look};
pub use release::{finish, release};

use crate::artifacts::manifest::ShardManifest;
use crate::artifacts::{self, Folder, Storage};
use crate::operation::Left;
use crate::redis::facts::Facts;
use crate::redis::{self, Address, Target, feed};
use crate::snapshot::Meter;
use std::future::Future;
use std::time::Duration;
use tokio::time::timeout;

/// Bytes of a dump that the target is not given before all of it has been read and is right: without its end a dump is not
/// loaded.
pub const HELD_BACK_BYTES: usize = 64 * 1024;

/// How long something may take before it is told that it is waited for.
const NOTICE: Duration = Duration::from_secs(1);

/// What is restored, and where to.
#[derive(Debug)]
pub struct Request {
    /// The server.
    pub target: Target,
    /// What it may be.
    pub rules: Rules,
    /// How the feed is reached.
    pub feed: feed::Options,
    /// Where the artifact lies.
    pub storage: Storage,
    /// Its folder there.
    pub folder: Folder,
    /// What the manifest says of it.
    pub shard: ShardManifest,
}

/// What the target may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Most keys that it may hold, which go; absent where it must be empty.
    pub overwrite: Option<u64>,
    /// Whether it may have replicas, which follow it.
    pub allow_replicas: bool,
    /// Whether sentinels are known to watch it.
    pub is_watched: bool,
    /// Memory that it may use, in bytes, as declared; what it reports counts where this is absent.
    pub memory_bytes: Option<u64>,
}

/// What stands against a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bar {
    /// What it is: a replica, one of a cluster, watched, with replicas of its own.
    Role,
    /// It holds something that nobody agreed to lose.
    NotEmpty,
    /// It cannot load the dump.
    Version,
    /// It has too little room.
    Memory,
}

/// Why a restore failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The target, or the connection to it.
    #[error(transparent)]
    Target(#[from] redis::Error),
    /// The artifact, or its storage.
    #[error("{0}")]
    Artifact(#[from] artifacts::Error),
    /// The target may not be filled.
    #[error("{what}")]
    Refused {
        /// What stands against it.
        bar: Bar,
        /// In words, with what to do.
        what: String,
    },
    /// Somebody else did something to the target meanwhile.
    #[error("{0}")]
    Taken(String),
    /// What the target has is not what the dump has.
    #[error("{0}")]
    Differs(String),
}

/// Reads the whole artifact, and holds it against its manifest.
///
/// # Errors
///
/// [`artifacts::Error`]; nothing was changed.
pub async fn check(request: &Request, meter: &Meter) -> Result<(), artifacts::Error> {
    meter.expect_bytes(request.shard.size_bytes);
    let mut dump = request.storage.dump(&request.folder, &request.shard)?;
    let mut stored = 0;
    while let Some(piece) = noted(meter, "the artifact storage", dump.next()).await? {
        let now = dump.stored_bytes();
        meter.count(piece.len() as u64, now.saturating_sub(stored));
        stored = now;
    }
    Ok(())
}

/// Waits for something, and tells so when it takes long.
async fn noted<T>(meter: &Meter, what: &str, doing: impl Future<Output = T>) -> T {
    tokio::pin!(doing);
    if let Ok(done) = timeout(NOTICE, &mut doing).await {
        return done;
    }
    meter.wait_for(what);
    let done = doing.await;
    meter.wait_for("");
    done
}

/// Whether a server follows our feed, as it was told to.
pub fn follows(facts: &Facts, left: &Left) -> bool {
    facts.primary.as_ref() == Some(&Address::Tcp { host: left.feed_host.clone(), port: left.feed_port })
}
