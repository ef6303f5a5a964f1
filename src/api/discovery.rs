//! Where the services are: all at one address, which is told before anybody has logged in.

use super::{Api, status};
use crate::pb::endpoint as wire;
use tonic::{Request, Response, Status};

/// The services that clients ask for, in the order of the list.
const SERVICES: [&str; 5] = ["endpoint", "iam", "managed-redis", "mdb-redis", "operation"];

#[tonic::async_trait]
impl wire::api_endpoint_service_server::ApiEndpointService for Api {
    async fn get(&self, request: Request<wire::GetApiEndpointRequest>) -> Result<Response<wire::ApiEndpoint>, Status> {
        let id = request.into_inner().api_endpoint_id;
        let known = SERVICES.into_iter().find(|service| *service == id).ok_or_else(|| status::not_found("endpoint", &id))?;
        Ok(Response::new(self.endpoint(known)))
    }

    async fn list(&self, _request: Request<wire::ListApiEndpointsRequest>) -> Result<Response<wire::ListApiEndpointsResponse>, Status> {
        let endpoints = SERVICES.iter().map(|service| self.endpoint(service)).collect();
        Ok(Response::new(wire::ListApiEndpointsResponse { endpoints, next_page_token: String::new() }))
    }
}

impl Api {
    fn endpoint(&self, id: &str) -> wire::ApiEndpoint {
        wire::ApiEndpoint { id: id.to_owned(), address: self.advertise.to_string() }
    }
}
