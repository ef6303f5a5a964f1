//! Goal: whoever has a link reads its file, all of it or a part, for a while, and nothing else; each use is on record. Method: the real
//! service, asked with plain HTTP, with reqwest and with curl.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

use crate::support::http::{Answer, ask};
use crate::support::objects::{Bucket, Kind};
use crate::support::scripted::{ScriptedRedis, generated_length};
use crate::support::service::{Clients, OPERATION, Service, Setup, error_of};
use crate::support::until;
use aws_lc_rs::digest;
use chrono::Utc;
use redkeep::auth::Roles;
use redkeep::downloads::DOWNLOADS;
use redkeep::links::{LIFE, Signer};
use redkeep::pb::own;
use redkeep::secrets::Key;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::process::Command;

const SOON: Duration = Duration::from_secs(30);

/// Length of the dumps, in bytes, about: more than one piece.
const DUMP_BYTES: u64 = 3_000_000;

fn sha256(bytes: &[u8]) -> String {
    digest::digest(&digest::SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn setup(dump_bytes: u64) -> (ScriptedRedis, Setup) {
    let source = ScriptedRedis::start(vec![generated_length(dump_bytes, 4096, None)]).await;
    let setup = Setup::new().artifacts("url = \"file:artifacts\"\ncompression = \"none\"").cluster("main", &[&source.address()], "");
    (source, setup)
}

async fn links(clients: &Clients, backup: &own::Backup) -> Result<Vec<own::DownloadLink>, tonic::Status> {
    let request = own::GetDownloadLinksRequest { backup_id: backup.id.clone() };
    Ok(clients.backups.clone().get_download_links(request).await?.into_inner().links)
}

/// Path and query of a link.
fn target(link: &str) -> &str {
    &link[link.find("/redkeep/").unwrap()..]
}

async fn get(service: &Service, target: &str, method: &str, headers: &[&str]) -> Answer {
    let (line, host) = (format!("{method} {target} HTTP/1.1"), format!("Host: {}", service.address()));
    ask(service.address(), &[&[line.as_str(), host.as_str()], headers].concat(), &[]).await
}

/// The lines of the audit log about downloads.
fn downloads_on_record(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("audit.jsonl")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).filter(|line: &Value| line["method"] == "redkeep.downloads/Get").collect()
}

async fn run(program: &str, arguments: &[&str]) -> (bool, Vec<u8>) {
    let output = Command::new(program).args(arguments).kill_on_drop(true).output();
    let output = tokio::time::timeout(SOON, output).await.expect("the program ends").expect("the program runs");
    (output.status.success(), output.stdout)
}

#[tokio::test]
async fn a_file_goes_to_whoever_has_its_link() {
    let (_source, setup) = setup(DUMP_BYTES).await;
    let service = setup.executor("delete_grace", "\"1h\"").start().await;
    let backup = service.clients.take("main", "first").await;
    let root = service.setup.artifact_root().join(&backup.path);
    let given = links(&service.clients, &backup).await.unwrap();
    assert_eq!(
        given.iter().map(|link| (link.shard_name.as_str(), link.file_name.as_str())).collect::<Vec<_>>(),
        [("shard1", "shard1-0.rdb"), ("shard1", "shard1-side.json"), ("", "manifest.json")]
    );
    for link in &given {
        let bytes = std::fs::read(root.join(&link.file_name)).unwrap();
        assert_eq!((link.bytes as usize, &link.sha256), (bytes.len(), &sha256(&bytes)));
        let left = link.expires_at.unwrap().seconds - Utc::now().timestamp();
        assert!((LIFE.as_secs() as i64 - 60..=LIFE.as_secs() as i64).contains(&left), "{left}");
        let port = service.address().rsplit_once(':').unwrap().1;
        assert!(link.url.starts_with(&format!("http://localhost:{port}/redkeep/v1/downloads/{}/", backup.id)), "{}", link.url);
        let answer = reqwest::get(&link.url).await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.content_length()), (200, Some(bytes.len() as u64)));
        assert!(answer.bytes().await.unwrap() == bytes, "{}", link.file_name);
    }

    let (link, bytes) = (target(&given[0].url), std::fs::read(root.join("shard1-0.rdb")).unwrap());
    let tag = format!("\"{}\"", sha256(&bytes));
    let head = get(&service, link, "HEAD", &[]).await;
    assert_eq!((head.status, head.body.len(), head.header("content-length")), (200, 0, Some(bytes.len().to_string().as_str())));
    assert_eq!(head.header("etag"), Some(tag.as_str()));
    assert_eq!(head.header("content-disposition"), Some("attachment; filename=\"first-shard1-0.rdb\""));
    assert_eq!(
        (head.header("accept-ranges"), head.header("cache-control"), head.header("x-content-type-options")),
        (Some("bytes"), Some("no-store"), Some("nosniff"))
    );

    let length = bytes.len();
    for (range, from, to) in [("0-0", 0, 1), ("1000000-2200000", 1_000_000, 2_200_001), ("2999000-", 2_999_000, length), ("-10", length - 10, length)] {
        let answer = get(&service, link, "GET", &[&format!("Range: bytes={range}"), &format!("If-Range: {tag}")]).await;
        assert_eq!((answer.status, answer.header("content-range")), (206, Some(format!("bytes {from}-{}/{length}", to - 1).as_str())), "{range}");
        assert!(answer.body == bytes[from..to], "{range}");
    }
    let beyond = get(&service, link, "GET", &[&format!("Range: bytes={length}-")]).await;
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some(format!("bytes */{length}").as_str())));
    assert_eq!(get(&service, link, "GET", &["Range: bytes=0-9", "If-Range: \"other\""]).await.status, 200);
    assert_eq!(get(&service, link, "GET", &[&format!("If-None-Match: {tag}")]).await.status, 304);

    // curl goes on where it was interrupted, and names the file as it is told.
    let room = tempfile::tempdir().unwrap();
    let part = room.path().join("part").display().to_string();
    assert!(run("curl", &["-sf", "-r", "0-1234567", "-o", &part, &given[0].url]).await.0);
    assert!(run("curl", &["-sf", "-C", "-", "-o", &part, &given[0].url]).await.0);
    assert!(std::fs::read(&part).unwrap() == bytes);
    assert!(run("curl", &["-sfOJ", "--output-dir", &room.path().display().to_string(), &given[0].url]).await.0);
    assert!(std::fs::read(room.path().join("first-shard1-0.rdb")).unwrap() == bytes);

    let delete = own::DeleteBackupRequest { backup_id: backup.id.clone() };
    let operation = service.clients.backups.clone().delete(delete).await.unwrap().into_inner();
    assert!(error_of(&service.clients.ended(&operation.id, OPERATION).await).is_none());
    let gone = get(&service, link, "GET", &[]).await;
    assert_eq!((gone.status, gone.text().contains("was deleted")), (410, true));
    assert_eq!(links(&service.clients, &backup).await.unwrap_err().code(), tonic::Code::FailedPrecondition);
    for line in downloads_on_record(service.setup.folder()) {
        let target = line["target"].as_str().unwrap();
        assert!(target.starts_with(&format!("backups/{}/", backup.id)) && line["subject"] == "anonymous" && line["folder"] == "default", "{line}");
    }
    assert_eq!(downloads_on_record(service.setup.folder()).len(), 15);
    service.stop().await;
}

