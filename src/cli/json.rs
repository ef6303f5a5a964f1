//! Answers as the JSON of the wire: canonical, with what is wrapped in `Any` unpacked.
//!
//! Fields at their defaults are left out, except `done` of an operation and `ready` of a check, which programs ask for. Keys
//! are in order.

use super::error::Error;
use super::text;
use crate::pb;
use prost::{Message, Name};
use prost_reflect::{DynamicMessage, SerializeOptions};
use serde_json::{Map, Value, json};

/// A message.
///
/// # Errors
///
/// When the message holds something that this program has no descriptor of.
pub(super) fn message<M: Message + Name>(message: &M) -> Result<Value, Error> {
    let name = M::full_name();
    let unknown = |fault: &dyn std::fmt::Display| Error::failed(format_args!("cannot write {name} as JSON: {fault}"));
    let descriptor = pb::pool().get_message_by_name(&name).ok_or_else(|| unknown(&"no descriptor"))?;
    let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).map_err(|fault| unknown(&fault))?;
    let options = SerializeOptions::new().skip_default_fields(true);
    dynamic.serialize_with_options(serde_json::value::Serializer, &options).map_err(|fault| unknown(&fault))
}

/// A message with one more truth value, present also when it is false.
pub(super) fn message_with<M: Message + Name>(source: &M, key: &str, value: bool) -> Result<Value, Error> {
    let mut shown = message(source)?;
    shown[key] = json!(value);
    Ok(shown)
}

/// An operation. Of metadata or a response from a newer service only the type is shown.
pub(super) fn operation(operation: &pb::operation::Operation) -> Result<Value, Error> {
    use pb::operation::operation::Result as Outcome;
    let mut known = operation.clone();
    let mut strange = Map::new();
    if let Some(any) = known.metadata.take_if(|any| unpack(any).is_none()) {
        strange.insert("metadata".to_owned(), json!({ "@type": any.type_url }));
    }
    match &mut known.result {
        Some(Outcome::Error(status)) => status.details.retain(|any| unpack(any).is_some()),
        Some(Outcome::Response(any)) if unpack(any).is_none() => {
            strange.insert("response".to_owned(), json!({ "@type": any.type_url }));
            known.result = None;
        }
        Some(Outcome::Response(_)) | None => {}
    }
    let mut shown = message_with(&known, "done", operation.done)?;
    for (key, value) in strange {
        shown[key] = value;
    }
    Ok(shown)
}

/// Operations, each as by [`operation`].
pub(super) fn operations(operations: &[pb::operation::Operation]) -> Result<Value, Error> {
    Ok(json!({ "operations": operations.iter().map(operation).collect::<Result<Vec<_>, _>>()? }))
}

/// Messages of a list, under its name.
pub(super) fn list<M: Message + Name>(name: &str, rows: &[M]) -> Result<Value, Error> {
    Ok(json!({ name: rows.iter().map(message).collect::<Result<Vec<_>, _>>()? }))
}

/// What an `Any` holds, when this program has its descriptor.
pub(super) fn unpack(any: &prost_types::Any) -> Option<DynamicMessage> {
    let name = any.type_url.rsplit_once('/')?.1;
    let descriptor = pb::pool().get_message_by_name(name)?;
    DynamicMessage::decode(descriptor, any.value.as_slice()).ok()
}

/// A message in an `Any`, as the service wraps it.
#[cfg(test)]
pub(super) fn pack<M: Message + Name>(message: &M) -> prost_types::Any {
    prost_types::Any { type_url: format!("type.googleapis.com/{}", M::full_name()), value: message.encode_to_vec() }
}

