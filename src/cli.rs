//! The command line: what can be said on it, and the commands that speak to a running service.
//!
//! Owns the words of every command, the exit statuses and all that is printed. The client commands know the service only
//! through the wire; `serve`, `demo`, `store` and `config` are only read here and carried out elsewhere.

mod adopt;
mod arguments;
mod backup;
mod client;
mod cluster;
mod descriptors;
mod dev_certs;
mod error;
mod json;
mod local;
mod operation;
mod plan;
mod print;
mod restore;
mod table;
mod text;
mod token;
mod wait;

pub use arguments::{Address, Expires, Token};
pub use error::{Error, Exit};
pub use plan::{CreatePolicy, DeletePolicy, ListPolicies, OrNone, Policies, PolicyCommand, UpdateCluster};
pub use restore::Login;

use crate::auth::Role;
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use client::Session;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

const EXIT_STATUSES: &str = "\
Exit status:
  0  done
  1  failed: the operation ended with an error, or the service did
  2  the command or a value in it is not valid
  3  no such cluster, backup or operation
  4  refused by the present state, or by another operation
  5  not logged in, or not allowed
  6  the service cannot be reached
  130  interrupted; an operation goes on without us";

const EXAMPLES: &str = "\
Examples:
  redkeep serve --config redkeep.toml
  redkeep cluster check main
  redkeep backup create main --name before-upgrade --expires 30d --wait
  redkeep backup list -o json | jq -r '.backups[].id'

";

const CREATE_EXAMPLES: &str = "\
Examples:
  redkeep backup create main --wait
  redkeep backup create main --name nightly-7 --label team=shop --expires 30d
  redkeep backup create main --expires 2030-01-31T00:00:00Z --idempotency-key release-41";

const ADOPT_EXAMPLES: &str = "\
Examples:
  redkeep cluster adopt --node 10.0.0.1:6379 --node 10.0.0.2:6379 --id shop --wait
  redkeep cluster adopt --node redis-0.example:6379 --username backup --password-file secrets/shop --tls-ca ca.pem --wait
  pass show redis/shop | redkeep cluster adopt --node 10.0.0.1:6379 --username backup --password-file -";

const CLUSTER_RESTORE_EXAMPLES: &str = "\
Examples:
  redkeep cluster restore BACKUP --name shop-restored --wait
  redkeep cluster restore BACKUP --name shop-restored --replicas 1 --version 8.0-valkey --wait";

const UPDATE_EXAMPLES: &str = "\
Examples:
  redkeep backup update ID --name before-upgrade
  redkeep backup update ID --hold 'case 1729' --expires never
  redkeep backup update ID --no-holds --expires 7d";

const COPY_EXAMPLES: &str = "\
Examples:
  redkeep backup copy ID --name keep-2030 --wait";

const EXPORT_EXAMPLES: &str = "\
Examples:
  redkeep backup export ID --bucket reports --wait
  redkeep backup export ID --bucket reports --path daily/2030-01-31 --as-stored";

const IMPORT_EXAMPLES: &str = "\
Examples:
  redkeep backup import --cluster main --bucket reports --object old/dump.rdb --wait
  redkeep backup import --cluster shards --bucket reports --object a.rdb.zst --object b.rdb.zst --name before-the-move";

const RESTORE_EXAMPLES: &str = "\
Examples:
  redkeep backup restore ID --into 127.0.0.1:6379 --wait
  redkeep backup restore ID --into main/10.0.0.1:6379 --overwrite 250000 --wait
  redkeep backup restore ID --into 10.0.0.9:6379 --shard shard2 --username admin --password-file secrets/new --wait
  redkeep backup restore ID --into main --dry-run --wait
  redkeep backup restore ID --into 127.0.0.1:6379 --pattern 'user:*' --type hash --on-conflict skip --wait";

const FETCH_EXAMPLES: &str = "\
Examples:
  redkeep fetch /srv/redkeep/default/main/0199.../1 --to restored
  redkeep fetch s3://backups/prod/default/main/0199.../1 --to restored
  redkeep fetch gs://backups/default/main/0199.../1/manifest.json --to restored --age-identity-file keys.txt";

const RESTORE_STORED_EXAMPLES: &str = "\
Examples:
  redkeep restore /srv/redkeep/default/main/0199.../1 --into 127.0.0.1:6379
  redkeep restore s3://backups/prod/default/main/0199.../1 --into 10.0.0.9:6379 --overwrite 250000 --password-file secrets/new";

const VERIFY_EXAMPLES: &str = "\
Examples:
  redkeep backup verify ID --wait
  redkeep backup verify ID --level walked

LOADED is the highest level a backup can reach: a real server has loaded it and has what it should have. The server is one of
this machine's programs, runs in a private folder of the service, and is gone afterwards.";

const LINKS_EXAMPLES: &str = "\
Examples:
  redkeep backup download-links ID
  curl -OJ \"$(redkeep backup download-links ID -o json | jq -r '.links[0].url')\"";

const EXPIRE_EXAMPLES: &str = "\
Examples:
  redkeep backup expire main --dry-run
  redkeep backup expire main";

const REBUILD_EXAMPLES: &str = "\
Examples:
  mv data/store data/store.broken
  redkeep store rebuild --config redkeep.toml --deep";

const TOKEN_EXAMPLES: &str = "\
Examples:
  redkeep token create --file secrets/tokens --subject alice --folder shop --role editor --expires 90d
  redkeep token create --file secrets/tokens --subject watch --folder '*' --role auditor
  export REDKEEP_TOKEN=$(redkeep token create --file secrets/tokens --subject me --folder default --role admin)";