#[tokio::test]
async fn a_link_is_good_for_its_file_alone() {
    let (_source, setup) = setup(DUMP_BYTES).await;
    let service = setup.secrets("key").start().await;
    let (backup, other) = (service.clients.take("main", "first").await, service.clients.take("main", "second").await);
    let given = links(&service.clients, &backup).await.unwrap();
    let link = target(&given[0].url);
    let signer = Signer::new(Key::read(&service.setup.folder().join("key")).unwrap().downloads(), String::new());
    let (past, future) = (Utc::now() - Duration::from_secs(1), Utc::now() + LIFE);
    let signed = |backup: &own::Backup, file: &str, at| signer.url(backup.id.parse().unwrap(), file, "me", at);
    for (target, status, words) in [
        (link.replace("shard1-0.rdb", "manifest.json"), 403, "altered"),
        (link.replace(&backup.id, &other.id), 403, "altered"),
        (link.replace("anonymous", "somebody"), 403, "altered"),
        (link.replace("expires=", "expires=9"), 403, "altered"),
        (link.split_once('?').unwrap().0.to_owned(), 403, "altered"),
        ("/redkeep/v1/downloads/".to_owned() + &backup.id, 403, "altered"),
        (signed(&backup, "shard1-0.rdb", past), 403, "has ended"),
        // What the service itself would not have signed.
        (signed(&backup, "attempt.json", future), 404, "no such file"),
        (signed(&backup, "shard1-1.rdb", future), 404, "no such file"),
    ] {
        let answer = get(&service, &target, "GET", &["Authorization: Bearer nothing"]).await;
        let told: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        assert!(answer.status == status && told["message"].as_str().unwrap().contains(words), "{target}: {} {told}", answer.status);
    }
    assert_eq!(get(&service, &signed(&backup, "shard1-0.rdb", future), "GET", &[]).await.status, 200);
    let post = get(&service, link, "POST", &[]).await;
    assert_eq!((post.status, post.header("allow")), (405, Some("GET, HEAD")));
    // A web page is no way in, whatever it knows.
    for header in ["Origin: https://evil.example", "Sec-Fetch-Site: cross-site"] {
        assert_eq!(get(&service, link, "GET", &[header]).await.status, 403, "{header}");
    }
    let rebound = ask(service.address(), &[&format!("GET {link} HTTP/1.1"), "Host: rebound.evil"], &[]).await;
    assert_eq!(rebound.status, 403);

    // With a key of its own the service honours its links after a restart, and not without.
    let service = service.stop().await.start().await;
    assert_eq!(get(&service, link, "GET", &[]).await.status, 200);
    let service = service.stop().await.without_secrets().start().await;
    assert_eq!(get(&service, link, "GET", &[]).await.status, 403);
    service.stop().await;
}

