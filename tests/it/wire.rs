//! What clients may rely on: the schema only grows, it follows the rules of the house, and it is documented.
//!
//! The schema that was promised is committed as `proto/redkeep.binpb.baseline`. To promise what was added since, run this
//! test with `REDKEEP_WRITE_BASELINE=1` and commit the file; that is refused while anything promised before is broken.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

use prost::Message as _;
use prost_reflect::{Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor, Value};
use redkeep::pb;
use std::collections::BTreeMap;
use std::{env, fs};

const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/proto/redkeep.binpb.baseline");

/// Fields that we added to messages of the other schema.
const ADDED: [(&str, &str, u32); 3] = [
    ("yandex.cloud.mdb.redis.v1.BackupClusterMetadata", "backup_id", 10001),
    ("yandex.cloud.mdb.redis.v1.BackupClusterMetadata", "progress", 10002),
    ("yandex.cloud.mdb.redis.v1.DeleteBackupMetadata", "progress", 10002),
];

/// First number that the other schema will not take.
const OURS_FROM: u32 = 10_000;

#[test]
fn what_was_promised_still_holds() {
    // Goal: no later change breaks a client. Method: the facts of the committed schema are facts of the present one.
    let present = promised(pb::DESCRIPTORS);
    let write = env::var_os("REDKEEP_WRITE_BASELINE").is_some_and(|it| it == "1");
    match fs::read(BASELINE) {
        Ok(baseline) => assert_eq!(broken(&baseline, &present), Vec::<String>::new()),
        Err(fault) => assert!(write, "{BASELINE}: {fault}"),
    }
    if write {
        fs::write(BASELINE, &present).unwrap();
    }
}

#[test]
fn every_break_is_seen() {
    // Goal: the checker can fail. Method: one edit at a time to a copy of the schema, and the fact that must be named.
    type Edit = fn(&mut DynamicMessage);
    let table: [(&str, Edit, &str); 19] = [
        ("message gone", |set| drop_item(file(set, BACKUP_SERVICE), "message_type", "CopyBackupMetadata"), "message redkeep.v1.CopyBackupMetadata"),
        (
            "message renamed",
            |set| rename(item(file(set, BACKUP_SERVICE), "message_type", "CopyBackupMetadata"), "CopyMetadata"),
            "message redkeep.v1.CopyBackupMetadata",
        ),
        ("field gone", |set| drop_item(hold(set), "field", "reason"), "field redkeep.v1.Hold 1"),
        ("field renamed", |set| rename(item(hold(set), "field", "reason"), "why"), "field redkeep.v1.Hold 1"),
        ("field renumbered", |set| put(item(hold(set), "field", "reason"), "number", Value::I32(9)), "field redkeep.v1.Hold 1"),
        ("type", |set| put(item(hold(set), "field", "reason"), "type", Value::EnumNumber(12)), "field redkeep.v1.Hold 1"),
        ("label", |set| put(item(hold(set), "field", "reason"), "label", Value::EnumNumber(3)), "field redkeep.v1.Hold 1"),
        ("json name", |set| put(item(hold(set), "field", "reason"), "json_name", text("why")), "field redkeep.v1.Hold 1"),
        ("type name", |set| put(item(hold(set), "field", "created_at"), "type_name", text(".google.rpc.Status")), "field redkeep.v1.Hold 3"),
        ("enum value gone", |set| drop_item(level(set), "value", "LOADED"), "value redkeep.v1.Backup.Level LOADED"),
        ("enum value renumbered", |set| put(item(level(set), "value", "LOADED"), "number", Value::I32(9)), "value redkeep.v1.Backup.Level LOADED"),
        ("service gone", |set| drop_item(file(set, BACKUP_SERVICE), "service", "BackupService"), "service redkeep.v1.BackupService"),
        ("method gone", |set| drop_item(service(set), "method", "Copy"), "method redkeep.v1.BackupService.Copy"),
        ("input", |set| put(method(set, "Copy"), "input_type", text(".redkeep.v1.GetBackupRequest")), "method redkeep.v1.BackupService.Copy"),
        ("output", |set| put(method(set, "Copy"), "output_type", text(".redkeep.v1.Backup")), "method redkeep.v1.BackupService.Copy"),
        ("streaming", |set| put(method(set, "Copy"), "server_streaming", Value::Bool(true)), "method redkeep.v1.BackupService.Copy"),
        (
            "path",
            |set| put(option(method(set, "Get"), "google.api.http"), "get", text("/redkeep/v2/backups/{backup_id}")),
            "http redkeep.v1.BackupService.Get GET /redkeep/v1/backups/{backup_id}",
        ),
        ("body", |set| put(option(method(set, "Copy"), "google.api.http"), "body", text("")), "http redkeep.v1.BackupService.Copy POST"),
        (
            "operation",
            |set| put(option(method(set, "Copy"), "yandex.cloud.api.operation"), "response", text("Hold")),
            "operation redkeep.v1.BackupService.Copy",
        ),
    ];
    let baseline = promised(pb::DESCRIPTORS);
    for (name, edit, fact) in table {
        let found = broken(&baseline, &altered(&baseline, edit));
        assert!(found.iter().any(|line| line.starts_with(fact)), "{name}: {found:?}");
    }
}

