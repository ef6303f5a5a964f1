//! The service under test: in this process, or as the real program in a process of its own that can be killed.

use super::until;
use redkeep::config;
use redkeep::pb::{managed, operation as wire, own};
use redkeep::server::Server;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

/// Longest wait for an operation that is to end well.
pub const OPERATION: Duration = Duration::from_secs(120);

/// The configuration of a service under test, in a folder of its own.
pub struct Setup {
    folder: Arc<tempfile::TempDir>,
    server: String,
    auth: String,
    tls: Option<String>,
    executor: String,
    artifacts: String,
    sections: String,
    clusters: String,
    secrets: String,
    buckets: String,
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

impl Setup {
    /// Ports are free ones, there is no wait after a fork, and deleted files go at once.
    pub fn new() -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a temporary folder"));
        Self {
            folder,
            server: String::new(),
            tls: None,
            auth: String::new(),
            executor: String::new(),
            artifacts: "url = \"file:artifacts\"\n".into(),
            sections: String::new(),
            clusters: String::new(),
            secrets: String::new(),
            buckets: String::new(),
        }
    }

    /// Sets a key of `[server]`, in TOML.
    pub fn server(mut self, key: &str, value: &str) -> Self {
        writeln!(self.server, "{key} = {value}").expect("a text grows");
        self
    }

    /// Speaks TLS with certificates that the program makes in the folder `tls`; `extra` are further lines of the section.
    pub fn tls(mut self, extra: &str) -> Self {
        make_certificates(&self.tls_folder());
        self.tls = Some(format!("[server.tls]\ncert = \"tls/server.pem\"\nkey = \"tls/server-key.pem\"\n{extra}\n"));
        self
    }

    /// The folder of the certificates.
    pub fn tls_folder(&self) -> PathBuf {
        self.folder().join("tls")
    }

    /// Sets a key of `[executor]`, in TOML.
    pub fn executor(mut self, key: &str, value: &str) -> Self {
        writeln!(self.executor, "{key} = {value}").expect("a text grows");
        self
    }

    /// Replaces the lines of `[auth]` and its sections. Relative files lie in [`Setup::folder`].
    pub fn auth(mut self, lines: &str) -> Self {
        self.auth = format!("{lines}\n");
        self
    }

    /// Replaces the lines of `[artifacts]`.
    pub fn artifacts(mut self, lines: &str) -> Self {
        self.artifacts = format!("{lines}\n");
        self
    }

    /// Writes a new key, and names it as the one that seals credentials.
    pub fn secrets(mut self, name: &str) -> Self {
        redkeep::secrets::Key::create(&self.folder().join(name)).expect("a key is written");
        self.secrets = format!("[secrets]\nkey_file = {name:?}\n");
        self
    }

    /// Takes the key out of the configuration.
    pub fn without_secrets(mut self) -> Self {
        self.secrets.clear();
        self
    }

    /// Adds whole sections, in TOML.
    pub fn sections(mut self, lines: &str) -> Self {
        self.sections.push_str(lines);
        self
    }

    /// Adds a cluster; `extra` are further lines of it.
    pub fn cluster(self, id: &str, nodes: &[&str], extra: &str) -> Self {
        self.cluster_of(id, &format!("{nodes:?}"), extra)
    }

    /// Adds a cluster whose server counts as a machine of its own, so that others do not wait for it.
    pub fn cluster_apart(self, id: &str, node: &str, extra: &str) -> Self {
        self.cluster_of(id, &format!("[{{ address = \"{node}\", failure_domain = \"{id}\" }}]"), extra)
    }

    /// Adds a cluster with its nodes in TOML.
    pub fn cluster_of(mut self, id: &str, nodes: &str, extra: &str) -> Self {
        writeln!(self.clusters, "[[clusters]]\nid = \"{id}\"\nnodes = {nodes}\n{extra}").expect("a text grows");
        self
    }

    /// Adds a bucket below the folder of the configuration, for backups of `folders`, a list in TOML.
    pub fn bucket(mut self, name: &str, root: &str, folders: &str) -> Self {
        writeln!(self.buckets, "[[buckets]]\nname = \"{name}\"\nurl = \"file:{root}\"\nfolders = {folders}").expect("a text grows");
        self
    }

