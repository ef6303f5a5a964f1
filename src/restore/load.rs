//! The target loads: it is told to follow the feed, is given the dump, and is watched until it has it.

use super::preflight::Ready;
use super::{Error, HELD_BACK_BYTES, Request, follows, keyspace, noted};
use crate::cluster::Role;
use crate::operation::Left;
use crate::redis;
use crate::redis::Target;
use crate::redis::connection::Connection;
use crate::redis::facts::Facts;
use crate::redis::feed::{Feed, Link};
use crate::snapshot::Meter;
use crate::telemetry::{crash_point, hang_point};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// How often the target is asked how far it is.
const LOOK: Duration = Duration::from_millis(100);

/// Longest silence of a target that loads: one big value is loaded in one go.
const SILENCE: Duration = Duration::from_secs(120);

/// How long a target may be without a link, and not loading, after it has closed the feed.
const GRACE: Duration = Duration::from_secs(3);

/// What is waited for while the target is busy with the dump.
const LOADING: &str = "the target to load the dump";

/// A feed that listens for a target that may be filled.
pub struct Armed {
    feed: Feed,
    ready: Ready,
    left: Left,
}

/// A target that has loaded the dump, and still follows the feed.
pub struct Loaded {
    /// Keys that it has.
    pub keys: u64,
    /// Keys that have expired since the backup.
    pub expired: u64,
}

impl Armed {
    /// Listens for the target.
    ///
    /// # Errors
    ///
    /// As [`Feed::bind`]; nothing was changed.
    pub async fn bind(request: &Request, ready: Ready, before: Option<&Left>) -> Result<Self, Error> {
        let feed = Feed::bind(&request.feed, &request.target.name, &request.target.address, ready.secured).await?;
        let (feed_host, feed_port) = (feed.told().0.to_owned(), feed.told().1);
        // What was set before the first attempt is what is to be set again.
        let changed = ready.diskless.as_ref().map(|(present, _)| present.clone());
        let left = Left {
            feed_host,
            feed_port,
            diskless_load: before.and_then(|before| before.diskless_load.clone()).or(changed),
            keys: ready.facts.keys.max(before.map_or(0, |before| before.keys)),
            run_id: ready.facts.run_id.clone(),
            result: None,
            state: String::new(),
        };
        Ok(Self { feed, ready, left })
    }

    /// What is going to be changed of the target; to be kept before [`Armed::load`].
    pub fn left(&self) -> &Left {
        &self.left
    }

    /// Lets the target load the dump. Its bytes are counted as they go out.
    ///
    /// # Errors
    ///
    /// [`Error`], by condition: the target has been changed, and has to be [released](super::release()).
    ///
    /// # Cancel safety
    ///
    /// If dropped, the feed ends, and the target has to be [released](super::release()).
    pub async fn load(self, request: &Request, meter: &Meter) -> Result<Loaded, Error> {
        let Self { feed, mut ready, left } = self;
        if let Some((_, wanted)) = &ready.diskless {
            // Best effort: a target that does not take it loads from its disk.
            if let Ok(redis::connection::Reply::Error(text)) = ready.control.command(&[b"CONFIG", b"SET", b"repl-diskless-load", wanted.as_bytes()]).await {
                tracing::info!(target = %request.target.name, "the target may write the dump to its disk before it loads it: {text}");
            }
        }
        meter.expect_bytes(request.shard.size_bytes);
        // Reading begins while the target is on its way.
        let dump = request.storage.dump(&request.folder, &request.shard)?;
        let (host, port) = feed.told();
        ready.control.call(&[b"REPLICAOF", host.as_bytes(), port.to_string().as_bytes()]).await?;
        crash_point("restore.armed");
        let mut watch = Watch { target: &request.target, left: &left, connection: None, heard: Instant::now(), is_refused: false };
        let mut link = {
            let serving = serve(&feed, dump, request.shard.size_bytes, meter);
            tokio::select! {
                link = serving => link?,
                gone = watch.until_gone() => return Err(gone),
            }
        };
        drop(feed);
        crash_point("restore.sent");
        watch.heard = Instant::now();
        watch.until_loaded(&mut link, meter).await?;
        meter.wait_for("");
        let mut control = Connection::open(&request.target).await?;
        let found = keyspace::compare(&mut control, &request.shard.walk).await?;
        Ok(Loaded { keys: found.keys, expired: found.expired })
    }
}

