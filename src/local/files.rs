//! The files that a server is started on: its configuration, and where the other nodes of its cluster are.
//!
//! A node of a cluster is given the whole cluster before it starts: who has which slots, and where everybody is. So no node has
//! to be made known to another, and none takes slots for itself because it has keys of them, which keys that had strayed into
//! its dump would make it do.
//!
//! Source: the form of `nodes.conf` as every version from 6.2 to the newest reads it.

use super::{BUS_OFFSET, Options};
use crate::backup::SlotRange;
use crate::cluster::{LocalHost, LocalServers};
use crate::redis::Password;
use aws_lc_rs::digest;
use std::fmt::Write as _;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Name of a server's configuration.
pub(super) const CONFIGURATION: &str = "server.conf";

/// Name of the file that tells a node of its cluster.
pub(super) const NODES: &str = "nodes.conf";

/// How long a node may be silent for the others before they count it as failed, in milliseconds.
const NODE_TIMEOUT_MS: u32 = 15_000;

/// Least number of databases; the servers' own default.
const DATABASES: u32 = 16;

/// Bytes of a digest that become a node's identifier.
const NODE_ID_BYTES: usize = 20;

/// First versions of Valkey with several databases in cluster mode.
const CLUSTER_DATABASES: u32 = 9;

/// What a shard of a cluster has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardLayout {
    /// Its name.
    pub name: String,
    /// Its slots; none outside of cluster mode.
    pub slots: Vec<SlotRange>,
}

/// What the servers of a cluster are to one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Its shards.
    pub shards: Vec<ShardLayout>,
    /// Whether it runs in cluster mode.
    pub cluster_mode: bool,
    /// Databases that its data needs.
    pub databases: u32,
    /// What makes the identifiers of its nodes its own.
    pub seed: String,
}

/// The identifier of a node: the same for the same server of the same cluster.
pub fn node_id(seed: &str, host: &LocalHost) -> String {
    let digest = digest::digest(&digest::SHA256, format!("{seed}/{}/{}", host.shard_name, host.number).as_bytes());
    digest.as_ref()[..NODE_ID_BYTES].iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The server of a shard that is started as its primary.
fn primary_of<'a>(servers: &'a LocalServers, shard: &str) -> Option<&'a LocalHost> {
    servers.hosts.iter().filter(|host| host.shard_name == shard).min_by_key(|host| host.number)
}

impl Layout {
    /// The text of a node's `nodes.conf`; `None` outside of cluster mode.
    pub(super) fn nodes(&self, servers: &LocalServers, me: &LocalHost, bind: IpAddr) -> Option<String> {
        if !self.cluster_mode {
            return None;
        }
        let mut text = String::new();
        for host in &servers.hosts {
            let epoch = self.shards.iter().position(|shard| shard.name == host.shard_name)? + 1;
            let primary = primary_of(servers, &host.shard_name)?;
            let (id, port) = (node_id(&self.seed, host), host.port);
            let (role, of) = if primary == host { ("master", "-".to_owned()) } else { ("slave", node_id(&self.seed, primary)) };
            let myself = if host == me { "myself," } else { "" };
            let _ = write!(text, "{id} {bind}:{port}@{} {myself}{role} {of} 0 0 {epoch} connected", port.saturating_add(BUS_OFFSET));
            if primary == host {
                for SlotRange { first, last } in &self.shards[epoch - 1].slots {
                    let _ = if first == last { write!(text, " {first}") } else { write!(text, " {first}-{last}") };
                }
            }
            text.push('\n');
        }
        let _ = writeln!(text, "vars currentEpoch {} lastVoteEpoch 0", self.shards.len());
        Some(text)
    }
}

/// What a configuration is made of.
pub(super) struct Server<'a> {
    pub(super) folder: &'a Path,
    pub(super) servers: &'a LocalServers,
    pub(super) host: &'a LocalHost,
    pub(super) layout: &'a Layout,
    pub(super) password: &'a Password,
    pub(super) options: &'a Options,
    /// Whether it has loaded its dump: from then on it may keep a log of changes. A server that begins with such a log reads no
    /// dump.
    pub(super) has_loaded: bool,
}

