//! Goal: a web page gets in only where it may, and then with what browsers need. Method: the headers that browsers send, over
//! real sockets.

use super::{call, code, frame};
use crate::support::http::{Answer, ask};
use crate::support::service::{Clients, Login, Service, Setup};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use redkeep::pb::own;
use tonic::Code;
use tonic::transport::{Channel, Uri};

const LIST: &str = "POST /redkeep.v1.BackupService/List HTTP/1.1";

async fn get(service: &Service, headers: &[&str]) -> Answer {
    let host = format!("Host: {}", service.address());
    ask(service.address(), &[&["GET /nothing HTTP/1.1", &host], headers].concat(), b"").await
}

/// A list of backups by gRPC-Web.
async fn list(service: &Service, kind: &str, headers: &[&str]) -> Answer {
    let (host, kind_line) = (format!("Host: {}", service.address()), format!("Content-Type: {kind}"));
    let mut body = frame(&own::ListBackupsRequest::default());
    if kind.contains("text") {
        body = STANDARD.encode(body).into_bytes();
    }
    ask(service.address(), &[&[LIST, &host, &kind_line, "X-Grpc-Web: 1"], headers].concat(), &body).await
}

/// The messages and the trailers of an answer in gRPC-Web.
fn frames(answer: &Answer) -> (Vec<Vec<u8>>, String) {
    let bytes = match answer.header("content-type").unwrap() {
        kind if kind.starts_with("application/grpc-web-text") => {
            // Each piece is encoded by itself.
            answer
                .text()
                .split_inclusive("==")
                .flat_map(|piece| piece.split_inclusive('='))
                .flat_map(|piece| STANDARD.decode(piece).unwrap_or_default())
                .collect()
        }
        kind => {
            assert_eq!(kind, "application/grpc-web+proto");
            answer.body.clone()
        }
    };
    let (mut messages, mut trailers, mut rest) = (Vec::new(), String::new(), bytes.as_slice());
    while let [kind, a, b, c, d, tail @ ..] = rest {
        let (piece, tail) = tail.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
        match kind {
            0 => messages.push(piece.to_vec()),
            0x80 => trailers = String::from_utf8(piece.to_vec()).unwrap(),
            kind => panic!("a frame of kind {kind}"),
        }
        rest = tail;
    }
    (messages, trailers)
}

#[tokio::test]
async fn grpc_web_in_both_forms() {
    let service = Setup::new().start().await;
    for kind in ["application/grpc-web+proto", "application/grpc-web", "application/grpc-web-text", "application/grpc-web-text+proto"] {
        let accept = format!("Accept: {kind}");
        let answer = list(&service, kind, &[&accept]).await;
        assert_eq!(answer.status, 200, "{kind}: {answer:?}");
        let (messages, trailers) = frames(&answer);
        assert_eq!(messages.len(), 1, "{kind}");
        assert!(own::ListBackupsResponse::decode(messages[0].as_slice()).unwrap().backups.is_empty());
        assert!(trailers.to_ascii_lowercase().contains("grpc-status:0"), "{kind}: {trailers:?}");
        // No page may read it unless it may call.
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    // A refusal by the call itself.
    let (host, request) = (format!("Host: {}", service.address()), own::GetBackupRequest { backup_id: "none".into() });
    let lines = ["POST /redkeep.v1.BackupService/Get HTTP/1.1", &host, "Content-Type: application/grpc-web+proto"];
    let answer = ask(service.address(), &lines, &frame(&request)).await;
    assert_eq!((answer.status, answer.header("grpc-status")), (200, Some("5")), "{answer:?}");
    service.stop().await;
}

#[tokio::test]
async fn a_page_of_another_origin_is_refused_at_every_door() {
    let service = Setup::new().start().await;
    let own = format!("Origin: http://{}", service.address());
    for (headers, refused) in [
        (&["Origin: https://evil.example"][..], true),
        (&["Origin: http://localhost:3000"], true),
        (&["Origin: null"], true),
        (&["Sec-Fetch-Site: cross-site"], true),
        (&["Sec-Fetch-Site: same-site"], true),
        (&["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"], true),
        (&[&own], false),
        (&[&own, "Sec-Fetch-Site: same-origin"], false),
        (&["Sec-Fetch-Site: none"], false),
        (&[], false),
    ] {
        let answer = get(&service, headers).await;
        assert_eq!(answer.status, if refused { 403 } else { 404 }, "{headers:?}");
        if refused {
            let status: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!((&status["code"], &status["details"]), (&serde_json::json!(7), &serde_json::json!([])));
            assert!(status["message"].as_str().unwrap().contains("server.cors_origins"), "{status}");
        }
        let answer = list(&service, "application/grpc-web+proto", headers).await;
        let expected = if refused { (403, Some("7")) } else { (200, None) };
        assert_eq!((answer.status, answer.header("grpc-status")), expected, "{headers:?}");
    }
    // A preflight gets nothing either, and a page on the port of health is as foreign.
    let preflight =
        ["OPTIONS /redkeep.v1.BackupService/List HTTP/1.1", "Host: localhost", "Origin: https://evil.example", "Access-Control-Request-Method: POST"];
    let answer = ask(service.address(), &preflight, b"").await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (403, None));
    let answer = ask(&service.admin, &["GET /readyz HTTP/1.1", "Host: localhost", "Sec-Fetch-Site: cross-site"], b"").await;
    assert_eq!(answer.status, 403);
    service.stop().await;
}

