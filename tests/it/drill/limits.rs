//! Goal: a proof takes no more than it may, and what it may not have it says. Method: small limits, and programs that behave badly.

use super::*;
use crate::support::data::big_hollow_string;

#[tokio::test]
async fn a_backup_that_is_too_big_is_refused_with_the_reason() {
    let server = RedisServer::start().await;
    big_hollow_string(&server, "big", 60 << 20).await;
    let lines = "[drill]\nmemory_limit = \"32MiB\"\n";
    let service = Setup::new().cluster("main", &[&server.address()], "").bucket("reports", "exports", "[\"default\"]").sections(lines).start().await;
    let clients = &service.clients;
    let taken = clients.take("main", "first").await;
    let (reason, message) = refused(clients, &taken, Level::Loaded).await;
    assert!(reason == "DRILL_LIMITS" && message.contains("memory_limit"), "{reason}: {message}");
    // The other level needs no server.
    assert_eq!(proved(clients, &taken.id, Level::Walked).await.level(), Level::Walked);

    // What the source took is not known of an import, and the dump is small: the server is watched while it loads.
    let plain = service.setup.folder().join("exports/a.rdb");
    std::fs::create_dir_all(plain.parent().unwrap()).unwrap();
    crate::support::load::decompress(&service.setup.artifact_root().join(&taken.path).join("shard1-0.rdb.zst"), &plain);
    let import = own::ImportBackupRequest { cluster_id: "main".into(), bucket: "reports".into(), keys: vec!["a.rdb".into()], ..Default::default() };
    let import = bare(clients.backups.clone().import(import).await).unwrap();
    let made: own::Backup = response(&clients.ended(&import.id, OPERATION).await);
    let (reason, message) = refused(clients, &made, Level::Loaded).await;
    assert!(reason == "DRILL_LIMITS" && message.contains("bytes of memory"), "{reason}: {message}");
    nothing_is_left(&service.setup).await;
    service.stop().await;
}

#[tokio::test]
async fn without_a_fitting_program_it_says_what_would_do() {
    let server = RedisServer::start().await;
    let setup = Setup::new().cluster("main", &[&server.address()], "").sections(&engine(Path::new("/bin/true")));
    let service = setup.start().await;
    let taken = service.clients.take("main", "first").await;
    let (reason, message) = refused(&service.clients, &taken, Level::Loaded).await;
    assert!(reason == "NO_ENGINE" && message.contains("none was found") && message.contains("[engines] programs"), "{reason}: {message}");
    service.stop().await;
}

#[tokio::test]
async fn a_program_that_ends_or_never_loads_proves_nothing() {
    let server = RedisServer::start().await;
    let setup = Setup::new().cluster("main", &[&server.address()], "");
    let folder = setup.folder().to_owned();
    let ends = script(&folder, "ends", "echo '# Wrong RDB checksum'; exit 1");
    let hangs = script(&folder, "hangs", "exec sleep 600");
    let killed = script(&folder, "killed", "kill -9 $$");
    let service = setup.sections(&engine(&ends)).start().await;
    let taken = service.clients.take("main", "first").await;
    let (reason, message) = refused(&service.clients, &taken, Level::Loaded).await;
    assert!(reason == "NOT_PROVED" && message.contains("the checksum is wrong"), "{reason}: {message}");
    let setup = service.stop().await;
    std::fs::copy(&killed, &ends).unwrap();
    let service = setup.start().await;
    let (reason, message) = refused(&service.clients, &taken, Level::Loaded).await;
    assert!(reason == "DRILL_LIMITS" && message.contains("out of memory"), "{reason}: {message}");
    let setup = service.stop().await;
    std::fs::copy(&hangs, &ends).unwrap();
    let service = setup.sections("[drill]\ntimeout = \"1s\"\n").start().await;
    let (reason, message) = refused(&service.clients, &taken, Level::Loaded).await;
    assert!(reason == "DRILL_LIMITS" && message.contains("[drill] timeout"), "{reason}: {message}");
    nothing_is_left(&service.setup).await;
    service.stop().await;
}

/// Goal: one server at a time, and a proof can be given up. Method: a server that never loads, and a second proof behind it.
#[tokio::test]
async fn one_at_a_time_and_a_cancellation_ends_the_server() {
    let server = RedisServer::start().await;
    let setup = Setup::new().cluster("main", &[&server.address()], "");
    let hangs = script(setup.folder(), "hangs", "exec sleep 600");
    let service = setup.sections(&engine(&hangs)).start().await;
    let clients = &service.clients;
    let (first, second) = (clients.take("main", "first").await, clients.take("main", "second").await);
    let running = verify(clients, &first.id, Level::Loaded).await.unwrap();
    let folder = scratch(&service.setup);
    until("the server is started", SOON, async || (processes_below(&folder).len() == 1).then_some(())).await;
    let waiting = verify(clients, &second.id, Level::Loaded).await.unwrap();
    until("the second waits", SOON, async || clients.progress(&waiting.id).await.waiting_for.contains("another proof").then_some(())).await;
    assert_eq!(processes_below(&folder).len(), 1);
    for operation in [&waiting, &running] {
        let request = redkeep::pb::operation::CancelOperationRequest { operation_id: operation.id.clone() };
        clients.operations.clone().cancel(request).await.unwrap();
        let ended = clients.ended(&operation.id, SOON).await;
        assert_eq!(error_of(&ended).map(|status| status.code), Some(Code::Cancelled as i32), "{ended:#?}");
    }
    nothing_is_left(&service.setup).await;
    assert_eq!(clients.backup(&first.id).await.unwrap(), first);
    service.stop().await;
}
