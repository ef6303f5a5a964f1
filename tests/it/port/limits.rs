//! Goal: nobody keeps others out by taking slowly, sending slowly or holding on. Method: clients that do, beside a real call.

use super::{call, code, frame};
use crate::support::http::{answer, ask};
use crate::support::service::{Clients, OPERATION, Setup};
use crate::support::until;
use redkeep::pb::own;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;
use tonic_types::StatusExt;

/// Longest wait for what is to happen soon.
const SOON: Duration = Duration::from_secs(20);

/// A limit of time that is met soon.
const SHORT: &str = "\"1s\"";

/// Calls again until there is an answer: a call that crosses the farewell of its connection is not repeated by this client.
async fn comes_back(clients: &Clients) {
    until("the client comes back", SOON, async || call(clients).await.ok()).await;
}

/// Sends a byte now and then, for ever.
async fn drip(writer: &mut (impl AsyncWrite + Unpin), byte: &[u8]) {
    loop {
        let _ = writer.write_all(byte).await;
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

#[tokio::test]
async fn five_thousand_idle_connections_keep_nobody_out() {
    // Method: the real program as it is configured by default, so that descriptors of the two processes are apart.
    const IDLE: usize = 5000;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    assert!(limit.maximum.is_none_or(|most| most > IDLE as u64 + 500), "this test opens {IDLE} connections; raise `ulimit -Hn` ({:?})", limit.maximum);
    let process = Setup::new().spawn(&[]).await;
    let address = process.endpoint.strip_prefix("http://").unwrap().to_owned();
    let mut idle = Vec::with_capacity(IDLE);
    for _ in 0..IDLE {
        idle.push(TcpStream::connect(&address).await.unwrap());
    }
    let started_at = Instant::now();
    call(&process.clients).await.unwrap();
    call(&Clients::connect(&process.endpoint).await).await.unwrap();
    assert_eq!(ask(&address, &["GET / HTTP/1.1", "Host: localhost"], b"").await.status, 404);
    assert!(started_at.elapsed() < Duration::from_secs(5), "{:?}", started_at.elapsed());
    // They are not there for ever either.
    let mut last = idle.pop().unwrap();
    tokio::time::timeout(Duration::from_secs(30), last.read_u8()).await.unwrap().unwrap_err();
    drop(idle);
    process.terminate(SOON).await;
}

#[tokio::test]
async fn who_comes_takes_the_place_of_who_is_idle() {
    // Method: a service with few places. Idle ones of HTTP/2 are told, and come back when they have something to ask.
    let service = Setup::new().server("max_connections", "4").start().await;
    let mut others = Vec::new();
    for _ in 0..8 {
        let clients = Clients::connect(&service.endpoint).await;
        call(&clients).await.unwrap();
        others.push(clients);
    }
    for clients in others.iter().chain([&service.clients]) {
        comes_back(clients).await;
    }
    service.stop().await;
}

#[tokio::test]
async fn the_head_of_a_request_comes_in_time() {
    let service = Setup::new().server("header_timeout", SHORT).start().await;
    for start in [&b""[..], b"P", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "] {
        let mut stream = TcpStream::connect(service.address()).await.unwrap();
        let started_at = Instant::now();
        stream.write_all(start).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        let drips = !start.is_empty();
        let ended = tokio::select! {
            answer = answer(&mut reader) => answer,
            () = drip(&mut writer, b"x"), if drips => unreachable!("it goes on for ever"),
        };
        assert!(ended.is_none());
        assert!((Duration::from_millis(900)..Duration::from_secs(6)).contains(&started_at.elapsed()), "{start:?}: {:?}", started_at.elapsed());
    }
    call(&service.clients).await.unwrap();
    service.stop().await;
}

#[tokio::test]
async fn the_body_of_a_call_comes_in_time() {
    // Method: by gRPC a message whose end never comes; by gRPC-Web a body that is promised and comes byte by byte.
    let service = Setup::new().server("body_timeout", SHORT).start().await;
    let channel = tonic::transport::Channel::from_shared(service.endpoint.clone()).unwrap().connect().await.unwrap();
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let endless = tokio_stream::StreamExt::chain(tokio_stream::once(own::GetBackupRequest { backup_id: "b".into() }), tokio_stream::pending());
    let codec = redkeep::api::codec::Codec::<own::GetBackupRequest, own::Backup>::default();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/redkeep.v1.BackupService/Get");
    let started_at = Instant::now();
    let refused = client.client_streaming(tonic::Request::new(endless), path, codec).await.map(drop);
    assert_eq!(code(refused), Some(Code::DeadlineExceeded));
    assert!(started_at.elapsed() < SOON, "{:?}", started_at.elapsed());

    let mut stream = TcpStream::connect(service.address()).await.unwrap();
    let head = "POST /redkeep.v1.BackupService/List HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/grpc-web+proto\r\nContent-Length: 1000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let started_at = Instant::now();
    let ended = tokio::select! {
        answer = answer(&mut reader) => answer.unwrap(),
        () = drip(&mut writer, b"\0") => unreachable!("it goes on for ever"),
    };
    assert_eq!((ended.status, ended.header("grpc-status")), (408, Some("4")), "{ended:?}");
    assert!(started_at.elapsed() < SOON, "{:?}", started_at.elapsed());
    call(&service.clients).await.unwrap();
    service.stop().await;
}

#[tokio::test]
async fn a_body_of_five_mebibytes_is_refused() {
    let service = Setup::new().start().await;
    let body = vec![b'b'; 5 << 20];
    let answer = ask(service.address(), &["POST /redkeep/v1/backups HTTP/1.1", "Host: localhost", "Content-Type: application/json"], &body).await;
    assert_eq!(answer.status, 413);
    assert!(answer.text().contains("4194304"), "{}", answer.text());
    let long = own::GetBackupRequest { backup_id: "b".repeat(5 << 20) };
    assert_eq!(service.clients.backups.clone().get(long).await.unwrap_err().code(), Code::OutOfRange);
    call(&service.clients).await.unwrap();
    service.stop().await;
}

#[tokio::test]
async fn a_connection_without_calls_ends_and_its_client_comes_back() {
    let service = Setup::new().server("idle_timeout", SHORT).start().await;
    let mut stream = TcpStream::connect(service.address()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let started_at = Instant::now();
    assert_eq!(answer(&mut stream).await.unwrap().status, 404);
    assert!((Duration::from_millis(900)..SOON).contains(&started_at.elapsed()), "{:?}", started_at.elapsed());
    comes_back(&service.clients).await;
    service.stop().await;
}

#[tokio::test]
async fn calls_beyond_the_limit_are_told_when_to_come_back() {
    // Method: a source that never gives its snapshot, so that one call waits as long as it likes.
    let source = crate::support::scripted::ScriptedRedis::stalling().await;
    let setup = Setup::new().executor("drain", "\"0s\"").server("max_in_flight", "1").cluster("main", &[&source.address()], "");
    let service = setup.start().await;
    let operation = service.clients.create("main", "first").await.unwrap();
    let waiting = tokio::spawn({
        let mut operations = service.clients.own_operations.clone();
        let request = own::WaitOperationRequest { operation_id: operation.id.clone(), timeout_ms: 10_000, revision: 0 };
        // Before it has the place, the other call may hold it.
        async move { while operations.wait(request.clone()).await.is_err() {} }
    });
    let refused = until("the place is taken", OPERATION, async || call(&service.clients).await.err()).await;
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.get_error_details().retry_info().is_some(), "{refused:?}");
    let answer = ask(service.address(), &["GET / HTTP/1.1", "Host: localhost"], b"").await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("1")));
    assert_eq!(ask(&service.admin, &["GET /readyz HTTP/1.1", "Host: localhost"], b"").await.status, 200, "health has places of its own");
    waiting.abort();
    let _ = waiting.await;
    until("the place is free", OPERATION, async || call(&service.clients).await.ok()).await;
    service.stop().await;
}

