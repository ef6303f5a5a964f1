//! One backup through the service, and the shell pipe that does the same, each timed.

#![allow(dead_code, reason = "every bench uses a part")]

use crate::figures::{cpu_of, cpu_of_children};
use crate::it::support::objects::{Bucket, Kind};
use crate::it::support::server::RedisServer;
use crate::it::support::service::{Process, Setup, error_of, files_below};
use crate::it::support::until;
use age::secrecy::ExposeSecret;
use redkeep::pb::own;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for one backup.
pub const BACKUP: Duration = Duration::from_secs(3600);
/// Longest wait for the source and the storage to come to rest between two turns.
pub const REST: Duration = Duration::from_secs(120);

/// What is done with a dump on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pipeline {
    Plain,
    Zstd,
    ZstdAge,
}

impl Pipeline {
    pub const ALL: [Self; 3] = [Self::Plain, Self::Zstd, Self::ZstdAge];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Zstd => "zstd",
            Self::ZstdAge => "zstd+age",
        }
    }

    /// Those that `REDKEEP_BENCH_PIPELINES` names, such as `plain,zstd`; all of them when it is not set. The last needs the
    /// `age` tool, and is left out loudly without.
    pub fn chosen() -> Vec<Self> {
        let names = std::env::var("REDKEEP_BENCH_PIPELINES").unwrap_or_else(|_| "plain,zstd,zstd+age".to_owned());
        let named = |name: &str| Self::ALL.into_iter().find(|pipeline| pipeline.as_str() == name).unwrap_or_else(|| panic!("no pipeline is named {name:?}"));
        let mut chosen: Vec<Self> = names.split(',').map(|name| named(name.trim())).collect();
        if Command::new("age").arg("--version").output().is_err() {
            eprintln!("SKIPPED: there is no age tool here, so nothing is measured beside it");
            chosen.retain(|pipeline| *pipeline != Self::ZstdAge);
        }
        chosen
    }

    /// A service that stores like this, there, for one cluster `main` with this node.
    pub fn setup(self, keys: &Keys, store: &Store, node: &str) -> Setup {
        let compression = if self == Self::Plain { "none" } else { "zstd:1" };
        let recipients = if self == Self::ZstdAge { format!("age_recipients = [{:?}]\n", keys.public) } else { String::new() };
        let root = match store {
            Store::File => "url = \"file:artifacts\"\n".to_owned(),
            Store::S3(bucket) => bucket.lines("backups"),
        };
        Setup::new().artifacts(&format!("{root}compression = \"{compression}\"\n{recipients}")).cluster("main", &[node], "")
    }

    /// The tools behind `redis-cli --rdb -`.
    fn tools(self, keys: &Keys) -> Vec<Command> {
        let mut tools = Vec::new();
        if self != Self::Plain {
            let mut zstd = Command::new("zstd");
            zstd.args(["-1", "-T2", "-q", "-c"]);
            tools.push(zstd);
        }
        if self == Self::ZstdAge {
            let mut age = Command::new("age");
            age.args(["-r", &keys.public]);
            tools.push(age);
        }
        tools
    }

    /// The tools that give the dump back.
    fn tools_back(self, keys: &Keys) -> Vec<Command> {
        let mut tools = Vec::new();
        if self == Self::ZstdAge {
            let mut age = Command::new("age");
            age.args(["-d", "-i"]).arg(&keys.file);
            tools.push(age);
        }
        if self != Self::Plain {
            let mut zstd = Command::new("zstd");
            zstd.args(["-d", "-q", "-c"]);
            tools.push(zstd);
        }
        tools
    }
}

/// Where a dump goes.
pub enum Store {
    /// A folder on this disk.
    File,
    /// A bucket of the S3 server of the tests.
    S3(Box<Bucket>),
}

