//! Which host of a shard a snapshot is taken from, and whether it may be.
//!
//! The rules protect the source: a replica before a primary, never a primary unasked where there are replicas, never a host
//! without memory for a fork, never a primary that Sentinel watches.

use super::connection::{Connection, Reply};
use super::facts::{Engine, Facts, Version};
use super::replication::Dialect;
use super::rights::{self, Lacking};
use super::topology::{Seen, Topology};
use super::{Address, Error, Target};
use crate::cluster::Role;
use std::collections::BTreeMap;

/// Largest lag of a replica that may be a source, in seconds.
pub const LAG_SECS: i64 = 30;

/// First version whose servers send a snapshot without keeping an output buffer for us (`rdb-only`).
const RDB_ONLY_SINCE: Version = Version(6, 2, 0);

/// What the cluster's definition allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Whether a primary that has replicas may be the source.
    pub allow_primary: bool,
    /// Whether servers older than 6.2 may be the source.
    pub allow_output_buffer_risk: bool,
    /// Whether sentinels watch the cluster: then no primary is the source.
    pub watched: bool,
    /// Whether the dump is to be one that older servers can load.
    pub portable_dump: bool,
    /// Memory of hosts as declared, in bytes, by the host's name.
    pub memory_limits: BTreeMap<String, u64>,
}

/// Why a host is not the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bar {
    /// It does not answer or answers oddly.
    Silent,
    /// It is loading, behind, without its primary, or synchronising: it may pass.
    NotReady,
    /// Its role forbids it.
    Role,
    /// It has too little memory for a fork.
    Memory,
    /// Its version or kind cannot be backed up.
    Version,
    /// It does not accept the credentials.
    Credentials,
    /// Its certificate is not believed, or it does not believe ours.
    Certificate,
    /// The shards do not cover every slot once.
    Topology,
    /// The account lacks a right, or the host was not asked for want of one.
    Rights,
}

/// A host that is not the source, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Barred {
    /// The host.
    pub host: String,
    /// The kind of reason.
    pub bar: Bar,
    /// The reason in words.
    pub reason: String,
    /// What a person can do; empty when only waiting helps.
    pub remedy: String,
}

/// The outcome of choosing.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The hosts that may be the source, the best first.
    pub fit: Vec<(Target, Facts)>,
    /// The others, in the order of hosts.
    pub barred: Vec<Barred>,
}

/// The memory that the server may use on its host, in bytes: as declared, else as it reports; zero when not known.
pub fn memory_of(name: &str, facts: &Facts, rules: &Rules) -> u64 {
    rules.memory_limits.get(name).copied().unwrap_or(facts.system_memory_bytes)
}

/// Memory that a fork may need while it saves, in bytes: what is in use times the factor of copy on write.
///
/// The factors, 1.5 on a primary and 1.2 on a replica, are a bound for ordinary write rates, not a law.
pub fn memory_needed(facts: &Facts) -> u64 {
    let tenths: u64 = match facts.role {
        Role::Replica => 12,
        Role::Primary | Role::Unknown => 15,
    };
    facts.used_memory_bytes.saturating_mul(tenths) / 10
}

/// Chooses the source of a shard by what its hosts say of themselves.
pub fn choose(topology: &Topology, rules: &Rules) -> Choice {
    let shard = ShardFacts {
        has_replicas: topology.has_replicas(),
        // Where it is known who is the primary, whoever else says so of himself does not count.
        primaries: if topology.known_primary.is_some() { 1 } else { topology.answered().filter(|(_, facts)| facts.role == Role::Primary).count() },
        known_primary: topology.known_primary.clone(),
        replication_id: topology.primary().map(|(_, facts)| facts.replication_id.clone()).filter(|id| !id.is_empty()),
    };
    let mut barred = Vec::new();
    let mut fit: Vec<(&Seen, &Facts)> = Vec::new();
    for seen in &topology.hosts {
        let bar = match &seen.facts {
            Err(error) => Some(silent(error)),
            Ok(facts) => unfit(seen, facts, rules, &shard),
        };
        match (bar, &seen.facts) {
            (Some((bar, reason, remedy)), _) => barred.push(Barred { host: seen.target.name.clone(), bar, reason, remedy }),
            (None, Ok(facts)) => fit.push((seen, facts)),
            (None, Err(_)) => {}
        }
    }
    for skipped in &topology.skipped {
        barred.push(Barred { host: skipped.address.to_string(), bar: Bar::Rights, reason: skipped.reason.clone(), remedy: String::new() });
    }
    // A replica first; among equals one without a child at work, with the least lag, and by name so that the choice is stable.
    fit.sort_by_key(|(seen, facts)| (facts.role != Role::Replica, facts.child_running, facts.last_io_secs, seen.target.name.clone()));
    Choice { fit: fit.into_iter().map(|(seen, facts)| (seen.target.clone(), facts.clone())).collect(), barred }
}

