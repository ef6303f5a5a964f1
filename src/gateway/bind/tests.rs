//! Goal: each field takes its value from one source, and contradictions are refused. Method: rules made up for the purpose on
//! methods that exist, and for the types a method whose request has a field of each.

use super::super::json::{sample, write};
use super::super::routes::{Found, Routes};
use super::*;
use crate::pb;
use crate::pb::google::api::{CustomHttpPattern, HttpRule, http_rule};
use prost_reflect::MethodDescriptor;
use prost_types::{FileDescriptorProto, MethodDescriptorProto, ServiceDescriptorProto};

/// `test.Service.Call`, from `test.All` to `test.All`.
fn call() -> MethodDescriptor {
    let mut pool = sample::all().parent_pool().clone();
    let all = || Some(".test.All".to_owned());
    let method = MethodDescriptorProto { name: Some("Call".into()), input_type: all(), output_type: all(), ..Default::default() };
    let service = ServiceDescriptorProto { name: Some("Service".into()), method: vec![method], ..Default::default() };
    let file = FileDescriptorProto {
        name: Some("service.proto".into()),
        package: Some("test".into()),
        dependency: vec!["test.proto".into()],
        service: vec![service],
        syntax: Some("proto3".into()),
        ..Default::default()
    };
    pool.add_file_descriptor_proto(file).unwrap();
    pool.get_service_by_name("test.Service").unwrap().methods().next().unwrap()
}

fn update_backup() -> MethodDescriptor {
    pb::pool().get_service_by_name("redkeep.v1.BackupService").unwrap().methods().find(|method| method.name() == "Update").unwrap()
}

/// Binds a request under one rule; gives canonical JSON, or what is refused.
fn bound(method: &MethodDescriptor, template: &str, body_rule: &str, target: &str, body: &str) -> String {
    let pattern = http_rule::Pattern::Custom(CustomHttpPattern { kind: "*".into(), path: template.into() });
    let mut routes = Routes::default();
    routes.add(method, &HttpRule { pattern: Some(pattern), body: body_rule.into(), ..Default::default() }).unwrap();
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let Found::Call(binding, values) = routes.find("ANY", path) else { return "no match".to_owned() };
    match request(binding, &values, query, body.as_bytes(), &["alt".to_owned()].into()) {
        Ok(message) => String::from_utf8(write::message(&message)).unwrap(),
        Err(fault) => format!("{}: {}", fault.field, fault.what),
    }
}

#[test]
fn fields_of_the_path() {
    for (template, target, expected) in [
        ("/a/{string_value}", "/a/x", "{\"stringValue\":\"x\"}"),
        ("/a/{string_value}", "/a/%20%22%25%2F%3A%D1%8F+", "{\"stringValue\":\" \\\"%/:я+\"}"),
        ("/a/{string_value}", "/a/%252F", "{\"stringValue\":\"%2F\"}"),
        ("/a/{string_value}", "/a/..", "{\"stringValue\":\"..\"}"),
        ("/a/{string_value}", "/a/?x", "no match"),
        ("/a/{string_value}", "/a/%", "string_value: has a broken percent escape"),
        ("/a/{string_value}", "/a/%ff", "string_value: is not UTF-8"),
        ("/a/{string_value}", "/a/x%00", "string_value: must not hold a NUL character"),
        ("/a/{int32_value}", "/a/-2147483648", "{\"int32Value\":-2147483648}"),
        ("/a/{int32_value}", "/a/2147483648", "int32_value: is out of range"),
        ("/a/{int32_value}", "/a/x", "int32_value: must be a whole number"),
        ("/a/{uint64_value}", "/a/18446744073709551615", "{\"uint64Value\":\"18446744073709551615\"}"),
        ("/a/{bool_value}", "/a/true", "{\"boolValue\":true}"),
        ("/a/{bool_value}", "/a/1", "bool_value: must be true or false"),
        ("/a/{color}", "/a/RED", "{\"color\":\"RED\"}"),
        ("/a/{color}", "/a/1", "{\"color\":\"RED\"}"),
        ("/a/{color}", "/a/GREEN", "color: has no value \"GREEN\""),
        ("/a/{double_value}", "/a/-1.5", "{\"doubleValue\":-1.5}"),
        ("/a/{inner.string_value}/{int32_value}", "/a/x/5", "{\"int32Value\":5,\"inner\":{\"stringValue\":\"x\"}}"),
        ("/a/{string_value=p/*/q/*}", "/a/p/1%2F%41/q/%20", "{\"stringValue\":\"p/1%2FA/q/ \"}"),
        ("/a/{string_value=**}", "/a/x/y%2Fz", "{\"stringValue\":\"x/y%2Fz\"}"),
        ("/a/{string_value=**}", "/a/x%2Fy", "{\"stringValue\":\"x%2Fy\"}"),
        ("/a/{string_value=**}", "/a", "{}"),
        ("/a/{string_value=fixed}", "/a/fixed", "{\"stringValue\":\"fixed\"}"),
    ] {
        assert_eq!(bound(&call(), template, "", target, ""), expected, "{template} {target}");
    }
}

