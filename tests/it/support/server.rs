//! Real servers.
//!
//! Each has a temporary folder and a loopback port of its own, and neither outlives the test: a dropped server is
//! killed, and should the test process itself be killed, a watching shell does it.

use super::resp::{Connection, Value};
use super::until;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Names the server program, for runs against other engines. A script must `exec` the server.
pub const PROGRAM_VARIABLE: &str = "REDKEEP_TEST_REDIS_SERVER";

/// Time for a server to start and load.
pub const START_BOUND: Duration = Duration::from_secs(120);

/// Time for a replica to link and load.
pub const LINK_BOUND: Duration = Duration::from_secs(120);

/// Ports tried before giving up.
pub(super) const PORT_ATTEMPTS: usize = 20;

/// Ports below the range from which systems take the ports of outgoing connections, so that a restarted server finds its
/// own free.
const PORTS: std::ops::Range<u32> = 15_000..32_000;

/// The second port of a node of a cluster is its first and this.
const BUS_OFFSET: u32 = 10_000;

/// Second ports lie below the ports of outgoing connections too.
const BUS_PORTS_END: u32 = 32_700;

/// Lines of the log shown when a start fails.
const LOG_LINES: usize = 15;

/// A version such as (7, 0, 15).
pub type Version = (u32, u32, u32);

/// How a server makes the dump for its replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transfer {
    /// From the child to the sockets, framed by a marker.
    Diskless,
    /// Through a file, framed by a length.
    Disk,
}

/// Checks that there is a server to test with, and tells its version.
///
/// # Panics
///
/// When there is none. Redis is never optional.
pub fn require() -> Version {
    version_of(&program())
}

fn program() -> PathBuf {
    std::env::var_os(PROGRAM_VARIABLE).map_or_else(|| PathBuf::from("redis-server"), PathBuf::from)
}

/// The version that a server program tells.
///
/// # Panics
///
/// When it does not start.
pub fn version_of(program: &Path) -> Version {
    let output = Command::new(program).arg("--version").output().unwrap_or_else(|error| {
        panic!(
            "{} does not start ({error}): the tests need a real Redis or Valkey; install one (Debian: apt-get install redis-server) or name one in {PROGRAM_VARIABLE}",
            program.display()
        )
    });
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace()
        .find_map(|word| version(word.strip_prefix("v=")?))
        .unwrap_or_else(|| panic!("{} --version does not tell a version: {text:?}", program.display()))
}

fn version(text: &str) -> Option<Version> {
    let mut numbers = text.split(['.', '-']).map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??, numbers.next().flatten().unwrap_or(0)))
}

/// What a server is started with.
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    program: PathBuf,
    transfer: Transfer,
    diskless_delay_secs: u32,
    password: Option<String>,
    users: Vec<String>,
    databases: u32,
    primary: Option<(u16, Option<String>)>,
    config: Vec<String>,
    rdb: Option<PathBuf>,
    mode: Mode,
}

/// What kind of server it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    /// It stands alone, or replicates.
    Alone,
    /// A node of a cluster.
    Cluster,
    /// A sentinel, which holds no data.
    Sentinel,
}

impl Builder {
    /// Makes it a node of a cluster. It needs a second port, by the rule of old servers its own and 10,000.
    pub fn cluster_node(mut self) -> Self {
        self.mode = Mode::Cluster;
        self
    }

    /// Makes it a sentinel. What it watches goes into lines of configuration.
    pub fn sentinel(mut self) -> Self {
        self.mode = Mode::Sentinel;
        self
    }

