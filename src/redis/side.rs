//! What a dump does not hold and a restore needs: users, modules, configuration, topology.
//!
//! Nothing secret is taken along unless it is asked for: password hashes of users only on demand; values of secret parameters
//! never, nor any that look like a secret. What the account may not ask is named, and is no failure.

use super::connection::{Connection, Reply};
use super::{Error, Target, clean};
use serde::Serialize;
use std::collections::BTreeMap;

/// Longest text of one part, in bytes; a longer one is left out and named.
const PART_BYTES: usize = 256 * 1024;

/// Most users, modules or parameters that are listed.
const ENTRIES: usize = 10_000;

/// Version of the format.
const FORMAT_VERSION: u32 = 1;

/// Whether password hashes of users are taken along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordHashes {
    /// They are.
    Kept,
    /// They are left out: users are restored without a password, and let nobody in before they get one.
    LeftOut,
}

/// The side state of one server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Side {
    /// Version of this format.
    pub format_version: u32,
    /// The server that told it.
    pub host: String,
    /// Facts of the server: version, mode, architecture.
    pub server: BTreeMap<String, String>,
    /// Users with their rights, each as `ACL LIST` and an ACL file have it.
    pub acl: Vec<String>,
    /// Whether the users are listed with the hashes of their passwords.
    pub acl_has_password_hashes: bool,
    /// Modules that are loaded.
    pub modules: Vec<Module>,
    /// Parameters, without secrets.
    pub config: BTreeMap<String, String>,
    /// Names of parameters whose values are left out, as they are secret or look so.
    pub config_left_out: Vec<String>,
    /// The topology: lines of `CLUSTER NODES` in cluster mode, else the fields of `INFO replication`.
    pub topology: Vec<String>,
    /// What the server did not tell, and why.
    pub missing: BTreeMap<String, String>,
}

/// A module. The arguments that it was loaded with may hold secrets and are not kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Module {
    /// Its name.
    pub name: String,
    /// Its version, as the module counts.
    pub version: i64,
}

impl Side {
    /// Asks a server. Whatever it does not answer is named in [`Side::missing`].
    ///
    /// # Errors
    ///
    /// [`Error`] when no connection can be made. One that is lost on the way leaves the rest missing.
    pub async fn ask(target: &Target, hashes: PasswordHashes) -> Result<Self, Error> {
        let mut asking = Asking { connection: Connection::open(target).await?, missing: BTreeMap::new() };
        let mut side = Self { format_version: FORMAT_VERSION, host: target.name.clone(), ..Self::default() };
        if let Some(reply) = asking.ask("INFO server", &[b"INFO", b"server"]).await {
            side.server = server(&reply.text().unwrap_or_default());
        }
        if let Some(reply) = asking.ask("ACL LIST", &[b"ACL", b"LIST"]).await {
            side.acl = reply.elements().iter().take(ENTRIES).filter_map(Reply::text).map(|user| user_line(&user, hashes)).collect();
            side.acl_has_password_hashes = hashes == PasswordHashes::Kept;
        }
        if let Some(reply) = asking.ask("MODULE LIST", &[b"MODULE", b"LIST"]).await {
            side.modules = reply.elements().iter().take(ENTRIES).filter_map(module).collect();
        }
        if let Some(reply) = asking.ask("CONFIG GET", &[b"CONFIG", b"GET", b"*"]).await {
            for pair in reply.elements().chunks(2).take(ENTRIES) {
                let (Some(name), value) = (pair[0].text(), pair.get(1).and_then(Reply::text).unwrap_or_default()) else { continue };
                if is_secret_name(&name) || looks_secret(&value) {
                    side.config_left_out.push(name);
                } else {
                    side.config.insert(name, value);
                }
            }
        }
        if side.server.get("redis_mode").is_some_and(|mode| mode == "cluster") {
            if let Some(reply) = asking.ask("CLUSTER NODES", &[b"CLUSTER", b"NODES"]).await {
                side.topology = reply.text().unwrap_or_default().lines().take(ENTRIES).map(str::to_owned).collect();
            }
        } else if let Some(reply) = asking.ask("INFO replication", &[b"INFO", b"replication"]).await {
            let text = reply.text().unwrap_or_default();
            side.topology = text.lines().filter(|line| line.contains(':')).take(ENTRIES).map(str::to_owned).collect();
        }
        side.missing = asking.missing;
        Ok(side)
    }

