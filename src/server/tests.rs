//! Goal: the limits of a call hold whatever a room does with it. Method: a port with rooms made for the purpose.

use super::accept;
use super::connection::Port;
use super::doors::{Doors, Rooms};
use super::tls::Certificates;
use crate::config::{ClientAuth, Limits, Server, Tls};
use crate::peer::Peer;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::stream;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

const SHORT: Duration = Duration::from_millis(400);

/// Longest wait for what is to happen soon.
const SOON: Duration = Duration::from_secs(20);

/// A port that serves these rooms until the guard is dropped.
fn port(rest: Router, tls: Option<Arc<Certificates>>) -> (SocketAddr, tokio_util::sync::DropGuard) {
    let limits = Limits { max_in_flight: 2, body_timeout: SHORT, ..Limits::default() };
    let options = Server { limits: limits.clone(), ..Server::default() };
    let listener = accept::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let closing = CancellationToken::new();
    let doors = Doors::new(Rooms { grpc: None, memstore: None, rest }, &options, address);
    tokio::spawn(accept::accept(listener, Arc::new(Port::new(doors, tls, limits, closing.clone()))));
    (address, closing.drop_guard())
}

/// Tells how long a body was.
fn echo() -> Router {
    Router::new().route(
        "/v1/echo",
        post(|request: Request| async {
            match to_bytes(request.into_body(), usize::MAX).await {
                Ok(bytes) => bytes.len().to_string().into_response(),
                Err(_) => (StatusCode::BAD_REQUEST, "the body broke off").into_response(),
            }
        }),
    )
}

async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut bytes)).await.unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn bodies_have_their_length_and_their_time() {
    // Below this path the port itself bounds the length; the rooms of other paths do.
    let (address, _open) = port(echo(), None);
    let head = "POST /v1/echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    // In chunks, without a length that could be looked at before.
    for (chunks, told) in [(1, "HTTP/1.1 200"), (64, "HTTP/1.1 200"), (80, "HTTP/1.1 413")] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        send(&mut stream, &format!("{head}Transfer-Encoding: chunked\r\n\r\n")).await;
        let (mut reader, mut writer) = stream.split();
        let (answer, ()) = tokio::join!(answer(&mut reader), async {
            for _ in 0..chunks {
                let chunk = format!("10000\r\n{}\r\n", "b".repeat(1 << 16));
                if writer.write_all(chunk.as_bytes()).await.is_err() {
                    return;
                }
            }
            let _ = writer.write_all(b"0\r\n\r\n").await;
        });
        assert!(answer.starts_with(told), "{chunks}: {answer}");
    }
    // One that never ends, and one that comes a byte at a time.
    for piece in ["", "b"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        send(&mut stream, &format!("{head}Content-Length: 1000\r\n\r\nbegin")).await;
        let started_at = Instant::now();
        let (mut reader, mut writer) = stream.split();
        let answer = tokio::select! {
            answer = answer(&mut reader) => answer,
            () = async {
                loop {
                    let _ = writer.write_all(piece.as_bytes()).await;
                    tokio::time::sleep(SHORT / 4).await;
                }
            } => unreachable!("it goes on for ever"),
        };
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        assert!((SHORT..SOON).contains(&started_at.elapsed()), "{:?}", started_at.elapsed());
    }
}

