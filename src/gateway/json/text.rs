//! From bytes to a JSON value, within limits that are checked before anything is allocated.

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// Deepest nesting, in levels of objects and arrays.
pub(in crate::gateway) const DEPTH: usize = 100;

/// Most values in one text. A value takes about a hundred bytes of memory, however short its text is.
pub(in crate::gateway) const VALUES: usize = 1 << 16;

/// Reads one JSON value. An object that names a member twice is refused.
///
/// # Errors
///
/// In words, with line and column where there is one.
pub(in crate::gateway) fn parse(bytes: &[u8]) -> Result<Value, String> {
    measure(bytes)?;
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict.deserialize(&mut deserializer).map_err(|fault| fault.to_string())?;
    deserializer.end().map_err(|fault| fault.to_string())?;
    Ok(value)
}

/// Holds a text against the limits, in one pass and in no memory.
fn measure(bytes: &[u8]) -> Result<(), String> {
    let (mut depth, mut values) = (0_usize, 1_usize);
    let (mut in_text, mut escaped) = (false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'[' | b'{' => {
                depth += 1;
                values += 1;
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' => values += 1,
            _ => {}
        }
        if depth > DEPTH {
            return Err(format!("it nests deeper than {DEPTH} levels"));
        }
        if values > VALUES {
            return Err(format!("it holds more than {VALUES} values"));
        }
    }
    Ok(())
}

/// A value whose objects name each member once.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        Number::from_f64(number).map(Value::Number).ok_or_else(|| E::custom("a number is out of range"))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = elements.next_element_seed(Strict)? {
            list.push(element);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(A::Error::custom(format!("the member \"{}\" is given twice", super::shown(&name))));
            }
            object.insert(name, members.next_value_seed(Strict)?);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sound_texts() {
        let text = br#" {"a": [1, -2, 3.5, 18446744073709551615, true, null, "\u00e9\ud83d\ude00\"[["], "b": {}} "#;
        assert_eq!(parse(text).unwrap(), serde_json::json!({"a": [1, -2, 3.5, u64::MAX, true, null, "é😀\"[["], "b": {}}));
    }

    #[test]
    fn broken_texts() {
        let table: [(&[u8], &str); 24] = [
            (b"", "EOF"),
            (b" ", "EOF"),
            (b"{", "EOF"),
            (b"{\"a\":1", "EOF"),
            (b"{\"a\"}", "expected `:`"),
            (b"{\"a\":}", "expected value"),
            (b"{a:1}", "key must be a string"),
            (b"{'a':1}", "key must be a string"),
            (b"{\"a\":1,}", "trailing comma"),
            (b"[1,]", "trailing comma"),
            (b"{} {}", "trailing characters"),
            (b"{}x", "trailing characters"),
            (b"01", "invalid number"),
            (b"+1", "expected value"),
            (b".5", "expected value"),
            (b"1.", "EOF"),
            (b"1e400", "out of range"),
            (b"NaN", "expected"),
            (b"// a\n1", "expected value"),
            (b"\"\\ud800\"", "hex escape"),
            (b"\"\xff\"", "unicode"),
            (b"\"\n\"", "control character"),
            (b"\xef\xbb\xbf{}", "expected value"),
            (b"{\"a\":1,\"b\":2,\"a\":1}", "the member \"a\" is given twice"),
        ];
        for (text, words) in table {
            let fault = parse(text).unwrap_err();
            assert!(fault.contains(words), "{:?}: {fault}", String::from_utf8_lossy(text));
        }
        assert!(parse(br#"{"x":{"a":1,"\u0061":2}}"#).unwrap_err().contains("twice"), "names are compared after their escapes");
    }

    #[test]
    fn limits_hold_before_anything_is_built() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(parse(nested(DEPTH).as_bytes()).is_ok());
        assert!(parse(nested(DEPTH + 1).as_bytes()).unwrap_err().contains("100 levels"));
        assert!(parse("{\"a\":".repeat(200).as_bytes()).unwrap_err().contains("100 levels"));
        assert!(parse("[".repeat(4 << 20).as_bytes()).unwrap_err().contains("100 levels"));
        assert!(parse(format!("\"{}\"", "[".repeat(200)).as_bytes()).is_ok(), "brackets in a text are no levels");
        let long = |values: usize| format!("[{}]", vec!["0"; values].join(","));
        assert!(parse(long(VALUES - 1).as_bytes()).is_ok());
        assert!(parse(long(VALUES + 1).as_bytes()).unwrap_err().contains("65536 values"));
    }
}
