//! Goal: each pair of state and event does what the design says. Method: tables and short stories on a bare record.

use super::*;
use crate::backup::BackupId;
use crate::operation::{Door, Left, Login, Method, OperationId, Place, RestoreTarget, Spec, Tally, Written};
use chrono::{DateTime, Utc};

fn at(seconds: i64) -> Timestamp {
    DateTime::<Utc>::from_timestamp(1_000_000 + seconds, 0).unwrap()
}

fn queued() -> Operation {
    Operation {
        id: OperationId::new(),
        folder_id: "default".parse().unwrap(),
        cluster_id: "main".parse().unwrap(),
        backup_id: Some(BackupId::new()),
        door: Door::Managed,
        spec: Spec::CreateBackup,
        description: String::new(),
        created_at: at(0),
        created_by: "anonymous".into(),
        modified_at: at(0),
        revision: 1,
        zone: None,
        policy: Policy { deadline_at: at(3600), refork_delay_millis: 600_000 },
        epoch: Epoch(0),
        state: State::Queued { not_before: at(0) },
        reached: None,
        tally: Tally::default(),
        last_failure: None,
        progress: Progress::default(),
        publication: None,
    }
}

fn claim(operation: &mut Operation, seconds: i64) -> Result<(), Refused> {
    operation.apply(Event::Claim { lease_until: at(seconds + 15) }, at(seconds))
}

fn step(operation: &mut Operation, step: Step) -> Result<(), Refused> {
    let publication = (step == Step::Publish).then(|| Publication { epoch: operation.epoch, since: at(1), manifest_sha256: "00".into() });
    operation.apply(Event::Step { epoch: operation.epoch, step, publication }, at(1))
}

fn running(to: Step) -> Operation {
    let mut operation = queued();
    claim(&mut operation, 0).unwrap();
    for next in [Step::Snapshot, Step::Seal, Step::Publish] {
        if next <= to {
            step(&mut operation, next).unwrap();
        }
    }
    assert_eq!(operation.step(), Some(to));
    operation
}

fn failure() -> Failure {
    Failure::new(Reason::SourceUnreachable, "connection refused")
}

fn retry(operation: &mut Operation, fault: Fault, seconds: i64) {
    operation.apply(Event::Retry { epoch: operation.epoch, not_before: at(seconds + 1), fault, failure: failure() }, at(seconds)).unwrap();
}

#[test]
fn a_claim_raises_the_epoch_and_waits_for_its_time() {
    let mut operation = queued();
    operation.state = State::Queued { not_before: at(5) };
    assert_eq!(claim(&mut operation, 4), Err(Refused::NotDue));
    assert_eq!(operation.revision, 1);
    claim(&mut operation, 5).unwrap();
    assert_eq!((operation.epoch, operation.step(), operation.revision), (Epoch(1), Some(Step::Preflight), 2));
    assert_eq!(claim(&mut operation, 6), Err(Refused::NotDue));
}

#[test]
fn a_dead_epoch_changes_nothing() {
    let mut operation = running(Step::Snapshot);
    operation.policy.refork_delay_millis = 0;
    let old = operation.epoch;
    claim(&mut operation, 60).unwrap();
    assert_eq!(operation.epoch, Epoch(2));
    let before = operation.clone();
    for event in [
        Event::Renew { epoch: old, lease_until: at(99) },
        Event::Step { epoch: old, step: Step::Publish, publication: Some(Publication { epoch: old, since: at(1), manifest_sha256: String::new() }) },
        Event::Progress { epoch: old, progress: Progress::default() },
        Event::Retry { epoch: old, not_before: at(99), fault: Fault::Source, failure: failure() },
        Event::HandBack { epoch: old },
        Event::Defer { epoch: old, until: at(99), deadline_at: at(9999), waiting_for: String::new() },
        Event::Complete { epoch: old, outcome: Outcome::Failed(failure()) },
    ] {
        assert_eq!(operation.apply(event, at(61)), Err(Refused::Fenced { sent: old, latest: Epoch(2) }));
    }
    assert_eq!(operation, before);
}

