//! Goal: what an operator watches is exported under the names that the documentation, the dashboard and the rules use, and
//! the numbers are right. Method: a service in this process and its second port.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

use crate::support::rdb_bytes::Dump;
use crate::support::scripted::{Act, MARKER, ScriptedRedis, full_sync_marker, marker_head};
use crate::support::service::{OPERATION, Service, Setup, error_of};
use crate::support::until;
use redkeep::pb::{managed, own};
use redkeep::telemetry::metrics::{FAMILIES, Family};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SOON: Duration = Duration::from_secs(30);

const DOCUMENTED: &str = include_str!("../../docs/metrics.md");
const DASHBOARD: &str = include_str!("../../docs/grafana/redkeep.json");
const RULES: &str = include_str!("../../docs/prometheus/alerts.yml");

/// What a service exports.
struct Scrape(String);

impl Scrape {
    async fn of(service: &Service) -> Self {
        let mut stream = TcpStream::connect(&service.admin).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.to_ascii_lowercase().contains("content-type: text/plain; version=0.0.4"), "{head}");
        Self(body.to_owned())
    }

    /// The names of its families, each with its type.
    fn families(&self) -> BTreeSet<(&str, &str)> {
        let types: Vec<_> = self.0.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
        let distinct: BTreeSet<_> = types.iter().copied().collect();
        assert_eq!(types.len(), distinct.len(), "a family stands twice");
        distinct
    }

    /// The value of one series, written as it is exported; 0 when there is none.
    fn value(&self, series: &str) -> f64 {
        let found = self.0.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
        found.unwrap_or(0.0)
    }
}

/// Every name of ours in a text, without the endings that a histogram's series have.
fn named(text: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_lowercase() || c == '_';
    let starts = text.match_indices("redkeep_").map(|(at, _)| &text[at..]);
    let names = starts.map(|rest| &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())]);
    names.map(|name| ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)).collect()
}

#[tokio::test]
async fn what_is_documented_is_what_is_exported() {
    let source = ScriptedRedis::willing().await;
    let service = Setup::new().cluster("main", &[&source.address()], "").start().await;
    service.clients.take("main", "first").await;
    let scrape = Scrape::of(&service).await;

    let declared: BTreeSet<(&str, &str)> = FAMILIES.iter().map(|family| (family.name, family.kind.as_str())).collect();
    assert_eq!(scrape.families(), declared);
    for Family { name, kind, labels, help } in FAMILIES {
        let labels = labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        let row = format!("| `{name}` | {} | {labels} | {help} |", kind.as_str());
        assert!(DOCUMENTED.lines().any(|line| line == row), "docs/metrics.md lacks the row\n{row}");
    }
    assert_eq!(DOCUMENTED.lines().filter(|line| line.starts_with("| `")).count(), FAMILIES.len(), "docs/metrics.md has a row too many");

    let names: BTreeSet<&str> = declared.iter().map(|(name, _)| *name).collect();
    for (file, text, least) in [("the dashboard", DASHBOARD, 20), ("the rules", RULES, 8)] {
        let used = named(text);
        assert!(used.len() >= least, "{file}: {used:?}");
        assert!(used.is_subset(&names), "{file}: {:?}", used.difference(&names));
    }
    service.stop().await;
}