#[test]
fn additions_are_no_break() {
    type Edit = fn(&mut DynamicMessage);
    let table: [(&str, Edit); 4] = [
        ("message", |set| drop_item(file(set, BACKUP), "message_type", "ShardArtifact")),
        ("field", |set| drop_item(hold(set), "field", "reason")),
        ("enum value", |set| drop_item(level(set), "value", "LOADED")),
        ("method", |set| drop_item(service(set), "method", "Copy")),
    ];
    let present = promised(pb::DESCRIPTORS);
    assert_eq!(broken(&present, &present), Vec::<String>::new());
    for (name, edit) in table {
        // What is gone from the older copy was added since.
        let older = altered(&present, |set| {
            // A field that names the message would not resolve.
            if name == "message" {
                drop_item(item(file(set, BACKUP), "message_type", "Backup"), "field", "shards");
            }
            edit(set);
        });
        assert_eq!(broken(&older, &present), Vec::<String>::new(), "{name}");
        assert_ne!(broken(&present, &older), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn the_other_schema_has_only_the_agreed_additions() {
    let mut added = Vec::new();
    for message in messages(pb::pool()).filter(|message| message.package_name().starts_with("yandex.")) {
        let high = message.fields().filter(|field| field.number() > OURS_FROM);
        added.extend(high.map(|field| (message.full_name().to_owned(), field.name().to_owned(), field.number())));
    }
    added.sort();
    assert_eq!(added, ADDED.map(|(message, field, number)| (message.to_owned(), field.to_owned(), number)));
}

#[test]
fn every_long_call_of_ours_says_what_its_operation_carries() {
    let mut seen = 0;
    for method in methods(pb::pool()).filter(|method| method.output().full_name() == "yandex.cloud.operation.Operation") {
        let package = method.parent_file().package_name().to_owned();
        if !package.starts_with("redkeep.") {
            continue;
        }
        seen += 1;
        let (metadata, response) = carried(&method).unwrap_or_else(|| panic!("{}", method.full_name()));
        let metadata = resolve(&package, &metadata).unwrap_or_else(|| panic!("{}: metadata {metadata}", method.full_name()));
        let progress = metadata.get_field_by_name("progress").unwrap_or_else(|| panic!("{}: {} has no progress", method.full_name(), metadata.full_name()));
        assert_eq!(progress.kind().as_message().map(MessageDescriptor::full_name), Some("redkeep.v1.Progress"), "{}", method.full_name());
        assert!(resolve(&package, &response).is_some(), "{}: response {response}", method.full_name());
    }
    assert!(seen >= 10, "{seen}");
}

#[test]
fn every_call_has_a_route_whose_variables_are_fields_of_the_request() {
    for method in methods(pb::pool()) {
        let routes = routes(&method);
        assert!(!routes.is_empty(), "{} has no route", method.full_name());
        for Route { verb, path, body } in routes {
            let variables: Vec<&str> = path.split('{').skip(1).map(|rest| rest.split(['}', '=']).next().unwrap_or_default()).collect();
            for variable in &variables {
                let field = method.input().get_field_by_name(variable).unwrap_or_else(|| panic!("{} {path}: {variable}", method.full_name()));
                assert!(field.kind() == Kind::String && field.cardinality() != Cardinality::Repeated, "{} {path}: {variable}", method.full_name());
            }
            assert!(path.starts_with('/') && path.matches('}').count() == variables.len(), "{} {path}", method.full_name());
            assert!(body.is_empty() || body == "*" || method.input().get_field_by_name(&body).is_some(), "{} {path}: {body}", method.full_name());
            assert!(body.is_empty() || !["GET", "DELETE"].contains(&verb), "{} {path}: {verb} with a body", method.full_name());
        }
    }
}

#[test]
fn everything_has_a_comment() {
    let mut bare = Vec::new();
    let pool = &pb::commented_pool();
    for message in messages(pool) {
        note(&mut bare, message.parent_file(), message.path(), message.full_name());
    }
    for kind in pool.all_enums().filter(|kind| is_ours(kind.package_name())) {
        note(&mut bare, kind.parent_file(), kind.path(), kind.full_name());
    }
    for service in pool.services().filter(|service| is_ours(service.package_name())) {
        note(&mut bare, service.parent_file(), service.path(), service.full_name());
    }
    for method in methods(pool) {
        note(&mut bare, method.parent_file(), method.path(), method.full_name());
    }
    assert_eq!(bare, Vec::<String>::new());
}

fn note(bare: &mut Vec<String>, file: prost_reflect::FileDescriptor, path: &[i32], name: &str) {
    let source = file.file_descriptor_proto().source_code_info.as_ref();
    let place = source.and_then(|source| source.location.iter().find(|place| place.path == path));
    if place.is_none_or(|place| place.leading_comments().trim().is_empty()) {
        bare.push(name.to_owned());
    }
}

// --- what is promised ---

/// Facts that `baseline` states and `present` does not, one line each.
fn broken(baseline: &[u8], present: &[u8]) -> Vec<String> {
    let present = facts(&pool_of(present));
    let mut broken = Vec::new();
    for (subject, was) in facts(&pool_of(baseline)) {
        match present.get(&subject) {
            Some(is) if *is == was => {}
            Some(is) => broken.push(format!("{subject}: was `{was}`, is `{is}`")),
            None => broken.push(format!("{subject}: was `{was}`, is gone")),
        }
    }
    broken
}

/// What a client may rely on: each thing by its kind and name, and what is fixed about it.
fn facts(pool: &DescriptorPool) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    for message in messages(pool) {
        facts.insert(format!("message {}", message.full_name()), String::new());
        for field in message.fields() {
            facts.insert(format!("field {} {}", message.full_name(), field.number()), shape(&field));
        }
    }
    for kind in pool.all_enums().filter(|kind| is_ours(kind.package_name())) {
        facts.insert(format!("enum {}", kind.full_name()), String::new());
        for value in kind.values() {
            facts.insert(format!("value {} {}", kind.full_name(), value.name()), value.number().to_string());
        }
    }
    for service in pool.services().filter(|service| is_ours(service.package_name())) {
        facts.insert(format!("service {}", service.full_name()), String::new());
    }
    for method in methods(pool) {
        let stream = |is: bool| if is { "stream " } else { "" };
        let (input, output) = (method.input(), method.output());
        let (sent, got) = (stream(method.is_client_streaming()), stream(method.is_server_streaming()));
        facts.insert(format!("method {}", method.full_name()), format!("{sent}{} -> {got}{}", input.full_name(), output.full_name()));
        for Route { verb, path, body } in routes(&method) {
            facts.insert(format!("http {} {verb} {path}", method.full_name()), body);
        }
        if let Some((metadata, response)) = carried(&method) {
            facts.insert(format!("operation {}", method.full_name()), format!("{metadata}, {response}"));
        }
    }
    facts
}

fn shape(field: &FieldDescriptor) -> String {
    let oneof = field.containing_oneof().map_or_else(String::new, |oneof| format!(" of {}", oneof.name()));
    let packed = if field.is_packed() { " packed" } else { "" };
    format!("{} as {}: {:?} {:?}{packed}{oneof}", field.name(), field.json_name(), field.cardinality(), field.kind())
}

struct Route {
    verb: &'static str,
    path: String,
    body: String,
}

/// The HTTP forms of a call, the first one first.
fn routes(method: &MethodDescriptor) -> Vec<Route> {
    let http = method.parent_pool().get_extension_by_name("google.api.http").expect("google/api/annotations.proto is compiled in");
    if !method.options().has_extension(&http) {
        return Vec::new();
    }
    let option = method.options().get_extension(&http).into_owned();
    let rule = option.as_message().unwrap();
    let more = rule.get_field_by_name("additional_bindings").unwrap().into_owned();
    let more = more.as_list().unwrap().iter().filter_map(Value::as_message);
    std::iter::once(rule).chain(more).flat_map(route).collect()
}

fn route(rule: &DynamicMessage) -> Option<Route> {
    let verbs = [("get", "GET"), ("put", "PUT"), ("post", "POST"), ("delete", "DELETE"), ("patch", "PATCH")];
    let (field, verb) = verbs.into_iter().find(|(field, _)| rule.has_field_by_name(field))?;
    Some(Route { verb, path: string(rule, field), body: string(rule, "body") })
}

/// Names of the metadata and the response that the operation of a call carries.
fn carried(method: &MethodDescriptor) -> Option<(String, String)> {
    let operation = method.parent_pool().get_extension_by_name("yandex.cloud.api.operation").expect("yandex/cloud/api/operation.proto is compiled in");
    let options = method.options();
    options.has_extension(&operation).then(|| {
        let option = options.get_extension(&operation).into_owned();
        let option = option.as_message().unwrap();
        (string(option, "metadata"), string(option, "response"))
    })
}

/// The message that a call's option names: in its own package, or by its full name.
fn resolve(package: &str, name: &str) -> Option<MessageDescriptor> {
    pb::pool().get_message_by_name(&format!("{package}.{name}")).or_else(|| pb::pool().get_message_by_name(name))
}

fn string(message: &DynamicMessage, field: &str) -> String {
    message.get_field_by_name(field).unwrap().as_str().unwrap().to_owned()
}

fn messages(pool: &DescriptorPool) -> impl Iterator<Item = MessageDescriptor> + '_ {
    pool.all_messages().filter(|message| is_ours(message.package_name()) && !message.is_map_entry())
}

fn methods(pool: &DescriptorPool) -> impl Iterator<Item = MethodDescriptor> + '_ {
    pool.services().filter(|service| is_ours(service.package_name())).flat_map(|service| service.methods().collect::<Vec<_>>())
}