#[test]
fn a_cancellation_by_state() {
    let mut operation = queued();
    operation.apply(Event::Cancel, at(1)).unwrap();
    assert_eq!(operation.state, State::Cancelled);

    for before_publish in [Step::Preflight, Step::Snapshot, Step::Seal] {
        let mut operation = running(before_publish);
        operation.apply(Event::Cancel, at(1)).unwrap();
        assert!(matches!(operation.state, State::Cancelling { .. }));
        let revision = operation.revision;
        operation.apply(Event::Cancel, at(2)).unwrap();
        assert_eq!(operation.revision, revision);
        assert_eq!(operation.apply(Event::Step { epoch: operation.epoch, step: Step::Publish, publication: None }, at(2)), Err(Refused::Cancelling));
        operation.apply(Event::Complete { epoch: operation.epoch, outcome: Outcome::Cancelled }, at(3)).unwrap();
        assert_eq!(operation.state, State::Cancelled);
    }

    let mut operation = running(Step::Publish);
    let before = operation.clone();
    operation.apply(Event::Cancel, at(1)).unwrap();
    assert_eq!(operation, before);
}

#[test]
fn a_lapsed_cancellation_is_cancelled() {
    let mut operation = running(Step::Snapshot);
    operation.apply(Event::Cancel, at(1)).unwrap();
    assert_eq!(claim(&mut operation, 10), Err(Refused::NotDue));
    claim(&mut operation, 15).unwrap();
    assert_eq!(operation.state, State::Cancelled);
}

#[test]
fn success_only_in_the_last_step() {
    for early in [Step::Preflight, Step::Snapshot, Step::Seal] {
        let mut operation = running(early);
        let refused = operation.apply(Event::Complete { epoch: operation.epoch, outcome: Outcome::Succeeded(Response::Empty) }, at(2));
        assert_eq!(refused, Err(Refused::NotAllowed("success before the last step")));
    }
    let mut operation = running(Step::Publish);
    operation.apply(Event::Complete { epoch: operation.epoch, outcome: Outcome::Succeeded(Response::Empty) }, at(2)).unwrap();
    assert!(operation.state.is_terminal());
    let again = operation.apply(Event::Complete { epoch: operation.epoch, outcome: Outcome::Failed(failure()) }, at(3));
    assert_eq!(again, Err(Refused::Fenced { sent: Epoch(1), latest: Epoch(1) }));
}

#[test]
fn publish_needs_its_decision_once() {
    let mut operation = running(Step::Seal);
    assert!(operation.apply(Event::Step { epoch: operation.epoch, step: Step::Publish, publication: None }, at(1)).is_err());
    step(&mut operation, Step::Publish).unwrap();
    assert!(step(&mut operation, Step::Publish).is_err());
    assert!(operation.apply(Event::Step { epoch: operation.epoch, step: Step::Seal, publication: None }, at(1)).is_err());
}

#[test]
fn a_crash_in_publish_is_taken_up_at_once_and_for_ever() {
    let mut operation = running(Step::Publish);
    for round in 1..20 {
        claim(&mut operation, 5000 * round).unwrap();
        assert_eq!((operation.step(), operation.epoch), (Some(Step::Publish), Epoch(1 + round as u64)));
    }
    assert_eq!(operation.tally.crashes, 0);
    assert_eq!(operation.publication.as_ref().unwrap().epoch, Epoch(1));
}

#[test]
fn the_third_crash_poisons() {
    let mut operation = queued();
    claim(&mut operation, 0).unwrap();
    claim(&mut operation, 20).unwrap();
    claim(&mut operation, 40).unwrap();
    assert_eq!((operation.epoch, operation.tally.crashes), (Epoch(3), 2));
    claim(&mut operation, 60).unwrap();
    assert!(matches!(&operation.state, State::Failed(f) if f.reason == Reason::Poisoned));
}

