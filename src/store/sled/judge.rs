//! What a command may change, and the rows that change with it.
//!
//! Runs on the writer's thread alone, one command after the other, on rows that may not be written yet. Owns the life of an
//! operation that was accepted: claims, the words of its worker, cancellation. What its end changes is in
//! [`end`](super::end), what its acceptance changes in [`accept`](super::accept).

use super::keys::{self, Kind};
use super::live::{Ended, Entry, Live};
use super::rows::{self, Attempt, Doom, Rows, Writes, damaged};
use crate::backup;
use crate::cluster::Timestamp;
use crate::operation::{Epoch, Event, Fault, Operation, OperationId, Progress, Publication, Refused, Spec, State, Step};
use crate::store::{Claim, Clock, Completion, Error, LOOK_AGAIN, MANIFEST_BYTES, Zones};
use crate::{backup::BackupId, failure::Failure};
use ::sled::Tree;
use chrono::TimeDelta;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Most operations that one command ends on the way to one that can be claimed.
const CLAIM_LOOKS: usize = 256;

/// Most operations that one command forgets.
const EXPIRED_ROWS: usize = 1000;

/// Most rows of one operation that are read at once: attempts, pieces of a manifest.
const ROWS_OF_OPERATION: usize = 10_000;

/// What one command of [`Judge::claim`] found.
pub(super) struct Look {
    pub claim: Option<Claim>,
    /// Operations that ended by being looked at.
    pub ended: Vec<OperationId>,
    /// Whether the search was broken off at its limit.
    pub more: bool,
}

/// The rows and what goes with them while commands are judged.
pub(super) struct Judge {
    pub(super) rows: Rows,
    live: Arc<Mutex<Live>>,
    /// Entries of the index before the command being judged changed them.
    undo: Vec<(OperationId, Option<Entry>)>,
    /// Operations that the command being judged has ended.
    ended: Vec<Ended>,
    clock: Clock,
    pub(super) queue_limit: usize,
}

impl Judge {
    pub(super) fn new(tree: Tree, live: Arc<Mutex<Live>>, clock: Clock, queue_limit: usize) -> Self {
        Self { rows: Rows::new(tree), live, undo: Vec::new(), ended: Vec::new(), clock, queue_limit }
    }

    /// Judges one command: all that it changes is kept, or nothing.
    pub(super) fn command<T>(&mut self, command: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        let answer = command(self);
        match answer {
            Ok(_) => {
                self.rows.keep();
                self.undo.clear();
                let ended = std::mem::take(&mut self.ended);
                self.with_live(|live| ended.iter().for_each(|ended| live.count(ended)));
            }
            Err(_) => {
                self.rows.forget();
                self.ended.clear();
                while let Some((id, entry)) = self.undo.pop() {
                    self.with_live(|live| live.set(id, entry));
                }
            }
        }
        answer
    }

