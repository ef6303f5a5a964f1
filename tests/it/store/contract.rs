//! The contract of every store, as stories.
//!
//! Each begins with an empty store and a clock that stands until it is moved.

use super::*;
use redkeep::operation::Fault;
use redkeep::store::{BackupFilter, Census, Doomed, LOOK_AGAIN, MANIFEST_BYTES, PAGE_ROWS, Place, Planned, Recorded, Run, SKETCH_KEY_BYTES, SketchKey, Turn};
use std::collections::BTreeMap;

type Shared = Arc<dyn Store>;

async fn doomed_epochs(store: &dyn Store) -> Vec<Epoch> {
    store.doomed(100).await.unwrap().iter().map(|doomed| doomed.epoch).collect()
}

async fn retry_at_once(store: &dyn Store, operation: &Operation, fault: Fault) -> Operation {
    store.retry(operation.id, operation.epoch, seconds(0), fault, failure("connection lost")).await.unwrap()
}

/// Goal: a repeated call finds its operation whatever has happened since. Method: repeat it against a held cluster, with
/// another request, as another caller, and after the end.
pub async fn a_known_key_answers_before_a_conflict(store: Shared, time: Time) {
    let first = accept(&*store, with_key(creation(&time, "main", "a"), "me", "key", 1)).await;
    let again = store.create(with_key(creation(&time, "main", "a"), "me", "key", 1), GRACE).await;
    assert_eq!(again, Ok(Created::Existing(first.clone())));
    let other_request = store.create(with_key(creation(&time, "main", "a"), "me", "key", 2), GRACE).await;
    assert_eq!(other_request, Err(Error::KeyReused));
    let other_caller = store.create(with_key(creation(&time, "main", "a"), "you", "key", 1), GRACE).await;
    assert_eq!(other_caller, Err(Error::Conflict(first.id.to_string())));
    // Caller and key are two things, not one text.
    assert_eq!(store.create(with_key(creation(&time, "main", "a"), "mek", "ey", 1), GRACE).await, Err(Error::Conflict(first.id.to_string())));

    let ended = store.cancel(first.id).await.unwrap();
    let after_the_end = store.create(with_key(creation(&time, "main", "a"), "me", "key", 1), GRACE).await;
    assert_eq!(after_the_end, Ok(Created::Existing(ended)));
    // A refused call has not used its key.
    accept(&*store, with_key(creation(&time, "main", "a"), "you", "key", 9)).await;
}

/// Goal: a client that repeats without waiting starts one operation. Method: 100 at once.
pub async fn racing_creates_with_one_key_give_one_operation(store: Shared, time: Time) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (store, create) = (Arc::clone(&store), with_key(creation(&time, "main", "a"), "me", "key", 1));
        tasks.spawn(async move { store.create(create, GRACE).await });
    }
    let (mut new, mut existing) = (Vec::new(), Vec::new());
    while let Some(task) = tasks.join_next().await {
        match task.unwrap().unwrap() {
            Created::New(operation) => new.push(operation.id),
            Created::Existing(operation) => existing.push(operation.id),
        }
    }
    assert_eq!((new.len(), existing.len()), (1, 99));
    assert!(existing.iter().all(|id| *id == new[0]));
    assert_eq!(store.list(&OperationFilter::Cluster("main".parse().unwrap()), None, 10).await.unwrap().len(), 1);
}

/// Goal: a fault of ours does no harm. Method: a creation without its draft, a deletion with one.
pub async fn rows_that_do_not_fit_are_refused(store: Shared, time: Time) {
    let without = Create { draft: None, ..creation(&time, "main", "a") };
    assert!(matches!(store.create(without, GRACE).await, Err(Error::Invalid(_))));
    let backup = make_backup(&*store, &time, "main", "a").await;
    let with = Create { draft: Some(backup.clone()), ..deletion(&time, &backup) };
    assert!(matches!(store.create(with, GRACE).await, Err(Error::Invalid(_))));
    assert_eq!(store.backup(backup.id).await, Ok(backup));
}

/// Goal: names are unique in a folder from the draft on. Method: take one, meet it, free it in each way.
pub async fn a_name_is_taken_from_the_draft_on(store: Shared, time: Time) {
    let first = accept(&*store, creation(&time, "one", "a")).await;
    assert_eq!(store.create(creation(&time, "two", "a"), GRACE).await, Err(Error::NameTaken(name("a"))));
    let elsewhere = accept(&*store, creation_in(&time, "folder2", "two", "a")).await;
    // A cancelled creation leaves nothing.
    store.cancel(first.id).await.unwrap();
    store.cancel(elsewhere.id).await.unwrap();
    let second = accept(&*store, creation(&time, "one", "a")).await;
    // A failed one leaves its row and keeps its name.
    let claimed = claim(&*store).await;
    store.complete(claimed.id, claimed.epoch, failed("no route")).await.unwrap();
    assert_eq!(store.create(creation(&time, "one", "a"), GRACE).await, Err(Error::NameTaken(name("a"))));
    // A deletion frees it as soon as it is accepted.
    let left = store.backup(second.backup_id.unwrap()).await.unwrap();
    accept(&*store, deletion(&time, &left)).await;
    accept(&*store, creation(&time, "one", "a")).await;
}

/// Goal: one exclusive operation on a cluster at a time. Method: a second while the first waits, works and has ended.
pub async fn one_exclusive_operation_holds_a_cluster(store: Shared, time: Time) {
    let first = accept(&*store, creation(&time, "main", "a")).await;
    let conflict = Err(Error::Conflict(first.id.to_string()));
    assert_eq!(store.create(creation(&time, "main", "b"), GRACE).await, conflict);
    let claimed = claim(&*store).await;
    assert_eq!(store.create(creation(&time, "main", "b"), GRACE).await, conflict);
    retry_at_once(&*store, &claimed, Fault::Storage).await;
    assert_eq!(store.create(creation(&time, "main", "b"), GRACE).await, conflict);
    accept(&*store, creation(&time, "main2", "c")).await;
    let claimed = claim(&*store).await;
    assert_eq!(claimed.id, first.id);
    store.complete(claimed.id, claimed.epoch, failed("gone")).await.unwrap();
    // The refused ones have left no draft behind.
    accept(&*store, creation(&time, "main", "b")).await;
}

/// Goal: the queue is bounded, by what waits. Method: fill it, take one out, add one; a known key still answers.
pub async fn the_queue_has_a_limit(store: Shared, time: Time) {
    accept(&*store, with_key(creation(&time, "c0", "b0"), "me", "key", 1)).await;
    for index in 1..QUEUE_LIMIT {
        accept(&*store, creation(&time, &format!("c{index}"), &format!("b{index}"))).await;
    }
    assert_eq!(store.create(creation(&time, "more", "more"), GRACE).await, Err(Error::QueueFull(QUEUE_LIMIT)));
    assert!(matches!(store.create(with_key(creation(&time, "c0", "b0"), "me", "key", 1), GRACE).await, Ok(Created::Existing(_))));
    claim(&*store).await;
    accept(&*store, creation(&time, "more", "more")).await;
    assert_eq!(store.create(creation(&time, "most", "most"), GRACE).await, Err(Error::QueueFull(QUEUE_LIMIT)));
}

/// Goal: who waits longest goes first, and nobody before the time. Method: three with different starts.
pub async fn a_claim_takes_what_has_waited_longest(store: Shared, time: Time) {
    let mut late = creation(&time, "late", "late");
    late.operation.state = State::Queued { not_before: time.now() + seconds(60) };
    let late = accept(&*store, late).await;
    time.pass(seconds(1));
    let second = accept(&*store, creation(&time, "second", "second")).await;
    let mut early = creation(&time, "early", "early");
    early.operation.state = State::Queued { not_before: time.now() - seconds(30) };
    let early = accept(&*store, early).await;

    assert_eq!(store.next_due(&all_zones()).await, Ok(early.due_at()));
    let claimed = claim(&*store).await;
    assert_eq!((claimed.id, claimed.epoch, claimed.step()), (early.id, Epoch(1), Some(Step::Preflight)));
    assert_eq!(claimed.due_at(), Some(time.now() + LEASE));
    assert_eq!(store.get(early.id).await, Ok(claimed));
    assert_eq!(claim(&*store).await.id, second.id);
    assert_eq!(store.claim(&all_zones(), LEASE).await, Ok((None, vec![])));
    assert_eq!(store.next_due(&all_zones()).await, Ok(Some(time.now() + LEASE)));
    store.renew(early.id, Epoch(1), seconds(600)).await.unwrap();
    store.renew(second.id, Epoch(1), seconds(600)).await.unwrap();
    assert_eq!(store.next_due(&all_zones()).await, Ok(late.due_at()));
    time.pass(seconds(59));
    assert_eq!(claim(&*store).await.id, late.id);
}

/// Goal: a process works on its zones. Method: one operation in each of two zones and one without.
pub async fn a_claim_takes_its_zones_only(store: Shared, time: Time) {
    let (east, west) = (Zones::new(["east".to_owned()]), Zones::new(["west".to_owned()]));
    let in_east = accept(&*store, in_zone(creation(&time, "a", "a"), "east")).await;
    assert_eq!(store.claim(&west, LEASE).await, Ok((None, vec![])));
    assert_eq!(store.next_due(&west).await, Ok(None));
    assert_eq!(store.next_due(&east).await, Ok(Some(time.now())));
    time.pass(seconds(1));
    let anywhere = accept(&*store, creation(&time, "b", "b")).await;
    assert_eq!(store.claim(&west, LEASE).await.unwrap().0.unwrap().operation.id, anywhere.id);
    assert_eq!(store.claim(&east, LEASE).await.unwrap().0.unwrap().operation.id, in_east.id);
    let in_west = accept(&*store, in_zone(creation(&time, "c", "c"), "west")).await;
    assert_eq!(claim(&*store).await.id, in_west.id);
}

/// Goal: a worker that vanishes is followed by another. Method: let the lease lapse before the fork.
pub async fn a_lapsed_lease_is_another_attempt(store: Shared, time: Time) {
    let accepted = accept(&*store, creation(&time, "main", "a")).await;
    claim(&*store).await;
    time.pass(LEASE - seconds(1));
    assert_eq!(store.claim(&all_zones(), LEASE).await, Ok((None, vec![])));
    assert_eq!(store.doomed(10).await, Ok(vec![]));
    time.pass(seconds(1));
    let second = claim(&*store).await;
    assert_eq!((second.id, second.epoch, second.tally.crashes), (accepted.id, Epoch(2), 1));
    // The first attempt's files must go; the second's are being made.
    let draft = store.backup(accepted.backup_id.unwrap()).await.unwrap();
    let first = Doomed {
        operation_id: accepted.id,
        epoch: Epoch(1),
        folder_id: draft.folder_id,
        cluster_id: draft.cluster_id,
        backup_id: draft.id,
        bucket: None,
        looks: 0,
    };
    assert_eq!(store.doomed(10).await, Ok(vec![first]));
}

/// Goal: a worker that was cut off from the store goes on. Method: renew after the lapse, before and after another claim.
pub async fn a_lapsed_lease_may_be_renewed_until_another_attempt_begins(store: Shared, time: Time) {
    accept(&*store, creation(&time, "main", "a")).await;
    let first = claim(&*store).await;
    time.pass(LEASE * 4);
    let renewed = store.renew(first.id, first.epoch, LEASE).await.unwrap();
    assert_eq!(renewed.due_at(), Some(time.now() + LEASE));
    assert_eq!(store.claim(&all_zones(), LEASE).await, Ok((None, vec![])));
    time.pass(LEASE);
    claim(&*store).await;
    assert!(matches!(store.renew(first.id, first.epoch, LEASE).await, Err(Error::Fenced(_))));
}

/// Goal: what kills processes is stopped. Method: three lapsed leases; the draft becomes ERROR at the third.
pub async fn the_third_crash_ends_it(store: Shared, time: Time) {
    let accepted = accept(&*store, creation(&time, "main", "a")).await;
    for _ in 0..3 {
        claim(&*store).await;
        time.pass(LEASE);
    }
    assert_eq!(store.claim(&all_zones(), LEASE).await, Ok((None, vec![accepted.id])));
    let State::Failed(why) = store.get(accepted.id).await.unwrap().state else { panic!("it goes on") };
    assert_eq!(why.reason, Reason::Poisoned);
    let left = store.backup(accepted.backup_id.unwrap()).await.unwrap();
    assert_eq!((left.state, left.busy), (backup::State::Error(why), None));
    assert_eq!(doomed_epochs(&*store).await, [Epoch(1), Epoch(2), Epoch(3)]);
    assert_eq!(store.next_due(&all_zones()).await, Ok(None));
    accept(&*store, creation(&time, "main", "b")).await;
}

/// Goal: a source that was forked has rest. Method: crash in SNAPSHOT; the claim after it finds nothing until the wait is over.
pub async fn a_crash_after_the_fork_waits(store: Shared, time: Time) {
    accept(&*store, creation(&time, "main", "a")).await;
    let first = claim(&*store).await;
    store.step(first.id, first.epoch, Step::Snapshot, None).await.unwrap();
    time.pass(LEASE);
    assert_eq!(store.claim(&all_zones(), LEASE).await, Ok((None, vec![])));
    let waiting = store.get(first.id).await.unwrap();
    assert_eq!(waiting.state, State::Queued { not_before: time.now() + seconds(600) });
    assert_eq!(store.next_due(&all_zones()).await, Ok(waiting.due_at()));
    assert!(matches!(store.renew(first.id, first.epoch, LEASE).await, Err(Error::Fenced(_))));
    time.pass(seconds(600));
    assert_eq!(claim(&*store).await.epoch, Epoch(2));
    assert_eq!(doomed_epochs(&*store).await, [Epoch(1)]);
}

/// Goal: a claim is not used up by what ends. Method: two past their deadline before one that is not.
pub async fn the_search_goes_on_past_what_ends(store: Shared, time: Time) {
    let old = accept(&*store, creation(&time, "a", "a")).await;
    time.pass(seconds(1));
    let older = accept(&*store, creation(&time, "b", "b")).await;
    time.pass(seconds(2 * 3600));
    let fresh = accept(&*store, creation(&time, "c", "c")).await;
    let (claimed, ended) = store.claim(&all_zones(), LEASE).await.unwrap();
    assert_eq!((claimed.unwrap().operation.id, ended), (fresh.id, vec![old.id, older.id]));
    let State::Failed(why) = store.get(old.id).await.unwrap().state else { panic!("it goes on") };
    assert_eq!(why.reason, Reason::DeadlineExceeded);
    assert!(matches!(store.backup(old.backup_id.unwrap()).await.unwrap().state, backup::State::Error(_)));
}

/// Goal: no word of a late worker changes anything. Method: every guarded call, by an attempt that was followed by another,
/// by one that never was, and after the end.
pub async fn every_call_of_a_late_worker_is_fenced(store: Shared, time: Time) {
    accept(&*store, creation(&time, "main", "a")).await;
    let late = claim(&*store).await;
    let draft = store.backup(late.backup_id.unwrap()).await.unwrap();
    time.pass(LEASE);
    let current = claim(&*store).await;
    let mut truth = current.clone();
    for epoch in [late.epoch, Epoch(9), current.epoch] {
        let id = late.id;
        if epoch == current.epoch {
            truth = store.cancel_and_end(&current).await;
        }
        let calls = [
            store.renew(id, epoch, LEASE).await,
            store.step(id, epoch, Step::Snapshot, None).await,
            store.step(id, epoch, Step::Publish, Some((publication(&time, epoch), b"{}".to_vec()))).await,
            store.progress(id, epoch, Progress { waiting_for: "nothing".to_owned(), ..Progress::default() }).await,
            store.retry(id, epoch, seconds(1), Fault::Source, failure("late")).await,
            store.hand_back(id, epoch).await,
            store.complete(id, epoch, succeeded(Some(available(&draft, epoch)))).await,
            store.complete(id, epoch, failed("late")).await,
        ];
        assert!(calls.iter().all(|call| matches!(call, Err(Error::Fenced(_)))), "{calls:?}");
        assert_eq!(store.get(id).await.as_ref(), Ok(&truth));
    }
    assert_eq!(store.manifest(late.id).await, Ok(None));
    assert_eq!(store.backup(late.backup_id.unwrap()).await, Err(Error::NoBackup));
}

