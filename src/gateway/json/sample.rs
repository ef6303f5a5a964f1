//! A message with a field of every type, which no schema of ours has.

use prost_reflect::{DescriptorPool, MessageDescriptor};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto, FileDescriptorProto, MessageOptions, OneofDescriptorProto,
};

const WELL_KNOWN: [&str; 8] = ["any", "duration", "empty", "field_mask", "struct", "timestamp", "wrappers", "type"];

fn field(name: &str, number: i32, kind: Type, type_name: &str) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.into()),
        number: Some(number),
        label: Some(Label::Optional as i32),
        r#type: Some(kind as i32),
        type_name: (!type_name.is_empty()).then(|| type_name.into()),
        ..Default::default()
    }
}

fn many(field: FieldDescriptorProto) -> FieldDescriptorProto {
    FieldDescriptorProto { label: Some(Label::Repeated as i32), ..field }
}

fn entry(name: &str, key: Type, value: FieldDescriptorProto) -> DescriptorProto {
    let value = FieldDescriptorProto { name: Some("value".into()), number: Some(2), ..value };
    DescriptorProto {
        name: Some(name.into()),
        field: vec![field("key", 1, key, ""), value],
        options: Some(MessageOptions { map_entry: Some(true), ..Default::default() }),
        ..Default::default()
    }
}

/// `test.All`.
pub(in crate::gateway) fn all() -> MessageDescriptor {
    let scalars = [
        ("int32_value", Type::Int32),
        ("int64_value", Type::Int64),
        ("uint32_value", Type::Uint32),
        ("uint64_value", Type::Uint64),
        ("sint32_value", Type::Sint32),
        ("sint64_value", Type::Sint64),
        ("fixed32_value", Type::Fixed32),
        ("fixed64_value", Type::Fixed64),
        ("sfixed32_value", Type::Sfixed32),
        ("sfixed64_value", Type::Sfixed64),
        ("float_value", Type::Float),
        ("double_value", Type::Double),
        ("bool_value", Type::Bool),
        ("string_value", Type::String),
        ("bytes_value", Type::Bytes),
    ];
    let mut fields: Vec<_> = scalars.iter().zip(1..).map(|((name, kind), number)| field(name, number, *kind, "")).collect();
    fields.push(field("color", 20, Type::Enum, ".test.Color"));
    fields.push(many(field("texts", 21, Type::String, "")));
    fields.push(many(field("numbers", 22, Type::Int64, "")));
    fields.push(field("inner", 23, Type::Message, ".test.All"));
    fields.push(many(field("inners", 24, Type::Message, ".test.All")));
    fields.push(many(field("labels", 25, Type::Message, ".test.All.LabelsEntry")));
    fields.push(many(field("counts", 26, Type::Message, ".test.All.CountsEntry")));
    fields.push(many(field("flags", 27, Type::Message, ".test.All.FlagsEntry")));
    let messages =
        ["Timestamp", "Duration", "FieldMask", "Any", "Struct", "Value", "ListValue", "Empty", "Int64Value", "BoolValue", "StringValue", "DoubleValue"];
    for (name, number) in messages.iter().zip(30..) {
        fields.push(field(&format!("wk_{}", name.to_lowercase()), number, Type::Message, &format!(".google.protobuf.{name}")));
    }
    fields.push(field("nothing", 45, Type::Enum, ".google.protobuf.NullValue"));
    fields.push(many(field("values", 46, Type::Message, ".google.protobuf.Value")));
    fields.push(many(field("anys", 47, Type::Message, ".google.protobuf.Any")));
    fields.push(FieldDescriptorProto { oneof_index: Some(0), ..field("one", 50, Type::String, "") });
    fields.push(FieldDescriptorProto { oneof_index: Some(0), ..field("other", 51, Type::Int32, "") });
    fields.push(FieldDescriptorProto { json_name: Some("config_5_0".into()), ..field("config_50", 52, Type::Int32, "") });
    fields.push(FieldDescriptorProto { oneof_index: Some(1), proto3_optional: Some(true), ..field("maybe", 53, Type::Int32, "") });
    let message = DescriptorProto {
        name: Some("All".into()),
        field: fields,
        nested_type: vec![
            entry("LabelsEntry", Type::String, field("", 0, Type::String, "")),
            entry("CountsEntry", Type::Int32, field("", 0, Type::Int64, "")),
            entry("FlagsEntry", Type::Bool, field("", 0, Type::Message, ".test.All")),
        ],
        oneof_decl: vec![
            OneofDescriptorProto { name: Some("choice".into()), ..Default::default() },
            OneofDescriptorProto { name: Some("_maybe".into()), ..Default::default() },
        ],
        ..Default::default()
    };
    let value = |name: &str, number| EnumValueDescriptorProto { name: Some(name.into()), number: Some(number), ..Default::default() };
    let color = EnumDescriptorProto {
        name: Some("Color".into()),
        value: vec![value("COLOR_UNSPECIFIED", 0), value("RED", 1), value("BLUE", -2)],
        ..Default::default()
    };
    let file = FileDescriptorProto {
        name: Some("test.proto".into()),
        package: Some("test".into()),
        dependency: WELL_KNOWN.iter().map(|name| format!("google/protobuf/{name}.proto")).collect(),
        message_type: vec![message],
        enum_type: vec![color],
        syntax: Some("proto3".into()),
        ..Default::default()
    };
    let mut pool = DescriptorPool::global();
    pool.add_file_descriptor_proto(file).unwrap();
    pool.get_message_by_name("test.All").unwrap()
}
