//! The six calls: read, look, ask, render.

use super::answer::{Answer, Refusal};
use super::body::Members;
use super::destination::Destination;
use super::filter::Filter;
use super::precondition::{self, ClusterMode};
use super::render::{BackupList, BackupObject};
use super::visitor::Visitor;
use super::{Calls, LISTED, LOOKED_AT, name, route};
use crate::backup::{Backup, Labels};
use crate::cluster::{ClusterId, FolderId};
use crate::executor::{Draft, ExportRefused};
use crate::fleet::PROBE_TIMEOUT;
use crate::operation::{Door, ExportTarget, Spec};
use crate::store::BackupFilter;
use axum::http::StatusCode;
use std::ops::ControlFlow;
use tokio::sync::MutexGuard;

/// Most rows that are read at once: rows can be long.
const READ_ROWS: usize = 100;

impl Calls {
    pub(super) async fn create(&self, visitor: &Visitor, members: Members) -> Result<Answer, Refusal> {
        let id = members.text("clusterId")?;
        if id.is_empty() {
            return Err(Refusal::Field { field: "clusterId", what: "must not be empty".to_owned() });
        }
        visitor.about(&format!("clusters/{id}"));
        let name = name::new(members.text("name")?)?;
        let cluster = id.parse().ok().and_then(|id| self.executor.fleet().get(&id)).filter(|cluster| cluster.folder_id == visitor.project);
        let cluster = cluster.ok_or_else(|| Refusal::NoCluster(id.to_owned()))?;
        visitor.right.clone()?;
        if cluster.is_adopting {
            return Err(Refusal::NotRunning(id.to_owned()));
        }
        self.check_cluster(&cluster.id).await?;
        let _turn = self.check_quota(&visitor.project).await?;
        let draft = Draft { name, labels: Labels::new(), expires_at: None };
        let operation = self.executor.create_backup(&cluster, Door::MemStore, draft, visitor.caller()).await;
        let operation = operation.map_err(|error| Refusal::of_store(error, ""))?;
        visitor.note(&operation);
        Answer::object(StatusCode::CREATED, operation.backup_id.ok_or(Refusal::Internal)?)
    }

