//! The clusters that are known, and what the last look at each of them found.
//!
//! Owns the definitions and the probes. A probe has a bound, so a dead Redis never blocks a read. Clusters of the
//! configuration stay as long as the process; adopted ones come and go, as their records in the store do. Knows nothing of
//! operations or the wire.

mod check;
mod names;

pub use check::{Check, CheckError, ShardCheck, Slots};

use crate::backup::Labels;
use crate::cluster::calendar::{self, Calendar};
use crate::cluster::policy::{Plan, Policy};
use crate::cluster::window::Windows;
use crate::cluster::{Adopted, ClusterId, Flavor, FolderId, Health, Host, LocalServers, ONLY_SHARD, Role, ShardNames, Timestamp, Trust, View};
use crate::redis::facts::Facts;
use crate::redis::sentinel;
use crate::redis::source::{self, Rules};
use crate::redis::tls::{Authorities, BadTls, Tls};
use crate::redis::topology::{Seen, Start, Topology};
use crate::redis::{Address, BadAddress, Credentials, Password};
use crate::secrets::{Key, OpenError, Sealed};
use chrono::Utc;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Longest look at a cluster for a read.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest look at one host before a snapshot, and for a check.
pub const PREFLIGHT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the result of a look serves other reads.
const FRESH: Duration = Duration::from_secs(2);

/// Longest password in a file, in bytes.
const PASSWORD_BYTES: u64 = 4096;

/// Where a password comes from. It is read anew for each look, so it can be changed without a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PasswordSource {
    /// There is none.
    #[default]
    Absent,
    /// A file; a newline at its end does not belong to the password.
    File(PathBuf),
    /// A variable of the environment.
    Environment(String),
    /// The record of an adopted cluster, sealed; the key is absent when the configuration names none.
    Sealed(Sealed, Option<Key>),
}

/// How a cluster was made known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// By the configuration: it is changed there.
    Configured,
    /// Through the API: it is changed there.
    Adopted,
}

/// A server of a cluster as it was declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where it listens.
    pub address: Address,
    /// Memory that it may use, in bytes; what it reports counts when this is absent.
    pub memory_limit: Option<u64>,
    /// Machine that it shares with others; its address counts when this is absent.
    pub failure_domain: Option<String>,
}

/// The sentinels of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentinel {
    /// The name that they have for the primary.
    pub master: String,
    /// Where they listen; any one is enough.
    pub nodes: Vec<Address>,
    /// ACL user of theirs.
    pub username: Option<String>,
    /// Their own password.
    pub password: PasswordSource,
}

/// A cluster as it was made known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its identifier.
    pub id: ClusterId,
    /// Its folder.
    pub folder_id: FolderId,
    /// Its name.
    pub name: String,
    /// For a person.
    pub description: String,
    /// Labels.
    pub labels: Labels,
    /// Zone, which only some processes may serve.
    pub zone: Option<String>,
    /// When it was made known.
    pub created_at: Timestamp,
    /// Servers; any one is enough.
    pub nodes: Vec<Node>,
    /// ACL user.
    pub username: Option<String>,
    /// Password.
    pub password: PasswordSource,
    /// How connections are secured; plain text when absent.
    pub tls: Option<Tls>,
    /// Whether a primary that has replicas may be the source.
    pub allow_primary: bool,
    /// Whether servers older than 6.2 may be the source.
    pub allow_output_buffer_risk: bool,
    /// Whether the dump is to be one that older servers can load, where the source can choose.
    pub portable_dump: bool,
    /// Networks in which discovered hosts are given the credentials; none means the networks of the nodes.
    pub discovery_allow: Vec<IpNet>,
    /// Who knows where its servers are, if sentinels do.
    pub sentinel: Option<Sentinel>,
    /// Where the addresses are reached that its servers and sentinels announce.
    pub address_map: BTreeMap<Address, Address>,
    /// How it was made known.
    pub origin: Origin,
    /// Whether its adoption is under way.
    pub is_adopting: bool,
    /// The machines of its servers; what they report of their memory counts when none is declared here.
    pub flavor: Flavor,
    /// Times of the week in which no snapshot may start.
    pub no_snapshot: Windows,
    /// When its backups are taken by themselves, by the clock of the zone of `no_snapshot`, and how long they are kept.
    pub plan: Plan,
    /// Its retention policies.
    pub policies: Vec<Policy>,
    /// Its servers, where we have started them ourselves.
    pub local: Option<LocalServers>,
}

