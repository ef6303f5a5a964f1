//! Goal: credentials of a target are kept only as long as they are needed, and never in the clear; and only who may fill a server
//! does. Method: the store's own files, and callers with roles in one folder or the other.

use super::{into, over, restore, restored};
use crate::access::{Folk, TOKENS};
use crate::support::data;
use crate::support::server::RedisServer;
use crate::support::service::{Clients, Setup, files_below};
use redkeep::operation::{Login, Spec};
use redkeep::pb::own;
use redkeep::pb::own::restore_into_request::Target;
use redkeep::store::sled::{Options, SledStore, verify};
use redkeep::store::{OperationFilter, Store};
use tonic::Code;

const PASSWORD: &str = "correct-horse-battery-staple";

#[tokio::test]
async fn a_password_is_sealed_and_forgotten() {
    let (service, source, backup) = super::backed_up(RedisServer::builder(), 100, Setup::new().secrets("key")).await;
    let target = RedisServer::builder().password(PASSWORD).start().await;
    let credentials = |password: &str| Some(own::Credentials { username: String::new(), password: password.to_owned() });
    let wrong = own::RestoreIntoRequest { credentials: credentials("wrong"), ..into(&backup, &target) };
    let (reason, message) = super::failed(&service.clients, wrong).await;
    assert_eq!(reason, "TARGET_CREDENTIALS", "{message}");
    assert!(message.ends_with("the target is untouched") && !message.contains("wrong\""), "{message}");
    restored(&service.clients, own::RestoreIntoRequest { credentials: credentials(PASSWORD), ..into(&backup, &target) }).await;
    let setup = service.stop().await;
    drop(source);
    let store = SledStore::open(Options::new(setup.folder().join("store"))).unwrap();
    let rows = store.list(&OperationFilter::Cluster("main".parse().unwrap()), None, 100).await.unwrap();
    let mut logins = 0;
    for row in &rows {
        if let Spec::RestoreInto(target) = &row.spec {
            assert_eq!(target.login, Login::default());
            logins += 1;
        }
    }
    assert_eq!(logins, 2);
    tokio::task::spawn_blocking(move || store.close()).await.unwrap();
    assert!(verify(&setup.folder().join("store")).unwrap().is_clean());
    for file in files_below(setup.folder()) {
        let bytes = std::fs::read(setup.folder().join(&file)).unwrap();
        assert!(!bytes.windows(PASSWORD.len()).any(|window| window == PASSWORD.as_bytes()), "{file}");
    }
}

/// Goal: filling a server takes an editor of its folder, emptying one an admin, and reading the backup a restorer of its folder.
#[tokio::test]
async fn roles_in_both_folders() {
    let source = RedisServer::start().await;
    data::fill_small_keys(&source, 10).await;
    let target = RedisServer::start().await;
    let setup =
        Setup::new().auth(TOKENS).cluster("main", &[&source.address()], "folder_id = \"shop\"").cluster("other", &[&target.address()], "folder_id = \"news\"");
    let folk = Folk::of(&setup);
    let tokens = [
        folk.token("both", &[("shop", "restorer"), ("news", "editor")]).await,
        folk.token("reader", &[("shop", "viewer"), ("news", "admin")]).await,
        folk.token("stranger", &[("shop", "editor")]).await,
        folk.token("admin", &[("shop", "restorer"), ("news", "admin")]).await,
        folk.token("root", &[("shop", "admin"), ("news", "admin")]).await,
    ];
    let service = setup.start().await;
    let mut clients = Vec::new();
    for token in &tokens {
        clients.push(Clients::connect_as(&service.endpoint, token).await);
    }
    let [both, reader, stranger, admin, root] = clients.as_slice() else { panic!("five callers") };
    let operation = root.create("main", "a").await.unwrap();
    root.ended(&operation.id, super::SOON).await;
    let list = own::ListBackupsRequest { folder_id: "shop".into(), ..Default::default() };
    let backup = root.backups.clone().list(list).await.unwrap().into_inner().backups.remove(0);
    let host = own::RestoreIntoRequest { target: Some(Target::Host(format!("other/{}", target.address()))), ..into(&backup, &target) };
    let overwriting = own::RestoreIntoRequest { overwrite: true, overwrite_keys: 10, ..host.clone() };

    assert_eq!(restore(reader, host.clone()).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(restore(stranger, host.clone()).await.unwrap_err().code(), Code::NotFound);
    // By address it is the backup's folder that counts.
    assert_eq!(restore(both, into(&backup, &target)).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(restore(stranger, over(&backup, &target, 10)).await.unwrap_err().code(), Code::PermissionDenied);
    let accepted = restore(both, host).await.unwrap();
    root.ended(&accepted.id, super::SOON).await;
    assert_eq!(restore(both, overwriting.clone()).await.unwrap_err().code(), Code::PermissionDenied);
    let accepted = restore(admin, overwriting).await.unwrap();
    assert!(crate::support::service::error_of(&root.ended(&accepted.id, super::SOON).await).is_none());
    drop(clients);
    service.stop().await;
}
