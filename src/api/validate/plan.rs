//! The rules of every request, read once from the options in the descriptors.
//!
//! Owns what a rule may stand on. Knows nothing of requests that arrive.

use super::range::Range;
use prost_reflect::{DescriptorPool, DynamicMessage, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor, OneofDescriptor, Value};
use regex::{Regex, RegexBuilder};
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// Most memory that one compiled pattern may take.
const PATTERN_BYTES: usize = 1 << 20;

/// Messages that wrap one scalar, so that its absence can be told.
const WRAPPERS: [&str; 7] = [
    "google.protobuf.BytesValue",
    "google.protobuf.Int32Value",
    "google.protobuf.Int64Value",
    "google.protobuf.StringValue",
    "google.protobuf.UInt32Value",
    "google.protobuf.UInt64Value",
    "google.protobuf.BoolValue",
];

/// The rules of all requests.
pub(super) struct Plans {
    plans: Vec<Plan>,
    requests: HashMap<String, usize>,
}

/// The rules of one message.
pub(super) struct Plan {
    pub(super) message: MessageDescriptor,
    /// Fields that have rules, or messages with rules inside, in order of their numbers.
    pub(super) fields: Vec<Field>,
    pub(super) oneofs: Vec<Oneof>,
    /// The first rule that could not be read.
    pub(super) fault: Option<Fault>,
}

/// The rules of one field.
pub struct Field {
    pub(super) descriptor: FieldDescriptor,
    /// Whether it may be neither absent nor at its default.
    pub required: bool,
    /// How many elements or entries it may have.
    pub size: Option<Range>,
    /// Whether its elements must differ.
    pub unique: bool,
    /// Of the keys of a map.
    pub key: Rules,
    /// Of the value, or of each element or map value.
    pub value: Rules,
    /// Whether the value is a wrapper whose content the rules are for.
    pub(super) wrapped: bool,
    /// Plan of the message that the value is, or each element or map value.
    pub(super) inner: Option<usize>,
}

/// The rules of one scalar.
#[derive(Default)]
pub struct Rules {
    /// Range of a whole number.
    pub value: Option<Range>,
    /// Range of the characters of a string.
    pub length: Option<Range>,
    /// Range of the bytes of a string or of bytes.
    pub bytes: Option<Range>,
    /// What a whole string must match.
    pub pattern: Option<Pattern>,
}

/// A pattern for a whole string.
pub struct Pattern {
    /// As it is written in the schema.
    pub text: String,
    pub(super) regex: Regex,
}

/// A oneof of which one member must be set.
pub(super) struct Oneof {
    pub(super) name: String,
    pub(super) members: Vec<FieldDescriptor>,
}

/// A rule of the schema that means nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Full name of the field.
    pub(super) field: String,
    pub(super) reason: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the rule of {} cannot be read: {}", self.field, self.reason)
    }
}

impl Plans {
    /// Reads the rules of every message that is the input of some call, and of the messages inside.
    pub(super) fn read(pool: &DescriptorPool) -> Self {
        let options = Options::of(pool);
        let mut indexes = BTreeMap::new();
        let mut messages = Vec::new();
        let mut index_of = |message: MessageDescriptor, messages: &mut Vec<MessageDescriptor>| {
            *indexes.entry(message.full_name().to_owned()).or_insert_with(|| {
                messages.push(message);
                messages.len() - 1
            })
        };
        let mut inputs = Vec::new();
        for service in pool.services() {
            for method in service.methods() {
                inputs.push((method.input().full_name().to_owned(), index_of(method.input(), &mut messages)));
            }
        }
        let mut plans: Vec<Plan> = Vec::new();
        while let Some(message) = messages.get(plans.len()).cloned() {
            plans.push(options.plan(message, |inner| index_of(inner, &mut messages)));
        }

        let busy = busy(&plans);
        for plan in &mut plans {
            for field in &mut plan.fields {
                field.inner = field.inner.filter(|inner| busy[*inner]);
            }
            plan.fields.retain(Field::has_work);
        }
        let requests = inputs.into_iter().filter(|(_, index)| busy[*index]).collect();
        Self { plans, requests }
    }

