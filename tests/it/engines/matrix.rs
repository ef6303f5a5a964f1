//! Goal: on every engine, in every topology, by both framings, what is restored equals what was there. Method: a backup through
//! the real service, whose artifacts are loaded into empty servers of the same engine and compared with the source.
//!
//! `make matrix` runs the whole table and prints it; a cell that fails fails the run.

use crate::content::proof::decode;
use crate::support::cluster;
use crate::support::engines::{self, Engine};
use crate::support::sentinel;
use crate::support::server::{RedisServer, Transfer};
use crate::support::service::{OPERATION, Setup, error_of, reason_of};
use crate::support::{compare, data, load};
use redkeep::artifacts::manifest::{Manifest, ShardManifest};
use redkeep::pb::own;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

/// Names the file into which the table is written as well; it is always printed.
const FILE_VARIABLE: &str = "REDKEEP_MATRIX_FILE";

/// Cells that are filled at the same time.
const AT_ONCE: usize = 2;

/// Databases with data, where there are several.
const DATABASES: u32 = 2;

/// What is backed up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Topology {
    One,
    Replicas,
    Sentinel,
    ThreeShards,
    SixShards,
}

const TOPOLOGIES: [(Topology, &str); 5] = [
    (Topology::One, "one server"),
    (Topology::Replicas, "primary, 2 replicas"),
    (Topology::Sentinel, "Sentinel"),
    (Topology::ThreeShards, "cluster, 3 shards"),
    (Topology::SixShards, "cluster, 6 shards, 1 replica each"),
];

/// Servers, and how the service finds them.
struct Source {
    servers: Vec<RedisServer>,
    /// Servers of one shard; the first of them is its primary.
    of_shard: usize,
    nodes: Vec<String>,
    extra: String,
    /// Kept as long as the backup is taken.
    _sentinels: Option<sentinel::Sentinels>,
}

impl Source {
    async fn start(engine: Engine, topology: Topology, transfer: Transfer) -> Self {
        let builder = || engine.builder().transfer(transfer);
        match topology {
            Topology::One | Topology::Replicas | Topology::Sentinel => {
                let primary = builder().start().await;
                data::fill_every_type(&primary, DATABASES).await;
                let count = match topology {
                    Topology::One => 0,
                    Topology::Sentinel => 1,
                    _ => 2,
                };
                let mut servers = vec![primary];
                for _ in 0..count {
                    let replica = builder().replica_of(&servers[0]).start().await;
                    replica.wait_replica_linked().await;
                    servers.push(replica);
                }
                let sentinels = match topology {
                    Topology::Sentinel => Some(sentinel::Layout::default().program(engine.program()).start(1, &servers[0], count).await),
                    _ => None,
                };
                // Where there are sentinels, they are all that is told.
                let (nodes, extra) = match &sentinels {
                    Some(sentinels) => {
                        let nodes = sentinels.addresses();
                        (Vec::new(), format!("sentinel = {{ master = {:?}, nodes = {nodes:?} }}", sentinel::MASTER))
                    }
                    None => (vec![servers[0].address()], String::new()),
                };
                Self { nodes, extra, of_shard: servers.len(), servers, _sentinels: sentinels }
            }
            Topology::ThreeShards | Topology::SixShards => {
                let (shards, replicas) = if topology == Topology::ThreeShards { (3, 0) } else { (6, 1) };
                let from = builder().start().await;
                data::fill_every_type(&from, 1).await;
                let layout = cluster::Layout::new(shards, replicas).program(engine.program()).nodes(|node| node.transfer(transfer));
                let cluster = layout.start().await;
                cluster.fill_from(&from).await;
                for shard in &cluster.shards {
                    shard.caught_up().await;
                }
                let nodes = vec![cluster.address()];
                let servers = cluster.shards.into_iter().flat_map(|shard| std::iter::once(shard.primary).chain(shard.replicas)).collect();
                Self { servers, of_shard: 1 + replicas, nodes, extra: String::new(), _sentinels: None }
            }
        }
    }

    /// The server of this name, and the primary of its shard: in cluster mode a replica does not read its keys out.
    fn named(&self, host: &str) -> (&RedisServer, &RedisServer) {
        let index = self.servers.iter().position(|server| server.address() == host).unwrap_or_else(|| panic!("{host} is none of the servers"));
        (&self.servers[index], &self.servers[index / self.of_shard * self.of_shard])
    }
}

