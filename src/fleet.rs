//! The clusters that are known, and what the last look at each of them found.
//!
//! Owns the definitions and the probes. A probe has a bound, so a dead Redis never blocks a read. Knows nothing of
//! operations or the wire.

use crate::backup::Labels;
use crate::cluster::{ClusterId, FolderId, Health, Host, ONLY_SHARD, Role, Timestamp, View};
use crate::redis::facts::Facts;
use crate::redis::source::{self, Barred, Choice, Rules};
use crate::redis::topology::{Seen, Topology};
use crate::redis::{Address, Credentials, Password, Target};
use chrono::Utc;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
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
    /// Whether a primary that has replicas may be the source.
    pub allow_primary: bool,
    /// Whether servers older than 6.2 may be the source.
    pub allow_output_buffer_risk: bool,
    /// Networks in which discovered hosts are given the credentials; none means the networks of the nodes.
    pub discovery_allow: Vec<IpNet>,
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
}

impl Definition {
    /// Reads the credentials.
    ///
    /// # Errors
    ///
    /// [`CredentialsError`].
    pub fn credentials(&self) -> Result<Credentials, CredentialsError> {
        let password = match &self.password {
            PasswordSource::Absent => None,
            PasswordSource::File(path) => Some(read_password(path).map_err(|what| CredentialsError::File { cluster: self.id.clone(), what })?),
            PasswordSource::Environment(variable) => {
                Some(std::env::var(variable).map_err(|_| CredentialsError::Environment { cluster: self.id.clone(), variable: variable.clone() })?)
            }
        };
        Ok(Credentials { username: self.username.clone(), password: password.map(Password::new) })
    }

    /// The rules for choosing a source.
    pub fn rules(&self) -> Rules {
        let limits = self.nodes.iter().filter_map(|node| Some((node.address.to_string(), node.memory_limit?)));
        Rules { allow_primary: self.allow_primary, allow_output_buffer_risk: self.allow_output_buffer_risk, memory_limits: limits.collect() }
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
        let credentials = self.credentials()?;
        let nodes: Vec<_> = self.nodes.iter().map(|node| node.address.clone()).collect();
        Ok(Topology::discover(&nodes, &credentials, &self.discovery_allow, limit).await)
    }

    /// The cluster as reads show it, after a look at it.
    fn view(&self, topology: &Topology, probed_at: Option<Timestamp>) -> View {
        let rules = self.rules();
        let hosts: Vec<Host> = topology.hosts.iter().map(|seen| host(seen, &rules)).collect();
        let health = health(&hosts, topology.primary().is_some());
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
        }
    }

    /// The cluster when nothing was seen of it: its nodes, of unknown role and health.
    fn unseen(&self) -> View {
        let hosts = self.nodes.iter().map(|node| Host {
            name: node.address.to_string(),
            shard_name: ONLY_SHARD.to_owned(),
            role: Role::Unknown,
            health: Health::Unknown,
            memory_bytes: node.memory_limit.unwrap_or(0),
            replica_priority: None,
        });
        let mut view = self.view(&Topology::default(), None);
        view.health = Health::Unknown;
        view.hosts = hosts.collect();
        view
    }
}

fn read_password(path: &std::path::Path) -> Result<String, String> {
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

fn host(seen: &Seen, rules: &Rules) -> Host {
    let name = seen.target.name.clone();
    let facts = seen.facts.as_ref().ok();
    Host {
        shard_name: ONLY_SHARD.to_owned(),
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

/// What a check of a cluster found.
#[derive(Clone, Debug)]
pub struct Check {
    /// What was seen.
    pub topology: Topology,
    /// The source, if there is one: the best of the fit hosts against which nothing else stands.
    pub source: Option<(Target, Facts)>,
    /// Why hosts are not fit.
    pub barred: Vec<Barred>,
    /// What stands against hosts although their facts are good, in the order of their fitness: a missing right, Sentinel.
    pub objections: Vec<(String, crate::redis::Error)>,
}

/// One cluster with its last look.
#[derive(Debug)]
struct Entry {
    definition: Arc<Definition>,
    last: Mutex<Option<(Instant, View)>>,
}

/// All clusters that are known.
#[derive(Debug, Default)]
pub struct Fleet {
    clusters: BTreeMap<ClusterId, Entry>,
}

impl Fleet {
    /// These clusters; of two with one id the later counts.
    pub fn new(definitions: impl IntoIterator<Item = Definition>) -> Self {
        let entry = |definition: Definition| (definition.id.clone(), Entry { definition: Arc::new(definition), last: Mutex::new(None) });
        Self { clusters: definitions.into_iter().map(entry).collect() }
    }

    /// The cluster with this id.
    pub fn get(&self, id: &ClusterId) -> Option<Arc<Definition>> {
        self.clusters.get(id).map(|entry| Arc::clone(&entry.definition))
    }

    /// The clusters of a folder, by id.
    pub fn list(&self, folder: &FolderId) -> Vec<Arc<Definition>> {
        self.clusters.values().filter(|entry| entry.definition.folder_id == *folder).map(|entry| Arc::clone(&entry.definition)).collect()
    }

    /// All clusters, by id.
    pub fn all(&self) -> Vec<Arc<Definition>> {
        self.clusters.values().map(|entry| Arc::clone(&entry.definition)).collect()
    }

    /// The cluster as reads show it. A look that is not older than two seconds serves; else a new one is taken, within
    /// [`PROBE_TIMEOUT`]. `None` when the cluster is not known.
    pub async fn view(&self, id: &ClusterId) -> Option<View> {
        let entry = self.clusters.get(id)?;
        // Held over the look: readers that come together share one.
        let mut last = entry.last.lock().await;
        if let Some((at, view)) = &*last
            && at.elapsed() < FRESH
        {
            return Some(view.clone());
        }
        let view = match entry.definition.look(PROBE_TIMEOUT).await {
            Ok(topology) => entry.definition.view(&topology, Some(Utc::now())),
            Err(fault) => {
                tracing::warn!(cluster.id = %id, error = %fault, "a cluster could not be looked at");
                entry.definition.unseen()
            }
        };
        *last = Some((Instant::now(), view.clone()));
        Some(view)
    }

    /// Looks at every host of a cluster and chooses a source, without starting anything. Fit hosts are asked for what only a
    /// connection can tell until one has nothing against it.
    ///
    /// # Errors
    ///
    /// [`CredentialsError`].
    pub async fn check(&self, definition: &Definition) -> Result<Check, CredentialsError> {
        let topology = definition.look(PREFLIGHT_TIMEOUT).await?;
        let Choice { fit, barred } = source::choose(&topology, &definition.rules());
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
        Ok(Check { topology, source, barred, objections })
    }
}
