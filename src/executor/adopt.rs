//! Adopted clusters: making one known, changing how it is reached, forgetting it.
//!
//! What is accepted is durable, sealed and shown at once; only the work behind it speaks to a server. A server that does not
//! answer is no reason against a cluster, which may be down at the moment: it is adopted, and shown as it was seen. One that
//! refuses the credentials, lacks a right for the account or cannot be trusted is, unless another host can be the source.

use super::attempt::{Context, End};
use super::{Caller, Executor, Inner, fault};
use crate::backup::Labels;
use crate::cluster::policy::{Plan, Policy};
use crate::cluster::{Adopted, ClusterId, Connection, FolderId, Trust, View};
use crate::failure::{Failure, Reason};
use crate::fleet::{self, BadRecord, Check, Definition, Follow, Origin};
use crate::operation::{Door, Operation, Outcome, Response, Spec};
use crate::redis::{self, Address, Credentials};
use crate::store::{self, Completion, Create, PAGE_ROWS};
use crate::telemetry::crash_point;

/// Most clusters that can be adopted: all of them are kept in memory.
pub const CLUSTERS: usize = 10_000;

/// How the hosts of a cluster are reached, with secrets that are not sealed yet.
#[derive(Clone, Debug)]
pub struct Access {
    /// Servers; any one is enough.
    pub nodes: Vec<Address>,
    /// How to log in; absent when nothing was said of it.
    pub credentials: Option<Credentials>,
    /// Whose certificates count; absent for plain text.
    pub trust: Option<Trust>,
}

/// A cluster to be made known.
#[derive(Clone, Debug)]
pub struct Adoption {
    /// Its identifier; one is made up when it is absent.
    pub id: Option<ClusterId>,
    /// Its folder.
    pub folder_id: FolderId,
    /// Its name; the identifier when it is absent.
    pub name: Option<String>,
    /// For a person.
    pub description: String,
    /// Labels.
    pub labels: Labels,
    /// Whether a primary that has replicas may be the source.
    pub allow_primary: bool,
    /// Zone, which only some processes may serve.
    pub zone: Option<String>,
    /// How it is reached.
    pub access: Access,
}

