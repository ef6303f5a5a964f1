//! Clusters made known, changed and forgotten; and the check of one: what would a backup meet, in plain words.

use super::{Api, convert, request, status};
use crate::cluster::{IdError, Role, Trust};
use crate::executor::{Access, Adoption, Refused};
use crate::fleet::{BadRecord, Check, ShardCheck};
use crate::operation::{Operation, State};
use crate::pb::own::finding::Severity;
use crate::pb::{operation as wire, own};
use crate::redis::facts::Facts;
use crate::redis::rights::{Lacking, Need};
use crate::redis::source::{self, Rules};
use crate::redis::topology::Seen;
use crate::redis::{Address, Credentials, Password};
use crate::store::OperationFilter;
use tonic::{Request, Response, Status};

/// Most shards that a summary names.
const NAMED_SHARDS: usize = 8;

#[tonic::async_trait]
impl own::fleet_service_server::FleetService for Api {
    async fn adopt_cluster(&self, request: Request<own::AdoptClusterRequest>) -> Result<Response<wire::Operation>, Status> {
        let (grant, caller, request) = request::changing_secret(request, |request| self.conceal(&mut request.connection))?;
        if let Some(operation) = self.repeated(&grant, &caller).await? {
            return Ok(operation);
        }
        let id = Some(request.cluster_id).filter(|id| !id.is_empty());
        let adoption = Adoption {
            id: id.map(|id| id.parse()).transpose().map_err(|fault: IdError| status::invalid("cluster_id", fault.to_string()))?,
            folder_id: request::folder_id(&grant, &request.folder_id)?,
            name: Some(request.name).filter(|name| !name.is_empty()),
            description: request.description,
            labels: request::labels(request.labels),
            allow_primary: request.allow_primary,
            zone: Some(request.zone).filter(|zone| !zone.is_empty()),
            access: access(request.connection)?,
        };
        let operation = self.executor.adopt_cluster(adoption, caller).await.map_err(|refused| refusal(refused, ""))?;
        Ok(Response::new(convert::operation(&operation)))
    }

    async fn update_connection(&self, request: Request<own::UpdateConnectionRequest>) -> Result<Response<wire::Operation>, Status> {
        let (grant, caller, request) = request::changing_secret(request, |request| self.conceal(&mut request.connection))?;
        if let Some(operation) = self.repeated(&grant, &caller).await? {
            return Ok(operation);
        }
        let cluster = self.cluster(&grant, &request.cluster_id)?;
        let access = access(request.connection)?;
        let operation = self.executor.update_connection(&cluster, access, caller).await;
        let operation = operation.map_err(|refused| refusal(refused, &request.cluster_id))?;
        Ok(Response::new(convert::operation(&operation)))
    }

