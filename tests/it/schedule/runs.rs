//! Goal: what is planned is asked for once, and its end is seen. Method: looks of a schedule at moments of a day, with the work done by
//! hand or not at all.

use super::*;
use redkeep::backup::Origin;
use std::collections::BTreeSet;

const DAILY: &str = "backup_window_start = \"22:00\"\nbackup_retain_period_days = 7";

#[tokio::test]
async fn a_planned_backup_is_asked_for_once_and_says_what_it_is() {
    let bench = Bench::new(DAILY, "2030-03-04T12:00:00Z");
    let mut schedule = bench.schedule();
    // The first sight of a cluster begins with what comes: yesterday's is none of ours.
    bench.look(&mut schedule, "2030-03-04T12:00:00Z").await;
    bench.look(&mut schedule, "2030-03-04T21:59:59Z").await;
    assert!(bench.operations().await.is_empty());
    bench.look(&mut schedule, "2030-03-04T22:00:01Z").await;
    let [operation] = bench.operations().await.try_into().unwrap();
    assert_eq!((operation.created_by.as_str(), operation.description.as_str()), ("redkeep/schedule", "Create a backup"));
    let [backup] = bench.backups().await.try_into().unwrap();
    assert_eq!((backup.name.as_str(), backup.origin), ("scheduled.backup.2030-03-05-07-00.KST", Origin::Automated));
    assert_eq!((backup.planned_at, backup.expires_at, backup.policy_id), (Some(at("2030-03-04T22:00:00Z")), Some(at("2030-03-11T22:00:00Z")), None));
    bench.look_after(&mut schedule, 1).await;
    assert_eq!(bench.operations().await.len(), 1);
    bench.succeed().await;
    bench.look_after(&mut schedule, 1).await;
    assert_eq!((bench.row().await.open, bench.row().await.settled_at), (None, at("2030-03-04T22:00:00Z")));
    assert_eq!(["started", "succeeded", "retried", "failed", "missed"].map(|event| bench.counted(event)), [1, 1, 0, 0, 0]);
    bench.look(&mut schedule, "2030-03-05T22:00:00Z").await;
    assert_eq!(bench.planned().await, ["2030-03-04T22:00Z", "2030-03-05T22:00Z"]);
}

#[tokio::test]
async fn nothing_is_taken_unless_it_is_set() {
    let bench = Bench::new("backup_retain_period_days = 7\nkeep_last = 3", "2030-03-04T12:00:00Z");
    let mut schedule = bench.schedule();
    bench.look_after(&mut schedule, 0).await;
    bench.look_after(&mut schedule, 3 * 24 * 60).await;
    assert!(bench.operations().await.is_empty());
    assert_eq!(bench.store.planned(&"main".parse().unwrap()).await, Ok(None));
}

#[tokio::test]
async fn a_restart_neither_doubles_nor_forgets() {
    let bench = Bench::new(DAILY, "2030-03-04T12:00:00Z");
    bench.look_after(&mut bench.schedule(), 0).await;
    // Three days without the service: the latest is caught up, once.
    let bench = bench.restart(DAILY);
    bench.look(&mut bench.schedule(), "2030-03-07T09:00:00Z").await;
    assert_eq!(bench.planned().await, ["2030-03-06T22:00Z"]);
    // A process that finds it under way, or ended, asks for nothing.
    let bench = bench.restart(DAILY);
    bench.look_after(&mut bench.schedule(), 1).await;
    bench.succeed().await;
    let bench = bench.restart(DAILY);
    let mut schedule = bench.schedule();
    bench.look_after(&mut schedule, 1).await;
    bench.look_after(&mut schedule, 1).await;
    assert_eq!(bench.planned().await.len(), 1);
    bench.look(&mut schedule, "2030-03-07T22:00:00Z").await;
    assert_eq!(bench.planned().await, ["2030-03-06T22:00Z", "2030-03-07T22:00Z"]);
}

#[tokio::test]
async fn an_operation_that_was_accepted_before_a_crash_is_found_again() {
    // Method: what stands before the operation is noted is put back, as a process leaves it that ends between the two.
    let bench = Bench::new(DAILY, "2030-03-04T12:00:00Z");
    let mut schedule = bench.schedule();
    bench.look_after(&mut schedule, 0).await;
    bench.look(&mut schedule, "2030-03-04T22:00:00Z").await;
    let after = bench.row().await;
    let mut before = after.clone();
    before.open.as_mut().unwrap().operation_id = None;
    assert_eq!(bench.store.plan(&"main".parse().unwrap(), Some(after.clone()), before).await, Ok(Recorded::Ours));
    bench.look_after(&mut bench.schedule(), 1).await;
    assert_eq!(bench.row().await, after);
    assert_eq!(bench.operations().await.len(), 1);
}

