//! Goal: the real program does what its help says, for people and for programs. Method: it runs as a process, against the
//! service in this one or in another.

use crate::support::scripted::{Act, ScriptedRedis};
use crate::support::service::{OPERATION, Service, Setup};
use crate::support::until;
use prost_reflect::DescriptorPool;
use serde_json::{Value, json};
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// Longest wait for a process to end.
const END: Duration = Duration::from_secs(20);

/// How a run of the program ended.
struct Run {
    code: i32,
    bytes: Vec<u8>,
    stderr: String,
}

impl Run {
    fn stdout(&self) -> String {
        String::from_utf8(self.bytes.clone()).expect("answers are text")
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|fault| panic!("{fault}: {} {}", self.stdout(), self.stderr))
    }
}

/// Runs the program with these words.
async fn redkeep(words: &[&str]) -> Run {
    redkeep_with(words, &[]).await
}

async fn redkeep_with(words: &[&str], environment: &[(&str, &Path)]) -> Run {
    let output = Command::new(env!("CARGO_BIN_EXE_redkeep"))
        .args(words)
        .envs(environment.iter().copied())
        .env("NO_COLOR", "1")
        .env_remove("REDKEEP_ENDPOINT")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(OPERATION, output).await.expect("the program ends").expect("the program runs");
    let code = output.status.code().expect("no signal ended it");
    Run { code, bytes: output.stdout, stderr: String::from_utf8_lossy(&output.stderr).into_owned() }
}

/// The program as a client of a service.
struct Client<'a>(&'a Service);

impl Client<'_> {
    async fn run(&self, line: &str) -> Run {
        let words: Vec<&str> = line.split(' ').chain(["--endpoint", &self.0.endpoint]).collect();
        redkeep(&words).await
    }

    /// Runs a command that is to be done, and reads its JSON.
    async fn json(&self, line: &str) -> Value {
        let run = self.run(&format!("{line} -o json")).await;
        assert_eq!(run.code, 0, "{line}: {}", run.stderr);
        run.json()
    }
}

fn setup(source: &ScriptedRedis) -> Setup {
    Setup::new().executor("drain", "\"0s\"").cluster("main", &[&source.address()], "")
}

#[tokio::test]
async fn the_life_of_a_backup() {
    let source = ScriptedRedis::willing().await;
    let service = setup(&source).start().await;
    let client = Client(&service);
    let run = client.run("backup create main --name first --label team=shop --expires 30d --wait").await;
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout().contains("of cluster main is AVAILABLE") && run.stdout().contains("9 keys"), "{}", run.stdout());
    assert!(run.stderr.contains("started"), "progress goes to standard error: {}", run.stderr);

    let listed = client.json("backup list").await;
    let backup = &listed["backups"][0];
    assert_eq!((listed["backups"].as_array().map(Vec::len), &backup["name"], &backup["state"]), (Some(1), &json!("first"), &json!("AVAILABLE")));
    assert_eq!((&backup["labels"]["team"], backup["expiresAt"].is_string()), (&json!("shop"), true));
    let id = backup["id"].as_str().unwrap();
    assert_eq!(&client.json(&format!("backup get {id}")).await, backup);
    let table = client.run("backup list").await.stdout();
    assert!(table.contains("NAME") && table.contains(id), "{table}");
    assert!(client.run(&format!("backup get {id}")).await.stdout().contains("WALKED"));

    let updated = client.json(&format!("backup update {id} --name second --hold why --expires never --wait")).await;
    assert_eq!((&updated["done"], &updated["response"]["name"], &updated["response"]["holds"][0]["reason"]), (&json!(true), &json!("second"), &json!("why")));
    let refused = client.run(&format!("backup delete {id} --wait")).await;
    assert_eq!((refused.code, refused.stderr.contains("is held: why")), (4, true), "{}", refused.stderr);
    client.json(&format!("backup update {id} --no-holds --wait")).await;
    let deleted = client.json(&format!("backup delete {id} --wait")).await;
    assert_eq!((&deleted["done"], &deleted["response"]["@type"]), (&json!(true), &json!("type.googleapis.com/google.protobuf.Empty")));
    assert_eq!(client.run(&format!("backup delete {id}")).await.code, 3);
    assert_eq!(client.json("backup list --cluster main --folder elsewhere").await, json!({ "backups": [] }));
    service.stop().await;
}

