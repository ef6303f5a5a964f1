//! Clusters on this machine: the folders, ports, files and processes of servers that we start and keep up.
//!
//! ```text
//! root/.gone-<random>/             of a cluster, on its way to be removed
//! root/<cluster>/restoring             there until the restore that makes the cluster is recorded as done
//! root/<cluster>/password              of all its servers; only the owner may read it
//! root/<cluster>/<shard>/<number>/     folder of one server: server.conf, dump.rdb, nodes.conf, server.log
//! ```
//!
//! A server is a process of its own, which outlives us. What makes a process ours is where it runs and what it was started with:
//! its working folder is that of a server of ours, and the configuration file there is among its arguments. No other process is
//! ever signalled. Knows nothing of operations, and not which clusters there are to be: who does, asks for each.

mod dump;
mod files;
mod process;
mod ready;

pub use dump::DumpFile;
pub use files::{Layout, ShardLayout, node_id};
pub use ready::{Loaded, Progress, Runs, linked, loaded, log_changes, whole};

use crate::cluster::{ClusterId, LocalHost, LocalServers};
use crate::redis::engines::Version;
use crate::redis::{self, Address, Credentials, Password, Target};
use aws_lc_rs::rand;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The least version that is started: older ones keep no name of their configuration.
pub const LEAST: Version = Version(6, 2, 0);

/// What a node of a cluster adds to its port for the port of its bus.
pub const BUS_OFFSET: u16 = 10_000;

/// The mark of a cluster whose restore is not recorded as done.
const MARK: &str = "restoring";

/// Beginning of the name of a folder that is being removed.
const GONE: &str = ".gone-";

/// Bytes of a password, before they are written in hexadecimal.
const PASSWORD_BYTES: usize = 32;

/// Longest wait for killed processes to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause between two looks at processes that are to end.
const LOOK: Duration = Duration::from_millis(20);

/// Wait before a server that ended is started again; it doubles with each time up to the longest.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Longest such wait.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// How long a server must have run for its former ends not to count any more.
const STEADY: Duration = Duration::from_secs(60);

/// Most folders of clusters that are looked at.
const FOLDERS: usize = 1024;

/// How clusters are kept on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Folder of all clusters.
    pub root: PathBuf,
    /// Ports that servers may have.
    pub ports: RangeInclusive<u16>,
    /// Where they listen: an address of loopback.
    pub bind: IpAddr,
    /// Most servers of all clusters together.
    pub most_servers: usize,
    /// Memory for the data of each server, in bytes; without a limit when it is absent.
    pub memory_limit: Option<u64>,
}

impl Options {
    /// Ports that servers may have, unless it is set.
    pub const PORTS: RangeInclusive<u16> = 17_000..=17_999;
    /// Most servers, unless it is set.
    pub const MOST_SERVERS: usize = 32;

    /// The defaults for clusters in this folder.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), ports: Self::PORTS, bind: Ipv4Addr::LOCALHOST.into(), most_servers: Self::MOST_SERVERS, memory_limit: None }
    }
}

/// What went wrong with servers on this machine. No path is told but names below the configured folder.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder cannot be read or written.
    #[error("{name} in the folder of the cluster: {}", .fault.kind())]
    File {
        /// What it was.
        name: String,
        /// Why.
        fault: io::Error,
    },
    /// There are not enough free ports.
    #[error("fewer than {0} ports of [local] ports are free")]
    Ports(usize),
    /// What lies where the folder of a cluster is to be was not made for one.
    #[error("the folder {0} below [local] root is there already and was not made for a cluster; it is left alone")]
    Foreign(ClusterId),
    /// A server ended by itself; its log says why.
    #[error("the server {0} ended; see server.log in its folder below [local] root")]
    Ended(String),
    /// A server did not go on.
    #[error("the server {host} {what}")]
    Stalled {
        /// Which.
        host: String,
        /// What it did not do, and for how long it was waited for.
        what: String,
    },
    /// A server answered with a refusal.
    #[error(transparent)]
    Server(#[from] redis::Error),
    /// Processes cannot be ended.
    #[error("processes of the cluster could not be ended: {0}")]
    Process(String),
}