/// Sends what comes in to an object by boto3, in parts, as the command line of S3 does; or gives the object out.
const S3_CLIENT: &str = "
import sys, boto3
way, endpoint, bucket, key = sys.argv[1:]
client = boto3.client('s3', endpoint_url=endpoint, region_name='us-east-1', aws_access_key_id='test', aws_secret_access_key='test-secret')
if way == 'put': client.upload_fileobj(sys.stdin.buffer, bucket, key)
elif way == 'get': client.download_fileobj(bucket, key, sys.stdout.buffer)
else: client.delete_object(Bucket=bucket, Key=key)
";

/// Key of the pipe's object.
const PIPE_KEY: &str = "pipe";

impl Store {
    /// Those that `REDKEEP_BENCH_STORES` names, such as `file,s3`; the folder alone when it is not set. The S3 server has to be
    /// installed.
    pub async fn chosen() -> Vec<Self> {
        let names = std::env::var("REDKEEP_BENCH_STORES").unwrap_or_else(|_| "file".to_owned());
        let mut chosen = Vec::new();
        for name in names.split(',') {
            match name.trim() {
                "file" => chosen.push(Self::File),
                "s3" => chosen.extend(Bucket::open(Kind::S3).await.map(|bucket| Self::S3(Box::new(bucket)))),
                other => panic!("no store is named {other:?}"),
            }
        }
        chosen
    }

    pub fn as_str(&self) -> &'static str {
        match self {
            Self::File => "a folder",
            Self::S3(_) => "S3",
        }
    }

    /// The end of a pipe that leads there; none where that is a file.
    fn client(&self, way: &str) -> Option<Command> {
        let Self::S3(bucket) = self else { return None };
        let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/objects/python/bin/python");
        let mut client = Command::new(python);
        client.args(["-c", S3_CLIENT, way, &format!("http://{}", bucket.server()), bucket.name(), PIPE_KEY]);
        Some(client)
    }

    /// Removes what the pipe has left.
    pub fn clear(&self, file: &Path) {
        match self.client("delete") {
            None => fs::remove_file(file).expect("the pipe's file goes"),
            Some(mut client) => well(&mut client.stdin(Stdio::null()).spawn().expect("the client starts")),
        }
    }

    /// Whether no dump lies where the service stores.
    async fn is_empty(&self, service: &Process) -> bool {
        let files = match self {
            Self::File => files_below(&service.setup.artifact_root()),
            Self::S3(bucket) => bucket.objects().await,
        };
        files.iter().all(|file| !file.contains(".rdb"))
    }
}

/// A key pair of age; the secret one lies in a file.
pub struct Keys {
    public: String,
    file: PathBuf,
}

impl Keys {
    pub fn new(folder: &Path) -> Self {
        let (key, file) = (age::x25519::Identity::generate(), folder.join("key"));
        fs::write(&file, format!("{}\n", key.to_string().expose_secret())).expect("a key can be written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("its mode can be set");
        Self { public: key.to_public().to_string(), file }
    }
}

/// What one turn took, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    pub wall: f64,
    pub cpu: f64,
}

impl std::ops::Add for Turn {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { wall: self.wall + other.wall, cpu: self.cpu + other.cpu }
    }
}

/// Waits until the source has no child, and until nothing waits to be written.
pub async fn rest(source: &RedisServer, folder: &Path) {
    source.wait_info("rdb_bgsave_in_progress", |value| value == "0").await;
    source.wait_info("connected_slaves", |value| value == "0").await;
    rustix::fs::syncfs(File::open(folder).expect("the folder can be opened")).expect("the disk is in order");
}

