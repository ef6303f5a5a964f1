//! What one server says of itself: the fields of INFO that matter to a backup.

use super::connection::Connection;
use super::{Address, Error};
use crate::cluster::Role;
use std::collections::HashMap;

/// Most replicas of one primary that are looked at.
const REPLICAS: usize = 64;

/// A version such as 7.0.15.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Version(pub u16, pub u16, pub u16);

impl std::str::FromStr for Version {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split('.').map(|part| part.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u16>());
        let mut next = || parts.next().and_then(Result::ok);
        Ok(Self(next().ok_or(())?, next().unwrap_or(0), next().unwrap_or(0)))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// Whose server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Redis.
    Redis,
    /// Valkey.
    Valkey,
    /// Another that speaks the protocol; it cannot be backed up this way.
    Other,
}

impl Engine {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Valkey => "valkey",
            Self::Other => "other",
        }
    }
}

/// What one server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whose server it is.
    pub engine: Engine,
    /// Its version.
    pub version: Version,
    /// Whether it runs in cluster mode.
    pub cluster_mode: bool,
    /// Changes with every start.
    pub run_id: String,
    /// What it is to its shard.
    pub role: Role,
    /// Id of its history.
    pub replication_id: String,
    /// Id of the history before it, which a promoted replica keeps; zeros when there was none.
    pub replication_id2: String,
    /// Offset in that history.
    pub replication_offset: i64,
    /// Whether it is loading its data.
    pub loading: bool,
    /// Of a replica: where its primary is.
    pub primary: Option<Address>,
    /// Of a replica: whether the link to its primary is up.
    pub link_up: bool,
    /// Of a replica: whether it is receiving a full synchronisation.
    pub syncing: bool,
    /// Of a replica: seconds since it heard from its primary; negative when never.
    pub last_io_secs: i64,
    /// Of a replica: its priority.
    pub replica_priority: Option<i64>,
    /// Of a primary: its replicas that tell a port.
    pub replicas: Vec<Address>,
    /// Of a primary: how many replicas are connected, those without a port too.
    pub connected_replicas: u64,
    /// Whether a child that saves or rewrites is at work.
    pub child_running: bool,
    /// Memory in use, in bytes.
    pub used_memory_bytes: u64,
    /// Configured limit of the data, in bytes; zero means none.
    pub maxmemory_bytes: u64,
    /// Memory of the machine that it reports, in bytes; zero when it does not.
    pub system_memory_bytes: u64,
    /// Length of its last fork, in microseconds.
    pub fork_micros: Option<u64>,
    /// How often it has forked since its start, where it tells.
    pub forks: Option<u64>,
    /// Memory copied on write by its last save, in bytes.
    pub copy_on_write_bytes: Option<u64>,
    /// Keys in all databases.
    pub keys: u64,
    /// Keys with parts that expire by themselves, as Valkey counts them from 9.0 on; zero where it is not told.
    pub expiring_items_keys: u64,
}

impl Facts {
    /// Asks a server.
    ///
    /// # Errors
    ///
    /// What the connection or the server says.
    pub async fn ask(connection: &mut Connection) -> Result<Self, Error> {
        let reply = connection.call(&[b"INFO"]).await?;
        let text = reply.text().ok_or_else(|| Error::Protocol { host: connection.host().to_owned(), what: "an odd reply to INFO".to_owned() })?;
        Self::parse(&text).ok_or_else(|| Error::Protocol { host: connection.host().to_owned(), what: "INFO tells no version and role".to_owned() })
    }

