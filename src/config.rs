//! The configuration: file, environment and flags become one checked value.
//!
//! Every fault is reported at once, with its key; unknown keys are refused. Relative paths are relative to the file. No
//! secret is part of it: passwords stay in files or the environment.

mod artifacts;
mod audit;
mod auth;
mod buckets;
mod clusters;
mod engines;
mod memstore;
mod names;
mod pipeline;
mod restore;
mod section;
mod server;

use crate::artifacts as storage;
use crate::auth::{Mode, Options as AuthOptions};
use crate::executor;
use crate::fleet::Definition;
use crate::secrets;
use crate::store::Zones;
use chrono::{DateTime, Utc};
pub use memstore::MemStore;
pub use names::{Authority, Host, Origin};
use section::{Faults, Section};
pub use server::{ClientAuth, Limits, Server, Tls};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest configuration file, in bytes.
const FILE_BYTES: u64 = 1024 * 1024;

/// Most snapshots of one cluster at once: each takes the memory of its buffers.
const SHARDS_AT_ONCE: u64 = 64;

/// File that is read when none is named and it is there.
pub const DEFAULT_FILE: &str = "redkeep.toml";

/// Prefix of the environment's variables; `REDKEEP_SERVER__LISTEN` is `server.listen`.
const PREFIX: &str = "REDKEEP_";

/// The configuration of the service.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the API is served.
    pub listen: SocketAddr,
    /// Where health and metrics are served.
    pub admin_listen: SocketAddr,
    /// How callers log in.
    pub auth: AuthOptions,
    /// How the port of the API is reached, beside its address.
    pub server: Server,
    /// Folder of the embedded store.
    pub store: PathBuf,
    /// How the audit log is kept; none when it is not.
    pub audit: Option<crate::audit::Options>,
    /// How artifacts are stored.
    pub artifacts: storage::Options,
    /// To whom artifacts are encrypted, and what they are read back with.
    pub encryption: storage::Encryption,
    /// Where dumps may be exported to.
    pub buckets: Vec<storage::bucket::Options>,
    /// How operations are worked on.
    pub executor: executor::Options,
    /// Clusters that are known.
    pub clusters: Vec<Definition>,
    /// Key with which credentials given over the API are sealed; without one the API takes none.
    pub secrets: Option<secrets::Key>,
    /// How the MemStore calls work.
    pub memstore: MemStore,
    /// The file it was read from, if there is one.
    pub file: Option<PathBuf>,
}

/// What is wrong with the configuration: all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// One line a fault, each beginning with its key.
    pub faults: Vec<String>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.faults.as_slice() {
            [fault] => write!(f, "the configuration has a fault\n  {fault}"),
            faults => {
                write!(f, "the configuration has {} faults", faults.len())?;
                faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
            }
        }
    }
}

impl std::error::Error for Error {}

/// Reads the configuration: flags over environment over file over defaults. Without a named file, [`DEFAULT_FILE`] is read
/// if it is there.
///
/// # Errors
///
/// Every fault at once.
pub fn load(file: Option<&Path>, flags: &[(&str, String)]) -> Result<Config, Error> {
    // Variables that are no text cannot be ours by name; one of ours whose value is no text is a fault of its key.
    let environment = std::env::vars_os().filter_map(|(name, value)| Some((variable_key(name.to_str()?)?, value.to_string_lossy().into_owned())));
    let overrides: Vec<(String, String)> = environment.chain(flags.iter().map(|(key, value)| ((*key).to_owned(), value.clone()))).collect();
    let file = match file {
        Some(file) => Some(file.to_owned()),
        None => Some(PathBuf::from(DEFAULT_FILE)).filter(|file| file.exists()),
    };
    let Some(file) = file else {
        let here = std::env::current_dir().map_err(|fault| one(format!("the current folder cannot be told: {}", fault.kind())))?;
        return parse("", &here, &overrides, None, Utc::now());
    };
    let (text, modified) = read(&file).map_err(|what| one(format!("{}: {what}", file.display())))?;
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let base = std::path::absolute(parent).map_err(|fault| one(format!("{}: {}", file.display(), fault.kind())))?;
    parse(&text, &base, &overrides, Some(file), modified)
}