    /// The rules of a request; `None` when the message is no request, or one without rules.
    pub(super) fn of_request(&self, full_name: &str) -> Option<&Plan> {
        self.requests.get(full_name).map(|index| &self.plans[*index])
    }

    /// The rules of the messages that a field holds.
    pub(super) fn inner(&self, field: &Field) -> Option<&Plan> {
        field.inner.map(|index| &self.plans[index])
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> &[Plan] {
        &self.plans
    }
}

/// Tells for each plan whether it, or one that it leads to, has anything to check.
fn busy(plans: &[Plan]) -> Vec<bool> {
    let mut busy: Vec<bool> = plans.iter().map(|plan| plan.fault.is_some() || !plan.oneofs.is_empty() || plan.fields.iter().any(Field::has_rules)).collect();
    loop {
        let mut changed = false;
        for (index, plan) in plans.iter().enumerate() {
            if !busy[index] && plan.fields.iter().any(|field| field.inner.is_some_and(|inner| busy[inner])) {
                busy[index] = true;
                changed = true;
            }
        }
        if !changed {
            return busy;
        }
    }
}

impl Field {
    fn has_rules(&self) -> bool {
        self.required || self.size.is_some() || self.unique || !self.key.is_empty() || !self.value.is_empty()
    }

    fn has_work(&self) -> bool {
        self.has_rules() || self.inner.is_some()
    }
}

impl Rules {
    pub(super) fn is_empty(&self) -> bool {
        self.value.is_none() && self.length.is_none() && self.bytes.is_none() && self.pattern.is_none()
    }

    /// Refuses rules that a scalar of this kind cannot be held against.
    fn fit(&self, kind: &Kind) -> Result<(), String> {
        let text = matches!(kind, Kind::String);
        if self.value.is_some() && !is_integer(kind) {
            return Err("`value` stands on whole numbers only".to_owned());
        }
        if (self.length.is_some() || self.pattern.is_some()) && !text {
            return Err("`length` and `pattern` stand on strings only".to_owned());
        }
        if self.bytes.is_some() && !text && !matches!(kind, Kind::Bytes) {
            return Err("`bytes` stands on strings and bytes only".to_owned());
        }
        Ok(())
    }
}

impl Pattern {
    fn read(text: &str) -> Result<Self, String> {
        let regex = RegexBuilder::new(&format!("^(?:{text})$")).size_limit(PATTERN_BYTES).build().map_err(|fault| fault.to_string())?;
        Ok(Self { text: text.to_owned(), regex })
    }
}

/// The rules of the schema one by one, for those who describe it.
pub struct Schema(Options);

impl Schema {
    /// The rules in this pool.
    pub fn of(pool: &DescriptorPool) -> Self {
        Self(Options::of(pool))
    }

    /// The rules of a field; `None` when they mean nothing.
    pub fn field(&self, field: &FieldDescriptor) -> Option<Field> {
        self.0.field(field.clone(), &mut |_| 0).ok()
    }

    /// Whether one member of a oneof must be given.
    pub fn is_exactly_one(&self, oneof: &OneofDescriptor) -> bool {
        is_on(&oneof.options(), &self.0.exactly_one)
    }
}

/// The options that hold rules, and how they are read.
struct Options {
    exactly_one: ExtensionDescriptor,
    required: ExtensionDescriptor,
    pattern: ExtensionDescriptor,
    value: ExtensionDescriptor,
    size: ExtensionDescriptor,
    length: ExtensionDescriptor,
    unique: ExtensionDescriptor,
    map_key: ExtensionDescriptor,
    bytes: ExtensionDescriptor,
}

impl Options {
    fn of(pool: &DescriptorPool) -> Self {
        let option = |name: &str| pool.get_extension_by_name(&format!("yandex.cloud.{name}")).expect("yandex/cloud/validation.proto is compiled in");
        Self {
            exactly_one: option("exactly_one"),
            required: option("required"),
            pattern: option("pattern"),
            value: option("value"),
            size: option("size"),
            length: option("length"),
            unique: option("unique"),
            map_key: option("map_key"),
            bytes: option("bytes"),
        }
    }

