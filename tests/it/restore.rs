//! Restores into servers that run: what they hold then is what the backup holds, and what may go wrong leaves them in a state
//! that is told.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

mod days;
mod engines;
mod offline;
mod recovery;
mod refusals;
mod secrets;

use crate::support::answers::{bare, response};
use crate::support::data;
use crate::support::server::{Builder, RedisServer};
use crate::support::service::{Clients, OPERATION, Service, Setup, error_of, reason_of};
use redkeep::pb::operation::Operation;
use redkeep::pb::own;
use redkeep::pb::own::restore_into_request::Target;
use std::time::Duration;
use tonic::Status;

/// Longest wait for what is a matter of moments.
const SOON: Duration = Duration::from_secs(60);

/// Into the server at an address.
fn into(backup: &own::Backup, target: &RedisServer) -> own::RestoreIntoRequest {
    own::RestoreIntoRequest { backup_id: backup.id.clone(), target: Some(Target::Address(target.address())), ..Default::default() }
}

/// Into one that may hold so many keys.
fn over(backup: &own::Backup, target: &RedisServer, keys: i64) -> own::RestoreIntoRequest {
    own::RestoreIntoRequest { overwrite: true, overwrite_keys: keys, ..into(backup, target) }
}

async fn restore(clients: &Clients, request: own::RestoreIntoRequest) -> Result<Operation, Status> {
    bare(clients.backups.clone().restore_into(request).await)
}

/// A restore that is accepted and ends well.
async fn restored(clients: &Clients, request: own::RestoreIntoRequest) -> own::RestoreResult {
    let operation = restore(clients, request).await.expect("the restore is accepted");
    let ended = clients.ended(&operation.id, OPERATION).await;
    assert!(error_of(&ended).is_none(), "{ended:#?}");
    response(&ended)
}

/// A restore that is accepted and fails: the reason and the message.
async fn failed(clients: &Clients, request: own::RestoreIntoRequest) -> (String, String) {
    let operation = restore(clients, request).await.expect("the restore is accepted");
    failure(&clients.ended(&operation.id, OPERATION).await)
}

fn failure(operation: &Operation) -> (String, String) {
    let message = error_of(operation).unwrap_or_else(|| panic!("it failed: {operation:#?}")).message.clone();
    (reason_of(operation), message)
}

/// What a server holds beside keys that anybody counts.
async fn facts(server: &RedisServer) -> (String, i64, String) {
    let role = server.info("role").await;
    let keys = server.command(&["DBSIZE"]).await.integer();
    let load = server.command(&["CONFIG", "GET", "repl-diskless-load"]).await;
    (role, keys, load.items()[1].text())
}

/// A server that is free, empty, and set as it was.
async fn assert_untouched(server: &RedisServer, keys: i64) {
    assert_eq!(facts(server).await, ("master".to_owned(), keys, "disabled".to_owned()));
}

/// A service with a backup of a server that the builder starts, with so many small keys.
async fn backed_up(source: Builder, keys: u64, setup: Setup) -> (Service, RedisServer, own::Backup) {
    let source = source.start().await;
    data::fill_small_keys(&source, keys).await;
    let service = setup.cluster("main", &[&source.address()], "").start().await;
    let backup = service.clients.take("main", "a").await;
    (service, source, backup)
}

/// A target that loads a key in so many microseconds, and tells of itself meanwhile.
fn slow(micros: u32) -> Builder {
    RedisServer::builder().config(&format!("key-load-delay {micros}")).config("loading-process-events-interval-bytes 1024")
}