/// Reads and checks a file, and says what it found.
///
/// # Errors
///
/// As [`load`].
pub fn check(file: Option<&Path>) -> Result<(), Error> {
    let config = load(file, &[])?;
    let source = config.file.as_ref().map_or("the defaults".to_owned(), |file| file.display().to_string());
    println!("{source}: no fault found; {} cluster(s), listening on {}", config.clusters.len(), config.listen);
    println!("artifacts: {}", config.artifacts.root);
    for (folder, place) in &config.artifacts.folders {
        println!("artifacts of folder {folder}: {place}");
    }
    for bucket in &config.buckets {
        println!("bucket {}: {}", bucket.name, bucket.root);
    }
    Ok(())
}

/// Reads a place by its URL and the further keys of the section `[artifacts]`, for commands that work without a configuration.
/// Relative paths are relative to this folder.
///
/// # Errors
///
/// Every fault at once.
pub fn place(url: &str, options: &[(String, String)]) -> Result<storage::Place, Error> {
    let here = std::env::current_dir().map_err(|fault| one(format!("the current folder cannot be told: {}", fault.kind())))?;
    let mut table = toml::Table::new();
    let faults = Faults::default();
    for (key, value) in options {
        section::set(&mut table, key, value, &faults);
    }
    table.insert("url".to_owned(), toml::Value::String(url.to_owned()));
    let mut section = Section::new("", table, &faults);
    let place = artifacts::place(&mut section, &here, None);
    section.end();
    match (place, faults.take()) {
        (Some(place), faults) if faults.is_empty() => Ok(place),
        (_, faults) => Err(Error { faults }),
    }
}

fn one(fault: String) -> Error {
    Error { faults: vec![fault] }
}

fn read(file: &Path) -> Result<(String, DateTime<Utc>), String> {
    let metadata = std::fs::metadata(file).map_err(|fault| fault.kind().to_string())?;
    if metadata.len() > FILE_BYTES {
        return Err(format!("it has more than {FILE_BYTES} bytes"));
    }
    let text = std::fs::read_to_string(file).map_err(|fault| fault.kind().to_string())?;
    Ok((text, metadata.modified().map_or_else(|_| Utc::now(), DateTime::from)))
}

/// `REDKEEP_SERVER__LISTEN` as `server.listen`; `None` for variables with no section, which are for other purposes.
fn variable_key(name: &str) -> Option<String> {
    let key = name.strip_prefix(PREFIX)?;
    key.contains("__").then(|| key.to_ascii_lowercase().replace("__", "."))
}