#[test]
fn a_crash_after_the_fork_waits_before_the_next_fork() {
    let mut operation = running(Step::Seal);
    claim(&mut operation, 20).unwrap();
    assert_eq!(operation.state, State::Queued { not_before: at(620) });
    assert_eq!(operation.tally.forks, 1);
    assert_eq!(claim(&mut operation, 619), Err(Refused::NotDue));
    claim(&mut operation, 620).unwrap();
    assert_eq!(operation.epoch, Epoch(2));
}

#[test]
fn three_forks_are_the_budget() {
    let mut operation = queued();
    operation.policy.refork_delay_millis = 0;
    for round in 0..3 {
        claim(&mut operation, round * 10 + 5).unwrap();
        step(&mut operation, Step::Snapshot).unwrap();
        retry(&mut operation, Fault::Storage, round * 10 + 6);
    }
    assert!(matches!(&operation.state, State::Failed(f) if f.reason == Reason::ForkBudget && f.message.contains("connection refused")));
}

#[test]
fn five_faults_of_the_source_are_enough_and_storage_goes_on() {
    let mut operation = queued();
    for round in 0..5 {
        claim(&mut operation, round * 10 + 5).unwrap();
        retry(&mut operation, Fault::Source, round * 10 + 6);
    }
    assert_eq!(operation.state, State::Failed(failure()));

    let mut operation = queued();
    for round in 0..50 {
        claim(&mut operation, round * 10 + 5).unwrap();
        retry(&mut operation, Fault::Storage, round * 10 + 6);
    }
    assert!(matches!(operation.state, State::Queued { .. }));
    retry_after_deadline(&mut operation);
}

fn retry_after_deadline(operation: &mut Operation) {
    claim(operation, 3600).unwrap();
    retry(operation, Fault::Storage, 3700);
    assert!(matches!(&operation.state, State::Failed(f) if f.message.contains("deadline")));
}

#[test]
fn the_deadline_bounds_the_start_not_the_stream() {
    let mut operation = queued();
    claim(&mut operation, 3601).unwrap();
    assert!(matches!(&operation.state, State::Failed(f) if f.reason == Reason::DeadlineExceeded));

    let mut operation = running(Step::Snapshot);
    operation.apply(Event::Renew { epoch: operation.epoch, lease_until: at(9015) }, at(9000)).unwrap();
    assert_eq!(operation.step(), Some(Step::Snapshot));
}

#[test]
fn a_source_that_was_not_asked_to_fork_waits_for_no_fork() {
    let mut operation = running(Step::Snapshot);
    retry(&mut operation, Fault::Source, 6);
    assert_eq!((operation.tally.forks, operation.tally.source_faults), (0, 1));
    assert_eq!(operation.state, State::Queued { not_before: at(7) });
    claim(&mut operation, 7).unwrap();
    step(&mut operation, Step::Snapshot).unwrap();
    retry(&mut operation, Fault::Forked, 8);
    assert_eq!((operation.tally.forks, operation.tally.source_faults), (1, 2));
    assert_eq!(operation.state, State::Queued { not_before: at(608) });
}

#[test]
fn handed_back_is_no_crash_but_a_fork() {
    let mut operation = running(Step::Snapshot);
    operation.apply(Event::HandBack { epoch: operation.epoch }, at(5)).unwrap();
    assert_eq!(operation.state, State::Queued { not_before: at(5) });
    assert_eq!((operation.tally.crashes, operation.tally.forks), (0, 1));
    claim(&mut operation, 5).unwrap();

    let mut operation = running(Step::Snapshot);
    operation.apply(Event::Cancel, at(1)).unwrap();
    operation.apply(Event::HandBack { epoch: operation.epoch }, at(5)).unwrap();
    assert_eq!(operation.state, State::Cancelled);
}

