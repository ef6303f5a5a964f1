//! From messages to JSON.
//!
//! Fields at their default are left out, but for what readers look for: `done` of an operation, code and message of a
//! status, and the lists of a list call. What cannot be written is left out too: an `Any` of unknown type or content, and a time
//! or duration out of range. Fields come in order of their numbers, map entries in order of their keys.

use super::read::Form;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage, Value};
use std::borrow::Cow;

/// Deepest nesting that is written; what lies deeper is left out.
const DEPTH: usize = 100;

/// A message as JSON.
pub(in crate::gateway) fn message(message: &DynamicMessage) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    if !write_message(&mut out, message, DEPTH) {
        out.extend_from_slice(b"null");
    }
    out
}

/// A field of a message as JSON.
pub(in crate::gateway) fn field(message: &DynamicMessage, field: &FieldDescriptor) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    if !write_field(&mut out, field, &message.get_field(field), DEPTH) {
        out.extend_from_slice(b"null");
    }
    out
}

/// Whether a field is written even at its default.
pub(in crate::gateway) fn is_always_there(field: &FieldDescriptor) -> bool {
    let owner = field.parent_message();
    match owner.full_name() {
        "yandex.cloud.operation.Operation" => field.name() == "done",
        "google.rpc.Status" => matches!(field.name(), "code" | "message"),
        _ => field.is_list() && owner.name().starts_with("List") && owner.name().ends_with("Response"),
    }
}

/// Writes one JSON text and tells whether it could; if not, nothing was written.
fn write_message(out: &mut Vec<u8>, message: &DynamicMessage, depth: usize) -> bool {
    let Some(depth) = depth.checked_sub(1) else { return false };
    let kind = message.descriptor();
    match Form::of(&kind) {
        Form::Fields => {
            write_object(out, message, None, depth);
            true
        }
        Form::Wrapper => Form::content(&kind).is_some_and(|content| write_value(out, &content.kind(), &message.get_field(&content), depth)),
        Form::Timestamp => timestamp(message).map(|text| write_text(out, &text)).is_some(),
        Form::Duration => duration(message).map(|text| write_text(out, &text)).is_some(),
        Form::FieldMask => {
            write_text(out, &field_mask(message));
            true
        }
        Form::Any => write_any(out, message, depth),
        Form::Struct | Form::Value | Form::ListValue => match serde_json::to_vec(message) {
            Ok(text) => {
                out.extend_from_slice(&text);
                true
            }
            Err(_) => false,
        },
    }
}

/// Writes the fields of a message between braces, after the type where there is one.
fn write_object(out: &mut Vec<u8>, message: &DynamicMessage, url: Option<&str>, depth: usize) {
    out.push(b'{');
    let mut is_first = true;
    if let Some(url) = url {
        out.extend_from_slice(b"\"@type\":");
        write_text(out, url);
        is_first = false;
    }
    for field in message.descriptor().fields() {
        if !message.has_field(&field) && !is_always_there(&field) {
            continue;
        }
        let start = out.len();
        if !is_first {
            out.push(b',');
        }
        write_text(out, field.json_name());
        out.push(b':');
        if write_field(out, &field, &message.get_field(&field), depth) {
            is_first = false;
        } else {
            out.truncate(start);
        }
    }
    out.push(b'}');
}

fn write_field(out: &mut Vec<u8>, field: &FieldDescriptor, value: &Value, depth: usize) -> bool {
    match value {
        Value::List(list) => {
            let kind = field.kind();
            write_all(out, [b'[', b']'], list.iter(), |out, element| write_value(out, &kind, element, depth));
            true
        }
        Value::Map(map) => {
            let Kind::Message(entry) = field.kind() else { return false };
            let kind = entry.map_entry_value_field().kind();
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            write_all(out, [b'{', b'}'], entries.into_iter(), |out, (key, value)| {
                write_text(out, &map_key(key));
                out.push(b':');
                write_value(out, &kind, value, depth)
            });
            true
        }
        single => write_value(out, &field.kind(), single, depth),
    }
}

/// Writes what can be written of some items, with commas between them.
fn write_all<T>(out: &mut Vec<u8>, [open, close]: [u8; 2], items: impl Iterator<Item = T>, write: impl Fn(&mut Vec<u8>, T) -> bool) {
    out.push(open);
    let mut is_first = true;
    for item in items {
        let start = out.len();
        if !is_first {
            out.push(b',');
        }
        if write(out, item) {
            is_first = false;
        } else {
            out.truncate(start);
        }
    }
    out.push(close);
}