/// Checks a text of TOML with overrides by key.
fn parse(text: &str, base: &Path, overrides: &[(String, String)], file: Option<PathBuf>, modified: DateTime<Utc>) -> Result<Config, Error> {
    let mut table: toml::Table = text.parse().map_err(|fault: toml::de::Error| one(format!("not valid TOML: {}", fault.to_string().trim_end())))?;
    let faults = Faults::default();
    for (key, value) in overrides {
        section::set(&mut table, key, value, &faults);
    }
    let mut root = Section::new("", table, &faults);

    let auth = auth::read(root.section("auth"), base);
    let mut server = root.section("server");
    let listen = server.address("listen", "127.0.0.1:7379");
    let admin_listen = server.address("admin_listen", "127.0.0.1:7380");
    let (options, plaintext) = server::read(&mut server, base);
    let login = if matches!(auth.mode, Mode::Open) { server::Login::None } else { server::Login::Required };
    if let Err(fault) = server::exposure(listen.ip(), login, options.tls.is_some(), plaintext) {
        server.fault("listen", fault);
    }
    // Health and metrics hold no secrets and need no TLS, but what runs here is nobody's business unless callers are known.
    if let Err(fault) = server::exposure(admin_listen.ip(), login, false, true) {
        server.fault("admin_listen", fault);
    }
    server.end();

    let mut store = root.section("store");
    let url = store.text("url", "sled:data/store");
    let store_path = match url.strip_prefix("sled:") {
        Some(path) if !path.is_empty() => base.join(path),
        _ => {
            store.fault("url", "must be `sled:` and a folder");
            PathBuf::new()
        }
    };
    store.end();

    let audit = audit::read(root.section("audit"), base, &store_path);

    let mut section = root.section("artifacts");
    let pipeline = pipeline::read(&mut section, base);
    let artifacts = artifacts::read(section, base);
    let mut section = root.section("executor");
    let defaults = executor::Options::default();
    let executor = executor::Options {
        snapshots_per_host: section.integer("snapshots_per_host", defaults.snapshots_per_host as u64, 1..=64) as usize,
        workers: section.integer("workers", defaults.workers as u64, 1..=256) as usize,
        shards_at_once: section.integer("shards_at_once", defaults.shards_at_once as u64, 1..=SHARDS_AT_ONCE) as usize,
        drain: section.duration("drain", defaults.drain, Duration::ZERO..=Duration::from_secs(3600)),
        refork_delay: section.duration("refork_delay", defaults.refork_delay, Duration::ZERO..=Duration::from_secs(24 * 3600)),
        deadline: section.duration("deadline", defaults.deadline, Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 3600)),
        zones: Zones::new(section.texts("zones")),
        delete_grace: section.duration("delete_grace", defaults.delete_grace, Duration::ZERO..=Duration::from_secs(365 * 24 * 3600)),
        retention: section.duration("retention", defaults.retention, Duration::from_secs(24 * 3600)..=Duration::from_secs(3650 * 24 * 3600)),
        rate_limit: pipeline.rate_limit,
        side_password_hashes: pipeline.side_password_hashes,
        engines: engines::read(root.section("engines"), base),
        restore: restore::read(root.section("restore"), base),
    };
    section.end();

    let memstore = memstore::read(root.section("memstore"));
    let buckets = buckets::read(root.sections("buckets"), base, &artifacts, &store_path);
    let mut section = root.section("secrets");
    let secrets = section.optional_text("key_file").and_then(|file| {
        let path = base.join(file);
        secrets::Key::read(&path).inspect_err(|fault| section.fault("key_file", &format!("{} {fault}", path.display()))).ok()
    });
    section.end();

    let clusters = clusters::read(root.sections("clusters"), base, modified);
    root.end();

    let faults = faults.take();
    if faults.is_empty() {
        Ok(Config {
            listen,
            admin_listen,
            server: options,
            auth,
            store: store_path,
            audit,
            artifacts,
            encryption: pipeline.encryption,
            buckets,
            executor,
            clusters,
            secrets,
            memstore,
            file,
        })
    } else {
        Err(Error { faults })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Flavor;
    use crate::fleet::PasswordSource;

    fn read(text: &str) -> Result<Config, Vec<String>> {
        read_with(text, &[])
    }

    fn read_with(text: &str, overrides: &[(&str, &str)]) -> Result<Config, Vec<String>> {
        let overrides: Vec<_> = overrides.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        parse(text, Path::new("/etc/redkeep"), &overrides, None, Utc::now()).map_err(|error| error.faults)
    }

    #[test]
    fn nothing_at_all_is_a_configuration() {
        let config = read("").unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:7379");
        assert_eq!(config.store, Path::new("/etc/redkeep/data/store"));
        assert_eq!(config.artifacts.root, PathBuf::from("/etc/redkeep/data/artifacts").into());
        assert_eq!(config.artifacts.compression, storage::Compression::Zstd(1));
        assert!(config.clusters.is_empty());
    }

    #[test]
    fn the_example_is_read() {
        let config = read(
            r#"
            [server]
            listen = "127.0.0.1:1"
            [artifacts]
            url = "file:/srv/backups"
            compression = "none"
            [executor]
            workers = 4
            refork_delay = "0s"
            zones = ["a"]
            [[clusters]]
            id = "demo"
            nodes = ["127.0.0.1:6379", { address = "10.0.0.1:6379", memory_limit = "2GiB", failure_domain = "rack1" }]
            username = "backup"
            password_file = "secrets/demo"
            discovery_allow = ["10.0.0.0/8"]
            labels = { team = "shop" }
            "#,
        )
        .unwrap();
        assert_eq!(config.artifacts.root, PathBuf::from("/srv/backups").into());
        assert_eq!(config.executor.refork_delay, Duration::ZERO);
        let cluster = &config.clusters[0];
        assert_eq!((cluster.id.as_str(), cluster.folder_id.as_str(), cluster.name.as_str()), ("demo", "default", "demo"));
        assert_eq!(cluster.nodes[1].memory_limit, Some(2 << 30));
        assert_eq!(cluster.password, PasswordSource::File("/etc/redkeep/secrets/demo".into()));
    }

    #[test]
    fn a_restore_has_a_feed_and_networks() {
        let default = read("").unwrap().executor.restore;
        assert_eq!(default, executor::RestoreOptions::default());
        assert_eq!(default.allow.iter().map(ToString::to_string).collect::<Vec<_>>(), ["127.0.0.0/8", "::1/128"]);
        let set = read("[restore]\nfeed_listen = \"10.0.0.5:16379\"\nfeed_advertise = \"backup.example\"\nallow = [\"10.1.0.0/16\"]").unwrap().executor.restore;
        assert_eq!(set.feed.listen.unwrap().to_string(), "10.0.0.5:16379");
        assert_eq!(set.feed.advertise.unwrap().host, "backup.example");
        assert_eq!(set.allow, ["10.1.0.0/16".parse().unwrap()]);
        assert!(read("[restore]\nallow = []").unwrap().executor.restore.allow.is_empty());
        let faults =
            read("[restore]\nfeed_listen = \"x\"\nfeed_advertise = \"a b\"\nallow = [1, \"x\"]\nfeed_tls = { cert = \"none\" }\nother = 1").unwrap_err();
        for key in ["feed_listen", "feed_advertise", "allow[0]", "allow[1]", "feed_tls.key", "other"] {
            assert!(faults.iter().any(|fault| fault.starts_with(&format!("restore.{key}: "))), "{key}: {faults:#?}");
        }
    }

    #[test]
    fn the_audit_log_lies_beside_the_store() {
        let audit = |text: &str| read(text).unwrap().audit;
        let default = audit("").unwrap();
        assert_eq!((default.file.as_path(), default.max_bytes, default.keep), (Path::new("/etc/redkeep/data/audit.jsonl"), 64 << 20, 10));
        assert_eq!(audit("[store]\nurl = \"sled:/srv/store\"").unwrap().file, Path::new("/srv/audit.jsonl"));
        let set = audit("[audit]\nfile = \"log/a\"\nmax_bytes = \"1MiB\"\nkeep = 3").unwrap();
        assert_eq!((set.file.as_path(), set.max_bytes, set.keep), (Path::new("/etc/redkeep/log/a"), 1 << 20, 3));
        assert_eq!(audit("[audit]\nenabled = false"), None);
        let faults = read("[audit]\nenabled = 1\nfile = \"\"\nmax_bytes = 1\nkeep = 0\nsecret = 1").unwrap_err();
        assert_eq!(faults.len(), 5, "{faults:#?}");
        assert!(faults.iter().all(|fault| fault.starts_with("audit.")), "{faults:#?}");
    }

    #[test]
    fn artifacts_lie_where_the_url_says() {
        let shown = |text: &str| {
            let config = read(text).unwrap();
            let mut shown = vec![config.artifacts.root.to_string()];
            shown.extend(config.artifacts.folders.iter().map(|(folder, place)| format!("{folder}: {place}")));
            shown.extend(config.buckets.iter().map(|bucket| format!("{}: {}", bucket.name, bucket.root)));
            shown
        };
        let text = r#"
            [artifacts]
            url = "s3://company-backups/redkeep"
            region = "eu-central-1"
            checksum = "sha256"
            [artifacts.folders.shop]
            url = "gs://shop-backups"
            [artifacts.folders.lab]
            url = "file:lab"
            [[buckets]]
            name = "reports"
            url = "az://reports/redis"
            account = "company"
            folders = ["default"]
            "#;
        let expected = [
            "s3://company-backups/redkeep, region eu-central-1",
            "lab: file:/etc/redkeep/lab",
            "shop: gs://shop-backups",
            "reports: az://reports/redis, account company",
        ];
        assert_eq!(shown(text), expected);
        let local = "[artifacts]\nurl = \"s3://a\"\nendpoint = \"http://127.0.0.1:9000\"";
        assert_eq!(shown(local), ["s3://a, endpoint http://127.0.0.1:9000"]);
        assert!(read("[artifacts]\nurl = \"s3://a\"\nendpoint = \"http://store:9000\"\nallow_http = true").is_ok());
    }

    #[test]
    fn faults_of_places_are_told_with_their_key() {
        for (text, told) in [
            ("url = \"ftp://a\"", "artifacts.url: must be `file:`"),
            ("url = \"s3://\"", "artifacts.url: must name a bucket"),
            ("url = \"s3://key:secret@a\"", "artifacts.url: must name a bucket"),
            ("url = \"file:\"", "artifacts.url: must be `file:` and a folder"),
            ("url = \"s3://a\"\nendpoint = \"http://store:9000\"", "artifacts.endpoint: is without TLS"),
            ("url = \"s3://a\"\nendpoint = \"store:9000\"", "artifacts.endpoint: must be a URL"),
            ("url = \"s3://a\"\nendpoint = \"https://me:word@store\"", "artifacts.endpoint: must be a URL"),
            ("url = \"s3://a\"\nchecksum = \"md5\"", "artifacts.checksum: must be"),
            ("url = \"s3://a\"\naccess_key = \"secret\"", "artifacts.access_key: is not known here"),
            ("url = \"s3://a\"\naccess_key_file = \"/etc/hostname\"", "artifacts.access_key_file: and secret_key_file"),
            ("url = \"s3://a\"\nsecret_key_file = \"absent\"", "artifacts.secret_key_file: /etc/redkeep/absent cannot be read"),
            ("url = \"gs://a\"\nregion = \"eu\"", "artifacts.region: is not known here"),
            ("endpoint = \"https://store\"", "artifacts.endpoint: is not known here"),
            ("url = \"s3://a\"\n[artifacts.folders.x]\nurl = \"s3://a/b\"", "artifacts.folders.x.url: must not lie"),
            ("[artifacts.folders.X]\nurl = \"s3://b\"", "artifacts.folders.X: "),
            ("[artifacts.folders.x]", "artifacts.folders.x.url: must be given"),
            (
                "url = \"s3://a/b\"\n[[buckets]]\nname = \"r\"\nfolders = [\"default\"]\nurl = \"s3://a\"",
                "buckets[0].url: must not lie inside of artifacts.url",
            ),
        ] {
            let faults = read(&format!("[artifacts]\n{text}\n")).unwrap_err();
            assert!(faults.iter().any(|fault| fault.starts_with(told)), "{text}: {faults:#?}");
            assert!(!faults.iter().any(|fault| fault.contains("word") || fault.contains("secret@")), "{faults:#?}");
        }
    }

    #[test]
    fn every_fault_is_told_at_once_with_its_key() {
        let faults = read(
            r#"
            [server]
            listen = "0.0.0.0:7379"
            colour = "red"
            [executor]
            workers = 0
            drain = "soon"
            [[clusters]]
            id = "Demo"
            nodes = []
            [[clusters]]
            id = "ok"
            nodes = ["nonsense"]
            password = "hunter2"
            [tls]
            "#,
        )
        .unwrap_err();
        let told = |part: &str| faults.iter().any(|fault| fault.starts_with(part));
        for part in [
            "server.listen: ",
            "server.colour: ",
            "executor.workers: ",
            "executor.drain: ",
            "clusters[0].id: ",
            "clusters[0].nodes: ",
            "clusters[1].nodes[0]: ",
            "clusters[1].password: ",
            "tls: ",
        ] {
            assert!(told(part), "{part} in {faults:#?}");
        }
        assert_eq!(faults.len(), 9, "{faults:#?}");
        assert!(!faults.iter().any(|fault| fault.contains("hunter2")));
    }

    #[test]
    fn flags_win_over_the_environment_over_the_file() {
        let text = "[server]\nlisten = \"127.0.0.1:1\"\n";
        let config = read_with(text, &[("server.listen", "127.0.0.1:2"), ("executor.workers", "3"), ("server.listen", "127.0.0.1:3")]).unwrap();
        assert_eq!((config.listen.port(), config.executor.workers), (3, 3));
        assert_eq!(read_with(text, &[("server.nonsense", "1")]).unwrap_err().len(), 1);
        assert_eq!(variable_key("REDKEEP_SERVER__LISTEN").as_deref(), Some("server.listen"));
        assert_eq!(variable_key("REDKEEP_ENDPOINT"), None);
    }

    #[test]
    fn the_memstore_calls_are_served_unless_told_otherwise() {
        let defaults = read("").unwrap().memstore;
        assert_eq!(defaults, MemStore { enabled: true, allow_cluster_mode: false, quota: None, project: "default".parse().unwrap() });
        let set = read("[memstore]\nenabled = false\nallow_cluster_mode = true\nquota = 100\nproject = \"shop\"\n").unwrap().memstore;
        assert_eq!(set, MemStore { enabled: false, allow_cluster_mode: true, quota: Some(100), project: "shop".parse().unwrap() });
        let faults = read("[memstore]\nenabled = 1\nquota = 10001\nproject = \"A\"\npath = \"/v1\"\n").unwrap_err();
        assert_eq!(faults.len(), 4, "{faults:#?}");
        assert!(faults.iter().all(|fault| fault.starts_with("memstore.")), "{faults:#?}");
    }

    #[test]
    fn a_cluster_may_tell_its_flavor() {
        let flavor = |text: &str| read(&format!("[[clusters]]\nid = \"a\"\nnodes = [\"h:1\"]\n{text}\n")).map(|config| config.clusters[0].flavor.clone());
        assert_eq!(flavor("").unwrap(), Flavor::default());
        let whole = flavor("flavor = { id = \"7a\", name = \"m2a.large\", vcpu = 2, memory_gib = 8 }").unwrap();
        assert_eq!(whole, Flavor { id: "7a".into(), name: "m2a.large".into(), vcpu: 2, memory_gib: Some(8) });
        let named = flavor("flavor = { name = \"m2a.large\" }").unwrap();
        assert_eq!(named, Flavor { id: "m2a.large".into(), name: "m2a.large".into(), ..Flavor::default() });
        for (bad, key) in [
            ("{ vcpu = 0 }", "clusters[0].flavor.vcpu: "),
            ("{ memory_gib = 0 }", "clusters[0].flavor.memory_gib: "),
            ("{ memory_gib = -1 }", "clusters[0].flavor.memory_gib: "),
            ("{ name = \"\" }", "clusters[0].flavor.name: "),
            ("{ disk = 1 }", "clusters[0].flavor.disk: "),
            ("\"large\"", "clusters[0].flavor: "),
        ] {
            let faults = flavor(&format!("flavor = {bad}")).unwrap_err();
            assert!(matches!(faults.as_slice(), [only] if only.starts_with(key)), "{bad}: {faults:?}");
        }
    }

    #[test]
    fn windows_of_a_cluster_are_read_and_their_faults_named() {
        let cluster = |lines: &str| read(&format!("[[clusters]]\nid = \"a\"\nnodes = [\"h:1\"]\n{lines}\n"));
        let windows =
            cluster("no_snapshot = [\"mon-fri 08:00-20:00\", \"22:00-02:00\"]\ntime_zone = \"Europe/Berlin\"").unwrap().clusters[0].no_snapshot.clone();
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        assert_eq!(windows.next_allowed(at("2026-11-20T08:00:00Z")), at("2026-11-20T19:00:00Z"));
        for (lines, fault) in [
            ("time_zone = \"Berlin\"", "clusters[0].time_zone: must be the name"),
            ("no_snapshot = [\"01:00-02:00\", \"at night\"]", "clusters[0].no_snapshot[1]: must be a time of day"),
            ("no_snapshot = [\"01:00-01:00\"]", "clusters[0].no_snapshot[0]: begins and ends"),
            ("no_snapshot = [\"00:00-24:00\"]", "clusters[0].no_snapshot: leave no minute"),
            ("no_snapshot = \"01:00-02:00\"", "clusters[0].no_snapshot: must be a list"),
        ] {
            let faults = cluster(lines).unwrap_err();
            assert!(matches!(faults.as_slice(), [only] if only.starts_with(fault)), "{lines}: {faults:?}");
        }
        let domain = "[[clusters]]\nid = \"a\"\nnodes = [{ address = \"h:1\", failure_domain = \"\" }]\n";
        assert!(read(domain).unwrap_err()[0].starts_with("clusters[0].nodes[0].failure_domain: "));
        assert_eq!(read("[executor]\nsnapshots_per_host = 3").unwrap().executor.snapshots_per_host, 3);
        assert!(read("[executor]\nsnapshots_per_host = 0").unwrap_err()[0].starts_with("executor.snapshots_per_host: "));
    }

    #[test]
    fn buckets_are_read() {
        let text = "[[buckets]]\nname = \"reports\"\nurl = \"file:exports\"\nfolders = [\"default\", \"shop\"]\n\
            [[buckets]]\nname = \"far\"\nurl = \"file:///srv/exports\"\nfolders = [\"default\"]\n";
        let config = read(text).unwrap();
        let told = |index: usize| (config.buckets[index].name.as_str(), config.buckets[index].root.to_string(), config.buckets[index].folders.len());
        let expected = (("reports", "file:/etc/redkeep/exports".to_owned(), 2), ("far", "file:/srv/exports".to_owned(), 1));
        assert_eq!((told(0), told(1)), expected);
    }

    #[test]
    fn every_fault_of_a_bucket_is_told() {
        let bucket = |name: &str, url: &str, folders: &str| format!("[[buckets]]\nname = \"{name}\"\nurl = \"{url}\"\nfolders = {folders}\n");
        for (text, faults) in [
            (bucket("a", "ftp://reports", "[\"default\"]"), vec!["buckets[0].url: must be `file:`"]),
            (bucket("a", "file:", "[\"default\"]"), vec!["buckets[0].url: must be `file:`"]),
            (bucket("Reports", "file:x", "[]"), vec!["buckets[0].name: must consist of", "buckets[0].folders: must list"]),
            (bucket("a", "file:x", "[\"Shop\"]"), vec!["buckets[0].folders[0]: must consist of"]),
            (bucket("a", "file:x", "[\"a\"]") + &bucket("a", "file:y", "[\"a\"]"), vec!["buckets[1].name: another bucket"]),
            (bucket("a", "file:data/artifacts/x", "[\"a\"]"), vec!["buckets[0].url: must not lie inside of artifacts.url"]),
            (
                bucket("a", "file:data", "[\"a\"]"),
                vec!["buckets[0].url: must not lie inside of artifacts.url", "buckets[0].url: must not lie inside of store.url"],
            ),
            (
                "[[buckets]]\nregion = \"x\"\n".to_owned(),
                vec!["buckets[0].name: must be given", "buckets[0].url: must be", "buckets[0].folders: must list", "buckets[0].region: is not known"],
            ),
        ] {
            let told = read(&text).unwrap_err();
            assert_eq!(told.len(), faults.len(), "{told:#?}");
            assert!(told.iter().zip(&faults).all(|(told, fault)| told.starts_with(fault)), "{told:#?}");
        }
        let many: String = (0..101).map(|number| bucket(&format!("b{number}"), &format!("file:x{number}"), "[\"a\"]")).collect();
        assert_eq!(read(&many).unwrap_err(), ["buckets[100].name: there must be at most 100 buckets"]);
    }

    #[test]
    fn files_of_keys_and_certificates_are_read_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let parse = |text: &str| parse(text, folder.path(), &[], None, Utc::now()).map_err(|error| error.faults);
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        for (name, text) in [("ca.pem", own.cert.pem()), ("key.pem", own.signing_key.serialize_pem()), ("empty.pem", String::new())] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        secrets::Key::create(&folder.path().join("key")).unwrap();
        let cluster = |tls: &str| format!("[secrets]\nkey_file = \"key\"\n[[clusters]]\nid = \"a\"\nnodes = [\"h:1\"]\ntls = {tls}\n");
        let config = parse(&cluster("{ ca = \"ca.pem\", cert = \"ca.pem\", key = \"key.pem\" }")).unwrap();
        assert!(config.secrets.is_some() && config.clusters[0].tls.is_some());
        for (tls, fault) in [
            ("true", "clusters[0].tls: must be a table"),
            ("{ ca = \"none.pem\" }", "clusters[0].tls.ca: "),
            ("{ ca = \"empty.pem\" }", "clusters[0].tls.ca: "),
            ("{ ca = \"key.pem\" }", "clusters[0].tls.ca: must hold certificates"),
            ("{ ca = \"ca.pem\", cert = \"ca.pem\" }", "clusters[0].tls.key: must be given"),
            ("{ ca = \"ca.pem\", key = \"key.pem\" }", "clusters[0].tls.cert: must be given"),
            ("{ ca = \"ca.pem\", cert = \"ca.pem\", key = \"ca.pem\" }", "clusters[0].tls.key: must hold"),
            ("{ ca = \"ca.pem\", verify = false }", "clusters[0].tls.verify: is not known here"),
        ] {
            let faults = parse(&cluster(tls)).unwrap_err();
            assert!(matches!(faults.as_slice(), [only] if only.starts_with(fault)), "{tls}: {faults:?}");
        }
        let faults = parse("[secrets]\nkey_file = \"none\"\n").unwrap_err();
        assert!(matches!(faults.as_slice(), [only] if only.starts_with("secrets.key_file: ")), "{faults:?}");
        assert!(parse("[secrets]\nkey_file = \"ca.pem\"\n").is_err());
    }

    #[test]
    fn beyond_loopback_callers_log_in() {
        for (mode, faults) in [("none", 2), ("tokens", 0)] {
            let file = if mode == "tokens" { "file = \"tokens\"" } else { "" };
            let text = format!("[server]\nplaintext = true\nlisten = \"0.0.0.0:7379\"\nadmin_listen = \"[::]:7380\"\n[auth]\nmode = \"{mode}\"\n{file}\n");
            assert_eq!(read(&text).err().unwrap_or_default().len(), faults, "{mode}");
        }
    }

    #[test]
    fn the_port_is_described() {
        let config = read(
            r#"
            [server]
            listen = "[::1]:443"
            advertise = "Backups.example:443"
            allowed_hosts = ["redkeep.internal", "10.0.0.7"]
            cors_origins = ["https://console.example"]
            max_connections = 10
            max_in_flight = 20
            header_timeout = "1s"
            body_timeout = "2s"
            idle_timeout = "3s"
            "#,
        )
        .unwrap();
        let server = config.server;
        assert_eq!(server.advertised(config.listen).to_string(), "backups.example:443");
        assert_eq!((server.allowed_hosts.len(), server.cors_origins[0].to_string().as_str()), (2, "https://console.example"));
        let seconds = |seconds| Duration::from_secs(seconds);
        let limits = Limits { max_connections: 10, max_in_flight: 20, header_timeout: seconds(1), body_timeout: seconds(2), idle_timeout: seconds(3) };
        assert_eq!(server.limits, limits);
        assert_eq!(read("").unwrap().server.limits, Limits::default());
        assert!(read("").unwrap().server.tls.is_none());
    }

    #[test]
    fn faults_of_the_port_are_told_with_their_key() {
        for (text, told) in [
            ("advertise = \"a b\"", "server.advertise: "),
            ("advertise = \"a:0\"", "server.advertise: "),
            ("allowed_hosts = [\"a:1\"]", "server.allowed_hosts[0]: "),
            ("cors_origins = [\"https://a\", \"*\"]", "server.cors_origins[1]: must be an exact origin"),
            ("cors_origins = [\"https://a/b\"]", "server.cors_origins[0]: "),
            ("max_connections = 0", "server.max_connections: "),
            ("header_timeout = \"0s\"", "server.header_timeout: "),
            ("admin_listen = \"0.0.0.0:1\"", "server.admin_listen: must be a loopback address"),
            ("[server.tls]", "server.tls.cert: must name a file"),
            ("[server.tls]\ncert = \"absent.pem\"\nkey = \"absent.pem\"", "server.tls.cert: the file cannot be read"),
            ("[server.tls]\nclient_auth = \"required\"", "server.tls.client_ca: "),
            ("[server.tls]\nclient_auth = \"maybe\"", "server.tls.client_auth: "),
            ("[server.tls]\npassword = \"sesame\"", "server.tls.password: is not known here"),
        ] {
            let faults = read(&format!("[server]\n{text}\n")).unwrap_err();
            assert!(faults.iter().any(|fault| fault.starts_with(told)), "{text}: {faults:#?}");
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("server.pem");
        std::fs::write(&file, "").unwrap();
        let file = file.display();
        let faults = read(&format!("[server]\nplaintext = true\n[server.tls]\ncert = \"{file}\"\nkey = \"{file}\"\n")).unwrap_err();
        assert_eq!(faults, ["server.plaintext: cannot stand beside [server.tls]: the port speaks one or the other"]);
    }

    #[test]
    fn two_clusters_of_one_id_are_refused() {
        let faults = read("[[clusters]]\nid = \"a\"\nnodes = [\"h:1\"]\n[[clusters]]\nid = \"a\"\nnodes = [\"h:2\"]\n").unwrap_err();
        assert_eq!(faults, ["clusters[1].id: another cluster has it already"]);
    }
}
