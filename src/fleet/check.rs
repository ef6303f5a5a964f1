//! What a backup would meet: the source of every shard, or why there is none.

use super::{CredentialsError, Definition, Fleet, PREFLIGHT_TIMEOUT};
use crate::backup::SlotRange;
use crate::cluster::ONLY_SHARD;
use crate::redis::facts::Facts;
use crate::redis::source::{self, Barred, Choice};
use crate::redis::topology::Topology;
use crate::redis::{Error, Target};

/// What a check of a cluster found.
#[derive(Clone, Debug)]
pub struct Check {
    /// What was seen.
    pub topology: Topology,
    /// Its shards, in order of their slots; the only one outside of cluster mode.
    pub shards: Vec<ShardCheck>,
    /// What stands against a backup of the whole, whatever its hosts are.
    pub barred: Vec<Barred>,
}

/// What a check found of one shard.
#[derive(Clone, Debug)]
pub struct ShardCheck {
    /// Its name.
    pub name: String,
    /// Slots that it owns; empty outside of cluster mode.
    pub slots: Vec<SlotRange>,
    /// Names of its hosts.
    pub hosts: Vec<String>,
    /// Slots that are on their way, in words.
    pub moves: Vec<String>,
    /// Whether it has, or is to have, replicas.
    pub has_replicas: bool,
    /// The source, if there is one: the best of the fit hosts against which nothing else stands.
    pub source: Option<(Target, Facts)>,
    /// Why hosts are not fit.
    pub barred: Vec<Barred>,
    /// What stands against hosts although their facts are good, in the order of their fitness: a missing right, Sentinel.
    pub objections: Vec<(String, Error)>,
}

impl Check {
    /// Whether a backup could be taken.
    pub fn is_ready(&self) -> bool {
        self.barred.is_empty() && !self.shards.is_empty() && self.shards.iter().all(|shard| shard.source.is_some())
    }

    /// The shard of a host; empty when it belongs to none.
    pub fn shard_of(&self, host: &str) -> &str {
        self.shards.iter().find(|shard| shard.hosts.iter().any(|name| name == host)).map(|shard| shard.name.as_str()).unwrap_or_default()
    }
}

impl Fleet {
    /// Looks at every host of a cluster and chooses a source for each shard, without starting anything. Fit hosts are asked
    /// for what only a connection can tell until one has nothing against it.
    ///
    /// # Errors
    ///
    /// [`CredentialsError`].
    pub async fn check(&self, definition: &Definition) -> Result<Check, CredentialsError> {
        let topology = definition.look(PREFLIGHT_TIMEOUT).await?;
        let shard = check_shard(definition, ONLY_SHARD, &topology).await;
        Ok(Check { topology, shards: vec![shard], barred: Vec::new() })
    }
}

async fn check_shard(definition: &Definition, name: &str, topology: &Topology) -> ShardCheck {
    let Choice { fit, barred } = source::choose(topology, &definition.rules());
    let (mut source, mut objections) = (None, Vec::new());
    for (target, facts) in fit {
        match source::inspect(&target, &facts).await {
            Ok(()) => {
                source = Some((target, facts));
                break;
            }
            Err(objection) => objections.push((target.name.clone(), objection)),
        }
    }
    let hosts = topology.hosts.iter().map(|seen| seen.target.name.clone()).collect();
    ShardCheck { name: name.to_owned(), slots: Vec::new(), hosts, moves: Vec::new(), has_replicas: topology.has_replicas(), source, barred, objections }
}
