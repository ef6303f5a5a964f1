//! Messages and fields as JSON schemas.
//!
//! A message has one schema for requests and one for answers, because requests are refused for what an answer may hold: an
//! unknown member, a field beyond its limits.

use super::comments::Comments;
use crate::api::validate::{self, Range};
use crate::gateway::json::read::Form;
use crate::gateway::json::write::is_always_there;
use crate::pb;
use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    Request,
    Answer,
}

/// The schemas that were referred to.
pub(super) struct Schemas {
    comments: Comments,
    rules: validate::Schema,
    done: BTreeMap<String, Value>,
}

/// Whether a message is an object of its fields.
pub(super) fn is_plain(message: &MessageDescriptor) -> bool {
    Form::of(message) == Form::Fields
}

/// Whether a message can be written as one text in a query.
pub(super) fn is_text(message: &MessageDescriptor) -> bool {
    matches!(Form::of(message), Form::Timestamp | Form::Duration | Form::FieldMask | Form::Wrapper)
}

impl Schemas {
    pub(super) fn new(comments: Comments) -> Self {
        Self { comments, rules: validate::Schema::of(pb::pool()), done: BTreeMap::new() }
    }

    pub(super) fn comments(&self) -> &Comments {
        &self.comments
    }

    /// Whether a request must give the field.
    pub(super) fn is_required(&self, field: &FieldDescriptor) -> bool {
        self.rules.field(field).is_some_and(|rules| rules.required)
    }

    /// Every schema that was referred to, by its name.
    pub(super) fn finish(self) -> Map<String, Value> {
        self.done.into_iter().collect()
    }

    /// A reference to the schema of a message, or the schema itself where that is short.
    pub(super) fn reference(&mut self, message: &MessageDescriptor, side: Side) -> Value {
        match Form::of(message) {
            Form::Fields => {
                let name = match side {
                    Side::Answer => message.full_name().to_owned(),
                    Side::Request => format!("{}.In", message.full_name()),
                };
                if !self.done.contains_key(&name) {
                    // Set before its fields are walked, so that a message inside itself ends there.
                    self.done.insert(name.clone(), Value::Null);
                    let schema = self.object(message, side, &[]);
                    self.done.insert(name.clone(), schema);
                }
                json!({ "$ref": format!("#/components/schemas/{name}") })
            }
            Form::Wrapper => Form::content(message).map_or_else(|| json!({}), |content| self.kind(&content.kind(), side)),
            Form::Timestamp => json!({ "type": "string", "format": "date-time" }),
            Form::Duration => json!({ "type": "string", "pattern": "^-?([0-9]{1,11}|[12][0-9]{11})(\\.[0-9]{1,9})?s$" }),
            Form::FieldMask => json!({ "type": "string", "pattern": "^([A-Za-z0-9_]+(\\.[A-Za-z0-9_]+)*(,[A-Za-z0-9_]+(\\.[A-Za-z0-9_]+)*)*)?$" }),
            Form::Any => json!({
                "type": "object",
                "required": ["@type"],
                "properties": { "@type": { "type": "string", "description": "`type.googleapis.com/` and the name of the message whose fields stand beside." } },
                "additionalProperties": true,
            }),
            Form::Struct => json!({ "type": "object" }),
            Form::Value => json!({}),
            Form::ListValue => json!({ "type": "array" }),
        }
    }

    /// The schema of a request without the fields that its path gives.
    pub(super) fn without(&mut self, message: &MessageDescriptor, fields: &[FieldDescriptor]) -> Value {
        if fields.is_empty() { self.resolved(message) } else { self.object(message, Side::Request, fields) }
    }

    /// The schema of a request as it stands, with its name kept for others.
    fn resolved(&mut self, message: &MessageDescriptor) -> Value {
        let reference = self.reference(message, Side::Request);
        let required = self.done.get(&format!("{}.In", message.full_name())).and_then(|schema| schema.get("required")).cloned();
        match required {
            Some(required) => json!({ "allOf": [reference], "required": required }),
            None => reference,
        }
    }

