//! From JSON, and from the text of a path or query, to the values of fields.
//!
//! Numbers that the mapping allows in many spellings are taken exactly or not at all: whole numbers beyond 2^53 must be
//! written without fraction or exponent, because those are read with the precision of a double.

use super::{Fault, shown};
use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage, Value as Proto};
use serde_json::{Map, Number, Value as Json};
use std::collections::{HashMap, HashSet};

/// The largest number up to which every whole one is a double.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Base64 of the standard alphabet, padded or not.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&base64::alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// How a message is written in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gateway) enum Form {
    /// As an object of its fields.
    Fields,
    /// As its only field.
    Wrapper,
    /// As a text of its own form.
    Timestamp,
    Duration,
    FieldMask,
    /// As an object with `@type`.
    Any,
    /// As plain JSON.
    Struct,
    Value,
    ListValue,
}

impl Form {
    pub(in crate::gateway) fn of(message: &MessageDescriptor) -> Self {
        let Some(name) = message.full_name().strip_prefix("google.protobuf.") else { return Self::Fields };
        match name {
            "Timestamp" => Self::Timestamp,
            "Duration" => Self::Duration,
            "FieldMask" => Self::FieldMask,
            "Any" => Self::Any,
            "Struct" => Self::Struct,
            "Value" => Self::Value,
            "ListValue" => Self::ListValue,
            "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value" | "UInt32Value" | "BoolValue" | "StringValue" | "BytesValue" => {
                Self::Wrapper
            }
            _ => Self::Fields,
        }
    }

    /// The only field of a wrapper.
    pub(in crate::gateway) fn content(message: &MessageDescriptor) -> Option<FieldDescriptor> {
        message.get_field(1)
    }
}

/// Reads a message. Members may have JSON names or proto names; unknown ones are refused.
///
/// # Errors
///
/// The first field that cannot be taken.
pub(in crate::gateway) fn message(kind: &MessageDescriptor, json: &Json) -> Result<DynamicMessage, Fault> {
    match Form::of(kind) {
        Form::Fields => fields(kind, json.as_object().ok_or_else(|| wanted("an object", json))?, None),
        Form::Wrapper => {
            let content = Form::content(kind).ok_or_else(|| Fault::new("is of a type that cannot be read"))?;
            let mut message = DynamicMessage::new(kind.clone());
            message.set_field(&content, value(&content.kind(), json)?);
            Ok(message)
        }
        Form::Timestamp => timestamp(kind, json.as_str().ok_or_else(|| wanted("a time as text", json))?),
        Form::Duration => duration(kind, json.as_str().ok_or_else(|| wanted("a duration as text", json))?),
        Form::FieldMask => field_mask(kind, json.as_str().ok_or_else(|| wanted("field paths as one text", json))?),
        Form::Any => any(kind, json.as_object().ok_or_else(|| wanted("an object with @type", json))?),
        Form::Struct if !json.is_object() => Err(wanted("an object", json)),
        Form::ListValue if !json.is_array() => Err(wanted("an array", json)),
        Form::Struct | Form::Value | Form::ListValue => DynamicMessage::deserialize(kind.clone(), json).map_err(|_| Fault::new("must be plain JSON")),
    }
}

/// Reads the members of an object as fields; `without` names one that is no field.
fn fields(kind: &MessageDescriptor, object: &Map<String, Json>, without: Option<&str>) -> Result<DynamicMessage, Fault> {
    let mut message = DynamicMessage::new(kind.clone());
    let mut seen = HashSet::new();
    for (name, json) in object.iter().filter(|(name, _)| Some(name.as_str()) != without) {
        let field = by_name(kind, name).ok_or_else(|| Fault::of(shown(name), "is no field of the request"))?;
        if !seen.insert(field.number()) {
            return Err(Fault::of(field.name(), "is given twice, under both of its names"));
        }
        if json.is_null() && !takes_null(&field) {
            continue;
        }
        let value = of_field(&field, json).map_err(|fault| fault.inside(field.name()))?;
        set(&mut message, &field, value).map_err(|fault| fault.inside(field.name()))?;
    }
    Ok(message)
}

/// A field by its JSON name or its proto name.
pub(in crate::gateway) fn by_name(kind: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    kind.get_field_by_json_name(name).or_else(|| kind.get_field_by_name(name))
}

/// Sets a field whose oneof has no other member yet.
///
/// # Errors
///
/// When it has.
pub(in crate::gateway) fn set(message: &mut DynamicMessage, field: &FieldDescriptor, value: Proto) -> Result<(), Fault> {
    if let Some(other) = field.containing_oneof().and_then(|oneof| oneof.fields().find(|other| other != field && message.has_field(other))) {
        return Err(Fault::new(format!("cannot be given together with {}", other.name())));
    }
    message.set_field(field, value);
    Ok(())
}

