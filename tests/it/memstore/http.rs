//! Requests as a test writes them, and what is held of every answer.

use crate::support::http;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// An answer as it came.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
    answer: http::Answer,
}

impl Answer {
    fn of(answer: http::Answer) -> Self {
        Self { status: answer.status, body: answer.text(), answer }
    }

    /// A header's value, by its name in lower case; empty when there is none.
    pub(super) fn header(&self, name: &str) -> &str {
        self.answer.header(name).unwrap_or_default()
    }

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
        assert_eq!(self.header("content-type"), "application/json; charset=UTF-8", "{self:?}");
        assert_eq!(self.header("content-length"), self.body.len().to_string(), "{self:?}");
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

fn address(endpoint: &str) -> &str {
    endpoint.strip_prefix("http://").unwrap()
}

/// Sends a request with these headers, a body with its length where there is one, and reads the answer.
pub(super) async fn call(endpoint: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut lines = vec![format!("{method} {path} HTTP/1.1"), "Host: localhost".to_owned()];
    lines.extend(headers.iter().map(|(name, value)| format!("{name}: {value}")));
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    Answer::of(http::ask(address(endpoint), &lines, body.as_bytes()).await)
}

/// Sends bytes, and reads the answer until the server closes.
pub(super) async fn send(endpoint: &str, bytes: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address(endpoint)).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    Answer::of(http::answer(&mut stream).await.unwrap())
}