    /// Takes what the commands have written so far.
    pub(super) fn take(&mut self) -> Writes {
        self.rows.take()
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn with_live<T>(&self, with: impl FnOnce(&mut Live) -> T) -> T {
        with(&mut self.live.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn queued(&self) -> usize {
        self.with_live(|live| live.queued())
    }

    /// Sets what the index knows of an operation, until the command is refused.
    pub(super) fn set_live(&mut self, id: OperationId, entry: Option<Entry>) {
        let before = self.with_live(|live| live.set(id, entry));
        self.undo.push((id, before));
    }

    /// Begins the life of the store in this process: the index is built and every lease of the process before is void.
    pub(super) fn begin(&mut self) -> Result<(), Error> {
        let now = self.now();
        match self.rows.read::<u32>(&keys::format())? {
            Some(rows::FORMAT) => {}
            Some(other) => {
                return Err(Error::Unavailable(format!("the store has format {other}, this program reads format {}: a newer one wrote it", rows::FORMAT)));
            }
            None if self.rows.is_empty() => self.rows.write(keys::format(), &rows::FORMAT)?,
            None => return Err(damaged(Kind::Format, "it is missing")),
        }
        for (key, _) in self.rows.scan(keys::all_live(), usize::MAX)? {
            let id = keys::last_operation(&key).ok_or_else(|| damaged(Kind::Live, "its key is no operation"))?;
            let mut operation = self.rows.operation(id)?.ok_or_else(|| damaged(Kind::Live, format_args!("there is no operation {id}")))?;
            match &mut operation.state {
                State::Running { lease_until, .. } | State::Cancelling { lease_until } => {
                    *lease_until = now;
                    self.rows.write(keys::operation(id), &operation)?;
                }
                State::Queued { .. } => {}
                State::Succeeded(_) | State::Failed(_) | State::Cancelled => return Err(damaged(Kind::Live, format_args!("the operation {id} has ended"))),
            }
            self.set_live(id, Entry::of(&operation));
        }
        Ok(())
    }

    /// Looks at due operations until one can be worked on. Each look is a command of its own.
    pub(super) fn claim(&mut self, zones: &Zones, lease: Duration) -> Result<Look, Error> {
        let now = self.now();
        let mut ended = Vec::new();
        for _ in 0..CLAIM_LOOKS {
            let Some((_, id)) = self.with_live(|live| live.first(zones)).filter(|(due_at, _)| *due_at <= now) else {
                return Ok(Look { claim: None, ended, more: false });
            };
            match self.command(|judge| judge.look(id, later(now, lease), now)) {
                Ok(operation) if operation.state.is_terminal() => ended.push(id),
                Ok(operation) if held(&operation) => return Ok(Look { claim: Some(Claim { operation }), ended, more: false }),
                Ok(_) => {}
                Err(Error::Damaged(what)) => {
                    // One row that cannot be read must not keep all other operations from being worked on.
                    tracing::error!(operation.id = %id, what, "a row of this operation is damaged; it is left out until the next start");
                    self.with_live(|live| live.set(id, None));
                }
                // Those that ended before are told first; the next claim meets the fault again.
                Err(error) => return if ended.is_empty() { Err(error) } else { Ok(Look { claim: None, ended, more: false }) },
            }
        }
        Ok(Look { claim: None, ended, more: true })
    }

    /// Looks at one due operation, and tells what has become of it.
    fn look(&mut self, id: OperationId, lease_until: Timestamp, now: Timestamp) -> Result<Operation, Error> {
        let mut operation = self.rows.operation(id)?.ok_or_else(|| damaged(Kind::Live, format_args!("there is no operation {id}")))?;
        operation.apply(Event::Claim { lease_until }, now).map_err(refused)?;
        self.record(&operation)?;
        if operation.spec.has_attempts() && operation.publication.is_none() && held(&operation) {
            let (folder_id, cluster_id) = (operation.folder_id.clone(), operation.cluster_id.clone());
            let backup_id = operation.backup_id.ok_or_else(|| damaged(Kind::Operation, "its attempts have files, and it names no backup"))?;
            let bucket = match &operation.spec {
                Spec::ExportBackup(target) => Some(target.bucket.clone()),
                Spec::CreateBackup | Spec::UpdateBackup(_) | Spec::DeleteBackup | Spec::CopyBackup { .. } | Spec::ImportBackup(_) => None,
                Spec::AdoptCluster | Spec::UpdateConnection | Spec::ForgetCluster => None,
                Spec::UndeleteBackup | Spec::VerifyBackup { .. } | Spec::RestoreInto(_) | Spec::RestoreCluster(_) | Spec::DeleteCluster => None,
                Spec::UpdateCluster(_) | Spec::CreatePolicy(_) | Spec::DeletePolicy { .. } => None,
            };
            let attempt = Attempt { folder_id, cluster_id, backup_id, bucket, doom: None };
            self.rows.write(keys::attempt(id, operation.epoch), &attempt)?;
        }
        self.settle(&operation, None)?;
        Ok(operation)
    }

    pub(super) fn renew(&mut self, id: OperationId, epoch: Epoch, lease: Duration) -> Result<Operation, Error> {
        let lease_until = later(self.now(), lease);
        let operation = self.apply(id, Event::Renew { epoch, lease_until })?;
        self.record(&operation)?;
        Ok(operation)
    }

    pub(super) fn step(&mut self, id: OperationId, epoch: Epoch, step: Step, publication: Option<(Publication, Vec<u8>)>) -> Result<Operation, Error> {
        let (publication, manifest) = publication.unzip();
        let operation = self.apply(id, Event::Step { epoch, step, publication })?;
        if let (Some(publication), Some(manifest)) = (&operation.publication, manifest) {
            if publication.epoch != epoch {
                return Err(Error::Invalid(format!("the attempt {epoch} cannot publish the files of the attempt {}", publication.epoch)));
            }
            if manifest.len() > MANIFEST_BYTES {
                return Err(Error::Invalid(format!("the manifest has {} bytes, the limit is {MANIFEST_BYTES} bytes", manifest.len())));
            }
            // An empty manifest is one, too.
            let pieces: Vec<&[u8]> = if manifest.is_empty() { vec![&[]] } else { manifest.chunks(rows::PIECE_BYTES).collect() };
            let count = u16::try_from(pieces.len()).expect("the limit on the manifest makes it few pieces");
            for (index, piece) in (0..count).zip(pieces) {
                self.rows.put(keys::manifest(id, index), rows::piece(count, piece)?);
            }
        }
        self.record(&operation)?;
        Ok(operation)
    }

    pub(super) fn progress(&mut self, id: OperationId, epoch: Epoch, progress: Progress) -> Result<Operation, Error> {
        let operation = self.apply(id, Event::Progress { epoch, progress })?;
        self.record(&operation)?;
        Ok(operation)
    }

    pub(super) fn retry(&mut self, id: OperationId, epoch: Epoch, wait: Duration, fault: Fault, failure: Failure) -> Result<Operation, Error> {
        let not_before = later(self.now(), wait);
        let operation = self.apply(id, Event::Retry { epoch, not_before, fault, failure })?;
        self.record(&operation)?;
        self.settle(&operation, None)?;
        Ok(operation)
    }

    pub(super) fn hand_back(&mut self, id: OperationId, epoch: Epoch) -> Result<Operation, Error> {
        let operation = self.apply(id, Event::HandBack { epoch })?;
        self.record(&operation)?;
        self.settle(&operation, None)?;
        Ok(operation)
    }

    pub(super) fn defer(&mut self, id: OperationId, epoch: Epoch, until: Timestamp, deadline_at: Timestamp, waiting_for: String) -> Result<Operation, Error> {
        let operation = self.apply(id, Event::Defer { epoch, until, deadline_at, waiting_for })?;
        self.record(&operation)?;
        self.settle(&operation, None)?;
        Ok(operation)
    }

    pub(super) fn complete(&mut self, id: OperationId, epoch: Epoch, completion: Completion) -> Result<Operation, Error> {
        let Completion { outcome, backup } = completion;
        let operation = self.apply(id, Event::Complete { epoch, outcome })?;
        self.record(&operation)?;
        self.settle(&operation, backup)?;
        Ok(operation)
    }

    pub(super) fn cancel(&mut self, id: OperationId) -> Result<Operation, Error> {
        let before = self.rows.operation(id)?.ok_or(Error::NoOperation)?;
        let operation = self.apply(id, Event::Cancel)?;
        if operation != before {
            self.record(&operation)?;
            self.settle(&operation, None)?;
        }
        Ok(operation)
    }

    pub(super) fn looked(&mut self, id: OperationId, epoch: Epoch, looks: u32) -> Result<(), Error> {
        let key = keys::attempt(id, epoch);
        let Some(mut attempt) = self.rows.read::<Attempt>(&key)? else { return Ok(()) };
        let Some(doom) = attempt.doom.filter(|doom| doom.looks == looks) else { return Ok(()) };
        self.rows.remove(keys::doomed(doom.next_look, id, epoch));
        let wait = usize::try_from(looks).ok().and_then(|looks| LOOK_AGAIN.get(looks));
        match wait {
            Some(wait) => self.doom(&mut attempt, id, epoch, Doom { next_look: later(self.now(), *wait), looks: looks + 1 }),
            None => {
                self.rows.remove(key);
                Ok(())
            }
        }
    }

    /// Sets when the files of an attempt are looked for.
    fn doom(&mut self, attempt: &mut Attempt, id: OperationId, epoch: Epoch, doom: Doom) -> Result<(), Error> {
        attempt.doom = Some(doom);
        self.rows.write(keys::attempt(id, epoch), attempt)?;
        self.rows.mark(keys::doomed(doom.next_look, id, epoch))
    }

    pub(super) fn begin_purge(&mut self, id: BackupId) -> Result<bool, Error> {
        let now = self.now();
        let Some(mut backup) = self.rows.backup(id)? else { return Ok(false) };
        let is_due = match backup.state {
            backup::State::Deleting { purge_at } => purge_at <= now && backup.busy.is_none(),
            backup::State::Creating | backup::State::Available | backup::State::Error(_) => false,
        };
        if is_due && !backup.purging {
            backup.purging = true;
            self.rows.write_long(keys::backup(id), &backup)?;
        }
        Ok(is_due || backup.purging)
    }

    pub(super) fn purged(&mut self, id: BackupId) -> Result<(), Error> {
        let Some(backup) = self.rows.backup(id)? else { return Ok(()) };
        match backup.state {
            backup::State::Deleting { purge_at } if backup.purging => {
                self.rows.remove(keys::purge(purge_at, id));
                self.forget_backup(&backup)?;
            }
            backup::State::Creating | backup::State::Available | backup::State::Error(_) | backup::State::Deleting { .. } => {}
        }
        Ok(())
    }

    pub(super) fn expire(&mut self, retention: Duration) -> Result<usize, Error> {
        let then = TimeDelta::from_std(retention).ok().and_then(|retention| self.now().checked_sub_signed(retention));
        let Some(then) = then else { return Ok(0) };
        let ended = self.rows.scan(keys::ended_before(then), EXPIRED_ROWS)?;
        for (key, _) in &ended {
            let id = keys::last_operation(key).ok_or_else(|| damaged(Kind::Ended, "its key is no operation"))?;
            if let Some(operation) = self.rows.operation(id)? {
                for listing in keys::listings_of_operation(id, &operation.folder_id, &operation.cluster_id) {
                    self.rows.remove(listing);
                }
            }
            if let Some(hash) = self.rows.read::<[u8; 32]>(&keys::key_of(id))? {
                self.rows.remove(keys::idempotency(&hash));
                self.rows.remove(keys::key_of(id));
            }
            self.rows.remove_long(keys::operation(id))?;
            self.rows.remove(key.clone());
        }
        Ok(ended.len())
    }

    /// The operation after an event. Nothing is written.
    fn apply(&self, id: OperationId, event: Event) -> Result<Operation, Error> {
        let mut operation = self.rows.operation(id)?.ok_or(Error::NoOperation)?;
        operation.apply(event, self.now()).map_err(refused)?;
        Ok(operation)
    }

    /// Writes an operation that has changed.
    fn record(&mut self, operation: &Operation) -> Result<(), Error> {
        // The end may bring the row of a backup of many shards. Nothing is written to it after that.
        if operation.state.is_terminal() {
            self.rows.write_long(keys::operation(operation.id), operation)?;
        } else {
            self.rows.write(keys::operation(operation.id), operation)?;
        }
        self.set_live(operation.id, Entry::of(operation));
        Ok(())
    }

    /// Lets the attempts of an operation, and the rows around it if it has ended, follow what it has become.
    fn settle(&mut self, operation: &Operation, backup: Option<backup::Backup>) -> Result<(), Error> {
        if operation.spec.has_attempts() {
            self.settle_attempts(operation)?;
        }
        if operation.spec.forks() {
            self.free_places(operation)?;
        }
        if !operation.state.is_terminal() {
            return if held(operation) { Ok(()) } else { self.leave(operation) };
        }
        self.ended.push(Ended::of(operation));
        self.end(operation, backup)
    }

    /// Dooms every attempt that is over and not to be published.
    fn settle_attempts(&mut self, operation: &Operation) -> Result<(), Error> {
        let now = self.now();
        let published = operation.publication.as_ref().map(|publication| publication.epoch);
        for (key, _) in self.rows.scan(keys::attempts(operation.id), ROWS_OF_OPERATION)? {
            let (id, epoch) = keys::last_attempt(&key).ok_or_else(|| damaged(Kind::Attempt, "its key is no attempt"))?;
            let mut attempt: Attempt = self.rows.read(&key)?.ok_or_else(|| damaged(Kind::Attempt, "it went while it was read"))?;
            if attempt.doom.is_some() {
                continue;
            }
            match &operation.state {
                // What an export has published lies beside the attempt's folder.
                State::Succeeded(_) if published == Some(epoch) && operation.spec.makes_backup() => self.rows.remove(key),
                State::Running { .. } | State::Cancelling { .. } if epoch == operation.epoch => {}
                State::Queued { .. } | State::Running { .. } | State::Cancelling { .. } if published == Some(epoch) => {}
                State::Queued { .. } | State::Running { .. } | State::Cancelling { .. } | State::Succeeded(_) | State::Failed(_) | State::Cancelled => {
                    self.doom(&mut attempt, id, epoch, Doom { next_look: now, looks: 0 })?;
                }
            }
        }
        Ok(())
    }

    /// Forgets the manifest that an operation was to publish.
    pub(super) fn forget_manifest(&mut self, id: OperationId) -> Result<(), Error> {
        for (key, _) in self.rows.scan(keys::manifests(id), ROWS_OF_OPERATION)? {
            self.rows.remove(key);
        }
        Ok(())
    }
}

fn held(operation: &Operation) -> bool {
    match &operation.state {
        State::Running { .. } | State::Cancelling { .. } => true,
        State::Queued { .. } | State::Succeeded(_) | State::Failed(_) | State::Cancelled => false,
    }
}

/// The instant this long after; the last one there is when there is none.
pub(super) fn later(now: Timestamp, wait: Duration) -> Timestamp {
    TimeDelta::from_std(wait).ok().and_then(|wait| now.checked_add_signed(wait)).unwrap_or(Timestamp::MAX_UTC)
}

/// What a refusal of the record is to a caller.
pub(super) fn refused(refused: Refused) -> Error {
    match refused {
        Refused::Fenced { .. } => Error::Fenced(refused.to_string()),
        Refused::Cancelling => Error::Cancelling,
        Refused::NotDue | Refused::NotAllowed(_) => Error::NotAllowed(refused.to_string()),
    }
}
