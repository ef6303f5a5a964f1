//! `redkeep store rebuild`: the records of backups made again out of what storage has, after the loss of the store.
//!
//! For each backup the attempt with the highest number counts whose manifest is whole, and the facts with the highest revision.
//! Nothing in storage is changed, and no record that is there.

use crate::artifacts::manifest::{FACTS, FORMAT_VERSION, Facts, MANIFEST, Manifest, Segment};
use crate::artifacts::{Found, Storage};
use crate::backup::{Backup, State};
use crate::config;
use crate::executor::{Rebuilt, rebuild};
use crate::store::sled::{Options, SledStore};
use crate::store::{Error, Store};
use chrono::{TimeDelta, Utc};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// How a store is rebuilt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Whether a store that has backups already is added to.
    pub merge: bool,
    /// Whether every byte is read and held against its digest, and not only the lengths looked at.
    pub deep: bool,
}

/// What has become of what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// Its record is there again.
    Back { state: &'static str, name: String },
    /// Its record was there all the time.
    Known,
    /// Its files are not those that its manifest describes, or cannot be read.
    Damaged,
    /// An attempt left it that was never published.
    Unpublished,
}

impl Outcome {
    fn word(&self) -> &'static str {
        match self {
            Self::Back { state, .. } => state,
            Self::Known => "KNOWN",
            Self::Damaged => "DAMAGED",
            Self::Unpublished => "NO MANIFEST",
        }
    }
}

/// A line of the table.
struct Line {
    path: String,
    outcome: Outcome,
    notes: Vec<String>,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if let Outcome::Back { name, .. } = &self.outcome { name } else { "-" };
        write!(f, "{:<12} {}  {name}", self.outcome.word(), self.path)?;
        self.notes.iter().try_for_each(|note| write!(f, "; {}", shown(note)))
    }
}

/// Text from storage as it is shown: without control characters.
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Makes the records of all backups again that storage has, and prints what was found and what not.
///
/// # Errors
///
/// A sentence: the configuration has faults; the store has backups and is not to be added to, or cannot be opened; storage cannot
/// be read; or some backups could not be put back, after all others were.
pub async fn rebuild_store(file: Option<&Path>, wishes: Wishes) -> Result<(), String> {
    let config = config::load(file, &[]).map_err(|fault| fault.to_string())?;
    let storage = Storage::open(config.artifacts).map_err(|fault| fault.to_string())?.with_encryption(config.encryption);
    let path = config.store.clone();
    let opened = tokio::task::spawn_blocking(move || SledStore::open(Options::new(path))).await;
    let store = opened.map_err(|_| "the store was not opened".to_owned())?.map_err(|fault| fault.to_string())?;
    let grace = TimeDelta::from_std(config.executor.delete_grace).unwrap_or(TimeDelta::days(1));
    let done = all(&store, &storage, wishes, grace).await;
    let closed = tokio::task::spawn_blocking(move || store.close()).await;
    closed.map_err(|_| "the store was not closed".to_owned())?;
    done
}

async fn all(store: &SledStore, storage: &Storage, wishes: Wishes, grace: TimeDelta) -> Result<(), String> {
    let has_backups = !store.clusters_with_backups(None, 1).await.map_err(|fault| fault.to_string())?.is_empty();
    if has_backups && !wishes.merge {
        return Err("the store has backups already; --merge adds those that it does not have, and changes none of them".to_owned());
    }
    let inventory = storage.inventory().await.map_err(|fault| fault.to_string())?;
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for found in &inventory.backups {
        let line = one(store, storage, found, wishes, grace).await.map_err(|fault| fault.to_string())?;
        *counts.entry(line.outcome.word()).or_default() += 1;
        println!("{line}");
    }
    for path in &inventory.strangers {
        println!("{:<12} {}", "STRANGER", shown(path));
    }
    let count = |word: &str| counts.get(word).copied().unwrap_or(0);
    println!(
        "{} backups are there again ({} of them DELETING), {} were there already, {} are damaged, {} were never published; {} objects belong to nothing",
        count("AVAILABLE") + count("DELETING"),
        count("DELETING"),
        count("KNOWN"),
        count("DAMAGED"),
        count("NO MANIFEST"),
        inventory.stranger_count
    );
    match count("DAMAGED") {
        0 => Ok(()),
        damaged => Err(format!("{damaged} backup(s) could not be put back; their files stay where they are")),
    }
}

