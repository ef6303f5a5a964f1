//! Random lives, led by the embedded store and by the model at once: every answer is the same, and at the end all that can
//! be read. There are few clusters, names, keys and zones, so that things meet.

use super::*;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use redkeep::cluster::FolderId;
use redkeep::operation::Fault;
use redkeep::store::{BackupFilter, Lineage, PAGE_ROWS, Place, SKETCH_KEY_BYTES, SketchKey};
use std::fmt::Debug;

const CLUSTERS: [&str; 3] = ["one", "two", "three"];
const FOLDERS: [&str; 2] = ["default", "second"];
const NAMES: [&str; 3] = ["a", "b", "c"];
const NODES: [&str; 3] = ["a:1", "b:1", "c:1"];
const ZONES: [Option<&str>; 3] = [None, Some("east"), Some("west")];
const STEPS: [Step; 5] = [Step::Preflight, Step::Snapshot, Step::Seal, Step::Publish, Step::Work];

/// One thing that happens. Numbers pick among what there is, by remainder.
#[derive(Clone, Debug)]
enum Deed {
    Create {
        cluster: usize,
        folder: usize,
        name: usize,
        zone: usize,
        key: Option<(u8, u8)>,
    },
    /// A creation from acceptance to success, if nothing is in its way.
    Make {
        cluster: usize,
        name: usize,
    },
    Update {
        backup: usize,
        name: Option<usize>,
    },
    Import {
        cluster: usize,
        folder: usize,
        name: usize,
        key: Option<(u8, u8)>,
    },
    Copy {
        backup: usize,
        name: usize,
        key: Option<(u8, u8)>,
    },
    Export {
        backup: usize,
        file: usize,
    },
    /// A proof of a backup.
    Verify {
        backup: usize,
    },
    Occupy {
        who: Who,
    },
    Delete {
        backup: usize,
        key: Option<(u8, u8)>,
        grace: u64,
    },
    /// Work on a cluster: its adoption, a change of its connection, its forgetting.
    OnCluster {
        cluster: usize,
        folder: usize,
        work: usize,
        node: usize,
        key: Option<(u8, u8)>,
    },
    Claim {
        zone: usize,
        lease: u64,
    },
    Renew {
        who: Who,
    },
    Step {
        who: Who,
        ahead: usize,
        decide: bool,
        length: usize,
    },
    Progress {
        who: Who,
    },
    Retry {
        who: Who,
        wait: u64,
        fault: Fault,
    },
    HandBack {
        who: Who,
    },
    Defer {
        who: Who,
        wait: u64,
    },
    TakePlace {
        who: Who,
        domain: usize,
        shard: usize,
        limit: usize,
    },
    FreePlace {
        who: Who,
        domain: usize,
        shard: usize,
    },
    Lineage {
        who: Who,
        shards: usize,
    },
    SketchKey {
        cluster: usize,
        fresh: u8,
    },
    Succeed {
        who: Who,
        row: Row,
    },
    Fail {
        who: Who,
    },
    CompleteCancelled {
        who: Who,
    },
    Cancel {
        who: Who,
    },
    Look {
        which: usize,
        ahead: u32,
    },
    Undelete {
        backup: usize,
    },
    Purge {
        backup: usize,
        claim: bool,
    },
    PutBack {
        cluster: usize,
        name: usize,
        deleted: bool,
    },
    Expire {
        retention: u64,
    },
    Pass {
        time: u64,
    },
    Restart,
}

/// Which worker acts: one that holds an operation, or one of any operation, with its epoch or a stale one.
#[derive(Clone, Debug)]
struct Who {
    operation: usize,
    any: bool,
    stale: bool,
}

/// What a worker says the backup has become.
#[derive(Clone, Debug)]
enum Row {
    None,
    Same,
    Renamed,
    Draft,
}

fn who() -> impl Strategy<Value = Who> {
    (any::<usize>(), prop::bool::weighted(0.15), prop::bool::weighted(0.1)).prop_map(|(operation, any, stale)| Who { operation, any, stale })
}

fn key() -> impl Strategy<Value = Option<(u8, u8)>> {
    prop::option::weighted(0.3, (0..3u8, prop_oneof![4 => Just(1u8), 1 => Just(2)]))
}

