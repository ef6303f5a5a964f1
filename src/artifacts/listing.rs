//! What lies below the roots, by backup: for those who have lost the records of it.

use super::decode::hold;
use super::manifest::{FACTS, Segment};
use super::remote::RECORD_SUFFIX;
use super::{Error, Folder, PART_BYTES, Storage};
use crate::backup::BackupId;
use crate::cluster::{ClusterId, FolderId};
use aws_lc_rs::digest;
use std::collections::{BTreeMap, BTreeSet};

/// Most objects that are listed below one root.
const OBJECTS: usize = 2_000_000;

/// Most objects that belong to nothing of which the path is told.
const STRANGERS: usize = 100;

/// What lies in the folder of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The folder, the tenant.
    pub folder_id: FolderId,
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The backup.
    pub backup_id: BackupId,
    /// The objects of each attempt, by its number: their names and lengths in bytes.
    pub attempts: BTreeMap<u64, BTreeMap<String, u64>>,
    /// Revisions of its facts.
    pub facts: BTreeSet<u64>,
}

impl Found {
    /// Its folder.
    pub fn folder(&self) -> Folder {
        Folder::of_backup(&self.folder_id, &self.cluster_id, self.backup_id)
    }
}

/// What lies below all roots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Backups, in order of folder, cluster and id.
    pub backups: Vec<Found>,
    /// How many objects belong to no backup.
    pub stranger_count: u64,
    /// The paths of the first 100 of them.
    pub strangers: Vec<String>,
}

type Key = (FolderId, ClusterId, BackupId);

/// What the path of an object says.
enum Place {
    File(Key, u64, String),
    Facts(Key, u64),
    /// It is the remains of an upload.
    Remains,
}

fn place(path: &str) -> Option<Place> {
    let parts: Vec<&str> = path.split('/').collect();
    let [folder, cluster, backup, inner, file] = parts.as_slice() else { return None };
    let key = (folder.parse().ok()?, cluster.parse().ok()?, backup.parse().ok()?);
    if file.ends_with(RECORD_SUFFIX) {
        return Some(Place::Remains);
    }
    // A number has one text form.
    let number = |text: &str| text.parse::<u64>().ok().filter(|number| number.to_string() == text);
    if *inner == FACTS {
        return Some(Place::Facts(key, number(file.strip_suffix(".json")?)?));
    }
    Some(Place::File(key, number(inner)?, (*file).to_owned()))
}

fn of(found: &mut BTreeMap<Key, Found>, key: Key) -> &mut Found {
    let (folder_id, cluster_id, backup_id) = key.clone();
    found.entry(key).or_insert_with(|| Found { folder_id, cluster_id, backup_id, attempts: BTreeMap::new(), facts: BTreeSet::new() })
}

impl Storage {
    /// Lists what lies below all roots. A tenant's folder that has a root of its own is looked for there alone.
    ///
    /// # Errors
    ///
    /// [`Error`], also when there is more than can be listed.
    pub async fn inventory(&self) -> Result<Inventory, Error> {
        let mut found: BTreeMap<Key, Found> = BTreeMap::new();
        let mut inventory = Inventory::default();
        let own = |folder: &FolderId| self.folders.contains_key(folder);
        let roots = std::iter::once((None, &self.root)).chain(self.folders.iter().map(|(folder, root)| (Some(folder), root)));
        for (tenant, root) in roots {
            let mut count = 0;
            let mut see = |path: &str, bytes: u64| {
                count += 1;
                let fits = |(folder, _, _): &Key| tenant.map_or_else(|| !own(folder), |tenant| tenant == folder);
                match place(path) {
                    Some(Place::File(key, epoch, file)) if fits(&key) => drop(of(&mut found, key).attempts.entry(epoch).or_default().insert(file, bytes)),
                    Some(Place::Facts(key, revision)) if fits(&key) => drop(of(&mut found, key).facts.insert(revision)),
                    Some(Place::Remains) => {}
                    Some(Place::File(..) | Place::Facts(..)) | None => {
                        inventory.stranger_count += 1;
                        if inventory.strangers.len() < STRANGERS {
                            inventory.strangers.push(path.to_owned());
                        }
                    }
                }
                if count <= OBJECTS { Ok(()) } else { Err(Error::unavailable(format!("more than {OBJECTS} objects lie below {root}"))) }
            };
            root.each(&mut see).await?;
        }
        inventory.backups = found.into_values().collect();
        Ok(inventory)
    }

    /// Reads an object to its end, and holds length and digest against what the manifest says.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`], [`Error::Missing`], or [`Error`].
    pub async fn check(&self, folder: &Folder, segment: &Segment) -> Result<(), Error> {
        let mut pieces = self.pieces(folder, segment, PART_BYTES).await?;
        let mut context = digest::Context::new(&digest::SHA256);
        while let Some(piece) = pieces.next().await? {
            // A piece takes a few milliseconds, and nothing else goes on meanwhile.
            context.update(&piece);
        }
        hold(segment, context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifacts::{Compression, Options, SEGMENT_BYTES};

    const BACKUP: &str = "01890000-0000-7000-8000-000000000001";

    #[tokio::test]
    async fn objects_are_told_by_backup_and_strangers_by_path() {
        let (root, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let put = |root: &tempfile::TempDir, path: &str, bytes: usize| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, vec![0; bytes]).unwrap();
        };
        for (path, bytes) in [("1/attempt.json", 3), ("2/manifest.json", 5), ("2/shard1-0.rdb", 7), ("facts/1.json", 1), ("facts/12.json", 1)] {
            put(&root, &format!("default/main/{BACKUP}/{path}"), bytes);
        }
        // A tenant with a root of its own is looked for there.
        put(&other, &format!("shop/main/{BACKUP}/1/manifest.json"), 1);
        put(&root, &format!("shop/main/{BACKUP}/1/manifest.json"), 1);
        for path in ["README", "default/main/nonsense/1/manifest.json", &format!("default/main/{BACKUP}/01/x"), &format!("default/main/{BACKUP}/facts/x.json")]
        {
            put(&root, path, 1);
        }
        let folders = [("shop".parse().unwrap(), other.path().to_owned().into())].into();
        let options = Options { root: root.path().to_owned().into(), folders, compression: Compression::None, segment_bytes: SEGMENT_BYTES };
        let inventory = Storage::open(options).unwrap().inventory().await.unwrap();
        assert_eq!((inventory.stranger_count, inventory.strangers.len()), (5, 5), "{:?}", inventory.strangers);
        let [one, shop] = inventory.backups.as_slice() else { panic!("{inventory:?}") };
        assert_eq!((one.folder().as_str(), one.attempts[&2]["shard1-0.rdb"], one.attempts.len()), (format!("default/main/{BACKUP}").as_str(), 7, 2));
        assert_eq!(one.facts, [1, 12].into());
        assert_eq!((shop.folder_id.as_str(), shop.attempts.len()), ("shop", 1));
    }
}
