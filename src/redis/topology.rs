//! Which servers belong together: from any one node the rest is found.
//!
//! An address that a server announces is not believed blindly: credentials go to a discovered host only when its address
//! lies in the networks that were allowed, or when it shows a certificate of the cluster's own authority. A fake replica can
//! announce any address.

use super::cluster::{Layout, Shard, View};
use super::connection::Connection;
use super::facts::Facts;
use super::tls::Tls;
use super::{Address, Credentials, Error, Target, rights};
use crate::cluster::Role;
use futures_util::future::join_all;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Most hosts of one cluster that are listed in its definition.
pub const HOSTS: usize = 100;

/// Most hosts of one cluster that are looked at.
const FOUND: usize = super::cluster::NODES;

/// Hosts that are asked at once.
const ASKED_AT_ONCE: usize = 64;

/// What was found of one host.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The host.
    pub target: Target,
    /// What it says of itself, or why it says nothing.
    pub facts: Result<Facts, Error>,
    /// In cluster mode, the cluster as it sees it.
    pub view: Option<View>,
    /// How long it took to answer.
    pub elapsed: Duration,
}

/// A host that was announced and not asked, with the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its address.
    pub address: Address,
    /// Why it was not asked.
    pub reason: String,
}

/// Where a look at a cluster begins, and how far it may go.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// Servers that are listed in the definition.
    pub nodes: Vec<Address>,
    /// Where a sentinel says that the primary is.
    pub primary: Option<Address>,
    /// Where sentinels say that replicas are.
    pub replicas: Vec<Address>,
    /// How to log in.
    pub credentials: Credentials,
    /// How connections are secured.
    pub tls: Option<Tls>,
    /// Networks in which announced hosts are given the credentials; none means the networks of the nodes.
    pub allowed: Vec<IpNet>,
    /// Listed servers beside the nodes whose networks count as theirs: sentinels.
    pub neighbours: Vec<Address>,
    /// Where announced addresses are reached.
    pub address_map: BTreeMap<Address, Address>,
}

/// The servers of a cluster, or of one of its shards.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    /// Those that were asked, by name.
    pub hosts: Vec<Seen>,
    /// Those that were not.
    pub skipped: Vec<Skipped>,
    /// In cluster mode, who owns which slots.
    pub layout: Option<Layout>,
    /// The host that is the primary by the word of sentinels or of the cluster, whoever else says so of himself.
    pub known_primary: Option<Address>,
    /// Hosts that it has to have, those that cannot be asked too.
    pub expected: usize,
    /// Why nothing is known of where the servers are.
    pub trouble: Vec<Error>,
}

impl Topology {
    /// Asks the servers that are listed and the hosts that they tell of, each within `limit`.
    ///
    /// A host is asked as soon as it is told of, so that one that is silent holds up nobody else. Never fails: a host that
    /// does not answer is part of the answer. One server under two names is listed once, under the name given first.
    pub async fn discover(start: &Start, limit: Duration) -> Self {
        let turns = Arc::new(Semaphore::new(ASKED_AT_ONCE));
        let see = |address: Address| {
            let target = Target { name: address.to_string(), address, credentials: start.credentials.clone(), tls: start.tls.clone() };
            see(target, limit, Arc::clone(&turns))
        };
        let reached = |address: &Address| start.address_map.get(address).unwrap_or(address).clone();
        let mut known = BTreeSet::new();
        let mut asking = JoinSet::new();
        for node in &start.nodes {
            if known.insert(node.clone()) {
                asking.spawn(see(node.clone()));
            }
        }
        // Names are looked up while the nodes are asked.
        let listed: Vec<Address> = start.nodes.iter().chain(&start.neighbours).cloned().collect();
        let networks = if start.allowed.is_empty() { networks_of(&listed, limit).await } else { start.allowed.clone() };
        let mut topology = Self { known_primary: start.primary.as_ref().map(reached), ..Self::default() };
        let mut asked: Vec<Seen> = Vec::new();
        let mut announced: Vec<Address> = start.primary.iter().chain(&start.replicas).cloned().collect();
        loop {
            for address in announced.drain(..) {
                let reached = reached(&address);
                if known.len() >= FOUND || !known.insert(reached.clone()) {
                    continue;
                }
                // Where an address is mapped to is listed too, by the one who wrote the map.
                let is_listed = reached != address;
                match may_ask(&reached, &networks, &start.credentials, start.tls.as_ref()) {
                    Err(reason) if !is_listed => topology.skipped.push(Skipped { address: reached, reason }),
                    Ok(()) | Err(_) => drop(asking.spawn(see(reached))),
                }
            }
            let Some(answer) = asking.join_next().await else { break };
            let Ok(seen) = answer else { continue };
            announced = announced_by(&seen);
            asked.push(seen);
        }
        // The given order decides which name of a server stays.
        let place = |seen: &Seen| start.nodes.iter().position(|node| *node == seen.target.address).unwrap_or(usize::MAX);
        asked.sort_by_key(|seen| (place(seen), seen.target.name.clone()));
        let mut run_ids = BTreeMap::new();
        asked.retain(|seen| match seen.facts.as_ref().map(|facts| facts.run_id.clone()) {
            Ok(run_id) if !run_id.is_empty() => {
                let first = run_ids.entry(run_id).or_insert_with(|| seen.target.address.clone()).clone();
                if first != seen.target.address && topology.known_primary.as_ref() == Some(&seen.target.address) {
                    topology.known_primary = Some(first.clone());
                }
                first == seen.target.address
            }
            Ok(_) | Err(_) => true,
        });
        asked.sort_by(|a, b| a.target.name.cmp(&b.target.name));
        topology.hosts = asked;
        topology.put_together(start);
        topology
    }