/// Why a change of a cluster was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The cluster is described in the configuration, and changed there.
    #[error("cluster {0} is described in the configuration file; change its section [[clusters]] there and restart the service")]
    Configured(ClusterId),
    /// There is no key to seal credentials with.
    #[error(
        "credentials cannot be kept: the configuration names no key to seal them with; `redkeep secrets new-key FILE` writes one, name it in [secrets] key_file"
    )]
    NoKey,
    /// The cluster has credentials, and the new connection says nothing of any.
    #[error("must be given anew with a change of connection, because the cluster has some; an empty message means that there are none from here on")]
    CredentialsMissing,
    /// The record cannot be used.
    #[error(transparent)]
    Record(#[from] BadRecord),
    /// The record has too many bytes.
    #[error("the cluster with its connection takes {0} bytes, the limit is {limit}; give fewer nodes, or fewer certificates", limit = Adopted::BYTES)]
    TooLong(usize),
    /// The cluster's servers are ours: it is deleted with them.
    #[error("cluster {0} runs on servers that Redkeep has started; delete it with them by ClusterService.Delete, or leave it as it is")]
    Local(ClusterId),
    /// The cluster's servers are not ours.
    #[error(
        "the servers of cluster {0} were not started by Redkeep, which deletes only its own; use redkeep.v1.FleetService.ForgetCluster for a cluster that was \
         adopted, or take it out of the configuration file; its servers go on and its backups stay"
    )]
    Elsewhere(ClusterId),
    /// Nothing is restored to clusters of this machine.
    #[error("no cluster is kept on this machine: the configuration names no folder for them; name one in [local] root")]
    NoLocal,
    /// The dumps do not tell which slots they were of.
    #[error("the {0} dumps of the backup do not tell which slots were whose, so they make no cluster; restore them by key")]
    Shards(usize),
    /// The servers do not fit the shards.
    #[error("{0}")]
    Hosts(String),
    /// The folder has a cluster of this name.
    #[error("the folder has a cluster named {0} already; choose another name")]
    NameTaken(String),
    /// There would be more servers on this machine than may be.
    #[error(
        "{have} servers are kept on this machine already, with {more} more there would be more than {most}; delete a cluster, or raise [local] max_servers"
    )]
    TooManyServers {
        /// Servers that there are.
        have: usize,
        /// Servers that are to be.
        more: usize,
        /// Most that may be.
        most: usize,
    },
    /// As many clusters are adopted as may be.
    #[error("{CLUSTERS} clusters are adopted already; forget one first")]
    TooMany,
    /// The store refused it.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Executor {
    /// Accepts the adoption of a cluster, which is known from here on. Durable on return; the work begins after it.
    ///
    /// # Errors
    ///
    /// [`Refused`]; of the store [`store::Error::ClusterTaken`] also for a cluster of the configuration.
    pub async fn adopt_cluster(&self, adoption: Adoption, caller: Caller) -> Result<Operation, Refused> {
        let Adoption { id, folder_id, name, description, labels, allow_primary, zone, access } = adoption;
        let id = id.unwrap_or_else(ClusterId::made_up);
        if self.0.fleet.get(&id).is_some() {
            return Err(store::Error::ClusterTaken(id).into());
        }
        let mut operation = self.operation(folder_id.clone(), id.clone(), None, Door::Redkeep, Spec::AdoptCluster, &caller);
        operation.zone = zone.clone();
        let connection = self.seal(&id, &folder_id, access)?;
        let name = name.unwrap_or_else(|| id.to_string());
        let created_at = operation.created_at;
        let plan = Plan::default();
        let row = Adopted { id, folder_id, name, description, labels, zone, created_at, allow_primary, connection, is_adopting: true, plan, local: None };
        self.submit_cluster(operation, Some(row), caller).await
    }

    /// Accepts a change of how an adopted cluster is reached. Durable on return; the work begins after it, and until it has
    /// succeeded the cluster is reached as before.
    ///
    /// # Errors
    ///
    /// [`Refused`], by condition.
    pub async fn update_connection(&self, cluster: &Definition, access: Access, caller: Caller) -> Result<Operation, Refused> {
        let operation = self.changing(cluster, Spec::UpdateConnection, &caller)?;
        let before = self.0.store.cluster(&cluster.id).await?;
        if access.credentials.is_none() && (before.connection.password.is_some() || before.connection.username.is_some()) {
            return Err(Refused::CredentialsMissing);
        }
        let connection = self.seal(&cluster.id, &cluster.folder_id, access)?;
        let row = Adopted { connection, is_adopting: false, ..before };
        self.submit_cluster(operation, Some(row), caller).await
    }

    /// Accepts that an adopted cluster is forgotten; its backups and operations stay. Durable on return; the work begins
    /// after it.
    ///
    /// # Errors
    ///
    /// [`Refused`], by condition.
    pub async fn forget_cluster(&self, cluster: &Definition, caller: Caller) -> Result<Operation, Refused> {
        let operation = self.changing(cluster, Spec::ForgetCluster, &caller)?;
        self.submit_cluster(operation, None, caller).await
    }

    /// An operation that changes a cluster which is known.
    pub(super) fn changing(&self, cluster: &Definition, spec: Spec, caller: &Caller) -> Result<Operation, Refused> {
        check_origin(cluster)?;
        // What is told of a cluster can be changed, whoever runs its servers.
        if cluster.local.is_some() && matches!(spec, Spec::UpdateConnection | Spec::ForgetCluster) {
            return Err(Refused::Local(cluster.id.clone()));
        }
        let mut operation = self.operation(cluster.folder_id.clone(), cluster.id.clone(), None, Door::Redkeep, spec, caller);
        operation.zone = cluster.zone.clone();
        Ok(operation)
    }

    /// Seals what is secret, before anything is made of it that is kept.
    fn seal(&self, id: &ClusterId, folder: &FolderId, access: Access) -> Result<Connection, Refused> {
        let Credentials { username, password } = access.credentials.unwrap_or_default();
        let password = match password {
            None => None,
            Some(password) => {
                let key = self.0.fleet.key().ok_or(Refused::NoKey)?;
                Some(key.seal(&fleet::purpose(id, folder), password.secret()).ok_or(Refused::NoKey)?)
            }
        };
        Ok(Connection { nodes: access.nodes.iter().map(Address::to_string).collect(), username, password, trust: access.trust })
    }

    pub(super) async fn submit_cluster(&self, operation: Operation, row: Option<Adopted>, caller: Caller) -> Result<Operation, Refused> {
        if let Some(row) = &row {
            check_length(row)?;
            Definition::adopted(row, None)?;
        }
        // Nobody sees the operation before the fleet shows what it changed.
        let _turn = self.0.cluster_changes.lock().await;
        if matches!(operation.spec, Spec::AdoptCluster | Spec::RestoreCluster(_)) && self.0.fleet.adopted() >= CLUSTERS {
            return Err(Refused::TooMany);
        }
        self.check_local(&operation, row.as_ref())?;
        let id = operation.cluster_id.clone();
        let create = Create { operation, draft: None, cluster: row, idempotency: caller.idempotency() };
        let operation = self.submit(create).await?;
        self.0.follow(&id).await;
        Ok(operation)
    }

    /// Whether there is room for the servers of a cluster that is to be restored here, and its name is free. Asked in the turn
    /// of whoever changes clusters.
    fn check_local(&self, operation: &Operation, row: Option<&Adopted>) -> Result<(), Refused> {
        let Some((row, servers)) = row.and_then(|row| Some((row, row.local.as_ref()?))) else { return Ok(()) };
        if self.0.fleet.list(&operation.folder_id).iter().any(|cluster| cluster.name == row.name) {
            return Err(Refused::NameTaken(row.name.clone()));
        }
        let most = self.0.options.local.as_ref().ok_or(Refused::NoLocal)?.most_servers;
        let (have, more) = (self.0.fleet.local_servers(), servers.hosts.len());
        if have + more > most { Err(Refused::TooManyServers { have, more, most }) } else { Ok(()) }
    }

    /// Makes the clusters known that were adopted before. Asked once, before anything is served.
    ///
    /// # Errors
    ///
    /// As [`store::Store::clusters`].
    pub async fn know_adopted(&self) -> Result<(), store::Error> {
        let mut after: Option<ClusterId> = None;
        loop {
            let page = self.0.store.clusters(after.as_ref(), PAGE_ROWS).await?;
            for row in &page {
                self.0.follow_row(row, self.0.store.policies(&row.id).await?);
                if let Some(definition) = self.0.fleet.get(&row.id)
                    && definition.origin == Origin::Adopted
                    && let Err(fault) = definition.credentials()
                {
                    tracing::warn!(cluster.id = %row.id, error = %fault, "an adopted cluster cannot be logged in to");
                }
            }
            match page.last() {
                Some(last) if page.len() == PAGE_ROWS => after = Some(last.id.clone()),
                _ => return Ok(()),
            }
        }
    }
}

