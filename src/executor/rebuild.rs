//! The row of a backup out of what storage has of it: its manifest, and the facts that were added later.
//!
//! Pure. What was never written beside the artifacts is lost with the store: operations, adopted clusters, sketches of keys.

use super::{backup, suspect};
use crate::artifacts::manifest::{FORMAT_VERSION, Facts, Manifest};
use crate::backup::{Backup, BackupId, Name, Origin, State};
use crate::cluster::{ClusterId, FolderId, Timestamp};
use crate::store::Lineage;

/// A backup out of what storage has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// Its row.
    pub row: Backup,
    /// What its source was, as far as the manifest tells.
    pub lineage: Vec<Lineage>,
}

/// A manifest is not that of the place where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// Its format is not known.
    #[error("its manifest is of another format")]
    Format,
    /// It names another backup, or another attempt.
    #[error("its manifest is of another backup")]
    Other,
    /// It names no shard.
    #[error("its manifest names no shard")]
    Empty,
}

/// Makes the row of the backup of this folder, cluster and id again. `newest_facts` is the highest revision that there is, whether it
/// could be read or not; `facts` are those with the highest that could. A tombstone among them lets the files go at the time it says,
/// and not before `spared_until`; where newer facts could not be read it counts for nothing, as they may have taken it back.
///
/// # Errors
///
/// [`Misfit`], by condition.
pub fn rebuild(
    (folder_id, cluster_id, id): (&FolderId, &ClusterId, BackupId),
    manifest: &Manifest,
    facts: Option<&Facts>,
    newest_facts: u64,
    spared_until: Timestamp,
) -> Result<Rebuilt, Misfit> {
    if manifest.format_version != FORMAT_VERSION {
        return Err(Misfit::Format);
    }
    if manifest.backup_id != id.to_string() || manifest.folder_id != *folder_id || manifest.cluster_id != *cluster_id {
        return Err(Misfit::Other);
    }
    if manifest.shards.is_empty() {
        return Err(Misfit::Empty);
    }
    let draft = Backup {
        labels: manifest.labels.clone(),
        origin: manifest.origin.unwrap_or(Origin::Manual),
        source: manifest.source.clone(),
        expires_at: manifest.expires_at,
        planned_at: manifest.planned_at,
        policy_id: manifest.policy_id.clone(),
        ..Backup::draft(id, folder_id.clone(), cluster_id.clone(), manifest.name.clone(), manifest.operation_id.clone(), manifest.created_at)
    };
    let mut row = backup::row(draft, manifest);
    row.completed_at = manifest.shards.iter().map(|shard| shard.upload_ended_at).max();
    row.facts_revision = newest_facts;
    if let Some(facts) = facts {
        add(&mut row, facts, newest_facts, spared_until);
    }
    // A copy is told by its age: it was asked for when its data was there already. It says nothing of what its cluster is now.
    let is_taken = row.started_at.is_some_and(|started_at| manifest.created_at <= started_at);
    let lineage = manifest.shards.iter().filter(|shard| is_taken && !shard.run_id.is_empty()).map(suspect::lineage).collect();
    Ok(Rebuilt { row, lineage })
}

/// Adds what was decided after the manifest was written.
fn add(row: &mut Backup, facts: &Facts, newest_facts: u64, spared_until: Timestamp) {
    row.name = facts.name.clone();
    row.labels = facts.labels.clone();
    row.expires_at = facts.expires_at;
    row.holds = facts.holds.clone();
    row.suspicion = facts.suspicion.clone();
    row.proofs = facts.proofs.iter().take(Backup::PROOFS).cloned().collect();
    row.undeleted_at = facts.undeleted_at;
    row.expiry_by_hand = facts.expiry_by_hand;
    // As the proofs themselves did when they were recorded.
    if let Some(reached) = facts.proofs.iter().map(|proof| proof.level).max() {
        row.shards.iter_mut().for_each(|shard| shard.level = shard.level.max(reached));
        row.level = row.shards.iter().map(|shard| shard.level).min();
    }
    if let Some(purge_at) = facts.deleted_until.filter(|_| facts.revision == newest_facts) {
        row.state = State::Deleting { purge_at: purge_at.max(spared_until) };
    }
}

impl Rebuilt {
    /// The same under a name that nobody else has.
    pub fn renamed(mut self) -> Self {
        self.row.name = Name::undeleted(self.row.id);
        self
    }
}
