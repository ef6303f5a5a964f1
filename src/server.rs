//! The service: builds the rooms, binds the ports, serves, and stops gracefully.
//!
//! One accept loop of our own serves the port of the API: HTTP/1.1 and HTTP/2 alike, so that TLS and web traffic can be
//! added in one place. A second port answers questions about health, and tells metrics.

mod scrape;

use crate::api;
use crate::api::calls::Calls;
use crate::artifacts::Storage;
use crate::audit::{self, Audit};
use crate::auth::Gate;
use crate::config::{self, Config};
use crate::executor::Executor;
use crate::fleet::Fleet;
use crate::peer::Peer;
use crate::store::Store;
use crate::store::sled::{self, SledStore};
use crate::telemetry::metrics::Metrics;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Most connections at once; more wait to be accepted.
const CONNECTIONS: usize = 4096;

/// Most calls at once on one connection.
const STREAMS: u32 = 256;

/// How long calls under way may take at a graceful stop.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How often an idle connection is asked whether its client is there.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Longest wait for the first byte of a connection.
const FIRST_BYTE: Duration = Duration::from_secs(10);

/// Pause after a failed accept, when the process may be out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why the service cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration has faults.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The store cannot be opened.
    #[error("{0}")]
    Store(crate::store::Error),
    /// The store cannot be written any more.
    #[error("the store cannot be written any more, so the service ends: {0}; acknowledged work is kept and goes on after a restart")]
    Poisoned(String),
    /// The artifact storage cannot be opened.
    #[error("{0}")]
    Storage(#[from] crate::artifacts::Error),
    /// The audit log cannot be opened.
    #[error(transparent)]
    Audit(#[from] audit::Fault),
    /// A port cannot be listened on.
    #[error("{address} cannot be listened on: {what}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        what: String,
    },
    /// The rooms do not fit together: a fault of the build.
    #[error("the service cannot be put together: {0}")]
    Build(String),
}

/// Runs the service until SIGTERM or Ctrl-C.
///
/// # Errors
///
/// [`Error`], by condition.
pub async fn serve(file: Option<&Path>, flags: &[(&str, String)]) -> Result<(), Error> {
    crate::telemetry::start();
    let config = config::load(file, flags)?;
    let stop = CancellationToken::new();
    let signals = stop.clone();
    tokio::spawn(async move {
        wait_for_signal().await;
        tracing::info!("told to stop; running work may go on for the time of executor.drain; a second signal ends it at once");
        signals.cancel();
        wait_for_signal().await;
        tracing::warn!("told to stop a second time; running work goes on after the next start");
        std::process::exit(130);
    });
    let server = Server::start(config, stop.clone()).await?;
    server.run().await
}

async fn wait_for_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        let _ = tokio::signal::ctrl_c().await;
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

/// A service that listens.
pub struct Server {
    api: TcpListener,
    admin: TcpListener,
    router: Router,
    admin_router: Router,
    health: tonic_health::server::HealthReporter,
    store: Arc<SledStore>,
    executor: Executor,
    audit: Audit,
    stop: CancellationToken,
}

impl Server {
    /// Builds the rooms and binds the ports. Nothing is served before [`Server::run`].
    ///
    /// # Errors
    ///
    /// [`Error`], by condition.
    pub async fn start(config: Config, stop: CancellationToken) -> Result<Self, Error> {
        let path = config.store.clone();
        let opened = tokio::task::spawn_blocking(move || SledStore::open(sled::Options::new(path))).await;
        let store = Arc::new(opened.map_err(|_| Error::Build("the store was not opened".to_owned()))?.map_err(Error::Store)?);
        let storage = Storage::open(config.artifacts)?;
        let fleet = Arc::new(Fleet::new(config.clusters));
        let executor = Executor::new(Arc::clone(&store) as Arc<dyn Store>, fleet, storage, config.executor);
        let audit = open_audit(config.audit, executor.metrics().clone()).await?;
        let calls = Calls::new(executor.metrics().clone(), audit.clone());
        let (router, health) = api::router(executor.clone(), Arc::new(Gate::Open), calls).await.map_err(|fault| Error::Build(fault.to_string()))?;
        let (api, admin) = (listen(config.listen).await?, listen(config.admin_listen).await?);
        let admin_router = admin_router(Arc::clone(&store), stop.clone()).merge(scrape::router(executor.clone(), stop.clone()));
        if let (Ok(listen), Ok(admin_listen)) = (api.local_addr(), admin.local_addr()) {
            tracing::info!(%listen, %admin_listen, "listening");
        }
        Ok(Self { api, admin, router, admin_router, health, store, executor, audit, stop })
    }

