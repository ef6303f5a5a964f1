//! Restoring a backup to a cluster of its own on this machine, told top to bottom: PREFLIGHT, LOAD, WORK; and deleting such a
//! cluster.
//!
//! ```text
//! PREFLIGHT  the folder is made, a server program chosen, every dump verified while it is written where its server finds it
//! LOAD       ports are chosen and recorded; primaries start and load, keys are counted, replicas follow
//! WORK       the cluster is looked at and recorded: it is like any other from here on
//! ```
//!
//! Every attempt begins anew. What one that failed, was cancelled or died leaves behind goes: at once what runs, by the next
//! attempt or by whoever [tends](super::tend) the clusters what lies on disk.

use super::attempt::{Context, End};
use super::stored::{self, Stored};
use super::{Caller, Executor, Refused, fault};
use crate::artifacts::manifest::ShardManifest;
use crate::backup::{Backup, Labels, Minimum, Shard};
use crate::cluster::policy::Plan;
use crate::cluster::{Adopted, ClusterId, Connection, FolderId, LocalHost, LocalServers};
use crate::failure::{Failure, Reason};
use crate::fleet::{Definition, PREFLIGHT_TIMEOUT};
use crate::local::{self, Layout, Provider, ShardLayout, node_id};
use crate::operation::{ClusterPlan, Door, Fault, HostPlan, Operation, Outcome, Response, ShardProgress, Spec, Step};
use crate::rdb::SlotSet;
use crate::redis::Password;
use crate::redis::cluster::SLOTS;
use crate::redis::engines::{self, Brand, Engine, Need, Version};
use crate::redis::machine;
use crate::snapshot::Meter;
use crate::store::{self, Completion};
use crate::telemetry::{crash_point, hang_point};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Room that is left free on the disk of the clusters, in bytes.
const ROOM_BYTES: u64 = 64 << 20;

/// A cluster that is to be made of a backup.
#[derive(Clone, Debug)]
pub struct Restoration {
    /// The backup.
    pub source: Backup,
    /// Folder of the cluster.
    pub folder_id: FolderId,
    /// Its name, which becomes its identifier where it can be one that is free.
    pub name: String,
    /// For a person.
    pub description: String,
    /// Labels.
    pub labels: Labels,
    /// Version that is wanted; any that fits when it is empty.
    pub version: Wanted,
    /// Its servers; an empty name of a shard is any that has the fewest so far. None means one for each shard.
    pub hosts: Vec<HostPlan>,
    /// Whether they are to keep a log of changes on disk.
    pub persistent: bool,
}

/// A version of a server program that is wanted: `7.2`, or with the kind behind it, `8.0-valkey`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    text: String,
    version: Option<(u32, u32)>,
    brand: Option<Brand>,
}

/// The text is no version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a version such as `7.2`, also as `7.2-redis` or `8.0-valkey`; any that fits when it is empty")]
pub struct BadVersion;

impl std::str::FromStr for Wanted {
    type Err = BadVersion;

    fn from_str(text: &str) -> Result<Self, BadVersion> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let (version, brand) = match text.split_once('-') {
            None => (text, None),
            Some((version, "redis")) => (version, Some(Brand::Redis)),
            Some((version, "valkey")) => (version, Some(Brand::Valkey)),
            Some(_) => return Err(BadVersion),
        };
        let (major, minor) = version.split_once('.').ok_or(BadVersion)?;
        let number = |text: &str| text.parse::<u32>().ok().filter(|_| text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit())).ok_or(BadVersion);
        Ok(Self { text: text.to_owned(), version: Some((number(major)?, number(minor)?)), brand })
    }
}

impl Wanted {
    fn is(&self, engine: &Engine) -> bool {
        let Version(major, minor, _) = engine.version;
        self.version.is_none_or(|version| version == (major, minor)) && self.brand.is_none_or(|brand| brand == engine.brand)
    }
}

