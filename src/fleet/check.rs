//! What a backup would meet: the source of every shard, or why there is none.

use super::{CredentialsError, Definition, Fleet, PREFLIGHT_TIMEOUT};
use crate::backup::SlotRange;
use crate::cluster::{ONLY_SHARD, ShardNames};
use crate::redis::cluster::{self, MOVES};
use crate::redis::facts::Facts;
use crate::redis::rights::Lacking;
use crate::redis::source::{self, Bar, Barred, Choice};
use crate::redis::topology::Topology;
use crate::redis::{Error, Target};
use crate::store;
use futures_util::{StreamExt, stream};
use std::collections::BTreeMap;

/// Shards whose sources are asked at once.
const CHECKS_AT_ONCE: usize = 32;

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
    /// Rights that its account lacks and that a backup can do without.
    pub lacking: Option<Lacking>,
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

/// Why a cluster could not be checked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CheckError {
    /// Its password cannot be read.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// Its shards could not be named.
    #[error("the shards could not be named: {0}")]
    Names(#[from] store::Error),
}

impl Fleet {
    /// Looks at every host of a cluster and chooses a source for each shard, without starting anything. Fit hosts are asked
    /// for what only a connection can tell until one has nothing against it. Shards that are new are given their names.
    ///
    /// # Errors
    ///
    /// [`CheckError`].
    pub async fn check(&self, definition: &Definition) -> Result<Check, CheckError> {
        let topology = definition.look(PREFLIGHT_TIMEOUT).await?;
        let mut barred: Vec<Barred> = Vec::new();
        if topology.hosts.is_empty() {
            barred.extend(topology.trouble.iter().map(source::barred_by));
        }
        if let Some(layout) = &topology.layout {
            let remedy = if layout.clusters > 1 { "list the nodes of one cluster only" } else { "look at CLUSTER INFO and CLUSTER NODES" };
            let bar = if layout.clusters > 1 { Bar::Role } else { Bar::Topology };
            barred.extend(layout.fault().map(|reason| Barred { host: String::new(), bar, reason, remedy: remedy.to_owned() }));
        }
        // What is no whole cluster gets no names: they stay for good.
        let names = if barred.is_empty() { self.names_of(&definition.id, &topology).await? } else { self.known_names(&definition.id) };
        let parts = topology.shards();
        let mut checks = Vec::with_capacity(parts.len());
        for (shard, part) in &parts {
            checks.push(check_shard(definition, shard.as_ref(), part, &names));
        }
        let shards = stream::iter(checks).buffered(CHECKS_AT_ONCE).collect().await;
        Ok(Check { topology, shards, barred })
    }

    /// Who owns which slots, by the names of the shards, and what stands against the whole; nothing outside of cluster mode.
    ///
    /// # Errors
    ///
    /// [`CheckError`].
    pub async fn slots(&self, definition: &Definition) -> Result<Option<Slots>, CheckError> {
        let topology = definition.look(PREFLIGHT_TIMEOUT).await?;
        let Some(layout) = &topology.layout else { return Ok(None) };
        let names = self.names_of(&definition.id, &topology).await?;
        let owned = layout.shards.iter().map(|shard| (names.name_of(&shard.primary_id).unwrap_or_default(), shard.slots.clone())).collect();
        let moves = layout.shards.iter().flat_map(|shard| &shard.moves).take(MOVES).cloned().collect();
        Ok(Some(Slots { owned, moves, fault: layout.fault() }))
    }
}

/// Who owns which slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slots {
    /// Slots by the name of the shard.
    pub owned: BTreeMap<String, Vec<SlotRange>>,
    /// Slots on their way, in words.
    pub moves: Vec<String>,
    /// Why the slots are not covered once.
    pub fault: Option<String>,
}

async fn check_shard(definition: &Definition, shard: Option<&cluster::Shard>, topology: &Topology, names: &ShardNames) -> ShardCheck {
    let Choice { fit, barred } = source::choose(topology, &definition.rules());
    let (mut source, mut lacking, mut objections) = (None, None, Vec::new());
    for (target, facts) in fit {
        match source::inspect(&target, &facts).await {
            Ok(answer) => {
                lacking = Some(answer);
                source = Some((target, facts));
                break;
            }
            Err(objection) => objections.push((target.name.clone(), objection)),
        }
    }
    ShardCheck {
        name: match shard {
            Some(shard) => names.name_of(&shard.primary_id).unwrap_or_default(),
            None => ONLY_SHARD.to_owned(),
        },
        slots: shard.map(|shard| shard.slots.clone()).unwrap_or_default(),
        hosts: topology.hosts.iter().map(|seen| seen.target.name.clone()).collect(),
        moves: shard.map(|shard| shard.moves.clone()).unwrap_or_default(),
        has_replicas: topology.has_replicas(),
        source,
        lacking,
        barred,
        objections,
    }
}
