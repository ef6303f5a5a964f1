//! The service: builds the rooms, binds the ports, serves, and stops gracefully.
//!
//! One accept loop of our own serves every port, clear text and TLS, HTTP/1.1 and HTTP/2 alike. The port of the API is one
//! for all protocols; a second one answers questions about health and tells metrics, always in clear text.

mod accept;
mod calls;
mod connection;
mod deadline;
mod doors;
mod guard;
mod refusal;
mod scrape;
#[cfg(test)]
mod tests;
mod tls;
mod traffic;

use crate::api;
use crate::api::calls::Calls;
use crate::artifacts::Storage;
use crate::audit::{self, Audit};
use crate::auth::{self, Gate};
use crate::config::{self, Config, Limits};
use crate::downloads;
use crate::executor::Executor;
use crate::fleet::Fleet;
use crate::gateway;
use crate::links::Signer;
use crate::memstore;
use crate::schedule::Schedule;
use crate::store::Clock;
use crate::store::Store;
use crate::store::sled::{self, SledStore};
use crate::telemetry::metrics::Metrics;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use connection::Port;
use doors::{Doors, Rooms};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tls::Certificates;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Most connections at once to the port of health.
const ADMIN_CONNECTIONS: usize = 128;

/// Longest wait at the start for a storage to be looked into.
const STORAGE_TIMEOUT: Duration = Duration::from_secs(10);

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
    /// A bucket cannot be used.
    #[error(transparent)]
    Bucket(#[from] crate::artifacts::bucket::Unusable),
    /// Callers could not be recognised.
    #[error("{0}")]
    Auth(#[from] auth::StartError),
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
    /// The certificates cannot be used.
    #[error("{0}")]
    Tls(#[from] tls::Fault),
    /// The rooms do not fit together: a fault of the build.
    #[error("the service cannot be put together: {0}")]
    Build(String),
}

/// Chooses the cryptography of the process, for whatever speaks TLS in it. Every call after the first changes nothing.
pub fn install_crypto() {
    // The only fault is that there is one already, and then it is this one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
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
    doors: Doors,
    admin_doors: Doors,
    options: config::Server,
    admin_options: config::Server,
    certificates: Option<Arc<Certificates>>,
    health: tonic_health::server::HealthReporter,
    store: Arc<SledStore>,
    executor: Executor,
    schedule: Schedule,
    audit: Audit,
    stop: CancellationToken,
}

/// Says which storage cannot be reached. The service starts all the same: what needs storage waits for it.
async fn look_at_storage(storage: Storage, stop: CancellationToken) {
    let Some(faults) = stop.run_until_cancelled(storage.unreachable(STORAGE_TIMEOUT)).await else { return };
    for (place, fault) in faults {
        tracing::warn!(place, error = %fault, "a storage cannot be used just now; backups wait for it");
    }
}

impl Server {
    /// Builds the rooms and binds the ports. Nothing is served before [`Server::run`].
    ///
    /// # Errors
    ///
    /// [`Error`], by condition.
    pub async fn start(config: Config, stop: CancellationToken) -> Result<Self, Error> {
        install_crypto();
        let certificates = config.server.tls.clone().map(Certificates::open).transpose()?.map(Arc::new);
        let path = config.store.clone();
        let opened = tokio::task::spawn_blocking(move || SledStore::open(sled::Options::new(path))).await;
        let store = Arc::new(opened.map_err(|_| Error::Build("the store was not opened".to_owned()))?.map_err(Error::Store)?);
        let storage = Storage::open(config.artifacts)?.with_buckets(config.buckets)?.with_encryption(config.encryption);
        tokio::spawn(look_at_storage(storage.clone(), stop.clone()));
        // Without a key of its own a process makes one up: what it signs ends with it.
        let tokens = config.secrets.as_ref().map_or_else(auth::Key::random, |key| Ok(auth::Key::new(key.tokens())));
        let tokens = tokens.map_err(|fault| Error::Build(fault.to_owned()))?;
        let links_key = config.secrets.as_ref().map(|key| *key.downloads());
        let fleet = Arc::new(Fleet::new(config.clusters).with_key(config.secrets));
        let executor = Executor::new(Arc::clone(&store) as Arc<dyn Store>, fleet, storage, config.executor);
        executor.know_adopted().await.map_err(Error::Store)?;
        let schedule = Schedule::new(executor.clone(), Clock::system(), config.schedule);
        let (api, admin) = (listen(config.listen)?, listen(config.admin_listen)?);
        let (listen, admin_listen) = (address(&api)?, address(&admin)?);

        let mut options = config.server;
        options.limits.max_connections = accept::affordable(options.limits.max_connections);
        let gate = Arc::new(Gate::open(config.auth, tokens)?);
        let advertise = options.advertised(listen).to_string();
        let origin = options.origin(listen);
        let links = links_key.map_or_else(|| Signer::random(origin.clone()), |key| Ok(Signer::new(&key, origin.clone())));
        let links = Arc::new(links.map_err(|fault| Error::Build(fault.to_owned()))?);
        let audit = open_audit(config.audit, executor.metrics().clone()).await?;
        executor.record_in(audit.clone());
        let calls = Calls::new(executor.metrics().clone(), audit.clone());
        let (grpc, health) = api::router(executor.clone(), Arc::clone(&gate), calls.clone(), Arc::clone(&links), &advertise)
            .await
            .map_err(|fault| Error::Build(fault.to_string()))?;
        let downloads = downloads::router(executor.clone(), links, calls.clone());
        let memstore = config.memstore.enabled.then(|| memstore::router(executor.clone(), gate, calls, config.memstore));
        let rest = gateway::router(grpc.clone(), gateway::Options { ignored_parameters: options.ignored_parameters.clone() })
            .map_err(|fault| Error::Build(fault.to_string()))?;
        let doors = Doors::new(Rooms { grpc: Some(grpc), memstore, rest: rest.merge(downloads) }, &options, listen);

        let limits = Limits { max_connections: ADMIN_CONNECTIONS, max_in_flight: ADMIN_CONNECTIONS, ..options.limits.clone() };
        let admin_options = config::Server { cors_origins: Vec::new(), tls: None, limits, ..options.clone() };
        let admin_router = admin_router(Arc::clone(&store), stop.clone()).merge(scrape::router(executor.clone(), stop.clone()));
        let admin_doors = Doors::new(Rooms { grpc: None, memstore: None, rest: admin_router }, &admin_options, admin_listen);

        tracing::info!(%listen, %admin_listen, tls = certificates.is_some(), "listening");
        if !admin_listen.ip().is_loopback() {
            tracing::warn!(%admin_listen, "health and metrics are served beyond loopback, in clear text and to everybody; keep the port inside of your network");
        }
        Ok(Self { api, admin, doors, admin_doors, options, admin_options, certificates, health, store, executor, schedule, audit, stop })
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
        if let Some(certificates) = self.certificates.clone() {
            tokio::spawn(certificates.follow(close.clone()));
        }
        let api = Port::new(self.doors, self.certificates, self.options.limits, close.clone());
        let admin = Port::new(self.admin_doors, None, self.admin_options.limits, close.clone());
        let api = tokio::spawn(accept::accept(self.api, Arc::new(api)));
        let admin = tokio::spawn(accept::accept(self.admin, Arc::new(admin)));
        let work = tokio::spawn({
            let (executor, stop) = (self.executor.clone(), self.stop.clone());
            async move { executor.run(stop).await }
        });
        let schedule = tokio::spawn(self.schedule.run(self.stop.clone()));
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
        let _ = tokio::join!(work, schedule);
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

fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    accept::listen(address).map_err(|fault| Error::Listen { address, what: fault.kind().to_string() })
}

/// The address with the port that the system has chosen where none was given.
fn address(listener: &TcpListener) -> Result<SocketAddr, Error> {
    listener.local_addr().map_err(|fault| Error::Build(format!("a port cannot be asked for its address: {}", fault.kind())))
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