/// Goal: an attempt that failed leaves no files, and another follows. Method: retries before the fork and after it, and of a
/// worker that was told to stop.
pub async fn a_retry_dooms_the_attempt(store: Shared, time: Time) {
    accept(&*store, creation(&time, "main", "a")).await;
    let first = claim(&*store).await;
    let waiting = store.retry(first.id, first.epoch, seconds(5), Fault::Source, failure("connection lost")).await.unwrap();
    assert_eq!(waiting.state, State::Queued { not_before: time.now() + seconds(5) });
    assert_eq!(waiting.last_failure, Some(failure("connection lost")));
    assert_eq!(doomed_epochs(&*store).await, [Epoch(1)]);
    assert_eq!(store.claim(&all_zones(), LEASE).await, Ok((None, vec![])));

    time.pass(seconds(5));
    let second = claim(&*store).await;
    assert_eq!((second.epoch, second.tally.crashes), (Epoch(2), 0));
    store.step(second.id, second.epoch, Step::Snapshot, None).await.unwrap();
    let waiting = retry_at_once(&*store, &second, Fault::Storage).await;
    assert_eq!(waiting.due_at(), Some(time.now() + seconds(600)));
    assert_eq!(doomed_epochs(&*store).await, [Epoch(1), Epoch(2)]);

    time.pass(seconds(600));
    let third = claim(&*store).await;
    store.cancel(third.id).await.unwrap();
    assert_eq!(retry_at_once(&*store, &third, Fault::Source).await.state, State::Cancelled);
    assert_eq!(doomed_epochs(&*store).await, [Epoch(1), Epoch(2), Epoch(3)]);
    assert_eq!(store.backup(first.backup_id.unwrap()).await, Err(Error::NoBackup));
    accept(&*store, creation(&time, "main", "a")).await;
}

/// Goal: a graceful stop costs nothing. Method: hand back, claim again at once.
pub async fn a_hand_back_is_no_crash(store: Shared, time: Time) {
    accept(&*store, creation(&time, "main", "a")).await;
    let first = claim(&*store).await;
    let back = store.hand_back(first.id, first.epoch).await.unwrap();
    assert_eq!(back.state, State::Queued { not_before: time.now() });
    let second = claim(&*store).await;
    assert_eq!((second.epoch, second.tally, second.last_failure), (Epoch(2), Tally::default(), None));
    assert_eq!(doomed_epochs(&*store).await, [Epoch(1)]);
    // Short work has no attempts in storage.
    store.cancel_and_end(&store.get(first.id).await.unwrap()).await;
    let backup = make_backup(&*store, &time, "main", "a").await;
    let doomed = store.doomed(10).await.unwrap();
    accept(&*store, renaming(&time, &backup, "b")).await;
    let work = claim(&*store).await;
    store.hand_back(work.id, work.epoch).await.unwrap();
    claim(&*store).await;
    assert_eq!(store.doomed(10).await, Ok(doomed));
}

/// Goal: the end of a creation is one change of everything. Method: two attempts, the second succeeds.
pub async fn success_replaces_the_draft(store: Shared, time: Time) {
    accept(&*store, creation(&time, "main", "a")).await;
    retry_at_once(&*store, &claim(&*store).await, Fault::Storage).await;
    let claimed = claim(&*store).await;
    for step in [Step::Snapshot, Step::Seal] {
        store.step(claimed.id, claimed.epoch, step, None).await.unwrap();
    }
    publish(&*store, &time, &claimed, b"manifest").await;
    let draft = store.backup(claimed.backup_id.unwrap()).await.unwrap();
    assert_eq!(draft.state, backup::State::Creating);
    let result = Backup { size_bytes: 7, ..available(&draft, claimed.epoch) };
    time.pass(seconds(3));
    let ended = store.complete(claimed.id, claimed.epoch, succeeded(Some(result.clone()))).await.unwrap();
    assert_eq!((&ended.state, ended.modified_at), (&State::Succeeded(Response::Empty), time.now()));
    assert_eq!(store.get(ended.id).await, Ok(ended.clone()));
    assert_eq!(store.backup(draft.id).await, Ok(Backup { busy: None, ..result.clone() }));
    assert_eq!(store.manifest(ended.id).await, Ok(None));
    // The published files belong to the backup; those of the attempt before must go.
    time.pass(GRACE * 3);
    assert_eq!(doomed_epochs(&*store).await, [Epoch(1)]);
    // It happens once.
    let again = store.complete(ended.id, ended.epoch, succeeded(Some(result))).await;
    assert!(matches!(again, Err(Error::Fenced(_))), "{again:?}");
    assert_eq!(store.next_due(&all_zones()).await, Ok(None));
    accept(&*store, creation(&time, "main", "b")).await;
}

/// Goal: no half end. Method: succeed too early, without a row, with one that is not available, with another's.
pub async fn success_needs_the_last_step_and_the_row(store: Shared, time: Time) {
    accept(&*store, creation(&time, "main", "a")).await;
    let claimed = claim(&*store).await;
    let draft = store.backup(claimed.backup_id.unwrap()).await.unwrap();
    let row = available(&draft, claimed.epoch);
    let early = store.complete(claimed.id, claimed.epoch, succeeded(Some(row.clone()))).await;
    assert!(matches!(early, Err(Error::NotAllowed(_))), "{early:?}");
    let decided = publish(&*store, &time, &claimed, b"manifest").await;
    let renamed = Backup { name: name("other"), ..row.clone() };
    for bad in [None, Some(draft.clone()), Some(Backup { id: BackupId::new(), ..row.clone() }), Some(renamed)] {
        let refused = store.complete(claimed.id, claimed.epoch, succeeded(bad)).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    }
    assert_eq!(store.get(claimed.id).await, Ok(decided));
    assert_eq!(store.backup(draft.id).await, Ok(draft));
    assert_eq!(store.manifest(claimed.id).await, Ok(Some(b"manifest".to_vec())));
    store.complete(claimed.id, claimed.epoch, succeeded(Some(row))).await.unwrap();
}

/// Goal: a failed creation can be seen and deleted. Method: fail one, delete it, purge it at once.
pub async fn a_failed_creation_leaves_an_error(store: Shared, time: Time) {
    accept(&*store, creation(&time, "main", "a")).await;
    let claimed = claim(&*store).await;
    let ended = store.complete(claimed.id, claimed.epoch, failed("no route")).await.unwrap();
    assert_eq!(ended.state, State::Failed(failure("no route")));
    let left = store.backup(claimed.backup_id.unwrap()).await.unwrap();
    assert_eq!((&left.state, &left.busy), (&backup::State::Error(failure("no route")), &None));
    assert_eq!(doomed_epochs(&*store).await, [claimed.epoch]);
    assert_eq!(store.create(renaming(&time, &left, "b"), GRACE).await, Err(Error::NotAvailable("ERROR")));
    accept(&*store, deletion(&time, &left)).await;
    let work = claim(&*store).await;
    assert_eq!(work.step(), Some(Step::Work));
    store.complete(work.id, work.epoch, succeeded(None)).await.unwrap();
    let due: Vec<BackupId> = store.purgeable(10).await.unwrap().iter().map(|backup| backup.id).collect();
    assert_eq!(due, [left.id]);
    store.begin_purge(left.id).await.unwrap();
    store.purged(left.id).await.unwrap();
    assert_eq!(store.backup(left.id).await, Err(Error::NoBackup));
}

/// Goal: what is published is what was decided. Method: manifests of many lengths up to the limit, and one byte more.
pub async fn a_manifest_comes_back_to_the_byte(store: Shared, time: Time) {
    for length in [0, 1, 60 * 1024, 60 * 1024 + 1, MANIFEST_BYTES] {
        accept(&*store, creation(&time, "main", "a")).await;
        let claimed = claim(&*store).await;
        let manifest: Vec<u8> = (0..length).map(|index| (index * 7 % 251) as u8).collect();
        let decided = publish(&*store, &time, &claimed, &manifest).await;
        assert_eq!((decided.step(), decided.publication.map(|decision| decision.epoch)), (Some(Step::Publish), Some(claimed.epoch)));
        assert_eq!(store.manifest(claimed.id).await, Ok(Some(manifest)), "{length} bytes");
        store.complete(claimed.id, claimed.epoch, failed("gone")).await.unwrap();
        assert_eq!(store.manifest(claimed.id).await, Ok(None));
        let left = store.backup(claimed.backup_id.unwrap()).await.unwrap();
        accept(&*store, deletion(&time, &left)).await;
        let deleting = claim(&*store).await;
        store.complete(deleting.id, deleting.epoch, succeeded(None)).await.unwrap();
    }
    accept(&*store, creation(&time, "main", "a")).await;
    let claimed = claim(&*store).await;
    let too_long = (publication(&time, claimed.epoch), vec![0; MANIFEST_BYTES + 1]);
    assert!(matches!(store.step(claimed.id, claimed.epoch, Step::Publish, Some(too_long)).await, Err(Error::Invalid(_))));
    assert!(matches!(store.step(claimed.id, claimed.epoch, Step::Publish, None).await, Err(Error::NotAllowed(_))));
    let early = (publication(&time, claimed.epoch), b"{}".to_vec());
    assert!(matches!(store.step(claimed.id, claimed.epoch, Step::Seal, Some(early)).await, Err(Error::NotAllowed(_))));
    assert_eq!(store.get(claimed.id).await, Ok(claimed.clone()));
    assert_eq!(store.manifest(claimed.id).await, Ok(None));
}

/// Goal: files that are to be published outlive every worker. Method: crash, retry and hand back in PUBLISH, then fail for good.
pub async fn what_is_to_be_published_is_never_doomed(store: Shared, time: Time) {
    accept(&*store, creation(&time, "main", "a")).await;
    let first = claim(&*store).await;
    publish(&*store, &time, &first, b"manifest").await;
    time.pass(seconds(2 * 3600));
    let second = claim(&*store).await;
    assert_eq!((second.epoch, second.step(), second.tally.crashes), (Epoch(2), Some(Step::Publish), 0));
    retry_at_once(&*store, &second, Fault::Storage).await;
    let third = claim(&*store).await;
    store.hand_back(third.id, third.epoch).await.unwrap();
    let last = claim(&*store).await;
    assert_eq!((last.epoch, last.step()), (Epoch(4), Some(Step::Publish)));
    assert_eq!(last.publication.as_ref().map(|decision| decision.epoch), Some(first.epoch));
    assert_eq!(store.manifest(last.id).await, Ok(Some(b"manifest".to_vec())));
    // None of the later attempts has files of its own.
    assert_eq!(store.doomed(10).await, Ok(vec![]));
    store.complete(last.id, last.epoch, failed("storage was away for 24 hours")).await.unwrap();
    assert_eq!(doomed_epochs(&*store).await, [first.epoch]);
    assert_eq!(store.manifest(last.id).await, Ok(None));
}

/// Goal: what nobody works on ends at once. Method: cancel in the queue, again, and the next one takes its place.
pub async fn a_queued_operation_is_cancelled_at_once(store: Shared, time: Time) {
    let accepted = accept(&*store, creation(&time, "main", "a")).await;
    let ended = store.cancel(accepted.id).await.unwrap();
    assert_eq!(ended.state, State::Cancelled);
    assert_eq!(store.cancel(accepted.id).await, Ok(ended));
    assert_eq!(store.backup(accepted.backup_id.unwrap()).await, Err(Error::NoBackup));
    assert_eq!(store.claim(&all_zones(), LEASE).await, Ok((None, vec![])));
    accept(&*store, creation(&time, "main", "a")).await;
}

/// Goal: a worker hears that it is to stop, and only its end may follow. Method: cancel in SNAPSHOT.
pub async fn a_running_operation_is_told_to_stop(store: Shared, time: Time) {
    accept(&*store, creation(&time, "main", "a")).await;
    let claimed = claim(&*store).await;
    store.step(claimed.id, claimed.epoch, Step::Snapshot, None).await.unwrap();
    let told = store.cancel(claimed.id).await.unwrap();
    assert_eq!(told.state, State::Cancelling { lease_until: time.now() + LEASE });
    assert_eq!(store.cancel(claimed.id).await, Ok(told));
    let heard = store.renew(claimed.id, claimed.epoch, LEASE).await.unwrap();
    assert!(matches!(heard.state, State::Cancelling { .. }));
    assert_eq!(store.step(claimed.id, claimed.epoch, Step::Seal, None).await, Err(Error::Cancelling));
    let decision = (publication(&time, claimed.epoch), b"{}".to_vec());
    assert_eq!(store.step(claimed.id, claimed.epoch, Step::Publish, Some(decision)).await, Err(Error::Cancelling));
    assert_eq!(store.doomed(10).await, Ok(vec![]));
    // Whatever it says, it was told to stop.
    let draft = store.backup(claimed.backup_id.unwrap()).await.unwrap();
    let ended = store.complete(claimed.id, claimed.epoch, succeeded(Some(available(&draft, claimed.epoch)))).await.unwrap();
    assert_eq!(ended.state, State::Cancelled);
    assert_eq!(store.backup(draft.id).await, Err(Error::NoBackup));
    assert_eq!(doomed_epochs(&*store).await, [claimed.epoch]);
}

/// Goal: from PUBLISH on it succeeds. Method: cancel after the decision, with and without a worker; cancel a short work.
pub async fn a_cancellation_can_come_too_late(store: Shared, time: Time) {
    accept(&*store, creation(&time, "main", "a")).await;
    let claimed = claim(&*store).await;
    let decided = publish(&*store, &time, &claimed, b"{}").await;
    assert_eq!(store.cancel(decided.id).await, Ok(decided.clone()));
    let waiting = retry_at_once(&*store, &claimed, Fault::Storage).await;
    assert_eq!(store.cancel(decided.id).await, Ok(waiting));
    let claimed = claim(&*store).await;
    let draft = store.backup(claimed.backup_id.unwrap()).await.unwrap();
    let ended = store.complete(claimed.id, claimed.epoch, succeeded(Some(available(&draft, Epoch(1))))).await.unwrap();
    assert_eq!(store.cancel(ended.id).await, Ok(ended));
    let backup = store.backup(draft.id).await.unwrap();
    accept(&*store, deletion(&time, &backup)).await;
    let work = claim(&*store).await;
    assert_eq!(store.cancel(work.id).await, Ok(work));
}

/// Goal: a cancellation whose worker vanished ends too. Method: let its lease lapse.
pub async fn a_lapsed_cancellation_ends(store: Shared, time: Time) {
    accept(&*store, creation(&time, "main", "a")).await;
    let claimed = claim(&*store).await;
    store.cancel(claimed.id).await.unwrap();
    time.pass(LEASE);
    assert_eq!(store.claim(&all_zones(), LEASE).await, Ok((None, vec![claimed.id])));
    assert_eq!(store.get(claimed.id).await.unwrap().state, State::Cancelled);
    assert_eq!(store.backup(claimed.backup_id.unwrap()).await, Err(Error::NoBackup));
    assert_eq!(doomed_epochs(&*store).await, [claimed.epoch]);
    accept(&*store, creation(&time, "main", "a")).await;
}

