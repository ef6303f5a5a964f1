//! A request's body as JSON, whatever its type says: curl sends JSON as a form unless it is told otherwise.

use super::answer::Refusal;
use crate::api::REQUEST_BYTES;
use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_LENGTH;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Longest time for a whole body to arrive.
const WAIT: Duration = Duration::from_secs(30);

/// Most levels of lists and objects, the outermost included.
const DEPTH: usize = 100;

/// The members of a request's object.
#[derive(Debug, Default)]
pub(super) struct Members(BTreeMap<String, Value>);

impl Members {
    /// A member that must be there and be a text.
    pub(super) fn text(&self, field: &'static str) -> Result<&str, Refusal> {
        match self.0.get(field) {
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(Refusal::Field { field, what: "must be a string".to_owned() }),
            None => Err(Refusal::Field { field, what: "must be given".to_owned() }),
        }
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Members::default();
                while let Some((key, value)) = map.next_entry::<String, Value>()? {
                    if members.0.contains_key(&key) {
                        return Err(A::Error::custom(format_args!("the member {key:?} stands twice")));
                    }
                    members.0.insert(key, value);
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// Reads a body of at most [`REQUEST_BYTES`] that arrives within [`WAIT`].
pub(super) async fn read(headers: &HeaderMap, body: Body) -> Result<Members, Refusal> {
    let told = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if told.is_some_and(|length| length > REQUEST_BYTES as u64) {
        return Err(Refusal::TooLarge);
    }
    match tokio::time::timeout(WAIT, Limited::new(body, REQUEST_BYTES).collect()).await {
        Err(_) => Err(Refusal::TooSlow),
        Ok(Err(fault)) if fault.is::<LengthLimitError>() => Err(Refusal::TooLarge),
        Ok(Err(_)) => Err(Refusal::Json("it did not arrive whole".to_owned())),
        Ok(Ok(body)) => parse(&body.to_bytes()),
    }
}

fn parse(bytes: &[u8]) -> Result<Members, Refusal> {
    let members: Members = serde_json::from_slice(bytes).map_err(|fault| Refusal::Json(fault.to_string()))?;
    if members.0.values().any(|value| depth(value) >= DEPTH) {
        return Err(Refusal::Json(format!("it has more than {DEPTH} levels")));
    }
    Ok(members)
}

/// Levels of lists and objects. The parser has bounded them already, more loosely.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]
    use super::*;

    #[test]
    fn an_object_is_read() {
        let members = parse(" {\"name\": \"a\\u00e9\", \"other\": {\"x\": [1]}, \"n\": 1, \"null\": null}\n".as_bytes()).unwrap();
        assert_eq!(members.text("name"), Ok("aé"));
        for (field, what) in [("n", "must be a string"), ("null", "must be a string"), ("other", "must be a string"), ("Name", "must be given")] {
            assert_eq!(members.text(field), Err(Refusal::Field { field, what: what.into() }));
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
        let (deep, deeper) = (nested(101), nested(200));
        for bad in [
            "",
            " ",
            "null",
            "[]",
            "\"a\"",
            "1",
            "{",
            "{}x",
            "{} {}",
            "{\"a\":1,}",
            "{'a':1}",
            "{a:1}",
            "{\"a\":1,\"a\":1}",
            "{\"a\":1,\"\\u0061\":2}",
            "// c\n{}",
            "{/* c */}",
            "{\"a\":NaN}",
            "{\"a\":\"\n\"}",
            "{\"a\":\"\\ud800\"}",
            "\u{feff}{}",
            "name=a&b=c",
            &deep,
            &deeper,
        ] {
            assert!(matches!(parse(bad.as_bytes()), Err(Refusal::Json(_))), "{bad}");
        }
        assert!(matches!(parse(b"{\"a\":\"\xff\"}"), Err(Refusal::Json(_))));
        assert!(parse(nested(100).as_bytes()).is_ok());
    }

    #[tokio::test]
    async fn a_body_has_a_length() {
        let body = |bytes: usize| Body::from(format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8)));
        assert!(read(&HeaderMap::new(), body(REQUEST_BYTES)).await.is_ok());
        assert_eq!(read(&HeaderMap::new(), body(REQUEST_BYTES + 1)).await.unwrap_err(), Refusal::TooLarge);
        let told = HeaderMap::from_iter([(CONTENT_LENGTH, "4194305".parse().unwrap())]);
        assert_eq!(read(&told, Body::empty()).await.unwrap_err(), Refusal::TooLarge, "before a byte is read");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_given_up() {
        let endless = Body::from_stream(futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
        assert_eq!(read(&HeaderMap::new(), endless).await.unwrap_err(), Refusal::TooSlow);
    }
}
