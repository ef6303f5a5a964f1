//! Goal: a password that was entrusted to the service is nowhere but in its memory. Method: everything that the real program
//! writes is searched, with all that it can log.

use super::*;
use crate::support::answers::fields;
use crate::support::service::{Setup, files_below};
use std::time::Duration;
use tonic::Code;

const SOON: Duration = Duration::from_secs(60);

/// Whether a file below the folder holds the bytes.
fn holds(setup: &Setup, secret: &str) -> Vec<String> {
    let mut files = files_below(setup.folder());
    files.retain(|file| std::fs::read(setup.folder().join(file)).unwrap().windows(secret.len()).any(|bytes| bytes == secret.as_bytes()));
    files
}

#[tokio::test]
async fn a_password_is_in_no_file_log_or_answer() {
    let redis = guarded().await;
    let process = Setup::new().secrets("key").spawn(&[("REDKEEP_LOG", "trace")]).await;
    let clients = &process.clients;
    let adopted = succeeds(clients, adopt(clients, "main", connection(&redis.address(), credentials(PASSWORD))).await).await;
    clients.take("main", "a").await;
    fails(clients, update(clients, "main", connection(&redis.address(), credentials("wrong-staple"))).await, "SOURCE_CREDENTIALS").await;
    // One that is refused before it is accepted.
    let refused = update(clients, "main", connection("nonsense", credentials("refused-staple"))).await.unwrap_err();
    assert!(!format!("{refused:?}").contains("staple"));
    assert!(!format!("{adopted:?}").contains(PASSWORD));
    let log = process.log();
    let setup = process.terminate(SOON).await;
    for secret in [PASSWORD, "wrong-staple", "refused-staple"] {
        assert!(!log.contains(secret), "the log has it");
        assert_eq!(holds(&setup, secret), Vec::<String>::new());
    }
    assert!(!holds(&setup, "backup").is_empty(), "the search finds what is there");
}

#[tokio::test]
async fn without_a_key_no_credentials_are_taken() {
    let redis = RedisServer::start().await;
    let service = Setup::new().start().await;
    let clients = &service.clients;
    let refused = adopt(clients, "main", connection(&redis.address(), credentials(PASSWORD))).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert!(refused.message().contains("[secrets] key_file"), "{refused:?}");
    assert!(list(clients).await.is_empty());
    succeeds(clients, adopt(clients, "main", connection(&redis.address(), None)).await).await;
    clients.take("main", "a").await;
    service.stop().await;
}

#[tokio::test]
async fn with_another_key_they_have_to_be_given_anew() {
    let redis = guarded().await;
    let service = Setup::new().secrets("key").start().await;
    succeeds(&service.clients, adopt(&service.clients, "main", connection(&redis.address(), credentials(PASSWORD))).await).await;

    let service = service.stop().await.without_secrets().start().await;
    let message = fails(&service.clients, service.clients.create("main", "a").await, "SOURCE_CREDENTIALS").await;
    assert!(message.contains("[secrets] key_file"), "{message}");

    let service = service.stop().await.secrets("other-key").start().await;
    let clients = &service.clients;
    assert_eq!(get(clients, "main").await.unwrap().health(), managed::cluster::Health::Unknown);
    let message = fails(clients, clients.create("main", "b").await, "SOURCE_CREDENTIALS").await;
    assert!(message.contains("it was sealed with the key"), "{message}");
    let check = bare(clients.fleet.clone().check_cluster(own::CheckClusterRequest { cluster_id: "main".into() }).await).unwrap();
    assert!(!check.ready && check.findings[0].remedy.contains("UpdateConnection"), "{check:#?}");
    // The old ones count as credentials all the same.
    assert_eq!(fields(update(clients, "main", connection(&redis.address(), None)).await), ["connection.credentials"]);
    succeeds(clients, update(clients, "main", connection(&redis.address(), credentials(PASSWORD))).await).await;
    clients.take("main", "c").await;
    service.stop().await;
}
