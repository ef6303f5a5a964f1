//! Servers that speak as S3, Azure Blob Storage and Google Cloud Storage do, as `tests/engines/install-objects` installs them.
//!
//! One process of each kind serves the whole test binary, with a bucket for each test: their start takes seconds of a processor. A
//! watching shell kills them when the test process has ended, however it ended.
//!
//! There is no test server that takes uploads in parts as the XML form of Google Cloud Storage does. That form is the one of S3 with
//! other names for a few headers, so a front that renames them stands before the S3 server; see [`super::proxy::Proxy::google`].

use super::http::{Answer, ask};
use super::proxy::Proxy;
use super::server::{Guarded, Mode, PORT_ATTEMPTS, START_BOUND, free_port};
use super::until;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// Names the folder of the installed servers; `target/objects` unless set.
pub const FOLDER_VARIABLE: &str = "REDKEEP_TEST_OBJECTS";

/// Name of the account that the Azure server knows.
pub const ACCOUNT: &str = "redkeeptest";

/// A login of somebody: the S3 server refuses those who bring none, and has no secret to hold the signature against.
pub const S3_LOGIN: &str = "AWS4-HMAC-SHA256 Credential=test/20200101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";

/// What the servers speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    S3,
    Azure,
    Google,
}

/// A running server, killed when this process ends.
struct Running {
    address: String,
    /// Kept for its watch.
    _process: Mutex<Guarded>,
    _folder: TempDir,
}

static S3: OnceCell<Running> = OnceCell::const_new();
static AZURE: OnceCell<Running> = OnceCell::const_new();

/// A bucket, or container, of its own for a test.
pub struct Bucket {
    kind: Kind,
    name: String,
    /// Where it is really served.
    origin: String,
    /// Where the service is told that it is.
    endpoint: String,
    /// Stands before the server, where its kind needs that.
    _front: Option<Proxy>,
    secrets: TempDir,
}

/// The key of [`ACCOUNT`]: any bytes will do, as the server is told.
fn account_key() -> String {
    STANDARD.encode([7; 64])
}

fn folder() -> PathBuf {
    std::env::var_os(FOLDER_VARIABLE).map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/objects"), PathBuf::from)
}

/// The program that serves a kind, where it is installed.
fn program(kind: Kind) -> Option<PathBuf> {
    let program = folder().join(match kind {
        Kind::S3 | Kind::Google => "python/bin/moto_server",
        Kind::Azure => "node/node_modules/.bin/azurite-blob",
    });
    if folder().join("complete").is_file() && program.is_file() {
        return Some(program);
    }
    let hint = "run tests/engines/install-objects";
    assert!(std::env::var_os("CI").is_none(), "no server that speaks as {kind:?} does: {hint}");
    eprintln!("SKIPPED: no server that speaks as {kind:?} does; {hint}");
    None
}

async fn start(kind: Kind, program: PathBuf) -> Running {
    let folder = tempfile::Builder::new().prefix("redkeep-test-").tempdir().expect("a temporary folder");
    for _ in 0..PORT_ATTEMPTS {
        let port = free_port(Mode::Alone);
        let mut command = Command::new(&program);
        match kind {
            Kind::S3 | Kind::Google => command.args(["-H", "127.0.0.1", "-p", &port.to_string()]),
            Kind::Azure => command
                .args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string(), "--inMemoryPersistence", "--silent"])
                .args(["--skipApiVersionCheck", "--disableTelemetry"])
                .env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{}", account_key())),
        };
        let log = std::fs::File::create(folder.path().join("log")).expect("a log");
        command.current_dir(folder.path()).stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        let mut process = Guarded::spawn(command, folder.path());
        let address = format!("127.0.0.1:{port}");
        let listens = until("the object server listens", START_BOUND, async || {
            if process.exited().is_some() {
                return Some(false);
            }
            tokio::net::TcpStream::connect(&address).await.is_ok().then_some(true)
        });
        if listens.await {
            return Running { address, _process: Mutex::new(process), _folder: folder };
        }
    }
    panic!("{} does not start: {}", program.display(), std::fs::read_to_string(folder.path().join("log")).unwrap_or_default());
}