    /// Another program than the default. A script must `exec` the server.
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = program.into();
        self
    }

    /// Diskless unless told otherwise.
    pub fn transfer(mut self, transfer: Transfer) -> Self {
        self.transfer = transfer;
        self
    }

    /// Time that a diskless transfer waits for company; none unless told otherwise.
    pub fn diskless_delay_secs(mut self, seconds: u32) -> Self {
        self.diskless_delay_secs = seconds;
        self
    }

    /// Password of the default user; [`RedisServer::command`] uses it.
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// Adds a user, as in `backup on >secret -@all +ping +psync +replconf`.
    pub fn user(mut self, line: &str) -> Self {
        self.users.push(line.to_owned());
        self
    }

    /// Number of databases; 16 unless told otherwise.
    pub fn databases(mut self, databases: u32) -> Self {
        self.databases = databases;
        self
    }

    /// Makes it a replica, with the primary's password.
    pub fn replica_of(mut self, primary: &RedisServer) -> Self {
        self.primary = Some((primary.port, primary.builder.password.clone()));
        self
    }

    /// Adds a line of configuration. It comes last, so it wins.
    pub fn config(mut self, line: &str) -> Self {
        self.config.push(line.to_owned());
        self
    }

    /// Loads this dump at the start, from a hard link or copy: the file itself stays as it is.
    pub fn rdb(mut self, path: impl Into<PathBuf>) -> Self {
        self.rdb = Some(path.into());
        self
    }

    /// Starts the server and waits until it answers and has loaded.
    ///
    /// # Panics
    ///
    /// When it does not start; the message has the end of its log.
    pub async fn start(self) -> RedisServer {
        self.try_start().await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// As [`Builder::start`].
    ///
    /// # Errors
    ///
    /// When the server exits, for instance because the dump is broken; the text has the end of its log.
    pub async fn try_start(self) -> Result<RedisServer, String> {
        let version = version_of(&self.program);
        let folder = tempfile::Builder::new().prefix("redkeep-test-").tempdir().map_err(|error| format!("temporary folder: {error}"))?;
        if let Some(rdb) = &self.rdb {
            let dump = folder.path().join("dump.rdb");
            fs::hard_link(rdb, &dump).or_else(|_| fs::copy(rdb, &dump).map(drop)).map_err(|error| format!("{}: {error}", rdb.display()))?;
        }
        let mut server = RedisServer { builder: self, version, folder, port: 0, child: None };
        for _ in 0..PORT_ATTEMPTS {
            server.port = free_port(server.builder.mode);
            server.write_config();
            server.spawn();
            match server.started().await {
                Err(Stopped::PortTaken) => {}
                Err(Stopped::Failed(error)) => return Err(error),
                Ok(()) => return Ok(server),
            }
        }
        Err(format!("no free port in {PORT_ATTEMPTS} attempts"))
    }
}

/// Picks a port on which nobody listens at the moment.
pub(super) fn free_port(mode: Mode) -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let ports = if mode == Mode::Cluster { PORTS.start..BUS_PORTS_END - BUS_OFFSET } else { PORTS };
    let size = ports.end - ports.start;
    let is_free = |port: u32| TcpListener::bind(("127.0.0.1", port as u16)).is_ok();
    // Processes begin at different places, and each goes on from port to port.
    let begin = std::process::id().wrapping_mul(7919);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(step < PORTS.end - PORTS.start, "no free loopback port");
        let port = ports.start + begin.wrapping_add(step) % size;
        if is_free(port) && (mode != Mode::Cluster || is_free(port + BUS_OFFSET)) {
            return port as u16;
        }
    }
}

enum Stopped {
    PortTaken,
    Failed(String),
}

/// A running server, killed on drop.
#[derive(Debug)]
pub struct RedisServer {
    builder: Builder,
    version: Version,
    folder: TempDir,
    port: u16,
    child: Option<Guarded>,
}

impl RedisServer {
    /// The defaults: diskless without delay, 16 databases, no password, nothing saved, DEBUG allowed.
    pub fn builder() -> Builder {
        Builder {
            program: program(),
            transfer: Transfer::Diskless,
            diskless_delay_secs: 0,
            password: None,
            users: Vec::new(),
            databases: 16,
            primary: None,
            config: Vec::new(),
            rdb: None,
            mode: Mode::Alone,
        }
    }

    /// Starts an empty server with the defaults.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// Host and port, as in `127.0.0.1:16379`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Version of the program.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Number of databases.
    pub fn databases(&self) -> u32 {
        self.builder.databases
    }

