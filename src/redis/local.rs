//! Servers that we start ourselves, on this machine, for a purpose that ends.

use super::connection::{Connection, Reply};
use super::{Address, Credentials, Error, Target};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// Programs that are looked for on the path, in this order.
const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];

/// Variable that names the program instead.
pub const PROGRAM_VARIABLE: &str = "REDKEEP_REDIS_SERVER";

/// Longest wait for a server to answer after its start; one that loads a dump takes longer and is waited for by its caller.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// How often another port is tried when one was taken meanwhile.
const PORTS: usize = 5;

/// The server program of this machine, if there is one.
pub fn program() -> Option<PathBuf> {
    programs().into_iter().next()
}

/// The server programs of this machine: the one that the variable names, else the first of each kind on the path.
pub fn programs() -> Vec<PathBuf> {
    if let Some(named) = std::env::var_os(PROGRAM_VARIABLE) {
        return vec![PathBuf::from(named)];
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = std::env::split_paths(&path).collect();
    PROGRAMS.iter().filter_map(|name| folders.iter().map(|folder| folder.join(name)).find(|candidate| candidate.is_file())).collect()
}

/// A server that runs as long as this value lives.
#[derive(Debug)]
pub struct LocalServer {
    child: Child,
    target: Target,
}

impl LocalServer {
    /// Starts `program` on a free port of loopback, in a folder of its own that must exist, and waits until it answers.
    /// It saves nothing by itself. `arguments` are added to its command line.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`] when it does not start or answer.
    pub async fn start(program: &Path, folder: &Path, arguments: &[&str]) -> Result<Self, Error> {
        let mut last = Error::Unreachable { host: "a local server".to_owned(), what: "no port was free".to_owned() };
        for _ in 0..PORTS {
            let port = free_port().await?;
            match Self::start_on(program, folder, port, arguments).await {
                Ok(server) => return Ok(server),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn start_on(program: &Path, folder: &Path, port: u16, arguments: &[&str]) -> Result<Self, Error> {
        let address = Address::Tcp { host: "127.0.0.1".to_owned(), port };
        let name = address.to_string();
        let failed = |what: String| Error::Unreachable { host: name.clone(), what };
        let log = std::fs::File::create(folder.join("server.log")).map_err(|fault| failed(fault.kind().to_string()))?;
        let child = Command::new(program)
            .arg("--port")
            .arg(port.to_string())
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no", "--repl-diskless-sync-delay", "0", "--dir"])
            .arg(folder)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(|fault| failed(fault.kind().to_string()))?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(|fault| failed(format!("{} cannot be started: {}", program.display(), fault.kind())))?;
        let mut server = Self { child, target: Target { name: name.clone(), address, credentials: Credentials::default(), tls: None } };
        let until = Instant::now() + START_TIMEOUT;
        loop {
            if let Ok(Some(status)) = server.child.try_wait() {
                return Err(failed(format!("{} ended at once: {status}", program.display())));
            }
            if server.command(&[b"PING"]).await.is_ok() {
                return Ok(server);
            }
            if Instant::now() >= until {
                return Err(failed(format!("no answer within {} s of its start", START_TIMEOUT.as_secs())));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Where it listens, as `host:port`.
    pub fn address(&self) -> &str {
        &self.target.name
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        match &self.target.address {
            Address::Tcp { port, .. } => *port,
            Address::Unix(_) => 0,
        }
    }

    /// Sends one command on a connection of its own.
    ///
    /// # Errors
    ///
    /// What the connection or the server says.
    pub async fn command(&self, arguments: &[&[u8]]) -> Result<Reply, Error> {
        Connection::open(&self.target).await?.call(arguments).await
    }

    /// Opens a connection.
    ///
    /// # Errors
    ///
    /// What the connection says.
    pub async fn connect(&self) -> Result<Connection, Error> {
        Connection::open(&self.target).await
    }

    /// Waits until INFO of the server satisfies `ready`, for at most `limit`.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`] when the time is over.
    pub async fn wait_until(&self, limit: Duration, what: &str, ready: impl Fn(&str) -> bool) -> Result<(), Error> {
        let until = Instant::now() + limit;
        loop {
            if let Ok(reply) = self.command(&[b"INFO"]).await
                && reply.text().is_some_and(|info| ready(&info))
            {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(Error::Unreachable { host: self.target.name.clone(), what: format!("it is not {what} after {} s", limit.as_secs()) });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends the server and waits until it has ended.
    pub async fn stop(mut self) {
        // Best effort: it ends with this value in any case.
        let _ = self.child.kill().await;
    }
}

async fn free_port() -> Result<u16, Error> {
    let bound = TcpListener::bind(("127.0.0.1", 0)).await.and_then(|listener| listener.local_addr());
    let address = bound.map_err(|fault| Error::Unreachable { host: "127.0.0.1".to_owned(), what: format!("no free port: {}", fault.kind()) })?;
    Ok(address.port())
}
