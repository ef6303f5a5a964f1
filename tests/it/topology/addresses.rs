//! Goal: servers are reached where they are, whatever they announce. Method: announced addresses at which nobody is.

use crate::support::cluster::{Cluster, Layout};
use crate::support::server::RedisServer;
use crate::support::service::{OPERATION, Setup, error_of, reason_of};
use crate::support::until;
use std::fmt::Write as _;
use std::time::Duration;

/// A network that nobody routes to.
const NOWHERE: &str = "192.0.2.1";

#[tokio::test]
async fn announced_addresses_are_mapped() {
    let primary = RedisServer::start().await;
    let replica = RedisServer::builder().replica_of(&primary).config(&format!("replica-announce-ip {NOWHERE}")).start().await;
    replica.wait_replica_linked().await;
    let map = format!("address_map = {{ \"{NOWHERE}:{}\" = \"{}\" }}", replica.port(), replica.address());
    let service = Setup::new().cluster("main", &[&primary.address()], &map).start().await;
    assert_eq!(service.clients.take("main", "a").await.shards[0].source_host, replica.address());
    service.stop().await;
}

#[tokio::test]
async fn a_cluster_behind_other_addresses_is_mapped() {
    let cluster: Cluster = Layout::new(3, 0).start().await;
    let mut map = String::from("address_map = { ");
    for server in cluster.servers() {
        write!(map, "\"{NOWHERE}:{}\" = \"{}\", ", server.port(), server.address()).expect("a text grows");
        server.command(&["CONFIG", "SET", "cluster-announce-ip", NOWHERE]).await.ok();
    }
    map.push('}');
    let map = map.replace(", }", " }");
    let service = Setup::new().cluster("main", &[&cluster.address()], &map).start().await;
    let backup = service.clients.take("main", "a").await;
    assert_eq!(
        backup.shards.iter().map(|shard| shard.source_host.clone()).collect::<Vec<_>>(),
        cluster.servers().map(RedisServer::address).collect::<Vec<_>>()
    );
    service.stop().await;
}

#[tokio::test]
async fn a_server_is_reached_by_its_socket() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("redis.sock");
    let server = RedisServer::builder().config(&format!("unixsocket {}", socket.display())).start().await;
    server.command(&["SET", "a", "b"]).await.ok();
    let node = format!("[{{ address = \"unix:{}\", memory_limit = \"1GiB\", failure_domain = \"rack-1\" }}]", socket.display());
    let service = Setup::new().cluster_of("main", &node, "").start().await;
    let backup = service.clients.take("main", "a").await;
    assert_eq!((backup.shards[0].source_host.clone(), backup.shards[0].keys), (format!("unix:{}", socket.display()), 1));
    service.stop().await;
}

/// Goal: whoever announces an address does not get the credentials there. Method: nodes of a cluster with a password announce
/// addresses elsewhere; those that are listed are known again all the same.
#[tokio::test]
async fn foreign_addresses_are_given_no_credentials() {
    let cluster = Layout::new(3, 0).node_timeout_ms(60_000).nodes(|node| node.password("hush")).start().await;
    // The first keeps its own, so that the others can go on telling it theirs.
    for server in cluster.servers().skip(1) {
        server.command(&["CONFIG", "SET", "cluster-announce-ip", NOWHERE]).await.ok();
    }
    let first = &cluster.shards[0].primary;
    until("the addresses are told", Duration::from_secs(30), async || {
        (first.command(&["CLUSTER", "NODES"]).await.text().matches(NOWHERE).count() == 2).then_some(())
    })
    .await;
    let addresses: Vec<String> = cluster.servers().map(RedisServer::address).collect();
    let all: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let setup = Setup::new().cluster("main", &all, "password_file = \"secret\"").cluster("one", &all[..1], "password_file = \"secret\"");
    std::fs::write(setup.folder().join("secret"), "hush").expect("a password is written");
    let service = setup.start().await;
    let backup = service.clients.take("main", "a").await;
    let mut hosts: Vec<String> = backup.shards.iter().map(|shard| shard.source_host.clone()).collect();
    hosts.sort();
    let mut expected = addresses.clone();
    expected.sort();
    assert_eq!(hosts, expected);
    let operation = service.clients.create("one", "b").await.expect("the backup is accepted");
    let operation = service.clients.ended(&operation.id, OPERATION).await;
    let message = error_of(&operation).map(|status| status.message.clone()).unwrap_or_default();
    assert_eq!(reason_of(&operation), "SOURCE_PERMISSION", "{message}");
    assert!(message.contains("outside discovery_allow"), "{message}");
    service.stop().await;
}