/// Goal: while a backup is renamed, nobody else touches it or either name. Method: rename, meet it in each way, succeed.
pub async fn an_update_holds_the_backup_and_both_names(store: Shared, time: Time) {
    let other = make_backup(&*store, &time, "main", "other").await;
    let backup = make_backup(&*store, &time, "main", "old").await;
    assert_eq!(store.create(renaming(&time, &backup, "other"), GRACE).await, Err(Error::NameTaken(name("other"))));
    let update = accept(&*store, renaming(&time, &backup, "new")).await;
    let held = store.backup(backup.id).await.unwrap();
    assert_eq!(held, Backup { busy: Some(update.id.to_string()), ..backup.clone() });
    let conflict = Err(Error::Conflict(update.id.to_string()));
    assert_eq!(store.create(renaming(&time, &backup, "newer"), GRACE).await, conflict);
    assert_eq!(store.create(deletion(&time, &backup), GRACE).await, conflict);
    for taken in ["old", "new"] {
        assert_eq!(store.create(creation(&time, "main", taken), GRACE).await, Err(Error::NameTaken(name(taken))));
        assert_eq!(store.create(renaming(&time, &other, taken), GRACE).await, Err(Error::NameTaken(name(taken))));
    }
    // It does not hold the cluster.
    let draft = accept(&*store, creation(&time, "main", "third")).await;
    assert_eq!(
        store.create(renaming(&time, &store.backup(draft.backup_id.unwrap()).await.unwrap(), "fourth"), GRACE).await,
        Err(Error::NotAvailable("CREATING"))
    );

    let work = claim(&*store).await;
    assert_eq!((work.id, work.step()), (update.id, Some(Step::Work)));
    let renamed = Backup { name: name("new"), facts_revision: 1, ..held };
    store.complete(work.id, work.epoch, succeeded(Some(renamed.clone()))).await.unwrap();
    assert_eq!(store.backup(backup.id).await, Ok(Backup { busy: None, ..renamed.clone() }));
    accept(&*store, renaming(&time, &other, "old")).await;
    // Its own name is free for it.
    accept(&*store, renaming(&time, &renamed, "new")).await;
}

/// Goal: an update that fails leaves no trace. Method: fail one, cancel one.
pub async fn a_failed_update_changes_nothing(store: Shared, time: Time) {
    let backup = make_backup(&*store, &time, "main", "old").await;
    accept(&*store, renaming(&time, &backup, "new")).await;
    let work = claim(&*store).await;
    store.complete(work.id, work.epoch, failed("storage denied")).await.unwrap();
    assert_eq!(store.backup(backup.id).await, Ok(backup.clone()));
    let second = accept(&*store, renaming(&time, &backup, "new")).await;
    store.cancel(second.id).await.unwrap();
    assert_eq!(store.backup(backup.id).await, Ok(backup.clone()));
    assert_eq!(store.create(creation(&time, "main", "old"), GRACE).await, Err(Error::NameTaken(name("old"))));
    accept(&*store, creation(&time, "main", "new")).await;
}

/// Goal: a deleted backup is gone for callers at once, and its files go after the grace time, once nothing works on it.
/// Method: delete, look at each stage, purge.
pub async fn a_deletion_frees_the_name_and_waits_out_its_grace(store: Shared, time: Time) {
    let backup = make_backup(&*store, &time, "main", "a").await;
    store.purged(backup.id).await.unwrap();
    assert_eq!(store.backup(backup.id).await, Ok(backup.clone()));

    let delete = accept(&*store, deletion(&time, &backup)).await;
    let purge_at = time.now() + GRACE;
    let deleted = Backup { state: backup::State::Deleting { purge_at }, busy: Some(delete.id.to_string()), ..backup.clone() };
    assert_eq!(store.backup(backup.id).await, Ok(deleted.clone()));
    for late in [deletion(&time, &backup), renaming(&time, &backup, "b")] {
        assert_eq!(store.create(late, GRACE).await, Err(Error::NoBackup));
    }
    let work = claim(&*store).await;
    assert_eq!(work.id, delete.id);
    let successor = make_backup(&*store, &time, "main", "a").await;
    time.pass(GRACE);
    // As long as it is worked on, nothing goes.
    assert_eq!(store.purgeable(10).await, Ok(vec![]));
    store.purged(backup.id).await.unwrap();
    assert_eq!(store.backup(backup.id).await, Ok(deleted.clone()));
    assert!(matches!(store.complete(work.id, work.epoch, succeeded(Some(deleted.clone()))).await, Err(Error::Invalid(_))));
    store.complete(work.id, work.epoch, succeeded(None)).await.unwrap();
    let idle = Backup { busy: None, ..deleted };
    assert_eq!(store.purgeable(10).await, Ok(vec![idle.clone()]));
    // Nothing goes that was not claimed; what was stays so.
    store.purged(backup.id).await.unwrap();
    assert_eq!(store.purgeable(10).await, Ok(vec![idle.clone()]));
    for _ in 0..2 {
        assert_eq!(store.begin_purge(backup.id).await, Ok(true));
    }
    assert_eq!(store.purgeable(10).await, Ok(vec![Backup { purging: true, ..idle }]));
    store.purged(backup.id).await.unwrap();
    assert_eq!(store.backup(backup.id).await, Err(Error::NoBackup));
    assert_eq!(store.purgeable(10).await, Ok(vec![]));
    store.purged(backup.id).await.unwrap();

    // Before its time nothing goes.
    accept(&*store, deletion(&time, &successor)).await;
    let work = claim(&*store).await;
    store.complete(work.id, work.epoch, succeeded(None)).await.unwrap();
    time.pass(GRACE - seconds(1));
    assert_eq!(store.begin_purge(successor.id).await, Ok(false));
    store.purged(successor.id).await.unwrap();
    assert!(store.backup(successor.id).await.is_ok());
}

/// Makes a backup and deletes it.
async fn deleted_backup(store: &dyn Store, time: &Time, backup_name: &str) -> Backup {
    let backup = make_backup(store, time, "main", backup_name).await;
    accept(store, deletion(time, &backup)).await;
    let work = claim(store).await;
    store.complete(work.id, work.epoch, succeeded(None)).await.unwrap();
    store.backup(backup.id).await.unwrap()
}

/// Goal: a deletion is taken back as long as the files are there, and a backup has its name again if that is free. Method: undelete
/// after the time at which files may go, look at each stage, also while another has the name.
pub async fn a_deletion_is_taken_back(store: Shared, time: Time) {
    let folder = "default".parse().unwrap();
    let deleted = deleted_backup(&*store, &time, "a").await;
    time.pass(GRACE);
    let work = accept(&*store, undeletion(&time, &deleted)).await;
    let coming = Backup { busy: Some(work.id.to_string()), ..deleted.clone() };
    assert_eq!(store.backup(deleted.id).await, Ok(coming.clone()));
    // Its files stay meanwhile, its name is kept for it, and nobody finds it by that yet.
    assert_eq!((store.purgeable(10).await, store.begin_purge(deleted.id).await), (Ok(vec![]), Ok(false)));
    assert_eq!(store.create(creation(&time, "main", "a"), GRACE).await, Err(Error::NameTaken(name("a"))));
    assert_eq!(store.backup_named(&folder, &name("a")).await, Err(Error::NoBackup));
    assert_eq!(store.create(undeletion(&time, &deleted), GRACE).await, Err(Error::Conflict(work.id.to_string())));
    assert_eq!(store.create(deletion(&time, &deleted), GRACE).await, Err(Error::NoBackup));
    let work = claim(&*store).await;
    assert!(matches!(store.complete(work.id, work.epoch, succeeded(None)).await, Err(Error::Invalid(_))));
    assert!(matches!(store.complete(work.id, work.epoch, succeeded(Some(coming.clone()))).await, Err(Error::Invalid(_))));
    let back = Backup { state: backup::State::Available, ..coming };
    store.complete(work.id, work.epoch, succeeded(Some(back.clone()))).await.unwrap();
    let back = Backup { busy: None, ..back };
    assert_eq!(store.backup_named(&folder, &name("a")).await, Ok(back.clone()));
    time.pass(GRACE);
    assert_eq!((store.purgeable(10).await, store.begin_purge(back.id).await), (Ok(vec![]), Ok(false)));
    assert_eq!(store.create(undeletion(&time, &back), GRACE).await, Err(Error::NotDeleting));

    // Another has its name meanwhile.
    accept(&*store, deletion(&time, &back)).await;
    let work = claim(&*store).await;
    store.complete(work.id, work.epoch, succeeded(None)).await.unwrap();
    let successor = make_backup(&*store, &time, "main", "a").await;
    accept(&*store, undeletion(&time, &back)).await;
    let work = claim(&*store).await;
    let made_up = Name::undeleted(back.id);
    let row = Backup { state: backup::State::Available, ..store.backup(back.id).await.unwrap() };
    assert_eq!(row.name, made_up);
    store.complete(work.id, work.epoch, succeeded(Some(row))).await.unwrap();
    assert_eq!(store.backup_named(&folder, &made_up).await.unwrap().id, back.id);
    assert_eq!(store.backup_named(&folder, &name("a")).await.unwrap().id, successor.id);
}

/// Goal: what does not bring a backup back leaves it as it was. Method: an undeletion that fails, and one that is cancelled.
pub async fn a_deletion_that_is_not_taken_back_stands(store: Shared, time: Time) {
    let deleted = deleted_backup(&*store, &time, "a").await;
    accept(&*store, undeletion(&time, &deleted)).await;
    let work = claim(&*store).await;
    store.complete(work.id, work.epoch, failed("gone")).await.unwrap();
    assert_eq!(store.backup(deleted.id).await, Ok(deleted.clone()));
    let queued = accept(&*store, undeletion(&time, &deleted)).await;
    store.cancel(queued.id).await.unwrap();
    assert_eq!(store.backup(deleted.id).await, Ok(deleted.clone()));
    // Its name is free, and it goes when its time has come.
    make_backup(&*store, &time, "main", "a").await;
    time.pass(GRACE);
    assert_eq!(store.purgeable(10).await, Ok(vec![deleted]));
}

/// Goal: files are removed or a deletion is taken back, never both. Method: claim first, then undelete; the other way around is told
/// by the story before. What failed has no files to bring back.
pub async fn what_is_being_removed_is_not_brought_back(store: Shared, time: Time) {
    let deleted = deleted_backup(&*store, &time, "a").await;
    time.pass(GRACE);
    assert_eq!(store.begin_purge(deleted.id).await, Ok(true));
    assert_eq!(store.create(undeletion(&time, &deleted), GRACE).await, Err(Error::Purging));
    store.purged(deleted.id).await.unwrap();
    assert_eq!(store.create(undeletion(&time, &deleted), GRACE).await, Err(Error::NoBackup));
    assert_eq!(store.begin_purge(deleted.id).await, Ok(false));

    let create = creation(&time, "main", "b");
    let draft = create.draft.clone().unwrap();
    accept(&*store, create).await;
    let work = claim(&*store).await;
    store.complete(work.id, work.epoch, failed("no route")).await.unwrap();
    assert_eq!(store.create(undeletion(&time, &draft), GRACE).await, Err(Error::NotDeleting));
    let deleting = accept(&*store, deletion(&time, &draft)).await;
    assert_eq!(store.create(undeletion(&time, &draft), GRACE).await, Err(Error::Conflict(deleting.id.to_string())));
    let work = claim(&*store).await;
    store.complete(work.id, work.epoch, succeeded(None)).await.unwrap();
    assert_eq!(store.create(undeletion(&time, &draft), GRACE).await, Err(Error::NotAvailable("ERROR")));
}

/// Goal: the rows of a lost store are put in again. Method: rows as storage tells them, in both states; then those that do not fit.
pub async fn a_backup_is_put_back(store: Shared, time: Time) {
    let draft = |cluster: &str, text: &str| Backup { busy: None, ..creation(&time, cluster, text).draft.unwrap() };
    let whole = available(&draft("main", "a"), Epoch(3));
    assert_eq!(store.put_back(whole.clone(), vec![lineage("shard1", 5)]).await, Ok(true));
    assert_eq!(store.backup(whole.id).await, Ok(whole.clone()));
    assert_eq!(baseline(&*store).await, Some((name("a"), vec![lineage("shard1", 5)])));
    assert_eq!(store.backup_named(&"default".parse().unwrap(), &name("a")).await, Ok(whole.clone()));
    // A second time nothing happens, whatever it says.
    assert_eq!(store.put_back(Backup { name: name("b"), ..whole.clone() }, vec![]).await, Ok(false));
    assert_eq!(store.backup(whole.id).await, Ok(whole.clone()));

    let same_name = available(&draft("main", "a"), Epoch(1));
    assert_eq!(store.put_back(same_name.clone(), vec![]).await, Err(Error::NameTaken(name("a"))));
    let deleted = Backup { state: backup::State::Deleting { purge_at: time.now() + GRACE }, ..same_name };
    assert_eq!(store.put_back(deleted.clone(), vec![]).await, Ok(true));
    assert_eq!(store.purgeable(10).await, Ok(vec![]));
    time.pass(GRACE);
    assert_eq!(store.purgeable(10).await, Ok(vec![deleted.clone()]));
    let pages = store.backups(&BackupFilter::Cluster(id("main")), None, 10).await.unwrap();
    assert_eq!(pages.iter().map(|backup| backup.id).collect::<Vec<_>>(), [deleted.id, whole.id]);

    let fits = available(&draft("main", "c"), Epoch(1));
    for bad in [
        draft("main", "c"),
        Backup { epoch: None, ..fits.clone() },
        Backup { busy: Some("x".to_owned()), ..fits.clone() },
        Backup { readers: ["x".to_owned()].into(), ..fits.clone() },
        Backup { purging: true, ..fits.clone() },
    ] {
        assert!(matches!(store.put_back(bad, vec![]).await, Err(Error::Invalid(_))));
    }
    let many = vec![lineage("shard1", 1); Lineage::SHARDS + 1];
    assert!(matches!(store.put_back(fits.clone(), many).await, Err(Error::Invalid(_))));
    assert_eq!(store.backup(fits.id).await, Err(Error::NoBackup));
}

/// Goal: whose backups there are is told without reading them all, and which is the newest of a cluster. Method: backups of some
/// clusters in every state.
pub async fn clusters_are_told_that_have_backups(store: Shared, time: Time) {
    let newest = async |cluster: &str| store.newest_available(&"default".parse().unwrap(), &id(cluster)).await.unwrap().map(|backup| backup.id);
    assert_eq!((store.clusters_with_backups(None, 10).await, newest("main").await), (Ok(vec![]), None));
    let mut made = Vec::new();
    for (cluster, text) in [("main", "a"), ("main", "b"), ("main-2", "c"), ("ma", "d")] {
        made.push(make_backup(&*store, &time, cluster, text).await.id);
    }
    accept(&*store, creation(&time, "main", "e")).await;
    assert_eq!(store.clusters_with_backups(None, 10).await, Ok(vec![id("ma"), id("main"), id("main-2")]));
    assert_eq!(store.clusters_with_backups(None, 2).await, Ok(vec![id("ma"), id("main")]));
    assert_eq!(store.clusters_with_backups(Some(&id("main")), 2).await, Ok(vec![id("main-2")]));
    assert_eq!(store.clusters_with_backups(Some(&id("maa")), 1).await, Ok(vec![id("main")]));
    assert_eq!((newest("main").await, newest("main-2").await, newest("none").await), (Some(made[1]), Some(made[2]), None));
    assert_eq!(store.newest_available(&"second".parse().unwrap(), &id("main")).await, Ok(None));
    let second = store.backup(made[1]).await.unwrap();
    accept(&*store, deletion(&time, &second)).await;
    assert_eq!(newest("main").await, Some(made[0]));
}

