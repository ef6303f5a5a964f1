//! The `[[clusters]]` of the configuration.

use super::schedule;
use super::section::Section;
use crate::cluster::window::{BadWindow, Windows};
use crate::cluster::{ClusterId, Flavor};
use crate::fleet::{Definition, Node, Origin, PasswordSource, Sentinel};
use crate::redis::sentinel::SENTINELS;
use crate::redis::tls::{Authorities, BadTls, Tls};
use crate::redis::topology::HOSTS;
use crate::redis::{Address, BadAddress};
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use toml::Value;

/// Longest name, in characters.
const NAME_CHARS: usize = 63;
/// Longest description, in characters.
const DESCRIPTION_CHARS: usize = 256;
/// Longest name and value of a label, in characters.
const LABEL_CHARS: usize = 63;
/// Most labels.
const LABELS: usize = 64;
/// Longest file with certificates or a key, in bytes.
const PEM_BYTES: u64 = 1024 * 1024;
/// Longest name that sentinels have for a primary, in characters.
const MASTER_CHARS: usize = 200;
/// Most addresses of an address map.
const ADDRESSES: usize = 2048;
/// Longest name of a failure domain, in bytes.
const DOMAIN_BYTES: usize = 255;
/// Most virtual processors, and most memory in GiB, that a flavor may tell.
const FLAVOR_MOST: u64 = 1_000_000;

/// Reads all clusters; faults are noted in the sections.
pub(super) fn read(sections: Vec<Section<'_>>, base: &Path, modified: DateTime<Utc>) -> Vec<Definition> {
    let mut ids = BTreeSet::new();
    let mut definitions = Vec::new();
    for mut section in sections {
        if let Some(definition) = cluster(&mut section, base, modified, &mut ids) {
            definitions.push(definition);
        }
        section.end();
    }
    definitions
}