    pub(super) async fn list(&self, visitor: &Visitor, query: &str) -> Result<Answer, Refusal> {
        let filter = Filter::new(query)?;
        visitor.right.clone()?;
        let mut backups = Vec::new();
        if let Some(rows) = filter.rows(&visitor.project) {
            self.each(&rows, |backup| {
                if backup.folder_id == visitor.project && !backup.is_deleting() && filter.fits(&backup) {
                    backups.push(self.with_expiry(backup));
                }
                if backups.len() < LISTED { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })
            .await?;
        }
        // Rows come by id, which is nearly the order of creation.
        backups.sort_by(|a, b| b.created_at.cmp(&a.created_at).then(a.id.cmp(&b.id)));
        Answer::json(StatusCode::OK, &BackupList { backups: backups.iter().map(BackupObject::from).collect() })
    }

    pub(super) async fn get(&self, visitor: &Visitor, raw: &str) -> Result<Answer, Refusal> {
        let backup = self.backup(visitor, raw).await?;
        visitor.right.clone()?;
        Answer::json(StatusCode::OK, &BackupObject::from(&self.with_expiry(backup)))
    }

    pub(super) async fn delete(&self, visitor: &Visitor, raw: &str) -> Result<Answer, Refusal> {
        let backup = self.backup(visitor, raw).await?;
        visitor.right.clone()?;
        let deleted = self.executor.change_backup(backup.id, Door::MemStore, Spec::DeleteBackup, visitor.caller()).await;
        visitor.note(&deleted.map_err(|error| Refusal::of_store(error, raw))?);
        Answer::object(StatusCode::OK, backup.id)
    }

    pub(super) async fn copy(&self, visitor: &Visitor, raw: &str, members: Members) -> Result<Answer, Refusal> {
        let name = name::new(members.text("name")?)?;
        let source = self.backup(visitor, raw).await?;
        visitor.right.clone()?;
        let _turn = self.check_quota(&visitor.project).await?;
        let operation = self.executor.copy_backup(source.id, name, Door::MemStore, visitor.caller()).await;
        let operation = operation.map_err(|error| Refusal::of_store(error, raw))?;
        visitor.note(&operation);
        Answer::object(StatusCode::CREATED, operation.backup_id.ok_or(Refusal::Internal)?)
    }

    pub(super) async fn export(&self, visitor: &Visitor, raw: &str, members: Members) -> Result<Answer, Refusal> {
        let Destination { bucket, path, name } = Destination::new(members.text("destination")?, members.text("name")?)?;
        let backup = self.backup(visitor, raw).await?;
        let may_go_there = self.executor.export_target_allowed(&visitor.project, &bucket);
        if may_go_there == Err(ExportRefused::Unknown) {
            return Err(Refusal::NoBucket(bucket));
        }
        visitor.right.clone()?;
        may_go_there.map_err(|_| Refusal::ForeignBucket(bucket.clone()))?;
        if backup.is_available() && !self.executor.can_decode(&backup) {
            return Err(Refusal::Locked(raw.to_owned()));
        }
        let target = ExportTarget { bucket, path, name: Some(name), as_stored: false };
        let operation = self.executor.export_backup(backup.id, target, Door::MemStore, visitor.caller()).await;
        let operation = operation.map_err(|error| Refusal::of_store(error, raw))?;
        visitor.note(&operation);
        Answer::object(StatusCode::OK, operation.id)
    }

    /// The backup with its expiry as it is under the present plan of its cluster.
    fn with_expiry(&self, backup: Backup) -> Backup {
        Backup { expires_at: self.executor.expires(&backup), ..backup }
    }

    /// The backup of the name in a path, in any state but on its way out.
    async fn backup(&self, visitor: &Visitor, raw: &str) -> Result<Backup, Refusal> {
        let name = route::name(raw).ok_or_else(|| Refusal::NoBackup(raw.to_owned()))?;
        let found = self.executor.store().backup_named(&visitor.project, &name).await;
        found.map_err(|error| Refusal::of_store(error, name.as_str()))
    }

    /// Holds what the last look at a cluster saw against what is needed. A look of the last seconds serves; another takes at
    /// most [`PROBE_TIMEOUT`], and one that takes longer refuses nothing.
    async fn check_cluster(&self, id: &ClusterId) -> Result<(), Refusal> {
        let cluster_mode = if self.options.allow_cluster_mode { ClusterMode::Allowed } else { ClusterMode::Refused };
        match tokio::time::timeout(PROBE_TIMEOUT, self.executor.fleet().view(id)).await {
            Ok(Some(view)) => precondition::check(&view, cluster_mode),
            Ok(None) | Err(_) => Ok(()),
        }
    }

    /// Holds the number of backups in a project against the quota, if there is one. No other new backup is counted before
    /// what is given back is let go.
    async fn check_quota(&self, project: &FolderId) -> Result<Option<MutexGuard<'_, ()>>, Refusal> {
        let Some(quota) = self.options.quota else { return Ok(None) };
        let turn = self.turn.lock().await;
        let mut count = 0;
        self.each(&BackupFilter::Folder(project.clone()), |backup| {
            count += u64::from(!backup.is_deleting());
            if count < quota { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .await?;
        if count < quota { Ok(Some(turn)) } else { Err(Refusal::Quota(quota)) }
    }

    /// Shows backups to `see`, newest first, until it has enough or [`LOOKED_AT`] were seen.
    async fn each(&self, filter: &BackupFilter, mut see: impl FnMut(Backup) -> ControlFlow<()>) -> Result<(), Refusal> {
        let (mut after, mut seen) = (None, 0);
        while seen < LOOKED_AT {
            let page = self.executor.store().backups(filter, after, READ_ROWS).await.map_err(|error| Refusal::of_store(error, ""))?;
            let is_last = page.len() < READ_ROWS;
            seen += page.len();
            after = page.last().map(|backup| backup.id);
            if page.into_iter().any(|backup| see(backup).is_break()) || is_last {
                break;
            }
        }
        Ok(())
    }
}