/// Goal: a backup is found by its name, as long as it has it. Method: look from the draft on, in another folder, while it is
/// renamed, after a failure, and after its deletion was accepted.
pub async fn a_backup_is_found_by_its_name(store: Shared, time: Time) {
    let folder = "default".parse().unwrap();
    assert_eq!(store.backup_named(&folder, &name("old")).await, Err(Error::NoBackup));
    let draft = accept(&*store, creation(&time, "one", "old")).await;
    let found = store.backup_named(&folder, &name("old")).await.unwrap();
    assert_eq!((found.id, found.state), (draft.backup_id.unwrap(), backup::State::Creating));
    assert_eq!(store.backup_named(&"folder2".parse().unwrap(), &name("old")).await, Err(Error::NoBackup));
    assert_eq!(store.backup_named(&folder, &name("ol")).await, Err(Error::NoBackup));
    store.cancel(draft.id).await.unwrap();
    assert_eq!(store.backup_named(&folder, &name("old")).await, Err(Error::NoBackup));

    let backup = make_backup(&*store, &time, "one", "old").await;
    accept(&*store, renaming(&time, &backup, "new")).await;
    assert_eq!(store.backup_named(&folder, &name("old")).await.unwrap().id, backup.id);
    assert_eq!(store.backup_named(&folder, &name("new")).await, Err(Error::NoBackup));
    let work = claim(&*store).await;
    store.complete(work.id, work.epoch, succeeded(Some(Backup { name: name("new"), ..backup.clone() }))).await.unwrap();
    assert_eq!(store.backup_named(&folder, &name("old")).await, Err(Error::NoBackup));
    let renamed = store.backup_named(&folder, &name("new")).await.unwrap();
    assert_eq!(renamed, store.backup(backup.id).await.unwrap());

    let failing = accept(&*store, creation(&time, "two", "other")).await;
    let work = claim(&*store).await;
    store.complete(work.id, work.epoch, failed("no route")).await.unwrap();
    assert_eq!(store.backup_named(&folder, &name("other")).await.unwrap().id, failing.backup_id.unwrap());

    accept(&*store, deletion(&time, &renamed)).await;
    assert_eq!(store.backup_named(&folder, &name("new")).await, Err(Error::NoBackup));
    let successor = accept(&*store, creation(&time, "one", "new")).await;
    assert_eq!(store.backup_named(&folder, &name("new")).await.unwrap().id, successor.backup_id.unwrap());
}

/// Goal: what a person holds stays. Method: place a hold by an update, delete in vain.
pub async fn a_deletion_is_refused_by_a_hold(store: Shared, time: Time) {
    let backup = make_backup(&*store, &time, "main", "a").await;
    let hold = backup::Hold { reason: "audit 2027".to_owned(), created_by: "me".to_owned(), created_at: time.now() };
    accept(&*store, change(&time, &backup, Spec::UpdateBackup(BackupChanges { holds: Some(vec![hold.reason.clone()]), ..BackupChanges::default() }))).await;
    let work = claim(&*store).await;
    store.complete(work.id, work.epoch, succeeded(Some(Backup { holds: vec![hold], ..backup.clone() }))).await.unwrap();
    assert_eq!(store.create(deletion(&time, &backup), GRACE).await, Err(Error::Held("audit 2027".to_owned())));
    assert!(store.backup(backup.id).await.unwrap().is_available());
}

/// Takes an operation that was claimed to its end in success.
async fn succeed(store: &dyn Store, time: &Time, claimed: &Operation) -> Operation {
    let after = match &claimed.spec {
        Spec::ExportBackup(_) => None,
        _ => Some(available(&store.backup(claimed.backup_id.unwrap()).await.unwrap(), claimed.epoch)),
    };
    publish(store, time, claimed, b"{}").await;
    store.complete(claimed.id, claimed.epoch, succeeded(after)).await.unwrap()
}

fn texts(operations: &[&Operation]) -> std::collections::BTreeSet<String> {
    operations.iter().map(|operation| operation.id.to_string()).collect()
}

/// Goal: what is read is not deleted, and reading shuts nobody else out. Method: two copies and an export of one backup at
/// once, beside a creation of the same cluster; a deletion in vain until the last has ended.
pub async fn several_read_a_backup_and_none_deletes_it(store: Shared, time: Time) {
    let source = make_backup(&*store, &time, "main", "a").await;
    let first = accept(&*store, copying(&time, &source, "b")).await;
    let second = accept(&*store, copying(&time, &source, "c")).await;
    let export = accept(&*store, exporting(&time, &source, "reports", "a.rdb")).await;
    accept(&*store, in_zone(creation(&time, "main", "d"), "nowhere")).await;
    let held = store.backup(source.id).await.unwrap();
    assert_eq!(held, Backup { readers: texts(&[&first, &second, &export]), ..source.clone() });
    let draft = store.backup(first.backup_id.unwrap()).await.unwrap();
    assert_eq!((&draft.state, &draft.busy), (&backup::State::Creating, &Some(first.id.to_string())));
    assert_eq!(store.create(copying(&time, &source, "b"), GRACE).await, Err(Error::NameTaken(name("b"))));
    assert_eq!(store.create(copying(&time, &source, "a"), GRACE).await, Err(Error::NameTaken(name("a"))));

    let here = Zones::new(["here".to_owned()]);
    for expected in [&first, &second, &export] {
        let conflict = store.backup(source.id).await.unwrap().readers.first().cloned().unwrap();
        assert_eq!(store.create(deletion(&time, &source), GRACE).await, Err(Error::Conflict(conflict)));
        let claimed = store.claim(&here, LEASE).await.unwrap().0.expect("it is due").operation;
        assert_eq!((claimed.id, claimed.step()), (expected.id, Some(Step::Preflight)));
        succeed(&*store, &time, &claimed).await;
    }
    assert_eq!(store.backup(source.id).await, Ok(source.clone()));
    accept(&*store, deletion(&time, &source)).await;
    assert!(store.backup(first.backup_id.unwrap()).await.unwrap().is_available());
}

/// Goal: a copy is a backup like any other. Method: one that succeeds after a retry, one that fails, one that is cancelled.
pub async fn a_copy_ends_like_a_creation(store: Shared, time: Time) {
    let source = make_backup(&*store, &time, "main", "a").await;
    let copy = accept(&*store, copying(&time, &source, "b")).await;
    let claimed = claim(&*store).await;
    store.step(claimed.id, claimed.epoch, Step::Snapshot, None).await.unwrap();
    // No source was forked, so nothing is waited for.
    let waiting = retry_at_once(&*store, &claimed, Fault::Storage).await;
    assert_eq!((waiting.due_at(), waiting.tally), (Some(time.now()), Tally::default()));
    assert_eq!(doomed_epochs(&*store).await, [Epoch(1)]);
    let claimed = claim(&*store).await;
    succeed(&*store, &time, &claimed).await;
    let made = store.backup(copy.backup_id.unwrap()).await.unwrap();
    assert_eq!((made.epoch, made.busy.as_ref(), made.name.as_str()), (Some(2), None, "b"));
    assert_eq!(doomed_epochs(&*store).await, [Epoch(1)]);
    let again = store.complete(claimed.id, claimed.epoch, succeeded(Some(made))).await;
    assert!(matches!(again, Err(Error::Fenced(_))), "{again:?}");

    let failing = accept(&*store, copying(&time, &source, "c")).await;
    let claimed = claim(&*store).await;
    store.complete(claimed.id, claimed.epoch, failed("damaged")).await.unwrap();
    let left = store.backup(failing.backup_id.unwrap()).await.unwrap();
    assert_eq!((&left.state, &left.busy), (&backup::State::Error(failure("damaged")), &None));
    let cancelled = accept(&*store, copying(&time, &source, "d")).await;
    let claimed = claim(&*store).await;
    store.cancel_and_end(&claimed).await;
    assert_eq!(store.backup(cancelled.backup_id.unwrap()).await, Err(Error::NoBackup));
    assert_eq!(doomed_epochs(&*store).await.len(), 3);
    assert_eq!(store.backup(source.id).await, Ok(source.clone()));

    // A copy belongs where its source does.
    for (folder, cluster) in [("folder2", "main"), ("default", "other")] {
        let elsewhere = Backup { folder_id: folder.parse().unwrap(), cluster_id: cluster.parse().unwrap(), ..source.clone() };
        let refused = store.create(copying(&time, &elsewhere, "e"), GRACE).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    }
}

/// Goal: an import makes a backup as a creation does, for a cluster that nobody needs to know, and never under the id of another
/// folder's. Method: each end; a cluster that is adopted, one of which another folder has backups.
pub async fn an_import_is_for_a_cluster_of_its_folder_or_an_unknown_one(store: Shared, time: Time) {
    let import = accept(&*store, importing(&time, "default", "gone", "a")).await;
    // The cluster is free for a backup, and the name is taken.
    assert_eq!(store.create(importing(&time, "default", "gone", "a"), GRACE).await, Err(Error::NameTaken(name("a"))));
    let claimed = claim(&*store).await;
    store.step(claimed.id, claimed.epoch, Step::Snapshot, None).await.unwrap();
    let waiting = retry_at_once(&*store, &claimed, Fault::Storage).await;
    assert_eq!((waiting.due_at(), waiting.tally), (Some(time.now()), Tally::default()));
    assert_eq!(doomed_epochs(&*store).await, [Epoch(1)]);
    let claimed = claim(&*store).await;
    succeed(&*store, &time, &claimed).await;
    let made = store.backup(import.backup_id.unwrap()).await.unwrap();
    assert_eq!((made.is_available(), made.epoch, made.busy), (true, Some(2), None));

    let failing = accept(&*store, importing(&time, "default", "gone", "b")).await;
    let claimed = claim(&*store).await;
    store.complete(claimed.id, claimed.epoch, failed("damaged")).await.unwrap();
    assert_eq!(store.backup(failing.backup_id.unwrap()).await.unwrap().state, backup::State::Error(failure("damaged")));
    let cancelled = accept(&*store, importing(&time, "default", "gone", "c")).await;
    let claimed = claim(&*store).await;
    store.cancel_and_end(&claimed).await;
    assert_eq!(store.backup(cancelled.backup_id.unwrap()).await, Err(Error::NoBackup));

    let taken = |cluster: &str| Err(Error::ClusterTaken(id(cluster)));
    assert_eq!(store.create(importing(&time, "second", "gone", "a"), GRACE).await, taken("gone"));
    adopt(&*store, adoption(&time, "main", "a:1")).await;
    assert_eq!(store.create(importing(&time, "second", "main", "a"), GRACE).await, taken("main"));
    accept(&*store, importing(&time, "default", "main", "d")).await;
    assert_eq!(store.create(adoption_in(&time, "second", "gone", "b:1"), GRACE).await, taken("gone"));
}

/// Goal: no end leaves a backup held or a key taken. Method: every way in which work ends, for a copy and for an export.
pub async fn what_reads_a_backup_lets_it_go_whatever_its_end(store: Shared, time: Time) {
    let source = make_backup(&*store, &time, "main", "a").await;
    for (round, copies) in [(0, true), (1, false)] {
        let another = |number: usize| {
            let name = format!("b-{round}-{number}");
            if copies { copying(&time, &source, &name) } else { exporting(&time, &source, "reports", "same.rdb") }
        };
        // Cancelled in the queue.
        let queued = accept(&*store, another(1)).await;
        store.cancel(queued.id).await.unwrap();
        // Handed back, then cancelled while it runs; and by a lease that lapses.
        accept(&*store, another(2)).await;
        let claimed = claim(&*store).await;
        store.hand_back(claimed.id, claimed.epoch).await.unwrap();
        let claimed = claim(&*store).await;
        assert_eq!(store.backup(source.id).await.unwrap().readers, texts(&[&claimed]));
        store.cancel_and_end(&claimed).await;
        accept(&*store, another(3)).await;
        let claimed = claim(&*store).await;
        store.cancel(claimed.id).await.unwrap();
        time.pass(LEASE);
        assert_eq!(store.claim(&all_zones(), LEASE).await, Ok((None, vec![claimed.id])));
        // Failed.
        accept(&*store, another(4)).await;
        let claimed = claim(&*store).await;
        store.complete(claimed.id, claimed.epoch, failed("no room")).await.unwrap();
        // The third crash.
        let crashing = accept(&*store, another(5)).await;
        for _ in 0..3 {
            let claimed = claim(&*store).await;
            store.step(claimed.id, claimed.epoch, Step::Snapshot, None).await.unwrap();
            time.pass(LEASE);
        }
        assert_eq!(store.claim(&all_zones(), LEASE).await, Ok((None, vec![crashing.id])));
        assert!(matches!(store.get(crashing.id).await.unwrap().state, State::Failed(why) if why.reason == Reason::Poisoned));
        // The deadline.
        let late = accept(&*store, another(6)).await;
        time.pass(seconds(2 * 3600));
        assert_eq!(store.claim(&all_zones(), LEASE).await, Ok((None, vec![late.id])));
        assert_eq!(store.backup(source.id).await, Ok(source.clone()));
        // The keys are free as well.
        let last = accept(&*store, another(7)).await;
        store.cancel(last.id).await.unwrap();
    }
    accept(&*store, deletion(&time, &source)).await;
}

/// Goal: a rename and a copy are in nobody's way. Method: copies and exports that begin and end while an update is under way.
pub async fn an_update_goes_on_beside_those_that_read(store: Shared, time: Time) {
    let source = make_backup(&*store, &time, "main", "a").await;
    let before = accept(&*store, copying(&time, &source, "b")).await;
    let copying_before = claim(&*store).await;
    let update = accept(&*store, renaming(&time, &source, "new")).await;
    let updating = claim(&*store).await;
    assert_eq!((copying_before.id, updating.id), (before.id, update.id));
    // What the update knows of those that read is old by the time that it ends.
    let known = store.backup(source.id).await.unwrap();
    let export = accept(&*store, exporting(&time, &source, "reports", "a.rdb")).await;
    let exporting = claim(&*store).await;
    assert_eq!(store.create(deletion(&time, &source), GRACE).await, Err(Error::Conflict(update.id.to_string())));
    succeed(&*store, &time, &copying_before).await;
    assert_eq!(store.backup(source.id).await.unwrap().busy, Some(update.id.to_string()));
    store.complete(updating.id, updating.epoch, succeeded(Some(Backup { name: name("new"), ..known }))).await.unwrap();
    let after = store.backup(source.id).await.unwrap();
    assert_eq!((after.name.as_str(), &after.busy, &after.readers), ("new", &None, &texts(&[&export])));

    let second = accept(&*store, renaming(&time, &after, "newer")).await;
    store.complete(exporting.id, exporting.epoch, failed("no room")).await.unwrap();
    assert_eq!(store.backup(source.id).await.unwrap(), Backup { busy: Some(second.id.to_string()), readers: Default::default(), ..after });
}

/// Goal: a proof changes the row of what it read, and undoes nothing that changed meanwhile. Method: an update and a hold while
/// it works; both orders of who takes the backup first.
pub async fn a_proof_takes_its_backup_at_its_end(store: Shared, time: Time) {
    let source = make_backup(&*store, &time, "main", "a").await;
    accept(&*store, proof(&time, &source)).await;
    let proving = claim(&*store).await;
    assert_eq!(store.create(deletion(&time, &source), GRACE).await, Err(Error::Conflict(proving.id.to_string())));
    let update = accept(&*store, renaming(&time, &source, "new")).await;
    let updating = claim(&*store).await;
    store.step(proving.id, proving.epoch, Step::Load, None).await.unwrap();
    store.step(proving.id, proving.epoch, Step::Work, None).await.unwrap();
    assert_eq!(store.occupy(proving.id, proving.epoch).await, Err(Error::Conflict(update.id.to_string())));
    let renamed = Backup { name: name("new"), ..store.backup(source.id).await.unwrap() };
    store.complete(updating.id, updating.epoch, succeeded(Some(renamed))).await.unwrap();

    let row = store.occupy(proving.id, proving.epoch).await.unwrap();
    assert_eq!((row.name.as_str(), &row.busy, &row.readers), ("new", &Some(proving.id.to_string()), &texts(&[&proving])));
    assert_eq!(store.occupy(proving.id, proving.epoch).await, Ok(row.clone()));
    assert_eq!(store.create(renaming(&time, &row, "newer"), GRACE).await, Err(Error::Conflict(proving.id.to_string())));
    let proved = Backup { level: Some(backup::Level::Loaded), facts_revision: 7, ..row };
    store.complete(proving.id, proving.epoch, succeeded(Some(proved.clone()))).await.unwrap();
    let after = store.backup(source.id).await.unwrap();
    assert_eq!(after, Backup { busy: None, readers: Default::default(), ..proved });
    accept(&*store, deletion(&time, &after)).await;
}

