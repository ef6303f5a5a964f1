//! Restoring a backup into a running server, told top to bottom: PREFLIGHT, LOAD, WORK.
//!
//! What is changed of the target is recorded before it is changed, so that whoever comes next can take it back: an attempt after
//! a crash frees the target from the feed that is gone and begins anew, one that finds the dump loaded only ends it. Every
//! failure says in which state the target is.

use super::attempt::{Context, End};
use super::backup::internal;
use super::stored::{self, Stored};
use super::{Caller, Executor, fault, restore_keys};
use crate::artifacts::manifest::ShardManifest;
use crate::backup::BackupId;
use crate::cluster::{Role, Trust};
use crate::failure::{Failure, Reason};
use crate::fleet::PREFLIGHT_TIMEOUT;
use crate::operation::{Door, Fault, Left, Login, Method, Operation, OperationId, Outcome, Place, Response, RestoreResult, RestoreTarget};
use crate::operation::{ShardProgress, Spec, Step};
use crate::redis::facts::Facts;
use crate::redis::feed;
use crate::redis::tls::{Authorities, Tls};
use crate::redis::{self, Address, Credentials, Password, Target};
use crate::restore::{self, Armed, Bar, Request, Rules};
use crate::snapshot::Meter;
use crate::store::{self, Completion, Create};
use crate::telemetry::crash_point;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

/// How long it is tried to free a target after a failure. One that loads from its own disk cannot be freed before its end.
const FREE_TIMEOUT: Duration = Duration::from_secs(60);

/// The same when the work was told to stop.
const LET_GO_TIMEOUT: Duration = Duration::from_secs(5);

/// How dumps are brought into running servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreOptions {
    /// How the feed is reached.
    pub feed: feed::Options,
    /// Networks of servers that are restored into without being part of a known cluster.
    pub allow: Vec<IpNet>,
}

impl Default for RestoreOptions {
    fn default() -> Self {
        let loopback = [IpNet::new(Ipv4Addr::new(127, 0, 0, 0).into(), 8), IpNet::new(std::net::Ipv6Addr::LOCALHOST.into(), 128)];
        Self { feed: feed::Options::default(), allow: loopback.into_iter().flatten().collect() }
    }
}