    /// Where the API is served.
    ///
    /// # Errors
    ///
    /// When the socket cannot be asked.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.api.local_addr()
    }

    /// Where health and metrics are served.
    ///
    /// # Errors
    ///
    /// When the socket cannot be asked.
    pub fn admin_address(&self) -> std::io::Result<SocketAddr> {
        self.admin.local_addr()
    }

    /// Serves until the stop is asked for, then stops gracefully: running work first, while calls are still answered; then
    /// the ports; then the store.
    ///
    /// # Errors
    ///
    /// [`Error::Poisoned`] when the store cannot be written any more.
    pub async fn run(self) -> Result<(), Error> {
        // The ports close after the work has ended: who waits for an operation hears its end.
        let close = CancellationToken::new();
        let api = tokio::spawn(accept(self.api, self.router, close.clone()));
        let admin = tokio::spawn(accept(self.admin, self.admin_router, close.clone()));
        let work = tokio::spawn({
            let (executor, stop) = (self.executor.clone(), self.stop.clone());
            async move { executor.run(stop).await }
        });
        let poisoned = tokio::select! {
            why = self.store.poisoned() => Some(why),
            () = self.stop.cancelled() => None,
        };
        if let Some(why) = poisoned {
            return Err(Error::Poisoned(why));
        }
        // The empty name stands for the process as a whole; probes ask for it unless they are told otherwise.
        for service in crate::pb::pool().services().map(|service| service.full_name().to_owned()).chain([String::new()]) {
            self.health.set_service_status(service, tonic_health::ServingStatus::NotServing).await;
        }
        let _ = work.await;
        close.cancel();
        let _ = tokio::join!(api, admin);
        let (store, audit) = (self.store, self.audit);
        let _ = tokio::task::spawn_blocking(move || (store.close(), audit.close())).await;
        tracing::info!("stopped");
        Ok(())
    }
}

async fn open_audit(options: Option<audit::Options>, metrics: Metrics) -> Result<Audit, Error> {
    let Some(options) = options else { return Ok(Audit::none()) };
    let opened = tokio::task::spawn_blocking(move || Audit::open(options, metrics)).await;
    Ok(opened.map_err(|_| Error::Build("the audit log was not opened".to_owned()))??)
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|fault| Error::Listen { address, what: fault.kind().to_string() })
}

fn admin_router(store: Arc<SledStore>, stop: CancellationToken) -> Router {
    let ready = move || {
        let (store, stop) = (Arc::clone(&store), stop.clone());
        async move {
            match store.ready() {
                Ok(()) if stop.is_cancelled() => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned()),
                Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
                Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the store cannot be written\n".to_owned()),
            }
        }
    };
    Router::new().route("/healthz", get(|| async { "ok\n" })).route("/readyz", get(ready))
}

/// Accepts connections until `close` is cancelled, then lets calls under way end.
async fn accept(listener: TcpListener, router: Router, close: CancellationToken) {
    let graceful = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(10));
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(KEEP_ALIVE).max_concurrent_streams(STREAMS);
    loop {
        let permit = tokio::select! {
            permit = Arc::clone(&room).acquire_owned() => match permit {
                Ok(permit) => permit,
                Err(_) => break,
            },
            () = close.cancelled() => break,
        };
        let (stream, address) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(fault) => {
                    tracing::warn!(error = %fault, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            () = close.cancelled() => break,
        };
        let router = router.clone().layer(Extension(Peer { address, certificate: None }));
        tokio::spawn(serve_connection(stream, builder.clone(), router, graceful.watcher(), permit));
    }
    drop(listener);
    if tokio::time::timeout(CLOSE_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::info!("some calls did not end in time and were cut off");
    }
}

async fn serve_connection(stream: TcpStream, builder: auto::Builder<TokioExecutor>, router: Router, watcher: Watcher, permit: OwnedSemaphorePermit) {
    // Small answers must not wait for an acknowledgement. Best effort: without it the service is only slower.
    let _ = stream.set_nodelay(true);
    // Who connects and says nothing gives its place back.
    if tokio::time::timeout(FIRST_BYTE, stream.readable()).await.is_err() {
        return;
    }
    let service = TowerToHyperService::new(router);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
    if let Err(fault) = watcher.watch(connection).await {
        tracing::debug!(error = %fault, "a connection ended with an error");
    }
    drop(permit);
}