/// The text of a server's configuration.
pub(super) fn configuration(server: &Server<'_>) -> String {
    let Server { folder, servers, host, layout, password, options, has_loaded } = server;
    let primary = primary_of(servers, &host.shard_name).filter(|primary| *primary != *host);
    // A replica has nothing to load.
    let logs = servers.persistent && (*has_loaded || primary.is_some());
    let databases = layout.databases.max(DATABASES);
    let mut lines = vec![
        "# Written by Redkeep when the cluster was restored. Changes stay: CONFIG REWRITE may write them, too.".to_owned(),
        format!("bind {}", options.bind),
        format!("port {}", host.port),
        "protected-mode yes".to_owned(),
        "daemonize no".to_owned(),
        // The command line stays as it is: by it the process is known.
        "set-proc-title no".to_owned(),
        format!("dir {}", quoted(&folder.to_string_lossy())),
        format!("dbfilename {}", super::dump::DUMP),
        format!("requirepass {}", quoted(password.secret())),
        format!("masterauth {}", quoted(password.secret())),
        "save \"\"".to_owned(),
        format!("appendonly {}", if logs { "yes" } else { "no" }),
        "appendfsync everysec".to_owned(),
        "repl-diskless-sync yes".to_owned(),
        "repl-diskless-sync-delay 0".to_owned(),
        format!("databases {databases}"),
    ];
    if let Some(limit) = options.memory_limit {
        lines.extend([format!("maxmemory {limit}"), "maxmemory-policy noeviction".to_owned()]);
    }
    if layout.cluster_mode {
        lines.extend(["cluster-enabled yes".to_owned(), format!("cluster-config-file {NODES}"), format!("cluster-node-timeout {NODE_TIMEOUT_MS}")]);
        let major = servers.version.split('.').next().and_then(|major| major.parse::<u32>().ok()).unwrap_or(0);
        if servers.engine == "valkey" && major >= CLUSTER_DATABASES && layout.databases > 1 {
            lines.push(format!("cluster-databases {databases}"));
        }
    } else if let Some(primary) = primary {
        lines.push(format!("replicaof {} {}", options.bind, primary.port));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// A word of the configuration.
fn quoted(word: &str) -> String {
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Makes a folder that only its owner may enter, and those above it.
pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Puts a file that only its owner may read in the place of what was there. Durable on return.
pub(super) fn write(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let part = folder.join(format!("{name}.part"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&part, folder.join(name))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]
    use super::*;
    use crate::redis::cluster::{self, View};

    fn host(shard: &str, number: u32, port: u16) -> LocalHost {
        LocalHost { shard_name: shard.to_owned(), number, port }
    }

    fn servers(hosts: Vec<LocalHost>, persistent: bool) -> LocalServers {
        let text = |text: &str| text.to_owned();
        LocalServers { folder: text("/x"), program: text("/redis-server"), engine: text("redis"), version: text("7.0.15"), persistent, hosts }
    }

    fn layout(shards: &[(&str, u16, u16)]) -> Layout {
        let shard = |(name, first, last): &(&str, u16, u16)| ShardLayout { name: (*name).to_owned(), slots: vec![SlotRange { first: *first, last: *last }] };
        Layout { shards: shards.iter().map(shard).collect(), cluster_mode: true, databases: 1, seed: "operation".to_owned() }
    }

    #[test]
    fn nodes_are_told_the_whole_cluster() {
        // Goal: what nodes are told is the cluster that is meant. Method: the reader of CLUSTER NODES, whose form it is.
        let servers = servers(vec![host("shard1", 1, 7000), host("shard1", 2, 7001), host("shard2", 1, 7002)], true);
        let layout = layout(&[("shard1", 0, 8191), ("shard2", 8192, 16_383)]);
        let views = servers.hosts.iter().map(|me| {
            let text = layout.nodes(&servers, me, "127.0.0.1".parse().unwrap()).unwrap();
            View::parse(text.split("vars").next().unwrap()).unwrap()
        });
        let views: Vec<View> = views.collect();
        assert_eq!(views[1].me, node_id("operation", &servers.hosts[1]));
        let read = cluster::Layout::of(&views.iter().collect::<Vec<_>>());
        assert_eq!(read.fault(), None);
        let nodes: Vec<usize> = read.shards.iter().map(|shard| shard.node_ids.len()).collect();
        assert_eq!(nodes, [2, 1]);
        assert_eq!(read.addresses[&views[2].me].to_string(), "127.0.0.1:7002");
        let alone = Layout { cluster_mode: false, ..layout };
        assert_eq!(alone.nodes(&servers, &servers.hosts[0], "127.0.0.1".parse().unwrap()), None);
    }

    #[test]
    fn a_dump_is_loaded_before_a_log_is_kept() {
        let servers = servers(vec![host("shard1", 1, 7000), host("shard1", 2, 7001)], true);
        let alone = Layout { cluster_mode: false, databases: 40, ..layout(&[("shard1", 0, 0)]) };
        let text = |number: usize, has_loaded| {
            let server = Server {
                folder: Path::new("/a \"b\"/c"),
                servers: &servers,
                host: &servers.hosts[number],
                layout: &alone,
                password: &Password::new("secret"),
                options: &Options { memory_limit: Some(5), ..Options::new("/x") },
                has_loaded,
            };
            configuration(&server)
        };
        assert!(text(0, false).contains("\nappendonly no\n") && text(0, true).contains("\nappendonly yes\n"));
        assert!(text(0, true).contains("\ndir \"/a \\\"b\\\"/c\"\n") && text(0, true).contains("\ndatabases 40\n"));
        assert!(text(0, true).contains("\nmaxmemory 5\n") && !text(0, true).contains("replicaof"));
        let replica = text(1, false);
        assert!(replica.contains("\nreplicaof 127.0.0.1 7000\n") && replica.contains("\nappendonly yes\n"));
    }
}
