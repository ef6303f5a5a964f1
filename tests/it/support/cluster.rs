//! Real clusters: every shard a primary and its replicas, all on loopback, joined within seconds.
//!
//! Works with every engine from Redis 6.2 on: it uses no command that is younger.

use super::resp::{Connection, Pipeline, Value};
use super::server::{Builder, RedisServer};
use super::until;
use crc_fast::{CrcAlgorithm, checksum};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

/// Slots of a cluster.
pub const SLOTS: u16 = 16_384;

/// Time for all nodes to know one another and for the replicas to link.
const JOIN_BOUND: Duration = Duration::from_secs(60);

/// Keys that are carried over together.
const ROUND_KEYS: usize = 200;

/// What a cluster is started with.
#[derive(Clone, Debug)]
#[must_use]
pub struct Layout {
    shards: usize,
    replicas: usize,
    node: Builder,
    node_timeout_ms: u32,
    covers: Vec<Range<u16>>,
}

impl Layout {
    /// So many shards with so many replicas each; the slots are shared out evenly, in order.
    pub fn new(shards: usize, replicas: usize) -> Self {
        let bound = |shard: usize| (usize::from(SLOTS) * shard / shards) as u16;
        Self {
            shards,
            replicas,
            node: RedisServer::builder().cluster_node(),
            node_timeout_ms: 5000,
            covers: (0..shards).map(|shard| bound(shard)..bound(shard + 1)).collect(),
        }
    }

    /// Another program than the default. A script must `exec` the server.
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.node = self.node.program(program);
        self
    }

    /// Changes what every node is started with.
    pub fn nodes(mut self, change: impl FnOnce(Builder) -> Builder) -> Self {
        self.node = change(self.node);
        self
    }

    /// Time after which a silent node is thought to be gone; 5 s unless told otherwise.
    pub fn node_timeout_ms(mut self, millis: u32) -> Self {
        self.node_timeout_ms = millis;
        self
    }

    /// Leaves slots without an owner: the cluster serves the others all the same.
    pub fn without_slots(mut self, shard: usize, slots: Range<u16>) -> Self {
        let all = self.covers[shard].clone();
        assert!(all.start < slots.start && slots.end == all.end, "slots at the end of the shard's");
        self.covers[shard] = all.start..slots.start;
        self.node = self.node.config("cluster-require-full-coverage no");
        self
    }

    /// Starts all nodes and joins them.
    pub async fn start(self) -> Cluster {
        let count = self.shards * (1 + self.replicas);
        let node = self.node.clone().config(&format!("cluster-node-timeout {}", self.node_timeout_ms));
        let mut nodes = Vec::new();
        for started in (0..count).map(|_| tokio::spawn(node.clone().start())) {
            nodes.push(started.await.expect("a server starts"));
        }
        for (shard, server) in nodes.iter().enumerate() {
            if let Some(slots) = self.covers.get(shard) {
                let mut request = vec!["CLUSTER".to_owned(), "ADDSLOTS".to_owned()];
                request.extend(slots.clone().map(|slot| slot.to_string()));
                server.command(&request).await.ok();
            }
            server.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(shard + 1).to_string()]).await.ok();
        }
        join(&nodes).await;
        let mut nodes = nodes.into_iter();
        let mut shards: Vec<Shard> = nodes.by_ref().take(self.shards).map(|primary| Shard { primary, replicas: Vec::new() }).collect();
        for (index, replica) in nodes.enumerate() {
            let shard = &mut shards[index % self.shards];
            let id = node_id(&shard.primary).await;
            until("a replica is one", JOIN_BOUND, async || replica.command(&["CLUSTER", "REPLICATE", &id]).await.error().is_none().then_some(())).await;
            shard.replicas.push(replica);
        }
        let cluster = Cluster { shards };
        cluster.settled().await;
        cluster
    }
}

/// Makes the nodes know one another. Each is told of each, so that nobody waits for gossip.
async fn join(nodes: &[RedisServer]) {
    for (index, server) in nodes.iter().enumerate() {
        for other in &nodes[..index] {
            server.command(&["CLUSTER", "MEET", "127.0.0.1", &other.port().to_string()]).await.ok();
        }
    }
    for server in nodes {
        until("all nodes know one another", JOIN_BOUND, async || {
            let lines = server.command(&["CLUSTER", "NODES"]).await.text();
            let known = lines.lines().filter(|line| !line.contains("handshake") && line.contains(" connected")).count();
            (known == nodes.len()).then_some(())
        })
        .await;
    }
}

/// The servers of one shard.
#[derive(Debug)]
pub struct Shard {
    /// The server that was its primary at the start.
    pub primary: RedisServer,
    /// The others.
    pub replicas: Vec<RedisServer>,
}

impl Shard {
    /// Waits until the replicas have all that the primary has.
    pub async fn caught_up(&self) {
        for replica in &self.replicas {
            until("the replica has caught up", JOIN_BOUND, async || {
                let (mine, theirs) = (replica.info_fields().await, self.primary.info_fields().await);
                (mine.get("slave_repl_offset") == theirs.get("master_repl_offset")).then_some(())
            })
            .await;
        }
    }
}

/// A running cluster; its servers are killed on drop.
#[derive(Debug)]
pub struct Cluster {
    /// Its shards, in order of their slots.
    pub shards: Vec<Shard>,
}

impl Cluster {
    /// Starts one with the default program.
    pub async fn start(shards: usize, replicas: usize) -> Self {
        Layout::new(shards, replicas).start().await
    }

    /// Every server, primaries first in each shard.
    pub fn servers(&self) -> impl Iterator<Item = &RedisServer> {
        self.shards.iter().flat_map(|shard| std::iter::once(&shard.primary).chain(&shard.replicas))
    }

