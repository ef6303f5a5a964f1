//! `redkeep fetch`: the RDB files of a backup, with nothing but its storage.

use super::stored::{self, Stored};
use crate::artifacts::Dump;
use crate::artifacts::manifest::ShardManifest;
use crate::cli::Fetch;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Writes the RDB file of each shard, and prints where they are. A file has its name only when all of it was read, written and
/// is what the manifest says; one that is there already is not touched.
///
/// # Errors
///
/// A sentence. Files that were whole before the fault stay.
pub async fn fetch(args: &Fetch) -> Result<(), String> {
    let stored = stored::open(&args.stored).await?;
    let shards: Vec<ShardManifest> = stored.shards(args.shard.as_deref())?.into_iter().cloned().collect();
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&args.to);
    made.map_err(|fault| format!("{} cannot be made: {}", args.to.display(), fault.kind()))?;
    let manifest = &stored.manifest;
    println!("backup {} of cluster {}, taken at {}", manifest.backup_id, manifest.cluster_id, manifest.created_at.format("%FT%TZ"));
    for shard in shards {
        let path = args.to.join(format!("{}.rdb", shard.name));
        let keys = write(&stored, &shard, &path).await?;
        println!("{}: {} bytes, {keys} keys, {} {}, whole", path.display(), shard.size_bytes, shard.engine, shard.engine_version);
    }
    Ok(())
}

/// Writes one shard; tells how many keys it has.
async fn write(stored: &Stored, shard: &ShardManifest, path: &Path) -> Result<u64, String> {
    if path.exists() {
        return Err(format!("{} is there already, and nothing is replaced", path.display()));
    }
    let dump = stored.storage.dump(&stored.folder, shard).map_err(|fault| fault.to_string())?;
    let part = path.with_extension("rdb.part");
    let (written, to) = (part.clone(), path.to_owned());
    let writing = tokio::task::spawn_blocking(move || copy(dump, &written, &to));
    let outcome = writing.await.map_err(|_| "the writing was interrupted".to_owned()).and_then(|outcome| outcome);
    if outcome.is_err() {
        // Best effort: what is left of it has a name that nobody takes for a dump.
        let _ = std::fs::remove_file(&part);
    }
    outcome.map_err(|what| format!("{}: {what}", shard.name))
}

fn copy(mut dump: Dump, part: &Path, path: &PathBuf) -> Result<u64, String> {
    let failed = |path: &Path, fault: std::io::Error| format!("{} cannot be written: {}", path.display(), fault.kind());
    // Whoever can read a dump has all of the data, so it is for this user alone.
    let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(part);
    let mut file = opened.map_err(|fault| failed(part, fault))?;
    while let Some(piece) = dump.blocking_next().map_err(|fault| fault.to_string())? {
        file.write_all(&piece).map_err(|fault| failed(part, fault))?;
    }
    file.sync_all().map_err(|fault| failed(part, fault))?;
    // Linked and not renamed, so that a file that came meanwhile is not replaced.
    std::fs::hard_link(part, path)
        .or_else(|_| if path.exists() { Err(std::io::ErrorKind::AlreadyExists.into()) } else { std::fs::rename(part, path) })
        .map_err(|fault| failed(path, fault))?;
    let _ = std::fs::remove_file(part);
    if let Some(parent) = path.parent() {
        File::open(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
            .and_then(|folder| folder.sync_all())
            .map_err(|fault| failed(path, fault))?;
    }
    let keys = dump.summary().map_or(0, |summary| summary.databases.iter().map(|database| database.keys).sum());
    Ok(keys)
}