impl Error {
    fn file(name: &str, fault: io::Error) -> Self {
        Self::File { name: name.to_owned(), fault }
    }

    /// Whether the disk is full.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::File { fault, .. } if matches!(fault.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}

/// What is known of a server that is kept up.
#[derive(Debug)]
struct Tended {
    pid: Option<i32>,
    /// Times that it was started again in a row.
    starts: u32,
    not_before: Instant,
    started_at: Instant,
}

/// The right to make or remove folders of clusters, and to start servers that ended: one at a time has it.
#[derive(Debug)]
pub struct Turn<'a>(#[allow(dead_code, reason = "it is held")] tokio::sync::MutexGuard<'a, ()>);

/// The clusters on this machine.
#[derive(Debug)]
pub struct Provider {
    options: Options,
    root: PathBuf,
    turn: tokio::sync::Mutex<()>,
    /// Clusters that are being removed: nobody starts a server of theirs.
    leaving: Mutex<BTreeSet<ClusterId>>,
    tended: Mutex<BTreeMap<PathBuf, Tended>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Provider {
    /// Keeps clusters as told. The folder is made if it is not there; if that fails, so does what needs it.
    pub fn new(options: Options) -> Self {
        if let Err(fault) = files::make_folder(&options.root) {
            tracing::warn!(root = %options.root.display(), error = %fault, "the folder of [local] root cannot be made");
        }
        // The system tells the folders of processes without links in them.
        let root = options.root.canonicalize().unwrap_or_else(|_| options.root.clone());
        Self { options, root, turn: tokio::sync::Mutex::default(), leaving: Mutex::default(), tended: Mutex::default() }
    }

    /// How clusters are kept.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Waits for its turn to change folders.
    pub async fn turn(&self) -> Turn<'_> {
        Turn(self.turn.lock().await)
    }

    /// The folder of a cluster.
    pub fn home(&self, id: &ClusterId) -> PathBuf {
        self.root.join(id.as_str())
    }

    /// Free room on the disk of the clusters, in bytes, where it can be told.
    pub fn free_bytes(&self) -> Option<u64> {
        redis::machine::free_bytes(&self.root)
    }

    /// Begins a cluster anew: whatever ran or lay in its folder goes, and there is the mark of a restore and a new password,
    /// which is durable on return and given back.
    ///
    /// # Errors
    ///
    /// [`Error::File`], [`Error::Process`].
    pub async fn begin(&self, turn: &Turn<'_>, id: &ClusterId) -> Result<Password, Error> {
        self.clear(turn, id).await?;
        lock(&self.leaving).remove(id);
        let home = self.home(id);
        files::make_folder(&home).map_err(|fault| Error::file("the folder", fault))?;
        files::write(&home, MARK, b"").map_err(|fault| Error::file(MARK, fault))?;
        let mut bytes = [0; PASSWORD_BYTES];
        rand::fill(&mut bytes).map_err(|_| Error::file("password", io::Error::other("no random bytes")))?;
        let mut password = String::with_capacity(2 * PASSWORD_BYTES);
        for byte in bytes {
            let _ = write!(password, "{byte:02x}");
        }
        files::write(&home, LocalServers::PASSWORD_FILE, format!("{password}\n").as_bytes()).map_err(|fault| Error::file("password", fault))?;
        Ok(Password::new(password))
    }

