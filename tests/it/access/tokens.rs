//! Goal: only a good token lets in, from the moment it is made to the moment it is revoked. Method: a token file beside a
//! running service, changed by the real program.

use super::{Folk, TOKENS, assert_unrecognised, bearer, operations, two_folders};
use crate::support::service::{Clients, Setup};
use crate::support::until;
use redkeep::config;
use redkeep::pb::endpoint::ListApiEndpointsRequest;
use redkeep::pb::endpoint::api_endpoint_service_client::ApiEndpointServiceClient;
use redkeep::server::Server;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::Channel;
use tonic_types::StatusExt;

/// Longest wait for the service to read its token file again.
const REREAD: Duration = Duration::from_secs(10);

fn redkeep(words: &[&str], file: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_redkeep")).args(words).arg("--file").arg(file).env("NO_COLOR", "1").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn only_a_good_token_lets_in() {
    let (_sources, setup) = two_folders().await;
    let folk = Folk::of(&setup);
    let good = folk.token("alice", &[("shop", "viewer")]).await;
    let expired = folk.token_until("alice", &[("shop", "viewer")], Some(chrono::Utc::now() - chrono::TimeDelta::seconds(5))).await;
    let service = setup.auth(TOKENS).start().await;

    assert!(operations(&bearer(&service, &good).await, "shop").await.unwrap().is_empty());
    let without = operations(&service.clients, "shop").await.unwrap_err();
    assert_eq!((without.code(), without.message()), (Code::Unauthenticated, "this call needs a token; send it as `authorization: Bearer TOKEN`"));
    assert_eq!(without.metadata().get("www-authenticate").unwrap(), "Bearer realm=\"redkeep\"");
    assert_unrecognised(&service, &expired, "has expired").await;
    for wrong in ["x", "rk_", "rk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", &good[..good.len() - 1], &format!("{good}A"), &good.to_ascii_uppercase()] {
        assert_unrecognised(&service, wrong, "is not known, or was revoked").await;
    }
    assert_unrecognised(&service, "t1.e30.e30", "was not made by this service").await;
    for malformed in [&format!("{good} {good}"), &format!("{good},{good}"), "a\"b"] {
        assert_unrecognised(&service, malformed, "must have the form").await;
    }

    // What needs nobody answers without a token, and with a wrong one.
    let channel = Channel::from_shared(service.endpoint.clone()).unwrap().connect().await.unwrap();
    for token in [None, Some("Bearer nonsense")] {
        let mut request = tonic::Request::new(ListApiEndpointsRequest::default());
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", token.parse().unwrap());
        }
        ApiEndpointServiceClient::new(channel.clone()).list(request).await.unwrap();
    }
    service.stop().await;
}