/// Gives each server its shard, in order of the shards.
///
/// # Errors
///
/// What cannot be, in words.
fn hosts(shards: &[Shard], wanted: &[HostPlan]) -> Result<Vec<HostPlan>, String> {
    let mut names: Vec<&str> = shards.iter().map(|shard| shard.name.as_str()).collect();
    // By their numbers: shard2 before shard10.
    names.sort_by_key(|name| (name.len(), *name));
    let mut given: Vec<(&str, Vec<String>)> = names.iter().map(|name| (*name, Vec::new())).collect();
    if wanted.is_empty() {
        return Ok(names.iter().map(|name| HostPlan { shard_name: (*name).to_owned(), zone: String::new() }).collect());
    }
    for host in wanted.iter().filter(|host| !host.shard_name.is_empty()) {
        let Some((_, zones)) = given.iter_mut().find(|(name, _)| *name == host.shard_name) else {
            return Err(format!(
                "name shard {}, which the backup does not have: it has {}; its shards stay as they are, and a restore by key puts them into any others",
                host.shard_name,
                names.join(", ")
            ));
        };
        zones.push(host.zone.clone());
    }
    for host in wanted.iter().filter(|host| host.shard_name.is_empty()) {
        if let Some((_, zones)) = given.iter_mut().min_by_key(|(_, zones)| zones.len()) {
            zones.push(host.zone.clone());
        }
    }
    if let Some((name, _)) = given.iter().find(|(_, zones)| zones.is_empty()) {
        return Err(format!(
            "leave shard {name} without a host: the backup has {} shards, which stay as they are; a restore by key puts them into fewer",
            names.len()
        ));
    }
    let plans = given.into_iter().flat_map(|(name, zones)| zones.into_iter().map(move |zone| HostPlan { shard_name: name.to_owned(), zone }));
    Ok(plans.collect())
}

/// Whether the shards of a backup make one cluster: a single one, or slots that cover all of them once.
fn makes_cluster(shards: &[Shard]) -> bool {
    let ranges = || shards.iter().flat_map(|shard| &shard.slots).map(|range| (range.first, range.last));
    match shards {
        [] => false,
        [only] if only.slots.is_empty() => true,
        _ => {
            let count: usize = ranges().map(|(first, last)| usize::from(last.saturating_sub(first)) + 1).sum();
            shards.iter().all(|shard| !shard.slots.is_empty()) && count == usize::from(SLOTS) && SlotSet::from_ranges(ranges()).len() == usize::from(SLOTS)
        }
    }
}

impl Executor {
    /// Whether clusters can be restored on this machine.
    pub fn has_local(&self) -> bool {
        self.0.local.is_some()
    }

    /// Accepts that a backup becomes a cluster of its own on this machine, which is known from here on. Durable on return; the
    /// work begins after it.
    ///
    /// # Errors
    ///
    /// [`Refused`], by condition.
    pub async fn restore_cluster(&self, restoration: Restoration, caller: Caller) -> Result<Operation, Refused> {
        let provider = self.0.local.as_ref().ok_or(Refused::NoLocal)?;
        if !makes_cluster(&restoration.source.shards) {
            return Err(Refused::Shards(restoration.source.shards.len()));
        }
        let hosts = hosts(&restoration.source.shards, &restoration.hosts).map_err(Refused::Hosts)?;
        // The name is its identifier, too, where nobody else has that; what is taken meanwhile is made up.
        let named = restoration.name.parse::<ClusterId>().ok().filter(|id| self.0.fleet.get(id).is_none());
        if let Some(id) = named {
            match self.accept_restore(provider, id, &restoration, &hosts, &caller).await {
                Err(Refused::Store(store::Error::ClusterTaken(_))) => {}
                accepted => return accepted,
            }
        }
        self.accept_restore(provider, ClusterId::made_up(), &restoration, &hosts, &caller).await
    }

    async fn accept_restore(
        &self,
        provider: &Provider,
        id: ClusterId,
        restoration: &Restoration,
        hosts: &[HostPlan],
        caller: &Caller,
    ) -> Result<Operation, Refused> {
        let Restoration { source, folder_id, name, description, labels, version, persistent, .. } = restoration;
        let plan = ClusterPlan { source: source.id, version: version.text.clone(), hosts: hosts.to_vec(), persistent: *persistent };
        let operation = self.operation(folder_id.clone(), id.clone(), None, Door::Managed, Spec::RestoreCluster(Box::new(plan)), caller);
        let row = Adopted {
            id: id.clone(),
            folder_id: folder_id.clone(),
            name: name.clone(),
            description: description.clone(),
            labels: labels.clone(),
            zone: None,
            created_at: operation.created_at,
            allow_primary: false,
            connection: Connection { nodes: Vec::new(), username: None, password: None, trust: None },
            is_adopting: true,
            plan: Plan::default(),
            local: Some(servers(provider, &id, hosts, *persistent)),
        };
        self.submit_cluster(operation, Some(row), caller.clone()).await
    }

