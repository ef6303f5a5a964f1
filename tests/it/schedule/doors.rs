//! Goal: plans and policies can be told over gRPC, REST and the command line, and what cannot be meant is refused by name. Method: the
//! service in this process, with a cluster of the configuration beside an adopted one whose server is not there.

use super::*;
use crate::support::answers::{fields, keyed, metadata, response};
use prost_types::FieldMask;
use redkeep::pb::{managed, mdb};
use serde_json::json;
use tonic::Code;

const CONFIGURED: &str = "backup_window_start = \"21:00\"\ntime_zone = \"Asia/Seoul\"\nbackup_retain_period_days = 30\n\
    [[clusters.policies]]\nname = \"weekly\"\ndescription = \"for the auditors\"\ndays_of_week = \"sun\"\nretain_days = 60";

/// A service with the cluster `main` of the configuration and the adopted cluster `shop`.
async fn service() -> Service {
    let service = Setup::new().executor("drain", "\"0s\"").cluster("main", &["127.0.0.1:1"], CONFIGURED).start().await;
    adopt(&service.clients, "shop", "127.0.0.1:1").await;
    service
}

fn policy(cluster: &str, name: &str, cron: (&str, &str, &str), days: i64) -> managed::CreateBackupRetentionPolicyRequest {
    let (day_of_month, month, day_of_week) = cron;
    let text = |text: &str| text.to_owned();
    let cron = mdb::CronTab { minute: text("5"), hour: text("1"), day_of_month: text(day_of_month), month: text(month), day_of_week: text(day_of_week) };
    managed::CreateBackupRetentionPolicyRequest {
        cluster_id: text(cluster),
        cron: Some(cron),
        retain_for_days: days,
        description: String::new(),
        policy_name: text(name),
    }
}

async fn create(clients: &Clients, request: managed::CreateBackupRetentionPolicyRequest) -> Result<wire::Operation, Status> {
    bare(clients.policies.clone().create(request).await)
}

async fn names(clients: &Clients, cluster: &str) -> Vec<String> {
    let request = managed::ListBackupRetentionPoliciesRequest { cluster_id: cluster.into(), ..Default::default() };
    clients.policies.clone().list(request).await.unwrap().into_inner().policies.into_iter().map(|policy| policy.policy_name).collect()
}