fn deed() -> impl Strategy<Value = Deed> {
    let fault = prop_oneof![Just(Fault::Source), Just(Fault::Forked), Just(Fault::Corrupt), Just(Fault::Storage)];
    let row = prop_oneof![1 => Just(Row::None), 4 => Just(Row::Same), 4 => Just(Row::Renamed), 1 => Just(Row::Draft)];
    let time = prop_oneof![Just(0u64), Just(1), Just(14), Just(15), Just(60), Just(600), Just(3700), Just(24 * 3600)];
    let length = prop_oneof![Just(0usize), Just(3), Just(60 * 1024), Just(60 * 1024 + 1), Just(200_000)];
    prop_oneof![
        8 => (0..3usize, 0..2usize, 0..3usize, 0..3usize, key()).prop_map(|(cluster, folder, name, zone, key)| Deed::Create { cluster, folder, name, zone, key }),
        6 => (0..3usize, 0..3usize).prop_map(|(cluster, name)| Deed::Make { cluster, name }),
        5 => (any::<usize>(), prop::option::of(0..3usize)).prop_map(|(backup, name)| Deed::Update { backup, name }),
        4 => (any::<usize>(), key(), prop_oneof![Just(0u64), Just(60)]).prop_map(|(backup, key, grace)| Deed::Delete { backup, key, grace }),
        3 => (0..3usize, prop_oneof![6 => Just(0usize), 1 => Just(1)], 0..3usize, key())
            .prop_map(|(cluster, folder, name, key)| Deed::Import { cluster, folder, name, key }),
        4 => (any::<usize>(), 0..3usize, key()).prop_map(|(backup, name, key)| Deed::Copy { backup, name, key }),
        4 => (any::<usize>(), 0..3usize).prop_map(|(backup, file)| Deed::Export { backup, file }),
        4 => any::<usize>().prop_map(|backup| Deed::Verify { backup }),
        6 => who().prop_map(|who| Deed::Occupy { who }),
        6 => (0..3usize, prop_oneof![6 => Just(0usize), 1 => Just(1)], 0..3usize, 0..3usize, key())
            .prop_map(|(cluster, folder, work, node, key)| Deed::OnCluster { cluster, folder, work, node, key }),
        12 => (0..3usize, prop_oneof![Just(1u64), Just(15), Just(1000)]).prop_map(|(zone, lease)| Deed::Claim { zone, lease }),
        2 => who().prop_map(|who| Deed::Renew { who }),
        14 => (who(), 0..4usize, prop::bool::weighted(0.9), length).prop_map(|(who, ahead, decide, length)| Deed::Step { who, ahead, decide, length }),
        2 => who().prop_map(|who| Deed::Progress { who }),
        4 => (who(), prop_oneof![Just(0u64), Just(5)], fault).prop_map(|(who, wait, fault)| Deed::Retry { who, wait, fault }),
        2 => who().prop_map(|who| Deed::HandBack { who }),
        2 => (who(), prop_oneof![Just(0u64), Just(60), Just(7200)]).prop_map(|(who, wait)| Deed::Defer { who, wait }),
        10 => (who(), 0..2usize, 0..2usize, 1..3usize).prop_map(|(who, domain, shard, limit)| Deed::TakePlace { who, domain, shard, limit }),
        3 => (who(), 0..2usize, 0..2usize).prop_map(|(who, domain, shard)| Deed::FreePlace { who, domain, shard }),
        4 => (who(), 0..3usize).prop_map(|(who, shards)| Deed::Lineage { who, shards }),
        2 => (0..3usize, any::<u8>()).prop_map(|(cluster, fresh)| Deed::SketchKey { cluster, fresh }),
        10 => (who(), row).prop_map(|(who, row)| Deed::Succeed { who, row }),
        2 => who().prop_map(|who| Deed::Fail { who }),
        1 => who().prop_map(|who| Deed::CompleteCancelled { who }),
        3 => who().prop_map(|who| Deed::Cancel { who }),
        4 => (any::<usize>(), prop_oneof![5 => Just(0u32), 1 => Just(1)]).prop_map(|(which, ahead)| Deed::Look { which, ahead }),
        4 => any::<usize>().prop_map(|backup| Deed::Undelete { backup }),
        3 => (any::<usize>(), prop::bool::weighted(0.7)).prop_map(|(backup, claim)| Deed::Purge { backup, claim }),
        2 => (0..3usize, 0..3usize, any::<bool>()).prop_map(|(cluster, name, deleted)| Deed::PutBack { cluster, name, deleted }),
        1 => prop_oneof![Just(0u64), Just(60), Just(24 * 3600)].prop_map(|retention| Deed::Expire { retention }),
        6 => time.prop_map(|time| Deed::Pass { time }),
        1 => Just(Deed::Restart),
    ]
}

