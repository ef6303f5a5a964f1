//! What only this store can get wrong: damage on disk, a disk that fails, a judge that panics.

use super::*;
use crate::backup::Labels;
use crate::cluster::policy::Plan;
use crate::cluster::{Adopted, ClusterId, Connection};
use crate::operation::{Door, ExportTarget, Outcome, Policy, Response, Spec, State, Tally};
use chrono::TimeDelta;
use std::fs::{File, OpenOptions};
use std::path::Path;

const LEASE: Duration = Duration::from_secs(15);

/// A folder in which nothing need outlive the test: in memory where there is such a place.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

fn open(folder: &Path) -> SledStore {
    SledStore::open(Options::new(folder)).unwrap()
}

fn create(cluster: &str) -> Create {
    let now = Clock::system().now();
    let operation = Operation {
        id: OperationId::new(),
        folder_id: "default".parse().unwrap(),
        cluster_id: cluster.parse().unwrap(),
        backup_id: Some(BackupId::new()),
        door: Door::Redkeep,
        spec: Spec::CreateBackup,
        description: String::new(),
        created_at: now,
        created_by: "anonymous".to_owned(),
        modified_at: now,
        revision: 1,
        zone: None,
        policy: Policy { deadline_at: now + TimeDelta::hours(1), refork_delay_millis: 0 },
        epoch: Epoch(0),
        state: State::Queued { not_before: now },
        reached: None,
        tally: Tally::default(),
        last_failure: None,
        progress: Progress::default(),
        publication: None,
    };
    let draft = Backup::draft(
        operation.backup_id.unwrap(),
        operation.folder_id.clone(),
        operation.cluster_id.clone(),
        cluster.parse().unwrap(),
        operation.id.to_string(),
        now,
    );
    Create { operation, draft: Some(draft), cluster: None, idempotency: None }
}

async fn accept(store: &SledStore, cluster: &str) -> Operation {
    match store.create(create(cluster), Duration::ZERO).await {
        Ok(Created::New(operation)) => operation,
        other => panic!("not accepted: {other:?}"),
    }
}

/// Changes the tree behind the store's back.
fn tamper(store: &SledStore, with: impl FnOnce(&::sled::Tree)) {
    let disk = store.disk.read().unwrap();
    with(&disk.as_ref().unwrap().db);
}

fn flip_last_bit(tree: &::sled::Tree, key: &[u8]) {
    let mut value = tree.get(key).unwrap().unwrap().to_vec();
    *value.last_mut().unwrap() ^= 1;
    tree.insert(key, value).unwrap();
}

/// Goal: a flipped bit is told, and does not keep other work from being done. Method: flip one in each kind of row that is
/// read; read, claim, list; then look whether the check of the whole store finds them.
#[tokio::test]
async fn a_flipped_bit_is_damage_and_no_more() {
    let folder = folder();
    let store = open(folder.path());
    let bad = accept(&store, "bad").await;
    let good = accept(&store, "good").await;
    tamper(&store, |tree| {
        flip_last_bit(tree, &keys::operation(bad.id));
        flip_last_bit(tree, &keys::backup(bad.backup_id.unwrap()));
    });
    let damaged = store.get(bad.id).await;
    assert!(matches!(&damaged, Err(Error::Damaged(what)) if what.contains("operation")), "{damaged:?}");
    let damaged = store.backup(bad.backup_id.unwrap()).await;
    assert!(matches!(&damaged, Err(Error::Damaged(what)) if what.contains("backup")), "{damaged:?}");
    assert!(matches!(store.cancel(bad.id).await, Err(Error::Damaged(_))));
    assert!(matches!(store.list(&OperationFilter::Folder(bad.folder_id.clone()), None, 10).await, Err(Error::Damaged(_))));
    let (claim, ended) = store.claim(&Zones::default(), LEASE).await.unwrap();
    assert_eq!((claim.unwrap().operation.id, ended), (good.id, vec![]));
    assert_eq!(store.ready(), Ok(()));

    drop(store);
    let report = verify(folder.path()).unwrap();
    assert!(report.faults.iter().any(|fault| fault.contains("checksum")), "{report:?}");
    let refused = SledStore::open(Options::new(folder.path())).unwrap_err();
    assert!(matches!(refused, Error::Damaged(_)), "{refused}");
}