#[test]
fn fields_of_the_query() {
    for (query, expected) in [
        ("", "{}"),
        ("&&", "{}"),
        ("alt=json&int32Value=1", "{\"int32Value\":1}"),
        ("int32Value=1", "{\"int32Value\":1}"),
        ("int32_value=1", "{\"int32Value\":1}"),
        ("int32%56alue=1", "{\"int32Value\":1}"),
        ("config_5_0=1", "{\"config_5_0\":1}"),
        ("config_50=1", "{\"config_5_0\":1}"),
        ("config50=1", "config50: is no parameter of this call"),
        ("Int32Value=1", "Int32Value: is no parameter of this call"),
        ("int32Value=1&int32Value=1", "int32_value: is given twice"),
        ("int32Value=1&int32_value=2", "int32_value: is given twice"),
        ("int32Value=", "int32_value: must be a whole number"),
        ("int32Value", "int32_value: must be a whole number"),
        ("stringValue=", "{}"),
        ("stringValue", "{}"),
        ("stringValue=a+b%2Bc", "{\"stringValue\":\"a b+c\"}"),
        ("stringValue=a;int32Value=1", "{\"stringValue\":\"a;int32Value=1\"}"),
        ("stringValue=a=b", "{\"stringValue\":\"a=b\"}"),
        ("stringValue=a?b", "{\"stringValue\":\"a?b\"}"),
        ("stringValue=%zz", "stringValue: has a broken percent escape"),
        ("stringValue=%ff", "stringValue: is not UTF-8"),
        ("stringValue=%00", "stringValue: must not hold a NUL character"),
        ("%zz=1", "%zz: has a broken percent escape"),
        ("boolValue=true", "{\"boolValue\":true}"),
        ("boolValue=t", "bool_value: must be true or false"),
        ("color=BLUE", "{\"color\":\"BLUE\"}"),
        ("color=-2", "{\"color\":\"BLUE\"}"),
        ("bytesValue=-_8", "{\"bytesValue\":\"+/8=\"}"),
        ("doubleValue=-Infinity", "{\"doubleValue\":\"-Infinity\"}"),
        ("texts=b&texts=a&texts=", "{\"texts\":[\"b\",\"a\",\"\"]}"),
        ("texts=a,b", "{\"texts\":[\"a,b\"]}"),
        ("numbers=1&numbers=2", "{\"numbers\":[\"1\",\"2\"]}"),
        ("numbers=1,2", "numbers: must be a whole number"),
        ("wkTimestamp=2026-01-31T12:00:00.5Z", "{\"wkTimestamp\":\"2026-01-31T12:00:00.500Z\"}"),
        ("wkTimestamp=2026-01-31T12:00:00%2B01:00", "{\"wkTimestamp\":\"2026-01-31T11:00:00Z\"}"),
        ("wkDuration=1.5s", "{\"wkDuration\":\"1.500s\"}"),
        ("wkFieldmask=a.bC,d_e", "{\"wkFieldmask\":\"a.bC,dE\"}"),
        ("wkInt64value=0", "{\"wkInt64value\":\"0\"}"),
        ("wkStringvalue=", "{\"wkStringvalue\":\"\"}"),
        ("wkBoolvalue=1", "wk_boolvalue: must be true or false"),
        ("wkStruct=1", "wk_struct: is a message; give its fields one by one, as NAME.FIELD"),
        ("wkAny=1", "wk_any: is a message; give its fields one by one, as NAME.FIELD"),
        ("inner.int32Value=1&inner.string_value=x", "{\"inner\":{\"int32Value\":1,\"stringValue\":\"x\"}}"),
        ("inner.inner.texts=x&inner.inner.texts=y", "{\"inner\":{\"inner\":{\"texts\":[\"x\",\"y\"]}}}"),
        ("inner.int32Value=1&inner.int32_value=1", "inner.int32_value: is given twice"),
        ("inner=1", "inner: is a message; give its fields one by one, as NAME.FIELD"),
        ("inner.=1", "inner.: is no parameter of this call"),
        ("int32Value.x=1", "int32Value.x: is no parameter of this call"),
        ("texts.x=1", "texts.x: is no parameter of this call"),
        ("inners.int32Value=1", "inners.int32Value: is no parameter of this call"),
        ("wkTimestamp.seconds=1", "wkTimestamp.seconds: is no parameter of this call"),
        ("labels=1", "labels: is a map and cannot be given in the query"),
        ("labels[a]=1", "labels[a]: is no parameter of this call"),
        ("labels.a=1", "labels.a: is no parameter of this call"),
        ("one=a&other=1", "other: cannot be given together with one"),
        ("maybe=0", "{\"maybe\":0}"),
        ("nonsense=1", "nonsense: is no parameter of this call"),
        ("=1", ": is no parameter of this call"),
        ("prettyPrint=true", "prettyPrint: is no parameter of this call"),
    ] {
        assert_eq!(bound(&call(), "/a", "", &format!("/a?{query}"), ""), expected, "{query}");
    }
    let deep = format!("/a?{}int32Value=1", "inner.".repeat(1000));
    assert!(bound(&call(), "/a", "", &deep, "").ends_with("is no parameter of this call"), "a path has a limit");
    assert!(bound(&call(), "/a", "", &format!("/a?{}int32Value=1", "inner.".repeat(15)), "").starts_with("{\"inner\""));
}

