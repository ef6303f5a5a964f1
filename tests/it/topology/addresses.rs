//! Goal: servers are reached where they are, whatever they announce. Method: announced addresses at which nobody is.

use crate::support::cluster::{Cluster, Layout};
use crate::support::server::RedisServer;
use crate::support::service::Setup;
use std::fmt::Write as _;

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
