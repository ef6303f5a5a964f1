//! Goal: whatever goes wrong, the target never takes a dump that is not right, and the answer says in which state it is. Method:
//! real servers that are killed, stopped and taken away in mid-load; artifacts that are spoiled before the check and after it.

use super::{assert_untouched, backed_up, facts, failed, failure, into, over, restore, restored, slow};
use crate::support::objects::{Bucket, Kind};
use crate::support::proxy::{Fault, Proxy, Rule};
use crate::support::server::RedisServer;
use crate::support::service::{OPERATION, Process, Service, Setup, error_of};
use crate::support::{compare, data, until};
use redkeep::pb::own;
use redkeep::pb::own::progress::Step;
use std::path::PathBuf;
use std::time::Duration;

/// The only artifact of a backup.
fn artifact(setup: &Setup, backup: &own::Backup) -> PathBuf {
    setup.artifact_root().join(&backup.path).join("shard1-0.rdb.zst")
}

fn flip(path: &std::path::Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// Waits until a target loads for an operation, or is about to.
async fn loading(service: &Service, operation: &str, target: &RedisServer) {
    until("the target follows the feed", super::SOON, async || {
        let step = service.clients.progress(operation).await.step();
        (step == Step::Load && target.info("role").await == "slave").then_some(())
    })
    .await;
}

/// Goal: what is damaged, missing or locked is found before the target is touched, with what it holds.
#[tokio::test]
async fn artifacts_that_are_not_right() {
    let (service, _source, backup) = backed_up(RedisServer::builder(), 5000, Setup::new()).await;
    let target = RedisServer::start().await;
    data::fill_small_keys(&target, 3).await;
    let path = artifact(&service.setup, &backup);
    let whole = std::fs::read(&path).unwrap();

    flip(&path);
    let (reason, message) = failed(&service.clients, over(&backup, &target, 3)).await;
    assert!(reason == "STORAGE_CORRUPT" && message.ends_with("the target is untouched"), "{message}");
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let (reason, message) = failed(&service.clients, over(&backup, &target, 3)).await;
    assert!(reason == "STORAGE_CORRUPT" && message.contains("bytes instead of"), "{message}");
    std::fs::remove_file(&path).unwrap();
    let (reason, message) = failed(&service.clients, over(&backup, &target, 3)).await;
    assert!(reason == "STORAGE_CORRUPT" && message.ends_with("the target is untouched"), "{message}");
    assert_untouched(&target, 3).await;
    std::fs::write(&path, &whole).unwrap();
    restored(&service.clients, over(&backup, &target, 3)).await;
    service.stop().await;
}

/// Goal: an artifact whose key is lost is told at once, and by the work when it is lost later.
#[tokio::test]
async fn a_lost_key() {
    let setup = Setup::new();
    let key = age::x25519::Identity::generate();
    let secret = {
        use age::secrecy::ExposeSecret;
        key.to_string().expose_secret().to_owned()
    };
    let file = setup.folder().join("identity");
    std::fs::write(&file, secret).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let lines = format!("url = \"file:artifacts\"\nage_recipients = [\"{}\"]\n", key.to_public());
    let with_key = format!("{lines}age_identity_file = \"identity\"");
    let (service, source, backup) = backed_up(RedisServer::builder(), 100, setup.artifacts(&with_key)).await;
    let target = RedisServer::start().await;
    restored(&service.clients, into(&backup, &target)).await;
    compare::assert_same_content(&source, &target).await;
    let service = service.stop().await.artifacts(&lines).start().await;
    let refused = restore(&service.clients, over(&backup, &target, 100)).await.unwrap_err();
    assert!(refused.message().contains("is encrypted"), "{refused:?}");
    service.stop().await;
}

/// A backup that a target takes a while to load, and the process of its service, which stops where it is told.
async fn process(point: &str) -> (Process, RedisServer, own::Backup, PathBuf) {
    let source = RedisServer::start().await;
    // More than is read ahead of what is sent.
    data::fill_mixed(&source, 16 << 20).await;
    let setup = Setup::new().artifacts("url = \"file:artifacts\"\ncompression = \"none\"").cluster("main", &[&source.address()], "");
    let go = setup.folder().join("go");
    let process = setup.spawn(&[("REDKEEP_HANG_AT", point), ("REDKEEP_HANG_UNTIL", go.to_str().unwrap())]).await;
    let backup = process.clients.take("main", "a").await;
    (process, source, backup, go)
}

/// Goal: an artifact that goes bad between the check and the load never reaches its end, so that the target does not load it.
/// Method: the service stops after the first bytes, the rest is spoiled, and it goes on.
#[tokio::test]
async fn an_artifact_that_goes_bad_after_the_check() {
    let (process, _source, backup, go) = process("restore.load").await;
    let target = RedisServer::start().await;
    let operation = restore(&process.clients, into(&backup, &target)).await.unwrap();
    // The target answers nothing while it waits in the middle of a load.
    until("bytes go out", super::SOON, async || {
        let progress = process.clients.progress(&operation.id).await;
        (progress.step() == Step::Load && progress.shards.iter().any(|shard| shard.bytes > 0)).then_some(())
    })
    .await;
    let path = process.setup.artifact_root().join(&backup.path).join("shard1-0.rdb");
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 9;
    bytes[last - 1000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    std::fs::write(&go, "").unwrap();
    let (reason, message) = failure(&process.clients.ended(&operation.id, OPERATION).await);
    assert_eq!(reason, "STORAGE_CORRUPT", "{message}");
    assert!(message.contains("the target is empty, and follows nobody"), "{message}");
    assert_untouched(&target, 0).await;
    assert!(target.pid() > 0 && !target.log().contains("Wrong RDB checksum"), "{}", target.log());
    process.terminate(OPERATION).await;
}

/// Goal: a target that dies in mid-load is loaded anew when it is back, and nothing is left of the first time.
#[tokio::test]
async fn a_target_that_dies_in_mid_load() {
    let (service, source, backup) = backed_up(RedisServer::builder(), 3000, Setup::new()).await;
    let mut target = slow(1000).start().await;
    let operation = restore(&service.clients, into(&backup, &target)).await.unwrap();
    loading(&service, &operation.id, &target).await;
    target.kill();
    let again = async || {
        let progress = service.clients.progress(&operation.id).await;
        (!progress.last_error.is_empty()).then_some(progress.last_error)
    };
    let told = until("the attempt failed", super::SOON * 3, again).await;
    assert!(told.contains("the target does not answer"), "{told}");
    target.restart().await;
    let ended = service.clients.ended(&operation.id, OPERATION).await;
    assert!(error_of(&ended).is_none(), "{ended:#?}");
    compare::assert_same_content(&source, &target).await;
    service.stop().await;
}

/// Goal: a cancellation frees the target at once and says how it is. Method: a dump that is longer than what lies between the two.
#[tokio::test]
async fn a_cancellation_in_mid_load() {
    let source = RedisServer::start().await;
    data::fill_mixed(&source, 24 << 20).await;
    let service = Setup::new().artifacts("url = \"file:artifacts\"\ncompression = \"none\"").cluster("main", &[&source.address()], "").start().await;
    let backup = service.clients.take("main", "a").await;
    let target = slow(1000).start().await;
    let operation = restore(&service.clients, into(&backup, &target)).await.unwrap();
    loading(&service, &operation.id, &target).await;
    let request = redkeep::pb::operation::CancelOperationRequest { operation_id: operation.id.clone() };
    service.clients.operations.clone().cancel(request).await.unwrap();
    let ended = service.clients.ended(&operation.id, Duration::from_secs(20)).await;
    let status = error_of(&ended).unwrap();
    assert_eq!(status.code, tonic::Code::Cancelled as i32);
    assert!(status.message.contains("the target is empty, and follows nobody"), "{}", status.message);
    assert_untouched(&target, 0).await;
    service.stop().await;
}

/// Goal: a target that somebody else takes meanwhile is theirs. Method: told in mid-load to follow another, or nobody.
#[tokio::test]
async fn a_target_that_somebody_takes() {
    let (service, source, backup) = backed_up(RedisServer::builder(), 3000, Setup::new()).await;
    let other = RedisServer::start().await;
    other.command(&["SET", "theirs", "1"]).await;
    // It comes late to the feed, so that there is time in which it can be told otherwise.
    let target = RedisServer::start().await;
    for (to, words) in [(["127.0.0.1".to_owned(), other.port().to_string()], "was made a replica of"), (["NO".into(), "ONE".into()], "to follow nobody")] {
        let listening = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listening.local_addr().unwrap().port();
        // What the target is told leads to somebody who says nothing.
        let setup = Setup::new().section(&format!("[restore]\nfeed_advertise = \"127.0.0.1:{port}\"")).cluster("main", &[&source.address()], "");
        let silent = setup.start().await;
        let backup = silent.clients.take("main", "b").await;
        target.command(&["REPLICAOF", "NO", "ONE"]).await.ok();
        target.command(&["FLUSHALL"]).await.ok();
        let operation = restore(&silent.clients, into(&backup, &target)).await.unwrap();
        loading(&silent, &operation.id, &target).await;
        target.command(&["REPLICAOF", &to[0], &to[1]]).await.ok();
        let (reason, message) = failure(&silent.clients.ended(&operation.id, OPERATION).await);
        assert!(reason == "TARGET_REFUSED" && message.contains(words), "{reason}: {message}");
        if to[0] == "127.0.0.1" {
            assert!(message.contains(&format!("follows {} and was left alone", other.address())), "{message}");
            target.wait_replica_linked().await;
            assert_eq!(target.command(&["GET", "theirs"]).await.text(), "1");
        } else {
            assert_eq!(facts(&target).await.0, "master");
        }
        silent.stop().await;
    }
    drop(backup);
    service.stop().await;
}

/// Goal: a feed that is cut on its way is told, the target is freed, and the next attempt fills it. Method: a proxy between.
#[tokio::test]
async fn a_feed_that_is_cut() {
    use tokio::io::AsyncReadExt;
    let source = RedisServer::start().await;
    data::fill_mixed(&source, 2 << 20).await;
    let front = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (advertised, behind) = (front.local_addr().unwrap().port(), free_port());
    let section = format!("[restore]\nfeed_listen = \"127.0.0.1:{behind}\"\nfeed_advertise = \"127.0.0.1:{advertised}\"");
    let service = Setup::new().section(&section).cluster("main", &[&source.address()], "").start().await;
    let backup = service.clients.take("main", "a").await;
    let target = RedisServer::start().await;
    let cutting = tokio::spawn(async move {
        let mut first = true;
        loop {
            let (mut near, _) = front.accept().await.unwrap();
            let Ok(mut far) = tokio::net::TcpStream::connect(("127.0.0.1", behind)).await else { continue };
            if std::mem::take(&mut first) {
                let (mut from, mut to) = near.split();
                let (far_from, mut far_to) = far.split();
                let mut cut = far_from.take(200_000);
                tokio::select! {
                    _ = tokio::io::copy(&mut cut, &mut to) => {}
                    _ = tokio::io::copy(&mut from, &mut far_to) => {}
                }
            } else {
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            }
        }
    });
    let operation = restore(&service.clients, into(&backup, &target)).await.unwrap();
    let told = until("the attempt failed", super::SOON, async || {
        let progress = service.clients.progress(&operation.id).await;
        (!progress.last_error.is_empty()).then_some(progress.last_error)
    })
    .await;
    assert!(told.contains("the target is empty, and follows nobody"), "{told}");
    let ended = service.clients.ended(&operation.id, OPERATION).await;
    assert!(error_of(&ended).is_none(), "{ended:#?}");
    compare::assert_same_content(&source, &target).await;
    cutting.abort();
    service.stop().await;
}

/// A port on which nobody listens at the moment.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Goal: a target that cannot come to the feed is told where it was sent, and is as it was. Method: a feed that is advertised
/// where nobody listens.
#[tokio::test]
async fn a_feed_that_is_not_found() {
    let source = RedisServer::start().await;
    data::fill_small_keys(&source, 10).await;
    let section = format!("[restore]\nfeed_advertise = \"127.0.0.1:{}\"", free_port());
    let service = Setup::new().executor("deadline", "\"5s\"").section(&section).cluster("main", &[&source.address()], "").start().await;
    let backup = service.clients.take("main", "a").await;
    let target = RedisServer::start().await;
    data::fill_small_keys(&target, 4).await;
    let (reason, message) = failed(&service.clients, over(&backup, &target, 4)).await;
    assert_eq!(reason, "TARGET_UNREACHABLE", "{message}");
    assert!(message.contains("did not come within 15 s") && message.contains("the target holds 4 keys, and follows nobody"), "{message}");
    assert_untouched(&target, 4).await;
    service.stop().await;
}

/// Goal: a slow storage makes the target wait, and is told; the target has everything in the end.
#[tokio::test]
async fn a_slow_storage() {
    let Some(bucket) = Bucket::open(Kind::S3).await else { return };
    let proxy = Proxy::start(bucket.server()).await;
    let source = RedisServer::start().await;
    data::fill_mixed(&source, 3 << 20).await;
    let lines = format!("{}\ncompression = \"none\"", bucket.lines_through("slow", &proxy.address()));
    let service = Setup::new().artifacts(&lines).cluster("main", &[&source.address()], "").start().await;
    let backup = service.clients.take("main", "a").await;
    let target = RedisServer::start().await;
    proxy.rule(Rule::new(Fault::Delay(Duration::from_secs(2))).method("GET").within(".rdb"));
    let operation = restore(&service.clients, into(&backup, &target)).await.unwrap();
    until("the wait is told", OPERATION, async || {
        let progress = service.clients.progress(&operation.id).await;
        (progress.waiting_for == "the artifact storage").then_some(())
    })
    .await;
    let ended = service.clients.ended(&operation.id, OPERATION).await;
    assert!(error_of(&ended).is_none(), "{ended:#?}");
    compare::assert_same_content(&source, &target).await;
    service.stop().await;
}