fn cluster(section: &mut Section<'_>, base: &Path, modified: DateTime<Utc>, ids: &mut BTreeSet<ClusterId>) -> Option<Definition> {
    let id = match section.optional_text("id").map(|id| id.parse::<ClusterId>()) {
        Some(Ok(id)) => Some(id),
        Some(Err(fault)) => {
            section.fault("id", &fault.to_string());
            None
        }
        None => {
            section.fault("id", "must be given");
            None
        }
    };
    if let Some(id) = &id
        && !ids.insert(id.clone())
    {
        section.fault("id", "another cluster has it already");
    }
    let folder_id = section.parsed("folder_id", "default");
    let name = section.optional_text("name").filter(|name| !name.is_empty());
    if let Some(name) = &name
        && (name.chars().count() > NAME_CHARS || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')))
    {
        section.fault("name", "must have at most 63 characters: letters, digits, `_` and `-`");
    }
    let description = section.text("description", "");
    if description.chars().count() > DESCRIPTION_CHARS {
        section.fault("description", "must have at most 256 characters");
    }
    let sentinel = sentinel(section, base);
    let nodes = nodes(section, sentinel.is_some());
    let address_map = address_map(section);
    let password = match (section.optional_text("password_file"), section.optional_text("password_env")) {
        (Some(_), Some(_)) => {
            section.fault("password_env", "cannot stand beside password_file");
            PasswordSource::Absent
        }
        (Some(file), None) => PasswordSource::File(base.join(file)),
        (None, Some(variable)) => PasswordSource::Environment(variable),
        (None, None) => PasswordSource::Absent,
    };
    if section.value("password").is_some() {
        section
            .fault("password", "a password does not stand in this file; put it into a file of its own and name that with password_file, or use password_env");
    }
    let username = section.optional_text("username");
    if username.is_some() && password == PasswordSource::Absent {
        section.fault("username", "needs password_file or password_env");
    }
    let mut discovery_allow = Vec::new();
    for (index, network) in section.texts("discovery_allow").iter().enumerate() {
        match network.parse() {
            Ok(network) => discovery_allow.push(network),
            Err(_) => section.fault(&format!("discovery_allow[{index}]"), "must be a network such as 10.1.0.0/16"),
        }
    }
    let mut labels = section.section("labels");
    let labels = labels_of(&mut labels);
    let tls = tls(section, base);
    let flavor = flavor(section.section("flavor"));
    let zone = section.optional_text("zone");
    let no_snapshot = no_snapshot(section);
    let plan = schedule::plan(section);
    let policies = schedule::policies(section, id.as_ref(), modified);
    let allow_primary = section.flag("allow_primary");
    let allow_output_buffer_risk = section.flag("allow_output_buffer_risk");
    let portable_dump = section.flag("portable_dump");
    let id = id?;
    Some(Definition {
        name: name.unwrap_or_else(|| id.to_string()),
        id,
        folder_id,
        description,
        labels,
        zone,
        created_at: modified,
        nodes,
        username,
        password,
        tls,
        allow_primary,
        allow_output_buffer_risk,
        portable_dump,
        discovery_allow,
        sentinel,
        address_map,
        origin: Origin::Configured,
        is_adopting: false,
        flavor,
        no_snapshot,
        plan,
        policies,
        local: None,
    })
}

/// Reads `no_snapshot = ["mon-fri 08:00-20:00"]` with the cluster's `time_zone`.
fn no_snapshot(section: &mut Section<'_>) -> Windows {
    let zone = match section.text("time_zone", "UTC").parse::<Tz>() {
        Ok(zone) => zone,
        Err(_) => {
            section.fault("time_zone", "must be the name of a time zone, such as Europe/Berlin");
            Tz::UTC
        }
    };
    let windows = Windows::new(zone, &section.texts("no_snapshot"));
    windows.unwrap_or_else(|(index, bad)| {
        match bad {
            BadWindow::Form | BadWindow::Empty => section.fault(&format!("no_snapshot[{index}]"), &bad.to_string()),
            BadWindow::TooMany | BadWindow::Always => section.fault("no_snapshot", &bad.to_string()),
        }
        Windows::default()
    })
}

/// Reads `tls = { ca, cert, key }`; an empty table means the authorities that the system trusts.
fn tls(section: &mut Section<'_>, base: &Path) -> Option<Tls> {
    let Value::Table(table) = section.value("tls")? else {
        section.fault("tls", "must be a table such as { ca = \"ca.pem\" }; an empty one trusts the authorities of the system");
        return None;
    };
    let mut tls = section.inner("tls", table);
    let [ca, cert, key] = ["ca", "cert", "key"].map(|name| {
        let path = base.join(tls.optional_text(name)?);
        let pem = read_pem(&path).inspect_err(|what| tls.fault(name, &format!("{} cannot be read: {what}", path.display())));
        // What cannot be read has its fault already.
        Some(pem.unwrap_or_default())
    });
    let identity = tls.pair(cert.as_deref(), key.as_deref());
    let read = [&ca, &cert, &key].into_iter().flatten().all(|pem| !pem.is_empty());
    let built = read.then(|| Tls::new(ca.as_deref().map_or(Authorities::System, Authorities::Own), identity));
    let built = built.and_then(|built| {
        built
            .inspect_err(|fault| match fault {
                BadTls::Authorities | BadTls::System => tls.fault("ca", &fault.to_string()),
                BadTls::Certificate => tls.fault("cert", &fault.to_string()),
                BadTls::Key => tls.fault("key", &fault.to_string()),
            })
            .ok()
    });
    tls.end();
    built
}

fn read_pem(path: &Path) -> Result<Vec<u8>, String> {
    let mut pem = Vec::new();
    let file = File::open(path).map_err(|fault| fault.kind().to_string())?;
    file.take(PEM_BYTES + 1).read_to_end(&mut pem).map_err(|fault| fault.kind().to_string())?;
    match pem.len() as u64 {
        0 => Err("it is empty".to_owned()),
        1..=PEM_BYTES => Ok(pem),
        _ => Err(format!("it has more than {PEM_BYTES} bytes")),
    }
}

/// Reads `flavor = { id, name, vcpu, memory_gib }`, each of which may be left out.
fn flavor(mut section: Section<'_>) -> Flavor {
    let mut text = |key: &str| {
        let text = section.optional_text(key)?;
        if text.is_empty() || text.chars().count() > NAME_CHARS || text.chars().any(char::is_control) {
            section.fault(key, "must have 1 to 63 characters");
        }
        Some(text)
    };
    let name = text("name").unwrap_or_else(|| Flavor::ADOPTED.to_owned());
    let id = text("id").unwrap_or_else(|| name.clone());
    let vcpu = section.integer("vcpu", 1, 1..=FLAVOR_MOST) as u32;
    let is_sized = section.keys().iter().any(|key| key == "memory_gib");
    let memory_gib = section.integer("memory_gib", 1, 1..=FLAVOR_MOST) as u32;
    section.end();
    Flavor { id, name, vcpu, memory_gib: is_sized.then_some(memory_gib) }
}

fn labels_of(section: &mut Section<'_>) -> std::collections::BTreeMap<String, String> {
    let mut labels = std::collections::BTreeMap::new();
    for key in section.keys() {
        let Some(value) = section.optional_text(&key) else { continue };
        let legal =
            |text: &str| text.chars().count() <= LABEL_CHARS && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_./\\@".contains(c));
        if !legal(&key) || !key.starts_with(|c: char| c.is_ascii_lowercase()) || !legal(&value) {
            section.fault(&key, "labels have at most 63 characters of a-z, 0-9 and -_./\\@, and their names begin with a letter");
        }
        labels.insert(key, value);
    }
    if labels.len() > LABELS {
        section.fault("*", "must be at most 64 labels");
    }
    labels
}

/// Reads `sentinel = { master, nodes, username, password_file }`.
fn sentinel(section: &mut Section<'_>, base: &Path) -> Option<Sentinel> {
    let Value::Table(table) = section.value("sentinel")? else {
        section.fault("sentinel", "must be a table such as { master = \"main\", nodes = [\"10.0.0.1:26379\"] }");
        return None;
    };
    let mut sentinel = section.inner("sentinel", table);
    let master = sentinel.text("master", "");
    if master.is_empty() || master.chars().count() > MASTER_CHARS || master.chars().any(|c| c.is_control() || c.is_whitespace()) {
        sentinel.fault("master", "must be the name that the sentinels have for the primary");
    }
    let mut nodes = Vec::new();
    let texts = sentinel.texts("nodes");
    if texts.is_empty() || texts.len() > SENTINELS {
        sentinel.fault("nodes", &format!("must list 1 to {SENTINELS} sentinels"));
    }
    for (index, text) in texts.iter().enumerate() {
        match text.parse() {
            Ok(address) => nodes.push(address),
            Err(fault) => sentinel.fault(&format!("nodes[{index}]"), &BadAddress::to_string(&fault)),
        }
    }
    let password = match (sentinel.optional_text("password_file"), sentinel.optional_text("password_env")) {
        (Some(_), Some(_)) => {
            sentinel.fault("password_env", "cannot stand beside password_file");
            PasswordSource::Absent
        }
        (Some(file), None) => PasswordSource::File(base.join(file)),
        (None, Some(variable)) => PasswordSource::Environment(variable),
        (None, None) => PasswordSource::Absent,
    };
    let username = sentinel.optional_text("username");
    if username.is_some() && password == PasswordSource::Absent {
        sentinel.fault("username", "needs password_file or password_env");
    }
    sentinel.end();
    Some(Sentinel { master, nodes, username, password })
}

/// Reads `address_map = { "10.1.2.3:6379" = "redis-0.example:6379" }`.
fn address_map(section: &mut Section<'_>) -> BTreeMap<Address, Address> {
    let mut map = BTreeMap::new();
    let mut entries = section.section("address_map");
    for key in entries.keys() {
        let Some(value) = entries.optional_text(&key) else { continue };
        match (key.parse(), value.parse()) {
            (Ok(announced), Ok(reached)) => drop(map.insert(announced, reached)),
            (Err(_), _) => entries.fault(&key, "the announced address must be `host:port` or `[ipv6]:port`"),
            (Ok(_), Err(fault)) => entries.fault(&key, &BadAddress::to_string(&fault)),
        }
    }
    if map.len() > ADDRESSES {
        entries.fault("*", &format!("must be at most {ADDRESSES} addresses"));
    }
    map
}

fn nodes(section: &mut Section<'_>, has_sentinels: bool) -> Vec<Node> {
    let values = section.list("nodes");
    if (values.is_empty() && !has_sentinels) || values.len() > HOSTS {
        section.fault("nodes", &format!("must list 1 to {HOSTS} servers"));
    }
    let mut nodes = Vec::new();
    for (index, value) in values.into_iter().enumerate() {
        let key = format!("nodes[{index}]");
        let (address, mut rest) = match value {
            Value::String(address) => (Some(address), None),
            Value::Table(table) => {
                let mut node = section.inner(&key, table);
                (node.optional_text("address"), Some(node))
            }
            _ => (None, None),
        };
        let memory_limit = rest.as_mut().and_then(|node| {
            let limit = node.value("memory_limit")?;
            let bytes = match &limit {
                Value::Integer(bytes) => u64::try_from(*bytes).ok(),
                Value::String(text) => size(text),
                _ => None,
            };
            if bytes.is_none() {
                node.fault("memory_limit", "must be a number of bytes, or a size such as \"2GiB\"");
            }
            bytes
        });
        let failure_domain = rest.as_mut().and_then(|node| {
            let domain = node.optional_text("failure_domain")?;
            if domain.is_empty() || domain.len() > DOMAIN_BYTES || domain.chars().any(char::is_control) {
                node.fault("failure_domain", &format!("must have 1 to {DOMAIN_BYTES} bytes without control characters"));
            }
            Some(domain)
        });
        if let Some(node) = rest {
            node.end();
        }
        match address.as_deref().unwrap_or_default().parse() {
            Ok(address) => nodes.push(Node { address, memory_limit, failure_domain }),
            Err(fault) => section.fault(&key, &BadAddress::to_string(&fault)),
        }
    }
    nodes
}

/// Reads `512MiB`, `2GB` and the like, in bytes.
pub(super) fn size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit.trim() {
        "B" => 1,
        "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}
