//! Goal: a clock that jumps doubles nothing, and loses no more than the time that it jumps over. Method: the clock is set.

use super::*;

const DAILY: &str = "backup_window_start = \"22:00\"";

/// A bench that has taken the backup of the fourth of March.
async fn settled() -> (Bench, Schedule) {
    let bench = Bench::new(DAILY, "2030-03-04T12:00:00Z");
    let mut schedule = bench.schedule();
    bench.look_after(&mut schedule, 0).await;
    bench.look(&mut schedule, "2030-03-04T22:00:00Z").await;
    bench.succeed().await;
    bench.look_after(&mut schedule, 1).await;
    (bench, schedule)
}

#[tokio::test]
async fn a_day_forward_and_back_again() {
    let (bench, mut schedule) = settled().await;
    // Forward: the backup that seems to have been missed is caught up.
    bench.look(&mut schedule, "2030-03-06T10:00:00Z").await;
    bench.succeed().await;
    bench.look_after(&mut schedule, 1).await;
    assert_eq!(bench.planned().await, ["2030-03-04T22:00Z", "2030-03-05T22:00Z"]);
    // Back, and through the same evening once more: it has its backup.
    bench.look(&mut schedule, "2030-03-05T10:02:00Z").await;
    bench.look(&mut schedule, "2030-03-05T22:00:00Z").await;
    bench.look(&mut schedule, "2030-03-06T10:00:00Z").await;
    assert_eq!(bench.planned().await.len(), 2);
    bench.look(&mut schedule, "2030-03-06T22:00:00Z").await;
    assert_eq!(bench.planned().await[2..], ["2030-03-06T22:00Z"]);
}

#[tokio::test]
async fn a_day_back_and_forward_again() {
    let (bench, mut schedule) = settled().await;
    for now in ["2030-03-03T22:01:00Z", "2030-03-04T21:59:00Z", "2030-03-04T22:00:00Z", "2030-03-04T22:05:00Z"] {
        bench.look(&mut schedule, now).await;
        assert_eq!(bench.planned().await.len(), 1, "{now}");
    }
    bench.look(&mut schedule, "2030-03-05T22:02:00Z").await;
    assert_eq!(bench.planned().await, ["2030-03-04T22:00Z", "2030-03-05T22:00Z"]);
}

#[tokio::test]
async fn a_run_that_was_begun_by_a_clock_ahead_waits_for_its_time() {
    let (mut bench, _) = settled().await;
    bench.options.spread = Duration::from_secs(1800);
    let mut schedule = bench.schedule();
    bench.look(&mut schedule, "2030-03-05T22:00:00Z").await;
    assert!(bench.row().await.open.is_some_and(|run| run.operation_id.is_none()), "main waits for its part of the window");
    // Back by a day before it was asked for: it falls due again.
    bench.look(&mut schedule, "2030-03-04T22:30:00Z").await;
    assert_eq!(bench.row().await.open, None);
    bench.look(&mut schedule, "2030-03-05T21:59:00Z").await;
    assert_eq!(bench.planned().await.len(), 1);
    bench.look(&mut schedule, "2030-03-05T22:00:00Z").await;
    bench.look(&mut schedule, "2030-03-05T22:30:00Z").await;
    assert_eq!(bench.planned().await, ["2030-03-04T22:00Z", "2030-03-05T22:00Z"]);
}

#[tokio::test]
async fn a_clock_that_was_years_ahead_costs_no_years() {
    let (bench, mut schedule) = settled().await;
    bench.look(&mut schedule, "2034-01-01T12:00:00Z").await;
    bench.succeed().await;
    bench.look_after(&mut schedule, 1).await;
    assert_eq!(bench.planned().await, ["2030-03-04T22:00Z", "2033-12-31T22:00Z"]);
    bench.look(&mut schedule, "2030-03-05T12:00:00Z").await;
    bench.look(&mut schedule, "2030-03-05T22:00:00Z").await;
    assert_eq!(bench.planned().await[2..], ["2030-03-05T22:00Z"]);
}

#[tokio::test]
async fn a_day_on_which_clocks_change_has_one_backup() {
    // Method: minute by minute through the nights of Berlin in which 02:30 is skipped, and comes twice.
    for (from, expected) in [("2030-03-30T22:00:00Z", "2030-03-31T01:00Z"), ("2030-10-26T22:00:00Z", "2030-10-27T00:30Z")] {
        let bench = Bench::new("backup_window_start = \"02:30\"\ntime_zone = \"Europe/Berlin\"", from);
        let mut schedule = bench.schedule();
        for _ in 0..6 * 60 {
            bench.look_after(&mut schedule, 1).await;
            if bench.operations().await.last().is_some_and(is_open) {
                bench.succeed().await;
            }
        }
        assert_eq!(bench.planned().await, [expected], "{from}");
    }
}