#[tokio::test]
async fn what_is_too_old_is_not_caught_up() {
    let bench = Bench::new(&format!("{DAILY}\n[schedule]\ncatch_up = \"6h\""), "2030-03-04T12:00:00Z");
    let mut schedule = bench.schedule();
    bench.look_after(&mut schedule, 0).await;
    bench.look(&mut schedule, "2030-03-05T04:00:01Z").await;
    assert_eq!((bench.planned().await.len(), bench.counted("missed")), (0, 1));
    bench.look(&mut schedule, "2030-03-06T03:59:00Z").await;
    assert_eq!(bench.planned().await, ["2030-03-05T22:00Z"]);
}

#[tokio::test]
async fn what_fails_is_asked_for_again_and_then_is_seen() {
    let bench = Bench::new(DAILY, "2030-03-04T12:00:00Z");
    let mut schedule = bench.schedule();
    bench.look_after(&mut schedule, 0).await;
    bench.look(&mut schedule, "2030-03-04T22:00:00Z").await;
    for attempt in 1..=3 {
        bench.fail().await;
        bench.look_after(&mut schedule, 1).await;
        // Not before the delay.
        bench.look_after(&mut schedule, 9).await;
        assert_eq!(bench.operations().await.len(), attempt, "{attempt}");
        bench.look_after(&mut schedule, 1).await;
        assert_eq!(bench.operations().await.len(), (attempt + 1).min(3), "{attempt}");
    }
    let names: Vec<String> = bench.backups().await.iter().map(|backup| backup.name.to_string()).collect();
    let first = "scheduled.backup.2030-03-05-07-00.KST";
    assert_eq!(names, [first.to_owned(), format!("{first}.2"), format!("{first}.3")]);
    assert!(bench.backups().await.iter().all(|backup| matches!(backup.state, State::Error(_)) && backup.planned_at == Some(at("2030-03-04T22:00:00Z"))));
    assert_eq!(["started", "succeeded", "retried", "failed", "missed"].map(|event| bench.counted(event)), [3, 0, 2, 1, 0]);
    assert_eq!(bench.row().await.open, None);
    // A second one of several that succeeds is the end of it.
    bench.look(&mut schedule, "2030-03-05T22:00:00Z").await;
    bench.fail().await;
    bench.look_after(&mut schedule, 0).await;
    bench.look_after(&mut schedule, 10).await;
    bench.succeed().await;
    bench.look_after(&mut schedule, 60).await;
    assert_eq!((bench.operations().await.len(), bench.counted("succeeded"), bench.row().await.open), (5, 1, None));
}

#[tokio::test]
async fn what_somebody_cancels_is_not_asked_for_again() {
    let bench = Bench::new(DAILY, "2030-03-04T12:00:00Z");
    let mut schedule = bench.schedule();
    bench.look_after(&mut schedule, 0).await;
    bench.look(&mut schedule, "2030-03-04T22:00:00Z").await;
    bench.store.cancel(bench.operations().await[0].id).await.unwrap();
    bench.look_after(&mut schedule, 1).await;
    bench.look_after(&mut schedule, 60).await;
    assert_eq!((bench.operations().await.len(), bench.counted("failed"), bench.row().await.open), (1, 1, None));
}

#[tokio::test]
async fn a_backup_by_hand_is_waited_for() {
    let bench = Bench::new(DAILY, "2030-03-04T12:00:00Z");
    let mut schedule = bench.schedule();
    bench.look_after(&mut schedule, 0).await;
    bench.by_hand("mine").await;
    bench.look(&mut schedule, "2030-03-04T22:00:00Z").await;
    bench.look_after(&mut schedule, 5).await;
    assert_eq!(bench.planned().await, ["by hand"]);
    bench.succeed().await;
    bench.look_after(&mut schedule, 1).await;
    assert_eq!(bench.planned().await, ["by hand", "2030-03-04T22:00Z"]);
    bench.succeed().await;
    bench.look_after(&mut schedule, 1).await;
    // One that holds the cluster until the next is due: that one takes its place.
    bench.by_hand("long").await;
    bench.look(&mut schedule, "2030-03-05T22:00:00Z").await;
    bench.look(&mut schedule, "2030-03-06T21:59:00Z").await;
    bench.look(&mut schedule, "2030-03-06T22:00:30Z").await;
    assert_eq!((bench.planned().await.len(), bench.counted("missed")), (3, 1));
    bench.succeed().await;
    bench.look_after(&mut schedule, 2).await;
    assert_eq!(bench.planned().await[3..], ["2030-03-06T22:00Z"]);
}