/// Goal: a backup that was taken is free again, and nobody else takes one. Method: a retry, a hand-back, a failure, a cancellation,
/// a late worker, and a success that never took it.
pub async fn a_proof_leaves_its_backup_whatever_its_end(store: Shared, time: Time) {
    let source = make_backup(&*store, &time, "main", "a").await;
    accept(&*store, proof(&time, &source)).await;
    let first = claim(&*store).await;
    store.occupy(first.id, first.epoch).await.unwrap();
    retry_at_once(&*store, &first, Fault::Storage).await;
    assert_eq!(store.backup(source.id).await.unwrap().busy, None);
    assert!(matches!(store.occupy(first.id, first.epoch).await, Err(Error::Fenced(_))));
    let second = claim(&*store).await;
    assert_eq!((second.id, second.epoch), (first.id, Epoch(2)));
    store.occupy(second.id, second.epoch).await.unwrap();
    store.hand_back(second.id, second.epoch).await.unwrap();
    assert_eq!(store.backup(source.id).await.unwrap().busy, None);
    let third = claim(&*store).await;
    store.step(third.id, third.epoch, Step::Work, None).await.unwrap();
    let never_taken = store.complete(third.id, third.epoch, succeeded(Some(source.clone()))).await;
    assert!(matches!(never_taken, Err(Error::Invalid(_))), "{never_taken:?}");
    store.occupy(third.id, third.epoch).await.unwrap();
    // A process that vanished has it until the next attempt, which may take it again.
    time.pass(LEASE);
    let fourth = claim(&*store).await;
    assert_eq!(store.backup(source.id).await.unwrap().busy, Some(fourth.id.to_string()));
    store.occupy(fourth.id, fourth.epoch).await.unwrap();
    store.complete(fourth.id, fourth.epoch, failed("it was refused")).await.unwrap();
    assert_eq!(store.backup(source.id).await, Ok(source.clone()));

    accept(&*store, proof(&time, &source)).await;
    let cancelled = claim(&*store).await;
    store.occupy(cancelled.id, cancelled.epoch).await.unwrap();
    store.cancel_and_end(&cancelled).await;
    assert_eq!(store.backup(source.id).await, Ok(source.clone()));
    // Whoever only reads changes no row; and what was not taken stays another's.
    accept(&*store, exporting(&time, &source, "reports", "a.rdb")).await;
    let exporting = claim(&*store).await;
    assert!(matches!(store.occupy(exporting.id, exporting.epoch).await, Err(Error::Invalid(_))));
    accept(&*store, proof(&time, &source)).await;
    let idle = claim(&*store).await;
    let update = accept(&*store, renaming(&time, &source, "new")).await;
    store.complete(idle.id, idle.epoch, failed("no engine")).await.unwrap();
    assert_eq!(store.backup(source.id).await.unwrap().busy, Some(update.id.to_string()));
}

/// Goal: only what is whole is read. Method: a draft, one in error, one that is deleted, one that never was.
pub async fn only_a_finished_backup_is_read(store: Shared, time: Time) {
    let creation = accept(&*store, creation(&time, "main", "a")).await;
    let draft = store.backup(creation.backup_id.unwrap()).await.unwrap();
    let attempts = |backup: &Backup| [copying(&time, backup, "b"), exporting(&time, backup, "reports", "a.rdb")];
    for create in attempts(&draft) {
        assert_eq!(store.create(create, GRACE).await, Err(Error::NotAvailable("CREATING")));
    }
    let claimed = claim(&*store).await;
    store.complete(claimed.id, claimed.epoch, failed("no route")).await.unwrap();
    for create in attempts(&draft) {
        assert_eq!(store.create(create, GRACE).await, Err(Error::NotAvailable("ERROR")));
    }
    accept(&*store, deletion(&time, &draft)).await;
    for create in attempts(&draft) {
        assert_eq!(store.create(create, GRACE).await, Err(Error::NoBackup));
    }
    let nothing = Backup { id: BackupId::new(), ..draft };
    for create in attempts(&nothing) {
        assert_eq!(store.create(create, GRACE).await, Err(Error::NoBackup));
    }
    // A copy without its draft, an export with one: faults of ours.
    let deleting = claim(&*store).await;
    store.complete(deleting.id, deleting.epoch, succeeded(None)).await.unwrap();
    let source = make_backup(&*store, &time, "other", "c").await;
    let without = Create { draft: None, ..copying(&time, &source, "b") };
    assert!(matches!(store.create(without, GRACE).await, Err(Error::Invalid(_))));
    let with = Create { draft: Some(source.clone()), ..exporting(&time, &source, "reports", "a.rdb") };
    assert!(matches!(store.create(with, GRACE).await, Err(Error::Invalid(_))));
    assert_eq!(store.backup(source.id).await, Ok(source));
}

/// Goal: a row has a limit. Method: as many copies as may read one backup, and one more.
pub async fn as_many_read_a_backup_as_may(store: Shared, time: Time) {
    let source = make_backup(&*store, &time, "main", "a").await;
    let mut reading = Vec::new();
    for number in 0..Backup::READERS {
        accept(&*store, copying(&time, &source, &format!("b{number}"))).await;
        reading.push(claim(&*store).await);
    }
    for create in [copying(&time, &source, "more"), exporting(&time, &source, "reports", "a.rdb")] {
        assert_eq!(store.create(create, GRACE).await, Err(Error::ReadersFull(Backup::READERS)));
    }
    succeed(&*store, &time, &reading[7]).await;
    accept(&*store, copying(&time, &source, "more")).await;
}

/// Goal: two exports do not write to one key. Method: the same target twice at once, of two backups; other targets beside it.
pub async fn one_export_writes_to_a_key(store: Shared, time: Time) {
    let source = make_backup(&*store, &time, "main", "a").await;
    let other = make_backup(&*store, &time, "main", "b").await;
    let first = accept(&*store, exporting(&time, &source, "reports", "a.rdb")).await;
    for backup in [&source, &other] {
        assert_eq!(store.create(exporting(&time, backup, "reports", "a.rdb"), GRACE).await, Err(Error::Conflict(first.id.to_string())));
    }
    // What was refused has left nothing behind.
    assert_eq!(store.backup(other.id).await, Ok(other.clone()));
    accept(&*store, exporting(&time, &source, "archive", "a.rdb")).await;
    accept(&*store, exporting(&time, &other, "reports", "b.rdb")).await;
    let claimed = claim(&*store).await;
    assert_eq!(claimed.id, first.id);
    succeed(&*store, &time, &claimed).await;
    accept(&*store, exporting(&time, &other, "reports", "a.rdb")).await;
}

/// Goal: the files of an exported backup are never taken for those of an attempt. Method: look at what is doomed.
pub async fn an_export_dooms_what_it_staged_and_nothing_else(store: Shared, time: Time) {
    let source = make_backup(&*store, &time, "main", "a").await;
    let export = accept(&*store, exporting(&time, &source, "reports", "a.rdb")).await;
    retry_at_once(&*store, &claim(&*store).await, Fault::Storage).await;
    let claimed = claim(&*store).await;
    publish(&*store, &time, &claimed, b"plan").await;
    let retried = retry_at_once(&*store, &claimed, Fault::Storage).await;
    assert_eq!(doomed_epochs(&*store).await, [Epoch(1)]);
    assert_eq!(store.cancel(export.id).await, Ok(retried));
    let claimed = claim(&*store).await;
    assert_eq!((claimed.step(), claimed.epoch), (Some(Step::Publish), Epoch(3)));
    assert_eq!(store.manifest(export.id).await, Ok(Some(b"plan".to_vec())));
    let bad = store.complete(claimed.id, claimed.epoch, succeeded(Some(source.clone()))).await;
    assert!(matches!(bad, Err(Error::Invalid(_))), "{bad:?}");
    store.complete(claimed.id, claimed.epoch, succeeded(None)).await.unwrap();
    // What was published lies under its key; the attempt's folder goes in every case.
    let doomed = store.doomed(10).await.unwrap();
    assert_eq!(
        doomed.iter().map(|doomed| (doomed.epoch, doomed.bucket.as_deref())).collect::<Vec<_>>(),
        [(Epoch(1), Some("reports")), (Epoch(2), Some("reports"))]
    );
    assert_eq!(store.backup(source.id).await, Ok(source));
}

/// Goal: files that a late worker writes are found. Method: look when due, by the waits, until the row goes.
pub async fn looks_come_again_until_the_last(store: Shared, time: Time) {
    accept(&*store, creation(&time, "main", "a")).await;
    let claimed = claim(&*store).await;
    store.looked(claimed.id, claimed.epoch, 0).await.unwrap();
    store.complete(claimed.id, claimed.epoch, failed("gone")).await.unwrap();
    for (looks, wait) in (0..).zip(LOOK_AGAIN) {
        let due = store.doomed(10).await.unwrap();
        assert_eq!(due.iter().map(|doomed| doomed.looks).collect::<Vec<_>>(), [looks]);
        store.looked(claimed.id, claimed.epoch, looks + 1).await.unwrap();
        assert_eq!(store.doomed(10).await, Ok(due));
        store.looked(claimed.id, claimed.epoch, looks).await.unwrap();
        store.looked(claimed.id, claimed.epoch, looks).await.unwrap();
        assert_eq!(store.doomed(10).await, Ok(vec![]));
        time.pass(wait - seconds(1));
        assert_eq!(store.doomed(10).await, Ok(vec![]));
        time.pass(seconds(1));
    }
    // The attempt outlives its operation, so that no file does.
    assert_eq!(store.expire(seconds(3600)).await, Ok(1));
    assert_eq!(doomed_epochs(&*store).await, [claimed.epoch]);
    store.looked(claimed.id, claimed.epoch, 3).await.unwrap();
    time.pass(GRACE * 30);
    assert_eq!(store.doomed(10).await, Ok(vec![]));
}

/// Goal: pages of lists fit together. Method: five backups in two folders and clusters, in several states, page by page.
pub async fn pages_go_from_new_to_old(store: Shared, time: Time) {
    let mut made = Vec::new();
    for (cluster, backup_name) in [("one", "a"), ("two", "b"), ("one", "c")] {
        made.push(make_backup(&*store, &time, cluster, backup_name).await);
    }
    accept(&*store, creation_in(&time, "folder2", "one", "a")).await;
    let waiting = accept(&*store, creation(&time, "two", "d")).await;
    let (default, one, two) = ("default".parse().unwrap(), "one".parse().unwrap(), "two".parse().unwrap());

    let of_folder = OperationFilter::Folder(default);
    let page = store.list(&of_folder, None, 2).await.unwrap();
    assert_eq!(page.iter().map(|operation| operation.backup_id.unwrap()).collect::<Vec<_>>(), [waiting.backup_id.unwrap(), made[2].id]);
    let rest = store.list(&of_folder, Some(page[1].id), PAGE_ROWS).await.unwrap();
    assert_eq!(rest.iter().map(|operation| operation.backup_id.unwrap()).collect::<Vec<_>>(), [made[1].id, made[0].id]);
    assert_eq!(store.list(&of_folder, Some(rest[1].id), 2).await, Ok(vec![]));
    assert_eq!(store.list(&OperationFilter::Cluster(one), None, 10).await.unwrap().len(), 3);

    let OperationFilter::Folder(default) = of_folder else { unreachable!() };
    let ids = |page: Vec<Backup>| page.iter().map(|backup| backup.id).collect::<Vec<_>>();
    let all = store.backups(&BackupFilter::Folder(default.clone()), None, 10).await.unwrap();
    assert_eq!(ids(all), [waiting.backup_id.unwrap(), made[2].id, made[1].id, made[0].id]);
    let available = BackupFilter::FolderAvailable(default);
    // The draft is skipped, and the page is full all the same.
    assert_eq!(ids(store.backups(&available, None, 2).await.unwrap()), [made[2].id, made[1].id]);
    assert_eq!(ids(store.backups(&available, Some(made[1].id), 2).await.unwrap()), [made[0].id]);
    let of_two = BackupFilter::ClusterAvailable(two);
    assert_eq!(ids(store.backups(&of_two, None, 10).await.unwrap()), [made[1].id]);
    let BackupFilter::ClusterAvailable(two) = of_two else { unreachable!() };
    assert_eq!(ids(store.backups(&BackupFilter::Cluster(two), None, 10).await.unwrap()), [waiting.backup_id.unwrap(), made[1].id]);
}

fn id(text: &str) -> redkeep::cluster::ClusterId {
    text.parse().unwrap()
}

/// Adopts a cluster from acceptance to the end.
async fn adopt(store: &dyn Store, create: Create) -> Adopted {
    let row = create.cluster.clone().unwrap();
    accept(store, create).await;
    let claimed = claim(store).await;
    store.complete(claimed.id, claimed.epoch, succeeded(None)).await.unwrap();
    Adopted { is_adopting: false, ..row }
}

/// Goal: a cluster is known from the acceptance of its adoption to its forgetting. Method: read it after each step.
pub async fn an_adopted_cluster_is_there_from_the_acceptance_on(store: Shared, time: Time) {
    let create = adoption(&time, "main", "a:1");
    let row = create.cluster.clone().unwrap();
    accept(&*store, create).await;
    assert_eq!(store.cluster(&row.id).await.as_ref(), Ok(&row));
    let claimed = claim(&*store).await;
    assert_eq!((claimed.step(), claimed.backup_id), (Some(Step::Work), None));
    // The only step of short work is past the point at which it could be stopped.
    assert_eq!(store.cancel(claimed.id).await.as_ref(), Ok(&claimed));
    store.complete(claimed.id, claimed.epoch, succeeded(None)).await.unwrap();
    let row = Adopted { is_adopting: false, ..row };
    assert_eq!(store.cluster(&row.id).await.as_ref(), Ok(&row));
    assert_eq!(doomed_epochs(&*store).await, []);

    accept(&*store, forgetting(&time, "default", "main")).await;
    assert_eq!(store.cluster(&row.id).await.as_ref(), Ok(&row));
    let claimed = claim(&*store).await;
    store.complete(claimed.id, claimed.epoch, succeeded(None)).await.unwrap();
    assert_eq!(store.cluster(&row.id).await, Err(Error::NoCluster));
    assert_eq!(store.create(forgetting(&time, "default", "main"), GRACE).await, Err(Error::NoCluster));
    adopt(&*store, adoption(&time, "main", "b:1")).await;
}

/// Goal: a cluster that could not be adopted is not known. Method: fail, cancel, crash three times, let the deadline pass.
pub async fn an_adoption_that_does_not_succeed_leaves_nothing(store: Shared, time: Time) {
    accept(&*store, adoption(&time, "main", "a:1")).await;
    let claimed = claim(&*store).await;
    store.complete(claimed.id, claimed.epoch, failed("wrong password")).await.unwrap();
    assert_eq!(store.cluster(&id("main")).await, Err(Error::NoCluster));

    let queued = accept(&*store, adoption(&time, "main", "a:1")).await;
    store.cancel(queued.id).await.unwrap();
    assert_eq!(store.cluster(&id("main")).await, Err(Error::NoCluster));

    accept(&*store, adoption(&time, "main", "a:1")).await;
    for _ in 0..3 {
        claim(&*store).await;
        time.pass(LEASE);
    }
    assert_eq!(store.claim(&all_zones(), LEASE).await.unwrap().0, None);
    assert_eq!(store.cluster(&id("main")).await, Err(Error::NoCluster));

    accept(&*store, adoption(&time, "main", "a:1")).await;
    time.pass(seconds(2 * 3600));
    assert_eq!(store.claim(&all_zones(), LEASE).await.unwrap().0, None);
    assert_eq!(store.clusters(None, 10).await, Ok(vec![]));
}