#[test]
fn the_dashboard_can_be_imported() {
    // Method: what Grafana's import refuses or shows wrongly: panels of one id or in one place, a source that is not asked for.
    let board: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = board["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    let mut places = BTreeSet::new();
    for panel in panels {
        let side = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        for (x, y) in (side("x")..side("x") + side("w")).flat_map(|x| (side("y")..side("y") + side("h")).map(move |y| (x, y))) {
            assert!(x < 24 && places.insert((x, y)), "{} lies on another panel", panel["title"]);
        }
        for target in panel["targets"].as_array().into_iter().flatten() {
            assert_eq!(target["datasource"]["uid"], "${datasource}");
            let expression = target["expr"].as_str().unwrap();
            assert_eq!(expression.matches('(').count(), expression.matches(')').count(), "{expression}");
        }
    }
    let variables: Vec<_> = board["templating"]["list"].as_array().unwrap().iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(variables, ["datasource", "job"]);
}

#[tokio::test]
async fn a_backup_is_seen_in_the_numbers() {
    let source = ScriptedRedis::willing().await;
    let service = Setup::new().cluster("main", &[&source.address()], "").cluster("bare", &["127.0.0.1:1"], "folder_id = \"shop\"").start().await;
    let before = Scrape::of(&service).await;
    assert_eq!(before.value("redkeep_last_backup_timestamp_seconds{folder=\"default\",cluster=\"main\"}"), 0.0);
    let backup = service.clients.take("main", "first").await;
    // What was looked up serves for a second.
    let scrape = until("the gauges are looked up anew", SOON, async || {
        let scrape = Scrape::of(&service).await;
        (scrape.value("redkeep_last_backup_timestamp_seconds{folder=\"default\",cluster=\"main\"}") > 0.0).then_some(scrape)
    })
    .await;
    let (size, stored) = (backup.size_bytes as f64, backup.stored_bytes as f64);
    let started = backup.started_at.unwrap();
    for (series, value) in [
        ("redkeep_calls_total{method=\"redkeep.v1.BackupService/Create\",code=\"OK\"}", 1.0),
        ("redkeep_call_duration_seconds_count{method=\"redkeep.v1.BackupService/Create\"}", 1.0),
        ("redkeep_operations_ended_total{kind=\"create_backup\",outcome=\"succeeded\"}", 1.0),
        ("redkeep_operations_ended_total{kind=\"create_backup\",outcome=\"failed\"}", 0.0),
        ("redkeep_forks_total{attempt=\"first\"}", 1.0),
        ("redkeep_forks_total{attempt=\"repeated\"}", 0.0),
        ("redkeep_snapshot_bytes_total{form=\"decoded\"}", size),
        ("redkeep_snapshot_bytes_total{form=\"stored\"}", stored),
        ("redkeep_step_duration_seconds_count{step=\"preflight\"}", 1.0),
        ("redkeep_step_duration_seconds_count{step=\"snapshot\"}", 1.0),
        ("redkeep_step_duration_seconds_count{step=\"seal\"}", 1.0),
        ("redkeep_step_duration_seconds_count{step=\"publish\"}", 1.0),
        ("redkeep_last_proved_backup_timestamp_seconds{folder=\"default\",cluster=\"main\"}", 0.0),
        ("redkeep_audit_lines_total", 1.0),
        ("redkeep_store_ready", 1.0),
        ("redkeep_ready", 1.0),
        ("redkeep_clusters", 2.0),
        ("redkeep_queue_limit", 10_000.0),
        ("redkeep_calls_in_flight", 0.0),
    ] {
        assert_eq!(scrape.value(series), value, "{series} in\n{}", scrape.0);
    }
    let newest = scrape.value("redkeep_last_backup_timestamp_seconds{folder=\"default\",cluster=\"main\"}");
    assert!((newest - (started.seconds as f64 + f64::from(started.nanos) / 1e9)).abs() < 0.01, "{newest}");
    assert!(scrape.0.contains("redkeep_last_backup_timestamp_seconds{folder=\"shop\",cluster=\"bare\"} 0"));
    assert!(scrape.0.contains(&format!("redkeep_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"))));
    service.stop().await;
}

