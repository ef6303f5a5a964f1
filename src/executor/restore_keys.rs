//! Restoring key by key, told top to bottom: PREFLIGHT, LOAD, WORK.
//!
//! Every dump is read to its end before anything is written: it is held against its manifest, and what is found of it is held
//! against the target. Then it is read again and written with `RESTORE`. How far that is is recorded with the progress, in two
//! offsets of the dump: what stands before the first is written, what stands behind the second was not sent. An attempt that
//! follows goes on at the first. Keys between the two may have been written already: there a key that is found is taken for ours,
//! stays as it is, and counts as written.
//!
//! A key that lies outside of the slots of its shard was on its way to another shard when the snapshot was taken, and may be in
//! both dumps. It comes after all others, and never replaces one: the owner of the slot decides.

mod pass;
mod selection;
mod survey;
mod target;

use super::attempt::{Context, End};
use super::backup::internal;
use super::stored::{self, Stored};
use super::{fault, restore};
use crate::artifacts::manifest::ShardManifest;
use crate::failure::{Failure, Reason};
use crate::operation::{Conflict, Keys, Outcome, Response, RestoreResult, RestoreTarget, ShardProgress, Step, Written};
use crate::rdb::{SlotSet, Type};
use crate::redis::keys::{self, Counts, REDIRECTIONS, Writer};
use crate::restore::Error;
use crate::snapshot::{Meter, Pace};
use crate::store::Completion;
use crate::telemetry::crash_point;
use pass::{Pass, Stop};
use selection::Selection;
use std::sync::Arc;
use std::time::Duration;
use survey::Survey;
use target::{Goal, refused};

/// How long answers are waited for after a fault, so that it can be told what was written.
const WIND_DOWN: Duration = Duration::from_secs(5);

/// What is needed for each shard.
struct Source<'a> {
    shard: &'a ShardManifest,
    slots: SlotSet,
}

pub(super) async fn run(context: &Context, target: &RestoreTarget, keys: &Keys) -> End {
    match attempt(context, target, keys).await {
        Ok(end) | Err(end) => end,
    }
}

async fn attempt(context: &Context, target: &RestoreTarget, keys: &Keys) -> Result<End, End> {
    let selection = Selection::of(keys).map_err(refused)?;
    let stored = stored::read(context, context.backup_id()?).await?;
    let sources = sources(&stored, target)?;
    let goal = target::find(context, target).await?;
    let rows: Vec<_> = stored.row.shards.iter().filter(|row| sources.iter().any(|source| source.shard.name == row.name)).collect();
    goal.check_versions(context, &stored.row, &rows)?;
    let mut surveys = Vec::with_capacity(sources.len());
    for source in &sources {
        surveys.push(survey(context, &stored, source, &selection).await?);
    }
    goal.check_room(context, &surveys).await?;
    crash_point("restore_keys.verified");

    context.step(Step::Load, None).await?;
    let mut work = Work::new(context, keys, &stored, &sources, &surveys);
    for (number, part) in work.passes().into_iter().enumerate() {
        work.pass(&goal, u32::try_from(number).unwrap_or(u32::MAX), part, &selection).await?;
    }
    // The record keeps how far it came, also when all of it took less than a heartbeat.
    context.record_progress().await?;
    crash_point("restore_keys.written");

    context.step(Step::Work, None).await?;
    let mut result = work.written.result;
    result.host_name = target.place.to_string();
    result.bytes = sources.iter().map(|source| source.shard.size_bytes).sum();
    if work.taken_for_ours > 0 {
        tracing::info!(
            operation.id = %context.id(),
            keys = work.taken_for_ours,
            "keys were found that an attempt before may have written; they stayed as they were"
        );
    }
    Ok(End::Done(Box::new(Completion { outcome: Outcome::Succeeded(Response::Restored(Box::new(result))), backup: None })))
}

/// What attempts before have done, in words.
fn so_far(context: &Context) -> String {
    words(context.operation.progress.written.as_ref().map_or(0, |written| written.result.keys))
}

