//! The OpenAPI 3.1 document, from the descriptors that the gateway itself is built from.
//!
//! It promises what is checked: rules of the schema become constraints on requests. Answers carry no constraints beyond
//! their shape, because clients must take what a later version adds. Field names are the JSON ones; that proto names, and
//! numbers of enum values, are taken too is said once, in words.

mod comments;
mod schema;

use super::routes::{Binding, Body, Routes, Variable};
use super::template::Segment;
use crate::api;
use crate::pb;
use comments::Comments;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value as Proto};
use schema::{Schemas, Side};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// What is said of the API as a whole.
const DESCRIPTION: &str = "Backups of Redis and Valkey as long-running operations.\n\n\
    Every call that changes something answers at once with an Operation; ask for it again until `done` is true. Requests take the names shown here and the proto names \
    (`page_size`) alike, enum values by name or number, and 64-bit numbers as text or number. Unknown names are refused. `Idempotency-Key` makes a changing call safe to \
    repeat; `Grpc-Timeout`, digits and one of `H M S m u n`, bounds a call. Errors are google.rpc.Status.";

/// Codes that every call can answer with, and what each says.
const REFUSALS: [(&str, &str); 14] = [
    ("400", "The request is malformed, or the state of what it names forbids it."),
    ("401", "Credentials are missing or not valid."),
    ("403", "The caller may not do this."),
    ("404", "There is no such thing."),
    ("408", "The body did not arrive in time."),
    ("409", "There is such a thing already."),
    ("413", "The body is too long."),
    ("414", "Path and query are too long."),
    ("415", "The body is not JSON."),
    ("429", "There are too many requests or operations; try again later."),
    ("499", "The call or its operation was cancelled."),
    ("500", "The service made a mistake."),
    ("503", "The store cannot be read or written; nothing was started."),
    ("504", "The time of Grpc-Timeout is over."),
];

/// The call that reads an operation, by its id in the document.
const OPERATION_GET: &str = "yandex_cloud_operation_OperationService_Get";

/// The code of a call that is not built.
const NOT_BUILT: (&str, &str) = ("501", "The call is not built; the message says what to use.");

/// The document for these routes.
pub(super) fn document(routes: &Routes) -> Value {
    let mut schemas = Schemas::new(Comments::of(&pb::commented_pool()));
    let mut paths = Map::new();
    let mut tags = BTreeSet::new();
    for binding in routes.bindings() {
        let operation = operation(binding, &mut schemas);
        let item = paths.entry(path(binding)).or_insert_with(|| Value::Object(Map::new()));
        if let Some(item) = item.as_object_mut() {
            for verb in verbs(binding) {
                item.insert(verb, operation.clone());
            }
        }
        tags.insert(binding.method.parent_service().full_name().to_owned());
    }
    let status = schemas.reference(&message("google.rpc.Status"), Side::Answer);
    let refusals = REFUSALS.iter().chain([&NOT_BUILT]).map(|(code, text)| {
        let content = json!({ "application/json": { "schema": status } });
        ((*code).to_owned(), json!({ "description": text, "content": content }))
    });
    let responses: Map<String, Value> = refusals.collect();
    let tags: Vec<Value> = tags.iter().map(|name| json!({ "name": name, "description": schemas.comments().service(name) })).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Redkeep",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "bearer": [] }, {}],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas.finish(),
            "responses": responses,
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer", "description": "Needed where the service asks who is calling." } },
        },
    })
}

fn message(name: &str) -> MessageDescriptor {
    pb::pool().get_message_by_name(name).expect("the schema has it")
}

/// The members of a path item that a binding fills.
fn verbs(binding: &Binding) -> Vec<String> {
    const OPEN: [&str; 5] = ["get", "put", "post", "delete", "patch"];
    match binding.verb.to_ascii_lowercase().as_str() {
        "*" => OPEN.iter().map(|verb| (*verb).to_owned()).collect(),
        verb => vec![verb.to_owned()],
    }
}