#[tokio::test]
async fn what_goes_wrong_is_seen_in_the_numbers() {
    // Method: a source whose first snapshot breaks off; then a cluster where nobody answers, cancelled while it is queued again.
    let cut = vec![Act::FullResync, Act::Send(marker_head(MARKER)), Act::Send(Dump::sample().cut(1000))];
    let source = ScriptedRedis::start(vec![cut, full_sync_marker(Dump::sample().bytes, MARKER)]).await;
    let service = Setup::new().cluster("main", &[&source.address()], "").cluster("away", &["127.0.0.1:1"], "").start().await;
    service.clients.take("main", "first").await;
    let away = service.clients.create("away", "second").await.unwrap();
    let waiting = until("its first attempt fails", SOON, async || {
        let scrape = Scrape::of(&service).await;
        let queued = scrape.value("redkeep_operations{kind=\"create_backup\",state=\"queued\"}");
        (queued == 1.0 && scrape.value("redkeep_attempt_retries_total{reason=\"SOURCE_UNREACHABLE\"}") >= 1.0).then_some(scrape)
    })
    .await;
    assert_eq!(waiting.value("redkeep_queue_length"), 1.0);
    assert!(waiting.value("redkeep_oldest_operation_age_seconds") > 0.0);
    assert_eq!(waiting.value("redkeep_attempt_retries_total{reason=\"SNAPSHOT_CUT\"}"), 1.0);
    assert_eq!((waiting.value("redkeep_forks_total{attempt=\"first\"}"), waiting.value("redkeep_forks_total{attempt=\"repeated\"}")), (1.0, 1.0));
    assert!(waiting.value("redkeep_collector_deleted_files_total{of=\"attempt\"}") >= 1.0);

    let request = redkeep::pb::operation::CancelOperationRequest { operation_id: away.id.clone() };
    service.clients.operations.clone().cancel(request).await.unwrap();
    assert_eq!(error_of(&service.clients.ended(&away.id, OPERATION).await).unwrap().code, 1);
    let unknown = service.clients.backup("01890000-0000-7000-8000-000000000000").await.unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::NotFound);
    service.clients.clusters.clone().start(managed::StartClusterRequest { cluster_id: "main".into() }).await.unwrap_err();
    let ended = until("its end is counted", SOON, async || {
        let scrape = Scrape::of(&service).await;
        (scrape.value("redkeep_operations_ended_total{kind=\"create_backup\",outcome=\"cancelled\"}") == 1.0).then_some(scrape)
    })
    .await;
    assert_eq!(ended.value("redkeep_operations{kind=\"create_backup\",state=\"queued\"}"), 0.0);
    assert_eq!(ended.value("redkeep_calls_total{method=\"redkeep.v1.BackupService/Get\",code=\"NOT_FOUND\"}"), 1.0);
    assert_eq!(ended.value("redkeep_calls_total{method=\"yandex.cloud.mdb.redis.v1.ClusterService/Start\",code=\"UNIMPLEMENTED\"}"), 1.0);
    service.stop().await;
}

#[tokio::test]
async fn paths_and_names_of_callers_make_no_series() {
    // Goal: nobody can fill the memory of those who watch. Method: many paths that are no calls, many ids that are no clusters.
    let source = ScriptedRedis::willing().await;
    let service = Setup::new().cluster("main", &[&source.address()], "").start().await;
    for number in 0..20 {
        let mut stream = TcpStream::connect(service.endpoint.trim_start_matches("http://")).await.unwrap();
        let request = format!("POST /nonsense/{number} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.read_to_string(&mut String::new()).await.unwrap();
        service.clients.create(&format!("nonsense{number}"), "first").await.unwrap_err();
    }
    let list = own::ListBackupsRequest { folder_id: "nonsense".into(), ..Default::default() };
    service.clients.backups.clone().list(list).await.unwrap();
    let scrape = Scrape::of(&service).await;
    assert!(!scrape.0.contains("nonsense"), "{}", scrape.0);
    assert_eq!(scrape.value("redkeep_calls_total{method=\"redkeep.v1.BackupService/Create\",code=\"NOT_FOUND\"}"), 20.0);
    assert_eq!(scrape.value("redkeep_calls_total{method=\"unknown\",code=\"UNIMPLEMENTED\"}"), 20.0);
    service.stop().await;
}
