//! The names of the shards of clusters, remembered by the store.

use super::Fleet;
use crate::cluster::{ClusterId, ONLY_SHARD, ShardNames};
use crate::redis::topology::Topology;
use crate::store::{Error, Store};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Where the names are kept, and what is known of them without asking there.
#[derive(Default)]
pub(super) struct Names {
    store: OnceLock<Arc<dyn Store>>,
    known: Mutex<BTreeMap<ClusterId, ShardNames>>,
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Names")
    }
}

impl Names {
    pub(super) fn forget(&self, id: &ClusterId) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    fn known(&self, id: &ClusterId) -> ShardNames {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned().unwrap_or_default()
    }

    fn keep(&self, id: &ClusterId, names: &ShardNames) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), names.clone());
    }
}

impl Fleet {
    /// Tells where the names of shards are remembered. Only the first counts.
    pub fn remember_in(&self, store: Arc<dyn Store>) {
        // A second store would not know the names of the first.
        let _ = self.names.store.set(store);
    }

    /// The names that are known without asking the store.
    pub(super) fn known_names(&self, id: &ClusterId) -> ShardNames {
        self.names.known(id)
    }

    /// The names of the shards that were seen. What is new has a name for good on return, unless nothing remembers here.
    ///
    /// # Errors
    ///
    /// As [`Store::name_shards`].
    pub(super) async fn names_of(&self, id: &ClusterId, topology: &Topology) -> Result<ShardNames, Error> {
        let mut names = self.names.known(id);
        let Some(layout) = &topology.layout else { return Ok(names) };
        let found: Vec<Vec<String>> = layout.shards.iter().map(|shard| shard.node_ids.clone()).collect();
        if !names.learn(&found) {
            return Ok(names);
        }
        if let Some(store) = self.names.store.get() {
            names = store.name_shards(id, found).await?;
        }
        self.names.keep(id, &names);
        Ok(names)
    }
}

/// The shard of each host by the host's name: the only one outside of cluster mode. A node that owns nothing belongs to the
/// shard that it was of, if it was of any.
pub(super) fn shards_of_hosts(topology: &Topology, names: &ShardNames) -> BTreeMap<String, String> {
    let mut shards = BTreeMap::new();
    let hosts = topology.hosts.iter().map(|seen| (seen.target.name.clone(), seen.id()));
    match topology.layout {
        None => shards.extend(hosts.map(|(name, _)| (name, ONLY_SHARD.to_owned()))),
        Some(_) => {
            shards.extend(hosts.filter_map(|(name, id)| Some((name, names.name_of(id?)?))));
            for (shard, part) in topology.shards() {
                let Some(name) = shard.and_then(|shard| names.name_of(&shard.primary_id)) else { continue };
                shards.extend(part.hosts.iter().map(|seen| (seen.target.name.clone(), name.clone())));
            }
        }
    }
    shards
}
