//! Goal: an adopted cluster is as good as one of the configuration, from the acceptance of its adoption to its forgetting.
//! Method: real servers, the service in this process or as the real program.

use super::*;
use crate::support::answers::{fields, metadata, response};
use crate::support::scripted::ScriptedRedis;
use crate::support::service::Setup;
use managed::cluster;
use std::net::TcpListener;
use tonic::Code;

#[tokio::test]
async fn it_is_backed_up_and_outlives_a_restart() {
    let redis = guarded().await;
    let service = Setup::new().secrets("key").start().await;
    let clients = &service.clients;
    let labels = [("team".to_owned(), "shop".to_owned())].into();
    let request = own::AdoptClusterRequest {
        name: "Shop".into(),
        description: "of the shop".into(),
        labels,
        ..adoption("shop", connection(&redis.address(), credentials(PASSWORD)))
    };
    let accepted = bare(clients.fleet.clone().adopt_cluster(request).await).unwrap();
    assert_eq!(metadata::<own::AdoptClusterMetadata>(&accepted).cluster_id, "shop");
    // Known from the acceptance on.
    assert_eq!(list(clients).await, ["shop"]);
    let ended = succeeds(clients, Ok(accepted)).await;
    let adopted: Cluster = response(&ended);
    assert_eq!(
        (adopted.id.as_str(), adopted.name.as_str(), adopted.description.as_str(), adopted.labels["team"].as_str()),
        ("shop", "Shop", "of the shop", "shop")
    );
    assert_eq!((adopted.status(), adopted.health(), adopted.tls_enabled), (cluster::Status::Running, cluster::Health::Alive, false));
    let shown = get(clients, "shop").await.unwrap();
    assert_eq!(shown, adopted);
    assert_eq!(clients.take("shop", "before").await.shards[0].keys, 1);

    let service = service.stop().await.start().await;
    let clients = &service.clients;
    assert_eq!(get(clients, "shop").await.unwrap().created_at, adopted.created_at);
    assert_eq!(clients.take("shop", "after").await.shards[0].keys, 1, "the password opens after a restart");
    service.stop().await;
}

#[tokio::test]
async fn it_is_named_by_the_service_where_nobody_names_it() {
    let redis = RedisServer::start().await;
    let service = Setup::new().start().await;
    let ended = succeeds(&service.clients, adopt(&service.clients, "", connection(&redis.address(), None)).await).await;
    let adopted: Cluster = response(&ended);
    assert_eq!((adopted.id.len(), &adopted.name), (36, &adopted.id));
    assert_eq!(list(&service.clients).await, std::slice::from_ref(&adopted.id));
    service.clients.take(&adopted.id, "a").await;
    service.stop().await;
}

/// Method: a server that takes the connection and says nothing, so that the look at it lasts; and one that is not there.
#[tokio::test]
async fn a_server_that_does_not_answer_is_no_reason_against_it() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let service = Setup::new().start().await;
    let clients = &service.clients;
    let accepted = adopt(clients, "down", connection(&silent.local_addr().unwrap().to_string(), None)).await.unwrap();
    assert!(!accepted.done, "nothing was dialled before the answer");
    assert_eq!(get(clients, "down").await.unwrap().status(), cluster::Status::Creating);
    // Meanwhile nobody else may work on it.
    let conflict = format!("conflicting operation \"{}\" detected", accepted.id);
    for refused in [clients.create("down", "a").await, forget(clients, "down").await, update(clients, "down", connection("127.0.0.1:1", None)).await] {
        let refused = refused.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, conflict.as_str()));
    }
    let adopted: Cluster = response(&succeeds(clients, Ok(accepted)).await);
    assert_eq!((adopted.status(), adopted.health()), (cluster::Status::Running, cluster::Health::Dead));
    assert_eq!(get(clients, "down").await.unwrap().status(), cluster::Status::Running);
    service.stop().await;
}

#[tokio::test]
async fn what_only_its_owner_can_mend_is_a_reason_against_it() {
    let redis = RedisServer::builder()
        .user(&format!("backup on >{PASSWORD} {LEAST} +acl|whoami +acl|dryrun"))
        .user(&format!("weak on >{PASSWORD} -@all +ping +info +acl|whoami +acl|dryrun"))
        .user(&format!("blind on >{PASSWORD} -@all +ping"))
        .start()
        .await;
    let service = Setup::new().secrets("key").start().await;
    let clients = &service.clients;
    let as_user = |username: &str, password: &str| Some(own::Credentials { username: username.into(), password: password.into() });
    for (access, reason, words) in [
        (as_user("backup", "wrong-staple"), "SOURCE_CREDENTIALS", "does not accept the credentials"),
        (as_user("", "wrong-staple"), "SOURCE_CREDENTIALS", "does not accept the credentials"),
        (as_user("weak", PASSWORD), "SOURCE_PERMISSION", "ACL SETUSER weak +replconf +psync"),
        (as_user("blind", PASSWORD), "SOURCE_PERMISSION", "may not run INFO"),
    ] {
        let message = fails(clients, adopt(clients, "main", connection(&redis.address(), access)).await, reason).await;
        assert!(message.contains(words) && !message.contains("staple"), "{message}");
        assert_eq!(get(clients, "main").await.unwrap_err().code(), Code::NotFound);
        assert!(list(clients).await.is_empty());
    }
    // Its id is free again.
    succeeds(clients, adopt(clients, "main", connection(&redis.address(), as_user("backup", PASSWORD))).await).await;
    service.stop().await;
}

