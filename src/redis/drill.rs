//! A throw-away server that loads a dump: on a socket in a private folder, without a port, saving nothing.
//!
//! The dump lies in the folder as a plain file and is loaded at the start, as anybody would load it. The server takes itself for
//! the replica of a primary that cannot be: port 0 of this machine, which nothing can listen on. So it keeps keys whose expiry
//! has passed, as a replica does, and the numbers of its keys are those of the dump to the last one; a primary would drop them
//! while it loads. It reaches no other server, and no other reaches it.
//!
//! What is compared is told in `compare`, where the folder comes from and how nothing of it is left in `scratch`.

mod compare;
mod scratch;

pub use compare::{Compared, Difference, Expected, TYPED_KEYS, compare};
pub use scratch::{ROOT_BYTES, Scratch, sweep};

use super::connection::Connection;
use super::engines::Engine;
use super::{Address, Credentials, Error, Target};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::{Child, Command};

/// Name of the dump in the folder.
pub const DUMP: &str = "dump.rdb";

/// Name of the server's socket.
const SOCKET: &str = "s";

/// Name of its log.
const LOG: &str = "server.log";

/// Where programs are looked for when this process has no path of its own.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Databases that a server has unless more are needed.
const DATABASES: u32 = 16;

/// Pause between two looks at a server that loads.
const LOOK: Duration = Duration::from_millis(20);

/// Longest part of the log that is looked at, in bytes: its end.
const LOG_BYTES: u64 = 64 * 1024;

/// The signal of who ends what takes too much of the machine's memory.
const KILLED: i32 = 9;

/// What a server says that got no memory.
const NO_MEMORY: &str = "it ran out of memory";

/// Why a dump was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The server cannot be started.
    #[error("{engine} cannot be started: {what}")]
    Start {
        /// The server.
        engine: String,
        /// Why.
        what: String,
    },
    /// The server ended while it loaded.
    #[error("{engine} did not load the dump: {what}")]
    Ended {
        /// The server.
        engine: String,
        /// What it said of it, in words of ours.
        what: String,
    },
    /// The machine had too little for the server.
    #[error("{engine} did not load the dump: {what}")]
    Exhausted {
        /// The server.
        engine: String,
        /// What is known of it.
        what: String,
    },
    /// The server took more memory than it may.
    #[error("{engine} took more than {limit_bytes} bytes of memory while it loaded the dump")]
    Memory {
        /// The server.
        engine: String,
        /// What it may take.
        limit_bytes: u64,
    },
}

/// A server that loads, or has loaded, the dump in a folder. It ends when this value is dropped.
#[derive(Debug)]
pub struct Drill {
    engine: String,
    child: Child,
    target: Target,
    /// The folder outlives the server.
    scratch: Scratch,
}