    async fn forget_cluster(&self, request: Request<own::ForgetClusterRequest>) -> Result<Response<wire::Operation>, Status> {
        let (grant, caller, request) = request::changing(request)?;
        if let Some(operation) = self.repeated(&grant, &caller).await? {
            return Ok(operation);
        }
        let cluster = self.cluster(&grant, &request.cluster_id)?;
        let operation = self.executor.forget_cluster(&cluster, caller).await.map_err(|refused| refusal(refused, &request.cluster_id))?;
        Ok(Response::new(convert::operation(&operation)))
    }

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
                let finding = finding(
                    Severity::Error,
                    "",
                    fault.to_string(),
                    "mend the configuration of the cluster, or give an adopted one its credentials anew with redkeep.v1.FleetService.UpdateConnection",
                );
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

impl Api {
    /// Puts a fingerprint in the place of the password. Without a key the call is refused for its password anyway.
    fn conceal(&self, connection: &mut Option<own::Connection>) {
        let key = self.executor.fleet().key();
        if let Some(credentials) = connection.as_mut().and_then(|connection| connection.credentials.as_mut()) {
            credentials.password = key.map(|key| key.fingerprint(&credentials.password)).unwrap_or_default();
        }
    }
}

/// Reads how a cluster is reached. A caller must not make the service open a local socket, nor send lines of the caller's
/// choice to whatever listens at an address.
fn access(connection: Option<own::Connection>) -> Result<Access, Status> {
    let connection = connection.ok_or_else(|| status::invalid("connection", "must be given"))?;
    let node = |(index, text): (usize, &String)| match text.parse() {
        Ok(address @ Address::Tcp { .. }) => Ok(address),
        Ok(Address::Unix(_)) | Err(_) => Err(status::invalid(&format!("connection.nodes[{index}]"), "must be `host:port` or `[ipv6]:port`")),
    };
    let nodes = connection.nodes.iter().enumerate().map(node).collect::<Result<_, _>>()?;
    let trust = match (connection.tls_ca.is_empty(), connection.tls) {
        (true, false) => None,
        (true, true) => Some(Trust::System),
        (false, _) => Some(Trust::Authorities(connection.tls_ca)),
    };
    Ok(Access { nodes, credentials: connection.credentials.map(|given| credentials("connection.credentials", given)).transpose()?, trust })
}

/// Reads credentials, which the request has in `field`.
pub(super) fn credentials(field: &str, credentials: own::Credentials) -> Result<Credentials, Status> {
    for (part, text) in [("username", &credentials.username), ("password", &credentials.password)] {
        if text.chars().any(char::is_control) {
            return Err(status::invalid(&format!("{field}.{part}"), "must not hold control characters"));
        }
    }
    let username = Some(credentials.username).filter(|username| !username.is_empty());
    let password = Some(credentials.password).filter(|password| !password.is_empty()).map(Password::new);
    if username.is_some() && password.is_none() {
        return Err(status::invalid(&format!("{field}.password"), "must be given beside a username"));
    }
    Ok(Credentials { username, password })
}

/// What a refused change of a cluster is on the wire.
fn refusal(refused: Refused, id: &str) -> Status {
    let message = refused.to_string();
    match refused {
        Refused::Configured(_) => status::precondition("CONFIGURED", id, message),
        Refused::NoKey => status::precondition("SECRETS", "[secrets] key_file", message),
        Refused::CredentialsMissing => status::invalid("connection.credentials", message),
        Refused::Record(BadRecord::Node(fault)) => status::invalid("connection.nodes", fault.to_string()),
        Refused::Record(BadRecord::Tls(fault)) => status::invalid("connection.tls_ca", fault.to_string()),
        Refused::TooLong(_) => status::invalid("connection", format!("is too long: {message}")),
        Refused::TooMany => status::quota("clusters", message),
        Refused::Store(error) => status::store(error, "cluster", id),
    }
}

fn finding(severity: Severity, host: &str, message: impl Into<String>, remedy: &str) -> own::Finding {
    own::Finding { severity: severity as i32, host_name: host.to_owned(), message: message.into(), remedy: remedy.to_owned() }
}

/// What an account lacks and a backup can do without, each with the line that gives it.
fn rights(host: &str, lacking: &Lacking) -> Vec<own::Finding> {
    let told = |need, severity, costs: &str| {
        let (what, line) = lacking.of(need)?;
        Some(finding(severity, host, format!("{what}, {costs}"), &line))
    };
    let unknown = lacking.unknown().map(|(what, line)| {
        let message = format!("whether {what} is only told when a backup is taken; a refusal costs no fork");
        finding(Severity::Info, host, message, &line)
    });
    let preflight = told(Need::Preflight, Severity::Warning, "so some faults are told late: a right that is missing, a primary that Sentinel watches");
    let side = told(Need::SideState, Severity::Info, "so what they tell is left out of the side state of a backup");
    [preflight, side, unknown].into_iter().flatten().collect()
}

fn report(id: &str, check: &Check, rules: &Rules, latest: Option<&Operation>) -> own::CheckClusterResponse {
    let mut findings = Vec::new();
    for barred in &check.barred {
        findings.push(finding(Severity::Error, &barred.host, barred.reason.clone(), &barred.remedy));
    }
    for shard in &check.shards {
        findings_of(shard, rules, &mut findings);
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
    let hosts = check.topology.hosts.iter().map(|seen| host(seen, check, rules)).collect();
    own::CheckClusterResponse { cluster_id: id.to_owned(), ready: check.is_ready(), summary: summary(check), findings, hosts }
}

fn findings_of(shard: &ShardCheck, rules: &Rules, findings: &mut Vec<own::Finding>) {
    // Where there is a source, a host that is not fit costs safety; where there is none, it is the reason.
    let severity = if shard.source.is_some() { Severity::Warning } else { Severity::Error };
    for (host, objection) in &shard.objections {
        findings.push(finding(severity, host, objection.to_string(), ""));
    }
    for barred in &shard.barred {
        let expected = shard.source.is_some() && barred.bar == source::Bar::Role;
        if !expected {
            findings.push(finding(severity, &barred.host, barred.reason.clone(), &barred.remedy));
        }
    }
    for moving in &shard.moves {
        findings.push(finding(Severity::Warning, "", format!("{moving}; keys of such slots may be in two shards of a backup"), "let the migration end first"));
    }
    let Some((target, facts)) = &shard.source else { return };
    if facts.role == Role::Primary && shard.has_replicas {
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
    if let Some(lacking) = &shard.lacking {
        findings.extend(rights(&target.name, lacking));
    }
    if facts.child_running {
        findings.push(finding(Severity::Info, &target.name, "a save or rewrite is running there, so the snapshot would begin after it", ""));
    }
}

fn summary(check: &Check) -> String {
    let sources: Vec<_> = check.shards.iter().filter_map(|shard| shard.source.as_ref()).collect();
    match (check.is_ready(), sources.as_slice()) {
        (true, [(target, facts)]) => format!(
            "a backup would be taken from {}, a {} with {} keys and {} bytes of memory in use",
            target.name,
            convert::role(facts.role),
            facts.keys,
            facts.used_memory_bytes
        ),
        (true, sources) => {
            let count = |role| sources.iter().filter(|(_, facts)| facts.role == role).count();
            let sum = |number: fn(&Facts) -> u64| sources.iter().fold(0_u64, |sum, (_, facts)| sum.saturating_add(number(facts)));
            format!(
                "a backup would be taken of {} shards, {} of them from a replica, with {} keys and {} bytes of memory in use",
                sources.len(),
                count(Role::Replica),
                sum(|facts| facts.keys),
                sum(|facts| facts.used_memory_bytes)
            )
        }
        (false, _) if check.shards.len() <= 1 && check.barred.is_empty() => "a backup would fail: no host can be the source".to_owned(),
        (false, _) if !check.barred.is_empty() => "a backup would fail: the servers do not make one whole cluster".to_owned(),
        (false, _) => {
            let without: Vec<_> = check.shards.iter().filter(|shard| shard.source.is_none()).map(|shard| shard.name.as_str()).take(NAMED_SHARDS).collect();
            format!("a backup would fail: no host of {} can be the source", without.join(", "))
        }
    }
}

fn host(seen: &Seen, check: &Check, rules: &Rules) -> own::HostCheck {
    let name = seen.target.name.clone();
    let is_chosen = check.shards.iter().filter_map(|shard| shard.source.as_ref()).any(|(target, _)| target.name == name);
    let barred = check.shards.iter().flat_map(|shard| &shard.barred).find(|barred| barred.host == name).map(|barred| barred.reason.clone());
    let objections = check.shards.iter().flat_map(|shard| &shard.objections);
    let objection = objections.into_iter().find(|(host, _)| *host == name).map(|(_, objection)| objection.to_string());
    let reason = match (is_chosen, barred.or(objection)) {
        (true, _) => String::new(),
        (false, Some(reason)) => reason,
        (false, None) => "another host is the better source".to_owned(),
    };
    let facts = seen.facts.as_ref().ok();
    own::HostCheck {
        shard_name: check.shard_of(&name).to_owned(),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]
    use super::*;
    use tonic_types::StatusExt;

    fn connection(node: &str, username: &str, password: &str) -> Option<own::Connection> {
        let credentials = own::Credentials { username: username.to_owned(), password: password.to_owned() };
        Some(own::Connection { nodes: vec!["a:1".to_owned(), node.to_owned()], credentials: Some(credentials), ..Default::default() })
    }

    #[test]
    fn only_hosts_and_ports_are_reached_and_no_lines_are_sent() {
        for node in ["redis-0.example:6379", "10.0.0.1:1", "[::1]:6379"] {
            assert_eq!(access(connection(node, "", "")).unwrap().nodes[1].to_string(), node);
        }
        let (user, word) = ("connection.credentials.username", "connection.credentials.password");
        for (node, username, password, field) in [
            ("unix:/run/redis.sock", "", "", "connection.nodes[1]"),
            ("/run/redis.sock", "", "", "connection.nodes[1]"),
            ("redis://a:1", "", "", "connection.nodes[1]"),
            ("a:0", "", "", "connection.nodes[1]"),
            ("::1:1", "", "", "connection.nodes[1]"),
            ("a:1\r\n", "", "", "connection.nodes[1]"),
            ("b:1", "x\r\nGET / HTTP/1.1", "secret", user),
            ("b:1", "", "x\nSET a b", word),
            ("b:1", "backup", "", word),
        ] {
            let refused = access(connection(node, username, password)).unwrap_err();
            assert_eq!(refused.get_error_details().bad_request().unwrap().field_violations[0].field, field, "{node}");
            assert!(!refused.message().contains("secret"));
        }
    }

    #[test]
    fn a_certificate_means_tls() {
        let trust = |tls, tls_ca: &str| access(Some(own::Connection { tls, tls_ca: tls_ca.to_owned(), ..Default::default() })).unwrap().trust;
        assert_eq!(trust(false, ""), None);
        assert_eq!(trust(true, ""), Some(Trust::System));
        assert_eq!(trust(true, "pem"), Some(Trust::Authorities("pem".to_owned())));
        assert_eq!(trust(false, "pem"), Some(Trust::Authorities("pem".to_owned())));
    }
}
