//! `redkeep cluster`: what the service knows of a cluster, and whether a backup of it would work.

use super::client::Session;
use super::error::{Error, Exit};
use super::table::{self, Facts, Grid};
use super::{ClusterCommand, Output, adopt, json, local, plan, print, text};
use crate::pb::{managed, own};
use chrono::{DateTime, Utc};
use managed::{Cluster, Host};
use own::CheckClusterResponse;
use tonic::Response;

/// Carries out a command on clusters.
pub(super) async fn run(session: &Session, command: ClusterCommand) -> Result<(), Error> {
    match command {
        ClusterCommand::List(args) => list(session, args.rows).await,
        ClusterCommand::Get(args) => get(session, args.id).await,
        ClusterCommand::Check(args) => check(session, args.id).await,
        ClusterCommand::Adopt(args) => adopt::adopt(session, args).await,
        ClusterCommand::UpdateConnection(args) => adopt::update_connection(session, args).await,
        ClusterCommand::Update(args) => plan::update(session, args).await,
        ClusterCommand::Forget(args) => adopt::forget(session, args).await,
        ClusterCommand::Restore(args) => local::restore(session, args).await,
        ClusterCommand::Delete(args) => local::delete(session, args).await,
    }
}

async fn list(session: &Session, rows: usize) -> Result<(), Error> {
    let list = session
        .pages(rows, |page_size, page_token| {
            let mut client = session.clusters();
            let request = managed::ListClustersRequest { folder_id: session.folder.clone(), page_size, page_token, filter: String::new() };
            async move {
                let page = client.list(request).await?.into_inner();
                Ok(Response::new((page.clusters, page.next_page_token)))
            }
        })
        .await?;
    match session.output {
        Output::Json => print::value(&json::list("clusters", &list.rows)?)?,
        Output::Table => print::answer(&rows_text(&list.rows, Utc::now()))?,
    }
    if list.is_cut {
        print::note("there are more; --limit 0 shows all");
    }
    Ok(())
}

async fn get(session: &Session, id: String) -> Result<(), Error> {
    let cluster = session.call(session.clusters().get(managed::GetClusterRequest { cluster_id: id.clone() })).await?;
    let hosts = session
        .pages(0, |page_size, page_token| {
            let mut client = session.clusters();
            let request = managed::ListClusterHostsRequest { cluster_id: id.clone(), page_size, page_token };
            async move {
                let page = client.list_hosts(request).await?.into_inner();
                Ok(Response::new((page.hosts, page.next_page_token)))
            }
        })
        .await?;
    match session.output {
        Output::Json => {
            let mut shown = json::message(&cluster)?;
            shown["hosts"] = json::list("hosts", &hosts.rows)?["hosts"].take();
            print::value(&shown)
        }
        Output::Table => print::answer(&format!("{}\n\n{}", facts(&cluster, Utc::now()), hosts_text(&hosts.rows))),
    }
}

async fn check(session: &Session, cluster_id: String) -> Result<(), Error> {
    let found = session.call(session.fleet().check_cluster(own::CheckClusterRequest { cluster_id })).await?;
    match session.output {
        Output::Json => print::value(&json::message_with(&found, "ready", found.ready)?)?,
        Output::Table => print::answer(&check_text(&found))?,
    }
    if found.ready { Ok(()) } else { Err(Error::new(Exit::Refused, format!("cluster {} is not ready for a backup", text::escape(&found.cluster_id)))) }
}

fn rows_text(clusters: &[Cluster], now: DateTime<Utc>) -> String {
    let mut grid = Grid::new(&["ID", "NAME", "STATUS", "HEALTH", "VERSION", "SHARDED", "CREATED", "AGE"]);
    for cluster in clusters {
        let created = text::instant(cluster.created_at.as_ref());
        grid.row([
            text::escape(&cluster.id).into(),
            text::or_dash(&cluster.name).into(),
            table::state(table::known(cluster.status().as_str_name())),
            table::state(table::known(cluster.health().as_str_name())),
            version(cluster).into(),
            if cluster.sharded { "yes" } else { "no" }.into(),
            text::time(created).into(),
            text::age(created, now).into(),
        ]);
    }
    grid.text()
}

fn facts(cluster: &Cluster, now: DateTime<Utc>) -> String {
    let mut facts = Facts::new();
    facts.add("Cluster", text::escape(&cluster.id));
    facts.add("Name", text::or_dash(&cluster.name));
    facts.add_some("Description", (!cluster.description.is_empty()).then(|| text::escape(&cluster.description)));
    facts.add("Folder", text::or_dash(&cluster.folder_id));
    facts.add("Status", table::state(table::known(cluster.status().as_str_name())));
    facts.add("Health", table::state(table::known(cluster.health().as_str_name())));
    facts.add("Version", version(cluster));
    facts.add("Sharded", if cluster.sharded { "yes" } else { "no" });
    facts.add("TLS", if cluster.tls_enabled { "yes" } else { "no" });
    let config = cluster.config.clone().unwrap_or_default();
    let window = config.backup_window_start.map(|time| format!("daily from {:02}:{:02} UTC on", time.hours, time.minutes));
    facts.add("Backups", window.unwrap_or_else(|| "no daily backup".to_owned()));
    facts.add_some("Kept", config.backup_retain_period_days.map(|days| format!("{days} days, scheduled ones")));
    facts.add("Labels", text::labels(&cluster.labels));
    facts.add("Created", text::time_and_distance(text::instant(cluster.created_at.as_ref()), now));
    facts.text()
}

