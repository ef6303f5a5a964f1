//! Backups, through both schemas.

use super::page::Page;
use super::{Api, convert, request, status};
use crate::auth::Grant;
use crate::backup::{Backup, BackupId, HOLDS};
use crate::executor::{Draft, ExportRefused};
use crate::links::LIFE;
use crate::operation::{BackupChanges, Door, Expiry, ExportTarget, ImportSource, Spec};
use crate::pb::{managed, operation as wire, own};
use crate::store::BackupFilter;
use chrono::Utc;
use prost::Message;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl managed::backup_service_server::BackupService for Api {
    async fn get(&self, request: Request<managed::GetBackupRequest>) -> Result<Response<managed::Backup>, Status> {
        let (grant, request) = request::reading(request)?;
        let id = request.backup_id;
        let backup = self.backup(&grant, &id).await?;
        if !backup.is_available() {
            return Err(status::not_found("backup", &id));
        }
        Ok(Response::new(convert::managed_backup(&backup)))
    }

    async fn list(&self, request: Request<managed::ListBackupsRequest>) -> Result<Response<managed::ListBackupsResponse>, Status> {
        let (grant, request) = request::reading(request)?;
        let page = Page::new(request.page_size, &request.page_token, "managed.backups", &[&request.folder_id])?;
        let filter = BackupFilter::FolderAvailable(request::folder_id(&grant, &request.folder_id)?);
        let (backups, next_page_token) = self.backups(&filter, &page, |backup| Some(convert::managed_backup(backup))).await?;
        Ok(Response::new(managed::ListBackupsResponse { backups, next_page_token }))
    }

    async fn delete(&self, request: Request<managed::DeleteBackupRequest>) -> Result<Response<wire::Operation>, Status> {
        let (grant, caller, request) = request::changing(request)?;
        if let Some(operation) = self.repeated(&grant, &caller).await? {
            return Ok(operation);
        }
        let backup = self.backup(&grant, &request.backup_id).await?;
        if !backup.is_available() {
            // This schema knows no other backups.
            return Err(status::not_found("backup", &request.backup_id));
        }
        let operation = self.executor.change_backup(backup.id, Door::Managed, Spec::DeleteBackup, caller).await;
        let operation = operation.map_err(|error| status::store(error, "backup", &request.backup_id))?;
        Ok(Response::new(convert::operation(&operation)))
    }
}

#[tonic::async_trait]
impl own::backup_service_server::BackupService for Api {
    async fn create(&self, request: Request<own::CreateBackupRequest>) -> Result<Response<wire::Operation>, Status> {
        let (grant, caller, request) = request::changing(request)?;
        if let Some(operation) = self.repeated(&grant, &caller).await? {
            return Ok(operation);
        }
        let cluster = self.cluster(&grant, &request.cluster_id)?;
        let draft = Draft {
            name: if request.name.is_empty() { crate::backup::Name::made_up() } else { request::name(&request.name)? },
            labels: request::labels(request.labels),
            expires_at: request::expiry("expires_at", request.expires_at)?,
        };
        let operation = self.executor.create_backup(&cluster, Door::Redkeep, draft, caller).await;
        let operation = operation.map_err(|error| status::store(error, "cluster", &request.cluster_id))?;
        Ok(Response::new(convert::operation(&operation)))
    }

    async fn get(&self, request: Request<own::GetBackupRequest>) -> Result<Response<own::Backup>, Status> {
        let (grant, request) = request::reading(request)?;
        let backup = self.backup(&grant, &request.backup_id).await?;
        Ok(Response::new(convert::own_backup(&backup)))
    }

    async fn list(&self, request: Request<own::ListBackupsRequest>) -> Result<Response<own::ListBackupsResponse>, Status> {
        let (grant, request) = request::reading(request)?;
        let page = Page::new(request.page_size, &request.page_token, "backups", &[&request.folder_id, &request.cluster_id])?;
        let folder = request::folder_id(&grant, &request.folder_id)?;
        let filter = match request.cluster_id.as_str() {
            "" => BackupFilter::Folder(folder.clone()),
            cluster => BackupFilter::Cluster(request::cluster_id(cluster)?),
        };
        let shown = |backup: &Backup| (backup.folder_id == folder).then(|| convert::own_backup(backup));
        let (backups, next_page_token) = self.backups(&filter, &page, shown).await?;
        Ok(Response::new(own::ListBackupsResponse { backups, next_page_token }))
    }

