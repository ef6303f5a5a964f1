//! The real servers of five kinds that `tests/engines/fetch-engines` puts below `target/engines`.
//!
//! The tests of one engine run on whatever server this machine has. Those that ask for every engine are skipped, loudly, where
//! the engines were not fetched, and never where `CI` is set.

use super::server::{Builder, RedisServer, Version};
use std::path::PathBuf;

/// Names the folder of the engines when it is not `target/engines`.
pub const FOLDER_VARIABLE: &str = "REDKEEP_ENGINES";

/// A kind of server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Engine {
    /// The name of its folder.
    pub name: &'static str,
    /// The first two numbers of its version.
    pub release: (u32, u32),
    /// The word that its programs begin with.
    brand: &'static str,
}

/// Redis 6.2.
pub const REDIS_6_2: Engine = Engine { name: "redis-6.2", release: (6, 2), brand: "redis" };
/// Redis 7.0.
pub const REDIS_7_0: Engine = Engine { name: "redis-7.0", release: (7, 0), brand: "redis" };
/// Redis 8.0.
pub const REDIS_8_0: Engine = Engine { name: "redis-8.0", release: (8, 0), brand: "redis" };
/// Valkey 8.0.
pub const VALKEY_8_0: Engine = Engine { name: "valkey-8.0", release: (8, 0), brand: "valkey" };
/// Valkey 9.1.
pub const VALKEY_9_1: Engine = Engine { name: "valkey-9.1", release: (9, 1), brand: "valkey" };

/// All of them, by brand and age.
pub const ALL: [Engine; 5] = [REDIS_6_2, REDIS_7_0, REDIS_8_0, VALKEY_8_0, VALKEY_9_1];

impl Engine {
    /// The server program. It `exec`s the server.
    pub fn program(self) -> PathBuf {
        self.tool("server")
    }

    /// The checker of dumps.
    pub fn checker(self) -> PathBuf {
        self.tool("check-rdb")
    }

    /// The command line.
    pub fn cli(self) -> PathBuf {
        self.tool("cli")
    }

    /// A server of this kind, with the defaults of [`RedisServer::builder`].
    pub fn builder(self) -> Builder {
        RedisServer::builder().program(self.program())
    }

    /// The name as people write it, such as `Redis 6.2`.
    pub fn title(self) -> String {
        let (first, rest) = self.name.split_at(1);
        format!("{}{}", first.to_uppercase(), rest.replace('-', " "))
    }

    /// Whether it is Valkey.
    pub fn is_valkey(self) -> bool {
        self.brand == "valkey"
    }

    /// Whether a field of a hash can expire.
    pub fn has_field_expiry(self) -> bool {
        if self.is_valkey() { self.release >= (9, 0) } else { self.release >= (7, 4) }
    }

    /// Whether there are functions, instants of expiry that can be asked for, and ACL DRYRUN.
    pub fn is_modern(self) -> bool {
        self.release >= (7, 0)
    }

    fn tool(self, tool: &str) -> PathBuf {
        let folder = std::env::var_os(FOLDER_VARIABLE).map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/engines"), PathBuf::from);
        folder.join(self.name).join(format!("{}-{tool}", self.brand))
    }

    fn version(self) -> Option<Version> {
        self.program().exists().then(|| super::server::version_of(&self.program()))
    }
}

/// The engines that are there. Says loudly which are not; where `CI` is set all must be.
///
/// # Panics
///
/// When `CI` is set and one is missing, and when one is of another release than its folder says.
pub fn present() -> Vec<Engine> {
    let (mut present, mut missing) = (Vec::new(), Vec::new());
    for engine in ALL {
        match engine.version() {
            Some((major, minor, _)) => {
                assert_eq!((major, minor), engine.release, "{}", engine.name);
                present.push(engine);
            }
            None => missing.push(engine.name),
        }
    }
    if !missing.is_empty() {
        let words = format!("{} not fetched; run `make engines`", missing.join(", "));
        assert!(std::env::var_os("CI").is_none(), "{words}");
        eprintln!("SKIPPED: {words}");
    }
    present
}

/// Every engine; nothing is left out.
///
/// # Panics
///
/// When one is missing.
pub fn require_all() -> [Engine; 5] {
    let present = present();
    assert_eq!(present, ALL, "some engines are not fetched; run `make engines`");
    ALL
}
