//! JSON of protobuf messages, both ways.
//!
//! Reading is strict: what the mapping does not allow is refused and named, never guessed. Writing is the canonical
//! mapping, with what is always there and what is left out said in one place.

pub(super) mod read;
pub(super) mod text;
pub(super) mod write;

#[cfg(test)]
pub(super) mod sample;

/// A part of a request that cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The field, by proto names, such as `labels["team"]`; empty when there is none to name.
    pub(super) field: String,
    /// What is wrong with it, in words that follow the field's name.
    pub(super) what: String,
}

impl Fault {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { field: String::new(), what: what.into() }
    }

    pub(super) fn of(field: impl Into<String>, what: impl Into<String>) -> Self {
        Self { field: field.into(), what: what.into() }
    }

    /// The same fault seen from the message that has the field.
    pub(super) fn inside(self, name: &str) -> Self {
        let field = match self.field.as_str() {
            "" => name.to_owned(),
            inner if inner.starts_with('[') => format!("{name}{inner}"),
            inner => format!("{name}.{inner}"),
        };
        Self { field, ..self }
    }

    /// The same fault seen from the list or map that has the element.
    fn at(self, key: impl std::fmt::Display) -> Self {
        self.inside(&format!("[{key}]"))
    }
}

/// A text of the caller as it may be repeated: bounded, and without control characters.
pub(super) fn shown(text: &str) -> String {
    const CHARACTERS: usize = 64;
    let mut shown: String = text.chars().take(CHARACTERS).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().nth(CHARACTERS).is_some() {
        shown.push_str("...");
    }
    shown
}