/// What the fitness of one host depends on beside itself.
struct ShardFacts {
    has_replicas: bool,
    /// By the word of sentinels or of the cluster.
    known_primary: Option<Address>,
    primaries: usize,
    /// Of the one primary that answered.
    replication_id: Option<String>,
}

/// What an error that concerns the whole cluster means.
pub fn barred_by(error: &Error) -> Barred {
    let (bar, reason, remedy) = silent(error);
    Barred { host: String::new(), bar, reason, remedy }
}

fn silent(error: &Error) -> (Bar, String, String) {
    let bar = match error {
        Error::Credentials { .. } => Bar::Credentials,
        Error::Certificate { .. } => Bar::Certificate,
        Error::Permission { .. } => Bar::Rights,
        Error::NotReady { .. } => Bar::NotReady,
        Error::Unsupported { .. } => Bar::Version,
        Error::Role { .. } => Bar::Role,
        Error::Unreachable { .. } | Error::Save { .. } | Error::Protocol { .. } => Bar::Silent,
    };
    (bar, error.to_string(), String::new())
}

fn unfit(seen: &Seen, facts: &Facts, rules: &Rules, shard: &ShardFacts) -> Option<(Bar, String, String)> {
    let name = seen.target.name.as_str();
    let bar = |bar, reason: String, remedy: &str| Some((bar, reason, remedy.to_owned()));
    if facts.engine == Engine::Other {
        return bar(Bar::Version, format!("{name} is neither Redis nor Valkey: it sends no snapshot to a replica of another kind"), "");
    }
    if facts.cluster_mode && seen.view.is_none() {
        return bar(Bar::Version, format!("{name} runs in cluster mode and does not tell of its cluster"), "");
    }
    if facts.version < RDB_ONLY_SINCE && facts.engine == Engine::Redis && !rules.allow_output_buffer_risk {
        return bar(
            Bar::Version,
            format!("{name} runs version {}, which keeps all writes during the snapshot in an output buffer for us", facts.version),
            "update it to 6.2 or later, or accept the risk with allow_output_buffer_risk = true",
        );
    }
    if rules.portable_dump && facts.expiring_items_keys > 0 && Dialect::Portable.version(facts).is_some() {
        return bar(
            Bar::Version,
            format!("{name} has fields of hashes that expire, in {} keys, and no portable dump can hold them", facts.expiring_items_keys),
            "take back portable_dump: its own dialect holds everything",
        );
    }
    if facts.loading {
        return bar(Bar::NotReady, format!("{name} is loading its data"), "");
    }
    if shard.primaries > 1 {
        // Whose replica is whose is not told apart: half of the data would pass for all of it.
        return bar(
            Bar::Role,
            format!("{name} is one of the hosts of {} primaries, so the nodes do not belong together", shard.primaries),
            "list the nodes of one primary only",
        );
    }
    match facts.role {
        Role::Replica => {
            if shard.replication_id.as_ref().is_some_and(|id| !facts.replication_id.is_empty() && facts.replication_id != *id) {
                return bar(
                    Bar::NotReady,
                    format!("{name} has another history than the primary: it follows another server, or has not caught up with a failover"),
                    "",
                );
            }
            if facts.syncing {
                return bar(Bar::NotReady, format!("{name} is receiving a full synchronisation from its primary"), "");
            }
            if !facts.link_up {
                return bar(Bar::NotReady, format!("{name} has lost the link to its primary"), "look at its master_link_status");
            }
            if facts.last_io_secs > LAG_SECS {
                return bar(Bar::NotReady, format!("{name} heard from its primary {} s ago, more than {LAG_SECS} s", facts.last_io_secs), "");
            }
        }
        Role::Primary | Role::Unknown => {
            if shard.known_primary.as_ref().is_some_and(|known| *known != seen.target.address) {
                return bar(Bar::NotReady, format!("{name} says that it is a primary and is none any more: a failover is under way"), "");
            }
            if rules.watched {
                return bar(
                    Bar::Role,
                    format!("{name} is a primary that Sentinel watches, and Sentinel would list the backup as a replica for good"),
                    "give it a replica: a backup is taken from that",
                );
            }
            if shard.has_replicas && !rules.allow_primary {
                return bar(
                    Bar::Role,
                    format!("{name} is the primary of a shard with replicas, and is not used unasked"),
                    "mend a replica, or allow it with allow_primary = true",
                );
            }
        }
    }
    let (needed, memory) = (memory_needed(facts), memory_of(name, facts, rules));
    if memory > 0 && needed > memory {
        return bar(
            Bar::Memory,
            format!("{name} uses {} bytes; a snapshot may need {needed} bytes, and its host has {memory}", facts.used_memory_bytes),
            "give the host more memory, or declare its true memory_limit",
        );
    }
    None
}

