//! Goal: the port speaks TLS to those who may come, and tells the others why not. Method: real handshakes, with certificates
//! that the program makes.

use super::{call, program};
use crate::support::http::{Tls, answer, ask, ask_over};
use crate::support::service::{Clients, Setup, make_certificates};
use crate::support::until;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest wait for what is to happen soon.
const SOON: Duration = Duration::from_secs(20);

fn trusting(folder: &Path) -> Tls<'_> {
    Tls { trust: folder, identity: None, protocols: &["h2", "http/1.1"] }
}

#[tokio::test]
async fn both_protocols_and_the_command_line_are_served() {
    let service = Setup::new().tls("").start().await;
    let folder = service.setup.tls_folder();
    call(&service.clients).await.unwrap();
    for (protocols, chosen) in [(&["h2", "http/1.1"][..], Some(&b"h2"[..])), (&["http/1.1"], Some(b"http/1.1")), (&[], None)] {
        let mut stream = Tls { protocols, ..trusting(&folder) }.connect(service.address()).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), chosen);
        if chosen != Some(b"h2") {
            let answer = ask_over(&mut stream, &["GET /nothing HTTP/1.1", "Host: localhost"], b"").await;
            assert_eq!((answer.status, answer.header("content-type")), (404, Some("application/json")));
        }
    }
    let refused = Tls { protocols: &["spdy/1"], ..trusting(&folder) }.connect(service.address()).await;
    assert!(refused.is_err(), "a protocol that is not spoken");

    let ca = folder.join("ca.pem").display().to_string();
    assert_eq!(program(&["backup", "list", "--endpoint", &service.endpoint, "--ca", &ca]).await, (0, String::new()));
    service.stop().await;
}

#[tokio::test]
async fn who_trusts_another_authority_does_not_connect() {
    let other = tempfile::tempdir().unwrap();
    make_certificates(other.path());
    let service = Setup::new().tls("").start().await;
    assert!(trusting(other.path()).connect(service.address()).await.is_err());

    let ca = other.path().join("ca.pem").display().to_string();
    let (status, told) = program(&["backup", "list", "--endpoint", &service.endpoint, "--ca", &ca]).await;
    assert_eq!(status, 6, "{told}");
    assert!(told.contains("not signed by an authority that is trusted here") && told.contains("hint: name the authority"), "{told}");
    let (status, told) = program(&["backup", "list", "--endpoint", &service.endpoint, "--ca", "/nonexistent"]).await;
    assert!(status == 2 && told.contains("/nonexistent cannot be read"), "{status}: {told}");
    service.stop().await;
}

#[tokio::test]
async fn clear_text_to_the_port_of_tls_is_told_and_ended() {
    let service = Setup::new().tls("").start().await;
    let started_at = Instant::now();
    let told = ask(service.address(), &["GET / HTTP/1.1", "Host: localhost"], b"").await;
    assert_eq!(told.status, 400);
    assert!(told.text().contains("this port speaks TLS; use https"), "{}", told.text());
    let mut stream = TcpStream::connect(service.address()).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut farewell = Vec::new();
    stream.read_to_end(&mut farewell).await.unwrap();
    assert!(farewell.ends_with(b"this port speaks TLS; use https"), "{farewell:?}");
    for nonsense in [&b"\x00\x01\x02\x03"[..], b"x", b"\x16garbage that is no handshake"] {
        let mut stream = TcpStream::connect(service.address()).await.unwrap();
        stream.write_all(nonsense).await.unwrap();
        assert!(answer(&mut stream).await.is_none(), "{nonsense:?}");
    }
    assert!(started_at.elapsed() < Duration::from_secs(8), "nobody waits for a limit of time");

    let (status, told) = program(&["backup", "list", "--endpoint", &format!("http://{}", service.address())]).await;
    assert!(status == 6 && told.contains("the service speaks TLS there") && told.contains("https://"), "{status}: {told}");
    service.stop().await;

    // The other way round.
    let service = Setup::new().start().await;
    let (status, told) = program(&["backup", "list", "--endpoint", &format!("https://{}", service.address())]).await;
    assert!(status == 6 && told.contains("speaks no TLS there") && told.contains(&format!("http://{}", service.address())), "{status}: {told}");
    service.stop().await;
}

