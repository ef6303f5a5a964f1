//! Goal: every type takes what the mapping allows and nothing else. Method: tables over a message with a field of each type;
//! what is taken is shown by the canonical writer, which has tables of its own.

use super::super::{sample, text as json_text, write};
use super::*;

fn read(json: &str) -> Result<DynamicMessage, Fault> {
    message(&sample::all(), &json_text::parse(json.as_bytes()).unwrap())
}

/// What was taken, as canonical JSON, or what was refused.
fn told(json: &str) -> String {
    match read(json) {
        Ok(message) => String::from_utf8(write::message(&message)).unwrap(),
        Err(fault) => format!("{} {}", fault.field, fault.what),
    }
}

/// Holds that each value of a field is taken as another, or refused when there is none.
fn field(name: &str, table: &[(&str, Option<&str>)]) {
    let json_name = sample::all().get_field_by_name(name).unwrap().json_name().to_owned();
    for (given, expected) in table {
        let answer = told(&format!("{{\"{json_name}\":{given}}}"));
        match expected {
            Some("") => assert_eq!(answer, "{}", "{name}: {given}"),
            Some(expected) => assert_eq!(answer, format!("{{\"{json_name}\":{expected}}}"), "{name}: {given}"),
            None => assert!(answer.starts_with(name), "{name}: {given} was taken as {answer}"),
        }
    }
}

#[test]
fn whole_numbers() {
    for name in ["int32_value", "sint32_value", "sfixed32_value"] {
        field(name, &[("2147483647", Some("2147483647")), ("-2147483648", Some("-2147483648")), ("2147483648", None), ("-2147483649", None)]);
    }
    for name in ["uint32_value", "fixed32_value"] {
        field(name, &[("4294967295", Some("4294967295")), ("-1", None), ("4294967296", None)]);
    }
    for name in ["int64_value", "sint64_value", "sfixed64_value"] {
        let table = [
            ("9223372036854775807", Some("\"9223372036854775807\"")),
            ("\"9223372036854775807\"", Some("\"9223372036854775807\"")),
            ("-9223372036854775808", Some("\"-9223372036854775808\"")),
            ("9007199254740993", Some("\"9007199254740993\"")),
            ("9223372036854775808", None),
            ("\"-9223372036854775809\"", None),
            ("9223372036854775807.0", None),
            ("1e19", None),
        ];
        field(name, &table);
    }
    for name in ["uint64_value", "fixed64_value"] {
        field(name, &[("18446744073709551615", Some("\"18446744073709551615\"")), ("-1", None), ("18446744073709551616", None)]);
    }
    let spellings = [
        ("1.0", Some("1")),
        ("1e5", Some("100000")),
        ("1E+2", Some("100")),
        ("100e-2", Some("1")),
        ("-0", Some("")),
        ("0", Some("")),
        ("null", Some("")),
        ("\"7\"", Some("7")),
        ("\"-7\"", Some("-7")),
        ("\"1e5\"", Some("100000")),
        ("\"1.0\"", Some("1")),
        ("1.5", None),
        ("\"1.5\"", None),
        ("\"07\"", None),
        ("\"+7\"", None),
        ("\" 7\"", None),
        ("\"7 \"", None),
        ("\"0x7\"", None),
        ("\"\"", None),
        ("\"seven\"", None),
        ("\"NaN\"", None),
        ("true", None),
        ("[]", None),
        ("{}", None),
    ];
    field("int32_value", &spellings);
}

#[test]
fn floating_numbers() {
    let table = [
        ("1.5", Some("1.5")),
        ("\"1.5\"", Some("1.5")),
        ("\"-1.5e3\"", Some("-1500.0")),
        ("\"NaN\"", Some("\"NaN\"")),
        ("\"Infinity\"", Some("\"Infinity\"")),
        ("\"-Infinity\"", Some("\"-Infinity\"")),
        ("\"nan\"", None),
        ("\"inf\"", None),
        ("\"+Infinity\"", None),
        ("\"infinity\"", None),
        ("\"1.\"", None),
        ("\".5\"", None),
        ("\" 1\"", None),
        ("\"1e999\"", None),
        ("true", None),
    ];
    field("double_value", &table);
    field("float_value", &table);
    field("double_value", &[("1e300", Some("1e+300"))]);
    field("float_value", &[("1e300", None), ("-1e39", None), ("3.4028234e38", Some("3.4028235e+38"))]);
}

