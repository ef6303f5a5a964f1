//! Rounds over rows that lie in a store, by a clock of the test.

use super::SOON;
use crate::support::service::Setup;
use crate::support::until;
use chrono::{TimeDelta, Utc};
use redkeep::artifacts::{Compression, Options as StorageOptions, SEGMENT_BYTES, Storage};
use redkeep::backup::retention::{Keep, Verdict};
use redkeep::backup::{Backup, BackupId, Hold, Level, Origin, State, Suspicion};
use redkeep::cluster::{ClusterId, FolderId, Timestamp};
use redkeep::executor::{Caller, Draft, Executor, Expiry, Options, Planned, RETENTION, Unexpired};
use redkeep::failure::{Failure, Reason};
use redkeep::fleet::Fleet;
use redkeep::operation::{Door, Outcome, Spec, State as OperationState};
use redkeep::store::sled::{Options as SledOptions, SledStore};
use redkeep::store::{Clock, Completion, OperationFilter, Store, Zones};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// An executor over a store and a storage of its own, whose clocks are moved together.
struct Keeper {
    executor: Executor,
    store: Arc<SledStore>,
    ahead: Arc<Mutex<TimeDelta>>,
    folder: tempfile::TempDir,
    stop: CancellationToken,
}

impl Keeper {
    /// No cluster is known. Nothing runs before [`Keeper::run`].
    fn new(expiry: Expiry) -> Self {
        Self::with(expiry, Fleet::new([]))
    }

    /// The cluster `main` is known; `plan` are lines of its section.
    fn of(expiry: Expiry, plan: &str) -> Self {
        let file = Setup::new().cluster("main", &["127.0.0.1:1"], plan);
        Self::with(expiry, Fleet::new(redkeep::config::load(Some(&file.write()), &[]).unwrap().clusters))
    }

