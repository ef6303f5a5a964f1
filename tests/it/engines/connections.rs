//! Goal: every way in which a server lets people in works on every engine, and each way in which it does not is told rightly.
//! Method: real servers with TLS, local sockets, passwords that change, a renamed command, no place left, and a guard at the door.

use super::{fails, on};
use crate::adopt::tls::{authority, issue};
use crate::support::engines::{self, REDIS_6_2};
use crate::support::service::{OPERATION, Setup, error_of};
use crate::support::until;
use std::net::{TcpListener, UdpSocket};

const PASSWORD: &str = "correct-horse";

/// The account of these tests.
fn user() -> String {
    format!("backup on >{PASSWORD} -@all +ping +info +replconf +psync")
}

#[tokio::test]
async fn tls_with_an_authority_and_a_certificate_of_ones_own() {
    for engine in engines::present() {
        on(engine);
        if engine == REDIS_6_2 {
            // The wheel's server is built without TLS, so this engine has nothing to show here.
            let refused = engine.builder().config("tls-port 0").try_start().await;
            assert!(refused.is_err(), "this build speaks TLS: take it into the test");
            continue;
        }
        let (ours, folder) = (authority("ours"), tempfile::tempdir().expect("a folder"));
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, ours.pem()).expect("it is written");
        let other_ca = folder.path().join("other.pem");
        std::fs::write(&other_ca, authority("another").pem()).expect("it is written");
        let (cert, key) = issue(&ours, &["127.0.0.1"], folder.path(), "server");
        let (client_cert, client_key) = issue(&ours, &["redkeep"], folder.path(), "client");
        // Free at the moment; the server that needs it is started at once.
        let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("a port").port();
        let builder = engine.builder().user(&user()).config(&format!("tls-port {port}")).config(&format!("tls-ca-cert-file {}", ca.display()));
        let builder = builder.config(&format!("tls-cert-file {}", cert.display())).config(&format!("tls-key-file {}", key.display()));
        let redis = builder.config("tls-auth-clients yes").start().await;
        redis.command(&["SET", "key", "value"]).await.ok();
        let node = format!("127.0.0.1:{port}");
        let setup = Setup::new();
        std::fs::write(setup.folder().join("secret"), PASSWORD).expect("a password is written");
        let login = |tls: &str| format!("username = \"backup\"\npassword_file = \"secret\"\ntls = {{ {tls} }}");
        let setup = setup
            .cluster("with", &[&node], &login(&format!("ca = {ca:?}, cert = {client_cert:?}, key = {client_key:?}")))
            .cluster("without", &[&node], &login(&format!("ca = {ca:?}")))
            .cluster("foreign", &[&node], &login(&format!("ca = {other_ca:?}, cert = {client_cert:?}, key = {client_key:?}")));
        let service = setup.start().await;
        assert_eq!(service.clients.take("with", "secured").await.shards[0].keys, 1);
        for (cluster, words) in [("without", "certificate of ours"), ("foreign", "none of the trusted authorities")] {
            let (_, reason, message) = fails(&service.clients, cluster).await;
            assert_eq!((&*reason, message.contains(words)), ("SOURCE_CERTIFICATE", true), "{message}");
        }
        assert_eq!(redis.info("sync_full").await, "1");
        service.stop().await;
    }
}

#[tokio::test]
async fn a_local_socket_with_and_without_an_account() {
    for engine in engines::present() {
        on(engine);
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("s");
        let redis = engine.builder().password("of-all").user(&user()).config(&format!("unixsocket {}", socket.display())).start().await;
        redis.command(&["SET", "key", "value"]).await.ok();
        let setup = Setup::new();
        for (file, password) in [("all", "of-all"), ("one", PASSWORD)] {
            std::fs::write(setup.folder().join(file), password).expect("a password is written");
        }
        let node = format!("unix:{}", socket.display());
        let setup = setup
            .cluster("by-password", &[&node], "password_file = \"all\"")
            .cluster("by-account", &[&node], "username = \"backup\"\npassword_file = \"one\"")
            .cluster("by-nothing", &[&node], "");
        let service = setup.start().await;
        for cluster in ["by-password", "by-account"] {
            let shard = service.clients.take(cluster, cluster).await.shards.remove(0);
            assert_eq!((shard.keys, shard.source_host), (1, node.clone()));
        }
        let (_, reason, message) = fails(&service.clients, "by-nothing").await;
        assert_eq!((&*reason, message.contains("NOAUTH")), ("SOURCE_CREDENTIALS", true), "{message}");
        service.stop().await;
    }
}

