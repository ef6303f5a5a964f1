//! Clusters, their hosts and shards, and the call that this service is for: a backup of one.

use super::page::Page;
use super::{Api, convert, request, status};
use crate::auth::Grant;
use crate::backup::{Backup, Labels, Name};
use crate::cluster::View;
use crate::executor::Draft;
use crate::fleet::Definition;
use crate::operation::Door;
use crate::pb::{managed, operation as wire};
use crate::store::{BackupFilter, OperationFilter};
use futures_util::future::join_all;
use std::sync::Arc;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl managed::cluster_service_server::ClusterService for Api {
    async fn get(&self, request: Request<managed::GetClusterRequest>) -> Result<Response<managed::Cluster>, Status> {
        let (grant, request) = request::reading(request)?;
        let view = self.view(&grant, &request.cluster_id).await?;
        Ok(Response::new(convert::cluster(&view)))
    }

    async fn list(&self, request: Request<managed::ListClustersRequest>) -> Result<Response<managed::ListClustersResponse>, Status> {
        let (grant, request) = request::reading(request)?;
        let page = Page::new(request.page_size, &request.page_token, "clusters", &[&request.folder_id, &request.filter])?;
        let name = name_filter(&request.filter)?;
        let mut clusters = self.executor.fleet().list(&request::folder_id(&grant, &request.folder_id)?);
        clusters.retain(|cluster| name.is_none_or(|name| cluster.name == name));
        let (clusters, next_page_token) = page.of(clusters, |cluster| cluster.id.to_string());
        let views = join_all(clusters.iter().map(|cluster| self.executor.fleet().view(&cluster.id))).await;
        Ok(Response::new(managed::ListClustersResponse { clusters: views.iter().flatten().map(convert::cluster).collect(), next_page_token }))
    }

    async fn update(&self, request: Request<managed::UpdateClusterRequest>) -> Result<Response<wire::Operation>, Status> {
        self.update_cluster(request).await
    }

    async fn backup(&self, request: Request<managed::BackupClusterRequest>) -> Result<Response<wire::Operation>, Status> {
        let (grant, caller, request) = request::changing(request)?;
        if let Some(operation) = self.repeated(&grant, &caller).await? {
            return Ok(operation);
        }
        let cluster = self.cluster(&grant, &request.cluster_id)?;
        let draft = Draft { name: Name::made_up(), labels: Labels::new(), expires_at: None };
        let operation = self.executor.create_backup(&cluster, Door::Managed, draft, caller).await;
        let operation = operation.map_err(|error| status::store(error, "cluster", &request.cluster_id))?;
        Ok(Response::new(convert::operation(&operation)))
    }

    async fn restore(&self, request: Request<managed::RestoreClusterRequest>) -> Result<Response<wire::Operation>, Status> {
        self.restore_cluster(request).await
    }

    async fn delete(&self, request: Request<managed::DeleteClusterRequest>) -> Result<Response<wire::Operation>, Status> {
        self.delete_cluster(request).await
    }

    async fn list_operations(
        &self,
        request: Request<managed::ListClusterOperationsRequest>,
    ) -> Result<Response<managed::ListClusterOperationsResponse>, Status> {
        let (grant, request) = request::reading(request)?;
        let page = Page::new(request.page_size, &request.page_token, "cluster.operations", &[&request.cluster_id])?;
        let id = request::cluster_id(&request.cluster_id)?;
        let (operations, next_page_token) = self.operations(&OperationFilter::Cluster(id), &page, |operation| grant.sees(&operation.folder_id)).await?;
        self.known_or(&grant, &request.cluster_id, !operations.is_empty() || !page.after.is_empty())?;
        Ok(Response::new(managed::ListClusterOperationsResponse { operations, next_page_token }))
    }

    async fn list_backups(&self, request: Request<managed::ListClusterBackupsRequest>) -> Result<Response<managed::ListClusterBackupsResponse>, Status> {
        let (grant, request) = request::reading(request)?;
        let page = Page::new(request.page_size, &request.page_token, "cluster.backups", &[&request.cluster_id])?;
        let id = request::cluster_id(&request.cluster_id)?;
        let shown = |backup: &Backup| grant.sees(&backup.folder_id).then(|| convert::managed_backup(backup));
        let (backups, next_page_token) = self.backups(&BackupFilter::ClusterAvailable(id), &page, shown).await?;
        self.known_or(&grant, &request.cluster_id, !backups.is_empty() || !page.after.is_empty())?;
        Ok(Response::new(managed::ListClusterBackupsResponse { backups, next_page_token }))
    }

    async fn list_hosts(&self, request: Request<managed::ListClusterHostsRequest>) -> Result<Response<managed::ListClusterHostsResponse>, Status> {
        let (grant, request) = request::reading(request)?;
        let page = Page::new(request.page_size, &request.page_token, "cluster.hosts", &[&request.cluster_id])?;
        let zone = self.cluster(&grant, &request.cluster_id)?.zone.clone().unwrap_or_default();
        let view = self.view(&grant, &request.cluster_id).await?;
        let (hosts, next_page_token) = page.of(view.hosts, |host| host.name.clone());
        let hosts = hosts.iter().map(|host| convert::host(&request.cluster_id, &zone, host)).collect();
        Ok(Response::new(managed::ListClusterHostsResponse { hosts, next_page_token }))
    }

    async fn get_shard(&self, request: Request<managed::GetClusterShardRequest>) -> Result<Response<managed::Shard>, Status> {
        let (grant, request) = request::reading(request)?;
        let view = self.view(&grant, &request.cluster_id).await?;
        let shard = convert::shards(&view).into_iter().find(|shard| shard.name == request.shard_name);
        shard.map(Response::new).ok_or_else(|| status::not_found("shard", &request.shard_name))
    }

    async fn list_shards(&self, request: Request<managed::ListClusterShardsRequest>) -> Result<Response<managed::ListClusterShardsResponse>, Status> {
        let (grant, request) = request::reading(request)?;
        let page = Page::new(request.page_size, &request.page_token, "cluster.shards", &[&request.cluster_id])?;
        let view = self.view(&grant, &request.cluster_id).await?;
        let (shards, next_page_token) = page.of(convert::shards(&view), |shard| shard.name.clone());
        Ok(Response::new(managed::ListClusterShardsResponse { shards, next_page_token }))
    }
}