/// Asks the chosen host what only a connection can tell: whether the account may synchronise, and whether Sentinel watches.
///
/// Questions that the account may not ask are left unanswered: a right that is missing for a question is no reason to refuse, and
/// is told in the answer.
///
/// # Errors
///
/// [`Error::Permission`] with the right that is missing, [`Error::Role`] for a watched primary, else what the
/// connection says.
pub async fn inspect(target: &Target, facts: &Facts) -> Result<Lacking, Error> {
    let mut connection = Connection::open(target).await?;
    if facts.role == Role::Primary {
        let reply = connection.command(&[b"PUBSUB", b"NUMSUB", b"__sentinel__:hello"]).await?;
        if let [_, Reply::Integer(count)] = reply.elements()
            && *count > 0
        {
            return Err(Error::Role {
                host: target.name.clone(),
                what: "it is a primary that Sentinel watches, and Sentinel would list the backup as a replica for good; list a replica under nodes".to_owned(),
            });
        }
    }
    rights::ask(&mut connection, Some(facts)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn facts(role: Role) -> Facts {
        let role = if role == Role::Replica { "slave\r\nmaster_link_status:up\r\nmaster_last_io_seconds_ago:1" } else { "master" };
        Facts::parse(&format!("redis_version:7.0.15\r\nused_memory:1000\r\ntotal_system_memory:10000\r\nrole:{role}\r\n")).unwrap()
    }

    fn seen(name: &str, facts: Result<Facts, Error>) -> Seen {
        Seen {
            target: Target { name: name.into(), address: name.parse().unwrap(), credentials: Default::default(), tls: None },
            facts,
            view: None,
            elapsed: Duration::ZERO,
        }
    }

    fn down(name: &str) -> Seen {
        seen(name, Err(Error::Unreachable { host: name.into(), what: "connection refused".into() }))
    }

    fn chosen(hosts: Vec<Seen>, rules: &Rules) -> Result<String, Vec<Bar>> {
        let choice = choose(&Topology { hosts, ..Topology::default() }, rules);
        choice.fit.first().map(|(target, _)| target.name.clone()).ok_or_else(|| choice.barred.iter().map(|barred| barred.bar).collect())
    }

    #[test]
    fn a_replica_goes_first_and_a_primary_never_unasked() {
        let rules = Rules::default();
        let allowed = Rules { allow_primary: true, ..Rules::default() };
        assert_eq!(chosen(vec![seen("a:1", Ok(facts(Role::Primary)))], &rules), Ok("a:1".into()));
        assert_eq!(chosen(vec![seen("a:1", Ok(facts(Role::Primary))), seen("b:1", Ok(facts(Role::Replica)))], &rules), Ok("b:1".into()));
        assert_eq!(chosen(vec![seen("a:1", Ok(facts(Role::Primary))), down("b:1")], &rules), Err(vec![Bar::Role, Bar::Silent]));
        assert_eq!(chosen(vec![seen("a:1", Ok(facts(Role::Primary))), down("b:1")], &allowed), Ok("a:1".into()));
        assert_eq!(chosen(vec![seen("a:1", Ok(facts(Role::Primary))), seen("b:1", Ok(facts(Role::Primary)))], &allowed), Err(vec![Bar::Role, Bar::Role]));
    }

    /// Goal: a failover only delays a backup. Method: the old primary has not heard of it yet.
    #[test]
    fn who_was_the_primary_is_waited_for() {
        let hosts = vec![seen("a:1", Ok(facts(Role::Primary))), seen("b:1", Ok(facts(Role::Primary)))];
        let topology = Topology { hosts, known_primary: Some("b:1".parse().unwrap()), ..Topology::default() };
        let choice = choose(&topology, &Rules { watched: true, ..Rules::default() });
        assert_eq!(choice.barred.iter().map(|barred| barred.bar).collect::<Vec<_>>(), [Bar::NotReady, Bar::Role]);
        assert!(choice.fit.is_empty());
    }

    #[test]
    fn a_replica_of_another_history_is_no_source() {
        let with_id = |role, id: &str| Facts { replication_id: id.to_owned(), ..facts(role) };
        let hosts = |id: &str| vec![seen("a:1", Ok(with_id(Role::Primary, "ours"))), seen("b:1", Ok(with_id(Role::Replica, id)))];
        assert_eq!(chosen(hosts("ours"), &Rules::default()), Ok("b:1".into()));
        assert_eq!(chosen(hosts("theirs"), &Rules::default()), Err(vec![Bar::Role, Bar::NotReady]));
        let mut split = hosts("ours");
        split.push(seen("c:1", Ok(with_id(Role::Primary, "theirs"))));
        assert_eq!(chosen(split, &Rules::default()), Err(vec![Bar::Role; 3]));
    }

    #[test]
    fn an_unfit_replica_leaves_the_other() {
        type Spoil = fn(&mut Facts);
        let spoils: [(Spoil, Bar); 5] = [
            (|f| f.loading = true, Bar::NotReady),
            (|f| f.link_up = false, Bar::NotReady),
            (|f| f.syncing = true, Bar::NotReady),
            (|f| f.last_io_secs = 31, Bar::NotReady),
            (|f| f.used_memory_bytes = 9000, Bar::Memory),
        ];
        for (spoil, bar) in spoils {
            let mut spoiled = facts(Role::Replica);
            spoil(&mut spoiled);
            let hosts = vec![seen("a:1", Ok(spoiled.clone())), seen("b:1", Ok(facts(Role::Replica)))];
            assert_eq!(chosen(hosts, &Rules::default()), Ok("b:1".into()));
            assert_eq!(chosen(vec![seen("a:1", Ok(spoiled)), down("c:1")], &Rules::default()), Err(vec![bar, Bar::Silent]));
        }
    }

    #[test]
    fn declared_memory_counts_and_unknown_memory_does_not() {
        let declared = Rules { memory_limits: [("a:1".to_owned(), 1400)].into(), ..Rules::default() };
        assert_eq!(chosen(vec![seen("a:1", Ok(facts(Role::Primary)))], &declared), Err(vec![Bar::Memory]));
        let declared = Rules { memory_limits: [("a:1".to_owned(), 1500)].into(), ..Rules::default() };
        assert_eq!(chosen(vec![seen("a:1", Ok(facts(Role::Primary)))], &declared), Ok("a:1".into()));
        let mut silent = facts(Role::Primary);
        silent.system_memory_bytes = 0;
        assert_eq!(chosen(vec![seen("a:1", Ok(silent))], &Rules::default()), Ok("a:1".into()));
    }

    #[test]
    fn old_servers_and_cluster_mode_are_refused() {
        let mut old = facts(Role::Primary);
        old.version = Version(6, 0, 16);
        assert_eq!(chosen(vec![seen("a:1", Ok(old.clone()))], &Rules::default()), Err(vec![Bar::Version]));
        assert!(chosen(vec![seen("a:1", Ok(old))], &Rules { allow_output_buffer_risk: true, ..Rules::default() }).is_ok());
        let mut sharded = facts(Role::Primary);
        sharded.cluster_mode = true;
        assert_eq!(chosen(vec![seen("a:1", Ok(sharded))], &Rules::default()), Err(vec![Bar::Version]));
    }
}