/// Whether `null` is a value of the field and not its absence.
fn takes_null(field: &FieldDescriptor) -> bool {
    match field.kind() {
        _ if field.is_list() || field.is_map() => false,
        Kind::Message(message) => Form::of(&message) == Form::Value,
        Kind::Enum(kind) => kind.full_name() == "google.protobuf.NullValue",
        _ => false,
    }
}

/// Reads the value of a field: `null` for a list or map is no element.
pub(in crate::gateway) fn of_field(field: &FieldDescriptor, json: &Json) -> Result<Proto, Fault> {
    if field.is_list() {
        let list = json.as_array().ok_or_else(|| wanted("an array", json))?;
        let elements = list.iter().enumerate().map(|(index, json)| element(field, json).map_err(|fault| fault.at(index)));
        return Ok(Proto::List(elements.collect::<Result<_, _>>()?));
    }
    match field.kind() {
        Kind::Message(entry) if field.is_map() => {
            let object = json.as_object().ok_or_else(|| wanted("an object", json))?;
            let (key, value) = (entry.map_entry_key_field().kind(), entry.map_entry_value_field());
            let mut map = HashMap::new();
            for (name, json) in object {
                let at = |fault: Fault| fault.at(format_args!("{:?}", shown(name)));
                let key = map_key(&key, name).map_err(at)?;
                map.insert(key, element(&value, json).map_err(at)?);
            }
            Ok(Proto::Map(map))
        }
        kind => value(&kind, json),
    }
}

/// Reads an element of a list or a value of a map.
fn element(field: &FieldDescriptor, json: &Json) -> Result<Proto, Fault> {
    let kind = field.kind();
    let is_value = match &kind {
        Kind::Message(message) => Form::of(message) == Form::Value,
        Kind::Enum(kind) => kind.full_name() == "google.protobuf.NullValue",
        _ => false,
    };
    if json.is_null() && !is_value { Err(Fault::new("must not be null")) } else { value(&kind, json) }
}

fn map_key(kind: &Kind, name: &str) -> Result<MapKey, Fault> {
    Ok(match text(kind, name)? {
        Proto::Bool(key) => MapKey::Bool(key),
        Proto::I32(key) => MapKey::I32(key),
        Proto::I64(key) => MapKey::I64(key),
        Proto::U32(key) => MapKey::U32(key),
        Proto::U64(key) => MapKey::U64(key),
        Proto::String(key) => MapKey::String(key),
        _ => return Err(Fault::new("is of a type that cannot be a key")),
    })
}

/// Reads one value that is not repeated.
pub(in crate::gateway) fn value(kind: &Kind, json: &Json) -> Result<Proto, Fault> {
    match kind {
        Kind::Message(kind) => message(kind, json).map(Proto::Message),
        Kind::String => json.as_str().map(|text| Proto::String(text.to_owned())).ok_or_else(|| wanted("a text", json)),
        Kind::Bytes => bytes(json.as_str().ok_or_else(|| wanted("bytes in base64", json))?),
        Kind::Bool => json.as_bool().map(Proto::Bool).ok_or_else(|| wanted("true or false", json)),
        Kind::Enum(kind) if kind.full_name() == "google.protobuf.NullValue" && json.is_null() => Ok(Proto::EnumNumber(0)),
        Kind::Enum(kind) => match json {
            Json::String(name) => {
                let known = kind.get_value_by_name(name);
                known.map(|value| Proto::EnumNumber(value.number())).ok_or_else(|| Fault::new(format!("has no value \"{}\"", shown(name))))
            }
            Json::Number(number) => whole(number).and_then(|number| narrow(number, Proto::EnumNumber)),
            _ => Err(wanted("a name or a number", json)),
        },
        Kind::Double | Kind::Float => {
            let number = match json {
                Json::Number(number) => number.as_f64().ok_or_else(|| Fault::new("is out of range"))?,
                Json::String(text) => float(text)?,
                _ => return Err(wanted("a number", json)),
            };
            floating(kind, number)
        }
        _ => {
            let number = match json {
                Json::Number(number) => whole(number)?,
                Json::String(text) => whole(&number(text)?)?,
                _ => return Err(wanted("a whole number", json)),
            };
            integer(kind, number)
        }
    }
}

