//! Goal: a stop loses nothing: what can end ends, what cannot goes on after the restart. Method: SIGTERM to the real program.

use super::doors::{health, http_get};
use super::setup;
use crate::support::answers::{assert_runs, response};
use crate::support::rdb_bytes::Dump;
use crate::support::resp::Value;
use crate::support::scripted::{Act, Answer, ScriptedRedis, full_sync_length};
use crate::support::service::{OPERATION, Setup};
use crate::support::until;
use redkeep::pb::own;
use redkeep::pb::own::progress::Step;
use std::time::Duration;
use tonic_health::pb::health_check_response::ServingStatus;

const END: Duration = Duration::from_secs(20);

#[tokio::test]
async fn running_work_ends_within_the_drain() {
    let (source, gate) = ScriptedRedis::gated().await;
    let process = Setup::new().executor("drain", "\"60s\"").cluster("main", &[&source.address()], "").spawn(&[]).await;
    let clients = process.clients.clone();
    let operation = clients.create("main", "first").await.unwrap();
    source.wait_for(|counts| counts.psyncs == 1).await;
    process.tell_to_stop();

    // Who waits is answered meanwhile, and those who choose a service are told to go elsewhere.
    until("it says that it stops", END, async || (http_get(&process.admin, "/readyz").await == (503, "stopping\n".to_owned())).then_some(())).await;
    for service in ["redkeep.v1.BackupService", ""] {
        until("its health says so", END, async || (health(&process.endpoint, service).await == Some(ServingStatus::NotServing)).then_some(())).await;
    }
    assert_eq!(http_get(&process.admin, "/healthz").await.0, 200);
    assert_runs(&clients.operation(&operation.id).await);
    let (ended, ()) = tokio::join!(clients.ended(&operation.id, OPERATION), async { gate.notify_one() });
    let backup: own::Backup = response(&ended);
    assert_eq!(backup.state(), own::backup::State::Available);
    let setup = process.wait_end(END).await;

    let service = setup.start().await;
    assert_eq!(service.clients.backup(&backup.id).await.unwrap(), backup);
    service.stop().await;
}

#[tokio::test]
async fn stalled_work_is_handed_back_and_goes_on() {
    // Goal: a graceful stop counts as no crash. Method: three stops; three crashes would end the operation. One of them is in
    // SNAPSHOT, the others are in PREFLIGHT, because forks of the source are counted all the same.
    let source = ScriptedRedis::start(vec![vec![Act::FullResync, Act::Stall], full_sync_length(Dump::sample().bytes)]).await;
    let mut process = setup(&source).spawn(&[]).await;
    let operation = process.clients.create("main", "first").await.unwrap();
    source.wait_for(|counts| counts.psyncs == 1).await;
    source.answer("ACL DRYRUN", Answer::Silence);
    for attempt in 2..=3 {
        process = process.terminate(END).await.spawn(&[]).await;
        let progress = until("another attempt", END, async || Some(process.clients.progress(&operation.id).await).filter(|it| it.attempt == attempt)).await;
        assert_eq!((progress.step(), progress.last_error.as_str()), (Step::Preflight, ""), "nothing went wrong");
    }
    let setup = process.terminate(END).await;
    source.answer("ACL DRYRUN", Answer::Value(Value::Status("OK".to_owned())));
    let process = setup.spawn(&[]).await;
    let backup: own::Backup = response(&process.clients.ended(&operation.id, OPERATION).await);
    assert_eq!((backup.operation_id, backup.name.as_str()), (operation.id.clone(), "first"));
    let progress = process.clients.progress(&operation.id).await;
    assert_eq!((progress.attempt, progress.last_error.as_str()), (4, ""));
    assert!(process.log().contains("listening") && !process.log().contains("ERROR"), "{}", process.log());
    process.terminate(END).await;
}
