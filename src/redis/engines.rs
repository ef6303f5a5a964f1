//! Server programs of this machine: which there are, what they are, and which of them can load a dump.
//!
//! A program is asked for its version and nothing else; it is believed as far as it starts with a word that we know.

use super::local::{self, PROGRAM_VARIABLE};
use crate::backup::Minimum;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::timeout;

/// Longest wait for a program to tell its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest text in which it may tell it, in bytes.
const VERSION_BYTES: u64 = 4096;

/// Most programs that may be configured.
pub const PROGRAMS: usize = 64;

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Brand {
    /// Redis.
    Redis,
    /// Valkey.
    Valkey,
}

impl Brand {
    /// Its word, as INFO and manifests have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Valkey => "valkey",
        }
    }
}

/// A version: major, minor, patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// Reads `7.0.15` and `7.0`; what is missing is 0, and what follows the numbers does not count.
    pub fn read(text: &str) -> Option<Self> {
        let mut parts = text.split('.').map(|part| part.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default().parse().ok());
        let major = parts.next().flatten()?;
        Some(Self(major, parts.next().flatten().unwrap_or(0), parts.next().flatten().unwrap_or(0)))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// A server program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    /// The program.
    pub program: PathBuf,
    /// What it is.
    pub brand: Brand,
    /// Its version.
    pub version: Version,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.brand.as_str(), self.version)
    }
}

/// What a dump needs, and where it came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// The least engines; absent where they are not known.
    pub minimum: Option<Minimum>,
    /// `redis` or `valkey`, of the source.
    pub engine: String,
    /// Version of the source.
    pub version: String,
}

impl Engine {
    /// Asks a program what it is; `None` when it is no server that we know, or does not tell within 5 s.
    pub async fn look(program: &Path) -> Option<Self> {
        let mut child =
            Command::new(program).arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn().ok()?;
        let mut output = child.stdout.take()?.take(VERSION_BYTES);
        let mut bytes = Vec::new();
        timeout(VERSION_TIMEOUT, output.read_to_end(&mut bytes)).await.ok()?.ok()?;
        let (brand, version) = told(&String::from_utf8_lossy(&bytes))?;
        Some(Self { program: program.to_owned(), brand, version })
    }

    /// Whether it can load what needs this. Where the need is not known, a server that is at least as new as the source, and of
    /// its kind, can.
    pub fn fits(&self, need: &Need) -> bool {
        let least = need.minimum.as_ref().map(|minimum| match self.brand {
            Brand::Redis => minimum.redis.as_deref(),
            Brand::Valkey => minimum.valkey.as_deref(),
        });
        match least {
            Some(Some(least)) => Version::read(least).is_some_and(|least| self.version >= least),
            Some(None) => false,
            None => self.brand.as_str() == need.engine && Version::read(&need.version).is_some_and(|source| self.version >= source),
        }
    }
}

/// Reads `Redis server v=7.0.15 sha=...`.
fn told(text: &str) -> Option<(Brand, Version)> {
    let brand = match text.split_whitespace().next()? {
        "Redis" => Brand::Redis,
        "Valkey" => Brand::Valkey,
        _ => return None,
    };
    let version = text.split_whitespace().find_map(|word| word.strip_prefix("v="))?;
    Some((brand, Version::read(version)?))
}

/// The servers among these programs, or those of this machine's path where none are named. Programs that are no servers are left out.
pub async fn find(programs: &[PathBuf]) -> Vec<Engine> {
    let named = if programs.is_empty() { local::programs() } else { programs.to_vec() };
    let mut engines = Vec::new();
    for program in named.iter().take(PROGRAMS) {
        match Engine::look(program).await {
            Some(engine) => engines.push(engine),
            None => tracing::warn!(program = %program.display(), "this program is no Redis or Valkey server, or does not start"),
        }
    }
    engines
}