#[test]
fn a_deletion_cannot_be_taken_back() {
    let mut operation = queued();
    operation.spec = Spec::DeleteBackup;
    let before = operation.clone();
    operation.apply(Event::Cancel, at(1)).unwrap();
    assert_eq!(operation, before);
    claim(&mut operation, 1).unwrap();
    retry(&mut operation, Fault::Storage, 4000);
    assert!(matches!(&operation.state, State::Failed(f) if f.message.contains("deleted all the same")));
}

#[test]
fn work_that_reads_what_is_stored_forks_nothing() {
    let export = super::super::ExportTarget { bucket: "reports".into(), path: String::new(), name: Some("a.rdb".into()), as_stored: false };
    let import = super::super::ImportSource { bucket: "reports".into(), keys: vec!["a.rdb".into()] };
    for spec in [Spec::CopyBackup { source: BackupId::new() }, Spec::ExportBackup(export), Spec::ImportBackup(import)] {
        let mut operation = queued();
        operation.spec = spec;
        claim(&mut operation, 0).unwrap();
        assert_eq!(operation.step(), Some(Step::Preflight));
        step(&mut operation, Step::Snapshot).unwrap();
        retry(&mut operation, Fault::Storage, 6);
        assert_eq!(operation.state, State::Queued { not_before: at(7) });
        claim(&mut operation, 7).unwrap();
        step(&mut operation, Step::Snapshot).unwrap();
        operation.apply(Event::HandBack { epoch: operation.epoch }, at(8)).unwrap();
        claim(&mut operation, 8).unwrap();
        step(&mut operation, Step::Seal).unwrap();
        // A crash is followed by another attempt at once, up to the third.
        claim(&mut operation, 60).unwrap();
        assert_eq!((operation.epoch, operation.tally), (Epoch(4), Tally { crashes: 1, ..Tally::default() }));
        operation.apply(Event::Cancel, at(61)).unwrap();
        assert!(matches!(operation.state, State::Cancelling { .. }));
    }
}

#[test]
fn the_step_reached_is_remembered() {
    let mut operation = running(Step::Seal);
    retry(&mut operation, Fault::Storage, 2);
    assert_eq!((operation.step(), operation.reached), (None, Some(Step::Seal)));
}

#[test]
fn what_is_put_off_costs_nothing_and_has_all_its_time_afterwards() {
    let defer = |operation: &mut Operation| {
        let event = Event::Defer { epoch: operation.epoch, until: at(7200), deadline_at: at(10_800), waiting_for: "the evening".into() };
        operation.apply(event, at(2))
    };
    let mut operation = running(Step::Preflight);
    defer(&mut operation).unwrap();
    assert_eq!((&operation.state, operation.progress.waiting_for.as_str()), (&State::Queued { not_before: at(7200) }, "the evening"));
    assert_eq!((operation.tally, operation.policy.deadline_at, &operation.last_failure), (Tally::default(), at(10_800), &None));
    assert_eq!(claim(&mut operation, 7199), Err(Refused::NotDue));
    claim(&mut operation, 7200).unwrap();
    assert_eq!((operation.epoch, operation.progress.waiting_for.as_str()), (Epoch(2), ""));

    for begun in [Step::Snapshot, Step::Seal, Step::Publish] {
        let mut operation = running(begun);
        assert!(matches!(defer(&mut operation), Err(Refused::NotAllowed(_))), "{begun:?}");
        assert_eq!(operation.step(), Some(begun));
    }
    let mut operation = running(Step::Preflight);
    operation.apply(Event::Cancel, at(1)).unwrap();
    defer(&mut operation).unwrap();
    assert_eq!(operation.state, State::Cancelled);
}

#[test]
fn an_attempt_goes_on_until_it_is_told_otherwise() {
    let mut operation = running(Step::Preflight);
    assert_eq!(operation.goes_on(Epoch(1)), Ok(()));
    assert!(operation.is_leased(Epoch(1), at(14)) && !operation.is_leased(Epoch(1), at(15)) && !operation.is_leased(Epoch(0), at(14)));
    assert_eq!(operation.goes_on(Epoch(2)), Err(Refused::Fenced { sent: Epoch(2), latest: Epoch(1) }));
    operation.apply(Event::Cancel, at(1)).unwrap();
    assert_eq!(operation.goes_on(Epoch(1)), Err(Refused::Cancelling));
    assert!(!queued().is_leased(Epoch(0), at(0)));
}

