//! Goal: what passes between a request and the services, and back. Method: the gateway in front of a service that shows what
//! it was given, without a network; the real services are behind it in the integration tests.

use super::*;
use crate::pb::own::operation_service_server::{OperationService, OperationServiceServer};
use crate::pb::{operation as wire, own};
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::Status;
use tonic::codegen::BoxStream;
use tower::ServiceExt;

/// Something found out about a connection, as the accept loop leaves it for the services.
#[derive(Clone)]
struct Peer(SocketAddr);

/// A service that answers with what it sees.
struct Mirror {
    /// Hears when a stream is dropped.
    dropped: mpsc::UnboundedSender<()>,
}

/// Tells when it goes.
struct Guard(mpsc::UnboundedSender<()>);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

fn state(id: String) -> own::OperationState {
    own::OperationState { operation: Some(wire::Operation { id, ..Default::default() }), ..Default::default() }
}

#[tonic::async_trait]
impl OperationService for Mirror {
    async fn list(&self, request: tonic::Request<own::ListOperationsRequest>) -> Result<tonic::Response<own::ListOperationsResponse>, Status> {
        let mut seen: Vec<String> =
            request.metadata().clone().into_headers().iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect();
        seen.sort();
        seen.extend(request.extensions().get::<Peer>().map(|peer| format!("peer={}", peer.0)));
        let operations = seen.into_iter().map(|id| wire::Operation { id, ..Default::default() }).collect();
        let mut response = tonic::Response::new(own::ListOperationsResponse { operations, ..Default::default() });
        response.metadata_mut().insert("x-request-id", "given-by-the-service".parse().unwrap());
        response.metadata_mut().insert("x-other", "stays-inside".parse().unwrap());
        Ok(response)
    }

    async fn wait(&self, request: tonic::Request<own::WaitOperationRequest>) -> Result<tonic::Response<own::OperationState>, Status> {
        let id = request.into_inner().operation_id;
        if id == "never" {
            let _guard = Guard(self.dropped.clone());
            std::future::pending::<()>().await;
        }
        let mut status = Status::failed_precondition(format!("100% of \"{id}\" ä\n"));
        status.metadata_mut().insert("x-request-id", "of-an-error".parse().unwrap());
        Err(status)
    }

    async fn watch(&self, request: tonic::Request<own::WatchOperationRequest>) -> Result<tonic::Response<BoxStream<own::OperationState>>, Status> {
        let (guard, id) = (Guard(self.dropped.clone()), request.into_inner().operation_id);
        let states: Vec<Result<own::OperationState, Status>> = match id.as_str() {
            "none" => vec![],
            "refused" => vec![Err(Status::not_found("no such operation"))],
            "broken" => vec![Ok(state("1".into())), Err(Status::aborted("over"))],
            _ => vec![Ok(state("1".into())), Ok(state("2".into()))],
        };
        let rest = if id == "endless" { stream::pending().left_stream() } else { stream::empty().right_stream() };
        let states = stream::iter(states).chain(rest).map(move |item| {
            let _ = &guard;
            item
        });
        Ok(tonic::Response::new(Box::pin(states)))
    }
}

fn mirror() -> (Router, mpsc::UnboundedReceiver<()>) {
    let (dropped, heard) = mpsc::unbounded_channel();
    let services = tonic::service::Routes::new(OperationServiceServer::new(Mirror { dropped })).prepare().into_axum_router();
    (router(services, Options::default()).unwrap(), heard)
}