#[test]
fn a_twin_of_a_field_of_the_path() {
    let twin = |query: &str| bound(&call(), "/a/{string_value}/{int32_value}", "", &format!("/a/x/5?{query}"), "");
    let sound = "{\"int32Value\":5,\"stringValue\":\"x\"}";
    for query in ["stringValue=x", "string_value=x&int32Value=5", "stringValue=", "stringValue=%78"] {
        assert_eq!(twin(query), sound, "{query}");
    }
    assert_eq!(twin("stringValue=y"), "string_value: differs from the one in the path");
    assert_eq!(twin("string_value=X"), "string_value: differs from the one in the path");
    assert_eq!(twin("int32Value=6"), "int32_value: differs from the one in the path");

    let twin = |body: &str| bound(&update_backup(), "/b/{backup_id}", "*", "/b/x", body);
    for body in ["", "{}", "{\"backupId\":\"x\"}", "{\"backup_id\":\"x\"}", "{\"backupId\":null}", "{\"backupId\":\"\"}"] {
        assert_eq!(twin(body), "{\"backupId\":\"x\"}", "{body}");
    }
    assert_eq!(twin("{\"backupId\":\"y\"}"), "backup_id: differs from the one in the path");
    let nested = |body: &str| bound(&call(), "/a/{inner.string_value}", "*", "/a/x", body);
    assert_eq!(nested("{\"inner\":{\"int32Value\":1}}"), "{\"inner\":{\"int32Value\":1,\"stringValue\":\"x\"}}");
    assert_eq!(nested("{\"inner\":{\"stringValue\":\"y\"}}"), "inner.string_value: differs from the one in the path");
}

#[test]
fn bodies() {
    let whole = |target: &str, body: &str| bound(&update_backup(), "/b/{backup_id}", "*", target, body);
    assert_eq!(whole("/b/x", "{\"name\":\"n\",\"updateMask\":\"name,expiresAt\"}"), "{\"backupId\":\"x\",\"updateMask\":\"name,expiresAt\",\"name\":\"n\"}");
    assert_eq!(whole("/b/x?name=n", "{}"), "name: is no parameter of this call");
    assert_eq!(whole("/b/x?backupId=x", "{}"), "backupId: is no parameter of this call");
    assert_eq!(whole("/b/x", "{\"nonsense\":1}"), "nonsense: is no field of the request");
    for body in ["null", "[]", "5", "\"x\"", "true"] {
        assert_eq!(whole("/b/x", body), ": the body must be a JSON object", "{body}");
    }
    for body in [" ", "{", "{}}", "{} {}", "{\"name\":\"a\",\"name\":\"b\"}", "\u{feff}{}", "name=n"] {
        assert!(whole("/b/x", body).starts_with(": the body is no valid JSON: "), "{body}");
    }

    let field = |target: &str, body: &str| bound(&call(), "/a/{string_value}", "inner", target, body);
    assert_eq!(field("/a/x?int32Value=1", "{\"int32Value\":2}"), "{\"int32Value\":1,\"stringValue\":\"x\",\"inner\":{\"int32Value\":2}}");
    assert_eq!(field("/a/x", ""), "{\"stringValue\":\"x\"}");
    assert_eq!(field("/a/x", "null"), "{\"stringValue\":\"x\"}");
    assert_eq!(field("/a/x", "[]"), "inner: must be an object, it is an array");
    assert_eq!(field("/a/x?inner.int32Value=1", "{}"), "inner.int32Value: is no parameter of this call");

    assert_eq!(bound(&call(), "/a", "", "/a", "nonsense that is not read"), "{}");
}
