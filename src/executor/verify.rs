//! Proving a backup, told top to bottom: read again and walked, or loaded by a throw-away server and compared.
//!
//! ```text
//! WALKED   PREFLIGHT, SEAL (every byte read, digested, walked), WORK
//! LOADED   PREFLIGHT, LOAD (that, then a server loads it, and what it has is compared), WORK
//! ```
//!
//! Nothing of the backup changes while the proof works: it only reads, beside whatever else happens to the record. At the end it
//! takes the backup for itself, reads the record again, adds the proof and writes it down in storage, too. A proof that fails
//! leaves the backup at its level.

use super::attempt::{Context, End};
use super::backup::internal;
use super::stored::{self, Stored};
use super::{Waiting, fault, record};
use crate::artifacts::manifest::ShardManifest;
use crate::artifacts::{self, Dump};
use crate::backup::{Backup, Level, Proof};
use crate::cluster::Timestamp;
use crate::failure::{Failure, Reason};
use crate::operation::{Fault, Outcome, Response, ShardProgress, Step};
use crate::rdb::{Sample, SampleOptions, Sampler, Summary};
use crate::redis::drill::{DUMP, Difference, Drill, Expected, Refusal, Scratch, compare};
use crate::redis::engines::{self, Engine, Need};
use crate::redis::machine;
use crate::snapshot::Meter;
use crate::store::{self, Completion};
use crate::telemetry::crash_point;
use crate::telemetry::metrics::{DRILL_SECONDS, DRILLS};
use chrono::Utc;
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Keys of a shard of which type, length and expiry are compared one by one.
const SAMPLED_KEYS: usize = 1000;

/// Room that stays free on the disk of the scratch folder, in bytes.
const ROOM_BYTES: u64 = 64 << 20;

/// What a server needs beside its data, in bytes.
const BARE_BYTES: u64 = 16 << 20;

/// Memory that a drill may take where neither the configuration nor the machine says how much there is, in bytes.
const MEMORY_BYTES: u64 = 1 << 30;

/// How long the end of a proof waits for another operation on the backup. Those are short.
const OCCUPY_WAIT: Duration = Duration::from_secs(60);

/// Pause between two tries at that.
const OCCUPY_PAUSE: Duration = Duration::from_millis(100);

/// What a proof waits for while others run.
const OTHERS: &str = "another proof by loading to end";

/// What was found out.
struct Found {
    engine: Option<Engine>,
    keys: u64,
    sampled: u64,
}

pub(super) async fn run(context: &Context, level: Level) -> End {
    let since = Instant::now();
    let end = match attempt(context, level).await {
        Ok(end) | Err(end) => end,
    };
    let outcome = match &end {
        End::Done(_) => "proved",
        End::Failed(_) => "failed",
        End::Retry { .. } | End::Deferred { .. } | End::Fenced | End::Stopped => return end,
    };
    context.inner.count(&DRILLS, &[word(level), outcome]);
    if let (Level::Loaded, End::Done(_)) = (level, &end) {
        context.inner.metrics.histogram(&DRILL_SECONDS, &[]).record(since.elapsed());
    }
    end
}

/// The word of a level in metrics.
fn word(level: Level) -> &'static str {
    if level == Level::Loaded { "loaded" } else { "walked" }
}

async fn attempt(context: &Context, level: Level) -> Result<End, End> {
    let (started_at, since) = (Utc::now(), Instant::now());
    let source = stored::read(context, context.backup_id()?).await?;
    let (found, started_at, since) = match level {
        Level::Loaded => {
            let _turn = turn(context).await;
            // What was waited for is no part of the proof.
            let (started_at, since) = (Utc::now(), Instant::now());
            (load(context, &source).await?, started_at, since)
        }
        Level::Framed | Level::Sealed | Level::Walked => (walk(context, &source).await?, started_at, since),
    };
    context.record_progress().await?;
    context.step(Step::Work, None).await?;
    let proof = proof(context, level, &found, started_at, since.elapsed());
    crash_point("verify.proved");
    record_proof(context, level, proof).await
}