    /// In cluster mode, puts together what the hosts say of their cluster.
    fn put_together(&mut self, start: &Start) {
        let views: Vec<&View> = self.hosts.iter().filter_map(|seen| seen.view.as_ref()).collect();
        if views.is_empty() {
            return;
        }
        let mut layout = Layout::of(&views);
        for address in layout.addresses.values_mut() {
            if let Some(reached) = start.address_map.get(address) {
                *address = reached.clone();
            }
        }
        // A node that answered under another address than the one it announces is there, whoever is at the other.
        let answered: BTreeSet<&String> = views.iter().map(|view| &view.me).collect();
        let there: BTreeSet<Address> = layout
            .addresses
            .iter()
            .filter(|(id, address)| answered.contains(id) && !start.nodes.contains(address))
            .map(|(_, address)| address.clone())
            .collect();
        self.hosts.retain(|seen| seen.view.is_some() || !there.contains(&seen.target.address));
        self.skipped.retain(|skipped| !there.contains(&skipped.address));
        self.layout = Some(layout);
    }

    /// The servers of each shard, with what the cluster says of it; all of them, and nothing, outside of cluster mode.
    pub fn shards(&self) -> Vec<(Option<Shard>, Self)> {
        let Some(layout) = &self.layout else { return vec![(None, self.clone())] };
        let by_address: BTreeMap<&Address, &String> = layout.addresses.iter().map(|(id, address)| (address, id)).collect();
        let id_at = |address: &Address| by_address.get(address).map(|id| id.as_str());
        let of = |shard: &Shard| {
            let is_of = |id: Option<&str>| id.is_some_and(|id| shard.node_ids.iter().any(|other| other == id));
            let hosts: Vec<Seen> = (self.hosts.iter()).filter(|seen| is_of(seen.id().or_else(|| id_at(&seen.target.address)))).cloned().collect();
            let skipped = self.skipped.iter().filter(|skipped| is_of(id_at(&skipped.address))).cloned().collect();
            let primary = hosts.iter().find(|seen| seen.id() == Some(&shard.primary_id)).map(|seen| seen.target.address.clone());
            let known_primary = primary.or_else(|| layout.addresses.get(&shard.primary_id).cloned());
            (Some(shard.clone()), Self { hosts, skipped, known_primary, expected: shard.node_ids.len(), ..Self::default() })
        };
        layout.shards.iter().map(of).collect()
    }

    /// The hosts that answered, with what they said.
    pub fn answered(&self) -> impl Iterator<Item = (&Seen, &Facts)> {
        self.hosts.iter().filter_map(|seen| Some((seen, seen.facts.as_ref().ok()?)))
    }

    /// The host that takes writes: the known one, else if exactly one answered.
    pub fn primary(&self) -> Option<(&Seen, &Facts)> {
        let mut primaries = self.answered().filter(|(_, facts)| facts.role == Role::Primary);
        if let Some(known) = &self.known_primary {
            return primaries.find(|(seen, _)| seen.target.address == *known);
        }
        match (primaries.next(), primaries.next()) {
            (Some(primary), None) => Some(primary),
            _ => None,
        }
    }

    /// Whether the shard has, or is to have, more than one host.
    pub fn has_replicas(&self) -> bool {
        (self.hosts.len() + self.skipped.len()).max(self.expected) > 1
    }
}

impl Seen {
    /// In cluster mode, the identifier of the node.
    pub fn id(&self) -> Option<&str> {
        self.view.as_ref().map(|view| view.me.as_str())
    }
}

/// Addresses that a host tells of. In cluster mode the cluster tells of all of them.
fn announced_by(seen: &Seen) -> Vec<Address> {
    match (&seen.view, &seen.facts) {
        (Some(view), _) => view.nodes.iter().filter_map(|node| node.address.clone()).collect(),
        (None, Ok(facts)) => facts.primary.iter().chain(&facts.replicas).cloned().collect(),
        (None, Err(_)) => Vec::new(),
    }
}

