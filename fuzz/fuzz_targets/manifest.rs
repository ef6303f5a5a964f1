//! Any bytes read as each of the documents in storage: no panic, and what is read is written and read again as the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use redkeep::artifacts::Compression;
use redkeep::artifacts::manifest::{Facts, Manifest, Marker};
use redkeep::backup::{Backup, BackupId, Origin, State};
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
        id: BackupId::new(),
        folder_id: manifest.folder_id.clone(),
        cluster_id: manifest.cluster_id.clone(),
        source: None,
        name: manifest.name.clone(),
        labels: manifest.labels.clone(),
        state: State::Creating,
        origin: Origin::Manual,
        created_at: manifest.created_at,
        started_at: None,
        completed_at: None,
        expires_at: manifest.expires_at,
        holds: Vec::new(),
        operation_id: manifest.operation_id.clone(),
        busy: None,
        readers: Default::default(),
        facts_revision: 0,
        epoch: None,
        level: None,
        consistency: None,
        skew_millis: 0,
        size_bytes: 0,
        stored_bytes: 0,
        compression: manifest.compression.clone(),
        shards: Vec::new(),
        age_recipients: Vec::new(),
        suspicion: None,
    }
}