    /// Reads the text of INFO; `None` when it tells no version or role.
    pub fn parse(text: &str) -> Option<Self> {
        let fields: HashMap<&str, &str> = text.lines().filter_map(|line| line.trim_end().split_once(':')).collect();
        let number = |name: &str| fields.get(name).and_then(|value| value.parse::<u64>().ok());
        let flag = |name: &str| number(name).unwrap_or(0) != 0;
        let word = |name: &str| fields.get(name).copied().unwrap_or_default();

        let foreign = ["dragonfly_version", "kvrocks_version", "garnet_version"].iter().any(|name| fields.contains_key(name));
        let (engine, version) = if foreign {
            (Engine::Other, word("redis_version"))
        } else if word("server_name") == "valkey" || fields.contains_key("valkey_version") {
            (Engine::Valkey, word("valkey_version"))
        } else {
            (Engine::Redis, word("redis_version"))
        };
        let version = version.parse().ok()?;
        let role = match word("role") {
            "master" => Role::Primary,
            "slave" => Role::Replica,
            _ => return None,
        };
        let primary = match (role, word("master_host"), number("master_port")) {
            (Role::Replica, host, Some(port)) => join(host, port),
            _ => None,
        };
        let replicas = (0..REPLICAS).filter_map(|index| fields.get(format!("slave{index}").as_str())).filter_map(|line| replica(line)).collect();
        let sum = |name: &str| {
            let counts = text.lines().filter(|line| line.starts_with("db")).filter_map(|line| line.split_once(':'));
            let counts = counts
                .filter_map(|(_, fields)| fields.trim_end().split(',').find_map(|field| field.strip_prefix(name)?.strip_prefix('=')?.parse::<u64>().ok()));
            counts.fold(0_u64, u64::saturating_add)
        };
        Some(Self {
            engine,
            version,
            cluster_mode: word("redis_mode") == "cluster" || flag("cluster_enabled"),
            run_id: super::clean(word("run_id")),
            role,
            replication_id: super::clean(word("master_replid")),
            replication_id2: super::clean(word("master_replid2")),
            replication_offset: fields
                .get(if role == Role::Replica { "slave_repl_offset" } else { "master_repl_offset" })
                .and_then(|v| v.parse().ok())
                .unwrap_or(0),
            loading: flag("loading"),
            primary,
            link_up: word("master_link_status") == "up",
            syncing: flag("master_sync_in_progress"),
            last_io_secs: word("master_last_io_seconds_ago").parse().unwrap_or(-1),
            replica_priority: word("slave_priority").parse().ok(),
            replicas,
            connected_replicas: number("connected_slaves").unwrap_or(0),
            child_running: flag("rdb_bgsave_in_progress") || flag("aof_rewrite_in_progress"),
            used_memory_bytes: number("used_memory").unwrap_or(0),
            maxmemory_bytes: number("maxmemory").unwrap_or(0),
            system_memory_bytes: number("total_system_memory").unwrap_or(0),
            fork_micros: number("latest_fork_usec").filter(|micros| *micros > 0),
            forks: number("total_forks"),
            copy_on_write_bytes: number("rdb_last_cow_size"),
            keys: sum("keys"),
            expiring_items_keys: sum("keys_with_volatile_items"),
        })
    }
}

/// Reads `ip=..,port=..,..` of a replica. A client that tells no port, such as a backup, is none.
fn replica(line: &str) -> Option<Address> {
    let field = |name: &str| line.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    join(field("ip")?, field("port")?.parse().ok()?)
}

fn join(host: &str, port: u64) -> Option<Address> {
    let text = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIMARY: &str = "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\nrun_id:abc\r\n# Memory\r\nused_memory:1000\r\ntotal_system_memory:9000\r\n\
        # Replication\r\nrole:master\r\nconnected_slaves:2\r\nslave0:ip=127.0.0.1,port=6380,state=online,offset=1,lag=0\r\nslave1:ip=127.0.0.1,port=0,state=wait_bgsave,offset=0,lag=0\r\n\
        master_replid:ffff\r\nmaster_repl_offset:77\r\n# Keyspace\r\ndb0:keys=3,expires=1,avg_ttl=0\r\ndb9:keys=4,expires=0,avg_ttl=0,keys_with_volatile_items=2\r\n";

    #[test]
    fn a_primary_is_read() {
        let facts = Facts::parse(PRIMARY).unwrap();
        assert_eq!((facts.engine, facts.version, facts.role), (Engine::Redis, Version(7, 0, 15), Role::Primary));
        assert_eq!((facts.keys, facts.used_memory_bytes, facts.replication_offset, facts.connected_replicas), (7, 1000, 77, 2));
        assert_eq!(facts.expiring_items_keys, 2);
        assert_eq!(facts.replicas, ["127.0.0.1:6380".parse().unwrap()]);
    }

    #[test]
    fn a_replica_is_read_and_valkey_told_apart() {
        let text = "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.1\r\nrole:slave\r\nmaster_host:::1\r\nmaster_port:6379\r\n\
            master_link_status:up\r\nmaster_last_io_seconds_ago:3\r\nmaster_sync_in_progress:0\r\nslave_repl_offset:5\r\nslave_priority:100\r\n";
        let facts = Facts::parse(text).unwrap();
        assert_eq!((facts.engine, facts.version), (Engine::Valkey, Version(8, 0, 1)));
        assert_eq!(facts.primary, Some("[::1]:6379".parse().unwrap()));
        assert!(facts.link_up && !facts.syncing);
        assert_eq!(facts.last_io_secs, 3);
    }

    #[test]
    fn nonsense_is_refused_without_panic() {
        for text in ["", "role:master", "redis_version:x\r\nrole:master", "redis_version:7.0\r\nrole:sentinel", "::::"] {
            assert_eq!(Facts::parse(text), None, "{text}");
        }
    }
}
