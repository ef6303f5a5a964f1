//! What of a backup is restored key by key, out of a request.

use super::status::invalid;
use crate::operation::{Conflict, Keys};
use crate::pb::own;
use crate::rdb::Type;
use crate::redis::keys::PATTERN_BYTES;
use tonic::Status;

/// Reads what is meant; all of it, where nothing is said.
///
/// # Errors
///
/// A status that names the field.
pub(super) fn keys(selection: Option<own::KeySelection>) -> Result<Keys, Status> {
    let selection = selection.unwrap_or_default();
    let on_conflict = match selection.on_conflict() {
        own::key_selection::Conflict::Unspecified | own::key_selection::Conflict::Fail => Conflict::Fail,
        own::key_selection::Conflict::Skip => Conflict::Skip,
        own::key_selection::Conflict::Replace => Conflict::Replace,
    };
    if let Some(word) = selection.types.iter().find(|word| Type::named(word).is_none()) {
        let words = Type::ALL.map(Type::as_str).join(", ");
        return Err(invalid("keys.types", format!("{word:?} is no type; there are {words}")));
    }
    if selection.patterns.iter().any(|pattern| pattern.len() > PATTERN_BYTES) {
        return Err(invalid("keys.patterns", format!("must have at most {PATTERN_BYTES} bytes each")));
    }
    let databases = selection.databases.iter().map(|database| u32::try_from(*database));
    Ok(Keys {
        databases: databases.collect::<Result<_, _>>().map_err(|_| invalid("keys.databases", "must not be negative".to_owned()))?,
        patterns: selection.patterns,
        types: selection.types,
        on_conflict,
        dry_run: selection.dry_run,
        bytes_per_second: u64::try_from(selection.bytes_per_second).ok().filter(|rate| *rate > 0),
    })
}
