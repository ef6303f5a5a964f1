//! Goal: a restored cluster is as good as any other, from the acceptance of its restore to its deletion. Method: real servers, the
//! service in this process; contents are compared by a mirror of the restored server.

use super::*;
use crate::support::compare::assert_same_content;
use crate::support::server::RedisServer;
use crate::support::{data, local, until};
use managed::{cluster, host};
use std::time::Duration;
use tonic::Code;

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn one_server() {
    let source = RedisServer::start().await;
    data::fill_every_type(&source, 3).await;
    let (watch, setup) = local::keeper("");
    let service = setup.cluster("main", &[&source.address()], "").start().await;
    let clients = &service.clients;
    let backup = clients.take("main", "first").await;

    let labels = [("team".to_owned(), "shop".to_owned())].into();
    let request = RestoreClusterRequest { description: "of the shop".into(), labels, ..wish(&backup.id, "again") };
    let cluster = restored(clients, request).await;
    assert_eq!((cluster.id.as_str(), cluster.name.as_str(), cluster.folder_id.as_str()), ("again", "again", "default"));
    assert_eq!((cluster.description.as_str(), cluster.labels["team"].as_str(), cluster.sharded), ("of the shop", "shop", false));
    assert_eq!((cluster.status(), cluster.health()), (cluster::Status::Running, cluster::Health::Alive));
    assert_eq!(get(clients, "again").await.unwrap(), cluster);
    let hosts = hosts_of(clients, "again").await;
    assert_eq!(hosts.len(), 1);
    assert_eq!((hosts[0].role(), hosts[0].shard_name.as_str()), (host::Role::Master, "shard1"));
    let address = hosts[0].name.clone();
    let mirror = local::mirror(RedisServer::builder(), &service.setup, "again", &address).await;
    assert_same_content(&source, &mirror).await;
    drop(mirror);

    // It is written to, and backed up like any other.
    local::connect(&service.setup, "again", &address).await.command(&["SET", "later", "value"]).await.ok();
    let request = managed::BackupClusterRequest { cluster_id: "again".into() };
    let operation = bare(clients.clusters.clone().backup(request).await).unwrap();
    assert!(error_of(&clients.ended(&operation.id, OPERATION).await).is_none());
    let all = clients.all_backups().await;
    let of_it = all.iter().find(|backup| backup.cluster_id == "again").unwrap();
    assert_eq!(of_it.shards[0].keys, backup.shards[0].keys + 1);

    // The server outlives the service, and is taken up again.
    let before = watch.servers();
    assert_eq!(before.len(), 1);
    let setup = service.stop().await;
    assert_eq!(watch.servers(), before);
    let service = setup.start().await;
    let clients = &service.clients;
    assert_eq!(get(clients, "again").await.unwrap().health(), cluster::Health::Alive);
    assert_eq!(watch.servers(), before);

    // One that ends is started again, and has what it had.
    local::Watch::kill(before[0]);
    until("the server is back", SOON, async || (watch.servers().len() == 1 && watch.servers() != before).then_some(())).await;
    until("the cluster is alive", SOON, async || (get(clients, "again").await.unwrap().health() == cluster::Health::Alive).then_some(())).await;
    let mut connection = local::connect(&service.setup, "again", &address).await;
    assert_eq!(connection.command(&["GET", "later"]).await.text(), "value");

    deleted(clients, "again").await;
    assert!(watch.servers().is_empty());
    assert!(!service.setup.folder().join("clusters/again").exists());
    assert_eq!(get(clients, "again").await.unwrap_err().code(), Code::NotFound);
    // Its backups stay, and the first one makes another.
    assert_eq!(clients.all_backups().await.len(), 2);
    let cluster = restored(clients, wish(&backup.id, "Third_Time")).await;
    assert_eq!((cluster.id.len(), cluster.name.as_str()), (36, "Third_Time"));
    service.stop().await;
    assert_eq!(watch.servers().len(), 1);
}

