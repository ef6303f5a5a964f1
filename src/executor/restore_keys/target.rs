//! The servers that take the keys, and whether they can: all of it is asked before anything is written.

use super::so_far;
use super::survey::Survey;
use crate::backup::{Backup, Shard};
use crate::cluster::{ClusterId, Role};
use crate::executor::attempt::{Context, End};
use crate::executor::restore::{dial, failed};
use crate::failure::{Failure, Reason};
use crate::fleet::PREFLIGHT_TIMEOUT;
use crate::operation::{Place, RestoreTarget};
use crate::redis::connection::{Connection, Reply};
use crate::redis::engines::{Brand, Engine, Need, Version, needed};
use crate::redis::facts::{self, Facts};
use crate::redis::keys::{Nodes, payload_bytes};
use crate::redis::topology::{Start, Topology, ask};
use crate::redis::{Error, Target};
use crate::restore;
use std::path::PathBuf;

/// Longest argument that servers take where they do not tell: their default of `proto-max-bulk-len`, in bytes.
const BULK_BYTES: u64 = 512 * 1024 * 1024;

/// The servers.
pub(super) struct Goal {
    pub(super) nodes: Nodes,
    /// Those that take writes, with what they say of themselves.
    primaries: Vec<(Target, Facts)>,
}

/// Finds the servers.
pub(super) async fn find(context: &Context, target: &RestoreTarget) -> Result<Goal, End> {
    let told = |error: &Error| told(context, error);
    match &target.place {
        Place::Cluster(id) => cluster(context, &look(context, id).await?),
        Place::Host { cluster_id, host_name } => {
            let topology = look(context, cluster_id).await?;
            let host = topology.hosts.iter().find(|seen| seen.target.name == *host_name);
            let host = host.ok_or_else(|| refused(format!("cluster {cluster_id} has no host {host_name}")))?;
            match &host.facts {
                Ok(facts) if facts.cluster_mode => cluster(context, &topology),
                Ok(facts) => alone(host.target.clone(), facts.clone()),
                Err(error) => Err(told(error)),
            }
        }
        Place::Address(_) => {
            let (server, _) = dial(context, target).await?;
            let facts = ask(&server, PREFLIGHT_TIMEOUT).await.map_err(|error| told(&error))?;
            if !facts.cluster_mode {
                return alone(server, facts);
            }
            let start = Start {
                nodes: vec![server.address],
                credentials: server.credentials,
                tls: server.tls,
                // The others of its cluster get the credentials where it could have been named itself.
                allowed: context.inner.options.restore.allow.clone(),
                ..Start::default()
            };
            cluster(context, &Topology::discover(&start, PREFLIGHT_TIMEOUT).await)
        }
    }
}

/// What a failure of a server means before anything is written by this attempt.
fn told(context: &Context, error: &Error) -> End {
    failed(context, &restore::Error::Target(error.clone()), &so_far(context))
}

async fn look(context: &Context, id: &ClusterId) -> Result<Topology, End> {
    let gone = || End::Failed(Failure::new(Reason::Gone, format!("cluster {id} is not known any more")));
    let definition = context.inner.fleet.get(id).ok_or_else(gone)?;
    let mut topology = definition.look(PREFLIGHT_TIMEOUT).await.map_err(|fault| End::Failed(Failure::new(Reason::TargetCredentials, fault.to_string())))?;
    if let (Some(trouble), true) = (topology.trouble.pop(), topology.hosts.is_empty()) {
        return Err(told(context, &trouble));
    }
    Ok(topology)
}

/// A server that stands alone, or with replicas of its own: they follow it.
fn alone(target: Target, facts: Facts) -> Result<Goal, End> {
    if facts.role != Role::Primary {
        return Err(refused(format!("{} is a replica: what is written to it would be lost; restore into its primary", target.name)));
    }
    let nodes = Nodes { targets: vec![target.clone()], primaries: vec![0], ..Nodes::default() };
    Ok(Goal { nodes, primaries: vec![(target, facts)] })
}

