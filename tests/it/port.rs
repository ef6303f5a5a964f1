//! What stands between the network and the calls: TLS, limits against those who take too much, and the guard against web
//! pages. Everything over real sockets.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

mod browser;
mod limits;
mod tls;

use redkeep::pb::own;
use tonic::{Code, Status};

use crate::support::service::Clients;

/// A call that needs nothing.
async fn call(clients: &Clients) -> Result<(), Status> {
    clients.own_operations.clone().list(own::ListOperationsRequest::default()).await.map(drop)
}

/// The program with these arguments: its exit status, and what it wrote to standard error.
async fn program(arguments: &[&str]) -> (i32, String) {
    let ran = tokio::process::Command::new(env!("CARGO_BIN_EXE_redkeep")).args(arguments).env_remove("REDKEEP_ENDPOINT").output().await.unwrap();
    (ran.status.code().unwrap(), String::from_utf8_lossy(&ran.stderr).into_owned())
}

/// A message in the frame of gRPC.
fn frame(message: &impl prost::Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), &message].concat()
}

fn code(outcome: Result<(), Status>) -> Option<Code> {
    outcome.err().map(|status| status.code())
}