    /// Accepts that a cluster on this machine is deleted with its servers; its backups and operations stay. Durable on return;
    /// the work begins after it.
    ///
    /// # Errors
    ///
    /// [`Refused`], by condition.
    pub async fn delete_cluster(&self, cluster: &Definition, caller: Caller) -> Result<Operation, Refused> {
        if cluster.local.is_none() {
            return Err(Refused::Elsewhere(cluster.id.clone()));
        }
        if self.0.local.is_none() {
            return Err(Refused::NoLocal);
        }
        let operation = self.operation(cluster.folder_id.clone(), cluster.id.clone(), None, Door::Managed, Spec::DeleteCluster, &caller);
        self.submit_cluster(operation, None, caller).await
    }
}

/// The servers of a plan, before anything is known of them but their shards.
fn servers(provider: &Provider, id: &ClusterId, hosts: &[HostPlan], persistent: bool) -> LocalServers {
    let mut numbered: Vec<LocalHost> = Vec::with_capacity(hosts.len());
    for host in hosts {
        let before = numbered.iter().filter(|other| other.shard_name == host.shard_name).count();
        numbered.push(LocalHost { shard_name: host.shard_name.clone(), number: u32::try_from(before + 1).unwrap_or(u32::MAX), port: 0 });
    }
    LocalServers {
        folder: provider.home(id).to_string_lossy().into_owned(),
        program: String::new(),
        engine: String::new(),
        version: String::new(),
        persistent,
        hosts: numbered,
    }
}

/// Kills what was started of a cluster unless it is told that all is well, whatever ends the work.
struct Unfinished<'a> {
    provider: &'a Provider,
    id: &'a ClusterId,
    is_well: bool,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if !self.is_well {
            self.provider.kill(self.id);
        }
    }
}

pub(super) async fn run(context: &Context, plan: &ClusterPlan) -> End {
    match attempt(context, plan).await {
        Ok(end) | Err(end) => end,
    }
}

async fn attempt(context: &Context, plan: &ClusterPlan) -> Result<End, End> {
    let provider = provider(context)?;
    let id = &context.operation.cluster_id;
    let mut unfinished = Unfinished { provider, id, is_well: false };

    context.wait_for("what lies in the folder of the cluster to go");
    let password = provider.begin(&provider.turn().await, id).await.map_err(|error| failed(context, &error))?;
    crash_point("restore_cluster.begun");
    context.wait_for("");
    let source = stored::read(context, plan.source).await?;
    let engine = engine(context, plan, &source).await?;
    let row = context.inner.store.cluster(id).await?;
    let mut servers = row.local.ok_or_else(|| End::Failed(Failure::new(Reason::Internal, "the record of the cluster names no servers")))?;
    servers.program = engine.program.to_string_lossy().into_owned();
    servers.engine = engine.brand.as_str().to_owned();
    servers.version = engine.version.to_string();
    check_room(provider, &source, &servers)?;
    for shard in &source.manifest.shards {
        write(context, provider, &source, shard, &servers).await?;
    }
    crash_point("restore_cluster.written");

    context.step(Step::Load, None).await?;
    let layout = layout(context, &source);
    place(context, provider, &mut servers, &layout).await?;
    crash_point("restore_cluster.recorded");
    provider.set_up(id, &servers, &layout, &password).map_err(|error| failed(context, &error))?;
    load(context, provider, &servers, &layout, &source, &password).await?;
    replicate(context, provider, &servers, &layout, &password).await?;
    context.wait_for("");
    crash_point("restore_cluster.loaded");
    hang_point("restore_cluster.loaded").await;

    context.step(Step::Work, None).await?;
    let row = context.inner.store.cluster(id).await?;
    let definition = Definition::adopted(&Adopted { is_adopting: false, ..row }, context.inner.fleet.key());
    let definition = definition.map_err(|fault| End::Failed(Failure::new(Reason::Internal, format!("the record of the cluster cannot be used: {fault}"))))?;
    let topology = definition.look(PREFLIGHT_TIMEOUT).await;
    let topology = topology.map_err(|fault| End::Failed(Failure::new(Reason::Internal, fault.to_string())))?;
    let view = context.inner.fleet.shown(&definition, &topology).await;
    crash_point("restore_cluster.shown");
    unfinished.is_well = true;
    Ok(done(Response::Cluster(Box::new(view))))
}

pub(super) async fn delete(context: &Context) -> End {
    match try_delete(context).await {
        Ok(end) | Err(end) => end,
    }
}

