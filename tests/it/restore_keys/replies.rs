//! What targets answer on bad days, played by a scripted server.

use super::{all, ask, at_address, fails_at, keys_in, result_of};
use crate::support::data::fill_small_keys;
use crate::support::scripted::{Answer, ScriptedRedis};
use crate::support::server::RedisServer;
use crate::support::service::{OPERATION, Process, Service, Setup};
use redkeep::pb::own;
use redkeep::pb::own::key_selection::Conflict;

/// A service with a backup of 100 keys, whose operations are tried for a second only.
async fn hurried() -> (Service, own::Backup) {
    let source = RedisServer::start().await;
    fill_small_keys(&source, 100).await;
    let service = Setup::new().executor("deadline", "\"1s\"").cluster("main", &[&source.address()], "").start().await;
    let backup = service.clients.take("main", "a").await;
    (service, backup)
}

/// The same with the usual time.
async fn patient() -> (Process, own::Backup) {
    let source = RedisServer::start().await;
    fill_small_keys(&source, 100).await;
    let service = Setup::new().cluster("main", &[&source.address()], "").spawn(&[]).await;
    let backup = service.clients.take("main", "a").await;
    (service, backup)
}

/// Goal: a target that is not ready for a moment is asked again, each key, in the same attempt. Method: five refusals of each kind.
#[tokio::test]
async fn a_target_that_is_not_ready_is_asked_again() {
    let (service, backup) = patient().await;
    let target = ScriptedRedis::willing().await;
    target.answer("RESTORE", "+OK");
    for refusal in ["-CLUSTERDOWN The cluster is down", "-TRYAGAIN Multiple keys request during rehashing of slot", "-LOADING it is"] {
        target.answer_times(5, "RESTORE", refusal);
    }
    let operation = ask(&service.clients, &backup, at_address(&target.address()), all(Conflict::Fail)).await;
    let result = result_of(&service.clients.ended(&operation.id, OPERATION).await);
    assert_eq!(result.keys, keys_in(&backup));
    assert_eq!(service.clients.progress(&operation.id).await.attempt, 1);
    assert_eq!(target.arguments("RESTORE").len(), 115);
}

/// Goal: a connection that is lost is made anew by the next attempt. Method: the server closes it once.
#[tokio::test]
async fn a_lost_connection_is_made_anew() {
    let (service, backup) = patient().await;
    let target = ScriptedRedis::willing().await;
    target.answer("RESTORE", "+OK").answer_times(1, "RESTORE", Answer::Close);
    let operation = ask(&service.clients, &backup, at_address(&target.address()), all(Conflict::Fail)).await;
    let result = result_of(&service.clients.ended(&operation.id, OPERATION).await);
    assert_eq!(result.keys, keys_in(&backup));
    assert_eq!(service.clients.progress(&operation.id).await.attempt, 2);
}

/// Goal: each refusal that will not pass ends the restore with its reason, and no endless circle is followed. Method: a table.
#[tokio::test]
async fn refusals_are_told_apart() {
    let (service, backup) = hurried().await;
    let target = ScriptedRedis::willing().await;
    let circle = format!("-MOVED 5 {}", target.address());
    for (answer, reason, words) in [
        (circle.as_str(), "TARGET_UNREACHABLE", "was sent elsewhere 16 times"),
        ("-ASK 5 203.0.113.9:6379", "TARGET_UNREACHABLE", "not among the nodes"),
        ("-OOM command not allowed when used memory > 'maxmemory'.", "TARGET_MEMORY", "has no memory left"),
        ("-ERR Bad data format", "TARGET_VERSION", "Bad data format"),
        ("-NOPERM this user has no permissions to run the 'restore' command", "TARGET_PERMISSION", "restore"),
        ("-READONLY You can't write against a read only replica.", "TARGET_REFUSED", "replica"),
        (":1", "TARGET_UNREACHABLE", "does not keep to the protocol"),
        ("$-1", "TARGET_UNREACHABLE", "does not keep to the protocol"),
        ("*1", "TARGET_UNREACHABLE", "does not keep to the protocol"),
    ] {
        target.forget("RESTORE").answer("RESTORE", answer);
        let (told, message) = fails_at(&service.clients, &backup, &target.address(), all(Conflict::Fail)).await;
        assert!(told == reason && message.contains(words) && message.contains("nothing was written"), "{answer}: {told} {message}");
    }
}
