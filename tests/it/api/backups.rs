//! Goal: the record of a backup changes as asked, in the store and in storage; and a deleted one goes as promised.

use super::{setup, willing};
use crate::support::answers::{bare, fields, keyed, response};
use crate::support::scripted::ScriptedRedis;
use crate::support::service::{Clients, OPERATION, Service, error_of, files_below};
use crate::support::until;
use prost_types::{FieldMask, Timestamp};
use redkeep::pb::{managed, operation as wire, own};
use serde_json::Value;
use tonic::{Code, Status};
use tonic_types::StatusExt;

const YEAR_2096: Timestamp = Timestamp { seconds: 4_000_000_000, nanos: 0 };

/// Changes what `paths` name, to the end.
async fn update(clients: &Clients, paths: &[&str], request: own::UpdateBackupRequest) -> Result<own::Backup, Status> {
    let update_mask = Some(FieldMask { paths: paths.iter().map(|&path| path.to_owned()).collect() });
    let operation = bare(clients.backups.clone().update(own::UpdateBackupRequest { update_mask, ..request }).await)?;
    Ok(response(&clients.ended(&operation.id, OPERATION).await))
}

async fn delete(clients: &Clients, backup_id: &str) -> Result<wire::Operation, Status> {
    bare(clients.backups.clone().delete(own::DeleteBackupRequest { backup_id: backup_id.into() }).await)
}

async fn delete_managed(clients: &Clients, backup_id: &str) -> Result<wire::Operation, Status> {
    bare(clients.managed_backups.clone().delete(managed::DeleteBackupRequest { backup_id: backup_id.into() }).await)
}

/// What storage says of a backup beside its manifest, in order of revision.
fn facts(service: &Service, backup_id: &str) -> Vec<Value> {
    let root = service.setup.artifact_root();
    let mut facts: Vec<Value> = files_below(&root)
        .iter()
        .filter(|file| file.contains(backup_id) && file.contains("/facts/"))
        .map(|file| serde_json::from_slice(&std::fs::read(root.join(file)).unwrap()).unwrap())
        .collect();
    facts.sort_by_key(|facts| facts["revision"].as_u64());
    facts
}

#[tokio::test]
async fn only_what_the_mask_names_changes() {
    let (_source, service) = willing().await;
    let clients = &service.clients;
    let before = clients.take("main", "first").await;
    let request = || own::UpdateBackupRequest {
        backup_id: before.id.clone(),
        name: "second".into(),
        labels: [("team".to_owned(), "shop".to_owned())].into(),
        expires_at: Some(YEAR_2096),
        holds: vec!["case 1729".into()],
        ..Default::default()
    };
    let renamed = update(clients, &["name"], request()).await.unwrap();
    assert_eq!(renamed, own::Backup { name: "second".into(), ..before.clone() });
    let labelled = update(clients, &["labels", "expires_at"], request()).await.unwrap();
    assert_eq!(labelled, own::Backup { labels: request().labels, expires_at: Some(YEAR_2096), ..renamed });
    let held = update(clients, &["holds"], request()).await.unwrap();
    assert_eq!((held.holds.len(), held.holds[0].reason.as_str(), held.holds[0].created_by.as_str()), (1, "case 1729", "anonymous"));
    let more = own::UpdateBackupRequest { holds: vec!["another".into(), "case 1729".into()], ..request() };
    let more = update(clients, &["holds"], more).await.unwrap();
    assert_eq!(more.holds[1], held.holds[0], "a hold that stands keeps its author and time");
    let never = update(clients, &["expires_at", "holds"], own::UpdateBackupRequest { expires_at: None, holds: Vec::new(), ..request() }).await.unwrap();
    assert_eq!((never.expires_at, never.holds.len(), never.labels["team"].as_str()), (None, 0, "shop"));
    assert_eq!(clients.backup(&before.id).await.unwrap(), never);

    // Each change is in storage too, and outlives the store.
    let facts = facts(&service, &before.id);
    let column = |key: &str| facts.iter().map(|facts| facts[key].clone()).collect::<Vec<_>>();
    assert_eq!(column("revision"), [1, 2, 3, 4, 5]);
    assert_eq!(column("name"), ["second"; 5]);
    assert_eq!((&facts[0]["labels"], &facts[1]["labels"]["team"]), (&serde_json::json!({}), &serde_json::json!("shop")));
    assert!(facts[0]["expires_at"].is_null() && facts[1]["expires_at"].is_string() && facts[4]["expires_at"].is_null());
    assert_eq!((facts[2]["holds"][0]["reason"].as_str(), facts[4]["holds"].as_array().map(Vec::len)), (Some("case 1729"), Some(0)));
    assert!(facts[4]["deleted_until"].is_null());

    // The name that it had is free.
    clients.take("main", "first").await;
    service.stop().await;
}