#[tokio::test]
async fn the_life_of_a_policy() {
    let service = service().await;
    let clients = &service.clients;
    let accepted = create(clients, policy("shop", "Monthly, for ever", ("1", "", ""), 365)).await.unwrap();
    let id = metadata::<mdb::CreateBackupRetentionPolicyMetadata>(&accepted).policy_id;
    // Known from the acceptance on.
    assert_eq!(names(clients, "shop").await, ["Monthly, for ever"]);
    let made: mdb::BackupRetentionPolicy = response(&succeeds(clients, Ok(accepted)).await);
    assert_eq!((made.policy_id.as_str(), made.cluster_id.as_str(), made.retain_for_days), (id.as_str(), "shop", 365));
    // Minute and hour are left aside.
    let cron = made.cron.clone().unwrap();
    assert_eq!((cron.minute.as_str(), cron.hour.as_str(), cron.day_of_month.as_str()), ("", "", "1"));
    let get = |cluster: &str, id: &str| managed::GetBackupRetentionPolicyRequest { cluster_id: cluster.into(), policy_id: id.into() };
    assert_eq!(bare(clients.policies.clone().get(get("shop", &id)).await).unwrap(), made);

    let taken = create(clients, policy("shop", "Monthly, for ever", ("15", "", ""), 7)).await.unwrap_err();
    assert_eq!(
        (taken.code(), taken.message()),
        (Code::AlreadyExists, "the cluster has a retention policy named \"Monthly, for ever\" already; choose another name")
    );
    succeeds(clients, create(clients, policy("shop", "weekends", ("", "", "sat,sun"), 60)).await).await;
    let by_folder = managed::ListBackupRetentionPoliciesByFolderRequest { folder_id: "default".into(), page_size: 2, ..Default::default() };
    let page = clients.policies.clone().list_by_folder(by_folder.clone()).await.unwrap().into_inner();
    let rest = managed::ListBackupRetentionPoliciesByFolderRequest { page_token: page.next_page_token.clone(), ..by_folder };
    let rest = clients.policies.clone().list_by_folder(rest).await.unwrap().into_inner();
    let all: Vec<&str> = page.policies.iter().chain(&rest.policies).map(|policy| policy.policy_name.as_str()).collect();
    assert_eq!((all, rest.next_page_token.as_str()), (vec!["weekly", "Monthly, for ever", "weekends"], ""));

    // They outlive a restart.
    let service = service.stop().await.start().await;
    let clients = &service.clients;
    assert_eq!(names(clients, "shop").await, ["Monthly, for ever", "weekends"]);
    let delete = managed::DeleteBackupRetentionPolicyRequest { policy_id: id.clone(), cluster_id: "shop".into() };
    let first = bare(clients.policies.clone().delete(keyed(delete.clone(), "once")).await).unwrap();
    assert_eq!(metadata::<mdb::DeleteBackupRetentionPolicyMetadata>(&first).policy_id, id);
    succeeds(clients, Ok(first.clone())).await;
    assert_eq!(names(clients, "shop").await, ["weekends"]);
    assert_eq!(bare(clients.policies.clone().delete(keyed(delete.clone(), "once")).await).unwrap().id, first.id);
    for (answer, what) in [
        (bare(clients.policies.clone().delete(delete).await).map(drop), "deleted twice"),
        (bare(clients.policies.clone().get(get("shop", &id)).await).map(drop), "deleted"),
        (bare(clients.policies.clone().get(get("main", &id)).await).map(drop), "another cluster's"),
        (bare(clients.policies.clone().get(get("nowhere", &id)).await).map(drop), "no cluster"),
    ] {
        assert_eq!(answer.unwrap_err().code(), Code::NotFound, "{what}");
    }
    // With the cluster its policies go.
    let forget = own::ForgetClusterRequest { cluster_id: "shop".into() };
    succeeds(clients, bare(clients.fleet.clone().forget_cluster(forget).await)).await;
    adopt(clients, "shop", "127.0.0.1:1").await;
    assert!(names(clients, "shop").await.is_empty());
    service.stop().await;
}

#[tokio::test]
async fn policies_that_cannot_be_meant_are_refused() {
    let service = service().await;
    let clients = &service.clients;
    for (request, field) in [
        (policy("shop", "", ("1", "", ""), 7), "policy_name"),
        (policy("shop", &"n".repeat(64), ("1", "", ""), 7), "policy_name"),
        (policy("shop", "a\nb", ("1", "", ""), 7), "policy_name"),
        (policy("shop", "a", ("", "", ""), 7), "cron"),
        (policy("shop", "a", ("32", "", ""), 7), "cron.day_of_month"),
        (policy("shop", "a", ("", "0", ""), 7), "cron.month"),
        (policy("shop", "a", ("", "", "1 2"), 7), "cron.day_of_week"),
        (policy("shop", "a", ("31", "4", ""), 7), "cron"),
        (policy("shop", "a", ("1", "", ""), 0), "retain_for_days"),
        (policy("shop", "a", ("1", "", ""), 3651), "retain_for_days"),
        (managed::CreateBackupRetentionPolicyRequest { cron: None, ..policy("shop", "a", ("1", "", ""), 7) }, "cron"),
        (managed::CreateBackupRetentionPolicyRequest { description: "d".repeat(257), ..policy("shop", "a", ("1", "", ""), 7) }, "description"),
    ] {
        let shown = format!("{request:?}");
        assert_eq!(fields(create(clients, request).await), [field], "{shown}");
    }
    let configured = create(clients, policy("main", "a", ("1", "", ""), 7)).await.unwrap_err();
    assert_eq!(configured.code(), Code::FailedPrecondition);
    assert!(configured.message().contains("[[clusters]]"), "{}", configured.message());
    let delete = managed::DeleteBackupRetentionPolicyRequest { policy_id: "weekly".into(), cluster_id: "main".into() };
    assert_eq!(clients.policies.clone().delete(delete).await.unwrap_err().code(), Code::FailedPrecondition);
    for index in 0..16 {
        create(clients, policy("shop", &format!("p{index}"), ("1", "", ""), 7)).await.unwrap();
    }
    assert_eq!(create(clients, policy("shop", "one more", ("1", "", ""), 7)).await.unwrap_err().code(), Code::ResourceExhausted);
    service.stop().await;
}