/// Waits for the target, and gives it all of the dump; the end only when nothing is wrong with any of it.
async fn serve(feed: &Feed, mut dump: crate::artifacts::Dump, size_bytes: u64, meter: &Meter) -> Result<Link, Error> {
    meter.wait_for("the target to come to the feed");
    let mut link = feed.accept().await?;
    meter.wait_for("");
    link.begin(size_bytes).await?;
    let (mut held, mut held_bytes, mut stored) = (VecDeque::new(), 0, 0);
    while let Some(piece) = noted(meter, "the artifact storage", dump.next()).await? {
        held_bytes += piece.len();
        held.push_back(piece);
        while held.front().is_some_and(|first: &Vec<u8>| held_bytes - first.len() >= HELD_BACK_BYTES) {
            let Some(first) = held.pop_front() else { break };
            held_bytes -= first.len();
            noted(meter, LOADING, link.send(&first)).await?;
            let now = dump.stored_bytes();
            meter.count(first.len() as u64, now - stored);
            stored = now;
            crash_point("restore.load");
            hang_point("restore.load").await;
        }
    }
    crash_point("restore.held");
    hang_point("restore.held").await;
    for piece in held {
        noted(meter, LOADING, link.send(&piece)).await?;
        meter.count(piece.len() as u64, 0);
    }
    meter.count(0, dump.stored_bytes() - stored);
    link.flush().await?;
    Ok(link)
}

/// Looks at a target from a connection of its own, again and again.
struct Watch<'a> {
    target: &'a Target,
    left: &'a Left,
    connection: Option<Connection>,
    /// When it last answered.
    heard: Instant,
    /// Whether nobody was there at the last look.
    is_refused: bool,
}

impl Watch<'_> {
    /// What the target says of itself; `None` while it says nothing.
    ///
    /// # Errors
    ///
    /// When somebody did something to it, or it is silent for too long.
    async fn look(&mut self) -> Result<Option<Facts>, Error> {
        tokio::time::sleep(LOOK).await;
        let answer = match self.connection.take() {
            Some(connection) => Ok(connection),
            None => Connection::open(self.target).await,
        };
        self.is_refused = answer.is_err();
        let facts = match answer {
            Ok(mut connection) => {
                let facts = Facts::ask(&mut connection).await;
                if facts.is_ok() {
                    self.connection = Some(connection);
                }
                facts
            }
            Err(fault) => Err(fault),
        };
        let facts = match facts {
            Ok(facts) => facts,
            Err(fault) if fault.is_passing() && self.heard.elapsed() < SILENCE => return Ok(None),
            Err(fault) => return Err(fault.into()),
        };
        self.heard = Instant::now();
        let name = &self.target.name;
        if facts.run_id != self.left.run_id {
            let what = "it ended and was started anew while it loaded".to_owned();
            return Err(redis::Error::Unreachable { host: name.clone(), what }.into());
        }
        match (facts.role, &facts.primary) {
            (Role::Replica, _) if follows(&facts, self.left) => Ok(Some(facts)),
            (Role::Replica, Some(other)) => Err(Error::Taken(format!("{name} was made a replica of {other} by somebody else while it loaded"))),
            (Role::Replica | Role::Primary | Role::Unknown, _) => {
                Err(Error::Taken(format!("{name} was told by somebody else to follow nobody while it loaded")))
            }
        }
    }

    /// Waits until the target is no longer ours.
    async fn until_gone(&mut self) -> Error {
        loop {
            if let Err(gone) = self.look().await {
                return gone;
            }
        }
    }

    /// Waits until the target has loaded what it was sent.
    async fn until_loaded(&mut self, link: &mut Link, meter: &Meter) -> Result<(), Error> {
        meter.wait_for(LOADING);
        let attending = link.attend();
        tokio::pin!(attending);
        let mut closed_at: Option<Instant> = None;
        loop {
            let facts = tokio::select! {
                () = &mut attending, if closed_at.is_none() => {
                    closed_at = Some(Instant::now());
                    continue;
                }
                facts = self.look() => facts?,
            };
            if facts.as_ref().is_some_and(|facts| !facts.loading && facts.link_up) {
                return Ok(());
            }
            // Whoever has closed the feed loads what was copied to the disk before, or has given up, or is gone.
            let is_idle = facts.map_or(self.is_refused, |facts| !facts.loading);
            if is_idle && closed_at.is_some_and(|at| at.elapsed() > GRACE) {
                let what = "it closed the feed and did not load the dump; its own log says why".to_owned();
                return Err(redis::Error::Unreachable { host: self.target.name.clone(), what }.into());
            }
        }
    }
}
