//! The store: one contract, told on every implementation; random life compared with a model; and what is the embedded one's own.

#![allow(clippy::unwrap_used)]

mod contract;
mod model;
mod random;

use chrono::{DateTime, TimeDelta};
use model::Model;
use redkeep::backup::{self, Backup, BackupId, Labels, Name};
use redkeep::cluster::policy::{ClusterChanges, POLICIES, Setting};
use redkeep::cluster::{Adopted, Connection, LocalHost, LocalServers, Role, Timestamp};
use redkeep::failure::{Failure, Reason};
use redkeep::operation::{
    BackupChanges, ClusterPlan, Door, Epoch, ExportTarget, HostPlan, ImportSource, Operation, OperationId, Outcome, Policy, Progress, Publication, Response,
    Spec, State, Step, Tally,
};
use redkeep::store::sled::{Options, SledStore, verify};
use redkeep::store::{Claim, Clock, Completion, Create, Created, Error, Idempotency, Lineage, OperationFilter, Store, Zones};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Most operations that wait in the stores under test.
const QUEUE_LIMIT: usize = 6;

const GRACE: Duration = Duration::from_secs(24 * 3600);
const LEASE: Duration = Duration::from_secs(15);

/// A clock that stands until it is moved.
#[derive(Clone)]
pub struct Time(Arc<Mutex<Timestamp>>);

