//! Asks as fast as answers come: so many calls at once, each followed by the next.

use redkeep::pb::operation as wire;
use std::str::FromStr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint};
use wire::operation_service_client::OperationServiceClient;

/// Calls before the clock starts, on each stream.
const WARM_UP: usize = 20;
/// Longest answer in HTTP/1.1, in bytes.
const HTTP_BYTES: usize = 64 * 1024;

/// Where an operation is asked for, and as whom.
#[derive(Clone, Debug)]
pub struct Target {
    pub address: String,
    pub token: String,
    pub operation_id: String,
}

/// What came of a turn.
pub struct Turn {
    /// Time of each call, in nanoseconds.
    pub latencies: Vec<u32>,
    /// Time of all.
    pub elapsed: Duration,
}

/// Streams that have been warmed up.
pub struct Connected(Vec<Stream>);

/// Opens the streams and makes the first calls on each.
pub async fn connect(target: &Target, streams: usize, connections: usize, rest: bool) -> Connected {
    let mut channels = Vec::new();
    if !rest {
        for _ in 0..connections {
            channels.push(channel(target).await);
        }
    }
    let mut opened = Vec::new();
    for number in 0..streams {
        let mut stream = match channels.get(number % connections) {
            Some(channel) => Stream::Grpc(Grpc::new(target, channel.clone())),
            None => Stream::Rest(Rest::new(target).await),
        };
        for _ in 0..WARM_UP {
            stream.ask().await;
        }
        opened.push(stream);
    }
    Connected(opened)
}

async fn channel(target: &Target) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", target.address)).expect("an address").tcp_nodelay(true);
    endpoint.connect().await.expect("the server answers")
}

impl Connected {
    /// Asks for that long.
    pub async fn ask(self, time: Duration) -> Turn {
        let started = Instant::now();
        let streams: Vec<_> = self.0.into_iter().map(|stream| tokio::spawn(stream.ask_until(started + time))).collect();
        let mut latencies = Vec::new();
        for stream in streams {
            latencies.append(&mut stream.await.expect("a stream ends well"));
        }
        Turn { latencies, elapsed: started.elapsed() }
    }
}

enum Stream {
    Grpc(Grpc),
    Rest(Rest),
}

impl Stream {
    async fn ask(&mut self) {
        match self {
            Self::Grpc(grpc) => drop(grpc.ask().await),
            Self::Rest(rest) => drop(rest.ask().await),
        }
    }

    async fn ask_until(mut self, end: Instant) -> Vec<u32> {
        let mut latencies = Vec::new();
        let mut asked = Instant::now();
        while asked < end {
            self.ask().await;
            let answered = Instant::now();
            latencies.push(u32::try_from((answered - asked).as_nanos()).unwrap_or(u32::MAX));
            asked = answered;
        }
        latencies
    }
}

struct Grpc {
    client: OperationServiceClient<Channel>,
    authorization: AsciiMetadataValue,
    operation_id: String,
}

impl Grpc {
    fn new(target: &Target, channel: Channel) -> Self {
        let authorization = AsciiMetadataValue::from_str(&format!("Bearer {}", target.token)).expect("a token is ASCII");
        Self { client: OperationServiceClient::new(channel), authorization, operation_id: target.operation_id.clone() }
    }

    async fn ask(&mut self) -> wire::Operation {
        let mut request = tonic::Request::new(wire::GetOperationRequest { operation_id: self.operation_id.clone() });
        request.metadata_mut().insert("authorization", self.authorization.clone());
        self.client.get(request).await.expect("the operation is there").into_inner()
    }
}

/// HTTP/1.1 with as little work as can be: the client must not be what is measured.
struct Rest {
    stream: TcpStream,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

impl Rest {
    async fn new(target: &Target) -> Self {
        let stream = TcpStream::connect(&target.address).await.expect("the server answers");
        stream.set_nodelay(true).expect("a connection takes its options");
        let Target { address, token, operation_id } = target;
        let request = format!("GET /operations/{operation_id} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\r\n");
        Self { stream, request: request.into_bytes(), buffer: vec![0; HTTP_BYTES] }
    }

    /// Asks once, and gives the body of the answer.
    async fn ask(&mut self) -> &[u8] {
        self.stream.write_all(&self.request).await.expect("the server reads");
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await.expect("the server answers");
            assert!(read > 0, "the server closed the connection");
            filled += read;
            if let Some((start, end)) = body(&self.buffer[..filled]).filter(|(_, end)| *end <= filled) {
                return &self.buffer[start..end];
            }
        }
    }
}

/// Where the body of an answer begins and ends; `None` while the head is not whole.
fn body(answer: &[u8]) -> Option<(usize, usize)> {
    let head_bytes = memchr::memmem::find(answer, b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..head_bytes]).expect("a head is text");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let length = head.lines().filter_map(|line| line.split_once(':')).find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length: usize = length.and_then(|(_, value)| value.trim().parse().ok()).unwrap_or_else(|| panic!("no length in {head}"));
    let start = head_bytes + 4;
    Some((start, start + length))
}

/// One call in gRPC.
pub async fn call(target: &Target) -> wire::Operation {
    Grpc::new(target, channel(target).await).ask().await
}

/// One call in REST: the body of the answer.
pub async fn get(target: &Target) -> Vec<u8> {
    Rest::new(target).await.ask().await.to_vec()
}