impl Drill {
    /// Starts an engine on the dump that lies in the folder, with room for so many databases.
    ///
    /// # Errors
    ///
    /// [`Refusal::Start`].
    pub fn start(engine: &Engine, scratch: Scratch, databases: u32) -> Result<Self, Refusal> {
        let failed = |what: String| Refusal::Start { engine: engine.to_string(), what };
        let log = scratch.file(LOG).map_err(|fault| failed(format!("its log cannot be made: {}", fault.kind())))?;
        let both = log.try_clone().map_err(|fault| failed(fault.kind().to_string()))?;
        let folder = scratch.path();
        let mut command = Command::new(&engine.program);
        command
            .args(["--port", "0", "--unixsocket", SOCKET, "--unixsocketperm", "700", "--dbfilename", DUMP, "--dir"])
            .arg(folder)
            .args(["--databases", &databases.max(DATABASES).to_string()])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no", "--maxmemory", "0", "--replicaof", "127.0.0.1", "0"])
            .current_dir(folder)
            // It needs nothing of ours, and least of all what is secret.
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| PATH.into()))
            .stdin(Stdio::null())
            .stdout(both)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn().map_err(|fault| failed(fault.kind().to_string()))?;
        let address = Address::Unix(folder.join(SOCKET));
        let target = Target { name: format!("a throw-away {engine}"), address, credentials: Credentials::default(), tls: None };
        Ok(Self { engine: engine.to_string(), child, target, scratch })
    }

    /// Waits until the dump is loaded, as long as that takes, and gives a connection.
    ///
    /// # Errors
    ///
    /// [`Refusal::Ended`], [`Refusal::Exhausted`], and [`Refusal::Memory`] when the server takes more than `memory_bytes` meanwhile.
    ///
    /// # Cancel safety
    ///
    /// It may be asked again.
    pub async fn loaded(&mut self, memory_bytes: u64) -> Result<Connection, Refusal> {
        let mut connection: Option<Connection> = None;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.refusal(status));
            }
            // Until it listens nobody is there, and while it loads it answers now and then.
            if connection.is_none() && self.scratch.path().join(SOCKET).exists() {
                connection = Connection::open(&self.target).await.ok();
            }
            let reply = match &mut connection {
                Some(connection) => connection.command(&[b"INFO"]).await,
                None => Err(Error::Unreachable { host: self.target.name.clone(), what: String::new() }),
            };
            match reply.map(|reply| reply.text()) {
                Ok(Some(info)) => {
                    if number(&info, "used_memory").is_some_and(|used| used > memory_bytes) {
                        return Err(Refusal::Memory { engine: self.engine.clone(), limit_bytes: memory_bytes });
                    }
                    if let Some(connection) = connection.take_if(|_| number(&info, "loading") == Some(0)) {
                        return Ok(connection);
                    }
                }
                Ok(None) | Err(_) => connection = None,
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends the server, and returns when it and its folder are gone.
    pub async fn stop(mut self) {
        // Best effort: it ends with this value in any case.
        let _ = self.child.kill().await;
        let scratch = self.scratch;
        let _ = tokio::task::spawn_blocking(move || drop(scratch)).await;
    }

    /// What the end of the server means.
    fn refusal(&self, status: ExitStatus) -> Refusal {
        let engine = self.engine.clone();
        match (self.why(), status.signal()) {
            (_, Some(KILLED)) => Refusal::Exhausted { engine, what: "it was killed, perhaps because the machine ran out of memory".to_owned() },
            (why @ NO_MEMORY, _) => Refusal::Exhausted { engine, what: why.to_owned() },
            (why, Some(signal)) => Refusal::Ended { engine, what: format!("{why}, and was ended by signal {signal}") },
            (why, None) => Refusal::Ended { engine, what: why.to_owned() },
        }
    }

    /// Why the server says it has ended, in words of ours: its own may hold the name of a key.
    fn why(&self) -> &'static str {
        let read = || -> std::io::Result<String> {
            let mut file = std::fs::File::open(self.scratch.path().join(LOG))?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES)))?;
            let mut bytes = Vec::new();
            file.take(LOG_BYTES).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        reason(&read().unwrap_or_default())
    }
}

/// What the log of a server that refused a dump means. The first that fits is told.
fn reason(log: &str) -> &'static str {
    let known = [
        (&["no matching module type", "module data I can't load", "matching module"][..], "it has no module of a kind that the dump needs"),
        (&["Can't handle RDB format version", "an't handle RDB"], "it does not know this version of the format"),
        (&["Wrong RDB checksum", "checksum"], "it says that the checksum is wrong"),
        (&["duplicated key"], "it says that a key is there twice"),
        (&["Short read", "Unexpected EOF"], "it says that the dump ends early"),
        (&["Unknown RDB encoding type", "Internal error in RDB", "integrity check failed", "Bad file format"], "it says that the dump is malformed"),
        (&["Out Of Memory", "an't allocate"], NO_MEMORY),
        (&["Function", "function"], "it does not take a library of functions in it"),
    ];
    let found = known.iter().find(|(words, _)| words.iter().any(|word| log.contains(word)));
    found.map_or("it does not say why", |(_, meaning)| meaning)
}

/// A number of INFO.
fn number(info: &str, field: &str) -> Option<u64> {
    info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_told_in_our_words() {
        for (log, meaning) in [
            ("# Wrong RDB checksum expected: (0) but got (1). Aborting now.", "it says that the checksum is wrong"),
            ("# Can't handle RDB format version 99", "it does not know this version of the format"),
            ("# Internal error in RDB reading offset 9, function at rdb.c:2 -> RDB has duplicated key 'secret' in DB 0", "it says that a key is there twice"),
            ("# The RDB file contains module data I can't load: no matching module type 'ReJSON-RL'", "it has no module of a kind that the dump needs"),
            ("# Short read or OOM loading DB. Unrecoverable error, aborting now.", "it says that the dump ends early"),
            ("", "it does not say why"),
        ] {
            assert_eq!(reason(log), meaning);
        }
    }

    #[test]
    fn numbers_of_info() {
        let info = "# Memory\r\nused_memory_human:1M\r\nused_memory:1024\r\nloading:0\r\n";
        assert_eq!((number(info, "used_memory"), number(info, "loading"), number(info, "absent")), (Some(1024), Some(0), None));
    }
}