/// Connects to a host and asks for its facts, within `limit`.
///
/// # Errors
///
/// What the connection or the server says; [`Error::Unreachable`] when the time is over.
pub async fn ask(target: &Target, limit: Duration) -> Result<Facts, Error> {
    let asking = async {
        let mut connection = Connection::open(target).await?;
        first(&mut connection).await
    };
    match timeout(limit, asking).await {
        Ok(facts) => facts,
        Err(_) => Err(silence(target, limit)),
    }
}

/// Asks the first question; a refusal names every right that is missing.
async fn first(connection: &mut Connection) -> Result<Facts, Error> {
    match Facts::ask(connection).await {
        Ok(facts) => Ok(facts),
        Err(error) => Err(rights::complete(connection, error).await),
    }
}

async fn see(target: Target, limit: Duration, turns: Arc<Semaphore>) -> Seen {
    // Nobody closes it; without a turn it would be asked all the same.
    let _turn = turns.acquire().await;
    let started = tokio::time::Instant::now();
    let asking = async {
        let mut connection = Connection::open(&target).await?;
        let facts = first(&mut connection).await?;
        let view = match facts.cluster_mode {
            true => View::ask(&mut connection).await.map(Some),
            false => Ok(None),
        };
        match view {
            // It does not know the question, whatever it says of itself; its other facts stand.
            Err(Error::Unsupported { .. }) => Ok((facts, None)),
            view => Ok((facts, view?)),
        }
    };
    let answer = timeout(limit, asking).await.unwrap_or_else(|_| Err(silence(&target, limit)));
    let (facts, view) = match answer {
        Ok((facts, view)) => (Ok(facts), view),
        Err(fault) => (Err(fault), None),
    };
    Seen { target, facts, view, elapsed: started.elapsed() }
}

fn silence(target: &Target, limit: Duration) -> Error {
    Error::Unreachable { host: target.name.clone(), what: format!("no answer within {} ms", limit.as_millis()) }
}

/// The default of the allowed networks: each given node's own /24 or /64, and all of loopback for a loopback node.
async fn networks_of(nodes: &[Address], limit: Duration) -> Vec<IpNet> {
    let looks = nodes.iter().filter_map(|node| match node {
        Address::Tcp { host, port } => Some(timeout(limit, tokio::net::lookup_host((host.as_str(), *port)))),
        Address::Unix(_) => None,
    });
    let found = join_all(looks).await;
    found.into_iter().flatten().flatten().flatten().filter_map(|address| around(address.ip())).collect()
}

fn around(ip: IpAddr) -> Option<IpNet> {
    let bits = match ip {
        IpAddr::V4(v4) if v4.is_loopback() => 8,
        IpAddr::V4(_) => 24,
        IpAddr::V6(v6) if v6.is_loopback() => 128,
        IpAddr::V6(_) => 64,
    };
    IpNet::new(ip, bits).ok().map(|net| net.trunc())
}

/// Whether an announced address may be asked. Without credentials there is nothing to give away; and a host that must show a
/// certificate of the cluster's own authority is given nothing before it does.
fn may_ask(address: &Address, networks: &[IpNet], credentials: &Credentials, tls: Option<&Tls>) -> Result<(), String> {
    let Address::Tcp { host, .. } = address else {
        return Err("it was announced as a local socket".to_owned());
    };
    if credentials.password.is_none() || tls.is_some_and(Tls::tells_own_hosts) {
        return Ok(());
    }
    match host.parse::<IpAddr>() {
        Ok(ip) if networks.iter().any(|network| network.contains(&ip)) => Ok(()),
        Ok(_) => Err("its address is outside discovery_allow, so it is not given the credentials; list it under nodes or allow its network".to_owned()),
        Err(_) => Err("it was announced by a name, so it is not given the credentials; list it under nodes".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::Password;
    use crate::redis::tls::Authorities;

    #[test]
    fn credentials_stay_in_the_allowed_networks() {
        let networks = [around("10.1.2.3".parse().unwrap()).unwrap(), around("127.0.0.1".parse().unwrap()).unwrap()];
        let secret = Credentials { username: None, password: Some(Password::new("x")) };
        let open = Credentials::default();
        for (address, with_secret) in
            [("10.1.2.99:6379", true), ("10.1.3.1:6379", false), ("127.9.9.9:1", true), ("evil.example:6379", false), ("unix:/tmp/s", false)]
        {
            let address: Address = address.parse().unwrap();
            assert_eq!(may_ask(&address, &networks, &secret, None).is_ok(), with_secret, "{address}");
        }
        assert!(may_ask(&"10.9.9.9:1".parse().unwrap(), &networks, &open, None).is_ok());
        let authority = rcgen::generate_simple_self_signed(["ca".to_owned()]).unwrap().cert.pem();
        let own = Tls::new(Authorities::Own(authority.as_bytes()), None).unwrap();
        for (address, with_own) in [("10.1.3.1:6379", true), ("redis-1.example:6379", true), ("unix:/tmp/s", false)] {
            assert_eq!(may_ask(&address.parse().unwrap(), &networks, &secret, Some(&own)).is_ok(), with_own, "{address}");
        }
    }
}
