//! What `[artifacts]` says of the pipeline: encryption, pace, and what is bundled beside a dump.

use super::clusters::size;
use super::section::Section;
use crate::artifacts::encryption::RECIPIENTS;
use crate::artifacts::{Encryption, Identity, Recipient};
use std::ops::RangeInclusive;
use std::path::Path;
use toml::Value;

/// Bytes a second that snapshots may be held to.
const RATE: RangeInclusive<u64> = (64 << 10)..=(1 << 40);

/// What was read.
pub(super) struct Pipeline {
    pub(super) encryption: Encryption,
    /// Bytes a second of all snapshots together.
    pub(super) rate_limit: Option<u64>,
    pub(super) side_password_hashes: bool,
}

/// Takes the keys out of the section; faults are noted in it, and no text of a key is ever told.
pub(super) fn read(section: &mut Section<'_>, base: &Path) -> Pipeline {
    let mut recipients: Vec<Recipient> = Vec::new();
    for (index, text) in section.texts("age_recipients").iter().enumerate() {
        let key = format!("age_recipients[{index}]");
        match text.parse::<Recipient>() {
            Ok(recipient) if recipients.contains(&recipient) => section.fault(&key, "is listed twice"),
            Ok(_) if recipients.len() == RECIPIENTS => section.fault(&key, &format!("there must be at most {RECIPIENTS} recipients")),
            Ok(recipient) => recipients.push(recipient),
            Err(fault) => section.fault(&key, &fault.to_string()),
        }
    }
    let identity = section.optional_text("age_identity_file").and_then(|file| {
        let path = base.join(file);
        Identity::read(&path).inspect_err(|fault| section.fault("age_identity_file", &format!("{} {fault}", path.display()))).ok()
    });
    let rate_limit = section.value("rate_limit").and_then(|value| {
        let rate = match value {
            Value::Integer(bytes) => u64::try_from(bytes).ok(),
            Value::String(text) => size(&text),
            _ => None,
        };
        let rate = rate.filter(|rate| RATE.contains(rate));
        if rate.is_none() {
            section.fault("rate_limit", "must be bytes a second from 64KiB to 1TiB, such as \"100MiB\"; leave it out for no limit");
        }
        rate
    });
    let side_password_hashes = section.flag("side_password_hashes");
    if side_password_hashes && recipients.is_empty() {
        section.fault("side_password_hashes", "needs age_recipients: password hashes are stored encrypted or not at all");
    }
    Pipeline { encryption: Encryption { recipients: recipients.into(), identity }, rate_limit, side_password_hashes }
}