#[test]
fn texts_bytes_and_truth() {
    field("bool_value", &[("true", Some("true")), ("false", Some("")), ("\"true\"", None), ("1", None), ("null", Some(""))]);
    field("string_value", &[("\"a\\u0000é😀\"", Some("\"a\\u0000é😀\"")), ("\"\"", Some("")), ("1", None), ("true", None), ("[]", None)]);
    let table = [
        ("\"+/8=\"", Some("\"+/8=\"")),
        ("\"+/8\"", Some("\"+/8=\"")),
        ("\"-_8\"", Some("\"+/8=\"")),
        ("\"-_8=\"", Some("\"+/8=\"")),
        ("\"\"", Some("")),
        ("\"a\"", None),
        ("\"a b=\"", None),
        ("\"é\"", None),
        ("5", None),
    ];
    field("bytes_value", &table);
}

#[test]
fn enumerations() {
    let table = [
        ("\"RED\"", Some("\"RED\"")),
        ("1", Some("\"RED\"")),
        ("-2", Some("\"BLUE\"")),
        ("1.0", Some("\"RED\"")),
        ("77", Some("77")),
        ("0", Some("")),
        ("\"COLOR_UNSPECIFIED\"", Some("")),
        ("null", Some("")),
        ("\"red\"", None),
        ("\"1\"", None),
        ("\"\"", None),
        ("1.5", None),
        ("2147483648", None),
        ("true", None),
    ];
    field("color", &table);
    field("nothing", &[("null", Some("")), ("\"NULL_VALUE\"", Some("")), ("\"x\"", None)]);
}

#[test]
fn lists_and_maps() {
    field("texts", &[("[\"b\",\"a\"]", Some("[\"b\",\"a\"]")), ("[]", Some("")), ("null", Some("")), ("\"a\"", None), ("{}", None)]);
    assert_eq!(told("{\"texts\":[\"a\",null]}"), "texts[1] must not be null");
    assert_eq!(told("{\"numbers\":[1,\"x\"]}"), "numbers[1] must be a number");
    assert_eq!(told("{\"inners\":[{},{\"inner\":{\"texts\":[1]}}]}"), "inners[1].inner.texts[0] must be a text, it is a number");
    field("labels", &[("{\"b\":\"2\",\"a\":\"1\"}", Some("{\"a\":\"1\",\"b\":\"2\"}")), ("{}", Some("")), ("null", Some("")), ("[]", None)]);
    assert_eq!(told("{\"labels\":{\"a\":null}}"), "labels[\"a\"] must not be null");
    field("counts", &[("{\"-1\":\"5\",\"10\":6,\"2\":7}", Some("{\"-1\":\"5\",\"2\":\"7\",\"10\":\"6\"}")), ("{\"01\":1}", None), ("{\"x\":1}", None)]);
    field("flags", &[("{\"true\":{},\"false\":{\"int32Value\":1}}", Some("{\"false\":{\"int32Value\":1},\"true\":{}}")), ("{\"True\":{}}", None)]);
}

#[test]
fn names_of_fields() {
    assert_eq!(told("{\"int32Value\":1}"), told("{\"int32_value\":1}"));
    assert_eq!(told("{\"config_5_0\":1}"), told("{\"config_50\":1}"));
    assert_eq!(told("{\"int32Value\":1,\"int32_value\":1}"), "int32_value is given twice, under both of its names");
    assert_eq!(told("{\"int32Value\":null,\"int32_value\":1}"), "int32_value is given twice, under both of its names");
    for (json, words) in [
        ("{\"Int32Value\":1}", "Int32Value is no field of the request"),
        ("{\"inner\":{\"nonsense\":1}}", "inner.nonsense is no field of the request"),
        ("{\"config50\":1}", "config50 is no field of the request"),
        ("{\"\":1}", " is no field of the request"),
        ("{\"a\\nb\":1}", "a?b is no field of the request"),
    ] {
        assert_eq!(told(json), words);
    }
    assert!(told(&format!("{{\"{}\":1}}", "x".repeat(10_000))).len() < 150, "what is repeated is bounded");
}

#[test]
fn one_of_several() {
    assert_eq!(told("{\"one\":\"a\"}"), "{\"one\":\"a\"}");
    assert_eq!(told("{\"one\":null,\"other\":1}"), "{\"other\":1}");
    assert_eq!(told("{\"one\":\"\",\"other\":1}"), "other cannot be given together with one");
    assert_eq!(told("{\"maybe\":0}"), "{\"maybe\":0}");
}