/// The password cannot be read. The path is the configuration's own, and nothing of the content is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// The file cannot be read.
    #[error("the password file of cluster {cluster} cannot be read: {what}")]
    File {
        /// The cluster.
        cluster: ClusterId,
        /// The kind of fault.
        what: String,
    },
    /// The variable is not set.
    #[error("the variable {variable} with the password of cluster {cluster} is not set")]
    Environment {
        /// The cluster.
        cluster: ClusterId,
        /// The variable.
        variable: String,
    },
    /// The sealed password does not open.
    #[error(
        "the password of cluster {cluster} does not open: {fault}; put the key back that it was sealed with, or give the credentials anew with UpdateConnection"
    )]
    Sealed {
        /// The cluster.
        cluster: ClusterId,
        /// Why.
        fault: OpenError,
    },
    /// There is no key for the sealed password.
    #[error("the password of cluster {cluster} is sealed, and the configuration names no key for it; name the file in [secrets] key_file")]
    NoKey {
        /// The cluster.
        cluster: ClusterId,
    },
}

/// The record of an adopted cluster cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// A server's address is none.
    #[error("an address of a node {0}")]
    Node(#[from] BadAddress),
    /// Its certificates are none.
    #[error("the certificate {0}")]
    Tls(#[from] BadTls),
}

/// The words that the password of a cluster is sealed for.
pub fn purpose<'a>(cluster: &'a ClusterId, folder: &'a FolderId) -> [&'a str; 3] {
    ["password of a cluster", cluster.as_str(), folder.as_str()]
}

impl Definition {
    /// The definition that the record of an adopted cluster makes; `key` opens its password.
    ///
    /// # Errors
    ///
    /// [`BadRecord`], also when the system's authorities cannot be read.
    pub fn adopted(row: &Adopted, key: Option<&Key>) -> Result<Self, BadRecord> {
        let connection = &row.connection;
        let node = |text: &String| Ok(Node { address: text.parse()?, memory_limit: None, failure_domain: None });
        let nodes: Result<Vec<_>, BadAddress> = connection.nodes.iter().map(node).collect();
        let tls = match &connection.trust {
            None => None,
            Some(Trust::System) => Some(Tls::new(Authorities::System, None)),
            Some(Trust::Authorities(pem)) => Some(Tls::new(Authorities::Own(pem.as_bytes()), None)),
        };
        Ok(Self {
            id: row.id.clone(),
            folder_id: row.folder_id.clone(),
            name: row.name.clone(),
            description: row.description.clone(),
            labels: row.labels.clone(),
            zone: row.zone.clone(),
            created_at: row.created_at,
            nodes: nodes?,
            username: connection.username.clone(),
            password: match (&row.local, &connection.password) {
                (Some(local), _) => PasswordSource::File(Path::new(&local.folder).join(LocalServers::PASSWORD_FILE)),
                (None, Some(sealed)) => PasswordSource::Sealed(sealed.clone(), key.cloned()),
                (None, None) => PasswordSource::Absent,
            },
            tls: tls.transpose()?,
            allow_primary: row.allow_primary,
            allow_output_buffer_risk: false,
            portable_dump: false,
            discovery_allow: Vec::new(),
            sentinel: None,
            address_map: BTreeMap::new(),
            origin: Origin::Adopted,
            is_adopting: row.is_adopting,
            flavor: Flavor::default(),
            no_snapshot: Windows::default(),
            plan: row.plan.clone(),
            policies: Vec::new(),
            local: row.local.clone(),
        })
    }

    /// Reads the credentials.
    ///
    /// # Errors
    ///
    /// [`CredentialsError`].
    pub fn credentials(&self) -> Result<Credentials, CredentialsError> {
        self.credentials_of(self.username.as_ref(), &self.password)
    }