    fn with(expiry: Expiry, fleet: Fleet) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ahead = Arc::new(Mutex::new(TimeDelta::zero()));
        let moved = Arc::clone(&ahead);
        let clock = Clock::new(move || Utc::now() + *moved.lock().unwrap());
        let store = Arc::new(SledStore::open(SledOptions { clock: clock.clone(), ..SledOptions::new(folder.path().join("store")) }).unwrap());
        let root = folder.path().join("artifacts").into();
        let storage = Storage::open(StorageOptions { root, folders: BTreeMap::new(), compression: Compression::None, segment_bytes: SEGMENT_BYTES }).unwrap();
        let options = Options { delete_grace: DAY, expiry: Expiry { clock, ..expiry }, drain: Duration::ZERO, ..Options::default() };
        let executor = Executor::new(Arc::clone(&store) as Arc<dyn Store>, Arc::new(fleet), storage, options);
        Self { executor, store, ahead, folder, stop: CancellationToken::new() }
    }

    fn now(&self) -> Timestamp {
        Utc::now() + *self.ahead.lock().unwrap()
    }

    fn pass(&self, time: Duration) {
        *self.ahead.lock().unwrap() += TimeDelta::from_std(time).unwrap();
    }

    /// Puts a backup in that was taken `days` ago, with a file in storage, after a change to its row.
    async fn put(&self, cluster: &str, name: &str, days: i64, change: impl FnOnce(&mut Backup)) -> BackupId {
        let at = self.now() - TimeDelta::days(days);
        let (folder, cluster): (FolderId, ClusterId) = ("default".parse().unwrap(), cluster.parse().unwrap());
        let mut row = Backup::draft(BackupId::new(), folder, cluster, name.parse().unwrap(), "an operation".to_owned(), at);
        (row.state, row.epoch, row.level, row.started_at) = (State::Available, Some(1), Some(Level::Walked), Some(at));
        change(&mut row);
        let path = self.folder_of(&row);
        std::fs::create_dir_all(path.join("1")).unwrap();
        std::fs::write(path.join("1/shard1-0.rdb"), "REDIS").unwrap();
        assert!(self.store.put_back(row.clone(), Vec::new()).await.unwrap());
        row.id
    }

    fn folder_of(&self, row: &Backup) -> std::path::PathBuf {
        self.folder.path().join(format!("artifacts/{}/{}/{}", row.folder_id, row.cluster_id, row.id))
    }

    fn run(&self) {
        let (executor, stop) = (self.executor.clone(), self.stop.clone());
        tokio::spawn(async move { executor.run(stop).await });
    }

    async fn row(&self, id: BackupId) -> Backup {
        self.store.backup(id).await.unwrap()
    }

    async fn plan(&self, cluster: &str) -> BTreeMap<String, Verdict> {
        let planned = self.executor.plan_expiry(&"default".parse().unwrap(), &cluster.parse().unwrap()).await.unwrap();
        planned.into_iter().map(|Planned { name, verdict, .. }| (name.to_string(), verdict)).collect()
    }

    async fn expire(&self, cluster: &str) -> Result<Vec<Planned>, Unexpired> {
        let caller = Caller { subject: "me".to_owned(), key: None };
        self.executor.expire(&"default".parse().unwrap(), &cluster.parse().unwrap(), caller).await
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Rounds every second, from the start on.
fn at_once() -> Expiry {
    Expiry { period: Duration::from_secs(1), settle: Duration::ZERO, ..Expiry::default() }
}

/// No rounds but those that are asked for.
fn by_hand() -> Expiry {
    Expiry { enabled: false, settle: Duration::from_secs(3), ..Expiry::default() }
}

/// Lets a backup end `days` ago.
fn ended(days: i64) -> impl FnOnce(&mut Backup) {
    move |row| row.expires_at = Some(row.created_at.max(Utc::now() - TimeDelta::days(days)))
}

fn words(plan: &BTreeMap<String, Verdict>) -> Vec<(&str, &'static str)> {
    plan.iter().map(|(name, verdict)| (name.as_str(), verdict.words().1)).collect()
}

#[tokio::test]
async fn rounds_delete_in_the_services_own_name_and_leave_the_rest() {
    let keeper = Keeper::new(at_once());
    let old = keeper.put("main", "old", 30, ended(1)).await;
    let case = |row: &mut Backup| {
        ended(1)(row);
        row.holds = vec![Hold { reason: "case 7".into(), created_by: "me".into(), created_at: row.created_at }];
    };
    let held = keeper.put("main", "held", 29, case).await;
    let manual = keeper.put("main", "manual", 28, |_| {}).await;
    let last = keeper.put("main", "last", 2, ended(1)).await;
    // A cluster of which there is only one, and one whose newest is suspect.
    let only = keeper.put("only", "only", 400, ended(300)).await;
    keeper.put("odd", "sound", 5, ended(1)).await;
    let suspicion = Suspicion { reasons: vec!["empty".into()], raised_at: Utc::now(), cleared: None };
    keeper.put("odd", "suspect", 4, |row| row.suspicion = Some(suspicion)).await;
    keeper.run();
    let gone = until("the old one is deleted", SOON, async || Some(keeper.row(old).await).filter(|row| row.is_deleting() && row.busy.is_none())).await;
    assert!(matches!(gone.state, State::Deleting { purge_at } if purge_at > keeper.now() + TimeDelta::hours(23)), "its files stay for the grace time");
    assert!(keeper.folder_of(&gone).join("1/shard1-0.rdb").exists() && keeper.folder_of(&gone).join("facts/1.json").exists());
    let operations = keeper.store.list(&OperationFilter::Folder("default".parse().unwrap()), None, 10).await.unwrap();
    let [deletion] = operations.as_slice() else { panic!("one deletion and nothing else: {operations:#?}") };
    assert_eq!((deletion.created_by.as_str(), &deletion.spec, deletion.backup_id), (RETENTION, &Spec::DeleteBackup, Some(old)));
    assert!(matches!(deletion.state, OperationState::Succeeded(_)));
    for id in [held, manual, last, only] {
        assert!(keeper.row(id).await.is_available());
    }
    assert_eq!(words(&keeper.plan("main").await), [("held", "held"), ("last", "last_good"), ("manual", "endless"), ("old", "deleted")]);
    assert_eq!(words(&keeper.plan("only").await), [("only", "last_good")]);
    assert_eq!(words(&keeper.plan("odd").await), [("sound", "suspect"), ("suspect", "endless")]);
    let numbers = until("a whole round is told", SOON, async || {
        Some(keeper.executor.metrics().render()).filter(|text| text.contains("fate=\"deleted\",reason=\"deleted\"} 1"))
    })
    .await;
    for line in [
        "redkeep_retention_backups{fate=\"keep\",reason=\"last_good\"} 2",
        "redkeep_retention_backups{fate=\"keep\",reason=\"held\"} 1",
        "redkeep_retention_backups{fate=\"keep\",reason=\"endless\"} 2",
        "redkeep_retention_backups{fate=\"keep\",reason=\"suspect\"} 1",
        "redkeep_retention_deleted_total{reason=\"age\"} 1",
        "redkeep_retention_deleted_total{reason=\"failed\"} 0",
    ] {
        assert!(numbers.lines().any(|found| found == line), "{line} in\n{numbers}");
    }
}

/// Goal: a clock that was set a day forward removes nothing at once, neither records nor files; and once it has gone steadily, what the
/// rules let go and no more. Method: both clocks jump while rounds and the collector run.
#[tokio::test]
async fn a_clock_set_forward_is_not_believed_at_once() {
    let keeper = Keeper::new(Expiry { settle: Duration::from_secs(3), ..at_once() });
    let deleted = keeper.put("main", "deleted", 9, |_| {}).await;
    let soon = keeper.put("main", "soon", 8, |row| row.expires_at = Some(Utc::now() + TimeDelta::hours(20))).await;
    let later = keeper.put("main", "later", 7, |row| row.expires_at = Some(Utc::now() + TimeDelta::days(9))).await;
    let last = keeper.put("main", "last", 6, |row| row.expires_at = Some(Utc::now() + TimeDelta::hours(20))).await;
    keeper.run();
    let caller = Caller { subject: "me".to_owned(), key: None };
    let deletion = keeper.executor.change_backup(deleted, Door::Redkeep, Spec::DeleteBackup, caller).await.unwrap();
    until("it is deleted", SOON, async || Some(keeper.row(deleted).await).filter(|row| row.busy.is_none() && row.is_deleting())).await;

    keeper.pass(DAY);
    let jumped_at = std::time::Instant::now();
    assert!(matches!(keeper.expire("main").await, Err(Unexpired::Unsteady(_))));
    assert!(matches!(keeper.store.purgeable(10).await.unwrap().as_slice(), [due] if due.id == deleted), "by the clock it may go");
    while jumped_at.elapsed() < Duration::from_secs(2) {
        // The collector looks around at each of these.
        keeper.executor.cancel(deletion.id).await.unwrap();
        let row = keeper.row(deleted).await;
        assert!(!row.purging && keeper.folder_of(&row).join("1/shard1-0.rdb").exists());
        assert!(keeper.row(soon).await.is_available());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    until("what has had its time goes", SOON, async || keeper.row(soon).await.is_deleting().then_some(())).await;
    until("so do the files", SOON, async || keeper.store.backup(deleted).await.err()).await;
    assert!(keeper.row(later).await.is_available());
    assert_eq!(keeper.plan("main").await["last"], Verdict::Keep(Keep::LastGood));
    assert!(keeper.row(last).await.is_available());
}

#[tokio::test]
async fn what_reads_a_backup_keeps_it() {
    // Method: nobody works on what is accepted, so the reader stays.
    let keeper = Keeper::new(by_hand());
    let read = keeper.put("main", "read", 9, ended(1)).await;
    let free = keeper.put("main", "free", 8, ended(1)).await;
    keeper.put("main", "new", 0, |_| {}).await;
    let caller = Caller { subject: "me".to_owned(), key: None };
    let reader = keeper.executor.change_backup(read, Door::Redkeep, Spec::VerifyBackup { level: Level::Walked }, caller).await.unwrap();
    let told = keeper.expire("main").await.unwrap();
    let of = |id| told.iter().find(|planned| planned.backup_id == id).unwrap();
    assert_eq!(of(read).verdict, Verdict::Keep(Keep::InUse(reader.id.to_string())));
    let deletion = keeper.store.get(of(free).operation_id.unwrap()).await.unwrap();
    assert_eq!((deletion.created_by.as_str(), deletion.backup_id), ("me", Some(free)));
    assert!(keeper.row(read).await.is_available());
    // A second time there is nothing to do.
    let again = keeper.expire("main").await.unwrap();
    assert!(again.iter().all(|planned| planned.operation_id.is_none()), "{again:?}");
}

/// Lets a backup be a scheduled one of its day.
fn scheduled(row: &mut Backup) {
    (row.origin, row.planned_at) = (Origin::Automated, Some(row.created_at));
}

/// Goal: scheduled backups go by the plan of their cluster, whatever it was when they were taken. Method: the same rows under plans that
/// change; and when the cluster is not known any more, by the end that each has itself.
#[tokio::test]
async fn scheduled_ones_go_by_the_plan_of_their_cluster() {
    for (plan, expected) in [
        ("backup_retain_period_days = 7\nkeep_last = 3", ["age", "age", "keep_last", "keep_last", "last_good", "endless"]),
        ("backup_retain_period_days = 7", ["age", "age", "age", "age", "last_good", "endless"]),
        ("backup_retain_period_days = 19", ["age", "age", "young", "young", "young", "endless"]),
        ("keep_last = 1", ["endless"; 6]),
    ] {
        let keeper = Keeper::of(by_hand(), plan);
        for (name, days) in [("a", 40), ("b", 20), ("c", 18), ("d", 16), ("e", 14)] {
            keeper.put("main", name, days, scheduled).await;
        }
        keeper.put("main", "manual", 50, |_| {}).await;
        let told: Vec<_> = keeper.plan("main").await.values().map(|verdict| verdict.words().1).collect();
        assert_eq!(told, expected, "{plan}");
    }
    let keeper = Keeper::new(by_hand());
    keeper.put("main", "a", 40, scheduled).await;
    let over = |row: &mut Backup| {
        scheduled(row);
        ended(1)(row);
    };
    keeper.put("main", "b", 20, over).await;
    keeper.put("main", "c", 10, over).await;
    assert_eq!(words(&keeper.plan("main").await), [("a", "endless"), ("b", "age"), ("c", "last_good")]);
}

/// Goal: what has failed goes by its age, too, and at once, as nothing is stored of it. Method: a creation that fails.
#[tokio::test]
async fn what_failed_goes_by_its_age() {
    let keeper = Keeper::of(by_hand(), "");
    let good = keeper.put("main", "good", 9, |_| {}).await;
    let cluster = keeper.executor.fleet().get(&"main".parse().unwrap()).unwrap();
    let draft = Draft { name: "failed".parse().unwrap(), labels: Default::default(), expires_at: Some(keeper.now() - TimeDelta::hours(1)) };
    let caller = Caller { subject: "me".to_owned(), key: None };
    let failed = keeper.executor.create_backup(&cluster, Door::Redkeep, draft, caller).await.unwrap().backup_id.unwrap();
    assert_eq!(keeper.plan("main").await["failed"], Verdict::Keep(Keep::Creating));
    let claimed = keeper.store.claim(&Zones::default(), DAY).await.unwrap().0.unwrap().operation;
    let outcome = Outcome::Failed(Failure::new(Reason::SourceUnreachable, "nobody answers"));
    keeper.store.complete(claimed.id, claimed.epoch, Completion { outcome, backup: None }).await.unwrap();
    assert_eq!(words(&keeper.plan("main").await), [("failed", "failed"), ("good", "endless")]);
    keeper.expire("main").await.unwrap();
    keeper.run();
    until("the row is gone", SOON, async || keeper.store.backup(failed).await.err()).await;
    assert!(keeper.row(good).await.is_available());
    // Of another folder nothing is told, and of another cluster.
    assert!(keeper.executor.plan_expiry(&"second".parse().unwrap(), &"main".parse().unwrap()).await.unwrap().is_empty());
    assert!(keeper.plan("other").await.is_empty());
}

/// Goal: many backups are judged in little memory and time, and deletions of one round are bounded. Method: 1,200 that have had their
/// time.
#[tokio::test]
async fn a_round_deletes_a_bounded_number() {
    let keeper = Keeper::new(by_hand());
    for number in 0..1_200 {
        let at = Utc::now() - TimeDelta::days(2_000 - number);
        let name = format!("b{number}").parse().unwrap();
        let mut row = Backup::draft(BackupId::new(), "default".parse().unwrap(), "main".parse().unwrap(), name, "an operation".to_owned(), at);
        (row.state, row.epoch, row.level, row.started_at, row.expires_at) = (State::Available, Some(1), Some(Level::Walked), Some(at), Some(at));
        keeper.store.put_back(row, Vec::new()).await.unwrap();
    }
    let first = keeper.expire("main").await.unwrap();
    let count = |told: &[Planned]| told.iter().filter(|planned| planned.operation_id.is_some()).count();
    assert_eq!((first.len(), count(&first)), (1_200, 1_000));
    let second = keeper.expire("main").await.unwrap();
    assert_eq!(count(&second), 199);
    let left: Vec<_> = second.iter().filter(|planned| planned.operation_id.is_none() && !matches!(planned.verdict, Verdict::Deleted(_))).collect();
    assert!(matches!(left.as_slice(), [last] if last.verdict == Verdict::Keep(Keep::LastGood) && last.name.as_str() == "b1199"), "{left:?}");
}
