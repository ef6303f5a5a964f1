//! Goal: a server is spoken to over TLS only when its certificate is believed. Method: a real server with certificates made
//! for the test; the right authority, another one, the system's, and none.

use super::*;
use crate::support::answers::response;
use crate::support::service::Setup;
use managed::cluster::Health;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use tonic::Code;

/// An authority.
pub fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate with its key, in files; tells where they are.
pub fn issue(authority: &CertifiedIssuer<'static, KeyPair>, names: &[&str], folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    let certificate = params.signed_by(&key, authority).unwrap();
    let (cert_file, key_file) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}-key.pem")));
    std::fs::write(&cert_file, certificate.pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    (cert_file, key_file)
}

/// A server with one key that speaks TLS on a second port; `names` are those of its certificate.
struct Secured {
    redis: RedisServer,
    address: String,
    authority: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Secured {
    async fn start(names: &[&str], asks_clients: bool) -> Self {
        let (authority, folder) = (authority("ours"), tempfile::tempdir().unwrap());
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, authority.pem()).unwrap();
        let (cert, key) = issue(&authority, names, folder.path(), "server");
        // Free at the moment; the server that needs it is started at once.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let redis = RedisServer::builder()
            .user(&format!("backup on >{PASSWORD} {LEAST}"))
            .config(&format!("tls-port {port}"))
            .config(&format!("tls-ca-cert-file {}", ca.display()))
            .config(&format!("tls-cert-file {}", cert.display()))
            .config(&format!("tls-key-file {}", key.display()))
            .config(if asks_clients { "tls-auth-clients yes" } else { "tls-auth-clients no" })
            .start()
            .await;
        redis.command(&["SET", "key", "value"]).await;
        Self { redis, address: format!("127.0.0.1:{port}"), authority, folder }
    }

    fn ca(&self) -> String {
        self.authority.pem()
    }
}

fn secured(node: &str, ca: &str) -> own::Connection {
    own::Connection { tls: true, tls_ca: ca.into(), ..connection(node, credentials(PASSWORD)) }
}

#[tokio::test]
async fn an_adopted_cluster_is_reached_over_tls() {
    let server = Secured::start(&["127.0.0.1"], false).await;
    let service = Setup::new().secrets("key").start().await;
    let clients = &service.clients;
    let adopted: Cluster = response(&succeeds(clients, adopt(clients, "main", secured(&server.address, &server.ca())).await).await);
    assert_eq!((adopted.health(), adopted.tls_enabled), (Health::Alive, true));
    assert_eq!(clients.take("main", "a").await.shards[0].keys, 1);
    let service = service.stop().await.start().await;
    let clients = &service.clients;
    assert_eq!(clients.take("main", "b").await.shards[0].keys, 1);
    // The same server in plain text, on its other port.
    succeeds(clients, update(clients, "main", connection(&server.redis.address(), credentials(PASSWORD))).await).await;
    assert!(!get(clients, "main").await.unwrap().tls_enabled);
    clients.take("main", "c").await;
    service.stop().await;
}

#[tokio::test]
async fn a_certificate_that_is_not_believed_ends_it() {
    let server = Secured::start(&["127.0.0.1"], false).await;
    let misnamed = Secured::start(&["redis.example"], false).await;
    let service = Setup::new().secrets("key").start().await;
    let clients = &service.clients;
    let of_another = authority("another").pem();
    for (node, ca, words) in [
        (&server.address, of_another.as_str(), "none of the trusted authorities"),
        (&server.address, "", "none of the trusted authorities"),
        (&misnamed.address, &misnamed.ca(), "another name"),
    ] {
        let message = fails(clients, adopt(clients, "main", secured(node, ca)).await, "SOURCE_CERTIFICATE").await;
        assert!(message.contains(words) && !message.contains(PASSWORD), "{message}");
        assert_eq!(get(clients, "main").await.unwrap_err().code(), Code::NotFound);
    }
    // A port that does not speak TLS is a server that does not answer.
    let adopted: Cluster = response(&succeeds(clients, adopt(clients, "plain", secured(&server.redis.address(), &server.ca())).await).await);
    assert_eq!(adopted.health(), Health::Dead);
    let adopted: Cluster = response(&succeeds(clients, adopt(clients, "secured", connection(&server.address, credentials(PASSWORD))).await).await);
    assert_eq!(adopted.health(), Health::Dead);
    service.stop().await;
}

#[tokio::test]
async fn a_cluster_of_the_configuration_shows_a_certificate_of_its_own() {
    let server = Secured::start(&["127.0.0.1"], true).await;
    let (cert, key) = issue(&server.authority, &["redkeep"], server.folder.path(), "client");
    let ca = server.folder.path().join("ca.pem");
    let setup = Setup::new().cluster("with", &[&server.address], &format!("tls = {{ ca = {ca:?}, cert = {cert:?}, key = {key:?} }}")).cluster(
        "without",
        &[&server.address],
        &format!("tls = {{ ca = {ca:?} }}"),
    );
    let service = setup.start().await;
    let clients = &service.clients;
    assert_eq!(clients.take("with", "a").await.shards[0].keys, 1);
    assert!(get(clients, "with").await.unwrap().tls_enabled);
    let message = fails(clients, clients.create("without", "b").await, "SOURCE_CERTIFICATE").await;
    assert!(message.contains("certificate of ours"), "{message}");
    service.stop().await;
}
