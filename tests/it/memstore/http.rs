//! HTTP/1.1 by hand: what is sent is what a test says, to the byte.

use serde_json::Value;
use std::collections::BTreeMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer as it came.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// By lower-case name.
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: String,
}

impl Answer {
    /// Holds that the status is this and the body JSON of the documented type and length, and gives it.
    #[track_caller]
    pub(super) fn is(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        self.form()
    }

    /// Holds that this is a refusal of the one shape.
    #[track_caller]
    pub(super) fn refuses(&self, status: u16, code: &str) -> String {
        assert_eq!(self.status, status, "{self:?}");
        let body = self.form();
        assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), ["error"], "{self:?}");
        assert_eq!(body["error"].as_object().unwrap().len(), 2, "{self:?}");
        assert_eq!(body["error"]["code"], code, "{self:?}");
        let message = body["error"]["message"].as_str().unwrap().to_owned();
        assert!(!message.is_empty() && !message.ends_with('.'), "{message}");
        message
    }

    /// The body, after a look at its form.
    #[track_caller]
    fn form(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/json; charset=UTF-8", "{self:?}");
        assert_eq!(self.headers["content-length"], self.body.len().to_string(), "{self:?}");
        let value: Value = serde_json::from_str(&self.body).unwrap_or_else(|fault| panic!("{fault}: {self:?}"));
        assert!(self.body.ends_with("}\n") && !self.body.trim_end().contains('\n'), "compact, and one line: {self:?}");
        value
    }

    /// The id that the answer names.
    #[track_caller]
    pub(super) fn object(&self, status: u16) -> String {
        let body = self.is(status);
        let id = body["objectId"].as_str().unwrap_or_else(|| panic!("{self:?}")).to_owned();
        assert_eq!((body.as_object().unwrap().len(), id.len(), self.body.len()), (1, 36, 52), "{self:?}");
        id
    }
}

/// Sends a request with these headers, a body with its length where there is one, and reads the answer.
pub(super) async fn call(endpoint: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    send(endpoint, format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}{length}\r\n{body}").as_bytes()).await
}

/// Sends bytes, and reads the answer until the server closes.
pub(super) async fn send(endpoint: &str, bytes: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(endpoint.strip_prefix("http://").unwrap()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.map(|line| line.split_once(':').unwrap()).map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())).collect();
    Answer { status, headers, body: body.to_owned() }
}
