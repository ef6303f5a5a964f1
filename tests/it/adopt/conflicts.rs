//! Goal: what cannot be accepted is refused at once, in words that say what to do. Method: each refusal over the wire.

use super::*;
use crate::support::answers::{fields, keyed};
use crate::support::scripted::ScriptedRedis;
use crate::support::service::Setup;
use crate::support::until;
use tonic::Code;

/// A node that nobody listens at.
const NOWHERE: &str = "127.0.0.1:1";

#[tokio::test]
async fn a_backup_and_a_change_exclude_each_other() {
    let (source, gate) = ScriptedRedis::gated().await;
    let service = Setup::new().executor("drain", "\"0s\"").start().await;
    let clients = &service.clients;
    succeeds(clients, adopt(clients, "main", connection(&source.address(), None)).await).await;
    let backup = clients.create("main", "a").await.unwrap();
    let conflict = format!("conflicting operation \"{}\" detected", backup.id);
    for refused in [forget(clients, "main").await, update(clients, "main", connection(NOWHERE, None)).await, clients.create("main", "b").await] {
        let refused = refused.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, conflict.as_str()));
    }
    gate.notify_one();
    succeeds(clients, Ok(backup)).await;
    succeeds(clients, forget(clients, "main").await).await;
    service.stop().await;
}

#[tokio::test]
async fn an_id_is_taken_once() {
    let service = Setup::new().cluster("configured", &[NOWHERE], "").start().await;
    let clients = &service.clients;
    succeeds(clients, adopt(clients, "main", connection(NOWHERE, None)).await).await;
    for id in ["main", "configured"] {
        let refused = adopt(clients, id, connection(NOWHERE, None)).await.unwrap_err();
        assert_eq!(refused.code(), Code::AlreadyExists, "{refused:?}");
        assert!(refused.message().contains(id), "{refused:?}");
    }
    assert_eq!(list(clients).await, ["configured", "main"]);
    service.stop().await;
}

#[tokio::test]
async fn a_cluster_of_the_configuration_is_changed_there() {
    let service = Setup::new().cluster("main", &[NOWHERE], "").start().await;
    let clients = &service.clients;
    for refused in [forget(clients, "main").await, update(clients, "main", connection(NOWHERE, None)).await] {
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
        assert!(refused.message().contains("[[clusters]]"), "{refused:?}");
    }
    assert_eq!(list(clients).await, ["main"]);
    service.stop().await;
}

#[tokio::test]
async fn what_is_not_valid_is_named() {
    let service = Setup::new().secrets("key").start().await;
    let clients = &service.clients;
    let good = || connection(NOWHERE, None);
    let with_nodes = |nodes: Vec<String>| own::Connection { nodes, ..good() };
    let long = format!("{}:1", "x".repeat(254));
    for (request, field) in [
        (own::AdoptClusterRequest::default(), "connection"),
        (adoption("Main", good()), "cluster_id"),
        (adoption("-main", good()), "cluster_id"),
        (adoption(&"x".repeat(51), good()), "cluster_id"),
        (own::AdoptClusterRequest { name: "a b".into(), ..adoption("main", good()) }, "name"),
        (own::AdoptClusterRequest { folder_id: "No Folder".into(), ..adoption("main", good()) }, "folder_id"),
        (adoption("main", with_nodes(vec![])), "connection.nodes"),
        (adoption("main", with_nodes(vec![NOWHERE.to_owned(); 101])), "connection.nodes"),
        (adoption("main", with_nodes(vec![NOWHERE.to_owned(), "unix:/run/redis.sock".to_owned()])), "connection.nodes[1]"),
        (adoption("main", with_nodes(vec!["localhost".to_owned()])), "connection.nodes[0]"),
        (adoption("main", with_nodes(vec![long])), "connection.nodes[0]"),
        (adoption("main", connection(NOWHERE, credentials("a\r\nSET b c"))), "connection.credentials.password"),
        (adoption("main", connection(NOWHERE, credentials(""))), "connection.credentials.password"),
        (adoption("main", own::Connection { tls_ca: "no certificate".into(), ..good() }), "connection.tls_ca"),
    ] {
        assert_eq!(fields(clients.fleet.clone().adopt_cluster(request).await), [field]);
    }
    assert!(list(clients).await.is_empty());
    service.stop().await;
}

#[tokio::test]
async fn the_same_key_gives_the_same_operation() {
    let redis = guarded().await;
    let service = Setup::new().secrets("key").start().await;
    let clients = &service.clients;
    let ask = async |password: &str, key: &str| {
        let request = adoption("", connection(&redis.address(), credentials(password)));
        bare(clients.fleet.clone().adopt_cluster(keyed(request, key)).await)
    };
    let first = ask(PASSWORD, "one").await.unwrap();
    assert_eq!(ask(PASSWORD, "one").await.unwrap().id, first.id);
    // Another password is another request.
    assert_eq!(fields(ask("another", "one").await), ["idempotency-key"]);
    let ended = succeeds(clients, Ok(first)).await;
    assert_eq!(ask(PASSWORD, "one").await.unwrap(), ended);
    assert_eq!(list(clients).await.len(), 1);
    // A repeated forgetting finds its operation although the cluster is gone.
    let id = list(clients).await.remove(0);
    let forget = async || bare(clients.fleet.clone().forget_cluster(keyed(own::ForgetClusterRequest { cluster_id: id.clone() }, "two")).await);
    let gone = succeeds(clients, forget().await).await;
    assert_eq!(forget().await.unwrap(), gone);
    service.stop().await;
}

/// Method: one worker is kept busy, so that an adoption and a change wait; both are cancelled.
#[tokio::test]
async fn what_waits_can_be_taken_back() {
    let stalling = ScriptedRedis::stalling().await;
    let service = Setup::new().executor("drain", "\"0s\"").executor("workers", "1").cluster("busy", &[&stalling.address()], "").start().await;
    let clients = &service.clients;
    succeeds(clients, adopt(clients, "known", connection(NOWHERE, None)).await).await;
    let busy = clients.create("busy", "a").await.unwrap();
    until("the worker is busy", OPERATION, async || (clients.progress(&busy.id).await.attempt == 1).then_some(())).await;
    let adoption = adopt(clients, "new", connection(NOWHERE, None)).await.unwrap();
    let forgetting = forget(clients, "known").await.unwrap();
    assert_eq!(list(clients).await, ["busy", "known", "new"]);
    for operation in [&adoption, &forgetting] {
        let request = redkeep::pb::operation::CancelOperationRequest { operation_id: operation.id.clone() };
        assert!(bare(clients.operations.clone().cancel(request).await).unwrap().done);
    }
    assert_eq!(list(clients).await, ["busy", "known"]);
    service.stop().await;
}
