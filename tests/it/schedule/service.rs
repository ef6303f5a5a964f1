//! Goal: a scheduled backup is a backup like any other, and the MemStore calls show it as their contract says. Method: the service on
//! real or scripted servers; what was planned is set back in the store while the service is down, so that something is due at once.

use super::*;
use crate::support::answers::response;
use crate::support::rdb_bytes::Dump;
use crate::support::scripted::{Act, ScriptedRedis, full_sync_length};
use crate::support::server::RedisServer;
use crate::support::until;
use chrono::{Timelike, Utc};
use prost_types::FieldMask;
use redkeep::pb::google::r#type::TimeOfDay;
use redkeep::pb::{managed, mdb};
use regex::Regex;
use serde_json::json;

const SOON: Duration = Duration::from_secs(30);

/// Sets the window of a cluster to a minute of the day, and the days that its backups are kept.
async fn plan(clients: &Clients, id: &str, window: Option<Timestamp>, retain_days: Option<i64>) -> managed::Cluster {
    let time = window.map(|at| TimeOfDay { hours: at.hour() as i32, minutes: at.minute() as i32, ..Default::default() });
    let paths = ["config_spec.backup_window_start", "config_spec.backup_retain_period_days"].map(str::to_owned).to_vec();
    let config = managed::ConfigSpec { backup_window_start: time, backup_retain_period_days: retain_days, ..Default::default() };
    let request =
        managed::UpdateClusterRequest { cluster_id: id.into(), update_mask: Some(FieldMask { paths }), config_spec: Some(config), ..Default::default() };
    response(&succeeds(clients, bare(clients.clusters.clone().update(request).await)).await)
}

/// Stops the service, and makes what is planned before now due, as if it had been down since the day before.
async fn with_something_due(service: Service, id: &str) -> Service {
    make_due(service.stop().await, id).await.start().await
}

async fn make_due(setup: Setup, id: &str) -> Setup {
    let path = setup.folder().join("store");
    let id: ClusterId = id.parse().unwrap();
    let store = SledStore::open(sled::Options::new(path)).unwrap();
    let row = store.cluster(&id).await.unwrap();
    let calendar = redkeep::cluster::calendar::Calendar::new(&row.plan, chrono_tz::Tz::UTC, &store.policies(&id).await.unwrap()).unwrap();
    let before = store.planned(&id).await.unwrap();
    let after = Planned { calendar: calendar.words().to_owned(), settled_at: Utc::now() - TimeDelta::hours(20), open: None };
    assert_eq!(store.plan(&id, before, after).await, Ok(Recorded::Ours));
    store.close();
    setup
}

/// A setup in which nothing is spread, and retries come at once.
fn setup() -> Setup {
    Setup::new().executor("drain", "\"0s\"").sections("[schedule]\nspread = \"0s\"\nretry_delay = \"0s\"\nretries = 1\n")
}

async fn get(service: &Service, path: &str) -> Value {
    let (status, answer) = call(service, "GET", path, "").await;
    assert_eq!(status, 200, "{answer}");
    answer
}