    /// Address of the first primary: one is enough.
    pub fn address(&self) -> String {
        self.shards[0].primary.address()
    }

    /// Waits until every node thinks that the cluster works, all agree who is what, and every replica is linked.
    pub async fn settled(&self) {
        for server in self.servers() {
            let info = async || server.command(&["CLUSTER", "INFO"]).await.text();
            let whole = self.is_whole().await;
            until("the cluster works", JOIN_BOUND, async || (!whole || info().await.contains("cluster_state:ok")).then_some(())).await;
        }
        for replica in self.shards.iter().flat_map(|shard| &shard.replicas) {
            if replica.info("role").await == "slave" {
                replica.wait_replica_linked().await;
            }
        }
        until("all nodes agree", JOIN_BOUND, async || {
            let mut views = std::collections::BTreeSet::new();
            for server in self.servers() {
                views.insert(roles(&server.command(&["CLUSTER", "NODES"]).await.text()));
            }
            (views.len() == 1).then_some(())
        })
        .await;
    }

    async fn is_whole(&self) -> bool {
        !self.shards[0].primary.command(&["CONFIG", "GET", "cluster-require-full-coverage"]).await.items().iter().any(|item| item.text() == "no")
    }

    /// The primary that owns a slot at the start.
    pub fn owner(&self, slot: u16) -> &RedisServer {
        &self.shards[(usize::from(slot) * self.shards.len()) / usize::from(SLOTS)].primary
    }

    /// Carries every key of database 0 of a server to the shard that owns it, and its functions to every shard.
    pub async fn fill_from(&self, server: &RedisServer) {
        let mut from = server.connect().await;
        let mut to: Vec<Connection> = Vec::new();
        for shard in &self.shards {
            to.push(shard.primary.connect().await);
        }
        let keys = from.command(&["KEYS", "*"]).await;
        for keys in keys.items().chunks(ROUND_KEYS) {
            let mut dumps = Pipeline::default();
            for key in keys {
                dumps.push(&[&b"DUMP"[..], key.bytes()]).push(&[&b"PTTL"[..], key.bytes()]);
            }
            let dumps = from.pipeline(&dumps).await;
            let mut restores: Vec<_> = to.iter().map(|_| Pipeline::default()).collect();
            for (key, dump) in keys.iter().zip(dumps.chunks(2)) {
                let [payload, lifetime] = dump else { panic!("a key has two replies") };
                // It may have expired since it was listed.
                if *payload == Value::Nil {
                    continue;
                }
                let lifetime = lifetime.integer().max(0).to_string();
                let request: [&[u8]; 4] = [b"RESTORE", key.bytes(), lifetime.as_bytes(), payload.bytes()];
                let shard = self.shard_of(slot_of(key.bytes()));
                restores[shard].push(&request);
            }
            for (to, restores) in to.iter_mut().zip(&restores) {
                to.pipeline(restores).await.iter().for_each(Value::ok);
            }
        }
        if server.version() >= (7, 0, 0) {
            let functions = from.command(&["FUNCTION", "DUMP"]).await;
            for to in &mut to {
                to.command(&[&b"FUNCTION"[..], b"RESTORE", functions.bytes()]).await.ok();
            }
        }
    }

    fn shard_of(&self, slot: u16) -> usize {
        let owner = self.owner(slot).port();
        self.shards.iter().position(|shard| shard.primary.port() == owner).expect("the owner is a primary")
    }
}

/// Who is what by the lines of CLUSTER NODES, without what differs from node to node.
fn roles(lines: &str) -> Vec<String> {
    let role = |line: &str| {
        let words: Vec<_> = line.split(' ').collect();
        format!(
            "{} {} {} {:?}",
            words[0],
            words[2].replace("myself,", ""),
            words[3],
            words[8..].iter().filter(|word| !word.starts_with('[')).collect::<Vec<_>>()
        )
    };
    let mut roles: Vec<_> = lines.lines().map(role).collect();
    roles.sort();
    roles
}

/// The identifier of a node.
pub async fn node_id(server: &RedisServer) -> String {
    server.command(&["CLUSTER", "MYID"]).await.text()
}

/// The slot of a key.
pub fn slot_of(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').map(|open| &key[open + 1..]);
    let tag = tag.and_then(|rest| Some(&rest[..rest.iter().position(|byte| *byte == b'}')?])).filter(|tag| !tag.is_empty());
    (checksum(CrcAlgorithm::Crc16Xmodem, tag.unwrap_or(key)) % u64::from(SLOTS)) as u16
}

/// Begins to move a slot: both sides know of it, and no key has moved.
pub async fn begin_move(slot: u16, from: &RedisServer, to: &RedisServer) {
    to.command(&["CLUSTER", "SETSLOT", &slot.to_string(), "IMPORTING", &node_id(from).await]).await.ok();
    from.command(&["CLUSTER", "SETSLOT", &slot.to_string(), "MIGRATING", &node_id(to).await]).await.ok();
}

/// Moves so many keys of a slot, and tells how many there were to move.
pub async fn move_keys(slot: u16, count: usize, from: &RedisServer, to: &RedisServer) -> usize {
    let keys = from.command(&["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), &count.to_string()]).await;
    for key in keys.items() {
        let port = to.port().to_string();
        from.command(&[&b"MIGRATE"[..], b"127.0.0.1", port.as_bytes(), key.bytes(), b"0", b"5000"]).await.ok();
    }
    keys.items().len()
}

/// Ends the move of a slot: it belongs to `to`.
pub async fn end_move(slot: u16, from: &RedisServer, to: &RedisServer) {
    let id = node_id(to).await;
    for server in [to, from] {
        server.command(&["CLUSTER", "SETSLOT", &slot.to_string(), "NODE", &id]).await.ok();
    }
}
