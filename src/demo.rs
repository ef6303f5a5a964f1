//! `redkeep demo`: the whole way on real data, on servers started for the purpose.
//!
//! A primary and a replica with sample data, the service, one backup with a progress bar, and the proof: the artifact is
//! decompressed and loaded into an empty server, whose content is compared.

use crate::cli::{self, Cli, Command};
use crate::cluster::Role;
use crate::config::{self, Config};
use crate::pb::own;
use crate::redis::connection::{Connection, Reply};
use crate::redis::facts::Facts;
use crate::redis::local::{self, LocalServer};
use crate::server::{self, Server};
use clap::Parser;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Keys of the sample data, beside a few of every type.
const KEYS: usize = 20_000;

/// Longest wait for the replica to follow, and for the proof to load.
const WAIT: Duration = Duration::from_secs(60);

/// Why the demonstration stopped, in one sentence.
type Fault = String;

/// Runs the demonstration. With `keep` everything stays up until Ctrl-C. Cleans up in any case.
///
/// # Errors
///
/// A sentence that says what failed.
pub async fn run(keep: bool) -> Result<(), Fault> {
    let program = local::program()
        .ok_or_else(|| format!("there is no redis-server or valkey-server on the path; install one, or name one with {}", local::PROGRAM_VARIABLE))?;
    let room = Room::new()?;
    // One listener for the whole time, so that no signal falls between two.
    let interrupted = interrupted();
    tokio::pin!(interrupted);
    let shown = tokio::select! {
        shown = show(&program, &room, keep) => shown,
        // Servers end with the values that hold them, the folder with the room.
        () = &mut interrupted => Err("interrupted".to_owned()),
    };
    let outcome = match shown {
        Ok(shown) => {
            if keep {
                interrupted.await;
            }
            shown.end().await
        }
        Err(fault) => Err(fault),
    };
    let path = room.path.clone();
    drop(room);
    if outcome.is_ok() {
        println!("\nCleaned up: servers stopped, {} removed.", path.display());
    }
    outcome
}

async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    let Ok(mut interrupt) = signal(SignalKind::interrupt()) else { return std::future::pending().await };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Starts a server that allows DEBUG, by which contents are compared. Servers before 7.0 allow it always and do not know the
/// directive.
async fn start(program: &Path, folder: &Path, arguments: &[&str]) -> Result<LocalServer, Fault> {
    let with_debug = [&["--enable-debug-command", "yes"], arguments].concat();
    match LocalServer::start(program, folder, &with_debug).await {
        Ok(server) => Ok(server),
        Err(_) => {
            LocalServer::start(program, folder, arguments).await.map_err(|fault| format!("{fault}; the demonstration needs Redis 6.2 or later, or Valkey"))
        }
    }
}

/// A folder that goes when the demonstration ends.
struct Room {
    path: PathBuf,
}

