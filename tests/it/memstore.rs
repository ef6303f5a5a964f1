//! The calls under `/v1/backups`, as a client of that API sends them: bytes over HTTP to the real server.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

mod callers;
mod codes;
mod http;
mod lists;
mod names;
mod story;

use crate::support::rdb_bytes::Dump;
use crate::support::scripted::{Script, ScriptedRedis, full_sync_length};
use crate::support::service::{Service, Setup};
use crate::support::until;
use http::{Answer, call};
use serde_json::{Value, json};
use std::time::Duration;

/// Longest wait for what is a matter of moments.
const SOON: Duration = Duration::from_secs(30);

/// An address that the calls are sent to, with the headers of a caller.
struct Door<'a> {
    endpoint: &'a str,
    headers: Vec<(&'a str, &'a str)>,
}

impl<'a> Door<'a> {
    fn of(service: &'a Service) -> Self {
        Self { endpoint: &service.endpoint, headers: Vec::new() }
    }

    fn with(service: &'a Service, headers: &[(&'a str, &'a str)]) -> Self {
        Self { endpoint: &service.endpoint, headers: headers.to_vec() }
    }

    async fn get(&self, path: &str) -> Answer {
        call(self.endpoint, "GET", path, &self.headers, "").await
    }

    async fn delete(&self, name: &str) -> Answer {
        call(self.endpoint, "DELETE", &format!("/v1/backups/{name}"), &self.headers, "").await
    }

    /// Posts JSON as curl does by itself: as a form.
    async fn post(&self, path: &str, body: &str) -> Answer {
        let mut headers = self.headers.clone();
        headers.push(("Content-Type", "application/x-www-form-urlencoded"));
        call(self.endpoint, "POST", path, &headers, body).await
    }

    async fn create(&self, cluster: &str, name: &str) -> Answer {
        self.post("/v1/backups", &json!({ "clusterId": cluster, "name": name }).to_string()).await
    }

    async fn copy(&self, source: &str, name: &str) -> Answer {
        self.post(&format!("/v1/backups/{source}/copy"), &json!({ "name": name }).to_string()).await
    }

    async fn export(&self, source: &str, destination: &str, name: &str) -> Answer {
        self.post(&format!("/v1/backups/{source}/export"), &json!({ "destination": destination, "name": name }).to_string()).await
    }

    async fn backup(&self, name: &str) -> Answer {
        self.get(&format!("/v1/backups/{name}")).await
    }

    /// Waits until a backup has this status.
    async fn reaches(&self, name: &str, status: &str) -> Value {
        until(&format!("{name} is {status}"), SOON, async || {
            let backup = self.backup(name).await.is(200);
            (backup["status"] == status).then_some(backup)
        })
        .await
    }

    /// Makes a backup that is to become available.
    async fn take(&self, cluster: &str, name: &str) -> Value {
        self.create(cluster, name).await.is(201);
        self.reaches(name, "Available").await
    }

    /// The names on a list.
    async fn names(&self, query: &str) -> Vec<String> {
        let list = self.get(&format!("/v1/backups{query}")).await.is(200);
        list["backups"].as_array().unwrap().iter().map(|backup| backup["name"].as_str().unwrap().to_owned()).collect()
    }
}

/// A primary and a replica that know one another. Snapshots come from the replica.
struct Pair {
    primary: ScriptedRedis,
    replica: ScriptedRedis,
}

impl Pair {
    async fn start(scripts: Vec<Script>) -> Self {
        let (primary, replica) = (ScriptedRedis::start(scripts.clone()).await, ScriptedRedis::start(scripts).await);
        for server in [&primary, &replica] {
            server.set_info("run_id", format!("{:040}", server.port()));
        }
        replica.become_replica_of("127.0.0.1", primary.port());
        primary.add_replica("127.0.0.1", replica.port(), "online");
        Self { primary, replica }
    }

    /// Gives a small snapshot at once.
    async fn willing() -> Self {
        Self::start(vec![full_sync_length(Dump::sample().bytes)]).await
    }

    /// Begins a snapshot and never gives it.
    async fn stalling() -> Self {
        use crate::support::scripted::Act;
        Self::start(vec![vec![Act::FullResync, Act::Stall]]).await
    }

    /// Adds the cluster to a setup; on a machine of its own, so that others do not wait for it.
    fn join(&self, setup: Setup, id: &str, extra: &str) -> Setup {
        let node = |server: &ScriptedRedis| format!("{{ address = \"{}\", failure_domain = \"{id}\" }}", server.address());
        setup.cluster_of(id, &format!("[{}, {}]", node(&self.primary), node(&self.replica)), extra)
    }
}

/// A setup in which nothing is waited for at the end of a test.
fn setup() -> Setup {
    Setup::new().executor("drain", "\"0s\"")
}

/// Buckets of the tests: one for the folder `default`, one for another.
const BUCKETS: &str = "[[buckets]]\nname = \"reports\"\nurl = \"file:exports\"\nfolders = [\"default\"]\n\
    [[buckets]]\nname = \"foreign\"\nurl = \"file:foreign\"\nfolders = [\"shop\"]";