impl Time {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(DateTime::from_timestamp(1_800_000_000, 0).unwrap())))
    }

    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }

    fn pass(&self, time: Duration) {
        *self.0.lock().unwrap() += time;
    }

    fn clock(&self) -> Clock {
        let time = self.clone();
        Clock::new(move || time.now())
    }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn all_zones() -> Zones {
    Zones::default()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn failure(text: &str) -> Failure {
    Failure::new(Reason::SourceUnreachable, text)
}

fn operation(time: &Time, folder: &str, cluster: &str, backup_id: Option<BackupId>, spec: Spec) -> Operation {
    let now = time.now();
    Operation {
        id: OperationId::new(),
        folder_id: folder.parse().unwrap(),
        cluster_id: cluster.parse().unwrap(),
        backup_id,
        door: Door::Redkeep,
        spec,
        description: String::new(),
        created_at: now,
        created_by: "anonymous".to_owned(),
        modified_at: now,
        revision: 1,
        zone: None,
        policy: Policy { deadline_at: now + TimeDelta::hours(1), refork_delay_millis: 600_000 },
        epoch: Epoch(0),
        state: State::Queued { not_before: now },
        reached: None,
        tally: Tally::default(),
        last_failure: None,
        progress: Progress::default(),
        publication: None,
    }
}

/// The creation of a backup of a cluster, in the folder `default`.
fn creation(time: &Time, cluster: &str, backup_name: &str) -> Create {
    creation_in(time, "default", cluster, backup_name)
}

fn creation_in(time: &Time, folder: &str, cluster: &str, backup_name: &str) -> Create {
    let id = BackupId::new();
    let operation = operation(time, folder, cluster, Some(id), Spec::CreateBackup);
    let draft = Backup {
        busy: Some(operation.id.to_string()),
        ..Backup::draft(id, operation.folder_id.clone(), operation.cluster_id.clone(), name(backup_name), operation.id.to_string(), time.now())
    };
    Create { operation, draft: Some(draft), cluster: None, idempotency: None }
}

fn in_zone(mut create: Create, zone: &str) -> Create {
    create.operation.zone = Some(zone.to_owned());
    create
}

fn with_key(mut create: Create, caller: &str, key: &str, digest: u8) -> Create {
    create.idempotency = Some(Idempotency { caller: caller.to_owned(), key: key.to_owned(), digest: [digest; 32] });
    create
}

fn change(time: &Time, backup: &Backup, spec: Spec) -> Create {
    let operation = operation(time, backup.folder_id.as_str(), backup.cluster_id.as_str(), Some(backup.id), spec);
    Create { operation, draft: None, cluster: None, idempotency: None }
}

fn renaming(time: &Time, backup: &Backup, new_name: &str) -> Create {
    change(time, backup, Spec::UpdateBackup(BackupChanges { name: Some(name(new_name)), ..BackupChanges::default() }))
}

/// A copy of a backup, with its draft.
fn copying(time: &Time, source: &Backup, new_name: &str) -> Create {
    let Create { draft, .. } = creation_in(time, source.folder_id.as_str(), source.cluster_id.as_str(), new_name);
    let draft = draft.unwrap();
    let operation = operation(time, source.folder_id.as_str(), source.cluster_id.as_str(), Some(draft.id), Spec::CopyBackup { source: source.id });
    let draft = Backup { operation_id: operation.id.to_string(), busy: Some(operation.id.to_string()), ..draft };
    Create { operation, draft: Some(draft), cluster: None, idempotency: None }
}

/// An import for a cluster, with its draft.
fn importing(time: &Time, folder: &str, cluster: &str, new_name: &str) -> Create {
    let Create { draft, .. } = creation_in(time, folder, cluster, new_name);
    let draft = draft.unwrap();
    let source = ImportSource { bucket: "reports".to_owned(), keys: vec!["a.rdb".to_owned()] };
    let operation = operation(time, folder, cluster, Some(draft.id), Spec::ImportBackup(source));
    let draft = Backup { operation_id: operation.id.to_string(), busy: Some(operation.id.to_string()), ..draft };
    Create { operation, draft: Some(draft), cluster: None, idempotency: None }
}

/// An export of a backup of one shard to a bucket.
fn exporting(time: &Time, backup: &Backup, bucket: &str, file: &str) -> Create {
    let target = ExportTarget { bucket: bucket.to_owned(), path: "daily".to_owned(), name: Some(file.to_owned()), as_stored: false };
    change(time, backup, Spec::ExportBackup(target))
}

/// A proof of a backup by loading it.
fn proof(time: &Time, backup: &Backup) -> Create {
    change(time, backup, Spec::VerifyBackup { level: backup::Level::Loaded })
}

fn deletion(time: &Time, backup: &Backup) -> Create {
    change(time, backup, Spec::DeleteBackup)
}

fn undeletion(time: &Time, backup: &Backup) -> Create {
    change(time, backup, Spec::UndeleteBackup)
}

/// The adoption of a cluster, in the folder `default`, with one node.
fn adoption(time: &Time, cluster: &str, node: &str) -> Create {
    adoption_in(time, "default", cluster, node)
}

fn adoption_in(time: &Time, folder: &str, cluster: &str, node: &str) -> Create {
    on_cluster(time, folder, cluster, Spec::AdoptCluster, Some(adopted(time, folder, cluster, node)))
}

fn reconnection(time: &Time, folder: &str, cluster: &str, node: &str) -> Create {
    let row = Adopted { is_adopting: false, ..adopted(time, folder, cluster, node) };
    on_cluster(time, folder, cluster, Spec::UpdateConnection, Some(row))
}

fn forgetting(time: &Time, folder: &str, cluster: &str) -> Create {
    on_cluster(time, folder, cluster, Spec::ForgetCluster, None)
}

/// A restore of a backup to a cluster of its own with two servers, in the folder of the backup.
fn restoring(time: &Time, source: &Backup, cluster: &str) -> Create {
    let host = |number| HostPlan { shard_name: format!("shard{number}"), zone: String::new() };
    let plan = ClusterPlan { source: source.id, version: String::new(), hosts: vec![host(1), host(2)], persistent: true };
    let folder = source.folder_id.as_str();
    let row = Adopted { local: Some(local_servers(0)), ..adopted(time, folder, cluster, "") };
    let row = Adopted { connection: Connection { nodes: Vec::new(), ..row.connection }, ..row };
    on_cluster(time, folder, cluster, Spec::RestoreCluster(Box::new(plan)), Some(row))
}

/// Two servers of a cluster on this machine, at this port and the next.
fn local_servers(port: u16) -> LocalServers {
    let host = |number: u16| LocalHost { shard_name: format!("shard{number}"), number: 1, port: if port == 0 { 0 } else { port + number - 1 } };
    LocalServers {
        folder: "/clusters/x".to_owned(),
        program: String::new(),
        engine: String::new(),
        version: String::new(),
        persistent: true,
        hosts: vec![host(1), host(2)],
    }
}

/// A new policy of a cluster in the folder `default`.
fn policy(time: &Time, cluster: &str, id: &str, policy_name: &str) -> Create {
    let cron = ["", "", "1", "", ""].map(str::to_owned);
    let (id, name) = (id.to_owned(), policy_name.to_owned());
    let policy = redkeep::cluster::policy::Policy {
        id,
        cluster_id: cluster.parse().unwrap(),
        name,
        description: String::new(),
        created_at: time.now(),
        cron,
        retain_days: 7,
    };
    on_cluster(time, "default", cluster, Spec::CreatePolicy(Box::new(policy)), None)
}

fn on_cluster(time: &Time, folder: &str, cluster: &str, spec: Spec, row: Option<Adopted>) -> Create {
    Create { operation: operation(time, folder, cluster, None, spec), draft: None, cluster: row, idempotency: None }
}

/// The record of a cluster that is being adopted.
fn adopted(time: &Time, folder: &str, cluster: &str, node: &str) -> Adopted {
    Adopted {
        id: cluster.parse().unwrap(),
        folder_id: folder.parse().unwrap(),
        name: cluster.to_owned(),
        description: String::new(),
        labels: Labels::new(),
        zone: None,
        created_at: time.now(),
        allow_primary: false,
        connection: Connection { nodes: vec![node.to_owned()], username: None, password: None, trust: None },
        is_adopting: true,
        plan: Default::default(),
        local: None,
    }
}

fn available(draft: &Backup, epoch: Epoch) -> Backup {
    Backup { state: backup::State::Available, epoch: Some(epoch.0), shards: vec![shard(draft.created_at)], ..draft.clone() }
}

fn shard(at: Timestamp) -> backup::Shard {
    backup::Shard {
        name: "shard1".to_owned(),
        source_host: "a:6379".to_owned(),
        source_role: Role::Replica,
        engine: "redis".to_owned(),
        engine_version: "7.2.5".to_owned(),
        rdb_version: 11,
        size_bytes: 100,
        stored_bytes: 40,
        sha256: "ab".repeat(32),
        checksum: backup::Checksum::Verified,
        level: backup::Level::Walked,
        opaque_reason: String::new(),
        keys: 9,
        expiring: 1,
        databases: Vec::new(),
        types: Default::default(),
        functions: 0,
        replication_id: "cd".repeat(20),
        replication_offset: 7,
        used_memory_bytes: 1000,
        fork_micros: None,
        copy_on_write_bytes: None,
        snapshot_started_at: at,
        snapshot_at: at,
        upload_started_at: at,
        upload_ended_at: at,
        slots: Vec::new(),
        stray_keys: 0,
        impact: Default::default(),
        minimum: None,
        side_state: false,
        moves: Vec::new(),
    }
}

/// What the source of a shard was.
fn lineage(shard: &str, keys: u64) -> Lineage {
    Lineage { shard: shard.to_owned(), run_id: "run".to_owned(), keys, sketch: (0..keys).collect(), ..Lineage::default() }
}

fn publication(time: &Time, epoch: Epoch) -> Publication {
    Publication { epoch, since: time.now(), manifest_sha256: "00".repeat(32) }
}

fn succeeded(backup: Option<Backup>) -> Completion {
    Completion { outcome: Outcome::Succeeded(Response::Empty), backup }
}

fn failed(text: &str) -> Completion {
    Completion { outcome: Outcome::Failed(failure(text)), backup: None }
}

/// Accepts a new operation.
async fn accept(store: &dyn Store, create: Create) -> Operation {
    match store.create(create, GRACE).await {
        Ok(Created::New(operation)) => operation,
        other => panic!("not accepted: {other:?}"),
    }
}

/// Takes the next due operation.
async fn claim(store: &dyn Store) -> Operation {
    match store.claim(&all_zones(), LEASE).await {
        Ok((Some(Claim { operation }), _)) => operation,
        other => panic!("nothing to claim: {other:?}"),
    }
}

/// Takes an operation that was claimed to the decision to publish.
async fn publish(store: &dyn Store, time: &Time, claimed: &Operation, manifest: &[u8]) -> Operation {
    let decision = publication(time, claimed.epoch);
    store.step(claimed.id, claimed.epoch, Step::Publish, Some((decision, manifest.to_vec()))).await.unwrap()
}

/// Makes a backup from acceptance to the end.
async fn make_backup(store: &dyn Store, time: &Time, cluster: &str, backup_name: &str) -> Backup {
    let create = creation(time, cluster, backup_name);
    let draft = create.draft.clone().unwrap();
    accept(store, create).await;
    let claimed = claim(store).await;
    publish(store, time, &claimed, b"{}").await;
    store.complete(claimed.id, claimed.epoch, succeeded(Some(available(&draft, claimed.epoch)))).await.unwrap();
    store.backup(draft.id).await.unwrap()
}

/// Fills a store of the system's clock with backups of 512 shards, of the cluster `main` in the folder `default`.
pub async fn fill_with_wide_backups(path: &Path, count: usize) {
    let store = SledStore::open(Options::new(path)).unwrap();
    let time = Time(Arc::new(Mutex::new(chrono::Utc::now())));
    for index in 0..count {
        let create = creation(&time, "main", &format!("wide-{index}"));
        let draft = create.draft.clone().unwrap();
        accept(&store, create).await;
        let claimed = claim(&store).await;
        publish(&store, &time, &claimed, b"{}").await;
        let row = contract::of_many_shards(&draft, claimed.epoch, 512);
        let outcome = Outcome::Succeeded(Response::Backup(Box::new(row.clone())));
        store.complete(claimed.id, claimed.epoch, Completion { outcome, backup: Some(row) }).await.unwrap();
    }
    tokio::task::spawn_blocking(move || store.close()).await.unwrap();
}

fn open(path: &Path, time: &Time, queue_limit: usize) -> SledStore {
    SledStore::open(Options { path: path.to_owned(), clock: time.clock(), queue_limit }).unwrap()
}

/// A folder for a store in which nothing need outlive the test: in memory where there is such a place.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// Tells each story of the contract on each store.
macro_rules! on_every_store {
    ($($story:ident,)*) => {
        mod on_the_model {
            use super::*;
            $(#[tokio::test]
            async fn $story() {
                let time = Time::new();
                contract::$story(Arc::new(Model::new(time.clock(), QUEUE_LIMIT)), time).await;
            })*
        }

        mod on_sled {
            use super::*;
            $(#[tokio::test]
            async fn $story() {
                let (time, folder) = (Time::new(), folder());
                let store = Arc::new(open(folder.path(), &time, QUEUE_LIMIT));
                contract::$story(Arc::clone(&store) as Arc<dyn Store>, time).await;
                store.close();
                let report = verify(folder.path()).unwrap();
                assert!(report.is_clean(), "{report:?}");
            })*
        }
    };
}

on_every_store! {
    a_known_key_answers_before_a_conflict,
    shards_keep_their_names,
    racing_creates_with_one_key_give_one_operation,
    rows_that_do_not_fit_are_refused,
    a_name_is_taken_from_the_draft_on,
    one_exclusive_operation_holds_a_cluster,
    the_queue_has_a_limit,
    a_census_counts_each_operation_once,
    a_claim_takes_what_has_waited_longest,
    a_claim_takes_its_zones_only,
    a_lapsed_lease_is_another_attempt,
    a_lapsed_lease_may_be_renewed_until_another_attempt_begins,
    the_third_crash_ends_it,
    a_crash_after_the_fork_waits,
    the_search_goes_on_past_what_ends,
    every_call_of_a_late_worker_is_fenced,
    a_retry_dooms_the_attempt,
    a_hand_back_is_no_crash,
    success_replaces_the_draft,
    success_needs_the_last_step_and_the_row,
    a_failed_creation_leaves_an_error,
    a_domain_has_as_many_places_as_it_bears,
    the_oldest_operation_has_the_first_turn,
    every_end_of_an_attempt_frees_its_places,
    a_lapsed_attempt_loses_its_place_to_who_asks,
    only_the_attempt_under_way_takes_a_place,
    shards_of_one_operation_take_places_one_by_one,
    what_is_put_off_waits_and_keeps_its_time,
    a_lineage_is_kept_with_its_backup_alone,
    the_baseline_is_the_newest_that_can_be_trusted,
    a_key_of_sketches_stays_as_long_as_a_backup,
    only_a_suspicion_that_stands_is_cleared,
    a_backup_of_many_shards_is_kept,
    a_manifest_comes_back_to_the_byte,
    what_is_to_be_published_is_never_doomed,
    a_queued_operation_is_cancelled_at_once,
    a_running_operation_is_told_to_stop,
    a_cancellation_can_come_too_late,
    a_lapsed_cancellation_ends,
    an_update_holds_the_backup_and_both_names,
    a_failed_update_changes_nothing,
    a_deletion_frees_the_name_and_waits_out_its_grace,
    a_deletion_is_taken_back,
    a_deletion_that_is_not_taken_back_stands,
    what_is_being_removed_is_not_brought_back,
    a_backup_is_put_back,
    clusters_are_told_that_have_backups,
    a_backup_is_found_by_its_name,
    a_deletion_is_refused_by_a_hold,
    several_read_a_backup_and_none_deletes_it,
    a_copy_ends_like_a_creation,
    an_import_is_for_a_cluster_of_its_folder_or_an_unknown_one,
    what_reads_a_backup_lets_it_go_whatever_its_end,
    an_update_goes_on_beside_those_that_read,
    a_proof_takes_its_backup_at_its_end,
    a_proof_leaves_its_backup_whatever_its_end,
    only_a_finished_backup_is_read,
    as_many_read_a_backup_as_may,
    one_export_writes_to_a_key,
    an_export_dooms_what_it_staged_and_nothing_else,
    looks_come_again_until_the_last,
    pages_go_from_new_to_old,
    an_adopted_cluster_is_there_from_the_acceptance_on,
    an_adoption_that_does_not_succeed_leaves_nothing,
    a_cluster_id_is_taken_once,
    work_on_a_cluster_and_a_backup_of_it_exclude_each_other,
    a_restored_cluster_is_there_from_the_acceptance_to_its_deletion,
    a_restore_that_does_not_succeed_leaves_nothing,
    a_connection_changes_at_the_end_or_not_at_all,
    clusters_are_listed_by_id,
    what_is_told_of_a_cluster_changes_beside_its_backup_and_its_connection,
    a_policy_is_there_from_the_acceptance_on_and_goes_with_its_cluster,
    what_is_planned_is_changed_by_who_has_read_it,
    operations_expire_with_their_keys,
    what_is_not_there_is_said_so,
}

/// Goal: one process at a time. Method: open twice, close, open again.
#[tokio::test]
async fn a_folder_is_held_by_one_store() {
    let (time, folder) = (Time::new(), folder());
    let store = open(folder.path(), &time, QUEUE_LIMIT);
    let second = SledStore::open(Options::new(folder.path())).unwrap_err();
    assert!(matches!(&second, Error::Unavailable(why) if why.contains("another process holds the store folder")), "{second}");
    let verified = verify(folder.path()).unwrap_err();
    assert!(verified.to_string().contains("another process holds the store folder"), "{verified}");
    drop(store);
    drop(open(folder.path(), &time, QUEUE_LIMIT));
}

/// Goal: a snapshot that was cut off does not keep the store from opening. Method: leave one, and open.
#[tokio::test]
async fn an_unfinished_snapshot_is_removed() {
    let (time, folder) = (Time::new(), folder());
    let store = open(folder.path(), &time, QUEUE_LIMIT);
    let operation = accept(&store, creation(&time, "main", "a")).await;
    drop(store);
    let stale = folder.path().join("snap.00000000000F0000.generating");
    std::fs::write(&stale, b"half of it").unwrap();
    let store = open(folder.path(), &time, QUEUE_LIMIT);
    assert!(!stale.exists());
    assert_eq!(store.get(operation.id).await, Ok(operation));
}

/// Goal: a start finds all that was acknowledged, and no lease. Method: stop in mid-work, open, look.
#[tokio::test]
async fn a_start_finds_everything_but_leases() {
    let (time, folder) = (Time::new(), folder());
    let store = open(folder.path(), &time, QUEUE_LIMIT);
    let done = make_backup(&store, &time, "other", "done").await;
    let create = with_key(creation(&time, "main", "a"), "me", "key", 1);
    accept(&store, create.clone()).await;
    let running = claim(&store).await;
    assert_eq!(store.claim(&all_zones(), LEASE).await.unwrap().0, None);
    drop(store);

    let store = open(folder.path(), &time, QUEUE_LIMIT);
    assert_eq!(store.backup(done.id).await, Ok(done));
    let Ok(Created::Existing(found)) = store.create(create, GRACE).await else { panic!("the key is forgotten") };
    assert_eq!((found.id, found.revision, found.due_at()), (running.id, running.revision, Some(time.now())));
    assert_eq!(store.next_due(&all_zones()).await, Ok(Some(time.now())));
    // The worker of the process before may still be there, and has no say any more once another attempt begins.
    let again = claim(&store).await;
    assert_eq!((again.id, again.epoch), (running.id, Epoch(2)));
    assert!(matches!(store.renew(running.id, running.epoch, LEASE).await, Err(Error::Fenced(_))));
}

/// Goal: many at once lose nothing. Method: 64 tasks create, a start counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_64_tasks_create_is_there_after_a_start() {
    let (time, folder) = (Time::new(), folder());
    let store = Arc::new(open(folder.path(), &time, 10_000));
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..64 {
        let (store, time) = (Arc::clone(&store), time.clone());
        tasks.spawn(async move {
            for round in 0..4 {
                let operation = accept(&*store, creation(&time, &format!("c-{task}-{round}"), &format!("b-{task}-{round}"))).await;
                // What a read gives is durable too, so it may be read at once.
                assert_eq!(store.get(operation.id).await, Ok(operation));
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    drop(store);
    let store = open(folder.path(), &time, 10_000);
    let all = store.list(&OperationFilter::Folder("default".parse().unwrap()), None, 1000).await.unwrap();
    assert_eq!(all.len(), 256);
    assert!(all.windows(2).all(|pair| pair[0].id > pair[1].id));
}

/// Goal: a closed store says so and hangs nobody. Method: close, call, wait.
#[tokio::test]
async fn a_closed_store_refuses() {
    let (time, folder) = (Time::new(), folder());
    let store = open(folder.path(), &time, QUEUE_LIMIT);
    assert_eq!(store.ready(), Ok(()));
    store.close();
    assert!(matches!(store.create(creation(&time, "main", "a"), GRACE).await, Err(Error::Unavailable(_))));
    assert!(matches!(store.get(OperationId::new()).await, Err(Error::Unavailable(_))));
    assert!(matches!(store.next_due(&all_zones()).await, Err(Error::Unavailable(_))));
    assert!(store.ready().is_err());
    assert_eq!(store.poisoned().await, "the store was closed");
}

/// Goal: closing waits for no caller. Method: close on the one thread that the callers would need, while they wait.
#[tokio::test]
async fn closing_waits_for_no_caller() {
    let (time, folder) = (Time::new(), folder());
    let store = Arc::new(open(folder.path(), &time, 10_000));
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..3000 {
        let (store, create) = (Arc::clone(&store), creation(&time, &format!("c{task}"), &format!("b{task}")));
        tasks.spawn(async move { store.create(create, GRACE).await });
    }
    tokio::task::yield_now().await;
    store.close();
    let mut accepted = 0;
    while let Some(answer) = tasks.join_next().await {
        match answer.unwrap() {
            Ok(_) => accepted += 1,
            Err(Error::Unavailable(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(verify(folder.path()).unwrap().operations, accepted);
}

/// Goal: a folder without a store is no clean store. Method: verify an empty one.
#[test]
fn there_must_be_a_store_to_verify() {
    let folder = folder();
    assert!(verify(folder.path()).unwrap_err().to_string().contains("there is no store"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