/// Why a restore was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum RestoreRefused {
    /// There is no key to seal the password with.
    #[error(
        "the password of the target cannot be kept until the work begins: the configuration names no key to seal it with; `redkeep secrets new-key FILE` writes one, name it in [secrets] key_file"
    )]
    NoKey,
    /// The certificates of its authority cannot be used.
    #[error("{0}")]
    Tls(#[from] redis::tls::BadTls),
    /// The store refused it.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// What the password of a target is sealed for.
fn purpose(id: &str) -> [&str; 2] {
    ["password of the target of a restore", id]
}

impl Executor {
    /// Whether a server at this address may be restored into: its address is in the networks that the configuration allows. A
    /// name other than `localhost` never is, because whoever answers for names could lead elsewhere.
    pub fn may_restore_into(&self, address: &Address) -> bool {
        is_allowed(&self.0.options.restore.allow, address)
    }

    /// Accepts a restore into servers that run. Durable on return; the work begins after it. Whether the caller may is to be
    /// asked before. The password is sealed, and forgotten with the end of the operation.
    ///
    /// # Errors
    ///
    /// [`RestoreRefused`]; of the store [`store::Error::Conflict`] while another restore goes to the same target.
    pub async fn restore_into(
        &self,
        id: BackupId,
        target: RestoreTarget,
        credentials: Option<Credentials>,
        door: Door,
        caller: Caller,
    ) -> Result<Operation, RestoreRefused> {
        let backup = self.0.store.backup(id).await?;
        drop(trusting(target.login.trust.as_ref())?);
        let mut operation = self.operation(backup.folder_id, backup.cluster_id, Some(id), door, Spec::RestoreInto(Box::new(target)), &caller);
        operation.zone = self.0.fleet.get(&operation.cluster_id).and_then(|cluster| cluster.zone.clone());
        if let (Spec::RestoreInto(target), Some(Credentials { username, password })) = (&mut operation.spec, credentials) {
            let password = match password {
                None => None,
                Some(password) => {
                    let key = self.0.fleet.key().ok_or(RestoreRefused::NoKey)?;
                    Some(key.seal(&purpose(&operation.id.to_string()), password.secret()).ok_or(RestoreRefused::NoKey)?)
                }
            };
            target.login = Login { username, password, trust: target.login.trust.take() };
        }
        Ok(self.submit(Create { operation, draft: None, cluster: None, idempotency: caller.idempotency() }).await?)
    }
}

fn is_allowed(networks: &[IpNet], address: &Address) -> bool {
    let Address::Tcp { host, .. } = address else { return false };
    let ip = if host == "localhost" { Some(IpAddr::V4(Ipv4Addr::LOCALHOST)) } else { host.parse::<IpAddr>().ok() };
    ip.is_some_and(|ip| networks.iter().any(|network| network.contains(&ip.to_canonical())))
}

fn trusting(trust: Option<&Trust>) -> Result<Option<Tls>, redis::tls::BadTls> {
    match trust {
        None => Ok(None),
        Some(Trust::System) => Tls::new(Authorities::System, None).map(Some),
        Some(Trust::Authorities(pem)) => Tls::new(Authorities::Own(pem.as_bytes()), None).map(Some),
    }
}

pub(super) async fn run(context: &Context, target: &RestoreTarget) -> End {
    let ended = match &target.method {
        Method::Feed => feed(context, target).await,
        Method::Keys(keys) => Ok(restore_keys::run(context, target, keys).await),
    };
    match ended {
        // The store told the work to stop before the heartbeat did.
        Err(End::Stopped) => {
            let_go(context, target).await;
            End::Stopped
        }
        Ok(end) | Err(end) => end,
    }
}

/// Takes back what was changed of the target, when the work is to stop.
pub(super) async fn let_go(context: &Context, target: &RestoreTarget) {
    let Some(mut left) = context.left() else { return };
    left.state = match dial(context, target).await {
        Ok((dialled, _)) => restore::release(&dialled, &mut left, LET_GO_TIMEOUT).await,
        Err(_) => "the target could not be found again; if it follows a feed that is gone, REPLICAOF NO ONE frees it".to_owned(),
    };
    tracing::info!(operation.id = %context.id(), "a restore was told to stop: {}", left.state);
    if context.leave(Some(left)).await.is_err() {
        tracing::warn!(operation.id = %context.id(), "the state of the target could not be recorded");
    }
}

async fn feed(context: &Context, target: &RestoreTarget) -> Result<End, End> {
    let (dialled, rules) = dial(context, target).await?;
    let mut before = context.left();
    if let Some(left) = before.as_mut() {
        if let Some(result) = left.result.clone()
            && is_still_loaded(&dialled, left).await
        {
            context.step(Step::Work, None).await?;
            return finish(context, &dialled, left.clone(), result).await;
        }
        // Whatever becomes of this attempt, the target is not to follow a feed that is gone.
        left.state = restore::release(&dialled, left, FREE_TIMEOUT).await;
        context.leave(Some(left.clone())).await?;
    }
    let untouched = before.as_ref().map_or("the target is untouched", |left| left.state.as_str()).to_owned();
    let source = stored::read(context, context.backup_id()?).await?;
    let shard = shard(&source, target)?.clone();
    let name = dialled.name.clone();
    let untouched = |error: restore::Error| failed(context, &error, &untouched);
    let (storage, feed) = (context.inner.storage.clone(), context.inner.options.restore.feed.clone());
    let request = Request { target: dialled, rules, feed, storage, folder: source.folder, shard };

    drop(restore::look(&request, before.as_ref()).await.map_err(untouched)?);
    crash_point("restore.preflight");
    let tracked = ShardProgress { shard_name: request.shard.name.clone(), host_name: name.clone(), ..ShardProgress::default() };
    let meter = Arc::new(Meter::default());
    context.track_anew(tracked.clone(), Arc::clone(&meter));
    restore::check(&request, &meter).await.map_err(|fault| untouched(fault.into()))?;
    crash_point("restore.checked");

    context.step(Step::Load, None).await?;
    // It may have become another while the artifact was read.
    let ready = restore::look(&request, before.as_ref()).await.map_err(untouched)?;
    let armed = Armed::bind(&request, ready, before.as_ref()).await.map_err(untouched)?;
    context.leave(Some(armed.left().clone())).await?;
    crash_point("restore.told");
    let mut left = armed.left().clone();
    let meter = Arc::new(Meter::default());
    context.track_anew(tracked, Arc::clone(&meter));
    let loaded = match armed.load(&request, &meter).await {
        Ok(loaded) => loaded,
        Err(error) => {
            context.wait_for("the target to be freed");
            left.state = restore::release(&request.target, &mut left, FREE_TIMEOUT).await;
            let end = failed(context, &error, &left.state);
            context.leave(Some(left)).await?;
            return Err(end);
        }
    };
    let result = RestoreResult {
        host_name: name,
        keys: loaded.keys,
        bytes: request.shard.size_bytes,
        expired_keys: loaded.expired,
        functions: request.shard.walk.functions,
        types: request.shard.walk.keys_by_type(),
        ..RestoreResult::default()
    };
    left.result = Some(result.clone());
    left.keys = left.keys.max(result.keys);
    context.leave(Some(left.clone())).await?;
    crash_point("restore.loaded");
    context.step(Step::Work, None).await?;
    finish(context, &request.target, left, result).await
}

/// Frees a target that has all of the dump. Nobody cancels from here on.
async fn finish(context: &Context, target: &Target, mut left: Left, result: RestoreResult) -> Result<End, End> {
    if let Err(error) = restore::finish(target, &left).await {
        left.state = "the target has all of the backup, and may still follow a feed that is gone: REPLICAOF NO ONE frees it".to_owned();
        let end = failed(context, &error, &left.state);
        context.leave(Some(left)).await?;
        return Err(end);
    }
    crash_point("restore.freed");
    context.leave(None).await?;
    Ok(End::Done(Box::new(Completion { outcome: Outcome::Succeeded(Response::Restored(Box::new(result))), backup: None })))
}

/// Whether a target is the same process that has loaded the dump for an attempt before.
async fn is_still_loaded(target: &Target, left: &Left) -> bool {
    let Ok(mut control) = redis::connection::Connection::open(target).await else { return false };
    let Ok(facts) = Facts::ask(&mut control).await else { return false };
    facts.run_id == left.run_id && (facts.role == Role::Primary || restore::follows(&facts, left))
}

fn shard<'a>(source: &'a Stored, target: &RestoreTarget) -> Result<&'a ShardManifest, End> {
    let shards = &source.manifest.shards;
    let names = || shards.iter().map(|shard| shard.name.as_str()).collect::<Vec<_>>().join(", ");
    match (&target.shard_name, shards.as_slice()) {
        (None, [only]) => Ok(only),
        (None, _) => Err(refused(format!("the backup has {} shards, and one server takes one; name it: {}", shards.len(), names()))),
        (Some(name), _) => shards.iter().find(|shard| shard.name == *name).ok_or_else(|| refused(format!("the backup has no such shard; it has {}", names()))),
    }
}

