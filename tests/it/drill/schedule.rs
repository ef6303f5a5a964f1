//! Goal: backups are proved by themselves as the configuration says, each once. Method: backups taken one after the other.

use super::*;

async fn is_loaded(clients: &Clients, id: &str) {
    until("the backup is proved", SOON, async || (clients.backup(id).await.unwrap().level() == Level::Loaded).then_some(())).await;
}

/// The proofs that were made, newest first: the backup and who asked.
async fn proofs(clients: &Clients) -> Vec<(String, String)> {
    let request = own::ListOperationsRequest { cluster_id: "main".into(), ..Default::default() };
    let operations = clients.own_operations.clone().list(request).await.unwrap().into_inner().operations;
    let proofs = operations.iter().filter(|operation| operation.description == "Verify a backup");
    proofs
        .map(|operation| {
            let metadata: own::VerifyBackupMetadata = crate::support::answers::metadata(operation);
            (metadata.backup_id, operation.created_by.clone())
        })
        .collect()
}

#[tokio::test]
async fn each_newest_backup_is_proved_once() {
    let server = RedisServer::start().await;
    data::fill_small_keys(&server, 100).await;
    let process = Setup::new().cluster("main", &[&server.address()], "").sections("[drill]\nafter_backup = \"newest\"\n").spawn(&[]).await;
    let first = process.clients.take("main", "first").await;
    is_loaded(&process.clients, &first.id).await;
    let setup = process.terminate(SOON).await;
    // Another start looks again, and finds nothing to do.
    let process = setup.spawn(&[]).await;
    let second = process.clients.take("main", "second").await;
    is_loaded(&process.clients, &second.id).await;
    let by = |id: &str| (id.to_owned(), "redkeep".to_owned());
    assert_eq!(proofs(&process.clients).await, [by(&second.id), by(&first.id)]);
    nothing_is_left(&process.setup).await;
    process.terminate(SOON).await;
}

#[tokio::test]
async fn one_in_two_is_proved() {
    let server = RedisServer::start().await;
    data::fill_small_keys(&server, 100).await;
    let service = Setup::new().cluster("main", &[&server.address()], "").sections("[drill]\nafter_backup = \"1/2\"\n").start().await;
    let clients = &service.clients;
    let first = clients.take("main", "first").await;
    is_loaded(clients, &first.id).await;
    let second = clients.take("main", "second").await;
    let third = clients.take("main", "third").await;
    is_loaded(clients, &third.id).await;
    assert_eq!(clients.backup(&second.id).await.unwrap().level(), Level::Walked);
    assert_eq!(proofs(clients).await.len(), 2);
    service.stop().await;
}

/// Goal: one that failed is not tried again and again. Method: a program that proves nothing; a second backup.
#[tokio::test]
async fn a_proof_that_fails_is_not_repeated() {
    let server = RedisServer::start().await;
    let setup = Setup::new().cluster("main", &[&server.address()], "");
    let ends = script(setup.folder(), "ends", "exit 1");
    let service = setup.sections(&format!("{}[drill]\nafter_backup = \"newest\"\n", engine(&ends))).start().await;
    let clients = &service.clients;
    let (first, second) = (clients.take("main", "first").await, clients.take("main", "second").await);
    until("the newest was tried", SOON, async || proofs(clients).await.iter().any(|(id, _)| *id == second.id).then_some(())).await;
    let tried = proofs(clients).await;
    assert!(tried.iter().filter(|(id, _)| *id == first.id).count() <= 1 && tried.iter().filter(|(id, _)| *id == second.id).count() == 1, "{tried:?}");
    assert_eq!(clients.backup(&second.id).await.unwrap().level(), Level::Walked);
    service.stop().await;
}