    /// Takes all clusters and added sections away.
    pub fn without_clusters(mut self) -> Self {
        self.clusters.clear();
        self
    }

    /// Takes all buckets away.
    pub fn without_buckets(mut self) -> Self {
        self.buckets.clear();
        self
    }

    /// Adds a section with its lines, in TOML.
    pub fn section(mut self, lines: &str) -> Self {
        writeln!(self.clusters, "{lines}").expect("a text grows");
        self
    }

    /// The folder of store, artifacts and configuration.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The folder of the artifacts when they lie in the default place.
    pub fn artifact_root(&self) -> PathBuf {
        self.folder().join("artifacts")
    }

    /// Writes the configuration file, and tells where it is.
    pub fn write(&self) -> PathBuf {
        let mut executor = self.executor.clone();
        for (key, value) in [("refork_delay", "\"0s\""), ("delete_grace", "\"0s\"")] {
            if !executor.contains(key) {
                writeln!(executor, "{key} = {value}").expect("a text grows");
            }
        }
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n{}{}[store]\nurl = \"sled:store\"\n[artifacts]\n{}[executor]\n{executor}[auth]\n{}{}{}{}{}",
            self.server,
            self.tls.as_deref().unwrap_or_default(),
            self.artifacts,
            self.auth,
            self.secrets,
            self.sections,
            self.clusters,
            self.buckets
        );
        let file = self.folder().join("redkeep.toml");
        std::fs::write(&file, text).expect("the configuration is written");
        file
    }

    /// Starts the service in this process.
    pub async fn start(self) -> Service {
        let config = config::load(Some(&self.write()), &[]).expect("the configuration is sound");
        let stop = CancellationToken::new();
        let server = Server::start(config, stop.clone()).await.expect("the service starts");
        let address = server.address().expect("an address");
        let admin = server.admin_address().expect("an address").to_string();
        let running = tokio::spawn(server.run());
        let (endpoint, clients) = match &self.tls {
            None => {
                let endpoint = format!("http://{address}");
                let clients = Clients::connect(&endpoint).await;
                (endpoint, clients)
            }
            Some(_) => {
                let endpoint = format!("https://localhost:{}", address.port());
                let clients = Clients::connect_tls(&endpoint, &self.tls_folder(), true).await.expect("the service answers");
                (endpoint, clients)
            }
        };
        Service { setup: self, clients, endpoint, admin, stop, running }
    }

    /// Starts the real program in a process of its own, with variables of the environment.
    pub async fn spawn(self, environment: &[(&str, &str)]) -> Process {
        let file = self.write();
        Process::start(self, &file, environment).await.expect("the service starts")
    }
}

/// A connection on which every call carries the same token, or none.
pub type Line = InterceptedService<Channel, Login>;

/// Adds a token to every call.
#[derive(Clone, Default)]
pub struct Login(Option<MetadataValue<Ascii>>);

impl Interceptor for Login {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// Clients of every service that is built, on one connection.
#[derive(Clone)]
pub struct Clients {
    pub clusters: managed::cluster_service_client::ClusterServiceClient<Line>,
    pub managed_backups: managed::backup_service_client::BackupServiceClient<Line>,
    pub policies: managed::backup_retention_policy_service_client::BackupRetentionPolicyServiceClient<Line>,
    pub operations: wire::operation_service_client::OperationServiceClient<Line>,
    pub backups: own::backup_service_client::BackupServiceClient<Line>,
    pub own_operations: own::operation_service_client::OperationServiceClient<Line>,
    pub fleet: own::fleet_service_client::FleetServiceClient<Line>,
}

impl Clients {
    pub async fn connect(endpoint: &str) -> Self {
        let channel = Channel::from_shared(endpoint.to_owned()).expect("an address").connect().await.expect("the service answers");
        Self::over(channel, Login::default())
    }

    /// Connects as the bearer of a token.
    pub async fn connect_as(endpoint: &str, token: &str) -> Self {
        let channel = Channel::from_shared(endpoint.to_owned()).expect("an address").connect().await.expect("the service answers");
        Self::over(channel, Login(Some(format!("Bearer {token}").parse().expect("a token that can be sent"))))
    }