    /// Ends every process of a cluster and removes its folder. What is not there is gone already.
    ///
    /// The processes are killed: nothing that they would save is kept. A folder that was not made for a cluster is left alone.
    ///
    /// # Errors
    ///
    /// [`Error::Process`], [`Error::Foreign`], [`Error::File`].
    pub async fn clear(&self, _turn: &Turn<'_>, id: &ClusterId) -> Result<(), Error> {
        let home = self.home(id);
        let until = Instant::now() + KILL_TIMEOUT;
        while process::kill_below(&home).map_err(|fault| Error::Process(fault.kind().to_string()))? {
            if Instant::now() >= until {
                return Err(Error::Process(format!("they are still there after {} s", KILL_TIMEOUT.as_secs())));
            }
            tokio::time::sleep(LOOK).await;
        }
        lock(&self.tended).retain(|server, _| !server.starts_with(&home));
        let failed = |fault| Error::file("the folder", fault);
        match std::fs::read_dir(&home) {
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(fault) => return Err(failed(fault)),
            Ok(mut entries) => {
                let is_ours = [MARK, LocalServers::PASSWORD_FILE].iter().any(|file| home.join(file).exists());
                if !is_ours && entries.next().is_some() {
                    return Err(Error::Foreign(id.clone()));
                }
            }
        }
        // It goes at once or not at all, so that half of it is never taken for something else.
        let gone = self.root.join(format!("{GONE}{}", uuid::Uuid::new_v4().simple()));
        tokio::fs::rename(&home, &gone).await.map_err(failed)?;
        tokio::fs::remove_dir_all(&gone).await.map_err(failed)
    }

    /// Removes what an interrupted removal has left.
    pub async fn sweep(&self, _turn: &Turn<'_>) {
        let Ok(entries) = std::fs::read_dir(&self.root) else { return };
        for entry in entries.flatten().take(FOLDERS).filter(|entry| entry.file_name().to_string_lossy().starts_with(GONE)) {
            if let Err(fault) = tokio::fs::remove_dir_all(entry.path()).await {
                tracing::warn!(error = %fault, "what was left of a removed cluster cannot be removed");
            }
        }
    }

    /// Kills every process of a cluster, without waiting for their end.
    pub fn kill(&self, id: &ClusterId) {
        if let Err(fault) = process::kill_below(&self.home(id)) {
            tracing::warn!(cluster.id = %id, error = %fault, "servers of a cluster could not be killed");
        }
    }

    /// Whether the servers lie in the folder that this configuration means for their cluster.
    pub fn holds(&self, id: &ClusterId, servers: &LocalServers) -> bool {
        Path::new(&servers.folder) == self.home(id)
    }

    /// From here on no server of the cluster is started again: it is being removed.
    pub fn leave(&self, id: &ClusterId) {
        lock(&self.leaving).insert(id.clone());
    }

    /// Whether the cluster bears the mark of a restore that was not recorded as done.
    pub fn is_unfinished(&self, id: &ClusterId) -> bool {
        self.home(id).join(MARK).exists()
    }

