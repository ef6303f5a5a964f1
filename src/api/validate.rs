//! Whether a request keeps the rules that the schema states.
//!
//! Owns the walk through a request and the words of the refusal. The rules are options of the `.proto` files; nothing here
//! knows a message by name. What a field means, and whether the thing that it names exists, is the handlers' business.

mod plan;
mod range;

pub use plan::{Field, Pattern, Rules, Schema};
pub use range::Range;

use crate::pb;
use plan::{Plan, Plans};
use prost_reflect::{DynamicMessage, MapKey, Value};
use range::Unit;
use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

/// Most faults that a refusal names.
const VIOLATIONS: usize = 64;

/// Most bytes of text in the details of a refusal. They travel in trailers, and many clients take 8 KiB of those in all.
const VIOLATIONS_BYTES: usize = 4 << 10;

/// Most characters of a map's key that a refusal repeats.
const KEY_CHARACTERS: usize = 64;

/// Checks an encoded message against the rules of the schema if it is the request of some call; any other passes.
///
/// # Errors
///
/// `INVALID_ARGUMENT` when the bytes are no such message, or when a rule is broken: the message names the first field, the
/// details (`google.rpc.BadRequest`) name each. `INTERNAL` when the schema holds a rule that means nothing.
pub fn request(name: &str, bytes: &[u8]) -> Result<(), Status> {
    static PLANS: LazyLock<Plans> = LazyLock::new(|| Plans::read(pb::pool()));
    check(&PLANS, name, bytes)
}

fn check(plans: &Plans, name: &str, bytes: &[u8]) -> Result<(), Status> {
    let Some(plan) = plans.of_request(name) else { return Ok(()) };
    let message =
        DynamicMessage::decode(plan.message.clone(), bytes).map_err(|fault| Status::invalid_argument(format!("the request is no valid {name}: {fault}")))?;
    let mut walk = Walk { plans, violations: Vec::new(), room_bytes: VIOLATIONS_BYTES, full: false };
    walk.message(plan, &message, &Path::Top)?;
    walk.verdict()
}

/// Where in the request a value stands.
#[derive(Clone, Copy)]
enum Path<'a> {
    Top,
    Field(&'a Path<'a>, &'a str),
    Element(&'a Path<'a>, usize),
    Entry(&'a Path<'a>, &'a MapKey),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Top => Ok(()),
            Self::Field(Path::Top, name) => f.write_str(name),
            Self::Field(owner, name) => write!(f, "{owner}.{name}"),
            Self::Element(list, index) => write!(f, "{list}[{index}]"),
            Self::Entry(map, MapKey::String(key)) => match key.char_indices().nth(KEY_CHARACTERS) {
                Some((end, _)) => write!(f, "{map}[{:?}...]", &key[..end]),
                None => write!(f, "{map}[{key:?}]"),
            },
            Self::Entry(map, MapKey::Bool(key)) => write!(f, "{map}[{key}]"),
            Self::Entry(map, MapKey::I32(key)) => write!(f, "{map}[{key}]"),
            Self::Entry(map, MapKey::I64(key)) => write!(f, "{map}[{key}]"),
            Self::Entry(map, MapKey::U32(key)) => write!(f, "{map}[{key}]"),
            Self::Entry(map, MapKey::U64(key)) => write!(f, "{map}[{key}]"),
        }
    }
}

/// One pass through a request.
struct Walk<'a> {
    plans: &'a Plans,
    violations: Vec<FieldViolation>,
    room_bytes: usize,
    full: bool,
}

