//! Backups by themselves: when they are asked for, what becomes of them, and what can be told of them over the wire.
//!
//! Where time matters the schedule goes by a clock that the test moves; nothing sleeps.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

mod clocks;
mod doors;
mod policies;
mod runs;
mod service;

use crate::support::answers::bare;
use crate::support::http;
use crate::support::service::{Clients, OPERATION, Service, Setup, error_of};
use chrono::TimeDelta;
use redkeep::artifacts::{Compression, SEGMENT_BYTES, Storage};
use redkeep::backup::{Backup, State};
use redkeep::cluster::{ClusterId, Timestamp};
use redkeep::executor::{Caller, Draft, Executor};
use redkeep::failure::{Failure, Reason};
use redkeep::fleet::Fleet;
use redkeep::operation::{self, Door, Operation, Outcome, Publication, Response, Step};
use redkeep::pb::{operation as wire, own};
use redkeep::schedule::{Options, Schedule};
use redkeep::store::sled::SledStore;
use redkeep::store::{BackupFilter, Clock, Completion, OperationFilter, Planned, Recorded, Store, Zones, sled};
use serde_json::Value;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tonic::Status;

/// Length of the leases that a test takes.
const LEASE: Duration = Duration::from_secs(60);

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A store, an executor that works on nothing by itself, and a clock that stands until it is moved.
struct Bench {
    setup: Setup,
    store: Arc<SledStore>,
    executor: Executor,
    now: Arc<Mutex<Timestamp>>,
    options: Options,
}

impl Bench {
    /// With the cluster `main`; `plan` are lines of its section. Its backups are not spread.
    fn new(plan: &str, now: &str) -> Self {
        Self::of(Setup::new().cluster("main", &["127.0.0.1:1"], plan), now)
    }

    fn of(setup: Setup, now: &str) -> Self {
        let config = redkeep::config::load(Some(&setup.write()), &[]).unwrap();
        let store = Arc::new(SledStore::open(sled::Options::new(setup.folder().join("store"))).unwrap());
        let storage = Storage::open(redkeep::artifacts::Options {
            root: setup.artifact_root().into(),
            folders: Default::default(),
            compression: Compression::Zstd(1),
            segment_bytes: SEGMENT_BYTES,
        });
        let fleet = Arc::new(Fleet::new(config.clusters));
        let executor = Executor::new(Arc::clone(&store) as Arc<dyn Store>, fleet, storage.unwrap(), config.executor);
        let options = Options { spread: Duration::ZERO, ..config.schedule };
        Self { setup, store, executor, now: Arc::new(Mutex::new(at(now))), options }
    }

    /// Ends the process and begins another, in which the plan of `main` may be another.
    fn restart(self, plan: &str) -> Self {
        let Self { setup, store, executor, now, options } = self;
        drop(executor);
        store.close();
        let now = now.lock().unwrap().to_rfc3339();
        Self { options, ..Self::of(setup.without_clusters().cluster("main", &["127.0.0.1:1"], plan), &now) }
    }

    fn schedule(&self) -> Schedule {
        let now = Arc::clone(&self.now);
        Schedule::new(self.executor.clone(), Clock::new(move || *now.lock().unwrap()), self.options.clone())
    }

    /// Sets the clock, and has a schedule look.
    async fn look(&self, schedule: &mut Schedule, now: &str) {
        *self.now.lock().unwrap() = at(now);
        schedule.look().await;
    }

    /// Moves the clock, and has a schedule look.
    async fn look_after(&self, schedule: &mut Schedule, minutes: i64) {
        *self.now.lock().unwrap() += TimeDelta::minutes(minutes);
        schedule.look().await;
    }

    /// Every operation, the oldest first.
    async fn operations(&self) -> Vec<Operation> {
        let mut operations = self.store.list(&OperationFilter::Folder("default".parse().unwrap()), None, 1000).await.unwrap();
        operations.reverse();
        operations
    }