#[tokio::test]
async fn certificates_of_clients_may_be_shown_or_must_be() {
    let other = tempfile::tempdir().unwrap();
    make_certificates(other.path());
    for (client_auth, without) in [("optional", true), ("required", false)] {
        let service = Setup::new().tls(&format!("client_ca = \"tls/ca.pem\"\nclient_auth = \"{client_auth}\"")).start().await;
        let folder = service.setup.tls_folder();
        let served = async |identity: Option<&Path>| {
            let Ok(mut stream) = (Tls { identity, protocols: &["http/1.1"], ..trusting(&folder) }).connect(service.address()).await else { return false };
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
            answer(&mut stream).await.is_some()
        };
        assert!(served(Some(&folder)).await, "{client_auth}");
        assert_eq!(served(None).await, without, "{client_auth}");
        assert!(!served(Some(other.path())).await, "{client_auth}: a certificate of another authority");

        let file = |name: &str| folder.join(name).display().to_string();
        let (ca, cert, key) = (file("ca.pem"), file("client.pem"), file("client-key.pem"));
        let arguments = ["backup", "list", "--endpoint", &service.endpoint, "--ca", &ca, "--cert", &cert, "--key", &key];
        assert_eq!(program(&arguments).await, (0, String::new()), "{client_auth}");
        let (status, told) = program(&arguments[..6]).await;
        assert_eq!(status, if without { 0 } else { 6 }, "{told}");
        assert_eq!(told.contains("--cert FILE"), !without, "{told}");
        service.stop().await;
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_used_and_a_broken_one_is_not() {
    let renewed = tempfile::tempdir().unwrap();
    make_certificates(renewed.path());
    let service = Setup::new().tls("").start().await;
    let folder = service.setup.tls_folder();
    assert!(trusting(renewed.path()).connect(service.address()).await.is_err());
    for name in ["server.pem", "server-key.pem"] {
        std::fs::copy(renewed.path().join(name), folder.join(name)).unwrap();
    }
    until("the new certificate is used", SOON, async || trusting(renewed.path()).connect(service.address()).await.ok()).await;
    call(&service.clients).await.unwrap();

    // Method: a third pair follows a broken one, so that the broken one has surely been looked at.
    std::fs::write(folder.join("server-key.pem"), "no key").unwrap();
    let until_looked_at = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until_looked_at {
        trusting(renewed.path()).connect(service.address()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let third = tempfile::tempdir().unwrap();
    make_certificates(third.path());
    for name in ["server.pem", "server-key.pem"] {
        std::fs::copy(third.path().join(name), folder.join(name)).unwrap();
    }
    until("the third certificate is used", SOON, async || trusting(third.path()).connect(service.address()).await.ok()).await;
    service.stop().await;
}

#[tokio::test]
async fn a_handshake_has_its_time() {
    // Method: the beginning of a handshake that never goes on, beside a client that says nothing.
    let service = Setup::new().server("header_timeout", "\"1s\"").tls("").start().await;
    for start in [&[0x16, 3, 1][..], &[]] {
        let mut stream = TcpStream::connect(service.address()).await.unwrap();
        stream.write_all(start).await.unwrap();
        let started_at = Instant::now();
        assert!(answer(&mut stream).await.is_none());
        assert!((Duration::from_millis(900)..SOON).contains(&started_at.elapsed()), "{:?}", started_at.elapsed());
    }
    let clients = Clients::connect_tls(&service.endpoint, &service.setup.tls_folder(), false).await.unwrap();
    call(&clients).await.unwrap();
    service.stop().await;
}