/// Two stores with one clock.
struct Pair {
    time: Time,
    folder: tempfile::TempDir,
    sled: Option<SledStore>,
    model: Model,
    operations: Vec<OperationId>,
    backups: Vec<BackupId>,
}

/// The same answer, but for the words of a fault of ours.
fn same<T: PartialEq + Debug>(call: &str, sled: Result<T, Error>, model: Result<T, Error>) -> Result<Option<T>, TestCaseError> {
    match (sled, model) {
        (Err(Error::Invalid(_)), Err(Error::Invalid(_))) => Ok(None),
        (sled, model) if sled == model => Ok(sled.ok()),
        (sled, model) => Err(TestCaseError::fail(format!("`{call}` disagrees\n  store: {sled:?}\n  model: {model:?}\n"))),
    }
}

/// Makes a call of both and compares the answers. The arguments are made twice.
macro_rules! both {
    ($pair:expr, $call:ident($($argument:expr),*)) => {{
        let sled = $pair.sled().$call($($argument),*).await;
        let model = $pair.model.$call($($argument),*).await;
        same(stringify!($call), sled, model)
    }};
}

impl Pair {
    fn new() -> Self {
        let (time, folder) = (Time::new(), folder());
        let sled = Some(open(folder.path(), &time, QUEUE_LIMIT));
        let model = Model::new(time.clock(), QUEUE_LIMIT);
        Self { time, folder, sled, model, operations: Vec::new(), backups: Vec::new() }
    }

    fn sled(&self) -> &SledStore {
        self.sled.as_ref().unwrap()
    }

    /// The operation and epoch of a worker; none when no operation has one.
    async fn pick(&self, who: &Who) -> Option<(Operation, Epoch)> {
        let operation = if who.any {
            let id = self.operations.get(who.operation % self.operations.len().max(1))?;
            // One that has expired is one that nobody knows.
            self.model.get(*id).await.unwrap_or_else(|_| creation(&self.time, "one", "a").operation)
        } else {
            let held = self.model.held();
            held.get(who.operation % held.len().max(1))?.clone()
        };
        let epoch = Epoch(operation.epoch.0.wrapping_sub(u64::from(who.stale)));
        Some((operation, epoch))
    }

    fn pick_backup(&self, number: usize) -> BackupId {
        if self.backups.is_empty() { BackupId::new() } else { self.backups[number % self.backups.len()] }
    }

    async fn accept(&mut self, create: Create, grace: u64) -> Result<(), TestCaseError> {
        if let Some(Created::New(operation)) = both!(self, create(create.clone(), seconds(grace)))? {
            self.operations.push(operation.id);
            if let Some(draft) = create.draft {
                self.backups.push(draft.id);
            }
        }
        Ok(())
    }

    async fn existing(&self, number: usize) -> Backup {
        let id = self.pick_backup(number);
        self.model.backup(id).await.unwrap_or_else(|_| creation(&self.time, "one", "a").draft.unwrap())
    }

