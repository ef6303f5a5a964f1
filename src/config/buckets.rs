//! The `[[buckets]]` of the configuration.

use super::artifacts;
use super::section::Section;
use crate::artifacts::bucket::{BUCKETS, Options};
use crate::artifacts::{self as storage, Place};
use crate::cluster::BucketName;
use std::collections::BTreeSet;
use std::path::Path;

/// Reads all buckets; faults are noted in the sections. A bucket must not meet the storage, nor the folder of the store.
pub(super) fn read(sections: Vec<Section<'_>>, base: &Path, storage: &storage::Options, store: &Path) -> Vec<Options> {
    let store = Place::Files(store.to_owned());
    let folders = storage.folders.values().map(|place| ("artifacts.folders", place));
    let apart: Vec<(&str, &Place)> = [("artifacts.url", &storage.root), ("store.url", &store)].into_iter().chain(folders).collect();
    let mut names = BTreeSet::new();
    let mut buckets = Vec::new();
    for (index, mut section) in sections.into_iter().enumerate() {
        if index == BUCKETS {
            section.fault("name", &format!("there must be at most {BUCKETS} buckets"));
        }
        if let Some(bucket) = bucket(&mut section, base, &apart, &mut names) {
            buckets.push(bucket);
        }
        section.end();
    }
    buckets
}

fn bucket(section: &mut Section<'_>, base: &Path, apart: &[(&str, &Place)], names: &mut BTreeSet<BucketName>) -> Option<Options> {
    let name = match section.optional_text("name").map(|name| name.parse::<BucketName>()) {
        Some(Ok(name)) if names.contains(&name) => {
            section.fault("name", "another bucket has it already");
            None
        }
        Some(Ok(name)) => {
            names.insert(name.clone());
            Some(name)
        }
        Some(Err(fault)) => {
            section.fault("name", &fault.to_string());
            None
        }
        None => {
            section.fault("name", "must be given");
            None
        }
    };
    let root = root(section, base, apart);
    let mut folders = Vec::new();
    let texts = section.texts("folders");
    if texts.is_empty() {
        section.fault("folders", "must list the folders whose backups may go there, such as [\"default\"]");
    }
    for (index, text) in texts.iter().enumerate() {
        match text.parse() {
            Ok(folder) => folders.push(folder),
            Err(fault) => section.fault(&format!("folders[{index}]"), &crate::cluster::IdError::to_string(&fault)),
        }
    }
    Some(Options { name: name?, root: root?, folders })
}

fn root(section: &mut Section<'_>, base: &Path, apart: &[(&str, &Place)]) -> Option<Place> {
    let root = artifacts::place(section, base, None)?;
    for (key, other) in apart {
        if root.meets(other) {
            section.fault("url", &format!("must not lie inside of {key} or around it; give the bucket a place of its own"));
        }
    }
    Some(root)
}