async fn try_delete(context: &Context) -> Result<End, End> {
    let provider = provider(context)?;
    let id = &context.operation.cluster_id;
    let row = context.inner.store.cluster(id).await?;
    if !row.local.is_some_and(|servers| provider.holds(id, &servers)) {
        let what = "the servers of the cluster lie below another folder than [local] root names; name that one, and delete the cluster again";
        return Err(End::Failed(Failure::new(Reason::LocalServer, what)));
    }
    let turn = provider.turn().await;
    provider.leave(id);
    crash_point("delete_cluster.begun");
    provider.clear(&turn, id).await.map_err(|error| failed(context, &error))?;
    crash_point("delete_cluster.cleared");
    Ok(done(Response::Empty))
}

fn done(response: Response) -> End {
    End::Done(Box::new(Completion { outcome: Outcome::Succeeded(response), backup: None }))
}

/// The clusters on this machine: the configuration may have changed since the acceptance.
fn provider(context: &Context) -> Result<&Provider, End> {
    context.inner.local.as_deref().ok_or_else(|| End::Failed(Failure::new(Reason::LocalServer, Refused::NoLocal.to_string())))
}

/// What a failure of servers on this machine means.
fn failed(context: &Context, error: &local::Error) -> End {
    let wait = fault::backoff(&context.operation);
    let reason = if error.is_full() { Reason::LocalRoom } else { Reason::LocalServer };
    let failure = Failure::new(reason, error.to_string());
    match error {
        local::Error::File { .. } | local::Error::Process(_) => End::Retry { fault: Fault::Storage, failure, wait },
        local::Error::Foreign(_) => End::Failed(failure),
        local::Error::Ports(_) => End::Failed(Failure::new(Reason::LocalRoom, format!("{error}; delete a cluster of this machine, or give it more"))),
        local::Error::Ended(_) | local::Error::Stalled { .. } | local::Error::Server(_) => End::Retry { fault: Fault::Source, failure, wait },
    }
}

/// Chooses the server program, and refuses what none of this machine can load.
async fn engine(context: &Context, plan: &ClusterPlan, source: &Stored) -> Result<Engine, End> {
    let refused = |what: String| End::Failed(Failure::new(Reason::NoEngine, what));
    let need = need(source);
    let modules: &[String] = need.minimum.as_ref().map_or(&[], |minimum| &minimum.modules);
    if !modules.is_empty() {
        return Err(refused(format!("the dump needs the modules {}, which servers of this machine are not started with", modules.join(", "))));
    }
    let wanted: Wanted = plan.version.parse().map_err(|fault: BadVersion| refused(format!("the version {fault}")))?;
    let all = engines::find(&context.inner.options.engines).await;
    let engines: Vec<Engine> = all.iter().filter(|engine| engine.version >= local::LEAST && wanted.is(engine)).cloned().collect();
    if engines.is_empty() && !all.is_empty() {
        let found = all.iter().map(Engine::to_string).collect::<Vec<_>>().join(", ");
        let what = if wanted.text.is_empty() { "6.2 or later".to_owned() } else { format!("of version {}", wanted.text) };
        return Err(refused(format!("no server program of this machine is {what}; found: {found}; name others under [engines] programs")));
    }
    engines::choose(&engines, &need).cloned().map_err(refused)
}

/// What all dumps of a backup need together.
fn need(source: &Stored) -> Need {
    let mut minimums = source.row.shards.iter().map(|shard| shard.minimum.clone());
    let first = minimums.next().flatten();
    let minimum = minimums.fold(first, |all, next| Some(Minimum::joined(all?, next?)));
    let newest = source.row.shards.iter().max_by_key(|shard| Version::read(&shard.engine_version));
    Need {
        minimum,
        engine: newest.map(|shard| shard.engine.clone()).unwrap_or_default(),
        version: newest.map(|shard| shard.engine_version.clone()).unwrap_or_default(),
    }
}

