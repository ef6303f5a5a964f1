//! What is told of a cluster and when its backups are taken: changes of its record, its retention policies, how far its schedule
//! has come.

use super::judge::Judge;
use super::keys::{self, Kind};
use super::rows::{Rows, damaged};
use crate::cluster::ClusterId;
use crate::cluster::policy::{ClusterChanges, POLICIES, Policy};
use crate::operation::{Operation, OperationId};
use crate::store::{Error, Planned, Recorded};

impl Judge {
    /// Looks whether the cluster of an operation is there to be changed. A backup of it that is under way is no obstacle.
    pub(super) fn accept_cluster_change(&mut self, operation: &Operation) -> Result<(), Error> {
        let id = &operation.cluster_id;
        if self.rows.cluster(id)?.is_none_or(|known| known.folder_id != operation.folder_id) {
            return Err(Error::NoCluster);
        }
        let Some(holder) = self.rows.read::<OperationId>(&keys::hold(id))? else { return Ok(()) };
        let holder = self.rows.operation(holder)?.ok_or_else(|| damaged(Kind::Hold, "its operation is missing"))?;
        if holder.spec.changes_cluster() { Err(Error::Conflict(holder.id.to_string())) } else { Ok(()) }
    }

    /// The policy is there from the acceptance on, so that no other takes its name; it goes if its creation does not succeed.
    pub(super) fn accept_policy(&mut self, operation: &Operation, policy: &Policy) -> Result<(), Error> {
        self.accept_cluster_change(operation)?;
        let standing = policies(&self.rows, &operation.cluster_id)?;
        if standing.iter().any(|other| other.name == policy.name) {
            return Err(Error::PolicyTaken(policy.name.clone()));
        }
        if standing.len() >= POLICIES {
            return Err(Error::PoliciesFull(POLICIES));
        }
        let key = keys::policy(&operation.cluster_id, &policy.id);
        if policy.cluster_id != operation.cluster_id || policy.id.contains('\0') || self.rows.has(&key)? {
            return Err(Error::Invalid("a policy is new, and of the operation's cluster".to_owned()));
        }
        self.rows.write(key, policy)
    }

    pub(super) fn accept_policy_deletion(&mut self, operation: &Operation, policy_id: &str) -> Result<(), Error> {
        self.accept_cluster_change(operation)?;
        if self.rows.has(&keys::policy(&operation.cluster_id, policy_id))? { Ok(()) } else { Err(Error::NoPolicy) }
    }

    /// Changes the record of a cluster as it is now, whatever has happened to it since the change was accepted.
    pub(super) fn change_cluster(&mut self, id: &ClusterId, changes: &ClusterChanges) -> Result<(), Error> {
        let gone = || Error::Invalid("the cluster that the work was for is gone".to_owned());
        let mut cluster = self.rows.cluster(id)?.ok_or_else(gone)?;
        changes.apply(&mut cluster);
        self.rows.write(keys::cluster(id), &cluster)
    }

    pub(super) fn remove_policy(&mut self, id: &ClusterId, policy_id: &str) {
        self.rows.remove(keys::policy(id, policy_id));
    }

    /// Forgets the policies of a cluster, and how far its schedule has come.
    pub(super) fn forget_plan(&mut self, id: &ClusterId) -> Result<(), Error> {
        for (key, _) in self.rows.scan(keys::policies(id), POLICIES)? {
            self.rows.remove(key);
        }
        self.rows.remove(keys::planned(id));
        Ok(())
    }

    pub(super) fn plan(&mut self, id: &ClusterId, before: Option<&Planned>, after: &Planned) -> Result<Recorded, Error> {
        if after.calendar.len() > Planned::CALENDAR_BYTES {
            return Err(Error::Invalid("the words of the calendar are too long".to_owned()));
        }
        let standing = planned(&self.rows, id)?;
        if standing.as_ref() != before {
            return Ok(Recorded::Theirs(standing));
        }
        self.rows.write(keys::planned(id), after)?;
        Ok(Recorded::Ours)
    }
}

pub(super) fn policies(rows: &Rows, id: &ClusterId) -> Result<Vec<Policy>, Error> {
    let mut policies = Vec::new();
    for (key, _) in rows.scan(keys::policies(id), POLICIES)? {
        // One that goes while it is read is left out.
        policies.extend(rows.read::<Policy>(&key)?);
    }
    Ok(policies)
}

pub(super) fn planned(rows: &Rows, id: &ClusterId) -> Result<Option<Planned>, Error> {
    rows.read(&keys::planned(id))
}