    fn credentials_of(&self, username: Option<&String>, password: &PasswordSource) -> Result<Credentials, CredentialsError> {
        let password = match password {
            PasswordSource::Absent => None,
            PasswordSource::File(path) => Some(read_password(path).map_err(|what| CredentialsError::File { cluster: self.id.clone(), what })?),
            PasswordSource::Environment(variable) => {
                Some(std::env::var(variable).map_err(|_| CredentialsError::Environment { cluster: self.id.clone(), variable: variable.clone() })?)
            }
            PasswordSource::Sealed(_, None) => return Err(CredentialsError::NoKey { cluster: self.id.clone() }),
            PasswordSource::Sealed(sealed, Some(key)) => {
                let open = key.open(&purpose(&self.id, &self.folder_id), sealed);
                Some(open.map_err(|fault| CredentialsError::Sealed { cluster: self.id.clone(), fault })?)
            }
        };
        Ok(Credentials { username: username.cloned(), password: password.map(Password::new) })
    }

    /// The rules for choosing a source.
    pub fn rules(&self) -> Rules {
        let limits = self.nodes.iter().filter_map(|node| Some((node.address.to_string(), node.memory_limit?)));
        Rules {
            allow_primary: self.allow_primary,
            allow_output_buffer_risk: self.allow_output_buffer_risk,
            portable_dump: self.portable_dump,
            watched: self.sentinel.is_some(),
            memory_limits: limits.collect(),
        }
    }

    /// The machine of a host: snapshots of one machine are taken one after another.
    pub fn failure_domain(&self, address: &Address) -> String {
        let declared = self.nodes.iter().find(|node| node.address == *address).and_then(|node| node.failure_domain.clone());
        declared.unwrap_or_else(|| match address {
            Address::Tcp { host, .. } => host.clone(),
            Address::Unix(path) => path.display().to_string(),
        })
    }

    /// Looks at every host, each within `limit`.
    ///
    /// # Errors
    ///
    /// [`CredentialsError`]; a host that does not answer is part of the result.
    pub async fn look(&self, limit: Duration) -> Result<Topology, CredentialsError> {
        let mut start = Start {
            nodes: self.nodes.iter().map(|node| node.address.clone()).collect(),
            credentials: self.credentials()?,
            tls: self.tls.clone(),
            allowed: self.discovery_allow.clone(),
            address_map: self.address_map.clone(),
            ..Start::default()
        };
        let mut trouble = Vec::new();
        if let Some(sentinel) = &self.sentinel {
            let credentials = self.credentials_of(sentinel.username.as_ref(), &sentinel.password)?;
            let told = sentinel::ask(&sentinel.nodes, &sentinel.master, &credentials, self.tls.as_ref(), limit).await;
            if told.primary.is_none() {
                trouble = told.faults;
            }
            (start.primary, start.replicas, start.neighbours) = (told.primary, told.replicas, sentinel.nodes.clone());
        }
        let mut topology = Topology::discover(&start, limit).await;
        topology.trouble = trouble;
        Ok(topology)
    }

    /// The cluster as reads show it, after a look at it.
    pub fn view(&self, topology: &Topology, names: &ShardNames, probed_at: Option<Timestamp>) -> View {
        let (rules, shards) = (self.rules(), names::shards_of_hosts(topology, names));
        let hosts: Vec<Host> = topology.hosts.iter().map(|seen| host(seen, shards.get(&seen.target.name), &rules)).collect();
        let is_whole = topology.layout.as_ref().is_none_or(|layout| layout.fault().is_none());
        let health = health(&hosts, is_whole && topology.shards().iter().all(|(_, shard)| shard.primary().is_some()));
        let shown = topology.primary().or_else(|| topology.answered().next()).map(|(_, facts)| facts);
        View {
            id: self.id.clone(),
            folder_id: self.folder_id.clone(),
            created_at: self.created_at,
            name: self.name.clone(),
            description: self.description.clone(),
            labels: self.labels.clone(),
            health,
            version: shown.map(|facts| facts.version.to_string()).unwrap_or_default(),
            engine: shown.map(|facts| facts.engine.as_str().to_owned()).unwrap_or_default(),
            hosts,
            probed_at,
            tls_enabled: self.tls.is_some(),
            is_adopting: self.is_adopting,
            cluster_mode: topology.answered().any(|(_, facts)| facts.cluster_mode),
            backup_window_start: self.plan.window_start.map(|minute| calendar::minute_in_utc(self.no_snapshot.zone(), minute, Utc::now())),
            backup_retain_days: self.plan.retain_days,
            keeps_no_log: self.local.as_ref().is_some_and(|local| !local.persistent),
        }
    }