    async fn update(&self, request: Request<own::UpdateBackupRequest>) -> Result<Response<wire::Operation>, Status> {
        let (grant, caller, request) = request::changing(request)?;
        if let Some(operation) = self.repeated(&grant, &caller).await? {
            return Ok(operation);
        }
        let id = self.backup(&grant, &request.backup_id).await?.id;
        let backup_id = request.backup_id.clone();
        let changes = changes(request)?;
        let operation = self.executor.change_backup(id, Door::Redkeep, Spec::UpdateBackup(changes), caller).await;
        let operation = operation.map_err(|error| status::store(error, "backup", &backup_id))?;
        Ok(Response::new(convert::operation(&operation)))
    }

    async fn copy(&self, request: Request<own::CopyBackupRequest>) -> Result<Response<wire::Operation>, Status> {
        let (grant, caller, request) = request::changing(request)?;
        if let Some(operation) = self.repeated(&grant, &caller).await? {
            return Ok(operation);
        }
        let source = self.backup(&grant, &request.backup_id).await?.id;
        let name = if request.name.is_empty() { crate::backup::Name::made_up() } else { request::name(&request.name)? };
        let operation = self.executor.copy_backup(source, name, Door::Redkeep, caller).await;
        let operation = operation.map_err(|error| status::store(error, "backup", &request.backup_id))?;
        Ok(Response::new(convert::operation(&operation)))
    }

    async fn export(&self, request: Request<own::ExportBackupRequest>) -> Result<Response<wire::Operation>, Status> {
        let (grant, caller, request) = request::changing(request)?;
        if let Some(operation) = self.repeated(&grant, &caller).await? {
            return Ok(operation);
        }
        let path = request::export_path(&request.path)?;
        let backup = self.backup(&grant, &request.backup_id).await?;
        self.executor.export_target_allowed(&backup.folder_id, &request.bucket).map_err(|refused| match refused {
            ExportRefused::Unknown => status::not_found("bucket", &request.bucket),
            ExportRefused::Forbidden => status::forbidden_bucket(&request.bucket, backup.folder_id.as_str()),
        })?;
        if !request.as_stored && !self.executor.can_decode(&backup) {
            return Err(status::locked(&request.backup_id));
        }
        let target = ExportTarget { bucket: request.bucket, path, name: None, as_stored: request.as_stored };
        let operation = self.executor.export_backup(backup.id, target, Door::Redkeep, caller).await;
        let operation = operation.map_err(|error| status::store(error, "backup", &request.backup_id))?;
        Ok(Response::new(convert::operation(&operation)))
    }

    async fn import(&self, request: Request<own::ImportBackupRequest>) -> Result<Response<wire::Operation>, Status> {
        let (grant, caller, request) = request::changing(request)?;
        if let Some(operation) = self.repeated(&grant, &caller).await? {
            return Ok(operation);
        }
        let folder = request::folder_id(&grant, &request.folder_id)?;
        let cluster = request.cluster_id.parse().map_err(|fault: crate::cluster::IdError| status::invalid("cluster_id", fault.to_string()))?;
        let keys = request::import_keys(request.keys)?;
        let name = if request.name.is_empty() { crate::backup::Name::made_up() } else { request::name(&request.name)? };
        self.executor.export_target_allowed(&folder, &request.bucket).map_err(|refused| match refused {
            ExportRefused::Unknown => status::not_found("bucket", &request.bucket),
            ExportRefused::Forbidden => status::forbidden_bucket(&request.bucket, folder.as_str()),
        })?;
        let source = ImportSource { bucket: request.bucket, keys };
        let operation = self.executor.import_backup(folder, cluster, source, name, Door::Redkeep, caller).await;
        let operation = operation.map_err(|error| status::store(error, "cluster", &request.cluster_id))?;
        Ok(Response::new(convert::operation(&operation)))
    }

    async fn restore_into(&self, request: Request<own::RestoreIntoRequest>) -> Result<Response<wire::Operation>, Status> {
        self.accept_restore(request).await
    }

