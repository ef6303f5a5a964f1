//! Reading one table of the configuration: each value once, each fault with its key, and at the end what nobody asked for.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;
use toml::{Table, Value};

/// Most faults that are told.
const FAULTS: usize = 100;

/// What is wrong, gathered over all sections.
#[derive(Default)]
pub(super) struct Faults(RefCell<Vec<String>>);

impl Faults {
    pub(super) fn add(&self, key: &str, what: &str) {
        let mut faults = self.0.borrow_mut();
        if faults.len() < FAULTS {
            faults.push(format!("{key}: {what}"));
        }
    }

    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.borrow_mut())
    }
}

/// One table.
pub(super) struct Section<'a> {
    prefix: String,
    table: Table,
    faults: &'a Faults,
}

impl<'a> Section<'a> {
    pub(super) fn new(prefix: &str, table: Table, faults: &'a Faults) -> Self {
        Self { prefix: prefix.to_owned(), table, faults }
    }

    /// Notes a fault of a key.
    pub(super) fn fault(&self, key: &str, what: &str) {
        self.faults.add(&self.key(key), what);
    }

    fn key(&self, key: &str) -> String {
        if self.prefix.is_empty() { key.to_owned() } else { format!("{}.{key}", self.prefix) }
    }

    /// The table under a key; an empty one when there is none.
    pub(super) fn section(&mut self, key: &str) -> Section<'a> {
        let table = match self.table.remove(key) {
            None => Table::new(),
            Some(Value::Table(table)) => table,
            Some(_) => {
                self.fault(key, "must be a section");
                Table::new()
            }
        };
        Section::new(&self.key(key), table, self.faults)
    }

    /// The tables under a key, in order.
    pub(super) fn sections(&mut self, key: &str) -> Vec<Section<'a>> {
        let Some(value) = self.table.remove(key) else { return Vec::new() };
        let Value::Array(values) = value else {
            self.fault(key, "must be a list of sections, as [[...]]");
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (index, value) in values.into_iter().enumerate() {
            let name = format!("{}[{index}]", self.key(key));
            match value {
                Value::Table(table) => sections.push(Section::new(&name, table, self.faults)),
                _ => self.faults.add(&name, "must be a section"),
            }
        }
        sections
    }

    /// A table inside of a value that was taken out.
    pub(super) fn inner(&self, key: &str, table: Table) -> Section<'a> {
        Section::new(&self.key(key), table, self.faults)
    }

    /// The keys that are left.
    pub(super) fn keys(&self) -> Vec<String> {
        self.table.keys().cloned().collect()
    }

    /// Whether there is something under a key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// The raw value under a key.
    pub(super) fn value(&mut self, key: &str) -> Option<Value> {
        self.table.remove(key)
    }

    pub(super) fn optional_text(&mut self, key: &str) -> Option<String> {
        match self.table.remove(key)? {
            Value::String(text) => Some(text),
            _ => {
                self.fault(key, "must be a text");
                None
            }
        }
    }

    pub(super) fn text(&mut self, key: &str, default: &str) -> String {
        self.optional_text(key).unwrap_or_else(|| default.to_owned())
    }

    /// A text that a type reads.
    pub(super) fn parsed<T: FromStr<Err: std::fmt::Display>>(&mut self, key: &str, default: &'static str) -> T
    where
        T::Err: std::fmt::Debug,
    {
        let fallback = || default.parse().expect("the default is valid");
        match self.optional_text(key).map(|text| text.parse::<T>()) {
            None => fallback(),
            Some(Ok(value)) => value,
            Some(Err(fault)) => {
                self.fault(key, &fault.to_string());
                fallback()
            }
        }
    }

    pub(super) fn address(&mut self, key: &str, default: &'static str) -> SocketAddr {
        let fallback = || default.parse().expect("the default is valid");
        let Some(text) = self.optional_text(key) else { return fallback() };
        // `localhost` is the one name that is loopback everywhere.
        text.replace("localhost", "127.0.0.1").parse().unwrap_or_else(|_| {
            self.fault(key, "must be an address and a port, such as 127.0.0.1:7379");
            fallback()
        })
    }

    pub(super) fn flag(&mut self, key: &str) -> bool {
        self.flag_or(key, false)
    }

    pub(super) fn flag_or(&mut self, key: &str, default: bool) -> bool {
        match self.table.remove(key) {
            None => default,
            Some(Value::Boolean(flag)) => flag,
            Some(_) => {
                self.fault(key, "must be true or false");
                default
            }
        }
    }

    /// A certificate and its key, which stand together or not at all; one without the other is a fault.
    pub(super) fn pair<T>(&self, cert: Option<T>, key: Option<T>) -> Option<(T, T)> {
        match (cert, key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) => {
                self.fault("key", "must be given beside cert");
                None
            }
            (None, Some(_)) => {
                self.fault("cert", "must be given beside key");
                None
            }
        }
    }

    pub(super) fn integer(&mut self, key: &str, default: u64, range: RangeInclusive<u64>) -> u64 {
        match self.table.remove(key) {
            None => default,
            Some(Value::Integer(number)) if u64::try_from(number).is_ok_and(|number| range.contains(&number)) => number as u64,
            Some(_) => {
                self.fault(key, &format!("must be a whole number from {} to {}", range.start(), range.end()));
                default
            }
        }
    }

    pub(super) fn duration(&mut self, key: &str, default: Duration, range: RangeInclusive<Duration>) -> Duration {
        let Some(text) = self.optional_text(key) else { return default };
        match humantime::parse_duration(&text) {
            Ok(duration) if range.contains(&duration) => duration,
            _ => {
                let (least, most) = (humantime::format_duration(*range.start()), humantime::format_duration(*range.end()));
                self.fault(key, &format!("must be a duration from {least} to {most}, such as \"30s\" or \"10m\""));
                default
            }
        }
    }

    pub(super) fn texts(&mut self, key: &str) -> Vec<String> {
        let mut texts = Vec::new();
        for (index, value) in self.list(key).into_iter().enumerate() {
            match value {
                Value::String(text) => texts.push(text),
                _ => self.fault(&format!("{key}[{index}]"), "must be a text"),
            }
        }
        texts
    }

    pub(super) fn list(&mut self, key: &str) -> Vec<Value> {
        match self.table.remove(key) {
            None => Vec::new(),
            Some(Value::Array(values)) => values,
            Some(_) => {
                self.fault(key, "must be a list");
                Vec::new()
            }
        }
    }

    /// Refuses the keys that nobody asked for.
    pub(super) fn end(self) {
        for key in self.table.keys() {
            self.fault(key, "is not known here");
        }
    }
}

/// Sets a key of a table from a text: a boolean or whole number where it reads as one, a list where it is one, else a text.
pub(super) fn set(table: &mut Table, key: &str, text: &str, faults: &Faults) {
    let mut parts: Vec<&str> = key.split('.').collect();
    let Some(last) = parts.pop() else { return };
    let mut table = table;
    for part in parts {
        let entry = table.entry(part.to_owned()).or_insert_with(|| Value::Table(Table::new()));
        match entry {
            Value::Table(inner) => table = inner,
            _ => return faults.add(key, "names a value inside of something that is no section"),
        }
    }
    let value = match format!("value = {text}").parse::<Table>().ok().and_then(|mut table| table.remove("value")) {
        Some(value @ (Value::Boolean(_) | Value::Integer(_) | Value::Array(_))) => value,
        _ => Value::String(text.to_owned()),
    };
    table.insert(last.to_owned(), value);
}
