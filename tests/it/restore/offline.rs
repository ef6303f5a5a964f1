//! Goal: with the service gone, its storage is enough. Method: the real program on folders and buckets alone, and servers that
//! load what it wrote.

use super::{assert_untouched, backed_up};
use crate::support::objects::{Bucket, Kind};
use crate::support::server::RedisServer;
use crate::support::service::Setup;
use crate::support::{compare, data, load};
use std::path::Path;
use std::process::Stdio;
use tokio::process::Command;

/// Runs the program: its status, standard output and standard error.
async fn run(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_redkeep"))
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test]
async fn fetched_and_restored_from_a_folder() {
    let source = RedisServer::start().await;
    data::fill_every_type(&source, 2).await;
    let service = Setup::new().cluster("main", &[&source.address()], "").start().await;
    let backup = service.clients.take("main", "a").await;
    let setup = service.stop().await;
    let folder = setup.artifact_root().join(&backup.path);
    let to = setup.folder().join("restored");

    let (code, told, errors) = run(&["fetch", shown(&folder), "--to", shown(&to)], &[]).await;
    assert_eq!(code, Some(0), "{errors}");
    let rdb = to.join("shard1.rdb");
    assert!(told.contains(&backup.id) && told.contains(shown(&rdb)) && told.contains("whole"), "{told}");
    load::check_rdb(&rdb);
    compare::assert_same_content(&source, &load::load_rdb(&rdb).await).await;
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&rdb).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    // Nothing is replaced.
    let (code, _, errors) = run(&["fetch", shown(&folder.join("manifest.json")), "--to", shown(&to)], &[]).await;
    assert!(code == Some(1) && errors.contains("is there already"), "{errors}");

    let target = RedisServer::builder().password("secret").start().await;
    let login = ["--password-env", "TARGET_PASSWORD"];
    let url = format!("file:{}", folder.display());
    let address = target.address();
    let arguments = [&["restore", &url, "--into", &address][..], &login].concat();
    let (code, told, errors) = run(&arguments, &[("TARGET_PASSWORD", "secret")]).await;
    assert_eq!(code, Some(0), "{errors}");
    assert!(told.contains("holds the backup"), "{told}");
    compare::assert_same_content(&source, &target).await;
    let (code, _, errors) = run(&arguments, &[("TARGET_PASSWORD", "secret")]).await;
    assert!(code == Some(1) && errors.contains("--overwrite") && errors.contains("the target is untouched"), "{errors}");
}

/// Goal: what is damaged is neither written nor restored.
#[tokio::test]
async fn what_is_damaged_stays_where_it_is() {
    let (service, _source, backup) = backed_up(RedisServer::builder(), 2000, Setup::new()).await;
    let setup = service.stop().await;
    let folder = setup.artifact_root().join(&backup.path);
    let file = folder.join("shard1-0.rdb.zst");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let to = setup.folder().join("restored");
    let (code, _, errors) = run(&["fetch", shown(&folder), "--to", shown(&to)], &[]).await;
    assert!(code == Some(1) && errors.contains("shard1"), "{errors}");
    assert_eq!(std::fs::read_dir(&to).unwrap().count(), 0);
    let target = RedisServer::start().await;
    let (code, _, errors) = run(&["restore", shown(&folder), "--into", &target.address()], &[]).await;
    assert!(code == Some(1) && errors.contains("the target is untouched"), "{errors}");
    assert_untouched(&target, 0).await;
    let manifest = std::fs::read_to_string(folder.join("manifest.json")).unwrap();
    std::fs::write(folder.join("manifest.json"), manifest.replace("shard1-0.rdb.zst", "../../secret")).unwrap();
    let (code, _, errors) = run(&["fetch", shown(&folder), "--to", shown(&to)], &[]).await;
    assert!(code == Some(1) && errors.contains("can be none"), "{errors}");
    let (code, _, errors) = run(&["fetch", shown(&setup.folder().join("nowhere")), "--to", shown(&to)], &[]).await;
    assert!(code == Some(1) && errors.contains("cannot be read"), "{errors}");
}

/// Goal: a bucket of a store is enough, with its credentials from files.
#[tokio::test]
async fn restored_from_a_bucket() {
    let Some(bucket) = Bucket::open(Kind::S3).await else { return };
    let (service, source, backup) = backed_up(RedisServer::builder(), 2000, Setup::new().artifacts(&bucket.lines("backups"))).await;
    service.stop().await;
    let target = RedisServer::start().await;
    let url = format!("{}/{}", bucket.url("backups"), backup.path);
    let mut arguments = vec!["restore".to_owned(), url, "--into".to_owned(), target.address()];
    for line in bucket.lines("backups").lines().filter(|line| !line.starts_with("url")) {
        let (key, value) = line.split_once('=').unwrap();
        arguments.extend(["--storage".to_owned(), format!("{}={}", key.trim(), value.trim().trim_matches('"'))]);
    }
    let (code, told, errors) = run(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), &[]).await;
    assert_eq!(code, Some(0), "{errors}");
    assert!(told.contains("2000 keys"), "{told}");
    compare::assert_same_content(&source, &target).await;
}