    async fn run(&mut self, deed: Deed) -> Result<(), TestCaseError> {
        match deed {
            Deed::Create { cluster, folder, name, zone, key } => {
                let mut create = creation_in(&self.time, FOLDERS[folder], CLUSTERS[cluster], NAMES[name]);
                create.operation.zone = ZONES[zone].map(str::to_owned);
                self.accept(keyed(create, key), 0).await?;
            }
            Deed::Make { cluster, name } => {
                let create = creation_in(&self.time, FOLDERS[0], CLUSTERS[cluster], NAMES[name]);
                let draft = create.draft.clone().unwrap();
                self.accept(create, 0).await?;
                let claimed = both!(self, claim(&all_zones(), LEASE))?.and_then(|(claim, _)| claim);
                let Some(Claim { operation }) = claimed.filter(|claim| claim.operation.backup_id == Some(draft.id)) else { return Ok(()) };
                let decision = (publication(&self.time, operation.epoch), b"{}".to_vec());
                both!(self, step(operation.id, operation.epoch, Step::Publish, Some(decision.clone())))?;
                let after = available(&draft, operation.epoch);
                both!(self, complete(operation.id, operation.epoch, succeeded(Some(after.clone()))))?;
            }
            Deed::Update { backup, name: new } => {
                let changes = BackupChanges { name: new.map(|new| name(NAMES[new])), ..BackupChanges::default() };
                let create = change(&self.time, &self.existing(backup).await, Spec::UpdateBackup(changes));
                self.accept(create, 0).await?;
            }
            Deed::Import { cluster, folder, name, key } => {
                let create = importing(&self.time, FOLDERS[folder], CLUSTERS[cluster], NAMES[name]);
                self.accept(keyed(create, key), 0).await?;
            }
            Deed::Copy { backup, name, key } => {
                let create = copying(&self.time, &self.existing(backup).await, NAMES[name]);
                self.accept(keyed(create, key), 0).await?;
            }
            Deed::Export { backup, file } => {
                let create = exporting(&self.time, &self.existing(backup).await, "reports", NAMES[file]);
                self.accept(create, 0).await?;
            }
            Deed::Verify { backup } => {
                let create = proof(&self.time, &self.existing(backup).await);
                self.accept(create, 0).await?;
            }
            Deed::Occupy { who } => {
                let Some((operation, epoch)) = self.pick(&who).await else { return Ok(()) };
                both!(self, occupy(operation.id, epoch))?;
            }
            Deed::Delete { backup, key, grace } => {
                let create = deletion(&self.time, &self.existing(backup).await);
                self.accept(keyed(create, key), grace).await?;
            }
            Deed::OnCluster { cluster, folder, work, node, key } => {
                let (folder, cluster, node) = (FOLDERS[folder], CLUSTERS[cluster], NODES[node]);
                let create = match work {
                    0 => adoption_in(&self.time, folder, cluster, node),
                    1 => reconnection(&self.time, folder, cluster, node),
                    _ => forgetting(&self.time, folder, cluster),
                };
                self.accept(keyed(create, key), 0).await?;
            }
            Deed::Claim { zone, lease } => {
                let zones = Zones::new(ZONES[zone].map(str::to_owned));
                both!(self, next_due(&zones))?;
                both!(self, claim(&zones, seconds(lease)))?;
            }
            Deed::Renew { who } => {
                let Some((operation, epoch)) = self.pick(&who).await else { return Ok(()) };
                both!(self, renew(operation.id, epoch, LEASE))?;
            }
            Deed::Step { who, ahead, decide, length } => {
                let Some((operation, epoch)) = self.pick(&who).await else { return Ok(()) };
                let from = operation.step().and_then(|step| STEPS.iter().position(|other| *other == step)).unwrap_or_default();
                let step = STEPS[(from + ahead).min(STEPS.len() - 1)];
                let decision =
                    (decide && step == Step::Publish && operation.publication.is_none()).then(|| (publication(&self.time, epoch), vec![length as u8; length]));
                both!(self, step(operation.id, epoch, step, decision.clone()))?;
                both!(self, manifest(operation.id))?;
            }
            Deed::Progress { who } => {
                let Some((operation, epoch)) = self.pick(&who).await else { return Ok(()) };
                let progress = Progress { bytes_per_second: self.time.now().timestamp() as u64, ..Progress::default() };
                both!(self, progress(operation.id, epoch, progress.clone()))?;
            }
            Deed::Retry { who, wait, fault } => {
                let Some((operation, epoch)) = self.pick(&who).await else { return Ok(()) };
                both!(self, retry(operation.id, epoch, seconds(wait), fault, failure("lost")))?;
            }
            Deed::HandBack { who } => {
                let Some((operation, epoch)) = self.pick(&who).await else { return Ok(()) };
                both!(self, hand_back(operation.id, epoch))?;
            }
            Deed::Defer { who, wait } => {
                let Some((operation, epoch)) = self.pick(&who).await else { return Ok(()) };
                let until = self.time.now() + seconds(wait);
                both!(self, defer(operation.id, epoch, until, until + seconds(3600), "the night".to_owned()))?;
            }
            Deed::TakePlace { who, domain, shard, limit } => {
                let Some((operation, epoch)) = self.pick(&who).await else { return Ok(()) };
                both!(self, take_place(operation.id, epoch, &place(domain, shard), limit))?;
            }
            Deed::FreePlace { who, domain, shard } => {
                let Some((operation, epoch)) = self.pick(&who).await else { return Ok(()) };
                both!(self, free_place(operation.id, epoch, &place(domain, shard)))?;
            }
            Deed::Lineage { who, shards } => {
                let Some((operation, epoch)) = self.pick(&who).await else { return Ok(()) };
                let lineage: Vec<Lineage> = (0..shards).rev().map(|index| lineage(&format!("shard{index}"), epoch.0 % 5)).collect();
                both!(self, record_lineage(operation.id, epoch, lineage.clone()))?;
            }
            Deed::SketchKey { cluster, fresh } => {
                both!(self, sketch_key(&CLUSTERS[cluster].parse().unwrap(), SketchKey([fresh; SKETCH_KEY_BYTES])))?;
            }
            Deed::Succeed { who, row } => {
                let Some((operation, epoch)) = self.pick(&who).await else { return Ok(()) };
                let before = match operation.backup_id {
                    Some(id) => self.model.backup(id).await.ok(),
                    // Work on a cluster has no say about a backup.
                    None if matches!(row, Row::Draft) => creation(&self.time, "one", "a").draft,
                    None => None,
                };
                let new_name = match &operation.spec {
                    Spec::UpdateBackup(changes) => changes.name.clone(),
                    _ => None,
                };
                // An export that brings a row is a fault, and a rare one.
                let brings_none = operation.spec == Spec::DeleteBackup || matches!((&operation.spec, &row), (Spec::ExportBackup(_), Row::Same | Row::Renamed));
                let after = before.filter(|_| !brings_none).and_then(|before| match row {
                    Row::None => None,
                    Row::Same => Some(available(&before, epoch)),
                    Row::Renamed => Some(Backup { name: new_name.unwrap_or(before.name.clone()), ..available(&before, epoch) }),
                    Row::Draft => Some(before),
                });
                both!(self, complete(operation.id, epoch, succeeded(after.clone())))?;
            }
            Deed::Fail { who } => {
                let Some((operation, epoch)) = self.pick(&who).await else { return Ok(()) };
                both!(self, complete(operation.id, epoch, failed("no way")))?;
            }
            Deed::CompleteCancelled { who } => {
                let Some((operation, epoch)) = self.pick(&who).await else { return Ok(()) };
                both!(self, complete(operation.id, epoch, Completion { outcome: Outcome::Cancelled, backup: None }))?;
            }
            Deed::Cancel { who } => {
                let Some((operation, _)) = self.pick(&who).await else { return Ok(()) };
                both!(self, cancel(operation.id))?;
            }
            Deed::Look { which, ahead } => {
                let doomed = both!(self, doomed(PAGE_ROWS))?.unwrap_or_default();
                if let Some(doomed) = doomed.get(which % doomed.len().max(1)) {
                    both!(self, looked(doomed.operation_id, doomed.epoch, doomed.looks + ahead))?;
                }
            }
            Deed::Undelete { backup } => {
                let create = change(&self.time, &self.existing(backup).await, Spec::UndeleteBackup);
                self.accept(create, 0).await?;
            }
            Deed::Purge { backup, claim } => {
                both!(self, purgeable(PAGE_ROWS))?;
                let id = self.pick_backup(backup);
                if claim {
                    both!(self, begin_purge(id))?;
                }
                both!(self, purged(id))?;
            }
            Deed::PutBack { cluster, name, deleted } => {
                let draft = creation_in(&self.time, FOLDERS[0], CLUSTERS[cluster], NAMES[name]).draft.unwrap();
                let mut row = Backup { busy: None, ..available(&draft, Epoch(1)) };
                if deleted {
                    row.state = backup::State::Deleting { purge_at: self.time.now() + seconds(60) };
                }
                if both!(self, put_back(row.clone(), vec![lineage("shard1", 3)]))? == Some(true) {
                    self.backups.push(row.id);
                }
            }
            Deed::Expire { retention } => {
                both!(self, expire(seconds(retention)))?;
            }
            Deed::Pass { time } => self.time.pass(seconds(time)),
            Deed::Restart => {
                self.sled = None;
                self.sled = Some(open(self.folder.path(), &self.time, QUEUE_LIMIT));
                self.model.void_leases();
            }
        }
        Ok(())
    }

