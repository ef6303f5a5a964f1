//! What is told of a cluster and when its backups are taken: accepting the changes and carrying them out; and backups that a
//! schedule asks for.

use super::attempt::{Context, End};
use super::{Caller, Draft, Executor, Refused, adopt};
use crate::backup::{Backup, Labels, Name, Origin};
use crate::cluster::policy::{ClusterChanges, Policy, PolicyId};
use crate::cluster::{Adopted, Timestamp};
use crate::failure::{Failure, Reason};
use crate::fleet::Definition;
use crate::operation::{Door, Operation, Outcome, Response, Spec};
use crate::store::{self, Completion};
use crate::telemetry::crash_point;

/// A backup that a schedule asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduled {
    /// Its name.
    pub name: Name,
    /// The instant for which it was planned.
    pub planned_at: Timestamp,
    /// The retention policy that keeps it longest.
    pub policy_id: Option<PolicyId>,
    /// When it may be removed by itself, as things stand.
    pub expires_at: Option<Timestamp>,
}

impl Executor {
    /// Accepts a backup that a schedule asks for. Durable on return; the work begins after it.
    ///
    /// # Errors
    ///
    /// As [`Store::create`](store::Store::create).
    pub async fn create_scheduled_backup(&self, cluster: &Definition, scheduled: Scheduled, caller: Caller) -> Result<Operation, store::Error> {
        let Scheduled { name, planned_at, policy_id, expires_at } = scheduled;
        let draft = Draft { name, labels: Labels::new(), expires_at };
        let by_schedule = |row: Backup| Backup { origin: Origin::Automated, planned_at: Some(planned_at), policy_id, ..row };
        self.accept_backup(cluster, Door::Redkeep, draft, by_schedule, caller).await
    }

    /// Accepts changes of what is told of an adopted cluster, and of when its backups are taken. Durable on return; they hold when the
    /// operation has ended. A backup that is under way goes on as it began.
    ///
    /// # Errors
    ///
    /// [`Refused`], by condition.
    pub async fn update_cluster(&self, cluster: &Definition, changes: ClusterChanges, caller: Caller) -> Result<Operation, Refused> {
        let mut row = self.changeable(cluster).await?;
        changes.apply(&mut row);
        adopt::check_length(&row)?;
        self.change_plan(cluster, Spec::UpdateCluster(Box::new(changes)), caller).await
    }

    /// Accepts a retention policy of an adopted cluster, which is known from here on. Durable on return.
    ///
    /// # Errors
    ///
    /// [`Refused`], by condition.
    pub async fn create_policy(&self, cluster: &Definition, policy: Policy, caller: Caller) -> Result<Operation, Refused> {
        self.change_plan(cluster, Spec::CreatePolicy(Box::new(policy)), caller).await
    }

    /// Accepts that a retention policy is taken from an adopted cluster. Backups that were taken by it keep their expiry. Durable on
    /// return.
    ///
    /// # Errors
    ///
    /// [`Refused`], by condition.
    pub async fn delete_policy(&self, cluster: &Definition, policy_id: PolicyId, caller: Caller) -> Result<Operation, Refused> {
        self.change_plan(cluster, Spec::DeletePolicy { policy_id }, caller).await
    }

    /// The record of a cluster that may be changed.
    async fn changeable(&self, cluster: &Definition) -> Result<Adopted, Refused> {
        adopt::check_origin(cluster)?;
        Ok(self.0.store.cluster(&cluster.id).await?)
    }

    async fn change_plan(&self, cluster: &Definition, spec: Spec, caller: Caller) -> Result<Operation, Refused> {
        let operation = Operation { door: Door::Managed, ..self.changing(cluster, spec, &caller)? };
        self.submit_cluster(operation, None, caller).await
    }

    /// When a backup may be removed by itself, under the plan that its cluster has now: see [`Backup::expires`].
    pub fn expires(&self, backup: &Backup) -> Option<Timestamp> {
        let cluster = self.0.fleet.get(&backup.cluster_id).filter(|cluster| cluster.folder_id == backup.folder_id);
        backup.expires(cluster.as_ref().map(|cluster| &cluster.plan))
    }
}

pub(super) async fn update_cluster(context: &Context, changes: &ClusterChanges) -> End {
    match try_update_cluster(context, changes).await {
        Ok(end) | Err(end) => end,
    }
}

async fn try_update_cluster(context: &Context, changes: &ClusterChanges) -> Result<End, End> {
    let inner = &context.inner;
    let mut row = inner.store.cluster(&context.operation.cluster_id).await?;
    changes.apply(&mut row);
    // Its connection may have become longer since the change was accepted.
    adopt::check_length(&row).map_err(|refused| failed(refused.to_string()))?;
    let definition = Definition::adopted(&row, inner.fleet.key()).map_err(|fault| failed(format!("the record of the cluster cannot be used: {fault}")))?;
    let view = match inner.fleet.view(&row.id).await {
        Some(view) => definition.told(view),
        None => definition.unseen(),
    };
    crash_point("plan.update");
    Ok(done(Response::Cluster(Box::new(view))))
}

pub(super) async fn create_policy(context: &Context, policy: &Policy) -> End {
    match known(context).await {
        Ok(()) => {
            crash_point("plan.policy");
            done(Response::Policy(Box::new(policy.clone())))
        }
        Err(end) => end,
    }
}

pub(super) async fn delete_policy(context: &Context) -> End {
    match known(context).await {
        Ok(()) => done(Response::Empty),
        Err(end) => end,
    }
}

/// The cluster may have been forgotten since the change was accepted.
async fn known(context: &Context) -> Result<(), End> {
    context.inner.store.cluster(&context.operation.cluster_id).await?;
    Ok(())
}

fn done(response: Response) -> End {
    End::Done(Box::new(Completion { outcome: Outcome::Succeeded(response), backup: None }))
}

fn failed(message: String) -> End {
    End::Failed(Failure::new(Reason::Internal, message))
}