#[tokio::test]
async fn its_password_changes() {
    let redis = guarded().await;
    let service = Setup::new().secrets("key").start().await;
    let clients = &service.clients;
    succeeds(clients, adopt(clients, "main", connection(&redis.address(), credentials(PASSWORD))).await).await;
    redis.command(&["ACL", "SETUSER", "backup", "resetpass", ">another-horse"]).await;
    let message = fails(clients, clients.create("main", "a").await, "SOURCE_CREDENTIALS").await;
    assert!(message.contains("does not accept the credentials"), "{message}");

    // A change to what does not work leaves things as they are.
    fails(clients, update(clients, "main", connection(&redis.address(), credentials("wrong-staple"))).await, "SOURCE_CREDENTIALS").await;
    // Nodes alone do not change: the credentials would go wherever somebody likes.
    assert_eq!(fields(update(clients, "main", connection(&redis.address(), None)).await), ["connection.credentials"]);
    let accepted = update(clients, "main", connection(&redis.address(), credentials("another-horse"))).await.unwrap();
    assert_eq!(metadata::<own::UpdateConnectionMetadata>(&accepted).cluster_id, "main");
    let changed: Cluster = response(&succeeds(clients, Ok(accepted)).await);
    assert_eq!((changed.id.as_str(), changed.health()), ("main", cluster::Health::Alive));
    clients.take("main", "b").await;

    // That there are none from here on is said by an empty message; this server has a default user without a password.
    let none = Some(own::Credentials::default());
    succeeds(clients, update(clients, "main", connection(&redis.address(), none)).await).await;
    succeeds(clients, update(clients, "main", connection(&redis.address(), None)).await).await;
    clients.take("main", "c").await;
    let service = service.stop().await.start().await;
    service.clients.take("main", "d").await;
    service.stop().await;
}

#[tokio::test]
async fn its_backups_outlive_it() {
    let source = ScriptedRedis::willing().await;
    let service = Setup::new().start().await;
    let clients = &service.clients;
    succeeds(clients, adopt(clients, "main", connection(&source.address(), None)).await).await;
    let backup = clients.take("main", "a").await;
    let ended = succeeds(clients, forget(clients, "main").await).await;
    assert_eq!(metadata::<own::ForgetClusterMetadata>(&ended).cluster_id, "main");
    let Some(redkeep::pb::operation::operation::Result::Response(nothing)) = &ended.result else { panic!("{ended:#?}") };
    assert_eq!(nothing.type_url, "type.googleapis.com/google.protobuf.Empty");
    let service = service.stop().await.start().await;
    let clients = &service.clients;
    assert_eq!(get(clients, "main").await.unwrap_err().code(), Code::NotFound);
    assert!(list(clients).await.is_empty());
    for gone in [clients.create("main", "b").await, forget(clients, "main").await, update(clients, "main", connection("a:1", None)).await] {
        assert_eq!(gone.unwrap_err().code(), Code::NotFound);
    }
    assert_eq!(clients.backup(&backup.id).await.unwrap(), backup);
    let of_cluster = managed::ListClusterBackupsRequest { cluster_id: "main".into(), ..Default::default() };
    let listed = bare(clients.clusters.clone().list_backups(of_cluster).await).unwrap().backups;
    assert_eq!(listed.iter().map(|listed| &listed.id).collect::<Vec<_>>(), [&backup.id]);
    let of_cluster = own::ListBackupsRequest { cluster_id: "main".into(), ..Default::default() };
    assert_eq!(bare(clients.backups.clone().list(of_cluster).await).unwrap().backups, [backup]);
    let of_cluster = managed::ListClusterOperationsRequest { cluster_id: "main".into(), ..Default::default() };
    assert_eq!(bare(clients.clusters.clone().list_operations(of_cluster).await).unwrap().operations.len(), 3);

    // It can come back, to the folder that its backups are in and to no other.
    let elsewhere = own::AdoptClusterRequest { folder_id: "second".into(), ..adoption("main", connection(&source.address(), None)) };
    assert_eq!(bare(clients.fleet.clone().adopt_cluster(elsewhere).await).unwrap_err().code(), Code::AlreadyExists);
    succeeds(clients, adopt(clients, "main", connection(&source.address(), None)).await).await;
    clients.take("main", "b").await;
    service.stop().await;
}

/// Method: a cluster is adopted, then the configuration gets one of the same id on another server.
#[tokio::test]
async fn the_configuration_goes_before_it() {
    let (adopted, configured) = (RedisServer::start().await, RedisServer::start().await);
    configured.command(&["SET", "key", "value"]).await;
    let service = Setup::new().start().await;
    succeeds(&service.clients, adopt(&service.clients, "main", connection(&adopted.address(), None)).await).await;
    let service = service.stop().await.cluster("main", &[&configured.address()], "").start().await;
    assert_eq!(list(&service.clients).await, ["main"]);
    assert_eq!(service.clients.take("main", "a").await.shards[0].keys, 1);
    service.stop().await;
}
