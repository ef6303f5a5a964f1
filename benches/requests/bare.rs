//! Servers that answer every call with the same operation, and do nothing else. Each is this program in a process of its own.

use super::Server;
use axum::serve::ListenerExt;
use prost::Message;
use redkeep::pb::operation as wire;
use std::convert::Infallible;
use std::io::BufRead;
use std::marker::PhantomData;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::Status;
use tonic::codec::{DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{BoxFuture, http};

/// Which server a process is to be, and the file with its answer. No user sets it.
const VARIABLE: &str = "REDKEEP_BENCH_BARE";

/// Any free port.
const ANYWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A bare server.
#[derive(Clone, Debug)]
pub enum Bare {
    /// One of tonic.
    Grpc,
    /// One of axum.
    Rest,
}

/// A running bare server. It ends when this is dropped.
pub struct Running {
    pub server: Server,
    child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Bare {
    /// Starts the server in a process of its own, with the answer from a file.
    pub async fn start(self, answer: &Path) -> Running {
        let name = match self {
            Self::Grpc => "grpc",
            Self::Rest => "rest",
        };
        let program = std::env::current_exe().expect("this program has a path");
        let variable = format!("{name}:{}", answer.display());
        let mut command = Command::new(program);
        // The pipe to its standard input closes when this process ends, however it ends.
        command.env(VARIABLE, variable).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("this program starts again");
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.take().expect("its output is a pipe")).read_line(&mut line).expect("it tells its address");
        Running { server: Server { pid: child.id(), address: line.trim().to_owned() }, child }
    }

    /// The server that this process is to be.
    pub fn asked_for() -> Option<Asked> {
        let text = std::env::var(VARIABLE).ok()?;
        let (name, answer) = text.split_once(':')?;
        let bare = if name == "grpc" { Self::Grpc } else { Self::Rest };
        Some(Asked { bare, answer: answer.into() })
    }
}

/// A server that a process is to be.
pub struct Asked {
    bare: Bare,
    answer: PathBuf,
}

impl Asked {
    /// Serves until the process that started this one is gone.
    pub async fn serve(self) {
        std::thread::spawn(|| {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            std::process::exit(0);
        });
        let answer = std::fs::read(&self.answer).expect("the answer is there");
        match self.bare {
            Bare::Grpc => {
                let operation = wire::Operation::decode(answer.as_slice()).expect("the answer is an operation");
                let incoming = tonic::transport::server::TcpIncoming::bind(ANYWHERE).expect("a port is free").with_nodelay(Some(true));
                println!("{}", incoming.local_addr().expect("it has an address"));
                let server = tonic::transport::Server::builder().add_service(Same(Arc::new(operation)));
                server.serve_with_incoming(incoming).await.expect("the server serves");
            }
            Bare::Rest => {
                let operation: Arc<serde_json::Value> = Arc::new(serde_json::from_slice(&answer).expect("the answer is JSON"));
                let listener = tokio::net::TcpListener::bind(ANYWHERE).await.expect("a port is free");
                println!("{}", listener.local_addr().expect("it has an address"));
                let listener = listener.tap_io(|stream| stream.set_nodelay(true).expect("a connection takes its options"));
                let answer = async move || {
                    let text = serde_json::to_vec(&*operation).expect("the answer is JSON");
                    ([(axum::http::header::CONTENT_TYPE, "application/json")], text)
                };
                let router = axum::Router::new().route("/operations/{operation_id}", axum::routing::get(answer));
                axum::serve(listener, router).await.expect("the server serves");
            }
        }
    }
}

/// Answers every call with the same operation.
#[derive(Clone)]
struct Same(Arc<wire::Operation>);

impl tonic::server::NamedService for Same {
    const NAME: &'static str = "yandex.cloud.operation.OperationService";
}

impl tonic::server::UnaryService<wire::GetOperationRequest> for Same {
    type Response = wire::Operation;
    type Future = BoxFuture<tonic::Response<wire::Operation>, Status>;
    fn call(&mut self, _request: tonic::Request<wire::GetOperationRequest>) -> Self::Future {
        let answer = wire::Operation::clone(&self.0);
        Box::pin(async move { Ok(tonic::Response::new(answer)) })
    }
}

impl tower::Service<http::Request<tonic::body::Body>> for Same {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }
    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let same = self.clone();
        Box::pin(async move { Ok(tonic::server::Grpc::new(Plain::default()).unary(same, request).await) })
    }
}

/// Protobuf, and nothing checked.
struct Plain<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Plain<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Message + Send + 'static, U: Message + Default + Send + 'static> tonic::codec::Codec for Plain<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self::default()
    }
    fn decoder(&mut self) -> Self {
        Self::default()
    }
}

impl<T: Message, U> Encoder for Plain<T, U> {
    type Item = T;
    type Error = Status;
    fn encode(&mut self, item: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buffer).map_err(|_| Status::internal("the answer does not fit"))
    }
}

impl<T, U: Message + Default> Decoder for Plain<T, U> {
    type Item = U;
    type Error = Status;
    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        U::decode(buffer).map(Some).map_err(|fault| Status::invalid_argument(fault.to_string()))
    }
}