    /// As JSON of at most `most` bytes: parts that make it longer are left out, the longest first, and named.
    pub fn json(&self, most: usize) -> Vec<u8> {
        let mut side = self.clone();
        loop {
            let bytes = serde_json::to_vec_pretty(&side).unwrap_or_default();
            if bytes.len() <= most {
                return bytes;
            }
            let length = |lines: &[String]| lines.iter().map(String::len).sum::<usize>();
            let config = side.config.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() + length(&side.config_left_out);
            let modules = side.modules.iter().map(|module| module.name.len() + 1).sum::<usize>();
            let parts = [("ACL LIST", length(&side.acl)), ("CONFIG GET", config), ("topology", length(&side.topology)), ("MODULE LIST", modules)];
            let longest = parts.into_iter().max_by_key(|(_, length)| *length).filter(|(_, length)| *length > 0);
            match longest.map(|(part, _)| part) {
                Some("ACL LIST") => side.acl.clear(),
                Some("CONFIG GET") => {
                    side.config.clear();
                    side.config_left_out.clear();
                }
                Some("topology") => side.topology.clear(),
                Some("MODULE LIST") => side.modules.clear(),
                Some(_) | None => return Vec::new(),
            }
            if let Some((part, _)) = longest {
                side.missing.insert(part.to_owned(), format!("all together would have more than {most} bytes"));
            }
        }
    }
}

struct Asking {
    connection: Connection,
    missing: BTreeMap<String, String>,
}

impl Asking {
    /// The reply to a question, unless it is none or too long.
    async fn ask(&mut self, name: &str, question: &[&[u8]]) -> Option<Reply> {
        let why = match self.connection.call(question).await {
            Ok(reply) if bytes(&reply) <= PART_BYTES => return Some(reply),
            Ok(_) => format!("it has more than {PART_BYTES} bytes"),
            Err(fault) => fault.to_string(),
        };
        self.missing.insert(name.to_owned(), clean(&why));
        None
    }
}

fn bytes(reply: &Reply) -> usize {
    match reply {
        Reply::Simple(text) | Reply::Error(text) => text.len(),
        Reply::Integer(_) => 8,
        Reply::Bulk(bytes) => bytes.as_ref().map_or(0, Vec::len),
        Reply::Array(elements) => elements.iter().flatten().map(bytes).sum(),
    }
}

/// Fields of `INFO server` that say what a server of the same kind must be like.
const SERVER: [&str; 13] = [
    "redis_version",
    "valkey_version",
    "server_name",
    "valkey_release_stage",
    "redis_mode",
    "server_mode",
    "redis_build_id",
    "os",
    "arch_bits",
    "monotonic_clock",
    "multiplexing_api",
    "run_id",
    "uptime_in_seconds",
];

fn server(info: &str) -> BTreeMap<String, String> {
    let fields = info.lines().filter_map(|line| line.trim_end().split_once(':'));
    fields.filter(|(name, _)| SERVER.contains(name)).map(|(name, value)| (name.to_owned(), clean(value))).collect()
}

/// A line of `ACL LIST`, without what would let somebody in.
fn user_line(line: &str, hashes: PasswordHashes) -> String {
    match hashes {
        PasswordHashes::Kept => line.to_owned(),
        // `#` begins a hash, `>` a password; `<` and `!` take one away.
        PasswordHashes::LeftOut => line.split(' ').filter(|word| !word.starts_with(['#', '>', '<', '!'])).collect::<Vec<_>>().join(" "),
    }
}