/// Goal: nothing that was stored by another hand makes the store panic. Method: values and keys of all lengths, each kind.
#[tokio::test]
async fn strange_rows_are_faults_and_no_panic() {
    let folder = folder();
    let store = open(folder.path());
    tamper(&store, |tree| {
        for kind in 0..=255u8 {
            for length in [0, 1, 16, 17, 40] {
                let key = [&[kind][..], &vec![0; length]].concat();
                tree.insert(&key[..], vec![1; length]).unwrap();
            }
        }
        tree.insert(keys::format(), super::super::row::encode("format", &rows::FORMAT).unwrap()).unwrap();
    });
    let id = OperationId::from_bytes([0; 16]);
    assert!(store.get(id).await.is_err());
    assert!(store.manifest(id).await.is_err());
    assert!(store.doomed(10).await.is_err());
    assert!(store.purgeable(10).await.is_err());
    assert!(store.expire(Duration::ZERO).await.is_err());
    assert_eq!(store.ready(), Ok(()));
    drop(store);
    let report = verify(folder.path()).unwrap();
    assert!(report.fault_count > 1000 && report.faults.len() == 100, "{} faults", report.fault_count);
    assert!(matches!(SledStore::open(Options::new(folder.path())), Err(Error::Damaged(_))));
}

/// Goal: rows that do not fit one another are found. Method: plant one fault after the other, check, undo.
#[tokio::test]
async fn planted_faults_are_found() {
    let folder = folder();
    let store = open(folder.path());
    let operation = accept(&store, "main").await;
    let (claim, _) = store.claim(&Zones::default(), LEASE).await.unwrap();
    let epoch = claim.unwrap().operation.epoch;
    let publication = Publication { epoch, since: Clock::system().now(), manifest_sha256: String::new() };
    store.step(operation.id, epoch, Step::Publish, Some((publication, vec![7; 100_000]))).await.unwrap();
    let ended = accept(&store, "ended").await;
    store.cancel(ended.id).await.unwrap();
    let ended = store.get(ended.id).await.unwrap();
    drop(store);
    let clean = verify(folder.path()).unwrap();
    assert!(clean.is_clean(), "{clean:?}");
    assert_eq!((clean.operations, clean.live, clean.backups, clean.attempts, clean.doomed), (2, 1, 1, 1, 0));

    let [of_folder, _] = keys::listings_of_operation(operation.id, &operation.folder_id, &operation.cluster_id);
    let missing = [
        keys::format(),
        keys::operation(operation.id),
        keys::backup(operation.backup_id.unwrap()),
        of_folder,
        keys::live(operation.id),
        keys::hold(&operation.cluster_id),
        keys::name(&operation.folder_id, &"main".parse().unwrap()),
        keys::manifest(operation.id, 0),
        keys::manifest(operation.id, 1),
        keys::ended(ended.modified_at, ended.id),
    ];
    for key in missing {
        let value = edit(folder.path(), |tree| tree.remove(&key).unwrap().unwrap());
        let report = verify(folder.path()).unwrap();
        assert!(!report.is_clean(), "the row at {key:?} is not missed");
        edit(folder.path(), |tree| tree.insert(&key, value).unwrap());
    }
    let mark = super::super::row::seal("mark", &[]).unwrap();
    let extra = [
        keys::live(ended.id),
        keys::ended(ended.modified_at, operation.id),
        keys::doomed(ended.modified_at, operation.id, epoch),
        keys::purge(ended.modified_at, operation.backup_id.unwrap()),
        keys::hold(&ended.cluster_id),
        vec![b'?'],
    ];
    for key in extra {
        edit(folder.path(), |tree| tree.insert(&key, mark.clone()).unwrap());
        let report = verify(folder.path()).unwrap();
        assert!(!report.is_clean(), "the row at {key:?} is not seen");
        edit(folder.path(), |tree| tree.remove(&key).unwrap());
    }
    assert_eq!(verify(folder.path()), Ok(clean));
}