fn hosts_text(hosts: &[Host]) -> String {
    if hosts.is_empty() {
        return "no hosts are known; look at them with: redkeep cluster check CLUSTER".to_owned();
    }
    let mut grid = Grid::new(&["HOST", "SHARD", "ROLE", "HEALTH", "ZONE"]);
    for host in hosts {
        grid.row([
            text::escape(&host.name).into(),
            text::or_dash(&host.shard_name).into(),
            table::known(host.role().as_str_name()).into(),
            table::state(table::known(host.health().as_str_name())),
            text::or_dash(&host.zone_id).into(),
        ]);
    }
    grid.text()
}

fn version(cluster: &Cluster) -> String {
    let config = cluster.config.as_ref();
    let full = config.map_or("", |config| if config.full_version.is_empty() { &config.version } else { &config.full_version });
    text::or_dash(full)
}

fn check_text(found: &CheckClusterResponse) -> String {
    let mut told = Facts::new();
    told.add("Cluster", text::escape(&found.cluster_id));
    told.add("Backup", table::state(if found.ready { "READY" } else { "NOT READY" }));
    told.add("Summary", text::or_dash(&found.summary));
    let mut told = told.text();
    for finding in &found.findings {
        let host = if finding.host_name.is_empty() { String::new() } else { format!("{}: ", text::escape(&finding.host_name)) };
        told += &format!("\n\n{}  {host}{}", table::known(finding.severity().as_str_name()), text::escape(&finding.message));
        if !finding.remedy.is_empty() {
            told += &format!("\n  what to do: {}", text::escape(&finding.remedy));
        }
    }
    if found.hosts.is_empty() {
        return told;
    }
    let mut grid = Grid::new(&["HOST", "SHARD", "ROLE", "ANSWERS", "ENGINE", "MEMORY", "KEYS", "LAG", "SOURCE"]);
    for host in &found.hosts {
        let engine = format!("{} {}", text::escape(&host.engine), text::escape(&host.version));
        let memory = match (host.reachable, host.memory_bytes) {
            (false, _) => "-".to_owned(),
            (true, 0) => text::size(host.used_memory_bytes),
            (true, all) => format!("{} of {}", text::size(host.used_memory_bytes), text::size(all)),
        };
        let source = match (host.chosen, host.reason.as_str()) {
            (true, _) => "yes".to_owned(),
            (false, "") => "no".to_owned(),
            (false, reason) => format!("no: {}", text::escape(reason)),
        };
        grid.row([
            text::escape(&host.name).into(),
            text::or_dash(&host.shard_name).into(),
            text::or_dash(&host.role).into(),
            table::state(if host.reachable { "yes" } else { "no" }),
            text::or_dash(engine.trim()).into(),
            memory.into(),
            if host.reachable { text::count(host.keys) } else { "-".to_owned() }.into(),
            if host.role == "replica" && host.reachable { format!("{}s", host.lag_seconds) } else { "-".to_owned() }.into(),
            source.into(),
        ]);
    }
    format!("{told}\n\n{}", grid.text())
}

#[cfg(test)]
mod tests {
    use super::*;
    use own::finding::Severity;
    use own::{Finding, HostCheck};

    #[test]
    fn a_check_says_what_to_do() {
        let finding = Finding {
            severity: Severity::Error.into(),
            host_name: "a:6379".to_owned(),
            message: "no permission\x1b".to_owned(),
            remedy: "ACL SETUSER backup +psync".to_owned(),
        };
        let replica = HostCheck {
            name: "b:6379".to_owned(),
            shard_name: "shard1".to_owned(),
            role: "replica".to_owned(),
            reachable: true,
            engine: "redis".to_owned(),
            version: "7.2.5".to_owned(),
            used_memory_bytes: 1 << 30,
            memory_bytes: 4 << 30,
            keys: 1000,
            lag_seconds: 1,
            reason: "account lacks a right".to_owned(),
            ..Default::default()
        };
        let gone = HostCheck { name: "a:6379".to_owned(), role: "unknown".to_owned(), ..Default::default() };
        let told = check_text(&CheckClusterResponse {
            cluster_id: "main".to_owned(),
            summary: "a backup would fail".to_owned(),
            findings: vec![finding],
            hosts: vec![gone, replica],
            ..Default::default()
        });
        for part in ["Backup   NOT READY", "ERROR  a:6379: no permission\\u{1b}\n  what to do: ACL SETUSER backup +psync"] {
            assert!(told.contains(part), "{part} is not in\n{told}");
        }
        let last = told.lines().last().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(last, "b:6379 shard1 replica yes redis 7.2.5 1.0 GiB of 4.0 GiB 1,000 1s no: account lacks a right");
    }

    #[test]
    fn a_cluster_is_shown_with_what_is_known() {
        let cluster = Cluster { id: "main".to_owned(), status: managed::cluster::Status::Running.into(), ..Default::default() };
        let told = facts(&cluster, Utc::now());
        assert!(told.contains("Status   RUNNING") && told.contains("Health   -") && told.contains("Version  -"), "{told}");
        let row = rows_text(&[cluster], Utc::now());
        assert_eq!(row.lines().last().unwrap().split_whitespace().collect::<Vec<_>>().join(" "), "main - RUNNING - - no - -");
    }
}