/// Leave for a proof by loading: as many at once as the configuration says. Whoever waits does not count among those that work.
async fn turn(context: &Context) -> Option<OwnedSemaphorePermit> {
    let inner = &context.inner;
    if let Ok(turn) = Arc::clone(&inner.drills).try_acquire_owned() {
        return Some(turn);
    }
    inner.waiting.fetch_add(1, Ordering::Relaxed);
    let _waiting = Waiting(&inner.waiting);
    inner.work.notify_one();
    context.wait_for(OTHERS);
    let turn = Arc::clone(&inner.drills).acquire_owned().await.ok();
    context.wait_for("");
    turn
}

/// Reads every byte again, and walks it.
async fn walk(context: &Context, source: &Stored) -> Result<Found, End> {
    context.step(Step::Seal, None).await?;
    let mut keys = 0;
    for shard in &source.manifest.shards {
        let meter = track(context, shard, "");
        let (summary, _) = read(context, source, shard, None, &meter).await?;
        if let Some(opaque) = &summary.opaque {
            return Err(refused(format!("the dump of {} cannot be walked: {opaque}", shard.name)));
        }
        if summary.counts_match == Some(false) {
            return Err(refused(format!("the counts of keys in the dump of {} differ from the source's own", shard.name)));
        }
        keys += total(&summary);
    }
    Ok(Found { engine: None, keys, sampled: 0 })
}

/// Has every shard loaded by a server, one after the other.
async fn load(context: &Context, source: &Stored) -> Result<Found, End> {
    let options = &context.inner.options.drill;
    let engines = engines::find(&context.inner.options.engines).await;
    let memory_bytes = options.memory_limit.unwrap_or_else(half_of_memory);
    let mut chosen: Vec<Engine> = Vec::with_capacity(source.manifest.shards.len());
    for shard in &source.manifest.shards {
        let engine = engines::choose(&engines, &need(shard)).map_err(|what| failed(Reason::NoEngine, format!("{}: {what}", shard.name)))?;
        let needed = shard.used_memory_bytes.max(shard.size_bytes.saturating_add(BARE_BYTES));
        if needed > memory_bytes {
            return Err(failed(
                Reason::DrillLimits,
                format!("{} needs about {needed} bytes of memory, and a proof may take {memory_bytes}; set [drill] memory_limit to more", shard.name),
            ));
        }
        if let Some(opaque) = &shard.walk.opaque {
            return Err(refused(format!("the dump of {} could not be walked, so there is nothing to compare a server with: {opaque}", shard.name)));
        }
        chosen.push(engine.clone());
    }
    crash_point("verify.preflight");

    context.step(Step::Load, None).await?;
    let mut found = Found { engine: chosen.first().cloned(), keys: 0, sampled: 0 };
    let until = Instant::now() + options.timeout;
    for (shard, engine) in source.manifest.shards.iter().zip(&chosen) {
        let loading = load_shard(context, source, shard, engine, memory_bytes);
        let compared = tokio::time::timeout_at(until, loading)
            .await
            .map_err(|_| failed(Reason::DrillLimits, format!("the proof took longer than {} s; set [drill] timeout to more", options.timeout.as_secs())))??;
        found.keys += compared.keys;
        found.sampled += compared.sampled;
    }
    Ok(found)
}