#[tokio::test]
async fn a_primary_with_replicas_that_keep_no_log() {
    let source = RedisServer::start().await;
    data::fill_every_type(&source, 1).await;
    let (watch, setup) = local::keeper("memory_limit = \"256MiB\"");
    let service = setup.cluster("main", &[&source.address()], "").start().await;
    let clients = &service.clients;
    let backup = clients.take("main", "first").await;
    let persistence_mode = cluster::PersistenceMode::Off as i32;
    let made = restored(clients, RestoreClusterRequest { host_specs: hosts(3), persistence_mode, ..wish(&backup.id, "again") }).await;
    assert_eq!(made.persistence_mode, persistence_mode);
    let found = hosts_of(clients, "again").await;
    let roles: Vec<host::Role> = found.iter().map(Host::role).collect();
    assert_eq!(roles, [host::Role::Master, host::Role::Replica, host::Role::Replica]);
    assert_eq!(watch.servers().len(), 3);
    for host in &found {
        let mirror = local::mirror(RedisServer::builder(), &service.setup, "again", &host.name).await;
        assert_same_content(&source, &mirror).await;
    }
    let mut connection = local::connect(&service.setup, "again", &found[0].name).await;
    assert_eq!(connection.command(&["CONFIG", "GET", "maxmemory"]).await.items()[1].text(), (256 << 20).to_string());
    assert_eq!(connection.command(&["CONFIG", "GET", "appendonly"]).await.items()[1].text(), "no");
    // A backup comes from a replica, as always.
    let taken = clients.take("again", "of-it").await;
    assert_ne!(taken.shards[0].source_host, found[0].name);
    deleted(clients, "again").await;
    assert!(watch.servers().is_empty());
    service.stop().await;
}

/// Goal: keys whose time is over are no fault. Method: a key that expires between backup and restore.
#[tokio::test]
async fn keys_that_expired_since_the_backup() {
    let source = RedisServer::start().await;
    source.command(&["SET", "stays", "value"]).await;
    source.command(&["SET", "brief", "value", "PX", "1500"]).await;
    let (_watch, setup) = local::keeper("");
    let service = setup.cluster("main", &[&source.address()], "").start().await;
    let clients = &service.clients;
    let backup = clients.take("main", "first").await;
    assert_eq!(backup.shards[0].keys, 2);
    until("its time is over", SOON, async || (source.command(&["EXISTS", "brief"]).await.integer() == 0).then_some(())).await;
    restored(clients, wish(&backup.id, "again")).await;
    let host = hosts_of(clients, "again").await.remove(0);
    let mut connection = local::connect(&service.setup, "again", &host.name).await;
    assert_eq!(connection.command(&["KEYS", "*"]).await.items().iter().map(|key| key.text()).collect::<Vec<_>>(), ["stays"]);
    service.stop().await;
}

/// Goal: a server that ends as soon as it starts is not started without end. Method: its program goes.
#[tokio::test]
async fn a_server_that_does_not_start_any_more_is_seen() {
    let source = RedisServer::start().await;
    source.command(&["SET", "key", "value"]).await;
    let (watch, setup) = local::keeper("");
    let program = setup.folder().join("redis-server");
    let real = which("redis-server");
    std::os::unix::fs::symlink(real, &program).unwrap();
    let setup = setup.sections(&format!("[engines]\nprograms = [{program:?}]\n"));
    let service = setup.cluster("main", &[&source.address()], "").start().await;
    let clients = &service.clients;
    let backup = clients.take("main", "first").await;
    restored(clients, wish(&backup.id, "again")).await;
    std::fs::remove_file(&program).unwrap();
    local::Watch::kill(watch.servers()[0]);
    let health = async || get(clients, "again").await.unwrap().health();
    until("it is seen", SOON, async || (health().await == cluster::Health::Dead).then_some(())).await;
    // Back again, it is started; and the cluster can be deleted whatever state it is in.
    std::os::unix::fs::symlink(which("redis-server"), &program).unwrap();
    until("it is alive", SOON, async || (health().await == cluster::Health::Alive).then_some(())).await;
    std::fs::remove_file(&program).unwrap();
    local::Watch::kill(watch.servers()[0]);
    deleted(clients, "again").await;
    assert!(watch.servers().is_empty());
    service.stop().await;
}

/// A program of the path.
fn which(name: &str) -> std::path::PathBuf {
    let named = std::env::var_os(crate::support::server::PROGRAM_VARIABLE).map(std::path::PathBuf::from);
    let path = std::env::var_os("PATH").unwrap();
    named.unwrap_or_else(|| std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file()).unwrap())
}