fn is_ours(package: &str) -> bool {
    package.starts_with("redkeep.") || package.starts_with("yandex.")
}

// --- descriptor sets ---

/// The files of a set whose packages we promise, without comments.
fn promised(set: &[u8]) -> Vec<u8> {
    let mut set = decoded(set);
    let files = list(&mut set, "file");
    files.retain(|file| is_ours(&string(file.as_message().unwrap(), "package")));
    for file in files.iter_mut().filter_map(Value::as_message_mut) {
        file.clear_field_by_name("source_code_info");
    }
    set.encode_to_vec()
}

/// A pool of promised files, and of the present form of those that they import from elsewhere.
fn pool_of(promised: &[u8]) -> DescriptorPool {
    let mut set = decoded(pb::DESCRIPTORS);
    list(&mut set, "file").retain(|file| !is_ours(&string(file.as_message().unwrap(), "package")));
    let mut bytes = set.encode_to_vec();
    // Encoded messages merge by concatenation.
    bytes.extend_from_slice(promised);
    DescriptorPool::decode(bytes.as_slice()).unwrap()
}

fn decoded(set: &[u8]) -> DynamicMessage {
    DynamicMessage::decode(pb::pool().get_message_by_name("google.protobuf.FileDescriptorSet").unwrap(), set).unwrap()
}