#[tokio::test]
async fn a_schedule_that_is_edited_while_its_backup_runs_goes_on_by_its_new_plan() {
    let bench = Bench::new(DAILY, "2030-03-04T12:00:00Z");
    let mut schedule = bench.schedule();
    bench.look_after(&mut schedule, 0).await;
    bench.look(&mut schedule, "2030-03-04T22:00:00Z").await;
    let running = bench.claim().await;
    // The window moves to an hour that has passed today: that is tomorrow's.
    let bench = bench.restart("backup_window_start = \"21:30\"\nbackup_retain_period_days = 14");
    let mut schedule = bench.schedule();
    bench.look_after(&mut schedule, 5).await;
    assert_eq!(bench.planned().await, ["2030-03-04T22:00Z"]);
    assert_eq!(bench.store.get(running.id).await.unwrap().id, running.id);
    assert!(is_open(&bench.store.get(running.id).await.unwrap()));
    bench.succeed().await;
    bench.look_after(&mut schedule, 1).await;
    assert_eq!((bench.counted("succeeded"), bench.row().await.open), (1, None));
    bench.look(&mut schedule, "2030-03-05T21:30:00Z").await;
    assert_eq!(bench.planned().await, ["2030-03-04T22:00Z", "2030-03-05T21:30Z"]);
    // The new retention holds for what is there already.
    let expiries: Vec<_> = bench.backups().await.iter().map(|backup| bench.executor.expires(backup).unwrap()).collect();
    assert_eq!(expiries, [at("2030-03-18T22:00:00Z"), at("2030-03-19T21:30:00Z")]);
}

#[tokio::test]
async fn a_schedule_that_is_taken_away_asks_for_nothing_more() {
    let bench = Bench::new(DAILY, "2030-03-04T12:00:00Z");
    let mut schedule = bench.schedule();
    bench.look_after(&mut schedule, 0).await;
    bench.by_hand("mine").await;
    bench.look(&mut schedule, "2030-03-04T22:00:00Z").await;
    let bench = bench.restart("");
    let mut schedule = bench.schedule();
    bench.look_after(&mut schedule, 1).await;
    bench.succeed().await;
    bench.look_after(&mut schedule, 10).await;
    assert_eq!((bench.planned().await, bench.row().await.open), (vec!["by hand".to_owned()], None));
    // Given back, it begins with what comes.
    let bench = bench.restart(DAILY);
    let mut schedule = bench.schedule();
    bench.look_after(&mut schedule, 10).await;
    assert_eq!(bench.planned().await.len(), 1);
    bench.look(&mut schedule, "2030-03-05T22:00:00Z").await;
    assert_eq!(bench.planned().await[1..], ["2030-03-05T22:00Z"]);
}

#[tokio::test]
async fn several_schedules_over_one_store_ask_once() {
    let bench = Bench::new(DAILY, "2030-03-04T12:00:00Z");
    let mut schedules: Vec<Schedule> = (0..4).map(|_| bench.schedule()).collect();
    for (now, expected) in [("2030-03-04T12:00:00Z", 0), ("2030-03-04T22:00:00Z", 1), ("2030-03-04T22:00:10Z", 1), ("2030-03-05T22:00:00Z", 2)] {
        *bench.now.lock().unwrap() = at(now);
        futures_util::future::join_all(schedules.iter_mut().map(Schedule::look)).await;
        assert_eq!(bench.operations().await.len(), expected, "{now}");
        if bench.operations().await.last().is_some_and(is_open) {
            bench.succeed().await;
            futures_util::future::join_all(schedules.iter_mut().map(Schedule::look)).await;
        }
    }
    assert_eq!((bench.counted("started"), bench.counted("succeeded")), (2, 2));
}

#[tokio::test]
async fn five_hundred_clusters_that_are_due_in_one_minute_are_spread_over_the_window() {
    let setup = (0..500).fold(Setup::new(), |setup, index| setup.cluster(&format!("c{index}"), &["127.0.0.1:1"], "backup_window_start = \"22:00\""));
    let mut bench = Bench::of(setup, "2030-03-04T12:00:00Z");
    bench.options.spread = Duration::from_secs(1800);
    let mut schedules = [bench.schedule(), bench.schedule()];
    bench.look_after(&mut schedules[0], 0).await;
    let mut counts = Vec::new();
    *bench.now.lock().unwrap() = at("2030-03-04T22:00:00Z");
    for minute in 0..=30 {
        let [one, other] = &mut schedules;
        futures_util::future::join(one.look(), other.look()).await;
        if minute % 10 == 0 {
            counts.push(bench.operations().await.len());
        }
        *bench.now.lock().unwrap() += TimeDelta::minutes(1);
    }
    assert!(counts[0] < 10 && (100..240).contains(&counts[1]) && (260..400).contains(&counts[2]) && counts[3] == 500, "{counts:?}");
    let backups = bench.backups().await;
    let clusters: BTreeSet<&ClusterId> = backups.iter().map(|backup| &backup.cluster_id).collect();
    let names: BTreeSet<&str> = backups.iter().map(|backup| backup.name.as_str()).collect();
    assert_eq!((clusters.len(), names.len(), bench.counted("started")), (500, 500, 500));
}
