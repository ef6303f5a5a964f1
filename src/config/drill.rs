//! The section `[drill]`: proofs by loading, on throw-away servers of this machine.

use super::clusters::size;
use super::section::Section;
use crate::executor::{AfterBackup, DRILL_LOOKS, DrillOptions};
use crate::redis::drill::ROOT_BYTES;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;
use toml::Value;

/// Memory that a server may be given, in bytes: what one needs without data, and more than any machine has.
const MEMORY_BYTES: RangeInclusive<u64> = (32 << 20)..=(64 << 40);

/// Servers that may run at once.
const AT_ONCE: RangeInclusive<u64> = 1..=16;

/// How long a proof may take.
const TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 3600);

/// Reads the section. `store` is the folder of the store, beside which that of the drills lies unless it is set.
pub(super) fn read(mut section: Section<'_>, base: &Path, store: &Path) -> DrillOptions {
    let defaults = DrillOptions::default();
    let folder = match section.optional_text("folder") {
        None => store.parent().unwrap_or(base).join("drill"),
        Some(folder) if folder.is_empty() => {
            section.fault("folder", "must be a folder");
            defaults.folder.clone()
        }
        Some(folder) => {
            let folder = base.join(folder);
            if folder.as_os_str().as_bytes().len() > ROOT_BYTES {
                section.fault("folder", &format!("must have at most {ROOT_BYTES} bytes with all its parents, for a socket has to fit below it"));
            }
            folder
        }
    };
    let memory_limit = section.value("memory_limit").and_then(|value| {
        let bytes = match value {
            Value::Integer(bytes) => u64::try_from(bytes).ok(),
            Value::String(text) => size(&text),
            _ => None,
        };
        let bytes = bytes.filter(|bytes| MEMORY_BYTES.contains(bytes));
        if bytes.is_none() {
            section.fault("memory_limit", "must be a size from 32MiB to 64TiB, such as \"4GiB\"; leave it out for half of what is free");
        }
        bytes
    });
    let after_backup = section.optional_text("after_backup").map_or(defaults.after_backup, |text| {
        after(&text).unwrap_or_else(|| {
            section.fault("after_backup", &format!("must be \"never\", \"newest\", or \"1/N\" with N from 1 to {DRILL_LOOKS}"));
            AfterBackup::Never
        })
    });
    let options = DrillOptions {
        folder,
        memory_limit,
        at_once: section.integer("at_once", defaults.at_once as u64, AT_ONCE) as usize,
        timeout: section.duration("timeout", defaults.timeout, TIMEOUT),
        after_backup,
    };
    section.end();
    options
}

fn after(text: &str) -> Option<AfterBackup> {
    match text {
        "never" => Some(AfterBackup::Never),
        "newest" => Some(AfterBackup::Newest),
        _ => text.strip_prefix("1/")?.parse().ok().filter(|n| (1..=DRILL_LOOKS).contains(n)).map(AfterBackup::OneIn),
    }
}
