//! The rules through the doors: the calls, the roles, the audit log, the command line.

use super::{SOON, change, plan};
use crate::copy::copy;
use crate::support::answers::{bare, response};
use crate::support::http::ask;
use crate::support::scripted::ScriptedRedis;
use crate::support::server::RedisServer;
use crate::support::service::{Clients, OPERATION, Setup, error_of};
use crate::support::until;
use redkeep::pb::own;
use redkeep::pb::own::expiry_plan::Fate;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use tonic::Code;

/// The lines of the audit log, oldest first.
fn lines(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("audit.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn update(clients: &Clients, request: own::UpdateBackupRequest) -> own::Backup {
    let operation = bare(clients.backups.clone().update(request).await).unwrap();
    response(&clients.ended(&operation.id, OPERATION).await)
}

/// Lets a backup end in a moment, and waits until it has.
async fn ends_now(clients: &Clients, id: &str) {
    let end = chrono::Utc::now() + chrono::TimeDelta::seconds(2);
    let stamp = prost_types::Timestamp { seconds: end.timestamp(), nanos: 0 };
    update(clients, own::UpdateBackupRequest { expires_at: Some(stamp), ..change(id, "expires_at") }).await;
    until("its age is over", SOON, async || (chrono::Utc::now().timestamp() >= stamp.seconds).then_some(())).await;
}

async fn expire(clients: &Clients, cluster: &str) -> Result<Vec<own::ExpiryPlan>, tonic::Status> {
    Ok(bare(clients.backups.clone().expire(own::ExpireBackupsRequest { cluster_id: cluster.into() }).await)?.plans)
}

fn fates(plans: &[own::ExpiryPlan]) -> Vec<(&str, Fate)> {
    plans.iter().map(|plan| (plan.backup_name.as_str(), plan.fate())).collect()
}

#[tokio::test]
async fn the_plan_is_told_and_carried_out() {
    let source = ScriptedRedis::willing().await;
    let setup = Setup::new().executor("delete_grace", "\"1h\"").cluster("main", &[&source.address()], "").cluster("bare", &["127.0.0.1:1"], "");
    let service = setup.sections("[retention]\nenabled = false\n").start().await;
    let clients = &service.clients;
    let first = clients.take("main", "first").await;
    clients.take("main", "second").await;
    ends_now(clients, &first.id).await;
    let told = plan(clients).await;
    assert_eq!(fates(&told), [("second", Fate::Keep), ("first", Fate::Expire)]);
    assert!(told[1].reason.starts_with("its age was over at ") && told[1].operation_id.is_empty() && told[1].ends_at.is_some(), "{told:?}");
    // REST tells the same, and so does the command line.
    let rest = ask(service.address(), &["GET /redkeep/v1/expiryPlan?clusterId=main HTTP/1.1", "Host: localhost"], &[]).await;
    let rest: Value = serde_json::from_slice(&rest.body).unwrap();
    assert_eq!((&rest["plans"][1]["fate"], &rest["plans"][1]["backupName"]), (&"EXPIRE".into(), &"first".into()));
    let run = async |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_redkeep"));
        command.args(["backup", "expire", "main", "--endpoint", &service.endpoint]).args(words).env("NO_COLOR", "1");
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let table = run(&["--dry-run"]).await;
    let rows: Vec<&str> = table.lines().collect();
    assert!(rows[0].starts_with("ID") && rows[1].contains("second") && rows[1].contains("KEEP") && rows[1].contains("it has no end"), "{table}");
    assert!(rows[2].contains("first") && rows[2].contains("EXPIRE") && rows[2].contains("its age was over"), "{table}");
    assert_eq!(clients.backup(&first.id).await.unwrap().state(), own::backup::State::Available, "nothing was changed");

    let table = run(&[]).await;
    assert!(table.lines().nth(2).is_some_and(|row| row.contains("EXPIRE")), "{table}");
    let gone =
        async || clients.backup(&first.id).await.ok().filter(|backup| backup.state() == own::backup::State::Deleting && backup.busy_operation_id.is_empty());
    let gone = until("it is deleted", SOON, gone).await;
    assert_eq!(fates(&plan(clients).await), [("second", Fate::Keep), ("first", Fate::Deleted)]);
    assert!(gone.purge_at.is_some());
    // Who asked has a line; the cluster of another folder, and one that nobody knows, are not there.
    let audit = lines(service.setup.folder());
    let line = audit.iter().find(|line| line["method"] == "redkeep.v1.BackupService/Expire").unwrap();
    assert_eq!((&line["target"], &line["outcome"], &line["folder"]), (&"clusters/main".into(), &"OK".into(), &"default".into()));
    assert_eq!((expire(clients, "none").await.unwrap_err().code(), fates(&expire(clients, "bare").await.unwrap())), (Code::NotFound, vec![]));
    let setup = service.stop().await;
    // A cluster that is not known any more keeps its backups, and the rules go on for them.
    let service = setup.without_clusters().start().await;
    assert_eq!(fates(&plan(&service.clients).await), [("second", Fate::Keep), ("first", Fate::Deleted)]);
    service.stop().await;
}

/// Goal: what the service deletes by itself is an operation and an audit line like any other. Method: a round of the real service.
#[tokio::test]
async fn deletions_of_the_service_are_audited() {
    let source = ScriptedRedis::willing().await;
    let setup = Setup::new().executor("delete_grace", "\"1h\"").cluster("main", &[&source.address()], "");
    let service = setup.sections("[retention]\nperiod = \"1s\"\nsettle = \"0s\"\n").start().await;
    let clients = &service.clients;
    let first = clients.take("main", "first").await;
    clients.take("main", "second").await;
    ends_now(clients, &first.id).await;
    until("it goes", SOON, async || clients.backup(&first.id).await.ok().filter(|backup| backup.state() == own::backup::State::Deleting)).await;
    let line = until("its line is written", SOON, async || lines(service.setup.folder()).into_iter().find(|line| line["subject"] == "redkeep/retention")).await;
    assert_eq!((&line["method"], &line["folder"], &line["outcome"]), (&"redkeep.retention/Expire".into(), &"default".into(), &"OK".into()));
    assert_eq!((&line["target"], line["peer"].is_null()), (&format!("backups/{}", first.id).into(), true));
    let operation = clients.ended(line["operation"].as_str().unwrap(), OPERATION).await;
    assert_eq!(operation.created_by, "redkeep/retention");
    assert!(error_of(&operation).is_none());
    service.stop().await;
}

/// Goal: a suspect backup stops everything until a person has cleared it, which leaves a word of its own in the audit log; a copy of
/// it is cleared as well. Method: a real source that is emptied.
#[tokio::test]
async fn a_suspect_backup_stops_the_rules_until_it_is_cleared() {
    let server = RedisServer::start().await;
    server.command(&["DEBUG", "POPULATE", "100", "order"]).await;
    let setup = Setup::new().executor("delete_grace", "\"1h\"").cluster("main", &[&server.address()], "");
    let service = setup.sections("[retention]\nenabled = false\n").start().await;
    let clients = &service.clients;
    let first = clients.take("main", "first").await;
    clients.take("main", "second").await;
    ends_now(clients, &first.id).await;
    server.command(&["FLUSHALL"]).await;
    let suspect = clients.take("main", "suspect").await;
    assert!(suspect.suspicion.is_some());
    let told = expire(clients, "main").await.unwrap();
    assert_eq!(fates(&told), [("suspect", Fate::Keep), ("second", Fate::Keep), ("first", Fate::Keep)]);
    assert!(told[2].reason.contains(&suspect.id) && told[2].reason.contains("is suspect"), "{told:?}");

    let cleared = update(clients, own::UpdateBackupRequest { backup_id: suspect.id.clone(), clear_suspect: true, ..Default::default() }).await;
    let operation = copy(clients, &suspect.id, "copy").await.unwrap();
    let copied: own::Backup = response(&clients.ended(&operation.id, OPERATION).await);
    assert!(cleared.suspicion.as_ref().is_some_and(|suspicion| suspicion.cleared_at.is_some() && suspicion.cleared_by == "anonymous"));
    assert_eq!(copied.suspicion, cleared.suspicion, "a copy keeps who cleared it");
    let manifest: Value = serde_json::from_slice(&std::fs::read(service.setup.artifact_root().join(&copied.path).join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["suspicion"]["cleared"]["by"], "anonymous");

    assert_eq!(expire(clients, "main").await.unwrap().last().map(|plan| (plan.fate(), plan.operation_id.is_empty())), Some((Fate::Expire, false)));
    let audit = lines(service.setup.folder());
    let updates: Vec<_> = audit.iter().filter(|line| line["method"] == "redkeep.v1.BackupService/Update").map(|line| line["clear_suspect"].clone()).collect();
    assert_eq!(updates, [Value::Null, Value::Bool(true)]);
    service.stop().await;
}