/// The file is read anew for each backup, so a password is changed without a restart; a wrong one is no reason to ask again.
#[tokio::test]
async fn a_password_that_changes_while_the_service_runs() {
    for engine in engines::present() {
        on(engine);
        let redis = engine.builder().user(&user()).start().await;
        let setup = Setup::new();
        let secret = setup.folder().join("secret");
        std::fs::write(&secret, PASSWORD).expect("a password is written");
        let service = setup.cluster("main", &[&redis.address()], "username = \"backup\"\npassword_file = \"secret\"").start().await;
        service.clients.take("main", "before").await;
        redis.command(&["ACL", "SETUSER", "backup", "resetpass", ">battery-staple"]).await.ok();
        let (operation, reason, message) = fails(&service.clients, "main").await;
        assert_eq!(reason, "SOURCE_CREDENTIALS", "{message}");
        assert_eq!(service.clients.progress(&operation.id).await.attempt, 1);
        assert!(!message.contains(PASSWORD));
        std::fs::write(&secret, "battery-staple\n").expect("a password is written");
        service.clients.take("main", "after").await;
        service.stop().await;
    }
}

#[tokio::test]
async fn a_renamed_command_is_told_before_anything_is_asked() {
    for engine in engines::present() {
        on(engine);
        let redis = engine.builder().config("rename-command PSYNC hidden-by-the-owner").start().await;
        let service = Setup::new().cluster("main", &[&redis.address()], "").start().await;
        let (operation, reason, message) = fails(&service.clients, "main").await;
        assert_eq!(reason, "SOURCE_VERSION", "{message}");
        let words = if engine.is_modern() { "rename-command has renamed it" } else { "unknown command" };
        assert!(message.contains(words), "{message}");
        assert_eq!(service.clients.progress(&operation.id).await.attempt, 1);
        assert_eq!(redis.info("sync_full").await, "0");
        service.stop().await;
    }
}

/// A server without a place for us is asked again; the backup succeeds once there is one.
#[tokio::test]
async fn a_server_with_no_place_left() {
    for engine in engines::present() {
        on(engine);
        let redis = engine.builder().start().await;
        let service = Setup::new().cluster("main", &[&redis.address()], "").start().await;
        let mut master = redis.connect().await;
        master.command(&["CONFIG", "SET", "maxclients", "1"]).await.ok();
        let operation = service.clients.create("main", "crowded").await.expect("the backup is accepted");
        until("a first attempt fails", OPERATION, async || {
            let progress = service.clients.progress(&operation.id).await;
            (!progress.last_error.is_empty()).then_some(())
        })
        .await;
        master.command(&["CONFIG", "SET", "maxclients", "100"]).await.ok();
        let operation = service.clients.ended(&operation.id, OPERATION).await;
        assert!(error_of(&operation).is_none(), "{operation:#?}");
        assert_eq!(redis.info("sync_full").await, "1");
        service.stop().await;
    }
}

/// The guard of a server without a password lets nobody in from outside of the machine.
#[tokio::test]
async fn protected_mode_is_told() {
    let Some(outside) = outside_address() else {
        eprintln!("SKIPPED: this machine has no address but loopback, so protected mode has nothing to guard");
        return;
    };
    for engine in engines::present() {
        on(engine);
        if engine == REDIS_6_2 {
            // It guards only a server that was given no address to listen at, and a test's always is.
            continue;
        }
        let redis = engine.builder().config("bind 0.0.0.0").config("protected-mode yes").start().await;
        let service = Setup::new().cluster("main", &[&format!("{outside}:{}", redis.port())], "").start().await;
        let (operation, reason, message) = fails(&service.clients, "main").await;
        assert_eq!((&*reason, message.contains("protected mode")), ("SOURCE_PERMISSION", true), "{message}");
        assert_eq!(service.clients.progress(&operation.id).await.attempt, 1);
        service.stop().await;
    }
}

/// An address of this machine that is not loopback. Nothing is sent: the system only chooses a route.
fn outside_address() -> Option<std::net::Ipv4Addr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    match socket.local_addr().ok()?.ip() {
        std::net::IpAddr::V4(address) if !address.is_loopback() => Some(address),
        _ => None,
    }
}