const REVOKE_EXAMPLES: &str = "\
Examples:
  redkeep token revoke --file secrets/tokens --subject alice
  redkeep token revoke --file secrets/tokens --id 9f86d081884c";

/// Backups of Redis and Valkey as long-running operations.
#[derive(Parser, Debug)]
#[command(name = "redkeep", version, after_help = format!("{EXAMPLES}{EXIT_STATUSES}"), max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one value in the life of the process")]
pub enum Command {
    /// Run the service.
    ///
    /// Flags win over the environment (REDKEEP_SERVER__LISTEN and so on), the environment over the file. Relative paths in the
    /// file are relative to it. The service stops gracefully at SIGTERM or Ctrl-C.
    Serve(Serve),
    /// Show everything at work, on servers started for the purpose.
    ///
    /// Starts a primary and a replica with sample data and the service, takes a backup, proves it by loading it into an empty
    /// server, tells where the file lies, and cleans up. Needs a Redis or Valkey server program on this machine.
    Demo(Demo),
    /// Commands that ask a running service.
    #[command(flatten)]
    Client(Client),
    /// Write the RDB files of a backup, checked, with nothing but its storage: no service is asked.
    #[command(after_help = FETCH_EXAMPLES)]
    Fetch(Fetch),
    /// Restore a backup into a running server with nothing but its storage: no service is asked.
    ///
    /// As `backup restore`, with the same checks before anything is changed.
    #[command(after_help = RESTORE_STORED_EXAMPLES)]
    Restore(Restore),
    /// Look after the store of the service.
    #[command(subcommand)]
    Store(Store),
    /// Look at the configuration.
    #[command(subcommand)]
    Config(Config),
    /// Look after the key that seals credentials.
    #[command(subcommand)]
    Secrets(Secrets),
    /// Make, show and revoke the tokens that callers log in with.
    ///
    /// Works on the token file that the configuration names with auth.file. A running service sees a change within about a
    /// second.
    #[command(subcommand)]
    Token(Tokens),
    /// Write the descriptors of the whole API, for tools such as grpcurl.
    ///
    /// The output is an encoded google.protobuf.FileDescriptorSet with every import, option and comment.
    #[command(after_help = "Examples:\n  redkeep descriptors > redkeep.binpb\n  grpcurl -protoset redkeep.binpb list")]
    Descriptors(Descriptors),
    /// Make certificates to try TLS with, for localhost, 127.0.0.1 and ::1.
    ///
    /// They are good for a year. The key of their authority is not kept, so nobody can make more of them. Not for production.
    #[command(after_help = "Examples:\n  redkeep dev-certs tls\n  redkeep backup list --endpoint https://localhost:7379 --ca tls/ca.pem")]
    DevCerts(DevCerts),
}

/// Commands that ask a running service.
#[derive(Subcommand, Debug)]
pub enum Client {
    /// Clusters that the service knows.
    Cluster(Clusters),
    /// Backups, in any state.
    Backup(Backups),
    /// Retention policies: days on which backups are taken, and how long those are kept.
    Policy(Policies),
    /// Operations: the record of every change.
    Operation(Operations),
}

/// Arguments of `serve`.
#[derive(Args, Debug)]
pub struct Serve {
    /// Configuration file; without one, redkeep.toml of this folder where there is one, else the defaults.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address of the API, such as 127.0.0.1:7379 [configuration: server.listen].
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// Address of the health checks, such as 127.0.0.1:7380 [configuration: server.admin_listen].
    #[arg(long, value_name = "HOST:PORT")]
    pub admin_listen: Option<String>,
}

impl Serve {
    /// The flags that stand for a value of the configuration, each with its dotted key.
    pub fn overrides(&self) -> Vec<(&'static str, String)> {
        [("server.listen", &self.listen), ("server.admin_listen", &self.admin_listen)]
            .into_iter()
            .filter_map(|(key, value)| Some((key, value.clone()?)))
            .collect()
    }
}

/// Arguments of `demo`.
#[derive(Args, Debug)]
pub struct Demo {
    /// Leave everything running until Ctrl-C.
    #[arg(long)]
    pub keep: bool,
}

/// Commands on the store.
#[derive(Subcommand, Debug)]
pub enum Store {
    /// Check that the records in the store hold together. The service must not be running on it.
    Verify(FromConfig),
    /// Make the records of backups again out of what storage has, after the loss of the store.
    ///
    /// Lists the storage of the configuration, takes of each backup the newest whole manifest and the newest facts, and looks at the
    /// lengths of its files. The service must not be running. What is in storage stays as it is.
    #[command(after_help = REBUILD_EXAMPLES)]
    Rebuild(RebuildStore),
}

/// Arguments of `store rebuild`.
#[derive(Args, Debug)]
pub struct RebuildStore {
    /// The configuration.
    #[command(flatten)]
    pub from: FromConfig,
    /// Add to a store that has backups: those that it has stay as they are.
    #[arg(long)]
    pub merge: bool,
    /// Read every byte, and hold it against the digests of the manifests.
    #[arg(long)]
    pub deep: bool,
}

/// Commands on the configuration.
#[derive(Subcommand, Debug)]
pub enum Config {
    /// Read the configuration as `serve` would and report every fault.
    Check(FromConfig),
}

/// Commands on the key that seals credentials.
#[derive(Subcommand, Debug)]
pub enum Secrets {
    /// Write a new key to a file that is not there yet, for `secrets.key_file` of the configuration.
    ///
    /// Only its owner may read the file. What was sealed with a key that is lost has to be given anew.
    NewKey(NewKey),
}