/// The path of a binding with its wildcards by name: those of a variable by the variable's JSON name.
fn path(binding: &Binding) -> String {
    let mut path = String::new();
    let mut wildcard = 0;
    for segment in &binding.template.segments {
        match segment {
            Segment::Literal(text) => path.push_str(&format!("/{text}")),
            Segment::One | Segment::Many => {
                path.push_str(&format!("/{{{}}}", name_of_wildcard(binding, wildcard).0));
                wildcard += 1;
            }
        }
    }
    if let Some(verb) = &binding.template.verb {
        path.push(':');
        path.push_str(verb);
    }
    path
}

/// The name of a wildcard, and the variable that it fills alone.
fn name_of_wildcard(binding: &Binding, wildcard: usize) -> (String, Option<&Variable>) {
    use super::routes::Part;
    let owner = binding.variables.iter().find(|variable| variable.parts.contains(&Part::Wildcard(wildcard)));
    match owner {
        Some(variable) if variable.parts.len() == 1 => (json_path(&variable.field), Some(variable)),
        Some(variable) => (format!("{}{wildcard}", json_path(&variable.field)), None),
        None => (format!("any{wildcard}"), None),
    }
}

fn json_path(field: &[FieldDescriptor]) -> String {
    field.iter().map(FieldDescriptor::json_name).collect::<Vec<_>>().join(".")
}

fn operation(binding: &Binding, schemas: &mut Schemas) -> Value {
    let method = &binding.method;
    let service = method.parent_service();
    let call = format!("/{}/{}", service.full_name(), method.name());
    let not_built = api::not_built(&call);
    let (kinds, kinds_text) = operation_types(binding, schemas).unzip();
    let mut description = vec![schemas.comments().method(method)];
    description.extend(kinds_text);
    description.extend(not_built.map(|sentence| format!("This call is not built: {sentence}.")));

    let mut responses = Map::new();
    responses.insert("200".to_owned(), answer(binding, schemas));
    let codes = REFUSALS.iter().map(|(code, _)| *code).filter(|code| *code != "415" || binding.body != Body::None);
    for code in codes.chain(not_built.map(|_| NOT_BUILT.0)) {
        responses.insert(code.to_owned(), json!({ "$ref": format!("#/components/responses/{code}") }));
    }
    let id = format!("{}_{}", service.full_name().replace('.', "_"), method.name());
    let mut operation = json!({
        "operationId": if binding.is_primary { id } else { format!("{id}_{}", binding.verb.to_ascii_lowercase()) },
        "tags": [service.full_name()],
        "description": description.join("\n\n"),
        "parameters": parameters(binding, schemas),
        "responses": responses,
    });
    if let Some(fields) = operation.as_object_mut() {
        if let Some(body) = body(binding, schemas) {
            fields.insert("requestBody".to_owned(), body);
        }
        if let Some(kinds) = kinds {
            fields.insert("x-operation".to_owned(), kinds);
        }
    }
    operation
}

/// What the schema says of the operation that a call starts; `None` for a call that starts none.
fn operation_option(binding: &Binding) -> Option<DynamicMessage> {
    let option = pb::pool().get_extension_by_name("yandex.cloud.api.operation")?;
    let options = binding.method.options();
    if !options.has_extension(&option) {
        return None;
    }
    match &*options.get_extension(&option) {
        Proto::Message(kinds) => Some(kinds.clone()),
        _ => None,
    }
}

/// What an operation's metadata and response hold: for programs, and in words.
fn operation_types(binding: &Binding, schemas: &mut Schemas) -> Option<(Value, String)> {
    let kinds = operation_option(binding)?;
    let named = |field: &str| {
        let name = kinds.get_field_by_name(field)?.as_str()?.to_owned();
        let near = format!("{}.{name}", binding.method.parent_file().package_name());
        pb::pool().get_message_by_name(&near).or_else(|| pb::pool().get_message_by_name(&name))
    };
    let (metadata, response) = (named("metadata")?, named("response")?);
    let text = format!("`metadata` of the operation is a {}, its `response` a {}.", metadata.full_name(), response.full_name());
    let kinds = json!({ "metadata": schemas.reference(&metadata, Side::Answer), "response": schemas.reference(&response, Side::Answer) });
    Some((kinds, text))
}