    /// Every backup, the oldest first.
    async fn backups(&self) -> Vec<Backup> {
        let mut backups = self.store.backups(&BackupFilter::Folder("default".parse().unwrap()), None, 1000).await.unwrap();
        backups.reverse();
        backups
    }

    /// The planned instants of all backups, the oldest first.
    async fn planned(&self) -> Vec<String> {
        self.backups().await.iter().map(|backup| backup.planned_at.map_or("by hand".to_owned(), |at| at.format("%FT%RZ").to_string())).collect()
    }

    async fn row(&self) -> Planned {
        self.store.planned(&"main".parse().unwrap()).await.unwrap().expect("something is recorded")
    }

    /// Takes the next operation.
    async fn claim(&self) -> Operation {
        self.store.claim(&Zones::default(), LEASE).await.unwrap().0.expect("something is due").operation
    }

    /// Works on the next operation, which succeeds.
    async fn succeed(&self) {
        let operation = self.claim().await;
        let publication = Publication { epoch: operation.epoch, since: chrono::Utc::now(), manifest_sha256: "00".repeat(32) };
        self.store.step(operation.id, operation.epoch, Step::Publish, Some((publication, b"{}".to_vec()))).await.unwrap();
        let draft = self.store.backup(operation.backup_id.unwrap()).await.unwrap();
        let row = Backup { state: State::Available, epoch: Some(operation.epoch.0), busy: None, ..draft };
        let completion = Completion { outcome: Outcome::Succeeded(Response::Empty), backup: Some(row) };
        self.store.complete(operation.id, operation.epoch, completion).await.unwrap();
    }

    /// Works on the next operation, which fails.
    async fn fail(&self) {
        let operation = self.claim().await;
        let outcome = Outcome::Failed(Failure::new(Reason::SourceUnreachable, "nobody answers"));
        self.store.complete(operation.id, operation.epoch, Completion { outcome, backup: None }).await.unwrap();
    }

    /// Asks for a backup by hand.
    async fn by_hand(&self, name: &str) -> Operation {
        let cluster = self.executor.fleet().get(&"main".parse::<ClusterId>().unwrap()).unwrap();
        let draft = Draft { name: name.parse().unwrap(), labels: Default::default(), expires_at: None };
        self.executor.create_backup(&cluster, Door::Redkeep, draft, Caller { subject: "me".into(), key: None }).await.unwrap()
    }

    /// How often something has become of a scheduled backup.
    fn counted(&self, event: &str) -> u64 {
        let series = format!("redkeep_scheduled_backups_total{{event=\"{event}\"}} ");
        let text = self.executor.metrics().render();
        text.lines().find_map(|line| line.strip_prefix(&series)).expect("it is counted").parse().unwrap()
    }
}

/// Makes one call over HTTP, and gives status and JSON of the answer.
async fn call(service: &Service, method: &str, path: &str, body: &str) -> (u16, Value) {
    let lines = [format!("{method} {path} HTTP/1.1"), format!("Host: {}", service.address()), "Content-Type: application/json".to_owned()];
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let answer = http::ask(service.address(), &lines, body.as_bytes()).await;
    (answer.status, serde_json::from_str(&answer.text()).unwrap_or_else(|fault| panic!("{fault}: {}", answer.text())))
}

async fn succeeds(clients: &Clients, operation: Result<wire::Operation, Status>) -> wire::Operation {
    let operation = clients.ended(&operation.unwrap().id, OPERATION).await;
    assert!(error_of(&operation).is_none(), "{operation:#?}");
    operation
}

async fn adopt(clients: &Clients, id: &str, node: &str) {
    let connection = own::Connection { nodes: vec![node.to_owned()], ..Default::default() };
    let request = own::AdoptClusterRequest { cluster_id: id.into(), connection: Some(connection), ..Default::default() };
    succeeds(clients, bare(clients.fleet.clone().adopt_cluster(request).await)).await;
}

fn is_open(operation: &Operation) -> bool {
    matches!(operation.state, operation::State::Queued { .. } | operation::State::Running { .. })
}