impl Bucket {
    /// Makes a bucket; `None`, told loudly, when there is no such server here.
    ///
    /// # Panics
    ///
    /// When there is none and `CI` is set, or when it does not start.
    pub async fn open(kind: Kind) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let program = program(kind)?;
        let running = match kind {
            Kind::S3 | Kind::Google => &S3,
            Kind::Azure => &AZURE,
        };
        let server = running.get_or_init(|| start(kind, program)).await.address.clone();
        // Letters and digits alone: other characters are sent in another form by clients of Google, which S3 servers do not take.
        let name = format!("redkeep{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let front = if kind == Kind::Google { Some(Proxy::google(&server).await) } else { None };
        let endpoint = front.as_ref().map_or_else(|| server.clone(), Proxy::address);
        let secrets = tempfile::tempdir().expect("a temporary folder");
        let bucket = Self { kind, name, origin: server, endpoint, _front: front, secrets };
        bucket.write_secrets("test", "");
        let made = match kind {
            Kind::S3 | Kind::Google => bucket.ask("PUT", &format!("/{}", bucket.name), &[]).await,
            Kind::Azure => bucket.ask("PUT", &format!("/{ACCOUNT}/{}", bucket.name), &[("restype", "container")]).await,
        };
        assert!(made.status / 100 == 2, "{kind:?}: {} {}", made.status, made.text());
        Some(bucket)
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Host and port of the server, for a proxy to stand before.
    pub fn server(&self) -> &str {
        &self.endpoint
    }

    /// Its address as the configuration names it.
    pub fn url(&self, prefix: &str) -> String {
        let scheme = match self.kind {
            Kind::S3 => "s3",
            Kind::Azure => "az",
            Kind::Google => "gs",
        };
        format!("{scheme}://{}/{prefix}", self.name)
    }

    /// Writes the files of the credentials, for an access key and a session token, none when it is empty.
    pub fn write_secrets(&self, access_key: &str, session_token: &str) {
        let write = |name: &str, text: &str| {
            // At once and whole, as whoever turns credentials over should.
            let path = self.secrets.path().join(name);
            let staged = path.with_extension("new");
            std::fs::write(&staged, text).expect("a secret is written");
            std::fs::rename(staged, path).expect("a secret is in place");
        };
        match self.kind {
            Kind::S3 => {
                write("access", access_key);
                write("secret", "test-secret");
                write("token", session_token);
            }
            Kind::Azure => write("account-key", &account_key()),
            Kind::Google => self.write_secrets_for(&self.endpoint),
        }
    }

    /// Writes the credentials of Google's kind, which name where the store is: at this host and port.
    pub fn write_secrets_for(&self, address: &str) {
        let account = json!({
            "gcs_base_url": format!("http://{address}"), "disable_oauth": true,
            "client_email": "", "private_key": "", "private_key_id": "",
        });
        std::fs::write(self.secrets.path().join("account.json"), account.to_string()).expect("a secret is written");
    }

    /// The folder of the files of the credentials.
    pub fn secrets(&self) -> &Path {
        self.secrets.path()
    }

    /// The lines of `[artifacts]`, or of a bucket, that lead here.
    pub fn lines(&self, prefix: &str) -> String {
        self.lines_through(prefix, &self.endpoint)
    }

    /// As [`Bucket::lines`], through a proxy at this host and port.
    pub fn lines_through(&self, prefix: &str, address: &str) -> String {
        let secret = |name: &str| self.secrets.path().join(name).display().to_string();
        let url = self.url(prefix);
        match self.kind {
            Kind::S3 => format!(
                "url = {url:?}\nendpoint = \"http://{address}\"\nregion = \"us-east-1\"\naccess_key_file = {:?}\nsecret_key_file = {:?}\nsession_token_file = {:?}\n",
                secret("access"),
                secret("secret"),
                secret("token")
            ),
            Kind::Azure => {
                format!("url = {url:?}\nendpoint = \"http://{address}/{ACCOUNT}\"\naccount = {ACCOUNT:?}\naccess_key_file = {:?}\n", secret("account-key"))
            }
            Kind::Google => format!("url = {url:?}\nendpoint = \"http://{address}\"\nservice_account_file = {:?}\n", secret("account.json")),
        }
    }

    /// The keys of all objects, in order.
    pub async fn objects(&self) -> Vec<String> {
        let (path, query, tag) = match self.kind {
            Kind::S3 | Kind::Google => (format!("/{}", self.name), vec![("list-type", "2")], "Key"),
            Kind::Azure => (format!("/{ACCOUNT}/{}", self.name), vec![("comp", "list"), ("restype", "container")], "Name"),
        };
        let answer = self.ask("GET", &path, &query).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let mut keys = between(&answer.text(), tag);
        keys.sort();
        keys
    }

    /// The keys of uploads in parts that were begun and neither completed nor aborted, in order.
    pub async fn unfinished(&self) -> Vec<String> {
        let mut keys = match self.kind {
            Kind::S3 | Kind::Google => {
                let answer = self.ask("GET", &format!("/{}", self.name), &[("uploads", "")]).await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                between(&answer.text(), "Key")
            }
            Kind::Azure => {
                let whole = self.objects().await;
                let query = [("comp", "list"), ("include", "uncommittedblobs"), ("restype", "container")];
                let answer = self.ask("GET", &format!("/{ACCOUNT}/{}", self.name), &query).await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                between(&answer.text(), "Name").into_iter().filter(|key| !whole.contains(key)).collect()
            }
        };
        keys.sort();
        keys
    }

    /// The bytes of an object.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub async fn read(&self, key: &str) -> Vec<u8> {
        let answer = self.ask("GET", &self.path(key), &[]).await;
        assert_eq!(answer.status, 200, "{key}: {}", answer.text());
        answer.body
    }