// --- edits ---

const BACKUP: &str = "redkeep/v1/backup.proto";
const BACKUP_SERVICE: &str = "redkeep/v1/backup_service.proto";

fn altered(set: &[u8], edit: impl FnOnce(&mut DynamicMessage)) -> Vec<u8> {
    let mut set = decoded(set);
    edit(&mut set);
    set.encode_to_vec()
}

fn list<'a>(owner: &'a mut DynamicMessage, field: &str) -> &'a mut Vec<Value> {
    owner.get_field_by_name_mut(field).unwrap().as_list_mut().unwrap()
}

fn item<'a>(owner: &'a mut DynamicMessage, field: &str, name: &str) -> &'a mut DynamicMessage {
    list(owner, field).iter_mut().filter_map(Value::as_message_mut).find(|item| string(item, "name") == name).unwrap()
}

fn drop_item(owner: &mut DynamicMessage, field: &str, name: &str) {
    list(owner, field).retain(|item| string(item.as_message().unwrap(), "name") != name);
}

fn put(owner: &mut DynamicMessage, field: &str, value: Value) {
    owner.set_field_by_name(field, value);
}

fn rename(owner: &mut DynamicMessage, name: &str) {
    put(owner, "name", text(name));
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn file<'a>(set: &'a mut DynamicMessage, name: &str) -> &'a mut DynamicMessage {
    item(set, "file", name)
}

fn hold(set: &mut DynamicMessage) -> &mut DynamicMessage {
    item(file(set, BACKUP), "message_type", "Hold")
}

fn level(set: &mut DynamicMessage) -> &mut DynamicMessage {
    item(item(file(set, BACKUP), "message_type", "Backup"), "enum_type", "Level")
}

fn service(set: &mut DynamicMessage) -> &mut DynamicMessage {
    item(file(set, BACKUP_SERVICE), "service", "BackupService")
}

fn method<'a>(set: &'a mut DynamicMessage, name: &str) -> &'a mut DynamicMessage {
    item(service(set), "method", name)
}

fn option<'a>(method: &'a mut DynamicMessage, name: &str) -> &'a mut DynamicMessage {
    let extension = pb::pool().get_extension_by_name(name).unwrap();
    method.get_field_by_name_mut("options").unwrap().as_message_mut().unwrap().get_extension_mut(&extension).as_message_mut().unwrap()
}