#[tokio::test]
async fn what_was_damaged_does_not_go_out_whole() {
    let (_source, setup) = setup(DUMP_BYTES).await;
    let service = setup.start().await;
    let backup = service.clients.take("main", "first").await;
    let given = links(&service.clients, &backup).await.unwrap();
    let file = service.setup.artifact_root().join(&backup.path).join("shard1-0.rdb");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let cut = get(&service, target(&given[0].url), "GET", &[]).await;
    assert!(cut.status == 200 && cut.body.len() < bytes.len(), "{}", cut.body.len());
    std::fs::write(&file, &bytes[..2_000_000]).unwrap();
    let cut = get(&service, target(&given[0].url), "GET", &[]).await;
    assert!(cut.body.len() <= 2_000_000, "{}", cut.body.len());
    // A manifest that is not ours vouches for nothing.
    let manifest = file.with_file_name("manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap().replace(&given[0].sha256, &"0".repeat(64));
    std::fs::write(&manifest, text).unwrap();
    assert_eq!(get(&service, target(&given[0].url), "GET", &[]).await.status, 500);
    assert_eq!(links(&service.clients, &backup).await.unwrap_err().code(), tonic::Code::DataLoss);
    service.stop().await;
}

/// Goal: the number of downloads at once is bounded, and a client that takes nothing is left. Method: clients with small buffers that
/// do not read.
#[tokio::test]
async fn downloads_are_bounded() {
    let (_source, setup) = setup(48_000_000).await;
    let service = setup.server("body_timeout", "\"1s\"").start().await;
    let backup = service.clients.take("main", "first").await;
    let link = links(&service.clients, &backup).await.unwrap().remove(0).url;
    let mut idle = Vec::new();
    for _ in 0..DOWNLOADS {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(service.address().parse().unwrap()).await.unwrap();
        stream.write_all(format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", target(&link)).as_bytes()).await.unwrap();
        assert_eq!(&stream.read_u64().await.unwrap().to_be_bytes(), b"HTTP/1.1");
        idle.push(stream);
    }
    let full = get(&service, target(&link), "GET", &[]).await;
    assert_eq!((full.status, full.header("retry-after")), (503, Some("5")));
    assert_eq!(get(&service, target(&link), "HEAD", &[]).await.status, 200);
    // Those who take nothing lose their places.
    until("there is room again", Duration::from_secs(200), async || {
        let answer = get(&service, target(&link), "GET", &["Range: bytes=0-9"]).await;
        (answer.status == 206).then_some(())
    })
    .await;
    drop(idle);
    service.stop().await;
}

#[tokio::test]
async fn links_need_a_role_and_their_use_none() {
    let (_source, setup) = setup(DUMP_BYTES).await;
    let file = setup.folder().join("tokens");
    std::fs::write(&file, "# nobody yet\n").unwrap();
    let token =
        async |subject: &str, role| redkeep::auth::tokens::create(&file, subject.to_owned(), Roles::read([("default", role)]).unwrap(), None).await.unwrap().0;
    let tokens = [token("eve", "viewer").await, token("rita", "restorer").await, token("olga", "editor").await];
    let service = setup.auth("mode = \"tokens\"\nfile = \"tokens\"").start().await;
    let owner = Clients::connect_as(&service.endpoint, &tokens[2]).await;
    let backup = owner.take("main", "first").await;
    let viewer = Clients::connect_as(&service.endpoint, &tokens[0]).await;
    assert_eq!(links(&viewer, &backup).await.unwrap_err().code(), tonic::Code::PermissionDenied);
    let restorer = Clients::connect_as(&service.endpoint, &tokens[1]).await;
    let given = links(&restorer, &backup).await.unwrap();
    assert_eq!(get(&service, target(&given[0].url), "GET", &[]).await.status, 200);
    let used = downloads_on_record(service.setup.folder());
    assert!(used.len() == 1 && used[0]["subject"] == "rita" && used[0]["outcome"] == "OK", "{used:?}");
    // Through REST and the command line, too.
    let rest = get(&service, &format!("/redkeep/v1/backups/{}/downloadLinks", backup.id), "GET", &[&format!("Authorization: Bearer {}", tokens[1])]).await;
    let told: Value = serde_json::from_slice(&rest.body).unwrap();
    assert_eq!((rest.status, told["links"][0]["fileName"].as_str()), (200, Some("shard1-0.rdb")));
    let (_, out) = run(env!("CARGO_BIN_EXE_redkeep"), &["backup", "download-links", &backup.id, "--endpoint", &service.endpoint, "--token", &tokens[1]]).await;
    let out = String::from_utf8(out).unwrap();
    let url = out.lines().find(|line| line.starts_with("http://localhost:")).unwrap_or_else(|| panic!("{out}"));
    assert!(run("curl", &["-sf", "-o", "/dev/null", url]).await.0);
    service.stop().await;
}

#[tokio::test]
async fn links_lead_to_the_advertised_address_over_tls() {
    let (_source, setup) = setup(DUMP_BYTES).await;
    let service = setup.tls("").server("advertise", "\"localhost:8443\"").start().await;
    let backup = service.clients.take("main", "first").await;
    let given = links(&service.clients, &backup).await.unwrap();
    assert!(given[0].url.starts_with("https://localhost:8443/"), "{}", given[0].url);
    let ca = service.setup.tls_folder().join("ca.pem").display().to_string();
    let port = service.address().rsplit_once(':').unwrap().1;
    for protocol in ["--http1.1", "--http2"] {
        let way = format!("localhost:8443:127.0.0.1:{port}");
        let (got, bytes) = run("curl", &["-sf", protocol, "--cacert", &ca, "--connect-to", &way, &given[0].url]).await;
        assert!(got && sha256(&bytes) == given[0].sha256, "{protocol}");
    }
    service.stop().await;
}

/// A store signs links by itself; one that cannot has its files given out by the service.
#[tokio::test]
async fn links_of_a_store() {
    for (kind, is_signed) in [(Kind::S3, true), (Kind::Azure, true), (Kind::Google, false)] {
        let Some(bucket) = Bucket::open(kind).await else { return };
        let source = ScriptedRedis::start(vec![generated_length(DUMP_BYTES, 4096, None)]).await;
        let service = Setup::new().artifacts(&bucket.lines("a")).cluster("main", &[&source.address()], "").start().await;
        let backup = service.clients.take("main", "first").await;
        for link in links(&service.clients, &backup).await.unwrap() {
            assert_eq!(!link.url.contains("/redkeep/v1/downloads/"), is_signed, "{kind:?}: {}", link.url);
            let answer = reqwest::get(&link.url).await.unwrap();
            assert_eq!(answer.status(), 200, "{kind:?}");
            assert_eq!(sha256(&answer.bytes().await.unwrap()), link.sha256, "{kind:?}");
        }
        service.stop().await;
    }
}
