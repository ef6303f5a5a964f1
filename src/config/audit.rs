//! The section `[audit]`: whether the audit log is kept, where, and for how long.

use super::clusters::size;
use super::section::Section;
use crate::audit::Options;
use std::ops::RangeInclusive;
use std::path::Path;
use toml::Value;

/// Lengths that a file may have, in bytes: a few lines, and what a log shipper can still take.
const FILE_BYTES: RangeInclusive<u64> = 4096..=(16 << 30);

/// Full files that may be kept.
const KEEP: RangeInclusive<u64> = 1..=1000;

/// Reads the section. `store` is the folder of the store, beside which the file lies unless it is set: whoever keeps the one
/// keeps the other.
pub(super) fn read(mut section: Section, base: &Path, store: &Path) -> Option<Options> {
    let is_kept = match section.value("enabled") {
        None => true,
        Some(Value::Boolean(enabled)) => enabled,
        Some(_) => {
            section.fault("enabled", "must be true or false");
            true
        }
    };
    let file = match section.optional_text("file") {
        None => store.parent().unwrap_or(base).join("audit.jsonl"),
        Some(file) => {
            if file.is_empty() || file.ends_with('/') {
                section.fault("file", "must be a file; `enabled = false` switches the audit log off");
            }
            base.join(file)
        }
    };
    let max_bytes = match section.value("max_bytes") {
        None => Some(Options::MAX_BYTES),
        Some(Value::Integer(bytes)) => u64::try_from(bytes).ok(),
        Some(Value::String(text)) => size(&text),
        Some(_) => None,
    };
    let max_bytes = max_bytes.filter(|bytes| FILE_BYTES.contains(bytes)).unwrap_or_else(|| {
        section.fault("max_bytes", "must be a size from 4KiB to 16GiB, such as \"64MiB\"");
        Options::MAX_BYTES
    });
    let keep = section.integer("keep", Options::KEEP.into(), KEEP);
    section.end();
    is_kept.then(|| Options { file, max_bytes, keep: u32::try_from(keep).unwrap_or(Options::KEEP) })
}
