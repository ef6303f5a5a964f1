//! Which processes are servers of ours; starting them and killing them.
//!
//! Source: proc(5): `cwd`, `cmdline` and `stat` of each process.

use super::files::CONFIGURATION;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

/// Name of the file with all that a server prints.
const LOG: &str = "server.log";

/// Name of the one before it.
const OLD_LOG: &str = "server.log.1";

/// Length from which a log is put aside at the next start, in bytes.
const LOG_BYTES: u64 = 16 << 20;

/// Most bytes of a command line that are read.
const COMMAND_BYTES: u64 = 64 << 10;

/// Most processes that are looked at.
const PROCESSES: usize = 1 << 16;

/// Variables of the environment that a server is given: what finds its program, and nothing secret.
const PASSED: [&str; 3] = ["PATH", "LD_LIBRARY_PATH", "TZ"];

/// Starts a server in its folder, as a process of its own group that lives on without us, and tells its number.
pub(super) fn start(program: &Path, folder: &Path) -> io::Result<Option<i32>> {
    let path = folder.join(LOG);
    if path.metadata().is_ok_and(|metadata| metadata.len() >= LOG_BYTES) {
        std::fs::rename(&path, folder.join(OLD_LOG))?;
    }
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let passed = PASSED.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    let child = Command::new(program)
        .arg(folder.join(CONFIGURATION))
        .current_dir(folder)
        .process_group(0)
        .env_clear()
        .envs(passed)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(false)
        .spawn()?;
    // Dropped, its end is noticed by the runtime, so that it leaves no trace among the processes.
    Ok(child.id().and_then(|pid| i32::try_from(pid).ok()))
}

/// The folder of the server that a process is, if it is one below `home`: it runs there, and was started on the configuration
/// there.
fn server_folder(pid: i32, home: &Path) -> Option<PathBuf> {
    let folder = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    if !folder.starts_with(home) {
        return None;
    }
    // A folder that was removed is told with a word behind it.
    let folder = match folder.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
        Some(bytes) => PathBuf::from(OsStr::from_bytes(bytes)),
        None => folder,
    };
    let mut command = Vec::new();
    File::open(format!("/proc/{pid}/cmdline")).ok()?.take(COMMAND_BYTES).read_to_end(&mut command).ok()?;
    let configuration = folder.join(CONFIGURATION);
    let is_ours = command.split(|byte| *byte == 0).any(|argument| argument == configuration.as_os_str().as_bytes());
    is_ours.then_some(folder)
}

/// Whether a process is the server of a folder.
pub(super) fn is_server(pid: i32, folder: &Path) -> bool {
    server_folder(pid, folder).is_some()
}

/// The processes of servers below a folder: the servers, and children of theirs that save.
fn below(home: &Path) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()).take(PROCESSES);
    pids.filter(|pid| is_server(*pid, home)).collect()
}

/// The parent of a process.
fn parent(pid: i32) -> Option<i32> {
    let mut stat = String::new();
    File::open(format!("/proc/{pid}/stat")).ok()?.take(COMMAND_BYTES).read_to_string(&mut stat).ok()?;
    // The name of the program stands in brackets and may hold anything.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The process of the server of a folder, if it runs.
pub(super) fn find(folder: &Path) -> Option<i32> {
    let pids = below(folder);
    pids.iter().copied().find(|pid| !parent(*pid).is_some_and(|parent| pids.contains(&parent)))
}

/// Kills every server below a folder, and tells whether there was one.
///
/// # Errors
///
/// When one may not be killed.
pub(super) fn kill_below(home: &Path) -> io::Result<bool> {
    let pids = below(home);
    for pid in &pids {
        let Some(number) = Pid::from_raw(*pid) else { continue };
        // Held by a handle before it is looked at again, a number cannot be given to another process in between.
        let handle = match pidfd_open(number, PidfdFlags::empty()) {
            Err(rustix::io::Errno::SRCH) => continue,
            handle => handle?,
        };
        if !is_server(*pid, home) {
            continue;
        }
        match pidfd_send_signal(&handle, Signal::KILL) {
            Err(rustix::io::Errno::SRCH) => {}
            sent => sent?,
        }
    }
    Ok(!pids.is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn only_what_was_started_on_the_configuration_there_is_killed() {
        // Goal: nobody else's process is signalled. Method: three that run in the same folder: one that is ours, one with another
        // argument, and one of another folder whose argument is ours.
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let (home, other) = (root.join("main/shard1/1"), root.join("other"));
        for folder in [&home, &other] {
            std::fs::create_dir_all(folder).unwrap();
        }
        let sleep = |folder: &Path, argument: PathBuf| {
            std::process::Command::new("sh").args(["-c", "sleep 60; :", "x"]).arg(argument).current_dir(folder).process_group(0).spawn().unwrap()
        };
        use std::os::unix::process::CommandExt;
        let mut ours = sleep(&home, home.join(CONFIGURATION));
        let mut others = [sleep(&home, home.join("else.conf")), sleep(&other, home.join(CONFIGURATION))];
        let pid = ours.id() as i32;
        while find(&home) != Some(pid) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(kill_below(&root.join("main")).unwrap());
        assert!(!ours.wait().unwrap().success());
        assert!(!kill_below(&root.join("main")).unwrap());
        assert_eq!(find(&home), None);
        for child in &mut others {
            assert!(child.try_wait().unwrap().is_none());
        }
        for mut child in others.into_iter().chain([ours]) {
            // The shell's own child goes with its group.
            let group = Pid::from_raw(child.id() as i32).unwrap();
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
            child.wait().unwrap();
        }
    }
}