/// Arguments of `secrets new-key`.
#[derive(Args, Debug)]
pub struct NewKey {
    /// The file.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// Names the configuration of a command that works without the service.
#[derive(Args, Debug)]
pub struct FromConfig {
    /// Configuration file; without one, redkeep.toml of this folder where there is one, else the defaults.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Commands on the token file.
#[derive(Subcommand, Debug)]
pub enum Tokens {
    /// Make a token and print it. It is shown this once: the file keeps only its digest.
    #[command(after_help = TOKEN_EXAMPLES)]
    Create(CreateToken),
    /// List the tokens of a file.
    List(ListTokens),
    /// Take tokens out of a file. Whoever uses one is refused at once.
    #[command(after_help = REVOKE_EXAMPLES)]
    Revoke(RevokeTokens),
}

/// Names a token file.
#[derive(Args, Debug)]
pub struct TokenFile {
    /// Token file.
    #[arg(long, value_name = "FILE", env = "REDKEEP_AUTH__FILE")]
    pub file: PathBuf,
}

/// Arguments of `token create`.
#[derive(Args, Debug)]
pub struct CreateToken {
    /// Where the token is noted. The file is made if it is not there.
    #[command(flatten)]
    pub place: TokenFile,
    /// Who logs in with it, as operations and the log will name the caller.
    #[arg(long, value_name = "NAME", value_parser = crate::auth::tokens::subject)]
    pub subject: String,
    /// A folder, or * for every folder; may be given several times, each with its role.
    #[arg(long = "folder", value_name = "ID", required = true)]
    pub folders: Vec<String>,
    /// What the subject may do there: auditor, viewer, restorer, editor or admin. One role may stand for all folders.
    #[arg(long = "role", value_name = "ROLE", required = true)]
    pub roles: Vec<Role>,
    /// When the token ends: a time to come such as 90d, a date, a time in RFC 3339, or never.
    #[arg(long, value_name = "DURATION|TIME", default_value = "never")]
    pub expires: Expires,
}

/// Arguments of `token list`.
#[derive(Args, Debug)]
pub struct ListTokens {
    /// The file.
    #[command(flatten)]
    pub place: TokenFile,
    /// How the list is printed: for people, or as JSON.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// Arguments of `token revoke`.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("which").required(true).args(["subject", "id"]))]
pub struct RevokeTokens {
    /// The file.
    #[command(flatten)]
    pub place: TokenFile,
    /// Every token of this subject.
    #[arg(long, value_name = "NAME")]
    pub subject: Option<String>,
    /// The one token whose id begins with these 8 to 64 hexadecimal digits.
    #[arg(long, value_name = "ID", value_parser = arguments::token_id)]
    pub id: Option<String>,
}

/// Arguments of `descriptors`.
#[derive(Args, Debug)]
pub struct Descriptors {
    /// Write to this file rather than to standard output.
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// Arguments of `dev-certs`.
#[derive(Args, Debug)]
pub struct DevCerts {
    /// Folder of the files; it is made where there is none. Files that are there already are not touched.
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
}

/// How the service is reached and its answers are shown.
#[derive(Args, Debug)]
#[command(next_help_heading = "Service")]
pub struct Connection {
    /// Where the service listens: https:// where it speaks TLS, http:// where it does not.
    #[arg(long, global = true, env = "REDKEEP_ENDPOINT", value_name = "URL", default_value = "http://127.0.0.1:7379")]
    pub endpoint: Address,
    /// Certificates of the authorities that are trusted, in PEM; without it, those that the system trusts.
    #[arg(long, global = true, env = "REDKEEP_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Certificate to show to the service, in PEM, where it asks for one.
    #[arg(long, global = true, env = "REDKEEP_CERT", value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// Key of that certificate, in PEM.
    #[arg(long, global = true, env = "REDKEEP_KEY", value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// Token to log in with. Prefer the environment: other users of the machine can read the command line.
    #[arg(long, global = true, env = "REDKEEP_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<Token>,
    /// Folder whose clusters, backups and operations are listed.
    #[arg(long, global = true, env = "REDKEEP_FOLDER", value_name = "ID", default_value = "default")]
    pub folder: String,
    /// How answers are printed: for people, or as the JSON of the wire.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// How answers are printed.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Tables and lines for people.
    Table,
    /// The JSON of the wire, for programs.
    Json,
}

/// `cluster` and what follows.
#[derive(Args, Debug)]
#[command(after_help = EXIT_STATUSES)]
pub struct Clusters {
    /// How the service is reached.
    #[command(flatten)]
    pub connection: Connection,
    /// What to do.
    #[command(subcommand)]
    pub command: ClusterCommand,
}

/// Commands on clusters.
#[derive(Subcommand, Debug)]
pub enum ClusterCommand {
    /// List the clusters of a folder.
    List(Limit),
    /// Show a cluster and its hosts.
    Get(OnCluster),
    /// Tell whether a backup would work, and what to do where it would not. Takes no snapshot.
    ///
    /// Exits with 4 when a backup would fail or be refused.
    Check(OnCluster),
    /// Make a cluster known that runs elsewhere.
    ///
    /// It is known at once. The operation behind it looks at the servers: it succeeds although none answers, and fails when they
    /// refuse the credentials, lack a right for the account or show a certificate that is not trusted.
    #[command(after_help = ADOPT_EXAMPLES)]
    Adopt(AdoptCluster),
    /// Change how an adopted cluster is reached: all of it, credentials too.
    UpdateConnection(UpdateConnection),
    /// Change what is told of an adopted cluster, and when its daily backup is taken. One of the configuration is changed there.
    Update(UpdateCluster),
    /// Forget an adopted cluster. Its servers go on, its backups stay.
    Forget(ForgetCluster),
    /// Restore a backup to a cluster of its own, on servers that the service starts on its machine.
    ///
    /// The service must have a folder for such clusters: root in the section `[local]` of its configuration. Their password lies in the file
    /// `password` of the cluster's folder there.
    #[command(after_help = CLUSTER_RESTORE_EXAMPLES)]
    Restore(RestoreCluster),
    /// Delete a cluster that was restored on the machine of the service, with its servers and all their data. Its backups stay.
    Delete(DeleteCluster),
}

/// Arguments of `cluster restore`.
#[derive(Args, Debug)]
pub struct RestoreCluster {
    /// Backup.
    #[arg(value_name = "BACKUP")]
    pub backup: String,
    /// Name of the new cluster, unique in the folder; its identifier, too, where it can be one that is free.
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// Folder of the new cluster; that of the backup otherwise.
    #[arg(long, value_name = "ID")]
    pub to_folder: Option<String>,
    /// Replicas of each shard.
    #[arg(long, value_name = "NUMBER", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=16))]
    pub replicas: u32,
    /// Version of the servers, such as 7.2 or 8.0-valkey; any that can load the backup otherwise.
    #[arg(long, value_name = "VERSION")]
    pub version: Option<String>,
    /// Keep no log of changes on disk: a server that ends begins again with what was restored.
    #[arg(long)]
    pub no_persistence: bool,
    /// What it is, for a person.
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// A label; may be given several times.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = arguments::label)]
    pub labels: Vec<(String, String)>,
    /// How the change is made.
    #[command(flatten)]
    pub change: Change,
}

/// Arguments of `cluster delete`.
#[derive(Args, Debug)]
pub struct DeleteCluster {
    /// Cluster.
    #[arg(value_name = "CLUSTER")]
    pub id: String,
    /// How the change is made.
    #[command(flatten)]
    pub change: Change,
}

/// Arguments of `cluster adopt`.
#[derive(Args, Debug)]
pub struct AdoptCluster {
    /// How it is reached.
    #[command(flatten)]
    pub reach: Reach,
    /// Identifier: lower-case letters, digits and dashes; the service makes one up otherwise.
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// Name; the identifier otherwise.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// What it is, for a person.
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// A label; may be given several times.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = arguments::label)]
    pub labels: Vec<(String, String)>,
    /// Allow backups from the primary although it has replicas.
    #[arg(long)]
    pub allow_primary: bool,
    /// Zone: only services of this zone work on it.
    #[arg(long, value_name = "ZONE")]
    pub zone: Option<String>,
    /// How the change is made.
    #[command(flatten)]
    pub change: Change,
}

/// Arguments of `cluster update-connection`.
#[derive(Args, Debug)]
pub struct UpdateConnection {
    /// Cluster.
    #[arg(value_name = "CLUSTER")]
    pub id: String,
    /// How it is reached from here on.
    #[command(flatten)]
    pub reach: Reach,
    /// It has no credentials any more.
    #[arg(long, conflicts_with = "password")]
    pub no_credentials: bool,
    /// How the change is made.
    #[command(flatten)]
    pub change: Change,
}

/// How the servers of a cluster are reached.
#[derive(Args, Debug)]
pub struct Reach {
    /// A server; may be given several times. Any one is enough, the rest is discovered.
    #[arg(long = "node", value_name = "HOST:PORT", required = true)]
    pub nodes: Vec<String>,
    /// How they are logged in to.
    #[command(flatten)]
    pub login: ServerLogin,
}

/// Arguments of `cluster forget`.
#[derive(Args, Debug)]
pub struct ForgetCluster {
    /// Cluster.
    #[arg(value_name = "CLUSTER")]
    pub id: String,
    /// How the change is made.
    #[command(flatten)]
    pub change: Change,
}

/// Names a cluster.
#[derive(Args, Debug)]
pub struct OnCluster {
    /// Cluster.
    #[arg(value_name = "CLUSTER")]
    pub id: String,
}

/// Bounds a list.
#[derive(Args, Debug)]
pub struct Limit {
    /// Most rows to show, newest first; 0 shows all.
    #[arg(long = "limit", value_name = "N", default_value_t = 100)]
    pub rows: usize,
}

/// `backup` and what follows.
#[derive(Args, Debug)]
#[command(after_help = EXIT_STATUSES)]
pub struct Backups {
    /// How the service is reached.
    #[command(flatten)]
    pub connection: Connection,
    /// What to do.
    #[command(subcommand)]
    pub command: BackupCommand,
}

/// Commands on backups.
#[derive(Subcommand, Debug)]
pub enum BackupCommand {
    /// Take a backup of a cluster.
    #[command(after_help = CREATE_EXAMPLES)]
    Create(CreateBackup),
    /// List backups, newest first.
    List(ListOfCluster),
    /// Show all about one backup.
    Get(OnBackup),
    /// Change the name, labels, expiry or holds of a backup.
    #[command(after_help = UPDATE_EXAMPLES)]
    Update(UpdateBackup),
    /// Make an independent copy of a backup: it stays when its source goes.
    #[command(after_help = COPY_EXAMPLES)]
    Copy(CopyBackup),
    /// Write the dumps of a backup to a bucket of the service's configuration, each as a plain RDB file.
    #[command(after_help = EXPORT_EXAMPLES)]
    Export(ExportBackup),
    /// Make a backup of RDB files that lie in a bucket of the service's configuration, plain or under zstd.
    #[command(after_help = IMPORT_EXAMPLES)]
    Import(ImportBackup),
    /// Prove a backup: read it again to its last byte, and have a throw-away server load it.
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify(VerifyBackup),
    /// Give links to the files of a backup: whoever has one reads its file for 15 minutes, without a token.
    #[command(name = "download-links", after_help = LINKS_EXAMPLES)]
    DownloadLinks(OnBackup),
    /// Restore a backup into a running server, which loads it as a replica would.
    ///
    /// The server must be a primary without replicas, not in cluster mode, not watched by Sentinel, and empty unless --overwrite
    /// says how many keys may go. All of it, and the whole backup, is checked before anything is changed.
    #[command(after_help = RESTORE_EXAMPLES)]
    Restore(RestoreBackup),
    /// Delete a backup. Its name is free at once, its files go after the grace time.
    Delete(DeleteBackup),
    /// Take a deletion back, as long as the files are there.
    ///
    /// The backup has its name again, or `undeleted-...` where another has that meanwhile.
    Undelete(UndeleteBackup),
    /// Tell what the rules of retention say of each backup of a cluster, and delete what has had its time.
    #[command(after_help = EXPIRE_EXAMPLES)]
    Expire(ExpireBackups),
}

/// Arguments of `backup undelete`.
#[derive(Args, Debug)]
pub struct UndeleteBackup {
    /// Backup.
    #[arg(value_name = "BACKUP")]
    pub id: String,
    /// How the change is made.
    #[command(flatten)]
    pub change: Change,
}

/// Arguments of `backup expire`.
#[derive(Args, Debug)]
pub struct ExpireBackups {
    /// Cluster; it need not be known any more.
    #[arg(value_name = "CLUSTER")]
    pub cluster: String,
    /// Change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// Arguments of `backup create`.
#[derive(Args, Debug)]
pub struct CreateBackup {
    /// Cluster to back up.
    #[arg(value_name = "CLUSTER")]
    pub cluster: String,
    /// Name, unique in the folder; the service makes one up otherwise.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// A label; may be given several times.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = arguments::label)]
    pub labels: Vec<(String, String)>,
    /// When the backup may be removed by itself: a time to come such as 30d or 12h, a date, a time in RFC 3339, or never.
    #[arg(long, value_name = "DURATION|TIME")]
    pub expires: Option<Expires>,
    /// How the change is made.
    #[command(flatten)]
    pub change: Change,
}

/// Arguments of `backup update`.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("changes").required(true).multiple(true).args(["name", "labels", "no_labels", "expires", "holds", "no_holds", "clear_suspect"]))]
pub struct UpdateBackup {
    /// Backup.
    #[arg(value_name = "BACKUP")]
    pub id: String,
    /// New name.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// A label; those given take the place of all that there are.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = arguments::label)]
    pub labels: Vec<(String, String)>,
    /// Take all labels away.
    #[arg(long, conflicts_with = "labels")]
    pub no_labels: bool,
    /// New expiry: a time to come such as 30d or 12h, a date, a time in RFC 3339, or never.
    #[arg(long, value_name = "DURATION|TIME")]
    pub expires: Option<Expires>,
    /// Why the backup must stay; those given take the place of all that there are.
    #[arg(long = "hold", value_name = "REASON")]
    pub holds: Vec<String>,
    /// Lift every hold.
    #[arg(long, conflicts_with = "holds")]
    pub no_holds: bool,
    /// Take the suspicion from a backup whose source looked wrong: its content is what you expect.
    #[arg(long)]
    pub clear_suspect: bool,
    /// How the change is made.
    #[command(flatten)]
    pub change: Change,
}

/// Arguments of `backup copy`.
#[derive(Args, Debug)]
pub struct CopyBackup {
    /// Backup to copy.
    #[arg(value_name = "BACKUP")]
    pub id: String,
    /// Name of the copy, unique in the folder; the service makes one up otherwise.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// How the change is made.
    #[command(flatten)]
    pub change: Change,
}

/// Arguments of `backup export`.
#[derive(Args, Debug)]
pub struct ExportBackup {
    /// Backup to export.
    #[arg(value_name = "BACKUP")]
    pub id: String,
    /// Bucket, by its name in the service's configuration.
    #[arg(long, value_name = "BUCKET")]
    pub bucket: String,
    /// Folder in the bucket, such as daily/2030-01-31.
    #[arg(long, value_name = "PATH")]
    pub path: Option<String>,
    /// Write the segments as they are stored, compressed or not.
    #[arg(long)]
    pub as_stored: bool,
    /// How the change is made.
    #[command(flatten)]
    pub change: Change,
}

/// Arguments of `backup import`.
#[derive(Args, Debug)]
pub struct ImportBackup {
    /// Cluster that the backup is to belong to; it need not be known.
    #[arg(long, value_name = "CLUSTER")]
    pub cluster: String,
    /// Bucket, by its name in the service's configuration.
    #[arg(long, value_name = "BUCKET")]
    pub bucket: String,
    /// Key of an RDB file in the bucket, such as old/dump.rdb. Given several times, each is a shard, in this order.
    #[arg(long = "object", value_name = "KEY", required = true)]
    pub objects: Vec<String>,
    /// Name of the backup, unique in the folder; the service makes one up otherwise.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// How the change is made.
    #[command(flatten)]
    pub change: Change,
}

/// Arguments of `backup restore`.
#[derive(Args, Debug)]
pub struct RestoreBackup {
    /// Backup to restore.
    #[arg(value_name = "BACKUP")]
    pub id: String,
    /// The server that is to hold the backup: an address that the service's configuration allows, or a host of a known cluster. By
    /// key also a known cluster, whose shards take the keys that are theirs.
    #[arg(long, value_name = "HOST:PORT|CLUSTER/HOST:PORT|CLUSTER")]
    pub into: String,
    /// What of the server may go.
    #[command(flatten)]
    pub consent: Consent,
    /// How a server at an address is logged in to.
    #[command(flatten)]
    pub login: ServerLogin,
    /// What is restored by key.
    #[command(flatten)]
    pub keys: ByKey,
    /// How the change is made.
    #[command(flatten)]
    pub change: Change,
}

/// What a restore may do to its target, and what it takes of the backup.
#[derive(Args, Debug)]
pub struct Consent {
    /// What the server holds may go, as long as it holds no more keys than this.
    #[arg(long, value_name = "KEYS")]
    pub overwrite: Option<u64>,
    /// Shard of the backup, where it has several.
    #[arg(long, value_name = "SHARD")]
    pub shard: Option<String>,
    /// The server may have replicas of its own, which load the backup as well.
    #[arg(long)]
    pub allow_replicas: bool,
}

/// What is restored key by key, and how.
#[derive(Args, Debug)]
pub struct ByKey {
    /// Write key by key, beside what the server has; each of the flags below, and a cluster as the target, means this.
    #[arg(long, conflicts_with_all = ["overwrite", "allow_replicas"], help_heading = "By key")]
    pub by_key: bool,
    /// Only keys of this database; may be given several times.
    #[arg(long = "database", value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(0..), conflicts_with_all = ["overwrite", "allow_replicas"], help_heading = "By key")]
    pub databases: Vec<i32>,
    /// Only keys whose names fit, as the command KEYS takes patterns; may be given several times.
    #[arg(long = "pattern", value_name = "PATTERN", conflicts_with_all = ["overwrite", "allow_replicas"], help_heading = "By key")]
    pub patterns: Vec<String>,
    /// Only keys of this type: string, list, set, zset, hash, stream or module; may be given several times.
    #[arg(long = "type", value_name = "TYPE", conflicts_with_all = ["overwrite", "allow_replicas"], help_heading = "By key")]
    pub types: Vec<String>,
    /// What becomes of a key that the server has already: the restore fails at it, unless told otherwise.
    #[arg(long, value_name = "POLICY", value_enum, conflicts_with_all = ["overwrite", "allow_replicas"], help_heading = "By key")]
    pub on_conflict: Option<OnConflict>,
    /// Write nothing, only count.
    #[arg(long, conflicts_with_all = ["overwrite", "allow_replicas"], help_heading = "By key")]
    pub dry_run: bool,
    /// Bytes of values a second; as fast as it goes otherwise.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(i64).range(1..), conflicts_with_all = ["overwrite", "allow_replicas"], help_heading = "By key")]
    pub rate: Option<i64>,
}

/// What becomes of a key that is there already.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnConflict {
    /// The restore fails at it.
    Fail,
    /// It stays as it is.
    Skip,
    /// It is replaced.
    Replace,
}

/// How servers are logged in to, those of a cluster or the target of a restore.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("password").args(["password_file", "password_env"]))]
pub struct ServerLogin {
    /// ACL user of the servers; the default user otherwise.
    #[arg(long, value_name = "USER", requires = "password")]
    pub username: Option<String>,
    /// File with the password of the servers; - reads it from standard input. The end of its line does not belong to it.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Variable of the environment with the password.
    #[arg(long, value_name = "VARIABLE")]
    pub password_env: Option<String>,
    /// The servers speak TLS; their certificates must be signed by an authority that the service's system trusts, or by --tls-ca.
    #[arg(long)]
    pub tls: bool,
    /// File with the certificates, in PEM, that sign the servers' own. It means TLS.
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
}

/// Names a backup by where it lies, without the service.
#[derive(Args, Debug)]
pub struct Stored {
    /// Folder of the backup with its manifest.json, or the manifest itself: a path, file:/..., s3://..., gs://... or az://...
    #[arg(value_name = "URL|MANIFEST")]
    pub url: String,
    /// Where the store is, when not where its provider has it.
    #[arg(long, value_name = "URL", help_heading = "Storage")]
    pub endpoint: Option<String>,
    /// Region of S3; else AWS_REGION tells.
    #[arg(long, value_name = "REGION", help_heading = "Storage")]
    pub region: Option<String>,
    /// Account of Azure; else AZURE_STORAGE_ACCOUNT_NAME tells.
    #[arg(long, value_name = "ACCOUNT", help_heading = "Storage")]
    pub account: Option<String>,
    /// The endpoint may be spoken to without TLS.
    #[arg(long, help_heading = "Storage")]
    pub allow_http: bool,
    /// Further keys of a place, as the section artifacts of a configuration has them, such as access_key_file=secrets/id; may be
    /// given several times. Without files the environment tells the credentials, and then the machine.
    #[arg(long = "storage", value_name = "KEY=VALUE", value_parser = arguments::label, help_heading = "Storage")]
    pub options: Vec<(String, String)>,
    /// File with the keys that open what is encrypted with age.
    #[arg(long, value_name = "FILE", help_heading = "Storage")]
    pub age_identity_file: Option<PathBuf>,
}

/// Arguments of `fetch`.
#[derive(Args, Debug)]
pub struct Fetch {
    /// Where the backup lies.
    #[command(flatten)]
    pub stored: Stored,
    /// Folder for the RDB files, one for each shard; it is made where there is none.
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// Only this shard.
    #[arg(long, value_name = "SHARD")]
    pub shard: Option<String>,
}

/// Arguments of `restore`.
#[derive(Args, Debug)]
pub struct Restore {
    /// Where the backup lies.
    #[command(flatten)]
    pub stored: Stored,
    /// The server that is to hold the backup.
    #[arg(long, value_name = "HOST:PORT")]
    pub into: String,
    /// What of the server may go.
    #[command(flatten)]
    pub consent: Consent,
    /// How the server is logged in to.
    #[command(flatten)]
    pub login: ServerLogin,
    /// Where the server is to fetch the backup from: an address of this machine and a port, any free one for 0.
    #[arg(long, value_name = "IP:PORT", help_heading = "Feed")]
    pub feed_listen: Option<std::net::SocketAddr>,
    /// What the server is told instead, where it reaches this machine by another name.
    #[arg(long, value_name = "HOST[:PORT]", help_heading = "Feed")]
    pub feed_advertise: Option<crate::redis::feed::Advertised>,
    /// Certificate in PEM, for a server that replicates over TLS.
    #[arg(long, value_name = "FILE", requires = "feed_key", help_heading = "Feed")]
    pub feed_cert: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE", requires = "feed_cert", help_heading = "Feed")]
    pub feed_key: Option<PathBuf>,
}

/// Arguments of `backup verify`.
#[derive(Args, Debug)]
pub struct VerifyBackup {
    /// Backup to prove.
    #[arg(value_name = "BACKUP")]
    pub id: String,
    /// How far: walked reads and checks every byte and record, loaded has a real server load it besides and compares.
    #[arg(long, value_enum, default_value = "loaded", value_name = "LEVEL")]
    pub level: ProofLevel,
    /// How the change is made.
    #[command(flatten)]
    pub change: Change,
}

/// How far a backup is to be proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProofLevel {
    /// Every byte and record is read and checked.
    Walked,
    /// A real server loads it besides.
    Loaded,
}

/// Arguments of `backup delete`.
#[derive(Args, Debug)]
pub struct DeleteBackup {
    /// Backup.
    #[arg(value_name = "BACKUP")]
    pub id: String,
    /// How the change is made.
    #[command(flatten)]
    pub change: Change,
}

/// Names a backup.
#[derive(Args, Debug)]
pub struct OnBackup {
    /// Backup.
    #[arg(value_name = "BACKUP")]
    pub id: String,
}

/// Bounds a list that can be of one cluster.
#[derive(Args, Debug)]
pub struct ListOfCluster {
    /// Only those of this cluster.
    #[arg(long, value_name = "CLUSTER")]
    pub cluster: Option<String>,
    /// How many.
    #[command(flatten)]
    pub limit: Limit,
}

/// How a change is made.
#[derive(Args, Debug)]
pub struct Change {
    /// Follow the operation to its end; the exit status tells how it ended.
    #[arg(long)]
    pub wait: bool,
    /// Makes the call safe to repeat: the same key gives the same operation. 1 to 128 visible ASCII characters.
    #[arg(long, value_name = "KEY", value_parser = arguments::idempotency_key)]
    pub idempotency_key: Option<String>,
}

/// `operation` and what follows.
#[derive(Args, Debug)]
#[command(after_help = EXIT_STATUSES)]
pub struct Operations {
    /// How the service is reached.
    #[command(flatten)]
    pub connection: Connection,
    /// What to do.
    #[command(subcommand)]
    pub command: OperationCommand,
}

/// Commands on operations.
#[derive(Subcommand, Debug)]
pub enum OperationCommand {
    /// List operations, newest first.
    List(ListOfCluster),
    /// Show one operation.
    Get(OnOperation),
    /// Follow an operation to its end; the exit status tells how it ended.
    Wait(OnOperation),
    /// Ask an operation to stop. What is being published already ends all the same.
    Cancel(OnOperation),
}

/// Names an operation.
#[derive(Args, Debug)]
pub struct OnOperation {
    /// Operation.
    #[arg(value_name = "OPERATION")]
    pub id: String,
}

/// Carries out a command that asks a running service, and prints its answer.
///
/// # Errors
///
/// [`Error`], ready to be reported.
///
/// # Cancel safety
///
/// If dropped, a call may have been made whose answer is not printed.
pub async fn run(client: Client) -> Result<(), Error> {
    match client {
        Client::Cluster(args) => cluster::run(&Session::open(args.connection).await?, args.command).await,
        Client::Backup(args) => backup::run(&Session::open(args.connection).await?, args.command).await,
        Client::Policy(args) => plan::run(&Session::open(args.connection).await?, args.command).await,
        Client::Operation(args) => operation::run(&Session::open(args.connection).await?, args.command).await,
    }
}

/// The password and the certificates of a login, read from where they are.
///
/// # Errors
///
/// [`Error`], ready to be reported.
pub fn target_login(login: &ServerLogin) -> Result<Login, Error> {
    restore::login(login)
}

/// Labels as they travel.
fn labels(pairs: Vec<(String, String)>) -> Result<BTreeMap<String, String>, Error> {
    let mut labels = BTreeMap::new();
    for (key, value) in pairs {
        let shown = text::escape(&key);
        if labels.insert(key, value).is_some() {
            return Err(Error::new(Exit::Usage, format!("label {shown} is given twice")));
        }
    }
    Ok(labels)
}

/// Carries out a command on a token file.
///
/// # Errors
///
/// [`Error`], ready to be reported.
///
/// # Cancel safety
///
/// If dropped, the file is either as it was or changed as asked.
pub async fn token(command: Tokens) -> Result<(), Error> {
    token::run(command).await
}

/// Writes the descriptors of the API to standard output or to a file.
///
/// # Errors
///
/// [`Error`] when standard output is a terminal, or cannot be written.
pub fn descriptors(args: &Descriptors) -> Result<(), Error> {
    descriptors::write(args.file.as_deref())
}

/// Makes certificates to try TLS with.
///
/// # Errors
///
/// [`Error`] when a file is there already, or cannot be written.
pub fn dev_certs(args: &DevCerts) -> Result<(), Error> {
    dev_certs::write(&args.folder)
}

/// Tells the user how a command ended, and gives the process its exit status.
pub fn report(outcome: Result<(), Error>) -> ExitCode {
    match outcome {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            print::note(&format!("error: {error}"));
            error.exit().into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    pub(super) fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split(' ')).map(|cli| cli.command)
    }

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn client_flags_stand_anywhere_after_the_noun() {
        for line in [
            "redkeep backup list --endpoint http://far:1 --folder shop -o json --cluster main --limit 0",
            "redkeep backup --endpoint http://far:1 --folder shop --output json list --cluster main --limit 0",
        ] {
            let Command::Client(Client::Backup(args)) = parse(line).unwrap() else { panic!("{line}") };
            assert_eq!((args.connection.endpoint.to_string(), args.connection.folder.as_str()), ("http://far:1".to_owned(), "shop"), "{line}");
            assert_eq!(args.connection.output, Output::Json, "{line}");
            let BackupCommand::List(list) = args.command else { panic!("{line}") };
            assert_eq!((list.cluster.as_deref(), list.limit.rows), (Some("main"), 0));
        }
    }