#[tokio::test]
async fn the_life_of_an_operation() {
    let (source, gate) = ScriptedRedis::gated().await;
    let service = setup(&source).start().await;
    let client = Client(&service);
    let started = client.json("backup create main --name first --idempotency-key k").await;
    assert_eq!((&started["done"], started.get("response")), (&json!(false), None), "{started}");
    let id = started["id"].as_str().unwrap();
    assert_eq!(client.json("backup create main --name first --idempotency-key k").await["id"], id);
    let conflict = client.run("backup create main").await;
    assert_eq!(conflict.code, 4);
    assert!(conflict.stderr.contains(&format!("conflicting operation \"{id}\" detected")), "{}", conflict.stderr);
    assert!(conflict.stderr.contains(&format!("redkeep operation wait {id}")), "{}", conflict.stderr);

    let waiting = format!("operation wait {id}");
    let (waited, ()) = tokio::join!(client.run(&waiting), async {
        source.wait_for(|counts| counts.psyncs == 1).await;
        gate.notify_one();
    });
    assert_eq!((waited.code, waited.stdout().contains("AVAILABLE")), (0, true), "{}", waited.stderr);
    let shown = client.json(&format!("operation get {id}")).await;
    assert_eq!((&shown["done"], &shown["response"]["name"]), (&json!(true), &json!("first")));
    assert_eq!(client.json("operation list").await, json!({ "operations": [shown] }));
    assert!(client.run(&format!("operation get {id}")).await.stdout().contains(id));
    let late = client.run(&format!("operation cancel {id}")).await;
    assert_eq!((late.code, late.stdout().contains("has ended")), (0, true), "{}", late.stdout());

    // One that is cancelled ends with an error, and so does who waits for it.
    source.set_scripts(vec![vec![Act::FullResync, Act::Stall]]);
    let started = client.json("backup create main --name second").await;
    let id = started["id"].as_str().unwrap();
    source.wait_for(|counts| counts.psyncs == 2).await;
    assert_eq!(client.run(&format!("operation cancel {id}")).await.code, 0);
    let waited = client.run(&format!("operation wait {id}")).await;
    assert_eq!((waited.code, waited.stderr.contains("was cancelled")), (1, true), "{}", waited.stderr);
    assert_eq!(client.run(&format!("operation wait {id} -o json")).await.json()["error"]["code"], 1);
    let listed = client.json("operation list --limit 1").await;
    assert_eq!((listed["operations"].as_array().map(Vec::len), &listed["operations"][0]["id"]), (Some(1), &json!(id)));
    service.stop().await;
}