/// Goal: a backup that is held by nobody, or by a dead hand, is found, and so is a key of a bucket. Method: as before, on an
/// export that is under way.
#[tokio::test]
async fn planted_faults_around_an_export_are_found() {
    let folder = folder();
    let store = open(folder.path());
    let made = accept(&store, "main").await;
    let (claim, _) = store.claim(&Zones::default(), LEASE).await.unwrap();
    let epoch = claim.unwrap().operation.epoch;
    let publication = Publication { epoch, since: Clock::system().now(), manifest_sha256: String::new() };
    store.step(made.id, epoch, Step::Publish, Some((publication, vec![7]))).await.unwrap();
    let sample = crate::backup::tests::sample();
    let draft = store.backup(made.backup_id.unwrap()).await.unwrap();
    let row = Backup { id: draft.id, name: draft.name.clone(), operation_id: draft.operation_id.clone(), ..sample };
    let completion = Completion { outcome: Outcome::Succeeded(Response::Empty), backup: Some(row.clone()) };
    store.complete(made.id, epoch, completion).await.unwrap();
    let target = ExportTarget { bucket: "reports".into(), path: "a".into(), name: Some("b.rdb".into()), as_stored: false };
    let mut export = create("main");
    export.draft = None;
    export.operation.backup_id = Some(row.id);
    export.operation.spec = Spec::ExportBackup(target);
    let Ok(Created::New(export)) = store.create(export, Duration::ZERO).await else { panic!("not accepted") };
    drop(store);
    let clean = verify(folder.path()).unwrap();
    assert!(clean.is_clean(), "{clean:?}");

    let key = keys::target("reports", "a/b.rdb");
    let value = edit(folder.path(), |tree| tree.remove(&key).unwrap().unwrap());
    assert!(!verify(folder.path()).unwrap().is_clean(), "the key is not missed");
    for (at, owner) in [(key.clone(), made.id), (keys::target("reports", "a/c.rdb"), export.id)] {
        edit(folder.path(), |tree| tree.insert(&at, super::super::row::encode("target", &owner).unwrap()).unwrap());
        assert!(!verify(folder.path()).unwrap().is_clean(), "{at:?} of {owner} is not seen");
        edit(folder.path(), |tree| tree.remove(&at).unwrap());
    }
    edit(folder.path(), |tree| tree.insert(&key, value).unwrap());
    for readers in [vec![], vec![export.id.to_string(), made.id.to_string()], vec![export.id.to_string(), "nonsense".to_owned()]] {
        let wrong = Backup { readers: readers.into_iter().collect(), ..row.clone() };
        let value = edit(folder.path(), |tree| tree.insert(keys::backup(row.id), super::super::row::encode("backup", &wrong).unwrap()).unwrap().unwrap());
        assert!(!verify(folder.path()).unwrap().is_clean(), "{:?} are not seen", wrong.readers);
        edit(folder.path(), |tree| tree.insert(keys::backup(row.id), value).unwrap());
    }
    assert_eq!(verify(folder.path()), Ok(clean));
    // What was stored before there were buckets is read as it was meant.
    let attempt = rows::Attempt { folder_id: row.folder_id, cluster_id: row.cluster_id, backup_id: row.id, bucket: None, doom: None };
    let stored = serde_json::to_value(&attempt).unwrap();
    assert!(stored.get("bucket").is_none() && serde_json::from_value::<rows::Attempt>(stored).unwrap() == attempt);
}

fn edit<T>(folder: &Path, with: impl FnOnce(&::sled::Tree) -> T) -> T {
    let disk = Disk::open(folder, Absent::Refuse).unwrap();
    let answer = with(&disk.db);
    disk.db.flush().unwrap();
    answer
}