/// A backup from the call to the end of its operation; then it is deleted.
pub async fn back_up(service: &Process, store: &Store, name: &str) -> (Turn, own::Backup) {
    let clients = &service.clients;
    let cpu = cpu_of(service.pid());
    let started = Instant::now();
    let operation = clients.create("main", name).await.expect("the backup is accepted");
    let operation = clients.ended(&operation.id, BACKUP).await;
    let turn = Turn { wall: started.elapsed().as_secs_f64(), cpu: cpu_of(service.pid()) - cpu };
    assert!(error_of(&operation).is_none(), "{operation:#?}\n{}", service.log());

    let backup = clients.all_backups().await.into_iter().find(|backup| backup.operation_id == operation.id).expect("the backup is listed");
    let deletion = clients.backups.clone().delete(own::DeleteBackupRequest { backup_id: backup.id.clone() }).await.expect("the deletion is accepted");
    clients.ended(&deletion.into_inner().id, REST).await;
    until("the files of the backup go", REST, async || store.is_empty(service).await.then_some(())).await;
    (turn, backup)
}

/// The shortest way to a dump that is on disk, or in the store, processed like this.
pub fn pipe(pipeline: Pipeline, keys: &Keys, store: &Store, port: u16, file: &Path) -> Turn {
    timed(|| match store.client("put") {
        None => {
            run(dump(port), pipeline.tools(keys), File::create(file).expect("the file can be made"));
            well(&mut Command::new("sync").arg(file).spawn().expect("sync starts"));
        }
        Some(client) => {
            let mut tools = pipeline.tools(keys);
            tools.push(client);
            run(dump(port), tools, nowhere());
        }
    })
}

/// What it takes to check the file of a pipe with tools: the dump is given back and walked by `redis-check-rdb`, which reads
/// files only.
pub fn check(pipeline: Pipeline, keys: &Keys, store: &Store, file: &Path, dump: &Path) -> Turn {
    timed(|| {
        let mut tools = pipeline.tools_back(keys);
        let rdb = if let Some(mut client) = store.client("get") {
            client.stdin(Stdio::null());
            run(client, tools, File::create(dump).expect("the file can be made"));
            dump
        } else if tools.is_empty() {
            file
        } else {
            let mut first = tools.remove(0);
            first.stdin(File::open(file).expect("the file is there"));
            run(first, tools, File::create(dump).expect("the file can be made"));
            dump
        };
        well(&mut Command::new("redis-check-rdb").arg(rdb).stdout(Stdio::null()).spawn().expect("redis-check-rdb starts"));
    })
}

/// What the source itself takes for a dump that nobody keeps.
pub fn floor(port: u16) -> Turn {
    timed(|| run(dump(port), Vec::new(), nowhere()))
}

fn nowhere() -> File {
    File::options().write(true).open("/dev/null").expect("it can be written")
}

fn timed(work: impl FnOnce()) -> Turn {
    let cpu = cpu_of_children();
    let started = Instant::now();
    work();
    Turn { wall: started.elapsed().as_secs_f64(), cpu: cpu_of_children() - cpu }
}

/// Starts the tools as one pipe into a file, and returns when all of them have ended well.
fn run(first: Command, rest: Vec<Command>, output: File) {
    let count = rest.len();
    let mut output = Some(output);
    let mut children: Vec<Child> = Vec::new();
    let mut stream: Option<ChildStdout> = None;
    for (index, mut command) in std::iter::once(first).chain(rest).enumerate() {
        if let Some(stream) = stream.take() {
            command.stdin(stream);
        }
        let to = if index == count { Stdio::from(output.take().expect("one tool is the last")) } else { Stdio::piped() };
        let mut child = command.stdout(to).stderr(Stdio::null()).spawn().unwrap_or_else(|fault| panic!("{command:?} does not start: {fault}"));
        stream = child.stdout.take();
        children.push(child);
    }
    children.iter_mut().for_each(well);
}

fn dump(port: u16) -> Command {
    let mut command = Command::new("redis-cli");
    command.args(["-p", &port.to_string(), "--rdb", "-"]).stdin(Stdio::null());
    command
}

fn well(child: &mut Child) {
    let status = child.wait().expect("a child can be waited for");
    assert!(status.success(), "a child ended with {status}");
}

/// The most memory that a process has held at once, in bytes.
pub fn peak_bytes(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it tells its peak");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number of KiB") * 1024.0
}