fn answer(binding: &Binding, schemas: &mut Schemas) -> Value {
    let output = binding.method.output();
    let schema = match &binding.response {
        Some(field) => schemas.field(field, Side::Answer),
        None => schemas.reference(&output, Side::Answer),
    };
    if !binding.method.is_server_streaming() {
        let mut answer = json!({ "description": "The answer.", "content": { "application/json": { "schema": schema } } });
        if let (Some(_), Some(members)) = (operation_option(binding), answer.as_object_mut()) {
            let link = json!({ "operationId": OPERATION_GET, "parameters": { "operationId": "$response.body#/id" } });
            members.insert("links".to_owned(), json!({ "operation": link }));
        }
        return answer;
    }
    let status = schemas.reference(&message("google.rpc.Status"), Side::Answer);
    let line = json!({ "type": "object", "properties": { "result": schema, "error": status } });
    json!({
        "description": "One JSON object a line, each with a `result`; an `error` can only be the last line.",
        "content": { "application/x-ndjson": { "schema": line } },
    })
}

fn parameters(binding: &Binding, schemas: &mut Schemas) -> Vec<Value> {
    let wildcards = binding.template.segments.iter().filter(|segment| !matches!(segment, Segment::Literal(_))).count();
    let mut parameters = Vec::new();
    for wildcard in 0..wildcards {
        let (name, variable) = name_of_wildcard(binding, wildcard);
        let field = variable.and_then(|variable| variable.field.last());
        let mut parameter =
            json!({ "name": name, "in": "path", "required": true, "schema": field.map_or(json!({ "type": "string" }), |field| schemas.in_path(field)) });
        if let (Some(field), Some(members)) = (field, parameter.as_object_mut()) {
            members.insert("description".to_owned(), schemas.comments().field(field).into());
        }
        parameters.push(parameter);
    }
    if binding.body != Body::Whole {
        let mut owners = Vec::new();
        query(binding, &binding.method.input(), &mut owners, schemas, &mut parameters);
    }
    if operation_option(binding).is_some() {
        parameters.push(json!({
            "name": "Idempotency-Key",
            "in": "header",
            "description": "Makes the call safe to repeat: the same key with the same request gives the same Operation.",
            "schema": { "type": "string", "pattern": "^[!-~]{1,128}$" },
        }));
    }
    parameters
}

/// The leaves of a message that the query may fill.
fn query(binding: &Binding, message: &MessageDescriptor, owners: &mut Vec<FieldDescriptor>, schemas: &mut Schemas, parameters: &mut Vec<Value>) {
    // A message inside itself has no end; its leaves below are taken all the same, and told nowhere.
    if owners.iter().any(|owner| owner.parent_message() == message) {
        return;
    }
    for field in message.fields() {
        let is_body = owners.is_empty() && matches!(&binding.body, Body::Field(body) if *body == field);
        if field.is_map() || is_body {
            continue;
        }
        owners.push(field.clone());
        let is_in_path = binding.variables.iter().any(|variable| variable.field == *owners);
        match field.kind() {
            _ if is_in_path => {}
            Kind::Message(inner) if schema::is_plain(&inner) => {
                if !field.is_list() {
                    query(binding, &inner, owners, schemas, parameters);
                }
            }
            Kind::Message(inner) if !schema::is_text(&inner) => {}
            _ => {
                let required = schemas.is_required(&field) && owners.len() == 1;
                parameters.push(json!({
                    "name": json_path(owners),
                    "in": "query",
                    "required": required,
                    "description": schemas.comments().field(&field),
                    "schema": schemas.in_query(&field),
                }));
            }
        }
        owners.pop();
    }
}

fn body(binding: &Binding, schemas: &mut Schemas) -> Option<Value> {
    let (schema, required) = match &binding.body {
        Body::None => return None,
        Body::Field(field) => (schemas.field(field, Side::Request), schemas.is_required(field)),
        Body::Whole => {
            let in_path: Vec<FieldDescriptor> =
                binding.variables.iter().filter(|variable| variable.field.len() == 1).flat_map(|variable| variable.field.clone()).collect();
            let schema = schemas.without(&binding.method.input(), &in_path);
            let required = schema.get("required").is_some();
            (schema, required)
        }
    };
    Some(json!({ "required": required, "content": { "application/json": { "schema": schema } } }))
}

#[cfg(test)]
mod tests;