/// Goal: an id names one cluster, and what is listed under it belongs to one folder. Method: adopt it again, in its own
/// folder and in another, while it is there and after it was forgotten.
pub async fn a_cluster_id_is_taken_once(store: Shared, time: Time) {
    let taken = || Err(Error::ClusterTaken(id("main")));
    accept(&*store, adoption(&time, "main", "a:1")).await;
    assert_eq!(store.create(adoption(&time, "main", "b:1"), GRACE).await, taken());
    assert_eq!(store.create(adoption_in(&time, "second", "main", "b:1"), GRACE).await, taken());
    let claimed = claim(&*store).await;
    store.complete(claimed.id, claimed.epoch, succeeded(None)).await.unwrap();
    assert_eq!(store.create(adoption(&time, "main", "b:1"), GRACE).await, taken());
    // For another folder the cluster is not there.
    assert_eq!(store.create(forgetting(&time, "second", "main"), GRACE).await, Err(Error::NoCluster));
    assert_eq!(store.create(reconnection(&time, "second", "main", "b:1"), GRACE).await, Err(Error::NoCluster));

    make_backup(&*store, &time, "main", "a").await;
    accept(&*store, forgetting(&time, "default", "main")).await;
    let claimed = claim(&*store).await;
    store.complete(claimed.id, claimed.epoch, succeeded(None)).await.unwrap();
    time.pass(GRACE * 2);
    assert!(store.expire(GRACE).await.unwrap() > 0);
    assert_eq!(store.list(&OperationFilter::Cluster(id("main")), None, 10).await, Ok(vec![]));
    // Its backups are still listed, for the folder that they belong to.
    assert_eq!(store.create(adoption_in(&time, "second", "main", "b:1"), GRACE).await, taken());
    adopt(&*store, adoption(&time, "main", "b:1")).await;
    // Rows that do not fit are a fault of ours.
    let without = Create { cluster: None, ..adoption(&time, "other", "a:1") };
    assert!(matches!(store.create(without, GRACE).await, Err(Error::Invalid(_))));
    let of_another = Create { cluster: Some(adopted(&time, "default", "third", "a:1")), ..adoption(&time, "other", "a:1") };
    assert!(matches!(store.create(of_another, GRACE).await, Err(Error::Invalid(_))));
    let with = Create { cluster: Some(adopted(&time, "default", "main", "a:1")), ..forgetting(&time, "default", "main") };
    assert!(matches!(store.create(with, GRACE).await, Err(Error::Invalid(_))));
}

/// Goal: the record of a restored cluster tells its servers before any runs, and goes with its deletion alone. Method: read it after
/// each step, and try the ways of other clusters.
pub async fn a_restored_cluster_is_there_from_the_acceptance_to_its_deletion(store: Shared, time: Time) {
    let source = make_backup(&*store, &time, "main", "a").await;
    let create = restoring(&time, &source, "again");
    let row = create.cluster.clone().unwrap();
    let operation = accept(&*store, create).await;
    assert_eq!(store.cluster(&row.id).await.as_ref(), Ok(&row));
    // The backup is read, and the cluster is held.
    assert_eq!(store.create(deletion(&time, &source), GRACE).await, Err(Error::Conflict(operation.id.to_string())));
    assert_eq!(store.create(creation(&time, "again", "b"), GRACE).await, Err(Error::Conflict(operation.id.to_string())));
    assert_eq!(store.create(restoring(&time, &source, "again"), GRACE).await, Err(Error::ClusterTaken(id("again"))));

    let claimed = claim(&*store).await;
    assert_eq!((claimed.step(), claimed.backup_id), (Some(Step::Preflight), None));
    let nodes = vec!["127.0.0.1:7000".to_owned(), "127.0.0.1:7001".to_owned()];
    store.record_servers(claimed.id, claimed.epoch, nodes.clone(), local_servers(7000)).await.unwrap();
    let mut row = Adopted { local: Some(local_servers(7000)), ..row };
    row.connection.nodes = nodes.clone();
    assert_eq!(store.cluster(&row.id).await.as_ref(), Ok(&row));
    // A late worker changes nothing.
    time.pass(LEASE);
    let again = claim(&*store).await;
    let late = store.record_servers(claimed.id, claimed.epoch, nodes.clone(), local_servers(8000)).await;
    assert!(matches!(late, Err(Error::Fenced(_))), "{late:?}");
    for step in [Step::Load, Step::Work] {
        store.step(again.id, again.epoch, step, None).await.unwrap();
    }
    store.complete(again.id, again.epoch, succeeded(None)).await.unwrap();
    row.is_adopting = false;
    assert_eq!(store.cluster(&row.id).await.as_ref(), Ok(&row));
    let late = store.record_servers(again.id, again.epoch, nodes.clone(), local_servers(8000)).await;
    assert!(matches!(late, Err(Error::Fenced(_))), "{late:?}");
    assert_eq!(doomed_epochs(&*store).await, []);
    assert_eq!(store.backup(source.id).await.unwrap().readers.len(), 0);

    for other in [forgetting(&time, "default", "again"), reconnection(&time, "default", "again", "b:1")] {
        assert!(matches!(store.create(other, GRACE).await, Err(Error::Invalid(_))));
    }
    let deleting = |cluster: &str| on_cluster(&time, "default", cluster, Spec::DeleteCluster, None);
    adopt(&*store, adoption(&time, "other", "a:1")).await;
    assert!(matches!(store.create(deleting("other"), GRACE).await, Err(Error::Invalid(_))));
    assert_eq!(store.create(deleting("third"), GRACE).await, Err(Error::NoCluster));
    let of_another = accept(&*store, creation(&time, "again", "b")).await;
    assert_eq!(store.create(deleting("again"), GRACE).await, Err(Error::Conflict(of_another.id.to_string())));
    store.cancel(of_another.id).await.unwrap();

    accept(&*store, deleting("again")).await;
    let claimed = claim(&*store).await;
    let wrong = store.record_servers(claimed.id, claimed.epoch, nodes, local_servers(8000)).await;
    assert!(matches!(wrong, Err(Error::Invalid(_))), "{wrong:?}");
    store.complete(claimed.id, claimed.epoch, failed("processes stay")).await.unwrap();
    assert_eq!(store.cluster(&row.id).await.as_ref(), Ok(&row));
    accept(&*store, deleting("again")).await;
    let claimed = claim(&*store).await;
    store.complete(claimed.id, claimed.epoch, succeeded(None)).await.unwrap();
    assert_eq!(store.cluster(&row.id).await, Err(Error::NoCluster));
}

/// Goal: a cluster that could not be restored is not known, and its backup is free. Method: fail, cancel while queued and while
/// worked on, crash three times.
pub async fn a_restore_that_does_not_succeed_leaves_nothing(store: Shared, time: Time) {
    let source = make_backup(&*store, &time, "main", "a").await;
    let is_gone = async || {
        assert_eq!(store.cluster(&id("again")).await, Err(Error::NoCluster));
        assert_eq!(store.backup(source.id).await.unwrap().readers.len(), 0);
    };
    accept(&*store, restoring(&time, &source, "again")).await;
    let claimed = claim(&*store).await;
    store.complete(claimed.id, claimed.epoch, failed("no engine")).await.unwrap();
    is_gone().await;

    let queued = accept(&*store, restoring(&time, &source, "again")).await;
    store.cancel(queued.id).await.unwrap();
    is_gone().await;

    accept(&*store, restoring(&time, &source, "again")).await;
    let claimed = claim(&*store).await;
    store.step(claimed.id, claimed.epoch, Step::Load, None).await.unwrap();
    store.cancel(claimed.id).await.unwrap();
    store.hand_back(claimed.id, claimed.epoch).await.unwrap();
    is_gone().await;

    accept(&*store, restoring(&time, &source, "again")).await;
    for _ in 0..3 {
        claim(&*store).await;
        time.pass(LEASE);
    }
    assert_eq!(store.claim(&all_zones(), LEASE).await.unwrap().0, None);
    is_gone().await;
    // Rows that do not fit are a fault of ours.
    let without = Create { cluster: None, ..restoring(&time, &source, "again") };
    assert!(matches!(store.create(without, GRACE).await, Err(Error::Invalid(_))));
    let elsewhere = Create { cluster: Some(adopted(&time, "default", "again", "a:1")), ..restoring(&time, &source, "again") };
    assert!(matches!(store.create(elsewhere, GRACE).await, Err(Error::Invalid(_))));
}

/// Goal: nobody changes a cluster while it is backed up, and the other way round. Method: each pair, both ways.
pub async fn work_on_a_cluster_and_a_backup_of_it_exclude_each_other(store: Shared, time: Time) {
    let adopting = accept(&*store, adoption(&time, "main", "a:1")).await;
    let others = || [creation(&time, "main", "a"), reconnection(&time, "default", "main", "b:1"), forgetting(&time, "default", "main")];
    for other in others() {
        assert_eq!(store.create(other, GRACE).await, Err(Error::Conflict(adopting.id.to_string())));
    }
    let claimed = claim(&*store).await;
    store.complete(claimed.id, claimed.epoch, succeeded(None)).await.unwrap();
    for (first, create) in others().into_iter().enumerate() {
        let holder = accept(&*store, create).await;
        for other in others() {
            assert_eq!(store.create(other, GRACE).await, Err(Error::Conflict(holder.id.to_string())), "{first}");
        }
        store.cancel(holder.id).await.unwrap();
    }
}

/// Goal: a cluster is reached in one way. Method: change the connection; fail, cancel and succeed.
pub async fn a_connection_changes_at_the_end_or_not_at_all(store: Shared, time: Time) {
    let before = adopt(&*store, adoption(&time, "main", "a:1")).await;
    let create = reconnection(&time, "default", "main", "b:1");
    let after = create.cluster.clone().unwrap();
    for end in 0..3 {
        let create = Create { operation: operation(&time, "default", "main", None, Spec::UpdateConnection), ..create.clone() };
        let accepted = accept(&*store, create).await;
        assert_eq!(store.cluster(&before.id).await.as_ref(), Ok(&before));
        assert_eq!(store.cluster_to_be(&before.id).await, Ok(Some(after.clone())));
        if end == 0 {
            store.cancel(accepted.id).await.unwrap();
        } else {
            let claimed = claim(&*store).await;
            let completion = if end == 1 { failed("wrong password") } else { succeeded(None) };
            store.complete(claimed.id, claimed.epoch, completion).await.unwrap();
        }
        let expected = if end == 2 { &after } else { &before };
        assert_eq!(store.cluster(&before.id).await.as_ref(), Ok(expected));
        assert_eq!(store.cluster_to_be(&before.id).await, Ok(None));
    }
}

/// Goal: pages of clusters fit together. Method: four, one of whose ids begins with another's.
pub async fn clusters_are_listed_by_id(store: Shared, time: Time) {
    let mut rows = Vec::new();
    for cluster in ["b", "a", "a-1", "a1"] {
        rows.push(adopt(&*store, adoption(&time, cluster, "a:1")).await);
    }
    rows.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(store.clusters(None, PAGE_ROWS).await.as_ref(), Ok(&rows));
    let mut found = Vec::new();
    let mut after = None;
    while let [row] = store.clusters(after.as_ref(), 1).await.unwrap().as_slice() {
        after = Some(row.id.clone());
        found.push(row.clone());
    }
    assert_eq!(found, rows);
}

/// Goal: a schedule is edited while its backup runs, and no change is lost to another. Method: a backup under way, changes beside it; a
/// change of connection that was accepted before a change of the rest, and ends after it.
pub async fn what_is_told_of_a_cluster_changes_beside_its_backup_and_its_connection(store: Shared, time: Time) {
    let update = |changes| on_cluster(&time, "default", "main", Spec::UpdateCluster(Box::new(changes)), None);
    let window = |minute| ClusterChanges { window_start: Some(Setting::To(minute)), ..ClusterChanges::default() };
    let days = ClusterChanges { retain_days: Some(Setting::To(7)), ..ClusterChanges::default() };
    assert_eq!(store.create(update(days.clone()), GRACE).await, Err(Error::NoCluster));
    let main = adopt(&*store, adoption(&time, "main", "a:1")).await;
    let elsewhere = on_cluster(&time, "folder2", "main", Spec::UpdateCluster(Box::new(days.clone())), None);
    assert_eq!(store.create(elsewhere, GRACE).await, Err(Error::NoCluster));

    accept(&*store, creation(&time, "main", "a")).await;
    let backup = claim(&*store).await;
    accept(&*store, update(window(60))).await;
    accept(&*store, update(days)).await;
    // Nothing is changed before the end.
    assert_eq!(store.cluster(&main.id).await, Ok(main.clone()));
    for _ in 0..2 {
        let claimed = claim(&*store).await;
        store.complete(claimed.id, claimed.epoch, succeeded(None)).await.unwrap();
    }
    let plan = store.cluster(&main.id).await.unwrap().plan;
    assert_eq!((plan.window_start, plan.retain_days), (Some(60), Some(7)));
    assert!(store.renew(backup.id, backup.epoch, LEASE).await.is_ok());
    store.complete(backup.id, backup.epoch, failed("gone")).await.unwrap();

    // One that fails, or is cancelled, changes nothing.
    let cancelled = accept(&*store, update(window(120))).await;
    store.cancel(cancelled.id).await.unwrap();
    accept(&*store, update(window(180))).await;
    let claimed = claim(&*store).await;
    store.complete(claimed.id, claimed.epoch, failed("no")).await.unwrap();
    assert_eq!(store.cluster(&main.id).await.unwrap().plan, plan);

    accept(&*store, update(ClusterChanges { window_start: Some(Setting::Off), name: Some("Orders".to_owned()), ..ClusterChanges::default() })).await;
    let update_of_rest = claim(&*store).await;
    let connecting = accept(&*store, reconnection(&time, "default", "main", "b:1")).await;
    assert_eq!(store.create(update(window(240)), GRACE).await, Err(Error::Conflict(connecting.id.to_string())));
    store.complete(update_of_rest.id, update_of_rest.epoch, succeeded(None)).await.unwrap();
    let claimed = claim(&*store).await;
    store.complete(claimed.id, claimed.epoch, succeeded(None)).await.unwrap();
    let after = store.cluster(&main.id).await.unwrap();
    assert_eq!((after.name.as_str(), after.plan.window_start, after.plan.retain_days), ("Orders", None, Some(7)));
    assert_eq!(after.connection.nodes, ["b:1"]);
}

/// Goal: a policy's name is taken once, and a cluster leaves none behind. Method: create, meet, cancel, fill up, delete, forget.
pub async fn a_policy_is_there_from_the_acceptance_on_and_goes_with_its_cluster(store: Shared, time: Time) {
    let ids = async |cluster: &str| store.policies(&cluster.parse().unwrap()).await.unwrap().into_iter().map(|policy| policy.id).collect::<Vec<_>>();
    let deleting = |id: &str| on_cluster(&time, "default", "main", Spec::DeletePolicy { policy_id: id.to_owned() }, None);
    assert_eq!(store.create(policy(&time, "main", "p", "monthly"), GRACE).await, Err(Error::NoCluster));
    // One begins with the name of the other.
    let main = adopt(&*store, adoption(&time, "main", "a:1")).await;
    adopt(&*store, adoption(&time, "main2", "a:1")).await;
    let first = accept(&*store, policy(&time, "main", "p1", "monthly")).await;
    assert_eq!(ids("main").await, ["p1"]);
    assert_eq!(store.create(policy(&time, "main", "p2", "monthly"), GRACE).await, Err(Error::PolicyTaken("monthly".to_owned())));
    accept(&*store, policy(&time, "main2", "other", "monthly")).await;
    assert_eq!(store.create(deleting("p2"), GRACE).await, Err(Error::NoPolicy));
    // A creation that does not succeed leaves none.
    store.cancel(first.id).await.unwrap();
    assert_eq!((ids("main").await, ids("main2").await), (vec![], vec!["other".to_owned()]));
    accept(&*store, policy(&time, "main", "p2", "monthly")).await;
    for _ in 0..2 {
        let claimed = claim(&*store).await;
        store.complete(claimed.id, claimed.epoch, succeeded(None)).await.unwrap();
    }
    // A deletion that fails leaves it; one that succeeds frees its name.
    for (end, expected) in [(failed("no"), 1), (succeeded(None), 0)] {
        accept(&*store, deleting("p2")).await;
        assert_eq!(ids("main").await.len(), 1);
        let claimed = claim(&*store).await;
        store.complete(claimed.id, claimed.epoch, end).await.unwrap();
        assert_eq!(ids("main").await.len(), expected);
    }
    for index in 0..POLICIES {
        accept(&*store, policy(&time, "main", &format!("q{index:02}"), &format!("n{index}"))).await;
        let claimed = claim(&*store).await;
        store.complete(claimed.id, claimed.epoch, succeeded(None)).await.unwrap();
    }
    assert_eq!(store.create(policy(&time, "main", "more", "more"), GRACE).await, Err(Error::PoliciesFull(POLICIES)));
    let planned = Planned { calendar: "daily".to_owned(), settled_at: time.now(), open: None };
    store.plan(&main.id, None, planned).await.unwrap();
    accept(&*store, forgetting(&time, "default", "main")).await;
    let claimed = claim(&*store).await;
    assert_eq!(ids("main").await.len(), POLICIES);
    store.complete(claimed.id, claimed.epoch, succeeded(None)).await.unwrap();
    assert_eq!((ids("main").await.len(), ids("main2").await.len(), store.planned(&main.id).await), (0, 1, Ok(None)));
}

