//! The section `[local]`: clusters that are restored on this machine. Without a folder for them there are none.

use super::clusters::size;
use super::section::Section;
use crate::local::{BUS_OFFSET, Options};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use toml::Value;

/// Most servers that may be allowed.
const SERVERS: RangeInclusive<u64> = 1..=256;

/// The least memory that a server can be given, in bytes.
const MEMORY_LEAST: u64 = 1 << 20;

/// Least port; those below are for the system's own services.
const PORT_LEAST: u16 = 1024;

/// Reads the section; `None` when nothing is restored here.
pub(super) fn read(mut section: Section<'_>, base: &Path) -> Option<Options> {
    let root = section.optional_text("root");
    if root.as_ref().is_some_and(|root| root.is_empty() || root.chars().any(char::is_control)) {
        section.fault("root", "must be a folder");
    }
    let ports = match section.optional_text("ports") {
        None => Options::PORTS,
        Some(text) => ports(&text).unwrap_or_else(|| {
            let most = u16::MAX - BUS_OFFSET;
            section.fault("ports", &format!("must be a range from {PORT_LEAST} to {most}, such as \"17000-17999\": each port and {BUS_OFFSET} is one, too"));
            Options::PORTS
        }),
    };
    let bind: IpAddr = section.parsed("bind", "127.0.0.1");
    if !bind.is_loopback() {
        section.fault("bind", "must be an address of loopback: the servers speak without TLS");
    }
    let most_servers = section.integer("max_servers", Options::MOST_SERVERS as u64, SERVERS) as usize;
    let memory_limit = section.value("memory_limit").and_then(|limit| {
        let bytes = match &limit {
            Value::Integer(bytes) => u64::try_from(*bytes).ok(),
            Value::String(text) => size(text),
            _ => None,
        };
        let bytes = bytes.filter(|bytes| *bytes >= MEMORY_LEAST);
        if bytes.is_none() {
            section.fault("memory_limit", "must be a size from 1MiB on, such as \"2GiB\"");
        }
        bytes
    });
    section.end();
    Some(Options { root: base.join(root?), ports, bind, most_servers, memory_limit })
}

/// Reads `17000-17999`.
fn ports(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-')?;
    let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (PORT_LEAST <= first && first <= last && last <= u16::MAX - BUS_OFFSET).then_some(first..=last)
}
