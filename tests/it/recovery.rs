//! Goal: whatever moment the process dies at, its work is done exactly once and nothing is left over. Method: the real
//! program, killed at every named point and in every phase, then started again.

mod late;

use crate::support::rdb_bytes::Dump;
use crate::support::scripted::{Act, Answer, MARKER, ScriptedRedis, full_sync_marker};
use crate::support::service::{Clients, Setup, error_of, files_below, reason_of};
use crate::support::until;
use redkeep::operation::{Operation, Tally};
use redkeep::pb::own;
use redkeep::pb::own::backup::State;
use redkeep::store::sled::{Options, SledStore, verify};
use redkeep::store::{OperationFilter, Store};
use std::process::{Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

const CRASH: &str = "REDKEEP_CRASH_AT";

/// The operations of cluster `main` as the store has them, newest first. Nobody else may hold the store.
async fn stored(setup: &Setup) -> Vec<Operation> {
    let store = SledStore::open(Options::new(setup.folder().join("store"))).expect("the store opens");
    let found = store.list(&OperationFilter::Cluster("main".parse().expect("an id")), None, 100).await.expect("operations are listed");
    tokio::task::spawn_blocking(move || store.close()).await.expect("the store closes");
    found
}

/// Runs the program until it kills itself.
async fn run_until_killed(setup: &Setup, point: &str) {
    use std::os::unix::process::ExitStatusExt;
    let mut child = Command::new(env!("CARGO_BIN_EXE_redkeep"))
        .args(["serve", "--config"])
        .arg(setup.write())
        .env(CRASH, point)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let status = until("the process kills itself", SOON, async || child.try_wait().ok().flatten()).await;
    assert_eq!(status.signal(), Some(9), "{status}");
}

fn sha256(path: &std::path::Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_else(|fault| panic!("{}: {fault}", path.display()));
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Waits for the end of the only backup's creation, and checks that it is whole, alone, and all that there is.
async fn assert_one_whole_backup(clients: &Clients, setup: &Setup, operation: &str) -> own::Backup {
    let ended = clients.ended(operation, SOON).await;
    assert!(error_of(&ended).is_none(), "{ended:#?}");
    let backups = clients.all_backups().await;
    assert_eq!(backups.len(), 1, "{backups:#?}");
    let backup = backups.into_iter().next().expect("there is one");
    assert_eq!((backup.state(), backup.operation_id.as_str()), (State::Available, operation));
    let root = setup.artifact_root();
    let mut own = ["attempt.json", "manifest.json", "shard1-0.rdb.zst", "shard1-side.json"].map(|file| format!("{}/{file}", backup.path.trim_end_matches('/')));
    own.sort();
    until("only the backup's own files are left", SOON, async || (files_below(&root) == own).then_some(())).await;
    assert_eq!(backup.shards[0].sha256, [sha256(&root.join(&own[2]))]);
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(root.join(&own[1])).expect("the manifest is there")).expect("the manifest is whole");
    assert_eq!(manifest["backup_id"], *backup.id);
    assert_eq!(manifest["shards"][0]["segments"][0]["sha256"], *backup.shards[0].sha256[0]);
    backup
}

fn assert_store_clean(setup: &Setup) {
    let report = verify(&setup.folder().join("store")).expect("the store is there");
    assert!(report.is_clean() && report.live == 0, "{report:?}");
}

/// Kills the process at a point of a backup, starts it again, and checks the end. Gives the tally and the number of
/// synchronisations.
async fn backup_killed_at(point: &str) -> (Tally, usize) {
    let server = ScriptedRedis::start(vec![full_sync_marker(Dump::sample().bytes, MARKER)]).await;
    let setup = Setup::new().cluster("main", &[&server.address()], "");
    let process = setup.spawn(&[(CRASH, point)]).await;
    // The answer may be lost with the process; the operation is not, unless it was never taken.
    let answered = process.clients.create("main", "a").await;
    let setup = process.wait_end(SOON).await;
    let operations = stored(&setup).await;
    assert_eq!(operations.len(), 1);
    let id = operations[0].id.to_string();
    assert!(answered.is_err() || answered.is_ok_and(|operation| operation.id == id));
    let process = setup.spawn(&[]).await;
    assert_one_whole_backup(&process.clients, &process.setup, &id).await;
    let setup = process.terminate(SOON).await;
    assert_store_clean(&setup);
    (stored(&setup).await[0].tally, server.counts().psyncs)
}

fn tally(crashes: u32, forks: u32) -> Tally {
    Tally { crashes, forks, ..Tally::default() }
}

#[tokio::test]
async fn killed_in_preflight() {
    assert_eq!(backup_killed_at("preflight").await, (tally(1, 0), 1));
}

#[tokio::test]
async fn killed_before_the_snapshot() {
    assert_eq!(backup_killed_at("snapshot").await, (tally(1, 1), 1));
}

#[tokio::test]
async fn killed_at_the_seal() {
    assert_eq!(backup_killed_at("seal").await, (tally(1, 1), 2));
}

#[tokio::test]
async fn killed_before_the_decision() {
    assert_eq!(backup_killed_at("publish.before").await, (tally(1, 1), 2));
}

#[tokio::test]
async fn killed_after_the_decision() {
    assert_eq!(backup_killed_at("publish.decided").await, (tally(0, 0), 1));
}

#[tokio::test]
async fn killed_after_the_manifest() {
    assert_eq!(backup_killed_at("publish.stored").await, (tally(0, 0), 1));
}

/// Goal: after the decision nothing is final for a day. Method: killed after it, the backup's folder gives way to a file;
/// the operation waits, and completes once the folder is back.
#[tokio::test]
async fn storage_that_is_gone_at_the_decision_is_waited_for() {
    let server = ScriptedRedis::start(vec![full_sync_marker(Dump::sample().bytes, MARKER)]).await;
    let process = Setup::new().cluster("main", &[&server.address()], "").executor("deadline", "\"1s\"").spawn(&[(CRASH, "publish.decided")]).await;
    let _ = process.clients.create("main", "a").await;
    let setup = process.wait_end(SOON).await;
    let id = stored(&setup).await[0].id.to_string();
    let folder = setup.artifact_root().join("default");
    let aside = setup.folder().join("aside");
    std::fs::rename(&folder, &aside).unwrap();
    std::fs::write(&folder, "a file").unwrap();
    let process = setup.spawn(&[]).await;
    let failing = async || (process.clients.progress(&id).await.attempt > 2).then_some(());
    until("it is tried again", SOON, failing).await;
    let progress = process.clients.progress(&id).await;
    assert!(progress.last_error.contains("not a folder"), "{progress:?}");
    std::fs::remove_file(&folder).unwrap();
    std::fs::rename(&aside, &folder).unwrap();
    assert_one_whole_backup(&process.clients, &process.setup, &id).await;
    assert_eq!(server.counts().psyncs, 1);
    process.terminate(SOON).await;
}

/// Kills from outside, while the server does as scripted at first.
async fn backup_killed_while(server: &ScriptedRedis, reached: impl AsyncFn(&Setup)) -> Tally {
    let process = Setup::new().cluster("main", &[&server.address()], "").spawn(&[]).await;
    let operation = process.clients.create("main", "a").await.expect("the backup is accepted");
    reached(&process.setup).await;
    let setup = process.kill();
    let process = setup.spawn(&[]).await;
    assert_one_whole_backup(&process.clients, &process.setup, &operation.id).await;
    let setup = process.terminate(SOON).await;
    assert_store_clean(&setup);
    stored(&setup).await[0].tally
}

#[tokio::test]
async fn killed_while_a_server_is_silent() {
    let server = ScriptedRedis::start(vec![full_sync_marker(Dump::sample().bytes, MARKER)]).await;
    server.answer_times(1, "INFO", Answer::Silence);
    let reached = async |_: &Setup| {
        server.wait_for(|counts| counts.commands > 0).await;
    };
    assert_eq!(backup_killed_while(&server, reached).await, tally(1, 0));
}

/// Goal: what an interrupted upload leaves goes. Method: killed with parts stored that no listing shows.
#[tokio::test]
async fn killed_in_mid_stream() {
    let gate = std::sync::Arc::default();
    let scripts = vec![crate::faults::stalled_with_parts(&gate), full_sync_marker(Dump::sample().bytes, MARKER)];
    let server = ScriptedRedis::start(scripts).await;
    let reached = async |setup: &Setup| {
        let remains = async || files_below(&setup.artifact_root()).iter().any(|file| file.ends_with(".rdb.zst#1")).then_some(());
        until("a part is stored", SOON, remains).await;
    };
    assert_eq!(backup_killed_while(&server, reached).await, tally(1, 1));
    assert_eq!(server.counts().psyncs, 2);
}

#[tokio::test]
async fn the_third_crash_ends_it() {
    let server = ScriptedRedis::start(vec![full_sync_marker(Dump::sample().bytes, MARKER)]).await;
    let process = Setup::new().cluster("main", &[&server.address()], "").spawn(&[(CRASH, "snapshot")]).await;
    let _ = process.clients.create("main", "a").await;
    let setup = process.wait_end(SOON).await;
    for _ in 0..2 {
        run_until_killed(&setup, "snapshot").await;
    }
    let id = stored(&setup).await[0].id.to_string();
    let process = setup.spawn(&[(CRASH, "snapshot")]).await;
    let ended = process.clients.ended(&id, SOON).await;
    assert_eq!(reason_of(&ended), "POISONED", "{ended:#?}");
    assert_eq!(server.counts().psyncs, 0);
    let backups = process.clients.all_backups().await;
    assert_eq!(backups.iter().map(own::Backup::state).collect::<Vec<_>>(), [State::Error]);
    let root = process.setup.artifact_root();
    until("nothing is left over", SOON, async || files_below(&root).is_empty().then_some(())).await;
    // Nothing dangles: the row can be deleted, and the cluster is free.
    let request = own::DeleteBackupRequest { backup_id: backups[0].id.clone() };
    let deletion = process.clients.backups.clone().delete(request).await.unwrap().into_inner();
    assert!(error_of(&process.clients.ended(&deletion.id, SOON).await).is_none());
    let gone = async || process.clients.all_backups().await.is_empty().then_some(());
    until("the row is gone", SOON, gone).await;
    let setup = process.terminate(SOON).await;
    let process = setup.spawn(&[]).await;
    process.clients.take("main", "a").await;
    assert_store_clean(&process.terminate(SOON).await);
}

/// Goal: a graceful stop is no crash. Method: told to stop in mid-stream without time to drain.
#[tokio::test]
async fn a_graceful_stop_hands_back() {
    let stalled = vec![Act::FullResync, Act::Send("$5000\r\nREDIS0010".into()), Act::Stall];
    let server = ScriptedRedis::start(vec![stalled, full_sync_marker(Dump::sample().bytes, MARKER)]).await;
    let process = Setup::new().executor("drain", "\"0s\"").cluster("main", &[&server.address()], "").spawn(&[]).await;
    let operation = process.clients.create("main", "a").await.unwrap();
    server.wait_for(|counts| counts.sent_bytes > 0).await;
    let setup = process.terminate(Duration::from_secs(10)).await;
    server.closed_by_peer().await;
    let process = setup.spawn(&[]).await;
    assert_one_whole_backup(&process.clients, &process.setup, &operation.id).await;
    let setup = process.terminate(SOON).await;
    assert_eq!(stored(&setup).await[0].tally, tally(0, 1));
}

#[tokio::test]
async fn killed_during_an_update() {
    let server = ScriptedRedis::start(vec![full_sync_marker(Dump::sample().bytes, MARKER)]).await;
    let process = Setup::new().cluster("main", &[&server.address()], "").spawn(&[(CRASH, "update.stored")]).await;
    let backup = process.clients.take("main", "a").await;
    let request = own::UpdateBackupRequest {
        backup_id: backup.id.clone(),
        update_mask: Some(prost_types::FieldMask { paths: vec!["name".into()] }),
        name: "b".into(),
        ..Default::default()
    };
    let _ = process.clients.backups.clone().update(request).await;
    let setup = process.wait_end(SOON).await;
    let id = stored(&setup).await[0].id.to_string();
    let process = setup.spawn(&[]).await;
    let ended = process.clients.ended(&id, SOON).await;
    assert!(error_of(&ended).is_none(), "{ended:#?}");
    let backups = process.clients.all_backups().await;
    assert_eq!(backups.iter().map(|backup| (backup.state(), backup.name.as_str())).collect::<Vec<_>>(), [(State::Available, "b")]);
    let files = files_below(&process.setup.artifact_root());
    assert_eq!(files.iter().filter(|file| file.contains("/facts/")).count(), 1, "{files:?}");
    assert_store_clean(&process.terminate(SOON).await);
}

#[tokio::test]
async fn killed_during_a_deletion() {
    let server = ScriptedRedis::start(vec![full_sync_marker(Dump::sample().bytes, MARKER)]).await;
    let process = Setup::new().cluster("main", &[&server.address()], "").spawn(&[(CRASH, "delete.stored")]).await;
    let backup = process.clients.take("main", "a").await;
    let _ = process.clients.backups.clone().delete(own::DeleteBackupRequest { backup_id: backup.id.clone() }).await;
    let setup = process.wait_end(SOON).await;
    let id = stored(&setup).await[0].id.to_string();
    let process = setup.spawn(&[]).await;
    let ended = process.clients.ended(&id, SOON).await;
    assert!(error_of(&ended).is_none(), "{ended:#?}");
    let gone = async || (process.clients.all_backups().await.is_empty() && files_below(&process.setup.artifact_root()).is_empty()).then_some(());
    until("row and files are gone", SOON, gone).await;
    assert_store_clean(&process.terminate(SOON).await);
}
