//! Goal: a cancellation ends the work within a second, frees the source and leaves nothing. Method: cancel in every phase.

use super::*;
use crate::support::rdb_bytes::Dump;
use crate::support::scripted::{Act, Answer, MARKER, full_sync_marker};
use crate::support::service::{Service, Setup};
use redkeep::pb::operation::CancelOperationRequest;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Notify;

/// Longest time from the call to the end of the work.
const AT_ONCE: Duration = Duration::from_secs(1);

async fn cancel(service: &Service, id: &str) -> Operation {
    service.clients.operations.clone().cancel(CancelOperationRequest { operation_id: id.into() }).await.expect("it is taken").into_inner()
}

async fn assert_cancelled(service: &Service, id: &str, asked_at: Instant) {
    let ended = service.clients.ended(id, SOON).await;
    assert!(asked_at.elapsed() < AT_ONCE, "{:?}", asked_at.elapsed());
    assert_eq!(error_of(&ended).map(|status| status.code), Some(1), "{ended:#?}");
    assert!(service.clients.all_backups().await.iter().all(|backup| backup.operation_id != id));
    wait_empty(&service.setup.artifact_root()).await;
}

#[tokio::test]
async fn a_stream_is_cut_and_the_queue_goes_on() {
    let first = ScriptedRedis::start(vec![super::stream::stalled_with_parts(&Arc::new(Notify::new()))]).await;
    let second = ScriptedRedis::start(vec![full_sync_marker(Dump::sample().bytes, MARKER)]).await;
    let third = ScriptedRedis::start(vec![full_sync_marker(Dump::sample().bytes, MARKER)]).await;
    let setup = Setup::new().executor("workers", "1").cluster("one", &[&first.address()], "").cluster("two", &[&second.address()], "");
    let service = setup.cluster("three", &[&third.address()], "").start().await;
    let streaming = service.clients.create("one", "a").await.unwrap();
    first.wait_for(|counts| counts.sent_bytes > 18 << 20).await;
    // The only worker is busy, so these wait.
    let queued = service.clients.create("two", "b").await.unwrap();
    let next = service.clients.create("three", "c").await.unwrap();
    let asked_at = Instant::now();
    let cancelled = cancel(&service, &queued.id).await;
    assert!(cancelled.done, "a queued operation ends at once");
    assert_eq!(error_of(&cancelled).map(|status| status.code), Some(1));
    assert!(asked_at.elapsed() < AT_ONCE);
    assert_eq!(second.counts().connections, 0);

    let asked_at = Instant::now();
    cancel(&service, &streaming.id).await;
    first.closed_by_peer().await;
    assert!(asked_at.elapsed() < AT_ONCE, "{:?}", asked_at.elapsed());
    let ended = service.clients.ended(&streaming.id, SOON).await;
    assert_eq!(error_of(&ended).map(|status| status.code), Some(1), "{ended:#?}");
    assert!(service.clients.backup(&ended_backup(&service, &streaming.id).await).await.is_err());

    let after = service.clients.ended(&next.id, SOON).await;
    assert!(error_of(&after).is_none(), "{after:#?}");
    // The end cannot be changed any more.
    assert_eq!(cancel(&service, &next.id).await, after);
    let root = service.setup.artifact_root();
    until("only the one backup is left", SOON, async || (files_below(&root).len() == 4).then_some(())).await;
    service.stop().await;
}

/// Goal: whenever a cancellation comes, the end is one or the other: a whole backup or nothing at all. Method: cancel after
/// ever more looks at an operation that takes but a moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancellation_that_meets_the_end_is_one_or_the_other() {
    let server = ScriptedRedis::start(vec![full_sync_marker(Dump::sample().bytes, MARKER)]).await;
    let service = Setup::new().cluster("main", &[&server.address()], "").start().await;
    let mut available = 0;
    for round in 0..60_u32 {
        let operation = service.clients.create("main", &format!("round-{round}")).await.expect("the cluster is free again");
        for _ in 0..round {
            service.clients.operation(&operation.id).await;
        }
        cancel(&service, &operation.id).await;
        let ended = service.clients.ended(&operation.id, SOON).await;
        let backups = service.clients.all_backups().await;
        let state = backups.iter().find(|backup| backup.operation_id == operation.id).map(|backup| backup.state());
        match error_of(&ended) {
            Some(status) => assert_eq!((status.code, state), (1, None), "round {round}: {ended:#?}"),
            None => {
                assert_eq!(state, Some(redkeep::pb::own::backup::State::Available), "round {round}");
                available += 1;
            }
        }
    }
    let root = service.setup.artifact_root();
    until("each backup has its files, and nothing else is left", SOON, async || (files_below(&root).len() == 4 * available).then_some(())).await;
    service.stop().await;
}

/// The id of a backup that an operation was to make; nothing that exists when it has gone with it.
async fn ended_backup(service: &Service, operation: &str) -> String {
    let backups = service.clients.all_backups().await;
    backups.into_iter().find(|backup| backup.operation_id == operation).map_or_else(|| "00000000-0000-7000-8000-000000000000".into(), |backup| backup.id)
}

#[tokio::test]
async fn a_silent_server_does_not_hold_a_cancellation_up() {
    let server = ScriptedRedis::start(Vec::new()).await;
    server.answer("INFO", Answer::Silence);
    let service = Setup::new().cluster("main", &[&server.address()], "").start().await;
    let operation = service.clients.create("main", "a").await.unwrap();
    server.wait_for(|counts| counts.commands > 0).await;
    let asked_at = Instant::now();
    cancel(&service, &operation.id).await;
    assert_cancelled(&service, &operation.id, asked_at).await;
    assert_eq!(server.counts().psyncs, 0);
    service.stop().await;
}

#[tokio::test]
async fn a_source_that_does_not_begin_does_not_hold_a_cancellation_up() {
    let server = ScriptedRedis::start(vec![vec![Act::Newlines(usize::MAX, Duration::from_millis(50))]]).await;
    let service = Setup::new().cluster("main", &[&server.address()], "").start().await;
    let operation = service.clients.create("main", "a").await.unwrap();
    let waits = async || service.clients.progress(&operation.id).await.waiting_for.contains("begin its snapshot").then_some(());
    until("the progress says what it waits for", SOON, waits).await;
    let asked_at = Instant::now();
    cancel(&service, &operation.id).await;
    server.closed_by_peer().await;
    assert_cancelled(&service, &operation.id, asked_at).await;
    service.stop().await;
}