/// Goal: a disk that does not sync ends everything, and nothing that was refused is told as done. Method: a descriptor that
/// cannot be synced in the place of the log's.
#[tokio::test]
async fn a_failed_sync_poisons() {
    let folder = folder();
    let before = accept(&open(folder.path()), "before").await;
    let mut disk = Disk::open(folder.path(), Absent::Refuse).unwrap();
    disk.log = OpenOptions::new().write(true).open("/dev/null").unwrap();
    let store = Arc::new(SledStore::start(disk, Options::new(folder.path())).unwrap());
    assert_eq!(store.get(before.id).await, Ok(before.clone()));

    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..20 {
        let store = Arc::clone(&store);
        tasks.spawn(async move { store.create(create(&format!("c{task}")), Duration::ZERO).await });
    }
    while let Some(answer) = tasks.join_next().await {
        assert!(matches!(answer.unwrap(), Err(Error::Unavailable(_))));
    }
    assert!(store.poisoned().await.contains("syncing the log"));
    assert!(store.ready().is_err());
    assert!(matches!(store.get(before.id).await, Err(Error::Unavailable(_))));
    assert!(matches!(store.next_due(&Zones::default()).await, Err(Error::Unavailable(_))));
    drop(store);
    assert_eq!(open(folder.path()).get(before.id).await, Ok(before));
}

/// Goal: a fault of ours in the judging hangs nobody. Method: a command that panics, among others.
#[tokio::test]
async fn a_panic_in_the_judge_poisons() {
    let folder = folder();
    let store = open(folder.path());
    let operation = accept(&store, "main").await;
    let panics = store.change(|_| -> Result<(), Error> { panic!("made by a test") });
    let (first, second) = tokio::join!(panics, store.cancel(operation.id));
    assert!(matches!(first, Err(Error::Unavailable(_))));
    assert!(matches!(second, Err(Error::Unavailable(_))));
    assert!(store.poisoned().await.contains("panicked"));
    drop(store);
    let store = open(folder.path());
    assert_eq!(store.get(operation.id).await, Ok(operation));
}

/// Goal: a refused command leaves nothing behind, though commands before and after it in the same batch do. Method: many at
/// once, of which half are refused at the last check.
#[tokio::test]
async fn what_is_refused_leaves_nothing() {
    let folder = folder();
    let store = Arc::new(open(folder.path()));
    let mut tasks = tokio::task::JoinSet::new();
    // It hardly compresses.
    let noise: String = (1..=10_000_u64)
        .map(|number| format!("{:016x}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31).wrapping_mul(0xBF58_476D_1CE4_E5B9)))
        .collect();
    for task in 0..200 {
        let (store, mut create) = (Arc::clone(&store), create(&format!("c{}", task / 2)));
        // The row is too long to be stored, which is found when the others of its command are written already.
        create.operation.description = if task % 2 == 0 { noise.clone() } else { "x".to_owned() };
        tasks.spawn(async move { (task, store.create(create, Duration::ZERO).await) });
    }
    while let Some(answer) = tasks.join_next().await {
        let (task, answer) = answer.unwrap();
        match (task % 2, &answer) {
            (0, Err(Error::Invalid(what))) => assert!(what.contains("65536 bytes"), "{what}"),
            (1, Ok(Created::New(_))) => {}
            _ => panic!("{task}: {answer:?}"),
        }
    }
    drop(store);
    let report = verify(folder.path()).unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.operations, report.backups), (100, 100));
}

/// Goal: the crate puts no row into a file of its own, which it would not sync. Method: many rows of the greatest length, in
/// one leaf after the other, written over and over.
#[tokio::test]
async fn no_row_lies_outside_of_the_log() {
    let folder = folder();
    let store = open(folder.path());
    for round in 0..3 {
        for batch in 0..4 {
            store
                .change(move |judge| {
                    for index in 0..50u16 {
                        let id = OperationId::from_bytes([batch; 16]);
                        judge.rows.put(keys::manifest(id, index), super::super::row::seal("manifest", &vec![round; 65_000])?);
                    }
                    Ok(())
                })
                .await
                .unwrap();
        }
    }
    assert_eq!(std::fs::read_dir(folder.path().join("blobs")).unwrap().count(), 0);
}

