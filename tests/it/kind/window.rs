//! Not at this time of day.

use crate::support::rdb_bytes::Dump;
use crate::support::scripted::{MARKER, ScriptedRedis, full_sync_marker};
use crate::support::service::{OPERATION, Setup};
use crate::support::until;
use chrono::{TimeDelta, Utc};
use redkeep::pb::operation as wire;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

/// A window of UTC that began an hour ago and has two more to go.
fn window_now() -> String {
    let at = |hours: i64| (Utc::now() + TimeDelta::hours(hours)).format("%H:%M").to_string();
    format!("no_snapshot = [\"{}-{}\"]", at(-1), at(2))
}

#[tokio::test]
async fn a_backup_that_is_asked_for_in_a_window_waits_for_its_end() {
    let server = ScriptedRedis::start(vec![full_sync_marker(Dump::sample().bytes, MARKER)]).await;
    let setup = Setup::new().executor("deadline", "\"1s\"").cluster("main", &[&server.address()], &window_now()).cluster_apart("free", &server.address(), "");
    let service = setup.start().await;
    let clients = &service.clients;
    let waiting = clients.create("main", "a").await.expect("it is accepted");
    // One of a cluster without a window goes past it.
    clients.take("free", "b").await;
    let progress = clients.progress(&waiting.id).await;
    assert!(progress.waiting_for.contains("no snapshot of the cluster may start"), "{progress:?}");
    let begins = progress.next_attempt_at.expect("it tells when").seconds - Utc::now().timestamp();
    assert!((6000..=7200).contains(&begins), "{begins}");
    assert_eq!((progress.attempt, server.counts().psyncs), (0, 1));
    // Waiting, it holds its cluster, and can be cancelled.
    assert!(clients.create("main", "c").await.expect_err("the cluster is held").message().contains(&waiting.id));
    let cancelled = clients.operations.clone().cancel(wire::CancelOperationRequest { operation_id: waiting.id.clone() }).await.expect("it is cancelled");
    assert!(cancelled.into_inner().done);
    service.stop().await;
}

#[tokio::test]
async fn what_falls_due_in_a_window_is_put_off_before_anything_is_asked_of_the_source() {
    let server = ScriptedRedis::willing().await;
    server.set_info("loading", 1);
    let service = Setup::new().cluster("main", &[&server.address()], "").start().await;
    let operation = service.clients.create("main", "a").await.expect("it is accepted");
    let retried = async || (!service.clients.progress(&operation.id).await.last_error.is_empty()).then_some(());
    until("an attempt has failed", SOON, retried).await;
    let setup = service.stop().await.without_clusters().cluster("main", &[&server.address()], &window_now());
    server.set_info("loading", 0);
    let service = setup.start().await;
    let put_off = async || service.clients.progress(&operation.id).await.waiting_for.contains("no snapshot of the cluster may start").then_some(());
    until("it is put off", SOON, put_off).await;
    assert_eq!(server.counts().psyncs, 0);
    // Without the window it keeps to what was decided, and goes its way when it is asked for anew.
    let setup = service.stop().await.without_clusters().cluster("main", &[&server.address()], "");
    let service = setup.start().await;
    assert!(service.clients.progress(&operation.id).await.waiting_for.contains("no snapshot"));
    service.clients.operations.clone().cancel(wire::CancelOperationRequest { operation_id: operation.id.clone() }).await.expect("it is cancelled");
    service.clients.ended(&operation.id, OPERATION).await;
    service.clients.take("main", "b").await;
    service.stop().await;
}
