//! Goal: what is written is canonical, and what cannot be written is left out. What the reader can make is covered by its
//! tables; these are the rest.

use super::super::sample;
use super::*;
use crate::pb;
use prost::Message;
use prost_types::Any;

fn written(message: &DynamicMessage) -> String {
    String::from_utf8(super::message(message)).unwrap()
}

/// A message of ours as the gateway sees it.
fn ours<T: Message + prost::Name>(message: &T) -> DynamicMessage {
    let kind = pb::pool().get_message_by_name(&T::full_name()).unwrap();
    DynamicMessage::decode(kind, message.encode_to_vec().as_slice()).unwrap()
}

fn with(name: &str, value: Value) -> DynamicMessage {
    let mut message = DynamicMessage::new(sample::all());
    message.set_field_by_name(name, value);
    message
}

/// A well-known message with its first two fields set.
fn pair(name: &str, seconds: i64, nanos: i32) -> DynamicMessage {
    let kind = sample::all().get_field_by_name(name).unwrap().kind();
    let mut inner = DynamicMessage::new(kind.as_message().unwrap().clone());
    inner.set_field_by_number(1, Value::I64(seconds));
    inner.set_field_by_number(2, Value::I32(nanos));
    with(name, Value::Message(inner))
}

#[test]
fn numbers_and_texts() {
    assert_eq!(written(&with("double_value", Value::F64(0.1))), "{\"doubleValue\":0.1}");
    assert_eq!(written(&with("float_value", Value::F32(0.1))), "{\"floatValue\":0.1}");
    assert_eq!(written(&with("int64_value", Value::I64(i64::MIN))), "{\"int64Value\":\"-9223372036854775808\"}");
    assert_eq!(written(&with("string_value", Value::String("\u{7f}\u{1}\"\\/\u{2028}".into()))), "{\"stringValue\":\"\u{7f}\\u0001\\\"\\\\/\u{2028}\"}");
    assert_eq!(written(&with("nothing", Value::EnumNumber(1))), "{\"nothing\":null}");
}

#[test]
fn what_is_always_there() {
    let operation = pb::operation::Operation::default();
    assert_eq!(written(&ours(&operation)), "{\"done\":false}");
    let state = pb::own::OperationState { operation: Some(operation), ..Default::default() };
    assert_eq!(written(&ours(&state)), "{\"operation\":{\"done\":false}}");
    assert_eq!(written(&ours(&pb::own::ListBackupsResponse::default())), "{\"backups\":[]}");
    assert_eq!(written(&ours(&pb::managed::ListVersionsResponse::default())), "{\"version\":[]}");
    let page = pb::own::ListOperationsResponse { operations: vec![], next_page_token: "t".into() };
    assert_eq!(written(&ours(&page)), "{\"operations\":[],\"nextPageToken\":\"t\"}");
    assert_eq!(written(&ours(&pb::own::Backup::default())), "{}");
    assert_eq!(written(&ours(&pb::google::rpc::Status::default())), "{\"code\":0,\"message\":\"\"}");
}

#[test]
fn every_list_call_has_a_list_that_is_always_there() {
    for method in pb::pool().services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
        let output = method.output();
        assert_eq!(method.name().starts_with("List"), output.fields().any(|field| field.is_list() && is_always_there(&field)), "{}", method.full_name());
    }
}

#[test]
fn any_holds_what_is_known() {
    let any = |name: &str, value: Vec<u8>| Any { type_url: format!("type.googleapis.com/{name}"), value };
    let about = pb::managed::BackupClusterMetadata { cluster_id: "main".into(), ..Default::default() };
    let operation = pb::operation::Operation {
        id: "x".into(),
        done: true,
        metadata: Some(any("yandex.cloud.mdb.redis.v1.BackupClusterMetadata", about.encode_to_vec())),
        result: Some(pb::operation::operation::Result::Response(any("google.protobuf.Empty", vec![]))),
        ..Default::default()
    };
    assert_eq!(
        written(&ours(&operation)),
        "{\"id\":\"x\",\"done\":true,\"metadata\":{\"@type\":\"type.googleapis.com/yandex.cloud.mdb.redis.v1.BackupClusterMetadata\",\"clusterId\":\"main\"},\
         \"response\":{\"@type\":\"type.googleapis.com/google.protobuf.Empty\"}}"
    );
    for broken in [any("no.such.Type", vec![1]), any("redkeep.v1.Backup", vec![0xff]), Any::default()] {
        let operation = pb::operation::Operation { metadata: Some(broken.clone()), ..Default::default() };
        assert_eq!(written(&ours(&operation)), "{\"done\":false}");
        let status = pb::google::rpc::Status { code: 3, message: "m".into(), details: vec![broken, any("google.protobuf.Empty", vec![])] };
        let expected = "{\"code\":3,\"message\":\"m\",\"details\":[{\"@type\":\"type.googleapis.com/google.protobuf.Empty\"}]}";
        assert_eq!(written(&ours(&status)), expected);
    }
}

#[test]
fn any_in_any_ends_somewhere() {
    // Method: more layers than the limit, each of its own encoding, so that no reader of bytes sees the depth.
    let mut any = Any { type_url: "type.googleapis.com/google.protobuf.Empty".into(), value: vec![] };
    for _ in 0..150 {
        any = Any { type_url: "type.googleapis.com/google.protobuf.Any".into(), value: any.encode_to_vec() };
    }
    let operation = pb::operation::Operation { metadata: Some(any), ..Default::default() };
    assert_eq!(written(&ours(&operation)), "{\"done\":false}");
}

#[test]
fn times_out_of_range_are_left_out() {
    for (name, seconds, nanos) in [
        ("wk_timestamp", 253_402_300_800, 0),
        ("wk_timestamp", -62_135_596_801, 0),
        ("wk_timestamp", i64::MAX, 0),
        ("wk_timestamp", 0, -1),
        ("wk_timestamp", 0, 1_000_000_000),
        ("wk_duration", 315_576_000_001, 0),
        ("wk_duration", i64::MIN, 0),
        ("wk_duration", 1, -1),
        ("wk_duration", 0, i32::MIN),
    ] {
        assert_eq!(written(&pair(name, seconds, nanos)), "{}", "{name} {seconds} {nanos}");
    }
    assert_eq!(written(&pair("wk_duration", 0, -1_000)), "{\"wkDuration\":\"-0.000001s\"}");
    assert_eq!(written(&pair("wk_timestamp", 0, 0)), "{\"wkTimestamp\":\"1970-01-01T00:00:00Z\"}");
}

#[test]
fn one_field_alone() {
    let page = pb::own::ListBackupsResponse { backups: vec![pb::own::Backup { id: "x".into(), ..Default::default() }], next_page_token: String::new() };
    let page = ours(&page);
    let of = |name: &str| String::from_utf8(field(&page, &page.descriptor().get_field_by_name(name).unwrap())).unwrap();
    assert_eq!((of("backups").as_str(), of("next_page_token").as_str()), ("[{\"id\":\"x\"}]", "\"\""));
}
