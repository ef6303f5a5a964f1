//! As many snapshots at once as a machine bears, and as many forks as an operation may cause, over processes.

use crate::support::rdb_bytes::Dump;
use crate::support::scripted::{Act, MARKER, ScriptedRedis, full_sync_marker, marker_head};
use crate::support::service::{Setup, error_of, reason_of};
use crate::support::until;
use redkeep::store::Store;
use redkeep::store::sled::{Options, SledStore, verify};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

const SOON: Duration = Duration::from_secs(60);

/// A source whose first synchronisation waits for the gate, and that is willing afterwards.
async fn gated() -> (ScriptedRedis, Arc<Notify>) {
    let gate = Arc::new(Notify::new());
    let whole = full_sync_marker(Dump::sample().bytes, MARKER);
    let first = [vec![Act::Wait(Arc::clone(&gate))], whole.clone()].concat();
    (ScriptedRedis::start(vec![first, whole]).await, gate)
}

#[tokio::test]
async fn a_machine_bears_as_many_as_it_is_told_and_the_oldest_goes_first() {
    let mut sources = Vec::new();
    for _ in 0..4 {
        sources.push(gated().await);
    }
    let mut setup = Setup::new().executor("snapshots_per_host", "2");
    for (index, (server, _)) in sources.iter().enumerate() {
        setup = setup.cluster(&format!("c{index}"), &[&server.address()], "");
    }
    let service = setup.start().await;
    let mut operations = Vec::new();
    for (index, (server, _)) in sources.iter().enumerate() {
        operations.push(service.clients.create(&format!("c{index}"), &format!("b{index}")).await.expect("it is accepted"));
        if index < 2 {
            server.wait_for(|counts| counts.psyncs == 1).await;
        } else {
            let id = &operations[index].id;
            let waits = async || service.clients.progress(id).await.waiting_for.contains("same machine").then_some(());
            until("it waits for the machine", SOON, waits).await;
        }
    }
    let psyncs = || sources.iter().map(|(server, _)| server.counts().psyncs).collect::<Vec<_>>();
    assert_eq!(psyncs(), [1, 1, 0, 0]);
    sources[1].1.notify_one();
    sources[2].0.wait_for(|counts| counts.psyncs == 1).await;
    assert_eq!(psyncs(), [1, 1, 1, 0]);
    for (index, (_, gate)) in sources.iter().enumerate() {
        if index != 1 {
            gate.notify_one();
        }
    }
    for operation in operations {
        let ended = service.clients.ended(&operation.id, SOON).await;
        assert!(error_of(&ended).is_none(), "{ended:#?}");
    }
    service.stop().await;
}

#[tokio::test]
async fn a_place_goes_with_the_process_that_had_it() {
    let (first, _gate) = gated().await;
    let second = ScriptedRedis::start(vec![full_sync_marker(Dump::sample().bytes, MARKER)]).await;
    let setup = Setup::new().executor("refork_delay", "\"1h\"").executor("deadline", "\"2h\"");
    let setup = setup.cluster("first", &[&first.address()], "").cluster("second", &[&second.address()], "");
    let process = setup.spawn(&[]).await;
    let holding = process.clients.create("first", "a").await.expect("it is accepted");
    first.wait_for(|counts| counts.psyncs == 1).await;
    let waiting = process.clients.create("second", "b").await.expect("it is accepted");
    let waits = async || process.clients.progress(&waiting.id).await.waiting_for.contains("same machine").then_some(());
    until("the second waits for the machine", SOON, waits).await;
    let process = process.kill().spawn(&[]).await;
    let ended = process.clients.ended(&waiting.id, SOON).await;
    assert!(error_of(&ended).is_none(), "{ended:#?}");
    // The first has forked its source, and lets it rest.
    let progress = process.clients.progress(&holding.id).await;
    assert!(progress.next_attempt_at.is_some(), "{progress:?}");
    assert_eq!((first.counts().psyncs, second.counts().psyncs), (1, 1));
    let setup = process.terminate(SOON).await;
    let report = verify(&setup.folder().join("store")).expect("the store is there");
    assert!(report.is_clean(), "{report:?}");
}

/// Goal: the budget is the operation's and not a process's. Method: one process is killed after a fork, the next two attempts are cut
/// short by the source.
#[tokio::test]
async fn an_operation_forks_three_times_over_all_processes() {
    let whole = full_sync_marker(Dump::sample().bytes, MARKER);
    let cut = vec![Act::FullResync, Act::Send(marker_head(MARKER)), Act::Send(Dump::sample().bytes.slice(..20)), Act::Close];
    let server = ScriptedRedis::start(vec![whole.clone(), cut.clone(), cut, whole]).await;
    let setup = Setup::new().cluster("main", &[&server.address()], "");
    let process = setup.spawn(&[("REDKEEP_CRASH_AT", "seal")]).await;
    let operation = process.clients.create("main", "a").await.expect("it is accepted");
    let process = process.wait_end(SOON).await.spawn(&[]).await;
    let ended = process.clients.ended(&operation.id, SOON).await;
    assert_eq!(reason_of(&ended), "FORK_BUDGET", "{ended:#?}");
    assert_eq!(server.counts().psyncs, 3);
    let setup = process.terminate(SOON).await;
    let store = SledStore::open(Options::new(setup.folder().join("store"))).expect("the store opens");
    let tally = store.get(operation.id.parse().expect("an id")).await.expect("the operation is there").tally;
    assert_eq!((tally.forks, tally.crashes), (3, 1));
    tokio::task::spawn_blocking(move || store.close()).await.expect("the store closes");
}