/// Reads a value from the text of a path or of a query. Whole numbers are decimal there.
///
/// # Errors
///
/// When the text is no such value, and for a message that has no form as one text.
pub(in crate::gateway) fn text(kind: &Kind, text: &str) -> Result<Proto, Fault> {
    let json = || Json::String(text.to_owned());
    match kind {
        Kind::Bool => match text {
            "true" => Ok(Proto::Bool(true)),
            "false" => Ok(Proto::Bool(false)),
            _ => Err(Fault::new("must be true or false")),
        },
        Kind::String | Kind::Bytes | Kind::Double | Kind::Float => value(kind, &json()),
        Kind::Enum(_) => match decimal(text) {
            Some(number) => narrow(number, Proto::EnumNumber),
            None => value(kind, &json()),
        },
        Kind::Message(message) => match Form::of(message) {
            Form::Timestamp | Form::Duration | Form::FieldMask => value(kind, &json()),
            Form::Wrapper => {
                let content = Form::content(message).ok_or_else(|| Fault::new("is of a type that cannot be read"))?;
                let mut wrapper = DynamicMessage::new(message.clone());
                wrapper.set_field(&content, self::text(&content.kind(), text)?);
                Ok(Proto::Message(wrapper))
            }
            Form::Fields | Form::Any | Form::Struct | Form::Value | Form::ListValue => {
                Err(Fault::new("is a message; give its fields one by one, as NAME.FIELD"))
            }
        },
        _ => integer(kind, decimal(text).ok_or_else(|| Fault::new("must be a whole number"))?),
    }
}

fn wanted(what: &str, json: &Json) -> Fault {
    let found = match json {
        Json::Null => "null",
        Json::Bool(_) => "true or false",
        Json::Number(_) => "a number",
        Json::String(_) => "a text",
        Json::Array(_) => "an array",
        Json::Object(_) => "an object",
    };
    Fault::new(format!("must be {what}, it is {found}"))
}

/// A decimal without plus, leading zeros, fraction or exponent.
fn decimal(text: &str) -> Option<i128> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let sound = !digits.is_empty() && digits.len() < 30 && digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    if sound { text.parse().ok() } else { None }
}

/// A number of the JSON grammar in a text.
fn number(text: &str) -> Result<Number, Fault> {
    let sound = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    sound.then(|| serde_json::from_str(text).ok()).flatten().ok_or_else(|| Fault::new("must be a number"))
}

fn whole(number: &Number) -> Result<i128, Fault> {
    if let Some(number) = number.as_i64() {
        return Ok(number.into());
    }
    if let Some(number) = number.as_u64() {
        return Ok(number.into());
    }
    let float = number.as_f64().unwrap_or(f64::NAN);
    if float.fract() != 0.0 || float.is_nan() {
        return Err(Fault::new("must be a whole number"));
    }
    if float.abs() > EXACT {
        return Err(Fault::new("is out of range, or too large to be written with a fraction or an exponent"));
    }
    // Exact: a whole number below 2^53.
    Ok(float as i128)
}

fn narrow<T: TryFrom<i128>>(number: i128, wrap: impl Fn(T) -> Proto) -> Result<Proto, Fault> {
    T::try_from(number).map(wrap).map_err(|_| Fault::new("is out of range"))
}