/// Goal: of several that change what is planned one goes on. Method: changes that know the latest row, and some that do not; many at once.
pub async fn what_is_planned_is_changed_by_who_has_read_it(store: Shared, time: Time) {
    let id = "main".parse().unwrap();
    let run = |attempt| Run { planned_at: time.now(), policy_id: None, retain_days: Some(7), attempt, start_at: time.now(), operation_id: None };
    let row = |attempt| Planned { calendar: "daily".to_owned(), settled_at: time.now(), open: Some(run(attempt)) };
    assert_eq!(store.planned(&id).await, Ok(None));
    assert_eq!(store.plan(&id, Some(row(1)), row(2)).await, Ok(Recorded::Theirs(None)));
    assert_eq!(store.plan(&id, None, row(1)).await, Ok(Recorded::Ours));
    // What would change nothing is somebody's too.
    assert_eq!(store.plan(&id, None, row(1)).await, Ok(Recorded::Theirs(Some(row(1)))));
    assert_eq!(store.plan(&id, Some(row(1)), row(2)).await, Ok(Recorded::Ours));
    assert_eq!(store.planned(&id).await, Ok(Some(row(2))));
    let long = Planned { calendar: "x".repeat(Planned::CALENDAR_BYTES + 1), ..row(3) };
    assert!(matches!(store.plan(&id, Some(row(2)), long).await, Err(Error::Invalid(_))));

    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..30 {
        let (store, id, before, after) = (Arc::clone(&store), id.clone(), row(2), row(3));
        tasks.spawn(async move { store.plan(&id, Some(before), after).await == Ok(Recorded::Ours) });
    }
    let mut ours = 0;
    while let Some(is_ours) = tasks.join_next().await {
        ours += usize::from(is_ours.unwrap());
    }
    assert_eq!(ours, 1);
}

/// Goal: what ended long ago is forgotten, with its key. Method: three ages; the key of the oldest is free again.
pub async fn operations_expire_with_their_keys(store: Shared, time: Time) {
    let keyed = with_key(creation(&time, "main", "a"), "me", "key", 1);
    let old = accept(&*store, keyed).await;
    store.cancel(old.id).await.unwrap();
    let unended = accept(&*store, in_zone(creation(&time, "other", "b"), "nowhere")).await;
    time.pass(seconds(1));
    let young = accept(&*store, creation(&time, "main", "a")).await;
    store.cancel(young.id).await.unwrap();

    time.pass(GRACE - seconds(1));
    assert_eq!(store.expire(GRACE).await, Ok(0));
    assert_eq!(store.create(with_key(creation(&time, "main", "a"), "me", "key", 2), GRACE).await, Err(Error::KeyReused));
    time.pass(seconds(1));
    assert_eq!(store.expire(GRACE).await, Ok(1));
    assert_eq!(store.get(old.id).await, Err(Error::NoOperation));
    let left = store.list(&OperationFilter::Folder("default".parse().unwrap()), None, 10).await.unwrap();
    assert_eq!(left.iter().map(|operation| operation.id).collect::<Vec<_>>(), [young.id, unended.id]);
    accept(&*store, with_key(creation(&time, "main", "a"), "me", "key", 2)).await;
}