#[tokio::test]
async fn memstore_shows_a_scheduled_backup_and_a_copy_outlives_it() {
    let redis = RedisServer::start().await;
    redis.command(&["SET", "key", "value"]).await;
    let service = setup().start().await;
    adopt(&service.clients, "shop", &redis.address()).await;
    let planned = Utc::now() - TimeDelta::minutes(2);
    let shown = plan(&service.clients, "shop", Some(planned), Some(7)).await;
    let config = shown.config.unwrap();
    assert_eq!(config.backup_window_start.map(|time| (time.hours, time.minutes)), Some((planned.hour() as i32, planned.minute() as i32)));
    assert_eq!(config.backup_retain_period_days, Some(7));

    let service = with_something_due(service, "shop").await;
    let made = until("a scheduled backup is available", SOON, async || {
        let list = get(&service, "/v1/backups").await;
        list["backups"].as_array()?.iter().find(|backup| backup["status"] == "Available").cloned()
    })
    .await;
    let name = made["name"].as_str().unwrap();
    assert!(Regex::new(r"^scheduled\.backup\.\d{4}-\d\d-\d\d-\d\d-\d\d\.KST$").unwrap().is_match(name), "{name}");
    let start = planned.with_second(0).unwrap().with_nanosecond(0).unwrap();
    let local = start + TimeDelta::hours(9);
    assert_eq!(name, format!("scheduled.backup.{}.KST", local.format("%Y-%m-%d-%H-%M")));
    let deletion = |value: &Value| value["deletionTimestamp"].as_str().map(at);
    assert_eq!((made["sourceType"].as_str(), deletion(&made)), (Some("scheduled"), Some(start + TimeDelta::days(7))));

    // The other doors tell the same.
    let [backup] = service.clients.all_backups().await.try_into().unwrap();
    assert_eq!(backup.r#type(), own::backup::Type::Automated);
    assert_eq!(backup.planned_at.map(|at| at.seconds), Some(start.timestamp()));
    assert_eq!(backup.expires_at.map(|at| at.seconds), Some((start + TimeDelta::days(7)).timestamp()));
    assert_eq!(backup.shards[0].keys, 1);
    let listed = service.clients.managed_backups.clone().list(managed::ListBackupsRequest { folder_id: "default".into(), ..Default::default() }).await;
    assert_eq!(listed.unwrap().into_inner().backups[0].r#type(), managed::backup::BackupType::Automated);

    // A copy is by hand, and stays.
    let (status, answer) = call(&service, "POST", &format!("/v1/backups/{name}/copy"), &json!({ "name": "keep-it" }).to_string()).await;
    assert_eq!(status, 201, "{answer}");
    let copy =
        until("the copy is available", SOON, async || Some(get(&service, "/v1/backups/keep-it").await).filter(|copy| copy["status"] == "Available")).await;
    assert_eq!((copy["sourceType"].as_str(), &copy["deletionTimestamp"]), (Some("manual"), &Value::Null));
    assert!(copy.as_object().unwrap().contains_key("deletionTimestamp"));

    // A change of the days moves the stamp of what is there, unless somebody has set it.
    plan(&service.clients, "shop", Some(planned), Some(30)).await;
    assert_eq!(deletion(&get(&service, &format!("/v1/backups/{name}")).await), Some(start + TimeDelta::days(30)));
    assert_eq!(get(&service, "/v1/backups/keep-it").await["deletionTimestamp"], Value::Null);
    plan(&service.clients, "shop", Some(planned), None).await;
    assert_eq!(deletion(&get(&service, &format!("/v1/backups/{name}")).await), None);
    let by_hand = Utc::now() + TimeDelta::days(3);
    let request = own::UpdateBackupRequest {
        backup_id: backup.id.clone(),
        expires_at: Some(prost_types::Timestamp { seconds: by_hand.timestamp(), nanos: 0 }),
        update_mask: Some(FieldMask { paths: vec!["expires_at".into()] }),
        ..Default::default()
    };
    succeeds(&service.clients, bare(service.clients.backups.clone().update(request).await)).await;
    plan(&service.clients, "shop", Some(planned), Some(60)).await;
    let kept = service.clients.backup(&backup.id).await.unwrap();
    assert_eq!(kept.expires_at.map(|at| at.seconds), Some(by_hand.timestamp()));
    service.stop().await;
}

#[tokio::test]
async fn memstore_shows_a_scheduled_backup_that_failed() {
    let service = setup().executor("deadline", "\"1s\"").start().await;
    adopt(&service.clients, "shop", "127.0.0.1:1").await;
    plan(&service.clients, "shop", Some(Utc::now() - TimeDelta::minutes(2)), Some(7)).await;
    let service = with_something_due(service, "shop").await;
    let failed = until("both attempts have failed", SOON, async || {
        let list = get(&service, "/v1/backups").await["backups"].as_array()?.clone();
        Some(list).filter(|list| list.len() == 2 && list.iter().all(|backup| backup["status"] == "Error"))
    })
    .await;
    assert!(failed.iter().all(|backup| backup["sourceType"] == "scheduled"), "{failed:#?}");
    let [second, first] = [0, 1].map(|index| failed[index]["name"].as_str().unwrap());
    assert_eq!(second, format!("{first}.2"));
    service.stop().await;
}

#[tokio::test]
async fn a_plan_is_changed_while_the_backup_runs() {
    let redis = ScriptedRedis::start(vec![vec![Act::FullResync, Act::Stall]]).await;
    let service = setup().start().await;
    let clients = &service.clients;
    adopt(clients, "shop", &redis.address()).await;
    plan(clients, "shop", Some(Utc::now() - TimeDelta::minutes(2)), Some(7)).await;
    let service = with_something_due(service, "shop").await;
    let clients = &service.clients;
    redis.wait_for(|counts| counts.psyncs == 1).await;
    let [backup] = clients.all_backups().await.try_into().unwrap();
    // What else changes the cluster has to wait; this does not.
    let request = own::ForgetClusterRequest { cluster_id: "shop".into() };
    assert!(clients.fleet.clone().forget_cluster(request).await.unwrap_err().message().contains("conflicting operation"));
    let shown = plan(clients, "shop", Some(Utc::now() - TimeDelta::hours(1)), Some(14)).await;
    assert_eq!(shown.config.unwrap().backup_retain_period_days, Some(14));
    assert!(!clients.operation(&backup.operation_id).await.done);
    let moved = clients.backup(&backup.id).await.unwrap();
    let stamp = |backup: &own::Backup| backup.expires_at.unwrap().seconds;
    assert_eq!(stamp(&moved) - stamp(&backup), 7 * 24 * 3600);
    let cancelled = clients.operations.clone().cancel(wire::CancelOperationRequest { operation_id: backup.operation_id.clone() }).await;
    assert!(cancelled.is_ok());
    clients.ended(&backup.operation_id, OPERATION).await;
    // It stays what was settled: nothing is asked for because the window has moved to an hour that has passed.
    assert_eq!(redis.counts().psyncs, 1);
    service.stop().await;
}

/// Method: the real program kills itself between the acceptance of an operation and the note of it, and in the middle of changes of a
/// plan; it is started again.
#[tokio::test]
async fn killed_where_it_hurts_it_goes_on_and_asks_once() {
    const CRASH: &str = "REDKEEP_CRASH_AT";
    let redis = ScriptedRedis::start(vec![full_sync_length(Dump::sample().bytes)]).await;
    let service = setup().start().await;
    adopt(&service.clients, "shop", &redis.address()).await;
    plan(&service.clients, "shop", Some(Utc::now() - TimeDelta::minutes(2)), Some(7)).await;
    let process = make_due(service.stop().await, "shop").await.spawn(&[(CRASH, "schedule.asked")]).await;
    let process = process.wait_end(SOON).await.spawn(&[]).await;
    until("the backup is there", SOON, async || process.clients.all_backups().await.iter().any(|backup| backup.completed_at.is_some()).then_some(())).await;
    assert_eq!((process.clients.all_backups().await.len(), redis.counts().psyncs), (1, 1));

    let setup = process.terminate(SOON).await;
    let window = Utc::now() + TimeDelta::hours(3);
    let process = setup.spawn(&[(CRASH, "plan.update")]).await;
    let time = TimeOfDay { hours: window.hour() as i32, minutes: window.minute() as i32, ..Default::default() };
    let config = managed::ConfigSpec { backup_window_start: Some(time), ..Default::default() };
    let paths = vec!["config_spec.backup_window_start".to_owned()];
    let request =
        managed::UpdateClusterRequest { cluster_id: "shop".into(), update_mask: Some(FieldMask { paths }), config_spec: Some(config), ..Default::default() };
    let _ = process.clients.clusters.clone().update(request).await;
    let process = process.wait_end(SOON).await.spawn(&[(CRASH, "plan.policy")]).await;
    let shown = async |clients: &Clients| clients.clusters.clone().get(managed::GetClusterRequest { cluster_id: "shop".into() }).await.unwrap().into_inner();
    until("the plan is the new one", SOON, async || (shown(&process.clients).await.config?.backup_window_start == Some(time)).then_some(())).await;
    let cron = mdb::CronTab { day_of_month: "1".into(), ..Default::default() };
    let request = managed::CreateBackupRetentionPolicyRequest {
        cluster_id: "shop".into(),
        cron: Some(cron),
        retain_for_days: 365,
        policy_name: "monthly".into(),
        ..Default::default()
    };
    let _ = process.clients.policies.clone().create(request).await;
    let process = process.wait_end(SOON).await.spawn(&[]).await;
    let request = managed::ListClusterOperationsRequest { cluster_id: "shop".into(), ..Default::default() };
    let newest = process.clients.clusters.clone().list_operations(request).await.unwrap().into_inner().operations.remove(0);
    succeeds(&process.clients, Ok(newest)).await;
    let request = managed::ListBackupRetentionPoliciesRequest { cluster_id: "shop".into(), ..Default::default() };
    assert_eq!(process.clients.policies.clone().list(request).await.unwrap().into_inner().policies.len(), 1);
    let setup = process.terminate(SOON).await;
    let report = sled::verify(&setup.folder().join("store")).unwrap();
    assert!(report.is_clean() && report.live == 0, "{report:?}");
}
