//! Goal: policies of the configuration choose days and keep their backups for a time of their own; what is wrong with them is told.
//! Method: looks of a schedule over days; configurations with faults.

use super::*;

const BOTH: &str = "backup_window_start = \"22:00\"\nbackup_retain_period_days = 7\n\
    [[clusters.policies]]\nname = \"weekly\"\ndays_of_week = \"sun\"\nretain_days = 60\n\
    [[clusters.policies]]\nname = \"yearly\"\ndays_of_month = \"1\"\nmonths = \"jan\"\nretain_days = 3650";

#[tokio::test]
async fn a_day_has_one_backup_that_is_kept_for_the_longest_of_its_times() {
    // 2030-03-03 is a Sunday.
    let bench = Bench::new(BOTH, "2030-03-02T12:00:00Z");
    let mut schedule = bench.schedule();
    bench.look_after(&mut schedule, 0).await;
    for day in ["2030-03-02", "2030-03-03"] {
        bench.look(&mut schedule, &format!("{day}T22:00:00Z")).await;
        bench.succeed().await;
        bench.look_after(&mut schedule, 1).await;
    }
    let kept: Vec<_> = bench.backups().await.into_iter().map(|backup| (backup.policy_id.clone(), backup.expires_at)).collect();
    let weekly = Some("weekly".to_owned());
    assert_eq!(kept, [(None, Some(at("2030-03-09T22:00:00Z"))), (weekly, Some(at("2030-05-02T22:00:00Z")))]);
    // The plan's own retention moves the daily one alone.
    let bench = bench.restart("backup_window_start = \"22:00\"\nbackup_retain_period_days = 2");
    let expiries: Vec<_> = bench.backups().await.iter().map(|backup| bench.executor.expires(backup).unwrap()).collect();
    assert_eq!(expiries, [at("2030-03-04T22:00:00Z"), at("2030-05-02T22:00:00Z")]);
}

#[tokio::test]
async fn a_policy_alone_takes_its_days_at_ten_in_the_evening() {
    let bench = Bench::new("[[clusters.policies]]\nname = \"weekly\"\ndays_of_week = \"sun\"\nretain_days = 60", "2030-03-02T12:00:00Z");
    let mut schedule = bench.schedule();
    bench.look_after(&mut schedule, 0).await;
    for day in 2..12 {
        bench.look(&mut schedule, &format!("2030-03-{day:02}T22:00:00Z")).await;
        if bench.operations().await.last().is_some_and(is_open) {
            bench.succeed().await;
        }
    }
    assert_eq!(bench.planned().await, ["2030-03-03T22:00Z", "2030-03-10T22:00Z"]);
}

#[test]
fn what_is_wrong_with_a_plan_is_told_with_its_key() {
    let setup = Setup::new().cluster(
        "main",
        &["127.0.0.1:1"],
        "backup_window_start = \"24:00\"\nbackup_retain_period_days = 0\nkeep_last = -1\ntime_zone = \"Mars\"\n\
        [[clusters.policies]]\nname = \"a b\"\ndays_of_week = \"someday\"\nretain_days = 0\n\
        [[clusters.policies]]\nname = \"never\"\ndays_of_month = \"30\"\nmonths = \"2\"\nretain_days = 1\n\
        [[clusters.policies]]\nname = \"never\"\nhour = \"3\"\n\
        [schedule]\nspread = \"13h\"\nretries = 11\nretry_delay = \"soon\"\ncatch_up = \"8d\"\nleader = true",
    );
    let faults = redkeep::config::load(Some(&setup.write()), &[]).unwrap_err().faults;
    for key in [
        "clusters[0].backup_window_start: ",
        "clusters[0].backup_retain_period_days: ",
        "clusters[0].keep_last: ",
        "clusters[0].time_zone: ",
        "clusters[0].policies[0].name: ",
        "clusters[0].policies[0].days_of_week: ",
        "clusters[0].policies[0].retain_days: ",
        "clusters[0].policies[1].days_of_month: name no day that ever comes",
        "clusters[0].policies[2].name: another policy",
        "clusters[0].policies[2].days_of_month: must be given",
        "clusters[0].policies[2].retain_days: must be given",
        "clusters[0].policies[2].hour: is not known here",
        "schedule.spread: ",
        "schedule.retries: ",
        "schedule.retry_delay: ",
        "schedule.catch_up: ",
        "schedule.leader: is not known here",
    ] {
        assert!(faults.iter().any(|fault| fault.starts_with(key)), "{key} in {faults:#?}");
    }
}
