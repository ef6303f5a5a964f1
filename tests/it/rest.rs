//! The same calls over REST: what clients of HTTP may rely on. Each module tells the stories of one question.
//!
//! Requests are written to the socket by hand, so that paths arrive exactly as they stand here.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

mod answers;
mod bodies;
mod paths;
mod reach;
mod streams;

use crate::support::scripted::ScriptedRedis;
use crate::support::service::{Service, Setup};
use serde_json::Value;
use std::collections::BTreeMap;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// A service whose cluster `main` gives a snapshot at once.
async fn willing() -> (ScriptedRedis, Service) {
    serving(ScriptedRedis::willing().await).await
}

/// A service whose cluster `main` begins a snapshot and never gives it.
async fn stalling() -> (ScriptedRedis, Service) {
    serving(ScriptedRedis::stalling().await).await
}

async fn serving(source: ScriptedRedis) -> (ScriptedRedis, Service) {
    let service = Setup::new().executor("drain", "\"0s\"").cluster("main", &[&source.address()], "").start().await;
    (source, service)
}

/// An answer, taken apart.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|fault| panic!("{fault}: {self:?}"))
    }

    /// The code and the message of an error.
    fn error(&self) -> (i64, String) {
        let json = self.json();
        assert_eq!(self.headers["content-type"], "application/json", "{self:?}");
        (json["code"].as_i64().unwrap(), json["message"].as_str().unwrap().to_owned())
    }

    /// The fields that a refusal names.
    fn fields(&self) -> Vec<String> {
        assert_eq!((self.status, self.error().0), (400, 3), "{self:?}");
        let details = self.json()["details"].as_array().cloned().unwrap_or_default();
        let violations = details
            .iter()
            .filter(|detail| detail["@type"] == "type.googleapis.com/google.rpc.BadRequest")
            .flat_map(|detail| detail["fieldViolations"].as_array().unwrap());
        violations.map(|violation| violation["field"].as_str().unwrap().to_owned()).collect()
    }
}

/// A connection that stays open between requests.
struct Line {
    stream: BufReader<TcpStream>,
}

impl Line {
    async fn to(service: &Service) -> Self {
        let address = service.endpoint.strip_prefix("http://").unwrap();
        Self { stream: BufReader::new(TcpStream::connect(address).await.unwrap()) }
    }

    /// Sends a request as it is.
    async fn send(&mut self, request: &[u8]) {
        self.stream.write_all(request).await.unwrap();
    }

    /// One line without its end.
    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).await.unwrap();
        line.trim_end().to_owned()
    }

    /// The head of an answer.
    async fn head(&mut self) -> Answer {
        let status = self.line().await;
        let status = status.split(' ').nth(1).unwrap_or_else(|| panic!("no status: {status:?}")).parse().unwrap();
        let mut headers = BTreeMap::new();
        loop {
            let line = self.line().await;
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        Answer { status, headers, body: String::new() }
    }

    /// An answer with a length.
    async fn answer(&mut self) -> Answer {
        let mut answer = self.head().await;
        let mut body = vec![0; answer.headers["content-length"].parse().unwrap()];
        self.stream.read_exact(&mut body).await.unwrap();
        answer.body = String::from_utf8(body).unwrap();
        answer
    }

    /// The next chunk of a stream; `None` at its end.
    async fn chunk(&mut self) -> Option<String> {
        let length = usize::from_str_radix(&self.line().await, 16).unwrap();
        let mut chunk = vec![0; length + 2];
        self.stream.read_exact(&mut chunk).await.unwrap();
        chunk.truncate(length);
        (length > 0).then(|| String::from_utf8(chunk).unwrap())
    }

    async fn ask(&mut self, verb: &str, target: &str, headers: &[(&str, &str)], body: Option<&str>) -> Answer {
        self.send(request(verb, target, headers, body).as_bytes()).await;
        self.answer().await
    }
}

fn request(verb: &str, target: &str, headers: &[(&str, &str)], body: Option<&str>) -> String {
    let mut request = format!("{verb} {target} HTTP/1.1\r\nHost: localhost\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(body) = body {
        request.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    request + "\r\n" + body.unwrap_or_default()
}

async fn get(service: &Service, target: &str) -> Answer {
    Line::to(service).await.ask("GET", target, &[], None).await
}

async fn send(service: &Service, verb: &str, target: &str, body: &str) -> Answer {
    Line::to(service).await.ask(verb, target, &[("Content-Type", "application/json")], Some(body)).await
}

/// The operation at its end, waited for over REST.
async fn ended(service: &Service, operation: &Value) -> Value {
    let target = format!("/redkeep/v1/operations/{}:wait?timeoutMs=60000", operation["id"].as_str().unwrap());
    let state = get(service, &target).await.json();
    assert_eq!(state["operation"]["done"], true, "{state:#}");
    state["operation"].clone()
}

/// A backup that was taken over REST.
async fn taken(service: &Service, name: &str) -> Value {
    let started = send(service, "POST", "/redkeep/v1/backups", &format!("{{\"clusterId\":\"main\",\"name\":\"{name}\"}}")).await;
    assert_eq!(started.status, 200, "{started:?}");
    ended(service, &started.json()).await["response"].clone()
}