#[test]
fn what_a_restore_may_have_sent_outlives_attempts_and_is_never_told_to_be_less() {
    let told = |pass, offset, sent| Progress { written: Some(Box::new(Written { pass, offset, sent, ..Written::default() })), ..Progress::default() };
    let mut operation = running(Step::Preflight);
    let mut tell = |progress| {
        let epoch = operation.epoch;
        operation.apply(Event::Progress { epoch, progress }, at(2)).unwrap();
        operation.progress.written.as_deref().map(|written| (written.pass, written.offset, written.sent))
    };
    assert_eq!(tell(told(0, 5, 100)), Some((0, 5, 100)));
    assert_eq!(tell(told(0, 50, 100)), Some((0, 50, 100)));
    assert_eq!(tell(told(0, 60, 90)), Some((0, 50, 100)));
    assert_eq!(tell(Progress::default()), Some((0, 50, 100)));
    assert_eq!(tell(told(1, 0, 0)), Some((1, 0, 0)));
    claim(&mut operation, 60).unwrap();
    assert_eq!(operation.progress, told(1, 0, 0));
}

#[test]
fn what_a_restore_has_left_outlives_the_attempt_and_its_login_does_not_outlive_the_end() {
    // Goal: a crash forgets nothing of a target that was changed, and no end keeps how it is logged in to.
    let login = Login { username: Some("u".to_owned()), ..Login::default() };
    let left =
        Left { feed_host: "127.0.0.1".to_owned(), feed_port: 1, diskless_load: None, keys: 3, run_id: "r".to_owned(), result: None, state: String::new() };
    let restoring = || {
        let mut operation = queued();
        operation.spec = Spec::RestoreInto(Box::new(RestoreTarget {
            place: Place::Address("127.0.0.1:6379".to_owned()),
            login: login.clone(),
            shard_name: None,
            overwrite: None,
            allow_replicas: false,
            method: Method::Feed,
        }));
        operation.apply(Event::Claim { lease_until: at(10) }, at(1)).unwrap();
        let progress = Progress { left: Some(Box::new(left.clone())), ..Progress::default() };
        operation.apply(Event::Progress { epoch: operation.epoch, progress }, at(2)).unwrap();
        operation
    };
    let has_login = |operation: &Operation| matches!(&operation.spec, Spec::RestoreInto(target) if target.login == login);
    let mut crashed = restoring();
    crashed.apply(Event::Claim { lease_until: at(30) }, at(20)).unwrap();
    assert_eq!((crashed.progress.left.as_deref(), has_login(&crashed), crashed.epoch), (Some(&left), true, Epoch(2)));
    crashed.apply(Event::Claim { lease_until: at(60) }, at(40)).unwrap();
    crashed.apply(Event::Claim { lease_until: at(90) }, at(70)).unwrap();
    let State::Failed(failure) = &crashed.state else { panic!("{:?}", crashed.state) };
    assert!(failure.reason == Reason::Poisoned && failure.message.contains("REPLICAOF NO ONE frees it"), "{failure}");
    assert!(!has_login(&crashed));
    let mut cancelled = restoring();
    cancelled.apply(Event::Cancel, at(3)).unwrap();
    assert!(has_login(&cancelled));
    cancelled.apply(Event::HandBack { epoch: cancelled.epoch }, at(4)).unwrap();
    assert_eq!((&cancelled.state, has_login(&cancelled)), (&State::Cancelled, false));
    let mut queued = restoring();
    queued.apply(Event::HandBack { epoch: queued.epoch }, at(3)).unwrap();
    assert!(has_login(&queued));
    queued.apply(Event::Cancel, at(4)).unwrap();
    assert!(!has_login(&queued));
}
