//! Goal: a backup works on every engine that people run. Method: the real servers of five kinds that `make engines` fetches.

mod connections;
mod dialects;
mod matrix;
mod rights;

use crate::support::engines::Engine;
use crate::support::service::{Clients, error_of, reason_of};
use redkeep::pb::operation::Operation;
use std::time::Duration;

/// Longest wait for what is a matter of moments.
const SOON: Duration = Duration::from_secs(60);

/// A backup that is to fail: reason and message of its operation.
async fn fails(clients: &Clients, cluster: &str) -> (Operation, String, String) {
    let operation = clients.create(cluster, &format!("{cluster}-fails")).await.expect("the backup is accepted");
    let operation = clients.ended(&operation.id, SOON).await;
    let message = error_of(&operation).unwrap_or_else(|| panic!("{cluster}: {operation:#?}")).message.clone();
    (operation.clone(), reason_of(&operation), message)
}

/// Tells on which engine a test is, so that a failure names it.
fn on(engine: Engine) {
    eprintln!("on {}", engine.title());
}
