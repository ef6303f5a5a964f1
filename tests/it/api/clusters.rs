//! Goal: clusters are shown as they are, also when their servers are dead; and a check says in words what a backup would meet.

use crate::support::answers::{bare, fields};
use crate::support::scripted::ScriptedRedis;
use crate::support::service::{Clients, Setup};
use managed::{cluster, host};
use own::finding::Severity;
use redkeep::pb::{managed, own};
use std::net::TcpListener;
use std::time::{Duration, Instant};
use tonic::Code;

/// Longest answer of a read about dead servers. The look at them takes a second; the rest is for a machine with much to do.
const DEAD_READ: Duration = Duration::from_millis(3500);

/// A primary with a replica, each of which tells of the other.
async fn pair() -> (ScriptedRedis, ScriptedRedis) {
    let (primary, replica) = (ScriptedRedis::willing().await, ScriptedRedis::willing().await);
    primary.add_replica("127.0.0.1", replica.port(), "online");
    replica.become_replica_of("127.0.0.1", primary.port()).set_info("run_id", "a".repeat(40));
    (primary, replica)
}

/// An address where connections are made and nobody ever speaks.
fn blackhole() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// An address where nobody listens.
fn closed() -> String {
    blackhole().1
}

/// Awaits a read about dead servers, which is to be answered in time.
async fn in_time<T>(what: &str, read: impl Future<Output = T>) -> T {
    let started_at = Instant::now();
    let answer = read.await;
    assert!(started_at.elapsed() < DEAD_READ, "{what}: {:?}", started_at.elapsed());
    answer
}

async fn list(clients: &Clients, folder: &str, filter: &str) -> Result<Vec<String>, tonic::Status> {
    let request = managed::ListClustersRequest { folder_id: folder.into(), filter: filter.into(), ..Default::default() };
    Ok(bare(clients.clusters.clone().list(request).await)?.clusters.into_iter().map(|cluster| cluster.id).collect())
}

async fn hosts(clients: &Clients, cluster: &str) -> Vec<managed::Host> {
    let request = managed::ListClusterHostsRequest { cluster_id: cluster.into(), ..Default::default() };
    bare(clients.clusters.clone().list_hosts(request).await).unwrap().hosts
}

async fn check(clients: &Clients, cluster: &str) -> own::CheckClusterResponse {
    bare(clients.fleet.clone().check_cluster(own::CheckClusterRequest { cluster_id: cluster.into() }).await).unwrap()
}

