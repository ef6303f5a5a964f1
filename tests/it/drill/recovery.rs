//! Goal: wherever the process is killed, no server and no dump is left, and the proof is made once it is back. Method: the real
//! program, killed at every named point; and what a machine that went down would leave.

use super::*;
use redkeep::store::sled::verify as verify_store;
use std::process::{Command, Stdio};

const CRASH: &str = "REDKEEP_CRASH_AT";

async fn killed_at(point: &str) {
    let server = RedisServer::start().await;
    data::fill_every_type(&server, 2).await;
    let process = Setup::new().cluster("main", &[&server.address()], "").spawn(&[(CRASH, point)]).await;
    let taken = process.clients.take("main", "first").await;
    // The answer may be lost with the process.
    let _ = verify(&process.clients, &taken.id, Level::Loaded).await;
    let setup = process.wait_end(SOON).await;
    nothing_is_left(&setup).await;
    let process = setup.spawn(&[]).await;
    let made = until("the backup is proved", SOON, async || {
        let backup = process.clients.backup(&taken.id).await.unwrap();
        (backup.level() == Level::Loaded && backup.busy_operation_id.is_empty()).then_some(backup)
    })
    .await;
    assert_eq!(made.proofs.len(), 1, "{made:#?}");
    nothing_is_left(&process.setup).await;
    let setup = process.terminate(SOON).await;
    let report = verify_store(&setup.folder().join("store")).unwrap();
    assert!(report.is_clean() && report.live == 0, "{report:?}");
}

#[tokio::test]
async fn killed_before_anything() {
    killed_at("verify.preflight").await;
}

#[tokio::test]
async fn killed_with_the_dump_on_disk() {
    killed_at("verify.decoded").await;
}

#[tokio::test]
async fn killed_with_a_server_that_loads() {
    killed_at("verify.started").await;
}

#[tokio::test]
async fn killed_with_a_server_that_has_loaded() {
    killed_at("verify.loaded").await;
}

#[tokio::test]
async fn killed_before_the_record() {
    killed_at("verify.proved").await;
    killed_at("verify.occupied").await;
}

#[tokio::test]
async fn killed_after_the_fact() {
    killed_at("verify.stored").await;
}

#[tokio::test]
async fn a_start_ends_what_was_left() {
    let setup = Setup::new();
    let folder = scratch(&setup).join("d0123abcd");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("dump.rdb"), "REDIS0011").unwrap();
    let mut stray = Command::new("sleep").arg("600").current_dir(&folder).stdin(Stdio::null()).spawn().unwrap();
    let service = setup.start().await;
    until("the stray has ended", SOON, async || stray.try_wait().unwrap()).await;
    nothing_is_left(&service.setup).await;
    service.stop().await;
}
