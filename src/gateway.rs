//! REST and JSON in front of the gRPC services, from the descriptors alone.
//!
//! A method with a `google.api.http` rule is reachable from the moment it stands in a `.proto` file: routes, bindings, JSON
//! and the OpenAPI document all follow from the descriptors. Calls go through the services' own router in this process, so
//! that they pass the same checks as any other. Knows no method and no message by name, but for what the JSON mapping
//! itself treats apart.
//!
//! Where the rules are silent: a body that the rule does not ask for is read and dropped, up to [`UNREAD_BYTES`]; a request
//! with an encoded body (`Content-Encoding`) is refused like one of another type; whitespace alone is no empty body; two
//! `Authorization` headers are refused; a path outside the rules is 404 for every method, `OPTIONS` and `TRACE` included;
//! `HEAD` of a stream is answered when the stream would begin, and ends it.

mod answer;
mod bind;
mod body;
mod call;
mod escape;
mod json;
mod openapi;
mod routes;
mod stream;
mod template;

use crate::api;
use answer::Refusal;
use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use axum::http::{HeaderMap, Method, request};
use axum::response::Response;
use bytes::Bytes;
use call::{Call, Deadline};
use prost_reflect::MethodDescriptor;
use routes::{Binding, Found, Routes};
use std::collections::BTreeSet;
use std::sync::Arc;
use tonic::metadata::MetadataMap;

/// Longest path with its query, in bytes.
pub const TARGET_BYTES: usize = 8 * 1024;

/// Longest body of a call that takes none, in bytes.
pub const UNREAD_BYTES: usize = 64 * 1024;

/// Where the OpenAPI document is.
pub const DOCUMENT_PATH: &str = "/openapi.json";

/// What can be chosen.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Names in a query that bind nothing and are no mistake, such as `alt`. All other unknown names are refused.
    pub ignored_parameters: BTreeSet<String>,
}

/// Why the gateway cannot be built: a fault of the schema, told at start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The schema does not say what an http rule is.
    #[error("the descriptors hold no google.api.http")]
    NoRules,
    /// A rule that cannot be served.
    #[error("the http rule of {method} cannot be served: {what}")]
    Rule {
        /// Full name of the method.
        method: String,
        /// What is wrong with it.
        what: String,
    },
}

impl Error {
    fn rule(method: &MethodDescriptor, what: impl Into<String>) -> Self {
        Self::Rule { method: method.full_name().to_owned(), what: what.into() }
    }
}

/// Everything that a request needs.
struct Gateway {
    services: Router,
    routes: Routes,
    document: Bytes,
    options: Options,
}

/// The router of every call that has an http rule, in front of the router of the gRPC services.
///
/// # Errors
///
/// [`Error`] when a rule is malformed or collides with another.
pub fn router(grpc: Router, options: Options) -> Result<Router, Error> {
    let routes = routes::own()?;
    let document = openapi::document(&routes).to_string().into();
    let gateway = Arc::new(Gateway { services: grpc, routes, document, options });
    Ok(Router::new().fallback(move |request: Request| {
        let gateway = Arc::clone(&gateway);
        async move { gateway.answer(request).await }
    }))
}

impl Gateway {
    async fn answer(&self, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let is_head = parts.method == Method::HEAD;
        let answer = match self.serve(parts, body).await {
            Ok(answer) => answer,
            Err(refusal) => answer::refusal(&refusal),
        };
        if is_head { without_body(answer) } else { answer }
    }

    async fn serve(&self, parts: request::Parts, body: Body) -> Result<Response, Refusal> {
        let wants_continue = parts.headers.contains_key(EXPECT);
        let found = match self.find(&parts) {
            // Who waits for a word before sending the body is refused without it.
            Err(refusal) if wants_continue => return Err(refusal),
            found => found,
        };
        let takes_body = matches!(&found, Ok(Some((binding, _))) if binding.body != routes::Body::None);
        // The body is read whatever comes of the request: left unread it would break the connection before the answer arrives.
        let body = body::read(body, if takes_body { api::REQUEST_BYTES } else { UNREAD_BYTES }, wants_continue).await;
        let found = found?;
        if takes_body {
            json_only(&parts.headers)?;
        }
        let body = body?;
        let Some((binding, values)) = found else { return Ok(answer::json(self.document.clone(), &MetadataMap::new())) };
        let deadline = Deadline::of(&parts.headers)?;
        let message = bind::request(binding, &values, parts.uri.query(), &body, &self.options.ignored_parameters)?;
        let metadata = call::metadata(&parts.headers)?;
        let call = Call { binding, metadata, extensions: parts.extensions, message };
        if binding.method.is_server_streaming() {
            let (metadata, messages, _) = deadline.bound(call.stream(self.services.clone())).await?.into_parts();
            return Ok(stream::answer(messages, &metadata, binding.response.clone(), deadline).await?);
        }
        let (metadata, message, _) = deadline.bound(call.unary(self.services.clone())).await?.into_parts();
        let json = match &binding.response {
            Some(field) => json::write::field(&message, field),
            None => json::write::message(&message),
        };
        Ok(answer::json(json.into(), &metadata))
    }

    /// The call that a request is for; `None` for the document.
    fn find<'s, 'p>(&'s self, parts: &'p request::Parts) -> Result<Option<(&'s Binding, Vec<&'p str>)>, Refusal> {
        let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
        if target > TARGET_BYTES {
            return Err(Refusal::long_target(TARGET_BYTES));
        }
        if parts.uri.path() == DOCUMENT_PATH {
            return match parts.method {
                Method::GET | Method::HEAD => Ok(None),
                _ => Err(Refusal::other_methods(&["GET", "HEAD"].map(str::to_owned).into())),
            };
        }
        match self.routes.find(parts.method.as_str(), parts.uri.path()) {
            Found::Call(binding, values) => Ok(Some((binding, values))),
            Found::OtherMethods(methods) => Err(Refusal::other_methods(&methods)),
            Found::Nothing => Err(Refusal::no_such_path()),
        }
    }
}

/// Refuses bodies that are not JSON as it is.
fn json_only(headers: &HeaderMap) -> Result<(), Refusal> {
    let is_json = |kind: &axum::http::HeaderValue| {
        let kind = kind.to_str().unwrap_or_default();
        kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
    };
    if headers.get_all(CONTENT_TYPE).iter().any(|kind| !is_json(kind)) {
        return Err(Refusal::other_type("the body must be of type application/json"));
    }
    if headers.get_all(CONTENT_ENCODING).iter().any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(Refusal::other_type("the body must not be encoded"));
    }
    Ok(())
}

/// The same answer to `HEAD`: every header, the length included where there is one, and no body.
fn without_body(answer: Response) -> Response {
    let (mut parts, body) = answer.into_parts();
    let Some(length) = body.size_hint().exact() else {
        // An empty body of unknown length, because a known one would be told as the length of the stream.
        return Response::from_parts(parts, Body::from_stream(futures_util::stream::empty::<Result<Bytes, std::convert::Infallible>>()));
    };
    parts.headers.insert(CONTENT_LENGTH, length.into());
    Response::from_parts(parts, Body::empty())
}

#[cfg(test)]
mod tests;