#[tokio::test]
async fn a_cluster_with_its_hosts_and_its_shard() {
    let (primary, replica) = pair().await;
    let extra = "name = \"shop\"\ndescription = \"of the shop\"\nlabels = { team = \"shop\" }\nzone = \"a\"";
    let service = Setup::new().cluster("main", &[&replica.address()], extra).start().await;
    let mut clients = service.clients.clone();
    let shown = bare(clients.clusters.get(managed::GetClusterRequest { cluster_id: "main".into() }).await).unwrap();
    assert_eq!((shown.id.as_str(), shown.folder_id.as_str(), shown.name.as_str(), shown.description.as_str()), ("main", "default", "shop", "of the shop"));
    assert_eq!((shown.health(), shown.status(), shown.is_ha), (cluster::Health::Alive, cluster::Status::Running, true));
    assert_eq!((shown.labels["team"].as_str(), shown.created_at.is_some()), ("shop", true));
    let config = shown.config.unwrap();
    assert_eq!((config.version.as_str(), config.full_version.as_str()), ("7.0", "7.0.15"));

    let mut seen: Vec<_> = hosts(&clients, "main").await.iter().map(|host| (host.name.clone(), host.role(), host.health(), host.shard_name.clone())).collect();
    let shard = || "shard1".to_owned();
    let mut expected =
        vec![(primary.address(), host::Role::Master, host::Health::Alive, shard()), (replica.address(), host::Role::Replica, host::Health::Alive, shard())];
    seen.sort();
    expected.sort();
    assert_eq!(seen, expected, "the primary was found through its replica");
    assert!(hosts(&clients, "main").await.iter().all(|host| host.cluster_id == "main" && host.zone_id == "a"));

    let shards = managed::ListClusterShardsRequest { cluster_id: "main".into(), ..Default::default() };
    let shards = bare(clients.clusters.list_shards(shards).await).unwrap().shards;
    let get = |shard_name: &str| managed::GetClusterShardRequest { cluster_id: "main".into(), shard_name: shard_name.into() };
    let shard = bare(clients.clusters.get_shard(get("shard1")).await).unwrap();
    assert_eq!((shards, shard.name.as_str(), shard.cluster_id.as_str(), shard.is_ha), (vec![shard.clone()], "shard1", "main", true));
    assert_eq!(clients.clusters.get_shard(get("shard2")).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(fields(clients.clusters.get_shard(get("a b")).await), ["shard_name"]);
    service.stop().await;
}

#[tokio::test]
async fn clusters_are_listed_by_folder_and_name() {
    let source = ScriptedRedis::willing().await;
    let nodes = [source.address()];
    let nodes = [nodes[0].as_str()];
    let service = Setup::new()
        .cluster("a", &nodes, "")
        .cluster("b", &nodes, "name = \"second\"")
        .cluster("c", &nodes, "")
        .cluster("d", &nodes, "folder_id = \"shop\"")
        .start()
        .await;
    let clients = &service.clients;
    assert_eq!(list(clients, "default", "").await.unwrap(), ["a", "b", "c"]);
    assert_eq!(list(clients, "shop", "").await.unwrap(), ["d"]);
    assert!(list(clients, "elsewhere", "").await.unwrap().is_empty());
    assert_eq!(list(clients, "default", "name=\"second\"").await.unwrap(), ["b"]);
    assert_eq!(list(clients, "default", " name = \"c\" ").await.unwrap(), ["c"]);
    assert!(list(clients, "default", "name=\"d\"").await.unwrap().is_empty());
    for bad in ["second", "name=second", "id=\"a\"", "name!=\"a\"", "name=\"a\" AND name=\"b\""] {
        assert_eq!(fields(list(clients, "default", bad).await), ["filter"], "{bad}");
    }
    assert_eq!(fields(list(clients, "No Folder", "").await), ["folder_id"]);
    let mut found = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = managed::ListClustersRequest { folder_id: "default".into(), page_size: 1, page_token, filter: String::new() };
        let page = bare(clients.clusters.clone().list(request).await).unwrap();
        assert_eq!(page.clusters.len(), 1);
        found.extend(page.clusters.into_iter().map(|cluster| cluster.id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(found, ["a", "b", "c"]);
    service.stop().await;
}

#[tokio::test]
async fn a_dead_redis_never_blocks_a_read() {
    // Method: servers that accept and stay silent; also behind a chain of living ones, each of which tells of the next and of
    // one that is dead, so that looks one after another would take four seconds.
    let silent: Vec<_> = (0..4).map(|_| blackhole()).collect();
    let living = [ScriptedRedis::willing().await, ScriptedRedis::willing().await, ScriptedRedis::willing().await];
    for (number, host) in living.iter().enumerate() {
        host.set_info("run_id", number.to_string().repeat(40));
        host.add_replica("127.0.0.1", silent[number + 1].0.local_addr().unwrap().port(), "online");
        if number > 0 {
            host.become_replica_of("127.0.0.1", living[number - 1].port());
            living[number - 1].add_replica("127.0.0.1", host.port(), "online");
        }
    }
    let (dead, primary) = (silent[0].1.as_str(), living[0].address());
    let service = Setup::new().cluster("dead", &[dead], "").cluster("half", &[dead, &primary], "").start().await;
    let clients = &service.clients;

    assert_eq!(in_time("List", list(clients, "default", "")).await.unwrap(), ["dead", "half"]);
    for (cluster, health) in [("dead", cluster::Health::Dead), ("half", cluster::Health::Degraded)] {
        let get = managed::GetClusterRequest { cluster_id: cluster.into() };
        let mut client = clients.clusters.clone();
        let shown = in_time("Get", client.get(get)).await.unwrap().into_inner();
        assert_eq!((shown.health(), shown.status()), (health, cluster::Status::Running), "{cluster}");
        in_time("ListHosts", hosts(clients, cluster)).await;
    }
    let seen = hosts(clients, "half").await;
    let shown = |address: &str| seen.iter().find(|host| host.name == address).map(|host| (host.role(), host.health()));
    assert_eq!(shown(&primary), Some((host::Role::Master, host::Health::Alive)));
    for host in &living[1..] {
        assert_eq!(shown(&host.address()), Some((host::Role::Replica, host::Health::Alive)));
    }
    for (_, address) in &silent {
        assert_eq!(shown(address), Some((host::Role::Unknown, host::Health::Dead)));
    }
    service.stop().await;
}

#[tokio::test]
async fn a_check_says_what_a_backup_would_meet() {
    let (primary, replica) = pair().await;
    primary.set_keys(0, 41, 0);
    replica.set_keys(0, 41, 0);
    let alone = ScriptedRedis::willing().await;
    let service = Setup::new()
        .executor("drain", "\"0s\"")
        .cluster("main", &[&primary.address()], "")
        .cluster("closed", &[&closed()], "")
        .cluster("alone", &[&alone.address()], "")
        .start()
        .await;
    let clients = &service.clients;

    let ready = check(clients, "main").await;
    assert!(ready.ready, "{ready:#?}");
    assert!(ready.summary.starts_with(&format!("a backup would be taken from {}, a replica with 41 keys", replica.address())), "{}", ready.summary);
    let chosen: Vec<_> = ready.hosts.iter().filter(|host| host.chosen).map(|host| (host.name.clone(), host.role.as_str(), host.reachable)).collect();
    assert_eq!(chosen, [(replica.address(), "replica", true)]);
    assert!(ready.hosts.iter().all(|host| host.engine == "redis" && host.version == "7.0.15" && (host.chosen || !host.reason.is_empty())));
    assert!(ready.findings.iter().all(|finding| finding.severity() < Severity::Error), "{:#?}", ready.findings);

    // A replica that lost its primary is no source, and the primary of replicas is not used unasked.
    replica.set_info("master_link_status", "down");
    let refused = check(clients, "main").await;
    assert!(!refused.ready && refused.summary.contains("would fail"), "{refused:#?}");
    let told = |host: &ScriptedRedis, words: &str| {
        refused.findings.iter().any(|finding| {
            finding.severity() == Severity::Error && finding.host_name == host.address() && finding.message.contains(words) && !finding.remedy.is_empty()
        })
    };
    assert!(told(&replica, "lost the link to its primary") && told(&primary, "is not used unasked"), "{:#?}", refused.findings);

    let refused = check(clients, "closed").await;
    assert!(!refused.ready && refused.findings[0].severity() == Severity::Error && !refused.hosts[0].reachable, "{refused:#?}");
    assert!(!refused.findings[0].message.is_empty());

    // An operation at work is named: it would refuse another backup.
    alone.set_scripts(vec![vec![crate::support::scripted::Act::Stall]]);
    let operation = clients.create("alone", "first").await.unwrap();
    let busy = check(clients, "alone").await;
    assert!(busy.findings.iter().any(|finding| finding.severity() == Severity::Info && finding.message.contains(&operation.id)), "{busy:#?}");
    service.stop().await;
}