    /// Compares all that can be read.
    async fn compare(&self) -> Result<(), TestCaseError> {
        both!(self, census())?;
        for id in &self.operations {
            both!(self, get(*id))?;
            both!(self, manifest(*id))?;
        }
        for id in &self.backups {
            both!(self, backup(*id))?;
        }
        both!(self, clusters(None, PAGE_ROWS))?;
        both!(self, clusters_with_backups(None, PAGE_ROWS))?;
        for cluster in CLUSTERS {
            let id = cluster.parse().unwrap();
            both!(self, cluster(&id))?;
            both!(self, cluster_to_be(&id))?;
            for folder in FOLDERS {
                both!(self, baseline(&folder.parse().unwrap(), &id))?;
                both!(self, newest_available(&folder.parse().unwrap(), &id))?;
            }
            both!(self, clusters_with_backups(Some(&id), 2))?;
            both!(self, clusters(Some(&id), 2))?;
        }
        for zone in ZONES {
            both!(self, next_due(&Zones::new(zone.map(str::to_owned))))?;
        }
        let folders = FOLDERS.map(|folder| folder.parse::<FolderId>().unwrap());
        let clusters = CLUSTERS.map(|cluster| cluster.parse().unwrap());
        let operations = folders.iter().cloned().map(OperationFilter::Folder).chain(clusters.iter().cloned().map(OperationFilter::Cluster));
        for filter in operations {
            let mut after = None;
            while let Some(last) = both!(self, list(&filter, after, 3))?.and_then(|page| page.last().map(|operation| operation.id)) {
                after = Some(last);
            }
        }
        let of_folders = folders.iter().cloned().flat_map(|folder| [BackupFilter::Folder(folder.clone()), BackupFilter::FolderAvailable(folder)]);
        let of_clusters = clusters.iter().cloned().flat_map(|cluster| [BackupFilter::Cluster(cluster.clone()), BackupFilter::ClusterAvailable(cluster)]);
        for filter in of_folders.chain(of_clusters) {
            let mut after = None;
            while let Some(last) = both!(self, backups(&filter, after, 2))?.and_then(|page| page.last().map(|backup| backup.id)) {
                after = Some(last);
            }
        }
        // Who holds a place is seen by asking for it, and what stays of a key by offering another.
        for operation in self.model.held() {
            for domain in 0..2 {
                both!(self, take_place(operation.id, operation.epoch, &place(domain, 0), 1))?;
            }
        }
        for cluster in CLUSTERS {
            both!(self, sketch_key(&cluster.parse().unwrap(), SketchKey([255; SKETCH_KEY_BYTES])))?;
        }
        for wait in [0, 15, 600, 24 * 3600] {
            self.time.pass(seconds(wait));
            both!(self, doomed(PAGE_ROWS))?;
            both!(self, doomed(2))?;
            both!(self, purgeable(PAGE_ROWS))?;
        }
        Ok(())
    }
}

fn place(domain: usize, shard: usize) -> Place {
    Place { domain: ["rack-a", "rack-b"][domain].to_owned(), shard: ["shard1", "shard2"][shard].to_owned() }
}

fn keyed(create: Create, key: Option<(u8, u8)>) -> Create {
    match key {
        Some((key, digest)) => with_key(create, "me", &format!("key-{key}"), digest),
        None => create,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Goal: the embedded store does what the contract says, in whatever order. Method: the model tells what that is.
    #[test]
    fn the_embedded_store_does_as_the_model(deeds in prop::collection::vec(deed(), 1..120)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut pair = Pair::new();
        runtime.block_on(async {
            for deed in deeds {
                pair.run(deed).await?;
            }
            pair.compare().await
        })?;
        pair.sled = None;
        let report = verify(pair.folder.path()).unwrap();
        prop_assert!(report.is_clean(), "{:?}", report);
    }
}
