//! The services on one router: ours and the managed-Redis schema's, with health and reflection.
//!
//! Handlers parse, ask and render; what they ask is the executor, its store and the fleet. Every arrow between wire and
//! domain is in `convert`, every arrow from our errors to a status in `status`; requests are checked before a handler sees
//! them, in `codec`.

pub mod access;
mod backups;
pub mod calls;
mod clusters;
pub mod codec;
mod convert;
mod discovery;
mod fleet;
mod later;
mod operations;
mod page;
mod plan;
mod request;
mod restore;
mod restore_cluster;
mod status;
pub mod timeout;
mod tokens;
pub mod validate;

use crate::auth::Gate;
pub use later::sentence as not_built;

use crate::executor::Executor;
use crate::links::Signer;
use crate::pb;
use calls::Calls;
use std::sync::Arc;
use tonic::service::Routes;

/// Longest request, in bytes.
pub const REQUEST_BYTES: usize = 4 * 1024 * 1024;

/// Longest answer, in bytes: a full page of the largest rows fits.
pub const RESPONSE_BYTES: usize = 64 * 1024 * 1024;

/// The handlers of every service: one value, because they share all that they need.
#[derive(Clone)]
pub struct Api {
    executor: Executor,
    gate: Arc<Gate>,
    links: Arc<Signer>,
    advertise: Arc<str>,
}

/// The router of all services, and the switch of their health. `links` signs links to files, `advertise` is the `host:port` at which clients find them.
///
/// # Errors
///
/// When the descriptors cannot be reflected: a fault of the build.
pub async fn router(
    executor: Executor,
    gate: Arc<Gate>,
    calls: Calls,
    links: Arc<Signer>,
    advertise: &str,
) -> Result<(axum::Router, tonic_health::server::HealthReporter), tonic_reflection::server::Error> {
    let api = Api { executor, gate: Arc::clone(&gate), links, advertise: advertise.into() };
    let (health, health_service) = tonic_health::server::health_reporter();
    for service in pb::pool().services() {
        health.set_service_status(service.full_name(), tonic_health::ServingStatus::Serving).await;
    }
    let mut routes = Routes::builder();
    macro_rules! serve {
        ($($server:ty),* $(,)?) => {
            $(routes.add_service(<$server>::new(api.clone()).max_decoding_message_size(REQUEST_BYTES).max_encoding_message_size(RESPONSE_BYTES));)*
        };
    }
    serve!(
        pb::managed::cluster_service_server::ClusterServiceServer<Api>,
        pb::managed::backup_service_server::BackupServiceServer<Api>,
        pb::managed::backup_retention_policy_service_server::BackupRetentionPolicyServiceServer<Api>,
        pb::operation::operation_service_server::OperationServiceServer<Api>,
        pb::own::backup_service_server::BackupServiceServer<Api>,
        pb::own::operation_service_server::OperationServiceServer<Api>,
        pb::own::fleet_service_server::FleetServiceServer<Api>,
        pb::endpoint::api_endpoint_service_server::ApiEndpointServiceServer<Api>,
        pb::iam::iam_token_service_server::IamTokenServiceServer<Api>,
    );
    routes.add_service(health_service);
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(pb::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    routes.add_service(reflection().build_v1()?);
    routes.add_service(reflection().build_v1alpha()?);
    let router = routes.routes().prepare().into_axum_router().fallback(unknown);
    let router = router.layer(axum::middleware::from_fn(later::answer));
    let router = router.layer(axum::middleware::from_fn_with_state(gate, access::admit));
    Ok((router.layer(axum::middleware::from_fn_with_state(calls, calls::observe)), health))
}

/// Answers a path that no service has.
async fn unknown() -> axum::response::Response {
    tonic::Status::unimplemented("there is no such call; `grpcurl -plaintext HOST:PORT list` lists the services").into_http()
}