#[tokio::test]
async fn a_bad_change_is_refused_by_its_field() {
    let (_source, service) = willing().await;
    let clients = &service.clients;
    let backup = clients.take("main", "first").await;
    let request = || own::UpdateBackupRequest { backup_id: backup.id.clone(), ..Default::default() };
    let past = Some(Timestamp { seconds: 1_000_000_000, nanos: 0 });
    let label = |key: &str, value: &str| own::UpdateBackupRequest { labels: [(key.to_owned(), value.to_owned())].into(), ..request() };
    for (paths, request, field) in [
        (vec!["size_bytes"], request(), "update_mask"),
        (vec!["name", "nonsense"], own::UpdateBackupRequest { name: "n".into(), ..request() }, "update_mask"),
        (vec!["expires_at"], own::UpdateBackupRequest { expires_at: past, ..request() }, "expires_at"),
        (vec!["name"], request(), "name"),
        (vec!["name"], own::UpdateBackupRequest { name: "n".repeat(64), ..request() }, "name"),
        (vec!["labels"], label("Upper", "x"), "labels[\"Upper\"]"),
        (vec!["labels"], label("key", "UPPER"), "labels[\"key\"]"),
        (vec!["holds"], own::UpdateBackupRequest { holds: vec!["same".into(), "same".into()], ..request() }, "holds[1]"),
        (vec!["holds"], own::UpdateBackupRequest { holds: vec!["why".into(); 17], ..request() }, "holds"),
    ] {
        assert_eq!(fields(update(clients, &paths, request).await), [field]);
    }
    let create = own::CreateBackupRequest { cluster_id: "main".into(), expires_at: past, ..Default::default() };
    assert_eq!(fields(clients.backups.clone().create(create).await), ["expires_at"]);
    let clear = own::UpdateBackupRequest { clear_suspect: true, ..request() };
    assert_eq!(update(clients, &[], clear).await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(clients.backup(&backup.id).await.unwrap(), backup, "nothing was changed");
    service.stop().await;
}

#[tokio::test]
async fn a_held_backup_stays() {
    let (_source, service) = willing().await;
    let clients = &service.clients;
    let backup = clients.take("main", "first").await;
    let hold = |holds: &[&str]| own::UpdateBackupRequest {
        backup_id: backup.id.clone(),
        holds: holds.iter().map(|&hold| hold.to_owned()).collect(),
        ..Default::default()
    };
    update(clients, &["holds"], hold(&["case 1729"])).await.unwrap();
    for refused in [delete(clients, &backup.id).await.unwrap_err(), delete_managed(clients, &backup.id).await.unwrap_err()] {
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains("case 1729") && refused.message().contains("lift the hold"), "{refused:?}");
        assert_eq!(refused.get_error_details().precondition_failure().unwrap().violations[0].r#type, "HOLD");
    }
    assert_eq!(clients.backup(&backup.id).await.unwrap().state(), own::backup::State::Available);
    update(clients, &["holds"], hold(&[])).await.unwrap();
    delete(clients, &backup.id).await.unwrap();
    service.stop().await;
}

#[tokio::test]
async fn a_deleted_backup_is_gone_through_both_doors() {
    // Method: without a grace time the files go at once; the key still finds the operation when the row is gone.
    let (_source, service) = willing().await;
    let clients = &service.clients;
    for managed in [false, true] {
        let backup = clients.take("main", "same-name").await;
        assert!(!files_below(&service.setup.artifact_root()).is_empty());
        let delete_again = async || {
            if managed {
                let request = managed::DeleteBackupRequest { backup_id: backup.id.clone() };
                bare(clients.managed_backups.clone().delete(keyed(request, "managed-key")).await)
            } else {
                bare(clients.backups.clone().delete(keyed(own::DeleteBackupRequest { backup_id: backup.id.clone() }, "own-key")).await)
            }
        };
        let operation = delete_again().await.unwrap();
        assert_eq!(delete_again().await.unwrap().id, operation.id, "the key finds the operation, however far it is");
        response::<()>(&clients.ended(&operation.id, OPERATION).await);
        until("the files go", OPERATION, async || files_below(&service.setup.artifact_root()).is_empty().then_some(())).await;
        until("the row goes", OPERATION, async || clients.backup(&backup.id).await.err()).await;

        assert_eq!(delete_again().await.unwrap().id, operation.id);
        assert_eq!(delete(clients, &backup.id).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(delete_managed(clients, &backup.id).await.unwrap_err().code(), Code::NotFound);
        assert!(clients.all_backups().await.is_empty());
    }
    service.stop().await;
}

#[tokio::test]
async fn during_its_grace_only_our_schema_shows_a_deleted_backup() {
    let source = ScriptedRedis::willing().await;
    let service = setup(&source).executor("delete_grace", "\"1h\"").start().await;
    let mut clients = service.clients.clone();
    let backup = clients.take("main", "first").await;
    let operation = delete(&clients, &backup.id).await.unwrap();
    assert!(error_of(&clients.ended(&operation.id, OPERATION).await).is_none());

    let shown = clients.backup(&backup.id).await.unwrap();
    assert_eq!((shown.state(), shown.purge_at.is_some()), (own::backup::State::Deleting, true));
    assert_eq!(clients.all_backups().await, [shown]);
    assert_eq!(clients.managed_backups.get(managed::GetBackupRequest { backup_id: backup.id.clone() }).await.unwrap_err().code(), Code::NotFound);
    assert!(
        bare(clients.managed_backups.list(managed::ListBackupsRequest { folder_id: "default".into(), ..Default::default() }).await).unwrap().backups.is_empty()
    );
    let of_cluster = managed::ListClusterBackupsRequest { cluster_id: "main".into(), ..Default::default() };
    assert!(bare(clients.clusters.list_backups(of_cluster).await).unwrap().backups.is_empty());
    for again in [delete(&clients, &backup.id).await, delete_managed(&clients, &backup.id).await] {
        assert_eq!(again.unwrap_err().code(), Code::NotFound);
    }
    let rename = own::UpdateBackupRequest { backup_id: backup.id.clone(), name: "other".into(), ..Default::default() };
    assert_eq!(update(&clients, &["name"], rename).await.unwrap_err().code(), Code::NotFound);

    // The name is free at once; the files stay, with a word beside them that says until when.
    clients.take("main", "first").await;
    assert!(files_below(&service.setup.artifact_root()).iter().any(|file| file.starts_with(&backup.path) && file.ends_with(".rdb.zst")));
    assert!(facts(&service, &backup.id)[0]["deleted_until"].is_string());
    service.stop().await;
}

#[tokio::test]
async fn a_backup_in_the_making_cannot_be_changed() {
    let (_source, service) = super::stalling().await;
    let clients = &service.clients;
    clients.create("main", "first").await.unwrap();
    let draft = clients.all_backups().await.remove(0);
    let refused = delete(clients, &draft.id).await.unwrap_err();
    assert_eq!((refused.code(), refused.message().contains("CREATING")), (Code::FailedPrecondition, true), "{refused:?}");
    assert_eq!(delete_managed(clients, &draft.id).await.unwrap_err().code(), Code::NotFound);
    service.stop().await;
}

#[tokio::test]
async fn pages_lead_through_all_backups_newest_first() {
    let (_source, service) = willing().await;
    let mut clients = service.clients.clone();
    let mut expected = Vec::new();
    for name in ["one", "two", "three"] {
        expected.insert(0, clients.take("main", name).await.id);
    }
    let (mut own_ids, mut managed_ids, mut cluster_ids) = (Vec::new(), Vec::new(), Vec::new());
    let mut page_token = String::new();
    loop {
        let page = bare(clients.backups.list(own::ListBackupsRequest { page_size: 1, page_token, ..Default::default() }).await).unwrap();
        own_ids.extend(page.backups.into_iter().map(|backup| backup.id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    loop {
        let request = managed::ListBackupsRequest { folder_id: "default".into(), page_size: 1, page_token };
        let page = bare(clients.managed_backups.list(request).await).unwrap();
        managed_ids.extend(page.backups.into_iter().map(|backup| backup.id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    loop {
        let request = managed::ListClusterBackupsRequest { cluster_id: "main".into(), page_size: 1, page_token };
        let page = bare(clients.clusters.list_backups(request).await).unwrap();
        cluster_ids.extend(page.backups.into_iter().map(|backup| backup.id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!((&own_ids, &managed_ids, &cluster_ids), (&expected, &expected, &expected));
    let elsewhere = own::ListBackupsRequest { folder_id: "elsewhere".into(), ..Default::default() };
    assert!(bare(clients.backups.list(elsewhere).await).unwrap().backups.is_empty());
    service.stop().await;
}
