//! Servers that the service under test starts on its own: watched, so that none outlives the test.

use super::resp::Connection;
use super::server::{Builder, RedisServer, START_BOUND};
use super::service::Setup;
use super::until;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Ports that services under test give away, each a part of its own; the ports of buses lie 10,000 above.
const PORTS: std::ops::Range<u32> = 10_000..14_900;

/// Ports of one service.
const PART: u32 = 24;

/// Kills every process that runs below a folder, at the drop or when this process dies without one.
#[derive(Debug)]
pub struct Watch {
    folder: PathBuf,
    shell: Child,
}

impl Watch {
    fn over(folder: &Path) -> Self {
        let folder = folder.canonicalize().expect("the folder is there");
        // The shell's input ends when the last holder of the pipe is gone, and only this process holds it.
        let script = r#"read -r _; for process in /proc/[0-9]*; do case "$(readlink "$process/cwd" 2>/dev/null)" in "$1"/*) kill -s KILL "${process#/proc/}" 2>/dev/null;; esac; done"#;
        let mut command = Command::new("sh");
        command.args(["-c", script, "watch"]).arg(&folder).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        Self { shell: command.spawn().expect("a shell can be run"), folder }
    }

    /// The processes of servers below the folder, without children that save.
    pub fn servers(&self) -> Vec<u32> {
        let processes = fs::read_dir("/proc").expect("processes are listed").flatten();
        let pids: Vec<u32> = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        let runs_here = |pid: &u32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&self.folder));
        let here: Vec<u32> = pids.into_iter().filter(runs_here).collect();
        let parent = |pid: u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse::<u32>().ok()
        };
        here.iter().copied().filter(|pid| !parent(*pid).is_some_and(|parent| here.contains(&parent))).collect()
    }

    /// Kills a server.
    pub fn kill(pid: u32) {
        Command::new("kill").args(["-s", "KILL", "--", &pid.to_string()]).status().expect("kill runs");
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// A setup whose service keeps clusters in the folder `clusters`, and who watches them. The watch is to be dropped last.
pub fn keeper(extra: &str) -> (Watch, Setup) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let setup = Setup::new();
    let parts = (PORTS.end - PORTS.start) / PART;
    let part = std::process::id().wrapping_mul(7919).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % parts;
    let first = PORTS.start + part * PART;
    let section = format!("[local]\nroot = \"clusters\"\nports = \"{first}-{}\"\n{extra}\n", first + PART - 1);
    (Watch::over(setup.folder()), setup.sections(&section))
}

/// The password of a cluster.
pub fn password(setup: &Setup, cluster: &str) -> String {
    let text = fs::read_to_string(setup.folder().join("clusters").join(cluster).join("password")).expect("the password is there");
    text.trim_end().to_owned()
}

/// A connection to a server of a cluster, once it has loaded its data.
pub async fn connect(setup: &Setup, cluster: &str, address: &str) -> Connection {
    let password = password(setup, cluster);
    until("the server answers", START_BOUND, async || {
        let mut connection = Connection::open(address).await.ok()?;
        let replies = [connection.try_command(&["AUTH", &password]).await.ok()?, connection.try_command(&["PING"]).await.ok()?];
        replies.iter().all(|reply| reply.error().is_none()).then_some(connection)
    })
    .await
}

/// A server of the test's own that has what a server of a cluster has.
pub async fn mirror(builder: Builder, setup: &Setup, cluster: &str, address: &str) -> RedisServer {
    let port = address.rsplit_once(':').expect("an address").1;
    let password = password(setup, cluster);
    let server = builder.config(&format!("replicaof 127.0.0.1 {port}")).config(&format!("masterauth {password}")).start().await;
    server.wait_replica_linked().await;
    server
}
