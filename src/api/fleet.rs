//! The check of a cluster: what would a backup meet, in plain words.

use super::{Api, convert, request, status};
use crate::cluster::{ONLY_SHARD, Role};
use crate::fleet::Check;
use crate::operation::{Operation, State};
use crate::pb::own;
use crate::pb::own::finding::Severity;
use crate::redis::source::{self, Rules};
use crate::redis::topology::Seen;
use crate::store::OperationFilter;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl own::fleet_service_server::FleetService for Api {
    async fn check_cluster(&self, request: Request<own::CheckClusterRequest>) -> Result<Response<own::CheckClusterResponse>, Status> {
        let (grant, request) = request::reading(request)?;
        let id = request.cluster_id;
        let cluster = self.cluster(&grant, &id)?;
        let rules = cluster.rules();
        let answer = match self.executor.fleet().check(&cluster).await {
            Ok(check) => {
                let latest = self.executor.store().list(&OperationFilter::Cluster(cluster.id.clone()), None, 1).await;
                let latest = latest.map_err(|error| status::store(error, "cluster", &id))?;
                report(&id, &check, &rules, latest.first())
            }
            Err(fault) => {
                let finding = finding(Severity::Error, "", fault.to_string(), "mend the configuration of the cluster");
                own::CheckClusterResponse {
                    cluster_id: id,
                    ready: false,
                    summary: "the cluster cannot be logged in to".to_owned(),
                    findings: vec![finding],
                    hosts: Vec::new(),
                }
            }
        };
        Ok(Response::new(answer))
    }
}

fn finding(severity: Severity, host: &str, message: impl Into<String>, remedy: &str) -> own::Finding {
    own::Finding { severity: severity as i32, host_name: host.to_owned(), message: message.into(), remedy: remedy.to_owned() }
}

fn report(id: &str, check: &Check, rules: &Rules, latest: Option<&Operation>) -> own::CheckClusterResponse {
    let mut findings = Vec::new();
    let source = check.source.as_ref();
    // Where there is a source, a host that is not fit costs safety; where there is none, it is the reason.
    let severity = if source.is_some() { Severity::Warning } else { Severity::Error };
    for (host, objection) in &check.objections {
        findings.push(finding(severity, host, objection.to_string(), ""));
    }
    for barred in &check.barred {
        let expected = source.is_some() && barred.bar == source::Bar::Role;
        if !expected {
            findings.push(finding(severity, &barred.host, barred.reason.clone(), &barred.remedy));
        }
    }
    if let Some((target, facts)) = source {
        if facts.role == Role::Primary && check.topology.has_replicas() {
            findings.push(finding(
                Severity::Warning,
                &target.name,
                "the primary itself would fork, although there are replicas",
                "mend a replica, or take back allow_primary",
            ));
        }
        if source::memory_of(&target.name, facts, rules) == 0 {
            findings.push(finding(
                Severity::Warning,
                &target.name,
                "its host's memory is not known, so room for the fork cannot be checked",
                "declare memory_limit for the node",
            ));
        }
        if facts.child_running {
            findings.push(finding(Severity::Info, &target.name, "a save or rewrite is running there, so the snapshot would begin after it", ""));
        }
    }
    if let Some(operation) = latest
        && operation.spec.is_exclusive()
        && matches!(operation.state, State::Queued { .. } | State::Running { .. } | State::Cancelling { .. })
    {
        findings.push(finding(
            Severity::Info,
            "",
            format!("operation {} works on the cluster; another backup is refused until it has ended", operation.id),
            "",
        ));
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let summary = match source {
        Some((target, facts)) => format!(
            "a backup would be taken from {}, a {} with {} keys and {} bytes of memory in use",
            target.name,
            convert::role(facts.role),
            facts.keys,
            facts.used_memory_bytes
        ),
        None => "a backup would fail: no host can be the source".to_owned(),
    };
    let chosen = source.map(|(target, _)| target.name.as_str());
    let hosts = check.topology.hosts.iter().map(|seen| host(seen, check, rules, chosen)).collect();
    own::CheckClusterResponse { cluster_id: id.to_owned(), ready: source.is_some(), summary, findings, hosts }
}

fn host(seen: &Seen, check: &Check, rules: &Rules, chosen: Option<&str>) -> own::HostCheck {
    let name = seen.target.name.clone();
    let is_chosen = chosen == Some(name.as_str());
    let barred = check.barred.iter().find(|barred| barred.host == name).map(|barred| barred.reason.clone());
    let objection = check.objections.iter().find(|(host, _)| *host == name).map(|(_, objection)| objection.to_string());
    let reason = match (is_chosen, barred.or(objection)) {
        (true, _) => String::new(),
        (false, Some(reason)) => reason,
        (false, None) => "another host is the better source".to_owned(),
    };
    let facts = seen.facts.as_ref().ok();
    own::HostCheck {
        shard_name: ONLY_SHARD.to_owned(),
        role: convert::role(facts.map_or(Role::Unknown, |facts| facts.role)).to_owned(),
        reachable: facts.is_some(),
        engine: facts.map(|facts| facts.engine.as_str().to_owned()).unwrap_or_default(),
        version: facts.map(|facts| facts.version.to_string()).unwrap_or_default(),
        chosen: is_chosen,
        used_memory_bytes: facts.map_or(0, |facts| i64::try_from(facts.used_memory_bytes).unwrap_or(i64::MAX)),
        memory_bytes: facts.map_or(0, |facts| i64::try_from(source::memory_of(&name, facts, rules)).unwrap_or(i64::MAX)),
        keys: facts.map_or(0, |facts| i64::try_from(facts.keys).unwrap_or(i64::MAX)),
        lag_seconds: facts.filter(|facts| facts.role == Role::Replica).map_or(0, |facts| facts.last_io_secs.max(0)),
        reason,
        name,
    }
}