    /// Over TLS, with the authority and, when it is to be shown, the client's certificate of a folder that the program made.
    pub async fn connect_tls(endpoint: &str, folder: &Path, with_certificate: bool) -> Result<Self, tonic::transport::Error> {
        let read = |name: &str| std::fs::read(folder.join(name)).expect("a certificate is there");
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read("ca.pem")));
        if with_certificate {
            tls = tls.identity(Identity::from_pem(read("client.pem"), read("client-key.pem")));
        }
        Ok(Self::over(Channel::from_shared(endpoint.to_owned()).expect("an address").tls_config(tls)?.connect().await?, Login::default()))
    }

    /// Over a channel.
    pub fn over(channel: Channel, login: Login) -> Self {
        let channel = InterceptedService::new(channel, login);
        Self {
            clusters: managed::cluster_service_client::ClusterServiceClient::new(channel.clone()),
            managed_backups: managed::backup_service_client::BackupServiceClient::new(channel.clone()),
            policies: managed::backup_retention_policy_service_client::BackupRetentionPolicyServiceClient::new(channel.clone()),
            operations: wire::operation_service_client::OperationServiceClient::new(channel.clone()),
            backups: own::backup_service_client::BackupServiceClient::new(channel.clone()),
            own_operations: own::operation_service_client::OperationServiceClient::new(channel.clone()),
            fleet: own::fleet_service_client::FleetServiceClient::new(channel),
        }
    }

    /// Asks for a backup through our own schema.
    pub async fn create(&self, cluster: &str, name: &str) -> Result<wire::Operation, tonic::Status> {
        let request = own::CreateBackupRequest { cluster_id: cluster.into(), name: name.into(), ..Default::default() };
        Ok(self.backups.clone().create(request).await?.into_inner())
    }

    /// The operation as it is.
    pub async fn operation(&self, id: &str) -> wire::Operation {
        self.operations.clone().get(wire::GetOperationRequest { operation_id: id.into() }).await.expect("the operation is there").into_inner()
    }

    /// The state of an operation with its progress, waited for until `bound` when it has not ended.
    pub async fn ended(&self, id: &str, bound: Duration) -> wire::Operation {
        let clients = self.clone();
        until("the operation ends", bound, async || {
            let request = own::WaitOperationRequest { operation_id: id.into(), timeout_ms: 2000, ..Default::default() };
            let state = clients.own_operations.clone().wait(request).await.expect("the operation is there").into_inner();
            state.operation.filter(|operation| operation.done)
        })
        .await
    }

    /// How far an operation is.
    pub async fn progress(&self, id: &str) -> own::Progress {
        let request = own::WaitOperationRequest { operation_id: id.into(), timeout_ms: 1, ..Default::default() };
        self.own_operations.clone().wait(request).await.expect("the operation is there").into_inner().progress.expect("there is progress")
    }

    /// Every backup of the default folder, in any state.
    pub async fn all_backups(&self) -> Vec<own::Backup> {
        let request = own::ListBackupsRequest { page_size: 1000, ..Default::default() };
        self.backups.clone().list(request).await.expect("backups are listed").into_inner().backups
    }

    /// One backup, in any state.
    pub async fn backup(&self, id: &str) -> Result<own::Backup, tonic::Status> {
        Ok(self.backups.clone().get(own::GetBackupRequest { backup_id: id.into() }).await?.into_inner())
    }

    /// Takes a backup that is to succeed.
    pub async fn take(&self, cluster: &str, name: &str) -> own::Backup {
        let operation = self.create(cluster, name).await.expect("the backup is accepted");
        let operation = self.ended(&operation.id, OPERATION).await;
        assert!(error_of(&operation).is_none(), "{operation:#?}");
        self.all_backups().await.into_iter().find(|backup| backup.operation_id == operation.id).expect("the backup is listed")
    }
}

/// The error of an operation, if it has one.
pub fn error_of(operation: &wire::Operation) -> Option<&redkeep::pb::google::rpc::Status> {
    match &operation.result {
        Some(wire::operation::Result::Error(status)) => Some(status),
        _ => None,
    }
}