    /// What is told of the cluster, with what was seen of it.
    pub fn told(&self, seen: View) -> View {
        View {
            health: seen.health,
            version: seen.version,
            engine: seen.engine,
            hosts: seen.hosts,
            probed_at: seen.probed_at,
            cluster_mode: seen.cluster_mode,
            ..self.unseen()
        }
    }

    /// The instants for which its backups are planned; `None` where nothing is planned.
    pub fn calendar(&self) -> Option<Calendar> {
        Calendar::new(&self.plan, self.no_snapshot.zone(), &self.policies)
    }

    /// The cluster when nothing was seen of it: its nodes, of unknown role and health.
    pub fn unseen(&self) -> View {
        let hosts = self.nodes.iter().map(|node| Host {
            name: node.address.to_string(),
            shard_name: ONLY_SHARD.to_owned(),
            role: Role::Unknown,
            health: Health::Unknown,
            memory_bytes: node.memory_limit.unwrap_or(0),
            replica_priority: None,
        });
        let mut view = self.view(&Topology::default(), &ShardNames::default(), None);
        view.health = Health::Unknown;
        view.hosts = hosts.collect();
        view
    }
}

fn read_password(path: &Path) -> Result<String, String> {
    use std::io::Read;
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|fault| fault.kind().to_string())?;
    file.take(PASSWORD_BYTES + 1).read_to_string(&mut text).map_err(|fault| fault.kind().to_string())?;
    let password = text.strip_suffix('\n').map(|text| text.strip_suffix('\r').unwrap_or(text)).unwrap_or(&text);
    match password.len() as u64 {
        0 => Err("it is empty".to_owned()),
        1..=PASSWORD_BYTES => Ok(password.to_owned()),
        _ => Err(format!("it has more than {PASSWORD_BYTES} bytes")),
    }
}

fn host(seen: &Seen, shard: Option<&String>, rules: &Rules) -> Host {
    let name = seen.target.name.clone();
    let facts = seen.facts.as_ref().ok();
    Host {
        shard_name: shard.cloned().unwrap_or_default(),
        role: facts.map_or(Role::Unknown, |facts| facts.role),
        health: facts.map_or(Health::Dead, host_health),
        memory_bytes: facts.map_or_else(|| rules.memory_limits.get(&name).copied().unwrap_or(0), |facts| source::memory_of(&name, facts, rules)),
        replica_priority: facts.and_then(|facts| facts.replica_priority),
        name,
    }
}

fn host_health(facts: &Facts) -> Health {
    let cut_off = facts.role == Role::Replica && (!facts.link_up || facts.syncing);
    if facts.loading || cut_off { Health::Degraded } else { Health::Alive }
}

fn health(hosts: &[Host], has_primary: bool) -> Health {
    let alive = hosts.iter().filter(|host| host.health == Health::Alive).count();
    if alive == hosts.len() && has_primary {
        Health::Alive
    } else if hosts.iter().all(|host| host.health == Health::Dead) {
        Health::Dead
    } else {
        Health::Degraded
    }
}

/// One cluster with its last look.
#[derive(Debug)]
struct Entry {
    definition: Arc<Definition>,
    last: Mutex<Option<(Instant, View)>>,
}

impl Entry {
    fn new(definition: Definition) -> Arc<Self> {
        Arc::new(Self { definition: Arc::new(definition), last: Mutex::new(None) })
    }
}

/// What became of a record that the fleet was to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// The cluster is known by it.
    Known,
    /// The configuration has a cluster of this id, which counts.
    Configured,
}