    /// Takes an object away behind the back of the service.
    pub async fn remove(&self, key: &str) {
        let answer = self.ask("DELETE", &self.path(key), &[]).await;
        assert!(answer.status / 100 == 2, "{key}: {}", answer.text());
    }

    fn path(&self, key: &str) -> String {
        match self.kind {
            Kind::S3 | Kind::Google => format!("/{}/{key}", self.name),
            Kind::Azure => format!("/{ACCOUNT}/{}/{key}", self.name),
        }
    }

    /// Asks the server itself, never through a proxy. The query is in order of its names.
    async fn ask(&self, method: &str, path: &str, query: &[(&str, &str)]) -> Answer {
        let text: Vec<String> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let target = if text.is_empty() { path.to_owned() } else { format!("{path}?{}", text.join("&")) };
        let mut lines = vec![format!("{method} {target} HTTP/1.1"), format!("Host: {}", self.origin), "Content-Length: 0".to_owned()];
        if self.kind != Kind::Azure {
            lines.push(format!("Authorization: {S3_LOGIN}"));
        } else {
            let date = chrono::Utc::now().format("%a, %d %b %Y %H:%M:%S GMT");
            let headers = format!("x-ms-date:{date}\nx-ms-version:2023-11-03\n");
            let resource: String = query.iter().map(|(name, value)| format!("\n{name}:{value}")).collect();
            // Eleven headers that this request does not have.
            let signed = format!("{method}{}{headers}/{ACCOUNT}{path}{resource}", "\n".repeat(12));
            let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(account_key()).expect("a key"));
            let signature = STANDARD.encode(hmac::sign(&key, signed.as_bytes()));
            lines.extend(headers.lines().map(|line| line.replacen(':', ": ", 1)));
            lines.push(format!("Authorization: SharedKey {ACCOUNT}:{signature}"));
        }
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        ask(&self.origin, &lines, &[]).await
    }
}

/// The texts of all elements of this name.
fn between(text: &str, tag: &str) -> Vec<String> {
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    text.split(&open).skip(1).filter_map(|rest| Some(rest.split_once(&close)?.0.to_owned())).collect()
}
