//! Which keys of a backup are meant.

use crate::operation::Keys;
use crate::rdb::{Entry, Type};
use crate::redis::keys::{PATTERN_BYTES, fits};

/// The keys that are meant.
#[derive(Debug)]
pub(super) struct Selection {
    databases: Vec<u32>,
    patterns: Vec<Vec<u8>>,
    kinds: Vec<Type>,
}

impl Selection {
    /// What was asked for.
    ///
    /// # Errors
    ///
    /// What of it is nothing that can be asked for.
    pub(super) fn of(keys: &Keys) -> Result<Self, String> {
        let kind = |word: &String| Type::named(word).ok_or_else(|| format!("there is no type {word:?}; there are {}", words()));
        if let Some(pattern) = keys.patterns.iter().find(|pattern| pattern.len() > PATTERN_BYTES) {
            return Err(format!("a pattern of {} bytes is too long; it may have {PATTERN_BYTES}", pattern.len()));
        }
        Ok(Self {
            databases: keys.databases.clone(),
            patterns: keys.patterns.iter().map(|pattern| pattern.clone().into_bytes()).collect(),
            kinds: keys.types.iter().map(kind).collect::<Result<_, _>>()?,
        })
    }

    /// Whether everything is meant.
    pub(super) fn is_all(&self) -> bool {
        self.databases.is_empty() && self.patterns.is_empty() && self.kinds.is_empty()
    }

    /// Whether a key is meant.
    pub(super) fn takes(&self, entry: &Entry) -> bool {
        (self.databases.is_empty() || self.databases.contains(&entry.database))
            && (self.kinds.is_empty() || self.kinds.contains(&entry.kind))
            && (self.patterns.is_empty() || self.patterns.iter().any(|pattern| fits(pattern, &entry.name)))
    }
}

fn words() -> String {
    Type::ALL.map(Type::as_str).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_meant_when_all_three_fit() {
        let entry = Entry { database: 3, name: b"user:7".to_vec(), kind: Type::Hash, type_byte: 16, expires_at: None, idle_seconds: None, frequency: None };
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let takes = |databases: &[u32], patterns: &[&str], types: &[&str]| {
            let keys = Keys { databases: databases.to_vec(), patterns: texts(patterns), types: texts(types), ..Keys::default() };
            Selection::of(&keys).expect("a selection").takes(&entry)
        };
        assert!(takes(&[], &[], &[]) && takes(&[0, 3], &["x", "user:*"], &["set", "hash"]));
        assert!(!takes(&[0], &[], &[]) && !takes(&[], &["users:*"], &[]) && !takes(&[3], &["*"], &["string"]));
        let odd = Keys { types: texts(&["ReJSON-RL"]), ..Keys::default() };
        assert!(Selection::of(&odd).unwrap_err().contains("module"));
    }
}