async fn load_shard(
    context: &Context,
    source: &Stored,
    shard: &ShardManifest,
    engine: &Engine,
    memory_bytes: u64,
) -> Result<crate::redis::drill::Compared, End> {
    let meter = track(context, shard, &engine.to_string());
    let root = context.inner.options.drill.folder.clone();
    let scratch = tokio::task::spawn_blocking(move || Scratch::create(&root)).await.map_err(|_| End::Stopped)?;
    let scratch = scratch.map_err(|fault| failed(Reason::DrillLimits, format!("the folder of [drill] cannot be used: {fault}")))?;
    let needed = shard.size_bytes.saturating_add(ROOM_BYTES);
    if let Some(free) = scratch.free_bytes().filter(|free| *free < needed) {
        return Err(failed(
            Reason::DrillLimits,
            format!(
                "the disk of the folder of [drill] has {free} bytes free, and the dump of {} needs {needed}; free some, or name another folder",
                shard.name
            ),
        ));
    }
    let file = scratch.file(DUMP).map_err(|fault| disk(context, &fault))?;
    let (summary, sample) = read(context, source, shard, Some(file), &meter).await?;
    crash_point("verify.decoded");

    let databases = shard.walk.minimum.as_ref().map_or(0, |minimum| minimum.databases);
    let mut drill = Drill::start(engine, scratch, databases).map_err(|refusal| refusal_end(shard, &refusal))?;
    crash_point("verify.started");
    meter.wait_for("a server to load the dump");
    let mut server = drill.loaded(memory_bytes).await.map_err(|refusal| refusal_end(shard, &refusal))?;
    crash_point("verify.loaded");
    meter.wait_for("");
    let expected = Expected { databases: &summary.databases, functions: summary.functions, sample: &sample };
    let compared = compare(&mut server, &expected).await.map_err(|difference| match difference {
        Difference::Content(what) => refused(format!("{engine} loaded the dump of {}, and {what}", shard.name)),
        Difference::Server(error) => End::Retry {
            fault: Fault::Source,
            failure: Failure::new(Reason::NotProved, format!("what {engine} has loaded of {} could not be compared: {error}", shard.name)),
            wait: fault::backoff(&context.operation),
        },
    })?;
    drill.stop().await;
    Ok(compared)
}

/// Reads the dump of a shard to its end: every digest, the checksum and every record are looked at on the way. It goes to the file
/// if there is one, and keys of it into the sample.
async fn read(context: &Context, source: &Stored, shard: &ShardManifest, file: Option<File>, meter: &Arc<Meter>) -> Result<(Summary, Sample), End> {
    let dump = context.inner.storage.dump(&source.folder, shard).map_err(|error| fault::stored(&context.operation, &error))?;
    let stop = CancellationToken::new();
    // The thread ends with whoever waits for it.
    let _guard = stop.clone().drop_guard();
    let (meter, timeout) = (Arc::clone(meter), context.inner.options.drill.timeout);
    let reading = tokio::task::spawn_blocking(move || pass(dump, file, timeout, &meter, &stop));
    match reading.await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(Broken::Storage(error))) => Err(fault::stored(&context.operation, &error)),
        Ok(Err(Broken::Disk(error))) => Err(disk(context, &error)),
        Ok(Err(Broken::Stopped)) | Err(_) => Err(End::Stopped),
    }
}

/// Why a dump was not read to its end.
enum Broken {
    Storage(artifacts::Error),
    Disk(io::Error),
    Stopped,
}

fn pass(mut dump: Dump, mut file: Option<File>, timeout: Duration, meter: &Meter, stop: &CancellationToken) -> Result<(Summary, Sample), Broken> {
    let now = Utc::now().timestamp_millis();
    let span = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX);
    let options = SampleOptions { keys: SAMPLED_KEYS, seed: rand::random(), expired_at: now, expiring_at: now.saturating_add(span) };
    let mut sampler = file.as_ref().map(|_| Sampler::new(options));
    let mut is_read = true;
    let mut stored_bytes = 0;
    while let Some(piece) = dump.blocking_next().map_err(Broken::Storage)? {
        if stop.is_cancelled() {
            return Err(Broken::Stopped);
        }
        if let Some(file) = &mut file {
            file.write_all(&piece).map_err(Broken::Disk)?;
        }
        if let Some(sampler) = sampler.as_mut().filter(|_| is_read) {
            // A name that is too long for a sample ends it; the rest has to do.
            is_read = sampler.feed(&piece).is_ok();
        }
        let stored = dump.stored_bytes();
        meter.count(piece.len() as u64, stored - stored_bytes);
        stored_bytes = stored;
    }
    let summary = dump.summary().cloned().ok_or(Broken::Stopped)?;
    Ok((summary, sampler.map(Sampler::finish).unwrap_or_default()))
}

fn track(context: &Context, shard: &ShardManifest, host_name: &str) -> Arc<Meter> {
    let meter = Arc::new(Meter::default());
    meter.expect_bytes(shard.size_bytes);
    let progress =
        ShardProgress { shard_name: shard.name.clone(), host_name: host_name.to_owned(), keys_expected: total(&shard.walk), ..ShardProgress::default() };
    context.track(progress, Arc::clone(&meter));
    meter
}