/// Refuses what the disk or the memory of this machine has no room for, as far as both are told.
fn check_room(provider: &Provider, source: &Stored, servers: &LocalServers) -> Result<(), End> {
    let refused = |what: String| End::Failed(Failure::new(Reason::LocalRoom, what));
    let (mut disk, mut memory) = (ROOM_BYTES, 0_u64);
    for shard in &source.row.shards {
        let hosts = servers.hosts.iter().filter(|host| host.shard_name == shard.name).count() as u64;
        // A dump on its way to a replica, or a log of changes that is written anew, lies beside what was there.
        disk = disk.saturating_add(shard.size_bytes.saturating_mul(2).saturating_mul(hosts));
        memory = memory.saturating_add(shard.used_memory_bytes.saturating_mul(hosts));
        if let Some(limit) = provider.options().memory_limit.filter(|limit| *limit < shard.used_memory_bytes) {
            let used = shard.used_memory_bytes;
            return Err(refused(format!("{} had {used} bytes of memory in use, and [local] memory_limit is {limit} bytes", shard.name)));
        }
    }
    if let Some(free) = provider.free_bytes().filter(|free| *free < disk) {
        return Err(refused(format!("the servers need {disk} bytes of disk below [local] root, and {free} bytes are free")));
    }
    if let Some(free) = machine::available_memory().filter(|free| *free < memory) {
        return Err(refused(format!("the servers need {memory} bytes of memory, and this machine has {free} bytes available")));
    }
    Ok(())
}

/// Writes the dump of a shard where its primary loads it, verified to its last byte.
async fn write(context: &Context, provider: &Provider, source: &Stored, shard: &ShardManifest, servers: &LocalServers) -> Result<(), End> {
    let meter = Arc::new(Meter::default());
    meter.expect_bytes(shard.size_bytes);
    let keys = source.row.shards.iter().find(|row| row.name == shard.name).map_or(0, |row| row.keys);
    context.track(ShardProgress { shard_name: shard.name.clone(), keys_expected: keys, ..ShardProgress::default() }, Arc::clone(&meter));
    let primary = primary(servers, &shard.name)?;
    let mut dump = context.inner.storage.dump(&source.folder, shard).map_err(|error| fault::stored(&context.operation, &error))?;
    let mut file = provider.dump(&context.operation.cluster_id, primary).await.map_err(|error| failed(context, &error))?;
    let mut stored = 0;
    while let Some(piece) = dump.next().await.map_err(|error| fault::stored(&context.operation, &error))? {
        file.write(&piece).await.map_err(|error| failed(context, &error))?;
        let before = std::mem::replace(&mut stored, dump.stored_bytes());
        meter.count(piece.len() as u64, stored.saturating_sub(before));
    }
    file.finish().await.map_err(|error| failed(context, &error))
}

fn primary<'a>(servers: &'a LocalServers, shard: &str) -> Result<&'a LocalHost, End> {
    let host = servers.hosts.iter().find(|host| host.shard_name == shard && host.number == 1);
    host.ok_or_else(|| End::Failed(Failure::new(Reason::Internal, format!("the record of the cluster names no server for {shard}"))))
}

fn layout(context: &Context, source: &Stored) -> Layout {
    let mut shards: Vec<ShardLayout> = source.row.shards.iter().map(|shard| ShardLayout { name: shard.name.clone(), slots: shard.slots.clone() }).collect();
    shards.sort_by_key(|shard| (shard.name.len(), shard.name.clone()));
    let databases = source.row.shards.iter().filter_map(|shard| shard.minimum.as_ref()).map(|minimum| minimum.databases).max();
    Layout { cluster_mode: shards.iter().any(|shard| !shard.slots.is_empty()), shards, databases: databases.unwrap_or(0), seed: context.id().to_string() }
}

/// Chooses ports, and records the servers before any is started. In cluster mode the shards keep the names that they have in the
/// backup where those were given in order.
async fn place(context: &Context, provider: &Provider, servers: &mut LocalServers, layout: &Layout) -> Result<(), End> {
    let (inner, id) = (&context.inner, &context.operation.cluster_id);
    let others = inner.fleet.all().into_iter().filter(|cluster| cluster.id != *id);
    let taken: BTreeSet<u16> = others
        .filter_map(|cluster| cluster.local.clone())
        .flat_map(|local| local.hosts)
        .flat_map(|host| [host.port, host.port.saturating_add(local::BUS_OFFSET)])
        .collect();
    let ports = provider.ports(servers.hosts.len(), layout.cluster_mode, &taken).map_err(|error| failed(context, &error))?;
    for (host, port) in servers.hosts.iter_mut().zip(ports) {
        host.port = port;
    }
    if layout.cluster_mode {
        let nodes = |shard: &ShardLayout| {
            let hosts = servers.hosts.iter().filter(|host| host.shard_name == shard.name);
            hosts.map(|host| node_id(&layout.seed, host)).collect()
        };
        inner.store.name_shards(id, layout.shards.iter().map(nodes).collect()).await?;
    }
    let nodes = servers.hosts.iter().map(|host| provider.address(host).to_string()).collect();
    inner.store.record_servers(context.id(), context.epoch(), nodes, servers.clone()).await?;
    // Others leave its ports free from here on.
    let _turn = inner.cluster_changes.lock().await;
    inner.follow(id).await;
    Ok(())
}