/// The text of a value, indented. Characters that steer a terminal are escaped, which JSON allows in its strings.
pub(super) fn text(value: &Value) -> String {
    let plain = format!("{value:#}");
    let mut safe = String::with_capacity(plain.len());
    for c in plain.chars() {
        // A line feed here is of the layout: those inside strings are escaped already.
        if c == '\n' || !text::is_unsafe(c) {
            safe.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                safe.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use pb::operation::operation::Result as Outcome;
    use prost_types::{Any, Timestamp};

    fn sample() -> pb::operation::Operation {
        let progress = pb::own::Progress { step: pb::own::progress::Step::Snapshot.into(), attempt: 1, ..Default::default() };
        let metadata = pb::own::CreateBackupMetadata { cluster_id: "main".to_owned(), backup_id: "b".to_owned(), progress: Some(progress) };
        pb::operation::Operation {
            id: "o".to_owned(),
            description: "Back up cluster main".to_owned(),
            created_at: Some(Timestamp { seconds: 1_893_456_000, nanos: 0 }),
            metadata: Some(pack(&metadata)),
            ..Default::default()
        }
    }

    #[test]
    fn an_operation_that_runs() {
        let shown = operation(&sample()).unwrap();
        assert_eq!(
            shown.to_string(),
            concat!(
                r#"{"createdAt":"2030-01-01T00:00:00Z","description":"Back up cluster main","done":false,"id":"o","#,
                r#""metadata":{"@type":"type.googleapis.com/redkeep.v1.CreateBackupMetadata","backupId":"b","clusterId":"main","#,
                r#""progress":{"attempt":1,"step":"SNAPSHOT"}}}"#
            )
        );
    }

    #[test]
    fn an_operation_that_ended() {
        let backup = pb::own::Backup { id: "b".to_owned(), size_bytes: 1 << 53, ..Default::default() };
        let ended = pb::operation::Operation { done: true, result: Some(Outcome::Response(pack(&backup))), ..sample() };
        let shown = operation(&ended).unwrap();
        assert_eq!(shown["done"], json!(true));
        assert_eq!(shown["response"], json!({ "@type": "type.googleapis.com/redkeep.v1.Backup", "id": "b", "sizeBytes": "9007199254740992" }));

        let empty = Any { type_url: "type.googleapis.com/google.protobuf.Empty".to_owned(), value: Vec::new() };
        let ended = pb::operation::Operation { done: true, result: Some(Outcome::Response(empty)), ..sample() };
        assert_eq!(operation(&ended).unwrap()["response"]["@type"], "type.googleapis.com/google.protobuf.Empty");
    }

    #[test]
    fn what_a_newer_service_says_is_shown_by_its_type() {
        let strange = Any { type_url: "type.googleapis.com/redkeep.v9.News".to_owned(), value: vec![1, 2, 3] };
        let status = pb::google::rpc::Status { code: 13, message: "no".to_owned(), details: vec![strange.clone()] };
        for result in [Outcome::Error(status), Outcome::Response(strange.clone())] {
            let odd = pb::operation::Operation { done: true, metadata: Some(strange.clone()), result: Some(result), ..sample() };
            let shown = operation(&odd).unwrap();
            assert_eq!(shown["metadata"], json!({ "@type": "type.googleapis.com/redkeep.v9.News" }));
            assert!(shown["error"]["message"] == "no" || shown["response"]["@type"] == "type.googleapis.com/redkeep.v9.News", "{shown}");
        }
    }

    #[test]
    fn false_is_said_where_programs_ask() {
        let check = pb::own::CheckClusterResponse { cluster_id: "main".to_owned(), ..Default::default() };
        assert_eq!(message_with(&check, "ready", check.ready).unwrap(), json!({ "clusterId": "main", "ready": false }));
    }

    #[test]
    fn lists_are_named_also_when_empty() {
        assert_eq!(list::<pb::own::Backup>("backups", &[]).unwrap(), json!({ "backups": [] }));
    }

    #[test]
    fn the_text_stays_json_and_steers_no_terminal() {
        let value = json!({ "a": "\u{9b}31m \u{1b} \n \u{e0001}" });
        let text = text(&value);
        assert!(!text.chars().any(|c| c != '\n' && text::is_unsafe(c)), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