#[tokio::test]
async fn an_answer_that_nobody_takes_is_cut() {
    // Method: two endless answers take the two places; a third call finds none, until they are cut.
    let endless = Router::new().route("/", get(|| async { Body::from_stream(stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from(vec![0; 1 << 16])))) }));
    let (address, _open) = port(endless, None);
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        send(&mut stream, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        stream.read_u8().await.unwrap();
        streams.push(stream);
    }
    let mut third = TcpStream::connect(address).await.unwrap();
    send(&mut third, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert!(answer(&mut third).await.starts_with("HTTP/1.1 429"));
    let started_at = Instant::now();
    while started_at.elapsed() < SOON {
        let mut next = TcpStream::connect(address).await.unwrap();
        send(&mut next, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
        let mut status = [0; 12];
        next.read_exact(&mut status).await.unwrap();
        if status == *b"HTTP/1.1 200" {
            return;
        }
        tokio::time::sleep(SHORT / 4).await;
    }
    panic!("the places are still taken");
}

/// What a client of HTTP/2 begins with: the preface, and settings with this window for each call.
fn greeting(window: u32) -> Vec<u8> {
    let settings = [&[0, 4][..], &window.to_be_bytes()].concat();
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &settings)].concat()
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    [&(payload.len() as u32).to_be_bytes()[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A whole GET of `/` from localhost.
fn get_frame(stream: u32) -> Vec<u8> {
    const END_STREAM_AND_HEADERS: u8 = 0x5;
    frame(1, END_STREAM_AND_HEADERS, stream, b"\x82\x86\x84\x01\x09localhost")
}

#[tokio::test]
async fn a_call_whose_answer_has_no_room_gives_its_place_back() {
    // Method: a client of HTTP/2 that allows no byte of any answer, and is otherwise well.
    let (address, _open) = port(Router::new().route("/", get(|| async { "answer" })), None);
    let mut held = TcpStream::connect(address).await.unwrap();
    held.write_all(&[greeting(0), get_frame(1), get_frame(3)].concat()).await.unwrap();
    let started_at = Instant::now();
    let status = async || {
        let mut stream = TcpStream::connect(address).await.unwrap();
        send(&mut stream, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
        answer(&mut stream).await[9..12].to_owned()
    };
    while status().await != "429" {
        assert!(started_at.elapsed() < SOON, "the places were never taken");
    }
    while status().await != "200" {
        assert!(started_at.elapsed() < SOON, "the places are still taken");
        tokio::time::sleep(SHORT / 4).await;
    }
    answer(&mut held).await;
}

#[tokio::test]
async fn calls_that_are_begun_and_taken_back_end_the_connection() {
    // Method: ten thousand calls, each taken back at once.
    let (address, _open) = port(Router::new().route("/", get(|| async { "answer" })), None);
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let flood = async {
        let mut frames = greeting(65_535);
        for call in 0..10_000 {
            frames.extend([get_frame(2 * call + 1), frame(3, 0, 2 * call + 1, &[0, 0, 0, 8])].concat());
        }
        let _ = writer.write_all(&frames).await;
        std::future::pending::<()>().await;
    };
    let told = tokio::select! {
        told = answer(&mut reader) => told,
        () = flood => unreachable!("it goes on for ever"),
    };
    assert!(told.contains("too_many_resets"), "{told:?}");
}

fn make_pair(folder: &Path) -> Tls {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut own = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    own.distinguished_name.push(rcgen::DnType::CommonName, "backup");
    own.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = rcgen::CertifiedIssuer::self_signed(own.clone(), rcgen::KeyPair::generate().unwrap()).unwrap();
    own.is_ca = rcgen::IsCa::ExplicitNoCa;
    let (cert, key_file, client_ca) = (folder.join("cert.pem"), folder.join("key.pem"), folder.join("ca.pem"));
    std::fs::write(&cert, own.signed_by(&key, &authority).unwrap().pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    std::fs::write(&client_ca, authority.pem()).unwrap();
    Tls { cert, key: key_file, client_ca: Some(client_ca), client_auth: ClientAuth::Optional }
}

#[tokio::test]
async fn every_request_knows_its_peer() {
    super::install_crypto();
    let folder = tempfile::tempdir().unwrap();
    let options = make_pair(folder.path());
    let who = || {
        Router::new().route(
            "/",
            get(|request: Request| async move {
                let peer = request.extensions().get::<Peer>().unwrap();
                format!("{} {}", peer.address, peer.certificate.as_ref().map_or("nobody", |certificate| certificate.subject()))
            }),
        )
    };
    let request = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let (address, _open) = port(who(), None);
    let mut stream = TcpStream::connect(address).await.unwrap();
    let from = stream.local_addr().unwrap();
    send(&mut stream, request).await;
    let told = answer(&mut stream).await;
    assert!(told.ends_with(&format!("{from} nobody")), "{told}");

    let (address, _open) = port(who(), Some(Arc::new(Certificates::open(options.clone()).unwrap())));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_file(options.client_ca.as_ref().unwrap()).unwrap()).unwrap();
    let chain = vec![rustls::pki_types::CertificateDer::from_pem_file(&options.cert).unwrap()];
    let key = rustls::pki_types::PrivateKeyDer::from_pem_file(&options.key).unwrap();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    send(&mut stream, request).await;
    let told = answer(&mut stream).await;
    assert!(told.ends_with(" CN=backup"), "{told}");
}