/// Takes a backup and restores it; tells its level and the version of its dump. Whatever is wrong panics.
async fn cell(engine: Engine, topology: Topology, transfer: Transfer) -> String {
    let source = Source::start(engine, topology, transfer).await;
    let nodes: Vec<&str> = source.nodes.iter().map(String::as_str).collect();
    let service = Setup::new().cluster("main", &nodes, &source.extra).start().await;
    let operation = service.clients.create("main", "matrix").await.expect("the backup is accepted");
    let operation = service.clients.ended(&operation.id, OPERATION).await;
    if let Some(error) = error_of(&operation) {
        panic!("{}: {}", reason_of(&operation), error.message);
    }
    let backup = service.clients.all_backups().await.into_iter().find(|backup| backup.operation_id == operation.id).expect("the backup is listed");
    let folder = service.setup.artifact_root().join(&backup.path);
    let manifest: Manifest = serde_json::from_slice(&std::fs::read(folder.join("manifest.json")).expect("there is a manifest")).expect("it can be read");
    let mut versions = BTreeMap::new();
    for shard in &manifest.shards {
        let (server, primary) = source.named(&shard.source_host);
        // The log says which way the dump went: to a file, or to the socket.
        let target = match transfer {
            Transfer::Disk => "target: disk",
            Transfer::Diskless => "target: replicas sockets",
        };
        assert!(server.log().lines().any(|line| line.contains("BGSAVE") && line.contains(target)), "{}: no {target}", shard.name);
        restores(engine, &folder, service.setup.folder(), shard, primary).await;
        versions.insert(serde_json::to_string(&shard.walk.dialect).unwrap_or_default().trim_matches('"').to_uppercase(), shard.walk.version);
    }
    let keys: i64 = backup.shards.iter().map(|shard| shard.keys).sum();
    assert!(keys > 100, "{keys} keys");
    let level = own::backup::Level::try_from(backup.level).map(|level| level.as_str_name().to_owned()).unwrap_or_default();
    service.stop().await;
    let versions: Vec<_> = versions.into_iter().map(|(dialect, version)| format!("{dialect} {version}")).collect();
    format!("{} ({})", level.trim_start_matches("LEVEL_"), versions.join(", "))
}

/// Loads one shard's artifact into an empty server of the engine, which must equal the source.
async fn restores(engine: Engine, folder: &Path, scratch: &Path, shard: &ShardManifest, source: &RedisServer) {
    let rdb = scratch.join(format!("{}.rdb", shard.name));
    decode(folder, &shard.segments, &rdb);
    load::try_check_rdb_with(&engine.checker(), &rdb).unwrap_or_else(|report| panic!("{}: {report}", engine.checker().display()));
    let restored = load::load_rdb_with(engine.builder(), &rdb).await.unwrap_or_else(|error| panic!("{}: {error}", shard.name));
    compare::assert_same_content(source, &restored).await;
}

/// Fills the cells and draws the table; the second value is how many failed.
async fn draw(engines: &[Engine]) -> (String, usize) {
    let framings = [(Transfer::Disk, "disk"), (Transfer::Diskless, "diskless")];
    let started = Instant::now();
    let mut todo: Vec<_> = engines
        .iter()
        .flat_map(|engine| framings.iter().flat_map(move |(transfer, _)| TOPOLOGIES.iter().map(move |(topology, _)| (*engine, *topology, *transfer))))
        .collect();
    todo.reverse();
    let mut running = tokio::task::JoinSet::new();
    let mut cells = BTreeMap::new();
    loop {
        while running.len() < AT_ONCE
            && let Some((engine, topology, transfer)) = todo.pop()
        {
            running.spawn_local(async move {
                let begun = Instant::now();
                // A task of its own, so that what panics fails one cell.
                let outcome = tokio::task::spawn_local(cell(engine, topology, transfer)).await.map_err(why);
                let place = format!("{} {topology:?} {transfer:?}", engine.title());
                match &outcome {
                    Ok(level) => eprintln!("{place}: {level}, {:.1} s", begun.elapsed().as_secs_f32()),
                    Err(why) => eprintln!("{place}: FAILED: {why}"),
                }
                (place, outcome)
            });
        }
        match running.join_next().await {
            Some(filled) => {
                cells.extend(filled.ok());
            }
            None => break,
        }
    }
    let failed = cells.values().filter(|outcome| outcome.is_err()).count();
    let mut table = "| engine | framing |".to_owned();
    TOPOLOGIES.iter().for_each(|(_, title)| write!(table, " {title} |").expect("a text grows"));
    table.push_str("\n|---|---|");
    table.push_str(&"---|".repeat(TOPOLOGIES.len()));
    for engine in engines {
        for (transfer, framing) in framings {
            write!(table, "\n| {} | {framing} |", engine.title()).expect("a text grows");
            for (topology, _) in TOPOLOGIES {
                let outcome = &cells[&format!("{} {topology:?} {transfer:?}", engine.title())];
                write!(table, " {} |", outcome.as_deref().unwrap_or("**FAILED**")).expect("a text grows");
            }
        }
    }
    eprintln!("{} cells in {:.0} s", cells.len(), started.elapsed().as_secs_f32());
    (table, failed)
}

/// The words of a panic.
fn why(error: tokio::task::JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else { return "it was cancelled".to_owned() };
    let words = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned()));
    words.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; `make matrix` runs it"]
async fn the_whole_table() {
    let (table, failed) = tokio::task::LocalSet::new().run_until(draw(&engines::require_all())).await;
    println!("{table}");
    if let Some(file) = std::env::var_os(FILE_VARIABLE).filter(|file| !file.is_empty()) {
        std::fs::write(&file, format!("{table}\n")).unwrap_or_else(|error| panic!("{}: {error}", Path::new(&file).display()));
    }
    assert_eq!(failed, 0, "cells that failed");
}

/// Goal: the first column of the table holds on every run of the tests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_of_every_engine() {
    for engine in engines::present() {
        super::on(engine);
        let level = cell(engine, Topology::One, Transfer::Diskless).await;
        assert!(level.starts_with("WALKED"), "{}: {level}", engine.title());
    }
}
