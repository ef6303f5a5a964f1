//! Goal: what is restored key by key is what was backed up, where it belongs, and nothing else is touched. Method: real servers and
//! clusters; backups of real data, restored through the service and compared key by key.

mod clusters;
mod entries;
mod policies;
mod recovery;
mod replies;
mod round;

use crate::support::cluster::{Cluster, slot_of};
use crate::support::resp::{Pipeline, Value};
use crate::support::server::RedisServer;
use crate::support::service::{Clients, OPERATION, error_of, reason_of};
use prost::Message;
use redkeep::pb::own::key_selection::Conflict;
use redkeep::pb::own::restore_into_request::{Method, Target};
use redkeep::pb::{operation as wire, own};
use std::collections::BTreeMap;

/// A selection of everything, with a policy.
fn all(on_conflict: Conflict) -> own::KeySelection {
    own::KeySelection { on_conflict: on_conflict.into(), ..Default::default() }
}

/// Asks for a restore by key, which is accepted.
async fn ask(clients: &Clients, backup: &own::Backup, target: Target, keys: own::KeySelection) -> wire::Operation {
    let request =
        own::RestoreIntoRequest { backup_id: backup.id.clone(), target: Some(target), method: Method::Keys.into(), keys: Some(keys), ..Default::default() };
    clients.backups.clone().restore_into(request).await.expect("the restore is accepted").into_inner()
}

/// A restore that is to succeed.
async fn restore(clients: &Clients, backup: &own::Backup, target: Target, keys: own::KeySelection) -> own::RestoreResult {
    let operation = ask(clients, backup, target, keys).await;
    result_of(&clients.ended(&operation.id, OPERATION).await)
}

fn result_of(operation: &wire::Operation) -> own::RestoreResult {
    match &operation.result {
        Some(wire::operation::Result::Response(any)) => own::RestoreResult::decode(any.value.as_slice()).expect("a result"),
        _ => panic!("{operation:#?}"),
    }
}

/// A restore that is to fail: reason and message.
async fn fails(clients: &Clients, backup: &own::Backup, target: Target, keys: own::KeySelection) -> (String, String) {
    let operation = ask(clients, backup, target, keys).await;
    let operation = clients.ended(&operation.id, OPERATION).await;
    (reason_of(&operation), error_of(&operation).unwrap_or_else(|| panic!("{operation:#?}")).message.clone())
}

/// Keys of all shards of a backup.
fn keys_in(backup: &own::Backup) -> i64 {
    backup.shards.iter().map(|shard| shard.keys).sum()
}

/// The same into a server at an address.
async fn fails_at(clients: &Clients, backup: &own::Backup, address: &str, keys: own::KeySelection) -> (String, String) {
    fails(clients, backup, at_address(address), keys).await
}

fn at_address(address: &str) -> Target {
    Target::Address(address.to_owned())
}

fn at(server: &RedisServer) -> Target {
    Target::Address(server.address())
}

fn into(cluster: &str) -> Target {
    Target::ClusterId(cluster.to_owned())
}

/// What a key is: type, digest of its value, when it expires.
type Key = (String, String, i64);

/// Every key of the current database.
async fn keys_of(server: &RedisServer) -> BTreeMap<Vec<u8>, Key> {
    let mut connection = server.connect().await;
    let names: Vec<Vec<u8>> = connection.command(&["KEYS", "*"]).await.items().iter().map(|name| name.bytes().to_vec()).collect();
    let mut keys = BTreeMap::new();
    for names in names.chunks(500) {
        let mut pipeline = Pipeline::default();
        for name in names {
            pipeline.add(&[&"TYPE", name]).add(&[&"DEBUG", &"DIGEST-VALUE", name]).add(&[&"PEXPIRETIME", name]);
        }
        for (name, replies) in names.iter().zip(connection.pipeline(&pipeline).await.chunks(3)) {
            let [kind, digest, expiry] = replies else { panic!("three replies a key") };
            let digest = digest.items().first().map(Value::text).unwrap_or_default();
            keys.insert(name.clone(), (kind.text(), digest, expiry.integer()));
        }
    }
    keys
}

/// Holds a cluster against a server: each key where its slot lives, and no others.
async fn assert_spread(source: &RedisServer, cluster: &Cluster) {
    let mut found = BTreeMap::new();
    for shard in &cluster.shards {
        for (name, key) in keys_of(&shard.primary).await {
            assert_eq!(cluster.owner(slot_of(&name)).port(), shard.primary.port(), "{}", name.escape_ascii());
            found.insert(name, key);
        }
    }
    let expected = keys_of(source).await;
    assert_eq!(found.len(), expected.len());
    for (name, key) in &expected {
        assert_eq!(found.get(name), Some(key), "{}", name.escape_ascii());
    }
}

/// Names of the libraries of functions of a server.
async fn libraries(server: &RedisServer) -> Vec<String> {
    let mut names: Vec<String> = server.command(&["FUNCTION", "LIST"]).await.items().iter().map(|library| library.items()[1].text()).collect();
    names.sort();
    names
}
