//! The one thread that writes.
//!
//! It takes the commands that wait, judges them in order, commits all that they change as one batch with one sync, and only
//! then answers them. A write or sync that fails is never tried again: what is on disk then is known only at the next start.

use super::judge::Judge;
use super::recent::Recent;
use super::rows::Writes;
use crate::store::Error;
use ::sled::{Batch, Tree};
use std::fs::File;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};
use tokio::sync::{mpsc, watch};

/// Commands that wait for the writer.
pub(super) const COMMANDS: usize = 1024;

/// Most commands of one commit.
const GROUP: usize = 256;

/// Why nothing can be written after a close.
pub(super) const CLOSED: &str = "the store was closed";

/// Tells the caller of a command what it did.
type Answer = Box<dyn FnOnce() + Send>;

/// Judges, and gives back what is to be told once it is durable. None when nobody waits for it any more.
pub(super) type Command = Box<dyn FnOnce(&mut Judge) -> Option<Answer> + Send>;

/// How far the log is written.
#[derive(Clone, Debug, Default)]
struct Reach {
    /// Number of the last batch that is durable.
    durable: u64,
    /// Why nothing can be written any more.
    poison: Option<Arc<str>>,
}

/// What the writer tells those who read.
#[derive(Debug)]
pub(super) struct Progress {
    /// Number of the last batch that may be visible in the tree; raised before it is.
    applied: AtomicU64,
    reach: watch::Sender<Reach>,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { applied: AtomicU64::new(0), reach: watch::Sender::new(Reach::default()) }
    }

    /// Number of the last batch that was begun.
    pub(super) fn begun(&self) -> u64 {
        self.applied.load(Ordering::SeqCst)
    }

    /// Number of the last batch, if none is under way: what is read then is what it was when this batch was durable, until
    /// another is begun.
    pub(super) fn quiet(&self) -> Option<u64> {
        let durable = self.reach.borrow().durable;
        (self.begun() == durable).then_some(durable)
    }

    /// Ends all writing and reading.
    pub(super) fn poison(&self, why: &str) {
        self.reach.send_if_modified(|reach| {
            let first = reach.poison.is_none();
            if first {
                reach.poison = Some(why.into());
            }
            first
        });
    }

    /// Whether the store can still be written.
    pub(super) fn ready(&self) -> Result<(), Error> {
        match &self.reach.borrow().poison {
            Some(why) => Err(Error::Unavailable(why.to_string())),
            None => Ok(()),
        }
    }

    /// Waits until all that was visible in the tree when it was called is durable.
    pub(super) async fn settled(&self) -> Result<(), Error> {
        let seen = self.applied.load(Ordering::SeqCst);
        let mut reach = self.reach.subscribe();
        // The sender lives as long as `self`, so the wait cannot fail.
        let _ = reach.wait_for(|reach| reach.durable >= seen || reach.poison.is_some()).await;
        self.ready()
    }

    /// Waits until nothing can be written any more, and tells why.
    pub(super) async fn poisoned(&self) -> Arc<str> {
        let mut reach = self.reach.subscribe();
        match reach.wait_for(|reach| reach.poison.is_some()).await {
            Ok(reach) => reach.poison.clone().unwrap_or_default(),
            Err(_) => Arc::default(),
        }
    }
}

/// What the thread works with.
pub(super) struct Writer {
    pub(super) tree: Tree,
    /// Our own descriptor of the log.
    pub(super) log: File,
    pub(super) judge: Judge,
    pub(super) progress: Arc<Progress>,
    pub(super) recent: Arc<Recent>,
}

impl Writer {
    /// Starts the thread. It ends when every sender of commands is gone and all commands are answered, or when it is poisoned.
    pub(super) fn start(mut self, mut commands: mpsc::UnboundedReceiver<Command>) -> std::io::Result<JoinHandle<()>> {
        Builder::new().name("store-writer".to_owned()).spawn(move || {
            let progress = Arc::clone(&self.progress);
            // A panic in the judging ends all writing; those who wait hear of it when their commands are dropped.
            let end = panic::catch_unwind(AssertUnwindSafe(|| self.run(&mut commands)));
            let fault = match end {
                Ok(Ok(())) => return progress.poison(CLOSED),
                Ok(Err(error)) => format!("writing failed, the process must be restarted: {error}"),
                Err(_) => "judging a command panicked, the process must be restarted".to_owned(),
            };
            tracing::error!(reason = fault, "the store cannot be written any more");
            progress.poison(&fault);
        })
    }

    fn run(&mut self, commands: &mut mpsc::UnboundedReceiver<Command>) -> Result<(), String> {
        let mut group = Vec::with_capacity(GROUP);
        loop {
            if commands.blocking_recv_many(&mut group, GROUP) == 0 {
                return Ok(());
            }
            let answers: Vec<Answer> = group.drain(..).filter_map(|command| command(&mut self.judge)).collect();
            self.commit()?;
            for answer in answers {
                answer();
            }
        }
    }

    /// Makes durable all that was judged.
    pub(super) fn commit(&mut self) -> Result<(), String> {
        let writes: Writes = self.judge.take();
        if writes.is_empty() {
            return Ok(());
        }
        let number = self.progress.applied.fetch_add(1, Ordering::SeqCst) + 1;
        self.recent.forget(&writes);
        let mut batch = Batch::default();
        for (key, value) in writes {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        self.tree.apply_batch(batch).map_err(|error| format!("applying a batch: {error}"))?;
        self.tree.flush().map_err(|error| format!("flushing the log: {error}"))?;
        // The crate asks the kernel to write, but not the disk.
        self.log.sync_data().map_err(|error| format!("syncing the log: {error}"))?;
        self.progress.reach.send_modify(|reach| reach.durable = number);
        Ok(())
    }
}
