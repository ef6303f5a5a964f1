//! Goal: an account has only the rights it needs, and is told which one is missing. Method: a real server with users of
//! every kind.

use super::*;
use crate::support::server::RedisServer;
use crate::support::service::Setup;

/// The least rights of a backup account. No rights on keys or channels are needed; who may synchronise can read all data.
const LEAST: &[&str] = &["+ping", "+info", "+replconf", "+psync"];

/// Further rights with which faults are told before the source is asked for anything: a missing right, and a primary that
/// Sentinel watches.
const ADVISED: &[&str] = &["+acl|whoami", "+acl|dryrun", "+pubsub|numsub"];

const PASSWORD: &str = "correct-horse";

fn user(name: &str, rights: &[&str]) -> String {
    format!("{name} on >{PASSWORD} -@all {}", rights.join(" "))
}

#[tokio::test]
async fn the_least_rights_are_enough_and_each_is_needed() {
    let mut builder = RedisServer::builder();
    let mut users = vec![("least".to_owned(), LEAST.to_vec()), ("advised".to_owned(), [LEAST, ADVISED].concat())];
    for left_out in LEAST {
        let rights = || LEAST.iter().copied().filter(|right| right != left_out).collect::<Vec<_>>();
        let word = &left_out[1..];
        users.push((format!("least-{word}"), rights()));
        users.push((format!("advised-{word}"), [&rights(), ADVISED].concat()));
    }
    for (name, rights) in &users {
        builder = builder.user(&user(name, rights));
    }
    let redis = builder.start().await;
    redis.command(&["SET", "key", "value"]).await;
    let mut setup = Setup::new().executor("deadline", "\"20s\"");
    std::fs::write(setup.folder().join("secret"), format!("{PASSWORD}\n")).unwrap();
    for (name, _) in &users {
        setup = setup.cluster_apart(name, &redis.address(), &format!("username = \"{name}\"\npassword_file = \"secret\""));
    }
    let service = setup.start().await;
    for (name, _) in &users {
        match name.split_once('-') {
            None => assert_eq!(service.clients.take(name, name).await.shards[0].keys, 1, "{name}"),
            Some((_, word)) => {
                let forks = redis.info("sync_full").await;
                let operation = fails(&service.clients, name).await;
                let advice = format!("user {name} may not run {}; allow it with: ACL SETUSER {name} +{word}", word.to_uppercase());
                assert_reason(&operation, "SOURCE_PERMISSION", &[&advice]);
                assert_eq!(redis.info("sync_full").await, forks, "{name}");
            }
        }
    }
    service.stop().await;
}

#[tokio::test]
async fn a_wrong_password_is_final_and_stays_secret() {
    let redis = RedisServer::builder().password(PASSWORD).user(&user("backup", LEAST)).start().await;
    let setup = Setup::new();
    std::fs::write(setup.folder().join("secret"), "wrong-staple").unwrap();
    let node = [&*redis.address()];
    let setup = setup
        .cluster("default-user", &node, "password_file = \"secret\"")
        .cluster("named-user", &node, "username = \"backup\"\npassword_file = \"secret\"")
        .cluster("no-password", &node, "")
        .cluster("no-file", &node, "password_file = \"not-there\"");
    let process = setup.spawn(&[("REDKEEP_LOG", "trace")]).await;
    for (cluster, words) in [
        ("default-user", &["does not accept the credentials", "WRONGPASS"][..]),
        ("named-user", &["does not accept the credentials", "WRONGPASS"]),
        ("no-password", &["does not accept the credentials", "NOAUTH"]),
        ("no-file", &["password file of cluster no-file", "not found"]),
    ] {
        let operation = fails(&process.clients, cluster).await;
        assert_reason(&operation, "SOURCE_CREDENTIALS", words);
        assert!(!message(&operation).contains("staple"));
        assert_eq!(process.clients.progress(&operation.id).await.attempt, 1);
    }
    assert!(!process.log().contains("staple"), "the log has the password");
    process.terminate(SOON).await;
}

#[tokio::test]
async fn a_local_socket_is_a_source() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("redis.sock");
    let redis = RedisServer::builder().config(&format!("unixsocket {}", socket.display())).start().await;
    redis.command(&["SET", "key", "value"]).await;
    let service = Setup::new().cluster("main", &[&format!("unix:{}", socket.display())], "").start().await;
    assert_eq!(service.clients.take("main", "a").await.shards[0].keys, 1);
    service.stop().await;
}