/// Reads one element of `MODULE LIST`: names and values in turn.
fn module(reply: &Reply) -> Option<Module> {
    let mut module = Module { name: String::new(), version: 0 };
    for pair in reply.elements().chunks(2) {
        match (pair[0].text().as_deref(), pair.get(1)) {
            (Some("name"), Some(value)) => module.name = clean(&value.text()?),
            (Some("ver"), Some(Reply::Integer(version))) => module.version = *version,
            _ => {}
        }
    }
    (!module.name.is_empty()).then_some(module)
}

/// Parts of the names of parameters that are secret: passwords and the users that they belong to, on every engine and in modules.
const SECRET_NAMES: [&str; 10] = ["pass", "auth", "secret", "token", "credential", "masteruser", "primaryuser", "private", "apikey", "api-key"];

fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_NAMES.iter().any(|part| name.contains(part))
}

/// Shortest run of letters and digits that is taken for a secret, in characters.
const SECRET_CHARS: usize = 20;

/// Whether a value looks like a secret, whatever its name: a key, a hash, an address with a password.
fn looks_secret(value: &str) -> bool {
    let upper = value.to_ascii_uppercase();
    upper.contains("PRIVATE KEY")
        || upper.contains("SECRET-KEY")
        || value.split_whitespace().any(|word| {
            let has_password = word.split_once("://").is_some_and(|(_, rest)| rest.split('/').next().is_some_and(|host| host.contains('@')));
            let run = word.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '+' | '=' | '_' | '$')).max_by_key(|run| run.len()).unwrap_or_default();
            let mixed = run.bytes().any(|byte| byte.is_ascii_digit()) && run.bytes().any(|byte| byte.is_ascii_alphabetic());
            has_password || run.len() >= SECRET_CHARS && mixed
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_name_and_by_look() {
        for name in [
            "requirepass",
            "masterauth",
            "masteruser",
            "primaryauth",
            "primaryuser",
            "tls-key-file-pass",
            "tls-client-key-file-pass",
            "sentinel-pass",
            "search-oss-global-password",
            "Some-API-Key",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in ["maxmemory", "save", "tls-key-file", "aclfile", "bind", "appendonly"] {
            assert!(!is_secret_name(name), "{name}");
        }
        for value in [
            "redis://user:hunter2@host:6379",
            "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8",
            "$2b$10$abcdefghijklmnopqrstuv0123456789",
            "AGE-SECRET-KEY-1QQQ",
            "-----BEGIN PRIVATE KEY-----",
            "x dGhpcyBpcyBhIHNlY3JldCB0aGF0IGlzIGxvbmc0 y",
        ] {
            assert!(looks_secret(value), "{value}");
        }
        for value in [
            "",
            "3600 1 300 100 60 10000",
            "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
            "127.0.0.1 -::1",
            "/var/lib/redis/6379/dump.rdb",
            "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256",
            "{title} {listen-addr} {server-mode}",
            "redis://host:6379/0",
        ] {
            assert!(!looks_secret(value), "{value}");
        }
    }

    #[test]
    fn a_user_keeps_its_rights_and_not_its_password() {
        let line = "user backup on sanitize-payload #5e88 #ff00 ~* &* -@all +psync (~x +get)";
        assert_eq!(user_line(line, PasswordHashes::LeftOut), "user backup on sanitize-payload ~* &* -@all +psync (~x +get)");
        assert_eq!(user_line(line, PasswordHashes::Kept), line);
    }

    #[test]
    fn what_is_too_long_is_left_out_and_named() {
        let mut side = Side { acl: vec!["\u{1}".repeat(100_000)], topology: vec!["t".repeat(1000)], ..Side::default() };
        side.config.insert("maxmemory".to_owned(), "1".to_owned());
        let json = |most| serde_json::from_slice::<serde_json::Value>(&side.json(most)).unwrap();
        assert_eq!(json(10_000_000)["missing"], serde_json::json!({}));
        let shorter = json(100_000);
        assert_eq!((shorter["acl"].as_array().unwrap().len(), shorter["topology"].as_array().unwrap().len()), (0, 1));
        assert_eq!(shorter["config"]["maxmemory"], "1");
        assert!(shorter["missing"]["ACL LIST"].is_string());
        assert!(side.json(1).is_empty());
    }
}
