//! What readers do with a manifest, for the fuzz targets.

use super::{backup, stored};
use crate::artifacts::manifest::Manifest;
use crate::backup::Backup;

/// Makes of a manifest the row of its backup, and counts what is stored.
pub fn read(draft: Backup, manifest: &Manifest) -> (Backup, u64) {
    let stored_bytes = manifest.shards.iter().map(stored::stored_bytes).fold(0, u64::saturating_add);
    (backup::row(draft, manifest), stored_bytes)
}
