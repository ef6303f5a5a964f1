//! A backup by where it lies: its manifest tells the rest, and nothing in it is believed before it is checked.

use crate::artifacts::manifest::{FORMAT_VERSION, MANIFEST, Manifest, ShardManifest};
use crate::artifacts::{Compression, Encryption, Folder, Identity, Options, SEGMENT_BYTES, Storage};
use crate::cli;
use crate::config;
use std::collections::BTreeMap;
use std::path::Path;

/// Longest name of a shard, in bytes.
const SHARD_BYTES: usize = 63;

/// Most shards of one backup.
const SHARDS: usize = 1000;

/// Most segments of one shard.
const SEGMENTS: usize = 10_000;

/// What begins the URL of a folder of this machine.
const FILE: &str = "file:";

/// A backup that can be read.
pub(super) struct Stored {
    pub(super) storage: Storage,
    pub(super) folder: Folder,
    pub(super) manifest: Manifest,
}

/// Opens the storage and reads the manifest.
///
/// # Errors
///
/// A sentence.
pub(super) async fn open(args: &cli::Stored) -> Result<Stored, String> {
    let (root, name) = split(&args.url)?;
    let mut options = args.options.clone();
    let given = [("endpoint", &args.endpoint), ("region", &args.region), ("account", &args.account)];
    options.extend(given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.clone()?))));
    if args.allow_http {
        options.push(("allow_http".to_owned(), "true".to_owned()));
    }
    let place = config::place(&root, &options).map_err(|fault| fault.faults.join("; "))?;
    let folder = Folder::named(&name).ok_or_else(|| format!("{} names no folder of a backup", args.url))?;
    let options = Options { root: place, folders: BTreeMap::new(), compression: Compression::None, segment_bytes: SEGMENT_BYTES };
    let identity = args.age_identity_file.as_deref().map(|path| Identity::read(path).map_err(|fault| format!("{} {fault}", path.display())));
    let encryption = Encryption { identity: identity.transpose()?, ..Encryption::default() };
    let storage = Storage::open(options).map_err(|fault| fault.to_string())?.with_encryption(encryption);
    let bytes = storage.read(&folder, MANIFEST).await.map_err(|fault| {
        format!("the manifest of the backup cannot be read below {}: {fault}; name the folder that has {MANIFEST} in it, as `path` of a backup does", args.url)
    })?;
    let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|_| format!("{MANIFEST} cannot be read as a manifest"))?;
    check(&manifest)?;
    Ok(Stored { storage, folder, manifest })
}

/// The root and the name of the folder in it; the manifest itself may be named, too.
fn split(url: &str) -> Result<(String, String), String> {
    let is_remote = ["s3://", "gs://", "az://"].iter().any(|scheme| url.starts_with(scheme));
    if !is_remote {
        let path = url.strip_prefix(FILE).map_or(url, |path| path.strip_prefix("//").unwrap_or(path));
        // Made whole, so that a name such as `.` has a parent; and it must be there, for nothing is to be made.
        let path = Path::new(path).canonicalize().map_err(|fault| format!("{url} cannot be read: {}", fault.kind()))?;
        let folder = if path.is_file() { path.parent().unwrap_or(&path).to_owned() } else { path };
        let (Some(parent), Some(name)) = (folder.parent(), folder.file_name().and_then(|name| name.to_str())) else {
            return Err(format!("{url} is no folder of a backup"));
        };
        return Ok((format!("{FILE}{}", parent.display()), name.to_owned()));
    }
    let folder = url.strip_suffix(MANIFEST).unwrap_or(url).trim_end_matches('/');
    match folder.rsplit_once('/') {
        Some((root, name)) if !root.ends_with('/') => Ok((root.to_owned(), name.to_owned())),
        _ => Err(format!("{url} must name the folder of a backup in the bucket, such as s3://bucket/prefix/default/main/BACKUP/1")),
    }
}

/// Whether names and numbers of the manifest can be used. The content is held against it when it is read.
fn check(manifest: &Manifest) -> Result<(), String> {
    if manifest.format_version != FORMAT_VERSION {
        return Err(format!("the manifest has format {}, and this program reads format {FORMAT_VERSION}", manifest.format_version));
    }
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) && !name.starts_with('.');
    if manifest.shards.is_empty() || manifest.shards.len() > SHARDS {
        return Err(format!("the manifest has {} shards", manifest.shards.len()));
    }
    for shard in &manifest.shards {
        if !is_name(&shard.name) || shard.name.len() > SHARD_BYTES {
            return Err("the manifest names a shard that can be none".to_owned());
        }
        if shard.segments.is_empty() || shard.segments.len() > SEGMENTS || !shard.segments.iter().all(|segment| is_name(&segment.file)) {
            return Err(format!("the manifest names files of {} that can be none", shard.name));
        }
    }
    Ok(())
}

impl Stored {
    /// The shards of which one was named, or all.
    pub(super) fn shards(&self, name: Option<&str>) -> Result<Vec<&ShardManifest>, String> {
        let shards: Vec<_> = self.manifest.shards.iter().filter(|shard| name.is_none_or(|name| shard.name == name)).collect();
        if shards.is_empty() { Err(format!("the backup has no such shard; it has {}", self.names())) } else { Ok(shards) }
    }

    /// The names of all shards.
    pub(super) fn names(&self) -> String {
        self.manifest.shards.iter().map(|shard| shard.name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_is_named_by_its_folder_or_its_manifest() {
        for url in ["s3://b/p/default/main/id/3", "s3://b/p/default/main/id/3/", "s3://b/p/default/main/id/3/manifest.json"] {
            assert_eq!(split(url).unwrap(), ("s3://b/p/default/main/id".to_owned(), "3".to_owned()), "{url}");
        }
        assert_eq!(split("gs://b/3").unwrap(), ("gs://b".to_owned(), "3".to_owned()));
        for url in ["s3://", "s3://b", "s3://b/", "/nowhere/at/all", "file:/nowhere"] {
            assert!(split(url).is_err(), "{url}");
        }
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().canonicalize().unwrap().join("3");
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(inner.join(MANIFEST), "{}").unwrap();
        let expected = (format!("file:{}", inner.parent().unwrap().display()), "3".to_owned());
        for url in [inner.display().to_string(), format!("file:{}", inner.display()), inner.join(MANIFEST).display().to_string()] {
            assert_eq!(split(&url).unwrap(), expected, "{url}");
        }
    }
}