/// Goal: those who watch over the service see what waits and what ended. Method: one operation through its life beside one that
/// waits; a refused end is not counted.
pub async fn a_census_counts_each_operation_once(store: Shared, time: Time) {
    let empty = Census { queue_limit: QUEUE_LIMIT as u64, ..Census::default() };
    assert_eq!(store.census().await, Ok(empty.clone()));
    let first = accept(&*store, creation(&time, "one", "a")).await;
    time.pass(seconds(1));
    let second = accept(&*store, creation(&time, "two", "b")).await;
    let open = |states: &[(&'static str, u64)]| states.iter().map(|(state, count)| (("create_backup", *state), *count)).collect::<BTreeMap<_, _>>();
    let told = store.census().await.unwrap();
    assert_eq!((told.open, told.queued, told.oldest_created_at), (open(&[("queued", 2)]), 2, Some(first.created_at)));

    let claimed = claim(&*store).await;
    let told = store.census().await.unwrap();
    assert_eq!((told.open, told.queued), (open(&[("queued", 1), ("running", 1)]), 1));
    let without_row = Completion { outcome: Outcome::Succeeded(Response::Empty), backup: None };
    assert!(store.complete(claimed.id, claimed.epoch, without_row).await.is_err());
    assert_eq!(store.census().await.unwrap().ended, BTreeMap::new());
    store.complete(claimed.id, claimed.epoch, failed("gone")).await.unwrap();
    assert!(store.complete(claimed.id, claimed.epoch, failed("gone")).await.is_err());
    store.cancel(second.id).await.unwrap();
    store.cancel(second.id).await.unwrap();
    let ended = [(("create_backup", "failed"), 1), (("create_backup", "cancelled"), 1)].into();
    assert_eq!(store.census().await, Ok(Census { ended, failures: [("SOURCE_UNREACHABLE", 1)].into(), ..empty }));
}

/// Goal: a shard keeps its name. Method: shards found one after another, a failover, and a cluster that is forgotten.
pub async fn shards_keep_their_names(store: Shared, time: Time) {
    let [main, other]: [redkeep::cluster::ClusterId; 2] = ["main", "main-2"].map(|id| id.parse().unwrap());
    let found = |shards: &[&str]| shards.iter().map(|nodes| nodes.chars().map(String::from).collect()).collect::<Vec<Vec<String>>>();
    let name = |names: &redkeep::cluster::ShardNames, node: &str| names.name_of(node).unwrap_or_default();
    assert_eq!(store.shard_names(&main).await, Ok(Default::default()));
    let names = store.name_shards(&main, found(&["ax", "by"])).await.unwrap();
    assert_eq!((name(&names, "a"), name(&names, "y")), ("shard1".to_owned(), "shard2".to_owned()));
    let names = store.name_shards(&main, found(&["yb", "c"])).await.unwrap();
    assert_eq!(["x", "y", "c"].map(|node| name(&names, node)), ["shard1", "shard2", "shard3"]);
    assert_eq!(store.shard_names(&main).await, Ok(names));
    assert_eq!(store.shard_names(&other).await, Ok(Default::default()));

    adopt(&*store, adoption(&time, "main", "a:1")).await;
    accept(&*store, forgetting(&time, "default", "main")).await;
    let claimed = claim(&*store).await;
    store.complete(claimed.id, claimed.epoch, succeeded(None)).await.unwrap();
    assert_eq!(store.shard_names(&main).await, Ok(Default::default()));
}

/// Goal: nothing is made up. Method: ask for everything by identifiers that nobody has.
pub async fn what_is_not_there_is_said_so(store: Shared, time: Time) {
    let (id, epoch) = (OperationId::new(), Epoch(1));
    assert_eq!(store.get(id).await, Err(Error::NoOperation));
    assert_eq!(store.cancel(id).await, Err(Error::NoOperation));
    assert_eq!(store.renew(id, epoch, LEASE).await, Err(Error::NoOperation));
    assert_eq!(store.manifest(id).await, Ok(None));
    assert_eq!(store.looked(id, epoch, 0).await, Ok(()));
    assert_eq!(store.claim(&all_zones(), LEASE).await, Ok((None, vec![])));
    assert_eq!(store.next_due(&all_zones()).await, Ok(None));
    assert_eq!(store.expire(seconds(0)).await, Ok(0));
    let nothing = creation(&time, "main", "a").draft.unwrap();
    assert_eq!(store.backup(nothing.id).await, Err(Error::NoBackup));
    let main = nothing.cluster_id.clone();
    assert_eq!(store.cluster(&main).await, Err(Error::NoCluster));
    assert_eq!(store.cluster_to_be(&main).await, Ok(None));
    assert_eq!(store.clusters(None, 10).await, Ok(vec![]));
    assert_eq!(store.purged(nothing.id).await, Ok(()));
    assert_eq!(store.create(deletion(&time, &nothing), GRACE).await, Err(Error::NoBackup));
    assert_eq!(store.create(renaming(&time, &nothing, "b"), GRACE).await, Err(Error::NoBackup));
    assert_eq!(store.ready(), Ok(()));
}

/// The end of an operation by a caller's wish, whatever it is doing.
trait CancelAndEnd {
    async fn cancel_and_end(&self, operation: &Operation) -> Operation;
}

impl CancelAndEnd for Shared {
    async fn cancel_and_end(&self, operation: &Operation) -> Operation {
        let told = self.cancel(operation.id).await.unwrap();
        match told.state {
            State::Cancelling { .. } => {
                let completion = Completion { outcome: Outcome::Cancelled, backup: None };
                self.complete(operation.id, operation.epoch, completion).await.unwrap()
            }
            _ => told,
        }
    }
}

fn place(domain: &str, shard: &str) -> Place {
    Place { domain: domain.to_owned(), shard: shard.to_owned() }
}

/// Accepts a backup of a cluster of its own and takes it.
async fn attempt(store: &dyn Store, time: &Time, cluster: &str) -> Operation {
    accept(store, creation(time, cluster, cluster)).await;
    let claimed = claim(store).await;
    time.pass(Duration::from_millis(1));
    claimed
}

async fn asks(store: &dyn Store, operation: &Operation, domain: &str, limit: usize) -> Result<Turn, Error> {
    store.take_place(operation.id, operation.epoch, &place(domain, "shard1"), limit).await
}

/// Goal: no more snapshots at once in a failure domain than it bears. Method: three attempts, a limit of one and of two, another domain.
pub async fn a_domain_has_as_many_places_as_it_bears(store: Shared, time: Time) {
    let (a, b, c) = (attempt(&*store, &time, "a").await, attempt(&*store, &time, "b").await, attempt(&*store, &time, "c").await);
    assert_eq!(asks(&*store, &a, "rack", 1).await, Ok(Turn::Granted));
    assert_eq!(asks(&*store, &a, "rack", 1).await, Ok(Turn::Granted));
    assert_eq!(asks(&*store, &b, "rack", 1).await, Ok(Turn::After(a.id)));
    assert_eq!(asks(&*store, &b, "rack-2", 1).await, Ok(Turn::Granted));
    assert_eq!(asks(&*store, &b, "rack", 2).await, Ok(Turn::Granted));
    assert_eq!(asks(&*store, &c, "rack", 2).await, Ok(Turn::After(a.id)));
    // Nobody gives back what another has, nor a later attempt what an earlier had.
    store.free_place(c.id, c.epoch, &place("rack", "shard2")).await.unwrap();
    store.free_place(a.id, Epoch(7), &place("rack", "shard1")).await.unwrap();
    assert_eq!(asks(&*store, &c, "rack", 2).await, Ok(Turn::After(a.id)));
    store.free_place(a.id, a.epoch, &place("rack", "shard1")).await.unwrap();
    assert_eq!(asks(&*store, &c, "rack", 2).await, Ok(Turn::Granted));
    for bad in [place("", "shard1"), place(&"r".repeat(Place::NAME_BYTES + 1), "shard1")] {
        assert!(matches!(store.take_place(a.id, a.epoch, &bad, 1).await, Err(Error::Invalid(_))));
    }
}

/// Goal: who has waited longest goes first. Method: the younger asks first and again; the older has the turn once it waits.
pub async fn the_oldest_operation_has_the_first_turn(store: Shared, time: Time) {
    let (a, b, c) = (attempt(&*store, &time, "a").await, attempt(&*store, &time, "b").await, attempt(&*store, &time, "c").await);
    assert_eq!(asks(&*store, &a, "rack", 1).await, Ok(Turn::Granted));
    assert_eq!(asks(&*store, &c, "rack", 1).await, Ok(Turn::After(a.id)));
    assert_eq!(asks(&*store, &b, "rack", 1).await, Ok(Turn::After(a.id)));
    store.free_place(a.id, a.epoch, &place("rack", "shard1")).await.unwrap();
    assert_eq!(asks(&*store, &c, "rack", 1).await, Ok(Turn::After(b.id)));
    assert_eq!(asks(&*store, &b, "rack", 1).await, Ok(Turn::Granted));
    // A turn that is given back keeps nobody waiting.
    let d = attempt(&*store, &time, "d").await;
    assert_eq!(asks(&*store, &d, "rack", 1).await, Ok(Turn::After(b.id)));
    store.free_place(b.id, b.epoch, &place("rack", "shard1")).await.unwrap();
    assert_eq!(asks(&*store, &d, "rack", 1).await, Ok(Turn::After(c.id)));
    store.free_place(c.id, c.epoch, &place("rack", "shard1")).await.unwrap();
    assert_eq!(asks(&*store, &d, "rack", 1).await, Ok(Turn::Granted));
}

/// Goal: a place is never lost. Method: one that waits gets it after each way in which an attempt ends.
pub async fn every_end_of_an_attempt_frees_its_places(store: Shared, time: Time) {
    for (index, end) in ["retry", "hand back", "defer", "fail", "cancel", "another claim", "succeed"].into_iter().enumerate() {
        let first = attempt(&*store, &time, &format!("a{index}")).await;
        assert_eq!(asks(&*store, &first, "rack", 1).await, Ok(Turn::Granted), "{end}");
        let (id, epoch) = (first.id, first.epoch);
        match end {
            "retry" => drop(retry_at_once(&*store, &first, Fault::Source).await),
            "hand back" => drop(store.hand_back(id, epoch).await.unwrap()),
            "defer" => drop(store.defer(id, epoch, time.now(), time.now(), String::new()).await.unwrap()),
            "fail" => drop(store.complete(id, epoch, failed("no way")).await.unwrap()),
            "cancel" => drop(store.cancel_and_end(&first).await),
            "another claim" => {
                time.pass(LEASE);
                assert_eq!(claim(&*store).await.epoch, Epoch(2));
            }
            _ => {
                let draft = store.backup(first.backup_id.unwrap()).await.unwrap();
                publish(&*store, &time, &first, b"{}").await;
                store.complete(id, epoch, succeeded(Some(available(&draft, epoch)))).await.unwrap();
            }
        }
        // Whoever is left of it would be in the way of a younger one.
        let latest = store.get(id).await.unwrap();
        if !latest.state.is_terminal() {
            let held = if latest.step().is_some() { latest } else { claim(&*store).await };
            store.cancel_and_end(&held).await;
        }
        let second = attempt(&*store, &time, &format!("b{index}")).await;
        assert_eq!(asks(&*store, &second, "rack", 1).await, Ok(Turn::Granted), "after {end}");
        store.cancel_and_end(&second).await;
    }
}

/// Goal: a worker that vanished keeps nobody waiting, even where nobody may claim its operation. Method: let its lease lapse, ask.
pub async fn a_lapsed_attempt_loses_its_place_to_who_asks(store: Shared, time: Time) {
    let gone = attempt(&*store, &time, "a").await;
    assert_eq!(asks(&*store, &gone, "rack", 1).await, Ok(Turn::Granted));
    let waiting = attempt(&*store, &time, "b").await;
    assert_eq!(asks(&*store, &waiting, "rack", 1).await, Ok(Turn::After(gone.id)));
    time.pass(LEASE - seconds(1));
    store.renew(waiting.id, waiting.epoch, LEASE).await.unwrap();
    assert_eq!(asks(&*store, &waiting, "rack", 1).await, Ok(Turn::After(gone.id)));
    time.pass(seconds(1));
    assert_eq!(asks(&*store, &waiting, "rack", 1).await, Ok(Turn::Granted));
    // It comes back, and waits like any other.
    store.renew(gone.id, gone.epoch, LEASE).await.unwrap();
    assert_eq!(asks(&*store, &gone, "rack", 1).await, Ok(Turn::After(waiting.id)));
}

/// Goal: the epoch guards a place like every word of an attempt. Method: ask as a late worker, as one told to stop, before the claim.
pub async fn only_the_attempt_under_way_takes_a_place(store: Shared, time: Time) {
    let first = attempt(&*store, &time, "a").await;
    time.pass(LEASE);
    let second = claim(&*store).await;
    assert!(matches!(asks(&*store, &first, "rack", 1).await, Err(Error::Fenced(_))));
    assert_eq!(asks(&*store, &second, "rack", 1).await, Ok(Turn::Granted));
    store.cancel(second.id).await.unwrap();
    assert_eq!(asks(&*store, &second, "rack-2", 1).await, Err(Error::Cancelling));
    let queued = accept(&*store, creation(&time, "b", "b")).await;
    assert!(matches!(asks(&*store, &queued, "rack-2", 1).await, Err(Error::Fenced(_))));
    let unknown = creation(&time, "c", "c").operation;
    assert_eq!(asks(&*store, &unknown, "rack", 1).await, Err(Error::NoOperation));
}

/// Goal: two shards on one machine are two snapshots. Method: both ask, the first gives back.
pub async fn shards_of_one_operation_take_places_one_by_one(store: Shared, time: Time) {
    let one = attempt(&*store, &time, "a").await;
    let ask = async |shard: &str| store.take_place(one.id, one.epoch, &place("rack", shard), 1).await;
    assert_eq!(ask("shard2").await, Ok(Turn::Granted));
    assert_eq!(ask("shard1").await, Ok(Turn::After(one.id)));
    assert_eq!(ask("shard3").await, Ok(Turn::After(one.id)));
    store.free_place(one.id, one.epoch, &place("rack", "shard2")).await.unwrap();
    assert_eq!(ask("shard3").await, Ok(Turn::After(one.id)));
    assert_eq!(ask("shard1").await, Ok(Turn::Granted));
}

/// Goal: a backup that is asked for at the wrong time of day does not fail for that. Method: put it off for longer than its deadline.
pub async fn what_is_put_off_waits_and_keeps_its_time(store: Shared, time: Time) {
    let first = attempt(&*store, &time, "main").await;
    let until = time.now() + seconds(7200);
    let waiting = store.defer(first.id, first.epoch, until, until + seconds(3600), "the evening".to_owned()).await.unwrap();
    assert_eq!((&waiting.state, waiting.progress.waiting_for.as_str()), (&State::Queued { not_before: until }, "the evening"));
    assert_eq!(store.get(first.id).await, Ok(waiting.clone()));
    assert_eq!(doomed_epochs(&*store).await, [Epoch(1)]);
    assert!(matches!(store.defer(first.id, first.epoch, until, until, String::new()).await, Err(Error::Fenced(_))));
    time.pass(seconds(7199));
    assert_eq!(store.claim(&all_zones(), LEASE).await, Ok((None, vec![])));
    time.pass(seconds(1));
    let second = claim(&*store).await;
    assert_eq!((second.id, second.epoch, second.tally), (first.id, Epoch(2), Tally::default()));
    store.step(second.id, second.epoch, Step::Snapshot, None).await.unwrap();
    assert!(matches!(store.defer(second.id, second.epoch, until, until, String::new()).await, Err(Error::NotAllowed(_))));
}

/// Makes a backup whose source was of this lineage.
async fn backup_of(store: &dyn Store, time: &Time, backup_name: &str, shards: Vec<Lineage>) -> Backup {
    accept(store, creation(time, "main", backup_name)).await;
    let claimed = claim(store).await;
    let draft = store.backup(claimed.backup_id.unwrap()).await.unwrap();
    store.record_lineage(claimed.id, claimed.epoch, shards).await.unwrap();
    publish(store, time, &claimed, b"{}").await;
    store.complete(claimed.id, claimed.epoch, succeeded(Some(available(&draft, claimed.epoch)))).await.unwrap();
    time.pass(Duration::from_millis(1));
    store.backup(draft.id).await.unwrap()
}

async fn baseline(store: &dyn Store) -> Option<(Name, Vec<Lineage>)> {
    let found = store.baseline(&"default".parse().unwrap(), &"main".parse().unwrap()).await.unwrap();
    found.map(|found| (found.name, found.shards))
}

/// Goal: what is known of a source lives and dies with its backup. Method: record twice, fail, cancel, succeed, delete.
pub async fn a_lineage_is_kept_with_its_backup_alone(store: Shared, time: Time) {
    for end in ["fail", "cancel"] {
        accept(&*store, creation(&time, "main", end)).await;
        let claimed = claim(&*store).await;
        store.record_lineage(claimed.id, claimed.epoch, vec![lineage("shard1", 5)]).await.unwrap();
        match end {
            "fail" => drop(store.complete(claimed.id, claimed.epoch, failed("no way")).await.unwrap()),
            _ => drop(store.cancel_and_end(&claimed).await),
        }
        assert_eq!(baseline(&*store).await, None);
        assert!(matches!(store.record_lineage(claimed.id, claimed.epoch, Vec::new()).await, Err(Error::Fenced(_))));
    }
    accept(&*store, creation(&time, "main", "a")).await;
    let claimed = claim(&*store).await;
    let draft = store.backup(claimed.backup_id.unwrap()).await.unwrap();
    store.record_lineage(claimed.id, claimed.epoch, (1..=3).map(|shard| lineage(&format!("shard{shard}"), 7)).collect()).await.unwrap();
    let shards = vec![lineage("shard2", 1024), lineage("shard1", 0)];
    store.record_lineage(claimed.id, claimed.epoch, shards).await.unwrap();
    publish(&*store, &time, &claimed, b"{}").await;
    assert_eq!(baseline(&*store).await, None);
    store.complete(claimed.id, claimed.epoch, succeeded(Some(available(&draft, claimed.epoch)))).await.unwrap();
    assert_eq!(baseline(&*store).await, Some((name("a"), vec![lineage("shard1", 0), lineage("shard2", 1024)])));
    let backup = store.backup(draft.id).await.unwrap();
    accept(&*store, deletion(&time, &backup)).await;
    assert_eq!(baseline(&*store).await, None);
    let work = claim(&*store).await;
    let not_its_own = store.record_lineage(work.id, work.epoch, vec![lineage("shard1", 1)]).await;
    assert!(matches!(not_its_own, Err(Error::Invalid(_))));
    store.complete(work.id, work.epoch, succeeded(None)).await.unwrap();
    time.pass(GRACE);
    store.begin_purge(backup.id).await.unwrap();
    store.purged(backup.id).await.unwrap();
    assert_eq!(store.backup(backup.id).await, Err(Error::NoBackup));
}

/// Goal: a source is compared with what a person would trust. Method: an older one, a newer one without a lineage, a suspect one,
/// one that was cleared, and another folder.
pub async fn the_baseline_is_the_newest_that_can_be_trusted(store: Shared, time: Time) {
    backup_of(&*store, &time, "old", vec![lineage("shard1", 1)]).await;
    backup_of(&*store, &time, "good", vec![lineage("shard1", 2)]).await;
    make_backup(&*store, &time, "main", "without").await;
    assert_eq!(baseline(&*store).await, Some((name("good"), vec![lineage("shard1", 2)])));
    let suspect = suspect_backup(&*store, &time, "suspect", vec![lineage("shard1", 3)]).await;
    assert!(suspect.is_suspect());
    assert_eq!(baseline(&*store).await.map(|(name, _)| name), Some(name("good")));
    accept(&*store, change(&time, &suspect, Spec::UpdateBackup(BackupChanges { clear_suspect: true, ..BackupChanges::default() }))).await;
    let work = claim(&*store).await;
    let cleared = backup::Cleared { by: "me".to_owned(), at: time.now() };
    let after = Backup { suspicion: suspect.suspicion.clone().map(|suspicion| backup::Suspicion { cleared: Some(cleared), ..suspicion }), ..suspect };
    store.complete(work.id, work.epoch, succeeded(Some(after))).await.unwrap();
    assert_eq!(baseline(&*store).await.map(|(name, _)| name), Some(name("suspect")));
    let elsewhere = store.baseline(&"folder2".parse().unwrap(), &"main".parse().unwrap()).await;
    assert_eq!(elsewhere, Ok(None));
}

/// Makes a backup whose source looked wrong.
async fn suspect_backup(store: &dyn Store, time: &Time, backup_name: &str, shards: Vec<Lineage>) -> Backup {
    accept(store, creation(time, "main", backup_name)).await;
    let claimed = claim(store).await;
    let draft = store.backup(claimed.backup_id.unwrap()).await.unwrap();
    store.record_lineage(claimed.id, claimed.epoch, shards).await.unwrap();
    publish(store, time, &claimed, b"{}").await;
    let suspicion = backup::Suspicion { reasons: vec!["it is empty".to_owned()], raised_at: time.now(), cleared: None };
    let row = Backup { suspicion: Some(suspicion), ..available(&draft, claimed.epoch) };
    store.complete(claimed.id, claimed.epoch, succeeded(Some(row))).await.unwrap();
    store.backup(draft.id).await.unwrap()
}

/// Goal: hashes of one cluster can be compared as long as there are any. Method: offer keys before, between and after its backups.
pub async fn a_key_of_sketches_stays_as_long_as_a_backup(store: Shared, time: Time) {
    let key = |byte| SketchKey([byte; SKETCH_KEY_BYTES]);
    let offer = async |cluster: &str, byte| store.sketch_key(&cluster.parse().unwrap(), key(byte)).await.unwrap();
    let one = backup_of(&*store, &time, "a", vec![lineage("shard1", 1)]).await;
    assert_eq!((offer("main", 1).await, offer("main", 2).await, offer("other", 3).await), (key(1), key(1), key(3)));
    let two = backup_of(&*store, &time, "b", vec![lineage("shard1", 1)]).await;
    for (backup, expected) in [(one, key(1)), (two, key(4))] {
        accept(&*store, deletion(&time, &backup)).await;
        let work = claim(&*store).await;
        store.complete(work.id, work.epoch, succeeded(None)).await.unwrap();
        time.pass(GRACE);
        store.begin_purge(backup.id).await.unwrap();
        store.purged(backup.id).await.unwrap();
        assert_eq!(offer("main", 4).await, expected);
    }
    assert_eq!(offer("other", 5).await, key(3));
}

/// Goal: nobody clears what does not stand. Method: a sound backup, a suspect one.
pub async fn only_a_suspicion_that_stands_is_cleared(store: Shared, time: Time) {
    let clear = |backup: &Backup| change(&time, backup, Spec::UpdateBackup(BackupChanges { clear_suspect: true, ..BackupChanges::default() }));
    let sound = backup_of(&*store, &time, "sound", Vec::new()).await;
    assert_eq!(store.create(clear(&sound), GRACE).await, Err(Error::NotSuspect));
    assert_eq!(store.backup(sound.id).await, Ok(sound));
    let suspect = suspect_backup(&*store, &time, "suspect", Vec::new()).await;
    accept(&*store, clear(&suspect)).await;
}

/// A backup row of many shards with figures of their own, as real ones are.
pub fn of_many_shards(draft: &Backup, epoch: Epoch, count: u64) -> Backup {
    let hash = |number: u64, salt: u64| {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &[number.to_le_bytes(), salt.to_le_bytes()].concat());
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let number = |shard: u64, salt: u64| u64::from_str_radix(&hash(shard, salt)[..9], 16).unwrap();
    let one = |index: u64| {
        let at = draft.created_at + TimeDelta::nanoseconds(number(index, 1) as i64);
        backup::Shard {
            name: format!("shard{index}"),
            source_host: format!("10.0.{}.{}:{}", index / 250, index % 250, 7000 + index % 3),
            sha256: hash(index, 2),
            replication_id: hash(index, 3)[..40].to_owned(),
            replication_offset: number(index, 4) as i64,
            size_bytes: number(index, 5),
            stored_bytes: number(index, 6),
            used_memory_bytes: number(index, 7),
            keys: number(index, 8),
            expiring: number(index, 9),
            fork_micros: Some(number(index, 10)),
            databases: vec![backup::DatabaseCount { index: 0, keys: number(index, 8), expiring: number(index, 9), bytes: number(index, 11) }],
            slots: vec![backup::SlotRange { first: (index * 32) as u16, last: (index * 32 + 31) as u16 }],
            snapshot_started_at: at,
            snapshot_at: at + TimeDelta::nanoseconds(number(index, 12) as i64),
            upload_started_at: at + TimeDelta::nanoseconds(number(index, 13) as i64),
            upload_ended_at: at + TimeDelta::nanoseconds(number(index, 14) as i64),
            ..shard(at)
        }
    };
    Backup { shards: (0..count).map(one).collect(), ..available(draft, epoch) }
}

/// Goal: a backup of hundreds of shards is one like any other. Method: 512 shards with figures that do not compress, from the end of
/// the creation over a change to the purge, with the operation that tells it.
pub async fn a_backup_of_many_shards_is_kept(store: Shared, time: Time) {
    accept(&*store, creation(&time, "main", "wide")).await;
    let claimed = claim(&*store).await;
    let draft = store.backup(claimed.backup_id.unwrap()).await.unwrap();
    let lineages = (0..512).map(|index| lineage(&format!("shard{index}"), 1024)).collect();
    store.record_lineage(claimed.id, claimed.epoch, lineages).await.unwrap();
    publish(&*store, &time, &claimed, b"{}").await;
    let row = of_many_shards(&draft, claimed.epoch, 512);
    let told = Response::Backup(Box::new(row.clone()));
    let completion = Completion { outcome: Outcome::Succeeded(told.clone()), backup: Some(row.clone()) };
    store.complete(claimed.id, claimed.epoch, completion).await.unwrap();
    let wide = Backup { busy: None, ..row };
    assert_eq!(store.backup(draft.id).await, Ok(wide.clone()));
    assert_eq!(store.get(claimed.id).await.unwrap().state, State::Succeeded(told));
    assert_eq!(baseline(&*store).await.map(|(_, shards)| shards.len()), Some(512));
    let listed = store.backups(&BackupFilter::ClusterAvailable("main".parse().unwrap()), None, 10).await;
    assert_eq!(listed, Ok(vec![wide.clone()]));

    accept(&*store, renaming(&time, &wide, "broad")).await;
    let work = claim(&*store).await;
    // Half of it: pieces that are not needed any more go.
    let half = Backup { name: name("broad"), shards: wide.shards[..200].to_vec(), ..wide };
    store.complete(work.id, work.epoch, succeeded(Some(half.clone()))).await.unwrap();
    assert_eq!(store.backup(draft.id).await, Ok(half.clone()));
    accept(&*store, deletion(&time, &half)).await;
    let work = claim(&*store).await;
    store.complete(work.id, work.epoch, succeeded(None)).await.unwrap();
    time.pass(GRACE);
    store.begin_purge(half.id).await.unwrap();
    store.purged(half.id).await.unwrap();
    assert_eq!(store.backup(half.id).await, Err(Error::NoBackup));
    time.pass(seconds(1));
    store.expire(seconds(0)).await.unwrap();
    assert_eq!(store.get(claimed.id).await, Err(Error::NoOperation));
}