fn refused(what: String) -> End {
    End::Failed(Failure::new(Reason::TargetRefused, format!("{what}; the target is untouched")))
}

/// How the target is reached, and what is known of it beside its own word.
/// The server that is meant, and what it may be.
pub(super) async fn dial(context: &Context, target: &RestoreTarget) -> Result<(Target, Rules), End> {
    let rules = Rules { overwrite: target.overwrite, allow_replicas: target.allow_replicas, ..Rules::default() };
    match &target.place {
        Place::Cluster(_) => Err(refused("a whole cluster is restored by key".to_owned())),
        Place::Address(text) => {
            let address: Address = text.parse().map_err(|_| internal("the target's address cannot be read"))?;
            // The configuration may have changed since the acceptance.
            if !is_allowed(&context.inner.options.restore.allow, &address) {
                return Err(refused(format!("{address} is outside of [restore] allow")));
            }
            let tls = trusting(target.login.trust.as_ref()).map_err(|fault| End::Failed(Failure::new(Reason::TargetCertificate, fault.to_string())))?;
            let credentials = login(context, context.id(), &target.login)?;
            Ok((Target { name: text.clone(), address, credentials, tls }, rules))
        }
        Place::Host { cluster_id, host_name } => {
            let gone = |what: String| End::Failed(Failure::new(Reason::Gone, format!("{what}; the target is untouched")));
            let cluster = context.inner.fleet.get(cluster_id).ok_or_else(|| gone(format!("cluster {cluster_id} is not known any more")))?;
            let looked = cluster.look(PREFLIGHT_TIMEOUT).await;
            let topology = looked.map_err(|fault| End::Failed(Failure::new(Reason::TargetCredentials, fault.to_string())))?;
            let seen = topology.hosts.iter().find(|seen| seen.target.name == *host_name);
            let seen = seen.ok_or_else(|| gone(format!("cluster {cluster_id} has no host {host_name}")))?;
            let memory_bytes = cluster.rules().memory_limits.get(host_name).copied();
            Ok((seen.target.clone(), Rules { is_watched: cluster.sentinel.is_some(), memory_bytes, ..rules }))
        }
    }
}