    fn object(&mut self, message: &MessageDescriptor, side: Side, without: &[FieldDescriptor]) -> Value {
        let mut schema = Map::new();
        schema.insert("type".to_owned(), "object".into());
        let description = self.comments.message(message);
        if !description.is_empty() {
            schema.insert("description".to_owned(), description.into());
        }
        let fields: Vec<FieldDescriptor> = message.fields().filter(|field| !without.contains(field)).collect();
        let mut properties = Map::new();
        for field in &fields {
            let mut property = self.field(field, side);
            let description = self.comments.field(field);
            if !description.is_empty()
                && let Some(members) = property.as_object_mut()
            {
                members.insert("description".to_owned(), description.into());
            }
            properties.insert(field.json_name().to_owned(), property);
        }
        if !properties.is_empty() {
            schema.insert("properties".to_owned(), properties.into());
        }
        let is_required = |field: &&FieldDescriptor| match side {
            Side::Request => self.is_required(field),
            Side::Answer => is_always_there(field),
        };
        let required: Vec<Value> = fields.iter().filter(is_required).map(|field| field.json_name().into()).collect();
        if !required.is_empty() {
            schema.insert("required".to_owned(), required.into());
        }
        if side == Side::Request {
            schema.insert("additionalProperties".to_owned(), false.into());
            let oneofs: Vec<Value> = message.oneofs().filter(|oneof| !oneof.is_synthetic()).map(|oneof| self.oneof(&oneof)).collect();
            if !oneofs.is_empty() {
                schema.insert("allOf".to_owned(), oneofs.into());
            }
        }
        schema.into()
    }

    /// At most one of the members, or exactly one.
    fn oneof(&self, oneof: &prost_reflect::OneofDescriptor) -> Value {
        let given: Vec<Value> = oneof.fields().map(|field| json!({ "required": [field.json_name()] })).collect();
        if self.rules.is_exactly_one(oneof) {
            return json!({ "oneOf": given });
        }
        let none = json!({ "not": { "anyOf": given } });
        json!({ "oneOf": given.into_iter().chain([none]).collect::<Vec<_>>() })
    }

    /// The schema of a field, with its rules in a request.
    pub(super) fn field(&mut self, field: &FieldDescriptor, side: Side) -> Value {
        let rules = match side {
            Side::Request => self.rules.field(field),
            Side::Answer => None,
        };
        let Some(rules) = rules else { return self.shape(field, side) };
        let mut schema = self.shape(field, side);
        let Some(members) = schema.as_object_mut() else { return schema };
        if field.is_list() {
            bounds(members, ["minItems", "maxItems"], rules.size);
            if rules.required {
                members.entry("minItems").or_insert(1.into());
            }
            if rules.unique {
                members.insert("uniqueItems".to_owned(), true.into());
            }
            members.entry("items").and_modify(|items| constrain(items, &rules.value));
        } else if field.is_map() {
            bounds(members, ["minProperties", "maxProperties"], rules.size);
            members.entry("additionalProperties").and_modify(|values| constrain(values, &rules.value));
            let mut names = json!({ "type": "string" });
            constrain(&mut names, &rules.key);
            members.insert("propertyNames".to_owned(), names);
        } else {
            constrain(&mut schema, &rules.value);
            if rules.required {
                is_given(&mut schema);
            }
        }
        schema
    }

    /// The schema of a field without rules.
    fn shape(&mut self, field: &FieldDescriptor, side: Side) -> Value {
        match field.kind() {
            Kind::Message(entry) if field.is_map() => {
                json!({ "type": "object", "additionalProperties": self.kind(&entry.map_entry_value_field().kind(), side) })
            }
            kind if field.is_list() => json!({ "type": "array", "items": self.kind(&kind, side) }),
            kind => self.kind(&kind, side),
        }
    }

    /// The schema of a field in a path: never empty.
    pub(super) fn in_path(&mut self, field: &FieldDescriptor) -> Value {
        let mut schema = self.in_text(field);
        if let Some(members) = schema.as_object_mut()
            && members.get("type") == Some(&json!("string"))
            && !members.contains_key("enum")
        {
            members.insert("minLength".to_owned(), 1.into());
        }
        schema
    }

    /// The schema of a field in the query.
    pub(super) fn in_query(&mut self, field: &FieldDescriptor) -> Value {
        self.in_text(field)
    }

