//! The doors of one port: gRPC, gRPC-Web, and everything else, each a room of its own behind the same limits.
//!
//! Here is decided only which door a request takes, by its type and its path. What a door answers is its own business.

use super::calls::{Calls, Inbound, Length, Outbound};
use super::deadline::Deadline;
use super::guard::{Entrance, Guard};
use super::refusal::{Refusal, Speech};
use super::traffic::{Call, Traffic};
use crate::config::{Limits, Server};
use crate::peer::Peer;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Method, Request, Response};
use hyper::body::Incoming;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower::{Layer, Service, ServiceExt};
use tower_http::cors::{AllowHeaders, AllowOrigin, Cors, CorsLayer};

/// What a script may read of an answer beside what it always may.
const EXPOSED: [&str; 5] = ["grpc-status", "grpc-message", "grpc-status-details-bin", "x-request-id", "retry-after"];

/// How long a browser may remember what a script may do.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// What lies behind the doors.
pub(super) struct Rooms {
    /// The gRPC services.
    pub(super) grpc: Option<Router>,
    /// The MemStore door, for the paths that it [owns](crate::memstore::owns).
    pub(super) memstore: Option<Router>,
    /// Everything else.
    pub(super) rest: Router,
}

/// The doors of a port.
#[derive(Clone)]
pub(super) struct Doors {
    guard: Arc<Guard>,
    front: Front,
}

/// With CORS only where pages may call.
#[derive(Clone)]
enum Front {
    Bare(Hall),
    Cors(Box<Cors<Hall>>),
}

impl Doors {
    /// The doors of a port that is bound there.
    pub(super) fn new(rooms: Rooms, options: &Server, bound: SocketAddr) -> Self {
        let hall = Hall::new(rooms, &options.limits);
        let front = if options.cors_origins.is_empty() { Front::Bare(hall) } else { Front::Cors(Box::new(cors(options).layer(hall))) };
        Self { guard: Arc::new(Guard::new(options, bound)), front }
    }
}

fn cors(options: &Server) -> CorsLayer {
    let origins = options.cors_origins.iter().filter_map(|origin| HeaderValue::try_from(origin.to_string()).ok());
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        // The pages are trusted by name; which metadata they send is a matter of the calls. There are no cookies to send.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(EXPOSED.map(HeaderName::from_static))
        .max_age(REMEMBERED)
}

/// The doors for the requests of one connection.
pub(super) struct Visit {
    doors: Doors,
    peer: Peer,
    entrance: Entrance,
    traffic: Arc<Traffic>,
}

impl Visit {
    pub(super) fn new(doors: Doors, peer: Peer, entrance: Entrance, traffic: Arc<Traffic>) -> Self {
        Self { doors, peer, entrance, traffic }
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Outbound>, Infallible>> + Send>>;

impl hyper::service::Service<Request<Incoming>> for Visit {
    type Response = Response<Outbound>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, mut request: Request<Incoming>) -> Answer {
        self.traffic.asked();
        if let Err(refusal) = self.doors.guard.check(request.uri(), request.headers(), self.entrance) {
            tracing::debug!(peer = %self.peer.address, ?refusal, "a request was refused");
            return refuse(refusal, Speech::of(request.headers(), request.uri().path()));
        }
        request.extensions_mut().insert(self.peer.clone());
        request.extensions_mut().insert(Arc::clone(&self.traffic));
        match &self.doors.front {
            Front::Bare(hall) => hall.serve(request),
            Front::Cors(cors) => Box::pin((**cors).clone().oneshot(request)),
        }
    }
}

fn refuse(refusal: Refusal, speech: Speech) -> Answer {
    Box::pin(std::future::ready(Ok(refusal.answer(speech).map(Outbound::bare))))
}

/// What lies between the port and the rooms: the limits of a call, and the choice of the door.
#[derive(Clone)]
struct Hall {
    calls: Arc<Calls>,
    grpc: Option<Deadline<Router>>,
    grpc_web: Option<GrpcWebService<Deadline<Router>>>,
    memstore: Option<Router>,
    rest: Router,
}

impl Hall {
    fn new(rooms: Rooms, limits: &Limits) -> Self {
        let grpc = rooms.grpc.map(Deadline);
        // Its frames are put around the calls of gRPC alone: it refuses every other request.
        let grpc_web = grpc.clone().map(|grpc| GrpcWebLayer::new().layer(grpc));
        Self { calls: Arc::new(Calls::new(limits)), grpc, grpc_web, memstore: rooms.memstore, rest: rooms.rest }
    }
}

impl Service<Request<Incoming>> for Hall {
    type Response = Response<Outbound>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Answer {
        self.serve(request)
    }
}

impl Hall {
    fn serve(&self, mut request: Request<Incoming>) -> Answer {
        let speech = Speech::of(request.headers(), request.uri().path());
        let length = match speech {
            Speech::Grpc | Speech::GrpcWeb | Speech::Http => Length::ByReader,
            Speech::MemStore => Length::ByPort,
        };
        let traffic = request.extensions_mut().remove::<Arc<Traffic>>().unwrap_or_default();
        let admitted = match length.check(request.headers()).and_then(|()| self.calls.admit(Call::begin(&traffic))) {
            Ok(admitted) => admitted,
            Err(refusal) => return refuse(refusal, speech),
        };
        let door = self.door(speech);
        let (head, body) = request.into_parts();
        let (body, fault) = self.calls.limit(body, length);
        Box::pin(async move {
            let answer = door.answer(Request::from_parts(head, body)).await;
            // What was made of half a body is not what the client needs to know.
            let answer = fault.refusal().map_or(answer, |refusal| refusal.answer(speech));
            Ok(answer.map(|body| Outbound::of(body, admitted)))
        })
    }

    fn door(&self, speech: Speech) -> Door {
        match (speech, &self.grpc, &self.grpc_web, &self.memstore) {
            (Speech::Grpc, Some(grpc), ..) => Door::Grpc(grpc.clone()),
            (Speech::GrpcWeb, _, Some(grpc_web), _) => Door::GrpcWeb(grpc_web.clone()),
            (Speech::MemStore, _, _, Some(memstore)) => Door::Http(memstore.clone()),
            _ => Door::Http(self.rest.clone()),
        }
    }
}

enum Door {
    Grpc(Deadline<Router>),
    GrpcWeb(GrpcWebService<Deadline<Router>>),
    Http(Router),
}

impl Door {
    async fn answer(self, request: Request<Inbound>) -> Response<Body> {
        let Ok(answer) = match self {
            Self::Grpc(grpc) => grpc.oneshot(request).await,
            Self::GrpcWeb(grpc_web) => grpc_web.oneshot(request).await.map(|answer| answer.map(Body::new)),
            Self::Http(router) => router.oneshot(request).await,
        };
        answer
    }
}