#[tokio::test]
async fn plans_and_policies_over_rest() {
    let service = service().await;
    let clients = &service.clients;
    // The window of Seoul is told in UTC.
    let (status, shown) = call(&service, "GET", "/managed-redis/v1/clusters/main", "").await;
    assert_eq!((status, &shown["config"]["backupWindowStart"], &shown["config"]["backupRetainPeriodDays"]), (200, &json!({ "hours": 12 }), &json!("30")));
    let (status, listed) = call(&service, "GET", "/managed-redis/v1/clusters/main/retention_policies", "").await;
    let configured = &listed["policies"][0];
    assert_eq!(
        (status, &configured["policyName"], &configured["cron"]["dayOfWeek"], &configured["retainForDays"]),
        (200, &json!("weekly"), &json!("sun"), &json!("60"))
    );
    let (status, got) = call(&service, "GET", "/managed-redis/v1/clusters/main/retention_policies/weekly", "").await;
    assert_eq!((status, &got), (200, configured));

    let body = json!({ "updateMask": "configSpec.backupWindowStart,configSpec.backupRetainPeriodDays,description",
        "configSpec": { "backupWindowStart": { "hours": 3, "minutes": 30 }, "backupRetainPeriodDays": "14" }, "description": "of the shop" });
    let (status, operation) = call(&service, "PATCH", "/managed-redis/v1/clusters/shop", &body.to_string()).await;
    assert_eq!((status, &operation["metadata"]["clusterId"]), (200, &json!("shop")), "{operation}");
    let ended = succeeds(clients, Ok(clients.operation(operation["id"].as_str().unwrap()).await)).await;
    let told: managed::Cluster = response(&ended);
    let (_, shown) = call(&service, "GET", "/managed-redis/v1/clusters/shop", "").await;
    assert_eq!((&shown["description"], &shown["name"], told.description.as_str()), (&json!("of the shop"), &json!("shop"), "of the shop"));
    assert_eq!(shown["config"]["backupWindowStart"], json!({ "hours": 3, "minutes": 30 }));
    assert_eq!(shown["config"]["backupRetainPeriodDays"], json!("14"));
    assert_eq!(told.config.unwrap().backup_retain_period_days, Some(14));

    let body = json!({ "policyName": "monthly", "cron": { "dayOfMonth": "1" }, "retainForDays": "365" });
    let (status, operation) = call(&service, "POST", "/managed-redis/v1/clusters/shop/retention_policies", &body.to_string()).await;
    assert_eq!(status, 200, "{operation}");
    let id = operation["metadata"]["policyId"].as_str().unwrap();
    succeeds(clients, Ok(clients.operation(operation["id"].as_str().unwrap()).await)).await;
    let (_, listed) = call(&service, "GET", "/managed-redis/v1/folders/default/retention_policies", "").await;
    assert_eq!(listed["policies"].as_array().unwrap().len(), 2);
    let (status, operation) = call(&service, "DELETE", &format!("/managed-redis/v1/clusters/shop/retention_policies/{id}"), "").await;
    assert_eq!(status, 200, "{operation}");
    succeeds(clients, Ok(clients.operation(operation["id"].as_str().unwrap()).await)).await;
    assert!(names(clients, "shop").await.is_empty());
    service.stop().await;
}

