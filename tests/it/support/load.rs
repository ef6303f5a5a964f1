//! Dumps and the outside judges of them: a server that loads one, and the tools that come with Redis.

use super::server::{Builder, RedisServer};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names the program that checks dumps, for runs against other engines.
pub const CHECK_VARIABLE: &str = "REDKEEP_TEST_REDIS_CHECK_RDB";

/// Databases of a server whose dump has more than the usual sixteen.
const MANY_DATABASES: u32 = 16_384;

/// Starts a server on a copy of the dump and waits until it has loaded it.
///
/// # Panics
///
/// When the server refuses the dump; the message has the end of its log.
pub async fn load_rdb(path: &Path) -> RedisServer {
    try_load_rdb(path).await.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// As [`load_rdb`].
///
/// # Errors
///
/// When the server refuses the dump; the text has the end of its log.
pub async fn try_load_rdb(path: &Path) -> Result<RedisServer, String> {
    load_rdb_with(RedisServer::builder(), path).await
}

/// As [`try_load_rdb`], into a server of the caller's making. It gets more databases if the dump needs them.
///
/// # Errors
///
/// As [`try_load_rdb`].
pub async fn load_rdb_with(builder: Builder, path: &Path) -> Result<RedisServer, String> {
    match builder.clone().rdb(path).try_start().await {
        Err(error) if error.contains("configured to handle more than") => builder.rdb(path).databases(MANY_DATABASES).try_start().await,
        result => result,
    }
}

/// Decompresses with the `zstd` tool, as a user would without Redkeep.
pub fn decompress(zst: &Path, to: &Path) {
    run(Command::new("zstd").args(["-d", "-q", "-f", "-o"]).arg(to).arg("--").arg(zst));
}

/// Checks a dump with `redis-check-rdb` and returns its report.
///
/// # Panics
///
/// When the tool finds a fault, in the structure or in the checksum.
pub fn check_rdb(path: &Path) -> String {
    try_check_rdb(path).unwrap_or_else(|report| panic!("{} is broken:\n{report}", path.display()))
}

/// As [`check_rdb`].
///
/// # Errors
///
/// The report, when the tool finds a fault.
pub fn try_check_rdb(path: &Path) -> Result<String, String> {
    try_check_rdb_with(&std::env::var_os(CHECK_VARIABLE).map_or_else(|| PathBuf::from("redis-check-rdb"), PathBuf::from), path)
}

/// As [`try_check_rdb`], with the checker of another engine.
///
/// # Errors
///
/// As [`try_check_rdb`].
pub fn try_check_rdb_with(program: &Path, path: &Path) -> Result<String, String> {
    let output = Command::new(program).arg(path).output().unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()));
    let report = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let broken_seal = report.lines().any(|line| line.contains("CRC error") || line.contains("Checksum") && !line.contains("Checksum OK"));
    if output.status.success() && !broken_seal { Ok(report) } else { Err(report) }
}

/// Takes a dump of the server at `address` with `redis-cli --rdb`: a backup that owes nothing to Redkeep.
///
/// # Panics
///
/// When the tool fails.
pub async fn dump_with_cli(address: &str, to: &Path) {
    let (host, port) = address.rsplit_once(':').expect("an address has a port");
    let output = tokio::process::Command::new("redis-cli")
        .args(["-h", host, "-p", port, "--rdb"])
        .arg(to)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap_or_else(|error| panic!("redis-cli does not start: {error}"));
    let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "redis-cli --rdb: {}: {printed}", output.status);
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
}