    #[test]
    fn a_backup_is_described() {
        let line = "redkeep backup create main --name n --label a=b --label c=d=e --expires 30d --wait --idempotency-key k";
        let Command::Client(Client::Backup(Backups { command: BackupCommand::Create(args), .. })) = parse(line).unwrap() else { panic!("{line}") };
        assert_eq!(args.labels, [("a".to_owned(), "b".to_owned()), ("c".to_owned(), "d=e".to_owned())]);
        assert_eq!(args.expires, Some(Expires::After(std::time::Duration::from_secs(30 * 86400))));
        assert!(args.change.wait);
        assert_eq!(args.change.idempotency_key.as_deref(), Some("k"));
    }

    #[test]
    fn a_copy_and_an_export_are_described() {
        let line = "redkeep backup copy b1 --name n --wait";
        let Command::Client(Client::Backup(Backups { command: BackupCommand::Copy(args), .. })) = parse(line).unwrap() else { panic!("{line}") };
        assert_eq!((args.id.as_str(), args.name.as_deref(), args.change.wait), ("b1", Some("n"), true));
        let line = "redkeep backup export b1 --bucket reports --path a/b --as-stored";
        let Command::Client(Client::Backup(Backups { command: BackupCommand::Export(args), .. })) = parse(line).unwrap() else { panic!("{line}") };
        assert_eq!((args.bucket.as_str(), args.path.as_deref(), args.as_stored, args.change.wait), ("reports", Some("a/b"), true, false));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for line in [
            "redkeep backup copy",
            "redkeep backup export b1",
            "redkeep",
            "redkeep backup create",
            "redkeep backup create main --label novalue",
            "redkeep backup create main --label a=1 --label",
            "redkeep backup create main --expires soon",
            "redkeep backup update id",
            "redkeep backup update id --wait",
            "redkeep backup update id --hold a --no-holds",
            "redkeep backup update id --label a=b --no-labels",
            "redkeep backup list --endpoint ftp://far:1",
            "redkeep backup list --cert a.pem",
            "redkeep backup list --key a.pem",
            "redkeep dev-certs",
            "redkeep backup list --limit -1",
            "redkeep cluster adopt",
            "redkeep cluster adopt --node a:1 --username backup",
            "redkeep cluster adopt --node a:1 --password hunter2",
            "redkeep cluster adopt --node a:1 --password-file f --password-env V",
            "redkeep cluster update-connection main --node a:1 --no-credentials --password-env V",
            "redkeep cluster update-connection --node a:1",
            "redkeep cluster forget",
            "redkeep secrets new-key",
            "redkeep backup list -o yaml",
            "redkeep token create --file f --subject s --folder shop",
            "redkeep token create --file f --subject s --role viewer",
            "redkeep token create --file f --subject s --folder shop --role owner",
            "redkeep token create --file f --subject s --folder shop --role viewer --expires soon",
            "redkeep token create --subject s --folder shop --role viewer",
            "redkeep token list",
            "redkeep token revoke --file f",
            "redkeep token revoke --file f --subject s --id 0123456789",
            "redkeep token revoke --file f --id 0123",
            "redkeep token revoke --file f --id nonsense",
        ] {
            let fault = parse(line).unwrap_err();
            assert_eq!(fault.exit_code(), i32::from(Exit::Usage as u8), "{line}");
        }
    }

    #[test]
    fn flags_of_the_service_win_by_key() {
        let Command::Serve(args) = parse("redkeep serve --config a.toml --listen [::1]:1").unwrap() else { panic!("not serve") };
        assert_eq!(args.overrides(), [("server.listen", "[::1]:1".to_owned())]);
    }

    #[test]
    fn a_token_is_never_shown() {
        let command = parse("redkeep operation --token sesame list").unwrap();
        assert!(!format!("{command:?}").contains("sesame"));
    }
}