impl Walk<'_> {
    fn message(&mut self, plan: &Plan, message: &DynamicMessage, path: &Path<'_>) -> Result<(), Status> {
        if let Some(fault) = &plan.fault {
            return Err(Status::internal(fault.to_string()));
        }
        for field in &plan.fields {
            if self.full {
                return Ok(());
            }
            self.field(field, message, &Path::Field(path, field.descriptor.name()))?;
        }
        for oneof in &plan.oneofs {
            if !oneof.members.iter().any(|member| message.has_field(member)) {
                let members: Vec<&str> = oneof.members.iter().map(|member| member.name()).collect();
                self.found(&Path::Field(path, &oneof.name), format!("must have exactly one of {}", members.join(", ")));
            }
        }
        Ok(())
    }

    fn field(&mut self, field: &Field, message: &DynamicMessage, path: &Path<'_>) -> Result<(), Status> {
        let descriptor = &field.descriptor;
        // Of a scalar without presence the default counts as absent: nothing on the wire tells them apart.
        if !message.has_field(descriptor) {
            if field.required {
                self.found(path, "must be given".to_owned());
            } else if let Some(size) = field.size.filter(|size| !size.counts(0)) {
                self.found(path, format!("must have {}, it has 0", size.count_words(Unit::Elements)));
            }
            return Ok(());
        }
        let value = message.get_field(descriptor);
        let count = match &*value {
            Value::List(list) => list.len(),
            Value::Map(map) => map.len(),
            _ => return self.value(field, &value, path),
        };
        if let Some(size) = field.size.filter(|size| !size.counts(count)) {
            self.found(path, format!("must have {}, it has {count}", size.count_words(Unit::Elements)));
            return Ok(());
        }
        match &*value {
            Value::List(list) => self.list(field, list, path),
            Value::Map(map) => self.map(field, map, path),
            _ => Ok(()),
        }
    }

    fn list(&mut self, field: &Field, list: &[Value], path: &Path<'_>) -> Result<(), Status> {
        let mut seen = HashMap::new();
        for (index, value) in list.iter().enumerate() {
            if self.full {
                return Ok(());
            }
            if field.unique
                && let Some(token) = Token::of(value)
                && let Some(before) = seen.insert(token, index)
            {
                self.found(&Path::Element(path, index), format!("must differ from all others, it repeats {}", Path::Element(path, before)));
                continue;
            }
            self.value(field, value, &Path::Element(path, index))?;
        }
        Ok(())
    }

    fn map(&mut self, field: &Field, map: &HashMap<MapKey, Value>, path: &Path<'_>) -> Result<(), Status> {
        let mut entries: Vec<_> = map.iter().collect();
        // The same request always gives the same refusal.
        entries.sort_by_key(|(key, _)| *key);
        for (key, value) in entries {
            if self.full {
                return Ok(());
            }
            let path = Path::Entry(path, key);
            if let Some(broken) = broken(&field.key, &Value::from(key.clone())) {
                self.found(&path, broken.of_key());
            } else {
                self.value(field, value, &path)?;
            }
        }
        Ok(())
    }

    /// Checks a value that is there: of the field itself, or one of its elements or map values.
    fn value(&mut self, field: &Field, value: &Value, path: &Path<'_>) -> Result<(), Status> {
        if let (Some(plan), Value::Message(message)) = (self.plans.inner(field), value) {
            return self.message(plan, message, path);
        }
        if field.value.is_empty() {
            return Ok(());
        }
        let content = match value {
            Value::Message(wrapper) if field.wrapped => wrapper.get_field_by_number(1),
            _ => None,
        };
        if let Some(broken) = broken(&field.value, content.as_deref().unwrap_or(value)) {
            self.found(path, broken.of_value());
        }
        Ok(())
    }

    fn found(&mut self, path: &Path<'_>, description: String) {
        let violation = FieldViolation::new(path.to_string(), description);
        let size_bytes = violation.field.len() + violation.description.len();
        if self.violations.is_empty() || size_bytes <= self.room_bytes {
            self.violations.push(violation);
            self.room_bytes = self.room_bytes.saturating_sub(size_bytes);
            self.full = self.violations.len() >= VIOLATIONS;
        } else {
            self.full = true;
        }
    }

    fn verdict(self) -> Result<(), Status> {
        let Some(first) = self.violations.first() else { return Ok(()) };
        let message = format!("{} {}", first.field, first.description);
        Err(Status::with_error_details(Code::InvalidArgument, message, ErrorDetails::with_bad_request(self.violations)))
    }
}

/// A rule that a scalar breaks. Holds no part of the scalar itself.
enum Broken {
    /// The number is outside a range.
    Number(String),
    /// The count is outside a range.
    Count { wanted: String, count: usize },
    /// The text does not match a pattern.
    Pattern(String),
}

impl Broken {
    fn of_value(self) -> String {
        match self {
            Self::Number(wanted) => format!("must be {wanted}"),
            Self::Count { wanted, count } => format!("must have {wanted}, it has {count}"),
            Self::Pattern(pattern) => format!("must match {pattern}"),
        }
    }

    fn of_key(self) -> String {
        match self {
            Self::Number(wanted) => format!("must have a key that is {wanted}"),
            Self::Count { wanted, count } => format!("must have a key of {wanted}, it has {count}"),
            Self::Pattern(pattern) => format!("must have a key that matches {pattern}"),
        }
    }
}

/// The first rule that the scalar breaks.
fn broken(rules: &Rules, scalar: &Value) -> Option<Broken> {
    if let (Some(range), Some(number)) = (&rules.value, integer(scalar))
        && !range.contains(number)
    {
        return Some(Broken::Number(range.words()));
    }
    let size_bytes = match scalar {
        Value::String(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        _ => return None,
    };
    if let Some(range) = rules.bytes.filter(|range| !range.counts(size_bytes)) {
        return Some(Broken::Count { wanted: range.count_words(Unit::Bytes), count: size_bytes });
    }
    let text = scalar.as_str()?;
    if let Some(range) = &rules.length {
        let count = text.chars().count();
        if !range.counts(count) {
            return Some(Broken::Count { wanted: range.count_words(Unit::Characters), count });
        }
    }
    let pattern = rules.pattern.as_ref()?;
    (!pattern.regex.is_match(text)).then(|| Broken::Pattern(pattern.text.clone()))
}

fn integer(scalar: &Value) -> Option<i128> {
    match scalar {
        Value::I32(number) => Some((*number).into()),
        Value::I64(number) => Some((*number).into()),
        Value::U32(number) => Some((*number).into()),
        Value::U64(number) => Some((*number).into()),
        _ => None,
    }
}

/// A scalar as something that can be looked up.
#[derive(PartialEq, Eq, Hash)]
enum Token<'a> {
    Text(&'a str),
    Bytes(&'a [u8]),
    Number(i128),
}

impl<'a> Token<'a> {
    fn of(value: &'a Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Self::Text(text)),
            Value::Bytes(bytes) => Some(Self::Bytes(bytes)),
            Value::Bool(flag) => Some(Self::Number((*flag).into())),
            Value::EnumNumber(number) => Some(Self::Number((*number).into())),
            _ => integer(value).map(Self::Number),
        }
    }
}

#[cfg(test)]
mod tests;