#[tokio::test]
async fn a_name_that_leads_here_is_not_ours() {
    // Method: what a browser sends after the name of an attacker has been made to lead to this machine.
    let service = Setup::new().server("advertise", "\"backups.example:7379\"").server("allowed_hosts", "[\"redkeep.internal\"]").start().await;
    for (host, refused) in [
        ("rebound.example", true),
        ("rebound.example:7379", true),
        ("localhost.rebound.example", true),
        ("10.1.2.3", true),
        ("backups.example", false),
        ("redkeep.internal:7379", false),
        ("localhost", false),
        ("[::1]:7379", false),
    ] {
        let (line, origin) = (format!("Host: {host}"), format!("Origin: http://{host}"));
        for lines in [&["GET /nothing HTTP/1.1", &line][..], &["GET /nothing HTTP/1.1", &line, &origin, "Sec-Fetch-Site: same-origin"]] {
            assert_eq!(ask(service.address(), lines, b"").await.status, if refused { 403 } else { 404 }, "{lines:?}");
        }
        let answer = ask(&service.admin, &["GET /readyz HTTP/1.1", &line], b"").await;
        assert_eq!(answer.status, if refused { 403 } else { 200 }, "{host}");
        // gRPC sends the name as `:authority`.
        let endpoint = Channel::from_shared(service.endpoint.clone()).unwrap().origin(format!("http://{host}").parse::<Uri>().unwrap());
        let outcome = call(&Clients::over(endpoint.connect().await.unwrap(), Login::default())).await;
        assert_eq!(code(outcome), refused.then_some(Code::PermissionDenied), "{host}");
    }
    assert_eq!(ask(service.address(), &["GET /nothing HTTP/1.1"], b"").await.status, 403, "no name at all");
    service.stop().await;
}

#[tokio::test]
async fn a_page_that_may_call_gets_what_it_needs() {
    let service = Setup::new().server("cors_origins", "[\"https://console.example\"]").start().await;
    let page = "Origin: https://console.example";
    let host = format!("Host: {}", service.address());
    for path in ["/redkeep.v1.BackupService/List", "/redkeep/v1/backups", "/v1/backups"] {
        let first = format!("OPTIONS {path} HTTP/1.1");
        let headers = ["Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization,content-type,x-grpc-web,idempotency-key"];
        let answer = ask(service.address(), &[&[first.as_str(), &host, page], &headers[..]].concat(), b"").await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some("https://console.example")), "{path}");
        let allowed = answer.header("access-control-allow-headers").unwrap().to_ascii_lowercase();
        assert!(allowed.contains("authorization") && allowed.contains("x-grpc-web"), "{allowed}");
        assert!(answer.header("access-control-allow-methods").unwrap().contains("POST"));
        let answer = ask(service.address(), &[&[first.as_str(), &host, "Origin: https://evil.example"], &headers[..]].concat(), b"").await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (403, None), "{path}");
    }
    for answer in [list(&service, "application/grpc-web+proto", &[page, "Sec-Fetch-Site: cross-site"]).await, get(&service, &[page]).await] {
        assert!([200, 404].contains(&answer.status), "{answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://console.example"));
        let exposed = answer.header("access-control-expose-headers").unwrap();
        for name in ["grpc-status", "grpc-message", "grpc-status-details-bin", "x-request-id"] {
            assert!(exposed.contains(name), "{exposed}");
        }
    }
    assert_eq!(get(&service, &["Origin: https://evil.example"]).await.status, 403);
    assert_eq!(get(&service, &["Origin: http://console.example"]).await.status, 403, "the same name without TLS");
    call(&service.clients).await.unwrap();
    service.stop().await;
}