#[tokio::test]
async fn an_update_takes_what_it_names_and_nothing_else() {
    let service = service().await;
    let clients = &service.clients;
    let request = |paths: &[&str]| managed::UpdateClusterRequest {
        cluster_id: "shop".into(),
        update_mask: Some(FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() }),
        ..Default::default()
    };
    let update = async |request: managed::UpdateClusterRequest| bare(clients.clusters.clone().update(request).await);
    let labelled =
        managed::UpdateClusterRequest { labels: [("team".to_owned(), "shop".to_owned())].into(), name: "Orders".into(), ..request(&["labels", "name"]) };
    let told: managed::Cluster = response(&succeeds(clients, update(labelled).await).await);
    assert_eq!((told.name.as_str(), told.labels["team"].as_str(), told.config.unwrap().backup_window_start), ("Orders", "shop", None));
    assert_eq!(fields(update(request(&["name", "deletion_protection"])).await), ["deletion_protection"]);
    let days = |days| managed::ConfigSpec { backup_retain_period_days: Some(days), ..Default::default() };
    let path = "config_spec.backup_retain_period_days";
    for wrong in [6, 61] {
        assert_eq!(fields(update(managed::UpdateClusterRequest { config_spec: Some(days(wrong)), ..request(&[path]) }).await), [path]);
    }
    // Without a mask all that can be changed is meant.
    let bare_request = managed::UpdateClusterRequest { update_mask: None, config_spec: Some(days(7)), ..request(&[]) };
    let told: managed::Cluster = response(&succeeds(clients, update(bare_request.clone()).await).await);
    assert_eq!((told.name.as_str(), told.labels.len(), told.config.unwrap().backup_retain_period_days), ("shop", 0, Some(7)));
    let refused = managed::UpdateClusterRequest { auth_sentinel: true, ..bare_request };
    assert_eq!(fields(update(refused).await), ["auth_sentinel"]);

    let configured = update(managed::UpdateClusterRequest { cluster_id: "main".into(), ..request(&["name"]) }).await.unwrap_err();
    assert_eq!(configured.code(), Code::FailedPrecondition);
    assert!(configured.message().contains("section [[clusters]]"), "{}", configured.message());
    let unknown = update(managed::UpdateClusterRequest { cluster_id: "nowhere".into(), ..request(&["name"]) }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    service.stop().await;
}

/// Exit status, standard output and standard error of a run of the program.
async fn redkeep(service: &Service, arguments: &[&str]) -> (i32, String, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_redkeep"));
    let command = command.args(arguments).env("NO_COLOR", "1").env("REDKEEP_ENDPOINT", &service.endpoint).kill_on_drop(true);
    let output = tokio::time::timeout(OPERATION, command.output()).await.expect("it ends").unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn plans_and_policies_on_the_command_line() {
    let service = service().await;
    let (code, _, err) = redkeep(&service, &["cluster", "update", "shop", "--window", "22:00", "--retain-days", "7", "--label", "team=shop", "--wait"]).await;
    assert_eq!(code, 0, "{err}");
    let (_, out, _) = redkeep(&service, &["cluster", "get", "shop"]).await;
    assert!(out.contains("daily from 22:00 UTC on") && out.contains("7 days, scheduled ones") && out.contains("team=shop"), "{out}");
    let (code, _, err) = redkeep(&service, &["cluster", "update", "shop", "--window", "none", "--wait"]).await;
    assert_eq!(code, 0, "{err}");
    let (_, out, _) = redkeep(&service, &["cluster", "get", "shop"]).await;
    assert!(out.contains("no daily backup") && out.contains("7 days"), "{out}");
    let (code, _, err) = redkeep(&service, &["cluster", "update", "main", "--window", "none"]).await;
    assert!(code == 4 && err.contains("[[clusters]]"), "{err}");

    let create = ["policy", "create", "shop", "--name", "monthly", "--days-of-month", "1", "--retain-days", "365", "--description", "for auditors", "--wait"];
    let (code, out, err) = redkeep(&service, &create).await;
    assert!(code == 0 && out.contains("Create a retention policy"), "{out}{err}");
    let (code, _, err) = redkeep(&service, &create).await;
    assert!(code == 4 && err.contains("named \"monthly\" already"), "{code} {err}");
    let (_, out, _) = redkeep(&service, &["policy", "list", "--cluster", "shop", "-o", "json"]).await;
    let listed: Value = serde_json::from_str(&out).unwrap();
    let id = listed["policies"][0]["policyId"].as_str().unwrap();
    let (_, out, _) = redkeep(&service, &["policy", "list"]).await;
    assert!(out.contains(id) && out.contains("365 days") && out.contains("weekly") && out.contains("for auditors"), "{out}");
    let (code, _, err) = redkeep(&service, &["policy", "delete", "shop", id, "--wait"]).await;
    assert_eq!(code, 0, "{err}");
    let (code, _, _) = redkeep(&service, &["policy", "delete", "shop", id]).await;
    assert_eq!(code, 3);
    service.stop().await;
}