impl Room {
    fn new() -> Result<Self, Fault> {
        let path = std::env::temp_dir().join(format!("redkeep-demo-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(&path).map_err(|fault| format!("{} cannot be made: {}", path.display(), fault.kind()))?;
        Ok(Self { path })
    }

    fn folder(&self, name: &str) -> Result<PathBuf, Fault> {
        let path = self.path.join(name);
        std::fs::create_dir_all(&path).map_err(|fault| format!("{} cannot be made: {}", path.display(), fault.kind()))?;
        Ok(path)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // Best effort: what is left lies in the folder for temporary files.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

fn told(fault: impl std::fmt::Display) -> Fault {
    fault.to_string()
}

async fn show(program: &Path, room: &Room, keep: bool) -> Result<Shown, Fault> {
    println!("1. A primary and a replica, from {}", program.display());
    let primary = start(program, &room.folder("primary")?, &[]).await?;
    let keys = fill(&primary).await?;
    let port = primary.port().to_string();
    let replica = start(program, &room.folder("replica")?, &["--replicaof", "127.0.0.1", &port]).await?;
    replica.wait_until(WAIT, "following its primary", |info| info.contains("master_link_status:up")).await.map_err(told)?;
    println!("   primary {} with {keys} keys of every type, replica {}", primary.address(), replica.address());

    println!("2. The service, with its store and artifacts in {}", room.path.display());
    let stop = CancellationToken::new();
    let server = Server::start(configuration(room, &primary)?, stop.clone()).await.map_err(told)?;
    let endpoint = format!("http://{}", server.address().map_err(told)?);
    let admin = server.admin_address().map_err(told)?.to_string();
    let serving = tokio::spawn(server.run());

    println!("3. redkeep cluster check demo");
    client(&endpoint, &["cluster", "check", "demo"]).await?;
    println!("4. redkeep backup create demo --name first --wait");
    client(&endpoint, &["backup", "create", "demo", "--name", "first", "--wait"]).await?;
    println!("5. redkeep backup list");
    client(&endpoint, &["backup", "list"]).await?;

    println!("6. The proof: the artifact, decompressed and loaded into an empty server");
    let backup = latest(&endpoint).await?;
    let artifact = room.path.join("artifacts").join(&backup.path).join("shard1-0.rdb.zst");
    prove(program, room, &replica, &artifact).await?;

    println!("\nThe artifact is {} ({} bytes, an RDB file under zstd) beside its manifest.json.", artifact.display(), backup.stored_bytes);
    let (api, admin) = match keep {
        true => (endpoint.trim_start_matches("http://").to_owned(), admin),
        false => ("127.0.0.1:7379".to_owned(), "127.0.0.1:7380".to_owned()),
    };
    println!("\nTry next{}:", if keep { "" } else { ", after `redkeep serve` with a cluster of yours, or `redkeep demo --keep`" });
    println!("   grpcurl -plaintext -d '{{\"cluster_id\": \"demo\"}}' {api} yandex.cloud.mdb.redis.v1.ClusterService/Backup");
    println!("   curl http://{admin}/readyz");
    println!("   redkeep backup create demo --wait{}", if keep { format!(" --endpoint {endpoint}") } else { String::new() });
    if keep {
        println!("\nEverything stays up; the service is {endpoint}. Ctrl-C ends it.");
    }
    Ok(Shown { stop, serving, servers: [replica, primary] })
}

/// What runs when all was shown.
struct Shown {
    stop: CancellationToken,
    serving: JoinHandle<Result<(), server::Error>>,
    servers: [LocalServer; 2],
}

impl Shown {
    /// Stops the service gracefully, and the servers after it.
    async fn end(self) -> Result<(), Fault> {
        self.stop.cancel();
        self.serving.await.map_err(told)?.map_err(told)?;
        for server in self.servers {
            server.stop().await;
        }
        Ok(())
    }
}

fn configuration(room: &Room, primary: &LocalServer) -> Result<Config, Fault> {
    let mut text = String::new();
    let _ = write!(
        text,
        "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n[store]\nurl = \"sled:store\"\n[artifacts]\nurl = \"file:artifacts\"\n\
         [[clusters]]\nid = \"demo\"\nnodes = [\"{}\"]\n",
        primary.address()
    );
    let file = room.path.join("redkeep.toml");
    std::fs::write(&file, text).map_err(told)?;
    config::load(Some(&file), &[]).map_err(told)
}

/// Runs a command of the command line, as a person would.
async fn client(endpoint: &str, words: &[&str]) -> Result<(), Fault> {
    let line = [&["redkeep"], words, &["--endpoint", endpoint]].concat();
    match Cli::try_parse_from(line).map_err(told)?.command {
        Command::Client(command) => cli::run(command).await.map_err(told),
        _ => Err("not a command of the client".to_owned()),
    }
}

async fn latest(endpoint: &str) -> Result<own::Backup, Fault> {
    let mut client = own::backup_service_client::BackupServiceClient::connect(endpoint.to_owned()).await.map_err(told)?;
    let request = own::ListBackupsRequest { page_size: 1, ..Default::default() };
    let answer = client.list(request).await.map_err(told)?.into_inner();
    answer.backups.into_iter().next().ok_or_else(|| "the backup is not listed".to_owned())
}

/// Writes a few keys of every type, a library of functions, and many small keys; tells how many keys there are.
async fn fill(server: &LocalServer) -> Result<u64, Fault> {
    let mut connection = server.connect().await.map_err(told)?;
    let script = format!(
        "for i = 1, {KEYS} do redis.call('SET', 'session:' .. i, string.rep('token ' .. i .. ' ', 10), 'EX', 86400 + i) end\n\
         for i = 1, 500 do redis.call('RPUSH', 'queue', 'job ' .. i) redis.call('SADD', 'tags', 't' .. i) redis.call('ZADD', 'scores', i, 'player ' .. i) \
         redis.call('HSET', 'profile', 'field' .. i, i) end"
    );
    let stream: [&[&[u8]]; 5] = [
        &[b"EVAL", script.as_bytes(), b"0"],
        &[b"XADD", b"events", b"1-1", b"kind", b"login"],
        &[b"XADD", b"events", b"2-1", b"kind", b"logout"],
        &[b"XGROUP", b"CREATE", b"events", b"workers", b"0"],
        &[b"XREADGROUP", b"GROUP", b"workers", b"first", b"COUNT", b"1", b"STREAMS", b"events", b">"],
    ];
    for command in stream {
        connection.call(command).await.map_err(told)?;
    }
    // Servers before 7.0 have no functions; the demonstration goes on without.
    let library = b"#!lua name=demo\nredis.register_function('hello', function() return 'hello' end)";
    connection.command(&[b"FUNCTION", b"LOAD", library]).await.map_err(told)?;
    match connection.call(&[b"DBSIZE"]).await.map_err(told)? {
        Reply::Integer(keys) => Ok(u64::try_from(keys).unwrap_or(0)),
        _ => Err("an odd reply to DBSIZE".to_owned()),
    }
}

/// Loads the artifact into an empty server and holds its content against the source's.
async fn prove(program: &Path, room: &Room, source: &LocalServer, artifact: &Path) -> Result<(), Fault> {
    let folder = room.folder("proof")?;
    let (from, to) = (artifact.to_owned(), folder.join("dump.rdb"));
    let decoded = tokio::task::spawn_blocking(move || -> io::Result<()> { zstd::stream::copy_decode(std::fs::File::open(from)?, std::fs::File::create(to)?) });
    decoded.await.map_err(told)?.map_err(|fault| format!("the artifact cannot be decompressed: {fault}"))?;
    let proof = start(program, &folder, &["--dbfilename", "dump.rdb"]).await?;
    proof.wait_until(WAIT, "loaded", |info| info.contains("\nloading:0")).await.map_err(told)?;
    let (ours, theirs) = (digest(&proof).await?, digest(source).await?);
    if ours != theirs {
        return Err(format!("the restored content differs from the source: {ours:?} and {theirs:?}"));
    }
    println!("   equal: {} keys and {} functions, DEBUG DIGEST {}", ours.keys, if ours.functions.is_empty() { "no" } else { "the" }, ours.digest);
    proof.stop().await;
    Ok(())
}

/// What the content of a server is compared by.
#[derive(Debug, PartialEq, Eq)]
struct Content {
    keys: u64,
    digest: String,
    functions: Vec<u8>,
}

async fn digest(server: &LocalServer) -> Result<Content, Fault> {
    let mut connection = server.connect().await.map_err(told)?;
    let facts = Facts::ask(&mut connection).await.map_err(told)?;
    debug_assert_ne!(facts.role, Role::Unknown);
    let digest = connection.call(&[b"DEBUG", b"DIGEST"]).await.map_err(told)?.text().unwrap_or_default();
    Ok(Content { keys: facts.keys, digest, functions: functions(&mut connection).await? })
}

async fn functions(connection: &mut Connection) -> Result<Vec<u8>, Fault> {
    match connection.command(&[b"FUNCTION", b"DUMP"]).await.map_err(told)? {
        Reply::Bulk(Some(bytes)) => Ok(bytes),
        _ => Ok(Vec::new()),
    }
}