fn write_value(out: &mut Vec<u8>, kind: &Kind, value: &Value, depth: usize) -> bool {
    match value {
        Value::Message(message) => {
            let start = out.len();
            let written = write_message(out, message, depth);
            if !written {
                out.truncate(start);
            }
            return written;
        }
        Value::Bool(flag) => out.extend_from_slice(if *flag { b"true" } else { b"false" }),
        Value::I32(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Value::U32(number) => out.extend_from_slice(number.to_string().as_bytes()),
        // Readers that know doubles only would lose digits, so these are texts.
        Value::I64(number) => write_text(out, &number.to_string()),
        Value::U64(number) => write_text(out, &number.to_string()),
        Value::F64(number) => write_float(out, *number, serde_json::to_string(number).ok()),
        Value::F32(number) => write_float(out, f64::from(*number), serde_json::to_string(number).ok()),
        Value::String(text) => write_text(out, text),
        Value::Bytes(bytes) => write_text(out, &STANDARD.encode(bytes)),
        Value::EnumNumber(number) => match kind {
            Kind::Enum(kind) if kind.full_name() == "google.protobuf.NullValue" => out.extend_from_slice(b"null"),
            Kind::Enum(kind) => match kind.get_value(*number) {
                Some(known) => write_text(out, known.name()),
                None => out.extend_from_slice(number.to_string().as_bytes()),
            },
            _ => return false,
        },
        Value::List(_) | Value::Map(_) => return false,
    }
    true
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    // A text always fits a vector.
    let _ = serde_json::to_writer(out, text);
}

fn write_float(out: &mut Vec<u8>, number: f64, text: Option<String>) {
    match text {
        Some(text) if number.is_finite() => out.extend_from_slice(text.as_bytes()),
        _ if number.is_nan() => write_text(out, "NaN"),
        _ if number > 0.0 => write_text(out, "Infinity"),
        _ => write_text(out, "-Infinity"),
    }
}

fn map_key(key: &MapKey) -> Cow<'_, str> {
    match key {
        MapKey::String(text) => Cow::Borrowed(text),
        MapKey::Bool(key) => Cow::Owned(key.to_string()),
        MapKey::I32(key) => Cow::Owned(key.to_string()),
        MapKey::I64(key) => Cow::Owned(key.to_string()),
        MapKey::U32(key) => Cow::Owned(key.to_string()),
        MapKey::U64(key) => Cow::Owned(key.to_string()),
    }
}

/// Writes the message inside an `Any` with its type in front. `google.protobuf.Empty` is its type alone.
fn write_any(out: &mut Vec<u8>, any: &DynamicMessage, depth: usize) -> bool {
    let (url, value) = (any.get_field_by_number(1), any.get_field_by_number(2));
    let (Some(url), Some(value)) = (url.as_deref().and_then(Value::as_str), value.as_deref().and_then(Value::as_bytes)) else { return false };
    let Some(inner) = unpack(&any.descriptor(), url, value) else { return false };
    if Form::of(&inner.descriptor()) == Form::Fields {
        write_object(out, &inner, Some(url), depth);
        return true;
    }
    out.extend_from_slice(b"{\"@type\":");
    write_text(out, url);
    out.extend_from_slice(b",\"value\":");
    let written = write_message(out, &inner, depth);
    out.push(b'}');
    written
}

/// The message inside an `Any`; `None` when its type is unknown or its bytes are no such message.
fn unpack(any: &MessageDescriptor, url: &str, value: &[u8]) -> Option<DynamicMessage> {
    let name = url.rsplit('/').next()?;
    let kind = any.parent_pool().get_message_by_name(name)?;
    DynamicMessage::decode(kind, value).ok()
}

/// Seconds and nanoseconds.
fn parts(message: &DynamicMessage) -> (i64, i32) {
    let seconds = message.get_field_by_number(1).and_then(|value| value.as_i64()).unwrap_or(0);
    (seconds, message.get_field_by_number(2).and_then(|value| value.as_i32()).unwrap_or(0))
}

fn timestamp(message: &DynamicMessage) -> Option<String> {
    let (seconds, nanos) = parts(message);
    let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    let at = DateTime::from_timestamp(seconds, nanos).filter(|at| (1..=9999).contains(&chrono::Datelike::year(at)))?;
    Some(at.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

fn duration(message: &DynamicMessage) -> Option<String> {
    const SECONDS: u64 = 315_576_000_000;
    let (seconds, nanos) = parts(message);
    let agree = seconds == 0 || nanos == 0 || (seconds < 0) == (nanos < 0);
    let (sign, seconds, nanos) = (if seconds < 0 || nanos < 0 { "-" } else { "" }, seconds.unsigned_abs(), nanos.unsigned_abs());
    if !agree || seconds > SECONDS || nanos > 999_999_999 {
        return None;
    }
    Some(match nanos {
        0 => format!("{sign}{seconds}s"),
        _ if nanos.is_multiple_of(1_000_000) => format!("{sign}{seconds}.{:03}s", nanos / 1_000_000),
        _ if nanos.is_multiple_of(1_000) => format!("{sign}{seconds}.{:06}s", nanos / 1_000),
        _ => format!("{sign}{seconds}.{nanos:09}s"),
    })
}

fn field_mask(message: &DynamicMessage) -> String {
    let camel = |path: &str| {
        let mut camel = String::new();
        let mut rest = path.chars().peekable();
        while let Some(c) = rest.next() {
            match rest.peek() {
                Some(next) if c == '_' && next.is_ascii_lowercase() => camel.extend(rest.next().map(|c| c.to_ascii_uppercase())),
                _ => camel.push(c),
            }
        }
        camel
    };
    let paths = message.get_field_by_number(1);
    let paths = paths.as_deref().and_then(Value::as_list).unwrap_or_default();
    paths.iter().filter_map(Value::as_str).map(camel).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests;
