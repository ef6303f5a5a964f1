//! Goal: operations can be followed, listed and stopped, wherever they are in their life.

use super::{UNKNOWN, setup, stalling, willing};
use crate::support::answers::{assert_runs, bare, metadata, response};
use crate::support::scripted::ScriptedRedis;
use crate::support::service::{Clients, OPERATION, error_of, files_below};
use crate::support::until;
use redkeep::pb::own::progress::Step;
use redkeep::pb::{managed, operation as wire, own};
use std::time::{Duration, Instant};
use tonic::{Code, Status};

async fn cancel(clients: &Clients, id: &str) -> Result<wire::Operation, Status> {
    bare(clients.operations.clone().cancel(wire::CancelOperationRequest { operation_id: id.into() }).await)
}

async fn wait(clients: &Clients, id: &str, revision: i64, timeout_ms: i64) -> own::OperationState {
    let request = own::WaitOperationRequest { operation_id: id.into(), revision, timeout_ms };
    bare(clients.own_operations.clone().wait(request).await).unwrap()
}

fn cancelled(operation: &wire::Operation) -> bool {
    operation.done && error_of(operation).is_some_and(|error| error.code == Code::Cancelled as i32)
}

#[tokio::test]
async fn a_queued_operation_is_cancelled_at_once() {
    // Method: one worker, which hangs on another cluster.
    let source = ScriptedRedis::stalling().await;
    let service = setup(&source).cluster("other", &[&source.address()], "").executor("workers", "1").start().await;
    let clients = &service.clients;
    clients.create("main", "first").await.unwrap();
    source.wait_for(|counts| counts.psyncs == 1).await;
    let queued = clients.create("other", "second").await.unwrap();
    let progress = clients.progress(&queued.id).await;
    assert_eq!((progress.step(), progress.attempt, progress.waiting_for.as_str()), (Step::Unspecified, 0, "a worker"));
    assert!(cancelled(&cancel(clients, &queued.id).await.unwrap()));
    assert_eq!(clients.all_backups().await.len(), 1, "a cancelled backup leaves no row");
    clients.create("other", "second").await.expect("cluster and name are free");
    service.stop().await;
}

#[tokio::test]
async fn a_running_operation_is_cancelled_soon() {
    let (source, service) = stalling().await;
    let clients = &service.clients;
    let running = clients.create("main", "first").await.unwrap();
    source.wait_for(|counts| counts.psyncs == 1).await;
    let progress = clients.progress(&running.id).await;
    assert_eq!((progress.step(), progress.attempt, progress.shards.len()), (Step::Snapshot, 1, 1), "{progress:?}");
    // It takes milliseconds; the bound is for a machine with much to do.
    let asked_at = Instant::now();
    cancel(clients, &running.id).await.unwrap();
    let ended = clients.ended(&running.id, OPERATION).await;
    assert!(cancelled(&ended) && asked_at.elapsed() < Duration::from_secs(3), "{:?}: {ended:#?}", asked_at.elapsed());
    source.closed_by_peer().await;
    assert!(clients.all_backups().await.is_empty());
    until("the files go", OPERATION, async || files_below(&service.setup.artifact_root()).is_empty().then_some(())).await;
    assert!(cancelled(&cancel(clients, &running.id).await.unwrap()), "a second call tells it as it is");
    service.stop().await;
}

#[tokio::test]
async fn what_has_ended_is_told_as_it_is() {
    let (_source, service) = willing().await;
    let clients = &service.clients;
    let backup = clients.take("main", "first").await;
    let told = cancel(clients, &backup.operation_id).await.unwrap();
    assert_eq!(response::<own::Backup>(&told), backup);
    assert_eq!(told, clients.operation(&backup.operation_id).await);
    for unknown in [UNKNOWN, "nonsense"] {
        assert_eq!(cancel(clients, unknown).await.unwrap_err().code(), Code::NotFound);
    }
    service.stop().await;
}

#[tokio::test]
async fn a_wait_ends_with_the_operation_a_change_or_its_time() {
    let (source, gate) = ScriptedRedis::gated().await;
    let service = setup(&source).start().await;
    let clients = &service.clients;
    let started = clients.create("main", "first").await.unwrap();
    source.wait_for(|counts| counts.psyncs == 1).await;

    // Its time: the latest state, and no error.
    let asked_at = Instant::now();
    let state = wait(clients, &started.id, 0, 50).await;
    assert!((Duration::from_millis(50)..Duration::from_secs(5)).contains(&asked_at.elapsed()));
    assert_runs(state.operation.as_ref().unwrap());
    assert_eq!(metadata::<own::CreateBackupMetadata>(state.operation.as_ref().unwrap()).progress, state.progress);

    // A change: a revision that is not the latest is answered at once; the latest one waits for the next.
    let later = wait(clients, &started.id, 1, 60_000).await;
    assert!(later.revision > 1);
    let (clients_too, id, revision) = (clients.clone(), started.id.clone(), i64::MAX);
    let to_the_end = tokio::spawn(async move { wait(&clients_too, &id, revision, 60_000).await });
    gate.notify_one();
    let mut revision = later.revision;
    let ended = loop {
        let state = wait(clients, &started.id, revision, 60_000).await;
        let operation = state.operation.unwrap();
        if operation.done {
            break (operation, state.revision);
        }
        assert!(state.revision > revision, "a wait for a change shows one");
        revision = state.revision;
    };

    // The end: also for one who waits for a revision that never comes, and for one who comes later.
    let told = to_the_end.await.unwrap();
    assert_eq!((told.operation.unwrap(), told.revision), ended);
    let told = wait(clients, &started.id, 0, 60_000).await;
    assert_eq!((told.operation.unwrap(), told.revision), ended);
    service.stop().await;
}

#[tokio::test]
async fn operations_are_listed_newest_first() {
    let source = ScriptedRedis::willing().await;
    let service = setup(&source).cluster("other", &[&source.address()], "").cluster("far", &[&source.address()], "folder_id = \"shop\"").start().await;
    let mut clients = service.clients.clone();
    let mut ids = Vec::new();
    for (cluster, name) in [("main", "one"), ("other", "two"), ("main", "three"), ("far", "four")] {
        let operation = clients.create(cluster, name).await.unwrap();
        clients.ended(&operation.id, OPERATION).await;
        ids.insert(0, operation.id);
    }
    let [four, three, two, one] = ids.as_slice() else { panic!("{ids:?}") };
    let list = async |folder: &str, cluster: &str| {
        let (mut found, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = own::ListOperationsRequest { folder_id: folder.into(), cluster_id: cluster.into(), page_size: 1, page_token };
            let page = bare(service.clients.own_operations.clone().list(request).await).unwrap();
            found.extend(page.operations.into_iter().map(|operation| operation.id));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return found;
            }
        }
    };
    assert_eq!(list("", "").await, [three.as_str(), two, one]);
    assert_eq!(list("", "main").await, [three.as_str(), one]);
    assert_eq!(list("shop", "").await, [four.as_str()]);
    assert_eq!(list("elsewhere", "").await, Vec::<String>::new());

    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = managed::ListClusterOperationsRequest { cluster_id: "main".into(), page_size: 1, page_token };
        let page = bare(clients.clusters.list_operations(request).await).unwrap();
        found.extend(page.operations.into_iter().map(|operation| (operation.id, operation.done)));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(found, [(three.clone(), true), (one.clone(), true)]);
    service.stop().await;
}