#[tokio::test]
async fn clusters_are_shown_and_checked() {
    let source = ScriptedRedis::willing().await;
    let locked = ScriptedRedis::willing().await;
    locked.require_auth("default", "secret");
    let service = setup(&source).cluster("locked", &[&locked.address()], "").start().await;
    let client = Client(&service);
    let listed = client.json("cluster list").await;
    let ids: Vec<_> = listed["clusters"].as_array().unwrap().iter().map(|cluster| cluster["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["locked", "main"]);
    let shown = client.json("cluster get main").await;
    assert_eq!((&shown["health"], &shown["status"], &shown["hosts"][0]["role"]), (&json!("ALIVE"), &json!("RUNNING"), &json!("MASTER")));
    assert!(client.run("cluster get main").await.stdout().contains(&source.address()));

    let ready = client.json("cluster check main").await;
    assert_eq!((&ready["ready"], &ready["hosts"][0]["chosen"]), (&json!(true), &json!(true)));
    let refused = client.run("cluster check locked -o json").await;
    assert_eq!((refused.code, &refused.json()["ready"]), (4, &json!(false)));
    assert!(client.run("cluster check locked").await.stdout().contains("NOT READY"));
    let failed = client.run("backup create locked --wait").await;
    assert_eq!((failed.code, failed.stderr.contains("SOURCE_CREDENTIALS")), (1, true), "{}", failed.stderr);
    service.stop().await;
}

#[tokio::test]
async fn exit_statuses_tell_the_kinds_of_failure() {
    let source = ScriptedRedis::willing().await;
    let service = setup(&source).start().await;
    let client = Client(&service);
    let unknown = "01890000-0000-7000-8000-000000000000";
    for (line, code) in [
        ("backup list", 0),
        ("nonsense", 2),
        ("backup create", 2),
        ("backup create main --label nonsense", 2),
        ("backup create main --name a/b", 2),
        ("backup create main --expires 2001-01-01", 2),
        ("backup create nobody", 3),
        ("cluster get nobody", 3),
    ] {
        let run = client.run(line).await;
        assert_eq!(run.code, code, "{line}: {}", run.stderr);
        assert_eq!(run.stderr.is_empty(), code == 0, "{line}: {}", run.stderr);
    }
    for line in
        [format!("backup get {unknown}"), format!("operation get {unknown}"), format!("operation cancel {unknown}"), format!("operation wait {unknown}")]
    {
        let run = client.run(&line).await;
        assert_eq!((run.code, run.stderr.contains("not found")), (3, true), "{line}: {}", run.stderr);
    }
    let refused = client.run("backup create main --name a/b").await;
    assert!(refused.stderr.contains("\n  name: "), "each field has its line: {}", refused.stderr);
    service.stop().await;

    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let run = redkeep(&["backup", "list", "--endpoint", &format!("http://{closed}")]).await;
    assert_eq!((run.code, run.stderr.contains("redkeep serve")), (6, true), "{}", run.stderr);
}

#[tokio::test]
async fn the_descriptors_are_the_whole_schema() {
    let run = redkeep(&["descriptors"]).await;
    assert_eq!(run.code, 0, "{}", run.stderr);
    let pool = DescriptorPool::decode(run.bytes.as_slice()).expect("a whole descriptor set");
    let http = pool.get_extension_by_name("google.api.http").unwrap();
    for (service, call, verb, path) in [
        ("yandex.cloud.mdb.redis.v1.ClusterService", "Backup", "post", "/managed-redis/v1/clusters/{cluster_id}:backup"),
        ("yandex.cloud.operation.OperationService", "Get", "get", "/operations/{operation_id}"),
        ("redkeep.v1.BackupService", "Create", "post", "/redkeep/v1/backups"),
    ] {
        let call = pool.get_service_by_name(service).unwrap().methods().find(|method| method.name() == call).unwrap();
        let rule = call.options().get_extension(&http).as_message().unwrap().get_field_by_name(verb).unwrap().as_str().map(str::to_owned);
        assert_eq!(rule.as_deref(), Some(path));
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("redkeep.binpb");
    assert_eq!(redkeep(&["descriptors", "--file", file.to_str().unwrap()]).await.code, 0);
    assert_eq!(std::fs::read(file).unwrap(), run.bytes);
}

#[tokio::test]
async fn every_mistake_of_a_configuration_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("redkeep.toml");
    std::fs::write(&file, "[server]\nlisten = \"nowhere\"\n[executor]\nworkers = 0\n[[clusters]]\nid = \"main\"\nnodes = []\n").unwrap();
    let file = file.to_str().unwrap();
    for command in [&["config", "check"][..], &["serve"][..]] {
        let run = redkeep(&[command, &["--config", file]].concat()).await;
        assert_eq!(run.code, 1, "{}", run.stderr);
        for key in ["server.listen: ", "executor.workers: ", "clusters[0].nodes: "] {
            assert!(run.stderr.contains(key), "{key} in {}", run.stderr);
        }
        assert!(run.stderr.contains("3 faults"), "{}", run.stderr);
    }
    std::fs::write(file, "[[clusters]]\nid = \"main\"\nnodes = [\"127.0.0.1:6379\"]\n").unwrap();
    let run = redkeep(&["config", "check", "--config", file]).await;
    assert_eq!((run.code, run.stdout().contains("no fault found; 1 cluster")), (0, true), "{}", run.stderr);
    assert_eq!(redkeep(&["config", "check", "--config", "/no/such/file"]).await.code, 1);
}

#[tokio::test]
async fn the_service_listens_on_loopback_only() {
    let setup = Setup::new();
    let file = setup.write();
    for flag in ["--listen", "--admin-listen"] {
        let run = redkeep(&["serve", "--config", file.to_str().unwrap(), flag, "0.0.0.0:0"]).await;
        assert_eq!(run.code, 1, "{}", run.stderr);
        assert!(run.stderr.contains("must be a loopback address") && run.stderr.contains("can read all data"), "{}", run.stderr);
    }
}

#[tokio::test]
async fn a_store_belongs_to_one_process() {
    let source = ScriptedRedis::willing().await;
    let process = setup(&source).spawn(&[]).await;
    process.clients.take("main", "first").await;
    let file = process.setup.folder().join("redkeep.toml");
    let file = file.to_str().unwrap();
    for command in [&["serve"][..], &["store", "verify"][..]] {
        let run = redkeep(&[command, &["--config", file]].concat()).await;
        assert_eq!((run.code, run.stderr.contains("another process holds the store folder")), (1, true), "{command:?}: {}", run.stderr);
    }
    process.clients.take("main", "second").await;

    let setup = process.terminate(END).await;
    let run = redkeep(&["store", "verify", "--config", file]).await;
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout().contains("2 operations (0 not ended), 2 backups") && run.stdout().contains("every row holds together"), "{}", run.stdout());
    std::fs::remove_dir_all(setup.folder().join("store")).unwrap();
    let run = redkeep(&["store", "verify", "--config", file]).await;
    assert_eq!((run.code, setup.folder().join("store").exists()), (1, false), "none is made: {}", run.stderr);
}

#[tokio::test]
async fn the_demonstration_proves_itself_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let run = redkeep_with(&["demo"], &[("TMPDIR", folder.path())]).await;
    assert_eq!(run.code, 0, "{} {}", run.stdout(), run.stderr);
    for words in ["READY", "is AVAILABLE", "equal: ", "grpcurl", "Cleaned up"] {
        assert!(run.stdout().contains(words), "{words} in {}", run.stdout());
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_demonstration_that_is_kept_ends_well_at_ctrl_c() {
    let folder = tempfile::tempdir().unwrap();
    let said = folder.path().join("said");
    let room = folder.path().join("room");
    std::fs::create_dir(&room).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_redkeep"))
        .args(["demo", "--keep"])
        .env("TMPDIR", &room)
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&said).unwrap())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    until("everything stays up", END, async || std::fs::read_to_string(&said).unwrap().contains("Ctrl-C ends it").then_some(())).await;
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
    let status = tokio::time::timeout(END, child.wait()).await.expect("it ends").unwrap();
    assert!(status.success(), "{status}");
    assert!(std::fs::read_to_string(&said).unwrap().contains("Cleaned up"));
    assert_eq!(std::fs::read_dir(&room).unwrap().count(), 0);
}