    /// The schema of a field as text: whole numbers are plain numbers there, and no text holds a NUL.
    fn in_text(&mut self, field: &FieldDescriptor) -> Value {
        let mut schema = self.field(field, Side::Request);
        let single = if field.is_list() { schema.get_mut("items") } else { Some(&mut schema) };
        let Some(members) = single.and_then(Value::as_object_mut) else { return schema };
        if members.get("type") == Some(&json!(["string", "integer"])) {
            members.insert("type".to_owned(), "integer".into());
            members.remove("pattern");
        } else if members.get("type") == Some(&json!("string")) && !members.contains_key("format") {
            members.entry("pattern").or_insert("^[^\\u0000]*$".into());
        }
        schema
    }

    fn kind(&mut self, kind: &Kind, side: Side) -> Value {
        let whole = |format: &str, low: i128, high: i128| json!({ "type": "integer", "format": format, "minimum": number(low), "maximum": number(high) });
        // A reader that knows doubles only would lose digits of these.
        let long = |format: &str, low: i128, high: i128| match side {
            Side::Answer => json!({ "type": "string", "format": format, "pattern": "^-?[0-9]+$" }),
            Side::Request => {
                json!({ "type": ["string", "integer"], "format": format, "pattern": "^-?(0|[1-9][0-9]*)$", "minimum": number(low), "maximum": number(high) })
            }
        };
        match kind {
            Kind::Double | Kind::Float => json!({ "anyOf": [{ "type": "number" }, { "type": "string", "enum": ["NaN", "Infinity", "-Infinity"] }] }),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => whole("int32", i32::MIN.into(), i32::MAX.into()),
            Kind::Uint32 | Kind::Fixed32 => whole("uint32", 0, u32::MAX.into()),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => long("int64", i64::MIN.into(), i64::MAX.into()),
            Kind::Uint64 | Kind::Fixed64 => long("uint64", 0, u64::MAX.into()),
            Kind::Bool => json!({ "type": "boolean" }),
            Kind::String => json!({ "type": "string" }),
            Kind::Bytes => json!({ "type": "string", "contentEncoding": "base64", "pattern": "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$" }),
            Kind::Message(message) => self.reference(message, side),
            Kind::Enum(kind) => self.enumeration(kind),
        }
    }

    fn enumeration(&mut self, kind: &EnumDescriptor) -> Value {
        if kind.full_name() == "google.protobuf.NullValue" {
            return json!({ "type": "null" });
        }
        let name = kind.full_name().to_owned();
        if !self.done.contains_key(&name) {
            let names: Vec<Value> = kind.values().map(|value| value.name().into()).collect();
            self.done.insert(name.clone(), json!({ "type": "string", "enum": names, "description": self.comments.enumeration(kind) }));
        }
        json!({ "$ref": format!("#/components/schemas/{name}") })
    }
}

fn number(bound: i128) -> Value {
    i64::try_from(bound).map(Value::from).or_else(|_| u64::try_from(bound).map(Value::from)).unwrap_or(Value::Null)
}

fn bounds(schema: &mut Map<String, Value>, names: [&str; 2], range: Option<Range>) {
    let Some(range) = range else { return };
    for (name, bound) in names.iter().zip([range.low(), range.high()]) {
        schema.extend(bound.map(|bound| ((*name).to_owned(), number(bound))));
    }
}

/// Adds the rules of a scalar to its schema.
fn constrain(schema: &mut Value, rules: &validate::Rules) {
    let Some(schema) = schema.as_object_mut() else { return };
    bounds(schema, ["minimum", "maximum"], rules.value);
    bounds(schema, ["minLength", "maxLength"], rules.length);
    if let Some(pattern) = &rules.pattern {
        // The dialect of schemas has no classes by property; this one is the only one in use.
        let pattern = pattern.text.replace("\\p{Cc}", "\\u0000-\\u001f\\u007f-\\u009f");
        schema.insert("pattern".to_owned(), format!("^(?:{pattern})$").into());
    }
}

/// Keeps a text from being empty, because empty counts as absent.
fn is_given(schema: &mut Value) {
    if let Some(schema) = schema.as_object_mut()
        && schema.get("type") == Some(&json!("string"))
        && !schema.contains_key("format")
    {
        schema.entry("minLength").or_insert(1.into());
    }
}