fn total(summary: &Summary) -> u64 {
    summary.databases.iter().map(|database| database.keys).sum()
}

/// What an engine has to be to load the dump of a shard.
fn need(shard: &ShardManifest) -> Need {
    let minimum = shard.walk.minimum.clone();
    Need { minimum, engine: shard.engine.clone(), version: shard.engine_version.clone() }
}

/// Half of the memory that is free on this machine, in bytes.
fn half_of_memory() -> u64 {
    machine::available_memory().map_or(MEMORY_BYTES, |bytes| bytes / 2)
}

fn failed(reason: Reason, message: impl Into<String>) -> End {
    End::Failed(Failure::new(reason, message))
}

/// The backup is not what it should be.
fn refused(message: String) -> End {
    failed(Reason::NotProved, message)
}

fn refusal_end(shard: &ShardManifest, refusal: &Refusal) -> End {
    let modules = shard.walk.minimum.as_ref().map(|minimum| minimum.modules.join(", ")).unwrap_or_default();
    let needed = if modules.is_empty() { String::new() } else { format!("; it needs modules with the types {modules}") };
    let reason = match refusal {
        Refusal::Start { .. } => Reason::NoEngine,
        Refusal::Ended { .. } if modules.is_empty() => Reason::NotProved,
        // A server with the modules may load it.
        Refusal::Ended { .. } => Reason::NoEngine,
        Refusal::Exhausted { .. } | Refusal::Memory { .. } => Reason::DrillLimits,
    };
    failed(reason, format!("{}: {refusal}{needed}", shard.name))
}

/// What a fault of the scratch folder means.
fn disk(context: &Context, fault: &io::Error) -> End {
    let message = format!("the folder of [drill] cannot be written: {}", fault.kind());
    match fault.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            failed(Reason::DrillLimits, message)
        }
        _ => End::Retry { fault: Fault::Storage, failure: Failure::new(Reason::DrillLimits, message), wait: fault::backoff(&context.operation) },
    }
}

fn proof(context: &Context, level: Level, found: &Found, started_at: Timestamp, took: Duration) -> Proof {
    let (engine, engine_version) = found.engine.as_ref().map(|engine| (engine.brand.as_str().to_owned(), engine.version.to_string())).unwrap_or_default();
    Proof {
        level: if level == Level::Loaded { Level::Loaded } else { Level::Walked },
        engine,
        engine_version,
        started_at,
        duration_millis: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        keys: found.keys,
        sampled_keys: found.sampled,
        operation_id: context.id().to_string(),
    }
}

/// Takes the backup for itself and adds the proof to its record, in storage and in the store.
async fn record_proof(context: &Context, level: Level, proof: Proof) -> Result<End, End> {
    let mut backup = occupy(context).await?;
    crash_point("verify.occupied");
    let reached = proof.level;
    backup.proofs.insert(0, proof);
    backup.proofs.truncate(Backup::PROOFS);
    for shard in &mut backup.shards {
        shard.level = shard.level.max(reached);
    }
    backup.level = backup.shards.iter().map(|shard| shard.level).min();
    record::write_facts(context, &mut backup).await?;
    crash_point("verify.stored");
    backup.busy = None;
    // With the end it reads no more.
    backup.readers.remove(&context.id().to_string());
    tracing::info!(operation.id = %context.id(), backup.id = %backup.id, level = word(level), "a backup was proved");
    let response = Response::Backup(Box::new(backup.clone()));
    Ok(End::Done(Box::new(Completion { outcome: Outcome::Succeeded(response), backup: Some(backup) })))
}

async fn occupy(context: &Context) -> Result<Backup, End> {
    let until = Instant::now() + OCCUPY_WAIT;
    loop {
        match context.inner.store.occupy(context.id(), context.epoch()).await {
            Ok(backup) => {
                context.wait_for("");
                return Ok(backup);
            }
            Err(store::Error::Conflict(_)) if Instant::now() < until => {
                context.wait_for("another operation on the backup to end");
                tokio::time::sleep(OCCUPY_PAUSE).await;
            }
            Err(store::Error::NotAvailable(_)) => return Err(internal("the backup to be proved is not available any more")),
            Err(error) => return Err(error.into()),
        }
    }
}