fn words(keys: u64) -> String {
    if keys == 0 { "nothing was written".to_owned() } else { format!("{keys} keys were written before") }
}

/// The shards that are meant.
fn sources<'a>(stored: &'a Stored, target: &RestoreTarget) -> Result<Vec<Source<'a>>, End> {
    let shards = &stored.manifest.shards;
    let meant: Vec<_> = shards.iter().filter(|shard| target.shard_name.as_ref().is_none_or(|name| *name == shard.name)).collect();
    if meant.is_empty() {
        let names: Vec<_> = shards.iter().map(|shard| shard.name.as_str()).collect();
        return Err(refused(format!("the backup has no such shard; it has {}", names.join(", "))));
    }
    if let Some((shard, opaque)) = meant.iter().find_map(|shard| Some((shard, shard.walk.opaque?))) {
        return Err(refused(format!("the dump of {} cannot be restored by key: {opaque}; restore it as a whole", shard.name)));
    }
    let slots = |shard: &ShardManifest| SlotSet::from_ranges(shard.slots.iter().map(|slots| (slots.first, slots.last)));
    Ok(meant.into_iter().map(|shard| Source { shard, slots: slots(shard) }).collect())
}

/// Reads a dump to its end, and holds it against its manifest.
async fn survey(context: &Context, stored: &Stored, source: &Source<'_>, selection: &Selection) -> Result<Survey, End> {
    context.wait_for("the check of the artifact");
    let dump = context.inner.storage.dump(&stored.folder, source.shard).map_err(|error| fault::stored(&context.operation, &error))?;
    let survey = Survey::of(dump, selection, &source.slots).await.map_err(|fault| match fault {
        survey::Fault::Storage(error) => fault::stored(&context.operation, &error),
        survey::Fault::Dump(what) => refused(format!("the dump of {} cannot be restored by key: {what}; restore it as a whole", source.shard.name)),
    })?;
    context.wait_for("");
    Ok(survey)
}

/// One reading of a dump.
#[derive(Clone, Copy)]
struct Part {
    /// Which of the shards.
    source: usize,
    /// Whether it is for the keys outside of the slots of the shard, and no others.
    is_for_strays: bool,
    /// Whether the libraries of functions are written.
    has_libraries: bool,
}

/// The writing.
struct Work<'a> {
    context: &'a Context,
    keys: &'a Keys,
    stored: &'a Stored,
    sources: &'a [Source<'a>],
    surveys: &'a [Survey],
    pace: Option<Pace>,
    written: Written,
    meters: Vec<Arc<Meter>>,
    taken_for_ours: u64,
}

