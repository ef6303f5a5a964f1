//! Goal: the commands do what their help says, and no password stands on a command line. Method: the real program as a client.

use super::*;
use crate::support::service::{Service, Setup};
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Exit status, standard output and standard error of a run.
async fn redkeep(service: &Service, line: &str, input: &str, environment: &[(&str, &str)]) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_redkeep"))
        .args(line.split(' '))
        .envs(environment.iter().copied())
        .env("NO_COLOR", "1")
        .env("REDKEEP_ENDPOINT", &service.endpoint)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A run that reads nothing may have ended already.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = tokio::time::timeout(OPERATION, child.wait_with_output()).await.expect("it ends").unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn the_life_of_a_cluster() {
    let redis = guarded().await;
    let service = Setup::new().secrets("key").start().await;
    let node = redis.address();
    let file = service.setup.folder().join("password");
    std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    let file = file.display();

    let line = format!("cluster adopt --node {node} --id shop --name Shop --label team=shop --username backup --password-file {file} --wait");
    let (code, out, err) = redkeep(&service, &line, "", &[]).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("cluster shop was seen with health ALIVE"), "{out}");
    let (code, out, _) = redkeep(&service, "cluster list", "", &[]).await;
    assert!(code == 0 && out.contains("shop") && out.contains("RUNNING"), "{out}");
    let (code, _, err) = redkeep(&service, &line, "", &[]).await;
    assert!(code == 4 && err.contains("is taken"), "{err}");
    let (code, _, err) = redkeep(&service, "backup create shop --wait", "", &[]).await;
    assert_eq!(code, 0, "{err}");

    redis.command(&["ACL", "SETUSER", "backup", "resetpass", ">another-horse"]).await;
    let line = format!("cluster update-connection shop --node {node} --username backup --wait");
    let (code, _, err) = redkeep(&service, &format!("{line} --password-env SHOP_PASSWORD"), "", &[("SHOP_PASSWORD", PASSWORD)]).await;
    assert!(code == 1 && err.contains("SOURCE_CREDENTIALS"), "{err}");
    let (code, _, err) = redkeep(&service, &format!("{line} --password-file -"), "another-horse\n", &[]).await;
    assert_eq!(code, 0, "{err}");
    let (code, _, err) = redkeep(&service, &format!("cluster update-connection shop --node {node}"), "", &[]).await;
    assert!(code == 2 && err.contains("connection.credentials"), "{err}");
    let (code, _, err) = redkeep(&service, &format!("cluster update-connection shop --node {node} --no-credentials --wait"), "", &[]).await;
    assert_eq!(code, 0, "{err}");

    let (code, out, _) = redkeep(&service, "cluster forget shop", "", &[]).await;
    assert!(code == 0 && out.contains("started: Forget a cluster\ncluster shop\n"), "{out}");
    let (code, _, _) = redkeep(&service, "cluster forget shop --wait", "", &[]).await;
    assert!(code == 3 || code == 4, "it is gone, or going");
    service.stop().await;
}

#[tokio::test]
async fn a_key_is_written_once() {
    let service = Setup::new().start().await;
    let file = service.setup.folder().join("new-key");
    let line = format!("secrets new-key {}", file.display());
    let (code, out, _) = redkeep(&service, &line, "", &[]).await;
    let key = redkeep::secrets::Key::read(&file).unwrap();
    assert!(code == 0 && out.contains(key.id()) && out.contains("[secrets] key_file"), "{out}");
    let (code, _, err) = redkeep(&service, &line, "", &[]).await;
    assert!(code == 1 && err.contains("exists"), "{err}");
    assert_eq!(redkeep::secrets::Key::read(&file).unwrap(), key);
    service.stop().await;
}