    fn plan(&self, message: MessageDescriptor, mut index_of: impl FnMut(MessageDescriptor) -> usize) -> Plan {
        let mut plan = Plan { message: message.clone(), fields: Vec::new(), oneofs: Vec::new(), fault: None };
        for descriptor in message.fields() {
            let field = descriptor.full_name().to_owned();
            match self.field(descriptor, &mut index_of) {
                Ok(field) => plan.fields.push(field),
                Err(reason) => plan.fault = plan.fault.or(Some(Fault { field, reason })),
            }
        }
        for oneof in message.oneofs() {
            if is_on(&oneof.options(), &self.exactly_one) {
                plan.oneofs.push(Oneof { name: oneof.name().to_owned(), members: oneof.fields().collect() });
            }
        }
        plan
    }

    fn field(&self, descriptor: FieldDescriptor, index_of: &mut impl FnMut(MessageDescriptor) -> usize) -> Result<Field, String> {
        let options = descriptor.options();
        let mut kind = descriptor.kind();
        let mut key_kind = None;
        if let (true, Kind::Message(entry)) = (descriptor.is_map(), &kind) {
            key_kind = Some(entry.map_entry_key_field().kind());
            kind = entry.map_entry_value_field().kind();
        }
        let mut wrapped = false;
        let mut inner = None;
        if let Kind::Message(message) = kind.clone() {
            if WRAPPERS.contains(&message.full_name()) {
                wrapped = true;
                kind = message.get_field(1).ok_or("the wrapper has no value")?.kind();
            } else {
                inner = Some(index_of(message));
            }
        }

        let value = Rules {
            value: range(&options, &self.value)?,
            length: range(&options, &self.length)?,
            bytes: range(&options, &self.bytes)?,
            pattern: text(&options, &self.pattern).map(|text| Pattern::read(&text)).transpose()?,
        };
        value.fit(&kind)?;
        let key = self.key(&options)?;
        match key_kind {
            Some(kind) => key.fit(&kind)?,
            None if key.is_empty() => {}
            None => return Err("`map_key` stands on maps only".to_owned()),
        }
        let size = range(&options, &self.size)?;
        if size.is_some() && !descriptor.is_list() && !descriptor.is_map() {
            return Err("`size` stands on lists and maps only".to_owned());
        }
        let unique = is_on(&options, &self.unique);
        if unique && !(descriptor.is_list() && !wrapped && is_comparable(&kind)) {
            return Err("`unique` stands on lists of strings, bytes and whole numbers only".to_owned());
        }
        Ok(Field { required: is_on(&options, &self.required), size, unique, key, value, wrapped, inner, descriptor })
    }

    fn key(&self, options: &DynamicMessage) -> Result<Rules, String> {
        if !options.has_extension(&self.map_key) {
            return Ok(Rules::default());
        }
        let spec = options.get_extension(&self.map_key);
        let rule = |name: &str| {
            let text = spec.as_message().and_then(|spec| spec.get_field_by_name(name)).and_then(|text| text.as_str().map(str::to_owned));
            text.filter(|text| !text.is_empty())
        };
        Ok(Rules {
            value: rule("value").map(|text| parse(&text)).transpose()?,
            length: rule("length").map(|text| parse(&text)).transpose()?,
            bytes: None,
            pattern: rule("pattern").map(|text| Pattern::read(&text)).transpose()?,
        })
    }
}

fn is_on(options: &DynamicMessage, option: &ExtensionDescriptor) -> bool {
    matches!(*options.get_extension(option), Value::Bool(true))
}

fn text(options: &DynamicMessage, option: &ExtensionDescriptor) -> Option<String> {
    if options.has_extension(option) { options.get_extension(option).as_str().map(str::to_owned) } else { None }
}

fn range(options: &DynamicMessage, option: &ExtensionDescriptor) -> Result<Option<Range>, String> {
    text(options, option).map(|text| parse(&text)).transpose()
}

fn parse(text: &str) -> Result<Range, String> {
    Range::parse(text).ok_or_else(|| format!("`{text}` is no range"))
}

fn is_integer(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 | Kind::Sint32 | Kind::Sint64 | Kind::Fixed32 | Kind::Fixed64 | Kind::Sfixed32 | Kind::Sfixed64
    )
}