#[test]
fn times() {
    let table = [
        ("\"2026-01-31T12:00:00Z\"", Some("\"2026-01-31T12:00:00Z\"")),
        ("\"2026-01-31T12:00:00.1Z\"", Some("\"2026-01-31T12:00:00.100Z\"")),
        ("\"2026-01-31T12:00:00.123456789Z\"", Some("\"2026-01-31T12:00:00.123456789Z\"")),
        ("\"2026-01-31T12:00:00.000001Z\"", Some("\"2026-01-31T12:00:00.000001Z\"")),
        ("\"2026-01-31T12:00:00+05:30\"", Some("\"2026-01-31T06:30:00Z\"")),
        ("\"2026-01-31T12:00:00-01:00\"", Some("\"2026-01-31T13:00:00Z\"")),
        ("\"0001-01-01T00:00:00Z\"", Some("\"0001-01-01T00:00:00Z\"")),
        ("\"9999-12-31T23:59:59.999999999Z\"", Some("\"9999-12-31T23:59:59.999999999Z\"")),
        ("null", Some("")),
        ("\"0000-12-31T23:59:59Z\"", None),
        ("\"0001-01-01T00:00:00+00:01\"", None),
        ("\"9999-12-31T23:59:59-00:01\"", None),
        ("\"10000-01-01T00:00:00Z\"", None),
        ("\"2026-01-31t12:00:00Z\"", None),
        ("\"2026-01-31T12:00:00z\"", None),
        ("\"2026-01-31 12:00:00Z\"", None),
        ("\"2026-01-31T12:00:00\"", None),
        ("\"2026-01-31T12:00:00.1234567890Z\"", None),
        ("\"2026-01-31T12:00:00.Z\"", None),
        ("\"2026-02-30T12:00:00Z\"", None),
        ("\"2026-01-31T24:00:00Z\"", None),
        ("\"2026-01-31\"", None),
        ("\"\"", None),
        ("1769860800", None),
    ];
    field("wk_timestamp", &table);
    let table = [
        ("\"1.5s\"", Some("\"1.500s\"")),
        ("\"-1.5s\"", Some("\"-1.500s\"")),
        ("\"-0.5s\"", Some("\"-0.500s\"")),
        ("\"0s\"", Some("\"0s\"")),
        ("\"1.000001s\"", Some("\"1.000001s\"")),
        ("\"1.000000001s\"", Some("\"1.000000001s\"")),
        ("\"315576000000s\"", Some("\"315576000000s\"")),
        ("\"-315576000000s\"", Some("\"-315576000000s\"")),
        ("\"315576000000.1s\"", None),
        ("\"315576000001s\"", None),
        ("\"1\"", None),
        ("\"s\"", None),
        ("\"-s\"", None),
        ("\"+1s\"", None),
        ("\"--1s\"", None),
        ("\"1.s\"", None),
        ("\".5s\"", None),
        ("\"1.0000000001s\"", None),
        ("\"1 s\"", None),
        ("\"1ms\"", None),
        ("5", None),
    ];
    field("wk_duration", &table);
}

