//! Goal: what has had its time goes, what is needed stays whatever the clock says, and a deletion is taken back until the files go.
//! Method: rounds of the real executor on a real store, with a clock that is moved; the real service with its doors, its audit log and
//! its numbers; the real program killed at each point.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

mod rounds;
mod service;
mod undelete;

use crate::support::answers::bare;
use crate::support::service::Clients;
use redkeep::pb::operation::Operation;
use redkeep::pb::own;
use std::time::Duration;
use tonic::Status;

/// Longest wait for what is a matter of moments.
const SOON: Duration = Duration::from_secs(60);

async fn undelete(clients: &Clients, id: &str) -> Result<Operation, Status> {
    bare(clients.backups.clone().undelete(own::UndeleteBackupRequest { backup_id: id.into() }).await)
}

/// The fate of each backup of `main`, newest first, with its reason.
async fn plan(clients: &Clients) -> Vec<own::ExpiryPlan> {
    bare(clients.backups.clone().plan_expiry(own::PlanExpiryRequest { cluster_id: "main".into() }).await).unwrap().plans
}

/// The change of one field of a backup.
fn change(id: &str, path: &str) -> own::UpdateBackupRequest {
    own::UpdateBackupRequest { backup_id: id.into(), update_mask: Some(prost_types::FieldMask { paths: vec![path.into()] }), ..Default::default() }
}
