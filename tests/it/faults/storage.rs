//! Goal: storage in trouble is told as such, costs no fork where it can be seen before, and keeps nothing. Method: roots
//! that are no folder, read-only or small.

use super::*;
use crate::support::rdb_bytes::Dump;
use crate::support::scripted::{MARKER, full_sync_marker, generated_marker};
use crate::support::service::Setup;
use redkeep::server::Server;
use std::path::PathBuf;
use std::process::Command;
use tokio_util::sync::CancellationToken;

/// A small file system in memory, unmounted on drop.
pub struct Mounted(PathBuf);

impl Mounted {
    /// `None`, said loudly, where this process may not mount.
    pub fn at(path: PathBuf, size: &str) -> Option<Self> {
        std::fs::create_dir_all(&path).expect("a folder to mount on");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&path).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(path)),
            other => {
                eprintln!("SKIPPED: a file system cannot be mounted here: {other:?}");
                None
            }
        }
    }

    pub fn make_read_only(&self) {
        let status = Command::new("mount").args(["-o", "remount,ro"]).arg(&self.0).status().expect("mount runs");
        assert!(status.success());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily, as a file may still be open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_root_that_is_no_folder_stops_the_start() {
    let setup = Setup::new();
    std::fs::write(setup.artifact_root(), "a file").unwrap();
    let config = redkeep::config::load(Some(&setup.write()), &[]).unwrap();
    let Err(fault) = Server::start(config, CancellationToken::new()).await else { panic!("it started") };
    assert_eq!(fault.to_string(), "the artifact storage cannot be written: its root is not a folder");
}

#[tokio::test]
async fn a_root_that_becomes_a_file_costs_no_fork() {
    let server = ScriptedRedis::start(vec![full_sync_marker(Dump::sample().bytes, MARKER)]).await;
    let service = Setup::new().cluster("main", &[&server.address()], "").start().await;
    let root = service.setup.artifact_root();
    std::fs::remove_dir(&root).unwrap();
    std::fs::write(&root, "a file").unwrap();
    let operation = fails(&service.clients, "main").await;
    assert_reason(&operation, "STORAGE_DENIED", &["not a folder"]);
    assert_eq!(server.counts().psyncs, 0);
    std::fs::remove_file(&root).unwrap();
    std::fs::create_dir(&root).unwrap();
    service.clients.take("main", "a").await;
    service.stop().await;
}

#[tokio::test]
async fn a_read_only_root_costs_no_fork() {
    let server = ScriptedRedis::start(vec![full_sync_marker(Dump::sample().bytes, MARKER)]).await;
    let setup = Setup::new().cluster("main", &[&server.address()], "");
    let Some(mounted) = Mounted::at(setup.artifact_root(), "64m") else { return };
    mounted.make_read_only();
    let service = setup.start().await;
    let operation = fails(&service.clients, "main").await;
    assert_reason(&operation, "STORAGE_DENIED", &["read-only"]);
    assert_eq!(server.counts().psyncs, 0);
    service.stop().await;
}

#[tokio::test]
async fn a_full_root_costs_no_fork() {
    let server = ScriptedRedis::start(vec![full_sync_marker(Dump::sample().bytes, MARKER)]).await;
    let setup = Setup::new().executor("deadline", "\"5s\"").cluster("main", &[&server.address()], "");
    let Some(_mounted) = Mounted::at(setup.artifact_root(), "8m") else { return };
    let service = setup.start().await;
    let operation = fails(&service.clients, "main").await;
    assert_reason(&operation, "STORAGE_FULL", &["is full", "deadline"]);
    assert_eq!(server.counts().psyncs, 0);
    service.stop().await;
}

#[tokio::test]
async fn a_root_that_fills_up_keeps_nothing() {
    let server = ScriptedRedis::start(vec![generated_marker(60 << 20, 1 << 20, None)]).await;
    let setup = Setup::new().executor("deadline", "\"20s\"").cluster("main", &[&server.address()], "");
    let Some(mounted) = Mounted::at(setup.artifact_root(), "32m") else { return };
    let service = setup.start().await;
    let operation = fails(&service.clients, "main").await;
    assert_reason(&operation, "STORAGE_FULL", &["is full", "deadline"]);
    assert_eq!(server.counts().psyncs, 1);
    server.closed_by_peer().await;
    assert_nothing_available(&service.clients).await;
    wait_empty(&mounted.0).await;
    service.stop().await;
}
