//! Goal: what stands around the calls answers too: health, reflection, and the calls that are not built.

use super::willing;
use crate::support::answers::bare;
use redkeep::pb::{managed, own};
use std::collections::BTreeSet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_stream::StreamExt;
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// Services that are built.
const BUILT: [&str; 8] = [
    "redkeep.v1.BackupService",
    "redkeep.v1.FleetService",
    "redkeep.v1.OperationService",
    "yandex.cloud.endpoint.ApiEndpointService",
    "yandex.cloud.iam.v1.IamTokenService",
    "yandex.cloud.mdb.redis.v1.BackupService",
    "yandex.cloud.mdb.redis.v1.ClusterService",
    "yandex.cloud.operation.OperationService",
];

pub(super) async fn channel(endpoint: &str) -> Channel {
    Channel::from_shared(endpoint.to_owned()).unwrap().connect().await.unwrap()
}

/// Asks over plain HTTP/1.1, and gives the status and the body.
pub(super) async fn http_get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// What the health service says of a service; `None` when it does not know it.
pub(super) async fn health(endpoint: &str, service: &str) -> Option<ServingStatus> {
    match HealthClient::new(channel(endpoint).await).check(HealthCheckRequest { service: service.into() }).await {
        Ok(answer) => Some(answer.into_inner().status()),
        Err(status) => {
            assert_eq!(status.code(), Code::NotFound, "{status:?}");
            None
        }
    }
}

#[tokio::test]
async fn the_health_service_knows_every_service() {
    let (_source, service) = willing().await;
    for name in BUILT.iter().chain([&""]) {
        assert_eq!(health(&service.endpoint, name).await, Some(ServingStatus::Serving), "{name}");
    }
    assert_eq!(health(&service.endpoint, "no.such.Service").await, None);
    service.stop().await;
}

#[tokio::test]
async fn both_reflections_list_the_services_and_give_their_files() {
    let (_source, service) = willing().await;
    macro_rules! reflect {
        ($version:ident) => {{
            use reflection::server_reflection_request::MessageRequest;
            use reflection::server_reflection_response::MessageResponse;
            use tonic_reflection::pb::$version as reflection;
            let ask = |question| reflection::ServerReflectionRequest { host: String::new(), message_request: Some(question) };
            let questions = [ask(MessageRequest::ListServices(String::new())), ask(MessageRequest::FileContainingSymbol(BUILT[4].into()))];
            let mut client = reflection::server_reflection_client::ServerReflectionClient::new(channel(&service.endpoint).await);
            let mut answers = client.server_reflection_info(tokio_stream::iter(questions)).await.unwrap().into_inner();
            let Some(MessageResponse::ListServicesResponse(list)) = answers.next().await.unwrap().unwrap().message_response else { panic!("no list") };
            let listed: BTreeSet<String> = list.service.into_iter().map(|service| service.name).collect();
            for name in BUILT.iter().chain([&"grpc.health.v1.Health"]) {
                assert!(listed.contains(*name), "{name} in {listed:?}");
            }
            let Some(MessageResponse::FileDescriptorResponse(files)) = answers.next().await.unwrap().unwrap().message_response else { panic!("no file") };
            assert!(!files.file_descriptor_proto.is_empty());
        }};
    }
    reflect!(v1);
    reflect!(v1alpha);
    service.stop().await;
}

#[tokio::test]
async fn calls_that_are_not_built_say_what_to_use() {
    // Method: real clients, and requests that would not pass the checks: the sentence comes before anything is read.
    let (_source, service) = willing().await;
    let mut clients = service.clients.clone();
    let channel = channel(&service.endpoint).await;
    let mut users = managed::user_service_client::UserServiceClient::new(channel.clone());
    let mut presets = managed::resource_preset_service_client::ResourcePresetServiceClient::new(channel.clone());
    let mut tokens = redkeep::pb::iam::iam_token_service_client::IamTokenServiceClient::new(channel);
    for (answer, words) in [
        (clients.clusters.create(managed::CreateClusterRequest::default()).await.map(drop), "redkeep.v1.FleetService.AdoptCluster"),
        (clients.clusters.stream_logs(managed::StreamClusterLogsRequest::default()).await.map(drop), "log on the server"),
        (users.list(managed::ListUsersRequest::default()).await.map(drop), "ACL"),
        (presets.list(managed::ListResourcePresetsRequest::default()).await.map(drop), "CheckCluster"),
        (tokens.revoke(redkeep::pb::iam::RevokeIamTokenRequest::default()).await.map(drop), "redkeep token revoke"),
    ] {
        let status = answer.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
        assert!(status.message().contains(words), "{words}: {status:?}");
    }
    // The connection goes on.
    bare(clients.own_operations.list(own::ListOperationsRequest::default()).await).unwrap();
    service.stop().await;
}

#[tokio::test]
async fn health_over_plain_http() {
    let (_source, service) = willing().await;
    assert_eq!(http_get(&service.admin, "/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(http_get(&service.admin, "/readyz").await, (200, "ready\n".to_owned()));
    assert_eq!(http_get(&service.admin, "/nothing").await.0, 404);
    service.stop().await;
}

#[tokio::test]
async fn what_is_no_call_and_what_is_too_long_is_refused() {
    let (_source, service) = willing().await;
    let mut client = tonic::client::Grpc::new(channel(&service.endpoint).await);
    for path in ["/no.such.Service/Call", "/redkeep.v1.BackupService/NoSuchCall"] {
        client.ready().await.unwrap();
        let codec = redkeep::api::codec::Codec::<own::ListBackupsRequest, own::ListBackupsResponse>::default();
        let path = tonic::codegen::http::uri::PathAndQuery::from_static(path);
        let refused = client.unary(tonic::Request::new(own::ListBackupsRequest::default()), path, codec).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented, "{refused:?}");
    }
    let mut clients = service.clients.clone();
    let long = own::GetBackupRequest { backup_id: "b".repeat(redkeep::api::REQUEST_BYTES + 1) };
    assert_eq!(clients.backups.get(long).await.unwrap_err().code(), Code::OutOfRange);
    service.stop().await;
}