/// Puts one backup back, if it is whole.
async fn one(store: &SledStore, storage: &Storage, found: &Found, wishes: Wishes, grace: TimeDelta) -> Result<Line, Error> {
    let mut line = Line { path: found.folder().as_str().to_owned(), outcome: Outcome::Known, notes: Vec::new() };
    match store.backup(found.backup_id).await {
        Ok(_) => return Ok(line),
        Err(Error::NoBackup) => {}
        Err(fault) => return Err(fault),
    }
    if !found.attempts.values().any(|files| files.contains_key(MANIFEST)) {
        line.outcome = Outcome::Unpublished;
        line.notes.push(format!("{} file(s) of attempts that were not published", found.attempts.values().map(BTreeMap::len).sum::<usize>()));
        return Ok(line);
    }
    let Some(rebuilt) = read(storage, found, wishes, grace, &mut line.notes).await else {
        line.outcome = Outcome::Damaged;
        return Ok(line);
    };
    let (row, lineage) = (rebuilt.row.clone(), rebuilt.lineage.clone());
    let put = match store.put_back(row, lineage).await {
        Err(Error::NameTaken(name)) => {
            line.notes.push(format!("another backup has its name {name}"));
            let Rebuilt { row, lineage } = rebuilt.renamed();
            line.outcome = back(&row);
            store.put_back(row, lineage).await
        }
        put => {
            line.outcome = back(&rebuilt.row);
            put
        }
    };
    match put {
        Ok(true) => {}
        Ok(false) => line.outcome = Outcome::Known,
        Err(Error::NameTaken(_) | Error::Invalid(_)) => {
            line.outcome = Outcome::Damaged;
            line.notes.push("its record does not fit".to_owned());
        }
        Err(fault) => return Err(fault),
    }
    Ok(line)
}

fn back(row: &Backup) -> Outcome {
    let state = if let State::Deleting { .. } = row.state { "DELETING" } else { "AVAILABLE" };
    Outcome::Back { state, name: row.name.to_string() }
}

/// The backup as its newest whole attempt and its newest facts tell it; what is wrong with others goes to the notes.
async fn read(storage: &Storage, found: &Found, wishes: Wishes, grace: TimeDelta, notes: &mut Vec<String>) -> Option<Rebuilt> {
    let facts = facts(storage, found, notes).await;
    let newest_facts = found.facts.last().copied().unwrap_or(0);
    for (epoch, files) in found.attempts.iter().rev().filter(|(_, files)| files.contains_key(MANIFEST)) {
        let manifest = match attempt(storage, found, *epoch, files, wishes).await {
            Ok(manifest) => manifest,
            Err(what) => {
                notes.push(format!("attempt {epoch}: {what}"));
                continue;
            }
        };
        let key = (&found.folder_id, &found.cluster_id, found.backup_id);
        match rebuild(key, &manifest, facts.as_ref(), newest_facts, Utc::now() + grace) {
            Ok(rebuilt) => return Some(rebuilt),
            Err(misfit) => notes.push(format!("attempt {epoch}: {misfit}")),
        }
    }
    None
}

/// The manifest of an attempt whose files are all there.
async fn attempt(storage: &Storage, found: &Found, epoch: u64, files: &BTreeMap<String, u64>, wishes: Wishes) -> Result<Manifest, String> {
    let folder = found.folder().attempt(epoch);
    let bytes = storage.read(&folder, MANIFEST).await.map_err(|fault| fault.to_string())?;
    let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|_| "its manifest cannot be read".to_owned())?;
    if manifest.epoch != epoch {
        return Err("its manifest is of another attempt".to_owned());
    }
    for shard in &manifest.shards {
        let side = shard.side.iter().map(|side| Segment { file: side.file.clone(), stored_bytes: side.stored_bytes, sha256: side.sha256.clone() });
        for segment in shard.segments.iter().cloned().chain(side) {
            match files.get(&segment.file) {
                None => return Err(format!("{} is missing", segment.file)),
                Some(length) if *length != segment.stored_bytes => {
                    return Err(format!("{} has {length} bytes instead of {}", segment.file, segment.stored_bytes));
                }
                Some(_) => {}
            }
            if wishes.deep {
                storage.check(&folder, &segment).await.map_err(|fault| fault.to_string())?;
            }
        }
    }
    Ok(manifest)
}

/// The facts with the highest revision that can be read.
async fn facts(storage: &Storage, found: &Found, notes: &mut Vec<String>) -> Option<Facts> {
    for revision in found.facts.iter().rev() {
        let read = storage.read(&found.folder().inner(FACTS), &format!("{revision}.json")).await;
        let facts = read.ok().and_then(|bytes| serde_json::from_slice::<Facts>(&bytes).ok());
        let fits = |facts: &Facts| facts.format_version == FORMAT_VERSION && facts.backup_id == found.backup_id.to_string() && facts.revision == *revision;
        match facts.filter(fits) {
            Some(facts) => return Some(facts),
            None => notes.push(format!("facts {revision} cannot be read, older ones count")),
        }
    }
    None
}
