//! A backup of hundreds of shards, from the store to the wire.

use crate::store::fill_with_wide_backups;
use crate::support::service::Setup;
use redkeep::pb::{managed, own};
use redkeep::store::sled::verify;
use std::collections::BTreeSet;

/// Backups of 512 shards: more than one message of 4 MiB holds, which is what clients take unless they are told otherwise.
const COUNT: usize = 24;

#[tokio::test]
async fn backups_of_512_shards_are_listed_and_got() {
    let setup = Setup::new();
    fill_with_wide_backups(&setup.folder().join("store"), COUNT).await;
    let report = verify(&setup.folder().join("store")).expect("the store is there");
    assert!(report.is_clean() && report.backups == COUNT as u64, "{report:?}");
    let service = setup.start().await;
    let clients = &service.clients;

    let (mut seen, mut pages, mut token) = (BTreeSet::new(), 0, String::new());
    loop {
        let request = own::ListBackupsRequest { page_size: 1000, page_token: token, ..Default::default() };
        let page = clients.backups.clone().list(request).await.expect("a page fits a message").into_inner();
        assert!(page.backups.iter().all(|backup| backup.shards.len() == 512));
        pages += 1;
        seen.extend(page.backups.into_iter().map(|backup| backup.id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert!(seen.len() == COUNT && pages > 1, "{} backups on {pages} pages", seen.len());
    let id = seen.first().expect("there is one");
    assert_eq!(clients.backup(id).await.expect("it is told").shards[511].name, "shard511");

    let (mut told, mut token) = (0, String::new());
    loop {
        let request = own::ListOperationsRequest { page_size: 1000, page_token: token, ..Default::default() };
        let page = clients.own_operations.clone().list(request).await.expect("a page fits a message").into_inner();
        told += page.operations.len();
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(told, COUNT);
    let request = managed::ListBackupsRequest { folder_id: "default".into(), page_size: 1000, ..Default::default() };
    let managed = clients.managed_backups.clone().list(request).await.expect("a page fits a message").into_inner();
    assert_eq!(managed.backups.len(), COUNT);
    service.stop().await;
}