/// All clusters that are known. Readers see a change at once.
#[derive(Debug, Default)]
pub struct Fleet {
    clusters: RwLock<BTreeMap<ClusterId, Arc<Entry>>>,
    key: Option<Key>,
    names: names::Names,
}

impl Fleet {
    /// These clusters; of two with one id the later counts.
    pub fn new(definitions: impl IntoIterator<Item = Definition>) -> Self {
        let clusters = definitions.into_iter().map(|definition| (definition.id.clone(), Entry::new(definition))).collect();
        Self { clusters: RwLock::new(clusters), ..Self::default() }
    }

    /// The same with the key that seals and opens the passwords of adopted clusters.
    pub fn with_key(self, key: Option<Key>) -> Self {
        Self { key, ..self }
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<ClusterId, Arc<Entry>>> {
        self.clusters.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<ClusterId, Arc<Entry>>> {
        self.clusters.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, id: &ClusterId) -> Option<Arc<Entry>> {
        self.read().get(id).map(Arc::clone)
    }

    /// The key that seals credentials, if there is one.
    pub fn key(&self) -> Option<&Key> {
        self.key.as_ref()
    }

    /// The cluster with this id.
    pub fn get(&self, id: &ClusterId) -> Option<Arc<Definition>> {
        self.read().get(id).map(|entry| Arc::clone(&entry.definition))
    }

    /// The clusters of a folder, by id.
    pub fn list(&self, folder: &FolderId) -> Vec<Arc<Definition>> {
        self.read().values().filter(|entry| entry.definition.folder_id == *folder).map(|entry| Arc::clone(&entry.definition)).collect()
    }

    /// How many clusters were adopted.
    pub fn adopted(&self) -> usize {
        self.read().values().filter(|entry| entry.definition.origin == Origin::Adopted).count()
    }

    /// How many servers there are that we have started, or are to start.
    pub fn local_servers(&self) -> usize {
        self.read().values().filter_map(|entry| Some(entry.definition.local.as_ref()?.hosts.len())).sum()
    }

    /// Makes a cluster known by its record and its retention policies, or follows a change of it. A cluster of the configuration
    /// with the same id stays in its place.
    ///
    /// # Errors
    ///
    /// As [`Definition::adopted`]; the cluster is as it was.
    pub fn follow(&self, row: &Adopted, policies: Vec<Policy>) -> Result<Follow, BadRecord> {
        let definition = Definition { policies, ..Definition::adopted(row, self.key.as_ref())? };
        let mut clusters = self.write();
        if clusters.get(&row.id).is_some_and(|entry| entry.definition.origin == Origin::Configured) {
            return Ok(Follow::Configured);
        }
        clusters.insert(row.id.clone(), Entry::new(definition));
        Ok(Follow::Known)
    }

    /// Forgets an adopted cluster; one of the configuration stays.
    pub fn forget(&self, id: &ClusterId) {
        let mut clusters = self.write();
        if clusters.get(id).is_some_and(|entry| entry.definition.origin == Origin::Adopted) {
            clusters.remove(id);
            self.names.forget(id);
        }
    }

    /// All clusters, by id.
    pub fn all(&self) -> Vec<Arc<Definition>> {
        self.read().values().map(|entry| Arc::clone(&entry.definition)).collect()
    }

    /// The cluster as reads show it. A look that is not older than two seconds serves; else a new one is taken, within
    /// [`PROBE_TIMEOUT`]. `None` when the cluster is not known.
    pub async fn view(&self, id: &ClusterId) -> Option<View> {
        let entry = self.entry(id)?;
        // Held over the look: readers that come together share one.
        let mut last = entry.last.lock().await;
        if let Some((at, view)) = &*last
            && at.elapsed() < FRESH
        {
            return Some(view.clone());
        }
        if entry.definition.nodes.is_empty() && entry.definition.sentinel.is_none() {
            // Its servers have no addresses yet.
            return Some(entry.definition.unseen());
        }
        let view = match entry.definition.look(PROBE_TIMEOUT).await {
            Ok(topology) => self.shown(&entry.definition, &topology).await,
            Err(fault) => {
                tracing::warn!(cluster.id = %id, error = %fault, "a cluster could not be looked at");
                entry.definition.unseen()
            }
        };
        *last = Some((Instant::now(), view.clone()));
        Some(view)
    }

    /// The cluster as reads show it, after a look at it now.
    pub async fn shown(&self, definition: &Definition, topology: &Topology) -> View {
        // A store that does not answer leaves shards of today without a name.
        let names = self.names_of(&definition.id, topology).await.unwrap_or_else(|fault| {
            tracing::warn!(cluster.id = %definition.id, error = %fault, "the names of the shards are not known");
            ShardNames::default()
        });
        definition.view(topology, &names, Some(Utc::now()))
    }

    /// What the last look found, whenever it was, without another. `None` when there was none yet, or one is under way.
    pub fn seen(&self, id: &ClusterId) -> Option<View> {
        let entry = self.entry(id)?;
        entry.last.try_lock().ok()?.as_ref().map(|(_, view)| view.clone())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]
    use super::*;
    use crate::cluster::Connection;

    fn row(id: &str, node: &str, password: Option<Sealed>) -> Adopted {
        Adopted {
            id: id.parse().unwrap(),
            folder_id: "default".parse().unwrap(),
            name: id.to_owned(),
            description: String::new(),
            labels: Labels::new(),
            zone: None,
            created_at: Timestamp::UNIX_EPOCH,
            allow_primary: false,
            connection: Connection { nodes: vec![node.to_owned()], username: None, password, trust: None },
            is_adopting: false,
            plan: Plan::default(),
            local: None,
        }
    }

    fn keys() -> [Key; 2] {
        let folder = tempfile::tempdir().unwrap();
        ["a", "b"].map(|name| Key::create(&folder.path().join(name)).unwrap())
    }

    #[test]
    fn a_configured_cluster_stays_in_its_place() {
        let configured = Definition { origin: Origin::Configured, ..Definition::adopted(&row("main", "a:1", None), None).unwrap() };
        let fleet = Fleet::new([configured]);
        let id = "main".parse().unwrap();
        assert_eq!(fleet.follow(&row("main", "b:1", None), Vec::new()), Ok(Follow::Configured));
        fleet.forget(&id);
        assert_eq!(fleet.get(&id).unwrap().nodes[0].address.to_string(), "a:1");
        assert_eq!(fleet.adopted(), 0);
    }

    #[test]
    fn an_adopted_cluster_comes_changes_and_goes() {
        let fleet = Fleet::default();
        let (id, folder) = ("main".parse().unwrap(), "default".parse().unwrap());
        for node in ["a:1", "b:1"] {
            assert_eq!(fleet.follow(&row("main", node, None), Vec::new()), Ok(Follow::Known));
            assert_eq!(fleet.get(&id).unwrap().nodes[0].address.to_string(), node);
        }
        assert_eq!((fleet.list(&folder).len(), fleet.adopted()), (1, 1));
        assert!(fleet.follow(&row("main", "nonsense", None), Vec::new()).is_err());
        assert!(fleet.get(&id).is_some());
        fleet.forget(&id);
        assert!(fleet.get(&id).is_none() && fleet.list(&folder).is_empty());
    }

    #[test]
    fn a_sealed_password_opens_for_its_own_cluster_with_its_key() {
        let [key, other] = keys();
        let row = |id: &str| row(id, "a:1", key.seal(&purpose(&"main".parse().unwrap(), &"default".parse().unwrap()), "hunter2"));
        let definition = Definition::adopted(&row("main"), Some(&key)).unwrap();
        assert_eq!(definition.credentials().unwrap().password.unwrap().secret(), "hunter2");
        assert!(!format!("{definition:?}").contains("hunter2"));
        let refused = |id: &str, key| Definition::adopted(&row(id), key).unwrap().credentials().unwrap_err().to_string();
        for (fault, words) in [
            (refused("main", Some(&other)), other.id()),
            (refused("main", Some(&other)), key.id()),
            (refused("main", None), "[secrets] key_file"),
            (refused("shop", Some(&key)), "sealed for something else"),
        ] {
            assert!(fault.contains(words), "{fault}");
        }
    }
}