#[tokio::test]
async fn odd_headers_are_refused() {
    // Method: HTTP/1.1 by hand, where a header can stand twice.
    let (_sources, setup) = two_folders().await;
    let folk = Folk::of(&setup);
    let good = folk.token("alice", &[("shop", "viewer")]).await;
    let service = setup.auth(TOKENS).start().await;
    let address = service.endpoint.strip_prefix("http://").unwrap().to_owned();
    let ask = |headers: String| {
        let address = address.clone();
        async move {
            let mut stream = TcpStream::connect(&address).await.unwrap();
            let head = "POST /redkeep.v1.OperationService/List HTTP/1.1\r\nContent-Type: application/grpc\r\nTE: trailers\r\nConnection: close\r\nContent-Length: 5\r\n";
            let request = format!("{head}Host: {address}\r\n{headers}\r\n\0\0\0\0\0");
            // The service may answer and hang up before it has read all.
            let _ = stream.write_all(request.as_bytes()).await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            String::from_utf8_lossy(&answer).into_owned()
        }
    };
    for header in [format!("authorization: Bearer {good}\r\n"), format!("AUTHORIZATION: bearer {good}\r\n"), format!("Authorization: BEARER   {good}\r\n")] {
        let answer = ask(header).await;
        assert!(!answer.contains("grpc-status: 16"), "{answer}");
    }
    // The port itself takes no head as long as this.
    let long = "a".repeat(100 * 1024);
    let answer = ask(format!("authorization: Bearer {long}\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    for (headers, words) in [
        (format!("authorization: Bearer {good}\r\nauthorization: Bearer {good}\r\n"), "more%20than%20one%20authorization"),
        (format!("authorization: Basic {good}\r\n"), "must%20have%20the%20form"),
        ("authorization:\r\n".to_owned(), "must%20have%20the%20form"),
    ] {
        let answer = ask(headers).await;
        assert!(answer.contains("grpc-status: 16") && answer.contains(words), "{words} in {answer}");
        assert!(answer.contains("www-authenticate: Bearer realm=\"redkeep\", error=\"invalid_request\"") && !answer.contains(&good), "{answer}");
    }
    // Over HTTP/2 the protocol itself may refuse it; either way nobody is let in.
    let refused = operations(&bearer(&service, &long).await, "shop").await.unwrap_err();
    assert_ne!(refused.code(), Code::Ok);
    assert!(operations(&bearer(&service, &good).await, "shop").await.is_ok());
    service.stop().await;
}

#[tokio::test]
async fn tokens_come_and_go_while_the_service_runs() {
    let (_sources, setup) = two_folders().await;
    let Folk(file) = Folk::of(&setup);
    let service = setup.auth(TOKENS).start().await;

    let made = redkeep(&["token", "create", "--subject", "alice", "--folder", "shop", "--role", "editor", "--folder", "news", "--role", "viewer"], &file);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let token = text(&made.stdout);
    assert!(token.starts_with("rk_") && token.ends_with('\n') && token.lines().count() == 1, "standard output is the token alone");
    let told = text(&made.stderr);
    assert!(told.contains("for alice: news=viewer,shop=editor; never expires") && !told.contains(token.trim()), "{told}");
    let alice = bearer(&service, token.trim()).await;
    let seen = |clients: &Clients| {
        let clients = clients.clone();
        async move { operations(&clients, "shop").await.map_err(|status| status.code()) }
    };
    until("the new token is known", REREAD, async || seen(&alice).await.ok()).await;

    let table = text(&redkeep(&["token", "list"], &file).stdout);
    assert!(table.contains("SUBJECT") && table.contains("alice") && table.contains("never"), "{table}");
    let listed: serde_json::Value = serde_json::from_slice(&redkeep(&["token", "list", "-o", "json"], &file).stdout).unwrap();
    assert_eq!(listed["tokens"][0]["roles"], serde_json::json!({ "news": "viewer", "shop": "editor" }));
    let id = listed["tokens"][0]["id"].as_str().unwrap();

    // A file that cannot be read changes nothing.
    let sound = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{sound}nonsense\n")).unwrap();
    let refused = redkeep(&["token", "create", "--subject", "bob", "--folder", "shop", "--role", "viewer"], &file);
    assert_eq!((refused.status.code(), text(&refused.stderr).contains("line 3")), (Some(1), true), "{}", text(&refused.stderr));
    assert!(seen(&alice).await.is_ok());
    std::fs::write(&file, &sound).unwrap();

    assert_eq!(redkeep(&["token", "revoke", "--subject", "bob"], &file).status.code(), Some(3));
    let revoked = redkeep(&["token", "revoke", "--id", id], &file);
    assert_eq!(text(&revoked.stdout), format!("revoked {id} of alice\n"));
    until("the token is refused", REREAD, async || seen(&alice).await.err()).await;
    assert_unrecognised(&service, token.trim(), "was revoked").await;
    service.stop().await;
}

#[tokio::test]
async fn a_token_with_an_end_is_described() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    let made = redkeep(&["token", "create", "--subject", "alice", "--folder", "*", "--role", "auditor", "--expires", "90d"], &file);
    assert!(text(&made.stderr).contains("for alice: *=auditor; expires "), "{}", text(&made.stderr));
    let past = redkeep(&["token", "create", "--subject", "alice", "--folder", "*", "--role", "auditor", "--expires", "2020-01-01"], &file);
    assert_eq!((past.status.code(), past.stdout.len()), (Some(2), 0), "{}", text(&past.stderr));
    let none = redkeep(&["token", "list"], &folder.path().join("nothing"));
    assert_eq!(none.status.code(), Some(1));
    assert!(text(&none.stderr).contains("cannot be read: entity not found"), "{}", text(&none.stderr));
}

#[tokio::test]
async fn without_its_token_file_the_service_does_not_start() {
    let setup = Setup::new().auth(TOKENS);
    let config = config::load(Some(&setup.write()), &[]).unwrap();
    let fault = Server::start(config.clone(), CancellationToken::new()).await.err().expect("it does not start").to_string();
    assert!(fault.starts_with("auth.file: ") && fault.contains("entity not found") && fault.contains("redkeep token create"), "{fault}");
    std::fs::write(setup.folder().join("tokens"), "nonsense\n").unwrap();
    let fault = Server::start(config, CancellationToken::new()).await.err().expect("it does not start").to_string();
    assert!(fault.contains("line 1"), "{fault}");
}

#[tokio::test]
async fn one_subject_calls_too_fast_and_the_others_do_not_notice() {
    let (_sources, setup) = two_folders().await;
    let folk = Folk::of(&setup);
    let roles = &[("shop", "viewer")][..];
    let (alice, other_of_alice, bob) = (folk.token("alice", roles).await, folk.token("alice", roles).await, folk.token("bob", roles).await);
    let service = setup.auth(&format!("{TOKENS}\nrate_limit = 1\nrate_burst = 3")).start().await;
    let clients = bearer(&service, &alice).await;
    for _ in 0..3 {
        operations(&clients, "shop").await.unwrap();
    }
    for token in [&alice, &other_of_alice] {
        let refused = operations(&bearer(&service, token).await, "shop").await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
        let delay = refused.get_error_details().retry_info().and_then(|retry| retry.retry_delay).expect("a retry delay");
        assert!(delay <= Duration::from_secs(1), "{delay:?}");
    }
    operations(&bearer(&service, &bob).await, "shop").await.unwrap();
    service.stop().await;
}
