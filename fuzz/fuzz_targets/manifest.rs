//! Any bytes read as each of the documents in storage: no panic, and what is read is written and read again as the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use redkeep::artifacts::Compression;
use redkeep::artifacts::manifest::{Facts, Manifest, Marker};
use redkeep::backup::{Backup, BackupId};
use redkeep::executor::fuzzing::read;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

fuzz_target!(|bytes: &[u8]| {
    again::<Marker>(bytes);
    again::<Facts>(bytes);
    if let Some(manifest) = again::<Manifest>(bytes) {
        let _ = manifest.compression.parse::<Compression>();
        let (row, stored_bytes) = read(draft(&manifest), &manifest);
        assert_eq!(row.shards.len(), manifest.shards.len());
        assert_eq!(row.stored_bytes, stored_bytes);
        again::<Backup>(&serde_json::to_vec(&row).expect("a row is written"));
    }
});

/// Reads a document; one that can be read can be written, and then reads the same.
fn again<T: DeserializeOwned + Serialize + PartialEq + Debug>(bytes: &[u8]) -> Option<T> {
    let read: T = serde_json::from_slice(bytes).ok()?;
    let written = serde_json::to_vec_pretty(&read).expect("what was read is written");
    assert_eq!(serde_json::from_slice::<T>(&written).expect("what was written is read"), read);
    Some(read)
}

/// The row before the manifest.
fn draft(manifest: &Manifest) -> Backup {
    Backup {
        labels: manifest.labels.clone(),
        expires_at: manifest.expires_at,
        compression: manifest.compression.clone(),
        ..Backup::draft(
            BackupId::new(),
            manifest.folder_id.clone(),
            manifest.cluster_id.clone(),
            manifest.name.clone(),
            manifest.operation_id.clone(),
            manifest.created_at,
        )
    }
}