async fn ask(request: axum::http::request::Builder) -> Response {
    mirror().0.oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

async fn text(answer: Response) -> String {
    String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn what_the_services_see_and_what_comes_back() {
    let peer = Peer("192.0.2.1:5".parse().unwrap());
    let request = Request::get("/redkeep/v1/operations")
        .extension(peer)
        .header("Authorization", "bearer t")
        .header("Idempotency-Key", "k")
        .header("X-Client-Trace-Id", "c")
        .header("Grpc-Metadata-Authorization", "Bearer other")
        .header("X-Forwarded-For", "198.51.100.1");
    let answer = ask(request).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["x-request-id"], "given-by-the-service");
    assert!(answer.headers().get("x-other").is_none());
    let seen: Value = serde_json::from_str(&text(answer).await).unwrap();
    let seen: Vec<&str> = seen["operations"].as_array().unwrap().iter().map(|operation| operation["id"].as_str().unwrap()).collect();
    for line in ["authorization=Bearer t", "idempotency-key=k", "x-client-trace-id=c", "peer=192.0.2.1:5"] {
        assert!(seen.contains(&line), "{line} in {seen:?}");
    }
    assert!(!seen.iter().any(|line| line.contains("other") || line.contains("198.51.100.1")), "{seen:?}");
}

#[tokio::test]
async fn a_status_comes_back_decoded() {
    let answer = ask(Request::get("/redkeep/v1/operations/a%20b:wait")).await;
    assert_eq!((answer.status().as_u16(), &answer.headers()["x-request-id"]), (400, &"of-an-error".parse().unwrap()));
    let told: Value = serde_json::from_str(&text(answer).await).unwrap();
    assert_eq!(told, json!({"code": 9, "message": "100% of \"a b\" ä\n"}));
}

#[tokio::test(start_paused = true)]
async fn a_time_limit_ends_the_call() {
    let (router, mut heard) = mirror();
    let request = Request::get("/redkeep/v1/operations/never:wait").header("grpc-timeout", "5S");
    let answer = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 504);
    assert!(text(answer).await.starts_with("{\"code\":4,"));
    heard.recv().await.unwrap();
}

#[tokio::test]
async fn streams_by_line() {
    for (id, http, kind, expected) in [
        (
            "two",
            200,
            "application/x-ndjson",
            "{\"result\":{\"operation\":{\"id\":\"1\",\"done\":false}}}\n{\"result\":{\"operation\":{\"id\":\"2\",\"done\":false}}}\n",
        ),
        ("none", 200, "application/x-ndjson", ""),
        ("broken", 200, "application/x-ndjson", "{\"result\":{\"operation\":{\"id\":\"1\",\"done\":false}}}\n{\"error\":{\"code\":10,\"message\":\"over\"}}\n"),
        ("refused", 404, "application/json", "{\"code\":5,\"message\":\"no such operation\"}"),
    ] {
        let answer = ask(Request::get(format!("/redkeep/v1/operations/{id}:watch"))).await;
        assert_eq!((answer.status().as_u16(), answer.headers()["content-type"].to_str().unwrap()), (http, kind), "{id}");
        assert!(http != 200 || answer.headers().get("content-length").is_none(), "{id}");
        assert_eq!(text(answer).await, expected, "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_when_nobody_listens_or_its_time_is_over() {
    let line = |frame: Option<Result<axum::body::Bytes, axum::Error>>| String::from_utf8(frame.unwrap().unwrap().to_vec()).unwrap();
    let (router, mut heard) = mirror();
    let watch = |timeout: Option<&'static str>| {
        let request = timeout.into_iter().fold(Request::get("/redkeep/v1/operations/endless:watch"), |request, limit| request.header("grpc-timeout", limit));
        router.clone().oneshot(request.body(Body::empty()).unwrap())
    };
    // Each line is there before the next one is.
    let mut lines = watch(None).await.unwrap().into_body().into_data_stream();
    assert!(line(lines.next().await).contains("\"1\""));
    assert!(line(lines.next().await).contains("\"2\""));
    assert!(tokio::time::timeout(Duration::from_secs(3600), lines.next()).await.is_err(), "it goes on");
    assert!(heard.try_recv().is_err());
    drop(lines);
    heard.recv().await.unwrap();

    let all = text(watch(Some("2S")).await.unwrap()).await;
    assert_eq!(all.lines().count(), 3);
    assert!(all.lines().last().unwrap().starts_with("{\"error\":{\"code\":4,"), "{all}");
    heard.recv().await.unwrap();

    let head = Request::head("/redkeep/v1/operations/endless:watch").body(Body::empty()).unwrap();
    let answer = router.clone().oneshot(head).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers().get("content-length")), (200, None));
    assert_eq!(text(answer).await, "");
    heard.recv().await.unwrap();
}

#[tokio::test]
async fn ignored_parameters_are_chosen() {
    let services = mirror().0;
    let options = Options { ignored_parameters: ["alt".to_owned()].into() };
    let with = router(services, options).unwrap();
    let status = |router: Router, target: &'static str| async move {
        router.oneshot(Request::get(target).body(Body::empty()).unwrap()).await.unwrap().status().as_u16()
    };
    assert_eq!(status(mirror().0, "/redkeep/v1/operations?alt=json").await, 400);
    assert_ne!(status(with.clone(), "/redkeep/v1/operations?alt=json").await, 400);
    assert_eq!(status(with, "/redkeep/v1/operations?Alt=json").await, 400);
}