/// Starts the primaries, and holds what they have loaded against the backup.
async fn load(context: &Context, provider: &Provider, servers: &LocalServers, layout: &Layout, source: &Stored, password: &Password) -> Result<(), End> {
    let id = &context.operation.cluster_id;
    for shard in &layout.shards {
        provider.start(id, servers, primary(servers, &shard.name)?).map_err(|error| failed(context, &error))?;
    }
    crash_point("restore_cluster.started");
    for row in &source.row.shards {
        let host = primary(servers, &row.name)?;
        let target = provider.target(host, password);
        let told = |percent: u64| context.wait_for(&format!("{} to load: {percent} %", provider.address(host)));
        told(0);
        let loaded = local::loaded(&target, &|| provider.runs(id, host), &told).await.map_err(|error| failed(context, &error))?;
        compare(context, row, loaded)?;
        let shard = ShardProgress { shard_name: row.name.clone(), host_name: target.name.clone(), keys_expected: row.keys, ..ShardProgress::default() };
        context.retrack(shard);
        if servers.persistent {
            context.wait_for(&format!("the log of changes of {}", target.name));
            local::log_changes(&target, &|| provider.runs(id, host)).await.map_err(|error| failed(context, &error))?;
        }
        provider.settle(id, servers, host, layout, password).map_err(|error| failed(context, &error))?;
    }
    Ok(())
}

/// Holds what a server has loaded against the backup: keys whose time is over are left out at a load. Those that lay outside of
/// their shard's slots stay where they were; a server may also leave them out.
fn compare(context: &Context, row: &Shard, loaded: local::Loaded) -> Result<(), End> {
    let expired = loaded.expired.unwrap_or(row.expiring).min(row.expiring);
    let least = row.keys.saturating_sub(expired).saturating_sub(row.stray_keys);
    if loaded.keys > row.keys || loaded.keys < least {
        let what = format!("the server of {} has loaded {} keys, of {} in the backup of which {} expire", row.name, loaded.keys, row.keys, row.expiring);
        return Err(End::Failed(Failure::new(Reason::LocalServer, what)));
    }
    if row.stray_keys > 0 {
        tracing::warn!(
            operation.id = %context.id(),
            shard = row.name,
            keys = row.stray_keys,
            "keys of the backup lie outside of the slots of their shard, because slots were on their way; they were left where they were"
        );
    }
    Ok(())
}

/// Starts the replicas, and waits until every server is what it is to be.
async fn replicate(context: &Context, provider: &Provider, servers: &LocalServers, layout: &Layout, password: &Password) -> Result<(), End> {
    let id = &context.operation.cluster_id;
    let replicas = || servers.hosts.iter().filter(|host| host.number > 1);
    for host in replicas() {
        provider.start(id, servers, host).map_err(|error| failed(context, &error))?;
    }
    crash_point("restore_cluster.replicas");
    for host in replicas() {
        context.wait_for(&format!("{} to follow its primary", provider.address(host)));
        local::linked(&provider.target(host, password), &|| provider.runs(id, host)).await.map_err(|error| failed(context, &error))?;
    }
    if layout.cluster_mode {
        for host in &servers.hosts {
            context.wait_for(&format!("{} to find its cluster whole", provider.address(host)));
            let whole = local::whole(&provider.target(host, password), &|| provider.runs(id, host), servers.hosts.len()).await;
            whole.map_err(|error| failed(context, &error))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn versions_are_wanted_with_or_without_a_kind() {
        let engine = |brand, version| Engine { program: PathBuf::new(), brand, version };
        let (redis, valkey) = (engine(Brand::Redis, Version(7, 2, 4)), engine(Brand::Valkey, Version(7, 2, 9)));
        for (text, is_redis, is_valkey) in
            [("", true, true), ("7.2", true, true), ("7.2-redis", true, false), ("7.2-valkey", false, true), ("8.0", false, false), ("7.20", false, false)]
        {
            let wanted: Wanted = text.parse().unwrap();
            assert_eq!((wanted.is(&redis), wanted.is(&valkey)), (is_redis, is_valkey), "{text}");
        }
        for bad in ["7", "7.", ".2", "7.2.4", "7.x", "7.2-keydb", "-valkey", "7.2-", "99999.1", "7.+2"] {
            assert_eq!(bad.parse::<Wanted>(), Err(BadVersion), "{bad}");
        }
    }
}