/// A cluster of the configuration is changed there.
pub(super) fn check_origin(cluster: &Definition) -> Result<(), Refused> {
    match cluster.origin {
        Origin::Configured => Err(Refused::Configured(cluster.id.clone())),
        Origin::Adopted => Ok(()),
    }
}

/// Whether a record fits its row.
pub(super) fn check_length(row: &Adopted) -> Result<(), Refused> {
    let bytes = row.bytes();
    if bytes > Adopted::BYTES { Err(Refused::TooLong(bytes)) } else { Ok(()) }
}

impl Inner {
    /// Lets the fleet follow what the store has of a cluster. Who calls it has the turn of `cluster_changes`, so that what is
    /// shown last is what was recorded last.
    pub(super) async fn follow(&self, id: &ClusterId) {
        match self.store.cluster(id).await {
            Ok(row) => match self.store.policies(id).await {
                Ok(policies) => self.follow_row(&row, policies),
                Err(fault) => tracing::error!(cluster.id = %id, error = %fault, "the policies of a cluster could not be read; it is shown as before"),
            },
            Err(store::Error::NoCluster) => self.fleet.forget(id),
            Err(fault) => tracing::error!(cluster.id = %id, error = %fault, "the record of a cluster could not be read; it is shown as before"),
        }
    }