/// All that takes writes of a cluster, in cluster mode or not.
fn cluster(context: &Context, topology: &Topology) -> Result<Goal, End> {
    let told = |error: &Error| told(context, error);
    let silent = |topology: &Topology| {
        let error = topology.hosts.iter().find_map(|seen| seen.facts.as_ref().err().cloned());
        let skipped = topology.skipped.first().map(|skipped| format!("{} was not asked: {}", skipped.address, skipped.reason));
        let host = topology.known_primary.as_ref().map_or_else(|| "the target".to_owned(), ToString::to_string);
        error.unwrap_or(Error::NotReady { host, what: skipped.unwrap_or_else(|| "no primary of it answers".to_owned()) })
    };
    let Some(layout) = &topology.layout else {
        let Some((seen, facts)) = topology.primary() else { return Err(told(&silent(topology))) };
        return alone(seen.target.clone(), facts.clone());
    };
    if let Some(what) = layout.fault() {
        return Err(told(&Error::NotReady { host: "the target".to_owned(), what }));
    }
    let mut goal = Goal { nodes: Nodes::default(), primaries: Vec::new() };
    goal.nodes.targets = topology.hosts.iter().map(|seen| seen.target.clone()).collect();
    for seen in &topology.hosts {
        // A host may announce another address than the one by which it is reached.
        if let Some(announced) = seen.id().and_then(|id| layout.addresses.get(id)).filter(|announced| **announced != seen.target.address) {
            goal.nodes.address_map.insert(announced.clone(), seen.target.address.clone());
        }
    }
    for (shard, hosts) in topology.shards() {
        let (Some(shard), Some((seen, facts))) = (shard, hosts.primary()) else { return Err(told(&silent(&hosts))) };
        let place = goal.nodes.targets.iter().position(|target| target.address == seen.target.address);
        let place = place.ok_or_else(|| told(&silent(&hosts)))?;
        goal.nodes.primaries.push(place);
        goal.nodes.slots.extend(shard.slots.iter().map(|slots| (slots.first..slots.last + 1, place)));
        goal.primaries.push((seen.target.clone(), facts.clone()));
    }
    Ok(goal)
}

impl Goal {
    /// Holds what the servers are against what the dumps of these shards need.
    pub(super) fn check_versions(&self, context: &Context, row: &Backup, shards: &[&Shard]) -> Result<(), End> {
        for (target, facts) in &self.primaries {
            if facts.loading {
                return Err(told(context, &Error::NotReady { host: target.name.clone(), what: "it is loading its data".to_owned() }));
            }
            let brand = match facts.engine {
                facts::Engine::Redis => Brand::Redis,
                facts::Engine::Valkey => Brand::Valkey,
                facts::Engine::Other => return Err(refused(format!("{} is neither Redis nor Valkey", target.name))),
            };
            let facts::Version(major, minor, patch) = facts.version;
            let version = Version(major.into(), minor.into(), patch.into());
            let engine = Engine { program: PathBuf::new(), brand, version };
            for shard in shards {
                let need = Need { minimum: shard.minimum.clone(), engine: shard.engine.clone(), version: shard.engine_version.clone() };
                if !engine.fits(&need) {
                    let what = format!("{} is {engine}, and backup {} needs {}; {}", target.name, row.id, needed(&need), so_far(context));
                    return Err(End::Failed(Failure::new(Reason::TargetVersion, what)));
                }
            }
        }
        Ok(())
    }

    /// Asks every server whether it has the databases and takes the longest value.
    pub(super) async fn check_room(&self, context: &Context, survey: &[Survey]) -> Result<(), End> {
        let told = |error: &Error| told(context, error);
        let highest = survey.iter().map(|survey| survey.highest_database).max().unwrap_or(0);
        let (longest, database) = survey.iter().map(|survey| survey.longest).max().unwrap_or((0, 0));
        for (target, _) in &self.primaries {
            let mut connection = Connection::open(target).await.map_err(|error| told(&error))?;
            if highest > 0
                && let Reply::Error(_) = connection.command(&[b"SELECT", highest.to_string().as_bytes()]).await.map_err(|error| told(&error))?
            {
                return Err(refused(format!(
                    "{} has no database {highest}, of which the backup has keys; leave it out by naming the databases that are meant; {}",
                    target.name,
                    so_far(context)
                )));
            }
            let limit = bulk_limit(&mut connection).await.map_err(|error| told(&error))?;
            if payload_bytes(longest) > limit {
                return Err(refused(format!(
                    "a value in database {database} has {longest} bytes, and {} takes none of more than {limit} (proto-max-bulk-len); {}",
                    target.name,
                    so_far(context)
                )));
            }
        }
        Ok(())
    }
}

/// Longest argument that a server takes, in bytes.
async fn bulk_limit(connection: &mut Connection) -> Result<u64, Error> {
    let reply = connection.command(&[b"CONFIG", b"GET", b"proto-max-bulk-len"]).await?;
    let told = reply.elements().get(1).and_then(Reply::text).and_then(|text| text.parse().ok());
    Ok(told.unwrap_or(BULK_BYTES))
}

/// What stands against the target, and will not pass.
pub(super) fn refused(what: String) -> End {
    End::Failed(Failure::new(Reason::TargetRefused, what))
}