fn is_comparable(kind: &Kind) -> bool {
    is_integer(kind) || matches!(kind, Kind::String | Kind::Bytes | Kind::Enum(_) | Kind::Bool)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::pb;
    use prost::Message as _;

    #[test]
    fn every_rule_of_every_message_can_be_read() {
        let plans = Plans::read(pb::pool());
        let faults: Vec<String> = plans.all().iter().filter_map(|plan| plan.fault.as_ref()).map(Fault::to_string).collect();
        assert_eq!(faults, Vec::<String>::new());
        // The messages of answers are read here too, where a rule is as likely to be misspelt.
        let options = Options::of(pb::pool());
        for message in
            pb::pool().all_messages().filter(|message| message.package_name().starts_with("yandex.") || message.package_name().starts_with("redkeep."))
        {
            assert_eq!(options.plan(message.clone(), |_| 0).fault, None, "{}", message.full_name());
        }
        assert!(plans.requests.len() > 50, "{}", plans.requests.len());
    }

    #[test]
    fn no_answer_is_a_request() {
        let plans = Plans::read(pb::pool());
        for method in pb::pool().services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
            assert!(plans.of_request(method.output().full_name()).is_none(), "{}", method.full_name());
        }
    }

    #[test]
    fn messages_without_rules_have_no_plan() {
        let plans = Plans::read(pb::pool());
        assert!(plans.of_request("yandex.cloud.endpoint.ListApiEndpointsRequest").is_none());
        assert!(plans.of_request("redkeep.v1.ListBackupsRequest").is_some());
        for plan in plans.all() {
            for field in &plan.fields {
                assert!(plans.inner(field).is_none_or(|inner| !inner.fields.is_empty() || !inner.oneofs.is_empty()), "{}", field.descriptor.full_name());
            }
        }
    }

    #[test]
    fn a_rule_that_means_nothing_is_a_fault_of_its_field() {
        let table = [
            ("length", "many", "`many` is no range"),
            ("pattern", "[a-", "regex parse error"),
            ("value", "0-5", "`value` stands on whole numbers only"),
            ("size", "0-5", "`size` stands on lists and maps only"),
        ];
        for (option, rule, reason) in table {
            let plans = Plans::read(&altered("redkeep.v1.GetBackupRequest", option, rule));
            let plan = plans.of_request("redkeep.v1.GetBackupRequest").unwrap();
            let fault = plan.fault.as_ref().unwrap();
            assert_eq!(fault.field, "redkeep.v1.GetBackupRequest.backup_id");
            assert!(fault.reason.contains(reason), "{}", fault.reason);
        }
    }

    /// Our own pool with a rule added to the first field of a message.
    pub(in crate::api::validate) fn altered(message: &str, option: &str, rule: &str) -> DescriptorPool {
        fn named<'a>(owner: &'a mut DynamicMessage, list: &str, name: &str) -> Option<&'a mut DynamicMessage> {
            let list = owner.get_field_by_name_mut(list)?.as_list_mut()?;
            list.iter_mut().filter_map(Value::as_message_mut).find(|item| item.get_field_by_name("name").is_some_and(|it| it.as_str() == Some(name)))
        }
        let pool = pb::pool();
        let target = pool.get_message_by_name(message).unwrap();
        let kind = pool.get_message_by_name("google.protobuf.FileDescriptorSet").unwrap();
        let mut set = DynamicMessage::decode(kind, pb::DESCRIPTORS).unwrap();
        let file = named(&mut set, "file", target.parent_file().name()).unwrap();
        let message = named(file, "message_type", target.name()).unwrap();
        let field = named(message, "field", target.fields().next().unwrap().name()).unwrap();
        let options = field.get_field_by_name_mut("options").unwrap().as_message_mut().unwrap();
        options.set_extension(&pool.get_extension_by_name(&format!("yandex.cloud.{option}")).unwrap(), Value::String(rule.to_owned()));
        DescriptorPool::decode(set.encode_to_vec().as_slice()).unwrap()
    }
}
