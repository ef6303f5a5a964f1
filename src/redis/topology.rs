//! Which servers belong together: from any one node the rest is found.
//!
//! An address that a server announces is not believed blindly: credentials go to a discovered host only when its address
//! lies in the networks that were allowed, or when it shows a certificate of the cluster's own authority. A fake replica can
//! announce any address.

use super::connection::Connection;
use super::facts::Facts;
use super::tls::Tls;
use super::{Address, Credentials, Error, Target, rights};
use crate::cluster::Role;
use futures_util::future::join_all;
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Most hosts of one cluster.
pub const HOSTS: usize = 100;

/// What was found of one host.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The host.
    pub target: Target,
    /// What it says of itself, or why it says nothing.
    pub facts: Result<Facts, Error>,
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

/// The servers of one shard.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    /// Those that were asked, by name.
    pub hosts: Vec<Seen>,
    /// Those that were not.
    pub skipped: Vec<Skipped>,
}

impl Topology {
    /// Asks `nodes` and the hosts that they tell of, each within `limit`.
    ///
    /// A host is asked as soon as it is told of, so that one that is silent holds up nobody else. Never fails: a host that
    /// does not answer is part of the answer. One server under two names is listed once, under the name given first.
    pub async fn discover(nodes: &[Address], credentials: &Credentials, tls: Option<&Tls>, allowed: &[IpNet], limit: Duration) -> Self {
        let see = |address: Address| see(Target { name: address.to_string(), address, credentials: credentials.clone(), tls: tls.cloned() }, limit);
        let mut known = BTreeSet::new();
        let mut asking = JoinSet::new();
        for node in nodes {
            if known.insert(node.clone()) {
                asking.spawn(see(node.clone()));
            }
        }
        // Names are looked up while the nodes are asked.
        let networks = if allowed.is_empty() { networks_of(nodes, limit).await } else { allowed.to_vec() };
        let mut topology = Self::default();
        let mut asked = Vec::new();
        while let Some(answer) = asking.join_next().await {
            let Ok(seen) = answer else { continue };
            for address in seen.facts.iter().flat_map(|facts| facts.primary.iter().chain(&facts.replicas)) {
                if known.len() >= HOSTS || !known.insert(address.clone()) {
                    continue;
                }
                match may_ask(address, &networks, credentials, tls) {
                    Ok(()) => drop(asking.spawn(see(address.clone()))),
                    Err(reason) => topology.skipped.push(Skipped { address: address.clone(), reason }),
                }
            }
            asked.push(seen);
        }
        // The given order decides which name of a server stays.
        let place = |seen: &Seen| nodes.iter().position(|node| *node == seen.target.address).unwrap_or(usize::MAX);
        asked.sort_by_key(|seen| (place(seen), seen.target.name.clone()));
        let mut run_ids = BTreeSet::new();
        asked.retain(|seen| seen.facts.as_ref().map_or(true, |facts| facts.run_id.is_empty() || run_ids.insert(facts.run_id.clone())));
        asked.sort_by(|a, b| a.target.name.cmp(&b.target.name));
        topology.hosts = asked;
        topology
    }

    /// The hosts that answered, with what they said.
    pub fn answered(&self) -> impl Iterator<Item = (&Seen, &Facts)> {
        self.hosts.iter().filter_map(|seen| Some((seen, seen.facts.as_ref().ok()?)))
    }

    /// The host that takes writes, if exactly one answered.
    pub fn primary(&self) -> Option<(&Seen, &Facts)> {
        let mut primaries = self.answered().filter(|(_, facts)| facts.role == Role::Primary);
        match (primaries.next(), primaries.next()) {
            (Some(primary), None) => Some(primary),
            _ => None,
        }
    }

    /// Whether the shard has, or is to have, more than one host.
    pub fn has_replicas(&self) -> bool {
        self.hosts.len() + self.skipped.len() > 1
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
        match Facts::ask(&mut connection).await {
            Ok(facts) => Ok(facts),
            Err(error) => Err(rights::complete(&mut connection, error).await),
        }
    };
    match timeout(limit, asking).await {
        Ok(facts) => facts,
        Err(_) => Err(Error::Unreachable { host: target.name.clone(), what: format!("no answer within {} ms", limit.as_millis()) }),
    }
}

async fn see(target: Target, limit: Duration) -> Seen {
    let started = tokio::time::Instant::now();
    let facts = ask(&target, limit).await;
    Seen { target, facts, elapsed: started.elapsed() }
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