    async fn get_download_links(&self, request: Request<own::GetDownloadLinksRequest>) -> Result<Response<own::GetDownloadLinksResponse>, Status> {
        let (grant, request) = request::reading(request)?;
        let id = request.backup_id;
        let backup = self.backup(&grant, &id).await?;
        let files = self.executor.files(&backup).await.map_err(|fault| status::unreadable(&fault))?;
        let files = files.ok_or_else(|| status::precondition("STATE", &id, "the backup is not AVAILABLE, so there is nothing to download"))?;
        let expires_at = Utc::now() + LIFE;
        let mut links = Vec::with_capacity(files.all().len());
        for file in files.all() {
            let url = match self.executor.signed_url(&files, &file.name, LIFE).await {
                Ok(Some(url)) => url,
                // A folder signs nothing, and not all credentials of a store can: then the bytes come through this port.
                Ok(None) | Err(_) => self.links.url(backup.id, &file.name, grant.subject(), expires_at),
            };
            links.push(convert::download_link(file, url, expires_at));
        }
        Ok(Response::new(own::GetDownloadLinksResponse { links }))
    }

    async fn delete(&self, request: Request<own::DeleteBackupRequest>) -> Result<Response<wire::Operation>, Status> {
        let (grant, caller, request) = request::changing(request)?;
        if let Some(operation) = self.repeated(&grant, &caller).await? {
            return Ok(operation);
        }
        let id = self.backup(&grant, &request.backup_id).await?.id;
        let operation = self.executor.change_backup(id, Door::Redkeep, Spec::DeleteBackup, caller).await;
        let operation = operation.map_err(|error| status::store(error, "backup", &request.backup_id))?;
        Ok(Response::new(convert::operation(&operation)))
    }
}

/// Reads what is to change. Without a mask every field is meant, absent ones too; but beside `clear_suspect` none is.
fn changes(request: own::UpdateBackupRequest) -> Result<BackupChanges, Status> {
    let mut changes = BackupChanges { clear_suspect: request.clear_suspect, ..BackupChanges::default() };
    let mask = request.update_mask.map(|mask| mask.paths).filter(|paths| !paths.is_empty());
    if mask.is_none() && request.clear_suspect {
        // Whoever asks for this alone does not mean to empty everything else.
        return Ok(changes);
    }
    let paths = mask.unwrap_or_else(|| ["name", "labels", "expires_at", "holds"].map(str::to_owned).to_vec());
    for path in paths {
        match path.as_str() {
            "name" => changes.name = Some(request::name(&request.name)?),
            "labels" => changes.labels = Some(request::labels(request.labels.clone())),
            "expires_at" => changes.expires_at = Some(request::expiry("expires_at", request.expires_at)?.map_or(Expiry::Never, Expiry::At)),
            "holds" if request.holds.len() > HOLDS => return Err(status::invalid("holds", format!("must have at most {HOLDS} elements"))),
            "holds" => changes.holds = Some(request.holds.clone()),
            _ => return Err(status::invalid("update_mask", "must name only name, labels, expires_at and holds")),
        }
    }
    Ok(changes)
}

impl Api {
    /// The backup with this id, in any state, if the caller may touch it.
    async fn backup(&self, grant: &Grant, id: &str) -> Result<Backup, Status> {
        let backup = self.executor.store().backup(request::backup_id(id)?).await.map_err(|error| status::store(error, "backup", id))?;
        grant.folder(&backup.folder_id).map_err(|denied| status::denied(denied, "backup", id))?;
        Ok(backup)
    }

    /// A page of backups, newest first, as `shown` makes messages of them, with the next page's token.
    pub(super) async fn backups<M: Message>(
        &self,
        filter: &BackupFilter,
        page: &Page,
        shown: impl Fn(&Backup) -> Option<M> + Send + Sync,
    ) -> Result<(Vec<M>, String), Status> {
        let mut filling = page.fill()?;
        while let Some((after, rows)) = filling.next() {
            let listed = self.executor.store().backups(filter, after.map(BackupId::from_bytes), rows).await;
            let batch = listed.map_err(|error| status::store(error, "backup", ""))?;
            filling.take(&batch, rows, |backup| (*backup.id.as_bytes(), shown(backup)));
        }
        Ok(filling.end())
    }
}