/// Goal: the search of a claim goes on beyond its limit for one command. Method: more operations past their deadline than that.
#[tokio::test]
async fn a_claim_ends_as_many_as_there_are() {
    let folder = folder();
    let store = Arc::new(open(folder.path()));
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..600 {
        let (store, mut create) = (Arc::clone(&store), create(&format!("c{task}")));
        create.operation.policy.deadline_at = create.operation.created_at - TimeDelta::seconds(1);
        tasks.spawn(async move { store.create(create, Duration::ZERO).await.unwrap() });
    }
    while let Some(accepted) = tasks.join_next().await {
        accepted.unwrap();
    }
    let (claim, ended) = store.claim(&Zones::default(), LEASE).await.unwrap();
    assert_eq!((claim, ended.len()), (None, 600));
    assert_eq!(store.next_due(&Zones::default()).await, Ok(None));
    assert_eq!(store.expire(Duration::ZERO).await, Ok(600));
}

/// Goal: what a newer program wrote is left alone. Method: raise the format.
#[tokio::test]
async fn a_newer_format_is_refused() {
    let folder = folder();
    drop(open(folder.path()));
    edit(folder.path(), |tree| tree.insert(keys::format(), super::super::row::encode("format", &(rows::FORMAT + 1)).unwrap()).unwrap());
    let refused = SledStore::open(Options::new(folder.path())).unwrap_err();
    assert!(refused.to_string().contains("a newer one wrote it"), "{refused}");
    assert!(!verify(folder.path()).unwrap().is_clean());
    edit(folder.path(), |tree| {
        tree.remove(keys::format()).unwrap();
        tree.insert(keys::live(OperationId::new()), vec![]).unwrap();
    });
    assert!(matches!(SledStore::open(Options::new(folder.path())), Err(Error::Damaged(_))));
}

/// Goal: the folder is made with its parents, for this user alone. Method: a path that is not there.
#[tokio::test]
async fn the_folder_is_made() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let path = folder.path().join("data").join("store");
    let store = open(&path);
    let operation = accept(&store, "main").await;
    drop(store);
    assert_eq!(File::open(&path).unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let store = open(&path);
    let completion = Completion { outcome: Outcome::Succeeded(Response::Empty), backup: None };
    assert!(matches!(store.complete(operation.id, Epoch(1), completion).await, Err(Error::Fenced(_))));
}

/// Goal: a store that was closed can be opened while a child of this process is being started, which happens all the time
/// where servers are started. Method: keep a copy of the lock's descriptor, as a forked child does, and open again.
#[test]
fn a_copy_of_the_lock_in_a_forked_child_holds_nothing() {
    let folder = folder();
    let store = open(folder.path());
    let copy = store.disk.read().unwrap().as_ref().unwrap()._lock.0.try_clone().unwrap();
    store.close();
    drop(open(folder.path()));
    drop(copy);
}

