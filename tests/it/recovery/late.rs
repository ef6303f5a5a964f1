//! Goal: a worker that wakes after its lease has lapsed changes nothing. Method: the first attempt is claimed by hand and
//! left lying; the store's clock moves on; an executor does the work; then the first worker writes.

use super::*;
use redkeep::artifacts::{Compression, Folder, SEGMENT_BYTES, Storage};
use redkeep::cluster::ClusterId;
use redkeep::executor::{self, Caller, Draft, Executor};
use redkeep::failure::{Failure, Reason};
use redkeep::fleet::Fleet;
use redkeep::operation::{Door, Fault, Outcome, Publication, State as Stage, Step};
use redkeep::store::{Clock, Completion, Error, LOOK_AGAIN, Zones};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tokio_util::sync::CancellationToken;

const LEASE: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_late_worker_writes_nothing() {
    let server = ScriptedRedis::start(vec![full_sync_marker(Dump::sample().bytes, MARKER)]).await;
    let setup = Setup::new().cluster("main", &[&server.address()], "");
    let config = redkeep::config::load(Some(&setup.write()), &[]).unwrap();
    let ahead_secs = Arc::new(AtomicI64::new(0));
    let clock = Clock::new({
        let ahead_secs = Arc::clone(&ahead_secs);
        move || chrono::Utc::now() + chrono::TimeDelta::seconds(ahead_secs.load(Ordering::Relaxed))
    });
    let store: Arc<dyn Store> = Arc::new(SledStore::open(Options { clock, ..Options::new(setup.folder().join("store")) }).unwrap());
    let root = setup.artifact_root();
    let storage = Storage::open(redkeep::artifacts::Options {
        root: root.clone().into(),
        folders: Default::default(),
        compression: Compression::Zstd(1),
        segment_bytes: SEGMENT_BYTES,
    })
    .unwrap();
    let fleet = Arc::new(Fleet::new(config.clusters));
    let cluster = fleet.get(&"main".parse::<ClusterId>().unwrap()).unwrap();
    let executor = Executor::new(Arc::clone(&store), fleet, storage.clone(), executor::Options { workers: 2, ..config.executor });
    let draft = Draft { name: "a".parse().unwrap(), labels: Default::default(), expires_at: None };
    let caller = Caller { subject: "me".into(), key: None };
    let id = executor.create_backup(&cluster, Door::Redkeep, draft, caller).await.unwrap().id;

    // The first worker gets as far as the seal, with files in its folder, and falls asleep.
    let late = store.claim(&Zones::default(), LEASE).await.unwrap().0.expect("it is due").operation;
    assert_eq!(late.id, id);
    store.step(id, late.epoch, Step::Snapshot, None).await.unwrap();
    let folder = Folder::of_backup(&late.folder_id, &late.cluster_id, late.backup_id.unwrap());
    let attempt = folder.attempt(late.epoch.0);
    storage.create(&attempt, "shard1-0.rdb.zst", b"late".to_vec()).await.unwrap();
    let mut open = storage.upload(&attempt, "shard1-1.rdb.zst").await.unwrap();
    open.part(b"part".to_vec()).await.unwrap();

    // Its lease lapses, and another does the work.
    ahead_secs.store(20, Ordering::Relaxed);
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let (executor, stop) = (executor.clone(), stop.clone());
        async move { executor.run(stop).await }
    });
    let ended = executor.wait(id, 0, SOON).await.unwrap();
    let Stage::Succeeded(_) = &ended.state else { panic!("{ended:#?}") };
    assert_eq!((ended.epoch.0, ended.tally), (2, tally(1, 1)));
    let good = folder.attempt(2).as_str().to_owned();
    let own = ["attempt.json", "manifest.json", "shard1-0.rdb.zst", "shard1-side.json"].map(|file| format!("{good}/{file}"));
    until("the late worker's files are gone", SOON, async || (files_below(&root) == own).then_some(())).await;
    let backup = store.backup(late.backup_id.unwrap()).await.unwrap();

    // It wakes: every write of the record is refused.
    let failure = Failure::new(Reason::SourceUnreachable, "late");
    let publication = Publication { epoch: late.epoch, since: chrono::Utc::now(), manifest_sha256: "00".into() };
    let failed = || Completion { outcome: Outcome::Failed(failure.clone()), backup: None };
    let refused = [
        store.step(id, late.epoch, Step::Seal, None).await,
        store.step(id, late.epoch, Step::Publish, Some((publication, b"{}".to_vec()))).await,
        store.renew(id, late.epoch, LEASE).await,
        store.progress(id, late.epoch, late.progress.clone()).await,
        store.retry(id, late.epoch, Duration::ZERO, Fault::Forked, failure.clone()).await,
        store.hand_back(id, late.epoch).await,
        store.complete(id, late.epoch, failed()).await,
    ];
    for answer in refused {
        assert!(matches!(answer, Err(Error::Fenced(_))), "{answer:?}");
    }
    assert_eq!(store.get(id).await.unwrap(), ended);
    assert_eq!(store.backup(late.backup_id.unwrap()).await.unwrap(), backup);

    // What it still writes to storage is in its own folder, and goes at the next look.
    storage.create(&attempt, "manifest.json", b"{}".to_vec()).await.unwrap();
    assert_eq!(files_below(&root).len(), own.len() + 1);
    let again = LOOK_AGAIN[0].as_secs() as i64 + 1;
    ahead_secs.fetch_add(again, Ordering::Relaxed);
    until("what came late is gone", SOON, async || (files_below(&root) == own).then_some(())).await;
    drop(open);
    stop.cancel();
    running.await.unwrap();
}
