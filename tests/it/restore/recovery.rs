//! Goal: whatever moment the process dies at, the restore is whole in the end, nothing of the target stays changed beside its
//! content, and no record dangles. Method: the real program, killed at every named point and started again.

use super::{SOON, facts, into, over, restore};
use crate::support::server::RedisServer;
use crate::support::service::{Setup, error_of};
use crate::support::{compare, data};
use redkeep::store::sled::{Options, SledStore, verify};
use redkeep::store::{OperationFilter, Store};

const CRASH: &str = "REDKEEP_CRASH_AT";

/// Kills the process at a point of a restore, starts it again, and looks at the end.
async fn killed_at(point: &str) {
    let source = RedisServer::start().await;
    data::fill_mixed(&source, 1 << 20).await;
    let target = RedisServer::start().await;
    data::fill_small_keys(&target, 9).await;
    let setup = Setup::new().artifacts("url = \"file:artifacts\"\ncompression = \"none\"").cluster("main", &[&source.address()], "");
    let process = setup.spawn(&[(CRASH, point)]).await;
    let backup = process.clients.take("main", "a").await;
    // The answer may be lost with the process; the operation is not.
    let answered = restore(&process.clients, over(&backup, &target, 9)).await;
    let setup = process.wait_end(SOON).await;
    let id = {
        let store = SledStore::open(Options::new(setup.folder().join("store"))).unwrap();
        let rows = store.list(&OperationFilter::Cluster("main".parse().unwrap()), None, 100).await.unwrap();
        tokio::task::spawn_blocking(move || store.close()).await.unwrap();
        rows[0].id.to_string()
    };
    assert!(answered.is_err() || answered.is_ok_and(|operation| operation.id == id), "{point}");
    let process = setup.spawn(&[]).await;
    let ended = process.clients.ended(&id, SOON).await;
    assert!(error_of(&ended).is_none(), "{point}: {ended:#?}");
    compare::assert_same_content(&source, &target).await;
    let (role, _, diskless) = facts(&target).await;
    assert_eq!((role.as_str(), diskless.as_str()), ("master", "disabled"), "{point}");
    // Another can go into the same target, and the backup is free.
    let again = restore(&process.clients, into(&backup, &target)).await.unwrap();
    assert!(error_of(&process.clients.ended(&again.id, SOON).await).unwrap().message.contains("holds"), "{point}");
    let setup = process.terminate(SOON).await;
    let report = verify(&setup.folder().join("store")).unwrap();
    assert!(report.is_clean() && report.live == 0, "{point}: {report:?}");
}

#[tokio::test]
async fn killed_before_anything_changed() {
    for point in ["restore.preflight", "restore.checked", "restore.told"] {
        killed_at(point).await;
    }
}

#[tokio::test]
async fn killed_while_the_target_loads() {
    for point in ["restore.armed", "restore.load", "restore.held", "restore.sent"] {
        killed_at(point).await;
    }
}

#[tokio::test]
async fn killed_at_the_end() {
    for point in ["restore.loaded", "restore.freed"] {
        killed_at(point).await;
    }
}