    fn follow_row(&self, row: &Adopted, policies: Vec<Policy>) {
        match self.fleet.follow(row, policies) {
            Ok(Follow::Known) => {}
            Ok(Follow::Configured) => {
                tracing::warn!(cluster.id = %row.id, "the configuration and an adoption have the same id; the cluster of the configuration counts");
            }
            Err(fault) => tracing::error!(cluster.id = %row.id, error = %fault, "the record of an adopted cluster cannot be used"),
        }
    }

    /// Waits until the fleet shows what the end of an operation changed.
    pub(super) async fn shown(&self, operation: &Operation) {
        if operation.spec.changes_cluster() && operation.state.is_terminal() {
            drop(self.cluster_changes.lock().await);
        }
    }
}

pub(super) async fn adopt(context: &Context) -> End {
    match try_adopt(context).await {
        Ok(end) | Err(end) => end,
    }
}

async fn try_adopt(context: &Context) -> Result<End, End> {
    let row = context.inner.store.cluster(&context.operation.cluster_id).await?;
    let view = probe(context, row).await?;
    crash_point("adopt.probed");
    Ok(done(Response::Cluster(Box::new(view))))
}

pub(super) async fn update_connection(context: &Context) -> End {
    match try_update_connection(context).await {
        Ok(end) | Err(end) => end,
    }
}

async fn try_update_connection(context: &Context) -> Result<End, End> {
    let row = context.inner.store.cluster_to_be(&context.operation.cluster_id).await?.ok_or(store::Error::NoCluster)?;
    let view = probe(context, row).await?;
    crash_point("connection.probed");
    Ok(done(Response::Cluster(Box::new(view))))
}

pub(super) fn forget(_context: &Context) -> End {
    crash_point("forget");
    done(Response::Empty)
}

fn done(response: Response) -> End {
    End::Done(Box::new(Completion { outcome: Outcome::Succeeded(response), backup: None }))
}

/// Looks at a cluster as it is to be, and holds the work up for nothing but what only its owner can mend.
async fn probe(context: &Context, row: Adopted) -> Result<View, End> {
    context.wait_for("the servers to answer");
    let definition = Definition::adopted(&Adopted { is_adopting: false, ..row }, context.inner.fleet.key());
    let definition = definition.map_err(|fault| End::Failed(Failure::new(Reason::Internal, format!("the record of the cluster cannot be used: {fault}"))))?;
    let check = context.inner.fleet.check(&definition).await;
    let check = check.map_err(|fault| fault::check(&context.operation, fault))?;
    if let Some(error) = refusal(&check) {
        return Err(fault::source(&context.operation, error));
    }
    Ok(context.inner.fleet.shown(&definition, &check.topology).await)
}

/// What a host has against us that waiting does not mend, where no host can be the source.
fn refusal(check: &Check) -> Option<&redis::Error> {
    if check.is_ready() {
        return None;
    }
    let silent = check.topology.hosts.iter().filter_map(|seen| seen.facts.as_ref().err());
    silent.chain(check.shards.iter().flat_map(|shard| &shard.objections).map(|(_, objection)| objection)).find(|error| match error {
        redis::Error::Credentials { .. } | redis::Error::Certificate { .. } | redis::Error::Permission { .. } => true,
        redis::Error::Unreachable { .. }
        | redis::Error::NotReady { .. }
        | redis::Error::Save { .. }
        | redis::Error::Unsupported { .. }
        | redis::Error::Role { .. }
        | redis::Error::Protocol { .. } => false,
    })
}