/// Goal: a record of a cluster that does not fit the work on it is found. Method: an adoption and a change of connection under
/// way; take away and plant, check, undo.
#[tokio::test]
async fn planted_faults_of_clusters_are_found() {
    let folder = folder();
    let store = open(folder.path());
    let row = |cluster: &str, is_adopting| Adopted {
        id: cluster.parse().unwrap(),
        folder_id: "default".parse().unwrap(),
        name: cluster.to_owned(),
        description: String::new(),
        labels: Labels::new(),
        zone: None,
        created_at: Clock::system().now(),
        allow_primary: false,
        connection: Connection { nodes: vec!["a:1".to_owned()], username: None, password: None, trust: None },
        is_adopting,
        plan: Plan::default(),
        local: None,
    };
    let work = |cluster: &str, spec, row: Option<Adopted>| {
        let Create { operation, .. } = create(cluster);
        Create { operation: Operation { backup_id: None, spec, ..operation }, draft: None, cluster: row, idempotency: None }
    };
    let (done, queued): (ClusterId, ClusterId) = ("done".parse().unwrap(), "queued".parse().unwrap());
    store.create(work("done", Spec::AdoptCluster, Some(row("done", true))), Duration::ZERO).await.unwrap();
    let claimed = store.claim(&Zones::default(), LEASE).await.unwrap().0.unwrap().operation;
    store.complete(claimed.id, claimed.epoch, Completion { outcome: Outcome::Succeeded(Response::Empty), backup: None }).await.unwrap();
    store.create(work("done", Spec::UpdateConnection, Some(row("done", false))), Duration::ZERO).await.unwrap();
    store.create(work("queued", Spec::AdoptCluster, Some(row("queued", true))), Duration::ZERO).await.unwrap();
    drop(store);
    let clean = verify(folder.path()).unwrap();
    assert!(clean.is_clean() && clean.clusters == 2, "{clean:?}");

    for key in [keys::cluster(&done), keys::cluster(&queued), keys::cluster_to_be(&done), keys::hold(&done), keys::hold(&queued)] {
        let value = edit(folder.path(), |tree| tree.remove(&key).unwrap().unwrap());
        assert!(!verify(folder.path()).unwrap().is_clean(), "the row at {key:?} is not missed");
        edit(folder.path(), |tree| tree.insert(&key, value).unwrap());
    }
    let record = |row: &Adopted| super::super::row::encode("cluster", row).unwrap();
    let policy = |cluster: &str, id: &str| {
        let (id, name, cluster_id) = (id.to_owned(), id.to_owned(), cluster.parse().unwrap());
        let policy = crate::cluster::policy::Policy {
            id,
            cluster_id,
            name,
            description: String::new(),
            created_at: Clock::system().now(),
            cron: Default::default(),
            retain_days: 7,
        };
        super::super::row::encode("retention policy", &policy).unwrap()
    };
    let wrong = [
        (keys::cluster(&done), record(&row("done", true))),
        (keys::cluster(&queued), record(&row("queued", false))),
        (keys::cluster(&queued), record(&row("other", true))),
        (keys::cluster_to_be(&queued), record(&row("queued", false))),
        (keys::cluster_to_be(&"other".parse().unwrap()), record(&row("other", false))),
        // A policy without its cluster, one under another's key, and a schedule that cannot be read.
        (keys::policy(&"other".parse().unwrap(), "p"), policy("other", "p")),
        (keys::policy(&done, "p"), policy("done", "q")),
        (keys::planned(&done), super::super::row::encode("schedule of a cluster", &7).unwrap()),
    ];
    for (key, value) in wrong {
        let before = edit(folder.path(), |tree| tree.insert(&key, value).unwrap());
        assert!(!verify(folder.path()).unwrap().is_clean(), "the row at {key:?} is not seen");
        edit(folder.path(), |tree| match &before {
            Some(before) => tree.insert(&key, before).unwrap(),
            None => tree.remove(&key).unwrap(),
        });
    }
    assert!(verify(folder.path()).unwrap().is_clean());
}

/// Goal: what a reader has seen before never hides what was acknowledged since. Method: readers without pause, and after each
/// acknowledged change a read that must show it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_is_older_than_what_was_acknowledged() {
    let folder = folder();
    let store = Arc::new(open(folder.path()));
    let id = accept(&store, "main").await.id;
    let (claim, _) = store.claim(&Zones::default(), LEASE).await.unwrap();
    let epoch = claim.unwrap().operation.epoch;
    let ended = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (store, ended) = (Arc::clone(&store), Arc::clone(&ended));
            tokio::spawn(async move {
                let mut newest = 0;
                while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                    let revision = store.get(id).await.unwrap().revision;
                    assert!(revision >= newest, "{revision} after {newest}");
                    newest = revision;
                    // What is kept in memory is read without a pause.
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for bytes_per_second in 0..500 {
        let told = store.progress(id, epoch, Progress { bytes_per_second, ..Progress::default() }).await.unwrap();
        let read = store.get(id).await.unwrap();
        assert_eq!((read.revision, read.progress.bytes_per_second), (told.revision, bytes_per_second));
    }
    ended.store(true, std::sync::atomic::Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
}