#[test]
fn masks_of_fields() {
    let table = [
        ("\"configSpec.backupWindowStart,name\"", Some("\"configSpec.backupWindowStart,name\"")),
        ("\"config_spec.backup_window_start\"", Some("\"configSpec.backupWindowStart\"")),
        ("\"configSpec.redisConfig_5_0\"", Some("\"configSpec.redisConfig_5_0\"")),
        ("\"\"", Some("\"\"")),
        ("\"a,,b\"", None),
        ("\"a.\"", None),
        ("\"a b\"", None),
        ("\"a,b*\"", None),
        ("[\"a\"]", None),
    ];
    field("wk_fieldmask", &table);
    let paths = |json: &str| {
        let message = read(&format!("{{\"wkFieldmask\":{json}}}")).unwrap();
        let mask = message.get_field_by_name("wk_fieldmask").unwrap();
        let paths = mask.as_message().unwrap().get_field_by_number(1).unwrap();
        paths.as_list().unwrap().iter().map(|path| path.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(paths("\"configSpec.backupWindowStart,expires_at\""), ["config_spec.backup_window_start", "expires_at"]);
}

#[test]
fn wrappers_and_plain_json() {
    field("wk_int64value", &[("\"5\"", Some("\"5\"")), ("5", Some("\"5\"")), ("0", Some("\"0\"")), ("null", Some("")), ("{}", None), ("{\"value\":5}", None)]);
    field("wk_boolvalue", &[("false", Some("false")), ("null", Some("")), ("\"false\"", None)]);
    field("wk_stringvalue", &[("\"\"", Some("\"\"")), ("1", None)]);
    field("wk_doublevalue", &[("\"NaN\"", Some("\"NaN\"")), ("1", Some("1.0"))]);
    field("wk_struct", &[("{\"b\":[1,null,{}],\"a\":\"x\"}", Some("{\"a\":\"x\",\"b\":[1.0,null,{}]}")), ("[]", None), ("5", None)]);
    field("wk_value", &[("null", Some("null")), ("[true]", Some("[true]")), ("\"x\"", Some("\"x\""))]);
    field("wk_listvalue", &[("[null]", Some("[null]")), ("{}", None)]);
    field("values", &[("[null,1]", Some("[null,1.0]"))]);
    field("wk_empty", &[("{}", Some("{}")), ("{\"a\":1}", None), ("[]", None), ("null", Some(""))]);
    field("inner", &[("{}", Some("{}")), ("null", Some("")), ("[]", None), ("\"\"", None)]);
}

#[test]
fn messages_of_any_type() {
    let url = "type.googleapis.com";
    for (json, expected) in [
        (format!("{{\"@type\":\"{url}/test.All\",\"int32Value\":1}}"), format!("{{\"@type\":\"{url}/test.All\",\"int32Value\":1}}")),
        (format!("{{\"int32_value\":1,\"@type\":\"{url}/test.All\"}}"), format!("{{\"@type\":\"{url}/test.All\",\"int32Value\":1}}")),
        (format!("{{\"@type\":\"{url}/google.protobuf.Empty\"}}"), format!("{{\"@type\":\"{url}/google.protobuf.Empty\"}}")),
        (format!("{{\"@type\":\"{url}/google.protobuf.Empty\",\"value\":{{}}}}"), format!("{{\"@type\":\"{url}/google.protobuf.Empty\"}}")),
        (
            format!("{{\"value\":\"1.5s\",\"@type\":\"{url}/google.protobuf.Duration\"}}"),
            format!("{{\"@type\":\"{url}/google.protobuf.Duration\",\"value\":\"1.500s\"}}"),
        ),
    ] {
        assert_eq!(told(&format!("{{\"wkAny\":{json}}}")), format!("{{\"wkAny\":{expected}}}"));
    }
    for json in [
        "{}".to_owned(),
        "{\"@type\":5}".to_owned(),
        "{\"@type\":\"test.All\"}".to_owned(),
        format!("{{\"@type\":\"{url}/no.such.Type\"}}"),
        format!("{{\"@type\":\"{url}/test.All\",\"nonsense\":1}}"),
        format!("{{\"@type\":\"{url}/google.protobuf.Duration\"}}"),
        format!("{{\"@type\":\"{url}/google.protobuf.Duration\",\"value\":\"1s\",\"more\":1}}"),
        format!("{{\"@type\":\"{url}/google.protobuf.Empty\",\"value\":5}}"),
    ] {
        assert!(told(&format!("{{\"wkAny\":{json}}}")).starts_with("wk_any"), "{json}");
    }
}

#[test]
fn what_reads_text_refuses_more() {
    // Method: each kind of field with texts of a query or path.
    let all = sample::all();
    let kind = |name: &str| all.get_field_by_name(name).unwrap().kind();
    for (name, texts) in [
        ("int32_value", ["0", "-7", "2147483647"].as_slice()),
        ("uint64_value", &["18446744073709551615"]),
        ("bool_value", &["true", "false"]),
        ("string_value", &["", " a\"%é/😀"]),
        ("bytes_value", &["-_8", "+/8="]),
        ("double_value", &["1.5", "-1e3", "NaN"]),
        ("color", &["RED", "1", "-2"]),
        ("wk_timestamp", &["2026-01-31T12:00:00Z"]),
        ("wk_duration", &["1.5s"]),
        ("wk_fieldmask", &["a,b.cD", ""]),
        ("wk_int64value", &["-5"]),
        ("wk_stringvalue", &[""]),
    ] {
        for given in texts {
            assert!(text(&kind(name), given).is_ok(), "{name}: {given}");
        }
    }
    for (name, texts) in [
        ("int32_value", ["", "+7", "07", "-", "--7", "7.0", "1e5", " 7", "2147483648", "٣", "99999999999999999999999999999999999999999"].as_slice()),
        ("uint32_value", &["-1"]),
        ("bool_value", &["", "1", "t", "TRUE", "True", "yes"]),
        ("bytes_value", &["a"]),
        ("double_value", &["", "nan", "1."]),
        ("color", &["", "red", "GREEN", "01"]),
        ("wk_timestamp", &["", "\"2026-01-31T12:00:00Z\"", "now"]),
        ("wk_duration", &["", "1"]),
        ("wk_int64value", &["", "x"]),
        ("wk_struct", &["{}"]),
        ("inner", &["{}", ""]),
    ] {
        for given in texts {
            assert!(text(&kind(name), given).is_err(), "{name}: {given}");
        }
    }
}