/// The reason in the error's details, such as `SOURCE_UNREACHABLE`; empty when there is none.
pub fn reason_of(operation: &wire::Operation) -> String {
    use prost::Message;
    let details = error_of(operation).map(|status| status.details.as_slice()).unwrap_or_default();
    let info = details.iter().find(|detail| detail.type_url.ends_with("/google.rpc.ErrorInfo"));
    info.and_then(|detail| redkeep::pb::google::rpc::ErrorInfo::decode(detail.value.as_slice()).ok()).map(|info| info.reason).unwrap_or_default()
}

/// Every file below a folder, by its path relative to it, in order.
pub fn files_below(root: &Path) -> Vec<String> {
    fn walk(root: &Path, folder: &Path, found: &mut Vec<String>) {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            if entry.path().is_dir() {
                walk(root, &entry.path(), found);
            } else {
                found.push(entry.path().strip_prefix(root).expect("below the root").display().to_string());
            }
        }
    }
    let mut found = Vec::new();
    walk(root, root, &mut found);
    found.sort();
    found
}

/// Has the program make certificates in a folder.
pub fn make_certificates(folder: &Path) {
    let made = Command::new(env!("CARGO_BIN_EXE_redkeep")).arg("dev-certs").arg(folder).output().expect("the program runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// The service in this process.
pub struct Service {
    pub setup: Setup,
    pub clients: Clients,
    pub endpoint: String,
    pub admin: String,
    stop: CancellationToken,
    running: JoinHandle<Result<(), redkeep::server::Error>>,
}

impl Service {
    /// Address of the API, without a scheme.
    pub fn address(&self) -> &str {
        self.endpoint.split("://").nth(1).expect("an endpoint has a scheme")
    }

    /// Stops gracefully and gives the folder back, so that another can start on it.
    pub async fn stop(self) -> Setup {
        self.stop.cancel();
        drop(self.clients);
        self.running.await.expect("the service ends").expect("it ends well");
        self.setup
    }
}

/// The real program.
pub struct Process {
    pub setup: Setup,
    pub clients: Clients,
    pub endpoint: String,
    pub admin: String,
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Process {
    async fn start(setup: Setup, file: &Path, environment: &[(&str, &str)]) -> Result<Self, String> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_redkeep"))
            .args(["serve", "--config"])
            .arg(file)
            .envs(environment.iter().copied())
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|fault| fault.to_string())?;
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = child.stderr.take().ok_or("no standard error")?;
        let lines = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                log.push_str(&line);
                log.push('\n');
            }
        });
        let mut process = Self {
            setup,
            clients: Clients::over(tonic::transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy(), Login::default()),
            endpoint: String::new(),
            admin: String::new(),
            child,
            log,
        };
        let address = until("the service listens", Duration::from_secs(30), async || {
            if let Ok(Some(status)) = process.child.try_wait() {
                return Some(Err(format!("it ended with {status}: {}", process.log())));
            }
            let log = process.log();
            let line = log.lines().find(|line| line.contains(" listening "))?;
            let address = |key: &str| Some(line.split(key).nth(1)?.split_whitespace().next()?.to_owned());
            Some(Ok((address(" listen=")?, address(" admin_listen=")?)))
        })
        .await?;
        process.endpoint = format!("http://{}", address.0);
        process.admin = address.1;
        process.clients = Clients::connect(&process.endpoint).await;
        Ok(process)
    }

    /// What it wrote to standard error so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it (SIGKILL), and gives the folder back.
    pub fn kill(mut self) -> Setup {
        let _ = self.child.kill();
        let _ = self.child.wait();
        std::mem::take(&mut self.setup)
    }

    /// Waits until it has ended by itself, and gives the folder back.
    pub async fn wait_end(mut self, bound: Duration) -> Setup {
        until("the service ends", bound, async || self.child.try_wait().ok().flatten()).await;
        std::mem::take(&mut self.setup)
    }

    /// Tells it to stop (SIGTERM).
    pub fn tell_to_stop(&self) {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().expect("kill runs");
    }

    /// Tells it to stop (SIGTERM), waits until it has ended well, and gives the folder back.
    pub async fn terminate(mut self, bound: Duration) -> Setup {
        self.tell_to_stop();
        let status = until("the service ends", bound, async || self.child.try_wait().ok().flatten()).await;
        assert!(status.success(), "{status}: {}", self.log());
        std::mem::take(&mut self.setup)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