/// The engine that is most like the source among those that can load the dump: of its kind before others, then the oldest that is
/// not older than the source, then the newest.
///
/// # Errors
///
/// What would do, in words for the user.
pub fn choose<'a>(engines: &'a [Engine], need: &Need) -> Result<&'a Engine, String> {
    let source = Version::read(&need.version).unwrap_or(Version(0, 0, 0));
    let fitting = engines.iter().filter(|engine| engine.fits(need));
    let best = fitting.min_by_key(|engine| {
        let is_older = engine.version < source;
        // Of newer ones the oldest, of older ones the newest.
        let newer = (!is_older).then_some(engine.version);
        (engine.brand.as_str() != need.engine, is_older, newer, std::cmp::Reverse(engine.version))
    });
    best.ok_or_else(|| {
        let found = if engines.is_empty() { "none was found".to_owned() } else { format!("found: {}", listed(engines)) };
        format!(
            "no server program of this machine can load the dump: it needs {}; {found}; name one under [engines] programs, or with {PROGRAM_VARIABLE}",
            needed(need)
        )
    })
}

fn listed(engines: &[Engine]) -> String {
    engines.iter().map(Engine::to_string).collect::<Vec<_>>().join(", ")
}

/// What would do, in words.
pub fn needed(need: &Need) -> String {
    let Some(minimum) = &need.minimum else { return format!("{} {} or later", need.engine, need.version) };
    let of = |brand: &str, least: &Option<String>| least.as_ref().map(|least| format!("{brand} {least} or later"));
    let words: Vec<String> = [of("Redis", &minimum.redis), of("Valkey", &minimum.valkey)].into_iter().flatten().collect();
    if words.is_empty() { "an engine that is not known".to_owned() } else { words.join(", or ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(brand: Brand, version: (u32, u32, u32)) -> Engine {
        Engine { program: PathBuf::from("server"), brand, version: Version(version.0, version.1, version.2) }
    }

    fn need(redis: Option<&str>, valkey: Option<&str>, engine: &str, version: &str) -> Need {
        let minimum = Minimum { redis: redis.map(str::to_owned), valkey: valkey.map(str::to_owned), databases: 16, modules: Vec::new() };
        Need { minimum: Some(minimum), engine: engine.to_owned(), version: version.to_owned() }
    }

    #[test]
    fn a_version_is_read_from_what_servers_print() {
        let redis = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=1";
        assert_eq!(told(redis), Some((Brand::Redis, Version(7, 0, 15))));
        assert_eq!(told("Valkey server v=9.1.0-rc2 sha=0"), Some((Brand::Valkey, Version(9, 1, 0))));
        for other in ["", "Redis", "Redis server", "Redis server v=x", "KeyDB server v=6.3.4"] {
            assert_eq!(told(other), None, "{other}");
        }
    }

    #[test]
    fn the_engine_most_like_the_source_is_chosen() {
        let all = [
            engine(Brand::Redis, (6, 2, 14)),
            engine(Brand::Redis, (7, 0, 15)),
            engine(Brand::Redis, (8, 0, 6)),
            engine(Brand::Valkey, (8, 0, 1)),
            engine(Brand::Valkey, (9, 1, 2)),
        ];
        let chosen = |need: &Need| choose(&all, need).map(Engine::to_string);
        assert_eq!(chosen(&need(Some("7.0"), Some("7.2"), "redis", "7.0.15")).unwrap(), "redis 7.0.15");
        assert_eq!(chosen(&need(Some("6.2"), Some("7.2"), "redis", "7.2.4")).unwrap(), "redis 8.0.6");
        assert_eq!(chosen(&need(Some("7.0"), Some("7.2"), "valkey", "7.2.5")).unwrap(), "valkey 8.0.1");
        // A dump of a newer server that needs no newer one, and one that only the other kind can load.
        assert_eq!(chosen(&need(Some("7.0"), None, "redis", "8.2.0")).unwrap(), "redis 8.0.6");
        assert_eq!(chosen(&need(None, Some("9.0"), "valkey", "9.2.0")).unwrap(), "valkey 9.1.2");
        let refused = chosen(&need(Some("9.0"), None, "redis", "9.0.0")).unwrap_err();
        assert!(refused.contains("needs Redis 9.0 or later") && refused.contains("found: redis 6.2.14"), "{refused}");
        assert!(choose(&[], &need(Some("7.0"), None, "redis", "7.0.0")).unwrap_err().contains("none was found"));
    }

    #[test]
    fn without_a_minimum_the_source_is_the_least() {
        let unknown = Need { minimum: None, engine: "redis".to_owned(), version: "7.0.0".to_owned() };
        assert!(engine(Brand::Redis, (7, 0, 15)).fits(&unknown));
        assert!(!engine(Brand::Redis, (6, 2, 14)).fits(&unknown) && !engine(Brand::Valkey, (8, 0, 0)).fits(&unknown));
    }
}