impl Api {
    /// The definition of a cluster, if the caller may touch it.
    pub(super) fn cluster(&self, grant: &Grant, id: &str) -> Result<Arc<Definition>, Status> {
        let cluster = self.executor.fleet().get(&request::cluster_id(id)?).ok_or_else(|| status::not_found("cluster", id))?;
        grant.folder(&cluster.folder_id).map_err(|denied| status::denied(denied, "cluster", id))?;
        Ok(cluster)
    }

    async fn view(&self, grant: &Grant, id: &str) -> Result<View, Status> {
        self.cluster(grant, id)?;
        self.executor.fleet().view(&request::cluster_id(id)?).await.ok_or_else(|| status::not_found("cluster", id))
    }

    /// A cluster that is not known any more keeps its backups and operations; one that never was has none.
    fn known_or(&self, grant: &Grant, id: &str, has_rows: bool) -> Result<(), Status> {
        if has_rows { Ok(()) } else { self.cluster(grant, id).map(|_| ()) }
    }
}

/// Reads `name="value"`; nothing else is understood.
fn name_filter(filter: &str) -> Result<Option<&str>, Status> {
    if filter.trim().is_empty() {
        return Ok(None);
    }
    let value = filter.trim().strip_prefix("name").map(str::trim_start).and_then(|rest| rest.strip_prefix('=')).map(str::trim);
    let value = value.and_then(|value| value.strip_prefix('"')?.strip_suffix('"')).filter(|value| !value.contains(['"', '\\']));
    value.map(Some).ok_or_else(|| status::invalid("filter", "must have the form name=\"value\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_form_of_filter_is_understood() {
        assert_eq!(name_filter("").unwrap(), None);
        assert_eq!(name_filter("name=\"main\"").unwrap(), Some("main"));
        assert_eq!(name_filter(" name = \"main\" ").unwrap(), Some("main"));
        for bad in ["name=main", "name!=\"a\"", "id=\"a\"", "name=\"a\" AND name=\"b\"", "name=\"", "nam", "name=\"a\\\"\""] {
            assert_eq!(name_filter(bad).unwrap_err().code(), tonic::Code::InvalidArgument, "{bad}");
        }
    }
}