impl<'a> Work<'a> {
    fn new(context: &'a Context, keys: &'a Keys, stored: &'a Stored, sources: &'a [Source<'a>], surveys: &'a [Survey]) -> Self {
        // A dry run changes nothing, so it begins anew.
        let written = context.operation.progress.written.as_deref().filter(|_| !keys.dry_run).cloned().unwrap_or_default();
        let meters = sources.iter().zip(surveys).map(|(source, survey)| {
            let meter = Arc::new(Meter::default());
            meter.expect_bytes(source.shard.size_bytes);
            let shard = ShardProgress { shard_name: source.shard.name.clone(), keys_expected: survey.keys, ..ShardProgress::default() };
            context.track(shard, Arc::clone(&meter));
            meter
        });
        Self { context, keys, stored, sources, surveys, pace: keys.bytes_per_second.map(Pace::new), written, meters: meters.collect(), taken_for_ours: 0 }
    }

    /// All readings, in order; the same for every attempt.
    fn passes(&self) -> Vec<Part> {
        let is_all = Selection::of(self.keys).is_ok_and(|selection| selection.is_all());
        let own = (0..self.sources.len()).map(|source| Part { source, is_for_strays: false, has_libraries: is_all && source == 0 });
        let strays = (0..self.sources.len()).filter(|source| self.surveys[*source].strays > 0);
        own.chain(strays.map(|source| Part { source, is_for_strays: true, has_libraries: false })).collect()
    }

    /// Goes once through a dump and writes what is meant of it, from where it is written already.
    async fn pass(&mut self, goal: &Goal, number: u32, part: Part, selection: &Selection) -> Result<(), End> {
        if number < self.written.pass {
            return Ok(());
        }
        if number > self.written.pass {
            self.written = Written { pass: number, offset: 0, sent: 0, result: std::mem::take(&mut self.written.result) };
        }
        for _ in 0..=REDIRECTIONS {
            let mut writer = Writer::new(goal.nodes.clone());
            writer.begin_at(self.written.offset);
            let before = self.written.clone();
            let outcome = Pass { work: self, writer: &mut writer, part, selection, before: &before }.run().await;
            self.taken_for_ours += writer.taken_for_ours();
            match outcome {
                Ok(()) => return Ok(()),
                // The way is known now.
                Err(Stop::Writing(keys::Error::Elsewhere { .. })) => {}
                Err(stop) => {
                    writer.wind_down(WIND_DOWN).await;
                    let done = add(&before.result, &writer.done(), writer.primaries(), self.keys);
                    let (offset, counts) = writer.settled();
                    self.written.offset = offset;
                    self.written.result = add(&before.result, counts, writer.primaries(), self.keys);
                    if !self.keys.dry_run {
                        self.context.tell_written(self.written.clone());
                        // Best effort: without it the next attempt begins earlier.
                        drop(self.context.record_progress().await);
                    }
                    return Err(self.end(stop, &done));
                }
            }
        }
        Err(internal("a long value was sent from server to server"))
    }

    /// What it means that the writing stopped after so much was done.
    fn end(&self, stop: Stop, done: &RestoreResult) -> End {
        let so_far = words(if self.keys.dry_run { 0 } else { done.keys });
        let failed = |reason, what: String| End::Failed(Failure::new(reason, format!("{what}; {so_far}")));
        match stop {
            Stop::Ended(end) => end,
            Stop::Storage(error) => restore::failed(self.context, &Error::Artifact(error), &so_far),
            Stop::Changed => failed(Reason::StorageCorrupt, "the artifact is not the one any more that was checked at the beginning".to_owned()),
            Stop::Conflict(database) => failed(
                Reason::TargetExists,
                format!("the target has a key of the backup already, in database {database}; restore with the policy SKIP or REPLACE, or into an empty target"),
            ),
            Stop::Library => failed(Reason::TargetExists, "the target has a library of functions of the backup already".to_owned()),
            Stop::Writing(keys::Error::Server(error)) => restore::failed(self.context, &Error::Target(error), &so_far),
            Stop::Writing(error @ keys::Error::Full { .. }) => failed(Reason::TargetMemory, error.to_string()),
            Stop::Writing(error @ (keys::Error::Refused { .. } | keys::Error::Elsewhere { .. })) => failed(Reason::TargetVersion, error.to_string()),
        }
    }
}

/// What was done, together with what was done before.
fn add(before: &RestoreResult, counts: &Counts, primaries: usize, keys: &Keys) -> RestoreResult {
    let mut result = RestoreResult { dry_run: keys.dry_run, ..before.clone() };
    for kind in Type::ALL {
        let count = counts.of(kind);
        let restored = match (keys.dry_run, keys.on_conflict) {
            (false, _) => count.written,
            (true, Conflict::Fail | Conflict::Skip) => count.missing,
            (true, Conflict::Replace) => count.missing + count.found,
        };
        result.keys += restored;
        result.expired_keys += count.expired;
        match (keys.dry_run, keys.on_conflict) {
            (_, Conflict::Replace) => {
                result.replaced_keys += count.found;
                result.skipped_keys += count.left;
            }
            (false, Conflict::Fail | Conflict::Skip) => result.skipped_keys += count.left,
            (true, Conflict::Fail | Conflict::Skip) => result.skipped_keys += count.found,
        }
        if restored > 0 {
            *result.types.entry(kind.as_str().to_owned()).or_default() += restored;
        }
    }
    // Every primary has them.
    result.functions += counts.libraries().written.div_ceil(primaries.max(1) as u64);
    result
}
