//! Operations: get, cancel, list, wait, watch.

use super::page::Page;
use super::{Api, convert, request, status};
use crate::auth::Grant;
use crate::executor::{Caller, Executor};
use crate::operation::{Operation, OperationId};
use crate::pb::{operation as wire, own};
use crate::store::OperationFilter;
use futures_util::stream;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

/// Most calls of Watch at once.
const WATCHERS: usize = 10_000;

/// Least time between two states of one Watch.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// Room for the calls of Watch in this process.
static WATCH_ROOM: Semaphore = Semaphore::const_new(WATCHERS);

#[tonic::async_trait]
impl wire::operation_service_server::OperationService for Api {
    async fn get(&self, request: Request<wire::GetOperationRequest>) -> Result<Response<wire::Operation>, Status> {
        let (grant, request) = request::reading(request)?;
        let operation = self.operation(&grant, &request.operation_id).await?;
        Ok(Response::new(convert::operation(&operation)))
    }

    async fn cancel(&self, request: Request<wire::CancelOperationRequest>) -> Result<Response<wire::Operation>, Status> {
        let (grant, request) = request::reading(request)?;
        let id = self.operation(&grant, &request.operation_id).await?.id;
        let operation = self.executor.cancel(id).await.map_err(|error| status::store(error, "operation", &request.operation_id))?;
        Ok(Response::new(convert::operation(&operation)))
    }
}

#[tonic::async_trait]
impl own::operation_service_server::OperationService for Api {
    async fn list(&self, request: Request<own::ListOperationsRequest>) -> Result<Response<own::ListOperationsResponse>, Status> {
        let (grant, request) = request::reading(request)?;
        let page = Page::new(request.page_size, &request.page_token, "operations", &[&request.folder_id, &request.cluster_id])?;
        let folder = request::folder_id(&grant, &request.folder_id)?;
        let filter = match request.cluster_id.as_str() {
            "" => OperationFilter::Folder(folder.clone()),
            cluster => OperationFilter::Cluster(request::cluster_id(cluster)?),
        };
        let (operations, next_page_token) = self.operations(&filter, &page, |operation| operation.folder_id == folder).await?;
        Ok(Response::new(own::ListOperationsResponse { operations, next_page_token }))
    }

    async fn wait(&self, request: Request<own::WaitOperationRequest>) -> Result<Response<own::OperationState>, Status> {
        let (grant, request) = request::reading(request)?;
        let limit = match u64::try_from(request.timeout_ms) {
            Ok(0) | Err(_) => crate::executor::WAIT_LIMIT,
            Ok(millis) => Duration::from_millis(millis),
        };
        let id = self.operation(&grant, &request.operation_id).await?.id;
        let revision = u64::try_from(request.revision).unwrap_or(0);
        let operation = self.executor.wait(id, revision, limit).await.map_err(|error| status::store(error, "operation", &request.operation_id))?;
        Ok(Response::new(state(&operation)))
    }

    async fn watch(&self, request: Request<own::WatchOperationRequest>) -> Result<Response<BoxStream<own::OperationState>>, Status> {
        let (grant, request) = request::reading(request)?;
        let name = request.operation_id;
        let room = WATCH_ROOM.try_acquire().map_err(|_| status::too_many_watchers(WATCHERS))?;
        // What is not there is told at once and not in the stream.
        let first = self.operation(&grant, &name).await?;
        let watch = Watch { executor: self.executor.clone(), id: first.id, name, next: Some(first), sent: None, is_over: false, _room: room };
        Ok(Response::new(Box::pin(stream::unfold(watch, |mut watch| async { Some((watch.step().await?, watch)) }))))
    }
}

/// An operation at its revision.
fn state(operation: &Operation) -> own::OperationState {
    own::OperationState {
        revision: i64::try_from(operation.revision).unwrap_or(i64::MAX),
        progress: Some(convert::progress(operation)),
        operation: Some(convert::operation(operation)),
    }
}

/// A call of Watch under way.
struct Watch {
    executor: Executor,
    id: OperationId,
    name: String,
    /// A state that is there already.
    next: Option<Operation>,
    /// The revision that was sent last, and when.
    sent: Option<(u64, Instant)>,
    is_over: bool,
    _room: SemaphorePermit<'static>,
}

impl Watch {
    /// The next state; `None` after the last one.
    async fn step(&mut self) -> Option<Result<own::OperationState, Status>> {
        if self.is_over {
            return None;
        }
        let operation = match self.next.take() {
            Some(operation) => Ok(operation),
            None => self.newer().await,
        };
        Some(match operation {
            Ok(operation) => {
                self.sent = Some((operation.revision, Instant::now()));
                self.is_over = operation.state.is_terminal();
                Ok(state(&operation))
            }
            Err(status) => {
                self.is_over = true;
                Err(status)
            }
        })
    }

    /// Waits for a revision that was not sent, and so long that there are not too many.
    async fn newer(&self) -> Result<Operation, Status> {
        let (revision, sent_at) = self.sent.unwrap_or((0, Instant::now()));
        tokio::time::sleep_until(sent_at + WATCH_INTERVAL).await;
        loop {
            let waited = self.executor.wait(self.id, revision.max(1), crate::executor::WAIT_LIMIT).await;
            let operation = waited.map_err(|error| status::store(error, "operation", &self.name))?;
            if operation.revision > revision || operation.state.is_terminal() {
                return Ok(operation);
            }
        }
    }
}

impl Api {
    /// The operation with this id, if the caller may touch it.
    async fn operation(&self, grant: &Grant, id: &str) -> Result<Operation, Status> {
        let operation = self.executor.get(request::operation_id(id)?).await.map_err(|error| status::store(error, "operation", id))?;
        grant.folder(&operation.folder_id).map_err(|denied| status::denied(denied, "operation", id))?;
        Ok(operation)
    }

    /// The answer to a call that was made before with the same key.
    pub(super) async fn repeated(&self, grant: &Grant, caller: &Caller) -> Result<Option<Response<wire::Operation>>, Status> {
        let known = self.executor.repeated(caller).await.map_err(|error| status::store(error, "operation", ""))?;
        let Some(mut operation) = known else { return Ok(None) };
        // The subject may have lost its role since.
        grant.folder(&operation.folder_id).map_err(|denied| status::denied(denied, "operation", &operation.id.to_string()))?;
        self.executor.refine(&mut operation);
        Ok(Some(Response::new(convert::operation(&operation))))
    }

    /// A page of operations, newest first, those that `is_shown` lets through, with the next page's token.
    pub(super) async fn operations(
        &self,
        filter: &OperationFilter,
        page: &Page,
        is_shown: impl Fn(&Operation) -> bool + Send + Sync,
    ) -> Result<(Vec<wire::Operation>, String), Status> {
        let mut filling = page.fill()?;
        while let Some((after, rows)) = filling.next() {
            let listed = self.executor.store().list(filter, after.map(OperationId::from_bytes), rows).await;
            let mut batch = listed.map_err(|error| status::store(error, "operation", ""))?;
            for operation in &mut batch {
                self.executor.refine(operation);
            }
            filling.take(&batch, rows, |operation| (*operation.id.as_bytes(), is_shown(operation).then(|| convert::operation(operation))));
        }
        Ok(filling.end())
    }
}