fn login(context: &Context, id: OperationId, login: &Login) -> Result<Credentials, End> {
    let failed = |what: String| End::Failed(Failure::new(Reason::TargetCredentials, format!("the password of the target does not open: {what}")));
    let password = match &login.password {
        None => None,
        Some(sealed) => {
            let key = context.inner.fleet.key().ok_or_else(|| failed("the configuration names no key in [secrets] key_file any more".to_owned()))?;
            Some(Password::new(key.open(&purpose(&id.to_string()), sealed).map_err(|fault| failed(fault.to_string()))?))
        }
    };
    Ok(Credentials { username: login.username.clone(), password })
}

/// What a failure means, told with the state of the target.
pub(super) fn failed(context: &Context, error: &restore::Error, state: &str) -> End {
    let told = |reason| Failure::new(reason, format!("{error}; {state}"));
    match error {
        restore::Error::Target(fault) => {
            let reason = match fault {
                redis::Error::Unreachable { .. } | redis::Error::Protocol { .. } | redis::Error::NotReady { .. } | redis::Error::Save { .. } => {
                    Reason::TargetUnreachable
                }
                redis::Error::Credentials { .. } => Reason::TargetCredentials,
                redis::Error::Certificate { .. } => Reason::TargetCertificate,
                redis::Error::Permission { .. } => Reason::TargetPermission,
                redis::Error::Unsupported { .. } => Reason::TargetVersion,
                redis::Error::Role { .. } => Reason::TargetRefused,
            };
            let failure = told(reason);
            if fault.is_passing() { End::Retry { fault: Fault::Source, failure, wait: fault::backoff(&context.operation) } } else { End::Failed(failure) }
        }
        restore::Error::Artifact(fault) => match fault::stored(&context.operation, fault) {
            End::Failed(failure) => End::Failed(told(failure.reason)),
            End::Retry { fault, failure, wait } => End::Retry { fault, failure: told(failure.reason), wait },
            end => end,
        },
        restore::Error::Refused { bar, .. } => End::Failed(told(match bar {
            Bar::Role => Reason::TargetRefused,
            Bar::NotEmpty => Reason::TargetNotEmpty,
            Bar::Version => Reason::TargetVersion,
            Bar::Memory => Reason::TargetMemory,
        })),
        restore::Error::Taken(_) => End::Failed(told(Reason::TargetRefused)),
        restore::Error::Differs(_) => End::Failed(told(Reason::RestoreDiffers)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]
    use super::*;

    #[test]
    fn only_allowed_addresses_are_restored_into() {
        let networks = [RestoreOptions::default().allow, vec!["10.1.0.0/16".parse().unwrap()]].concat();
        for (address, expected) in [
            ("127.0.0.1:6379", true),
            ("127.9.9.9:1", true),
            ("[::1]:6379", true),
            ("[::ffff:127.0.0.1]:6379", true),
            ("localhost:6379", true),
            ("10.1.2.3:6379", true),
            ("10.2.0.1:6379", false),
            ("192.168.0.1:6379", false),
            ("[2001:db8::1]:6379", false),
            ("localhost.example:6379", false),
            ("redis:6379", false),
            ("unix:/run/redis.sock", false),
        ] {
            assert_eq!(is_allowed(&networks, &address.parse().unwrap()), expected, "{address}");
        }
    }
}