#[tokio::test]
async fn a_call_ends_with_the_time_that_its_client_gave() {
    // Method: bare requests, because clients of tonic keep their time themselves.
    let source = crate::support::scripted::ScriptedRedis::stalling().await;
    let service = Setup::new().executor("drain", "\"0s\"").cluster("main", &[&source.address()], "").start().await;
    let operation = service.clients.create("main", "first").await.unwrap();
    let body = frame(&own::WaitOperationRequest { operation_id: operation.id.clone(), timeout_ms: 60_000, revision: 0 });
    let http2 = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    for (time, status) in [("300m", "4"), ("1S", "4"), ("soon", "3")] {
        let started_at = Instant::now();
        let url = format!("{}/redkeep.v1.OperationService/Wait", service.endpoint);
        let request = http2.post(url).header("content-type", "application/grpc").header("te", "trailers").header("grpc-timeout", time);
        let answer = request.body(body.clone()).send().await.unwrap();
        assert_eq!(answer.headers().get("grpc-status").unwrap(), status, "{time}");
        assert!(started_at.elapsed() < SOON, "{:?}", started_at.elapsed());
    }
    let lines = ["POST /redkeep.v1.OperationService/Wait HTTP/1.1", "Host: localhost", "Content-Type: application/grpc-web+proto", "Grpc-Timeout: 300m"];
    let answer = ask(service.address(), &lines, &body).await;
    assert_eq!(answer.header("grpc-status"), Some("4"), "{answer:?}");
    service.stop().await;
}
