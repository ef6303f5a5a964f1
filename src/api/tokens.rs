//! Short-lived tokens, for clients that log in by an exchange.

use super::{Api, status};
use crate::audit::CallRecord;
use crate::auth::Credential;
use crate::pb::iam as wire;
use crate::pb::iam::create_iam_token_request::Identity;
use axum::http::header::AUTHORIZATION;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl wire::iam_token_service_server::IamTokenService for Api {
    async fn create(&self, request: Request<wire::CreateIamTokenRequest>) -> Result<Response<wire::CreateIamTokenResponse>, Status> {
        let call = request.extensions().get::<CallRecord>().cloned().unwrap_or_default();
        let request = request.into_inner();
        let credential = match &request.identity {
            Some(Identity::YandexPassportOauthToken(token)) => Credential::Token(token),
            Some(Identity::Jwt(assertion)) => Credential::Assertion(assertion),
            None => return Err(status::invalid("identity", "must be given")),
        };
        let issued = self.gate.exchange(credential).map_err(status::unrecognised)?;
        // Only the gate knows whose it is.
        if let Ok(bearer) = format!("Bearer {}", issued.token).parse()
            && let Ok(identity) = self.gate.identify(&[(AUTHORIZATION, bearer)].into_iter().collect()).await
        {
            call.set_subject(&identity.subject);
        }
        let expires_at = prost_types::Timestamp { seconds: issued.expires_at.timestamp(), nanos: 0 };
        Ok(Response::new(wire::CreateIamTokenResponse { iam_token: issued.token, expires_at: Some(expires_at) }))
    }
}