    /// Process id. Panics when the server was killed.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map(Guarded::pid).expect("the server was killed")
    }

    /// The server's folder, with `dump.rdb` after a save.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What the server has printed since its last start.
    pub fn log(&self) -> String {
        fs::read(self.log_path()).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    /// Opens a connection as the default user.
    ///
    /// # Errors
    ///
    /// When it cannot be reached or refuses the password.
    pub async fn try_connect(&self) -> io::Result<Connection> {
        let mut connection = Connection::open(&self.address()).await?;
        if let Some(password) = &self.builder.password {
            let reply = connection.try_command(&["AUTH", password]).await?;
            if let Some(error) = reply.error() {
                return Err(io::Error::other(error.to_owned()));
            }
        }
        Ok(connection)
    }

    /// As [`RedisServer::try_connect`], but panics where that fails.
    pub async fn connect(&self) -> Connection {
        self.try_connect().await.unwrap_or_else(|error| panic!("{}: {error}", self.address()))
    }

    /// Sends one request over a connection of its own, as the default user, to database 0. An error reply is a value.
    pub async fn command<A: AsRef<[u8]>>(&self, request: &[A]) -> Value {
        self.connect().await.command(request).await
    }

    /// Reads a field of INFO, from any section.
    ///
    /// # Panics
    ///
    /// When there is none of that name.
    pub async fn info(&self, field: &str) -> String {
        self.info_fields().await.remove(field).unwrap_or_else(|| panic!("INFO has no field {field:?}"))
    }

    /// Reads all fields of INFO.
    pub async fn info_fields(&self) -> BTreeMap<String, String> {
        info_fields(&self.command(&["INFO", "everything"]).await.text())
    }

    /// Waits until the server answers and has loaded its dump.
    pub async fn wait_ready(&mut self) {
        match self.started().await {
            Ok(()) => {}
            Err(Stopped::PortTaken) => panic!("port {} was taken meanwhile", self.port),
            Err(Stopped::Failed(error)) => panic!("{error}"),
        }
    }

    /// Waits until this replica's link to its primary is up.
    pub async fn wait_replica_linked(&self) {
        until("replica linked", LINK_BOUND, async || {
            let info = self.info_fields().await;
            let up = info.get("master_link_status").is_some_and(|status| status == "up");
            (up && info.get("loading").is_some_and(|loading| loading == "0")).then_some(())
        })
        .await;
    }

    /// Waits until INFO's `field` has a value that satisfies `is`, and returns it.
    pub async fn wait_info(&self, field: &str, is: impl Fn(&str) -> bool) -> String {
        until(field, LINK_BOUND, async || self.info_fields().await.remove(field).filter(|value| is(value))).await
    }

    /// Stops the process in its tracks, connections open. A forked child runs on.
    pub fn pause(&self) {
        signal("STOP", &self.pid().to_string());
    }

    /// Lets a paused process go on.
    pub fn resume(&self) {
        signal("CONT", &self.pid().to_string());
    }

    /// Kills the process and its forked children at once. The folder stays until the drop.
    pub fn kill(&mut self) {
        self.child = None;
    }

    /// Kills the server if it runs, then starts it in the same folder on the same port and waits until it is ready.
    pub async fn restart(&mut self) {
        self.kill();
        let started_at = Instant::now();
        loop {
            self.spawn();
            match self.started().await {
                Ok(()) => return,
                Err(Stopped::PortTaken) => assert!(started_at.elapsed() < START_BOUND, "port {} stays taken", self.port),
                Err(Stopped::Failed(error)) => panic!("{error}"),
            }
        }
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn write_config(&self) {
        let builder = &self.builder;
        if builder.mode == Mode::Sentinel {
            let mut lines = vec!["bind 127.0.0.1".to_owned(), format!("port {}", self.port), format!("dir {}", quoted(&self.folder.path().to_string_lossy()))];
            lines.extend(builder.password.iter().map(|password| format!("requirepass {}", quoted(password))));
            lines.extend(builder.config.iter().cloned());
            lines.push(String::new());
            fs::write(self.folder.path().join("redis.conf"), lines.join("\n")).expect("the temporary folder can be written");
            return;
        }
        let mut lines = vec![
            "bind 127.0.0.1".to_owned(),
            format!("port {}", self.port),
            format!("dir {}", quoted(&self.folder.path().to_string_lossy())),
            "dbfilename dump.rdb".to_owned(),
            "save \"\"".to_owned(),
            "appendonly no".to_owned(),
            "daemonize no".to_owned(),
            format!("databases {}", builder.databases),
            format!("repl-diskless-sync {}", if builder.transfer == Transfer::Diskless { "yes" } else { "no" }),
            format!("repl-diskless-sync-delay {}", builder.diskless_delay_secs),
        ];
        if self.version >= (7, 0, 0) {
            lines.push("enable-debug-command yes".to_owned());
        }
        if let Some(password) = &builder.password {
            lines.push(format!("requirepass {}", quoted(password)));
        }
        lines.extend(builder.users.iter().map(|user| format!("user {user}")));
        if let Some((port, password)) = &builder.primary {
            lines.push(format!("replicaof 127.0.0.1 {port}"));
            lines.extend(password.iter().map(|password| format!("masterauth {}", quoted(password))));
        }
        if builder.mode == Mode::Cluster {
            lines.extend(["cluster-enabled yes", "cluster-config-file nodes.conf"].map(str::to_owned));
            lines.extend(builder.password.iter().map(|password| format!("masterauth {}", quoted(password))));
        }
        lines.extend(builder.config.iter().cloned());
        lines.push(String::new());
        fs::write(self.folder.path().join("redis.conf"), lines.join("\n")).expect("the temporary folder can be written");
    }

    fn spawn(&mut self) {
        let log = File::create(self.log_path()).expect("the temporary folder can be written");
        let errors = log.try_clone().expect("a file handle can be cloned");
        let mut command = Command::new(&self.builder.program);
        command
            .arg("redis.conf")
            .args((self.builder.mode == Mode::Sentinel).then_some("--sentinel"))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        self.child = Some(Guarded::spawn(command, self.folder.path()));
    }

    async fn started(&mut self) -> Result<(), Stopped> {
        let started_at = Instant::now();
        loop {
            let child = self.child.as_mut().expect("the server was killed");
            if let Some(status) = child.exited() {
                self.child = None;
                let log = self.log();
                return if log.contains("Address already in use") {
                    Err(Stopped::PortTaken)
                } else {
                    Err(Stopped::Failed(format!("the server stopped with {status}: {}", last_lines(&log))))
                };
            }
            if self.is_ready().await.unwrap_or(false) {
                return Ok(());
            }
            if started_at.elapsed() > START_BOUND {
                return Err(Stopped::Failed(format!("the server is not ready after {START_BOUND:?}: {}", last_lines(&self.log()))));
            }
            tokio::time::sleep(super::LOOK_INTERVAL).await;
        }
    }

    /// Whether it is our process that answers, and not another server that took the port in between.
    async fn is_ready(&self) -> io::Result<bool> {
        // Old sentinels know no "everything".
        let info = self.try_connect().await?.try_command(&["INFO", "all"]).await?;
        if info.error().is_some() {
            return Ok(false);
        }
        let info = info_fields(&info.text());
        let ours = info.get("process_id").is_some_and(|pid| *pid == self.pid().to_string());
        // A sentinel has nothing to load.
        let loaded = self.builder.mode == Mode::Sentinel || info.get("loading").is_some_and(|loading| loading == "0");
        Ok(ours && loaded)
    }
}

/// The fields of an INFO text, of all sections.
pub fn info_fields(text: &str) -> BTreeMap<String, String> {
    text.lines().filter_map(|line| line.split_once(':')).map(|(field, value)| (field.to_owned(), value.trim_end().to_owned())).collect()
}

fn last_lines(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

/// Quotes a word for the configuration file.
fn quoted(word: &str) -> String {
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
}

fn signal(name: &str, target: &str) {
    let status = Command::new("kill").args(["-s", name, "--", target]).stderr(Stdio::null()).status().expect("the program `kill` is there");
    assert!(status.success(), "kill -s {name} -- {target}: {status}");
}

/// A process in a group of its own, and the shell that kills the group and removes the folder when this process dies without a drop.
#[derive(Debug)]
pub(super) struct Guarded {
    child: Child,
    watch: Child,
}

impl Guarded {
    pub(super) fn spawn(mut command: Command, folder: &Path) -> Self {
        let child = command.process_group(0).spawn().expect("the server program can be run, its version was read");
        // The shell's input ends when the last holder of the pipe is gone, and only this process holds it.
        let watch = Command::new("sh")
            .args(["-c", r#"read -r _; kill -s KILL -- "-$1"; rm -rf -- "$2""#, "watch", &child.id().to_string()])
            .arg(folder)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell can be run");
        Self { child, watch }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn exited(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().expect("a child can be awaited")
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // Best effort: what is gone already needs no killing. The group goes first, while the unreaped leader keeps its number from
        // being given away.
        let _ = self.watch.kill();
        let _ = self.watch.wait();
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = Command::new("kill").args(["-s", "KILL", "--", &format!("-{}", self.child.id())]).stderr(Stdio::null()).status();
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