fn integer(kind: &Kind, number: i128) -> Result<Proto, Fault> {
    match kind {
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => narrow(number, Proto::I32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => narrow(number, Proto::I64),
        Kind::Uint32 | Kind::Fixed32 => narrow(number, Proto::U32),
        Kind::Uint64 | Kind::Fixed64 => narrow(number, Proto::U64),
        Kind::Double | Kind::Float | Kind::Bool | Kind::String | Kind::Bytes | Kind::Message(_) | Kind::Enum(_) => {
            Err(Fault::new("is of a type that cannot be read"))
        }
    }
}

fn float(text: &str) -> Result<f64, Fault> {
    match text {
        "NaN" => Ok(f64::NAN),
        "Infinity" => Ok(f64::INFINITY),
        "-Infinity" => Ok(f64::NEG_INFINITY),
        _ => number(text)?.as_f64().ok_or_else(|| Fault::new("is out of range")),
    }
}

fn floating(kind: &Kind, number: f64) -> Result<Proto, Fault> {
    if !matches!(kind, Kind::Float) {
        return Ok(Proto::F64(number));
    }
    let single = number as f32;
    if single.is_infinite() && number.is_finite() { Err(Fault::new("is out of range")) } else { Ok(Proto::F32(single)) }
}

fn bytes(text: &str) -> Result<Proto, Fault> {
    let standard: String = text
        .chars()
        .map(|c| {
            if c == '-' {
                '+'
            } else if c == '_' {
                '/'
            } else {
                c
            }
        })
        .collect();
    BASE64.decode(standard).map(|bytes| Proto::Bytes(bytes.into())).map_err(|_| Fault::new("must be base64"))
}

fn timestamp(kind: &MessageDescriptor, text: &str) -> Result<DynamicMessage, Fault> {
    let fault = || Fault::new("must be a time such as 2026-01-31T12:00:00Z, of the years 0001 to 9999");
    // The standard parser also takes what the mapping forbids: small letters, a space, more than nine digits.
    let fraction = text.split_once('.').map_or(0, |(_, rest)| rest.bytes().take_while(u8::is_ascii_digit).count());
    let is_ours = |byte: u8| byte.is_ascii_digit() || b"-+:.TZ".contains(&byte);
    if !text.bytes().all(is_ours) || fraction > 9 || text.as_bytes().get(10) != Some(&b'T') {
        return Err(fault());
    }
    let at = chrono::DateTime::parse_from_rfc3339(text).map_err(|_| fault())?;
    let nanos = i32::try_from(at.timestamp_subsec_nanos()).ok().filter(|nanos| *nanos < 1_000_000_000).ok_or_else(fault)?;
    let year = chrono::Datelike::year(&at.to_utc());
    if !(1..=9999).contains(&year) {
        return Err(fault());
    }
    parts(kind, at.timestamp(), nanos)
}

fn duration(kind: &MessageDescriptor, text: &str) -> Result<DynamicMessage, Fault> {
    const SECONDS: i64 = 315_576_000_000;
    let read = || {
        let (sign, number) = text.strip_suffix('s')?.strip_prefix('-').map_or((1, text.strip_suffix('s')?), |number| (-1, number));
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str, longest: usize| (1..=longest).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole, 12) || !digits(fraction, 9) {
            return None;
        }
        let seconds: i64 = whole.parse().ok()?;
        let nanos: i32 = format!("{fraction:0<9}").parse().ok()?;
        let is_within = seconds < SECONDS || (seconds == SECONDS && nanos == 0);
        is_within.then_some((i64::from(sign) * seconds, sign * nanos))
    };
    let (seconds, nanos) = read().ok_or_else(|| Fault::new("must be a duration in seconds such as 1.5s, within 315576000000s"))?;
    parts(kind, seconds, nanos)
}

fn parts(kind: &MessageDescriptor, seconds: i64, nanos: i32) -> Result<DynamicMessage, Fault> {
    let mut message = DynamicMessage::new(kind.clone());
    message.set_field_by_number(1, Proto::I64(seconds));
    message.set_field_by_number(2, Proto::I32(nanos));
    Ok(message)
}

/// Takes JSON paths and proto paths alike: a large letter can only come from a JSON name.
fn field_mask(kind: &MessageDescriptor, text: &str) -> Result<DynamicMessage, Fault> {
    let snake = |path: &str| {
        let sound = path.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
        let mut snake = String::new();
        for c in path.chars() {
            if c.is_ascii_uppercase() {
                snake.push('_');
            }
            snake.push(c.to_ascii_lowercase());
        }
        sound.then_some(Proto::String(snake)).ok_or_else(|| Fault::new(format!("holds \"{}\", which is no field path", shown(path))))
    };
    let paths = if text.is_empty() { Vec::new() } else { text.split(',').map(snake).collect::<Result<_, _>>()? };
    let mut message = DynamicMessage::new(kind.clone());
    message.set_field_by_number(1, Proto::List(paths));
    Ok(message)
}

fn any(kind: &MessageDescriptor, object: &Map<String, Json>) -> Result<DynamicMessage, Fault> {
    let url = object.get("@type").and_then(Json::as_str).ok_or_else(|| Fault::new("must have a text @type"))?;
    let name =
        url.rsplit('/').next().filter(|name| name.len() < url.len()).ok_or_else(|| Fault::of("@type", "must be a URL such as type.googleapis.com/NAME"))?;
    let inner = kind.parent_pool().get_message_by_name(name).ok_or_else(|| Fault::of("@type", format!("names the unknown type {}", shown(name))))?;
    let content = match (Form::of(&inner), object.get("value")) {
        (Form::Fields, Some(value)) if inner.full_name() == "google.protobuf.Empty" && object.len() == 2 => message(&inner, value)?,
        (Form::Fields, _) => fields(&inner, object, Some("@type"))?,
        (_, Some(value)) if object.len() == 2 => message(&inner, value).map_err(|fault| fault.inside("value"))?,
        _ => return Err(Fault::new("must have the members @type and value")),
    };
    let mut message = DynamicMessage::new(kind.clone());
    message.set_field_by_number(1, Proto::String(url.to_owned()));
    message.set_field_by_number(2, Proto::Bytes(prost::Message::encode_to_vec(&content).into()));
    debug_assert_eq!(message.descriptor().full_name(), "google.protobuf.Any");
    Ok(message)
}

#[cfg(test)]
mod tests;