    /// Takes the mark away: the cluster is recorded, and stays.
    pub fn finish(&self, id: &ClusterId) {
        match std::fs::remove_file(self.home(id).join(MARK)) {
            Err(fault) if fault.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(cluster.id = %id, error = %fault, "the mark of a restore could not be removed");
            }
            Ok(()) | Err(_) => {}
        }
    }

    /// The clusters that have a folder here, at most 1024.
    pub fn found(&self) -> Vec<ClusterId> {
        let Ok(entries) = std::fs::read_dir(&self.root) else { return Vec::new() };
        entries.flatten().take(FOLDERS).filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }

    /// Chooses a free port for each of `count` servers; those of `taken` are others'. A node of a cluster needs the port of its
    /// bus, too.
    ///
    /// # Errors
    ///
    /// [`Error::Ports`].
    pub fn ports(&self, count: usize, has_bus: bool, taken: &BTreeSet<u16>) -> Result<Vec<u16>, Error> {
        let is_free = |port: u16| !taken.contains(&port) && TcpListener::bind((self.options.bind, port)).is_ok();
        let fits = |port: &u16| is_free(*port) && (!has_bus || port.checked_add(BUS_OFFSET).is_some_and(is_free));
        let ports: Vec<u16> = self.options.ports.clone().filter(fits).take(count).collect();
        if ports.len() == count { Ok(ports) } else { Err(Error::Ports(count)) }
    }

    /// The folder of a server.
    fn folder(&self, id: &ClusterId, host: &LocalHost) -> PathBuf {
        self.home(id).join(&host.shard_name).join(host.number.to_string())
    }

    /// Makes the folder of a server, and a file in it that becomes the dump which it loads.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub async fn dump(&self, id: &ClusterId, host: &LocalHost) -> Result<DumpFile, Error> {
        let folder = self.folder(id, host);
        files::make_folder(&folder).map_err(|fault| Error::file("the folder of a server", fault))?;
        DumpFile::create(&folder).await
    }

    /// Writes the configuration of every server.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub fn set_up(&self, id: &ClusterId, servers: &LocalServers, layout: &Layout, password: &Password) -> Result<(), Error> {
        for host in &servers.hosts {
            let folder = self.folder(id, host);
            files::make_folder(&folder).map_err(|fault| Error::file("the folder of a server", fault))?;
            if let Some(nodes) = layout.nodes(servers, host, self.options.bind) {
                files::write(&folder, files::NODES, nodes.as_bytes()).map_err(|fault| Error::file(files::NODES, fault))?;
            }
            self.configure(id, servers, host, layout, password, false)?;
        }
        Ok(())
    }

    /// Writes the configuration of a primary whose data is loaded as it is to be from its next start on; what it has loaded is
    /// not needed any more where it keeps a log of changes.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub fn settle(&self, id: &ClusterId, servers: &LocalServers, host: &LocalHost, layout: &Layout, password: &Password) -> Result<(), Error> {
        self.configure(id, servers, host, layout, password, true)?;
        if servers.persistent {
            match std::fs::remove_file(self.folder(id, host).join(dump::DUMP)) {
                Err(fault) if fault.kind() != io::ErrorKind::NotFound => return Err(Error::file(dump::DUMP, fault)),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    fn configure(&self, id: &ClusterId, servers: &LocalServers, host: &LocalHost, layout: &Layout, password: &Password, has_loaded: bool) -> Result<(), Error> {
        let folder = self.folder(id, host);
        let text = files::configuration(&files::Server { folder: &folder, servers, host, layout, password, options: &self.options, has_loaded });
        files::write(&folder, files::CONFIGURATION, text.as_bytes()).map_err(|fault| Error::file(files::CONFIGURATION, fault))
    }

    /// Starts a server on what lies in its folder.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when the program does not start.
    pub fn start(&self, id: &ClusterId, servers: &LocalServers, host: &LocalHost) -> Result<(), Error> {
        let folder = self.folder(id, host);
        let pid = process::start(Path::new(&servers.program), &folder).map_err(|fault| Error::file("a server", fault))?;
        let now = Instant::now();
        let mut tended = lock(&self.tended);
        let server = tended.entry(folder).or_insert(Tended { pid: None, starts: 0, not_before: now, started_at: now });
        (server.pid, server.started_at) = (pid, now);
        Ok(())
    }

    /// Whether a server runs.
    pub fn runs(&self, id: &ClusterId, host: &LocalHost) -> bool {
        let folder = self.folder(id, host);
        let known = lock(&self.tended).get(&folder).and_then(|server| server.pid);
        known.is_some_and(|pid| process::is_server(pid, &folder)) || process::find(&folder).is_some()
    }

    /// Where a server listens, as `host:port`.
    pub fn address(&self, host: &LocalHost) -> Address {
        Address::Tcp { host: self.options.bind.to_string(), port: host.port }
    }

    /// A server with how to log in to it.
    pub fn target(&self, host: &LocalHost, password: &Password) -> Target {
        let address = self.address(host);
        Target { name: address.to_string(), address, credentials: Credentials { username: None, password: Some(password.clone()) }, tls: None }
    }

    /// Starts the servers of a cluster that have ended, each after a wait that grows while it ends again and again. Gives the
    /// addresses of those that were started.
    pub fn tend(&self, _turn: &Turn<'_>, id: &ClusterId, servers: &LocalServers) -> Vec<Address> {
        if lock(&self.leaving).contains(id) || !self.holds(id, servers) {
            return Vec::new();
        }
        let mut started = Vec::new();
        for host in &servers.hosts {
            if self.tend_one(id, servers, host) {
                started.push(self.address(host));
            }
        }
        started
    }

    /// Whether it was started.
    fn tend_one(&self, id: &ClusterId, servers: &LocalServers, host: &LocalHost) -> bool {
        let (folder, now) = (self.folder(id, host), Instant::now());
        let mut tended = lock(&self.tended);
        let server = tended.entry(folder.clone()).or_insert(Tended { pid: None, starts: 0, not_before: now, started_at: now });
        if !server.pid.is_some_and(|pid| process::is_server(pid, &folder)) {
            server.pid = process::find(&folder);
        }
        if server.pid.is_some() {
            if now - server.started_at >= STEADY {
                server.starts = 0;
            }
            return false;
        }
        if now < server.not_before {
            return false;
        }
        server.not_before = now + (FIRST_WAIT * 2_u32.pow(server.starts.min(6))).min(LONGEST_WAIT);
        server.starts = server.starts.saturating_add(1);
        drop(tended);
        match self.start(id, servers, host) {
            Ok(()) => {
                tracing::warn!(cluster.id = %id, address = %self.address(host), "a server of this machine had ended and was started again");
                true
            }
            Err(fault) => {
                tracing::error!(cluster.id = %id, address = %self.address(host), error = %fault, "a server of this machine has ended and does not start");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]
    use super::*;

    #[tokio::test]
    async fn a_cluster_begins_with_a_mark_and_a_password_of_its_own() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let provider = Provider::new(Options::new(root.path().join("a/b")));
        let id: ClusterId = "main".parse().unwrap();
        let turn = provider.turn().await;
        let first = provider.begin(&turn, &id).await.unwrap();
        std::fs::write(provider.home(&id).join("left"), "over").unwrap();
        let second = provider.begin(&turn, &id).await.unwrap();
        assert_ne!(first, second);
        assert_eq!(second.secret().len(), 64);
        assert!(!provider.home(&id).join("left").exists() && provider.is_unfinished(&id));
        let file = provider.home(&id).join("password");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("{}\n", second.secret()));
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(provider.home(&id)).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(provider.found(), std::slice::from_ref(&id));
        provider.finish(&id);
        assert!(!provider.is_unfinished(&id));
        // What was not made for a cluster stays.
        let other: ClusterId = "default".parse().unwrap();
        std::fs::create_dir_all(provider.home(&other).join("backups")).unwrap();
        assert!(matches!(provider.begin(&turn, &other).await, Err(Error::Foreign(_))));
        std::fs::remove_dir(provider.home(&other).join("backups")).unwrap();
        provider.clear(&turn, &other).await.unwrap();
        let left = root.path().join("a/b/.gone-1");
        std::fs::create_dir_all(left.join("shard1")).unwrap();
        provider.sweep(&turn).await;
        assert!(!left.exists());
        provider.clear(&turn, &id).await.unwrap();
        provider.clear(&turn, &id).await.unwrap();
        assert!(provider.found().is_empty());
    }

    #[test]
    fn ports_that_are_taken_are_left_out() {
        let root = tempfile::tempdir().unwrap();
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = held.local_addr().unwrap().port();
        let provider = Provider::new(Options { ports: port..=port.saturating_add(20), ..Options::new(root.path()) });
        let chosen = provider.ports(2, false, &BTreeSet::new()).unwrap();
        assert!(!chosen.contains(&port));
        let others = provider.ports(2, false, &chosen.iter().copied().collect()).unwrap();
        assert!(others.iter().all(|other| !chosen.contains(other) && *other != port));
        assert!(matches!(provider.ports(22, false, &BTreeSet::new()), Err(Error::Ports(22))));
    }
}
